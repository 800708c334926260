package rag

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"bulkhead/fault"
	"bulkhead/tenant"
)

// Job is a piece of work on a file in a store, or on what was deleted.
type Job struct {
	Kind     JobKind
	StoreID  string
	FileID   string
	File     File     // not of Discard
	Chunking Chunking // of Ingest
	Claim    string   // whose it is
	Tries    int      // with this one
}

// JobKind is what there is to be done.
type JobKind uint8

// The kinds of jobs.
const (
	Ingest  JobKind = iota // take a file into a store
	Embed                  // make the vectors of a file anew
	Discard                // remove what was deleted from blobs or index
)

// ErrLost says that a Job is no longer who holds it's: it was cancelled, its
// company was suspended or erased, or its time is over and somebody else has it.
var ErrLost = errors.New("the job is no longer this gateway's")

// Jobs is what is to be done, in the store. A job that is taken is nobody else's
// until its lease is over, and then due again. What is written for a job is
// written only as long as it is held: else it is ErrLost, and nothing was written.
type Jobs interface {
	// TakeJob takes a job of the company that is due, if it has fewer than atOnce
	// under way, at all gateways together. Without one j is nil. next is when to ask
	// again; zero: when something was asked for. embedder is Embedder.ID: stores
	// with other vectors are embedded anew. Files and stores whose time is over go.
	TakeJob(ctx context.Context, s tenant.Scope, lease time.Duration, atOnce int, embedder string) (j *Job, next time.Time, err error)
	// RenewJob holds a job for another lease.
	RenewJob(ctx context.Context, s tenant.Scope, j *Job, lease time.Duration) error
	// JobChunks returns chunks that are stored of the job's file, from an index on.
	JobChunks(ctx context.Context, s tenant.Scope, j *Job, from, limit int) ([]Chunk, error)
	// PutChunks stores chunks, in place of those with the same Ref.
	PutChunks(ctx context.Context, s tenant.Scope, j *Job, chunks []Chunk) error
	// FinishJob makes the file visible, or forgets what was to be discarded. Vectors
	// that are not like those of the store are an error, which counts as a try. It fails
	// with ErrLost too if the store has vectors of another embedder by now.
	FinishJob(ctx context.Context, s tenant.Scope, j *Job, d Done) error
	// FailJob ends an Ingest for good. What there is of the file goes.
	FailJob(ctx context.Context, s tenant.Scope, j *Job, why FileError) error
	// RetryJob gives a job back until a time.
	RetryJob(ctx context.Context, s tenant.Scope, j *Job, at time.Time) error
}

// Backlog is what there is to be done for a company.
type Backlog struct {
	Working int64     // jobs and uploads under way, at all gateways
	Waiting int64     // jobs, those under way too, and what has a time to end
	Next    time.Time // when the next of them is or was due; zero: there are none
}

// Done is what came of a job.
type Done struct {
	EmbedderID string
	Dimension  int
	Chunks     int
	Bytes      int64
	Stamp      uint64
}

// Blobs is where the bytes of files are.
type Blobs interface {
	Open(ctx context.Context, s tenant.Scope, id string) (r io.ReadCloser, size int64, err error)
	Delete(ctx context.Context, s tenant.Scope, id string) error
}

// IngestOptions are what an Ingester works with. Zero figures take the defaults.
type IngestOptions struct {
	Jobs     Jobs
	Blobs    Blobs
	Index    Index
	Embedder Embedder
	// Tokens estimates how many tokens a text has.
	Tokens func([]byte) int64
	// Extract returns the text of a file of a media type. An *ExtractError is for good.
	Extract func(ctx context.Context, mediaType string, r io.Reader) (string, error)

	Total      int           // jobs under way here; default 4
	PerCompany int           // jobs of one company under way everywhere; default 2
	Lease      time.Duration // of a job, renewed while it is done; default 20 s
	Tries      int           // of a file before it has failed; default 8
	Backoff    time.Duration // before the second try, doubled for each one after; default 5 s
	// Failed is told of what went wrong with a job that is tried again.
	Failed func(company string, err error)
}

// Ingester does the jobs of companies that it is sent to.
type Ingester struct {
	o       IngestOptions
	slots   chan struct{}
	working sync.WaitGroup
	ctx     context.Context
	cancel  context.CancelFunc

	mu      sync.Mutex
	running map[string]map[*Job]context.CancelFunc // by company

	done, failed, retried atomic.Int64
}

// NewIngester returns an Ingester that works until Close.
func NewIngester(o IngestOptions) *Ingester {
	o.Total = orElse(o.Total, 4)
	o.PerCompany = orElse(o.PerCompany, 2)
	o.Tries = orElse(o.Tries, 8)
	o.Lease = orElse(o.Lease, 20*time.Second)
	o.Backoff = orElse(o.Backoff, 5*time.Second)
	if o.Failed == nil {
		o.Failed = func(string, error) {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	return &Ingester{o: o, slots: make(chan struct{}, o.Total), ctx: ctx, cancel: cancel, running: map[string]map[*Job]context.CancelFunc{}}
}

func orElse[T int | time.Duration](v, other T) T {
	if v <= 0 {
		return other
	}
	return v
}

// Close ends what is under way, which others go on with, and waits for that. It is
// safe to call twice.
func (in *Ingester) Close() error {
	in.cancel()
	in.working.Wait()
	return nil
}

// EndCompany ends the company's jobs that are under way here.
func (in *Ingester) EndCompany(company string) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, cancel := range in.running[company] {
		cancel()
	}
}

// Busy reports whether a job of the company is under way here.
func (in *Ingester) Busy(company string) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return len(in.running[company]) > 0
}

