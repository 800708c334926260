package limiter_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"bulkhead/fault"
	"bulkhead/limiter"
	"bulkhead/limiter/limitertest"
	"bulkhead/redisdb"
	"bulkhead/test/servers"
)

// fleet is some gateways over one Redis with traffic.
func fleet(t *testing.T, url string, n int, o limiter.RedisOptions) ([]*limiter.Redis, *traffic) {
	ledger := limitertest.NewLedger()
	o.Book = ledger
	if o.Heartbeat == 0 {
		o.Heartbeat = 300 * time.Millisecond // a machine that does much else misses shorter ones
	}
	var all []*limiter.Redis
	var limiters []limiter.Limiter
	for range n {
		l := gateway(t, url, o)
		all, limiters = append(all, l), append(limiters, l)
	}
	return all, newTraffic(t, ledger, 2000*usd, limiters...)
}

func do(t *testing.T, c *redisdb.Client, command ...string) any {
	t.Helper()
	reply, err := c.Do(t.Context(), command...)
	if err != nil {
		t.Fatalf("%v: %s", command, err)
	}
	return reply
}

// All is flushed under load, twice.
func TestRedisFlushed(t *testing.T) {
	server := servers.Start(t, "redis")
	direct := redisClient(t, server.Var("REDIS_URL"))
	all, f := fleet(t, server.Var("REDIS_URL"), 3, limiter.RedisOptions{})
	open := f.take(f.all, 7*usd) // runs all the time
	f.run(20)
	for range 2 {
		f.moreCalls(300)
		away := f.away.Load()
		do(t, direct, "FLUSHALL")
		start := time.Now()
		eventually(t, "it is noticed", func() bool { return f.away.Load() > away })
		f.moreCalls(1)
		t.Logf("calls are admitted again after %s", time.Since(start))
	}
	f.moreCalls(300)
	f.halt(all...)
	f.stands(f.bill.Load(), 7*usd, all...)
	f.end(open, usd)
	f.flush(all...)
	f.exact(all...)
}

// dataOf is the folder where a server keeps its data.
func dataOf(server *servers.Server) string {
	addr := server.Var("REDIS_ADDR")
	return filepath.Join(server.Dir, addr[strings.LastIndexByte(addr, ':')+1:], "appendonlydir")
}

// The server comes back with what it had a while ago, when an attempt ran that
// has ended since and is in the store: nobody has it any more.
func TestRedisOldData(t *testing.T) {
	server := servers.Start(t, "redis")
	data, old := dataOf(server), filepath.Join(t.TempDir(), "old")
	all, f := fleet(t, server.Var("REDIS_URL"), 2, limiter.RedisOptions{})
	ended, runs := f.take(all[0], usd), f.take(all[1], 3*usd)
	if err := os.CopyFS(old, os.DirFS(data)); err != nil {
		t.Fatal(err)
	}
	f.end(ended, usd/2)
	f.ship(1)
	f.flush(all...)
	f.stands(usd/2, 3*usd, all...)
	if err := server.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.RemoveAll(data), os.CopyFS(data, os.DirFS(old)), server.Again(t.Context())); err != nil {
		t.Fatal(err)
	}
	f.stands(usd/2, 3*usd, all...)
	f.end(runs, usd)
	f.flush(all...)
	f.exact(all...)
}

