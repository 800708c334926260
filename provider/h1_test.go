package provider

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"bulkhead/fault"
	"bulkhead/openai"
)

// host is an upstream of which a test decides what each connection sends. It
// answers each request with the next of answers, and the last one over and over.
type host struct {
	*rawUpstream
	client *Client
	target Target
	cred   Credential
	from   []string      // where each request came from
	conns  chan net.Conn // that of each request, once it is answered
}

func newHost(t *testing.T, times Timeouts, answers ...string) *host {
	t.Helper()
	h := &host{conns: make(chan net.Conn, 64)}
	h.rawUpstream = newRaw(t, func(c net.Conn, n int) bool {
		h.mu.Lock()
		h.from = append(h.from, c.RemoteAddr().String())
		h.mu.Unlock()
		answer := answers[min(n, len(answers))-1]
		_, _ = io.WriteString(c, strings.TrimSuffix(answer, hangUp))
		h.conns <- c
		return !strings.HasSuffix(answer, hangUp)
	})
	h.client = openClient(t, Options{Timeouts: times})
	h.target, h.cred = targetAt(t, "http://"+h.addr+"/v1")
	return h
}

// hangUp at the end of an answer closes the connection behind it.
const hangUp = "\x00hang up"

const plainOK = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"

func (h *host) send(ctx context.Context) (*Reply, error) {
	return h.client.Send(ctx, h.target, h.cred, &Call{Endpoint: openai.Chat, Body: []byte("{}")})
}

// read makes a call and returns its body.
func (h *host) read(t *testing.T) (string, error) {
	t.Helper()
	r, err := h.send(t.Context())
	if err != nil {
		return "", err
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	return string(b), err
}

// kept says whether the last two requests came on one connection.
func (h *host) kept() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := len(h.from)
	return h.from[n-1] == h.from[n-2]
}

