package test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"bulkhead/test/scale"
	"bulkhead/test/servers"
)

// bao is an OpenBao server with the gateway's policy, seen as its root.
type bao struct {
	*servers.Server
	addr string
}

// newBao starts a server in mode dev or raft.
func newBao(t *testing.T, mode string) *bao {
	t.Helper()
	b := &bao{Server: servers.Start(t, "bao", "BAO_MODE="+mode)}
	b.addr = b.Var("VAULT_ADDR")
	policy, err := os.ReadFile("../deploy/vault/policy.hcl")
	if err != nil {
		t.Fatal(err)
	}
	b.do(t, http.MethodPut, "sys/policies/acl/bulkhead", map[string]any{"policy": string(policy)}).want(t, "the policy", http.StatusNoContent)
	return b
}

// do sends a request as root.
func (b *bao) do(t *testing.T, method, path string, body any) answer {
	t.Helper()
	return ask(t, method, b.addr+"/v1/"+path, b.Var("VAULT_TOKEN"), body)
}

// data reads a value of the answer's data, or what is in its place.
func data[T any](t *testing.T, a answer, in, name string) (v T) {
	t.Helper()
	var all map[string]json.RawMessage
	if err := json.Unmarshal(a.body, &all); err != nil {
		t.Fatal(err)
	}
	var values map[string]json.RawMessage
	if err := json.Unmarshal(all[in], &values); err != nil {
		t.Fatalf("%s in %s", err, a.body)
	}
	if err := json.Unmarshal(values[name], &v); err != nil {
		t.Fatalf("%s in %s", err, a.body)
	}
	return v
}

// token makes a token that may do what the gateway needs.
func (b *bao) token(t *testing.T) string {
	t.Helper()
	made := b.do(t, http.MethodPost, "auth/token/create", map[string]any{"policies": []string{"bulkhead"}, "no_default_policy": true, "ttl": "1h"})
	return data[string](t, made.want(t, "a token", http.StatusOK), "auth", "client_token")
}

// role makes a role to log in with and returns what a gateway must know of it.
func (b *bao) role(t *testing.T) (env []string) {
	t.Helper()
	b.do(t, http.MethodPost, "sys/auth/approle", map[string]any{"type": "approle"}).want(t, "AppRole", http.StatusNoContent)
	b.do(t, http.MethodPost, "auth/approle/role/bulkhead", map[string]any{
		"token_policies": "bulkhead", "token_no_default_policy": true, "token_ttl": "1h", "token_max_ttl": "24h",
	}).want(t, "the role", http.StatusNoContent)
	id := data[string](t, b.do(t, http.MethodGet, "auth/approle/role/bulkhead/role-id", nil), "data", "role_id")
	secret := data[string](t, b.do(t, http.MethodPost, "auth/approle/role/bulkhead/secret-id", map[string]any{}), "data", "secret_id")
	return []string{"BULKHEAD_VAULT_ADDR=" + b.addr, "BULKHEAD_VAULT_ROLE_ID=" + id, "BULKHEAD_VAULT_SECRET_ID=" + secret}
}

// revokeRole ends every token that was made by logging in.
func (b *bao) revokeRole(t *testing.T) (n int) {
	t.Helper()
	all := b.do(t, "LIST", "auth/token/accessors", nil).want(t, "the tokens", http.StatusOK)
	for _, accessor := range data[[]string](t, all, "data", "keys") {
		of := map[string]string{"accessor": accessor}
		if a := b.do(t, http.MethodPost, "auth/token/lookup-accessor", of); a.status == http.StatusOK && strings.Contains(string(a.body), `"role_name":"bulkhead"`) {
			b.do(t, http.MethodPost, "auth/token/revoke-accessor", of).want(t, "a token is revoked", http.StatusNoContent)
			n++
		}
	}
	return n
}

func (b *bao) seal(t *testing.T) {
	t.Helper()
	b.do(t, http.MethodPut, "sys/seal", nil).want(t, "sealed", http.StatusNoContent)
}

