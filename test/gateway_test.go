// Package test calls the gateway as its users do: the built binary, the
// official SDKs, real servers. It also holds the rules about source that no
// compiler checks: who may import what, and what may stand where.
package test

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
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// root is the module's folder.
const root = ".."

// binaryDir is where the gateway is built, once for all tests.
var binaryDir string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "bulkhead-test-")
		if err != nil {
			fmt.Fprintln(os.Stderr, "cannot make a folder for the gateway:", err)
			return 1
		}
		defer func() { _ = os.RemoveAll(dir) }()
		binaryDir = dir
		return m.Run()
	}())
}

var buildGateway = sync.OnceValues(func() (string, error) {
	path := filepath.Join(binaryDir, "gateway")
	cmd := exec.Command("go", "build", "-o", path, "./cmd/gateway")
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("cannot build the gateway: %w\n%s", err, out)
	}
	return path, nil
})

// company is what the gateway prints when it makes one, and data/demo.json.
type company struct {
	ID        string `json:"id"`
	Name      string `json:"name"`
	AdminKey  string `json:"admin_key"`
	ProjectID string `json:"project_id"`
	APIKey    string `json:"api_key"`
	TestKey   string `json:"test_key"`
}

// gateway is the running binary.
type gateway struct {
	URL      string // of the API, without /v1
	OpsURL   string
	Data     string // its data folder
	Demo     company
	Operator string // the operator's key

	path    string
	env     []string
	logFile string
}

// startGateway runs the gateway with the given configuration file on free
// loopback ports, with a data folder of its own, and waits until it is ready.
// It is stopped when the test ends; its log is shown if the test failed.
func startGateway(t *testing.T, configFile string) *gateway {
	t.Helper()
	path, err := buildGateway()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "bulkhead.yaml")
	if err := os.WriteFile(file, []byte(configFile), 0o600); err != nil {
		t.Fatal(err)
	}
	listen, ops := freeAddr(t), freeAddr(t)
	g := &gateway{
		URL: "http://" + listen, OpsURL: "http://" + ops,
		Data: filepath.Join(dir, "data"), path: path, logFile: filepath.Join(dir, "log"),
	}
	g.env = append(plainEnv(), "BULKHEAD_LISTEN="+listen, "BULKHEAD_OPS_LISTEN="+ops, "BULKHEAD_DATA="+g.Data,
		"BULKHEAD_URL="+g.URL, "BULKHEAD_ADMIN_URL="+g.OpsURL, "BULKHEAD_SHUTDOWN_DELAY=0")
	log, err := os.Create(g.logFile)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = log.Close() }()
	cmd := exec.Command(path, "serve", "-config", file)
	cmd.Dir, cmd.Env, cmd.Stderr = dir, g.env, log // standard output has the demo keys, once
	if err := cmd.Start(); err != nil {
		t.Fatalf("cannot start the gateway: %s", err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	t.Cleanup(func() {
		stopProcess(t, cmd.Process, ended)
		if t.Failed() {
			t.Logf("the gateway's log:\n%s", tail(g.log(t), 8<<10))
		}
	})
	g.waitReady(t, ended)
	readJSON(t, filepath.Join(g.Data, "demo.json"), &g.Demo)
	key, err := os.ReadFile(filepath.Join(g.Data, "operator.key"))
	if err != nil {
		t.Fatal(err)
	}
	g.Operator = strings.TrimSpace(string(key))
	return g
}

// waitReady polls /readyz for at most 30 s.
func (g *gateway) waitReady(t *testing.T, ended <-chan struct{}) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if status, _, err := fetch(ctx, http.MethodGet, g.OpsURL+"/readyz", "", nil); err == nil && status == http.StatusOK {
			return
		}
		select {
		case <-tick.C:
		case <-ended:
			t.Fatal("the gateway ended before it was ready")
		case <-ctx.Done():
			t.Fatal("the gateway was not ready within 30 s")
		}
	}
}

