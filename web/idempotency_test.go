package web

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"bulkhead/ledger"
	"bulkhead/tenant"
	"bulkhead/test/upstream"
)

// keptMemory keeps calls as the store does.
type keptMemory struct {
	mu    sync.Mutex
	calls map[string]tenant.KeptCall
	fail  error // of BeginKept
	deaf  bool  // EndKept fails
}

func (m *keptMemory) KeptCall(_ context.Context, s tenant.Scope, claim string) (tenant.KeptCall, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	k, ok := m.calls[s.ID().String()+claim]
	if !ok || !k.Until.After(time.Now()) {
		return k, tenant.ErrNotFound
	}
	return k, nil
}

func (m *keptMemory) BeginKept(_ context.Context, s tenant.Scope, k tenant.KeptCall) (there tenant.KeptCall, begun bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return there, false, m.fail
	}
	if there, ok := m.calls[s.ID().String()+k.Claim]; ok && there.Until.After(time.Now()) {
		return there, false, nil
	}
	if m.calls == nil {
		m.calls = map[string]tenant.KeptCall{}
	}
	k.State = tenant.Begun
	m.calls[s.ID().String()+k.Claim] = k
	return there, true, nil
}

func (m *keptMemory) EndKept(_ context.Context, s tenant.Scope, k tenant.KeptCall) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.deaf {
		return errors.New("the store is away")
	}
	there, ok := m.calls[s.ID().String()+k.Claim]
	switch {
	case !ok || there.State != tenant.Begun || there.Owner != k.Owner:
	case k.State == tenant.Begun:
		delete(m.calls, s.ID().String()+k.Claim)
	default:
		there.State, there.Sealed = k.State, k.Sealed
		m.calls[s.ID().String()+k.Claim] = there
	}
	return nil
}

// states returns the state of every call that is kept.
func (m *keptMemory) states() (all []tenant.KeptState) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, k := range m.calls {
		if bytes.Contains(k.Sealed, []byte("upstream")) || bytes.Contains(k.Sealed, []byte("choices")) {
			panic("an answer is kept in the clear")
		}
		all = append(all, k.State)
	}
	return all
}

const idempotent = "Idempotency-Key"

// replayed checks that b is a again, and no other call was made.
func (l *lab) replayed(a, b answerGot) {
	l.t.Helper()
	if b.status != a.status || b.body != a.body || b.err != nil || b.header.Get("X-Bulkhead-Idempotent-Replay") != "true" || a.header.Get("X-Bulkhead-Idempotent-Replay") != "" {
		l.t.Errorf("it is not the same answer:\n%s\n%s", a, b)
	}
	for _, name := range []string{"Content-Type", "X-Bulkhead-Provider", "X-Bulkhead-Model", "X-Bulkhead-Cost-Usd", "X-Bulkhead-Attempts"} {
		if a.header.Get(name) != b.header.Get(name) {
			l.t.Errorf("%s was %q and is %q", name, a.header.Get(name), b.header.Get(name))
		}
	}
	if id := a.header.Get("X-Request-Id"); b.header.Get("X-Request-Id") == id || b.header.Get("X-Bulkhead-Original-Request-Id") != id {
		l.t.Errorf("the requests are %s and %v", id, b.header)
	}
}

// conflict checks that a is a refusal of that kind.
func conflict(t *testing.T, a answerGot, status int, code string, retried bool) {
	t.Helper()
	if e := a.envelope(t); a.status != status || e.Code != code || (a.header.Get("X-Should-Retry") == "false") == retried && status == 409 || (a.header.Get("Retry-After") != "") != retried {
		t.Errorf("got %s, want %d %s", a, status, code)
	}
}

