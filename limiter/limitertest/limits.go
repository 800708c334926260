package limitertest

import (
	"testing"
	"time"

	"bulkhead/fault"
	"bulkhead/limiter"
	"bulkhead/tenant"
)

func testRequests(t *testing.T, w *world) {
	l := key(tenant.Limits{RequestsPerMinute: 3})
	for range 3 { // the burst
		w.admit(w.acme, l, 0).End(limiter.Used{})
	}
	e := w.refuse(w.acme, l, 0, "requests")
	w.names(e, `key "key_1"`, "3 requests per minute", "3 used")
	if !w.near(e.RetryAfter, 20*time.Second) || e.NoRetry {
		t.Errorf("come back after %s, NoRetry %t", e.RetryAfter, e.NoRetry)
	}
	// A full minute on the clock opens nothing.
	w.Pass(time.Second)
	w.refuse(w.acme, l, 0, "requests")
	// Who comes back when told is admitted, once.
	w.Pass(19*time.Second + time.Millisecond)
	w.admit(w.acme, l, 0).End(limiter.Used{})
	w.refuse(w.acme, l, 0, "requests")
	// A refused call is not counted: after a minute all is there again.
	w.Pass(time.Minute)
	for range 3 {
		w.admit(w.acme, l, 0).End(limiter.Used{})
	}
	w.refuse(w.acme, l, 0, "requests")
}

func testTokens(t *testing.T, w *world) {
	l := key(tenant.Limits{TokensPerMinute: 1000})
	w.admit(w.acme, l, 600).End(limiter.Used{Tokens: 600})
	e := w.refuse(w.acme, l, 800, "tokens")
	w.names(e, `key "key_1"`, "1000 tokens per minute", "800 asked for")
	if !w.Runs {
		w.names(e, "600 used")
	}
	if !w.near(e.RetryAfter, 24*time.Second) { // 400 tokens
		t.Errorf("come back after %s", e.RetryAfter)
	}
	w.admit(w.acme, l, 400).End(limiter.Used{Tokens: 400}) // a smaller one fits
	w.refuse(w.acme, l, w.more(1, 1000), "tokens")
	w.Pass(30*time.Second + time.Millisecond)
	w.admit(w.acme, l, 500).End(limiter.Used{Tokens: 500})
	w.refuse(w.acme, l, w.more(1, 1000), "tokens")
	w.admit(w.acme, l, 0).End(limiter.Used{}) // none are none
	w.admit(w.acme, l, -5).End(limiter.Used{})
}

func testSettle(t *testing.T, w *world) {
	l := key(tenant.Limits{TokensPerMinute: 1000})
	h := w.admit(w.acme, l, 1000)
	// Held tokens do not fade.
	w.Pass(10 * time.Minute)
	e := w.refuse(w.acme, l, 1, "tokens")
	w.names(e, "1000 held")
	// What was not used is given back.
	h.Settle(limiter.Used{Tokens: 100})
	h2 := w.admit(w.acme, l, 900)
	w.refuse(w.acme, l, w.more(1, 600), "tokens") // 100 are used
	// A failed call used nothing.
	h2.End(limiter.Used{})
	w.admit(w.acme, l, 900).End(limiter.Used{})
	h.Release()
	w.Pass(time.Minute)
	w.admit(w.acme, l, 1000).End(limiter.Used{})
}

func testOwed(t *testing.T, w *world) {
	l := key(tenant.Limits{TokensPerMinute: 1000})
	// More than was held is owed.
	w.admit(w.acme, l, 100).End(limiter.Used{Tokens: 1500})
	w.refuse(w.acme, l, 1, "tokens")
	w.Pass(20*time.Second + time.Millisecond)
	w.refuse(w.acme, l, 1, "tokens") // 1167 are used still
	w.Pass(40 * time.Second)
	w.admit(w.acme, l, 500).End(limiter.Used{})
	w.refuse(w.acme, l, w.more(501, 1000), "tokens")
	// But not for hours: at most a minute's worth beyond the limit.
	w.Pass(10 * time.Minute)
	w.admit(w.acme, l, 100).End(limiter.Used{Tokens: 1 << 62})
	e := w.refuse(w.acme, l, 1000, "tokens")
	if !e.NoRetry || e.RetryAfter <= time.Minute {
		t.Errorf("a wait of %s, NoRetry %t", e.RetryAfter, e.NoRetry)
	}
	w.Pass(2*time.Minute + time.Millisecond)
	w.admit(w.acme, l, 1000).End(limiter.Used{})
}

