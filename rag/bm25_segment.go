package rag

import (
	"encoding/binary"
	"errors"
	"maps"
	"slices"
	"sort"
)

// A segment is the words of one file in one store, as it is kept in the store: a
// blob that never changes. It has
//
//	version            1 byte
//	chunks             how many there are
//	words              of each chunk, how many it has
//	terms              how many different words there are
//	of each, by bytes  its length and bytes, how many chunks have it,
//	                   and of each of those how far it is from the one before, and how often it has it
//
// all numbers as uvarints.
const segmentVersion = 1

// EncodeSegment makes the segment of a file from the texts of its chunks.
func EncodeSegment(texts []string) []byte {
	type posting struct{ chunk, count int }
	terms := map[string][]posting{}
	b := []byte{segmentVersion}
	b = binary.AppendUvarint(b, uint64(len(texts)))
	for i, text := range texts {
		n := 0
		eachWord(text, func(w []byte) {
			n++
			p := terms[string(w)]
			if k := len(p); k > 0 && p[k-1].chunk == i {
				p[k-1].count++
				return
			}
			terms[string(w)] = append(p, posting{i, 1})
		})
		b = binary.AppendUvarint(b, uint64(n))
	}
	b = binary.AppendUvarint(b, uint64(len(terms)))
	for _, term := range slices.Sorted(maps.Keys(terms)) {
		b = binary.AppendUvarint(b, uint64(len(term)))
		b = append(b, term...)
		b = binary.AppendUvarint(b, uint64(len(terms[term])))
		last := 0
		for _, p := range terms[term] {
			b = binary.AppendUvarint(b, uint64(p.chunk-last))
			b = binary.AppendUvarint(b, uint64(p.count))
			last = p.chunk
		}
	}
	return b
}

// segment is a segment that was read. It keeps the blob.
type segment struct {
	file    string
	version int64
	blob    []byte
	lengths []uint32 // words of each chunk
	words   int64    // of all
	terms   []uint32 // where each term begins in blob, in the order of their bytes
}

var errSegment = errors.New("the words of a file are not stored as they should be")

// reader reads uvarints of a blob. It never reads beyond it.
type reader struct {
	b   []byte
	at  int
	bad bool
}

func (r *reader) number(most uint64) int {
	n, k := binary.Uvarint(r.b[min(r.at, len(r.b)):])
	if k <= 0 || n > most {
		r.bad = true
		return 0
	}
	r.at += k
	return int(n)
}

func (r *reader) bytes(n int) []byte {
	if n > len(r.b)-r.at {
		r.bad = true
		return nil
	}
	r.at += n
	return r.b[r.at-n : r.at]
}

// readSegment reads a blob, all of it: what is wrong with it is found here and not
// while somebody waits for an answer.
func readSegment(blob []byte) (*segment, error) {
	if len(blob) == 0 || blob[0] != segmentVersion || len(blob) > 1<<31 {
		return nil, errSegment
	}
	r := reader{b: blob, at: 1}
	chunks := r.number(uint64(len(blob)))
	g := &segment{blob: blob}
	for range chunks {
		n := r.number(1 << 30)
		if r.bad {
			return nil, errSegment
		}
		g.lengths = append(g.lengths, uint32(n))
		g.words += int64(n)
	}
	terms := r.number(uint64(len(blob)))
	last := []byte(nil)
	for i := range terms {
		g.terms = append(g.terms, uint32(r.at))
		term := r.bytes(r.number(maxWord))
		n := r.number(uint64(chunks))
		if r.bad || n == 0 || i > 0 && string(last) >= string(term) {
			return nil, errSegment
		}
		last = term
		for chunk, k := 0, 0; k < n; k++ {
			step := r.number(uint64(chunks))
			count := r.number(1 << 30)
			if chunk += step; r.bad || chunk >= chunks || count == 0 || k > 0 && step == 0 {
				return nil, errSegment
			}
		}
	}
	if r.bad || r.at != len(blob) {
		return nil, errSegment
	}
	return g, nil
}

// size is how many bytes of memory the segment takes.
func (g *segment) size() int64 {
	return int64(cap(g.blob)+4*cap(g.lengths)+4*cap(g.terms)) + 160
}

// term returns the n-th term, and a reader of its postings.
func (g *segment) term(n int) ([]byte, reader) {
	r := reader{b: g.blob, at: int(g.terms[n])}
	term := r.bytes(r.number(maxWord))
	return term, r
}

// find returns in how many chunks a word is, and a reader of which.
func (g *segment) find(word string) (int, reader) {
	n := sort.Search(len(g.terms), func(i int) bool { term, _ := g.term(i); return string(term) >= word })
	if n == len(g.terms) {
		return 0, reader{}
	}
	term, r := g.term(n)
	if string(term) != word {
		return 0, reader{}
	}
	return r.number(1 << 31), r
}
