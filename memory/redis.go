package memory

import (
	"context"
	_ "embed" // the script
	"encoding/json"
	"fmt"
	"strconv"

	"bulkhead/redisdb"
	"bulkhead/tenant"
)

//go:embed redis_put.lua
var luaPut string

var scriptPut = redisdb.NewScript(luaPut)

// Redis is a Cache that many gateways share. Of each company there are two keys, so
// that erasing it is two keys and needs no search: its tails by conversation, and
// when each of them is to go.
type Redis struct{ c *redisdb.Client }

// NewRedis returns the cache in Redis.
func NewRedis(c *redisdb.Client) *Redis { return &Redis{c} }

// keys returns the keys of a company, which are in one slot of a Cluster.
func keys(s tenant.Scope) []string {
	tag := "bh:{" + s.ID().String() + "}:conv:"
	return []string{tag + "tails", tag + "due"}
}

// Get implements Cache.
func (r *Redis) Get(ctx context.Context, s tenant.Scope, id string) (t Tail, ok bool) {
	reply, err := r.c.Do(ctx, "HGET", keys(s)[0], id)
	text, is := reply.(string)
	if err != nil || !is || json.Unmarshal([]byte(text), &t) != nil {
		return Tail{}, false
	}
	return t, true
}

// Put implements Cache.
func (r *Redis) Put(ctx context.Context, s tenant.Scope, id string, t Tail) {
	text := encode(t)
	if t.size() > MaxTail {
		r.Drop(ctx, s, id)
		return
	}
	_, _ = r.c.Run(ctx, scriptPut, keys(s), []string{id, string(text), strconv.Itoa(int(CacheTTL.Seconds())), strconv.Itoa(MaxCompany)})
}

// Drop implements Cache.
func (r *Redis) Drop(ctx context.Context, s tenant.Scope, id string) {
	k := keys(s)
	_, _ = r.c.Do(ctx, "HDEL", k[0], id)
	_, _ = r.c.Do(ctx, "ZREM", k[1], id)
}

// Forget implements Cache.
func (r *Redis) Forget(ctx context.Context, s tenant.Scope) error {
	k := keys(s)
	if _, err := r.c.Do(ctx, "UNLINK", k[0], k[1]); err != nil {
		return fmt.Errorf("cannot forget the conversations in Redis: %w", err)
	}
	left, err := r.c.Do(ctx, "EXISTS", k[0], k[1])
	if err != nil {
		return fmt.Errorf("cannot count the conversations in Redis: %w", err)
	}
	if n, _ := left.(int64); n != 0 {
		return fmt.Errorf("%d keys of conversations are left in Redis", n)
	}
	return nil
}
