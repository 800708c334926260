package ledger

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"bulkhead/fault"
	"bulkhead/tenant"
	"bulkhead/tenant/tenanttest"
)

// What a process that died had recorded is shipped by the next, what it had open
// is swept, and nothing else; however many die before the store is there.
func TestReplay(t *testing.T) {
	dir := t.TempDir()
	acme, other := two(t)
	store := &fakeStore{}
	o := inJournal(dir, acme, other)
	o.Sync = SyncOff
	l := open(t, store, o)
	begin(t, l, acme, "shipped").Record(usual("shipped"))
	flush(t, l)
	store.set(away, nil)
	begin(t, l, acme, "closed").Record(usual("closed"))
	slot, err := l.Reserve(other) // never opened, and recorded all the same
	if err != nil {
		t.Fatal(err)
	}
	slot.Record(usual("direct"))
	begin(t, l, acme, "open")
	begin(t, l, other, "other's")
	begin(t, l, acme, "cancelled").Cancel()
	if _, err := l.Reserve(acme); err != nil { // reserved, nothing sent
		t.Fatal(err)
	}
	crash(l)
	died := time.Now()

	for i := range 3 {
		l = open(t, store, o)
		r := l.Recovered()
		closed, swept := 2, 2
		if i > 0 {
			closed, swept = 4, 0 // the first wrote them down
		}
		if r.Closed != closed || r.Swept != swept || r.CutBytes != 0 || len(r.Damage)+len(r.Aside) != 0 || r.Alive.Sub(died).Abs() > time.Minute {
			t.Fatalf("start %d: %+v", i, r)
		}
		if st := l.Stats(); st.Queued != 4 || st.Recovered != 4 || st.Unwritten != 0 {
			t.Fatalf("start %d: %+v", i, st)
		}
		crash(l)
	}

	store.set(nil, nil)
	l = open(t, store, o)
	flush(t, l)
	if n, _, doubles := store.count(acme); n != 3 || doubles != 0 {
		t.Errorf("%d stored, %d twice", n, doubles)
	}
	if n, _, _ := store.count(other); n != 2 {
		t.Errorf("%d stored of the other", n)
	}
	for id, s := range map[string]tenant.Scope{"shipped": acme, "closed": acme, "direct": other} {
		if e, ok := store.stored(s, id); !ok || e != usual(id) {
			t.Errorf("%s: %t %+v", id, ok, e)
		}
	}
	for id, s := range map[string]tenant.Scope{"open": acme, "other's": other} {
		want := usual(id)
		want.Outcome, want.Rank, want.CostNano, want.LowNano, want.HighNano = Swept, ByLease, 1000, 0, 1000
		e, ok := store.stored(s, id)
		if d := e.EndedAt.Sub(died).Abs(); d > time.Minute {
			t.Errorf("%s ended %s away from the death of its process", id, d)
		}
		want.EndedAt = e.EndedAt
		if !ok || e != want {
			t.Errorf("%s: %t %+v", id, ok, e)
		}
	}
	closeNow(t, l)
	if left := files(t, dir); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
	// All of it is over.
	l = open(t, store, o)
	if r := l.Recovered(); r.Closed != 0 || r.Swept != 0 {
		t.Errorf("%+v", r)
	}
	closeNow(t, l)
}

// A swept attempt ended when its process last lived, but not before it began nor
// after now, whatever clocks say.
func TestSweptEnd(t *testing.T) {
	s := tenanttest.Scope(t, "acme")
	f := func(started, alive time.Time, want func(e Entry) bool) {
		t.Helper()
		dir := t.TempDir()
		store := &fakeStore{}
		l := open(t, store, inJournal(dir, s))
		slot, err := l.Reserve(s)
		if err != nil {
			t.Fatal(err)
		}
		e := usual("a")
		e.StartedAt = started.UTC()
		if err := slot.Open(e); err != nil {
			t.Fatal(err)
		}
		awaitCarried(t, l)
		crash(l)
		for _, name := range append(files(t, dir), lockName) {
			if err := os.Chtimes(filepath.Join(dir, name), alive, alive); err != nil {
				t.Fatal(err)
			}
		}
		l = open(t, store, inJournal(dir, s))
		flush(t, l)
		if e, ok := store.stored(s, "a"); !ok || !want(e) {
			t.Errorf("%t %+v", ok, e)
		}
		if r := l.Recovered(); !r.Alive.Equal(alive) {
			t.Errorf("%+v", r)
		}
		closeNow(t, l)
	}
	now := time.Now()
	alive := now.Add(-time.Hour).Truncate(time.Second)
	f(alive.Add(-time.Minute), alive, func(e Entry) bool { return e.EndedAt.Equal(alive) })
	f(alive.Add(time.Minute), alive, func(e Entry) bool { return e.EndedAt.Equal(e.StartedAt) })
	f(alive, now.Add(time.Hour), func(e Entry) bool { return e.EndedAt.Before(now.Add(30*time.Minute)) && e.EndedAt.After(alive) })
}

