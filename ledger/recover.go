package ledger

import (
	"context"
	"errors"
	"fmt"
	"time"

	"bulkhead/fault"
	"bulkhead/tenant"
)

// What is here only the shipper does, because it alone may change what stands in
// a line.

// unwritten is a close that is in memory and should be in the journal.
type unwritten struct {
	l *line
	i int // in its memory
	e Entry
	h handle
}

// rewrite writes the closes to the journal that could not be written before. It
// returns when to try again, 0 if there is nothing left.
func (l *Ledger) rewrite() time.Duration {
	if l.j == nil {
		return 0
	}
	for {
		l.mu.Lock()
		d := time.Until(l.rewriteAt)
		some := l.q.someUnwritten()
		l.mu.Unlock()
		if len(some) == 0 {
			return 0
		}
		if d > 0 {
			return d
		}
		if err := l.rewriteSome(some); err != nil {
			l.mu.Lock()
			l.rewriteAt = time.Now().Add(retryAfter)
			l.mu.Unlock()
			return retryAfter
		}
	}
}

// rewriteSome writes some closes, of which one fsync is enough.
func (l *Ledger) rewriteSome(some []unwritten) (err error) {
	var refs []ref
	for i := range some {
		var r ref
		if r, err = l.j.close(some[i].l.company, &some[i].e, 0, false); err != nil {
			some = some[:i]
			break
		}
		refs = append(refs, r)
	}
	if l.o.Sync == SyncAlways {
		if err := l.j.sure(refs); err != nil {
			l.j.shipped(refs) // of these copies nobody knows
			return err
		}
	}
	handles := make([]handle, len(some))
	l.mu.Lock()
	for i, u := range some {
		handles[i] = u.h
		l.q.written(u.l, u.i, refs[i])
	}
	l.mu.Unlock()
	l.j.endHandles(handles)
	return err
}

// someUnwritten returns some of the entries that should be in the journal.
func (q *queue) someUnwritten() (some []unwritten) {
	const most = 256
	if q.unwritten == 0 {
		return nil
	}
	for _, lines := range [][]*line{q.ring, q.suspect, q.unknown} {
		for _, l := range lines {
			for i, w := range l.inMemory() {
				if !w.ref.none() {
					continue
				}
				if some = append(some, unwritten{l, i, w.entry, w.handle}); len(some) == most {
					return some
				}
			}
		}
	}
	return some
}

// lookupTimeout is how long a ScopeOf may take while entries wait to be shipped.
const lookupTimeout = 2 * time.Second

// resolve finds the Scopes of companies that an earlier process left entries of,
// some at a time. It returns when to look again, 0 if none is left.
func (l *Ledger) resolve() time.Duration {
	const atOnce = 64
	for range atOnce {
		line, wait := l.unknown()
		if line == nil {
			return wait
		}
		ctx, cancel := context.WithTimeout(l.ctx, min(l.o.Timeout, lookupTimeout))
		s, err := l.o.ScopeOf(ctx, line.company)
		cancel()
		if err == nil && s.ID().String() != line.company {
			err = fmt.Errorf("the Scope of %s was asked for, and another given", line.company)
		}
		if fault.Is(err, fault.NotFound) || errors.Is(err, tenant.ErrNotFound) {
			l.forget(line)
			err = nil
		} else if err == nil {
			l.mu.Lock()
			l.q.know(line, s)
			l.mu.Unlock()
		}
		l.mu.Lock()
		if err == nil {
			l.unresolved = 0
		} else { // the company's fault or the store's: the next one is asked for after a pause
			now := time.Now()
			l.stats.Err = err
			l.unresolved++
			line.failures++
			line.retryAt, l.resolveAt = now.Add(l.o.backoff(line.failures)), now.Add(l.o.backoff(l.unresolved))
		}
		l.mu.Unlock()
	}
	return l.o.Every
}

// unknown returns the line whose Scope is to be found now, the one that waited
// longest. Without one, wait says when to ask again, 0 if there is none at all.
func (l *Ledger) unknown() (first *line, wait time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range l.q.unknown {
		if first == nil || line.retryAt.Before(first.retryAt) {
			first = line
		}
	}
	if first == nil {
		return nil, 0
	}
	now := time.Now()
	if wait = max(first.retryAt.Sub(now), l.resolveAt.Sub(now)); wait > 0 {
		return nil, wait
	}
	return first, 0
}

// forget drops the entries of a company that is gone.
func (l *Ledger) forget(line *line) {
	l.mu.Lock()
	if line.known { // a call of the company came in between: the store will say
		l.mu.Unlock()
		return
	}
	mem, disk := part{line, len(line.inMemory()), false}, part{line, len(line.disk), true}
	refs := append([]ref(nil), line.disk...)
	var open []openAttempt
	for _, w := range line.inMemory() {
		if w.ref.none() {
			open = append(open, openAttempt{w.entry.ID, w.handle})
		} else {
			refs = append(refs, w.ref)
		}
	}
	l.mu.Unlock()
	l.unpin(refs, open)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stats.Dropped += int64(mem.n + disk.n)
	l.q.drop(mem)
	l.q.done(disk)
	l.tell()
}

// carryCloses writes the closes again that alone keep an old segment, if those
// are of companies that the store takes nothing of: else a few entries of one
// company would keep the whole journal, until nobody may make calls.
func (l *Ledger) carryCloses() {
	if l.j == nil {
		return
	}
	number, closes, ok := l.j.sparse()
	if !ok {
		return
	}
	type spot struct {
		l *line
		i int // in its memory, or on its disk
		d bool
		r ref
	}
	var spots []spot
	l.mu.Lock()
	for _, lines := range [][]*line{l.q.suspect, l.q.unknown} {
		for _, ln := range lines {
			for i, w := range ln.inMemory() {
				if w.ref.segment == number {
					spots = append(spots, spot{ln, i, false, w.ref})
				}
			}
			for i, r := range ln.disk {
				if r.segment == number {
					spots = append(spots, spot{ln, i, true, r})
				}
			}
		}
	}
	l.mu.Unlock()
	if len(spots) != closes {
		return // the others' will be shipped soon
	}
	var buf []byte
	var old, copies []ref
	for _, s := range spots {
		var r ref
		var err error
		if r, buf, err = l.j.copyClose(s.r, buf); err != nil {
			l.j.fail(err)
			break
		}
		old, copies = append(old, s.r), append(copies, r)
	}
	if l.o.Sync != SyncOff {
		if err := l.j.sure(copies); err != nil {
			l.j.shipped(copies) // nobody knows of them
			return
		}
	}
	l.mu.Lock()
	for i, r := range copies {
		if s := spots[i]; s.d {
			s.l.disk[s.i] = r
		} else {
			s.l.inMemory()[s.i].ref = r
		}
	}
	l.mu.Unlock()
	l.unpin(old, nil)
}
