package tenant_test

import (
	"math/bits"
	"slices"
	"testing"

	"bulkhead/tenant"
	"bulkhead/tenant/tenanttest"
)

func TestPermissionNames(t *testing.T) {
	names := tenant.AllPermissions.Names()
	if n := bits.OnesCount32(uint32(tenant.AllPermissions)); len(names) != n || !tenant.AllPermissions.Allows(tenant.RolesWrite) {
		t.Fatalf("%d names for %d permissions", len(names), n)
	}
	for i, name := range names {
		one, ok := tenant.PermissionOf(name)
		if !ok || one != 1<<i || one.String() != name {
			t.Errorf("%q is read as %d (%v)", name, one, ok)
		}
	}
	if slices.Compact(slices.Sorted(slices.Values(names)))[0] == "" || len(slices.Compact(slices.Sorted(slices.Values(names)))) != len(names) {
		t.Error("two permissions have one name")
	}
	if p, unknown := tenant.PermissionsOf([]string{"api.groups.read", "api.groups.write"}); p != tenant.GroupsRead|tenant.GroupsWrite || unknown != "" {
		t.Errorf("got %s, unknown %q", p, unknown)
	}
	if p, unknown := tenant.PermissionsOf([]string{"api.groups.read", "api.everything"}); p != 0 || unknown != "api.everything" {
		t.Errorf("got %s, unknown %q", p, unknown)
	}
}

// TestBuiltInRoles holds the built-in roles against the order that the words
// promise: an owner has all, a manager less, a member less than that.
func TestBuiltInRoles(t *testing.T) {
	for _, inProject := range []bool{false, true} {
		roles := tenant.BuiltInRoles(inProject)
		if len(roles) != 3 || roles[0].Permissions != roles[0].Most() {
			t.Fatalf("in a project %v: the owner has not all, or there are %d roles", inProject, len(roles))
		}
		for i, r := range roles {
			if found, ok := tenant.BuiltInRole(r.ID); !ok || found != r || !r.BuiltIn {
				t.Errorf("%s is not found by its id", r.ID)
			}
			if found, ok := tenant.BuiltInRoleNamed(r.Name, inProject); !ok || found != r {
				t.Errorf("%s is not found by its name", r.ID)
			}
			if !r.Permissions.Within(r.Most()) {
				t.Errorf("%s has more than a role of its level can", r.ID)
			}
			if i > 0 && (!r.Permissions.Within(roles[i-1].Permissions) || roles[i-1].Permissions.Within(r.Permissions)) {
				t.Errorf("%s has not less than %s", r.ID, roles[i-1].ID)
			}
		}
	}
	if r, ok := tenant.BuiltInRoleNamed("reader", false); !ok || r.ID != tenant.RoleMember {
		t.Errorf("OpenAI's reader is %q", r.ID)
	}
	if _, ok := tenant.BuiltInRoleNamed("reader", true); ok {
		t.Error("a project has readers")
	}
}

func TestGrantsWithin(t *testing.T) {
	one := func(project string, p tenant.Permissions) (g tenant.Grants) { g.Add(project, p); return g }
	f := func(g, most tenant.Grants, want bool) {
		t.Helper()
		if got := g.Within(most); got != want {
			t.Errorf("%v within %v: %v, want %v", g, most, got, want)
		}
	}
	f(tenant.Grants{}, tenant.Grants{}, true)
	// What is held in the company is held in every project, and not the reverse.
	f(one("p", tenant.KeysWrite), one("", tenant.KeysWrite), true)
	f(one("", tenant.KeysWrite), one("p", tenant.KeysWrite), false)
	f(one("p", tenant.KeysWrite), one("q", tenant.KeysWrite), false)
	// A part is within the whole.
	f(one("p", tenant.KeysRead), one("p", tenant.KeysRead|tenant.KeysWrite), true)
	f(one("p", tenant.KeysRead|tenant.KeysWrite), one("p", tenant.KeysRead), false)
	// What only the company can give is not held in a project, even if it is written there.
	f(one("p", tenant.AdminKeysWrite), tenant.Grants{}, true)
	if one("p", tenant.AllPermissions).Allows("p", tenant.AuditRead) {
		t.Error("a project's role allows what is the company's")
	}
}

// TestKeyGrants says what keys may do by their kind.
func TestKeyGrants(t *testing.T) {
	w := tenanttest.New(t, tenant.Options{})
	for _, kind := range []tenant.KeyKind{tenant.KeyLive, tenant.KeyTest} {
		_, s := w.Company("acme", kind, nil)
		if s.Grants().Company != 0 || s.Grants().In(s.ProjectID()) != tenant.ModelRequest || s.Grants().In("proj_other") != 0 {
			t.Errorf("a %s key may do %v", kind, s.Grants())
		}
	}
	_, s := w.Company("acme", tenant.KeyAdmin, nil)
	if !s.Allows("", tenant.AllPermissions) || !s.Allows("proj_any", tenant.InProject) {
		t.Errorf("an admin key may do %v", s.Grants())
	}
	act, err := w.Gateway().Begin(t.Context(), "test", s.ID().String())
	if err != nil {
		t.Fatal(err)
	}
	background, err := w.Scope(t.Context(), act, s.ID().String())
	if err != nil || background.Allows("", tenant.ModelRequest) {
		t.Errorf("background work holds permissions (%v)", err)
	}
}