// TestH1Answers: what is an answer, where its body ends, and whether another call
// may go on its connection: only if nothing more can come on it.
func TestH1Answers(t *testing.T) {
	f := func(answer, want string, kept bool) {
		t.Helper()
		h := newHost(t, Timeouts{}, answer, plainOK)
		got, err := h.read(t)
		if err != nil || got != want {
			t.Errorf("%q: %q %v", answer, got, err)
			return
		}
		if again, err := h.read(t); err != nil || again != "{}" {
			t.Errorf("%q: the next call: %q %v", answer, again, err)
		} else if h.kept() != kept {
			t.Errorf("%q: the connection was used again: %v", answer, !kept)
		}
	}
	const ok = "HTTP/1.1 200 OK\r\n"
	f(ok+"Content-Length: 4\r\n\r\ndata", "data", true)
	f(ok+"content-length:4\r\nCONTENT-LENGTH: 4\r\n\r\ndata", "data", true)
	f("HTTP/1.1 200\nContent-Length: 4\n\ndata", "data", true)
	f(ok+"Content-Length: 0\r\n\r\n", "", true)
	f("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\nContent-Length: 9\r\n\r\n"+plainOK, "{}", true)
	f(ok+"Transfer-Encoding: chunked\r\n\r\n4\r\ndata\r\n0\r\n\r\n", "data", true)
	f(ok+"Transfer-Encoding: Chunked\r\n\r\n00000002;a=\"b\"\r\nda\r\n2 \r\nta\r\n0\r\nTrailer: x\r\nX-Should-Retry: false\r\n\r\n", "data", true)
	f(ok+"Transfer-Encoding: chunked\r\n\r\nA\r\n0123456789\r\n0b\r\n0123456789a\r\n0\r\n\r\n", "01234567890123456789a", true)
	f("HTTP/1.1 204 No Content\r\n\r\n", "", true)

	// What stands behind an answer is not the next one.
	f(ok+"Content-Length: 4\r\n\r\ndata"+strings.ReplaceAll(plainOK, "{}", "no"), "data", false)
	f(ok+"Transfer-Encoding: chunked\r\n\r\n4\r\ndata\r\n0\r\n\r\n"+strings.ReplaceAll(plainOK, "{}", "no"), "data", false)
	f("HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\n", "", false)
	f("HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "", false)
	f(ok+"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ndata\r\n0\r\n\r\n", "data", false)
	f(ok+"Content-Length: 4\r\nConnection: close\r\n\r\ndata", "data", false)
	f(ok+"Content-Length: 4\r\nConnection: x, Close\r\n\r\ndata", "data", false)
	f("HTTP/1.0 200 OK\r\nContent-Length: 4\r\nConnection: keep-alive\r\n\r\ndata", "data", false)
	f(ok+"\r\ndata"+hangUp, "data", false)
	f("HTTP/1.0 200 OK\r\n\r\ndata"+hangUp, "data", false)
}

// TestH1BadAnswers: what is no answer is one error, and its connection is closed.
func TestH1BadAnswers(t *testing.T) {
	f := func(answer string) {
		t.Helper()
		h := newHost(t, Timeouts{}, answer, plainOK)
		_, err := h.send(t.Context())
		e, ok := errors.AsType[*fault.Error](err)
		if !ok || e.Kind != fault.Upstream || e.Status != 502 || !e.Retriable || Unsent(err) {
			t.Errorf("%.80q: %#v", answer, err)
		}
		if _, err := h.read(t); err != nil || h.kept() {
			t.Errorf("%.80q: the next call: %v", answer, err)
		}
	}
	const ok = "HTTP/1.1 200 OK\r\n"
	for _, line := range []string{
		"HTTP/2.0 200 OK", "HTTP/1.2 200 OK", "http/1.1 200 OK", "HTTP/1.1  200 OK", "HTTP/1.1 20 OK", "HTTP/1.1 2000 OK", "HTTP/1.1 20x OK",
		"HTTP/1.1 099 OK", "HTTP/1.1", "HTTP/1.1 200 O\x00K", "ICY 200 OK", " HTTP/1.1 200 OK", "\r\nHTTP/1.1 200 OK",
	} {
		f(line + "\r\nContent-Length: 2\r\n\r\n{}")
	}
	for _, line := range []string{
		"Content-Length: +2", "Content-Length: -1", "Content-Length: 2, 2", "Content-Length: 0x2", "Content-Length: 2 2", "Content-Length:",
		"Content-Length: 99999999999999999999", "Content-Length: 2\r\nContent-Length: 3", "Content-Length: ２",
		"Transfer-Encoding: gzip, chunked", "Transfer-Encoding: identity", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
		"Transfer-Encoding: chunked, chunked", "Transfer-Encoding: \x0bchunked", "Transfer-Encoding: xchunked",
		"Content-Length : 2", " Content-Length: 2", "A: b\r\n Content-Length: 2", "A: b\r\n\tfolded", ": x", "no colon", "A\x00: b", "A: b\x00c",
		"A: b\rContent-Length: 2", "A: b\r\r", "A b: c", "Å: b",
	} {
		f(ok + line + "\r\n\r\n{}")
	}
	f("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n")
	f(ok + strings.Repeat("A: b\r\n", maxAnswerHeader/6+1) + "\r\n{}")
	f(ok + strings.Repeat("a", maxAnswerHeader))
	f(strings.Repeat("HTTP/1.1 102 Processing\r\n\r\n", maxAnswerHeader/27+1) + plainOK)
}

// TestH1BadChunks: a body that is not well-formed is one that was cut off.
func TestH1BadChunks(t *testing.T) {
	f := func(body, want string) {
		t.Helper()
		h := newHost(t, Timeouts{}, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"+body, plainOK)
		got, err := h.read(t)
		if !fault.Is(err, fault.Upstream) || !errors.Is(err, io.ErrUnexpectedEOF) || got != want {
			t.Errorf("%.80q: %.80q %v", body, got, err)
		}
		if _, err := h.read(t); err != nil || h.kept() {
			t.Errorf("%.80q: the next call: %v", body, err)
		}
	}
	f("\r\n", "")
	f("x\r\n", "")
	f(" 4\r\ndata\r\n", "")
	f("-4\r\ndata\r\n", "")
	f("0x4\r\ndata\r\n", "")
	f("4\ndata\n0\n\n", "")
	f("4\r\ndata0\r\n\r\n", "data")
	f("4\r\ndata\n0\r\n\r\n", "data")
	f("4\r\ndataX\r\n0\r\n\r\n", "data")
	f("4\r\nda"+hangUp, "da")
	f("4\r\ndata\r\n"+hangUp, "data")
	f("4\r\ndata\r\n0\r\n"+hangUp, "data")
	f("4 4\r\ndata\r\n", "")
	f("4;a\x00b\r\ndata\r\n", "")
	f("4;a\nb\r\ndata\r\n", "")
	f("1000000000000000\r\nx", "")
	f("ffffffffffffffff\r\nx", "")
	f("0\r\nA: b\nc: d\r\n\r\n", "")
	f("4;"+strings.Repeat("a", maxChunkExcess)+"\r\ndata\r\n0\r\n\r\n", "")
	f("0\r\n"+strings.Repeat("A: b\r\n", maxChunkExcess/6+1)+"\r\n", "")
	f(strings.Repeat("1;"+strings.Repeat("a", 100)+"\r\nx\r\n", 200)+"0\r\n\r\n", strings.Repeat("x", 186))
}

// TestH1Stale: a connection on which something has come since, or the end, is not
// used again: neither is the request lost nor is what came taken for its answer.
func TestH1Stale(t *testing.T) {
	f := func(name string, spoil func(net.Conn)) {
		t.Helper()
		h := newHost(t, Timeouts{}, plainOK)
		if _, err := h.read(t); err != nil {
			t.Fatal(err)
		}
		spoil(<-h.conns)
		if got, err := h.read(t); err != nil || got != "{}" {
			t.Errorf("%s: %q %v", name, got, err)
		}
		if n := len(h.requests()); n != 2 || h.kept() {
			t.Errorf("%s: %d requests, kept %v", name, n, h.kept())
		}
	}
	f("closed", func(c net.Conn) { c.Close() })
	f("reset", func(c net.Conn) { _ = c.(*net.TCPConn).SetLinger(0); c.Close() })
	f("an answer to nothing", func(c net.Conn) { _, _ = io.WriteString(c, strings.ReplaceAll(plainOK, "{}", "no")) })
	f("a byte", func(c net.Conn) { _, _ = io.WriteString(c, "\n") })
}

// failing is a connection whose next Write takes n bytes and fails.
type failing struct {
	net.Conn
	next atomic.Int64
}

func (c *failing) Write(p []byte) (int, error) {
	n := c.next.Swap(-1)
	if n < 0 {
		return c.Conn.Write(p)
	}
	if n > 0 {
		_, _ = c.Conn.Write(p[:n])
	}
	c.Conn.Close()
	return int(n), syscall.EPIPE
}

// TestH1Again: a request is sent once more only if none of it was written, and to a
// connection that was used before.
func TestH1Again(t *testing.T) {
	f := func(first bool, written int64, body int, ok bool) {
		t.Helper()
		h := newHost(t, Timeouts{}, plainOK)
		dial, conns := h.client.operator.plain.dial, []*failing{}
		h.client.operator.plain.dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
			nc, err := dial(ctx, network, addr)
			c := &failing{Conn: nc}
			c.next.Store(-1)
			if first {
				c.next.Store(written)
			}
			conns = append(conns, c)
			return c, err
		}
		if !first {
			if _, err := h.read(t); err != nil {
				t.Fatal(err)
			}
			conns[0].next.Store(written)
		}
		r, err := h.client.Send(t.Context(), h.target, h.cred, &Call{Endpoint: openai.Chat, Body: bytes.Repeat([]byte("x"), body)})
		if err == nil {
			r.Body.Close()
		}
		if (err == nil) != ok || err != nil && (!fault.Is(err, fault.Upstream) || !fault.As(err).Retriable || Unsent(err)) {
			t.Errorf("%v %d %d: %v", first, written, body, err)
		}
		if want := map[bool]int{true: 1, false: 1}[first] + map[bool]int{true: 1}[ok]; len(conns) != want {
			t.Errorf("%v %d %d: %d connections, not %d", first, written, body, len(conns), want)
		}
	}
	f(false, 0, 10, true)
	f(false, 0, 2*maxJoined, true)
	f(false, 1, 10, false)
	f(false, 1, 2*maxJoined, false)
	f(true, 0, 10, false)
	f(true, 1, 10, false)
}

// TestH1LongRequests: bodies beyond what is written at once, and forms, arrive as
// they are, and their connections are used again.
func TestH1LongRequests(t *testing.T) { plain(t, testH1LongRequests) }

func testH1LongRequests(t *testing.T, open opens) {
	var from atomic.Value
	u := newPlain(t, open, Timeouts{}, func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil || len(b) == 0 || int64(len(b)) != r.ContentLength || bytes.Count(b, b[:1]) != len(b) {
			t.Errorf("%d of %d bytes: %v", len(b), r.ContentLength, err)
		}
		if old := from.Swap(r.RemoteAddr); old != nil && old != r.RemoteAddr {
			t.Error("another connection")
		}
		_, _ = io.WriteString(w, "{}")
	})
	f := func(call Call) {
		t.Helper()
		r, err := u.client.Send(t.Context(), u.target, u.cred, &call)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		if b, err := io.ReadAll(r.Body); err != nil || string(b) != "{}" {
			t.Errorf("%q %v", b, err)
		}
	}
	for _, n := range []int{1, maxJoined - 300, maxJoined, maxJoined + 1, 100_000, 3 << 20} {
		f(Call{Endpoint: openai.Chat, Body: bytes.Repeat([]byte("x"), n)})
		f(Call{Endpoint: openai.Transcriptions, FormSize: int64(n), FormType: "multipart/form-data; boundary=x",
			Form: func() io.Reader { return strings.NewReader(strings.Repeat("y", n)) }})
	}
}

