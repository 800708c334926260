package limiter_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"bulkhead/fault"
	"bulkhead/limiter"
	"bulkhead/limiter/limitertest"
	"bulkhead/redisdb"
	"bulkhead/tenant"
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
	calls := func() error { // there may be two
		h, _, err := lives.Hold(t.Context(), f.s, &limiter.Ask{Limits: []tenant.Limited{{Kind: "key", ID: "key_1", Limits: tenant.Limits{Concurrent: 2}}}})
		h.End(limiter.Used{})
		return err
	}
	if err := calls(); !fault.Is(err, fault.RateLimited) {
		t.Errorf("got %v", err)
	}
	limiter.Kill(dies)
	eventually(t, "the lease ends", func() bool {
		st, err := lives.Standing(t.Context(), f.s, f.budgets)
		return err == nil && st[0].Held == 3*usd
	})
	f.stands(52*usd, 3*usd, lives)
	if err := calls(); err != nil { // nor are its calls open
		t.Error(err)
	}
	f.flush(lives)
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

// A gateway dies when its entries have come to the store, before it could say so,
// and its successor finds nothing in the journal that is not there: who lives
// finds out that they are.
func TestRedisShippedUntold(t *testing.T) {
	server := servers.Start(t, "redis")
	all, f := fleet(t, server.Var("REDIS_URL"), 2, limiter.RedisOptions{Lease: time.Second})
	dies, lives := all[0], all[1]
	var left []*one
	for range 10 {
		left = append(left, f.take(dies, 5*usd))
	}
	f.stands(0, 50*usd, lives)
	limiter.Kill(dies)
	for i, a := range left[:8] {
		a.entry.Used = limiter.Used{Nano: int64(i) * usd}
		f.ledger.Record(f.s, a.entry)
		f.bill.Add(int64(i) * usd)
	}
	f.ledger.Ship(f.s, 1<<30, func(n int) int { return n - 1 })
	eventually(t, "the store is asked", func() bool { // two have no entry
		st, err := lives.Standing(t.Context(), f.s, f.budgets)
		return err == nil && st[0].Held == 0 && st[0].Spent == f.bill.Load()+2*5*usd
	})
}

// A gateway dies, and its successor has its journal: what was held and is not in the
// store then was never sent, and is not booked any more, at all gateways. Of others
// nobody knows that.
func TestRedisNeverSent(t *testing.T) {
	server := servers.Start(t, "redis")
	all, f := fleet(t, server.Var("REDIS_URL"), 3, limiter.RedisOptions{Lease: time.Second})
	dies, another, heir := all[0], all[1], all[2]
	asked := gateway(t, server.Var("REDIS_URL"), limiter.RedisOptions{Options: limiter.Options{Book: f.ledger}, Lease: time.Second})
	var left []*one
	for range 10 {
		left = append(left, f.take(dies, 5*usd))
	}
	f.take(another, 7*usd)
	limiter.Kill(dies)
	limiter.Kill(another)
	for i, a := range left[:8] {
		a.entry.Used = limiter.Used{Nano: int64(i) * usd}
		f.ledger.Record(f.s, a.entry)
		f.bill.Add(int64(i) * usd)
	}
	spent := func(what string, want int64) {
		t.Helper()
		eventually(t, what, func() bool {
			st, err := asked.Standing(t.Context(), f.s, f.budgets)
			return err == nil && st[0].Held == 0 && st[0].Spent == want
		})
	}
	spent("all are booked whole", 57*usd)
	f.ledger.Ship(f.s, 1<<30, func(n int) int { return n - 1 })
	spent("two and another's are", f.bill.Load()+17*usd)
	heir.Over([]string{"of before", dies.Process()})
	spent("another's is", f.bill.Load()+7*usd)
	heir.Over([]string{dies.Process(), another.Process()})
	spent("what the ledger has", f.bill.Load())
	// What comes then is counted as ever.
	f.end(f.take(heir, 5*usd), 2*usd)
	f.flush(heir)
	f.stands(f.bill.Load(), 0, heir, asked)
}

