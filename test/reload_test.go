package test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"bulkhead/test/upstream"
)

// reload writes the configuration, asks for a reload and waits until it was
// done or refused.
func (p *process) reload(t *testing.T, config string, good bool) {
	t.Helper()
	p.configure(t, config)
	line := []byte(`"the configuration was reloaded"`)
	value := "1"
	if !good {
		line, value = []byte(`"the configuration was not reloaded; the old one stays"`), "0"
	}
	before := bytes.Count(p.log(t), line)
	p.signal(t, syscall.SIGHUP)
	eventually(t, 5*time.Second, "the reload is logged", func() bool { return bytes.Count(p.log(t), line) > before })
	metric := []byte("\nbulkhead_config_last_reload_successful " + value + "\n")
	if all := ask(t, http.MethodGet, p.OpsURL+"/metrics", "", nil).body; !bytes.Contains(all, metric) {
		t.Errorf("after the reload the metrics lack %q", metric)
	}
}

func TestReload(t *testing.T) {
	first, second := upstream.New(t), upstream.New(t)
	at := func(more string, rows ...string) string {
		return "log: {level: info}\n" + more + "providers:\n  " + strings.Join(rows, "\n  ") + "\n"
	}
	up := func(u *upstream.Server) string { return "up: {kind: custom, base_url: " + u.BaseURL() + "}" }
	added := "added: {kind: custom, base_url: " + second.BaseURL() + "}"
	g := prepare(t, at("", up(first)))
	p := g.serve(t)
	c := g.Demo
	g.setCredential(t, c, "up", upstreamSecret)
	g.chat(t, c.APIKey, "up/ok").want(t, "at first", http.StatusOK)

	// A provider that is not there has no credential and no model.
	credential := map[string]string{"provider": "added", "secret": upstreamSecret}
	ask(t, http.MethodPost, g.URL+"/v1/organization/credentials", c.AdminKey, credential).want(t, "a credential before the provider", http.StatusBadRequest)
	p.reload(t, at("", up(first), added), true)
	g.setCredential(t, c, "added", upstreamSecret)
	g.setRoute(t, c, "either", "added/ok", "up/ok")
	g.chat(t, c.APIKey, "added/ok").want(t, "the added provider", http.StatusOK)
	if len(second.Requests()) != 1 {
		t.Errorf("the added provider saw %d calls", len(second.Requests()))
	}

	// Moved: calls under way end where they began, the next one goes to the new place.
	held := make(chan answer, 1)
	go func() {
		a, _ := tryAsk(t.Context(), http.MethodPost, g.URL+"/v1/chat/completions", c.APIKey, chatBody("up/hold", "Hello"))
		held <- a
	}()
	if err := first.WaitRequests(2, 5*time.Second); err != nil {
		t.Fatal(err)
	}
	stream := g.openStream(t, c.APIKey, "up/never-ending")
	p.reload(t, at("", up(second), added), true)
	g.chat(t, c.APIKey, "up/ok").want(t, "the provider in its new place", http.StatusOK)
	if len(first.Requests()) != 3 || len(second.Requests()) != 2 {
		t.Errorf("after the move the upstreams saw %d and %d calls, want 3 and 2", len(first.Requests()), len(second.Requests()))
	}
	first.Release()
	if a := <-held; a.status != http.StatusOK {
		t.Errorf("the call under way ended with %d: %s", a.status, a.body)
	}
	b := make([]byte, 64)
	for range 5 { // the stream goes on
		if _, err := stream.Read(b); err != nil {
			t.Fatalf("the stream under way: %s", err)
		}
	}

	// Removed: its models are unknown, a route goes on with what is left.
	p.reload(t, at("", up(second)), true)
	g.chat(t, c.APIKey, "added/ok").want(t, "a provider that was removed", http.StatusNotFound)
	g.chat(t, c.APIKey, "either").want(t, "a route to it and another", http.StatusOK)

	// Limits of bodies, and what needs a restart.
	big := chatBody("up/ok", strings.Repeat("x", 4<<10))
	ask(t, http.MethodPost, g.URL+"/v1/chat/completions", c.APIKey, big).want(t, "a body below the limit", http.StatusOK)
	p.reload(t, at("max_body_bytes: 2KiB\ndemo: 'off'\n", up(second)), true)
	ask(t, http.MethodPost, g.URL+"/v1/chat/completions", c.APIKey, big).want(t, "a body above the new limit", http.StatusRequestEntityTooLarge)
	if !bytes.Contains(g.log(t), []byte(`"need_restart":["demo"]`)) {
		t.Error("the log does not say what needs a restart")
	}

	// Refused, in every way: the old one stays, whole.
	for _, broken := range []string{
		"providers: [", "no_such_key: 1\n", at("max_body_bytes: 1\n", up(first)), at("", "up: {kind: custom}"), at("", "sandbox: {kind: openai}"),
	} {
		p.reload(t, broken, false)
		seen := len(second.Requests())
		g.chat(t, c.APIKey, "up/ok").want(t, "with the old configuration", http.StatusOK)
		ask(t, http.MethodPost, g.URL+"/v1/chat/completions", c.APIKey, big).want(t, "the old limit", http.StatusRequestEntityTooLarge)
		if len(second.Requests()) != seen+1 {
			t.Error("the call did not go where the old configuration says")
		}
	}
	p.reload(t, at("", up(first)), true)
	ask(t, http.MethodPost, g.URL+"/v1/chat/completions", c.APIKey, big).want(t, "after it was put right", http.StatusOK)
}

