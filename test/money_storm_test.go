package test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"bulkhead/ledger"
	"bulkhead/test/scale"
	"bulkhead/test/upstream"
)

// moneyConfig makes the price table's provider an upstream.
func moneyConfig(up *upstream.Server) string {
	return "providers:\n  openai: {kind: openai, base_url: " + up.BaseURL() + "}\n"
}

// TestMoneyStorm has many more calls at once on a budget than it can pay: it is
// never overspent, nearly all of it can be used, and what is spent is what the
// ledger says and what the provider bills, to the nano-dollar.
func TestMoneyStorm(t *testing.T) {
	s := scale.Of(t)
	up := upstream.New(t)
	g := prepare(t, moneyConfig(up))
	p := g.serve(t)
	bill := storm(t, s, up, g.URL, []*gateway{g}, g.Demo, stormOptions{})
	p.stop(t)
	stormRows(t, bill, g.entries(t, g.Demo))
}

// stormOptions say what is special about a storm. Zero values: nothing.
type stormOptions struct {
	figures string // what the names of its figures begin with
	known   func() // waits until every gateway knows of the budget
	// trouble is made when a third of the budget is billed. Calls may then fail
	// with 503, and are made again.
	trouble func()
	quiet   bool // the trouble need not be noticed
}

// storm has calls of c at a URL, behind which are all of some gateways, and
// returns what was billed.
func storm(t *testing.T, s *scale.Run, up *upstream.Server, at string, all []*gateway, c company, o stormOptions) (bill *biller) {
	t.Helper()
	calls, pays := scale.Pick(s, 60, 500), scale.Pick(s, int64(20), 100)
	g := all[0]
	g.setCredential(t, c, "openai", upstreamSecret)
	limit := pays * paidNano(billedInput, (leastOutput+mostOutput)/2)
	b := g.setBudget(t, c, limit, "month")
	if o.known != nil {
		o.known()
	}
	third, once := make(chan struct{}), sync.Once{}
	bill = newBiller(up, func(*upstream.Call, string) {
		if bill.sum() > limit/3 {
			once.Do(func() { close(third) })
		}
	})
	var held, away, quota, answered atomic.Int64
	var clients sync.WaitGroup
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	for i := range calls {
		clients.Go(func() {
			got := stormCall(ctx, t, at, c.APIKey, paidBody("Hi"+strings.Repeat("!", i%7), i%2 == 0), &held, &away)
			switch got.status {
			case http.StatusOK:
				answered.Add(1)
			case http.StatusTooManyRequests:
				quota.Add(1)
			default:
				t.Errorf("call %d: %d %s", i, got.status, got.body)
			}
		})
	}
	if o.trouble != nil {
		select {
		case <-third:
			o.trouble()
		case <-ctx.Done():
			t.Error("a third of the budget was never billed")
		}
	}
	clients.Wait()
	total := bill.sum()
	if total > limit || total < limit*95/100 {
		t.Errorf("the provider bills %d, %.2f %% of the limit of %d", total, 100*float64(total)/float64(limit), limit)
	}
	if held.Load() == 0 || quota.Load() == 0 || answered.Load() < pays/2 || bill.least >= leastOutput {
		t.Errorf("%d answered, %d refused for what is held, %d for what is spent, the smallest limit was %d: too few to say anything",
			answered.Load(), held.Load(), quota.Load(), bill.least)
	}
	if o.trouble != nil && !o.quiet && away.Load() == 0 {
		t.Error("no answer was 503: the trouble was none")
	}
	for _, g := range all {
		var spent, holds int64
		eventually(t, 10*time.Second, "all is settled", func() bool { spent, holds = g.stands(t, c, b.ID); return holds == 0 })
		if spent != total {
			t.Errorf("%s counts %d spent, the provider bills %d", g.URL, spent, total)
		}
	}
	s.Figure(o.figures+"calls", calls)
	s.Figure(o.figures+"answered", answered.Load())
	s.Figure(o.figures+"refused_held", held.Load())
	s.Figure(o.figures+"unavailable", away.Load())
	s.Figure(o.figures+"refused_spent", quota.Load())
	s.Figure(o.figures+"used_percent", fmt.Sprintf("%.2f", 100*float64(total)/float64(limit)))
	return bill
}

// stormRows compares the ledger after a storm with the bill.
func stormRows(t *testing.T, bill *biller, rows []ledger.Entry) {
	t.Helper()
	if ranks := bill.check(t, rows, 0); ranks[ledger.Final] != len(rows) {
		t.Errorf("%d rows, of rank %v: all were answered", len(rows), ranks)
	}
	if sum := costOf(rows); sum != bill.sum() {
		t.Errorf("the ledger has %d, the provider bills %d", sum, bill.sum())
	}
}

// stormCall calls until it is answered, or refused for good. It waits as the
// official SDKs do, and longer. After a 503
// it calls again, too.
func stormCall(ctx context.Context, t *testing.T, url, key string, body any, held, away *atomic.Int64) answer {
	for {
		a, err := tryAsk(ctx, http.MethodPost, url+"/v1/chat/completions", key, body)
		if err != nil {
			t.Errorf("a call failed: %s", err)
			return a
		}
		if a.status == http.StatusServiceUnavailable {
			away.Add(1)
			select {
			case <-time.After(250 * time.Millisecond):
				continue
			case <-ctx.Done():
				return a
			}
		}
		if a.status != http.StatusTooManyRequests {
			return a
		}
		var e struct {
			Error struct{ Message, Type, Code string }
		}
		if err := json.Unmarshal(a.body, &e); err != nil {
			t.Errorf("refused with %s", a.body)
			return a
		}
		for _, word := range []string{"monthly budget of the company", " USD allowed", " USD spent", " USD held", "begins anew at "} {
			if !strings.Contains(e.Error.Message, word) {
				t.Errorf("a refusal does not say %q: %s", word, e.Error.Message)
			}
		}
		h := a.header
		if h.Get("X-Bulkhead-Budget-Remaining-Usd") == "" {
			t.Errorf("a refusal does not say what is left: %v", h)
		}
		if e.Error.Type != "budget_held" {
			if e.Error.Type != "insufficient_quota" || e.Error.Code != "insufficient_quota" || h.Get("X-Should-Retry") != "false" {
				t.Errorf("refused with %s %v", a.body, h)
			}
			return a
		}
		wait, err := strconv.Atoi(h.Get("Retry-After-Ms"))
		if err != nil || wait <= 0 || wait > 60_000 || e.Error.Code != "rate_limit_exceeded" || h.Get("X-Should-Retry") == "false" {
			t.Errorf("refused with %s %v", a.body, h)
			return a
		}
		held.Add(1)
		select {
		case <-time.After(time.Duration(wait) * time.Millisecond):
		case <-ctx.Done():
			return a
		}
	}
}

// TestMoneySDK: the official SDK's own retry gets through what is only held, and
// does not try what is spent.
func TestMoneySDK(t *testing.T) {
	interpreter(t, "budget_retry.py")
	up := upstream.New(t)
	newBiller(up, func(c *upstream.Call, phase string) {
		if phase == beforeHeader && strings.Contains(string(c.Body), "wait for it") {
			c.WaitRelease()
		}
	})
	g := prepare(t, moneyConfig(up))
	g.serve(t)
	g.setCredential(t, g.Demo, "openai", upstreamSecret)
	runScript(t, g, g.Demo, "budget_retry.py", "UPSTREAM_URL="+up.URL())
}
