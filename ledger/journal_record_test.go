package ledger

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"bulkhead/tenant/tenanttest"
)

// full returns an entry in which no field is zero and no two numbers are alike.
func full(t testing.TB) Entry {
	t.Helper()
	n := int64(0)
	var fill func(v reflect.Value)
	fill = func(v reflect.Value) {
		n++
		switch {
		case v.Type() == reflect.TypeFor[time.Time]():
			v.Set(reflect.ValueOf(time.Unix(1_000_000+n, 1000+n).UTC()))
		case v.Kind() == reflect.Struct:
			for i := range v.NumField() {
				fill(v.Field(i))
			}
		case v.Kind() == reflect.String:
			v.SetString(strings.Repeat("x", int(n)))
		case v.Kind() == reflect.Bool:
			v.SetBool(true)
		case v.CanInt():
			v.SetInt(n)
		case v.CanUint():
			v.SetUint(uint64(n))
		default:
			t.Fatalf("a field of type %s is new to this test", v.Type())
		}
	}
	var e Entry
	fill(reflect.ValueOf(&e).Elem())
	return e
}

// A field that is added to Entry or openai.Usage and not here is lost in the
// journal.
func TestEntryRoundTrip(t *testing.T) {
	f := func(e Entry) {
		t.Helper()
		company, got, err := decodeEntry(appendEntry(nil, "org-a", &e))
		if err != nil || company != "org-a" || got != e {
			t.Errorf("%q, %v:\n%+v\n%+v", company, err, got, e)
		}
	}
	f(full(t))
	f(usual("att_1"))
	f(Entry{ID: "att_1", StartedAt: time.Unix(0, 0).UTC(), EndedAt: time.Time{}})
	f(Entry{ID: "\x00ü", Rank: -1, Status: -1, CostNano: -1 << 63, HighNano: 1<<63 - 1, Marks: 1<<16 - 1})
	// Each flag and each bool by itself.
	f(Entry{ID: "a", First: true})
	f(Entry{ID: "a", Lent: true})
	f(Entry{ID: "a", Priced: true})
}

// The form of an entry is on people's disks: what an earlier version wrote must
// be read by all that follow.
func TestEntryForm(t *testing.T) {
	const golden = "01050d056f72672d61056174745f31057265715f310670726f6a5f31056b65795f3100000463686174066f70656e61690b6770742d346f2d6d69" +
		"6e690b6770742d346f2d6d696e690008616e7377657265641d808cba8007aab4de75848cba8007e2a9c782060490030000d0f32900d0f329a413" +
		"80100000000080040000000000a4170000000000"
	want := Entry{
		ID: "att_1", RequestID: "req_1", ProjectID: "proj_1", KeyID: "key_1", Kind: "chat", Provider: "openai",
		Model: "gpt-4o-mini", Requested: "gpt-4o-mini", Outcome: Answered, Rank: Final, Status: 200, First: true, Priced: true,
		CostNano: 343_272, HighNano: 343_272,
		StartedAt: time.Unix(940_000_000, 123_456_789).UTC(), EndedAt: time.Unix(940_000_002, 807_987_825).UTC(),
	}
	want.Usage.Input, want.Usage.CachedInput, want.Usage.Output, want.Usage.Total = 1234, 1024, 256, 1490
	if got := hex.EncodeToString(appendEntry(nil, "org-a", &want)); got != golden {
		t.Errorf("the form has changed:\n%s", got)
	}
	raw, err := hex.DecodeString(golden)
	if err != nil {
		t.Fatal(err)
	}
	if company, got, err := decodeEntry(raw); err != nil || company != "org-a" || got != want {
		t.Errorf("%q, %v: %+v", company, err, got)
	}

	// Of before a field was added: the list of numbers is shorter.
	at := strings.LastIndex(string(raw), string(Answered)) + len(Answered)
	if raw[at] != 29 {
		t.Fatalf("%d numbers", raw[at])
	}
	older := append([]byte(nil), raw...)
	older[at]--
	if _, got, err := decodeEntry(older[:len(older)-1]); err != nil || got != want {
		t.Errorf("%v: %+v", err, got)
	}
	// Of after.
	newer := append(append([]byte(nil), raw...), 7)
	newer[at]++
	if _, _, err := decodeEntry(newer); !errors.Is(err, errNewer) {
		t.Errorf("got %v", err)
	}
}

