package rag

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"bulkhead/fault"
	"bulkhead/tenant"
	"bulkhead/vector"
)

func texts(all []Passage) (out []string) {
	for _, p := range all {
		out = append(out, p.Text)
	}
	return out
}

func TestFuse(t *testing.T) {
	ref := func(n int) Ref { return Ref{"vs_1", "file-1", n} }
	a := []match{{ref(1), 0.9}, {ref(2), 0.5}, {ref(3), 0.1}}
	b := []match{{ref(2), 0.8}, {ref(4), 0.7}}
	got := fuse([][]match{a, b}, 0)
	// 2 stands in both; 1 is first in one; 4 second in one; 3 third.
	want := []int{2, 1, 4, 3}
	for i, m := range got {
		if m.Index != want[i] || i > 0 && m.score > got[i-1].score {
			t.Fatalf("got %v, want the order %v and falling scores", got, want)
		}
	}
	if got[0].score != 0.8 { // the better of the two
		t.Errorf("score %v", got[0].score)
	}
	if got := fuse([][]match{a, b}, 0.6); len(got) != 3 {
		t.Errorf("above 0.6: %v", got)
	}
}

func TestRetrieve(t *testing.T) {
	w := newLibrary(t)
	a, b := w.scope("a"), w.scope("b")
	w.putWith(a, "vs_1", "file-1", Attributes{"category": "sales"}, "Refunds are paid within seven days of the return.", "Our office dog is called Rex.")
	w.putWith(a, "vs_1", "file-2", Attributes{"category": "people"}, "Holiday requests go to your manager four weeks ahead.")
	w.put(a, "vs_2", "file-3", "Refunds of travel costs need a receipt.")
	w.put(b, "vs_1", "file-1", "Refunds are never paid.")
	r := NewRetriever(w.options())
	f := func(s tenant.Scope, q Query, want ...string) {
		t.Helper()
		q.TopK = 5
		found, err := r.Search(t.Context(), s, q)
		if err != nil {
			t.Fatal(err)
		}
		if got := texts(found); !slices.Equal(got, want) {
			t.Errorf("found %q, want %q", got, want)
		}
	}
	refund := []string{"When are refunds paid?"}
	f(a, Query{Text: refund, Stores: w.stores(a, "vs_1"), MinScore: 0.2}, "Refunds are paid within seven days of the return.")
	f(b, Query{Text: refund, Stores: w.stores(b, "vs_1"), MinScore: 0.2}, "Refunds are never paid.")
	f(a, Query{Text: refund, Stores: w.stores(a, "vs_1"), MinScore: 0.2, Keyword: true}, "Refunds are paid within seven days of the return.")
	f(a, Query{Text: refund, Stores: w.stores(a, "vs_1"), MinScore: 0.2, Filter: &Filter{Type: "eq", Key: "category", Value: "people"}})
	f(a, Query{Text: []string{"holiday"}, Stores: w.stores(a, "vs_1"), MinScore: 0.2, Filter: &Filter{Type: "eq", Key: "category", Value: "people"}},
		"Holiday requests go to your manager four weeks ahead.")
	f(a, Query{Text: refund, MinScore: 0.2})
	f(a, Query{Text: []string{" ", ""}, Stores: w.stores(a, "vs_1")})
	f(a, Query{Text: refund, Stores: w.stores(a, "vs_1"), MinScore: 1})
	// Two ways to ask, and two stores.
	found, err := r.Search(t.Context(), a, Query{Text: []string{"refunds", "receipt for travel"}, Stores: w.stores(a, "vs_1", "vs_2"), TopK: 2})
	if err != nil || len(found) != 2 || !slices.ContainsFunc(found, func(p Passage) bool { return p.StoreID == "vs_2" }) {
		t.Errorf("%q, %v", texts(found), err)
	}
	if !slices.Contains(w.touched, "vs_2") {
		t.Error("it is not noted that a store was searched")
	}
	// A file that is deleted, changed, given another category is so at once.
	w.remove(a, "vs_1", "file-1")
	f(a, Query{Text: refund, Stores: w.stores(a, "vs_1"), MinScore: 0.2})
	w.putWith(a, "vs_1", "file-2", Attributes{"category": "people"}, "Refunds are a matter for Ann.")
	f(a, Query{Text: refund, Stores: w.stores(a, "vs_1"), MinScore: 0.2}, "Refunds are a matter for Ann.")
	w.mu.Lock()
	w.files[libraryKey(a, "vs_1")]["file-2"].attributes = Attributes{"category": "money"}
	w.mu.Unlock()
	f(a, Query{Text: refund, Stores: w.stores(a, "vs_1"), MinScore: 0.2, Filter: &Filter{Type: "eq", Key: "category", Value: "people"}})
}

