package ledger

import (
	"encoding/base32"
	"encoding/binary"
	"math/rand/v2"
	"strings"
	"time"
)

// The digits of base32hex (RFC 4648, section 7), in lower case: they sort like
// the bytes they stand for.
var idEncoding = base32.NewEncoding("0123456789abcdefghijklmnopqrstuv").WithPadding(base32.NoPadding)

// NewAttemptID returns the id of an attempt: "att_" and 29 letters and digits,
// of which the first part is the time in microseconds, so that new rows stand
// at the end of an index, and 80 bits are random, so that nobody guesses one.
func NewAttemptID() string {
	var raw [18]byte
	binary.BigEndian.PutUint64(raw[:8], uint64(time.Now().UnixMicro()))
	binary.BigEndian.PutUint64(raw[8:16], rand.Uint64()) // the runtime's ChaCha8, seeded by the system
	binary.BigEndian.PutUint16(raw[16:], uint16(rand.Uint64()))
	return attemptID(raw[:])
}

// AttemptIDAt returns the least id of an attempt made at a moment, which no
// attempt made before has or exceeds.
func AttemptIDAt(t time.Time) string {
	var raw [18]byte
	binary.BigEndian.PutUint64(raw[:8], uint64(max(t.UnixMicro(), 0)))
	return attemptID(raw[:])
}

// AttemptTime returns the moment in an attempt's id; zero if it is none.
func AttemptTime(id string) time.Time {
	digits, ok := strings.CutPrefix(id, "att_")
	raw, err := idEncoding.DecodeString(digits)
	if !ok || err != nil || len(raw) != 18 {
		return time.Time{}
	}
	return time.UnixMicro(int64(binary.BigEndian.Uint64(raw))).UTC()
}

func attemptID(raw []byte) string {
	id := [4 + 29]byte{'a', 't', 't', '_'}
	idEncoding.Encode(id[4:], raw)
	return string(id[:])
}
