package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"
)

// openOwner opens the database as its owner, who migrates it for the gateway.
func openOwner(ctx context.Context, o Options) (*DB, error) {
	if o.Path != "" {
		return nil, errors.New("cannot open a store that has both a path and a URL")
	}
	if o.OwnerURL == "" || o.URL == "" {
		return nil, errors.New("to migrate PostgreSQL, both the URL of the gateway and that of the owner are needed")
	}
	owner, err := parseURL("owner's URL", o.OwnerURL, o)
	if err != nil {
		return nil, err
	}
	runtime, err := parseURL("URL", o.URL, o)
	if err != nil {
		return nil, err
	}
	if owner.User == runtime.User {
		return nil, fmt.Errorf("cannot migrate as user %s: the gateway must not run as the owner of its tables", owner.User)
	}
	if owner.Database != runtime.Database {
		return nil, fmt.Errorf("the owner's URL is of database %s, the gateway's of %s", owner.Database, runtime.Database)
	}
	p := &postgres{pool: newPGPool(owner, 1), runtime: &runtime.Config, owner: true}
	c, err := p.pool.get(ctx)
	if err != nil {
		return nil, fmt.Errorf("cannot open store %s: %w", address(&owner.Config), err)
	}
	p.pool.put(c)
	return newDB(p, o), nil
}

// What the server is told of the gateway's user, in settings that end with the
// transaction: names are no arguments of the statements that make a user.
const (
	runtimeNamed sqlText = `SELECT set_config('bulkhead.user', $1, true), set_config('bulkhead.password', $2, true)`

	// A user that is there keeps the password and all else; Open looks at the rest.
	runtimeGranted sqlText = `DO $$
	DECLARE
	  name TEXT := current_setting('bulkhead.user');
	BEGIN
	  IF NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = name) THEN
	    EXECUTE format('CREATE ROLE %I LOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE PASSWORD %L',
	      name, NULLIF(current_setting('bulkhead.password'), ''));
	  END IF;
	  IF NOT pg_has_role(name, 'bulkhead_runtime', 'MEMBER') THEN
	    EXECUTE format('GRANT bulkhead_runtime TO %I', name);
	  END IF;
	  IF NOT has_database_privilege(name, current_database(), 'CONNECT') THEN
	    EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), name);
	  END IF;
	END $$`
)

// grant makes the gateway's user if it is not there, and a member of the role
// that the migrations have given rights.
func (p *postgres) grant(ctx context.Context) error {
	s, err := p.begin(ctx, writing)
	if err != nil {
		return err
	}
	err = func() error {
		if err := s.lockSchema(ctx); err != nil {
			return err
		}
		if _, err := s.exec(ctx, runtimeNamed, []any{p.runtime.User, p.runtime.Password}); err != nil {
			return err
		}
		return s.script(ctx, runtimeGranted)
	}()
	if err == nil {
		return s.commit()
	}
	s.rollback()
	if e, ok := errors.AsType[*pgconn.PgError](err); ok && e.Code == pgNotAllowed {
		return fmt.Errorf("the owner may not make the gateway's user %[1]s: have an administrator run CREATE ROLE %[1]s LOGIN PASSWORD '…' and GRANT bulkhead_runtime TO %[1]s", p.runtime.User)
	}
	return fmt.Errorf("cannot give the gateway's user %s its rights: %w", p.runtime.User, err)
}

const pgNotAllowed = "42501"
