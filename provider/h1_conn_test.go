package provider

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"bulkhead/fault"
	"bulkhead/openai"
)

// TestH1Limits: how many connections are kept, and for how long.
func TestH1Limits(t *testing.T) {
	h := newHost(t, Timeouts{}, plainOK)
	p := h.client.operator.plain
	p.maxFree, p.maxIdle = 2, 3
	other := newHost(t, Timeouts{}, plainOK)
	other.client = h.client
	burst := func(h *host, n int) {
		t.Helper()
		var open []*Reply
		for range n {
			r, err := h.send(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			open = append(open, r)
		}
		for _, r := range open {
			_, _ = io.ReadAll(r.Body)
			r.Body.Close()
		}
	}
	f := func(here, there int) {
		t.Helper()
		p.mu.Lock()
		defer p.mu.Unlock()
		free := func(h *host) int {
			if p.hosts[h.addr] == nil {
				return 0
			}
			return len(p.hosts[h.addr].free)
		}
		n := 0
		for c := p.oldest; c != nil; c = c.newer {
			n++
		}
		if free(h) != here || free(other) != there || p.idle != here+there || n != p.idle {
			t.Errorf("%d and %d are kept, %d in all, %d in the list", free(h), free(other), p.idle, n)
		}
	}
	burst(h, 3)
	f(2, 0)
	burst(other, 3)
	f(1, 2) // the one that was not used for longest went
	burst(h, 1)
	f(1, 2)
	h.client.Close()
	f(0, 0)
	burst(h, 1)
	f(0, 0)
	if len(p.hosts) != 0 {
		t.Errorf("%d hosts are remembered", len(p.hosts))
	}
}

// TestH1IdleTime: a connection that nobody uses is closed after a while.
func TestH1IdleTime(t *testing.T) {
	h := newHost(t, Timeouts{}, plainOK)
	h.client.operator.plain.idleConn = 20 * time.Millisecond
	for range 3 {
		if _, err := h.read(t); err != nil {
			t.Fatal(err)
		}
		// The test server reads the next request: so the end shows in the pool.
		p := h.client.operator.plain
		await(t, func() bool {
			p.mu.Lock()
			defer p.mu.Unlock()
			return p.idle+len(p.hosts) == 0
		})
	}
}

// TestH1Busy: calls beyond the most there may be at one host wait their turn, no
// longer than they may take, and nothing of one that gives up is sent.
func TestH1Busy(t *testing.T) {
	let := make(chan struct{})
	var at atomic.Int64
	u := newPlain(t, openClient, Timeouts{Header: time.Second}, func(w http.ResponseWriter, r *http.Request) {
		at.Add(1)
		w.Header().Set("Content-Length", "2")
		_, _ = io.WriteString(w, "{")
		_ = http.NewResponseController(w).Flush()
		<-let
		_, _ = io.WriteString(w, "}")
	})
	p := u.client.operator.plain
	p.maxBusy = 1
	first, err := u.send(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	_, err = u.send(t.Context())
	wantTimeout(t, err, start, time.Second, "did not answer")
	if !Unsent(err) {
		t.Error("it is not known that nothing was sent")
	}
	ctx, cancel := context.WithCancel(t.Context())
	waits := func(n int) bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, h := range p.hosts {
			return len(h.waiting) == n
		}
		return false
	}
	ended := make(chan error, 2)
	go func() { _, err := u.send(ctx); ended <- err }()
	await(t, func() bool { return waits(1) })
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	u.client.timeouts.Header = time.Minute
	for range 2 {
		go func() {
			r, err := u.send(t.Context())
			if err == nil {
				_, err = io.ReadAll(r.Body)
				r.Body.Close()
			}
			ended <- err
		}()
	}
	await(t, func() bool { return waits(2) })
	if n := at.Load(); n != 1 {
		t.Errorf("%d calls are at the upstream", n)
	}
	close(let)
	_, _ = io.ReadAll(first.Body)
	first.Body.Close()
	for range 2 {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if h := p.hosts[u.srv.Listener.Addr().String()]; h == nil || h.busy != 0 || len(h.free) != 1 {
		t.Errorf("%+v", h)
	}
}

// await waits for a condition that comes about by itself.
func await(t *testing.T, is func() bool) {
	t.Helper()
	again := time.NewTicker(time.Millisecond)
	defer again.Stop()
	for end := time.Now().Add(20 * time.Second); !is(); <-again.C {
		if time.Now().After(end) {
			t.Fatal("it does not come about")
		}
	}
}

// TestH1BusyRace: who gives up in the moment in which its turn comes gives it on.
func TestH1BusyRace(t *testing.T) {
	p := newH1(&http.Transport{MaxConnsPerHost: 1})
	h := &h1Host{addr: "a:1", busy: 1}
	p.hosts[h.addr] = h
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	x := &exchange{parent: ctx}
	x.begin(&Timeouts{Header: time.Minute, Idle: time.Minute, Total: time.Minute})
	// Its turn was given to it, and it has not seen that yet.
	if err := p.wait(x, h, make(chan struct{})); !errors.Is(err, context.Canceled) || h.busy != 0 || len(p.hosts) != 0 {
		t.Errorf("%v, %d are busy", err, h.busy)
	}
}

// TestH1Late: what is done with a call after its end does not touch the next one on
// its connection.
func TestH1Late(t *testing.T) {
	let := make(chan struct{})
	u := newPlain(t, openClient, Timeouts{}, func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.Header.Get("X-Client-Request-Id"), "waits") {
			<-let
		}
		_, _ = io.WriteString(w, r.RemoteAddr)
	})
	ctx, cancel := context.WithCancel(t.Context())
	r, err := u.send(ctx)
	if err != nil {
		t.Fatal(err)
	}
	first, _ := io.ReadAll(r.Body)
	got := make(chan string)
	go func() {
		next, err := u.client.Send(t.Context(), u.target, u.cred, &Call{Endpoint: openai.Chat, Body: []byte("{}"), RequestID: "waits"})
		if err != nil {
			got <- err.Error()
			return
		}
		defer next.Body.Close()
		b, _ := io.ReadAll(next.Body)
		got <- string(b)
	}()
	p := u.client.operator.plain
	await(t, func() bool { p.mu.Lock(); defer p.mu.Unlock(); return p.idle == 0 })
	cancel()
	r.Body.Close()
	r.Body.(*exchange).hurry(0)
	r.Body.(*exchange).Interrupt()
	if _, err := r.Body.Read(make([]byte, 1)); err != io.EOF {
		t.Error(err)
	}
	close(let)
	if second := <-got; second != string(first) {
		t.Errorf("%s, then %s", first, second)
	}
}

