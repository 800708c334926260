package web

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"math"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"bulkhead/openai"
	"bulkhead/tenant"
	"bulkhead/test/upstream"
)

// TestEmbeddings: a client gets the form that it asked for, numbers if it asked
// for none, whatever the provider sends (CONTRACT section 7).
func TestEmbeddings(t *testing.T) {
	l := newLab(t, labOptions{})
	key, _ := l.company("acme", tenant.KeyLive, nil)
	f := func(model, format string, base64Form bool) {
		t.Helper()
		more := ""
		if format != "" {
			more = `,"encoding_format":"` + format + `"`
		}
		a := l.do("POST", key, "/v1/embeddings", `{"model":"up/`+model+`","input":["one","two"]`+more+`}`)
		var v struct {
			Data []struct {
				Index     int
				Embedding json.RawMessage
			}
			Usage struct {
				PromptTokens int `json:"prompt_tokens"`
			}
		}
		if err := json.Unmarshal([]byte(a.body), &v); err != nil || a.status != 200 || len(v.Data) != 2 || v.Usage.PromptTokens != 2*upstream.EmbeddingTokens {
			t.Fatalf("%s, %v", a, err)
		}
		for i, d := range v.Data {
			if got := decodeEmbedding(t, d.Embedding, base64Form); !slices.Equal(got, upstream.Embedding(i, upstream.Dimensions)) {
				t.Errorf("%s %s: %s", model, format, d.Embedding)
			}
		}
	}
	f("ok", "", false)
	f("ok", "float", false)
	f("ok", "base64", true)
	f("float-embeddings", "base64", true) // a provider that overlooks the field
	f("float-embeddings", "", false)
	for _, e := range l.booked() {
		if e.Kind != "embeddings" || e.Usage.Input != 2*upstream.EmbeddingTokens || e.Usage.Output != 0 {
			t.Errorf("booked %+v", e)
		}
	}
	// The sandbox too.
	test, _ := l.company("globex", tenant.KeyTest, nil)
	if a := l.do("POST", test, "/v1/embeddings", `{"model":"text-embedding-3-small","input":"x"}`); a.status != 200 || a.header.Get("X-Bulkhead-Provider") != "sandbox" {
		t.Errorf("%s", a)
	}
	if n := len(l.up.Requests()); n != 5 {
		t.Errorf("a test key reached a provider: %d calls", n)
	}
}

func decodeEmbedding(t *testing.T, raw json.RawMessage, base64Form bool) (v []float32) {
	t.Helper()
	if !base64Form {
		must(t, json.Unmarshal(raw, &v))
		return v
	}
	var text string
	must(t, json.Unmarshal(raw, &text))
	b, err := base64.StdEncoding.DecodeString(text)
	must(t, err)
	for ; len(b) >= 4; b = b[4:] {
		v = append(v, math.Float32frombits(binary.LittleEndian.Uint32(b)))
	}
	return v
}

// TestModerations: a moderation may name no model.
func TestModerations(t *testing.T) {
	l := newLab(t, labOptions{})
	key, _ := l.company("acme", tenant.KeyLive, nil)
	a := l.do("POST", key, "/v1/moderations", `{"input":"some text"}`)
	sent, _ := l.up.Last()
	if a.status != 200 || !strings.Contains(a.body, `"flagged"`) || a.header.Get("X-Bulkhead-Model") != openai.DefaultModerationModel ||
		sent.Path != "/v1/moderations" || string(sent.Body) != `{"input":"some text"}` {
		t.Errorf("%s; sent %s", a, sent.Body)
	}
	if e := l.booked()[0]; e.Kind != "moderations" || e.Requested != openai.DefaultModerationModel {
		t.Errorf("booked %+v", e)
	}
	if a := l.do("POST", key, "/v1/moderations", `{"input":"some text","model":"up/ok"}`); a.status != 200 {
		t.Errorf("%s", a)
	}
}

func TestCompletions(t *testing.T) {
	l := newLab(t, labOptions{})
	key, _ := l.company("acme", tenant.KeyLive, nil)
	a := l.do("POST", key, "/v1/completions", `{"model":"up/ok","prompt":"say"}`)
	if a.status != 200 || !strings.Contains(a.body, `"text":"Hello from the upstream"`) {
		t.Errorf("%s", a)
	}
	a = l.do("POST", key, "/v1/completions", `{"model":"up/ok","prompt":["say","more"],"stream":true}`)
	if a.status != 200 || a.err != nil || !strings.HasSuffix(a.body, "data: [DONE]\n\n") || strings.Contains(a.body, `"usage"`) {
		t.Errorf("%s", a)
	}
	for _, e := range l.booked() {
		if e.Kind != "completions" || e.Usage.Output != 4 {
			t.Errorf("booked %+v", e)
		}
	}
	// A provider without the endpoint.
	a = l.do("POST", key, "/v1/completions", `{"model":"mistral/ok","prompt":"say"}`)
	if e := a.envelope(t); a.status != 400 || e.Code != "model_not_supported" || e.Param != "model" {
		t.Errorf("%s", a)
	}
}

