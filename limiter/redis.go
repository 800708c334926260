package limiter

import (
	"context"
	"crypto/rand"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"bulkhead/fault"
	"bulkhead/redisdb"
	"bulkhead/tenant"
)

// RedisOptions bound a Redis. Zero values take the defaults. Of Options it takes
// Book, BookTimeout, Now, MaxWindowsPerCompany (a company's in Redis),
// MaxAttempts, MaxAttemptsPerCompany, TotalConcurrent and CompanyConcurrent (of
// this gateway). All gateways over one Redis must have the same Lease and
// Heartbeat.
type RedisOptions struct {
	Options
	// Gateway names this gateway to whoever looks into Redis. Each process has a
	// name of its own besides.
	Gateway string
	// Lease is how long a hold outlives the last sign of life of its gateway;
	// then all of it is booked as spent. Default 30 s.
	Lease time.Duration
	// Heartbeat is how often a gateway says that it lives. It is taken for dead
	// when three are missing. Default 2 s.
	Heartbeat time.Duration
	// Patience is how long a Hold waits for Redis, over all its round trips;
	// default 230 ms. Work behind requests waits five times as long.
	Patience time.Duration
	// Allow says what a company may use while Redis is away; nil is nothing. It
	// is asked for calls with the company's own credential only.
	Allow func(s tenant.Scope) Allowance
}

// Allowance is what one company may use in one gateway during one outage of
// Redis, without a look at its limits and budgets. Both bounds hold; 0 is
// nothing. What is used of it is counted when Redis is back.
type Allowance struct {
	Nano     int64 // nano-USD, at the worst case of each attempt
	Requests int64 // attempts
}

func (o RedisOptions) withDefaults() RedisOptions {
	o.Options = NewLocal(o.Options).o // the same defaults
	if o.Lease <= 0 {
		o.Lease = 30 * time.Second
	}
	if o.Heartbeat <= 0 {
		o.Heartbeat = 2 * time.Second
	}
	if o.Patience <= 0 {
		o.Patience = 230 * time.Millisecond
	}
	return o
}

// Redis is the Limiter of many gateways that share a Redis server. See
// docs/redis.md for what is kept there and what happens when it is lost.
//
// A decision is one script. What becomes of an attempt afterwards is told to
// Redis behind the requests, until Redis has confirmed it, and may be told twice:
// every script is written so that it may come again, and late.
type Redis struct {
	o   RedisOptions
	c   *redisdb.Client
	id  string        // of this process in the registry and in holds
	now func() string // the moment that decides, "" for Redis' own clock: tests only

	mu        sync.Mutex
	companies map[tenant.ID]*redisCompany
	holds     [16]redisHolds
	last      atomic.Uint64 // number of a hold
	open      atomic.Int64  // calls of this gateway
	attempts  atomic.Int64  // known to it
	offset    atomic.Int64  // of Redis' clock to this one's, microseconds
	newest    atomic.Int64  // moment of any hold, microseconds
	reading   chan struct{} // of a Book at the moment

	flusher  flusher
	registry registry
	stop     context.CancelFunc
	stopped  sync.WaitGroup
	closing  sync.Once
	closed   bool // guarded by mu: nothing new is started

	counters      counters
	lost, allowed atomic.Int64
}

var (
	_ Limiter = (*Redis)(nil)
	_ Ender   = (*Redis)(nil)
)

// OpenRedis returns the Limiter over c, which it does not close. It does not
// wait for the server; see Ready.
func OpenRedis(c *redisdb.Client, o RedisOptions) *Redis {
	l := &Redis{o: o.withDefaults(), c: c, companies: map[tenant.ID]*redisCompany{}}
	l.id = l.o.Gateway + "~" + rand.Text()[:10]
	l.now = func() string { return "" }
	l.reading = make(chan struct{}, maxReading)
	for i := range l.holds {
		l.holds[i].byNumber = map[uint64]*redisAttempt{}
	}
	l.flusher.init()
	ctx, stop := context.WithCancel(context.Background())
	l.stop = stop
	l.stopped.Go(func() { l.keepRegistry(ctx) })
	l.stopped.Go(func() { l.keepFlushing(ctx) })
	l.stopped.Go(func() { l.keepLeases(ctx) })
	return l
}

// Close tells Redis what it does not know yet, for two seconds at most, and ends
// all work. Attempts that still run keep their hold until its lease ends.
func (l *Redis) Close() error {
	var err error
	l.closing.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		err = l.Flush(ctx)
		l.mu.Lock()
		l.closed = true
		l.mu.Unlock()
		l.stop()
		l.stopped.Wait()
		l.leave()
	})
	return err
}

// Hold implements Limiter.
func (l *Redis) Hold(ctx context.Context, s tenant.Scope, a *Ask) (Hold, State, error) {
	id := s.ID()
	checkBudgets(a)
	h := &holding{l: l, s: s, ask: a, need: needOf(a)}
	o := l.enter(id)
	defer l.done(o)
	at, err := l.begin(o, a, &h.need)
	if err != nil {
		l.counters.full.Add(1)
		return Hold{}, State{}, err
	}
	if err := h.decide(ctx, o, at); err != nil {
		l.forgo(o, at)
		return Hold{}, h.state, err
	}
	granted := int64(0)
	if h.state.HasBudget {
		granted = at.nano
	}
	l.look(s, o)
	return NewHold(l, HoldID{at.number}, granted, time.UnixMicro(at.at).UTC()), h.state, nil
}

// spawn runs work that Close waits for, and reports whether it does.
func (l *Redis) spawn(work func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		l.stopped.Go(work)
	}
	return !l.closed
}

// holding is one Hold while it is made.
type holding struct {
	l     *Redis
	s     tenant.Scope
	ask   *Ask
	need  need
	state State

	until  time.Time // of waiting for Redis
	ends   time.Time // of waiting for the Book
	tidied bool
}

