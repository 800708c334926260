package ledger

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"bulkhead/fault"
	"bulkhead/tenant"
	"bulkhead/tenant/tenanttest"
)

// inFolder is a bubble with a journal of small segments.
func inFolder(t *testing.T, f func(t *testing.T, o Options, store *fakeStore, acme, other tenant.Scope)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		acme, other := two(t)
		o := inJournal(t.TempDir(), acme, other)
		o.Sync, o.SegmentBytes = SyncOff, 16<<10
		f(t, o, &fakeStore{}, acme, other)
	})
}

// makeCalls makes attempts from first on until there is no room, at most n, and
// returns how many there were.
func makeCalls(t *testing.T, l *Ledger, s tenant.Scope, name string, n int) int {
	t.Helper()
	for i := range n {
		slot, err := l.Reserve(s)
		if err != nil {
			if !fault.Is(err, fault.Unavailable) {
				t.Fatal(err)
			}
			return i
		}
		id := fmt.Sprint(name, i)
		if err := slot.Open(usual(id)); err != nil {
			t.Fatal(err)
		}
		slot.Record(usual(id))
		if i%20 == 0 {
			synctest.Wait() // the keeper begins segments
		}
	}
	return n
}

// With the store away a company has its part of the journal, and all of them
// together the journal; when the store is back there is room again.
func TestJournalFull(t *testing.T) {
	inFolder(t, func(t *testing.T, o Options, store *fakeStore, acme, other tenant.Scope) {
		o.JournalBytes, o.CompanyJournalBytes = 512<<10, 64<<10
		o.Memory = 10 // the rest is on the disk
		store.set(away, nil)
		l := open(t, store, o)
		n := makeCalls(t, l, acme, "a", 5000)
		if n < 64<<10/300 || n > 64<<10/200 {
			t.Errorf("%d entries in 64 KiB", n)
		}
		m := makeCalls(t, l, other, "o", 5000)
		if m < n-5 || m > n+5 {
			t.Errorf("%d of one and %d of the other", n, m)
		}
		all := n + m
		for i := 0; i < 50; i++ {
			s := tenanttest.Scope(t, "more")
			if n = makeCalls(t, l, s, fmt.Sprint("more", i, "_"), 100); n == 0 {
				break
			}
			all += n
		}
		st := l.Stats()
		if n != 0 || st.JournalBytes < 512<<10 || st.JournalBytes > 520<<10 || st.Queued != all || st.Refused < 3 || st.Segments < 20 {
			t.Errorf("%d more, %+v", n, st)
		}
		if l.q.kept > 10 || l.q.places != 0 {
			t.Errorf("%d entries in memory, %d places", l.q.kept, l.q.places)
		}
		store.set(nil, nil)
		pass(10 * time.Second)
		st = l.Stats()
		if st.Queued != 0 || st.Shipped != int64(all) || st.JournalBytes > 2*16<<10 || st.Segments > 2 || st.Unreadable != 0 {
			t.Errorf("%+v", st)
		}
		if n := makeCalls(t, l, acme, "again", 10); n != 10 {
			t.Errorf("%d attempts when the store is back", n)
		}
		closeNow(t, l)
	})
}

// What runs when the journal is full is still recorded.
func TestJournalFullWhileRunning(t *testing.T) {
	inFolder(t, func(t *testing.T, o Options, store *fakeStore, acme, other tenant.Scope) {
		o.JournalBytes, o.CompanyJournalBytes = 64<<10, 1<<30
		store.set(away, nil)
		l := open(t, store, o)
		running := begin(t, l, other, "running")
		if n := makeCalls(t, l, acme, "a", 5000); n == 5000 {
			t.Error("the journal is never full")
		}
		running.Record(usual("running"))
		crash(l)
		store.set(nil, nil)
		l = open(t, store, o)
		flush(t, l)
		if e, _ := store.stored(other, "running"); e.Outcome != Answered {
			t.Errorf("%+v", e)
		}
		closeNow(t, l)
	})
}

