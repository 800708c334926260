package web

import (
	"slices"

	"bulkhead/fault"
	"bulkhead/openai"
	"bulkhead/tenant"
)

// groupObject is OpenAI's group object. No directory elsewhere manages one here.
type groupObject struct {
	Object    string `json:"object"`
	ID        string `json:"id"`
	Name      string `json:"name"`
	CreatedAt int64  `json:"created_at"`
	Type      string `json:"group_type"`
	SCIM      bool   `json:"is_scim_managed"`
}

func toGroup(g tenant.Group) groupObject {
	return groupObject{"group", g.ID, g.Name, g.CreatedAt.Unix(), "group", false}
}

// groupPage is the default page of groups and of their users.
const groupPage = 100

func (g *Gateway) group(r *request, id string) (tenant.Group, error) {
	all, err := g.Registry.Groups(r.ctx, r.scope)
	if err != nil {
		return tenant.Group{}, err
	}
	i := slices.IndexFunc(all, func(g tenant.Group) bool { return g.ID == id })
	if i < 0 {
		return tenant.Group{}, tenant.ErrNotFound
	}
	return all[i], nil
}

func (g *Gateway) listGroups(r *request) (any, error) {
	all, err := g.Registry.Groups(r.ctx, r.scope)
	return listNext(r, all, err, groupPage, func(g tenant.Group) string { return g.ID }, toGroup)
}

func (g *Gateway) getGroup(r *request) (any, error) {
	found, err := g.group(r, r.param("group"))
	return toGroup(found), err
}

// groupName reads the body of what makes or renames a group.
func groupName(r *request) (string, error) {
	var b struct {
		Name *string `json:"name"`
	}
	if err := r.decode(&b); err != nil {
		return "", err
	}
	if b.Name == nil {
		return "", fault.Field("name", "name is required.")
	}
	return checkName("name", *b.Name)
}

func (g *Gateway) createGroup(r *request) (any, error) {
	name, err := groupName(r)
	if err != nil {
		return nil, err
	}
	made := tenant.Group{ID: openai.NewID("group-"), Name: name, CreatedAt: g.now()}
	return toGroup(made), g.Registry.CreateGroup(r.ctx, r.scope, made)
}

func (g *Gateway) updateGroup(r *request) (any, error) {
	name, err := groupName(r)
	if err != nil {
		return nil, err
	}
	now, err := g.Registry.RenameGroup(r.ctx, r.scope, r.param("group"), name)
	return toGroup(now), err
}

func (g *Gateway) deleteGroup(r *request) (any, error) {
	id := r.param("group")
	return deleted{id, "group.deleted", true}, g.Registry.DeleteGroup(r.ctx, r.scope, id)
}

// groupUserObject is a user in the list of a group.
type groupUserObject struct {
	Object string `json:"object"`
	ID     string `json:"id"`
	Email  string `json:"email"`
	Name   string `json:"name"`
}

func toGroupUser(u tenant.User) groupUserObject {
	return groupUserObject{"organization.user", u.ID, u.Email, u.Name}
}

func userID(u tenant.User) string { return u.ID }

func (g *Gateway) listGroupUsers(r *request) (any, error) {
	all, err := g.Registry.GroupUsers(r.ctx, r.scope, r.param("group"))
	return listNext(r, all, err, groupPage, userID, toGroupUser)
}

func (g *Gateway) getGroupUser(r *request) (any, error) {
	all, err := g.Registry.GroupUsers(r.ctx, r.scope, r.param("group"))
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(all, func(u tenant.User) bool { return u.ID == r.param("user") })
	if i < 0 {
		return nil, tenant.ErrNotFound
	}
	return toGroupUser(all[i]), nil
}

func (g *Gateway) addGroupUser(r *request) (any, error) {
	var b struct {
		UserID string `json:"user_id"`
	}
	if err := r.decode(&b); err != nil {
		return nil, err
	}
	group, err := g.group(r, r.param("group"))
	if err != nil {
		return nil, err
	}
	u, err := g.Registry.User(r.ctx, r.scope, b.UserID)
	if err != nil {
		return nil, unknownIn(err, "user_id")
	}
	return struct {
		Object  string `json:"object"`
		UserID  string `json:"user_id"`
		GroupID string `json:"group_id"`
	}{"group.user", u.ID, group.ID}, g.Registry.AddGroupUser(r.ctx, r.scope, group.ID, u.ID)
}

func (g *Gateway) deleteGroupUser(r *request) (any, error) {
	return deleted{Object: "group.user.deleted", Deleted: true},
		g.Registry.RemoveGroupUser(r.ctx, r.scope, r.param("group"), r.param("user"))
}
