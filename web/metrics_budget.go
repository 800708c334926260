package web

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"bulkhead/limiter"
	"bulkhead/tenant"
)

// standEvery is how often a limiter that has to be asked is asked where budgets
// stand.
const standEvery = 15 * time.Second

// knower is a Limiter that can say where a budget stands without asking or
// waiting for anybody; ok is false where it would have to.
type knower interface {
	Known(s tenant.Scope, b *tenant.Budget) (st limiter.Standing, ok bool)
}

// budgetGauges tell of the budgets of money of companies with series of their
// own, the ceiling and those of projects included, and of the others' together.
//
// A company is known from its first call since the start. What was spent is what
// the limiter has counted: none is shown of a budget of which that has counted
// nothing yet. One that is idle is dropped there and shown as it stood last; once
// that period is over, as not touched.
type budgetGauges struct {
	m                         *metrics
	limit, spent, held, reset *prometheus.Desc

	knows bool         // the limiter is a knower
	asked atomic.Int64 // when the limiter was last asked, unix ns

	scraping sync.Mutex           // guards each company's stands, and
	rest     map[restKey]*restSum // of the other companies, of the last ranking
}

// stand is where a budget stood when it was last known.
type stand struct {
	limiter.Standing
	seen bool // by the scrape under way
}

// restKey names budgets that are shown together, and restSum is their sum, of
// those that are counted.
type (
	restKey struct {
		kind   string
		period tenant.Period
	}
	restSum struct{ limit, spent, held int64 }
)

func (s *restSum) add(b *tenant.Budget, st *limiter.Standing) {
	s.limit += b.Limit
	s.spent += st.Spent
	s.held += st.Held
}

func (g *budgetGauges) init(m *metrics) {
	labels := []string{"company", "kind", "project", "period"}
	desc := func(what, help string) *prometheus.Desc {
		return prometheus.NewDesc("bulkhead_budget_"+what, help, labels, nil)
	}
	g.m = m
	_, g.knows = m.g.Limiter.(knower)
	g.limit = desc("limit_usd", "What a budget of a company, its ceiling (kind) or a project allows in its period, in USD.")
	g.spent = desc("spent_usd", "What is spent of a budget in its period, in USD.")
	g.held = desc("held_usd", "What running calls hold of a budget, in USD.")
	g.reset = desc("reset_timestamp_seconds", "When the period of a budget ends, in seconds since 1970; none for one that never does.")
}

// Describe implements prometheus.Collector.
func (g *budgetGauges) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{g.limit, g.spent, g.held, g.reset} {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (g *budgetGauges) Collect(to chan<- prometheus.Metric) {
	g.scraping.Lock()
	defer g.scraping.Unlock()
	each, now := projectsEach(g.m.g.settings.Load().MetricCompanies), g.m.g.now()
	for _, one := range g.m.scopes(true) {
		g.company(to, &one, each, now)
	}
	for k, sum := range g.rest {
		g.sum(to, sum, otherLabel, k.kind, "", k.period)
	}
}

// scoped is a company with its newest policy.
type scoped struct {
	*metricCompany
	scope   tenant.Scope
	budgets []*tenant.Budget // those that are shown
}

// scopes returns the companies with series of their own, or those without.
func (m *metrics) scopes(own bool) (all []scoped) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	for _, co := range m.companies {
		if co.own == own && co.policy.Load() != nil {
			all = append(all, scoped{co, co.scope, co.budgets})
		}
	}
	return all
}

// shown returns the budgets of a company that metrics tell of.
func shown(c *tenant.Company) (all []*tenant.Budget) {
	for _, b := range c.Budgets {
		show := b.Kind == tenant.OfCompany || b.Kind == tenant.OfCeiling
		if p := c.Projects[b.Of]; b.Kind == tenant.OfProject && p != nil {
			show = p.ArchivedAt.IsZero()
		}
		if show && b.Unit == tenant.USD {
			all = append(all, b)
		}
	}
	return all
}