// Half an entry is none.
func TestEntryCut(t *testing.T) {
	e := usual("att_1")
	b := appendEntry(nil, "org-a", &e)
	for n := range b {
		if _, _, err := decodeEntry(b[:n]); err == nil || errors.Is(err, errNewer) {
			t.Errorf("%d of %d bytes: %v", n, len(b), err)
		}
	}
	if _, _, err := decodeEntry(append(b, 0)); err == nil {
		t.Error("read with a byte too many")
	}
}

func TestRecordSize(t *testing.T) {
	b := append(beginRecord(nil, kindOpen), make([]byte, maxRecord-frameSize-1)...)
	if err := endRecord(b, 1); err != nil || recordAt(b, 1) != maxRecord {
		t.Errorf("the longest record: %v", err)
	}
	if err := endRecord(append(b, 0), 1); err == nil {
		t.Error("one more byte is taken")
	}
	if recordAt(b, 2) != 0 {
		t.Error("a record of another segment is taken")
	}
	if recordAt(make([]byte, 100), 0) != 0 {
		t.Error("zeros are taken for a record")
	}
}

func FuzzEntry(f *testing.F) {
	for _, e := range []Entry{full(f), usual("att_1"), {ID: "a"}} {
		f.Add(appendEntry(nil, "org-a", &e))
	}
	f.Add([]byte("\x01\x00\x0d"))
	f.Fuzz(func(t *testing.T, b []byte) {
		company, e, err := decodeEntry(b)
		if err != nil {
			if !errors.Is(err, errNewer) && !errors.Is(err, errEntry) {
				t.Errorf("got %v", err)
			}
			return
		}
		again, e2, err := decodeEntry(appendEntry(nil, company, &e))
		if err != nil || again != company || e2 != e {
			t.Errorf("%v:\n%+v\n%+v", err, e, e2)
		}
	})
}

// FuzzSegment opens a folder with whatever stands in its segment: no panic, and
// either an error that changes nothing or a journal that works.
func FuzzSegment(f *testing.F) {
	header, seed := appendHeader(nil, 1, 2)
	record := func(k kind, payload []byte) []byte {
		b := append(beginRecord(nil, k), payload...)
		if err := endRecord(b, seed); err != nil {
			f.Fatal(err)
		}
		return b
	}
	e := usual("att_1")
	opened, closed := record(kindOpen, appendEntry(nil, "org-a", &e)), record(kindClose, appendEntry(nil, "org-a", &e))
	f.Add(header, false)
	f.Add(append(append(header[:headerSize:headerSize], opened...), closed...), false)
	f.Add(append(append(append(header[:headerSize:headerSize], opened...), 1, 2, 3), closed...), true)
	f.Add(append(append(append(header[:headerSize:headerSize], closed...), record(kindDone, binary.AppendUvarint([]byte{1}, headerSize))...), record(kindCarried, nil)...), true)
	f.Add(append(header[:headerSize:headerSize], record(kindVoid, []byte("att_1"))...), false)
	s := tenanttest.Scope(f, "acme")
	f.Fuzz(func(t *testing.T, data []byte, reseal bool) {
		if reseal && len(data) > headerSize { // so that the CRCs do not keep it out
			seed, err := readHeader(data, 1)
			if err == nil && len(data)-headerSize > frameSize+1 {
				n := min(len(data)-headerSize, maxRecord)
				_ = endRecord(data[headerSize:headerSize+n], seed)
			}
		}
		dir := t.TempDir()
		path := filepath.Join(dir, "0000000001"+segmentExt)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		o := inJournal(dir, s)
		o.Sync = SyncOff
		l, err := Open(t.Context(), &fakeStore{}, o)
		if err != nil {
			if now, rerr := os.ReadFile(path); !errors.Is(err, errNewer) || rerr != nil || string(now) != string(data) {
				t.Errorf("%v, and the file is changed or gone: %v", err, rerr)
			}
			return
		}
		begin(t, l, s, "new").Record(usual("new"))
		flush(t, l)
		closeNow(t, l)
	})
}
