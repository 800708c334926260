package web

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"bulkhead/tenant"
)

// TestHostileBodies: refused in the envelope, and nothing of it is sent on.
func TestHostileBodies(t *testing.T) {
	l := newLab(t, labOptions{})
	key, _ := l.company("acme", tenant.KeyLive, nil)
	n := 0
	f := func(body string, status int, param string) {
		t.Helper()
		n++
		a := l.do("POST", key, "/v1/chat/completions", body)
		if e := a.envelope(t); a.status != status || e.Param != param || e.Type != "invalid_request_error" {
			t.Errorf("%.80q: %s", body, a)
		}
	}
	const messages = `"messages":[{"role":"user","content":"x"}]`
	f(``, 400, "")
	f(`null`, 400, "")
	f(`[]`, 400, "")
	f(`{"model":"up/ok",`+messages, 400, "")
	f(`{"model":"up/ok",`+messages+`} {}`, 400, "")
	f(`{"model":"up/ok","model":"up/other",`+messages+`}`, 400, "model")
	f(`{"model":"up/ok","mod\u0065l":"up/other",`+messages+`}`, 400, "model")
	f(`{"\u006dodel":"up/ok",`+messages+`}`, 400, "")
	f(`{"model":"up/ok","Model":"up/other",`+messages+`}`, 400, "model")
	f(`{"model":"up/ok",`+messages+`,"stream":true,"stream":false}`, 400, "stream")
	f(`{"model":["up/ok"],`+messages+`}`, 400, "model")
	f(`{"model":"up/ok",`+messages+`,"max_tokens":-1}`, 400, "max_tokens")
	f(`{"model":"up/ok",`+messages+`,"n":1e9}`, 400, "n")
	f("{\"model\":\"up/ok\",\"messages\":[{\"role\":\"user\",\"content\":\"\x00\"}]}", 400, "")
	f("{\"model\":\"up/ok\",\"messages\":[{\"role\":\"user\",\"content\":\"\xff\"}]}", 400, "")
	f(`{"model":"up/ok","messages":`+strings.Repeat("[", 200_000), 400, "")
	f(`{"model":"up/ok",`+messages+`,"x":`+strings.Repeat("[", 200_000)+strings.Repeat("]", 200_000)+`}`, 400, "")
	f(`{"model":"up/ok",`+messages+`,"x":`+strings.Repeat(`{"a":`, 200_000)+`1`+strings.Repeat("}", 200_000)+`}`, 413, "")
	f(`{"model":"`+strings.Repeat("a", 100_000)+`",`+messages+`}`, 400, "model")
	l.lines(n)
	l.nothingSent()
}

func (l *lab) nothingSent() {
	l.t.Helper()
	if n := len(l.up.Requests()); n != 0 {
		l.t.Errorf("%d calls reached the provider", n)
	}
	if got := l.booked(); len(got) != 0 {
		l.t.Errorf("booked %+v", got)
	}
}

