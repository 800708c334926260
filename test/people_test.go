package test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"bulkhead/tenant"
)

// newPeople is a gateway with two companies and no upstream.
func newPeople(t *testing.T) *world {
	t.Helper()
	g := startGateway(t, "")
	w := &world{g: g, t: t}
	for _, to := range []**side{&w.a, &w.b} {
		s := &side{company: w.newCompany(t), stable: map[string]string{}, w: w}
		s.projects[0] = s.ProjectID
		*to = s
	}
	return w
}

func (w *world) ask(t *testing.T, key, method, path string, body any) answer {
	t.Helper()
	return ask(t, method, w.g.URL+path, key, body)
}

// refusedAs fails the test unless the answer is a refusal with that code.
func refusedAs(t *testing.T, what string, a answer, status int, code string) {
	t.Helper()
	if got, _ := a.fault(); a.status != status || got != code {
		t.Errorf("%s: status %d with code %q, want %d with %q: %s", what, a.status, got, status, code, tail(a.body, 300))
	}
}

// TestSelfPromotion attacks in every way by which somebody could come to hold, or
// another to lose, more than the attacker holds. Nothing may have changed after.
func TestSelfPromotion(t *testing.T) {
	w := newPeople(t)
	s := w.a
	owner, manager, member := w.newPerson(t, s, "owner"), w.newPerson(t, s, "manager"), w.newPerson(t, s, "reader")
	org, project := "/v1/organization", s.ProjectID
	lead := w.newPerson(t, s, "reader") // owns a project
	w.grant(t, s, "/v1/projects/"+project+"/users", lead.id, tenant.RoleProjectOwner)
	strong := w.create(t, s, "/roles", map[string]any{"role_name": "strong", "permissions": []string{"api.audit_logs.read", "api.groups.read"}})
	weak := w.create(t, s, "/roles", map[string]any{"role_name": "weak", "permissions": []string{"api.usage.read"}})
	admins := w.newGroup(t, s)
	w.grant(t, s, org+"/groups", admins, tenant.RoleOwner)
	// Somebody who may make roles and assign them, and little else.
	maker := w.newPerson(t, s, "reader")
	w.grant(t, s, org+"/users", maker.id, w.create(t, s, "/roles", map[string]any{"role_name": "maker",
		"permissions": []string{"api.roles.write", "api.groups.read", "api.groups.write", "api.usage.read", "api.organization.admin_api_keys.write"}}))
	invite, _ := w.invite(t, s, newEmail(), "owner")
	ownersKey := func() string {
		var o struct{ ID string }
		w.g.call(t, http.MethodPost, w.g.URL+org+"/admin_api_keys", owner.key, named(nil), &o)
		return o.ID
	}()

	before := w.holdings(t, s)
	above := func(what string, by *person, method, path string, body any) {
		t.Helper()
		refusedAs(t, what, w.ask(t, by.key, method, path, body), http.StatusForbidden, "above_own_permissions")
	}
	denied := func(what string, by *person, method, path string, body any) {
		t.Helper()
		refusedAs(t, what, w.ask(t, by.key, method, path, body), http.StatusForbidden, "permission_required")
	}
	role := func(id string) any { return map[string]any{"role_id": id} }

	denied("a member makes themselves owner", member, "POST", org+"/users/"+member.id, map[string]any{"role": "owner"})
	denied("a member takes a role", member, "POST", org+"/users/"+member.id+"/roles", role(tenant.RoleOwner))
	denied("a member invites an owner", member, "POST", org+"/invites", map[string]any{"email": newEmail(), "role": "owner"})
	denied("a member makes an admin key", member, "POST", org+"/admin_api_keys", named(nil))
	denied("a member joins the admins", member, "POST", org+"/groups/"+admins+"/users", map[string]any{"user_id": member.id})
	denied("a member joins a project", member, "POST", org+"/projects/"+project+"/users", map[string]any{"user_id": member.id, "role": "owner"})
	denied("a member makes a key of a project", member, "POST", org+"/projects/"+project+"/service_accounts", named(nil))

	above("a manager makes themselves owner", manager, "POST", org+"/users/"+manager.id, map[string]any{"role": "owner"})
	above("a manager makes themselves owner by the role's id", manager, "POST", org+"/users/"+manager.id, role(tenant.RoleOwner))
	above("a manager takes the owner's role", manager, "POST", org+"/users/"+manager.id+"/roles", role(tenant.RoleOwner))
	above("a manager takes a role with more", manager, "POST", org+"/users/"+manager.id+"/roles", role(strong))
	above("a manager invites an owner", manager, "POST", org+"/invites", map[string]any{"email": newEmail(), "role": "owner"})
	above("a manager invites the owner of a project", manager, "POST", org+"/invites",
		map[string]any{"email": newEmail(), "role": "reader", "projects": []map[string]string{{"id": project, "role": "owner"}}})
	above("a manager takes back the invite of an owner", manager, "DELETE", org+"/invites/"+invite, nil)
	above("a manager joins the admins", manager, "POST", org+"/groups/"+admins+"/users", map[string]any{"user_id": manager.id})
	above("a manager deletes the admins", manager, "DELETE", org+"/groups/"+admins, nil)
	above("a manager gives a group the owner's role", manager, "POST", org+"/groups/"+w.emptyGroup(t, s)+"/roles", role(tenant.RoleOwner))
	above("a manager brings the admins into a project as owners", manager, "POST", org+"/projects/"+project+"/groups",
		map[string]any{"group_id": admins, "role": tenant.RoleProjectOwner})
	above("a manager demotes an owner", manager, "POST", org+"/users/"+owner.id, map[string]any{"role": "reader"})
	above("a manager takes the owner's role away", manager, "DELETE", org+"/users/"+owner.id+"/roles/"+tenant.RoleOwner, nil)
	above("a manager removes an owner", manager, "DELETE", org+"/users/"+owner.id, nil)
	above("a manager becomes the owner of a project", manager, "POST", org+"/projects/"+project+"/users",
		map[string]any{"user_id": manager.id, "role": "owner"})
	denied("a manager makes a role", manager, "POST", org+"/roles", map[string]any{"role_name": "x", "permissions": []string{"api.usage.read"}})
	denied("a manager reads the audit log", manager, "GET", org+"/audit_logs", nil)
	denied("a manager makes an admin key", manager, "POST", org+"/admin_api_keys", named(nil))

	above("a maker of roles makes one with more", maker, "POST", org+"/roles", map[string]any{"role_name": "x", "permissions": []string{"api.audit_logs.read"}})
	above("a maker of roles strengthens one", maker, "POST", org+"/roles/"+weak, map[string]any{"permissions": []string{"api.usage.read", "api.audit_logs.read"}})
	above("a maker of roles weakens one with more", maker, "POST", org+"/roles/"+strong, map[string]any{"permissions": []string{"api.usage.read"}})
	above("a maker of roles deletes one with more", maker, "DELETE", org+"/roles/"+strong, nil)
	above("a maker of keys revokes the company's", maker, "DELETE", org+"/admin_api_keys/"+keyIDOf(s.AdminKey), nil)
	above("a maker of keys revokes an owner's", maker, "DELETE", org+"/admin_api_keys/"+ownersKey, nil)
	refusedAs(t, "a built-in role is changed", w.ask(t, owner.key, "POST", org+"/roles/"+tenant.RoleMember, map[string]any{"permissions": []string{"api.groups.write"}}),
		http.StatusBadRequest, "predefined_role")

	denied("the owner of a project takes a role of the company", lead, "POST", org+"/users/"+lead.id+"/roles", role(tenant.RoleManager))
	denied("the owner of a project invites", lead, "POST", org+"/invites", map[string]any{"email": newEmail(), "role": "reader"})
	denied("the owner of a project makes a role of the company", lead, "POST", org+"/roles", map[string]any{"role_name": "x", "permissions": []string{"api.usage.read"}})
	denied("the owner of a project looks at another", lead, "GET", org+"/projects/"+w.create(t, s, "/projects", named(nil)), nil)
	refusedAs(t, "a project's role with what is the company's", w.ask(t, lead.key, "POST", "/v1/projects/"+project+"/roles",
		map[string]any{"role_name": "x", "permissions": []string{"api.audit_logs.read"}}), http.StatusBadRequest, "")
	refusedAs(t, "the company's role in a project", w.ask(t, lead.key, "POST", "/v1/projects/"+project+"/users/"+lead.id+"/roles", role(tenant.RoleOwner)),
		http.StatusBadRequest, "")
	if after := w.holdings(t, s); after != before {
		t.Errorf("somebody holds something else than before:\n%s\n%s", before, after)
	}

	// A key that a person makes does what the person may, and no more.
	var own struct{ Value string }
	w.g.call(t, http.MethodPost, w.g.URL+org+"/admin_api_keys", maker.key, named(nil), &own)
	w.ask(t, own.Value, "GET", org+"/users", nil).want(t, "what its maker may", http.StatusOK)
	refusedAs(t, "a key reads the audit log, which its maker may not", w.ask(t, own.Value, "GET", org+"/audit_logs", nil), http.StatusForbidden, "permission_required")
	w.g.call(t, http.MethodDelete, w.g.URL+org+"/users/"+maker.id, owner.key, nil, nil)
	w.ask(t, own.Value, "GET", org+"/users", nil).want(t, "the key of a user who was removed", http.StatusUnauthorized)
	w.ask(t, maker.key, "GET", "/v1/sessions/current", nil).want(t, "the session of a user who was removed", http.StatusUnauthorized)

	// The last owner stays: by themselves, by another and by a key of the company.
	for _, by := range []string{owner.key, s.AdminKey} {
		refusedAs(t, "the last owner leaves", w.ask(t, by, "DELETE", org+"/users/"+owner.id, nil), http.StatusConflict, "last_owner")
		refusedAs(t, "the last owner is demoted", w.ask(t, by, "POST", org+"/users/"+owner.id, map[string]any{"role": "reader"}), http.StatusConflict, "last_owner")
		refusedAs(t, "the last owner's role is taken", w.ask(t, by, "DELETE", org+"/users/"+owner.id+"/roles/"+tenant.RoleOwner, nil), http.StatusConflict, "last_owner")
	}
}

