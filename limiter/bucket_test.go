package limiter

import (
	"math/big"
	"testing"
	"time"

	"pgregory.net/rapid"

	"bulkhead/tenant"
)

// reference is the same window in plain fractions: slow, and easy to believe.
type reference struct {
	limits           tenant.Limits
	requests, tokens *big.Rat // used
	held, open       int64
	at               int64
}

func (r *reference) pass(l tenant.Limits, now int64) {
	if now > r.at {
		faded := func(used *big.Rat, limit, elapsed int64) {
			used.Sub(used, new(big.Rat).Mul(big.NewRat(limit, minute), big.NewRat(elapsed, 1)))
			if used.Sign() < 0 {
				used.SetInt64(0)
			}
		}
		elapsed := now - r.at
		faded(r.requests, l.RequestsPerMinute, elapsed)
		faded(r.tokens, l.TokensPerMinute, elapsed)
		r.at = now
	}
	r.limits = l
}

// most is what may be owed: one more minute's worth.
func most(used *big.Rat, limit int64) {
	if used.Cmp(big.NewRat(2*limit, 1)) > 0 {
		used.SetInt64(2 * limit)
	}
}

func (r *reference) room(n int64) what {
	over := func(used *big.Rat, more, limit int64) bool {
		return new(big.Rat).Add(used, big.NewRat(more, 1)).Cmp(big.NewRat(limit, 1)) > 0
	}
	switch {
	case r.limits.Concurrent > 0 && r.open >= r.limits.Concurrent:
		return openCalls
	case over(r.requests, 1, r.limits.RequestsPerMinute):
		return requests
	case n > r.limits.TokensPerMinute:
		return tokensEver
	case over(r.tokens, r.held+n, r.limits.TokensPerMinute):
		return tokens
	}
	return nothing
}

// limitRange has limits that divide a minute and those that do not, small and large.
var limitRange = rapid.OneOf(rapid.Int64Range(1, 20), rapid.Int64Range(1, 1000), rapid.SampledFrom([]int64{60, 7, 1_000_003, 300_000_000, maxLimit}))

var elapsedRange = rapid.OneOf(rapid.Int64Range(0, 50), rapid.Int64Range(0, int64(time.Second)), rapid.Int64Range(0, minute/2), rapid.Int64Range(minute, 5*minute))

// A window decides as the reference does, at every step of any history.
func TestWindowIsTheReference(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := tenant.Limits{
			RequestsPerMinute: limitRange.Draw(t, "rpm"),
			TokensPerMinute:   limitRange.Draw(t, "tpm"),
			Concurrent:        rapid.Int64Range(0, 10).Draw(t, "concurrent"),
		}
		now := minute
		w := &window{touched: now}
		r := &reference{requests: new(big.Rat), tokens: new(big.Rat), at: now}
		var held []int64
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			now += elapsedRange.Draw(t, "elapsed")
			w.adopt(l, now)
			r.pass(l, now)
			if len(held) > 0 && rapid.Bool().Draw(t, "end") {
				n := held[0]
				held = held[1:]
				used := rapid.Int64Range(0, n+n/4).Draw(t, "used") // a provider may report more
				w.settle(n, used)
				w.open--
				w.refs--
				r.held -= n
				r.tokens.Add(r.tokens, big.NewRat(used, 1))
				most(r.tokens, l.TokensPerMinute)
				r.open--
			} else {
				n := rapid.Int64Range(0, l.TokensPerMinute+l.TokensPerMinute/8).Draw(t, "tokens")
				got, want := w.room(1, n), r.room(n)
				if got.what != want {
					t.Fatalf("got %+v, want %d: %+v, reference %v %v", got, want, w, r.requests, r.tokens)
				}
				if got.what == nothing {
					w.take(1, n)
					held = append(held, n)
					r.held += n
					r.open++
					r.requests.Add(r.requests, big.NewRat(1, 1))
				} else {
					checkWait(t, w, l, now, n, got)
				}
			}
			checkState(t, w, r, l)
		}
	})
}

