package storetest

import (
	"errors"
	"slices"
	"testing"
	"time"

	"bulkhead/fault"
	"bulkhead/openai"
	"bulkhead/tenant"
)

const samePassword = "the same password everywhere"

// invited makes an invite by hand, with an id that others have too. Its token is
// nobody's.
func invited(id, email string, at time.Time) tenant.Invite {
	i := tenant.Invite{Key: tenant.Key{ID: id, Kind: tenant.KeyInvite, CreatedAt: at, ExpiresAt: at.AddDate(10, 0, 0)}, Email: email, Role: "member"}
	copy(i.Key.Hash[:], id)
	return i
}

// join makes a user of a company by an invite.
func (w *world) join(s tenant.Scope, id, email, name, role string, projects ...tenant.InviteProject) tenant.User {
	w.t.Helper()
	token, k := w.Minter().Mint(s, tenant.KeyInvite)
	k.CreatedAt, k.ExpiresAt = epoch, time.Now().Add(time.Hour)
	must(w.t, w.db.CreateInvite(w.ctx(), s, tenant.Invite{Key: k, Email: email, Role: role, Projects: projects}, 100))
	return w.accept(token, id, name)
}

func (w *world) accept(token, id, name string) tenant.User {
	w.t.Helper()
	door, _, err := w.Invited(w.ctx(), []byte(token))
	must(w.t, err)
	if w.password == "" {
		w.password, err = w.HashPassword(w.ctx(), samePassword)
		must(w.t, err)
	}
	u, err := w.db.AcceptInvite(w.ctx(), door, tenant.User{ID: id, Name: name, CreatedAt: epoch.Add(time.Duration(len(id)) * time.Second)}, w.password)
	must(w.t, err)
	return u
}

// login returns the scope of a user.
func (w *world) login(s tenant.Scope, email string) tenant.Scope {
	w.t.Helper()
	in, _, err := w.Login(w.ctx(), tenant.Login{Company: s.ID().String(), Email: email, Password: samePassword})
	must(w.t, err)
	return in
}

// begin begins a session with a given id.
func (w *world) beginSession(in tenant.Scope, id, agent string, at time.Time) {
	w.t.Helper()
	k := tenant.Key{ID: id, Kind: tenant.KeySession, CreatedAt: at, ExpiresAt: at.Add(tenant.SessionLife)}
	copy(k.Hash[:], id)
	must(w.t, w.db.CreateSession(w.ctx(), in, tenant.Session{Key: k, UserID: in.UserID(), Agent: agent, SeenAt: at}))
}

// furnishPeople gives a company people, with ids that are the same in each and
// names that are not.
func furnishPeople(t *testing.T, w *world, s tenant.Scope, name string, at time.Time) {
	t.Helper()
	ctx, db := w.ctx(), w.db
	w.join(s, "user_owner", "owner@example.com", name+" owner", "owner")
	w.join(s, "user_same", "same@example.com", name+" person", "member", tenant.InviteProject{ID: "proj_same", Role: "member"})
	must(t, db.CreateInvite(ctx, s, invited("invite-same", "pending@example.com", at), 100))
	must(t, db.CreateGroup(ctx, s, tenant.Group{ID: "group-same", Name: name + " group", CreatedAt: at}))
	must(t, db.AddGroupUser(ctx, s, "group-same", "user_same"))
	p := tenant.UsageRead
	if name == "acme" {
		p = tenant.AuditRead
	}
	must(t, db.CreateRole(ctx, s, tenant.Role{ID: "role-same", Name: name + " role", Permissions: p}))
	must(t, db.CreateRole(ctx, s, tenant.Role{ID: "role-in", ProjectID: "proj_same", InProject: true, Name: name + " role", Permissions: tenant.KeysWrite}))
	for project, role := range map[string]string{"": "role-same", "proj_same": "role-in"} {
		_, err := db.GrantRole(ctx, s, project, "group-same", role)
		must(t, err)
	}
	own := key("key_of_user", "", "", at)
	own.Name, own.UserID = name+" own key", "user_same"
	must(t, db.CreateKey(ctx, s, own))
	in := w.login(s, "same@example.com")
	w.beginSession(in, "session_live", name+" browser", time.Now())
	w.beginSession(in, "session_same", name+" browser", at) // long over
}