// TestH1FormSize: a form that is not as long as was said leaves nothing behind that
// could be taken for a request.
func TestH1FormSize(t *testing.T) {
	for _, n := range []int{9, 11} {
		h := newHost(t, Timeouts{}, plainOK)
		call := &Call{Endpoint: openai.Transcriptions, FormSize: 10, FormType: "multipart/form-data; boundary=x", Form: func() io.Reader { return strings.NewReader(strings.Repeat("y", n)) }}
		if r, err := h.client.Send(t.Context(), h.target, h.cred, call); err == nil {
			_, _ = io.ReadAll(r.Body) // the server had all it needs
			r.Body.Close()
		} else if !fault.Is(err, fault.Upstream) || Unsent(err) {
			t.Errorf("%d bytes: %v", n, err)
		}
		if p := h.client.operator.plain; p.idle != 0 || len(p.hosts) != 0 {
			t.Errorf("%d bytes: the connection is kept", n)
		}
		if got, err := h.read(t); err != nil || got != "{}" {
			t.Errorf("%d bytes: the next call: %q %v", n, got, err)
		}
	}
}

// TestEarlyAnswer: a server that answers before it has read all is heard, and who
// closes the answer has the request's memory back.
func TestEarlyAnswer(t *testing.T) { plain(t, testEarlyAnswer) }