func (w *world) emptyGroup(t *testing.T, s *side) string {
	t.Helper()
	if s.stable["empty group"] == "" {
		s.stable["empty group"] = w.newGroup(t, s)
	}
	return s.stable["empty group"]
}

// holdings is all that says who may do what.
func (w *world) holdings(t *testing.T, s *side) string {
	t.Helper()
	w.emptyGroup(t, s)
	var b strings.Builder
	see := func(path string) []string {
		a := ask(t, http.MethodGet, w.g.URL+path, s.AdminKey, nil).want(t, path, http.StatusOK)
		fmt.Fprintf(&b, "%s %s\n", path, a.body)
		var list struct{ Data []struct{ ID string } }
		if err := json.Unmarshal(a.body, &list); err != nil {
			t.Fatal(err)
		}
		var ids []string
		for _, o := range list.Data {
			ids = append(ids, o.ID)
		}
		return ids
	}
	for _, kind := range []string{"users", "groups"} {
		for _, id := range see("/v1/organization/" + kind) {
			see("/v1/organization/" + kind + "/" + id + "/roles")
			see("/v1/projects/" + s.ProjectID + "/" + kind + "/" + id + "/roles")
			if kind == "groups" {
				see("/v1/organization/groups/" + id + "/users")
			}
		}
	}
	for _, path := range []string{"/v1/organization/roles", "/v1/projects/" + s.ProjectID + "/roles", "/v1/organization/invites", "/v1/organization/admin_api_keys"} {
		see(path)
	}
	return b.String()
}

