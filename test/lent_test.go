package test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bulkhead/ledger"
	"bulkhead/test/upstream"
)

// lentSecret is the operator's. Nobody but the provider may ever see it.
const lentSecret = "sk-lent-CANARY-0123456789abcdefghij"

// lentWorld is a gateway that lends a credential for openai, whose provider
// records what it is asked. Two companies may use it.
type lentWorld struct {
	g     *gateway
	up    *upstream.Server
	a, b  company
	id    string   // of the credential
	shown [][]byte // every answer there was
}

func newLentWorld(t *testing.T, more map[string]any) *lentWorld {
	t.Helper()
	w := &lentWorld{up: upstream.New(t)}
	w.up.Handle("gpt-4o", func(c *upstream.Call) {
		h := c.W.Header()
		h.Set("OpenAI-Organization", "org-of-the-operator")
		h.Set("X-Ratelimit-Remaining-Requests", "98765432109876")
		use := map[string]any{"prompt_tokens": 10, "completion_tokens": 4, "total_tokens": 14, "prompt_tokens_details": map[string]any{"cached_tokens": 7}}
		answer := map[string]any{"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "gpt-4o",
			"choices": []any{map[string]any{"index": 0, "finish_reason": "stop", "message": map[string]any{"role": "assistant", "content": "Hello there"}}}, "usage": use}
		if !c.Stream {
			c.JSON(http.StatusOK, answer)
			return
		}
		c.StartStream()
		c.Event([]byte(`{"id":"1","object":"chat.completion.chunk","created":1,"model":"gpt-4o","choices":[{"index":0,"delta":{"content":"Hello"},"finish_reason":"stop"}]}`))
		last, err := json.Marshal(map[string]any{"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o", "choices": []any{}, "usage": use})
		if err != nil {
			panic(err)
		}
		c.Event(last)
		c.Event([]byte("[DONE]"))
	})
	w.up.Handle("gpt-4o-mini", func(c *upstream.Call) {
		c.W.Header().Set("Retry-After", "777")
		c.Error(http.StatusTooManyRequests, "Rate limit reached for organization org-of-the-operator with key "+c.R.Header.Get("Authorization"), "requests")
	})
	w.up.Handle("gpt-4.1", func(c *upstream.Call) {
		c.Error(http.StatusUnauthorized, "Incorrect API key of org-of-the-operator: "+c.R.Header.Get("Authorization"), "auth")
	})
	w.g = startGateway(t, fmt.Sprintf("providers:\n  openai: {kind: openai, base_url: %q}\n", w.up.BaseURL()))
	w.a, w.b = w.g.newCompany(t, "a"), w.g.newCompany(t, "b")
	body := map[string]any{"provider": "openai", "secret": lentSecret}
	for k, v := range more {
		body[k] = v
	}
	var o struct{ ID string }
	w.g.call(t, http.MethodPost, w.g.OpsURL+"/admin/credentials", w.g.Operator, body, &o)
	w.id = o.ID
	return w
}

func (w *lentWorld) lend(t *testing.T, c company, providers ...string) {
	t.Helper()
	if providers == nil {
		providers = []string{}
	}
	w.g.call(t, http.MethodPut, w.g.OpsURL+"/admin/companies/"+c.ID+"/lent", w.g.Operator, map[string]any{"providers": providers}, nil)
}

func (w *lentWorld) ceiling(t *testing.T, c company, usd string) {
	t.Helper()
	w.g.call(t, http.MethodPut, w.g.OpsURL+"/admin/companies/"+c.ID+"/ceiling", w.g.Operator, map[string]any{"window": "month", "limit_usd": usd}, nil)
}

// chat makes a call as c, with more fields. What comes back is kept.
func (w *lentWorld) chat(t *testing.T, c company, model string, more map[string]any) answer {
	t.Helper()
	body := chatBody(model, "hello")
	for k, v := range more {
		body[k] = v
	}
	a := ask(t, http.MethodPost, w.g.URL+"/v1/chat/completions", c.APIKey, body)
	w.shown = append(w.shown, a.body, fmt.Append(nil, a.header))
	return a
}

// sent returns the last request that the provider got, and how many there were.
func (w *lentWorld) sent() (last upstream.Request, n int) {
	all := w.up.Requests()
	if n = len(all); n > 0 {
		last = all[n-1]
	}
	return last, n
}

// refused asserts that the call was refused with the code and sent nothing.
func (w *lentWorld) refused(t *testing.T, what string, a answer, status int, code string) {
	t.Helper()
	if got, message := a.fault(); a.status != status || got != code {
		t.Errorf("%s: %d %s %s, want %d %s", what, a.status, got, message, status, code)
	}
}

