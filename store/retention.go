package store

import (
	"context"
	"time"
)

var (
	rollupDaysOld = statement{"rollup_days_old",
		`SELECT day FROM rollup_day WHERE company_id = $1 AND closed = 0 AND rolled = late AND day < $2 ORDER BY day LIMIT $3`}
	rollupDayClosed = statement{"rollup_day_closed",
		`UPDATE rollup_day SET closed = 1, rolled = -1 WHERE company_id = $1 AND day = $2 AND closed = 0 AND rolled = late`}
	entriesDropped = statement{"entries_dropped",
		`DELETE FROM entry WHERE company_id = $1 AND id > $2 AND id <= $3 AND started_at >= $4 AND started_at < $5`}
)

// kept is how long entries are kept after the end of their day.
func (r *roller) kept() time.Duration { return max(r.o.Keep, leastKept) }

// close deletes the entries of days that are past their time and added up. What a
// day came to stays the same at each moment: it begins with nothing in rollup, and
// what a step deletes it takes in. An entry that comes later still is taken in
// likewise; if it is one that was deleted, it counts twice.
func (r *roller) close(ctx context.Context) error {
	var until int64
	err := r.db.read(ctx, r.s.ID(), func(t *tx) error { return t.one(rolledUntil, []any{&until}) })
	if err != nil {
		return err
	}
	days, err := r.list(ctx, rollupDaysOld, min(until, dayOf(r.o.Now.Add(-r.kept()))))
	if err != nil {
		return err
	}
	for _, day := range days {
		err := r.db.add(ctx, r.s, func(t *tx) error {
			if err := must(t.exec(rollupDayClosed, day)); err != nil {
				return err
			}
			_, err := t.exec(rollupEmptied, day)
			return err
		})
		if err == errNoRow { // an entry came, or somebody else was first
			continue
		}
		if err != nil {
			return err
		}
		closed, err := r.day(ctx, day)
		if err != nil {
			return err
		}
		if closed {
			r.done.Closed++
		}
	}
	return nil
}
