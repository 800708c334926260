// Package limitertest says in tests what a limiter.Limiter must do. Each
// implementation runs the same suite, in process or not.
package limitertest

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"bulkhead/fault"
	"bulkhead/limiter"
	"bulkhead/tenant"
	"bulkhead/tenant/tenanttest"
)

// Open returns an empty Limiter with these options, which takes the time from
// o.Now and from nowhere else. What it needs closed it closes in t.Cleanup.
type Open func(t *testing.T, o limiter.Options) limiter.Limiter

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
}

// world is a Limiter, its clock and two companies.
type world struct {
	t           *testing.T
	l           limiter.Limiter
	acme, other tenant.Scope

	mu  sync.Mutex
	now time.Time
}

func newWorld(t *testing.T, open Open, o limiter.Options) *world {
	w := &world{t: t, now: time.Date(2026, 11, 22, 12, 0, 59, 0, time.UTC)}
	o.Now = w.time
	w.l = open(t, o)
	w.acme, w.other = tenanttest.Scope(t, "acme"), tenanttest.Scope(t, "other")
	return w
}

func (w *world) time() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

func (w *world) pass(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

// key limits one key of a company.
func key(l tenant.Limits) []tenant.Limited {
	return []tenant.Limited{{Kind: "key", ID: "key_1", Limits: l}}
}

// admit expects that the call is admitted.
func (w *world) admit(s tenant.Scope, l []tenant.Limited, tokens int64) limiter.Hold {
	w.t.Helper()
	h, _, err := w.l.Hold(w.t.Context(), s, &limiter.Ask{Limits: l, Tokens: tokens})
	if err != nil {
		w.t.Fatalf("refused: %s", err)
	}
	return h
}

// refuse expects a refusal of that type, and returns it.
func (w *world) refuse(s tenant.Scope, l []tenant.Limited, tokens int64, kind string) *fault.Error {
	w.t.Helper()
	_, _, err := w.l.Hold(w.t.Context(), s, &limiter.Ask{Limits: l, Tokens: tokens})
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

func testRequests(t *testing.T, w *world) {
	l := key(tenant.Limits{RequestsPerMinute: 3})
	for range 3 { // the burst
		w.admit(w.acme, l, 0).End(limiter.Used{})
	}
	e := w.refuse(w.acme, l, 0, "requests")
	w.names(e, `key "key_1"`, "3 requests per minute", "3 used", "20s")
	if e.RetryAfter != 20*time.Second || e.NoRetry {
		t.Errorf("come back after %s, NoRetry %t", e.RetryAfter, e.NoRetry)
	}
	// A full minute on the clock opens nothing.
	w.pass(time.Second)
	w.refuse(w.acme, l, 0, "requests")
	// Who comes back when told is admitted, once.
	w.pass(19*time.Second + time.Millisecond)
	w.admit(w.acme, l, 0).End(limiter.Used{})
	w.refuse(w.acme, l, 0, "requests")
	// A refused call is not counted: after a minute all is there again.
	w.pass(time.Minute)
	for range 3 {
		w.admit(w.acme, l, 0).End(limiter.Used{})
	}
	w.refuse(w.acme, l, 0, "requests")
}

func testTokens(t *testing.T, w *world) {
	l := key(tenant.Limits{TokensPerMinute: 1000})
	w.admit(w.acme, l, 600).End(limiter.Used{Tokens: 600})
	e := w.refuse(w.acme, l, 500, "tokens")
	w.names(e, `key "key_1"`, "1000 tokens per minute", "600 used", "500 asked for")
	if e.RetryAfter != 6*time.Second { // 100 tokens
		t.Errorf("come back after %s", e.RetryAfter)
	}
	w.admit(w.acme, l, 400).End(limiter.Used{Tokens: 400}) // a smaller one fits
	w.pass(30*time.Second + time.Millisecond)
	w.admit(w.acme, l, 500).End(limiter.Used{Tokens: 500})
	w.refuse(w.acme, l, 1, "tokens")
	w.admit(w.acme, l, 0).End(limiter.Used{}) // none are none
	w.admit(w.acme, l, -5).End(limiter.Used{})
}

func testSettle(t *testing.T, w *world) {
	l := key(tenant.Limits{TokensPerMinute: 1000})
	h := w.admit(w.acme, l, 1000)
	// Held tokens do not fade.
	w.pass(10 * time.Minute)
	e := w.refuse(w.acme, l, 1, "tokens")
	w.names(e, "1000 held")
	// What was not used is given back.
	h.Settle(limiter.Used{Tokens: 100})
	h2 := w.admit(w.acme, l, 900)
	w.refuse(w.acme, l, 1, "tokens")
	// A failed call used nothing.
	h2.End(limiter.Used{})
	w.admit(w.acme, l, 900).End(limiter.Used{})
	h.Release()
	w.pass(time.Minute)
	w.admit(w.acme, l, 1000).End(limiter.Used{})
}

func testOwed(t *testing.T, w *world) {
	l := key(tenant.Limits{TokensPerMinute: 1000})
	// More than was held is owed.
	w.admit(w.acme, l, 100).End(limiter.Used{Tokens: 1500})
	w.refuse(w.acme, l, 1, "tokens")
	w.pass(30*time.Second + time.Millisecond)
	w.refuse(w.acme, l, 1, "tokens")
	w.pass(30 * time.Second)
	w.admit(w.acme, l, 500).End(limiter.Used{})
	w.refuse(w.acme, l, 501, "tokens")
	// But not for hours: at most a minute's worth beyond the limit.
	w.pass(10 * time.Minute)
	w.admit(w.acme, l, 100).End(limiter.Used{Tokens: 1 << 62})
	e := w.refuse(w.acme, l, 1000, "tokens")
	if !e.NoRetry || e.RetryAfter <= time.Minute {
		t.Errorf("a wait of %s, NoRetry %t", e.RetryAfter, e.NoRetry)
	}
	w.pass(2*time.Minute + time.Millisecond)
	w.admit(w.acme, l, 1000).End(limiter.Used{})
}

func testOpen(t *testing.T, w *world) {
	l := key(tenant.Limits{Concurrent: 2})
	a, b := w.admit(w.acme, l, 10), w.admit(w.acme, l, 10)
	w.pass(time.Hour) // a call may be long
	e := w.refuse(w.acme, l, 10, "requests")
	w.names(e, `key "key_1"`, "2 allowed", "2 running")
	a.Settle(limiter.Used{Tokens: 10}) // is not the end
	w.refuse(w.acme, l, 10, "requests")
	a.Release()
	c := w.admit(w.acme, l, 10)
	w.refuse(w.acme, l, 10, "requests")
	b.End(limiter.Used{})
	c.End(limiter.Used{})
	w.admit(w.acme, l, 10).End(limiter.Used{})
}

func testAllOrNothing(t *testing.T, w *world) {
	l := []tenant.Limited{
		{Kind: "company", ID: "c", Limits: tenant.Limits{RequestsPerMinute: 5, TokensPerMinute: 1000, Concurrent: 5}},
		{Kind: "project", ID: "p", Limits: tenant.Limits{RequestsPerMinute: 5, TokensPerMinute: 100}},
		{Kind: "key", ID: "k", Limits: tenant.Limits{Concurrent: 1}},
	}
	h := w.admit(w.acme, l, 10)
	for range 20 { // refused by the last one: nothing is taken from the others
		w.refuse(w.acme, l, 10, "requests")
		w.refuse(w.acme, l, 91, "tokens")
	}
	h.End(limiter.Used{Tokens: 10})
	for range 4 {
		w.admit(w.acme, l, 10).End(limiter.Used{Tokens: 10})
	}
	w.names(w.refuse(w.acme, l, 10, "requests"), `company "c"`)
	// 50 of 1000 tokens are used, whatever was refused.
	w.admit(w.acme, []tenant.Limited{{Kind: "company", ID: "c", Limits: tenant.Limits{TokensPerMinute: 1000}}}, 950).End(limiter.Used{})
}

func testFirstIsNamed(t *testing.T, w *world) {
	limits := tenant.Limits{RequestsPerMinute: 1, TokensPerMinute: 10, Concurrent: 1}
	l := []tenant.Limited{{Kind: "company", ID: "c", Limits: limits}, {Kind: "project", ID: "p", Limits: limits}}
	// Open calls before requests before tokens; the order of the limits first of all.
	h := w.admit(w.acme, l, 10)
	w.names(w.refuse(w.acme, l, 5, "requests"), `company "c"`, "1 running")
	h.End(limiter.Used{Tokens: 10})
	w.names(w.refuse(w.acme, l, 5, "requests"), `company "c"`, "1 requests per minute")
	l[0].Limits = tenant.Limits{}
	w.names(w.refuse(w.acme, l, 5, "requests"), `project "p"`)
	l[1].Limits = tenant.Limits{TokensPerMinute: 10}
	w.names(w.refuse(w.acme, l, 5, "tokens"), `project "p"`)
}

func testState(t *testing.T, w *world) {
	f := func(a *limiter.Ask, want limiter.State) limiter.Hold {
		t.Helper()
		h, got, _ := w.l.Hold(t.Context(), w.acme, a)
		near := func(a, b time.Duration) bool { return (a - b).Abs() <= time.Millisecond }
		if !near(got.ResetRequests, want.ResetRequests) || !near(got.ResetTokens, want.ResetTokens) {
			t.Errorf("got reset %s, %s, want %s, %s", got.ResetRequests, got.ResetTokens, want.ResetRequests, want.ResetTokens)
		}
		got.ResetRequests, got.ResetTokens, want.ResetRequests, want.ResetTokens = 0, 0, 0, 0
		if got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
		return h
	}
	// Nothing limited.
	f(&limiter.Ask{}, limiter.State{})
	f(&limiter.Ask{Limits: key(tenant.Limits{Concurrent: 9})}, limiter.State{})
	// The tightest of each sort.
	a := &limiter.Ask{Tokens: 100, Limits: []tenant.Limited{
		{Kind: "company", ID: "c", Limits: tenant.Limits{RequestsPerMinute: 60, TokensPerMinute: 600}},
		{Kind: "project", ID: "p", Limits: tenant.Limits{RequestsPerMinute: 30}},
		{Kind: "key", ID: "k", Limits: tenant.Limits{TokensPerMinute: 6000}},
	}}
	h := f(a, limiter.State{HasRequests: true, LimitRequests: 30, RemainingRequests: 29, ResetRequests: 2 * time.Second,
		HasTokens: true, LimitTokens: 600, RemainingTokens: 500, ResetTokens: 10 * time.Second})
	h.End(limiter.Used{Tokens: 50})
	// A refusal shows what is left, and takes none of it.
	a.Tokens = 700
	want := limiter.State{HasRequests: true, LimitRequests: 30, RemainingRequests: 29, ResetRequests: 2 * time.Second,
		HasTokens: true, LimitTokens: 600, RemainingTokens: 550, ResetTokens: 5 * time.Second}
	f(a, want)
	f(a, want)
	w.pass(10 * time.Minute)
	want.RemainingRequests, want.ResetRequests, want.RemainingTokens, want.ResetTokens = 30, 0, 600, 0
	f(a, want)
}

func testEndsOnce(t *testing.T, w *world) {
	var zero limiter.Hold
	zero.Settle(limiter.Used{Tokens: 5})
	zero.Release()
	zero.End(limiter.Used{Tokens: 5})
	l := key(tenant.Limits{TokensPerMinute: 1000, Concurrent: 2})
	a, b := w.admit(w.acme, l, 500), w.admit(w.acme, l, 500)
	copied := a
	for range 3 {
		a.End(limiter.Used{Tokens: 100})
		copied.End(limiter.Used{})
		a.Settle(limiter.Used{})
		a.Release()
	}
	// 100 are used and 500 held; one call is open.
	w.refuse(w.acme, l, 401, "tokens")
	c := w.admit(w.acme, l, 400)
	w.refuse(w.acme, l, 0, "requests")
	// A hold that has ended does not end a later one.
	a.End(limiter.Used{})
	copied.End(limiter.Used{})
	w.refuse(w.acme, l, 0, "requests")
	// Either half alone counts once too.
	b.Release()
	b.Release()
	b.Release()
	d := w.admit(w.acme, l, 0)
	w.refuse(w.acme, l, 0, "requests")
	b.Settle(limiter.Used{Tokens: 500})
	c.Settle(limiter.Used{Tokens: 400})
	c.Settle(limiter.Used{})
	c.Settle(limiter.Used{})
	c.Release()
	w.refuse(w.acme, l, 1, "tokens")
	d.End(limiter.Used{})
}

func testNoLimits(t *testing.T, w *world) {
	for _, l := range [][]tenant.Limited{nil, key(tenant.Limits{})} {
		for range 100 {
			w.admit(w.acme, l, 1<<62).Release()
		}
	}
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the zero Scope does not panic")
			}
		}()
		_, _, _ = w.l.Hold(t.Context(), tenant.Scope{}, &limiter.Ask{})
	}()
}

