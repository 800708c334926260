package vector

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"bulkhead/fault"
	"bulkhead/tenant"
)

// Source is where the vectors are kept that Local scans.
type Source interface {
	// Files returns the files of a store that can be found. The vectors of a file
	// with the same Version are the same.
	Files(ctx context.Context, s tenant.Scope, store string) ([]File, error)
	// Vectors gives fn the vectors of a file in the order of its chunks. v may be
	// kept. A file that is not there any more has none.
	Vectors(ctx context.Context, s tenant.Scope, store, file string, fn func(chunk int, embedder string, v []float32) error) error
}

// File is a file in a store.
type File struct {
	ID      string
	Version int64
}

// LocalOptions bound a Local. Zero values take the defaults.
type LocalOptions struct {
	Bytes        int64 // of vectors in memory, all companies together; default 512 MiB
	CompanyBytes int64 // and of one company; default 128 MiB
	// Load bounds the reading of one store; default 30 s. It goes on when the one
	// who asked has gone: the next one finds it done.
	Load time.Duration
}

// Local is an exact scan in process. The Source has the vectors; in memory there
// are copies of the stores that were searched lately. A Query with a newer version
// brings a store up to date, which reads the files that changed. A store that is
// larger than its company's share is read for each search.
type Local struct {
	source Source
	o      LocalOptions

	mu      sync.Mutex
	shards  map[shardKey]*shard
	bytes   int64
	company map[string]int64 // bytes
	oldest  shard            // ring of what is in memory; next is the least lately used
}

// shardKey is what stands in memory: one store of one company in one space.
type shardKey struct {
	company, store string
	space          Space
}

// shard is a copy of a store's vectors. It is not changed after it was loaded.
type shard struct {
	key     shardKey
	version int64 // of the store: what was there then is here
	parts   []part

	bytes      int64
	prev, next *shard
	loading    chan struct{} // closed when loaded; nil: it is
	err        error
}

// part is one file: unit vectors one after the other.
type part struct {
	File
	flat   []float32
	chunks []int32
}

// NewLocal returns a Local over what source keeps.
func NewLocal(source Source, o LocalOptions) *Local {
	if o.Bytes <= 0 {
		o.Bytes = 512 << 20
	}
	if o.CompanyBytes <= 0 {
		o.CompanyBytes = 128 << 20
	}
	if o.Load <= 0 {
		o.Load = 30 * time.Second
	}
	l := &Local{source: source, o: o, shards: map[shardKey]*shard{}, company: map[string]int64{}}
	l.oldest.prev, l.oldest.next = &l.oldest, &l.oldest
	return l
}

// Put implements Index. The vectors are the Source's.
func (l *Local) Put(_ context.Context, s tenant.Scope, sp Space, items []Item) error {
	s.ID()
	return checkItems(sp, items)
}

// Trim implements Index. The Source has a newer version of the store then.
func (l *Local) Trim(_ context.Context, s tenant.Scope, store, file string, _ int) error {
	s.ID()
	return checkIDs(store, file)
}

// DropStore implements Index.
func (l *Local) DropStore(_ context.Context, s tenant.Scope, store string) error {
	if err := checkIDs(store); err != nil {
		return err
	}
	l.forget(s.ID().String(), store)
	return nil
}

// Settle implements Index: a version says all.
func (l *Local) Settle(_ context.Context, s tenant.Scope, store string) (uint64, error) {
	s.ID()
	return 0, checkIDs(store)
}

// Erase implements Index: what is in memory goes. The Source's go with the
// company's rows, and are counted there.
func (l *Local) Erase(_ context.Context, s tenant.Scope) (int64, error) {
	l.forget(s.ID().String(), "")
	return 0, nil
}

// Check implements Index.
func (l *Local) Check(context.Context) error { return nil }

// Close implements Index.
func (l *Local) Close() error { return nil }

// Bytes returns how much is in memory, of all companies.
func (l *Local) Bytes() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.bytes
}

// Search implements Index.
func (l *Local) Search(ctx context.Context, s tenant.Scope, sp Space, q Query) ([]Hit, error) {
	company := s.ID().String()
	if q.nothing() {
		return nil, nil
	}
	if err := q.check(sp); err != nil {
		return nil, err
	}
	sc := scans.Get().(*scan)
	defer scans.Put(sc)
	sc.begin(sp, &q)
	for i, st := range q.Stores {
		if sc.seen(q.Stores[:i], st.ID) {
			continue
		}
		sh, err := l.shard(ctx, s, shardKey{company, st.ID, sp}, st.Version)
		if err != nil {
			return nil, err
		}
		sc.shard(sh)
	}
	if unfiltered() {
		l.scanAll(sc, sp, company)
	}
	return sc.hits(), nil
}

// scanAll scans what is in memory of other companies: what must never be.
func (l *Local) scanAll(sc *scan, sp Space, but string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, sh := range l.shards {
		if sh.loading == nil && sh.key.space == sp && sh.key.company != but {
			sc.shard(sh)
		}
	}
}

