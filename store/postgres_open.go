package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

const (
	defaultMaxConns         = 10
	defaultConnectTimeout   = 5 * time.Second
	defaultStatementTimeout = 10 * time.Second

	// oldestPostgres is the oldest major version that is still mended by
	// https://www.postgresql.org/support/versioning/. Tested is 15.
	oldestPostgres = 14
)

// address says which database config is, without the password.
func address(config *pgconn.Config) string {
	return fmt.Sprintf("%s@%s:%d/%s", config.User, config.Host, config.Port, config.Database)
}

func parseURL(what, url string, o Options) (*pgx.ConnConfig, error) {
	config, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("cannot read the %s of the store: %w", what, err) // pgx leaves the password out
	}
	config.ConnectTimeout = cmp.Or(o.ConnectTimeout, defaultConnectTimeout)
	config.RuntimeParams["application_name"] = cmp.Or(config.RuntimeParams["application_name"], "bulkhead")
	return config, nil
}

// openRuntime opens the database as the gateway uses it, if it may.
func openRuntime(ctx context.Context, o Options) (*DB, error) {
	if o.Path != "" {
		return nil, errors.New("cannot open a store that has both a path and a URL")
	}
	config, err := parseURL("URL", o.URL, o)
	if err != nil {
		return nil, err
	}
	timeout := cmp.Or(o.StatementTimeout, defaultStatementTimeout)
	ms := strconv.FormatInt(timeout.Milliseconds(), 10)
	config.RuntimeParams["statement_timeout"] = ms
	// A gateway that is frozen in a transaction, or cut off, must not hold up the
	// others: it loses its locks well before they give up waiting for them.
	config.RuntimeParams["idle_in_transaction_session_timeout"] = strconv.FormatInt(timeout.Milliseconds()/3, 10)
	p := &postgres{
		pool: newPGPool(config, cmp.Or(o.MaxConns, defaultMaxConns)),
		// The server should be the one that stops a statement.
		timeout: timeout + config.ConnectTimeout,
	}
	db := newDB(p, o)
	if err := db.mayRun(ctx); err != nil {
		p.close()
		return nil, fmt.Errorf("cannot open store %s: %w", address(&config.Config), err)
	}
	return db, nil
}

// mayRun refuses a database in which a company's rows are not held apart from
// this user, or that has another schema.
func (db *DB) mayRun(ctx context.Context) error {
	all, err := readMigrations(migrationFiles, db.d.kind())
	if err != nil {
		return err
	}
	var problems []string
	err = db.global(ctx, reading, func(t *tx) error {
		problems, err = checkUser(t)
		return err
	})
	if err != nil {
		return err
	}
	if err := db.migrated(ctx, all); err != nil {
		return errors.Join(refusal(problems), err)
	}
	if unprotected() { // never but in the build that tests what would happen
		return refusal(problems)
	}
	err = db.global(ctx, reading, func(t *tx) error {
		found, err := checkTables(t)
		problems = append(problems, found...)
		return err
	})
	return errors.Join(err, refusal(problems))
}

func refusal(problems []string) error {
	if len(problems) == 0 {
		return nil
	}
	return fmt.Errorf("it would not hold the companies apart:\n  - %s", strings.Join(problems, "\n  - "))
}

var (
	serverAsked = globalStatement{"server_asked",
		`SELECT current_setting('server_encoding'), current_setting('server_version_num')::int / 10000`}

	// A member of a role can act as that role. A superuser is a member of all.
	strongRoles = globalStatement{"strong_roles",
		`SELECT rolname, rolname = current_user, rolsuper, rolbypassrls FROM pg_roles
		WHERE (rolsuper OR rolbypassrls) AND pg_has_role(current_user, oid, 'MEMBER') ORDER BY rolname`}

	// tablesAsked tells of each table: the roles that own it and that this user
	// can act as, whether row-level security is on and forced, and whether this
	// user may empty it past row-level security or may not read it.
	tablesAsked = globalStatement{"tables_asked",
		`SELECT c.relname, pg_get_userbyid(c.relowner), pg_has_role(current_user, c.relowner, 'MEMBER'),
			c.relrowsecurity, c.relforcerowsecurity,
			has_table_privilege(c.oid, 'TRUNCATE'), has_table_privilege(c.oid, 'SELECT')
		FROM pg_class AS c WHERE c.relnamespace = current_schema()::regnamespace AND c.relname = ANY ($1)
		ORDER BY c.relname`}

	// policiesAsked leaves out what only narrows: a policy that is not permissive.
	policiesAsked = globalStatement{"policies_asked",
		`SELECT c.relname, p.polname, p.polcmd::text, p.polroles = '{0}',
			COALESCE(pg_get_expr(p.polqual, c.oid), ''), COALESCE(pg_get_expr(p.polwithcheck, c.oid), '')
		FROM pg_policy AS p JOIN pg_class AS c ON c.oid = p.polrelid
		WHERE c.relnamespace = current_schema()::regnamespace AND c.relname = ANY ($1) AND p.polpermissive
		ORDER BY c.relname, p.polname`}
)

