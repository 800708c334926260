// Package redisdb is the gateway's one way to Redis: a single server, one that
// Sentinel watches, or a Cluster, behind the same few methods.
//
// It owns how Redis is reached and how long that may take, and nothing of what
// is kept there. A call never takes longer than its deadline, also where the
// server accepts connections and says nothing, and it is never repeated where
// it may have been executed: whoever calls knows best what a second time does.
//
//	c, err := redisdb.Open("redis+sentinel://:secret@10.0.0.1:26379,10.0.0.2:26379/mymaster", redisdb.Options{})
//	reply, err := c.Run(ctx, script, []string{"bh:{org-1}:counts"}, []string{"1"})
//	if errors.Is(err, redisdb.ErrDown) {
//		// nobody knows whether it was executed
//	}
package redisdb

import (
	"context"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
)

// Options bound a Client. Zero values take the defaults.
type Options struct {
	// Timeout is the longest that a call takes, waiting for a connection
	// included, whatever deadline its context has; default 200 ms.
	Timeout time.Duration
	// Pool is how many connections there are, to each node of a Cluster;
	// default 16. Calls beyond that wait for one. RunAll has four more.
	Pool int
	// Probe is how often the servers are looked at, which is how old what Health
	// says may be; default 1 s.
	Probe time.Duration
}

func (o Options) withDefaults() Options {
	if o.Timeout <= 0 {
		o.Timeout = 200 * time.Millisecond
	}
	if o.Pool <= 0 {
		o.Pool = 16
	}
	if o.Probe <= 0 {
		o.Probe = time.Second
	}
	return o
}

const (
	slowest  = 10 * time.Second // the longest that RunAll may take
	slowPool = 4
)

// Client is a connection to Redis that is made again whenever it is lost. It is
// safe for concurrent use.
type Client struct {
	o       Options
	target  target
	rdb     redis.UniversalClient
	cluster *redis.ClusterClient  // nil unless it is one
	slow    redis.UniversalClient // for RunAll: the library knows one deadline for each client
	health  atomic.Pointer[Health]
	stop    context.CancelFunc
	stopped sync.WaitGroup

	calls, failed, unanswered, loads atomic.Int64
}

// Open returns a Client of the server at url, see docs/redis.md for its forms.
// It does not wait for the server and does not fail because it is away: calls
// do, until it is there. An error says what is wrong with the URL, without it.
func Open(url string, o Options) (*Client, error) {
	t, err := parse(url)
	if err != nil {
		return nil, err
	}
	// The library writes to standard error whenever a server is away. What is
	// wrong is in the errors of calls and in Health.
	logging.Disable()
	c := &Client{o: o.withDefaults(), target: t}
	c.rdb, c.cluster = t.dial(c.o, c.o.Timeout, c.o.Pool)
	c.slow, _ = t.dial(c.o, slowest, slowPool)
	c.health.Store(&Health{})
	ctx, stop := context.WithCancel(context.Background())
	c.stop = stop
	c.stopped.Go(func() { c.probe(ctx) })
	return c, nil
}

// Close ends the connections. Calls after it fail with ErrDown.
func (c *Client) Close() error {
	c.stop()
	c.stopped.Wait()
	err := errors.Join(c.rdb.Close(), c.slow.Close())
	if errors.Is(err, redis.ErrClosed) {
		return nil
	}
	return err
}

// String names the server without user, password and parameters.
func (c *Client) String() string { return c.target.String() }

// Timeout returns the longest that a call takes.
func (c *Client) Timeout() time.Duration { return c.o.Timeout }

// Script is a Lua script. It runs by its hash and is sent only where a server
// does not know it.
type Script struct{ text, hash string }

// NewScript returns the script with that text.
func NewScript(text string) *Script {
	sum := sha1.Sum([]byte(text)) // the name that Redis gives it, no secret
	return &Script{text, hex.EncodeToString(sum[:])}
}

// Hash returns the name that Redis gives the script.
func (s *Script) Hash() string { return s.hash }

// Size returns the length of the script's text in bytes.
func (s *Script) Size() int { return len(s.text) }

// Call is one run of a script. All keys must be in one slot of a Cluster.
type Call struct {
	Script *Script
	Keys   []string
	Args   []string
}

func (k *Call) command(ctx context.Context, verb, script string) once {
	args := make([]any, 0, 3+len(k.Keys)+len(k.Args))
	args = append(args, verb, script, len(k.Keys))
	for _, key := range k.Keys {
		args = append(args, key)
	}
	for i := range k.Args {
		args = append(args, &k.Args[i]) // a pointer costs no allocation
	}
	return once{redis.NewCmd(ctx, args...)}
}

