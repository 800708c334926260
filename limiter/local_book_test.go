package limiter_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"bulkhead/fault"
	"bulkhead/limiter"
	"bulkhead/limiter/limitertest"
	"bulkhead/tenant"
	"bulkhead/tenant/tenanttest"
)

// monthly is a budget of a user.
func monthly(user string) (limiter.By, *tenant.Budget) {
	return limiter.By{User: user}, &tenant.Budget{ID: "budget_" + user, Kind: tenant.OfUser, Of: user, Unit: tenant.USD, Period: tenant.Month, Limit: 100}
}

// However many ask at once for what is not counted, the ledger is asked once for
// those that come before it is, and once for those that come meanwhile.
func TestOneReadAtATime(t *testing.T) {
	g := newGate()
	l := limiter.NewLocal(limiter.Options{Book: g, BookTimeout: time.Hour})
	s := tenanttest.Scope(t, "acme")
	var wg sync.WaitGroup
	var id atomic.Int64
	hold := func(n int) {
		for i := range n {
			wg.Go(func() {
				by, b := monthly(fmt.Sprint("u", i%100))
				_, _, err := l.Hold(t.Context(), s, &limiter.Ask{ID: fmt.Sprint("att_", id.Add(1)), By: by, Nano: 1, Budgets: []*tenant.Budget{b}})
				if err != nil {
					t.Error(err)
				}
			})
		}
	}
	hold(1)
	<-g.entered
	hold(500)
	until(t, func() bool { return l.Stats().Windows == 100 })
	var answered atomic.Bool
	go func() {
		for !answered.Load() {
			select {
			case g.read <- struct{}{}:
			case <-g.done:
			case g.answer <- struct{}{}:
			case <-g.entered:
			case <-t.Context().Done():
				return
			}
		}
	}()
	wg.Wait()
	answered.Store(true)
	if n := g.Reads(); n != 2 {
		t.Errorf("read %d times, want 2", n)
	}
	if st := l.Stats(); st.Reads != 2 || st.HeldNano != 501 || st.Attempts != 501 {
		t.Errorf("%+v", st)
	}
}

func until(t *testing.T, so func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !so(); <-time.After(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("not within 30 s")
		}
	}
}

// bookFunc is a Book.
type bookFunc func(ctx context.Context, s tenant.Scope, spans []limiter.Span) ([]limiter.Used, error)

func (f bookFunc) Spent(ctx context.Context, s tenant.Scope, spans []limiter.Span, _ time.Time, _ []string) ([]limiter.Used, error) {
	return f(ctx, s, spans)
}

func (f bookFunc) Has(context.Context, tenant.Scope, []string) ([]string, error) { return nil, nil }

// A Book that is not there, panics, or answers nonsense refuses; the next answer
// is believed.
func TestBookMisbehaves(t *testing.T) {
	var answer bookFunc
	c := limitertest.NewClock(time.Unix(1, 0))
	f := func(what string, book limiter.Book) {
		t.Helper()
		l := limiter.NewLocal(limiter.Options{Book: book, Now: c.Now})
		s := tenanttest.Scope(t, "acme")
		by, b := monthly("u")
		hold := func() error {
			_, _, err := l.Hold(t.Context(), s, &limiter.Ask{ID: "att_1", By: by, Nano: 1, Budgets: []*tenant.Budget{b}})
			return err
		}
		for range 3 {
			if err := hold(); !fault.Is(err, fault.Unavailable) {
				t.Errorf("%s: got %v", what, err)
			}
			c.Pass(time.Second)
		}
		if st := l.Stats(); st.Windows != 0 || st.Attempts != 0 || st.Open != 0 || st.RefusedUncounted != 3 {
			t.Errorf("%s: %+v", what, st)
		}
		if book == nil {
			return
		}
		answer = func(_ context.Context, _ tenant.Scope, spans []limiter.Span) ([]limiter.Used, error) {
			return make([]limiter.Used, len(spans)), nil
		}
		if err := hold(); err != nil {
			t.Errorf("%s: afterwards %s", what, err)
		}
	}
	book := bookFunc(func(ctx context.Context, s tenant.Scope, spans []limiter.Span) ([]limiter.Used, error) {
		return answer(ctx, s, spans)
	})
	f("no Book", nil)
	answer = func(context.Context, tenant.Scope, []limiter.Span) ([]limiter.Used, error) { panic("planted") }
	f("panic", book)
	answer = func(context.Context, tenant.Scope, []limiter.Span) ([]limiter.Used, error) { return nil, nil }
	f("nothing", book)
	answer = func(context.Context, tenant.Scope, []limiter.Span) ([]limiter.Used, error) {
		return make([]limiter.Used, 2), nil
	}
	f("too much", book)
	answer = func(context.Context, tenant.Scope, []limiter.Span) ([]limiter.Used, error) {
		return make([]limiter.Used, 1), errors.New("planted")
	}
	f("error", book)
}

