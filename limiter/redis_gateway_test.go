package limiter_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
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

// A gateway dies: its holds are booked whole when their lease has ended. What
// its journal tells its successor stands in their place then, once.
func TestRedisGatewayDies(t *testing.T) {
	server := servers.Start(t, "redis")
	url := server.Var("REDIS_URL")
	all, f := fleet(t, url, 2, limiter.RedisOptions{Lease: time.Second})
	dies, lives := all[0], all[1]
	var left []*one
	for range 10 {
		left = append(left, f.take(dies, 5*usd))
	}
	ended := f.take(dies, 5*usd)
	f.end(ended, 2*usd)
	f.flush(dies)
	other := f.take(lives, 3*usd)
	f.stands(2*usd, 53*usd, lives)
	limiter.Kill(dies)
	eventually(t, "the lease ends", func() bool {
		st, err := lives.Standing(t.Context(), f.s, f.budgets)
		return err == nil && st[0].Held == 3*usd
	})
	f.stands(52*usd, 3*usd, lives)
	// The successor ships what it finds in the journal: some cost less, some
	// nothing, and of two it is not known yet.
	for i, a := range left[:8] {
		a.entry.Used = limiter.Used{Nano: int64(i) * usd}
		f.ledger.Record(f.s, a.entry)
		f.bill.Add(int64(i) * usd)
	}
	heir := gateway(t, url, limiter.RedisOptions{Options: limiter.Options{Book: f.ledger}, Lease: time.Second})
	for range 2 {
		heir.Shipped(f.s, f.ledger.Ship(f.s, 1<<30, func(n int) int { return n - 1 }))
	}
	f.flush(heir)
	f.stands(f.bill.Load()+2*5*usd, 3*usd, heir, lives)
	f.end(other, usd)
	f.flush(lives)
	f.stands(f.bill.Load()+2*5*usd, 0, heir, lives)
}

// A gateway is cut off for longer than its lease. It hears that its holds are
// gone when it is back, and what they did cost replaces what was booked, once.
func TestRedisGatewayCutOff(t *testing.T) {
	server := servers.Start(t, "redis")
	ledger := limitertest.NewLedger()
	p := newProxy(t, server.Var("REDIS_ADDR"))
	o := limiter.RedisOptions{Options: limiter.Options{Book: ledger}, Lease: time.Second, Heartbeat: 300 * time.Millisecond, Patience: 230 * time.Millisecond}
	cut, stays := gateway(t, p.url(), o), gateway(t, server.Var("REDIS_URL"), o)
	f := newTraffic(t, ledger, 100*usd, cut, stays)
	gone, short := f.take(cut, 5*usd), f.take(cut, 5*usd)
	f.stands(0, 10*usd, stays)
	p.freeze()
	eventually(t, "the lease ends", func() bool {
		st, err := stays.Standing(t.Context(), f.s, f.budgets)
		return err == nil && st[0].Held == 0
	})
	f.stands(10*usd, 0, stays)
	f.end(short, usd) // it does not know yet
	p.thaw()
	eventually(t, "it is told", func() bool { return f.lost.Load() == 1 })
	f.flush(cut)
	f.stands(6*usd, 0, stays, cut)
	f.end(gone, 2*usd)
	gone.End(limiter.Used{Nano: 9 * usd})
	f.flush(cut)
	f.exact(cut, stays)
}

// A gateway is cut off, everything is lost, the others go on without it. It comes
// late, and what it holds counts again.
func TestRedisGatewayComesLate(t *testing.T) {
	server := servers.Start(t, "redis")
	ledger := limitertest.NewLedger()
	p := newProxy(t, server.Var("REDIS_ADDR"))
	direct := redisClient(t, server.Var("REDIS_URL"))
	o := limiter.RedisOptions{Options: limiter.Options{Book: ledger}, Heartbeat: 200 * time.Millisecond, Patience: 230 * time.Millisecond}
	late, stays := gateway(t, p.url(), o), gateway(t, server.Var("REDIS_URL"), o)
	f := newTraffic(t, ledger, 100*usd, late, stays)
	runs, ends := f.take(late, 5*usd), f.take(late, 7*usd)
	mine := f.take(stays, 11*usd)
	p.freeze()
	do(t, direct, "FLUSHALL")
	f.end(f.take(stays, usd), usd) // the other is taken for dead
	f.end(ends, 3*usd)             // nobody hears of it
	f.flush(stays)
	f.ship(1 << 30) // but the store does, when all is read already
	f.stands(usd, 11*usd, stays)
	p.thaw()
	f.end(f.take(late, usd), usd)
	f.flush(late)
	f.stands(5*usd, 16*usd, stays, late)
	f.end(runs, 4*usd)
	f.end(mine, 2*usd)
	f.flush(late, stays)
	f.exact(late, stays)
}

