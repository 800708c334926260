package tenanttest

import (
	"context"
	"sync"
	"time"

	"bulkhead/tenant"
)

// people is a tenant.People in memory.
type people struct {
	mu        sync.Mutex
	users     map[string]*tenant.User // by company id and user id
	passwords map[string]string       // likewise
	sessions  map[string]*tenant.Session
	invites   map[string]*tenant.Invite
	seen      int // how often SeeSession was called
}

func newPeople() *people {
	return &people{users: map[string]*tenant.User{}, passwords: map[string]string{}, sessions: map[string]*tenant.Session{}, invites: map[string]*tenant.Invite{}}
}

// AddUser stores a user of a company, with a password unless it is "".
func (w *World) AddUser(s tenant.Scope, u tenant.User, password string) {
	w.t.Helper()
	stored := ""
	if password != "" {
		var err error
		if stored, err = w.HashPassword(w.t.Context(), password); err != nil {
			w.t.Fatal(err)
		}
	}
	w.people.mu.Lock()
	defer w.people.mu.Unlock()
	w.people.users[s.ID().String()+" "+u.ID], w.people.passwords[s.ID().String()+" "+u.ID] = &u, stored
}

// RemoveUser removes a user and tells the Directory.
func (w *World) RemoveUser(s tenant.Scope, id string) {
	w.people.mu.Lock()
	delete(w.people.users, s.ID().String()+" "+id)
	w.people.mu.Unlock()
	w.Changed(s.ID().String())
}

// AddSession begins a session of a user and returns its secret.
func (w *World) AddSession(s tenant.Scope, user string, at, until time.Time) (string, tenant.Session) {
	value, k := w.Minter().Mint(s, tenant.KeySession)
	k.CreatedAt, k.ExpiresAt = at, until
	one := tenant.Session{Key: k, UserID: user, SeenAt: at}
	w.people.mu.Lock()
	defer w.people.mu.Unlock()
	w.people.sessions[s.ID().String()+" "+k.ID] = &one
	return value, one
}

// EndSession ends a session and tells the Directory.
func (w *World) EndSession(s tenant.Scope, id string) {
	w.people.mu.Lock()
	delete(w.people.sessions, s.ID().String()+" "+id)
	w.people.mu.Unlock()
	w.Changed(s.ID().String())
}

// AddInvite stores an invite and returns its token.
func (w *World) AddInvite(s tenant.Scope, i tenant.Invite) string {
	token, k := w.Minter().Mint(s, tenant.KeyInvite)
	k.CreatedAt, k.ExpiresAt = i.Key.CreatedAt, i.Key.ExpiresAt
	i.Key = k
	w.people.mu.Lock()
	defer w.people.mu.Unlock()
	w.people.invites[s.ID().String()+" "+k.ID] = &i
	return token
}

// Seen counts how often sessions were noted to be in use.
func (w *World) Seen() int {
	w.people.mu.Lock()
	defer w.people.mu.Unlock()
	return w.people.seen
}

func find[T any](p *people, in map[string]*T, id tenant.ID, name string) (*T, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if v := in[id.String()+" "+name]; v != nil {
		c := *v
		return &c, nil
	}
	return nil, tenant.ErrNotFound
}

// LoadUser implements tenant.People.
func (p *people) LoadUser(_ context.Context, id tenant.ID, userID string) (*tenant.User, error) {
	return find(p, p.users, id, userID)
}

// LoadLogin implements tenant.People.
func (p *people) LoadLogin(_ context.Context, id tenant.ID, email string) (*tenant.User, string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for name, u := range p.users {
		if name == id.String()+" "+u.ID && u.Email == email {
			c := *u
			return &c, p.passwords[name], nil
		}
	}
	return nil, "", tenant.ErrNotFound
}

// LoadSession implements tenant.People.
func (p *people) LoadSession(_ context.Context, id tenant.ID, sessionID string) (*tenant.Session, error) {
	return find(p, p.sessions, id, sessionID)
}

// SeeSession implements tenant.People.
func (p *people) SeeSession(_ context.Context, id tenant.ID, sessionID string, at time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen++
	if s := p.sessions[id.String()+" "+sessionID]; s != nil {
		s.SeenAt = at
	}
	return nil
}

// LoadInvite implements tenant.People.
func (p *people) LoadInvite(_ context.Context, id tenant.ID, inviteID string) (*tenant.Invite, error) {
	return find(p, p.invites, id, inviteID)
}