// A vector in the company's part of the index that names what the company does not
// have yields nothing, and is counted; a file on its way in is no violation.
func TestRetrieveForeignVector(t *testing.T) {
	w := newLibrary(t)
	a, b := w.scope("a"), w.scope("b")
	w.put(a, "vs_1", "file-1", "Refunds are paid within seven days.")
	w.put(b, "vs_1", "file-b", "The secret of the other company.")
	r := NewRetriever(RetrieveOptions{Library: w, Segments: w, Embedder: w.embed, Tracked: w.tracked, Violation: func() { w.foreign.Add(1) },
		Index: planted{w.index, vector.Ref{Store: "vs_1", File: "file-b"}}})
	found, err := r.Search(t.Context(), a, Query{Text: []string{"refunds"}, Stores: w.stores(a, "vs_1"), TopK: 5})
	if err != nil || !slices.Equal(texts(found), []string{"Refunds are paid within seven days."}) {
		t.Errorf("%q, %v", texts(found), err)
	}
	if n := w.foreign.Load(); n != 1 {
		t.Errorf("%d violations counted", n)
	}
	// A chunk that the file has no more, or not yet.
	r.o.Index = planted{w.index, vector.Ref{Store: "vs_1", File: "file-1", Chunk: 7}}
	if _, err := r.Search(t.Context(), a, Query{Text: []string{"refunds"}, Stores: w.stores(a, "vs_1"), TopK: 5}); err != nil || w.foreign.Load() != 1 {
		t.Errorf("%d violations, %v", w.foreign.Load(), err)
	}
}

// planted is an index that finds one vector too many.
type planted struct {
	vector.Index
	ref vector.Ref
}

func (x planted) Search(ctx context.Context, s tenant.Scope, sp vector.Space, q vector.Query) ([]vector.Hit, error) {
	hits, err := x.Index.Search(ctx, s, sp, q)
	return append([]vector.Hit{{Ref: x.ref, Score: 1}}, hits...), err
}

// slow is an index that does not answer before its search is given up.
type slow struct{ vector.Index }

func (slow) Search(ctx context.Context, _ tenant.Scope, _ vector.Space, _ vector.Query) ([]vector.Hit, error) {
	<-ctx.Done()
	return nil, fault.Wrap(fault.Timeout, ctx.Err(), "slow")
}

// Past the deadline there is what came in time, and the reason why not all did.
func TestRetrieveDeadline(t *testing.T) {
	w := newLibrary(t)
	a := w.scope("a")
	w.put(a, "vs_1", "file-1", "Refunds are paid within seven days.")
	o := w.options()
	o.Index, o.Deadline = slow{w.index}, 20*time.Millisecond
	begun := time.Now()
	found, err := NewRetriever(o).Find(t.Context(), a, Query{Text: []string{"refunds paid"}, Stores: w.stores(a, "vs_1"), TopK: 5})
	if err != nil || len(found.Passages) != 1 || !fault.Is(found.Missing, fault.Timeout) {
		t.Errorf("%q, missing %v, %v", texts(found.Passages), found.Missing, err)
	}
	if took := time.Since(begun); took > 2*time.Second {
		t.Errorf("it took %s", took)
	}
	o.SearchDeadline = o.Deadline
	if _, err := NewRetriever(o).Search(t.Context(), a, Query{Text: []string{"refunds paid"}, Stores: w.stores(a, "vs_1"), TopK: 5}); !fault.Is(err, fault.Timeout) {
		t.Errorf("a search that is not whole: %v", err)
	}
}

