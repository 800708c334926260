package store

import (
	"context"
	"database/sql"
	sqldriver "database/sql/driver"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	sqlite3 "modernc.org/sqlite"
)

// readers is how many reads may be under way at once. A read is microseconds
// of work on the processor, so more would only wait for one another.
const readers = 4

// sqlite is a database in one file. One connection writes, since SQLite lets
// only one at a time; the others read what was committed before they began.
type sqlite struct {
	db     *sql.DB
	writer *pool
	reader *pool
	once   sync.Once
}

func openSQLite(ctx context.Context, path string) (*sqlite, error) {
	fail := func(err error) (*sqlite, error) {
		return nil, fmt.Errorf("cannot open store %q: %w", path, err)
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return fail(err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fail(err)
	}
	// SQLite gives its other files the mode of this one.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fail(err)
	}
	if err := errors.Join(f.Chmod(0o600), f.Close()); err != nil {
		return fail(err)
	}
	dsn := (&url.URL{Scheme: "file", Path: path, RawQuery: url.Values{"_pragma": {
		"busy_timeout(5000)", // ms; a backup may hold the file for a moment
		"journal_mode(WAL)",  // readers do not wait for the writer
		"synchronous(NORMAL)",
		"foreign_keys(1)",
		"secure_delete(1)", // what is erased is overwritten, not only unlinked
	}}.Encode()}).String()
	db, err := sql.Open("sqlite", dsn)
	if err != nil {
		return fail(err)
	}
	s := &sqlite{db: db, writer: newPool(db, 1), reader: newPool(db, readers)}
	if err := s.connect(ctx); err != nil { // says now if the file is no database
		s.close()
		return fail(err)
	}
	return s, nil
}

// connect makes the first connection. Of several that open a new file at once
// one turns it to WAL, and the others are refused without the wait that
// busy_timeout promises: https://www.sqlite.org/wal.html#sometimes_queries_return_sqlite_busy_in_wal_mode.
func (s *sqlite) connect(ctx context.Context) error {
	for tries := 0; ; tries++ {
		c, err := s.writer.get(ctx)
		if err == nil {
			s.writer.put(c)
			return nil
		}
		if e, ok := errors.AsType[*sqlite3.Error](err); !ok || e.Code()&0xff != sqliteBusy || tries == 100 {
			return err
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s *sqlite) kind() string                { return "sqlite" }
func (s *sqlite) migrates() bool              { return true }
func (s *sqlite) grant(context.Context) error { return nil } // to whom the file belongs

func (s *sqlite) close() (err error) {
	s.once.Do(func() {
		s.writer.close()
		s.reader.close()
		err = s.db.Close()
	})
	return err
}

func (s *sqlite) begin(ctx context.Context, m mode) (session, error) {
	p, begin := s.reader, sqlText("BEGIN")
	if m != reading {
		// IMMEDIATE takes the write lock now. Taken later it could be refused,
		// since what was read by then may be old.
		p, begin = s.writer, "BEGIN IMMEDIATE"
	}
	c, err := p.get(ctx)
	if err != nil {
		return nil, err
	}
	x := &sqliteSession{p, c}
	if _, err := x.exec(ctx, begin, nil); err != nil {
		x.rollback()
		return nil, fmt.Errorf("cannot begin a transaction: %w", err)
	}
	return x, nil
}

// Extended result codes, from https://www.sqlite.org/rescode.html.
const (
	sqliteBusy       = 5
	sqliteForeignKey = 787
	sqlitePrimaryKey = 1555
	sqliteUnique     = 2067
)

func (s *sqlite) classify(err error) error {
	e, ok := errors.AsType[*sqlite3.Error](err)
	if !ok {
		return err
	}
	switch e.Code() {
	case sqlitePrimaryKey, sqliteUnique:
		return errUnique
	case sqliteForeignKey:
		return errForeign
	}
	return err
}

func (s *sqlite) scrub(ctx context.Context) error {
	c, err := s.writer.get(ctx)
	if err != nil {
		return err
	}
	defer s.writer.put(c)
	// secure_delete has overwritten the rows in the file's pages; the log still
	// has the pages as they were.
	_, err = c.ExecContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)")
	return err
}

// sqliteSession is a transaction on a connection that is its own until the end.
type sqliteSession struct {
	p *pool
	c *conn
}

// SQLite has no row-level security, and who writes is alone.
func (x *sqliteSession) as(context.Context, string) error         { return nil }
func (x *sqliteSession) asOperator(context.Context, string) error { return nil }
func (x *sqliteSession) lockSchema(context.Context) error         { return nil }

func (x *sqliteSession) exec(ctx context.Context, text sqlText, args []any) (n int64, err error) {
	cmd, err := x.c.command(ctx, text)
	if err != nil {
		return 0, err
	}
	if err := cmd.bind(args); err != nil {
		return 0, err
	}
	err = x.c.Raw(func(any) error {
		res, err := cmd.st.ExecContext(ctx, cmd.values)
		if err == nil {
			n, err = res.RowsAffected()
		}
		return err
	})
	return n, err
}

func (x *sqliteSession) send(ctx context.Context, text sqlText, args []any) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	// The driver starts a goroutine for each statement whose context can end,
	// which costs more than a row.
	_, err := x.exec(context.Background(), text, args)
	return err
}

