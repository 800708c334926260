package web

import (
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"bulkhead/ledger"
)

// metrics is the only place that knows Prometheus. Labels come from policy and
// configuration, never from a request: a model that neither the catalogue nor a
// route names is "other", and so are companies beyond the cap.
type metrics struct {
	g        *Gateway
	registry *prometheus.Registry
	inFlight prometheus.Gauge

	calls     *prometheus.CounterVec
	tokens    *prometheus.CounterVec
	spend     *prometheus.CounterVec
	unpriced  *prometheus.CounterVec
	duration  *prometheus.HistogramVec
	firstByte *prometheus.HistogramVec
	overhead  *prometheus.HistogramVec
	rejected  *prometheus.CounterVec
	attempts  *prometheus.CounterVec
	manage    *prometheus.CounterVec

	mu        sync.RWMutex
	series    map[seriesKey]*series
	companies map[string]struct{}
}

// seriesKey names the label values that a call is counted under.
type seriesKey struct{ endpoint, company, provider, model string }

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
}

const otherLabel = "other"

func newMetrics(g *Gateway) *metrics {
	m := &metrics{g: g, registry: prometheus.NewRegistry(), series: map[seriesKey]*series{}, companies: map[string]struct{}{}}
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
	m.unpriced = counter("bulkhead_unpriced_attempts_total", "Attempts at models without a known price; their cost counts as 0.", "provider")
	m.attempts = counter("bulkhead_attempts_total", "Attempts at providers, by outcome.", "provider", "outcome")
	m.duration = histogram("bulkhead_request_duration_seconds", "From the request to the end of its answer.", seconds, "endpoint", "provider")
	m.firstByte = histogram("bulkhead_time_to_first_token_seconds", "From the request to the first event of a stream.", seconds, "endpoint", "provider")
	m.overhead = histogram("bulkhead_overhead_seconds", "From the request until it is sent to the first provider that answered, other attempts included.",
		[]float64{.00005, .0001, .00025, .0005, .001, .0025, .005, .01, .025, .1, 1, 10}, "endpoint")
	m.rejected = counter("bulkhead_rejections_total", "Requests the gateway refused itself, by the code of the error.", "code")
	m.manage = counter("bulkhead_management_requests_total", "Management requests, by route and HTTP status.", "route", "method", "status")
	m.inFlight = prometheus.NewGauge(prometheus.GaugeOpts{Name: "bulkhead_requests_in_flight", Help: "Calls under way."})
	m.registry.MustRegister(m.inFlight, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	gauge("bulkhead_ledger_queued_entries", "Ledger entries that are not in the store yet.", func() float64 { return float64(g.Ledger.Stats().Queued) })
	m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "bulkhead_audit_lost_total",
		Help: "Refusals and reads that no audit row tells of, for want of room."}, func() float64 { return float64(g.Audit.Stats().Lost) }))
	gauge("bulkhead_config_last_reload_successful", "1 unless the last reload of the configuration failed.", func() float64 {
		if g.reloadFailed.Load() {
			return 0
		}
		return 1
	})
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
func (m *metrics) count(c *call, err error) {
	a := c.last()
	if err != nil && (a == nil || !a.sent) {
		_, _, code, _ := explain(err)
		m.rejected.WithLabelValues(code).Inc()
	}
	if !c.opened {
		return
	}
	s := m.of(c, a)
	m.counted(s, c, a).Inc()
	s.duration.Observe(m.g.now().Sub(c.start).Seconds())
	if a == nil {
		return
	}
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
			s = m.of(c, a)
		}
		if e.Outcome == ledger.Answered {
			s.answered.Inc()
		} else {
			m.attempts.WithLabelValues(e.Provider, string(e.Outcome)).Inc()
		}
		if !e.Priced {
			m.unpriced.WithLabelValues(e.Provider).Inc()
		}
		s.input.Add(float64(e.Usage.Input))
		s.cached.Add(float64(e.Usage.CachedInput))
		s.output.Add(float64(e.Usage.Output))
		s.spend.Add(float64(e.CostNano) / 1e9)
	}
}

// of returns the series of a call, or of one of its attempts.
func (m *metrics) of(c *call, a *attempt) *series {
	k := seriesKey{endpoint: c.endpoint.String(), company: c.company()}
	if a != nil {
		k.provider, k.model = a.target.Provider, m.modelLabel(c, a)
	}
	m.mu.RLock()
	_, mine := m.companies[k.company]
	if !mine && len(m.companies) >= c.settings.MetricCompanies {
		k.company = otherLabel
	}
	s := m.series[k]
	m.mu.RUnlock()
	if s != nil {
		return s
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if k.company != otherLabel {
		m.companies[k.company] = struct{}{}
	}
	if s = m.series[k]; s != nil {
		return s
	}
	l := []string{k.endpoint, k.company, k.provider, k.model}
	s = &series{
		input:     m.tokens.WithLabelValues(append(l, "input")...),
		cached:    m.tokens.WithLabelValues(append(l, "cached_input")...),
		output:    m.tokens.WithLabelValues(append(l, "output")...),
		spend:     m.spend.WithLabelValues(l...),
		duration:  m.duration.WithLabelValues(k.endpoint, k.provider),
		firstByte: m.firstByte.WithLabelValues(k.endpoint, k.provider),
		overhead:  m.overhead.WithLabelValues(k.endpoint),
		status:    map[int]prometheus.Counter{},
	}
	if a != nil { // else nobody was asked, and these would stay at 0
		s.answered = m.attempts.WithLabelValues(k.provider, string(ledger.Answered))
		s.ok = m.calls.WithLabelValues(append(l, strconv.Itoa(http.StatusOK))...)
	}
	m.series[k] = s
	return s
}

// counted returns the counter of calls with this status.
func (m *metrics) counted(s *series, c *call, a *attempt) prometheus.Counter {
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
	company := c.company()
	if _, mine := m.companies[company]; !mine {
		company = otherLabel
	}
	provider, model := "", ""
	if a != nil {
		provider, model = a.target.Provider, m.modelLabel(c, a)
	}
	n = m.calls.WithLabelValues(c.endpoint.String(), company, provider, model, strconv.Itoa(c.status))
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

// has reports whether a company has series of its own.
func (m *metrics) has(company string) bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	_, has := m.companies[company]
	return has
}

// forget drops the series of a company that is gone.
func (m *metrics) forget(company string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.companies, company)
	for k := range m.series {
		if k.company == company {
			delete(m.series, k)
		}
	}
	l := prometheus.Labels{"company": company}
	m.calls.DeletePartialMatch(l)
	m.tokens.DeletePartialMatch(l)
	m.spend.DeletePartialMatch(l)
}

// refused counts a request that no route took.
func (m *metrics) refused(code string) { m.rejected.WithLabelValues(code).Inc() }

func (m *metrics) managed(rt *route, status int) {
	m.manage.WithLabelValues(rt.pattern, rt.method, strconv.Itoa(status)).Inc()
}
