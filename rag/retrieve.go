package rag

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"bulkhead/fault"
	"bulkhead/tenant"
	"bulkhead/vector"
)

// RetrieveOptions are what a Retriever works with. Zero figures take the defaults.
type RetrieveOptions struct {
	Library  Library
	Segments Segments
	Index    vector.Index
	Embedder Embedder
	// Tracked says whether a chunk's file is, or lately was, in that store of the
	// company: in whatever state, or still to be discarded.
	Tracked func(ctx context.Context, s tenant.Scope, store, file string) (bool, error)
	// Deadline bounds a search beyond the time of the embedder; default 150 ms.
	Deadline time.Duration
	// SearchDeadline is the same for Search, which has nothing else to answer with;
	// default 10 s.
	SearchDeadline time.Duration
	// EmbedDeadline bounds the embedder; default 5 s.
	EmbedDeadline time.Duration
	// Violation is told of a vector in the company's part of the index that is none
	// of the company's; nil tells nobody.
	Violation func()
}

// Retriever finds passages: by the nearest vectors and by keywords, fused by rank.
// It implements Searcher.
type Retriever struct {
	o       RetrieveOptions
	words   *keywords
	queries *vector.Cache[[]float32]
	turns   *vector.Cache[turn]
}

// turn is what was found for a question that is being answered in several calls.
type turn struct {
	best    []match
	missing error
}

// Bounds of what is kept of questions: their vectors, so that one that is asked
// again is not embedded again.
const (
	queriesTotal   = 16 << 20
	queriesCompany = 256 << 10
	turnsTotal     = 16 << 20
	turnsCompany   = 256 << 10
)

// rankK is the constant of reciprocal rank fusion. Source: Cormack, Clarke and
// Büttcher, "Reciprocal Rank Fusion outperforms Condorcet", 2009.
const rankK = 60

// leastWords is the least share of a question's words, by weight, that a chunk must
// have to count beside what a model finds.
const leastWords = 0.35

// maxQuestion bounds what of a question is looked for, in bytes.
const maxQuestion = 8 << 10

// NewRetriever returns a Retriever.
func NewRetriever(o RetrieveOptions) *Retriever {
	if o.Deadline <= 0 {
		o.Deadline = 150 * time.Millisecond
	}
	if o.SearchDeadline <= 0 {
		o.SearchDeadline = 10 * time.Second
	}
	if o.EmbedDeadline <= 0 {
		o.EmbedDeadline = 5 * time.Second
	}
	if o.Violation == nil {
		o.Violation = func() {}
	}
	return &Retriever{o: o, words: newKeywords(o.Library, o.Segments),
		queries: vector.NewCache[[]float32](queriesTotal, queriesCompany, o.EmbedDeadline),
		turns:   vector.NewCache[turn](turnsTotal, turnsCompany, o.EmbedDeadline+4*o.Deadline)}
}

// Forget drops what is in memory of a company that was erased.
func (r *Retriever) Forget(company string) {
	r.words.cache.Forget(company, "")
	r.queries.Forget(company, "")
	r.turns.Forget(company, "")
	if x, ok := r.o.Index.(keeper); ok {
		x.Forget(company)
	}
}

// Has reports whether something of a company is in memory.
func (r *Retriever) Has(company string) bool {
	x, ok := r.o.Index.(keeper)
	return r.words.cache.Has(company) || r.queries.Has(company) || r.turns.Has(company) || ok && x.Has(company)
}

// keeper is an index that has vectors in memory.
type keeper interface {
	Has(company string) bool
	Forget(company string)
}

// Found is what a search found.
type Found struct {
	Passages []Passage
	// Missing is why vectors or keywords, or both, were not asked or did not answer
	// in time; nil if all there is was searched.
	Missing error
}

// Search implements Searcher: what could not be searched is an error.
func (r *Retriever) Search(ctx context.Context, s tenant.Scope, q Query) ([]Passage, error) {
	best, missing, err := r.rank(ctx, s, s, &q, r.o.SearchDeadline)
	if err = errors.Join(err, missing); err != nil {
		return nil, err
	}
	found, err := r.found(ctx, s, turn{best: best}, q.TopK)
	return found.Passages, err
}