// TestSessions is the life of a session, and what is refused with one.
func TestSessions(t *testing.T) {
	w := newPeople(t)
	s := w.a
	p := w.newPerson(t, s, "owner")
	secret, csrf, _ := strings.Cut(strings.TrimPrefix(p.key, asPerson), ":")

	// Whatever is wrong at a login, the answer is the same.
	login := func(company, email, password string) answer {
		return w.ask(t, "", "POST", "/v1/sessions", map[string]any{"organization": company, "email": email, "password": password})
	}
	wrong := plain(login(s.ID, p.email, "not the password").want(t, "a wrong password", http.StatusUnauthorized), nil)
	for what, a := range map[string]answer{
		"an address of nobody":         login(s.ID, newEmail(), peoplePassword),
		"another company":              login(w.b.ID, p.email, peoplePassword),
		"a company of nobody":          login("org-zzzzzzzzzz", p.email, peoplePassword),
		"no id of a company":           login("' OR 1=1", p.email, peoplePassword),
		"a password that is too long":  login(s.ID, p.email, strings.Repeat("x", 100_000)),
		"the address with a separator": login(s.ID, p.email+"\x1f", peoplePassword),
	} {
		if got := plain(a, nil); got != wrong {
			t.Errorf("%s is told from a wrong password:\n%s\n%s", what, got, wrong)
		}
	}
	login(strings.TrimPrefix(s.ID, "org-"), strings.ToUpper(p.email), peoplePassword).want(t, "another spelling", http.StatusOK)

	// Without the token nothing is changed, and what looks is let through.
	for _, bad := range []string{"", csrf[1:], strings.Repeat("0", len(csrf)), secret} {
		a := w.ask(t, asPerson+secret+":"+bad, "POST", "/v1/organization/groups", named(nil))
		refusedAs(t, "a change with the token "+bad, a, http.StatusForbidden, "csrf_token_required")
		w.ask(t, asPerson+secret+":"+bad, "GET", "/v1/organization/groups", nil).want(t, "a look", http.StatusOK)
	}
	other := w.newPerson(t, s, "owner")
	_, othersCSRF, _ := strings.Cut(strings.TrimPrefix(other.key, asPerson), ":")
	refusedAs(t, "another session's token", w.ask(t, asPerson+secret+":"+othersCSRF, "DELETE", "/v1/organization/users/"+other.id, nil),
		http.StatusForbidden, "csrf_token_required")

	// The secret is for the cookie alone, and a key for the header alone.
	w.ask(t, secret, "GET", "/v1/organization/groups", nil).want(t, "the secret as a bearer", http.StatusUnauthorized)
	w.ask(t, asPerson+s.AdminKey+":", "GET", "/v1/organization/groups", nil).want(t, "a key in the cookie", http.StatusUnauthorized)
	w.ask(t, asPerson+forged(secret)+":"+csrf, "GET", "/v1/organization/groups", nil).want(t, "a forged secret", http.StatusUnauthorized)
	_, token := w.invite(t, s, newEmail(), "reader")
	w.ask(t, token, "GET", "/v1/organization/groups", nil).want(t, "an invite as a key", http.StatusUnauthorized)
	w.ask(t, asPerson+token+":", "GET", "/v1/organization/groups", nil).want(t, "an invite as a session", http.StatusUnauthorized)

	// Who is logged in, where.
	var now struct {
		User        struct{ ID, Role string }
		Permissions []string
	}
	w.g.read(t, p.key, "/v1/sessions/current", &now)
	if now.User.ID != p.id || now.User.Role != "owner" || len(now.Permissions) != len(tenant.AllPermissions.Names()) {
		t.Errorf("GET /v1/sessions/current says %+v", now)
	}
	again, id := w.login(t, s.ID, p.email)
	w.ask(t, p.key, "DELETE", "/v1/sessions/"+id, nil).want(t, "ending another session of one's own", http.StatusOK)
	w.ask(t, again, "GET", "/v1/sessions/current", nil).want(t, "an ended session", http.StatusUnauthorized)
	w.ask(t, other.key, "DELETE", "/v1/sessions/"+id, nil).want(t, "ending a stranger's session", http.StatusNotFound)

	// A new password ends the other sessions, and the old one is over.
	again, _ = w.login(t, s.ID, p.email)
	change := func(key, current, next string) answer {
		return w.ask(t, key, "POST", "/v1/sessions/current/password", map[string]any{"current_password": current, "new_password": next})
	}
	refusedAs(t, "a wrong current password", change(p.key, "not the password", "another good password"), http.StatusForbidden, "login_failed")
	refusedAs(t, "a short password", change(p.key, peoplePassword, "short"), http.StatusBadRequest, "")
	change(p.key, peoplePassword, "another good password").want(t, "a new password", http.StatusOK)
	w.ask(t, again, "GET", "/v1/sessions/current", nil).want(t, "the other session", http.StatusUnauthorized)
	w.ask(t, p.key, "GET", "/v1/sessions/current", nil).want(t, "this session", http.StatusOK)
	login(s.ID, p.email, peoplePassword).want(t, "the old password", http.StatusUnauthorized)
	login(s.ID, p.email, "another good password").want(t, "the new password", http.StatusOK)
	w.ask(t, p.key, "DELETE", "/v1/sessions/current", nil).want(t, "logging out", http.StatusOK)
	w.ask(t, p.key, "GET", "/v1/sessions/current", nil).want(t, "after logging out", http.StatusUnauthorized)

	// Guesses are slowed down, whoever's account it is; others go on.
	for _, victim := range []string{other.email, newEmail()} {
		var a answer
		for range 11 {
			a = login(s.ID, victim, "a guess at a password")
		}
		refusedAs(t, "many guesses", a, http.StatusTooManyRequests, "too_many_logins")
		if a.header.Get("Retry-After") == "" || a.header.Get("X-Should-Retry") != "false" {
			t.Errorf("the answer says not when to come again: %v", a.header)
		}
	}
	login(s.ID, p.email, "another good password").want(t, "somebody else meanwhile", http.StatusOK)
	w.ask(t, other.key, "GET", "/v1/sessions/current", nil).want(t, "the victim's session", http.StatusOK)
}

