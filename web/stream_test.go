package web

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"bulkhead/tenant"
	"bulkhead/test/upstream"
)

// TestStreamGolden shows byte for byte what a client gets of each stream, with
// and without stream_options.include_usage.
func TestStreamGolden(t *testing.T) {
	for _, model := range []string{
		"ok", "chunks-1", "tools", "no-usage", "usage-every-chunk", "usage-with-finish", "empty-choices-first", "comments",
		"crlf", "drip", "huge-line", "cut", "cut-clean", "error-mid", "garbage-json",
	} {
		t.Run(model, func(t *testing.T) {
			var b strings.Builder
			for _, more := range []string{streaming, streaming + `,"stream_options":{"include_usage":true}`} {
				if model == "tools" {
					more += `,"tools":[{"type":"function","function":{"name":"weather"}}]`
				}
				l := newLab(t, labOptions{})
				key, _ := l.company("acme", tenant.KeyLive, nil)
				a := l.chat(key, "up/"+model, more)
				fmt.Fprintf(&b, "# client: %s\n", more[1:])
				sent, _ := l.up.Last()
				fmt.Fprintf(&b, "# upstream: %s\n", sent.Body)
				end := "whole"
				if a.err != nil {
					end = "broken off"
				}
				fmt.Fprintf(&b, "# %d %s, %s\n%s\n", a.status, a.header.Get("Content-Type"), end, a.body)
			}
			golden(t, "stream/"+model, b.String())
		})
	}
}

var longRun = regexp.MustCompile(`x{100,}`)

// golden compares got with a file that a person can read.
func golden(t *testing.T, name, got string) {
	t.Helper()
	got = longRun.ReplaceAllStringFunc(got, func(s string) string { return fmt.Sprintf("<%d x>", len(s)) })
	got = strings.ReplaceAll(got, "\r", "<CR>")
	file := filepath.Join("testdata", name+".txt")
	if *update {
		must(t, os.MkdirAll(filepath.Dir(file), 0o755))
		must(t, os.WriteFile(file, []byte(got), 0o644))
		return
	}
	want, err := os.ReadFile(file)
	must(t, err)
	if got != string(want) {
		t.Errorf("%s differs (run with -update and look at the difference)\ngot:\n%s", file, got)
	}
}

// TestStreamBytes: what a client asked for passes as the provider wrote it, byte
// for byte, whatever form it has.
func TestStreamBytes(t *testing.T) {
	events := []string{
		`{"id":"1","choices":[{"index":0,"delta":{"role":"assistant","content":""}}],"n":12345678901234567890,"f":1e3}`,
		`{ "choices" : [ { "delta" : {"content":"\u2028 \ud83d\ude00 ` + "\u2028" + `"}, "index":0 } ] , "x":"a", "x":"b" }`,
		`{"choices":[{"index":0,"delta":{"reasoning_content":"hm"},"finish_reason":null}],"obfuscation":"aaaa"}`,
		`{"choices":[],"timings":{"predicted_ms":1.5}}`,
		`{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}`,
		`{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}`,
	}
	l := newLab(t, labOptions{})
	key, _ := l.company("acme", tenant.KeyLive, nil)
	l.up.Handle("bytes", func(c *upstream.Call) {
		c.StartStream()
		for _, e := range append(events, "[DONE]") {
			c.Event([]byte(e))
		}
	})
	want := func(n int) string {
		var b strings.Builder
		for _, e := range events[:n] {
			b.WriteString("data: " + e + "\n\n")
		}
		return b.String() + ": bulkhead cost_usd=0 attempts=1\n\ndata: [DONE]\n\n"
	}
	f := func(more string, n int) {
		t.Helper()
		if a := l.chat(key, "up/bytes", more); a.body != want(n) || a.err != nil {
			t.Errorf("%s: got\n%s\nwant\n%s", more, a.body, want(n))
		}
	}
	f(streaming, 5)
	f(streaming+`,"stream_options":{"include_usage":false}`, 5)
	f(streaming+`,"stream_options":{"include_usage":true}`, 6)
	for _, e := range l.booked() {
		if e.Usage.Input != 3 || e.Usage.Output != 2 {
			t.Errorf("booked %+v", e)
		}
	}
}

// TestUpstreamBody: the provider sees the client's body with the model renamed
// and usage asked for, and every other byte as it was.
func TestUpstreamBody(t *testing.T) {
	l := newLab(t, labOptions{})
	key, _ := l.company("acme", tenant.KeyLive, routeTo("up/ok"))
	f := func(in, want string) {
		t.Helper()
		if a := l.do("POST", key, "/v1/chat/completions", in); a.status != 200 {
			t.Fatalf("%s: %s", in, a)
		}
		if got, _ := l.up.Last(); string(got.Body) != want {
			t.Errorf("for %s\ngot  %s\nwant %s", in, got.Body, want)
		}
	}
	const odd = `"unknown": [1e3, 12345678901234567890, 1.50, {"b":1,"a":2}], "messages":[{"content":"\u2028é","role":"user"}], "tools":[]`
	// Not a stream: only the model.
	f(`{`+odd+`, "model" :  "best" }`, `{`+odd+`, "model" :  "ok" }`)
	f(`{"model":"up/ok",`+odd+`}`, `{"model":"ok",`+odd+`}`)
	// A stream: include_usage is added or set, other options stay.
	f(`{"model":"best","stream":true,`+odd+`}`, `{"model":"ok","stream":true,"stream_options":{"include_usage":true},`+odd+`}`)
	f(`{"stream_options":{"include_obfuscation":false},"model":"best","stream":true,`+odd+`}`,
		`{"stream_options":{"include_usage":true,"include_obfuscation":false},"model":"ok","stream":true,`+odd+`}`)
	f(`{"stream_options":{"include_usage":false},"model":"best","stream":true,`+odd+`}`,
		`{"stream_options":{"include_usage":true},"model":"ok","stream":true,`+odd+`}`)
	f(`{"stream_options":null,"model":"best","stream":true,`+odd+`}`,
		`{"stream_options":{"include_usage":true},"model":"ok","stream":true,`+odd+`}`)
	// Asked for already: untouched.
	f(`{"stream_options": {"include_usage" : true} ,"model":"best","stream":true,`+odd+`}`,
		`{"stream_options": {"include_usage" : true} ,"model":"ok","stream":true,`+odd+`}`)
	// A vendor that refuses stream_options is not sent any.
	f(`{"model":"mistral/ok","stream":true,`+odd+`}`, `{"model":"ok","stream":true,`+odd+`}`)
}

