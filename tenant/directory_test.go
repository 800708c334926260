package tenant_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"bulkhead/fault"
	"bulkhead/tenant"
	"bulkhead/tenant/tenanttest"
)

// hooked is a World whose look-ups a test can watch and change.
type hooked struct {
	*tenanttest.World
	afterCompany func(c *tenant.Company)
	afterKey     func(k *tenant.Key)
}

func (h *hooked) LoadCompany(ctx context.Context, id tenant.ID, c *tenant.Company) error {
	err := h.World.LoadCompany(ctx, id, c)
	if h.afterCompany != nil {
		h.afterCompany(c)
	}
	return err
}

func (h *hooked) LoadKey(ctx context.Context, id tenant.ID, keyID string) (*tenant.Key, error) {
	k, err := h.World.LoadKey(ctx, id, keyID)
	if h.afterKey != nil && k != nil {
		h.afterKey(k)
	}
	return k, err
}

func (h *hooked) LoadOperatorKey(ctx context.Context, keyID string) (*tenant.Key, error) {
	k, err := h.World.LoadOperatorKey(ctx, keyID)
	if h.afterKey != nil && k != nil {
		h.afterKey(k)
	}
	return k, err
}

func (h *hooked) directory(o tenant.Options) *tenant.Directory {
	return tenant.NewDirectory(h, h.World, h.Minter(), o)
}

// loads returns how many look-ups do causes.
func loads(d *tenant.Directory, do func()) int64 {
	before := d.Loads()
	do()
	return d.Loads() - before
}

