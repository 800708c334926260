package config

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"
)

const envPrefix = "BULKHEAD_"

// clientEnv are the variables of the command-line client and of the -config
// flag. They are not keys of the configuration.
func clientEnv() []string {
	return []string{"BULKHEAD_CONFIG", "BULKHEAD_URL", "BULKHEAD_ADMIN_URL", "BULKHEAD_OPERATOR_KEY", "BULKHEAD_API_KEY"}
}

// Entry describes one key of the configuration.
type Entry struct {
	Path    string // as in a Problem: "upstream.connect"; "providers.NAME.kind" inside the map
	Env     string // the variable's name; "" inside the map, which is one variable
	Type    string // text, duration, size, integer, boolean, secret or map
	Default string // as written in the file; "empty" for an empty text; "" inside the map
	Allowed string // values and ranges separated by ", ", or texts separated by "|"; "" is any
	Restart bool   // a change needs a restart
	Struct  string // name of the Go struct that has the field,
	Field   string // and of the field

	index []int // of the field in Config, for reflect; nil inside the map
}

// Entries returns every key in the order of the struct.
func Entries() []Entry {
	def := Default()
	return entries(nil, reflect.ValueOf(&def).Elem(), "", nil)
}

func entries(list []Entry, section reflect.Value, path string, index []int) []Entry {
	for i := range section.NumField() {
		field, value := section.Type().Field(i), section.Field(i)
		e := Entry{
			Path:    path + field.Tag.Get("yaml"),
			Type:    typeName(field.Type),
			Allowed: field.Tag.Get("allowed") + field.Tag.Get("oneof"),
			Restart: field.Tag.Get("restart") == "yes",
			Struct:  section.Type().Name(),
			Field:   field.Name,
			index:   append(index[:len(index):len(index)], i),
		}
		if e.Type == "section" {
			list = entries(list, value, e.Path+".", e.index)
			continue
		}
		e.Env = envPrefix + strings.ToUpper(strings.ReplaceAll(e.Path, ".", "_"))
		e.Default = render(value)
		list = append(list, e)
		if e.Type == "map" {
			inner := entries(nil, reflect.Zero(field.Type.Elem()), e.Path+".NAME.", nil)
			for _, in := range inner {
				in.Env, in.Default, in.index, in.Restart = "", "", nil, e.Restart
				list = append(list, in)
			}
		}
	}
	return list
}

// typeName names what a value of type t looks like in the file.
func typeName(t reflect.Type) string {
	switch t {
	case reflect.TypeFor[time.Duration]():
		return "duration"
	case reflect.TypeFor[Size]():
		return "size"
	case reflect.TypeFor[Secret]():
		return "secret"
	}
	switch t.Kind() {
	case reflect.String:
		return "text"
	case reflect.Bool:
		return "boolean"
	case reflect.Int, reflect.Int64:
		return "integer"
	case reflect.Map:
		return "map"
	case reflect.Struct:
		return "section"
	}
	panic("BUG: a key of type " + t.String())
}

// render returns v as a person writes it in the file.
func render(v reflect.Value) string {
	switch x := v.Interface().(type) {
	case time.Duration:
		return short(x)
	case Secret:
		if x.Empty() {
			return "empty"
		}
		return hidden
	case string:
		if x == "" {
			return "empty"
		}
		return x
	}
	if v.Kind() == reflect.Map {
		return "{}"
	}
	return fmt.Sprint(v.Interface())
}

// parse reads the text of a value into v, a field of Config. A secret's
// reference is looked up in env and in files. The returned text says what would
// be right; "" is success. It holds nothing of the value: who puts a secret
// behind the wrong key shall not find it in the log.
func parse(v reflect.Value, text string, env map[string]string) string {
	switch typeName(v.Type()) {
	case "text":
		v.SetString(text)
	case "secret":
		secret, wrong := resolve(text, env)
		if wrong != "" {
			return wrong
		}
		v.Set(reflect.ValueOf(secret))
	case "boolean":
		if text != "true" && text != "false" {
			return "must be true or false"
		}
		v.SetBool(text == "true")
	default:
		n, wrong := parseNumber(v.Type(), text)
		if wrong != "" {
			return wrong
		}
		v.SetInt(n)
	}
	return ""
}

// parseNumber reads a duration, a size or an integer.
func parseNumber(t reflect.Type, text string) (n int64, wrong string) {
	switch typeName(t) {
	case "duration":
		d, err := time.ParseDuration(text)
		if err != nil {
			return 0, "must be a duration with its unit, such as 500ms, 30s or 5m"
		}
		return int64(d), ""
	case "size":
		s, ok := parseSize(text)
		if !ok {
			return 0, "must be a number of bytes, such as 1048576, 512KiB, 20MiB or 1GiB"
		}
		return int64(s), ""
	}
	n, err := strconv.ParseInt(text, 10, t.Bits())
	if err != nil {
		return 0, "must be a whole number"
	}
	return n, ""
}

// within reports whether the number v is one of the values or in one of the
// ranges of allowed: "0, 1s..10m".
func within(v reflect.Value, allowed string) bool {
	number := func(text string) int64 {
		n, wrong := parseNumber(v.Type(), text)
		if wrong != "" {
			panic("BUG: the tag allowed:" + strconv.Quote(allowed) + " " + wrong)
		}
		return n
	}
	for one := range strings.SplitSeq(allowed, ", ") {
		low, high, isRange := strings.Cut(one, "..")
		if !isRange {
			high = low
		}
		if v.Int() >= number(low) && v.Int() <= number(high) {
			return true
		}
	}
	return false
}

// Restart returns the keys that differ from old and are not applied by a reload,
// in the order of the struct. It is for the log line of a SIGHUP.
func (c *Config) Restart(old *Config) []string {
	var keys []string
	now, before := reflect.ValueOf(c).Elem(), reflect.ValueOf(old).Elem()
	for _, e := range Entries() {
		if e.index == nil || !e.Restart {
			continue
		}
		// DeepEqual follows the pointer of a Secret to its value.
		if !reflect.DeepEqual(now.FieldByIndex(e.index).Interface(), before.FieldByIndex(e.index).Interface()) {
			keys = append(keys, e.Path)
		}
	}
	return keys
}
