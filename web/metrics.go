package web

import (
	"cmp"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"bulkhead/ledger"
)

// metrics is the only place that knows Prometheus; docs/metrics.md tells what
// each one means. Labels come from policy and configuration, never from a
// request: a model that neither the catalogue nor a route names is "other", and
// so are companies beyond the cap (metrics_company.go). What is read at a scrape
// is in memory: nobody is asked or waited for.
type metrics struct {
	g        *Gateway
	registry *prometheus.Registry
	inFlight prometheus.Gauge
	replays  prometheus.Counter

	calls        *prometheus.CounterVec
	tokens       *prometheus.CounterVec
	spend        *prometheus.CounterVec
	unpriced     *prometheus.CounterVec
	duration     *prometheus.HistogramVec
	firstByte    *prometheus.HistogramVec
	overhead     *prometheus.HistogramVec
	rejected     *prometheus.CounterVec
	attempts     *prometheus.CounterVec
	manage       *prometheus.CounterVec
	marked       *prometheus.CounterVec
	hold         prometheus.Histogram
	retrieval    prometheus.Histogram
	notRetrieved prometheus.Counter
	projects     *prometheus.CounterVec
	violated     *prometheus.CounterVec

	mu        sync.RWMutex
	companies map[string]*metricCompany // by id, those of the last minutes
	others    *metricCompany            // stands for all without series of their own
	owners    int                       // companies with series of their own
	ranked    atomic.Int64              // when they were last compared, unix ns
	ranking   sync.Mutex
	budgets   budgetGauges
}

// seriesKey names the label values that a call of a company is counted under.
type seriesKey struct{ endpoint, provider, model string }

// labels are those of bulkhead_spend_usd_total, and the first of the others that
// count calls.
func (k seriesKey) labels(company string) []string {
	return []string{k.endpoint, company, k.provider, k.model}
}

var tokenKinds = []string{"input", "cached_input", "output"}

// series are resolved once, so that counting a call looks nothing up by label.
type series struct {
	input, output, cached prometheus.Counter
	spend                 prometheus.Counter
	duration              prometheus.Observer
	firstByte             prometheus.Observer
	overhead              prometheus.Observer
	answered              prometheus.Counter // attempts
	ok                    prometheus.Counter // calls with status 200
	status                map[int]prometheus.Counter
	labels                []string
	gone                  bool // the company has series of its own no more
}

const otherLabel = "other"

