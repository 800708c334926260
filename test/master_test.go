package test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bulkhead/test/upstream"
)

// TestMasterTransit has the master key of a running installation sealed by Vault:
// its keys and the credentials sealed in its store stay good, through a new
// version of Vault's key, and nothing starts without Vault.
func TestMasterTransit(t *testing.T) {
	up, b := upstream.New(t), newBao(t, "dev")
	b.do(t, http.MethodPost, "sys/mounts/transit", map[string]any{"type": "transit"}).want(t, "transit", http.StatusNoContent)
	b.do(t, http.MethodPost, "transit/keys/bulkhead", map[string]any{}).want(t, "the key", http.StatusOK)
	policy, err := os.ReadFile("../deploy/vault/transit.hcl")
	if err != nil {
		t.Fatal(err)
	}
	b.do(t, http.MethodPut, "sys/policies/acl/bulkhead", map[string]any{"policy": string(policy)}).want(t, "the policy", http.StatusNoContent)
	role := b.role(t)

	g := prepare(t, "providers:\n  up: {kind: custom, base_url: "+up.BaseURL()+"}\n")
	p := g.serve(t)
	g.setCredential(t, g.Demo, "up", "sk-sealed")
	p.stop(t)
	sealedWith := func() string {
		t.Helper()
		text, err := os.ReadFile(filepath.Join(g.Data, "master.key"))
		if err != nil {
			t.Fatal(err)
		}
		return string(text[:min(len(text), 9)])
	}

	config := filepath.Join(g.dir(), "bulkhead.yaml")
	open := g.with(append(role, "BULKHEAD_VAULT_CREDENTIALS=false", "BULKHEAD_VAULT_TRANSIT_KEY=bulkhead")...)
	g.fails(t, nil, "", "vault_transit_key is not set", "master", "seal", "-config", config)
	open.fails(t, nil, "", "run gateway master seal", "serve", "-config", config)
	if out := open.ok(t, nil, "", "master", "seal", "-config", config); !strings.Contains(out, "is sealed with") || sealedWith() != "vault:v1:" {
		t.Fatalf("%q, and the file begins with %q", out, sealedWith())
	}
	works := func() {
		t.Helper()
		only(t, open.check(t), "failed")
		p := open.launch(t)
		open.waitReady(t, p.ended)
		open.chat(t, g.Demo.APIKey, "up/ok").want(t, "a call", http.StatusOK)
		if last, _ := up.Last(); last.Header.Get("Authorization") != "Bearer sk-sealed" {
			t.Error("the credential in the store did not open")
		}
		p.stop(t)
	}
	works()
	g.fails(t, nil, "", "set vault_transit_key", "serve", "-config", config)

	b.do(t, http.MethodPost, "transit/keys/bulkhead/rotate", map[string]any{}).want(t, "a new version", http.StatusOK)
	open.ok(t, nil, "", "master", "seal", "-config", config)
	b.do(t, http.MethodPost, "transit/keys/bulkhead/config", map[string]any{"min_decryption_version": 2}).want(t, "the end of the old one", http.StatusOK)
	if sealedWith() != "vault:v2:" {
		t.Errorf("the file begins with %q", sealedWith())
	}
	works()
	b.do(t, http.MethodPost, "transit/keys/bulkhead/config", map[string]any{"deletion_allowed": true}).want(t, "deletion", http.StatusOK)
	b.do(t, http.MethodDelete, "transit/keys/bulkhead", nil).want(t, "no key", http.StatusNoContent)
	open.fails(t, nil, "", "vault answered 400", "serve", "-config", config)
}
