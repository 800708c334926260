package store

import (
	"context"
	"testing"
)

// CompanyTables are the tables with a company's rows.
func CompanyTables() []string { return companyTableNames() }

// GlobalTables are the others.
var GlobalTables = globalTables

// EntryLists are the texts of the statements that list entries.
func EntryLists() []string { return []string{entryList.ascending.text, entryList.descending.text} }

// MigrateSteps migrates with other steps than those there are: pairs of a name
// and a text.
func MigrateSteps(ctx context.Context, db *DB, steps ...string) error {
	var all []migration
	for i := 0; i < len(steps); i += 2 {
		all = append(all, migration{steps[i], steps[i+1]})
	}
	return db.migrate(ctx, all)
}

// Freeze takes the lock that every change of a policy needs, as a gateway does
// that stops in the middle of one. thaw ends it.
func Freeze(t *testing.T, db *DB) (thaw func()) {
	t.Helper()
	x, err := db.d.begin(t.Context(), writing)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := x.exec(t.Context(), sqlText(changeCounted.text), nil); err != nil {
		t.Fatal(err)
	}
	return x.rollback
}

// PreparedOn returns how many statements the server has prepared on a
// connection of the store.
func PreparedOn(t *testing.T, db *DB) (n int) {
	t.Helper()
	ask(t, db, "SELECT count(*) FROM pg_prepared_statements", &n)
	return n
}

// LeftOn returns what the last transaction has left on a connection of the
// store: the company and the operator.
func LeftOn(t *testing.T, db *DB) (company, operator string) {
	t.Helper()
	ask(t, db, `SELECT COALESCE(current_setting('app.current_company_id', true), ''),
		COALESCE(current_setting('app.operator_act', true), '')`, &company, &operator)
	return company, operator
}

// ask runs one statement on a connection of the store, outside transactions.
func ask(t *testing.T, db *DB, text string, dest ...any) {
	t.Helper()
	p := db.d.(*postgres)
	c, err := p.pool.get(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer p.pool.put(c)
	if err := c.QueryRow(t.Context(), text).Scan(dest...); err != nil {
		t.Fatal(err)
	}
}

// Tamper runs statements on a SQLite store past its own, as whoever can write
// to the file.
func Tamper(t testing.TB, db *DB, statements ...string) {
	t.Helper()
	for _, text := range statements {
		if _, err := db.d.(*sqlite).db.ExecContext(t.Context(), text); err != nil {
			t.Fatalf("%s: %s", text, err)
		}
	}
}