// company sends the budgets of one company.
func (g *budgetGauges) company(to chan<- prometheus.Metric, co *scoped, each int, now time.Time) {
	var rest map[restKey]*restSum // of projects that have no series of their own
	projects := 0
	for _, b := range co.budgets {
		project := ""
		if b.Kind == tenant.OfProject {
			if projects++; projects > each {
				if st, ok := g.stands(co, b, now); ok {
					addTo(&rest, b, &st)
				}
				continue
			}
			project = b.Of
		}
		l := []string{co.id, b.Kind, project, string(b.Period)}
		gauge(to, g.limit, dollars(b.Limit), l...)
		if _, end := periodOf(b, now); !end.IsZero() {
			gauge(to, g.reset, float64(end.Unix()), l...)
		}
		if st, ok := g.stands(co, b, now); ok {
			gauge(to, g.spent, dollars(st.Spent), l...)
			gauge(to, g.held, dollars(st.Held), l...)
		}
	}
	for k, sum := range rest {
		g.sum(to, sum, co.id, k.kind, otherLabel, k.period)
	}
	for id, st := range co.stands {
		if !st.seen {
			delete(co.stands, id) // the budget is gone
			continue
		}
		st.seen = false
		co.stands[id] = st
	}
}

func (g *budgetGauges) sum(to chan<- prometheus.Metric, sum *restSum, company, kind, project string, period tenant.Period) {
	l := []string{company, kind, project, string(period)}
	gauge(to, g.limit, dollars(sum.limit), l...)
	gauge(to, g.spent, dollars(sum.spent), l...)
	gauge(to, g.held, dollars(sum.held), l...)
}

func addTo(sums *map[restKey]*restSum, b *tenant.Budget, st *limiter.Standing) {
	if *sums == nil {
		*sums = map[restKey]*restSum{}
	}
	k := restKey{b.Kind, b.Period}
	sum := (*sums)[k]
	if sum == nil {
		sum = &restSum{}
		(*sums)[k] = sum
	}
	sum.add(b, st)
}

// stands returns where a budget stands, as far as that is known without asking.
func (g *budgetGauges) stands(co *scoped, b *tenant.Budget, now time.Time) (limiter.Standing, bool) {
	st, ok := g.known(co.scope, b)
	if !ok {
		last, met := co.stands[b.ID]
		if !met {
			return st, false
		}
		if st = last.Standing; !st.To.IsZero() && !now.Before(st.To) {
			st.From, st.To = periodOf(b, now)
			st.Spent, st.Held = 0, 0
		}
	}
	co.note(b, st)
	return st, true
}

func (g *budgetGauges) known(s tenant.Scope, b *tenant.Budget) (limiter.Standing, bool) {
	if k, ok := g.m.g.Limiter.(knower); ok {
		return k.Known(s, b)
	}
	return limiter.Standing{}, false
}

// periodOf is the period of a budget that holds now.
func periodOf(b *tenant.Budget, now time.Time) (from, to time.Time) {
	if b.Calendar == nil {
		return new(tenant.Calendar).Window(b.Period, now)
	}
	return b.Calendar.Window(b.Period, now)
}

// addRest adds up the budgets of the companies without series of their own. Of
// those there may be many, so it is not done while somebody waits.
func (g *budgetGauges) addRest() {
	var rest map[restKey]*restSum
	for _, one := range g.m.scopes(false) {
		for _, b := range one.budgets {
			if st, ok := g.known(one.scope, b); ok {
				addTo(&rest, b, &st)
			}
		}
	}
	g.scraping.Lock()
	g.rest = rest
	g.scraping.Unlock()
}

// ask asks a limiter that knows nothing by itself where the budgets of the
// companies stand that were busy just now. It does I/O, and gives up where the
// limiter cannot say.
func (g *budgetGauges) ask() {
	ctx, cancel := context.WithTimeout(context.Background(), standEvery)
	defer cancel()
	for _, one := range g.m.scopes(true) {
		if !one.busy.Swap(false) || len(one.budgets) == 0 {
			continue
		}
		all, err := g.m.g.Limiter.Standing(ctx, one.scope, one.budgets) // if it fails, it will for others
		if err != nil {
			return
		}
		g.scraping.Lock()
		for i, b := range one.budgets {
			one.note(b, all[i])
		}
		g.scraping.Unlock()
	}
}

// note remembers where a budget stands. budgetGauges.scraping is held.
func (co *metricCompany) note(b *tenant.Budget, st limiter.Standing) {
	if co.stands == nil {
		co.stands = map[string]stand{}
	}
	co.stands[b.ID] = stand{st, true}
}