// counted is an embedder that counts, and may fail.
type counted struct {
	Lexical
	id    string
	calls int
	err   error
}

func (c *counted) ID(tenant.Scope) string { return c.id }

func (c *counted) Embed(ctx context.Context, s tenant.Scope, texts []string) ([][]float32, string, error) {
	c.calls++
	v, _, err := c.Lexical.Embed(ctx, s, texts)
	return v, c.id, errors.Join(err, c.err)
}

// A question is embedded once for a company, and for each company. Where the
// embedder fails, words are searched.
func TestRetrieveEmbedsOnce(t *testing.T) {
	w := newLibrary(t)
	e := &counted{id: "a model"}
	w.embed = e
	a, b := w.scope("a"), w.scope("b")
	for _, s := range []tenant.Scope{a, b} {
		w.put(s, "vs_1", "file-1", "Refunds are paid within seven days.")
	}
	e.calls = 0
	r := NewRetriever(w.options())
	ask := func(s tenant.Scope, text string) Found {
		t.Helper()
		found, err := r.Find(t.Context(), s, Query{Text: []string{text}, Stores: w.stores(s, "vs_1"), TopK: 5})
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	for range 3 {
		ask(a, "refunds")
		ask(b, "refunds")
	}
	if e.calls != 2 {
		t.Errorf("embedded %d times", e.calls)
	}
	e.err = errors.New("no embeddings today")
	if found := ask(a, "refunds paid"); len(found.Passages) != 1 || found.Missing == nil {
		t.Errorf("%+v", found)
	}
	e.err = nil
	// A company whose embedder is another one now is searched by words until its
	// stores are embedded anew, which is asked for.
	e.id, e.calls = "another model", 0
	if found := ask(a, "refunds paid"); len(found.Passages) != 1 || found.Missing != nil || e.calls != 0 || w.stale.Load() == 0 {
		t.Errorf("%+v, embedded %d times, asked %d times", found, e.calls, w.stale.Load())
	}
}

// A turn keeps its passages while it lasts, but for what is deleted; the next turn
// looks again.
func TestTurn(t *testing.T) {
	w := newLibrary(t)
	a, b := w.scope("a"), w.scope("b")
	w.put(a, "vs_1", "file-1", "Refunds are paid within seven days.")
	w.put(b, "vs_1", "file-1", "Refunds of b.")
	r := NewRetriever(w.options())
	turn := func(s tenant.Scope, key string, again bool) string {
		t.Helper()
		found, err := r.Turn(t.Context(), s, key, again, nil, Query{Text: []string{"refunds"}, TopK: 5})
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(texts(found.Passages), "|")
	}
	f := func(got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	f(turn(a, "t1", false), "Refunds are paid within seven days.")
	w.put(a, "vs_1", "file-0", "Refunds, refunds, refunds.")
	f(turn(a, "t1", true), "Refunds are paid within seven days.")
	f(turn(b, "t1", true), "Refunds of b.")
	f(turn(a, "t2", true), "Refunds, refunds, refunds.|Refunds are paid within seven days.")
	f(turn(a, "t1", false), "Refunds, refunds, refunds.|Refunds are paid within seven days.")
	w.remove(a, "vs_1", "file-0")
	f(turn(a, "t1", true), "Refunds are paid within seven days.")
}

// The operator's knowledge is what its company has shared, and nothing else.
func TestMaster(t *testing.T) {
	w := newLibrary(t)
	m, a := w.scope("master"), w.scope("a")
	w.put(m, "vs_open", "file-1", "Refunds are law.")
	w.put(m, "vs_closed", "file-2", "Refunds are our secret.")
	w.shared[libraryKey(m, "vs_open")] = true
	found, err := NewRetriever(w.options()).Master(t.Context(), m, a, Query{Text: []string{"refunds"}, TopK: 5})
	if err != nil || !slices.Equal(texts(found.Passages), []string{"Refunds are law."}) {
		t.Errorf("%q, %v", texts(found.Passages), err)
	}
}