// once is a command that the library does not send a second time after it may
// have been executed.
type once struct{ *redis.Cmd }

func (once) NoRetry() bool { return true }

// Run runs a script in one round trip, two where a server sees the script for
// the first time. The reply is an int64, a string, a []any of these, or nil.
func (c *Client) Run(ctx context.Context, s *Script, keys, args []string) (any, error) {
	call := Call{s, keys, args}
	ctx, cancel := context.WithTimeout(ctx, c.o.Timeout)
	defer cancel()
	reply, err := c.do(ctx, call.command(ctx, "EVALSHA", s.hash))
	if unknownScript(err) { // and so not executed
		c.loads.Add(1)
		reply, err = c.do(ctx, call.command(ctx, "EVAL", s.text))
	}
	return reply, c.count(err)
}

// Do runs one command, as Run. A key that is not there is a nil reply.
func (c *Client) Do(ctx context.Context, args ...string) (any, error) {
	ctx, cancel := context.WithTimeout(ctx, c.o.Timeout)
	defer cancel()
	all := make([]any, len(args))
	for i, arg := range args {
		all[i] = arg
	}
	reply, err := c.do(ctx, once{redis.NewCmd(ctx, all...)})
	return reply, c.count(err)
}

func (c *Client) do(ctx context.Context, cmd once) (any, error) {
	_ = c.rdb.Process(ctx, cmd) // the same as cmd.Err
	reply, err := cmd.Result()
	if errors.Is(err, redis.Nil) {
		return nil, nil
	}
	return reply, c.judge(err)
}

// Result is what came of one Call.
type Result struct {
	Reply any
	Err   error
}

// RunAll runs many scripts in as few round trips as there are nodes. Each has a
// result of its own, in order. It is for work behind a request: patience is how
// long it may take as a whole, at most 10 s, and it waits for no request's
// connection.
func (c *Client) RunAll(ctx context.Context, patience time.Duration, calls []Call) []Result {
	if len(calls) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	results := make([]Result, len(calls))
	all := make([]int, len(calls))
	for i := range calls {
		all[i] = i
	}
	c.pipeline(ctx, calls, all, results, false)
	var again []int
	for i := range results {
		if unknownScript(results[i].Err) {
			again = append(again, i)
		}
	}
	if len(again) > 0 {
		c.loads.Add(int64(len(again)))
		c.pipeline(ctx, calls, again, results, true)
	}
	for i := range results {
		results[i].Err = c.count(results[i].Err)
	}
	return results
}

// pipeline runs those calls whose numbers are in which.
func (c *Client) pipeline(ctx context.Context, calls []Call, which []int, results []Result, text bool) {
	if len(which) == 0 {
		return
	}
	pipe := c.slow.Pipeline()
	commands := make([]once, len(which))
	for i, n := range which {
		call := &calls[n]
		if text {
			commands[i] = call.command(ctx, "EVAL", call.Script.text)
		} else {
			commands[i] = call.command(ctx, "EVALSHA", call.Script.hash)
		}
		_ = pipe.Process(ctx, commands[i]) // only queues it
	}
	_, err := pipe.Exec(ctx)
	for i, n := range which {
		reply, own := commands[i].Result()
		if own == nil && reply == nil && err != nil && !answered(err) {
			own = err // it was never sent
		}
		if errors.Is(own, redis.Nil) {
			own = nil
		}
		results[n] = Result{reply, c.judge(own)}
	}
}

// Stats count since the start.
type Stats struct {
	Calls      int64 // scripts and commands
	Failed     int64 // of these, all that did not succeed
	Unanswered int64 // of these, those that ended with ErrDown
	Loads      int64 // scripts that a server did not know
	Conns      int   // connections at the moment
	Idle       int   // of these, those that nobody uses
}

// Stats returns what c has done.
func (c *Client) Stats() Stats {
	quick, slow := c.rdb.PoolStats(), c.slow.PoolStats()
	return Stats{
		Calls: c.calls.Load(), Failed: c.failed.Load(), Unanswered: c.unanswered.Load(), Loads: c.loads.Load(),
		Conns: int(quick.TotalConns + slow.TotalConns), Idle: int(quick.IdleConns + slow.IdleConns),
	}
}

func (c *Client) count(err error) error {
	c.calls.Add(1)
	if err != nil {
		c.failed.Add(1)
		if errors.Is(err, ErrDown) {
			c.unanswered.Add(1)
		}
	}
	return err
}

func unknownScript(err error) bool {
	answer, ok := errors.AsType[*Answer](err)
	return ok && strings.HasPrefix(answer.Text, "NOSCRIPT")
}
