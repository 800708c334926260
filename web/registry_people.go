package web

import (
	"context"

	"bulkhead/openai"
	"bulkhead/tenant"
)

// People keeps a company's users, what they may do, and their sessions. It is a
// part of Registry, and what that says holds here.
//
// A project of "" is the company. Whoever gives a role, or takes one away, must
// hold all that it gives, in the same place: s says what that is, and the look is
// in the transaction of the change. Else the error is Forbidden, as it is for a
// change to a user who holds more. The last owner of a company stays: Conflict.
type People interface {
	// Users lists those with one of the addresses (lower case), or all.
	Users(ctx context.Context, s tenant.Scope, emails []string, p openai.Page) ([]tenant.User, bool, error)
	User(ctx context.Context, s tenant.Scope, id string) (tenant.User, error)
	UserByEmail(ctx context.Context, s tenant.Scope, email string) (tenant.User, error)
	// SetUserRole puts a role in place of all that the user was given in the
	// company. What groups give stays.
	SetUserRole(ctx context.Context, s tenant.Scope, id, role string) (tenant.User, error)
	// DeleteUser removes a user, and with them their sessions and their admin keys.
	DeleteUser(ctx context.Context, s tenant.Scope, id string) error
	// SetPassword stores the hash of a password of the user of s, and ends the
	// user's sessions but the one to keep.
	SetPassword(ctx context.Context, s tenant.Scope, password, keep string) error

	Invites(ctx context.Context, s tenant.Scope, p openai.Page) ([]tenant.Invite, bool, error)
	LoadInvite(ctx context.Context, id tenant.ID, inviteID string) (*tenant.Invite, error)
	// CreateInvite stores an invite in place of those to the same address that
	// are not accepted.
	CreateInvite(ctx context.Context, s tenant.Scope, i tenant.Invite, most int) error
	DeleteInvite(ctx context.Context, s tenant.Scope, id string) error
	// AcceptInvite makes a user of the invite that opened s: once.
	AcceptInvite(ctx context.Context, s tenant.Scope, u tenant.User, password string) (tenant.User, error)

	Groups(ctx context.Context, s tenant.Scope) ([]tenant.Group, error)
	CreateGroup(ctx context.Context, s tenant.Scope, g tenant.Group) error
	RenameGroup(ctx context.Context, s tenant.Scope, id, name string) (tenant.Group, error)
	DeleteGroup(ctx context.Context, s tenant.Scope, id string) error
	GroupUsers(ctx context.Context, s tenant.Scope, group string) ([]tenant.User, error)
	AddGroupUser(ctx context.Context, s tenant.Scope, group, user string) error
	RemoveGroupUser(ctx context.Context, s tenant.Scope, group, user string) error

	// Roles lists the built-in roles of a place, and those that the company made.
	Roles(ctx context.Context, s tenant.Scope, project string) ([]tenant.Role, error)
	CreateRole(ctx context.Context, s tenant.Scope, o tenant.Role) error
	UpdateRole(ctx context.Context, s tenant.Scope, o tenant.Role) (tenant.Role, error)
	// DeleteRole takes the role from all who have it.
	DeleteRole(ctx context.Context, s tenant.Scope, project, id string) error

	// GrantedRoles lists the roles that a user or group was itself given.
	GrantedRoles(ctx context.Context, s tenant.Scope, project, principal string) ([]tenant.GrantedRole, error)
	GrantRole(ctx context.Context, s tenant.Scope, project, principal, role string) (tenant.Role, error)
	RevokeRole(ctx context.Context, s tenant.Scope, project, principal, role string) error

	// ProjectMembers lists the users that have a role in a project, or the groups.
	ProjectMembers(ctx context.Context, s tenant.Scope, project string, groups bool) ([]tenant.ProjectMember, error)
	// SetProjectRole puts a role in place of all that a user or group has in a
	// project; fresh says that they have none yet.
	SetProjectRole(ctx context.Context, s tenant.Scope, project, principal, role string, fresh bool) error
	LeaveProject(ctx context.Context, s tenant.Scope, project, principal string) error

	// Sessions lists the sessions of the user of s, newest first.
	Sessions(ctx context.Context, s tenant.Scope) ([]tenant.Session, error)
	CreateSession(ctx context.Context, s tenant.Scope, one tenant.Session) error
	// EndSession ends a session of the user of s.
	EndSession(ctx context.Context, s tenant.Scope, id string) error
}
