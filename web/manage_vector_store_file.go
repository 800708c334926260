package web

import (
	"encoding/json"

	"bulkhead/audit"
	"bulkhead/fault"
	"bulkhead/openai"
	"bulkhead/rag"
)

// storeFileObject is OpenAI's vector store file object.
type storeFileObject struct {
	ID               string          `json:"id"`
	Object           string          `json:"object"`
	CreatedAt        int64           `json:"created_at"`
	VectorStoreID    string          `json:"vector_store_id"`
	Status           rag.Status      `json:"status"`
	UsageBytes       int64           `json:"usage_bytes"`
	LastError        *lastError      `json:"last_error"`
	Attributes       rag.Attributes  `json:"attributes"`
	ChunkingStrategy *chunkingObject `json:"chunking_strategy"`
}

type lastError struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

// chunkingObject is OpenAI's chunking_strategy. What auto came to is told as static.
type chunkingObject struct {
	Type   string        `json:"type"`
	Static *chunkingSize `json:"static,omitempty"`
}

type chunkingSize struct {
	MaxChunkSizeTokens int `json:"max_chunk_size_tokens"`
	ChunkOverlapTokens int `json:"chunk_overlap_tokens"`
}

func toStoreFile(h rag.StoreFile) storeFileObject {
	o := storeFileObject{ID: h.FileID, Object: "vector_store.file", CreatedAt: h.CreatedAt.Unix(), VectorStoreID: h.StoreID, Status: h.Status,
		UsageBytes: h.Bytes, Attributes: h.Attributes,
		ChunkingStrategy: &chunkingObject{"static", &chunkingSize{h.Chunking.Tokens, h.Chunking.Overlap}}}
	if o.Attributes == nil {
		o.Attributes = rag.Attributes{}
	}
	if h.Error != nil {
		o.LastError = &lastError{h.Error.Code, h.Error.Message}
	}
	return o
}

// batchObject is OpenAI's file batch object.
type batchObject struct {
	ID            string     `json:"id"`
	Object        string     `json:"object"`
	CreatedAt     int64      `json:"created_at"`
	VectorStoreID string     `json:"vector_store_id"`
	Status        rag.Status `json:"status"`
	FileCounts    fileCounts `json:"file_counts"`
}

func toBatch(b rag.Batch) batchObject {
	o := batchObject{ID: b.ID, Object: "vector_store.files_batch", CreatedAt: b.CreatedAt.Unix(), VectorStoreID: b.StoreID,
		Status: rag.Completed, FileCounts: toCounts(b.Counts)}
	switch {
	case b.Cancelled:
		o.Status = rag.Cancelled
	case b.Counts.InProgress > 0:
		o.Status = rag.InProgress
	case b.Counts.Failed > 0 && b.Counts.Completed == 0:
		o.Status = rag.Failed
	}
	return o
}

// pollAfter tells the SDKs how long to wait before they look again, in
// milliseconds.
const pollAfter = "400"

func (r *request) pollAgain(status rag.Status) {
	if status == rag.InProgress {
		r.rc.Response.Header.Set("Openai-Poll-After-Ms", pollAfter)
	}
}

// readChunking reads a chunking_strategy; nothing is auto.
func readChunking(raw json.RawMessage) (rag.Chunking, error) {
	if len(raw) == 0 || string(raw) == "null" {
		return rag.AutoChunking(), nil
	}
	var b struct {
		Type   string `json:"type"`
		Static *struct {
			Tokens  *int `json:"max_chunk_size_tokens"`
			Overlap *int `json:"chunk_overlap_tokens"`
		} `json:"static"`
	}
	if err := decodeField("chunking_strategy", raw, &b); err != nil {
		return rag.Chunking{}, err
	}
	switch {
	case b.Type == "auto" && b.Static == nil:
		return rag.AutoChunking(), nil
	case b.Type != "static":
		return rag.Chunking{}, fault.Field("chunking_strategy.type", `type must be "auto", or "static" with the field static.`)
	case b.Static == nil || b.Static.Tokens == nil || b.Static.Overlap == nil:
		return rag.Chunking{}, fault.Field("chunking_strategy.static", "static has max_chunk_size_tokens and chunk_overlap_tokens.")
	}
	c := rag.Chunking{Static: true, Tokens: *b.Static.Tokens, Overlap: *b.Static.Overlap}
	return c, c.Check("chunking_strategy")
}

