package limiter_test

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"bulkhead/fault"
	"bulkhead/limiter"
	"bulkhead/limiter/limitertest"
	"bulkhead/tenant"
	"bulkhead/tenant/tenanttest"
)

const usd = 1_000_000_000

// by is who makes all attempts here.
var by = limiter.By{Project: "proj_1", Key: "key_1", User: "user_1", Lent: true}

// budgetOf is a budget of money of key_1.
func budgetOf(p tenant.Period, limit int64) *tenant.Budget {
	return &tenant.Budget{ID: "budget_1", Kind: tenant.OfKey, Of: "key_1", Unit: tenant.USD, Period: p, Limit: limit}
}

// traffic is attempts of one company at some gateways, and what they cost.
type traffic struct {
	t       *testing.T
	all     limiter.Limiter
	ledger  *limitertest.Ledger
	s       tenant.Scope
	budgets []*tenant.Budget

	pause time.Duration // between the attempts of a caller

	ids, bill, calls, away, slowest atomic.Int64
	lost                            atomic.Int64
	owners                          sync.Map // of attempts that were not asked of all
	stop                            chan struct{}
	wg                              sync.WaitGroup
}

func newTraffic(t *testing.T, ledger *limitertest.Ledger, limit int64, gateways ...limiter.Limiter) *traffic {
	return &traffic{t: t, all: limitertest.Spread(gateways...), ledger: ledger, s: tenanttest.Scope(t, "acme"), stop: make(chan struct{}),
		budgets: []*tenant.Budget{budgetOf(tenant.Month, limit), budgetOf(tenant.Total, 2*limit), {ID: "budget_2", Kind: tenant.OfCeiling, Unit: tenant.USD, Period: tenant.Day, Limit: 3 * limit}}}
}

// one is an attempt that is held.
type one struct {
	limiter.Hold
	entry limitertest.Entry
}

// hold tries once.
func (f *traffic) hold(l limiter.Limiter, nano int64) (*one, error) {
	a := &limiter.Ask{ID: fmt.Sprintf("att_%d", f.ids.Add(1)), By: by, Nano: nano, Tokens: 10, Budgets: f.budgets,
		Limits: []tenant.Limited{{Kind: "key", ID: "key_1", Limits: tenant.Limits{Concurrent: 10_000, TokensPerMinute: 1 << 40}}},
		Lost:   func(error) { f.lost.Add(1) }}
	start := time.Now()
	h, _, err := l.Hold(f.t.Context(), f.s, a)
	if d := int64(time.Since(start)); d > f.slowest.Load() {
		f.slowest.Store(d)
	}
	if err != nil {
		return nil, err
	}
	if l != f.all {
		f.owners.Store(a.ID, l) // else it is known there
	}
	return &one{h, limitertest.Entry{ID: a.ID, By: by, At: h.At(), First: true}}, nil
}

// take expects that it is admitted, at once or when Redis is there again.
func (f *traffic) take(l limiter.Limiter, nano int64) *one {
	f.t.Helper()
	var got *one
	eventually(f.t, "admitted", func() bool {
		var err error
		if got, err = f.hold(l, nano); err != nil && !fault.Is(err, fault.Unavailable) {
			f.t.Fatalf("refused: %s", err)
		}
		return err == nil
	})
	return got
}

// end ends an attempt as a gateway does.
func (f *traffic) end(a *one, nano int64) {
	a.entry.Used = limiter.Used{Nano: nano, Tokens: 5}
	f.ledger.Record(f.s, a.entry)
	f.bill.Add(nano)
	a.End(a.entry.Used)
}

// ship ships up to n entries, and tells those who held them.
func (f *traffic) ship(n int) {
	for _, id := range f.ledger.Ship(f.s, n, rand.IntN) {
		if l, ok := f.owners.LoadAndDelete(id); ok {
			l.(limiter.Limiter).Shipped(f.s, []string{id})
		} else {
			f.all.Shipped(f.s, []string{id})
		}
	}
}

// run keeps some callers busy until halt or until the budget is spent.
func (f *traffic) run(callers int) {
	for range callers {
		f.wg.Go(func() {
			for {
				select {
				case <-f.stop:
					return
				default:
				}
				<-time.After(f.pause)
				a, err := f.hold(f.all, usd)
				if err == nil {
					f.calls.Add(1)
					if rand.IntN(4) == 0 {
						<-time.After(time.Duration(rand.IntN(20)) * time.Millisecond) // it takes some time
					}
					f.end(a, rand.Int64N(usd/50))
					if rand.IntN(8) == 0 {
						f.ship(rand.IntN(20))
					}
					continue
				}
				e := fault.As(err)
				switch {
				case e.Type == "insufficient_quota":
					return
				case e.Kind == fault.Unavailable:
					f.away.Add(1)
				case e.Type != "budget_held":
					f.t.Errorf("got %v", err)
					return
				}
				<-time.After(time.Millisecond)
			}
		})
	}
}

// halt ends the callers, and what they did counts in every gateway.
func (f *traffic) halt(gateways ...*limiter.Redis) {
	f.t.Helper()
	close(f.stop)
	f.wg.Wait()
	f.flush(gateways...)
}

func (f *traffic) flush(gateways ...*limiter.Redis) {
	f.t.Helper()
	for _, l := range gateways {
		eventually(f.t, "flushed", func() bool { return l.Flush(f.t.Context()) == nil })
	}
}

// stands expects what is spent and held of every budget, by each gateway.
func (f *traffic) stands(spent, held int64, gateways ...*limiter.Redis) {
	f.t.Helper()
	for i, l := range gateways {
		var got []limiter.Standing
		eventually(f.t, "a standing", func() bool {
			var err error
			got, err = l.Standing(f.t.Context(), f.s, f.budgets)
			return err == nil
		})
		for n, st := range got {
			if st.Spent != spent || st.Held != held {
				f.t.Errorf("gateway %d, budget %d: %d spent, %d held, want %d and %d", i, n, st.Spent, st.Held, spent, held)
			}
		}
	}
}

// exact expects that all budgets stand where the bill is and none is overspent,
// before and after all is shipped, counted and read anew.
func (f *traffic) exact(gateways ...*limiter.Redis) {
	f.t.Helper()
	if bill, limit := f.bill.Load(), f.budgets[0].Limit; bill > limit {
		f.t.Errorf("the bill is %d, the budget %d", bill, limit)
	}
	f.stands(f.bill.Load(), 0, gateways...)
	f.ship(1 << 30)
	f.flush(gateways...)
	f.stands(f.bill.Load(), 0, gateways...)
	f.budgets = []*tenant.Budget{budgetOf(tenant.Week, 1), {Kind: tenant.OfProject, Of: "proj_1", Unit: tenant.USD, Period: tenant.Total, Limit: 1}}
	f.stands(f.bill.Load(), 0, gateways...)
	f.t.Logf("%d calls, %d times away, the slowest Hold took %s, %d lost", f.calls.Load(), f.away.Load(), time.Duration(f.slowest.Load()), f.lost.Load())
}

// moreCalls waits until so many more calls were admitted.
func (f *traffic) moreCalls(n int64) {
	f.t.Helper()
	want := f.calls.Load() + n
	eventually(f.t, "more calls", func() bool { return f.calls.Load() >= want })
}
