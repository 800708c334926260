package store

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"bulkhead/ledger"
	"bulkhead/tenant"
)

// A day's entries are added up once the day is over, so that nobody has to read
// them again for a sum. Then:
//
//   - rollup_day has a row for each day that has entries, before company.rolled_until;
//     later days may have one.
//   - Whatever is appended or replaced on a day that is over counts up late in the
//     transaction that does it. Where rolled is not late, the day is stale.
//   - Of a day that is not stale rollup has all. A stale one's entries are read;
//     if it is closed, what rollup has comes on top.
//   - Entries go when their day is closed: it is made stale with nothing in rollup,
//     and each step takes some entries in and deletes them.
//
// A day is taken in step by step. A step first writes how far it goes, for which it
// has the lock of the day's row; somebody who appends needs the same lock to count
// late up and so is seen by the step, or has made the day stale after it.

const (
	dayMicros = int64(24 * time.Hour / time.Microsecond)

	// rollAfter is how long after its end a day is added up. Until then its entries
	// may come without being late by the clock of the gateway that appends them.
	rollAfter = time.Hour

	// leastKept is how long entries are kept at least: of a day whose entries went
	// no part can be told, and a budget's period, which may begin in the middle of
	// one, lasts up to two months.
	leastKept = 70 * 24 * time.Hour

	// idleAgain is how long a ledger is left alone in which nothing happens.
	idleAgain = 7 * 24 * time.Hour
)

// What is kept of names in rollups, in characters: they are part of a key.
const (
	ofModel = `substr(model, 1, 256)`
	ofTier  = `substr(tier, 1, 64)`
)

const (
	rollupKey  = `company_id, day, project_id, key_id, user_id, agent_id, kind, provider, model, tier, lent`
	rollupSums = `requests, attempts, unpriced, cost_nano, input, cached_input, cache_write, audio_input, image_input,
		output, reasoning, audio_output, image_output`
)

var (
	rolledUntil = statement{"rolled_until",
		`SELECT rolled_until FROM company WHERE company_id = $1`}
	rolledUntilSet = statement{"rolled_until_set",
		`UPDATE company SET rolled_until = $2 WHERE company_id = $1 AND rolled_until < $2 AND status <> 'erased'`}
	rollupDays = statement{"rollup_days",
		`SELECT day, late, rolled, closed FROM rollup_day WHERE company_id = $1 ORDER BY day`}

	// entriesAhead looks at the next entries: how many there are, up to $4, and the
	// last of them.
	entriesAhead = statement{"entries_ahead",
		`SELECT COALESCE(MAX(id), ''), COUNT(*) FROM
		(SELECT id FROM entry WHERE company_id = $1 AND id > $2 AND id < $3 ORDER BY id LIMIT $4) AS ahead`}
	rollupDaysFound = statement{"rollup_days_found",
		`INSERT INTO rollup_day (company_id, day, late, rolled, closed, built)
		SELECT company_id, started_at / 86400000000, 0, -1, 0, '' FROM entry WHERE company_id = $1 AND id > $2 AND id <= $3
		GROUP BY company_id, started_at / 86400000000
		ON CONFLICT (company_id, day) DO NOTHING`}
	rollupDayLate = statement{"rollup_day_late",
		`INSERT INTO rollup_day (company_id, day, late, rolled, closed, built)
		SELECT company_id, $2, 1, -1, 0, '' FROM company WHERE company_id = $1 AND status <> 'erased'
		ON CONFLICT (company_id, day) DO UPDATE SET late = rollup_day.late + 1`}

	rollupDaysDue = statement{"rollup_days_due",
		`SELECT day FROM rollup_day WHERE company_id = $1 AND rolled <> late AND day < $2 ORDER BY day LIMIT $3`}
	rollupDayTaken = statement{"rollup_day_taken",
		`UPDATE rollup_day SET built = '' WHERE company_id = $1 AND day = $2 AND rolled <> late RETURNING late, closed`}
	rollupEmptied = statement{"rollup_emptied",
		`DELETE FROM rollup WHERE company_id = $1 AND day = $2`}
	rollupDayBuilt = statement{"rollup_day_built",
		`UPDATE rollup_day SET built = $5 WHERE company_id = $1 AND day = $2 AND late = $3 AND built = $4 AND rolled <> late`}
	rollupDayRolled = statement{"rollup_day_rolled",
		`UPDATE rollup_day SET rolled = late, built = '' WHERE company_id = $1 AND day = $2 AND late = $3 AND built = $4 AND rolled <> late`}
	rollupAdded = statement{"rollup_added",
		`INSERT INTO rollup (` + rollupKey + `, ` + rollupSums + `)
		SELECT company_id, CAST($2 AS BIGINT), project_id, key_id, user_id, agent_id, kind, provider, ` + ofModel + `, ` + ofTier + `, lent,
			CAST(SUM(1 - again) AS BIGINT), COUNT(*), CAST(SUM(CASE WHEN priced THEN 0 ELSE 1 END) AS BIGINT),
			CAST(SUM(cost_nano) AS BIGINT), CAST(SUM(input) AS BIGINT), CAST(SUM(cached_input) AS BIGINT),
			CAST(SUM(cache_write) AS BIGINT), CAST(SUM(audio_input) AS BIGINT), CAST(SUM(image_input) AS BIGINT),
			CAST(SUM(output) AS BIGINT), CAST(SUM(reasoning) AS BIGINT), CAST(SUM(audio_output) AS BIGINT),
			CAST(SUM(image_output) AS BIGINT)
		FROM entry WHERE company_id = $1 AND id > $3 AND id <= $4 AND started_at >= $5 AND started_at < $6
		GROUP BY company_id, project_id, key_id, user_id, agent_id, kind, provider, ` + ofModel + `, ` + ofTier + `, lent
		ON CONFLICT (` + rollupKey + `) DO UPDATE SET
			requests = rollup.requests + excluded.requests, attempts = rollup.attempts + excluded.attempts,
			unpriced = rollup.unpriced + excluded.unpriced, cost_nano = rollup.cost_nano + excluded.cost_nano,
			input = rollup.input + excluded.input, cached_input = rollup.cached_input + excluded.cached_input,
			cache_write = rollup.cache_write + excluded.cache_write, audio_input = rollup.audio_input + excluded.audio_input,
			image_input = rollup.image_input + excluded.image_input, output = rollup.output + excluded.output,
			reasoning = rollup.reasoning + excluded.reasoning, audio_output = rollup.audio_output + excluded.audio_output,
			image_output = rollup.image_output + excluded.image_output`}

	rollupNext = statement{"rollup_next",
		`SELECT COALESCE(MIN(CASE WHEN rolled <> late THEN day END), -1), COALESCE(MIN(CASE WHEN closed = 0 THEN day END), -1)
		FROM rollup_day WHERE company_id = $1`}
)

