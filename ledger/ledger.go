// Package ledger owns money as facts: the price of each model, what an attempt
// cost, and the entries that say so, on their way to the store.
//
// An attempt that is going to be made first reserves a place for its entry, so
// that what a provider bills is never dropped for want of room:
//
//	slot, err := l.Reserve(s) // before anything is sent; *fault.Error if there is no room
//	defer slot.Cancel()       // gives the place back unless there is an entry
//	…
//	slot.Record(entry)        // at the end; no I/O
//
// A goroutine ships entries to the Store in batches and goes on trying while the
// store is away. What a process holds in memory is lost if it is killed.
//
// The package does not know budgets (limiter) and asks nobody for a price at
// run time.
package ledger

import (
	"context"
	"fmt"
	"sync"
	"time"

	"bulkhead/fault"
	"bulkhead/tenant"
)

// Options bound a Ledger. Zero values take the defaults.
type Options struct {
	// Queue is how many places there are for entries of attempts that run or
	// wait to be shipped; default 65,536, some 30 MB when all wait.
	Queue int
	// CompanyQueue is one company's share of them; default a quarter.
	CompanyQueue int
	// Batch is how many entries are shipped at once; default 512.
	Batch int
	// Every is how long an entry waits for others to be shipped with; default
	// 50 ms.
	Every time.Duration
	// Timeout is how long the Store may take for a batch; default 10 s.
	Timeout time.Duration
	// MaxBackoff is the longest pause between two tries; default 5 s. The first
	// is Every, and each is twice the one before.
	MaxBackoff time.Duration
}

// Ledger takes entries and ships them. Its methods may be called from any
// goroutine.
type Ledger struct {
	store Store
	o     Options

	mu      sync.Mutex
	q       queue
	closed  bool
	hurry   int             // Flush and Close that wait
	emptied []chan struct{} // closed when nothing waits
	ended   []chan struct{} // closed when no place is taken
	stats   Stats

	kick   chan struct{} // the shipper should look again
	ctx    context.Context
	cancel context.CancelFunc
	done   chan struct{} // the shipper has ended

	closing  sync.Once
	closeErr error
}

// Open returns a Ledger over store and starts its shipper, which Close ends.
func Open(store Store, o Options) *Ledger {
	if o.Queue <= 0 {
		o.Queue = 65_536
	}
	if o.CompanyQueue <= 0 {
		o.CompanyQueue = max(o.Queue/4, 1)
	}
	if o.Batch <= 0 {
		o.Batch = 512
	}
	if o.Every <= 0 {
		o.Every = 50 * time.Millisecond
	}
	if o.Timeout <= 0 {
		o.Timeout = 10 * time.Second
	}
	if o.MaxBackoff <= 0 {
		o.MaxBackoff = 5 * time.Second
	}
	l := &Ledger{store: store, o: o, kick: make(chan struct{}, 1), done: make(chan struct{})}
	l.q.lines = map[tenant.ID]*line{}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	go l.run()
	return l
}

// Slot is a place for the entry of one attempt. It belongs to the attempt and
// is not to be copied or used by two goroutines at once. The zero Slot may be
// cancelled.
type Slot struct {
	l *Ledger
	s tenant.Scope
}

// Reserve takes a place for one entry of the company of s. It does no I/O and
// does not wait. The error is a fault of kind Unavailable: the store has been
// away for so long that all places, or those of this company, are taken, or the
// Ledger is closed. The call must not be forwarded then.
func (l *Ledger) Reserve(s tenant.Scope) (Slot, error) {
	id := s.ID()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return Slot{}, fault.New(fault.Unavailable, "The gateway is shutting down.")
	}
	if l.q.places >= l.o.Queue || l.q.placesOf(id) >= l.o.CompanyQueue {
		l.stats.Refused++
		e := fault.New(fault.Unavailable, "The gateway cannot record calls at the moment. Try again later.")
		e.RetryAfter = l.o.MaxBackoff
		return Slot{}, e
	}
	l.q.reserve(id)
	return Slot{l, s}, nil
}

