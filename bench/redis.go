//go:build linux

package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"
)

// redisResult says how often a gateway that counts in Redis asks it.
type redisResult struct {
	// Before is how many messages went to Redis from a call's beginning until the
	// provider had it, one call at a time, each begun when Redis had heard nothing
	// for a while: each is a round trip, however many commands it holds. A sign of
	// life of the gateway may fall in between.
	Before  spread  `json:"round_trips_before_the_provider"`
	Calls   int     `json:"calls_one_at_a_time"`
	Scripts float64 `json:"scripts_per_call"` // under load, of all kinds, from INFO commandstats

	CPU cpuResult `json:"cpu"` // with the budgets of the case budgets
}

// nameRedis is the gateway with three budgets, counted in Redis.
const nameRedis = nameBudgets + " in Redis"

// redisCalls is how many calls are looked at one by one, and still how long Redis
// has heard nothing before each: the end of the call before it is settled then.
const (
	redisCalls = 100
	still      = 50 * time.Millisecond
)

// redisCase needs a Redis of its own: the flag -redis.
func (b *bench) redisCase(ctx context.Context) (*redisResult, error) {
	server, err := url.Parse(b.redis)
	if err != nil || server.Host == "" {
		return nil, fmt.Errorf("-redis is redis://HOST:PORT/DB, not %q", b.redis)
	}
	tap, err := newTap(server.Host)
	if err != nil {
		return nil, err
	}
	defer tap.close()
	var atProvider atomic.Int64 // messages to Redis when the last call came there
	answer := mockHandler()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	provider := floorServer(func(rc *fasthttp.RequestCtx) {
		atProvider.Store(tap.messages.Load())
		answer(rc)
	}, false)
	go func() { _ = provider.Serve(ln) }()
	defer func() { _ = provider.Shutdown() }()

	through := *server
	through.Host = tap.addr()
	g, err := startGateway(b.binary, filepath.Join(b.dir, "redis"), ln.Addr().String(), "BULKHEAD_REDIS_URL="+through.String())
	if err != nil {
		return nil, err
	}
	defer g.stop()
	if err := g.giveBudgets(); err != nil {
		return nil, err
	}
	res := &redisResult{Calls: redisCalls}
	src := priced(g.demo.APIKey)
	if got := closedLoop(g.addr, b.conns, b.warmUp, src); got.errors > 0 || got.calls == 0 {
		return nil, fmt.Errorf("redis: %d calls, %d failed: %w", got.calls, got.errors, got.first)
	}
	var before []float64
	c := newClient(g.addr)
	defer c.close()
	for range redisCalls {
		begun := tap.settled()
		if err := c.do(src.at(0, 0), false); err != nil {
			return nil, fmt.Errorf("redis: %w", err)
		}
		before = append(before, float64(atProvider.Load()-begun))
	}
	res.Before = spreadOf(before)

	like, err := b.start(nameLike, "")
	if err != nil {
		return nil, err
	}
	defer like.proc.stop()
	first, err := scripts(server)
	if err != nil {
		return nil, err
	}
	ours := &target{name: nameRedis, addr: g.addr, key: g.demo.APIKey, proc: g.process}
	res.CPU, err = b.cpu(ctx, "redis", b.conns, []*target{like, ours}, []source{priced(like.key), src})
	if err != nil {
		return nil, err
	}
	last, err := scripts(server)
	if err != nil {
		return nil, err
	}
	res.Scripts = float64(last-first) / float64(res.CPU.Rows[1].Calls)
	return res, nil
}

func (r *redisResult) print(w io.Writer) {
	fmt.Fprintf(w, "\n## Redis\n\n| messages to Redis before the provider has a call | calls | scripts per call under load |\n|---|---|---|\n")
	fmt.Fprintf(w, "| %s | %d | %.2f |\n", show(r.Before, 0), r.Calls, r.Scripts)
	fmt.Fprintf(w, "\n| case | of | to | factor |\n|---|---|---|---|\n")
	printRatios(w, r.CPU)
	fmt.Fprintf(w, "\n| case | target | CPU us/call | calls/s | RSS MiB | calls |\n|---|---|---|---|---|---|\n")
	printRows(w, r.CPU)
}

// tap passes connections on to a server, and counts what is written to it. A
// client that writes all it has to say before it waits for an answer makes one
// message of it.
type tap struct {
	ln       net.Listener
	messages atomic.Int64
}

func newTap(server string) (*tap, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	t := &tap{ln: ln}
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go t.pass(c, server)
		}
	}()
	return t, nil
}

// settled returns the number of messages once no more have come for a while.
func (t *tap) settled() int64 {
	for n := t.messages.Load(); ; {
		time.Sleep(still)
		now := t.messages.Load()
		if now == n {
			return n
		}
		n = now
	}
}

func (t *tap) addr() string { return t.ln.Addr().String() }
func (t *tap) close()       { _ = t.ln.Close() }

func (t *tap) pass(client net.Conn, server string) {
	defer client.Close()
	s, err := net.Dial("tcp", server)
	if err != nil {
		return
	}
	defer s.Close()
	go func() {
		_, _ = io.Copy(client, s)
		_ = client.Close()
	}()
	room := make([]byte, 64<<10)
	for {
		n, err := client.Read(room)
		if n > 0 {
			t.messages.Add(1)
			if _, err := s.Write(room[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// scripts is how many scripts the server has run since it began.
func scripts(server *url.URL) (int64, error) {
	conn, err := net.Dial("tcp", server.Host)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	r := bufio.NewReader(conn)
	if password, ok := server.User.Password(); ok {
		fmt.Fprintf(conn, "AUTH %s\r\n", password)
		if line, err := r.ReadString('\n'); err != nil || !strings.HasPrefix(line, "+OK") {
			return 0, fmt.Errorf("redis does not take the password: %v", err)
		}
	}
	fmt.Fprint(conn, "INFO commandstats\r\n")
	head, err := r.ReadString('\n')
	if err != nil {
		return 0, err
	}
	size, err := strconv.Atoi(strings.TrimSpace(strings.TrimPrefix(head, "$")))
	if err != nil {
		return 0, fmt.Errorf("redis answers %q", head)
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(r, body); err != nil {
		return 0, err
	}
	return parseScripts(string(body)), nil
}

// parseScripts reads how often EVALSHA was called from Redis' commandstats.
func parseScripts(info string) (n int64) {
	for line := range strings.Lines(info) {
		if rest, ok := strings.CutPrefix(line, "cmdstat_evalsha:calls="); ok {
			digits, _, _ := strings.Cut(rest, ",")
			n, _ = strconv.ParseInt(digits, 10, 64)
		}
	}
	return n
}