// TestLentNeedsGrantAndCeiling: nothing is lent to who was not granted it, and
// nothing without a ceiling; taking either away holds from the next call on.
func TestLentNeedsGrantAndCeiling(t *testing.T) {
	w := newLentWorld(t, nil)
	w.refused(t, "no grant", w.chat(t, w.a, "gpt-4o", nil), 404, "model_not_found")
	w.lend(t, w.a, "openai")
	w.refused(t, "no ceiling", w.chat(t, w.a, "gpt-4o", nil), 403, "ceiling_not_set")
	w.refused(t, "no ceiling, by provider", w.chat(t, w.a, "openai/gpt-4o", nil), 403, "ceiling_not_set")
	w.ceiling(t, w.a, "10")
	w.chat(t, w.a, "gpt-4o", nil).want(t, "lent", http.StatusOK)
	w.ceiling(t, w.b, "10")
	w.refused(t, "the other company", w.chat(t, w.b, "gpt-4o", nil), 404, "model_not_found")
	if last, n := w.sent(); n != 1 || last.Header.Get("Authorization") != "Bearer "+lentSecret {
		t.Errorf("%d requests, the last with %q", n, last.Header)
	}
	w.lend(t, w.a)
	w.refused(t, "grant taken away", w.chat(t, w.a, "gpt-4o", nil), 404, "model_not_found")
	w.lend(t, w.a, "openai")
	w.g.call(t, http.MethodDelete, w.g.OpsURL+"/admin/companies/"+w.a.ID+"/ceiling", w.g.Operator, nil, nil)
	w.refused(t, "ceiling taken away", w.chat(t, w.a, "gpt-4o", nil), 403, "ceiling_not_set")
	w.ceiling(t, w.a, "10")
	w.g.call(t, http.MethodDelete, w.g.OpsURL+"/admin/credentials/"+w.id, w.g.Operator, nil, nil)
	w.refused(t, "deleted", w.chat(t, w.a, "gpt-4o", nil), 404, "model_not_found")
	// One that is lent anew is another: the grant of before does not count for it.
	w.g.call(t, http.MethodPost, w.g.OpsURL+"/admin/credentials", w.g.Operator, map[string]any{"provider": "openai", "secret": lentSecret}, nil)
	w.refused(t, "lent anew", w.chat(t, w.a, "gpt-4o", nil), 404, "model_not_found")
	w.g.call(t, http.MethodPost, w.g.OpsURL+"/admin/credentials", w.g.Operator, map[string]any{"provider": "openai", "secret": lentSecret + "2", "all_companies": true}, nil)
	w.chat(t, w.b, "gpt-4o", nil).want(t, "to all", http.StatusOK)
	if last, _ := w.sent(); last.Header.Get("Authorization") != "Bearer "+lentSecret+"2" {
		t.Errorf("replaced, and sent with %q", last.Header)
	}
}

// TestLentOwnFirst: the company's own credential is the one that is used, however
// it fares; and without it the lent one is, and never the other way round.
func TestLentOwnFirst(t *testing.T) {
	w := newLentWorld(t, map[string]any{"all_companies": true})
	w.ceiling(t, w.a, "10")
	w.g.setCredential(t, w.a, "openai", "sk-own-of-a")
	for _, model := range []string{"gpt-4o", "gpt-4.1", "gpt-4o-mini"} { // 200, 401, 429
		w.chat(t, w.a, model, nil)
		if last, _ := w.sent(); last.Header.Get("Authorization") != "Bearer sk-own-of-a" {
			t.Errorf("%s was sent with %q", model, last.Header.Get("Authorization"))
		}
	}
	var list struct{ Data []struct{ ID string } }
	at := w.g.URL + "/v1/organization/credentials"
	w.g.call(t, http.MethodGet, at, w.a.AdminKey, nil, &list)

	// It is deleted while a call runs: that call does not go on with another.
	w.g.setRoute(t, w.a, "late", "openai/hold", "openai/gpt-4o")
	ended := make(chan answer)
	_, before := w.sent()
	go func() {
		ended <- ask(t, http.MethodPost, w.g.URL+"/v1/chat/completions", w.a.APIKey, chatBody("late", "hello"))
	}()
	eventually(t, 10*time.Second, "the call is there", func() bool { _, n := w.sent(); return n > before })
	w.g.call(t, http.MethodDelete, at+"/"+list.Data[0].ID, w.a.AdminKey, nil, nil)
	w.up.Release()
	(<-ended).want(t, "the call under way", http.StatusOK)
	for _, r := range w.up.Requests() {
		if strings.Contains(fmt.Sprint(r.Header), lentSecret) {
			t.Errorf("a call that began with the company's own was sent with the lent one")
		}
	}
	w.chat(t, w.a, "gpt-4o", nil).want(t, "lent", http.StatusOK)
	if last, _ := w.sent(); last.Header.Get("Authorization") != "Bearer "+lentSecret {
		t.Errorf("sent with %q", last.Header.Get("Authorization"))
	}
}

