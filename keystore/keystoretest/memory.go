package keystoretest

import (
	"bytes"
	"context"
	"slices"
	"sync"

	"bulkhead/keystore"
	"bulkhead/tenant"
)

// Memory is a keystore.Store in memory that can be tampered with. Its rows are
// not kept safe from each other: the Keystore over it must see to that.
type Memory struct {
	// AfterRead, if set, is called when a credential was read and before it is
	// returned. Set it before the Memory is used.
	AfterRead func()

	mu        sync.Mutex
	companies map[string]*company
	reads     int
	err       error
}

type company struct {
	dataKey []byte
	rows    []keystore.Sealed // by creation
}

func (c *company) row(provider string) int {
	return slices.IndexFunc(c.rows, func(r keystore.Sealed) bool { return r.Provider == provider })
}

// NewMemory returns an empty Memory.
func NewMemory() *Memory { return &Memory{companies: map[string]*company{}} }

// of returns the rows of the company of s. The caller holds mu.
func (m *Memory) of(s tenant.Scope) *company {
	id := s.ID().String()
	if m.companies[id] == nil {
		m.companies[id] = &company{}
	}
	return m.companies[id]
}

// Reads counts the calls of DataKey and Credential.
func (m *Memory) Reads() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.reads
}

// Fail makes every call from now on fail with err; nil ends that.
func (m *Memory) Fail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.err = err
}

// Row returns what is stored for a provider. It panics if there is nothing.
func (m *Memory) Row(s tenant.Scope, provider string) keystore.Sealed {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.of(s)
	r := c.rows[c.row(provider)]
	r.Blob = bytes.Clone(r.Blob)
	return r
}

// SetRow stores r as the row for a provider, whatever r says that it is.
func (m *Memory) SetRow(s tenant.Scope, provider string, r keystore.Sealed) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.of(s)
	if i := c.row(provider); i >= 0 {
		c.rows[i] = r
	} else {
		c.rows = append(c.rows, r)
	}
}

// RawDataKey returns the wrapped data key; nil if there is none.
func (m *Memory) RawDataKey(s tenant.Scope) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	return bytes.Clone(m.of(s).dataKey)
}

// SetDataKey stores a wrapped data key over the one there is; nil removes it.
func (m *Memory) SetDataKey(s tenant.Scope, wrapped []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.of(s).dataKey = wrapped
}

// DataKey implements keystore.Store.
func (m *Memory) DataKey(_ context.Context, s tenant.Scope) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reads++
	switch c := m.of(s); {
	case m.err != nil:
		return nil, m.err
	case c.dataKey == nil:
		return nil, keystore.ErrNotFound
	default:
		return bytes.Clone(c.dataKey), nil
	}
}

// PutDataKey implements keystore.Store.
func (m *Memory) PutDataKey(_ context.Context, s tenant.Scope, wrapped []byte) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err != nil {
		return nil, m.err
	}
	c := m.of(s)
	if c.dataKey == nil {
		c.dataKey = bytes.Clone(wrapped)
	}
	return bytes.Clone(c.dataKey), nil
}

// Credential implements keystore.Store.
func (m *Memory) Credential(ctx context.Context, s tenant.Scope, provider string) (keystore.Sealed, error) {
	r, err := m.credential(s, provider)
	if m.AfterRead != nil {
		m.AfterRead()
	}
	if ctx.Err() != nil {
		return keystore.Sealed{}, ctx.Err()
	}
	return r, err
}

func (m *Memory) credential(s tenant.Scope, provider string) (keystore.Sealed, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reads++
	if m.err != nil {
		return keystore.Sealed{}, m.err
	}
	c := m.of(s)
	i := c.row(provider)
	if i < 0 {
		return keystore.Sealed{}, keystore.ErrNotFound
	}
	r := c.rows[i]
	r.Blob = bytes.Clone(r.Blob)
	return r, nil
}

// Credentials implements keystore.Store.
func (m *Memory) Credentials(_ context.Context, s tenant.Scope) ([]keystore.Sealed, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err != nil {
		return nil, m.err
	}
	all := slices.Clone(m.of(s).rows)
	for i := range all {
		all[i].Blob = nil
	}
	return all, nil
}

// PutCredential implements keystore.Store.
func (m *Memory) PutCredential(_ context.Context, s tenant.Scope, r keystore.Sealed) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err != nil {
		return m.err
	}
	c := m.of(s)
	r.Blob = bytes.Clone(r.Blob)
	i := c.row(r.Provider)
	switch {
	case i < 0 && r.Version == 1:
		c.rows = append(c.rows, r)
	case i >= 0 && c.rows[i].ID == r.ID && c.rows[i].Version == r.Version-1:
		c.rows[i] = r
	default:
		return keystore.ErrConflict
	}
	return nil
}

// DeleteCredential implements keystore.Store.
func (m *Memory) DeleteCredential(_ context.Context, s tenant.Scope, id string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err != nil {
		return m.err
	}
	c := m.of(s)
	i := slices.IndexFunc(c.rows, func(r keystore.Sealed) bool { return r.ID == id })
	if i < 0 {
		return keystore.ErrNotFound
	}
	c.rows = slices.Delete(c.rows, i, i+1)
	return nil
}
