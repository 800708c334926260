package provider

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

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
	mu     sync.Mutex    // guards from
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
