package provider

import (
	"fmt"
	"io"
	"log/slog"
	"strings"
	"unique"
)

// masked is what a Secret shows of itself.
const masked = "[secret]"

// Secret is a provider's key. It prints as "[secret]" under every verb of fmt,
// in slog and as JSON, text or YAML; only Reveal gives the value, and the only
// callers of that are the upstream client and the keystore that seals it.
//
// Two Secrets are equal (==) when their values are. The value is kept behind a
// handle and not as a string field: fmt does not call methods on unexported
// fields, so a Secret inside somebody's private field would print its string.
type Secret struct{ v unique.Handle[string] }

// NewSecret returns v as a Secret; the zero Secret for "".
func NewSecret(v string) Secret {
	if v == "" {
		return Secret{}
	}
	return Secret{unique.Make(v)}
}

// Reveal returns the value. Never log it, never put it into an error.
func (s Secret) Reveal() string {
	if s.Empty() {
		return ""
	}
	return s.v.Value()
}

// Empty reports whether there is no value.
func (s Secret) Empty() bool { return s == Secret{} }

// Mask returns text with the value, wherever it occurs, replaced by "[secret]":
// some vendors repeat the key they were sent.
func (s Secret) Mask(text string) string {
	if s.Empty() {
		return text
	}
	return strings.ReplaceAll(text, s.Reveal(), masked)
}

// Format prints "[secret]", whatever the verb and the flags are.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, masked) }

// String returns "[secret]".
func (s Secret) String() string { return masked }

// LogValue makes slog print "[secret]".
func (s Secret) LogValue() slog.Value { return slog.StringValue(masked) }

// MarshalText returns "[secret]"; JSON, XML and map keys use it.
func (s Secret) MarshalText() ([]byte, error) { return []byte(masked), nil }

// MarshalYAML returns "[secret]".
func (s Secret) MarshalYAML() (any, error) { return masked, nil }