// read asks with GET and reads the answer.
func (g *gateway) read(t *testing.T, key, path string, out any) {
	t.Helper()
	a := ask(t, http.MethodGet, g.URL+path, key, nil).want(t, path, http.StatusOK)
	if err := json.Unmarshal(a.body, out); err != nil {
		t.Fatal(err)
	}
}

// TestFirstOwner takes a company from its creation to its first person.
func TestFirstOwner(t *testing.T) {
	g := startGateway(t, "")
	w := &world{g: g, t: t}
	var c struct {
		ID    string
		Owner struct{ Email, Token string }
	}
	out := g.ok(t, []string{"BULKHEAD_ADMIN_URL=" + g.OpsURL, "BULKHEAD_OPERATOR_KEY=" + g.Operator}, "", "company", "create", "-owner", "First@Example.com", "Acme", "-json")
	if err := json.Unmarshal([]byte(out), &c); err != nil || c.Owner.Email != "first@example.com" {
		t.Fatalf("%v in %s", err, out)
	}
	w.ask(t, "", "POST", "/v1/organization/invites/accept", acceptBody(c.Owner.Token)).want(t, "accepting", http.StatusOK)
	refusedAs(t, "accepting twice", w.ask(t, "", "POST", "/v1/organization/invites/accept", acceptBody(c.Owner.Token)), http.StatusNotFound, "invite_not_found")
	key, _ := w.login(t, c.ID, c.Owner.Email)
	w.ask(t, key, "POST", "/v1/organization/invites", map[string]any{"email": newEmail(), "role": "owner"}).want(t, "an owner invites another", http.StatusOK)
	g.fails(t, []string{"BULKHEAD_ADMIN_URL=" + g.OpsURL, "BULKHEAD_OPERATOR_KEY=" + g.Operator}, "", "owner must be an email address", "company", "create", "-owner", "nobody", "Acme")
}

