package rag

import (
	"context"
	"hash/fnv"
	"maps"
	"math"
	"slices"
	"unicode/utf8"

	"bulkhead/tenant"
)

// LexicalID is the id of the Lexical embedder.
const LexicalID = "lexical-hash-v1"

// lexicalDim is how many numbers its vectors have.
const lexicalDim = 512

// Lexical is the embedder of a gateway that has no model for it: words and pieces
// of words, hashed. It finds texts that have words in common, misspelt and inflected
// ones too, and knows nothing of meaning: it is keyword matching, and is called so.
// It costs nothing and asks nobody.
type Lexical struct{}

// ID implements Embedder.
func (Lexical) ID(s tenant.Scope) string {
	s.ID()
	return LexicalID
}

// Embed implements Embedder.
func (Lexical) Embed(_ context.Context, s tenant.Scope, texts []string) ([][]float32, string, error) {
	s.ID()
	all := make([][]float32, len(texts))
	for i, text := range texts {
		all[i] = lexicalVector(text)
	}
	return all, LexicalID, nil
}

// lexicalVector counts words, and with less weight their trigrams, in places that a
// hash chooses, with a sign that another part of it chooses: what falls together by
// chance adds up to nothing on average (feature hashing, Weinberger et al., 2009).
// The hash is fixed, for the vectors are stored.
func lexicalVector(text string) []float32 {
	counts := map[uint64]float64{}
	var padded []byte
	eachWord(text, func(w []byte) {
		counts[hashed('w', w)]++
		padded = append(append(append(padded[:0], '^'), w...), '$')
		for i := 0; i < len(padded); {
			_, k := utf8.DecodeRune(padded[i:])
			end := i
			n := 0
			for ; n < 3 && end < len(padded); n++ {
				_, k := utf8.DecodeRune(padded[end:])
				end += k
			}
			if n < 3 {
				break
			}
			counts[hashed('t', padded[i:end])] += 0.25
			i += k
		}
	})
	v := make([]float32, lexicalDim)
	if len(counts) == 0 {
		v[0] = 1 // a text without words is near to others without
		return v
	}
	sums := make([]float64, lexicalDim)
	for _, h := range slices.Sorted(maps.Keys(counts)) { // floats added in another order would give other last bits
		x := math.Log1p(counts[h])
		if h>>63 == 1 {
			x = -x
		}
		sums[h%lexicalDim] += x
	}
	var length float64
	for _, x := range sums {
		length += x * x
	}
	length = math.Sqrt(length)
	if length == 0 { // everything cancelled out
		v[0] = 1
		return v
	}
	for i, x := range sums {
		v[i] = float32(x / length)
	}
	return v
}

func hashed(kind byte, w []byte) uint64 {
	h := fnv.New64a()
	h.Write([]byte{kind})
	h.Write(w)
	// FNV's low bits are the better ones, its high bits need mixing.
	x := h.Sum64()
	x ^= x >> 32
	x *= 0xd6e8feb86659fd93
	return x ^ x>>32
}
