package test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"bulkhead/ledger"
	"bulkhead/test/upstream"
)

// The rules of DESIGN 4.14, each with the script that attacks it with a company's
// keys while the provider records what reaches it:
//
//	a grant of this company's, and a ceiling     TestLentNeedsGrantAndCeiling, TestLentForeign
//	own credential and host never mixed with it  TestLentOwnFirst, TestLentHost
//	state at the vendor, its tools, no price     TestLentRefused
//	the vendor's texts, headers and waits        TestLentShowsNothing, TestLentErrorMid
//	prompt caches and counts of them             TestLentCaches, TestLentShowsNothing
//	the ceiling, whatever the company sets       TestLentCeilingHolds, TestLentDegraded
//	a share of the credential's rates            TestLentShare
//	the breaker                                  TestLentBreaker
//	the secret is seen by nobody                 TestLentShowsNothing

// lentSecret is the operator's. Nobody but the provider may ever see it.
const lentSecret = "sk-lent-CANARY-0123456789abcdefghij"

// lentWorld is a gateway that lends a credential for openai, whose provider
// records what it is asked. Two companies may use it.
type lentWorld struct {
	g     *gateway
	up    *upstream.Server
	a, b  company
	id    string     // of the credential
	shown [][]byte   // every answer there was
	spans *collector // of traces
}

