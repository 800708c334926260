package storetest

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"bulkhead/audit"
	"bulkhead/openai"
	"bulkhead/tenant"
)

// verified checks that the chains of the companies and that of the operators are
// whole, and returns how long each is.
func verified(t testing.TB, w *world, scopes ...tenant.Scope) (counts []int64) {
	t.Helper()
	f := func(r audit.Report, err error) {
		t.Helper()
		must(t, err)
		same(t, r.Findings, []audit.Finding{})
		counts = append(counts, r.Count)
	}
	for _, s := range scopes {
		f(w.db.VerifyAudit(w.ctx(), s, nil))
	}
	roll := audit.NewRoll()
	f(w.db.VerifyActs(w.ctx(), nil, roll.Act))
	for _, s := range scopes {
		r := audit.Report{Chain: s.ID().String()}
		roll.Company(&r, false)
		same(t, len(r.Findings), 0)
	}
	return counts
}

func testAuditChain(t *testing.T, open Open) {
	w := newWorld(t, open)
	s, _ := w.company("chained")
	other, _ := w.company("other")
	testChanges(t, w, s)
	counts := verified(t, w, s, other)
	events, _, err := w.db.AuditEvents(w.ctx(), s, audit.Filter{}, all)
	must(t, err)
	// Of the operators: two companies are created, and their chains begin.
	same(t, counts, []any{len(events), 6, 4})

	// What failed leaves no row and no link.
	if err := w.db.CreateProject(w.ctx(), s, tenant.Project{ID: "p", Name: "twice"}); err == nil {
		t.Error("created twice")
	}
	same(t, verified(t, w, s, other), counts)

	// The anchor holds as the chain grows, and another one does not.
	before, err := w.db.VerifyAudit(w.ctx(), other, nil)
	must(t, err)
	must(t, w.db.CreateProject(w.ctx(), other, tenant.Project{ID: "p", Name: "p"}))
	anchor := func(count int64, hash string) []audit.Finding {
		t.Helper()
		h, err := audit.ParseHead(fmt.Sprint(count, ":", hash))
		must(t, err)
		now, err := w.db.VerifyAudit(w.ctx(), other, &h)
		must(t, err)
		return now.Findings
	}
	same(t, anchor(before.Count, before.Head), []audit.Finding{})
	if f := anchor(before.Count-1, before.Head); len(f) != 1 || f[0].Kind != audit.Anchor || f[0].Sequence != before.Count-1 {
		t.Errorf("findings %v", f)
	}
	if f := anchor(before.Count+5, before.Head); len(f) != 1 || f[0].Kind != audit.Anchor {
		t.Errorf("findings %v", f)
	}
}

// testSeparateChains writes to the chain of one company beside the other's, and
// asks it for the other's keys.
func testSeparateChains(t *testing.T, w *world, acme, beta tenant.Scope) {
	t.Helper()
	ctx, db := w.ctx(), w.db
	before := snapshot(t, w, beta)
	row := audit.Event{Type: audit.AccessDenied, Actor: "unknown", Object: "GET /v1/models", Count: 1}
	for range 2 {
		must(t, db.AppendAudit(ctx, acme.ID(), []audit.Event{row, row}))
	}
	known, err := db.KnownKeys(ctx, acme.ID(), []string{acme.KeyID(), beta.KeyID(), "key_nobody"})
	must(t, err)
	same(t, known, []string{acme.KeyID()})
	events, _, err := db.AuditEvents(ctx, beta, audit.Filter{Actors: []string{acme.KeyID()}}, all)
	must(t, err)
	same(t, len(events), 0)
	if after := snapshot(t, w, beta); after != before {
		t.Errorf("rows of acme changed beta:\n%s\n%s", before, after)
	}
	// Each still goes on from its own end.
	for _, s := range []tenant.Scope{beta, acme} {
		must(t, db.AppendAudit(ctx, s.ID(), []audit.Event{row}))
	}
	verified(t, w, acme, beta)
}