// seePeople reads all there is of people.
func seePeople(w *world, s tenant.Scope, see func(string, any, error)) {
	ctx, db := w.ctx(), w.db
	page := all
	for _, page.Desc = range []bool{false, true} {
		for _, page.After = range []string{"", "user_same"} {
			users, _, err := db.Users(ctx, s, nil, page)
			see("users", users, err)
		}
		for _, page.After = range []string{"", "invite-same"} {
			invites, _, err := db.Invites(ctx, s, page)
			see("invites", invites, err)
		}
	}
	users, _, err := db.Users(ctx, s, []string{"same@example.com"}, all)
	see("users by email", users, err)
	u, err := db.User(ctx, s, "user_same")
	see("user", u, err)
	u, err = db.UserByEmail(ctx, s, "same@example.com")
	see("user by email", u, err)
	_, password, err := db.LoadLogin(ctx, s.ID(), "same@example.com")
	see("password", password, err)
	i, err := db.LoadInvite(ctx, s.ID(), "invite-same")
	see("invite", i, err)
	groups, err := db.Groups(ctx, s)
	see("groups", groups, err)
	users, err = db.GroupUsers(ctx, s, "group-same")
	see("users of the group", users, err)
	for _, project := range []string{"", "proj_same"} {
		roles, err := db.Roles(ctx, s, project)
		see("roles", roles, err)
		for _, principal := range []string{"user_same", "group-same"} {
			granted, err := db.GrantedRoles(ctx, s, project, principal)
			see("granted", granted, err)
		}
	}
	for _, groups := range []bool{false, true} {
		members, err := db.ProjectMembers(ctx, s, "proj_same", groups)
		see("members", members, err)
	}
	one, err := db.LoadSession(ctx, s.ID(), "session_same")
	see("session", one, err)
}

// changePeople makes every change there is to the people of a company.
func changePeople(t *testing.T, w *world, s tenant.Scope) {
	t.Helper()
	ctx, db := w.ctx(), w.db
	in := w.login(s, "same@example.com")
	must(t, db.SeeSession(ctx, s.ID(), "session_same", time.Now()))
	w.beginSession(in, "session_new", "another", time.Now())
	sessions, err := db.Sessions(ctx, in)
	must(t, err)
	same(t, len(sessions), 2) // one was over
	must(t, db.SetPassword(ctx, in, "another hash", "session_new"))
	wantErr(t, db.EndSession(ctx, in, "session_same"), tenant.ErrNotFound)
	must(t, db.EndSession(ctx, in, "session_new"))

	// Both companies have one owner: neither's counts for the other.
	wantFault(t, db.DeleteUser(ctx, s, "user_owner"), fault.Conflict)
	_, err = db.SetUserRole(ctx, s, "user_owner", tenant.RoleMember)
	wantFault(t, err, fault.Conflict)
	_, err = db.SetUserRole(ctx, s, "user_same", tenant.RoleManager)
	must(t, err)
	_, err = db.RenameGroup(ctx, s, "group-same", "another name")
	must(t, err)
	_, err = db.UpdateRole(ctx, s, tenant.Role{ID: "role-same", Name: "another name", Permissions: tenant.BudgetsWrite})
	must(t, err)
	must(t, db.RevokeRole(ctx, s, "", "group-same", "role-same"))
	must(t, db.SetProjectRole(ctx, s, "proj_same", "user_same", tenant.RoleProjectOwner, false))
	must(t, db.LeaveProject(ctx, s, "proj_same", "user_same"))
	must(t, db.RemoveGroupUser(ctx, s, "group-same", "user_same"))
	must(t, db.DeleteRole(ctx, s, "", "role-same"))
	must(t, db.DeleteGroup(ctx, s, "group-same"))
	must(t, db.CreateInvite(ctx, s, invited("invite-other", "pending@example.com", epoch), 100)) // in place of the first
	must(t, db.CreateInvite(ctx, s, invited("invite-same", "again@example.com", epoch), 100))
	must(t, db.DeleteInvite(ctx, s, "invite-same"))
	must(t, db.DeleteUser(ctx, s, "user_same"))
}

// foreignPeople asks for people that only another company has.
func foreignPeople(w *world, s tenant.Scope, f func(what string, err error, more ...error)) {
	ctx, db := w.ctx(), w.db
	_, err := db.User(ctx, s, "user_beta")
	f("User", err, db.DeleteUser(ctx, s, "user_beta"), db.DeleteGroup(ctx, s, "group-beta"), db.DeleteRole(ctx, s, "", "role-beta"))
	_, err = db.UserByEmail(ctx, s, "beta@example.com")
	f("UserByEmail", err)
	_, err = db.GrantRole(ctx, s, "", "user_same", "role-beta")
	f("GrantRole", err, db.AddGroupUser(ctx, s, "group-same", "user_beta"), db.AddGroupUser(ctx, s, "group-beta", "user_same"))
	_, err = db.GrantRole(ctx, s, "", "user_beta", tenant.RoleMember)
	f("GrantRole", err)
}

