package limitertest

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"bulkhead/fault"
	"bulkhead/limiter"
	"bulkhead/tenant"
	"bulkhead/tenant/tenanttest"
)

// testHistory compares the Limiter with a reference that keeps every attempt
// there was and adds them all up for each question: slow, and easy to believe.
// Decisions and standings are the same at every step of any history.
func testHistory(t *testing.T, w *world) {
	zones := []*time.Location{time.UTC, place(t, "Asia/Tokyo"), place(t, "America/St_Johns"), place(t, "Europe/Berlin")}
	rapid.Check(t, func(rt *rapid.T) {
		h := &history{t: rt, w: w, zones: zones}
		for range 2 {
			h.companies = append(h.companies, &books{s: tenanttest.Scope(t, "acme"), calendar: &tenant.Calendar{}})
		}
		steps := []func(*books){h.hold, h.hold, h.hold, h.hold, h.record, h.record, h.settle, h.settle, h.ship, h.tell, h.budget, h.limit, h.remove, h.pass, h.pass, h.zone, h.check}
		for range rapid.IntRange(1, 80).Draw(rt, "steps") {
			c := h.companies[0]
			if rapid.IntRange(0, 3).Draw(rt, "other") == 0 {
				c = h.companies[1]
			}
			steps[rapid.IntRange(0, len(steps)-1).Draw(rt, "step")](c)
		}
		for _, c := range h.companies {
			h.check(c)
			c.budgets = append(c.budgets, everyBudget(c.calendar)...)
			h.check(c)
			h.endAll(c)
			h.check(c)
		}
	})
}

type history struct {
	t         *rapid.T
	w         *world
	zones     []*time.Location
	companies []*books
}

// books are what the reference knows of a company.
type books struct {
	s        tenant.Scope
	calendar *tenant.Calendar
	budgets  []*tenant.Budget
	all      []*booked
	untold   []string // shipped, and the limiter does not know
}

// booked is one attempt.
type booked struct {
	hold         limiter.Hold
	entry        Entry
	nano, tokens int64 // held
	recorded     bool  // entry.Used is known
	settled      bool
}

var units, someOwners = []tenant.Unit{tenant.USD, tenant.Tokens, tenant.Requests}, []tenant.Budget{
	{Kind: tenant.OfCompany}, {Kind: tenant.OfCeiling}, {Kind: tenant.OfProject, Of: "p1"}, {Kind: tenant.OfProject, Of: "p2"},
	{Kind: tenant.OfKey, Of: "k1"}, {Kind: tenant.OfKey, Of: "p1"}, {Kind: tenant.OfAgent, Of: "a1"}, {Kind: tenant.OfUser, Of: "u1"}, {Kind: tenant.OfUser, Of: "u2"},
}

func everyBudget(c *tenant.Calendar) (all []*tenant.Budget) {
	for _, b := range someOwners {
		for _, b.Unit = range units {
			for _, b.Period = range []tenant.Period{tenant.Day, tenant.Week, tenant.Month, tenant.Total} {
				b.Calendar = c
				all = append(all, &b)
			}
		}
	}
	return all
}

// stands is where a budget stands, by the reference.
func (c *books) stands(b *tenant.Budget, now time.Time) (spent, held int64) {
	var u limiter.Used
	for _, x := range c.all {
		switch {
		case !counts(&x.entry, b, now):
		case x.settled:
			add(&u, &x.entry)
		default:
			if x.entry.First {
				u.Requests++
			}
			held += limiter.Used{Nano: x.nano, Tokens: x.tokens}.Of(b.Unit)
		}
	}
	return u.Of(b.Unit), held
}

func (h *history) int(name string, from, to int64) int64 {
	return rapid.Int64Range(from, to).Draw(h.t, name)
}

func (h *history) bool(name string) bool { return rapid.Bool().Draw(h.t, name) }

