package test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"bulkhead/test/servers"
	"bulkhead/test/upstream"
)

// tryKeyed is tryAsk for a chat call with an Idempotency-Key.
func tryKeyed(ctx context.Context, g *gateway, key, idempotency string, body map[string]any) (answer, error) {
	b, err := json.Marshal(body)
	if err != nil {
		return answer{}, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, g.URL+"/v1/chat/completions", bytes.NewReader(b))
	if err != nil {
		return answer{}, err
	}
	req.Header.Set("Authorization", "Bearer "+key)
	req.Header.Set("Idempotency-Key", idempotency)
	resp, err := client.Do(req)
	if err != nil {
		return answer{}, err
	}
	text, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, text}, errors.Join(err, resp.Body.Close())
}

func keyed(t *testing.T, g *gateway, key, idempotency string, body map[string]any) answer {
	t.Helper()
	a, err := tryKeyed(t.Context(), g, key, idempotency, body)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// sameAgain checks that an answer is the one there was, of a call that is not made
// again.
func sameAgain(t *testing.T, first, again answer) {
	t.Helper()
	if first.status != http.StatusOK || again.status != first.status || !bytes.Equal(first.body, again.body) || again.header.Get("X-Bulkhead-Idempotent-Replay") != "true" ||
		again.header.Get("X-Bulkhead-Cost-Usd") != first.header.Get("X-Bulkhead-Cost-Usd") {
		t.Errorf("it is not the same answer:\n%d %v %s\n%d %v %s", first.status, first.header, first.body, again.status, again.header, again.body)
	}
}

// seen counts the calls of a model that the provider saw.
func seen(up *upstream.Server, model string) (n int) {
	for _, r := range up.Requests() {
		if r.Model == model {
			n++
		}
	}
	return n
}

// TestIdempotencyKill: what is kept survives kill -9, and a call of which nobody
// knows what came of it is not made again.
func TestIdempotencyKill(t *testing.T) {
	up := upstream.New(t)
	g := prepare(t, "providers:\n  up: {kind: custom, base_url: "+up.BaseURL()+"}\n")
	p := g.serve(t)
	c := g.Demo
	g.setCredential(t, c, "up", upstreamSecret)
	stream := chatBody("up/ok", "Hi")
	stream["stream"] = true
	first := keyed(t, g, c.APIKey, "plain", chatBody("up/ok", "Hi"))
	streamed := keyed(t, g, c.APIKey, "stream", stream)
	sandbox := keyed(t, g, c.TestKey, "plain", chatBody("sandbox/echo", "Hi"))
	running := make(chan error, 1)
	go func() {
		_, err := tryKeyed(t.Context(), g, c.APIKey, "lost", chatBody("up/hold", "Hi"))
		running <- err
	}()
	if err := up.WaitRequests(3, 10*time.Second); err != nil {
		t.Fatal(err)
	}
	if a := keyed(t, g, c.APIKey, "lost", chatBody("up/hold", "Hi")); a.status != http.StatusConflict || a.header.Get("Retry-After") == "" {
		t.Errorf("while it runs: %d %s", a.status, a.body)
	}
	p.kill(t)
	if <-running == nil {
		t.Error("the call of a dead gateway ended well")
	}
	g.serve(t)
	for range 2 {
		sameAgain(t, first, keyed(t, g, c.APIKey, "plain", chatBody("up/ok", "Hi")))
		sameAgain(t, streamed, keyed(t, g, c.APIKey, "stream", stream))
		sameAgain(t, sandbox, keyed(t, g, c.TestKey, "plain", chatBody("sandbox/echo", "Hi")))
		a := keyed(t, g, c.APIKey, "lost", chatBody("up/hold", "Hi"))
		if code, _ := a.fault(); a.status != http.StatusConflict || code != "idempotency_outcome_unknown" || a.header.Get("X-Should-Retry") != "false" {
			t.Errorf("after its gateway died: %d %s", a.status, a.body)
		}
	}
	if ok, hold := seen(up, "ok"), seen(up, "hold"); ok != 2 || hold != 1 {
		t.Errorf("%d and %d calls were made", ok, hold)
	}
}

// TestIdempotencyFleet: three gateways over PostgreSQL and Redis make one call of
// many with the same key, also when the one that makes it dies, and when Redis loses
// all it has.
func TestIdempotencyFleet(t *testing.T) {
	server := servers.Start(t, "redis")
	f := newFleet(t, nil, fleetOptions{config: "budgets: {lease: 5s}\n", env: []string{"BULKHEAD_REDIS_URL=" + server.Var("REDIS_URL")}})
	m := f.members[0]
	eventually(t, time.Minute, "calls are taken everywhere", func() bool {
		for _, g := range f.all {
			if g.chat(t, m.APIKey, "up/ok").status != http.StatusOK {
				return false
			}
		}
		return true
	})
	before := seen(f.up, "ok")
	var mu sync.Mutex
	var same []answer
	var wg sync.WaitGroup
	for i := range 30 {
		wg.Go(func() {
			a, err := tryKeyed(t.Context(), f.all[i%3], m.APIKey, "race", chatBody("up/ok", "Hi"))
			code, _ := a.fault()
			switch {
			case err != nil:
				t.Error(err)
			case a.status == http.StatusOK:
				mu.Lock()
				same = append(same, a)
				mu.Unlock()
			case a.status != http.StatusConflict || code != "idempotency_in_progress" || a.header.Get("Retry-After") == "":
				t.Errorf("%d %s", a.status, a.body)
			}
		})
	}
	wg.Wait()
	if n := seen(f.up, "ok") - before; n != 1 || len(same) == 0 {
		t.Fatalf("%d calls were made, and %d answered", n, len(same))
	}
	for _, a := range same {
		if !bytes.Equal(a.body, same[0].body) {
			t.Errorf("two answers:\n%s\n%s", a.body, same[0].body)
		}
	}
	// At another company the key is free.
	if a := keyed(t, f.all[0], f.members[1].APIKey, "race", chatBody("up/ok", "Hi")); a.status != http.StatusOK || a.header.Get("X-Bulkhead-Idempotent-Replay") != "" {
		t.Errorf("at another company: %d %v", a.status, a.header)
	}

	go func() { _, _ = tryKeyed(t.Context(), f.all[0], m.APIKey, "lost", chatBody("up/hold", "Hi")) }()
	eventually(t, 10*time.Second, "the call is made", func() bool { return seen(f.up, "hold") == 1 })
	lost := func(i int) string {
		t.Helper()
		a := keyed(t, f.all[i], m.APIKey, "lost", chatBody("up/hold", "Hi"))
		code, _ := a.fault()
		return code
	}
	if code := lost(1); code != "idempotency_in_progress" {
		t.Errorf("while it runs: %q", code)
	}
	redisDo(t, server.Var("REDIS_URL"), "FLUSHALL")
	eventually(t, time.Minute, "the company is open again", func() bool {
		code := lost(1)
		if code != "idempotency_in_progress" && code != "unavailable" {
			t.Fatalf("after a flush: %q", code)
		}
		return code == "idempotency_in_progress"
	})
	f.runs[0].kill(t)
	eventually(t, time.Minute, "the lease ends", func() bool {
		code := lost(1)
		if code != "idempotency_in_progress" && code != "unavailable" && code != "idempotency_outcome_unknown" {
			t.Fatalf("after its gateway died: %q", code)
		}
		return code == "idempotency_outcome_unknown"
	})
	if code := lost(2); code != "idempotency_outcome_unknown" {
		t.Errorf("at the third gateway: %q", code)
	}
	for _, g := range f.all[1:] {
		again := keyed(t, g, m.APIKey, "race", chatBody("up/ok", "Hi"))
		again.header.Set("X-Bulkhead-Cost-Usd", same[0].header.Get("X-Bulkhead-Cost-Usd"))
		if again.header.Get("X-Bulkhead-Idempotent-Replay") != "true" || !bytes.Equal(again.body, same[0].body) {
			t.Errorf("after all that: %d %v %s", again.status, again.header, again.body)
		}
	}
	if n := seen(f.up, "hold"); n != 1 {
		t.Errorf("%d calls were made", n)
	}
	if logs := string(f.all[1].log(t)); strings.Contains(logs, "not_kept") {
		t.Errorf("something could not be kept: %s", logs)
	}
}
