package tenant

import (
	"context"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"strings"

	"bulkhead/fault"
)

// Login is what somebody says who has no key.
type Login struct {
	Company  string // id, or locator
	Email    string
	Password string
	Address  string // of the network, for the throttle
}

var (
	errLogin     = fault.New(fault.Unauthenticated, "Incorrect organization, email or password.").WithCode("login_failed")
	errNoSession = fault.New(fault.Unauthenticated, "The session has ended. Log in again.").WithCode("session_ended")
	errBadInvite = fault.New(fault.NotFound, "This invite is not known, has expired, or was accepted already.").WithCode("invite_not_found")
)

// Login returns the Scope that a password proves. What is wrong, the company, the
// address or the password, is not told, and takes the same work. claim is whose
// password it was not, as far as there is one: for the company's own log.
func (d *Directory) Login(ctx context.Context, l Login) (s Scope, claim Claim, err error) {
	email := strings.ToLower(strings.TrimSpace(l.Email))
	locator := strings.TrimPrefix(l.Company, idPrefix)
	account := locator + "\x00" + email
	if len(account) > 512 {
		return Scope{}, Claim{}, errLogin
	}
	if err := d.throttle.begin(d.now(), account, l.Address); err != nil {
		return Scope{}, Claim{}, err
	}
	kn, u, stored, err := d.login(ctx, locator, email)
	if err != nil {
		return Scope{}, Claim{}, err
	}
	right, err := d.checkPassword(ctx, stored, l.Password)
	if err != nil {
		return Scope{}, Claim{}, err
	}
	if !right {
		if kn != nil {
			claim.Company = kn.company.id
		}
		if u != nil {
			claim.UserID = u.ID
		}
		return Scope{}, claim, errLogin
	}
	d.throttle.right(account, l.Address)
	if kn.company.Status != Active {
		return Scope{}, Claim{}, errSuspended
	}
	return Scope{&access{company: kn.company, user: u, grants: u.Grants, minter: d.minter}}, Claim{}, nil
}

// login finds the user; nil and "" where there is no company or no user.
func (d *Directory) login(ctx context.Context, locator, email string) (kn *known, u *User, stored string, err error) {
	if !validLocator([]byte(locator)) {
		return nil, nil, "", nil
	}
	if kn, err = d.known(ctx, []byte(locator)); err != nil || kn == nil {
		return nil, nil, "", err
	}
	release, err := d.lookup(ctx)
	if err != nil {
		return nil, nil, "", err
	}
	defer release()
	d.loads.Add(1)
	u, stored, err = d.source.LoadLogin(ctx, kn.company.id, email)
	if errors.Is(err, ErrNotFound) {
		return kn, nil, "", nil
	}
	if err != nil {
		return nil, nil, "", unavailable(err)
	}
	return kn, u, stored, nil
}

// Confirm reports whether the password is that of the user of s. It is counted
// like a login.
func (d *Directory) Confirm(ctx context.Context, s Scope, password, address string) error {
	u := s.User()
	if u == nil {
		panic("BUG: a scope without a user")
	}
	l := Login{Company: s.ID().String(), Email: u.Email, Password: password, Address: address}
	_, _, err := d.Login(ctx, l)
	if fault.Is(err, fault.Unauthenticated) {
		return fault.New(fault.Forbidden, "The current password is wrong.").WithCode("login_failed")
	}
	return err
}

// AuthenticateSession returns the Scope that a session's secret proves. Like
// Authenticate it does no I/O for one it has seen since the last change to the
// company, but for noting once in SeenEvery that the session is in use.
func (d *Directory) AuthenticateSession(ctx context.Context, secret []byte) (Scope, error) {
	p, ok := parseKey(secret)
	if !ok || p.kind != KeySession {
		return Scope{}, errNoSession
	}
	s, err := d.authenticate(ctx, secret, p)
	if f := fault.As(err); err != nil && f.Kind == fault.Unauthenticated {
		return Scope{}, errNoSession
	}
	return s, err
}

// idle sees whether a session was idle for too long, and else notes that it is not.
func (d *Directory) idle(ctx context.Context, a *access) (bool, error) {
	now := d.now()
	seen := a.session.seen.Load()
	if now.UnixMicro()-seen < SeenEvery.Microseconds() {
		return false, nil
	}
	release, err := d.lookup(ctx)
	if err != nil {
		return false, err
	}
	defer release()
	d.loads.Add(1)
	if now.UnixMicro()-seen >= SessionIdle.Microseconds() {
		// It may have been in use at another gateway.
		there, err := d.source.LoadSession(ctx, a.company.id, a.key.ID)
		switch {
		case errors.Is(err, ErrNotFound):
			return true, nil
		case err != nil:
			return false, unavailable(err)
		case now.Sub(there.SeenAt) >= SessionIdle:
			return true, nil
		}
	}
	if err := d.source.SeeSession(ctx, a.company.id, a.key.ID, now); err != nil && !errors.Is(err, ErrNotFound) {
		return false, unavailable(err)
	}
	a.session.seen.Store(now.UnixMicro())
	return false, nil
}

// Invited returns the invite that a token proves, and a Scope of its company for
// accepting it, which may do nothing else. It asks the source each time.
func (d *Directory) Invited(ctx context.Context, token []byte) (Scope, *Invite, error) {
	p, ok := parseKey(token)
	if !ok || p.kind != KeyInvite {
		return Scope{}, nil, errBadInvite
	}
	kn, err := d.known(ctx, p.locator)
	if err != nil {
		return Scope{}, nil, err
	}
	if kn == nil {
		return Scope{}, nil, errBadInvite
	}
	release, err := d.lookup(ctx)
	if err != nil {
		return Scope{}, nil, err
	}
	defer release()
	d.loads.Add(1)
	inv, err := d.source.LoadInvite(ctx, kn.company.id, inviteName(string(p.id)))
	switch {
	case errors.Is(err, ErrNotFound):
		return Scope{}, nil, errBadInvite
	case err != nil:
		return Scope{}, nil, unavailable(err)
	}
	if !d.minter.proves(token, &inv.Key.Hash) || d.expired(&inv.Key) || !inv.AcceptedAt.IsZero() {
		return Scope{}, nil, errBadInvite
	}
	if kn.company.Status != Active {
		return Scope{}, nil, errSuspended
	}
	return Scope{&access{company: kn.company, key: &inv.Key, minter: d.minter}}, inv, nil
}

// CSRF returns the token that goes with a session's secret: whoever has the one
// can be told the other, and a page of another site has neither.
func (m *Minter) CSRF(secret []byte) string {
	sum := m.sum(append([]byte("csrf\x00"), secret...))
	return hex.EncodeToString(sum[:])
}

// ProvesCSRF reports, in constant time, whether token goes with the secret.
func (m *Minter) ProvesCSRF(secret, token []byte) bool {
	return subtle.ConstantTimeCompare([]byte(m.CSRF(secret)), token) == 1
}