func (h *history) hold(c *books) {
	pick := func(ids ...string) string { return rapid.SampledFrom(ids).Draw(h.t, "owner") }
	by := limiter.By{Project: pick("p1", "p2"), Key: pick("k1", "p1"), Agent: pick("", "a1"), User: pick("", "u1", "u2"), Lent: h.bool("lent")}
	a := limiter.Ask{ID: fmt.Sprintf("att_%d", h.w.ids.Add(1)), By: by, Again: h.bool("again"),
		Nano: h.int("nano", 0, 60), LeastNano: h.int("least", 0, 70), Tokens: h.int("tokens", 0, 20)}
	stale := h.int("stale", 0, 4) == 0 // it does not know all budgets
	for _, b := range c.budgets {
		if by.Has(b) && !(stale && h.bool("unknown")) {
			a.Budgets = append(a.Budgets, b)
		}
	}
	why, granted := h.decide(c, &a)
	got, _, err := h.w.Hold(h.t.Context(), c.s, &a)
	if why == nil {
		if err != nil {
			h.t.Fatalf("refused: %s", err)
		}
		if money(a.Budgets) != (got.Nano() != 0) && granted != 0 || got.Nano() != 0 && got.Nano() != granted {
			h.t.Fatalf("%d granted, want %d", got.Nano(), granted)
		}
		c.all = append(c.all, &booked{hold: got, entry: Entry{ID: a.ID, By: by, At: got.At(), First: !a.Again}, nano: granted, tokens: a.Tokens})
		return
	}
	if err == nil {
		h.t.Fatalf("admitted, want a refusal: %v", why)
	}
	e := fault.As(err)
	for _, text := range why[1:] {
		if e.Type != why[0] || !strings.Contains(e.Message, text) {
			h.t.Fatalf("got %s: %v, want %q", e.Type, e, why)
		}
	}
}

func money(budgets []*tenant.Budget) bool {
	for _, b := range budgets {
		if b.Unit == tenant.USD {
			return true
		}
	}
	return false
}

// decide is the reference's decision: what is granted of money, or the type and
// parts of the text of the refusal.
func (h *history) decide(c *books, a *limiter.Ask) (why []string, granted int64) {
	granted = a.Nano
	least := a.LeastNano
	if least == 0 || least > a.Nano {
		least = a.Nano
	}
	for _, b := range a.Budgets {
		spent, held := c.stands(b, h.w.Now())
		n := map[tenant.Unit]int64{tenant.USD: least, tenant.Tokens: a.Tokens, tenant.Requests: 1}[b.Unit]
		if b.Unit == tenant.Requests && a.Again {
			n = 0
		}
		switch room := b.Limit - spent - held; {
		case n == 0 || n <= room:
			if b.Unit == tenant.USD {
				granted = min(granted, max(room, 0))
			}
			continue
		case spent+n > b.Limit:
			why = append(why, bySpent)
		default:
			why = append(why, byHeld)
		}
		for _, part := range []string{"%s allowed", "%s spent", "%s held", "%s asked for"} {
			amount := map[string]int64{"%s allowed": b.Limit, "%s spent": spent, "%s held": held, "%s asked for": n}[part]
			why = append(why, fmt.Sprintf(part, inUnits(b.Unit, amount)))
		}
		if b.Of != "" && b.Kind != tenant.OfUser {
			why = append(why, fmt.Sprintf("%s %q", b.Kind, b.Of))
		}
		return why, 0
	}
	return nil, granted
}

func inUnits(unit tenant.Unit, n int64) string {
	switch {
	case unit != tenant.USD:
		return fmt.Sprintf("%d %s", n, unit)
	case n == 0:
		return "0 USD"
	}
	return strings.TrimRight(fmt.Sprintf("0.%09d", n), "0") + " USD" // below a dollar here
}

// some returns one of those for which so holds, nil if there is none.
func (h *history) some(c *books, so func(*booked) bool) *booked {
	var all []*booked
	for _, x := range c.all {
		if so(x) {
			all = append(all, x)
		}
	}
	if len(all) == 0 {
		return nil
	}
	return all[h.int("which", 0, int64(len(all)-1))]
}

