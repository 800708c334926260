package storetest

import (
	"fmt"
	"testing"
	"time"

	"bulkhead/fault"
	"bulkhead/ledger"
	"bulkhead/limiter"
	"bulkhead/openai"
	"bulkhead/tenant"
)

// budget returns a budget of money with a figure in every field.
func budget(id, kind, of string, period tenant.Period) tenant.Budget {
	return tenant.Budget{ID: id, Kind: kind, Of: of, Unit: tenant.USD, Period: period, Limit: 12_500_000_000, Soft: true, CreatedAt: epoch}
}

func testBudgets(t *testing.T, open Open) {
	w := newWorld(t, open)
	s, _ := w.company("acme")
	loaded := func() *tenant.Company {
		t.Helper()
		return w.again(s).Company()
	}
	b := budget("budget_1", tenant.OfCompany, "", tenant.Month)
	put, created, err := w.db.PutBudget(w.ctx(), s, b)
	must(t, err)
	same(t, put, b)
	same(t, created, true)
	// The same window of the same owner is the same budget, whatever its id.
	b.ID, b.Limit, b.Soft, b.CreatedAt = "budget_2", 1, false, epoch.Add(time.Hour)
	put, created, err = w.db.PutBudget(w.ctx(), s, b)
	must(t, err)
	same(t, []any{put.ID, put.Limit, put.Soft, put.CreatedAt.Equal(epoch), created}, []any{"budget_1", 1, false, true, false})
	for _, other := range []tenant.Budget{
		budget("budget_3", tenant.OfProject, "proj_1", tenant.Month),
		budget("budget_4", tenant.OfUser, tenant.EachUser, tenant.Total),
	} {
		_, created, err := w.db.PutBudget(w.ctx(), s, other)
		must(t, err)
		same(t, created, true)
	}
	same(t, len(loaded().Budgets), 3)

	// One owner has six at most, however many others there are.
	for i, period := range []tenant.Period{tenant.Day, tenant.Week, tenant.Total} {
		_, _, err := w.db.PutBudget(w.ctx(), s, budget(fmt.Sprint("budget_more_", i), tenant.OfProject, "proj_1", period))
		must(t, err)
	}
	for i, period := range []tenant.Period{tenant.Day, tenant.Week, tenant.Month} {
		more := budget(fmt.Sprint("budget_calls_", i), tenant.OfProject, "proj_1", period)
		more.Unit = tenant.Requests
		_, _, err := w.db.PutBudget(w.ctx(), s, more)
		if i < 2 {
			must(t, err)
		} else {
			wantFault(t, err, fault.Invalid)
		}
	}
	for i := range 3 {
		must(t, w.db.DeleteBudget(w.ctx(), s, fmt.Sprint("budget_more_", i)))
	}
	for i := range 2 {
		must(t, w.db.DeleteBudget(w.ctx(), s, fmt.Sprint("budget_calls_", i)))
	}

	// The ceiling is the operator's: the company's own call does not delete it.
	a := w.act("company.ceiling", s.ID().String())
	ceiling := budget("budget_5", "", "", tenant.Month)
	put, err = w.db.PutCeiling(w.ctx(), a, s, ceiling)
	must(t, err)
	same(t, put.Kind, tenant.OfCeiling)
	wantErr(t, w.db.DeleteBudget(w.ctx(), s, put.ID), tenant.ErrNotFound)
	wantErr(t, w.db.DeleteCeiling(w.ctx(), a, s, "budget_1"), tenant.ErrNotFound)
	same(t, len(loaded().Budgets), 4)
	must(t, w.db.DeleteCeiling(w.ctx(), a, s, put.ID))
	must(t, w.db.DeleteBudget(w.ctx(), s, "budget_1"))
	wantErr(t, w.db.DeleteBudget(w.ctx(), s, "budget_1"), tenant.ErrNotFound)
	same(t, len(loaded().Budgets), 2)

	tokyo, err := time.LoadLocation("Asia/Tokyo")
	must(t, err)
	c, _ := loaded().Calendar.Change(tokyo, epoch)
	must(t, w.db.SetCalendar(w.ctx(), s, c))
	got := loaded().Calendar
	from, to := got.Window(tenant.Day, epoch.Add(72*time.Hour))
	wantFrom, wantTo := c.Window(tenant.Day, epoch.Add(72*time.Hour))
	if got.Zone.String() != "Asia/Tokyo" || !got.ChangedAt.Equal(epoch) || !from.Equal(wantFrom) || !to.Equal(wantTo) {
		t.Errorf("calendar %v, %s to %s", got, from, to)
	}
	same(t, loaded().Budgets[0].Calendar.Zone.String(), "Asia/Tokyo")
}

