package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"time"
)

// Looked is what a database says to somebody who only looks: nothing is made
// and nothing is changed. It is for finding out everything at once that Open,
// OpenOwner or Migrate would refuse, and what they would not see.
type Looked struct {
	// Where says which database it is, without the password.
	Where string
	// Version is that of the server, or of SQLite.
	Version string
	// Major is the first number of the server's version; 0 for SQLite.
	Major int
	// Ahead is how far the server's clock is before this machine's, negative
	// if it is behind, give or take half of what asking took. 0 for SQLite.
	Ahead time.Duration
	// Absent says that nothing is there yet: no file, or no schema.
	Absent bool
	// Pending are the names of the steps that Migrate would take.
	Pending []string
	// Newer is the name of a step that a newer version of the gateway took; ""
	// if there is none.
	Newer string
	// Problems are what Open refuses the database for, but for Pending, one
	// each. Missing are rights that the gateway needs and its user has not, as
	// "INSERT on entry".
	Problems, Missing []string
	// MasterKeyCheck tells one master key from another: what Installation
	// stored under that name when the database was first used. "" before.
	MasterKeyCheck string
	// Used says that a gateway has served with this database.
	Used bool
}

// Look looks at the database of o as the gateway uses it. The error says that
// it could not be reached, or not be read at all.
func Look(ctx context.Context, o Options) (l Looked, err error) {
	if o.URL != "" {
		return lookPostgres(ctx, o)
	}
	l.Where = o.Path
	if _, err := os.Stat(o.Path); errors.Is(err, os.ErrNotExist) {
		l.Absent = true
		return l, nil
	}
	d, err := openSQLiteToRead(ctx, o.Path)
	if err != nil {
		return l, err
	}
	db := newDB(d, o)
	defer db.Close()
	tables := 0
	err = db.global(ctx, reading, func(t *tx) error { return t.one(sqliteFacts, []any{&l.Version, &tables}) })
	if err != nil {
		return l, fmt.Errorf("cannot read store %q: %w", o.Path, err)
	}
	if l.Absent = tables == 0; l.Absent {
		return l, nil
	}
	return l, db.look(ctx, &l)
}

// sqliteFacts are the version of SQLite and whether there is a schema.
var sqliteFacts = globalStatement{"sqlite_facts",
	`SELECT sqlite_version(), count(*) FROM sqlite_master WHERE name = 'migration'`}

// look finds out what both kinds of database have.
func (db *DB) look(ctx context.Context, l *Looked) error {
	all, err := readMigrations(migrationFiles, db.d.kind())
	if err != nil {
		return err
	}
	err = db.global(ctx, reading, func(t *tx) error {
		pending, err := t.pending(all)
		for _, m := range pending {
			l.Pending = append(l.Pending, m.name)
		}
		return err
	})
	newer, isNewer := errors.AsType[*newerError](err)
	switch {
	case errors.Is(err, errNoTable):
		l.Absent = true
		return nil
	case isNewer && newer.name > all[len(all)-1].name:
		l.Newer = newer.name
	case err != nil:
		l.Problems = append(l.Problems, err.Error())
		return nil
	case len(l.Pending) == len(all):
		l.Absent = true
		return nil
	}
	return db.global(ctx, reading, func(t *tx) error {
		var keys int64
		if err := t.one(operatorKeysCounted, []any{&keys}); err != nil {
			return err
		}
		l.Used = keys > 0
		err := t.one(installationOne, []any{&l.MasterKeyCheck}, MasterKeyCheck)
		if errors.Is(err, errNoRow) {
			return nil
		}
		return err
	})
}

// MasterKeyCheck is the name under which Installation keeps what tells one
// master key from another.
const MasterKeyCheck = "master_key_check"

// openSQLiteToRead opens a file that is there, and writes nothing to it or
// beside it.
func openSQLiteToRead(ctx context.Context, path string) (*sqlite, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	query := url.Values{"mode": {"ro"}, "_pragma": {"busy_timeout(5000)"}}
	// The log is there while somebody has the file open, or after a crash. To
	// read without one SQLite would make it, and a reader does not remove it.
	if _, err := os.Stat(path + "-wal"); errors.Is(err, os.ErrNotExist) {
		query.Set("immutable", "1")
	}
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Path: path, RawQuery: query.Encode()}).String())
	if err != nil {
		return nil, err
	}
	s := &sqlite{db: db, writer: newPool(db, 1), reader: newPool(db, 1)}
	if err := s.connect(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot open store %q: %w", path, err), s.close())
	}
	return s, nil
}
