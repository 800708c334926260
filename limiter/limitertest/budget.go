package limitertest

import (
	"fmt"
	"testing"

	"bulkhead/limiter"
	"bulkhead/tenant"
)

func testMoney(t *testing.T, w *world) {
	b := of(tenant.OfKey, "key_1", 10*dollar)
	w.stands(w.acme, b, 0, 0)
	one, two := w.take(w.acme, ask(6*dollar, b)), w.take(w.acme, ask(4*dollar, b))
	if one.Nano() != 6*dollar || two.Nano() != 4*dollar {
		t.Errorf("%d and %d are held", one.Nano(), two.Nano())
	}
	w.stands(w.acme, b, 0, 10*dollar)
	// All is held, nothing spent.
	w.stopped(w.acme, byHeld, ask(1, b))
	// What was not used is given back; what was used is spent.
	one.cost(2 * dollar)
	w.stands(w.acme, b, 2*dollar, 4*dollar)
	w.stopped(w.acme, byHeld, ask(4*dollar+1, b))
	three := w.take(w.acme, ask(4*dollar, b))
	// Only the first end counts.
	for range 3 {
		one.End(limiter.Used{Nano: 9 * dollar})
		one.Settle(limiter.Used{})
	}
	w.stands(w.acme, b, 2*dollar, 8*dollar)
	// One whose outcome is not known is no open call, and keeps its hold.
	two.Release()
	w.stands(w.acme, b, 2*dollar, 8*dollar)
	two.cost(4 * dollar)
	three.cost(4 * dollar)
	w.stands(w.acme, b, 10*dollar, 0)
	w.stopped(w.acme, bySpent, ask(1, b))
	// A failed attempt costs nothing, a provider may report more than was held.
	b.Limit = 20 * dollar
	w.take(w.acme, ask(10*dollar, b)).end(limiter.Used{})
	w.take(w.acme, ask(dollar, b)).cost(15 * dollar)
	w.stands(w.acme, b, 25*dollar, 0)
	w.stopped(w.acme, bySpent, ask(1, b))
	_, st, _ := w.try(w.acme, ask(1, b))
	if !st.HasBudget || st.RemainingNano != 0 {
		t.Errorf("state %+v", st)
	}
}

func testUnits(t *testing.T, w *world) {
	money, calls, tokens := ofKey(tenant.USD, tenant.Day, 100), ofKey(tenant.Requests, tenant.Day, 3), ofKey(tenant.Tokens, tenant.Day, 1000)
	all := limiter.Ask{By: by, Nano: 10, Tokens: 300, Budgets: []*tenant.Budget{money, calls, tokens}}
	a := w.take(w.acme, all)
	w.stands(w.acme, money, 0, 10)
	w.stands(w.acme, calls, 1, 0) // at once
	w.stands(w.acme, tokens, 0, 300)
	a.end(limiter.Used{Nano: 7, Tokens: 200, Requests: 50}) // the limiter counts calls itself
	w.stands(w.acme, money, 7, 0)
	w.stands(w.acme, calls, 1, 0)
	w.stands(w.acme, tokens, 200, 0)
	w.take(w.acme, all).end(limiter.Used{}) // it failed, and was a call
	w.stands(w.acme, calls, 2, 0)
	w.take(w.acme, all)
	w.names(w.stopped(w.acme, bySpent, all), "3 requests allowed", "3 requests spent")
	calls.Limit = 100
	all.Tokens = 501
	w.names(w.stopped(w.acme, byHeld, all), "1000 tokens allowed", "200 tokens spent", "300 tokens held", "501 tokens asked for")
	all.Tokens = 801
	w.stopped(w.acme, bySpent, all)
	// Of another unit is no budget of money.
	all.Tokens, all.Budgets = 1, []*tenant.Budget{calls}
	a, st, err := w.try(w.acme, all)
	if err != nil || a.Nano() != 0 || st.HasBudget {
		t.Errorf("%v: %+v", err, st)
	}
}

