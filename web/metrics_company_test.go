package web

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"bulkhead/keystore"
	"bulkhead/openai"
	"bulkhead/provider"
	"bulkhead/tenant"
)

// series returns what is shown of the metrics with that prefix, as lines of
// "name label=value … number", sorted.
func (l *lab) series(prefix string) (all []string) {
	l.t.Helper()
	families, err := l.g.metrics.registry.Gather()
	must(l.t, err)
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), prefix) {
			continue
		}
		for _, m := range f.GetMetric() {
			line := f.GetName()
			for _, p := range m.GetLabel() {
				line += " " + p.GetName() + "=" + p.GetValue()
			}
			all = append(all, fmt.Sprint(line, " ", m.GetCounter().GetValue()+m.GetGauge().GetValue()))
		}
	}
	slices.Sort(all)
	return all
}

// owners returns which of the companies have series of their own, as one letter
// each.
func (l *lab) owners(ids []string) (letters string) {
	l.t.Helper()
	text := strings.Join(l.series("bulkhead_"), "\n")
	for i, id := range ids {
		if strings.Contains(text, "company="+id) {
			letters += string(rune('a' + i))
		}
	}
	return letters
}

// busy makes the metrics see n calls of a company.
func (l *lab) busy(s tenant.Scope, n int) {
	for range n {
		c := &call{g: l.g, settings: l.g.settings.Load(), scope: s, opened: true, start: time.Now(), endpoint: openai.Chat, status: 404}
		l.g.metrics.count(c, nil, l.g.now())
	}
}

// TestMetricsMostActive: with room for two companies those two have series that
// are far busier than the others.
func TestMetricsMostActive(t *testing.T) {
	l := newLab(t, labOptions{settings: func(s *Settings) { s.MetricCompanies = 2 }})
	var ids []string
	var all []tenant.Scope
	for i := range 4 {
		_, s := l.company(fmt.Sprint("company ", i), tenant.KeyLive, nil)
		ids, all = append(ids, s.ID().String()), append(all, s)
	}
	m := l.g.metrics
	f := func(when, want string) {
		t.Helper()
		if got := l.owners(ids); got != want {
			t.Errorf("%s: %q have series of their own, want %q", when, got, want)
		}
	}
	l.busy(all[0], 10)
	l.busy(all[1], 20)
	l.busy(all[2], 1)
	f("the first come", "ab")
	others := func() float64 {
		var sum float64
		for _, line := range l.series("bulkhead_requests_total") {
			if strings.Contains(line, "company=other") {
				_, err := fmt.Sscan(line[strings.LastIndexByte(line, ' ')+1:], &sum)
				must(t, err)
			}
		}
		return sum
	}
	if n := others(); n != 1 {
		t.Errorf("%v calls of the others, want 1", n)
	}
	m.rank()
	f("nobody is busier", "ab")
	l.busy(all[2], 8) // with what it did before: less than twice as busy
	m.rank()
	f("hardly busier", "ab")
	l.busy(all[2], 100)
	m.rank()
	f("far busier than the first, whose series have gone", "b")
	if n := others(); n != 109 {
		t.Errorf("%v calls of the others, want 109: what is counted stays where it was", n)
	}
	l.busy(all[2], 5)
	f("the next calls", "bc")
	if own := strings.Join(l.series("bulkhead_requests_total"), "\n"); !strings.Contains(own, "company="+ids[2]+" endpoint=chat model= provider= status=404 5") {
		t.Errorf("the series of the company that came in:\n%s", own)
	}
	// The one that went out counts with the others, and comes back.
	l.busy(all[0], 1)
	f("out", "bc")
	for range 3 * keptFor {
		m.rank()
	}
	f("nobody does anything", "bc")
	if m.has(ids[0]) || m.has(ids[3]) {
		t.Error("a company that does nothing and has no series is not forgotten")
	}
	l.busy(all[0], 1)
	m.rank()
	l.busy(all[0], 1)
	if got := l.owners(ids); !strings.Contains(got, "a") || len(got) != 2 {
		t.Errorf("a single call is more than nothing: %q have series", got)
	}
	m.forget(ids[0])
	l.busy(all[3], 1)
	if got := l.owners(ids); strings.Contains(got, "a") || !strings.Contains(got, "d") {
		t.Errorf("%q have series after one was forgotten and another came", got)
	}

	l.g.Reload(func() Settings { s := *l.g.settings.Load(); s.MetricCompanies = 0; return s }())
	m.rank()
	f("none may", "")
	l.busy(all[1], 3)
	f("none may still", "")
}

