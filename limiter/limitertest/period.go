package limitertest

import (
	"testing"
	"time"

	"bulkhead/limiter"
	"bulkhead/tenant"
)

// at puts the clock.
func (w *world) at(year int, month time.Month, day, hour, minute int) {
	w.Pass(time.Date(year, month, day, hour, minute, 0, 0, time.UTC).Sub(w.Now()))
}

func place(t *testing.T, name string) *time.Location {
	l, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// An attempt that ends in the next period books into the one it was held in.
func testMonthEnd(t *testing.T, w *world) {
	month, total := of(tenant.OfKey, "key_1", 100), ofKey(tenant.USD, tenant.Total, 1000)
	w.at(2026, 11, 30, 23, 50)
	st := w.stands(w.acme, month, 0, 0)
	if want := time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC); !st.To.Equal(want) || !st.From.Equal(want.AddDate(0, -1, 0)) {
		t.Errorf("from %s to %s", st.From, st.To)
	}
	late, later := w.take(w.acme, ask(60, month, total)), w.take(w.acme, ask(40, month, total))
	w.stopped(w.acme, byHeld, ask(1, month, total))
	w.Pass(20 * time.Minute) // December
	w.stands(w.acme, month, 0, 0)
	december := w.take(w.acme, ask(100, month, total))
	late.cost(60)
	w.stands(w.acme, month, 0, 100)
	w.stands(w.acme, total, 60, 140)
	w.Pass(24 * time.Hour * 70) // February; those of November may be forgotten
	w.stands(w.acme, month, 0, 0)
	later.cost(30)
	december.cost(5)
	w.stands(w.acme, month, 0, 0)
	w.stands(w.acme, total, 95, 0)
	w.ship(w.acme)
	// The one begins as the other ends, to the microsecond.
	w.at(2027, 2, 28, 23, 59)
	w.take(w.acme, ask(10, month)).cost(10)
	w.Pass(time.Date(2027, 3, 1, 0, 0, 0, 0, time.UTC).Sub(w.Now()))
	w.stands(w.acme, month, 0, 0)
	w.take(w.acme, ask(100, month)).cost(100)
	w.stopped(w.acme, bySpent, ask(1, month))
}

func testDST(t *testing.T, w *world) {
	berlin := &tenant.Calendar{Zone: place(t, "Europe/Berlin")}
	day := ofKey(tenant.USD, tenant.Day, 10)
	day.Calendar = berlin
	f := func(year int, month time.Month, date int, hours time.Duration) {
		t.Helper()
		begins := time.Date(year, month, date, 0, 0, 0, 0, berlin.Zone)
		w.Pass(begins.Add(time.Minute).Sub(w.Now()))
		st := w.stands(w.acme, day, 0, 0)
		if !st.From.Equal(begins) || st.To.Sub(st.From) != hours*time.Hour {
			t.Errorf("from %s to %s", st.From, st.To)
		}
		w.take(w.acme, ask(10, day)).cost(10)
		w.Pass(hours*time.Hour - 2*time.Minute) // a minute before the end
		e := w.stopped(w.acme, bySpent, ask(1, day))
		w.names(e, "daily", st.To.In(berlin.Zone).Format(time.RFC3339))
		w.Pass(2 * time.Minute)
		w.stands(w.acme, day, 0, 0)
		w.take(w.acme, ask(10, day)).cost(0)
	}
	f(2027, 3, 27, 24)
	f(2027, 3, 28, 23)
	f(2027, 10, 31, 25)
	f(2027, 11, 1, 24)
}

