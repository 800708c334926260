package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"reflect"
	"slices"
	"strings"
)

const maxFileBytes = 1 << 20

// Load returns Default changed by the YAML file of that name ("" is none), then
// by the BULKHEAD_ variables in env, which has the form of os.Environ; of a name
// that is there twice the last counts, and an empty value is a value. References
// of secrets are resolved: env:NAME in env, file:PATH from the working folder.
//
// The error is a *Problems with everything that is wrong. The file is at most
// 1 MiB.
func Load(file string, env []string) (*Config, error) {
	if file == "" {
		return load("", nil, env)
	}
	text, err := readFile(file, maxFileBytes)
	if err != nil {
		d := newDecoder(file, env)
		d.add(shown(file), "must be a file that can be read: %v", err)
		d.overlay()
		return nil, d.err()
	}
	return load(file, text, env)
}

func load(file string, text []byte, env []string) (*Config, error) {
	d := newDecoder(file, env)
	whole := d.decode(text)
	d.overlay()
	if whole { // otherwise keys are missing and Check would complain about the rest
		d.check()
	}
	if err := d.err(); err != nil {
		return nil, err
	}
	return &d.config, nil
}

// decoder fills config and remembers where each value came from.
type decoder struct {
	Problems
	config Config
	file   string
	env    map[string]string
	origin map[string]string // of a key: "bulkhead.yaml:12", or the variable
}

func newDecoder(file string, env []string) *decoder {
	d := &decoder{config: Default(), file: file, env: map[string]string{}, origin: map[string]string{}}
	for _, one := range env {
		if name, value, ok := strings.Cut(one, "="); ok && name != "" {
			d.env[name] = value
		}
	}
	return d
}

// wrong adds a problem of the key at path, with the place its value came from.
func (d *decoder) wrong(path, message string) {
	for at := path; at != ""; {
		if where := d.origin[at]; where != "" {
			message += " (" + where + ")"
			break
		}
		cut := strings.LastIndexByte(at, '.')
		at = at[:max(cut, 0)]
	}
	d.add(path, "%s", message)
}

// overlay reads the BULKHEAD_ variables.
func (d *decoder) overlay() {
	known := map[string]Entry{}
	names := clientEnv()
	for _, e := range Entries() {
		if e.Env != "" {
			known[e.Env] = e
			names = append(names, e.Env)
		}
	}
	var given []string
	for name := range d.env {
		if strings.HasPrefix(name, envPrefix) && !slices.Contains(clientEnv(), name) {
			given = append(given, name)
		}
	}
	slices.Sort(given)
	for _, name := range given {
		e, ok := known[name]
		if !ok {
			d.add(shown(name), "%s", unknownEnv(name, names))
			continue
		}
		d.origin[e.Path] = name
		value := reflect.ValueOf(&d.config).Elem().FieldByIndex(e.index)
		if e.Type == "map" {
			value.Set(reflect.MakeMap(value.Type()))
			d.inline(e.Path, name, d.env[name])
			continue
		}
		if wrong := parse(value, d.env[name], d.env); wrong != "" {
			d.wrong(e.Path, wrong)
		}
	}
}

// unknownEnv says what would be right in place of an unknown variable.
func unknownEnv(name string, names []string) string {
	inside := func(n string) bool { return strings.HasPrefix(n, name+"_") }
	if i := slices.IndexFunc(names, inside); i >= 0 {
		return "is a section and no key; set its keys one by one, such as " + names[i]
	}
	if near := nearest(name, names); near != "" {
		return "unknown variable; did you mean " + near + "?"
	}
	if strings.HasPrefix(name, "BULKHEAD_SERVICE_") || strings.HasPrefix(name, "BULKHEAD_PORT") {
		return `unknown variable; if Kubernetes made it for a Service named "bulkhead", set enableServiceLinks: false in the pod`
	}
	return "unknown variable; the names are BULKHEAD_ and the key in capitals, such as BULKHEAD_UPSTREAM_CONNECT"
}

// check adds the problems that Check finds, except for keys that could not even
// be read: those have their default now, which is not what anybody wrote.
func (d *decoder) check() {
	problems, ok := errors.AsType[*Problems](d.config.Check())
	if !ok {
		return
	}
	unread := func(key string) bool {
		return slices.ContainsFunc(d.Problems, func(p Problem) bool { return p.Key == key })
	}
	for _, p := range slices.DeleteFunc(*problems, func(p Problem) bool { return unread(p.Key) }) {
		d.wrong(p.Key, p.Message)
	}
}

// readFile reads a regular file of at most limit bytes. Others could block, or
// would be empty at the next reload. The error names the file.
func readFile(name string, limit int64) ([]byte, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, plain(name, err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", shown(name))
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, plain(name, err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, plain(name, err)
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s is larger than %s", shown(name), Size(limit))
	}
	return data, nil
}

// plain is err with the name in a form that is safe to print.
func plain(name string, err error) error {
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		err = pe.Err
	}
	return fmt.Errorf("%s: %w", shown(name), err)
}