func testLimitChanges(t *testing.T, w *world) {
	f := func(n int64) []tenant.Limited {
		return key(tenant.Limits{RequestsPerMinute: n, TokensPerMinute: 100 * n, Concurrent: n})
	}
	var holds []limiter.Hold
	for range 10 {
		holds = append(holds, w.admit(w.acme, f(10), 100))
	}
	// A higher limit opens what is more; a lower one is over at once.
	holds = append(holds, w.admit(w.acme, f(11), 100))
	w.refuse(w.acme, f(11), 0, "requests")
	w.names(w.refuse(w.acme, f(5), 0, "requests"), "5 allowed", "11 running")
	for _, h := range holds {
		h.End(limiter.Used{Tokens: 100})
	}
	w.refuse(w.acme, f(5), 0, "requests")
	// What is owed under a lower limit is forgiven in two minutes.
	w.pass(2*time.Minute + time.Millisecond)
	w.admit(w.acme, f(1), 100).End(limiter.Used{})
}

func testNever(t *testing.T, w *world) {
	l := key(tenant.Limits{TokensPerMinute: 1000})
	e := w.refuse(w.acme, l, 1001, "tokens")
	if !e.NoRetry {
		t.Error("an SDK would try again what cannot succeed")
	}
	w.names(e, "1001 tokens", "1000 tokens per minute", `key "key_1"`)
	w.admit(w.acme, l, 1000).End(limiter.Used{Tokens: 1000})
}

func testModel(t *testing.T, w *world) {
	a := &limiter.Ask{Tokens: 1, Limits: key(tenant.Limits{RequestsPerMinute: 100}),
		Model: &tenant.Limited{Kind: "model", ID: "proj_1 gpt-4o", Limits: tenant.Limits{RequestsPerMinute: 1}}}
	hold := func() error {
		_, _, err := w.l.Hold(t.Context(), w.acme, a)
		return err
	}
	if err := hold(); err != nil {
		t.Error(err)
	}
	if err := hold(); !fault.Is(err, fault.RateLimited) {
		t.Errorf("got %v", err)
	} else {
		w.names(fault.As(err), `model "proj_1 gpt-4o"`)
	}
	a.Model.ID = "proj_1 gpt-4o-mini"
	if err := hold(); err != nil {
		t.Errorf("another model: %s", err)
	}
}
