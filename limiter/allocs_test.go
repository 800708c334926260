//go:build !race

package limiter_test

import (
	"context"
	"testing"

	"bulkhead/limiter"
	"bulkhead/tenant/tenanttest"
)

// A call that is admitted allocates nothing.
func TestAllocs(t *testing.T) {
	f := func(name string, o limiter.Options, a *limiter.Ask) {
		t.Helper()
		l := limiter.NewLocal(o)
		s := tenanttest.Scope(t, "acme")
		got := testing.AllocsPerRun(500, func() {
			h, _, err := l.Hold(context.Background(), s, a)
			if err != nil {
				t.Fatal(err)
			}
			h.End(limiter.Used{Tokens: 300})
		})
		if got != 0 {
			t.Errorf("%s: %v allocations", name, got)
		}
	}
	f("four limits", limiter.Options{}, everyday)
	f("no limits", limiter.Options{}, &limiter.Ask{})
	f("no limits at all", limiter.Options{TotalConcurrent: -1}, &limiter.Ask{})
}
