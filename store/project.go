package store

import (
	"context"

	"bulkhead/audit"
	"bulkhead/fault"
	"bulkhead/openai"
	"bulkhead/tenant"
)

const (
	projectRows = `SELECT id, name, created_at, archived_at, limits, permission_mode, permission_models, default_agent
	FROM project WHERE company_id = $1`
	projectFilter = ` AND (archived_at = 0 OR $7 = 1)`
)

var projectList = list[statement]{
	statement{"projects_cursor", `SELECT created_at FROM project WHERE company_id = $1 AND id = $2`},
	statement{"projects_ascending", projectRows + projectFilter + between + oldToNew},
	statement{"projects_descending", projectRows + projectFilter + between + newToOld},
}

var (
	projectOne      = statement{"project_one", projectRows + ` AND id = $2`}
	projectsLoaded  = statement{"projects_loaded", projectRows + ` AND archived_at = 0`}
	projectInserted = statement{"project_inserted",
		`INSERT INTO project (company_id, id, name, created_at, limits, permission_mode, permission_models)
		VALUES ($1, $2, $3, $4, $5, $6, $7)`}
	projectUpdated = statement{"project_updated",
		`UPDATE project SET name = $3, limits = $4 WHERE company_id = $1 AND id = $2 AND archived_at = 0`}
	projectArchived = statement{"project_archived",
		`UPDATE project SET archived_at = $3 WHERE company_id = $1 AND id = $2 AND archived_at = 0`}
	projectOpen = statement{"project_open",
		`SELECT count(*) FROM project WHERE company_id = $1 AND id = $2 AND archived_at = 0`}
	permissionSet = statement{"permission_set",
		`UPDATE project SET permission_mode = $3, permission_models = $4
		WHERE company_id = $1 AND id = $2 AND archived_at = 0`}

	defaultAgentSet = statement{"default_agent_set",
		`UPDATE project SET default_agent = $3 WHERE company_id = $1 AND id = $2 AND archived_at = 0`}

	modelLimitsOfCompany = statement{"model_limits_of_company",
		`SELECT project_id, model, limits FROM model_limit WHERE company_id = $1`}
	modelLimitsOfProject = statement{"model_limits_of_project",
		`SELECT project_id, model, limits FROM model_limit WHERE company_id = $1 AND project_id = $2`}
	modelLimitPut = statement{"model_limit_put",
		`INSERT INTO model_limit (company_id, project_id, model, limits) VALUES ($1, $2, $3, $4)
		ON CONFLICT (company_id, project_id, model) DO UPDATE SET limits = excluded.limits`}
	modelLimitDeleted = statement{"model_limit_deleted",
		`DELETE FROM model_limit WHERE company_id = $1 AND project_id = $2 AND model = $3`}
)

func scanProject(r row) (p tenant.Project, err error) {
	err = r.Scan(&p.ID, &p.Name, moment{&p.CreatedAt}, moment{&p.ArchivedAt}, object{&p.Limits},
		&p.Permission.Mode, object{&p.Permission.Models}, &p.DefaultAgent)
	return p, err
}

// addModelLimits fills in Models of the projects that projects has.
func (t *tx) addModelLimits(project func(id string) *tenant.Project, st statement, args ...any) error {
	return t.query(st, func(r row) error {
		var id, model string
		var l tenant.Limits
		if err := r.Scan(&id, &model, object{&l}); err != nil {
			return err
		}
		p := project(id)
		if p == nil {
			return nil
		}
		if p.Models == nil {
			p.Models = map[string]tenant.Limits{}
		}
		p.Models[model] = l
		return nil
	}, args...)
}

// projects returns all projects of the company that are not archived.
func (t *tx) projects() (map[string]*tenant.Project, error) {
	all := map[string]*tenant.Project{}
	err := t.query(projectsLoaded, func(r row) error {
		p, err := scanProject(r)
		all[p.ID] = &p
		return err
	})
	if err != nil {
		return nil, err
	}
	return all, t.addModelLimits(func(id string) *tenant.Project { return all[id] }, modelLimitsOfCompany)
}

func (t *tx) project(id string) (p tenant.Project, err error) {
	found := false
	err = t.query(projectOne, func(r row) error { found = true; p, err = scanProject(r); return err }, id)
	if err == nil && !found {
		err = errNoRow
	}
	if err != nil {
		return p, err
	}
	err = t.addModelLimits(func(string) *tenant.Project { return &p }, modelLimitsOfProject, id)
	return p, err
}