func testEarlyAnswer(t *testing.T, open opens) {
	f := func(answer string, status int) {
		t.Helper()
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		done := make(chan struct{})
		defer func() { <-done }()
		let := make(chan struct{})
		defer close(let)
		go func() {
			defer close(done)
			c, err := l.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			_, _ = io.ReadFull(c, make([]byte, 100))
			_, _ = io.WriteString(c, answer)
			<-let
		}()
		c := open(t, Options{})
		target, cred := targetAt(t, "http://"+l.Addr().String()+"/v1")
		body := bytes.Repeat([]byte("x"), 32<<20) // more than the system takes
		r, err := c.Send(t.Context(), target, cred, &Call{Endpoint: openai.Chat, Body: body})
		if err == nil {
			b, rerr := io.ReadAll(r.Body)
			if status != 200 || rerr != nil || string(b) != "{}" {
				t.Errorf("%q: %q %v", answer, b, rerr)
			}
			r.Body.Close()
		} else if fault.As(err).Status != status {
			t.Errorf("%q: %v", answer, err)
		}
		clear(body) // the race detector sees whoever still reads it
		if p := c.operator.plain; p != nil && p.idle != 0 {
			t.Errorf("%q: the connection is kept", answer)
		}
	}
	f("HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\n{}", 413)
	f(plainOK, 200)
}

