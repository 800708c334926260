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
	// Now is the clock; default time.Now.
	Now func() time.Time
	// MaxWindows is how many limits are kept count of; default 262,144, some
	// 100 MB. Those of a company that is idle for two minutes are dropped.
	MaxWindows int
	// MaxWindowsPerCompany is one company's share of them; default 1/16.
	MaxWindowsPerCompany int
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
)

// Local is the Limiter in this process. It keeps nothing over a restart.
//
// All of a company is in one shard, so that one lock makes a decision about all
// its windows one step, and so that no decision waits for more than one lock.
type Local struct {
	o      Options
	start  time.Time
	seed   maphash.Seed
	shards [shardCount]shard

	open    atomic.Int64 // calls, counted only if there is a total
	windows atomic.Int64
	swept   atomic.Int64 // ns, when all shards were swept for want of room
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
	_         [64]byte
}

// company is what is kept of one company. Its windows are its own map: no name
// of another company's key or project can find one.
type company struct {
	windows map[name]*window
	open    int64 // holds not released
	refs    int64 // holds that point here
	swept   int64 // ns, when its windows were swept for want of room
}

// name is that of a window within its company.
type name struct{ kind, id string }

// held is one hold. Its place is used again by a later one, with another turn.
type held struct {
	turn              uint64
	company           *company // nil: free
	windows           [maxWindows]*window
	n                 int // of windows
	tokens            int64
	settled, released bool
	next              int32 // free place after this one
}

// NewLocal returns an empty Local. It runs no goroutine and need not be closed.
func NewLocal(o Options) *Local {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.MaxWindows <= 0 {
		o.MaxWindows = 1 << 18
	}
	if o.MaxWindowsPerCompany <= 0 {
		o.MaxWindowsPerCompany = max(o.MaxWindows/16, 1)
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
	l := &Local{o: o, start: o.Now(), seed: maphash.MakeSeed()}
	for i := range l.shards {
		l.shards[i].companies = map[tenant.ID]*company{}
		l.shards[i].free = -1
	}
	return l
}

// now is the time since the start in ns; at least 1 minute, so that a bucket
// that was never used is full. The clock of the machine may be set; this one
// only runs on.
func (l *Local) now() int64 { return int64(l.o.Now().Sub(l.start)) + minute }

func (l *Local) shard(id tenant.ID) uint64 {
	return maphash.Comparable(l.seed, id) % shardCount
}

// Hold implements Limiter. It does no I/O and does not wait.
func (l *Local) Hold(_ context.Context, s tenant.Scope, a *Ask) (Hold, State, error) {
	id := s.ID()
	if len(a.Limits) == 0 && a.Model == nil && l.o.TotalConcurrent < 0 && l.o.CompanyConcurrent < 0 {
		return Hold{}, State{}, nil
	}
	d := decision{ask: a, tokens: min(max(a.Tokens, 0), maxLimit+1)}
	number := l.shard(id)
	for again := true; ; again = false {
		hold, full := l.decide(&d, number, id)
		if full && again && l.sweepAll() {
			continue // there may be room now
		}
		return hold, d.state, d.error(l)
	}
}

// decision is one Hold while it is made.
type decision struct {
	ask     *Ask
	tokens  int64
	windows [maxWindows]*window
	n       int
	state   State

	// Why not, at most one of these.
	at    int   // number of the window that blocks
	block block // of that window
	keys  bool  // too many windows of the company
	share bool  // the company has its share of open calls
	full  bool  // the gateway is full
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
	case d.block.what != nothing:
		return refusal(d.limited(d.at), d.block, d.tokens)
	case d.keys:
		return refuseKeys(l.o.MaxWindowsPerCompany)
	case d.share:
		return refuseShare(l.o.CompanyConcurrent)
	case d.full:
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
	now := l.now()
	if now-sh.swept >= sweepEvery {
		l.sweep(sh, now)
	}
	c := sh.companies[id]
	if c == nil {
		c = &company{windows: map[name]*window{}}
		sh.companies[id] = c
	}
	d.keys, d.full = false, false
	if full := l.find(d, c, now); full || d.keys {
		d.full = full
		return Hold{}, full
	}
	for i, w := range d.windows[:d.n] {
		w.adopt(d.limited(i).Limits, now)
		if b := w.room(d.tokens); b.what != nothing && d.block.what == nothing {
			d.at, d.block = i, b
		}
	}
	taken := d.block.what == nothing && l.takeOpen(d, c)
	for _, w := range d.windows[:d.n] {
		if taken {
			w.take(d.tokens)
		}
		w.tighten(&d.state)
	}
	if !taken {
		return Hold{}, false
	}
	place, turn := sh.place(d, c)
	return NewHold(l, HoldID{number<<32 | uint64(place), turn}, 0, l.o.Now()), false
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
			if len(c.windows) >= l.o.MaxWindowsPerCompany && !l.sweepCompany(c, now) {
				d.keys = true
				return false
			}
			if l.windows.Add(1) > int64(l.o.MaxWindows) {
				l.windows.Add(-1)
				return true
			}
			w = &window{touched: now}
			c.windows[n] = w
		}
		d.windows[i] = w
	}
	return false
}

