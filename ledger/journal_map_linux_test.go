package ledger

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"bulkhead/tenant/tenanttest"
)

// mapped opens a new file in a folder, with room.
func mapped(t *testing.T, dir string, room int64) (*mappedFile, error) {
	t.Helper()
	path := filepath.Join(dir, "mapped")
	if err := os.WriteFile(path, []byte("head"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := openMapped(path, room)
	if err != nil {
		return nil, err
	}
	m := f.(*mappedFile)
	t.Cleanup(func() { _ = m.Close() })
	return m, nil
}

// content returns what is in the file, without zeros at its end, and its size.
func content(t *testing.T, m *mappedFile) (text string, size int) {
	t.Helper()
	b, err := os.ReadFile(m.Name())
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimRight(string(b), "\x00"), len(b)
}

// What is written stands in the file at once, within the room and behind it, and
// can be taken back.
func TestMapped(t *testing.T) {
	m, err := mapped(t, t.TempDir(), 64)
	if err != nil {
		t.Fatal(err)
	}
	f := func(what, want string, wantSize int, mapped bool, errs ...error) {
		t.Helper()
		text, size := content(t, m)
		if err := errors.Join(errs...); err != nil || text != want || size != wantSize || m.memory != nil != mapped {
			t.Errorf("%s: %q of %d, mapped %t, %v", what, text, size, m.memory != nil, err)
		}
	}
	write := func(s string) error {
		n, err := m.Write([]byte(s))
		if n != len(s) && err == nil {
			err = errors.New("short")
		}
		return err
	}
	f("new", "head", 64, true)
	f("written", "headone, two", 64, true, write("one, "), write("two"))
	f("taken back", "headone", 64, true, m.Truncate(7))
	f("synced", "headone; three", 64, true, write("; three"), m.Sync())
	long := strings.Repeat("long", 20)
	f("behind the room", "headone; three"+long, 14+80, false, write(long))
	f("on", "headone; three"+long+"on", 14+82, false, write("on"), m.Sync())
	f("taken back", "headone; three"+long, 14+80, false, m.Truncate(14+80))
	f("into the room", "headone", 7, false, m.Truncate(7))
	f("sealed", "headone.", 8, false, write("."), m.Seal())

	if m, err = mapped(t, t.TempDir(), 1<<20); err != nil {
		t.Fatal(err)
	}
	f("sealed with room", "headone", 7, false, write("one"), m.Seal(), m.Close(), m.unmap())
}

// A disk without room says so when the room is made, and takes nothing.
func TestMappedNoRoom(t *testing.T) {
	const shm = "/dev/shm" // refuses what is more than all of it before it takes any
	var st syscall.Statfs_t
	if err := syscall.Statfs(shm, &st); err != nil || st.Type != 0x01021994 || st.Blocks == 0 { // TMPFS_MAGIC, linux/magic.h
		t.Skip("there is no file system in memory")
	}
	dir, err := os.MkdirTemp(shm, "ledger")
	if err != nil {
		t.Skip(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if _, err := mapped(t, dir, 2*int64(st.Blocks)*st.Bsize); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("got %v", err)
	}
	o := inJournal(filepath.Join(dir, "journal"), tenanttest.Scope(t, "acme"))
	o.openFile = func(path string, room int64) (segmentFile, error) {
		return openFile(path, room*2*int64(st.Blocks)*st.Bsize)
	}
	l := open(t, &fakeStore{}, o)
	if st := l.Stats(); st.Segments != 0 || !errors.Is(st.JournalErr, syscall.ENOSPC) {
		t.Errorf("%+v", st)
	}
	refusedOpen(t, l, tenanttest.Scope(t, "acme"), "a")
	closeNow(t, l)
	if left := files(t, o.Journal); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

// Somebody who cuts a file off under a process does not end it: one attempt is
// refused, what comes after it is written, and what was cut off is told.
func TestCutOff(t *testing.T) {
	s := tenanttest.Scope(t, "acme")
	dir := t.TempDir()
	o := inJournal(dir, s)
	o.Sync, o.Memory = SyncOff, 1
	store := &fakeStore{before: away}
	l := open(t, store, o)
	awaitCarried(t, l)
	begin(t, l, s, "in memory").Record(usual("in memory"))
	begin(t, l, s, "lost").Record(usual("lost"))
	before := l.j.active.size
	if err := os.Truncate(filepath.Join(dir, files(t, dir)[0]), 100); err != nil {
		t.Fatal(err)
	}
	var refused int
	for range 30 { // the page that the end stands in is there
		slot, err := l.Reserve(s)
		if err != nil {
			t.Fatal(err)
		}
		if err := slot.Open(usual("x")); err != nil {
			refused++
			if st := l.Stats(); !errors.Is(st.JournalErr, errFault) {
				t.Errorf("%+v", st)
			}
		}
		slot.Cancel()
	}
	if refused != 1 || l.j.active.size <= before {
		t.Errorf("%d refused", refused)
	}
	begin(t, l, s, "after").Record(usual("after"))
	store.set(nil, nil)
	flush(t, l)
	if st := l.Stats(); st.Unreadable != 1 || st.Shipped != 2 {
		t.Errorf("%+v", st)
	}
	for id, want := range map[string]bool{"in memory": true, "lost": false, "after": true} {
		if _, there := store.stored(s, id); there != want {
			t.Errorf("%s: %t", id, there)
		}
	}
	closeNow(t, l)
}