// TestPeopleAreAudited looks at the rows that people leave, and at whose they are.
func TestPeopleAreAudited(t *testing.T) {
	w := newPeople(t)
	s := w.a
	p := w.newPerson(t, s, "owner")
	w.ask(t, p.key, "POST", "/v1/organization/groups", named(nil)).want(t, "a group", http.StatusOK)
	w.ask(t, p.key, "POST", "/v1/sessions/current/password", bodies["/v1/sessions/current/password"](s)).want(t, "a password", http.StatusOK)
	w.ask(t, p.key, "DELETE", "/v1/sessions/current", nil).want(t, "logging out", http.StatusOK)
	want := []string{"logout.succeeded", "user.password.changed", "group.created", "login.succeeded", "role.assignment.created", "user.added", "invite.accepted", "invite.sent"}
	rows := w.auditRows(t, s, "")
	for i, typ := range want {
		row := rows[i]
		by := `"user":{"email":"` + p.email + `","id":"` + p.id + `"}`
		switch typ {
		case "role.assignment.created", "user.added", "invite.accepted":
			by = `"invite":{"id":"invite-`
		case "invite.sent":
			by = keyIDOf(s.AdminKey)
		}
		if row.Type != typ || !strings.Contains(string(row.raw), by) {
			t.Errorf("row %d: want %s by %s: %s", i, typ, by, row.raw)
		}
	}
	// They are found by whose they are.
	found := w.auditRows(t, s, "&actor_emails[]="+p.email)
	if len(found) != 4 {
		t.Errorf("%d rows of %s, want 4", len(found), p.email)
	}
	if none := w.auditRows(t, s, "&actor_emails[]="+newEmail()); len(none) != 0 {
		t.Errorf("%d rows of nobody", len(none))
	}
}

