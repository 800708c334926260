package memory

import (
	"container/list"
	"context"
	"sync"
	"time"

	"bulkhead/tenant"
)

// Local is a Cache in process: the tails used last, with a bound for each company and
// one for all.
type Local struct {
	now func() time.Time

	mu        sync.Mutex
	companies map[string]*localCompany // by id
	used      list.List                // of *localTail, the one used last in front
	bytes     int64
}

type localCompany struct {
	tails map[string]*localTail
	used  list.List // its own
}

type localTail struct {
	company     string
	id          string
	tail        Tail
	size        int64
	until       time.Time
	ofAll, ours *list.Element
}

// NewLocal returns an empty cache. now is the clock; nil is the machine's.
func NewLocal(now func() time.Time) *Local {
	if now == nil {
		now = time.Now
	}
	return &Local{now: now, companies: map[string]*localCompany{}}
}

// Get implements Cache.
func (l *Local) Get(_ context.Context, s tenant.Scope, id string) (Tail, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.companies[s.ID().String()]
	if c == nil || c.tails[id] == nil {
		return Tail{}, false
	}
	t := c.tails[id]
	if !t.until.After(l.now()) {
		l.remove(t)
		return Tail{}, false
	}
	l.used.MoveToFront(t.ofAll)
	c.used.MoveToFront(t.ours)
	return t.tail, true // nobody changes items once they are stored
}

// Put implements Cache.
func (l *Local) Put(_ context.Context, s tenant.Scope, id string, tail Tail) {
	l.mu.Lock()
	defer l.mu.Unlock()
	company := s.ID().String()
	c := l.companies[company]
	if c != nil && c.tails[id] != nil {
		l.remove(c.tails[id])
	}
	size := tail.size()
	if size > MaxTail {
		return
	}
	if c = l.companies[company]; c == nil { // it may have gone with its last tail
		c = &localCompany{tails: map[string]*localTail{}}
		l.companies[company] = c
	}
	t := &localTail{company: company, id: id, tail: tail, size: size, until: l.now().Add(CacheTTL)}
	t.ofAll, t.ours = l.used.PushFront(t), c.used.PushFront(t)
	c.tails[id] = t
	l.bytes += size
	for len(c.tails) > MaxCompany {
		l.remove(c.used.Back().Value.(*localTail))
	}
	for l.bytes > maxLocalBytes {
		l.remove(l.used.Back().Value.(*localTail))
	}
}

// remove takes a tail out, and its company with the last one.
func (l *Local) remove(t *localTail) {
	c := l.companies[t.company]
	delete(c.tails, t.id)
	c.used.Remove(t.ours)
	l.used.Remove(t.ofAll)
	l.bytes -= t.size
	if len(c.tails) == 0 {
		delete(l.companies, t.company)
	}
}

// Drop implements Cache.
func (l *Local) Drop(_ context.Context, s tenant.Scope, id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c := l.companies[s.ID().String()]; c != nil && c.tails[id] != nil {
		l.remove(c.tails[id])
	}
}

// Forget implements Cache.
func (l *Local) Forget(_ context.Context, s tenant.Scope) error {
	l.evict(s.ID().String())
	return nil
}

// evict forgets the company with that id.
func (l *Local) evict(company string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := l.companies[company]; c != nil && len(c.tails) > 0; {
		l.remove(c.used.Back().Value.(*localTail))
	}
}

// has reports whether there is something of the company with that id.
func (l *Local) has(company string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.companies[company] != nil
}