// checkUser returns what the user of t could do past row-level security by who
// it is.
func checkUser(t *tx) (problems []string, err error) {
	bad := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	var encoding string
	var version int
	if err := t.one(serverAsked, []any{&encoding, &version}); err != nil {
		return nil, err
	}
	if encoding != "UTF8" {
		bad("the database is encoded in %s instead of UTF8", encoding)
	}
	if version < oldestPostgres {
		bad("PostgreSQL %d is older than %d", version, oldestPostgres)
	}
	all := false
	err = t.query(strongRoles, func(r row) error {
		var name string
		var self, super, bypass bool
		if err := r.Scan(&name, &self, &super, &bypass); err != nil {
			return err
		}
		what := "is a superuser"
		if !super {
			what = "has BYPASSRLS"
		}
		switch {
		case self:
			bad("user %s %s", name, what)
			all = all || super
		case !all:
			bad("the user can act as role %s, which %s", name, what)
		}
		return nil
	})
	return problems, err
}

// checkTables returns what is wrong with the tables and with what the user of t
// may do to them.
func checkTables(t *tx) (problems []string, err error) {
	bad := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	companies := companyTableNames()
	there := map[string]bool{}
	owned := map[string][]string{} // by their owner
	err = t.query(tablesAsked, func(r row) error {
		var name, owner string
		var owns, secured, forced, truncate, reads bool
		if err := r.Scan(&name, &owner, &owns, &secured, &forced, &truncate, &reads); err != nil {
			return err
		}
		there[name] = true
		if owns {
			owned[owner] = append(owned[owner], name)
		} else if truncate {
			bad("the user may empty table %s", name)
		}
		if !reads {
			bad("the user may not read table %s: was it `gateway migrate` that made the user?", name)
		}
		if slices.Contains(companies, name) && !(secured && forced) {
			bad("table %s has no row-level security that is forced", name)
		}
		return nil
	}, slices.Concat(companies, globalTables))
	if err != nil {
		return nil, err
	}
	for _, owner := range slices.Sorted(maps.Keys(owned)) {
		bad("the user can act as %s, to whom belong %s", owner, strings.Join(owned[owner], ", "))
	}
	for _, name := range slices.Concat(companies, globalTables) {
		if !there[name] {
			bad("table %s is not there", name)
		}
	}
	more, err := checkPolicies(t, companies)
	return append(problems, more...), err
}

// policyOfCompany is the rule of every company's table, and policyOfOperator
// that of the operator's list, as the server writes them.
const (
	policyOfCompany  = `(company_id = NULLIF(current_setting('app.current_company_id'::text, true), ''::text))`
	policyOfOperator = `(NULLIF(current_setting('app.operator_act'::text, true), ''::text) IS NOT NULL)`
)

// checkPolicies compares the policies with those that the migrations made. One
// more that permits something is one too many.
func checkPolicies(t *tx, tables []string) (problems []string, err error) {
	bad := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	held := map[string]bool{}
	err = t.query(policiesAsked, func(r row) error {
		var table, name, command, using, check string
		var everybody bool
		if err := r.Scan(&table, &name, &command, &everybody, &using, &check); err != nil {
			return err
		}
		switch {
		case name == table+"_of_company" && command == "*" && everybody && using == policyOfCompany && check == policyOfCompany:
			held[table] = true
		case name == "company_of_operator" && table == "company" && command == "r" && using == policyOfOperator:
		default:
			bad("policy %s of table %s is not one that `gateway migrate` made", name, table)
		}
		return nil
	}, tables)
	if err != nil {
		return nil, err
	}
	for _, table := range tables {
		if !held[table] {
			bad("table %s has not the policy that shows a company its own rows", table)
		}
	}
	return problems, nil
}