// The next attempt of a call is no call of its own.
func testAgain(t *testing.T, w *world) {
	calls, money := ofKey(tenant.Requests, tenant.Day, 1), ofKey(tenant.USD, tenant.Day, 100)
	first := limiter.Ask{By: by, Nano: 40, Limits: key(tenant.Limits{RequestsPerMinute: 1}), Budgets: []*tenant.Budget{calls, money}}
	next := first
	next.Again = true
	w.take(w.acme, first) // its outcome is not known: it stays held
	w.take(w.acme, next).cost(40)
	w.stands(w.acme, calls, 1, 0)
	w.stands(w.acme, money, 40, 40)
	w.isRefusal(w.failure(first), "requests")
	w.stopped(w.acme, byHeld, next)
	first.Limits = nil
	w.names(w.stopped(w.acme, bySpent, first), "1 requests allowed")
	// Nor is it one where the limit is lower than what was used.
	limits := key(tenant.Limits{RequestsPerMinute: 3})
	limits[0].ID = "key_2"
	a := limiter.Ask{By: by, Limits: limits}
	w.take(w.acme, a)
	a.Again = true
	for range 5 {
		w.take(w.acme, a)
	}
	a.Again = false
	w.take(w.acme, a)
	w.take(w.acme, a)
	w.isRefusal(w.failure(a), "requests")
	a.Again, limits[0].Limits.RequestsPerMinute = true, 1
	w.take(w.acme, a)
	// So it is when it is read.
	w.ship(w.acme)
	w.stands(w.acme, ofKey(tenant.Requests, tenant.Month, 1), 4, 0)
}

// failure is the error of an attempt that is refused.
func (w *world) failure(a limiter.Ask) error {
	w.t.Helper()
	_, _, err := w.try(w.acme, a)
	return err
}

// The state is that of the budget of money with the least left.
func testBudgetState(t *testing.T, w *world) {
	f := func(want int64, a limiter.Ask) {
		t.Helper()
		x, st, _ := w.try(w.acme, a)
		if !st.HasBudget || st.RemainingNano != want {
			t.Errorf("state %+v, want %d left", st, want)
		}
		if x != nil {
			x.cost(10)
		}
	}
	wide, narrow := of(tenant.OfCompany, "", 1000), of(tenant.OfKey, "key_1", 100)
	f(90, ask(10, wide, narrow))
	f(80, ask(10, narrow, wide))
	f(80, ask(90, narrow, wide)) // refused
	f(970, ask(10, ofKey(tenant.Tokens, tenant.Day, 5), wide, ofKey(tenant.Requests, tenant.Day, 50)))
	narrow.Limit = 20
	f(0, ask(90, narrow, wide)) // refused, more than all is spent
}

func testClamping(t *testing.T, w *world) {
	month, day := of(tenant.OfCompany, "", 100), ofKey(tenant.USD, tenant.Day, 50)
	f := func(nano, least, want int64) *attempt {
		t.Helper()
		a, st, err := w.try(w.acme, limiter.Ask{By: by, Nano: nano, LeastNano: least, Budgets: []*tenant.Budget{month, day}})
		if err != nil {
			t.Fatal(err)
		}
		if a.Nano() != want {
			t.Errorf("%d of %d, at least %d: %d granted", want, nano, least, a.Nano())
		}
		if !st.HasBudget {
			t.Error("no state of the budgets")
		}
		return a
	}
	a := f(30, 10, 30) // there is room for all
	b := f(30, 10, 20) // what is left of the day
	w.stands(w.acme, month, 0, 50)
	w.stopped(w.acme, byHeld, limiter.Ask{By: by, Nano: 30, LeastNano: 1, Budgets: []*tenant.Budget{month, day}})
	a.cost(30)
	b.cost(15)
	f(1000, 5, 5).cost(5) // exactly the least
	w.stands(w.acme, day, 50, 0)
	day.Limit = 1000
	w.stopped(w.acme, bySpent, limiter.Ask{By: by, Nano: 1000, LeastNano: 51, Budgets: []*tenant.Budget{month, day}})
	f(1000, 50, 50).cost(20)
	// Least is all where it says nothing, or more than all.
	w.stopped(w.acme, bySpent, ask(31, month, day))
	f(30, 99, 30).cost(0)
	f(30, -1, 30).cost(0)
	f(30, 0, 30).cost(0)
	// A negative or a vast amount is not believed.
	f(-5, -7, 0).cost(0)
	w.stopped(w.acme, bySpent, limiter.Ask{By: by, Nano: 1 << 62, LeastNano: 1 << 61, Budgets: []*tenant.Budget{of(tenant.OfCompany, "", tenant.MaxBudget)}})
	f(1<<62, 1, 30).cost(0)
	w.stands(w.acme, month, 70, 0)
}

