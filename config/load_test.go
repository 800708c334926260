package config

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// loadText loads text as a file named bulkhead.yaml.
func loadText(text string, env ...string) (*Config, error) {
	return load("bulkhead.yaml", []byte(text), env)
}

// problemLines returns the problems as "key: message", or nil.
func problemLines(t *testing.T, err error) []string {
	t.Helper()
	if err == nil {
		return nil
	}
	problems, ok := errors.AsType[*Problems](err)
	if !ok || len(*problems) == 0 {
		t.Fatalf("the error is no *Problems, or an empty one: %v", err)
	}
	var lines []string
	for _, p := range *problems {
		lines = append(lines, p.Key+": "+p.Message)
	}
	return lines
}

// write makes a file and returns its path.
func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestLoadNothing(t *testing.T) {
	def := Default()
	f := func(text string) {
		t.Helper()
		c, err := loadText(text)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(*c, def) {
			t.Fatalf("%q gives %+v, want the default", text, *c)
		}
	}
	f("")
	f("\n\n")
	f("# a comment\n")
	f("---\n")
	f("{}\n")
	// sections whose keys are all commented out
	f("limits:\n  # requests_per_minute: 5\nproviders:\n")

	c, err := Load("", nil)
	if err != nil || !reflect.DeepEqual(*c, def) {
		t.Fatalf("no file and no environment: %v, %v", c, err)
	}
}

// Every kind of value, from the file, from the environment, and who wins.
func TestLoadValues(t *testing.T) {
	keyFile := write(t, "key", strings.Repeat("ab", 32)+"\n")
	text := `
listen: ":9000"
ops_listen: localhost:9001
master_key: file:` + keyFile + `
max_body_bytes: 1048576
body_bytes_total: "2GiB"
upstream: {connect: 250ms, company_base_urls: true}
limits:
  requests_per_minute: 60
providers:
  openai: {kind: openai, base_url: "http://127.0.0.1:4000/v1"}
  0: {kind: ollama}
log:
  level: debug
`
	c, err := loadText(text,
		"PATH=/bin", "BULKHEAD_URL=x", "BULKHEAD_CONFIG=", "BULKHEAD_API_KEY=k", "BULKHEAD_OPERATOR_KEY=k", "BULKHEAD_ADMIN_URL=u",
		"BULKHEAD_LOG_LEVEL=error", "BULKHEAD_LOG_LEVEL=warn", "BULKHEAD_OTEL_SAMPLE=10",
		"BULKHEAD_OTEL_HEADERS=env:COLLECTOR", "COLLECTOR=authorization=Bearer%20x, x-team = a",
		"BULKHEAD_STREAM_KEEPALIVE=0", "BULKHEAD_UPSTREAM_ALLOW_PRIVATE=true")
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.Listen, want.OpsListen = ":9000", "localhost:9001"
	want.MasterKey = NewSecret(strings.Repeat("ab", 32))
	want.MaxBodyBytes, want.BodyBytesTotal = MiB, 2*GiB
	want.Upstream.Connect = 250 * time.Millisecond
	want.Upstream.CompanyBaseURLs, want.Upstream.AllowPrivate = true, true
	want.Limits.RequestsPerMinute = 60
	want.Providers = map[string]Provider{
		"openai": {Kind: "openai", BaseURL: "http://127.0.0.1:4000/v1"},
		"0":      {Kind: "ollama"},
	}
	want.Log.Level = "warn"
	want.OTel.Sample, want.OTel.Headers = 10, NewSecret("authorization=Bearer%20x, x-team = a")
	want.Stream.Keepalive = 0
	if !reflect.DeepEqual(*c, want) {
		t.Errorf("got  %+v\nwant %+v", *c, want)
	}
	if got := c.OTel.HeaderMap(); !reflect.DeepEqual(got, map[string]string{"authorization": "Bearer x", "x-team": "a"}) {
		t.Errorf("headers %q", got)
	}
	if got := c.MasterKeyBytes(); len(got) != 32 || got[0] != 0xab {
		t.Errorf("master key %x", got)
	}
}

