package test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"bulkhead/test/servers"
	"bulkhead/test/upstream"
)

// What must be seen by the upstream only, or by nobody.
const (
	upstreamSecret = "sk-upstream-canary-c0ffee"
	promptCanary   = "prompt-canary-7f3a" // the scripts put it into every prompt
)

// missing returns t.Skip's or t.Fatal's job for what could not be had: with
// REQUIRE_SERVERS=1 its absence is a failure.
func missing(t *testing.T, what string, err error) {
	t.Helper()
	if os.Getenv("REQUIRE_SERVERS") == "1" {
		t.Fatalf("NOT AVAILABLE: %s: %s", what, err)
	}
	t.Skipf("NOT AVAILABLE, so not tested: %s: %s", what, err)
}

// script runs one of the shell scripts that install or start something and
// returns its standard output. It may take minutes the first time.
func script(ctx context.Context, env []string, path string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", append([]string{path}, args...)...)
	cmd.Env = append(os.Environ(), env...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	// A server that outlives its start script must not hold Output back.
	cmd.WaitDelay = 10 * time.Second
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w\n%s", path, err, tail(stderr.Bytes(), 2<<10))
	}
	return strings.TrimSpace(string(out)), nil
}

type installed struct {
	path string
	err  error
}

// sdks installs both SDKs once; one that cannot be had leaves the other.
var sdks = sync.OnceValue(func() map[string]installed {
	all := map[string]installed{}
	for _, lang := range []string{"python", "node"} {
		out, err := script(context.Background(), nil, "sdk/install.sh", lang)
		_, path, _ := strings.Cut(out, "=")
		all[lang] = installed{path, err}
	}
	return all
})

// interpreter returns the command that runs a script with the SDK installed,
// and what must be added to the environment.
func interpreter(t *testing.T, file string) (name string, env []string) {
	t.Helper()
	if filepath.Ext(file) == ".py" {
		sdk := sdks()["python"]
		if sdk.err != nil {
			missing(t, "OpenAI SDK for Python", sdk.err)
		}
		return sdk.path, []string{"PYTHONDONTWRITEBYTECODE=1", "PYTHONUNBUFFERED=1"}
	}
	sdk := sdks()["node"]
	if sdk.err != nil {
		missing(t, "OpenAI SDK for Node", sdk.err)
	}
	return "node", []string{"OPENAI_MODULE=" + filepath.Join(sdk.path, "openai", "index.mjs")}
}

// runScript runs sdk/file against g with the keys of c. The script prints "ok NAME" or "not ok
// NAME" for each check, each a subtest here, and at last "done" and how many.
func runScript(t *testing.T, g *gateway, c company, file string, env ...string) {
	t.Helper()
	name, more := interpreter(t, file)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, filepath.Join("sdk", file))
	cmd.Env = append(plainEnv(), more...)
	cmd.Env = append(cmd.Env, "BULKHEAD_URL="+g.URL, "BULKHEAD_OPS_URL="+g.OpsURL, "BULKHEAD_PROJECT="+c.ProjectID,
		"BULKHEAD_KEY="+c.APIKey, "BULKHEAD_TEST_KEY="+c.TestKey, "BULKHEAD_ADMIN_KEY="+c.AdminKey,
		"BULKHEAD_OPERATOR_KEY="+g.Operator, "PROMPT_CANARY="+promptCanary)
	cmd.Env = append(cmd.Env, env...)
	out, err := cmd.CombinedOutput()

	checks, done := 0, -1
	var notes []string // lines before a verdict explain it
	lines := bufio.NewScanner(bytes.NewReader(out))
	lines.Buffer(nil, 8<<20)
	for lines.Scan() {
		line := lines.Text()
		if check, ok := strings.CutPrefix(line, "ok "); ok {
			checks++
			t.Run(check, func(*testing.T) {})
			notes = nil
		} else if check, ok := strings.CutPrefix(line, "not ok "); ok {
			checks++
			why := strings.Join(notes, "\n")
			t.Run(check, func(t *testing.T) { t.Error(why) })
			notes = nil
		} else if n, ok := strings.CutPrefix(line, "done "); ok {
			done, _ = strconv.Atoi(n)
		} else {
			notes = append(notes, line)
		}
	}
	if done < 1 || done != checks {
		t.Errorf("%s ended early: %d checks seen, %d said (%v)\n%s", file, checks, done, err, strings.Join(notes, "\n"))
	} else if err != nil && !t.Failed() {
		t.Errorf("%s: %s", file, err)
	}
}

