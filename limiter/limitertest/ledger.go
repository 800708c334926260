package limitertest

import (
	"context"
	"slices"
	"sync"
	"time"

	"bulkhead/limiter"
	"bulkhead/tenant"
)

// Entry is what a Ledger has of one attempt.
type Entry struct {
	ID    string
	By    limiter.By
	At    time.Time // of the hold
	First bool      // not Ask.Again
	Used  limiter.Used
}

// Ledger is a limiter.Book in memory. Entries are recorded when an attempt ends
// and are in the store when they are shipped, as in the real one.
type Ledger struct {
	// Before is called at the beginning of each Spent, without a lock, and its
	// error is returned. May be nil. It is set before the first Hold.
	Before func(ctx context.Context) error

	mu    sync.Mutex
	waits map[tenant.ID][]Entry
	store map[tenant.ID][]Entry
	reads int
}

// NewLedger returns an empty Ledger.
func NewLedger() *Ledger {
	return &Ledger{waits: map[tenant.ID][]Entry{}, store: map[tenant.ID][]Entry{}}
}

// Record takes an entry, which waits to be shipped.
func (l *Ledger) Record(s tenant.Scope, e Entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waits[s.ID()] = append(l.waits[s.ID()], e)
}

// Ship puts waiting entries of a company into the store, and returns their ids.
// pick says which of n is the next.
func (l *Ledger) Ship(s tenant.Scope, count int, pick func(n int) int) (ids []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	waits := l.waits[s.ID()]
	for range min(count, len(waits)) {
		i := pick(len(waits))
		l.store[s.ID()] = append(l.store[s.ID()], waits[i])
		ids = append(ids, waits[i].ID)
		waits[i] = waits[len(waits)-1]
		waits = waits[:len(waits)-1]
	}
	l.waits[s.ID()] = waits
	return ids
}

// Reads returns how often the Ledger was read.
func (l *Ledger) Reads() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.reads
}

// Spent implements limiter.Book.
func (l *Ledger) Spent(ctx context.Context, s tenant.Scope, spans []limiter.Span, before time.Time, except []string) ([]limiter.Used, error) {
	l.mu.Lock()
	l.reads++
	l.mu.Unlock()
	if l.Before != nil {
		if err := l.Before(ctx); err != nil {
			return nil, err
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	left := map[string]bool{}
	for _, id := range except {
		left[id] = true
	}
	all := make([]limiter.Used, len(spans))
	for _, e := range l.store[s.ID()] {
		if left[e.ID] || !e.At.Before(before) {
			continue
		}
		for i := range spans {
			if within(&e, &spans[i]) {
				add(&all[i], &e)
			}
		}
	}
	return all, nil
}

// Has implements limiter.Book.
func (l *Ledger) Has(_ context.Context, s tenant.Scope, ids []string) (has []string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, id := range ids {
		if slices.ContainsFunc(l.store[s.ID()], func(e Entry) bool { return e.ID == id }) {
			has = append(has, id)
		}
	}
	return has, nil
}

// within reports whether e counts in a span.
func within(e *Entry, p *limiter.Span) bool {
	owner := tenant.Budget{Kind: p.Kind, Of: p.Of}
	return e.By.Has(&owner) && !e.At.Before(p.From) && (p.To.IsZero() || e.At.Before(p.To))
}

func add(u *limiter.Used, e *Entry) {
	u.Nano += e.Used.Nano
	u.Tokens += e.Used.Tokens
	if e.First {
		u.Requests++
	}
}
