package limiter_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"bulkhead/fault"
	"bulkhead/limiter"
	"bulkhead/limiter/limitertest"
	"bulkhead/tenant"
	"bulkhead/tenant/tenanttest"
)

func TestLocal(t *testing.T) {
	limitertest.Run(t, func(t *testing.T, o limiter.Options) limitertest.Opened {
		c := limitertest.NewClock(time.Unix(1, 0))
		o.Now = c.Now
		return limitertest.Opened{Limiter: limiter.NewLocal(o), Now: c.Now, Pass: c.Pass}
	})
}

// The suite leaves room for a clock that runs, as a server's does, and for
// several gateways.
func TestLocalWhileTheClockRuns(t *testing.T) {
	limitertest.Run(t, func(t *testing.T, o limiter.Options) limitertest.Opened {
		var passed atomic.Int64
		o.Now = func() time.Time { return time.Now().Round(0).Add(time.Duration(passed.Load())) }
		return limitertest.Opened{
			Limiter: limitertest.Spread(limiter.NewLocal(o)), Now: o.Now, Runs: true,
			Pass: func(d time.Duration) { passed.Add(int64(d)) },
		}
	})
}

func newLocal(o limiter.Options) (*limiter.Local, *limitertest.Clock) {
	c := limitertest.NewClock(time.Unix(1, 0))
	o.Now = c.Now
	return limiter.NewLocal(o), c
}

func keyed(id int, l tenant.Limits) *limiter.Ask {
	return &limiter.Ask{Tokens: 1, Limits: []tenant.Limited{{Kind: "key", ID: fmt.Sprint("key_", id), Limits: l}}}
}

