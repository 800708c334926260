// Package store owns all SQL of the gateway and the database it runs in: one
// SQLite file, or PostgreSQL. It keeps companies and their policy, sealed
// credentials, the ledger and the audit log. It decides nothing: who may do what
// is decided before a Scope reaches it.
//
// Two rules hold for every line of it:
//
//   - A statement on a company's data names the company in every table it
//     touches (company_id = $1), and the transaction fills in $1 from the
//     Scope it was begun with. Nobody passes a company's id by hand.
//   - A statement is a constant that is declared once and listed in
//     Statements. Nothing puts SQL together at run time.
//
// Postgres has row-level security under the first rule: a transaction sees the
// rows of the one company that it was begun for, also through a statement that
// has forgotten its predicate. Open refuses a database where this does not hold.
//
// The text of the statements is for SQLite and Postgres alike: $1 placeholders,
// ids as TEXT, times as BIGINT of microseconds since 1970 (0: never), money as
// BIGINT of nano-USD, lists as JSON in TEXT.
package store

import (
	"context"
	"sync/atomic"
	"time"

	"bulkhead/audit"
	"bulkhead/tenant"
)

// Options say where the data is: Path or URL.
type Options struct {
	// Path is the SQLite file. Its folder is made if it is not there, for the
	// owner only; so is the file. Nobody else may have the folder in use: main
	// locks it.
	Path string

	// URL is the PostgreSQL database as the gateway uses it at run time,
	// postgres://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=verify-full. USER must
	// own nothing and must be held by row-level security.
	URL string
	// OwnerURL is the same database as its owner uses it, who migrates; see
	// OpenOwner. Open does not need it.
	OwnerURL string
	// MaxConns is how many connections there are at most; default 10.
	MaxConns int
	// ConnectTimeout bounds making a connection; default 5 s.
	ConnectTimeout time.Duration
	// StatementTimeout bounds a statement with its waiting for locks, and how
	// long a transaction may stay idle; default 10 s. Migrations are not bound.
	StatementTimeout time.Duration

	// OnChange is called with the company's id after each commit that changed
	// its policy, before the method that changed it returns. It must not call
	// the store. nil is none.
	OnChange func(companyID string)
	// Now is the clock; default time.Now.
	Now func() time.Time
}

// DB is the store. Its methods may be called from many goroutines; changes of
// one company's policy go one after the other. A context that ends stops the
// statement under way, and then nothing of its transaction is kept.
type DB struct {
	d        driver
	o        Options
	chain    *audit.Chain // nil until KeyAudit
	executed atomic.Int64
	upkept   upkept
}

// Open opens the database. A SQLite file is made if it is not there, and Migrate
// must be called before anything else. A PostgreSQL database must have been
// migrated (see OpenOwner), and Open refuses it where row-level security does
// not hold for the user of URL: the error lists everything that is wrong.
func Open(ctx context.Context, o Options) (*DB, error) {
	if o.URL != "" {
		return openRuntime(ctx, o)
	}
	d, err := openSQLite(ctx, o.Path)
	if err != nil {
		return nil, err
	}
	return newDB(d, o), nil
}

// OpenOwner opens the database for Pending and Migrate and nothing else: as
// Options.OwnerURL if the database is PostgreSQL.
func OpenOwner(ctx context.Context, o Options) (*DB, error) {
	if o.URL == "" && o.OwnerURL == "" {
		return Open(ctx, o)
	}
	return openOwner(ctx, o)
}

func newDB(d driver, o Options) *DB {
	if o.OnChange == nil {
		o.OnChange = func(string) {}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &DB{d: d, o: o}
}

// Close waits for what is under way and closes the database. It is safe to call twice.
func (db *DB) Close() error { return db.d.close() }

// Ping asks the database whether it is there.
func (db *DB) Ping(ctx context.Context) error {
	return db.global(ctx, reading, func(*tx) error { return nil })
}

// Executed counts the statements run so far, so that a test can prove that a
// path runs none.
func (db *DB) Executed() int64 { return db.executed.Load() }

// read runs fn in one consistent read of the company's data.
func (db *DB) read(ctx context.Context, id tenant.ID, fn func(*tx) error) error {
	return db.run(ctx, &tx{company: id.String()}, reading, fn)
}

// add runs fn in one transaction that adds rows to the company's, beside others
// that do the same. Only what holds then may be done so.
func (db *DB) add(ctx context.Context, s tenant.Scope, fn func(*tx) error) error {
	return db.run(ctx, &tx{company: s.ID().String(), actor: s.Actor()}, adding, fn)
}

// change runs fn as one change of the company's policy. A company that is
// being erased, or was, has no policy to change: tenant.ErrNotFound.
func (db *DB) change(ctx context.Context, s tenant.Scope, fn func(*tx) error) error {
	return db.changeAs(ctx, s.Actor(), s, fn)
}

// changeFor is change as an operator's act.
func (db *DB) changeFor(ctx context.Context, a tenant.Act, s tenant.Scope, fn func(*tx) error) error {
	return db.changeAs(ctx, a.Actor(), s, fn)
}

func (db *DB) changeAs(ctx context.Context, actor string, s tenant.Scope, fn func(*tx) error) error {
	return db.policy(ctx, s.ID().String(), actor, func(t *tx) error {
		if err := fn(t); err != nil {
			return err
		}
		generation, err := t.bump()
		if err != nil {
			return err
		}
		return must(t.exec(companyBumped, generation))
	})
}

// policy runs fn, which must bump the company's generation last.
func (db *DB) policy(ctx context.Context, company, actor string, fn func(*tx) error) error {
	t := &tx{company: company, actor: actor}
	err := db.run(ctx, t, writing, fn)
	if t.committing {
		// Also when the commit reports an error: it may have happened.
		db.o.OnChange(company)
	}
	return err
}

// across runs fn for an operator, whose act was recorded.
func (db *DB) across(ctx context.Context, a tenant.Act, m mode, fn func(*tx) error) error {
	return db.run(ctx, &tx{act: true, actor: a.Actor()}, m, fn)
}

// global runs fn on the tables that belong to no company.
func (db *DB) global(ctx context.Context, m mode, fn func(*tx) error) error {
	return db.run(ctx, &tx{}, m, fn)
}

func (db *DB) run(ctx context.Context, t *tx, m mode, fn func(*tx) error) error {
	s, err := db.d.begin(ctx, m)
	if err != nil {
		return err
	}
	done := false
	defer func() {
		if !done {
			s.rollback() // also when fn panics
		}
	}()
	t.ctx, t.s, t.d, t.executed, t.now, t.chain = ctx, s, db.d, &db.executed, db.o.Now(), db.chain
	if t.company != "" {
		if err := s.as(ctx, t.company); err != nil {
			return err
		}
	}
	if t.act {
		if err := s.asOperator(ctx, t.actor); err != nil {
			return err
		}
	}
	if err := fn(t); err != nil {
		return err
	}
	if err := t.writeNoted(); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	t.committing = true
	done = true
	return s.commit()
}
