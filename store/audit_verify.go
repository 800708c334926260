package store

import (
	"context"
	"errors"
	"math"

	"bulkhead/audit"
	"bulkhead/tenant"
)

// Checking a chain reads it twice: by its links, and by its rows, of which some
// may have no link. Both are read in parts, in one consistent view.
var (
	auditLinks = statement{"audit_links",
		`SELECT l.seq, l.id, l.hash, COALESCE(a.id, ''), COALESCE(a.created_at, 0), COALESCE(a.type, ''), COALESCE(a.actor, ''),
			COALESCE(a.project_id, ''), COALESCE(a.object, ''), COALESCE(a.count, 0), COALESCE(a.detail, '')
		FROM audit_link AS l LEFT JOIN audit AS a ON a.company_id = $1 AND a.id = l.id
		WHERE l.company_id = $1 AND l.seq > $2 ORDER BY l.seq LIMIT $3`}
	auditPlaces = statement{"audit_places",
		`SELECT a.id, a.created_at, COALESCE(l.seq, 0)
		FROM audit AS a LEFT JOIN audit_link AS l ON l.company_id = $1 AND l.id = a.id
		WHERE a.company_id = $1 AND (a.created_at, a.id) > ($2, $3) ORDER BY a.created_at, a.id LIMIT $4`}

	actLinks = globalStatement{"act_links",
		`SELECT l.seq, l.id, l.hash, COALESCE(a.id, ''), COALESCE(a.at, 0), COALESCE(a.action, ''), COALESCE(a.actor, ''),
			'', COALESCE(a.company, ''), 1, ''
		FROM act_link AS l LEFT JOIN operator_act AS a ON a.id = l.id
		WHERE l.seq > $1 ORDER BY l.seq LIMIT $2`}
	actPlaces = globalStatement{"act_places",
		`SELECT a.id, a.at, COALESCE(l.seq, 0) FROM operator_act AS a LEFT JOIN act_link AS l ON l.id = a.id
		WHERE (a.at, a.id) > ($1, $2) ORDER BY a.at, a.id LIMIT $3`}

	companiesAudited = operatorStatement{"companies_audited",
		`SELECT company_id, status FROM company WHERE company_id > $1 ORDER BY company_id LIMIT $2`}
)

// AuditedCompanies returns the ids and states of up to 1,000 companies, those
// that were erased too, in the order of the ids behind after.
func (db *DB) AuditedCompanies(ctx context.Context, a tenant.Act, after string) (some []tenant.CompanyInfo, err error) {
	err = db.across(ctx, a, reading, func(t *tx) error {
		return t.query(companiesAudited, func(r row) error {
			var c tenant.CompanyInfo
			err := r.Scan(&c.ID, &c.Status)
			some = append(some, c)
			return err
		}, after, maxPage)
	})
	return some, err
}

// VerifyAudit holds the company's audit rows against their chain. It changes
// nothing. anchor, unless it is nil, is what the head was at some time before.
func (db *DB) VerifyAudit(ctx context.Context, s tenant.Scope, anchor *audit.Head) (found audit.Report, err error) {
	err = db.read(ctx, s.ID(), func(t *tx) error {
		found, err = t.verify(t.company, anchor, auditHeadOne, auditLinks, auditPlaces, func(*audit.Event) {})
		return err
	})
	return found, err
}

// VerifyActs holds the acts of operators against their chain, and gives each one
// that has a link to see.
func (db *DB) VerifyActs(ctx context.Context, anchor *audit.Head, see func(*audit.Event)) (found audit.Report, err error) {
	err = db.global(ctx, reading, func(t *tx) error {
		found, err = t.verify(audit.Operators, anchor, actHeadOne, actLinks, actPlaces, see)
		return err
	})
	return found, err
}

func (t *tx) verify(name string, anchor *audit.Head, headOne, links, places anyStatement, see func(*audit.Event)) (audit.Report, error) {
	var hash, seal []byte
	head := &audit.Head{}
	switch err := t.one(headOne, []any{&head.Count, &hash, &seal}); {
	case errors.Is(err, errNoRow):
		head = nil
	case err != nil:
		return audit.Report{}, err
	default:
		copy(head.Hash[:], hash)
	}
	check := t.chain.Check(name, head, seal, anchor)
	for last := int64(0); ; {
		n := 0
		err := t.query(links, func(r row) error {
			n++
			return t.checkLink(r, check, &last, see)
		}, last, maxPage)
		if err != nil {
			return audit.Report{}, err
		}
		if n < maxPage {
			break
		}
	}
	for last := (place{math.MinInt64, ""}); ; {
		n := 0
		err := t.query(places, func(r row) error {
			n++
			var e audit.Event
			var seq int64
			err := r.Scan(&e.ID, moment{&e.At}, &seq)
			last = place{micros(e.At), e.ID}
			check.Row(seq, e.ID, e.At)
			return err
		}, last.at, last.id, maxPage)
		if err != nil || n < maxPage {
			return check.End(), err
		}
	}
}

// checkLink checks the link of r with its row, if that is there.
func (t *tx) checkLink(r row, check *audit.Check, last *int64, see func(*audit.Event)) error {
	var id string
	var stored []byte
	var hash audit.Hash
	var e audit.Event
	if err := r.Scan(append([]any{last, &id, &stored}, auditDest(&e)...)...); err != nil {
		return err
	}
	copy(hash[:], stored)
	if e.ID == "" {
		check.Link(*last, id, hash, nil)
		return nil
	}
	check.Link(*last, id, hash, &e)
	see(&e)
	return nil
}

// OpenToRead opens the database for what only reads: nothing is written to it,
// and a SQLite file may be in use by a gateway, or be a copy. The database must
// be there and have the schema of this version; see Look.
func OpenToRead(ctx context.Context, o Options) (*DB, error) {
	if o.URL != "" {
		return openRuntime(ctx, o)
	}
	d, err := openSQLiteToRead(ctx, o.Path)
	if err != nil {
		return nil, err
	}
	return newDB(d, o), nil
}
