package tenant_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"bulkhead/fault"
	"bulkhead/tenant"
	"bulkhead/tenant/tenanttest"
)

// clock is a time that a test moves.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func newClock() *clock { return &clock{at: time.Now()} }

func (c *clock) now() time.Time { c.mu.Lock(); defer c.mu.Unlock(); return c.at }

func (c *clock) add(d time.Duration) { c.mu.Lock(); defer c.mu.Unlock(); c.at = c.at.Add(d) }

// discovered is a company that finds its issuer's keys, and a clock.
func discovered(t *testing.T) (*tenanttest.World, *tenanttest.Issuer, tenant.Scope, *clock) {
	t.Helper()
	c, o := newClock(), lab()
	o.Now = c.now
	w, i := tenanttest.New(t, o), newIssuer(t)
	_, s := w.Company("acme", tenant.KeyAdmin, nil)
	w.Trust(s, i, "", "ann", nil)
	return w, i, s, c
}

// at is a token that is valid at that time.
func at(i *tenanttest.Issuer, s tenant.Scope, kid string, when time.Time) string {
	claims := i.Claims(s.ID().Audience(), "ann")
	claims["iat"], claims["exp"] = when.Unix(), when.Add(10*time.Minute).Unix()
	claims["jti"] = fmt.Sprint(when.UnixNano())
	return i.Sign(kid, nil, claims)
}

// TestKeyRotation: a new key is found, an unknown one asks at most every 30 s, and
// a key that was taken away proves nothing any more.
func TestKeyRotation(t *testing.T) {
	w, i, s, c := discovered(t)
	first := at(i, s, "first", c.now())
	wantScope(t, w.Directory, first)
	i.AddKey("second", tenanttest.NewKey(t, "ES256"))
	c.add(31 * time.Second)
	wantScope(t, w.Directory, at(i, s, "second", c.now()))
	if n := i.Fetches(); n != 2 {
		t.Errorf("%d fetches for two keys", n)
	}
	// A flood of made-up key ids is no flood of fetches.
	c.add(31 * time.Second)
	var all sync.WaitGroup
	for n := range 40 {
		all.Go(func() {
			claims := i.Claims(s.ID().Audience(), "ann")
			claims["n"] = n
			text := tenanttest.SignWith(t, fmt.Sprint("made up ", n), tenanttest.NewKey(t, "ES256"), nil, claims)
			if _, err := w.Authenticate(t.Context(), []byte(text)); err == nil {
				t.Error("a made-up key is taken")
			}
		})
	}
	all.Wait()
	if n := i.Fetches(); n != 3 {
		t.Errorf("%d fetches after 40 unknown keys", n)
	}
	// A key is taken away: after the next look its tokens are refused, the warm ones too.
	wantScope(t, w.Directory, first)
	i.RemoveKey("first")
	i.AddKey("third", tenanttest.NewKey(t, "ES256"))
	c.add(31 * time.Second)
	wantScope(t, w.Directory, at(i, s, "third", c.now()))
	wantRefused(t, w.Directory, first, fault.Unauthenticated, "invalid_token")
	if s := w.LoginStats(); s.Fetched != 4 || s.Unfetched != 0 || s.Verified != 4 || s.Refused != 41 {
		t.Errorf("counted %+v", s)
	}
}

// TestIssuerAway: keys that are there serve while their issuer is away, for a
// time; without any it is not the token's fault.
func TestIssuerAway(t *testing.T) {
	w, i, s, c := discovered(t)
	i.Down(true)
	wantRefused(t, w.Directory, at(i, s, "first", c.now()), fault.Unavailable, "identity_provider_unavailable")
	i.Down(false)
	// Not asked again at once.
	wantRefused(t, w.Directory, at(i, s, "first", c.now()), fault.Unavailable, "identity_provider_unavailable")
	c.add(31 * time.Second)
	wantScope(t, w.Directory, at(i, s, "first", c.now()))
	i.Down(true)
	c.add(time.Hour)
	wantScope(t, w.Directory, at(i, s, "first", c.now()))
	c.add(2*time.Hour + 50*time.Minute)
	warm := at(i, s, "first", c.now())
	wantScope(t, w.Directory, warm)
	c.add(11 * time.Minute) // 4 hours and a minute since they were seen
	wantRefused(t, w.Directory, at(i, s, "first", c.now()), fault.Unavailable, "identity_provider_unavailable")
}

// TestDescriptions: what an issuer says of itself, and what is not followed.
func TestDescriptions(t *testing.T) {
	f := func(what string, edit func(i *tenanttest.Issuer)) {
		t.Helper()
		w, i, s, c := discovered(t)
		edit(i)
		wantRefused(t, w.Directory, at(i, s, "first", c.now()), fault.Unavailable, "identity_provider_unavailable")
	}
	describe := func(name string, v any) func(*tenanttest.Issuer) {
		return func(i *tenanttest.Issuer) { i.Describe(func(d map[string]any) { d[name] = v }) }
	}
	f("another issuer", describe("issuer", "https://another.example"))
	f("no issuer", describe("issuer", nil))
	f("no keys", describe("jwks_uri", nil))
	f("keys in a file", describe("jwks_uri", "file:///etc/passwd"))
	f("keys with a user name", describe("jwks_uri", "http://a:b@127.0.0.1/"))
	f("a page of a megabyte", describe("padding", strings.Repeat("x", 1<<20)))
	f("a redirect", func(i *tenanttest.Issuer) {
		real := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, i.JWKS()) }))
		t.Cleanup(real.Close)
		moved := httptest.NewServer(http.RedirectHandler(real.URL, http.StatusFound))
		t.Cleanup(moved.Close)
		i.Describe(func(d map[string]any) { d["jwks_uri"] = moved.URL })
	})
	// In production a private address is not dialled at all.
	w, i := tenanttest.New(t, tenant.Options{}), newIssuer(t)
	_, s := w.Company("acme", tenant.KeyAdmin, nil)
	w.Trust(s, i, "", "ann", nil)
	wantRefused(t, w.Directory, i.Token(s.ID().Audience(), "ann"), fault.Unavailable, "identity_provider_unavailable")
	if n := i.Fetches(); n != 0 {
		t.Errorf("a private address was asked %d times", n)
	}
}