// TestIdempotent: at every endpoint, streamed or not, the same key and body have
// the same answer, of one call that is billed once.
func TestIdempotent(t *testing.T) {
	l := newMoneyLab(t, labOptions{})
	budget := usdFor(1e12, tenant.Total)
	key, s := l.buyer(budget, nil)
	sent := 0
	for i, c := range [][2]string{
		{"chat/completions", chatBody("openai/gpt-4o", "")},
		{"chat/completions", chatBody("openai/gpt-4o", streaming)},
		{"chat/completions", chatBody("openai/gpt-4o", streaming+`,"stream_options":{"include_usage":true}`)},
		{"completions", `{"model":"openai/gpt-3.5-turbo-instruct","prompt":"x","max_tokens":5}`},
		{"embeddings", `{"model":"openai/text-embedding-3-small","input":"x"}`},
		{"moderations", `{"model":"openai/omni-moderation-latest","input":"x"}`},
	} {
		ask := func(body string) answerGot {
			t.Helper()
			return l.do("POST", key, "/v1/"+c[0], body, idempotent, fmt.Sprintf("key %d", i))
		}
		first := ask(c[1])
		if first.status != 200 {
			t.Fatalf("%s: %s", c[0], first)
		}
		sent++
		for range 2 {
			l.replayed(first, ask(c[1]))
		}
		conflict(t, ask(strings.Replace(c[1], `"model"`, ` "model"`, 1)), 400, "idempotency_key_reused", false)
		if n := len(l.up.Requests()); n != sent {
			t.Errorf("%s: %d calls were sent, want %d", c[0], n, sent)
		}
	}
	var cost int64
	rows := l.paid(s)
	for _, e := range rows {
		cost += e.CostNano
	}
	if len(rows) != sent {
		t.Errorf("%d entries, want %d", len(rows), sent)
	}
	l.stands(s, budget, cost)
	if n := l.metric("bulkhead_idempotent_replays_total"); n != float64(2*sent) {
		t.Errorf("%v replays are counted", n)
	}
}

// TestIdempotentSpent: a replay costs nothing, so it needs no room in a budget.
func TestIdempotentSpent(t *testing.T) {
	l := newMoneyLab(t, labOptions{})
	body := chatBody("openai/gpt-4o", "")
	budget := usdFor(most4o(inBound(t, chatBody("gpt-4o", "")), ledger.UsefulOutput), tenant.Total)
	key, s := l.buyer(budget, nil)
	ask := func(k string) answerGot { return l.do("POST", key, "/v1/chat/completions", body, idempotent, k) }
	first := ask("first")
	if first.status != 200 {
		t.Fatalf("%s", first)
	}
	if a := ask("second"); a.status != 429 || a.envelope(t).Code != "insufficient_quota" {
		t.Errorf("%s", a)
	}
	l.replayed(first, ask("first"))
	l.stands(s, budget, nano4o(10, 4))
}

// TestIdempotentScope: a key is of one project, of test keys or of others.
func TestIdempotentScope(t *testing.T) {
	l := newLab(t, labOptions{})
	body := chatBody("up/ok", "")
	acme, _ := l.company("acme", tenant.KeyLive, nil)
	other, _ := l.company("other", tenant.KeyLive, nil)
	for i, key := range []string{acme, other} {
		if a := l.do("POST", key, "/v1/chat/completions", body, idempotent, "same"); a.status != 200 || a.header.Get("X-Bulkhead-Idempotent-Replay") != "" || len(l.up.Requests()) != i+1 {
			t.Errorf("company %d: %s", i, a)
		}
	}
	claims := map[string]bool{}
	_, live := l.world.Company("third", tenant.KeyLive, nil)
	_, test := l.world.Company("fourth", tenant.KeyTest, nil)
	for _, s := range []tenant.Scope{live, test} {
		for _, key := range []string{"a", "b", "A", "a "} {
			claims[tenant.IdempotencyClaim(s, key)] = true
		}
	}
	if len(claims) != 8 {
		t.Errorf("%d claims of 8 keys", len(claims))
	}
}

// TestIdempotencyKeys: what is none is refused, and nothing is sent.
func TestIdempotencyKeys(t *testing.T) {
	l := newLab(t, labOptions{})
	key, _ := l.company("acme", tenant.KeyLive, nil)
	f := func(status int, headers ...string) {
		t.Helper()
		l.up.Reset()
		c := l.dial()
		c.send(rawRequest("POST", key, "/v1/chat/completions", chatBody("up/ok", ""), headers...))
		a := c.answer()
		if a.status != status || (status == 200) != (len(l.up.Requests()) == 1) {
			t.Errorf("%q: %s", headers, a)
		}
		if status == 400 && a.envelope(t).Param != idempotent {
			t.Errorf("%q: %s", headers, a)
		}
	}
	f(200, "Idempotency-Key: x")
	f(200, "idempotency-key: !~ and a space")
	f(200, "Idempotency-Key: "+strings.Repeat("x", 255))
	f(400, "Idempotency-Key: "+strings.Repeat("x", 256))
	f(400, "Idempotency-Key: ")
	f(400, "Idempotency-Key: h\xc3\xa9")
	f(400, "Idempotency-Key: a\tb")
	f(400, "Idempotency-Key: a", "Idempotency-Key: b")
}