// onlyBeta gives beta people that acme has not.
func onlyBeta(t *testing.T, w *world, beta tenant.Scope) {
	t.Helper()
	w.join(beta, "user_beta", "beta@example.com", "beta only", "member")
	must(t, w.db.CreateGroup(w.ctx(), beta, tenant.Group{ID: "group-beta", Name: "beta only", CreatedAt: epoch}))
	must(t, w.db.CreateRole(w.ctx(), beta, tenant.Role{ID: "role-beta", Name: "beta only", Permissions: tenant.UsageRead}))
}

// testSeparateInvites has acme accept an invite whose id beta has too.
func testSeparateInvites(t *testing.T, w *world, acme, beta tenant.Scope) {
	t.Helper()
	token, k := w.Minter().Mint(acme, tenant.KeyInvite)
	k.CreatedAt, k.ExpiresAt = epoch, time.Now().Add(time.Hour)
	must(t, w.db.CreateInvite(w.ctx(), acme, tenant.Invite{Key: k, Email: "new@example.com", Role: "member"}, 100))
	// There is room for one more of beta's, however many wait that are acme's.
	pending, _, err := w.db.Invites(w.ctx(), beta, openai.Page{Limit: 100})
	must(t, err)
	pending = slices.DeleteFunc(pending, func(i tenant.Invite) bool { return !i.AcceptedAt.IsZero() })
	must(t, w.db.CreateInvite(w.ctx(), beta, invited(k.ID, "new@example.com", epoch), len(pending)+1))
	wantFault(t, w.db.CreateInvite(w.ctx(), beta, invited("invite-more", "more@example.com", epoch), len(pending)+1), fault.Invalid)
	before := snapshot(t, w, beta)
	w.accept(token, "user_new", "acme new")
	if after := snapshot(t, w, beta); after != before {
		t.Errorf("acme's accepting changed beta:\n%s\n%s", before, after)
	}
}

