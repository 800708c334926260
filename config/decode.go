package config

import (
	"errors"
	"fmt"
	"reflect"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// maxNesting bounds brackets and braces one inside the other. The keys need two;
// the parser is recursive.
const maxNesting = 1000

// decode reads the file's text into d.config and reports whether it could be
// read as YAML at all. Values are taken as they are written, whatever type YAML
// would guess: 64 digits are a good master key and no number.
func (d *decoder) decode(text []byte) bool {
	body, line, err := parseYAML(string(text))
	switch {
	case err != nil:
		key := keyAt(string(text), line)
		if key == "" {
			key = shown(d.file)
		}
		d.add(key, "must be valid YAML: %v (%s)", err, d.line(line))
		return false
	case body == nil: // nothing but comments
		return true
	}
	d.section(body, reflect.ValueOf(&d.config).Elem(), "")
	return true
}

// inline reads a map that the variable name holds as YAML or JSON.
func (d *decoder) inline(path, name, text string) {
	body, _, err := parseYAML(text)
	switch {
	case err != nil:
		d.wrong(path, fmt.Sprintf("must be valid YAML or JSON: %v", err))
	case body != nil:
		// Lines inside a variable say nothing; the variable is the place.
		inner := &decoder{config: d.config, file: name, env: d.env, origin: d.origin}
		inner.providers(body, path)
		for _, p := range inner.Problems {
			d.add(p.Key, "%s", p.Message)
		}
		for key := range inner.origin {
			if strings.HasPrefix(key, path+".") {
				delete(d.origin, key)
			}
		}
	}
}

// parseYAML returns the one document of text, nil if it is empty, or the line
// and the reason why it is not YAML. The reason holds nothing of the text: the
// parser's own message would print the lines around, with the secrets there.
func parseYAML(text string) (body ast.Node, line int, err error) {
	defer func() {
		if recover() != nil { // a defect of the parser must not keep the old configuration from serving
			body, line, err = nil, 1, errors.New("the parser gave up")
		}
	}()
	if line := tooNested(text); line > 0 {
		return nil, line, fmt.Errorf("more than %d levels", maxNesting)
	}
	file, err := parser.ParseBytes([]byte(text), 0, parser.AllowDuplicateMapKey())
	if err != nil {
		if se, ok := errors.AsType[*yaml.SyntaxError](err); ok && se.Token != nil && se.Token.Position != nil {
			return nil, se.Token.Position.Line, errors.New(se.Message)
		}
		return nil, 1, errors.New("it cannot be read")
	}
	for _, doc := range file.Docs {
		if doc.Body == nil || doc.Body.Type() == ast.CommentType || doc.Body.Type() == ast.NullType {
			continue
		}
		if body != nil {
			return nil, lineOf(doc.Body), errors.New("one document is enough, remove the ---")
		}
		body = doc.Body
	}
	return body, 0, nil
}

// tooNested returns the line where more than maxNesting brackets are open, or 0.
// Brackets in texts count too, which costs nobody anything.
func tooNested(text string) int {
	depth, line := 0, 1
	for _, c := range []byte(text) {
		switch c {
		case '\n':
			line++
		case '[', '{':
			if depth++; depth > maxNesting {
				return line
			}
		case ']', '}':
			depth--
		}
	}
	return 0
}

func lineOf(n ast.Node) int {
	if t := n.GetToken(); t != nil && t.Position != nil {
		return t.Position.Line
	}
	return 1
}

func (d *decoder) line(n int) string { return fmt.Sprintf("%s:%d", shown(d.file), n) }

// mapping calls each for every key of a mapping, with its path in a form that is
// safe to print and its name as it is. A null has no keys: a section
// whose keys are all commented out.
func (d *decoder) mapping(n ast.Node, path string, each func(path, name string, key, value ast.Node)) {
	var pairs []*ast.MappingValueNode
	switch n := n.(type) {
	case nil, *ast.NullNode:
	case *ast.MappingNode:
		pairs = n.Values
	case *ast.MappingValueNode:
		pairs = []*ast.MappingValueNode{n}
	default:
		d.at(n, path, "must have keys with values of their own, and is one value")
		return
	}
	seen := map[string]int{}
	for _, pair := range pairs {
		name, ok := scalar(pair.Key)
		if !ok {
			d.at(pair.Key, path, "must have plain names as keys, without anchors, tags and <<")
			continue
		}
		inside := strings.TrimPrefix(path+"."+shown(name), ".")
		if first := seen[name]; first > 0 {
			d.at(pair.Key, inside, fmt.Sprintf("must be there once; it is also on line %d", first))
			continue
		}
		seen[name] = lineOf(pair.Key)
		each(inside, name, pair.Key, pair.Value)
	}
}

// section reads a mapping whose keys are the fields of the struct v.
func (d *decoder) section(n ast.Node, v reflect.Value, path string) {
	d.mapping(n, path, func(path, name string, key, value ast.Node) {
		var names []string
		for i := range v.NumField() {
			known := v.Type().Field(i).Tag.Get("yaml")
			if known == name {
				d.field(key, value, v.Field(i), path)
				return
			}
			names = append(names, known)
		}
		message := "unknown key; the keys here are " + strings.Join(names, ", ")
		if near := nearest(name, names); near != "" {
			message = "unknown key; did you mean " + near + "?"
		}
		d.at(key, path, message)
	})
}

// field reads the value of one key into v.
func (d *decoder) field(key, value ast.Node, v reflect.Value, path string) {
	d.origin[path] = d.line(lineOf(key))
	switch typeName(v.Type()) {
	case "section":
		d.section(value, v, path)
		return
	case "map":
		d.providers(value, path)
		return
	}
	if value == nil || value.Type() == ast.NullType {
		d.wrong(path, "must have a value; remove the line for the default")
		return
	}
	text, ok := scalar(value)
	if !ok {
		d.wrong(path, "must be one "+typeName(v.Type())+", without anchors and tags")
		return
	}
	if wrong := parse(v, text, d.env); wrong != "" {
		d.wrong(path, wrong)
	}
}

// providers reads the map of providers.
func (d *decoder) providers(n ast.Node, path string) {
	d.mapping(n, path, func(path, name string, key, value ast.Node) {
		d.origin[path] = d.line(lineOf(key))
		var p Provider
		d.section(value, reflect.ValueOf(&p).Elem(), path)
		d.config.Providers[name] = p
	})
}

// at adds a problem at the place of a node.
func (d *decoder) at(n ast.Node, path, message string) {
	if path == "" {
		path = shown(d.file)
	}
	d.add(path, "%s (%s)", message, d.line(lineOf(n)))
}

// scalar returns the text of a node that is one plain or quoted value.
func scalar(n ast.Node) (string, bool) {
	switch n := n.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.LiteralNode:
		return n.Value.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode, *ast.NullNode:
		return n.GetToken().Value, true
	}
	return "", false
}

// keyAt returns the path of the key on a line of a text that is no YAML, judged
// by indentation alone; "" if there is none.
func keyAt(text string, line int) string {
	lines := strings.Split(text, "\n")
	path, indent := "", 1<<30
	for i := min(line, len(lines)) - 1; i >= 0 && indent > 0; i-- {
		rest := strings.TrimLeft(lines[i], " \t")
		name, _, found := strings.Cut(rest, ":")
		name = strings.Trim(name, `"' `)
		if at := len(lines[i]) - len(rest); found && at < indent && isName(name) {
			path, indent = name+"."+path, at
		}
	}
	return strings.TrimSuffix(path, ".")
}

// isName reports whether name could be a key or a provider's name.
func isName(name string) bool {
	return name != "" && len(name) <= 64 && strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789._-") == ""
}
