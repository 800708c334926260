package test

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"bulkhead/ledger"
	"bulkhead/test/scale"
	"bulkhead/test/servers"
)

// TestMoneyKillAlone is TestMoneyKill on Redis and PostgreSQL.
func TestMoneyKillAlone(t *testing.T) { killFleet(t, scale.Of(t), 1) }

// TestMoneyKillOfThree kills, of three gateways on Redis and PostgreSQL, the one
// that is just in that phase of a call, while the others go on.
func TestMoneyKillOfThree(t *testing.T) { killFleet(t, scale.Of(t), 3) }

// killFleet kills gateways of a fleet again and again, at every phase of a call.
// Once the lease of what they held is over nothing is held, and soon the counters
// say what the ledger says.
func killFleet(t *testing.T, s *scale.Run, gateways int) {
	t.Helper()
	const clients = 6
	const lease = 5 * time.Second
	redis := servers.Start(t, "redis")
	f := newFleet(t, s, fleetOptions{gateways: gateways, redis: redis.Var("REDIS_URL"), config: fmt.Sprintf("budgets: {lease: %s}\n", lease)})
	random := s.Rand()
	var tr trap
	bill := newBiller(f.up, tr.at)
	c := f.members[0].company
	f.all[0].setCredential(t, c, "openai", upstreamSecret)
	b := f.all[0].setBudget(t, c, 1e12, "month")
	f.hear(t)
	whole := wholeCalls{ids: map[string]bool{}}
	kills, look := scale.Pick(s, 4, 200), scale.Pick(s, 2, 20)
	phases := []string{beforeHeader, midStream, beforeEnd}
	victims := make([]int, gateways)
	var above int64
	for i := range kills {
		sprung := tr.set(phases[random.IntN(len(phases))], 2*clients+random.IntN(6*clients))
		ctx, stop := context.WithTimeout(t.Context(), time.Minute)
		whole.enough.Store(false)
		var calls sync.WaitGroup
		for n := range clients {
			calls.Go(func() { whole.call(ctx, f.balancer.URL, c.APIKey, n+i) })
		}
		select {
		case <-sprung:
		case <-ctx.Done():
			t.Fatalf("kill %d: the calls do not go on", i)
		}
		victim := tr.victim(t)
		victims[victim]++
		if i%2 == 0 { // at once, or some time after
			<-time.After(time.Duration(random.Int64N(int64(5 * time.Millisecond))))
		}
		f.runs[victim].kill(t)
		killed := time.Now()
		whole.enough.Store(true)
		calls.Wait()
		stop()
		if err := f.up.WaitIdle(30 * time.Second); err != nil {
			t.Fatal(err)
		}
		if random.IntN(4) == 0 { // and once more while it starts
			p := f.all[victim].launch(t)
			<-time.After(time.Duration(random.Int64N(int64(300 * time.Millisecond))))
			p.kill(t)
		}
		f.start(t, victim)
		f.balancer.waitUp(t, victim, true)
		if i%look != look-1 {
			continue
		}
		soon := func(what string, ok func(spent, held int64) bool) {
			t.Helper()
			for n, g := range f.all {
				eventually(t, 5*lease+10*time.Second, fmt.Sprintf("after kill %d %s at gateway %d", i, what, n), func() bool {
					spent, held, there := g.standing(t, c, b.ID)
					return there && ok(spent, held)
				})
			}
		}
		soon("nothing is held", func(_, held int64) bool { return held == 0 })
		s.Figure("last_hold_gone_after", time.Since(killed))
		// What was held and not yet in the journal was never sent: the next process
		// knows that, and says so.
		var rows []ledger.Entry
		soon("what is counted is the ledger, to the nano-dollar", func(spent, _ int64) bool {
			rows = paidRows(f.entries(t, c))
			above = max(above, spent-costOf(rows))
			return spent == costOf(rows)
		})
		if bill.check(t, rows, (i+1)*clients); t.Failed() {
			t.Fatalf("after kill %d", i)
		}
	}
	// Counted anew it is the ledger, to the nano-dollar.
	redisDo(t, redis.Var("REDIS_URL"), "FLUSHALL")
	for _, g := range f.all {
		eventually(t, 30*time.Second, "what is spent is what the ledger has", func() bool {
			spent, held, ok := g.standing(t, c, b.ID)
			return ok && held == 0 && spent == costOf(paidRows(f.entries(t, c)))
		})
	}
	if a := ask(t, http.MethodPost, f.balancer.URL+"/v1/chat/completions", c.APIKey, paidBody("Hi", false)); a.status != http.StatusOK {
		t.Errorf("after all: %d %s", a.status, a.body)
	}
	f.stop(t)
	rows := paidRows(f.entries(t, c))
	ranks := bill.check(t, rows, kills*clients)
	for _, e := range rows {
		if whole.ids[e.RequestID] && e.Rank != ledger.Final {
			t.Errorf("a client has the whole answer, and the ledger %+v", e)
		}
	}
	if len(whole.ids) < kills || ranks[ledger.ByLease] < kills/2 || ranks[ledger.Estimate] < min(kills, 3) {
		t.Errorf("%d whole answers, and rows of rank %v: too few to say anything", len(whole.ids), ranks)
	}
	for n, times := range victims {
		if s.Full() && times < kills/gateways/2 {
			t.Errorf("gateway %d was killed %d times", n, times)
		}
	}
	s.Figure("gateways", gateways)
	s.Figure("most_counted_above_ledger_for_a_while", ledger.FormatUSD(above))
	s.Figure("kills", kills)
	s.Figure("calls", len(rows))
	s.Figure("answered_whole", len(whole.ids))
	s.Figure("rows_by_rank", fmt.Sprintf("final %d, estimate %d, swept %d", ranks[ledger.Final], ranks[ledger.Estimate], ranks[ledger.ByLease]))
}
