package store

import (
	"context"
	"errors"
	"slices"
	"time"

	"bulkhead/audit"
	"bulkhead/fault"
	"bulkhead/tenant"
)

const roleColumns = `id, project_id, name, description, permissions, created_at, updated_at, created_by`

var (
	rolesAll = statement{"roles_all",
		`SELECT ` + roleColumns + ` FROM custom_role WHERE company_id = $1 AND project_id = $2 ORDER BY created_at, id`}
	roleOne = statement{"role_one",
		`SELECT ` + roleColumns + ` FROM custom_role WHERE company_id = $1 AND project_id = $2 AND id = $3`}
	roleInserted = statement{"role_inserted",
		`INSERT INTO custom_role (company_id, ` + roleColumns + `) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`}
	roleUpdated = statement{"role_updated",
		`UPDATE custom_role SET name = $4, description = $5, permissions = $6, updated_at = $7
		WHERE company_id = $1 AND project_id = $2 AND id = $3`}
	roleDeleted = statement{"role_deleted",
		`DELETE FROM custom_role WHERE company_id = $1 AND project_id = $2 AND id = $3`}

	// What a user has: by grants of their own, and by those of their groups.
	grantsOfUser = statement{"grants_of_user",
		`SELECT g.project_id, g.role_id, COALESCE(c.permissions, '[]') FROM role_grant AS g
		LEFT JOIN custom_role AS c ON c.company_id = $1 AND c.id = g.role_id
		LEFT JOIN group_member AS m ON m.company_id = $1 AND m.group_id = g.principal AND m.user_id = $2
		WHERE g.company_id = $1 AND (g.principal = $2 OR m.user_id = $2)`}
	grantsOfPrincipal = statement{"grants_of_principal",
		`SELECT role_id, created_at FROM role_grant WHERE company_id = $1 AND project_id = $2 AND principal = $3
		ORDER BY created_at, role_id`}
	grantsEverywhere = statement{"grants_everywhere",
		`SELECT project_id, role_id FROM role_grant WHERE company_id = $1 AND principal = $2`}
	grantsInProject = statement{"grants_in_project",
		`SELECT g.principal, g.role_id, g.created_at, COALESCE(p.email, ''), COALESCE(p.name, ''), COALESCE(t.name, '') FROM role_grant AS g
		LEFT JOIN person AS p ON p.company_id = $1 AND p.id = g.principal
		LEFT JOIN person_group AS t ON t.company_id = $1 AND t.id = g.principal
		WHERE g.company_id = $1 AND g.project_id = $2 ORDER BY g.created_at, g.principal`}
	grantPut = statement{"grant_put",
		`INSERT INTO role_grant (company_id, project_id, principal, role_id, created_at) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (company_id, principal, project_id, role_id) DO NOTHING`}
	grantGone = statement{"grant_gone",
		`DELETE FROM role_grant WHERE company_id = $1 AND project_id = $2 AND principal = $3 AND role_id = $4`}
	grantsOfAllGone = statement{"grants_of_all_gone",
		`DELETE FROM role_grant WHERE company_id = $1 AND principal = $2`}
	grantsOfRoleGone = statement{"grants_of_role_gone",
		`DELETE FROM role_grant WHERE company_id = $1 AND role_id = $2`}
)

// maxRoles bounds the roles of the company's own, and of each project's.
const maxRoles = 200

// permissionNames scans the names of permissions. One that this release does not
// know is nothing it could allow.
type permissionNames struct{ to *tenant.Permissions }

func (p permissionNames) Scan(v any) error {
	var names []string
	if err := (object{&names}).Scan(v); err != nil {
		return err
	}
	for _, name := range names {
		one, _ := tenant.PermissionOf(name)
		*p.to |= one
	}
	return nil
}

func scanRole(r row) (o tenant.Role, err error) {
	err = r.Scan(&o.ID, &o.ProjectID, &o.Name, &o.Description, permissionNames{&o.Permissions}, moment{&o.CreatedAt}, moment{&o.UpdatedAt}, &o.CreatedBy)
	o.InProject = o.ProjectID != ""
	o.Permissions &= o.Most()
	return o, err
}

// role returns a role that can be given in a project, or in the company with "".
func (t *tx) role(project, id string) (o tenant.Role, err error) {
	if o, ok := tenant.BuiltInRole(id); ok {
		if o.InProject != (project != "") {
			return o, errNoRow
		}
		return o, nil
	}
	found := false
	err = t.query(roleOne, func(r row) error { found = true; o, err = scanRole(r); return err }, project, id)
	if err == nil && !found {
		err = errNoRow
	}
	return o, err
}

// grants returns what all roles of a user give.
func (t *tx) grants(user string) (g tenant.Grants, err error) {
	err = t.query(grantsOfUser, func(r row) error {
		var project, role string
		var p tenant.Permissions
		if err := r.Scan(&project, &role, permissionNames{&p}); err != nil {
			return err
		}
		if o, ok := tenant.BuiltInRole(role); ok {
			p = o.Permissions
		}
		g.Add(project, p)
		return nil
	}, user)
	return g, err
}

