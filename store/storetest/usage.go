package storetest

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"bulkhead/ledger"
	"bulkhead/openai"
	"bulkhead/tenant"
)

func testUpkeep(t *testing.T, open Open) {
	w := newWorld(t, open)
	acme, _ := w.company("acme")
	beta, _ := w.company("beta")
	take := func(want ...string) (u tenant.Upkeep) {
		t.Helper()
		u, ok, err := w.db.TakeUpkeep(w.ctx(), tenant.RollUp, time.Hour)
		must(t, err)
		if ok != (len(want) > 0) || ok && !slices.Contains(want, u.Company+" "+u.Kind) {
			t.Fatalf("given out %+v, %t, want %q", u, ok, want)
		}
		return u
	}
	take()
	// An entry of a day that is over asks at once; it is given out once.
	must(t, w.db.AppendEntries(w.ctx(), book(acme, on(0, 1))))
	u := take(acme.ID().String() + " rollup")
	take()
	// What is asked for meanwhile is not lost, whenever it was wanted.
	must(t, w.db.AppendEntries(w.ctx(), book(acme, on(0, 1))))
	u2 := take(acme.ID().String() + " rollup")
	must(t, w.db.EndUpkeep(w.ctx(), u, time.Time{})) // too late
	take()
	must(t, w.db.EndUpkeep(w.ctx(), u2, time.Now().Add(-time.Minute)))
	u = take(acme.ID().String() + " rollup")
	must(t, w.db.AppendEntries(w.ctx(), book(acme, attempt(time.Now(), 1)))) // for tomorrow
	must(t, w.db.EndUpkeep(w.ctx(), u, time.Time{}))
	take()
	// Also if it is wanted later than the work would be given out again.
	for _, next := range []time.Time{{}, time.Now().Add(time.Hour)} {
		must(t, w.db.AppendEntries(w.ctx(), book(acme, on(0, 1))))
		u, ok, err := w.db.TakeUpkeep(w.ctx(), tenant.RollUp, -time.Minute)
		must(t, err)
		same(t, ok, true)
		must(t, w.db.AppendEntries(w.ctx(), book(acme, on(0, 1))))
		must(t, w.db.EndUpkeep(w.ctx(), u, next))
		u = take(acme.ID().String() + " rollup")
		must(t, w.db.EndUpkeep(w.ctx(), u, time.Now().Add(time.Hour)))
		take()
	}
	// One that is not ended comes back when its time is over.
	must(t, w.db.AppendEntries(w.ctx(), book(beta, on(0, 1))))
	u, ok, err := w.db.TakeUpkeep(w.ctx(), tenant.RollUp, -time.Second)
	must(t, err)
	same(t, []any{ok, u.Company, u.Kind}, []any{true, beta.ID().String(), "rollup"})
	u = take(beta.ID().String() + " rollup")
	must(t, w.db.EndUpkeep(w.ctx(), u, time.Time{}))
	take()
	// All companies from before are looked at once; one that was erased is let go.
	begun, err := w.db.RollupsBegun(w.ctx())
	must(t, err)
	must(t, w.db.BeginRollups(w.ctx(), w.act("ledger.begin", "")))
	again, err := w.db.RollupsBegun(w.ctx())
	must(t, err)
	same(t, []bool{begun, again}, []bool{false, true})
	both := []string{acme.ID().String() + " rollup", beta.ID().String() + " rollup"}
	u = take(both...)
	s, err := w.Background(w.ctx(), u)
	must(t, err)
	same(t, []any{s.ID().String(), s.KeyID(), s.Actor()}, []any{u.Company, "", "gateway"})
	a := w.act("company.erase", acme.ID().String())
	for _, st := range []tenant.Status{tenant.Suspended, tenant.Erasing} {
		_, err := w.Background(w.ctx(), tenant.Upkeep{Company: acme.ID().String()})
		must(t, err)
		_, err = w.db.SetCompanyStatus(w.ctx(), a, acme.ID().String(), st)
		must(t, err)
	}
	if _, err := w.Background(w.ctx(), tenant.Upkeep{Company: acme.ID().String()}); err == nil {
		t.Error("a company that is being erased is worked for")
	}
	must(t, w.db.AppendEntries(w.ctx(), book(acme, on(0, 1))))
	_, err = w.db.EraseCompany(w.ctx(), a, acme)
	must(t, err)
	for { // of acme nothing is left
		u, ok, err := w.db.TakeUpkeep(w.ctx(), tenant.RollUp, time.Hour)
		must(t, err)
		if !ok {
			break
		}
		same(t, u.Company, beta.ID().String())
	}
}

