package web

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"bulkhead/keystore"
	"bulkhead/ledger"
	"bulkhead/limiter"
	"bulkhead/provider"
	"bulkhead/tenant"
)

// responseMemory notes responses as the store does.
type responseMemory struct {
	mu   sync.Mutex
	rows map[string]tenant.Response
	fail error
}

func (m *responseMemory) Response(_ context.Context, s tenant.Scope, id string) (tenant.Response, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, ok := m.rows[s.ID().String()+id]
	if m.fail != nil {
		return r, m.fail
	}
	if !ok || !r.Until.After(time.Now()) {
		return r, tenant.ErrNotFound
	}
	return r, nil
}

func (m *responseMemory) PutResponse(_ context.Context, s tenant.Scope, r tenant.Response) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return m.fail
	}
	if m.rows == nil {
		m.rows = map[string]tenant.Response{}
	}
	old, there := m.rows[s.ID().String()+r.ID]
	if there && (old.Project != r.Project || old.CreatedBy != r.CreatedBy || old.User != r.User || old.Provider != r.Provider || old.Credential != r.Credential) {
		return nil
	}
	m.rows[s.ID().String()+r.ID] = r
	return nil
}

func (m *responseMemory) DeleteResponse(_ context.Context, s tenant.Scope, id string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.rows, s.ID().String()+id)
	return m.fail
}

func (m *responseMemory) all() (ids []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, r := range m.rows {
		ids = append(ids, fmt.Sprint(id[len(id)-len(r.ID):], " ", r.Tokens))
	}
	return ids
}

func (m *responseMemory) forgetTokens() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, r := range m.rows {
		r.Tokens = 0
		m.rows[id] = r
	}
}

func (m *responseMemory) setFail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fail = err
}

func (l *lab) respond(key, model, more string) answerGot {
	l.t.Helper()
	return l.do("POST", key, "/v1/responses", fmt.Sprintf(`{"model":%q,"input":"%s hello"%s}`, model, promptCanary, more))
}

// responseID is the id in an answer, streamed or not.
func responseID(t testing.TB, a answerGot) string {
	t.Helper()
	_, rest, ok := strings.Cut(a.body, `"id":"resp_`)
	if !ok || a.status != 200 {
		t.Fatalf("no response: %s", a)
	}
	id, _, _ := strings.Cut(rest, `"`)
	return "resp_" + id
}

// TestResponse: the body goes through untouched, the answer too, and it is billed
// by its usage.
func TestResponse(t *testing.T) {
	l := newLab(t, labOptions{})
	key, s := l.company("acme", tenant.KeyLive, nil)
	const odd = `"odd":1e3,"tools":[{"type":"function","name":"f","parameters":{"b":1,"a":2}}],"input":[{"role":"user","content":[{"type":"input_text","text":"\u00e9"}]}],"user":"ann","metadata":{"n":12345678901234567890}`
	a := l.do("POST", key, "/v1/responses", `{"model":"openai/gpt-4o",`+odd+`}`)
	if a.status != 200 || a.header.Get("X-Bulkhead-Cost-Usd") != "0.000065" || a.header.Get("X-Bulkhead-Provider") != "openai" || !strings.Contains(a.body, `"output_tokens":4`) {
		t.Fatalf("%s", a)
	}
	sent, _ := l.up.Last()
	if want := `{"model":"gpt-4o",` + odd + `}`; string(sent.Body) != want || sent.Path != "/v1/responses" {
		t.Errorf("sent %s %s", sent.Path, sent.Body)
	}
	e := l.lastBooked(1)
	if e.Kind != "responses" || e.Rank != ledger.Final || e.CostNano != 10*2_500+4*10_000 || e.Usage.Input != 10 || e.Usage.Output != 4 || e.UserID != tenant.UserID(s, "ann") {
		t.Errorf("%+v", e)
	}
	if got := l.responses.all(); len(got) != 1 || got[0] != responseID(t, a)+" 14" {
		t.Errorf("noted %v", got)
	}
	// What is not kept at the provider is not noted.
	if a := l.respond(key, "up/ok", `,"store":false`); a.status != 200 || len(l.responses.all()) != 1 {
		t.Errorf("%s, noted %v", a, l.responses.all())
	}
	for more, param := range map[string]string{`,"background":true`: "background", `,"conversation":"conv_1"`: "conversation", `,"max_output_tokens":-1`: "max_output_tokens"} {
		if a := l.respond(key, "up/ok", more); a.status != 400 || a.envelope(t).Param != param {
			t.Errorf("%s: %s", more, a)
		}
	}
	// A vendor without responses says so, and a test key has none.
	if a := l.respond(key, "mistral/m", ""); a.status != 400 || a.envelope(t).Code != "model_not_supported" {
		t.Errorf("%s", a)
	}
	test, _ := l.world.AddKey(s, tenant.KeyTest, s.ProjectID())
	if a := l.respond(test, "up/ok", ""); a.status != 400 || a.envelope(t).Code != "model_not_supported" {
		t.Errorf("%s", a)
	}
	if n := len(l.up.Requests()); n != 2 {
		t.Errorf("%d calls reached the provider", n)
	}
}

