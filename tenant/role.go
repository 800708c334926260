package tenant

import (
	"slices"
	"time"
)

// Role is a set of permissions with a name, of the company or of one project.
type Role struct {
	ID          string // "role-" and a random part; of a built-in role its own
	ProjectID   string // "" for a role of the company, and for the built-in ones
	Name        string
	Description string
	Permissions Permissions
	InProject   bool // it is given in a project
	BuiltIn     bool // the same in every company, and not to be changed
	CreatedAt   time.Time
	UpdatedAt   time.Time
	CreatedBy   string // an actor, as Scope.Actor has it
}

// The ids of the built-in roles.
const (
	RoleOwner          = "role-owner"
	RoleManager        = "role-manager"
	RoleMember         = "role-member"
	RoleProjectOwner   = "role-project-owner"
	RoleProjectManager = "role-project-manager"
	RoleProjectMember  = "role-project-member"
)

// builtIn are the built-in roles, those with more before those with less.
var builtIn = [...]Role{
	{BuiltIn: true, ID: RoleOwner, Name: "owner", Permissions: AllPermissions, Description: "Everything in the company."},
	{BuiltIn: true, ID: RoleManager, Name: "manager", Description: "Projects, keys, money and people, but not admin keys, credentials, identity providers, roles and the audit log.",
		Permissions: ModelRequest | ProjectsRead | ProjectsWrite | KeysRead | KeysWrite | UsageRead | BudgetsWrite | GroupsRead | GroupsWrite},
	{BuiltIn: true, ID: RoleMember, Name: "member", Permissions: ModelRequest, Description: "Calls models. More only in the projects where it is given."},

	{BuiltIn: true, ID: RoleProjectOwner, Name: "owner", Permissions: InProject, InProject: true, Description: "Everything in the project."},
	{BuiltIn: true, ID: RoleProjectManager, Name: "manager", InProject: true, Description: "The project's keys and people.",
		Permissions: ModelRequest | ProjectsRead | KeysRead | KeysWrite | UsageRead | GroupsRead | GroupsWrite},
	{BuiltIn: true, ID: RoleProjectMember, Name: "member", InProject: true, Description: "Calls models and sees the project.",
		Permissions: ModelRequest | ProjectsRead | KeysRead | UsageRead},
}

// BuiltInRoles returns the built-in roles of the company, or those that are
// given in a project, those with more before those with less.
func BuiltInRoles(inProject bool) []Role {
	return slices.DeleteFunc(slices.Clone(builtIn[:]), func(r Role) bool { return r.InProject != inProject })
}

// BuiltInRole returns the built-in role with that id.
func BuiltInRole(id string) (Role, bool) {
	for _, r := range builtIn {
		if r.ID == id {
			return r, true
		}
	}
	return Role{}, false
}

// BuiltInRoleNamed returns the built-in role that a name means, in the company
// or in a project. OpenAI's "reader" is our member.
func BuiltInRoleNamed(name string, inProject bool) (Role, bool) {
	if name == "reader" && !inProject {
		name = "member"
	}
	for _, r := range builtIn {
		if r.Name == name && r.InProject == inProject {
			return r, true
		}
	}
	return Role{}, false
}

// Most is what the role's permissions can be: all, or what can be held in a
// project alone.
func (r Role) Most() Permissions {
	if r.InProject {
		return InProject
	}
	return AllPermissions
}
