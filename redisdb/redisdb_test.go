package redisdb_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"bulkhead/redisdb"
	"bulkhead/test/servers"
)

// bound is how long a call may take at most with the default deadline, on a
// machine that does much else.
const bound = 200*time.Millisecond + 800*time.Millisecond

var (
	incr = redisdb.NewScript(`return redis.call('INCRBY', KEYS[1], ARGV[1])`)
	echo = redisdb.NewScript(`return {KEYS[1], tonumber(ARGV[1]), false, {'a', 2}}`)
	fail = redisdb.NewScript(`return redis.call('HGET', KEYS[1])`)
)

func open(t *testing.T, url string, o redisdb.Options) *redisdb.Client {
	t.Helper()
	c, err := redisdb.Open(url, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// until polls until ok, for a minute at most.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); <-time.After(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("still not: %s", what)
		}
	}
}

// run runs incr and returns what it gave.
func run(c *redisdb.Client, key string) (int64, error) {
	reply, err := c.Run(context.Background(), incr, []string{key}, []string{"1"})
	n, _ := reply.(int64)
	return n, err
}

func TestSingle(t *testing.T) {
	server := servers.Start(t, "redis", "REDIS_PASSWORD=s3cret-canary")
	c := open(t, server.Var("REDIS_URL"), redisdb.Options{})
	if err := c.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	// A script is sent once and then known.
	for i := range int64(3) {
		if n, err := run(c, "n"); n != i+1 || err != nil {
			t.Fatalf("got %d, %v", n, err)
		}
	}
	if st := c.Stats(); st.Loads != 1 || st.Failed != 0 {
		t.Errorf("%+v", st)
	}
	// So it is when the server has forgotten it.
	if _, err := c.Do(t.Context(), "SCRIPT", "FLUSH"); err != nil {
		t.Fatal(err)
	}
	if n, err := run(c, "n"); n != 4 || err != nil {
		t.Errorf("got %d, %v", n, err)
	}
	reply, err := c.Run(t.Context(), echo, []string{"k"}, []string{"9007199254740991"})
	if got := fmt.Sprint(reply, err); got != "[k 9007199254740991 <nil> [a 2]] <nil>" {
		t.Errorf("got %s", got)
	}
	if reply, err := c.Do(t.Context(), "GET", "nothing"); reply != nil || err != nil {
		t.Errorf("got %v, %v", reply, err)
	}
	// What the server refuses is its answer, and not that it is away.
	_, err = c.Run(t.Context(), fail, []string{"k"}, nil)
	if answer, ok := errors.AsType[*redisdb.Answer](err); !ok || errors.Is(err, redisdb.ErrDown) {
		t.Errorf("got %v, %v", err, answer)
	}
	testAll(t, c)

	// Without the password nothing is said, with a wrong one neither.
	for _, url := range []string{"redis://" + server.Var("REDIS_ADDR"), "redis://:wrong-canary@" + server.Var("REDIS_ADDR")} {
		_, err := open(t, url, redisdb.Options{}).Do(t.Context(), "PING")
		if err == nil || strings.Contains(err.Error(), "canary") {
			t.Errorf("got %v", err)
		}
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if _, err := run(c, "n"); !errors.Is(err, redisdb.ErrDown) {
		t.Errorf("after Close: %v", err)
	}
}

// testAll runs many scripts at once, some that no node knows and one that fails.
func testAll(t *testing.T, c *redisdb.Client) {
	t.Helper()
	now := time.Now().UnixNano()
	own := redisdb.NewScript(fmt.Sprintf("-- %d\nreturn redis.call('INCRBY', KEYS[1], ARGV[1])", now))
	for round := range 2 {
		var calls []redisdb.Call
		for i := range 60 {
			calls = append(calls, redisdb.Call{Script: own, Keys: []string{fmt.Sprintf("all:%d:{%d}", now, i)}, Args: []string{"1"}})
		}
		calls[30].Script = fail
		for i, r := range c.RunAll(t.Context(), 5*time.Second, calls) {
			if i == 30 {
				if _, ok := errors.AsType[*redisdb.Answer](r.Err); !ok {
					t.Errorf("the one that fails: %v", r.Err)
				}
			} else if r.Err != nil || r.Reply != int64(round+1) {
				t.Fatalf("%d: got %v, %v", i, r.Reply, r.Err)
			}
		}
	}
}

// A server that is unfit is told apart from one that is away.
func TestFit(t *testing.T) {
	server := servers.Start(t, "redis")
	c := open(t, server.Var("REDIS_URL"), redisdb.Options{Probe: 10 * time.Millisecond})
	fit := func() bool { h := c.Health(); return !h.At.IsZero() && h.Err == nil && h.Fit() == nil }
	until(t, "fit", fit)
	n := c.Health().Nodes
	if len(n) != 1 || n[0].Role != "master" || len(n[0].Replication) != 40 || len(n[0].Run) != 40 || n[0].Policy != "noeviction" {
		t.Errorf("got %+v", n)
	}
	if _, err := c.Do(t.Context(), "CONFIG", "SET", "maxmemory-policy", "allkeys-lru"); err != nil {
		t.Fatal(err)
	}
	until(t, "unfit", func() bool { return !fit() })
	if err := c.Check(t.Context()); err == nil || !strings.Contains(err.Error(), "noeviction") || errors.Is(err, redisdb.ErrDown) {
		t.Errorf("got %v", err)
	}
	old := redisdb.Health{Nodes: []redisdb.Node{{Version: "6.2.14", Policy: "noeviction"}}}
	if err := old.Fit(); err == nil || !strings.Contains(err.Error(), "6.2.14") {
		t.Errorf("got %v", err)
	}
	if err := server.Stop(); err != nil {
		t.Fatal(err)
	}
	until(t, "away", func() bool { return c.Health().Err != nil })
	if err := c.Check(t.Context()); !errors.Is(err, redisdb.ErrDown) {
		t.Errorf("got %v", err)
	}
}

// quick expects that every call of many at once fails in time.
func quick(t *testing.T, c *redisdb.Client, calls int) {
	t.Helper()
	var wg sync.WaitGroup
	var slowest atomic.Int64
	for range calls {
		wg.Go(func() {
			start := time.Now()
			if _, err := run(c, "quick"); !errors.Is(err, redisdb.ErrDown) {
				t.Errorf("got %v", err)
			}
			if d := int64(time.Since(start)); d > slowest.Load() {
				slowest.Store(d)
			}
		})
	}
	wg.Wait()
	if d := time.Duration(slowest.Load()); d > bound {
		t.Errorf("one took %s", d)
	} else {
		t.Logf("the slowest of %d took %s", calls, d)
	}
}

// Nobody is there, and then somebody is.
func TestAbsent(t *testing.T) {
	server := servers.Start(t, "redis")
	if err := server.Stop(); err != nil {
		t.Fatal(err)
	}
	c := open(t, server.Var("REDIS_URL"), redisdb.Options{})
	quick(t, c, 100)
	if err := server.Again(t.Context()); err != nil {
		t.Fatal(err)
	}
	until(t, "there", func() bool { _, err := run(c, "n"); return err == nil })
}

// Somebody accepts connections and says nothing: new ones and those in use.
func TestFrozen(t *testing.T) {
	server := servers.Start(t, "redis")
	c := open(t, server.Var("REDIS_URL"), redisdb.Options{})
	if _, err := run(c, "n"); err != nil {
		t.Fatal(err)
	}
	pid := server.PIDs("REDIS_PID")[0]
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		quick(t, c, 200)
	}
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	until(t, "there again", func() bool { _, err := run(c, "n"); return err == nil })
}

