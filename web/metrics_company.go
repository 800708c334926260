package web

import (
	"cmp"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"bulkhead/tenant"
)

// Series are bounded: Settings.MetricCompanies companies have their own, the
// most active of the last minutes, and all others share the company "other".
// While there is room a company has its own from its first call. Once there is
// none, a company that is far busier than one of those takes its place, and the
// other's series go: what it does from then on is "other". What is on a counter
// that goes is not added to "other", which would look like spending at that
// moment; so rates are right, and totals since the start are the ledger's.

const (
	// rankEvery is how often companies are compared.
	rankEvery = time.Minute
	// maxRanked bounds how many companies are compared. Those that come on top
	// between two rankings are "other".
	maxRanked = 1 << 17
	// keptFor is for how many rankings a single call is remembered.
	keptFor = 10
	// stays is how many times as busy as a company with series one without must
	// be to take its place. Else two of a kind would take turns.
	stays = 2
	// callSeries is how many endpoints and models have series, divided among the
	// companies that may have their own; at most maxSeriesEach of one.
	callSeries    = 100_000
	maxSeriesEach = 500
	// projectSeries is how many projects, and budgets of projects, have series,
	// divided among the companies that may have their own; the rest of a company's
	// share the project "other".
	projectSeries = 20_000
)

// metricCompany is a company as the metrics know it. metrics.mu guards what is
// not atomic.
type metricCompany struct {
	id     string
	own    bool                           // it has series of its own
	calls  atomic.Int64                   // since the last ranking
	score  atomic.Int64                   // calls, those before the last ranking by half, and so on
	busy   atomic.Bool                    // it had calls since it was last asked where its budgets stand
	policy atomic.Pointer[tenant.Company] // that of scope
	scope  tenant.Scope                   // the newest that was seen

	budgets []*tenant.Budget // of that policy, those that are shown

	series   map[seriesKey]*series
	projects map[string]prometheus.Counter
	stands   map[string]stand // by the budget's id; budgetGauges.scraping guards it
}

func newMetricCompany(id string) *metricCompany {
	return &metricCompany{id: id, series: map[seriesKey]*series{}}
}

// active notes a call of a company, which it returns.
func (m *metrics) active(c *call) *metricCompany {
	m.mu.RLock()
	co := m.companies[c.company()]
	m.mu.RUnlock()
	if co == nil {
		if co = m.meet(c); co == m.others {
			return co
		}
	}
	co.calls.Add(1)
	co.busy.Store(true)
	if co.policy.Load() != c.scope.Company() {
		m.adopt(co, c.scope)
	}
	now := m.g.now().UnixNano()
	if due(&m.ranked, now, rankEvery) { // off the client's time, as below
		go m.rank()
	}
	if !m.budgets.knows && due(&m.budgets.asked, now, standEvery) {
		go m.budgets.ask()
	}
	return co
}

// due reports whether something that was done last is to be done again, to one of
// those who ask.
func due(last *atomic.Int64, now int64, every time.Duration) bool {
	then := last.Load()
	return now-then >= int64(every) && last.CompareAndSwap(then, now)
}

// meet returns the company of a call that is not known, or the others' where
// there is no room.
func (m *metrics) meet(c *call) *metricCompany {
	m.mu.Lock()
	defer m.mu.Unlock()
	id := c.company()
	if co := m.companies[id]; co != nil {
		return co
	}
	if len(m.companies) >= maxRanked {
		return m.others
	}
	co := newMetricCompany(id)
	if m.owners < c.settings.MetricCompanies {
		m.admit(co)
	}
	m.companies[id] = co
	return co
}

func (m *metrics) admit(co *metricCompany) {
	co.own = true
	m.owners++
}

// adopt notes the policy of s, unless one that is newer was seen. Projects that
// are gone lose their series.
func (m *metrics) adopt(co *metricCompany, s tenant.Scope) {
	m.mu.Lock()
	defer m.mu.Unlock()
	policy, old := s.Company(), co.policy.Load()
	if old != nil && policy.Generation < old.Generation {
		return
	}
	co.scope, co.budgets = s, shown(policy)
	co.policy.Store(policy)
	for id := range co.projects {
		if p := policy.Projects[id]; id != otherLabel && (p == nil || !p.ArchivedAt.IsZero()) {
			delete(co.projects, id)
			m.projects.DeleteLabelValues(co.id, id)
		}
	}
}

