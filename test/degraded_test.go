package test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"bulkhead/test/servers"
	"bulkhead/test/upstream"
)

// TestDegraded: while Redis is away calls are refused within 250 ms and nothing is
// sent, but for a company that allows so much; what that used counts afterwards.
func TestDegraded(t *testing.T) {
	server := servers.Start(t, "redis")
	up := upstream.New(t)
	g := prepare(t, "providers:\n  openai: {kind: openai, base_url: "+up.BaseURL()+"}\n", "BULKHEAD_REDIS_URL="+server.Var("REDIS_URL"))
	g.serve(t)
	allows, refuses := g.Demo, g.newCompany(t, "Refuses")
	var budgets []string
	for _, c := range []company{allows, refuses} {
		g.setCredential(t, c, "openai", upstreamSecret)
		budgets = append(budgets, g.setBudget(t, c, 1e12, "month").ID)
		eventually(t, time.Minute, "calls are taken", func() bool { return g.chat(t, c.APIKey, "openai/"+paidModel).status == http.StatusOK })
	}
	at := g.URL + "/v1/organization/budgets/degraded"
	refused := func(param string, body map[string]any) {
		t.Helper()
		if got := ask(t, http.MethodPost, at, allows.AdminKey, body).want(t, param, http.StatusBadRequest); !strings.Contains(string(got.body), `"param":"`+param+`"`) {
			t.Errorf("want %s, got %s", param, got.body)
		}
	}
	refused("degraded", map[string]any{"degraded": "maybe"})
	refused("limit_usd", map[string]any{"degraded": "allow", "limit_requests": 3})
	refused("limit_usd", map[string]any{"degraded": "allow", "limit_requests": 3, "limit_usd": "-1"})
	refused("limit_usd", map[string]any{"degraded": "refuse", "limit_usd": "1"})
	refused("limit_requests", map[string]any{"degraded": "allow", "limit_usd": "1"})
	refused("limit_requests", map[string]any{"degraded": "allow", "limit_usd": "1", "limit_requests": 0})
	var o struct {
		Degraded string
		Limit    *string `json:"limit_usd"`
		Requests *int64  `json:"limit_requests"`
	}
	g.call(t, http.MethodGet, at, allows.AdminKey, nil, &o)
	if o.Degraded != "refuse" || o.Limit != nil || o.Requests != nil {
		t.Errorf("at first it is %+v", o)
	}
	g.call(t, http.MethodPost, at, allows.AdminKey, map[string]any{"degraded": "allow", "limit_usd": "1.50", "limit_requests": 3}, nil)
	g.call(t, http.MethodGet, at, allows.AdminKey, nil, &o)
	if o.Degraded != "allow" || *o.Limit != "1.5" || *o.Requests != 3 {
		t.Errorf("it is set to %+v", o)
	}
	g.chat(t, allows.APIKey, "openai/"+paidModel).want(t, "a call with the new policy", http.StatusOK)
	var spent int64
	eventually(t, time.Minute, "the call is settled", func() (ok bool) {
		var held int64
		spent, held, ok = g.standing(t, allows, budgets[0])
		return ok && held == 0
	})

	if err := server.Stop(); err != nil {
		t.Fatal(err)
	}
	sent := len(up.Requests())
	away := func(c company) {
		t.Helper()
		best := time.Hour
		for range 5 {
			began := time.Now()
			g.chat(t, c.APIKey, "openai/"+paidModel).want(t, c.Name, http.StatusServiceUnavailable)
			best = min(best, time.Since(began))
		}
		if best > 250*time.Millisecond {
			t.Errorf("refused after %s", best)
		}
	}
	away(refuses)
	for range 3 {
		g.chat(t, allows.APIKey, "openai/"+paidModel).want(t, "within the allowance", http.StatusOK)
	}
	away(allows)
	away(refuses)
	if n := len(up.Requests()) - sent; n != 3 {
		t.Errorf("%d calls were sent, want 3", n)
	}
	if err := server.Again(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, c := range []company{allows, refuses} {
		eventually(t, time.Minute, "calls are taken again", func() bool { return g.chat(t, c.APIKey, "openai/"+paidModel).status == http.StatusOK })
	}
	eventually(t, time.Minute, "what was used counts", func() bool {
		now, held, ok := g.standing(t, allows, budgets[0])
		return ok && now == spent+4*paidNano(10, 4) && held == 0
	})
}
