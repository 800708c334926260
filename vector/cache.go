package vector

import (
	"context"
	"sync"
	"time"
)

// Cache keeps in memory what was made of stores: the vectors of a Local, the
// words of keyword search. A company and a version are part of every question: an
// entry is of one store of one company, and one that is older than the version
// asked for is loaded anew, once for all who ask at that time.
//
// All companies together have a bound, and each company has one: what was used
// least lately goes, of the company that is above its share first. What is larger
// than its share is loaded for each question and does not stay.
type Cache[V any] struct {
	total, share int64
	load         time.Duration

	mu      sync.Mutex
	entries map[CacheKey]*entry[V]
	bytes   int64
	company map[string]int64 // bytes
	oldest  entry[V]         // ring of what is in memory; next is the least lately used
}

// CacheKey names an entry: a store of a company, and what it was made for.
type CacheKey struct {
	Company, Store string
	Kind           string
}

// entry does not change after it was loaded.
type entry[V any] struct {
	key        CacheKey
	version    int64
	value      V
	bytes      int64
	err        error
	prev, next *entry[V]
	loading    chan struct{} // closed when loaded; nil: it is
}

// NewCache returns a Cache of at most total bytes, share of each company. Loading
// one entry may take as long as load: it goes on when who asked has gone, and the
// next one finds it done.
func NewCache[V any](total, share int64, load time.Duration) *Cache[V] {
	c := &Cache[V]{total: total, share: share, load: load, entries: map[CacheKey]*entry[V]{}, company: map[string]int64{}}
	c.oldest.prev, c.oldest.next = &c.oldest, &c.oldest
	return c
}

// Get returns the entry as of version, or later. make loads it, and says how many
// bytes it takes; it may take over parts of the value there was.
func (c *Cache[V]) Get(ctx context.Context, key CacheKey, version int64, make func(ctx context.Context, old V) (V, int64, error)) (V, error) {
	for {
		c.mu.Lock()
		e := c.entries[key]
		if e != nil && e.loading == nil && e.version >= version {
			e.unlink()
			c.link(e)
			c.mu.Unlock()
			return e.value, nil
		}
		if e == nil || e.loading == nil {
			var old V
			if e != nil {
				old = e.value
				c.drop(e)
			}
			e = &entry[V]{key: key, version: version, loading: newDone()}
			c.entries[key] = e
			go c.fill(e, old, make)
		}
		done := e.loading
		c.mu.Unlock()
		select {
		case <-done:
		case <-ctx.Done():
			var none V
			return none, late(ctx.Err())
		}
		if e.err != nil || e.version >= version {
			return e.value, e.err
		}
	}
}

func newDone() chan struct{} { return make(chan struct{}) }

func (c *Cache[V]) fill(e *entry[V], old V, make func(ctx context.Context, old V) (V, int64, error)) {
	ctx, cancel := context.WithTimeout(context.Background(), c.load)
	defer cancel()
	value, bytes, err := make(ctx, old)
	if err != nil && ctx.Err() != nil {
		err = late(ctx.Err())
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	e.value, e.bytes, e.err = value, bytes+512, err
	done := e.loading
	e.loading = nil
	defer close(done)
	if c.entries[e.key] != e {
		return // it was forgotten meanwhile
	}
	if err != nil || e.bytes > c.share || e.bytes > c.total {
		delete(c.entries, e.key)
		return
	}
	c.bytes += e.bytes
	c.company[e.key.Company] += e.bytes
	c.link(e)
	c.shrink(e)
}

// shrink drops until the bounds hold again; keep stays.
func (c *Cache[V]) shrink(keep *entry[V]) {
	for at := c.oldest.next; at != &c.oldest && c.company[keep.key.Company] > c.share; {
		next := at.next
		if at != keep && at.key.Company == keep.key.Company {
			c.drop(at)
		}
		at = next
	}
	for at := c.oldest.next; at != &c.oldest && c.bytes > c.total; {
		next := at.next
		if at != keep {
			c.drop(at)
		}
		at = next
	}
}

// drop takes a loaded entry out of memory.
func (c *Cache[V]) drop(e *entry[V]) {
	delete(c.entries, e.key)
	e.unlink()
	c.bytes -= e.bytes
	if c.company[e.key.Company] -= e.bytes; c.company[e.key.Company] <= 0 {
		delete(c.company, e.key.Company)
	}
}

// Forget drops what there is of a company's store, or with store "" of all of
// them. What is being loaded is not kept.
func (c *Cache[V]) Forget(company, store string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for key, e := range c.entries {
		switch {
		case key.Company != company || store != "" && key.Store != store:
		case e.loading != nil:
			delete(c.entries, key)
		default:
			c.drop(e)
		}
	}
}

// Has reports whether something of the company is in memory.
func (c *Cache[V]) Has(company string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.company[company] > 0
}

// Bytes returns how much is in memory, of all companies.
func (c *Cache[V]) Bytes() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.bytes
}

// each gives fn every loaded entry. It is for what must never be: see unfiltered.
func (c *Cache[V]) each(fn func(CacheKey, V)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for key, e := range c.entries {
		if e.loading == nil {
			fn(key, e.value)
		}
	}
}

func (c *Cache[V]) link(e *entry[V]) {
	last := c.oldest.prev
	last.next, e.prev, e.next, c.oldest.prev = e, last, &c.oldest, e
}

func (e *entry[V]) unlink() {
	if e.prev != nil {
		e.prev.next, e.next.prev = e.next, e.prev
		e.prev, e.next = nil, nil
	}
}
