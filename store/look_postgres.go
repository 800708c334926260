package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

var (
	// serverFacts ends with the server's clock, in microseconds since 1970.
	serverFacts = globalStatement{"server_facts",
		`SELECT split_part(current_setting('server_version'), ' ', 1), current_setting('server_version_num')::int / 10000,
			(extract(epoch FROM clock_timestamp()) * 1000000)::bigint`}

	// rightsMissing finds which of the rights $2 on the tables $1, pair by pair,
	// the user has not.
	rightsMissing = globalStatement{"rights_missing",
		`SELECT n.need || ' on ' || n.name FROM unnest($1::text[], $2::text[]) AS n (name, need)
		JOIN pg_class AS c ON c.relname = n.name AND c.relnamespace = current_schema()::regnamespace
		WHERE NOT has_table_privilege(c.oid, n.need) ORDER BY n.name, n.need`}

	// ownerFacts says of the user whether it may make tables, whether it may make
	// the roles, and whether those are there.
	ownerFacts = globalStatement{"owner_facts",
		`SELECT COALESCE(has_schema_privilege(current_schema(), 'CREATE'), false), rolsuper OR rolcreaterole,
			EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'bulkhead_runtime'),
			EXISTS (SELECT 1 FROM pg_roles WHERE rolname = $1)
		FROM pg_roles WHERE rolname = current_user`}
)

// looking opens the database as one of its users, with one connection.
func looking(what, url string, o Options) (*DB, *pgconn.Config, error) {
	config, err := parseURL(what, url, o)
	if err != nil {
		return nil, nil, err
	}
	timeout := cmp.Or(o.StatementTimeout, defaultStatementTimeout)
	return newDB(&postgres{pool: newPGPool(config, 1), timeout: timeout + config.ConnectTimeout}, o), &config.Config, nil
}

func lookPostgres(ctx context.Context, o Options) (l Looked, err error) {
	db, config, err := looking("URL", o.URL, o)
	if err != nil {
		return l, err
	}
	defer db.Close()
	if err := db.meet(ctx, config, &l); err != nil {
		return l, err
	}
	err = db.global(ctx, reading, func(t *tx) error {
		l.Problems, err = checkUser(t)
		return err
	})
	if err != nil {
		return l, err
	}
	if err := l.refused(db.look(ctx, &l)); err != nil || l.Absent {
		return l, err
	}
	return l, db.global(ctx, reading, func(t *tx) error {
		found, err := checkTables(t) // also says what may not be read
		if err != nil {
			return err
		}
		l.Problems = append(l.Problems, found...)
		tables, rights := neededRights()
		return t.query(rightsMissing, func(r row) error {
			var one string
			err := r.Scan(&one)
			l.Missing = append(l.Missing, one)
			return err
		}, tables, rights)
	})
}

// LookAsOwner looks at the PostgreSQL database of o as its owner uses it, who
// migrates. Missing are then rights that Migrate needs.
func LookAsOwner(ctx context.Context, o Options) (l Looked, err error) {
	db, config, err := looking("owner's URL", o.OwnerURL, o)
	if err != nil {
		return l, err
	}
	defer db.Close()
	if err := db.meet(ctx, config, &l); err != nil {
		return l, err
	}
	runtime, err := parseURL("URL", o.URL, o)
	if err != nil {
		return l, err
	}
	switch {
	case runtime.User == config.User:
		l.Problems = append(l.Problems, "this is the gateway's user too: the gateway must not run as the owner of its tables")
	case runtime.Database != config.Database:
		l.Problems = append(l.Problems, fmt.Sprintf("this is database %s, the gateway's is %s", config.Database, runtime.Database))
	}
	return l, db.global(ctx, reading, func(t *tx) error {
		var creates, roles, group, user bool
		if err := t.one(ownerFacts, []any{&creates, &roles, &group, &user}, runtime.User); err != nil {
			return err
		}
		if !creates {
			l.Missing = append(l.Missing, "the right to CREATE in the schema")
		}
		if !roles && !(group && user) {
			l.Missing = append(l.Missing, "CREATEROLE, or an administrator to make the roles bulkhead_runtime and "+runtime.User)
		}
		return t.query(tablesAsked, func(r row) error {
			var name, owner string
			var owns, x bool
			if err := r.Scan(&name, &owner, &owns, &x, &x, &x, &x); err != nil {
				return err
			}
			if !owns {
				l.Problems = append(l.Problems, fmt.Sprintf("table %s belongs to %s, so it cannot be migrated", name, owner))
			}
			return nil
		}, slices.Concat(companyTableNames(), globalTables))
	})
}

// meet reaches the server and asks for what it says to everybody.
func (db *DB) meet(ctx context.Context, config *pgconn.Config, l *Looked) error {
	l.Where = address(config)
	return db.global(ctx, reading, func(t *tx) error {
		var clock int64
		asked := time.Now()
		if err := t.one(serverFacts, []any{&l.Version, &l.Major, &clock}); err != nil {
			return err
		}
		took := time.Since(asked)
		l.Ahead = time.UnixMicro(clock).Sub(asked.Add(took / 2))
		return nil
	})
}

// refused makes of an error that says that the user may not do something one of
// the problems: the others are to be told, too.
func (l *Looked) refused(err error) error {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok && e.Code == pgNotAllowed {
		l.Problems = append(l.Problems, e.Message)
		return nil
	}
	return err
}

var (
	rightPattern    = regexp.MustCompile(`\b(INSERT INTO|DELETE FROM|UPDATE|FROM|JOIN)\s+(\w+)`)
	replacesPattern = regexp.MustCompile(`INSERT INTO (\w+)[\s\S]* DO UPDATE SET`)
)

// neededRights returns tables and rights, pair by pair, that the statements
// which a gateway runs need: it reads them, so that none is forgotten.
func neededRights() (tables, rights []string) {
	known := slices.Concat(companyTableNames(), globalTables)
	need := map[[2]string]bool{}
	add := func(text string) {
		for _, m := range rightPattern.FindAllStringSubmatch(text, -1) {
			right := strings.Fields(m[1])[0]
			if right == "FROM" || right == "JOIN" {
				right = "SELECT"
			}
			need[[2]string{m[2], right}] = true
		}
		if m := replacesPattern.FindStringSubmatch(text); m != nil {
			need[[2]string{m[1], "UPDATE"}] = true
		}
	}
	for _, st := range companyStatements() {
		add(st.text)
	}
	for _, st := range operatorStatements() {
		add(st.text)
	}
	for _, st := range globalStatements() {
		if st != migrationRecorded { // only the owner's
			add(st.text)
		}
	}
	for one := range need {
		if slices.Contains(known, one[0]) {
			tables, rights = append(tables, one[0]), append(rights, one[1])
		}
	}
	return tables, rights
}
