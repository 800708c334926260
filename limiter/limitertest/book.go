package limitertest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"bulkhead/fault"
	"bulkhead/limiter"
	"bulkhead/tenant"
)

// What the store has before anybody counts is spent; each attempt counts once,
// wherever it is.
func testLedger(t *testing.T, w *world) {
	for range 10 {
		w.take(w.acme, limiter.Ask{By: by, Nano: 10, Tokens: 5}).end(limiter.Used{Nano: 10, Tokens: 5})
	}
	w.ship(w.acme)
	w.take(w.acme, ask(10)).cost(10) // not shipped
	w.take(w.other, ask(10)).cost(999)
	w.ship(w.other)
	b, reads := of(tenant.OfProject, "proj_1", 200), w.ledger.Reads()
	w.take(w.acme, ask(10, b)).cost(10)
	w.stands(w.acme, b, 120, 0)
	w.ship(w.acme)
	w.stands(w.acme, b, 120, 0)
	w.ship(w.acme)
	if n := w.ledger.Reads() - reads; n != 1 {
		t.Errorf("read %d times", n)
	}
	// An id that is not known may be a reason to read again, and changes nothing.
	w.Shipped(w.acme, []string{"att_1", "att_unknown", ""})
	w.Flush()
	w.stands(w.acme, b, 120, 0)
	// Another's Shipped is not one's own.
	open := w.take(w.acme, ask(10, b))
	open.cost(10)
	w.Shipped(w.other, []string{open.entry.ID})
	w.Flush()
	w.stands(w.acme, of(tenant.OfKey, "key_1", 1), 130, 0)
	// A refusal by a limit reads nothing.
	reads = w.ledger.Reads()
	a := limiter.Ask{By: by, Tokens: 2, Nano: 1, Limits: key(tenant.Limits{TokensPerMinute: 1}), Budgets: []*tenant.Budget{of(tenant.OfAgent, "agent_1", 1000)}}
	w.isRefusal(w.failure(a), "tokens")
	if n := w.ledger.Reads() - reads; n != 0 {
		t.Errorf("read %d times for a call that a limit refuses", n)
	}
}

// The store may have the entry before the hold is settled.
func testShippedFirst(t *testing.T, w *world) {
	f := func(made func(a *attempt)) {
		t.Helper()
		a := w.take(w.acme, ask(10))
		a.record(limiter.Used{Nano: 8})
		w.ship(w.acme)
		made(a)
		a.End(limiter.Used{Nano: 8})
	}
	b := of(tenant.OfKey, "key_1", 100)
	f(func(*attempt) { w.stands(w.acme, b, 0, 10) })
	w.stands(w.acme, b, 8, 0)
	f(func(a *attempt) {})
	w.stands(w.acme, b, 16, 0)
	w.stands(w.acme, of(tenant.OfProject, "proj_1", 100), 16, 0)
	f(func(a *attempt) { a.Release(); w.stands(w.acme, of(tenant.OfAgent, "agent_1", 1), 16, 10) })
	w.stands(w.acme, of(tenant.OfAgent, "agent_1", 1), 24, 0)
	w.stands(w.acme, b, 24, 0)
}

// Nobody is admitted without the count, and what needs none goes on.
func testLedgerFails(t *testing.T, w *world) {
	var fails atomic.Bool
	w.ledger.Before = func(context.Context) error {
		if fails.Load() {
			return errors.New("planted: a secret of the store")
		}
		return nil
	}
	known, unknown := of(tenant.OfKey, "key_1", 100), of(tenant.OfProject, "proj_1", 100)
	w.take(w.acme, ask(10, known)).cost(10)
	fails.Store(true)
	for range 5 {
		_, _, err := w.try(w.acme, ask(10, known, unknown))
		if !fault.Is(err, fault.Unavailable) || strings.Contains(fault.As(err).Message, "secret") {
			t.Fatalf("got %v", err)
		}
		if _, err := w.Standing(t.Context(), w.acme, []*tenant.Budget{known, unknown}); !fault.Is(err, fault.Unavailable) {
			t.Fatalf("got %v", err)
		}
		w.take(w.acme, ask(1, known)).cost(1)
	}
	w.stands(w.acme, known, 15, 0)
	fails.Store(false)
	w.Pass(time.Minute)
	eventually(t, "the store is read again", func() bool {
		_, err := w.Standing(t.Context(), w.acme, []*tenant.Budget{unknown})
		return err == nil
	})
	w.stands(w.acme, unknown, 15, 0) // what was refused has taken nothing
	w.stands(w.acme, known, 15, 0)
}

