package rag

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"bulkhead/tenant"
	"bulkhead/tenant/tenanttest"
	"bulkhead/vector"
)

func wordsIn(text string) (all []string) {
	eachWord(text, func(w []byte) { all = append(all, string(w)) })
	return all
}

// library is a Library and Segments of its own, of several companies. What the
// store makes of the contracts is tested with the store.
type library struct {
	t     testing.TB
	world *tenanttest.World
	embed Embedder
	index vector.Index

	mu       sync.Mutex
	files    map[string]map[string]*libraryFile // by company and store, then file
	versions map[string]int64
	shared   map[string]bool
	stamp    uint64 // of all stores
	segments map[string][]byte
	touched  []string
	stale    atomic.Int64
	foreign  atomic.Int64
}

type libraryFile struct {
	version    int64
	attributes Attributes
	chunks     []Chunk
}

func newLibrary(t testing.TB) *library {
	l := &library{t: t, world: tenanttest.New(t, tenant.Options{}), embed: Lexical{}, files: map[string]map[string]*libraryFile{},
		versions: map[string]int64{}, shared: map[string]bool{}, segments: map[string][]byte{}}
	l.index = vector.NewLocal(VectorSource{l}, vector.LocalOptions{})
	return l
}

func (l *library) scope(name string) tenant.Scope {
	_, s := l.world.Company(name, tenant.KeyLive, nil)
	return s
}

func (l *library) options() RetrieveOptions {
	return RetrieveOptions{Library: l, Segments: l, Index: l.index, Embedder: l.embed, Tracked: l.tracked, Violation: func() { l.foreign.Add(1) }}
}

func libraryKey(s tenant.Scope, store string) string { return s.ID().String() + "/" + store }

// put stores a file with its vectors, as ingestion does.
func (l *library) put(s tenant.Scope, store, file string, texts ...string) {
	l.t.Helper()
	l.putWith(s, store, file, nil, texts...)
}

func (l *library) putWith(s tenant.Scope, store, file string, a Attributes, texts ...string) {
	l.t.Helper()
	vectors, id, err := l.embed.Embed(l.t.Context(), s, texts)
	if err != nil {
		l.t.Fatal(err)
	}
	var chunks []Chunk
	for i, text := range texts {
		chunks = append(chunks, Chunk{Ref: Ref{store, file, i}, Text: text, EmbedderID: id, Vector: vectors[i], FileName: file + ".txt", Attributes: a})
	}
	if err := (VectorIndex{l.index}).Upsert(l.t.Context(), s, chunks); err != nil {
		l.t.Fatal(err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	key := libraryKey(s, store)
	if l.files[key] == nil {
		l.files[key] = map[string]*libraryFile{}
	}
	l.versions[key]++
	l.files[key][file] = &libraryFile{l.versions[key], a, chunks}
}

func (l *library) remove(s tenant.Scope, store, file string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.versions[libraryKey(s, store)]++
	delete(l.files[libraryKey(s, store)], file)
}

func (l *library) stores(s tenant.Scope, ids ...string) []Store {
	all, err := l.FindStores(l.t.Context(), s, ids)
	if err != nil {
		l.t.Fatal(err)
	}
	return all
}

func (l *library) tracked(_ context.Context, s tenant.Scope, store, file string) (bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.files[libraryKey(s, store)][file] != nil, nil
}

func (l *library) FindStores(_ context.Context, s tenant.Scope, ids []string) (all []Store, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for key, files := range l.files {
		company := s.ID().String() + "/"
		if len(key) <= len(company) || key[:len(company)] != company || ids != nil && !slices.Contains(ids, key[len(company):]) {
			continue
		}
		st := Store{ID: key[len(company):], Version: l.versions[key], Shared: l.shared[key], VisibleStamp: l.stamp}
		for _, f := range files {
			for _, c := range f.chunks {
				st.EmbedderID, st.Dimension = c.EmbedderID, len(c.Vector)
			}
		}
		all = append(all, st)
	}
	return all, nil
}

func (l *library) Contents(_ context.Context, s tenant.Scope, store string) (all []StoreFile, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, f := range l.files[libraryKey(s, store)] {
		all = append(all, StoreFile{StoreID: store, FileID: id, Attributes: f.attributes, Version: f.version, Chunks: len(f.chunks)})
	}
	slices.SortFunc(all, func(a, b StoreFile) int {
		if a.FileID < b.FileID {
			return -1
		}
		return 1
	})
	return all, nil
}

func (l *library) FileChunks(_ context.Context, s tenant.Scope, store, file string, from, limit int) ([]Chunk, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := l.files[libraryKey(s, store)][file]
	if f == nil || from >= len(f.chunks) {
		return nil, nil
	}
	return slices.Clone(f.chunks[from:min(from+limit, len(f.chunks))]), nil
}

func (l *library) ReadChunks(_ context.Context, s tenant.Scope, refs []Ref) (all []Chunk, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range refs {
		if f := l.files[libraryKey(s, r.StoreID)][r.FileID]; f != nil && r.Index < len(f.chunks) {
			c := f.chunks[r.Index]
			c.Vector = nil
			all = append(all, c)
		}
	}
	return all, nil
}

func (l *library) Touched(_ context.Context, _ tenant.Scope, stores []string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.touched = append(l.touched, stores...)
	return nil
}

func (l *library) Stale(context.Context, tenant.Scope) error {
	l.stale.Add(1)
	return nil
}

func (l *library) Segment(_ context.Context, s tenant.Scope, store, file string, version int64) ([]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.segments[libraryKey(s, store)+"/"+file+"/"+string(rune(version))], nil
}

func (l *library) PutSegment(_ context.Context, s tenant.Scope, store, file string, version int64, blob []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.segments[libraryKey(s, store)+"/"+file+"/"+string(rune(version))] = blob
	return nil
}
