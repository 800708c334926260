package ledger

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"bulkhead/fault"
	"bulkhead/tenant"
	"bulkhead/tenant/tenanttest"
)

// bubble runs f with a Ledger over store, with time that jumps.
func bubble(t *testing.T, o Options, f func(t *testing.T, l *Ledger, store *fakeStore)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		store := &fakeStore{}
		l := open(t, store, o)
		f(t, l, store)
		closeNow(t, l)
	})
}

func pass(d time.Duration) {
	time.Sleep(d) // the bubble's clock jumps
	synctest.Wait()
}

func TestShips(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, l *Ledger, store *fakeStore) {
		s := tenanttest.Scope(t, "acme")
		f := func(want int) {
			t.Helper()
			if n, _, _ := store.count(s); n != want {
				t.Errorf("%d stored, want %d", n, want)
			}
		}
		// One entry waits for others, not for long.
		record(t, l, s, 0, 1)
		pass(49 * time.Millisecond)
		f(0)
		if st := l.Stats(); st.Queued != 1 || st.Lag != 49*time.Millisecond || st.Shipped != 0 {
			t.Errorf("%+v", st)
		}
		pass(time.Millisecond)
		f(1)
		if st := l.Stats(); st != (Stats{Shipped: 1}) {
			t.Errorf("%+v", st)
		}
		// A full batch does not wait.
		record(t, l, s, 1, 512)
		synctest.Wait()
		f(513)
		// Nor does what is left after one, where there is another.
		record(t, l, s, 513, 1030)
		synctest.Wait()
		f(513 + 1024)
		pass(50 * time.Millisecond)
		f(513 + 1030)
		if len(store.batches) != 5 || len(store.batches[1]) != 512 {
			t.Errorf("%d batches", len(store.batches))
		}
		// In order.
		for i, b := range store.batches[2] {
			if want := fmt.Sprint("att_", 513+i); b.Entry.ID != want {
				t.Fatalf("entry %d is %s, want %s", i, b.Entry.ID, want)
			}
		}
	})
}

// A store that is away for a minute costs nothing but time.
func TestStoreAway(t *testing.T) {
	f := func(broken func(context.Context, []Booked) error, maxTries int) {
		t.Helper()
		bubble(t, Options{}, func(t *testing.T, l *Ledger, store *fakeStore) {
			acme, other := two(t)
			store.set(broken, nil)
			for i := range 60 {
				record(t, l, acme, i*20, 20)
				record(t, l, other, i*20, 20)
				pass(time.Second)
			}
			if n, tries, _ := store.count(acme); n != 0 || tries < 5 || tries > maxTries {
				t.Errorf("%d stored, %d tries", n, tries)
			}
			if st := l.Stats(); st.Queued != 2400 || st.Err == nil || st.FailedBatches == 0 || st.Lag < time.Minute-time.Second {
				t.Errorf("%+v", st)
			}
			store.set(nil, nil)
			pass(15 * time.Second)
			for _, s := range []tenant.Scope{acme, other} {
				if n, _, doubles := store.count(s); n != 1200 || doubles != 0 {
					t.Errorf("%d stored, %d twice", n, doubles)
				}
			}
			if st := l.Stats(); st.Queued != 0 || st.Err != nil || st.Shipped != 2400 {
				t.Errorf("%+v", st)
			}
		})
	}
	f(away, 60)
	f(hangs, 20)
}

// The store has the batch and its answer is lost: sent again, there once.
func TestAnswerLost(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, l *Ledger, store *fakeStore) {
		s := tenanttest.Scope(t, "acme")
		store.set(nil, func() error { return errAway })
		record(t, l, s, 0, 100)
		pass(time.Second)
		store.set(nil, nil)
		pass(10 * time.Second)
		if n, _, doubles := store.count(s); n != 100 || doubles == 0 {
			t.Errorf("%d stored, %d sent twice", n, doubles)
		}
		if st := l.Stats(); st.Shipped != 100 || st.Queued != 0 {
			t.Errorf("%+v", st)
		}
	})
}

