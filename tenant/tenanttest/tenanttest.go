// Package tenanttest makes Scopes for tests, through the same door as
// everybody: a Directory, a Source and a minted key.
package tenanttest

import (
	"context"
	"crypto/sha256"
	"maps"
	"sync"
	"testing"
	"time"

	"bulkhead/tenant"
)

// Pepper is the pepper of the keys made here.
var Pepper = []byte("a pepper for tests, 32 bytes long")

// World is a Source of companies in memory and the Directory over it.
type World struct {
	*tenant.Directory
	*people
	t testing.TB

	mu        sync.Mutex
	companies map[string]func(*tenant.Company)
	keys      map[string]*tenant.Key // by company id and key id
	operators map[string]*tenant.Key
	audiences map[string]string
	acts      []string
	err       error
}

// New returns an empty World.
func New(t testing.TB, o tenant.Options) *World {
	w := &World{t: t, companies: map[string]func(*tenant.Company){}, keys: map[string]*tenant.Key{}, operators: map[string]*tenant.Key{}, people: newPeople(), audiences: map[string]string{}}
	w.Directory = tenant.NewDirectory(w, w, tenant.NewMinter(Pepper), o)
	return w
}

// Scope returns the Scope of a live key in a company with the given name. Each
// call makes a company, also for a name that was there before.
func Scope(t testing.TB, name string) tenant.Scope {
	t.Helper()
	w := New(t, tenant.Options{})
	_, s := w.Company(name, tenant.KeyLive, nil)
	return s
}

// Company makes a company with one project and one key of the given kind, and
// returns the key and its Scope. edit may change the policy.
func (w *World) Company(name string, kind tenant.KeyKind, edit func(*tenant.Company)) (key string, s tenant.Scope) {
	w.t.Helper()
	act, err := w.Gateway().Begin(w.t.Context(), "company.create", "")
	if err != nil {
		w.t.Fatal(err)
	}
	fresh := w.NewCompany(act, name)
	id := fresh.ID().String()
	project := "proj_" + fresh.ID().Locator()
	w.mu.Lock()
	w.companies[id] = func(c *tenant.Company) {
		c.Name, c.Status, c.CreatedAt = name, tenant.Active, time.Unix(1, 0)
		c.Projects = map[string]*tenant.Project{project: {ID: project, Name: "first"}}
		if edit != nil {
			edit(c)
		}
	}
	w.mu.Unlock()
	value, _ := w.AddKey(fresh, kind, project)
	if s, err = w.Authenticate(w.t.Context(), []byte(value)); err != nil {
		w.t.Fatalf("cannot open a scope for %q: %s", name, err)
	}
	return value, s
}

// AddKey mints one more key of a company, in that project.
func (w *World) AddKey(s tenant.Scope, kind tenant.KeyKind, project string) (string, tenant.Key) {
	value, k := w.Minter().Mint(s, kind)
	if kind != tenant.KeyAdmin {
		k.ProjectID = project
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.keys[s.ID().String()+" "+k.ID] = &k
	return value, k
}

// AddOperator mints a key of the operator.
func (w *World) AddOperator() string {
	value, k := w.Minter().MintOperator()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.operators[k.ID] = &k
	return value
}

// Edit changes a company's policy and tells the Directory.
func (w *World) Edit(s tenant.Scope, edit func(*tenant.Company)) {
	id := s.ID().String()
	w.mu.Lock()
	before := w.companies[id]
	w.companies[id] = func(c *tenant.Company) { before(c); edit(c) }
	w.mu.Unlock()
	w.Changed(id)
}

// Context is that of the test.
func (w *World) Context() context.Context { return w.t.Context() }

// EditKey changes a key and tells the Directory.
func (w *World) EditKey(s tenant.Scope, keyID string, edit func(*tenant.Key)) {
	w.mu.Lock()
	edit(w.keys[s.ID().String()+" "+keyID])
	w.mu.Unlock()
	w.Changed(s.ID().String())
}

// Revoke removes a key and tells the Directory.
func (w *World) Revoke(s tenant.Scope, keyID string) {
	w.RevokeQuietly(s, keyID)
	w.Changed(s.ID().String())
}

// RevokeQuietly removes a key and tells nobody, as another gateway would.
func (w *World) RevokeQuietly(s tenant.Scope, keyID string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.keys, s.ID().String()+" "+keyID)
}

// Fail makes every look-up from now on fail with err; nil ends that.
func (w *World) Fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.err = err
}

// Acts returns what was recorded of operators.
func (w *World) Acts() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]string(nil), w.acts...)
}

// RecordAct implements tenant.Recorder.
func (w *World) RecordAct(_ context.Context, actor, action, company string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return w.err
	}
	w.acts = append(w.acts, actor+" "+action+" "+company)
	return nil
}

// LoadCompany implements tenant.Source.
func (w *World) LoadCompany(_ context.Context, id tenant.ID, c *tenant.Company) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return w.err
	}
	fill := w.companies[id.String()]
	if fill == nil {
		return tenant.ErrNotFound
	}
	fill(c)
	return nil
}

// LoadKey implements tenant.Source.
func (w *World) LoadKey(_ context.Context, id tenant.ID, keyID string) (*tenant.Key, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.find(w.keys, id.String()+" "+keyID)
}

// LoadOperatorKey implements tenant.Source.
func (w *World) LoadOperatorKey(_ context.Context, keyID string) (*tenant.Key, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.find(w.operators, keyID)
}

// Approve lets a company have an audience, and takes it from any other.
func (w *World) Approve(s tenant.Scope, audience string) {
	w.mu.Lock()
	w.audiences[audience] = s.ID().String()
	w.mu.Unlock()
	w.Edit(s, func(c *tenant.Company) {
		if c.Identity == nil {
			c.Identity = &tenant.Identity{}
		}
		c.Identity.Audiences = append(c.Identity.Audiences, audience)
	})
}

// LoadAudiences implements tenant.Source.
func (w *World) LoadAudiences(context.Context) (map[string]string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return nil, w.err
	}
	return maps.Clone(w.audiences), nil
}

func (w *World) find(in map[string]*tenant.Key, name string) (*tenant.Key, error) {
	if w.err != nil {
		return nil, w.err
	}
	if k := in[name]; k != nil {
		c := *k // what was given out does not change
		return &c, nil
	}
	return nil, tenant.ErrNotFound
}

// Tamper changes the stored hash of a key, as a row copied from elsewhere would.
func (w *World) Tamper(s tenant.Scope, keyID string, hash [sha256.Size]byte) {
	w.mu.Lock()
	w.keys[s.ID().String()+" "+keyID].Hash = hash
	w.mu.Unlock()
	w.Changed(s.ID().String())
}