// While it lives a process says so, also when nothing is written.
func TestHeartbeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		l := open(t, &fakeStore{}, inJournal(dir, tenanttest.Scope(t, "acme")))
		pass(time.Hour)
		info, err := os.Stat(filepath.Join(dir, lockName))
		if err != nil {
			t.Fatal(err)
		}
		if d := time.Since(info.ModTime()); d < 0 || d > 10*time.Second {
			t.Errorf("the last sign of life is %s old", d)
		}
		closeNow(t, l)
	})
}

// A store that is away at the start keeps nobody from starting and loses
// nothing; a company that is gone has nothing to be kept.
func TestReplayWithoutStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		acme, gone := two(t)
		odd := tenanttest.Scope(t, "odd")
		store := &fakeStore{before: away}
		o := inJournal(dir, acme, gone)
		o.Sync = SyncOff
		l := open(t, store, o)
		for i := range 5 {
			begin(t, l, acme, fmt.Sprint("a", i)).Record(usual(fmt.Sprint("a", i)))
			begin(t, l, gone, fmt.Sprint("g", i)).Record(usual(fmt.Sprint("g", i)))
			begin(t, l, odd, fmt.Sprint("o", i)).Record(usual(fmt.Sprint("o", i)))
		}
		begin(t, l, gone, "g open")
		crash(l)

		var mu sync.Mutex
		answer := func(string) (tenant.Scope, error) { return acme, errAway } // the Scope is not looked at
		o.ScopeOf = func(_ context.Context, company string) (tenant.Scope, error) {
			mu.Lock()
			defer mu.Unlock()
			return answer(company)
		}
		l = open(t, store, o)
		begin(t, l, odd, "o new").Record(usual("o new")) // its Scope is known by that
		pass(time.Minute)
		if st := l.Stats(); st.Queued != 17 || st.Shipped != 0 || st.Dropped != 0 || st.Err == nil || st.Lag == 0 {
			t.Errorf("%+v", st)
		}
		// The store is back; a foreign Scope is not taken.
		store.set(nil, nil)
		mu.Lock()
		answer = func(company string) (tenant.Scope, error) {
			if company == acme.ID().String() {
				return odd, nil
			}
			return acme, fmt.Errorf("asked: %w", fault.New(fault.NotFound, "No such company."))
		}
		mu.Unlock()
		pass(10 * time.Second)
		if n, _, _ := store.count(odd); n != 6 {
			t.Errorf("%d stored", n)
		}
		if st := l.Stats(); st.Queued != 5 || st.Dropped != 6 {
			t.Errorf("%+v", st)
		}
		mu.Lock()
		answer = func(string) (tenant.Scope, error) { return acme, nil }
		mu.Unlock()
		flush(t, l) // the pause is cut short
		if n, _, doubles := store.count(acme); n != 5 || doubles != 0 {
			t.Errorf("%d stored, %d twice", n, doubles)
		}
		if n, _, _ := store.count(gone); n != 0 {
			t.Errorf("%d of the company that is gone", n)
		}
		closeNow(t, l)
		if left := files(t, dir); len(left) > 0 {
			t.Errorf("left: %q", left)
		}
	})
}

// Close that gives up leaves to the next process what is not in the store.
func TestCloseKeepsJournal(t *testing.T) {
	dir := t.TempDir()
	s := tenanttest.Scope(t, "acme")
	store := &fakeStore{before: away}
	l := open(t, store, inJournal(dir, s))
	begin(t, l, s, "closed").Record(usual("closed"))
	late := begin(t, l, s, "late")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := l.Close(ctx); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "1 entries wait, 1 attempts run") {
		t.Errorf("got %v", err)
	}
	late.Record(usual("late")) // too late, and no reason to panic
	store.set(nil, nil)
	l = open(t, store, inJournal(dir, s))
	if r := l.Recovered(); r.Closed != 1 || r.Swept != 1 {
		t.Errorf("%+v", r)
	}
	flush(t, l)
	if e, _ := store.stored(s, "late"); e.Outcome != Swept || e.CostNano != 1000 {
		t.Errorf("%+v", e)
	}
	closeNow(t, l)
}

func TestOneProcess(t *testing.T) {
	dir := t.TempDir()
	s := tenanttest.Scope(t, "acme")
	l := open(t, &fakeStore{}, inJournal(dir, s))
	_, err := Open(t.Context(), &fakeStore{}, inJournal(dir, s))
	if want := fmt.Sprintf("process %d uses it", os.Getpid()); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %q", err, want)
	}
	begin(t, l, s, "a").Record(usual("a")) // the first is none the worse
	closeNow(t, l)
	closeNow(t, open(t, &fakeStore{}, inJournal(dir, s)))
	if _, err := Open(t.Context(), &fakeStore{}, Options{Journal: dir}); err == nil {
		t.Error("opened without ScopeOf")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	l = open(t, &fakeStore{before: away}, inJournal(dir, s))
	begin(t, l, s, "b").Record(usual("b"))
	crash(l)
	if _, err := Open(ctx, &fakeStore{}, inJournal(dir, s)); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	l = open(t, &fakeStore{}, inJournal(dir, s)) // the lock was given back
	if r := l.Recovered(); r.Closed != 1 {
		t.Errorf("%+v", r)
	}
	closeNow(t, l)
}
