package web

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"bulkhead/fault"
	"bulkhead/ledger"
	"bulkhead/limiter"
	"bulkhead/provider"
	"bulkhead/tenant"
)

// oneHold is a Limiter that notes what is settled and keeps Ask.Lost.
type oneHold struct {
	limiter.Limiter
	settled  []limiter.Used
	released int
	lost     chan func(error)
}

func (o *oneHold) Hold(_ context.Context, _ tenant.Scope, a *limiter.Ask) (limiter.Hold, limiter.State, error) {
	if o.lost != nil {
		o.lost <- a.Lost
	}
	return limiter.NewHold(o, limiter.HoldID{}, 0, time.Time{}), limiter.State{}, nil
}
func (o *oneHold) Settle(_ limiter.HoldID, u limiter.Used) { o.settled = append(o.settled, u) }
func (o *oneHold) Release(limiter.HoldID)                  { o.released++ }

// TestEndPanicInBooking: where it cannot be said what an attempt used, because
// that panics, the most it may have cost is booked, once, and nothing is given
// back as if it had cost nothing.
func TestEndPanicInBooking(t *testing.T) {
	l := newLab(t, labOptions{})
	_, s := l.company("acme", tenant.KeyLive, nil)
	slot, err := l.book.Reserve(s)
	must(t, err)
	o := &oneHold{}
	c := &call{g: l.g, ctx: t.Context(), scope: s, id: "req_1"} // without its request, which booking asks
	a := c.beginAttempt(provider.Target{Provider: "up", Model: "ok", Vendor: l.g.settings.Load().Vendors["up"]}, slot)
	a.hold, a.sent, a.entry.HighNano = limiter.NewHold(o, limiter.HoldID{}, 0, time.Time{}), true, 700
	func() {
		defer func() {
			if recover() == nil {
				t.Error("nothing panicked")
			}
		}()
		c.endAttempt(a, nil)
	}()
	c.endAttempt(a, nil) // as call.end does afterwards
	got := l.booked()
	if len(got) != 1 || got[0].Outcome != ledger.Unknown || got[0].Rank != ledger.Estimate ||
		[3]int64{got[0].CostNano, got[0].LowNano, got[0].HighNano} != [3]int64{700, 0, 700} {
		t.Errorf("booked %+v", got)
	}
	if fmt.Sprint(o.settled) != "[{700 0 0}]" || o.released != 1 || c.costNano != 700 {
		t.Errorf("settled %v, released %d, cost %d", o.settled, o.released, c.costNano)
	}
}

// TestEndLost: a stream whose hold has gone ends with an error event and without
// a clean end: its client is still there.
func TestEndLost(t *testing.T) {
	o := &oneHold{lost: make(chan func(error), 1)}
	l := newLab(t, labOptions{limiter: func(limiter.Limiter) limiter.Limiter { return o }})
	key, _ := l.company("acme", tenant.KeyLive, nil)
	c := l.dial()
	c.send(rawChat(key, "up/silent", streaming))
	c.peekUntil("Hello")
	(<-o.lost)(fault.New(fault.Unavailable, "The hold is gone.").WithCode("call_ended"))
	a := c.answer()
	if a.err == nil || strings.Contains(a.body, "[DONE]") || !strings.Contains(a.body, `"code":"call_ended"`) {
		t.Errorf("the client got %s", a)
	}
	l.ended(ending{outcome: ledger.Cancelled, rank: ledger.Estimate, status: 200, text: true, error: "call_ended", client: 200})
	if len(o.settled) != 1 || o.released != 1 {
		t.Errorf("settled %v, released %d", o.settled, o.released)
	}
}

// TestOpenAfterSuspension: a company that is suspended between the proof of its
// key and the note of its call is refused: nobody would end that call.
func TestOpenAfterSuspension(t *testing.T) {
	l := newLab(t, labOptions{})
	key, s := l.company("acme", tenant.KeyLive, nil)
	open := func(meanwhile func()) error {
		t.Helper()
		scope, err := l.world.Authenticate(t.Context(), []byte(key))
		must(t, err)
		ctx, cancel := context.WithCancelCause(t.Context())
		c := &call{g: l.g, ctx: ctx, cancel: cancel, scope: scope}
		defer c.close()
		meanwhile()
		return c.open([]byte(key))
	}
	must(t, open(func() {}))
	must(t, open(func() { l.world.Changed(s.ID().String()) })) // of something else
	err := open(func() {
		l.world.Edit(s, func(c *tenant.Company) { c.Status = tenant.Suspended })
		l.world.Changed(s.ID().String())
		l.g.EndCompany(s.ID().String())
	})
	if f, ok := errors.AsType[*fault.Error](err); !ok || f.Kind != fault.Forbidden {
		t.Errorf("got %v", err)
	}
}

// TestAbsurd: models are remembered for an hour, by company, and no company has
// another's forgotten or closed.
func TestAbsurd(t *testing.T) {
	var m absurd
	now := time.Unix(1_800_000_000, 0)
	of := func(model string) provider.Target { return provider.Target{Provider: "up", Model: model} }
	f := func(company, model string, want bool) {
		t.Helper()
		if got := m.has(company, of(model), now); got != want {
			t.Errorf("%s of %s: %t", model, company, got)
		}
	}
	f("acme", "wild", false)
	m.add("acme", of("wild"), now)
	f("acme", "wild", true)
	f("acme", "tame", false)
	f("beta", "wild", false)
	for i := range 10 * maxAbsurd {
		m.add("beta", of(fmt.Sprint("model-", i)), now)
	}
	f("beta", "tame", true) // it has too many to tell
	f("acme", "wild", true)
	f("acme", "tame", false)
	if n := len(m.companies["beta"]); n > maxAbsurd+1 {
		t.Errorf("%d models of beta are kept", n)
	}
	now = now.Add(absurdFor)
	f("acme", "wild", false)
	f("beta", "tame", false)
	m.add("gamma", of("wild"), now)
	if len(m.companies) != 1 {
		t.Errorf("%d companies are kept", len(m.companies))
	}
}

// TestCounting: a company that has something counted leaves the others their turn.
func TestCounting(t *testing.T) {
	var n counting
	f := func(company string, want bool) {
		t.Helper()
		if got := n.begin(company); got != want {
			t.Errorf("%s: %t", company, got)
		}
	}
	f("acme", true)
	f("acme", false)
	f("beta", true)
	n.end("acme")
	f("acme", true)
	f("c", true)
	f("d", true)
	f("e", false) // as many as there may be in all
}