func testAuditFilter(t *testing.T, open Open) {
	w := newWorld(t, open)
	s, _ := w.company("acme")
	testChanges(t, w, s)
	ids := func(f audit.Filter, p openai.Page) (out []string) {
		t.Helper()
		events, _, err := w.db.AuditEvents(w.ctx(), s, f, p)
		must(t, err)
		for _, e := range events {
			out = append(out, e.ID)
		}
		return out
	}
	events, _, err := w.db.AuditEvents(w.ctx(), s, audit.Filter{}, all)
	must(t, err)
	// Whatever the filter is, it finds what it says, in the order of the list.
	f := func(f audit.Filter, fits func(e audit.Record) bool) {
		t.Helper()
		var want []string
		for _, e := range events {
			if fits(e) {
				want = append(want, e.ID)
			}
		}
		if len(want) == 0 || len(want) == len(events) {
			t.Errorf("%+v tells nothing: it fits %d of %d", f, len(want), len(events))
		}
		same(t, ids(f, all), want)
		// The same in pages of two, by cursors in both directions.
		var paged []string
		for p := (openai.Page{Limit: 2}); ; {
			some := ids(f, p)
			paged = append(paged, some...)
			if len(some) < 2 {
				break
			}
			p.After = some[1]
		}
		same(t, paged, want)
		if len(want) > 2 {
			same(t, ids(f, openai.Page{Limit: 2, Before: want[len(want)-1]}), want[len(want)-3:len(want)-1])
		}
	}
	types := []string{string(audit.RouteCreated), string(audit.RouteDeleted)}
	f(audit.Filter{Types: types}, func(e audit.Record) bool { return slices.Contains(types, string(e.Type)) })
	f(audit.Filter{Types: types[:1]}, func(e audit.Record) bool { return e.Type == audit.RouteCreated })
	f(audit.Filter{Projects: []string{"p", "q"}}, func(e audit.Record) bool { return e.ProjectID == "p" })
	f(audit.Filter{Objects: []string{"k2", "r"}}, func(e audit.Record) bool { return e.Object == "k2" || e.Object == "r" })
	f(audit.Filter{Actors: []string{s.KeyID()}}, func(e audit.Record) bool { return e.Actor == "key:"+s.KeyID() })
	f(audit.Filter{Actors: []string{"gateway"}}, func(e audit.Record) bool { return e.Actor == "operator:gateway" })
	middle := events[len(events)/2].At
	f(audit.Filter{From: middle}, func(e audit.Record) bool { return !e.At.Before(middle) })
	f(audit.Filter{Until: middle}, func(e audit.Record) bool { return e.At.Before(middle) })
	f(audit.Filter{From: middle, Types: types}, func(e audit.Record) bool {
		return !e.At.Before(middle) && slices.Contains(types, string(e.Type))
	})
	// Nothing is half a value, in another case or a pattern.
	for _, odd := range []audit.Filter{
		{Types: []string{"route"}}, {Types: []string{"ROUTE.CREATED"}}, {Types: []string{"%"}}, {Types: []string{""}},
		{Objects: []string{"'; --"}}, {Actors: []string{"key"}}, {Actors: []string{"-"}}, {Types: types, Objects: []string{"k2"}},
	} {
		same(t, len(ids(odd, all)), 0)
	}
	// The names beside the ids.
	for _, e := range events {
		name := ""
		if e.ProjectID == "p" {
			name = "q"
		} else if e.ProjectID != "" {
			name = "acme project"
		}
		same(t, []string{e.ProjectName, e.AccountID}, []string{name, ""})
	}
	must(t, w.db.AppendAudit(w.ctx(), s.ID(), []audit.Event{{Type: audit.AccessDenied, Actor: "key:k2", Object: "GET /", Count: 3, Detail: `{"minute":0}`}}))
	got, _, err := w.db.AuditEvents(w.ctx(), s, audit.Filter{Actors: []string{"a"}}, all)
	must(t, err)
	same(t, len(got), 1)
	same(t, []any{got[0].AccountID, got[0].Count, got[0].Detail}, []any{"a", 3, `{"minute":0}`})
}

func testAuditAppend(t *testing.T, open Open) {
	w := newWorld(t, open)
	s, _ := w.company("acme")
	id := s.ID().String()
	generation := w.again(s).Company().Generation
	w.changed = nil
	row := func(object string) audit.Event {
		return audit.Event{Type: audit.AccessDenied, Actor: "unknown", Object: object, Count: 2, Detail: `{"codes":{"x":2}}`}
	}
	must(t, w.db.AppendAudit(w.ctx(), s.ID(), []audit.Event{row("one"), row("two"), row("three")}))
	events, _, err := w.db.AuditEvents(w.ctx(), s, audit.Filter{}, openai.Page{Limit: 3})
	must(t, err)
	var got []string
	for _, e := range events {
		got = append(got, e.Object)
		if !strings.HasPrefix(e.ID, "audit_log-") || time.Since(e.At) > time.Hour || e.Count != 2 {
			t.Errorf("event %+v", e)
		}
	}
	same(t, got, []string{"three", "two", "one"})
	// It is no change of policy.
	same(t, []any{w.again(s).Company().Generation, len(w.changed)}, []any{generation, 0})

	// A suspended company's log goes on, one that is gone takes no rows.
	_, err = w.db.SetCompanyStatus(w.ctx(), w.act("company.suspend", id), id, tenant.Suspended)
	must(t, err)
	must(t, w.db.AppendAudit(w.ctx(), s.ID(), []audit.Event{row("four")}))
	verified(t, w, s)
	_, err = w.db.SetCompanyStatus(w.ctx(), w.act("company.erase", id), id, tenant.Erasing)
	must(t, err)
	_, err = w.db.EraseCompany(w.ctx(), w.act("company.erase", id), s)
	must(t, err)
	wantErr(t, w.db.AppendAudit(w.ctx(), s.ID(), []audit.Event{row("late")}), tenant.ErrNotFound)
	events, _, err = w.db.AuditEvents(w.ctx(), s, audit.Filter{}, all)
	must(t, err)
	same(t, len(events), 0)
	// A company of another database.
	ghost, _ := newWorld(t, open).company("ghost")
	wantErr(t, w.db.AppendAudit(w.ctx(), ghost.ID(), []audit.Event{row("ghost")}), tenant.ErrNotFound)
}

// testRacingAudit writes from many places at once: there is one chain.
func testRacingAudit(t *testing.T, open Open) {
	w := newWorld(t, open)
	s, _ := w.company("acme")
	each(6, func(i int) {
		for n := range 10 {
			name := fmt.Sprint("p", i, "_", n)
			var err error
			switch i % 3 {
			case 0:
				err = w.db.CreateProject(w.ctx(), s, tenant.Project{ID: name, Name: name})
			case 1:
				err = w.db.AppendAudit(w.ctx(), s.ID(), []audit.Event{{Type: audit.ContentRead, Object: name, Count: 1}, {Type: audit.ContentRead, Object: name, Count: 1}})
			case 2:
				err = w.db.RecordAct(w.ctx(), "operator:x", "look", name)
			}
			if err != nil {
				t.Error(err)
			}
		}
	})
	same(t, verified(t, w, s), []int64{6 + 20 + 40, 2 + 20})
}
