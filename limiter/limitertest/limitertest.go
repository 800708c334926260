// Package limitertest says in tests what a limiter.Limiter must do. Each
// implementation runs the same suite, in process or not.
package limitertest

import (
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"bulkhead/fault"
	"bulkhead/limiter"
	"bulkhead/tenant"
	"bulkhead/tenant/tenanttest"
)

// Opened is a Limiter under test and its clock.
type Opened struct {
	limiter.Limiter
	// Now is the clock that decides about limits and periods.
	Now func() time.Time
	// Pass moves that clock, also back. The suite passes years: what is not a
	// limit or a period, such as a lease, must go by another.
	Pass func(d time.Duration)
	// Runs says that the clock also runs by itself. The suite then leaves room
	// for some seconds.
	Runs bool
	// Flush returns when all that was ended and shipped counts in every gateway;
	// nil if that is at once.
	Flush func()
	// Gateways is how many there are over the same state: see Spread. 0 is one.
	Gateways int
}

// Open returns an empty Limiter. Of the options it takes Book, BookTimeout,
// TotalConcurrent and CompanyConcurrent. What it needs closed it closes in
// t.Cleanup.
type Open func(t *testing.T, o limiter.Options) Opened

// Clock is a time that only jumps, for an Open in process.
type Clock struct {
	mu sync.Mutex
	t  time.Time
}

// NewClock returns a Clock that stands at t.
func NewClock(t time.Time) *Clock { return &Clock{t: t} }

// Now returns the time.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

// Pass moves the time, also back.
func (c *Clock) Pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// start is where the clock is put before each test: within every hour, day,
// week and month, and not far from the end of a minute.
var start = time.Date(2026, 11, 18, 12, 7, 50, 0, time.UTC)

// Run runs the suite. It takes no longer than the implementation does: the time
// jumps.
func Run(t *testing.T, open Open) {
	f := func(name string, test func(t *testing.T, w *world)) {
		t.Run(name, func(t *testing.T) { test(t, newWorld(t, open, limiter.Options{})) })
	}
	f("requests", testRequests)
	f("tokens", testTokens)
	f("settle", testSettle)
	f("owed", testOwed)
	f("open calls", testOpen)
	f("all or nothing", testAllOrNothing)
	f("first is named", testFirstIsNamed)
	f("state", testState)
	f("ends once", testEndsOnce)
	f("no limits", testNoLimits)
	f("limit changes", testLimitChanges)
	f("never", testNever)
	f("model", testModel)
	f("isolation", testIsolation)
	f("parallel", testParallel)
	t.Run("whole gateway", func(t *testing.T) { testWhole(t, open) })

	f("money", testMoney)
	f("units", testUnits)
	f("again", testAgain)
	f("budget state", testBudgetState)
	f("clamping", testClamping)
	f("free", testFree)
	f("refusals", testRefusals)
	f("all of ten", testAllOfTen)
	f("first budget is named", testFirstBudgetIsNamed)
	f("budget changes", testBudgetChanges)
	f("made while attempts run", testMadeWhileRunning)
	f("made again", testMadeAgain)
	f("budget isolation", testBudgetIsolation)
	f("owners", testOwners)
	f("standing", testStanding)
	f("users", testUsers)
	f("bugs", testBugs)
	f("claims", testClaims)
	f("claims at once", testClaimRace)

	f("month end", testMonthEnd)
	f("days of 23 and 25 hours", testDST)
	f("zone changes", testZoneChanges)
	f("whole time", testTotal)
	f("clock is set", testClockIsSet)

	f("ledger", testLedger)
	f("shipped before settled", testShippedFirst)
	f("ledger fails", testLedgerFails)
	t.Run("ledger hangs", func(t *testing.T) { testLedgerHangs(t, open) })

	f("never overspent", testNeverOverspent)
	f("race", testRace)
	f("any history", testHistory)
}

// world is a Limiter, its clock and ledger, and two companies.
type world struct {
	t *testing.T
	Opened
	ledger      *Ledger
	acme, other tenant.Scope
	ids         atomic.Int64
}

func newWorld(t *testing.T, open Open, o limiter.Options) *world {
	w := &world{t: t, ledger: NewLedger()}
	o.Book = w.ledger
	w.Opened = open(t, o)
	if w.Flush == nil {
		w.Flush = func() {}
	}
	w.Pass(start.Sub(w.Now()))
	w.acme, w.other = tenanttest.Scope(t, "acme"), tenanttest.Scope(t, "other")
	return w
}

// more is n, and where the clock runs what comes in ten seconds besides.
func (w *world) more(n, perMinute int64) int64 {
	if w.Runs {
		n += perMinute / 6
	}
	return n
}

// near reports whether a wait is the one expected, or ten seconds less where the
// clock runs.
func (w *world) near(got, want time.Duration) bool {
	if w.Runs {
		return got <= want+time.Millisecond && got >= want-10*time.Second
	}
	return (got - want).Abs() <= time.Millisecond
}

// taken is a Hold whose end counts when its methods return.
type taken struct {
	limiter.Hold
	w *world
}

func (h taken) Settle(used limiter.Used) { h.Hold.Settle(used); h.w.Flush() }
func (h taken) Release()                 { h.Hold.Release(); h.w.Flush() }
func (h taken) End(used limiter.Used)    { h.Hold.End(used); h.w.Flush() }

// key limits one key of a company.
func key(l tenant.Limits) []tenant.Limited {
	return []tenant.Limited{{Kind: "key", ID: "key_1", Limits: l}}
}

// admit expects that the call is admitted.
func (w *world) admit(s tenant.Scope, l []tenant.Limited, tokens int64) taken {
	w.t.Helper()
	h, _, err := w.Hold(w.t.Context(), s, &limiter.Ask{Limits: l, Tokens: tokens})
	if err != nil {
		w.t.Fatalf("refused: %s", err)
	}
	return taken{h, w}
}

// refuse expects a refusal of that type, and returns it.
func (w *world) refuse(s tenant.Scope, l []tenant.Limited, tokens int64, kind string) *fault.Error {
	w.t.Helper()
	_, _, err := w.Hold(w.t.Context(), s, &limiter.Ask{Limits: l, Tokens: tokens})
	e, ok := errors.AsType[*fault.Error](err)
	if !ok {
		w.t.Fatalf("got %v, want a refusal", err)
	}
	if e.Kind != fault.RateLimited || e.Type != kind || e.Code != "rate_limit_exceeded" {
		w.t.Fatalf("kind %d, type %q, code %q: %s", e.Kind, e.Type, e.Code, e)
	}
	if !e.NoRetry && e.RetryAfter <= 0 {
		w.t.Errorf("it does not say when to come back: %s", e)
	}
	return e
}

func (w *world) names(e *fault.Error, texts ...string) {
	w.t.Helper()
	for _, text := range texts {
		if !strings.Contains(e.Message, text) {
			w.t.Errorf("%q does not say %q", e.Message, text)
		}
	}
}