// Find searches and takes what came in time. An error means that nothing could be
// read back.
func (r *Retriever) Find(ctx context.Context, s tenant.Scope, q Query) (Found, error) {
	best, missing, err := r.rank(ctx, s, s, &q, r.o.Deadline)
	if err != nil {
		return Found{}, err
	}
	return r.found(ctx, s, turn{best, missing}, q.TopK)
}

// Turn is Find in the stores with those ids, of which the Scope searches what it
// sees; nil are all it sees. key names the turn that the question belongs to: where
// it is asked again, what was found then is found again, as far as it is still
// there, so that the answer goes on from what it began with.
func (r *Retriever) Turn(ctx context.Context, s tenant.Scope, key string, again bool, ids []string, q Query) (Found, error) {
	version := time.Now().UnixNano() // newer than what is kept of a turn of the same name
	if again {
		version = 0
	}
	t, err := r.turns.Get(ctx, vector.CacheKey{Company: s.ID().String(), Store: key, Kind: s.ProjectID()}, version,
		func(ctx context.Context, _ turn) (t turn, bytes int64, err error) {
			finding, cancel := context.WithTimeout(ctx, r.o.Deadline)
			q.Stores, err = r.o.Library.FindStores(finding, s, ids)
			cancel()
			if err == nil {
				t.best, t.missing, err = r.rank(ctx, s, s, &q, r.o.Deadline)
			}
			t.best = slices.Clip(t.best[:min(len(t.best), 2*q.TopK)])
			return t, int64(len(t.best)) * 128, err
		})
	if err != nil {
		return Found{}, err
	}
	return r.found(ctx, s, t, q.TopK)
}

// Master is Find in all that another company, the operator's, has shared. by asks:
// its embedder embeds the question, and nobody else's.
func (r *Retriever) Master(ctx context.Context, s, by tenant.Scope, q Query) (Found, error) {
	finding, cancel := context.WithTimeout(ctx, r.o.Deadline)
	defer cancel()
	stores, err := r.o.Library.FindStores(finding, s, nil)
	if err != nil {
		return Found{Missing: err}, nil
	}
	q.Stores = slices.DeleteFunc(stores, func(st Store) bool { return !st.Shared })
	best, missing, err := r.rank(ctx, s, by, &q, r.o.Deadline)
	if err != nil {
		return Found{}, err
	}
	return r.found(ctx, s, turn{best, missing}, q.TopK)
}

// rank returns what fits, the best first. s is whose stores are searched, by who
// asks: the same, but for the operator's.
func (r *Retriever) rank(ctx context.Context, s, by tenant.Scope, q *Query, within time.Duration) (best []match, missing, err error) {
	s.ID()
	texts := questions(q.Text)
	if len(q.Stores) == 0 || len(texts) == 0 || q.TopK < 1 {
		return nil, nil, nil
	}
	may, err := r.narrow(ctx, s, q)
	if err != nil || may != nil && may.none() {
		return nil, nil, err
	}
	lists, missing := r.lists(ctx, s, by, q, texts, may, within)
	if ctx.Err() != nil {
		return nil, nil, ctx.Err()
	}
	return fuse(lists, q.MinScore), missing, nil
}

// found reads back the n best.
func (r *Retriever) found(ctx context.Context, s tenant.Scope, t turn, n int) (found Found, err error) {
	found.Missing = t.missing
	found.Passages, err = r.read(ctx, s, t.best, n)
	if err == nil && len(found.Passages) > 0 {
		err = r.o.Library.Touched(ctx, s, storesOf(found.Passages))
	}
	return found, err
}

func questions(texts []string) (all []string) {
	for _, t := range texts {
		if t = strings.TrimSpace(t); t == "" {
			continue
		}
		if len(t) > maxQuestion {
			t = strings.ToValidUTF8(t[len(t)-maxQuestion:], "") // what is asked stands at the end
		}
		all = append(all, t)
	}
	return all
}

