package config

import (
	"fmt"
	"io"
	"log/slog"
	"strings"
)

const (
	hidden         = "[secret]"
	maxSecretBytes = 64 << 10
)

// Secret is a value that must not be seen. It prints as "[secret]" in every fmt
// verb and in JSON, YAML and slog, whether it is empty or not. The value is
// behind a pointer so that fmt, which cannot call methods of a Secret in an
// unexported field, prints an address there and not the value. Compare with
// Equal: == compares the addresses.
type Secret struct{ value *string }

// NewSecret returns a Secret of value.
func NewSecret(value string) Secret {
	if value == "" {
		return Secret{}
	}
	return Secret{&value}
}

// Reveal returns the value; "" is none. Nothing that Reveal returned may be
// logged, or be part of an error.
func (s Secret) Reveal() string {
	if s.value == nil {
		return ""
	}
	return *s.value
}

// Empty reports whether there is no value.
func (s Secret) Empty() bool { return s.Reveal() == "" }

// Equal reports whether s and other hold the same value.
func (s Secret) Equal(other Secret) bool { return s.Reveal() == other.Reveal() }

// String returns "[secret]".
func (Secret) String() string { return hidden }

// Format writes "[secret]" for every verb.
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, hidden) }

// MarshalText returns "[secret]"; JSON and YAML use it.
func (Secret) MarshalText() ([]byte, error) { return []byte(hidden), nil }

// LogValue returns "[secret]".
func (Secret) LogValue() slog.Value { return slog.StringValue(hidden) }

// resolve turns the text of a key into a Secret: env:NAME is the variable of
// that name, file:PATH the content of that file without spaces and line ends
// around it, anything else is the value itself. The returned text says what
// would be right; it never holds the value.
func resolve(text string, env map[string]string) (Secret, string) {
	scheme, rest, found := strings.Cut(text, ":")
	switch {
	case text == hidden:
		return Secret{}, `must be a secret, not "[secret]", which is how one is printed`
	case found && scheme == "env":
		if value := env[rest]; value != "" {
			return NewSecret(value), ""
		}
		return Secret{}, fmt.Sprintf("names the environment variable %s, which must be set", shown(rest))
	case found && scheme == "file":
		data, err := readFile(rest, maxSecretBytes)
		if err != nil {
			return Secret{}, "must name a file that can be read: " + err.Error()
		}
		if value := strings.TrimSpace(string(data)); value != "" {
			return NewSecret(value), ""
		}
		return Secret{}, fmt.Sprintf("names the file %s, which must not be empty", shown(rest))
	case found && scheme == "vault":
		return Secret{}, "must be env:NAME, file:PATH or the value itself; vault: is not for this key"
	}
	return NewSecret(text), ""
}