// Every key can be set in the environment, to its default.
func TestEveryVariable(t *testing.T) {
	seen := map[string]bool{}
	for _, name := range clientEnv() {
		seen[name] = true
	}
	var env []string
	for _, e := range Entries() {
		if e.Env == "" {
			continue
		}
		if seen[e.Env] {
			t.Errorf("two meanings of %s", e.Env)
		}
		seen[e.Env] = true
		value := e.Default
		if value == "empty" {
			value = ""
		}
		env = append(env, e.Env+"="+value)
	}
	c, err := Load("", env)
	if err != nil {
		t.Fatal(err)
	}
	if def := Default(); !reflect.DeepEqual(*c, def) {
		t.Errorf("got %+v", *c)
	}
}

func TestProvidersVariable(t *testing.T) {
	f := func(value string, want map[string]Provider) {
		t.Helper()
		c, err := loadText("providers: {old: {kind: groq}}", "BULKHEAD_PROVIDERS="+value)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(c.Providers, want) {
			t.Errorf("got %v", c.Providers)
		}
	}
	f(`{"mine": {"kind": "custom", "base_url": "https://a.example/v1"}}`, map[string]Provider{"mine": {"custom", "https://a.example/v1"}})
	f("a: {kind: xai}\nb: {kind: gemini}", map[string]Provider{"a": {Kind: "xai"}, "b": {Kind: "gemini"}})
	f("", map[string]Provider{}) // empty is empty, and takes the file's place

	_, err := loadText("", "BULKHEAD_PROVIDERS={a: {kind: nope, url: x}}")
	got := problemLines(t, err)
	if len(got) != 2 || !strings.HasPrefix(got[0], "providers.a.url: unknown key") ||
		!strings.HasPrefix(got[1], "providers.a.kind: must be openai, azure") || !strings.Contains(got[1], "(BULKHEAD_PROVIDERS)") {
		t.Errorf("got %q", got)
	}
}

// All problems are found in one go, each with its key, its place and what would
// be right. The file is testdata/problems.yaml, the answer problems.txt.
func TestLoadAllProblems(t *testing.T) {
	text, err := os.ReadFile("testdata/problems.yaml")
	if err != nil {
		t.Fatal(err)
	}
	_, err = loadText(string(text),
		"BULKHEAD_LISTNE=x", "BULKHEAD_LIMITS=5", "BULKHEAD_SERVICE_HOST=10.0.0.1", "BULKHEAD_listen=x",
		"BULKHEAD_UPSTREAM_HEADER=soon", "BULKHEAD_UPSTREAM_TOTAL=25h", "BULKHEAD_OTEL_SAMPLE=")
	if err == nil {
		t.Fatal("no problems")
	}
	golden(t, "testdata/problems.txt", err.Error()+"\n")
	for _, secret := range []string{"hunter2", "sekrit"} {
		if strings.Contains(err.Error(), secret) {
			t.Errorf("the error shows the secret %q", secret)
		}
	}
}

// golden compares got with a file, or with -update writes it.
func golden(t *testing.T, name, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs (-update rewrites it), got:\n%s", name, got)
	}
}

// What is no YAML names line and key, and shows nothing of the text.
func TestSyntax(t *testing.T) {
	f := func(text, want string) {
		t.Helper()
		_, err := loadText(text)
		got := problemLines(t, err)
		if len(got) != 1 || !strings.HasPrefix(got[0], want[:strings.Index(want, " ")]) || !strings.HasSuffix(got[0], want[strings.Index(want, " ")+1:]) {
			t.Errorf("got %q, want %q", got, want)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("the error shows the secret: %v", err)
		}
	}
	// an unclosed brace
	f("listen: :1\nupstream:\n  connect: {hunter2", "upstream.connect: (bulkhead.yaml:3)")
	// keys before it at the same depth are not above it
	f("upstream:\n  idle: 1s\n  total: 1h\n  connect: {hunter2", "upstream.connect: (bulkhead.yaml:4)")
	// a tab for indentation
	f("master_key: hunter2\nlog:\n\tlevel: info\n", "log.level: (bulkhead.yaml:3)")
	// a value that has a second value
	f("otel:\n  headers: \"hunter2\" x\n", "otel.headers: (bulkhead.yaml:2)")
	// two documents
	f("listen: :1\n---\ndata: x\n", "data: (bulkhead.yaml:3)")
	// not keys at all
	f("hunter2\n", "bulkhead.yaml: (bulkhead.yaml:1)")
	f("- hunter2\n", "bulkhead.yaml: (bulkhead.yaml:1)")
	// a parser that recurses must not be led to the end of its stack
	f("data: x\nproviders: "+strings.Repeat("[", 500_000), "providers: (bulkhead.yaml:2)")
	// anchors could double the text with every line
	f("log: &a {level: info}\n", "log: (bulkhead.yaml:1)")
	f("data: !!str x\n", "data: (bulkhead.yaml:1)")
}

