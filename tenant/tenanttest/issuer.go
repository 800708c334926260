package tenanttest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"bulkhead/tenant"
)

// Issuer is an identity provider on loopback: it signs tokens, and serves its
// description and its keys.
type Issuer struct {
	t      testing.TB
	Server *httptest.Server
	// Name is what stands in "iss": the address of the server.
	Name string

	mu      sync.Mutex
	keys    map[string]crypto.Signer // by kid
	down    bool
	fetches int
	edit    func(discovery map[string]any)
}

// NewIssuer returns an issuer with one key, "first", of P-256. start is
// (*httptest.Server).Start or StartTLS.
func NewIssuer(t testing.TB, start func(*httptest.Server)) *Issuer {
	t.Helper()
	i := &Issuer{t: t, keys: map[string]crypto.Signer{}}
	mux := http.NewServeMux()
	mux.HandleFunc("/.well-known/openid-configuration", i.serve(func() any {
		d := map[string]any{"issuer": i.Name, "jwks_uri": i.Name + "/keys", "id_token_signing_alg_values_supported": []string{"ES256"}}
		if i.edit != nil {
			i.edit(d)
		}
		return d
	}))
	mux.HandleFunc("/keys", i.serve(func() any { i.fetches++; return i.set() }))
	i.Server = httptest.NewUnstartedServer(mux)
	start(i.Server)
	t.Cleanup(i.Server.Close)
	i.Name = i.Server.URL
	i.AddKey("first", NewKey(t, "ES256"))
	return i
}

func (i *Issuer) serve(what func() any) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		i.mu.Lock()
		defer i.mu.Unlock()
		if i.down {
			http.Error(w, "down", http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(what()); err != nil {
			i.t.Error(err)
		}
	}
}

// NewKey returns a private key for an algorithm.
func NewKey(t testing.TB, alg string) crypto.Signer {
	t.Helper()
	var k crypto.Signer
	var err error
	switch alg {
	case "ES256":
		k, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "ES384":
		k, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "ES512":
		k, err = ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case "EdDSA":
		_, k, err = ed25519.GenerateKey(rand.Reader)
	default:
		k, err = rsa.GenerateKey(rand.Reader, 2048)
	}
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// AddKey adds a key, or puts it in place of the one with the kid.
func (i *Issuer) AddKey(kid string, k crypto.Signer) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.keys[kid] = k
}

// RemoveKey takes a key away.
func (i *Issuer) RemoveKey(kid string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.keys, kid)
}

// Down makes the issuer answer with errors, or again as it should.
func (i *Issuer) Down(yes bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.down = yes
}

// Describe changes what the issuer says of itself.
func (i *Issuer) Describe(edit func(map[string]any)) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.edit = edit
}

// Fetches counts how often the keys were asked for.
func (i *Issuer) Fetches() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.fetches
}

// JWKS returns the keys as they are uploaded.
func (i *Issuer) JWKS() string {
	i.mu.Lock()
	defer i.mu.Unlock()
	b, err := json.Marshal(i.set())
	if err != nil {
		i.t.Fatal(err)
	}
	return string(b)
}

func (i *Issuer) set() any {
	keys := []any{}
	for kid, k := range i.keys {
		keys = append(keys, JWK(kid, k.Public()))
	}
	return map[string]any{"keys": keys}
}

// JWK returns a public key as it stands in a set.
func JWK(kid string, k crypto.PublicKey) map[string]any {
	text := base64.RawURLEncoding.EncodeToString
	switch k := k.(type) {
	case *ecdsa.PublicKey:
		point, err := k.Bytes()
		if err != nil {
			panic(err)
		}
		half := len(point) / 2
		return map[string]any{"kty": "EC", "crv": k.Curve.Params().Name, "kid": kid, "use": "sig", "x": text(point[1 : 1+half]), "y": text(point[1+half:])}
	case *rsa.PublicKey:
		return map[string]any{"kty": "RSA", "kid": kid, "use": "sig", "n": text(k.N.Bytes()), "e": text(big.NewInt(int64(k.E)).Bytes())}
	case ed25519.PublicKey:
		return map[string]any{"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": text(k)}
	}
	panic(fmt.Sprintf("no JWK for %T", k))
}