// TestHostilePaths: only paths of the table are served, in their plain form.
func TestHostilePaths(t *testing.T) {
	l := newLab(t, labOptions{})
	key, s := l.company("acme", tenant.KeyLive, nil)
	adminKey, _ := l.world.AddKey(s, tenant.KeyAdmin, "")
	operatorKey := l.world.AddOperator()
	body := chatBody("up/ok", "")
	f := func(method, path string, status int) {
		t.Helper()
		for _, k := range []string{key, adminKey, operatorKey} {
			c := l.dial()
			c.send(rawRequest(method, k, path, body))
			a := c.answer()
			if a.envelope(t); a.status != status {
				t.Errorf("%s %q: %s", method, path, a)
			}
		}
	}
	f("POST", "/", 404)
	f("POST", "/v1", 404)
	f("POST", "/v1/", 404)
	f("POST", "/v1/nothing", 404)
	f("POST", "/v1/chat", 404)
	f("POST", "/v1/chat/completions/", 404)
	f("POST", "/v1/chat/completions/x", 404)
	f("POST", "/V1/chat/completions", 404)
	f("GET", "/v1/../admin/companies", 404)
	f("GET", "/v1/..%2fadmin/companies", 404)
	f("GET", "/v1/%2e%2e/admin/companies", 404)
	f("GET", "/admin/companies", 404)
	f("GET", "/metrics", 404)
	f("GET", "/debug/pprof/", 404)
	f("POST", "/v1/realtime", 404)
	f("POST", "/v1/chat/completions%00", 404)
	f("POST", "/v1/chat/completions\x00", 400)
	f("POST", "http://other.host/v1/nothing", 404)
	f("POST", "/v1/chat%2fcompletions%2f..%2f..%2fnothing", 404)
	f("GET", "/v1/chat/completions", 405)
	f("DELETE", "/v1/chat/completions", 405)
	f("PATCH", "/v1/chat/completions", 405)
	f("OPTIONS", "/v1/chat/completions", 405)
	f("POST", "/v1/models", 405)
	f("TRACE", "/v1/models", 405)
	l.nothingSent()
	if len(l.logged.calls()) != 0 {
		t.Error("a call was made")
	}

	// Spelled otherwise, a path of the table is that path and needs its key.
	for _, path := range []string{"//v1//chat/completions", "/v1/./chat/completions", "http://other.host/v1/chat/completions", "/v1/x/../chat/completions"} {
		c := l.dial()
		c.send(rawRequest("POST", "none", path, body))
		if a := c.answer(); a.status != 401 && a.status != 404 {
			t.Errorf("%s: %s", path, a)
		}
	}
	l.nothingSent()
}

// TestHostileFraming: a request whose end two readers may see at different
// places is refused, and its connection closed.
func TestHostileFraming(t *testing.T) {
	l := newLab(t, labOptions{})
	key, _ := l.company("acme", tenant.KeyLive, nil)
	body := chatBody("up/ok", "")
	chunked := fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(body), body)
	head := "POST /v1/chat/completions HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer " + key + "\r\n"
	length := fmt.Sprintf("Content-Length: %d\r\n", len(body))
	smuggled := "GET /v1/models HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer " + key + "\r\n\r\n"
	f := func(request string) {
		t.Helper()
		c := l.dial()
		c.send(request + smuggled)
		a := c.answer()
		if e := a.envelope(t); a.status != 400 || e.Type != "invalid_request_error" {
			t.Errorf("%q: %s", request, a)
		}
		if !c.closed() {
			t.Errorf("%q: what follows was answered", request)
		}
	}
	f(head + length + "Transfer-Encoding: chunked\r\n\r\n" + chunked)
	f(head + "Transfer-Encoding: chunked\r\n" + length + "\r\n" + chunked)
	f(head + "transfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n" + chunked)
	f(head + length + "Content-Length: 3\r\n\r\n" + body)
	f(head + length + length + "\r\n" + body)
	f(head + "Content-Length: +5\r\n\r\n" + body)
	f(head + "Content-Length: -5\r\n\r\n" + body)
	f(head + "Content-Length: 5, 5\r\n\r\n" + body)
	f(head + "Content-Length: 99999999999999999999\r\n\r\n" + body)
	f(head + "Content-Length : 5\r\n\r\n" + body)
	f(head + "Transfer-Encoding: gzip, chunked\r\n\r\n" + chunked)
	f(head + "Transfer-Encoding: identity\r\n\r\n" + body)
	f(head + "Transfer-Encoding: chunked, chunked\r\n\r\n" + chunked)
	f(head + "Transfer-Encoding: xchunked\r\n\r\n" + chunked)
	f(head + "Transfer-Encoding: chunked\r\n\r\n" + "zz\r\n" + body)
	f(head + "Transfer-Encoding: chunked\r\n\r\n" + "-1\r\n" + body)
	f(head + "X: a\x00b\r\n" + length + "\r\n" + body)
	f(head + "No colon\r\n" + length + "\r\n" + body)
	f("POST /v1/chat/completions\r\n\r\n")
	f("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n")
	l.nothingSent()
}

