package web

import (
	"github.com/prometheus/client_golang/prometheus"

	"bulkhead/tenant"
)

// identity registers what is counted of tokens. They have no label: whose a token
// that was refused is, nobody knows.
func (m *metrics) identity(g *Gateway) {
	for _, c := range []struct {
		name, help string
		of         func(tenant.LoginStats) int64
	}{
		{"bulkhead_identity_tokens_proved_total", "Tokens of companies' identity providers whose signature was proved; those known from before are not proved again.",
			func(s tenant.LoginStats) int64 { return s.Verified }},
		{"bulkhead_identity_tokens_refused_total", "Tokens that were not let in.", func(s tenant.LoginStats) int64 { return s.Refused }},
		{"bulkhead_identity_keys_issued_total", "Keys that were given out for tokens.", func(s tenant.LoginStats) int64 { return s.Exchanged }},
		{"bulkhead_identity_jwks_fetched_total", "Sets of keys fetched from identity providers.", func(s tenant.LoginStats) int64 { return s.Fetched }},
		{"bulkhead_identity_jwks_failed_total", "Sets of keys that could not be fetched, or not be read.", func(s tenant.LoginStats) int64 { return s.Unfetched }},
	} {
		m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: c.name, Help: c.help},
			func() float64 { return float64(c.of(g.Tenants.LoginStats())) }))
	}
}
