package web

import (
	"slices"
	"strings"

	"bulkhead/fault"
	"bulkhead/openai"
	"bulkhead/tenant"
)

// roleObject is OpenAI's role object.
type roleObject struct {
	ID          string   `json:"id"`
	Object      string   `json:"object"`
	Name        string   `json:"name"`
	Description *string  `json:"description"`
	Permissions []string `json:"permissions"`
	Resource    string   `json:"resource_type"`
	Predefined  bool     `json:"predefined_role"`
}

func toRole(o tenant.Role) roleObject {
	out := roleObject{o.ID, "role", o.Name, nil, o.Permissions.Names(), "api.organization", o.BuiltIn}
	if o.InProject {
		out.Resource = "api.project"
	}
	if o.Description != "" {
		out.Description = &o.Description
	}
	return out
}

// grantedRoleObject is a role in the list of those that somebody has.
type grantedRoleObject struct {
	roleObject
	CreatedAt *int64          `json:"created_at"`
	UpdatedAt *int64          `json:"updated_at"`
	CreatedBy *string         `json:"created_by"`
	ByUser    *struct{}       `json:"created_by_user_obj"` // not kept: null
	Metadata  *struct{}       `json:"metadata"`            // not kept: null
	Sources   []grantedSource `json:"assignment_sources"`
}

type grantedSource struct {
	ID   string `json:"principal_id"`
	Type string `json:"principal_type"`
}

func toGrantedRole(principal, kind string) func(tenant.GrantedRole) grantedRoleObject {
	return func(g tenant.GrantedRole) grantedRoleObject {
		out := grantedRoleObject{roleObject: toRole(g.Role), CreatedAt: unixTime(g.Role.CreatedAt), UpdatedAt: unixTime(g.Role.UpdatedAt),
			Sources: []grantedSource{{principal, kind}}}
		if g.Role.CreatedBy != "" {
			_, by, _ := strings.Cut(g.Role.CreatedBy, ":")
			out.CreatedBy = &by
		}
		return out
	}
}

// findRole returns a role of a place by its id, which stands in the path or in a
// body.
func (g *Gateway) findRole(r *request, project, id string) (tenant.Role, error) {
	all, err := g.Registry.Roles(r.ctx, r.scope, project)
	if err != nil {
		return tenant.Role{}, err
	}
	i := slices.IndexFunc(all, func(o tenant.Role) bool { return o.ID == id })
	if i < 0 {
		return tenant.Role{}, fault.Field("role_id", "role_id names no role that can be given here.")
	}
	return all[i], nil
}

// roleOfPath is the role that the path names.
func (g *Gateway) roleOfPath(r *request) (tenant.Role, error) {
	o, err := g.findRole(r, r.place(), r.param("role"))
	if fault.Is(err, fault.Invalid) {
		err = tenant.ErrNotFound
	}
	return o, err
}

func (g *Gateway) listRoles(r *request) (any, error) {
	all, err := g.Registry.Roles(r.ctx, r.scope, r.place())
	return listNext(r, all, err, nextMost, func(o tenant.Role) string { return o.ID }, toRole)
}

func (g *Gateway) getRole(r *request) (any, error) {
	o, err := g.roleOfPath(r)
	return toRole(o), err
}

// roleBody is what a role is made of and changed with.
type roleBody struct {
	Name        *string  `json:"role_name"`
	Description *string  `json:"description"`
	Permissions []string `json:"permissions"`
}

// maxDescription bounds the description of a role, in bytes.
const maxDescription = 1024

