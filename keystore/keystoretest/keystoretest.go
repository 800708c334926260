// Package keystoretest holds the contracts of package keystore as tests: Run
// for whatever gives credentials, RunStore for whatever stores sealed ones.
package keystoretest

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"strings"
	"sync"
	"testing"

	"bulkhead/fault"
	"bulkhead/keystore"
	"bulkhead/provider"
	"bulkhead/tenant"
	"bulkhead/tenant/tenanttest"
)

// Backend is a keystore.Reader and the ways to what it reads from.
type Backend struct {
	Reader keystore.Reader
	// Place stores n as the company's only credential for n.Provider. The
	// company may be new to the backend.
	Place func(s tenant.Scope, n keystore.NewCredential) error
	// Remove removes the company's credential for the provider.
	Remove func(s tenant.Scope, provider string) error
	// Steal copies all that is stored of one credential over all that is
	// stored of another, as somebody could who writes to the storage.
	Steal func(from tenant.Scope, provider string, to tenant.Scope, as string) error
	// Break makes the storage fail; nil heals it.
	Break func(err error)
}

// Run tests a Reader. open gives an empty one.
func Run(t *testing.T, open func(t *testing.T) Backend) {
	test := func(name string, f func(*suite)) {
		t.Run(name, func(t *testing.T) {
			f(&suite{t: t, Backend: open(t), w: tenanttest.New(t, tenant.Options{})})
		})
	}
	test("whole", (*suite).whole)
	test("two companies", (*suite).twoCompanies)
	test("missing", (*suite).missing)
	test("confusable names", (*suite).confusable)
	test("rotation", (*suite).rotation)
	test("stolen", (*suite).stolen)
	test("broken storage", (*suite).broken)
	test("side by side", (*suite).sideBySide)
	test("zero scope", (*suite).zeroScope)
}

type suite struct {
	Backend
	t *testing.T
	w *tenanttest.World
}

// subject is a company and the key that opens it.
type subject struct {
	tenant.Scope
	key string
}

func (u *suite) company(name string) *subject {
	key, s := u.w.Company(name, tenant.KeyLive, nil)
	return &subject{s, key}
}

// changed gives c the Scope that a request would have after a change.
func (u *suite) changed(c *subject) {
	u.t.Helper()
	u.w.Edit(c.Scope, func(c *tenant.Company) { c.Generation++ })
	s, err := u.w.Authenticate(u.t.Context(), []byte(c.key))
	if err != nil {
		u.t.Fatal(err)
	}
	c.Scope = s
}

func (u *suite) place(c *subject, name, secret string) {
	u.t.Helper()
	if err := u.Place(c.Scope, keystore.NewCredential{Provider: name, Secret: provider.NewSecret(secret)}); err != nil {
		u.t.Fatalf("cannot place a credential for %q: %s", name, err)
	}
	u.changed(c)
}

// want asks for a credential and compares its secret.
func (u *suite) want(c *subject, name, secret string) provider.Credential {
	u.t.Helper()
	got, err := u.Reader.Credential(u.t.Context(), c.Scope, name)
	if err != nil {
		u.t.Fatalf("credential for %q: %s", name, err)
	}
	if got.Secret.Reveal() != secret || got.Company != c.ID().String() || got.Provider != name {
		u.t.Fatalf("credential for %q of %s is another: for %q of %s", name, c.ID(), got.Provider, got.Company)
	}
	return got
}

// refused asks for a credential that must not be given, and returns why not.
func (u *suite) refused(c *subject, name string, secrets ...string) error {
	u.t.Helper()
	got, err := u.Reader.Credential(u.t.Context(), c.Scope, name)
	if err == nil || !reflect.DeepEqual(got, provider.Credential{}) {
		u.t.Fatalf("credential for %q of %s: got one for %q of %s", name, c.ID(), got.Provider, got.Company)
	}
	hides(u.t, err, secrets...)
	return err
}