// TestLentRefused: what would be kept at the provider, run by it, or cannot be
// priced is refused with the field's name, and nothing is sent.
func TestLentRefused(t *testing.T) {
	w := newLentWorld(t, map[string]any{"all_companies": true})
	w.ceiling(t, w.a, "10")
	part := func(p map[string]any) []any {
		return []any{map[string]any{"role": "user", "content": []any{p}}}
	}
	for param, more := range map[string]map[string]any{
		"store":                          {"store": true},
		"previous_response_id":           {"previous_response_id": "resp_1"},
		"conversation":                   {"conversation": "conv_1"},
		"background":                     {"background": true},
		"cached_content":                 {"cached_content": "cachedContents/1"},
		"web_search_options":             {"web_search_options": map[string]any{}},
		"messages[0].content[0].file_id": {"messages": part(map[string]any{"type": "file", "file": map[string]any{"file_id": "file-1"}})},
		"tools[0].type":                  {"tools": []any{map[string]any{"type": "mcp", "server_url": "https://x.example"}}},
		"vector_store_ids":               {"vector_store_ids": []any{"vs_1"}},
		"prompt":                         {"prompt": map[string]any{"id": "pmpt_1"}},
		"container":                      {"container": "cntr_1"},
	} {
		a := w.chat(t, w.a, "gpt-4o", more)
		var o struct{ Error struct{ Param string } }
		if err := json.Unmarshal(a.body, &o); err != nil || a.status != 400 || o.Error.Param != param {
			t.Errorf("%s: %d %s", param, a.status, a.body)
		}
	}
	if _, n := w.sent(); n != 0 {
		t.Errorf("%d requests were sent", n)
	}
}

// TestLentShowsNothing: neither the secret nor the provider's words about its
// account are in any answer, header, log, metric, audit row or export; the
// headers by which companies could meet at the provider do not reach it.
func TestLentShowsNothing(t *testing.T) {
	w := newLentWorld(t, map[string]any{"all_companies": true})
	w.ceiling(t, w.a, "10")
	busy := w.chat(t, w.a, "gpt-4o-mini", nil)
	w.refused(t, "429", busy, 429, "rate_limit_exceeded")
	if wait := busy.header.Get("Retry-After"); wait != "" {
		t.Errorf("the provider's wait is told: %s", wait)
	}
	w.refused(t, "401", w.chat(t, w.a, "gpt-4.1", nil), 502, "upstream_error")
	w.refused(t, "400", w.chat(t, w.a, "openai/echo-key", nil), 400, "model_price_unknown")
	stream := w.chat(t, w.a, "gpt-4o", map[string]any{"stream": true, "stream_options": map[string]any{"include_usage": true}}).want(t, "stream", 200)
	whole := w.chat(t, w.a, "gpt-4o", map[string]any{"prompt_cache_key": "k"}).want(t, "whole", 200)
	for _, a := range []answer{stream, whole} {
		if !bytes.Contains(a.body, []byte(`"cached_tokens":0`)) || bytes.Contains(a.body, []byte(`cached_tokens":7`)) {
			t.Errorf("cached tokens are told: %s", a.body)
		}
	}
	// 3 fresh and 7 cached tokens of input, 4 of output: the price is exact.
	if cost := whole.header.Get("X-Bulkhead-Cost-Usd"); cost != "0.00005625" {
		t.Errorf("it cost %s", cost)
	}
	export := w.g.URL + "/v1/organization/ledger/export?format=jsonl"
	eventually(t, 20*time.Second, "the ledger is written", func() bool {
		return bytes.Count(ask(t, http.MethodGet, export, w.a.AdminKey, nil).body, []byte("\n")) == 4
	})
	for _, path := range []string{"/credentials", "/audit_logs", "/costs" + usageSpan, "/usage/completions" + usageSpan, "/ledger/export?format=jsonl", "/budgets"} {
		a := ask(t, http.MethodGet, w.g.URL+"/v1/organization"+path, w.a.AdminKey, nil).want(t, path, 200)
		w.shown = append(w.shown, a.body)
		if bytes.Contains(a.body, []byte(`cached_tokens":7`)) || bytes.Contains(a.body, []byte(`cached_tokens":14`)) {
			t.Errorf("%s tells cached tokens: %s", path, a.body)
		}
	}
	for _, path := range []string{"/metrics", "/admin/credentials", "/admin/credentials/" + w.id, "/admin/companies/" + w.a.ID + "/lent"} {
		w.shown = append(w.shown, ask(t, http.MethodGet, w.g.OpsURL+path, w.g.Operator, nil).want(t, path, 200).body)
	}
	w.shown = append(w.shown, w.g.log(t))
	for _, seen := range w.shown {
		for _, secret := range []string{lentSecret, "org-of-the-operator", "98765432109876"} {
			if bytes.Contains(seen, []byte(secret)) {
				t.Errorf("%q is in %s", secret, tail(seen, 2000))
			}
		}
	}
	// Nor on the disk.
	for _, name := range []string{"bulkhead.db", "bulkhead.db-wal"} {
		if b, err := os.ReadFile(filepath.Join(w.g.Data, name)); err == nil && bytes.Contains(b, []byte(lentSecret)) {
			t.Errorf("the secret is in %s", name)
		}
	}
}

