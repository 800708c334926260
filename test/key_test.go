package test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"bulkhead/test/upstream"
)

// TestRotate: a key gets another value and goes on being the same key. Both values
// work for as long as they overlap, and budget and history stay.
func TestRotate(t *testing.T) {
	up := upstream.New(t)
	g := prepare(t, "providers:\n  up: {kind: custom, base_url: "+up.BaseURL()+"}\n")
	run := g.serve(t)
	c := g.Demo
	g.setCredential(t, c, "up", upstreamSecret)
	id, old := g.newKey(t, c, nil)
	keys := "/projects/" + c.ProjectID + "/api_keys/"
	g.org(t, c, http.MethodPost, "/budgets", map[string]any{"scope": map[string]any{"type": "key", "id": id}, "window": "day", "limit_requests": 3}, nil)
	g.chat(t, old, "up/ok").want(t, "the first value", http.StatusOK)

	var next struct {
		ID, Value  string
		OldExpires int64 `json:"previous_value_expires_at"`
	}
	g.org(t, c, http.MethodPost, keys+id+"/rotate", map[string]any{"overlap_seconds": 3600}, &next)
	if next.ID != id || next.Value == old || next.OldExpires < time.Now().Unix()+3500 {
		t.Fatalf("%+v", next)
	}
	g.chat(t, next.Value, "up/ok").want(t, "the new value", http.StatusOK)
	g.chat(t, old, "up/ok").want(t, "the old value", http.StatusOK)
	for _, value := range []string{old, next.Value} {
		if a := g.chat(t, value, "up/ok"); a.status != http.StatusTooManyRequests {
			t.Errorf("the budget of the key, after three calls of both values: %d", a.status)
		}
	}
	var seen struct {
		LastUsed *int64 `json:"last_used_at"`
		Redacted string `json:"redacted_value"`
	}
	g.org(t, c, http.MethodGet, keys+id, nil, &seen)
	if !strings.HasSuffix(next.Value, seen.Redacted[len(seen.Redacted)-4:]) {
		t.Errorf("%+v", seen)
	}

	// Without overlap the old values end at once.
	third := next
	g.org(t, c, http.MethodPost, keys+id+"/rotate", map[string]any{"overlap_seconds": 0}, &third)
	for _, value := range []string{old, next.Value} {
		g.chat(t, value, "up/ok").want(t, "an old value", http.StatusUnauthorized)
	}
	g.chat(t, third.Value, "up/ok").want(t, "the third value", http.StatusTooManyRequests)
	for body, status := range map[string]int{`{"overlap_seconds":-1}`: 400, `{"overlap_seconds":99999999}`: 400, `{"id":"x"}`: 400} {
		if a := ask(t, http.MethodPost, g.URL+"/v1/organization"+keys+id+"/rotate", c.AdminKey, json.RawMessage(body)); a.status != status {
			t.Errorf("%s: %d %s", body, a.status, a.body)
		}
	}

	// An admin key can rotate itself, and when it was used is stored on the way out.
	var list struct{ Data []struct{ ID string } }
	g.org(t, c, http.MethodGet, "/admin_api_keys", nil, &list)
	var admin struct{ Value string }
	g.org(t, c, http.MethodPost, "/admin_api_keys/"+list.Data[0].ID+"/rotate", map[string]any{"overlap_seconds": 0}, &admin)
	ask(t, http.MethodGet, g.URL+"/v1/organization/projects", c.AdminKey, nil).want(t, "the admin key before", http.StatusUnauthorized)
	c.AdminKey = admin.Value
	run.stop(t)
	g.serve(t)
	g.org(t, c, http.MethodGet, keys+id, nil, &seen)
	if seen.LastUsed == nil || time.Now().Unix()-*seen.LastUsed > 120 {
		t.Errorf("last used: %v", seen.LastUsed)
	}
}

// TestLeakedKey: who has only the value of a key revokes it in one call, within
// the company; another company's admin cannot, and is told nothing.
func TestLeakedKey(t *testing.T) {
	up := upstream.New(t)
	g := startGateway(t, "providers:\n  up: {kind: custom, base_url: "+up.BaseURL()+"}\n")
	c := g.Demo
	other := g.newCompany(t, "Other")
	g.setCredential(t, c, "up", upstreamSecret)
	_, leaked := g.newKey(t, c, nil)
	g.chat(t, leaked, "up/ok").want(t, "before", http.StatusOK)
	revoke := func(admin, value string) answer {
		return ask(t, http.MethodPost, g.URL+"/v1/organization/api_keys/revoke", admin, map[string]any{"value": value})
	}
	never := resum(leaked[:len(leaked)-49] + strings.Repeat("0", 43))
	foreign, unknown := revoke(other.AdminKey, leaked), revoke(other.AdminKey, never)
	if foreign.status != http.StatusNotFound || plain(foreign, nil) != plain(unknown, nil) {
		t.Errorf("a foreign key: %d %s, one that never was: %d %s", foreign.status, foreign.body, unknown.status, unknown.body)
	}
	revoke(c.AdminKey, never).want(t, "the right id with another secret", http.StatusNotFound)
	revoke(c.AdminKey, "sk-bh-live-nonsense").want(t, "no key", http.StatusNotFound)
	revoke(c.AdminKey, "").want(t, "nothing", http.StatusBadRequest)
	g.chat(t, leaked, "up/ok").want(t, "still", http.StatusOK)
	revoke(c.AdminKey, leaked).want(t, "its own", http.StatusOK)
	g.chat(t, leaked, "up/ok").want(t, "after", http.StatusUnauthorized)
	revoke(c.AdminKey, leaked).want(t, "once more", http.StatusNotFound)
}
