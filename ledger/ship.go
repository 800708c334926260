package ledger

import (
	"context"
	"errors"
	"time"

	"bulkhead/tenant"
)

// run is the shipper. It alone takes from the queue, so what it took stays at
// the head of its lines until the store has it.
func (l *Ledger) run() {
	defer close(l.done)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for l.ctx.Err() == nil {
		wait := sooner(l.rewrite(), l.resolve())
		l.mu.Lock()
		parts, w := l.q.take(&l.o, time.Now(), l.hurry > 0)
		l.mu.Unlock()
		if len(parts) > 0 {
			l.ship(parts)
			l.carryCloses()
			continue
		}
		var alarm <-chan time.Time
		if wait = sooner(wait, w); wait > 0 {
			timer.Reset(wait)
			alarm = timer.C
		}
		select {
		case <-l.kick:
		case <-alarm:
		case <-l.ctx.Done():
		}
	}
}

// triesApart is how many companies of a batch that failed are tried by
// themselves before the store is taken to be away.
const triesApart = 3

// ship sends parts as one batch. If the store refuses that, each company's part
// is sent by itself: entries of one company that the store will not take (its
// rows are gone, say) must not hold up all others.
func (l *Ledger) ship(parts []part) {
	loads := l.load(parts)
	if l.send(loads) {
		l.settle(loads, nil, true)
		return
	}
	if len(loads) == 1 {
		l.settle(nil, loads, loads[0].suspect)
		return
	}
	var good, bad []shipment
	for i := range loads {
		if l.ctx.Err() != nil {
			break
		}
		if l.send(loads[i : i+1]) {
			good = append(good, loads[i])
		} else if bad = append(bad, loads[i]); len(good) == 0 && len(bad) == triesApart {
			break
		}
	}
	l.settle(good, bad, len(good) > 0)
}

// shipment is a part with what it stands for.
type shipment struct {
	part
	scope   tenant.Scope
	suspect bool
	batch   []Booked
	refs    []ref         // of those that are in the journal
	open    []openAttempt // of those that are not, and whose attempts are open there
	unread  int           // could not be read: they are not in batch
}

// load gets the entries of parts, from memory and from the journal.
func (l *Ledger) load(parts []part) []shipment {
	loads := make([]shipment, len(parts))
	l.mu.Lock() // a line's slices may move while an entry is added
	for i, p := range parts {
		d := &loads[i]
		d.part, d.scope, d.suspect = p, p.l.scope, p.l.list == &l.q.suspect
		d.batch = make([]Booked, 0, p.n)
		if p.disk {
			d.refs = append(d.refs, p.l.disk[:p.n]...)
			continue
		}
		for _, w := range p.l.inMemory()[:p.n] {
			d.batch = append(d.batch, Booked{d.scope, w.entry})
			if !w.ref.none() {
				d.refs = append(d.refs, w.ref)
			} else if w.handle != 0 {
				d.open = append(d.open, openAttempt{w.entry.ID, w.handle})
			}
		}
	}
	l.mu.Unlock()
	var c chunk
	for i := range loads {
		if d := &loads[i]; d.disk {
			d.read(l.j, &c)
		}
	}
	return loads
}

// read reads the entries of d from the journal. What cannot be read is left for
// the next start, and does not hold up the company's other entries.
func (d *shipment) read(j *journal, c *chunk) {
	good := d.refs[:0]
	for i, r := range d.refs {
		company, e, err := j.entry(d.refs[i:], c)
		if err == nil && company != d.l.company {
			err = errors.New("an entry in the journal is of another company")
		}
		if err != nil {
			d.unread++
			j.fail(err)
			j.holdBack(r)
			continue
		}
		good = append(good, r)
		d.batch = append(d.batch, Booked{d.scope, e})
	}
	d.refs = good
}

// settle notes the outcome. alive says that the store takes entries, so that
// what it refused is the fault of those.
func (l *Ledger) settle(good, bad []shipment, alive bool) {
	for i := range good {
		l.shipped(&good[i])
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	for _, d := range good {
		l.stats.Shipped += int64(len(d.batch))
		l.stats.Unreadable += int64(d.unread)
		l.q.done(d.part)
	}
	if len(good) > 0 {
		l.q.failures, l.q.retryAt = 0, time.Time{}
	}
	if alive {
		for _, d := range bad {
			l.q.doubt(d.l, &l.o, now)
		}
	} else {
		l.q.failed(&l.o, now)
	}
	l.tell()
}

// shipped tells the journal, and who wants to know, that the store has d. That is
// before the queue forgets d, so that it is done for whoever waits for that.
func (l *Ledger) shipped(d *shipment) {
	l.unpin(d.refs, d.open)
	if l.o.Shipped == nil || len(d.batch) == 0 {
		return
	}
	ids := make([]string, len(d.batch))
	for i := range d.batch {
		ids[i] = d.batch[i].Entry.ID
	}
	l.o.Shipped(d.scope, ids)
}

// unpin tells the journal what it need not keep.
func (l *Ledger) unpin(refs []ref, open []openAttempt) {
	if l.j == nil {
		return
	}
	for _, a := range open {
		l.j.void(a.handle, a.id)
	}
	if len(refs) > 0 {
		l.j.shipped(refs)
	}
}

// send appends the loads to the store and reports whether they are there.
func (l *Ledger) send(loads []shipment) bool {
	batch := loads[0].batch
	if len(loads) > 1 {
		batch = nil
		for i := range loads {
			batch = append(batch, loads[i].batch...)
		}
	}
	if len(batch) == 0 { // nothing in them could be read
		return true
	}
	ctx, cancel := context.WithTimeout(l.ctx, l.o.Timeout)
	err := l.store.AppendEntries(ctx, batch)
	cancel()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stats.Err = err; err != nil {
		l.stats.FailedBatches++
	}
	return err == nil
}
