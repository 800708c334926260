package web

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"bulkhead/ledger"
	"bulkhead/limiter"
	"bulkhead/provider"
	"bulkhead/tenant"
)

// ending is what is written down of one attempt, and of its call.
type ending struct {
	outcome ledger.Outcome
	rank    ledger.Rank
	status  int    // of the provider
	text    bool   // output tokens are booked
	error   string // part of what is logged; "" for no error
	client  int    // status that is logged
}

// ended checks that there was one call with one attempt, and how it ended.
// What every call gives back is checked by settle.
func (l *lab) ended(want ending) {
	l.t.Helper()
	entries := l.booked()
	if len(entries) != 1 {
		l.t.Fatalf("%d entries in the ledger: %+v", len(entries), entries)
	}
	e := entries[0]
	if e.Outcome != want.outcome || e.Rank != want.rank || e.Status != want.status || (e.Usage.Output > 0) != want.text {
		l.t.Errorf("booked %s, rank %d, status %d, %+v; want %+v", e.Outcome, e.Rank, e.Status, e.Usage, want)
	}
	if e.Outcome != ledger.Failed && e.Outcome != ledger.Refused && e.Usage.Input == 0 {
		l.t.Errorf("no input is booked: %+v", e)
	}
	if e.EndedAt.Before(e.StartedAt) || e.StartedAt.IsZero() || e.ID == "" || e.KeyID == "" || e.ProjectID == "" {
		l.t.Errorf("incomplete: %+v", e)
	}
	line := l.lines(1)[0]
	logged, _ := line["error"].(string)
	if (logged == "") != (want.error == "") || !strings.Contains(logged, want.error) || line["status"] != float64(want.client) ||
		line["outcome"] != string(want.outcome) || line["id"] != e.RequestID {
		l.t.Errorf("logged %v, want %+v", line, want)
	}
	if internal := strings.Contains(logged, "internal_error"); (line["level"] == "ERROR") != internal {
		l.t.Errorf("the level does not fit: %v", line)
	}
	l.up.Reset()
}

func TestEndWhole(t *testing.T) {
	f := func(model, more string, rank ledger.Rank) {
		t.Helper()
		l := newLab(t, labOptions{})
		key, _ := l.company("acme", tenant.KeyLive, nil)
		if a := l.chat(key, "up/"+model, more); a.status != 200 || a.err != nil {
			t.Errorf("%s", a)
		}
		l.ended(ending{outcome: ledger.Answered, rank: rank, status: 200, text: true, client: 200})
	}
	f("ok", "", ledger.Final)
	f("ok", streaming, ledger.Final)
	f("no-usage", "", ledger.Estimate)
	f("no-usage", streaming, ledger.Estimate)
	f("usage-with-finish", streaming, ledger.Final)
}

// TestEndDoneAtOnce: a client that leaves at [DONE] has its call booked in full.
func TestEndDoneAtOnce(t *testing.T) {
	l := newLab(t, labOptions{})
	key, _ := l.company("acme", tenant.KeyLive, nil)
	c := l.dial()
	c.send(rawChat(key, "up/ok", streaming))
	for line := ""; !strings.Contains(line, "[DONE]"); {
		var err error
		line, err = c.r.ReadString('\n')
		must(t, err)
	}
	c.reset()
	l.ended(ending{outcome: ledger.Answered, rank: ledger.Final, status: 200, text: true, client: 200})
}

