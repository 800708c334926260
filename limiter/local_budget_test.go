package limiter_test

import (
	"fmt"
	"testing"
	"time"

	"bulkhead/fault"
	"bulkhead/limiter"
	"bulkhead/limiter/limitertest"
	"bulkhead/tenant"
	"bulkhead/tenant/tenanttest"
)

// The budgets of users nobody has seen are bounded by their number, and those
// that are idle make room for others.
func TestUsersAreBounded(t *testing.T) {
	ledger := limitertest.NewLedger()
	l, c := newLocal(limiter.Options{Book: ledger, MaxWindows: 25, MaxWindowsPerCompany: 20})
	acme, other := tenanttest.Scope(t, "acme"), tenanttest.Scope(t, "other")
	attempts := 0
	f := func(s tenant.Scope, user int, want fault.Kind) {
		t.Helper()
		by, b := monthly(fmt.Sprint("u", user))
		attempts++
		a := limiter.Ask{ID: fmt.Sprint("att_", attempts), By: by, Nano: 60, Budgets: []*tenant.Budget{b}}
		h, _, err := l.Hold(t.Context(), s, &a)
		if want == 0 && err != nil || want != 0 && !fault.Is(err, want) {
			t.Errorf("user %d: %v", user, err)
		}
		if err == nil {
			used := limiter.Used{Nano: 30}
			ledger.Record(s, limitertest.Entry{ID: a.ID, By: by, At: h.At(), First: true, Used: used})
			h.End(used)
		}
	}
	for i := range 20 {
		f(acme, i, 0)
	}
	f(acme, 20, fault.RateLimited) // its share of the moment
	f(acme, 19, 0)                 // those there are go on
	for i := range 5 {
		f(other, i, 0)
	}
	f(other, 5, fault.Unavailable) // all there are
	// What was not asked for in the last seconds makes room.
	for i := range 300 {
		c.Pass(1100 * time.Millisecond)
		f(acme, 100+i, 0)
	}
	if st := l.Stats(); st.Windows > 25 || st.Attempts != 326 {
		t.Errorf("%+v", st)
	}
	// It was forgotten, and not what it spent.
	f(acme, 19, fault.RateLimited)
	c.Pass(2 * time.Second)
	f(other, 5, 0)
	// Nothing is kept of a company that is idle, once all is in the store.
	for _, s := range []tenant.Scope{acme, other} {
		l.Shipped(s, ledger.Ship(s, 1000, func(int) int { return 0 }))
	}
	c.Pass(time.Hour)
	for i := range 64 { // each shard sweeps when it is used
		h, _, _ := l.Hold(t.Context(), tenanttest.Scope(t, fmt.Sprint(i)), &limiter.Ask{})
		h.End(limiter.Used{})
		for range 50 {
			h, _, _ := l.Hold(t.Context(), tenanttest.Scope(t, "x"), &limiter.Ask{})
			h.End(limiter.Used{})
		}
	}
	if st := l.Stats(); st.Windows != 0 || st.Attempts != 0 || st.HeldNano != 0 {
		t.Errorf("%+v", st)
	}
	f(acme, 19, fault.RateLimited)
}

// A limit that is idle is not dropped by the making of room for the next of the
// same call.
func TestRoomIsNotMadeOfOnesOwn(t *testing.T) {
	l, c := newLocal(limiter.Options{MaxWindowsPerCompany: 2})
	s := tenanttest.Scope(t, "acme")
	limits := func(ids ...string) *limiter.Ask {
		a := &limiter.Ask{}
		for _, id := range ids {
			a.Limits = append(a.Limits, tenant.Limited{Kind: "key", ID: id, Limits: tenant.Limits{Concurrent: 1}})
		}
		return a
	}
	h, _, err := l.Hold(t.Context(), s, limits("a", "b"))
	if err != nil {
		t.Fatal(err)
	}
	h.End(limiter.Used{})
	c.Pass(119 * time.Second) // the minute's sweep is here, and a is not idle yet
	h, _, _ = l.Hold(t.Context(), s, limits("b"))
	h.End(limiter.Used{})
	c.Pass(6 * time.Second)
	if _, _, err := l.Hold(t.Context(), s, limits("a", "c")); !fault.Is(err, fault.RateLimited) {
		t.Errorf("a has made room for c: %v", err)
	}
}

// Attempts that are not in the store are bounded, for each company and in all.
func TestAttemptsAreBounded(t *testing.T) {
	l, _ := newLocal(limiter.Options{Book: limitertest.NewLedger(), MaxAttempts: 15, MaxAttemptsPerCompany: 10, TotalConcurrent: 20, CompanyConcurrent: 20})
	acme, other := tenanttest.Scope(t, "acme"), tenanttest.Scope(t, "other")
	n := 0
	f := func(s tenant.Scope, ok bool) string {
		t.Helper()
		n++
		id := fmt.Sprint("att_", n)
		h, _, err := l.Hold(t.Context(), s, &limiter.Ask{ID: id, Nano: 5})
		if ok && err != nil || !ok && !fault.Is(err, fault.Unavailable) {
			t.Errorf("attempt %d: %v", n, err)
		}
		h.End(limiter.Used{Nano: 3})
		return id
	}
	first := f(acme, true)
	for range 9 {
		f(acme, true)
	}
	f(acme, false)
	for range 5 {
		f(other, true)
	}
	f(other, false)
	if st := l.Stats(); st.Attempts != 15 || st.Open != 0 || st.RefusedFull != 2 {
		t.Errorf("%+v", st)
	}
	l.Shipped(acme, []string{first, first})
	f(other, true)
	f(acme, false)
	// One without an entry is not remembered, and no place was lost.
	for range 20 {
		if _, _, err := l.Hold(t.Context(), acme, &limiter.Ask{}); err != nil {
			t.Error(err)
		}
	}
}

