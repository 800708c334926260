package test

import (
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"bulkhead/store/pgtest"
)

// checked is a row of what `gateway check -json` prints.
type checked struct{ What, Where, Version, State, Detail string }

// Passwords and tokens of these tests, which nobody prints.
const checkCanary = "canary-4b1d"

// check runs `gateway check` both ways and returns the rows. The exit code is 0
// only where nothing failed.
func (g *gateway) check(t *testing.T, env ...string) []checked {
	t.Helper()
	r := g.command(t, env, "", "check", "-json", "-config", filepath.Join(g.dir(), "bulkhead.yaml"))
	rows := decoded[[]checked](t, r.out)
	bad := 0
	for _, row := range rows {
		if !slices.Contains([]string{"ok", "warning", "failed"}, row.State) || row.What == "" || row.Detail == "" {
			t.Errorf("odd row %+v", row)
		}
		if row.State == "failed" {
			bad++
		}
	}
	if r.code != map[bool]int{true: 1}[bad > 0] || (r.err == "") != (bad == 0) {
		t.Errorf("check with %d failures ended with %d and said %q", bad, r.code, r.err)
	}
	if strings.Contains(r.out+r.err, checkCanary) {
		t.Errorf("check prints a secret:\n%s%s", r.out, r.err)
	}
	return rows
}

// found looks for a row about what in that state, whose detail has all of want.
func found(t *testing.T, rows []checked, what, state string, want ...string) {
	t.Helper()
	for _, row := range rows {
		if row.What == what && row.State == state && !slices.ContainsFunc(want, func(w string) bool { return !strings.Contains(row.Detail, w) }) {
			return
		}
	}
	t.Errorf("no row %s %s %q in %+v", what, state, want, rows)
}

// only sees that nothing is warned of or failed but what is named.
func only(t *testing.T, rows []checked, state string, but ...string) {
	t.Helper()
	for _, row := range rows {
		if row.State == state && !slices.Contains(but, row.What) {
			t.Errorf("%s: %+v", state, row)
		}
	}
}

