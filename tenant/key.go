package tenant

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"hash"
	"hash/crc32"
	"sync"
	"time"

	"bulkhead/fault"
)

// KeyKind is what a key is for. It stands in the key and cannot be changed.
type KeyKind uint8

// The kinds of keys.
const (
	KeyLive     KeyKind = iota + 1 // a project's, for inference
	KeyTest                        // a project's, reaches the sandbox only
	KeyAdmin                       // a company's, for management
	KeyOperator                    // the operator's
	KeySession                     // the secret in a person's cookie; taken nowhere else
	KeyInvite                      // the token of an invite; likewise
)

var kindNames = [...]string{KeyLive: "live", KeyTest: "test", KeyAdmin: "admin", KeyOperator: "op", KeySession: "session", KeyInvite: "invite"}

func (k KeyKind) String() string {
	if int(k) < len(kindNames) && k > 0 {
		return kindNames[k]
	}
	return "unknown"
}

// ParseKeyKind returns the kind of key with the given name.
func ParseKeyKind(name string) (KeyKind, bool) {
	for k := KeyLive; k <= KeyOperator; k++ {
		if kindNames[k] == name {
			return k, true
		}
	}
	return 0, false
}

// Key is what is known about a key. The secret itself is kept nowhere.
type Key struct {
	ID               string // "key_" and the key id that stands in the key
	Kind             KeyKind
	ProjectID        string // "" for a company's admin key
	ServiceAccountID string // the owner; "" for a company's admin key
	UserID           string // whose an admin key is, and with whom it ends; "" for the company's own
	Name             string
	Redacted         string // what may be shown: the beginning and the last four characters
	Hash             [sha256.Size]byte
	CreatedAt        time.Time
	ExpiresAt        time.Time // zero: never
	Limits           Limits
	Rules            KeyRules

	Old        *OldValue // before the last rotation; nil: none
	LastUsedAt time.Time // to the minute, zero: never, or not known yet
}

// OldValue is the value of a key before it was rotated.
type OldValue struct {
	Hash  [sha256.Size]byte
	Until time.Time // it is taken
}

// OldUntil returns until when the value before the last rotation is taken; zero:
// there is none.
func (k *Key) OldUntil() time.Time {
	if k.Old == nil {
		return time.Time{}
	}
	return k.Old.Until
}

// OperatorLocator stands in an operator's key where a company's locator
// stands in others. It is shorter than a locator, so no company has it.
const OperatorLocator = "operator"

// The form of a key, in bytes: sk-bh-<kind>-<locator>-<key id>-<secret><crc>.
const (
	keyPrefix  = "sk-bh-"
	locatorLen = 10 // 50 bits of lower-case base 32
	keyIDLen   = 12 // 60 bits of lower-case base 32
	secretLen  = 43 // 256 bits of base 62, rounded up
	crcLen     = 6  // CRC-32 (IEEE) of all before it, base 62
	maxKeyLen  = len(keyPrefix) + len("session-") + locatorLen + 1 + keyIDLen + 1 + secretLen + crcLen
)

const (
	base32Digits = "0123456789abcdefghjkmnpqrstvwxyz" // Crockford's: no i, l, o, u
	base62Digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
)

// parsedKey points into the text of a key that has the right form and sum.
type parsedKey struct {
	kind    KeyKind
	locator []byte
	id      []byte
}

// parseKey checks the form and the checksum of a key, without any look-up.
// A typing error is found here; a forged key is not.
func parseKey(b []byte) (p parsedKey, ok bool) {
	if len(b) > maxKeyLen || len(b) < len(keyPrefix)+crcLen || string(b[:len(keyPrefix)]) != keyPrefix {
		return p, false
	}
	rest := b[len(keyPrefix):]
	var parts [4][]byte
	for i := range 3 {
		j := 0
		for j < len(rest) && rest[j] != '-' {
			j++
		}
		if j == len(rest) {
			return p, false
		}
		parts[i], rest = rest[:j], rest[j+1:]
	}
	if p.kind, ok = kindOf(parts[0]); !ok {
		return p, false
	}
	p.locator, p.id = parts[1], parts[2]
	if len(rest) != secretLen+crcLen || !base62Set.all(rest) || !base32Set.all(p.id) || len(p.id) != keyIDLen {
		return p, false
	}
	if p.kind == KeyOperator {
		if string(p.locator) != OperatorLocator {
			return p, false
		}
	} else if !validLocator(p.locator) {
		return p, false
	}
	var sum [crcLen]byte
	appendCRC(sum[:0], b[:len(b)-crcLen])
	return p, string(sum[:]) == string(b[len(b)-crcLen:])
}

func validLocator(b []byte) bool { return len(b) == locatorLen && base32Set.all(b) }

func kindOf(b []byte) (KeyKind, bool) {
	switch string(b) {
	case "live":
		return KeyLive, true
	case "test":
		return KeyTest, true
	case "admin":
		return KeyAdmin, true
	case "op":
		return KeyOperator, true
	case "session":
		return KeySession, true
	case "invite":
		return KeyInvite, true
	}
	return 0, false
}

// digitSet answers for every byte whether it is one of the digits.
type digitSet [256]bool

