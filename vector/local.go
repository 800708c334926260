package vector

import (
	"context"
	"fmt"
	"slices"
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

// Local is an exact scan in process. The Source has the vectors; a Cache has those
// of the stores that were searched lately. A Query with a newer version brings a
// store up to date, which reads the files that changed.
type Local struct {
	source Source
	cache  *Cache[[]part]
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
	return &Local{source, NewCache[[]part](o.Bytes, o.CompanyBytes, o.Load)}
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
	l.cache.Forget(s.ID().String(), store)
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
	l.cache.Forget(s.ID().String(), "")
	return 0, nil
}

// Forget drops what is in memory of a company that was erased, maybe by another
// gateway.
func (l *Local) Forget(company string) { l.cache.Forget(company, "") }

// Has reports whether something of a company is in memory.
func (l *Local) Has(company string) bool { return l.cache.Has(company) }

// Check implements Index.
func (l *Local) Check(context.Context) error { return nil }

// Close implements Index.
func (l *Local) Close() error { return nil }

// Bytes returns how much is in memory, of all companies.
func (l *Local) Bytes() int64 { return l.cache.Bytes() }

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
		parts, err := l.cache.Get(ctx, CacheKey{company, st.ID, sp.key()}, st.Version, func(ctx context.Context, old []part) ([]part, int64, error) {
			return l.read(ctx, s, st.ID, sp, old)
		})
		if err != nil {
			return nil, err
		}
		sc.store(st.ID, parts)
	}
	if unfiltered() {
		l.cache.each(func(k CacheKey, parts []part) {
			if k.Kind == sp.key() && k.Company != company {
				sc.store(k.Store, parts)
			}
		})
	}
	return sc.hits(), nil
}

// read reads a store's vectors, but for the files of old that are the same.
func (l *Local) read(ctx context.Context, s tenant.Scope, store string, sp Space, old []part) (parts []part, bytes int64, err error) {
	files, err := l.source.Files(ctx, s, store)
	if err != nil {
		return nil, 0, err
	}
	same := make(map[File]part, len(old))
	for _, p := range old {
		same[p.File] = p
	}
	parts = make([]part, 0, len(files))
	for _, f := range files {
		p, ok := same[f]
		if !ok {
			p = part{File: f}
			err := l.source.Vectors(ctx, s, store, f.ID, func(chunk int, embedder string, v []float32) error {
				if embedder != sp.Embedder || len(v) != sp.Dim {
					return nil // it is being made anew
				}
				return p.add(sp, chunk, v)
			})
			if err != nil {
				return nil, 0, err
			}
			p.flat, p.chunks = slices.Clip(p.flat), slices.Clip(p.chunks)
		}
		parts = append(parts, p)
		bytes += int64(cap(p.flat)+cap(p.chunks))*4 + 128
	}
	return parts, bytes, nil
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

// late is what a search ends with that took too long.
func late(err error) error {
	return fault.Wrap(fault.Timeout, err, "The vector index did not answer in time.")
}
