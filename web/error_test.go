package web

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/valyala/fasthttp"

	"bulkhead/fault"
	"bulkhead/tenant"
	"bulkhead/test/upstream"
)

// TestErrorTable: what a client is told of each kind of fault.
func TestErrorTable(t *testing.T) {
	f := func(err error, status int, typ, code, header string) {
		t.Helper()
		var rc fasthttp.RequestCtx
		writeError(&rc, err)
		var v struct {
			Error struct {
				Message, Type string
				Param, Code   *string
			}
		}
		if e := json.Unmarshal(rc.Response.Body(), &v); e != nil {
			t.Fatal(e)
		}
		got := ""
		if v.Error.Code != nil {
			got = *v.Error.Code
		}
		if rc.Response.StatusCode() != status || v.Error.Type != typ || got != code || v.Error.Message == "" {
			t.Errorf("%v: %d %s", err, rc.Response.StatusCode(), rc.Response.Body())
		}
		told := ""
		for _, name := range []string{"Retry-After", "Retry-After-Ms", "X-Should-Retry", "WWW-Authenticate"} {
			if h := rc.Response.Header.Peek(name); len(h) > 0 {
				told += name + ": " + string(h) + ";"
			}
		}
		if told != header {
			t.Errorf("%v: headers %q, want %q", err, told, header)
		}
	}
	const invalid, server = "invalid_request_error", "server_error"
	f(errors.New("secret inside"), 500, server, "internal_error", "")
	f(fault.New(fault.Internal, "x"), 500, server, "internal_error", "")
	f(fault.New(fault.Invalid, "x"), 400, invalid, "", "")
	f(fault.New(fault.Unauthenticated, "x"), 401, invalid, "invalid_api_key", "WWW-Authenticate: Bearer;")
	f(fault.New(fault.Forbidden, "x"), 403, invalid, "forbidden", "")
	f(fault.New(fault.NotFound, "x"), 404, invalid, "not_found", "")
	f(fault.New(fault.NotFound, "x").WithCode("model_not_found"), 404, invalid, "model_not_found", "")
	f(fault.New(fault.MethodNotAllowed, "x"), 405, invalid, "method_not_allowed", "")
	f(fault.New(fault.RequestTimeout, "x"), 408, invalid, "request_timeout", "")
	f(fault.New(fault.Conflict, "x"), 409, invalid, "conflict", "")
	f(fault.New(fault.TooLarge, "x"), 413, invalid, "request_too_large", "")
	f(fault.New(fault.HeaderTooLarge, "x"), 431, invalid, "request_header_too_large", "")
	f(fault.New(fault.RateLimited, "x"), 429, "requests", "rate_limit_exceeded", "")
	f(&fault.Error{Kind: fault.RateLimited, Message: "x", Type: "tokens", RetryAfter: 1500*time.Millisecond + time.Microsecond}, 429, "tokens", "rate_limit_exceeded",
		"Retry-After: 2;Retry-After-Ms: 1501;")
	f(&fault.Error{Kind: fault.OverBudget, Message: "x", NoRetry: true}, 429, "insufficient_quota", "insufficient_quota", "X-Should-Retry: false;")
	f(fault.New(fault.Upstream, "x"), 502, server, "upstream_error", "")
	f(&fault.Error{Kind: fault.Upstream, Message: "x", Status: 422}, 422, invalid, "upstream_error", "")
	f(&fault.Error{Kind: fault.Upstream, Message: "x", Status: 529, RetryAfter: time.Minute}, 529, server, "upstream_error", "Retry-After: 60;Retry-After-Ms: 60000;")
	f(&fault.Error{Kind: fault.Upstream, Message: "x", Status: 302}, 502, server, "upstream_error", "")
	f(&fault.Error{Kind: fault.Upstream, Message: "x", Status: 999}, 502, server, "upstream_error", "")
	f(fault.New(fault.Unavailable, "x"), 503, server, "unavailable", "")
	f(fault.New(fault.Timeout, "x"), 504, server, "upstream_timeout", "")
	f(fault.New(fault.ClientLeft, "x"), 499, invalid, "client_closed_request", "")
	for kind, a := range answers {
		if a.status < 400 || a.typ == "" {
			t.Errorf("kind %d has no answer", kind)
		}
	}
}

// TestErrorsOfProviders: status and wait are the provider's own.
func TestErrorsOfProviders(t *testing.T) {
	l := newLab(t, labOptions{})
	key, _ := l.company("acme", tenant.KeyLive, nil)
	f := func(model string, status int, code, retry string) {
		t.Helper()
		for _, more := range []string{"", streaming} {
			a := l.chat(key, "up/"+model, more)
			if e := a.envelope(t); a.status != status || e.Code != code || a.header.Get("Retry-After") != retry || a.err != nil {
				t.Errorf("%s: %s", model, a)
			}
			if a.header.Get("Set-Cookie") != "" || a.header.Get("Openai-Organization") != "" || a.header.Get("Location") != "" {
				t.Errorf("%s: the provider's headers came through: %v", model, a.header)
			}
		}
	}
	f("status-400", 400, "upstream_error", "")
	f("status-401", 401, "provider_authentication_failed", "")
	f("status-403", 403, "provider_authentication_failed", "")
	f("status-404", 404, "upstream_error", "")
	f("status-418", 418, "upstream_error", "")
	f("status-429", 429, "upstream_error", "1")
	f("status-500", 500, "upstream_error", "")
	f("status-503", 503, "upstream_error", "")
	f("status-599", 599, "upstream_error", "")
	f("redirect", 502, "upstream_error", "")
	f("garbage", 502, "upstream_garbage", "")
	if a := l.chat(key, "gone/ok", ""); a.status != 502 || strings.Contains(a.body, "127.0.0.1") || strings.Contains(a.body, "refused") {
		t.Errorf("%s", a)
	}
}