// stopProcess ends p as an operator would and insists after 15 s.
func stopProcess(t *testing.T, p *os.Process, ended <-chan struct{}) {
	_ = p.Signal(syscall.SIGTERM)
	select {
	case <-ended:
	case <-time.After(15 * time.Second):
		t.Error("the gateway did not stop within 15 s of SIGTERM")
		_ = p.Kill()
		<-ended
	}
}

// log is what the gateway wrote so far.
func (g *gateway) log(t *testing.T) []byte {
	b, err := os.ReadFile(g.logFile)
	if err != nil {
		t.Errorf("cannot read the gateway's log: %s", err)
	}
	return b
}

// run calls the gateway's command line with stdin and returns what it printed.
func (g *gateway) run(t *testing.T, stdin string, args ...string) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), g.path, args...)
	cmd.Dir, cmd.Stdin = filepath.Dir(g.Data), strings.NewReader(stdin)
	cmd.Env = append(g.env, "BULKHEAD_OPERATOR_KEY="+g.Operator)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("gateway %s: %s\n%s", strings.Join(args, " "), err, stderr.Bytes())
	}
	return out
}

// call sends body as JSON and fails the test if the answer is not 2xx. The
// answer is decoded into out unless that is nil.
func (g *gateway) call(t *testing.T, method, url, key string, body, out any) {
	t.Helper()
	var b []byte
	if body != nil {
		var err error
		if b, err = json.Marshal(body); err != nil {
			t.Fatal(err)
		}
	}
	status, answer, err := fetch(t.Context(), method, url, key, b)
	if err != nil {
		t.Fatalf("%s %s: %s", method, url, err)
	}
	if status < 200 || status > 299 {
		t.Fatalf("%s %s: status %d: %s", method, url, status, answer)
	}
	if out == nil {
		return
	}
	if err := json.Unmarshal(answer, out); err != nil {
		t.Fatalf("%s %s: %s in %s", method, url, err, answer)
	}
}

// setCredential gives the company its own key of a provider.
func (g *gateway) setCredential(t *testing.T, c company, provider, secret string) {
	t.Helper()
	g.call(t, http.MethodPost, g.URL+"/v1/organization/credentials", c.AdminKey,
		map[string]string{"provider": provider, "secret": secret}, nil)
}

// setRoute makes name an alias of the company for targets, tried in order.
func (g *gateway) setRoute(t *testing.T, c company, name string, targets ...string) {
	t.Helper()
	type target struct {
		Model string `json:"model"`
	}
	var list []target
	for _, m := range targets {
		list = append(list, target{m})
	}
	g.call(t, http.MethodPost, g.URL+"/v1/organization/routes", c.AdminKey,
		map[string]any{"name": name, "targets": list}, nil)
}

// client is not http.DefaultClient, whose proxy would come from the environment.
var client = &http.Client{Transport: &http.Transport{}, Timeout: time.Minute}

// fetch sends one request, with key as bearer and body as JSON unless empty.
func fetch(ctx context.Context, method, url, key string, body []byte) (status int, answer []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	if !asSession(req.Header, key) && key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	if len(body) > 0 {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	answer, err = io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	return resp.StatusCode, answer, errors.Join(err, resp.Body.Close())
}

// freeAddr returns a loopback address that nobody listens on now.
func freeAddr(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	return ln.Addr().String()
}

// plainEnv is the environment without what would change a gateway or an SDK:
// their own variables and the keys and proxies of whoever runs the tests.
func plainEnv() []string {
	var env []string
	for _, kv := range os.Environ() {
		name, _, _ := strings.Cut(kv, "=")
		switch upper := strings.ToUpper(name); {
		case strings.HasPrefix(upper, "BULKHEAD_") && upper != "SERVERS_HOME",
			strings.HasPrefix(upper, "OPENAI_"), strings.HasPrefix(upper, "OTEL_"),
			strings.HasSuffix(upper, "_API_KEY"), strings.HasSuffix(upper, "_PROXY"):
		default:
			env = append(env, kv)
		}
	}
	return env
}

func readJSON(t *testing.T, path string, out any) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, out); err != nil {
		t.Fatalf("%s: %s", filepath.Base(path), err)
	}
}

// tail is the end of b, at most n bytes.
func tail(b []byte, n int) []byte { return b[max(0, len(b)-n):] }
