package test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"bulkhead/test/servers"
	"bulkhead/test/upstream"
)

// collector takes traces, as they are sent.
type collector struct {
	*httptest.Server
	mu   sync.Mutex
	sent []byte
}

func newCollector(t *testing.T) *collector {
	c := new(collector)
	c.Server = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		c.mu.Lock()
		defer c.mu.Unlock()
		c.sent = append(c.sent, b...)
	}))
	t.Cleanup(c.Close)
	return c
}

func (c *collector) all() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return bytes.Clone(c.sent)
}

// lentCalls counts the requests that were sent with the lent secret.
func (w *lentWorld) lentCalls() (n int) {
	for _, r := range w.up.Requests() {
		if strings.Contains(fmt.Sprint(r.Header), lentSecret) {
			n++
		}
	}
	return n
}

// TestLentForeign: what is lent to another company is reached by no name: not the
// provider's, a route's, an agent's or an embedding model's, and by no id.
func TestLentForeign(t *testing.T) {
	w := newLentWorld(t, nil)
	w.lend(t, w.b, "openai")
	w.ceiling(t, w.a, "10")
	w.ceiling(t, w.b, "10")
	at := w.g.URL + "/v1/organization"
	w.g.setRoute(t, w.a, "by-route", "openai/gpt-4o")
	for _, model := range []string{"gpt-4o", "openai/gpt-4o", "by-route", "operator/gpt-4o", "openai%2fgpt-4o", "../openai/gpt-4o", w.b.ID + "/openai/gpt-4o"} {
		w.refused(t, model, w.chat(t, w.a, model, nil), 404, "model_not_found")
	}
	agent := map[string]any{"name": "x", "slug": "x", "model": "gpt-4o", "instructions": "x"}
	ask(t, http.MethodPost, w.g.URL+"/v1/agents", w.a.AdminKey, agent).want(t, "an agent of it", 404)
	w.lend(t, w.a, "openai")
	w.g.newAgent(t, w.a.AdminKey, agent)
	w.lend(t, w.a)
	w.refused(t, "an agent from when it was lent", w.chat(t, w.a, "agent/x", nil), 404, "model_not_found")
	for _, path := range []string{"/credentials/" + w.id, "/lent", "/admin/credentials"} {
		ask(t, http.MethodGet, at+path, w.a.AdminKey, nil).want(t, path, 404)
	}
	ask(t, http.MethodDelete, at+"/credentials/"+w.id, w.a.AdminKey, nil).want(t, "deleting it", 404)
	for _, key := range []string{w.a.AdminKey, w.b.AdminKey, w.b.APIKey} { // nor does who may use it grant it
		ask(t, http.MethodPut, w.g.OpsURL+"/admin/companies/"+w.a.ID+"/lent", key, map[string]any{"providers": []string{"openai"}}).want(t, "granting it", 403)
	}
	if n := w.lentCalls(); n != 0 {
		t.Errorf("%d requests were sent with what is lent to the other", n)
	}
	w.chat(t, w.b, "gpt-4o", nil).want(t, "whom it is lent", 200)
}

