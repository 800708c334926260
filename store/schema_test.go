package store

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"bulkhead/audit"
	"bulkhead/tenant"
	"bulkhead/tenant/tenanttest"
)

func openHere(t testing.TB) *DB {
	t.Helper()
	db, err := Open(t.Context(), Options{Path: filepath.Join(t.TempDir(), "data", "bulkhead.db")})
	if err != nil {
		t.Fatal(err)
	}
	db.KeyAudit(auditKey)
	t.Cleanup(func() { db.Close() })
	return db
}

var auditKey = []byte("a key for the chains of the tests")

// strings asks the database for one column of text.
func (db *DB) strings(t testing.TB, text string, args ...any) (all []string) {
	t.Helper()
	found, err := db.d.(*sqlite).db.QueryContext(t.Context(), text, args...)
	if err != nil {
		t.Fatalf("%s: %s", text, err)
	}
	defer found.Close()
	for found.Next() {
		var s string
		if err := found.Scan(&s); err != nil {
			t.Fatal(err)
		}
		all = append(all, s)
	}
	if err := found.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}

func TestSchema(t *testing.T) {
	db := openHere(t)
	if err := db.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	if bad := schemaProblems(t, db); len(bad) > 0 {
		t.Error(strings.Join(bad, "\n"))
	}
	// Each rule, broken.
	f := func(ddl, want string) {
		t.Helper()
		db := openHere(t)
		if err := db.Migrate(t.Context()); err != nil {
			t.Fatal(err)
		}
		db.strings(t, ddl)
		if bad := schemaProblems(t, db); len(bad) != 1 || !strings.Contains(bad[0], want) {
			t.Errorf("%s: found %q, want %q", ddl, bad, want)
		}
	}
	f("CREATE TABLE stray (id TEXT)", "stray is on no list")
	f("DROP TABLE route", "route is not there")
	f("CREATE INDEX i ON project (created_at, company_id)", "i of project begins with created_at")
	f("DROP TABLE route; CREATE TABLE route (company_id TEXT, name TEXT NOT NULL, PRIMARY KEY (company_id, name))", "NULL")
	f("DROP TABLE route; CREATE TABLE route (company_id TEXT NOT NULL, name TEXT NOT NULL, PRIMARY KEY (name))", "begins with name")
	f("DROP TABLE route; CREATE TABLE route (company_id TEXT NOT NULL, name TEXT NOT NULL)", "no primary key")
	f(`DROP TABLE route; CREATE TABLE route (company_id TEXT NOT NULL PRIMARY KEY, project_id TEXT REFERENCES project (id))`, "refers to project")
}

// schemaProblems compares the live schema with the lists of tables and the
// rules for a company's.
func schemaProblems(t *testing.T, db *DB) (bad []string) {
	t.Helper()
	company := companyTableNames()
	live := db.strings(t, `SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'`)
	for _, name := range append(company, globalTables...) {
		if !slices.Contains(live, name) {
			bad = append(bad, name+" is not there")
		}
	}
	for _, table := range live {
		if slices.Contains(globalTables, table) {
			continue
		}
		if !slices.Contains(company, table) {
			bad = append(bad, table+" is on no list")
			continue
		}
		if nulls := db.strings(t, `SELECT name FROM pragma_table_info($1) WHERE name = 'company_id' AND "notnull" = 1`, table); len(nulls) != 1 {
			bad = append(bad, table+".company_id may be NULL")
		}
		if keys := db.strings(t, `SELECT name FROM pragma_index_list($1) WHERE origin = 'pk'`, table); len(keys) != 1 {
			bad = append(bad, table+" has no primary key")
		}
		for _, index := range db.strings(t, `SELECT name FROM pragma_index_list($1)`, table) {
			if first := db.strings(t, `SELECT name FROM pragma_index_info($1) WHERE seqno = 0`, index); first[0] != "company_id" {
				bad = append(bad, fmt.Sprintf("%s of %s begins with %s", index, table, first[0]))
			}
		}
		for _, ref := range db.strings(t, `SELECT "table" || ' ' || group_concat("from" || '>' || "to", ' ')
			FROM (SELECT * FROM pragma_foreign_key_list($1) ORDER BY id, seq) GROUP BY id`, table) {
			fields := strings.Fields(ref)
			if fields[1] != "company_id>company_id" || (len(fields) < 3) != (fields[0] == "company") {
				bad = append(bad, table+" refers to "+ref)
			}
		}
	}
	return bad
}

func TestAuditIsOnlyAdded(t *testing.T) {
	db, s := openWithCompany(t)
	f := func(status, text string, refused bool) {
		t.Helper()
		db.strings(t, `UPDATE company SET status = $1`, status)
		_, err := db.d.(*sqlite).db.ExecContext(t.Context(), text)
		if (err != nil) != refused {
			t.Errorf("%s while %s: error %v", text, status, err)
		}
	}
	for _, status := range []string{"active", "suspended", "erased", "erasing"} {
		f(status, `UPDATE audit SET actor = 'x'`, true)
		f(status, `UPDATE operator_act SET actor = 'x'`, true)
		f(status, `DELETE FROM operator_act`, true)
		f(status, `DELETE FROM audit`, status != "erasing")
	}
	events, _, err := db.AuditEvents(t.Context(), s, audit.Filter{}, pageOfAll)
	if err != nil || len(events) != 0 {
		t.Errorf("%d events left: %v", len(events), err)
	}
}

