package vector_test

import (
	"errors"
	"fmt"
	"testing"

	"bulkhead/tenant"
	"bulkhead/tenant/tenanttest"
	"bulkhead/vector"
	"bulkhead/vector/vectortest"
)

func TestLocal(t *testing.T) {
	vectortest.Run(t, func(t *testing.T, h *vectortest.Shelf) vectortest.Opened {
		return vectortest.Opened{Index: vector.NewLocal(h, vector.LocalOptions{})}
	})
}

// axis returns a vector of dim numbers along one axis.
func axis(dim, i int) []float32 {
	v := make([]float32, dim)
	v[i%dim] = 1
	return v
}

func find(t *testing.T, x vector.Index, s tenant.Scope, sp vector.Space, stores []vector.Store) []vector.Hit {
	t.Helper()
	hits, err := x.Search(t.Context(), s, sp, vector.Query{Vector: axis(sp.Dim, 0), Stores: stores, Limit: 100})
	if err != nil {
		t.Fatal(err)
	}
	return hits
}

// Only what changed is read again.
func TestLocalReadsWhatChanged(t *testing.T) {
	h := vectortest.NewShelf()
	x, s, sp := vector.NewLocal(h, vector.LocalOptions{}), tenanttest.Scope(t, "a"), vectortest.Space(4)
	for i := range 5 {
		h.Put(t, x, s, sp, "vs_1", fmt.Sprint("file-", i), axis(4, i))
	}
	reads := func(want, hits int) {
		t.Helper()
		before := h.Reads()
		if got := len(find(t, x, s, sp, h.Stores(s, "vs_1"))); got != hits {
			t.Fatalf("found %d, want %d", got, hits)
		}
		if got := h.Reads() - before; got != want {
			t.Fatalf("%d files were read, want %d", got, want)
		}
	}
	reads(5, 5)
	reads(0, 5)
	h.Put(t, x, s, sp, "vs_1", "file-5", axis(4, 0))
	reads(1, 6)
	h.Put(t, x, s, sp, "vs_1", "file-0", axis(4, 0), axis(4, 1))
	reads(1, 7)
	h.Delete(t, x, s, "vs_1", "file-1")
	reads(0, 6)
}

// Memory has a bound for all and one for each company: one that searches much
// pushes its own stores out, and not another's.
func TestLocalBytes(t *testing.T) {
	const dim, chunks = 64, 100 // some 26 kB a store
	h := vectortest.NewShelf()
	x := vector.NewLocal(h, vector.LocalOptions{Bytes: 160_000, CompanyBytes: 60_000})
	sp := vectortest.Space(dim)
	w := tenanttest.New(t, tenant.Options{})
	_, quiet := w.Company("quiet", tenant.KeyLive, nil)
	_, loud := w.Company("loud", tenant.KeyLive, nil)
	fill := func(s tenant.Scope, store string, n int) {
		var all [][]float32
		for i := range n {
			all = append(all, axis(dim, i))
		}
		h.Put(t, x, s, sp, store, "file-1", all...)
	}
	fill(quiet, "vs_1", chunks)
	find(t, x, quiet, sp, h.Stores(quiet, "vs_1"))
	for i := range 10 {
		store := fmt.Sprint("vs_", i)
		fill(loud, store, chunks)
		find(t, x, loud, sp, h.Stores(loud, store))
		if x.Bytes() > 90_000 {
			t.Fatalf("%d bytes in memory", x.Bytes())
		}
	}
	before := h.Reads()
	find(t, x, quiet, sp, h.Stores(quiet, "vs_1"))
	if h.Reads() != before {
		t.Error("one company pushed another's vectors out")
	}
	// What is larger than the share is searched all the same, and does not stay.
	fill(quiet, "vs_large", 4*chunks)
	was := x.Bytes()
	if got := len(find(t, x, quiet, sp, h.Stores(quiet, "vs_large"))); got != 100 {
		t.Errorf("found %d", got)
	}
	if x.Bytes() != was {
		t.Errorf("it stayed: %d bytes, %d before", x.Bytes(), was)
	}
	// All together have a bound too.
	for i := range 10 {
		_, s := w.Company(fmt.Sprint("c", i), tenant.KeyLive, nil)
		fill(s, "vs_1", chunks)
		find(t, x, s, sp, h.Stores(s, "vs_1"))
		if x.Bytes() > 160_000 {
			t.Fatalf("%d bytes in memory", x.Bytes())
		}
	}
	if _, err := x.Erase(t.Context(), loud); err != nil {
		t.Fatal(err)
	}
}

// A read that fails fails the search, and the next one reads again.
func TestLocalSourceFails(t *testing.T) {
	h := vectortest.NewShelf()
	x, s, sp := vector.NewLocal(h, vector.LocalOptions{}), tenanttest.Scope(t, "a"), vectortest.Space(4)
	h.Put(t, x, s, sp, "vs_1", "file-1", axis(4, 0))
	broken := errors.New("the store is away")
	h.Fail(broken)
	if _, err := x.Search(t.Context(), s, sp, vector.Query{Vector: axis(4, 0), Stores: h.Stores(s, "vs_1"), Limit: 1}); !errors.Is(err, broken) {
		t.Fatalf("got %v", err)
	}
	h.Fail(nil)
	if len(find(t, x, s, sp, h.Stores(s, "vs_1"))) != 1 {
		t.Fatal("nothing is found after the store is back")
	}
}
