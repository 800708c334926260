package limiter_test

import (
	"context"
	"fmt"
	"runtime"
	"testing"
	"time"

	"pgregory.net/rapid"

	"bulkhead/limiter"
	"bulkhead/limiter/limitertest"
	"bulkhead/tenant"
	"bulkhead/tenant/tenanttest"
)

// gate is a ledger that reads when it is told, and answers when it is told.
type gate struct {
	*limitertest.Ledger
	entered, read, done, answer chan struct{}
}

func newGate() *gate {
	return &gate{limitertest.NewLedger(), make(chan struct{}), make(chan struct{}), make(chan struct{}), make(chan struct{})}
}

func (g *gate) Spent(ctx context.Context, s tenant.Scope, spans []limiter.Span, before time.Time, except []string) ([]limiter.Used, error) {
	g.entered <- struct{}{}
	<-g.read
	u, err := g.Ledger.Spent(ctx, s, spans, before, except)
	g.done <- struct{}{}
	<-g.answer
	return u, err
}

// reading is a history in which one period after the other is read, with
// anything happening before the ledger is asked, before it looks, before it
// answers, and after.
type reading struct {
	t     *rapid.T
	l     *limiter.Local
	g     *gate
	clock *limitertest.Clock
	s     tenant.Scope
	all   []*tried
	told  []string // shipped; Shipped was not called yet

	phase   int // 0 nothing is read, 1 asked, 2 looked
	waiting int // Standing that waits
	results chan error
}

// tried is one attempt.
type tried struct {
	hold              limiter.Hold
	entry             limitertest.Entry
	nano              int64
	recorded, settled bool
}

var readBudgets = []*tenant.Budget{
	{Kind: tenant.OfCompany, Unit: tenant.USD, Period: tenant.Day}, {Kind: tenant.OfCompany, Unit: tenant.Requests, Period: tenant.Total},
	{Kind: tenant.OfProject, Of: "p1", Unit: tenant.USD, Period: tenant.Month}, {Kind: tenant.OfProject, Of: "p2", Unit: tenant.USD, Period: tenant.Total},
	{Kind: tenant.OfKey, Of: "k1", Unit: tenant.Tokens, Period: tenant.Week}, {Kind: tenant.OfUser, Of: "u1", Unit: tenant.USD, Period: tenant.Day},
}

// TestReadWhileAllGoesOn: whatever happens while a period is read, whatever the
// clock does, each attempt counts once.
func TestReadWhileAllGoesOn(t *testing.T) {
	compared := 0
	rapid.Check(t, func(rt *rapid.T) {
		r := &reading{t: rt, g: newGate(), clock: limitertest.NewClock(time.Date(2026, 11, 18, 12, 7, 50, 0, time.UTC)), s: tenanttest.Scope(t, "acme"), results: make(chan error, 1000)}
		r.l = limiter.NewLocal(limiter.Options{Now: r.clock.Now, Book: r.g, BookTimeout: time.Hour})
		steps := []func(){r.hold, r.hold, r.record, r.record, r.settle, r.settle, r.ship, r.ship, r.tell, r.tell, r.whole, r.whole, r.pass, r.begin, r.next, r.next}
		for range rapid.IntRange(1, 250).Draw(rt, "steps") {
			steps[rapid.IntRange(0, len(steps)-1).Draw(rt, "step")]()
			compared += r.compare()
		}
		for r.phase != 0 {
			r.next()
		}
		compared += r.compare()
		// Nothing is remembered of what has ended and is in the store.
		for _, x := range r.all {
			if !x.recorded {
				r.g.Record(r.s, x.entry)
			}
			x.hold.End(x.entry.Used)
		}
		r.l.Shipped(r.s, append(r.told, r.g.Ship(r.s, len(r.all), func(int) int { return 0 })...))
		if st := r.l.Stats(); st.Attempts != 0 || st.HeldNano != 0 || st.Open != 0 {
			rt.Fatalf("%+v", st)
		}
	})
	if compared == 0 {
		t.Error("nothing was compared")
	}
}

func (r *reading) hold() {
	pick := func(ids ...string) string { return rapid.SampledFrom(ids).Draw(r.t, "owner") }
	a := limiter.Ask{ID: fmt.Sprint("att_", len(r.all)), By: limiter.By{Project: pick("p1", "p2"), Key: pick("k1", "k2"), User: pick("", "u1")},
		Nano: rapid.Int64Range(0, 50).Draw(r.t, "nano"), Tokens: 3, Again: rapid.Bool().Draw(r.t, "again")}
	h, _, err := r.l.Hold(r.t.Context(), r.s, &a)
	if err != nil {
		r.t.Fatal(err)
	}
	r.all = append(r.all, &tried{hold: h, entry: limitertest.Entry{ID: a.ID, By: a.By, At: h.At(), First: !a.Again}, nano: a.Nano})
}

