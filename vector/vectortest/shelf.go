// Package vectortest is the suite that every vector.Index passes.
package vectortest

import (
	"context"
	"maps"
	"slices"
	"sync"
	"testing"

	"bulkhead/tenant"
	"bulkhead/vector"
)

// Shelf is what ingestion keeps: the vectors of every chunk, by company. It is
// the vector.Source of a Local, and beside it the Index is filled as ingestion
// does it.
type Shelf struct {
	mu     sync.Mutex
	stores map[string]*stored // by company and store
	reads  int
	err    error
	gate   chan struct{} // a read waits until it is closed; nil: none does
}

type stored struct {
	version int64
	stamp   uint64
	files   map[string]*file
}

type file struct {
	version int64
	space   vector.Space
	chunks  [][]float32
}

// NewShelf returns an empty Shelf.
func NewShelf() *Shelf { return &Shelf{stores: map[string]*stored{}} }

func name(s tenant.Scope, store string) string { return s.ID().String() + "\x00" + store }

func (h *Shelf) store(s tenant.Scope, id string) *stored {
	st := h.stores[name(s, id)]
	if st == nil {
		st = &stored{files: map[string]*file{}}
		h.stores[name(s, id)] = st
	}
	return st
}

// Fail makes every read from now on fail with err; nil ends that.
func (h *Shelf) Fail(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.err = err
}

// Hold makes reads wait until the function it returns is called.
func (h *Shelf) Hold() (release func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.gate = make(chan struct{})
	return sync.OnceFunc(func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		close(h.gate)
		h.gate = nil
	})
}

// Reads counts the files that were read.
func (h *Shelf) Reads() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.reads
}

// Files implements vector.Source.
func (h *Shelf) Files(_ context.Context, s tenant.Scope, store string) (all []vector.File, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if gate := h.gate; gate != nil {
		h.mu.Unlock()
		<-gate
		h.mu.Lock()
	}
	st := h.stores[name(s, store)]
	if st == nil || h.err != nil {
		return nil, h.err
	}
	for _, id := range slices.Sorted(maps.Keys(st.files)) {
		all = append(all, vector.File{ID: id, Version: st.files[id].version})
	}
	return all, nil
}

// Vectors implements vector.Source.
func (h *Shelf) Vectors(_ context.Context, s tenant.Scope, store, id string, fn func(chunk int, embedder string, v []float32) error) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.reads++
	st := h.stores[name(s, store)]
	if st == nil || st.files[id] == nil || h.err != nil {
		return h.err
	}
	for i, v := range st.files[id].chunks {
		if err := fn(i, st.files[id].space.Embedder, v); err != nil {
			return err
		}
	}
	return nil
}

// Put stores a file of chunks, in place of the one with its id, and in x as well.
func (h *Shelf) Put(t testing.TB, x vector.Index, s tenant.Scope, sp vector.Space, store, id string, chunks ...[]float32) {
	t.Helper()
	var items []vector.Item
	for i, v := range chunks {
		items = append(items, vector.Item{Ref: vector.Ref{Store: store, File: id, Chunk: i}, Vector: v})
	}
	if err := x.Put(t.Context(), s, sp, items); err != nil {
		t.Fatal(err)
	}
	h.change(t, x, s, store, func(st *stored) { st.files[id] = &file{st.version, sp, chunks} })
}

// Delete takes a file out of a store, and out of x.
func (h *Shelf) Delete(t testing.TB, x vector.Index, s tenant.Scope, store, id string) {
	t.Helper()
	if err := x.Trim(t.Context(), s, store, id, 0); err != nil {
		t.Fatal(err)
	}
	h.change(t, x, s, store, func(st *stored) { delete(st.files, id) })
}

// Drop takes a store away, and out of x.
func (h *Shelf) Drop(t testing.TB, x vector.Index, s tenant.Scope, store string) {
	t.Helper()
	if err := x.DropStore(t.Context(), s, store); err != nil {
		t.Fatal(err)
	}
	h.change(t, x, s, store, func(st *stored) { clear(st.files) })
}

func (h *Shelf) change(t testing.TB, x vector.Index, s tenant.Scope, store string, do func(*stored)) {
	t.Helper()
	stamp, err := x.Settle(t.Context(), s, store)
	if err != nil {
		t.Fatal(err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	st := h.store(s, store)
	st.version++
	st.stamp = max(st.stamp, stamp)
	do(st)
}

// Stores returns the stores as a Query names them.
func (h *Shelf) Stores(s tenant.Scope, ids ...string) (all []vector.Store) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, id := range ids {
		st := h.store(s, id)
		all = append(all, vector.Store{ID: id, Version: st.version, Stamp: st.stamp})
	}
	return all
}

// Erase takes all of a company away.
func (h *Shelf) Erase(s tenant.Scope) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for key := range h.stores {
		if company := s.ID().String() + "\x00"; len(key) > len(company) && key[:len(company)] == company {
			delete(h.stores, key)
		}
	}
}