// set puts what b has into o.
func (b roleBody) set(o *tenant.Role) (err error) {
	if b.Name != nil {
		if o.Name, err = checkName("role_name", *b.Name); err != nil {
			return err
		}
		if _, taken := tenant.BuiltInRoleNamed(o.Name, o.InProject); taken {
			return fault.Field("role_name", "A built-in role has this name.")
		}
	}
	if b.Description != nil {
		if len(*b.Description) > maxDescription || strings.ContainsRune(*b.Description, 0) {
			return fault.Field("description", "description must be at most %d bytes, without NUL.", maxDescription)
		}
		o.Description = *b.Description
	}
	if b.Permissions != nil {
		p, unknown := tenant.PermissionsOf(b.Permissions)
		if unknown != "" || len(b.Permissions) == 0 {
			return fault.Field("permissions", "permissions must be some of: %s.", o.Most())
		}
		if !p.Within(o.Most()) {
			return fault.Field("permissions", "These permissions are about the company as a whole, and no role of a project has them: %s.", p&^o.Most())
		}
		o.Permissions = p
	}
	return nil
}

func (g *Gateway) createRole(r *request) (any, error) {
	var b roleBody
	if err := r.decode(&b); err != nil {
		return nil, err
	}
	if b.Name == nil {
		return nil, fault.Field("role_name", "role_name is required.")
	}
	if b.Permissions == nil {
		return nil, fault.Field("permissions", "permissions is required.")
	}
	o := tenant.Role{ID: openai.NewID("role-"), ProjectID: r.place(), InProject: r.place() != ""}
	if err := b.set(&o); err != nil {
		return nil, err
	}
	return toRole(o), g.Registry.CreateRole(r.ctx, r.scope, o)
}

var errBuiltIn = fault.New(fault.Invalid, "A built-in role cannot be changed or deleted. Make one of your own.").WithCode("predefined_role")

func (g *Gateway) updateRole(r *request) (any, error) {
	var b roleBody
	if err := r.decode(&b); err != nil {
		return nil, err
	}
	o, err := g.roleOfPath(r)
	if err != nil {
		return nil, err
	}
	if o.BuiltIn {
		return nil, errBuiltIn
	}
	if err := b.set(&o); err != nil {
		return nil, err
	}
	now, err := g.Registry.UpdateRole(r.ctx, r.scope, o)
	return toRole(now), err
}

func (g *Gateway) deleteRole(r *request) (any, error) {
	o, err := g.roleOfPath(r)
	if err != nil {
		return nil, err
	}
	if o.BuiltIn {
		return nil, errBuiltIn
	}
	return deleted{o.ID, "role.deleted", true}, g.Registry.DeleteRole(r.ctx, r.scope, r.place(), o.ID)
}

// principal is the user or group that the path names. An id of the other kind is
// not found.
func (r *request) principal() (id, kind string) {
	kind = "group"
	for _, p := range r.params {
		if p.name == "user" {
			kind = "user"
		}
	}
	if id = r.param(kind); strings.HasPrefix(id, "group-") != (kind == "group") {
		return "", kind
	}
	return id, kind
}

func (g *Gateway) listGrantedRoles(r *request) (any, error) {
	id, kind := r.principal()
	all, err := g.Registry.GrantedRoles(r.ctx, r.scope, r.place(), id)
	return listNext(r, all, err, nextMost, func(g tenant.GrantedRole) string { return g.Role.ID }, toGrantedRole(id, kind))
}

func (g *Gateway) getGrantedRole(r *request) (any, error) {
	id, kind := r.principal()
	all, err := g.Registry.GrantedRoles(r.ctx, r.scope, r.place(), id)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(all, func(g tenant.GrantedRole) bool { return g.Role.ID == r.param("role") })
	if i < 0 {
		return nil, tenant.ErrNotFound
	}
	return toGrantedRole(id, kind)(all[i]), nil
}

// summary is a group as the answer to a grant has it.
type groupSummary struct {
	ID        string `json:"id"`
	Object    string `json:"object"`
	Name      string `json:"name"`
	CreatedAt int64  `json:"created_at"`
	SCIM      bool   `json:"scim_managed"`
}

