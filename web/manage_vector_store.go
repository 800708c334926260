package web

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"unicode/utf8"

	"bulkhead/fault"
	"bulkhead/openai"
	"bulkhead/rag"
	"bulkhead/tenant"
)

// vectorStoreObject is OpenAI's vector store object, with description and whom it is
// shared with beside.
type vectorStoreObject struct {
	ID           string            `json:"id"`
	Object       string            `json:"object"`
	CreatedAt    int64             `json:"created_at"`
	Name         string            `json:"name"`
	Description  string            `json:"description"`
	Status       string            `json:"status"`
	UsageBytes   int64             `json:"usage_bytes"`
	FileCounts   fileCounts        `json:"file_counts"`
	ExpiresAfter *storeExpiry      `json:"expires_after"`
	ExpiresAt    *int64            `json:"expires_at"`
	LastActiveAt int64             `json:"last_active_at"`
	Metadata     map[string]string `json:"metadata"`
	Shared       *string           `json:"shared"`
}

type fileCounts struct {
	InProgress int64 `json:"in_progress"`
	Completed  int64 `json:"completed"`
	Failed     int64 `json:"failed"`
	Cancelled  int64 `json:"cancelled"`
	Total      int64 `json:"total"`
}

func toCounts(c rag.Counts) fileCounts {
	return fileCounts{c.InProgress, c.Completed, c.Failed, c.Cancelled, c.Total()}
}

// storeExpiry is OpenAI's expires_after of vector stores.
type storeExpiry struct {
	Anchor string `json:"anchor"`
	Days   int64  `json:"days"`
}

const maxExpiryDays = 365

// days returns after how many days without use a store expires.
func (e *storeExpiry) days() (int64, error) {
	switch {
	case e == nil:
		return 0, nil
	case e.Anchor != "last_active_at":
		return 0, fault.Field("expires_after.anchor", "anchor must be last_active_at.")
	case e.Days < 1 || e.Days > maxExpiryDays:
		return 0, fault.Field("expires_after.days", "days must be from 1 to %d.", maxExpiryDays)
	}
	return e.Days, nil
}

func toVectorStore(v rag.Store) vectorStoreObject {
	o := vectorStoreObject{ID: v.ID, Object: "vector_store", CreatedAt: v.CreatedAt.Unix(), Name: v.Name, Description: v.Description,
		Status: "completed", UsageBytes: v.Bytes, FileCounts: toCounts(v.Counts), ExpiresAt: unixTime(v.ExpiresAt), LastActiveAt: v.ActiveAt.Unix(),
		Metadata: v.Metadata, Shared: sharedWith(v.Shared)}
	if o.Metadata == nil {
		o.Metadata = map[string]string{}
	}
	if v.ExpiresDays > 0 {
		o.ExpiresAfter = &storeExpiry{"last_active_at", v.ExpiresDays}
	}
	switch {
	case v.Expired:
		o.Status = "expired"
	case v.Counts.InProgress > 0:
		o.Status = "in_progress"
	}
	return o
}

// Bounds of a store's texts: OpenAI's for the name.
const (
	maxStoreName        = 256
	maxStoreDescription = 2000
)

// checkStoreText refuses what neither database could keep alike.
func checkStoreText(field, text string, most int) error {
	if utf8.RuneCountInString(text) > most || !utf8.ValidString(text) || strings.ContainsRune(text, 0) {
		return fault.Field(field, "%s has at most %d characters.", field, most)
	}
	return nil
}

func (g *Gateway) listVectorStores(r *request) (any, error) {
	p, err := r.page(pageDefault, pageMost)
	if err != nil {
		return nil, err
	}
	items, more, err := g.Knowledge.Files.VectorStores(r.ctx, r.scope, p)
	return listed(p, items, more, err, toVectorStore, func(o vectorStoreObject) string { return o.ID })
}

