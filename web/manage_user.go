package web

import (
	"cmp"
	"slices"
	"strings"

	"bulkhead/fault"
	"bulkhead/openai"
	"bulkhead/tenant"
)

// userObject is OpenAI's organization user object. A member's role is "reader"
// there.
type userObject struct {
	ID      string `json:"id"`
	Object  string `json:"object"`
	Email   string `json:"email"`
	Name    string `json:"name"`
	Role    string `json:"role"`
	AddedAt int64  `json:"added_at"`
}

func toUser(u tenant.User) userObject {
	return userObject{u.ID, "organization.user", u.Email, u.Name, openaiRole(u.Role), u.CreatedAt.Unix()}
}

// openaiRole is a role in the company as OpenAI names it.
func openaiRole(name string) string {
	if name == "" || name == "member" {
		return "reader"
	}
	return name
}

// nextList is a list that goes on where next says: OpenAI has it for groups and
// roles.
type nextList[O any] struct {
	Object  string  `json:"object"`
	Data    []O     `json:"data"`
	HasMore bool    `json:"has_more"`
	Next    *string `json:"next"`
}

// nextMost is the largest page of such a list.
const nextMost = 1000

// ordered reads the page of such a list, which is oldest first unless the query
// says otherwise.
func (r *request) ordered(def int) (openai.Page, error) {
	p, err := r.page(def, nextMost)
	p.Desc = r.query("order") == "desc"
	return p, err
}

func listNext[T, O any](r *request, all []T, err error, def int, id func(T) string, to func(T) O) (any, error) {
	if err != nil {
		return nil, err
	}
	p, err := r.ordered(def)
	if err != nil {
		return nil, err
	}
	some, more, err := cut(all, p, id)
	if err != nil {
		return listed[T, O](p, nil, false, err, nil, nil)
	}
	out := nextList[O]{Object: "list", Data: make([]O, len(some)), HasMore: more}
	for i, it := range some {
		out.Data[i] = to(it)
	}
	if more {
		last := id(some[len(some)-1])
		out.Next = &last
	}
	return out, nil
}

// place is the project that the path names, "" for the company.
func (r *request) place() string {
	for _, p := range r.params {
		if p.name == "project" {
			return p.value
		}
	}
	return ""
}

func (g *Gateway) listUsers(r *request) (any, error) {
	p, err := r.page(pageDefault, pageMost)
	if err != nil {
		return nil, err
	}
	emails := append(r.values("emails[]"), r.values("emails")...)
	if len(emails) > maxFilter {
		return nil, fault.Field("emails", "emails has more than %d values.", maxFilter)
	}
	for i := range emails {
		emails[i] = strings.ToLower(emails[i])
	}
	p.Desc = r.query("order") == "desc"
	items, more, err := g.Registry.Users(r.ctx, r.scope, emails, p)
	return listed(p, items, more, err, toUser, func(o userObject) string { return o.ID })
}

func (g *Gateway) getUser(r *request) (any, error) {
	u, err := g.Registry.User(r.ctx, r.scope, r.param("user"))
	return toUser(u), err
}

func (g *Gateway) updateUser(r *request) (any, error) {
	var b struct {
		Role      *string `json:"role"`
		RoleID    *string `json:"role_id"`
		Persona   *string `json:"developer_persona"`
		Technical *string `json:"technical_level"`
	}
	if err := r.decode(&b); err != nil {
		return nil, err
	}
	switch {
	case b.Persona != nil:
		return nil, fault.Field("developer_persona", "developer_persona is not kept by this gateway.")
	case b.Technical != nil:
		return nil, fault.Field("technical_level", "technical_level is not kept by this gateway.")
	case b.Role != nil && b.RoleID != nil:
		return nil, fault.Field("role_id", "role and role_id cannot be used together.")
	case b.Role == nil && b.RoleID == nil:
		return nil, fault.Field("role", "role or role_id is required.")
	}
	id := ""
	if b.RoleID != nil {
		o, err := g.findRole(r, "", *b.RoleID)
		if err != nil {
			return nil, err
		}
		id = o.ID
	} else {
		o, ok := tenant.BuiltInRoleNamed(*b.Role, false)
		if !ok {
			return nil, fault.Field("role", "role must be owner, manager or reader.")
		}
		id = o.ID
	}
	u, err := g.Registry.SetUserRole(r.ctx, r.scope, r.param("user"), id)
	return toUser(u), err
}

