package test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"bulkhead/ledger"
	"bulkhead/test/upstream"
)

// TestCeilingZone: ceilings count by the operator's zone and not by the company's.
// When it changes, what runs goes on to its end with what was spent of it, and so
// it does whatever is configured next.
func TestCeilingZone(t *testing.T) {
	up := upstream.New(t)
	g := prepare(t, "providers:\n  openai: {kind: openai, base_url: "+up.BaseURL()+"}\n", "BULKHEAD_DEMO=off")
	if r := g.command(t, []string{"BULKHEAD_BUDGETS_TIME_ZONE=Berlin"}, "", "check"); r.code == 0 || !strings.Contains(r.out+r.err, "budgets.time_zone") {
		t.Errorf("gateway check with no zone: %+v", r)
	}
	var c company
	var b shownBudget
	ceiling := func() string { return g.OpsURL + "/admin/companies/" + c.ID + "/ceiling" }
	with := func(zone string, do func()) {
		t.Helper()
		run := g.with("BULKHEAD_BUDGETS_TIME_ZONE=" + zone)
		p := run.serve(t)
		g.Operator = run.Operator
		do()
		p.stop(t)
	}
	spend := func() {
		t.Helper()
		g.chat(t, c.APIKey, "openai/"+paidModel).want(t, "a call", http.StatusOK)
	}
	now := time.Now()
	with("Pacific/Kiritimati", func() { // 14 h before UTC
		c = g.newCompany(t, "c")
		g.call(t, http.MethodPost, g.OpsURL+"/admin/credentials", g.Operator, map[string]any{"provider": "openai", "secret": lentSecret, "all_companies": true}, nil)
		g.call(t, http.MethodPost, g.URL+"/v1/organization/budgets/calendar", c.AdminKey, map[string]any{"time_zone": "America/New_York"}, nil)
		g.call(t, http.MethodPut, ceiling(), g.Operator, map[string]any{"window": "month", "limit_usd": "10"}, &b)
		spend()
	})
	zone, err := time.LoadLocation("Pacific/Kiritimati")
	if err != nil {
		t.Fatal(err)
	}
	y, m, _ := now.In(zone).Date()
	begun := time.Date(y, m, 1, 0, 0, 0, 0, zone)
	if b.PeriodStart == nil || *b.PeriodStart != begun.Unix() || b.ResetAt == nil || *b.ResetAt != begun.AddDate(0, 1, 0).Unix() {
		t.Fatalf("the ceiling of %s counts from %v to %v", now, b.PeriodStart, b.ResetAt)
	}
	from, to := *b.PeriodStart, *b.ResetAt
	cost := paidNano(upstream.PromptTokens, 4)
	for i, zone := range []string{"Pacific/Pago_Pago", "Europe/Berlin", "UTC", "Pacific/Kiritimati"} { // 11 h behind UTC first
		with(zone, func() {
			spend()
			eventually(t, 20*time.Second, "it is counted", func() bool {
				g.call(t, http.MethodGet, ceiling(), g.Operator, nil, &b)
				return *b.SpentUSD == ledger.FormatUSD(cost*int64(i+2))
			})
		})
		if time.Now().Unix() < to && (*b.PeriodStart != from || *b.ResetAt != to) {
			t.Errorf("with %s it counts from %d to %d, and not from %d to %d", zone, *b.PeriodStart, *b.ResetAt, from, to)
		}
	}
	if log := string(g.log(t)); strings.Count(log, "ceilings still count by the zone before") == 0 {
		t.Error("it is not said that a change waits")
	}
	// What waits is done by none of them.
	if n := g.rows(t, "SELECT count(*) FROM installation WHERE name = 'ceiling_zone' AND value LIKE 'Pacific/Pago_Pago,Pacific/Kiritimati,%'"); n != 1 {
		t.Error("another zone is stored")
	}
}
