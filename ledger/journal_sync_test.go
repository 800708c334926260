package ledger

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"bulkhead/tenant"
	"bulkhead/tenant/tenanttest"
)

// What an fsync failed for is not told to be safe, and is written anew.
func TestSyncFails(t *testing.T) {
	onDisk(t, func(t *testing.T, d *disk, o Options, store *fakeStore, s tenant.Scope) {
		o.Sync = SyncAlways
		store.set(away, nil)
		l := open(t, store, o)
		pass(time.Millisecond)
		slot := begin(t, l, s, "a")
		begin(t, l, s, "held")
		first := l.j.last
		d.set(nil, nil, func() error { return syscall.EIO })
		slot.Record(usual("a"))
		refusedOpen(t, l, s, "refused")
		if st := l.Stats(); st.Unwritten != 1 || !errors.Is(st.JournalErr, syscall.EIO) {
			t.Errorf("%+v", st)
		}
		pass(10 * time.Second)
		refusedOpen(t, l, s, "refused again") // no new segment survives either
		d.set(nil, nil, nil)
		pass(retryMost)
		if st := l.Stats(); st.Unwritten != 0 || l.j.last == first {
			t.Errorf("segment %d, %+v", l.j.last, st)
		}
		begin(t, l, s, "b").Record(usual("b"))

		crash(l)
		d.die(t, o.Journal)
		store.set(nil, nil)
		l = open(t, store, o)
		flush(t, l)
		for id, want := range map[string]Outcome{"a": Answered, "b": Answered, "held": Swept} {
			if e, _ := store.stored(s, id); e.Outcome != want {
				t.Errorf("%s is %q, want %q", id, e.Outcome, want)
			}
		}
		if n, _, _ := store.count(s); n != 3 {
			t.Errorf("%d stored", n)
		}
		closeNow(t, l)
	})
}

// Many that wait for the disk share an fsync.
func TestGroupCommit(t *testing.T) {
	s := tenanttest.Scope(t, "acme")
	d := &disk{}
	o := inJournal(t.TempDir(), s)
	o.Sync, o.openFile = SyncAlways, d.open
	l := open(t, &fakeStore{}, o)
	awaitCarried(t, l)
	const many = 50
	before := d.writes.Load()
	written := make(chan struct{})
	go func() { // the first fsync takes until all have written
		defer close(written)
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for end := time.Now().Add(time.Minute); d.writes.Load() < before+many && time.Now().Before(end); <-tick.C {
		}
	}()
	d.set(nil, nil, func() error { <-written; return nil })
	syncs := d.syncs.Load()
	slots := make([]*Slot, many)
	var wg sync.WaitGroup
	for i := range slots {
		wg.Go(func() { slots[i] = begin(t, l, s, fmt.Sprint(i)) })
	}
	wg.Wait()
	if n := d.syncs.Load() - syncs; n < 1 || n > 2 {
		t.Errorf("%d fsyncs for %d attempts", n, many)
	}
	// One alone has its own.
	syncs = d.syncs.Load()
	slots[0].Record(usual("0"))
	if n := d.syncs.Load() - syncs; n != 1 {
		t.Errorf("%d fsyncs for a close", n)
	}
	for _, slot := range slots[1:] {
		slot.Cancel()
	}
	closeNow(t, l)
}

// The interval is how long something written may wait for its fsync; without
// something there is none.
func TestSyncInterval(t *testing.T) {
	f := func(sync Sync, wait time.Duration, rounds int, want int64) {
		t.Helper()
		onDisk(t, func(t *testing.T, d *disk, o Options, store *fakeStore, s tenant.Scope) {
			t.Helper()
			o.Sync = sync
			store.set(away, nil)
			l := open(t, store, o)
			pass(time.Second)
			before := d.syncs.Load()
			pass(time.Hour)
			if n := d.syncs.Load() - before; n != 0 {
				t.Errorf("%d fsyncs of nothing", n)
			}
			for range rounds {
				for i := range 20 {
					begin(t, l, s, fmt.Sprint("att_", i)).Record(usual(fmt.Sprint("att_", i)))
				}
				if n := d.syncs.Load() - before; n != 0 {
					t.Errorf("%d fsyncs while it is written", n)
				}
				pass(wait)
				if n := d.syncs.Load() - before; n != want {
					t.Errorf("%d fsyncs after %s, want %d", n, wait, want)
				}
				before = d.syncs.Load()
			}
			store.set(nil, nil)
			flush(t, l)
			closeNow(t, l)
		})
	}
	f(SyncDefault, 10*time.Millisecond, 3, 1)
	f(Sync(time.Second), 999*time.Millisecond, 1, 0)
	f(Sync(time.Second), time.Second, 3, 1)
	f(SyncOff, time.Hour, 3, 0)
}

