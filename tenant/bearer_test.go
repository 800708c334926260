package tenant_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"bulkhead/fault"
	"bulkhead/tenant"
	"bulkhead/tenant/tenanttest"
)

func lab() tenant.Options { return tenant.Options{AllowPrivate: func() bool { return true }} }

func newIssuer(t testing.TB) *tenanttest.Issuer {
	return tenanttest.NewIssuer(t, (*httptest.Server).Start)
}

// trusting is a company that trusts an issuer, with one rule for "ann".
func trusting(t testing.TB, uploaded bool) (*tenanttest.World, *tenanttest.Issuer, tenant.Scope) {
	t.Helper()
	w, i := tenanttest.New(t, lab()), newIssuer(t)
	_, s := w.Company("acme", tenant.KeyAdmin, nil)
	jwks := ""
	if uploaded {
		jwks = i.JWKS()
	}
	w.Trust(s, i, jwks, "ann", nil)
	return w, i, s
}

func TestToken(t *testing.T) {
	for _, uploaded := range []bool{true, false} {
		w, i, s := trusting(t, uploaded)
		got := wantScope(t, w.Directory, i.Token(s.ID().Audience(), "ann"))
		if got.ID() != s.ID() || got.Project() == nil || got.Key().Kind != tenant.KeyLive || got.Rule() == nil || got.KeyID() != got.Rule().ID {
			t.Errorf("uploaded %v: the token opens %v in %q with key %q", uploaded, got.ID(), got.ProjectID(), got.KeyID())
		}
		// The end user is the subject with its issuer, hashed for the company.
		if got.EndUser() != tenant.UserID(s, i.Name+"#ann") || !tenant.IsUserID(got.EndUser()) {
			t.Errorf("the end user is %q", got.EndUser())
		}
		if !got.Allows(got.ProjectID(), tenant.ModelRequest) || got.Allows("", tenant.ModelRequest) || got.Allows(got.ProjectID(), tenant.KeysRead) {
			t.Errorf("the token may do %v", got.Grants())
		}
		// One audience of several, if no other is a company's.
		wantScope(t, w.Directory, i.Token([]string{"https://elsewhere.example", s.ID().Audience()}, "ann"))
		wantRefused(t, w.Directory, i.Token(s.ID().Audience(), "bob"), fault.Forbidden, "no_federation_rule")
	}
}

