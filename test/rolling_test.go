package test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"bulkhead/ledger"
	"bulkhead/test/scale"
	"bulkhead/test/upstream"
)

// gated teaches the upstream the model "gate": its stream begins, waits for
// open, and ends as a whole one.
func gated(up *upstream.Server) (open func()) {
	var mu sync.Mutex
	gate := make(chan struct{})
	up.Handle("gate", func(c *upstream.Call) {
		mu.Lock()
		wait := gate
		mu.Unlock()
		chunk := func(text, finish string) bool {
			return c.Event(fmt.Appendf(nil, `{"id":"c","object":"chat.completion.chunk","created":1,"model":"gate","choices":[{"index":0,"delta":{"content":%q},"finish_reason":%s}]}`, text, finish))
		}
		c.StartStream()
		chunk("before ", "null")
		select {
		case <-wait:
		case <-c.R.Context().Done():
			return
		}
		chunk("after", `"stop"`)
		c.Event([]byte(`{"id":"c","object":"chat.completion.chunk","created":1,"model":"gate","choices":[],"usage":{"prompt_tokens":10,"completion_tokens":2,"total_tokens":12}}`))
		c.Event([]byte("[DONE]"))
	})
	return func() {
		mu.Lock()
		defer mu.Unlock()
		close(gate)
		gate = make(chan struct{})
	}
}

// closed waits until g takes no connection any more.
func (g *gateway) closed(t *testing.T) {
	t.Helper()
	eventually(t, 20*time.Second, "connections are refused", func() bool {
		c, err := net.DialTimeout("tcp", strings.TrimPrefix(g.URL, "http://"), time.Second)
		if err == nil {
			_ = c.Close()
		}
		return err != nil
	})
}

// TestRollingRestart restarts each gateway in turn with traffic running: no
// client sees a call fail, streams end whole, and the ledger has everything.
func TestRollingRestart(t *testing.T) {
	s := scale.Of(t)
	f := newFleet(t, s, fleetOptions{env: []string{"BULKHEAD_SHUTDOWN_DELAY=1s"}}) // the default
	open := gated(f.up)
	tr := f.traffic(t, s, f.members...)
	tr.flows(t, 100)
	restarts := 0
	for range scale.Pick(s, 1, 20) {
		for i, g := range f.all {
			stream := g.openStream(t, f.members[i].APIKey, "up/gate")
			f.runs[i].signal(t, syscall.SIGTERM)
			g.closed(t)
			f.balancer.waitUp(t, i, false)
			tr.flows(t, 30)
			select {
			case <-f.runs[i].ended:
				t.Fatalf("gateway %d ended while a stream ran", i)
			default:
			}
			open()
			text, err := io.ReadAll(stream)
			if err != nil || !strings.Contains(string(text), "before ") || !strings.Contains(string(text), "after") || !strings.HasSuffix(string(text), "data: [DONE]\n\n") {
				t.Errorf("the stream under way did not end whole: %v in %s", err, text)
			}
			if code := f.runs[i].exit(t); code != 0 {
				t.Errorf("gateway %d ended with %d", i, code)
			}
			f.start(t, i)
			f.balancer.waitUp(t, i, true)
			tr.flows(t, 30)
			restarts++
		}
	}
	calls := tr.stop()
	s.Figure("restarts", restarts)
	s.Figure("calls_failed", none(t, calls, nil))
	f.account(t, s, calls, nil)
}

// saysClose makes a call that must be answered, and reports whether the answer
// says that its connection closes.
func (g *gateway) saysClose(t *testing.T, key string) bool {
	t.Helper()
	body := `{"model":"up/ok","messages":[{"role":"user","content":"Hello"}]}`
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, g.URL+"/v1/chat/completions", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+key)
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if text, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("status %d, %v: %s", resp.StatusCode, err, text)
	}
	return resp.Close
}

