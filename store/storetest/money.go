package storetest

import (
	"testing"
	"time"

	"bulkhead/ledger"
	"bulkhead/limiter"
	"bulkhead/openai"
	"bulkhead/tenant"
)

// furnishMoney gives a company what the ledger makes, with ids that are the same
// in each company.
func furnishMoney(t *testing.T, w *world, s tenant.Scope, name string) {
	t.Helper()
	must(t, w.db.AppendEntries(w.ctx(), book(s, on(0, 7))))
	_, err := w.db.RollUp(w.ctx(), s, ledger.RollupOptions{Now: january.Add(2 * day)})
	must(t, err)
	for project, id := range map[string]string{"": "alert_same", "proj_same": "alert_project"} {
		a := alert(id, project, 1)
		a.URL += "/" + name
		must(t, w.db.CreateSpendAlert(w.ctx(), s, a))
	}
	must(t, w.db.CheckAlerts(w.ctx(), s, january.Add(2*day)))
	furnishKept(t, w, s, name)
	furnishResponses(t, w, s, name)
	must(t, w.db.PutPrice(w.ctx(), s, price("same", "model", name)))
}

// seeMoney is what a company can read of that.
func seeMoney(w *world, s tenant.Scope, see func(what string, v any, err error)) {
	ctx, db := w.ctx(), w.db
	state, err := db.RollupState(ctx, s)
	see("rollups", state, err)
	for _, bucket := range []time.Duration{time.Hour, day} {
		q := ledger.UsageQuery{From: january, Until: january.Add(2 * day), Bucket: bucket, By: ledger.UsageBy{Key: true}, Rows: 100}
		sums, _, err := db.Usage(ctx, s, q)
		see("usage", sums, err)
	}
	for _, alert := range [][2]string{{"", "alert_same"}, {"proj_same", "alert_project"}} {
		project, id := alert[0], alert[1]
		alerts, _, err := db.SpendAlerts(ctx, s, project, all)
		see("alerts", alerts, err)
		alerts, _, err = db.SpendAlerts(ctx, s, project, openai.Page{Limit: 10, Desc: true})
		see("alerts", alerts, err)
		one, err := db.SpendAlert(ctx, s, project, id)
		see("alert", one, err)
	}
	due, next, err := db.Deliveries(ctx, s, january.Add(3*day), 10)
	see("deliveries", due, err)
	see("next delivery", next, err)
	seeKept(w, s, see)
	seeResponses(w, s, see)
	calendar, budgets, err := db.Budgets(ctx, s)
	see("calendar", calendar, err)
	see("budgets", budgets, err)
	some, _, err := db.EntriesBetween(ctx, s, january, january.Add(3*day), "", 10)
	see("entries between", some, err)
}