// RollUp implements web.UpkeepStore: it adds up the company's days that are over and were not added up yet, or
// got an entry since. Entries that are past their time go, once they are added up.
// It may end before it is done, with Next not after Now. Two may run at once.
func (db *DB) RollUp(ctx context.Context, s tenant.Scope, o ledger.RollupOptions) (done ledger.Rolled, err error) {
	if o.Days <= 0 {
		o.Days = 50
	}
	if o.Step <= 0 {
		o.Step = 20_000
	}
	r := &roller{db: db, s: s, o: o, over: dayOf(o.Now.Add(-rollAfter))}
	if err := r.find(ctx); err != nil {
		return r.done, err
	}
	if err := r.roll(ctx); err != nil {
		return r.done, err
	}
	if o.Keep > 0 {
		if err := r.close(ctx); err != nil {
			return r.done, err
		}
	}
	err = r.next(ctx)
	return r.done, err
}

// roller adds up the ledger of one company.
type roller struct {
	db   *DB
	s    tenant.Scope
	o    ledger.RollupOptions
	over int64 // the days before this one are over
	done ledger.Rolled
}

func dayOf(t time.Time) int64 { return micros(t) / dayMicros }

// dayBegins is the time of the beginning of a day.
func dayBegins(day int64) time.Time { return time.UnixMicro(day * dayMicros).UTC() }

// idsOf bounds the ids of the entries of some days, without the bounds.
func idsOf(from, to int64) (low, high string) {
	return ledger.AttemptIDAt(dayBegins(from).Add(-idSkew)), ledger.AttemptIDAt(dayBegins(to).Add(idSkew))
}