// mute accepts connections and never answers.
func TestMute(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			defer c.Close()
		}
	}()
	for _, form := range []string{"redis://%s", "redis+sentinel://%s/m", "redis+cluster://%s"} {
		c := open(t, fmt.Sprintf(form, l.Addr()), redisdb.Options{})
		for range 2 {
			quick(t, c, 50)
		}
		for _, r := range c.RunAll(t.Context(), 300*time.Millisecond, []redisdb.Call{{Script: incr, Keys: []string{"k"}, Args: []string{"1"}}}) {
			if !errors.Is(r.Err, redisdb.ErrDown) {
				t.Errorf("%s: got %v", form, r.Err)
			}
		}
	}
}

// lossy passes on what clients say and, while lose is set, drops the answers
// and then the connection.
type lossy struct {
	net.Listener
	to   string
	lose atomic.Bool
}

func newLossy(t *testing.T, to string) *lossy {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &lossy{Listener: l, to: to}
	t.Cleanup(func() { l.Close() })
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

func (p *lossy) serve(c net.Conn) {
	defer c.Close()
	up, err := net.Dial("tcp", p.to)
	if err != nil {
		return
	}
	defer up.Close()
	go func() { _, _ = io.Copy(up, c); up.Close() }()
	buf := make([]byte, 4096)
	for {
		n, err := up.Read(buf)
		if err != nil || p.lose.Load() {
			return
		}
		if _, err := c.Write(buf[:n]); err != nil {
			return
		}
	}
}

// A script of which the answer is lost has been executed once.
func TestNotRepeated(t *testing.T) {
	server := servers.Start(t, "redis")
	direct := open(t, server.Var("REDIS_URL"), redisdb.Options{})
	proxy := newLossy(t, server.Var("REDIS_ADDR"))
	c := open(t, "redis://"+proxy.Addr().String(), redisdb.Options{Probe: time.Hour})
	if _, err := run(c, "n"); err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		proxy.lose.Store(true)
		if _, err := run(c, "n"); !errors.Is(err, redisdb.ErrDown) {
			t.Errorf("got %v", err)
		}
		proxy.lose.Store(false)
		until(t, "connected", func() bool { _, err := c.Do(t.Context(), "PING"); return err == nil })
		if n, err := direct.Do(t.Context(), "GET", "n"); err != nil || n != fmt.Sprint(i+2) {
			t.Fatalf("executed %v times, want %d: %v", n, i+2, err)
		}
	}
}