func (g *Gateway) deleteUser(r *request) (any, error) {
	id := r.param("user")
	return deleted{id, "organization.user.deleted", true}, g.Registry.DeleteUser(r.ctx, r.scope, id)
}

// projectUserObject is OpenAI's project user object.
type projectUserObject struct {
	ID      string `json:"id"`
	Object  string `json:"object"`
	Email   string `json:"email"`
	Name    string `json:"name"`
	Role    string `json:"role"`
	AddedAt int64  `json:"added_at"`
}

func toProjectUser(m tenant.ProjectMember) projectUserObject {
	return projectUserObject{m.ID, "organization.project.user", m.Email, m.Name, projectRole(m.Roles), m.AddedAt.Unix()}
}

// projectRole is the built-in role that counts most among some; who has other
// roles only is a member.
func projectRole(ids []string) string {
	for _, o := range tenant.BuiltInRoles(true) {
		if slices.Contains(ids, o.ID) {
			return o.Name
		}
	}
	return "member"
}

// roleInProject reads a role that is given in a project: a built-in one by its
// name, any by its id.
func (g *Gateway) roleInProject(r *request, field, name string) (string, error) {
	if o, ok := tenant.BuiltInRoleNamed(name, true); ok {
		return o.ID, nil
	}
	o, err := g.findRole(r, r.param("project"), name)
	if fault.Is(err, fault.Invalid) {
		return "", fault.Field(field, "%s must be owner, manager, member, or the id of a role of the project.", field)
	}
	return o.ID, err
}

func (g *Gateway) projectMember(r *request, id string, groups bool) (tenant.ProjectMember, error) {
	all, err := g.Registry.ProjectMembers(r.ctx, r.scope, r.param("project"), groups)
	if err != nil {
		return tenant.ProjectMember{}, err
	}
	i := slices.IndexFunc(all, func(m tenant.ProjectMember) bool { return m.ID == id })
	if i < 0 {
		return tenant.ProjectMember{}, tenant.ErrNotFound
	}
	return all[i], nil
}

func memberID(m tenant.ProjectMember) string { return m.ID }

func (g *Gateway) listProjectUsers(r *request) (any, error) {
	all, err := g.Registry.ProjectMembers(r.ctx, r.scope, r.param("project"), false)
	if err != nil {
		return nil, err
	}
	p, err := r.ordered(pageDefault)
	if err != nil {
		return nil, err
	}
	some, more, err := cut(all, p, memberID)
	return listed(p, some, more, err, toProjectUser, func(o projectUserObject) string { return o.ID })
}

func (g *Gateway) getProjectUser(r *request) (any, error) {
	m, err := g.projectMember(r, r.param("user"), false)
	return toProjectUser(m), err
}

func (g *Gateway) addProjectUser(r *request) (any, error) {
	var b struct {
		Role   string  `json:"role"`
		UserID *string `json:"user_id"`
		Email  *string `json:"email"`
	}
	if err := r.decode(&b); err != nil {
		return nil, err
	}
	p, err := g.active(r)
	if err != nil {
		return nil, err
	}
	role, err := g.roleInProject(r, "role", b.Role)
	if err != nil {
		return nil, err
	}
	var u tenant.User
	field := "user_id"
	switch {
	case (b.UserID == nil) == (b.Email == nil):
		return nil, fault.Field("user_id", "One of user_id and email is required, and not both.")
	case b.UserID != nil:
		u, err = g.Registry.User(r.ctx, r.scope, *b.UserID)
	default:
		field = "email"
		u, err = g.Registry.UserByEmail(r.ctx, r.scope, *b.Email)
	}
	if err != nil {
		return nil, unknownIn(err, field)
	}
	if err := g.Registry.SetProjectRole(r.ctx, r.scope, p.ID, u.ID, role, true); err != nil {
		return nil, err
	}
	m, err := g.projectMember(r, u.ID, false)
	return toProjectUser(m), err
}

