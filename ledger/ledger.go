// Package ledger owns money as facts: the price of each model, what an attempt
// cost, and the entries that say so, on their way to the store.
//
// An attempt that is going to be made first reserves a place for its entry, so
// that what a provider bills is never dropped for want of room:
//
//	slot, err := l.Reserve(s) // before anything is sent; *fault.Error if there is no room
//	defer slot.Cancel()       // gives the place back unless there is an entry
//	err = slot.Open(entry)    // just before the call: from now on it is never forgotten
//	…
//	slot.Record(entry)        // at the end
//
// A goroutine ships entries to the Store in batches and goes on trying while the
// store is away. With a journal, a folder that one process owns, what Open and
// Record were told survives the death of the process: Open puts a record into a
// file, Record another. The next process ships what was recorded, and books what
// was open as swept, at the most it may have cost. Without a journal what a
// process holds in memory is lost if it is killed.
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

// Ledger takes entries and ships them. Its methods may be called from any
// goroutine.
type Ledger struct {
	store     Store
	o         Options
	j         *journal // nil without
	recovered Recovery

	mu         sync.Mutex
	q          queue
	closed     bool
	hurry      int             // Flush and Close that wait
	emptied    []chan struct{} // closed when nothing waits
	ended      []chan struct{} // closed when no place is taken
	rewriteAt  time.Time       // no write to the journal for entries of before, until
	resolveAt  time.Time       // no look-up of a company, until
	unresolved int             // look-ups in a row that failed
	stats      Stats

	kick   chan struct{} // the shipper should look again
	ctx    context.Context
	cancel context.CancelFunc
	done   chan struct{} // the shipper has ended

	closing  sync.Once
	closeErr error
}

// Open returns a Ledger over store and starts its shipper, which Close ends.
// With a journal it first reads what earlier processes left there, which is
// shipped like any other entry: the store need not be there. It fails if another
// process has the journal open, if ctx ends, or if the journal was written by a
// newer version; damage in it is no failure but in Recovered.
func Open(ctx context.Context, store Store, o Options) (*Ledger, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	l := &Ledger{store: store, o: o, kick: make(chan struct{}, 1), done: make(chan struct{})}
	l.q.lines = map[string]*line{}
	if o.Journal != "" {
		if err := l.openJournal(ctx); err != nil {
			return nil, err
		}
	}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	go l.run()
	return l, nil
}

// openJournal takes in what earlier processes left. Where there is no room on
// the disk for more, there may be when that is shipped: nothing is forwarded
// until then.
func (l *Ledger) openJournal(ctx context.Context) error {
	j, found, err := openJournal(ctx, &l.o)
	if err != nil {
		return err
	}
	l.j = j
	r := &l.recovered
	r.Swept, r.Alive, r.CutBytes, r.Damage, r.Aside = len(found.opens), found.alive, found.cut, found.damage, found.aside
	if l.o.Process != "" {
		if r.Earlier, err = j.enlist(l.o.Process, len(found.damage) > 0); err != nil {
			j.fail(err) // nobody is claimed to have done nothing else
		}
	}
	for company, refs := range found.closes {
		r.Closed += len(refs)
		l.q.addFound(l.q.line(company), refs)
	}
	for _, o := range found.opens {
		l.q.add(l.q.line(o.company), waiting{entry: o.entry, since: o.entry.EndedAt, handle: o.handle}, &l.o)
	}
	if err := j.begin(); err != nil {
		j.fail(err)
	}
	l.rewrite()
	j.done = make(chan struct{})
	go j.keep()
	return nil
}

// Slot is a place for the entry of one attempt. It belongs to the attempt and
// is not to be copied or used by two goroutines at once. The zero Slot may be
// cancelled.
type Slot struct {
	l      *Ledger
	s      tenant.Scope
	id     string // of the attempt that was opened, "" before
	handle handle
}

// Reserve takes a place for one entry of the company of s. It does no I/O and
// does not wait. The error is a fault of kind Unavailable: the store has been
// away for so long that all places or the journal, or this company's part of
// them, are taken, or the Ledger is closed. The call must not be forwarded then.
func (l *Ledger) Reserve(s tenant.Scope) (Slot, error) {
	company := s.ID().String()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return Slot{}, fault.New(fault.Unavailable, "The gateway is shutting down.")
	}
	if !l.room(company) {
		l.stats.Refused++
		return Slot{}, l.refused(nil)
	}
	l.q.reserve(s)
	return Slot{l: l, s: s}, nil
}