// TestDrain stops a gateway with a stream running: readiness fails first, then
// nobody new is let in, the stream ends whole, and so does the process.
func TestDrain(t *testing.T) {
	up := upstream.New(t)
	open := gated(up)
	g := prepare(t, "providers:\n  up: {kind: custom, base_url: "+up.BaseURL()+"}\n", "BULKHEAD_SHUTDOWN_DELAY=2s")
	p := g.serve(t)
	g.setCredential(t, g.Demo, "up", upstreamSecret)
	stream := g.openStream(t, g.Demo.APIKey, "up/gate")
	ready := func() int { return ask(t, http.MethodGet, g.OpsURL+"/readyz", "", nil).status }
	if ready() != http.StatusOK {
		t.Fatal("not ready")
	}
	if g.saysClose(t, g.Demo.APIKey) {
		t.Error("an answer says that its connection closes, and it need not")
	}
	p.signal(t, syscall.SIGTERM)
	eventually(t, 10*time.Second, "readiness fails", func() bool { return ready() == http.StatusServiceUnavailable })
	// Whoever has not heard of it yet is served, and told to go elsewhere.
	if !g.saysClose(t, g.Demo.APIKey) {
		t.Error("the answer does not say that the connection closes")
	}
	g.closed(t)
	if ready() != http.StatusServiceUnavailable {
		t.Error("the gateway that takes no calls says that it is ready")
	}
	open()
	text, err := io.ReadAll(stream)
	if err != nil || !strings.HasSuffix(string(text), "data: [DONE]\n\n") {
		t.Errorf("the stream under way did not end whole: %v in %s", err, text)
	}
	if code := p.exit(t); code != 0 {
		t.Errorf("the gateway ended with %d", code)
	}
	if rows := g.entries(t, g.Demo); len(rows) != 3 || slices.ContainsFunc(rows, func(e ledger.Entry) bool { return e.Outcome != ledger.Answered }) {
		t.Errorf("the ledger has %+v", rows)
	}
}

// TestDrainBounded stops a gateway with a stream and a call that do not end: they
// are ended when their time is over, which nobody can take for a whole answer,
// and billed for what came.
func TestDrainBounded(t *testing.T) {
	up := upstream.New(t)
	g := prepare(t, "shutdown_timeout: 1s\nproviders:\n  up: {kind: custom, base_url: "+up.BaseURL()+"}\n")
	p := g.serve(t)
	g.setCredential(t, g.Demo, "up", upstreamSecret)
	stream := g.openStream(t, g.Demo.APIKey, "up/never-ending")
	held := make(chan answer, 1)
	go func() {
		a, err := tryAsk(t.Context(), http.MethodPost, g.URL+"/v1/chat/completions", g.Demo.APIKey, chatBody("up/hold", "Hello"))
		if err != nil {
			a.status = -1
		}
		held <- a
	}()
	if err := up.WaitRequests(2, 10*time.Second); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	p.signal(t, syscall.SIGTERM)
	text, err := io.ReadAll(stream)
	if err == nil || strings.Contains(string(text), "[DONE]") || !strings.Contains(string(text), "call_ended") {
		t.Errorf("the stream was ended as a whole one, %v: %s", err, tail(text, 300))
	}
	if took := time.Since(begin); took < 900*time.Millisecond {
		t.Errorf("the stream had %s of the second it was given", took)
	}
	if a := <-held; a.status == http.StatusOK {
		t.Errorf("the call that was cut off was answered: %s", a.body)
	}
	if code := p.exit(t); code != 0 {
		t.Errorf("the gateway ended with %d", code)
	}
	rows := g.entries(t, g.Demo)
	if len(rows) != 2 {
		t.Fatalf("the ledger has %d rows, want 2", len(rows))
	}
	for _, r := range rows {
		if r.Rank != ledger.Estimate || r.Outcome != ledger.Cancelled || r.Usage.Input == 0 || r.Model == "never-ending" && r.Usage.Output == 0 {
			t.Errorf("the ledger has %+v", r)
		}
	}
}