// TestH1Limits: how many connections are kept, and for how long.
func TestH1Limits(t *testing.T) {
	h := newHost(t, Timeouts{}, plainOK)
	p := h.client.operator.plain
	p.maxFree, p.maxIdle = 2, 3
	other := newHost(t, Timeouts{}, plainOK)
	other.client = h.client
	burst := func(h *host, n int) {
		t.Helper()
		var open []*Reply
		for range n {
			r, err := h.send(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			open = append(open, r)
		}
		for _, r := range open {
			_, _ = io.ReadAll(r.Body)
			r.Body.Close()
		}
	}
	f := func(here, there int) {
		t.Helper()
		p.mu.Lock()
		defer p.mu.Unlock()
		free := func(h *host) int {
			if p.hosts[h.addr] == nil {
				return 0
			}
			return len(p.hosts[h.addr].free)
		}
		n := 0
		for c := p.oldest; c != nil; c = c.newer {
			n++
		}
		if free(h) != here || free(other) != there || p.idle != here+there || n != p.idle {
			t.Errorf("%d and %d are kept, %d in all, %d in the list", free(h), free(other), p.idle, n)
		}
	}
	burst(h, 3)
	f(2, 0)
	burst(other, 3)
	f(1, 2) // the one that was not used for longest went
	burst(h, 1)
	f(1, 2)
	h.client.Close()
	f(0, 0)
	burst(h, 1)
	f(0, 0)
	if len(p.hosts) != 0 {
		t.Errorf("%d hosts are remembered", len(p.hosts))
	}
}

// TestH1IdleTime: a connection that nobody uses is closed after a while.
func TestH1IdleTime(t *testing.T) {
	h := newHost(t, Timeouts{}, plainOK)
	h.client.operator.plain.idleConn = 20 * time.Millisecond
	for range 3 {
		if _, err := h.read(t); err != nil {
			t.Fatal(err)
		}
		c := <-h.conns
		_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
		// The test server reads the next request: so the end shows in the pool.
		for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
			p := h.client.operator.plain
			p.mu.Lock()
			n := p.idle + len(p.hosts)
			p.mu.Unlock()
			if n == 0 {
				break
			}
			if time.Now().After(end) {
				t.Fatal("it is still there")
			}
		}
	}
}

// TestH1Busy: calls beyond the most there may be at one host wait their turn, no
// longer than they may take, and nothing of one that gives up is sent.
func TestH1Busy(t *testing.T) {
	let := make(chan struct{})
	var at atomic.Int64
	u := newPlain(t, openClient, Timeouts{Header: time.Second}, func(w http.ResponseWriter, r *http.Request) {
		at.Add(1)
		w.Header().Set("Content-Length", "2")
		_, _ = io.WriteString(w, "{")
		_ = http.NewResponseController(w).Flush()
		<-let
		_, _ = io.WriteString(w, "}")
	})
	p := u.client.operator.plain
	p.maxBusy = 1
	first, err := u.send(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	_, err = u.send(t.Context())
	wantTimeout(t, err, start, time.Second, "did not answer")
	if !Unsent(err) {
		t.Error("it is not known that nothing was sent")
	}
	ctx, cancel := context.WithCancel(t.Context())
	waits := func(n int) bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, h := range p.hosts {
			return len(h.waiting) == n
		}
		return false
	}
	ended := make(chan error, 2)
	go func() { _, err := u.send(ctx); ended <- err }()
	await(t, func() bool { return waits(1) })
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	u.client.timeouts.Header = time.Minute
	for range 2 {
		go func() {
			r, err := u.send(t.Context())
			if err == nil {
				_, err = io.ReadAll(r.Body)
				r.Body.Close()
			}
			ended <- err
		}()
	}
	await(t, func() bool { return waits(2) })
	if n := at.Load(); n != 1 {
		t.Errorf("%d calls are at the upstream", n)
	}
	close(let)
	_, _ = io.ReadAll(first.Body)
	first.Body.Close()
	for range 2 {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if h := p.hosts[u.srv.Listener.Addr().String()]; h == nil || h.busy != 0 || len(h.free) != 1 {
		t.Errorf("%+v", h)
	}
}

// await waits for a condition that comes about by itself.
func await(t *testing.T, is func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it does not come about")
		}
	}
}

// TestH1Late: what is done with a call after its end does not touch the next one on
// its connection.
func TestH1Late(t *testing.T) {
	let := make(chan struct{})
	u := newPlain(t, openClient, Timeouts{}, func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.Header.Get("X-Client-Request-Id"), "waits") {
			<-let
		}
		_, _ = io.WriteString(w, r.RemoteAddr)
	})
	ctx, cancel := context.WithCancel(t.Context())
	r, err := u.send(ctx)
	if err != nil {
		t.Fatal(err)
	}
	first, _ := io.ReadAll(r.Body)
	got := make(chan string)
	go func() {
		next, err := u.client.Send(t.Context(), u.target, u.cred, &Call{Endpoint: openai.Chat, Body: []byte("{}"), RequestID: "waits"})
		if err != nil {
			got <- err.Error()
			return
		}
		defer next.Body.Close()
		b, _ := io.ReadAll(next.Body)
		got <- string(b)
	}()
	p := u.client.operator.plain
	await(t, func() bool { p.mu.Lock(); defer p.mu.Unlock(); return p.idle == 0 })
	cancel()
	r.Body.Close()
	r.Body.(*exchange).hurry(0)
	r.Body.(*exchange).Interrupt()
	if _, err := r.Body.Read(make([]byte, 1)); err != io.EOF {
		t.Error(err)
	}
	close(let)
	if second := <-got; second != string(first) {
		t.Errorf("%s, then %s", first, second)
	}
}