// From the disk, too, a company with many entries does not keep another's
// waiting.
func TestInTurnFromDisk(t *testing.T) {
	inFolder(t, func(t *testing.T, o Options, store *fakeStore, acme, other tenant.Scope) {
		o.Memory, o.CompanyMemory = 2, 1
		store.set(away, nil)
		l := open(t, store, o)
		makeCalls(t, l, acme, "a", 3000)
		makeCalls(t, l, other, "o", 300)
		pass(time.Second)
		store.set(nil, nil)
		pass(10 * time.Second)
		first := map[tenant.ID]int{}
		for _, b := range store.batches[1] { // the one before had those in memory
			first[b.Scope.ID()]++
		}
		if first[acme.ID()] != 256 || first[other.ID()] != 256 {
			t.Errorf("%v", first)
		}
		// In order, each of them.
		next := map[tenant.ID]int{}
		for _, batch := range store.batches {
			for _, b := range batch {
				name := "a"
				if b.Scope.ID() == other.ID() {
					name = "o"
				}
				if want := fmt.Sprint(name, next[b.Scope.ID()]); b.Entry != usual(want) {
					t.Fatalf("%s, want %s", b.Entry.ID, want)
				}
				next[b.Scope.ID()]++
			}
		}
		if next[acme.ID()] != 3000 || next[other.ID()] != 300 {
			t.Errorf("%v", next)
		}
		closeNow(t, l)
	})
}

// A stream that runs for long does not keep the segments of its time.
func TestLongOpens(t *testing.T) {
	inFolder(t, func(t *testing.T, o Options, store *fakeStore, acme, other tenant.Scope) {
		l := open(t, store, o)
		var long []*Slot
		for i := range 40 {
			long = append(long, begin(t, l, other, fmt.Sprint("long", i)))
		}
		for i := range 50 {
			makeCalls(t, l, acme, fmt.Sprint("a", i, "_"), 100)
			pass(time.Second)
			if st := l.Stats(); st.Segments > 3 || st.JournalBytes > 200<<10 {
				t.Fatalf("round %d: %+v", i, st)
			}
		}
		last := l.j.last
		if last < 20 {
			t.Errorf("%d segments were begun", last)
		}
		for _, slot := range long[:20] {
			slot.Record(usual(slot.id))
		}
		long[20].Cancel()
		crash(l)
		l = open(t, store, o)
		if r := l.Recovered(); r.Closed != 20 || r.Swept != 19 {
			t.Errorf("%+v", r)
		}
		flush(t, l)
		for i := range 40 {
			e, ok := store.stored(other, fmt.Sprint("long", i))
			if ok != (i != 20) || ok && (e.Outcome == Swept) != (i > 20) {
				t.Errorf("long%d: %t %q", i, ok, e.Outcome)
			}
		}
		if n, _, doubles := store.count(acme); n != 5000 || doubles != 0 {
			t.Errorf("%d stored, %d twice", n, doubles)
		}
		closeNow(t, l)
	})
}

// Entries of one company that the store refuses do not fill the journal for the
// others, and are stored when it takes them; also by the next process.
func TestOneCompanyRefusedForLong(t *testing.T) {
	inFolder(t, func(t *testing.T, o Options, store *fakeStore, acme, other tenant.Scope) {
		o.JournalBytes, o.CompanyJournalBytes = 256<<10, 32<<10
		store.set(refuses(acme), nil)
		l := open(t, store, o)
		for i := range 100 {
			makeCalls(t, l, acme, fmt.Sprint("a", i, "_"), 1)
			if n := makeCalls(t, l, other, fmt.Sprint("o", i, "_"), 100); n != 100 {
				t.Fatalf("round %d: %d attempts of the other company, %+v", i, n, l.Stats())
			}
			pass(time.Second)
		}
		st := l.Stats()
		if st.Queued != 100 || st.Shipped != 10_000 || st.Segments > 7 {
			t.Errorf("%+v", st)
		}
		// Until it has its part, and the others still theirs.
		if n := makeCalls(t, l, acme, "b", 1000); n > 100 {
			t.Errorf("%d more", n)
		}
		if n := makeCalls(t, l, other, "p", 100); n != 100 {
			t.Errorf("%d", n)
		}
		pass(time.Minute)
		queued := l.Stats().Queued
		crash(l)
		l = open(t, store, o)
		// What said that some are in the store may have gone before them.
		if r := l.Recovered(); r.Closed < queued || r.Swept != 0 {
			t.Errorf("%+v, want %d", r, queued)
		}
		pass(time.Minute)
		store.set(nil, nil)
		pass(10 * time.Second)
		if n, _, _ := store.count(acme); n != queued {
			t.Errorf("%d stored, want %d", n, queued)
		}
		if n, _, _ := store.count(other); n != 10_100 {
			t.Errorf("%d of the other stored", n)
		}
		closeNow(t, l)
	})
}

