package tenant

import (
	"encoding/hex"
	"time"
)

// KeptState is how far a call with an Idempotency-Key is.
type KeptState string

// The states. A call that nobody has the claim of any more and that is Begun has
// lost its gateway: nobody knows what came of it.
const (
	Begun   KeptState = "begun"    // sent, or about to be
	Kept    KeptState = "kept"     // answered, and the answer is kept
	TooMuch KeptState = "answered" // answered, and the answer is not kept: it is too large, or there is no room
	Lost    KeptState = "lost"     // sent, and it is not known what came of it, or only a part of an answer did
)

// KeptFor is how long a call is kept after it began.
const KeptFor = 24 * time.Hour

// KeptCall is a call with an Idempotency-Key. It is begun before anything is sent
// and then stays so or becomes one of the other states, until its time is over: the
// provider is never asked again for what has a KeptCall.
type KeptCall struct {
	Claim   string // whose key it is, and the key: see IdempotencyClaim
	Project string // id
	Request string // what was asked for, as a Digest
	Owner   string // x-request-id of the call
	State   KeptState
	Sealed  []byte // the answer, if State is Kept
	Until   time.Time
}

// IdempotencyClaim returns what stands for the Idempotency-Key of a caller: of one
// project, and of either its test keys or its others, which never meet.
func IdempotencyClaim(s Scope, key string) string {
	kind := "live"
	if s.Test() {
		kind = "test"
	}
	return s.Digest("idempotency key", []byte(s.ProjectID()), []byte(kind), []byte(key))
}

// Digest returns 32 hexadecimal digits for parts of content, for one purpose in
// the company: an HMAC-SHA256 under the pepper of the installation's keys, so that
// whoever has a copy of the database alone cannot try what the content may be.
func (s Scope) Digest(purpose string, parts ...[]byte) string {
	a := s.access()
	n := Name{a.company.id, "digest", purpose}
	b := n.Append([]byte("digest\x00")) // no key begins so: see Minter
	for _, p := range parts {
		b = append(b, byte(len(p)>>24), byte(len(p)>>16), byte(len(p)>>8), byte(len(p)))
		b = append(b, p...)
	}
	sum := a.minter.sum(b)
	return hex.EncodeToString(sum[:16])
}
