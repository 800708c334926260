package store

import (
	"context"
	"time"

	"bulkhead/tenant"
)

// rollupDaysStale lists the days whose entries must be read.
var rollupDaysStale = statement{"rollup_days_stale",
	`SELECT day, closed FROM rollup_day WHERE company_id = $1 AND rolled <> late AND day >= $2 AND day < $3 ORDER BY day`}

// rolled is what of some days rollups stand for.
type rolled struct {
	until int64 // they stand for no day from this one on
	stale []staleDay
}

type staleDay struct {
	day    int64
	closed bool // entries come on top of the rollup, not in its place
}

// span is from a number to before another: of days, or of microseconds.
type span struct{ from, to int64 }

// rolled returns what rollups stand for, of the days from one to before another.
func (t *tx) rolled(from, to int64) (r rolled, err error) {
	if from >= to {
		return r, nil
	}
	if err := t.one(rolledUntil, []any{&r.until}); err != nil {
		return r, err
	}
	err = t.query(rollupDaysStale, func(row row) error {
		var d staleDay
		var closed int64
		err := row.Scan(&d.day, &closed)
		d.closed = closed != 0
		r.stale = append(r.stale, d)
		return err
	}, from, to)
	return r, err
}

// parts divides a span of time into days for which rollups stand, and times whose
// entries are to be read.
func (r *rolled) parts(from, to int64) (days, times []span) {
	read := func(from, to int64) {
		if n := len(times); n > 0 && times[n-1].to == from {
			times[n-1].to = to
		} else if from < to {
			times = append(times, span{from, to})
		}
	}
	first, end := wholeDays(from, to)
	if end = min(end, r.until); first >= end {
		read(from, to)
		return nil, times
	}
	read(from, first*dayMicros)
	for _, d := range r.stale {
		if d.day < first || d.day >= end {
			continue
		}
		read(d.day*dayMicros, (d.day+1)*dayMicros)
		if d.closed {
			continue
		}
		if first < d.day {
			days = append(days, span{first, d.day})
		}
		first = d.day + 1
	}
	if first < end {
		days = append(days, span{first, end})
	}
	read(end*dayMicros, to)
	return days, times
}

// wholeDays returns the days that lie whole between two times.
func wholeDays(from, to int64) (first, end int64) {
	return (from + dayMicros - 1) / dayMicros, to / dayMicros
}

// RollupState is how far the rollups of a company are, for who looks into that.
type RollupState struct {
	Until time.Time // each day before this one that has entries is in Days
	Days  []RollupDay
}

// RollupDay is a day with entries.
type RollupDay struct {
	Day    time.Time
	Stale  bool // something was appended since it was added up, or it never was
	Closed bool // its entries were deleted
}

// RollupState returns how far the company's rollups are.
func (db *DB) RollupState(ctx context.Context, s tenant.Scope) (st RollupState, err error) {
	err = db.read(ctx, s.ID(), func(t *tx) error {
		var until int64
		if err := t.one(rolledUntil, []any{&until}); err != nil {
			return err
		}
		st.Until = dayBegins(until)
		return t.query(rollupDays, func(r row) error {
			var day, late, rolled, closed int64
			err := r.Scan(&day, &late, &rolled, &closed)
			st.Days = append(st.Days, RollupDay{dayBegins(day), rolled != late, closed != 0})
			return err
		})
	})
	return st, err
}