// Many at once on small segments, with a store that comes and goes: what was
// recorded is stored, each once, under its own company.
func TestJournalConcurrent(t *testing.T) {
	acme, other := two(t)
	o := inJournal(t.TempDir(), acme, other)
	o.Every, o.Batch, o.MaxBackoff = time.Millisecond, 16, time.Millisecond
	o.SegmentBytes, o.Memory = 4096, 8
	o.Sync = Sync(time.Millisecond)
	var mu sync.Mutex
	told := map[string]int{}
	o.Shipped = func(_ tenant.Scope, ids []string) {
		mu.Lock()
		defer mu.Unlock()
		for _, id := range ids {
			told[id]++
		}
	}
	store := &fakeStore{}
	tries := 0
	store.set(func(context.Context, []Booked) error { // called by one goroutine
		if tries++; tries%3 == 0 {
			return errAway
		}
		return nil
	}, nil)
	l := open(t, store, o)
	var wg sync.WaitGroup
	for g := range 20 {
		wg.Go(func() {
			s := acme
			if g%2 == 1 {
				s = other
			}
			for i := range 100 {
				id := fmt.Sprint(g, "_", i)
				slot, err := l.Reserve(s)
				if err == nil {
					err = slot.Open(usual(id))
				}
				if err != nil {
					t.Error(err)
					return
				}
				if i%10 == 0 {
					slot.Cancel()
				} else {
					slot.Record(usual(id))
				}
				l.Stats()
			}
		})
	}
	wg.Wait()
	closeNow(t, l)
	for _, s := range []tenant.Scope{acme, other} {
		if n, _, doubles := store.count(s); n != 900 || doubles != 0 {
			t.Errorf("%d stored, %d twice", n, doubles)
		}
	}
	for id, n := range told {
		if n != 1 {
			t.Errorf("%s was told %d times", id, n)
		}
	}
	if left := files(t, o.Journal); len(told) != 1800 || len(left) > 0 {
		t.Errorf("told of %d; left: %q", len(told), left)
	}
}

// A store that is away for long costs little memory.
func TestMemoryBound(t *testing.T) {
	inFolder(t, func(t *testing.T, o Options, store *fakeStore, acme, other tenant.Scope) {
		o.Memory, o.CompanyMemory, o.SegmentBytes = 100, 60, 1<<20
		store.set(hangs, nil)
		l := open(t, store, o)
		makeCalls(t, l, acme, "a", 2000)
		if in := l.q.lines[acme.ID().String()]; len(in.inMemory()) != 60 || len(in.disk) != 1940 {
			t.Errorf("%d in memory, %d not", len(in.inMemory()), len(in.disk))
		}
		makeCalls(t, l, other, "o", 2000)
		if in := l.q.lines[other.ID().String()]; len(in.inMemory()) != 40 || len(in.disk) != 1960 {
			t.Errorf("%d in memory, %d not", len(in.inMemory()), len(in.disk))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := l.Flush(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		store.set(nil, nil)
		flush(t, l)
		if n, _, doubles := store.count(acme); n != 2000 || doubles != 0 {
			t.Errorf("%d stored, %d twice", n, doubles)
		}
		if l.q.kept != 0 {
			t.Errorf("%d entries in memory", l.q.kept)
		}
		closeNow(t, l)
	})
}