func (r *reading) some(so func(*tried) bool) *tried {
	var all []*tried
	for _, x := range r.all {
		if so(x) {
			all = append(all, x)
		}
	}
	if len(all) == 0 {
		return nil
	}
	return all[rapid.IntRange(0, len(all)-1).Draw(r.t, "which")]
}

func (r *reading) record() {
	if x := r.some(func(x *tried) bool { return !x.recorded }); x != nil {
		x.recorded = true
		x.entry.Used = limiter.Used{Nano: rapid.Int64Range(0, 60).Draw(r.t, "used"), Tokens: 2}
		r.g.Record(r.s, x.entry)
	}
}

func (r *reading) settle() {
	if x := r.some(func(x *tried) bool { return x.recorded && !x.settled }); x != nil {
		x.settled = true
		x.hold.End(x.entry.Used)
	}
}

func (r *reading) ship() {
	r.told = append(r.told, r.g.Ship(r.s, rapid.IntRange(1, 4).Draw(r.t, "entries"), func(n int) int { return rapid.IntRange(0, n-1).Draw(r.t, "next") })...)
}

func (r *reading) tell() {
	if n := len(r.told); n > 0 {
		i := rapid.IntRange(0, n-1).Draw(r.t, "told")
		r.l.Shipped(r.s, r.told[i:i+1])
		r.told = append(r.told[:i], r.told[i+1:]...)
	}
}

func (r *reading) pass() {
	const us, h = time.Microsecond, time.Hour
	r.clock.Pass(rapid.SampledFrom([]time.Duration{0, us, -us, 1, -1, time.Second, -time.Second, h, -h, 30 * h, -30 * h, 900 * h}).Draw(r.t, "pass"))
}

// whole is an attempt from its beginning until it is in the store.
func (r *reading) whole() {
	r.hold()
	x := r.all[len(r.all)-1]
	x.recorded, x.entry.Used = true, limiter.Used{Nano: 7, Tokens: 1}
	r.g.Record(r.s, x.entry)
	if rapid.Bool().Draw(r.t, "settled first") {
		x.settled = true
		x.hold.End(x.entry.Used)
	}
	r.told = append(r.told, r.g.Ship(r.s, 1, func(n int) int { return n - 1 })...)
	if rapid.Bool().Draw(r.t, "told") {
		r.l.Shipped(r.s, r.told)
		r.told = nil
	}
	if !x.settled && rapid.Bool().Draw(r.t, "settled") {
		x.settled = true
		x.hold.End(x.entry.Used)
	}
}

// begin asks for a budget, which begins a read or waits for the next.
func (r *reading) begin() {
	b := rapid.SampledFrom(readBudgets).Draw(r.t, "budget")
	if _, known := r.l.Known(r.s, b); known || r.waiting == cap(r.results) {
		return
	}
	before := r.l.Stats().Windows
	r.waiting++
	go func() {
		_, err := r.l.Standing(context.Background(), r.s, []*tenant.Budget{b})
		r.results <- err
	}()
	if r.phase == 0 {
		r.entered()
		return
	}
	// Until it waits. If another waits for the same it may do so later.
	for range 1000 {
		if r.l.Stats().Windows != before {
			break
		}
		runtime.Gosched()
	}
}

// entered waits until the ledger is asked, or nobody waits any more.
func (r *reading) entered() {
	r.phase = 0
	for r.waiting > 0 {
		select {
		case <-r.g.entered:
			r.phase = 1
			return
		case err := <-r.results:
			if err != nil {
				r.t.Fatal(err)
			}
			r.waiting--
		}
	}
}

// next goes on with what is read.
func (r *reading) next() {
	switch r.phase {
	case 1:
		r.g.read <- struct{}{}
		<-r.g.done
		r.phase = 2
	case 2:
		r.g.answer <- struct{}{}
		r.entered()
	}
}

// compare compares all that is counted with the sum of all attempts.
func (r *reading) compare() (n int) {
	for _, b := range readBudgets {
		got, ok := r.l.Known(r.s, b)
		if !ok {
			continue
		}
		n++
		var spent, held limiter.Used
		for _, x := range r.all {
			at := x.entry.At
			if !x.entry.By.Has(b) || at.Before(got.From) || !got.To.IsZero() && !at.Before(got.To) {
				continue
			}
			if x.entry.First {
				spent.Requests++
			}
			if x.settled {
				spent.Nano += x.entry.Used.Nano
				spent.Tokens += x.entry.Used.Tokens
			} else {
				held.Nano += x.nano
				held.Tokens += 3
			}
		}
		if want := (limiter.Standing{Spent: spent.Of(b.Unit), Held: held.Of(b.Unit), From: got.From, To: got.To}); got != want {
			r.t.Fatalf("%s of %s %q: %+v, want %+v", b.Period, b.Kind, b.Of, got, want)
		}
	}
	return n
}
