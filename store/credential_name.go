package store

import (
	"context"

	"bulkhead/audit"
	"bulkhead/keystore"
	"bulkhead/tenant"
)

var (
	credentialNamesListed = statement{"credential_names_listed",
		`SELECT id, provider, version, redacted, base_url, created_at, updated_at
		FROM credential_name WHERE company_id = $1 ORDER BY created_at, provider`}
	// Of the company's row, so that the statement does nothing without it.
	credentialNamePut = statement{"credential_name_put",
		`INSERT INTO credential_name (company_id, provider, id, version, redacted, base_url, created_at, updated_at)
		SELECT company_id, $2, $3, $4, $5, $6, $7, $8 FROM company WHERE company_id = $1
		ON CONFLICT (company_id, provider) DO UPDATE SET
			id = excluded.id, version = excluded.version, redacted = excluded.redacted, base_url = excluded.base_url,
			created_at = excluded.created_at, updated_at = excluded.updated_at
		WHERE credential_name.company_id = $1`}
	credentialNameDeleted = statement{"credential_name_deleted",
		`DELETE FROM credential_name WHERE company_id = $1 AND provider = $2`}
)

// CredentialNames implements keystore.Names.
func (db *DB) CredentialNames(ctx context.Context, s tenant.Scope) (all []keystore.Sealed, err error) {
	err = db.read(ctx, s.ID(), func(t *tx) error {
		return t.query(credentialNamesListed, func(r row) error {
			var c keystore.Sealed
			err := r.Scan(sealedDest(&c)...)
			all = append(all, c)
			return err
		})
	})
	return all, err
}

// PutCredentialName implements keystore.Names.
func (db *DB) PutCredentialName(ctx context.Context, s tenant.Scope, c keystore.Sealed) error {
	return forKeystore(db.change(ctx, s, func(t *tx) error {
		_, err := t.exec(credentialNamePut, c.Provider, c.ID, c.Version, c.Redacted, c.BaseURL, micros(c.CreatedAt), micros(c.UpdatedAt))
		if err != nil {
			return err
		}
		what := audit.CredentialUpdated
		if c.Version <= 1 {
			what = audit.CredentialCreated
		}
		return t.audit(what, "", c.ID, credited(c))
	}))
}

// DeleteCredentialName implements keystore.Names. The policy changes also where
// nothing was noted: somebody asked because something did.
func (db *DB) DeleteCredentialName(ctx context.Context, s tenant.Scope, provider string) error {
	return forKeystore(db.change(ctx, s, func(t *tx) error {
		if _, err := t.exec(credentialNameDeleted, provider); err != nil {
			return err
		}
		return t.audit(audit.CredentialDeleted, "", provider)
	}))
}
