package web

import (
	"context"
	"sync"
	"time"

	"bulkhead/blob"
	"bulkhead/fault"
	"bulkhead/openai"
	"bulkhead/rag"
	"bulkhead/tenant"
)

// Files keeps what there is to know of files and vector stores, but for their
// bytes and vectors. A Scope of a project sees what is the project's and what is
// shared with the company, one without a project all of the company's; what it does
// not see, and what it may not change, is tenant.ErrNotFound. Lists are as those of
// Registry.
type Files interface {
	// BeginFile notes a file whose bytes are about to be received. If they are not
	// within an hour it is deleted.
	BeginFile(ctx context.Context, s tenant.Scope, f rag.File, q rag.Quota) error
	// FinishFile shows a file that was received. The company must have room for it.
	FinishFile(ctx context.Context, s tenant.Scope, f rag.File, q rag.Quota) error
	// Files lists files of a purpose, "" for all.
	Files(ctx context.Context, s tenant.Scope, purpose string, p openai.Page) ([]rag.File, bool, error)
	File(ctx context.Context, s tenant.Scope, id string) (rag.File, error)
	// DeleteFile deletes a file, received to its end or not, also from all stores.
	// Its blob and vectors go in the background.
	DeleteFile(ctx context.Context, s tenant.Scope, id string) error

	// CreateVectorStore stores v and puts files into it, all or nothing.
	CreateVectorStore(ctx context.Context, s tenant.Scope, v rag.Store, files []rag.StoreFile, q rag.Quota) error
	VectorStores(ctx context.Context, s tenant.Scope, p openai.Page) ([]rag.Store, bool, error)
	VectorStore(ctx context.Context, s tenant.Scope, id string) (rag.Store, error)
	// UpdateVectorStore stores name, sharing, metadata and expiry of v.
	UpdateVectorStore(ctx context.Context, s tenant.Scope, v rag.Store) (rag.Store, error)
	DeleteVectorStore(ctx context.Context, s tenant.Scope, id string) error

	// AttachFiles puts files into a store, as a batch if there is one, all or nothing.
	// One that is not there is a *rag.NoFileError. One that is in it already is taken
	// in anew.
	AttachFiles(ctx context.Context, s tenant.Scope, store string, files []rag.StoreFile, batch *rag.Batch, q rag.Quota) error
	// StoreFiles lists the files in a store, or of a batch, with a status; "" is any.
	StoreFiles(ctx context.Context, s tenant.Scope, store, batch string, status rag.Status, p openai.Page) ([]rag.StoreFile, bool, error)
	StoreFile(ctx context.Context, s tenant.Scope, store, file string) (rag.StoreFile, error)
	SetAttributes(ctx context.Context, s tenant.Scope, store, file string, a rag.Attributes) (rag.StoreFile, error)
	DetachFile(ctx context.Context, s tenant.Scope, store, file string) error
	Batch(ctx context.Context, s tenant.Scope, store, id string) (rag.Batch, error)
	CancelBatch(ctx context.Context, s tenant.Scope, store, id string) (rag.Batch, error)

	// Backlog says what there is to be done for the company's files.
	Backlog(ctx context.Context, s tenant.Scope) (rag.Backlog, error)
}

// Knowledge is what files and vector stores need. All of it is required.
type Knowledge struct {
	Files   Files
	Library rag.Library
	Blobs   blob.Store
	Index   rag.Index
	Search  rag.Searcher
	Ingest  *rag.Ingester
}

// KnowledgeSettings are what a reload may change of it.
type KnowledgeSettings struct {
	FileBytes        int64 // of one file
	Quota            rag.Quota
	TransfersTotal   int  // files being received or sent at one time
	TransfersCompany int  // the same of one company
	Redirect         bool // downloads go to where the blobs are, if that has addresses
}

// transfers knows which files are being received and sent, by company, so that a
// company's can be ended and none has all the room.
type transfers struct {
	mu        sync.Mutex
	count     int
	companies map[string]map[*transfer]struct{}
}