// TestLentCaches: no company can make the provider take its prompts for
// another's, by whatever it writes.
func TestLentCaches(t *testing.T) {
	w := newLentWorld(t, map[string]any{"all_companies": true})
	w.ceiling(t, w.a, "10")
	w.ceiling(t, w.b, "10")
	key := func(c company, more map[string]any) string {
		t.Helper()
		w.chat(t, c, "gpt-4o", more).want(t, "call", 200)
		last, _ := w.sent()
		var o struct {
			Key string `json:"prompt_cache_key"`
		}
		if err := json.Unmarshal(last.Body, &o); err != nil || o.Key == "" {
			t.Fatalf("sent %s", last.Body)
		}
		return o.Key
	}
	none, same := key(w.a, nil), key(w.a, map[string]any{"prompt_cache_key": "same"})
	if again := key(w.a, map[string]any{"prompt_cache_key": "same"}); same != again || same == none || same == "same" {
		t.Errorf("keys of one company: %s, %s, %s", none, same, again)
	}
	for _, more := range []map[string]any{nil, {"prompt_cache_key": "same"}, {"prompt_cache_key": same}, {"prompt_cache_key": none}} {
		if k := key(w.b, more); k == none || k == same {
			t.Errorf("the other company has %s for %v", k, more)
		}
	}
}

// TestLentCeilingHolds: what the company says of itself does not widen the
// ceiling, and its own credential does not count for it.
func TestLentCeilingHolds(t *testing.T) {
	w := newLentWorld(t, map[string]any{"all_companies": true})
	w.ceiling(t, w.a, "0.002")
	at := w.g.URL + "/v1/organization"
	w.g.call(t, http.MethodPost, at+"/budgets/calendar", w.a.AdminKey, map[string]any{"time_zone": "Pacific/Kiritimati"}, nil)
	w.g.call(t, http.MethodPost, at+"/budgets", w.a.AdminKey, map[string]any{"scope": map[string]any{"type": "company"}, "window": "month", "limit_usd": "1000", "mode": "soft"}, nil)
	small := map[string]any{"max_tokens": 20}
	calls := int64(0)
	for ; calls < 50; calls++ { // each costs 56,250 nano-USD
		a := w.chat(t, w.a, "gpt-4o", small)
		if a.status != 200 {
			w.refused(t, "the ceiling is reached", a, 429, "insufficient_quota")
			break
		}
	}
	if calls == 0 || calls*56_250 > 2_000_000 {
		t.Errorf("%d calls were possible", calls)
	}
	spent := ledger.FormatUSD(calls * 56_250)
	ask(t, http.MethodPut, w.g.OpsURL+"/admin/companies/"+w.a.ID+"/ceiling", w.a.AdminKey, map[string]any{"window": "month", "limit_usd": "5"}).want(t, "its own admin", 403)
	ask(t, http.MethodPost, w.g.OpsURL+"/admin/credentials", w.a.AdminKey, map[string]any{"provider": "openai", "secret": "x"}).want(t, "its own admin", 403)
	w.g.setCredential(t, w.a, "openai", "sk-own-of-a")
	w.chat(t, w.a, "gpt-4o", small).want(t, "with its own", 200)
	var b shownBudget
	w.g.call(t, http.MethodGet, w.g.OpsURL+"/admin/companies/"+w.a.ID+"/ceiling", w.g.Operator, nil, &b)
	if *b.SpentUSD != spent {
		t.Errorf("the ceiling counts %s", *b.SpentUSD)
	}
}

// TestLentShare: one company has no more than its share of the credential's
// rates, and the other has its own.
func TestLentShare(t *testing.T) {
	w := newLentWorld(t, map[string]any{"all_companies": true, "requests_per_minute": 8, "share_percent": 25})
	w.ceiling(t, w.a, "10")
	w.ceiling(t, w.b, "10")
	for _, c := range []company{w.a, w.b} {
		for range 2 {
			w.chat(t, c, "gpt-4o", nil).want(t, "within the share", 200)
		}
		w.refused(t, "beyond it", w.chat(t, c, "gpt-4o", nil), 429, "rate_limit_exceeded")
	}
	w.g.setCredential(t, w.a, "openai", "sk-own-of-a")
	w.chat(t, w.a, "gpt-4o", nil).want(t, "with its own", 200)
}
