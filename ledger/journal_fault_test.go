package ledger

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"bulkhead/fault"
	"bulkhead/tenant"
	"bulkhead/tenant/tenanttest"
)

// disk is what the files of a journal are on, and can fail.
type disk struct {
	mu     sync.Mutex
	write  func(b []byte) (fits int, err error)
	others error            // of opening, truncating and reading
	sync   func() error     // nil succeeds
	safe   map[string]int64 // bytes of each file that were synced
	writes atomic.Int64
	syncs  atomic.Int64
}

// set changes what fails from now on.
func (d *disk) set(write func([]byte) (int, error), others error, sync func() error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.write, d.others, d.sync = write, others, sync
}

func (d *disk) open(path string, room int64) (segmentFile, error) {
	if err := d.failure(); err != nil {
		return nil, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	f, err := openFile(path, room)
	if err != nil {
		return nil, err
	}
	return &diskFile{segmentFile: f, d: d, path: strings.TrimSuffix(path, newExt), size: info.Size()}, nil
}

// die takes away all that was not synced, as the death of the machine may.
func (d *disk) die(t *testing.T, dir string) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, name := range files(t, dir) {
		path := filepath.Join(dir, name)
		info, err := os.Stat(path)
		if err == nil {
			err = os.Truncate(path, d.safe[path])
		}
		if err == nil && info.Size() > d.safe[path] { // the room that it had is zeros
			err = os.Truncate(path, info.Size())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func (d *disk) failure() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.others
}

type diskFile struct {
	segmentFile
	d    *disk
	path string
	size int64 // of what was written; the disk's lock guards it
}

func (f *diskFile) Write(b []byte) (int, error) {
	f.d.mu.Lock()
	write := f.d.write
	f.d.mu.Unlock()
	f.d.writes.Add(1)
	fits, fails := len(b), error(nil)
	if write != nil {
		fits, fails = write(b)
	}
	n, err := f.segmentFile.Write(b[:fits])
	f.d.mu.Lock()
	f.size += int64(n)
	f.d.mu.Unlock()
	if err == nil {
		err = fails
	}
	return n, err
}

func (f *diskFile) Truncate(size int64) error {
	if err := f.d.failure(); err != nil {
		return err
	}
	f.d.mu.Lock()
	f.size = size
	f.d.mu.Unlock()
	return f.segmentFile.Truncate(size)
}

func (f *diskFile) ReadAt(b []byte, at int64) (int, error) {
	if err := f.d.failure(); err != nil {
		return 0, err
	}
	return f.segmentFile.ReadAt(b, at)
}

func (f *diskFile) Sync() error {
	f.d.syncs.Add(1)
	f.d.mu.Lock()
	sync, size := f.d.sync, f.size
	f.d.mu.Unlock()
	if sync != nil {
		if err := sync(); err != nil {
			return err
		}
	}
	if err := f.segmentFile.Sync(); err != nil {
		return err
	}
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if f.d.safe == nil {
		f.d.safe = map[string]int64{}
	}
	f.d.safe[f.path] = max(f.d.safe[f.path], size)
	return nil
}

// fullDisk takes half of what is written, and says that there is no room.
func fullDisk(b []byte) (int, error) { return len(b) / 2, syscall.ENOSPC }

// onDisk is a bubble with a journal on a disk that can fail.
func onDisk(t *testing.T, f func(t *testing.T, d *disk, o Options, store *fakeStore, s tenant.Scope)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := tenanttest.Scope(t, "acme")
		d := &disk{}
		o := inJournal(t.TempDir(), s)
		o.Sync, o.openFile = SyncOff, d.open
		f(t, d, o, &fakeStore{}, s)
	})
}

// refusedOpen reserves a place and wants the journal to refuse the attempt.
func refusedOpen(t *testing.T, l *Ledger, s tenant.Scope, id string) {
	t.Helper()
	slot, err := l.Reserve(s)
	if err != nil {
		t.Fatal(err)
	}
	defer slot.Cancel()
	if err := slot.Open(usual(id)); !fault.Is(err, fault.Unavailable) || fault.As(err).RetryAfter == 0 {
		t.Errorf("%s: got %v", id, err)
	}
}

// With no room on the disk nothing is forwarded; what runs is recorded, in
// memory until there is room again.
func TestDiskFull(t *testing.T) {
	onDisk(t, func(t *testing.T, d *disk, o Options, store *fakeStore, s tenant.Scope) {
		store.set(away, nil)
		l := open(t, store, o)
		begin(t, l, s, "before").Record(usual("before"))
		running := begin(t, l, s, "running")
		shipped := begin(t, l, s, "shipped")
		d.set(fullDisk, nil, nil)
		refusedOpen(t, l, s, "refused")
		running.Record(usual("running"))
		pass(time.Minute)
		if st := l.Stats(); st.Unwritten != 1 || st.Queued != 2 || st.Refused != 1 || st.JournalErrors < 2 || !errors.Is(st.JournalErr, syscall.ENOSPC) {
			t.Errorf("%+v", st)
		}

		// There is room again: written, and nothing stands in the way of it.
		d.set(nil, nil, nil)
		pass(retryMost)
		if st := l.Stats(); st.Unwritten != 0 || st.Queued != 2 {
			t.Errorf("%+v", st)
		}
		if l.q.places != 1 { // that of the one that runs
			t.Errorf("%d places are taken", l.q.places)
		}
		begin(t, l, s, "after").Record(usual("after"))

		// One is shipped from memory without ever having been in the journal.
		d.set(fullDisk, syscall.EIO, nil) // half a record stays
		shipped.Record(usual("shipped"))
		store.set(nil, nil)
		pass(10 * time.Second)
		if n, _, doubles := store.count(s); n != 4 || doubles != 0 {
			t.Errorf("%d stored, %d twice", n, doubles)
		}
		d.set(nil, nil, nil)
		begin(t, l, s, "open")
		crash(l)

		// "shipped" was not written as closed, so it is swept: the store knows
		// better.
		l = open(t, store, o)
		if r := l.Recovered(); r.Swept != 2 || len(r.Damage) != 0 || r.CutBytes != 0 {
			t.Errorf("%+v", r)
		}
		flush(t, l)
		for id, want := range map[string]Outcome{"before": Answered, "running": Answered, "after": Answered, "shipped": Answered, "open": Swept} {
			if e, _ := store.stored(s, id); e.Outcome != want {
				t.Errorf("%s is %q, want %q", id, e.Outcome, want)
			}
		}
		closeNow(t, l)
	})
}

