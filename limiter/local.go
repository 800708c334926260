package limiter

import (
	"context"
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"

	"bulkhead/tenant"
)

// Options bound a Local. Zero values take the defaults; a gateway that is full
// in any of these respects refuses calls and grows no further.
type Options struct {
	// Book is where what was spent is read. Without one a budget is refused as
	// Unavailable, and nothing is remembered of an attempt that has ended.
	Book Book
	// BookTimeout is how long a Hold or Standing waits for the Book; default 2 s.
	BookTimeout time.Duration
	// Now is the clock; default time.Now.
	Now func() time.Time
	// MaxWindows is how many limits and periods of budgets are kept count of;
	// default 262,144, some 100 MB. Those of a company that is idle are dropped.
	MaxWindows int
	// MaxWindowsPerCompany is one company's share of them; default 1/16.
	MaxWindowsPerCompany int
	// MaxAttempts is how many attempts are known: those that run and those that
	// ended and are not in the store yet; default 131,072, some 40 MB. The ledger
	// refuses an attempt long before, if its Queue is no more than half.
	MaxAttempts int
	// MaxAttemptsPerCompany is one company's share of them; default half.
	MaxAttemptsPerCompany int
	// TotalConcurrent is how many calls may be open in this gateway, of all
	// companies together; default 20,000, below 0 no limit.
	TotalConcurrent int64
	// CompanyConcurrent is one company's share of them, whatever its own limits
	// say; default half, below 0 no limit.
	CompanyConcurrent int64
}

const (
	shardCount = 64
	sweepEvery = minute

	// maxWindows is how many limits one call may have: company, project, model,
	// key, and room for an agent, a user and two more.
	maxWindows = 8

	// maxTries bounds how often one Hold is decided again: each time it waited
	// for the Book, but for once when idle windows were dropped.
	maxTries = 100
)

// Local is the Limiter in this process. It keeps nothing over a restart: what
// was spent is read from the Book again. What an earlier process recorded must
// therefore be in the store before the first Hold.
//
// All of a company is in one shard, so that one lock makes a decision about all
// its windows one step, and so that no decision waits for more than one lock.
//
// The clock may be set, back too: a moment belongs to the period of that name,
// which stands where it stood.
type Local struct {
	o      Options
	start  time.Time
	seed   maphash.Seed
	shards [shardCount]shard

	open     atomic.Int64  // calls, counted only if there is a total
	windows  atomic.Int64  // and counts
	attempts atomic.Int64  // known
	swept    atomic.Int64  // ns, when all shards were swept for want of room
	reading  chan struct{} // of a Book at the moment
	counters counters
}

var (
	_ Limiter = (*Local)(nil)
	_ Ender   = (*Local)(nil)
)

type shard struct {
	mu        sync.Mutex
	companies map[tenant.ID]*company
	holds     []held // by number; those that ended are linked from free
	free      int32  // number of the first free place in holds, -1 none
	swept     int64  // ns
	newest    int64  // the latest moment of any hold, microseconds
	heldNano  int64  // of attempts that run
	_         [64]byte
}

// company is what is kept of one company. Its windows are its own map: no name
// of another company's key or project can find one.
type company struct {
	windows map[name]*window
	open    int64 // holds not released
	refs    int64 // holds and reads that point here
	swept   int64 // ns, when its windows were swept for want of room

	counts   owned
	nCounts  int
	attempts map[string]int32    // known ones with an id, by their places in holds
	claims   map[string]struct{} // of holds that run
	periods  periods

	next     *load // collects what is to be read
	load     *load // that is being read
	mark     int64 // the moment up to which load reads; while it does no hold is before
	reading  bool  // a goroutine sees to both
	failed   bool  // the last read
	failedAt int64 // ns
}

// name is that of a window within its company.
type name struct{ kind, id string }

// NewLocal returns an empty Local. It runs a goroutine only while it reads the
// Book and need not be closed.
func NewLocal(o Options) *Local {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.BookTimeout <= 0 {
		o.BookTimeout = 2 * time.Second
	}
	if o.MaxWindows <= 0 {
		o.MaxWindows = 1 << 18
	}
	if o.MaxWindowsPerCompany <= 0 {
		o.MaxWindowsPerCompany = max(o.MaxWindows/16, 1)
	}
	if o.MaxAttempts <= 0 {
		o.MaxAttempts = 1 << 17
	}
	if o.MaxAttemptsPerCompany <= 0 {
		o.MaxAttemptsPerCompany = max(o.MaxAttempts/2, 1)
	}
	if o.TotalConcurrent == 0 {
		o.TotalConcurrent = 20_000
	}
	if o.CompanyConcurrent == 0 {
		o.CompanyConcurrent = o.TotalConcurrent // below 0: none
		if o.TotalConcurrent > 0 {
			o.CompanyConcurrent = max(o.TotalConcurrent/2, 1)
		}
	}
	l := &Local{o: o, start: o.Now(), seed: maphash.MakeSeed(), reading: make(chan struct{}, maxReading)}
	for i := range l.shards {
		sh := &l.shards[i]
		sh.companies = map[tenant.ID]*company{}
		sh.free, sh.newest = -1, ever
	}
	return l
}

