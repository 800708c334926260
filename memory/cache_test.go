package memory_test

import (
	"testing"
	"time"

	"bulkhead/memory"
	"bulkhead/memory/memorytest"
	"bulkhead/redisdb"
	"bulkhead/tenant/tenanttest"
	"bulkhead/test/servers"
)

func TestLocal(t *testing.T) {
	memorytest.Run(t, func(*testing.T) memory.Cache { return memory.NewLocal(nil) })
}

// TestLocalExpires: a tail is there until its time is over.
func TestLocalExpires(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	c := memory.NewLocal(func() time.Time { return now })
	s := tenanttest.Scope(t, "acme")
	c.Put(t.Context(), s, "conv_1", memorytest.Tail(1, "one"))
	now = now.Add(memory.CacheTTL - time.Second)
	if _, ok := c.Get(t.Context(), s, "conv_1"); !ok {
		t.Error("it is gone too early")
	}
	now = now.Add(2 * time.Second)
	if _, ok := c.Get(t.Context(), s, "conv_1"); ok {
		t.Error("it is there for too long")
	}
}

func openRedis(t *testing.T) (*memory.Redis, *redisdb.Client) {
	t.Helper()
	c, err := redisdb.Open(servers.Start(t, "redis").Var("REDIS_URL"), redisdb.Options{Timeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return memory.NewRedis(c), c
}

func TestRedis(t *testing.T) {
	memorytest.Run(t, func(t *testing.T) memory.Cache {
		r, _ := openRedis(t)
		return r
	})
}

// TestRedisKeys: whatever there is of a company has its name and an end.
func TestRedisKeys(t *testing.T) {
	r, direct := openRedis(t)
	s := tenanttest.Scope(t, "acme")
	for _, id := range memorytest.Names {
		r.Put(t.Context(), s, id, memorytest.Tail(1, "one"))
	}
	reply, err := direct.Do(t.Context(), "KEYS", "*"+s.ID().String()+"*")
	keys, _ := reply.([]any)
	if err != nil || len(keys) != 2 {
		t.Fatalf("%v, %v", reply, err)
	}
	for _, key := range []string{"tails", "due"} {
		key = "bh:{" + s.ID().String() + "}:conv:" + key
		ttl, err := direct.Do(t.Context(), "TTL", key)
		if n, _ := ttl.(int64); err != nil || n <= 0 || n > int64(memory.CacheTTL.Seconds()) {
			t.Errorf("%s ends in %v s, %v", key, ttl, err)
		}
	}
	if err := r.Forget(t.Context(), s); err != nil {
		t.Error(err)
	}
	if reply, err = direct.Do(t.Context(), "KEYS", "*"+s.ID().String()+"*"); err != nil || len(reply.([]any)) != 0 {
		t.Errorf("after Forget: %v, %v", reply, err)
	}
}
