package storetest

import (
	"sync"
	"testing"
	"time"

	"bulkhead/fault"
	"bulkhead/tenant"
)

// kept is a call with an Idempotency-Key that begins.
func kept(claim, request string) tenant.KeptCall {
	return tenant.KeptCall{Claim: claim, Project: "proj_same", Request: request, Owner: "req_same",
		Until: time.Now().Add(tenant.KeptFor).UTC().Truncate(time.Microsecond)}
}

// ended is what becomes of it.
func ended(claim string, st tenant.KeptState, sealed string) tenant.KeptCall {
	k := tenant.KeptCall{Claim: claim, Owner: "req_same", State: st}
	if sealed != "" {
		k.Sealed = []byte(sealed)
	}
	return k
}

func (w *world) begin(s tenant.Scope, k tenant.KeptCall, want bool) tenant.KeptCall {
	w.t.Helper()
	there, begun, err := w.db.BeginKept(w.ctx(), s, k)
	must(w.t, err)
	if begun != want {
		w.t.Fatalf("begun: %t, want %t; there is %+v", begun, want, there)
	}
	return there
}

// sweepDue reports whether somebody is to sweep for a company.
func (w *world) sweepDue(s tenant.Scope, want bool) {
	w.t.Helper()
	found := false
	for {
		u, ok, err := w.db.TakeUpkeep(w.ctx(), tenant.SweepKept, time.Hour)
		must(w.t, err)
		if !ok {
			break
		}
		found = found || u.Company == s.ID().String()
	}
	same(w.t, found, want)
}

// testKept: a call begins once, ends once, by its owner, and is over after a day.
func testKept(t *testing.T, open Open) {
	w := newWorld(t, open)
	s, _ := w.company("acme")
	look := func(claim string) tenant.KeptCall {
		t.Helper()
		k, err := w.db.KeptCall(w.ctx(), s, claim)
		must(t, err)
		return k
	}
	_, err := w.db.KeptCall(w.ctx(), s, "claim_1")
	wantErr(t, err, tenant.ErrNotFound)
	k := kept("claim_1", "hello")
	w.begin(s, k, true)
	k.State = tenant.Begun
	same(t, look("claim_1"), k)
	again := kept("claim_1", "other")
	again.Owner = "req_other"
	same(t, w.begin(s, again, false), k)

	// Nobody else ends or frees it.
	no := ended("claim_1", tenant.Kept, "stolen")
	no.Owner = "req_other"
	must(t, w.db.EndKept(w.ctx(), s, no))
	no.State, no.Sealed = tenant.Begun, nil
	must(t, w.db.EndKept(w.ctx(), s, no))
	same(t, look("claim_1"), k)
	must(t, w.db.EndKept(w.ctx(), s, ended("claim_1", tenant.Kept, "sealed")))
	k.State, k.Sealed = tenant.Kept, []byte("sealed")
	same(t, look("claim_1"), k)
	// It has ended: that is not changed, nor is it freed.
	must(t, w.db.EndKept(w.ctx(), s, ended("claim_1", tenant.Lost, "")))
	must(t, w.db.EndKept(w.ctx(), s, ended("claim_1", tenant.Begun, "")))
	same(t, look("claim_1"), k)
	same(t, w.begin(s, again, false), k)

	// One that is free again may begin anew.
	w.begin(s, kept("claim_2", "hello"), true)
	must(t, w.db.EndKept(w.ctx(), s, ended("claim_2", tenant.Begun, "")))
	_, err = w.db.KeptCall(w.ctx(), s, "claim_2")
	wantErr(t, err, tenant.ErrNotFound)
	w.begin(s, kept("claim_2", "other"), true)

	// One whose time is over is not there, and makes room.
	over := kept("claim_3", "hello")
	over.Until = time.Now().Add(-time.Minute)
	w.begin(s, over, true)
	_, err = w.db.KeptCall(w.ctx(), s, "claim_3")
	wantErr(t, err, tenant.ErrNotFound)
	w.begin(s, kept("claim_3", "anew"), true)
	same(t, look("claim_3").Request, "anew")

	// Many at once: one begins.
	var wg sync.WaitGroup
	begun := make(chan bool, 20)
	for range cap(begun) {
		wg.Go(func() {
			_, ok, err := w.db.BeginKept(w.ctx(), s, kept("claim_race", "hello"))
			if err != nil {
				t.Error(err)
			}
			begun <- ok
		})
	}
	wg.Wait()
	close(begun)
	n := 0
	for ok := range begun {
		if ok {
			n++
		}
	}
	same(t, n, 1)

	// They go when their time is over, and that is asked for.
	w.begin(s, over, false)
	next, err := w.db.SweepKept(w.ctx(), s, time.Now())
	must(t, err)
	if d := time.Until(next); d < 23*time.Hour || d > 25*time.Hour {
		t.Errorf("the next is in %s", d)
	}
	same(t, look("claim_1"), k)
	later := time.Now().Add(tenant.KeptFor + time.Minute)
	next, err = w.db.SweepKept(w.ctx(), s, later)
	must(t, err)
	same(t, next.After(later.Add(tenant.KeptFor)), true) // for what was begun beside it
	_, err = w.db.KeptCall(w.ctx(), s, "claim_1")
	wantErr(t, err, tenant.ErrNotFound)
	next, err = w.db.SweepKept(w.ctx(), s, later)
	must(t, err)
	same(t, next.IsZero(), true)

	// There are so many at most.
	for i := range 260 {
		claim := "claim_full_" + string(rune('a'+i/26)) + string(rune('a'+i%26))
		_, ok, err := w.db.BeginKept(w.ctx(), s, kept(claim, "hello"))
		if fault.Is(err, fault.RateLimited) && i > 0 {
			same(t, fault.As(err).Code, "idempotency_full")
			return
		}
		must(t, err)
		same(t, ok, true)
		must(t, w.db.EndKept(w.ctx(), s, ended(claim, tenant.Kept, string(make([]byte, 1<<20)))))
	}
	t.Error("there is no end of what is kept")
}

