//go:build !race

package servers_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"bulkhead/test/servers"
)

// redis sends one command to a node and returns the answer: the text of a
// string, a number or a list (a line each), or the error.
func redis(addr string, command ...string) (string, error) {
	c, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return "", err
	}
	request := fmt.Sprintf("*%d\r\n", len(command))
	for _, word := range command {
		request += fmt.Sprintf("$%d\r\n%s\r\n", len(word), word)
	}
	if _, err := io.WriteString(c, request); err != nil {
		return "", err
	}
	return reply(bufio.NewReader(c))
}

// reply reads one answer in Redis' serialization protocol, version 2.
func reply(r *bufio.Reader) (string, error) {
	line, err := r.ReadString('\n')
	if err != nil {
		return "", err
	}
	line = strings.TrimSuffix(line, "\r\n")
	if line == "" {
		return "", errors.New("an empty answer")
	}
	switch kind, rest := line[0], line[1:]; kind {
	case '-':
		return "", errors.New(rest)
	case '$':
		n, err := strconv.Atoi(rest)
		if err != nil || n < 0 {
			return "", err
		}
		text := make([]byte, n+2)
		_, err = io.ReadFull(r, text)
		return string(text[:n]), err
	case '*':
		n, err := strconv.Atoi(rest)
		if err != nil {
			return "", err
		}
		var all []string
		for range n {
			one, err := reply(r)
			if err != nil {
				return "", err
			}
			all = append(all, one)
		}
		return strings.Join(all, "\n"), nil
	default:
		return rest, nil
	}
}

// want fails the test unless the node answers so.
func want(t *testing.T, answer, addr string, command ...string) {
	t.Helper()
	if got, err := redis(addr, command...); err != nil || got != answer {
		t.Fatalf("%s: %q, %v, not %q", command, got, err, answer)
	}
}

// gone reports whether nobody listens at the address.
func gone(addr string) bool {
	c, err := net.DialTimeout("tcp", addr, time.Second)
	if err == nil {
		c.Close()
	}
	return errors.Is(err, syscall.ECONNREFUSED)
}

func signal(t *testing.T, pid int, s syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(pid, s); err != nil {
		t.Fatalf("cannot send %s: %s", s, err)
	}
}

func TestRedis(t *testing.T) {
	t.Parallel()
	s := servers.Start(t, "redis")
	onLoopbackOnly(t, s)
	addr := s.Var("REDIS_ADDR")
	want(t, "maxmemory-policy\nnoeviction", addr, "CONFIG", "GET", "maxmemory-policy")
	want(t, "OK", addr, "SET", "kept", "1")
	signal(t, s.PIDs("REDIS_PID")[0], syscall.SIGKILL)
	eventually(t, "the server is gone", func() bool { return gone(addr) })
	again(t, s)
	if s.Var("REDIS_ADDR") != addr {
		t.Errorf("it came back at %s, not at %s", s.Var("REDIS_ADDR"), addr)
	}
	want(t, "1", addr, "GET", "kept")

	// One that is frozen is stopped all the same.
	signal(t, s.PIDs("REDIS_PID")[0], syscall.SIGSTOP)
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	if !gone(addr) {
		t.Error("it is there after stop.sh")
	}
}

func TestRedisPassword(t *testing.T) {
	t.Parallel()
	s := servers.Start(t, "redis", "REDIS_PASSWORD=Secret.1")
	addr := s.Var("REDIS_ADDR")
	if s.Var("REDIS_URL") != "redis://:Secret.1@"+addr+"/0" {
		t.Errorf("the URL is %s", s.Var("REDIS_URL"))
	}
	if _, err := redis(addr, "PING"); err == nil || !strings.Contains(err.Error(), "NOAUTH") {
		t.Errorf("without the password: %v", err)
	}
	want(t, "OK", addr, "AUTH", "Secret.1")
}

// TestRedisSentinel kills the primary: the sentinels name another, which has what
// was written. Started again the old one answers; the sentinels make it a replica
// when they have watched it for some ten seconds.
func TestRedisSentinel(t *testing.T) {
	t.Parallel()
	s := servers.Start(t, "redis-sentinel")
	onLoopbackOnly(t, s)
	nodes, pids := s.List("REDIS_NODES"), s.PIDs("REDIS_PIDS")
	primary := func() string {
		got, err := redis(s.List("REDIS_SENTINELS")[0], "SENTINEL", "GET-MASTER-ADDR-BY-NAME", s.Var("REDIS_MASTER"))
		if err != nil {
			t.Fatal(err)
		}
		return strings.ReplaceAll(got, "\n", ":")
	}
	first := primary()
	if first != nodes[0] {
		t.Fatalf("the first primary is %s, not %s", first, nodes[0])
	}
	want(t, "OK", first, "SET", "kept", "1")
	eventually(t, "both replicas have it", func() bool {
		a, errA := redis(nodes[1], "GET", "kept")
		b, errB := redis(nodes[2], "GET", "kept")
		return errA == nil && errB == nil && a == "1" && b == "1"
	})
	signal(t, pids[0], syscall.SIGKILL)
	eventually(t, "another primary is named", func() bool { return primary() != first })
	second := primary()
	eventually(t, "it takes writes", func() bool {
		_, err := redis(second, "SET", "more", "1")
		return err == nil
	})
	want(t, "1", second, "GET", "kept")

	again(t, s)
	if now := s.PIDs("REDIS_PIDS"); now[0] == pids[0] || !slices.Equal(now[1:], pids[1:]) {
		t.Errorf("process ids %v became %v", pids, now)
	}
	want(t, "PONG", first, "PING")
}

// TestRedisCluster kills a master: its replica takes over its slots.
func TestRedisCluster(t *testing.T) {
	t.Parallel()
	s := servers.Start(t, "redis-cluster")
	onLoopbackOnly(t, s)
	nodes, pids := s.List("REDIS_NODES"), s.PIDs("REDIS_PIDS")
	// holder returns the node that serves the command's slot, and what it says.
	holder := func(command ...string) (int, string) {
		for i, addr := range nodes {
			if got, err := redis(addr, command...); err == nil {
				return i, got
			}
		}
		return -1, ""
	}
	i, got := holder("SET", "kept", "1")
	if i < 0 || i > 2 || got != "OK" {
		t.Fatalf("node %d said %q", i, got)
	}
	eventually(t, "a replica has it", func() bool {
		got, err := redis(nodes[i], "INFO", "replication")
		return err == nil && strings.Contains(got, "state=online") && strings.Contains(got, "lag=")
	})
	if _, err := redis(nodes[i], "SET", "{kept}", "1"); err != nil {
		t.Fatal(err)
	}
	signal(t, pids[i], syscall.SIGKILL)
	eventually(t, "its replica answers", func() bool {
		n, got := holder("GET", "kept")
		return n > 2 && got == "1"
	})
	again(t, s)
	want(t, "PONG", nodes[i], "PING")
}
