package store

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	"bulkhead/openai"
	"bulkhead/tenant"
)

var pageOfAll = openai.Page{Limit: 1000}

func TestMigrate(t *testing.T) {
	db := openHere(t)
	ctx := t.Context()
	pending, err := db.Pending(ctx)
	if err != nil || len(pending) == 0 || pending[0] != "0001_init" {
		t.Fatalf("pending %q, %v", pending, err)
	}
	for range 2 {
		if err := db.Migrate(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if pending, err = db.Pending(ctx); err != nil || len(pending) != 0 {
		t.Errorf("pending %q, %v", pending, err)
	}
	for _, kind := range []string{"sqlite", "postgres"} {
		all, err := readMigrations(migrationFiles, kind)
		if err != nil || len(all) == 0 || !strings.Contains(all[0].text, "CREATE TABLE company") || !strings.Contains(all[0].text, "CREATE TRIGGER") {
			t.Errorf("%s: %v %v", kind, all, err)
		}
	}
}

func TestMigrateSteps(t *testing.T) {
	db := openHere(t)
	one := migration{"0001_one", "CREATE TABLE one (id TEXT); INSERT INTO one (id) VALUES ('x');"}
	two := migration{"0002_two", "CREATE TABLE two (id TEXT);"}
	f := func(wantErr, wantTables string, all ...migration) {
		t.Helper()
		err := db.migrate(t.Context(), all)
		if (err == nil) != (wantErr == "") || err != nil && !strings.Contains(err.Error(), wantErr) {
			t.Errorf("error %v, want %q", err, wantErr)
		}
		got := db.strings(t, `SELECT name FROM sqlite_schema WHERE type = 'table' AND name <> 'migration' ORDER BY name`)
		if strings.Join(got, " ") != wantTables {
			t.Errorf("tables %q, want %s", got, wantTables)
		}
	}
	f("", "one", one)
	// A step that fails half way leaves nothing of itself, and can be taken later.
	f("cannot migrate to 0002_two", "one", one, migration{"0002_two", two.text + "INSERT INTO nowhere (id) VALUES (1);"})
	f("", "one two", one, two)
	f("", "one two", one, two)
	// What was applied must not change, vanish or come in between.
	f("0001_one is not the one", "one two", migration{one.name, one.text + " "}, two)
	f("newer version of the gateway: migration 0002_two", "one two", one)
	f("but not 0001_and before it", "one two", one, migration{"0001_and", "CREATE TABLE late (id TEXT)"}, two)
	if err := db.Migrate(t.Context()); err == nil {
		t.Error("a database with other steps was taken")
	}
	if _, err := db.Pending(t.Context()); err == nil {
		t.Error("a database with other steps was taken")
	}
}

// TestMigrateDies ends the process in the middle of a step, as far as the
// database can tell: the connection goes without a commit.
func TestMigrateDies(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bulkhead.db")
	db, err := Open(t.Context(), Options{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	all, err := readMigrations(migrationFiles, "sqlite")
	if err != nil {
		t.Fatal(err)
	}
	err = db.global(ctx, writing, func(x *tx) error {
		if err := x.s.script(ctx, sqlText(all[0].text)); err != nil {
			return err
		}
		cancel()
		return ctx.Err()
	})
	if err == nil {
		t.Fatal("committed")
	}
	db.Close()
	if db, err = Open(t.Context(), Options{Path: path}); err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if tables := db.strings(t, `SELECT name FROM sqlite_schema`); len(tables) != 0 {
		t.Errorf("left behind: %q", tables)
	}
	if err := db.Migrate(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestMigrateTogether lets several gateways migrate one file at once.
func TestMigrateTogether(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bulkhead.db")
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			db, err := Open(t.Context(), Options{Path: path})
			if err != nil {
				t.Error(err)
				return
			}
			defer db.Close()
			if err := db.Migrate(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

// TestTwoWriters lets two stores write to one file, as a gateway and a tool
// beside it may. What each has read before it writes must still hold.
func TestTwoWriters(t *testing.T) {
	one, s := openWithCompany(t)
	two, err := Open(t.Context(), Options{Path: one.o.Path})
	if err != nil {
		t.Fatal(err)
	}
	two.KeyAudit(auditKey)
	defer two.Close()
	var wg sync.WaitGroup
	for i, db := range []*DB{one, two} {
		wg.Go(func() {
			for n := range 30 {
				a := tenant.ServiceAccount{ID: fmt.Sprint("a", i, "_", n), ProjectID: "p", Name: "a"}
				if err := db.CreateServiceAccount(t.Context(), s, a, nil); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestReadMigrations(t *testing.T) {
	file := func(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }
	all, err := readMigrations(fstest.MapFS{
		"migration/0002_b.sql":          file("shared b"),
		"migration/0001_a.sql":          file("shared a"),
		"migration/sqlite/0001_a.sql":   file("sqlite a"),
		"migration/postgres/0001_a.sql": file("postgres a"),
		"migration/sqlite/0003_c.sql":   file("sqlite c"),
	}, "sqlite")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range all {
		got = append(got, m.name+": "+strings.ReplaceAll(m.text, "\n", ";"))
	}
	want := "0001_a: shared a;sqlite a;|0002_b: shared b;|0003_c: sqlite c;"
	if strings.Join(got, "|") != want {
		t.Errorf("got %q", got)
	}
}
