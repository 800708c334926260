package provider

import (
	"context"
	"net"
	"net/http"
	"slices"
	"sync"
	"syscall"
	"time"
)

// h1 sends calls over HTTP/1.1 in the clear: to addresses that begin with http://,
// where a self-hosted model or a proxy of the operator's stands. net/http does the
// same with two goroutines for each connection, a channel and a wake-up for each
// step, and a map for each header; that cost more than all else the gateway does
// for a short call. Here the caller's goroutine writes and reads.
//
// It keeps the connections that nobody uses. One is used again only if its last
// answer was read to its exact end and nothing stands behind it.
type h1 struct {
	dial     func(ctx context.Context, network, addr string) (net.Conn, error)
	idleConn time.Duration // how long an unused connection is kept
	maxIdle  int           // unused connections
	maxFree  int           // unused connections to one host
	maxBusy  int           // calls at one host, others wait; 0: no limit

	mu             sync.Mutex
	hosts          map[string]*h1Host
	idle           int
	oldest, newest *h1Conn // unused connections, in the order in which they came back
	closed         bool
}

// h1Host is a host and port while there is a connection to it. h1.mu guards it.
type h1Host struct {
	addr    string
	free    []*h1Conn // unused; the last one came back last
	busy    int       // calls that have a connection or make one
	waiting []chan struct{}
}

// h1Conn is one connection.
type h1Conn struct {
	net.Conn
	pool *h1
	host *h1Host
	raw  syscall.RawConn // nil: none of the system's
	look func(fd uintptr)
	said bool // something has come that nobody asked for

	older, newer *h1Conn // in the pool's list, while unused
	pooled       bool    // it is there; h1.mu guards these three

	mu    sync.Mutex
	x     *exchange // what it is used for
	dead  bool
	since time.Time // when it was last used
	timer *time.Timer
	due   time.Time // when the timer fires; zero: it does not
}

// newH1 returns one that dials and keeps connections as t does. They share none.
func newH1(t *http.Transport) *h1 {
	return &h1{
		dial: t.DialContext, idleConn: t.IdleConnTimeout,
		maxIdle: t.MaxIdleConns, maxFree: t.MaxIdleConnsPerHost, maxBusy: t.MaxConnsPerHost,
		hosts: make(map[string]*h1Host),
	}
}

// connect gives x a connection, and says whether it was used before.
func (p *h1) connect(x *exchange, addr string) (c *h1Conn, used bool, err error) {
	p.mu.Lock()
	h := p.hosts[addr]
	if h == nil {
		h = &h1Host{addr: addr}
		p.hosts[addr] = h
	}
	if p.maxBusy == 0 || h.busy < p.maxBusy {
		h.busy++
		c = p.take(h)
		p.mu.Unlock()
	} else {
		turn := make(chan struct{})
		h.waiting = append(h.waiting, turn)
		p.mu.Unlock()
		if err := p.wait(x, h, turn); err != nil {
			return nil, false, err
		}
		c = p.again(h)
	}
	for c != nil {
		if c.quiet() {
			return c, true, nil
		}
		c.close()
		c = p.again(h)
	}
	ctx, cancel := context.WithTimeoutCause(x.parent, x.left(), errLimit)
	defer cancel()
	nc, err := p.dial(ctx, "tcp", addr)
	if err != nil {
		x.over = context.Cause(ctx) == errLimit
		p.leave(h)
		return nil, false, err
	}
	return p.newConn(nc, h), false, nil
}

func (p *h1) newConn(nc net.Conn, h *h1Host) *h1Conn {
	c := &h1Conn{Conn: nc, pool: p, host: h}
	if sc, ok := nc.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			c.raw = raw
			c.look = func(fd uintptr) { c.said = readable(fd) }
		}
	}
	return c
}

// wait waits until a call to h ends, whose place is x's then.
func (p *h1) wait(x *exchange, h *h1Host, turn chan struct{}) error {
	ctx, cancel := context.WithTimeoutCause(x.parent, x.left(), errLimit)
	defer cancel()
	select {
	case <-turn:
		return nil
	case <-ctx.Done():
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if i := slices.Index(h.waiting, turn); i >= 0 {
		h.waiting = slices.Delete(h.waiting, i, i+1)
	} else {
		p.left(h) // it came in the same moment
	}
	x.over = context.Cause(ctx) == errLimit
	return ctx.Err()
}

func (p *h1) again(h *h1Host) *h1Conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.take(h)
}

// take removes the connection that was used last, nil if there is none. The
// caller holds the lock.
func (p *h1) take(h *h1Host) *h1Conn {
	n := len(h.free)
	if n == 0 {
		return nil
	}
	c := h.free[n-1]
	p.remove(c)
	return c
}