// TestMetricsRanked: companies are compared by calls alone, when it is time.
func TestMetricsRanked(t *testing.T) {
	l := newLab(t, labOptions{settings: func(s *Settings) { s.MetricCompanies = 1 }})
	_, a := l.company("a", tenant.KeyLive, nil)
	_, b := l.company("b", tenant.KeyLive, nil)
	ids := []string{a.ID().String(), b.ID().String()}
	l.busy(a, 1)
	l.busy(b, 100)
	if got := l.owners(ids); got != "a" {
		t.Fatalf("%q have series", got)
	}
	l.g.metrics.ranked.Add(-int64(rankEvery))
	eventually(t, "the busier one has series", func() bool { l.busy(b, 1); return l.owners(ids) == "b" })
}

// TestMetricsGone: who still has series in hand that were removed brings none
// back.
func TestMetricsGone(t *testing.T) {
	l := newLab(t, labOptions{})
	_, s := l.company("acme", tenant.KeyLive, nil)
	m, id := l.g.metrics, s.ID().String()
	c := &call{g: l.g, settings: l.g.settings.Load(), scope: s, opened: true, start: time.Now(), status: 500}
	co := m.active(c)
	held := m.of(c, nil, co)
	m.forget(id)
	m.counted(held, c).Inc()
	held.spend.Add(1)
	m.project(co, c).Inc()
	if m.of(c, nil, co) == held {
		t.Error("the series are still found")
	}
	if got := l.owners([]string{id}); got != "" {
		t.Errorf("series of a company that is gone:\n%s", strings.Join(l.series("bulkhead_"), "\n"))
	}
}

// TestMetricsProjects: what a project spends, up to so many projects, until it is
// archived.
func TestMetricsProjects(t *testing.T) {
	l := newLab(t, labOptions{settings: func(s *Settings) { s.MetricCompanies = projectSeries / 2 }}) // two each
	key, s := l.company("acme", tenant.KeyLive, nil)
	first, keys := s.ProjectID(), []string{key}
	for _, id := range []string{"proj_2", "proj_3", "proj_4"} {
		l.world.Edit(s, func(c *tenant.Company) { c.Projects[id] = &tenant.Project{ID: id} })
		k, _ := l.world.AddKey(s, tenant.KeyLive, id)
		keys = append(keys, k)
	}
	for _, k := range keys {
		if a := l.chat(k, "openai/gpt-4o-mini", ""); a.status != 200 {
			t.Fatal(a)
		}
		l.settle()
	}
	f := func(want ...string) {
		t.Helper()
		var got []string
		for _, line := range l.series("bulkhead_project_spend_usd_total") {
			p := strings.Fields(line)
			got = append(got, strings.TrimPrefix(p[2], "project="))
			if p[1] != "company="+s.ID().String() || p[3] == "0" {
				t.Errorf("%s", line)
			}
		}
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("projects %q, want %q", got, want)
		}
	}
	f(first, "proj_2", "other")
	var sum, spent float64
	add := func(name string, to *float64) {
		for _, line := range l.series(name) {
			var n float64
			_, err := fmt.Sscan(line[strings.LastIndexByte(line, ' ')+1:], &n)
			must(t, err)
			*to += n
		}
	}
	add("bulkhead_project_spend_usd_total", &sum)
	add("bulkhead_spend_usd_total", &spent)
	if diff := sum - spent; diff > 1e-12 || diff < -1e-12 || spent == 0 {
		t.Errorf("projects spent %v, companies %v", sum, spent)
	}

	l.world.Edit(s, func(c *tenant.Company) {
		c.Projects["proj_2"] = &tenant.Project{ID: "proj_2", ArchivedAt: time.Unix(2, 0)}
	})
	l.chat(key, "openai/gpt-4o-mini", "")
	l.settle()
	f(first, "other")
	l.chat(keys[2], "openai/gpt-4o-mini", "") // there is room now
	l.settle()
	f(first, "proj_3", "other")

	l.g.metrics.forget(s.ID().String())
	f()
}