var (
	errClosed = errors.New("not all gateways have said yet what they hold of the company")
	errVoid   = errors.New("the gateway said anew what it has of the company while the hold was made")
	errTries  = errors.New("the company changes too fast")
)

// decide asks until there is a decision. All but the first time is for what is
// rare: a period nobody has counted, a company nobody has opened.
func (h *holding) decide(ctx context.Context, o *redisCompany, at *redisAttempt) error {
	h.until = time.Now().Add(h.l.o.Patience)
	for range maxTries {
		if done, err := h.step(ctx, o, at); done || err != nil {
			return err
		}
	}
	return h.l.away(errTries)
}

// step asks once, and does what has to be done before it is asked again.
func (h *holding) step(ctx context.Context, o *redisCompany, at *redisAttempt) (done bool, err error) {
	l := h.l
	quick, cancel := context.WithDeadline(ctx, h.until)
	defer cancel()
	if err := l.c.Health().Fit(); err != nil {
		return true, h.outage(o, at, err)
	}
	r, err := h.send(quick, o, at)
	if err != nil {
		return true, h.outage(o, at, err)
	}
	switch r.what {
	case "held":
		h.finish(r)
		return true, nil
	case "full":
		return true, h.refused(r)
	case "claimed":
		return true, refuseClaimed()
	case "count":
		err := l.awaitCounts(ctx, h.s, o, h.ask.Budgets, r.uncounted, &h.ends)
		if err != nil && err != errNotOpen {
			return true, l.uncounted(err)
		}
		h.until = time.Now().Add(l.o.Patience) // the Book had a time of its own
	case "join":
		err = l.join(quick, o)
	case "closed":
		err = l.reopen(quick, o, r.closed)
	case "clock":
		l.offset.Store(r.at - l.o.Now().UnixMicro())
	case "many":
		if h.tidied {
			l.counters.full.Add(1)
			return true, refuseKeys(l.o.MaxWindowsPerCompany)
		}
		h.tidied = true
		err = l.tidy(quick, o, true)
	default:
		err = unexpected(r.what)
	}
	if err != nil {
		return true, h.outage(o, at, err)
	}
	return false, nil
}

// finish sets the state.
func (h *holding) finish(r *holdReply) {
	for i := range r.windows {
		r.windows[i].tighten(&h.state)
	}
	for i, b := range h.ask.Budgets {
		c := &r.counts[i]
		if b.Unit != tenant.USD || !c.known {
			continue
		}
		if rest := left(b.Limit, c.used.Nano, c.held.Nano); !h.state.HasBudget || rest < h.state.RemainingNano {
			h.state.HasBudget, h.state.RemainingNano = true, rest
		}
	}
}

// refused finds out why Redis found no room: it sees what the script saw.
func (h *holding) refused(r *holdReply) error {
	h.finish(r)
	for i := range r.windows {
		if b := r.windows[i].room(h.need.requests, h.need.tokens); b.what != nothing {
			h.l.counters.limited.Add(1)
			return refusal(h.limited(i), b, h.need.tokens)
		}
	}
	for i, b := range h.ask.Budgets {
		c := &r.counts[i]
		n := h.need.of(b.Unit)
		why := lackOf(b.Limit, c.used.Of(b.Unit), c.held.Of(b.Unit), n)
		if why == lackNothing {
			continue
		}
		if why == lackHeld {
			h.l.counters.held.Add(1)
		} else {
			h.l.counters.spent.Add(1)
		}
		return refuseBudget(b, why, c.standing(b.Unit), n, time.UnixMicro(r.at))
	}
	panic("BUG: Redis refuses a call for which there is room")
}

func (h *holding) limited(i int) *tenant.Limited {
	if i < len(h.ask.Limits) {
		return &h.ask.Limits[i]
	}
	return h.ask.Model
}

// away is the error where Redis cannot decide.
func (l *Redis) away(cause error) error {
	l.counters.uncounted.Add(1)
	e := fault.Wrap(fault.Unavailable, cause, "The gateway cannot count what is used at the moment. Try again later.")
	e.RetryAfter = openWait
	return e
}

func (l *Redis) uncounted(cause error) error {
	l.counters.uncounted.Add(1)
	return refuseUncounted(cause)
}

// RedisStats are what a Redis has at the moment, and what it has done.
type RedisStats struct {
	Stats            // of this gateway; Windows is 0: they are in Redis
	Calls      int64 // scripts and commands
	Unanswered int64 // of these, those that Redis did not answer
	Waiting    int64 // companies of which Redis does not know all yet
	Lost       int64 // holds of which the lease ended while they ran
	Allowed    int64 // attempts that were admitted while Redis was away
}

// Stats returns what l has and has done.
func (l *Redis) Stats() RedisStats {
	n, c := &l.counters, l.c.Stats()
	st := RedisStats{Calls: c.Calls, Unanswered: c.Unanswered, Lost: l.lost.Load(), Allowed: l.allowed.Load(), Stats: Stats{
		Attempts: l.attempts.Load(), Reads: n.reads.Load(), FailedReads: n.failedReads.Load(),
		RefusedByLimit: n.limited.Load(), RefusedBySpent: n.spent.Load(), RefusedByHeld: n.held.Load(),
		RefusedFull: n.full.Load(), RefusedUncounted: n.uncounted.Load(),
	}}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, o := range l.companies {
		o.mu.Lock()
		st.Companies++
		st.Open += o.open
		if o.queued {
			st.Waiting++
		}
		for _, at := range o.attempts {
			if at.state == attemptTaken && !at.settled {
				st.HeldNano += at.nano
			}
		}
		o.mu.Unlock()
	}
	return st
}
