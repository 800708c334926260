// Package vector finds what is near: one contract for an index of vectors, and
// two indexes that keep it. Local scans everything, exactly, in process; Milvus
// is a server for many gateways and many more vectors.
//
// An index knows ids and numbers and no text: a Hit is a place, whose text the
// caller reads back through the store, with the same Scope. So a vector that
// should not have been found finds nothing.
//
// The contract is held by the suite in vectortest, which both indexes run.
package vector

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"math"
	"slices"
	"strconv"

	"bulkhead/fault"
	"bulkhead/tenant"
)

// Space says which vectors may be compared: those that one embedder made.
// Vectors of another space are as good as absent.
type Space struct {
	Embedder string // its id; any text
	Dim      int    // how many numbers a vector has, 1 to MaxDim
}

// MaxDim is the most numbers a vector has. It is Milvus' own bound.
const MaxDim = 32768

// key is the space in a form that any backend can store and compare.
func (sp Space) key() string {
	sum := sha256.Sum256(strconv.AppendInt([]byte(sp.Embedder+"\x00"), int64(sp.Dim), 10))
	return hex.EncodeToString(sum[:8])
}

// Ref is the place of a chunk, inside its company.
type Ref struct {
	Store string // the vector store's id
	File  string // the file's id
	Chunk int    // counts from 0 in the file
}

// Item is one chunk's vector.
type Item struct {
	Ref
	Vector []float32
}

// Hit is a place and how near it is: the cosine, from -1 to 1.
type Hit struct {
	Ref
	Score float32
}

// Store is a vector store to be searched.
type Store struct {
	ID string
	// Version is the store's, which rises with every change of what can be found in
	// it, and Stamp what Settle said after that change. A search sees what was
	// settled then, whichever gateway did it.
	Version int64
	Stamp   uint64
}

// Query is one search.
type Query struct {
	Vector []float32
	Stores []Store  // none finds nothing
	Files  []string // narrows to these files; nil does not narrow, empty finds nothing
	Limit  int      // most hits, 1 to MaxHits
	// MinScore is the least cosine of a hit; 0 and less is none.
	MinScore float32
}

// MaxHits is the most hits of one search.
const MaxHits = 1000

// Index is where vectors are. Everything takes the Scope of the company whose
// vectors are meant, and neither sees nor touches another's. All of it may be done
// again with the same result. Ids of stores and files are the gateway's own; one
// that is not of their form is an error and reaches no backend.
//
// An error is a *fault.Error of kind Unavailable or Timeout where the backend is
// away or slow.
type Index interface {
	// Put adds items, in place of those with the same Ref.
	Put(ctx context.Context, s tenant.Scope, sp Space, items []Item) error
	// Trim takes the chunks of a file from an index on out of a store, of every
	// space; 0 takes the file out. What is not there is taken out already.
	Trim(ctx context.Context, s tenant.Scope, store, file string, from int) error
	// DropStore takes all of a store's vectors away.
	DropStore(ctx context.Context, s tenant.Scope, store string) error
	// Settle returns once everything that was changed in the store before is seen
	// by searches that are given the stamp, from every gateway.
	Settle(ctx context.Context, s tenant.Scope, store string) (stamp uint64, err error)
	// Search returns the nearest, nearest first; of the same distance those with
	// the smaller Ref first.
	Search(ctx context.Context, s tenant.Scope, sp Space, q Query) ([]Hit, error)
	// Erase takes all of a company's vectors away, counts what is left and returns
	// that: 0, or there is an error.
	Erase(ctx context.Context, s tenant.Scope) (left int64, err error)
	// Check asks whether the backend is there.
	Check(ctx context.Context) error
	Close() error
}

// id reports whether s may be an id in a filter: 1 to 64 of a-z A-Z 0-9 . _ -.
// No character of these means anything in a filter.
func id(s string) bool {
	if s == "" || len(s) > 64 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '.' || c == '_' || c == '-') {
			return false
		}
	}
	return true
}

var errID = fault.New(fault.Invalid, "The id of a vector store or file is not of the form of one.")

func checkIDs(ids ...string) error {
	for _, s := range ids {
		if !id(s) {
			return errID
		}
	}
	return nil
}

func (sp Space) check() error {
	if sp.Embedder == "" || sp.Dim < 1 || sp.Dim > MaxDim {
		return fault.New(fault.Invalid, "Vectors must have 1 to %d dimensions.", MaxDim)
	}
	return nil
}

// checkItems refuses what no index can hold. A vector without a direction, or
// with a number that is none, is near to nothing and would be near to all.
func checkItems(sp Space, items []Item) error {
	if err := sp.check(); err != nil {
		return err
	}
	for i := range items {
		it := &items[i]
		if err := checkIDs(it.Store, it.File); err != nil {
			return err
		}
		if it.Chunk < 0 {
			return errID
		}
		if _, err := length(sp, it.Vector); err != nil {
			return err
		}
	}
	return nil
}

func (q *Query) check(sp Space) error {
	if err := sp.check(); err != nil {
		return err
	}
	if q.Limit < 1 || q.Limit > MaxHits {
		return fault.New(fault.Invalid, "A search finds 1 to %d vectors.", MaxHits)
	}
	for i := range q.Stores {
		if err := checkIDs(q.Stores[i].ID); err != nil {
			return err
		}
	}
	if err := checkIDs(q.Files...); err != nil {
		return err
	}
	_, err := length(sp, q.Vector)
	return err
}

// nothing reports whether q can find nothing, because its scope is empty.
func (q *Query) nothing() bool { return len(q.Stores) == 0 || q.Files != nil && len(q.Files) == 0 }

// length returns the length of a vector, which must have one.
func length(sp Space, v []float32) (float32, error) {
	if len(v) != sp.Dim {
		return 0, fault.New(fault.Invalid, "A vector has %d dimensions instead of %d.", len(v), sp.Dim)
	}
	var sum float64
	for _, x := range v {
		sum += float64(x) * float64(x)
	}
	l := math.Sqrt(sum)
	if l == 0 || math.IsNaN(l) || l > math.MaxFloat32 || float32(l) == 0 {
		return 0, fault.New(fault.Invalid, "A vector has no direction.")
	}
	return float32(l), nil
}

// has reports whether the store is one of those that are searched.
func (q *Query) has(store string) bool {
	return slices.ContainsFunc(q.Stores, func(st Store) bool { return st.ID == store })
}

func sortHits(hits []Hit) {
	slices.SortFunc(hits, func(a, b Hit) int {
		if less(a, b) {
			return -1
		}
		return 1
	})
}

// less orders hits: nearest first, then by Ref, so that equal ones always come
// in the same order.
func less(a, b Hit) bool {
	switch {
	case a.Score != b.Score:
		return a.Score > b.Score
	case a.Store != b.Store:
		return a.Store < b.Store
	case a.File != b.File:
		return a.File < b.File
	}
	return a.Chunk < b.Chunk
}