func (u *suite) wantMissing(c *subject, name string, secrets ...string) {
	u.t.Helper()
	if e := fault.As(u.refused(c, name, secrets...)); e.Kind != fault.Invalid || e.Code != "credential_missing" {
		u.t.Fatalf("credential for %q: kind %d, code %q, want Invalid and credential_missing", name, e.Kind, e.Code)
	}
}

// hides checks that no way to print v shows a secret.
func hides(t testing.TB, v any, secrets ...string) {
	t.Helper()
	text := fmt.Sprintf("%v|%+v|%#v|%s|%q|%x|%d", v, v, v, v, v, v, v)
	if j, err := json.Marshal(v); err == nil {
		text += string(j)
	}
	for _, secret := range secrets {
		for _, form := range []string{secret, fmt.Sprintf("%x", secret), strings.Trim(fmt.Sprint([]byte(secret)), "[]")} {
			if strings.Contains(text, form) {
				t.Fatalf("%T shows the secret", v)
			}
		}
	}
}

const (
	secretA = "sk-aaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	secretB = "sk-bbbbbbbbbbbbbbbbbbbbbbbbbbbb"
)

func (u *suite) whole() {
	a := u.company("a")
	n := keystore.NewCredential{
		Provider: "azure", Secret: provider.NewSecret(secretA), BaseURL: "https://example.com/v1", Resource: "acme-eu",
		Header: map[string]string{"X-Title": "a title", "OpenAI-Project": "p"},
	}
	if err := u.Place(a.Scope, n); err != nil {
		u.t.Fatal(err)
	}
	u.changed(a)
	for range 2 { // cold and warm
		c := u.want(a, "azure", secretA)
		if c.ID == "" || c.Version < 1 || c.BaseURL != n.BaseURL || c.Resource != n.Resource || !maps.Equal(c.Header, n.Header) {
			u.t.Fatalf("not what was placed: %v", c)
		}
		hides(u.t, c, secretA)
		hides(u.t, &c, secretA)
	}
	hides(u.t, u.Reader, secretA)

	// A server of the company's or the operator's own may take no key.
	if err := u.Place(a.Scope, keystore.NewCredential{Provider: "ollama", Keyless: true}); err != nil {
		u.t.Fatal(err)
	}
	u.changed(a)
	u.want(a, "ollama", "")
	if err := u.Place(a.Scope, keystore.NewCredential{Provider: "openai"}); !fault.Is(err, fault.Invalid) {
		u.t.Errorf("a credential without its key was taken: %v", err)
	}
}

func (u *suite) twoCompanies() {
	a, b := u.company("acme"), u.company("acme") // the name is no id
	u.place(a, "openai", secretA)
	u.wantMissing(b, "openai", secretA)
	u.place(b, "openai", secretB)
	for range 2 {
		u.want(a, "openai", secretA)
		u.want(b, "openai", secretB)
	}
	if err := u.Remove(a.Scope, "openai"); err != nil {
		u.t.Fatal(err)
	}
	u.changed(a)
	u.wantMissing(a, "openai", secretA, secretB)
	u.want(b, "openai", secretB)
}

func (u *suite) missing() {
	a := u.company("a")
	u.wantMissing(a, "openai")
	u.place(a, "openai", secretA)
	u.wantMissing(a, "groq", secretA)
	if err := u.refused(a, "groq"); !strings.Contains(fault.As(err).Message, `"groq"`) {
		u.t.Fatalf("the message does not name the provider: %s", err)
	}
}

func (u *suite) confusable() {
	a, b := u.company("a"), u.company("b")
	names := []string{"openai", "openai.", "openai-", "openai_", "openai2", "open", "a.b", "a-b", "a_b", "ab", "a..b", "0", "00", "data", strings.Repeat("a", 64), strings.Repeat("a", 63)}
	for i, name := range names {
		u.place(a, name, fmt.Sprintf("secret-%02d-of-a", i))
	}
	for i, name := range names {
		u.want(a, name, fmt.Sprintf("secret-%02d-of-a", i))
		u.wantMissing(b, name)
	}
	id := a.ID().String()
	for _, name := range []string{
		"", " ", "OpenAI", "openai ", " openai", "openai\x00", "openai\n", "openai/", "/openai", "./openai", "../openai", "x/../openai", "..", ".",
		"openai%", "%", "_", "*", "?", "open*", "openai' OR '1'='1", "openai;", "op\u0435nai", "openai\u200b", "ｏpenai", "openaı", "openAI\u0307",
		id, id + ":openai", id + "/openai", strings.Repeat("a", 65), strings.Repeat("a", 1<<17), "\xff",
	} {
		u.wantMissing(a, name)
		u.wantMissing(b, name)
	}
}

