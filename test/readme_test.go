package test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestReadme runs the examples of the README as they stand there, but for the
// address.
func TestReadme(t *testing.T) {
	text, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	f := func(language, file, want string) {
		t.Helper()
		name, env := interpreter(t, file)
		block := regexp.MustCompile("(?s)```" + language + "\n(.*?)```").FindSubmatch(text)
		if block == nil {
			t.Fatalf("the README has no example in %s", language)
		}
		g := startGateway(t, "")
		dir := filepath.Dir(g.Data) // holds the folder data, as a checkout does
		code := strings.ReplaceAll(string(block[1]), "http://127.0.0.1:8080", g.URL)
		if language == "js" {
			code = strings.Replace(code, `"openai"`, `"`+strings.TrimPrefix(env[0], "OPENAI_MODULE=")+`"`, 1)
		}
		path := filepath.Join(dir, file)
		if err := os.WriteFile(path, []byte(code), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), name, path)
		cmd.Dir, cmd.Env = dir, append(plainEnv(), env...)
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), want) {
			t.Errorf("the example in %s: %v, want %q in\n%s", language, err, want, out)
		}
	}
	f("python", "example.py", "Hello, Bulkhead\nsearch team has a key: sk-bh-live-")
	f("js", "example.mjs", "Hello, Bulkhead")
}
