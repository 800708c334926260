package test

import (
	"net/http"
	"net/url"
	"testing"
	"time"

	"bulkhead/ledger"
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
func TestPostgresGone(t *testing.T) { postgresGone(t, scale.Of(t), "") }

// TestPostgresGoneWithRedis is the same while Redis counts budgets: it has what is
// spent, and needs no database for it.
func TestPostgresGoneWithRedis(t *testing.T) {
	s := scale.Of(t)
	postgresGone(t, s, servers.Start(t, "redis").Var("REDIS_URL"))
}

func postgresGone(t *testing.T, s *scale.Run, redis string) {
	t.Helper()
	db := servers.Start(t, "postgres")
	f := newFleet(t, s, fleetOptions{companies: 4, database: ownDatabase(t, db), redis: redis})
	busy, free := f.members[:3], f.members[3]
	bill := newBiller(f.up, nil)
	var budgets []budget
	if redis != "" {
		budgets = f.budgeted(t, busy...)
	}
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
	tr := f.newTraffic(t, s, redis != "", busy...)
	tr.settles(t, busy...)

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
	f.obey(t, free, 0, 1, 2)
	calls := tr.stop()
	if redis == "" {
		none(t, calls, nil)
	} else {
		// Redis is given 230 ms. On a machine with far more to do than it can, some
		// calls are refused for that, whatever the database does: few, and never sent.
		refused := f.honest(t, calls)
		if refused > len(calls)/20 {
			t.Errorf("%d of %d calls were refused with 503", refused, len(calls))
		}
		s.Figure("refused_for_redis", refused)
		for _, m := range busy { // and none once there is nothing else to do
			for _, g := range f.all {
				for range 5 {
					ask(t, http.MethodPost, g.URL+"/v1/chat/completions", m.APIKey, paidBody("afterwards", false)).want(t, "a call afterwards", http.StatusOK)
				}
			}
		}
	}
	for i, b := range budgets {
		c := f.members[i].company
		for _, g := range f.all {
			eventually(t, 30*time.Second, "what is spent is what the ledger has", func() bool {
				spent, held, ok := g.standing(t, c, b.ID)
				return ok && held == 0 && spent > 0 && spent == costOf(f.entries(t, c))
			})
		}
	}
	f.account(t, s, calls, nil)
	if redis != "" {
		var rows []ledger.Entry
		for _, m := range f.members {
			rows = append(rows, paidRows(f.entries(t, m.company))...)
		}
		bill.check(t, rows, 0)
	}
}