// Open puts the attempt on record before anything is sent.
func (p *Slot) Open(Entry) error { return nil }

// Record queues e and gives up the slot. It does no I/O and does not wait. The
// strings of e must stay as they are: none may share memory with a request. It
// panics on a slot that holds no place, because the entry would be lost.
func (p *Slot) Record(e Entry) {
	l := p.l
	if l == nil {
		panic("BUG: an entry is recorded without a place")
	}
	p.l = nil
	l.mu.Lock()
	defer l.mu.Unlock()
	l.q.add(Booked{p.s, e}, time.Now())
	if l.q.inRing == 1 || l.q.inRing == l.o.Batch || l.hurry > 0 {
		l.wake()
	}
}

// Cancel gives the place back without an entry. It does nothing after Record
// or Cancel.
func (p *Slot) Cancel() {
	l := p.l
	if l == nil {
		return
	}
	p.l = nil
	l.mu.Lock()
	defer l.mu.Unlock()
	l.q.cancel(p.s.ID())
	l.tell()
}

// wake makes the shipper look again. It does not wait.
func (l *Ledger) wake() {
	select {
	case l.kick <- struct{}{}:
	default:
	}
}

// tell closes the channels of those who wait for what is now so. The caller
// holds the lock.
func (l *Ledger) tell() {
	if l.q.waiting == 0 {
		closeAll(&l.emptied)
	}
	if l.q.places == 0 {
		closeAll(&l.ended)
	}
}

func closeAll(chans *[]chan struct{}) {
	for _, c := range *chans {
		close(c)
	}
	*chans = nil
}

// Flush ships without waiting for more and returns when nothing waits, or with
// an error when ctx ends before. A store that is away is tried once at once.
func (l *Ledger) Flush(ctx context.Context) error {
	return l.await(ctx, func() bool { return l.q.waiting == 0 }, &l.emptied)
}

// Close refuses new attempts, waits for those that run, ships everything and
// ends the shipper. When ctx ends before, it gives up and says how many entries
// are lost. Calling it again changes nothing and returns the same.
func (l *Ledger) Close(ctx context.Context) error {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.closing.Do(func() {
		l.closeErr = l.await(ctx, func() bool { return l.q.places == 0 }, &l.ended)
		l.cancel()
		<-l.done
	})
	return l.closeErr
}

// await hurries the shipper until there is what is waited for, or ctx or the
// Ledger has ended.
func (l *Ledger) await(ctx context.Context, there func() bool, list *[]chan struct{}) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if there() {
		return nil
	}
	c := make(chan struct{})
	*list = append(*list, c)
	l.hurry++
	l.q.retryAt = time.Time{} // try now, whatever the pause
	l.wake()
	l.mu.Unlock()
	var err error
	select {
	case <-c:
	case <-ctx.Done():
		err = ctx.Err()
	case <-l.done:
		err = context.Canceled
	}
	l.mu.Lock()
	l.hurry--
	if err == nil || there() {
		return nil
	}
	return fmt.Errorf("cannot ship the ledger: %d entries wait, %d attempts run: %w",
		l.q.waiting, l.q.places-l.q.waiting, err)
}

// Stats are what a Ledger has done and holds.
type Stats struct {
	Reserved      int           // places of attempts that run
	Queued        int           // entries that wait or are being shipped
	Oldest        time.Duration // age of the oldest of them
	Shipped       int64         // entries
	FailedBatches int64         // tries that failed
	Refused       int64         // attempts refused for want of room
	Err           error         // of the last try; nil if it succeeded
}

// Stats returns the figures as they are now.
func (l *Ledger) Stats() Stats {
	l.mu.Lock()
	defer l.mu.Unlock()
	st := l.stats
	st.Queued = l.q.waiting
	st.Reserved = l.q.places - l.q.waiting
	if oldest := l.q.oldest(); !oldest.IsZero() {
		st.Oldest = time.Since(oldest)
	}
	return st
}
