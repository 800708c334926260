package ledger

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bulkhead/tenant"
	"bulkhead/tenant/tenanttest"
)

// record1 is a record as it stands in a segment.
type record1 struct {
	kind     kind
	id       string // of the entry
	from, to int
}

// leave leaves a journal of one segment in a folder: two attempts open, two
// closed, in turn.
func leave(t *testing.T, s tenant.Scope) (path string, data []byte, records []record1) {
	t.Helper()
	dir := t.TempDir()
	o := inJournal(dir, s)
	o.Sync = SyncOff
	l := open(t, &fakeStore{before: away}, o)
	awaitCarried(t, l)
	for _, id := range []string{"a", "b"} {
		begin(t, l, s, "open "+id)
		begin(t, l, s, "closed "+id).Record(usual("closed " + id))
	}
	crash(l)
	path = filepath.Join(dir, files(t, dir)[0])
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	seed, err := readHeader(data, 1)
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = readRecords(data, seed, func(k kind, payload []byte, at int) error {
		r := record1{kind: k, from: at, to: at + frameSize + 1 + len(payload)}
		if k == kindOpen || k == kindClose {
			_, e, err := decodeEntry(payload)
			if err != nil {
				return err
			}
			r.id = e.ID
		}
		records = append(records, r)
		return nil
	})
	if err != nil || len(records) != 7 {
		t.Fatalf("%v: %+v", err, records)
	}
	return path, withoutRoom(t, data, records[6].to), records
}

// withoutRoom returns a segment up to end, behind which there is only room.
func withoutRoom(t *testing.T, data []byte, end int) []byte {
	t.Helper()
	if rest := data[end:]; strings.Trim(string(rest), "\x00") != "" {
		t.Fatalf("behind the last record is %q", rest)
	}
	return data[:end:end]
}

// reopen writes data in place of the journal's only segment, and opens it.
func reopen(t *testing.T, path string, data []byte, s tenant.Scope) (*Ledger, *fakeStore) {
	t.Helper()
	l, store := reopenAway(t, path, data, s)
	store.set(nil, nil)
	return l, store
}

