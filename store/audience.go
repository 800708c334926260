package store

import (
	"context"
	"errors"

	"bulkhead/audit"
	"bulkhead/fault"
	"bulkhead/openai"
	"bulkhead/tenant"
)

// maxAudiences bounds the approved audiences of an installation: every gateway
// reads them all.
const maxAudiences = 10_000

// No statement here is on a company's table: an audience chooses the company.
const audienceRows = `SELECT id, audience, created_at FROM approved_audience WHERE company_id = `

var (
	audienceList = list[globalStatement]{
		globalStatement{"audiences_cursor", `SELECT created_at FROM approved_audience WHERE id = $1 AND company_id = $2`},
		globalStatement{"audiences_ascending", audienceRows + `$6` + audiencesBetween + ` ORDER BY created_at, id LIMIT $5`},
		globalStatement{"audiences_descending", audienceRows + `$6` + audiencesBetween + ` ORDER BY created_at DESC, id DESC LIMIT $5`},
	}
	audiencesLoaded    = globalStatement{"audiences_loaded", `SELECT audience, company_id FROM approved_audience`}
	audiencesOfCompany = globalStatement{"audiences_of_company", audienceRows + `$1 ORDER BY created_at, id`}
	audiencesCounted   = globalStatement{"audiences_counted", `SELECT count(*) FROM approved_audience`}
	audienceInserted   = globalStatement{"audience_inserted",
		`INSERT INTO approved_audience (audience, id, company_id, created_at) VALUES ($1, $2, $3, $4)`}
	audienceDeleted = globalStatement{"audience_deleted",
		`DELETE FROM approved_audience WHERE company_id = $1 AND id = $2 RETURNING audience`}
	audiencesGone = globalStatement{"audiences_gone", `DELETE FROM approved_audience WHERE company_id = $1`}
)

const audiencesBetween = ` AND (created_at, id) > ($1, $2) AND (created_at, id) < ($3, $4)`

func scanAudience(r row) (a tenant.ApprovedAudience, err error) {
	err = r.Scan(&a.ID, &a.Audience, moment{&a.CreatedAt})
	return a, err
}

// LoadAudiences implements tenant.Source.
func (db *DB) LoadAudiences(ctx context.Context) (map[string]string, error) {
	all := map[string]string{}
	err := db.global(ctx, reading, func(t *tx) error {
		return t.query(audiencesLoaded, func(r row) error {
			var audience, company string
			err := r.Scan(&audience, &company)
			all[audience] = company
			return err
		})
	})
	return all, err
}

// Audiences implements web.Registry.
func (db *DB) Audiences(ctx context.Context, a tenant.Act, s tenant.Scope, p openai.Page) (all []tenant.ApprovedAudience, more bool, err error) {
	err = db.across(ctx, a, reading, func(t *tx) error {
		all, more, err = readPage(t, audienceList, p, scanAudience, []any{s.ID().String()}, nil)
		return err
	})
	return all, more, err
}

// ApproveAudience implements web.Registry.
func (db *DB) ApproveAudience(ctx context.Context, a tenant.Act, s tenant.Scope, approved tenant.ApprovedAudience) error {
	return db.changeFor(ctx, a, s, func(t *tx) error {
		var n int64
		if err := t.one(audiencesCounted, []any{&n}); err != nil {
			return err
		}
		if n >= maxAudiences {
			return fault.New(fault.Invalid, "There are %d approved audiences, which is as many as there may be.", maxAudiences)
		}
		_, err := t.exec(audienceInserted, approved.Audience, approved.ID, t.company, micros(approved.CreatedAt))
		if errors.Is(err, errUnique) {
			f := fault.Wrap(fault.Conflict, err, "This audience is a company's already. It can be one company's only.")
			f.Param = "audience"
			return f
		}
		if err != nil {
			return err
		}
		return t.audit(audit.AudienceApproved, "", approved.ID, made[audienced]{audienced{approved.Audience}})
	})
}

// RevokeAudience implements web.Registry.
func (db *DB) RevokeAudience(ctx context.Context, a tenant.Act, s tenant.Scope, id string) error {
	return db.changeFor(ctx, a, s, func(t *tx) error {
		var audience string
		if err := t.one(audienceDeleted, []any{&audience}, t.company, id); err != nil {
			return err
		}
		return t.audit(audit.AudienceRevoked, "", id, audienced{audience})
	})
}

type audienced struct {
	Audience string `json:"audience"`
}
