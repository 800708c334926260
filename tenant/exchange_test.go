package tenant_test

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"bulkhead/fault"
	"bulkhead/tenant"
	"bulkhead/tenant/tenanttest"
)

func asJSON(t testing.TB, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func exchange(w *tenanttest.World, token string, provider, account string) (tenant.Exchanged, error) {
	return w.Exchange(w.Context(), tenant.Exchange{Token: []byte(token), Provider: provider, AccountID: account})
}

func TestExchange(t *testing.T) {
	w, i, s, c := discovered(t)
	provider := "wip_" + s.ID().Locator()
	f := func(life, want time.Duration) {
		t.Helper()
		claims := i.Claims(s.ID().Audience(), "ann")
		claims["iat"], claims["exp"] = c.now().Unix(), c.now().Add(life).Unix()
		x, err := exchange(w, i.Sign("first", nil, claims), provider, "svc_acct_1")
		if err != nil {
			t.Fatal(err)
		}
		if x.For > want || x.For < want-2*time.Second {
			t.Errorf("the key of a token for %s is valid for %s, want %s", life, x.For, want)
		}
		got := wantScope(t, w.Directory, x.Value)
		if got.ID() != s.ID() || got.EndUser() != tenant.UserID(s, i.Name+"#ann") || got.Rule() == nil {
			t.Errorf("the key opens %v", got.ID())
		}
		before := c.now()
		c.add(x.For - time.Second)
		wantScope(t, w.Directory, x.Value)
		c.add(2 * time.Second)
		wantRefused(t, w.Directory, x.Value, fault.Unauthenticated, "expired_api_key")
		c.add(before.Sub(c.now())) // back
	}
	f(10*time.Minute, 11*time.Minute) // with what a clock may be wrong by
	f(10*time.Hour, time.Hour)

	refused := func(what, token, provider, account string, kind fault.Kind) {
		t.Helper()
		x, err := exchange(w, token, provider, account)
		if !fault.Is(err, kind) || x.Value != "" {
			t.Errorf("%s: %v", what, err)
		}
	}
	token := i.Token(s.ID().Audience(), "ann")
	refused("another account", token, provider, "svc_acct_2", fault.Forbidden)
	refused("another provider", token, "wip_other", "svc_acct_1", fault.Forbidden)
	refused("no account", token, provider, "", fault.Forbidden)
	refused("a key", "sk-bh-live-x", provider, "svc_acct_1", fault.Unauthenticated)
	refused("nothing", "", provider, "svc_acct_1", fault.Unauthenticated)
	refused("a bad token", token[:len(token)-4]+"AAAA", provider, "svc_acct_1", fault.Unauthenticated)
	long := i.Claims(s.ID().Audience(), "ann")
	long["pad"] = strings.Repeat("x", 9000)
	if _, err := exchange(w, i.Sign("first", nil, long), provider, "svc_acct_1"); err == nil || !strings.Contains(err.Error(), "longer than") {
		t.Errorf("a long token: %v", err)
	}
	// What was refused for one account is not refused for another.
	if _, err := exchange(w, token, provider, "svc_acct_1"); err != nil {
		t.Error(err)
	}
}

// TestExchangedForged: every byte of a key that was given out counts, and so does
// the company whose name stands in it.
func TestExchangedForged(t *testing.T) {
	w, i, s, _ := discovered(t)
	_, other := w.Company("other", tenant.KeyAdmin, nil)
	w.Trust(other, i, i.JWKS(), "ann", func(p *tenant.IdentityProvider, r *tenant.FederationRule) { r.ID = "rule_" + s.ID().Locator() })
	x, err := exchange(w, i.Token(s.ID().Audience(), "ann"), "wip_"+s.ID().Locator(), "svc_acct_1")
	if err != nil {
		t.Fatal(err)
	}
	key := x.Value
	at := strings.LastIndex(key, "-"+strings.SplitN(key, "-", 5)[4]) + 1
	raw, err := base64.RawURLEncoding.DecodeString(key[at:])
	if err != nil {
		t.Fatal(err)
	}
	for n := range raw {
		bad := append([]byte(nil), raw...)
		bad[n] ^= 1
		if got, err := w.Authenticate(t.Context(), []byte(key[:at]+base64.RawURLEncoding.EncodeToString(bad))); err == nil || got != (tenant.Scope{}) {
			t.Fatalf("a key with byte %d changed is let in", n)
		}
	}
	for _, bad := range []string{strings.Replace(key, s.ID().Locator(), other.ID().Locator(), 1), key + "A", key[:len(key)-1], key[:at], "sk-bh-tmp-", "sk-bh-tmp-" + strings.Repeat("A", 1000)} {
		if got, err := w.Authenticate(t.Context(), []byte(bad)); !fault.Is(err, fault.Unauthenticated) || got != (tenant.Scope{}) {
			t.Errorf("%s: %v", bad, err)
		}
	}
	wantScope(t, w.Directory, key)
}

// TestRestricted: a rule with scopes grants those, in its project and nowhere else.
func TestRestricted(t *testing.T) {
	w, i := tenanttest.New(t, lab()), newIssuer(t)
	_, s := w.Company("acme", tenant.KeyAdmin, nil)
	w.Trust(s, i, i.JWKS(), "ann", func(_ *tenant.IdentityProvider, r *tenant.FederationRule) {
		r.Scopes = []string{tenant.KeysRead.String(), tenant.AuditRead.String()} // the second is no project's
	})
	got := wantScope(t, w.Directory, i.Token(s.ID().Audience(), "ann"))
	if p := got.ProjectID(); !got.Allows(p, tenant.KeysRead) || got.Allows(p, tenant.ModelRequest) || got.Allows(p, tenant.AuditRead) || got.Allows("", tenant.KeysRead) {
		t.Errorf("it may do %v", got.Grants())
	}
}

// TestClaimOfToken: whose a refused token says it is, for the audit log, and
// nothing that was not proved.
func TestClaimOfToken(t *testing.T) {
	w, i, s := trusting(t, true)
	f := func(key string, want bool, id string) {
		t.Helper()
		c, ok := w.Claim([]byte(key))
		if ok != want || ok && (c.Company != s.ID() || c.KeyID != id || c.Proved != (id != "")) {
			t.Errorf("%.40s: %+v, %v", key, c, ok)
		}
	}
	wantRefused(t, w.Directory, i.Token(s.ID().Audience(), "bob"), fault.Forbidden, "no_federation_rule")
	f(i.Token(s.ID().Audience(), "bob"), true, "")
	f(i.Token("bulkhead:0123456789", "bob"), false, "")
	f("a.b.c", false, "")
	x, err := exchange(w, i.Token(s.ID().Audience(), "ann"), "wip_"+s.ID().Locator(), "svc_acct_1")
	if err != nil {
		t.Fatal(err)
	}
	f(x.Value, true, "rule_"+s.ID().Locator())
	f(x.Value[:len(x.Value)-2]+"AA", true, "")
}
