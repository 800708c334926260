package tenant_test

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"bulkhead/fault"
	"bulkhead/tenant"
	"bulkhead/tenant/tenanttest"
)

const password = "correct horse battery staple"

// peopled is a world with a company and one user of it, at a time that can be moved.
type peopled struct {
	*tenanttest.World
	s   tenant.Scope
	mu  sync.Mutex
	now time.Time
}

func newPeopled(t *testing.T) *peopled {
	t.Helper()
	p := &peopled{now: time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)}
	p.World = tenanttest.New(t, tenant.Options{Now: func() time.Time {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.now
	}})
	_, p.s = p.Company("acme", tenant.KeyAdmin, nil)
	p.AddUser(p.s, tenant.User{ID: "user_a", Email: "a@example.com", Grants: tenant.Grants{Company: tenant.UsageRead}}, password)
	return p
}

func (p *peopled) pass(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.now = p.now.Add(d)
}

func (p *peopled) session(t *testing.T, life time.Duration) string {
	t.Helper()
	secret, _ := p.AddSession(p.s, "user_a", p.now, p.now.Add(life))
	return secret
}

func wantCode(t *testing.T, what string, err error, code string) {
	t.Helper()
	if f, ok := errors.AsType[*fault.Error](err); !ok || f.Code != code {
		t.Errorf("%s: %v, want the code %q", what, err, code)
	}
}

// TestSessionWarm counts what a warm session costs: no look-up, and one note a
// minute that it is in use.
func TestSessionWarm(t *testing.T) {
	p := newPeopled(t)
	secret := []byte(p.session(t, tenant.SessionLife))
	use := func() {
		t.Helper()
		s, err := p.AuthenticateSession(t.Context(), secret)
		if err != nil || s.UserID() != "user_a" || !s.Allows("", tenant.UsageRead) || s.Allows("", tenant.ModelRequest) || s.Actor() != "user:user_a" {
			t.Fatalf("the session is not what it should be: %v", err)
		}
	}
	use()
	loads := p.Loads()
	for range 1000 {
		use()
	}
	if n := p.Loads() - loads; n != 0 || p.Seen() != 0 {
		t.Errorf("1,000 uses of a warm session: %d look-ups, %d notes", n, p.Seen())
	}
	for range 5 {
		p.pass(tenant.SeenEvery)
		for range 100 {
			use()
		}
	}
	if p.Seen() != 5 {
		t.Errorf("%d notes in 5 minutes", p.Seen())
	}
}

// TestSessionEnds lets sessions end in each way there is.
func TestSessionEnds(t *testing.T) {
	p := newPeopled(t)
	works := func(secret string) error {
		_, err := p.AuthenticateSession(t.Context(), []byte(secret))
		return err
	}
	over := func(what, secret string) {
		t.Helper()
		wantCode(t, what, works(secret), "session_ended")
	}
	// In use it lives to its end, and not beyond.
	secret := p.session(t, 24*time.Hour)
	for range 4 {
		if err := works(secret); err != nil {
			t.Fatal(err)
		}
		p.pass(6 * time.Hour)
	}
	over("past its end", secret)

	// Not used it ends before, also where another gateway has it in memory.
	secret = p.session(t, tenant.SessionLife)
	if err := works(secret); err != nil {
		t.Fatal(err)
	}
	p.pass(tenant.SessionIdle - time.Second)
	if err := works(secret); err != nil {
		t.Errorf("a second before it is idle for too long: %v", err)
	}
	p.pass(tenant.SessionIdle)
	over("idle for too long", secret)

	// One that was in use elsewhere is not idle.
	secret, one := p.AddSession(p.s, "user_a", p.now, p.now.Add(tenant.SessionLife))
	if err := works(secret); err != nil {
		t.Fatal(err)
	}
	p.pass(tenant.SessionIdle - time.Hour)
	if err := p.SeeSession(t.Context(), p.s.ID(), one.Key.ID, p.now); err != nil {
		t.Fatal(err)
	}
	p.pass(2 * time.Hour)
	if err := works(secret); err != nil {
		t.Errorf("in use at another gateway: %v", err)
	}
	p.EndSession(p.s, one.Key.ID)
	over("logged out", secret)

	secret = p.session(t, time.Hour)
	if err := works(secret); err != nil {
		t.Fatal(err)
	}
	p.RemoveUser(p.s, "user_a")
	over("its user removed", secret)

	for what, bad := range map[string]string{"nothing": "", "garbage": "garbage", "cut short": secret[:len(secret)-1]} {
		over(what, bad)
	}
}

// TestSessionIsNoKey holds what is secret in one place against the others.
func TestSessionIsNoKey(t *testing.T) {
	p := newPeopled(t)
	key, _ := p.AddKey(p.s, tenant.KeyAdmin, "")
	secret := p.session(t, time.Hour)
	token := p.AddInvite(p.s, tenant.Invite{Key: tenant.Key{ExpiresAt: p.now.Add(time.Hour)}})
	for _, no := range []string{secret, token} {
		_, err := p.Authenticate(t.Context(), []byte(no))
		wantCode(t, "as a key", err, "invalid_api_key")
	}
	for _, no := range []string{key, token} {
		_, err := p.AuthenticateSession(t.Context(), []byte(no))
		wantCode(t, "as a session", err, "session_ended")
	}
	for _, no := range []string{key, secret, "", "garbage"} {
		_, _, err := p.Invited(t.Context(), []byte(no))
		wantCode(t, "as an invite", err, "invite_not_found")
	}
	if s, inv, err := p.Invited(t.Context(), []byte(token)); err != nil || s.KeyID() != inv.Key.ID || s.Allows("", tenant.ModelRequest) || s.UserID() != "" {
		t.Errorf("an invite opens more than it should: %v", err)
	}
	p.pass(time.Hour)
	_, _, err := p.Invited(t.Context(), []byte(token))
	wantCode(t, "an invite that is over", err, "invite_not_found")

	// The CSRF token goes with one secret.
	m := p.Minter()
	if !m.ProvesCSRF([]byte(secret), []byte(m.CSRF([]byte(secret)))) || m.ProvesCSRF([]byte(secret), []byte(m.CSRF([]byte(key)))) || m.ProvesCSRF([]byte(secret), nil) {
		t.Error("a token goes with another secret")
	}
}