// find sees to it that each day that is over and has entries has its row, in
// particular where entries are from before there were rows.
func (r *roller) find(ctx context.Context) error {
	var until int64
	err := r.db.read(ctx, r.s.ID(), func(t *tx) error { return t.one(rolledUntil, []any{&until}) })
	if err != nil {
		return err
	}
	after, _ := idsOf(until, until)
	for more := true; more; {
		err := r.db.add(ctx, r.s, func(t *tx) error {
			last, n, err := t.ahead(after, lastID, r.o.Step)
			if err != nil {
				return err
			}
			found := r.over
			if more = n == r.o.Step; more {
				found = min(found, dayOf(ledger.AttemptTime(last).Add(-idSkew)))
			}
			if _, err := t.exec(rollupDaysFound, after, last); err != nil {
				return err
			}
			after = last
			_, err = t.exec(rolledUntilSet, found)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// ahead returns how many entries there are with ids between two, up to limit, and
// the last of them.
func (t *tx) ahead(after, before string, limit int) (last string, n int, err error) {
	err = t.one(entriesAhead, []any{&last, &n}, after, before, limit)
	return last, n, err
}

// roll adds up days that are stale.
func (r *roller) roll(ctx context.Context) error {
	days, err := r.list(ctx, rollupDaysDue, r.over)
	if err != nil {
		return err
	}
	for _, day := range days {
		rolled, err := r.day(ctx, day)
		if err != nil {
			return err
		}
		if rolled {
			r.done.Days++
		}
	}
	return nil
}

// list returns the days that a statement finds before a day.
func (r *roller) list(ctx context.Context, st statement, before int64) (days []int64, err error) {
	err = r.db.read(ctx, r.s.ID(), func(t *tx) error {
		return t.query(st, func(row row) error {
			var day int64
			err := row.Scan(&day)
			days = append(days, day)
			return err
		}, before, r.o.Days)
	})
	return days, err
}

// rolling is how far a day is.
type rolling struct {
	day, late, closed int64
	built             string
}

// day adds up one day. ok is false if somebody appended to it meanwhile, or has
// added it up.
func (r *roller) day(ctx context.Context, day int64) (ok bool, err error) {
	at := rolling{day: day}
	for first, more := true, true; more; first = false {
		err := r.db.add(ctx, r.s, func(t *tx) error {
			if first {
				if err := t.one(rollupDayTaken, []any{&at.late, &at.closed}, day); err != nil {
					return err
				}
				if at.closed == 0 {
					if _, err := t.exec(rollupEmptied, day); err != nil {
						return err
					}
				}
			}
			more, err = t.rollSome(&at, r.o.Step)
			return err
		})
		if err == errNoRow {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		r.done.Steps++
	}
	return true, nil
}

// rollSome takes in the next entries of a day. It returns errNoRow if the day is
// not as at says any more.
func (t *tx) rollSome(at *rolling, limit int) (more bool, err error) {
	low, high := idsOf(at.day, at.day+1)
	last, n, err := t.ahead(max(at.built, low), high, limit)
	if err != nil {
		return false, err
	}
	from := max(at.built, low)
	if more = n == limit; more {
		err = mustOne(t.exec(rollupDayBuilt, at.day, at.late, at.built, last))
	} else {
		last = high
		err = mustOne(t.exec(rollupDayRolled, at.day, at.late, at.built))
	}
	if err != nil {
		return false, err
	}
	begin := at.day * dayMicros
	if _, err := t.exec(rollupAdded, at.day, from, last, begin, begin+dayMicros); err != nil {
		return false, err
	}
	if at.closed != 0 {
		if _, err := t.exec(entriesDropped, from, last, begin, begin+dayMicros); err != nil {
			return false, err
		}
	}
	at.built = last
	return more, nil
}

// mustOne is must where a second row would be another company's.
func mustOne(n int64, err error) error {
	if err == nil && n > 1 {
		return fmt.Errorf("%d rows were changed instead of one", n)
	}
	return must(n, err)
}

// next says when there is more to do.
func (r *roller) next(ctx context.Context) error {
	var stale, open int64
	err := r.db.read(ctx, r.s.ID(), func(t *tx) error { return t.one(rollupNext, []any{&stale, &open}) })
	if err != nil {
		return err
	}
	at := func(t time.Time) {
		if t.Before(r.o.Now) {
			t = r.o.Now
		}
		if r.done.Next.IsZero() || t.Before(r.done.Next) {
			r.done.Next = t
		}
	}
	if stale >= 0 {
		at(dayBegins(stale + 1).Add(rollAfter))
	}
	if open >= 0 {
		at(r.o.Now.Add(idleAgain)) // Keep may change
		if r.o.Keep > 0 {
			at(dayBegins(open + 1).Add(r.kept()))
		}
	}
	return nil
}

// upkept remembers for which companies RollUp was asked for after today.
type upkept struct {
	mu        sync.Mutex
	companies map[string]int64 // the day, by company
}

// maxUpkept bounds it: some 10 MB.
const maxUpkept = 100_000

func (u *upkept) has(company string, day int64) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.companies[company] == day
}

func (u *upkept) add(companies []string, day int64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.companies == nil || len(u.companies) >= maxUpkept {
		u.companies = map[string]int64{}
	}
	for _, c := range companies {
		u.companies[c] = day
	}
}

// appended does what follows from entries of one company that were appended: days
// that are over become stale, and RollUp and the company's alerts are asked for.
// asked is false if somebody has asked for RollUp after today before.
func (t *tx) appended(some []*ledger.Booked, known *upkept) (asked bool, err error) {
	today := dayOf(t.now)
	var late []int64
	for i := range some {
		if day := dayOf(some[i].Entry.StartedAt); day != today && !slices.Contains(late, day) {
			late = append(late, day)
		}
	}
	slices.Sort(late) // two gateways take the locks in the same order
	rollAt := dayBegins(today + 1)
	for _, day := range late {
		if err := t.send(rollupDayLate, day); err != nil {
			return false, err
		}
		if end := dayBegins(day + 1); end.Before(rollAt) {
			rollAt = end
		}
	}
	if rollAt = rollAt.Add(rollAfter); rollAt.Before(t.now) {
		rollAt = t.now
	}
	if asked = len(late) < len(some) && !known.has(t.company, today); asked || len(late) > 0 {
		if err := t.send(upkeepPut, t.company, tenant.RollUp, micros(rollAt)); err != nil {
			return false, err
		}
	}
	alerts := func(b *ledger.Booked) bool { return b.Scope.Company().HasAlerts }
	if slices.ContainsFunc(some, alerts) {
		return asked, t.send(upkeepPut, t.company, tenant.CheckAlerts, micros(t.now.Add(checkAfter)))
	}
	return asked, nil
}

// checkAfter lets entries gather before alerts are looked at: what the company has
// spent this month is added up each time.
const checkAfter = 5 * time.Second
