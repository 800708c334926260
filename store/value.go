package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"bulkhead/fault"
	"bulkhead/keystore"
)

// micros is how a time is stored: microseconds since 1970, 0 for never.
func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

// moment scans what micros stored into a time.
type moment struct{ to *time.Time }

func (m moment) Scan(v any) error {
	n, ok := v.(int64)
	if !ok {
		return fmt.Errorf("time is stored as %T", v)
	}
	*m.to = time.Time{}
	if n != 0 {
		*m.to = time.UnixMicro(n).UTC()
	}
	return nil
}

// object scans what asJSON stored into a value.
type object struct{ to any }

func (o object) Scan(v any) error {
	switch v := v.(type) {
	case string:
		return json.Unmarshal([]byte(v), o.to)
	case []byte:
		return json.Unmarshal(v, o.to)
	}
	return fmt.Errorf("JSON is stored as %T", v)
}

// asJSON is how lists and limits are stored. Nothing but our own plain types is
// given to it, and those can be encoded.
func asJSON(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return string(b)
}

// maxName bounds names, in characters.
const maxName = 256

// checkName refuses what a name must not be. web has looked before; but
// Postgres cannot store a NUL and SQLite stores anything.
func checkName(field, name string) error {
	switch {
	case name == "":
		return fault.Field(field, "%s must not be empty", field)
	case !utf8.ValidString(name) || strings.ContainsRune(name, 0):
		return fault.Field(field, "%s must be valid UTF-8 without NUL", field)
	case utf8.RuneCountInString(name) > maxName:
		return fault.Field(field, "%s is longer than %d characters", field, maxName)
	}
	return nil
}

// storable returns s as a database can store it: without what is no UTF-8, and
// without NUL. An entry is booked whatever a model was called.
func storable(s string) string {
	if utf8.ValidString(s) && strings.IndexByte(s, 0) < 0 {
		return s
	}
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}

// forKeystore turns the errors of the store into those of keystore.Store.
func forKeystore(err error) error {
	switch {
	case errors.Is(err, errNoRow):
		return keystore.ErrNotFound
	case errors.Is(err, errUnique), fault.Is(err, fault.Conflict):
		return keystore.ErrConflict
	}
	return err
}
