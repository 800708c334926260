//go:build !race

package ledger

import (
	"context"
	"testing"

	"bulkhead/tenant/tenanttest"
)

// What the journal may allocate on the path of a request, while the store keeps
// the shipper waiting. What waits grows now and then, not for each attempt.
func TestJournalAllocs(t *testing.T) {
	s := tenanttest.Scope(t, "acme")
	o := inJournal(t.TempDir(), s)
	o.Sync = SyncOff
	back := make(chan struct{})
	l := open(t, &fakeStore{before: func(context.Context, []Booked) error { <-back; return nil }}, o)
	defer closeNow(t, l)
	defer close(back)
	e := usual("att_1")
	opened := func() Slot {
		slot, err := l.Reserve(s)
		if err == nil {
			err = slot.Open(e)
		}
		if err != nil {
			t.Fatal(err)
		}
		return slot
	}
	f := func(name string, run func()) {
		t.Helper()
		for range 1000 {
			run()
		}
		if got := testing.AllocsPerRun(200, run); got > 0 {
			t.Errorf("%s: %v allocations, budget 0", name, got)
		}
	}
	f("Reserve, Open and Record", func() { slot := opened(); slot.Record(e) })
	f("Reserve, Open and Cancel", func() { slot := opened(); slot.Cancel() })
}
