package vector

import (
	"context"
	"encoding/binary"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"bulkhead/fault"
	"bulkhead/tenant"
)

// Source is where the vectors are kept that Local scans.
type Source interface {
	// Vectors gives fn each vector of the store in the space, in the form of
	// AppendVector and in the order of file and chunk. v is valid only until fn
	// returns. visible is the store's mark as of the same read; a store that is
	// not there has none and no vectors.
	Vectors(ctx context.Context, s tenant.Scope, store string, sp Space, fn func(file string, chunk int, v []byte) error) (visible int64, err error)
	// CountVectors returns how many vectors the company has.
	CountVectors(ctx context.Context, s tenant.Scope) (int64, error)
}

// AppendVector appends v as it is stored: little-endian float32.
func AppendVector(b []byte, v []float32) []byte {
	for _, x := range v {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
	}
	return b
}

// LocalOptions bound a Local. Zero values take the defaults.
type LocalOptions struct {
	Bytes        int64 // of vectors in memory, all companies together; default 512 MiB
	CompanyBytes int64 // and of one company; default 128 MiB
	// Load bounds the reading of one store; default 30 s. It goes on when the one
	// who asked has gone: the next one finds it done.
	Load time.Duration
}

// Local is an exact scan in process. The vectors are the Source's, which every
// change goes to as well; in memory there are copies of the stores that were
// searched lately, each brought up to date when a Query carries a newer mark.
// A store that is larger than its company's share is read for each search.
type Local struct {
	source Source
	o      LocalOptions
	mark   atomic.Int64

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

// shard is a copy of a store's vectors, which are unit vectors one after the
// other. It is not changed after it was loaded.
type shard struct {
	key     shardKey
	visible int64
	flat    []float32
	refs    []place
	files   []string

	bytes      int64
	prev, next *shard
	loading    chan struct{} // closed when loaded; nil: it is
	err        error
}

// place is the file and chunk of a vector.
type place struct{ file, chunk int32 }

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

// Put implements Index: the vectors are in the Source already, or will be when
// the mark is written there.
func (l *Local) Put(_ context.Context, s tenant.Scope, sp Space, items []Item) (int64, error) {
	s.ID()
	if err := checkItems(sp, items); err != nil {
		return 0, err
	}
	return l.nextMark(), nil
}

// DeleteFile implements Index.
func (l *Local) DeleteFile(_ context.Context, s tenant.Scope, store, file string) (int64, error) {
	if err := checkIDs(store, file); err != nil {
		return 0, err
	}
	l.forget(s.ID().String(), store)
	return l.nextMark(), nil
}

// DeleteStore implements Index.
func (l *Local) DeleteStore(_ context.Context, s tenant.Scope, store string) error {
	if err := checkIDs(store); err != nil {
		return err
	}
	l.forget(s.ID().String(), store)
	return nil
}

// Count implements Index.
func (l *Local) Count(ctx context.Context, s tenant.Scope) (int64, error) {
	return l.source.CountVectors(ctx, s)
}

// Erase implements Index: what is in memory goes. The Source's go with the
// company's rows, and are counted there.
func (l *Local) Erase(_ context.Context, s tenant.Scope) error {
	l.forget(s.ID().String(), "")
	return nil
}

// Check implements Index.
func (l *Local) Check(context.Context) error { return nil }

// Close implements Index.
func (l *Local) Close() error { return nil }

// nextMark is the time in microseconds, and later than any before: gateways that
// share a Source compare their marks.
func (l *Local) nextMark() int64 {
	for {
		last := l.mark.Load()
		next := max(time.Now().UnixMicro(), last+1)
		if l.mark.CompareAndSwap(last, next) {
			return next
		}
	}
}

// Bytes returns how much is in memory, of all companies.
func (l *Local) Bytes() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.bytes
}

// Search implements Index.
func (l *Local) Search(ctx context.Context, s tenant.Scope, sp Space, q Query) ([]Hit, error) {
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
		key := shardKey{s.ID().String(), st.ID, sp}
		sh, err := l.shard(ctx, s, key, st.Visible)
		if err != nil {
			return nil, err
		}
		sc.shard(sh)
	}
	if unfiltered() {
		l.mu.Lock()
		for _, sh := range l.shards {
			if sh.loading == nil && sh.key.space == sp && sh.key.company != s.ID().String() {
				sc.shard(sh)
			}
		}
		l.mu.Unlock()
	}
	return sc.hits(), nil
}

// shard returns the store's vectors as of the mark visible, or later.
func (l *Local) shard(ctx context.Context, s tenant.Scope, key shardKey, visible int64) (*shard, error) {
	for {
		l.mu.Lock()
		sh := l.shards[key]
		if sh != nil && sh.loading == nil && sh.visible >= visible {
			sh.unlink()
			l.link(sh)
			l.mu.Unlock()
			return sh, nil
		}
		begun := false
		if sh == nil || sh.loading == nil {
			if sh != nil {
				l.drop(sh)
			}
			begun = true
			sh = &shard{key: key, loading: make(chan struct{})}
			l.shards[key] = sh
			go l.load(s, sh)
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
		// What a load that began after the question found is all there is. It may
		// have been too large to stay in memory.
		if begun || sh.visible >= visible {
			return sh, nil
		}
	}
}

// load reads a store's vectors. It is nobody's in particular, so it ends by its
// own time.
func (l *Local) load(s tenant.Scope, sh *shard) {
	ctx, cancel := context.WithTimeout(context.Background(), l.o.Load)
	defer cancel()
	dim := sh.key.space.Dim
	files := map[string]int32{}
	visible, err := l.source.Vectors(ctx, s, sh.key.store, sh.key.space, func(file string, chunk int, v []byte) error {
		if len(v) != 4*dim {
			return fault.New(fault.Internal, "a vector is stored with %d bytes instead of %d", len(v), 4*dim)
		}
		n, ok := files[file]
		if !ok {
			n = int32(len(sh.files))
			files[file] = n
			sh.files = append(sh.files, file)
		}
		sh.refs = append(sh.refs, place{n, int32(chunk)})
		at := len(sh.flat)
		var sum float64
		for i := 0; i < len(v); i += 4 {
			x := math.Float32frombits(binary.LittleEndian.Uint32(v[i:]))
			sum += float64(x) * float64(x)
			sh.flat = append(sh.flat, x)
		}
		scale := float32(1 / math.Sqrt(sum))
		for i := at; i < len(sh.flat); i++ {
			sh.flat[i] *= scale
		}
		return nil
	})
	if err != nil && ctx.Err() != nil {
		err = late(ctx.Err())
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	sh.visible, sh.err = visible, err
	sh.bytes = int64(cap(sh.flat))*4 + int64(cap(sh.refs))*8 + 512
	done := sh.loading
	sh.loading = nil
	if l.shards[sh.key] == sh {
		if err != nil || sh.bytes > l.o.CompanyBytes || sh.bytes > l.o.Bytes {
			delete(l.shards, sh.key)
		} else {
			l.bytes += sh.bytes
			l.company[sh.key.company] += sh.bytes
			l.link(sh)
			l.shrink(sh)
		}
	}
	close(done)
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
