package ledger

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"bulkhead/tenant/tenanttest"
)

// A process is told of those before it that all they wrote is there, and of none
// where that is not sure.
func TestEarlier(t *testing.T) {
	if bootID() == "" {
		t.Skip("the system does not say when it was started")
	}
	s := tenanttest.Scope(t, "acme")
	o := inJournal(t.TempDir(), s)
	store := &fakeStore{before: away}
	path := filepath.Join(o.Journal, processesName)
	f := func(what, name string, sync Sync, want ...string) *Ledger {
		t.Helper()
		o.Process, o.Sync = name, sync
		l := open(t, store, o)
		if got := l.Recovered().Earlier; !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
		awaitCarried(t, l)
		return l
	}
	crash(f("the first", "a", SyncDefault))
	crash(f("after a crash", "b", SyncOff, "a"))
	crash(f("without a name", "", SyncOff))
	l := f("after two", "c", SyncAlways, "a", "b")
	begin(t, l, s, "open")
	crash(l)
	// The machine was started again: what was not synced may be gone.
	text, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(path, []byte(strings.ReplaceAll(string(text), bootID(), "another")), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	crash(f("after another boot", "d", SyncDefault, "c"))
	crash(f("then", "e", SyncDefault, "c", "d"))
	// Damage.
	segment := filepath.Join(o.Journal, files(t, o.Journal)[0])
	data, err := os.ReadFile(segment)
	if err == nil {
		data[headerSize+frameSize+2]++
		err = os.WriteFile(segment, data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	l = f("with damage", "f", SyncDefault)
	if len(l.Recovered().Damage) == 0 {
		t.Error("nothing is damaged")
	}
	store.set(nil, nil)
	flush(t, l)
	closeNow(t, l)
	closeNow(t, f("after damage", "g", SyncDefault, "f"))
	// No more than are remembered.
	want := []string{"f", "g"}
	for i := range maxProcesses {
		name := fmt.Sprint("many", i)
		closeNow(t, f(name, name, SyncDefault, want[max(len(want)-(maxProcesses-1), 0):]...))
		want = append(want, name)
	}
	// Where it cannot be written, nobody is claimed to have written all.
	err = errors.Join(os.Remove(path), os.MkdirAll(filepath.Join(path, "not a file"), 0o700))
	if err != nil {
		t.Fatal(err)
	}
	closeNow(t, f("unwritable", "last", SyncDefault))
}