// testPeople is what the methods on people promise beside isolation.
func testPeople(t *testing.T, open Open) {
	w := newWorld(t, open)
	s, _ := w.company("acme")
	ctx, db := w.ctx(), w.db
	must(t, db.CreateProject(ctx, s, tenant.Project{ID: "proj_same", Name: "p", CreatedAt: epoch}))
	furnishPeople(t, w, s, "acme", epoch)

	// What all roles give: one's own in the company and in the project, and the group's.
	u, err := db.User(ctx, s, "user_same")
	must(t, err)
	want := tenant.Grants{Company: tenant.ModelRequest | tenant.AuditRead}
	want.Add("proj_same", tenant.ModelRequest|tenant.ProjectsRead|tenant.KeysRead|tenant.UsageRead|tenant.KeysWrite)
	same(t, u.Grants, want)
	same(t, u.Role, "member")

	// The same address twice, an invite twice.
	wantFault(t, db.CreateInvite(ctx, s, invited("invite-x", "same@example.com", epoch), 100), fault.Conflict)
	token, k := w.Minter().Mint(s, tenant.KeyInvite)
	k.CreatedAt, k.ExpiresAt = epoch, time.Now().Add(time.Hour)
	must(t, db.CreateInvite(ctx, s, tenant.Invite{Key: k, Email: "once@example.com", Role: "manager"}, 100))
	door, _, err := w.Invited(ctx, []byte(token))
	must(t, err)
	w.accept(token, "user_once", "Once")
	_, err = db.AcceptInvite(ctx, door, tenant.User{ID: "user_twice", Name: "Twice"}, "")
	wantErr(t, err, tenant.ErrNotFound)
	_, _, err = w.Invited(ctx, []byte(token))
	wantFault(t, err, fault.NotFound)
	wantFault(t, db.DeleteInvite(ctx, s, k.ID), fault.Conflict)

	// Nobody gives, takes or changes above what they hold.
	manager := w.login(s, "once@example.com")
	above := func(what string, err error) {
		t.Helper()
		if f, ok := errors.AsType[*fault.Error](err); !ok || f.Code != "above_own_permissions" {
			t.Errorf("%s: %v", what, err)
		}
	}
	_, err = db.GrantRole(ctx, manager, "", "user_once", tenant.RoleOwner)
	above("to make oneself owner", err)
	_, err = db.SetUserRole(ctx, manager, "user_once", tenant.RoleOwner)
	above("to make oneself owner", err)
	_, err = db.SetUserRole(ctx, manager, "user_owner", tenant.RoleMember)
	above("to demote an owner", err)
	above("to remove an owner", db.DeleteUser(ctx, manager, "user_owner"))
	above("to remove one who reads the audit log", db.DeleteUser(ctx, manager, "user_same"))
	above("to take a role with more", db.RevokeRole(ctx, manager, "", "group-same", "role-same"))
	above("to join a group with more", db.AddGroupUser(ctx, manager, "group-same", "user_once"))
	above("to empty a group with more", db.RemoveGroupUser(ctx, manager, "group-same", "user_same"))
	above("to delete a group with more", db.DeleteGroup(ctx, manager, "group-same"))
	above("to make a role with more", db.CreateRole(ctx, manager, tenant.Role{ID: "role-x", Name: "x", Permissions: tenant.AuditRead}))
	_, err = db.UpdateRole(ctx, manager, tenant.Role{ID: "role-same", Name: "x", Permissions: tenant.ModelRequest})
	above("to weaken a role with more", err)
	must(t, db.CreateRole(ctx, manager, tenant.Role{ID: "role-y", Name: "y", Permissions: tenant.UsageRead}))
	_, err = db.UpdateRole(ctx, manager, tenant.Role{ID: "role-y", Name: "y", Permissions: tenant.UsageRead | tenant.AdminKeysWrite})
	above("to strengthen a role", err)
	above("to delete a role with more", db.DeleteRole(ctx, manager, "", "role-same"))
	invite := invited("invite-owner", "evil@example.com", epoch)
	invite.Role = "owner"
	above("to invite an owner", db.CreateInvite(ctx, manager, invite, 100))
	must(t, db.CreateInvite(ctx, s, invite, 100))
	above("to take back the invite of an owner", db.DeleteInvite(ctx, manager, "invite-owner"))
	above("to revoke the company's key", db.RevokeKey(ctx, manager, "", s.KeyID()))
	above("to revoke the key of one with more", db.RevokeKey(ctx, manager, "", "key_of_user"))

	// A company's role is not given in a project, nor the reverse.
	_, err = db.GrantRole(ctx, s, "proj_same", "user_once", tenant.RoleManager)
	wantErr(t, err, tenant.ErrNotFound)
	_, err = db.GrantRole(ctx, s, "", "user_once", tenant.RoleProjectMember)
	wantErr(t, err, tenant.ErrNotFound)
	_, err = db.GrantRole(ctx, s, "", "user_once", "role-in")
	wantErr(t, err, tenant.ErrNotFound)

	// The last owner stays, whoever asks, until there is another one.
	wantFault(t, db.RevokeRole(ctx, s, "", "user_owner", tenant.RoleOwner), fault.Conflict)
	wantFault(t, db.DeleteUser(ctx, s, "user_owner"), fault.Conflict)
	_, err = db.GrantRole(ctx, s, "", "user_once", tenant.RoleOwner)
	must(t, err)
	must(t, db.DeleteUser(ctx, s, "user_owner"))

	// With a user go the sessions, and the keys of their own.
	must(t, db.DeleteUser(ctx, s, "user_same"))
	_, err = db.LoadSession(ctx, s.ID(), "session_same")
	wantErr(t, err, tenant.ErrNotFound)
	_, err = db.LoadKey(ctx, s.ID(), "key_of_user")
	wantErr(t, err, tenant.ErrNotFound)
	_, err = db.LoadUser(ctx, s.ID(), "user_same")
	wantErr(t, err, tenant.ErrNotFound)
}

// testRacingOwners has two owners demote each other at once: one stays.
func testRacingOwners(t *testing.T, open Open) {
	w := newWorld(t, open)
	s, _ := w.company("acme")
	w.join(s, "user_a", "a@example.com", "A", "owner")
	w.join(s, "user_b", "b@example.com", "B", "owner")
	errs := make(chan error, 2)
	for _, id := range []string{"user_a", "user_b"} {
		go func() { errs <- w.db.DeleteUser(w.ctx(), s, id) }()
	}
	failed := 0
	for range 2 {
		if err := <-errs; err != nil {
			wantFault(t, err, fault.Conflict)
			failed++
		}
	}
	users, _, err := w.db.Users(w.ctx(), s, nil, all)
	must(t, err)
	if failed != 1 || len(users) != 1 || users[0].Role != "owner" {
		t.Errorf("%d of 2 failed; left are %v", failed, users)
	}
}