func (b *bao) unseal(t *testing.T) {
	t.Helper()
	key, err := os.ReadFile(filepath.Join(b.Dir, "unseal"))
	if err != nil {
		t.Fatal(err)
	}
	b.do(t, http.MethodPut, "sys/unseal", map[string]string{"key": strings.TrimSpace(string(key))}).want(t, "unsealed", http.StatusOK)
}

// credentialTTL is how long a credential from Vault is used without asking
// again, up to a tenth more or less (docs/vault.md).
const credentialTTL = 5 * time.Minute

// TestVaultInTrouble seals, stops and restarts Vault, and revokes the gateways'
// tokens, with traffic running. Who is in memory does not notice for as long as
// that lives; who is not is refused with 503, never served with another key; and
// all is well again by itself. (DESIGN section 10.)
func TestVaultInTrouble(t *testing.T) {
	s := scale.Of(t)
	b := newBao(t, "raft")
	f := newFleet(t, s, fleetOptions{companies: 4, env: b.role(t)})
	warm, cold := f.members[:3], f.members[3]
	tr := f.traffic(t, s, warm...)
	// forget makes every gateway ask Vault for every credential with the next
	// call, because of a change of policy, and waits until those calls were made
	// but for those of cold.
	forget := func() {
		t.Helper()
		for _, m := range f.members {
			f.all[0].setRoute(t, m.company, fmt.Sprint("route-", time.Now().UnixNano()), "up/ok")
		}
		tr.settles(t, warm...)
	}
	served := func(what string) {
		t.Helper()
		for i, g := range f.all {
			eventually(t, 10*time.Second, fmt.Sprintf("%s, at gateway %d", what, i), func() bool { return g.chat(t, cold.APIKey, "up/ok").status == http.StatusOK })
		}
	}
	away := func(what string, begin, end func()) {
		t.Helper()
		forget()
		began := time.Now()
		begin()
		var refused sync.WaitGroup
		for i, g := range f.all {
			refused.Go(func() {
				a, err := tryAsk(t.Context(), http.MethodPost, g.URL+"/v1/chat/completions", cold.APIKey, chatBody("up/ok", "Hello"))
				if took := time.Since(began); err != nil || a.status != http.StatusServiceUnavailable || took > 15*time.Second {
					t.Errorf("%s: a credential that is not in memory, at gateway %d after %s: status %d, %v: %s", what, i, took, a.status, err, a.body)
				}
			})
		}
		refused.Wait()
		tr.flows(t, 100)
		if s.Full() {
			for i, g := range f.all {
				for _, m := range warm {
					eventually(t, 2*credentialTTL, fmt.Sprintf("%s: what gateway %d has of %s ends", what, i, m.Name), func() bool {
						return g.chat(t, m.APIKey, "up/ok").status == http.StatusServiceUnavailable
					})
				}
			}
			lived := time.Since(began)
			if lived < credentialTTL*8/10 {
				t.Errorf("%s: credentials lived %s", what, lived)
			}
			s.Figure(what+": credentials lived", lived)
		}
		end()
		served(what + ": it is served again")
		for i := range f.all {
			for _, m := range warm {
				f.knows(t, i, m)
			}
		}
	}
	away("sealed", func() { b.seal(t) }, func() { b.unseal(t) })
	away("stopped", func() {
		if err := b.Stop(); err != nil {
			t.Fatal(err)
		}
	}, func() {
		if err := b.Again(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
	for range scale.Pick(s, 1, 20) {
		forget()
		if n := b.revokeRole(t); n < len(f.all) {
			t.Errorf("%d tokens were revoked, there are %d gateways", n, len(f.all))
		}
		served("with the next token")
		f.obey(t, cold, 0, 1, 2) // which writes to Vault
	}
	calls := tr.stop()
	none(t, calls, func(c *sent) bool { return s.Full() && c.status == http.StatusServiceUnavailable })
	f.account(t, s, calls, nil)
}