func (h *history) record(c *books) {
	if x := h.some(c, func(x *booked) bool { return !x.recorded }); x != nil {
		x.recorded = true
		x.entry.Used = limiter.Used{Nano: h.int("cost", 0, 70), Tokens: h.int("used", 0, 25)}
		h.w.ledger.Record(c.s, x.entry)
	}
}

func (h *history) settle(c *books) {
	if x := h.some(c, func(x *booked) bool { return x.recorded && !x.settled }); x != nil {
		x.settled = true
		if h.bool("released first") {
			x.hold.Release()
		}
		x.hold.End(x.entry.Used)
		h.w.Flush()
	}
}

// endAll ends what runs, for nothing where that is not recorded.
func (h *history) endAll(c *books) {
	for _, x := range c.all {
		if !x.recorded {
			h.w.ledger.Record(c.s, x.entry)
		}
		x.recorded, x.settled = true, true
		x.hold.End(x.entry.Used)
	}
	h.w.Flush()
	h.w.Shipped(c.s, append(c.untold, h.w.ledger.Ship(c.s, len(c.all), func(n int) int { return n / 2 })...))
	h.w.Flush()
}

func (h *history) ship(c *books) {
	pick := func(n int) int { return int(h.int("next", 0, int64(n-1))) }
	c.untold = append(c.untold, h.w.ledger.Ship(c.s, int(h.int("entries", 1, 10)), pick)...)
}

func (h *history) tell(c *books) {
	if len(c.untold) == 0 {
		return
	}
	n := h.int("told", 1, int64(len(c.untold)))
	h.w.Shipped(c.s, c.untold[:n])
	c.untold = c.untold[n:]
	h.w.Flush()
}

func (h *history) budget(c *books) {
	if len(c.budgets) >= limiter.MaxBudgets-4 {
		return
	}
	b := *rapid.SampledFrom(everyBudget(c.calendar)).Draw(h.t, "budget")
	b.Limit = h.int("limit", 0, 150)
	if b.Unit == tenant.Requests {
		b.Limit /= 10
	}
	c.budgets = append(c.budgets, &b)
}

func (h *history) limit(c *books) {
	if n := len(c.budgets); n > 0 {
		i := h.int("budget", 0, int64(n-1))
		b := *c.budgets[i]
		b.Limit = h.int("limit", 0, 200)
		c.budgets[i] = &b
	}
}

func (h *history) remove(c *books) {
	if n := len(c.budgets); n > 0 {
		i := h.int("budget", 0, int64(n-1))
		c.budgets = append(append([]*tenant.Budget(nil), c.budgets[:i]...), c.budgets[i+1:]...)
	}
}

// pass lets hours pass: where the clock runs it stays far from where a period
// ends.
func (h *history) pass(*books) {
	h.w.Pass(time.Duration(rapid.SampledFrom([]int64{1, 1, 3, 24, 30, 24 * 8, 24 * 40}).Draw(h.t, "hours")) * time.Hour)
	if !h.w.Runs && h.bool("minutes") {
		h.w.Pass(time.Duration(h.int("microseconds", 0, 600_000_000)) * time.Microsecond)
	}
}

func (h *history) zone(c *books) {
	c.calendar, _ = c.calendar.Change(rapid.SampledFrom(h.zones).Draw(h.t, "zone"), h.w.Now())
	for i, b := range c.budgets {
		changed := *b
		changed.Calendar = c.calendar
		c.budgets[i] = &changed
	}
}

func (h *history) check(c *books) {
	got, err := h.w.Standing(h.t.Context(), c.s, c.budgets)
	if err != nil {
		h.t.Fatal(err)
	}
	for i, b := range c.budgets {
		if spent, held := c.stands(b, h.w.Now()); got[i].Spent != spent || got[i].Held != held {
			h.t.Fatalf("%s %s of %s %q: %d spent, %d held, want %d and %d", b.Period, b.Unit, b.Kind, b.Of, got[i].Spent, got[i].Held, spent, held)
		}
	}
}
