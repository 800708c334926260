package test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"bulkhead/tenant"
)

const peoplePassword = "a password for the tests"

// person is a user with a session. key is what ask sends for them.
type person struct {
	id, email, key string
	grants         tenant.Grants
}

// asPerson begins what ask sends as a session instead of as a key.
const asPerson = "session:"

// asSession puts a session into a request: the cookie, and the token that must
// go with it where something changes.
func asSession(h http.Header, key string) bool {
	secret, ok := strings.CutPrefix(key, asPerson)
	if !ok {
		return false
	}
	secret, csrf, _ := strings.Cut(secret, ":")
	h.Set("Cookie", "__Host-bulkhead="+secret)
	h.Set("X-CSRF-Token", csrf)
	return true
}

var someone atomic.Int64 // makes addresses that nobody has

func newEmail() string { return fmt.Sprintf("someone-%d@example.com", someone.Add(1)) }

// invite makes an invite as the admin of s and returns its id and token.
func (w *world) invite(t *testing.T, s *side, email, role string, projects ...map[string]string) (id, token string) {
	t.Helper()
	var o struct{ ID, Token string }
	w.g.call(t, http.MethodPost, w.g.URL+"/v1/organization/invites", s.AdminKey,
		map[string]any{"email": email, "role": role, "projects": projects}, &o)
	return o.ID, o.Token
}

func acceptBody(token string) map[string]any {
	return map[string]any{"token": token, "name": "Same person", "password": peoplePassword}
}

// newUser makes a user who has not logged in.
func (w *world) newUser(t *testing.T, s *side, email, role string) (id string) {
	t.Helper()
	_, token := w.invite(t, s, email, role)
	var o struct{ ID string }
	w.g.call(t, http.MethodPost, w.g.URL+"/v1/organization/invites/accept", "", acceptBody(token), &o)
	return o.ID
}

func loginBody(company, email string) map[string]any {
	return map[string]any{"organization": company, "email": email, "password": peoplePassword}
}

// login returns what ask sends for the user, and the id of the session.
func (w *world) login(t *testing.T, company, email string) (key, session string) {
	t.Helper()
	a := ask(t, http.MethodPost, w.g.URL+"/v1/sessions", "", loginBody(company, email)).want(t, "a login", http.StatusOK)
	var o struct {
		CSRF    string `json:"csrf_token"`
		Session string `json:"session_id"`
	}
	if err := json.Unmarshal(a.body, &o); err != nil {
		t.Fatal(err)
	}
	for _, c := range (&http.Response{Header: a.header}).Cookies() {
		if c.Name == "__Host-bulkhead" && c.Secure && c.HttpOnly && c.Path == "/" && c.SameSite == http.SameSiteLaxMode && c.Domain == "" {
			return asPerson + c.Value + ":" + o.CSRF, o.Session
		}
	}
	t.Fatalf("no cookie as it should be: %v", a.header["Set-Cookie"])
	return "", ""
}

// newPerson makes a user with a role in the company, and logs in.
func (w *world) newPerson(t *testing.T, s *side, role string) *person {
	t.Helper()
	p := &person{email: newEmail()}
	p.id = w.newUser(t, s, p.email, role)
	p.key, _ = w.login(t, s.ID, p.email)
	o, _ := tenant.BuiltInRoleNamed(role, false)
	p.grants.Add("", o.Permissions)
	return p
}

// grant gives a role in a place, as the admin.
func (w *world) grant(t *testing.T, s *side, place, principal, role string) {
	t.Helper()
	w.g.call(t, http.MethodPost, w.g.URL+place+"/"+principal+"/roles", s.AdminKey, map[string]any{"role_id": role}, nil)
}