// Entries of one company that the store refuses do not hold up the others, and
// are stored when it takes them.
func TestOneCompanyRefused(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, l *Ledger, store *fakeStore) {
		acme, other := two(t)
		store.set(refuses(acme), nil)
		record(t, l, acme, 0, 10)
		pass(10 * time.Minute) // it is alone: the store might be away
		for i := range 100 {
			record(t, l, acme, 10+i, 1)
			record(t, l, other, i, 1)
			pass(time.Second)
			if n, _, _ := store.count(other); i > 5 && n != i+1 {
				t.Fatalf("second %d: %d stored", i, n)
			}
		}
		_, tries, _ := store.count(acme)
		if st := l.Stats(); st.Queued != 110 || tries > 400 {
			t.Errorf("%d tries, %+v", tries, st)
		}
		// Alone again, a healthy one waits no longer than ever.
		record(t, l, other, 100, 1)
		pass(50 * time.Millisecond)
		if n, _, _ := store.count(other); n != 101 {
			t.Errorf("%d stored", n)
		}
		store.set(nil, nil)
		pass(5 * time.Second)
		if n, _, doubles := store.count(acme); n != 110 || doubles != 0 {
			t.Errorf("%d stored, %d twice", n, doubles)
		}
		record(t, l, acme, 110, 1)
		pass(50 * time.Millisecond)
		if n, _, _ := store.count(acme); n != 111 {
			t.Errorf("%d stored", n)
		}
	})
}

// A company with many entries does not keep another's waiting.
func TestInTurn(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, l *Ledger, store *fakeStore) {
		acme, other := two(t)
		third := tenanttest.Scope(t, "third")
		store.set(away, nil)
		record(t, l, acme, 0, 10_000)
		record(t, l, other, 0, 1)
		record(t, l, third, 0, 1000)
		pass(time.Second)
		store.set(nil, nil)
		pass(10 * time.Second)
		first := map[tenant.ID]int{}
		for _, b := range store.batches[0] {
			first[b.Scope.ID()]++
		}
		if first[acme.ID()] != 170 || first[other.ID()] != 1 || first[third.ID()] != 170 {
			t.Errorf("first batch: %v", first)
		}
	})
}

func TestRoom(t *testing.T) {
	bubble(t, Options{Queue: 10, CompanyQueue: 4}, func(t *testing.T, l *Ledger, store *fakeStore) {
		f := func(s tenant.Scope, want bool) *Slot {
			t.Helper()
			slot, err := l.Reserve(s)
			if (err == nil) != want || err != nil && !fault.Is(err, fault.Unavailable) {
				t.Fatalf("room: %v, want %t", err, want)
			}
			return &slot
		}
		acme, other := two(t)
		store.set(away, nil)
		var slots []*Slot
		for range 4 {
			slots = append(slots, f(acme, true))
		}
		// Its share is taken, whether attempts run or entries wait.
		f(acme, false)
		for i, slot := range slots {
			slot.Record(Entry{ID: fmt.Sprint(i)})
		}
		pass(time.Minute)
		f(acme, false)
		// Others have theirs, up to the total.
		var others []*Slot
		for range 4 {
			others = append(others, f(other, true))
		}
		f(other, false)
		third, fourth := f(tenanttest.Scope(t, "third"), true), f(tenanttest.Scope(t, "fourth"), true)
		f(tenanttest.Scope(t, "fifth"), false)
		if st := l.Stats(); st.Queued != 4 || st.Reserved != 6 || st.Refused != 4 {
			t.Errorf("%+v", st)
		}
		// A place that was given back is there again, once.
		third.Cancel()
		third.Cancel()
		fourth.Cancel()
		f(tenanttest.Scope(t, "sixth"), true).Cancel()
		for _, slot := range others {
			slot.Cancel()
		}
		// So is that of an entry that was shipped.
		store.set(nil, nil)
		pass(10 * time.Second)
		f(acme, true).Cancel()
		if n, _, _ := store.count(acme); n != 4 {
			t.Errorf("%d stored", n)
		}
	})
}

func TestSlot(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, l *Ledger, store *fakeStore) {
		s := tenanttest.Scope(t, "acme")
		var zero Slot
		zero.Cancel()
		panics := func(what string, f func()) {
			t.Helper()
			defer func() {
				if recover() == nil {
					t.Errorf("%s does not panic", what)
				}
			}()
			f()
		}
		panics("an entry without a place", func() { zero.Record(Entry{}) })
		panics("a place without a scope", func() { l.Reserve(tenant.Scope{}) })
		slot, err := l.Reserve(s)
		if err != nil {
			t.Fatal(err)
		}
		slot.Record(Entry{ID: "att_1"})
		slot.Cancel()
		panics("a second entry", func() { slot.Record(Entry{ID: "att_2"}) })
		pass(time.Second)
		if n, _, _ := store.count(s); n != 1 {
			t.Errorf("%d stored", n)
		}
	})
}

