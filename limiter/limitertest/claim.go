package limitertest

import (
	"sync"
	"sync/atomic"
	"testing"

	"bulkhead/fault"
	"bulkhead/limiter"
	"bulkhead/tenant"
)

// claiming asks for a claim, and for money of a budget.
func claiming(claim string, nano int64, budgets ...*tenant.Budget) limiter.Ask {
	a := ask(nano, budgets...)
	a.Claim = claim
	return a
}

// claimed expects that another attempt has the claim.
func (w *world) claimed(s tenant.Scope, a limiter.Ask) {
	w.t.Helper()
	_, _, err := w.try(s, a)
	if e := fault.As(err); err == nil || e.Kind != fault.Conflict || e.Code != limiter.CodeClaimed || e.RetryAfter <= 0 || e.NoRetry {
		w.t.Fatalf("got %v, want that the claim is taken", err)
	}
}

// testClaims: of one claim one attempt runs, and who is refused takes nothing.
func testClaims(t *testing.T, w *world) {
	b := of(tenant.OfCompany, "", 10*dollar)
	first := w.take(w.acme, claiming("same", dollar, b))
	w.claimed(w.acme, claiming("same", dollar, b))
	// Also one that no budget has room for: it is told what matters.
	w.claimed(w.acme, claiming("same", 100*dollar, b))
	limited := claiming("same", 0)
	limited.Limits = key(tenant.Limits{RequestsPerMinute: 1})
	w.claimed(w.acme, limited)
	w.stands(w.acme, b, 0, dollar)
	limited.Claim = "other"
	w.take(w.acme, limited).cost(0) // the refused one took none of it

	// Neither another claim nor none is in the way, nor the same of another company.
	w.take(w.acme, claiming("SAME", 0)).cost(0)
	w.take(w.acme, claiming("", 0)).cost(0)
	w.take(w.acme, claiming("", 0)).cost(0)
	w.take(w.other, claiming("same", 0)).cost(0)

	// It ends with the attempt: settled and no longer open.
	first.record(limiter.Used{Nano: dollar})
	first.Settle(limiter.Used{Nano: dollar})
	w.claimed(w.acme, claiming("same", 0))
	first.Release()
	second := w.take(w.acme, claiming("same", dollar, b))
	first.End(limiter.Used{}) // has ended: it takes nothing from the second
	w.claimed(w.acme, claiming("same", 0))
	second.Release()
	w.claimed(w.acme, claiming("same", 0))
	second.cost(0)
	// Known or shipped, one that has ended has none.
	w.take(w.acme, claiming("same", 0)).cost(0)
	w.ship(w.acme)
	w.take(w.acme, claiming("same", 0)).cost(0)
	w.stands(w.acme, b, dollar, 0)
	// One that a limit refuses has none.
	limited.Claim = "refused"
	w.Flush()
	if _, _, err := w.try(w.acme, limited); err == nil {
		t.Error("two requests in a minute, of one")
	}
	w.take(w.acme, claiming("refused", 0)).cost(0)
}

// testClaimRace: of many at once one is admitted.
func testClaimRace(t *testing.T, w *world) {
	for range 5 {
		var admitted, refused atomic.Int64
		var wg sync.WaitGroup
		var begin sync.WaitGroup
		begin.Add(1)
		var winner atomic.Pointer[attempt]
		for range 50 {
			wg.Go(func() {
				begin.Wait()
				a, _, err := w.try(w.acme, claiming("race", 0))
				switch {
				case err == nil:
					admitted.Add(1)
					winner.Store(a)
				case fault.As(err).Code == limiter.CodeClaimed:
					refused.Add(1)
				default:
					t.Error(err)
				}
			})
		}
		begin.Done()
		wg.Wait()
		if admitted.Load() != 1 || refused.Load() != 49 {
			t.Fatalf("%d admitted, %d refused", admitted.Load(), refused.Load())
		}
		winner.Load().cost(0)
	}
}
