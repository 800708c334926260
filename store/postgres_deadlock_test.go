package store_test

import (
	"context"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"bulkhead/ledger"
	"bulkhead/store/pgtest"
)

// TestDeadlock has a batch of entries and another transaction wait for each
// other: PostgreSQL breaks the batch, which comes again and is there, once.
func TestDeadlock(t *testing.T) {
	d := migrated(t)
	c, look := pgtest.As(t, d.AdminURL), pgtest.As(t, d.AdminURL)
	ctx := t.Context()
	exec := func(q interface {
		QueryRow(context.Context, string, ...any) pgx.Row
	}, sql string, to ...any) {
		t.Helper()
		if err := q.QueryRow(ctx, sql).Scan(to...); err != nil && err != pgx.ErrNoRows {
			t.Fatal(err)
		}
	}
	// The batch looks first, and after the other one waits too.
	exec(c, `DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET deadlock_timeout = ''3s''', current_database()); END $$`)
	db := open(t, options(d))
	s := company(t, db, "acme")
	tx, err := c.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	exec(tx, `SET LOCAL deadlock_timeout = '1h'`)
	var row string
	for _, text := range rowsOf {
		if strings.HasPrefix(text, "INSERT INTO entry ") {
			row = strings.Replace(text, "$1", "'"+s.ID().String()+"'", 1)
		}
	}
	exec(tx, strings.Replace(row, "'e'", "'att_2'", 1))

	done := make(chan error, 1)
	go func() {
		var batch []ledger.Booked
		for _, id := range []string{"att_1", "att_2"} {
			batch = append(batch, ledger.Booked{Scope: s, Entry: ledger.Entry{ID: id}})
		}
		done <- db.AppendEntries(ctx, batch)
	}()
	for waiting := 0; waiting == 0; {
		exec(look, `SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE NOT l.granted AND a.datname = current_database()`, &waiting)
	}
	exec(tx, strings.Replace(row, "'e'", "'att_1'", 1)) // until the batch is broken
	if err := tx.Rollback(ctx); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	var there int
	exec(look, `SELECT count(*) FROM entry WHERE company_id = '`+s.ID().String()+`'`, &there)
	if there != 2 {
		t.Errorf("%d entries", there)
	}
}