// held returns the ids of the roles that a user or group was given in a place.
func (t *tx) held(project, principal string) (all []string, at []time.Time, err error) {
	err = t.query(grantsOfPrincipal, func(r row) error {
		var role string
		var when time.Time
		err := r.Scan(&role, moment{&when})
		all, at = append(all, role), append(at, when)
		return err
	}, project, principal)
	return all, at, err
}

// mayHandle sees that s holds what a role gives, to give it or take it away.
func (t *tx) mayHandle(s tenant.Scope, project, role string) (tenant.Role, error) {
	o, err := t.role(project, role)
	if err != nil {
		return o, err
	}
	if !o.Permissions.Within(s.Grants().In(project)) {
		return o, errAbove
	}
	return o, nil
}

// inRole and assigned are what the audit log says of roles.
type inRole struct {
	Role string `json:"role"`
}

type assigned struct {
	Principal    string `json:"principal_id"`
	PrincipalIs  string `json:"principal_type"`
	ResourceType string `json:"resource_type"`
	Resource     string `json:"resource_id"`
}

func (t *tx) assigned(project, principal string) assigned {
	a := assigned{principal, "user", "api.organization", t.company}
	if isGroup(principal) {
		a.PrincipalIs = "group"
	}
	if project != "" {
		a.ResourceType, a.Resource = "api.project", project
	}
	return a
}

// give and take change one grant and say so.
func (t *tx) give(project, principal, role string) error {
	n, err := t.exec(grantPut, project, principal, role, micros(t.now))
	if err != nil || n == 0 {
		return err
	}
	return t.audit(audit.RoleAssigned, project, role, t.assigned(project, principal))
}

func (t *tx) take(project, principal, role string) error {
	if err := must(t.exec(grantGone, project, principal, role)); err != nil {
		return err
	}
	return t.audit(audit.RoleUnassigned, project, role, t.assigned(project, principal))
}

// replaceRoles puts one role in place of all that a user or group was given in
// a place. s must hold those that go and the one that comes.
func (t *tx) replaceRoles(s tenant.Scope, project, principal, role string) error {
	if _, err := t.mayHandle(s, project, role); err != nil {
		return err
	}
	old, _, err := t.held(project, principal)
	if err != nil {
		return err
	}
	for _, id := range old {
		if id == role {
			continue
		}
		if _, err := t.mayHandle(s, project, id); err != nil {
			return err
		}
		if err := t.take(project, principal, id); err != nil {
			return err
		}
	}
	return t.give(project, principal, role)
}

// principal sees that there is such a user or group. What of it may be changed
// is another question.
func (t *tx) principal(id string) error {
	if isGroup(id) {
		_, err := t.group(id)
		return err
	}
	_, err := t.person(id)
	return err
}

// place sees that there is such a project; "" is the company.
func (t *tx) place(project string) error {
	if project == "" {
		return nil
	}
	return t.openProject(project)
}

// Roles implements web.People.
func (db *DB) Roles(ctx context.Context, s tenant.Scope, project string) (all []tenant.Role, err error) {
	all = tenant.BuiltInRoles(project != "")
	err = db.read(ctx, s.ID(), func(t *tx) error {
		if err := t.place(project); err != nil {
			return err
		}
		return t.query(rolesAll, func(r row) error {
			o, err := scanRole(r)
			all = append(all, o)
			return err
		}, project)
	})
	return all, err
}

// CreateRole implements web.People.
func (db *DB) CreateRole(ctx context.Context, s tenant.Scope, o tenant.Role) error {
	return db.change(ctx, s, func(t *tx) error {
		if err := t.place(o.ProjectID); err != nil {
			return err
		}
		if !o.Permissions.Within(s.Grants().In(o.ProjectID)) {
			return errAbove
		}
		n := 0
		if err := t.query(rolesAll, func(row) error { n++; return nil }, o.ProjectID); err != nil {
			return err
		}
		if n >= maxRoles {
			return fault.New(fault.Invalid, "There are %d roles of your own here, which is the most there can be.", maxRoles).WithCode("too_many_roles")
		}
		_, err := t.exec(roleInserted, o.ID, o.ProjectID, o.Name, o.Description, asJSON(o.Permissions.Names()), micros(t.now), micros(t.now), s.Actor())
		if err != nil {
			return conflict(err)
		}
		return t.audit(audit.RoleCreated, o.ProjectID, o.ID, roleSaid(o))
	})
}

func roleSaid(o tenant.Role) any {
	return struct {
		Name        string   `json:"role_name"`
		Permissions []string `json:"permissions"`
	}{o.Name, o.Permissions.Names()}
}