// now is the time since the start in ns, and a minute, so that the first call
// sweeps. The clock of the machine may be set; this one only runs on.
func (l *Local) now() int64 { return l.since(l.o.Now()) }

func (l *Local) since(now time.Time) int64 { return int64(now.Sub(l.start)) + minute }

func (l *Local) shard(id tenant.ID) uint64 {
	return maphash.Comparable(l.seed, id) % shardCount
}

// Hold implements Limiter. It does no I/O and does not wait where all budgets
// are counted.
func (l *Local) Hold(ctx context.Context, s tenant.Scope, a *Ask) (Hold, State, error) {
	id := s.ID()
	if len(a.Limits) == 0 && a.Model == nil && a.Claim == "" && !l.counts(a) && len(a.Budgets) == 0 && l.o.TotalConcurrent < 0 && l.o.CompanyConcurrent < 0 {
		return Hold{}, State{}, nil
	}
	checkBudgets(a)
	d := decision{ask: a, s: s}
	number := l.shard(id)
	var ends time.Time // of all waiting
	for range maxTries {
		hold, full := l.decide(&d, number, id)
		switch {
		case full && l.sweepAll():
			continue // there may be room now
		case d.wait == nil:
			return hold, d.state, d.error(l)
		}
		if err := l.await(ctx, d.wait, &ends); err != nil {
			return Hold{}, d.state, l.uncounted(err)
		}
	}
	return Hold{}, d.state, l.uncounted(errBusy)
}

// counts reports whether an attempt may ever count for a budget.
func (l *Local) counts(a *Ask) bool { return a.ID != "" && l.o.Book != nil }

func checkBudgets(a *Ask) {
	switch {
	case len(a.Budgets) == 0:
		return
	case len(a.Budgets) > MaxBudgets:
		panic("BUG: too many budgets in one Ask")
	case a.ID == "":
		panic("BUG: an attempt with budgets has no id")
	}
	for _, b := range a.Budgets {
		if !a.By.Has(b) {
			panic("BUG: a budget that does not apply to the attempt: " + b.ID)
		}
	}
}

// decision is one Hold while it is made.
type decision struct {
	ask     *Ask
	s       tenant.Scope
	need    need
	windows [maxWindows]*window
	n       int
	counts  [MaxBudgets]*count // nil: not counted
	at      int64              // microseconds
	state   State

	// Why not, at most one of these.
	blocked int   // number of the window or budget that blocks
	block   block // of that window
	lack    lack  // of that budget, with
	stands  Standing
	claimed bool  // another attempt has the claim
	keys    bool  // too many windows of the company
	share   bool  // the company has its share of open calls
	many    bool  // the company has its share of attempts
	full    bool  // the gateway is full
	wait    *load // something is to be read first
	failed  error // something cannot be read
}

func (d *decision) limited(i int) *tenant.Limited {
	if i < len(d.ask.Limits) {
		return &d.ask.Limits[i]
	}
	return d.ask.Model
}

// error is made when the lock is free again.
func (d *decision) error(l *Local) error {
	switch {
	case d.claimed:
		return refuseClaimed()
	case d.block.what != nothing:
		l.counters.limited.Add(1)
		return refusal(d.limited(d.blocked), d.block, d.need.tokens)
	case d.failed != nil:
		return l.uncounted(d.failed)
	case d.lack != lackNothing:
		b := d.ask.Budgets[d.blocked]
		if d.lack == lackHeld {
			l.counters.held.Add(1)
		} else {
			l.counters.spent.Add(1)
		}
		return refuseBudget(b, d.lack, d.stands, d.need.of(b.Unit), moment(d.at))
	case d.keys:
		l.counters.full.Add(1)
		return refuseKeys(l.o.MaxWindowsPerCompany)
	case d.share:
		l.counters.full.Add(1)
		return refuseShare(l.o.CompanyConcurrent)
	case d.many:
		l.counters.full.Add(1)
		return refuseAttempts()
	case d.full:
		l.counters.full.Add(1)
		return refuseFull()
	}
	return nil
}

