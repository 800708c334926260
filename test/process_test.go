package test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// process is a run of the gateway that the test itself stops, kills or expects
// to fail. startGateway is for tests that only need one that serves.
type process struct {
	*gateway
	cmd    *exec.Cmd
	ended  chan struct{}
	stdout string // file with what this run printed
}

// prepare makes a folder, ports and an environment for a gateway and starts
// nothing. env is added to the environment of every run and command.
func prepare(t *testing.T, configFile string, env ...string) *gateway {
	t.Helper()
	path, err := buildGateway()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	listen, ops := freeAddr(t), freeAddr(t)
	g := &gateway{
		URL: "http://" + listen, OpsURL: "http://" + ops,
		Data: filepath.Join(dir, "data"), path: path, logFile: filepath.Join(dir, "log"),
	}
	g.configure(t, configFile)
	g.env = append(plainEnv(), "BULKHEAD_LISTEN="+listen, "BULKHEAD_OPS_LISTEN="+ops, "BULKHEAD_DATA="+g.Data,
		"BULKHEAD_URL="+g.URL, "BULKHEAD_ADMIN_URL="+g.OpsURL, "BULKHEAD_SHUTDOWN_DELAY=0")
	g.env = append(g.env, env...)
	return g
}

// dir is the folder that the gateway runs in.
func (g *gateway) dir() string { return filepath.Dir(g.Data) }

// configure writes the configuration file that runs and reloads read.
func (g *gateway) configure(t *testing.T, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(g.dir(), "bulkhead.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// launch starts "gateway serve" and does not wait for it. Whatever still runs
// when the test ends is killed.
func (g *gateway) launch(t *testing.T) *process {
	t.Helper()
	p := &process{gateway: g, ended: make(chan struct{})}
	out, err := os.CreateTemp(g.dir(), "stdout-")
	if err != nil {
		t.Fatal(err)
	}
	log, err := os.OpenFile(g.logFile, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	p.stdout = out.Name()
	p.cmd = exec.Command(g.path, "serve", "-config", filepath.Join(g.dir(), "bulkhead.yaml"))
	p.cmd.Dir, p.cmd.Env, p.cmd.Stdout, p.cmd.Stderr = g.dir(), g.env, out, log
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("cannot start the gateway: %s", err)
	}
	go func() {
		_ = p.cmd.Wait()
		_ = errors.Join(out.Close(), log.Close())
		close(p.ended)
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.ended
		if t.Failed() {
			t.Logf("the gateway's log:\n%s", tail(g.log(t), 4<<10))
		}
	})
	return p
}

// serve starts the gateway, waits until it is ready and reads the keys it made.
func (g *gateway) serve(t *testing.T) *process {
	t.Helper()
	p := g.launch(t)
	g.waitReady(t, p.ended)
	if _, err := os.Stat(filepath.Join(g.Data, "demo.json")); err == nil {
		readJSON(t, filepath.Join(g.Data, "demo.json"), &g.Demo)
	}
	key, err := os.ReadFile(filepath.Join(g.Data, "operator.key"))
	if err != nil {
		t.Fatal(err)
	}
	g.Operator = strings.TrimSpace(string(key))
	return p
}

// signal sends s to the gateway.
func (p *process) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		t.Fatalf("cannot send %s: %s", s, err)
	}
}

// exit waits at most 20 s for the gateway to end and returns its exit code, -1
// if a signal ended it.
func (p *process) exit(t *testing.T) int {
	t.Helper()
	select {
	case <-p.ended:
	case <-time.After(20 * time.Second):
		t.Fatal("the gateway did not end within 20 s")
	}
	return p.cmd.ProcessState.ExitCode()
}

// stop ends the gateway as an operator would.
func (p *process) stop(t *testing.T) {
	t.Helper()
	p.signal(t, syscall.SIGTERM)
	if code := p.exit(t); code != 0 {
		t.Fatalf("the gateway ended with %d after SIGTERM", code)
	}
}

