package store

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
)

//go:embed migration
var migrationFiles embed.FS

var (
	migrationTable = globalStatement{"migration_table",
		`CREATE TABLE IF NOT EXISTS migration (
			name       TEXT   NOT NULL PRIMARY KEY,
			checksum   TEXT   NOT NULL,
			applied_at BIGINT NOT NULL
		)`}
	migrationsApplied = globalStatement{"migrations_applied", `SELECT name, checksum FROM migration`}
	migrationRecorded = globalStatement{"migration_recorded",
		`INSERT INTO migration (name, checksum, applied_at) VALUES ($1, $2, $3)`}
)

// migration is one step of the schema. Steps only go forward, and a step that
// has gone out never changes: the next one puts right what it did.
type migration struct {
	name string // "0001_init"
	text string // what both databases share, then what only this kind has
}

func (m migration) checksum() string {
	sum := sha256.Sum256([]byte(m.text))
	return hex.EncodeToString(sum[:])
}

// readMigrations returns the steps for one kind of database, in order.
func readMigrations(files fs.FS, kind string) ([]migration, error) {
	names := map[string]string{}
	for _, dir := range []string{"migration", path.Join("migration", kind)} {
		found, err := fs.Glob(files, path.Join(dir, "*.sql"))
		if err != nil {
			return nil, err
		}
		for _, file := range found {
			b, err := fs.ReadFile(files, file)
			if err != nil {
				return nil, err
			}
			names[strings.TrimSuffix(path.Base(file), ".sql")] += string(b) + "\n"
		}
	}
	var all []migration
	for _, name := range slices.Sorted(maps.Keys(names)) {
		all = append(all, migration{name, names[name]})
	}
	return all, nil
}

// Migrate brings the schema up to this version of the gateway, each step in
// its own transaction: a crash leaves all of a step or nothing. It does nothing
// where there is nothing to do. It refuses a database that a newer version has
// migrated, and one whose steps were not these. Only the owner can migrate
// PostgreSQL, and the user of Options.URL is given its rights then; as Open
// opens it, there is nothing to do.
func (db *DB) Migrate(ctx context.Context) error {
	all, err := readMigrations(migrationFiles, db.d.kind())
	if err != nil {
		return err
	}
	if !db.d.migrates() {
		return db.migrated(ctx, all)
	}
	if err := db.migrate(ctx, all); err != nil {
		return err
	}
	return db.d.grant(ctx)
}

// migrated fails unless all steps were taken.
func (db *DB) migrated(ctx context.Context, all []migration) error {
	return db.global(ctx, reading, func(t *tx) error {
		pending, err := t.pending(all)
		if newer, ok := errors.AsType[*newerError](err); ok && newer.name > all[len(all)-1].name {
			// While gateways are replaced one by one, those of the version before
			// start too: a step may not be one that they cannot live with.
			return nil
		}
		switch {
		case errors.Is(err, errNoTable):
			return errors.New("the database is empty: run `gateway migrate` as its owner")
		case err != nil:
			return err
		case len(pending) > 0:
			return fmt.Errorf("the database is not migrated to %s: run `gateway migrate` as its owner", pending[len(pending)-1].name)
		}
		return nil
	})
}

func (db *DB) migrate(ctx context.Context, all []migration) error {
	for {
		left := 0
		err := db.global(ctx, writing, func(t *tx) error {
			// In the transaction, so that of two gateways one finds it done.
			if err := t.s.lockSchema(ctx); err != nil {
				return fmt.Errorf("cannot lock the schema: %w", err)
			}
			if _, err := t.exec(migrationTable); err != nil {
				return err
			}
			pending, err := t.pending(all)
			if left = len(pending); err != nil || left == 0 {
				return err
			}
			next := pending[0]
			if err := t.s.script(ctx, sqlText(next.text)); err != nil {
				return fmt.Errorf("cannot migrate to %s: %w", next.name, err)
			}
			_, err = t.exec(migrationRecorded, next.name, next.checksum(), micros(t.now))
			return err
		})
		if err != nil || left <= 1 {
			return err
		}
	}
}

// Pending returns the names of the steps that Migrate would take. It fails where
// Migrate would refuse.
func (db *DB) Pending(ctx context.Context) ([]string, error) {
	all, err := readMigrations(migrationFiles, db.d.kind())
	if err != nil || !db.d.migrates() {
		return nil, err // Open has refused what was not migrated
	}
	var names []string
	err = db.global(ctx, writing, func(t *tx) error {
		if err := t.s.lockSchema(ctx); err != nil {
			return err
		}
		if _, err := t.exec(migrationTable); err != nil {
			return err
		}
		pending, err := t.pending(all)
		for _, m := range pending {
			names = append(names, m.name)
		}
		return err
	})
	return names, err
}

// newerError says that a step was taken that this version does not know.
type newerError struct{ name string }

func (e *newerError) Error() string {
	return "the database was migrated by a newer version of the gateway: migration " + e.name + " is not known here"
}

// pending returns the steps of all that were not taken yet.
func (t *tx) pending(all []migration) ([]migration, error) {
	applied := map[string]string{}
	err := t.query(migrationsApplied, func(r row) error {
		var name, checksum string
		err := r.Scan(&name, &checksum)
		applied[name] = checksum
		return err
	})
	if err != nil {
		return nil, err
	}
	var pending []migration
	for _, m := range all {
		switch checksum, done := applied[m.name]; {
		case !done:
			pending = append(pending, m)
		case len(pending) > 0:
			return nil, fmt.Errorf("the database has migration %s, but not %s before it", m.name, pending[0].name)
		case checksum != m.checksum():
			return nil, fmt.Errorf("migration %s is not the one that the database was migrated with", m.name)
		}
		delete(applied, m.name)
	}
	if unknown := slices.Sorted(maps.Keys(applied)); len(unknown) > 0 {
		if len(pending) > 0 {
			return nil, fmt.Errorf("the database has migration %s, but not %s", unknown[0], pending[0].name)
		}
		return nil, &newerError{unknown[0]}
	}
	return pending, nil
}