// IngestStats are counted from the start of the process.
type IngestStats struct {
	Done, Failed, Retried int64
	Running               int
}

// Stats returns what was done so far.
func (in *Ingester) Stats() IngestStats {
	return IngestStats{in.done.Load(), in.failed.Load(), in.retried.Load(), len(in.slots)}
}

// Turn waits until there is room for a job, begins one of the company's if one is
// due, and returns when its next turn should be (zero: when something is asked
// for). So companies that wait take turns, and one with many files waits behind
// those with few.
func (in *Ingester) Turn(ctx context.Context, s tenant.Scope) (next time.Time, err error) {
	select {
	case in.slots <- struct{}{}:
	case <-ctx.Done():
		return next, ctx.Err()
	case <-in.ctx.Done():
		return next, in.ctx.Err()
	}
	began := false
	defer func() {
		if !began {
			<-in.slots
		}
	}()
	j, next, err := in.o.Jobs.TakeJob(ctx, s, in.o.Lease, in.o.PerCompany, in.o.Embedder.ID(s))
	if err != nil || j == nil {
		return next, err
	}
	began = true
	in.working.Go(func() {
		defer func() { <-in.slots }()
		in.do(s, j)
	})
	return next, nil
}

// endTime bounds what is written of a job that was broken off.
const endTime = 5 * time.Second

// do does one job and writes down what came of it.
func (in *Ingester) do(s tenant.Scope, j *Job) {
	company := s.ID().String()
	ctx, cancel := context.WithCancel(in.ctx)
	defer cancel()
	in.note(company, j, cancel)
	defer in.note(company, j, nil)
	held := make(chan struct{})
	go func() { defer close(held); in.hold(ctx, cancel, s, j) }()
	err := in.one(ctx, s, j)
	stopped := ctx.Err() != nil
	cancel()
	<-held

	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTime)
	defer cancel()
	extract, forGood := errors.AsType[*ExtractError](err)
	switch {
	case err == nil:
		in.done.Add(1)
		return
	case errors.Is(err, ErrLost):
		return
	case stopped: // somebody else goes on at once
		err = in.o.Jobs.RetryJob(ending, s, j, time.Now())
	case forGood && j.Kind == Ingest:
		in.failed.Add(1)
		err = in.o.Jobs.FailJob(ending, s, j, FileError(*extract))
	case j.Kind == Ingest && j.Tries >= in.o.Tries:
		in.failed.Add(1)
		in.o.Failed(company, err)
		err = in.o.Jobs.FailJob(ending, s, j, FileError{ServerError, giveUp(err)})
	default:
		in.retried.Add(1)
		in.o.Failed(company, err)
		err = in.o.Jobs.RetryJob(ending, s, j, time.Now().Add(in.wait(j.Tries)))
	}
	if err != nil && !errors.Is(err, ErrLost) {
		in.o.Failed(company, err) // its lease ends
	}
}

// giveUp is what the owner of a file is told where trying again was of no use.
func giveUp(err error) string {
	if f, ok := errors.AsType[*fault.Error](err); ok {
		return f.Message
	}
	return "The file could not be taken in. Try again later."
}

// longestWait bounds the time between two tries.
const longestWait = 10 * time.Minute

// wait returns how long to wait after so many tries.
func (in *Ingester) wait(tries int) time.Duration {
	return min(in.o.Backoff<<min(max(tries-1, 0), 20), longestWait)
}

func (in *Ingester) note(company string, j *Job, cancel context.CancelFunc) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if cancel == nil {
		delete(in.running[company], j)
		if len(in.running[company]) == 0 {
			delete(in.running, company)
		}
		return
	}
	if in.running[company] == nil {
		in.running[company] = map[*Job]context.CancelFunc{}
	}
	in.running[company][j] = cancel
}

// hold keeps the job this gateway's, and ends it where it is not any more.
func (in *Ingester) hold(ctx context.Context, cancel context.CancelFunc, s tenant.Scope, j *Job) {
	sure := time.Now().Add(in.o.Lease)
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(in.o.Lease / 4):
		}
		asked := time.Now()
		err := in.o.Jobs.RenewJob(ctx, s, j, in.o.Lease)
		switch {
		case err == nil:
			sure = asked.Add(in.o.Lease)
		case errors.Is(err, ErrLost), time.Now().After(sure.Add(-in.o.Lease / 4)):
			cancel()
			return
		}
	}
}

// one does the job; a panic becomes an error.
func (in *Ingester) one(ctx context.Context, s tenant.Scope, j *Job) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	switch j.Kind {
	case Discard:
		return in.discard(ctx, s, j)
	case Embed:
		return in.embedAnew(ctx, s, j)
	}
	return in.ingest(ctx, s, j)
}