var base32Set, base62Set = newDigitSet(base32Digits), newDigitSet(base62Digits)

func newDigitSet(digits string) *digitSet {
	var s digitSet
	for _, c := range []byte(digits) {
		s[c] = true
	}
	return &s
}

func (s *digitSet) all(b []byte) bool {
	for _, c := range b {
		if !s[c] {
			return false
		}
	}
	return true
}

func appendCRC(dst, text []byte) []byte {
	n := crc32.ChecksumIEEE(text)
	var d [crcLen]byte
	for i := crcLen - 1; i >= 0; i-- {
		d[i] = base62Digits[n%62]
		n /= 62
	}
	return append(dst, d[:]...)
}

// digits returns n random digits. A byte that would make some digits more
// likely than others is thrown away.
func digits(n int, from string) string {
	limit := byte(256 / len(from) * len(from) % 256) // 0: every byte is fair
	out := make([]byte, 0, n)
	var buf [64]byte
	for len(out) < n {
		rand.Read(buf[:]) // never fails: see crypto/rand
		for _, c := range buf {
			if (limit == 0 || c < limit) && len(out) < n {
				out = append(out, from[int(c)%len(from)])
			}
		}
	}
	return string(out)
}

// Minter makes keys and proves them. The pepper is never stored beside the
// hashes, so that a copy of the database alone cannot confirm a guess.
type Minter struct {
	macs sync.Pool
}

// NewMinter returns a Minter with the given pepper of at least 32 bytes.
func NewMinter(pepper []byte) *Minter {
	if len(pepper) < 32 {
		panic("BUG: the pepper is too short")
	}
	pepper = append([]byte(nil), pepper...)
	return &Minter{macs: sync.Pool{New: func() any { return &mac{Hash: hmac.New(sha256.New, pepper)} }}}
}

// mac is an HMAC and room for its result, which would be allocated otherwise.
type mac struct {
	hash.Hash
	out [sha256.Size]byte
}

func (m *Minter) sum(key []byte) [sha256.Size]byte {
	mac := m.macs.Get().(*mac)
	defer m.macs.Put(mac)
	mac.Reset()
	mac.Write(key)
	mac.Sum(mac.out[:0])
	return mac.out
}

// proves reports, in constant time, whether key is the one with this hash.
func (m *Minter) proves(key []byte, want *[sha256.Size]byte) bool {
	got := m.sum(key)
	return subtle.ConstantTimeCompare(got[:], want[:]) == 1
}

// mint makes a key. The value is shown once, by whoever called.
func (m *Minter) mint(kind KeyKind, locator string) (value string, k Key) {
	return m.mintAs(kind, locator, digits(keyIDLen, base32Digits))
}

func (m *Minter) mintAs(kind KeyKind, locator, id string) (value string, k Key) {
	b := []byte(keyPrefix + kind.String() + "-" + locator + "-" + id + "-" + digits(secretLen, base62Digits))
	b = appendCRC(b, b)
	k = Key{ID: kind.name(id), Kind: kind, Hash: m.sum(b)}
	k.Redacted = keyPrefix + kind.String() + "-..." + string(b[len(b)-4:])
	return string(b), k
}

// Mint makes a key of the company of s. The value is to be shown once and kept
// nowhere; the Key is what is stored.
func (m *Minter) Mint(s Scope, kind KeyKind) (value string, k Key) {
	if kind == KeyOperator {
		panic("BUG: a company has no operator key")
	}
	return m.mint(kind, s.ID().Locator())
}

// MintOperator makes a key of the operator, for the first start.
func (m *Minter) MintOperator() (value string, k Key) { return m.mint(KeyOperator, OperatorLocator) }

func keyName(id string) string     { return "key_" + id }
func sessionName(id string) string { return "session_" + id }
func inviteName(id string) string  { return "invite-" + id }

// name makes the id of what has this key id and kind.
func (k KeyKind) name(id string) string {
	switch k {
	case KeySession:
		return sessionName(id)
	case KeyInvite:
		return inviteName(id)
	}
	return keyName(id)
}

var (
	errNoKey      = fault.New(fault.Unauthenticated, "You did not provide an API key. Send it as 'Authorization: Bearer YOUR_KEY'.")
	errBadKey     = fault.New(fault.Unauthenticated, "Incorrect API key provided.").WithCode("invalid_api_key")
	errTypo       = fault.New(fault.Unauthenticated, "Incorrect API key provided: it is not a key of this gateway, or was not copied whole.").WithCode("invalid_api_key")
	errExpired    = fault.New(fault.Unauthenticated, "This API key has expired.").WithCode("expired_api_key")
	errSuspended  = fault.New(fault.Forbidden, "This company is suspended. Ask the operator of the gateway.").WithCode("company_suspended")
	errArchived   = fault.New(fault.Forbidden, "The project of this API key is archived.").WithCode("project_archived")
	errNoKeyHere  = fault.New(fault.Unauthenticated, "This is not an API key: a session is sent as a cookie, and an invite to the address that accepts it.").WithCode("invalid_api_key")
	errWrongPlace = fault.New(fault.Forbidden, "An operator key is for the operator's address, not for this one.").WithCode("operator_key_not_allowed")
)