// What costs nothing is not stopped by a budget of money that is spent.
func testFree(t *testing.T, w *world) {
	b := of(tenant.OfKey, "key_1", 10)
	w.take(w.acme, ask(10, b)).cost(11)
	w.stopped(w.acme, bySpent, ask(1, b))
	w.take(w.acme, ask(0, b)).cost(0)
	zero := of(tenant.OfKey, "key_1", 0)
	w.take(w.acme, ask(0, zero)).cost(0)
	w.stopped(w.acme, bySpent, ask(1, zero))
	w.stands(w.acme, b, 11, 0)
}

func testRefusals(t *testing.T, w *world) {
	b := of(tenant.OfProject, "proj_1", 12*dollar+dollar/2)
	held := w.take(w.acme, ask(5*dollar, b))
	w.take(w.acme, ask(dollar, b)).cost(dollar / 1000)
	e := w.stopped(w.acme, byHeld, ask(8*dollar, b))
	w.names(e, `monthly budget of project "proj_1"`, "12.5 USD allowed", "0.001 USD spent", "5 USD held", "8 USD asked for", "2026-12-01T00:00:00Z")
	held.cost(5 * dollar)
	e = w.stopped(w.acme, bySpent, ask(8*dollar, b))
	w.names(e, `monthly budget of project "proj_1"`, "12.5 USD allowed", "5.001 USD spent", "0 USD held", "2026-12-01T00:00:00Z")
	// More than the whole budget.
	e = w.stopped(w.acme, bySpent, ask(13*dollar, b))
	w.names(e, "13 USD asked for", "12.5 USD allowed")
	for kind, text := range map[string]string{tenant.OfCompany: "the company", tenant.OfCeiling: "operator", tenant.OfUser: "the end user", tenant.OfAgent: `agent "agent_1"`} {
		lent := ask(1, of(kind, map[string]string{tenant.OfUser: "user_1", tenant.OfAgent: "agent_1"}[kind], 0))
		lent.By.Lent = true
		w.names(w.stopped(w.acme, bySpent, lent), "monthly", text)
	}
	total := ofKey(tenant.Tokens, tenant.Total, 5)
	w.names(w.stopped(w.acme, bySpent, limiter.Ask{By: by, Tokens: 6, Budgets: []*tenant.Budget{total}}), `budget of key "key_1"`, "6 tokens", "5 tokens")
}

// ten are ten budgets of one attempt.
func ten(limit int64) (all []*tenant.Budget) {
	for i, kind := range []string{tenant.OfCompany, tenant.OfProject, tenant.OfKey, tenant.OfAgent, tenant.OfUser} {
		id := []string{"", by.Project, by.Key, by.Agent, by.User}[i]
		for _, p := range []tenant.Period{tenant.Day, tenant.Month} {
			all = append(all, &tenant.Budget{ID: fmt.Sprint("budget_", len(all)), Kind: kind, Of: id, Unit: tenant.USD, Period: p, Limit: limit})
		}
	}
	return all
}

// All or nothing: what one of many windows refuses is taken from none.
func testAllOfTen(t *testing.T, w *world) {
	budgets := ten(100)
	calls := ofKey(tenant.Requests, tenant.Week, 50)
	limits := []tenant.Limited{{Kind: "key", ID: "key_1", Limits: tenant.Limits{RequestsPerMinute: 3, TokensPerMinute: 1000, Concurrent: 2}}}
	a := limiter.Ask{By: by, Nano: 10, Tokens: 10, Limits: limits, Budgets: append([]*tenant.Budget{calls}, budgets...)}
	open := w.take(w.acme, a)
	for i := range budgets {
		budgets[i].Limit = 19
		w.stopped(w.acme, byHeld, a)
		budgets[i].Limit = 100
	}
	a.Tokens = 991
	w.isRefusal(w.failure(a), "tokens")
	a.Tokens = 10
	w.take(w.acme, a).cost(10)
	for _, b := range budgets {
		w.stands(w.acme, b, 10, 10)
	}
	w.stands(w.acme, calls, 2, 0)
	open.cost(10)
	w.take(w.acme, a).cost(10) // the third request of the minute
	w.isRefusal(w.failure(a), "requests")
	w.stands(w.acme, calls, 3, 0)
}