// A read that fails fails for all that wait, and for those that wait for the
// next.
func TestReadFailsForAll(t *testing.T) {
	entered, fail := make(chan struct{}), make(chan struct{})
	book := bookFunc(func(context.Context, tenant.Scope, []limiter.Span) ([]limiter.Used, error) {
		entered <- struct{}{}
		<-fail
		return nil, errors.New("planted")
	})
	l := limiter.NewLocal(limiter.Options{Book: book, BookTimeout: time.Hour})
	s := tenanttest.Scope(t, "acme")
	var wg sync.WaitGroup
	ask := func(user string) {
		_, b := monthly(user)
		wg.Go(func() {
			if _, err := l.Standing(t.Context(), s, []*tenant.Budget{b}); !fault.Is(err, fault.Unavailable) {
				t.Errorf("got %v", err)
			}
		})
	}
	ask("a")
	<-entered
	for i := range 10 {
		ask(fmt.Sprint("b", i%5))
	}
	until(t, func() bool { return l.Stats().Windows == 6 })
	close(fail)
	wg.Wait()
	if st := l.Stats(); st.Windows != 0 || st.FailedReads != 1 {
		t.Errorf("%+v", st)
	}
}

// A store that is away is not asked by every call, and no more companies' reads
// go on at once than may; each company waits for its own alone.
func TestReadsAreBounded(t *testing.T) {
	var now, most, calls atomic.Int64
	hang := make(chan struct{})
	book := bookFunc(func(ctx context.Context, _ tenant.Scope, spans []limiter.Span) ([]limiter.Used, error) {
		calls.Add(1)
		n := now.Add(1)
		defer now.Add(-1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		select {
		case <-hang:
			return make([]limiter.Used, len(spans)), nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	})
	l := limiter.NewLocal(limiter.Options{Book: book, BookTimeout: time.Hour})
	by, b := monthly("u")
	var wg sync.WaitGroup
	for i := range 40 {
		s := tenanttest.Scope(t, "acme")
		for j := range 3 {
			wg.Go(func() {
				if _, _, err := l.Hold(t.Context(), s, &limiter.Ask{ID: fmt.Sprint("att_", i, j), By: by, Nano: 1, Budgets: []*tenant.Budget{b}}); err != nil {
					t.Error(err)
				}
			})
		}
	}
	until(t, func() bool { return now.Load() == 16 })
	close(hang)
	wg.Wait()
	if most.Load() != 16 || calls.Load() != 40 {
		t.Errorf("%d at once, %d in all", most.Load(), calls.Load())
	}

	// A pause after a failure, and no more waiting than may.
	calls.Store(0)
	c := limitertest.NewClock(time.Unix(1, 0))
	fail := bookFunc(func(context.Context, tenant.Scope, []limiter.Span) ([]limiter.Used, error) {
		calls.Add(1)
		return nil, errors.New("planted")
	})
	l = limiter.NewLocal(limiter.Options{Book: fail, Now: c.Now})
	s := tenanttest.Scope(t, "acme")
	for range 100 {
		if _, err := l.Standing(t.Context(), s, []*tenant.Budget{b}); !fault.Is(err, fault.Unavailable) {
			t.Fatal(err)
		}
	}
	if n := calls.Load(); n != 1 {
		t.Errorf("asked %d times without a pause", n)
	}
	c.Pass(time.Second)
	_, _ = l.Standing(t.Context(), s, []*tenant.Budget{b})
	if n := calls.Load(); n != 2 {
		t.Errorf("asked %d times", n)
	}
}

// No more wait for one read than may; the others are refused at once.
func TestWaitingIsBounded(t *testing.T) {
	g := newGate()
	l := limiter.NewLocal(limiter.Options{Book: g, BookTimeout: time.Hour})
	s := tenanttest.Scope(t, "acme")
	_, b := monthly("u")
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var refused, left atomic.Int64
	for range 2100 {
		wg.Go(func() {
			_, err := l.Standing(ctx, s, []*tenant.Budget{b})
			if err != nil && strings.Contains(err.Error(), "too much is being read") {
				refused.Add(1)
			} else if errors.Is(err, context.Canceled) {
				left.Add(1)
			}
		})
	}
	<-g.entered
	until(t, func() bool { return refused.Load() == 2100-2048 })
	cancel()
	wg.Wait()
	if left.Load() != 2048 {
		t.Errorf("%d waited", left.Load())
	}
	// So are the periods of one read.
	var users []*tenant.Budget
	for i := range 1100 {
		_, b := monthly(fmt.Sprint("u", i))
		users = append(users, b)
	}
	ctx, cancel = context.WithCancel(t.Context())
	cancel()
	for i := range 1100 {
		_, err := l.Standing(ctx, s, users[i:i+1])
		if want := context.Canceled; i < 1024 && !errors.Is(err, want) || i >= 1024 && errors.Is(err, want) {
			t.Fatalf("user %d: %v", i, err)
		}
	}
	// What was begun is read for those who come later, though nobody waits.
	go func() {
		for i := 0; ; i++ {
			select {
			case g.read <- struct{}{}:
			case <-g.done:
			case g.answer <- struct{}{}:
			case <-g.entered:
			case <-t.Context().Done():
				return
			}
		}
	}()
	if _, err := l.Standing(t.Context(), s, users); err != nil {
		t.Error(err)
	}
	if n := g.Reads(); n > 4 {
		t.Errorf("read %d times", n)
	}
}
