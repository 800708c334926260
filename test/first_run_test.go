package test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"bulkhead/test/upstream"
)

// printedCurl is the command that the first start prints, as it stands there.
func printedCurl(t *testing.T, printed string) string {
	t.Helper()
	_, rest, ok := strings.Cut(printed, "  curl ")
	if !ok {
		t.Fatalf("no curl was printed:\n%s", printed)
	}
	line, _, _ := strings.Cut(rest, "\n\n")
	return "curl " + line
}

// fields returns the names of the members of a JSON object, sorted.
func fields(t *testing.T, object []byte) []string {
	t.Helper()
	var o map[string]any
	if err := json.Unmarshal(object, &o); err != nil {
		t.Fatalf("not one JSON object: %s in %s", err, object)
	}
	var names []string
	for name, v := range o {
		if s, ok := v.(string); !ok || s == "" {
			t.Errorf("%s is %v", name, v)
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// TestFirstRun starts a gateway as somebody does who has only Go, and does what
// it prints.
func TestFirstRun(t *testing.T) {
	g := prepare(t, "")
	p := g.serve(t)
	printed := p.printed(t)
	for what, key := range map[string]string{"live": g.Demo.APIKey, "test": g.Demo.TestKey, "admin": g.Demo.AdminKey} {
		if key == "" || !strings.Contains(printed, key) {
			t.Errorf("the %s key of demo.json was not printed", what)
		}
	}
	// The agent answers from its handbook, once that is taken in.
	parts := strings.Split(printed, "-d '")
	question, _, _ := strings.Cut(parts[len(parts)-1], "'")
	eventually(t, 30*time.Second, "the demo company's agent answers "+question+" from its handbook", func() bool {
		a := ask(t, http.MethodPost, g.URL+"/v1/chat/completions", g.Demo.TestKey, json.RawMessage(question))
		return a.status == http.StatusOK && strings.Contains(string(a.body), "24 months")
	})
	if strings.Contains(printed, g.Operator) {
		t.Error("the operator's key was printed")
	}

	curl := exec.CommandContext(t.Context(), "bash", "-c", printedCurl(t, printed)+` -sS -w '\n%{http_code}'`)
	curl.Env = plainEnv()
	out, err := curl.CombinedOutput()
	if errIsMissing(err) {
		t.Fatalf("curl: %s", err)
	}
	if err != nil || !bytes.HasSuffix(out, []byte("\n200")) || !bytes.Contains(out, []byte("Hello, Bulkhead")) {
		t.Errorf("the printed curl: %v\n%s", err, out)
	}

	for _, file := range []string{"demo.json", "operator.key", "master.key"} {
		info, err := os.Stat(filepath.Join(g.Data, file))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, want mode 0600: %v", file, info, err)
		}
	}
	if info, err := os.Stat(g.Data); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the data folder: %v, want mode 0700: %v", info, err)
	}
	demo, err := os.ReadFile(filepath.Join(g.Data, "demo.json"))
	if err != nil {
		t.Fatal(err)
	}
	created := g.run(t, "", "company", "create", "Second", "-json")
	want := []string{"admin_key", "api_key", "id", "name", "project_id", "test_key"}
	if a, b := fields(t, demo), fields(t, created); !slices.Equal(a, want) || !slices.Equal(b, want) {
		t.Errorf("demo.json has %v, company create -json %v, want %v", a, b, want)
	}

	// A second start changes nothing.
	p.stop(t)
	before := small(t, g)
	p = g.serve(t)
	if second := p.printed(t); strings.Contains(second, "sk-bh-") || strings.Contains(second, "curl") {
		t.Errorf("the second start printed:\n%s", second)
	}
	g.chat(t, g.Demo.TestKey, "sandbox/echo").want(t, "the test key after a restart", http.StatusOK)
	ask(t, http.MethodGet, g.URL+"/v1/organization/projects", g.Demo.AdminKey, nil).want(t, "the admin key after a restart", http.StatusOK)
	var all struct{ Data []struct{ Name string } }
	g.call(t, http.MethodGet, g.OpsURL+"/admin/companies", g.Operator, nil, &all)
	if len(all.Data) != 2 {
		t.Errorf("after the second start there are %d companies, want the demo and the one made here: %v", len(all.Data), all.Data)
	}
	p.stop(t)
	if after := small(t, g); !reflect.DeepEqual(before, after) {
		t.Errorf("the second start changed files")
	}
}

// errIsMissing reports that a program could not be started.
func errIsMissing(err error) bool {
	_, ran := err.(*exec.ExitError)
	return err != nil && !ran
}

// small reads the files of the data folder but the database and the journal,
// whose bytes change with each act and each start.
func small(t *testing.T, g *gateway) map[string]string {
	t.Helper()
	files := map[string]string{}
	list, err := os.ReadDir(g.Data)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range list {
		if strings.HasPrefix(f.Name(), "bulkhead.db") || f.IsDir() {
			continue
		}
		b, err := os.ReadFile(filepath.Join(g.Data, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		files[f.Name()] = string(b)
	}
	if len(files) < 4 {
		t.Fatalf("the data folder has only %v", files)
	}
	return files
}

// TestNoDemo starts where a demo company must not be made.
func TestNoDemo(t *testing.T) {
	f := func(what, config string, env ...string) {
		t.Helper()
		g := prepare(t, config, env...)
		p := g.serve(t)
		if printed := p.printed(t); printed != "" {
			t.Errorf("%s: the start printed %q", what, printed)
		}
		if _, err := os.Stat(filepath.Join(g.Data, "demo.json")); err == nil {
			t.Errorf("%s: there is a demo.json", what)
		}
		var all struct{ Data []any }
		g.call(t, http.MethodGet, g.OpsURL+"/admin/companies", g.Operator, nil, &all)
		if len(all.Data) != 0 {
			t.Errorf("%s: there are companies: %v", what, all.Data)
		}
		// And not made later either, when it is only this machine that connects.
		p.stop(t)
		g.configure(t, "")
		p = g.serve(t)
		if printed := p.printed(t); printed != "" {
			t.Errorf("%s: the second start printed %q", what, printed)
		}
		p.stop(t)
	}
	f("demo: off", "demo: 'off'\n")
	// A name counts as public, whatever it stands for. This machine's own often
	// is loopback, and then nobody else can connect.
	name, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	addrs, err := net.DefaultResolver.LookupHost(t.Context(), name)
	if err != nil || slices.ContainsFunc(addrs, func(a string) bool { ip := net.ParseIP(a); return ip == nil || !ip.IsLoopback() }) {
		t.Skipf("NOT AVAILABLE, so not tested: a public name that is loopback (%s is %v, %v)", name, addrs, err)
	}
	f("a public address", "", "BULKHEAD_LISTEN="+name+":0")
}

// TestEnvironmentKey gives the first start a provider's key in the environment.
func TestEnvironmentKey(t *testing.T) {
	up := upstream.New(t)
	const secret = "sk-from-the-environment-5f1e"
	g := prepare(t, "providers:\n  openai: {kind: openai, base_url: "+up.BaseURL()+"}\n", "OPENAI_API_KEY="+secret)
	p := g.serve(t)
	g.chat(t, g.Demo.APIKey, "openai/ok").want(t, "openai/ok", http.StatusOK)
	g.chat(t, g.Demo.APIKey, "gpt-4o-mini").want(t, "a bare name of the catalogue", http.StatusOK)
	all := up.Requests()
	if len(all) != 2 {
		t.Fatalf("%d calls arrived, want 2", len(all))
	}
	for _, r := range all {
		if got := r.Header.Get("Authorization"); got != "Bearer "+secret {
			t.Errorf("the upstream was sent %q", got)
		}
	}
	g.chat(t, g.Demo.APIKey, "anthropic/claude-sonnet-4-5").want(t, "a provider without a key", http.StatusNotFound)
	p.stop(t)
	for name, text := range map[string][]byte{"the log": g.log(t), "standard output": []byte(p.printed(t))} {
		if bytes.Contains(text, []byte(secret)) {
			t.Errorf("the secret stands in %s", name)
		}
	}
}

// TestDataFolder refuses what would break or lose data.
func TestDataFolder(t *testing.T) {
	g := prepare(t, "")
	first := g.serve(t)

	second := g.command(t, []string{"BULKHEAD_LISTEN=" + freeAddr(t), "BULKHEAD_OPS_LISTEN=" + freeAddr(t)}, "", "serve")
	if second.code != 1 || !strings.Contains(second.err, "in use by another gateway") {
		t.Errorf("a second gateway on the same folder: %+v", second)
	}
	if r := g.command(t, nil, "", "migrate"); r.code != 1 || !strings.Contains(r.err, "in use by another gateway") {
		t.Errorf("migrate while a gateway runs: %+v", r)
	}
	g.chat(t, g.Demo.TestKey, "sandbox/echo").want(t, "the first gateway", http.StatusOK)
	first.stop(t)

	master := filepath.Join(g.Data, "master.key")
	if err := os.Rename(master, master+".away"); err != nil {
		t.Fatal(err)
	}
	p := g.launch(t)
	if code := p.exit(t); code != 1 || !bytes.Contains(g.log(t), []byte("master.key is missing")) {
		t.Errorf("without its master key the gateway ended with %d:\n%s", code, tail(g.log(t), 500))
	}
	// Nor may the refusal leave a new key behind, with which the next start goes wrong.
	p = g.launch(t)
	if code := p.exit(t); code != 1 {
		t.Errorf("the second start without the master key ended with %d", code)
	}
	// Another one, of the right form, is found out before it refuses everything.
	if err := os.WriteFile(master, []byte(strings.Repeat("5a", 32)), 0o600); err != nil {
		t.Fatal(err)
	}
	if code := g.launch(t).exit(t); code != 1 || !bytes.Contains(g.log(t), []byte("not the master key")) {
		t.Errorf("with a wrong master key the gateway ended with %d:\n%s", code, tail(g.log(t), 500))
	}
	if err := os.Rename(master+".away", master); err != nil {
		t.Fatal(err)
	}
	g.serve(t)
	g.chat(t, g.Demo.TestKey, "sandbox/echo").want(t, "with the master key again", http.StatusOK)
}

// TestMigrateAndVersion runs the commands that need no running gateway.
func TestMigrateAndVersion(t *testing.T) {
	g := prepare(t, "")
	if r := g.command(t, nil, "", "version"); r.code != 0 || !strings.HasPrefix(r.out, "bulkhead ") {
		t.Errorf("version: %+v", r)
	}
	if r := g.command(t, nil, "", "migrate"); r.code != 0 || !strings.Contains(r.out, "migrated ") || !strings.Contains(r.out, "up to date") {
		t.Errorf("migrate of nothing: %+v", r)
	}
	if r := g.command(t, nil, "", "migrate"); r.code != 0 || strings.Contains(r.out, "migrated ") || !strings.Contains(r.out, "up to date") {
		t.Errorf("migrate again: %+v", r)
	}
	p := g.serve(t) // the first start comes after a migration: it is the first one still
	if g.Demo.ID == "" || !strings.Contains(p.printed(t), g.Demo.TestKey) {
		t.Error("no demo company after migrate")
	}
}

// TestCheck reports every problem at once and names the keys.
func TestCheck(t *testing.T) {
	g := prepare(t, "max_body_bytes: 1\nlog: {level: loud}\nunknown_key: 1\nproviders:\n  sandbox: {kind: openai}\n")
	file := filepath.Join(g.dir(), "bulkhead.yaml")
	for _, args := range [][]string{{"check", "-config", file}, {"serve", "-config", file}, {"migrate", "-config", file}} {
		r := g.command(t, []string{"BULKHEAD_LIMITS_CONCURENT_TOTAL=1"}, "", args...)
		if r.code != 1 || r.out != "" {
			t.Errorf("%s ended with %d and printed %q", args[0], r.code, r.out)
		}
		for _, key := range []string{"unknown_key", "log.level", "max_body_bytes", "providers.sandbox", "BULKHEAD_LIMITS_CONCURENT_TOTAL"} {
			if !strings.Contains(r.err, key) {
				t.Errorf("%s does not name %s:\n%s", args[0], key, r.err)
			}
		}
	}
	if _, err := os.Stat(g.Data); err == nil {
		t.Error("a refused configuration made the data folder")
	}
	g.configure(t, "")
	r := g.command(t, []string{"BULKHEAD_LISTEN=0.0.0.0:0"}, "", "check", "-config", file)
	if r.code != 0 || !strings.Contains(r.out, "good") || !strings.Contains(r.out, " warning ") {
		t.Errorf("check of a good configuration: %+v", r)
	}
	if r := g.command(t, nil, "", "check", "-config", filepath.Join(g.dir(), "none.yaml")); r.code != 1 || !strings.Contains(r.err, "none.yaml") {
		t.Errorf("check of no file: %+v", r)
	}
}

// TestStop ends the gateway while a stream runs: it may end, and is written
// down.
func TestStop(t *testing.T) {
	up := upstream.New(t)
	g := prepare(t, "shutdown_timeout: 15s\nproviders:\n  up: {kind: custom, base_url: "+up.BaseURL()+"}\n")
	p := g.serve(t)
	g.setCredential(t, g.Demo, "up", upstreamSecret)
	half, rest := make(chan struct{}), make(chan struct{})
	up.Handle("two-halves", func(c *upstream.Call) {
		c.StartStream()
		part := func(text, finish string) {
			c.Event([]byte(`{"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"content":"` +
				text + `"},"finish_reason":` + finish + `}],"usage":{"prompt_tokens":7,"completion_tokens":2,"total_tokens":9}}`))
		}
		part("first half", "null")
		close(half)
		<-rest
		part("second half", `"stop"`)
		c.Event([]byte("[DONE]"))
	})
	body := g.openStream(t, g.Demo.APIKey, "up/two-halves")
	<-half
	p.signal(t, syscall.SIGTERM)
	eventually(t, 5*time.Second, "new calls are refused", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		fresh := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, g.URL+"/v1/models", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := fresh.Do(req)
		if err == nil {
			_ = resp.Body.Close()
		}
		return err != nil
	})
	if status, _, err := fetch(t.Context(), http.MethodGet, g.OpsURL+"/readyz", "", nil); err != nil || status != http.StatusServiceUnavailable {
		t.Errorf("while it stops /readyz is %d (%v), want 503", status, err)
	}
	select {
	case <-p.ended:
		t.Fatal("the gateway ended while a stream was running")
	default:
	}
	close(rest)
	text, err := io.ReadAll(body)
	if err != nil || !bytes.Contains(text, []byte("second half")) || !bytes.Contains(text, []byte("[DONE]")) {
		t.Errorf("the stream that ran at SIGTERM: %v\n%s", err, text)
	}
	if code := p.exit(t); code != 0 {
		t.Errorf("exit code %d after SIGTERM", code)
	}
	entries := g.entries(t, g.Demo)
	if len(entries) != 1 || entries[0].Usage.Input != 7 || entries[0].Usage.Output != 2 || entries[0].Outcome != "answered" {
		t.Errorf("the ledger has %+v, want the stream's entry", entries)
	}
}

// TestStopCutsStreams ends the gateway while a stream runs that does not end.
func TestStopCutsStreams(t *testing.T) {
	up := upstream.New(t)
	g := prepare(t, "shutdown_timeout: 1s\nproviders:\n  up: {kind: custom, base_url: "+up.BaseURL()+"}\n")
	p := g.serve(t)
	g.setCredential(t, g.Demo, "up", upstreamSecret)
	body := g.openStream(t, g.Demo.APIKey, "up/never-ending")
	if err := up.WaitEvents(5, 5*time.Second); err != nil {
		t.Fatal(err)
	}
	p.stop(t)
	text, _ := io.ReadAll(body)
	if bytes.Contains(text, []byte("[DONE]")) {
		t.Error("a stream that was cut looks whole")
	}
	entries := g.entries(t, g.Demo)
	if len(entries) != 1 || entries[0].Outcome != "cancelled" || entries[0].Usage.Output == 0 {
		t.Errorf("the ledger has %+v, want the cut stream's entry", entries)
	}
}

// TestKill kills the gateway in the middle of work and starts it again.
func TestKill(t *testing.T) {
	up := upstream.New(t)
	g := prepare(t, "providers:\n  up: {kind: custom, base_url: "+up.BaseURL()+"}\n")
	p := g.serve(t)
	g.setCredential(t, g.Demo, "up", upstreamSecret)
	for range 3 {
		g.chat(t, g.Demo.APIKey, "up/ok").want(t, "before the kill", http.StatusOK)
	}
	eventually(t, 5*time.Second, "the entries are shipped", func() bool {
		return bytes.Contains(ask(t, http.MethodGet, g.OpsURL+"/metrics", "", nil).body, []byte("\nbulkhead_ledger_queued_entries 0"))
	})
	g.openStream(t, g.Demo.APIKey, "up/never-ending")
	p.kill(t)
	if err := up.WaitIdle(5 * time.Second); err != nil {
		t.Errorf("the upstream still works for a gateway that is dead: %s", err)
	}
	p = g.serve(t)
	g.chat(t, g.Demo.APIKey, "up/ok").want(t, "after the kill", http.StatusOK)
	p.stop(t)
	if n := len(g.entries(t, g.Demo)); n < 4 {
		t.Errorf("the ledger has %d entries, want the 4 that were answered", n)
	}
}