// TestResponseStreamGolden shows byte for byte what a client gets of each stream.
func TestResponseStreamGolden(t *testing.T) {
	for _, model := range []string{"ok", "tools", "no-usage", "comments", "crlf", "drip", "huge-line", "cut", "cut-clean", "error-mid", "response-failed", "response-done", "web-search", "garbage-json"} {
		t.Run(model, func(t *testing.T) {
			l := newLab(t, labOptions{})
			key, _ := l.company("acme", tenant.KeyLive, nil)
			a := l.respond(key, "up/"+model, streaming+`,"tools":[{"type":"function","name":"weather"}]`)
			end := "whole"
			if a.err != nil {
				end = "broken off"
			}
			e := l.lastBooked(1)
			golden(t, "response/"+model, fmt.Sprintf("# %d %s, %s; booked %s %d in %d out, rank %d, searches %d; noted %v\n%s\n", a.status, a.header.Get("Content-Type"), end,
				e.Outcome, e.Usage.Input, e.Usage.Output, e.Rank, e.Usage.Searches, l.responses.all(), a.body))
		})
	}
}

// TestResponseFailed: why a response failed is told without the key that the
// provider may repeat.
func TestResponseFailed(t *testing.T) {
	l := newLab(t, labOptions{})
	key, _ := l.company("acme", tenant.KeyLive, nil)
	whole := l.respond(key, "up/response-failed", "")
	for _, a := range []answerGot{whole, l.respond(key, "up/response-failed", streaming), l.do("GET", key, "/v1/responses/"+responseID(t, whole), "")} {
		if a.status != 200 || a.err != nil || !strings.Contains(a.body, "the upstream failed; it was sent Bearer ") || strings.Contains(a.body, vendorSecret) {
			t.Errorf("%s", a)
		}
	}
}

// TestResponseEnds: who leaves, and what breaks, is booked with what came.
func TestResponseEnds(t *testing.T) {
	f := func(model string, events int, want ending) {
		t.Helper()
		l := newLab(t, labOptions{})
		key, _ := l.company("acme", tenant.KeyLive, nil)
		c := l.dial()
		c.send(rawRequest("POST", key, "/v1/responses", `{"model":"up/`+model+`","input":"hello hello hello","stream":true}`))
		must(t, l.up.WaitRequests(1, patience))
		for n := 0; n < events; {
			line, err := c.r.ReadString('\n')
			must(t, err)
			if strings.HasPrefix(line, "data:") {
				n++
			}
		}
		must(t, c.Close())
		must(t, l.up.WaitClosed(1, patience))
		want.outcome, want.rank, want.error = ledger.Cancelled, ledger.Estimate, "client_closed_request"
		l.ended(want)
	}
	f("slow-header", 0, ending{client: 499})
	f("silent", 5, ending{status: 200, text: true, client: 200})
	f("never-ending", 6, ending{status: 200, text: true, client: 200})

	// At its last event a client may leave: the response is booked in full.
	l := newLab(t, labOptions{})
	key, _ := l.company("acme", tenant.KeyLive, nil)
	c := l.dial()
	c.send(rawRequest("POST", key, "/v1/responses", `{"model":"up/ok","input":"hello","stream":true}`))
	c.peekUntil("event: response.completed")
	c.reset()
	l.ended(ending{outcome: ledger.Answered, rank: ledger.Final, status: 200, text: true, client: 200})
}

