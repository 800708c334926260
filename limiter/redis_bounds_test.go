package limiter_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"bulkhead/fault"
	"bulkhead/limiter"
	"bulkhead/limiter/limitertest"
	"bulkhead/redisdb"
	"bulkhead/tenant"
	"bulkhead/tenant/tenanttest"
	"bulkhead/test/servers"
)

// A server that would throw keys away is not used.
func TestRedisUnfit(t *testing.T) {
	server := servers.Start(t, "redis")
	c, err := redisdb.Open(server.Var("REDIS_URL"), redisdb.Options{Probe: 10 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	l := limiter.OpenRedis(c, limiter.RedisOptions{Heartbeat: 100 * time.Millisecond})
	defer l.Close()
	s := tenanttest.Scope(t, "acme")
	hold := func() error {
		h, _, err := l.Hold(t.Context(), s, &limiter.Ask{})
		h.End(limiter.Used{})
		return err
	}
	eventually(t, "admitted", func() bool { return hold() == nil })
	do(t, c, "CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
	eventually(t, "refused", func() bool { return fault.Is(hold(), fault.Unavailable) })
	if err := l.Ready(); err == nil || !strings.Contains(err.Error(), "noeviction") {
		t.Errorf("got %v", err)
	}
	do(t, c, "CONFIG", "SET", "maxmemory-policy", "noeviction")
	eventually(t, "admitted", func() bool { return hold() == nil })
	// A full server refuses what is new and keeps what there is.
	do(t, c, "CONFIG", "SET", "maxmemory", "1")
	if err := hold(); !fault.Is(err, fault.Unavailable) {
		t.Errorf("got %v", err)
	}
	do(t, c, "CONFIG", "SET", "maxmemory", "0")
	eventually(t, "admitted", func() bool { return hold() == nil })
}

// While Redis is away a company that is allowed to uses so much and no more, of
// its own credentials, and it counts when Redis is back.
func TestRedisAllowance(t *testing.T) {
	server := servers.Start(t, "redis")
	ledger := limitertest.NewLedger()
	var allowed tenant.Scope
	o := limiter.RedisOptions{Options: limiter.Options{Book: ledger}, Heartbeat: 200 * time.Millisecond, Patience: 230 * time.Millisecond,
		Allow: func(s tenant.Scope) limiter.Allowance {
			if s.ID() == allowed.ID() {
				return limiter.Allowance{Nano: 10 * usd, Requests: 5}
			}
			return limiter.Allowance{}
		}}
	l := gateway(t, server.Var("REDIS_URL"), o)
	f := newTraffic(t, ledger, 100*usd, l)
	allowed = f.s
	own := by
	own.Lent = false
	hold := func(s tenant.Scope, who limiter.By, nano, least int64) (*one, error) {
		budgets := f.budgets[:2]
		a := &limiter.Ask{ID: fmt.Sprintf("att_a%d", f.ids.Add(1)), By: who, Nano: nano, LeastNano: least, Budgets: budgets}
		h, st, err := l.Hold(t.Context(), s, a)
		if err == nil && !st.HasBudget {
			t.Error("no state of the budget")
		}
		return &one{h, limitertest.Entry{ID: a.ID, By: who, At: h.At(), First: true}}, err
	}
	before, err := hold(f.s, own, 3*usd, 0)
	if err != nil {
		t.Fatal(err)
	}
	for round := range 2 { // each outage has an allowance of its own
		pid := server.PIDs("REDIS_PID")[0]
		if round == 0 {
			if err := server.Stop(); err != nil {
				t.Fatal(err)
			}
		} else if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		refused := func(s tenant.Scope, who limiter.By, nano int64) {
			t.Helper()
			if _, err := hold(s, who, nano, 0); !fault.Is(err, fault.Unavailable) {
				t.Errorf("got %v", err)
			}
		}
		refused(f.s, by, 1) // of a lent credential
		refused(tenanttest.Scope(t, "other"), own, 1)
		refused(f.s, own, 10*usd+1)
		var taken []*one
		for _, nano := range []int64{4 * usd, usd, 20 * usd} { // of the last there is room for 5
			a, err := hold(f.s, own, nano, usd)
			if err != nil {
				t.Fatal(err)
			}
			taken = append(taken, a)
		}
		if n := taken[2].Nano(); n != 5*usd {
			t.Errorf("%d granted", n)
		}
		refused(f.s, own, 1)
		for range 2 { // free ones are calls, too
			a, err := hold(f.s, own, 0, 0)
			if err != nil {
				t.Fatal(err)
			}
			taken = append(taken, a)
		}
		refused(f.s, own, 0)
		f.end(taken[0], 2*usd)
		if round == 0 {
			if err := server.Again(t.Context()); err != nil {
				t.Fatal(err)
			}
		} else if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		f.budgets = f.budgets[:2]
		bill := f.bill.Load()
		eventually(t, "it counts", func() bool {
			st, err := l.Standing(t.Context(), f.s, f.budgets)
			return err == nil && st[0].Spent == bill && st[0].Held == 9*usd
		})
		for i, a := range taken[1:] {
			f.end(a, int64(i)*usd)
		}
		f.flush(l)
		f.end(f.take(l, usd), 0)
		f.flush(l)
		f.stands(f.bill.Load(), 3*usd, l)
	}
	f.end(before, usd)
	f.flush(l)
	f.exact(l)
}

// A company has so many windows and no more, and idle ones make room.
func TestRedisWindows(t *testing.T) {
	server := servers.Start(t, "redis")
	clock := limitertest.NewClock(time.Now())
	ledger := limitertest.NewLedger()
	l := gateway(t, server.Var("REDIS_URL"), limiter.RedisOptions{Options: limiter.Options{Book: ledger, Now: clock.Now, MaxWindowsPerCompany: 60}})
	limiter.SetRedisClock(l, clock.Now)
	s := tenanttest.Scope(t, "acme")
	hold := func(i int) error {
		h, _, err := l.Hold(t.Context(), s, keyed(i, tenant.Limits{RequestsPerMinute: 5}))
		h.End(limiter.Used{})
		return err
	}
	full := func() (n int, err error) {
		for ; n < 100 && err == nil; n++ {
			err = hold(n)
		}
		return n, err
	}
	n, err := full()
	if n < 50 || n > 60 || !fault.Is(err, fault.RateLimited) || !fault.As(err).NoRetry {
		t.Errorf("%d windows, then %v", n, err)
	}
	if err := hold(0); err != nil {
		t.Errorf("one that is there: %s", err)
	}
	if err := l.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	clock.Pass(3 * time.Minute)
	if again, err := full(); again < n-5 || err == nil { // the idle ones have gone
		t.Errorf("%d windows, then %v", again, err)
	}
	// What is open is not idle.
	call := &limiter.Ask{Limits: []tenant.Limited{{Kind: "key", ID: "key_0", Limits: tenant.Limits{Concurrent: 1}}}}
	open, _, err := l.Hold(t.Context(), s, call)
	if err != nil {
		t.Fatal(err)
	}
	clock.Pass(time.Hour)
	if err := limiter.Tidy(t.Context(), l, s); err != nil {
		t.Fatal(err)
	}
	if _, _, err := l.Hold(t.Context(), s, call); !fault.Is(err, fault.RateLimited) {
		t.Errorf("an open call is forgotten: %v", err)
	}
	open.End(limiter.Used{})
	// Users come and go, and what they spent is read again.
	clock.Pass(3 * time.Minute)
	if err := l.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	f := newTraffic(t, ledger, usd, l)
	f.s = s
	for round := range 2 {
		for i := range 100 {
			who := limiter.By{User: fmt.Sprint("user_", i)}
			b := &tenant.Budget{Kind: tenant.OfUser, Of: who.User, Unit: tenant.USD, Period: tenant.Month, Limit: 10}
			h, st, err := l.Hold(t.Context(), s, &limiter.Ask{ID: fmt.Sprintf("att_u%d_%d", round, i), By: who, Nano: 4, Budgets: []*tenant.Budget{b}})
			if err != nil {
				t.Fatal(err)
			}
			if want := int64(6 - 4*round); st.RemainingNano != want {
				t.Errorf("user %d: %d left, want %d", i, st.RemainingNano, want)
			}
			f.end(&one{h, limitertest.Entry{ID: fmt.Sprintf("att_u%d_%d", round, i), By: who, At: h.At()}}, 4)
			f.flush(l)
		}
	}
	// What is idle goes by itself, too.
	f.ship(1 << 30)
	f.flush(l)
	clock.Pass(40 * 24 * time.Hour)
	if err := limiter.Tidy(context.Background(), l, s); err != nil {
		t.Fatal(err)
	}
	direct := redisClient(t, server.Var("REDIS_URL"))
	fields := do(t, direct, "HKEYS", "bh:{"+s.ID().String()+"}:counts").([]any)
	if i := slices.IndexFunc(fields, func(f any) bool { return strings.HasPrefix(f.(string), "r") || strings.HasPrefix(f.(string), "o") }); i >= 0 {
		t.Errorf("%d fields are left, among them %q", len(fields), fields[i])
	}
	if ttl, _ := do(t, direct, "TTL", "bh:{"+s.ID().String()+"}:counts").(int64); ttl < 30*24*3600 {
		t.Errorf("the company is forgotten after %d s", ttl)
	}
}
