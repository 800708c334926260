// Package tenant says whose request this is. It is the bottom of the import
// graph: everything that stores or reads a company's data takes a Scope, and
// the Directory in this package is the only maker of Scopes.
//
// Work that looks over company borders takes an Act instead, which an Operator
// gets only after the act was recorded.
package tenant

import (
	"slices"
	"strings"
	"sync/atomic"
)

// idPrefix makes a company's id of its locator, so that the locator in a key
// chooses whose rows may be looked at without a look-up of its own.
const idPrefix = "org-"

// ID names a company. Its field is unexported so that no string, and in
// particular no header and no JSON field, can be converted to one.
type ID struct{ name string }

// String returns the id as it is stored and shown: "org-" and the locator.
func (id ID) String() string { return id.name }

// Locator returns the public short id of the company that stands in its keys.
func (id ID) Locator() string { return strings.TrimPrefix(id.name, idPrefix) }

// Scope is proof that the holder was authenticated as one company. It is one
// word, is copied freely and never changes: a request sees one version of its
// company's policy from its first line to its last.
//
// Go cannot forbid the zero Scope, so using one panics: an unscoped read is a
// bug, and it must not find somebody else's data.
type Scope struct{ a *access }

// access is what one key, in one version of its company's policy, may reach.
type access struct {
	company *Company
	project *Project // nil for a company's admin key and for background work
	key     *Key     // nil for background work
	user    *User    // nil for keys that are nobody's own
	session *session // nil for keys
	grants  Grants
	limits  []Limited
	budgets []*Budget
	minter  *Minter      // whose pepper UserID takes
	used    atomic.Int64 // when its use was last noted, unix ns
	bearer  *bearer      // of a token, or of a key given out for one; nil for other keys
}

// session is what is known of a session beside its key.
type session struct {
	seen atomic.Int64 // when it was last noted to be in use, in microseconds since 1970
}

// bearer is who a token named, and the rule that let it in.
type bearer struct {
	user string
	rule *FederationRule
}

func (s Scope) access() *access {
	if s.a == nil {
		panic("BUG: zero tenant.Scope")
	}
	return s.a
}

// ID returns the company's id.
func (s Scope) ID() ID { return s.access().company.id }

// Company returns the company's policy, which must not be changed.
func (s Scope) Company() *Company { return s.access().company }

// Project returns the project the key belongs to, nil for a company's admin
// key and for background work. It must not be changed.
func (s Scope) Project() *Project { return s.access().project }

// ProjectID returns the id of the project, "" where there is none.
func (s Scope) ProjectID() string {
	if p := s.access().project; p != nil {
		return p.ID
	}
	return ""
}

// Key returns the key that opened the scope, or the secret of the session; nil
// for background work and at a login.
func (s Scope) Key() *Key { return s.access().key }

// KeyID returns the id of the key or of the session, "" where there is none.
func (s Scope) KeyID() string {
	if k := s.access().key; k != nil {
		return k.ID
	}
	return ""
}

// EndUser returns the id of the end user that the token names which opened the
// scope, as UserID has it; "" for a key, which names none.
func (s Scope) EndUser() string {
	if b := s.access().bearer; b != nil {
		return b.user
	}
	return ""
}

// Rule returns the federation rule that let in the token, or the key given out
// for one, that opened the scope; nil for other keys. It must not be changed.
func (s Scope) Rule() *FederationRule {
	if b := s.access().bearer; b != nil {
		return b.rule
	}
	return nil
}

// Test reports whether the key is a test key, which reaches the sandbox only.
func (s Scope) Test() bool {
	k := s.access().key
	return k != nil && k.Kind == KeyTest
}

// Grants returns what the caller may do. It must not be changed. Background work
// asks nobody for leave: its scope has none.
func (s Scope) Grants() Grants { return s.access().grants }

// Allows reports whether the caller may do all of need in a project; "" is the
// company as a whole. It says nothing about whether there is such a project.
func (s Scope) Allows(project string, need Permissions) bool {
	return s.access().grants.Allows(project, need)
}

// May reports whether the key may be used for a part of the API, as the scopes of a
// project's key name it. Whoever holds no such key may.
func (s Scope) May(part string) bool {
	k := s.access().key
	return k == nil || k.Kind == KeyAdmin || k.Rules.Scopes == nil || slices.Contains(k.Rules.ScopeNames(), part)
}

// Actor names who acts, for audit: "user:<id>" in a session and at a login,
// "key:<id>", "invite:<id>" for who accepts one, or "gateway" for background work.
func (s Scope) Actor() string {
	a := s.access()
	switch {
	case a.key != nil && a.key.Kind == KeyInvite:
		return "invite:" + a.key.ID
	case a.user != nil && (a.key == nil || a.key.Kind == KeySession):
		return "user:" + a.user.ID
	case a.key != nil:
		return "key:" + a.key.ID
	}
	return "gateway"
}

// Limits returns the limits that hold for every request of this key, whatever
// its model: the company's, the project's and the key's own. It must not be
// changed.
func (s Scope) Limits() []Limited { return s.access().limits }

// Budgets returns the budgets that hold for every request of this key: the
// company's, the project's and the key's own, and the operator's ceiling, which
// counts lent credentials only. It must not be changed.
func (s Scope) Budgets() []*Budget { return s.access().budgets }

// Name is the only form in which a backend that stores by name (a cache, a
// limiter, Redis) can be asked for anything of a company.
type Name struct {
	company ID
	kind    string
	id      string
}

// Name returns the name, inside s, of the record of the given kind and id.
func (s Scope) Name(kind, id string) Name { return Name{s.ID(), kind, id} }

// Append appends an unambiguous encoding of n to b: lengths, not separators,
// so that no id can be chosen to collide with another company's name. It
// panics for the zero Name and for a part of more than 65,535 bytes.
func (n Name) Append(b []byte) []byte {
	if n.company.name == "" {
		panic("BUG: zero tenant.Name")
	}
	for _, p := range [...]string{n.company.name, n.kind, n.id} {
		if len(p) > 0xffff {
			panic("BUG: tenant.Name is too long")
		}
		b = append(b, byte(len(p)>>8), byte(len(p)))
		b = append(b, p...)
	}
	return b
}
