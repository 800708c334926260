package store

import (
	"context"
	"time"

	"bulkhead/tenant"
)

var (
	responseOne = statement{"response_one",
		`SELECT id, project_id, created_by, user_id, provider, credential_id, model, tokens, created_at, until
		FROM response_owner WHERE company_id = $1 AND id = $2 AND until > $3`}
	// An id that is somebody's stays theirs, whatever a provider calls its answers.
	responsePut = statement{"response_put",
		`INSERT INTO response_owner (company_id, id, project_id, created_by, user_id, provider, credential_id, model, tokens, created_at, until)
		SELECT company_id, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11 FROM company WHERE company_id = $1 AND status IN ('active', 'suspended')
		ON CONFLICT (company_id, id) DO UPDATE SET tokens = excluded.tokens
		WHERE response_owner.project_id = excluded.project_id AND response_owner.created_by = excluded.created_by
			AND response_owner.user_id = excluded.user_id AND response_owner.provider = excluded.provider
			AND response_owner.credential_id = excluded.credential_id`}
	responseDeleted = statement{"response_deleted",
		`DELETE FROM response_owner WHERE company_id = $1 AND id = $2`}
	responsesSwept = statement{"responses_swept",
		`DELETE FROM response_owner WHERE company_id = $1 AND until <= $2`}
	responsesNext = statement{"responses_next",
		`SELECT COALESCE(MIN(until), 0) FROM response_owner WHERE company_id = $1`}
)

// Response implements web.Responses.
func (db *DB) Response(ctx context.Context, s tenant.Scope, id string) (r tenant.Response, err error) {
	err = db.read(ctx, s.ID(), func(t *tx) error {
		return t.one(responseOne, []any{&r.ID, &r.Project, &r.CreatedBy, &r.User, &r.Provider, &r.Credential, &r.Model, &r.Tokens,
			moment{&r.CreatedAt}, moment{&r.Until}}, id, micros(t.now))
	})
	return r, err
}

// PutResponse implements web.Responses.
func (db *DB) PutResponse(ctx context.Context, s tenant.Scope, r tenant.Response) error {
	return db.add(ctx, s, func(t *tx) error {
		var first time.Time
		if err := t.one(responsesNext, []any{moment{&first}}); err != nil {
			return err
		}
		if _, err := t.exec(responsePut, r.ID, r.Project, r.CreatedBy, r.User, r.Provider, r.Credential, r.Model, r.Tokens,
			micros(r.CreatedAt), micros(r.Until)); err != nil {
			return err
		}
		if first.IsZero() { // what comes later is swept with it, or after it
			return t.askUpkeep(tenant.SweepKept, r.Until)
		}
		return nil
	})
}

// DeleteResponse implements web.Responses.
func (db *DB) DeleteResponse(ctx context.Context, s tenant.Scope, id string) error {
	return db.add(ctx, s, func(t *tx) error {
		return must(t.exec(responseDeleted, id))
	})
}