// maxBatch is how many files are put into a store at once: OpenAI's bound.
const maxBatch = 2000

// newStoreFiles makes files for a store, all with the same attributes and chunking.
func (g *Gateway) newStoreFiles(store, batch string, ids []string, a rag.Attributes, chunking json.RawMessage) ([]rag.StoreFile, error) {
	if len(ids) > maxBatch {
		return nil, fault.Field("file_ids", "There are more than %d files.", maxBatch)
	}
	c, err := readChunking(chunking)
	if err != nil {
		return nil, err
	}
	if err := rag.CheckAttributes("attributes", a); err != nil {
		return nil, err
	}
	files := make([]rag.StoreFile, len(ids))
	for i, id := range ids {
		files[i] = rag.StoreFile{StoreID: store, FileID: id, BatchID: batch, Attributes: a, Chunking: c, CreatedAt: g.now()}
	}
	return files, nil
}

func (g *Gateway) attachFile(r *request) (any, error) {
	var b struct {
		FileID           string          `json:"file_id"`
		Attributes       rag.Attributes  `json:"attributes"`
		ChunkingStrategy json.RawMessage `json:"chunking_strategy"`
	}
	if err := r.decode(&b); err != nil {
		return nil, err
	}
	if b.FileID == "" {
		return nil, fault.Field("file_id", "file_id is required.")
	}
	v, err := g.ownStore(r)
	if err != nil {
		return nil, err
	}
	files, err := g.newStoreFiles(v.ID, "", []string{b.FileID}, b.Attributes, b.ChunkingStrategy)
	if err != nil {
		return nil, err
	}
	if err := g.Knowledge.Files.AttachFiles(r.ctx, r.scope, v.ID, files, nil, r.settings.Knowledge.Quota); err != nil {
		return nil, err
	}
	return g.storeFile(r, v.ID, b.FileID)
}

func (g *Gateway) storeFile(r *request, store, file string) (any, error) {
	h, err := g.Knowledge.Files.StoreFile(r.ctx, r.scope, store, file)
	r.pollAgain(h.Status)
	return toStoreFile(h), err
}

func (g *Gateway) getStoreFile(r *request) (any, error) {
	return g.storeFile(r, r.param("store"), r.param("file"))
}

func (g *Gateway) updateStoreFile(r *request) (any, error) {
	var b struct {
		Attributes *rag.Attributes `json:"attributes"`
	}
	if err := r.decode(&b); err != nil {
		return nil, err
	}
	v, err := g.ownStore(r)
	if err != nil {
		return nil, err
	}
	a := rag.Attributes{} // null takes them away
	if b.Attributes != nil {
		a = *b.Attributes
	}
	if err := rag.CheckAttributes("attributes", a); err != nil {
		return nil, err
	}
	h, err := g.Knowledge.Files.SetAttributes(r.ctx, r.scope, v.ID, r.param("file"), a)
	return toStoreFile(h), err
}

func (g *Gateway) detachFile(r *request) (any, error) {
	v, err := g.ownStore(r)
	if err == nil {
		err = g.Knowledge.Files.DetachFile(r.ctx, r.scope, v.ID, r.param("file"))
	}
	return deleted{ID: r.param("file"), Object: "vector_store.file.deleted", Deleted: true}, err
}

// listStoreFiles lists the files of a store, or with the id of one those of a batch.
func (g *Gateway) storeFiles(r *request, batch string) (any, error) {
	p, err := r.page(pageDefault, pageMost)
	if err != nil {
		return nil, err
	}
	status := rag.Status(r.query("filter"))
	switch status {
	case "", rag.InProgress, rag.Completed, rag.Failed, rag.Cancelled:
	default:
		return nil, fault.Field("filter", "filter must be in_progress, completed, failed or cancelled.")
	}
	if _, err := g.Knowledge.Files.VectorStore(r.ctx, r.scope, r.param("store")); err != nil {
		return nil, err // and not that the cursor is not there
	}
	if batch != "" {
		if _, err := g.Knowledge.Files.Batch(r.ctx, r.scope, r.param("store"), batch); err != nil {
			return nil, err
		}
	}
	items, more, err := g.Knowledge.Files.StoreFiles(r.ctx, r.scope, r.param("store"), batch, status, p)
	return listed(p, items, more, err, toStoreFile, func(o storeFileObject) string { return o.ID })
}

