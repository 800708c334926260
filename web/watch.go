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
	conn net.Conn
	call *call

	// of clientWatches, whose lock guards them
	older, newer *clientWatch
	due          time.Time
	waits        bool // for watchAfter to be over

	mu      sync.Mutex
	stopped bool
	unwatch func()
}

// watchAfter is far below the second within which an upstream must learn that
// its client left.
const watchAfter = 20 * time.Millisecond

// clientWatches are those that have not begun, in their order. They share a timer:
// one for each call would cost more than all else about the watch. The zero
// clientWatches is ready for use.
type clientWatches struct {
	mu             sync.Mutex
	oldest, newest *clientWatch
	timer          *time.Timer
	set            bool // the timer will fire
}

func (w *clientWatch) start(conn net.Conn, c *call) {
	w.conn, w.call = conn, c
	c.g.watches.add(w)
}

func (all *clientWatches) add(w *clientWatch) {
	all.mu.Lock()
	defer all.mu.Unlock()
	w.waits, w.due, w.older = true, time.Now().Add(watchAfter), all.newest
	if all.newest == nil {
		all.oldest = w
	} else {
		all.newest.newer = w
	}
	all.newest = w
	switch {
	case all.set:
	case all.timer == nil:
		all.timer = time.AfterFunc(watchAfter, all.begin)
	default:
		all.timer.Reset(watchAfter)
	}
	all.set = true
}

// remove takes w from the list, and reports whether it was there. The caller holds
// the lock.
func (all *clientWatches) remove(w *clientWatch) bool {
	if !w.waits {
		return false
	}
	if w.waits = false; w.older != nil {
		w.older.newer = w.newer
	} else {
		all.oldest = w.newer
	}
	if w.newer != nil {
		w.newer.older = w.older
	} else {
		all.newest = w.older
	}
	w.older, w.newer = nil, nil
	return true
}

// begin is what the timer does: it begins the watches whose time has come.
func (all *clientWatches) begin() {
	var due []*clientWatch
	all.mu.Lock()
	now := time.Now()
	for w := all.oldest; w != nil && !w.due.After(now); w = all.oldest {
		all.remove(w)
		due = append(due, w)
	}
	if all.set = all.oldest != nil; all.set {
		all.timer.Reset(all.oldest.due.Sub(now))
	}
	all.mu.Unlock()
	for _, w := range due {
		w.begin()
	}
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
	if w.conn == nil {
		return
	}
	all := &w.call.g.watches
	all.mu.Lock()
	early := all.remove(w)
	all.mu.Unlock()
	if early {
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