// ending is a context that tells its attempts of its end.
type ending struct {
	context.Context
	mu sync.Mutex
	x  Interrupter
	on int
}

func (e *ending) OnEnd(x Interrupter) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.Err() != nil || e.x != nil {
		return false
	}
	e.x = x
	e.on++
	return true
}

func (e *ending) Off(x Interrupter) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.x == x {
		e.x = nil
	}
}

// TestH1Ending: a context that tells of its end is asked to, in both phases and for
// as long as the attempt takes; where it tells another one, its end is seen anyway.
func TestH1Ending(t *testing.T) {
	gone, wait := left()
	came := make(chan struct{}, 9)
	u := newPlain(t, openClient, Timeouts{}, func(w http.ResponseWriter, r *http.Request) {
		switch r.Header.Get("X-Client-Request-Id") {
		case "whole":
			_, _ = io.WriteString(w, "{}")
			return
		case "body":
			_, _ = io.WriteString(w, "data")
			_ = http.NewResponseController(w).Flush()
		}
		came <- struct{}{}
		wait(r)
	})
	f := func(phase string, busy bool) {
		t.Helper()
		ctx, cancel := context.WithCancel(t.Context())
		e := &ending{Context: ctx}
		if busy {
			e.x = new(exchange)
		}
		end := func() {
			<-came
			cancel()
			e.mu.Lock()
			x := e.x
			e.mu.Unlock()
			if !busy && x != nil {
				x.Interrupt()
			}
		}
		if phase == "head" {
			go end()
		}
		r, err := u.client.Send(e, u.target, u.cred, &Call{Endpoint: openai.Chat, Body: []byte("{}"), RequestID: phase})
		if phase != "head" {
			if err != nil {
				t.Fatal(err)
			}
			if phase == "body" {
				end()
			}
			_, err = io.ReadAll(r.Body)
			r.Body.Close()
		}
		if phase == "whole" {
			if err != nil {
				t.Error(err)
			}
		} else if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", phase, err)
		} else {
			within(t, gone, "the upstream sees the end")
		}
		cancel()
		if !busy && (e.on != 1 || e.x != nil) {
			t.Errorf("%s: asked %d times, and %v is left", phase, e.on, e.x)
		}
	}
	for _, busy := range []bool{false, true} {
		f("head", busy)
		f("body", busy)
		f("whole", busy)
	}
}

