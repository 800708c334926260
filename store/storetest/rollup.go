package storetest

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"bulkhead/ledger"
	"bulkhead/limiter"
	"bulkhead/tenant"
)

const day = 24 * time.Hour

// january is the first day of what is added up here, long over.
var january = time.Date(2026, 1, 10, 0, 0, 0, 0, time.UTC)

// rollUp adds all up that is over by a clock, and returns the last result.
func (w *world) rollUp(s tenant.Scope, o ledger.RollupOptions) (sum ledger.Rolled) {
	w.t.Helper()
	for range 1000 {
		r, err := w.db.RollUp(w.ctx(), s, o)
		must(w.t, err)
		sum.Days, sum.Closed, sum.Steps, sum.Next = sum.Days+r.Days, sum.Closed+r.Closed, sum.Steps+r.Steps, r.Next
		if r.Next.IsZero() || r.Next.After(o.Now) {
			return sum
		}
	}
	w.t.Fatal("it does not end")
	return sum
}

// days are the days of a company with "stale" and "closed", by their number from january.
func (w *world) days(s tenant.Scope) (all []string) {
	w.t.Helper()
	st, err := w.db.RollupState(w.ctx(), s)
	must(w.t, err)
	for _, d := range st.Days {
		text := fmt.Sprint(int(d.Day.Sub(january) / day))
		if d.Stale {
			text += " stale"
		}
		if d.Closed {
			text += " closed"
		}
		all = append(all, text)
	}
	return all
}

// spent is what a company spent in some days, from one on and before another.
func (w *world) spent(s tenant.Scope, from, to int) int64 {
	w.t.Helper()
	span := limiter.Span{Kind: tenant.OfCompany, From: january.Add(time.Duration(from) * day), To: january.Add(time.Duration(to) * day)}
	used, err := w.db.Spent(w.ctx(), s, []limiter.Span{span}, time.Now(), nil)
	must(w.t, err)
	return used[0].Nano
}

func on(n int, cost int64) ledger.Entry {
	return attempt(january.Add(time.Duration(n)*day+12*time.Hour), cost)
}

func testRollups(t *testing.T, open Open) {
	w := newWorld(t, open)
	s, _ := w.company("acme")
	batch := func(entries ...ledger.Entry) { t.Helper(); must(t, w.db.AppendEntries(w.ctx(), book(s, entries...))) }
	o := ledger.RollupOptions{Now: january.Add(3*day + 30*time.Minute)}

	// Nothing to do for a company without entries.
	same(t, w.rollUp(s, o), ledger.Rolled{})
	batch(on(0, 1), on(0, 2), on(2, 4), on(3, 8))
	same(t, w.days(s), []string{"0 stale", "2 stale", "3 stale"})
	// The day before has not been over for long enough.
	r := w.rollUp(s, o)
	same(t, []any{r.Days, r.Next.Equal(january.Add(3*day + time.Hour))}, []any{1, true})
	same(t, w.days(s), []string{"0", "2 stale", "3 stale"})
	o.Now = january.Add(3*day + time.Hour)
	r = w.rollUp(s, o)
	same(t, []any{r.Days, r.Next.Equal(january.Add(4*day + time.Hour))}, []any{1, true})
	same(t, w.days(s), []string{"0", "2", "3 stale"})
	same(t, w.spent(s, 0, 4), 15)
	same(t, w.spent(s, 0, 3), 7)
	same(t, w.spent(s, 1, 3), 4)

	// One that comes late, or takes another's place, is counted at once and added up again.
	late := on(0, 16)
	late.Rank = ledger.Estimate
	batch(late)
	same(t, w.days(s), []string{"0 stale", "2", "3 stale"})
	same(t, w.spent(s, 0, 4), 31)
	r = w.rollUp(s, o)
	same(t, r.Days, 1)
	late.Rank, late.CostNano = ledger.Final, 32
	batch(late)
	same(t, w.spent(s, 0, 4), 47)
	same(t, w.rollUp(s, o).Days, 1)
	same(t, w.spent(s, 0, 4), 47)
	// Again changes nothing, and a day that was idle may get one too.
	same(t, w.rollUp(s, o).Days, 0)
	batch(on(1, 64))
	same(t, w.spent(s, 0, 4), 111)
	// In steps of one it is the same.
	o.Step, o.Days = 1, 1
	batch(on(0, 128))
	r = w.rollUp(s, o)
	same(t, []int{r.Days, r.Steps}, []int{2, 5 + 2})
	same(t, w.spent(s, 0, 4), 239)
	same(t, w.days(s), []string{"0", "1", "2", "3 stale"})
}

