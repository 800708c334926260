//go:build !race

package ledger

import (
	"testing"

	"bulkhead/openai"
	"bulkhead/tenant/tenanttest"
)

// What the path of a request may allocate.
func TestAllocs(t *testing.T) {
	f := func(name string, budget float64, run func()) {
		t.Helper()
		if got := testing.AllocsPerRun(200, run); got > budget {
			t.Errorf("%s: %v allocations, budget %v", name, got, budget)
		}
	}
	f("NewAttemptID", 1, func() { NewAttemptID() })
	price, _ := load(t).Lookup("gemini", "gemini-2.5-flash")
	u := openai.Usage{Input: 500_000, CachedInput: 1000, AudioInput: 10, Output: 100, Reasoning: 50}
	f("Cost", 0, func() { Cost(price, u, "flex") })
	bound := Bound{Input: 300_000, HardInput: 300_000, Output: 16384, Answers: 1, CacheWrite: true, AnyTier: true}
	f("Dearest", 0, func() { price.Dearest(&bound) })
	f("Clamp", 0, func() { price.Clamp(&bound, 100_000_000) })
	seen := Seen{Usage: u, HasUsage: true, Whole: true}
	f("Settle", 0, func() { price.Settle(&bound, &seen) })
	f("FormatUSD", 1, func() { FormatUSD(123_456_789_012) })

	// One other place is taken, as on a gateway that is busy.
	l := open(t, &fakeStore{}, Options{})
	defer closeNow(t, l)
	s := tenanttest.Scope(t, "acme")
	first, err := l.Reserve(s)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Cancel()
	f("Reserve and Cancel", 0, func() {
		slot, err := l.Reserve(s)
		if err != nil {
			t.Fatal(err)
		}
		slot.Cancel()
	})
}