// Replies are lost all the time: nothing counts twice, and no hold stays that
// nobody has.
func TestRedisRepliesLost(t *testing.T) {
	server := servers.Start(t, "redis")
	ledger := limitertest.NewLedger()
	p := newProxy(t, server.Var("REDIS_ADDR"))
	o := limiter.RedisOptions{Options: limiter.Options{Book: ledger}, Heartbeat: 300 * time.Millisecond}
	one, two := gateway(t, p.url(), o), gateway(t, p.url(), o)
	f := newTraffic(t, ledger, 2000*usd, one, two)
	f.run(10)
	p.lose.Store(20)
	f.moreCalls(800)
	if f.away.Load() < 20 {
		t.Errorf("only %d replies of holds were lost", f.away.Load())
	}
	p.lose.Store(0)
	p.cut()
	f.moreCalls(50)
	f.halt(one, two)
	f.exact(one, two)
	eventually(t, "no attempt is left", func() bool { st := one.Stats(); return st.Attempts == 0 && st.Open == 0 && st.HeldNano == 0 })
}

// What a client of Redis sees of one Hold is one script.
func TestRedisOneRoundTrip(t *testing.T) {
	server := servers.Start(t, "redis")
	all, f := fleet(t, server.Var("REDIS_URL"), 1, limiter.RedisOptions{})
	l := all[0]
	f.take(l, usd)
	conn, err := net.Dial("tcp", server.Var("REDIS_ADDR"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, "MONITOR\r\n"); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(conn)
	if line, err := r.ReadString('\n'); err != nil || line != "+OK\r\n" {
		t.Fatalf("%q, %v", line, err)
	}
	const holds = 50
	before := l.Stats().Calls
	for range holds {
		f.take(l, usd)
	}
	calls := l.Stats().Calls - before
	do(t, redisClient(t, server.Var("REDIS_URL")), "ECHO", "the end")
	scripts, others := 0, 0
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(line, `"the end"`) {
			break
		}
		switch client := !strings.Contains(line, " lua] "); {
		case client && strings.Contains(line, limiter.HoldScript):
			scripts++
		case client && strings.Contains(line, f.s.ID().String()):
			others++
		case !client && (strings.Contains(line, `"KEYS"`) || strings.Contains(line, `"SCAN"`)):
			t.Errorf("it looks for keys: %s", line)
		}
	}
	if scripts != holds || others != 0 || calls > holds+5 { // a heartbeat may come between
		t.Errorf("%d holds took %d scripts and %d other commands, %d calls in all", holds, scripts, others, calls)
	}
	// All keys are the company's, but for the registry.
	for _, key := range do(t, redisClient(t, server.Var("REDIS_URL")), "KEYS", "*").([]any) {
		if key != "bh:gateways" && !strings.HasPrefix(key.(string), "bh:{"+f.s.ID().String()+"}:") {
			t.Errorf("a key %q", key)
		}
	}
}

// The clock of a gateway does not matter: periods are those of Redis' clock.
func TestRedisClockOfGateway(t *testing.T) {
	server := servers.Start(t, "redis")
	now := time.Now()
	for _, off := range []time.Duration{-40 * 24 * time.Hour, -3 * time.Minute, 0, 2 * time.Hour, 40 * 24 * time.Hour} {
		all, f := fleet(t, server.Var("REDIS_URL"), 1, limiter.RedisOptions{Options: limiter.Options{Now: func() time.Time { return time.Now().Add(off) }}})
		day := budgetOf(tenant.Day, 100*usd)
		f.budgets = append(f.budgets, day)
		a := f.take(all[0], usd)
		if d := a.At().Sub(now); d < -time.Minute || d > time.Minute {
			t.Errorf("%s off: held at %s", off, a.At())
		}
		st, err := all[0].Standing(t.Context(), f.s, []*tenant.Budget{day})
		if err != nil || a.At().Before(st[0].From) || !a.At().Before(st[0].To) || st[0].Held != usd {
			t.Errorf("%s off: %+v, %v", off, st, err)
		}
	}
}

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
	for range 2 { // each outage has an allowance of its own
		if err := server.Stop(); err != nil {
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
		if err := server.Again(t.Context()); err != nil {
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
