package limiter

import (
	"context"
	"errors"
	"fmt"
	"time"

	"bulkhead/tenant"
)

// How a count begins. What an owner spent in a period before anybody counted it
// is in the store, what runs or has ended just now is known here, and an attempt
// may go from here to there while the store is read. So that it counts once:
//
//   - Under the lock a mark is set: a moment after every hold there was. The
//     counts take in the attempts that are known, running or ended, and follow
//     all that happens from then on like any other.
//   - The Book says what it has of attempts before the mark, without those that
//     were known. Until it has answered every new hold of the company is at the
//     mark or later.
//   - What it says is added, and the counts may be used.
//
// An attempt before the mark was known then, or was in the store for good: it is
// counted here or there. One after the mark is counted here only.
//
// One read at a time is made for a company, of all that is wanted by then; who
// comes meanwhile waits for it, or for the next.

const (
	maxReading = 16   // reads of Books at the same time
	maxSpans   = 1024 // periods in one read
	maxWaiting = 2048 // that wait for one read

	// readPause is how long a company's budgets are not read after a read that
	// failed, in ns: a store that is away is not asked by every call.
	readPause = minute / 300
)

var (
	errNoBook  = errors.New("there is no Book")
	errBusy    = errors.New("too much is being read")
	errPause   = errors.New("a read has failed just now")
	errTimeout = errors.New("the Book did not answer in time")
	errFull    = errors.New("too many windows in the gateway")
	errShare   = errors.New("too many windows of the company")
)

// load is one read.
type load struct {
	wanted  []wanted
	waiting int
	done    chan struct{} // closed when the counts may be used, or
	err     error         // set before
}

type wanted struct {
	kind ownerKind
	id   string
	n    *count
}

// count returns the count of a budget at a moment, which is about to be read if
// it is new.
func (l *Local) count(c *company, b *tenant.Budget, now, at int64) (*count, error) {
	k, id := ownerOf(b)
	from, to := c.periods.of(b, at)
	n := c.counts.find(k, id, from, to)
	if n != nil {
		n.touched = now
		return n, nil
	}
	switch {
	case l.o.Book == nil:
		return nil, errNoBook
	case c.paused(now):
		return nil, errPause
	case c.next != nil && len(c.next.wanted) >= maxSpans:
		return nil, errBusy
	}
	if full, share := l.makeRoom(c, now); full {
		return nil, errFull
	} else if share {
		return nil, errShare
	}
	if c.next == nil {
		c.next = &load{done: make(chan struct{})}
	}
	n = &count{from: from, to: to, load: c.next, touched: now}
	c.counts.add(k, id, n)
	c.nCounts++
	c.next.wanted = append(c.next.wanted, wanted{k, id, n})
	return n, nil
}

// paused reports whether a read has failed just now.
func (c *company) paused(now int64) bool {
	return c.failed && now-c.failedAt < readPause && now >= c.failedAt
}

// wait returns the read that n waits for, nil where it is counted.
func (n *count) wait() (*load, error) {
	if n.load == nil {
		return nil, nil
	}
	if n.load.waiting >= maxWaiting {
		return nil, errBusy
	}
	n.load.waiting++
	return n.load, nil
}

// findCounts sets d.counts, or d.wait where some are to be read first. Where a
// limit blocks anyway it makes no new ones.
func (l *Local) findCounts(d *decision, sh *shard, c *company, now int64) (full bool) {
	if d.block.what != nothing {
		for i, b := range d.ask.Budgets {
			k, id := ownerOf(b)
			from, to := c.periods.of(b, d.at)
			d.counts[i] = c.counts.find(k, id, from, to)
		}
		return false
	}
	var missing *count
	for i, b := range d.ask.Budgets {
		n, err := l.count(c, b, now, d.at)
		if err != nil {
			full, d.keys = err == errFull, err == errShare
			if !full && !d.keys {
				d.failed = err
			}
			break
		}
		if d.counts[i] = n; n.load != nil && missing == nil {
			missing = n
		}
	}
	l.startReading(d.s, sh, c)
	if missing != nil && !full && !d.keys && d.failed == nil {
		d.wait, d.failed = missing.wait()
	}
	return full
}