func testFirstBudgetIsNamed(t *testing.T, w *world) {
	a := ask(10, of(tenant.OfKey, "key_1", 9), of(tenant.OfCompany, "", 9))
	w.names(w.stopped(w.acme, bySpent, a), `key "key_1"`)
	a.Budgets[0], a.Budgets[1] = a.Budgets[1], a.Budgets[0]
	w.names(w.stopped(w.acme, bySpent, a), "the company")
	// Limits come before budgets.
	a.Limits, a.Tokens = key(tenant.Limits{TokensPerMinute: 1}), 2
	w.isRefusal(w.failure(a), "tokens")
	// The first without room is named, whatever stands in the way.
	a = ask(10, of(tenant.OfKey, "key_1", 15), of(tenant.OfCompany, "", 12))
	open := w.take(w.acme, a)
	a.Budgets[1].Limit = 5
	w.names(w.stopped(w.acme, byHeld, a), `key "key_1"`)
	open.cost(1)
	w.names(w.stopped(w.acme, bySpent, a), "the company")
}

// A limit that changes holds at the next attempt, and nothing begins anew.
func testBudgetChanges(t *testing.T, w *world) {
	b := of(tenant.OfProject, "proj_1", 10)
	open := w.take(w.acme, ask(5, b))
	w.take(w.acme, ask(5, b)).cost(5)
	w.stopped(w.acme, byHeld, ask(1, b))
	b.Limit = 11
	w.take(w.acme, ask(1, b)).cost(1)
	b.Limit = 3
	w.stopped(w.acme, bySpent, ask(1, b))
	open.cost(2)
	w.stands(w.acme, b, 8, 0)
	b.Limit = 9
	w.take(w.acme, ask(1, b)).cost(1)
	w.stopped(w.acme, bySpent, ask(1, b))
}

// A budget that is made while attempts run, or after they ended, counts them.
func testMadeWhileRunning(t *testing.T, w *world) {
	open := w.take(w.acme, limiter.Ask{By: by, Nano: 30, Tokens: 7})
	ended := w.take(w.acme, ask(20))
	ended.cost(20)
	shipped := w.take(w.acme, ask(20))
	shipped.cost(10)
	w.Shipped(w.acme, w.ledger.Ship(w.acme, 1, func(int) int { return 1 })) // the later one
	w.Flush()
	notMine := limiter.By{Project: "proj_2", Key: "key_2"}
	w.take(w.acme, limiter.Ask{By: notMine, Nano: 500})
	b, tokens, calls := of(tenant.OfProject, "proj_1", 61), ofKey(tenant.Tokens, tenant.Day, 100), ofKey(tenant.Requests, tenant.Week, 4)
	w.stopped(w.acme, byHeld, ask(2, b, tokens, calls))
	w.take(w.acme, ask(1, b, tokens, calls)).cost(0)
	w.stands(w.acme, b, 30, 30)
	w.stands(w.acme, tokens, 0, 7)
	w.stands(w.acme, calls, 4, 0)
	w.stopped(w.acme, bySpent, ask(1, b, tokens, calls))
	open.end(limiter.Used{Nano: 25, Tokens: 5})
	w.ship(w.acme)
	w.stands(w.acme, b, 55, 0)
	w.stands(w.acme, tokens, 5, 0)
}

// A budget that is deleted and made again counts what was used in between.
func testMadeAgain(t *testing.T, w *world) {
	b := of(tenant.OfProject, "proj_1", 100)
	w.take(w.acme, ask(10, b)).cost(10)
	open := w.take(w.acme, ask(20, b))
	w.take(w.acme, ask(30)).cost(30)
	later := w.take(w.acme, ask(40))
	open.cost(20)
	again := of(tenant.OfProject, "proj_1", 70)
	again.ID = "budget_another"
	w.stopped(w.acme, bySpent, ask(11, again))
	w.stopped(w.acme, byHeld, ask(10, again))
	later.cost(0)
	w.take(w.acme, ask(10, again)).cost(10)
	w.stands(w.acme, again, 70, 0)
	w.ship(w.acme)
	w.stands(w.acme, again, 70, 0)
}

