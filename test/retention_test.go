package test

import (
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"bulkhead/ledger"
	"bulkhead/store"
	"bulkhead/tenant"
)

// TestRetentionDays: entries that are past ledger.retention_days go in the
// background, and what their day came to stays.
func TestRetentionDays(t *testing.T) {
	g := prepare(t, "ledger: {retention_days: 70}\n")
	g.serve(t).stop(t)
	now := time.Now().UTC()
	for _, days := range []int{60, 80} {
		at := now.AddDate(0, 0, -days)
		e := ledger.Entry{
			ID: ledger.AttemptIDAt(at), RequestID: "req_" + strconv.Itoa(days), ProjectID: g.Demo.ProjectID, KeyID: "key_old", Kind: "chat", Provider: "sandbox",
			Model: "echo", Requested: "echo", Outcome: ledger.Answered, Rank: ledger.Final, Priced: true, CostNano: 250_000_000, StartedAt: at, EndedAt: at, First: true,
		}
		g.inStore(t, g.Demo, func(db *store.DB, s tenant.Scope) error {
			return db.AppendEntries(t.Context(), []ledger.Booked{{Scope: s, Entry: e}})
		})
	}
	p := g.serve(t)
	from := "start_time=" + strconv.FormatInt(now.AddDate(0, 0, -90).Unix(), 10)
	get := func(path string) string {
		t.Helper()
		return string(ask(t, http.MethodGet, g.URL+"/v1/organization/"+path+from, g.Demo.AdminKey, nil).want(t, path, http.StatusOK).body)
	}
	export := "ledger/export?format=jsonl&end_time=" + strconv.FormatInt(now.Unix(), 10) + "&"
	eventually(t, time.Minute, "what is past its time is gone", func() bool { return !strings.Contains(get(export), "req_80") })
	if rows := get(export); !strings.Contains(rows, "req_60") {
		t.Errorf("an entry within its time is gone: %s", rows)
	}
	if costs := get("costs?limit=100&"); strings.Count(costs, `"value":0.25`) != 2 {
		t.Errorf("the costs are not what they were: %s", costs)
	}
	p.stop(t)

	g.configure(t, "ledger: {retention_days: 69}\n")
	if r := g.command(t, nil, "", "check", "-config", "bulkhead.yaml"); r.code == 0 || !strings.Contains(r.out+r.err, "ledger.retention_days") {
		t.Errorf("69 days are taken: %+v", r)
	}
}