// TestUpstreamHeaders: of the client's headers only those on the list go on, and
// the provider's stay behind.
func TestUpstreamHeaders(t *testing.T) {
	l := newLab(t, labOptions{})
	key, _ := l.company("acme", tenant.KeyLive, nil)
	a := l.do("POST", key, "/v1/chat/completions", chatBody("up/ok", ""), "Cookie", "session=1", "OpenAI-Organization", "org-client",
		"OpenAI-Project", "proj-client", "X-Forwarded-For", "10.0.0.1", "X-Stainless-Lang", "python", "OpenAI-Beta", "assistants=v2",
		"Idempotency-Key", "idem-1", "X-Api-Key", "sk-other", "User-Agent", "OpenAI/Python", "Accept-Encoding", "gzip")
	sent, _ := l.up.Last()
	for _, name := range []string{"Cookie", "Openai-Organization", "Openai-Project", "X-Forwarded-For", "X-Stainless-Lang", "X-Api-Key"} {
		if v := sent.Header.Get(name); v != "" {
			t.Errorf("the provider was sent %s: %s", name, v)
		}
	}
	f := func(name, want string) {
		t.Helper()
		if got := sent.Header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	f("Authorization", "Bearer "+vendorSecret)
	f("Openai-Beta", "assistants=v2")
	f("Idempotency-Key", "idem-1")
	f("Accept-Encoding", "identity")
	f("X-Client-Request-Id", a.header.Get("X-Request-Id"))
	for name, v := range a.header {
		switch name {
		case "X-Request-Id", "Openai-Processing-Ms", "X-Bulkhead-Provider", "X-Bulkhead-Model", "X-Bulkhead-Overhead-Ms",
			"X-Bulkhead-Cost-Usd", "X-Bulkhead-Attempts", "Content-Type", "Content-Length", "Date":
		default:
			t.Errorf("an answer has the header %s: %s", name, v)
		}
	}
	if a.header.Get("X-Bulkhead-Provider") != "up" || a.header.Get("X-Bulkhead-Model") != "ok" || a.header.Get("X-Bulkhead-Attempts") != "1" ||
		!regexp.MustCompile(`^req_[0-9a-f]{32}$`).MatchString(a.header.Get("X-Request-Id")) ||
		!regexp.MustCompile(`^\d+\.\d{3}$`).MatchString(a.header.Get("X-Bulkhead-Overhead-Ms")) {
		t.Errorf("headers: %v", a.header)
	}
}

// TestAnswerBytes: an answer that is not a stream passes as it came.
func TestAnswerBytes(t *testing.T) {
	l := newLab(t, labOptions{})
	key, _ := l.company("acme", tenant.KeyLive, nil)
	want := []byte(`{ "id":"x", "n":12345678901234567890, "choices":[{"message":{"content":"\u2028é"}}], "a":1, "a":2,
		"usage":{"prompt_tokens":7,"completion_tokens":5,"total_tokens":12} }` + "\n")
	l.up.Handle("bytes", func(c *upstream.Call) {
		c.W.Header().Set("Content-Type", "application/json")
		_, _ = c.W.Write(want)
	})
	if a := l.chat(key, "up/bytes", ""); !bytes.Equal([]byte(a.body), want) || a.status != 200 {
		t.Errorf("got %s", a)
	}
	if e := l.booked()[0]; e.Usage.Input != 7 || e.Usage.Output != 5 {
		t.Errorf("booked %+v", e)
	}
}

// TestStreamKeepsUpstreamConnection: a stream that ended well leaves its
// connection to the provider for the next one.
func TestStreamKeepsUpstreamConnection(t *testing.T) {
	l := newLab(t, labOptions{})
	key, _ := l.company("acme", tenant.KeyLive, nil)
	var mu sync.Mutex
	remote := map[string]bool{}
	l.up.Handle("who", func(c *upstream.Call) {
		mu.Lock()
		remote[c.R.RemoteAddr] = true
		mu.Unlock()
		c.StartStream()
		c.Event([]byte(`{"choices":[{"delta":{"content":"x"},"finish_reason":"stop"}]}`))
		c.Event([]byte("[DONE]"))
		<-time.After(20 * time.Millisecond) // the end of the body is a packet of its own, and may be late
	})
	const calls = 10
	for range calls {
		l.chat(key, "up/who", streaming)
		l.settle()
		must(t, l.up.WaitIdle(patience))
	}
	mu.Lock()
	defer mu.Unlock()
	if len(remote) > 3 { // the next one may come before the end is seen
		t.Errorf("%d connections for %d streams, one after the other", len(remote), calls)
	}
}
