package web

import (
	"github.com/prometheus/client_golang/prometheus"

	"bulkhead/ledger"
	"bulkhead/limiter"
)

// Limiters that count what they do: in process, and in Redis.
type (
	localStats interface{ Stats() limiter.Stats }
	redisStats interface{ Stats() limiter.RedisStats }
)

// state tells of the limiter and the ledger, each asked once for a scrape. What is
// not there is not told of.
type state struct {
	g *Gateway

	holds, held, failedReads                                           *prometheus.Desc
	queued, lag, unwritten, shipped, failedShips, refused, dropped     *prometheus.Desc
	journal, journalLimit, journalErrors                               *prometheus.Desc
	redisCalls, redisUnanswered, redisWaiting, redisLost, redisAllowed *prometheus.Desc
}

func newState(g *Gateway) *state {
	desc := func(name, help string) *prometheus.Desc { return prometheus.NewDesc("bulkhead_"+name, help, nil, nil) }
	return &state{
		g:           g,
		holds:       desc("holds_open", "Attempts that hold a place in limits and budgets: those that run."),
		held:        desc("held_usd", "What running attempts hold of budgets, in USD."),
		failedReads: desc("budget_read_failures_total", "Times that what was spent could not be read; calls that waited for it were refused."),

		queued:      desc("ledger_queued_entries", "Ledger entries that are not in the store yet."),
		lag:         desc("ledger_lag_seconds", "Age of the oldest ledger entry that is not in the store yet."),
		unwritten:   desc("ledger_unwritten_entries", "Ledger entries that are neither in the store nor in the journal."),
		shipped:     desc("ledger_shipped_entries_total", "Ledger entries that were written to the store."),
		failedShips: desc("ledger_failed_batches_total", "Tries to write ledger entries to the store that failed."),
		refused:     desc("ledger_refused_attempts_total", "Attempts refused because their entries could not be kept."),
		dropped:     desc("ledger_dropped_entries_total", "Ledger entries of companies that were erased."),

		journal:       desc("journal_bytes", "Size of the journal."),
		journalLimit:  desc("journal_limit_bytes", "Size of the journal from which on calls are refused (ledger.journal_bytes)."),
		journalErrors: desc("journal_errors_total", "Writes and syncs of the journal that failed."),

		redisCalls:      desc("redis_calls_total", "Scripts and commands sent to Redis."),
		redisUnanswered: desc("redis_unanswered_calls_total", "Of those, all that got no answer in time."),
		redisWaiting:    desc("redis_waiting_companies", "Companies of which Redis does not know yet all that calls used."),
		redisLost:       desc("redis_lost_holds_total", "Holds whose lease ended while their calls ran; those were cut off."),
		redisAllowed:    desc("redis_allowed_attempts_total", "Attempts that were let through while Redis was away, within the allowance."),
	}
}

// Describe implements prometheus.Collector.
func (s *state) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		s.holds, s.held, s.failedReads, s.queued, s.lag, s.unwritten, s.shipped, s.failedShips, s.refused, s.dropped,
		s.journal, s.journalLimit, s.journalErrors, s.redisCalls, s.redisUnanswered, s.redisWaiting, s.redisLost, s.redisAllowed,
	} {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (s *state) Collect(to chan<- prometheus.Metric) {
	switch l := s.g.Limiter.(type) {
	case localStats:
		s.limits(to, l.Stats())
	case redisStats:
		st := l.Stats()
		s.limits(to, st.Stats)
		count(to, s.redisCalls, st.Calls)
		count(to, s.redisUnanswered, st.Unanswered)
		gauge(to, s.redisWaiting, float64(st.Waiting))
		count(to, s.redisLost, st.Lost)
		count(to, s.redisAllowed, st.Allowed)
	}
	s.ledger(to, s.g.Ledger.Stats())
}

func (s *state) limits(to chan<- prometheus.Metric, st limiter.Stats) {
	gauge(to, s.holds, float64(st.Open))
	gauge(to, s.held, dollars(st.HeldNano))
	count(to, s.failedReads, st.FailedReads)
}

func (s *state) ledger(to chan<- prometheus.Metric, st ledger.Stats) {
	gauge(to, s.queued, float64(st.Queued))
	gauge(to, s.lag, st.Lag.Seconds())
	gauge(to, s.unwritten, float64(st.Unwritten))
	count(to, s.shipped, st.Shipped)
	count(to, s.failedShips, st.FailedBatches)
	count(to, s.refused, st.Refused)
	count(to, s.dropped, st.Dropped)
	if st.JournalLimit > 0 {
		gauge(to, s.journal, float64(st.JournalBytes))
		gauge(to, s.journalLimit, float64(st.JournalLimit))
		count(to, s.journalErrors, st.JournalErrors)
	}
}

func gauge(to chan<- prometheus.Metric, d *prometheus.Desc, v float64, labels ...string) {
	to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

func count(to chan<- prometheus.Metric, d *prometheus.Desc, n int64) {
	to <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n))
}
