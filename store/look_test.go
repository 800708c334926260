package store_test

import (
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"bulkhead/store"
	"bulkhead/store/pgtest"
)

func look(t *testing.T, o store.Options) store.Looked {
	t.Helper()
	l, err := store.Look(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(l.Where, "run'time") || strings.Contains(l.Where, "owner@") && strings.Contains(l.Where, ":owner") {
		t.Errorf("the password is in %q", l.Where)
	}
	return l
}

func TestLookSQLite(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	o := store.Options{Path: filepath.Join(dir, "bulkhead.db")}
	if l := look(t, o); !l.Absent || l.Used {
		t.Errorf("of nothing: %+v", l)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("looking made the folder")
	}
	db, err := store.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if l := look(t, o); !l.Absent || !strings.HasPrefix(l.Version, "3.") {
		t.Errorf("of an empty file: %+v", l)
	}
	if err := db.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	f := func(what string, used bool, check string) {
		t.Helper()
		l := look(t, o)
		if l.Absent || l.Used != used || l.MasterKeyCheck != check || len(l.Pending)+len(l.Problems)+len(l.Missing) > 0 || l.Newer != "" {
			t.Errorf("%s: %+v", what, l)
		}
	}
	f("migrated", false, "")
	if _, err := db.Installation(t.Context(), store.MasterKeyCheck, "abc"); err != nil {
		t.Fatal(err)
	}
	f("while it is open", false, "abc")
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	before := files(t, dir)
	f("after it was closed", false, "abc")
	if after := files(t, dir); !slices.Equal(before, after) {
		t.Errorf("looking left %q of %q", after, before)
	}
	if err := os.WriteFile(o.Path, []byte("this is no database, but a text that is long enough"), 0o600); err != nil {
		t.Fatal(err)
	}
	if l, err := store.Look(t.Context(), o); err == nil {
		t.Errorf("a file that is no database: %+v", l)
	}
}

func files(t *testing.T, dir string) (names []string) {
	t.Helper()
	found, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range found {
		names = append(names, f.Name())
	}
	return names
}

func TestLookPostgres(t *testing.T) {
	d := migrated(t)
	f := func(ddl string, problems, missing string) {
		t.Helper()
		d := migrated(t)
		if ddl != "" {
			d.Exec(t, ddl)
		}
		l := look(t, options(d))
		if got := strings.Join(l.Problems, "; "); !strings.Contains(got, problems) || (got == "") != (problems == "") {
			t.Errorf("%s: problems %q, want %q", ddl, got, problems)
		}
		if got := strings.Join(l.Missing, "; "); got != missing {
			t.Errorf("%s: missing %q, want %q", ddl, got, missing)
		}
	}
	f("", "", "")
	f("ALTER TABLE entry NO FORCE ROW LEVEL SECURITY", "table entry has no row-level security that is forced", "")
	f("REVOKE INSERT ON entry FROM bulkhead_runtime", "", "INSERT on entry")
	f("REVOKE UPDATE ON change_counter FROM bulkhead_runtime", "", "UPDATE on change_counter")
	f("REVOKE DELETE, UPDATE ON credential FROM bulkhead_runtime", "", "DELETE on credential; UPDATE on credential")
	f("REVOKE SELECT ON installation FROM bulkhead_runtime", "permission denied for table installation", "SELECT on installation")
	f("REVOKE SELECT ON project FROM bulkhead_runtime", "may not read table project", "SELECT on project")

	l := look(t, options(d))
	if l.Absent || l.Major < 14 || !strings.HasPrefix(l.Version, "1") || l.Used || !strings.HasPrefix(l.Where, "gateway@127.0.0.1:") {
		t.Errorf("%+v", l)
	}
	if l.Ahead > time.Second || l.Ahead < -time.Second {
		t.Errorf("the clock of this machine is %s apart from itself", l.Ahead)
	}
	d.Exec(t, "UPDATE migration SET name = '9999_later' WHERE name = '0001_init'")
	if l := look(t, options(d)); len(l.Problems) == 0 {
		t.Errorf("without its first migration: %+v", l)
	}
	d.Exec(t, "DELETE FROM migration")
	if l := look(t, options(d)); len(l.Pending) == 0 || !l.Absent {
		t.Errorf("without any migration: %+v", l)
	}
	d = migrated(t)
	d.Exec(t, "INSERT INTO migration VALUES ('9999_later', 'x', 1)")
	if l := look(t, options(d)); l.Newer != "9999_later" || len(l.Problems) > 0 || l.Absent {
		t.Errorf("of a newer version: %+v", l)
	}
	o := options(d)
	o.URL = strings.Replace(o.URL, "run%27time", "wr0ng", 1)
	if _, err := store.Look(t.Context(), o); err == nil || strings.Contains(err.Error(), "wr0ng") {
		t.Errorf("with a wrong password: %v", err)
	}
}

func TestLookAsOwner(t *testing.T) {
	d := migrated(t)
	f := func(what string, change func(*store.Options), problem, missing string) {
		t.Helper()
		o := options(d)
		o.OwnerURL = d.OwnerURL
		if change != nil {
			change(&o)
		}
		l, err := store.LookAsOwner(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(l.Problems, "; "); !strings.Contains(got, problem) || (got == "") != (problem == "") {
			t.Errorf("%s: problems %q, want %q", what, got, problem)
		}
		if got := strings.Join(l.Missing, "; "); !strings.Contains(got, missing) || (got == "") != (missing == "") {
			t.Errorf("%s: missing %q, want %q", what, got, missing)
		}
	}
	f("the owner", nil, "", "")
	f("the gateway's user", func(o *store.Options) { o.OwnerURL = o.URL }, "gateway's user too", "CREATE in the schema")
	d.Exec(t, "ALTER TABLE entry OWNER TO postgres")
	f("a table of another's", nil, "table entry belongs to postgres", "")
	empty := pgtest.New(t)
	f("another database", func(o *store.Options) { o.OwnerURL = empty.OwnerURL }, "this is database "+empty.Name, "")
	f("who may not make roles", func(o *store.Options) {
		d.Exec(t, "CREATE ROLE "+d.Name+"_plain LOGIN PASSWORD 'x'", "GRANT bulkhead_owner TO "+d.Name+"_plain")
		t.Cleanup(func() { d.Exec(t, "DROP ROLE "+d.Name+"_plain") })
		d.Exec(t, "ALTER TABLE entry OWNER TO bulkhead_owner")
		o.OwnerURL = withUser(t, o.OwnerURL, d.Name+"_plain", "x")
		o.URL = withUser(t, o.URL, d.Name+"_not_there", "x")
	}, "", "CREATEROLE")
}

func withUser(t *testing.T, text, user, password string) string {
	t.Helper()
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword(user, password)
	return u.String()
}
