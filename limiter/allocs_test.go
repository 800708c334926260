//go:build !race

package limiter_test

import (
	"testing"

	"bulkhead/limiter"
	"bulkhead/limiter/limitertest"
	"bulkhead/tenant/tenanttest"
)

// A call that is admitted allocates nothing, from its hold until its entry is in
// the store.
func TestAllocs(t *testing.T) {
	f := func(name string, o limiter.Options, a *limiter.Ask) {
		t.Helper()
		o.Book = limitertest.NewLedger()
		l := limiter.NewLocal(o)
		call := life(l, tenanttest.Scope(t, "acme"))
		got := testing.AllocsPerRun(2000, func() {
			if err := call(a); err != nil {
				t.Fatal(err)
			}
		})
		if got != 0 {
			t.Errorf("%s: %v allocations", name, got)
		}
	}
	f("four limits and three budgets", limiter.Options{}, budgeted(everyday))
	f("four limits", limiter.Options{}, everyday)
	f("no limits", limiter.Options{}, &limiter.Ask{})
	f("no limits at all", limiter.Options{TotalConcurrent: -1}, &limiter.Ask{})
}