// A change of the zone opens no period early and forgets nothing.
func testZoneChanges(t *testing.T, w *world) {
	tokyo, honolulu := place(t, "Asia/Tokyo"), place(t, "Pacific/Honolulu")
	b := ofKey(tenant.USD, tenant.Day, 10)
	b.Calendar = &tenant.Calendar{Zone: honolulu}
	w.at(2026, 11, 22, 13, 0) // Honolulu: the 22nd at 3:00, until 10:00Z of the 23rd
	w.take(w.acme, ask(6, b)).cost(6)
	change := func(to *time.Location) {
		t.Helper()
		c, ok := b.Calendar.Change(to, w.Now())
		if !ok {
			t.Fatal("the zone cannot be changed")
		}
		changed := *b
		changed.Calendar = c
		b = &changed
	}
	change(tokyo)
	w.take(w.acme, ask(4, b)).cost(4)
	w.at(2026, 11, 22, 23, 0) // the 23rd in Tokyo
	w.stopped(w.acme, bySpent, ask(1, b))
	w.at(2026, 11, 23, 10, 1)
	w.take(w.acme, ask(10, b)).cost(10)
	w.stopped(w.acme, bySpent, ask(1, b))
	w.at(2026, 11, 23, 15, 1)
	w.take(w.acme, ask(1, b)).cost(1)
	w.ship(w.acme)

	// Back, where the date goes on: what was used of it before the change stays.
	w.at(2027, 1, 20, 14, 0) // Tokyo: 23:00
	w.take(w.acme, ask(3, b)).cost(3)
	open := w.take(w.acme, ask(2, b))
	change(honolulu)
	st := w.stands(w.acme, b, 3, 2)
	w.at(2027, 1, 20, 15, 30) // a new day in Tokyo; the same in Honolulu
	if now := w.stands(w.acme, b, 3, 2); !now.From.Equal(st.From) || !now.To.After(st.To) {
		t.Errorf("from %s to %s, was to %s", now.From, now.To, st.To)
	}
	w.take(w.acme, ask(5, b)).cost(5)
	w.stopped(w.acme, byHeld, ask(1, b))
	open.cost(2)
	w.stopped(w.acme, bySpent, ask(1, b))
	w.at(2027, 1, 21, 9, 59)
	w.stopped(w.acme, bySpent, ask(1, b))
	w.at(2027, 1, 21, 10, 1)
	w.stands(w.acme, b, 0, 0)
}

func testTotal(t *testing.T, w *world) {
	b := ofKey(tenant.USD, tenant.Total, 10)
	w.at(1999, 5, 1, 0, 0)
	w.take(w.acme, ask(4, b)).cost(4)
	w.ship(w.acme)
	w.at(2039, 5, 1, 0, 0)
	st := w.stands(w.acme, b, 4, 0)
	if !st.From.IsZero() || !st.To.IsZero() {
		t.Errorf("from %s to %s", st.From, st.To)
	}
	w.take(w.acme, ask(6, b)).cost(6)
	e := w.stopped(w.acme, bySpent, ask(1, b))
	if e.RetryAfter > 0 {
		t.Errorf("it never begins anew, and says come back after %s", e.RetryAfter)
	}
}

// A clock that is set, back or forward, opens no period twice and loses no hold.
func testClockIsSet(t *testing.T, w *world) {
	day, total := ofKey(tenant.USD, tenant.Day, 10), ofKey(tenant.USD, tenant.Total, 1000)
	w.take(w.acme, ask(10, day, total)).cost(10)
	w.stopped(w.acme, bySpent, ask(1, day))
	w.Pass(24 * time.Hour)
	open := w.take(w.acme, ask(6, day, total))
	w.take(w.acme, ask(4, day, total)).cost(4)
	w.ship(w.acme)
	for range 3 { // back into the day before, and forth
		w.Pass(-24 * time.Hour)
		if e := w.failure(ask(1, day)); e == nil {
			t.Fatal("a day is had twice")
		}
		w.Pass(24 * time.Hour)
		w.stopped(w.acme, byHeld, ask(1, day))
		w.stands(w.acme, day, 4, 6)
	}
	// Minutes back, within the day: nothing that was held later is lost, whether
	// it is counted already or to be read.
	w.Pass(-5 * time.Minute)
	w.stopped(w.acme, byHeld, ask(1, day))
	w.stands(w.acme, ofKey(tenant.USD, tenant.Week, 1000), 14, 6)
	w.stands(w.acme, total, 14, 6)
	open.cost(6)
	w.stopped(w.acme, bySpent, ask(1, day))
	w.ship(w.acme)
	w.Pass(-5 * time.Minute)
	w.stands(w.acme, of(tenant.OfProject, "proj_1", 1000), 20, 0)
	w.stands(w.acme, of(tenant.OfCompany, "", 1000), 20, 0)
	w.take(w.acme, limiter.Ask{By: by, Nano: 3}).cost(3)
	w.stands(w.acme, of(tenant.OfUser, "user_1", 1000), 23, 0)
}