// TestIdempotentWhileRunning: while the first one runs there is no second, however
// many ask at once.
func TestIdempotentWhileRunning(t *testing.T) {
	for _, more := range []string{"", streaming} {
		l := newLab(t, labOptions{})
		key, _ := l.company("acme", tenant.KeyLive, nil)
		ask := func(body string) answerGot {
			return l.do("POST", key, "/v1/chat/completions", body, idempotent, "same")
		}
		first := make(chan answerGot, 1)
		go func() { first <- ask(chatBody("up/hold", more)) }()
		must(t, l.up.WaitRequests(1, patience))
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() { conflict(t, ask(chatBody("up/hold", more)), 409, "idempotency_in_progress", true) })
		}
		wg.Wait()
		conflict(t, ask(chatBody("up/ok", more)), 400, "idempotency_key_reused", false)
		l.up.Release()
		a := <-first
		l.replayed(a, ask(chatBody("up/hold", more)))
		if n := len(l.up.Requests()); n != 1 {
			t.Errorf("%d calls were sent", n)
		}
	}
}

// TestIdempotentFailures: what becomes of the key when the first call fails.
func TestIdempotentFailures(t *testing.T) {
	f := func(model, more string, status int, then string) {
		t.Helper()
		l := newLab(t, labOptions{})
		key, _ := l.company("acme", tenant.KeyLive, func(c *tenant.Company) {
			routeTo("gone/x", "up/status-503", "up/fail-once:a", "up/ok")(c)
			c.Routes["lost"] = &tenant.Route{Name: "lost", Targets: []tenant.RouteTarget{{Model: "up/drop"}, {Model: "up/ok"}}}
		})
		l.up.Handle("drop", func(c *upstream.Call) { c.Abort() })
		ask := func() answerGot {
			return l.do("POST", key, "/v1/chat/completions", chatBody(model, more), idempotent, "same")
		}
		a := ask()
		if a.status != status {
			t.Fatalf("%s: %s", model, a)
		}
		l.settle()
		sent := len(l.up.Requests())
		b := ask()
		switch then {
		case "free":
			if len(l.up.Requests()) == sent && sent > 0 || b.header.Get("X-Bulkhead-Idempotent-Replay") != "" || len(l.kept.states()) > 1 {
				t.Errorf("%s: the key is not free: %s", model, b)
			}
			return
		case "replay":
			l.replayed(a, b)
		default:
			conflict(t, b, 409, then, false)
		}
		if n := len(l.up.Requests()); n != sent {
			t.Errorf("%s: %d calls were sent after %d", model, n, sent)
		}
	}
	for _, more := range []string{"", streaming} {
		// Nothing was made.
		f("gone/x", more, 502, "free")
		f("up/status-400", more, 400, "free")
		f("up/status-429", more, 429, "free")
		f("up/fail-once:b", more, 500, "free")
		f("nobody/x", more, 404, "free")
		// Another target answered.
		f("best", more, 200, "replay")
		// Nobody knows, and no other target is asked.
		f("lost", more, 502, "idempotency_outcome_unknown")
		f("up/drop", more, 502, "idempotency_outcome_unknown")
	}
	f("up/cut", "", 502, "idempotency_outcome_unknown")
	f("up/cut", streaming, 200, "idempotency_outcome_unknown")
	f("up/error-mid", streaming, 200, "idempotency_outcome_unknown")
	f("up/garbage", "", 502, "idempotency_outcome_unknown")
	// Too large to be kept, and not.
	f("up/huge-line", "", 200, "idempotency_not_replayable")
	f("up/huge-line", streaming, 200, "idempotency_not_replayable")
	f("up/chunks-500", streaming, 200, "replay")
}

// TestIdempotentLimit: an answer of 256 KiB is kept, one byte more is not.
func TestIdempotentLimit(t *testing.T) {
	for _, more := range []int{0, 1} {
		l := newLab(t, labOptions{})
		key, _ := l.company("acme", tenant.KeyLive, nil)
		l.up.Handle("sized", func(c *upstream.Call) {
			head, tail := `{"id":"1","choices":[{"index":0,"message":{"role":"assistant","content":"`, `"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}`
			c.W.Header().Set("Content-Type", "application/json")
			_, _ = c.W.Write([]byte(head + strings.Repeat("x", maxKeptAnswer-len(head)-len(tail)+more) + tail))
		})
		ask := func() answerGot {
			return l.do("POST", key, "/v1/chat/completions", chatBody("up/sized", ""), idempotent, "same")
		}
		a := ask()
		if len(a.body) != maxKeptAnswer+more {
			t.Fatalf("%d bytes", len(a.body))
		}
		if b := ask(); more == 0 {
			l.replayed(a, b)
		} else {
			conflict(t, b, 409, "idempotency_not_replayable", false)
		}
	}
}