// Killed while a close waits in memory: the attempt is swept, not forgotten.
func TestKilledWithDiskFull(t *testing.T) {
	onDisk(t, func(t *testing.T, d *disk, o Options, store *fakeStore, s tenant.Scope) {
		store.set(away, nil)
		l := open(t, store, o)
		slot := begin(t, l, s, "a")
		d.set(fullDisk, syscall.EIO, nil) // not even cut off again
		slot.Record(usual("a"))
		pass(time.Second)
		crash(l)
		d.set(nil, nil, nil)
		store.set(nil, nil)
		l = open(t, store, o)
		if r := l.Recovered(); r.Swept != 1 || r.Closed != 0 || r.CutBytes == 0 {
			t.Errorf("%+v", r)
		}
		flush(t, l)
		if e, _ := store.stored(s, "a"); e.Rank != ByLease || e.CostNano != 1000 {
			t.Errorf("%+v", e)
		}
		closeNow(t, l)
	})
}

// A disk without room at the start: what is there is shipped, nothing is
// forwarded, nothing is forgotten.
func TestStartWithDiskFull(t *testing.T) {
	onDisk(t, func(t *testing.T, d *disk, o Options, store *fakeStore, s tenant.Scope) {
		store.set(away, nil)
		l := open(t, store, o)
		begin(t, l, s, "closed").Record(usual("closed"))
		begin(t, l, s, "open")
		crash(l)

		for range 2 {
			d.set(fullDisk, nil, nil)
			l = open(t, store, o)
			if r := l.Recovered(); r.Closed != 1 || r.Swept != 1 {
				t.Fatalf("%+v", r)
			}
			refusedOpen(t, l, s, "refused")
			pass(10 * time.Second)
			if st := l.Stats(); st.Unwritten != 1 || st.Queued != 2 {
				t.Errorf("%+v", st)
			}
			crash(l)
		}
		l = open(t, store, o)
		store.set(nil, nil)
		flush(t, l)
		if e, _ := store.stored(s, "open"); e.Outcome != Swept {
			t.Errorf("%+v", e)
		}
		d.set(nil, nil, nil)
		pass(retryMost)
		begin(t, l, s, "new").Record(usual("new"))
		flush(t, l)
		if n, _, doubles := store.count(s); n != 3 || doubles != 0 {
			t.Errorf("%d stored, %d twice", n, doubles)
		}
		closeNow(t, l)
		if left := files(t, o.Journal); len(left) > 0 {
			t.Errorf("left: %q", left)
		}
	})
}

// No segment can be made at all: nothing is forwarded until one can.
func TestNoSegment(t *testing.T) {
	onDisk(t, func(t *testing.T, d *disk, o Options, store *fakeStore, s tenant.Scope) {
		d.set(nil, syscall.EMFILE, nil)
		l := open(t, store, o)
		refusedOpen(t, l, s, "refused")
		pass(10 * time.Second)
		if st := l.Stats(); st.Segments != 0 || !errors.Is(st.JournalErr, syscall.EMFILE) || st.JournalErrors > 10 {
			t.Errorf("%+v", st)
		}
		d.set(nil, nil, nil)
		pass(retryMost)
		begin(t, l, s, "a").Record(usual("a"))
		closeNow(t, l)
		if left := files(t, o.Journal); len(left) > 0 {
			t.Errorf("left: %q", left)
		}
	})
}

// What cannot be read back does not hold up the rest, and stays where it is for
// the next start.
func TestUnreadable(t *testing.T) {
	onDisk(t, func(t *testing.T, d *disk, o Options, store *fakeStore, s tenant.Scope) {
		o.Memory, o.CompanyMemory = 1, 1
		store.set(away, nil)
		l := open(t, store, o)
		for i := range 10 {
			begin(t, l, s, fmt.Sprint("att_", i)).Record(usual(fmt.Sprint("att_", i)))
		}
		d.set(nil, syscall.EIO, nil)
		store.set(nil, nil)
		flush(t, l)
		if st := l.Stats(); st.Unreadable != 9 || st.Shipped != 1 || st.Queued != 0 || !errors.Is(st.JournalErr, syscall.EIO) {
			t.Errorf("%+v", st)
		}
		d.set(nil, nil, nil)
		closeNow(t, l)
		l = open(t, store, o)
		if r := l.Recovered(); r.Closed != 9 || r.Swept != 0 {
			t.Errorf("%+v", r)
		}
		flush(t, l)
		if n, _, doubles := store.count(s); n != 10 || doubles != 0 {
			t.Errorf("%d stored, %d twice", n, doubles)
		}
		closeNow(t, l)
		if left := files(t, o.Journal); len(left) > 0 {
			t.Errorf("left: %q", left)
		}
	})
}