// unknownIn makes of "not found" an error about the field of the body that names
// the object: a foreign id there is like one that never was.
func unknownIn(err error, field string) error {
	if known(err) == error(errNoObject) {
		return fault.Field(field, "%s names nothing of your company.", field)
	}
	return err
}

func (g *Gateway) updateProjectUser(r *request) (any, error) {
	var b struct {
		Role *string `json:"role"`
	}
	if err := r.decode(&b); err != nil {
		return nil, err
	}
	if b.Role == nil {
		return nil, fault.Field("role", "role is required.")
	}
	p, err := g.active(r)
	if err != nil {
		return nil, err
	}
	role, err := g.roleInProject(r, "role", *b.Role)
	if err != nil {
		return nil, err
	}
	id := r.param("user")
	if _, err := g.projectMember(r, id, false); err != nil {
		return nil, err
	}
	if err := g.Registry.SetProjectRole(r.ctx, r.scope, p.ID, id, role, false); err != nil {
		return nil, err
	}
	m, err := g.projectMember(r, id, false)
	return toProjectUser(m), err
}

func (g *Gateway) deleteProjectUser(r *request) (any, error) {
	m, err := g.projectMember(r, r.param("user"), false)
	if err != nil {
		return nil, err
	}
	return deleted{m.ID, "organization.project.user.deleted", true}, g.Registry.LeaveProject(r.ctx, r.scope, r.param("project"), m.ID)
}

// projectGroupObject is OpenAI's project group object.
type projectGroupObject struct {
	Object    string `json:"object"`
	ProjectID string `json:"project_id"`
	GroupID   string `json:"group_id"`
	GroupName string `json:"group_name"`
	GroupType string `json:"group_type"`
	CreatedAt int64  `json:"created_at"`
}

func toProjectGroup(project string) func(tenant.ProjectMember) projectGroupObject {
	return func(m tenant.ProjectMember) projectGroupObject {
		return projectGroupObject{"project.group", project, m.ID, m.Name, "group", m.AddedAt.Unix()}
	}
}

func (g *Gateway) listProjectGroups(r *request) (any, error) {
	project := r.param("project")
	all, err := g.Registry.ProjectMembers(r.ctx, r.scope, project, true)
	return listNext(r, all, err, pageDefault, memberID, toProjectGroup(project))
}

func (g *Gateway) getProjectGroup(r *request) (any, error) {
	if t := cmp.Or(r.query("group_type"), "group"); t != "group" && t != "tenant_group" {
		return nil, fault.Field("group_type", "group_type must be group or tenant_group.")
	} else if t == "tenant_group" {
		return nil, tenant.ErrNotFound // there are none here
	}
	m, err := g.projectMember(r, r.param("group"), true)
	return toProjectGroup(r.param("project"))(m), err
}

func (g *Gateway) addProjectGroup(r *request) (any, error) {
	var b struct {
		GroupID string `json:"group_id"`
		Role    string `json:"role"`
	}
	if err := r.decode(&b); err != nil {
		return nil, err
	}
	p, err := g.active(r)
	if err != nil {
		return nil, err
	}
	role, err := g.roleInProject(r, "role", b.Role)
	if err != nil {
		return nil, err
	}
	group, err := g.group(r, b.GroupID)
	if err != nil {
		return nil, unknownIn(err, "group_id")
	}
	if err := g.Registry.SetProjectRole(r.ctx, r.scope, p.ID, group.ID, role, true); err != nil {
		return nil, err
	}
	m, err := g.projectMember(r, group.ID, true)
	return toProjectGroup(p.ID)(m), err
}

func (g *Gateway) deleteProjectGroup(r *request) (any, error) {
	m, err := g.projectMember(r, r.param("group"), true)
	if err != nil {
		return nil, err
	}
	return deleted{Object: "project.group.deleted", Deleted: true}, g.Registry.LeaveProject(r.ctx, r.scope, r.param("project"), m.ID)
}