func newLentWorld(t *testing.T, more map[string]any) *lentWorld {
	t.Helper()
	w := &lentWorld{up: upstream.New(t)}
	w.up.Handle("gpt-4o", func(c *upstream.Call) {
		h := c.W.Header()
		h.Set("OpenAI-Organization", "org-of-the-operator")
		h.Set("X-Ratelimit-Remaining-Requests", "98765432109876")
		h.Set("X-Of-The-Account", "98765432109876")
		h.Set("Set-Cookie", "account=98765432109876")
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
	w.up.Handle("gpt-4.1-mini", func(c *upstream.Call) {
		c.Error(http.StatusInternalServerError, "org-of-the-operator is down", "server_error")
	})
	w.spans = newCollector(t)
	w.g = startGateway(t, fmt.Sprintf("providers:\n  openai: {kind: openai, base_url: %[1]q}\n  spare: {kind: openai, base_url: %[1]q}\notel: {endpoint: %[2]q}\n", w.up.BaseURL(), w.spans.URL))
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
// priced is refused with the field's name, and nothing is sent. The list is written
// out: a name that is lost in package provider is missed here.
func TestLentRefused(t *testing.T) {
	w := newLentWorld(t, map[string]any{"all_companies": true})
	w.ceiling(t, w.a, "10")
	type fields = map[string]any
	f := func(path, code, param string, body fields) {
		t.Helper()
		body["model"] = "gpt-4o"
		a := ask(t, http.MethodPost, w.g.URL+"/v1/"+path, w.a.APIKey, body)
		var o struct{ Error struct{ Code, Param string } }
		if err := json.Unmarshal(a.body, &o); err != nil || a.status != 400 || o.Error.Code != code || o.Error.Param != param {
			t.Errorf("%s with %s: %d %s", path, param, a.status, a.body)
		}
	}
	const kept, unpriced = "field_not_allowed", "field_not_priced"
	chat := func(code, param string, more fields) {
		t.Helper()
		body := fields(chatBody("", "hello"))
		maps.Copy(body, more)
		f("chat/completions", code, param, body)
	}
	part := func(code, at string, p fields) {
		t.Helper()
		chat(code, "messages[0].content[0]."+at, fields{"messages": []any{fields{"role": "user", "content": []any{p}}}})
	}
	// State, on every endpoint that takes a body of words.
	for name, value := range map[string]any{
		"previous_response_id": "resp_1", "conversation": "conv_1", "background": true, "cached_content": "cachedContents/1",
	} {
		chat(kept, name, fields{name: value})
		f("completions", kept, name, fields{"prompt": "x", name: value})
		f("embeddings", kept, name, fields{"input": "x", name: value})
		f("moderations", kept, name, fields{"input": "x", name: value})
	}
	chat(kept, "store", fields{"store": true})
	part(kept, "file_id", fields{"type": "file", "file": fields{"file_id": "file-1"}})
	part(kept, "file_id", fields{"type": "container_upload", "file_id": "file-1"})
	chat(kept, "messages[1].audio", fields{"messages": []any{
		fields{"role": "user", "content": "x"}, fields{"role": "assistant", "audio": fields{"id": "audio_1"}}}})
	f("images/edits", kept, "images[0].file_id", fields{"prompt": "x", "images": []any{fields{"file_id": "file-1"}}})
	f("audio/speech", kept, "voice.id", fields{"input": "x", "voice": fields{"id": "voice_1"}})
	// Tools that the provider runs.
	for _, name := range []string{"web_search", "web_search_preview", "x_search", "browser_search", "code_interpreter", "file_search", "image_generation", "mcp"} {
		chat(kept, "tools[1].type", fields{"tools": []any{fields{"type": "function", "function": fields{"name": "f"}}, fields{"type": name}}})
	}
	for name, value := range map[string]any{
		"web_search_options": fields{}, "search_parameters": fields{"mode": "on"}, "search_settings": fields{}, "compound_custom": fields{},
		"plugins": []any{fields{"id": "web"}}, "moderation": fields{"model": "x"},
	} {
		chat(kept, name, fields{name: value})
	}
	// What has no price, or no bound: all that is not known.
	for name, value := range map[string]any{
		"vector_store_ids": []any{"vs_1"}, "prompt": fields{"id": "pmpt_1"}, "container": "cntr_1", "file_ids": []any{"file-1"}, "mcp_servers": []any{fields{}},
		"context_management": fields{}, "cachedContent": "cachedContents/1", "extra_body": fields{"store": true}, "brand_new": 1,
	} {
		chat(unpriced, name, fields{name: value})
		f("embeddings", unpriced, name, fields{"input": "x", name: value})
	}
	chat(unpriced, "tools[0].type", fields{"tools": []any{fields{"type": "computer_use"}}})
	chat(unpriced, "modalities[1]", fields{"modalities": []any{"text", "video"}})
	chat(unpriced, "messages[0].images", fields{"messages": []any{fields{"role": "user", "content": "x", "images": []any{"QQ=="}}}})
	part(unpriced, "type", fields{"type": "video_url", "video_url": fields{"url": "https://x.example"}})
	part(unpriced, "type", fields{"type": "container_upload"})
	part(unpriced, "max_pixels", fields{"type": "image_url", "image_url": fields{"url": "https://x.example"}, "max_pixels": 9})
	if _, n := w.sent(); n != 0 {
		t.Errorf("%d requests were sent", n)
	}
	// What leaves nothing there goes through.
	w.chat(t, w.a, "gpt-4o", fields{"store": false, "previous_response_id": nil}).want(t, "nothing is kept", 200)
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
		for name := range a.header {
			if !slices.Contains(lentHeaders, name) {
				t.Errorf("the answer has the header %s", name)
			}
		}
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
	eventually(t, time.Minute, "the traces are sent", func() bool { return bytes.Count(w.spans.all(), []byte("attempt openai")) >= 4 })
	w.shown = append(w.shown, w.spans.all(), w.g.log(t))
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

// lentHeaders are the headers an answer may have. None is the provider's.
var lentHeaders = []string{"Content-Type", "Content-Length", "Date", "Server", "Transfer-Encoding", "Cache-Control", "X-Accel-Buffering", "Vary", "X-Request-Id",
	"Openai-Processing-Ms", "X-Bulkhead-Overhead-Ms", "X-Bulkhead-Provider", "X-Bulkhead-Model", "X-Bulkhead-Attempts", "X-Bulkhead-Cost-Usd", "X-Bulkhead-Budget-Remaining-Usd"}

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
	w.g.call(t, http.MethodPost, at+"/prices", w.a.AdminKey, map[string]any{"provider": "openai", "model": "gpt-4o",
		"usd_per_million_tokens": map[string]string{"input": "0", "cached_input": "0", "output": "0"}}, nil)
	for _, scope := range []string{"ceiling", "operator", "credential"} {
		ask(t, http.MethodPost, at+"/budgets", w.a.AdminKey, map[string]any{"scope": map[string]any{"type": scope}, "window": "month", "limit_usd": "1000"}).want(t, scope, 400)
	}
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
	w := newLentWorld(t, map[string]any{"all_companies": true, "requests_per_minute": 8, "tokens_per_minute": 8000, "share_percent": 25})
	w.ceiling(t, w.a, "10")
	w.ceiling(t, w.b, "10")
	for _, c := range []company{w.a, w.b} {
		w.refused(t, "more tokens than the share", w.chat(t, c, "gpt-4o", map[string]any{"max_tokens": 2000}), 429, "rate_limit_exceeded")
		for range 2 {
			w.chat(t, c, "gpt-4o", nil).want(t, "within the share", 200)
		}
		w.refused(t, "beyond it", w.chat(t, c, "gpt-4o", nil), 429, "rate_limit_exceeded")
	}
	w.g.setCredential(t, w.a, "openai", "sk-own-of-a")
	w.chat(t, w.a, "gpt-4o", nil).want(t, "with its own", 200)
}
