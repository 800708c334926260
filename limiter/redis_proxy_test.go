package limiter_test

import (
	"net"
	"sync"
	"sync/atomic"
	"testing"
)

// proxy stands between a gateway and Redis, and breaks.
type proxy struct {
	net.Listener
	to   string
	lose atomic.Int64 // of so many replies one is lost, with its connection; 0 is none

	mu     sync.Mutex
	thawed chan struct{} // open while nothing passes
	conns  map[net.Conn]bool
	count  atomic.Int64
}

func newProxy(t *testing.T, to string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{Listener: l, to: to, thawed: make(chan struct{}), conns: map[net.Conn]bool{}}
	close(p.thawed)
	t.Cleanup(func() {
		l.Close()
		p.cut()
	})
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go p.serve(c)
		}
	}()
	return p
}

func (p *proxy) url() string { return "redis://" + p.Addr().String() }

// freeze lets nothing pass, in neither direction, until thaw.
func (p *proxy) freeze() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.thawed = make(chan struct{})
}

func (p *proxy) thaw() {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.thawed)
}

// cut ends all connections: what is on its way in them is lost.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		c.Close()
	}
}

func (p *proxy) serve(c net.Conn) {
	defer c.Close()
	up, err := net.Dial("tcp", p.to)
	if err != nil {
		return
	}
	defer up.Close()
	p.mu.Lock()
	p.conns[c], p.conns[up] = true, true
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.conns, c)
		delete(p.conns, up)
	}()
	go p.pass(up, c, func() bool { return false })
	p.pass(c, up, func() bool {
		n := p.lose.Load()
		return n > 0 && p.count.Add(1)%n == 0
	})
}

// pass copies until lost says otherwise, and ends both then.
func (p *proxy) pass(to, from net.Conn, lost func() bool) {
	defer to.Close()
	defer from.Close()
	buf := make([]byte, 16<<10)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		p.mu.Lock()
		thawed := p.thawed
		p.mu.Unlock()
		<-thawed
		if lost() {
			return
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}
