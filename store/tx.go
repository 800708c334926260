package store

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"bulkhead/audit"
	"bulkhead/tenant"
)

// driver is one kind of database. What is below it knows nothing of companies;
// what is above it knows nothing of the kind.
type driver interface {
	// begin waits for a connection and begins a transaction.
	begin(ctx context.Context, m mode) (session, error)
	// classify returns which of the errors below err is, or err itself.
	classify(err error) error
	// scrub overwrites what deleted rows have left behind, as far as the
	// database can.
	scrub(ctx context.Context) error
	// kind is the folder of the migrations that only this kind of database has.
	kind() string
	// migrates says whether the connections may change the schema.
	migrates() bool
	// grant gives who uses the database at run time the rights to do so.
	grant(ctx context.Context) error
	close() error
}

type mode int

const (
	reading mode = iota // one consistent view, no writes
	writing             // nobody else writes the company's rows meanwhile
	adding              // only others that are adding do: for rows that need no other
)

// session is one transaction.
type session interface {
	// as makes the session that company's from here on: with row-level
	// security, the rows of no other can be seen.
	as(ctx context.Context, company string) error
	// asOperator lets the session see every company's own row, and no other.
	asOperator(ctx context.Context, actor string) error
	// lockSchema makes the session the only one that migrates, until it ends.
	lockSchema(ctx context.Context) error
	exec(ctx context.Context, text sqlText, args []any) (rowsAffected int64, err error)
	query(ctx context.Context, text sqlText, args []any) (rows, error)
	// send is exec for one of many: it may wait to go together with others, at
	// the latest until flush. args are the session's from then on.
	send(ctx context.Context, text sqlText, args []any) error
	flush(ctx context.Context) error
	// script runs several statements without arguments.
	script(ctx context.Context, text sqlText) error
	// commit ends the session, whatever it returns.
	commit() error
	rollback()
}

type rows interface {
	row
	Next() bool
	Err() error
	Close() error
}

type row interface{ Scan(dest ...any) error }

var (
	errUnique  = errors.New("a row with this key is there already")
	errForeign = errors.New("a row that this one refers to is not there")
	errNoTable = errors.New("a table is not there")
	errNoRow   = tenant.ErrNotFound
)

// tx is a transaction on the data of one company, on that of all for an
// operator, or on no company's.
type tx struct {
	ctx        context.Context // of the whole transaction
	s          session
	d          driver
	company    string // "" unless it is one company's
	actor      string
	act        bool // begun with a tenant.Act, for statements over companies
	now        time.Time
	noted      []audit.Event // audit rows, written before the end
	chain      *audit.Chain
	committing bool
	executed   *atomic.Int64
}

// enter makes t the transaction of another company, for a batch over many.
func (t *tx) enter(s tenant.Scope) error {
	company := s.ID().String()
	if company == t.company {
		return nil
	}
	t.company = company
	return t.s.as(t.ctx, company)
}

// exec runs a statement and returns the number of rows it changed. Of a
// company's statement, args begin with $2.
func (t *tx) exec(st anyStatement, args ...any) (int64, error) {
	name, text, args := t.bind(st, args)
	n, err := t.s.exec(t.ctx, text, args)
	if err != nil {
		return 0, t.failed(name, err)
	}
	return n, nil
}

// send is exec for one of many statements, after which flush is called. An
// error may be told by a later send or by flush.
func (t *tx) send(st anyStatement, args ...any) error {
	name, text, args := t.bind(st, args)
	if err := t.s.send(t.ctx, text, args); err != nil {
		return t.failed(name, err)
	}
	return nil
}

func (t *tx) flush() error {
	if err := t.s.flush(t.ctx); err != nil {
		return t.failed("the last of a batch", err)
	}
	return nil
}

// query runs a statement and gives each row to scan.
func (t *tx) query(st anyStatement, scan func(row) error, args ...any) error {
	name, text, args := t.bind(st, args)
	found, err := t.s.query(t.ctx, text, args)
	if err != nil {
		return t.failed(name, err)
	}
	defer found.Close()
	for found.Next() {
		if err := scan(found); err != nil {
			return t.failed(name, err)
		}
	}
	if err := found.Err(); err != nil {
		return t.failed(name, err)
	}
	return nil
}

// one scans the only row of a statement into dest. Without a row it returns errNoRow.
func (t *tx) one(st anyStatement, dest []any, args ...any) error {
	n := 0
	err := t.query(st, func(r row) error { n++; return r.Scan(dest...) }, args...)
	switch {
	case err != nil:
		return err
	case n == 0:
		return errNoRow
	case n > 1:
		name, _, _ := st.bind(t, args)
		return fmt.Errorf("statement %q found %d rows instead of one", name, n)
	}
	return nil
}

// only returns the only row of a statement. Without a row it returns errNoRow.
func only[T any](t *tx, st anyStatement, scan func(row) (T, error), args ...any) (v T, err error) {
	n := 0
	err = t.query(st, func(r row) error { n++; v, err = scan(r); return err }, args...)
	switch {
	case err != nil:
		return v, err
	case n == 0:
		return v, errNoRow
	case n > 1:
		name, _, _ := st.bind(t, args)
		return v, fmt.Errorf("statement %q found %d rows instead of one", name, n)
	}
	return v, nil
}

func (t *tx) bind(st anyStatement, args []any) (name string, text sqlText, all []any) {
	t.executed.Add(1)
	return st.bind(t, args)
}

func (t *tx) failed(name string, err error) error {
	if t.ctx.Err() != nil {
		return t.ctx.Err()
	}
	err = t.d.classify(err)
	if err == errNoRow {
		return err
	}
	return fmt.Errorf("cannot run statement %q: %w", name, err)
}

// must turns "no row was changed" into errNoRow.
func must(n int64, err error) error {
	if err == nil && n == 0 {
		return errNoRow
	}
	return err
}