// checkWait shows that the wait is enough, and that a nanosecond less is not,
// unless the end of another call is waited for.
func checkWait(t *rapid.T, w *window, l tenant.Limits, now, n int64, b block) {
	if b.what == tokensEver || b.what == openCalls || b.what == tokens && l.TokensPerMinute-w.held-n < 0 {
		return
	}
	at := func(d time.Duration) what {
		later := *w
		later.adopt(l, now+int64(d))
		return later.room(1, n).what
	}
	if b.wait <= 0 || at(b.wait) == b.what {
		t.Fatalf("still refused after the wait of %s: %+v", b.wait, b)
	}
	if at(b.wait-1) != b.what {
		t.Fatalf("the wait of %s is too long: %+v", b.wait, b)
	}
}

func checkState(t *rapid.T, w *window, r *reference, l tenant.Limits) {
	left := func(used *big.Rat, held, limit int64) int64 {
		x := new(big.Rat).Sub(big.NewRat(limit-held, 1), used)
		if x.Sign() < 0 {
			return 0
		}
		return new(big.Int).Quo(x.Num(), x.Denom()).Int64()
	}
	var st State
	w.tighten(&st)
	wantR, wantT := left(r.requests, 0, l.RequestsPerMinute), left(r.tokens, r.held, l.TokensPerMinute)
	if st.RemainingRequests != wantR || st.RemainingTokens != wantT {
		t.Fatalf("left %d and %d, want %d and %d", st.RemainingRequests, st.RemainingTokens, wantR, wantT)
	}
}

// In no span of time are more requests admitted than the limit for that span
// and one burst, and as many as that if someone keeps asking.
func TestNoSpanAdmitsMore(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit := rapid.Int64Range(1, 300).Draw(t, "limit")
		l := tenant.Limits{RequestsPerMinute: limit}
		now := minute
		w := &window{touched: now}
		var admitted []int64
		for range rapid.IntRange(1, 20).Draw(t, "bursts") {
			now += elapsedRange.Draw(t, "elapsed")
			for range rapid.Int64Range(1, limit+5).Draw(t, "asks") {
				w.adopt(l, now)
				if w.room(1, 0).what == nothing {
					w.take(1, 0)
					admitted = append(admitted, now)
				}
			}
		}
		for i := range admitted {
			for j := i; j < len(admitted); j++ {
				span := admitted[j] - admitted[i]
				if bound := limit + limit*span/minute; int64(j-i+1) > bound {
					t.Fatalf("%d admitted in %s, bound %d", j-i+1, time.Duration(span), bound)
				}
			}
		}
	})
}

// Whoever asks all the time gets the whole limit, to the last one.
func TestFullRate(t *testing.T) {
	f := func(limit int64) {
		t.Helper()
		l := tenant.Limits{RequestsPerMinute: limit}
		w := &window{}
		n := int64(0)
		for now := minute; now <= 11*minute; now += int64(7 * time.Millisecond) {
			w.adopt(l, now)
			for w.room(1, 0).what == nothing {
				w.take(1, 0)
				n++
			}
		}
		if want := limit + 10*limit; n < want-1 || n > want { // the last step ends before the minute does
			t.Errorf("limit %d: %d admitted in 10 minutes, want %d", limit, n, want)
		}
	}
	f(1)
	f(7)
	f(60)
	f(997)
	f(8571) // about one for each step
}

// The largest numbers there are neither wrap nor divide by zero.
func TestLargest(t *testing.T) {
	const big = 1<<63 - 1
	w := &window{}
	w.adopt(tenant.Limits{RequestsPerMinute: big, TokensPerMinute: big, Concurrent: big}, minute)
	if b := w.room(1, maxLimit+1); b.what != tokensEver {
		t.Errorf("%+v", b)
	}
	for range 3 {
		w.take(1, maxLimit)
		w.settle(maxLimit, big)
	}
	w.pass(minute + 1)
	if w.tokens.used > 2*maxLimit || w.tokens.used <= 0 || w.held != 0 {
		t.Errorf("%+v", w)
	}
	if d := w.tokens.until(maxLimit, 0); d <= 0 || d > 2*time.Minute {
		t.Errorf("until %s", d)
	}
	w.adopt(tenant.Limits{RequestsPerMinute: -1, TokensPerMinute: -1, Concurrent: -1}, minute)
	if b := w.room(1, 5); b.what != nothing {
		t.Errorf("limits below 0 are none: %+v", b)
	}
}
