package limiter

import (
	"math/bits"
	"time"

	"bulkhead/tenant"
)

// The arithmetic. Everything here is given the time and touches nothing else.
// All of it is exact: a token is refilled in minute/limit nanoseconds, which is
// seldom a whole number, so what is left over is kept as a fraction.

const (
	minute = int64(time.Minute)

	// maxLimit bounds limits and asks. It is far above any real one, and so low
	// that what a million calls hold can be added up in an int64.
	maxLimit = 1 << 43

	// openWait is the wait advised where only the end of another call makes
	// room, which nobody can foresee.
	openWait = time.Second
)

// bucket counts what was used of a limit per minute: used - part/minute.
type bucket struct {
	used int64
	part int64 // below minute; 0 if used is 0
	at   int64 // ns, up to when refills are counted
}

// refill lets the time pass up to now. A clock that goes back stands still.
func (b *bucket) refill(limit, now int64) {
	elapsed := now - b.at
	if elapsed > 0 {
		b.at = now
	}
	if limit <= 0 || elapsed > 3*minute { // owes at most two minutes
		b.used, b.part = 0, 0
		return
	}
	b.cap(limit)
	if b.used == 0 || elapsed <= 0 {
		return
	}
	hi, lo := bits.Mul64(uint64(limit), uint64(elapsed))
	lo, carry := bits.Add64(lo, uint64(b.part), 0)
	whole, part := bits.Div64(hi+carry, lo, uint64(minute)) // below 3*limit: never overflows
	if whole >= uint64(b.used) {
		b.used, b.part = 0, 0
		return
	}
	b.used -= int64(whole)
	b.part = int64(part)
}

// cap forgives what is owed beyond one more minute's worth: a limit that was
// lowered, or one wild report of a provider, must not close a key for hours.
func (b *bucket) cap(limit int64) {
	if b.used > 2*limit {
		b.used, b.part = 2*limit, 0
	}
}

// book counts n units as used. The bucket must be refilled up to now.
func (b *bucket) book(limit, n int64) {
	b.used += min(max(n, 0), 2*maxLimit)
	b.cap(limit)
}

// until returns how long it takes until at most target is used, rounded up.
func (b *bucket) until(limit, target int64) time.Duration {
	if b.used <= target {
		return 0
	}
	hi, lo := bits.Mul64(uint64(b.used-target), uint64(minute))
	lo, borrow := bits.Sub64(lo, uint64(b.part), 0)
	hi -= borrow
	lo, carry := bits.Add64(lo, uint64(limit-1), 0)  // round up
	ns, _ := bits.Div64(hi+carry, lo, uint64(limit)) // used is at most 2*limit: never overflows
	return time.Duration(ns)
}

// window is the state of one Limited.
type window struct {
	limits   tenant.Limits // as last seen; 0 is none
	requests bucket
	tokens   bucket
	held     int64 // tokens of holds that are not settled
	open     int64 // holds that are not released
	refs     int64 // holds that point here; such a window is not dropped
	touched  int64 // ns
}

// adopt sets the limits and lets the time pass.
func (w *window) adopt(l tenant.Limits, now int64) {
	w.limits = tenant.Limits{
		RequestsPerMinute: min(max(l.RequestsPerMinute, 0), maxLimit),
		TokensPerMinute:   min(max(l.TokensPerMinute, 0), maxLimit),
		Concurrent:        max(l.Concurrent, 0),
	}
	w.pass(now)
}

func (w *window) pass(now int64) {
	w.requests.refill(w.limits.RequestsPerMinute, now)
	w.tokens.refill(w.limits.TokensPerMinute, now)
	w.touched = now
}

// idle reports whether w is the same as a new window: whatever was owed has
// been refilled.
func (w *window) idle(now int64) bool { return w.refs == 0 && now-w.touched > 2*minute }

// block says which limit of a window has no room.
type block struct {
	what  what
	limit int64
	used  int64 // booked, or open calls
	held  int64 // tokens of running calls
	wait  time.Duration
}

type what uint8

const (
	nothing what = iota
	openCalls
	requests
	tokens
	tokensEver // the call alone is over the limit
)

// room returns what stands in the way of one more call of that many requests, 0
// or 1, and n tokens.
func (w *window) room(requested, n int64) block {
	l := w.limits
	if l.Concurrent > 0 && w.open >= l.Concurrent {
		return block{what: openCalls, limit: l.Concurrent, used: w.open, wait: openWait}
	}
	if r := l.RequestsPerMinute; r > 0 && requested > 0 && w.requests.used+requested > r {
		return block{what: requests, limit: r, used: w.requests.used, wait: w.requests.until(r, r-1)}
	}
	if t := l.TokensPerMinute; t > 0 && w.tokens.used+w.held+n > t {
		b := block{what: tokens, limit: t, used: w.tokens.used, held: w.held}
		switch target := t - w.held - n; {
		case n > t:
			b.what = tokensEver
		case target < 0: // running calls must end first
			b.wait = max(openWait, w.tokens.until(t, 0))
		default:
			b.wait = w.tokens.until(t, target)
		}
		return b
	}
	return block{}
}

// take takes one call of that many requests and n tokens, for which there must
// be room.
func (w *window) take(requested, n int64) {
	if w.limits.RequestsPerMinute > 0 {
		w.requests.used += requested
	}
	w.held += n
	w.open++
	w.refs++
}

// settle books used tokens in place of the n held. The window must be passed
// up to now.
func (w *window) settle(n, used int64) {
	w.held -= n
	if t := w.limits.TokensPerMinute; t > 0 {
		w.tokens.book(t, used)
	}
}

// tighten notes in st what is left in w, where that is less than st says.
func (w *window) tighten(st *State) {
	if l := w.limits.RequestsPerMinute; l > 0 {
		if left := max(l-w.requests.used, 0); !st.HasRequests || left < st.RemainingRequests {
			st.HasRequests, st.LimitRequests, st.RemainingRequests = true, l, left
			st.ResetRequests = w.requests.until(l, 0)
		}
	}
	if l := w.limits.TokensPerMinute; l > 0 {
		if left := max(l-w.tokens.used-w.held, 0); !st.HasTokens || left < st.RemainingTokens {
			st.HasTokens, st.LimitTokens, st.RemainingTokens = true, l, left
			all := w.tokens
			all.book(l, w.held)
			st.ResetTokens = all.until(l, 0)
		}
	}
}