// TestTokenAlgorithms: each algorithm with its kind of key, and none with another's.
func TestTokenAlgorithms(t *testing.T) {
	w, i, s := trusting(t, false)
	for _, alg := range []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"} {
		i.AddKey(alg, tenanttest.NewKey(t, alg))
	}
	for _, alg := range []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"} {
		got := wantScope(t, w.Directory, i.Sign(alg, map[string]any{"alg": alg}, i.Claims(s.ID().Audience(), "ann")))
		if got.ID() != s.ID() {
			t.Errorf("%s opens %s", alg, got.ID())
		}
	}
	// The header says another algorithm of the same key's family than what signed.
	text := i.Sign("RS256", map[string]any{"alg": "RS256"}, i.Claims(s.ID().Audience(), "ann"))
	_, rest, _ := strings.Cut(text, ".")
	for _, alg := range []string{"RS384", "PS256", "ES256", "EdDSA"} {
		header := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"` + alg + `","kid":"RS256"}`))
		wantRefused(t, w.Directory, header+"."+rest, fault.Unauthenticated, "invalid_token")
	}
}

// TestTokenRefused are tokens of an issuer that is trusted, for a company that
// trusts it, each wrong in one thing. The signature is right where it can be.
func TestTokenRefused(t *testing.T) {
	w, i, s := trusting(t, false)
	aud := s.ID().Audience()
	token := func(header map[string]any, edit func(map[string]any)) string {
		claims := i.Claims(aud, "ann")
		if edit != nil {
			edit(claims)
		}
		return i.Sign("first", header, claims)
	}
	f := func(what, text, code string) {
		t.Helper()
		got, err := w.Authenticate(t.Context(), []byte(text))
		if got != (tenant.Scope{}) {
			t.Errorf("%s: it is let in", what)
		}
		if !fault.Is(err, fault.Unauthenticated) || fault.As(err).Code != code {
			t.Errorf("%s: %v", what, err)
		}
	}
	wantScope(t, w.Directory, token(nil, nil)) // what the others differ from
	now := time.Now().Unix()
	set := func(name string, v any) func(map[string]any) {
		return func(c map[string]any) { c[name] = v }
	}
	// Time.
	f("expired", token(nil, func(c map[string]any) { c["exp"], c["iat"] = now-61, now-600 }), "expired_token")
	wantScope(t, w.Directory, token(nil, func(c map[string]any) { c["exp"], c["iat"] = now-50, now-600 })) // within the skew
	f("issued in the future", token(nil, set("iat", now+120)), "invalid_token")
	f("not yet valid", token(nil, set("nbf", now+120)), "invalid_token")
	wantScope(t, w.Directory, token(nil, set("nbf", now+50)))
	f("without an end", token(nil, func(c map[string]any) { delete(c, "exp") }), "invalid_token")
	f("without a beginning", token(nil, func(c map[string]any) { delete(c, "iat") }), "invalid_token")
	f("too long a life", token(nil, set("exp", now+24*3600+1)), "invalid_token")
	f("an end before its beginning", token(nil, func(c map[string]any) { c["exp"], c["iat"] = now+10, now+20 }), "invalid_token")
	f("an end that is text", token(nil, set("exp", fmt.Sprint(now+600))), "invalid_token")
	f("an end beyond all numbers", token(nil, set("exp", 1e300)), "invalid_token")
	// Who and for whom.
	f("no subject", token(nil, func(c map[string]any) { delete(c, "sub") }), "invalid_token")
	f("an empty subject", token(nil, set("sub", "")), "invalid_token")
	f("a subject that is a list", token(nil, set("sub", []string{"ann"})), "invalid_token")
	f("no audience", token(nil, func(c map[string]any) { delete(c, "aud") }), "invalid_token")
	f("no audience in the list", token(nil, set("aud", []string{})), "invalid_token")
	f("an audience that is a number", token(nil, set("aud", []any{aud, 1})), "invalid_token")
	f("its audience twice", token(nil, set("aud", []string{aud, aud})), "invalid_token")
	f("another audience", token(nil, set("aud", "https://api.example")), "invalid_token")
	f("its audience in capitals", token(nil, set("aud", strings.ToUpper(aud))), "invalid_token")
	f("its audience with a space", token(nil, set("aud", aud+" ")), "invalid_token")
	for _, issuer := range []string{i.Name + "/", strings.ToUpper(i.Name), " " + i.Name, i.Name + "\u200b", strings.Replace(i.Name, "h", "һ", 1), i.Name + "#x"} {
		f("the issuer "+issuer, token(nil, set("iss", issuer)), "invalid_token")
	}
	// The header.
	for _, name := range []string{"jwk", "jku", "x5u", "x5c", "crit", "zip", "b64"} {
		f("a header with "+name, token(map[string]any{name: "x"}, nil), "invalid_token")
	}
	f("another type", token(map[string]any{"typ": "logout+jwt"}, nil), "invalid_token")
	f("no kid", token(map[string]any{"kid": ""}, nil), "invalid_token")
	f("a kid that is a number", token(map[string]any{"kid": 1}, nil), "invalid_token")
	f("an unknown kid", token(map[string]any{"kid": "../first"}, nil), "invalid_token")
	wantScope(t, w.Directory, token(map[string]any{"typ": "at+jwt"}, nil))
	// The signature.
	good := token(nil, nil)
	unsigned := good[:strings.LastIndex(good, ".")+1]
	f("no signature", unsigned, "invalid_token")
	f("a signature that is cut off", good[:len(good)-8], "invalid_token")
	f("padding", good+"=", "invalid_token")
	f("another key with the same kid", tenanttest.SignWith(t, "first", tenanttest.NewKey(t, "ES256"), nil, i.Claims(aud, "ann")), "invalid_token")
	none, err := jwt.NewWithClaims(jwt.SigningMethodNone, jwt.MapClaims(i.Claims(aud, "ann"))).SignedString(jwt.UnsafeAllowNoneSignatureType)
	if err != nil {
		t.Fatal(err)
	}
	f("none", none, "invalid_token")
	f("none with a signature", strings.TrimSuffix(none, ".")+".eA", "invalid_token")
	for _, alg := range []string{"none", "None", "nOnE", "HS256", "es256", "ES256 ", ""} {
		header := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"` + alg + `","kid":"first"}`))
		f("algorithm "+alg, header+good[strings.IndexByte(good, '.'):], "invalid_token")
	}
	for _, secret := range []any{[]byte(i.JWKS()), []byte("first"), pem(t, i)} { // what everybody knows
		h := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims(i.Claims(aud, "ann")))
		h.Header["kid"] = "first"
		text, err := h.SignedString(secret)
		if err != nil {
			t.Fatal(err)
		}
		f("HS256 with a public key", text, "invalid_token")
	}
	// What two readers would read differently.
	claims, err := json.Marshal(i.Claims(aud, "ann"))
	if err != nil {
		t.Fatal(err)
	}
	header := `{"alg":"ES256","kid":"first"}`
	wantScope(t, w.Directory, i.SignRaw(header, string(claims)))
	rest := strings.TrimPrefix(string(claims), "{")
	f("a claim twice", i.SignRaw(header, `{"sub":"ann",`+rest), "invalid_token")
	f("a claim twice, once escaped", i.SignRaw(header, `{"s\u0075b":"ann",`+rest), "invalid_token")
	f("a member of a claim twice", i.SignRaw(header, `{"x":{"a":1,"a":2},`+rest), "invalid_token")
	f("a header twice", i.SignRaw(`{"alg":"none","alg":"ES256","kid":"first"}`, string(claims)), "invalid_token")
	f("more after the claims", i.SignRaw(header, string(claims)+"{}"), "invalid_token")
	f("claims that are a list", i.SignRaw(header, "["+string(claims)+"]"), "invalid_token")
	f("a lone surrogate", i.SignRaw(header, strings.Replace(string(claims), `"ann"`, `"ann\ud800"`, 1)), "invalid_token")
	f("bad UTF-8", i.SignRaw(header, strings.Replace(string(claims), `"ann"`, "\"ann\xff\"", 1)), "invalid_token")
	f("SUB for sub", i.SignRaw(header, strings.Replace(string(claims), `"sub"`, `"SUB"`, 1)), "invalid_token")
	f("too deep", i.SignRaw(header, `{"x":`+strings.Repeat("[", 50)+strings.Repeat("]", 50)+","+rest), "invalid_token")
	f("too much", i.SignRaw(header, `{"x":[`+strings.Repeat("1,", 1000)+"1],"+rest), "invalid_token")
	// Size, before anything is read.
	f("too long", token(nil, set("pad", strings.Repeat("x", 9000))), "invalid_token")
	f("a million dots", strings.Repeat(".", 1<<20), "invalid_api_key")
	f("only two dots", "..", "invalid_token")
	f("much between dots", "eyJ."+strings.Repeat("A", 1<<20)+".x", "invalid_token")
}

