//go:build linux

package web

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"bulkhead/tenant"
)

// seenWithin is how soon the provider must see that the client has left
// (DESIGN section 10). It takes about a millisecond.
const seenWithin = time.Second

// TestClientCloseSeen: the provider's connection is closed when the client
// closes its own, whatever they are doing, and however it does.
func TestClientCloseSeen(t *testing.T) {
	type phase struct{ name, model, more, until string }
	phases := []phase{
		{"waiting for the header", "slow-header", "", ""},
		{"waiting for the header of a stream", "slow-header", streaming, ""},
		{"silence in an answer", "silent", "", ""},
		{"silence in a stream", "silent", streaming, "Hello"},
		{"mid-stream", "never-ending", streaming, "more"},
	}
	for _, secure := range []bool{false, true} {
		for _, reset := range []bool{false, true} {
			for _, p := range phases {
				t.Run(fmt.Sprintf("%s, tls %v, rst %v", p.name, secure, reset), func(t *testing.T) {
					l := newLab(t, labOptions{tls: secure})
					key, _ := l.company("acme", tenant.KeyLive, nil)
					c := l.dial()
					c.send(rawChat(key, "up/"+p.model, p.more))
					must(t, l.up.WaitRequests(1, patience))
					c.readUntil(p.until)
					if reset {
						c.reset()
					} else {
						must(t, c.Close())
					}
					begin := time.Now()
					if err := l.up.WaitClosed(1, seenWithin); err != nil {
						t.Errorf("not seen within %s: %s", time.Since(begin), err)
					}
					l.lines(1)
				})
			}
		}
	}
}

// readUntil reads until a line has text in it.
func (c *rawConn) readUntil(text string) {
	c.t.Helper()
	for text != "" {
		line, err := c.r.ReadString('\n')
		must(c.t, err)
		if strings.Contains(line, text) {
			return
		}
	}
}

// TestClientCloseSeenLate: the time a request's body may take has an end that
// must not end the watch over the client, nor the call.
func TestClientCloseSeenLate(t *testing.T) {
	const bodyTimeout = 50 * time.Millisecond
	f := func(model, more, until string) {
		t.Helper()
		l := newLab(t, labOptions{settings: func(s *Settings) { s.BodyTimeout, s.WriteTimeout = bodyTimeout, bodyTimeout }})
		key, _ := l.company("acme", tenant.KeyLive, nil)
		c := l.dial()
		c.send(rawChat(key, "up/"+model, more))
		must(t, l.up.WaitRequests(1, patience))
		c.readUntil(until)
		if !c.stays(4 * bodyTimeout) {
			t.Fatalf("%s: the call ended with the time for its body", model)
		}
		must(t, c.Close())
		must(t, l.up.WaitClosed(1, seenWithin))
	}
	f("slow-header", "", "")
	f("slow-header", streaming, "")
	f("silent", streaming, "Hello\"")
}

// stays reports whether for so long nothing comes and the connection stays open.
func (c *rawConn) stays(d time.Duration) bool {
	c.t.Helper()
	for c.r.Buffered() > 0 { // the rest of what has come already
		_, _ = c.r.Discard(c.r.Buffered())
	}
	must(c.t, c.SetReadDeadline(time.Now().Add(d)))
	defer func() { _ = c.SetReadDeadline(time.Now().Add(patience)) }()
	_, err := c.r.Peek(1)
	return isTimeout(err)
}

// TestPipelinedBytesAreNoClose: bytes of a next request are not taken for the
// client's leaving, nor lost.
func TestPipelinedBytesAreNoClose(t *testing.T) {
	l := newLab(t, labOptions{})
	key, _ := l.company("acme", tenant.KeyLive, nil)
	c := l.dial()
	c.send(rawChat(key, "up/hold", ""))
	must(t, l.up.WaitRequests(1, patience))
	next := rawChat(key, "up/chunks-3", "")
	c.send(next[:10])
	if !c.stays(50 * time.Millisecond) {
		t.Fatal("the call was ended")
	}
	c.send(next[10:])
	l.up.Release()
	for _, want := range []string{"Hello from the upstream", "c0 c1 c2"} {
		if a := c.answer(); a.status != 200 || !strings.Contains(a.body, want) {
			t.Errorf("%s, want %s", a, want)
		}
	}
}