// testSeparateMoney adds up one company's ledger beside another's that has entries
// on the same days and on others.
func testSeparateMoney(t *testing.T, w *world) {
	t.Helper()
	ctx, db := w.ctx(), w.db
	one, _ := w.company("one")
	two, _ := w.company("two")
	same(t, w.again(one).Company().HasAlerts, false)
	now := time.Now().UTC().Truncate(time.Microsecond)
	early := on(-5, 1)
	must(t, db.AppendEntries(ctx, book(two, early, on(0, 2), on(0, 4), on(1, 8), attempt(now, 16))))
	must(t, db.AppendEntries(ctx, book(one, on(0, 200), on(0, 400), on(1, 800), attempt(now.Add(time.Millisecond), 1600)))) // behind two's
	o := ledger.RollupOptions{Now: january.Add(10 * day), Days: 1, Step: 100}
	roll := func(s tenant.Scope, days, closed, steps int) ledger.Rolled {
		t.Helper()
		r, err := db.RollUp(ctx, s, o)
		must(t, err)
		same(t, []int{r.Days, r.Closed, r.Steps}, []int{days, closed, steps})
		return r
	}
	seen := func(s tenant.Scope, bucket time.Duration, from, to int, want ...int64) {
		t.Helper()
		sums, _, err := db.Usage(ctx, s, ledger.UsageQuery{From: january.Add(time.Duration(from) * day), Until: january.Add(time.Duration(to) * day), Bucket: bucket, Rows: 10})
		must(t, err)
		var got []int64
		for _, u := range sums {
			got = append(got, u.CostNano)
		}
		same(t, got, want)
	}
	// one's days are added up, and two's are not even noted.
	roll(one, 1, 0, 1)
	same(t, w.days(two), []string{"-5 stale", "0 stale", "1 stale"})
	st, err := db.RollupState(ctx, two)
	must(t, err)
	same(t, st.Until.Unix(), 0)
	o.Step = 2 // two's day 1 is where one's is
	roll(one, 1, 0, 1)
	o.Step = 1
	must(t, db.AppendEntries(ctx, book(one, on(2, 10), on(2, 20), on(2, 30))))
	must(t, db.AppendEntries(ctx, book(two, on(2, 1), on(2, 2), on(2, 3))))
	roll(one, 1, 0, 4)
	seen(one, day, -5, 3, 600, 800, 60)
	seen(two, day, -5, 3, 1, 6, 8, 6)

	// Both are added up; what is late in one is not in two.
	o.Days, o.Step = 50, 100
	roll(two, 4, 0, 4)
	must(t, db.AppendEntries(ctx, book(one, on(0, 1000))))
	same(t, w.days(two)[:4], []string{"-5", "0", "1", "2"})
	roll(one, 1, 0, 1)
	seen(one, day, -5, 3, 1600, 800, 60)
	seen(two, day, -5, 3, 1, 6, 8, 6)

	// Entries of one go, those of two stay, and each is still told what it has.
	o.Now, o.Keep, o.Days = january.Add(71*day), 70*day, 1
	roll(one, 0, 1, 1)
	same(t, w.days(two)[:4], []string{"-5", "0", "1", "2"})
	seen(two, time.Hour, 0, 1, 6)
	must(t, db.AppendEntries(ctx, book(two, on(0, 100)))) // stale in two only
	spans := []limiter.Span{{Kind: tenant.OfCompany, To: january.Add(5 * day)}}
	for kind, of := range map[string]string{tenant.OfProject: "proj_1", tenant.OfKey: "key_1"} {
		spans = append(spans, limiter.Span{Kind: kind, Of: of, To: january.Add(5 * day)})
	}
	used, err := db.Spent(ctx, one, spans, now, nil)
	must(t, err)
	for _, u := range used {
		same(t, u.Nano, 2460)
	}
	seen(one, day, 0, 3, 1600, 800, 60)
	// The next that goes, and when something is next: not when it is of two.
	o.Days = 50
	o.Now = january.Add(80 * day)
	r := roll(one, 0, 2, 2)
	if want := o.Now.Add(7 * day); !r.Next.Equal(want) {
		t.Errorf("next is %s, want %s", r.Next, want)
	}
	testSeparateOwners(t, w)
	testSeparateAlerts(t, w, one, two)
	testSeparateKept(t, w, one, two)
	testSeparateResponses(t, w, one, two)
}

// testSeparateOwners has agents and users with the same ids in two companies.
func testSeparateOwners(t *testing.T, w *world) {
	t.Helper()
	spans := []limiter.Span{{Kind: tenant.OfAgent, Of: "agent_1"}, {Kind: tenant.OfUser, Of: "user_1"}, {Kind: tenant.OfCeiling}}
	var scopes []tenant.Scope
	for i, name := range []string{"three", "four"} {
		s, _ := w.company(name)
		scopes = append(scopes, s)
		e := on(0, int64(10+i))
		e.AgentID, e.UserID, e.Lent = "agent_1", "user_1", true
		must(t, w.db.AppendEntries(w.ctx(), book(s, e)))
		w.rollUp(s, ledger.RollupOptions{Now: january.Add(2 * day)})
	}
	for i, s := range scopes {
		used, err := w.db.Spent(w.ctx(), s, spans, january.Add(5*day), nil)
		must(t, err)
		for _, u := range used {
			same(t, u.Nano, 10+i)
		}
	}
}

