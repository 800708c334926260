package store

import (
	"context"
	"slices"
	"strings"

	"bulkhead/audit"
	"bulkhead/fault"
	"bulkhead/keystore"
	"bulkhead/tenant"
)

var (
	operatorDataKeyOne      = globalStatement{"operator_data_key_one", `SELECT wrapped FROM operator_data_key WHERE id = 1`}
	operatorDataKeyInserted = globalStatement{"operator_data_key_inserted",
		`INSERT INTO operator_data_key (id, wrapped, created_at) VALUES (1, $1, $2) ON CONFLICT (id) DO NOTHING`}

	lentOne      = globalStatement{"lent_one", `SELECT ` + lentColumns + `, blob FROM lent_credential WHERE provider = $1`}
	lentListed   = globalStatement{"lent_listed", `SELECT ` + lentColumns + ` FROM lent_credential ORDER BY created_at, id`}
	lentInserted = globalStatement{"lent_inserted",
		`INSERT INTO lent_credential (` + lentColumns + `, blob) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)`}
	lentUpdated = globalStatement{"lent_updated",
		`UPDATE lent_credential SET version = $3, redacted = $4, base_url = $5, updated_at = $6, requests_per_minute = $7,
			tokens_per_minute = $8, share = $9, for_all = $10, blob = $11
		WHERE id = $1 AND provider = $2 AND version + 1 = $3`}
	lentBlobPut = globalStatement{"lent_blob_put", `UPDATE lent_credential SET blob = $3 WHERE id = $1 AND version = $2`}
	lentDeleted = globalStatement{"lent_deleted", `DELETE FROM lent_credential WHERE id = $1`}

	lentLoaded = statement{"lent_loaded",
		`SELECT provider, id, version, requests_per_minute, tokens_per_minute, share FROM lent_credential
		WHERE id IN (SELECT credential_id FROM lent_grant WHERE company_id = $1 UNION SELECT id FROM lent_credential WHERE for_all = 1)`}
	lentGrantsDropped = statement{"lent_grants_dropped", `DELETE FROM lent_grant WHERE company_id = $1`}
	lentGranted       = statement{"lent_granted",
		`INSERT INTO lent_grant (company_id, credential_id, created_at) VALUES ($1, $2, $3)`}
)

const lentColumns = `id, provider, version, redacted, base_url, created_at, updated_at, requests_per_minute, tokens_per_minute, share, for_all`

func lentDest(l *keystore.Lent, all *int64) []any {
	return append(sealedDest(&l.Sealed), &l.RequestsPerMinute, &l.TokensPerMinute, &l.Share, all)
}

// lent returns what the operator lends the company, by provider.
func (t *tx) lent() (out []tenant.Lent, err error) {
	err = t.query(lentLoaded, func(r row) error {
		var l tenant.Lent
		var requests, tokens, share int64
		if err := r.Scan(&l.Provider, &l.ID, &l.Version, &requests, &tokens, &share); err != nil {
			return err
		}
		l.Limits = tenant.Limits{RequestsPerMinute: shareOf(requests, share), TokensPerMinute: shareOf(tokens, share)}
		out = append(out, l)
		return nil
	})
	slices.SortFunc(out, func(a, b tenant.Lent) int { return strings.Compare(a.Provider, b.Provider) })
	return out, err
}

// shareOf returns percent of a limit, at least 1; 0 is no limit.
func shareOf(limit, percent int64) int64 {
	if limit == 0 {
		return 0
	}
	return max(limit/100*percent+limit%100*percent/100, 1)
}

// OperatorDataKey implements keystore.LentStore.
func (db *DB) OperatorDataKey(ctx context.Context) (wrapped []byte, err error) {
	err = db.global(ctx, reading, func(t *tx) error { return t.one(operatorDataKeyOne, []any{&wrapped}) })
	return wrapped, forKeystore(err)
}

// PutOperatorDataKey implements keystore.LentStore.
func (db *DB) PutOperatorDataKey(ctx context.Context, wrapped []byte) (stored []byte, err error) {
	err = db.global(ctx, writing, func(t *tx) error {
		if _, err := t.exec(operatorDataKeyInserted, wrapped, micros(t.now)); err != nil {
			return err
		}
		return t.one(operatorDataKeyOne, []any{&stored})
	})
	return stored, forKeystore(err)
}