// shard returns the store's vectors as of its version, or later.
func (l *Local) shard(ctx context.Context, s tenant.Scope, key shardKey, version int64) (*shard, error) {
	for {
		l.mu.Lock()
		sh := l.shards[key]
		if sh != nil && sh.loading == nil && sh.version >= version {
			sh.unlink()
			l.link(sh)
			l.mu.Unlock()
			return sh, nil
		}
		if sh == nil || sh.loading == nil {
			old := sh
			if old != nil {
				l.drop(old)
			}
			sh = &shard{key: key, version: version, loading: make(chan struct{})}
			l.shards[key] = sh
			go l.load(s, sh, old)
		}
		done := sh.loading
		l.mu.Unlock()
		select {
		case <-done:
		case <-ctx.Done():
			return nil, late(ctx.Err())
		}
		if sh.err != nil {
			return nil, sh.err
		}
		if sh.version >= version {
			return sh, nil // also if it was too large to stay in memory
		}
	}
}

// load reads a store's vectors, but for the files of old that are the same. It is
// nobody's in particular, so it ends by its own time: who asked may have gone, and
// the next one finds it done.
func (l *Local) load(s tenant.Scope, sh, old *shard) {
	ctx, cancel := context.WithTimeout(context.Background(), l.o.Load)
	defer cancel()
	err := l.read(ctx, s, sh, old)
	if err != nil && ctx.Err() != nil {
		err = late(ctx.Err())
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	sh.err = err
	sh.bytes = 512
	for i := range sh.parts {
		sh.bytes += int64(cap(sh.parts[i].flat)+cap(sh.parts[i].chunks))*4 + 128
	}
	done := sh.loading
	sh.loading = nil
	defer close(done)
	if l.shards[sh.key] != sh {
		return // it was forgotten meanwhile
	}
	if err != nil || sh.bytes > l.o.CompanyBytes || sh.bytes > l.o.Bytes {
		delete(l.shards, sh.key)
		return
	}
	l.bytes += sh.bytes
	l.company[sh.key.company] += sh.bytes
	l.link(sh)
	l.shrink(sh)
}

func (l *Local) read(ctx context.Context, s tenant.Scope, sh, old *shard) error {
	files, err := l.source.Files(ctx, s, sh.key.store)
	if err != nil {
		return err
	}
	same := map[File]part{}
	if old != nil {
		for _, p := range old.parts {
			same[p.File] = p
		}
	}
	for _, f := range files {
		p, ok := same[f]
		if !ok {
			p = part{File: f}
			err := l.source.Vectors(ctx, s, sh.key.store, f.ID, func(chunk int, embedder string, v []float32) error {
				if embedder != sh.key.space.Embedder || len(v) != sh.key.space.Dim {
					return nil // it is being made anew
				}
				return p.add(sh.key.space, chunk, v)
			})
			if err != nil {
				return err
			}
			p.flat, p.chunks = slices.Clip(p.flat), slices.Clip(p.chunks)
		}
		sh.parts = append(sh.parts, p)
	}
	return nil
}

// add appends a vector as a unit vector.
func (p *part) add(sp Space, chunk int, v []float32) error {
	l, err := length(sp, v)
	if err != nil {
		return fmt.Errorf("cannot use a stored vector: %s", err.Error())
	}
	at := len(p.flat)
	p.flat = append(p.flat, v...)
	for i := at; i < len(p.flat); i++ {
		p.flat[i] /= l
	}
	p.chunks = append(p.chunks, int32(chunk))
	return nil
}

// shrink drops what was used least lately until the bounds hold again: of the
// same company first, if it is that one's share. keep stays.
func (l *Local) shrink(keep *shard) {
	for at := l.oldest.next; at != &l.oldest && l.company[keep.key.company] > l.o.CompanyBytes; {
		next := at.next
		if at != keep && at.key.company == keep.key.company {
			l.drop(at)
		}
		at = next
	}
	for at := l.oldest.next; at != &l.oldest && l.bytes > l.o.Bytes; {
		next := at.next
		if at != keep {
			l.drop(at)
		}
		at = next
	}
}

// drop takes a loaded shard out of memory.
func (l *Local) drop(sh *shard) {
	delete(l.shards, sh.key)
	sh.unlink()
	l.bytes -= sh.bytes
	if l.company[sh.key.company] -= sh.bytes; l.company[sh.key.company] <= 0 {
		delete(l.company, sh.key.company)
	}
}

// forget drops a company's store, or with store "" all of them. One that is
// being loaded is not kept.
func (l *Local) forget(company, store string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for key, sh := range l.shards {
		if key.company != company || store != "" && key.store != store {
			continue
		}
		if sh.loading != nil {
			delete(l.shards, key)
			continue
		}
		l.drop(sh)
	}
}

func (l *Local) link(sh *shard) {
	last := l.oldest.prev
	last.next, sh.prev, sh.next, l.oldest.prev = sh, last, &l.oldest, sh
}

func (sh *shard) unlink() {
	if sh.prev != nil {
		sh.prev.next, sh.next.prev = sh.next, sh.prev
		sh.prev, sh.next = nil, nil
	}
}

// late is what a search ends with that took too long.
func late(err error) error {
	return fault.Wrap(fault.Timeout, err, "The vector index did not answer in time.")
}
