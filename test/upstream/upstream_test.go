package upstream

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"
)

const soon = 5 * time.Second

// post sends a chat request and returns the open answer.
func post(t *testing.T, ctx context.Context, s *Server, path, body string) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.BaseURL()+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer sk-canary")
	// No redirects, no kept connections: each call shows its own.
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		t.Fatalf("cannot call %s: %s", path, err)
	}
	t.Cleanup(func() { _ = resp.Body.Close() })
	return resp
}

func chatBody(model, more string) string {
	return fmt.Sprintf(`{"model":%q,"messages":[{"role":"user","content":"hi"}]%s}`, model, more)
}

// events are the data lines of a stream, and how the body ended.
func events(r io.Reader) (data []string, err error) {
	br := bufio.NewReaderSize(r, 4<<20)
	for {
		line, err := br.ReadString('\n')
		if d, ok := strings.CutPrefix(line, "data: "); ok {
			data = append(data, strings.TrimRight(d, "\r\n"))
		}
		if errors.Is(err, io.EOF) {
			return data, nil
		}
		if err != nil {
			return data, err
		}
	}
}

func TestJSON(t *testing.T) {
	s := New(t)
	f := func(path, body string, status int, want ...string) {
		t.Helper()
		resp := post(t, t.Context(), s, path, body)
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatalf("%s: cannot read: %s", body, err)
		}
		if resp.StatusCode != status {
			t.Errorf("%s: status %d, want %d", body, resp.StatusCode, status)
		}
		for _, w := range want {
			if !strings.Contains(string(b), w) {
				t.Errorf("%s: %q is not in %.300s", body, w, b)
			}
		}
	}
	f("/chat/completions", chatBody("ok", ""), 200, `"content":"Hello from the upstream"`, `"completion_tokens":4`, `"total_tokens":14`)
	// n multiplies, max_tokens cuts
	f("/chat/completions", chatBody("ok", `,"n":2,"max_tokens":3`), 200, `"completion_tokens":6`, `"finish_reason":"length"`, `"index":1`)
	f("/chat/completions", chatBody("chunks-50", ""), 200, `c49 `, `"completion_tokens":50`)
	f("/chat/completions", chatBody("tools", `,"tools":[{"type":"function","function":{"name":"weather"}}]`), 200,
		`"name":"weather"`, `"arguments":"{\"city\":\"Paris\"}"`, `"finish_reason":"tool_calls"`)
	f("/completions", `{"model":"ok","prompt":"hi"}`, 200, `"object":"text_completion"`, `"text":"Hello from the upstream"`)
	f("/moderations", `{"model":"m","input":["a","b"]}`, 200, `"flagged":false`)
	f("/embeddings", `{"model":"ok","input":[1,2,3]}`, 200, `[0.0625,0.125,`, `"prompt_tokens":5`)
	f("/embeddings", `{"model":"ok","input":["a","b"],"dimensions":2,"encoding_format":"base64"}`, 200,
		`"`+base64.StdEncoding.EncodeToString(littleEndian(Embedding(1, 2)))+`"`, `"prompt_tokens":10`)
	f("/embeddings", `{"model":"float-embeddings","input":"a","encoding_format":"base64"}`, 200, `[0.0625,`)
	f("/chat/completions", chatBody("status-429", ""), 429, `"type":"requests"`, `"param":null`)
	f("/chat/completions", chatBody("status-401", ""), 401, `"type":"authentication_error"`)
	f("/chat/completions", chatBody("echo-key", ""), 400, "Bearer sk-canary")
	f("/chat/completions", chatBody("garbage", ""), 200, "<!DOCTYPE html>")
	f("/chat/completions", chatBody("garbage-json", ""), 200, "[nope")
	f("/chat/completions", chatBody("redirect", ""), 302)
	f("/chat/completions", chatBody("drip", ""), 200, `"content":"Hello from the upstream"`)
	f("/embeddings", `{"model":"fail-once:a","input":"x"}`, 500, "server_error")
	f("/embeddings", `{"model":"fail-once:a","input":"x"}`, 200, `"embedding"`)
	// not a JSON object; unknown path
	f("/chat/completions", `[]`, 400, "not a JSON object")
	f("/nowhere", `{}`, 404, `"code":null`)
}