// The server is killed and comes back with nothing, and then with what it had a
// while ago.
func TestRedisRestarts(t *testing.T) {
	server := servers.Start(t, "redis")
	data := dataOf(server)
	all, f := fleet(t, server.Var("REDIS_URL"), 2, limiter.RedisOptions{})
	open := f.take(f.all, 7*usd)
	f.run(10)
	restart := func(between func()) {
		t.Helper()
		f.moreCalls(200)
		if err := syscall.Kill(server.PIDs("REDIS_PID")[0], syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		between()
		if err := server.Again(t.Context()); err != nil {
			t.Fatal(err)
		}
		f.moreCalls(200)
	}
	old := t.TempDir()
	restart(func() { // with what it had, and it is kept
		if err := os.CopyFS(filepath.Join(old, "data"), os.DirFS(data)); err != nil {
			t.Fatal(err)
		}
	})
	restart(func() { // with what it had before all that
		if err := os.RemoveAll(data); err != nil {
			t.Fatal(err)
		}
		if err := os.CopyFS(data, os.DirFS(filepath.Join(old, "data"))); err != nil {
			t.Fatal(err)
		}
	})
	restart(func() {
		if err := os.RemoveAll(data); err != nil {
			t.Fatal(err)
		}
	})
	f.halt(all...)
	f.stands(f.bill.Load(), 7*usd, all...)
	f.end(open, usd)
	f.flush(all...)
	f.exact(all...)
}

// Single keys of a company are deleted, and all of them.
func TestRedisKeysDeleted(t *testing.T) {
	server := servers.Start(t, "redis")
	direct := redisClient(t, server.Var("REDIS_URL"))
	all, f := fleet(t, server.Var("REDIS_URL"), 2, limiter.RedisOptions{})
	tag := "bh:{" + f.s.ID().String() + "}:"
	keys := []string{tag + "counts", tag + "attempts", tag + "due"}
	open := []*one{f.take(all[0], 7*usd), f.take(all[1], 5*usd)}
	f.run(10)
	for _, gone := range [][]string{{keys[0]}, {keys[1]}, {keys[2]}, {keys[0], keys[1]}, keys} {
		f.moreCalls(100)
		away := f.away.Load()
		if do(t, direct, append([]string{"DEL"}, gone...)...) != int64(len(gone)) {
			t.Fatal("not all are there")
		}
		eventually(t, "it is noticed", func() bool { return f.away.Load() > away })
	}
	f.moreCalls(100)
	f.halt(all...)
	f.stands(f.bill.Load(), 12*usd, all...)
	for _, a := range open {
		f.end(a, usd)
	}
	f.flush(all...)
	f.exact(all...)
}

// The server freezes: nobody waits for it and nobody is admitted. What was sent
// to it meanwhile it does when it goes on, and none of it stays.
func TestRedisFrozen(t *testing.T) {
	server := servers.Start(t, "redis")
	all, f := fleet(t, server.Var("REDIS_URL"), 2, limiter.RedisOptions{Patience: 230 * time.Millisecond})
	f.run(20)
	f.moreCalls(200)
	pid := server.PIDs("REDIS_PID")[0]
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	away := f.away.Load()
	eventually(t, "it is noticed", func() bool { return f.away.Load() > away+20 })
	before := f.calls.Load()
	f.slowest.Store(0)
	eventually(t, "many have waited", func() bool { return f.away.Load() > away+200 })
	if n := f.calls.Load() - before; n > 0 {
		t.Errorf("%d calls were admitted by a server that is frozen", n)
	}
	if d := time.Duration(f.slowest.Load()); d > 250*time.Millisecond+750*time.Millisecond {
		t.Errorf("one waited %s", d)
	} else {
		t.Logf("the slowest waited %s", d)
	}
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	f.moreCalls(200)
	f.halt(all...)
	if f.lost.Load() > 0 {
		t.Errorf("%d holds were lost in a short freeze", f.lost.Load())
	}
	f.exact(all...)
}

// The server freezes for longer than a lease: nobody could renew, and nobody is
// taken for dead.
func TestRedisFrozenLong(t *testing.T) {
	server := servers.Start(t, "redis")
	const lease = 4 * time.Second
	all, f := fleet(t, server.Var("REDIS_URL"), 2, limiter.RedisOptions{Patience: 230 * time.Millisecond, Lease: lease})
	var open []*one
	for i := range 20 {
		open = append(open, f.take(all[i%2], usd))
	}
	pid, start := server.PIDs("REDIS_PID")[0], time.Now()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is longer than a lease", func() bool { return time.Since(start) > lease+time.Second/2 })
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	f.run(5)
	f.moreCalls(200)
	again := time.Now()
	eventually(t, "leases were renewed", func() bool { return time.Since(again) > lease/2 })
	f.halt(all...)
	f.stands(f.bill.Load(), 20*usd, all...)
	if f.lost.Load() > 0 {
		t.Errorf("%d holds were lost", f.lost.Load())
	}
	for _, a := range open {
		f.end(a, 0)
	}
	f.flush(all...)
	f.exact(all...)
}

// Thousands of holds are said anew in one go.
func TestRedisManyHolds(t *testing.T) {
	server := servers.Start(t, "redis")
	direct := redisClient(t, server.Var("REDIS_URL"))
	all, f := fleet(t, server.Var("REDIS_URL"), 2, limiter.RedisOptions{})
	var open []*one
	for i := range 3000 {
		open = append(open, f.take(all[i%2], usd/10))
	}
	do(t, direct, "FLUSHALL")
	open = append(open, f.take(all[0], usd/10))
	f.stands(0, 3001*usd/10, all...)
	for _, a := range open {
		f.end(a, 1000)
	}
	f.flush(all...)
	f.exact(all...)
}

// The server is not there when the gateway starts.
func TestRedisAbsent(t *testing.T) {
	server := servers.Start(t, "redis")
	if err := server.Stop(); err != nil {
		t.Fatal(err)
	}
	ledger := limitertest.NewLedger()
	c, err := redisdb.Open(server.Var("REDIS_URL"), redisdb.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	l := limiter.OpenRedis(c, limiter.RedisOptions{Options: limiter.Options{Book: ledger}, Heartbeat: 100 * time.Millisecond})
	defer l.Close()
	f := newTraffic(t, ledger, 100*usd, l)
	for range 20 {
		_, err := f.hold(l, usd)
		if e := fault.As(err); e.Kind != fault.Unavailable || e.RetryAfter <= 0 || strings.Contains(e.Message, "127.0.0.1") {
			t.Fatalf("got %v", err)
		}
		if _, err := l.Standing(t.Context(), f.s, f.budgets); !fault.Is(err, fault.Unavailable) {
			t.Fatalf("got %v", err)
		}
	}
	if l.Ready() == nil {
		t.Error("it says that it is ready")
	}
	if d := time.Duration(f.slowest.Load()); d > time.Second {
		t.Errorf("one waited %s", d)
	}
	if err := server.Again(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.end(f.take(l, usd), usd/2)
	f.flush(l)
	f.exact(l)
}

// The master is killed under load, and a replica takes over that may have less.
func TestRedisFailover(t *testing.T) {
	server := servers.Start(t, "redis-sentinel")
	url := "redis+sentinel://" + server.Var("REDIS_SENTINELS") + "/" + server.Var("REDIS_MASTER")
	all, f := fleet(t, url, 3, limiter.RedisOptions{Patience: 230 * time.Millisecond})
	open := f.take(f.all, 7*usd)
	f.run(20)
	f.moreCalls(300)
	away, start := f.away.Load(), time.Now()
	if err := syscall.Kill(server.PIDs("REDIS_PIDS")[0], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is noticed", func() bool { return f.away.Load() > away })
	f.moreCalls(1)
	t.Logf("calls are admitted again after %s", time.Since(start))
	f.moreCalls(300)
	f.halt(all...)
	f.stands(f.bill.Load(), 7*usd, all...)
	f.end(open, usd)
	f.flush(all...)
	f.exact(all...)
}

// One master of a Cluster is killed: companies elsewhere go on, those there come
// back exact.
func TestRedisClusterFailover(t *testing.T) {
	servers.SkipRace(t, servers.ClusterRace)
	server := servers.Start(t, "redis-cluster")
	for _, node := range server.List("REDIS_NODES") { // or all slots are refused while some have no master
		do(t, redisClient(t, "redis://"+node), "CONFIG", "SET", "cluster-require-full-coverage", "no")
	}
	all, first := fleet(t, "redis+cluster://"+server.Var("REDIS_CLUSTER"), 2, limiter.RedisOptions{Patience: 230 * time.Millisecond})
	flows := []*traffic{first}
	for range 11 { // with these no master has none, but once in a hundred times
		flows = append(flows, newTraffic(t, first.ledger, 2000*usd, all[0], all[1]))
	}
	for _, f := range flows {
		f.pause = 10 * time.Millisecond
		f.run(2)
	}
	for _, f := range flows {
		f.moreCalls(20)
	}
	if err := syscall.Kill(server.PIDs("REDIS_PIDS")[0], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	start, gone := time.Now(), 0
	eventually(t, "it is noticed", func() bool {
		gone = 0
		for _, f := range flows {
			if f.away.Load() > 20 {
				gone++
			}
		}
		return gone > 0
	})
	for _, f := range flows {
		f.moreCalls(20)
	}
	t.Logf("all are admitted again after %s, %d of %d companies were elsewhere", time.Since(start), len(flows)-gone, len(flows))
	if gone == len(flows) {
		t.Error("no company went on")
	}
	for _, f := range flows {
		f.halt(all...)
		f.exact(all...)
	}
}
