package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"reflect"
	"regexp"
	"strings"

	"bulkhead/config"
)

// section is one struct: the top level, or one key that has keys.
type section struct {
	path  string // "" is the top level
	about string // one or two sentences; "" for the top level
	keys  []key
}

// key is one key with what its comment says.
type key struct {
	config.Entry
	about string // without the sentence of the default
}

// statement is the end of a key's comment.
var statement = regexp.MustCompile(`(?:^| )Default (.+?)(?:, allowed (.+))?\.$`)

// read puts the comments of the sources beside config.Entries. The error names
// every comment that is missing or says something else than the code.
func read(sources ...[]byte) ([]section, error) {
	comments, err := fieldComments(sources)
	if err != nil {
		return nil, err
	}
	var wrong []string
	sections := []section{{}}
	at := map[string]int{"": 0}
	for _, e := range config.Entries() {
		path := e.Path[:max(strings.LastIndexByte(e.Path, '.'), 0)]
		if _, ok := at[path]; !ok {
			at[path] = len(sections)
			sections = append(sections, section{path: path, about: comments[path]})
		}
		about := comments[e.Struct+"."+e.Field]
		inMap := e.Env == "" // a provider's keys have no defaults
		match := statement.FindStringSubmatch(about)
		switch {
		case about == "":
			wrong = append(wrong, e.Path+" has no comment")
		case inMap:
		case match == nil:
			wrong = append(wrong, e.Path+`: the comment must end in "Default X." or "Default X, allowed Y."`)
		case match[1] != e.Default:
			wrong = append(wrong, fmt.Sprintf("%s: the comment says default %s, the code %s", e.Path, match[1], e.Default))
		case !strings.Contains(e.Allowed, "|") && match[2] != e.Allowed:
			wrong = append(wrong, fmt.Sprintf("%s: the comment says allowed %q, the code %q", e.Path, match[2], e.Allowed))
		}
		if match != nil {
			about = strings.TrimSuffix(about, match[0])
		}
		s := &sections[at[path]]
		s.keys = append(s.keys, key{e, about})
	}
	if wrong != nil {
		return nil, fmt.Errorf("config:\n\t%s", strings.Join(wrong, "\n\t"))
	}
	return sections, nil
}

// fieldComments returns the comment of every field in sources as one line, by
// "Struct.Field" and, for fields of Config, also by key.
func fieldComments(sources [][]byte) (map[string]string, error) {
	comments := map[string]string{}
	for _, source := range sources {
		file, err := parser.ParseFile(token.NewFileSet(), "config", source, parser.ParseComments)
		if err != nil {
			return nil, err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			spec, ok := n.(*ast.TypeSpec)
			if !ok {
				return true
			}
			fields, ok := spec.Type.(*ast.StructType)
			if !ok {
				return true
			}
			for _, f := range fields.Fields.List {
				text := strings.Join(strings.Fields(f.Doc.Text()), " ")
				for _, name := range f.Names {
					comments[spec.Name.Name+"."+name.Name] = text
					if spec.Name.Name == "Config" && f.Tag != nil {
						comments[reflect.StructTag(strings.Trim(f.Tag.Value, "`")).Get("yaml")] = text
					}
				}
			}
			return true
		})
	}
	return comments, nil
}