// TestH1Injection: a stored secret that would be two headers is not sent.
func TestH1Injection(t *testing.T) { plain(t, testH1Injection) }

func testH1Injection(t *testing.T, open opens) {
	u := newRaw(t, answerOK)
	c := open(t, Options{})
	target, cred := targetAt(t, "http://"+u.addr+"/v1")
	cred.Secret = NewSecret("a\r\nX-Smuggled: 1")
	_, err := c.Send(t.Context(), target, cred, &Call{Endpoint: openai.Chat, Body: []byte("{}")})
	if e := fault.As(err); e.Kind != fault.Upstream || e.Status != 502 || strings.Contains(err.Error(), "Smuggled") || len(u.requests()) != 0 {
		t.Errorf("%v, %d requests", err, len(u.requests()))
	}
}

// TestH1Proxy: what the environment sends through a proxy goes through it.
func TestH1Proxy(t *testing.T) {
	var asked atomic.Value
	srv := newPlain(t, openNetHTTP, Timeouts{}, func(w http.ResponseWriter, r *http.Request) {
		asked.Store(r.RequestURI)
		_, _ = io.WriteString(w, "{}")
	}).srv
	t.Setenv("HTTP_PROXY", srv.URL)
	c := openClient(t, Options{})
	if c.operator.proxy == nil {
		t.Fatal("the environment is not asked")
	}
	at, err := url.Parse(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	// The environment is read once in a process: see http.ProxyFromEnvironment.
	via := http.ProxyURL(at)
	c.operator.proxy, c.operator.RoundTripper.(*http.Transport).Proxy = via, via
	target, cred := targetAt(t, "http://model.internal:8000/v1")
	r, err := c.Send(t.Context(), target, cred, &Call{Endpoint: openai.Chat, Body: []byte("{}")})
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	if asked.Load() != "http://model.internal:8000/v1/chat/completions" {
		t.Error(asked.Load())
	}
}

// TestH1RoomsAreCleared: what one company's call was is gone before another's has
// the memory.
func TestH1RoomsAreCleared(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // a pool hides what another processor put there
	h := newHost(t, Timeouts{}, plainOK, "HTTP/1.1 200 OK\r\nBroken\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhalf"+hangUp)
	long := &Call{Endpoint: openai.Chat, Body: bytes.Repeat([]byte("x"), 2*maxJoined)}
	if r, err := h.client.Send(t.Context(), h.target, h.cred, long); err == nil {
		_, _ = io.ReadAll(r.Body)
	}
	cleared(t)
	for range 3 {
		_, _ = h.read(t)
		cleared(t)
	}
}

func cleared(t *testing.T) {
	t.Helper()
	for range 50 {
		if room := headRooms.Get().(*headRoom); *room != (headRoom{}) {
			t.Fatalf("%q is left of an answer", bytes.Trim(room[:], "\x00"))
		}
		if room := askRooms.Get().(*[maxJoined]byte); *room != ([maxJoined]byte{}) {
			t.Fatalf("%q is left of a request", bytes.Trim(room[:], "\x00"))
		}
	}
}
