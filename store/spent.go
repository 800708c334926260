package store

import (
	"context"
	"time"

	"bulkhead/ledger"
	"bulkhead/limiter"
	"bulkhead/tenant"
)

// Sums of entries that were held in a span of time. The ids bound what is read:
// they begin with a time that is at most idSkew from the hold's.
const (
	spentOf = `SELECT CAST(COALESCE(SUM(cost_nano), 0) AS BIGINT), CAST(COALESCE(SUM(input + output), 0) AS BIGINT),
		CAST(COALESCE(SUM(1 - again), 0) AS BIGINT)
		FROM entry WHERE company_id = $1 AND id > $2 AND id < $3 AND started_at >= $4 AND started_at < $5`
	// The same of whole days that were added up.
	spentRolled = `SELECT CAST(COALESCE(SUM(cost_nano), 0) AS BIGINT), CAST(COALESCE(SUM(input + output), 0) AS BIGINT),
		CAST(COALESCE(SUM(requests), 0) AS BIGINT)
		FROM rollup WHERE company_id = $1 AND day >= $2 AND day < $3`
)

var (
	spentByCompany = statement{"spent_by_company", spentOf}
	spentByProject = statement{"spent_by_project", spentOf + ` AND project_id = $6`}
	spentByKey     = statement{"spent_by_key", spentOf + ` AND key_id = $6`}
	spentByAgent   = statement{"spent_by_agent", spentOf + ` AND agent_id = $6`}
	spentByUser    = statement{"spent_by_user", spentOf + ` AND user_id = $6`}
	spentOfLent    = statement{"spent_of_lent", spentOf + ` AND lent = 1`}
	rolledCompany  = statement{"rolled_company", spentRolled}
	rolledProject  = statement{"rolled_project", spentRolled + ` AND project_id = $4`}
	rolledKey      = statement{"rolled_key", spentRolled + ` AND key_id = $4`}
	rolledAgent    = statement{"rolled_agent", spentRolled + ` AND agent_id = $4`}
	rolledUser     = statement{"rolled_user", spentRolled + ` AND user_id = $4`}
	rolledLent     = statement{"rolled_lent", spentRolled + ` AND lent = 1`}
	spentOne       = statement{"spent_one", `SELECT cost_nano, input + output, 1 - again, started_at, project_id, key_id, agent_id, user_id, lent
		FROM entry WHERE company_id = $1 AND id = $2`}
)

// idSkew is how far the time in an attempt's id, which is that of the gateway
// that made it, may be from the time of its hold, which may be a server's.
const idSkew = time.Hour

// Spent implements limiter.Book. Whole days are taken from rollups, where those
// stand for them.
func (db *DB) Spent(ctx context.Context, s tenant.Scope, spans []limiter.Span, before time.Time, except []string) ([]limiter.Used, error) {
	all := make([]limiter.Used, len(spans))
	times := make([]span, len(spans))
	var first, end int64 // the days that lie whole in any span
	for i, sp := range spans {
		if sp.To.IsZero() || sp.To.After(before) {
			sp.To = before
		}
		times[i] = span{micros(sp.From), micros(sp.To)}
		if a, b := wholeDays(times[i].from, times[i].to); a < b {
			if first == end {
				first, end = a, b
			}
			first, end = min(first, a), max(end, b)
		}
	}
	err := db.read(ctx, s.ID(), func(t *tx) error {
		known, err := t.rolled(first, end)
		if err != nil {
			return err
		}
		for i := range spans {
			if err := t.spent(spans[i], times[i], &known, &all[i]); err != nil {
				return err
			}
		}
		for _, id := range except {
			if err := t.except(id, spans, before, all); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return all, nil
}

// spentStatements are those that sum up entries and rollups of a kind of owner;
// owned says that they take the owner.
func spentStatements(kind string) (entries, rollups statement, owned bool) {
	switch kind {
	case tenant.OfCompany:
		return spentByCompany, rolledCompany, false
	case tenant.OfCeiling:
		return spentOfLent, rolledLent, false
	case tenant.OfProject:
		return spentByProject, rolledProject, true
	case tenant.OfKey:
		return spentByKey, rolledKey, true
	case tenant.OfAgent:
		return spentByAgent, rolledAgent, true
	case tenant.OfUser:
		return spentByUser, rolledUser, true
	}
	panic("BUG: a span of kind " + kind)
}

func (t *tx) spent(sp limiter.Span, in span, known *rolled, to *limiter.Used) error {
	entries, rollups, owned := spentStatements(sp.Kind)
	add := func(st statement, args ...any) error {
		if owned {
			args = append(args, storable(sp.Of))
		}
		var u limiter.Used
		err := t.one(st, []any{&u.Nano, &u.Tokens, &u.Requests}, args...)
		to.Nano += u.Nano
		to.Tokens += u.Tokens
		to.Requests += u.Requests
		return err
	}
	days, times := known.parts(in.from, in.to)
	for _, d := range days {
		if err := add(rollups, d.from, d.to); err != nil {
			return err
		}
	}
	for _, p := range times {
		low, high := entryIDs(p)
		if err := add(entries, low, high, p.from, p.to); err != nil {
			return err
		}
	}
	return nil
}

// entryIDs bounds the ids of entries of a span of time, without the bounds.
func entryIDs(p span) (low, high string) {
	if p.from > 0 {
		low = ledger.AttemptIDAt(time.UnixMicro(p.from).Add(-idSkew))
	}
	return low, ledger.AttemptIDAt(time.UnixMicro(p.to).Add(idSkew))
}

// Has implements limiter.Book.
func (db *DB) Has(ctx context.Context, s tenant.Scope, ids []string) (has []string, err error) {
	err = db.read(ctx, s.ID(), func(t *tx) error {
		has = has[:0]
		for _, id := range ids {
			switch _, err := t.attempt(id); err {
			case nil:
				has = append(has, id)
			case errNoRow:
			default:
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return has, nil
}

// except takes an entry out of the sums it is in. Most are not in the store yet.
func (t *tx) except(id string, spans []limiter.Span, before time.Time, all []limiter.Used) error {
	a, err := t.attempt(id)
	if err == errNoRow || err == nil && !a.at.Before(before) {
		return nil
	}
	u := &a.used
	for i, sp := range spans {
		if !a.at.Before(sp.From) && (sp.To.IsZero() || a.at.Before(sp.To)) && a.by.Has(&tenant.Budget{Kind: sp.Kind, Of: sp.Of}) {
			all[i].Nano -= u.Nano
			all[i].Tokens -= u.Tokens
			all[i].Requests -= u.Requests
		}
	}
	return err
}

// spentAttempt is what an entry says of one attempt.
type spentAttempt struct {
	used limiter.Used
	at   time.Time
	by   limiter.By
}

// attempt reads the entry of an attempt; errNoRow if there is none.
func (t *tx) attempt(id string) (a spentAttempt, err error) {
	var lent int64
	err = t.one(spentOne, []any{&a.used.Nano, &a.used.Tokens, &a.used.Requests, moment{&a.at}, &a.by.Project, &a.by.Key, &a.by.Agent, &a.by.User, &lent}, id)
	a.by.Lent = lent != 0
	return a, err
}
