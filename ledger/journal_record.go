package ledger

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"time"

	"bulkhead/openai"
)

// A segment of the journal is a header and records:
//
//	header  "bhledger", form (1), zeros (3), number (4), nonce (8), CRC (4)
//	record  length (4), CRC (4), kind (1), payload
//
// The header is the same in all forms to come, so that each can tell the others.
// Numbers are little-endian. The length counts kind and payload; the CRC is over
// those, CRC-32C (RFC 3720, appendix B.4), begun with the header's, so that no
// text of a client can stand for a record: it does not know the nonce.
const (
	headerSize  = 28
	frameSize   = 8        // length and CRC
	maxRecord   = 64 << 10 // bytes of a record with its frame; an entry is some 300
	segmentForm = 1
)

// kind is what a record says.
type kind byte

// The kinds of records. One more, or another meaning of one, is another
// segmentForm if an older gateway must not read past it.
const (
	kindOpen    kind = 1 // company and entry of an attempt that may be made now
	kindClose   kind = 2 // company and entry of an attempt that has ended
	kindVoid    kind = 3 // id of an attempt that was opened and not made
	kindDone    kind = 4 // places of closes that need not be shipped (any more)
	kindCarried kind = 5 // what was open when this segment began stands in it again
	lastKind         = kindCarried
)

// errNewer is the error for what an older version of this code cannot know. It
// must not take that for damage, and cut it off.
var errNewer = errors.New("it was written by a newer version of the gateway")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var segmentMagic = [8]byte{'b', 'h', 'l', 'e', 'd', 'g', 'e', 'r'}

// appendHeader appends a segment's header and returns the seed of its CRCs.
func appendHeader(b []byte, number uint32, nonce uint64) ([]byte, uint32) {
	from := len(b)
	b = append(b, segmentMagic[:]...)
	b = append(b, segmentForm, 0, 0, 0)
	b = binary.LittleEndian.AppendUint32(b, number)
	b = binary.LittleEndian.AppendUint64(b, nonce)
	seed := crc32.Checksum(b[from:], castagnoli)
	return binary.LittleEndian.AppendUint32(b, seed), seed
}

// readHeader returns the seed of the segment that b begins with.
func readHeader(b []byte, number uint32) (seed uint32, err error) {
	if len(b) < headerSize || [8]byte(b[:8]) != segmentMagic {
		return 0, errors.New("it does not begin like a segment")
	}
	seed = crc32.Checksum(b[:headerSize-4], castagnoli)
	if binary.LittleEndian.Uint32(b[headerSize-4:]) != seed {
		return 0, errors.New("its header is broken")
	}
	if b[8] != segmentForm {
		return 0, fmt.Errorf("form %d: %w", b[8], errNewer)
	}
	if n := binary.LittleEndian.Uint32(b[12:]); n != number {
		return 0, fmt.Errorf("it is segment %d under another's name", n)
	}
	return seed, nil
}

// beginRecord appends the frame of a record, which endRecord fills in.
func beginRecord(b []byte, k kind) []byte {
	return append(b, 0, 0, 0, 0, 0, 0, 0, 0, byte(k))
}

// endRecord fills in the frame of the record that is all of b.
func endRecord(b []byte, seed uint32) error {
	if len(b) > maxRecord {
		return fmt.Errorf("a record of %d bytes is too long", len(b))
	}
	binary.LittleEndian.PutUint32(b, uint32(len(b)-frameSize))
	binary.LittleEndian.PutUint32(b[4:], crc32.Update(seed, castagnoli, b[frameSize:]))
	return nil
}

// recordAt returns how long the record is that b begins with, 0 if there is no
// good one.
func recordAt(b []byte, seed uint32) int {
	if len(b) <= frameSize {
		return 0
	}
	n := binary.LittleEndian.Uint32(b)
	if n == 0 || n > maxRecord-frameSize || int(n) > len(b)-frameSize {
		return 0
	}
	end := frameSize + int(n)
	if binary.LittleEndian.Uint32(b[4:]) != crc32.Update(seed, castagnoli, b[frameSize:end]) {
		return 0
	}
	return end
}

