package audit

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"strconv"
	"strings"
)

// Hash is what stands for a row and all rows before it.
type Hash [sha256.Size]byte

// String returns the hash in hexadecimal.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// Head is the end of a chain: how many rows it has, and the hash of the last.
// The zero Head is that of a chain without rows.
type Head struct {
	Count int64
	Hash  Hash
}

// ParseHead reads what Head.String writes.
func ParseHead(text string) (Head, error) {
	count, hash, _ := strings.Cut(text, ":")
	n, err := strconv.ParseInt(count, 10, 64)
	b, errHash := hex.DecodeString(hash)
	if err != nil || errHash != nil || n < 0 || len(b) != sha256.Size {
		return Head{}, errors.New("a head is written COUNT:HASH, the hash as 64 hexadecimal digits")
	}
	return Head{n, Hash(b)}, nil
}

// String returns the count and the hash with a colon between.
func (h Head) String() string { return strconv.FormatInt(h.Count, 10) + ":" + h.Hash.String() }

// Operators names the chain of what operators did. The others are named by
// their company's id.
const Operators = "operator"

// Chain makes the hashes. They are HMACs with a key that is not in the database:
// who can write there and nowhere else can make neither a row that fits nor a
// head (docs/adr/0006-audit-chain.md).
type Chain struct{ key []byte }

// NewChain returns a Chain with a key of at least 32 bytes.
func NewChain(key []byte) *Chain {
	if len(key) < 32 {
		panic("BUG: the key of the audit chain is too short")
	}
	return &Chain{append([]byte(nil), key...)}
}

// Add returns the head after e was added to the chain of that name.
//
// The hash is HMAC-SHA-256 over the parts below in this order, each with its
// length before it (8 bytes, big endian; numbers are 8 bytes too), so that no
// two rows have the same bytes. It is never changed: a new field would need a
// new label, and rows that have the old one.
func (c *Chain) Add(name string, before Head, e *Event) Head {
	n := before.Count + 1
	return Head{n, c.sum("bulkhead audit row 1", name, number(n), string(before.Hash[:]),
		e.ID, number(e.At.UnixMicro()), string(e.Type), e.Actor, e.ProjectID, e.Object, number(e.Count), e.Detail)}
}

// Seal returns what proves that a gateway has left the chain with this head.
// Without it the end of a chain could be cut off together with its head.
func (c *Chain) Seal(name string, h Head) Hash {
	return c.sum("bulkhead audit head 1", name, number(h.Count), string(h.Hash[:]))
}

// Sealed reports whether seal is that of the head.
func (c *Chain) Sealed(name string, h Head, seal []byte) bool {
	want := c.Seal(name, h)
	return hmac.Equal(want[:], seal)
}

func (c *Chain) sum(parts ...string) (h Hash) {
	mac := hmac.New(sha256.New, c.key)
	for _, p := range parts {
		mac.Write(binary.BigEndian.AppendUint64(nil, uint64(len(p))))
		mac.Write([]byte(p))
	}
	mac.Sum(h[:0])
	return h
}

func number(n int64) string {
	return string(binary.BigEndian.AppendUint64(nil, uint64(n)))
}

// ChainBegun is the act, in the operators' chain, with which the chain of a
// company begins. There is one for each company.
const ChainBegun = "audit.begin"
