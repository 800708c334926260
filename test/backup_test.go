package test

import (
	"context"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"bulkhead/store/pgtest"
	"bulkhead/test/servers"
	"bulkhead/test/upstream"
)

// documented returns the commands of docs/operations.md that begin with that
// comment, as they stand there.
func documented(t *testing.T, title string) string {
	t.Helper()
	text, err := os.ReadFile("../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	block := regexp.MustCompile("(?s)```sh\n# " + regexp.QuoteMeta(title) + "\n(.*?)```").FindSubmatch(text)
	if block == nil {
		t.Fatalf("docs/operations.md does not say how to %s", title)
	}
	return string(block[1])
}

// follow runs the documented commands with the gateway's environment and env.
func (g *gateway) follow(t *testing.T, title string, env ...string) {
	t.Helper()
	commands := documented(t, title)
	for _, program := range []string{"sqlite3", "pg_dump", "pg_restore", "psql"} {
		if strings.Contains(commands, program+" ") {
			if _, err := exec.LookPath(program); err != nil {
				missing(t, program, err)
			}
		}
	}
	bin := t.TempDir()
	if err := os.Symlink(g.path, filepath.Join(bin, "gateway")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-euc", commands)
	cmd.Dir = g.dir()
	cmd.Env = append(append(append([]string{}, g.env...), "PATH="+bin+":"+os.Getenv("PATH")), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %s\n%s", title, err, out)
	}
}

// saved is what a test finds again after a restore.
type saved struct {
	t        *testing.T
	up       *upstream.Server
	c        company
	operator string
}

const savedSecret = "sk-saved-canary-5e2f"

// serves looks that the gateway knows the key, opens the credential and takes the
// operator's key.
func (s saved) serves(g *gateway) {
	s.t.Helper()
	g.chat(s.t, s.c.APIKey, "up/ok").want(s.t, "the key after the restore", http.StatusOK)
	if last, _ := s.up.Last(); last.Header.Get("Authorization") != "Bearer "+savedSecret {
		s.t.Error("the credential did not open")
	}
	g.chat(s.t, s.c.TestKey, "sandbox/echo").want(s.t, "the test key", http.StatusOK)
	ask(s.t, http.MethodGet, g.OpsURL+"/admin/companies", s.operator, nil).want(s.t, "the operator's key", http.StatusOK)
	// It is written to as before.
	g.setRoute(s.t, s.c, "after", "up/ok")
	g.chat(s.t, s.c.APIKey, "after").want(s.t, "a new route", http.StatusOK)
}

// TestBackupSQLite copies the file of a gateway that works, as documented, and
// goes on elsewhere with the copy.
func TestBackupSQLite(t *testing.T) {
	up := upstream.New(t)
	file := "providers:\n  up: {kind: custom, base_url: " + up.BaseURL() + "}\n"
	g := prepare(t, file)
	run := g.serve(t)
	g.setCredential(t, g.Demo, "up", savedSecret)
	ctx, stop := context.WithCancel(t.Context())
	calls := make(chan int)
	go func() { // calls go on while the copy is made
		n := 0
		for ctx.Err() == nil {
			if a, err := tryAsk(ctx, http.MethodPost, g.URL+"/v1/chat/completions", g.Demo.APIKey, chatBody("up/ok", "Hello")); err == nil && a.status == http.StatusOK {
				n++
			}
		}
		calls <- n
	}()
	backup, safe := t.TempDir(), t.TempDir()
	g.follow(t, "back up SQLite", "DATA="+g.Data, "BACKUP="+backup, "SAFE="+safe)
	stop()
	if n := <-calls; n == 0 {
		t.Error("no call was answered while the copy was made")
	}
	run.stop(t)

	// Into a folder where another gateway was: with a log of its own.
	other := prepare(t, file, "BULKHEAD_DEMO=off")
	old := other.launch(t)
	other.waitReady(t, old.ended)
	old.kill(t)
	if _, err := os.Stat(filepath.Join(other.Data, "bulkhead.db-wal")); err != nil {
		t.Errorf("the killed gateway left no log, so the test tests less than it should: %s", err)
	}
	other.follow(t, "restore SQLite", "DATA="+other.Data, "BACKUP="+backup, "SAFE="+safe)
	again := other.launch(t)
	other.waitReady(t, again.ended)
	saved{t, up, g.Demo, g.Operator}.serves(other)
	again.stop(t)
	for _, name := range []string{"bulkhead.db", "master.key", "operator.key"} {
		if info, err := os.Stat(filepath.Join(other.Data, name)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v, want mode 0600", name, info, err)
		}
	}

	// Without the master key nothing starts, and none is made up.
	if err := os.Remove(filepath.Join(other.Data, "master.key")); err != nil {
		t.Fatal(err)
	}
	if code := other.launch(t).exit(t); code != 1 || !strings.Contains(string(tail(other.log(t), 500)), "put it back") {
		t.Errorf("without its master key the gateway ended with %d:\n%s", code, tail(other.log(t), 500))
	}
}

// TestBackupPostgres dumps a database as the documented role, which alone gets
// past row-level security, and restores it into a server that has never seen it.
func TestBackupPostgres(t *testing.T) {
	up, db := upstream.New(t), pgtest.New(t)
	file := "providers:\n  up: {kind: custom, base_url: " + up.BaseURL() + "}\n"
	key := "BULKHEAD_MASTER_KEY=" + strings.Repeat("e5", 32)
	g := prepare(t, file, "BULKHEAD_POSTGRES_URL="+db.URL, "BULKHEAD_POSTGRES_OWNER_URL="+db.OwnerURL, key)
	if r := g.command(t, nil, "", "migrate"); r.code != 0 {
		t.Fatalf("migrate: %+v", r)
	}
	run := g.serve(t)
	g.setCredential(t, g.Demo, "up", savedSecret)
	g.chat(t, g.Demo.APIKey, "up/ok").want(t, "before", http.StatusOK)

	// The owner of the tables is held by row-level security, and told so.
	backup := t.TempDir()
	if _, err := exec.LookPath("pg_dump"); err != nil {
		missing(t, "pg_dump", err)
	}
	out, err := exec.CommandContext(t.Context(), "pg_dump", "--format=custom", "--file="+filepath.Join(backup, "owner.dump"), db.OwnerURL).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "row-level security") {
		t.Errorf("a dump as the owner: %v\n%s", err, out)
	}
	t.Cleanup(func() { db.Exec(t, "DROP OWNED BY bulkhead_backup", "DROP ROLE bulkhead_backup") })
	g.follow(t, "prepare the backup of PostgreSQL", "ADMIN_URL="+db.AdminURL, "BACKUP_PASSWORD=backup", "DATABASE="+db.Name)
	as := func(text, user, password, database string) string {
		u, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		u.User, u.Path = url.UserPassword(user, password), "/"+database
		return u.String()
	}
	g.follow(t, "back up PostgreSQL", "BACKUP="+backup, "BACKUP_URL="+as(db.AdminURL, "bulkhead_backup", "backup", db.Name))
	run.stop(t)

	next := servers.Start(t, "postgres").Var("POSTGRES_URL")
	owner := as(next, "bulkhead_owner", "its own", "bulkhead")
	other := prepare(t, file, "BULKHEAD_POSTGRES_URL="+as(next, "gateway", "another", "bulkhead"), "BULKHEAD_POSTGRES_OWNER_URL="+owner, key)
	other.follow(t, "restore PostgreSQL", "BACKUP="+backup, "NEW_ADMIN_URL="+next, "NEW_OWNER_URL="+owner, "OWNER_PASSWORD=its own")
	again := other.launch(t)
	other.waitReady(t, again.ended)
	saved{t, up, g.Demo, g.Operator}.serves(other)

	// What was restored is held by row-level security as before.
	rows := func(url string) (n int) {
		if err := pgtest.As(t, url).QueryRow(t.Context(), "SELECT count(*) FROM entry").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	if n := rows(as(next, "gateway", "another", "bulkhead")); n != 0 {
		t.Errorf("without a company the gateway's user sees %d rows", n)
	}
	if n := rows(as(next, "postgres", "postgres", "bulkhead")); n == 0 {
		t.Error("the ledger is empty")
	}
	again.stop(t)
}

// TestOperatorKeyLost makes another operator's key as documented.
func TestOperatorKeyLost(t *testing.T) {
	g := prepare(t, "")
	run := g.serve(t)
	g.ok(t, []string{"BULKHEAD_OPERATOR_KEY=" + g.Operator}, "", "company", "create", "Acme")
	run.stop(t)
	if err := os.Remove(filepath.Join(g.Data, "operator.key")); err != nil {
		t.Fatal(err)
	}
	if _, err := exec.LookPath("sqlite3"); err != nil {
		missing(t, "sqlite3", err)
	}
	if out, err := exec.CommandContext(t.Context(), "sqlite3", filepath.Join(g.Data, "bulkhead.db"), "DELETE FROM operator_key").CombinedOutput(); err != nil {
		t.Fatalf("%s: %s", err, out)
	}
	lost := g.Operator
	next := g.with("BULKHEAD_DEMO=off")
	run = next.serve(t)
	if next.Operator == lost {
		t.Error("it is the key that was lost")
	}
	list := next.ok(t, []string{"BULKHEAD_OPERATOR_KEY=" + next.Operator}, "", "company", "list")
	if strings.Count(list, "\n") != 2 || !strings.Contains(list, "Acme") || !strings.Contains(list, g.Demo.ID) {
		t.Errorf("with the new key:\n%s", list)
	}
	next.fails(t, []string{"BULKHEAD_OPERATOR_KEY=" + lost}, "", "401", "company", "list")
	next.chat(t, g.Demo.TestKey, "sandbox/echo").want(t, "the company's key", http.StatusOK)
	run.stop(t)
}
