package ledger

import (
	"context"
	"time"
)

// run is the shipper. It alone takes from the queue, so what it took stays at
// the head of its lines until the store has it.
func (l *Ledger) run() {
	defer close(l.done)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for l.ctx.Err() == nil {
		l.mu.Lock()
		parts, wait := l.q.take(&l.o, time.Now(), l.hurry > 0)
		l.mu.Unlock()
		if len(parts) > 0 {
			l.ship(parts)
			continue
		}
		var alarm <-chan time.Time
		if wait > 0 {
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
	if l.send(parts) {
		l.settle(parts, nil, true)
		return
	}
	if len(parts) == 1 {
		l.settle(nil, parts, parts[0].l.suspect)
		return
	}
	var good, bad []part
	for i := range parts {
		if l.ctx.Err() != nil {
			break
		}
		if l.send(parts[i : i+1]) {
			good = append(good, parts[i])
		} else if bad = append(bad, parts[i]); len(good) == 0 && len(bad) == triesApart {
			break
		}
	}
	l.settle(good, bad, len(good) > 0)
}

// settle notes the outcome. alive says that the store takes entries, so that
// what it refused is the fault of those.
func (l *Ledger) settle(good, bad []part, alive bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	for _, p := range good {
		l.stats.Shipped += int64(p.n)
		l.q.done(p)
	}
	if len(good) > 0 {
		l.q.failures, l.q.retryAt = 0, time.Time{}
	}
	if alive {
		for _, p := range bad {
			l.q.doubt(p.l, &l.o, now)
		}
	} else {
		l.q.failed(&l.o, now)
	}
	l.tell()
}

// send appends the parts to the store and reports whether they are there.
func (l *Ledger) send(parts []part) bool {
	n := 0
	for _, p := range parts {
		n += p.n
	}
	batch := make([]Booked, 0, n)
	l.mu.Lock() // a line's slice may move while an entry is added
	for _, p := range parts {
		for i := range p.n {
			batch = append(batch, p.l.entries[i].booked)
		}
	}
	l.mu.Unlock()
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
