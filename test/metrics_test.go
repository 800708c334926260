package test

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"bulkhead/store/pgtest"
	"bulkhead/test/servers"
	"bulkhead/test/upstream"
)

// family is what a gateway shows, or the documentation says, of one metric.
type family struct {
	kind   string // counter, gauge, histogram
	labels []string
}

// observed is a gateway of which every metric can be seen: with all servers that
// metrics tell of, and companies that have budgets, spend, fail and are refused.
type observed struct {
	*gateway
	poor, rich company
	last       time.Time // when it was busy
}

func newObserved(t *testing.T) *observed {
	t.Helper()
	up, db, redis := upstream.New(t), pgtest.New(t), servers.Start(t, "redis")
	g := prepare(t, `
providers:
  up: {kind: custom, base_url: `+up.BaseURL()+`}
  openai: {kind: openai, base_url: `+up.BaseURL()+"}\n",
		"BULKHEAD_POSTGRES_URL="+db.URL, "BULKHEAD_POSTGRES_OWNER_URL="+db.OwnerURL, "BULKHEAD_REDIS_URL="+redis.Var("REDIS_URL"))
	if r := g.command(t, nil, "", "migrate"); r.code != 0 {
		t.Fatalf("migrate: %+v", r)
	}
	g.serve(t)
	o := &observed{gateway: g, poor: g.newCompany(t, "Poor"), rich: g.newCompany(t, "Rich")}
	for _, c := range []company{o.poor, o.rich} {
		for _, provider := range []string{"up", "openai"} {
			g.setCredential(t, c, provider, upstreamSecret)
		}
	}
	budget := func(scope, id, window, usd string) {
		t.Helper()
		body := map[string]any{"scope": map[string]string{"type": scope, "id": id}, "window": window, "limit_usd": usd}
		if id == "" {
			body["scope"] = map[string]string{"type": scope}
		}
		g.call(t, http.MethodPost, g.URL+"/v1/organization/budgets", o.poor.AdminKey, body, nil)
	}
	budget("company", "", "day", "0.05")
	budget("company", "", "month", "0.05")
	budget("company", "", "total", "0.05")
	budget("project", o.poor.ProjectID, "week", "0.05")
	g.call(t, http.MethodPut, g.OpsURL+"/admin/companies/"+o.poor.ID+"/ceiling", g.Operator, map[string]string{"window": "month", "limit_usd": "1"}, nil)
	return o
}

// busy makes calls of every kind, unless it did just now.
func (o *observed) busy(t *testing.T) {
	t.Helper()
	if time.Since(o.last) < time.Second {
		return
	}
	o.last = time.Now()
	f := func(c company, model string, stream bool, status int) {
		t.Helper()
		body := chatBody(model, "Hello")
		body["stream"], body["max_tokens"] = stream, 100
		ask(t, http.MethodPost, o.URL+"/v1/chat/completions", c.APIKey, body).want(t, model, status)
	}
	f(o.poor, "openai/gpt-4o-mini", false, 200)
	f(o.poor, "openai/gpt-4o-mini", true, 200)
	f(o.poor, "openai/gpt-4o", false, 200)
	f(o.rich, "openai/gpt-4o", true, 200)
	f(o.rich, "up/no-usage", false, 200) // without a price, too
	f(o.rich, "up/status-500", false, 500)
	f(o.rich, "nobody/ok", false, 404)
	_, _ = io.ReadAll(o.openStream(t, o.rich.APIKey, "up/cut"))
}

// families reads what the gateway shows.
func (o *observed) families(t *testing.T) map[string]family {
	t.Helper()
	all := map[string]family{}
	sample := regexp.MustCompile(`^([a-z_]+)(?:\{(.*)\})? `)
	label := regexp.MustCompile(`([a-z_]+)="(?:[^"\\]|\\.)*"`)
	for line := range strings.Lines(string(ask(t, http.MethodGet, o.OpsURL+"/metrics", "", nil).want(t, "metrics", http.StatusOK).body)) {
		if rest, ok := strings.CutPrefix(line, "# TYPE "); ok {
			name, kind, _ := strings.Cut(strings.TrimSpace(rest), " ")
			all[name] = family{kind: kind}
		}
		m := sample.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		name := m[1]
		for _, suffix := range []string{"_bucket", "_sum", "_count"} {
			if base, ok := strings.CutSuffix(name, suffix); ok && (all[base].kind == "histogram" || all[base].kind == "summary") {
				name = base
			}
		}
		f, ok := all[name]
		if !ok {
			t.Fatalf("a sample of no family: %s", line)
		}
		for _, l := range label.FindAllStringSubmatch(m[2], -1) {
			if l[1] != "le" && !slices.Contains(f.labels, l[1]) {
				f.labels = append(f.labels, l[1])
			}
		}
		slices.Sort(f.labels)
		all[name] = f
	}
	return all
}