// TestLentHost: nothing a company sets or sends has the operator's secret sent to
// an address, an account or in a form of its own.
func TestLentHost(t *testing.T) {
	w := newLentWorld(t, map[string]any{"all_companies": true})
	w.ceiling(t, w.a, "10")
	stolen := upstream.New(t)
	own := func(more map[string]any) answer {
		body := map[string]any{"provider": "openai"}
		for k, v := range more {
			body[k] = v
		}
		return ask(t, http.MethodPost, w.g.URL+"/v1/organization/credentials", w.a.AdminKey, body)
	}
	// One part of a credential, to be completed with the operator's.
	for param, more := range map[string]map[string]any{
		"base_url": {"base_url": stolen.BaseURL(), "secret": "x"},
		"secret":   {"header": map[string]string{"OpenAI-Organization": "org-mine"}},
		"resource": {"resource": "mine", "secret": "x"},
	} {
		if got := own(more).want(t, param, 400); !strings.Contains(string(got.body), `"param":"`+param+`"`) {
			t.Errorf("want %s, got %s", param, got.body)
		}
	}
	own(map[string]any{"base_url": stolen.BaseURL()}).want(t, "an address alone", 400)
	// Fields and headers of the call.
	for _, name := range []string{"base_url", "api_base", "api_key", "organization", "custom_llm_provider", "credential_id"} {
		w.chat(t, w.a, "gpt-4o", map[string]any{name: stolen.BaseURL()}).want(t, name, 400)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.g.URL+"/v1/chat/completions", strings.NewReader(`{"model":"gpt-4o","messages":[{"role":"user","content":"x"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	const mine = "attacker.example"
	for _, name := range []string{"X-Forwarded-Host", "X-Forwarded-For", "Forwarded", "OpenAI-Organization", "OpenAI-Project", "OpenAI-Beta", "Idempotency-Key", "X-Client-Request-Id",
		"X-Base-Url", "X-Api-Base", "Helicone-Target-Url", "Api-Key", "X-Goog-Api-Key", "Traceparent", "Cookie", "Referer", "X-Title"} {
		req.Header.Set(name, mine)
	}
	req.Header.Set("Authorization", "Bearer "+w.a.APIKey)
	req.Header.Set("Content-Type", "application/json")
	req.Host = mine
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	if resp.StatusCode != 200 {
		t.Fatalf("with headers: %d", resp.StatusCode)
	}
	last, n := w.sent()
	if n != 1 || strings.Contains(fmt.Sprint(last.Header), mine) || last.Header.Get("Authorization") != "Bearer "+lentSecret {
		t.Errorf("%d requests, the last with %v", n, last.Header)
	}
	if got := stolen.Requests(); len(got) != 0 {
		t.Errorf("the company's address was asked: %v", got[0].Header)
	}
}

// TestLentErrorMid: an error in the middle of a stream tells no more than one
// before it.
func TestLentErrorMid(t *testing.T) {
	w := newLentWorld(t, map[string]any{"all_companies": true})
	w.ceiling(t, w.a, "10")
	for i, event := range []string{
		`{"error":{"message":"org-of-the-operator has no quota left, key %s","type":"insufficient_quota of org-of-the-operator","param":"org-of-the-operator","code":"org-of-the-operator"}}`,
		`{"error":"org-of-the-operator, key %s"}`,
		`{"error":{"message":"org-of-the-operator","code":"content_filter","param":"org-of-the-operator"}}`,
	} {
		w.up.Handle("gpt-4o", func(c *upstream.Call) {
			c.StartStream()
			c.Event([]byte(`{"id":"1","object":"chat.completion.chunk","created":1,"model":"gpt-4o","choices":[{"index":0,"delta":{"content":"Hello"}}]}`))
			c.Event([]byte(strings.ReplaceAll(event, "%s", lentSecret)))
		})
		body := chatBody("gpt-4o", "hello")
		body["stream"] = true
		// The body has no end: what came is read all the same.
		a, _ := tryAsk(t.Context(), http.MethodPost, w.g.URL+"/v1/chat/completions", w.a.APIKey, body)
		if a.status != 200 || !bytes.Contains(a.body, []byte(`"error"`)) || bytes.Contains(a.body, []byte("[DONE]")) {
			t.Errorf("event %d: %d %s", i, a.status, a.body)
		}
		if told := append(a.body, w.g.log(t)...); bytes.Contains(told, []byte("org-of-the-operator")) || bytes.Contains(told, []byte(lentSecret)) {
			t.Errorf("event %d tells %s", i, tail(told, 2000))
		}
	}
}

// TestLentBreaker: a company that makes a target fail takes it from nobody else;
// two that see it fail do, for all.
func TestLentBreaker(t *testing.T) {
	w := newLentWorld(t, map[string]any{"all_companies": true})
	third := w.g.newCompany(t, "third")
	for _, c := range []company{w.a, w.b, third} {
		w.ceiling(t, c, "10")
		w.g.setCredential(t, c, "spare", "sk-own")
		w.g.setRoute(t, c, "r", "openai/gpt-4.1-mini", "spare/gpt-4o")
	}
	// tried calls the route and says whether the lent target was asked.
	tried := func(c company) bool {
		t.Helper()
		before := w.lentCalls()
		w.chat(t, c, "r", nil).want(t, "the route", 200)
		return w.lentCalls() > before
	}
	eventually(t, time.Minute, "its own failures make it broken for the company", func() bool { return !tried(w.a) })
	for range 20 {
		tried(w.a)
	}
	for _, c := range []company{w.b, third} {
		if !tried(c) {
			t.Errorf("one company's failures took the target from %s", c.Name)
		}
	}
	eventually(t, time.Minute, "two companies have seen it fail", func() bool {
		tried(w.a) // its probes keep the failures young
		tried(w.b)
		return !tried(third)
	})
}

// TestLentDegraded: a company's allowance while nothing can be counted is for its
// own credentials.
func TestLentDegraded(t *testing.T) {
	server := servers.Start(t, "redis")
	up := upstream.New(t)
	g := prepare(t, "providers:\n  openai: {kind: openai, base_url: "+up.BaseURL()+"}\n  spare: {kind: openai, base_url: "+up.BaseURL()+"}\n", "BULKHEAD_REDIS_URL="+server.Var("REDIS_URL"))
	g.serve(t)
	c := g.newCompany(t, "c")
	g.call(t, http.MethodPost, g.OpsURL+"/admin/credentials", g.Operator, map[string]any{"provider": "openai", "secret": lentSecret, "all_companies": true}, nil)
	g.call(t, http.MethodPut, g.OpsURL+"/admin/companies/"+c.ID+"/ceiling", g.Operator, map[string]any{"window": "month", "limit_usd": "10"}, nil)
	g.setCredential(t, c, "spare", upstreamSecret)
	g.call(t, http.MethodPost, g.URL+"/v1/organization/budgets/degraded", c.AdminKey, map[string]any{"degraded": "allow", "limit_usd": "9", "limit_requests": 1000}, nil)
	for _, model := range []string{"openai/" + paidModel, "spare/" + paidModel} {
		eventually(t, time.Minute, model+" is reached", func() bool { return g.chat(t, c.APIKey, model).status == http.StatusOK })
	}
	if err := server.Stop(); err != nil {
		t.Fatal(err)
	}
	before := len(up.Requests())
	for range 5 {
		g.chat(t, c.APIKey, "openai/"+paidModel).want(t, "with what is lent", http.StatusServiceUnavailable)
	}
	g.chat(t, c.APIKey, "spare/"+paidModel).want(t, "with its own", http.StatusOK)
	if n := len(up.Requests()) - before; n != 1 {
		t.Errorf("%d calls were sent, want the one with its own credential", n)
	}
}
