package web

import (
	"net"
	"sync"
	"time"
)

// clientWatch tells a call when its client leaves. A watch parks a goroutine
// on the connection, which costs as much as a third of a short call: so it
// begins only when the call has taken watchAfter, and who left before that is
// seen then. The zero clientWatch watches nothing and may be stopped.
type clientWatch struct {
	conn  net.Conn
	call  *call
	timer *time.Timer

	mu      sync.Mutex
	stopped bool
	unwatch func()
}

// watchAfter is far below the second within which an upstream must learn that
// its client left.
const watchAfter = 20 * time.Millisecond

func (w *clientWatch) start(conn net.Conn, c *call) {
	w.conn, w.call = conn, c
	w.timer = time.AfterFunc(watchAfter, w.begin)
}

func (w *clientWatch) begin() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.stopped {
		w.unwatch = watchClose(w.conn, w.call.clientLeft)
	}
}

// stop returns when nothing touches the connection any more: fasthttp reads the
// next request from it.
func (w *clientWatch) stop() {
	if w.timer == nil || w.timer.Stop() {
		return // it never began
	}
	w.mu.Lock()
	w.stopped = true
	unwatch := w.unwatch
	w.unwatch = nil
	w.mu.Unlock()
	if unwatch != nil {
		unwatch()
	}
}