// documentedMetrics are those of docs/metrics.md.
func documentedMetrics(t *testing.T) map[string]family {
	t.Helper()
	text, err := os.ReadFile("../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	all, quoted := map[string]family{}, regexp.MustCompile("`([a-z_]+)`")
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "| `bulkhead_") {
			continue
		}
		cells := strings.Split(line, "|")
		if len(cells) != 6 {
			t.Fatalf("the documentation has %d cells in %q", len(cells)-2, line)
		}
		name := quoted.FindStringSubmatch(cells[1])[1]
		kind, unit, ok := strings.Cut(strings.TrimSpace(cells[2]), ", ")
		f := family{kind: kind}
		for _, l := range quoted.FindAllStringSubmatch(cells[3], -1) {
			f.labels = append(f.labels, l[1])
		}
		slices.Sort(f.labels)
		if _, twice := all[name]; twice || !ok || unit == "" || strings.TrimSpace(cells[4]) == "" {
			t.Errorf("the documentation has %q", line)
		}
		all[name] = f
	}
	return all
}

// TestMetrics looks at all that is for the eye, with a running gateway: that the
// documentation has each metric as it is, that every rule and panel asks for what
// there is, and that a real Prometheus shows something in every panel.
func TestMetrics(t *testing.T) {
	o := newObserved(t)
	var seen map[string]family
	eventually(t, time.Minute, "the budgets are shown", func() bool {
		o.busy(t) // Redis is asked on occasion of a call
		seen = o.families(t)
		return seen["bulkhead_budget_spent_usd"].kind != ""
	})
	t.Run("documented", func(t *testing.T) { checkDocumented(t, seen) })
	t.Run("asked", func(t *testing.T) { checkAsked(t, seen) })
	t.Run("shown", func(t *testing.T) { o.checkShown(t) })
}

func checkDocumented(t *testing.T, seen map[string]family) {
	documented := documentedMetrics(t)
	for name, f := range seen {
		d, ok := documented[name]
		switch {
		case !strings.HasPrefix(name, "bulkhead_"):
			if !strings.HasPrefix(name, "go_") && !strings.HasPrefix(name, "process_") {
				t.Errorf("what is %s?", name)
			}
		case !ok:
			t.Errorf("%s is not documented", name)
		case d.kind != f.kind || !slices.Equal(d.labels, f.labels):
			t.Errorf("%s is a %s with %q, documented is a %s with %q", name, f.kind, f.labels, d.kind, d.labels)
		}
	}
	for name := range documented {
		if _, ok := seen[name]; !ok {
			t.Errorf("%s is documented and not there", name)
		}
	}
}

// checkAsked looks at every query of rules, dashboards and their variables.
func checkAsked(t *testing.T, seen map[string]family) {
	known := map[string][]string{"up": nil}
	for name, f := range seen {
		if f.kind != "histogram" {
			known[name] = f.labels
			continue
		}
		known[name+"_bucket"] = append([]string{"le"}, f.labels...)
		known[name+"_sum"], known[name+"_count"] = f.labels, f.labels
	}
	rules := promRules(t)
	for _, r := range rules {
		if r.Record != "" {
			known[r.Record] = recordedLabels(r.Record)
		}
	}
	f := func(place, expr string, labels []string) {
		q := asked(expr)
		q.labels = append(q.labels, labels...)
		for _, problem := range q.problems(known) {
			t.Errorf("%s: %s, in %s", place, problem, expr)
		}
	}
	for _, r := range rules {
		var labels []string
		for _, text := range slices.Sorted(maps.Values(r.Annotations)) {
			for _, l := range regexp.MustCompile(`\$labels\.(\w+)`).FindAllStringSubmatch(text, -1) {
				labels = append(labels, l[1])
			}
		}
		f(r.Alert+r.Record, r.Expr, labels)
	}
	for name, d := range dashboards(t) {
		d.asks(t, name, f)
	}
}

