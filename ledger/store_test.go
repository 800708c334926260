package ledger

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"bulkhead/tenant"
	"bulkhead/tenant/tenanttest"
)

var errAway = errors.New("the store is away")

// fakeStore keeps entries in memory by the rules of Store.
type fakeStore struct {
	mu      sync.Mutex
	before  func(ctx context.Context, batch []Booked) error // refuses or waits; nil does neither
	after   func() error                                    // loses the answer of what was stored
	tries   int
	batches [][]Booked // stored, in order
	entries map[tenant.ID]map[string]Entry
	doubles int
}

func (f *fakeStore) AppendEntries(ctx context.Context, batch []Booked) error {
	f.mu.Lock()
	f.tries++
	before, after := f.before, f.after
	f.mu.Unlock()
	if before != nil {
		if err := before(ctx, batch); err != nil {
			return err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.entries == nil {
		f.entries = map[tenant.ID]map[string]Entry{}
	}
	for _, b := range batch {
		id := b.Scope.ID()
		if f.entries[id] == nil {
			f.entries[id] = map[string]Entry{}
		}
		old, there := f.entries[id][b.Entry.ID]
		if there {
			f.doubles++
		}
		if !there || old.Rank < b.Entry.Rank {
			f.entries[id][b.Entry.ID] = b.Entry
		}
	}
	f.batches = append(f.batches, append([]Booked(nil), batch...))
	if after != nil {
		return after()
	}
	return nil
}

func (f *fakeStore) set(before func(context.Context, []Booked) error, after func() error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.before, f.after = before, after
}

// count returns how many entries of the company are stored, and how many tries
// and doubles there were in all.
func (f *fakeStore) count(s tenant.Scope) (n, tries, doubles int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.entries[s.ID()]), f.tries, f.doubles
}

// away is a store that answers with an error.
func away(context.Context, []Booked) error { return errAway }

// hangs is a store that does not answer.
func hangs(ctx context.Context, _ []Booked) error {
	<-ctx.Done()
	return ctx.Err()
}

// refuses is a store that will not take entries of one company.
func refuses(s tenant.Scope) func(context.Context, []Booked) error {
	return func(_ context.Context, batch []Booked) error {
		for _, b := range batch {
			if b.Scope.ID() == s.ID() {
				return errors.New("no such company")
			}
		}
		return nil
	}
}

// record books n entries with ids from first on.
func record(t *testing.T, l *Ledger, s tenant.Scope, first, n int) {
	t.Helper()
	for i := range n {
		slot, err := l.Reserve(s)
		if err != nil {
			t.Fatalf("entry %d: %s", first+i, err)
		}
		slot.Record(Entry{ID: fmt.Sprint("att_", first+i), Rank: Final, CostNano: 1})
	}
}

func closeNow(t *testing.T, l *Ledger) {
	t.Helper()
	if err := l.Close(t.Context()); err != nil {
		t.Error(err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if q := &l.q; q.places != 0 || q.waiting != 0 || q.inRing != 0 || len(q.lines)+len(q.ring)+len(q.suspect) != 0 {
		t.Errorf("after Close: %+v", *q)
	}
}

func two(t *testing.T) (acme, other tenant.Scope) {
	t.Helper()
	return tenanttest.Scope(t, "acme"), tenanttest.Scope(t, "ACME")
}

// open returns a Ledger that must open.
func open(t testing.TB, store Store, o Options) *Ledger {
	t.Helper()
	l, err := Open(t.Context(), store, o)
	if err != nil {
		t.Fatal(err)
	}
	return l
}
