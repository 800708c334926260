package test

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"bulkhead/ledger"
	"bulkhead/test/scale"
	"bulkhead/test/servers"
	"bulkhead/test/upstream"
)

// counted is how long the gateway may take to say that it cannot count (DESIGN
// section 10).
const counted = 250 * time.Millisecond

// redisFleet is three gateways over one Redis with paid traffic of three
// companies with budgets, while one call of the first waits for its answer.
type redisFleet struct {
	*fleet
	s       *scale.Run
	bill    *biller
	budgets []budget // of members
	held    int64    // by the call that waits
	ended   chan answer
	tr      *traffic
}

func newRedisFleet(t *testing.T, s *scale.Run, url string) *redisFleet {
	t.Helper()
	f := &redisFleet{fleet: newFleet(t, s, fleetOptions{redis: url, log: "info"}), s: s, ended: make(chan answer, 1)}
	f.bill = newBiller(f.up, func(c *upstream.Call, phase string) {
		if phase == beforeHeader && strings.Contains(string(c.Body), "wait for it") {
			c.WaitRelease()
		}
	})
	f.budgets = f.budgeted(t, f.members...)
	go func() {
		a, err := tryAsk(t.Context(), http.MethodPost, f.all[0].URL+"/v1/chat/completions", f.members[0].APIKey, paidBody("wait for it", false))
		if err != nil {
			t.Errorf("the call that waits: %s", err)
		}
		f.ended <- a
	}()
	eventually(t, 10*time.Second, "a call waits", func() (ok bool) {
		_, f.held, ok = f.all[0].standing(t, f.members[0].company, f.budgets[0].ID)
		return ok && f.held > 0
	})
	f.tr = f.newTraffic(t, s, true, f.members...)
	return f
}

// budgeted gives those a credential for paidModel and a budget, which is returned,
// and waits until every gateway knows. Models without a price are then refused.
func (f *fleet) budgeted(t *testing.T, of ...*member) (all []budget) {
	t.Helper()
	for _, m := range of {
		f.all[0].setCredential(t, m.company, "openai", m.secrets[len(m.secrets)-1])
		all = append(all, f.all[0].setBudget(t, m.company, 1e12, "month"))
	}
	f.hear(t)
	return all
}

// away makes some trouble with Redis: it is noticed, and when it is over calls go
// on by themselves.
func (f *redisFleet) away(t *testing.T, what string, breaks, mends func()) {
	t.Helper()
	f.tr.flows(t, 50)
	began := time.Now()
	breaks()
	eventually(t, 20*time.Second, what+": calls are refused", func() bool { return f.tr.refused(began) })
	mends()
	back := time.Now()
	f.tr.flows(t, 1)
	f.s.Figure(what+": calls again after", time.Since(back))
	f.tr.flows(t, 50)
}

// refused reports whether a call that began since was refused with 503.
func (tr *traffic) refused(since time.Time) bool {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	for _, c := range slices.Backward(tr.calls) {
		if c.began.Before(since) {
			return false
		}
		if c.over.Load() && c.status == http.StatusServiceUnavailable {
			return true
		}
	}
	return false
}

// finish stops the traffic: what is counted is what the ledger has and the call
// that waits holds; what was refused was never sent, and refused in time; then it
// is as after any other trouble.
func (f *redisFleet) finish(t *testing.T) {
	t.Helper()
	calls := f.tr.stop()
	stands := func(held int64) {
		t.Helper()
		for i, m := range f.members {
			for _, g := range f.all {
				eventually(t, 30*time.Second, m.Name+": what is counted is what the ledger has, and what is held", func() bool {
					spent, holds, ok := g.standing(t, m.company, f.budgets[i].ID)
					return ok && spent > 0 && spent == costOf(f.entries(t, m.company)) && (i == 0 && holds == held || i > 0 && holds == 0)
				})
			}
		}
	}
	stands(f.held)
	f.up.Release()
	if a := <-f.ended; a.status != http.StatusOK {
		t.Errorf("the call that waited through all of it: %d %s", a.status, a.body)
	}
	stands(0)

	refused := f.honest(t, calls)
	f.inTime(t)
	f.s.Figure("refused", refused)
	f.account(t, f.s, calls, nil)
	var rows []ledger.Entry
	for _, m := range f.members {
		rows = append(rows, paidRows(f.entries(t, m.company))...)
	}
	f.bill.check(t, rows, 0)
}

