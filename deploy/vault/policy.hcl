# What the gateway may do in Vault or OpenBao, and nothing else. It is for the
# mount "secret" and the prefix "bulkhead" (vault_mount, vault_prefix); put in
# yours if they are others. + stands for one part of a path.
#
#   vault policy write bulkhead deploy/vault/policy.hcl
#
# If credentials are put by hand only, "read" is all it needs on data/…, and the
# metadata/…/+ rule can go.

path "secret/data/bulkhead/companies/+/providers/+" {
  capabilities = ["create", "read", "update"]
}

# Deletes a credential with all its versions.
path "secret/metadata/bulkhead/companies/+/providers/+" {
  capabilities = ["delete"]
}

path "secret/metadata/bulkhead/companies/+/providers/" {
  capabilities = ["list"]
}

# What the operator lends: see docs/vault.md. Nothing lists here.
path "secret/data/bulkhead/operator/providers/+" {
  capabilities = ["create", "read", "update"]
}
path "secret/metadata/bulkhead/operator/providers/+" {
  capabilities = ["delete"]
}

# Its own token. The policy "default" has these, too; with them here the token
# does without it (token_no_default_policy=true).
path "auth/token/lookup-self" {
  capabilities = ["read"]
}
path "auth/token/renew-self" {
  capabilities = ["update"]
}

# Lets `gateway check` ask what the token may do. The gateway does without.
path "sys/capabilities-self" {
  capabilities = ["update"]
}