// testCeilingZone: ceilings of all companies count by the operator's calendar, and
// by no company's; one who would change what another has changed is told.
func testCeilingZone(t *testing.T, open Open) {
	w := newWorld(t, open)
	acme, _ := w.company("acme")
	beta, _ := w.company("beta")
	zone := func(name string) *time.Location {
		z, err := time.LoadLocation(name)
		must(t, err)
		return z
	}
	act := w.act("ceiling.zone", "")
	was, set, err := w.db.CeilingCalendar(w.ctx())
	if err != nil || set || was.Zone != nil || !was.ChangedAt.IsZero() {
		t.Fatalf("at first %+v, %v, %v", was, set, err)
	}
	for _, s := range []tenant.Scope{acme, beta} {
		put, err := w.db.PutCeiling(w.ctx(), w.act("company.ceiling", s.ID().String()), s, budget("budget_c", "", "", tenant.Month))
		must(t, err)
		same(t, *put.Calendar, tenant.Calendar{})
		_, _, err = w.db.PutBudget(w.ctx(), s, budget("budget_o", tenant.OfCompany, "", tenant.Month))
		must(t, err)
	}
	own, _ := new(tenant.Calendar).Change(zone("Pacific/Kiritimati"), epoch)
	must(t, w.db.SetCalendar(w.ctx(), acme, own))
	is := func(s tenant.Scope, company, ceiling string) {
		t.Helper()
		_, all, err := w.db.Budgets(w.ctx(), s)
		must(t, err)
		for _, b := range append(all, w.again(s).Company().Budgets...) {
			want, got := company, "UTC"
			if b.Kind == tenant.OfCeiling {
				want = ceiling
			}
			if b.Calendar.Zone != nil {
				got = b.Calendar.Zone.String()
			}
			same(t, b.Kind+" "+got, b.Kind+" "+want)
		}
	}
	is(acme, "Pacific/Kiritimati", "UTC")
	is(beta, "UTC", "UTC")
	_, first, err := w.db.Changes(w.ctx(), 0)
	must(t, err)
	c, ok := was.Change(zone("Europe/Berlin"), epoch)
	same(t, ok, true)
	must(t, w.db.SetCeilingCalendar(w.ctx(), act, was, c))
	changed, _, err := w.db.Changes(w.ctx(), first)
	must(t, err)
	same(t, fmt.Sprint(changed), fmt.Sprint([]string{tenant.Everybody}))
	is(acme, "Pacific/Kiritimati", "Europe/Berlin")
	is(beta, "UTC", "Europe/Berlin")
	got, set, err := w.db.CeilingCalendar(w.ctx())
	must(t, err)
	same(t, set, true)
	for _, at := range []time.Duration{0, 12, 24, 24 * 31, 24 * 62} {
		for _, p := range []tenant.Period{tenant.Day, tenant.Week, tenant.Month} {
			from, to := got.Window(p, epoch.Add(at*time.Hour))
			wantFrom, wantTo := c.Window(p, epoch.Add(at*time.Hour))
			if !from.Equal(wantFrom) || !to.Equal(wantTo) {
				t.Errorf("%s after %d h is %s to %s, want %s to %s", p, at, from, to, wantFrom, wantTo)
			}
		}
	}
	wantFault(t, w.db.SetCeilingCalendar(w.ctx(), act, was, c), fault.Conflict)
	must(t, w.db.SetCeilingCalendar(w.ctx(), act, got, &tenant.Calendar{}))
	is(beta, "UTC", "UTC")
	put, err := w.db.PutCeiling(w.ctx(), w.act("company.ceiling", beta.ID().String()), beta, budget("budget_d", "", "", tenant.Week))
	must(t, err)
	same(t, *put.Calendar, tenant.Calendar{})
}

