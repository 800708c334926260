package storetest

import (
	"testing"
	"time"

	"bulkhead/tenant"
)

// response is one that a provider keeps.
func response(id, by string, tokens int64) tenant.Response {
	return tenant.Response{
		ID: id, Project: "proj_same", CreatedBy: "key_" + by, User: "user_same", Provider: "same", Credential: "cred_same", Model: "model", Tokens: tokens,
		CreatedAt: epoch, Until: january.AddDate(20, 0, 0),
	}
}

// testResponses: an id is whose it was first, until its time is over or it is
// deleted.
func testResponses(t *testing.T, open Open) {
	w := newWorld(t, open)
	s, _ := w.company("acme")
	look := func(id string) tenant.Response {
		t.Helper()
		r, err := w.db.Response(w.ctx(), s, id)
		must(t, err)
		return r
	}
	gone := func(id string) {
		t.Helper()
		_, err := w.db.Response(w.ctx(), s, id)
		wantErr(t, err, tenant.ErrNotFound)
	}
	gone("resp_1")
	wantErr(t, w.db.DeleteResponse(w.ctx(), s, "resp_1"), tenant.ErrNotFound)
	r := response("resp_1", "acme", 0)
	must(t, w.db.PutResponse(w.ctx(), s, r))
	same(t, look("resp_1"), r)
	r.Tokens = 12 // once it has ended
	must(t, w.db.PutResponse(w.ctx(), s, r))
	same(t, look("resp_1"), r)

	// A provider that calls its answer by an id that is there gets nothing of it.
	for _, change := range []func(*tenant.Response){
		func(r *tenant.Response) { r.Project = "proj_other" },
		func(r *tenant.Response) { r.CreatedBy = "key_other" },
		func(r *tenant.Response) { r.User = "user_other" },
		func(r *tenant.Response) { r.Provider = "other" },
		func(r *tenant.Response) { r.Credential = "cred_other" },
	} {
		other := r
		other.Tokens = 99
		change(&other)
		must(t, w.db.PutResponse(w.ctx(), s, other))
		same(t, look("resp_1"), r)
	}

	must(t, w.db.DeleteResponse(w.ctx(), s, "resp_1"))
	gone("resp_1")

	// What is over is not there, and is swept: that is asked for.
	w.sweepDue(s, false)
	over := response("resp_2", "acme", 1)
	over.Until = time.Now().Add(-time.Minute).UTC().Truncate(time.Microsecond)
	must(t, w.db.PutResponse(w.ctx(), s, over))
	w.sweepDue(s, true)
	gone("resp_2")
	must(t, w.db.PutResponse(w.ctx(), s, r))
	next, err := w.db.SweepKept(w.ctx(), s, time.Now())
	must(t, err)
	same(t, next.Sub(r.Until) < time.Hour && !next.Before(r.Until), true)
	wantErr(t, w.db.DeleteResponse(w.ctx(), s, "resp_2"), tenant.ErrNotFound)
	same(t, look("resp_1"), r)
}

func furnishResponses(t *testing.T, w *world, s tenant.Scope, name string) {
	t.Helper()
	must(t, w.db.PutResponse(w.ctx(), s, response("resp_same", name, 1)))
	must(t, w.db.PutResponse(w.ctx(), s, response("resp_gone", name, 1)))
}

func seeResponses(w *world, s tenant.Scope, see func(what string, v any, err error)) {
	for _, id := range []string{"resp_same", "resp_gone", "resp_new"} {
		r, err := w.db.Response(w.ctx(), s, id)
		see(id+" "+r.CreatedBy, r, err)
	}
}

// testSeparateResponses has two companies sweep theirs.
func testSeparateResponses(t *testing.T, w *world, one, two tenant.Scope) {
	t.Helper()
	for _, s := range []tenant.Scope{two, one} { // the first of each asks, whatever the other has
		r := response("resp_over", "same", 1)
		r.Until = january.Add(time.Hour).Truncate(time.Microsecond)
		if s == two {
			r.Until = r.Until.Add(-30 * time.Minute)
		}
		must(t, w.db.PutResponse(w.ctx(), s, r))
		w.sweepDue(s, true)
	}
	next := func(s tenant.Scope, now, want time.Time) {
		t.Helper()
		at, err := w.db.SweepKept(w.ctx(), s, now)
		must(t, err)
		if d := at.Sub(want); d < 0 || d > time.Hour {
			t.Errorf("the next is at %s, want %s", at, want)
		}
	}
	next(one, january, january.Add(time.Hour))
	next(two, january, january.Add(30*time.Minute))
	// One is swept, two is not.
	at, err := w.db.SweepKept(w.ctx(), one, january.Add(2*time.Hour))
	must(t, err)
	same(t, at.IsZero() || at.After(january.Add(2*time.Hour)), true)
	next(two, january, january.Add(30*time.Minute))
}
