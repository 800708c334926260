// Package rag owns what a company knows: its files and vector stores, from the
// bytes of a document to the passages that answer a question.
//
// A file comes into a vector store in steps: it is extracted (extract.go) in a
// child process where its form is hostile, split into chunks (split.go), embedded,
// stored, put into an index, and is found from the moment its row says completed
// (ingest.go). Each step may be repeated: a chunk's name is its store, file and
// place, so who goes on where another gateway was killed makes nothing twice.
//
// The store is the truth. It has the text and the vectors of every chunk; an index
// holds ids and vectors only and can be made anew from it. What an index answers is
// read back through the store, with the Scope of who asks: a foreign hit finds no
// row. Attributes of files are the store's too, so that changing one touches no index.
//
// The package declares what it needs of others (Embedder, Index, Library) and has
// no SQL and no HTTP. What a vector index is belongs to package vector; where the
// bytes of files lie, to package blob.
package rag

import (
	"context"
	"strconv"
	"time"

	"bulkhead/tenant"
)

// Purposes a file may have. OpenAI has more, for what is not served here.
const (
	ForAssistants = "assistants"
	ForUserData   = "user_data"
)

// File is a document as it was uploaded. Its bytes are in a blob of the same id.
type File struct {
	ID        string
	ProjectID string // "": made with an admin key
	CreatedBy string // the id of the key
	Name      string // as the client calls it; never a path of ours
	Purpose   string
	Type      string // media type, of TypeOf
	Bytes     int64
	Shared    bool // with the whole company, not only the project
	Uploading bool // its bytes are not all there: nobody sees it yet
	CreatedAt time.Time
	ExpiresAt time.Time // zero: never
}

// Store is a vector store: files that are searched together.
type Store struct {
	ID           string
	ProjectID    string // "": made with an admin key
	CreatedBy    string
	Name         string
	Description  string
	Shared       bool
	Metadata     map[string]string
	ExpiresDays  int64 // after ActiveAt; 0: never
	CreatedAt    time.Time
	ActiveAt     time.Time // when it was last changed or searched, to the minute
	ExpiresAt    time.Time // zero: never
	Expired      bool      // it is there, and holds nothing any more
	Bytes        int64     // of the text and vectors of its chunks
	Counts       Counts
	EmbedderID   string // what made its vectors; "": it has none
	Dimension    int    // of its vectors
	Version      int64  // is raised with every change of what can be found in it
	VisibleStamp uint64 // what Index.Settle said after the last such change
}

// Counts are files by status.
type Counts struct{ InProgress, Completed, Failed, Cancelled int64 }

// Add adds files of a status.
func (c *Counts) Add(status Status, n int64) {
	switch status {
	case InProgress:
		c.InProgress += n
	case Completed:
		c.Completed += n
	case Failed:
		c.Failed += n
	case Cancelled:
		c.Cancelled += n
	}
}

// Total is the number of all files.
func (c Counts) Total() int64 { return c.InProgress + c.Completed + c.Failed + c.Cancelled }

// Status of a file in a vector store.
type Status string

// The statuses, as the API has them.
const (
	InProgress Status = "in_progress"
	Completed  Status = "completed"
	Failed     Status = "failed"
	Cancelled  Status = "cancelled"
)

// Attributes of a file in a store: strings, float64 and bool; see CheckAttributes.
type Attributes map[string]any

// CategoryKey is the attribute that agents choose by.
const CategoryKey = "category"

// Category returns the file's category, "" if it has none.
func (a Attributes) Category() string {
	c, _ := a[CategoryKey].(string)
	return c
}

// StoreFile is a file in a vector store.
type StoreFile struct {
	StoreID, FileID string
	BatchID         string // the batch that it came with, if any
	Name            string // of the file
	Attributes      Attributes
	Chunking        Chunking
	Status          Status
	Error           *FileError // why it failed
	Bytes           int64      // of the text and vectors of its chunks
	Chunks          int        // how many there are, once it is completed
	Version         int64      // of the store when the file became visible as it is
	CreatedAt       time.Time
}

// Batch is files that were put into a store together.
type Batch struct {
	ID, StoreID string
	CreatedAt   time.Time
	Cancelled   bool
	Counts      Counts
}

// Quota is how much a company may have.
type Quota struct {
	Files, Bytes int64 // in all
	Stores       int64
	StoreFiles   int64 // in one store
}

// NoFileError says that one of several files is not there, or not to be seen.
type NoFileError struct{ ID string }

