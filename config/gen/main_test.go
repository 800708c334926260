package main

import (
	"bytes"
	"errors"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"bulkhead/config"
)

const root = "../.."

// source returns the files that run reads.
func source(t *testing.T) (all [][]byte) {
	t.Helper()
	for _, name := range sourceFiles {
		text, err := os.ReadFile(root + "/config/" + name)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, text)
	}
	return all
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
	for i, text := range source(t) {
		if err := os.WriteFile(dir+"/config/"+sourceFiles[i], text, 0o644); err != nil {
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
	good := source(t)
	f := func(old, new, want string) {
		t.Helper()
		changed := slices.Clone(good)
		i := slices.IndexFunc(good, func(text []byte) bool { return bytes.Contains(text, []byte(old)) })
		if i < 0 {
			t.Fatalf("no file has %q", old)
		}
		changed[i] = bytes.Replace(good[i], []byte(old), []byte(new), 1)
		if _, err := read(changed...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", new, err)
		}
	}
	if _, err := read(good...); err != nil {
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
