package store

import (
	"context"
	"errors"

	"bulkhead/tenant"
)

var (
	operatorKeyInserted = globalStatement{"operator_key_inserted",
		`INSERT INTO operator_key (id, name, redacted, hash, created_at) VALUES ($1, $2, $3, $4, $5)`}
	operatorKeyOne = globalStatement{"operator_key_one",
		`SELECT id, name, redacted, hash, created_at FROM operator_key WHERE id = $1`}
	operatorKeysCounted = globalStatement{"operator_keys_counted",
		`SELECT count(*) FROM operator_key`}
	installationInserted = globalStatement{"installation_inserted",
		`INSERT INTO installation (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING`}
	installationOne = globalStatement{"installation_one",
		`SELECT value FROM installation WHERE name = $1`}
	installationSet = globalStatement{"installation_set",
		`UPDATE installation SET value = $2 WHERE name = $1`}
)

// RecordAct implements tenant.Recorder.
func (db *DB) RecordAct(ctx context.Context, actor, action, company string) error {
	return db.global(ctx, writing, func(t *tx) error { return t.recordAct(actor, action, company) })
}

// AddOperatorKey stores a key of the operator.
func (db *DB) AddOperatorKey(ctx context.Context, k tenant.Key) error {
	if k.Kind != tenant.KeyOperator {
		panic("BUG: not an operator key")
	}
	return db.global(ctx, writing, func(t *tx) error {
		_, err := t.exec(operatorKeyInserted, k.ID, k.Name, k.Redacted, k.Hash[:], micros(k.CreatedAt))
		return conflict(err)
	})
}

// HasOperatorKey reports whether there is any key of the operator, which there
// is not before the first start.
func (db *DB) HasOperatorKey(ctx context.Context) (bool, error) {
	var n int64
	err := db.global(ctx, reading, func(t *tx) error { return t.one(operatorKeysCounted, []any{&n}) })
	return n > 0, err
}

// Installation stores a fact about this installation unless it has one of that
// name, and returns the one that is stored then.
func (db *DB) Installation(ctx context.Context, name, value string) (stored string, err error) {
	err = db.global(ctx, writing, func(t *tx) error {
		if _, err := t.exec(installationInserted, name, value); err != nil {
			return err
		}
		return t.one(installationOne, []any{&stored}, name)
	})
	return stored, err
}

// masterKnowledge is the fact which company has the operator's knowledge.
const masterKnowledge = "master_knowledge"

// MasterKnowledge implements web.AgentStore.
func (db *DB) MasterKnowledge(ctx context.Context) (company string, err error) {
	err = db.global(ctx, reading, func(t *tx) error {
		err := t.one(installationOne, []any{&company}, masterKnowledge)
		if errors.Is(err, errNoRow) {
			return nil
		}
		return err
	})
	return company, err
}

// SetMasterKnowledge implements web.AgentStore.
func (db *DB) SetMasterKnowledge(ctx context.Context, a tenant.Act, company string) error {
	a.Actor()
	return db.global(ctx, writing, func(t *tx) error {
		n, err := t.exec(installationSet, masterKnowledge, company)
		if err != nil || n > 0 {
			return err
		}
		_, err = t.exec(installationInserted, masterKnowledge, company)
		return err
	})
}

// LoadOperatorKey implements tenant.Source.
func (db *DB) LoadOperatorKey(ctx context.Context, keyID string) (*tenant.Key, error) {
	k := &tenant.Key{Kind: tenant.KeyOperator}
	err := db.global(ctx, reading, func(t *tx) error {
		return t.one(operatorKeyOne, []any{&k.ID, &k.Name, &k.Redacted, hashOf{&k.Hash}, moment{&k.CreatedAt}}, keyID)
	})
	if err != nil {
		return nil, err
	}
	return k, nil
}