func openWithCompany(t testing.TB) (*DB, tenant.Scope) {
	t.Helper()
	db := openHere(t)
	if err := db.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	dir := tenant.NewDirectory(db, db, tenant.NewMinter(tenanttest.Pepper), tenant.Options{})
	a, err := dir.Gateway().Begin(t.Context(), "company.create", "")
	if err != nil {
		t.Fatal(err)
	}
	s := dir.NewCompany(a, "acme")
	err = db.CreateCompany(t.Context(), a, tenant.NewCompany{Scope: s, Project: tenant.Project{ID: "p", Name: "p"},
		Account: tenant.ServiceAccount{ID: "a", ProjectID: "p", Name: "a"}})
	if err != nil {
		t.Fatal(err)
	}
	return db, s
}

// TestForeignKeys checks that the database itself refuses a row that points
// across companies.
func TestForeignKeys(t *testing.T) {
	db, s := openWithCompany(t)
	f := func(company, project string, refused bool) {
		t.Helper()
		_, err := db.d.(*sqlite).db.ExecContext(t.Context(),
			`INSERT INTO model_limit (company_id, project_id, model, limits) VALUES ($1, $2, 'm', '{}')`, company, project)
		if (err != nil) != refused {
			t.Errorf("%s %s: error %v", company, project, err)
		}
	}
	f(s.ID().String(), "p", false)
	f("org-other", "p", true)
	f(s.ID().String(), "q", true)
}

// TestErasedBytes looks for what was erased in the files themselves.
func TestErasedBytes(t *testing.T) {
	db, s := openWithCompany(t)
	dir := filepath.Dir(db.o.Path)
	canary := []byte("canary-7f1d9c-of-the-data-key")
	if _, err := db.PutDataKey(t.Context(), s, canary); err != nil {
		t.Fatal(err)
	}
	found := func() bool {
		t.Helper()
		files, err := filepath.Glob(filepath.Join(dir, "*"))
		if err != nil || len(files) == 0 {
			t.Fatal(files, err)
		}
		for _, name := range files {
			b, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			if bytes.Contains(b, canary) {
				return true
			}
		}
		return false
	}
	if !found() {
		t.Fatal("the canary is not even stored")
	}
	d := tenant.NewDirectory(db, db, tenant.NewMinter(tenanttest.Pepper), tenant.Options{})
	id := s.ID().String()
	a, err := d.Gateway().Begin(t.Context(), "company.erase", id)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.SetCompanyStatus(t.Context(), a, id, tenant.Erasing); err != nil {
		t.Fatal(err)
	}
	if _, err := db.EraseCompany(t.Context(), a, s); err != nil {
		t.Fatal(err)
	}
	if found() {
		t.Error("the erased data key is still in the files")
	}
}

// TestEntriesAreNotSorted checks that a page of entries is read from the
// primary key as it is.
func TestEntriesAreNotSorted(t *testing.T) {
	db, s := openWithCompany(t)
	for _, st := range []statement{entryList.ascending, entryList.descending} {
		found, err := db.d.(*sqlite).db.QueryContext(t.Context(), "EXPLAIN QUERY PLAN "+st.text, s.ID().String(), "", lastID, 10)
		if err != nil {
			t.Fatal(err)
		}
		for found.Next() {
			var id, parent, unused int
			var detail string
			if err := found.Scan(&id, &parent, &unused, &detail); err != nil {
				t.Fatal(err)
			}
			if !strings.HasPrefix(detail, "SEARCH entry USING PRIMARY KEY") {
				t.Errorf("%s: %s", st.name, detail)
			}
		}
		if err := errors.Join(found.Err(), found.Close()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestFileModes(t *testing.T) {
	db, _ := openWithCompany(t)
	dir := filepath.Dir(db.o.Path)
	f := func(name string, want os.FileMode) {
		t.Helper()
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("%s has mode %o, want %o", name, got, want)
		}
	}
	f(dir, 0o700)
	for _, suffix := range []string{"", "-wal", "-shm"} {
		f(db.o.Path+suffix, 0o600)
	}
	// What is no database is refused.
	junk := filepath.Join(dir, "junk")
	if err := os.WriteFile(junk, bytes.Repeat([]byte("no database"), 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), Options{Path: junk}); err == nil || !strings.Contains(err.Error(), "cannot open store") {
		t.Errorf("error %v", err)
	}
	// A name with characters that mean something in a URL.
	odd := filepath.Join(dir, "a?b%20#c.db")
	other, err := Open(t.Context(), Options{Path: odd})
	if err != nil {
		t.Fatal(err)
	}
	other.Close()
	f(odd, 0o600)
	if info, err := os.Stat(odd); err != nil || info.Size() == 0 {
		t.Error("another file was opened")
	}
}