// The death of the machine takes nothing that was told to be safe, and of a
// journal that is synced by an interval no more than that.
func TestMachineDies(t *testing.T) {
	f := func(sync Sync) {
		t.Helper()
		onDisk(t, func(t *testing.T, d *disk, o Options, store *fakeStore, s tenant.Scope) {
			t.Helper()
			o.Sync, o.SegmentBytes = sync, 4096 // some attempts
			store.set(away, nil)
			l := open(t, store, o)
			pass(time.Second)
			for i := range 100 {
				slot := begin(t, l, s, fmt.Sprint("att_", i))
				if i%2 == 0 {
					slot.Record(usual(fmt.Sprint("att_", i)))
				}
				synctest.Wait() // the keeper begins segments
			}
			if sync != SyncAlways {
				pass(time.Duration(sync))
			}
			if st := l.Stats(); st.Segments < 5 {
				t.Errorf("%d segments", st.Segments)
			}
			crash(l)
			d.die(t, o.Journal)
			l = open(t, store, o)
			if r := l.Recovered(); r.Closed != 50 || r.Swept != 50 || len(r.Damage) != 0 || r.CutBytes != 0 {
				t.Errorf("%+v", r)
			}
			pass(time.Minute)
			crash(l)
			d.die(t, o.Journal)
			l = open(t, store, o)
			if r := l.Recovered(); r.Closed != 100 || r.Swept != 0 || len(r.Damage) != 0 || r.CutBytes != 0 {
				t.Errorf("again: %+v", r)
			}
			store.set(nil, nil)
			flush(t, l)
			closeNow(t, l)
		})
	}
	f(SyncAlways)
	f(SyncDefault)
	f(Sync(time.Minute))
}

// An older segment goes when what it says of open attempts is safe elsewhere, not
// when it is only written there.
func TestCarriedSurvives(t *testing.T) {
	f := func(failing bool) {
		t.Helper()
		onDisk(t, func(t *testing.T, d *disk, o Options, store *fakeStore, s tenant.Scope) {
			t.Helper()
			o.Sync, o.SegmentBytes = Sync(time.Minute), 4096
			l := open(t, store, o)
			begin(t, l, s, "held")
			pass(2 * time.Minute)
			if failing { // the first fsync of a file, with its header, succeeds
				n := 0
				d.set(nil, nil, func() error {
					if n++; n%2 == 0 {
						return syscall.EIO
					}
					return nil
				})
			}
			for i := range 200 {
				slot, err := l.Reserve(s)
				if err != nil {
					t.Fatal(err)
				}
				if err := slot.Open(usual(fmt.Sprint(i))); err != nil && !failing {
					t.Fatal(err)
				} else if err != nil { // there is no segment yet in place of one that failed
					slot.Cancel()
				} else {
					slot.Record(usual(fmt.Sprint(i)))
				}
				pass(100 * time.Millisecond)
			}
			if _, err := os.Stat(filepath.Join(o.Journal, "0000000001"+segmentExt)); failing != (err == nil) {
				t.Errorf("the first segment: %v", err)
			}
			if n := l.j.last; n < 3 || n > 30 {
				t.Errorf("%d segments", n)
			}
			d.set(nil, nil, nil)
			crash(l)
			d.die(t, o.Journal)
			l = open(t, store, o)
			flush(t, l)
			if e, _ := store.stored(s, "held"); e.Outcome != Swept {
				t.Errorf("%+v", e)
			}
			if r := l.Recovered(); len(r.Damage) != 0 {
				t.Errorf("%+v", r)
			}
			closeNow(t, l)
		})
	}
	f(false)
	f(true)
}
