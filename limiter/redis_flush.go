package limiter

import (
	"context"
	"slices"
	"sync"
	"time"

	"bulkhead/redisdb"
)

const (
	flushAtOnce = 64  // companies in one round trip
	tellAtOnce  = 100 // attempts of a company in one script

	// flushPause is how long a company waits after a flush that failed; it
	// doubles up to flushPauseMax.
	flushPause    = 20 * time.Millisecond
	flushPauseMax = time.Second
)

// flusher tells Redis what has become of attempts, behind the requests.
type flusher struct {
	mu    sync.Mutex
	queue []*redisCompany
	wake  chan struct{}
	busy  bool          // something is under way
	idle  chan struct{} // closed when there is nothing to tell, nil if nobody waits
}

func (f *flusher) init() { f.wake = make(chan struct{}, 1) }

// queue has a company flushed. The caller holds its lock.
func (l *Redis) queue(o *redisCompany) {
	if o.queued {
		return
	}
	o.queued = true
	f := &l.flusher
	f.mu.Lock()
	f.queue = append(f.queue, o)
	f.mu.Unlock()
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// Flush waits until Redis knows what became of all attempts.
func (l *Redis) Flush(ctx context.Context) error {
	f := &l.flusher
	for {
		f.mu.Lock()
		if len(f.queue) == 0 && !f.busy {
			f.mu.Unlock()
			return nil
		}
		if f.idle == nil {
			f.idle = make(chan struct{})
		}
		idle := f.idle
		f.mu.Unlock()
		select {
		case <-idle:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// keepFlushing is the flusher's goroutine.
func (l *Redis) keepFlushing(ctx context.Context) {
	f := &l.flusher
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		batch, wait := l.nextBatch()
		if len(batch) > 0 {
			l.flush(ctx, batch)
			continue
		}
		timer.Reset(wait)
		select {
		case <-f.wake:
		case <-timer.C:
		case <-ctx.Done():
			return
		}
	}
}

// nextBatch takes the companies whose turn it is, or says how long that takes.
func (l *Redis) nextBatch() (batch []*redisCompany, wait time.Duration) {
	f := &l.flusher
	f.mu.Lock()
	queue := f.queue
	f.queue, f.busy = nil, true
	f.mu.Unlock()
	now := time.Now()
	wait = time.Hour
	var later []*redisCompany
	for _, o := range queue {
		o.mu.Lock()
		left := o.retryAt.Sub(now)
		o.mu.Unlock()
		if left > 0 || len(batch) == flushAtOnce {
			later, wait = append(later, o), min(wait, max(left, 0))
		} else {
			batch = append(batch, o)
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.queue = append(later, f.queue...)
	f.busy = len(batch) > 0
	if !f.busy && len(f.queue) == 0 && f.idle != nil {
		close(f.idle)
		f.idle = nil
	}
	return batch, wait
}

// long is how long one step of work behind the requests may take, behind all of
// it.
func (l *Redis) long() time.Duration   { return 5 * l.o.Patience }
func (l *Redis) behind() time.Duration { return 4 * l.long() }

// flush tells Redis what there is to tell of some companies.
func (l *Redis) flush(ctx context.Context, batch []*redisCompany) {
	all := make([]telling, len(batch))
	calls := make([]redisdb.Call, len(batch))
	for i, o := range batch {
		all[i] = l.telling(o)
		calls[i] = redisdb.Call{Script: scriptFlush, Keys: o.keys, Args: all[i].args}
	}
	asked := time.Now()
	for i, result := range l.c.RunAll(ctx, l.long(), calls) {
		l.toldAll(&all[i], asked, result)
	}
}

// telling is what is told of a company at once.
type telling struct {
	o        *redisCompany
	args     []string
	attempts []*redisAttempt
	what     []told
	foreign  int
}

func (l *Redis) telling(o *redisCompany) telling {
	o.mu.Lock()
	defer o.mu.Unlock()
	t := telling{o: o, args: l.head(o.believed())}
	op := func(what, id string, nano, tokens int64) { t.args = append(t.args, what, id, text(nano), text(tokens)) }
	for len(o.tell) > 0 && len(t.attempts) < tellAtOnce {
		at := o.tell[0]
		o.tell = o.tell[1:]
		at.queued = false
		n := at.untold()
		if n&toldVoid != 0 {
			op("x", at.id, 0, 0)
		}
		if n&toldEnd != 0 {
			op("e", at.id, at.used.Nano, at.used.Tokens)
		}
		if n&toldRelease != 0 {
			op("r", at.id, 0, 0)
		}
		if n&toldShipped != 0 {
			op("s", at.id, 0, 0)
		}
		t.attempts, t.what = append(t.attempts, at), append(t.what, n)
	}
	t.foreign = min(len(o.foreign), tellAtOnce)
	for _, id := range o.foreign[:t.foreign] {
		op("s", id, 0, 0)
	}
	return t
}

// toldAll takes in what Redis said to it.
func (l *Redis) toldAll(t *telling, asked time.Time, result redisdb.Result) {
	o := t.o
	r := &reader{reply: result.Reply}
	what := ""
	if result.Err == nil {
		what = r.text()
	}
	o.mu.Lock()
	o.queued = false
	if what == "ok" {
		for i, at := range t.attempts {
			l.confirm(at, t.what[i])
		}
		o.foreign = slices.Delete(o.foreign, 0, t.foreign)
		o.failing, o.retryAt = 0, time.Time{}
	} else {
		o.retryAt = time.Now().Add(min(flushPause<<min(o.failing, 10), flushPauseMax))
		o.failing++
	}
	for _, at := range t.attempts {
		l.toTell(at)
	}
	if len(o.foreign) > 0 || len(o.tell) > 0 {
		l.queue(o)
	}
	o.mu.Unlock()
	switch what {
	case "join":
		l.background(o, l.join)
	case "closed":
		c := r.closed(asked)
		l.background(o, func(ctx context.Context, o *redisCompany) error { return l.reopen(ctx, o, c) })
	}
}

// background does something about a company behind the requests.
func (l *Redis) background(o *redisCompany, do func(context.Context, *redisCompany) error) {
	l.spawn(func() { _ = do(context.Background(), o) }) // the next flush comes back to it
}

// keepLeases renews the leases of what runs here, and tidies up.
func (l *Redis) keepLeases(ctx context.Context) {
	tick := time.NewTicker(l.o.Lease / 6)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			l.renew(ctx)
			l.tidyAll(ctx)
			l.dropIdle()
		case <-ctx.Done():
			return
		}
	}
}

// renew says of every attempt that runs that its owner lives.
func (l *Redis) renew(ctx context.Context) {
	var calls []redisdb.Call
	var of []*redisCompany
	send := func() {
		asked := time.Now()
		for i, result := range l.c.RunAll(ctx, l.long(), calls) {
			l.renewed(of[i], asked, result)
		}
		calls, of = nil, nil
	}
	for _, o := range l.all(func(o *redisCompany) bool { return o.taken > 0 }) {
		defer l.done(o)
		for ids := range slices.Chunk(o.running(), tellAtOnce) {
			args := l.head(o.known())
			for _, id := range ids {
				args = append(args, "l", id, "0", "0")
			}
			calls, of = append(calls, redisdb.Call{Script: scriptFlush, Keys: o.keys, Args: args}), append(of, o)
			if len(calls) == flushAtOnce {
				send()
			}
		}
	}
	send()
}

func (l *Redis) renewed(o *redisCompany, asked time.Time, result redisdb.Result) {
	if result.Err != nil {
		return // the next one comes before the lease ends
	}
	r := &reader{reply: result.Reply}
	switch r.text() {
	case "ok":
		r.text()
		l.loseAll(o, r.texts())
	case "join":
		l.background(o, l.join)
	case "closed":
		c := r.closed(asked)
		l.background(o, func(ctx context.Context, o *redisCompany) error { return l.reopen(ctx, o, c) })
	}
}

// running are the ids of what runs, with holds or as open calls.
func (o *redisCompany) running() (ids []string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for id, at := range o.attempts {
		if at.state == attemptTaken && !(at.settled && at.released) {
			ids = append(ids, id)
		}
	}
	return ids
}

func (o *redisCompany) known() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.believed()
}

// loseAll tells the owners of attempts that their lease was over.
func (l *Redis) loseAll(o *redisCompany, ids []string) {
	var tell []func(error)
	o.mu.Lock()
	for _, id := range ids {
		if at := o.attempts[id]; at != nil && at.state == attemptTaken && !at.settled && at.lost != nil {
			tell = append(tell, at.lost)
			at.lost = nil
			l.lost.Add(1)
		}
	}
	o.mu.Unlock()
	for _, lost := range tell {
		lost(errLost)
	}
}

// tidyAll tidies the companies that somebody entered since, and once more when
// all may be idle.
func (l *Redis) tidyAll(ctx context.Context) {
	now := time.Now()
	for _, o := range l.all(func(o *redisCompany) bool {
		return now.Sub(o.tidied) > 2*time.Minute && o.tidied.Sub(o.touched) <= idleAfter
	}) {
		if ctx.Err() == nil {
			some, cancel := context.WithTimeout(ctx, l.behind())
			_ = l.tidy(some, o, false) // the next time
			cancel()
		}
		l.done(o)
	}
}

// tidy drops what is idle of a company in Redis.
func (l *Redis) tidy(ctx context.Context, o *redisCompany, hard bool) error {
	return l.once(ctx, &o.tidying, func(ctx context.Context) error {
		o.mu.Lock()
		o.tidied = time.Now()
		o.mu.Unlock()
		how := ""
		if hard {
			how = "hard"
		}
		for cursor := "0"; ; {
			reply, err := l.c.Run(ctx, scriptTidy, o.keys, append(l.head(o.known()), cursor, how))
			if err != nil {
				return err
			}
			r := &reader{reply: reply}
			if r.text() != "tidy" {
				return nil // whoever asks next sees to it
			}
			if cursor = r.text(); cursor == "0" || r.bad != nil {
				return r.bad
			}
		}
	})
}
