package limiter_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"bulkhead/limiter"
	"bulkhead/limiter/limitertest"
	"bulkhead/redisdb"
	"bulkhead/test/servers"
)

// redisClient connects to a server with deadlines for a machine that does much
// else.
func redisClient(t *testing.T, url string) *redisdb.Client {
	t.Helper()
	c, err := redisdb.Open(url, redisdb.Options{Timeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// eventually polls until ok, for a minute at most.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); <-time.After(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("still not: %s", what)
		}
	}
}

// gateway opens one, with heartbeats for tests that do not want to wait, and
// waits until it is ready.
func gateway(t *testing.T, url string, o limiter.RedisOptions) *limiter.Redis {
	t.Helper()
	if o.Heartbeat == 0 {
		o.Heartbeat = 100 * time.Millisecond
	}
	if o.Patience == 0 {
		o.Patience = 5 * time.Second
	}
	l := limiter.OpenRedis(redisClient(t, url), o)
	t.Cleanup(func() { l.Close() })
	eventually(t, "ready", func() bool { return l.Ready() == nil })
	return l
}

// suite runs the contract suite with n gateways over one Redis.
func suite(t *testing.T, url string, n int) {
	limitertest.Run(t, func(t *testing.T, o limiter.Options) limitertest.Opened {
		c := limitertest.NewClock(time.Unix(1, 0))
		o.Now = c.Now
		var all []*limiter.Redis
		var limiters []limiter.Limiter
		for range n {
			l := gateway(t, url, limiter.RedisOptions{Options: o})
			limiter.SetRedisClock(l, c.Now)
			all, limiters = append(all, l), append(limiters, l)
		}
		opened := limitertest.Opened{Limiter: limiters[0], Now: c.Now, Pass: c.Pass, Gateways: n, Flush: func() {
			var wg sync.WaitGroup
			for _, l := range all {
				wg.Go(func() {
					ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
					defer cancel()
					if err := l.Flush(ctx); err != nil {
						t.Errorf("not flushed: %s", err)
					}
				})
			}
			wg.Wait()
		}}
		if n > 1 {
			opened.Limiter = limitertest.Spread(limiters...)
		}
		return opened
	})
}

func TestRedis(t *testing.T) {
	server := servers.Start(t, "redis")
	t.Run("one gateway", func(t *testing.T) { suite(t, server.Var("REDIS_URL"), 1) })
	t.Run("three gateways", func(t *testing.T) { suite(t, server.Var("REDIS_URL"), 3) })
}

func TestRedisSentinel(t *testing.T) {
	server := servers.Start(t, "redis-sentinel")
	suite(t, "redis+sentinel://"+server.Var("REDIS_SENTINELS")+"/"+server.Var("REDIS_MASTER"), 2)
}

func TestRedisCluster(t *testing.T) {
	servers.SkipRace(t, servers.ClusterRace)
	server := servers.Start(t, "redis-cluster")
	suite(t, "redis+cluster://"+server.Var("REDIS_CLUSTER"), 3)
}