// TestKeyOfUser has an admin key do what its user may, and end with them.
func TestKeyOfUser(t *testing.T) {
	p := newPeopled(t)
	key, k := p.AddKey(p.s, tenant.KeyAdmin, "")
	p.Own(p.s, k.ID, "user_a")
	s, err := p.Authenticate(t.Context(), []byte(key))
	if err != nil || s.Grants().Company != tenant.UsageRead || s.Actor() != "key:"+k.ID || s.UserID() != "user_a" {
		t.Fatalf("the key of a user: %v", err)
	}
	p.RemoveUser(p.s, "user_a")
	_, err = p.Authenticate(t.Context(), []byte(key))
	wantCode(t, "the key of a user who was removed", err, "invalid_api_key")
}

func TestLogin(t *testing.T) {
	p := newPeopled(t)
	login := func(company, email, pass, address string) (tenant.Scope, tenant.Claim, error) {
		return p.Login(t.Context(), tenant.Login{Company: company, Email: email, Password: pass, Address: address})
	}
	id := p.s.ID().String()
	s, _, err := login(id, " A@Example.com ", password, "1")
	if err != nil || s.UserID() != "user_a" || s.Actor() != "user:user_a" || !s.Allows("", tenant.UsageRead) {
		t.Fatalf("a login: %v", err)
	}
	_, claim, err := login(id, "a@example.com", "wrong", "1")
	wantCode(t, "a wrong password", err, "login_failed")
	if claim.Company != p.s.ID() || claim.UserID != "user_a" || claim.Proved {
		t.Errorf("the claim is %+v", claim)
	}
	// A user without a password has none that is right.
	p.AddUser(p.s, tenant.User{ID: "user_b", Email: "b@example.com"}, "")
	for _, pass := range []string{"", "\x00", strings.Repeat("A", 32)} {
		_, _, err = login(id, "b@example.com", pass, "1")
		wantCode(t, "no password", err, "login_failed")
	}
	p.Edit(p.s, func(c *tenant.Company) { c.Status = tenant.Suspended })
	_, _, err = login(id, "a@example.com", password, "1")
	wantCode(t, "of a suspended company", err, "company_suspended")
}

// TestThrottle guesses until it must wait, for one account and from one address.
func TestThrottle(t *testing.T) {
	p := newPeopled(t)
	guess := func(email, pass, address string) error {
		_, _, err := p.Login(t.Context(), tenant.Login{Company: p.s.ID().String(), Email: email, Password: pass, Address: address})
		return err
	}
	// Many at once are not more than one after the other.
	var wg sync.WaitGroup
	errs := make(chan error, 30)
	for range 30 {
		wg.Go(func() { errs <- guess("a@example.com", "wrong", "1") })
	}
	wg.Wait()
	close(errs)
	looked := 0
	for err := range errs {
		if fault.Is(err, fault.Unauthenticated) {
			looked++
		}
	}
	if looked != 10 {
		t.Errorf("%d of 30 guesses were looked at, want 10", looked)
	}
	wantCode(t, "the right one now", guess("a@example.com", password, "2"), "too_many_logins")
	wantCode(t, "another account", guess("b@example.com", "wrong", "1"), "login_failed")
	p.pass(15 * time.Minute)
	for range 30 { // who is right is not counted
		if err := guess("a@example.com", password, "1"); err != nil {
			t.Fatal(err)
		}
	}
}

// TestHashesAtOnce fills the places for hashing: who is too many is told so.
func TestHashesAtOnce(t *testing.T) {
	p := newPeopled(t)
	var wg sync.WaitGroup
	errs := make(chan error, 100)
	for range 100 {
		wg.Go(func() {
			_, err := p.HashPassword(t.Context(), password)
			errs <- err
		})
	}
	most := 0
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	for running := true; running; {
		most = max(most, tenant.Hashing(p.Directory))
		select {
		case <-done:
			running = false
		default:
		}
	}
	close(errs)
	busy := 0
	for err := range errs {
		if err != nil {
			wantCode(t, "one too many", err, "logins_in_flight")
			busy++
		}
	}
	if most != 2 || busy == 0 || busy > 36 {
		t.Errorf("%d at once, %d of 100 were too many", most, busy)
	}
}

func TestCheckPassword(t *testing.T) {
	f := func(pass string, ok bool) {
		t.Helper()
		if err := tenant.CheckPassword("password", pass); (err == nil) != ok {
			t.Errorf("%.20q of %d bytes: %v", pass, len(pass), err)
		}
	}
	f("", false)
	f("elevenchars", false)
	f("twelve chars", true)
	f(strings.Repeat("ä", 12), true)
	f(strings.Repeat("x", 256), true)
	f(strings.Repeat("x", 257), false)
	f("twelve chars\xff", false)
}
