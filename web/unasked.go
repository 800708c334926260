package web

import (
	"net"
	"sync"
	"time"

	"github.com/valyala/fasthttp"
)

// unasked are the connections on which no request has come yet: clients and
// balancers open some ahead of time. fasthttp takes such a one for busy until the
// time to read a request is over, and would wait for it at shutdown.
type unasked struct {
	mu    sync.Mutex
	conns map[net.Conn]struct{}
}

// unaskedWait is how long a request may still take to come, whole, on such a
// connection once the gateway stops.
const unaskedWait = time.Second

// state is fasthttp's hook.
func (u *unasked) state(c net.Conn, s fasthttp.ConnState) {
	switch s {
	case fasthttp.StateNew:
		u.mu.Lock()
		defer u.mu.Unlock()
		if u.conns == nil {
			u.conns = map[net.Conn]struct{}{}
		}
		u.conns[c] = struct{}{}
	case fasthttp.StateClosed, fasthttp.StateHijacked:
		u.asked(c)
	}
}

// asked is told of the first request.
func (u *unasked) asked(c net.Conn) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.conns, c)
}

// hurry gives the connections unaskedWait, until done: others may have been taken
// just before the listener closed.
func (u *unasked) hurry(done <-chan struct{}) {
	end := time.Now().Add(unaskedWait)
	again := time.NewTicker(unaskedWait / 10)
	defer again.Stop()
	for {
		u.mu.Lock()
		for c := range u.conns {
			_ = c.SetReadDeadline(end)
		}
		u.mu.Unlock()
		select {
		case <-again.C:
		case <-done:
			return
		}
	}
}