func TestReloadLogLevel(t *testing.T) {
	g := prepare(t, "log: {level: info}\n")
	p := g.serve(t)
	lines := func() int { return bytes.Count(g.log(t), []byte(`"msg":"call"`)) }
	call := func() { g.chat(t, g.Demo.TestKey, "sandbox/echo").want(t, "a call", http.StatusOK) }
	call()
	eventually(t, 5*time.Second, "the call is logged", func() bool { return lines() == 1 })
	g.configure(t, "log: {level: error}\n")
	p.signal(t, syscall.SIGHUP)
	// At this level the reload itself says nothing either: a call does, or not.
	eventually(t, 5*time.Second, "calls are not logged any more", func() bool {
		before := lines()
		for range 5 {
			call()
		}
		return lines() == before
	})
	p.reload(t, "log: {level: debug}\n", true)
	before := lines()
	call()
	eventually(t, 5*time.Second, "calls are logged again", func() bool { return lines() > before })
}

// TestReloadUnderLoad reloads again and again while calls run. None fails.
func TestReloadUnderLoad(t *testing.T) {
	up := upstream.New(t)
	config := "providers:\n  up: {kind: custom, base_url: " + up.BaseURL() + "}\n"
	g := prepare(t, config)
	p := g.serve(t)
	g.setCredential(t, g.Demo, "up", upstreamSecret)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	done := make(chan struct{})
	var calls atomic.Int64
	var clients sync.WaitGroup
	for i := range 16 {
		clients.Go(func() {
			body := chatBody("up/chunks-20", "Hello")
			body["stream"] = i%2 == 0
			for {
				select {
				case <-done:
					return
				default:
				}
				a, err := tryAsk(ctx, http.MethodPost, g.URL+"/v1/chat/completions", g.Demo.APIKey, body)
				if err != nil || a.status != http.StatusOK || !bytes.Contains(a.body, []byte("c19 ")) {
					t.Errorf("a call failed in a reload: %v, status %d: %s", err, a.status, tail(a.body, 300))
					return
				}
				calls.Add(1)
			}
		})
	}
	for i := range 20 {
		seen := calls.Load()
		p.reload(t, config+fmt.Sprintf("max_body_bytes: %dKiB\n", 1000+i), true)
		eventually(t, 10*time.Second, "calls go on", func() bool { return calls.Load() > seen+20 || t.Failed() })
	}
	close(done)
	clients.Wait()
}
