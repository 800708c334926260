package vectortest

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"bulkhead/fault"
	"bulkhead/tenant"
	"bulkhead/tenant/tenanttest"
	"bulkhead/vector"
)

// Opened is an index under test.
type Opened struct {
	vector.Index
	// Violations returns how many hits were dropped because they were not the
	// company's; nil where an index cannot find such.
	Violations func() int64
}

// Space is a space of few dimensions.
func Space(dim int) vector.Space { return vector.Space{Embedder: "one", Dim: dim} }

// Run tests an index. open returns one over what h keeps; called twice with the
// same h it opens the same index once more, as another gateway does.
func Run(t *testing.T, open func(t *testing.T, h *Shelf) Opened) {
	for _, c := range []struct {
		name string
		run  func(t *testing.T, open func(t *testing.T, h *Shelf) Opened)
	}{
		{"nearest", nearest}, {"places", places}, {"confusable", confusable}, {"empty scope", emptyScope}, {"spaces", spaces},
		{"trim", trim}, {"replace", replace}, {"erase", erase}, {"gateways", gateways}, {"bad", bad}, {"deadline", deadline}, {"many", many},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, open) })
	}
}

// Isolation is the part of the suite that must fail where the company is not in
// the filter.
func Isolation(t *testing.T, open func(t *testing.T, h *Shelf) Opened) {
	t.Run("many", func(t *testing.T) { many(t, open) })
	t.Run("erase", func(t *testing.T) { erase(t, open) })
}

// Dim is the size of the vectors of the suite.
const Dim = 8

// unit returns a vector that points along axis i and a little elsewhere.
func unit(i int, tilt float32) []float32 {
	v := make([]float32, Dim)
	v[i%Dim] = 1
	v[(i+1)%Dim] = tilt
	return v
}

func search(t testing.TB, x vector.Index, s tenant.Scope, sp vector.Space, q vector.Query) []vector.Hit {
	t.Helper()
	if q.Limit == 0 {
		q.Limit = 10
	}
	hits, err := x.Search(t.Context(), s, sp, q)
	if err != nil {
		t.Fatal(err)
	}
	return hits
}

// found returns hits as text, "store/file#chunk", in order.
func found(hits []vector.Hit) string {
	var all []string
	for _, h := range hits {
		all = append(all, fmt.Sprintf("%s/%s#%d", h.Store, h.File, h.Chunk))
	}
	return strings.Join(all, " ")
}

func want(t testing.TB, hits []vector.Hit, want string) {
	t.Helper()
	if got := found(hits); got != want {
		t.Fatalf("found %q, want %q", got, want)
	}
}

func nearest(t *testing.T, open func(t *testing.T, h *Shelf) Opened) {
	h := NewShelf()
	x, s, sp := open(t, h), tenanttest.Scope(t, "a"), Space(Dim)
	// Lengths do not matter, directions do.
	long := unit(0, 0.5)
	for i := range long {
		long[i] *= 40
	}
	h.Put(t, x, s, sp, "vs_1", "file-1", unit(0, 0), long, unit(1, 0))
	h.Put(t, x, s, sp, "vs_1", "file-2", unit(0, 0.2))
	hits := search(t, x, s, sp, vector.Query{Vector: unit(0, 0), Stores: h.Stores(s, "vs_1")})
	want(t, hits, "vs_1/file-1#0 vs_1/file-2#0 vs_1/file-1#1 vs_1/file-1#2")
	for i, score := range []float64{1, 1 / math.Sqrt(1.04), 1 / math.Sqrt(1.25), 0} {
		if math.Abs(float64(hits[i].Score)-score) > 1e-4 {
			t.Errorf("hit %d has score %v, want %v", i, hits[i].Score, score)
		}
	}
	want(t, search(t, x, s, sp, vector.Query{Vector: unit(0, 0), Stores: h.Stores(s, "vs_1"), Limit: 2}), "vs_1/file-1#0 vs_1/file-2#0")
	want(t, search(t, x, s, sp, vector.Query{Vector: unit(0, 0), Stores: h.Stores(s, "vs_1"), MinScore: 0.95}), "vs_1/file-1#0 vs_1/file-2#0")
}