// TestIdempotentLeaves: a client that leaves has its call cancelled, and nobody
// sends it again; or drained, and its answer is there when it comes back.
func TestIdempotentLeaves(t *testing.T) {
	for _, drain := range []bool{false, true} {
		for _, more := range []string{"", streaming} {
			l := newLab(t, labOptions{settings: func(s *Settings) { s.Drain = drain }})
			key, _ := l.company("acme", tenant.KeyLive, nil)
			body := chatBody("up/hold", more)
			ctx, leave := context.WithCancel(t.Context())
			left := make(chan struct{})
			go func() {
				defer close(left)
				if resp, err := l.open(ctx, "POST", key, "/v1/chat/completions", body, idempotent, "same"); err == nil {
					_, _ = readAnswer(resp), err
				}
			}()
			must(t, l.up.WaitRequests(1, patience))
			leave()
			<-left
			if drain {
				eventually(t, "it is seen that the client left", func() bool { l.g.drains.mu.Lock(); defer l.g.drains.mu.Unlock(); return l.g.drains.all == 1 })
			} else {
				must(t, l.up.WaitClosed(1, patience))
			}
			l.up.Release()
			l.settle()
			a := l.do("POST", key, "/v1/chat/completions", body, idempotent, "same")
			if n := len(l.up.Requests()); n != 1 {
				t.Errorf("%d calls were sent", n)
			}
			if !drain {
				conflict(t, a, 409, "idempotency_outcome_unknown", false)
				continue
			}
			if a.status != 200 || a.header.Get("X-Bulkhead-Idempotent-Replay") != "true" || !strings.Contains(a.body, "upstream") || more != "" && !strings.HasSuffix(a.body, "data: [DONE]\n\n") {
				t.Errorf("%s", a)
			}
			if e := l.booked(); len(e) != 1 || e[0].Outcome != ledger.Answered || e[0].Rank != ledger.Final {
				t.Errorf("booked %+v", e)
			}
		}
	}
}

// TestIdempotentStoreAway: where it cannot be seen whether the key was used nothing
// is sent, and what cannot be written at the end is not sent again.
func TestIdempotentStoreAway(t *testing.T) {
	l := newLab(t, labOptions{})
	key, _ := l.company("acme", tenant.KeyLive, nil)
	ask := func() answerGot {
		return l.do("POST", key, "/v1/chat/completions", chatBody("up/ok", ""), idempotent, "same")
	}
	l.kept.fail = errors.New("the store is away")
	if a := ask(); a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" || len(l.up.Requests()) != 0 {
		t.Errorf("%s", a)
	}
	if a := l.chat(key, "up/ok", ""); a.status != 200 {
		t.Errorf("without a key: %s", a)
	}
	l.kept.fail, l.kept.deaf = nil, true
	if a := ask(); a.status != 200 {
		t.Errorf("%s", a)
	}
	l.kept.deaf = false
	conflict(t, ask(), 409, "idempotency_outcome_unknown", false)
	if n := len(l.up.Requests()); n != 2 {
		t.Errorf("%d calls were sent", n)
	}
	if !strings.Contains(l.logged.String(), "not_kept") {
		t.Error("nobody is told that an answer was not kept")
	}
}

// TestKeptToday: what a gateway keeps in a day is bounded.
func TestKeptToday(t *testing.T) {
	var k keptToday
	at := time.Unix(1_700_000_000, 0)
	for h := range 24 {
		if !k.take(maxKeptTotal/24, at.Add(time.Duration(h)*time.Hour)) {
			t.Fatalf("hour %d", h)
		}
	}
	if k.take(maxKeptTotal/24, at.Add(23*time.Hour)) {
		t.Error("more than a day's")
	}
	if !k.take(maxKeptTotal/24, at.Add(24*time.Hour)) || k.take(maxKeptTotal/24, at.Add(24*time.Hour)) {
		t.Error("the first hour is over, and no other")
	}
	if !k.take(maxKeptTotal, at.Add(100*time.Hour)) {
		t.Error("after days without any")
	}
}