// furnishKept gives a company one of each kind.
func furnishKept(t *testing.T, w *world, s tenant.Scope, name string) {
	t.Helper()
	for _, claim := range []string{"claim_begun", "claim_free", "claim_kept"} {
		k := kept(claim, name+" request")
		k.Until = january.AddDate(20, 0, 0)
		w.begin(s, k, true)
	}
	must(t, w.db.EndKept(w.ctx(), s, ended("claim_kept", tenant.Kept, name+" answer")))
}

func seeKept(w *world, s tenant.Scope, see func(what string, v any, err error)) {
	for _, claim := range []string{"claim_begun", "claim_free", "claim_kept", "claim_new"} {
		k, err := w.db.KeptCall(w.ctx(), s, claim)
		see(claim+" "+k.Request+" "+string(k.Sealed), k, err)
	}
}

// testSeparateKept has two companies use the same claims.
func testSeparateKept(t *testing.T, w *world, one, two tenant.Scope) {
	t.Helper()
	ctx, db := w.ctx(), w.db
	over := func(claim string, ago time.Duration) {
		t.Helper()
		for _, s := range []tenant.Scope{two, one} {
			k := kept(claim, "over")
			k.Until = time.Now().Add(-ago).Truncate(time.Microsecond)
			w.begin(s, k, true)
			w.sweepDue(s, claim == "claim_first") // it is asked for with the first of each, whatever the other has
		}
	}
	over("claim_first", 48*time.Hour)
	over("claim_second", 24*time.Hour)
	next := func(s tenant.Scope, now, want time.Duration) {
		t.Helper()
		at, err := db.SweepKept(ctx, s, time.Now().Add(now))
		must(t, err)
		if d := time.Until(at) - want; d < -time.Minute || d > 20*time.Minute {
			t.Errorf("the next is in %s, want %s", time.Until(at), want)
		}
	}
	// What is over in one makes room there, and stays in two.
	w.begin(one, kept("claim_first", "anew"), true)
	next(two, -72*time.Hour, -48*time.Hour)
	next(one, -72*time.Hour, -24*time.Hour)
	// One is swept, two is not.
	next(one, 0, tenant.KeptFor)
	next(two, -72*time.Hour, -48*time.Hour)
}
