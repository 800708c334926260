package store

import (
	"context"
	"math"
	"slices"
	"strings"
	"time"

	"bulkhead/audit"
	"bulkhead/openai"
	"bulkhead/tenant"
)

const auditColumns = `a.id, a.created_at, a.type, a.actor, a.project_id, a.object, a.count, a.detail`

// A row is shown with the name of its project, and with the account of the key
// that acted ("key:" and the id).
const auditRows = `SELECT ` + auditColumns + `, COALESCE(p.name, ''), COALESCE(k.service_account_id, ''), COALESCE(u.email, '')
	FROM audit AS a
	LEFT JOIN project AS p ON p.company_id = $1 AND p.id = a.project_id
	LEFT JOIN api_key AS k ON k.company_id = $1 AND k.id = substr(a.actor, 5) AND substr(a.actor, 1, 4) = 'key:'
	LEFT JOIN person AS u ON u.company_id = $1 AND u.id = substr(a.actor, 6) AND substr(a.actor, 1, 5) = 'user:'
	WHERE a.company_id = $1`

// What narrows the list: $7 and $8 are times, the others lists as among makes
// them, "" for any. One SQL for both databases has no better word for "is one of".
const (
	auditBetween = ` AND (a.created_at, a.id) > ($2, $3) AND (a.created_at, a.id) < ($4, $5)
	AND a.created_at >= $7 AND a.created_at < $8
	AND CASE WHEN $9 = '' THEN 'any' ELSE replace($9, '` + among1 + `' || a.type || '` + among1 + `', '') END <> $9
	AND CASE WHEN $10 = '' THEN 'any' ELSE replace($10, '` + among1 + `' || a.project_id || '` + among1 + `', '') END <> $10
	AND CASE WHEN $11 = '' THEN 'any' ELSE replace($11, '` + among1 + `' || a.object || '` + among1 + `', '') END <> $11
	AND CASE WHEN $12 = '' THEN 'any' ELSE replace(replace($12, '` + among1 + `' || a.actor || '` + among1 + `', ''),
		'` + among1 + `' || COALESCE(k.service_account_id, '') || '` + among1 + `', '') END <> $12`
	auditOldToNew = ` ORDER BY a.created_at, a.id LIMIT $6`
	auditNewToOld = ` ORDER BY a.created_at DESC, a.id DESC LIMIT $6`

	// among1 stands before and behind each value of a list: US, the unit
	// separator of ASCII, which no id has.
	among1 = "\x1f"
)

var auditList = list[statement]{
	statement{"audit_cursor", `SELECT created_at FROM audit WHERE company_id = $1 AND id = $2`},
	statement{"audit_ascending", auditRows + auditBetween + auditOldToNew},
	statement{"audit_descending", auditRows + auditBetween + auditNewToOld},
}

// among makes of values what auditBetween looks into. Two separators never stand
// side by side in it, so that what is empty in a row is not found.
func among(values []string) string {
	if len(values) == 0 {
		return ""
	}
	list := among1
	for _, v := range values {
		if v != "" && !strings.Contains(v, among1) {
			list += v + among1
		}
	}
	return list
}

// audit has one act written down in the transaction of the act, at its end. more
// is what there is to say of it beside the ids: nothing, or what becomes one
// object in JSON.
func (t *tx) audit(what audit.Type, project, object string, more ...any) error {
	e := audit.Event{Type: what, Actor: t.actor, ProjectID: project, Object: object, Count: 1}
	if len(more) > 0 {
		e.Detail = detail(more[0])
	}
	t.note(e)
	return nil
}

// note adds a row to those that the transaction writes. They are a microsecond
// apart, so that they are read in their order.
func (t *tx) note(e audit.Event) {
	e.ID = openai.NewID("audit_log-")
	e.At = t.now.Add(time.Duration(len(t.noted)) * time.Microsecond).Truncate(time.Microsecond).UTC()
	t.noted = append(t.noted, e)
}

func auditDest(e *audit.Event) []any {
	return []any{&e.ID, moment{&e.At}, &e.Type, &e.Actor, &e.ProjectID, &e.Object, &e.Count, &e.Detail}
}

// AuditEvents implements web.Registry: newest first, whatever p.Desc says.
func (db *DB) AuditEvents(ctx context.Context, s tenant.Scope, f audit.Filter, p openai.Page) (events []audit.Record, more bool, err error) {
	p.Desc = true
	from, until := int64(math.MinInt64), int64(math.MaxInt64)
	if !f.From.IsZero() {
		from = micros(f.From)
	}
	if !f.Until.IsZero() {
		until = micros(f.Until)
	}
	also := []any{from, until, among(f.Types), among(f.Projects), among(f.Objects), among(actors(f.Actors))}
	err = db.read(ctx, s.ID(), func(t *tx) error {
		events, more, err = readPage(t, auditList, p, func(r row) (e audit.Record, err error) {
			err = r.Scan(append(auditDest(&e.Event), &e.ProjectName, &e.AccountID, &e.UserEmail)...)
			return e, err
		}, nil, also)
		return err
	})
	return events, more, err
}

// actors returns all that the ids may stand for in the column actor, beside the
// ids of accounts.
func actors(ids []string) []string {
	all := slices.Clone(ids)
	for _, id := range ids {
		all = append(all, audit.ByKey+id, audit.ByOperator+id, audit.ByClaim+id, audit.ByUser+id, audit.ByInvite+id)
	}
	return all
}

var auditKeysFound = statement{"audit_keys_found",
	`SELECT id FROM api_key WHERE company_id = $1 AND replace($2, '` + among1 + `' || id || '` + among1 + `', '') <> $2`}

// KnownKeys implements audit.Sink.
func (db *DB) KnownKeys(ctx context.Context, company tenant.ID, ids []string) (known []string, err error) {
	err = db.read(ctx, company, func(t *tx) error {
		return t.query(auditKeysFound, func(r row) error {
			var id string
			err := r.Scan(&id)
			known = append(known, id)
			return err
		}, among(ids))
	})
	return known, err
}

// AppendAudit implements audit.Sink. It is no change of the company's policy.
func (db *DB) AppendAudit(ctx context.Context, company tenant.ID, rows []audit.Event) error {
	if company.String() == "" {
		panic("BUG: zero tenant.ID")
	}
	return db.run(ctx, &tx{company: company.String()}, writing, func(t *tx) error {
		for _, e := range rows {
			t.note(e)
		}
		return nil
	})
}
