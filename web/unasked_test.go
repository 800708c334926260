package web

import (
	"context"
	"net"
	"testing"
	"time"

	"bulkhead/tenant"
)

// TestShutdownUnasked: connections that clients have opened ahead of time and
// asked nothing on do not keep the gateway from stopping, and one on which a
// request comes just then is answered.
func TestShutdownUnasked(t *testing.T) {
	f := func(o labOptions) {
		t.Helper()
		o.settings = func(s *Settings) { s.BodyTimeout = time.Hour }
		l := newLab(t, o)
		key, _ := l.company("acme", tenant.KeyLive, nil)
		for range 3 {
			c, err := net.Dial("tcp", l.addr)
			must(t, err)
			defer c.Close()
		}
		late := l.dial()
		eventually(t, "the connections are there", func() bool {
			l.g.unasked.mu.Lock()
			defer l.g.unasked.mu.Unlock()
			return len(l.g.unasked.conns) == 4
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		down := make(chan error, 1)
		go func() { down <- l.g.Shutdown(ctx) }()
		eventually(t, "it is not ready any more", func() bool { return !l.g.ready.Load() })
		late.send(rawChat(key, "up/ok", ""))
		if a := late.answer(); a.status != 200 {
			t.Errorf("the late request: %s", a)
		}
		if err := <-down; err != nil || ctx.Err() != nil {
			t.Errorf("shutdown waited: %v, %v", err, ctx.Err())
		}
		l.g.unasked.mu.Lock()
		defer l.g.unasked.mu.Unlock()
		if n := len(l.g.unasked.conns); n != 0 {
			t.Errorf("%d connections are still kept", n)
		}
	}
	f(labOptions{})
	f(labOptions{tls: true})
}

// A connection is forgotten with its first request.
func TestUnaskedForgets(t *testing.T) {
	l := newLab(t, labOptions{})
	key, _ := l.company("acme", tenant.KeyLive, nil)
	for range 3 {
		if a := l.chat(key, "up/ok", ""); a.status != 200 {
			t.Fatalf("%s", a)
		}
	}
	l.client.CloseIdleConnections()
	eventually(t, "no connection is kept", func() bool {
		l.g.unasked.mu.Lock()
		defer l.g.unasked.mu.Unlock()
		return len(l.g.unasked.conns) == 0
	})
}
