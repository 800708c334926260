package redisdb

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// Health is what the servers said when they were last looked at.
type Health struct {
	At    time.Time // zero: not yet
	Err   error     // they did not answer; then Nodes are of an earlier look
	Nodes []Node    // the masters: one, or those of a Cluster
}

// Node is one server.
type Node struct {
	Version     string // "7.0.15"
	Role        string // "master"
	Policy      string // maxmemory-policy; "noeviction"
	Replication string // the id of its replication history, another after a restart or failover
	Run         string // the id of its process
}

// minVersion is the oldest version that the tests run on.
const minVersion = 7

// Fit returns why a server cannot be used although it answers: it is too old,
// or may throw keys away when its memory is full. It is nil while no server has
// answered yet.
func (h *Health) Fit() error {
	var all []error
	for _, n := range h.Nodes {
		major, _, _ := strings.Cut(n.Version, ".")
		if v, err := strconv.Atoi(major); err != nil || v < minVersion {
			all = append(all, fmt.Errorf("the server of Redis has version %q: %d or newer is needed", n.Version, minVersion))
		}
		if n.Policy != "noeviction" {
			all = append(all, fmt.Errorf("the server of Redis has maxmemory-policy %q and would forget what was spent: set noeviction", n.Policy))
		}
	}
	return errors.Join(all...)
}

// Health returns what is known of the servers. It does no I/O. The result must
// not be changed.
func (c *Client) Health() *Health { return c.health.Load() }

// Check looks at the servers now. The error says what is wrong: they do not
// answer, or are not fit.
func (c *Client) Check(ctx context.Context) error {
	h := c.look(ctx)
	if h.Err != nil {
		return h.Err
	}
	return h.Fit()
}

func (c *Client) probe(ctx context.Context) {
	tick := time.NewTicker(c.o.Probe)
	defer tick.Stop()
	for {
		c.look(ctx)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (c *Client) look(ctx context.Context) *Health {
	ctx, cancel := context.WithTimeout(ctx, c.o.Timeout)
	defer cancel()
	h := &Health{Nodes: c.health.Load().Nodes}
	nodes, err := c.ask(ctx)
	if err != nil {
		h.Err = c.judge(err)
	} else {
		h.Nodes = nodes
	}
	h.At = time.Now()
	c.health.Store(h)
	return h
}

// ask asks every master.
func (c *Client) ask(ctx context.Context) ([]Node, error) {
	if c.cluster == nil {
		n, err := askNode(ctx, c.rdb)
		return []Node{n}, err
	}
	var (
		mu    sync.Mutex
		nodes []Node
	)
	err := c.cluster.ForEachMaster(ctx, func(ctx context.Context, one *redis.Client) error {
		n, err := askNode(ctx, one)
		mu.Lock()
		defer mu.Unlock()
		nodes = append(nodes, n)
		return err
	})
	return nodes, err
}

func askNode(ctx context.Context, one redis.Cmdable) (n Node, err error) {
	pipe := one.Pipeline()
	server, memory, replication := pipe.Info(ctx, "server"), pipe.Info(ctx, "memory"), pipe.Info(ctx, "replication")
	if _, err := pipe.Exec(ctx); err != nil {
		return n, err
	}
	n.Version, n.Run = line(server.Val(), "redis_version"), line(server.Val(), "run_id")
	n.Policy = line(memory.Val(), "maxmemory_policy")
	n.Role, n.Replication = line(replication.Val(), "role"), line(replication.Val(), "master_replid")
	return n, nil
}

// line returns a value of INFO.
func line(info, name string) string {
	for l := range strings.Lines(info) {
		if value, ok := strings.CutPrefix(l, name+":"); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
