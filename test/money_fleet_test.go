package test

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"bulkhead/ledger"
	"bulkhead/redisdb"
	"bulkhead/test/scale"
	"bulkhead/test/servers"
	"bulkhead/test/upstream"
)

// hear waits until every gateway has heard of all changes of policy so far.
func (f *fleet) hear(t *testing.T) {
	t.Helper()
	begin := time.Now()
	for i := range f.all {
		eventually(t, everywhere, fmt.Sprintf("gateway %d has asked for changes", i), func() bool { return f.heard(t, i).After(begin) })
	}
}

// redisDo sends a command to the Redis at url.
func redisDo(t *testing.T, url string, command ...string) (reply any) {
	t.Helper()
	c, err := redisdb.Open(url, redisdb.Options{Timeout: 15 * time.Second}) // a gateway must not wait, a test may
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if reply, err = c.Do(t.Context(), command...); err != nil {
		t.Fatalf("%v: %s", command, err)
	}
	return reply
}

// freeze stops the process for so long, and lets it go on.
func freeze(t *testing.T, pid int, long time.Duration) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	<-time.After(long)
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
}

// paidRows are those of paidModel.
func paidRows(all []ledger.Entry) []ledger.Entry {
	return slices.DeleteFunc(all, func(e ledger.Entry) bool { return e.Provider != "openai" })
}

// TestMoneyStormFleet is TestMoneyStorm on Redis and PostgreSQL, with one gateway
// and with many behind a balancer: all the same, and they admit as much as one.
func TestMoneyStormFleet(t *testing.T) {
	s := scale.Of(t)
	if !s.Full() {
		t.Parallel()
	}
	var alone int64
	for _, n := range scale.Pick(s, []int{1, 3}, []int{1, 3, 10}) {
		redis := servers.Start(t, "redis")
		f := newFleet(t, nil, fleetOptions{gateways: n, redis: redis.Var("REDIS_URL")})
		c := f.members[0].company
		name := fmt.Sprintf("gateways_%d_", n)
		bill := storm(t, s, f.up, f.balancer.URL, f.all, c, stormOptions{figures: name, known: func() { f.hear(t) }})
		for i, g := range f.balancer.all {
			if g.given.Load() < 5 {
				t.Errorf("gateway %d was given %d connections", i, g.given.Load())
			}
		}
		f.stop(t)
		stormRows(t, bill, paidRows(f.entries(t, c)))
		if n == 1 {
			alone = bill.sum()
			continue
		}
		off := 100 * float64(bill.sum()-alone) / float64(alone)
		if math.Abs(off) > 1 {
			t.Errorf("%d gateways admit %d, one admits %d: %.2f %% off", n, bill.sum(), alone, off)
		}
		s.Figure(name+"more_than_one_percent", fmt.Sprintf("%+.2f", off))
	}
}

// TestMoneyStormTrouble flushes Redis in the middle of a storm at three gateways,
// and freezes it in another: what was billed before is not forgotten.
func TestMoneyStormTrouble(t *testing.T) {
	s := scale.Of(t)
	redis := servers.Start(t, "redis")
	f := newFleet(t, s, fleetOptions{redis: redis.Var("REDIS_URL")})
	for i, trouble := range []func(){
		func() { redisDo(t, redis.Var("REDIS_URL"), "FLUSHALL") },
		func() { freeze(t, redis.PIDs("REDIS_PID")[0], scale.Pick(s, time.Second, 10*time.Second)) },
	} {
		c := f.members[i].company
		bill := storm(t, s, f.up, f.balancer.URL, f.all, c, stormOptions{
			figures: []string{"flushed_", "frozen_"}[i], known: func() { f.hear(t) }, trouble: trouble,
		})
		eventually(t, 10*time.Second, "the ledger has it", func() bool { return costOf(f.entries(t, c)) == bill.sum() })
		stormRows(t, bill, paidRows(f.entries(t, c)))
	}
	f.stop(t)
}

// TestMoneyStormCluster kills a master of a Cluster in the middle of a storm at three
// gateways: the one that counts the company, then, when it is back, the one that has
// the registry of gateways. A replica takes over, which may have less; what was billed
// before is not forgotten.
func TestMoneyStormCluster(t *testing.T) {
	servers.SkipRace(t, servers.ClusterRace)
	s := scale.Of(t)
	redis := servers.Start(t, "redis-cluster")
	for _, node := range redis.List("REDIS_NODES") { // as documented: or all slots are refused while some have no master
		redisDo(t, "redis://"+node, "CONFIG", "SET", "cluster-require-full-coverage", "no")
	}
	f := newFleet(t, s, fleetOptions{redis: "redis+cluster://" + redis.Var("REDIS_CLUSTER")})
	for i, what := range []string{"company_", "registry_"} {
		c := f.members[i].company
		registry := what == "registry_" // companies that are open do without it
		bill := storm(t, s, f.up, f.balancer.URL, f.all, c, stormOptions{figures: what, known: func() { f.hear(t) }, quiet: registry, trouble: func() {
			key := "bh:{" + c.ID + "}:counts"
			if registry {
				key = "bh:gateways"
			}
			node := masterOf(t, redis, key)
			if err := syscall.Kill(redis.PIDs("REDIS_PIDS")[node], syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}})
		eventually(t, 15*time.Second, "the ledger has it", func() bool { return costOf(f.entries(t, c)) == bill.sum() })
		stormRows(t, bill, paidRows(f.entries(t, c)))
		if err := redis.Again(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	f.stop(t)
}

// masterOf returns which of the nodes of a Cluster is the master that has the key.
func masterOf(t *testing.T, cluster *servers.Server, key string) (node int) {
	t.Helper()
	nodes := cluster.List("REDIS_NODES")
	node = slices.IndexFunc(nodes, func(addr string) bool {
		c, err := redisdb.Open("redis://"+addr, redisdb.Options{Timeout: 15 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		role, err := c.Do(t.Context(), "ROLE")
		if err != nil {
			t.Fatal(err)
		}
		if list, ok := role.([]any); !ok || len(list) == 0 || list[0] != "master" {
			return false
		}
		n, err := c.Do(t.Context(), "EXISTS", key) // MOVED where another has it
		return err == nil && n == int64(1)
	})
	if node < 0 {
		t.Fatalf("no master has %s", key)
	}
	return node
}

// TestMoneySDKFleet: the SDK's own retry gets through what is only held, at
// whichever of three gateways it ends up.
func TestMoneySDKFleet(t *testing.T) {
	s := scale.Of(t)
	interpreter(t, "budget_retry.py")
	redis := servers.Start(t, "redis")
	f := newFleet(t, s, fleetOptions{redis: redis.Var("REDIS_URL")})
	newBiller(f.up, func(c *upstream.Call, phase string) {
		if phase == beforeHeader && strings.Contains(string(c.Body), "wait for it") {
			c.WaitRelease()
		}
	})
	c := f.members[0].company
	f.all[0].setCredential(t, c, "openai", upstreamSecret)
	f.hear(t)
	var ops []string
	for _, g := range f.all {
		ops = append(ops, g.OpsURL)
	}
	front := &gateway{URL: f.balancer.URL, OpsURL: f.all[0].OpsURL, Operator: f.all[0].Operator}
	runScript(t, front, c, "budget_retry.py", "UPSTREAM_URL="+f.up.URL(), "FLEET_OPS_URLS="+strings.Join(ops, ","))
}
