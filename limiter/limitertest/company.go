package limitertest

import (
	"strings"
	"sync"
	"testing"

	"bulkhead/fault"
	"bulkhead/limiter"
	"bulkhead/tenant"
	"bulkhead/tenant/tenanttest"
)

// testIsolation shows that no name reaches another company's windows, nor
// another of the same company. The list only grows.
func testIsolation(t *testing.T, w *world) {
	ids := []string{
		"", "a", "A", "á", "a\u0301", "a ", " a", "a\x00", "a\x00b", "ab", "a:b", "a/b", "../a", "a%", "%61", "a*", "a_", "a\n", "{a}", "a}", "'a'", "a\\", "a\xff",
		w.acme.ID().String(), w.other.ID().String(), w.other.ID().String() + ":a", ":" + w.acme.ID().String(),
		strings.Repeat("a", 1000), strings.Repeat("a", 1001),
	}
	kinds := []string{"key", "ke", "company", "project", "model"}
	full := func(kind, id string) []tenant.Limited {
		return []tenant.Limited{{Kind: kind, ID: id, Limits: tenant.Limits{RequestsPerMinute: 1, TokensPerMinute: 10, Concurrent: 1}}}
	}
	var holds []taken
	for _, s := range []tenant.Scope{w.acme, w.other} {
		for _, kind := range kinds {
			for _, id := range ids {
				// Each is the first of its name, whatever was filled before.
				holds = append(holds, w.admit(s, full(kind, id), 10))
			}
		}
	}
	for _, s := range []tenant.Scope{w.acme, w.other} {
		for _, kind := range kinds {
			for _, id := range ids {
				w.refuse(s, full(kind, id), 10, "requests")
			}
		}
	}
	// Nor does the end of one end another.
	holds[0].End(limiter.Used{})
	for i, s := range []tenant.Scope{w.acme, w.other} {
		_, _, err := w.Hold(t.Context(), s, &limiter.Ask{Limits: full(kinds[0], ids[0])})
		if e := fault.As(err); err == nil || (strings.Contains(e.Message, "running") != (i == 1)) {
			t.Errorf("company %d: %v", i, err)
		}
	}
}

// testParallel asks from many goroutines at once: exactly as many are admitted
// as there is room for.
func testParallel(t *testing.T, w *world) {
	const goroutines, each = 500, 4
	l := []tenant.Limited{
		{Kind: "company", ID: "c", Limits: tenant.Limits{RequestsPerMinute: 400, TokensPerMinute: 3000}},
		{Kind: "key", ID: "k", Limits: tenant.Limits{Concurrent: 50}},
	}
	var (
		wg, admittedAll sync.WaitGroup
		mu              sync.Mutex
		open, most      int
		admitted        int
	)
	admittedAll.Add(1)
	for range goroutines {
		wg.Go(func() {
			admittedAll.Wait() // all at once
			for range each {
				h, _, err := w.Hold(t.Context(), w.acme, &limiter.Ask{Limits: l, Tokens: 10})
				if err != nil {
					if !fault.Is(err, fault.RateLimited) {
						t.Error(err)
					}
					continue
				}
				mu.Lock()
				open++
				admitted++
				most = max(most, open)
				mu.Unlock()
				h.Settle(limiter.Used{Tokens: 10})
				mu.Lock()
				open-- // before it may be given to another
				mu.Unlock()
				h.Release()
				h.End(limiter.Used{})
			}
		})
	}
	admittedAll.Done()
	wg.Wait()
	w.Flush()
	if admitted > int(w.more(300, 300)) || admitted < 50 || most > 50 {
		t.Errorf("%d admitted, %d at once", admitted, most)
	}
	// The rest is there still, and no more.
	for range 300 - admitted {
		w.admit(w.acme, l, 10).End(limiter.Used{Tokens: 10})
	}
	w.refuse(w.acme, l, w.more(10, 3000), "tokens")
}

func testWhole(t *testing.T, open Open) {
	w := newWorld(t, open, limiter.Options{TotalConcurrent: 5, CompanyConcurrent: 3})
	if w.Gateways > 1 {
		t.Skip("each gateway has its own whole")
	}
	var holds []taken
	for range 3 {
		holds = append(holds, w.admit(w.acme, nil, 0))
	}
	// A company has its share and no more, whatever else is free.
	w.names(w.refuse(w.acme, nil, 0, "requests"), "company", "3")
	for range 2 {
		holds = append(holds, w.admit(w.other, nil, 0))
	}
	// The gateway is full: that is nobody's own limit.
	third := tenanttest.Scope(t, "third")
	for _, s := range []tenant.Scope{w.other, third} {
		if _, _, err := w.Hold(t.Context(), s, &limiter.Ask{}); !fault.Is(err, fault.Unavailable) || fault.As(err).RetryAfter <= 0 {
			t.Errorf("got %v", err)
		}
	}
	holds[0].End(limiter.Used{})
	holds[0].End(limiter.Used{})
	holds[3].End(limiter.Used{})
	w.admit(third, nil, 0)
	w.admit(third, nil, 0)
	if _, _, err := w.Hold(t.Context(), w.acme, &limiter.Ask{}); !fault.Is(err, fault.Unavailable) {
		t.Errorf("got %v", err)
	}
	// What a limit refuses takes no place of the whole.
	holds[1].End(limiter.Used{})
	l := key(tenant.Limits{RequestsPerMinute: 1})
	w.admit(w.acme, l, 0).End(limiter.Used{})
	for range 10 {
		w.refuse(w.acme, l, 0, "requests")
	}
	w.admit(w.acme, nil, 0)
}