// remove takes c out of the pool. The caller holds the lock, and owns c then.
func (p *h1) remove(c *h1Conn) {
	c.pooled = false
	p.idle--
	i := len(c.host.free) - 1
	for c.host.free[i] != c {
		i--
	}
	c.host.free = slices.Delete(c.host.free, i, i+1)
	if c.older != nil {
		c.older.newer = c.newer
	} else {
		p.oldest = c.newer
	}
	if c.newer != nil {
		c.newer.older = c.older
	} else {
		p.newest = c.older
	}
	c.older, c.newer = nil, nil
	p.forget(c.host)
}

// put ends a call to c's host and keeps c, or the others in the place of the one
// that was not used for longest.
func (p *h1) put(c *h1Conn) {
	var surplus *h1Conn
	p.mu.Lock()
	switch {
	case p.closed || len(c.host.free) >= p.maxFree:
		surplus = c
	default:
		if p.idle >= p.maxIdle {
			surplus = p.oldest
			p.remove(surplus)
		}
		c.host.free = append(c.host.free, c)
		c.pooled, c.older = true, p.newest
		if p.idle++; p.newest == nil {
			p.oldest = c
		} else {
			p.newest.newer = c
		}
		p.newest = c
	}
	p.left(c.host)
	p.mu.Unlock()
	if surplus != nil {
		surplus.close()
	}
}

// leave ends a call to h whose connection is gone.
func (p *h1) leave(h *h1Host) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.left(h)
}

// left gives the place of a call to who has waited longest. The caller holds the
// lock.
func (p *h1) left(h *h1Host) {
	if len(h.waiting) > 0 {
		close(h.waiting[0])
		h.waiting = slices.Delete(h.waiting, 0, 1)
		return
	}
	h.busy--
	p.forget(h)
}

// forget drops a host that nothing is left of: companies choose hosts. The caller
// holds the lock.
func (p *h1) forget(h *h1Host) {
	if h.busy == 0 && len(h.free) == 0 {
		delete(p.hosts, h.addr)
	}
}

// close closes the connections nobody uses, and those in use once they are not.
func (p *h1) close() {
	p.mu.Lock()
	p.closed = true
	var all []*h1Conn
	for p.oldest != nil {
		all = append(all, p.oldest)
		p.remove(p.oldest)
	}
	p.mu.Unlock()
	for _, c := range all {
		c.close()
	}
}

// quiet reports whether c can be used again: its server has neither closed it nor
// sent anything. A request that is written to a connection which the server is
// closing may have been read or not, and is not sent again.
func (c *h1Conn) quiet() bool {
	if time.Since(c.since) >= c.pool.idleConn {
		return false
	}
	if c.raw == nil {
		return true
	}
	return c.raw.Control(c.look) == nil && !c.said
}

// own makes x what c is used for. first is when a limit of x may be over.
func (c *h1Conn) own(x *exchange, first time.Duration) {
	c.mu.Lock()
	c.x = x
	at := x.start.Add(min(first, c.pool.idleConn))
	if c.due.IsZero() || c.due.After(at) {
		c.sleep(time.Until(at))
	}
	c.mu.Unlock()
}

// sleep sets the timer. It is one for the life of the connection, and is set again
// when it fires: hardly ever by a call. The caller holds the lock.
func (c *h1Conn) sleep(d time.Duration) {
	d = max(d, 0)
	c.due = time.Now().Add(d)
	if c.timer == nil {
		c.timer = time.AfterFunc(d, c.fire)
	} else {
		c.timer.Reset(d)
	}
}

// fire is what the timer does: it closes the connection if a limit of its call is
// over or nobody has used it for long, and sleeps on otherwise.
func (c *h1Conn) fire() {
	c.mu.Lock()
	c.due = time.Time{}
	unused := false
	switch {
	case c.dead:
	case c.x != nil:
		wait, over := c.x.next()
		if over {
			c.x.over = true
			c.kill()
		} else {
			c.sleep(min(wait, c.pool.idleConn))
		}
	default:
		if left := c.pool.idleConn - time.Since(c.since); left > 0 {
			c.sleep(left)
		} else {
			unused = true
		}
	}
	c.mu.Unlock()
	if !unused {
		return
	}
	c.pool.mu.Lock()
	mine := c.pooled // else somebody has it now, who sets the timer
	if mine {
		c.pool.remove(c)
	}
	c.pool.mu.Unlock()
	if mine {
		c.close()
	}
}

func (c *h1Conn) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.kill()
}

// kill closes the connection; who reads or writes is told at once. The caller
// holds the lock.
func (c *h1Conn) kill() {
	if c.dead {
		return
	}
	c.dead = true
	_ = c.Conn.Close()
	if c.timer != nil {
		c.timer.Stop()
	}
}
