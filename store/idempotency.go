package store

import (
	"context"
	"errors"
	"time"

	"bulkhead/fault"
	"bulkhead/tenant"
)

// Bounds of what is kept of calls with an Idempotency-Key, for one company.
const (
	maxKept      = 10_000    // calls
	maxKeptBytes = 256 << 20 // of sealed answers
)

var (
	keptOne = statement{"kept_one",
		`SELECT claim, project_id, request, owner, state, sealed, until FROM idempotency WHERE company_id = $1 AND claim = $2 AND until > $3`}
	keptUse = statement{"kept_use",
		`SELECT COUNT(*), COALESCE(SUM(size), 0) FROM idempotency WHERE company_id = $1`}
	keptBegun = statement{"kept_begun",
		`INSERT INTO idempotency (company_id, claim, project_id, size, until, request, owner, state)
		SELECT company_id, $2, $3, 0, $4, $5, $6, 'begun' FROM company WHERE company_id = $1 AND status IN ('active', 'suspended')
		ON CONFLICT (company_id, claim) DO NOTHING`}
	keptEnded = statement{"kept_ended",
		`UPDATE idempotency SET state = $4, sealed = $5, size = $6 WHERE company_id = $1 AND claim = $2 AND owner = $3 AND state = 'begun'`}
	keptFreed = statement{"kept_freed",
		`DELETE FROM idempotency WHERE company_id = $1 AND claim = $2 AND owner = $3 AND state = 'begun'`}
	keptOver = statement{"kept_over",
		`DELETE FROM idempotency WHERE company_id = $1 AND claim = $2 AND until <= $3`}
	keptSwept = statement{"kept_swept",
		`DELETE FROM idempotency WHERE company_id = $1 AND until <= $2`}
	keptNext = statement{"kept_next",
		`SELECT COALESCE(MIN(until), 0) FROM idempotency WHERE company_id = $1`}
)

// KeptCall implements web.KeptCalls.
func (db *DB) KeptCall(ctx context.Context, s tenant.Scope, claim string) (k tenant.KeptCall, err error) {
	err = db.read(ctx, s.ID(), func(t *tx) error {
		k, err = t.kept(claim)
		return err
	})
	return k, err
}

func (t *tx) kept(claim string) (k tenant.KeptCall, err error) {
	err = t.one(keptOne, []any{&k.Claim, &k.Project, &k.Request, &k.Owner, &k.State, &k.Sealed, moment{&k.Until}}, claim, micros(t.now))
	return k, err
}

// BeginKept implements web.KeptCalls.
func (db *DB) BeginKept(ctx context.Context, s tenant.Scope, k tenant.KeptCall) (there tenant.KeptCall, begun bool, err error) {
	err = db.add(ctx, s, func(t *tx) error {
		if _, err := t.exec(keptOver, k.Claim, micros(t.now)); err != nil {
			return err
		}
		if there, err = t.kept(k.Claim); !errors.Is(err, errNoRow) {
			return err
		}
		var calls, bytes int64
		if err := t.one(keptUse, []any{&calls, &bytes}); err != nil {
			return err
		}
		if calls >= maxKept || bytes >= maxKeptBytes {
			return errKeptFull
		}
		n, err := t.exec(keptBegun, k.Claim, k.Project, micros(k.Until), k.Request, k.Owner)
		if err != nil {
			return err
		}
		if n == 0 { // somebody else has begun it in between, or the company is being erased
			there, err = t.kept(k.Claim)
			return err
		}
		begun = true
		if calls == 0 { // what comes later is swept with it, or after it
			return t.askUpkeep(tenant.SweepKept, k.Until)
		}
		return nil
	})
	return there, begun && err == nil, err
}

var errKeptFull = func() error {
	e := fault.New(fault.RateLimited, "As many answers to calls with an Idempotency-Key are kept for this company as there may be: %d, of %d MiB together. They go after a day. Until then calls without the header are taken.",
		maxKept, maxKeptBytes>>20).WithCode("idempotency_full")
	e.Type, e.NoRetry = "requests", true
	return e
}()

// EndKept implements web.KeptCalls.
func (db *DB) EndKept(ctx context.Context, s tenant.Scope, k tenant.KeptCall) error {
	return db.add(ctx, s, func(t *tx) error {
		if k.State == tenant.Begun {
			_, err := t.exec(keptFreed, k.Claim, k.Owner)
			return err
		}
		_, err := t.exec(keptEnded, k.Claim, k.Owner, string(k.State), k.Sealed, int64(len(k.Sealed)))
		return err
	})
}

// SweepKept implements web.UpkeepStore.
func (db *DB) SweepKept(ctx context.Context, s tenant.Scope, now time.Time) (next time.Time, err error) {
	err = db.add(ctx, s, func(t *tx) error {
		var gone int64
		for _, st := range []statement{keptSwept, responsesSwept} {
			n, err := t.exec(st, micros(now))
			if err != nil {
				return err
			}
			gone += n
		}
		var first time.Time
		for _, st := range []statement{keptNext, responsesNext} {
			var at time.Time
			if err := t.one(st, []any{moment{&at}}); err != nil {
				return err
			}
			if first.IsZero() || !at.IsZero() && at.Before(first) {
				first = at
			}
		}
		switch {
		case !first.IsZero():
			next = first.Add(sweepEvery)
		case gone > 0: // one may have been begun that still saw them and did not ask
			next = now.Add(tenant.KeptFor + sweepEvery)
		}
		return nil
	})
	return next, err
}

// sweepEvery lets calls that are over gather.
const sweepEvery = 15 * time.Minute
