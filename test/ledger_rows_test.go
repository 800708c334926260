package test

import (
	"context"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"testing"

	"bulkhead/ledger"
	"bulkhead/openai"
	"bulkhead/store"
	"bulkhead/tenant"
	"bulkhead/test/upstream"
)

// unrecorded lets a test look into a database without leaving an act in it, for
// which it lacks the key.
type unrecorded struct{}

func (unrecorded) RecordAct(context.Context, string, string, string) error { return nil }

// inStore works in the data folder of a gateway that has stopped, for a company.
func (g *gateway) inStore(t *testing.T, c company, do func(db *store.DB, s tenant.Scope) error) {
	t.Helper()
	within(t, store.Options{Path: filepath.Join(g.Data, "bulkhead.db")}, c, do)
}

// within works in a database for a company.
func within(t *testing.T, at store.Options, c company, do func(db *store.DB, s tenant.Scope) error) {
	t.Helper()
	ctx := t.Context()
	db, err := store.Open(ctx, at)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	d := tenant.NewDirectory(db, unrecorded{}, tenant.NewMinter(make([]byte, 32)), tenant.Options{})
	act, err := d.Gateway().Begin(ctx, "test.read", c.ID)
	if err != nil {
		t.Fatal(err)
	}
	s, err := d.Scope(ctx, act, c.ID)
	if err == nil {
		err = do(db, s)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// entries reads the ledger of a company from the data folder of a gateway that
// has stopped, oldest end first.
func (g *gateway) entries(t *testing.T, c company) (all []ledger.Entry) {
	t.Helper()
	g.inStore(t, c, readEntries(t, &all))
	return all
}

// entries reads what the database has of the ledger of a company, oldest end
// first.
func (f *fleet) entries(t *testing.T, c company) (all []ledger.Entry) {
	t.Helper()
	within(t, store.Options{URL: f.db.URL}, c, readEntries(t, &all))
	return all
}

func readEntries(t *testing.T, all *[]ledger.Entry) func(db *store.DB, s tenant.Scope) error {
	return func(db *store.DB, s tenant.Scope) error {
		page := openai.Page{Limit: 100}
		for {
			list, more, err := db.Entries(t.Context(), s, page)
			*all = append(*all, list...)
			if err != nil || !more {
				slices.Reverse(*all)
				return err
			}
			page.After = list[len(list)-1].ID
		}
	}
}

// TestLedgerRows makes calls of every kind and reads the rows of the ledger once
// the gateway has stopped: one for each attempt, with the cost that the price
// and the usage make.
func TestLedgerRows(t *testing.T) {
	up := upstream.New(t)
	g := prepare(t, `
providers:
  up: {kind: custom, base_url: `+up.BaseURL()+`}
  openai: {kind: openai, base_url: `+up.BaseURL()+"}\n")
	p := g.serve(t)
	c := g.Demo
	other := g.newCompany(t, "Other")
	for _, provider := range []string{"up", "openai"} {
		g.setCredential(t, c, provider, upstreamSecret)
		g.setCredential(t, other, provider, upstreamSecret)
	}
	g.setRoute(t, c, "fallback", "up/status-500", "openai/gpt-4o-mini")
	type want struct {
		kind, model string
		outcome     ledger.Outcome
		in, out     int64
	}
	var wants []want
	f := func(path string, body map[string]any, status int, attempts ...want) {
		t.Helper()
		ask(t, http.MethodPost, g.URL+"/v1/"+path, c.APIKey, body).want(t, path, status)
		wants = append(wants, attempts...)
	}
	const n = 3
	for range n {
		f("chat/completions", chatBody("gpt-4o-mini", "Hi"), 200, want{"chat", "gpt-4o-mini", ledger.Answered, 10, 4})
		stream := chatBody("openai/gpt-4o", "Hi")
		stream["stream"] = true
		f("chat/completions", stream, 200, want{"chat", "gpt-4o", ledger.Answered, 10, 4})
		f("completions", map[string]any{"model": "up/ok", "prompt": "Hi"}, 200, want{"completions", "ok", ledger.Answered, 10, 4})
		f("embeddings", map[string]any{"model": "text-embedding-3-small", "input": []string{"a", "b"}}, 200,
			want{"embeddings", "text-embedding-3-small", ledger.Answered, 10, 0})
		f("moderations", map[string]any{"model": "omni-moderation-latest", "input": "a"}, 200,
			want{"moderations", "omni-moderation-latest", ledger.Answered, 0, 0})
		// Two attempts: the first one failed and cost nothing.
		f("chat/completions", chatBody("fallback", "Hi"), 200,
			want{"chat", "status-500", ledger.Refused, 0, 0}, want{"chat", "gpt-4o-mini", ledger.Answered, 10, 4})
		f("chat/completions", chatBody("up/status-400", "Hi"), 400, want{"chat", "status-400", ledger.Refused, 0, 0})
		// Refused by the gateway: no attempt, no row.
		f("chat/completions", chatBody("nobody/ok", "Hi"), 404)
		f("chat/completions", map[string]any{"model": "up/ok"}, 400)
	}
	// The sandbox is an attempt like any other, and costs as its list says.
	ask(t, http.MethodPost, g.URL+"/v1/chat/completions", c.APIKey, chatBody("sandbox/echo", "Hi there")).want(t, "sandbox", 200)
	wants = append(wants, want{"chat", "echo", ledger.Answered, 2, 2})
	for range 2 {
		g.chat(t, other.APIKey, "up/ok").want(t, "the other company", 200)
	}
	stream := g.openStream(t, c.APIKey, "up/cut")
	_, _ = io.ReadAll(stream)
	wants = append(wants, want{"chat", "cut", ledger.Cut, -1, -1})
	p.stop(t)

	got := g.entries(t, c)
	if len(got) != len(wants) || len(g.entries(t, other)) != 2 {
		t.Fatalf("%d rows and %d of the other company, want %d and 2", len(got), len(g.entries(t, other)), len(wants))
	}
	prices, err := ledger.LoadPrices()
	if err != nil {
		t.Fatal(err)
	}
	seen, requests := map[string]bool{}, map[string]int{}
	for i, e := range got {
		w := wants[i]
		if e.Kind != w.kind || e.Model != w.model || e.Outcome != w.outcome || w.in >= 0 && (e.Usage.Input != w.in || e.Usage.Output != w.out) {
			t.Errorf("row %d is %s %s %s, %d in, %d out; want %+v", i, e.Kind, e.Model, e.Outcome, e.Usage.Input, e.Usage.Output, w)
		}
		if e.ID == "" || seen[e.ID] || e.RequestID == "" || e.ProjectID != c.ProjectID || e.KeyID == "" || e.EndedAt.Before(e.StartedAt) {
			t.Errorf("row %d: %+v", i, e)
		}
		seen[e.ID] = true
		requests[e.RequestID]++
		catalogue := map[string]string{"openai": "openai", "sandbox": "sandbox"}[e.Provider]
		price, ok := prices.Lookup(catalogue, e.Model)
		if ok != e.Priced || ok != (e.Provider != "up") {
			t.Errorf("row %d: %s/%s is priced %t, the table says %t", i, e.Provider, e.Model, e.Priced, ok)
		}
		if !ok {
			if e.CostNano != 0 {
				t.Errorf("row %d costs %d without a price", i, e.CostNano)
			}
			continue
		}
		// Pico-USD per token, rounded up to nano-USD once. The rates are plain
		// ones: nothing cached, no other tier, no long input.
		pico := e.Usage.Input*max(price.Rates.Input, 0) + e.Usage.Output*max(price.Rates.Output, 0)
		if want := (pico + 999) / 1000; e.CostNano != want || e.Usage.Input > 0 && e.Provider == "openai" && want == 0 {
			t.Errorf("row %d: %d in and %d out of %s cost %d nano-USD, want %d", i, e.Usage.Input, e.Usage.Output, e.Model, e.CostNano, want)
		}
	}
	if last := got[len(got)-1]; last.Rank != ledger.Estimate || last.Usage.Output == 0 {
		t.Errorf("the stream that was cut is %+v, want an estimate of what came", last)
	}
	if len(requests) != len(wants)-n {
		t.Errorf("%d requests in the ledger, want %d: the attempts of one share its id", len(requests), len(wants)-n)
	}
}

// newCompany makes a company through the operator's API.
func (g *gateway) newCompany(t *testing.T, name string) (c company) {
	t.Helper()
	g.call(t, http.MethodPost, g.OpsURL+"/admin/companies", g.Operator, map[string]string{"name": name}, &c)
	return c
}
