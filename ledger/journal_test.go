package ledger

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"bulkhead/tenant"
	"bulkhead/tenant/tenanttest"
)

// begin reserves and opens an attempt that holds 1000 nano-USD.
func begin(t testing.TB, l *Ledger, s tenant.Scope, id string) *Slot {
	t.Helper()
	slot, err := l.Reserve(s)
	if err != nil {
		t.Fatalf("%s: %s", id, err)
	}
	e := usual(id)
	e.Outcome, e.Rank, e.CostNano, e.LowNano, e.HighNano, e.EndedAt = "", 0, 0, 0, 1000, time.Time{}
	if err := slot.Open(e); err != nil {
		t.Fatalf("%s: %s", id, err)
	}
	return &slot
}

// crash ends a Ledger as the death of its process would.
func crash(l *Ledger) {
	l.cancel()
	<-l.done
	close(l.j.stop)
	<-l.j.done
	l.j.mu.Lock()
	defer l.j.mu.Unlock()
	l.j.closed = true
	for _, s := range l.j.segments {
		_ = s.f.Close()
	}
	_ = l.j.lock.Close()
}

// files returns the names in the journal but for the lock.
func files(t testing.TB, dir string) (names []string) {
	t.Helper()
	all, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		if f.Name() != lockName {
			names = append(names, f.Name())
		}
	}
	return names
}

func flush(t testing.TB, l *Ledger) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := l.Flush(ctx); err != nil {
		t.Fatal(err)
	}
}

// eventually polls ok until it holds.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

// awaitCarried waits for the keeper to have done its part for the active segment.
func awaitCarried(t testing.TB, l *Ledger) {
	t.Helper()
	eventually(t, "what is open is carried", func() bool {
		l.j.mu.Lock()
		defer l.j.mu.Unlock()
		return l.j.active != nil && l.j.active.carried
	})
}

// stored returns what the store has of an attempt.
func (f *fakeStore) stored(s tenant.Scope, id string) (Entry, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	e, ok := f.entries[s.ID()][id]
	return e, ok
}

// The store gets the same from the journal as from memory, and nothing is left
// where nothing is needed.
func TestJournalShips(t *testing.T) {
	f := func(memory int) {
		t.Helper()
		dir := filepath.Join(t.TempDir(), "new", "journal")
		acme, other := two(t)
		o := inJournal(dir, acme, other)
		o.Memory, o.Sync = memory, SyncOff
		told := map[string]tenant.ID{}
		o.Shipped = func(s tenant.Scope, ids []string) { // called by one goroutine
			for _, id := range ids {
				told[id] = s.ID()
			}
		}
		store := &fakeStore{}
		store.set(away, nil) // so that all wait at once
		l := open(t, store, o)
		for i := range 1000 {
			s := acme
			if i%3 == 0 {
				s = other
			}
			slot := begin(t, l, s, fmt.Sprint("att_", i))
			if i%10 == 9 {
				slot.Cancel()
				continue
			}
			slot.Record(usual(fmt.Sprint("att_", i)))
		}
		store.set(nil, nil)
		flush(t, l)
		for i := range 1000 {
			id, s := fmt.Sprint("att_", i), acme
			if i%3 == 0 {
				s = other
			}
			e, ok := store.stored(s, id)
			if ok != (i%10 != 9) || ok && (e != usual(id) || told[id] != s.ID()) {
				t.Fatalf("%s: stored %t, told of %s: %+v", id, ok, told[id], e)
			}
		}
		if st := l.Stats(); st.Segments != 1 || st.JournalBytes < 1000*200 || st.Lag != 0 || st.JournalErrors != 0 {
			t.Errorf("%+v", st)
		}
		closeNow(t, l)
		if left := files(t, dir); len(left) > 0 {
			t.Errorf("left: %q", left)
		}
		if st := l.Stats(); st.JournalBytes != 0 || st.Segments != 0 {
			t.Errorf("%+v", st)
		}
	}
	f(0) // the default
	f(1) // one in memory, one per company
	f(100)
}

func TestSlotOpen(t *testing.T) {
	s := tenanttest.Scope(t, "acme")
	panics := func(what string, f func()) {
		t.Helper()
		defer func() {
			if recover() == nil {
				t.Errorf("%s does not panic", what)
			}
		}()
		f()
	}
	f := func(o Options) {
		t.Helper()
		l := open(t, &fakeStore{}, o)
		var zero Slot
		panics("an attempt without a place", func() { _ = zero.Open(usual("a")) })
		slot := begin(t, l, s, "a")
		panics("a second opening", func() { _ = slot.Open(usual("a")) })
		panics("another entry", func() { slot.Record(usual("b")) })
		slot.Record(usual("a"))
		panics("an attempt that has ended", func() { _ = slot.Open(usual("a")) })
		slot.Cancel()
		closeNow(t, l)
	}
	f(Options{})
	f(inJournal(t.TempDir(), s))
}

func TestParseSync(t *testing.T) {
	f := func(text string, want Sync, ok bool) {
		t.Helper()
		if got, err := ParseSync(text); got != want || (err == nil) != ok {
			t.Errorf("%q: %d, %v", text, got, err)
		}
	}
	f("always", SyncAlways, true)
	f("off", SyncOff, true)
	f("10ms", SyncDefault, true)
	f("1m", Sync(time.Minute), true)
	f("", 0, false)
	f("1us", 0, false)
	f("2m", 0, false)
	f("-1s", 0, false)
	f("Always", 0, false)
}

// The record of each kind says what it should: the form is on people's disks.
func TestGoldenSegment(t *testing.T) {
	dir := t.TempDir()
	s := tenanttest.Scope(t, "acme")
	o := inJournal(dir, s)
	o.Sync = SyncOff
	l := open(t, &fakeStore{}, o)
	awaitCarried(t, l)
	begin(t, l, s, "a").Record(usual("a"))
	flush(t, l)
	begin(t, l, s, "b").Cancel()
	crash(l)
	data, err := os.ReadFile(filepath.Join(dir, files(t, dir)[0]))
	if err != nil {
		t.Fatal(err)
	}
	seed, err := readHeader(data, 1)
	if err != nil {
		t.Fatal(err)
	}
	var kinds []kind
	end, holes, err := readRecords(data, seed, func(k kind, payload []byte, at int) error {
		kinds = append(kinds, k)
		return nil
	})
	if err != nil || len(holes) > 0 {
		t.Errorf("ends at %d of %d, %v, %v", end, len(data), holes, err)
	}
	withoutRoom(t, data, end)
	if want := []kind{kindCarried, kindOpen, kindClose, kindDone, kindOpen, kindVoid}; !slices.Equal(kinds, want) {
		t.Errorf("%v, want %v", kinds, want)
	}
}
