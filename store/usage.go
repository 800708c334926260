package store

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"bulkhead/fault"
	"bulkhead/ledger"
	"bulkhead/tenant"
)

// The sums of usage, from entries or from rollups. $2 to $6 say by what they are
// told apart, $7 to $12 are lists as among makes them, "" for any, $13 is a
// ledger.Batch, $14 how many sums at most. What stands between the two parts
// finds the rows, from $15 on.
const (
	usageSums = `SELECT bucket, p, k, u, v, m, s, CAST(SUM(requests) AS BIGINT), CAST(SUM(attempts) AS BIGINT),
		CAST(SUM(unpriced) AS BIGINT), CAST(SUM(cost_nano) AS BIGINT), CAST(SUM(input) AS BIGINT),
		CAST(SUM(CASE WHEN lent = 1 THEN 0 ELSE cached_input END) AS BIGINT),
		CAST(SUM(CASE WHEN lent = 1 THEN 0 ELSE cache_write END) AS BIGINT),
		CAST(SUM(audio_input) AS BIGINT), CAST(SUM(image_input) AS BIGINT), CAST(SUM(output) AS BIGINT),
		CAST(SUM(reasoning) AS BIGINT), CAST(SUM(audio_output) AS BIGINT), CAST(SUM(image_output) AS BIGINT)
	FROM (SELECT bucket, lent, ` + rollupSums + `,
		CASE WHEN $2 = 1 THEN project_id ELSE '' END AS p, CASE WHEN $3 = 1 THEN key_id ELSE '' END AS k,
		CASE WHEN $4 = 1 THEN user_id ELSE '' END AS u, CASE WHEN $5 = 1 THEN provider ELSE '' END AS v,
		CASE WHEN $5 = 1 THEN model ELSE '' END AS m, CASE WHEN $6 = 1 THEN tier ELSE '' END AS s
	FROM (SELECT `
	usageOf = `) AS used
	WHERE CASE WHEN $7 = '' THEN 'any' ELSE replace($7, '` + among1 + `' || kind || '` + among1 + `', '') END <> $7
	AND CASE WHEN $8 = '' THEN 'any' ELSE replace($8, '` + among1 + `' || project_id || '` + among1 + `', '') END <> $8
	AND CASE WHEN $9 = '' THEN 'any' ELSE replace($9, '` + among1 + `' || key_id || '` + among1 + `', '') END <> $9
	AND CASE WHEN $10 = '' THEN 'any' ELSE replace($10, '` + among1 + `' || user_id || '` + among1 + `', '') END <> $10
	AND CASE WHEN $11 = '' THEN 'any' ELSE replace(replace($11, '` + among1 + `' || provider || '/' || model || '` + among1 + `', ''),
		'` + among1 + `' || model || '` + among1 + `', '') END <> $11
	AND CASE WHEN $12 = '' THEN 'any' ELSE replace($12, '` + among1 + `' || provider || '/' || model ||
		CASE WHEN tier = '' THEN '' ELSE ', ' || tier END || '` + among1 + `', '') END <> $12
	AND CASE WHEN $13 = 0 THEN 0 WHEN tier = 'batch' THEN 1 ELSE 2 END = $13) AS told
	GROUP BY bucket, p, k, u, v, m, s ORDER BY bucket, p, k, u, v, m, s LIMIT $14`
)

var (
	usageOfEntries = statement{"usage_of_entries", usageSums + `(started_at / $19) * $19 AS bucket, project_id, key_id, user_id, kind, provider,
		` + ofModel + ` AS model, ` + ofTier + ` AS tier, lent, 1 - again AS requests, 1 AS attempts,
		CASE WHEN priced THEN 0 ELSE 1 END AS unpriced, cost_nano, input, cached_input, cache_write, audio_input, image_input,
		output, reasoning, audio_output, image_output
		FROM entry WHERE company_id = $1 AND id > $15 AND id < $16 AND started_at >= $17 AND started_at < $18` + usageOf}
	usageOfRollups = statement{"usage_of_rollups", usageSums + `day * 86400000000 AS bucket, project_id, key_id, user_id, kind, provider,
		model, tier, lent, ` + rollupSums + `
		FROM rollup WHERE company_id = $1 AND day >= $15 AND day < $16` + usageOf}

	rollupDayLastClosed = statement{"rollup_day_last_closed",
		`SELECT COALESCE(MAX(day), -1) FROM rollup_day WHERE company_id = $1 AND closed = 1 AND day >= $2 AND day < $3`}
)

// Usage implements web.Registry.
func (db *DB) Usage(ctx context.Context, s tenant.Scope, q ledger.UsageQuery) (sums []ledger.UsageSum, until time.Time, err error) {
	r := usageReader{q: q, until: q.Until, at: map[usageKey]int{}}
	err = db.read(ctx, s.ID(), func(t *tx) error { return r.read(t) })
	if err != nil {
		return nil, time.Time{}, err
	}
	slices.SortFunc(r.sums, compareSums)
	r.cut()
	return r.sums, r.until, nil
}