func TestStream(t *testing.T) {
	s := New(t)
	const usageAsked = `,"stream":true,"stream_options":{"include_usage":true}`
	// text is what the content deltas add up to, usages how many chunks have a usage that is not null
	f := func(model, more, text string, chunks, usages int) {
		t.Helper()
		resp := post(t, t.Context(), s, "/chat/completions", chatBody(model, more))
		data, err := events(resp.Body)
		if err != nil {
			t.Fatalf("%s: %s", model, err)
		}
		if len(data) == 0 || data[len(data)-1] != "[DONE]" {
			t.Fatalf("%s: does not end in [DONE]: %q", model, data)
		}
		if len(data)-1 != chunks {
			t.Errorf("%s: %d chunks, want %d", model, len(data)-1, chunks)
		}
		got, used := "", 0
		for _, d := range data[:len(data)-1] {
			var chunk struct {
				Choices []struct{ Delta struct{ Content string } }
				Usage   *struct{}
			}
			if err := json.Unmarshal([]byte(d), &chunk); err != nil {
				t.Fatalf("%s: %q: %s", model, d, err)
			}
			if chunk.Usage != nil {
				used++
			}
			for _, ch := range chunk.Choices {
				got += ch.Delta.Content
			}
		}
		if got != text || used != usages {
			t.Errorf("%s: text %.60q, %d usages; want %.60q, %d", model, got, used, text, usages)
		}
	}
	const hello = "Hello from the upstream"
	f("ok", `,"stream":true`, hello, 6, 0)
	f("ok", usageAsked, hello, 7, 1)
	f("no-usage", usageAsked, hello, 6, 0)
	f("usage-every-chunk", `,"stream":true`, hello, 7, 1)
	f("usage-with-finish", `,"stream":true`, hello, 6, 1)
	f("empty-choices-first", `,"stream":true`, hello, 7, 0)
	f("comments", `,"stream":true`, hello, 6, 0)
	f("crlf", `,"stream":true`, hello, 6, 0)
	f("drip", `,"stream":true`, hello, 6, 0)
	f("huge-line", `,"stream":true`, filler(hugeLine), 3, 0)
	f("tools", `,"stream":true,"tools":[{"function":{"name":"weather"}}]`, "", 5, 0)

	// the forms on the wire
	raw := func(model string) string {
		b, _ := io.ReadAll(post(t, t.Context(), s, "/chat/completions", chatBody(model, `,"stream":true`)).Body)
		return string(b)
	}
	if got := raw("crlf"); !strings.HasSuffix(got, "data: [DONE]\r\n\r\n") {
		t.Errorf("crlf ends in %q", got[len(got)-20:])
	}
	if got := raw("comments"); !strings.Contains(got, ": keepalive\n\n") {
		t.Errorf("no comment in %q", got)
	}
	if got := raw("usage-every-chunk"); strings.Count(got, `"usage":null`) != 6 {
		t.Errorf("not 6 null usages in %s", got)
	}
}

func TestBrokenStream(t *testing.T) {
	s := New(t)
	f := func(model string, aborted bool, last string) {
		t.Helper()
		data, err := events(post(t, t.Context(), s, "/chat/completions", chatBody(model, `,"stream":true`)).Body)
		if (err != nil) != aborted {
			t.Errorf("%s: ended with %v, aborted should be %t", model, err, aborted)
		}
		if len(data) == 0 || !strings.Contains(data[len(data)-1], last) {
			t.Errorf("%s: last event of %q has no %q", model, data, last)
		}
	}
	f("cut", true, " from")
	f("cut-clean", false, " from")
	f("error-mid", false, `"error":{`)
	// without a stream the body is short
	_, err := io.ReadAll(post(t, t.Context(), s, "/chat/completions", chatBody("cut", "")).Body)
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a cut body ended with %v", err)
	}
	if n := countClosed(s.Requests()); n != 0 {
		t.Errorf("%d requests count as closed by a client that left none", n)
	}
}

