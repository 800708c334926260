package keystore

import (
	"bytes"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"bulkhead/provider"
)

// masterLen is the length of a master key, in bytes.
const masterLen = 32

// masked is what a Master shows of itself.
const masked = "[secret]"

// Master is the one key of this installation that is not in the database. All
// others are derived from it or wrapped by one that is. It prints as
// "[secret]" under every verb of fmt, in slog and as JSON or text.
//
// The key is inside a function and not in a field: fmt does not call methods
// on unexported fields, so a Master inside somebody's struct would print it.
type Master struct{ derive func(info string) []byte }

func newMaster(key [masterLen]byte) *Master {
	return &Master{func(info string) []byte {
		out, err := hkdf.Key(sha256.New, key[:], nil, "bulkhead "+info, masterLen)
		if err != nil { // only for more than 255 blocks
			panic("BUG: hkdf: " + err.Error())
		}
		return out
	}}
}

// Derive returns 32 bytes that only the master key and info give (HKDF with
// SHA-256, RFC 5869). Each use has an info of its own, and none is ever renamed:
// "key pepper" for the hashes of API keys, "data key wrap" for this package.
func (m *Master) Derive(info string) []byte { return m.derive(info) }

// Format prints "[secret]", whatever the verb and the flags are.
func (Master) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, masked) }

// LogValue makes slog print "[secret]".
func (Master) LogValue() slog.Value { return slog.StringValue(masked) }

// MarshalText returns "[secret]"; JSON uses it.
func (Master) MarshalText() ([]byte, error) { return []byte(masked), nil }

// LoadMaster returns the master key: given, which is 32 bytes as 64 hex digits
// or as base64, or, if given is empty, what stands in the file at path in the
// same form. Without that file it makes one, which others on this machine
// cannot read, and created is true.
//
// A new key opens nothing that was sealed before. So who calls must refuse to
// go on if created is true and the store is not a new one.
func LoadMaster(path string, given provider.Secret) (m *Master, created bool, err error) {
	if !given.Empty() {
		key, ok := parseMaster(given.Reveal())
		if !ok {
			return nil, false, errors.New("the master key must be 32 bytes, as 64 hex digits or as base64")
		}
		return newMaster(key), false, nil
	}
	m, err = readMaster(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return m, false, err
	}
	if created, err = makeMaster(path); err != nil {
		return nil, false, fmt.Errorf("cannot make the master key: %w", err)
	}
	// Read back what is there: another process may have been first.
	m, err = readMaster(path)
	return m, created && err == nil, err
}

// readMaster reads the file at path. It refuses one that others than its owner
// can read or write, even if they could no more: the key may be known already.
func readMaster(path string) (*Master, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read the master key: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, fmt.Errorf("cannot read the master key: %w", err)
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("the master key %s is not a file", path)
	case info.Mode().Perm()&0o077 != 0:
		return nil, fmt.Errorf("the master key %s has mode %#o, so others can read or change it: chmod 600 it, or set master_key", path, info.Mode().Perm())
	}
	text, err := io.ReadAll(io.LimitReader(f, 1024))
	if err != nil {
		return nil, fmt.Errorf("cannot read the master key: %w", err)
	}
	key, ok := parseMaster(string(bytes.TrimSpace(text)))
	if !ok {
		return nil, fmt.Errorf("the master key %s is not 32 bytes, as 64 hex digits or as base64", path)
	}
	return newMaster(key), nil
}

// makeMaster writes a new key to path, whole or not at all, and never over
// another: a link fails if the name is taken, which a rename would not.
func makeMaster(path string) (created bool, err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, ".master-*") // mode 0600
	if err != nil {
		return false, err
	}
	defer os.Remove(f.Name())
	key := make([]byte, masterLen)
	rand.Read(key) // never fails: see crypto/rand
	_, err = f.WriteString(hex.EncodeToString(key) + "\n")
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return false, err
	}
	switch err := os.Link(f.Name(), path); {
	case errors.Is(err, fs.ErrExist):
		return false, nil
	case err != nil:
		return false, err
	}
	d, err := os.Open(dir)
	if err != nil {
		return false, err
	}
	return true, errors.Join(d.Sync(), d.Close())
}

// parseMaster reads 64 hex digits, or base64 of either alphabet, padded or not.
func parseMaster(text string) (key [masterLen]byte, ok bool) {
	if len(text) == 2*masterLen {
		if b, err := hex.DecodeString(text); err == nil {
			return [masterLen]byte(b), true
		}
	}
	text = strings.NewReplacer("-", "+", "_", "/").Replace(strings.TrimRight(text, "="))
	b, err := base64.RawStdEncoding.DecodeString(text)
	if err != nil || len(b) != masterLen {
		return key, false
	}
	return [masterLen]byte(b), true
}