// hole is a stretch of a segment that is no record, with good ones behind it.
type hole struct{ from, to int }

// readRecords calls f, if there is one, for each good record of a segment, in
// order, until f returns an error. It returns where the last one ends; what is
// behind that is a write that was broken off.
func readRecords(data []byte, seed uint32, f func(k kind, payload []byte, at int) error) (end int, holes []hole, err error) {
	at := headerSize
	for at < len(data) {
		n := recordAt(data[at:], seed)
		if n == 0 {
			next := resync(data, at+1, seed)
			if next == 0 {
				return at, holes, nil
			}
			holes = append(holes, hole{at, next})
			at = next
			continue
		}
		if f != nil {
			if err := f(kind(data[at+frameSize]), data[at+frameSize+1:at+n], at); err != nil {
				return at, holes, err
			}
		}
		at += n
	}
	return at, holes, nil
}

// resync returns where the next good record begins, 0 if there is none.
func resync(data []byte, at int, seed uint32) int {
	for ; at < len(data)-frameSize; at++ {
		if k := kind(data[at+frameSize]); k == 0 || k > lastKind { // most places, without a CRC
			continue
		}
		if recordAt(data[at:], seed) > 0 {
			return at
		}
	}
	return 0
}

// entryForm is the version of an entry's encoding. A field more stands at the
// end of its list and is no other form: what was written before has fewer, and an
// older gateway that finds more says so and does not leave them out.
const entryForm = 1

// The bits of an entry's flags.
const (
	flagFirst = 1 << iota
	flagLent
	flagPriced
	flagsAll = flagFirst | flagLent | flagPriced
)

// appendEntry appends an entry and whose it is: the form, the flags, a list of
// strings and one of numbers. A list is its length in one byte and its parts, a
// string is its length and its bytes, numbers and lengths are varints
// (encoding/binary). decodeEntry reads it.
func appendEntry(b []byte, company string, e *Entry) []byte {
	var flags byte
	if e.First {
		flags |= flagFirst
	}
	if e.Lent {
		flags |= flagLent
	}
	if e.Priced {
		flags |= flagPriced
	}
	texts := [...]string{
		company, e.ID, e.RequestID, e.ProjectID, e.KeyID, e.AgentID, e.UserID,
		e.Kind, e.Provider, e.Model, e.Requested, e.Tier, string(e.Outcome),
	}
	b = append(b, entryForm, flags, byte(len(texts)))
	for _, s := range texts {
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = append(b, s...)
	}
	u := &e.Usage
	numbers := [...]int64{
		e.StartedAt.Unix(), int64(e.StartedAt.Nanosecond()), e.EndedAt.Unix(), int64(e.EndedAt.Nanosecond()),
		int64(e.Rank), int64(e.Status), int64(e.Marks), int64(u.SearchContext),
		e.CostNano, e.LowNano, e.HighNano,
		u.Input, u.CachedInput, u.CacheWrite, u.CacheWrite1h, u.AudioInput, u.ImageInput,
		u.Output, u.Reasoning, u.AudioOutput, u.ImageOutput, u.AcceptedPrediction, u.RejectedPrediction,
		u.Total, u.Searches, u.Tools, u.Seconds, u.Images, u.Characters,
	}
	b = append(b, byte(len(numbers)))
	for _, n := range numbers {
		b = binary.AppendVarint(b, n)
	}
	return b
}