func TestClientLeaves(t *testing.T) {
	s := New(t)
	f := func(n int, model string, events int) {
		t.Helper()
		ctx, cancel := context.WithCancel(t.Context())
		gone := make(chan struct{})
		go func() {
			defer close(gone)
			req, _ := http.NewRequestWithContext(ctx, http.MethodPost, s.BaseURL()+"/chat/completions", strings.NewReader(chatBody(model, `,"stream":true`)))
			resp, err := http.DefaultTransport.RoundTrip(req)
			if err == nil {
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
			}
		}()
		if err := s.WaitRequests(n, soon); err != nil {
			t.Fatalf("%s: %s", model, err)
		}
		if err := s.WaitEvents(events, soon); err != nil {
			t.Fatalf("%s: %s", model, err)
		}
		if got := s.Open(); got != 1 {
			t.Errorf("%s: %d open, want 1", model, got)
		}
		cancel()
		<-gone
		if err := s.WaitClosed(n, soon); err != nil {
			t.Fatalf("%s: %s", model, err)
		}
		if err := s.WaitIdle(soon); err != nil {
			t.Fatalf("%s: %s", model, err)
		}
	}
	f(1, "slow-header", 0)
	f(2, "silent", 2)
	f(3, "never-ending", 3)
	f(4, "flood", 3)
	f(5, "hold", 0)
}

func TestWaitTimesOut(t *testing.T) {
	s := New(t)
	if err := s.WaitClosed(1, time.Millisecond); err == nil {
		t.Fatal("nothing was closed, yet WaitClosed found it")
	}
}

func TestHoldAndHandle(t *testing.T) {
	s := New(t)
	s.Handle("mine", func(c *Call) { c.Error(418, "a teapot: "+string(c.Body), "teapot") })
	resp := post(t, t.Context(), s, "/chat/completions", chatBody("mine", ""))
	if resp.StatusCode != 418 {
		t.Errorf("a script answered %d", resp.StatusCode)
	}
	status := make(chan int)
	client := &http.Client{Timeout: soon}
	go func() {
		resp, err := client.Post(s.BaseURL()+"/chat/completions", "application/json", strings.NewReader(chatBody("hold", "")))
		if err != nil {
			status <- 0
			return
		}
		_ = resp.Body.Close()
		status <- resp.StatusCode
	}()
	if err := s.WaitRequests(2, soon); err != nil {
		t.Fatal(err)
	}
	if got := s.Open(); got != 1 {
		t.Errorf("%d open while held, want 1", got)
	}
	s.Release()
	if got := <-status; got != 200 {
		t.Errorf("after Release: status %d", got)
	}
}

func TestRecordAndControl(t *testing.T) {
	s := New(t)
	if _, ok := s.Last(); ok {
		t.Error("a new server has a last request")
	}
	body := chatBody("ok", `,"x":12345678901234567890`)
	resp := post(t, t.Context(), s, "/chat/completions?a=1", body)
	if got := resp.Header.Get("X-Request-Id"); got != "req_upstream_1" {
		t.Errorf("request id %q", got)
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	if err := s.WaitIdle(soon); err != nil {
		t.Fatal(err)
	}
	last, _ := s.Last()
	want := []any{"POST", "/v1/chat/completions", "a=1", body, "ok", "Bearer sk-canary", true}
	got := []any{last.Method, last.Path, last.Query, string(last.Body), last.Model, last.Header.Get("Authorization"), last.Ended}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("recorded %q, want %q", got, want)
	}

	get := func(path string) string {
		resp, err := http.Get(s.URL() + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		return string(b)
	}
	if got := get("/_open"); got != `{"closed":0,"open":0,"requests":1}` {
		t.Errorf("/_open is %s", got)
	}
	if got := get("/_requests"); !strings.Contains(got, `"model":"ok"`) || !strings.Contains(got, `Bearer sk-canary`) {
		t.Errorf("/_requests is %s", got)
	}
	s.Reset()
	if got := get("/_requests"); got != `[]` {
		t.Errorf("after Reset /_requests is %s", got)
	}
	// an Azure path names the model
	post(t, t.Context(), s, "/openai/deployments/gpt-x/chat/completions", `{"messages":[]}`)
	if last, _ := s.Last(); last.Model != "gpt-x" {
		t.Errorf("the deployment's model is %q", last.Model)
	}
	if got := get("/v1/models/a%2Fb"); !strings.Contains(got, `"id":"a/b"`) {
		t.Errorf("/v1/models/a/b is %s", got)
	}
}