// Bugs of the caller are not counted wrongly: they panic.
func testBugs(t *testing.T, w *world) {
	f := func(why string, s tenant.Scope, a limiter.Ask) {
		t.Helper()
		defer func() {
			if recover() == nil {
				t.Errorf("no panic: %s", why)
			}
		}()
		_, _, _ = w.Hold(t.Context(), s, &a)
	}
	b := of(tenant.OfKey, "key_1", 10)
	f("no scope", tenant.Scope{}, limiter.Ask{ID: "att_a", By: by, Budgets: []*tenant.Budget{b}})
	f("no id", w.acme, limiter.Ask{By: by, Budgets: []*tenant.Budget{b}})
	f("another's key", w.acme, limiter.Ask{ID: "att_b", By: limiter.By{Key: "key_2"}, Budgets: []*tenant.Budget{b}})
	f("nobody's key", w.acme, limiter.Ask{ID: "att_c", Budgets: []*tenant.Budget{of(tenant.OfKey, "", 10)}})
	f("each user", w.acme, limiter.Ask{ID: "att_d", By: by, Budgets: []*tenant.Budget{of(tenant.OfUser, tenant.EachUser, 10)}})
	f("an unknown kind", w.acme, limiter.Ask{ID: "att_e", By: by, Budgets: []*tenant.Budget{of("team", "t", 10)}})
	many := make([]*tenant.Budget, limiter.MaxBudgets+1)
	for i := range many {
		many[i] = b
	}
	f("too many", w.acme, limiter.Ask{ID: "att_f", By: by, Budgets: many})
	w.take(w.acme, ask(1, many[1:]...)).cost(1)
	w.stands(w.acme, b, 1, 0)
	if _, err := w.Standing(t.Context(), w.acme, nil); err != nil {
		t.Error(err)
	}
}

// The owners of an attempt, each alone.
func testOwners(t *testing.T, w *world) {
	owners := map[string]string{tenant.OfCompany: "", tenant.OfProject: "p", tenant.OfKey: "k", tenant.OfAgent: "a", tenant.OfUser: "u", tenant.OfCeiling: ""}
	full := limiter.By{Project: "p", Key: "k", Agent: "a", User: "u", Lent: true}
	w.take(w.acme, limiter.Ask{By: full, Nano: 100}).cost(100)
	for kind, id := range owners {
		w.stands(w.acme, of(kind, id, 1000), 100, 0)
	}
	f := func(less limiter.By, not string) {
		t.Helper()
		w.take(w.other, limiter.Ask{By: less, Nano: 1}).cost(1)
		for kind, id := range owners {
			want := int64(1)
			if kind == not {
				want = 0
			}
			before, err := w.Standing(t.Context(), w.other, []*tenant.Budget{of(kind, id, 1000)})
			if err != nil {
				t.Fatal(err)
			}
			w.take(w.other, limiter.Ask{By: less, Nano: 1}).cost(1)
			w.stands(w.other, of(kind, id, 1000), before[0].Spent+want, 0)
		}
	}
	less := full
	less.Project = ""
	f(less, tenant.OfProject)
	less = full
	less.Key = "K"
	f(less, tenant.OfKey)
	less = full
	less.Agent = ""
	f(less, tenant.OfAgent)
	less = full
	less.User = "*"
	f(less, tenant.OfUser)
	less = full
	less.Lent = false
	f(less, tenant.OfCeiling)
	// The ceiling bounds lent credentials only.
	ceiling := of(tenant.OfCeiling, "", 100)
	w.isRefusal(w.failure(limiter.Ask{By: full, Nano: 1, Budgets: []*tenant.Budget{ceiling}}), bySpent)
	if _, _, err := w.try(w.acme, limiter.Ask{By: less, Nano: 1}); err != nil {
		t.Error(err)
	}
}
