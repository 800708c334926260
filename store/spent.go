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
)

var (
	spentByCompany = statement{"spent_by_company", spentOf}
	spentByProject = statement{"spent_by_project", spentOf + ` AND project_id = $6`}
	spentByKey     = statement{"spent_by_key", spentOf + ` AND key_id = $6`}
	spentByAgent   = statement{"spent_by_agent", spentOf + ` AND agent_id = $6`}
	spentByUser    = statement{"spent_by_user", spentOf + ` AND user_id = $6`}
	spentOfLent    = statement{"spent_of_lent", spentOf + ` AND lent = 1`}
	spentOne       = statement{"spent_one", `SELECT cost_nano, input + output, 1 - again, started_at, project_id, key_id, agent_id, user_id, lent
		FROM entry WHERE company_id = $1 AND id = $2`}
)

// idSkew is how far the time in an attempt's id, which is that of the gateway
// that made it, may be from the time of its hold, which may be a server's.
const idSkew = time.Hour

// Spent implements limiter.Book.
func (db *DB) Spent(ctx context.Context, s tenant.Scope, spans []limiter.Span, before time.Time, except []string) ([]limiter.Used, error) {
	all := make([]limiter.Used, len(spans))
	err := db.read(ctx, s.ID(), func(t *tx) error {
		for i := range spans {
			if err := t.spent(spans[i], before, &all[i]); err != nil {
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

func (t *tx) spent(sp limiter.Span, before time.Time, to *limiter.Used) error {
	if sp.To.IsZero() || sp.To.After(before) {
		sp.To = before
	}
	if !sp.From.Before(sp.To) {
		return nil
	}
	from, low := int64(0), ""
	if !sp.From.IsZero() {
		from, low = micros(sp.From), ledger.AttemptIDAt(sp.From.Add(-idSkew))
	}
	args := []any{low, ledger.AttemptIDAt(sp.To.Add(idSkew)), from, micros(sp.To)}
	st, owned := spentByCompany, true
	switch sp.Kind {
	case tenant.OfCompany:
		owned = false
	case tenant.OfCeiling:
		st, owned = spentOfLent, false
	case tenant.OfProject:
		st = spentByProject
	case tenant.OfKey:
		st = spentByKey
	case tenant.OfAgent:
		st = spentByAgent
	case tenant.OfUser:
		st = spentByUser
	default:
		panic("BUG: a span of kind " + sp.Kind)
	}
	if owned {
		args = append(args, storable(sp.Of))
	}
	return t.one(st, []any{&to.Nano, &to.Tokens, &to.Requests}, args...)
}

// except takes an entry out of the sums it is in. Most are not in the store yet.
func (t *tx) except(id string, spans []limiter.Span, before time.Time, all []limiter.Used) error {
	var u limiter.Used
	var at time.Time
	var by limiter.By
	var lent int64
	err := t.one(spentOne, []any{&u.Nano, &u.Tokens, &u.Requests, moment{&at}, &by.Project, &by.Key, &by.Agent, &by.User, &lent}, id)
	if err == errNoRow || err == nil && !at.Before(before) {
		return nil
	}
	by.Lent = lent != 0
	for i, sp := range spans {
		if !at.Before(sp.From) && (sp.To.IsZero() || at.Before(sp.To)) && by.Has(&tenant.Budget{Kind: sp.Kind, Of: sp.Of}) {
			all[i].Nano -= u.Nano
			all[i].Tokens -= u.Tokens
			all[i].Requests -= u.Requests
		}
	}
	return err
}
