package vector

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/milvus-io/milvus-proto/go-api/v2/milvuspb"
	"github.com/milvus-io/milvus-sdk-go/v2/client"
	"github.com/milvus-io/milvus-sdk-go/v2/entity"

	"bulkhead/tenant"
)

// MilvusOptions say where Milvus is and bound what is asked of it.
type MilvusOptions struct {
	Addr     string // host:port, or an http or https URL
	User     string
	Password string
	// Prefix of the collections' names; default "bulkhead". Gateways of one store
	// have the same.
	Prefix string
	// Change bounds what ingestion does, with its waiting for the server's tick;
	// default 30 s. A search ends by its context, and at the latest after Search;
	// default 5 s.
	Change, Search time.Duration
	// Violation is told of each hit that is not the company's, or of no store that
	// was searched; nil tells nobody.
	Violation func()
}

// Milvus is an index in a Milvus server, one collection for each number of
// dimensions. The partition key is the company, so a search looks at its partition
// only; that it sees nothing else is for the filter to say and for the results to
// be checked for.
//
// A Milvus that is away keeps nobody waiting: it is dialled in the background, and
// until it is there calls fail at once.
type Milvus struct {
	o    MilvusOptions
	conn link

	mu    sync.Mutex
	ready map[int]chan struct{} // by dimension: closed when the collection is there
	bad   map[int]error
}

// OpenMilvus returns an index that connects when it is first asked.
func OpenMilvus(o MilvusOptions) *Milvus {
	if o.Prefix == "" {
		o.Prefix = "bulkhead"
	}
	if o.Change <= 0 {
		o.Change = 30 * time.Second
	}
	if o.Search <= 0 {
		o.Search = 5 * time.Second
	}
	if o.Violation == nil {
		o.Violation = func() {}
	}
	return &Milvus{o: o, conn: link{o: o}, ready: map[int]chan struct{}{}, bad: map[int]error{}}
}

// Fields of a collection.
const (
	fieldKey     = "pk" // a hash of the company and the Ref
	fieldCompany = "company"
	fieldSpace   = "space"
	fieldStore   = "store"
	fieldFile    = "file"
	fieldChunk   = "chunk"
	fieldVector  = "vector"
)

// What the graph is built with: Milvus' own advice for good recall.
const (
	graphDegree = 16
	buildWidth  = 200
)

func (m *Milvus) collection(dim int) string { return m.o.Prefix + "_v1_" + strconv.Itoa(dim) }