func wantScope(t testing.TB, d *tenant.Directory, key string) tenant.Scope {
	t.Helper()
	s, err := d.Authenticate(context.Background(), []byte(key))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func wantRefused(t testing.TB, d *tenant.Directory, key string, kind fault.Kind, code string) {
	t.Helper()
	s, err := d.Authenticate(context.Background(), []byte(key))
	wantFault(t, err, kind, code)
	if s != (tenant.Scope{}) {
		t.Fatal("a Scope came with the error")
	}
}

func TestAuthenticate(t *testing.T) {
	w := tenanttest.New(t, tenant.Options{CompanyLimits: tenant.Limits{Concurrent: 7}})
	key, s := w.Company("acme", tenant.KeyLive, func(c *tenant.Company) {
		for _, p := range c.Projects {
			p.Limits.RequestsPerMinute = 5
		}
	})
	project := "proj_" + s.ID().Locator()
	if s.Company().Name != "acme" || s.ProjectID() != project || s.Project().ID != project || s.Test() ||
		s.KeyID() != "key_"+part(key, 4) || s.Actor() != "key:"+s.KeyID() || s.Key().Kind != tenant.KeyLive {
		t.Fatalf("company %q, project %q, key %q", s.Company().Name, s.ProjectID(), s.KeyID())
	}
	if got := fmt.Sprint(s.Limits()); got != fmt.Sprintf("[{company %s {0 0 7}} {project %s {5 0 0}}]", s.ID(), project) {
		t.Errorf("limits %s", got)
	}
	if n := loads(w.Directory, func() { wantScope(t, w.Directory, key) }); n != 0 {
		t.Errorf("%d look-ups for a key that is known", n)
	}

	test, _ := w.AddKey(s, tenant.KeyTest, project)
	if ts := wantScope(t, w.Directory, test); !ts.Test() || ts.ProjectID() != project || ts.ID() != s.ID() {
		t.Error("a test key opens something else")
	}
	admin, _ := w.AddKey(s, tenant.KeyAdmin, project)
	if as := wantScope(t, w.Directory, admin); as.Project() != nil || as.ProjectID() != "" || as.Test() {
		t.Error("an admin key has a project")
	}
	// The company's own limits are in place of the default ones.
	w.Edit(s, func(c *tenant.Company) { c.Limits.RequestsPerMinute = 9 })
	if got := fmt.Sprint(wantScope(t, w.Directory, admin).Limits()); got != fmt.Sprintf("[{company %s {9 0 0}}]", s.ID()) {
		t.Errorf("limits %s", got)
	}
	// A Scope from before the change is as it was.
	if s.Limits()[0].Limits.Concurrent != 7 || s.Company().Limits != (tenant.Limits{}) {
		t.Error("a Scope has changed")
	}
}

func TestRevoked(t *testing.T) {
	w := tenanttest.New(t, tenant.Options{})
	key, s := w.Company("a", tenant.KeyLive, nil)
	other, _ := w.AddKey(s, tenant.KeyTest, s.ProjectID())
	wantScope(t, w.Directory, key)
	wantScope(t, w.Directory, other)
	w.Revoke(s, s.KeyID())
	wantRefused(t, w.Directory, key, fault.Unauthenticated, "invalid_api_key")
	if n := loads(w.Directory, func() { wantRefused(t, w.Directory, key, fault.Unauthenticated, "invalid_api_key") }); n != 0 {
		t.Errorf("%d look-ups for a key that was refused just now", n)
	}
	wantScope(t, w.Directory, other)
}

func TestStatus(t *testing.T) {
	w := tenanttest.New(t, tenant.Options{})
	key, s := w.Company("a", tenant.KeyLive, nil)
	bKey, b := w.Company("b", tenant.KeyLive, nil)
	forged := withCRC(key[:len(key)-49] + strings.Repeat("a", 43))
	set := func(status tenant.Status) {
		w.Edit(s, func(c *tenant.Company) { c.Status = status })
		// Only who has a key learns what is the matter with the company.
		wantRefused(t, w.Directory, forged, fault.Unauthenticated, "invalid_api_key")
	}
	set(tenant.Suspended)
	wantRefused(t, w.Directory, key, fault.Forbidden, "company_suspended")
	set(tenant.Active)
	wantScope(t, w.Directory, key)
	set(tenant.Erasing)
	wantRefused(t, w.Directory, key, fault.Forbidden, "company_suspended")
	set("")
	wantRefused(t, w.Directory, key, fault.Forbidden, "company_suspended")
	set(tenant.Erased)
	wantRefused(t, w.Directory, key, fault.Unauthenticated, "invalid_api_key")

	project := b.ProjectID()
	admin, _ := w.AddKey(b, tenant.KeyAdmin, "")
	test, _ := w.AddKey(b, tenant.KeyTest, project)
	orphan, _ := w.AddKey(b, tenant.KeyLive, "proj_none")
	wantRefused(t, w.Directory, orphan, fault.Forbidden, "project_archived")
	w.Edit(b, func(c *tenant.Company) { c.Projects[project].ArchivedAt = time.Unix(5, 0) })
	wantRefused(t, w.Directory, bKey, fault.Forbidden, "project_archived")
	wantRefused(t, w.Directory, test, fault.Forbidden, "project_archived")
	wantScope(t, w.Directory, admin)
}

func TestExpired(t *testing.T) {
	now := time.Unix(1000, 0)
	h := &hooked{World: tenanttest.New(t, tenant.Options{}), afterKey: func(k *tenant.Key) { k.ExpiresAt = time.Unix(2000, 0) }}
	d := h.directory(tenant.Options{Now: func() time.Time { return now }})
	key, _ := h.Company("a", tenant.KeyLive, nil)
	op := h.AddOperator()
	f := func(at time.Time, valid bool) {
		t.Helper()
		now = at
		_, err := d.AuthenticateOperator(t.Context(), []byte(op))
		if valid {
			wantScope(t, d, key)
			if err != nil {
				t.Fatal(err)
			}
			return
		}
		wantRefused(t, d, key, fault.Unauthenticated, "expired_api_key")
		wantFault(t, err, fault.Unauthenticated, "expired_api_key")
	}
	f(time.Unix(1999, 999), true)
	f(time.Unix(2000, 0), false) // known, and refused all the same
	f(time.Unix(3000, 0), false)
}

// What stands in a key cannot be changed by who holds it.
func TestLie(t *testing.T) {
	w := tenanttest.New(t, tenant.Options{})
	a, as := w.Company("a", tenant.KeyLive, nil)
	b, bs := w.Company("b", tenant.KeyLive, nil)
	aTest, _ := w.AddKey(as, tenant.KeyTest, as.ProjectID())
	f := func(lie string) {
		t.Helper()
		for range 2 { // not known and known
			wantRefused(t, w.Directory, lie, fault.Unauthenticated, "invalid_api_key")
		}
	}
	// Another kind.
	f(withPart(a, 2, "admin"))
	f(withPart(a, 2, "test"))
	f(withPart(aTest, 2, "live"))
	f(withPart(aTest, 2, "admin"))
	// Another company: B's key under A's locator and reverse.
	f(withPart(b, 3, as.ID().Locator()))
	f(withPart(a, 3, bs.ID().Locator()))
	f(withPart(a, 3, "0000000000"))
	// Another key of the same company and of another.
	f(withPart(a, 4, part(aTest, 4)))
	f(withPart(a, 4, part(b, 4)))
	f(withPart(a, 4, "000000000000"))
	// Another secret.
	secret := part(a, 5)[:43]
	f(withPart(a, 5, strings.Repeat("0", 43)))
	f(withCRC(a[:len(a)-49] + secret[1:] + secret[:1]))
	wantScope(t, w.Directory, a)
	wantScope(t, w.Directory, b)

	// A hash copied from another row opens nothing either.
	w.Tamper(as, as.KeyID(), bs.Key().Hash)
	f(a)
	f(withPart(b, 3, as.ID().Locator()))
	wantScope(t, w.Directory, b)
}

// A row that says it is of another kind than its key does not raise the key.
func TestKindOfRow(t *testing.T) {
	h := &hooked{World: tenanttest.New(t, tenant.Options{})}
	key, _ := h.Company("a", tenant.KeyLive, nil)
	op := h.AddOperator()
	h.afterKey = func(k *tenant.Key) { k.Kind = tenant.KeyAdmin }
	wantRefused(t, h.directory(tenant.Options{}), key, fault.Unauthenticated, "invalid_api_key")
	_, err := h.directory(tenant.Options{}).AuthenticateOperator(t.Context(), []byte(op))
	wantFault(t, err, fault.Unauthenticated, "invalid_api_key")
}

func TestUnknownIsRemembered(t *testing.T) {
	now := time.Unix(1000, 0)
	w := tenanttest.New(t, tenant.Options{UnknownFor: 10 * time.Second, Now: func() time.Time { return now }})
	key, s := w.Company("a", tenant.KeyLive, nil)
	noKey, noCompany := withPart(key, 4, "000000000000"), withPart(key, 3, "0000000000")
	f := func(key string, want int64) {
		t.Helper()
		if n := loads(w.Directory, func() { wantRefused(t, w.Directory, key, fault.Unauthenticated, "invalid_api_key") }); n != want {
			t.Fatalf("%d look-ups, want %d", n, want)
		}
	}
	for range 2 {
		f(noKey, 1)
		f(noCompany, 1)
		f(noKey, 0)
		now = now.Add(10*time.Second - 1)
		f(noKey, 0)
		f(noCompany, 0)
		now = now.Add(1)
	}
	// A key made in the meantime works as soon as the change is known.
	fresh, _ := w.AddKey(s, tenant.KeyLive, s.ProjectID())
	w.Changed(s.ID().String())
	wantScope(t, w.Directory, fresh)
}

// A company that is made after somebody asked for it is there at once.
func TestUnknownCompanyAppears(t *testing.T) {
	h := &hooked{World: tenanttest.New(t, tenant.Options{})}
	d := h.directory(tenant.Options{})
	key, s := h.Company("a", tenant.KeyLive, nil)
	h.Edit(s, func(c *tenant.Company) { c.Status = tenant.Erased })
	wantRefused(t, d, key, fault.Unauthenticated, "invalid_api_key")
	h.Edit(s, func(c *tenant.Company) { c.Status = tenant.Active })
	wantRefused(t, d, key, fault.Unauthenticated, "invalid_api_key")
	d.Changed(s.ID().String())
	wantScope(t, d, key)
}

// Floods of keys that do not exist are bounded, and cost the company whose
// locator they carry its share of refused ids and nobody anything else.
func TestFlood(t *testing.T) {
	const perCompany = 16
	w := tenanttest.New(t, tenant.Options{KeysPerCompany: perCompany, Companies: 4 * tenant.Shards})
	a, as := w.Company("a", tenant.KeyLive, nil)
	b, _ := w.Company("b", tenant.KeyLive, nil)
	bNone := withPart(b, 4, "zzzzzzzzzzzz")
	wantScope(t, w.Directory, a)
	wantRefused(t, w.Directory, bNone, fault.Unauthenticated, "invalid_api_key")
	warm := func() {
		t.Helper()
		if n := loads(w.Directory, func() {
			wantScope(t, w.Directory, a)
			wantScope(t, w.Directory, b)
			wantRefused(t, w.Directory, bNone, fault.Unauthenticated, "invalid_api_key")
		}); n != 0 {
			t.Fatalf("%d look-ups for what was known before the flood", n)
		}
	}
	for i := range 100 * perCompany {
		wantRefused(t, w.Directory, withPart(a, 4, base32(i, 12)), fault.Unauthenticated, "invalid_api_key")
	}
	if companies, _, keys, refused := tenant.Remembered(w.Directory); companies != 2 || keys != 2 || refused != perCompany+1 {
		t.Fatalf("%d companies, %d keys, %d refused are kept, want 2, 2, %d", companies, keys, refused, perCompany+1)
	}
	warm()

	// Companies that do not exist.
	const most = tenant.UnknownPerShard * tenant.Shards
	for i := range most + most/2 {
		wantRefused(t, w.Directory, withPart(a, 3, base32(i, 10)), fault.Unauthenticated, "invalid_api_key")
	}
	if _, unknown, _, _ := tenant.Remembered(w.Directory); unknown > most || unknown < most/2 {
		t.Fatalf("%d unknown locators are kept, want at most %d", unknown, most)
	}
	warm()

	// Keys of its own, and companies that exist.
	for range 3 * perCompany {
		key, _ := w.AddKey(as, tenant.KeyLive, as.ProjectID())
		wantScope(t, w.Directory, key)
	}
	if _, _, keys, _ := tenant.Remembered(w.Directory); keys != perCompany+1 {
		t.Fatalf("%d keys are kept, want %d", keys, perCompany+1)
	}
	for i := range 20 * tenant.Shards {
		w.Company(fmt.Sprint(i), tenant.KeyLive, nil)
	}
	if companies, _, _, _ := tenant.Remembered(w.Directory); companies > 4*tenant.Shards {
		t.Fatalf("%d companies are kept, want at most %d", companies, 4*tenant.Shards)
	}
	wantScope(t, w.Directory, a)
	wantScope(t, w.Directory, b)
}

// base32 writes n with that many digits.
func base32(n, digits int) string {
	b := make([]byte, digits)
	for i := range b {
		b[digits-1-i] = digits32[n%32]
		n /= 32
	}
	return string(b)
}

// What was read before a change is not kept after it.
func TestLoadOvertaken(t *testing.T) {
	h := &hooked{World: tenanttest.New(t, tenant.Options{})}
	d := h.directory(tenant.Options{})
	key, s := h.Company("a", tenant.KeyLive, nil)
	id := s.ID().String()

	// The company is suspended after it was read.
	h.afterCompany = func(*tenant.Company) {
		h.afterCompany = nil
		h.Edit(s, func(c *tenant.Company) { c.Status = tenant.Suspended })
		d.Changed(id)
	}
	wantScope(t, d, key) // began before
	wantRefused(t, d, key, fault.Forbidden, "company_suspended")
	h.Edit(s, func(c *tenant.Company) { c.Status = tenant.Active })
	d.Changed(id)

	// The key is revoked after it was read.
	h.afterKey = func(*tenant.Key) {
		h.afterKey = nil
		h.Revoke(s, s.KeyID())
		d.Changed(id)
	}
	wantScope(t, d, key)
	wantRefused(t, d, key, fault.Unauthenticated, "invalid_api_key")

	// The company appears after it was found missing.
	h.Edit(s, func(c *tenant.Company) { c.Status = tenant.Erased })
	d.Changed(id)
	again, _ := h.AddKey(s, tenant.KeyLive, s.ProjectID())
	h.afterCompany = func(*tenant.Company) {
		h.afterCompany = nil
		h.Edit(s, func(c *tenant.Company) { c.Status = tenant.Active })
		d.Changed(id)
	}
	wantRefused(t, d, again, fault.Unauthenticated, "invalid_api_key")
	wantScope(t, d, again)
}

func TestSourceFails(t *testing.T) {
	w := tenanttest.New(t, tenant.Options{})
	key, s := w.Company("a", tenant.KeyLive, nil)
	cold, _ := w.AddKey(s, tenant.KeyLive, s.ProjectID())
	op := w.AddOperator()
	cause := errors.New("disk on fire")
	w.Fail(cause)
	f := func(err error) {
		t.Helper()
		wantFault(t, err, fault.Unavailable, "")
		if !errors.Is(err, cause) || strings.Contains(fault.As(err).Message, "fire") {
			t.Fatalf("the cause is not kept, or shown: %v", err)
		}
	}
	wantScope(t, w.Directory, key) // known
	_, err := w.Authenticate(t.Context(), []byte(cold))
	f(err)
	_, err = w.AuthenticateOperator(t.Context(), []byte(op))
	f(err)
	w.Changed(s.ID().String())
	_, err = w.Authenticate(t.Context(), []byte(key))
	f(err)
	// A failure is not remembered.
	w.Fail(nil)
	wantScope(t, w.Directory, cold)
	if _, err := w.AuthenticateOperator(t.Context(), []byte(op)); err != nil {
		t.Fatal(err)
	}
}

// With all places among the look-ups taken, a request waits no longer than its
// context; what is known needs no place.
func TestLookupsBounded(t *testing.T) {
	h := &hooked{World: tenanttest.New(t, tenant.Options{})}
	d := h.directory(tenant.Options{Lookups: 2})
	key, _ := h.Company("a", tenant.KeyLive, nil)
	wantScope(t, d, key)
	began, release := make(chan struct{}), make(chan struct{})
	h.afterCompany = func(*tenant.Company) { began <- struct{}{}; <-release }
	done := make(chan error)
	for i := range 2 {
		go func() {
			_, err := d.Authenticate(context.Background(), []byte(withPart(key, 3, base32(i, 10))))
			done <- err
		}()
		<-began
	}
	wantScope(t, d, key)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := d.Authenticate(ctx, []byte(withPart(key, 3, base32(2, 10))))
	wantFault(t, err, fault.Unavailable, "")
	_, err = d.AuthenticateOperator(ctx, []byte(h.AddOperator()))
	wantFault(t, err, fault.Unavailable, "")
	close(release)
	for range 2 {
		wantFault(t, <-done, fault.Unauthenticated, "invalid_api_key")
	}
}

// Random bytes never panic and never authenticate.
func FuzzAuthenticate(f *testing.F) {
	w := tenanttest.New(f, tenant.Options{})
	key, s := w.Company("a", tenant.KeyLive, nil)
	admin, _ := w.AddKey(s, tenant.KeyAdmin, "")
	op := w.AddOperator()
	for _, k := range []string{key, admin, op, "", "sk-bh-", "Bearer " + key, strings.Repeat("-", 90)} {
		f.Add([]byte(k), false)
		f.Add([]byte(k), true)
	}
	f.Fuzz(func(t *testing.T, b []byte, sum bool) {
		if text := string(b); sum && len(text) > 6 {
			b = []byte(withCRC(text[:len(text)-6])) // past the checksum
		}
		switch string(b) {
		case key, admin, op:
			return
		}
		s, err := w.Authenticate(context.Background(), b)
		if err == nil || s != (tenant.Scope{}) {
			t.Fatalf("%q authenticates", b)
		}
		o, err := w.AuthenticateOperator(context.Background(), b)
		if err == nil || o != (tenant.Operator{}) {
			t.Fatalf("%q authenticates as an operator", b)
		}
	})
}

func BenchmarkAuthenticate(b *testing.B) {
	w := tenanttest.New(b, tenant.Options{})
	key, _ := w.Company("a", tenant.KeyLive, nil)
	ctx, k := context.Background(), []byte(key)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := w.Authenticate(ctx, k); err != nil {
				b.Error(err)
				return
			}
		}
	})
}