// TestCheckAccess asks what people may do.
func TestCheckAccess(t *testing.T) {
	w := newPeople(t)
	a, b := w.a, w.b
	manager, lead, stranger := w.newPerson(t, a, "manager"), w.newPerson(t, a, "reader"), w.newPerson(t, b, "owner")
	w.grant(t, a, "/v1/projects/"+a.ProjectID+"/users", lead.id, tenant.RoleProjectOwner)
	check := func(user, resource, permission string) string {
		t.Helper()
		got := w.ask(t, a.AdminKey, "POST", "/v1/organization/access/check", map[string]any{"user": user, "resource": resource, "permission": permission}).want(t, "a check", http.StatusOK)
		var o struct {
			Allowed bool
			Reason  string
			Role    *string
		}
		if err := json.Unmarshal(got.body, &o); err != nil {
			t.Fatal(err)
		}
		role := "none"
		if o.Role != nil {
			role = *o.Role
		}
		return fmt.Sprint(o.Allowed, " ", o.Reason, " ", role)
	}
	f := func(user, resource, permission, want string) {
		t.Helper()
		if got := check(user, resource, permission); got != want {
			t.Errorf("%s at %s: %s, want %s", permission, resource, got, want)
		}
	}
	f(manager.id, a.ID, "api.groups.write", "true organization_role manager")
	f(manager.email, a.ProjectID, "api.organization.projects.write", "true organization_role manager")
	f(manager.id, a.ID, "api.audit_logs.read", "false no_permission manager")
	f(lead.id, a.ProjectID, "api.organization.projects.write", "true project_role owner")
	f(lead.id, a.ID, "api.organization.projects.write", "false no_permission member")
	// Foreign and unknown are one answer.
	for _, user := range []string{stranger.id, stranger.email, "user_nobody", newEmail()} {
		f(user, a.ID, "api.groups.read", "false not_found none")
	}
	for _, resource := range []string{b.ID, b.ProjectID, "proj_nobody", "org-zzzzzzzzzz"} {
		f(manager.id, resource, "api.groups.read", "false not_found none")
	}
	if got := w.ask(t, a.AdminKey, "POST", "/v1/organization/access/check", map[string]any{"user": manager.id, "resource": a.ID, "permission": "api.everything"}); got.status != http.StatusBadRequest {
		t.Errorf("an unknown permission: status %d", got.status)
	}
}
