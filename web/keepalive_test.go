package web

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"bulkhead/tenant"
	"bulkhead/test/upstream"
)

const keepaliveLine = ": keepalive \n\n"

// slowStream sends its events with n keepalive intervals between them.
func slowStream(events int, pause time.Duration, pad ...string) func(*upstream.Call) {
	return func(c *upstream.Call) {
		c.StartStream()
		for i := range events {
			<-time.After(pause)
			c.Event(fmt.Appendf(nil, `{"choices":[{"index":0,"delta":{"content":"e%d%s"}}]}`, i, strings.Join(pad, "")))
		}
		c.Event([]byte(`{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}`))
		c.Event([]byte("[DONE]"))
	}
}

// TestKeepalive: in a silence a comment is sent each interval, in valid chunks,
// between events and never within one, and never after the end.
func TestKeepalive(t *testing.T) {
	const every = 10 * time.Millisecond
	l := newLab(t, labOptions{settings: func(s *Settings) { s.Keepalive = every }})
	key, _ := l.company("acme", tenant.KeyLive, nil)
	l.up.Handle("slow", slowStream(3, 10*every))
	a := l.chat(key, "up/slow", streaming)
	if a.err != nil || a.status != 200 {
		t.Fatalf("%s", a)
	}
	if n := strings.Count(a.body, keepaliveLine); n < 10 || n > 40 {
		t.Errorf("%d comments in a silence of 30 intervals", n)
	}
	want := ""
	for i := range 3 {
		want += fmt.Sprintf("data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"e%d\"}}]}\n\n", i)
	}
	want += "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n: bulkhead cost_usd=0 attempts=1\n\ndata: [DONE]\n\n"
	if got := strings.ReplaceAll(a.body, keepaliveLine, ""); got != want {
		t.Errorf("between the comments:\n%s", got)
	}

	// After the end the connection is silent until it is used again.
	c := l.dial()
	c.send(rawChat(key, "up/slow", streaming))
	if a := c.answer(); a.err != nil || !strings.Contains(a.body, keepaliveLine) {
		t.Errorf("%s", a)
	}
	must(t, c.SetReadDeadline(time.Now().Add(10*every)))
	if b, err := c.r.Peek(1); !isTimeout(err) {
		t.Errorf("after the end: %q, %v", b, err)
	}
	must(t, c.SetReadDeadline(time.Now().Add(patience)))
	c.send(rawChat(key, "up/ok", ""))
	if a := c.answer(); a.status != 200 {
		t.Errorf("%s", a)
	}
}

// TestKeepaliveOld: an HTTP/1.0 client gets none.
func TestKeepaliveOld(t *testing.T) {
	const every = 5 * time.Millisecond
	l := newLab(t, labOptions{settings: func(s *Settings) { s.Keepalive = every }})
	key, _ := l.company("acme", tenant.KeyLive, nil)
	l.up.Handle("slow", slowStream(2, 10*every))
	c := l.dial()
	c.send(strings.Replace(rawChat(key, "up/slow", streaming), "HTTP/1.1", "HTTP/1.0", 1))
	b, _ := io.ReadAll(c.r)
	if !bytes.Contains(b, []byte("[DONE]")) || bytes.Contains(b, []byte("keepalive \n")) {
		t.Errorf("got %s", b)
	}
}

// TestKeepaliveManyEvents: comments and events that come at the same moment do
// not get into each other. It is of use with the race detector too.
func TestKeepaliveManyEvents(t *testing.T) {
	comments := 0
	for _, secure := range []bool{false, true} {
		comments += manyEvents(newLab(t, labOptions{tls: secure, settings: func(s *Settings) { s.Keepalive = 100 * time.Microsecond }}))
	}
	if comments == 0 { // in one stream on a busy machine there may be none
		t.Error("no comment came, so nothing was tried")
	}
}

// manyEvents returns how many comments came.
func manyEvents(l *lab) int {
	t := l.t
	key, _ := l.company("acme", tenant.KeyLive, nil)
	l.up.Handle("often", slowStream(300, 150*time.Microsecond, strings.Repeat("x", 40<<10))) // more than fasthttp writes at once
	var all sync.WaitGroup
	var comments atomic.Int64
	for range 4 {
		all.Go(func() {
			a := l.chat(key, "up/often", streaming)
			body := strings.ReplaceAll(a.body, keepaliveLine, "")
			comments.Add(int64(strings.Count(a.body, keepaliveLine)))
			if n := strings.Count(body, "\n\n"); a.err != nil || n != 303 || strings.Contains(body, "keepalive") {
				t.Errorf("%d events, %v; the end is %s", n, a.err, a.body[max(0, len(a.body)-200):])
			}
		})
	}
	all.Wait()
	return int(comments.Load())
}

