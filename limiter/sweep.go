package limiter

import "sync/atomic"

// What is idle is dropped: by the first call in a shard each minute, and at
// once where room is short. There is no goroutine for it.

// shortSweep is how soon after a sweep for want of room the next may follow, so
// that a company that keeps asking does not make the gateway sweep all the time.
const shortSweep = minute / 60

// countIdle is how long a period nobody asks for is kept, so that a store that
// is away for a while is not asked for it. Any may be dropped at any time: what
// it counts is known of the attempts or is in the store.
const countIdle = 10 * minute

// sweep drops the idle windows and companies of a shard. The caller holds its
// lock.
func (l *Local) sweep(sh *shard, now, idle int64) {
	sh.swept = now
	for id, c := range sh.companies {
		l.dropIdle(c, now, idle)
		if len(c.windows) == 0 && c.nCounts == 0 && c.refs == 0 && len(c.attempts) == 0 {
			delete(sh.companies, id)
		}
	}
}

// dropIdle drops the idle windows of c, and the counts nobody asked for in the
// time idle.
func (l *Local) dropIdle(c *company, now, idle int64) {
	before := len(c.windows) + c.nCounts
	for n, w := range c.windows {
		if w.idle(now) {
			delete(c.windows, n)
		}
	}
	if c.nCounts > 0 {
		c.nCounts -= c.counts.drop(func(n *count) bool { return n.load == nil && now-n.touched > idle })
	}
	l.windows.Add(int64(len(c.windows) + c.nCounts - before))
}

// sweepCompany drops c's idle windows and counts, and reports whether there is
// room now.
func (l *Local) sweepCompany(c *company, now int64) bool {
	if now-c.swept < shortSweep {
		return false
	}
	c.swept = now
	l.dropIdle(c, now, shortSweep)
	return len(c.windows)+c.nCounts < l.o.MaxWindowsPerCompany
}

// sweepAll sweeps every shard, one after the other, and reports whether it did.
// The caller holds no lock.
func (l *Local) sweepAll() bool {
	now, last := l.now(), l.swept.Load()
	if now-last < shortSweep || !l.swept.CompareAndSwap(last, now) {
		return false
	}
	for i := range l.shards {
		sh := &l.shards[i]
		sh.mu.Lock()
		l.sweep(sh, now, shortSweep)
		sh.mu.Unlock()
	}
	return true
}

// counters count since the start.
type counters struct {
	reads, failedReads                    atomic.Int64
	limited, held, spent, full, uncounted atomic.Int64
}

// Stats are what a Local holds at the moment, and what it has done.
type Stats struct {
	Companies int64 // with at least one limit, budget or call in the last minutes
	Windows   int64 // limits and periods of budgets kept count of
	Open      int64 // calls
	Attempts  int64 // that run, or ended and are not in the store yet
	HeldNano  int64 // by those that run, nano-USD

	Reads, FailedReads int64 // of a Book

	// Calls refused, by what was in the way.
	RefusedByLimit   int64 // a limit per minute or of open calls
	RefusedBySpent   int64 // insufficient_quota
	RefusedByHeld    int64 // budget_held
	RefusedFull      int64 // the gateway, or the company's share of it
	RefusedUncounted int64 // what was spent could not be read
}

// Stats returns what l holds. It takes each shard's lock in turn.
func (l *Local) Stats() Stats {
	n := &l.counters
	st := Stats{
		Windows: l.windows.Load(), Attempts: l.attempts.Load(),
		Reads: n.reads.Load(), FailedReads: n.failedReads.Load(),
		RefusedByLimit: n.limited.Load(), RefusedBySpent: n.spent.Load(), RefusedByHeld: n.held.Load(),
		RefusedFull: n.full.Load(), RefusedUncounted: n.uncounted.Load(),
	}
	for i := range l.shards {
		sh := &l.shards[i]
		sh.mu.Lock()
		st.Companies += int64(len(sh.companies))
		st.HeldNano += sh.heldNano
		for _, c := range sh.companies {
			st.Open += c.open
		}
		sh.mu.Unlock()
	}
	return st
}
