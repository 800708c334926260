package web

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"bulkhead/limiter"
	"bulkhead/tenant"
)

// sums is a limiter.Book of what was spent before: some USD of each owner.
type sums struct {
	usd   int64
	block chan struct{} // closed before an answer is given; nil: at once
	asked atomic.Int64
}

func (b *sums) Spent(ctx context.Context, _ tenant.Scope, spans []limiter.Span, _ time.Time, _ []string) ([]limiter.Used, error) {
	b.asked.Add(1)
	if b.block != nil {
		select {
		case <-b.block:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	all := make([]limiter.Used, len(spans))
	for i := range all {
		all[i].Nano = b.usd * 1e9
	}
	return all, nil
}

func (b *sums) Has(context.Context, tenant.Scope, []string) ([]string, error) { return nil, nil }

// budgetLab is a lab whose limiter counts budgets.
type budgetLab struct {
	*lab
	book  *sums
	known atomic.Bool // the limiter says where budgets stand
}

// forgetful is a limiter that may have dropped all its counts.
type forgetful struct {
	*limiter.Local
	l *budgetLab
}

func (f *forgetful) Known(s tenant.Scope, b *tenant.Budget) (limiter.Standing, bool) {
	if !f.l.known.Load() {
		return limiter.Standing{}, false
	}
	return f.Local.Known(s, b)
}

func newBudgetLab(t *testing.T) *budgetLab {
	l := &budgetLab{book: &sums{}}
	l.known.Store(true)
	var local *limiter.Local
	l.lab = newLab(t, labOptions{limiter: func(limiter.Limiter) limiter.Limiter {
		local = limiter.NewLocal(limiter.Options{Book: l.book, BookTimeout: patience})
		return &forgetful{local, l}
	}})
	l.limiter = local
	return l
}

// want looks for lines of series, and that there are no others.
func (l *budgetLab) want(when, prefix string, want ...string) {
	l.t.Helper()
	got := l.series(prefix)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		l.t.Errorf("%s:\n%s\nwant\n%s", when, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func usdBudget(id, kind, of string, p tenant.Period, usd int64) *tenant.Budget {
	return &tenant.Budget{ID: "budget_" + id, Kind: kind, Of: of, Unit: tenant.USD, Period: p, Limit: usd * 1e9}
}

// TestBudgetGauges: budgets of money of the company, its projects and the
// operator's ceiling are shown as the limiter counts them, and no others.
func TestBudgetGauges(t *testing.T) {
	l := newBudgetLab(t)
	l.book.usd = 7
	key, s := l.company("acme", tenant.KeyLive, func(c *tenant.Company) {
		p := projectOf(c).ID
		c.Projects["proj_idle"] = &tenant.Project{ID: "proj_idle"}
		c.Projects["proj_old"] = &tenant.Project{ID: "proj_old", ArchivedAt: time.Unix(2, 0)}
		c.Budgets = []*tenant.Budget{
			usdBudget("1", tenant.OfCompany, "", tenant.Total, 100), usdBudget("2", tenant.OfCeiling, "", tenant.Month, 50),
			usdBudget("3", tenant.OfProject, p, tenant.Day, 20), usdBudget("4", tenant.OfProject, "proj_idle", tenant.Total, 30),
			usdBudget("5", tenant.OfProject, "proj_old", tenant.Total, 30), usdBudget("6", tenant.OfUser, tenant.EachUser, tenant.Total, 30),
			{ID: "budget_7", Kind: tenant.OfCompany, Unit: tenant.Tokens, Period: tenant.Month, Limit: 1e6},
		}
	})
	l.want("nobody has called yet", "bulkhead_budget_limit_usd")
	if a := l.chat(key, "openai/gpt-4o-mini", `,"max_tokens":50`); a.status != 200 { // 10 tokens at 0.15 USD per million and 4 at 0.6
		t.Fatal(a)
	}
	l.settle()
	line := func(what, kind, project, period string, n float64) string {
		return fmt.Sprintf("bulkhead_budget_%s company=%s kind=%s period=%s project=%s %v", what, s.ID(), kind, period, project, n)
	}
	p := s.ProjectID()
	limits := []string{
		line("limit_usd", "company", "", "total", 100), line("limit_usd", "ceiling", "", "month", 50),
		line("limit_usd", "project", p, "day", 20), line("limit_usd", "project", "proj_idle", "total", 30),
	}
	l.want("after a call", "bulkhead_budget_limit_usd", limits...)
	// Nobody has counted the ceiling, which is for other credentials, or the idle project.
	spent := []string{line("spent_usd", "company", "", "total", 7.0000039), line("spent_usd", "project", p, "day", 7.0000039)}
	l.want("after a call", "bulkhead_budget_spent_usd", spent...)
	l.want("after a call", "bulkhead_budget_held_usd", line("held_usd", "company", "", "total", 0), line("held_usd", "project", p, "day", 0))
	now := time.Now()
	_, day := new(tenant.Calendar).Window(tenant.Day, now)
	_, month := new(tenant.Calendar).Window(tenant.Month, now)
	l.want("after a call", "bulkhead_budget_reset", line("reset_timestamp_seconds", "ceiling", "", "month", float64(month.Unix())),
		line("reset_timestamp_seconds", "project", p, "day", float64(day.Unix())))

	// What runs holds.
	hold, _, err := l.g.Limiter.Hold(t.Context(), s, &limiter.Ask{ID: "attempt_1", Budgets: s.Budgets()[:1], By: limiter.By{Project: p}, Nano: 2_500_000_000})
	must(t, err)
	l.want("one runs", "bulkhead_budget_held_usd", line("held_usd", "company", "", "total", 2.5), line("held_usd", "project", p, "day", 2.5))
	l.want("one runs", "bulkhead_held_usd", "bulkhead_held_usd 2.5")
	l.want("one runs", "bulkhead_holds_open", "bulkhead_holds_open 1")
	hold.End(limiter.Used{Nano: 1_000_000_001})
	spent = []string{line("spent_usd", "company", "", "total", 8.000003901), line("spent_usd", "project", p, "day", 8.000003901)}
	l.want("it has ended", "bulkhead_budget_spent_usd", spent...)
	l.want("it has ended", "bulkhead_held_usd", "bulkhead_held_usd 0")

	// A limiter that has dropped what is idle: as it stood last.
	l.known.Store(false)
	l.want("dropped", "bulkhead_budget_spent_usd", spent...)
	co, g := l.g.metrics.scopes(true)[0], &l.g.metrics.budgets
	if st, ok := g.stands(&co, co.budgets[2], day.Add(-time.Second)); !ok || st.Spent != 8_000_003_901 {
		t.Errorf("before the end of its day: %+v, %v", st, ok)
	}
	if st, ok := g.stands(&co, co.budgets[2], day); !ok || st.Spent != 0 || !st.From.Equal(day) {
		t.Errorf("on the next day: %+v, %v", st, ok)
	}
	if st, ok := g.stands(&co, co.budgets[0], day.AddDate(3, 0, 0)); !ok || st.Spent != 8_000_003_901 {
		t.Errorf("for ever: %+v, %v", st, ok)
	}
	l.known.Store(true)

	// A change of policy is seen without a call, once the gateway is told, and a
	// call that began before it and ends now does not bring the old one back.
	l.world.Edit(s, func(c *tenant.Company) {
		c.Generation, c.Budgets = 5, []*tenant.Budget{usdBudget("1", tenant.OfCompany, "", tenant.Total, 200)}
	})
	if !l.g.PolicyChanged(s.ID().String()) {
		t.Fatal("it is to be told again")
	}
	l.busy(s, 1)
	l.want("another policy", "bulkhead_budget_limit_usd", line("limit_usd", "company", "", "total", 200))
	l.want("another policy", "bulkhead_budget_spent_usd", spent[0])
	if n := len(co.stands); n != 1 {
		t.Errorf("%d budgets are remembered, of which one is left", n)
	}
	l.g.metrics.forget(s.ID().String())
	l.want("gone", "bulkhead_budget_limit_usd")
	l.want("gone", "bulkhead_budget_spent_usd")
}

// TestBudgetGaugesOther: the budgets of companies and projects without series are
// shown as sums.
func TestBudgetGaugesOther(t *testing.T) {
	l := newBudgetLab(t)
	l.book.usd = 3
	settings := *l.g.settings.Load()
	settings.MetricCompanies = 1
	l.g.Reload(settings)
	for i := range 3 {
		_, s := l.company(fmt.Sprint("company ", i), tenant.KeyLive, func(c *tenant.Company) {
			c.Budgets = []*tenant.Budget{usdBudget("1", tenant.OfCompany, "", tenant.Total, 10), usdBudget("2", tenant.OfProject, projectOf(c).ID, tenant.Total, 5)}
		})
		l.busy(s, 1)
		_, err := l.g.Limiter.Standing(t.Context(), s, s.Company().Budgets)
		must(t, err)
	}
	l.g.metrics.rank()
	var own, others []string
	for _, line := range l.series("bulkhead_budget_") {
		switch {
		case strings.Contains(line, "company=other"):
			others = append(others, strings.TrimPrefix(line, "bulkhead_budget_"))
		case strings.Contains(line, "company="):
			own = append(own, line)
		}
	}
	want := []string{
		"held_usd company=other kind=company period=total project= 0", "held_usd company=other kind=project period=total project= 0",
		"limit_usd company=other kind=company period=total project= 20", "limit_usd company=other kind=project period=total project= 10",
		"spent_usd company=other kind=company period=total project= 6", "spent_usd company=other kind=project period=total project= 6",
	}
	if !slices.Equal(others, want) || len(own) != 6 {
		t.Errorf("the others:\n%s\nand %d of one's own", strings.Join(others, "\n"), len(own))
	}

}

// TestBudgetGaugesProjects: only so many budgets of projects are shown, and the
// rest of the company's together.
func TestBudgetGaugesProjects(t *testing.T) {
	l := newBudgetLab(t)
	l.book.usd = 3
	settings := *l.g.settings.Load()
	settings.MetricCompanies = projectSeries / 2 // two each
	l.g.Reload(settings)
	_, s := l.company("acme", tenant.KeyLive, func(c *tenant.Company) {
		for i := range 4 {
			p := &tenant.Project{ID: fmt.Sprint("proj_", i)}
			c.Projects[p.ID] = p
			c.Budgets = append(c.Budgets, usdBudget(fmt.Sprint(i), tenant.OfProject, p.ID, tenant.Total, 10))
		}
	})
	l.busy(s, 1)
	_, err := l.g.Limiter.Standing(t.Context(), s, s.Company().Budgets[:3])
	must(t, err)
	f := func(what string, first, other float64) {
		t.Helper()
		line := func(project string, n float64) string {
			return fmt.Sprintf("bulkhead_budget_%s_usd company=%s kind=project period=total project=%s %v", what, s.ID(), project, n)
		}
		l.want("four", "bulkhead_budget_"+what+"_usd", line("proj_0", first), line("proj_1", first), line("other", other))
	}
	f("limit", 10, 10) // of the fourth nothing is known
	f("spent", 3, 3)
	f("held", 0, 0)
}

// TestBudgetGaugesWait: whoever looks at the metrics asks nobody and waits for
// nobody.
func TestBudgetGaugesWait(t *testing.T) {
	l := newBudgetLab(t)
	l.book.block = make(chan struct{})
	key, s := l.company("acme", tenant.KeyLive, func(c *tenant.Company) {
		c.Budgets = []*tenant.Budget{usdBudget("1", tenant.OfCompany, "", tenant.Total, 10)}
	})
	done := make(chan answerGot, 1)
	go func() { done <- l.chat(key, "openai/gpt-4o-mini", "") }()
	eventually(t, "the book is asked", func() bool { return l.book.asked.Load() == 1 })
	l.busy(s, 1)
	l.world.Fail(errors.New("the store is away"))
	loads := l.world.Loads()
	l.want("while it reads", "bulkhead_budget_limit_usd", fmt.Sprintf("bulkhead_budget_limit_usd company=%s kind=company period=total project= 10", s.ID()))
	l.want("while it reads", "bulkhead_budget_spent_usd")
	if l.book.asked.Load() != 1 || l.world.Loads() != loads {
		t.Error("a scrape asks for something")
	}
	close(l.book.block)
	if a := <-done; a.status != 200 {
		t.Errorf("%s", a)
	}
}

// asked is a limiter that knows nothing by itself.
type asked struct {
	limiter.Limiter
	n atomic.Int64
}

func (a *asked) Standing(ctx context.Context, s tenant.Scope, budgets []*tenant.Budget) ([]limiter.Standing, error) {
	a.n.Add(1)
	return a.Limiter.Standing(ctx, s, budgets)
}

// TestBudgetGaugesAsked: where the limiter has to be asked, that is done for
// companies that are busy, and not by who looks at the metrics.
func TestBudgetGaugesAsked(t *testing.T) {
	l := newBudgetLab(t)
	l.book.usd = 4
	lim := &asked{Limiter: l.limiter}
	l.g.Limiter = lim
	l.g.metrics = newMetrics(l.g)
	l.g.metrics.budgets.asked.Store(time.Now().Add(time.Hour).UnixNano()) // not by itself
	_, s := l.company("acme", tenant.KeyLive, func(c *tenant.Company) {
		c.Budgets = []*tenant.Budget{usdBudget("1", tenant.OfCompany, "", tenant.Total, 10)}
	})
	l.busy(s, 1)
	l.want("nobody was asked", "bulkhead_budget_spent_usd")
	l.g.metrics.budgets.ask()
	want := fmt.Sprintf("bulkhead_budget_spent_usd company=%s kind=company period=total project= 4", s.ID())
	l.want("asked", "bulkhead_budget_spent_usd", want)
	l.want("looked at again", "bulkhead_budget_spent_usd", want)
	l.g.metrics.budgets.ask()
	if n := lim.n.Load(); n != 1 {
		t.Errorf("asked %d times: also for a company that does nothing", n)
	}
	l.want("no longer asked", "bulkhead_budget_spent_usd", want)

	l.g.metrics.budgets.asked.Store(0)
	l.busy(s, 2)
	eventually(t, "it is asked by itself, once", func() bool { return lim.n.Load() == 2 })
}
