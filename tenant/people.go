package tenant

import (
	"context"
	"time"
)

// User is a person of a company. The same address in two companies is two users.
type User struct {
	ID        string // "user_" and a random part
	Email     string // lower case, unique in the company
	Name      string
	Role      string // the name of the built-in role that counts most in the company; "" for none
	Grants    Grants // by all roles, the user's own and those of the groups
	CreatedAt time.Time
}

// Invite asks somebody into the company. Its token is kept nowhere.
type Invite struct {
	Key        Key // the token: kind, id ("invite-" …), hash, expiry
	Email      string
	Role       string // the name of a built-in role of the company
	Projects   []InviteProject
	AcceptedAt time.Time // zero: not yet
}

// InviteProject is a project that an invite lets into, with a built-in role there.
type InviteProject struct {
	ID   string `json:"id"`
	Role string `json:"role"`
}

// Group is users that are given roles together.
type Group struct {
	ID        string // "group-" and a random part
	Name      string
	CreatedAt time.Time
}

// Session is a login of a user that has not ended.
type Session struct {
	Key    Key // the secret in the cookie: kind, id ("session_" …), hash, the time it ends in any case
	UserID string
	Agent  string    // what the browser said it is
	SeenAt time.Time // to SeenEvery
}

// Sessions end by themselves: when nothing was asked with them for SessionIdle,
// and in any case after SessionLife. SeenEvery is how exactly it is known when
// something was last asked.
const (
	SessionIdle = 12 * time.Hour
	SessionLife = 7 * 24 * time.Hour
	SeenEvery   = time.Minute
)

// InviteLife is how long an invite can be accepted.
const InviteLife = 7 * 24 * time.Hour

// People is where a Directory finds a company's people. Every look-up is within
// one company, and what is not there is ErrNotFound.
type People interface {
	// LoadUser returns a user with what the roles give.
	LoadUser(ctx context.Context, id ID, userID string) (*User, error)
	// LoadLogin returns the user with that address (lower case), and the hash of
	// the password.
	LoadLogin(ctx context.Context, id ID, email string) (u *User, password string, err error)
	// LoadSession returns a session that was not ended; it may be over.
	LoadSession(ctx context.Context, id ID, sessionID string) (*Session, error)
	// SeeSession notes that something was asked with the session.
	SeeSession(ctx context.Context, id ID, sessionID string, at time.Time) error
	// LoadInvite returns an invite that was not taken back; it may be over or accepted.
	LoadInvite(ctx context.Context, id ID, inviteID string) (*Invite, error)
}

// User returns the user who asks, by a session or by an admin key of their own;
// nil for others. It must not be changed.
func (s Scope) User() *User { return s.access().user }

// UserID returns the id of the user who asks, "" where it is none.
func (s Scope) UserID() string {
	if u := s.access().user; u != nil {
		return u.ID
	}
	return ""
}

// GrantedRole is a role that a user or group has.
type GrantedRole struct {
	Role      Role
	GrantedAt time.Time
}

// ProjectMember is a user or group that has roles in a project.
type ProjectMember struct {
	ID      string // of the user or group
	Email   string // of a user
	Name    string
	Roles   []string // ids
	AddedAt time.Time
}