func places(t *testing.T, open func(t *testing.T, h *Shelf) Opened) {
	h := NewShelf()
	x, s, sp := open(t, h), tenanttest.Scope(t, "a"), Space(Dim)
	h.Put(t, x, s, sp, "vs_1", "file-1", unit(0, 0), unit(0, 0.1))
	h.Put(t, x, s, sp, "vs_2", "file-1", unit(0, 0.2))
	h.Put(t, x, s, sp, "vs_2", "file-2", unit(0, 0.3))
	h.Put(t, x, s, sp, "vs_3", "file-3", unit(0, 0))
	q := func(files []string, stores ...string) string {
		t.Helper()
		return found(search(t, x, s, sp, vector.Query{Vector: unit(0, 0), Stores: h.Stores(s, stores...), Files: files}))
	}
	for _, c := range [][2]string{
		{q(nil, "vs_2"), "vs_2/file-1#0 vs_2/file-2#0"},
		{q(nil, "vs_1", "vs_2"), "vs_1/file-1#0 vs_1/file-1#1 vs_2/file-1#0 vs_2/file-2#0"},
		{q(nil, "vs_1", "vs_1"), "vs_1/file-1#0 vs_1/file-1#1"}, // named twice, found once
		{q([]string{"file-1"}, "vs_1", "vs_2"), "vs_1/file-1#0 vs_1/file-1#1 vs_2/file-1#0"},
		{q([]string{"file-3"}, "vs_1", "vs_2"), ""},
		{q(nil, "vs_none"), ""},
	} {
		if c[0] != c[1] {
			t.Errorf("found %q, want %q", c[0], c[1])
		}
	}
}

// Names that a careless key or filter takes for one another.
var names = []string{
	"vs", "VS", "vs_", "vs-", "v", "vs_1", "vs_11", "..", "-", "1", "01", "true", "in", "company", strings.Repeat("a", 64), strings.Repeat("a", 63),
}

func confusable(t *testing.T, open func(t *testing.T, h *Shelf) Opened) {
	h := NewShelf()
	x, sp := open(t, h), Space(Dim)
	a, b := tenanttest.Scope(t, "same"), tenanttest.Scope(t, "same")
	for i, n := range names {
		h.Put(t, x, a, sp, n, n, unit(0, float32(i)/100))
		h.Put(t, x, b, sp, n, n, unit(0, float32(i)/100), unit(0, float32(i)/100))
	}
	for _, n := range names {
		want(t, search(t, x, a, sp, vector.Query{Vector: unit(0, 0), Stores: h.Stores(a, n)}), n+"/"+n+"#0")
		want(t, search(t, x, b, sp, vector.Query{Vector: unit(0, 0), Stores: h.Stores(b, n)}), n+"/"+n+"#0 "+n+"/"+n+"#1")
	}
	// What one deletes, the other keeps.
	for _, n := range names {
		h.Drop(t, x, b, n)
	}
	for _, n := range names {
		want(t, search(t, x, a, sp, vector.Query{Vector: unit(0, 0), Stores: h.Stores(a, n)}), n+"/"+n+"#0")
		want(t, search(t, x, b, sp, vector.Query{Vector: unit(0, 0), Stores: h.Stores(b, n)}), "")
	}
	noViolation(t, x)
}

func noViolation(t testing.TB, x Opened) {
	t.Helper()
	if x.Violations != nil && x.Violations() != 0 {
		t.Errorf("%d foreign hits were dropped", x.Violations())
	}
}