type transfer struct {
	ctx     context.Context
	cancel  context.CancelFunc
	company string
	of      *transfers
}

// transferTime bounds one.
const transferTime = 30 * time.Minute

var (
	errTransfersTotal   = fault.New(fault.Unavailable, "The gateway is receiving and sending as many files as it can. Try again.").WithCode("transfers_in_flight")
	errTransfersCompany = fault.New(fault.RateLimited, "Your company is sending and receiving too many files at one time. Wait for some to end.").WithCode("transfers_in_flight")
)

func (t *transfers) begin(company string, k *KnowledgeSettings) (*transfer, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case len(t.companies[company]) >= k.TransfersCompany:
		return nil, errTransfersCompany
	case t.count >= k.TransfersTotal:
		return nil, errTransfersTotal
	}
	one := &transfer{company: company, of: t}
	one.ctx, one.cancel = context.WithTimeout(context.Background(), transferTime)
	if t.companies == nil {
		t.companies = map[string]map[*transfer]struct{}{}
	}
	if t.companies[company] == nil {
		t.companies[company] = map[*transfer]struct{}{}
	}
	t.companies[company][one] = struct{}{}
	t.count++
	return one, nil
}

// end may be called twice.
func (one *transfer) end() {
	one.cancel()
	t := one.of
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, there := t.companies[one.company][one]; !there {
		return
	}
	t.count--
	delete(t.companies[one.company], one)
	if len(t.companies[one.company]) == 0 {
		delete(t.companies, one.company)
	}
}

// cancel ends the transfers of a company; of "" all.
func (t *transfers) cancel(company string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for name, all := range t.companies {
		if company == "" || company == name {
			for one := range all {
				one.cancel()
			}
		}
	}
}

func (t *transfers) open() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.count
}

func (t *transfers) busy(company string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.companies[company]) > 0
}

// ingest gives the company its turn at taking files in.
func (u *Upkeep) ingest(ctx context.Context, s tenant.Scope) (time.Time, error) {
	if s.Company().Status != tenant.Active {
		return u.g.now().Add(suspendedPause), nil
	}
	return u.g.Knowledge.Ingest.Turn(ctx, s)
}

// suspendedPause is how often the files of a company are looked at that may not work.
const suspendedPause = time.Minute

// workEvery is how often an erasure looks whether jobs of the company have ended.
const workEvery = 200 * time.Millisecond

// eraseKnowledge removes what the company has outside of the store. The company is
// fenced: no job and no upload begins. Those under way are ended first, wherever
// they are.
func (g *Gateway) eraseKnowledge(ctx context.Context, s tenant.Scope) error {
	k := g.Knowledge
	if k == nil {
		return nil
	}
	g.endKnowledge(s.ID().String())
	tick := time.NewTicker(workEvery)
	defer tick.Stop()
	for {
		b, err := k.Files.Backlog(ctx, s)
		if err != nil {
			return err
		}
		if b.Working == 0 {
			break
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fault.Wrap(fault.Unavailable, ctx.Err(), "Files of the company are still being taken in. The company is fenced; ask for its erasure again.")
		}
	}
	if left, err := k.Index.Erase(ctx, s); err != nil || left != 0 {
		return fault.Wrap(fault.Unavailable, err, "The index still has %d vectors of the company. The company is fenced; ask for its erasure again.", left)
	}
	if err := k.Blobs.Erase(ctx, s); err != nil {
		return fault.Wrap(fault.Unavailable, err, "The company's files could not be removed. The company is fenced; ask for its erasure again.")
	}
	return nil
}

// endKnowledge ends what is under way here for the company's files.
func (g *Gateway) endKnowledge(company string) {
	g.transfers.cancel(company)
	if g.Knowledge != nil {
		g.Knowledge.Ingest.EndCompany(company)
	}
}
