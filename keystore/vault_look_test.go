package keystore_test

import (
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"bulkhead/keystore"
	"bulkhead/provider"
	"bulkhead/tenant/tenanttest"
)

// Look finds out what the token may do and how long, and changes nothing.
func TestVaultLook(t *testing.T) {
	b := server(t)
	b.setUp(t)
	token := func(ttl string, renewable bool, policies ...string) keystore.VaultOptions {
		t.Helper()
		made := b.must(t)(b.Auth().Token().CreateOrphan(&api.TokenCreateRequest{Policies: policies, NoDefaultPolicy: true, TTL: ttl, Renewable: &renewable}))
		return keystore.VaultOptions{Addr: b.addr, Token: provider.NewSecret(made.Auth.ClientToken)}
	}
	policy := func(name, text string) string {
		t.Helper()
		if err := b.Sys().PutPolicy(name, text); err != nil {
			t.Fatal(err)
		}
		return name
	}
	f := func(o keystore.VaultOptions, missing string, check func(l keystore.VaultLooked) bool) {
		t.Helper()
		l, err := open(t, o).Look(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(l.Missing, "; "); got != missing || !strings.HasPrefix(l.Version, "2.") || !check(l) {
			t.Errorf("missing %q, want %q, in %+v", got, missing, l)
		}
	}
	within := func(l keystore.VaultLooked) bool { return l.Ends > 50*time.Minute && l.Ends <= time.Hour }
	f(token("1h", true, "bulkhead"), "", func(l keystore.VaultLooked) bool {
		return within(l) && l.Renewable && !l.Again && !l.Unasked && !l.All
	})
	f(token("1h", false, "bulkhead"), "", func(l keystore.VaultLooked) bool { return within(l) && !l.Renewable })
	f(b.role(t, "1h", "2h"), "", func(l keystore.VaultLooked) bool { return within(l) && l.Again })
	f(keystore.VaultOptions{Addr: b.addr, Token: provider.NewSecret(b.Token())}, "", func(l keystore.VaultLooked) bool { return l.All && l.Ends == 0 })

	const self = "\npath \"auth/token/lookup-self\" {\n capabilities = [\"read\"]\n}\n"
	const ask = "path \"sys/capabilities-self\" {\n capabilities = [\"update\"]\n}\n"
	const read = "path \"secret/data/bulkhead/companies/+/providers/+\" {\n capabilities = [\"read\"]\n}\n"
	place := "secret/data/bulkhead/companies/none/providers/none"
	f(token("1h", true, policy("look-read", read+self+ask)),
		"create at "+place+"; update at "+place+"; delete at "+strings.Replace(place, "data", "metadata", 1)+
			"; list at secret/metadata/bulkhead/companies/none/providers/; create at secret/data/bulkhead/operator/providers/none"+
			"; read at secret/data/bulkhead/operator/providers/none; update at secret/data/bulkhead/operator/providers/none"+
			"; delete at secret/metadata/bulkhead/operator/providers/none",
		func(l keystore.VaultLooked) bool { return !l.Unasked && !l.All })
	f(token("1h", true, policy("look-unasked", read+self)), "", func(l keystore.VaultLooked) bool { return l.Unasked })

	bad := func(o keystore.VaultOptions, want, version string) {
		t.Helper()
		l, err := open(t, o).Look(t.Context())
		if err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(l.Version, version) {
			t.Errorf("got %+v, %v, want %q", l, err, want)
		}
	}
	o := token("1h", true, "bulkhead")
	o.Mount = "elsewhere"
	bad(o, "elsewhere", "2.")
	o = token("1h", true, "bulkhead")
	o.Prefix = "elsewhere"
	bad(o, "cannot read credentials below", "2.")
	bad(keystore.VaultOptions{Addr: b.addr, Token: provider.NewSecret("s.nobody")}, "token for vault has ended", "2.")
	bad(keystore.VaultOptions{Addr: "http://127.0.0.1:1", Token: provider.NewSecret("s.nobody")}, "cannot reach vault", "")
}

// Plan says what Move does then, and does nothing itself.
func TestPlan(t *testing.T) {
	from, to := newFixture(t, keystore.Options{}), newFixture(t, keystore.Options{})
	a := tenanttest.Scope(t, "a")
	to.put(a, "kept", secretA)
	from.put(a, "kept", secretB)
	to.put(a, "kept", secretA) // later
	from.put(a, "same", secretA)
	to.put(a, "same", secretA)
	from.put(a, "new", secretA)
	for range 2 {
		got, err := keystore.Plan(t.Context(), a, from.Keystore, to.Keystore)
		if err != nil || strings.Join(got.Written, " ") != "new" || strings.Join(got.Same, " ") != "same" || strings.Join(got.Kept, " ") != "kept" || len(got.Removed) != 0 {
			t.Fatalf("planned %+v, %v", got, err)
		}
	}
	all, err := to.List(t.Context(), a)
	if err != nil || len(all) != 2 {
		t.Fatalf("planning left %+v, %v", all, err)
	}
	got, err := keystore.Move(t.Context(), a, from.Keystore, to.Keystore)
	if err != nil || strings.Join(got.Written, " ") != "new" || len(got.Removed) != 3 {
		t.Fatalf("moved %+v, %v", got, err)
	}
}