func emptyScope(t *testing.T, open func(t *testing.T, h *Shelf) Opened) {
	h := NewShelf()
	x, s, sp := open(t, h), tenanttest.Scope(t, "a"), Space(Dim)
	h.Put(t, x, s, sp, "vs_1", "file-1", unit(0, 0))
	want(t, search(t, x, s, sp, vector.Query{Vector: unit(0, 0)}), "")
	want(t, search(t, x, s, sp, vector.Query{Vector: unit(0, 0), Stores: []vector.Store{}}), "")
	want(t, search(t, x, s, sp, vector.Query{Vector: unit(0, 0), Stores: h.Stores(s, "vs_1"), Files: []string{}}), "")
	want(t, search(t, x, s, sp, vector.Query{Vector: unit(0, 0), Stores: h.Stores(s, "vs_1")}), "vs_1/file-1#0")
	for _, use := range []func(s tenant.Scope){
		func(s tenant.Scope) { x.Put(t.Context(), s, sp, nil) },
		func(s tenant.Scope) { x.Trim(t.Context(), s, "vs_1", "file-1", 0) },
		func(s tenant.Scope) { x.DropStore(t.Context(), s, "vs_1") },
		func(s tenant.Scope) { x.Settle(t.Context(), s, "vs_1") },
		func(s tenant.Scope) { x.Search(t.Context(), s, sp, vector.Query{}) },
		func(s tenant.Scope) { x.Erase(t.Context(), s) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Error("the zero Scope was used")
				}
			}()
			var zero tenant.Scope
			use(zero)
		}()
	}
}

func spaces(t *testing.T, open func(t *testing.T, h *Shelf) Opened) {
	h := NewShelf()
	x, s := open(t, h), tenanttest.Scope(t, "a")
	one, two, small := vector.Space{Embedder: "one", Dim: Dim}, vector.Space{Embedder: "two", Dim: Dim}, vector.Space{Embedder: "one", Dim: 2}
	h.Put(t, x, s, one, "vs_1", "file-1", unit(0, 0))
	h.Put(t, x, s, two, "vs_1", "file-2", unit(0, 0))
	want(t, search(t, x, s, one, vector.Query{Vector: unit(0, 0), Stores: h.Stores(s, "vs_1")}), "vs_1/file-1#0")
	want(t, search(t, x, s, two, vector.Query{Vector: unit(0, 0), Stores: h.Stores(s, "vs_1")}), "vs_1/file-2#0")
	h.Put(t, x, s, small, "vs_2", "file-3", []float32{1, 0})
	want(t, search(t, x, s, small, vector.Query{Vector: []float32{1, 0}, Stores: h.Stores(s, "vs_1", "vs_2")}), "vs_2/file-3#0")
	h.Drop(t, x, s, "vs_2")
	want(t, search(t, x, s, small, vector.Query{Vector: []float32{1, 0}, Stores: h.Stores(s, "vs_1", "vs_2")}), "")
}

func trim(t *testing.T, open func(t *testing.T, h *Shelf) Opened) {
	h := NewShelf()
	x, s, sp := open(t, h), tenanttest.Scope(t, "a"), Space(Dim)
	h.Put(t, x, s, sp, "vs_1", "file-1", unit(0, 0), unit(0, 0.1), unit(0, 0.2))
	h.Put(t, x, s, sp, "vs_1", "file-2", unit(0, 0.3))
	// A file that became shorter.
	if err := x.Trim(t.Context(), s, "vs_1", "file-1", 1); err != nil {
		t.Fatal(err)
	}
	h.Put(t, x, s, sp, "vs_1", "file-1", unit(0, 0))
	want(t, search(t, x, s, sp, vector.Query{Vector: unit(0, 0), Stores: h.Stores(s, "vs_1")}), "vs_1/file-1#0 vs_1/file-2#0")
	h.Delete(t, x, s, "vs_1", "file-1")
	h.Delete(t, x, s, "vs_1", "file-1") // again
	h.Delete(t, x, s, "vs_1", "file-none")
	want(t, search(t, x, s, sp, vector.Query{Vector: unit(0, 0), Stores: h.Stores(s, "vs_1")}), "vs_1/file-2#0")
}

