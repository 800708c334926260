package limiter

// What is idle is dropped: by the first call in a shard each minute, and at
// once where room is short. There is no goroutine for it.

// shortSweep is how soon after a sweep for want of room the next may follow, so
// that a company that keeps asking does not make the gateway sweep all the time.
const shortSweep = minute / 60

// sweep drops the idle windows and companies of a shard. The caller holds its
// lock.
func (l *Local) sweep(sh *shard, now int64) {
	sh.swept = now
	for id, c := range sh.companies {
		l.dropIdle(c, now)
		if len(c.windows) == 0 && c.refs == 0 {
			delete(sh.companies, id)
		}
	}
}

func (l *Local) dropIdle(c *company, now int64) {
	before := len(c.windows)
	for n, w := range c.windows {
		if w.idle(now) {
			delete(c.windows, n)
		}
	}
	l.windows.Add(int64(len(c.windows) - before))
}

// sweepCompany drops c's idle windows and reports whether there is room now.
func (l *Local) sweepCompany(c *company, now int64) bool {
	if now-c.swept < shortSweep {
		return false
	}
	c.swept = now
	l.dropIdle(c, now)
	return len(c.windows) < l.o.MaxWindowsPerCompany
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
		l.sweep(sh, now)
		sh.mu.Unlock()
	}
	return true
}

// Stats are what a Local holds at the moment.
type Stats struct {
	Companies int64 // with at least one limit or call in the last minutes
	Windows   int64 // limits kept count of
	Open      int64 // calls
}

// Stats returns what l holds. It takes each shard's lock in turn.
func (l *Local) Stats() Stats {
	st := Stats{Windows: l.windows.Load()}
	for i := range l.shards {
		sh := &l.shards[i]
		sh.mu.Lock()
		st.Companies += int64(len(sh.companies))
		for _, c := range sh.companies {
			st.Open += c.open
		}
		sh.mu.Unlock()
	}
	return st
}