// TestUnreadBodies: the body of a request that does not use it is not taken for
// the next request.
func TestUnreadBodies(t *testing.T) {
	f := func(request string, status int) {
		t.Helper()
		l := newLab(t, labOptions{registry: noRoutes{}})
		key, s := l.company("acme", tenant.KeyLive, nil)
		adminKey, _ := l.world.AddKey(s, tenant.KeyAdmin, "")
		smuggled := rawChat(key, "up/ok", "")
		c := l.dial()
		padding := strings.Repeat("x", 20<<10) // beyond what fasthttp reads ahead
		body := padding + smuggled
		c.send(strings.NewReplacer("ADMIN", adminKey, "KEY", key, "BODY", fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(body), body),
			"CHUNKED", fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(body), body)).Replace(request))
		if a := c.answer(); a.status != status {
			t.Errorf("%s: %s", request, a)
		}
		must(t, c.SetReadDeadline(time.Now().Add(50*time.Millisecond)))
		if b, err := c.r.Peek(1); len(b) > 0 {
			rest, _ := io.ReadAll(c.r)
			t.Errorf("%s: an answer to the body came: %s, %v", request, rest, err)
		}
		l.nothingSent()
	}
	const auth = " HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer KEY\r\n"
	f("GET /v1/models"+auth+"BODY", 200)
	f("GET /v1/models"+auth+"CHUNKED", 200)
	f("GET /v1/models/none"+auth+"BODY", 404)
	f("DELETE /v1/organization/routes/x"+auth+"BODY", 403)
	f("DELETE /v1/organization/routes/x HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer ADMIN\r\nBODY", 200)
	f("DELETE /v1/organization/routes/x HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer ADMIN\r\nCHUNKED", 200)
	f("POST /v1/organization/routes"+auth+"BODY", 403)
	f("POST /v1/nothing"+auth+"BODY", 404)
	f("POST /v1/nothing"+auth+"CHUNKED", 404)
	f("POST /v1/chat/completions HTTP/1.1\r\nHost: g\r\nBODY", 401)
	f("POST /v1/chat/completions HTTP/1.1\r\nHost: g\r\nCHUNKED", 401)
}

// noRoutes is a Registry that can delete routes, and nothing else.
type noRoutes struct{ Registry }

func (noRoutes) DeleteRoute(context.Context, tenant.Scope, string) error { return nil }

// TestHostileHeaders: a header that is too large is 431.
func TestHostileHeaders(t *testing.T) {
	l := newLab(t, labOptions{})
	key, _ := l.company("acme", tenant.KeyLive, nil)
	f := func(header string) {
		t.Helper()
		c := l.dial()
		go func() {
			_, _ = io.WriteString(c.Conn, rawRequest("POST", key, "/v1/chat/completions", chatBody("up/ok", ""), header))
		}()
		a := c.answer()
		if e := a.envelope(t); a.status != 431 || e.Code != "request_header_too_large" {
			t.Errorf("%s", a)
		}
	}
	f("X-Big: " + strings.Repeat("a", 17<<10))
	f(strings.Repeat("X-Many: a\r\n", 2000) + "X: y")
	f("Cookie: " + strings.Repeat("a", 1<<20))
	l.nothingSent()
	// One that fits is fine.
	if a := l.do("POST", key, "/v1/chat/completions", chatBody("up/ok", ""), "X-Big", strings.Repeat("a", 8<<10)); a.status != 200 {
		t.Errorf("%s", a)
	}
}

