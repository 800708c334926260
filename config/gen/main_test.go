package main

import (
	"bytes"
	"errors"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"bulkhead/config"
)

const root = "../.."

func sourceText(t *testing.T) []byte {
	t.Helper()
	text, err := source(root)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// docs/config.md and docs/example.yaml are what the generator writes.
func TestCurrent(t *testing.T) {
	if err := run(root, true); err != nil {
		t.Error(err)
	}
}

// The comparison notices a changed file.
func TestCurrentNotices(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"config", "docs"} {
		if err := os.Mkdir(dir+"/"+name, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"/config/config.go", "/config/section.go"} {
		text, err := os.ReadFile(root + name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(dir+name, text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := run(dir, true); err == nil {
		t.Error("missing files are current")
	}
	if err := run(dir, false); err != nil {
		t.Fatal(err)
	}
	if err := run(dir, true); err != nil {
		t.Error(err)
	}
	for _, name := range []string{"/docs/config.md", "/docs/example.yaml"} {
		text, err := os.ReadFile(dir + name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(dir+name, append(text, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := run(dir, true); err == nil || !strings.Contains(err.Error(), name[1:]) {
			t.Errorf("%s was changed: %v", name, err)
		}
		if err := os.WriteFile(dir+name, text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// A comment that says something else than the code is an error.
func TestRead(t *testing.T) {
	good := sourceText(t)
	f := func(old, new, want string) {
		t.Helper()
		text := bytes.Replace(good, []byte(old), []byte(new), 1)
		if bytes.Equal(text, good) {
			t.Fatalf("config.go has no %q", old)
		}
		if _, err := read(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", new, err)
		}
	}
	if _, err := read(good); err != nil {
		t.Fatal(err)
	}
	f("// Default 5s, allowed 10ms..5m.", "// Default 6s, allowed 10ms..5m.", "upstream.connect: the comment says default 6s, the code 5s")
	f("// Default 5s, allowed 10ms..5m.", "// Default 5s, allowed 10ms..6m.", "upstream.connect: the comment says allowed")
	f("// Default 5s, allowed 10ms..5m.", "// Default 5s.", "upstream.connect: the comment says allowed")
	f("// Default auto.", "// It is auto.", `demo: the comment must end in`)
	f("// The form this provider speaks.", "//", "providers.NAME.kind has no comment")
}

// The example loads, is the default, and has every key.
func TestExample(t *testing.T) {
	path := root + "/docs/example.yaml"
	c, err := config.Load(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if def := config.Default(); !reflect.DeepEqual(*c, def) {
		t.Errorf("the example is not the default: %+v", *c)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range config.Entries() {
		name := e.Path[strings.LastIndexByte(e.Path, '.')+1:]
		if !regexp.MustCompile(`(?m)^[ #]*` + name + `:`).Match(text) {
			t.Errorf("the example lacks %s", e.Path)
		}
	}

	// The providers in comments are right as well.
	open := strings.Replace(string(text), "providers: {}\n#", "providers:\n", 1)
	open = strings.ReplaceAll(open, "\n#  ", "\n  ")
	file := t.TempDir() + "/b.yaml"
	if err := os.WriteFile(file, []byte(open), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err = config.Load(file, nil)
	if problems, ok := errors.AsType[*config.Problems](err); ok {
		t.Fatal(problems)
	}
	if len(c.Providers) != 2 {
		t.Errorf("providers %v", c.Providers)
	}
}