func (t *tx) addProject(p tenant.Project) error {
	if err := checkName("name", p.Name); err != nil {
		return err
	}
	_, err := t.exec(projectInserted, p.ID, p.Name, micros(p.CreatedAt), asJSON(p.Limits),
		string(p.Permission.Mode), asJSON(p.Permission.Models))
	if err != nil {
		return conflict(err)
	}
	for model, l := range p.Models {
		if _, err := t.exec(modelLimitPut, p.ID, model, asJSON(l)); err != nil {
			return err
		}
	}
	return t.audit(audit.ProjectCreated, p.ID, p.ID, made[titled]{titled{p.Name, p.Name, p.Limits}})
}

// openProject returns errNoRow unless the project is there and not archived:
// nothing new begins in one that has ended.
func (t *tx) openProject(id string) error {
	var n int64
	if err := t.one(projectOpen, []any{&n}, id); err != nil {
		return err
	}
	return must(n, nil)
}

// Projects implements web.Registry. archived says whether archived ones are listed too.
func (db *DB) Projects(ctx context.Context, s tenant.Scope, p openai.Page, archived bool) (all []tenant.Project, more bool, err error) {
	err = db.read(ctx, s.ID(), func(t *tx) error {
		all, more, err = readPage(t, projectList, p, scanProject, nil, []any{flag(archived)})
		if err != nil || len(all) == 0 {
			return err
		}
		at := map[string]*tenant.Project{}
		for i := range all {
			at[all[i].ID] = &all[i]
		}
		return t.addModelLimits(func(id string) *tenant.Project { return at[id] }, modelLimitsOfCompany)
	})
	return all, more, err
}

func flag(b bool) int {
	if b {
		return 1
	}
	return 0
}

// Project implements web.Registry.
func (db *DB) Project(ctx context.Context, s tenant.Scope, id string) (p tenant.Project, err error) {
	err = db.read(ctx, s.ID(), func(t *tx) error {
		p, err = t.project(id)
		return err
	})
	return p, err
}

// CreateProject implements web.Registry.
func (db *DB) CreateProject(ctx context.Context, s tenant.Scope, p tenant.Project) error {
	return db.change(ctx, s, func(t *tx) error { return t.addProject(p) })
}

// UpdateProject implements web.Registry. An archived project is not changed any
// more: tenant.ErrNotFound.
func (db *DB) UpdateProject(ctx context.Context, s tenant.Scope, id, name string, l tenant.Limits) (p tenant.Project, err error) {
	if err := checkName("name", name); err != nil {
		return p, err
	}
	err = db.change(ctx, s, func(t *tx) error {
		if err := must(t.exec(projectUpdated, id, name, asJSON(l))); err != nil {
			return err
		}
		if p, err = t.project(id); err != nil {
			return err
		}
		return t.audit(audit.ProjectUpdated, id, id, changed[titled]{titled{name, name, l}})
	})
	return p, err
}

// ArchiveProject implements web.Registry. One that is archived is left as it is.
func (db *DB) ArchiveProject(ctx context.Context, s tenant.Scope, id string) (p tenant.Project, err error) {
	err = db.change(ctx, s, func(t *tx) error {
		n, err := t.exec(projectArchived, id, micros(t.now))
		if err != nil {
			return err
		}
		if p, err = t.project(id); err != nil || n == 0 {
			return err
		}
		return t.audit(audit.ProjectArchived, id, id)
	})
	return p, err
}

// SetModelLimits implements web.Registry.
func (db *DB) SetModelLimits(ctx context.Context, s tenant.Scope, project, model string, l tenant.Limits) error {
	if err := checkName("model", model); err != nil {
		return err
	}
	return db.change(ctx, s, func(t *tx) error {
		if err := t.openProject(project); err != nil {
			return err
		}
		var err error
		if l.Zero() {
			_, err = t.exec(modelLimitDeleted, project, model)
		} else {
			_, err = t.exec(modelLimitPut, project, model, asJSON(l))
		}
		if err != nil {
			return err
		}
		return t.audit(audit.RateLimitUpdated, project, model, changed[rates]{rates{l.RequestsPerMinute, l.TokensPerMinute, l.Concurrent}})
	})
}

// SetModelPermission implements web.Registry.
func (db *DB) SetModelPermission(ctx context.Context, s tenant.Scope, project string, m tenant.ModelPermission) error {
	what := audit.ModelPermissionUpdated
	switch m.Mode {
	case tenant.AllowAll:
		what, m.Models = audit.ModelPermissionDeleted, nil
	case tenant.AllowList, tenant.DenyList:
	default:
		// Stored, it would be a policy that nobody knows how to follow.
		return fault.Field("mode", "mode must be %q or %q", tenant.AllowList, tenant.DenyList)
	}
	return db.change(ctx, s, func(t *tx) error {
		if err := must(t.exec(permissionSet, project, string(m.Mode), asJSON(m.Models))); err != nil {
			return err
		}
		return t.audit(what, project, project, permitted(m))
	})
}
