package store

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"time"

	"bulkhead/tenant"
)

// What the gateways have to do for companies by themselves is due at a time.
// Whoever takes a piece of work moves its time on, so that nobody else takes it
// meanwhile, and it comes back by itself if the one who took it is gone. What is
// asked for while the work is done is done after it: nothing that was committed
// with the asking is overlooked.
var (
	upkeepPut = globalStatement{"upkeep_put",
		`INSERT INTO upkeep (company_id, kind, at, asked) VALUES ($1, $2, $3, $3)
		ON CONFLICT (company_id, kind) DO UPDATE SET
			at = CASE WHEN excluded.at < upkeep.at THEN excluded.at ELSE upkeep.at END,
			asked = CASE WHEN excluded.asked < upkeep.asked THEN excluded.asked ELSE upkeep.asked END`}
	upkeepDue = globalStatement{"upkeep_due",
		`SELECT company_id, kind, at FROM upkeep WHERE kind = $1 AND at <= $2 ORDER BY at, company_id LIMIT $3`}
	upkeepTaken = globalStatement{"upkeep_taken",
		`UPDATE upkeep SET at = $4, asked = ` + never + ` WHERE company_id = $1 AND kind = $2 AND at = $3`}
	upkeepMoved = globalStatement{"upkeep_moved",
		`UPDATE upkeep SET at = CASE WHEN asked < $4 THEN asked ELSE $4 END
		WHERE company_id = $1 AND kind = $2 AND at = $3`}
	upkeepDone = globalStatement{"upkeep_done",
		`DELETE FROM upkeep WHERE company_id = $1 AND kind = $2 AND at = $3 AND asked = ` + never}
	upkeepGone = globalStatement{"upkeep_gone",
		`DELETE FROM upkeep WHERE company_id = $1`}
)

// never comes after every time.
const never = `9223372036854775807`

// atOnce is how many pieces of work are looked at to take one: with several
// gateways not all go for the same.
const atOnce = 8

// TakeUpkeep implements web.UpkeepStore.
func (db *DB) TakeUpkeep(ctx context.Context, kind string, lease time.Duration) (u tenant.Upkeep, ok bool, err error) {
	now := db.o.Now()
	var due []tenant.Upkeep
	err = db.global(ctx, reading, func(t *tx) error {
		return t.query(upkeepDue, func(r row) error {
			var u tenant.Upkeep
			err := r.Scan(&u.Company, &u.Kind, moment{&u.Until})
			due = append(due, u)
			return err
		}, kind, micros(now), atOnce)
	})
	rand.Shuffle(len(due), func(i, j int) { due[i], due[j] = due[j], due[i] })
	for _, u := range due {
		until := now.Add(lease).Truncate(time.Microsecond)
		taken, err := db.changeUpkeep(ctx, upkeepTaken, u, micros(until))
		if err != nil || taken {
			u.Until = until
			return u, taken, err
		}
	}
	return tenant.Upkeep{}, false, err
}

// changeUpkeep runs one of the statements on u. changed is false if its time is
// not what u says: somebody else has taken it, or it was asked for before that.
func (db *DB) changeUpkeep(ctx context.Context, st globalStatement, u tenant.Upkeep, more ...any) (changed bool, err error) {
	err = db.global(ctx, adding, func(t *tx) error {
		n, err := t.exec(st, append([]any{u.Company, u.Kind, micros(u.Until)}, more...)...)
		changed = n > 0
		return err
	})
	return changed && err == nil, err
}

// EndUpkeep implements web.UpkeepStore.
func (db *DB) EndUpkeep(ctx context.Context, u tenant.Upkeep, next time.Time) error {
	at := int64(math.MaxInt64)
	if !next.IsZero() {
		at = micros(next)
	} else if done, err := db.changeUpkeep(ctx, upkeepDone, u); err != nil || done {
		return err
	}
	_, err := db.changeUpkeep(ctx, upkeepMoved, u, at)
	return err
}

// askUpkeep asks for work for the company of t, at a time.
func (t *tx) askUpkeep(kind string, at time.Time) error {
	_, err := t.exec(upkeepPut, t.company, kind, micros(at))
	return err
}

// rollupsBegun is the fact that the ledger of every company is looked after.
const rollupsBegun = "rollups_begun"

// RollupsBegun reports whether BeginRollups has done its work.
func (db *DB) RollupsBegun(ctx context.Context) (done bool, err error) {
	err = db.global(ctx, reading, func(t *tx) error {
		err := t.one(installationOne, []any{new(string)}, rollupsBegun)
		if done = err == nil; errors.Is(err, errNoRow) {
			return nil
		}
		return err
	})
	return done, err
}

// BeginRollups has the ledger of each company added up that was there before
// ledgers were. For later entries that is asked for when they are appended.
func (db *DB) BeginRollups(ctx context.Context, a tenant.Act) error {
	for after := ""; ; {
		some, err := db.AuditedCompanies(ctx, a, after)
		if err != nil {
			return err
		}
		if len(some) == 0 {
			_, err := db.Installation(ctx, rollupsBegun, "yes")
			return err
		}
		after = some[len(some)-1].ID
		err = db.global(ctx, adding, func(t *tx) error {
			for _, c := range some {
				if err := t.send(upkeepPut, c.ID, tenant.RollUp, micros(t.now)); err != nil {
					return err
				}
			}
			return t.flush()
		})
		if err != nil {
			return err
		}
	}
}