// testRollupsToday appends what is not late, which only RollUp itself notes.
func testRollupsToday(t *testing.T, open Open) {
	w := newWorld(t, open)
	s, _ := w.company("acme")
	now := time.Now().UTC()
	tomorrow := now.Truncate(day).Add(day + time.Hour)
	w.rollUp(s, ledger.RollupOptions{Now: now.Add(-2 * day)})
	must(t, w.db.AppendEntries(w.ctx(), book(s, attempt(now, 5))))
	same(t, len(w.days(s)), 0) // today is nobody's business yet
	span := limiter.Span{Kind: tenant.OfProject, Of: "proj_1"}
	f := func() {
		t.Helper()
		used, err := w.db.Spent(w.ctx(), s, []limiter.Span{span}, tomorrow.Add(day), nil)
		must(t, err)
		same(t, used[0], limiter.Used{Nano: 5, Tokens: 6, Requests: 1})
	}
	f()
	// But there will be something to do tomorrow.
	o := ledger.RollupOptions{Now: now}
	r := w.rollUp(s, o)
	if !r.Next.Equal(tomorrow) || r.Days != 0 {
		t.Errorf("%+v", r)
	}
	f()
	o.Now = tomorrow
	if r = w.rollUp(s, o); r.Days != 1 || !r.Next.Equal(tomorrow.Add(7*day)) {
		t.Errorf("%+v", r)
	}
	f()
}

func testRetention(t *testing.T, open Open) {
	w := newWorld(t, open)
	s, _ := w.company("acme")
	batch := func(entries ...ledger.Entry) { t.Helper(); must(t, w.db.AppendEntries(w.ctx(), book(s, entries...))) }
	kept := func(from, to int) (n int) {
		t.Helper()
		all, next, err := w.db.EntriesBetween(w.ctx(), s, january.Add(time.Duration(from)*day), january.Add(time.Duration(to)*day), "", 100)
		must(t, err)
		same(t, next, "")
		return len(all)
	}
	batch(on(0, 1), on(0, 2), on(0, 4), on(1, 8), on(2, 16))
	// They are kept for 70 days at least, and never go before they are added up.
	o := ledger.RollupOptions{Now: january.Add(71*day + time.Hour), Keep: day, Step: 2}
	same(t, w.rollUp(s, ledger.RollupOptions{Now: january.Add(day)}).Days, 0)
	r := w.rollUp(s, o)
	same(t, []int{r.Days, r.Closed, kept(0, 1), kept(1, 3)}, []int{3, 1, 0, 2})
	same(t, r.Next.Equal(january.Add(72*day)), true)
	same(t, w.days(s), []string{"0 closed", "1", "2"})
	same(t, w.spent(s, 0, 3), 31)

	// What comes after that is on top, stays on top, and goes.
	batch(on(0, 32), on(0, 64))
	same(t, w.days(s), []string{"0 stale closed", "1", "2"})
	same(t, w.spent(s, 0, 3), 127)
	w.rollUp(s, o)
	same(t, []any{w.spent(s, 0, 3), kept(0, 1), w.days(s)}, []any{127, 0, []string{"0 closed", "1", "2"}})
	// All gone, all there.
	o.Now = january.Add(200 * day)
	r = w.rollUp(s, o)
	same(t, []any{r.Closed, r.Next.IsZero(), kept(0, 5), w.spent(s, 0, 3)}, []any{2, true, 0, 127})
	// Parts of such a day can be told no more.
	q := ledger.UsageQuery{From: january.Add(-day), Until: january, Bucket: time.Hour, Rows: 10}
	_, _, err := w.db.Usage(w.ctx(), s, q)
	must(t, err)
	q.Until = january.Add(time.Hour)
	if _, _, err = w.db.Usage(w.ctx(), s, q); err == nil {
		t.Error("an hour of a closed day was told")
	}
}