func (x *sqliteSession) flush(context.Context) error { return nil }

func (x *sqliteSession) query(ctx context.Context, text sqlText, args []any) (rows, error) {
	st, err := x.c.prepared(ctx, text)
	if err != nil {
		return nil, err
	}
	return st.QueryContext(ctx, st.arguments(args)...)
}

func (x *sqliteSession) script(ctx context.Context, text sqlText) error {
	_, err := x.c.ExecContext(ctx, string(text))
	return err
}

func (x *sqliteSession) commit() error {
	// Not with the caller's context: half a commit helps nobody.
	if _, err := x.exec(context.Background(), "COMMIT", nil); err != nil {
		x.rollback()
		return fmt.Errorf("cannot commit: %w", err)
	}
	x.p.put(x.c)
	return nil
}

func (x *sqliteSession) rollback() {
	// SQLite has rolled back by itself after some errors, and then refuses.
	// Whether the connection is clean is therefore asked by beginning anew.
	ctx := context.Background()
	if _, err := x.exec(ctx, "ROLLBACK", nil); err != nil {
		if _, err := x.exec(ctx, "BEGIN", nil); err != nil {
			x.p.drop(x.c)
			return
		}
		if _, err := x.exec(ctx, "ROLLBACK", nil); err != nil {
			x.p.drop(x.c)
			return
		}
	}
	x.p.put(x.c)
}

// pool hands out connections that keep their prepared statements. (sql.DB has
// a pool too, but one statement of it is prepared anew in each transaction.)
type pool struct {
	db    *sql.DB
	slots chan *conn // nil: not connected yet
}

type conn struct {
	*sql.Conn
	statements map[sqlText]*prepared
	commands   map[sqlText]*command
}

func newPool(db *sql.DB, size int) *pool {
	p := &pool{db, make(chan *conn, size)}
	for range size {
		p.slots <- nil
	}
	return p
}

var errClosed = errors.New("the store is closed")