// TestSlowloris: who does not get to the end of his request is told so and left.
func TestSlowloris(t *testing.T) {
	const bodyTimeout = 150 * time.Millisecond
	l := newLab(t, labOptions{settings: func(s *Settings) { s.BodyTimeout = bodyTimeout }})
	key, _ := l.company("acme", tenant.KeyLive, nil)
	whole := rawChat(key, "up/ok", strings.Repeat(" ", 30<<10))
	head := strings.Index(whole, "\r\n\r\n") + 4
	f := func(sent string) {
		t.Helper()
		c := l.dial()
		begin := time.Now()
		c.send(sent)
		stop, dripping := make(chan struct{}), make(chan struct{})
		go func() { // a byte now and then does not help
			defer close(dripping)
			for {
				select {
				case <-stop:
					return
				case <-time.After(bodyTimeout / 5):
					if sent != "" {
						_, _ = io.WriteString(c.Conn, " ")
					}
				}
			}
		}()
		a := c.answer()
		if e := a.envelope(t); a.status != 408 || e.Code != "request_timeout" {
			t.Errorf("after %d bytes: %s", len(sent), a)
		}
		if !c.closed() {
			t.Errorf("after %d bytes: the connection is open", len(sent))
		}
		if d := time.Since(begin); d > 20*bodyTimeout || d < bodyTimeout/2 {
			t.Errorf("after %d bytes: left after %s", len(sent), d)
		}
		close(stop)
		<-dripping
	}
	f("")
	f("POST /v1/chat")
	f(whole[:head-10])
	f(whole[:head])
	f(whole[:head+100])
	f(whole[:head+20<<10])
	f(strings.Replace(whole[:head], "Content-Length", "Transfer-Encoding: chunked\r\nX-Was", 1) + "5000\r\n{")
	l.nothingSent()
}

// zeros is a body that never ends.
type zeros struct{ left int }

func (z *zeros) Read(p []byte) (int, error) {
	if z.left <= 0 {
		return 0, io.EOF
	}
	n := min(len(p), z.left)
	for i := range p[:n] {
		p[i] = ' '
	}
	z.left -= n
	return n, nil
}

// TestHugeBodies: 100 MB are refused, whatever the header says, and take no more
// memory than a body may.
func TestHugeBodies(t *testing.T) {
	const maxBody, huge = 2 << 20, 100 << 20
	l := newLab(t, labOptions{settings: func(s *Settings) { s.MaxBody = maxBody }})
	key, _ := l.company("acme", tenant.KeyLive, nil)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	head := "POST /v1/chat/completions HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer " + key + "\r\n"
	f := func(header string, chunked bool) {
		t.Helper()
		c := l.dial()
		c.send(head + header + "\r\n\r\n")
		go func() {
			var w io.Writer = c.Conn
			if chunked {
				w = chunkWriter{c.Conn}
			}
			_, _ = io.Copy(w, &zeros{huge})
		}()
		a := c.answer()
		if e := a.envelope(t); a.status != 413 || e.Code != "request_too_large" {
			t.Errorf("%s: %s", header, a)
		}
		if !c.closed() {
			t.Errorf("%s: the connection is open", header)
		}
	}
	for range 3 {
		f(fmt.Sprintf("Content-Length: %d", huge), false)
		f("Transfer-Encoding: chunked", true)
	}
	l.nothingSent()
	runtime.ReadMemStats(&after)
	// 600 MB were offered. What is allocated is three bodies up to the limit, with
	// the growing of the slice, and what this test needs itself.
	if got := after.TotalAlloc - before.TotalAlloc; got > huge {
		t.Errorf("%d bytes were allocated", got)
	}
	// A body that says to be large and is not sent takes next to nothing.
	conns := make([]*rawConn, 50)
	runtime.ReadMemStats(&before)
	for i := range conns {
		conns[i] = l.dial()
		conns[i].send(head + fmt.Sprintf("Content-Length: %d\r\n\r\n{%s", maxBody, strings.Repeat(" ", 10<<10)))
	}
	eventually(t, "all are read", func() bool { return l.g.InFlight() == len(conns) })
	runtime.ReadMemStats(&after)
	if got := int64(after.HeapAlloc) - int64(before.HeapAlloc); got > int64(len(conns))*4*firstRead {
		t.Errorf("%d bytes for %d bodies that were announced", got, len(conns))
	}
	for _, c := range conns {
		c.Close()
	}
}

