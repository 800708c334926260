package test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// balancer is a plain TCP balancer, as stands in front of many gateways: it
// gives each connection to the next gateway that is ready and passes bytes on,
// both ways, until both sides have ended. It breaks nothing off itself. A
// gateway that refuses the connection is passed over for the next one; nothing
// else is ever tried again. Where none is ready it takes one that is not: a
// fleet without its database still serves who is known.
type balancer struct {
	URL string // without /v1

	ln      net.Listener
	all     []*backend
	turn    atomic.Int64
	stop    context.CancelFunc
	working sync.WaitGroup

	mu     sync.Mutex
	conns  map[string]int // which gateway has the connection from that address
	open   map[net.Conn]struct{}
	closed bool
}

// backend is a gateway behind a balancer.
type backend struct {
	addr, ready string
	up          atomic.Bool
	given       atomic.Int64 // connections
}

// Often enough that a gateway that stops is not chosen for long, and patient
// enough that one on a busy machine is not taken for dead.
const (
	readyEvery  = 50 * time.Millisecond
	readyWithin = time.Second
)

// newBalancer serves on a free port until the test ends. It has asked each
// gateway once when it returns.
func newBalancer(t *testing.T, gateways ...*gateway) *balancer {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	b := &balancer{URL: "http://" + ln.Addr().String(), ln: ln, stop: cancel, conns: map[string]int{}, open: map[net.Conn]struct{}{}}
	for _, g := range gateways {
		back := &backend{addr: g.URL[len("http://"):], ready: g.OpsURL + "/readyz"}
		back.ask(ctx)
		b.all = append(b.all, back)
		b.working.Go(func() { back.watch(ctx) })
	}
	b.working.Go(b.accept)
	t.Cleanup(b.close)
	return b
}

func (b *balancer) close() {
	b.stop()
	_ = b.ln.Close()
	b.mu.Lock()
	b.closed = true
	for c := range b.open {
		_ = c.Close()
	}
	b.mu.Unlock()
	b.working.Wait()
}

func (k *backend) watch(ctx context.Context) {
	tick := time.NewTicker(readyEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			k.ask(ctx)
		case <-ctx.Done():
			return
		}
	}
}

func (k *backend) ask(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	status, _, err := fetch(ctx, http.MethodGet, k.ready, "", nil)
	k.up.Store(err == nil && status == http.StatusOK)
}

func (b *balancer) accept() {
	for {
		c, err := b.ln.Accept()
		if err != nil {
			return
		}
		b.working.Go(func() { b.pass(c.(*net.TCPConn)) })
	}
}

// pass gives the connection to a gateway.
func (b *balancer) pass(client *net.TCPConn) {
	defer func() { _ = client.Close() }()
	server, err := b.connect(client.RemoteAddr().String())
	if err != nil {
		return // no gateway is left: the client sees the end
	}
	defer func() { _ = server.Close() }()
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return
	}
	b.open[client], b.open[server] = struct{}{}, struct{}{}
	b.mu.Unlock()
	join(client, server)
	b.mu.Lock()
	delete(b.open, client)
	delete(b.open, server)
	b.mu.Unlock()
}

// connect asks each gateway at most once, the ready ones first.
func (b *balancer) connect(client string) (*net.TCPConn, error) {
	first := int(b.turn.Add(1))
	for _, ready := range []bool{true, false} {
		for i := range b.all {
			n := (first + i) % len(b.all)
			k := b.all[n]
			if k.up.Load() != ready {
				continue
			}
			c, err := net.DialTimeout("tcp", k.addr, 10*time.Second)
			if err != nil {
				k.up.Store(false)
				continue
			}
			k.given.Add(1)
			b.mu.Lock()
			b.conns[client] = n
			b.mu.Unlock()
			return c.(*net.TCPConn), nil
		}
	}
	return nil, errors.New("no gateway takes connections")
}

// gatewayOf says which gateway has, or had, the connection from that address;
// -1 if none.
func (b *balancer) gatewayOf(client string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	n, ok := b.conns[client]
	if !ok {
		return -1
	}
	return n
}

// waitUp waits until the balancer takes gateway n for ready, or not.
func (b *balancer) waitUp(t *testing.T, n int, up bool) {
	t.Helper()
	eventually(t, 30*time.Second, "the balancer notices", func() bool { return b.all[n].up.Load() == up })
}

// join passes bytes both ways until both have ended. The end of one direction
// is passed on as such; a connection that broke breaks the other.
func join(a, b *net.TCPConn) {
	var both sync.WaitGroup
	pass := func(to, from *net.TCPConn) {
		if _, err := io.Copy(to, from); err != nil {
			_ = to.SetLinger(0)
			_ = errors.Join(to.Close(), from.Close())
			return
		}
		_ = to.CloseWrite()
	}
	both.Go(func() { pass(a, b) })
	both.Go(func() { pass(b, a) })
	both.Wait()
}

// link is the way to one server, which a test can block or break.
type link struct {
	addr string // where it is reached instead of the server

	server  string
	ln      net.Listener
	working sync.WaitGroup

	mu    sync.Mutex
	flows chan struct{} // closed while bytes pass
	cut   bool
	open  map[net.Conn]struct{}
}

// newLink passes on to server until the test ends.
func newLink(t *testing.T, server string) *link {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &link{addr: ln.Addr().String(), server: server, ln: ln, flows: make(chan struct{}), open: map[net.Conn]struct{}{}}
	close(l.flows)
	l.working.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			l.working.Go(func() { l.pass(c) })
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		l.breakAll()
		l.resume()
		l.working.Wait()
	})
	return l
}

func (l *link) pass(client net.Conn) {
	defer func() { _ = client.Close() }()
	server, err := net.DialTimeout("tcp", l.server, 10*time.Second)
	if err != nil {
		return
	}
	defer func() { _ = server.Close() }()
	l.mu.Lock()
	if l.cut {
		l.mu.Unlock()
		return
	}
	l.open[client], l.open[server] = struct{}{}, struct{}{}
	l.mu.Unlock()
	var both sync.WaitGroup
	for _, way := range [][2]net.Conn{{client, server}, {server, client}} {
		both.Go(func() {
			_, _ = io.Copy(slowly{l, way[0]}, way[1])
			_ = errors.Join(client.Close(), server.Close())
		})
	}
	both.Wait()
	l.mu.Lock()
	delete(l.open, client)
	delete(l.open, server)
	l.mu.Unlock()
}

// slowly writes while the link's bytes flow, and waits until then.
type slowly struct {
	l  *link
	to net.Conn
}

func (s slowly) Write(b []byte) (int, error) {
	s.l.mu.Lock()
	flows := s.l.flows
	s.l.mu.Unlock()
	<-flows
	return s.to.Write(b)
}

// pause lets no byte through; nobody is told. What was sent meanwhile arrives
// with resume.
func (l *link) pause() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.flows = make(chan struct{})
}

func (l *link) resume() {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.flows:
	default:
		close(l.flows)
	}
}

// sever breaks every connection, and those that are made until mend.
func (l *link) sever() {
	l.mu.Lock()
	l.cut = true
	l.mu.Unlock()
	l.breakAll()
}

func (l *link) mend() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = false
}

func (l *link) breakAll() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.open {
		_ = c.Close()
	}
}