// decide looks at everything first and takes afterwards, under one lock. full
// says that dropping idle windows elsewhere may help.
func (l *Local) decide(d *decision, number uint64, id tenant.ID) (_ Hold, full bool) {
	sh := &l.shards[number]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	c, now, at := l.enter(sh, id)
	*d = decision{ask: d.ask, s: d.s, need: needOf(d.ask), at: at}
	if _, d.claimed = c.claims[d.ask.Claim]; d.claimed {
		return Hold{}, false
	}
	if full := l.find(d, c, now); full || d.keys {
		d.full = full
		return Hold{}, full
	}
	for i, w := range d.windows[:d.n] {
		w.adopt(d.limited(i).Limits, now)
		if b := w.room(d.need.requests, d.need.tokens); b.what != nothing && d.block.what == nothing {
			d.blocked, d.block = i, b
		}
	}
	if full := l.findCounts(d, sh, c, now); full || d.keys || d.wait != nil || d.failed != nil {
		d.full = full
		d.tighten()
		return Hold{}, full
	}
	if d.block.what == nothing {
		d.grant()
	}
	if d.block.what != nothing || d.lack != lackNothing || !l.takeOpen(d, c) {
		d.tighten()
		return Hold{}, false
	}
	place, turn := l.place(sh, d, c)
	d.tighten()
	granted := int64(0)
	if d.state.HasBudget {
		granted = d.need.nano
	}
	return NewHold(l, HoldID{number<<32 | uint64(place), turn}, granted, moment(d.at)), false
}

// enter returns the company, and the time: in ns for limits per minute, and in
// microseconds for periods.
func (l *Local) enter(sh *shard, id tenant.ID) (c *company, now, at int64) {
	clock := l.o.Now()
	now, at = l.since(clock), clock.UnixMicro()
	if now-sh.swept >= sweepEvery {
		l.sweep(sh, now, countIdle)
	}
	c = sh.companies[id]
	if c == nil {
		c = &company{windows: map[name]*window{}}
		sh.companies[id] = c
	}
	if c.load != nil {
		at = max(at, c.mark)
	}
	return c, now, at
}

// tighten sets the state to what is left.
func (d *decision) tighten() {
	for _, w := range d.windows[:d.n] {
		w.tighten(&d.state)
	}
	for i, b := range d.ask.Budgets {
		n := d.counts[i]
		if b.Unit != tenant.USD || n == nil || n.load != nil {
			continue
		}
		if rest := left(b.Limit, n.used.Nano, n.held.Nano); !d.state.HasBudget || rest < d.state.RemainingNano {
			d.state.HasBudget, d.state.RemainingNano = true, rest
		}
	}
}

// find sets d.windows, making those that are new. full says that the gateway
// has too many windows; d.keys is set where the company has.
func (l *Local) find(d *decision, c *company, now int64) (full bool) {
	d.n = len(d.ask.Limits)
	if d.ask.Model != nil {
		d.n++
	}
	if d.n > maxWindows {
		panic("BUG: too many limits in one Ask")
	}
	for i := range d.n {
		lim := d.limited(i)
		n := name{lim.Kind, lim.ID}
		w := c.windows[n]
		if w == nil {
			if full, d.keys = l.makeRoom(c, now); full || d.keys {
				return full
			}
			w = &window{requests: bucket{at: now}, tokens: bucket{at: now}}
			c.windows[n] = w
		}
		w.touched = now // or making room for the next might drop it
		d.windows[i] = w
	}
	return false
}

// makeRoom takes room for one more window or count of c. full says that there
// is none in the gateway, share that c has its share.
func (l *Local) makeRoom(c *company, now int64) (full, share bool) {
	if len(c.windows)+c.nCounts >= l.o.MaxWindowsPerCompany && !l.sweepCompany(c, now) {
		return false, true
	}
	if l.windows.Add(1) > int64(l.o.MaxWindows) {
		l.windows.Add(-1)
		return true, false
	}
	return false, false
}

// takeOpen counts one open call and one attempt, unless that is one too many.
func (l *Local) takeOpen(d *decision, c *company) bool {
	if _, twice := c.attempts[d.ask.ID]; twice {
		panic("BUG: two attempts have the same id")
	}
	if m := l.o.CompanyConcurrent; m >= 0 && c.open >= m {
		d.share = true
		return false
	}
	counts := l.counts(d.ask)
	if counts && len(c.attempts) >= l.o.MaxAttemptsPerCompany {
		d.many = true
		return false
	}
	if m := l.o.TotalConcurrent; m >= 0 && !takeOne(&l.open, m) {
		d.full = true
		return false
	}
	if counts && !takeOne(&l.attempts, int64(l.o.MaxAttempts)) {
		if l.o.TotalConcurrent >= 0 {
			l.open.Add(-1)
		}
		d.full = true
		return false
	}
	c.open++
	c.refs++
	return true
}

// takeOne adds one to n, unless that is above the limit.
func takeOne(n *atomic.Int64, limit int64) bool {
	for {
		have := n.Load()
		if have >= limit {
			return false
		}
		if n.CompareAndSwap(have, have+1) {
			return true
		}
	}
}
