package storetest

import (
	"fmt"
	"testing"
	"time"

	"bulkhead/audit"
	"bulkhead/fault"
	"bulkhead/openai"
	"bulkhead/tenant"
)

func alert(id, project string, nano int64) tenant.SpendAlert {
	return tenant.SpendAlert{ID: id, ProjectID: project, Nano: nano, URL: "https://hooks.example/" + id, CreatedAt: epoch}
}

func testAlerts(t *testing.T, open Open) {
	w := newWorld(t, open)
	s, _ := w.company("acme")
	same(t, w.again(s).Company().HasAlerts, false)
	for _, a := range []tenant.SpendAlert{alert("alert_1", "", 100), alert("alert_2", "proj_1", 100), alert("alert_3", "", 0)} {
		must(t, w.db.CreateSpendAlert(w.ctx(), s, a))
	}
	same(t, w.again(s).Company().HasAlerts, true)
	ids := func(project string) (all []string) {
		t.Helper()
		alerts, _, err := w.db.SpendAlerts(w.ctx(), s, project, openai.Page{Limit: 10})
		must(t, err)
		for _, a := range alerts {
			all = append(all, a.ID)
		}
		return all
	}
	same(t, ids(""), []string{"alert_1", "alert_3"})
	same(t, ids("proj_1"), []string{"alert_2"})
	_, err := w.db.SpendAlert(w.ctx(), s, "", "alert_2")
	wantErr(t, err, tenant.ErrNotFound)
	_, err = w.db.UpdateSpendAlert(w.ctx(), s, "proj_1", "alert_1", 1, "x")
	wantErr(t, err, tenant.ErrNotFound)
	wantErr(t, w.db.DeleteSpendAlert(w.ctx(), s, "proj_1", "alert_1"), tenant.ErrNotFound)
	_, _, err = w.db.SpendAlerts(w.ctx(), s, "", openai.Page{Limit: 10, After: "alert_2"})
	wantErr(t, err, tenant.ErrNotFound)

	// What is spent in the month makes one event for each amount.
	now := january.Add(5 * day)
	s = w.again(s)
	due := func(at time.Time, want ...string) (all []tenant.SpendDelivery) {
		t.Helper()
		must(t, w.db.CheckAlerts(w.ctx(), s, at))
		all, _, err := w.db.Deliveries(w.ctx(), s, at, 10)
		must(t, err)
		var got []string
		for _, d := range all {
			got = append(got, fmt.Sprint(d.Event.Alert, " ", d.Event.Nano, " ", d.Event.Spent, " ", d.ProjectID, " ", d.URL))
		}
		if text(got) != text(want) {
			t.Fatalf("got %q, want %q", got, want)
		}
		return all
	}
	due(now)
	before := on(-20, 1000) // of December
	other := on(1, 60)
	other.ProjectID = "proj_2"
	must(t, w.db.AppendEntries(w.ctx(), book(s, before, on(1, 39))))
	first := "alert_3 0 39  https://hooks.example/alert_3"
	due(now, first)
	must(t, w.db.AppendEntries(w.ctx(), book(s, other)))
	due(now, first)
	must(t, w.db.AppendEntries(w.ctx(), book(s, on(1, 1))))
	later := now.Add(time.Second)
	second := "alert_1 100 100  https://hooks.example/alert_1"
	all := due(later, first, second)
	due(later, first, second) // once
	// Tried and not delivered, tried and delivered.
	e := all[0].Event
	e.Tries, e.Next, e.Status = 1, now.Add(time.Minute), 500
	must(t, w.db.DeliveryTried(w.ctx(), s, e))
	due(later, second)
	_, next, err := w.db.Deliveries(w.ctx(), s, later, 1)
	must(t, err)
	same(t, next, all[1].Event.Next)
	done := all[1].Event
	done.Tries, done.Next, done.DeliveredAt, done.Status = 1, time.Time{}, later, 200
	must(t, w.db.DeliveryTried(w.ctx(), s, done))
	due(later)
	_, next, err = w.db.Deliveries(w.ctx(), s, later, 1)
	must(t, err)
	same(t, next, e.Next)
	a, err := w.db.SpendAlert(w.ctx(), s, "", "alert_1")
	must(t, err)
	same(t, *a.Last, done)
	// Delivered is delivered.
	done.Next, done.DeliveredAt = later, time.Time{}
	must(t, w.db.DeliveryTried(w.ctx(), s, done))
	due(later)
	// Another amount, another event; another month, another event.
	a, err = w.db.UpdateSpendAlert(w.ctx(), s, "", "alert_1", 90, "https://hooks.example/other")
	must(t, err)
	same(t, []any{a.Nano, a.URL, a.Last.Nano}, []any{90, "https://hooks.example/other", 100})
	due(later, "alert_1 90 100  https://hooks.example/other")
	must(t, w.db.AppendEntries(w.ctx(), book(s, on(30, 100))))
	due(january.Add(31*day), "alert_1 90 100  https://hooks.example/other", "alert_3 0 39  https://hooks.example/alert_3",
		"alert_1 90 100  https://hooks.example/other", "alert_2 100 100 proj_1 https://hooks.example/alert_2",
		"alert_3 0 100  https://hooks.example/alert_3")

	must(t, w.db.DeleteSpendAlert(w.ctx(), s, "proj_1", "alert_2"))
	same(t, ids("proj_1"), nil)
	events, _, err := w.db.AuditEvents(w.ctx(), s, audit.Filter{Types: []string{"spend_alert.created", "spend_alert.updated", "spend_alert.deleted"}}, openai.Page{Limit: 100})
	must(t, err)
	same(t, len(events), 5)
	for i := range 98 {
		must(t, w.db.CreateSpendAlert(w.ctx(), s, alert(fmt.Sprint("alert_more_", i), "", 1<<60)))
	}
	wantFault(t, w.db.CreateSpendAlert(w.ctx(), s, alert("alert_much", "", 1)), fault.Invalid)
}