// TestCost: what a call cost is told and booked, in whole nano-USD.
func TestCost(t *testing.T) {
	l := newLab(t, labOptions{})
	key, s := l.company("acme", tenant.KeyLive, nil)
	l.up.Handle("gpt-4o-mini", func(c *upstream.Call) {
		const usage = `"usage":{"prompt_tokens":1000,"completion_tokens":100,"total_tokens":1100}`
		if !c.Stream {
			c.W.Header().Set("Content-Type", "application/json")
			_, _ = c.W.Write([]byte(`{"choices":[{"message":{"content":"x"},"finish_reason":"stop"}],` + usage + `}`))
			return
		}
		c.StartStream()
		c.Event([]byte(`{"choices":[{"delta":{"content":"x"},"finish_reason":"stop"}]}`))
		c.Event([]byte(`{"choices":[],` + usage + `}`))
		c.Event([]byte("[DONE]"))
	})
	// 0.15 USD and 0.60 USD per million tokens: OpenAI's list price.
	const usd, nano = "0.00021", 210_000
	if a := l.chat(key, "gpt-4o-mini", ""); a.header.Get("X-Bulkhead-Cost-Usd") != usd || a.header.Get("X-Bulkhead-Provider") != "openai" {
		t.Errorf("%s", a)
	}
	if a := l.chat(key, "gpt-4o-mini", streaming); !strings.Contains(a.body, ": bulkhead cost_usd="+usd+" attempts=1\n\ndata: [DONE]\n\n") {
		t.Errorf("%s", a)
	}
	for _, e := range l.booked() {
		if e.CostNano != nano || !e.Priced || e.Usage.Input != 1000 || e.Usage.Output != 100 {
			t.Errorf("booked %+v", e)
		}
	}
	if got := l.metric("bulkhead_spend_usd_total"); math.Abs(got-2*nano/1e9) > 1e-12 {
		t.Errorf("%v USD are counted", got)
	}
	if id := l.lines(2)[0]["company"]; id != s.ID().String() {
		t.Errorf("company %v", id)
	}
}

var goDuration = regexp.MustCompile(`^(\d+(\.\d+)?(h|m|s|ms|µs))+$`)

// TestRateLimits: limits of key, project and model, the headers that tell of
// them, and the refusal.
func TestRateLimits(t *testing.T) {
	f := func(kind, typ string, edit func(*tenant.Company)) {
		t.Helper()
		l := newLab(t, labOptions{})
		key, _ := l.company("acme", tenant.KeyLive, edit)
		other, _ := l.company("globex", tenant.KeyLive, nil)
		what := "Requests"
		if typ == "tokens" {
			what = "Tokens"
		}
		a := l.chat(key, "up/ok", `,"max_tokens":100`)
		h := a.header
		left, err := strconv.Atoi(h.Get("X-Ratelimit-Remaining-" + what))
		if a.status != 200 || h.Get("X-Ratelimit-Limit-"+what) == "" || err != nil || left < 0 || !goDuration.MatchString(h.Get("X-Ratelimit-Reset-"+what)) {
			t.Errorf("%s: %s", kind, a)
		}
		for a.status == 200 {
			a = l.chat(key, "up/ok", `,"max_tokens":100`)
		}
		e := a.envelope(t)
		ms, err := strconv.Atoi(a.header.Get("Retry-After-Ms"))
		s, err2 := strconv.Atoi(a.header.Get("Retry-After"))
		if a.status != 429 || e.Code != "rate_limit_exceeded" || e.Type != typ || !strings.Contains(e.Message, kind) ||
			err != nil || err2 != nil || ms <= 0 || s != (ms+999)/1000 || a.header.Get("X-Ratelimit-Limit-"+what) == "" {
			t.Errorf("%s: %s", kind, a)
		}
		if a := l.chat(other, "up/ok", ""); a.status != 200 || a.header.Get("X-Ratelimit-Limit-"+what) != "" {
			t.Errorf("%s: another company: %s", kind, a)
		}
	}
	f("company", "requests", func(c *tenant.Company) { c.Limits.RequestsPerMinute = 3 })
	f("project", "requests", func(c *tenant.Company) { projectOf(c).Limits.RequestsPerMinute = 3 })
	f("project", "tokens", func(c *tenant.Company) { projectOf(c).Limits.TokensPerMinute = 150 })
	f("model", "requests", func(c *tenant.Company) {
		projectOf(c).Models = map[string]tenant.Limits{"up/ok": {RequestsPerMinute: 2}, "up/other": {RequestsPerMinute: 1}}
	})

	// At the same time.
	l := newLab(t, labOptions{})
	key, _ := l.company("acme", tenant.KeyLive, func(c *tenant.Company) { projectOf(c).Limits.Concurrent = 1 })
	first := make(chan answerGot, 1)
	go func() { first <- l.chat(key, "up/hold", streaming) }()
	must(t, l.up.WaitRequests(1, patience))
	a := l.chat(key, "up/ok", "")
	if e := a.envelope(t); a.status != 429 || e.Type != "requests" || a.header.Get("Retry-After-Ms") == "" {
		t.Errorf("%s", a)
	}
	l.up.Release()
	if a := <-first; a.status != 200 || a.err != nil {
		t.Errorf("%s", a)
	}
	l.settle()
	if a := l.chat(key, "up/ok", ""); a.status != 200 {
		t.Errorf("after its end: %s", a)
	}
}