func TestLoadFile(t *testing.T) {
	c, err := Load(write(t, "b.yaml", "demo: off\n"), nil)
	if err != nil || c.Demo != "off" {
		t.Fatalf("%v, %v", c, err)
	}
	f := func(file, want string) {
		t.Helper()
		// the environment is looked at even if the file cannot be
		_, err := Load(file, []string{"BULKHEAD_NOPE=1"})
		got := problemLines(t, err)
		if len(got) != 2 || !strings.Contains(got[0], want) || !strings.HasPrefix(got[1], "BULKHEAD_NOPE: ") {
			t.Errorf("got %q", got)
		}
	}
	f(filepath.Join(t.TempDir(), "none"), "no such file")
	f(t.TempDir(), "not a regular file")
	f(write(t, "big", strings.Repeat("#", maxFileBytes+1)), "larger than 1MiB")
}

func TestSecretReferences(t *testing.T) {
	f := func(text, want, wrong string) {
		t.Helper()
		got, message := resolve(text, map[string]string{"SET": "v", "EMPTY": ""})
		if got.Reveal() != want || !strings.Contains(message, wrong) || (message == "") != (wrong == "") {
			t.Errorf("%q: %q, %q", text, got.Reveal(), message)
		}
	}
	f("", "", "")
	f("plain", "plain", "")
	f("a=b:c", "a=b:c", "")
	f("env:SET", "v", "")
	f("env:EMPTY", "", "EMPTY, which must be set")
	f("env:UNSET", "", "UNSET, which must be set")
	f("file:"+write(t, "s", "  v\r\n"), "v", "")
	f("file:"+write(t, "s", "\n"), "", "must not be empty")
	f("file:/does/not/exist", "", "no such file")
	f("file:/dev/zero", "", "not a regular file")
	f("vault:kv/x", "", "is not for this key")
	f("[secret]", "", "how one is printed")
}

// Run it with -fuzzminimizetime 10x: by default Go spends a minute on making
// each interesting input smaller and tries no other meanwhile.
func FuzzLoad(f *testing.F) {
	example, err := os.ReadFile("../docs/example.yaml")
	if err != nil {
		f.Fatal(err)
	}
	problems, err := os.ReadFile("testdata/problems.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(example), "BULKHEAD_LISTEN=:1")
	f.Add(string(problems), "BULKHEAD_PROVIDERS={a: {kind: xai}}")
	f.Add("providers:\n  a\x80\x00\x1b b", "BULKHEAD_PROVIDERS={\"\\e\": 1}")
	f.Add("listen: &a *a\n<<: {}\n? x : y", "BULKHEAD_MASTER_KEY=env:X\nX=\x00")
	f.Fuzz(func(t *testing.T, text, env string) {
		c, err := load("bulkhead.yaml", []byte(text), strings.Split(env, "\n"))
		if err == nil {
			if c.Check() != nil {
				t.Fatal("a configuration that was loaded does not pass Check")
			}
			_ = c.Warnings()
			return
		}
		if c != nil {
			t.Fatal("a configuration and an error")
		}
		for _, line := range problemLines(t, err) {
			if strings.HasPrefix(line, ": ") || strings.HasSuffix(line, ": ") || strings.ContainsAny(line, "\n\x1b\x00") {
				t.Fatalf("problem %q", line)
			}
		}
	})
}
