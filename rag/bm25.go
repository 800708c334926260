package rag

import (
	"maps"
	"math"
	"slices"
)

// The weights of BM25 that everybody uses. Source: Robertson and Zaragoza, "The
// Probabilistic Relevance Framework: BM25 and Beyond", 2009.
const (
	bm25K = 1.2
	bm25B = 0.75
)

// storeWords is the keyword index of a store: the segments of its files, by file.
type storeWords struct {
	store    string
	segments []*segment
}

// match is a chunk with how well it fits: for keywords 0..1, the share of the most
// that a chunk could have; for vectors the cosine.
type match struct {
	Ref
	score float64
}

// searchWords scores the chunks of stores, whose files may narrow, and returns the
// best. How rare a word is, and how long a chunk usually is, is counted in these
// stores and nowhere else, all of their files: the same question of the same stores
// has the same scores, to the bit, whatever else there is.
func searchWords(question []string, stores []storeWords, may func(store, file string) bool, limit int) []match {
	terms := map[string]bool{}
	for _, text := range question {
		eachWord(text, func(w []byte) { terms[string(w)] = true })
	}
	// One order, whatever was asked first: sums of floats depend on it.
	stores = slices.Clone(stores)
	slices.SortFunc(stores, func(a, b storeWords) int {
		if a.store < b.store {
			return -1
		}
		return 1
	})
	var chunks, length int64
	for i := range stores {
		for _, g := range stores[i].segments {
			chunks += int64(len(g.lengths))
			length += g.words
		}
	}
	if chunks == 0 || len(terms) == 0 {
		return nil
	}
	usual := max(float64(length)/float64(chunks), 1)
	scores := map[Ref]float64{}
	var most float64
	for _, term := range slices.Sorted(maps.Keys(terms)) {
		with := 0
		for i := range stores {
			for _, g := range stores[i].segments {
				n, _ := g.find(term)
				with += n
			}
		}
		rare := math.Log(1 + (float64(chunks)-float64(with)+0.5)/(float64(with)+0.5))
		most += rare * (bm25K + 1)
		if with == 0 {
			continue
		}
		for i := range stores {
			for _, g := range stores[i].segments {
				n, r := g.find(term)
				if n == 0 || may != nil && !may(stores[i].store, g.file) {
					continue
				}
				for at := 0; n > 0; n-- {
					at += r.number(1 << 31)
					often := float64(r.number(1 << 31))
					long := float64(g.lengths[at]) / usual
					scores[Ref{stores[i].store, g.file, at}] += rare * often * (bm25K + 1) / (often + bm25K*(1-bm25B+bm25B*long))
				}
			}
		}
	}
	all := make([]match, 0, len(scores))
	for ref, score := range scores {
		all = append(all, match{ref, score / most})
	}
	sortMatches(all)
	return all[:min(len(all), limit)]
}

// sortMatches puts the best first, and of equal ones always the same.
func sortMatches(all []match) {
	slices.SortFunc(all, func(a, b match) int {
		switch {
		case a.score != b.score:
			if a.score > b.score {
				return -1
			}
			return 1
		case a.StoreID != b.StoreID:
			if a.StoreID < b.StoreID {
				return -1
			}
			return 1
		case a.FileID != b.FileID:
			if a.FileID < b.FileID {
				return -1
			}
			return 1
		}
		return a.Index - b.Index
	})
}
