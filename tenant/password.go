package tenant

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"strings"
	"unicode/utf8"

	"golang.org/x/crypto/argon2"

	"bulkhead/fault"
)

// Passwords are hashed with argon2id as OWASP's cheat sheet on password storage
// has it: 19 MiB, two passes, one lane. A hash is stored with its parameters, in
// the form of the PHC string format.
const (
	argonMemory = 19 << 10 // KiB
	argonTime   = 2
	argonLanes  = 1
	argonSalt   = 16
	argonLen    = 32
	argonPrefix = "$argon2id$v=19$m=19456,t=2,p=1$"
)

// The length of a password, in characters: NIST SP 800-63B asks for no less, and
// that long ones are taken.
const (
	minPassword = 12
	maxPassword = 256
)

// CheckPassword says whether a password may be set.
func CheckPassword(field, password string) error {
	switch n := utf8.RuneCountInString(password); {
	case !utf8.ValidString(password):
		return fault.Field(field, "%s must be UTF-8.", field)
	case n < minPassword:
		return fault.Field(field, "%s must have at least %d characters.", field, minPassword)
	case n > maxPassword:
		return fault.Field(field, "%s must have at most %d characters.", field, maxPassword)
	}
	return nil
}

// hasher bounds the hashing under way: each takes 19 MiB and a core.
type hasher struct {
	working chan struct{}
	waiting chan struct{}
}

const (
	hashesAtOnce  = 2
	hashesWaiting = 64
)

func newHasher() *hasher {
	return &hasher{make(chan struct{}, hashesAtOnce), make(chan struct{}, hashesWaiting)}
}

func (h *hasher) hash(ctx context.Context, password string, salt []byte) ([]byte, error) {
	busy := fault.New(fault.Unavailable, "Too many passwords are being checked. Try again.").WithCode("logins_in_flight")
	select {
	case h.waiting <- struct{}{}:
		defer func() { <-h.waiting }()
	default:
		return nil, busy
	}
	select {
	case h.working <- struct{}{}:
		defer func() { <-h.working }()
	case <-ctx.Done():
		return nil, busy
	}
	return argon2.IDKey([]byte(password), salt, argonTime, argonMemory, argonLanes, argonLen), nil
}

// HashPassword returns what is stored of a password.
func (d *Directory) HashPassword(ctx context.Context, password string) (string, error) {
	salt := make([]byte, argonSalt)
	rand.Read(salt) // never fails: see crypto/rand
	sum, err := d.hasher.hash(ctx, password, salt)
	if err != nil {
		return "", err
	}
	return argonPrefix + base64.RawStdEncoding.EncodeToString(salt) + "$" + base64.RawStdEncoding.EncodeToString(sum), nil
}

// nobodysPassword is what a password is held against where there is no user: the
// work is the same, and nothing has this sum.
var nobodysPassword = argonPrefix + strings.Repeat("A", 22) + "$" + strings.Repeat("A", 43)

// checkPassword reports whether the password is the one that is stored; "" is of
// nobody. It takes as long either way.
func (d *Directory) checkPassword(ctx context.Context, stored, password string) (bool, error) {
	nobody := stored == ""
	if nobody {
		stored = nobodysPassword
	}
	rest, ok := strings.CutPrefix(stored, argonPrefix)
	text, sumText, cut := strings.Cut(rest, "$")
	if !ok || !cut {
		return false, fmt.Errorf("a password is stored in a form that is not known")
	}
	salt, err := base64.RawStdEncoding.DecodeString(text)
	if err != nil {
		return false, fmt.Errorf("a password's salt cannot be read: %w", err)
	}
	want, err := base64.RawStdEncoding.DecodeString(sumText)
	if err != nil {
		return false, fmt.Errorf("a password's hash cannot be read: %w", err)
	}
	if utf8.RuneCountInString(password) > maxPassword {
		password = password[:0] // nobody has one: do not hash megabytes
	}
	sum, err := d.hasher.hash(ctx, password, salt)
	if err != nil {
		return false, err
	}
	return subtle.ConstantTimeCompare(sum, want) == 1 && !nobody, nil
}