// TestEndClientLeaves: whenever it does, the call is booked with what there is.
func TestEndClientLeaves(t *testing.T) {
	f := func(model, more string, events int, want ending) {
		t.Helper()
		l := newLab(t, labOptions{})
		key, _ := l.company("acme", tenant.KeyLive, nil)
		c := l.dial()
		c.send(rawChat(key, "up/"+model, more))
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
	f("slow-header", "", 0, ending{client: 499})
	f("slow-header", streaming, 0, ending{client: 499})
	f("silent", streaming, 2, ending{status: 200, text: true, client: 200})
	f("never-ending", streaming, 5, ending{status: 200, text: true, client: 200})
}

// TestEndStalledReader: a client that takes nothing is left.
func TestEndStalledReader(t *testing.T) {
	l := newLab(t, labOptions{settings: func(s *Settings) { s.WriteTimeout, s.Keepalive = 200*time.Millisecond, 10*time.Millisecond }})
	key, _ := l.company("acme", tenant.KeyLive, nil)
	c := l.dial()
	c.send(rawChat(key, "up/flood", streaming))
	must(t, l.up.WaitClosed(1, patience))
	l.ended(ending{outcome: ledger.Cancelled, rank: ledger.Estimate, status: 200, text: true, error: "client", client: 200})
}

// TestEndProvider: what the provider does wrong, in a stream. The client sees an
// event with the error, no [DONE] and no clean end of the body.
func TestEndProvider(t *testing.T) {
	f := func(model string, o labOptions, want ending, code string) {
		t.Helper()
		l := newLab(t, o)
		key, _ := l.company("acme", tenant.KeyLive, nil)
		a := l.chat(key, "up/"+model, streaming)
		if a.status != 200 || a.err == nil || strings.Contains(a.body, "[DONE]") || strings.Contains(a.body, "finish_reason\":\"stop") ||
			!strings.HasSuffix(a.body, `"code":"`+code+`"}}`+"\n\n") {
			t.Errorf("%s: the client got %s", model, a)
		}
		want.status, want.client, want.outcome, want.rank = 200, 200, ledger.Cut, ledger.Estimate
		l.ended(want)
		if n := l.up.Open(); n != 0 {
			t.Errorf("%s: %d requests are open at the provider", model, n)
		}
	}
	short := labOptions{timeouts: provider.Timeouts{Header: patience, Idle: 200 * time.Millisecond, Total: patience}}
	f("cut", labOptions{}, ending{text: true, error: "upstream_cut"}, "upstream_cut")
	f("cut-clean", labOptions{}, ending{text: true, error: "upstream_cut"}, "upstream_cut")
	f("error-mid", labOptions{}, ending{text: true, error: "upstream_error"}, "upstream_error")
	f("garbage-json", labOptions{}, ending{error: "upstream_garbage"}, "upstream_garbage")
	f("silent", short, ending{text: true, error: "upstream_timeout"}, "upstream_timeout")
	short.timeouts.Total = 300 * time.Millisecond
	f("never-ending", short, ending{text: true, error: "upstream_timeout"}, "upstream_timeout")
	f("huge-line", labOptions{settings: func(s *Settings) { s.MaxAnswer = 1 << 20 }}, ending{error: "upstream_garbage"}, "upstream_garbage")
}

// TestEndProviderPlain: the same without a stream.
func TestEndProviderPlain(t *testing.T) {
	f := func(model string, o labOptions, status int, code string, want ending) {
		t.Helper()
		l := newLab(t, o)
		key, _ := l.company("acme", tenant.KeyLive, nil)
		a := l.chat(key, model, "")
		if e := a.envelope(t); a.status != status || e.Code != code || a.err != nil {
			t.Errorf("%s: the client got %s", model, a)
		}
		want.client = status
		l.ended(want)
	}
	short := labOptions{timeouts: provider.Timeouts{Header: 200 * time.Millisecond, Idle: 200 * time.Millisecond, Total: patience}}
	cut := ending{outcome: ledger.Cut, rank: ledger.Estimate, status: 200, text: true}
	failed := ending{outcome: ledger.Failed, rank: ledger.Final}
	unknown := ending{outcome: ledger.Unknown, rank: ledger.Estimate}
	with := func(e ending, status int, err string) ending { e.status, e.error = status, err; return e }
	f("up/cut", labOptions{}, 502, "upstream_error", with(cut, 200, "upstream_error"))
	f("up/silent", short, 504, "upstream_timeout", with(cut, 200, "upstream_timeout"))
	f("up/garbage", labOptions{}, 502, "upstream_garbage", with(cut, 200, "upstream_garbage"))
	f("up/garbage-json", labOptions{}, 502, "upstream_garbage", with(cut, 200, "upstream_garbage"))
	f("up/cut-clean", labOptions{}, 502, "upstream_garbage", with(cut, 200, "upstream_garbage"))
	f("up/slow-header", short, 504, "upstream_timeout", with(unknown, 0, "upstream_timeout"))
	f("gone/ok", labOptions{}, 502, "upstream_error", with(failed, 0, "upstream_error"))
	f("up/huge-line", labOptions{settings: func(s *Settings) { s.MaxAnswer = 1 << 20 }}, 502, "upstream_garbage", with(cut, 200, "upstream_garbage"))
	refused := ending{outcome: ledger.Refused, rank: ledger.Final}
	f("up/status-503", labOptions{}, 503, "upstream_error", with(refused, 503, "upstream_error"))
	f("up/status-400", labOptions{}, 400, "upstream_error", with(refused, 400, "upstream_error"))
	f("up/redirect", labOptions{}, 502, "upstream_error", with(refused, 502, "upstream_error"))
}

// panicking is a provider whose answer brings the gateway down: its body panics
// after what is in it.
type panicking struct{ contentType, text string }

func (p panicking) RoundTrip(r *http.Request) (*http.Response, error) {
	if p.contentType == "" {
		panic("planted in the transport")
	}
	h := http.Header{"Content-Type": {p.contentType}}
	return &http.Response{StatusCode: 200, Header: h, Body: io.NopCloser(io.MultiReader(strings.NewReader(p.text), panicReader{}))}, nil
}

type panicReader struct{}

func (panicReader) Read([]byte) (int, error) { panic("planted in the body") }

// TestEndPanic: a panic ends the call like any other error, and not the process.
func TestEndPanic(t *testing.T) {
	f := func(p panicking, more string, want ending) {
		t.Helper()
		l := newLab(t, labOptions{sandbox: p})
		key, _ := l.company("acme", tenant.KeyLive, nil)
		a := l.chat(key, "sandbox/echo", more)
		if strings.Contains(a.body, "planted") || strings.Contains(a.body, ".go:") {
			t.Errorf("the client is told of the inside: %s", a)
		}
		switch {
		case more == "":
			if e := a.envelope(t); a.status != 500 || e.Code != "internal_error" || a.err != nil {
				t.Errorf("the client got %s", a)
			}
		case a.err == nil || strings.Contains(a.body, "[DONE]"):
			t.Errorf("the client got %s", a)
		}
		want.error = "internal_error: panic: planted"
		l.ended(want)
		// The gateway lives.
		if a := l.chat(key, "up/ok", ""); a.status != 200 {
			t.Errorf("afterwards: %s", a)
		}
	}
	f(panicking{}, "", ending{outcome: ledger.Unknown, rank: ledger.Estimate, client: 500})
	f(panicking{"application/json", "{"}, "", ending{outcome: ledger.Cut, rank: ledger.Estimate, status: 200, client: 500})
	event := `data: {"choices":[{"delta":{"content":"some text"}}]}` + "\n\n"
	f(panicking{"text/event-stream", event}, streaming, ending{outcome: ledger.Cut, rank: ledger.Estimate, status: 200, text: true, client: 200})
	f(panicking{"text/event-stream", ""}, streaming, ending{outcome: ledger.Cut, rank: ledger.Estimate, status: 200, client: 200})
}

// badLimiter panics where it is told to.
type badLimiter struct {
	limiter.Limiter
	atHold, atEnd bool
}

func (b *badLimiter) Hold(ctx context.Context, s tenant.Scope, a *limiter.Ask) (limiter.Hold, limiter.State, error) {
	if b.atHold {
		panic("planted in Hold")
	}
	h, st, err := b.Limiter.Hold(ctx, s, a)
	h.End(limiter.Used{})
	return limiter.NewHold(b, limiter.HoldID{}, h.Nano(), h.At()), st, err
}

func (b *badLimiter) Settle(limiter.HoldID, limiter.Used) {
	if b.atEnd {
		panic("planted in Settle")
	}
}
func (b *badLimiter) Release(limiter.HoldID) {}

// TestEndPanicAtTheEnd: even where a step of the end itself panics, the others
// are made, and the process lives.
func TestEndPanicAtTheEnd(t *testing.T) {
	f := func(b *badLimiter, more string) {
		t.Helper()
		l := newLab(t, labOptions{limiter: func(in limiter.Limiter) limiter.Limiter { b.Limiter = in; return b }})
		key, _ := l.company("acme", tenant.KeyLive, nil)
		resp, err := l.open(t.Context(), "POST", key, "/v1/chat/completions", chatBody("up/ok", more))
		if err == nil {
			readAnswer(resp)
		}
		l.settle() // nothing is left
		if !strings.Contains(l.logged.String(), "planted") {
			t.Errorf("nothing is logged:\n%s", &l.logged)
		}
		b.atHold, b.atEnd = false, false
		if a := l.chat(key, "up/ok", ""); a.status != 200 {
			t.Errorf("afterwards: %s", a)
		}
	}
	f(&badLimiter{atHold: true}, "")
	f(&badLimiter{atHold: true}, streaming)
	f(&badLimiter{atEnd: true}, "")
	f(&badLimiter{atEnd: true}, streaming)
}

// TestEndSuspended: what is under way for a suspended company ends at once, and
// for no other.
func TestEndSuspended(t *testing.T) {
	f := func(model, more string, status int, want ending) {
		t.Helper()
		l := newLab(t, labOptions{})
		key, s := l.company("acme", tenant.KeyLive, nil)
		_, other := l.company("globex", tenant.KeyLive, nil)
		got := make(chan answerGot, 1)
		c := l.dial()
		c.send(rawChat(key, "up/"+model, more))
		must(t, l.up.WaitRequests(1, patience))
		if more != "" {
			c.peekUntil("Hello") // the stream has begun
		}
		go func() { got <- c.answer() }()
		if n := l.g.EndCompany(other.ID().String()); n != 0 {
			t.Errorf("%d calls of another company were ended", n)
		}
		if n := l.g.EndCompany(s.ID().String()); n != 1 {
			t.Errorf("%d calls were ended", n)
		}
		a := <-got
		if a.status != status || !strings.Contains(a.body, `"code":"call_ended"`) || strings.Contains(a.body, "[DONE]") || (a.err == nil) != (more == "") {
			t.Errorf("the client got %s", a)
		}
		want.client, want.outcome, want.rank, want.error = status, ledger.Cancelled, ledger.Estimate, "call_ended"
		l.ended(want)
	}
	f("slow-header", "", 503, ending{})
	f("silent", streaming, 200, ending{status: 200, text: true})
}

// TestEndShutdown: at shutdown calls may end by themselves; what is left when
// time is over is told so.
func TestEndShutdown(t *testing.T) {
	l := newLab(t, labOptions{})
	key, _ := l.company("acme", tenant.KeyLive, nil)
	held, cut := make(chan answerGot, 1), make(chan answerGot, 1)
	go func() { held <- l.chat(key, "up/hold", "") }()
	must(t, l.up.WaitRequests(1, patience))
	go func() { cut <- l.chat(key, "up/never-ending", streaming) }()
	must(t, l.up.WaitRequests(2, patience))
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	down := make(chan error, 1)
	go func() { down <- l.g.Shutdown(ctx) }()
	eventually(t, "it is not ready any more", func() bool { return !l.g.ready.Load() })
	l.up.Release()
	if a := <-held; a.status != 200 || a.err != nil {
		t.Errorf("a call that ends in time: %s", a)
	}
	if a := <-cut; a.err == nil || !strings.Contains(a.body, `"code":"call_ended"`) || strings.Contains(a.body, "[DONE]") {
		t.Errorf("a stream that does not: %s", a)
	}
	if err := <-down; err != nil {
		t.Error(err)
	}
	if got := l.booked(); len(got) != 2 || got[0].Outcome != ledger.Answered || got[1].Outcome != ledger.Cancelled || got[1].Usage.Output == 0 {
		t.Errorf("booked %+v", got)
	}
	l.lines(2)
}

// TestEndRefused: what is refused before anything is sent leaves a line in the
// log and nothing in the ledger.
func TestEndRefused(t *testing.T) {
	l := newLab(t, labOptions{})
	key, s := l.company("acme", tenant.KeyLive, func(c *tenant.Company) { projectOf(c).Limits.TokensPerMinute = 5000 })
	adminKey, _ := l.world.AddKey(s, tenant.KeyAdmin, "")
	f := func(key, body string, status int, code string) {
		t.Helper()
		a := l.do("POST", key, "/v1/chat/completions", body)
		if e := a.envelope(t); a.status != status || e.Code != code {
			t.Errorf("%s", a)
		}
	}
	f("", chatBody("up/ok", ""), 401, "invalid_api_key")
	f("sk-bh-live-nonsense", chatBody("up/ok", ""), 401, "invalid_api_key")
	f(adminKey, chatBody("up/ok", ""), 403, "admin_key_not_allowed")
	f(key, `{"model":`, 400, "")
	f(key, chatBody("up", ""), 404, "model_not_found")
	f(key, chatBody("nobody/ok", ""), 404, "model_not_found")
	f(key, chatBody("up/ok", `,"max_tokens":100000`), 429, "rate_limit_exceeded")
	if got := l.booked(); len(got) != 0 || len(l.up.Requests()) != 0 {
		t.Errorf("booked %+v, sent %d", got, len(l.up.Requests()))
	}
	l.lines(7)
	if n := l.metric("bulkhead_rejections_total"); n != 7 {
		t.Errorf("%v rejections are counted", n)
	}
}

// TestEndLedgerFull: where a call could not be written down it is not made.
func TestEndLedgerFull(t *testing.T) {
	l := newLab(t, labOptions{ledger: ledger.Options{Queue: 1, CompanyQueue: 1}})
	key, _ := l.company("acme", tenant.KeyLive, nil)
	done := make(chan answerGot, 1)
	go func() { done <- l.chat(key, "up/hold", "") }()
	must(t, l.up.WaitRequests(1, patience))
	a := l.chat(key, "up/ok", "")
	if a.envelope(t); a.status != 503 || a.header.Get("Retry-After") == "" || len(l.up.Requests()) != 1 {
		t.Errorf("%s, and %d calls were sent", a, len(l.up.Requests()))
	}
	l.up.Release()
	if a := <-done; a.status != 200 {
		t.Errorf("%s", a)
	}
}

// TestEndBodyCutShort: a whole JSON text is not the whole body.
func TestEndBodyCutShort(t *testing.T) {
	f := func(size int) {
		t.Helper()
		l := newLab(t, labOptions{})
		key, _ := l.company("acme", tenant.KeyLive, nil)
		body := chatBody("up/ok", strings.Repeat(" ", size))
		c := l.dial()
		c.send(strings.Replace(rawRequest("POST", key, "/v1/chat/completions", body), "Content-Length: ", "Content-Length: 1", 1))
		must(t, c.tcp.CloseWrite())
		if a := c.answer(); a.status != 400 {
			a.envelope(t)
			t.Errorf("%s", a)
		}
		if n := len(l.up.Requests()); n != 0 {
			t.Error("a body that did not arrive was sent on")
		}
		if !c.closed() {
			t.Error("the connection is still open")
		}
	}
	f(0)
	f(40 << 10)
}
