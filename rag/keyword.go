package rag

import (
	"context"
	"time"

	"bulkhead/fault"
	"bulkhead/tenant"
	"bulkhead/vector"
)

// Segments is where the words of files are kept. What is there of a file that is
// gone, or of an older version of it, is never asked for.
type Segments interface {
	// Segment returns the segment of a file of that version, nil if it was not made.
	Segment(ctx context.Context, s tenant.Scope, store, file string, version int64) ([]byte, error)
	// PutSegment keeps a segment in place of the file's older one. A file that is
	// not in the store any more has none.
	PutSegment(ctx context.Context, s tenant.Scope, store, file string, version int64, blob []byte) error
}

// keywords brings the words of stores into memory.
type keywords struct {
	library  Library
	segments Segments
	cache    *vector.Cache[[]*segment]
}

// Bounds of what keyword search keeps in memory, in bytes.
const (
	wordsTotal   = 128 << 20
	wordsCompany = 32 << 20
	wordsLoad    = 30 * time.Second
)

func newKeywords(l Library, g Segments) *keywords {
	return &keywords{l, g, vector.NewCache[[]*segment](wordsTotal, wordsCompany, wordsLoad)}
}

// of returns the words of a store as of its version.
func (k *keywords) of(ctx context.Context, s tenant.Scope, st *Store) (storeWords, error) {
	key := vector.CacheKey{Company: s.ID().String(), Store: st.ID, Kind: "words"}
	got, err := k.cache.Get(ctx, key, st.Version, func(ctx context.Context, old []*segment) ([]*segment, int64, error) {
		return k.load(ctx, s, st.ID, old)
	})
	return storeWords{st.ID, got}, err
}

// load reads the segments of a store, but for those that are the same as before,
// and makes those that are not there.
func (k *keywords) load(ctx context.Context, s tenant.Scope, store string, old []*segment) (all []*segment, bytes int64, err error) {
	files, err := contents(ctx, k.library, s, store)
	if err != nil {
		return nil, 0, err
	}
	same := map[string]*segment{}
	for _, g := range old {
		same[g.file] = g
	}
	for i := range files {
		f := &files[i]
		g := same[f.FileID]
		if g == nil || g.version != f.Version {
			if g, err = k.segment(ctx, s, store, f); err != nil {
				return nil, 0, err
			}
		}
		all = append(all, g)
		bytes += g.size()
	}
	return all, bytes, nil
}

func (k *keywords) segment(ctx context.Context, s tenant.Scope, store string, f *StoreFile) (*segment, error) {
	blob, err := k.segments.Segment(ctx, s, store, f.FileID, f.Version)
	if err != nil {
		return nil, err
	}
	var g *segment
	if blob != nil {
		g, err = readSegment(blob)
	}
	if g == nil || err != nil { // one that cannot be read is made anew
		texts, err := fileTexts(ctx, k.library, s, store, f.FileID)
		if err != nil {
			return nil, err
		}
		blob = EncodeSegment(texts)
		if err := k.segments.PutSegment(ctx, s, store, f.FileID, f.Version, blob); err != nil {
			return nil, err
		}
		if g, err = readSegment(blob); err != nil {
			panic("BUG: a segment that was just made cannot be read")
		}
	}
	g.file, g.version = f.FileID, f.Version
	return g, nil
}

// chunkPage is how many chunks are read at once.
const chunkPage = 256

// eachChunk gives fn the chunks of a file in order.
func eachChunk(ctx context.Context, l Library, s tenant.Scope, store, file string, fn func(*Chunk) error) error {
	for from := 0; ; from += chunkPage {
		some, err := l.FileChunks(ctx, s, store, file, from, chunkPage)
		if err != nil {
			return err
		}
		for i := range some {
			if err := fn(&some[i]); err != nil {
				return err
			}
		}
		if len(some) < chunkPage {
			return nil
		}
	}
}

func fileTexts(ctx context.Context, l Library, s tenant.Scope, store, file string) (texts []string, err error) {
	err = eachChunk(ctx, l, s, store, file, func(c *Chunk) error {
		for len(texts) < c.Index { // a place that has none
			texts = append(texts, "")
		}
		texts = append(texts, c.Text)
		return nil
	})
	return texts, err
}

// contents returns the files of a store that can be found. A Scope that does not
// see the store any more is an error: what it sees is kept for all who do.
func contents(ctx context.Context, l Library, s tenant.Scope, store string) ([]StoreFile, error) {
	files, err := l.Contents(ctx, s, store)
	if err != nil || len(files) > 0 {
		return files, err
	}
	seen, err := l.FindStores(ctx, s, []string{store})
	if err == nil && len(seen) == 0 {
		err = fault.New(fault.NotFound, "No such vector store, or it is not yours.").WithCode("not_found")
	}
	return nil, err
}
