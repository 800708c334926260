package limiter

import (
	"context"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"bulkhead/redisdb"
	"bulkhead/tenant"
)

// redisCompany is what this gateway has of one company: the attempts that run
// here, and those that ended here and are not known to be in the store. It is
// all that is needed to make Redis know them again.
type redisCompany struct {
	id   tenant.ID
	keys []string
	uses int // Holds and other work under way; guarded by Redis.mu

	mu       sync.Mutex
	epoch    string                   // by which Redis knows what is here
	attempts map[string]*redisAttempt // by id
	taken    int                      // of attempts, those that Redis should know
	open     int64                    // calls
	inserted uint64                   // how many were taken
	joins    uint64                   // how often Redis has confirmed all that is here
	saying   int                      // how often it is being told, and may not know it yet
	periods  redisPeriods
	used     Allowance // of the allowance of this outage

	tell    []*redisAttempt // there is something to tell of them
	foreign []string        // ids that are in the store and are not of this gateway
	queued  bool            // for the flusher
	retryAt time.Time       // not to be flushed before
	failing int             // flushes in a row

	joining, opening, tidying single
	retryOpen                 time.Time // this and the next two are for who opens only
	doubt                     string    // the run in which it is said to be open,
	doubted                   time.Time // since when

	next      *redisRead // collects what is to be read
	busy      bool       // a goroutine reads
	retryRead time.Time
	tidied    time.Time
	touched   time.Time    // when somebody last entered; guarded by Redis.mu
	looked    atomic.Int64 // when look last did; nanoseconds
}

// redisAttempt is one attempt of this gateway. Its fields are guarded by its
// company's lock; those above the line do not change once it is taken.
type redisAttempt struct {
	number uint64
	id     string
	entry  bool // it has one in the ledger
	o      *redisCompany
	by     By
	need   need
	fields []string // of its limits per minute
	claim  string
	lost   func(error)
	at     int64 // microseconds
	nano   int64 // granted

	state             attemptState
	settled, released bool
	shipped           bool
	used              Used
	told              told
	queued            bool // in o.tell
}

type attemptState uint8

const (
	attemptAsked attemptState = iota // Redis is being asked
	attemptTaken
	attemptVoid // nobody took it, and Redis may have it or get it yet
)

// told is what Redis has confirmed of an attempt.
type told uint8

const (
	toldEnd told = 1 << iota
	toldRelease
	toldShipped
	toldVoid
)

// redisHolds finds attempts by number, which is what a Hold has.
type redisHolds struct {
	mu       sync.Mutex
	byNumber map[uint64]*redisAttempt
}

func (l *Redis) holdsOf(number uint64) *redisHolds { return &l.holds[number%uint64(len(l.holds))] }

func (l *Redis) find(id HoldID) *redisAttempt {
	h := l.holdsOf(id[0])
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.byNumber[id[0]]
}

// enter returns the company and keeps it until done.
func (l *Redis) enter(id tenant.ID) *redisCompany {
	l.mu.Lock()
	defer l.mu.Unlock()
	o := l.companies[id]
	if o == nil {
		tag := "bh:{" + id.String() + "}:"
		o = &redisCompany{id: id, keys: []string{tag + "counts", tag + "attempts", tag + "due", tag + "claims"}, attempts: map[string]*redisAttempt{}, tidied: time.Now()}
		o.looked.Store(time.Now().UnixNano())
		l.companies[id] = o
	}
	o.uses++
	o.touched = time.Now()
	return o
}

// done lets a company go. One of which there is nothing here is forgotten by
// dropIdle.
func (l *Redis) done(o *redisCompany) {
	l.mu.Lock()
	defer l.mu.Unlock()
	o.uses--
}

// all returns the companies for which so holds, each kept until done.
func (l *Redis) all(so func(*redisCompany) bool) []*redisCompany {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []*redisCompany
	for _, o := range l.companies {
		o.mu.Lock()
		ok := so(o)
		o.mu.Unlock()
		if ok {
			o.uses++
			all = append(all, o)
		}
	}
	return all
}

// idleAfter is when nobody has entered a company for so long that all is idle
// that may be, in Redis too.
const idleAfter = 3 * time.Minute

// dropIdle forgets companies of which there is nothing here, when they were
// tidied up behind the last who entered.
func (l *Redis) dropIdle() {
	over := l.Ready() == nil // the outage, if there was one
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, o := range l.companies {
		o.mu.Lock()
		if o.uses == 0 && len(o.attempts) == 0 && len(o.foreign) == 0 && !o.queued && !o.busy &&
			o.tidied.Sub(o.touched) > idleAfter && (over || o.used == Allowance{}) {
			delete(l.companies, id)
		}
		o.mu.Unlock()
	}
}

// begin takes one open call and one attempt of this gateway, unless that is one
// too many.
func (l *Redis) begin(o *redisCompany, a *Ask, n *need) (*redisAttempt, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if a.ID != "" && o.attempts[a.ID] != nil {
		panic("BUG: two attempts have the same id")
	}
	if m := l.o.CompanyConcurrent; m >= 0 && o.open >= m {
		return nil, refuseShare(m)
	}
	if len(o.attempts) >= l.o.MaxAttemptsPerCompany {
		return nil, refuseAttempts()
	}
	if m := l.o.TotalConcurrent; m >= 0 && !takeOne(&l.open, m) {
		return nil, refuseFull()
	}
	if !takeOne(&l.attempts, int64(l.o.MaxAttempts)) {
		l.endCall()
		return nil, refuseFull()
	}
	o.open++
	at := &redisAttempt{number: l.last.Add(1), id: a.ID, entry: a.ID != "", o: o, by: a.By, need: *n, claim: a.Claim, lost: a.Lost}
	if !at.entry {
		at.id = l.id + "-" + strconv.FormatUint(at.number, 10)
	}
	for i := range a.Limits {
		at.fields = append(at.fields, limitField(&a.Limits[i]))
	}
	if a.Model != nil {
		at.fields = append(at.fields, limitField(a.Model))
	}
	if len(at.fields) > maxWindows {
		panic("BUG: too many limits in one Ask")
	}
	o.attempts[at.id] = at
	return at, nil
}