// used returns an entry with a figure of each class.
func used(at time.Time, r *rand.Rand) ledger.Entry {
	e := attempt(at, r.Int64N(1_000_000_000_000))
	pick := func(of ...string) string { return of[r.IntN(len(of))] }
	e.Kind, e.Provider, e.Model, e.Tier = pick("chat", "embeddings"), pick("openai", "azure"), pick("gpt-4o", "gpt"), pick("", "batch", "flex")
	e.ProjectID, e.KeyID, e.UserID = pick("proj_1", "proj_2"), pick("key_1", "key_2"), pick("", "user_1", "user_2")
	e.First, e.Lent, e.Priced = r.IntN(3) > 0, r.IntN(3) == 0, r.IntN(5) > 0
	u := &e.Usage
	for _, n := range []*int64{&u.CachedInput, &u.CacheWrite, &u.AudioInput, &u.ImageInput, &u.Reasoning, &u.AudioOutput, &u.ImageOutput} {
		*n = r.Int64N(1000)
	}
	u.Input, u.Output = 4000+r.Int64N(1000), 3000+r.Int64N(1000)
	u.Total = u.Input + u.Output
	return e
}

// sumUp is what Usage should say.
func sumUp(entries []ledger.Entry, q ledger.UsageQuery) (sums []ledger.UsageSum) {
	is := func(list []string, values ...string) bool {
		return len(list) == 0 || slices.ContainsFunc(values, func(v string) bool { return slices.Contains(list, v) })
	}
	at := map[string]int{}
	for _, e := range entries {
		u := ledger.UsageSum{At: e.StartedAt.Truncate(q.Bucket), ProjectID: e.ProjectID, KeyID: e.KeyID, UserID: e.UserID, Provider: e.Provider,
			Model: e.Model, Tier: e.Tier}
		if e.StartedAt.Before(q.From) || !e.StartedAt.Before(q.Until) || !is(q.Kinds, e.Kind) || !is(q.Projects, e.ProjectID) || !is(q.Keys, e.KeyID) ||
			!is(q.Users, e.UserID) || !is(q.Models, e.Model, u.ModelName()) || !is(q.Lines, u.Line()) ||
			q.Batch == ledger.OnlyBatch && e.Tier != "batch" || q.Batch == ledger.NoBatch && e.Tier == "batch" {
			continue
		}
		for _, f := range []struct {
			by bool
			to *string
		}{{q.By.Project, &u.ProjectID}, {q.By.Key, &u.KeyID}, {q.By.User, &u.UserID}, {q.By.Model, &u.Provider}, {q.By.Model, &u.Model}, {q.By.Tier, &u.Tier}} {
			if !f.by {
				*f.to = ""
			}
		}
		key := fmt.Sprint(u.At.Unix(), "|", u.ProjectID, "|", u.KeyID, "|", u.UserID, "|", u.Provider, "|", u.Model, "|", u.Tier)
		if _, there := at[key]; !there {
			at[key] = len(sums)
			sums = append(sums, u)
		}
		one := ledger.UsageSum{Attempts: 1, CostNano: e.CostNano, Input: e.Usage.Input, AudioInput: e.Usage.AudioInput, ImageInput: e.Usage.ImageInput,
			Output: e.Usage.Output, Reasoning: e.Usage.Reasoning, AudioOutput: e.Usage.AudioOutput, ImageOutput: e.Usage.ImageOutput}
		if e.First {
			one.Requests = 1
		}
		if !e.Priced {
			one.Unpriced = 1
		}
		if !e.Lent {
			one.CachedInput, one.CacheWrite = e.Usage.CachedInput, e.Usage.CacheWrite
		}
		sums[at[key]].Add(&one)
	}
	slices.SortFunc(sums, func(a, b ledger.UsageSum) int { return compare(a, b) })
	return sums
}