func TestFlush(t *testing.T) {
	bubble(t, Options{Every: time.Hour, MaxBackoff: time.Hour}, func(t *testing.T, l *Ledger, store *fakeStore) {
		s := tenanttest.Scope(t, "acme")
		begin := time.Now()
		if err := l.Flush(t.Context()); err != nil { // nothing waits
			t.Error(err)
		}
		record(t, l, s, 0, 3)
		slot, _ := l.Reserve(s) // an attempt that runs is not waited for
		defer slot.Cancel()
		if err := l.Flush(t.Context()); err != nil {
			t.Error(err)
		}
		if n, _, _ := store.count(s); n != 3 {
			t.Errorf("%d stored", n)
		}
		// Away: it says so when the time is over.
		store.set(away, nil)
		record(t, l, s, 3, 1)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := l.Flush(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		// Back: the pause is cut short.
		store.set(nil, nil)
		if err := l.Flush(t.Context()); err != nil {
			t.Error(err)
		}
		if d := time.Since(begin); d != time.Minute {
			t.Errorf("took %s", d)
		}
		slot.Cancel()
	})
}

// Close waits for attempts that run and ships all there is.
func TestClose(t *testing.T) {
	bubble(t, Options{}, func(t *testing.T, l *Ledger, store *fakeStore) {
		s := tenanttest.Scope(t, "acme")
		record(t, l, s, 0, 700)
		slot, err := l.Reserve(s)
		if err != nil {
			t.Fatal(err)
		}
		closed := make(chan error)
		go func() { closed <- l.Close(t.Context()) }()
		pass(time.Minute)
		select {
		case err := <-closed:
			t.Fatalf("closed while an attempt runs: %v", err)
		default:
		}
		if _, err := l.Reserve(s); !fault.Is(err, fault.Unavailable) {
			t.Errorf("a new attempt: %v", err)
		}
		slot.Record(Entry{ID: "last"})
		if err := <-closed; err != nil {
			t.Error(err)
		}
		if n, _, _ := store.count(s); n != 701 {
			t.Errorf("%d stored", n)
		}
	})
}

// A store that does not answer does not hold up the end of the process.
func TestCloseGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &fakeStore{before: hangs}
		l := open(t, store, Options{})
		record(t, l, tenanttest.Scope(t, "acme"), 0, 3)
		pass(time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		begin := time.Now()
		err := l.Close(ctx)
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) != 2*time.Second {
			t.Errorf("got %v after %s", err, time.Since(begin))
		}
		if want := "3 entries wait, 0 attempts run"; err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
		if again := l.Close(t.Context()); again != err {
			t.Errorf("again: %v", again)
		}
		if err := l.Flush(t.Context()); err == nil {
			t.Error("Flush of a closed ledger with entries succeeds")
		}
	})
}

// Many at once: what was recorded is stored, each once, under its own company.
func TestConcurrent(t *testing.T) {
	store := &fakeStore{}
	l := open(t, store, Options{Every: time.Millisecond, Batch: 16, MaxBackoff: time.Millisecond})
	tries := 0
	store.set(func(context.Context, []Booked) error { // called by one goroutine
		if tries++; tries%3 == 0 {
			return errAway
		}
		return nil
	}, nil)
	acme, other := two(t)
	var wg sync.WaitGroup
	for g := range 20 {
		wg.Go(func() {
			s, first := acme, g*100
			if g%2 == 1 {
				s = other
			}
			for i := range 100 {
				slot, err := l.Reserve(s)
				if err != nil {
					t.Error(err)
					return
				}
				if i%10 == 0 {
					slot.Cancel()
				} else {
					slot.Record(Entry{ID: fmt.Sprint(first + i)})
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
}

func BenchmarkReserveRecord(b *testing.B) {
	l := open(b, &nullStore{}, Options{Queue: 1 << 30, CompanyQueue: 1 << 30})
	s := tenanttest.Scope(b, "acme")
	e := Entry{ID: NewAttemptID(), Rank: Final}
	b.ReportAllocs()
	for b.Loop() {
		slot, err := l.Reserve(s)
		if err != nil {
			b.Fatal(err)
		}
		slot.Record(e)
	}
	b.StopTimer()
	if err := l.Close(b.Context()); err != nil {
		b.Error(err)
	}
}

type nullStore struct{}

func (nullStore) AppendEntries(context.Context, []Booked) error { return nil }
