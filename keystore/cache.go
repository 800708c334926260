package keystore

import (
	"sync"
	"time"
)

// cache keeps what was opened, by company and name. It is bounded in all and
// per company, by count; which entry makes room is chance, so that nobody can
// aim at another's.
type cache[V any] struct {
	total, perCompany int

	mu        sync.RWMutex
	companies map[string]map[string]entry[V]
	size      int
	changes   uint64 // counts drops, so that a load that began before is not kept
}

// entry is a value that was read when the company's policy was of that
// generation or a later one.
type entry[V any] struct {
	value      V
	generation int64
	until      time.Time
}

func newCache[V any](total, perCompany int) *cache[V] {
	return &cache[V]{total: total, perCompany: perCompany, companies: map[string]map[string]entry[V]{}}
}

// get returns what is kept. Something read before the given generation of the
// policy is not found: a credential may have changed since.
func (c *cache[V]) get(company, name string, generation int64, now time.Time) (v V, ok bool) {
	c.mu.RLock()
	e, ok := c.companies[company][name]
	c.mu.RUnlock()
	if !ok || e.generation < generation || !now.Before(e.until) {
		return v, false
	}
	return e.value, true
}

// overdue returns what is kept and past its time, and lets it live until later, so
// that one of those who find it reads it anew and not all.
func (c *cache[V]) overdue(company, name string, generation int64, now, later time.Time) (v V, first, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.companies[company][name]
	if !ok || e.generation < generation {
		return v, false, false
	}
	if first = !now.Before(e.until); first {
		e.until = later
		c.companies[company][name] = e
	}
	return e.value, first, true
}

// mark is to be taken before a load and given to put after it.
func (c *cache[V]) mark() uint64 {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.changes
}

// put keeps e, unless something was dropped since mark or what is kept is newer.
func (c *cache[V]) put(company, name string, e entry[V], mark uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.changes != mark {
		return
	}
	names := c.companies[company]
	old, there := names[name]
	switch {
	case there && old.generation > e.generation:
		return
	case there:
	case len(names) >= c.perCompany:
		c.dropOne(company)
	case c.size >= c.total:
		for other := range c.companies {
			c.dropOne(other)
			break
		}
	}
	if names = c.companies[company]; names == nil {
		names = map[string]entry[V]{}
		c.companies[company] = names
	}
	names[name] = e
	if !there {
		c.size++
	}
}

func (c *cache[V]) dropOne(company string) {
	names := c.companies[company]
	for name := range names {
		delete(names, name)
		c.size--
		break
	}
	if len(names) == 0 {
		delete(c.companies, company)
	}
}

// drop forgets what is kept of a company.
func (c *cache[V]) drop(company string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.size -= len(c.companies[company])
	delete(c.companies, company)
	c.changes++
}
