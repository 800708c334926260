package test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"bulkhead/ledger"
	"bulkhead/test/upstream"
)

// TestLentEmbeddings: the operator's service for embeddings is lent, too. What costs
// something needs a ceiling and counts for it, at the operator's price, on the
// company's ledger; and what the service says of its account is not told.
func TestLentEmbeddings(t *testing.T) {
	up := upstream.New(t)
	var busy atomic.Bool
	up.Handle("embedder", func(c *upstream.Call) {
		if busy.Load() {
			c.Error(http.StatusUnauthorized, "org-of-the-operator is not paid, key "+c.R.Header.Get("Authorization"), "auth")
			return
		}
		var in struct{ Input []string }
		if err := json.Unmarshal(c.Body, &in); err != nil {
			c.Error(http.StatusBadRequest, err.Error(), "x")
			return
		}
		rows := []any{}
		for i := range in.Input {
			rows = append(rows, map[string]any{"object": "embedding", "index": i, "embedding": []float32{1, float32(i)}})
		}
		c.JSON(http.StatusOK, map[string]any{"object": "list", "model": "embedder", "data": rows, "usage": map[string]any{"prompt_tokens": 7, "total_tokens": 7}})
	})
	g := startGateway(t, fmt.Sprintf("embeddings: {base_url: %q, model: embedder, api_key: %q, micro_usd_per_million_tokens: 2000000}\n", up.BaseURL(), lentSecret))
	c := g.newCompany(t, "c")
	ceiling := func(usd string) (b shownBudget) {
		t.Helper()
		g.call(t, http.MethodPut, g.OpsURL+"/admin/companies/"+c.ID+"/ceiling", g.Operator, map[string]any{"window": "month", "limit_usd": usd}, &b)
		return b
	}
	var o struct{ ID string }
	g.call(t, http.MethodPost, g.URL+"/v1/vector_stores", c.APIKey, map[string]any{"name": "handbook"}, &o)
	store := o.ID
	asked := 0
	search := func() answer { // in words that the text has not, and in others each time
		t.Helper()
		asked++
		return ask(t, http.MethodPost, g.URL+"/v1/vector_stores/"+store+"/search", c.APIKey, map[string]any{"query": fmt.Sprint("money back ", asked)})
	}
	refused := func(what string, says string) {
		t.Helper()
		before := len(up.Requests())
		a := search()
		if a.status == http.StatusOK && strings.Contains(string(a.body), says) || strings.Contains(string(a.body)+string(g.log(t)), "org-of-the-operator") || strings.Contains(string(a.body)+string(g.log(t)), lentSecret) {
			t.Errorf("%s: %d %s", what, a.status, a.body)
		}
		if n := len(up.Requests()) - before; n > 0 != busy.Load() {
			t.Errorf("%s: %d requests were sent", what, n)
		}
	}
	ceiling("10")
	attach(t, g, c.APIKey, store, "refunds.txt", "Refunds are paid within seven days.", nil)
	if a := search(); a.status != http.StatusOK || !strings.Contains(string(a.body), "seven days") {
		t.Fatalf("within the ceiling: %d %s", a.status, a.body)
	}
	const each = 7 * 2000 // nano-USD of a call
	var b shownBudget
	eventually(t, 20*time.Second, "it counts for the ceiling", func() bool {
		b = ceiling("10")
		return *b.SpentUSD == ledger.FormatUSD(2*each)
	})
	eventually(t, 20*time.Second, "it is on the ledger", func() bool {
		rows := strings.Split(strings.TrimSpace(string(ask(t, http.MethodGet, g.URL+"/v1/organization/ledger/export?format=jsonl", c.AdminKey, nil).want(t, "the ledger", http.StatusOK).body)), "\n")
		return len(rows) == 2 && !slices.ContainsFunc(rows, func(r string) bool { return !strings.Contains(r, `"provider":"embeddings"`) })
	})
	ceiling("0.0000281") // all is spent but a tenth of a millionth
	refused("the ceiling is reached", "seven days")
	g.call(t, http.MethodDelete, g.OpsURL+"/admin/companies/"+c.ID+"/ceiling", g.Operator, nil, nil)
	refused("without a ceiling", "seven days")
	ceiling("10")
	busy.Store(true)
	refused("in trouble with the account", "seven days")
}
