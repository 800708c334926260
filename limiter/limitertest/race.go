package limitertest

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"bulkhead/fault"
	"bulkhead/limiter"
	"bulkhead/tenant"
)

// testNeverOverspent makes 500 calls at once on a budget for about 470 of them:
// the bill is never above it, nearly all of it can be used, and who is refused
// because others hold it gets its turn.
func testNeverOverspent(t *testing.T, w *world) {
	const calls, worst, least, real = 500, dollar, 150_000_000, 213_000_000
	budgets := append(ten(100*dollar), of(tenant.OfCeiling, "", 200*dollar))
	by := by
	by.Lent = true
	var (
		bill, refused atomic.Int64
		wg            sync.WaitGroup
	)
	go1 := make(chan struct{})
	for range calls {
		wg.Go(func() {
			<-go1
			for end := time.Now().Add(2 * time.Minute); ; <-time.After(time.Millisecond) {
				a, _, err := w.try(w.acme, limiter.Ask{By: by, Nano: worst, LeastNano: least, Tokens: 100, Budgets: budgets})
				if err == nil {
					cost := min(real, a.Nano())
					bill.Add(cost)
					a.record(limiter.Used{Nano: cost})
					a.Hold.End(limiter.Used{Nano: cost})
					return
				}
				e := fault.As(err)
				if e.Type == bySpent {
					refused.Add(1)
					return
				}
				if e.Type != byHeld || time.Now().After(end) {
					t.Errorf("got %v", err)
					return
				}
			}
		})
	}
	close(go1)
	wg.Wait()
	w.Flush()
	if n := bill.Load(); n > 100*dollar || n < 95*dollar {
		t.Errorf("the bill is %d, the budget %d", n, 100*dollar)
	}
	if refused.Load() == 0 {
		t.Error("the test shows nothing: nobody was refused")
	}
	for _, b := range budgets {
		w.stands(w.acme, b, bill.Load(), 0)
	}
	w.ship(w.acme)
	w.stands(w.acme, ofKey(tenant.USD, tenant.Total, 1), bill.Load(), 0)
}

// testRace lets attempts of many owners begin, end and be shipped at once while
// periods are read for the first time and the time passes. In the end each has
// counted once in all it belongs to, and no budget that all had was overspent.
func testRace(t *testing.T, w *world) {
	const goroutines, each, limit = 24, 40, 30_000
	var (
		mu      sync.Mutex
		entries = map[tenant.ID][]Entry{}
		wg      sync.WaitGroup
	)
	periods := []tenant.Period{tenant.Day, tenant.Week, tenant.Month, tenant.Total}
	shared := []*tenant.Budget{of(tenant.OfCompany, "", limit), ofKey(tenant.USD, tenant.Day, limit)}
	for g := range goroutines {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(g), 7))
			for i := range each {
				s := w.acme
				if r.IntN(4) == 0 {
					s = w.other
				}
				by := limiter.By{Project: fmt.Sprint("p", r.IntN(3)), Key: "key_1", User: fmt.Sprint("u", r.IntN(10)), Lent: r.IntN(2) == 0}
				a := limiter.Ask{By: by, Nano: 50, Tokens: 9, Again: r.IntN(4) == 0, Budgets: append([]*tenant.Budget(nil), shared...)}
				for _, b := range []*tenant.Budget{of(tenant.OfProject, by.Project, 1<<40), of(tenant.OfUser, by.User, 1<<40)} {
					if b.Period = periods[r.IntN(len(periods))]; r.IntN(2) == 0 {
						a.Budgets = append(a.Budgets, b)
					}
				}
				held, _, err := w.try(s, a)
				if err != nil {
					if typ := fault.As(err).Type; typ != byHeld && typ != bySpent {
						t.Errorf("got %v", err)
					}
					continue
				}
				used := limiter.Used{Nano: r.Int64N(51), Tokens: r.Int64N(10)}
				held.record(used)
				if r.IntN(3) == 0 {
					w.Shipped(s, w.ledger.Ship(s, r.IntN(5), r.IntN))
				}
				held.Hold.End(used)
				mu.Lock()
				entries[s.ID()] = append(entries[s.ID()], held.entry)
				mu.Unlock()
				if i%10 == 9 && g%8 == 0 {
					w.Pass(5 * time.Hour)
				}
				if r.IntN(3) == 0 {
					w.Shipped(s, w.ledger.Ship(s, r.IntN(20), r.IntN))
				}
			}
		})
	}
	wg.Wait()
	w.Flush()
	now := w.Now()
	for _, s := range []tenant.Scope{w.acme, w.other} {
		var all []*tenant.Budget
		for _, unit := range []tenant.Unit{tenant.USD, tenant.Tokens, tenant.Requests} {
			for _, p := range periods {
				for _, b := range []*tenant.Budget{of(tenant.OfCompany, "", 1), of(tenant.OfCeiling, "", 1), of(tenant.OfProject, "p0", 1), of(tenant.OfProject, "p2", 1), of(tenant.OfUser, "u3", 1), of(tenant.OfUser, "u9", 1)} {
					b.Unit, b.Period = unit, p
					all = append(all, b)
				}
			}
		}
		for _, b := range all {
			var u limiter.Used
			for _, e := range entries[s.ID()] {
				if counts(&e, b, now) {
					add(&u, &e)
				}
			}
			w.stands(s, b, u.Of(b.Unit), 0)
		}
		notOverspent(t, shared, entries[s.ID()])
	}
}

// counts reports whether e counts in the period of b that holds at a moment.
func counts(e *Entry, b *tenant.Budget, at time.Time) bool {
	c := b.Calendar
	if c == nil {
		c = &tenant.Calendar{}
	}
	from, to := c.Window(b.Period, at)
	return within(e, &limiter.Span{Kind: b.Kind, Of: b.Of, From: from, To: to})
}

// notOverspent expects that no budget was overspent in any of its periods.
func notOverspent(t *testing.T, budgets []*tenant.Budget, entries []Entry) {
	t.Helper()
	for _, b := range budgets {
		for i := range entries {
			spent := int64(0)
			for j := range entries {
				if counts(&entries[j], b, entries[i].At) {
					spent += entries[j].Used.Nano
				}
			}
			if spent > b.Limit {
				t.Fatalf("%d is spent of the %s of %s, %d allowed", spent, b.Period, b.Kind, b.Limit)
			}
		}
	}
}
