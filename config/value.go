package config

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"log/slog"
	"net/url"
	"regexp"
	"strings"
	"time"
)

// MasterKeyBytes returns the 32 bytes of master_key, or nil if it is empty or
// not 32 bytes.
func (c *Config) MasterKeyBytes() []byte {
	text := c.MasterKey.Reveal()
	if key, err := hex.DecodeString(text); err == nil && len(key) == 32 {
		return key
	}
	text = strings.NewReplacer("-", "+", "_", "/").Replace(strings.TrimRight(text, "="))
	if key, err := base64.RawStdEncoding.DecodeString(text); err == nil && len(key) == 32 {
		return key
	}
	return nil
}

// MakesDemo reports whether the demo company may be made: demo is auto and
// nobody but this machine reaches the clients' listener.
func (c *Config) MakesDemo() bool { return c.Demo == "auto" && isLoopback(c.Listen) }

// SlogLevel returns the level; Info if it is not one of the four.
func (l Log) SlogLevel() slog.Level {
	var level slog.Level
	if level.UnmarshalText([]byte(l.Level)) != nil {
		return slog.LevelInfo
	}
	return level
}

// HeaderMap returns the headers for the collector by name. The values are
// secrets.
func (o OTel) HeaderMap() map[string]string {
	if m := o.headers(); len(m) > 0 {
		return m
	}
	return nil
}

// headerName matches a token (RFC 9110, section 5.6.2).
var headerName = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")

// headers returns nil if the text is not a list of headers.
func (o OTel) headers() map[string]string {
	m := map[string]string{}
	if o.Headers.Empty() {
		return m
	}
	for pair := range strings.SplitSeq(o.Headers.Reveal(), ",") {
		name, value, ok := strings.Cut(pair, "=")
		name = strings.TrimSpace(name)
		value, err := url.PathUnescape(strings.TrimSpace(value))
		control := func(r rune) bool { return r < ' ' || r > '~' }
		if !ok || err != nil || !headerName.MatchString(name) || strings.ContainsFunc(value, control) {
			return nil
		}
		m[name] = value
	}
	return m
}

// Zone returns the operator's time zone. The machine's own is not one: gateways on
// different machines would not count alike.
func (b *Budgets) Zone() (*time.Location, error) {
	if b.TimeZone == "" || strings.EqualFold(b.TimeZone, "local") {
		return nil, errors.New("not a zone")
	}
	return time.LoadLocation(b.TimeZone)
}