// UpdateRole implements web.People.
func (db *DB) UpdateRole(ctx context.Context, s tenant.Scope, o tenant.Role) (now tenant.Role, err error) {
	err = db.change(ctx, s, func(t *tx) error {
		if err := t.place(o.ProjectID); err != nil {
			return err
		}
		if _, err := t.mayHandle(s, o.ProjectID, o.ID); err != nil {
			return err
		}
		if !o.Permissions.Within(s.Grants().In(o.ProjectID)) {
			return errAbove
		}
		if err := must(t.exec(roleUpdated, o.ProjectID, o.ID, o.Name, o.Description, asJSON(o.Permissions.Names()), micros(t.now))); err != nil {
			return conflict(err)
		}
		if now, err = t.role(o.ProjectID, o.ID); err != nil {
			return err
		}
		return t.audit(audit.RoleUpdated, o.ProjectID, o.ID, changed[any]{roleSaid(now)})
	})
	return now, err
}

// DeleteRole implements web.People.
func (db *DB) DeleteRole(ctx context.Context, s tenant.Scope, project, id string) error {
	return db.change(ctx, s, func(t *tx) error {
		if _, err := t.mayHandle(s, project, id); err != nil {
			return err
		}
		if err := must(t.exec(roleDeleted, project, id)); err != nil {
			return err
		}
		if _, err := t.exec(grantsOfRoleGone, id); err != nil {
			return err
		}
		return t.audit(audit.RoleDeleted, project, id)
	})
}

// GrantedRoles implements web.People.
func (db *DB) GrantedRoles(ctx context.Context, s tenant.Scope, project, principal string) (all []tenant.GrantedRole, err error) {
	err = db.read(ctx, s.ID(), func(t *tx) error {
		if err := t.place(project); err != nil {
			return err
		}
		if err := t.principal(principal); err != nil {
			return err
		}
		ids, at, err := t.held(project, principal)
		if err != nil {
			return err
		}
		for i, id := range ids {
			o, err := t.role(project, id)
			if errors.Is(err, errNoRow) {
				continue
			}
			if err != nil {
				return err
			}
			all = append(all, tenant.GrantedRole{Role: o, GrantedAt: at[i]})
		}
		return nil
	})
	return all, err
}

// GrantRole implements web.People.
func (db *DB) GrantRole(ctx context.Context, s tenant.Scope, project, principal, role string) (o tenant.Role, err error) {
	err = db.change(ctx, s, func(t *tx) error {
		if err := t.place(project); err != nil {
			return err
		}
		if err := t.principal(principal); err != nil {
			return err
		}
		if o, err = t.mayHandle(s, project, role); err != nil {
			return err
		}
		return t.give(project, principal, role)
	})
	return o, err
}

// RevokeRole implements web.People.
func (db *DB) RevokeRole(ctx context.Context, s tenant.Scope, project, principal, role string) error {
	return db.change(ctx, s, func(t *tx) error {
		if err := t.principal(principal); err != nil {
			return err
		}
		if _, err := t.mayHandle(s, project, role); err != nil {
			return err
		}
		return t.keepOwner(func() error { return t.take(project, principal, role) })
	})
}

// ProjectMembers implements web.People.
func (db *DB) ProjectMembers(ctx context.Context, s tenant.Scope, project string, groups bool) (all []tenant.ProjectMember, err error) {
	err = db.read(ctx, s.ID(), func(t *tx) error {
		if _, err := t.project(project); err != nil {
			return err
		}
		return t.query(grantsInProject, func(r row) error {
			var m tenant.ProjectMember
			var role, group string
			if err := r.Scan(&m.ID, &role, moment{&m.AddedAt}, &m.Email, &m.Name, &group); err != nil {
				return err
			}
			if isGroup(m.ID) != groups {
				return nil
			}
			if groups {
				m.Name = group
			}
			i := slices.IndexFunc(all, func(o tenant.ProjectMember) bool { return o.ID == m.ID })
			if i < 0 {
				all = append(all, m)
				i = len(all) - 1
			}
			all[i].Roles = append(all[i].Roles, role)
			return nil
		}, project)
	})
	return all, err
}

// SetProjectRole implements web.People.
func (db *DB) SetProjectRole(ctx context.Context, s tenant.Scope, project, principal, role string, fresh bool) error {
	return db.change(ctx, s, func(t *tx) error {
		if err := t.openProject(project); err != nil {
			return err
		}
		if err := t.principal(principal); err != nil {
			return err
		}
		held, _, err := t.held(project, principal)
		switch {
		case err != nil:
			return err
		case fresh && len(held) > 0:
			return fault.New(fault.Conflict, "This user or group is in the project already.").WithCode("already_in_project")
		case !fresh && len(held) == 0:
			return errNoRow
		}
		return t.replaceRoles(s, project, principal, role)
	})
}

// LeaveProject implements web.People.
func (db *DB) LeaveProject(ctx context.Context, s tenant.Scope, project, principal string) error {
	return db.change(ctx, s, func(t *tx) error {
		held, _, err := t.held(project, principal)
		if err != nil {
			return err
		}
		if len(held) == 0 {
			return errNoRow
		}
		for _, role := range held {
			if _, err := t.mayHandle(s, project, role); err != nil {
				return err
			}
			if err := t.take(project, principal, role); err != nil {
				return err
			}
		}
		return nil
	})
}
