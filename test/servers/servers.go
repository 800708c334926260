// Package servers starts the real servers of this folder's scripts for tests:
// PostgreSQL, Redis, OpenBao, Milvus, S3, a small language model, embeddings,
// Prometheus. Where one cannot be had, the test is skipped, and fails if
// REQUIRE_SERVERS is 1.
//
// They listen on loopback, end with the test or at the latest with its process,
// and a server that was stopped comes back on its old port with its old data:
//
//	redis := servers.Start(t, "redis")
//	dial(redis.Var("REDIS_URL"))
//	syscall.Kill(redis.PIDs("REDIS_PID")[0], syscall.SIGKILL)
//	err := redis.Again(ctx)
//
// docs/servers.md lists the names and what each has for variables.
package servers

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// patience is how long a start may take. The first one on a machine downloads,
// and for S3 compiles, what it needs.
const patience = 10 * time.Minute

// Server is a server that a script of this folder has started.
type Server struct {
	// Dir is where it keeps its data, log and all else.
	Dir string

	script string
	env    []string
	vars   map[string]string
}

// Start starts what start-NAME.sh starts until the test has ended. env has
// further variables for the script, NAME=VALUE each.
func Start(t testing.TB, name string, env ...string) *Server {
	t.Helper()
	s, err := Open(t.Context(), name, env...)
	Require(t, err)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// Open starts what start-NAME.sh starts until Close or the end of this process.
// It is for a server that many tests share; TestMain closes it.
func Open(ctx context.Context, name string, env ...string) (*Server, error) {
	script, err := Script("start-" + name + ".sh")
	if err != nil {
		return nil, err
	}
	s := &Server{script: script, env: env}
	if s.Dir, err = os.MkdirTemp("", "bulkhead-"+name+"-"); err != nil {
		return nil, err
	}
	// Some servers run as another user, who has to get through here.
	if err := os.Chmod(s.Dir, 0o711); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	if err := s.Again(ctx); err != nil {
		return nil, errors.Join(err, os.RemoveAll(s.Dir))
	}
	return s, nil
}

// Require ends the test if err, why a server cannot be had, is one.
func Require(t testing.TB, err error) {
	t.Helper()
	switch {
	case err == nil:
	case os.Getenv("REQUIRE_SERVERS") == "1":
		t.Fatal(err)
	default:
		t.Skipf("not tested: %s", err)
	}
}

// Again starts it after Stop or after its processes were killed: on the same
// port, with the data it had. Of several processes only those that are gone are
// started.
func (s *Server) Again(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, s.script, s.Dir)
	cmd.Env = append(append(os.Environ(), fmt.Sprint("OWNER_PID=", os.Getpid())), s.env...)
	cmd.WaitDelay = time.Second
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", filepath.Base(s.script), err, stderr.Bytes())
	}
	text, err := os.ReadFile(filepath.Join(s.Dir, "env"))
	if err != nil {
		return err
	}
	s.vars = map[string]string{}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		s.vars[name] = value
	}
	return nil
}

// Stop ends it, frozen or not. What it has stored stays.
func (s *Server) Stop() error {
	out, err := exec.Command(filepath.Join(filepath.Dir(s.script), "stop.sh"), s.Dir).CombinedOutput()
	if err != nil {
		return fmt.Errorf("stop.sh: %w: %s", err, out)
	}
	return nil
}

// Close ends it and removes what it has stored.
func (s *Server) Close() error { return errors.Join(s.Stop(), os.RemoveAll(s.Dir)) }

// Var returns a variable that the script has published, such as REDIS_URL.
func (s *Server) Var(name string) string {
	v, ok := s.vars[name]
	if !ok {
		panic("BUG: " + filepath.Base(s.script) + " publishes no " + name)
	}
	return v
}

// List returns the values of a variable that has several.
func (s *Server) List(name string) []string { return strings.Split(s.Var(name), ",") }

// PIDs returns the process ids that a variable has.
func (s *Server) PIDs(name string) []int {
	var pids []int
	for _, text := range s.List(name) {
		pid, err := strconv.Atoi(text)
		if err != nil {
			panic("BUG: " + name + ": " + err.Error())
		}
		pids = append(pids, pid)
	}
	return pids
}

// Script returns the path of a script of this folder. The test has to run
// somewhere in the module.
func Script(name string) (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return filepath.Join(dir, "test", "servers", name), nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", errors.New("the test does not run in the module")
		}
		dir = up
	}
}