// room reports whether there is a place for the company. The caller holds the
// lock.
func (l *Ledger) room(company string) bool {
	line := l.q.lines[company]
	if l.q.places >= l.o.Queue || line != nil && line.places >= l.o.CompanyQueue {
		return false
	}
	return l.j == nil || l.j.bytes.Load() < l.o.JournalBytes && (line == nil || line.bytes < l.o.CompanyJournalBytes)
}

func (l *Ledger) refused(cause error) error {
	e := fault.Wrap(fault.Unavailable, cause, "The gateway cannot record calls at the moment. Try again later.")
	e.RetryAfter = l.o.MaxBackoff
	return e
}

// Open writes down that the attempt with the id of e is going to be made, in one
// record and as Options.Sync says. If the process is killed before Record, the
// next one books e as swept, at e.HighNano nano-USD: the most that is held for
// it. The error is a fault of kind Unavailable; the call must not be forwarded
// then. Without a journal Open does nothing.
//
// The strings of e must stay as they are. It panics if the slot holds no place
// or is open already.
func (p *Slot) Open(e Entry) error {
	l := p.l
	if l == nil || p.id != "" || e.ID == "" {
		panic("BUG: an attempt is opened without a place or an id, or twice")
	}
	if l.j != nil {
		h, err := l.j.open(p.s.ID().String(), &e)
		if err != nil {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.stats.Refused++
			return l.refused(err)
		}
		p.handle = h
	}
	p.id = e.ID
	return nil
}

// Record queues e and gives up the slot. With a journal it writes e there, in one
// record and as Options.Sync says; where that fails e waits in memory and is
// written later. It does no other I/O and does not wait. The strings of e must
// stay as they are: none may share memory with a request. It panics on a slot
// that holds no place, because the entry would be lost, and if e has no id or
// another attempt was opened.
func (p *Slot) Record(e Entry) {
	l := p.l
	if l == nil {
		panic("BUG: an entry is recorded without a place")
	}
	if e.ID == "" || p.id != "" && p.id != e.ID {
		panic("BUG: an entry is recorded without an id, or for another attempt than was opened")
	}
	p.l = nil
	company := p.s.ID().String()
	w := waiting{entry: e, handle: p.handle}
	if l.j != nil {
		if r, err := l.j.close(company, &w.entry, p.handle, l.o.Sync == SyncAlways); err == nil {
			w.ref = r
		}
	}
	w.since = time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	line := l.q.lines[company]
	l.q.running--
	l.q.free(line, 1)
	l.q.add(line, w, &l.o)
	if l.q.inRing == 1 || l.q.inRing == l.o.Batch || l.hurry > 0 {
		l.wake()
	}
}

// Cancel gives the place back without an entry. It is for an attempt that was
// not made, opened or not, and does nothing after Record or Cancel.
func (p *Slot) Cancel() {
	l := p.l
	if l == nil {
		return
	}
	p.l = nil
	if l.j != nil {
		l.j.void(p.handle, p.id)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.q.cancel(l.q.lines[p.s.ID().String()])
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
		if l.q.running == 0 {
			closeAll(&l.ended)
		}
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
// are not in the store: with a journal they are in that, else they are lost.
// Calling it again changes nothing and returns the same.
func (l *Ledger) Close(ctx context.Context) error {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.closing.Do(func() {
		err := l.await(ctx, func() bool { return l.q.waiting == 0 && l.q.running == 0 }, &l.ended)
		l.cancel()
		<-l.done
		if l.j != nil {
			if jerr := l.j.end(); jerr != nil && err == nil {
				err = fmt.Errorf("cannot close the journal: %w", jerr)
			}
		}
		l.closeErr = err
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
	l.q.retryAt, l.resolveAt = time.Time{}, time.Time{} // try now, whatever the pause
	for _, line := range l.q.unknown {
		line.retryAt = time.Time{}
	}
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
	return fmt.Errorf("cannot ship the ledger: %d entries wait, %d attempts run: %w", l.q.waiting, l.q.running, err)
}