// peopleOf makes people of every kind that the table of routes tells apart.
func (w *world) peopleOf(t *testing.T, s *side) map[string]*person {
	t.Helper()
	all := map[string]*person{"an owner": w.newPerson(t, s, "owner"), "a manager": w.newPerson(t, s, "manager"), "a member": w.newPerson(t, s, "reader")}
	org, in := "/v1/organization/users", "/v1/projects/"+s.projects[0]+"/users"

	auditor := w.newPerson(t, s, "reader")
	p := tenant.ProjectsRead | tenant.KeysRead | tenant.UsageRead | tenant.AuditRead | tenant.GroupsRead
	role := w.create(t, s, "/roles", map[string]any{"role_name": "auditor", "permissions": p.Names()})
	w.grant(t, s, org, auditor.id, role)
	auditor.grants.Add("", p)
	all["an auditor (custom role)"] = auditor

	for _, o := range tenant.BuiltInRoles(true) {
		one := w.newPerson(t, s, "reader")
		w.grant(t, s, in, one.id, o.ID)
		one.grants.Add(s.projects[0], o.Permissions)
		all["a project's "+o.Name] = one
	}

	grouped := w.newPerson(t, s, "reader")
	group := w.create(t, s, "/groups", map[string]any{"name": "Same group"})
	w.g.call(t, http.MethodPost, w.g.URL+"/v1/organization/groups/"+group+"/users", s.AdminKey, map[string]any{"user_id": grouped.id}, nil)
	w.grant(t, s, "/v1/projects/"+s.projects[0]+"/groups", group, tenant.RoleProjectMember)
	o, _ := tenant.BuiltInRole(tenant.RoleProjectMember)
	grouped.grants.Add(s.projects[0], o.Permissions)
	all["a project's member by a group"] = grouped
	return all
}

func (w *world) newRole(t *testing.T, s *side, place string) string {
	t.Helper()
	var o struct{ ID string }
	w.g.call(t, http.MethodPost, w.g.URL+place+"/roles", s.AdminKey,
		map[string]any{"role_name": "role " + newEmail(), "permissions": []string{"api.usage.read"}}, &o)
	return o.ID
}

func (w *world) newGroup(t *testing.T, s *side) string {
	t.Helper()
	return w.create(t, s, "/groups", map[string]any{"name": "Same group"})
}

// peopleObjects holds how the objects of people are made. Those that belong to
// the user or group before them in the path take it from w.path, where the last
// value of the path so far is; see objects.
var peopleObjects = map[string]object{
	"user": {false, func(t *testing.T, w *world, s *side, _ string) string { return w.newUser(t, s, newEmail(), "reader") }},
	"invite": {false, func(t *testing.T, w *world, s *side, _ string) string {
		id, _ := w.invite(t, s, newEmail(), "reader")
		return id
	}},
	"group": {false, func(t *testing.T, w *world, s *side, _ string) string { return w.newGroup(t, s) }},
	"role":  {false, func(t *testing.T, w *world, s *side, _ string) string { return w.newRole(t, s, "/v1/organization") }},
	"project role": {true, func(t *testing.T, w *world, s *side, project string) string {
		return w.newRole(t, s, "/v1/projects/"+project)
	}},
	"project user": {true, func(t *testing.T, w *world, s *side, project string) string {
		id := w.newUser(t, s, newEmail(), "reader")
		w.grant(t, s, "/v1/projects/"+project+"/users", id, tenant.RoleProjectMember)
		return id
	}},
	"project group": {true, func(t *testing.T, w *world, s *side, project string) string {
		id := w.newGroup(t, s)
		w.grant(t, s, "/v1/projects/"+project+"/groups", id, tenant.RoleProjectMember)
		return id
	}},
	"session": {false, func(t *testing.T, w *world, s *side, _ string) string {
		email := s.door
		if w.asking != nil {
			email = w.asking.email
		}
		_, id := w.login(t, s.ID, email)
		return id
	}},
}