func (p *pool) get(ctx context.Context) (*conn, error) {
	var c *conn
	select {
	case got, open := <-p.slots:
		if !open {
			return nil, errClosed
		}
		c = got
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if err := ctx.Err(); err != nil {
		p.slots <- c
		return nil, err
	}
	if c != nil {
		return c, nil
	}
	sc, err := p.db.Conn(ctx)
	if err != nil {
		p.slots <- nil
		return nil, err
	}
	return &conn{sc, map[sqlText]*prepared{}, map[sqlText]*command{}}, nil
}

func (p *pool) put(c *conn) { p.slots <- c }

// drop closes a connection that cannot be trusted any more.
func (p *pool) drop(c *conn) {
	_ = c.Raw(func(any) error { return sqldriver.ErrBadConn }) // sql.DB must not use it again
	c.close()
	p.slots <- nil
}

// close waits for every connection to come back.
func (p *pool) close() {
	for range cap(p.slots) {
		if c := <-p.slots; c != nil {
			c.close()
		}
	}
	close(p.slots)
}

func (c *conn) prepared(ctx context.Context, text sqlText) (*prepared, error) {
	if st := c.statements[text]; st != nil {
		return st, nil
	}
	plain, order := positional(string(text))
	st, err := c.PrepareContext(ctx, plain)
	if err != nil {
		return nil, err
	}
	p := &prepared{st, order}
	c.statements[text] = p
	return p, nil
}

// command is a statement that returns no rows, prepared past database/sql: its
// conversions of arguments cost a quarter of a row of the ledger.
type command struct {
	st     sqldriver.StmtExecContext
	close  func() error
	order  []int // of the arguments, by their place in the text; nil: as they are
	values []sqldriver.NamedValue
}

func (c *conn) command(ctx context.Context, text sqlText) (*command, error) {
	if cmd := c.commands[text]; cmd != nil {
		return cmd, nil
	}
	plain, order := positional(string(text))
	cmd := &command{order: order}
	err := c.Raw(func(dc any) error {
		st, err := dc.(sqldriver.ConnPrepareContext).PrepareContext(ctx, plain)
		if err != nil {
			return err
		}
		cmd.st, cmd.close = st.(sqldriver.StmtExecContext), st.Close
		return nil
	})
	if err != nil {
		return nil, err
	}
	c.commands[text] = cmd
	return cmd, nil
}

// bind sets the values of the next execution. A session has its connection for
// itself, so they can stay where they are.
func (cmd *command) bind(args []any) error {
	n := len(args)
	if cmd.order != nil {
		n = len(cmd.order)
	}
	cmd.values = cmd.values[:0]
	for i := range n {
		at := i
		if cmd.order != nil {
			at = cmd.order[i]
		}
		v, err := sqldriver.DefaultParameterConverter.ConvertValue(args[at])
		if err != nil {
			return fmt.Errorf("argument %d: %w", at+1, err)
		}
		cmd.values = append(cmd.values, sqldriver.NamedValue{Ordinal: i + 1, Value: v})
	}
	return nil
}

// prepared is a statement as this connection has it.
type prepared struct {
	*sql.Stmt
	order []int // of the arguments, by their place in the text; nil: as they are
}

// arguments returns args as the statement wants them.
func (p *prepared) arguments(args []any) []any {
	if p.order == nil {
		return args
	}
	out := make([]any, len(p.order))
	for i, n := range p.order {
		out[i] = args[n]
	}
	return out
}

// positional replaces $1, $2, … by ? and returns which argument belongs to
// each, nil where they stand in order. SQLite takes $1 for a name, and looking
// 27 names up for each row of the ledger costs more than binding their values.
func positional(text string) (string, []int) {
	var out strings.Builder
	var order []int
	inOrder := true
	for rest := text; ; {
		before, after, found := strings.Cut(rest, "$")
		out.WriteString(before)
		if !found {
			if inOrder {
				order = nil
			}
			return out.String(), order
		}
		digits := len(after) - len(strings.TrimLeft(after, "0123456789"))
		n, err := strconv.Atoi(after[:digits])
		if err != nil || n < 1 {
			panic("BUG: a statement has a $ without a number")
		}
		inOrder = inOrder && n == len(order)+1
		order = append(order, n-1)
		out.WriteByte('?')
		rest = after[digits:]
	}
}

func (c *conn) close() {
	for _, st := range c.statements {
		st.Close()
	}
	_ = c.Raw(func(any) error {
		for _, cmd := range c.commands {
			_ = cmd.close()
		}
		return nil
	})
	c.Conn.Close()
}