// Where nobody can ask for a budget nothing is remembered of those that ended.
func TestNothingIsRememberedWithoutABook(t *testing.T) {
	l, _ := newLocal(limiter.Options{})
	s := tenanttest.Scope(t, "acme")
	for i := range 100 {
		h, _, err := l.Hold(t.Context(), s, &limiter.Ask{ID: fmt.Sprint("att_", i), Limits: keyed(1, tenant.Limits{Concurrent: 5}).Limits})
		if err != nil || h.At().IsZero() {
			t.Fatalf("%v, held at %s", err, h.At())
		}
		h.End(limiter.Used{Tokens: 1})
	}
	if st := l.Stats(); st.Attempts != 0 || st.Open != 0 {
		t.Errorf("%+v", st)
	}
}

// The same id twice would be one entry for two attempts.
func TestIDTwicePanics(t *testing.T) {
	l, _ := newLocal(limiter.Options{Book: limitertest.NewLedger()})
	s := tenanttest.Scope(t, "acme")
	h, _, err := l.Hold(t.Context(), s, &limiter.Ask{ID: "att_1"})
	if err != nil {
		t.Fatal(err)
	}
	twice := func() (p any) {
		defer func() { p = recover() }()
		_, _, _ = l.Hold(t.Context(), s, &limiter.Ask{ID: "att_1"})
		return nil
	}
	if twice() == nil {
		t.Error("no panic")
	}
	h.End(limiter.Used{})
	if twice() == nil {
		t.Error("no panic while the entry is not in the store")
	}
	l.Shipped(s, []string{"att_1"})
	if p := twice(); p != nil {
		t.Error(p)
	}
	if st := l.Stats(); st.Open != 1 || st.Attempts != 1 {
		t.Errorf("%+v", st)
	}
}

// Known says what is counted and asks nobody.
func TestKnown(t *testing.T) {
	ledger := limitertest.NewLedger()
	l, c := newLocal(limiter.Options{Book: ledger})
	s := tenanttest.Scope(t, "acme")
	by, b := monthly("u")
	if _, ok := l.Known(s, b); ok || ledger.Reads() != 0 {
		t.Error("known before it was counted")
	}
	h, _, err := l.Hold(t.Context(), s, &limiter.Ask{ID: "att_1", By: by, Nano: 40, Budgets: []*tenant.Budget{b}})
	if err != nil {
		t.Fatal(err)
	}
	if st, ok := l.Known(s, b); !ok || st.Held != 40 || st.To != time.Date(1970, 2, 1, 0, 0, 0, 0, time.UTC) {
		t.Errorf("%t %+v", ok, st)
	}
	h.End(limiter.Used{Nano: 50})
	if st, ok := l.Known(s, b); !ok || st.Held != 0 || st.Spent != 50 {
		t.Errorf("%t %+v", ok, st)
	}
	if st := l.Stats(); st.Reads != 1 || st.Windows != 1 {
		t.Errorf("%+v", st)
	}
	c.Pass(40 * 24 * time.Hour)
	if _, ok := l.Known(s, b); ok || ledger.Reads() != 1 {
		t.Error("a new month is known before it was counted")
	}
}

// A moment is in one period: its first is in it, its last is the next's first.
func TestMidnight(t *testing.T) {
	l, c := newLocal(limiter.Options{Book: limitertest.NewLedger()})
	s := tenanttest.Scope(t, "acme")
	by, b := monthly("u")
	b.Period = tenant.Day
	midnight := time.Unix(0, 0).UTC().AddDate(0, 0, 1)
	c.Pass(midnight.Add(-time.Microsecond).Sub(c.Now()))
	f := func(id string, nano, day int64) {
		t.Helper()
		h, _, err := l.Hold(t.Context(), s, &limiter.Ask{ID: id, By: by, Nano: nano, Budgets: []*tenant.Budget{b}})
		if err != nil {
			t.Fatal(err)
		}
		h.End(limiter.Used{Nano: nano})
		if st, _ := l.Known(s, b); st.Spent != day || !h.At().Equal(c.Now()) {
			t.Errorf("%d are spent, want %d; at %s", st.Spent, day, h.At())
		}
	}
	f("att_1", 1, 1)
	c.Pass(time.Microsecond)
	f("att_2", 10, 10)
	c.Pass(-time.Microsecond)
	f("att_3", 1, 2)
	c.Pass(time.Microsecond)
	f("att_4", 10, 20)
}