// dependentObjects are those of a user or group that stands before them.
var dependentObjects = map[string]object{
	"group user": {false, func(t *testing.T, w *world, s *side, _ string) string {
		id := w.newUser(t, s, newEmail(), "reader")
		w.g.call(t, http.MethodPost, w.g.URL+"/v1/organization/groups/"+w.last()+"/users", s.AdminKey, map[string]any{"user_id": id}, nil)
		return id
	}},
	"user role":          {false, granted("users", false)},
	"group role":         {false, granted("groups", false)},
	"project user role":  {true, granted("users", true)},
	"project group role": {true, granted("groups", true)},
}

// before says of which kind the object before a dependent one is.
var before = map[string]string{"group user": "group", "user role": "user", "group role": "group", "project user role": "user", "project group role": "group"}

// granted makes a role and gives it to the user or group that stands before.
func granted(to string, inProject bool) func(t *testing.T, w *world, s *side, project string) string {
	return func(t *testing.T, w *world, s *side, project string) string {
		place := "/v1/organization"
		if inProject {
			place = "/v1/projects/" + project
		}
		role := w.newRole(t, s, place)
		w.grant(t, s, place+"/"+to, w.last(), role)
		return role
	}
}

// last is the last value of the path so far.
func (w *world) last() string { return w.path[len(w.path)-1] }

// stablePeople makes the people that no test changes.
func (w *world) stablePeople(t *testing.T, s *side) {
	t.Helper()
	s.w, s.door = w, newEmail()
	w.newUser(t, s, s.door, "reader")
	for _, project := range s.projects {
		for name, o := range peopleObjects {
			s.stable[name+project] = o.make(t, w, s, project)
		}
	}
	for _, project := range s.projects {
		for name, o := range dependentObjects {
			w.path = []string{s.stable[before[name]+s.projects[0]]}
			s.stable[name+project] = o.make(t, w, s, project)
		}
	}
	w.path = nil
}

// fresh returns a user, or what else bodies need once, that the last request did
// not use up.
func (s *side) fresh(kind string) string {
	if s.unused == nil {
		s.unused = map[string]string{}
	}
	if s.unused[kind] == "" {
		switch kind {
		case "invite token":
			_, s.unused[kind] = s.w.invite(s.w.t, s, newEmail(), "reader")
		default:
			s.unused[kind] = objects[kind].make(s.w.t, s.w, s, s.projects[0])
		}
	}
	return s.unused[kind]
}

// kindOfPerson is kindOfObject for the paths of people; "" for others.
func kindOfPerson(pattern, param string) string {
	in := strings.HasPrefix(pattern, "/v1/projects/")
	switch {
	case param == "role" && strings.Contains(pattern, "/users/{user}/roles/"):
		param = "user role"
	case param == "role" && strings.Contains(pattern, "/groups/{group}/roles/"):
		param = "group role"
	case param == "user" && strings.Contains(pattern, "/groups/{group}/users/"):
		return "group user"
	case (param == "user" || param == "group") && strings.HasPrefix(pattern, "/v1/organization/projects/"):
		return "project " + param
	case param == "role":
	default:
		return ""
	}
	if in {
		return "project " + param
	}
	return param
}

