package rag

import (
	"bytes"
	"encoding/json"
	"math"
	"strings"
	"unicode/utf8"

	"bulkhead/fault"
)

// Filter chooses files by their attributes, in the form of OpenAI's API: a
// comparison of one attribute, or several filters joined by and or or.
type Filter struct {
	Type    string   // eq ne gt gte lt lte in nin, or: and or
	Key     string   // of a comparison
	Value   any      // of a comparison: string, float64 or bool; for in and nin: []any of string and float64
	Filters []Filter // of and, or
}

// Bounds of a filter: it is evaluated for each file of a store.
const (
	filterDepth  = 5
	filterParts  = 100
	filterValues = 200
)

// ParseFilter reads a filter. Errors name the field.
func ParseFilter(raw json.RawMessage) (*Filter, error) {
	parts := 0
	return parseFilter("filters", raw, 1, &parts)
}

func parseFilter(at string, raw json.RawMessage, depth int, parts *int) (*Filter, error) {
	if *parts++; *parts > filterParts || depth > filterDepth {
		return nil, fault.Field("filters", "filters has more than %d parts, or they are nested deeper than %d.", filterParts, filterDepth)
	}
	var b struct {
		Type    string            `json:"type"`
		Key     *string           `json:"key"`
		Value   json.RawMessage   `json:"value"`
		Filters []json.RawMessage `json:"filters"`
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(&b); err != nil {
		return nil, fault.Field(at, "%s is not a filter: an object with type, key and value, or with type and filters.", at)
	}
	f := &Filter{Type: b.Type}
	switch b.Type {
	case "and", "or":
		if b.Key != nil || b.Value != nil || len(b.Filters) == 0 {
			return nil, fault.Field(at+".filters", "A filter of type %q has filters, at least one, and no key or value.", b.Type)
		}
		for _, one := range b.Filters {
			inner, err := parseFilter(at+".filters", one, depth+1, parts)
			if err != nil {
				return nil, err
			}
			f.Filters = append(f.Filters, *inner)
		}
		return f, nil
	case "eq", "ne", "gt", "gte", "lt", "lte", "in", "nin":
		if b.Key == nil || *b.Key == "" || b.Filters != nil {
			return nil, fault.Field(at+".key", "A comparison has a key and a value, and no filters.")
		}
		f.Key = *b.Key
		var err error
		f.Value, err = filterValue(at+".value", b.Type, b.Value)
		return f, err
	}
	return nil, fault.Field(at+".type", "The type of a filter is one of eq, ne, gt, gte, lt, lte, in, nin, and, or.")
}

func filterValue(at, typ string, raw json.RawMessage) (any, error) {
	var v any
	if len(raw) == 0 || json.Unmarshal(raw, &v) != nil {
		return nil, fault.Field(at, "A comparison needs a value.")
	}
	list, isList := v.([]any)
	if several := typ == "in" || typ == "nin"; several != isList {
		return nil, fault.Field(at, "The value is an array for in and nin, and a string, a number, true or false for the others.")
	}
	if !isList {
		list = []any{v}
	}
	if len(list) > filterValues {
		return nil, fault.Field(at, "The value has more than %d entries.", filterValues)
	}
	for _, one := range list {
		switch one.(type) {
		case string, float64, bool:
		default:
			return nil, fault.Field(at, "A value is a string, a number, true or false.")
		}
	}
	if _, isBool := v.(bool); isBool && typ != "eq" && typ != "ne" {
		return nil, fault.Field(at, "true and false can be compared with eq and ne only.")
	}
	return v, nil
}

// Match reports whether attributes pass the filter. A nil filter lets all pass. An
// attribute that is not there, or of another type than the value, is equal to no
// value, and neither above nor below one.
func (f *Filter) Match(a Attributes) bool {
	if f == nil {
		return true
	}
	switch f.Type {
	case "and":
		for i := range f.Filters {
			if !f.Filters[i].Match(a) {
				return false
			}
		}
		return true
	case "or":
		for i := range f.Filters {
			if f.Filters[i].Match(a) {
				return true
			}
		}
		return false
	case "in", "nin":
		found := false
		for _, v := range f.Value.([]any) {
			found = found || a[f.Key] == v
		}
		return found == (f.Type == "in")
	case "eq":
		return a[f.Key] == f.Value
	case "ne":
		return a[f.Key] != f.Value
	}
	order, ok := compare(a[f.Key], f.Value)
	if !ok {
		return false
	}
	switch f.Type {
	case "gt":
		return order > 0
	case "gte":
		return order >= 0
	case "lt":
		return order < 0
	}
	return order <= 0 // lte
}

// compare orders two values of the same type.
func compare(a, b any) (order int, ok bool) {
	switch b := b.(type) {
	case string:
		a, ok := a.(string)
		return strings.Compare(a, b), ok
	case float64:
		a, ok := a.(float64)
		switch {
		case a < b:
			return -1, ok
		case a > b:
			return 1, ok
		}
		return 0, ok
	}
	return 0, false
}

// Bounds of attributes, as OpenAI has them.
const (
	maxAttributes     = 16
	maxAttributeKey   = 64
	maxAttributeValue = 512
)

// CheckAttributes refuses what attributes of a file must not be.
func CheckAttributes(at string, a Attributes) error {
	if len(a) > maxAttributes {
		return fault.Field(at, "%s has more than %d keys.", at, maxAttributes)
	}
	for k, v := range a {
		if err := checkText(at, "key", k, maxAttributeKey); err != nil || k == "" {
			return fault.Field(at, "A key of %s has 1 to %d characters.", at, maxAttributeKey)
		}
		switch v := v.(type) {
		case string:
			if err := checkText(at, "value", v, maxAttributeValue); err != nil {
				return err
			}
		case float64:
			if math.IsNaN(v) || math.IsInf(v, 0) {
				return fault.Field(at, "A value of %s is not a number.", at)
			}
		case bool:
		default:
			return fault.Field(at, "A value of %s is a string, a number, true or false.", at)
		}
	}
	return nil
}

// CheckMetadata refuses what the metadata of a store must not be.
func CheckMetadata(at string, m map[string]string) error {
	a := make(Attributes, len(m))
	for k, v := range m {
		a[k] = v
	}
	return CheckAttributes(at, a)
}

func checkText(at, what, text string, most int) error {
	if utf8.RuneCountInString(text) > most || strings.ContainsRune(text, 0) || !utf8.ValidString(text) {
		return fault.Field(at, "A %s of %s has at most %d characters.", what, at, most)
	}
	return nil
}