// reopenAway is reopen with a store that is away.
func reopenAway(t *testing.T, path string, data []byte, s tenant.Scope) (*Ledger, *fakeStore) {
	t.Helper()
	dir := filepath.Dir(path)
	for _, name := range files(t, dir) {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	o := inJournal(dir, s)
	o.Sync = SyncOff
	store := &fakeStore{before: away}
	return open(t, store, o), store
}

// expect compares what was shipped with what the records say.
func expect(t *testing.T, l *Ledger, store *fakeStore, s tenant.Scope, records []record1) {
	t.Helper()
	want := map[string]Outcome{}
	for _, r := range records {
		switch {
		case r.kind == kindClose:
			want[r.id] = Answered
		case r.kind == kindOpen && want[r.id] == "":
			want[r.id] = Swept
		}
	}
	flush(t, l)
	for id, outcome := range want {
		if e, _ := store.stored(s, id); e.Outcome != outcome {
			t.Errorf("%s is %q, want %q", id, e.Outcome, outcome)
		}
	}
	if n, _, doubles := store.count(s); n != len(want) || doubles != 0 {
		t.Errorf("%d stored, want %d; %d twice", n, len(want), doubles)
	}
}

// A write that was broken off anywhere takes nothing with it but itself.
func TestTornTail(t *testing.T) {
	s := tenanttest.Scope(t, "acme")
	path, data, records := leave(t, s)
	last := records[len(records)-1]
	room := strings.Repeat("\x00", 5000)
	f := func(what string, half []byte) {
		t.Helper()
		l, store := reopen(t, path, append(data[:last.from:last.from], half...), s)
		r := l.Recovered()
		if want := int64(len(strings.TrimRight(string(half), "\x00"))); r.CutBytes != want || len(r.Damage) != 0 || r.Closed != 1 || r.Swept != 3 {
			t.Errorf("%s: %+v, want %d bytes cut", what, r, want)
		}
		expect(t, l, store, s, records[:len(records)-1])
		closeNow(t, l)
		if left := files(t, filepath.Dir(path)); len(left) > 0 {
			t.Fatalf("%s: left %q", what, left)
		}
	}
	for cut := last.from; cut < last.to; cut++ {
		half := data[last.from:cut:cut]
		f(fmt.Sprint("cut at ", len(half)), half)
		if strings.Trim(string(data[cut:]), "\x00") == "" {
			continue // with room, that is all of it
		}
		f(fmt.Sprint("cut at with room ", len(half)), append(half, room...))
		if len(half) > 4 { // in memory, where the length comes last
			f(fmt.Sprint("stored to ", len(half)), append(append([]byte{0, 0, 0, 0}, half[4:]...), room...))
		}
	}
	// What a disk may leave behind the end after the death of the machine.
	for _, tail := range []string{room, "\x05\x00\x00\x00\x01\x02\x03\x04\x02abcd", "x", "x" + room} {
		l, store := reopen(t, path, append(data[:len(data):len(data)], tail...), s)
		if r := l.Recovered(); r.CutBytes != int64(len(strings.TrimRight(tail, "\x00"))) || len(r.Damage) != 0 {
			t.Errorf("tail of %d: %+v", len(tail), r)
		}
		expect(t, l, store, s, records)
		closeNow(t, l)
		// It is cut on the disk too, or it would be damage when it is not the last.
		l, store = reopenAway(t, path, append(data[:len(data):len(data)], tail...), s)
		awaitCarried(t, l)
		crash(l)
		l = open(t, store, inJournal(filepath.Dir(path), s))
		if r := l.Recovered(); r.CutBytes != 0 || len(r.Damage) != 0 {
			t.Errorf("tail of %d, once more: %+v", len(tail), r)
		}
		store.set(nil, nil)
		expect(t, l, store, s, records)
		closeNow(t, l)
	}
	// The next segment had been made and nothing written to it.
	l, store := reopenAway(t, path, data[:len(data)-3], s)
	awaitCarried(t, l)
	crash(l)
	if err := os.WriteFile(path, data[:len(data)-3], 0o600); err != nil {
		t.Fatal(err)
	}
	for _, size := range []int64{headerSize, 5000} { // with room, which is zeros
		if err := os.Truncate(filepath.Join(filepath.Dir(path), "0000000002"+segmentExt), size); err != nil {
			t.Fatal(err)
		}
	}
	store.set(nil, nil)
	l = open(t, store, inJournal(filepath.Dir(path), s))
	if r := l.Recovered(); r.CutBytes != int64(len(strings.TrimRight(string(data[last.from:last.to-3]), "\x00"))) || len(r.Damage) != 0 || r.Closed != 1 || r.Swept != 3 {
		t.Errorf("before an empty segment: %+v", r)
	}
	expect(t, l, store, s, records[:len(records)-1])
	closeNow(t, l)
	// A segment of which not even the beginning is there.
	for _, text := range []string{"", strings.Repeat("\x00", 4096)} {
		l, _ := reopen(t, path, []byte(text), s)
		if r := l.Recovered(); r.CutBytes != int64(len(text)) || len(r.Damage) != 0 {
			t.Errorf("%d zeros: %+v", len(text), r)
		}
		closeNow(t, l)
		if left := files(t, filepath.Dir(path)); len(left) > 0 {
			t.Errorf("left %q", left)
		}
	}
}

// A process that is killed before it gives up the room of the segment before
// leaves two with room. That is no damage in either.
func TestRoomInTwo(t *testing.T) {
	s := tenanttest.Scope(t, "acme")
	path, data, records := leave(t, s)
	room := make([]byte, 5000)
	l, store := reopenAway(t, path, append(data, room...), s)
	awaitCarried(t, l)
	begin(t, l, s, "later")
	crash(l)
	if err := os.WriteFile(path, append(data, room...), 0o600); err != nil {
		t.Fatal(err)
	}
	l = open(t, store, inJournal(filepath.Dir(path), s))
	if r := l.Recovered(); r.CutBytes != 0 || len(r.Damage) != 0 || r.Closed != 4 || r.Swept != 1 {
		t.Errorf("%+v", r)
	}
	if info, err := os.Stat(path); err != nil || info.Size() != int64(len(data)) {
		t.Errorf("%v, %v: the room was kept", info, err)
	}
	store.set(nil, nil)
	expect(t, l, store, s, append(records, record1{kind: kindOpen, id: "later"}))
	closeNow(t, l)
}

// A bit that changes anywhere takes one record with it, is told, and the file is
// kept for people to look at.
func TestBitFlips(t *testing.T) {
	s := tenanttest.Scope(t, "acme")
	path, data, records := leave(t, s)
	dir := filepath.Dir(path)
	for at := range data {
		broken := append([]byte(nil), data...)
		broken[at] ^= 1 << (at % 8)
		l, store := reopen(t, path, broken, s)
		r := l.Recovered()
		var rest []record1
		for _, rec := range records {
			if at >= headerSize && (at < rec.from || at >= rec.to) {
				rest = append(rest, rec)
			}
		}
		expect(t, l, store, s, rest)
		closeNow(t, l)
		left := files(t, dir)
		if at >= records[len(records)-1].from { // taken for a write that was broken off
			if r.CutBytes == 0 || len(r.Damage) != 0 || len(left) != 0 {
				t.Errorf("byte %d: left %q, %+v", at, left, r)
			}
		} else if len(r.Damage) != 1 || len(left) != 1 || left[0] != filepath.Base(path)+asideExt {
			t.Errorf("byte %d: left %q, %+v", at, left, r)
		}
		if t.Failed() {
			return
		}
	}
}

// Where a damaged segment may have held the close, an attempt is swept rather
// than forgotten, though a later segment does not name it among what is open.
func TestDamageInOlderSegment(t *testing.T) {
	s := tenanttest.Scope(t, "acme")
	path, data, records := leave(t, s)
	dir := filepath.Dir(path)
	store := &fakeStore{before: away}
	l := open(t, store, inJournal(dir, s))
	awaitCarried(t, l)
	crash(l)
	if left := files(t, dir); len(left) != 2 {
		t.Fatalf("left %q", left)
	}
	data[records[6].from+20]++ // the close of "closed b"
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 { // told at each start, for as long as the file is needed
		l = open(t, store, inJournal(dir, s))
		if r := l.Recovered(); len(r.Damage) != 1 || !strings.Contains(r.Damage[0].Error(), filepath.Base(path)) || r.CutBytes != 0 {
			t.Errorf("%+v", r)
		}
		crash(l)
	}
	store.set(nil, nil)
	l = open(t, store, inJournal(dir, s))
	flush(t, l)
	for id, want := range map[string]Outcome{"open a": Swept, "open b": Swept, "closed a": Answered, "closed b": Swept} {
		if e, _ := store.stored(s, id); e.Outcome != want {
			t.Errorf("%s is %q, want %q", id, e.Outcome, want)
		}
	}
	closeNow(t, l)
	l = open(t, store, inJournal(dir, s))
	if r := l.Recovered(); len(r.Aside) != 1 || len(r.Damage) != 0 || r.Closed+r.Swept != 0 {
		t.Errorf("%+v", r)
	}
	closeNow(t, l)
	if left := files(t, dir); len(left) != 1 {
		t.Errorf("left %q", left)
	}
}

// A segment that is not the last and of which nothing is left is damage.
func TestSegmentOfZeros(t *testing.T) {
	s := tenanttest.Scope(t, "acme")
	path, data, records := leave(t, s)
	second := filepath.Join(filepath.Dir(path), "0000000002"+segmentExt)
	header, seed := appendHeader(nil, 2, 7)
	for _, r := range records {
		rec := append([]byte(nil), data[r.from:r.to]...)
		if err := endRecord(rec, seed); err != nil {
			t.Fatal(err)
		}
		header = append(header, rec...)
	}
	if err := os.WriteFile(second, header, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	store := &fakeStore{}
	l := open(t, store, inJournal(filepath.Dir(path), s))
	if r := l.Recovered(); len(r.Damage) != 1 || r.CutBytes != 0 || r.Closed != 2 || r.Swept != 2 {
		t.Errorf("%+v", r)
	}
	expect(t, l, store, s, records)
	closeNow(t, l)
	if left := files(t, filepath.Dir(path)); len(left) != 1 || left[0] != filepath.Base(path)+asideExt {
		t.Errorf("left: %q", left)
	}
}

// An older gateway must not take for damage what a newer one wrote: it says so,
// and changes nothing.
func TestNewerVersion(t *testing.T) {
	s := tenanttest.Scope(t, "acme")
	path, data, records := leave(t, s)
	seed, err := readHeader(data, 1)
	if err != nil {
		t.Fatal(err)
	}
	f := func(what string, edit func(b []byte) []byte) {
		t.Helper()
		changed := edit(append([]byte(nil), data...))
		if err := os.WriteFile(path, changed, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Open(t.Context(), &fakeStore{}, inJournal(filepath.Dir(path), s))
		if !errors.Is(err, errNewer) || !strings.Contains(err.Error(), filepath.Base(path)) {
			t.Errorf("%s: %v", what, err)
		}
		if now, err := os.ReadFile(path); err != nil || string(now) != string(changed) || len(files(t, filepath.Dir(path))) != 1 {
			t.Errorf("%s: the folder was changed: %v", what, err)
		}
	}
	f("another form of segment", func(b []byte) []byte {
		b[8] = segmentForm + 1
		binary.LittleEndian.PutUint32(b[headerSize-4:], crc32.Checksum(b[:headerSize-4], castagnoli))
		return b
	})
	f("another kind of record", func(b []byte) []byte {
		rec := append(beginRecord(nil, lastKind+1), "what"...)
		if err := endRecord(rec, seed); err != nil {
			t.Fatal(err)
		}
		return append(append(b, rec...), 1, 2, 3)
	})
	f("another form of entry", func(b []byte) []byte {
		rec := b[records[6].from:records[6].to]
		rec[frameSize+1] = entryForm + 1
		if err := endRecord(rec, seed); err != nil {
			t.Fatal(err)
		}
		return b
	})
}

// A record that no version writes is damage, not the end of the start.
func TestUnreadableRecord(t *testing.T) {
	s := tenanttest.Scope(t, "acme")
	path, data, records := leave(t, s)
	seed, err := readHeader(data, 1)
	if err != nil {
		t.Fatal(err)
	}
	for i, payload := range []string{"", "\x01", "\x00", "\x01\x01\x01\x7fab", "\x01\x00\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"} {
		rec := append(beginRecord(nil, kindClose), payload...)
		if err := endRecord(rec, seed); err != nil {
			t.Fatal(err)
		}
		l, store := reopen(t, path, append(data[:len(data):len(data)], rec...), s)
		if r := l.Recovered(); len(r.Damage) != 1 || r.CutBytes != 0 {
			t.Errorf("%d: %+v", i, r)
		}
		expect(t, l, store, s, records)
		closeNow(t, l)
	}
}

// What is not ours in the folder is left alone; what was half made goes.
func TestOtherFiles(t *testing.T) {
	s := tenanttest.Scope(t, "acme")
	dir := t.TempDir()
	for _, name := range []string{"README", "0000000007" + segmentExt + newExt, "0000000009" + segmentExt + asideExt, "x" + segmentExt} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("?"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	l := open(t, &fakeStore{}, inJournal(dir, s))
	if r := l.Recovered(); len(r.Aside) != 1 || len(r.Damage) != 0 {
		t.Errorf("%+v", r)
	}
	want := fmt.Sprint([]string{"0000000009.journal.broken", "0000000010.journal", "README", "x.journal"})
	if got := fmt.Sprint(files(t, dir)); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	closeNow(t, l)
}

// What changes on the disk while the process lives is not shipped as it is, and
// takes nothing else with it.
func TestChangedOnDisk(t *testing.T) {
	s := tenanttest.Scope(t, "acme")
	dir := t.TempDir()
	o := inJournal(dir, s)
	o.Sync, o.Memory = SyncOff, 1
	store := &fakeStore{before: away}
	l := open(t, store, o)
	awaitCarried(t, l)
	for i := range 10 {
		begin(t, l, s, fmt.Sprint("att_", i)).Record(usual(fmt.Sprint("att_", i)))
	}
	path := filepath.Join(dir, files(t, dir)[0])
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	at := strings.LastIndex(string(data), "att_5") // in its close
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err == nil {
		_, err = f.WriteAt([]byte("att_6"), int64(at))
	}
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	store.set(nil, nil)
	flush(t, l)
	if n, _, _ := store.count(s); n != 9 {
		t.Errorf("%d stored", n)
	}
	if st := l.Stats(); st.Unreadable != 1 || st.JournalErr == nil {
		t.Errorf("%+v", st)
	}
	closeNow(t, l)
	l = open(t, store, o)
	if r := l.Recovered(); len(r.Damage) != 1 || r.Closed != 0 || r.Swept != 1 {
		t.Errorf("%+v", r)
	}
	flush(t, l)
	if e, _ := store.stored(s, "att_5"); e.Outcome != Swept {
		t.Errorf("%+v", e)
	}
	closeNow(t, l)
	if left := files(t, dir); len(left) != 1 || !strings.HasSuffix(left[0], asideExt) {
		t.Errorf("left: %q", left)
	}
}