// askedFor records what is held for each call.
type askedFor struct {
	limiter.Limiter
	nano []int64
}

func (a *askedFor) Hold(ctx context.Context, s tenant.Scope, ask *limiter.Ask) (limiter.Hold, limiter.State, error) {
	a.nano = append(a.nano, ask.Nano)
	return a.Limiter.Hold(ctx, s, ask)
}

// TestResponseLimit: within a budget the output is bounded, and so is what an
// earlier response brings along.
func TestResponseLimit(t *testing.T) {
	record := new(askedFor)
	m := newMoneyLab(t, labOptions{limiter: func(l limiter.Limiter) limiter.Limiter {
		record.Limiter = l
		return record
	}})
	key, s := m.buyer(usdFor(1e12, tenant.Total), nil)
	held := func(more string) int64 {
		t.Helper()
		if a := m.respond(key, "openai/gpt-4o", more); a.status != 200 {
			t.Fatalf("%s", a)
		}
		m.settle()
		return record.nano[len(record.nano)-1]
	}
	sent := func() string { r, _ := m.up.Last(); return string(r.Body) }
	first := held(`,"max_output_tokens":50`)
	if want := most4o(256+8+int64(len(promptCanary+" hello")), 50); first != want {
		t.Errorf("held %d, want %d", first, want)
	}
	if !strings.Contains(sent(), `"max_output_tokens":50`) {
		t.Errorf("sent %s", sent())
	}
	if held(""); !strings.HasPrefix(sent(), `{"max_output_tokens":16384,`) {
		t.Errorf("sent %s", sent())
	}
	// What nothing bounds is refused.
	for more, param := range map[string]string{`,"tools":[{"type":"web_search"}]`: "tools[0].type", `,"prompt":{"id":"p"}`: "prompt", `,"brand_new":1`: "brand_new"} {
		if a := m.respond(key, "openai/gpt-4o", more); a.status != 400 || a.envelope(t).Param != param || a.envelope(t).Code != provider.CodeNotPriced {
			t.Errorf("%s: %s", more, a)
		}
	}
	// An earlier response has 14 tokens, which come on top. Where that is not known
	// they are all that the model takes.
	a := m.respond(key, "openai/gpt-4o", streaming)
	goOn := `,"max_output_tokens":50,"previous_response_id":"` + responseID(t, a) + `"`
	if more := held(goOn) - first; more != most4o(14, 0) {
		t.Errorf("%d are held for what was said before, want %d", more, most4o(14, 0))
	}
	m.responses.forgetTokens()
	if more := held(goOn) - first; more != most4o(128_000, 0) {
		t.Errorf("%d are held for what was said before, want %d", more, most4o(128_000, 0))
	}
	paid := m.paid(s)
	if last := paid[len(paid)-1]; last.Usage.Input != 24 || last.Rank != ledger.Final || last.Marks != 0 {
		t.Errorf("%+v", last)
	}
}

