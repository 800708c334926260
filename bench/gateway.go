//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// buildGateway builds ./cmd/gateway into dir.
func buildGateway(dir string) (string, error) {
	bin := filepath.Join(dir, "bulkhead")
	out, err := exec.Command("go", "build", "-o", bin, "bulkhead/cmd/gateway").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("cannot build the gateway (-targets floor-fast,floor-like goes without): %w\n%s", err, out)
	}
	return bin, nil
}

// company is what the gateway says of a new company, and data/demo.json.
type company struct {
	ID        string `json:"id"`
	Name      string `json:"name"`
	AdminKey  string `json:"admin_key"`
	APIKey    string `json:"api_key"`
	ProjectID string `json:"project_id"`
}

// gateway is a running gateway with one company and its credential.
type gateway struct {
	*process
	addr, ops string
	dir, bin  string
	log       string
	operator  string // key
	demo      company
}

// startWait bounds how long a gateway may take until it listens.
const startWait = 60 * time.Second

// startGateway starts the binary with its state in dir/data, which may be of
// an earlier run, and gives the demo company a credential for the mock.
func startGateway(bin, dir, mock string, env ...string) (*gateway, error) {
	g := &gateway{bin: bin, dir: dir, log: filepath.Join(dir, "log")}
	data := filepath.Join(dir, "data")
	if err := os.MkdirAll(data, 0o700); err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "config.yaml")
	// One company holds all streams of a case, which is more than its share.
	text := fmt.Sprintf("limits: {concurrent_requests: 0, concurrent_total: 0}\nproviders:\n  bench:\n    kind: custom\n    base_url: http://%[1]s/v1\n  openai:\n    kind: openai\n    base_url: http://%[1]s/v1\n", mock)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return nil, err
	}
	var err error
	if g.addr, err = freeAddr(); err != nil {
		return nil, err
	}
	if g.ops, err = freeAddr(); err != nil {
		return nil, err
	}
	cmd := exec.Command(bin, "serve", "-config", file)
	cmd.Dir = dir
	cmd.Env = append(plainEnv(), "BULKHEAD_LISTEN="+g.addr, "BULKHEAD_OPS_LISTEN="+g.ops, "BULKHEAD_DATA="+data)
	cmd.Env = append(cmd.Env, env...)
	log, err := os.Create(g.log)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if g.process, err = start("bulkhead", cmd); err != nil {
		return nil, err
	}
	if err := g.setUp(data); err != nil {
		g.stop()
		return nil, fmt.Errorf("the gateway did not come up: %w\nend of its log:\n%s", err, tail(g.log))
	}
	return g, nil
}

// plainEnv is the environment without what would configure a gateway.
func plainEnv() []string {
	var env []string
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "BULKHEAD_") && !strings.Contains(e, "_API_KEY=") {
			env = append(env, e)
		}
	}
	return env
}

func freeAddr() (string, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer ln.Close()
	return ln.Addr().String(), nil
}

func (g *gateway) setUp(data string) error {
	if err := g.waitReady(); err != nil {
		return err
	}
	key, err := os.ReadFile(filepath.Join(data, "operator.key"))
	if err != nil {
		return err
	}
	g.operator = strings.TrimSpace(string(key))
	b, err := os.ReadFile(filepath.Join(data, "demo.json"))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, &g.demo); err != nil {
		return fmt.Errorf("demo.json: %w", err)
	}
	if g.demo.APIKey == "" || g.demo.AdminKey == "" {
		return errors.New("demo.json has no api_key or no admin_key")
	}
	if _, err := os.Stat(filepath.Join(g.dir, "ready")); err == nil {
		return nil // an earlier run's data: the credential is there
	}
	if err := g.giveCredential(g.demo); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(g.dir, "ready"), nil, 0o600)
}

func (g *gateway) waitReady() error {
	deadline := time.NewTimer(startWait)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ready(g.ops)
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-g.done:
			return errors.New("the process ended")
		case <-deadline.C:
			return fmt.Errorf("not within %s: %w", startWait, err)
		}
	}
}

// ready asks the gateway whether it is: before that its keys are not written.
func ready(ops string) error {
	resp, err := http.Get("http://" + ops + "/readyz")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	return nil
}

// giveCredential gives a company the credential for the provider "bench".
func (g *gateway) giveCredential(c company) error { return g.giveCredentialFor(c, "bench") }

func (g *gateway) giveCredentialFor(c company, provider string) error {
	return call(g.addr, "/v1/organization/credentials", c.AdminKey, map[string]string{"provider": provider, "secret": "sk-upstream"}, nil)
}

// newCompany makes a company with a credential.
func (g *gateway) newCompany(name string) (c company, err error) {
	if err := call(g.ops, "/admin/companies", g.operator, map[string]string{"name": name}, &c); err != nil {
		return c, err
	}
	if c.APIKey == "" || c.AdminKey == "" {
		return c, fmt.Errorf("/admin/companies answered without api_key or admin_key for %q", name)
	}
	return c, g.giveCredential(c)
}

// heap is the live heap after a collection, in bytes, from the ops listener's
// pprof; it is the text "# HeapAlloc = N" at the end of the heap profile.
func (g *gateway) heap() (int64, error) {
	req, err := http.NewRequest(http.MethodGet, "http://"+g.ops+"/debug/pprof/heap?gc=1&debug=1", nil)
	if err != nil {
		return 0, err
	}
	req.Header.Set("Authorization", "Bearer "+g.operator)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err
	}
	return parseHeap(string(b))
}

func parseHeap(profile string) (int64, error) {
	for line := range strings.Lines(profile) {
		if v, ok := strings.CutPrefix(line, "# HeapAlloc = "); ok {
			return strconv.ParseInt(strings.TrimSpace(v), 10, 64)
		}
	}
	return 0, errors.New("the heap profile has no HeapAlloc")
}

// call posts JSON to a management route, or without any gets it, and reads the
// answer into out.
func call(addr, path, key string, in, out any) error {
	method, body := http.MethodGet, []byte(nil)
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return err
		}
		method = http.MethodPost
	}
	answer, _, err := request(method, addr, path, key, "application/json", body)
	if err != nil || out == nil {
		return err
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	return nil
}

// request sends one request and returns the answer, which is to be a 2xx.
func request(method, addr, path, key, contentType string, body []byte) (answer []byte, header http.Header, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "http://"+addr+path, bytes.NewReader(body))
	if err != nil {
		return nil, nil, err
	}
	req.Header.Set("Content-Type", contentType)
	req.Header.Set("Authorization", "Bearer "+key)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	if answer, err = io.ReadAll(resp.Body); err != nil {
		return nil, nil, err
	}
	if resp.StatusCode >= 300 {
		return nil, nil, fmt.Errorf("%s %s: status %d: %.300s", method, path, resp.StatusCode, answer)
	}
	return answer, resp.Header, nil
}
