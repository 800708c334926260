package test

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// TestKeyScopes: a key does what its scopes name, makes and gets hold of nothing
// that may do more, and what it may is in the audit log.
func TestKeyScopes(t *testing.T) {
	g := startGateway(t, "")
	c := g.newCompany(t, "Scopes")
	org := g.URL + "/v1/organization"
	admin := func(key string, scopes ...string) (id, value string, status int) {
		t.Helper()
		body := map[string]any{"name": "narrow"}
		if len(scopes) > 0 {
			body["scopes"] = scopes
		}
		a := ask(t, http.MethodPost, org+"/admin_api_keys", key, body)
		var o struct {
			ID, Value string
			Scopes    []string
		}
		_ = json.Unmarshal(a.body, &o)
		if a.status == http.StatusOK && len(scopes) > 0 && !slices.Equal(o.Scopes, scopes) {
			t.Errorf("made with %v, has %v", scopes, o.Scopes)
		}
		if a.status == http.StatusForbidden && !strings.Contains(string(a.body), "above_own_permissions") {
			t.Errorf("%s", a.body)
		}
		return o.ID, o.Value, a.status
	}
	want := func(what string, got, want int) {
		t.Helper()
		if got != want {
			t.Errorf("%s: %d, want %d", what, got, want)
		}
	}
	const keys, usage, groups, model, roles = "api.organization.admin_api_keys.write", "api.usage.read", "api.groups.write", "api.model.request", "api.roles.write"
	whole, _, status := admin(c.AdminKey)
	want("a whole key", status, http.StatusOK)
	id, narrow, status := admin(c.AdminKey, keys, usage)
	want("a narrow key", status, http.StatusOK)
	do := func(what, method, path, key string, body any, status int) answer {
		t.Helper()
		a := ask(t, method, org+path, key, body)
		want(what, a.status, status)
		return a
	}
	do("usage", http.MethodGet, "/usage/completions"+usageSpan, narrow, nil, http.StatusOK)
	do("projects", http.MethodGet, "/projects", narrow, nil, http.StatusForbidden)
	do("audit", http.MethodGet, "/audit_logs", narrow, nil, http.StatusForbidden)

	// It makes what is not above it, and gets hold of nothing that is.
	_, _, status = admin(narrow)
	want("a whole key by a narrow one", status, http.StatusForbidden)
	_, _, status = admin(narrow, keys, groups)
	want("a key that may do something else", status, http.StatusForbidden)
	below, lesser, status := admin(narrow, usage)
	want("a key below", status, http.StatusOK)
	do("a new value of a whole key", http.MethodPost, "/admin_api_keys/"+whole+"/rotate", narrow, map[string]any{}, http.StatusForbidden)
	do("the end of a whole key", http.MethodDelete, "/admin_api_keys/"+whole, narrow, nil, http.StatusForbidden)
	do("a new value of the key below", http.MethodPost, "/admin_api_keys/"+below+"/rotate", narrow, map[string]any{}, http.StatusOK)
	do("a new value of its own", http.MethodPost, "/admin_api_keys/"+id+"/rotate", narrow, map[string]any{}, http.StatusOK)
	do("keys by the key below", http.MethodGet, "/admin_api_keys", lesser, nil, http.StatusForbidden)
	do("usage by the key below", http.MethodGet, "/usage/completions"+usageSpan, lesser, nil, http.StatusOK)

	// Nor by people: who may invite and make roles gives nothing that the key has not.
	_, inviter, _ := admin(c.AdminKey, groups, roles)
	do("an owner invited", http.MethodPost, "/invites", inviter, map[string]any{"email": "eve@example.com", "role": "owner"}, http.StatusForbidden)
	do("a role that may more", http.MethodPost, "/roles", inviter, map[string]any{"role_name": "more", "permissions": []string{usage}}, http.StatusForbidden)
	do("a role that may as much", http.MethodPost, "/roles", inviter, map[string]any{"role_name": "as much", "permissions": []string{groups}}, http.StatusOK)

	// What is no scope is said so.
	for _, scopes := range [][]string{{"api.nothing"}, {}, {"api.files.read"}} {
		a := do("no scope", http.MethodPost, "/admin_api_keys", c.AdminKey, map[string]any{"name": "x", "scopes": scopes}, http.StatusBadRequest)
		if !strings.Contains(string(a.body), `"param":"scopes"`) {
			t.Errorf("%s", a.body)
		}
	}

	// A project's key.
	var made struct {
		Key struct {
			ID, Value string
			Scopes    []string
		} `json:"api_key"`
	}
	at := "/projects/" + c.ProjectID
	g.call(t, http.MethodPost, org+at+"/service_accounts", c.AdminKey, map[string]any{"name": "reader", "kind": "test", "scopes": []string{"api.model.read"}}, &made)
	chat := func(status int) {
		t.Helper()
		want("a chat", g.chat(t, made.Key.Value, "gpt-4o").status, status)
	}
	chat(http.StatusForbidden)
	want("models", ask(t, http.MethodGet, g.URL+"/v1/models", made.Key.Value, nil).status, http.StatusOK)
	// Who may not make keys that call models does not widen one.
	_, changer, _ := admin(c.AdminKey, "api.organization.projects.api_keys.read", "api.organization.projects.api_keys.write")
	path := at + "/api_keys/" + made.Key.ID
	do("wider by who may not", http.MethodPost, path, changer, map[string]any{"scopes": []string{model, "api.model.read"}}, http.StatusForbidden)
	do("everything by who may not", http.MethodPost, path, changer, map[string]any{"scopes": []string{"api.all"}}, http.StatusForbidden)
	do("the same by who may not", http.MethodPost, path, changer, map[string]any{"scopes": []string{"api.model.read"}}, http.StatusOK)
	do("another name keeps them", http.MethodPost, path, changer, map[string]any{"name": "renamed"}, http.StatusOK)
	chat(http.StatusForbidden)
	do("wider", http.MethodPost, path, c.AdminKey, map[string]any{"scopes": []string{model}}, http.StatusOK)
	chat(http.StatusOK)
	want("models", ask(t, http.MethodGet, g.URL+"/v1/models", made.Key.Value, nil).status, http.StatusForbidden)
	do("everything", http.MethodPost, path, c.AdminKey, map[string]any{"scopes": []string{"api.all"}}, http.StatusOK)
	want("models", ask(t, http.MethodGet, g.URL+"/v1/models", made.Key.Value, nil).status, http.StatusOK)

	a := do("audit", http.MethodGet, "/audit_logs?limit=100", c.AdminKey, nil, http.StatusOK)
	for _, row := range []string{`"scopes":["` + keys + `","` + usage + `"]`, `"scopes":["api.model.read"]`, `"scopes":["api.model.request"]`} {
		if !strings.Contains(string(a.body), row) {
			t.Errorf("the audit log has no %s", row)
		}
	}
}