func (g *Gateway) listStoreFiles(r *request) (any, error) { return g.storeFiles(r, "") }

func (g *Gateway) listBatchFiles(r *request) (any, error) { return g.storeFiles(r, r.param("batch")) }

// chunksAtOnce is how many chunks are read at one time.
const chunksAtOnce = 500

// getStoreFileContent returns the text of a file as it is searched: chunk by chunk,
// with what they repeat of one another.
func (g *Gateway) getStoreFileContent(r *request) (any, error) {
	h, err := g.Knowledge.Files.StoreFile(r.ctx, r.scope, r.param("store"), r.param("file"))
	if err != nil {
		return nil, err
	}
	g.Audit.Read(audit.Proved(r.scope), "vector_store_file")
	page := textPage[textContent]{Object: "vector_store.file_content.page", Data: []textContent{}}
	for {
		some, err := g.Knowledge.Library.FileChunks(r.ctx, r.scope, h.StoreID, h.FileID, len(page.Data), chunksAtOnce)
		if err != nil {
			return nil, err
		}
		for _, c := range some {
			page.Data = append(page.Data, textContent{"text", c.Text})
		}
		if len(some) < chunksAtOnce {
			return page, nil
		}
	}
}

func (g *Gateway) createBatch(r *request) (any, error) {
	var b struct {
		FileIDs          []string        `json:"file_ids"`
		Attributes       rag.Attributes  `json:"attributes"`
		ChunkingStrategy json.RawMessage `json:"chunking_strategy"`
		Files            []struct {
			FileID           string          `json:"file_id"`
			Attributes       rag.Attributes  `json:"attributes"`
			ChunkingStrategy json.RawMessage `json:"chunking_strategy"`
		} `json:"files"`
	}
	if err := r.decode(&b); err != nil {
		return nil, err
	}
	if (len(b.FileIDs) == 0) == (len(b.Files) == 0) {
		return nil, fault.Field("file_ids", "A batch has either file_ids or files, at least one.")
	}
	if len(b.Files) > maxBatch {
		return nil, fault.Field("files", "There are more than %d files.", maxBatch)
	}
	v, err := g.ownStore(r)
	if err != nil {
		return nil, err
	}
	batch := rag.Batch{ID: openai.NewID("vsfb_"), StoreID: v.ID, CreatedAt: g.now()}
	files, err := g.newStoreFiles(v.ID, batch.ID, b.FileIDs, b.Attributes, b.ChunkingStrategy)
	if err != nil {
		return nil, err
	}
	for _, f := range b.Files {
		one, err := g.newStoreFiles(v.ID, batch.ID, []string{f.FileID}, f.Attributes, f.ChunkingStrategy)
		if err != nil {
			return nil, err
		}
		files = append(files, one...)
	}
	if err := g.Knowledge.Files.AttachFiles(r.ctx, r.scope, v.ID, files, &batch, r.settings.Knowledge.Quota); err != nil {
		return nil, err
	}
	return g.batch(r, batch.ID)
}

func (g *Gateway) batch(r *request, id string) (any, error) {
	b, err := g.Knowledge.Files.Batch(r.ctx, r.scope, r.param("store"), id)
	o := toBatch(b)
	r.pollAgain(o.Status)
	return o, err
}

func (g *Gateway) getBatch(r *request) (any, error) { return g.batch(r, r.param("batch")) }

func (g *Gateway) cancelBatch(r *request) (any, error) {
	v, err := g.ownStore(r)
	if err != nil {
		return nil, err
	}
	b, err := g.Knowledge.Files.CancelBatch(r.ctx, r.scope, v.ID, r.param("batch"))
	return toBatch(b), err
}
