package limitertest

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"bulkhead/fault"
	"bulkhead/limiter"
	"bulkhead/tenant"
)

// dollar is 1 USD in nano-USD.
const dollar = 1_000_000_000

// attempt is one that is held, with what is known of it besides.
type attempt struct {
	taken
	s     tenant.Scope
	entry Entry
	ask   limiter.Ask
}

// try holds one attempt. Its id is made here.
func (w *world) try(s tenant.Scope, ask limiter.Ask) (*attempt, limiter.State, error) {
	w.t.Helper()
	ask.ID = fmt.Sprintf("att_%d", w.ids.Add(1))
	h, st, err := w.Hold(w.t.Context(), s, &ask)
	if err != nil {
		if h != (limiter.Hold{}) {
			w.t.Error("a refusal comes with a hold")
		}
		return nil, st, err
	}
	if at := h.At(); !at.Equal(at.Truncate(time.Microsecond)) {
		w.t.Errorf("held at %s: the store keeps microseconds", at)
	}
	a := &attempt{taken{h, w}, s, Entry{ID: ask.ID, By: ask.By, At: h.At(), First: !ask.Again}, ask}
	return a, st, nil
}

// take expects that the attempt is admitted.
func (w *world) take(s tenant.Scope, ask limiter.Ask) *attempt {
	w.t.Helper()
	a, _, err := w.try(s, ask)
	if err != nil {
		w.t.Fatalf("refused: %s", err)
	}
	return a
}

// record does what the ledger does before Settle.
func (a *attempt) record(used limiter.Used) {
	a.entry.Used = used
	a.w.ledger.Record(a.s, a.entry)
}

// end ends the attempt as a gateway does.
func (a *attempt) end(used limiter.Used) {
	a.record(used)
	a.End(used)
}

// cost ends an attempt that cost so much.
func (a *attempt) cost(nano int64) { a.end(limiter.Used{Nano: nano}) }

// ship ships all that waits, the last first.
func (w *world) ship(s tenant.Scope) {
	w.Shipped(s, w.ledger.Ship(s, 1<<30, func(n int) int { return n - 1 }))
	w.Flush()
}

// The types of a refusal by a budget.
const (
	bySpent = "insufficient_quota"
	byHeld  = "budget_held"
)

// stopped expects that the attempt is refused by a budget, and returns why.
func (w *world) stopped(s tenant.Scope, typ string, ask limiter.Ask) *fault.Error {
	w.t.Helper()
	a, _, err := w.try(s, ask)
	if err == nil {
		w.t.Fatalf("admitted with %d, want %s", a.Nano(), typ)
	}
	return w.isRefusal(err, typ)
}

func (w *world) isRefusal(err error, typ string) *fault.Error {
	w.t.Helper()
	e, ok := errors.AsType[*fault.Error](err)
	if !ok || e.Kind != fault.RateLimited || e.Type != typ {
		w.t.Fatalf("got %v, want %s", err, typ)
	}
	switch typ {
	case bySpent:
		if e.Code != bySpent || !e.NoRetry {
			w.t.Errorf("code %q, NoRetry %t: %s", e.Code, e.NoRetry, e)
		}
	case byHeld:
		if e.Code != "rate_limit_exceeded" || e.NoRetry || e.RetryAfter <= 0 || e.RetryAfter > time.Minute {
			w.t.Errorf("code %q, NoRetry %t, come back after %s: %s", e.Code, e.NoRetry, e.RetryAfter, e)
		}
	}
	return e
}

// stands expects where a budget stands.
func (w *world) stands(s tenant.Scope, b *tenant.Budget, spent, held int64) limiter.Standing {
	w.t.Helper()
	all, err := w.Standing(w.t.Context(), s, []*tenant.Budget{b})
	if err != nil {
		w.t.Fatalf("no standing: %s", err)
	}
	if got := all[0]; got.Spent != spent || got.Held != held {
		w.t.Errorf("%s %s of %s %q: %d spent, %d held, want %d and %d", b.Period, b.Unit, b.Kind, b.Of, got.Spent, got.Held, spent, held)
	}
	return all[0]
}

// of makes a budget of money for a month.
func of(kind, id string, limit int64) *tenant.Budget {
	return &tenant.Budget{ID: "budget_" + kind + id, Kind: kind, Of: id, Unit: tenant.USD, Period: tenant.Month, Limit: limit}
}

// ofKey makes a budget of key_1.
func ofKey(unit tenant.Unit, p tenant.Period, limit int64) *tenant.Budget {
	return &tenant.Budget{ID: "budget_1", Kind: tenant.OfKey, Of: "key_1", Unit: unit, Period: p, Limit: limit}
}

// by is who makes most attempts here.
var by = limiter.By{Project: "proj_1", Key: "key_1", Agent: "agent_1", User: "user_1"}

// ask asks for money of budgets.
func ask(nano int64, budgets ...*tenant.Budget) limiter.Ask {
	return limiter.Ask{By: by, Nano: nano, Budgets: budgets}
}

func eventually(t *testing.T, what string, so func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !so(); <-time.After(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("not within 30 s: " + what)
		}
	}
}