// halfConn takes some bytes and then no more.
type halfConn struct {
	net.Conn
	takes int
	got   bytes.Buffer
}

func (c *halfConn) SetWriteDeadline(time.Time) error { return nil }
func (c *halfConn) Write(p []byte) (int, error) {
	n := min(len(p), c.takes-c.got.Len())
	c.got.Write(p[:n])
	if n < len(p) {
		return n, errors.New("timed out")
	}
	return n, nil
}

// TestKeepaliveLost: after a comment of which only a part went out nothing may
// be written: the client would take it for the rest.
func TestKeepaliveLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		conn := &halfConn{takes: len(comment) + 3}
		lost := 0
		k := newKeepalive(conn, time.Second, time.Second, func() { lost++ })
		k.waiting()
		time.Sleep(1500 * time.Millisecond) // synctest's clock
		synctest.Wait()
		if !k.writing() || lost != 0 || conn.got.Len() != len(comment) {
			t.Errorf("a whole comment: lost %d, %q", lost, conn.got.String())
		}
		k.waiting()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if k.writing() || lost != 1 || conn.got.Len() != conn.takes {
			t.Errorf("a part of one: lost %d, %q", lost, conn.got.String())
		}
		k.stop()
	})
}

// TestOneConnection: streams and plain answers follow each other on one
// connection, also after pauses longer than the time for a body.
func TestOneConnection(t *testing.T) {
	const bodyTimeout = 50 * time.Millisecond
	l := newLab(t, labOptions{settings: func(s *Settings) {
		s.BodyTimeout, s.WriteTimeout, s.Keepalive = bodyTimeout, bodyTimeout, 10*time.Millisecond
	}})
	key, _ := l.company("acme", tenant.KeyLive, nil)
	l.up.Handle("slow", slowStream(2, 2*bodyTimeout))
	c := l.dial()
	for i, step := range []struct{ model, more string }{
		{"ok", streaming}, {"ok", ""}, {"", ""}, {"ok", ""}, {"slow", streaming}, {"status-500", ""}, {"chunks-2", streaming}, {"nobody", ""}, {"ok", ""},
	} {
		if step.model == "" {
			<-time.After(3 * bodyTimeout)
			continue
		}
		c.send(rawChat(key, "up/"+step.model, step.more))
		a := c.answer()
		if step.model != "status-500" && step.model != "nobody" && a.status != 200 || a.err != nil || a.header.Get("Connection") == "close" {
			t.Fatalf("step %d: %s", i, a)
		}
	}
	l.lines(8)
}

// TestLongStream: the time for a write begins anew with each.
func TestLongStream(t *testing.T) {
	const timeout = 60 * time.Millisecond
	l := newLab(t, labOptions{settings: func(s *Settings) { s.BodyTimeout, s.WriteTimeout = timeout, timeout }})
	key, _ := l.company("acme", tenant.KeyLive, nil)
	l.up.Handle("slow", slowStream(5, timeout))
	if a := l.chat(key, "up/slow", streaming); a.err != nil || !strings.Contains(a.body, "[DONE]") {
		t.Errorf("%s", a)
	}
}

// TestPipelined: requests sent at once are answered in order.
func TestPipelined(t *testing.T) {
	l := newLab(t, labOptions{})
	key, _ := l.company("acme", tenant.KeyLive, nil)
	c := l.dial()
	var all strings.Builder
	for i := range 6 {
		all.WriteString(rawChat(key, fmt.Sprintf("up/chunks-%d", i+1), []string{"", streaming}[i%2]))
	}
	all.WriteString(rawRequest("GET", key, "/v1/nothing", ""))
	all.WriteString(rawChat(key, "up/status-400", ""))
	c.send(all.String())
	for i := range 6 {
		a := c.answer()
		if a.err != nil || !strings.Contains(a.body, fmt.Sprintf("c%d ", i)) || strings.Contains(a.body, fmt.Sprintf("c%d ", i+1)) {
			t.Errorf("answer %d: %s", i, a)
		}
	}
	if a := c.answer(); a.status != 404 {
		t.Errorf("%s", a)
	}
	if a := c.answer(); a.status != 400 {
		t.Errorf("%s", a)
	}
}