// attempt returns an entry as a gateway makes it, held at a moment.
func attempt(at time.Time, cost int64) ledger.Entry {
	e := entry(ledger.AttemptIDAt(at)[:20]+ledger.NewAttemptID()[20:], at)
	e.StartedAt, e.CostNano, e.LowNano, e.HighNano = at, cost, cost, cost
	e.Usage = openai.Usage{Input: cost, Output: 1, Total: cost + 1}
	e.ProjectID, e.KeyID, e.AgentID, e.UserID, e.First, e.Lent = "proj_1", "key_1", "", "", true, false
	return e
}

func testSpent(t *testing.T, open Open) {
	w := newWorld(t, open)
	s, _ := w.company("acme")
	noon := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	day := limiter.Span{Kind: tenant.OfCompany, From: noon.Add(-12 * time.Hour), To: noon.Add(12 * time.Hour)}
	of := func(kind, id string) limiter.Span { sp := day; sp.Kind, sp.Of = kind, id; return sp }

	early, late := attempt(day.From.Add(-time.Microsecond), 1), attempt(day.To, 2)
	first, last := attempt(day.From, 10), attempt(day.To.Add(-time.Microsecond), 20)
	agent, user, lent, again := attempt(noon, 100), attempt(noon, 200), attempt(noon, 400), attempt(noon, 800)
	agent.AgentID, user.UserID, lent.Lent, again.First = "agent_1", "user_1", true, false
	other := attempt(noon, 1600)
	other.ProjectID, other.KeyID = "proj_2", "key_2"
	must(t, w.db.AppendEntries(w.ctx(), book(s, early, late, first, last, agent, user, lent, again, other)))

	spans := []limiter.Span{day, of(tenant.OfProject, "proj_1"), of(tenant.OfKey, "key_2"), of(tenant.OfAgent, "agent_1"), of(tenant.OfUser, "user_1"),
		of(tenant.OfCeiling, ""), of(tenant.OfProject, "PROJ_1"), {Kind: tenant.OfCompany}}
	f := func(before time.Time, except []string, want ...int64) {
		t.Helper()
		used, err := w.db.Spent(w.ctx(), s, spans, before, except)
		must(t, err)
		var got []int64
		for i, u := range used {
			got = append(got, u.Nano)
			if n := u.Tokens - u.Nano; u.Requests > n || n > u.Requests+1 { // each has one token more, and one is no request
				t.Errorf("span %d: %+v", i, u)
			}
		}
		same(t, got, want)
	}
	tomorrow := noon.Add(24 * time.Hour)
	f(tomorrow, nil, 3130, 1530, 1600, 100, 200, 400, 0, 3133)
	f(noon, nil, 10, 10, 0, 0, 0, 0, 0, 11) // what was held before noon
	f(tomorrow, []string{other.ID, lent.ID, early.ID, "att_nobody"}, 1130, 1130, 0, 100, 200, 0, 0, 1132)
	f(noon, []string{other.ID}, 10, 10, 0, 0, 0, 0, 0, 11)
	has, err := w.db.Has(w.ctx(), s, []string{other.ID, "att_nobody", early.ID, ""})
	must(t, err)
	same(t, has, []string{other.ID, early.ID})
	// One rank above replaces the figures in the sums.
	agent.Rank, agent.CostNano, agent.Usage.Input = ledger.Final+1, 101, 101
	must(t, w.db.AppendEntries(w.ctx(), book(s, agent)))
	f(tomorrow, nil, 3131, 1531, 1600, 101, 200, 400, 0, 3134)
}