// honest sees that no call failed but with 503, and that what was refused so was
// never sent. It returns how many were.
func (f *fleet) honest(t *testing.T, calls []*sent) (refused int) {
	t.Helper()
	arrived := map[string]bool{}
	for _, r := range f.up.Requests() {
		if m := marker.FindSubmatch(r.Body); m != nil {
			arrived[string(m[1])] = true
		}
	}
	for _, c := range calls {
		if c.status == http.StatusServiceUnavailable {
			if refused++; arrived[c.marker] {
				t.Errorf("refused and sent: %s", c)
			}
		}
	}
	none(t, calls, func(c *sent) bool { return c.status == http.StatusServiceUnavailable })
	return refused
}

// inTime looks in the gateways' logs how long refusals took them. On a machine
// with more to do than it can, one in a hundred may wait for its turn.
func (f *redisFleet) inTime(t *testing.T) {
	t.Helper()
	var all []time.Duration
	for _, g := range f.all {
		for line := range strings.Lines(string(g.log(t))) {
			var call struct {
				Msg        string
				Status, MS int64
			}
			if json.Unmarshal([]byte(line), &call) == nil && call.Msg == "call" && call.Status == http.StatusServiceUnavailable {
				all = append(all, time.Duration(call.MS)*time.Millisecond)
			}
		}
	}
	if len(all) < 10 {
		t.Fatalf("%d calls were refused: too few to say anything", len(all))
	}
	slices.Sort(all)
	if p99 := all[(len(all)-1)*99/100]; p99 > counted {
		t.Errorf("one refusal in a hundred took %s, the longest %s", p99, all[len(all)-1])
	}
	f.s.Figure("refusal_p50", all[len(all)/2])
	f.s.Figure("refusal_p99", all[(len(all)-1)*99/100])
	f.s.Figure("refusal_longest", all[len(all)-1])
}

// TestRedisGone takes Redis from three gateways with traffic running: it is
// flushed, frozen, and stopped while a gateway starts. (DESIGN section 10, row 2.)
func TestRedisGone(t *testing.T) {
	s := scale.Of(t)
	redis := servers.Start(t, "redis")
	f := newRedisFleet(t, s, redis.Var("REDIS_URL"))
	f.away(t, "flushed", func() { redisDo(t, redis.Var("REDIS_URL"), "FLUSHALL") }, func() {})
	signal := func(sig syscall.Signal) {
		t.Helper()
		if err := syscall.Kill(redis.PIDs("REDIS_PID")[0], sig); err != nil {
			t.Fatal(err)
		}
	}
	long := scale.Pick(s, 2*time.Second, 10*time.Second)
	f.away(t, "frozen", func() { signal(syscall.SIGSTOP) }, func() {
		answered := f.tr.count.Load()
		<-time.After(long)
		if n := f.tr.count.Load() - answered; n > 12 { // those that had begun
			t.Errorf("%d calls were answered while Redis was frozen", n)
		}
		signal(syscall.SIGCONT)
	})
	const late = 2
	f.away(t, "stopped", func() {
		f.runs[late].signal(t, syscall.SIGTERM)
		f.runs[late].exit(t)
		if err := redis.Stop(); err != nil {
			t.Fatal(err)
		}
		f.runs[late] = f.all[late].launch(t)
		eventually(t, 30*time.Second, "the gateway that started without Redis refuses", func() bool {
			a, err := tryAsk(t.Context(), http.MethodPost, f.all[late].URL+"/v1/chat/completions", f.members[1].APIKey, paidBody("Hi", false))
			return err == nil && a.status == http.StatusServiceUnavailable
		})
	}, func() {
		if err := redis.Again(t.Context()); err != nil {
			t.Fatal(err)
		}
		f.all[late].waitReady(t, f.runs[late].ended)
	})
	f.finish(t)
}

// TestRedisFailsOver kills the primary under three gateways with traffic running:
// Sentinel makes another of a replica.
func TestRedisFailsOver(t *testing.T) {
	s := scale.Of(t)
	redis := servers.Start(t, "redis-sentinel")
	f := newRedisFleet(t, s, "redis+sentinel://"+redis.Var("REDIS_SENTINELS")+"/"+redis.Var("REDIS_MASTER"))
	f.away(t, "failed over", func() {
		if err := syscall.Kill(redis.PIDs("REDIS_PIDS")[0], syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}, func() {})
	f.finish(t)
}