func TestSentinel(t *testing.T) {
	server := servers.Start(t, "redis-sentinel", "REDIS_PASSWORD=s3cret")
	url := fmt.Sprintf("redis+sentinel://:s3cret@%s/%s", server.Var("REDIS_SENTINELS"), server.Var("REDIS_MASTER"))
	c := open(t, url, redisdb.Options{Probe: 20 * time.Millisecond})
	if err := c.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	testAll(t, c)
	until(t, "probed", func() bool { return len(c.Health().Nodes) == 1 })
	before := c.Health().Nodes[0]
	if err := syscall.Kill(server.PIDs("REDIS_PIDS")[0], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	until(t, "failed over", func() bool { _, err := run(c, "after"); return err == nil })
	t.Logf("writes work again after %s", time.Since(start))
	until(t, "probed", func() bool { h := c.Health(); return h.Err == nil && h.Nodes[0].Run != before.Run })
	after := c.Health().Nodes[0]
	if after.Replication == before.Replication || after.Role != "master" {
		t.Errorf("before %+v, after %+v", before, after)
	}
}

func TestCluster(t *testing.T) {
	servers.SkipRace(t, servers.ClusterRace)
	server := servers.Start(t, "redis-cluster", "REDIS_PASSWORD=s3cret")
	c := open(t, "redis+cluster://:s3cret@"+server.Var("REDIS_CLUSTER"), redisdb.Options{Probe: 20 * time.Millisecond})
	if err := c.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	until(t, "probed", func() bool { return len(c.Health().Nodes) == 3 })
	testAll(t, c)
	// Keys of two slots are refused and not tried elsewhere.
	_, err := c.Run(t.Context(), redisdb.NewScript(`return redis.call('GET', KEYS[1])`), []string{"a", "b"}, nil)
	if _, ok := errors.AsType[*redisdb.Answer](err); !ok {
		t.Errorf("got %v", err)
	}
	// One master goes: the others go on, its slots come back.
	keys := make([]string, 30)
	for i := range keys {
		keys[i] = fmt.Sprintf("k{%d}", i)
	}
	if err := syscall.Kill(server.PIDs("REDIS_PIDS")[0], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	start, worked := time.Now(), 0
	for _, k := range keys {
		if _, err := run(c, k); err == nil {
			worked++
		} else if !errors.Is(err, redisdb.ErrDown) {
			t.Errorf("got %v", err)
		}
	}
	if worked == 0 || worked == len(keys) {
		t.Errorf("%d of %d keys work with one master away", worked, len(keys))
	}
	for _, k := range keys {
		until(t, "failed over", func() bool { _, err := run(c, k); return err == nil })
	}
	t.Logf("all slots work again after %s", time.Since(start))
	until(t, "failed over for RunAll", func() bool {
		var calls []redisdb.Call
		for _, k := range keys {
			calls = append(calls, redisdb.Call{Script: incr, Keys: []string{k}, Args: []string{"1"}})
		}
		for _, r := range c.RunAll(t.Context(), time.Second, calls) {
			if r.Err != nil {
				return false
			}
		}
		return true
	})
	testAll(t, c)
}