// TestResponseOwner: an earlier response is used by whose it is, and goes to the
// provider and the credential that made it. For everybody else it is as if it had
// never been.
func TestResponseOwner(t *testing.T) {
	l := newLab(t, labOptions{})
	key, s := l.company("acme", tenant.KeyLive, routeTo("gone/ok", "up/ok", "openai/ok"))
	l.world.Edit(s, func(c *tenant.Company) {
		c.Projects["proj_two"] = &tenant.Project{ID: "proj_two", Name: "second"}
	})
	beta, _ := l.company("beta", tenant.KeyLive, nil)
	id := responseID(t, l.respond(key, "up/ok", ""))
	streamed := responseID(t, l.respond(key, "up/ok", streaming))
	other, _ := l.world.AddKey(s, tenant.KeyLive, "proj_two")
	same, _ := l.world.AddKey(s, tenant.KeyLive, s.ProjectID())
	test, _ := l.world.AddKey(s, tenant.KeyTest, s.ProjectID())

	for _, id := range []string{id, streamed} {
		for _, k := range []string{key, same} { // of the same project
			if a := l.respond(k, "up/ok", `,"previous_response_id":"`+id+`"`); a.status != 200 || !strings.Contains(a.body, `"input_tokens":24`) {
				t.Errorf("%s", a)
			}
		}
		// The route has other providers before and behind it: they are not asked.
		l.up.Reset()
		if a := l.respond(key, "best", `,"previous_response_id":"`+id+`"`); a.status != 200 || a.header.Get("X-Bulkhead-Provider") != "up" || a.header.Get("X-Bulkhead-Attempts") != "1" {
			t.Errorf("%s", a)
		}
		if a := l.respond(key, "openai/ok", `,"previous_response_id":"`+id+`"`); a.status != 400 || a.envelope(t).Code != "previous_response_elsewhere" {
			t.Errorf("%s", a)
		}
	}
	before := len(l.up.Requests())
	masked := func(a answerGot, id string) string {
		a.header.Del("X-Request-Id")
		a.header.Del("Date")
		a.header.Del("Openai-Processing-Ms")
		return strings.ReplaceAll(a.String(), id, "<id>")
	}
	for _, k := range []string{beta, other} {
		for _, at := range []struct{ method, below string }{{"GET", ""}, {"DELETE", ""}, {"POST", "/cancel"}, {"GET", "/input_items"}} {
			foreign := l.do(at.method, k, "/v1/responses/"+id+at.below, "")
			never := l.do(at.method, k, "/v1/responses/resp_ffffffff"+at.below, "")
			if foreign.status != 404 || masked(foreign, id) != masked(never, "resp_ffffffff") {
				t.Errorf("%s %s:\n%s\n%s", at.method, at.below, foreign, never)
			}
		}
		foreign := l.respond(k, "up/ok", `,"previous_response_id":"`+id+`"`)
		never := l.respond(k, "up/ok", `,"previous_response_id":"resp_ffffffff"`)
		if e := foreign.envelope(t); foreign.status != 404 || e.Code != "previous_response_not_found" || e.Param != "previous_response_id" || masked(foreign, id) != masked(never, "resp_ffffffff") {
			t.Errorf("%s\n%s", foreign, never)
		}
	}
	if a := l.do("GET", test, "/v1/responses/"+id, ""); a.status != 404 {
		t.Errorf("a test key: %s", a)
	}
	for _, id := range []string{"..", "%2e%2e", "resp_1%2F..%2Fadmin", strings.Repeat("a", 200), "resp_%00"} {
		if a := l.do("GET", key, "/v1/responses/"+id, ""); a.status != 404 {
			t.Errorf("%q: %s", id, a)
		}
	}
	if n := len(l.up.Requests()); n != before {
		t.Errorf("%d requests reached the provider", n-before)
	}

	// A credential of another account: what the old one made is not there.
	for _, c := range mustList(t, l, s) {
		if c.Provider == "up" {
			must(t, l.keys.Delete(t.Context(), s, c.ID))
		}
	}
	_, err := l.keys.Put(t.Context(), s, keystore.NewCredential{Provider: "up", Secret: provider.NewSecret("sk-another-account-0123456789")})
	must(t, err)
	l.world.Edit(s, func(*tenant.Company) {})
	l.g.Keys.Forget(s.ID().String())
	if a := l.do("GET", key, "/v1/responses/"+id, ""); a.status != 404 {
		t.Errorf("%s", a)
	}
	if a := l.respond(key, "up/ok", `,"previous_response_id":"`+id+`"`); a.status != 404 || a.envelope(t).Code != "previous_response_not_found" {
		t.Errorf("%s", a)
	}
	if n := len(l.up.Requests()); n != before {
		t.Errorf("%d requests reached the provider", n-before)
	}
}

func mustList(t testing.TB, l *lab, s tenant.Scope) []keystore.Sealed {
	t.Helper()
	all, err := l.keys.List(t.Context(), s)
	must(t, err)
	return all
}

