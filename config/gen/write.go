package main

import (
	"bytes"
	"fmt"
	"strings"
)

const intro = `# Configuration

<!-- Made by "go run ./config/gen" from config/config.go and section.go. Do not edit. -->

The gateway needs no configuration: ` + "`gateway serve`" + ` runs with the defaults below. What differs goes into one
YAML file, named with ` + "`-config`" + ` or ` + "`BULKHEAD_CONFIG`" + `, or into the environment, which wins over the file.
[example.yaml](example.yaml) has every key with its default.

- Unknown keys and unknown ` + "`BULKHEAD_`" + ` variables are errors, but for those of the command-line client:
  ` + "`BULKHEAD_CONFIG`, `BULKHEAD_URL`, `BULKHEAD_ADMIN_URL`, `BULKHEAD_OPERATOR_KEY`, `BULKHEAD_API_KEY`" + `.
  In Kubernetes, a Service named "bulkhead" makes such variables: set ` + "`enableServiceLinks: false`" + ` in the pod.
- ` + "`gateway check`" + ` reports all problems at once, each with its key and what would be right.
- SIGHUP reads everything again and applies it if all of it is right; otherwise the old configuration stays. Keys
  marked *restart* change with the next start only.
- A variable that is set and empty is an empty value, not the default.
- A **duration** is a number with a unit: ` + "`500ms`, `30s`, `5m`, `1h30m`" + `. A **size** is a number of bytes:
  ` + "`1048576`, `512KiB`, `20MiB`, `1GiB`" + `.
- A **secret** is the value itself, or better a reference: ` + "`env:NAME`" + ` is the variable of that name (one that does not
  begin with ` + "`BULKHEAD_`" + `), ` + "`file:PATH`" + ` the content of a file of at most 64 KiB. It is never printed.
- Relative paths start at the folder the gateway was started in. Anchors, aliases and tags of YAML are not used.
`

// markdown writes docs/config.md.
func markdown(sections []section) []byte {
	var b bytes.Buffer
	b.WriteString(intro)
	for _, s := range sections {
		if s.path == "" {
			b.WriteString("\n## Top level\n\n")
		} else {
			fmt.Fprintf(&b, "\n## %s\n\n", s.path)
		}
		if s.about != "" {
			b.WriteString(s.about + "\n\n")
		}
		b.WriteString("| key | variable | type | default | allowed | meaning |\n|---|---|---|---|---|---|\n")
		for _, k := range s.keys {
			name := k.Path[strings.LastIndexByte(k.Path, '.')+1:]
			about := k.about
			if k.Restart {
				about += " *Restart.*"
			}
			row := []string{code(name), code(k.Env), k.Type, code(k.Default), allowed(k.Allowed), about}
			if k.Default == "empty" {
				row[3] = "empty"
			}
			for i := range row {
				row[i] = strings.ReplaceAll(row[i], "|", `\|`)
			}
			b.WriteString("| " + strings.Join(row, " | ") + " |\n")
		}
	}
	return b.Bytes()
}

func code(text string) string {
	if text == "" {
		return ""
	}
	return "`" + text + "`"
}

// allowed makes "0 or 1s to 10m" of "0, 1s..10m" and "a, b" of "a|b".
func allowed(text string) string {
	return strings.NewReplacer("|", ", ", ", ", " or ", "..", " to ").Replace(text)
}

const exampleHead = `# Every key of the gateway with its default. Nothing of it is needed: a file with
# only the lines that differ does the same. docs/config.md says more.
#
# Made by "go run ./config/gen" from config/config.go and section.go. Do not edit.
`

const exampleProviders = `#  eu-mistral:
#    kind: mistral
#    base_url: https://llm.example.com/v1
#  laboratory:
#    kind: vllm
#    base_url: http://127.0.0.1:8000/v1
`

// example writes docs/example.yaml.
func example(sections []section) []byte {
	var b bytes.Buffer
	b.WriteString(exampleHead)
	for _, s := range sections {
		indent := ""
		if strings.Contains(s.path, ".NAME") {
			continue // shown in a comment below providers
		}
		if s.path != "" {
			b.WriteString("\n" + wrap(s.about, "") + s.path + ":\n")
			indent = "  "
		}
		for i, k := range s.keys {
			about := k.about
			if k.Allowed != "" {
				about += " Allowed: " + allowed(k.Allowed) + "."
			}
			value := k.Default
			if value == "empty" {
				value = `""`
			}
			if i > 0 || s.path == "" {
				b.WriteString("\n")
			}
			b.WriteString(wrap(about, indent) + indent + k.Path[strings.LastIndexByte(k.Path, '.')+1:] + ": " + value + "\n")
			if k.Type == "map" {
				b.WriteString(exampleProviders)
			}
		}
	}
	return b.Bytes()
}

// wrap writes text as comment lines of at most 80 columns.
func wrap(text, indent string) string {
	var b strings.Builder
	line := indent + "#"
	for word := range strings.FieldsSeq(text) {
		if len(line)+1+len(word) > 80 {
			b.WriteString(line + "\n")
			line = indent + "#"
		}
		line += " " + word
	}
	return b.String() + line + "\n"
}
