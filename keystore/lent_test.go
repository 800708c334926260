package keystore_test

import (
	"bytes"
	"context"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"bulkhead/fault"
	"bulkhead/keystore"
	"bulkhead/provider"
	"bulkhead/tenant"
	"bulkhead/tenant/tenanttest"
)

// lentMemory keeps what is lent as the store does.
type lentMemory struct {
	mu    sync.Mutex
	key   []byte
	rows  map[string]keystore.Lent
	err   error
	reads int
}

func (m *lentMemory) OperatorDataKey(context.Context) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err != nil {
		return nil, m.err
	}
	if m.key == nil {
		return nil, keystore.ErrNotFound
	}
	return m.key, nil
}

func (m *lentMemory) PutOperatorDataKey(_ context.Context, wrapped []byte) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.key == nil {
		m.key = wrapped
	}
	return m.key, nil
}

func (m *lentMemory) LentCredential(_ context.Context, name string) (keystore.Lent, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reads++
	if m.err != nil {
		return keystore.Lent{}, m.err
	}
	l, ok := m.rows[name]
	if !ok {
		return l, keystore.ErrNotFound
	}
	return l, nil
}

func (m *lentMemory) LentCredentials(context.Context) (all []keystore.Lent, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, l := range m.rows {
		l.Blob = nil
		all = append(all, l)
	}
	return all, m.err
}

func (m *lentMemory) PutLentCredential(_ context.Context, _ tenant.Act, l keystore.Lent) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.rows[l.Provider] = l
	return nil
}

func (m *lentMemory) PutLentBlob(_ context.Context, _ tenant.Act, id string, version int64, blob []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for name, row := range m.rows {
		if row.ID == id && row.Version == version {
			row.Blob = blob
			m.rows[name] = row
			return nil
		}
	}
	return keystore.ErrConflict
}

func (m *lentMemory) DeleteLentCredential(_ context.Context, _ tenant.Act, id string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for name, l := range m.rows {
		if l.ID == id {
			delete(m.rows, name)
			return nil
		}
	}
	return keystore.ErrNotFound
}

func (m *lentMemory) fail(err error) { m.mu.Lock(); m.err = err; m.mu.Unlock() }

func (m *lentMemory) asked() int { m.mu.Lock(); defer m.mu.Unlock(); return m.reads }

// TestLender: what is lent opens for who is granted it, in the version and of the
// id that is granted, nowhere else, and goes on while the store is away.
func TestLender(t *testing.T) {
	var clock atomic.Int64
	clock.Store(1000)
	memory := &lentMemory{rows: map[string]keystore.Lent{}}
	l := keystore.NewLender(memory, master(t, masterText), nil, keystore.Options{Now: func() time.Time { return time.Unix(clock.Load(), 0) }})
	w := tenanttest.New(t, tenant.Options{})
	act, err := w.Gateway().Begin(t.Context(), "credential.put", "")
	if err != nil {
		t.Fatal(err)
	}
	put := func(secret string) keystore.Lent {
		t.Helper()
		lent, err := l.Put(t.Context(), act, keystore.NewCredential{Provider: "openai", Secret: provider.NewSecret(secret)}, keystore.Lent{})
		if err != nil {
			t.Fatal(err)
		}
		return lent
	}
	scope := func(name string, grants ...tenant.Lent) tenant.Scope {
		_, s := w.Company(name, tenant.KeyLive, func(c *tenant.Company) { c.Lent = grants })
		return s
	}
	want := func(s tenant.Scope, secret string) {
		t.Helper()
		c, err := l.Credential(t.Context(), s, "openai")
		if err != nil || c.Secret.Reveal() != secret || c.Company != provider.Operator {
			t.Fatalf("%+v, %v", c, err)
		}
	}
	refused := func(what string, s tenant.Scope) {
		t.Helper()
		if c, err := l.Credential(t.Context(), s, "openai"); err == nil || !c.Secret.Empty() {
			t.Errorf("%s: a credential was given", what)
		}
	}

	first := put(secretA)
	granted := tenant.Lent{Provider: "openai", ID: first.ID, Version: first.Version}
	if bytes.Contains(memory.rows["openai"].Blob, []byte(secretA)) || bytes.Contains(memory.key, []byte(secretA)) {
		t.Error("the secret is stored in the clear")
	}
	a := scope("a", granted)
	want(a, secretA)
	refused("no grant", scope("b"))
	refused("a grant of one that was deleted", scope("c", tenant.Lent{Provider: "openai", ID: "cred_other", Version: 1}))

	// The store is away: what was opened goes on, whatever its time in memory.
	memory.fail(errors.New("away"))
	before := memory.asked()
	for range 5 {
		clock.Add(600)
		for range 50 {
			want(a, secretA)
		}
	}
	for memory.asked() < before+5 {
		runtime.Gosched()
	}
	newer := granted
	newer.Version++
	if _, err := l.Credential(t.Context(), scope("d", newer), "openai"); !fault.Is(err, fault.Unavailable) {
		t.Errorf("a version that was heard of: %v", err)
	}
	memory.fail(nil)
	put(secretB)
	want(scope("e", newer), secretB)

	// What was moved or changed does not open.
	row := memory.rows["openai"]
	moved := row
	moved.Version++
	memory.rows["openai"] = moved
	refused("another version's", scope("f", tenant.Lent{Provider: "openai", ID: row.ID, Version: moved.Version}))
	moved = row
	moved.ID = "cred_elsewhere"
	memory.rows["openai"] = moved
	refused("another id's", scope("g", tenant.Lent{Provider: "openai", ID: moved.ID, Version: row.Version + 7}))
}
