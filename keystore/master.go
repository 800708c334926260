package keystore

import (
	"bytes"
	"context"
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

// MasterSource says where the master key is.
type MasterSource struct {
	// Path is the file that it is in if Given is empty.
	Path string
	// Given is the key as text: 32 bytes as 64 hex digits or as base64, or what
	// Transit made of them.
	Given provider.Secret
	// Transit opens the key. Without it the key is there as it is; with it, it must
	// be sealed.
	Transit *Transit
}

// LoadMaster returns the master key. If it is not given and there is no file it
// makes one, which others on this machine cannot read, and created is true.
//
// A new key opens nothing that was sealed before. So who calls must refuse to
// go on if created is true and the store is not a new one.
func LoadMaster(ctx context.Context, from MasterSource) (m *Master, created bool, err error) {
	if !from.Given.Empty() {
		m, err = from.open(ctx, from.Given.Reveal(), "the master key")
		return m, false, err
	}
	m, err = from.read(ctx)
	if !errors.Is(err, fs.ErrNotExist) {
		return m, false, err
	}
	key := make([]byte, masterLen)
	rand.Read(key) // never fails: see crypto/rand
	text := hex.EncodeToString(key)
	if from.Transit != nil {
		if text, err = from.Transit.Seal(ctx, key); err != nil {
			return nil, false, err
		}
	}
	if created, err = writeMaster(from.Path, text, os.Link); err != nil {
		return nil, false, fmt.Errorf("cannot make the master key: %w", err)
	}
	// Read back what is there: another process may have been first.
	m, err = from.read(ctx)
	return m, created && err == nil, err
}

// SealMaster seals the master key with Transit, anew with its newest version if
// it is sealed already, and returns the text that is to be given from now on. If
// it is in a file the file is written anew. The key itself stays what it is.
func SealMaster(ctx context.Context, from MasterSource) (text string, err error) {
	text = from.Given.Reveal()
	if text == "" {
		if text, err = readMaster(from.Path); err != nil {
			return "", err
		}
	}
	if isSealedMaster(text) {
		text, err = from.Transit.Reseal(ctx, text)
	} else {
		key, ok := parseMaster(text)
		if !ok {
			return "", errors.New("the master key is not 32 bytes, as 64 hex digits or as base64")
		}
		text, err = from.Transit.Seal(ctx, key[:])
	}
	if err != nil {
		return "", err
	}
	// Nothing is replaced by what does not open.
	if _, err := from.open(ctx, text, "what was sealed"); err != nil {
		return "", err
	}
	if from.Given.Empty() {
		if _, err := writeMaster(from.Path, text, os.Rename); err != nil {
			return "", fmt.Errorf("cannot write the master key: %w", err)
		}
	}
	return text, nil
}

// open makes the key of its text. An error calls it what.
func (from MasterSource) open(ctx context.Context, text, what string) (*Master, error) {
	switch sealed := isSealedMaster(text); {
	case sealed && from.Transit == nil:
		return nil, fmt.Errorf("%s is sealed by Vault: set vault_transit_key", what)
	case sealed:
		key, err := from.Transit.Open(ctx, text)
		if err != nil {
			return nil, err
		}
		if len(key) != masterLen {
			return nil, fmt.Errorf("%s is not 32 bytes once Vault opened it", what)
		}
		return newMaster([masterLen]byte(key)), nil
	case from.Transit != nil:
		return nil, fmt.Errorf("%s is not sealed by Vault, and vault_transit_key says that it is: run gateway master seal", what)
	}
	key, ok := parseMaster(text)
	if !ok {
		return nil, fmt.Errorf("%s must be 32 bytes, as 64 hex digits or as base64", what)
	}
	return newMaster(key), nil
}

func (from MasterSource) read(ctx context.Context) (*Master, error) {
	text, err := readMaster(from.Path)
	if err != nil {
		return nil, err
	}
	return from.open(ctx, text, "the master key in "+from.Path)
}

// readMaster returns the text in the file at path. It refuses one that others
// than its owner can read or write, even if they could no more: the key may be
// known already.
func readMaster(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("cannot read the master key: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return "", fmt.Errorf("cannot read the master key: %w", err)
	case !info.Mode().IsRegular():
		return "", fmt.Errorf("the master key %s is not a file", path)
	case info.Mode().Perm()&0o077 != 0:
		return "", fmt.Errorf("the master key %s has mode %#o, so others can read or change it: chmod 600 it, or set master_key", path, info.Mode().Perm())
	}
	text, err := io.ReadAll(io.LimitReader(f, 1024))
	if err != nil {
		return "", fmt.Errorf("cannot read the master key: %w", err)
	}
	return string(bytes.TrimSpace(text)), nil
}

// writeMaster writes text to path, whole or not at all, which put decides: a link
// never goes over another key, since it fails if the name is taken; a rename does.
func writeMaster(path, text string, put func(from, to string) error) (written bool, err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, ".master-*") // mode 0600
	if err != nil {
		return false, err
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString(text + "\n")
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return false, err
	}
	switch err := put(f.Name(), path); {
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
