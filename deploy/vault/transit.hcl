# What the gateway may do with the key that seals its master key: "bulkhead" of
# the engine at "transit" (vault_transit_key, vault_transit_mount). It comes on
# top of policy.hcl; with vault_credentials: false it is all a gateway needs.
#
#   vault secrets enable transit
#   vault write -f transit/keys/bulkhead
#   vault policy write bulkhead-transit deploy/vault/transit.hcl

# At each start.
path "transit/decrypt/bulkhead" {
  capabilities = ["update"]
}

# At the first start of a new installation, and for `gateway master seal`. After
# that, gateways do without.
path "transit/encrypt/bulkhead" {
  capabilities = ["update"]
}
path "transit/rewrap/bulkhead" {
  capabilities = ["update"]
}

# Ends the token it logged in for, once it has the key.
path "auth/token/revoke-self" {
  capabilities = ["update"]
}