func replace(t *testing.T, open func(t *testing.T, h *Shelf) Opened) {
	h := NewShelf()
	x, s, sp := open(t, h), tenanttest.Scope(t, "a"), Space(Dim)
	for range 3 { // ingestion that begins anew after a kill puts the same again
		h.Put(t, x, s, sp, "vs_1", "file-1", unit(0, 0), unit(1, 0))
	}
	want(t, search(t, x, s, sp, vector.Query{Vector: unit(0, 0), Stores: h.Stores(s, "vs_1")}), "vs_1/file-1#0 vs_1/file-1#1")
	h.Put(t, x, s, sp, "vs_1", "file-1", unit(1, 0), unit(0, 0))
	want(t, search(t, x, s, sp, vector.Query{Vector: unit(0, 0), Stores: h.Stores(s, "vs_1")}), "vs_1/file-1#1 vs_1/file-1#0")
}

func erase(t *testing.T, open func(t *testing.T, h *Shelf) Opened) {
	h := NewShelf()
	x, sp := open(t, h), Space(Dim)
	a, b := tenanttest.Scope(t, "a"), tenanttest.Scope(t, "b")
	for _, s := range []tenant.Scope{a, b} {
		for i := range 6 {
			h.Put(t, x, s, sp, fmt.Sprint("vs_", i%3), fmt.Sprint("file-", i), unit(i, 0))
		}
		h.Put(t, x, s, vector.Space{Embedder: "one", Dim: 2}, "vs_0", "file-small", []float32{1, 1})
	}
	h.Erase(a)
	for range 2 { // also what is gone is erased
		if left, err := x.Erase(t.Context(), a); err != nil || left != 0 {
			t.Fatalf("%d left, %v", left, err)
		}
	}
	want(t, search(t, x, a, sp, vector.Query{Vector: unit(0, 0), Stores: h.Stores(a, "vs_0", "vs_1", "vs_2")}), "")
	if hits := search(t, x, b, sp, vector.Query{Vector: unit(0, 0), Stores: h.Stores(b, "vs_0", "vs_1", "vs_2"), Limit: 100}); len(hits) != 6 {
		t.Fatalf("the other company has %d left of 6", len(hits))
	}
	noViolation(t, x)
}

// gateways: what one has settled, the next question finds at another.
func gateways(t *testing.T, open func(t *testing.T, h *Shelf) Opened) {
	h := NewShelf()
	x, y := open(t, h), open(t, h)
	s, sp := tenanttest.Scope(t, "a"), Space(Dim)
	var all []string
	for i := range 12 {
		from, to := x, y
		if i%2 == 1 {
			from, to = y, x
		}
		file := fmt.Sprintf("file-%02d", i)
		h.Put(t, from, s, sp, "vs_1", file, unit(0, float32(i)/50))
		all = append(all, "vs_1/"+file+"#0")
		want(t, search(t, to, s, sp, vector.Query{Vector: unit(0, 0), Stores: h.Stores(s, "vs_1"), Limit: 20}), strings.Join(all, " "))
	}
	h.Delete(t, x, s, "vs_1", "file-00")
	want(t, search(t, y, s, sp, vector.Query{Vector: unit(0, 0), Stores: h.Stores(s, "vs_1"), Limit: 20}), strings.Join(all[1:], " "))
}