// TestBodyLimit: a body may be as large as the limit and not a byte larger, and
// one that says to be larger is refused before it comes.
func TestBodyLimit(t *testing.T) {
	const limit = 100 << 10
	l := newLab(t, labOptions{settings: func(s *Settings) { s.MaxBody = limit }})
	key, _ := l.company("acme", tenant.KeyLive, nil)
	head := "POST /v1/chat/completions HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer " + key + "\r\n"
	f := func(size, status int) {
		t.Helper()
		body := chatBody("up/ok", "")
		body += strings.Repeat(" ", size-len(body))
		c := l.dial()
		c.send(head + fmt.Sprintf("Content-Length: %d\r\n\r\n%s", size, body))
		if a := c.answer(); a.status != status {
			t.Errorf("%d bytes: %s", size, a)
		}
		c = l.dial()
		c.send(head + fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n", 1000, body[:1000], size-1000, body[1000:]))
		if a := c.answer(); a.status != status {
			t.Errorf("%d bytes in chunks: %s", size, a)
		}
	}
	f(limit-1, 200)
	f(limit, 200)
	f(limit+1, 413)
	f(2*limit, 413)
	c := l.dial()
	c.send(head + fmt.Sprintf("Content-Length: %d\r\n\r\n%s", limit+1, strings.Repeat(" ", limit/2)))
	if a := c.answer(); a.status != 413 {
		t.Errorf("%s", a)
	}
}

// chunkWriter writes a body in chunks.
type chunkWriter struct{ w io.Writer }

func (c chunkWriter) Write(p []byte) (int, error) {
	if _, err := fmt.Fprintf(c.w, "%x\r\n%s\r\n", len(p), p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// TestBodiesInFlight: the memory for bodies is bounded for a company and in
// total, and one that fills its own does not keep another out (DESIGN 4.15).
func TestBodiesInFlight(t *testing.T) {
	const body, perCompany = 200 << 10, 1 << 20
	l := newLab(t, labOptions{settings: func(s *Settings) { s.BodiesPerCompany, s.BodiesTotal = perCompany, perCompany+perCompany/2 }})
	a, _ := l.company("acme", tenant.KeyLive, nil)
	b, _ := l.company("globex", tenant.KeyLive, nil)
	c, _ := l.company("initech", tenant.KeyLive, nil)
	large := strings.Repeat(" ", body)
	flood := func(key string, calls int) (held, refused int) {
		t.Helper()
		var refusals atomic.Int64
		before := len(l.up.Requests())
		var all sync.WaitGroup
		for range calls {
			all.Go(func() {
				got := l.chat(key, "up/hold", large)
				if got.status == 200 {
					return
				}
				refusals.Add(1)
				if e := got.envelope(t); got.status != 429 && got.status != 503 || e.Code != "bodies_in_flight" {
					t.Errorf("%s", got)
				}
			})
		}
		t.Cleanup(all.Wait)
		eventually(t, "all are answered or held", func() bool {
			return len(l.up.Requests())-before+int(refusals.Load()) == calls
		})
		return len(l.up.Requests()) - before, int(refusals.Load())
	}
	held, refused := flood(a, 20)
	if held < 2 || held > perCompany/body || refused != 20-held {
		t.Errorf("company A: %d held, %d refused", held, refused)
	}
	l.g.load.mu.Lock()
	if l.g.load.bytes > perCompany {
		t.Errorf("%d bytes are counted", l.g.load.bytes)
	}
	l.g.load.mu.Unlock()
	// B gets in while A holds all that is A's.
	if got := l.chat(b, "up/ok", large); got.status != 200 {
		t.Errorf("company B: %s", got)
	}
	// A's small ones wait for nobody else's room either: they are A's to count.
	held, _ = flood(b, 20)
	if held < 1 {
		t.Errorf("company B: %d held", held)
	}
	l.g.load.mu.Lock()
	if l.g.load.bytes > perCompany+perCompany/2 {
		t.Errorf("%d bytes are counted in total", l.g.load.bytes)
	}
	l.g.load.mu.Unlock()
	if got := l.chat(c, "up/ok", strings.Repeat(" ", perCompany/2)); got.status != 503 {
		t.Errorf("beyond the total: %s", got)
	}
	l.up.Release()
	l.settle()
	if got := l.chat(a, "up/ok", large); got.status != 200 {
		t.Errorf("after the end: %s", got)
	}
}