// A ledger that does not answer is waited for no longer than the options say.
func testLedgerHangs(t *testing.T, open Open) {
	w := newWorld(t, open, limiter.Options{BookTimeout: 50 * time.Millisecond})
	known, unknown := of(tenant.OfKey, "key_1", 100), of(tenant.OfProject, "proj_1", 100)
	eventually(t, "it is read once in time", func() bool {
		w.Pass(time.Second)
		_, err := w.Standing(t.Context(), w.acme, []*tenant.Budget{known})
		return err == nil
	})
	w.take(w.acme, ask(10, known)).cost(10)
	w.ledger.Before = func(ctx context.Context) error {
		<-ctx.Done()
		return ctx.Err()
	}
	results := make(chan error)
	for i := range 20 {
		s := w.acme
		if i%2 == 0 {
			s = w.other
		}
		go func() {
			_, _, err := w.try(s, ask(10, unknown))
			results <- err
		}()
	}
	for range 20 {
		w.take(w.acme, ask(1, known)).cost(1) // goes on
		if err := <-results; !fault.Is(err, fault.Unavailable) || fault.As(err).RetryAfter <= 0 {
			t.Errorf("got %v", err)
		}
	}
	// Who leaves does not wait.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.Standing(ctx, w.acme, []*tenant.Budget{unknown}); !fault.Is(err, fault.Unavailable) {
		t.Errorf("got %v", err)
	}
}

func testStanding(t *testing.T, w *world) {
	var all []*tenant.Budget
	for i := range 300 {
		by := limiter.By{User: fmt.Sprint("user_", i)}
		b := of(tenant.OfUser, by.User, int64(i)+10)
		all = append(all, b)
		if i%3 != 0 {
			w.take(w.acme, limiter.Ask{By: by, Nano: int64(i), Budgets: all[i : i+1]}).cost(int64(i))
		}
		if i%3 == 2 {
			w.take(w.acme, limiter.Ask{By: by, Nano: 5})
		}
	}
	got, err := w.Standing(t.Context(), w.acme, all)
	if err != nil || len(got) != len(all) {
		t.Fatalf("%d standings: %v", len(got), err)
	}
	for i, st := range got {
		var want limiter.Standing
		if i%3 != 0 {
			want.Spent = int64(i)
		}
		if i%3 == 2 {
			want.Held = 5
		}
		if st.Spent != want.Spent || st.Held != want.Held || st.From.Day() != 1 || st.To.Month() != time.December {
			t.Errorf("user %d: %+v, want %+v", i, st, want)
		}
	}
	w.stands(w.other, all[2], 0, 0)
}

// Users nobody has seen come and go; what they spent stays.
func testUsers(t *testing.T, w *world) {
	const users = 200
	for round := range 3 {
		for i := range users {
			by := limiter.By{User: fmt.Sprint("user_", i)}
			b := of(tenant.OfUser, by.User, 27)
			w.take(w.acme, limiter.Ask{By: by, Nano: 10, Budgets: []*tenant.Budget{b}}).cost(8)
			if i%10 == round {
				w.stands(w.acme, b, int64(round+1)*8, 0)
			}
		}
		w.ship(w.acme)
		w.Pass(3 * time.Hour) // long enough to forget them
	}
	b := of(tenant.OfUser, "user_7", 27)
	w.stopped(w.acme, bySpent, limiter.Ask{By: limiter.By{User: "user_7"}, Nano: 10, Budgets: []*tenant.Budget{b}})
}

// testBudgetIsolation shows that no name of an owner reaches another's, nor
// another company's. The list only grows.
func testBudgetIsolation(t *testing.T, w *world) {
	ids := []string{
		"a", "A", "á", "a\u0301", "a ", " a", "a\x00", "a\x00b", "ab", "a:b", "a/b", "../a", "..", "a%", "%", "%61", "a*", "*a", "a_", "a\n", "{a}", "a}", "'a'", "a\\", "a\xff",
		w.acme.ID().String(), w.other.ID().String(), w.other.ID().String() + ":a", ":" + w.acme.ID().String(),
		strings.Repeat("a", 1000), strings.Repeat("a", 1001), "key", "user:a", "0", "1",
	}
	kinds := []string{tenant.OfProject, tenant.OfKey, tenant.OfAgent, tenant.OfUser}
	owner := func(kind, id string) limiter.By {
		return map[string]limiter.By{tenant.OfProject: {Project: id}, tenant.OfKey: {Key: id}, tenant.OfAgent: {Agent: id}, tenant.OfUser: {User: id}}[kind]
	}
	n := int64(0)
	each := func(f func(s tenant.Scope, by limiter.By, b *tenant.Budget, n int64)) {
		n = 0
		for _, s := range []tenant.Scope{w.acme, w.other} {
			for _, kind := range kinds {
				for _, id := range ids {
					n++
					f(s, owner(kind, id), of(kind, id, 2*n), n)
				}
			}
		}
	}
	each(func(s tenant.Scope, by limiter.By, b *tenant.Budget, n int64) {
		w.take(s, limiter.Ask{By: by, Nano: n, Budgets: []*tenant.Budget{b}}).cost(n)
		w.take(s, limiter.Ask{By: by, Nano: n, Budgets: []*tenant.Budget{b}})
	})
	check := func(s tenant.Scope, by limiter.By, b *tenant.Budget, n int64) { w.stands(s, b, n, n) }
	each(check)
	w.ship(w.acme)
	each(check)
	w.Pass(2 * time.Hour) // they may be forgotten, and are read again
	each(check)
}