// primaryKey names a vector by company and place. Lengths, not separators, stand
// between the parts: see tenant.Name.
func primaryKey(s tenant.Scope, sp Space, r Ref) string {
	b := s.Name("vector", sp.key()).Append(nil)
	for _, part := range [...]string{r.Store, r.File} {
		b = binary.BigEndian.AppendUint16(b, uint16(len(part)))
		b = append(b, part...)
	}
	b = binary.BigEndian.AppendUint64(b, uint64(r.Chunk))
	sum := sha256.Sum256(b)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// putBatch is how many numbers are sent at once; 16 MB of them.
const putBatch = 4 << 20

// Put implements Index.
func (m *Milvus) Put(ctx context.Context, s tenant.Scope, sp Space, items []Item) error {
	company := s.ID().String()
	if err := checkItems(sp, items); err != nil || len(items) == 0 {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, m.o.Change)
	defer cancel()
	c, err := m.conn.get(ctx)
	if err != nil {
		return err
	}
	if err := m.prepare(ctx, c, sp.Dim); err != nil {
		return err
	}
	for batch := max(putBatch/sp.Dim, 1); len(items) > 0; {
		n := min(batch, len(items))
		if err := m.put(ctx, c, s, company, sp, items[:n]); err != nil {
			return err
		}
		items = items[n:]
	}
	return nil
}

func (m *Milvus) put(ctx context.Context, c *client.GrpcClient, s tenant.Scope, company string, sp Space, items []Item) error {
	n := len(items)
	keys, companies, spaces := make([]string, n), make([]string, n), make([]string, n)
	stores, files, chunks, vectors := make([]string, n), make([]string, n), make([]int64, n), make([][]float32, n)
	space := sp.key()
	for i := range items {
		it := &items[i]
		keys[i], companies[i], spaces[i] = primaryKey(s, sp, it.Ref), company, space
		stores[i], files[i], chunks[i], vectors[i] = it.Store, it.File, int64(it.Chunk), it.Vector
	}
	// Not Upsert: Milvus 2.3 puts what comes by it into a partition that is not the
	// company's, where no search with its filter looks.
	pk := entity.NewColumnVarChar(fieldKey, keys)
	if err := c.DeleteByPks(ctx, m.collection(sp.Dim), "", pk); err != nil {
		return m.conn.failed(ctx, "replace vectors", err)
	}
	_, err := c.Insert(ctx, m.collection(sp.Dim), "", pk,
		entity.NewColumnVarChar(fieldCompany, companies), entity.NewColumnVarChar(fieldSpace, spaces),
		entity.NewColumnVarChar(fieldStore, stores), entity.NewColumnVarChar(fieldFile, files), entity.NewColumnInt64(fieldChunk, chunks),
		entity.NewColumnFloatVector(fieldVector, sp.Dim, vectors))
	return m.conn.failed(ctx, "put vectors", err)
}

// Trim implements Index.
func (m *Milvus) Trim(ctx context.Context, s tenant.Scope, store, file string, from int) error {
	if err := checkIDs(store, file); err != nil {
		return err
	}
	return m.delete(ctx, of(s).store(store).file(file).from(from))
}

// DropStore implements Index.
func (m *Milvus) DropStore(ctx context.Context, s tenant.Scope, store string) error {
	if err := checkIDs(store); err != nil {
		return err
	}
	return m.delete(ctx, of(s).store(store))
}

// delete takes what the filter finds out of every collection.
func (m *Milvus) delete(ctx context.Context, f *filter) error {
	ctx, cancel := context.WithTimeout(ctx, m.o.Change)
	defer cancel()
	return m.each(ctx, func(c *client.GrpcClient, collection string) error {
		return m.conn.failed(ctx, "delete vectors", c.Delete(ctx, collection, "", f.String()))
	})
}

// each gives fn every collection there is, loaded.
func (m *Milvus) each(ctx context.Context, fn func(c *client.GrpcClient, collection string) error) error {
	c, err := m.conn.get(ctx)
	if err != nil {
		return err
	}
	all, err := c.ListCollections(ctx)
	if err != nil {
		return m.conn.failed(ctx, "list collections", err)
	}
	for _, one := range all {
		dim, ok := strings.CutPrefix(one.Name, m.collection(0)[:len(m.collection(0))-1])
		n, err := strconv.Atoi(dim)
		if !ok || err != nil || m.collection(n) != one.Name {
			continue
		}
		if err := m.prepare(ctx, c, n); err != nil {
			return err
		}
		if err := fn(c, one.Name); err != nil {
			return err
		}
	}
	return nil
}

// Settle implements Index: a stamp is taken from the server's clock after all that
// was changed, and what every node that answers has seen by then is seen by every
// later search with that stamp without waiting for a tick.
func (m *Milvus) Settle(ctx context.Context, s tenant.Scope, store string) (stamp uint64, err error) {
	if err := checkIDs(store); err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, m.o.Change)
	defer cancel()
	c, err := m.conn.get(ctx)
	if err != nil {
		return 0, err
	}
	clock, err := c.Service.AllocTimestamp(ctx, &milvuspb.AllocTimestampRequest{})
	if err == nil && clock.GetStatus().GetReason() != "" {
		err = errors.New(clock.GetStatus().GetReason())
	}
	if err != nil {
		return 0, m.conn.failed(ctx, "ask for the time", err)
	}
	stamp = clock.GetTimestamp()
	f := of(s).store(store)
	return stamp, m.each(ctx, func(c *client.GrpcClient, collection string) error {
		_, err := m.count(ctx, c, collection, f, client.WithSearchQueryConsistencyLevel(entity.ClCustomized), client.WithGuaranteeTimestamp(stamp))
		return err
	})
}

func (m *Milvus) count(ctx context.Context, c *client.GrpcClient, collection string, f *filter, opts ...client.SearchQueryOptionFunc) (int64, error) {
	found, err := c.Query(ctx, collection, nil, f.String(), []string{"count(*)"}, opts...)
	if err != nil {
		return 0, m.conn.failed(ctx, "count vectors", err)
	}
	n, ok := found.GetColumn("count(*)").(*entity.ColumnInt64)
	if !ok || n.Len() != 1 {
		return 0, m.conn.failed(ctx, "count vectors", errors.New("the server counts in another form"))
	}
	return n.Data()[0], nil
}

