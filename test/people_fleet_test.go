package test

import (
	"net/http"
	"testing"

	"bulkhead/tenant"
)

// TestPeopleEverywhere removes, demotes and logs out people at one gateway, while
// another has their sessions in memory: it refuses them within seconds.
func TestPeopleEverywhere(t *testing.T) {
	f := newFleet(t, nil, fleetOptions{})
	first, second := f.all[0], f.all[1]
	w := &world{g: first, t: t}
	s := &side{company: f.members[0].company, stable: map[string]string{}, w: w}
	s.projects[0] = s.ProjectID
	owner, gone, demoted, out := w.newPerson(t, s, "owner"), w.newPerson(t, s, "manager"), w.newPerson(t, s, "manager"), w.newPerson(t, s, "manager")

	there := func(p *person, path string) int {
		t.Helper()
		return ask(t, http.MethodGet, second.URL+path, p.key, nil).status
	}
	const users = "/v1/organization/users"
	for _, p := range []*person{owner, gone, demoted, out} {
		if got := there(p, users); got != http.StatusOK {
			t.Fatalf("a session is answered %d at a gateway that did not make it", got)
		}
	}
	change := func(p *person, method, path string, body any) {
		t.Helper()
		ask(t, method, first.URL+path, p.key, body).want(t, path, http.StatusOK)
	}
	change(owner, http.MethodDelete, users+"/"+gone.id, nil)
	change(owner, http.MethodPost, users+"/"+demoted.id, map[string]any{"role_id": tenant.RoleMember})
	change(out, http.MethodDelete, "/v1/sessions/current", nil)
	eventually(t, everywhere, "the other gateway knows", func() bool {
		return there(gone, users) == http.StatusUnauthorized && there(demoted, users) == http.StatusForbidden && there(out, users) == http.StatusUnauthorized
	})
	if got := there(demoted, "/v1/sessions/current"); got != http.StatusOK {
		t.Errorf("who holds less is out: %d", got)
	}
	if got := there(owner, users); got != http.StatusOK {
		t.Errorf("the owner is answered %d", got)
	}
}
