package tenant_test

import (
	"fmt"
	"sync"
	"testing"

	"bulkhead/fault"
	"bulkhead/tenant"
	"bulkhead/tenant/tenanttest"
)

// TestTokenWarm: a token that was proved is not looked up, and not proved again.
func TestTokenWarm(t *testing.T) {
	w, i, s := trusting(t, false)
	text := i.Token(s.ID().Audience(), "ann")
	first := wantScope(t, w.Directory, text)
	before := w.LoginStats()
	if n := loads(w.Directory, func() {
		for range 100 {
			if wantScope(t, w.Directory, text) != first {
				t.Fatal("another scope")
			}
		}
	}); n != 0 {
		t.Errorf("%d look-ups", n)
	}
	if after := w.LoginStats(); after != before {
		t.Errorf("proved again: %+v, %+v", before, after)
	}
	if !w.UpToDate(first) {
		t.Error("the scope of a token is not up to date")
	}
	w.Changed(s.ID().String())
	if w.UpToDate(first) || wantScope(t, w.Directory, text) == first {
		t.Error("a scope of the policy that was")
	}
}

// TestTokenFlood: tokens that are refused cost no look-up each, the same one not
// even a proof, and push no other company's out.
func TestTokenFlood(t *testing.T) {
	o := lab()
	o.KeysPerCompany = 50
	w, i := tenanttest.New(t, o), newIssuer(t)
	_, a := w.Company("A", tenant.KeyAdmin, nil)
	_, b := w.Company("B", tenant.KeyAdmin, nil)
	for _, s := range []tenant.Scope{a, b} {
		w.Trust(s, i, i.JWKS(), "ann", nil)
	}
	good := i.Token(b.ID().Audience(), "ann")
	wantScope(t, w.Directory, good)
	bad := i.Token(a.ID().Audience(), "eve")
	wantRefused(t, w.Directory, bad, fault.Forbidden, "no_federation_rule")
	before := w.LoginStats().Verified
	for range 100 {
		wantRefused(t, w.Directory, bad, fault.Forbidden, "no_federation_rule")
	}
	if n := w.LoginStats().Verified - before; n != 0 {
		t.Errorf("a token that is known as refused was proved %d times", n)
	}
	if n := loads(w.Directory, func() {
		var all sync.WaitGroup
		for n := range 8 {
			all.Go(func() {
				for m := range 100 {
					_, _ = w.Authenticate(t.Context(), []byte(i.Token(a.ID().Audience(), fmt.Sprint(n, " ", m))))
				}
			})
		}
		all.Wait()
	}); n != 0 {
		t.Errorf("%d look-ups", n)
	}
	// Of good ones a company has its share.
	for n := range 200 {
		claims := i.Claims(a.ID().Audience(), "ann")
		claims["n"] = n
		wantScope(t, w.Directory, i.Sign("first", nil, claims))
	}
	before = w.LoginStats().Verified
	wantScope(t, w.Directory, good)
	if w.LoginStats().Verified != before {
		t.Error("A's tokens pushed B's out")
	}
}

// TestLoggedIn: it is told once of each token.
func TestLoggedIn(t *testing.T) {
	var mu sync.Mutex
	seen := 0
	o := lab()
	o.LoggedIn = func(s tenant.Scope) { mu.Lock(); defer mu.Unlock(); seen++; _ = s.Rule().ID }
	w, i := tenanttest.New(t, o), newIssuer(t)
	_, s := w.Company("acme", tenant.KeyAdmin, nil)
	w.Trust(s, i, i.JWKS(), "ann", nil)
	text := i.Token(s.ID().Audience(), "ann")
	for range 3 {
		wantScope(t, w.Directory, text)
	}
	wantRefused(t, w.Directory, i.Token(s.ID().Audience(), "bob"), fault.Forbidden, "no_federation_rule")
	if seen != 1 {
		t.Errorf("told %d times", seen)
	}
}

// BenchmarkToken: cold is a token that was never seen, warm one that was.
func BenchmarkToken(b *testing.B) {
	for _, alg := range []string{"ES256", "RS256", "EdDSA"} {
		w, i := tenanttest.New(b, lab()), newIssuer(b)
		i.AddKey(alg, tenanttest.NewKey(b, alg))
		_, s := w.Company("acme", tenant.KeyAdmin, nil)
		w.Trust(s, i, i.JWKS(), "ann", nil)
		text := []byte(i.Sign(alg, nil, i.Claims(s.ID().Audience(), "ann")))
		if _, err := w.Authenticate(b.Context(), text); err != nil {
			b.Fatal(err)
		}
		b.Run(alg+"/warm", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := w.Authenticate(b.Context(), text); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(alg+"/cold", func(b *testing.B) {
			b.ReportAllocs()
			e := tenant.Exchange{Token: text, Provider: "wip_" + s.ID().Locator(), AccountID: "svc_acct_1"}
			for b.Loop() { // proves the token each time
				if _, err := w.Exchange(b.Context(), e); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