// Claims are those of a valid token for an audience.
func (i *Issuer) Claims(audience any, subject string) map[string]any {
	now := time.Now()
	return map[string]any{"iss": i.Name, "aud": audience, "sub": subject, "iat": now.Unix(), "exp": now.Add(10 * time.Minute).Unix()}
}

// Token returns a token signed with the key "first".
func (i *Issuer) Token(audience any, subject string) string {
	return i.Sign("first", map[string]any{}, i.Claims(audience, subject))
}

// Sign returns a token with what header and claims say, signed with that key.
// header is added to alg and kid.
func (i *Issuer) Sign(kid string, header, claims map[string]any) string {
	i.t.Helper()
	i.mu.Lock()
	k := i.keys[kid]
	i.mu.Unlock()
	return SignWith(i.t, kid, k, header, claims)
}

// SignWith is Sign with any key.
func SignWith(t testing.TB, kid string, k crypto.Signer, header, claims map[string]any) string {
	t.Helper()
	method := jwt.SigningMethod(jwt.SigningMethodRS256)
	switch k := k.(type) {
	case *ecdsa.PrivateKey:
		method = map[int]jwt.SigningMethod{256: jwt.SigningMethodES256, 384: jwt.SigningMethodES384, 521: jwt.SigningMethodES512}[k.Params().BitSize]
	case ed25519.PrivateKey:
		method = jwt.SigningMethodEdDSA
	}
	if alg, _ := header["alg"].(string); alg != "" && jwt.GetSigningMethod(alg) != nil {
		method = jwt.GetSigningMethod(alg)
	}
	token := jwt.NewWithClaims(method, jwt.MapClaims(claims))
	token.Header["kid"] = kid
	maps.Copy(token.Header, header)
	text, err := token.SignedString(k)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// SignRaw signs a header and claims as they are written, by ES256.
func (i *Issuer) SignRaw(header, claims string) string {
	i.t.Helper()
	i.mu.Lock()
	k := i.keys["first"]
	i.mu.Unlock()
	text := base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + base64.RawURLEncoding.EncodeToString([]byte(claims))
	sig, err := jwt.SigningMethodES256.Sign(text, k)
	if err != nil {
		i.t.Fatal(err)
	}
	return text + "." + base64.RawURLEncoding.EncodeToString(sig)
}

// Trust makes a company trust the issuer for its own audience: everybody whose
// subject begins as the rule says acts in its first project. jwks "" is found by
// discovery. edit may change both.
func (w *World) Trust(s tenant.Scope, i *Issuer, jwks, subject string, edit func(*tenant.IdentityProvider, *tenant.FederationRule)) {
	at := time.Unix(1, 0)
	p := &tenant.IdentityProvider{ID: "wip_" + s.ID().Locator(), Name: "issuer", Issuer: i.Name, Audience: s.ID().Audience(), Enabled: true,
		JWKS: jwks, CreatedAt: at, UpdatedAt: at}
	r := &tenant.FederationRule{ID: "rule_" + s.ID().Locator(), ProviderID: p.ID, Matchers: map[string]any{"sub": subject},
		ProjectID: "proj_" + s.ID().Locator(), ServiceAccountID: "svc_acct_1", Enabled: true, CreatedAt: at, UpdatedAt: at}
	p.Rules = []*tenant.FederationRule{r}
	if edit != nil {
		edit(p, r)
	}
	w.Edit(s, func(c *tenant.Company) {
		if c.Identity == nil {
			c.Identity = &tenant.Identity{}
		}
		c.Identity.Providers = append(c.Identity.Providers, p)
	})
}