// testRacingRollups appends while others add up and close the same days. Nothing is
// lost and nothing counts twice.
func testRacingRollups(t *testing.T, open Open) {
	w := newWorld(t, open)
	s, _ := w.company("acme")
	const writers, rounds = 3, 25
	o := ledger.RollupOptions{Now: january.Add(75 * day), Step: 2}
	var sum atomic.Int64
	var writing, rolling sync.WaitGroup
	done := make(chan struct{})
	for i := range writers {
		writing.Go(func() {
			r := rand.New(rand.NewPCG(uint64(i), 1))
			for range rounds {
				var batch []ledger.Entry
				for range 1 + r.IntN(3) {
					e := attempt(january.Add(time.Duration(r.Int64N(int64(2*day)))).Truncate(time.Microsecond), r.Int64N(1000))
					sum.Add(e.CostNano)
					batch = append(batch, e)
				}
				if err := w.db.AppendEntries(w.ctx(), book(s, batch...)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for i := range 2 {
		rolling.Go(func() {
			o := o
			for n := 0; ; n++ {
				select {
				case <-done:
					return
				default:
				}
				if o.Keep = 0; i == 1 && n > 5 {
					o.Keep = day
				}
				if _, err := w.db.RollUp(w.ctx(), s, o); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	writing.Wait()
	close(done)
	rolling.Wait()
	same(t, w.spent(s, 0, 2), sum.Load())
	o.Keep = day
	w.rollUp(s, o)
	same(t, w.days(s), []string{"0 closed", "1 closed"})
	same(t, w.spent(s, 0, 2), sum.Load())
}

// testSpentAtRandom holds Spent against the entries themselves, whatever is added
// up, comes late, takes another's place, and goes meanwhile.
func testSpentAtRandom(t *testing.T, open Open) {
	w := newWorld(t, open)
	s, _ := w.company("acme")
	seed := rand.Uint64()
	t.Log("seed", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	const days = 12
	last := january.Add(days * day)
	owners := []tenant.Budget{{Kind: tenant.OfCompany}, {Kind: tenant.OfCeiling}, {Kind: tenant.OfProject, Of: "proj_2"}, {Kind: tenant.OfKey, Of: "key_2"},
		{Kind: tenant.OfAgent, Of: "agent_1"}, {Kind: tenant.OfUser, Of: "user_1"}}
	random := func() time.Time {
		return january.Add(time.Duration(r.Int64N(int64(days*day/time.Second))) * time.Second)
	}
	var entries []ledger.Entry
	closed := map[int]bool{} // days with entries that cannot be replaced: they may be gone
	dayOf := func(at time.Time) int { return int(at.Sub(january) / day) }
	o := ledger.RollupOptions{Now: last.Add(day)}
	for step := range 60 {
		var batch []ledger.Entry
		for range r.IntN(6) {
			at := random()
			if r.IntN(3) == 0 { // near the beginning of a day
				at = at.Truncate(day).Add(time.Duration(r.IntN(5)-2) * time.Microsecond)
				at = maxTime(at, january)
			}
			e := attempt(at, r.Int64N(1000))
			if r.IntN(2) == 0 { // the id is of another clock
				skewed := at.Add(time.Duration(r.Int64N(int64(118*time.Minute))) - 59*time.Minute)
				e.ID = ledger.AttemptIDAt(skewed)[:20] + ledger.NewAttemptID()[20:]
			}
			e.Rank, e.First, e.Lent = ledger.Estimate, r.IntN(4) > 0, r.IntN(2) == 0
			e.ProjectID, e.KeyID = fmt.Sprint("proj_", 1+r.IntN(2)), fmt.Sprint("key_", 1+r.IntN(2))
			e.AgentID, e.UserID = []string{"", "agent_1"}[r.IntN(2)], []string{"", "user_1", "user_2"}[r.IntN(3)]
			batch = append(batch, e)
			entries = append(entries, e)
		}
		if n := len(entries); n > 0 && r.IntN(3) == 0 {
			e := &entries[r.IntN(n)]
			if e.Rank == ledger.Estimate && !closed[dayOf(e.StartedAt)] {
				e.Rank, e.CostNano = ledger.Final, r.Int64N(1000)
				batch = append(batch, *e)
			}
		}
		must(t, w.db.AppendEntries(w.ctx(), book(s, batch...)))
		if r.IntN(3) == 0 {
			o.Step, o.Days, o.Keep = 1+r.IntN(5), 1+r.IntN(days), 0
			if step > 40 {
				o.Keep, o.Now = day, last.Add(time.Duration(60+r.IntN(15))*day)
				for d := range days {
					closed[d] = true
				}
			}
			_, err := w.db.RollUp(w.ctx(), s, o)
			must(t, err)
		}
		var spans []limiter.Span
		var want []limiter.Used
		before := random().Add(6 * day)
		for _, b := range owners {
			from, to := random(), random()
			if step > 40 { // parts of old days are not asked for
				from, to = from.Truncate(day), to.Truncate(day)
				before = last
			}
			switch r.IntN(4) {
			case 0:
				from = time.Time{}
			case 1:
				to = time.Time{}
			case 2:
				from, to = from.Truncate(day), to.Truncate(day)
			}
			spans = append(spans, limiter.Span{Kind: b.Kind, Of: b.Of, From: from, To: to})
			want = append(want, brute(entries, spans[len(spans)-1], before))
		}
		got, err := w.db.Spent(w.ctx(), s, spans, before, nil)
		must(t, err)
		if text(got) != text(want) {
			t.Fatalf("step %d, %v before %s:\ngot  %s\nwant %s\n%v", step, spans, before, text(got), text(want), w.days(s))
		}
	}
}

func maxTime(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// brute is what Spent should say.
func brute(entries []ledger.Entry, sp limiter.Span, before time.Time) (u limiter.Used) {
	for _, e := range entries {
		by := limiter.By{Project: e.ProjectID, Key: e.KeyID, Agent: e.AgentID, User: e.UserID, Lent: e.Lent}
		if e.StartedAt.Before(sp.From) || !sp.To.IsZero() && !e.StartedAt.Before(sp.To) || !e.StartedAt.Before(before) ||
			!by.Has(&tenant.Budget{Kind: sp.Kind, Of: sp.Of}) {
			continue
		}
		u.Nano += e.CostNano
		u.Tokens += e.Usage.Input + e.Usage.Output
		if e.First {
			u.Requests++
		}
	}
	return u
}
