// Command gen writes docs/config.md and docs/example.yaml from the comments and
// tags of config/config.go and config/section.go, and from config.Default:
//
//	go run ./config/gen          write both, from the root of the repository
//	go run ./config/gen -check   write nothing, exit 1 if one is not current
//
// It fails if a comment states another default or other limits than the code.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	check := flag.Bool("check", false, "write nothing, fail if a file is not current")
	root := flag.String("root", ".", "folder of the repository")
	flag.Parse()
	if err := run(*root, *check); err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}

// source returns the files of the struct below root, as if they were one.
func source(root string) ([]byte, error) {
	text, err := os.ReadFile(filepath.Join(root, "config", "config.go"))
	if err != nil {
		return nil, err
	}
	more, err := os.ReadFile(filepath.Join(root, "config", "section.go"))
	return append(append(text, '\n'), bytes.TrimPrefix(more, []byte("package config\n"))...), err
}

// run writes the files below root, or with check compares them.
func run(root string, check bool) error {
	text, err := source(root)
	if err != nil {
		return err
	}
	sections, err := read(text)
	if err != nil {
		return err
	}
	files := []struct {
		name string
		text []byte
	}{
		{filepath.Join("docs", "config.md"), markdown(sections)},
		{filepath.Join("docs", "example.yaml"), example(sections)},
	}
	for _, f := range files {
		path := filepath.Join(root, f.name)
		if !check {
			if err := os.WriteFile(path, f.text, 0o644); err != nil {
				return err
			}
			continue
		}
		if have, err := os.ReadFile(path); err != nil || !bytes.Equal(have, f.text) {
			return fmt.Errorf("%s is not current: run go run ./config/gen", f.name)
		}
	}
	return nil
}