// checkShown has a real Prometheus scrape the gateway and evaluate the rules, and
// asks it for what each panel shows.
func (o *observed) checkShown(t *testing.T) {
	server := servers.Start(t, "prometheus", "PROMETHEUS_CONFIG="+o.promConfig(t)).Var("PROMETHEUS_URL")
	type asking struct {
		place, expr string
		labels      []string // something that is shown must have
	}
	var left []asking
	for name, d := range dashboards(t) {
		d.asks(t, name, func(place, expr string, labels []string) { left = append(left, asking{place, expr, labels}) })
	}
	for _, r := range promRules(t) {
		if r.Record != "" {
			left = append(left, asking{"rule", r.Record, recordedLabels(r.Record)})
		}
	}
	t.Logf("%d queries", len(left))
	variables := strings.NewReplacer("$__rate_interval", "1m", "$company", ".*", "$instance", ".*")
	for end := time.Now().Add(2 * time.Minute); len(left) > 0; {
		o.busy(t) // something has to happen, or rates are 0
		left = slices.DeleteFunc(left, func(a asking) bool { return promShows(t, server, a.place, variables.Replace(a.expr), a.labels) })
		if time.Now().After(end) {
			for _, a := range left {
				t.Errorf("%s shows nothing, or not the labels %q: %s", a.place, a.labels, a.expr)
			}
			break
		}
	}
	checkRulesHealthy(t, server)
}

// promConfig writes the configuration that is delivered, for this gateway, seen
// as two, and every second.
func (o *observed) promConfig(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(promDir)); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "prometheus.yml")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	addr := strings.TrimPrefix(o.OpsURL, "http://")
	_, port, _ := strings.Cut(addr, ":")
	for old, with := range map[string]string{
		`"gateway-1:8081", "gateway-2:8081"`: fmt.Sprintf("%q, %q", addr, "localhost:"+port),
		"scrape_interval: 15s":               "scrape_interval: 1s",
		"evaluation_interval: 15s":           "evaluation_interval: 1s",
	} {
		if strings.Count(string(text), old) != 1 {
			t.Fatalf("the configuration has not one %q", old)
		}
		text = []byte(strings.Replace(string(text), old, with, 1))
	}
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// promAnswer is how Prometheus answers.
type promAnswer[T any] struct {
	Status, Error string
	Data          T
}

func promGet[T any](t *testing.T, address string) (v promAnswer[T]) {
	t.Helper()
	_, body, err := fetch(t.Context(), http.MethodGet, address, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(body, &v); err != nil {
		t.Fatalf("%s: %s", err, body)
	}
	return v
}

// promShows reports whether Prometheus has anything for a query, and each of the
// labels.
func promShows(t *testing.T, server, place, expr string, labels []string) bool {
	t.Helper()
	type sample struct{ Metric map[string]string }
	a := promGet[struct{ Result []sample }](t, server+"/api/v1/query?query="+url.QueryEscape(expr))
	if a.Status != "success" {
		t.Errorf("%s: %s: %s", place, a.Error, expr)
		return true
	}
	for _, l := range labels {
		if !slices.ContainsFunc(a.Data.Result, func(s sample) bool { return s.Metric[l] != "" }) {
			return false
		}
	}
	return len(a.Data.Result) > 0
}

// checkRulesHealthy: Prometheus can evaluate each rule on what the gateways say.
func checkRulesHealthy(t *testing.T, server string) {
	t.Helper()
	type group struct {
		Name  string
		Rules []struct{ Name, Health, LastError string }
	}
	n := 0
	for _, g := range promGet[struct{ Groups []group }](t, server+"/api/v1/rules").Data.Groups {
		for _, r := range g.Rules {
			if n++; r.Health != "ok" {
				t.Errorf("%s: %s is %s: %s", g.Name, r.Name, r.Health, r.LastError)
			}
		}
	}
	if want := len(promRules(t)); n != want {
		t.Errorf("Prometheus has %d rules, want %d", n, want)
	}
}