// pem is the first key of an issuer as another library would take it for a secret.
func pem(t *testing.T, i *tenanttest.Issuer) []byte {
	t.Helper()
	var set struct {
		Keys []struct{ X, Y string }
	}
	if err := json.Unmarshal([]byte(i.JWKS()), &set); err != nil {
		t.Fatal(err)
	}
	x, err := base64.RawURLEncoding.DecodeString(set.Keys[0].X)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// TestIssuerOfAnother is the attack of the design: A registers the issuer of B,
// before and after B, with B's keys copied and with keys of its own. No token for
// the one ever opens the other.
func TestIssuerOfAnother(t *testing.T) {
	for _, first := range []string{"A", "B"} {
		for _, keys := range []string{"copied", "own"} {
			w, issuer, evil := tenanttest.New(t, lab()), newIssuer(t), newIssuer(t)
			evil.Name = issuer.Name
			_, a := w.Company("A", tenant.KeyAdmin, nil)
			_, b := w.Company("B", tenant.KeyAdmin, nil)
			trustA := func() {
				jwks := evil.JWKS()
				if keys == "copied" {
					jwks = issuer.JWKS()
				}
				w.Trust(a, issuer, jwks, "ann", nil)
			}
			if first == "A" {
				trustA()
			}
			w.Trust(b, issuer, "", "ann", nil)
			if first == "B" {
				trustA()
			}
			open := func(text string) tenant.ID {
				s, err := w.Authenticate(t.Context(), []byte(text))
				if err != nil {
					return tenant.ID{}
				}
				return s.ID()
			}
			for range 2 { // cold and warm
				// B's own tokens open B and nothing else.
				if got := open(issuer.Token(b.ID().Audience(), "ann")); got != b.ID() {
					t.Errorf("%s first, %s keys: a token for B opens %q", first, keys, got)
				}
				// Those of A's own keys open A at most, whatever they say.
				if got := open(evil.Token(b.ID().Audience(), "ann")); got != (tenant.ID{}) {
					t.Errorf("%s first, %s keys: a token that A made for B opens %q", first, keys, got)
				}
				want := a.ID()
				if keys == "copied" {
					want = tenant.ID{}
				}
				if got := open(evil.Token(a.ID().Audience(), "ann")); got != want {
					t.Errorf("%s first, %s keys: a token that A made for A opens %q", first, keys, got)
				}
				for _, i := range []*tenanttest.Issuer{issuer, evil} {
					for _, both := range [][]string{{a.ID().Audience(), b.ID().Audience()}, {b.ID().Audience(), a.ID().Audience()}} {
						if got := open(i.Token(both, "ann")); got != (tenant.ID{}) {
							t.Errorf("%s first, %s keys: a token for both opens %q", first, keys, got)
						}
					}
				}
			}
			// The same subject is another end user in each.
			if keys == "copied" {
				sa := wantScope(t, w.Directory, issuer.Token(a.ID().Audience(), "ann"))
				sb := wantScope(t, w.Directory, issuer.Token(b.ID().Audience(), "ann"))
				if sa.EndUser() == sb.EndUser() || sa.ID() == sb.ID() {
					t.Error("one end user of two companies")
				}
			}
		}
	}
}

// TestSubjects: the same subject of two issuers of a company is two end users.
func TestSubjects(t *testing.T) {
	w, one, s := trusting(t, true)
	two := newIssuer(t)
	w.Trust(s, two, two.JWKS(), "ann", func(p *tenant.IdentityProvider, r *tenant.FederationRule) {
		p.ID, r.ID, r.ProviderID = "wip_2", "rule_2", "wip_2"
	})
	a := wantScope(t, w.Directory, one.Token(s.ID().Audience(), "ann"))
	b := wantScope(t, w.Directory, two.Token(s.ID().Audience(), "ann"))
	if a.EndUser() == b.EndUser() || a.Rule() == b.Rule() {
		t.Error("two issuers name one end user")
	}
	// Keys of the one prove nothing of the other.
	claims := two.Claims(s.ID().Audience(), "ann")
	wantRefused(t, w.Directory, one.Sign("first", nil, claims), fault.Unauthenticated, "invalid_token")
}

// TestOneProvider: the issuer and the audience choose one provider, and the keys of
// another with the same issuer prove nothing.
func TestOneProvider(t *testing.T) {
	w, one, two := tenanttest.New(t, lab()), newIssuer(t), newIssuer(t)
	two.Name = one.Name
	_, s := w.Company("acme", tenant.KeyAdmin, nil)
	w.Approve(s, "api://x")
	w.Trust(s, two, two.JWKS(), "ann", func(p *tenant.IdentityProvider, r *tenant.FederationRule) {
		p.ID, p.Audience, r.ID = "wip_x", "api://x", "rule_x"
	})
	w.Trust(s, one, one.JWKS(), "ann", nil)
	if r := wantScope(t, w.Directory, one.Token(s.ID().Audience(), "ann")).Rule(); r.ID == "rule_x" {
		t.Error("it is let in by the rule of another provider")
	}
	if r := wantScope(t, w.Directory, two.Token("api://x", "ann")).Rule(); r.ID != "rule_x" {
		t.Error("it is let in by the rule of another provider")
	}
	wantRefused(t, w.Directory, two.Token(s.ID().Audience(), "ann"), fault.Unauthenticated, "invalid_token")
	wantRefused(t, w.Directory, one.Token("api://x", "ann"), fault.Unauthenticated, "invalid_token")
}

// TestApprovedAudience: an audience of the outside world is the company's that
// the operator approved it for, and nobody else's; and no longer than that.
func TestApprovedAudience(t *testing.T) {
	now := time.Now()
	o := lab()
	o.Now = func() time.Time { return now }
	w, i := tenanttest.New(t, o), newIssuer(t)
	_, a := w.Company("A", tenant.KeyAdmin, nil)
	_, b := w.Company("B", tenant.KeyAdmin, nil)
	for _, s := range []tenant.Scope{a, b} { // both say it is theirs
		w.Trust(s, i, i.JWKS(), "ann", func(p *tenant.IdentityProvider, _ *tenant.FederationRule) { p.Audience = "api://b" })
	}
	text := i.Token("api://b", "ann")
	wantRefused(t, w.Directory, text, fault.Unauthenticated, "invalid_token")
	w.Approve(b, "api://b")
	now = now.Add(11 * time.Second)
	if got := wantScope(t, w.Directory, text); got.ID() != b.ID() {
		t.Errorf("it opens %s", got.ID())
	}
	// Unknown audiences are no look-up each.
	if n := loads(w.Directory, func() {
		for n := range 200 {
			wantRefused(t, w.Directory, i.Token(fmt.Sprint("api://", n), "ann"), fault.Unauthenticated, "invalid_token")
		}
	}); n > 1 {
		t.Errorf("200 unknown audiences were %d look-ups", n)
	}
	// It is taken away, and the list does not say so yet.
	w.Edit(b, func(c *tenant.Company) { c.Identity.Audiences = nil })
	wantRefused(t, w.Directory, text, fault.Unauthenticated, "invalid_token")
	// It goes to another company.
	w.Edit(b, func(c *tenant.Company) { c.Identity.Audiences = nil })
	w.Approve(a, "api://b")
	now = now.Add(11 * time.Second)
	if got := wantScope(t, w.Directory, text); got.ID() != a.ID() {
		t.Errorf("it opens %s", got.ID())
	}
}

// TestRules: what a rule matches, and what it takes to be let in no more.
func TestRules(t *testing.T) {
	w, i := tenanttest.New(t, lab()), newIssuer(t)
	f := func(matchers map[string]any, want bool) {
		t.Helper()
		_, s := w.Company("acme", tenant.KeyAdmin, nil)
		w.Trust(s, i, i.JWKS(), "", func(p *tenant.IdentityProvider, r *tenant.FederationRule) {
			r.Matchers = matchers
			p.Attributes = []tenant.Attribute{{Name: "ns", Expression: `assertion["kubernetes.io"].namespace`}, {Name: "sub", Expression: "assertion.email"}}
		})
		claims := i.Claims(s.ID().Audience(), "ann")
		claims["kubernetes.io"] = map[string]any{"namespace": "prod"}
		claims["groups"], claims["ok"], claims["n"], claims["big"] = []string{"dev", "ops"}, true, 7, json.Number("9007199254740993")
		claims["email"] = "ann@example.com"
		_, err := w.Authenticate(t.Context(), []byte(i.Sign("first", nil, claims)))
		if (err == nil) != want {
			t.Errorf("%v: %v", matchers, err)
		}
	}
	f(map[string]any{"iss": i.Name}, true)
	f(map[string]any{}, false)
	f(nil, false)
	f(map[string]any{"iss": i.Name, "ok": false}, false) // all must match
	f(map[string]any{"ok": true}, true)
	f(map[string]any{"ok": "true"}, false)
	f(map[string]any{"n": json.Number("7")}, true)
	f(map[string]any{"n": json.Number("7.0")}, true)
	f(map[string]any{"n": "7"}, false)
	f(map[string]any{"big": json.Number("9007199254740993")}, true)
	f(map[string]any{"big": json.Number("9007199254740992")}, false) // the same float
	f(map[string]any{"groups": "ops"}, true)
	f(map[string]any{"groups": "op"}, false)
	f(map[string]any{"ns": "prod"}, true)
	f(map[string]any{"kubernetes.io": "prod"}, false)
	f(map[string]any{"absent": "x"}, false)
	f(map[string]any{"sub": "ann"}, false) // an attribute has the name
	f(map[string]any{"sub": "ann@example.com"}, true)
	f(map[string]any{"SUB": "ann"}, false)
}

// TestTokenEnds: what lets a token in no more, warm as it is.
func TestTokenEnds(t *testing.T) {
	f := func(what string, edit func(*tenant.Company, *tenant.IdentityProvider, *tenant.FederationRule), kind fault.Kind, code string) {
		t.Helper()
		w, i, s := trusting(t, false)
		text := i.Token(s.ID().Audience(), "ann")
		before := wantScope(t, w.Directory, text)
		p := before.Company().Identity.Providers[0]
		x, err := w.Exchange(t.Context(), tenant.Exchange{Token: []byte(text), Provider: p.ID, AccountID: "svc_acct_1"})
		if err != nil {
			t.Fatal(err)
		}
		given := wantScope(t, w.Directory, x.Value)
		if given.EndUser() != before.EndUser() || given.Rule() != before.Rule() || given.ID() != s.ID() {
			t.Errorf("%s: the key stands for another than the token", what)
		}
		w.Edit(s, func(c *tenant.Company) {
			np, nr := *p, *p.Rules[0]
			np.Rules = []*tenant.FederationRule{&nr}
			c.Identity = &tenant.Identity{Providers: []*tenant.IdentityProvider{&np}}
			edit(c, &np, &nr)
		})
		wantRefused(t, w.Directory, text, kind, code)
		got, err := w.Authenticate(t.Context(), []byte(x.Value))
		if err == nil || got != (tenant.Scope{}) {
			t.Errorf("%s: the key that was given out is still let in", what)
		}
	}
	f("a disabled rule", func(_ *tenant.Company, _ *tenant.IdentityProvider, r *tenant.FederationRule) { r.Enabled = false }, fault.Forbidden, "no_federation_rule")
	f("a disabled provider", func(_ *tenant.Company, p *tenant.IdentityProvider, _ *tenant.FederationRule) { p.Enabled = false }, fault.Unauthenticated, "invalid_token")
	f("no provider", func(c *tenant.Company, _ *tenant.IdentityProvider, _ *tenant.FederationRule) { c.Identity = nil }, fault.Unauthenticated, "invalid_token")
	f("no rule", func(_ *tenant.Company, p *tenant.IdentityProvider, _ *tenant.FederationRule) { p.Rules = nil }, fault.Forbidden, "no_federation_rule")
	f("a rule that was tightened", func(_ *tenant.Company, _ *tenant.IdentityProvider, r *tenant.FederationRule) {
		r.Matchers = map[string]any{"sub": "bob"}
		r.UpdatedAt = r.UpdatedAt.Add(time.Microsecond)
	}, fault.Forbidden, "no_federation_rule")
	f("an archived project", func(c *tenant.Company, _ *tenant.IdentityProvider, _ *tenant.FederationRule) { c.Projects = nil }, fault.Forbidden, "project_archived")
	f("a suspended company", func(c *tenant.Company, _ *tenant.IdentityProvider, _ *tenant.FederationRule) {
		c.Status = tenant.Suspended
	}, fault.Forbidden, "company_suspended")
}