// modelIDs lists what /v1/models says.
func (l *lab) modelIDs(key string) (ids []string) {
	l.t.Helper()
	a := l.do("GET", key, "/v1/models", "")
	var v struct {
		Object string
		Data   []struct {
			ID, Object string
			OwnedBy    string `json:"owned_by"`
			Created    int64
		}
	}
	if err := json.Unmarshal([]byte(a.body), &v); err != nil || a.status != 200 || v.Object != "list" {
		l.t.Fatalf("%s: %v", a, err)
	}
	for _, m := range v.Data {
		if m.Object != "model" || m.OwnedBy == "" || m.Created == 0 {
			l.t.Errorf("incomplete: %+v", m)
		}
		ids = append(ids, m.ID)
	}
	return ids
}

// TestModels: a key sees the models it may use, and no others work.
func TestModels(t *testing.T) {
	l := newLab(t, labOptions{})
	key, s := l.company("acme", tenant.KeyLive, routeTo("openai/gpt-4o"))
	stranger, _ := l.world.Company("globex", tenant.KeyLive, nil) // no credentials
	all := l.modelIDs(key)
	for _, want := range []string{"best", "gpt-4o", "sandbox/echo"} {
		if !slices.Contains(all, want) {
			t.Errorf("%s is not listed", want)
		}
	}
	if got := l.modelIDs(stranger); !slices.Equal(got, []string{"sandbox/echo", "sandbox/slow"}) && slices.Contains(got, "gpt-4o") {
		t.Errorf("without credentials: %v", got)
	}
	get := func(key, id string, status int) {
		t.Helper()
		a := l.do("GET", key, "/v1/models/"+id, "")
		if a.status != status {
			t.Errorf("%s: %s", id, a)
		}
		if status != 200 {
			if e := a.envelope(t); e.Code != "model_not_found" {
				t.Errorf("%s: %s", id, a)
			}
		}
	}
	get(key, "gpt-4o", 200)
	get(key, "best", 200)
	get(key, "openai/gpt-4o", 200)
	get(key, url.PathEscape("openai/gpt-4o"), 200)
	get(key, "none", 404)
	get(stranger, "gpt-4o", 404)
	get(stranger, "best", 404)

	// A denial holds under every name of the target.
	deny := func(names ...string) {
		l.world.Edit(s, func(c *tenant.Company) {
			projectOf(c).Permission = tenant.ModelPermission{Mode: tenant.DenyList, Models: names}
		})
	}
	for _, name := range []string{"gpt-4o", "openai/gpt-4o"} {
		deny(name)
		for _, alias := range []string{"gpt-4o", "openai/gpt-4o", "best"} {
			get(key, alias, 404)
			a := l.chat(key, alias, "")
			if e := a.envelope(t); a.status != 404 || e.Code != "model_not_found" {
				t.Errorf("%s denied as %s: %s", name, alias, a)
			}
		}
		if ids := l.modelIDs(key); slices.Contains(ids, "gpt-4o") || slices.Contains(ids, "best") || !slices.Contains(ids, "gpt-4o-mini") {
			t.Errorf("%s denied, listed %v", name, ids)
		}
	}
	// An allow list allows what is on it, by that name.
	l.world.Edit(s, func(c *tenant.Company) {
		projectOf(c).Permission = tenant.ModelPermission{Mode: tenant.AllowList, Models: []string{"up/ok"}}
	})
	if a := l.chat(key, "up/ok", ""); a.status != 200 {
		t.Errorf("%s", a)
	}
	if a := l.chat(key, "up/chunks-2", ""); a.status != 404 {
		t.Errorf("%s", a)
	}
	if n := len(l.up.Requests()); n != 1 {
		t.Errorf("%d calls reached the provider", n)
	}
}

// TestTestKey: a test key reaches the sandbox, whatever it asks for.
func TestTestKey(t *testing.T) {
	l := newLab(t, labOptions{})
	key, _ := l.company("acme", tenant.KeyTest, routeTo("up/ok"))
	for _, model := range []string{"best", "up/ok", "gpt-4o", "sandbox/echo"} {
		for _, more := range []string{"", streaming} {
			if a := l.chat(key, model, more); a.status != 200 || a.err != nil || a.header.Get("X-Bulkhead-Provider") != "sandbox" {
				t.Errorf("%s: %s", model, a)
			}
		}
	}
	if n := len(l.up.Requests()); n != 0 {
		t.Errorf("%d calls reached a provider", n)
	}
	for _, e := range l.booked() {
		if e.Provider != "sandbox" || !e.Priced || e.EndedAt.Sub(e.StartedAt) > time.Minute {
			t.Errorf("booked %+v", e)
		}
	}
}