// ending is a context that tells its attempts of its end.
type ending struct {
	context.Context
	mu sync.Mutex
	x  Interrupter
	on int
}

func (e *ending) OnEnd(x Interrupter) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.Err() != nil || e.x != nil {
		return false
	}
	e.x = x
	e.on++
	return true
}

func (e *ending) Off(x Interrupter) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.x == x {
		e.x = nil
	}
}

// TestH1Ending: a context that tells of its end is asked to, in both phases and for
// as long as the attempt takes; where it tells another one, its end is seen anyway.
func TestH1Ending(t *testing.T) {
	gone, wait := left()
	came := make(chan struct{}, 9)
	u := newPlain(t, openClient, Timeouts{}, func(w http.ResponseWriter, r *http.Request) {
		switch r.Header.Get("X-Client-Request-Id") {
		case "whole":
			_, _ = io.WriteString(w, "{}")
			return
		case "body":
			_, _ = io.WriteString(w, "data")
			_ = http.NewResponseController(w).Flush()
		}
		came <- struct{}{}
		wait(r)
	})
	f := func(phase string, busy bool) {
		t.Helper()
		ctx, cancel := context.WithCancel(t.Context())
		e := &ending{Context: ctx}
		if busy {
			e.x = new(exchange)
		}
		end := func() {
			<-came
			cancel()
			e.mu.Lock()
			x := e.x
			e.mu.Unlock()
			if !busy && x != nil {
				x.Interrupt()
			}
		}
		if phase == "head" {
			go end()
		}
		r, err := u.client.Send(e, u.target, u.cred, &Call{Endpoint: openai.Chat, Body: []byte("{}"), RequestID: phase})
		if phase != "head" {
			if err != nil {
				t.Fatal(err)
			}
			if phase == "body" {
				end()
			}
			_, err = io.ReadAll(r.Body)
			r.Body.Close()
		}
		if phase == "whole" {
			if err != nil {
				t.Error(err)
			}
		} else if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", phase, err)
		} else {
			within(t, gone, "the upstream sees the end")
		}
		cancel()
		if !busy && (e.on != 1 || e.x != nil) {
			t.Errorf("%s: asked %d times, and %v is left", phase, e.on, e.x)
		}
	}
	for _, busy := range []bool{false, true} {
		f("head", busy)
		f("body", busy)
		f("whole", busy)
	}
}

// TestH1Injection: a stored secret that would be two headers is not sent.
func TestH1Injection(t *testing.T) { plain(t, testH1Injection) }

func testH1Injection(t *testing.T, open opens) {
	u := newRaw(t, answerOK)
	c := open(t, Options{})
	target, cred := targetAt(t, "http://"+u.addr+"/v1")
	cred.Secret = NewSecret("a\r\nX-Smuggled: 1")
	_, err := c.Send(t.Context(), target, cred, &Call{Endpoint: openai.Chat, Body: []byte("{}")})
	if e := fault.As(err); e.Kind != fault.Upstream || e.Status != 502 || strings.Contains(err.Error(), "Smuggled") || len(u.requests()) != 0 {
		t.Errorf("%v, %d requests", err, len(u.requests()))
	}
}

// TestH1Proxy: what the environment sends through a proxy goes through it.
func TestH1Proxy(t *testing.T) {
	var asked atomic.Value
	srv := newPlain(t, openNetHTTP, Timeouts{}, func(w http.ResponseWriter, r *http.Request) {
		asked.Store(r.RequestURI)
		_, _ = io.WriteString(w, "{}")
	}).srv
	t.Setenv("HTTP_PROXY", srv.URL)
	c := openClient(t, Options{})
	if c.operator.proxy == nil {
		t.Fatal("the environment is not asked")
	}
	at, err := url.Parse(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	// The environment is read once in a process: see http.ProxyFromEnvironment.
	via := http.ProxyURL(at)
	c.operator.proxy, c.operator.RoundTripper.(*http.Transport).Proxy = via, via
	target, cred := targetAt(t, "http://model.internal:8000/v1")
	r, err := c.Send(t.Context(), target, cred, &Call{Endpoint: openai.Chat, Body: []byte("{}")})
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	if asked.Load() != "http://model.internal:8000/v1/chat/completions" {
		t.Error(asked.Load())
	}
}