// What is idle is forgotten; what is held is not, however long.
func TestIdleIsDropped(t *testing.T) {
	l, c := newLocal(limiter.Options{})
	f := func(want limiter.Stats) {
		t.Helper()
		got := l.Stats()
		got.RefusedByLimit, got.RefusedFull = 0, 0
		if got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
	limits := tenant.Limits{TokensPerMinute: 10, Concurrent: 1}
	acme, other := tenanttest.Scope(t, "acme"), tenanttest.Scope(t, "other")
	hold := func(s tenant.Scope, id int) limiter.Hold {
		t.Helper()
		h, _, err := l.Hold(t.Context(), s, keyed(id, limits))
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	long := hold(acme, 0)
	for i := range 999 {
		hold(acme, i+1).End(limiter.Used{Tokens: 1})
	}
	hold(other, 0).End(limiter.Used{Tokens: 1})
	f(limiter.Stats{Companies: 2, Windows: 1001, Open: 1})
	c.Pass(time.Hour)
	hold(acme, 5000).End(limiter.Used{Tokens: 1}) // sweeps
	hold(other, 5000).End(limiter.Used{Tokens: 1})
	f(limiter.Stats{Companies: 2, Windows: 3, Open: 1})
	if _, _, err := l.Hold(t.Context(), acme, keyed(0, limits)); !fault.Is(err, fault.RateLimited) {
		t.Errorf("the window of an open call is lost: %v", err)
	}
	// A hold that is settled and not released, or the other way round, counts still.
	long.Settle(limiter.Used{Tokens: 1})
	c.Pass(time.Hour)
	hold(acme, 5000).End(limiter.Used{Tokens: 1})
	if _, _, err := l.Hold(t.Context(), acme, keyed(0, limits)); !fault.Is(err, fault.RateLimited) {
		t.Errorf("the window of an open call is lost: %v", err)
	}
	long.Release()
	c.Pass(time.Hour)
	hold(other, 1).End(limiter.Used{Tokens: 1})
	hold(acme, 1).End(limiter.Used{Tokens: 1})
	f(limiter.Stats{Companies: 2, Windows: 2})
}

// A call that no limit holds for counts in the company's share for as long as
// it is open.
func TestOpenCallIsNotForgotten(t *testing.T) {
	l, c := newLocal(limiter.Options{CompanyConcurrent: 1})
	s := tenanttest.Scope(t, "acme")
	h, _, err := l.Hold(t.Context(), s, &limiter.Ask{})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		c.Pass(time.Hour)
		if _, _, err := l.Hold(t.Context(), s, &limiter.Ask{}); !fault.Is(err, fault.RateLimited) {
			t.Errorf("got %v", err)
		}
	}
	h.End(limiter.Used{})
	if _, _, err := l.Hold(t.Context(), s, &limiter.Ask{}); err != nil {
		t.Error(err)
	}
}

// The windows of one company, and of all, are bounded.
func TestWindowsAreBounded(t *testing.T) {
	l, c := newLocal(limiter.Options{MaxWindows: 15, MaxWindowsPerCompany: 10})
	limits := tenant.Limits{RequestsPerMinute: 100}
	acme, other := tenanttest.Scope(t, "acme"), tenanttest.Scope(t, "other")
	f := func(s tenant.Scope, id int, want fault.Kind) {
		t.Helper()
		h, _, err := l.Hold(t.Context(), s, keyed(id, limits))
		h.End(limiter.Used{Tokens: 1})
		if want == 0 && err != nil || want != 0 && !fault.Is(err, want) {
			t.Errorf("key %d: %v", id, err)
		}
	}
	for i := range 10 {
		f(acme, i, 0)
	}
	f(acme, 10, fault.RateLimited) // its share
	f(acme, 9, 0)                  // those there are go on
	for i := range 5 {
		f(other, i, 0)
	}
	f(other, 5, fault.Unavailable) // the total
	f(other, 4, 0)
	if got := l.Stats().Windows; got != 15 {
		t.Errorf("%d windows", got)
	}
	// When the others' are idle there is room, wherever they are.
	c.Pass(2*time.Minute + time.Second)
	f(tenanttest.Scope(t, "third"), 0, 0)
	f(other, 6, 0)
	f(acme, 11, 0)
	if got := l.Stats().Windows; got != 3 {
		t.Errorf("%d windows", got)
	}
	// Likewise within a company, before the minute's sweep.
	for i := range 9 {
		f(acme, 20+i, 0)
	}
	c.Pass(90 * time.Second)
	f(acme, 11, 0) // the minute's sweep
	f(acme, 40, fault.RateLimited)
	c.Pass(31 * time.Second)
	f(acme, 41, 0)
}

// A clock that is set back stops the time and breaks nothing.
func TestClockGoesBack(t *testing.T) {
	l, c := newLocal(limiter.Options{})
	s := tenanttest.Scope(t, "acme")
	a := keyed(1, tenant.Limits{RequestsPerMinute: 1, TokensPerMinute: 1})
	h, _, err := l.Hold(t.Context(), s, a)
	if err != nil {
		t.Fatal(err)
	}
	c.Pass(-time.Hour)
	h.End(limiter.Used{Tokens: 1})
	if _, _, err := l.Hold(t.Context(), s, a); !fault.Is(err, fault.RateLimited) {
		t.Errorf("got %v", err)
	}
	c.Pass(time.Hour) // where it was
	if _, _, err := l.Hold(t.Context(), s, a); !fault.Is(err, fault.RateLimited) {
		t.Errorf("got %v", err)
	}
	c.Pass(time.Minute)
	if _, _, err := l.Hold(t.Context(), s, a); err != nil {
		t.Error(err)
	}
}

func TestTooManyLimitsPanic(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	l, _ := newLocal(limiter.Options{})
	_, _, _ = l.Hold(t.Context(), tenanttest.Scope(t, "acme"), &limiter.Ask{Limits: make([]tenant.Limited, 9)})
}

// everyday is what a call of a company with all sorts of limits asks.
var everyday = &limiter.Ask{
	Tokens: 1000,
	Limits: []tenant.Limited{
		{Kind: "company", ID: "org-1", Limits: tenant.Limits{RequestsPerMinute: 1 << 40, TokensPerMinute: 1 << 50, Concurrent: 1000}},
		{Kind: "project", ID: "proj_1", Limits: tenant.Limits{RequestsPerMinute: 1 << 40, TokensPerMinute: 1 << 50}},
		{Kind: "key", ID: "key_1", Limits: tenant.Limits{RequestsPerMinute: 1 << 40}},
	},
	Model: &tenant.Limited{Kind: "model", ID: "proj_1 gpt-4o", Limits: tenant.Limits{TokensPerMinute: 1 << 50}},
}

// budgeted is such a call with budgets of the company, the project and the key.
func budgeted(limits *limiter.Ask) *limiter.Ask {
	zone := &tenant.Calendar{Zone: time.FixedZone("", 3600)}
	a := *limits
	a.By = limiter.By{Project: "proj_1", Key: "key_1", User: "user_1"}
	a.Nano, a.LeastNano = 1000, 10
	a.Budgets = []*tenant.Budget{
		{ID: "budget_1", Kind: tenant.OfCompany, Unit: tenant.USD, Period: tenant.Month, Limit: tenant.MaxBudget, Calendar: zone},
		{ID: "budget_2", Kind: tenant.OfProject, Of: "proj_1", Unit: tenant.USD, Period: tenant.Day, Limit: tenant.MaxBudget, Calendar: zone},
		{ID: "budget_3", Kind: tenant.OfKey, Of: "key_1", Unit: tenant.Requests, Period: tenant.Day, Limit: tenant.MaxBudget, Calendar: zone},
	}
	return &a
}

// life is all a call does with its limiter, until its entry is in the store. Its
// id is one of many.
func life(l *limiter.Local, s tenant.Scope) func(a *limiter.Ask) error {
	ids := make([]string, 1000)
	for i := range ids {
		ids[i] = fmt.Sprintf("att_%025d", i)
	}
	n, ask := 0, limiter.Ask{}
	return func(a *limiter.Ask) error {
		id := ids[n%len(ids) : n%len(ids)+1]
		n++
		ask = *a
		ask.ID = id[0]
		h, _, err := l.Hold(context.Background(), s, &ask)
		if err != nil {
			return err
		}
		h.End(limiter.Used{Tokens: 300, Nano: 1})
		l.Shipped(s, id)
		return nil
	}
}

func BenchmarkHold(b *testing.B) {
	f := func(name string, a *limiter.Ask) {
		b.Run(name, func(b *testing.B) {
			l := limiter.NewLocal(limiter.Options{Book: limitertest.NewLedger()})
			call := life(l, tenanttest.Scope(b, "acme"))
			if err := call(a); err != nil { // counted from here on
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if err := call(a); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	f("no limits", &limiter.Ask{Tokens: 1000})
	f("four limits", everyday)
	f("three budgets", budgeted(&limiter.Ask{Tokens: 1000}))
	f("four limits and three budgets", budgeted(everyday))
	b.Run("without an entry", func(b *testing.B) {
		l := limiter.NewLocal(limiter.Options{})
		s := tenanttest.Scope(b, "acme")
		b.ReportAllocs()
		for b.Loop() {
			h, _, err := l.Hold(context.Background(), s, everyday)
			if err != nil {
				b.Fatal(err)
			}
			h.End(limiter.Used{Tokens: 300})
		}
	})
}

func BenchmarkHoldParallel(b *testing.B) {
	l := limiter.NewLocal(limiter.Options{Book: limitertest.NewLedger()})
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		call, a := life(l, tenanttest.Scope(b, "acme")), budgeted(everyday)
		for pb.Next() {
			if err := call(a); err != nil {
				b.Error(err)
				return
			}
		}
	})
}