func compare(a, b ledger.UsageSum) int {
	key := func(u ledger.UsageSum) []string {
		return []string{u.At.UTC().Format(time.RFC3339), u.ProjectID, u.KeyID, u.UserID, u.Provider, u.Model, u.Tier}
	}
	return slices.Compare(key(a), key(b))
}

// testUsage holds Usage against the entries, added up and not.
func testUsage(t *testing.T, open Open) {
	w := newWorld(t, open)
	s, _ := w.company("acme")
	seed := rand.Uint64()
	t.Log("seed", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	const days = 6
	var entries []ledger.Entry
	for range 150 {
		entries = append(entries, used(january.Add(time.Duration(r.Int64N(int64(days*day/time.Second)))*time.Second), r))
	}
	must(t, w.db.AppendEntries(w.ctx(), book(s, entries...)))
	some := func(of ...string) []string {
		if r.IntN(3) > 0 {
			return nil
		}
		r.Shuffle(len(of), func(i, j int) { of[i], of[j] = of[j], of[i] })
		return of[:1+r.IntN(len(of))]
	}
	yes := func() bool { return r.IntN(2) == 0 }
	for step := range 80 {
		switch step {
		case 30: // half of it is added up
			w.rollUp(s, ledger.RollupOptions{Now: january.Add(3*day + time.Hour)})
		case 60: // and of some entries are there no more
			late := used(january.Add(day), r)
			w.rollUp(s, ledger.RollupOptions{Now: january.Add(72*day + time.Hour), Keep: 1})
			entries = append(entries, late)
			must(t, w.db.AppendEntries(w.ctx(), book(s, late)))
		}
		from := r.IntN(days)
		q := ledger.UsageQuery{
			From: january.Add(time.Duration(from) * day), Until: january.Add(time.Duration(from+1+r.IntN(days)) * day), Bucket: day,
			Kinds: some("chat", "embeddings"), Projects: some("proj_1", "proj_2", "proj_nobody"), Keys: some("key_1", "key_2"), Users: some("user_1", "user_2"),
			Models: some("gpt", "openai/gpt-4o", "azure/gpt", "o"), Lines: some("openai/gpt-4o", "azure/gpt, flex", "azure/gpt"),
			Batch: ledger.Batch(r.IntN(3)), By: ledger.UsageBy{Project: yes(), Key: yes(), User: yes(), Model: yes(), Tier: yes()}, Rows: 1000,
		}
		if step < 60 && yes() {
			q.Bucket = []time.Duration{time.Minute, time.Hour}[r.IntN(2)]
		}
		got, until, err := w.db.Usage(w.ctx(), s, q)
		must(t, err)
		same(t, until, q.Until)
		same(t, got, sumUp(entries, q))
		// In pages of few sums it is the same.
		q.Rows = 40
		var pages []ledger.UsageSum
		for end := q.Until; ; {
			page, until, err := w.db.Usage(w.ctx(), s, q)
			must(t, err)
			if pages = append(pages, page...); !until.Before(end) {
				break
			}
			if !until.After(q.From) {
				t.Fatal("a bucket has more sums than there are entries")
			}
			q.From = until
		}
		same(t, pages, got)
		if t.Failed() {
			t.Fatalf("step %d: %+v", step, q)
		}
	}
	testEntriesBetween(t, w, s)
}

func testEntriesBetween(t *testing.T, w *world, s tenant.Scope) {
	t.Helper()
	var at []time.Time
	after, pages := "", 0
	from, until := january.Add(4*day+time.Hour), january.Add(5*day)
	for more := true; more; pages++ {
		some, next, err := w.db.EntriesBetween(w.ctx(), s, from, until, after, 7)
		must(t, err)
		for _, e := range some {
			at = append(at, e.StartedAt)
			if e.StartedAt.Before(from) || !e.StartedAt.Before(until) {
				t.Errorf("an entry of %s", e.StartedAt)
			}
		}
		after, more = next, next != ""
	}
	all, _, err := w.db.Entries(w.ctx(), s, openai.Page{Limit: 1000})
	must(t, err)
	want := 0
	for _, e := range all {
		if !e.StartedAt.Before(from) && e.StartedAt.Before(until) {
			want++
		}
	}
	if len(at) != want || !slices.IsSortedFunc(at, time.Time.Compare) || pages < 2 {
		t.Errorf("%d entries in %d pages, want %d: %v", len(at), pages, want, at)
	}
}