// TestResponseOfUser: a token speaks for one person, who is not answered with what
// another has said.
func TestResponseOfUser(t *testing.T) {
	l := newLab(t, labOptions{})
	i, s, ann := l.trusting(func(_ *tenant.IdentityProvider, r *tenant.FederationRule) { r.Matchers = map[string]any{"iss": ""} })
	l.world.Edit(s, func(c *tenant.Company) { c.Identity.Providers[0].Rules[0].Matchers = map[string]any{"iss": i.Name} })
	bob := i.Token(s.ID().Audience(), "bob")
	id := responseID(t, l.respond(ann, "up/ok", ""))
	if a := l.do("GET", ann, "/v1/responses/"+id, ""); a.status != 200 {
		t.Errorf("%s", a)
	}
	if a := l.do("GET", bob, "/v1/responses/"+id, ""); a.status != 404 {
		t.Errorf("%s", a)
	}
	if a := l.respond(bob, "up/ok", `,"previous_response_id":"`+id+`","user":"ann"`); a.status != 404 {
		t.Errorf("%s", a)
	}
	if a := l.respond(ann, "up/ok", `,"previous_response_id":"`+id+`"`); a.status != 200 {
		t.Errorf("%s", a)
	}
}

// TestResponseAskedFor: what a provider keeps is read, listed, cancelled and
// deleted by its id, with the query that is its.
func TestResponseAskedFor(t *testing.T) {
	l := newLab(t, labOptions{})
	key, _ := l.company("acme", tenant.KeyLive, nil)
	made := l.respond(key, "up/ok", "")
	id := responseID(t, made)
	ask := func(method, path string, status int) string {
		t.Helper()
		a := l.do(method, key, "/v1/responses/"+path, "", "Cookie", "c=1", "X-Bulkhead", "1")
		if a.status != status || status == 200 && a.header.Get("Content-Type") != "application/json" {
			t.Fatalf("%s %s: %s", method, path, a)
		}
		return a.body
	}
	var got, want map[string]any
	must(t, json.Unmarshal([]byte(ask("GET", id+"?include[]=reasoning.encrypted_content&include[]=a%26b", 200)), &got))
	must(t, json.Unmarshal([]byte(made.body), &want))
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%v\n%v", got, want)
	}
	sent, _ := l.up.Last()
	if sent.Query != "include%5B%5D=reasoning.encrypted_content&include%5B%5D=a%26b" || sent.Path != "/v1/responses/"+id || len(sent.Body) != 0 ||
		sent.Header.Get("Authorization") != "Bearer "+vendorSecret || sent.Header.Get("Cookie") != "" || sent.Header.Get("X-Bulkhead") != "" {
		t.Errorf("sent %+v", sent)
	}
	if body := ask("GET", id+"/input_items?limit=5&order=asc", 200); !strings.Contains(body, "msg_in") {
		t.Errorf("%s", body)
	}
	if body := ask("POST", id+"/cancel", 200); !strings.Contains(body, "cancelled") {
		t.Errorf("%s", body)
	}
	before := len(l.up.Requests())
	for _, query := range []string{"stream=true", "starting_after=1", "api-version=1", "include%00=x", "limit=1"} {
		if body := ask("GET", id+"?"+query, 400); !strings.Contains(body, "invalid_request_error") {
			t.Errorf("%s", body)
		}
	}
	if n := len(l.up.Requests()); n != before {
		t.Errorf("%d requests reached the provider", n-before)
	}
	if body := ask("DELETE", id, 200); !strings.Contains(body, `"deleted":true`) {
		t.Errorf("%s", body)
	}
	ask("GET", id, 404)
	ask("DELETE", id, 404)
	if got := l.responses.all(); len(got) != 0 {
		t.Errorf("still noted: %v", got)
	}
	// One that the provider has forgotten is not there, and forgotten here too once
	// it is deleted.
	id = responseID(t, l.respond(key, "up/ok", ""))
	l.up.Forget()
	ask("GET", id, 404)
	ask("DELETE", id, 404)
	if got := l.responses.all(); len(got) != 0 {
		t.Errorf("still noted: %v", got)
	}
	if got := len(l.booked()); got != 2 {
		t.Errorf("%d entries: what is asked for again is not billed", got)
	}
}
