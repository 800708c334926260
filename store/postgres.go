package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// postgres is a PostgreSQL database, as one of its users.
type postgres struct {
	pool    *pgPool
	timeout time.Duration // of what waits for the server, at this end; 0: none
	// Of the owner's: who is given the rights of the gateway; nil at run time.
	runtime *pgconn.Config
	owner   bool
}

// What a gateway sets by itself. The settings end with the transaction.
//
// Statements of one company's policy read before they write, and a company that
// is being erased must not get new rows. Postgres holds no rows still that were
// only read, so each transaction that writes has the lock of its company first:
// alone, or together with others that only add. Two companies whose locks
// collide wait for one another and nothing more.
const (
	companySet   sqlText = `SELECT set_config('app.current_company_id', $1, true)`
	companyAdded sqlText = `SELECT set_config('app.current_company_id', $1, true),
		pg_advisory_xact_lock_shared(hashtextextended($1, 0))`
	companyAlone sqlText = `SELECT set_config('app.current_company_id', $1, true),
		pg_advisory_xact_lock(hashtextextended($1, 0))`
	operatorSet sqlText = `SELECT set_config('app.operator_act', $1, true)`

	// A step that waits for a table makes all others wait for the step: better it
	// gives up, and is taken again.
	schemaLocked sqlText = `SELECT pg_advisory_xact_lock(hashtextextended('bulkhead schema', 0)),
		set_config('lock_timeout', '10s', true)`
)

// Others see what is committed, as it is committed: the locks above do the rest.
const (
	readBegin  sqlText = `BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY`
	writeBegin sqlText = `BEGIN ISOLATION LEVEL READ COMMITTED`
)

func (p *postgres) kind() string   { return "postgres" }
func (p *postgres) migrates() bool { return p.owner }
func (p *postgres) close() error   { p.pool.close(); return nil }

// scrub cannot do more than the database does: what was erased is overwritten
// in time after a VACUUM, and stays in its backups as long as those are kept.
func (p *postgres) scrub(context.Context) error { return nil }

// Error codes, from https://www.postgresql.org/docs/current/errcodes-appendix.html.
const (
	pgNotInCharset = "22021" // a NUL, or no UTF-8
	pgForeignKey   = "23503"
	pgUnique       = "23505"
	pgDeadlock     = "40P01"
	pgNoTable      = "42P01"
)

// deadlocked says whether a transaction was broken because it and another waited
// for each other.
func deadlocked(err error) bool {
	e, ok := errors.AsType[*pgconn.PgError](err)
	return ok && e.Code == pgDeadlock
}

func (p *postgres) classify(err error) error {
	e, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return err
	}
	switch e.Code {
	case pgUnique:
		return errUnique
	case pgForeignKey:
		return errForeign
	case pgNoTable:
		return errNoTable
	case pgNotInCharset:
		return errNoRow // what cannot be stored is not there
	}
	return err
}

// within bounds ctx for one exchange with the server, which may be frozen.
func (p *postgres) within(ctx context.Context) (context.Context, context.CancelFunc) {
	if p.timeout == 0 {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, p.timeout)
}

func (p *postgres) begin(ctx context.Context, m mode) (session, error) {
	text := writeBegin
	if m == reading {
		text = readBegin
	}
	for {
		c, err := p.pool.get(ctx)
		if err != nil {
			return nil, err
		}
		x := &pgSession{p: p, c: c, m: m, waiting: &pgx.Batch{}}
		if err = x.plain(ctx, text); err == nil {
			return x, nil
		}
		x.rollback()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		// One that lay idle may have been closed by the server, and nothing was
		// asked of it yet. There are no more of those than the pool holds. One that
		// does not answer is not tried again with the next.
		if !c.used || !c.IsClosed() || pgconn.Timeout(err) {
			return nil, fmt.Errorf("cannot begin a transaction: %w", err)
		}
	}
}

// pgSession is a transaction on a connection that is its own until the end.
type pgSession struct {
	p       *postgres
	c       *pgConn
	m       mode
	waiting *pgx.Batch // goes with the next statement whose result is asked for
}

// maxWaiting is how many statements are sent at once. Each has one row of the
// ledger, so this is about 200 KB.
const maxWaiting = 500