func (g *Gateway) createVectorStore(r *request) (any, error) {
	var b struct {
		Name             string            `json:"name"`
		Description      string            `json:"description"`
		FileIDs          []string          `json:"file_ids"`
		ChunkingStrategy json.RawMessage   `json:"chunking_strategy"`
		ExpiresAfter     *storeExpiry      `json:"expires_after"`
		Metadata         map[string]string `json:"metadata"`
		Shared           *string           `json:"shared"`
	}
	if err := r.decode(&b); err != nil {
		return nil, err
	}
	v := rag.Store{ID: openai.NewID("vs_"), ProjectID: r.scope.ProjectID(), CreatedBy: r.scope.KeyID(), Name: b.Name, Description: b.Description,
		Metadata: b.Metadata, CreatedAt: g.now(), ActiveAt: g.now()}
	if err := errors.Join(checkStoreText("name", b.Name, maxStoreName), checkStoreText("description", b.Description, maxStoreDescription),
		rag.CheckMetadata("metadata", b.Metadata)); err != nil {
		return nil, err
	}
	var err error
	if v.Shared, err = readShared(r.scope, b.Shared); err != nil {
		return nil, err
	}
	if v.ExpiresDays, err = b.ExpiresAfter.days(); err != nil {
		return nil, err
	}
	files, err := g.newStoreFiles(v.ID, "", b.FileIDs, nil, b.ChunkingStrategy)
	if err != nil {
		return nil, err
	}
	if err := g.Knowledge.Files.CreateVectorStore(r.ctx, r.scope, v, files, r.settings.Knowledge.Quota); err != nil {
		return nil, err
	}
	return g.vectorStore(r, v.ID)
}

func (g *Gateway) vectorStore(r *request, id string) (any, error) {
	v, err := g.Knowledge.Files.VectorStore(r.ctx, r.scope, id)
	return toVectorStore(v), err
}

func (g *Gateway) getVectorStore(r *request) (any, error) { return g.vectorStore(r, r.param("store")) }

// ownStore returns the store of the path, for a change.
func (g *Gateway) ownStore(r *request) (rag.Store, error) {
	v, err := g.Knowledge.Files.VectorStore(r.ctx, r.scope, r.param("store"))
	if err == nil {
		err = r.owns(v.ProjectID)
	}
	return v, err
}

func (g *Gateway) updateVectorStore(r *request) (any, error) {
	var b struct {
		Name         *string         `json:"name"`
		ExpiresAfter json.RawMessage `json:"expires_after"`
		Metadata     json.RawMessage `json:"metadata"`
		Shared       json.RawMessage `json:"shared"`
	}
	if err := r.decode(&b); err != nil {
		return nil, err
	}
	v, err := g.ownStore(r)
	if err != nil {
		return nil, err
	}
	if v.Expired {
		return nil, errExpiredStore
	}
	if b.Name != nil {
		if err := checkStoreText("name", *b.Name, maxStoreName); err != nil {
			return nil, err
		}
		v.Name = *b.Name
	}
	if b.ExpiresAfter != nil {
		var e *storeExpiry
		if err := decodeField("expires_after", b.ExpiresAfter, &e); err != nil {
			return nil, err
		}
		if v.ExpiresDays, err = e.days(); err != nil {
			return nil, err
		}
	}
	if b.Metadata != nil {
		v.Metadata = nil
		if err := decodeField("metadata", b.Metadata, &v.Metadata); err != nil {
			return nil, err
		}
		if err := rag.CheckMetadata("metadata", v.Metadata); err != nil {
			return nil, err
		}
	}
	if b.Shared != nil {
		var with *string
		if err := decodeField("shared", b.Shared, &with); err != nil {
			return nil, err
		}
		if v.Shared, err = readShared(r.scope, with); err != nil {
			return nil, err
		}
		v.Shared = v.Shared || v.ProjectID == ""
	}
	v, err = g.Knowledge.Files.UpdateVectorStore(r.ctx, r.scope, v)
	return toVectorStore(v), err
}

var errExpiredStore = fault.New(fault.Invalid, "The vector store has expired.").WithCode("vector_store_expired")

// decodeField decodes one field of a body, which may be null.
func decodeField(name string, raw json.RawMessage, v any) error {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fault.Field(name, "%s has not the form that it must have.", name)
	}
	return nil
}

func (g *Gateway) deleteVectorStore(r *request) (any, error) {
	v, err := g.ownStore(r)
	if err == nil {
		err = g.Knowledge.Files.DeleteVectorStore(r.ctx, r.scope, v.ID)
	}
	return deleted{ID: v.ID, Object: "vector_store.deleted", Deleted: true}, err
}

// Bounds of a search: OpenAI's for the number of results.
const (
	searchDefault = 10
	searchMost    = 50
	queriesMost   = 5
	queryMost     = 8192 // characters
)