// Search implements Index.
func (m *Milvus) Search(ctx context.Context, s tenant.Scope, sp Space, q Query) ([]Hit, error) {
	company := s.ID().String()
	if q.nothing() {
		return nil, nil
	}
	if err := q.check(sp); err != nil {
		return nil, err
	}
	f := of(s).space(sp).stores(q.Stores)
	if q.Files != nil {
		f.files(q.Files)
	}
	ctx, cancel := context.WithTimeout(ctx, m.o.Search)
	defer cancel()
	c, err := m.conn.get(ctx)
	if err != nil {
		return nil, err
	}
	if err := m.prepare(ctx, c, sp.Dim); err != nil {
		return nil, err
	}
	param, err := entity.NewIndexHNSWSearchParam(max(64, 2*q.Limit))
	if err != nil {
		return nil, err
	}
	found, err := c.Search(ctx, m.collection(sp.Dim), nil, f.String(), []string{fieldCompany, fieldStore, fieldFile, fieldChunk},
		[]entity.Vector{entity.FloatVector(q.Vector)}, fieldVector, entity.COSINE, q.Limit, param, seeing(q.Stores)...)
	if err != nil {
		return nil, m.conn.failed(ctx, "search", err)
	}
	return m.hits(company, &q, found)
}

// seeing says what a search must see at least: what the newest of the stamps does.
func seeing(stores []Store) []client.SearchQueryOptionFunc {
	var stamp uint64
	for i := range stores {
		stamp = max(stamp, stores[i].Stamp)
	}
	if stamp == 0 {
		return []client.SearchQueryOptionFunc{client.WithSearchQueryConsistencyLevel(entity.ClBounded)}
	}
	return []client.SearchQueryOptionFunc{client.WithSearchQueryConsistencyLevel(entity.ClCustomized), client.WithGuaranteeTimestamp(stamp)}
}

// hits reads what was found, and looks again at whose it is.
func (m *Milvus) hits(company string, q *Query, found []client.SearchResult) ([]Hit, error) {
	if len(found) == 0 || found[0].ResultCount == 0 { // then Err is not to be trusted
		return nil, nil
	}
	r := found[0]
	if r.Err != nil {
		return nil, fmt.Errorf("cannot read what Milvus found: %w", r.Err)
	}
	companies, ok1 := r.Fields.GetColumn(fieldCompany).(*entity.ColumnVarChar)
	stores, ok2 := r.Fields.GetColumn(fieldStore).(*entity.ColumnVarChar)
	files, ok3 := r.Fields.GetColumn(fieldFile).(*entity.ColumnVarChar)
	chunks, ok4 := r.Fields.GetColumn(fieldChunk).(*entity.ColumnInt64)
	n := r.ResultCount
	if !ok1 || !ok2 || !ok3 || !ok4 || min(companies.Len(), stores.Len(), files.Len(), chunks.Len(), len(r.Scores)) < n {
		return nil, errors.New("cannot read what Milvus found: fields are missing")
	}
	hits := make([]Hit, 0, n)
	for i := range n {
		if companies.Data()[i] != company || !q.has(stores.Data()[i]) {
			m.o.Violation()
			continue
		}
		h := Hit{Ref{stores.Data()[i], files.Data()[i], int(chunks.Data()[i])}, r.Scores[i]}
		if q.MinScore > 0 && h.Score < q.MinScore {
			continue
		}
		hits = append(hits, h)
	}
	sortHits(hits)
	return hits, nil
}

// Erase implements Index.
func (m *Milvus) Erase(ctx context.Context, s tenant.Scope) (left int64, err error) {
	f := of(s)
	if err := m.delete(ctx, f); err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, m.o.Change)
	defer cancel()
	err = m.each(ctx, func(c *client.GrpcClient, collection string) error {
		n, err := m.count(ctx, c, collection, f, client.WithSearchQueryConsistencyLevel(entity.ClStrong))
		left += n
		return err
	})
	if err == nil && left > 0 {
		err = fmt.Errorf("%d vectors of the company are left in Milvus", left)
	}
	return left, err
}

// Check implements Index.
func (m *Milvus) Check(ctx context.Context) error {
	_, err := m.Version(ctx)
	return err
}

// Version asks the server which one it is.
func (m *Milvus) Version(ctx context.Context) (string, error) {
	c, err := m.conn.get(ctx)
	if err != nil {
		return "", err
	}
	health, err := c.CheckHealth(ctx)
	if err == nil && !health.IsHealthy {
		err = fmt.Errorf("it is not healthy: %s", strings.Join(health.Reasons, "; "))
	}
	if err != nil {
		return "", m.conn.failed(ctx, "ask for its health", err)
	}
	v, err := c.GetVersion(ctx)
	return v, m.conn.failed(ctx, "ask for its version", err)
}

// Close implements Index.
func (m *Milvus) Close() error { return m.conn.close() }