func (e *NoFileError) Error() string { return "no file has the id " + strconv.Quote(e.ID) }

// FileError is why a file could not be taken in, as its owner is told.
type FileError struct{ Code, Message string }

// The codes of a FileError.
const (
	ServerError     = "server_error"
	UnsupportedFile = "unsupported_file"
	InvalidFile     = "invalid_file"
)

// Ref names a chunk. Both ids and the place are the same whoever makes it.
type Ref struct {
	StoreID, FileID string
	Index           int // from 0
}

// Chunk is a piece of a file's text in a store, with what belongs to it.
type Chunk struct {
	Ref
	Text       string
	EmbedderID string
	Vector     []float32 // nil where it was not asked for

	// Of its file, where the chunk was read from the store.
	FileName   string
	Attributes Attributes
}

// Embedder makes vectors of texts.
type Embedder interface {
	// ID names what Embed would use for the company now, without a call: model and
	// dimension. Vectors of different ids are never compared.
	ID(s tenant.Scope) string
	// Embed returns a vector for each text, all of the same dimension, and the id
	// of what made them. It books what that cost to the company. An error that is a
	// fault of kind Invalid or Forbidden is for good; others may be tried again.
	Embed(ctx context.Context, s tenant.Scope, texts []string) (vectors [][]float32, id string, err error)
}

// Index is where vectors are searched, as far as ingestion fills it. All of it is
// within the company of the Scope, and may be done again with the same result.
type Index interface {
	// Upsert puts in chunks of one file, in place of those with the same Ref.
	Upsert(ctx context.Context, s tenant.Scope, chunks []Chunk) error
	// Trim removes chunks of a file from an index on; 0 removes the file. Of a file
	// that is not there it does nothing.
	Trim(ctx context.Context, s tenant.Scope, store, file string, from int) error
	// DropStore removes all of a store.
	DropStore(ctx context.Context, s tenant.Scope, store string) error
	// Settle returns once everything that was changed in the store before is seen
	// by searches that are given the stamp, from every gateway.
	Settle(ctx context.Context, s tenant.Scope, store string) (stamp uint64, err error)
	// Erase removes all of the company and returns how much is left: 0, or an error.
	Erase(ctx context.Context, s tenant.Scope) (left int64, err error)
}

// Library is what retrieval reads in the store. It shows a Scope what it may see:
// a project's key the stores of its project and those shared with the company,
// background work and admin keys all of the company's.
type Library interface {
	// FindStores returns those with these ids that the Scope sees and that have not
	// expired, without Counts, in no order; nil ids are all it sees. What it does
	// not see is left out.
	FindStores(ctx context.Context, s tenant.Scope, ids []string) ([]Store, error)
	// Contents returns the completed files of a store, by id: what can be found in
	// it. The chunks of a file with the same Version are the same.
	Contents(ctx context.Context, s tenant.Scope, store string) ([]StoreFile, error)
	// FileChunks returns chunks of a completed file with their vectors, in order,
	// from an index on, at most limit. The Vector of one that the store's embedder
	// did not make is nil: it is on its way.
	FileChunks(ctx context.Context, s tenant.Scope, store, file string, from, limit int) ([]Chunk, error)
	// ReadChunks returns the text of those chunks that the Scope sees and whose file
	// is completed, in the order of refs, without vectors. Others are left out.
	ReadChunks(ctx context.Context, s tenant.Scope, refs []Ref) ([]Chunk, error)
	// Touched notes that the stores were searched.
	Touched(ctx context.Context, s tenant.Scope, stores []string) error
	// Stale asks for stores to be embedded anew whose EmbedderID is not what the
	// Embedder has now for the company. It returns at once.
	Stale(ctx context.Context, s tenant.Scope) error
}

// Query is what is searched for in vector stores.
type Query struct {
	Text     []string // one question in one or several ways
	Stores   []Store  // of FindStores, by the Scope that asks
	Filter   *Filter  // of attributes; nil: none
	TopK     int      // at most so many passages
	MinScore float64  // 0..1; passages below are left out
	Keyword  bool     // without vectors
}

// Passage is a chunk that was found, with how well it fits: 0..1, falling.
type Passage struct {
	Chunk
	Score float64
}

// Searcher finds passages. Those of one Query may be of several stores.
type Searcher interface {
	Search(ctx context.Context, s tenant.Scope, q Query) ([]Passage, error)
}
