//go:build !race

package servers_test

import (
	"bufio"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bulkhead/test/servers"
)

// TestOwner ends the process that a server belongs to, and the server with it.
func TestOwner(t *testing.T) {
	t.Parallel()
	f := func(name, addr string) {
		t.Helper()
		owner := exec.Command("sleep", "600")
		if err := owner.Start(); err != nil {
			t.Fatal(err)
		}
		s := servers.Start(t, name, fmt.Sprint("OWNER_PID=", owner.Process.Pid))
		if gone(s.Var(addr)) {
			t.Fatalf("%s is not there", name)
		}
		_ = owner.Process.Kill()
		_ = owner.Wait()
		eventually(t, name+" ends with its owner", func() bool { return gone(s.Var(addr)) })
	}
	f("redis", "REDIS_ADDR")
	f("milvus", "MILVUS_ADDR")
}

// TestUpDown is what `make servers-up` and `make servers-down` do, in a folder
// where nothing is up.
func TestUpDown(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	run := func(name string, args ...string) (map[string]string, error) {
		t.Helper()
		path, err := servers.Script(name)
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(path, args...)
		cmd.Env = append(os.Environ(), "SERVERS_HOME="+home)
		out, err := cmd.Output()
		vars := map[string]string{}
		for line := range strings.Lines(string(out)) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
			vars[name] = value
		}
		return vars, err
	}
	t.Cleanup(func() { _, _ = run("down.sh") })
	if _, err := run("up.sh", "redis", "nonesuch"); err == nil {
		t.Error("a server that does not exist was started")
	}
	first, err := run("up.sh", "redis")
	servers.Require(t, err)
	want(t, "OK", first["REDIS_ADDR"], "SET", "kept", "1")
	if again, err := run("up.sh", "redis"); err != nil || again["REDIS_PID"] != first["REDIS_PID"] {
		t.Errorf("up again: process %s became %s, %v", first["REDIS_PID"], again["REDIS_PID"], err)
	}
	text, err := os.ReadFile(filepath.Join(home, "env"))
	if err != nil || !strings.Contains(string(text), "REDIS_URL="+first["REDIS_URL"]+"\n") {
		t.Errorf("the file has %q, %v", text, err)
	}
	if _, err := run("down.sh"); err != nil {
		t.Fatal(err)
	}
	if !gone(first["REDIS_ADDR"]) {
		t.Error("it is there after down.sh")
	}
	if _, err := os.Stat(filepath.Join(home, "env")); !os.IsNotExist(err) {
		t.Errorf("the file of the variables is there after down.sh: %v", err)
	}
	if again, err := run("up.sh", "redis"); err != nil || again["REDIS_URL"] != first["REDIS_URL"] {
		t.Errorf("up after down: %s became %s, %v", first["REDIS_URL"], again["REDIS_URL"], err)
	}
	want(t, "1", first["REDIS_ADDR"], "GET", "kept")
}

// onLoopbackOnly fails the test if a process of the server listens on anything
// but loopback.
func onLoopbackOnly(t *testing.T, s *servers.Server) {
	t.Helper()
	open, err := listeners()
	if err != nil {
		servers.Require(t, fmt.Errorf("cannot see who listens: %w", err))
	}
	found := 0
	for inode := range sockets(t, s) {
		if addr, listens := open[inode]; listens {
			found++
			// 127.x.y.z and ::1, each 4 bytes as a number of this machine.
			if !strings.HasSuffix(addr, "7F") && addr != "00000000000000000000000001000000" {
				t.Errorf("listens on %s", addr)
			}
		}
	}
	if found == 0 {
		t.Error("listens nowhere")
	}
}

// listeners returns the addresses that processes listen on, in the hexadecimal
// form of Linux' /proc/net/tcp, by the number of the socket's inode.
func listeners() (map[string]string, error) {
	open := map[string]string{}
	for _, name := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		for lines := bufio.NewScanner(f); lines.Scan(); {
			fields := strings.Fields(lines.Text())
			const listening = "0A"
			if len(fields) > 9 && fields[3] == listening {
				addr, _, _ := strings.Cut(fields[1], ":")
				open[fields[9]] = addr
			}
		}
	}
	return open, nil
}

// sockets returns the inodes of the sockets that the server's processes have.
// Each process in DIR/pid leads a session, in which its children are.
func sockets(t *testing.T, s *servers.Server) map[string]bool {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(s.Dir, "pid"))
	if err != nil {
		t.Fatal(err)
	}
	leaders := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		leaders[strings.Fields(line)[0]] = true
	}
	found := map[string]bool{}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		stat, err := os.ReadFile(path)
		if err != nil {
			continue // ended meanwhile
		}
		// pid (name) state ppid pgrp session: a name may have spaces and parentheses.
		fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		if !leaders[fields[3]] {
			continue
		}
		links, _ := filepath.Glob(filepath.Join(filepath.Dir(path), "fd", "*"))
		for _, link := range links {
			if to, err := os.Readlink(link); err == nil && strings.HasPrefix(to, "socket:[") {
				found[strings.TrimSuffix(strings.TrimPrefix(to, "socket:["), "]")] = true
			}
		}
	}
	return found
}

// signed returns the header of an S3 request, signed with AWS Signature Version 4
// (the description of that name in the Amazon S3 API reference).
func signed(t *testing.T, s *servers.Server, method, address, body string) http.Header {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	at := time.Now().UTC().Format("20060102T150405Z")
	day, region := at[:8], s.Var("S3_REGION")
	digest := func(text string) string {
		sum := sha256.Sum256([]byte(text))
		return hex.EncodeToString(sum[:])
	}
	mac := func(key []byte, text string) []byte {
		h := hmac.New(sha256.New, key)
		h.Write([]byte(text))
		return h.Sum(nil)
	}
	const names = "host;x-amz-content-sha256;x-amz-date"
	request := strings.Join([]string{method, u.EscapedPath(), "", "host:" + u.Host, "x-amz-content-sha256:" + digest(body),
		"x-amz-date:" + at, "", names, digest(body)}, "\n")
	scope := day + "/" + region + "/s3/aws4_request"
	key := []byte("AWS4" + s.Var("S3_SECRET_KEY"))
	for _, part := range strings.Split(scope, "/") {
		key = mac(key, part)
	}
	signature := hex.EncodeToString(mac(key, strings.Join([]string{"AWS4-HMAC-SHA256", at, scope, digest(request)}, "\n")))
	return http.Header{
		"X-Amz-Date": {at}, "X-Amz-Content-Sha256": {digest(body)},
		"Authorization": {"AWS4-HMAC-SHA256 Credential=" + s.Var("S3_ACCESS_KEY") + "/" + scope + ",SignedHeaders=" + names + ",Signature=" + signature},
	}
}