func (in *Ingester) discard(ctx context.Context, s tenant.Scope, j *Job) (err error) {
	switch {
	case j.StoreID == "":
		err = in.o.Blobs.Delete(ctx, s, j.FileID)
	case j.FileID == "":
		err = in.o.Index.DropStore(ctx, s, j.StoreID)
	default:
		err = in.o.Index.Trim(ctx, s, j.StoreID, j.FileID, 0)
	}
	if err != nil {
		return err
	}
	return in.o.Jobs.FinishJob(ctx, s, j, Done{})
}

// ingest takes a file into a store.
func (in *Ingester) ingest(ctx context.Context, s tenant.Scope, j *Job) error {
	r, _, err := in.o.Blobs.Open(ctx, s, j.FileID)
	if err != nil {
		return err
	}
	text, err := in.o.Extract(ctx, j.File.Type, r)
	r.Close()
	if err != nil {
		return err
	}
	pieces := Split(text, j.Chunking, in.o.Tokens)
	if len(pieces) == 0 {
		return &ExtractError{InvalidFile, "There is no text in the file."}
	}
	if len(pieces) > maxChunks {
		return &ExtractError{InvalidFile, fmt.Sprintf("The file has more than %d chunks. Split it, or choose larger chunks.", maxChunks)}
	}
	return in.put(ctx, s, j, len(pieces), func(from, to int) ([]string, error) { return pieces[from:to], nil })
}

// embedAnew makes the vectors of the chunks that are stored.
func (in *Ingester) embedAnew(ctx context.Context, s tenant.Scope, j *Job) error {
	n := 0
	for {
		some, err := in.o.Jobs.JobChunks(ctx, s, j, n, embedBatch)
		if err != nil {
			return err
		}
		n += len(some)
		if len(some) < embedBatch {
			break
		}
	}
	return in.put(ctx, s, j, n, func(from, to int) (texts []string, err error) {
		some, err := in.o.Jobs.JobChunks(ctx, s, j, from, to-from)
		for _, c := range some {
			texts = append(texts, c.Text)
		}
		return texts, err
	})
}

const (
	embedBatch = 64     // chunks that are embedded and stored together
	maxChunks  = 20_000 // of one file in one store
)

// put embeds n texts, stores them and puts them into the index, some at a time.
// What an earlier try has stored is not embedded again.
func (in *Ingester) put(ctx context.Context, s tenant.Scope, j *Job, n int, texts func(from, to int) ([]string, error)) error {
	d := Done{EmbedderID: in.o.Embedder.ID(s), Chunks: n}
	for from := 0; from < n; from += embedBatch {
		some, err := texts(from, min(from+embedBatch, n))
		if err != nil {
			return err
		}
		chunks, err := in.vectors(ctx, s, j, from, some, d.EmbedderID)
		if err != nil {
			return err
		}
		if err := in.o.Index.Upsert(ctx, s, chunks); err != nil {
			return err
		}
		for _, c := range chunks {
			d.Bytes += int64(len(c.Text)) + 4*int64(len(c.Vector))
			d.Dimension = len(c.Vector)
		}
	}
	if err := in.o.Index.Trim(ctx, s, j.StoreID, j.FileID, n); err != nil {
		return err
	}
	stamp, err := in.o.Index.Settle(ctx, s, j.StoreID)
	if err != nil {
		return err
	}
	d.Stamp = stamp
	return in.o.Jobs.FinishJob(ctx, s, j, d)
}

// vectors returns the chunks of some texts, from an index on, as they are stored
// when it returns.
func (in *Ingester) vectors(ctx context.Context, s tenant.Scope, j *Job, from int, texts []string, embedder string) ([]Chunk, error) {
	stored, err := in.o.Jobs.JobChunks(ctx, s, j, from, len(texts))
	if err != nil {
		return nil, err
	}
	chunks := make([]Chunk, len(texts))
	var missing []string
	var at []int
	for i, text := range texts {
		chunks[i] = Chunk{Ref: Ref{j.StoreID, j.FileID, from + i}, Text: text, EmbedderID: embedder}
		if i < len(stored) && stored[i].Index == from+i && stored[i].Text == text && stored[i].EmbedderID == embedder {
			chunks[i].Vector = stored[i].Vector
			continue
		}
		missing, at = append(missing, text), append(at, i)
	}
	if len(missing) == 0 {
		return chunks, nil
	}
	made, id, err := in.o.Embedder.Embed(ctx, s, missing)
	switch {
	case err != nil:
		return nil, err
	case id != embedder:
		return nil, fmt.Errorf("the embedder has changed from %s to %s meanwhile", embedder, id)
	case len(made) != len(missing):
		return nil, fmt.Errorf("the embedder made %d vectors of %d texts", len(made), len(missing))
	}
	fresh := make([]Chunk, len(at))
	for k, i := range at {
		chunks[i].Vector = made[k]
		fresh[k] = chunks[i]
	}
	return chunks, in.o.Jobs.PutChunks(ctx, s, j, fresh)
}