func storesOf(all []Passage) (ids []string) {
	for i := range all {
		if !slices.Contains(ids, all[i].StoreID) {
			ids = append(ids, all[i].StoreID)
		}
	}
	return ids
}

// allowed are the files that a filter lets through, by store.
type allowed map[string]map[string]bool

func (a allowed) may(store, file string) bool { return a == nil || a[store][file] }

func (a allowed) none() bool {
	for _, files := range a {
		if len(files) > 0 {
			return false
		}
	}
	return true
}

// files returns the ids of all of them.
func (a allowed) files() []string {
	if a == nil {
		return nil
	}
	all := []string{}
	for _, files := range a {
		for id := range files {
			all = append(all, id)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// narrow returns the files that the query's filter lets through, nil for all. It
// reads the attributes as they now are: changing one changes no version.
func (r *Retriever) narrow(ctx context.Context, s tenant.Scope, q *Query) (allowed, error) {
	if q.Filter == nil {
		return nil, nil
	}
	all := allowed{}
	for i := range q.Stores {
		files, err := r.o.Library.Contents(ctx, s, q.Stores[i].ID)
		if err != nil {
			return nil, err
		}
		some := map[string]bool{}
		for j := range files {
			if q.Filter.Match(files[j].Attributes) {
				some[files[j].FileID] = true
			}
		}
		all[q.Stores[i].ID] = some
	}
	return all, nil
}

// candidates is how many of each list take part in the fusion.
func (q *Query) candidates() int { return min(max(4*q.TopK, 40), 200) }

// lists asks vectors and keywords side by side. The deadline begins when the
// question is embedded.
func (r *Retriever) lists(ctx context.Context, s, by tenant.Scope, q *Query, texts []string, may allowed, within time.Duration) (lists [][]match, missing error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	deadline := sync.OnceFunc(func() { time.AfterFunc(within, cancel) })
	var dense [][]match
	var denseErr, wordsErr error
	var byWord []match
	var group sync.WaitGroup
	group.Go(func() { dense, denseErr = r.dense(ctx, s, by, q, texts, may, deadline) })
	group.Go(func() { byWord, wordsErr = r.byWord(ctx, s, q, texts, may) })
	group.Wait()
	if id := r.o.Embedder.ID(by); len(dense) > 0 && id != LexicalID {
		// A model knows better than one word that two texts have by chance. What
		// fits by its words fits by most of them.
		byWord = slices.DeleteFunc(byWord, func(m match) bool { return m.score < leastWords })
	}
	if len(byWord) > 0 {
		lists = append(lists, byWord)
	}
	return append(lists, dense...), errors.Join(denseErr, wordsErr)
}

func (r *Retriever) byWord(ctx context.Context, s tenant.Scope, q *Query, texts []string, may allowed) ([]match, error) {
	var all []storeWords
	for i := range q.Stores {
		w, err := r.words.of(ctx, s, &q.Stores[i])
		if err != nil {
			return nil, err
		}
		all = append(all, w)
	}
	return searchWords(texts, all, may.may, q.candidates()), nil
}

// dense returns the nearest chunks for each of the texts. Stores whose vectors are
// not of the embedder there is now are being made anew, and found by keywords.
func (r *Retriever) dense(ctx context.Context, s, by tenant.Scope, q *Query, texts []string, may allowed, embedded func()) (lists [][]match, err error) {
	defer embedded()
	id := r.o.Embedder.ID(by)
	var stores []vector.Store
	dim, stale := 0, false
	for i := range q.Stores {
		st := &q.Stores[i]
		if st.EmbedderID == id && st.Dimension > 0 && (dim == 0 || dim == st.Dimension) {
			dim = st.Dimension
			stores = append(stores, vector.Store{ID: st.ID, Version: st.Version, Stamp: st.VisibleStamp})
		}
		stale = stale || st.EmbedderID != "" && st.EmbedderID != id
	}
	if stale && !by.Test() && s == by {
		if err := r.o.Library.Stale(ctx, s); err != nil {
			return nil, err
		}
	}
	if len(stores) == 0 || q.Keyword || by.Test() && id != LexicalID {
		return nil, nil // a test key asks nobody outside
	}
	for _, text := range texts {
		v, err := r.vector(ctx, by, id, text)
		if err != nil {
			return lists, err
		}
		if len(v) != dim {
			continue // the model was changed behind its name
		}
		embedded()
		hits, err := r.o.Index.Search(ctx, s, vector.Space{Embedder: id, Dim: dim}, vector.Query{
			Vector: v, Stores: stores, Files: may.files(), Limit: q.candidates(),
		})
		if err != nil {
			return lists, err
		}
		list := make([]match, 0, len(hits))
		for _, h := range hits {
			if may.may(h.Store, h.File) {
				list = append(list, match{Ref{h.Store, h.File, h.Chunk}, float64(h.Score)})
			}
		}
		lists = append(lists, list)
	}
	return lists, nil
}

// vector embeds a question, or takes the vector of one that was asked before by
// the same company.
func (r *Retriever) vector(ctx context.Context, s tenant.Scope, id, text string) ([]float32, error) {
	sum := sha256.Sum256([]byte(text))
	key := vector.CacheKey{Company: s.ID().String(), Store: hex.EncodeToString(sum[:]), Kind: id}
	return r.queries.Get(ctx, key, 0, func(ctx context.Context, _ []float32) ([]float32, int64, error) {
		all, made, err := r.o.Embedder.Embed(ctx, s, []string{text})
		switch {
		case err != nil:
			return nil, 0, err
		case len(all) != 1 || made != id:
			return nil, 0, fault.New(fault.Unavailable, "The embedding model is being changed.")
		}
		return all[0], int64(4 * len(all[0])), nil
	})
}

// fuse joins lists by rank. The score of what comes out is the better of what its
// lists say, for ranks alone say nothing about how well a passage fits; what is
// below least is left out.
func fuse(lists [][]match, least float64) []match {
	type sums struct{ rank, score float64 }
	all := map[Ref]sums{}
	for _, list := range lists {
		for i, m := range list {
			x := all[m.Ref]
			x.rank += 1 / float64(rankK+i+1)
			x.score = max(x.score, min(m.score, 1))
			all[m.Ref] = x
		}
	}
	ranked := make([]match, 0, len(all))
	for ref, x := range all {
		if x.score > 0 && x.score >= least {
			ranked = append(ranked, match{ref, x.rank})
		}
	}
	sortMatches(ranked)
	last := 1.0
	for i := range ranked {
		last = min(last, all[ranked[i].Ref].score) // falling, as Passage says
		ranked[i].score = last
	}
	return ranked
}

// read reads back the best of what was found, at most n passages.
func (r *Retriever) read(ctx context.Context, s tenant.Scope, best []match, n int) (passages []Passage, err error) {
	for len(best) > 0 && len(passages) < n {
		some := best[:min(len(best), n-len(passages))]
		best = best[len(some):]
		refs := make([]Ref, len(some))
		for i := range some {
			refs[i] = some[i].Ref
		}
		chunks, err := r.o.Library.ReadChunks(ctx, s, refs)
		if err != nil {
			return nil, err
		}
		at := 0
		for _, m := range some {
			if at < len(chunks) && chunks[at].Ref == m.Ref {
				passages = append(passages, Passage{chunks[at], m.score})
				at++
				continue
			}
			if err := r.missed(ctx, s, m.Ref); err != nil {
				return nil, err
			}
		}
	}
	return passages, nil
}

// missed looks at a hit that the store does not have: a file that is on its way in
// or out, or what should not be in the company's part of the index at all.
func (r *Retriever) missed(ctx context.Context, s tenant.Scope, ref Ref) error {
	tracked, err := r.o.Tracked(ctx, s, ref.StoreID, ref.FileID)
	if err == nil && !tracked {
		r.o.Violation()
	}
	return err
}