// TestSDK runs the scripts in sdk/, each against a gateway and a scripted
// upstream of its own.
func TestSDK(t *testing.T) {
	for _, file := range []string{
		"inference.py", "streams.py", "failures.py", "management.py", "media.py", "money.py", "conversations.py", "responses.py",
		"inference.mjs", "failures.mjs", "management.mjs", "media.mjs", "money.mjs", "conversations.mjs", "responses.mjs",
	} {
		t.Run(file, func(t *testing.T) {
			interpreter(t, file) // before the gateway is built for nothing
			up := upstream.New(t)
			g := startGateway(t, "providers:\n  up: {kind: custom, base_url: "+up.BaseURL()+"}\n")
			c := someCompany(t, g, file)
			g.setCredential(t, c, "up", upstreamSecret)
			g.setRoute(t, c, "fast", "up/status-500", "up/ok")
			g.setRoute(t, c, "flaky", "up/fail-once:route", "up/chunks-3")
			g.setRoute(t, c, "dead", "up/status-503", "up/status-500")
			runScript(t, g, c, file, "UPSTREAM_URL="+up.URL(), "UPSTREAM_SECRET="+upstreamSecret)
			nothingLeaked(t, g, c)
		})
	}
}

// someCompany returns the demo company for most scripts, and for others one
// made through the command line or the operator's API: all must be alike.
func someCompany(t *testing.T, g *gateway, file string) (c company) {
	t.Helper()
	switch {
	case filepath.Ext(file) == ".mjs":
		out := g.run(t, "", "company", "create", "Made on the command line", "-json")
		if err := json.Unmarshal(out, &c); err != nil {
			t.Fatalf("company create printed %q: %s", out, err)
		}
	case file == "management.py", file == "knowledge.py": // which count what there is
		g.call(t, http.MethodPost, g.OpsURL+"/admin/companies", g.Operator, map[string]string{"name": "Made by the operator"}, &c)
	default:
		c = g.Demo
	}
	if c.ID == "" || c.AdminKey == "" || c.ProjectID == "" || c.APIKey == "" || c.TestKey == "" {
		t.Fatal("the company lacks an id or a key")
	}
	return c
}

// nothingLeaked looks for secrets and prompts where they must not be.
func nothingLeaked(t *testing.T, g *gateway, c company) {
	t.Helper()
	_, metrics, err := fetch(t.Context(), http.MethodGet, g.OpsURL+"/metrics", "", nil)
	if err != nil {
		t.Errorf("cannot read the metrics: %s", err)
	}
	canaries := map[string]string{
		"the provider's key": upstreamSecret, "a prompt": promptCanary, "the live key": c.APIKey,
		"the test key": c.TestKey, "the admin key": c.AdminKey, "the operator's key": g.Operator,
	}
	for where, text := range map[string][]byte{"log": g.log(t), "metrics": metrics} {
		if len(text) == 0 {
			t.Errorf("the %s is empty, so nothing was looked at", where)
		}
		for what, canary := range canaries {
			if bytes.Contains(text, []byte(canary)) {
				t.Errorf("%s stands in the %s", what, where)
			}
		}
	}
}

// TestLLM calls a real language model through the gateway.
func TestLLM(t *testing.T) {
	interpreter(t, "llm.py")
	base := servers.Start(t, "llm").Var("LLM_BASE_URL")
	g := startGateway(t, "providers:\n  llm: {kind: custom, base_url: "+base+"}\n")
	g.setCredential(t, g.Demo, "llm", upstreamSecret)
	runScript(t, g, g.Demo, "llm.py")
	nothingLeaked(t, g, g.Demo)
	waitCounted(t, g, "llm")
}

// waitCounted waits until the ledger of g has counted tokens in and out of the
// provider. It polls for at most 5 s, since entries are written after the answer.
func waitCounted(t *testing.T, g *gateway, provider string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		_, metrics, err := fetch(ctx, http.MethodGet, g.OpsURL+"/metrics", "", nil)
		if err == nil && tokens(metrics, provider, "input") > 0 && tokens(metrics, provider, "output") > 0 {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("no tokens of provider %s were counted: %v", provider, err)
		}
	}
}

var tokenSeries = regexp.MustCompile(`(?m)^bulkhead_tokens_total\{(.*)\} (\d+)`)

// tokens sums the series of one provider and kind of token.
func tokens(metrics []byte, provider, kind string) (sum int64) {
	for _, m := range tokenSeries.FindAllSubmatch(metrics, -1) {
		labels := string(m[1])
		if strings.Contains(labels, fmt.Sprintf("provider=%q", provider)) && strings.Contains(labels, fmt.Sprintf("kind=%q", kind)) {
			n, _ := strconv.ParseInt(string(m[2]), 10, 64)
			sum += n
		}
	}
	return sum
}