func testOpen(t *testing.T, w *world) {
	l := key(tenant.Limits{Concurrent: 2})
	a, b := w.admit(w.acme, l, 10), w.admit(w.acme, l, 10)
	w.Pass(time.Hour) // a call may be long
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
		{Kind: "company", ID: "c", Limits: tenant.Limits{RequestsPerMinute: 4, TokensPerMinute: 1000, Concurrent: 5}},
		{Kind: "project", ID: "p", Limits: tenant.Limits{RequestsPerMinute: 5, TokensPerMinute: 100}},
		{Kind: "key", ID: "k", Limits: tenant.Limits{Concurrent: 1}},
	}
	h := w.admit(w.acme, l, 10)
	for range 20 { // refused by the last one: nothing is taken from the others
		w.refuse(w.acme, l, 10, "requests")
		w.refuse(w.acme, l, w.more(91, 100), "tokens")
	}
	h.End(limiter.Used{Tokens: 10})
	for range 3 {
		w.admit(w.acme, l, 10).End(limiter.Used{Tokens: 10})
	}
	w.names(w.refuse(w.acme, l, 10, "requests"), `company "c"`)
	// 40 of 1000 tokens are used, whatever was refused.
	w.admit(w.acme, []tenant.Limited{{Kind: "company", ID: "c", Limits: tenant.Limits{TokensPerMinute: 1000}}}, 960).End(limiter.Used{})
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
	f := func(a *limiter.Ask, want limiter.State) taken {
		t.Helper()
		h, got, _ := w.Hold(t.Context(), w.acme, a)
		if !w.near(got.ResetRequests, want.ResetRequests) || !w.near(got.ResetTokens, want.ResetTokens) {
			t.Errorf("got reset %s, %s, want %s, %s", got.ResetRequests, got.ResetTokens, want.ResetRequests, want.ResetTokens)
		}
		close := func(got *int64, want, limit int64) {
			if w.Runs && *got >= want && *got <= min(w.more(want, limit), limit) {
				*got = want
			}
		}
		close(&got.RemainingRequests, want.RemainingRequests, want.LimitRequests)
		close(&got.RemainingTokens, want.RemainingTokens, want.LimitTokens)
		got.ResetRequests, got.ResetTokens, want.ResetRequests, want.ResetTokens = 0, 0, 0, 0
		if got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
		return taken{h, w}
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
	w.Pass(10 * time.Minute)
	want.RemainingRequests, want.ResetRequests, want.RemainingTokens, want.ResetTokens = 30, 0, 600, 0
	f(a, want)
}

func testEndsOnce(t *testing.T, w *world) {
	l := key(tenant.Limits{TokensPerMinute: 1000, Concurrent: 2})
	a, b := w.admit(w.acme, l, 500), w.admit(w.acme, l, 500)
	copied := a
	var zero limiter.Hold
	zero.Settle(limiter.Used{Tokens: 5})
	zero.Release()
	zero.End(limiter.Used{Tokens: 5})
	for range 3 {
		a.End(limiter.Used{Tokens: 100})
		copied.End(limiter.Used{})
		a.Settle(limiter.Used{})
		a.Release()
	}
	// 100 are used and 500 held; one call is open.
	w.refuse(w.acme, l, w.more(401, 600), "tokens") // 100 fade
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
	w.refuse(w.acme, l, w.more(1, 1000), "tokens")
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
		_, _, _ = w.Hold(t.Context(), tenant.Scope{}, &limiter.Ask{})
	}()
}

func testLimitChanges(t *testing.T, w *world) {
	f := func(n int64) []tenant.Limited {
		return key(tenant.Limits{RequestsPerMinute: n, TokensPerMinute: 100 * n, Concurrent: n})
	}
	var holds []taken
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
	w.Pass(2*time.Minute + time.Millisecond)
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
		_, _, err := w.Hold(t.Context(), w.acme, a)
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