// takeOpen counts one open call, unless that is one too many.
func (l *Local) takeOpen(d *decision, c *company) bool {
	if m := l.o.CompanyConcurrent; m >= 0 && c.open >= m {
		d.share = true
		return false
	}
	if m := l.o.TotalConcurrent; m >= 0 {
		for n := l.open.Load(); ; n = l.open.Load() {
			if n >= m {
				d.full = true
				return false
			}
			if l.open.CompareAndSwap(n, n+1) {
				break
			}
		}
	}
	c.open++
	c.refs++
	return true
}

// place writes the hold down and returns where.
func (sh *shard) place(d *decision, c *company) (int32, uint64) {
	i := sh.free
	if i < 0 {
		i = int32(len(sh.holds))
		sh.holds = append(sh.holds, held{next: -1})
	}
	h := &sh.holds[i]
	sh.free = h.next
	*h = held{turn: h.turn + 1, company: c, windows: d.windows, n: d.n, tokens: d.tokens, next: -1}
	return i, h.turn
}

// find returns the hold with that id, nil if it has ended.
func (sh *shard) find(id HoldID) *held {
	i := id[0] & 0xffffffff
	if i >= uint64(len(sh.holds)) {
		return nil
	}
	h := &sh.holds[i]
	if h.turn != id[1] || h.company == nil {
		return nil
	}
	return h
}

// Standing implements Limiter.
func (l *Local) Standing(context.Context, tenant.Scope, []*tenant.Budget) ([]Standing, error) {
	panic("BUG: not built yet")
}

// Shipped implements Limiter.
func (l *Local) Shipped(tenant.Scope, []string) {}

// Settle implements Ender.
func (l *Local) Settle(id HoldID, used Used) {
	sh := &l.shards[id[0]>>32]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	h := sh.find(id)
	if h == nil || h.settled {
		return
	}
	h.settled = true
	now := l.now()
	for _, w := range h.windows[:h.n] {
		w.pass(now)
		w.settle(h.tokens, used.Tokens)
	}
	sh.drop(h, id)
}

// Release implements Ender.
func (l *Local) Release(id HoldID) {
	sh := &l.shards[id[0]>>32]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	h := sh.find(id)
	if h == nil || h.released {
		return
	}
	h.released = true
	h.company.open--
	if l.o.TotalConcurrent >= 0 {
		l.open.Add(-1)
	}
	for _, w := range h.windows[:h.n] {
		w.open--
	}
	sh.drop(h, id)
}

// drop frees the place of a hold that is settled and released.
func (sh *shard) drop(h *held, id HoldID) {
	if !h.settled || !h.released {
		return
	}
	for _, w := range h.windows[:h.n] {
		w.refs--
	}
	h.company.refs--
	*h = held{turn: h.turn, next: sh.free} // the turn stays: this id never comes again
	sh.free = int32(id[0] & 0xffffffff)
}