func (x *pgSession) as(_ context.Context, company string) error {
	if x.p.owner {
		panic("BUG: the owner of the database works for a company")
	}
	text := companySet
	switch x.m {
	case writing:
		text = companyAlone
	case adding:
		text = companyAdded
	}
	x.waiting.Queue(string(text), company)
	return nil
}

func (x *pgSession) asOperator(_ context.Context, actor string) error {
	if x.p.owner {
		panic("BUG: the owner of the database works for an operator")
	}
	x.waiting.Queue(string(operatorSet), actor)
	return nil
}

func (x *pgSession) lockSchema(ctx context.Context) error { return x.plain(ctx, schemaLocked) }

func (x *pgSession) exec(ctx context.Context, text sqlText, args []any) (int64, error) {
	x.waiting.Queue(string(text), args...)
	return x.sendWaiting(ctx)
}

func (x *pgSession) send(ctx context.Context, text sqlText, args []any) error {
	x.waiting.Queue(string(text), args...)
	if x.waiting.Len() < maxWaiting {
		return nil
	}
	return x.flush(ctx)
}

func (x *pgSession) flush(ctx context.Context) error {
	_, err := x.sendWaiting(ctx)
	return err
}

// sendWaiting runs what is waiting and returns how many rows the last statement
// changed.
func (x *pgSession) sendWaiting(ctx context.Context) (n int64, err error) {
	if x.waiting.Len() == 0 {
		return 0, nil
	}
	ctx, cancel := x.p.within(ctx)
	defer cancel()
	batch := x.waiting
	x.waiting = &pgx.Batch{}
	results := x.c.SendBatch(ctx, batch)
	for range batch.Len() {
		tag, err := results.Exec()
		if err != nil {
			results.Close()
			return 0, err
		}
		n = tag.RowsAffected()
	}
	return n, results.Close()
}

func (x *pgSession) query(ctx context.Context, text sqlText, args []any) (rows, error) {
	ctx, cancel := x.p.within(ctx)
	batch := x.waiting
	x.waiting = &pgx.Batch{}
	before := batch.Len()
	batch.Queue(string(text), args...)
	results := x.c.SendBatch(ctx, batch)
	fail := func(err error) (rows, error) {
		results.Close()
		cancel()
		return nil, err
	}
	for range before {
		if _, err := results.Exec(); err != nil {
			return fail(err)
		}
	}
	found, err := results.Query()
	if err != nil {
		return fail(err)
	}
	return &pgRows{found, results, cancel}, nil
}

type pgRows struct {
	pgx.Rows
	results pgx.BatchResults
	cancel  context.CancelFunc
}

func (r *pgRows) Close() error {
	defer r.cancel()
	r.Rows.Close()
	return r.results.Close()
}

func (x *pgSession) script(ctx context.Context, text sqlText) error { return x.plain(ctx, text) }

// plain runs statements without arguments by themselves.
func (x *pgSession) plain(ctx context.Context, text sqlText) error {
	ctx, cancel := x.p.within(ctx)
	defer cancel()
	_, err := x.c.Exec(ctx, string(text), pgx.QueryExecModeSimpleProtocol)
	return err
}

// ending bounds the end of a transaction, which the caller's context does not:
// half a commit helps nobody.
const ending = 10 * time.Second

func (x *pgSession) commit() error {
	ctx, cancel := context.WithTimeout(context.Background(), ending)
	defer cancel()
	if _, err := x.sendWaiting(ctx); err != nil {
		x.rollback()
		return fmt.Errorf("cannot commit: %w", x.p.classify(err))
	}
	tag, err := x.c.Exec(ctx, "COMMIT")
	if err == nil && tag.String() != "COMMIT" {
		// After a statement that failed, the server takes COMMIT for ROLLBACK.
		err = errors.New("the transaction had failed before")
	}
	if err != nil {
		x.rollback()
		return fmt.Errorf("cannot commit: %w", err)
	}
	x.p.pool.put(x.c)
	return nil
}

func (x *pgSession) rollback() {
	ctx, cancel := context.WithTimeout(context.Background(), ending)
	defer cancel()
	if !x.c.IsClosed() && x.c.PgConn().TxStatus() != 'I' {
		_, _ = x.c.Exec(ctx, "ROLLBACK") // put looks at what has come of it
	}
	x.p.pool.put(x.c)
}
