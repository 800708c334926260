package store_test

import (
	"context"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"bulkhead/store"
	"bulkhead/store/pgtest"
)

// cannotOpen checks that Open refuses the database and says all of want, and no
// password.
func cannotOpen(t *testing.T, o store.Options, want ...string) {
	t.Helper()
	db, err := store.Open(t.Context(), o)
	if err == nil {
		db.Close()
		t.Errorf("opened, want %q", want)
		return
	}
	for _, w := range want {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("error %q, want %q", err, w)
		}
	}
	if u, _ := url.Parse(o.URL); u != nil {
		if password, _ := u.User.Password(); password != "" && strings.Contains(err.Error(), password) {
			t.Errorf("error %q has the password", err)
		}
	}
}

func TestOpenRefusesTables(t *testing.T) {
	f := func(ddl string, want ...string) {
		t.Helper()
		d := migrated(t)
		open(t, options(d)).Close()
		d.Exec(t, ddl)
		cannotOpen(t, options(d), append(want, "cannot open store gateway@127.0.0.1:", "would not hold the companies apart")...)
	}
	f(`ALTER TABLE entry DISABLE ROW LEVEL SECURITY`, "table entry has no row-level security")
	f(`ALTER TABLE entry NO FORCE ROW LEVEL SECURITY`, "table entry has no row-level security that is forced")
	f(`DROP POLICY project_of_company ON project`, "table project has not the policy")
	f(`CREATE POLICY more ON route USING (true)`, "policy more of table route is not one")
	f(`CREATE POLICY more ON company FOR SELECT TO bulkhead_runtime USING (name = 'public')`, "policy more of table company")
	f(`ALTER POLICY audit_of_company ON audit USING (true)`, "policy audit_of_company of table audit is not one", "table audit has not the policy")
	f(`ALTER POLICY audit_of_company ON audit WITH CHECK (true)`, "table audit has not the policy")
	f(`ALTER POLICY audit_of_company ON audit TO postgres`, "table audit has not the policy")
	f(`ALTER POLICY company_of_operator ON company USING (true)`, "policy company_of_operator of table company")
	f(`GRANT TRUNCATE ON entry TO bulkhead_runtime`, "the user may empty table entry")
	f(`ALTER TABLE change OWNER TO gateway`, "the user can act as gateway, to whom belong change")
	f(`DROP TABLE data_key`, "table data_key is not there")
	f(`REVOKE ALL ON project FROM bulkhead_runtime`, "the user may not read table project")
	// All problems at once.
	f(`ALTER TABLE entry NO FORCE ROW LEVEL SECURITY; DROP POLICY project_of_company ON project; GRANT TRUNCATE ON audit TO gateway`,
		"table entry has no row-level", "table project has not", "may empty table audit")
	// What only narrows is no harm.
	d := migrated(t)
	d.Exec(t, `CREATE POLICY less ON route AS RESTRICTIVE USING (name <> 'secret')`)
	open(t, options(d))
}

func TestOpenRefusesUsers(t *testing.T) {
	f := func(attributes, then string, want ...string) {
		t.Helper()
		d := migrated(t)
		user := d.Name + "_user"
		d.Exec(t, "CREATE ROLE "+user+" LOGIN PASSWORD 's3cret' "+attributes, "GRANT bulkhead_runtime TO "+user)
		t.Cleanup(func() { d.Exec(t, "REASSIGN OWNED BY "+user+" TO postgres", "DROP ROLE "+user) })
		if then != "" {
			d.Exec(t, strings.ReplaceAll(then, "USER", user))
		}
		o := options(d)
		u, err := url.Parse(d.URL)
		if err != nil {
			t.Fatal(err)
		}
		u.User = url.UserPassword(user, "s3cret")
		o.URL = u.String()
		if len(want) == 0 {
			open(t, o)
			return
		}
		cannotOpen(t, o, want...)
	}
	f("", "")
	f("BYPASSRLS", "", "_user has BYPASSRLS")
	f("SUPERUSER", "", "_user is a superuser")
	f("", "GRANT bulkhead_owner TO USER", "the user can act as bulkhead_owner, to whom belong act_head, act_link, agent, agent_version, alert, alert_event, api_key, approved_audience, audit, ")
	f("NOINHERIT", "GRANT postgres TO USER", "can act as role postgres, which is a superuser")
	f("", "ALTER TABLE entry OWNER TO USER", "_user, to whom belong entry")
	f("BYPASSRLS", "ALTER TABLE entry NO FORCE ROW LEVEL SECURITY", "has BYPASSRLS", "table entry has no row-level")
}