// TestMetricsModels: a company that names any number of models in its routes has
// only so many series.
func TestMetricsModels(t *testing.T) {
	l := newLab(t, labOptions{})
	_, s := l.company("acme", tenant.KeyLive, routeTo("up/ok"))
	c := &call{g: l.g, settings: l.g.settings.Load(), scope: s, opened: true, start: time.Now(), status: 500, model: "best"}
	for i := range maxSeriesEach + 50 {
		a := &attempt{}
		a.target.Provider, a.target.Model, a.target.Vendor = "up", fmt.Sprint("m", i), l.g.settings.Load().Vendors["up"]
		c.attempts = []*attempt{a}
		l.g.metrics.count(c, nil, l.g.now())
	}
	all := l.series("bulkhead_spend_usd_total")
	if len(all) > maxSeriesEach+1 {
		t.Errorf("%d series", len(all))
	}
	if text := strings.Join(all, "\n"); !strings.Contains(text, "model=m0 ") || !strings.Contains(text, "model=other ") {
		t.Error("the first model has no series of its own, or the last is not with the others")
	}
}

// TestMetricsRefusals: one can tell why calls were refused.
func TestMetricsRefusals(t *testing.T) {
	l := newBudgetLab(t)
	f := func(edit func(*tenant.Company), want string, before bool) {
		t.Helper()
		key, _ := l.company("acme", tenant.KeyLive, edit)
		done := make(chan answerGot, 1)
		if before { // another call runs meanwhile
			n := len(l.up.Requests())
			go func() { done <- l.chat(key, "up/hold", `,"max_tokens":100`) }()
			must(t, l.up.WaitRequests(n+1, patience))
		} else {
			done <- l.chat(key, "up/ok", `,"max_tokens":100`)
		}
		if a := l.chat(key, "up/ok", `,"max_tokens":100`); a.status != 429 {
			t.Errorf("%s: %s", want, a)
		}
		l.up.Release()
		if a := <-done; a.status != 200 {
			t.Errorf("%s: %s", want, a)
		}
		l.settle()
		if got := strings.Join(l.series("bulkhead_rejections_total"), "\n"); !strings.Contains(got, "code="+want+" 1") {
			t.Errorf("want one %s in\n%s", want, got)
		}
	}
	budget := func(unit tenant.Unit, limit int64) func(*tenant.Company) {
		return func(c *tenant.Company) {
			c.Budgets = []*tenant.Budget{{ID: "budget_1", Kind: tenant.OfCompany, Unit: unit, Period: tenant.Day, Limit: limit}}
		}
	}
	f(budget(tenant.Requests, 1), "insufficient_quota", false)
	f(budget(tenant.Tokens, 500), "budget_held", true)
	f(func(c *tenant.Company) { c.Limits.RequestsPerMinute = 1 }, "rate_limit_exceeded", false)
}

// foreignKeys is a Keeper that confuses companies.
type foreignKeys struct{ keystore.Keeper }

func (k foreignKeys) Credential(context.Context, tenant.Scope, string) (provider.Credential, error) {
	return provider.Credential{Company: "org-another"}, nil
}

// TestMetricsViolations: what is of another company stops the call and is counted.
func TestMetricsViolations(t *testing.T) {
	l := newLab(t, labOptions{})
	f := func(target, credential int) {
		t.Helper()
		want := fmt.Sprintf("[bulkhead_isolation_violations_total what=credential %d bulkhead_isolation_violations_total what=target %d bulkhead_isolation_violations_total what=vector 0]", credential, target)
		if got := fmt.Sprint(l.series("bulkhead_isolation")); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	key, s := l.company("acme", tenant.KeyLive, nil)
	f(0, 0)
	l.g.Keys = foreignKeys{l.keys}
	if a := l.chat(key, "up/ok", ""); a.status != 500 || len(l.up.Requests()) != 0 {
		t.Errorf("%s, and %d calls were sent", a, len(l.up.Requests()))
	}
	f(0, 1)
	func() {
		defer func() {
			if recover() == nil {
				t.Error("a target of another company is taken")
			}
		}()
		_, _ = (&call{g: l.g, scope: s}).credential(provider.Target{Company: "org-another"})
	}()
	f(1, 1)
}
