package test

import (
	"net/http"
	"net/url"
	"testing"
	"time"

	"bulkhead/store/pgtest"
	"bulkhead/tenant"
	"bulkhead/tenant/tenanttest"
	"bulkhead/test/scale"
	"bulkhead/test/servers"
)

// ownDatabase is the database of a server that a test may stop.
func ownDatabase(t *testing.T, server *servers.Server) *pgtest.Database {
	t.Helper()
	owner := server.Var("POSTGRES_URL")
	runtime, err := url.Parse(owner)
	if err != nil {
		t.Fatal(err)
	}
	runtime.User = url.UserPassword("gateway", "runtime") // whom gateway migrate makes
	return &pgtest.Database{Name: "postgres", AdminURL: owner, OwnerURL: owner, URL: runtime.String()}
}

// TestPostgresGone stops the database under three gateways with traffic running:
// known keys go on, unknown ones are refused with 503, entries wait, and none is
// lost or doubled. (DESIGN section 10.)
func TestPostgresGone(t *testing.T) {
	s := scale.Of(t)
	db := servers.Start(t, "postgres")
	f := newFleet(t, s, fleetOptions{database: ownDatabase(t, db)})
	// A key with the right form and sum that nobody has seen.
	w := tenanttest.New(t, tenant.Options{})
	stranger, _ := w.Company("stranger", tenant.KeyLive, nil)
	ready := func(status int) bool {
		for _, g := range f.all {
			if ask(t, http.MethodGet, g.OpsURL+"/readyz", "", nil).status != status {
				return false
			}
		}
		return true
	}
	tr := f.traffic(t, s, f.members...)
	tr.settles(t, f.members...)

	if err := db.Stop(); err != nil {
		t.Fatal(err)
	}
	gone := time.Now()
	tr.flows(t, 100)
	for _, g := range f.all {
		begin := time.Now()
		g.chat(t, stranger, "up/ok").want(t, "an unknown key without the database", http.StatusServiceUnavailable)
		if took := time.Since(begin); took > 15*time.Second {
			t.Errorf("an unknown key was refused after %s", took)
		}
	}
	eventually(t, 30*time.Second, "readiness says that the store is away", func() bool { return ready(http.StatusServiceUnavailable) })
	away := scale.Pick(s, 10*time.Second, time.Minute)
	eventually(t, 2*time.Minute, "it was away for long", func() bool { return time.Since(gone) > away })
	tr.flows(t, 50)

	if err := db.Again(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.Figure("away", time.Since(gone))
	back := time.Now()
	eventually(t, 30*time.Second, "readiness comes back", func() bool { return ready(http.StatusOK) })
	s.Figure("ready_after", time.Since(back))
	tr.flows(t, 50)
	for _, g := range f.all {
		eventually(t, 10*time.Second, "unknown keys are looked up again", func() bool {
			return g.chat(t, stranger, "up/ok").status == http.StatusUnauthorized
		})
	}
	f.obey(t, f.members[0], 0, 1, 2)
	calls := tr.stop()
	none(t, calls, nil)
	f.account(t, s, calls, nil)
}
