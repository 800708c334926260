package store_test

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"bulkhead/ledger"
	"bulkhead/store"
	"bulkhead/store/pgtest"
)

// column returns the rows of a statement that finds one column of text.
func column(t *testing.T, c *pgx.Conn, text string, args ...any) string {
	t.Helper()
	found, err := c.Query(t.Context(), text, args...)
	if err != nil {
		t.Fatal(err)
	}
	all, err := pgx.CollectRows(found, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(all, ", ")
}

// schemaProblems returns what in a live schema is against the rules for it.
func schemaProblems(t *testing.T, d pgtest.Database) (bad []string) {
	t.Helper()
	c := pgtest.As(t, d.AdminURL)
	f := func(what, text string, args ...any) {
		t.Helper()
		if found := column(t, c, text, args...); found != "" {
			bad = append(bad, what+": "+found)
		}
	}
	listed := append(store.CompanyTables(), store.GlobalTables...)
	f("on no list", `SELECT relname::text FROM pg_class WHERE relkind IN ('r', 'p', 'v', 'm', 'f')
		AND relnamespace = 'public'::regnamespace AND relname <> ALL ($1) ORDER BY 1`, listed)
	f("does not begin with company_id", `SELECT i.indexrelid::regclass::text FROM pg_index AS i
		JOIN pg_class AS c ON c.oid = i.indrelid
		JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = i.indkey[0]
		WHERE c.relname = ANY ($1) AND a.attname <> 'company_id' ORDER BY 1`, store.CompanyTables())
	f("may be NULL", `SELECT table_name::text FROM information_schema.columns
		WHERE table_name = ANY ($1) AND column_name = 'company_id' AND is_nullable = 'YES'`, store.CompanyTables())
	f("sorts by language", `SELECT table_name || '.' || column_name FROM information_schema.columns
		WHERE table_name = ANY ($1) AND table_name <> 'migration' AND data_type = 'text'
		AND collation_name IS DISTINCT FROM 'C' ORDER BY 1`, listed)
	f("runs as its owner", `SELECT proname::text FROM pg_proc WHERE prosecdef AND pronamespace = 'public'::regnamespace`)
	f("is for everybody", `SELECT table_name || ' ' || privilege_type FROM information_schema.table_privileges
		WHERE grantee = 'PUBLIC' AND table_schema = 'public'`)
	return bad
}

func TestPostgresSchema(t *testing.T) {
	if bad := schemaProblems(t, migrated(t)); len(bad) > 0 {
		t.Error(strings.Join(bad, "\n"))
	}
	// Each rule, broken.
	f := func(ddl, want string) {
		t.Helper()
		d := migrated(t)
		d.Exec(t, ddl)
		if bad := schemaProblems(t, d); len(bad) != 1 || bad[0] != want {
			t.Errorf("%s: found %q, want %q", ddl, bad, want)
		}
	}
	f(`CREATE TABLE stray (id BIGINT)`, "on no list: stray")
	f(`CREATE VIEW everything AS SELECT * FROM entry`, "on no list: everything")
	f(`CREATE INDEX i ON entry (model, company_id)`, "does not begin with company_id: i")
	f(`ALTER TABLE entry DROP CONSTRAINT entry_pkey; ALTER TABLE entry ALTER company_id DROP NOT NULL`, "may be NULL: entry")
	f(`ALTER TABLE entry ADD extra TEXT`, "sorts by language: entry.extra")
	f(`CREATE FUNCTION f() RETURNS BIGINT LANGUAGE sql SECURITY DEFINER AS 'SELECT count(*) FROM entry'`, "runs as its owner: f")
	f(`GRANT SELECT ON entry TO PUBLIC`, "is for everybody: entry SELECT")
}

// TestEntriesInOrder checks that a page of entries is read from the primary key
// as it is, and not sorted first.
func TestEntriesInOrder(t *testing.T) {
	d := migrated(t)
	db := open(t, options(d))
	s := company(t, db, "acme")
	if err := db.AppendEntries(t.Context(), []ledger.Booked{{Scope: s, Entry: ledger.Entry{ID: "att_1"}}}); err != nil {
		t.Fatal(err)
	}
	c := pgtest.As(t, d.URL) // row-level security must not be in the way
	for _, text := range store.EntryLists() {
		err := as(t, c, s.ID().String(), func(tx pgx.Tx) error {
			// The table is too small for the planner to care.
			if _, err := tx.Exec(t.Context(), `SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off`); err != nil {
				return err
			}
			plan := column(t, tx.Conn(), "EXPLAIN "+text, s.ID().String(), "", "att_9", 10)
			if !strings.Contains(plan, "entry_pkey") || strings.Contains(plan, "Sort") {
				t.Errorf("%s\n%s", text, plan)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
}

// BenchmarkAppendEntriesPostgres is BenchmarkAppendEntries on PostgreSQL.
func BenchmarkAppendEntriesPostgres(b *testing.B) {
	db := open(b, options(migrated(b)))
	store.AppendMany(b, db, company(b, db, "acme"))
}