// usageReader puts the sums of a query together.
type usageReader struct {
	q     ledger.UsageQuery
	sums  []ledger.UsageSum
	at    map[usageKey]int
	until time.Time // what begins from here on is not whole
}

type usageKey struct {
	at                                        int64
	project, key, user, provider, model, tier string
}

func (r *usageReader) read(t *tx) error {
	q := &r.q
	common := []any{bit(q.By.Project), bit(q.By.Key), bit(q.By.User), bit(q.By.Model), bit(q.By.Tier),
		among(q.Kinds), among(q.Projects), among(q.Keys), among(q.Users), among(q.Models), among(q.Lines), int64(q.Batch), q.Rows + 1}
	from, to := micros(q.From), micros(q.Until)
	first, end := wholeDays(from, to)
	known := rolled{}
	if q.Bucket == 24*time.Hour {
		var err error
		if known, err = t.rolled(first, end); err != nil {
			return err
		}
	} else if err := t.whole(from/dayMicros, (to+dayMicros-1)/dayMicros); err != nil {
		return err
	}
	days, times := known.parts(from, to)
	for _, d := range days {
		if err := r.some(t, usageOfRollups, append(slices.Clip(common), d.from, d.to)...); err != nil {
			return err
		}
	}
	for _, p := range times {
		low, high := entryIDs(p)
		err := r.some(t, usageOfEntries, append(slices.Clip(common), low, high, p.from, p.to, q.Bucket.Microseconds())...)
		if err != nil {
			return err
		}
	}
	return nil
}

// whole refuses days of which no parts can be told any more.
func (t *tx) whole(from, to int64) error {
	var last int64
	if err := t.one(rollupDayLastClosed, []any{&last}, from, to); err != nil || last < 0 {
		return err
	}
	return fault.Field("bucket_width", "What was used until %s is told by whole days only (bucket_width=1d): its entries were deleted.",
		dayBegins(last+1).Format(time.DateOnly))
}

// some adds the sums that a statement finds. Of one that finds more than may be
// the last ones are cut off, since what comes before them is more too.
func (r *usageReader) some(t *tx, st statement, args ...any) error {
	return t.query(st, func(row row) error {
		var u ledger.UsageSum
		err := row.Scan(moment{&u.At}, &u.ProjectID, &u.KeyID, &u.UserID, &u.Provider, &u.Model, &u.Tier,
			&u.Requests, &u.Attempts, &u.Unpriced, &u.CostNano, &u.Input, &u.CachedInput, &u.CacheWrite, &u.AudioInput, &u.ImageInput,
			&u.Output, &u.Reasoning, &u.AudioOutput, &u.ImageOutput)
		r.add(&u)
		return err
	}, args...)
}

func (r *usageReader) add(u *ledger.UsageSum) {
	k := usageKey{u.At.UnixMicro(), u.ProjectID, u.KeyID, u.UserID, u.Provider, u.Model, u.Tier}
	if i, there := r.at[k]; there {
		r.sums[i].Add(u)
		return
	}
	r.at[k] = len(r.sums)
	r.sums = append(r.sums, *u)
}

// cut leaves the buckets that are whole, and no more sums than were asked for.
func (r *usageReader) cut() {
	if len(r.sums) > r.q.Rows {
		r.until = r.sums[r.q.Rows].At
	}
	r.sums = slices.DeleteFunc(r.sums, func(u ledger.UsageSum) bool { return !u.At.Before(r.until) })
}

func compareSums(a, b ledger.UsageSum) int {
	return cmp.Or(a.At.Compare(b.At), strings.Compare(a.ProjectID, b.ProjectID), strings.Compare(a.KeyID, b.KeyID),
		strings.Compare(a.UserID, b.UserID), strings.Compare(a.Provider, b.Provider), strings.Compare(a.Model, b.Model),
		strings.Compare(a.Tier, b.Tier))
}

// EntriesBetween implements web.Registry: the entries of a span of time in the
// order of their ids, behind the one with the id after. next is the last one that
// was looked at; "" says that there are no more.
func (db *DB) EntriesBetween(ctx context.Context, s tenant.Scope, from, until time.Time, after string, limit int) (some []ledger.Entry, next string, err error) {
	low, high := entryIDs(span{micros(from), micros(until)})
	err = db.read(ctx, s.ID(), func(t *tx) error {
		n := 0
		err := t.query(entryList.ascending, func(r row) error {
			e, err := scanEntry(r)
			if n++; !e.StartedAt.Before(from) && e.StartedAt.Before(until) {
				some = append(some, e)
			}
			next = e.ID
			return err
		}, max(low, after), high, limit)
		if n < limit {
			next = ""
		}
		return err
	})
	return some, next, err
}