func TestOpenRefusesSchemas(t *testing.T) {
	d := migrated(t)
	d.Exec(t, `DELETE FROM migration`)
	cannotOpen(t, options(d), "the database is not migrated to ", "gateway migrate")
	// A gateway of the version before starts while the others are replaced.
	d = migrated(t)
	d.Exec(t, `INSERT INTO migration VALUES ('9999_later', 'x', 1)`)
	db := open(t, options(d))
	if err := db.Migrate(t.Context()); err != nil {
		t.Error(err)
	}
	if steps, err := db.Pending(t.Context()); err != nil || len(steps) != 0 {
		t.Errorf("pending %q, %v", steps, err)
	}
	d.Exec(t, `UPDATE migration SET name = '0000_init' WHERE name = '0001_init'`)
	cannotOpen(t, options(d), "but not 0001_init")
	d.Exec(t, `UPDATE migration SET name = '0001_init' WHERE name = '0000_init'`, `INSERT INTO migration VALUES ('0000_before', 'x', 1)`)
	cannotOpen(t, options(d), "newer version", "0000_before")
	d = migrated(t)
	d.Exec(t, `UPDATE migration SET checksum = 'x'`)
	cannotOpen(t, options(d), "0001_init is not the one")

	// What is no UTF-8 could be stored, and nobody could sort it.
	d = pgtest.New(t)
	ascii := d
	ascii.Name += "_ascii"
	d.Exec(t, `CREATE DATABASE `+ascii.Name+` OWNER bulkhead_owner ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0`)
	t.Cleanup(func() { d.Exec(t, `DROP DATABASE `+ascii.Name+` WITH (FORCE)`) })
	ascii.URL, ascii.OwnerURL = strings.Replace(d.URL, d.Name, ascii.Name, 1), strings.Replace(d.OwnerURL, d.Name, ascii.Name, 1)
	if err := migrate(ascii); err != nil {
		t.Fatal(err)
	}
	cannotOpen(t, options(ascii), "the database is encoded in SQL_ASCII instead of UTF8")

	// The user is there, made for the other databases; the tables are not.
	cannotOpen(t, options(pgtest.New(t)), "the database is empty", "gateway migrate")
}

func TestOpenRefusesURLs(t *testing.T) {
	f := func(o store.Options, want string) {
		t.Helper()
		cannotOpen(t, o, want)
	}
	f(store.Options{Path: "x", URL: "postgres://a@127.0.0.1/b"}, "both a path and a URL")
	f(store.Options{URL: "postgres://gateway:pass\nword@host:port"}, "cannot read the URL of the store")
	f(store.Options{URL: "postgres://gateway:passw0rd@127.0.0.1:1/x"}, "cannot open store gateway@127.0.0.1:1/x")
	d := migrated(t)
	f(store.Options{URL: strings.Replace(d.URL, "run", "wr0ng", 1)}, "28P01") // wrong password
}

