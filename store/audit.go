package store

import (
	"context"
	"time"

	"bulkhead/audit"
	"bulkhead/openai"
	"bulkhead/tenant"
)

var auditInserted = statement{"audit_inserted",
	`INSERT INTO audit (company_id, id, created_at, type, actor, project_id, object)
	VALUES ($1, $2, $3, $4, $5, $6, $7)`}

const auditRows = `SELECT id, created_at, type, actor, project_id, object FROM audit WHERE company_id = $1`

var auditList = list[statement]{
	statement{"audit_cursor", `SELECT created_at FROM audit WHERE company_id = $1 AND id = $2`},
	statement{"audit_ascending", auditRows + between + oldToNew},
	statement{"audit_descending", auditRows + between + newToOld},
}

// audit writes down one act, in the transaction of the act. Rows of one
// transaction are a microsecond apart, so that they are read in their order.
func (t *tx) audit(what audit.Type, project, object string) error {
	at := t.now.Add(time.Duration(t.audited) * time.Microsecond)
	t.audited++
	_, err := t.exec(auditInserted, openai.NewID("audit_log-"), micros(at), string(what), t.actor, project, object)
	return err
}

// AuditEvents lists what was done in the company, newest first, whatever p.Desc says.
func (db *DB) AuditEvents(ctx context.Context, s tenant.Scope, p openai.Page) (events []audit.Event, more bool, err error) {
	p.Desc = true
	err = db.read(ctx, s.ID(), func(t *tx) error {
		events, more, err = readPage(t, auditList, p, func(r row) (e audit.Event, err error) {
			err = r.Scan(&e.ID, moment{&e.At}, &e.Type, &e.Actor, &e.ProjectID, &e.Object)
			return e, err
		}, nil, nil)
		return err
	})
	return events, more, err
}