func bad(t *testing.T, open func(t *testing.T, h *Shelf) Opened) {
	h := NewShelf()
	x, s, sp := open(t, h), tenanttest.Scope(t, "a"), Space(Dim)
	nan, zero := unit(0, 0), make([]float32, Dim)
	nan[3] = float32(math.NaN())
	put := func(store, file string, chunk int, v []float32) error {
		return x.Put(t.Context(), s, sp, []vector.Item{{Ref: vector.Ref{Store: store, File: file, Chunk: chunk}, Vector: v}})
	}
	ask := func(q vector.Query) error {
		_, err := x.Search(t.Context(), s, sp, q)
		return err
	}
	ok := vector.Query{Vector: unit(0, 0), Stores: []vector.Store{{ID: "vs_1"}}, Limit: 10}
	with := func(edit func(*vector.Query)) vector.Query { q := ok; edit(&q); return q }
	for _, id := range []string{"", strings.Repeat("a", 65), `a"`, `" || company != "`, `vs_1"] || file in ["x`, "a b", "a\x00", "a\n", "é", "%", "vs/1", "a'", "a\\"} {
		for what, err := range map[string]error{
			"put store": put(id, "file-1", 0, unit(0, 0)), "put file": put("vs_1", id, 0, unit(0, 0)),
			"trim store": x.Trim(t.Context(), s, id, "file-1", 0), "trim file": x.Trim(t.Context(), s, "vs_1", id, 0), "drop": x.DropStore(t.Context(), s, id),
			"search store": ask(with(func(q *vector.Query) { q.Stores = []vector.Store{{ID: id}} })),
			"search file":  ask(with(func(q *vector.Query) { q.Files = []string{id} })),
		} {
			if !fault.Is(err, fault.Invalid) {
				t.Errorf("%s with the id %q: %v", what, id, err)
			}
		}
	}
	for what, err := range map[string]error{
		"no number": put("vs_1", "file-1", 0, nan), "no direction": put("vs_1", "file-1", 0, zero), "too short": put("vs_1", "file-1", 0, zero[:3]),
		"chunk": put("vs_1", "file-1", -1, unit(0, 0)), "asked no direction": ask(with(func(q *vector.Query) { q.Vector = zero })),
		"asked too long": ask(with(func(q *vector.Query) { q.Vector = append(unit(0, 0), 1) })),
		"limit 0":        ask(with(func(q *vector.Query) { q.Limit = 0 })), "limit": ask(with(func(q *vector.Query) { q.Limit = vector.MaxHits + 1 })),
	} {
		if !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := ask(ok); err != nil {
		t.Error(err)
	}
}

func deadline(t *testing.T, open func(t *testing.T, h *Shelf) Opened) {
	h := NewShelf()
	x, s, sp := open(t, h), tenanttest.Scope(t, "a"), Space(Dim)
	h.Put(t, x, s, sp, "vs_1", "file-1", unit(0, 0))
	over, cancel := context.WithTimeout(t.Context(), 0)
	defer cancel()
	release := h.Hold()
	defer release()
	if _, err := x.Search(over, s, sp, vector.Query{Vector: unit(0, 0), Stores: h.Stores(s, "vs_1"), Limit: 1}); !fault.Is(err, fault.Timeout) {
		t.Errorf("a search that has no time: %v", err)
	}
}

// many: companies with the same vectors in stores of the same names, searched at
// the same time while others change.
func many(t *testing.T, open func(t *testing.T, h *Shelf) Opened) {
	const companies, chunks, rounds = 6, 30, 20
	h := NewShelf()
	x, sp := open(t, h), Space(Dim)
	w := tenanttest.New(t, tenant.Options{})
	var all []tenant.Scope
	for i := range companies {
		_, s := w.Company("same", tenant.KeyLive, nil)
		all = append(all, s)
		var vectors [][]float32
		for c := range chunks {
			vectors = append(vectors, unit(c, 0.1))
		}
		h.Put(t, x, s, sp, "vs_same", fmt.Sprint("file-of-", i), vectors...)
	}
	var group sync.WaitGroup
	for i, s := range all {
		group.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(i)))
			for range rounds {
				axis := r.IntN(Dim)
				hits, err := x.Search(t.Context(), s, sp, vector.Query{Vector: unit(axis, 0), Stores: h.Stores(s, "vs_same"), Limit: 5})
				if err != nil {
					t.Error(err)
					return
				}
				if len(hits) < 3 || slices.ContainsFunc(hits, func(h vector.Hit) bool { return h.File != fmt.Sprint("file-of-", i) }) {
					t.Errorf("company %d found %q", i, found(hits))
				}
			}
		})
	}
	group.Wait()
	noViolation(t, x)
}