// kill ends the gateway as the kernel would.
func (p *process) kill(t *testing.T) {
	t.Helper()
	p.signal(t, syscall.SIGKILL)
	p.exit(t)
}

// printed is what this run wrote to its standard output.
func (p *process) printed(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(p.stdout)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// result is how a command of the gateway ended.
type result struct {
	out, err string
	code     int
}

// command runs the gateway's command line with more variables in its
// environment, at most for 30 s.
func (g *gateway) command(t *testing.T, env []string, stdin string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, g.path, args...)
	var out, errs bytes.Buffer
	cmd.Dir, cmd.Stdin, cmd.Stdout, cmd.Stderr = g.dir(), strings.NewReader(stdin), &out, &errs
	cmd.Env = append(append([]string{}, g.env...), env...)
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatalf("gateway %s: %s", strings.Join(args, " "), err)
	}
	return result{out.String(), errs.String(), cmd.ProcessState.ExitCode()}
}

// answer is what the gateway said to one request.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// fault is the code and the message of OpenAI's error envelope; empty if the
// answer is none.
func (a answer) fault() (code, message string) {
	var e struct {
		Error struct{ Code, Message string } `json:"error"`
	}
	_ = json.Unmarshal(a.body, &e)
	return e.Error.Code, e.Error.Message
}

// ask sends one request and returns the whole answer, whatever its status.
func ask(t *testing.T, method, url, key string, body any) answer {
	t.Helper()
	a, err := tryAsk(t.Context(), method, url, key, body)
	if err != nil {
		t.Fatalf("%s %s: %s", method, url, err)
	}
	return a
}

// encode makes of a value what is sent: JSON, or a form, or nothing of nil.
func encode(body any) (b []byte, contentType string, err error) {
	switch f := body.(type) {
	case nil:
		return nil, "", nil
	case form:
		b, contentType = f.encode()
		return b, contentType, nil
	}
	b, err = json.Marshal(body)
	return b, "application/json", err
}

// tryAsk is ask for goroutines other than the test's.
func tryAsk(ctx context.Context, method, url, key string, body any) (answer, error) {
	b, contentType, err := encode(body)
	if err != nil {
		return answer{}, err
	}
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(b))
	if err != nil {
		return answer{}, err
	}
	if !asSession(req.Header, key) && key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := client.Do(req)
	if err != nil {
		return answer{}, err
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	return answer{resp.StatusCode, resp.Header, text}, errors.Join(err, resp.Body.Close())
}

// chatBody is a chat call with one user message.
func chatBody(model, text string) map[string]any {
	return map[string]any{"model": model, "messages": []map[string]string{{"role": "user", "content": text}}}
}

// chat calls a model and returns the answer.
func (g *gateway) chat(t *testing.T, key, model string) answer {
	t.Helper()
	return ask(t, http.MethodPost, g.URL+"/v1/chat/completions", key, chatBody(model, "Hello"))
}

// want ends the test unless a has this status.
func (a answer) want(t *testing.T, what string, status int) answer {
	t.Helper()
	if a.status != status {
		t.Fatalf("%s: status %d, want %d: %s", what, a.status, status, tail(a.body, 500))
	}
	return a
}

// eventually polls ok until it holds, at most for the given time.
func eventually(t *testing.T, within time.Duration, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("not within %s: %s", within, what)
		}
	}
}

// openStream begins a streamed chat call and returns its body, still open.
func (g *gateway) openStream(t *testing.T, key, model string) io.ReadCloser {
	t.Helper()
	body := chatBody(model, "Hello")
	body["stream"] = true
	b, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, g.URL+"/v1/chat/completions", bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+key)
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = resp.Body.Close() })
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(resp.Body)
		t.Fatalf("the stream began with status %d: %s", resp.StatusCode, text)
	}
	return resp.Body
}