// endCall counts that a call is no longer open in the gateway.
func (l *Redis) endCall() {
	if l.o.TotalConcurrent >= 0 {
		l.open.Add(-1)
	}
}

// take notes that the attempt is held. The caller holds the lock.
func (l *Redis) take(o *redisCompany, at *redisAttempt, moment, nano int64) {
	at.state, at.at, at.nano = attemptTaken, moment, nano
	o.taken++
	o.inserted++
	for {
		n := l.newest.Load()
		if n >= moment || l.newest.CompareAndSwap(n, moment) {
			break
		}
	}
	h := l.holdsOf(at.number)
	h.mu.Lock()
	h.byNumber[at.number] = at
	h.mu.Unlock()
}

// forgo ends the attempt of a Hold that failed. Where Redis may have taken it,
// it is told that nobody did.
func (l *Redis) forgo(o *redisCompany, at *redisAttempt) {
	l.endCall()
	o.mu.Lock()
	defer o.mu.Unlock()
	o.open--
	if at.state == attemptVoid {
		l.toTell(at)
		return
	}
	l.forget(at)
}

// forget drops an attempt of which Redis need know nothing any more. The caller
// holds the lock.
func (l *Redis) forget(at *redisAttempt) {
	if at.state == attemptTaken {
		at.o.taken--
	}
	delete(at.o.attempts, at.id)
	l.attempts.Add(-1)
}

// Settle implements Ender.
func (l *Redis) Settle(id HoldID, used Used) {
	at := l.find(id)
	if at == nil {
		return
	}
	at.o.mu.Lock()
	defer at.o.mu.Unlock()
	if at.settled {
		return
	}
	at.settled = true
	at.used = Used{Nano: min(max(used.Nano, 0), largest), Tokens: min(max(used.Tokens, 0), 2*maxLimit)}
	l.ended(at)
}

// Release implements Ender.
func (l *Redis) Release(id HoldID) {
	at := l.find(id)
	if at == nil {
		return
	}
	at.o.mu.Lock()
	defer at.o.mu.Unlock()
	if at.released {
		return
	}
	at.released = true
	at.o.open--
	l.endCall()
	l.ended(at)
}

// ended lets the hold go when it is settled and released, and tells Redis. The
// caller holds the lock.
func (l *Redis) ended(at *redisAttempt) {
	if at.settled && at.released {
		h := l.holdsOf(at.number)
		h.mu.Lock()
		delete(h.byNumber, at.number)
		h.mu.Unlock()
		if !at.entry {
			at.shipped = true
		}
	}
	l.toTell(at)
}

// maxForeign bounds the ids of other gateways that a company waits to tell.
const maxForeign = 1 << 16

// Shipped implements Limiter. Attempts that are not of this process are those of
// one before it, of which the ledger's journal knew: what Redis knows of them is
// less than what is in the store now, so that the company's budgets are read
// again.
func (l *Redis) Shipped(s tenant.Scope, ids []string) {
	o := l.enter(s.ID())
	defer l.done(o)
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, id := range ids {
		at := o.attempts[id]
		switch {
		case at != nil:
			at.shipped = true
			l.toTell(at)
		case id != "" && len(o.foreign) < maxForeign:
			o.foreign = append(o.foreign, id)
			l.queue(o)
		}
	}
}

// toTell has the flusher tell Redis what it does not know of the attempt. The
// caller holds the lock.
func (l *Redis) toTell(at *redisAttempt) {
	if !at.queued && at.untold() != 0 {
		at.queued = true
		at.o.tell = append(at.o.tell, at)
		l.queue(at.o)
	}
}

// untold is what Redis does not know of the attempt.
func (at *redisAttempt) untold() (n told) {
	switch {
	case at.state == attemptVoid:
		n = toldVoid
	case at.state == attemptTaken:
		if at.settled {
			n |= toldEnd
		}
		if at.released {
			n |= toldRelease
		}
		if at.shipped && at.settled && at.released {
			n |= toldShipped
		}
	}
	return n &^ at.told
}

// confirm notes what Redis has confirmed. The caller holds the lock.
func (l *Redis) confirm(at *redisAttempt, n told) {
	at.told |= n
	if n&(toldShipped|toldVoid) != 0 && at.o.attempts[at.id] == at {
		l.forget(at)
	}
}

// single is work that is done once while many wait for it.
type single struct {
	mu  sync.Mutex
	now *once // nil while nobody works
}

type once struct {
	done chan struct{}
	err  error // set before done is closed
}

// once does the work, or waits for it where it is being done. It has a time of
// its own: who waits may leave.
func (l *Redis) once(ctx context.Context, s *single, work func(ctx context.Context) error) error {
	s.mu.Lock()
	now := s.now
	if now == nil {
		now = &once{done: make(chan struct{}), err: redisdb.ErrDown}
		if !l.spawn(func() {
			own, cancel := context.WithTimeout(context.Background(), l.behind())
			defer cancel()
			err := work(own)
			s.mu.Lock()
			now.err, s.now = err, nil
			s.mu.Unlock()
			close(now.done)
		}) {
			s.mu.Unlock()
			return redisdb.ErrDown
		}
		s.now = now
	}
	s.mu.Unlock()
	select {
	case <-now.done:
		return now.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
