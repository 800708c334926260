package test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bulkhead/test/upstream"
)

// TestVault runs the gateway with OpenBao, whose policy gives it no more than it
// needs: credentials set through the API are there and nowhere else, each
// company's its own, and gone when the company is erased.
func TestVault(t *testing.T) {
	bao := newBao(t, "dev")
	vault := func(method, path string, body any) answer { t.Helper(); return bao.do(t, method, path, body) }
	up := upstream.New(t)
	g := prepare(t, "providers:\n  up: {kind: custom, base_url: "+up.BaseURL()+"}\n", "BULKHEAD_VAULT_ADDR="+bao.addr, "BULKHEAD_VAULT_TOKEN="+bao.token(t))
	if r := g.command(t, nil, "", "check", "-config", filepath.Join(g.dir(), "bulkhead.yaml")); r.code != 0 || !strings.Contains(r.out, "the token may do what the gateway needs") {
		t.Fatalf("gateway check: %s%s", r.out, r.err)
	}
	run := g.serve(t)
	var other company
	g.call(t, http.MethodPost, g.OpsURL+"/admin/companies", g.Operator, map[string]any{"name": "other"}, &other)

	const canary = "sk-vault-canary-"
	for i, c := range []company{g.Demo, other} {
		g.chat(t, c.APIKey, "up/ok").want(t, "without a credential", http.StatusNotFound)
		for version := range 2 {
			secret := fmt.Sprint(canary, i, "-", version)
			g.setCredential(t, c, "up", secret)
			g.chat(t, c.APIKey, "up/ok").want(t, "with a credential", http.StatusOK)
			if last, _ := up.Last(); last.Header.Get("Authorization") != "Bearer "+secret {
				t.Errorf("company %d: the provider was sent another credential", i)
			}
		}
		vault(http.MethodGet, "secret/data/bulkhead/companies/"+c.ID+"/providers/up", nil).want(t, "the secret in Vault", http.StatusOK)
	}

	// Swapped by hand, a secret says whose it is, and nothing is sent.
	stolen := vault(http.MethodGet, "secret/data/bulkhead/companies/"+other.ID+"/providers/up", nil)
	var secret struct{ Data struct{ Data map[string]any } }
	if err := json.Unmarshal(stolen.body, &secret); err != nil {
		t.Fatal(err)
	}
	vault(http.MethodPost, "secret/data/bulkhead/companies/"+g.Demo.ID+"/providers/up", map[string]any{"data": secret.Data.Data}).want(t, "the swap", http.StatusOK)
	run.stop(t)
	run = g.launch(t) // with nothing in memory
	g.waitReady(t, run.ended)
	before := len(up.Requests())
	g.chat(t, g.Demo.APIKey, "up/ok").want(t, "with another company's secret", http.StatusInternalServerError)
	if len(up.Requests()) != before {
		t.Error("another company's secret was sent")
	}
	g.chat(t, other.APIKey, "up/ok").want(t, "the other company", http.StatusOK)

	g.call(t, http.MethodPost, g.OpsURL+"/admin/companies/"+other.ID+"/erase", g.Operator, map[string]any{}, nil)
	vault(http.MethodGet, "secret/metadata/bulkhead/companies/"+other.ID+"/providers/up", nil).want(t, "after the erasure", http.StatusNotFound)
	run.stop(t)

	// No secret was left on this side.
	err := filepath.WalkDir(g.dir(), func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if err == nil && strings.Contains(string(b), canary) {
			t.Errorf("%s holds a secret", d.Name())
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