// TestFetchingInTurns: a company whose issuers never answer keeps no other
// company from its keys.
func TestFetchingInTurns(t *testing.T) {
	w, good := tenanttest.New(t, lab()), newIssuer(t)
	release := make(chan struct{})
	asked := make(chan struct{}, 100)
	slow := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked <- struct{}{}; <-release }))
	defer slow.Close()
	var waiting sync.WaitGroup
	defer waiting.Wait()
	defer close(release)
	_, a := w.Company("A", tenant.KeyAdmin, nil)
	_, b := w.Company("B", tenant.KeyAdmin, nil)
	w.Trust(b, good, "", "ann", nil)
	for n := range 20 {
		i := newIssuer(t)
		w.Trust(a, i, "", "ann", func(p *tenant.IdentityProvider, r *tenant.FederationRule) {
			p.ID, r.ID = fmt.Sprint("wip_", n), fmt.Sprint("rule_", n)
			r.ProviderID, p.DiscoveryURL = p.ID, slow.URL
		})
		waiting.Go(func() { _, _ = w.Authenticate(t.Context(), []byte(i.Token(a.ID().Audience(), "ann"))) })
	}
	<-asked
	<-asked
	began := time.Now()
	wantScope(t, w.Directory, good.Token(b.ID().Audience(), "ann"))
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("B waited %s behind A", took)
	}
	if n := len(asked); n != 0 {
		t.Errorf("%d issuers of A are asked at once", 2+n)
	}
}

func TestCheckJWKS(t *testing.T) {
	key := func(alg string, edit func(map[string]any)) map[string]any {
		k := tenanttest.JWK("k", tenanttest.NewKey(t, alg).Public())
		if edit != nil {
			edit(k)
		}
		return k
	}
	set := func(keys ...map[string]any) string { return `{"keys":` + asJSON(t, keys) + `}` }
	f := func(jwks, want string) {
		t.Helper()
		err := tenant.CheckJWKS([]byte(jwks))
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%.200s: %v, want %q", jwks, err, want)
		}
	}
	for _, alg := range []string{"RS256", "ES256", "ES384", "ES512", "EdDSA"} {
		f(set(key(alg, nil)), "")
	}
	f(`{"keys":[]}`, "no key")
	f(`{}`, "keys")
	f(`[]`, "not one JSON object")
	f(`{"keys":[],"keys":[]}`, "twice")
	f(strings.Repeat(" ", tenant.MaxJWKS+1), "bytes")
	f(set(key("ES256", func(k map[string]any) { k["d"] = "AA" })), "private")
	f(set(key("ES256", func(k map[string]any) { k["kid"] = "" })), "kid")
	f(set(key("ES256", func(k map[string]any) { k["use"] = "enc" })), "signatures")
	f(set(key("ES256", func(k map[string]any) { k["alg"] = "RS256" })), "alg")
	f(set(key("ES256", func(k map[string]any) { k["alg"] = "HS256" })), "alg")
	f(set(key("ES256", func(k map[string]any) { k["y"] = k["x"] })), "point")
	f(set(key("ES256", func(k map[string]any) { k["crv"] = "secp256k1" })), "P-256")
	f(set(key("ES256", func(k map[string]any) { k["crv"] = "P-384" })), "EC")
	f(set(map[string]any{"kty": "oct", "kid": "k", "k": "c2VjcmV0"}), "kind")
	f(set(key("RS256", func(k map[string]any) { k["n"] = k["n"].(string)[:172] })), "bits")
	f(set(key("RS256", func(k map[string]any) { k["e"] = "AQ" })), "RSA")
	f(set(key("RS256", func(k map[string]any) { k["e"] = "AAAAAAAAAAE" })), "RSA")
	f(set(key("ES256", nil), key("ES256", nil)), "kid of another")
	f(set(key("ES256", nil), key("RS256", nil)), "") // told apart by their kind
	many := make([]map[string]any, 65)
	for i := range many {
		many[i] = map[string]any{"kty": "oct", "kid": fmt.Sprint(i)}
	}
	f(set(many...), "at most")
}

func TestParseExpression(t *testing.T) {
	f := func(text, want string) {
		t.Helper()
		path, err := tenant.ParseExpression(text)
		if (err != nil) != (want == "") || strings.Join(path, "|") != want {
			t.Errorf("%s: %q, %v", text, path, err)
		}
	}
	f("assertion.sub", "sub")
	f(` assertion["kubernetes.io"].namespace `, "kubernetes.io|namespace")
	f(`assertion['a b']['c']`, "a b|c")
	f("assertion", "")
	f("assertion.", "")
	f("assertion..a", "")
	f("assertion.1a", "")
	f(`assertion[""]`, "")
	f(`assertion["a\"]`, "")
	f(`assertion["a'b"]`, "")
	f("assertion.a + assertion.b", "")
	f("claims.sub", "")
	f("assertion"+strings.Repeat(".a", 9), "")
}