// While the Book is read for the first time the journal of a gateway that died is
// shipped: what was read is not all, and it is read again.
func TestRedisShippedWhileRead(t *testing.T) {
	server := servers.Start(t, "redis")
	all, f := fleet(t, server.Var("REDIS_URL"), 2, limiter.RedisOptions{})
	budgets := f.budgets
	f.budgets = nil
	left := f.take(all[0], 5*usd)
	limiter.Kill(all[0])
	f.budgets = budgets
	left.entry.Used = limiter.Used{Nano: usd}
	f.ledger.Record(f.s, left.entry)
	f.bill.Add(usd)
	reads := 0
	f.ledger.Before = func(context.Context) error {
		if reads++; reads == 1 {
			all[1].Shipped(f.s, f.ledger.Ship(f.s, 1, func(int) int { return 0 }))
			return all[1].Flush(t.Context())
		}
		return nil
	}
	f.exact(all[1])
	if reads < 2 {
		t.Error("it was not read again")
	}
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

// Nobody is admitted after all was lost until every gateway that lives has said
// what it has, also one that has no calls.
func TestRedisWaitsForAll(t *testing.T) {
	server := servers.Start(t, "redis")
	direct := redisClient(t, server.Var("REDIS_URL"))
	all, f := fleet(t, server.Var("REDIS_URL"), 2, limiter.RedisOptions{Heartbeat: 500 * time.Millisecond})
	f.budgets[0].Limit = 10 * usd
	open := f.take(all[1], 8*usd)
	for _, lose := range [][]string{{"FLUSHALL"}, {"DEL", "bh:{" + f.s.ID().String() + "}:attempts"}, {"DEL", "bh:{" + f.s.ID().String() + "}:attempts", "bh:{" + f.s.ID().String() + "}:due", "bh:{" + f.s.ID().String() + "}:counts"}} {
		do(t, direct, lose...)
		eventually(t, "there is a decision", func() bool {
			_, err := f.hold(all[0], 5*usd)
			if e := fault.As(err); err == nil || e.Kind != fault.Unavailable && e.Type != "budget_held" {
				t.Fatalf("got %v: what the other gateway holds is not known", err)
			}
			return !fault.Is(err, fault.Unavailable)
		})
	}
	f.end(open, usd)
	f.flush(all...)
	f.exact(all...)
}

// The registry lets a company be opened in a run when the run is three heartbeats
// old and all that live have said what they have in it.
func TestRedisRegistry(t *testing.T) {
	server := servers.Start(t, "redis")
	c := redisClient(t, server.Var("REDIS_URL"))
	registry := redisdb.NewScript(limiter.RegistryScript)
	const patience = "400" // milliseconds
	fresh := "fresh"
	f := func(what, gateway, name, passed, lost, company string) (verdict, registryName string, lives int, run int64) {
		t.Helper()
		reply, err := c.Run(t.Context(), registry, []string{"bh:gateways"}, []string{what, gateway, patience, name, passed, fresh, "", lost, company})
		if err != nil {
			t.Fatal(err)
		}
		r := reply.([]any)
		return r[0].(string), r[1].(string), len(r[3].([]any)), r[4].(int64)
	}
	start := time.Now()
	verdict, name, lives, run := f("beat", "one", "", "0", "", "")
	if verdict != "wait" || name != "fresh" || lives != 1 || run != 1 {
		t.Errorf("at first: %s, %s, %d, %d", verdict, name, lives, run)
	}
	for time.Since(start) < 500*time.Millisecond { // both live, and one says nothing
		f("beat", "two", name, "0", "", "")
		if verdict, _, _, _ := f("claim", "one", name, "1", "", "org"); verdict != "wait" {
			t.Fatalf("%s although one has not said what it has", verdict)
		}
	}
	f("beat", "two", "another", "9", "", "")
	if verdict, _, _, _ := f("claim", "one", name, "1", "", "org"); verdict != "wait" {
		t.Errorf("%s although one has said what it has to another registry", verdict)
	}
	f("beat", "two", name, "1", "", "")
	for range 2 {
		if verdict, _, lives, _ := f("claim", "one", name, "1", "", "org"); verdict != "go" || lives != 2 {
			t.Errorf("%s, %d", verdict, lives)
		}
	}
	f("open", "one", name, "1", "", "org")
	if verdict, _, _, _ := f("claim", "two", name, "1", "", "org"); verdict != "open" {
		t.Errorf("%s although it is open", verdict)
	}
	// Its keys have gone: that is a new run. One is enough, however many ask.
	for range 2 {
		if verdict, _, _, run := f("claim", "two", name, "1", name+"-1", "org"); verdict != "wait" || run != 2 {
			t.Errorf("%s in run %d", verdict, run)
		}
	}
	f("beat", "one", name, "2", "", "")
	// It comes back with what it had long ago: what was passed in it is worth
	// nothing, whatever its number.
	old := redisdb.NewScript(`return redis.call('HSET', KEYS[1], 'runs', cmsgpack.pack({ARGV[1], 1, {abc = {1, 0}}}))`)
	if _, err := c.Run(t.Context(), old, []string{"bh:gateways"}, []string{name}); err != nil {
		t.Fatal(err)
	}
	fresh = "other"
	if _, again, _, run := f("beat", "one", name, "2", "", ""); again == name && run <= 2 {
		t.Errorf("registry %s gives number %d twice", again, run)
	}
	name = fresh
	f("beat", "one", name, "2", "", "")
	f("leave", "two", name, "1", "", "")
	eventually(t, "the one that is left may", func() bool { v, _, lives, _ := f("claim", "one", name, "2", "", "org"); return v == "go" && lives == 1 })
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

// A hold that nobody took any more is not taken when it arrives after all.
func TestRedisHoldComesLate(t *testing.T) {
	server := servers.Start(t, "redis")
	all, f := fleet(t, server.Var("REDIS_URL"), 1, limiter.RedisOptions{})
	l := all[0]
	f.end(f.take(l, usd), usd)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	a := &limiter.Ask{ID: "att_late", By: by, Nano: usd, Budgets: f.budgets}
	if _, _, err := l.Hold(gone, f.s, a); !fault.Is(err, fault.Unavailable) {
		t.Fatalf("got %v", err)
	}
	f.flush(l)
	if _, _, err := l.Hold(t.Context(), f.s, a); !fault.Is(err, fault.Unavailable) { // what was sent arrives
		t.Errorf("got %v", err)
	}
	f.flush(l)
	f.exact(l)
	// Where it was taken before it is cancelled, all is given back, the call too.
	calls := &tenant.Budget{Kind: tenant.OfKey, Of: "key_1", Unit: tenant.Requests, Period: tenant.Total, Limit: 100}
	f.budgets = []*tenant.Budget{calls}
	f.stands(1, 0, l)
	limiter.LoseReply(t, l, f.s, &limiter.Ask{ID: "att_lost", By: by, Nano: usd, Budgets: f.budgets})
	f.flush(l)
	f.stands(1, 0, l)
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
		day.Limit = usd
		a := f.take(all[0], usd)
		if _, err := f.hold(all[0], 1); fault.As(err).Type != "budget_held" {
			t.Errorf("%s off: the day is not what Redis says: %v", off, err)
		}
		if d := a.At().Sub(now); d < -time.Minute || d > time.Minute {
			t.Errorf("%s off: held at %s", off, a.At())
		}
		st, err := all[0].Standing(t.Context(), f.s, []*tenant.Budget{day})
		if err != nil || a.At().Before(st[0].From) || !a.At().Before(st[0].To) || st[0].Held != usd {
			t.Errorf("%s off: %+v, %v", off, st, err)
		}
	}
}