// searchResult is one hit of a search.
type searchResult struct {
	FileID     string         `json:"file_id"`
	Filename   string         `json:"filename"`
	Score      float64        `json:"score"`
	Attributes rag.Attributes `json:"attributes"`
	Content    []textContent  `json:"content"`
}

type textContent struct {
	Type string `json:"type"`
	Text string `json:"text"`
}

// textPage is a page that says itself that it is the last.
type textPage[T any] struct {
	Object   string   `json:"object"`
	Query    []string `json:"search_query,omitempty"`
	Data     []T      `json:"data"`
	HasMore  bool     `json:"has_more"`
	NextPage *string  `json:"next_page"`
}

func (g *Gateway) searchVectorStore(r *request) (any, error) {
	var b struct {
		Query          json.RawMessage `json:"query"`
		Filters        json.RawMessage `json:"filters"`
		MaxNumResults  *int            `json:"max_num_results"`
		RewriteQuery   bool            `json:"rewrite_query"` // nothing is rewritten: search_query says what was searched for
		RankingOptions *struct {
			Ranker         string  `json:"ranker"`
			ScoreThreshold float64 `json:"score_threshold"`
		} `json:"ranking_options"`
	}
	if err := r.decode(&b); err != nil {
		return nil, err
	}
	q := rag.Query{TopK: searchDefault}
	var err error
	if q.Text, err = readQuery(b.Query); err != nil {
		return nil, err
	}
	if b.MaxNumResults != nil {
		q.TopK = *b.MaxNumResults
	}
	if q.TopK < 1 || q.TopK > searchMost {
		return nil, fault.Field("max_num_results", "max_num_results must be from 1 to %d.", searchMost)
	}
	if o := b.RankingOptions; o != nil {
		switch o.Ranker {
		case "", "none", "auto", "default-2024-11-15":
		default:
			return nil, fault.Field("ranking_options.ranker", "ranker must be none, auto or default-2024-11-15.")
		}
		if q.MinScore = o.ScoreThreshold; q.MinScore < 0 || q.MinScore > 1 {
			return nil, fault.Field("ranking_options.score_threshold", "score_threshold must be from 0 to 1.")
		}
	}
	if len(b.Filters) > 0 && string(b.Filters) != "null" {
		if q.Filter, err = rag.ParseFilter(b.Filters); err != nil {
			return nil, err
		}
	}
	store := r.param("store")
	if q.Stores, err = g.Knowledge.Library.FindStores(r.ctx, r.scope, []string{store}); err != nil {
		return nil, err
	}
	if len(q.Stores) == 0 {
		if v, err := g.Knowledge.Files.VectorStore(r.ctx, r.scope, store); err == nil && v.Expired {
			return nil, errExpiredStore
		}
		return nil, tenant.ErrNotFound
	}
	found, err := g.Knowledge.Search.Search(r.ctx, r.scope, q)
	if err != nil {
		return nil, err
	}
	if err := g.Knowledge.Library.Touched(r.ctx, r.scope, []string{store}); err != nil {
		return nil, err
	}
	page := textPage[searchResult]{Object: "vector_store.search_results.page", Query: q.Text, Data: []searchResult{}}
	for _, p := range found {
		a := p.Attributes
		if a == nil {
			a = rag.Attributes{}
		}
		page.Data = append(page.Data, searchResult{p.FileID, p.FileName, p.Score, a, []textContent{{"text", p.Text}}})
	}
	return page, nil
}

// readQuery reads a query: one text or several.
func readQuery(raw json.RawMessage) (texts []string, err error) {
	var one string
	if json.Unmarshal(raw, &one) == nil && string(raw) != "null" {
		texts = []string{one}
	} else if json.Unmarshal(raw, &texts) != nil || len(texts) == 0 {
		return nil, fault.Field("query", "query is a text, or an array of texts.")
	}
	if len(texts) > queriesMost {
		return nil, fault.Field("query", "query has more than %d texts.", queriesMost)
	}
	for _, t := range texts {
		if strings.TrimSpace(t) == "" || utf8.RuneCountInString(t) > queryMost {
			return nil, fault.Field("query", "A query has 1 to %d characters.", queryMost)
		}
	}
	return texts, nil
}