func (g *Gateway) grantRole(r *request) (any, error) {
	var b struct {
		RoleID string `json:"role_id"`
	}
	if err := r.decode(&b); err != nil {
		return nil, err
	}
	id, kind := r.principal()
	out := struct {
		Object string        `json:"object"`
		User   *userObject   `json:"user,omitempty"`
		Group  *groupSummary `json:"group,omitempty"`
		Role   roleObject    `json:"role"`
	}{Object: kind + ".role"}
	// Whom it is for comes first: the path is looked at before the body.
	if kind == "user" {
		u, err := g.Registry.User(r.ctx, r.scope, id)
		if err != nil {
			return nil, err
		}
		o := toUser(u)
		out.User = &o
	} else {
		found, err := g.group(r, id)
		if err != nil {
			return nil, err
		}
		out.Group = &groupSummary{found.ID, "group", found.Name, found.CreatedAt.Unix(), false}
	}
	if _, err := g.findRole(r, r.place(), b.RoleID); err != nil {
		return nil, err
	}
	o, err := g.Registry.GrantRole(r.ctx, r.scope, r.place(), id, b.RoleID)
	out.Role = toRole(o)
	return out, err
}

func (g *Gateway) revokeRole(r *request) (any, error) {
	id, kind := r.principal()
	return deleted{Object: kind + ".role.deleted", Deleted: true}, g.Registry.RevokeRole(r.ctx, r.scope, r.place(), id, r.param("role"))
}

// checkAccess says whether a user may do something, and by which role of the
// company or of the project they count. A user or resource of another company is
// like one that never was.
func (g *Gateway) checkAccess(r *request) (any, error) {
	var b struct {
		User       string `json:"user"`
		Resource   string `json:"resource"`
		Permission string `json:"permission"`
	}
	if err := r.decode(&b); err != nil {
		return nil, err
	}
	switch {
	case b.User == "":
		return nil, fault.Field("user", "user is required: the id or the email of a user.")
	case b.Resource == "":
		return nil, fault.Field("resource", "resource is required: the id of the organization or of a project.")
	}
	need, ok := tenant.PermissionOf(b.Permission)
	if !ok {
		return nil, fault.Field("permission", "permission must be one of: %s.", tenant.AllPermissions)
	}
	type answer struct {
		Object  string  `json:"object"`
		Allowed bool    `json:"allowed"`
		Reason  string  `json:"reason"`
		Role    *string `json:"role"`
	}
	unknown := answer{"access.check", false, "not_found", nil}
	project := ""
	if b.Resource != r.scope.ID().String() {
		if project = b.Resource; r.scope.Company().Projects[project] == nil {
			return unknown, nil
		}
	}
	u, err := g.Registry.User(r.ctx, r.scope, b.User)
	if strings.Contains(b.User, "@") {
		u, err = g.Registry.UserByEmail(r.ctx, r.scope, b.User)
	}
	if known(err) == error(errNoObject) {
		return unknown, nil
	}
	if err != nil {
		return nil, err
	}
	role, err := g.roleThatAllows(r, u.ID, project, need)
	out := answer{"access.check", u.Grants.Allows(project, need), "no_permission", role}
	switch {
	case !out.Allowed:
	case u.Grants.Allows("", need):
		out.Reason = "organization_role"
	default:
		out.Reason = "project_role"
	}
	return out, err
}

// roleThatAllows names a role of the user's own that allows something, or else
// any that they have in the place; nil where what they have comes by a group.
func (g *Gateway) roleThatAllows(r *request, user, project string, need tenant.Permissions) (*string, error) {
	var any *string
	for _, place := range slices.Compact([]string{"", project}) {
		all, err := g.Registry.GrantedRoles(r.ctx, r.scope, place, user)
		if err != nil {
			return nil, err
		}
		for _, o := range all {
			if o.Role.Permissions.Allows(need) {
				return &o.Role.Name, nil
			}
			any = &o.Role.Name
		}
	}
	return any, nil
}
