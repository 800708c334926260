package store

import (
	"context"

	"bulkhead/audit"
	"bulkhead/openai"
	"bulkhead/tenant"
)

const (
	accountRows = `SELECT id, project_id, name, role, created_at FROM service_account
	WHERE company_id = $1 AND deleted_at = 0`
	accountOfProject = ` AND project_id = $7`
)

var accountList = list[statement]{
	statement{"accounts_cursor",
		`SELECT created_at FROM service_account WHERE company_id = $1 AND id = $2 AND project_id = $3`},
	statement{"accounts_ascending", accountRows + accountOfProject + between + oldToNew},
	statement{"accounts_descending", accountRows + accountOfProject + between + newToOld},
}

// A deleted account keeps its row, since its revoked keys refer to it.
var (
	accountOne      = statement{"account_one", accountRows + ` AND project_id = $2 AND id = $3`}
	accountInserted = statement{"account_inserted",
		`INSERT INTO service_account (company_id, id, project_id, name, role, created_at)
		VALUES ($1, $2, $3, $4, $5, $6)`}
	accountUpdated = statement{"account_updated",
		`UPDATE service_account SET name = $4, role = $5
		WHERE company_id = $1 AND project_id = $2 AND id = $3 AND deleted_at = 0`}
	accountDeleted = statement{"account_deleted",
		`UPDATE service_account SET deleted_at = $4
		WHERE company_id = $1 AND project_id = $2 AND id = $3 AND deleted_at = 0`}
)

func accountDest(a *tenant.ServiceAccount) []any {
	return []any{&a.ID, &a.ProjectID, &a.Name, &a.Role, moment{&a.CreatedAt}}
}

func scanAccount(r row) (a tenant.ServiceAccount, err error) {
	err = r.Scan(accountDest(&a)...)
	return a, err
}

func (t *tx) account(project, id string) (a tenant.ServiceAccount, err error) {
	err = t.one(accountOne, accountDest(&a), project, id)
	return a, err
}

func (t *tx) addAccount(a tenant.ServiceAccount) error {
	if err := checkName("name", a.Name); err != nil {
		return err
	}
	if err := t.openProject(a.ProjectID); err != nil {
		return err
	}
	if _, err := t.exec(accountInserted, a.ID, a.ProjectID, a.Name, a.Role, micros(a.CreatedAt)); err != nil {
		return conflict(err)
	}
	return t.audit(audit.ServiceAccountCreated, a.ProjectID, a.ID, made[member]{member{a.Name, a.Role}})
}

// ServiceAccounts implements web.Registry.
func (db *DB) ServiceAccounts(ctx context.Context, s tenant.Scope, project string, p openai.Page) (all []tenant.ServiceAccount, more bool, err error) {
	err = db.read(ctx, s.ID(), func(t *tx) error {
		if _, err := t.project(project); err != nil {
			return err
		}
		all, more, err = readPage(t, accountList, p, scanAccount, []any{project}, nil)
		return err
	})
	return all, more, err
}

// ServiceAccount implements web.Registry.
func (db *DB) ServiceAccount(ctx context.Context, s tenant.Scope, project, id string) (a tenant.ServiceAccount, err error) {
	err = db.read(ctx, s.ID(), func(t *tx) error {
		a, err = t.account(project, id)
		return err
	})
	return a, err
}

// CreateServiceAccount implements web.Registry.
func (db *DB) CreateServiceAccount(ctx context.Context, s tenant.Scope, a tenant.ServiceAccount, first *tenant.Key) error {
	return db.change(ctx, s, func(t *tx) error {
		if err := t.addAccount(a); err != nil || first == nil {
			return err
		}
		return t.addKey(*first)
	})
}

// UpdateServiceAccount implements web.Registry.
func (db *DB) UpdateServiceAccount(ctx context.Context, s tenant.Scope, project, id, name, role string) (a tenant.ServiceAccount, err error) {
	if err := checkName("name", name); err != nil {
		return a, err
	}
	err = db.change(ctx, s, func(t *tx) error {
		if err := t.openProject(project); err != nil {
			return err
		}
		if err := must(t.exec(accountUpdated, project, id, name, role)); err != nil {
			return err
		}
		if a, err = t.account(project, id); err != nil {
			return err
		}
		return t.audit(audit.ServiceAccountUpdated, project, id, changed[member]{member{name, role}})
	})
	return a, err
}

// DeleteServiceAccount implements web.Registry.
func (db *DB) DeleteServiceAccount(ctx context.Context, s tenant.Scope, project, id string) error {
	return db.change(ctx, s, func(t *tx) error {
		if err := must(t.exec(accountDeleted, project, id, micros(t.now))); err != nil {
			return err
		}
		var keys []string
		err := t.query(keysOfAccountRevoked, func(r row) error {
			var key string
			err := r.Scan(&key)
			keys = append(keys, key)
			return err
		}, id, micros(t.now))
		if err != nil {
			return err
		}
		if err := t.deleteRules(rulesOfAccountDeleted, id); err != nil {
			return err
		}
		for _, key := range keys {
			if err := t.audit(audit.APIKeyDeleted, project, key); err != nil {
				return err
			}
		}
		return t.audit(audit.ServiceAccountDeleted, project, id)
	})
}