// grant looks for room in every budget, and sets what is granted of money.
func (d *decision) grant() {
	for i, b := range d.ask.Budgets {
		n := d.counts[i]
		used, held := n.used.Of(b.Unit), n.held.Of(b.Unit)
		if why := lackOf(b.Limit, used, held, d.need.of(b.Unit)); why != lackNothing {
			d.blocked, d.lack, d.stands = i, why, n.standing(b.Unit)
			return
		}
		if b.Unit == tenant.USD {
			d.need.nano = min(d.need.nano, left(b.Limit, used, held))
		}
	}
}

func (n *count) standing(unit tenant.Unit) Standing {
	return Standing{Spent: n.used.Of(unit), Held: n.held.Of(unit), From: moment(n.from), To: moment(n.to)}
}

// startReading sees to it that what is wanted is read.
func (l *Local) startReading(s tenant.Scope, sh *shard, c *company) {
	if c.next == nil || c.reading {
		return
	}
	c.reading = true
	c.refs++
	go func() {
		for again := true; again; {
			ctx, cancel := context.WithTimeout(context.Background(), l.o.BookTimeout)
			used, err := l.read(ctx, s, sh, c)
			cancel()
			again = l.finish(sh, c, used, err)
		}
	}()
}

// read reads what is wanted by now.
func (l *Local) read(ctx context.Context, s tenant.Scope, sh *shard, c *company) (used []Used, err error) {
	defer func() {
		if p := recover(); p != nil {
			used, err = nil, fmt.Errorf("the Book panicked: %v", p)
		}
	}()
	select {
	case l.reading <- struct{}{}:
		defer func() { <-l.reading }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	spans, before, except := l.begin(sh, c)
	used, err = l.o.Book.Spent(ctx, s, spans, before, except)
	if err == nil && len(used) != len(spans) {
		err = fmt.Errorf("the Book answered %d spans of %d", len(used), len(spans))
	}
	return used, err
}

// begin sets the mark and lets the counts begin.
func (l *Local) begin(sh *shard, c *company) (spans []Span, before time.Time, except []string) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	c.load, c.next = c.next, nil
	c.mark = max(l.o.Now().UnixMicro(), sh.newest+1)
	for _, w := range c.load.wanted {
		w.n.used, w.n.held = Used{}, Used{}
		spans = append(spans, Span{Kind: ownerKinds[w.kind], Of: w.id, From: moment(w.n.from), To: moment(w.n.to)})
	}
	for id, place := range c.attempts {
		h, counts := &sh.holds[place], false
		c.counts.each(&h.attempt, func(n *count) {
			if n.load != c.load {
				return
			}
			counts = true
			n.hold(&h.attempt.need)
			if h.settled {
				n.settle(&h.attempt.need, h.attempt.used)
			}
		})
		if counts {
			except = append(except, id)
		}
	}
	return spans, moment(c.mark), except
}

// finish lets the counts be used, or drops all that are not read, and reports
// whether there is more to read.
func (l *Local) finish(sh *shard, c *company, used []Used, err error) (again bool) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	done := c.load
	if c.load = nil; done == nil { // it has not begun
		done, c.next = c.next, nil
	}
	now := l.now()
	c.failed = err != nil
	l.counters.reads.Add(1)
	if err != nil {
		l.counters.failedReads.Add(1)
		c.failedAt = now
		used = nil
		dropped := c.counts.drop(func(n *count) bool { return n.load != nil })
		c.nCounts -= dropped
		l.windows.Add(int64(-dropped))
		if c.next != nil {
			c.next.err = err
			close(c.next.done)
			c.next = nil
		}
		done.err = err
	}
	for i := range used {
		n := done.wanted[i].n
		n.used.add(used[i])
		n.load, n.touched = nil, now
	}
	close(done.done)
	if c.next != nil {
		return true
	}
	c.reading = false
	c.refs--
	return false
}

// await waits for a read until ends, which the first call sets.
func (l *Local) await(ctx context.Context, ld *load, ends *time.Time) error {
	if ends.IsZero() {
		*ends = time.Now().Add(l.o.BookTimeout)
	}
	timer := time.NewTimer(time.Until(*ends))
	defer timer.Stop()
	select {
	case <-ld.done:
		return ld.err
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return errTimeout
	}
}

// uncounted is the error where a budget cannot be counted.
func (l *Local) uncounted(cause error) error {
	l.counters.uncounted.Add(1)
	return refuseUncounted(cause)
}