func TestOwner(t *testing.T) {
	f := func(change func(o *store.Options), want string) {
		t.Helper()
		d := pgtest.New(t)
		o := options(d)
		change(&o)
		db, err := store.OpenOwner(t.Context(), o)
		if err == nil {
			err = db.Migrate(t.Context())
			db.Close()
		}
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("error %v, want %q", err, want)
		}
	}
	f(func(o *store.Options) { o.URL = o.OwnerURL }, "must not run as the owner")
	f(func(o *store.Options) { o.OwnerURL = "" }, "both the URL of the gateway and that of the owner")
	f(func(o *store.Options) { o.URL = "" }, "both the URL of the gateway and that of the owner")
	f(func(o *store.Options) { o.URL = strings.Replace(o.URL, "/t", "/other", 1) }, "the owner's URL is of database")
	f(func(o *store.Options) { o.Path = "x" }, "both a path and a URL")

	// An owner who may not make roles says what is to be done.
	d := pgtest.New(t)
	d.Exec(t, `ALTER ROLE bulkhead_owner NOCREATEROLE`)
	t.Cleanup(func() { d.Exec(t, `ALTER ROLE bulkhead_owner CREATEROLE`) })
	o := options(d)
	o.URL = strings.Replace(o.URL, "gateway:", d.Name+"_user:", 1)
	db, err := store.OpenOwner(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.Migrate(t.Context()); err == nil || !strings.Contains(err.Error(), "have an administrator run CREATE ROLE") {
		t.Errorf("error %v", err)
	}
	// After that it goes on, without the right.
	d.Exec(t, `CREATE ROLE `+d.Name+`_user LOGIN PASSWORD 'run''time'`, `GRANT bulkhead_runtime TO `+d.Name+`_user`)
	t.Cleanup(func() { d.Exec(t, "DROP ROLE "+d.Name+"_user") })
	if err := db.Migrate(t.Context()); err != nil {
		t.Error(err)
	}
	open(t, o).Close()

	// The owner is not held by a company, so it works for none.
	defer func() {
		if recover() == nil {
			t.Error("the owner works for an operator")
		}
	}()
	_, _, _ = db.Companies(t.Context(), act(t, db), pageOfAll)
}

// TestMigrateTogetherPostgres lets several gateways migrate one database at once.
func TestMigrateTogetherPostgres(t *testing.T) {
	d := pgtest.New(t)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			db, err := store.OpenOwner(t.Context(), options(d))
			if err != nil {
				t.Error(err)
				return
			}
			defer db.Close()
			if _, err := db.Pending(t.Context()); err != nil {
				t.Error(err)
			}
			if err := db.Migrate(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	open(t, options(d))
}

// TestMigrateStepsPostgres takes steps that fail half way, and one that a table
// in use holds up.
func TestMigrateStepsPostgres(t *testing.T) {
	d := pgtest.New(t)
	db, err := store.OpenOwner(t.Context(), options(d))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	c := pgtest.As(t, d.AdminURL)
	f := func(wantErr, wantTables string, steps ...string) {
		t.Helper()
		err := store.MigrateSteps(t.Context(), db, steps...)
		if (err == nil) != (wantErr == "") || err != nil && !strings.Contains(err.Error(), wantErr) {
			t.Errorf("error %v, want %q", err, wantErr)
		}
		got := column(t, c, `SELECT relname::text FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND relname <> 'migration' ORDER BY 1`)
		if got != wantTables {
			t.Errorf("tables %q, want %q", got, wantTables)
		}
	}
	one, two := []string{"0001_one", "CREATE TABLE one (id TEXT)"}, []string{"0002_two", "CREATE TABLE two (id TEXT); INSERT INTO one VALUES ('x')"}
	f("cannot migrate to 0001_one", "", "0001_one", one[1]+"; INSERT INTO nowhere VALUES (1)")
	f("", "one", one...)
	f("cannot migrate to 0002_two", "one", one[0], one[1], "0002_two", two[1]+"; SELECT 1 / 0")
	// A caller who does not wait for a table that is in use leaves nothing.
	tx, err := c.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), `LOCK TABLE one`); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := store.MigrateSteps(ctx, db, append(one, two...)...); err == nil {
		t.Error("migrated a table in use")
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	f("", "one, two", append(one, two...)...)
	f("", "one, two", append(one, two...)...)
	f("newer version of the gateway: migration 0002_two", "one, two", one...)
}