func newMetrics(g *Gateway) *metrics {
	m := &metrics{g: g, registry: prometheus.NewRegistry(), companies: map[string]*metricCompany{}, others: newMetricCompany(otherLabel)}
	m.ranked.Store(g.started.UnixNano())
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
		m.registry.MustRegister(v)
		return v
	}
	histogram := func(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
		v := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels)
		m.registry.MustRegister(v)
		return v
	}
	gauge := func(name, help string, f func() float64) {
		m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, f))
	}
	seconds := []float64{.05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600}
	m.calls = counter("bulkhead_requests_total", "Calls to models, by the HTTP status of the answer.", "endpoint", "company", "provider", "model", "status")
	m.tokens = counter("bulkhead_tokens_total", "Tokens used, by kind: input, cached_input (part of input), output.", "endpoint", "company", "provider", "model", "kind")
	m.spend = counter("bulkhead_spend_usd_total", "Cost of all attempts at list prices or their overrides, in USD.", "endpoint", "company", "provider", "model")
	m.projects = counter("bulkhead_project_spend_usd_total", "Cost of all attempts, by the project of the key, in USD.", "company", "project")
	m.unpriced = counter("bulkhead_unpriced_attempts_total", "Attempts at models without a known price; their cost counts as 0.", "provider")
	m.marked = counter("bulkhead_marked_attempts_total", "Attempts about whose usage or cost something is to be known, by what it is.", "provider", "mark")
	m.attempts = counter("bulkhead_attempts_total", "Attempts at providers, by outcome.", "provider", "outcome")
	m.duration = histogram("bulkhead_request_duration_seconds", "From the request to the end of its answer.", seconds, "endpoint", "provider")
	m.firstByte = histogram("bulkhead_time_to_first_token_seconds", "From the request to the first event of a stream.", seconds, "endpoint", "provider")
	m.overhead = histogram("bulkhead_overhead_seconds", "From the request until it is sent to the first provider that answered, other attempts included.",
		[]float64{.00005, .0001, .00025, .0005, .001, .0025, .005, .01, .025, .1, 1, 10}, "endpoint")
	m.hold = prometheus.NewHistogram(prometheus.HistogramOpts{Name: "bulkhead_hold_seconds", Help: "What it takes to hold limits and budgets for an attempt.",
		Buckets: []float64{.00001, .0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, 1, 10}})
	m.registry.MustRegister(m.hold)
	m.retrieval = prometheus.NewHistogram(prometheus.HistogramOpts{Name: "bulkhead_retrieval_seconds", Help: "What it takes to find passages for a call, the embedder included.",
		Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5}})
	m.notRetrieved = prometheus.NewCounter(prometheus.CounterOpts{Name: "bulkhead_retrieval_incomplete_total",
		Help: "Calls of agents for which not all of their knowledge could be searched in time."})
	m.registry.MustRegister(m.retrieval, m.notRetrieved)
	m.rejected = counter("bulkhead_rejections_total", "Requests the gateway refused itself, by the code of the error, or budget_held.", "code")
	m.replays = prometheus.NewCounter(prometheus.CounterOpts{Name: "bulkhead_idempotent_replays_total", Help: "Calls answered with what the first one with their Idempotency-Key was answered."})
	m.registry.MustRegister(m.replays)
	m.manage = counter("bulkhead_management_requests_total", "Management requests, by route and HTTP status.", "route", "method", "status")
	m.inFlight = prometheus.NewGauge(prometheus.GaugeOpts{Name: "bulkhead_requests_in_flight", Help: "Calls under way."})
	m.registry.MustRegister(m.inFlight, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m.violated = counter("bulkhead_isolation_violations_total", "Times that something of another company was met, and the call stopped, by what it was.", "what")
	for _, what := range violations {
		m.violated.WithLabelValues(what)
	}
	m.budgets.init(m)
	m.registry.MustRegister(&m.budgets, newState(g), newKnowledgeState(g))
	m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "bulkhead_audit_lost_total",
		Help: "Refusals and reads that no audit row tells of, for want of room."}, func() float64 { return float64(g.Audit.Stats().Lost) }))
	m.identity(g)
	gauge("bulkhead_config_last_reload_successful", "1 unless the last reload of the configuration failed.", func() float64 {
		if g.reloadFailed.Load() {
			return 0
		}
		return 1
	})
	gauge("bulkhead_targets_broken", "Targets that failed too often and are tried last, each for one company or, with a lent credential, for all.", func() float64 { return float64(g.health.Stats().Broken) })
	m.registry.MustRegister(backendUp{g, prometheus.NewDesc("bulkhead_backend_up", "1 if the server answered when it was last asked.", []string{"backend"}, nil)})
	gauge("bulkhead_policy_stale_seconds", "Since the store was last asked for changes of policy with success.", func() float64 { return g.Tenants.Stale().Seconds() })
	gauge("bulkhead_uptime_seconds", "Since the gateway was started.", func() float64 { return time.Since(g.started).Seconds() })
	return m
}

// backendUp tells of the servers the gateway needs.
type backendUp struct {
	g    *Gateway
	desc *prometheus.Desc
}

func (b backendUp) Describe(to chan<- *prometheus.Desc) { to <- b.desc }

func (b backendUp) Collect(to chan<- prometheus.Metric) {
	for _, s := range b.g.Backends.States() {
		up := 1.0
		if s.Err != nil {
			up = 0
		}
		to <- prometheus.MustNewConstMetric(b.desc, prometheus.GaugeValue, up, s.Name)
	}
}

// count counts a call at its end.
func (m *metrics) count(c *call, err error, now time.Time) {
	a := c.last()
	if err != nil && (a == nil || !a.sent) {
		m.rejected.WithLabelValues(refusal(err)).Inc()
	}
	if !c.opened {
		return
	}
	co := m.active(c)
	s := m.of(c, a, co)
	m.counted(s, c).Inc()
	s.duration.Observe(now.Sub(c.start).Seconds())
	if a == nil {
		return
	}
	m.project(co, c).Add(dollars(c.costNano))
	if c.stream != nil && c.firstByte > 0 {
		s.firstByte.Observe(c.firstByte.Seconds())
	}
	if c.reply != nil || err == nil {
		s.overhead.Observe(c.overhead.Seconds())
	}
	for _, a := range c.attempts {
		if !a.sent {
			continue
		}
		e := &a.entry
		s := s
		if a != c.last() {
			s = m.of(c, a, co)
		}
		if e.Outcome == ledger.Answered {
			s.answered.Inc()
		} else {
			m.attempts.WithLabelValues(e.Provider, string(e.Outcome)).Inc()
		}
		m.mark(e)
		if !e.Priced {
			m.unpriced.WithLabelValues(e.Provider).Inc()
		}
		s.input.Add(float64(e.Usage.Input))
		s.cached.Add(float64(e.Usage.CachedInput))
		s.output.Add(float64(e.Usage.Output))
		s.spend.Add(dollars(e.CostNano))
	}
}

