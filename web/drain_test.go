package web

import (
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"bulkhead/ledger"
	"bulkhead/provider"
	"bulkhead/tenant"
	"bulkhead/test/upstream"
)

// drainLab has a company whose route "best" goes to one model that waits, with
// what the route says of clients that leave.
func drainLab(t *testing.T, route string, drain bool, o labOptions) (l *moneyLab, key string, s tenant.Scope) {
	t.Helper()
	o.settings = func(s *Settings) { s.Drain = drain }
	l = newMoneyLab(t, o)
	key, s = l.buyer(usdFor(1e12, tenant.Total), func(c *tenant.Company) {
		c.Routes = map[string]*tenant.Route{"best": {Name: "best", Targets: []tenant.RouteTarget{{Model: "openai/gpt-4o", OnDisconnect: route}, {Model: "openai/gpt-4o-mini"}}}}
	})
	l.up.Handle("gpt-4o", func(c *upstream.Call) {
		const usage = `"usage":{"prompt_tokens":10,"completion_tokens":40,"total_tokens":50}`
		if !c.Stream {
			c.WaitRelease()
			_, _ = io.WriteString(c.W, `{"choices":[{"index":0,"message":{"role":"assistant","content":"x"},"finish_reason":"stop"}],`+usage+`}`)
			return
		}
		c.StartStream()
		c.Event([]byte(`{"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":null}]}`))
		c.WaitRelease()
		for range 20 {
			c.Event([]byte(`{"choices":[{"index":0,"delta":{"content":"` + strings.Repeat("b", 5000) + `"},"finish_reason":null}]}`))
		}
		c.Event([]byte(`{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}`))
		c.Event([]byte(`{"choices":[],` + usage + `}`))
		c.Event([]byte("[DONE]"))
	})
	return l, key, s
}

// leaves makes a call and leaves when the provider has it, and has answered the
// beginning of a stream.
func (l *moneyLab) leaves(key, more string) {
	l.t.Helper()
	before := len(l.up.Requests())
	ctx, leave := context.WithCancel(l.t.Context())
	left := make(chan struct{})
	go func() {
		defer close(left)
		resp, err := l.open(ctx, "POST", key, "/v1/chat/completions", chatBody("best", more))
		if err == nil {
			_, _ = io.ReadFull(resp.Body, make([]byte, 10))
			leave()
			resp.Body.Close()
		}
	}()
	must(l.t, l.up.WaitRequests(before+1, patience))
	if more == "" {
		leave()
	}
	<-left
	leave()
}

func (l *moneyLab) draining() int {
	l.g.drains.mu.Lock()
	defer l.g.drains.mu.Unlock()
	return l.g.drains.all
}

// TestDrain: what becomes of a call whose client leaves is what its target says, and
// else the configuration. One that is drained is billed by the provider's figure.
func TestDrain(t *testing.T) {
	f := func(route string, configured, drained bool) {
		t.Helper()
		for _, more := range []string{"", streaming} {
			l, key, s := drainLab(t, route, configured, labOptions{})
			l.leaves(key, more)
			if !drained {
				must(t, l.up.WaitClosed(1, patience))
				if e := l.paid(s); len(e) != 1 || e[0].Outcome != ledger.Cancelled || e[0].Rank != ledger.Estimate {
					t.Errorf("%q: booked %+v", more, e)
				}
				continue
			}
			eventually(t, "it is seen that the client left", func() bool { return l.draining() == 1 })
			l.up.Release()
			e := l.paid(s)
			if len(e) != 1 || e[0].Outcome != ledger.Answered || e[0].Rank != ledger.Final || e[0].CostNano != nano4o(10, 40) {
				t.Errorf("%q: booked %+v", more, e)
			}
			if r, _ := l.up.Last(); !r.Closed.IsZero() {
				t.Errorf("%q: the provider's call was cut off", more)
			}
			if line := l.lines(1)[0]; line["drained"] != true {
				t.Errorf("%q: logged %v", more, line)
			}
			if n := l.draining(); n != 0 {
				t.Errorf("%d are still drained", n)
			}
		}
	}
	f("", false, false)
	f("", true, true)
	f(tenant.Drain, false, true)
	f(tenant.Cancel, true, false)
}

// TestDrainEnds: a call that is drained ends with the provider's total time, with
// the company, and when the provider fails, without another target.
func TestDrainEnds(t *testing.T) {
	f := func(what string, o labOptions, end func(l *moneyLab, s tenant.Scope)) {
		t.Helper()
		for _, more := range []string{"", streaming} {
			l, key, s := drainLab(t, tenant.Drain, false, o)
			l.leaves(key, more)
			if o.timeouts.Total == 0 {
				eventually(t, "it is seen that the client left", func() bool { return l.draining() == 1 })
			}
			end(l, s)
			e := l.paid(s)
			if len(e) != 1 || len(l.up.Requests()) != 1 || e[0].Outcome == ledger.Answered {
				t.Errorf("%s%s: %d calls, booked %+v", what, more, len(l.up.Requests()), e)
			}
			if n := l.draining(); n != 0 {
				t.Errorf("%s%s: %d are still drained", what, more, n)
			}
		}
	}
	short := provider.Timeouts{Connect: time.Second, Header: time.Second, Idle: time.Second, Total: time.Second}
	f("total", labOptions{timeouts: short}, func(l *moneyLab, _ tenant.Scope) { must(t, l.up.WaitClosed(1, patience)) })
	f("suspended", labOptions{}, func(l *moneyLab, s tenant.Scope) { l.g.EndCompany(s.ID().String()) })
	f("the provider fails", labOptions{}, func(l *moneyLab, _ tenant.Scope) { l.up.Close() })
}

// TestDrains: as many are drained as there may be, of one company and of all.
func TestDrains(t *testing.T) {
	var d drains
	for range maxCompanyDrains {
		if !d.begin("a") {
			t.Fatal("a company has less than its share")
		}
	}
	if d.begin("a") {
		t.Error("a company has more than its share")
	}
	n := maxCompanyDrains
	for ; d.begin(string(rune('b' + n/maxCompanyDrains))); n++ {
	}
	if n != maxDrains {
		t.Errorf("%d are drained at once", n)
	}
	d.end("a")
	if !d.begin("z") || d.begin("z") {
		t.Error("one has ended, and another may be drained")
	}
	for range maxCompanyDrains - 1 {
		d.end("a")
	}
	if _, there := d.companies["a"]; there {
		t.Error("a company of which nothing is drained is remembered")
	}

	// What comes on top is cancelled.
	l, key, s := drainLab(t, tenant.Drain, false, labOptions{})
	l.g.drains.mu.Lock()
	l.g.drains.all = maxDrains
	l.g.drains.mu.Unlock()
	l.leaves(key, streaming)
	must(t, l.up.WaitClosed(1, patience))
	if e := l.paid(s); len(e) != 1 || e[0].Outcome != ledger.Cancelled {
		t.Errorf("booked %+v", e)
	}
}