func TestCheckLocal(t *testing.T) {
	g := prepare(t, "")
	rows := g.check(t)
	only(t, rows, "warning")
	only(t, rows, "failed")
	found(t, rows, "data folder", "ok", "the first start makes it")
	found(t, rows, "sqlite", "ok", "the first start makes it")
	found(t, rows, "master key", "ok", "the first start makes it")
	found(t, rows, "listen", "ok", "free")
	found(t, rows, "providers", "ok", "none is called")
	if _, err := os.Stat(g.Data); err == nil {
		t.Error("check made the data folder")
	}

	run := g.serve(t)
	rows = g.check(t)
	only(t, rows, "warning")
	only(t, rows, "failed")
	found(t, rows, "listen", "ok", "in use, as is the data folder")
	found(t, rows, "ops_listen", "ok", "in use, as is the data folder")
	found(t, rows, "sqlite", "ok", "this version's")
	found(t, rows, "master key", "ok", "sealed with")
	found(t, rows, "data folder", "ok", "can be written", "MiB are free")
	if i := slices.IndexFunc(rows, func(r checked) bool { return r.What == "sqlite" }); i < 0 || !strings.HasPrefix(rows[i].Version, "3.") {
		t.Errorf("no version of SQLite in %+v", rows)
	}
	// People get a table, whose columns begin at the same place in every row.
	table := g.ok(t, nil, "", "check", "-config", filepath.Join(g.dir(), "bulkhead.yaml"))
	lines := strings.Split(strings.TrimSpace(table), "\n")
	at := strings.Index(lines[0], "STATE")
	for _, line := range lines[1:] {
		if len(line) <= at+3 || line[at-1] != ' ' || line[at:at+3] != "ok " {
			t.Errorf("not aligned:\n%s", table)
			break
		}
	}
	if len(lines) != len(rows)+1 {
		t.Errorf("%d lines for %d rows", len(lines), len(rows))
	}
	run.stop(t)

	other, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	rows = g.check(t, "BULKHEAD_LISTEN="+other.Addr().String())
	only(t, rows, "failed", "listen")
	found(t, rows, "listen", "failed", "another program")
	found(t, g.check(t, "BULKHEAD_LISTEN=192.0.2.1:8080"), "listen", "failed", "assign")
	found(t, g.check(t, "BULKHEAD_LISTEN=0.0.0.0:0"), "configuration", "warning", "in the clear")
	found(t, g.check(t, "BULKHEAD_OTEL_ENDPOINT=http://127.0.0.1:1"), "traces", "warning", "nobody takes the traces")

	if err := os.Chmod(g.Data, 0o755); err != nil {
		t.Fatal(err)
	}
	found(t, g.check(t), "data folder", "warning", "0755")
	if err := os.Chmod(g.Data, 0o700); err != nil {
		t.Fatal(err)
	}
	found(t, g.check(t, "BULKHEAD_MASTER_KEY="+strings.Repeat("ab", 32)), "master key", "failed", "not the one the database was sealed with")
	key := filepath.Join(g.Data, "master.key")
	if err := os.Chmod(key, 0o644); err != nil {
		t.Fatal(err)
	}
	found(t, g.check(t), "master key", "failed", "chmod 600")
	if err := os.Remove(key); err != nil {
		t.Fatal(err)
	}
	rows = g.check(t)
	only(t, rows, "failed", "master key")
	found(t, rows, "master key", "failed", "put it back")
	if _, err := os.Stat(key); err == nil {
		t.Error("check made a master key")
	}
	if err := os.WriteFile(filepath.Join(g.Data, "bulkhead.db"), []byte(strings.Repeat("no database ", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	found(t, g.check(t), "sqlite", "failed", "not a database")

	// A configuration that is wrong is a list of what is wrong, and no more.
	g.configure(t, "max_body_bytes: 1\nlog: {level: loud}\n")
	rows = g.check(t)
	if len(rows) != 2 {
		t.Errorf("check of a wrong configuration: %+v", rows)
	}
	found(t, rows, "configuration", "failed", "must be")
}

func TestCheckPostgres(t *testing.T) {
	db := pgtest.New(t)
	g := prepare(t, "")
	with := func(runtime, owner string) []string {
		return []string{"BULKHEAD_POSTGRES_URL=" + runtime, "BULKHEAD_POSTGRES_OWNER_URL=" + owner, "BULKHEAD_MASTER_KEY=" + strings.Repeat("d4", 32)}
	}
	env := with(db.URL, db.OwnerURL)
	rows := g.check(t, env...)
	found(t, rows, "postgres owner", "ok", "may migrate")
	only(t, rows, "failed", "postgres", "master key") // its user may not be there yet
	if r := g.command(t, env, "", "migrate"); r.code != 0 {
		t.Fatalf("migrate: %+v", r)
	}
	rows = g.check(t, env...)
	only(t, rows, "failed")
	only(t, rows, "warning", "configuration")
	found(t, rows, "configuration", "warning", "redis_url is not: each gateway counts limits and budgets for itself")
	found(t, rows, "postgres", "ok", "this version's", "row-level security holds")
	found(t, rows, "clock", "ok", "less than 2 s")
	found(t, rows, "master key", "ok", "the first start ties the database to it")
	for _, row := range rows {
		if strings.HasPrefix(row.What, "postgres") && (!strings.Contains(row.Where, "@127.0.0.1:") || strings.Contains(row.Where, "time") || row.Version < "14") {
			t.Errorf("%+v", row)
		}
	}
	// All problems at once.
	db.Exec(t, "ALTER TABLE entry NO FORCE ROW LEVEL SECURITY", "REVOKE INSERT ON audit FROM bulkhead_runtime", "DROP POLICY project_of_company ON project")
	rows = g.check(t, env...)
	found(t, rows, "postgres", "failed", "table entry has no row-level security")
	found(t, rows, "postgres", "failed", "INSERT on audit")
	found(t, rows, "postgres", "failed", "table project has not the policy")
	only(t, rows, "failed", "postgres")
	db.Exec(t, "DELETE FROM migration")
	found(t, g.check(t, env...), "postgres", "failed", "run gateway migrate")

	wrong := func(text string) string {
		u, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		u.User = url.UserPassword(u.User.Username(), checkCanary)
		return u.String()
	}
	rows = g.check(t, with(wrong(db.URL), wrong(db.OwnerURL))...)
	found(t, rows, "postgres", "failed", "password")
	found(t, rows, "postgres owner", "failed", "password")
	found(t, g.check(t, with(db.OwnerURL, db.OwnerURL)...), "postgres owner", "failed", "gateway's user too")
}

func TestCheckVault(t *testing.T) {
	v := newMovingVault(t)
	g := prepare(t, "")
	f := func(state, detail string, env ...string) {
		t.Helper()
		rows := g.check(t, env...)
		found(t, rows, "vault", state, detail)
		if state != "failed" {
			only(t, rows, "failed")
		}
	}
	f("ok", "KV version 2 is at secret, and the token may do what the gateway needs", v.env(v.addr)...)
	f("warning", "the token may do everything", "BULKHEAD_VAULT_ADDR="+v.addr, "BULKHEAD_VAULT_TOKEN="+v.root)
	f("failed", "no KV version 2", "BULKHEAD_VAULT_ADDR="+v.addr, "BULKHEAD_VAULT_TOKEN="+v.root, "BULKHEAD_VAULT_MOUNT=cubbyhole")
	f("failed", "cannot see what is mounted", append(v.env(v.addr), "BULKHEAD_VAULT_MOUNT=cubbyhole")...)
	f("failed", "cannot read credentials below", append(v.env(v.addr), "BULKHEAD_VAULT_PREFIX=others")...)
	f("failed", "token for vault has ended", "BULKHEAD_VAULT_ADDR="+v.addr, "BULKHEAD_VAULT_TOKEN="+checkCanary)
	f("failed", "cannot reach vault", "BULKHEAD_VAULT_ADDR=http://127.0.0.1:1", "BULKHEAD_VAULT_TOKEN="+checkCanary)
	// Less than it needs.
	v.ask(http.MethodPut, "sys/policies/acl/reader", map[string]any{"policy": `
		path "secret/data/bulkhead/companies/+/providers/+" { capabilities = ["read"] }
		path "auth/token/lookup-self" { capabilities = ["read"] }
		path "sys/capabilities-self" { capabilities = ["update"] }`}).want(t, "a policy", http.StatusNoContent)
	made := v.ask(http.MethodPost, "auth/token/create", map[string]any{"policies": []string{"reader"}, "no_default_policy": true, "ttl": "1h", "renewable": false})
	token := decoded[struct {
		Auth struct {
			Token string `json:"client_token"`
		}
	}](t, string(made.body)).Auth.Token
	env := []string{"BULKHEAD_VAULT_ADDR=" + v.addr, "BULKHEAD_VAULT_TOKEN=" + token}
	f("failed", "the token may not create at secret/data/bulkhead/companies/", env...)
	f("failed", "the token may not list at secret/metadata/bulkhead/companies/", env...)
	found(t, g.check(t, env...), "vault", "warning", "cannot be renewed")
}

// TestCheckSilent: servers that take a connection and say nothing hold check up
// together no longer than one of them would.
func TestCheckSilent(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	g := prepare(t, "")
	begin := time.Now()
	rows := g.check(t,
		"BULKHEAD_POSTGRES_URL=postgres://u:"+checkCanary+"@"+silent.Addr().String()+"/x?sslmode=disable",
		"BULKHEAD_POSTGRES_OWNER_URL=postgres://o:"+checkCanary+"@"+silent.Addr().String()+"/x?sslmode=disable",
		"BULKHEAD_VAULT_ADDR=http://"+silent.Addr().String(), "BULKHEAD_VAULT_TOKEN="+checkCanary)
	if took := time.Since(begin); took > 20*time.Second {
		t.Errorf("check took %s", took)
	}
	for _, what := range []string{"postgres", "postgres owner", "vault"} {
		found(t, rows, what, "failed")
	}
	only(t, rows, "failed", "postgres", "postgres owner", "vault")
}

// TestBackendUp: readiness and metrics say which server is away, and no secret.
func TestBackendUp(t *testing.T) {
	v, db := newMovingVault(t), pgtest.New(t)
	hold := newGate(t, v, "NONE", "", false)
	g := prepare(t, "", append(v.env(hold.URL), "BULKHEAD_POSTGRES_URL="+db.URL, "BULKHEAD_POSTGRES_OWNER_URL="+db.OwnerURL)...)
	if r := g.command(t, nil, "", "migrate"); r.code != 0 {
		t.Fatalf("migrate: %+v", r)
	}
	run := g.serve(t)
	up := func(backend string, n int) bool {
		a := ask(t, http.MethodGet, g.OpsURL+"/metrics", "", nil)
		return strings.Contains(string(a.body), fmt.Sprintf("bulkhead_backend_up{backend=%q} %d\n", backend, n))
	}
	eventually(t, 10*time.Second, "both are there", func() bool { return up("postgres", 1) && up("vault", 1) })
	hold.CloseClientConnections()
	hold.Listener.Close() // from now on nobody is there
	eventually(t, 30*time.Second, "Vault is away", func() bool { return up("vault", 0) && up("postgres", 1) })
	eventually(t, 30*time.Second, "readiness says so", func() bool {
		a := ask(t, http.MethodGet, g.OpsURL+"/readyz", "", nil)
		if strings.Contains(string(a.body), v.token) || strings.Contains(string(a.body), "run'time") {
			t.Errorf("readiness shows a secret: %s", a.body)
		}
		return a.status == http.StatusServiceUnavailable && strings.Contains(string(a.body), `"backend":"vault"`) && !strings.Contains(string(a.body), "postgres")
	})
	ask(t, http.MethodGet, g.OpsURL+"/readyz?exclude=vault", "", nil).want(t, "readiness but for Vault", http.StatusOK)
	g.chat(t, g.Demo.TestKey, "sandbox/echo").want(t, "what needs no credential", http.StatusOK)
	if log := string(g.log(t)); !strings.Contains(log, `"a server is away","backend":"vault"`) || strings.Contains(log, v.token) {
		t.Error("the log does not say that Vault is away, or shows the token")
	}
	run.stop(t)
}