func testSeparateAlerts(t *testing.T, w *world, one, two tenant.Scope) {
	t.Helper()
	ctx, db := w.ctx(), w.db
	events := func(s tenant.Scope) (ids []string) {
		t.Helper()
		due, _, err := db.Deliveries(ctx, s, january.Add(30*day), 10)
		must(t, err)
		for _, d := range due {
			ids = append(ids, d.URL)
		}
		return ids
	}
	make := func(s tenant.Scope, id, url string, at time.Time) {
		t.Helper()
		a := alert(id, "", 1)
		a.URL, a.CreatedAt = url, at
		must(t, db.CreateSpendAlert(ctx, s, a))
	}
	make(two, "alert_same", "two", epoch)
	make(two, "alert_two", "two only", epoch)
	same(t, w.again(one).Company().HasAlerts, false)
	make(one, "alert_same", "one", epoch.Add(time.Hour))
	_, err := db.UpdateSpendAlert(ctx, one, "", "alert_same", 1<<60, "one") // two's is reached, one's is not
	must(t, err)
	must(t, db.CheckAlerts(ctx, one, january.Add(3*day)))
	same(t, len(events(one)), 0)
	_, err = db.UpdateSpendAlert(ctx, one, "", "alert_same", 1, "one")
	must(t, err)
	for _, s := range []tenant.Scope{one, two} {
		must(t, db.CheckAlerts(ctx, s, january.Add(3*day)))
	}
	same(t, events(one), []string{"one"})
	same(t, len(events(two)), 2)
	for s, want := range map[tenant.Scope]int64{one: 2460, two: 121} {
		a, err := db.SpendAlert(ctx, s, "", "alert_same")
		must(t, err)
		same(t, a.Last.Spent, want)
	}
	_, next, err := db.Deliveries(ctx, one, january, 10)
	must(t, err)
	same(t, next.Equal(january.Add(3*day)), true)

	// What is done to one's leaves two's.
	due, _, err := db.Deliveries(ctx, one, january.Add(30*day), 10)
	must(t, err)
	e := due[0].Event
	e.Tries, e.Next, e.DeliveredAt = 1, time.Time{}, january.Add(4*day)
	must(t, db.DeliveryTried(ctx, one, e))
	_, next, err = db.Deliveries(ctx, one, january, 10)
	must(t, err)
	same(t, []any{next.IsZero(), len(events(one)), len(events(two))}, []any{true, 0, 2})
	for i, ev := range []tenant.Scope{two} {
		all, _, err := db.Deliveries(ctx, ev, january.Add(30*day), 10)
		must(t, err)
		e := all[i].Event
		e.Next, e.DeliveredAt = time.Time{}, january.Add(4*day)
		must(t, db.DeliveryTried(ctx, ev, e))
	}
	_, err = db.UpdateSpendAlert(ctx, one, "", "alert_same", 2, "changed")
	must(t, err)
	// Old events of one go with its next one; two's stay.
	must(t, db.AppendEntries(ctx, book(one, on(800, 50))))
	must(t, db.CheckAlerts(ctx, w.again(one), january.Add(801*day)))
	for _, id := range []string{"alert_same", "alert_two"} {
		a, err := db.SpendAlert(ctx, two, "", id)
		must(t, err)
		if a.Last == nil || a.Nano != 1 {
			t.Errorf("alert of two: %+v", a)
		}
	}
	_, err = db.SpendAlert(ctx, one, "", "alert_two")
	wantErr(t, err, tenant.ErrNotFound)
	_, _, err = db.SpendAlerts(ctx, one, "", openai.Page{Limit: 1, After: "alert_two"})
	wantErr(t, err, tenant.ErrNotFound)
	_, err = db.UpdateSpendAlert(ctx, one, "", "alert_two", 2, "changed")
	wantErr(t, err, tenant.ErrNotFound)
	wantErr(t, db.DeleteSpendAlert(ctx, one, "", "alert_two"), tenant.ErrNotFound)
	must(t, db.DeleteSpendAlert(ctx, one, "", "alert_same"))
	for _, id := range []string{"alert_same", "alert_two"} {
		a, err := db.SpendAlert(ctx, two, "", id)
		must(t, err)
		if a.Last == nil {
			t.Errorf("alert of two: %+v", a)
		}
	}
	// As many as there may be are counted by company: one may have 100 beside two's.
	for i := range 100 {
		make(one, "alert_"+string(rune('a'+i/26))+string(rune('a'+i%26)), "one", epoch)
	}
}