func init() {
	for _, more := range []map[string]object{peopleObjects, dependentObjects} {
		for name, o := range more {
			objects[name] = o
		}
	}
	assign := func(*side) any { return map[string]any{"role_id": tenant.RoleManager} }
	assignIn := func(*side) any { return map[string]any{"role_id": tenant.RoleProjectManager} }
	role := func(*side) any {
		return map[string]any{"role_name": "role " + newEmail(), "permissions": []string{"api.usage.read"}}
	}
	describe := func(*side) any { return map[string]any{"description": "Same description"} }
	for pattern, body := range map[string]func(*side) any{
		"/v1/organization/users/{user}":   func(*side) any { return map[string]any{"role": "manager"} },
		"/v1/organization/invites":        func(*side) any { return map[string]any{"email": newEmail(), "role": "reader"} },
		"/v1/organization/invites/accept": func(s *side) any { return acceptBody(s.fresh("invite token")) },
		"/v1/organization/groups":         named,
		"/v1/organization/groups/{group}": named,
		"/v1/organization/groups/{group}/users": func(s *side) any {
			return map[string]any{"user_id": s.stable["user"+s.projects[1]]}
		},
		"/v1/organization/groups/{group}/roles":            assign,
		"/v1/organization/users/{user}/roles":              assign,
		"/v1/projects/{project}/groups/{group}/roles":      assignIn,
		"/v1/projects/{project}/users/{user}/roles":        assignIn,
		"/v1/organization/roles":                           role,
		"/v1/projects/{project}/roles":                     role,
		"/v1/organization/roles/{role}":                    describe,
		"/v1/projects/{project}/roles/{role}":              describe,
		"/v1/organization/projects/{project}/users":        func(s *side) any { return map[string]any{"user_id": s.fresh("user"), "role": "member"} },
		"/v1/organization/projects/{project}/users/{user}": func(*side) any { return map[string]any{"role": "manager"} },
		"/v1/organization/projects/{project}/groups": func(s *side) any {
			return map[string]any{"group_id": s.fresh("group"), "role": tenant.RoleProjectMember}
		},
		"/v1/organization/access/check": func(s *side) any {
			return map[string]any{"user": s.stable["user"+s.projects[0]], "resource": s.ID, "permission": "api.model.request"}
		},
		"/v1/sessions": func(s *side) any { return loginBody(s.ID, s.door) },
		"/v1/sessions/current/password": func(*side) any {
			return map[string]any{"current_password": peoplePassword, "new_password": peoplePassword}
		},
	} {
		bodies[pattern] = body
	}
	for name, what := range map[string]string{
		"POST /v1/organization/users/{user}":                        "role.assignment.deleted role.assignment.created user.updated",
		"DELETE /v1/organization/users/{user}":                      "user.deleted",
		"POST /v1/organization/invites":                             "invite.sent",
		"POST /v1/organization/invites/accept":                      "invite.accepted user.added role.assignment.created",
		"DELETE /v1/organization/invites/{invite}":                  "invite.deleted",
		"POST /v1/organization/groups":                              "group.created",
		"POST /v1/organization/groups/{group}":                      "group.updated",
		"DELETE /v1/organization/groups/{group}":                    "group.deleted",
		"POST /v1/organization/groups/{group}/users":                "group.updated",
		"DELETE /v1/organization/groups/{group}/users/{user}":       "group.updated",
		"POST /v1/organization/roles":                               "role.created",
		"POST /v1/organization/roles/{role}":                        "role.updated",
		"DELETE /v1/organization/roles/{role}":                      "role.deleted",
		"POST /v1/projects/{project}/roles":                         "role.created",
		"POST /v1/projects/{project}/roles/{role}":                  "role.updated",
		"DELETE /v1/projects/{project}/roles/{role}":                "role.deleted",
		"POST /v1/organization/projects/{project}/users":            "role.assignment.created",
		"POST /v1/organization/projects/{project}/users/{user}":     "role.assignment.deleted role.assignment.created",
		"DELETE /v1/organization/projects/{project}/users/{user}":   "role.assignment.deleted",
		"POST /v1/organization/projects/{project}/groups":           "role.assignment.created",
		"DELETE /v1/organization/projects/{project}/groups/{group}": "role.assignment.deleted",
		"POST /v1/organization/access/check":                        "", // it only looks
		"POST /v1/sessions":                                         "login.succeeded",
		"DELETE /v1/sessions/{session}":                             "logout.succeeded",
		"POST /v1/sessions/current/password":                        "user.password.changed",
	} {
		leaves[name] = what
	}
	for _, place := range []string{"/v1/organization/", "/v1/projects/{project}/"} {
		for _, to := range []string{"users/{user}", "groups/{group}"} {
			leaves["POST "+place+to+"/roles"], leaves["DELETE "+place+to+"/roles/{role}"] = "role.assignment.created", "role.assignment.deleted"
		}
	}
}
