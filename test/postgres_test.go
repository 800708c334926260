package test

import (
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bulkhead/store/pgtest"
)

// TestMigrateFirst: a gateway does not start on a database that nobody migrated,
// and migrating twice does no more than once.
func TestMigrateFirst(t *testing.T) {
	db := pgtest.New(t)
	g := prepare(t, "", "BULKHEAD_POSTGRES_URL="+db.URL, "BULKHEAD_POSTGRES_OWNER_URL="+db.OwnerURL)
	if code := g.launch(t).exit(t); code != 1 {
		t.Fatalf("on a database that nobody migrated the gateway ended with %d:\n%s", code, tail(g.log(t), 500))
	}
	g.migrated(t)
	g.migrated(t)
	r := g.command(t, nil, "", "check", "-config", filepath.Join(g.dir(), "bulkhead.yaml"))
	if r.code != 0 || !strings.Contains(r.out, "row-level security holds") {
		t.Fatalf("gateway check: %s%s", r.out, r.err)
	}
	g.serve(t).stop(t)
}

// TestManyGateways changes policy at one gateway and watches the others. They
// share nothing but the database.
func TestManyGateways(t *testing.T) {
	f := newFleet(t, nil, fleetOptions{})
	up, all, runs := f.up, f.all, f.runs
	c := all[0].Demo
	for i, g := range all {
		if _, err := g.chat(t, c.TestKey, "sandbox/echo").want(t, fmt.Sprint("gateway ", i), http.StatusOK).fault(); err != "" {
			t.Error(err)
		}
	}
	both := func(what string, ok func(g *gateway) bool) {
		t.Helper()
		for i, g := range all {
			eventually(t, everywhere, fmt.Sprintf("%s, at gateway %d", what, i), func() bool { return ok(g) })
		}
	}
	secretSeen := func(g *gateway, secret string) bool {
		if g.chat(t, c.APIKey, "up/ok").status != http.StatusOK {
			return false
		}
		last, _ := up.Last()
		return last.Header.Get("Authorization") == "Bearer "+secret
	}

	// A credential, and a new one in its place.
	all[0].setCredential(t, c, "up", "sk-one")
	both("the credential is known", func(g *gateway) bool { return secretSeen(g, "sk-one") })
	all[1].setCredential(t, c, "up", "sk-two")
	both("the new credential is used", func(g *gateway) bool { return secretSeen(g, "sk-two") })

	// A route made at one, a key made at another and revoked at the third.
	all[1].setRoute(t, c, "fast", "up/status-500", "up/ok")
	both("the route is known", func(g *gateway) bool { return g.chat(t, c.APIKey, "fast").status == http.StatusOK })
	var made struct {
		Key struct{ ID, Value string } `json:"api_key"`
	}
	accounts := "/v1/organization/projects/" + c.ProjectID
	all[0].call(t, http.MethodPost, all[0].URL+accounts+"/service_accounts", c.AdminKey, map[string]any{"name": "worker"}, &made)
	both("the new key works", func(g *gateway) bool { return g.chat(t, made.Key.Value, "up/ok").status == http.StatusOK })
	all[2].call(t, http.MethodDelete, all[2].URL+accounts+"/api_keys/"+made.Key.ID, c.AdminKey, nil, nil)
	both("the revoked key is refused", func(g *gateway) bool { return g.chat(t, made.Key.Value, "up/ok").status == http.StatusUnauthorized })

	// Suspension ends the streams at every gateway, and resuming lets it go on.
	var streams []io.Reader
	for _, g := range all {
		streams = append(streams, g.openStream(t, c.APIKey, "up/never-ending"))
	}
	all[0].call(t, http.MethodPost, all[0].OpsURL+"/admin/companies/"+c.ID+"/suspend", all[0].Operator, map[string]any{}, nil)
	begin := time.Now()
	for i, s := range streams {
		text, err := io.ReadAll(s)
		if err == nil || strings.Contains(string(text), "[DONE]") || !strings.Contains(string(text), "call_ended") {
			t.Errorf("the stream at gateway %d ended as a whole one: %v", i, err)
		}
	}
	if took := time.Since(begin); took > everywhere {
		t.Errorf("the streams ended after %s", took)
	}
	both("the company is suspended", func(g *gateway) bool { return g.chat(t, c.APIKey, "up/ok").status == http.StatusForbidden })
	all[1].call(t, http.MethodPost, all[1].OpsURL+"/admin/companies/"+c.ID+"/resume", all[0].Operator, map[string]any{}, nil)
	both("the company is back", func(g *gateway) bool { return g.chat(t, c.APIKey, "up/ok").status == http.StatusOK })

	// None is special: without the first, which made it all, the others go on.
	runs[0].kill(t)
	for _, g := range all[1:] {
		g.chat(t, c.APIKey, "up/ok").want(t, "after the first gateway was killed", http.StatusOK)
	}
	for _, r := range runs[1:] {
		r.stop(t)
	}
	again := all[0].launch(t)
	all[0].waitReady(t, again.ended)
	all[0].chat(t, c.APIKey, "up/ok").want(t, "after a restart", http.StatusOK)
	again.stop(t)
}

// TestRowSecurityNeeded: a gateway does not start on a database that would let
// it see more than one company, and says what is wrong.
func TestRowSecurityNeeded(t *testing.T) {
	fl := newFleet(t, nil, fleetOptions{})
	db, all := fl.db, fl.all
	fl.stop(t)
	f := func(what, breaks, mends string, want ...string) {
		t.Helper()
		db.Exec(t, breaks)
		g := all[1]
		if code := g.launch(t).exit(t); code != 1 {
			t.Errorf("%s: the gateway ended with %d", what, code)
		}
		last := string(tail(g.log(t), 1500))
		for _, w := range want {
			if !strings.Contains(last, w) {
				t.Errorf("%s: %q is not in\n%s", what, w, last)
			}
		}
		db.Exec(t, mends)
	}
	f("row security off", "ALTER TABLE credential DISABLE ROW LEVEL SECURITY", "ALTER TABLE credential ENABLE ROW LEVEL SECURITY", "credential")
	f("row security not forced", "ALTER TABLE entry NO FORCE ROW LEVEL SECURITY", "ALTER TABLE entry FORCE ROW LEVEL SECURITY", "entry")
	f("a user that bypasses it", "ALTER ROLE gateway BYPASSRLS", "ALTER ROLE gateway NOBYPASSRLS", "BYPASSRLS")
	f("a superuser", "ALTER ROLE gateway SUPERUSER", "ALTER ROLE gateway NOSUPERUSER", "superuser")
	again := all[1].launch(t)
	all[1].waitReady(t, again.ended)
	again.stop(t)
}