// decodeEntry reads what appendEntry wrote. The strings are parts of one copy of
// payload. The error is errNewer where a later version wrote it.
func decodeEntry(payload []byte) (company string, e Entry, err error) {
	if len(payload) > 0 && payload[0] > entryForm {
		return "", e, fmt.Errorf("entry of form %d: %w", payload[0], errNewer)
	}
	c := cursor{text: string(payload)}
	form, flags := c.byte(), c.byte()
	var outcome string
	texts := [...]*string{
		&company, &e.ID, &e.RequestID, &e.ProjectID, &e.KeyID, &e.AgentID, &e.UserID,
		&e.Kind, &e.Provider, &e.Model, &e.Requested, &e.Tier, &outcome,
	}
	for i := range c.length(len(texts)) {
		*texts[i] = c.string()
	}
	e.Outcome = Outcome(outcome)
	u := &e.Usage
	var startSec, startNano, endSec, endNano, rank, status, marks, search int64
	numbers := [...]*int64{
		&startSec, &startNano, &endSec, &endNano, &rank, &status, &marks, &search,
		&e.CostNano, &e.LowNano, &e.HighNano,
		&u.Input, &u.CachedInput, &u.CacheWrite, &u.CacheWrite1h, &u.AudioInput, &u.ImageInput,
		&u.Output, &u.Reasoning, &u.AudioOutput, &u.ImageOutput, &u.AcceptedPrediction, &u.RejectedPrediction,
		&u.Total, &u.Searches, &u.Tools, &u.Seconds, &u.Images, &u.Characters,
	}
	for i := range c.length(len(numbers)) {
		*numbers[i] = c.varint()
	}
	if c.more || flags > flagsAll {
		return "", Entry{}, fmt.Errorf("entry with more fields: %w", errNewer)
	}
	if c.bad || c.text != "" || form != entryForm || company == "" || e.ID == "" ||
		marks < 0 || marks > math.MaxUint16 || search < 0 || search > math.MaxUint8 ||
		startNano < 0 || startNano >= 1e9 || endNano < 0 || endNano >= 1e9 {
		return "", Entry{}, errEntry
	}
	e.First, e.Lent, e.Priced = flags&flagFirst != 0, flags&flagLent != 0, flags&flagPriced != 0
	e.Rank, e.Status, e.Marks, u.SearchContext = Rank(rank), int(status), Mark(marks), openai.SearchContext(search)
	e.StartedAt, e.EndedAt = time.Unix(startSec, startNano).UTC(), time.Unix(endSec, endNano).UTC()
	return company, e, nil
}

// errEntry is a payload that no version wrote, though its CRC is right.
var errEntry = errors.New("the entry in a record cannot be read")

// cursor reads a payload from its beginning. After the first thing that is not
// there it is bad and reads zeros.
type cursor struct {
	text string
	bad  bool
	more bool // a list holds more than is known
}

func (c *cursor) byte() byte {
	if c.text == "" {
		c.bad = true
		return 0
	}
	b := c.text[0]
	c.text = c.text[1:]
	return b
}

func (c *cursor) uvarint() uint64 {
	var n uint64
	for shift := 0; shift < 64; shift += 7 {
		b := c.byte()
		if shift == 63 && b > 1 {
			break
		}
		n |= uint64(b&0x7f) << shift
		if b < 0x80 {
			return n
		}
	}
	c.bad = true
	return 0
}

func (c *cursor) varint() int64 {
	n := c.uvarint()
	return int64(n>>1) ^ -int64(n&1)
}

func (c *cursor) string() string {
	n := c.uvarint()
	if n > uint64(len(c.text)) {
		c.bad = true
		return ""
	}
	s := c.text[:n]
	c.text = c.text[n:]
	return s
}

// length reads the length of a list, of which known parts are known.
func (c *cursor) length(known int) int {
	n := int(c.byte())
	if n > known {
		c.more = c.more || !c.bad
		return 0
	}
	return n
}

// place is where a record stands: a segment and the offset in it.
type place struct{ segment, at uint32 }

// appendPlaces appends the payload of a kindDone.
func appendPlaces(b []byte, refs []ref) []byte {
	for _, r := range refs {
		b = binary.AppendUvarint(b, uint64(r.segment))
		b = binary.AppendUvarint(b, uint64(r.at))
	}
	return b
}

// readPlaces calls f for each place of a kindDone's payload.
func readPlaces(payload []byte, f func(place)) error {
	for c := (cursor{text: string(payload)}); c.text != ""; {
		segment, at := c.uvarint(), c.uvarint()
		if c.bad || segment > math.MaxUint32 || at > math.MaxUint32 {
			return errors.New("the places in a record cannot be read")
		}
		f(place{uint32(segment), uint32(at)})
	}
	return nil
}
