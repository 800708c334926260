package store

import (
	"fmt"
	"testing"
	"time"

	"bulkhead/ledger"
	"bulkhead/limiter"
	"bulkhead/tenant"
)

// TestRollupsFound adds up entries of many days of which nobody has noted
// anything, as those of the version before.
func TestRollupsFound(t *testing.T) {
	db, s := openWithCompany(t)
	first := time.Date(2026, 1, 10, 23, 59, 59, 999_000_000, time.UTC)
	for i := range 20 { // ids are made a moment before the time of the entry
		made := first.Add(time.Duration(i) * 36 * time.Hour)
		Tamper(t, db, fmt.Sprintf(`INSERT INTO entry (company_id, id, request_id, project_id, key_id, kind, provider, model, requested, outcome,
			rank, status, input, output, priced, cost_nano, started_at, ended_at)
			VALUES ('%s', '%s', '', '', '', '', '', '', '', '', 2, 200, 1, 1, TRUE, %d, %d, 0)`,
			s.ID(), ledger.AttemptIDAt(made), 1<<i, made.Add(2*time.Millisecond).UnixMicro()))
	}
	o := ledger.RollupOptions{Now: first.Add(100 * 24 * time.Hour), Step: 3}
	r, err := db.RollUp(t.Context(), s, o)
	if err != nil || r.Days != 20 {
		t.Fatalf("%+v, %v", r, err)
	}
	st, err := db.RollupState(t.Context(), s)
	if err != nil || len(st.Days) != 20 || !st.Until.Equal(o.Now.Truncate(24*time.Hour)) {
		t.Errorf("%+v, %v", st, err)
	}
	Tamper(t, db, `DELETE FROM entry`) // what is told is told by the sums
	used, err := db.Spent(t.Context(), s, []limiter.Span{{Kind: tenant.OfCompany}}, o.Now, nil)
	if err != nil || used[0].Nano != 1<<20-1 || used[0].Requests != 20 {
		t.Errorf("%+v, %v", used, err)
	}
}

// TestRolledParts divides spans by hand.
func TestRolledParts(t *testing.T) {
	f := func(r rolled, from, to int64, days, times string) {
		t.Helper()
		const tenth = dayMicros / 10 // times here are tenths of a day
		gotDays, gotTimes := r.parts(from*tenth, to*tenth)
		for i := range gotTimes {
			gotTimes[i].from /= tenth
			gotTimes[i].to /= tenth
		}
		if d, p := fmt.Sprint(gotDays), fmt.Sprint(gotTimes); d != days || p != times {
			t.Errorf("%+v, %d to %d: days %s, times %s; want %s, %s", r, from, to, d, p, days, times)
		}
	}
	f(rolled{}, 5, 35, "[]", "[{5 35}]")
	f(rolled{until: 9}, 5, 35, "[{1 3}]", "[{5 10} {30 35}]")
	f(rolled{until: 9}, 10, 30, "[{1 3}]", "[]")
	f(rolled{until: 9}, 11, 19, "[]", "[{11 19}]")
	f(rolled{until: 2}, 0, 35, "[{0 2}]", "[{20 35}]")
	f(rolled{until: 9, stale: []staleDay{{2, false}}}, 0, 50, "[{0 2} {3 5}]", "[{20 30}]")
	f(rolled{until: 9, stale: []staleDay{{2, true}}}, 0, 50, "[{0 5}]", "[{20 30}]")
	f(rolled{until: 9, stale: []staleDay{{0, false}, {1, false}, {4, false}, {5, false}}}, 5, 50, "[{2 4}]", "[{5 20} {40 50}]")
	f(rolled{until: 9, stale: []staleDay{{1, false}, {2, true}, {3, false}}}, 10, 40, "[{2 3}]", "[{10 40}]")
	f(rolled{until: 3, stale: []staleDay{{2, false}, {3, false}, {4, true}}}, 0, 50, "[{0 2}]", "[{20 50}]")
}
