package store

import (
	"context"

	"bulkhead/audit"
	"bulkhead/keystore"
	"bulkhead/tenant"
)

var (
	dataKeyOne = statement{"data_key_one", `SELECT wrapped FROM data_key WHERE company_id = $1`}
	// A company that is being erased, or was, gets no new key.
	dataKeyInserted = statement{"data_key_inserted",
		`INSERT INTO data_key (company_id, wrapped, created_at)
		SELECT company_id, $2, $3 FROM company WHERE company_id = $1 AND status IN ('active', 'suspended')
		ON CONFLICT (company_id) DO NOTHING`}

	credentialOne = statement{"credential_one",
		`SELECT id, provider, version, redacted, base_url, created_at, updated_at, blob
		FROM credential WHERE company_id = $1 AND provider = $2`}
	credentialsListed = statement{"credentials_listed",
		`SELECT id, provider, version, redacted, base_url, created_at, updated_at
		FROM credential WHERE company_id = $1 ORDER BY created_at, id`}
	credentialProviders = statement{"credential_providers",
		`SELECT provider FROM credential WHERE company_id = $1
		UNION SELECT provider FROM credential_name WHERE company_id = $1`}
	credentialInserted = statement{"credential_inserted",
		`INSERT INTO credential (company_id, id, provider, version, redacted, base_url, blob, created_at, updated_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`}
	credentialUpdated = statement{"credential_updated",
		`UPDATE credential SET version = $4, redacted = $5, base_url = $6, blob = $7, updated_at = $8
		WHERE company_id = $1 AND id = $2 AND provider = $3 AND version + 1 = $4`}
	credentialDeleted = statement{"credential_deleted",
		`DELETE FROM credential WHERE company_id = $1 AND id = $2`}
)

// DataKey implements keystore.Store.
func (db *DB) DataKey(ctx context.Context, s tenant.Scope) (wrapped []byte, err error) {
	err = db.read(ctx, s.ID(), func(t *tx) error { return t.one(dataKeyOne, []any{&wrapped}) })
	return wrapped, forKeystore(err)
}

// PutDataKey implements keystore.Store.
func (db *DB) PutDataKey(ctx context.Context, s tenant.Scope, wrapped []byte) (stored []byte, err error) {
	err = db.add(ctx, s, func(t *tx) error {
		if _, err := t.exec(dataKeyInserted, wrapped, micros(t.now)); err != nil {
			return err
		}
		return t.one(dataKeyOne, []any{&stored})
	})
	return stored, forKeystore(err)
}

func sealedDest(c *keystore.Sealed) []any {
	return []any{&c.ID, &c.Provider, &c.Version, &c.Redacted, &c.BaseURL, moment{&c.CreatedAt}, moment{&c.UpdatedAt}}
}

// Credential implements keystore.Store.
func (db *DB) Credential(ctx context.Context, s tenant.Scope, provider string) (c keystore.Sealed, err error) {
	err = db.read(ctx, s.ID(), func(t *tx) error {
		return t.one(credentialOne, append(sealedDest(&c), &c.Blob), provider)
	})
	return c, forKeystore(err)
}

// Credentials implements keystore.Store.
func (db *DB) Credentials(ctx context.Context, s tenant.Scope) (all []keystore.Sealed, err error) {
	err = db.read(ctx, s.ID(), func(t *tx) error {
		return t.query(credentialsListed, func(r row) error {
			var c keystore.Sealed
			err := r.Scan(sealedDest(&c)...)
			all = append(all, c)
			return err
		})
	})
	return all, err
}

// PutCredential implements keystore.Store.
func (db *DB) PutCredential(ctx context.Context, s tenant.Scope, c keystore.Sealed) error {
	return forKeystore(db.change(ctx, s, func(t *tx) error {
		if c.Version == 1 {
			_, err := t.exec(credentialInserted, c.ID, c.Provider, c.Version, c.Redacted, c.BaseURL, c.Blob,
				micros(c.CreatedAt), micros(c.UpdatedAt))
			if err != nil {
				return err
			}
			return t.audit(audit.CredentialCreated, "", c.ID, credited(c))
		}
		n, err := t.exec(credentialUpdated, c.ID, c.Provider, c.Version, c.Redacted, c.BaseURL, c.Blob, micros(c.UpdatedAt))
		switch {
		case err != nil:
			return err
		case n == 0:
			return keystore.ErrConflict
		}
		return t.audit(audit.CredentialUpdated, "", c.ID, credited(c))
	}))
}

// DeleteCredential implements keystore.Store.
func (db *DB) DeleteCredential(ctx context.Context, s tenant.Scope, id string) error {
	return forKeystore(db.change(ctx, s, func(t *tx) error {
		if err := must(t.exec(credentialDeleted, id)); err != nil {
			return err
		}
		return t.audit(audit.CredentialDeleted, "", id)
	}))
}
