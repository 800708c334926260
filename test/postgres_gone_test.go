package test

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"bulkhead/tenant"
	"bulkhead/tenant/tenanttest"
	"bulkhead/test/upstream"
)

// ownPostgres is a server that a test may stop and start again.
type ownPostgres struct {
	dir, port string
	URL       string // of the superuser
}

func newPostgres(t *testing.T) *ownPostgres {
	t.Helper()
	dir, err := os.MkdirTemp("", "bulkhead-postgres-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o711); err != nil { // the server may run as another user
		t.Fatal(err)
	}
	_, port, _ := strings.Cut(freeAddr(t), ":")
	p := &ownPostgres{dir: dir, port: port}
	t.Cleanup(func() {
		p.stop(t)
		_ = os.RemoveAll(dir)
	})
	p.start(t)
	return p
}

func (p *ownPostgres) start(t *testing.T) {
	t.Helper()
	out, err := exec.Command("servers/start-postgres.sh", p.dir, p.port).Output()
	if err != nil {
		missing(t, "PostgreSQL", err)
	}
	p.URL = strings.TrimSpace(string(out))
}

func (p *ownPostgres) stop(t *testing.T) {
	t.Helper()
	if out, err := exec.Command("servers/stop.sh", p.dir).CombinedOutput(); err != nil {
		t.Errorf("cannot stop PostgreSQL: %s\n%s", err, out)
	}
}

// runtime is the URL of the gateway's user, whom gateway migrate makes.
func (p *ownPostgres) runtime(t *testing.T) string {
	u, err := url.Parse(p.URL)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword("gateway", "runtime")
	return u.String()
}

// TestPostgresGone stops the database under traffic: known keys go on, unknown
// ones are refused with 503, entries wait, and none is lost or doubled. (DESIGN
// section 10.)
func TestPostgresGone(t *testing.T) {
	up, db := upstream.New(t), newPostgres(t)
	g := prepare(t, "providers:\n  up: {kind: custom, base_url: "+up.BaseURL()+"}\n",
		"BULKHEAD_POSTGRES_URL="+db.runtime(t), "BULKHEAD_POSTGRES_OWNER_URL="+db.URL)
	if r := g.command(t, nil, "", "migrate", "-config", filepath.Join(g.dir(), "bulkhead.yaml")); r.code != 0 {
		t.Fatalf("gateway migrate: %s%s", r.out, r.err)
	}
	run := g.serve(t)
	c := g.Demo
	g.setCredential(t, c, "up", "sk-one")
	calls := 0
	call := func(what string) {
		t.Helper()
		g.chat(t, c.APIKey, "up/ok").want(t, what, http.StatusOK)
		calls++
	}
	call("before")

	// A key with the right form and sum that nobody has seen.
	w := tenanttest.New(t, tenant.Options{})
	stranger, _ := w.Company("stranger", tenant.KeyLive, nil)

	db.stop(t)
	for i := range 50 {
		call(fmt.Sprint("without the database, call ", i))
	}
	begin := time.Now()
	g.chat(t, stranger, "up/ok").want(t, "an unknown key without the database", http.StatusServiceUnavailable)
	if took := time.Since(begin); took > 15*time.Second {
		t.Errorf("an unknown key was refused after %s", took)
	}
	eventually(t, 30*time.Second, "readiness says that the store is away", func() bool {
		return ask(t, http.MethodGet, g.OpsURL+"/readyz", "", nil).status == http.StatusServiceUnavailable
	})
	call("while readiness says no")

	db.start(t)
	eventually(t, 30*time.Second, "readiness comes back", func() bool {
		return ask(t, http.MethodGet, g.OpsURL+"/readyz", "", nil).status == http.StatusOK
	})
	call("with the database again")
	eventually(t, 10*time.Second, "unknown keys are looked up again", func() bool {
		return g.chat(t, stranger, "up/ok").status == http.StatusUnauthorized
	})
	run.stop(t)

	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, db.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	var rows, ids, requests int
	err = conn.QueryRow(ctx, "SELECT count(*), count(DISTINCT id), count(DISTINCT request_id) FROM entry").Scan(&rows, &ids, &requests)
	if err != nil {
		t.Fatal(err)
	}
	if rows != calls || ids != calls || requests != calls || len(up.Requests()) != calls {
		t.Errorf("%d calls, %d at the provider, %d rows of %d attempts and %d requests", calls, len(up.Requests()), rows, ids, requests)
	}
}