// project returns the counter of what a call's project spends.
func (m *metrics) project(co *metricCompany, c *call) prometheus.Counter {
	id, each := c.scope.ProjectID(), projectsEach(c.settings.MetricCompanies)
	m.mu.RLock()
	co, label := m.projectLabel(co, id, each)
	n := co.projects[label]
	m.mu.RUnlock()
	if n != nil {
		return n
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	co, label = m.projectLabel(co, id, each)
	if n = co.projects[label]; n != nil {
		return n
	}
	if co.projects == nil {
		co.projects = map[string]prometheus.Counter{}
	}
	n = m.projects.WithLabelValues(co.id, label)
	co.projects[label] = n
	return n
}

// projectLabel says under what names a project of a company is counted. The
// caller holds the lock.
func (m *metrics) projectLabel(co *metricCompany, id string, each int) (*metricCompany, string) {
	if !co.own {
		return m.others, otherLabel
	}
	if _, has := co.projects[id]; has {
		return co, id
	}
	n := len(co.projects)
	if _, has := co.projects[otherLabel]; has {
		n--
	}
	if n >= each {
		return co, otherLabel
	}
	return co, id
}

// projectsEach is how many projects of a company may have series of their own.
func projectsEach(companies int) int { return max(projectSeries/max(companies, 1), 1) }

// seriesEach is how many series of calls a company may have, and the others
// together.
func seriesEach(companies int) int {
	return min(max(callSeries/max(companies, 1), 1), maxSeriesEach)
}

// rank lets the most active companies have series of their own, and forgets
// those without that do nothing. It looks at them without holding anybody up.
func (m *metrics) rank() {
	m.ranking.Lock() // nobody else changes scores
	defer m.ranking.Unlock()
	type ranked struct {
		*metricCompany
		weight int64
	}
	m.mu.RLock()
	all := make([]ranked, 0, len(m.companies))
	for _, co := range m.companies {
		r := ranked{co, co.score.Load()/2 + co.calls.Swap(0)<<keptFor}
		co.score.Store(r.weight)
		if co.own {
			r.weight = max(r.weight*stays, 1) // it stays until somebody wants the place
		}
		all = append(all, r)
	}
	m.mu.RUnlock()
	slices.SortFunc(all, func(a, b ranked) int {
		return cmp.Or(cmp.Compare(b.weight, a.weight), cmp.Compare(a.id, b.id))
	})
	n := min(m.g.settings.Load().MetricCompanies, len(all))
	for i, r := range all[n:] {
		if r.own || r.weight == 0 {
			m.demote(r.metricCompany, r.weight == 0)
		}
		all[n+i] = ranked{}
	}
	for _, r := range all[:n] {
		if !r.own {
			m.promote(r.metricCompany, r.weight > 0)
		}
	}
	m.budgets.addRest()
}

// demote takes a company's series away; forget says that it is not even known
// any more.
func (m *metrics) demote(co *metricCompany, forget bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.drop(co)
	if forget && m.companies[co.id] == co {
		delete(m.companies, co.id)
	}
}

// promote gives a company series, unless it was forgotten meanwhile or does
// nothing.
func (m *metrics) promote(co *metricCompany, busy bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.companies[co.id] != co || co.own:
	case busy:
		m.admit(co)
	default:
		delete(m.companies, co.id)
	}
}

// has reports whether anything is known of a company.
func (m *metrics) has(company string) bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.companies[company] != nil
}

// forget drops the series of a company that is gone.
func (m *metrics) forget(company string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if co := m.companies[company]; co != nil {
		m.drop(co)
		delete(m.companies, company)
	}
}

// renew notes the policy of a company that changed, so that its budgets are
// shown as they now are although it makes no calls.
func (m *metrics) renew(company string) {
	m.mu.RLock()
	co := m.companies[company]
	if co == nil || co.policy.Load() == nil {
		m.mu.RUnlock()
		return
	}
	s := co.scope
	m.mu.RUnlock()
	if now, ok := m.g.Tenants.Current(s); ok {
		m.adopt(co, now)
	}
}

// drop removes all series of a company. Who has one of them in hand counts into
// the void. The caller holds the lock.
func (m *metrics) drop(co *metricCompany) {
	if !co.own {
		return
	}
	co.own = false
	m.owners--
	for k, s := range co.series {
		s.gone = true
		l := k.labels(co.id)
		for _, kind := range tokenKinds {
			m.tokens.DeleteLabelValues(append(l, kind)...)
		}
		m.spend.DeleteLabelValues(l...)
		for status := range s.status {
			m.calls.DeleteLabelValues(append(l, strconv.Itoa(status))...)
		}
	}
	for id := range co.projects {
		m.projects.DeleteLabelValues(co.id, id)
	}
	co.series, co.projects = map[seriesKey]*series{}, nil
}