func (u *suite) rotation() {
	a, b := u.company("a"), u.company("b")
	u.place(a, "openai", "secret-number-0")
	u.place(b, "openai", secretB)
	version := u.want(a, "openai", "secret-number-0").Version
	for i := range 3 {
		secret := fmt.Sprintf("secret-number-%d", i+1)
		u.place(a, "openai", secret)
		c := u.want(a, "openai", secret)
		if c.Version <= version {
			u.t.Fatalf("version %d after %d", c.Version, version)
		}
		version = c.Version
	}
	u.want(b, "openai", secretB)

	// A credential is replaced as a whole.
	if err := u.Place(a.Scope, keystore.NewCredential{Provider: "azure", Secret: provider.NewSecret(secretA), Resource: "acme", Header: map[string]string{"X-Title": "t"}}); err != nil {
		u.t.Fatal(err)
	}
	u.place(a, "azure", secretB)
	if c := u.want(a, "azure", secretB); c.Resource != "" || c.Header != nil || c.BaseURL != "" {
		u.t.Fatalf("parts of the credential before were kept: %v", c)
	}
}

func (u *suite) stolen() {
	f := func(from *subject, provider string, to *subject, as string) {
		u.t.Helper()
		if err := u.Steal(from.Scope, provider, to.Scope, as); err != nil {
			u.t.Fatal(err)
		}
		u.changed(to)
		err := u.refused(to, as, secretA, secretB, "secret-of-groq-of-a")
		if k := fault.As(err).Kind; k == fault.Invalid || k == fault.Unavailable {
			u.t.Fatalf("got kind %d (%s), want an error that calls for a look", k, err)
		}
	}
	a, b := u.company("a"), u.company("b")
	u.place(a, "openai", secretA)
	u.place(a, "groq", "secret-of-groq-of-a")
	u.place(b, "openai", secretB)
	u.want(b, "openai", secretB)
	f(b, "openai", a, "openai") // another company's
	f(a, "groq", a, "openai")   // its own, for another provider
	f(b, "openai", a, "groq")   // both
	u.want(b, "openai", secretB)

	// A new one heals it.
	u.place(a, "openai", secretA)
	u.want(a, "openai", secretA)
}

func (u *suite) broken() {
	a, b := u.company("a"), u.company("b")
	u.place(a, "openai", secretA)
	u.place(b, "openai", secretB)
	u.want(a, "openai", secretA)
	u.Break(errors.New("broken on purpose"))
	u.want(a, "openai", secretA) // known
	if k := fault.As(u.refused(b, "openai", secretA, secretB)).Kind; k != fault.Unavailable {
		u.t.Fatalf("got kind %d, want Unavailable", k)
	}
	u.Break(nil)
	u.want(b, "openai", secretB)
}

func (u *suite) sideBySide() {
	const companies, each = 8, 16
	var wg sync.WaitGroup
	for i := range companies {
		c, secret := u.company("same name"), fmt.Sprintf("secret-of-company-%d", i)
		u.place(c, "openai", secret)
		for range each {
			wg.Go(func() {
				got, err := u.Reader.Credential(u.t.Context(), c.Scope, "openai")
				if err != nil || got.Secret.Reveal() != secret || got.Company != c.ID().String() {
					u.t.Errorf("company %d got the credential of %q, %v", i, got.Company, err)
				}
			})
		}
	}
	wg.Wait()
}

func (u *suite) zeroScope() {
	panics(u.t, func() { _, _ = u.Reader.Credential(u.t.Context(), tenant.Scope{}, "openai") })
}

func panics(t testing.TB, f func()) {
	t.Helper()
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	f()
}