// LentCredential implements keystore.LentStore.
func (db *DB) LentCredential(ctx context.Context, provider string) (l keystore.Lent, err error) {
	var all int64
	err = db.global(ctx, reading, func(t *tx) error {
		return t.one(lentOne, append(lentDest(&l, &all), &l.Blob), provider)
	})
	l.All = all != 0
	return l, forKeystore(err)
}

// LentCredentials implements keystore.LentStore.
func (db *DB) LentCredentials(ctx context.Context) (out []keystore.Lent, err error) {
	err = db.global(ctx, reading, func(t *tx) error {
		out, err = t.allLent()
		return err
	})
	return out, err
}

func (t *tx) allLent() (out []keystore.Lent, err error) {
	err = t.query(lentListed, func(r row) error {
		var l keystore.Lent
		var all int64
		err := r.Scan(lentDest(&l, &all)...)
		l.All = all != 0
		out = append(out, l)
		return err
	})
	return out, err
}

// PutLentCredential implements keystore.LentStore.
func (db *DB) PutLentCredential(ctx context.Context, a tenant.Act, l keystore.Lent) error {
	return forKeystore(db.changeForAll(ctx, a, func(t *tx) error {
		if l.Version == 1 {
			_, err := t.exec(lentInserted, l.ID, l.Provider, l.Version, l.Redacted, l.BaseURL, micros(l.CreatedAt), micros(l.UpdatedAt),
				l.RequestsPerMinute, l.TokensPerMinute, l.Share, bit(l.All), l.Blob)
			return err
		}
		n, err := t.exec(lentUpdated, l.ID, l.Provider, l.Version, l.Redacted, l.BaseURL, micros(l.UpdatedAt),
			l.RequestsPerMinute, l.TokensPerMinute, l.Share, bit(l.All), l.Blob)
		if err == nil && n == 0 {
			return keystore.ErrConflict
		}
		return err
	}))
}

// PutLentBlob implements keystore.LentStore. Nobody need hear of it.
func (db *DB) PutLentBlob(ctx context.Context, a tenant.Act, id string, version int64, blob []byte) error {
	_ = a.Actor() // panics for an act that was not begun, which is on record already
	return forKeystore(db.global(ctx, writing, func(t *tx) error {
		n, err := t.exec(lentBlobPut, id, version, blob)
		if err == nil && n == 0 {
			return keystore.ErrConflict
		}
		return err
	}))
}

// DeleteLentCredential implements keystore.LentStore. Grants of it stay, and
// mean nothing any more.
func (db *DB) DeleteLentCredential(ctx context.Context, a tenant.Act, id string) error {
	return forKeystore(db.changeForAll(ctx, a, func(t *tx) error { return must(t.exec(lentDeleted, id)) }))
}

// changeForAll runs fn as a change of what all companies may use: every gateway
// forgets what it knows of each.
func (db *DB) changeForAll(ctx context.Context, a tenant.Act, fn func(*tx) error) error {
	t := &tx{actor: a.Actor()}
	err := db.run(ctx, t, writing, func(t *tx) error {
		if err := fn(t); err != nil {
			return err
		}
		var generation int64
		if err := t.one(changeCounted, []any{&generation}); err != nil {
			return err
		}
		_, err := t.exec(changePut, tenant.Everybody, generation)
		return err
	})
	if t.committing {
		db.o.OnChange(tenant.Everybody)
	}
	return err
}

// LendTo implements web.Registry. The grants are the operator's act, in the
// company's log.
func (db *DB) LendTo(ctx context.Context, a tenant.Act, s tenant.Scope, providers []string) error {
	return db.changeFor(ctx, a, s, func(t *tx) error {
		if _, err := t.exec(lentGrantsDropped); err != nil {
			return err
		}
		all, err := t.allLent()
		if err != nil {
			return err
		}
		for _, name := range providers {
			i := slices.IndexFunc(all, func(l keystore.Lent) bool { return l.Provider == name })
			if i < 0 {
				return fault.Field("providers", "The operator lends no credential for provider %.64q.", name)
			}
			if _, err := t.exec(lentGranted, all[i].ID, micros(t.now)); err != nil {
				return err
			}
		}
		return t.audit(audit.LentUpdated, "", t.company)
	})
}

// LentTo implements web.Registry.
func (db *DB) LentTo(ctx context.Context, s tenant.Scope) (all []tenant.Lent, err error) {
	err = db.read(ctx, s.ID(), func(t *tx) error {
		all, err = t.lent()
		return err
	})
	return all, err
}