// marks are the names of a ledger entry's marks.
var marks = map[ledger.Mark]string{
	ledger.NoUsage: "no_usage", ledger.AbsurdUsage: "absurd_usage", ledger.TwoUsages: "two_usages", ledger.Clamped: "clamped",
	ledger.Tokenized: "tokenized", ledger.TierAssumed: "tier_assumed", ledger.UnpricedFee: "unpriced_fee",
}

func (m *metrics) mark(e *ledger.Entry) {
	for rest := e.Marks; rest != 0; rest &= rest - 1 {
		m.marked.WithLabelValues(e.Provider, cmp.Or(marks[rest&-rest], "unnamed")).Inc()
	}
}

// of returns the series of a call, or of one of its attempts.
func (m *metrics) of(c *call, a *attempt, co *metricCompany) *series {
	k := seriesKey{endpoint: c.endpoint.String()}
	if a != nil {
		k.provider, k.model = a.target.Provider, m.modelLabel(c, a)
	}
	m.mu.RLock()
	co, k, s := m.find(c, co, k)
	m.mu.RUnlock()
	if s != nil {
		return s
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if co, k, s = m.find(c, co, k); s != nil {
		return s
	}
	l := k.labels(co.id)
	s = &series{
		input:     m.tokens.WithLabelValues(append(l, tokenKinds[0])...),
		cached:    m.tokens.WithLabelValues(append(l, tokenKinds[1])...),
		output:    m.tokens.WithLabelValues(append(l, tokenKinds[2])...),
		spend:     m.spend.WithLabelValues(l...),
		duration:  m.duration.WithLabelValues(k.endpoint, k.provider),
		firstByte: m.firstByte.WithLabelValues(k.endpoint, k.provider),
		overhead:  m.overhead.WithLabelValues(k.endpoint),
		status:    map[int]prometheus.Counter{},
		labels:    l,
	}
	if a != nil { // else nobody was asked, and these would stay at 0
		s.answered = m.attempts.WithLabelValues(k.provider, string(ledger.Answered))
		s.ok = m.calls.WithLabelValues(append(l, strconv.Itoa(http.StatusOK))...)
		s.status[http.StatusOK] = s.ok
	}
	co.series[k] = s
	return s
}

// find says under what a call of a company is counted, and returns its series,
// nil before there are any. A company may name any models it likes in its
// routes: beyond so many they are "other". The caller holds the lock.
func (m *metrics) find(c *call, co *metricCompany, k seriesKey) (*metricCompany, seriesKey, *series) {
	if !co.own {
		co = m.others
	}
	s := co.series[k]
	if s == nil && len(co.series) >= seriesEach(c.settings.MetricCompanies) {
		k.model = otherLabel
		s = co.series[k]
	}
	return co, k, s
}

// counted returns the counter of calls with this status.
func (m *metrics) counted(s *series, c *call) prometheus.Counter {
	if c.status == http.StatusOK && s.ok != nil {
		return s.ok
	}
	m.mu.RLock()
	n := s.status[c.status]
	m.mu.RUnlock()
	if n != nil {
		return n
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if s.gone {
		return prometheus.NewCounter(prometheus.CounterOpts{}) // as void as the rest of s
	}
	n = m.calls.WithLabelValues(append(s.labels, strconv.Itoa(c.status))...)
	s.status[c.status] = n
	return n
}

// modelLabel returns a name for the model that no client chose freely.
func (m *metrics) modelLabel(c *call, a *attempt) string {
	t := a.target
	if m.g.Prices.Has(t.Vendor.Catalogue, t.Model) || c.scope.Company().Routes[c.model] != nil {
		return t.Model
	}
	return otherLabel
}

// refusal names why the gateway refused a request. A budget that only running
// calls stand in the way of has the code of a limit per minute, so that the SDKs
// try again; here it has a name of its own.
func refusal(err error) string {
	if _, typ, _, _ := explain(err); typ == "budget_held" {
		return typ
	}
	return ownCode(err)
}

// What was of another company, as bulkhead_isolation_violations_total says it.
const (
	foreignTarget     = "target"
	foreignCredential = "credential"
	foreignVector     = "vector"
)

var violations = []string{foreignTarget, foreignCredential, foreignVector}

// ForeignVector counts that a vector of another company was found.
func (g *Gateway) ForeignVector() { g.metrics.violation(foreignVector) }

// violation counts that something of another company was met.
func (m *metrics) violation(what string) { m.violated.WithLabelValues(what).Inc() }

// dollars is an amount for Prometheus, which has nothing but floats. Nowhere else is
// money one.
func dollars(nano int64) float64 { return float64(nano) / 1e9 }

// refused counts a request that no route took.
func (m *metrics) refused(code string) { m.rejected.WithLabelValues(code).Inc() }

func (m *metrics) managed(rt *route, status int) {
	m.manage.WithLabelValues(rt.pattern, rt.method, strconv.Itoa(status)).Inc()
}