// TestInternalErrorsTellNothing: what goes wrong inside is for the log.
func TestInternalErrorsTellNothing(t *testing.T) {
	l := newLab(t, labOptions{})
	_, s := l.company("acme", tenant.KeyLive, nil)
	unseen, _ := l.world.AddKey(s, tenant.KeyLive, s.ProjectID())
	l.world.Fail(errors.New("cannot reach db.internal as user root"))
	a := l.chat(unseen, "up/ok", "")
	if a.envelope(t); a.status < 500 || strings.Contains(a.body, "db.internal") || strings.Contains(a.body, "root") {
		t.Errorf("%s", a)
	}
	if !strings.Contains(l.logged.String(), "db.internal") {
		t.Errorf("the log does not say what happened: %s", &l.logged)
	}
}

// TestCanaries: no text of a prompt or an answer, no key and no credential is in
// the log, the metrics, or an error that a client gets.
func TestCanaries(t *testing.T) {
	const answerCanary = "CANARYANSWER"
	raw := rawUpstream(t, answerCanary+"\r\n\r\n") // no status line
	l := newLab(t, labOptions{gone: raw})
	key, s := l.company("acme", tenant.KeyLive, routeTo("up/status-500", "up/canary"))
	adminKey, _ := l.world.AddKey(s, tenant.KeyAdmin, "")
	quote := func(c *upstream.Call) []byte {
		b, _ := json.Marshal(map[string]any{"error": map[string]any{"message": "m " + c.R.Header.Get("Authorization"), "type": "t " + promptCanary,
			"param": c.R.Header.Get("Authorization"), "code": "c " + promptCanary}})
		return b
	}
	l.up.Handle("canary", func(c *upstream.Call) {
		text := `{"index":0,"finish_reason":"stop","delta":{"content":"` + answerCanary + `"},"message":{"content":"` + answerCanary + `"}}`
		if c.Stream {
			c.StartStream()
			c.Event([]byte(`{"choices":[` + text + `]}`))
			c.Event([]byte("[DONE]"))
			return
		}
		c.W.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(c.W, `{"choices":[`+text+`]}`)
	})
	l.up.Handle("quotes", func(c *upstream.Call) {
		c.W.Header().Set("Content-Type", "application/json")
		c.W.WriteHeader(http.StatusBadRequest)
		_, _ = c.W.Write(quote(c))
	})
	l.up.Handle("quotes-mid", func(c *upstream.Call) {
		c.StartStream()
		c.Event([]byte(`{"choices":[{"delta":{"content":"` + answerCanary + `"}}]}`))
		c.Event(quote(c))
	})
	l.up.Handle("broken", func(c *upstream.Call) {
		if c.Stream {
			c.StartStream()
		} else {
			c.W.Header().Set("Content-Type", "application/json")
		}
		_, _ = io.WriteString(c.W, "data: {\"choices\": \""+answerCanary+"\" "+answerCanary+"\n\n")
	})
	for _, model := range []string{"best", "up/canary", "up/echo-key", "up/quotes", "up/quotes-mid", "up/broken", "up/cut", "up/cut-clean", "up/error-mid",
		"up/garbage", "up/status-401", "up/status-403", "up/status-500", "up/redirect", "gone/ok", "nobody/" + promptCanary, promptCanary} {
		for _, more := range []string{"", streaming, `,"` + promptCanary + `":`, `,"max_tokens":"` + promptCanary + `"`, `,"messages":"` + promptCanary + `"`} {
			for _, k := range []string{key, adminKey, key + "x"} {
				a := l.chat(k, model, more)
				if strings.Contains(a.body, vendorSecret) || strings.Contains(a.body, k) {
					t.Errorf("%s %s: the client gets a secret: %s", model, more, a)
				}
			}
		}
	}
	for _, path := range []string{"/v1/completions", "/v1/embeddings", "/v1/moderations"} {
		l.do("POST", key, path, `{"model":"up/ok","input":"`+promptCanary+`","prompt":"`+promptCanary+`"}`)
		l.do("POST", key, path, `{"model":"up/status-500","input":"`+promptCanary+`","prompt":"`+promptCanary+`"}`)
	}
	l.do("GET", key, "/v1/models/"+promptCanary, "")
	l.do("GET", key, "/v1/"+promptCanary+"?q="+promptCanary, "", "X-Custom", promptCanary, "User-Agent", promptCanary, "OpenAI-Beta", promptCanary)
	l.settle()
	metrics, err := l.g.metrics.registry.Gather()
	must(t, err)
	var seen strings.Builder
	for _, m := range metrics {
		seen.WriteString(m.String())
	}
	secret := func(k string) string { return k[strings.LastIndex(k, "-")+1:] }
	for where, text := range map[string]string{"log": l.logged.String(), "metrics": seen.String()} {
		for _, word := range []string{promptCanary, answerCanary, "Hello", vendorSecret, secret(key), secret(adminKey)} {
			if i := strings.Index(text, word); i >= 0 {
				t.Errorf("the %s holds %s: …%s…", where, word, text[max(0, i-300):min(len(text), i+100)])
			}
		}
	}
}

// rawUpstream answers every connection with text and closes it.
func rawUpstream(t *testing.T, text string) string {
	srv := httptest.NewUnstartedServer(nil)
	ln := srv.Listener
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(patience))
				_, _ = http.ReadRequest(bufio.NewReader(c))
				_, _ = io.WriteString(c, text)
			}()
		}
	}()
	return "http://" + ln.Addr().(*net.TCPAddr).String() + "/v1"
}
