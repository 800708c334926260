package store_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"sync"
	"testing"
	"time"

	"bulkhead/ledger"
	"bulkhead/store"
	"bulkhead/store/pgtest"
	"bulkhead/tenant"
)

// TestOneConnection lets companies take turns on the only connection, with
// requests that end in the middle. Nobody may find another's setting on it.
func TestOneConnection(t *testing.T) {
	o := options(migrated(t))
	o.MaxConns = 1
	db := open(t, o)
	scopes := []tenant.Scope{company(t, db, "acme"), company(t, db, "beta"), company(t, db, "gamma")}
	names := []string{"acme", "beta", "gamma"}
	cancelled, read := 0, 0
	for i := range 120 {
		who := i % len(scopes)
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i/4)*40*time.Microsecond)
		var projects []tenant.Project
		var err error
		switch i / len(scopes) % 4 {
		case 0:
			projects, _, err = db.Projects(ctx, scopes[who], pageOfAll, true)
		case 1:
			_, err = db.UpdateProject(ctx, scopes[who], "p", names[who], tenant.Limits{Concurrent: int64(i)})
		case 2:
			err = db.AppendEntries(ctx, []ledger.Booked{{Scope: scopes[who], Entry: ledger.Entry{ID: fmt.Sprint("att_", i), Model: names[who]}}})
		case 3:
			_, _, err = db.Companies(ctx, act(t, db), pageOfAll)
		}
		cancel()
		switch {
		case errors.Is(err, context.DeadlineExceeded):
			cancelled++
		case err != nil:
			t.Fatal(err)
		}
		for _, p := range projects {
			read++
			if p.Name != names[who] {
				t.Fatalf("%s reads %q", names[who], p.Name)
			}
		}
		if company, operator := store.LeftOn(t, db); company != "" || operator != "" {
			t.Fatalf("company %q and operator %q are left on the connection", company, operator)
		}
		// The next on the connection.
		next := (who + 1) % len(scopes)
		found, _, err := db.Projects(t.Context(), scopes[next], pageOfAll, true)
		if err != nil || len(found) != 1 || found[0].Name != names[next] {
			t.Fatalf("%s reads %v, %v", names[next], found, err)
		}
		entries, _, err := db.Entries(t.Context(), scopes[next], pageOfAll)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if e.Model != names[next] {
				t.Fatalf("%s reads an entry of %s", names[next], e.Model)
			}
		}
	}
	t.Logf("%d requests of 120 ended early, %d rows read by the others", cancelled, read)
	if cancelled < 20 || read < 5 {
		t.Error("too few of either to show anything")
	}
}

// TestLostConnections has the server close every connection, as a restart does.
func TestLostConnections(t *testing.T) {
	d := migrated(t)
	db := open(t, options(d))
	s := company(t, db, "acme")
	var wg sync.WaitGroup
	for i := range 10 { // so that several connections are made
		wg.Go(func() {
			for n := range 5 {
				if err := db.SetModelLimits(t.Context(), s, "p", fmt.Sprint(i, n), tenant.Limits{Concurrent: 1}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	c := pgtest.As(t, d.AdminURL)
	if n := count(t, c, `SELECT count(*) FROM (SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'gateway' AND datname = current_database()) AS ended`); n < 2 || n > 5 {
		t.Fatalf("%d connections", n)
	}
	if _, err := db.Project(t.Context(), s, "p"); err != nil {
		t.Error(err)
	}
	if _, err := db.UpdateProject(t.Context(), s, "p", "acme", tenant.Limits{}); err != nil {
		t.Error(err)
	}
}

// TestStatementTimeout locks a table, so that nobody else's statement ends.
func TestStatementTimeout(t *testing.T) {
	d := migrated(t)
	o := options(d)
	o.StatementTimeout = 150 * time.Millisecond
	db := open(t, o)
	s := company(t, db, "acme")
	c := pgtest.As(t, d.AdminURL)
	tx, err := c.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), `LOCK TABLE project, entry`); err != nil {
		t.Fatal(err)
	}
	f := func(what string, err error) {
		t.Helper()
		if err == nil || errors.Is(err, tenant.ErrNotFound) {
			t.Errorf("%s: error %v", what, err)
		}
	}
	start := time.Now()
	_, err = db.Project(t.Context(), s, "p")
	f("Project", err)
	_, err = db.UpdateProject(t.Context(), s, "p", "x", tenant.Limits{})
	f("UpdateProject", err)
	f("AppendEntries", db.AppendEntries(t.Context(), []ledger.Booked{{Scope: s, Entry: ledger.Entry{ID: "att_1"}}}))
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("gave up after %s", took)
	}
	// A caller who does not wait that long is answered at once.
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := db.Project(ctx, s, "p"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	p, err := db.Project(t.Context(), s, "p")
	if err != nil || p.Name != "acme" {
		t.Errorf("afterwards: %v, %v", p, err)
	}
}

// TestFrozenGateway has one gateway stop in the middle of a change. Another one, with
// the same limits, waits well shorter than until it would give up.
func TestFrozenGateway(t *testing.T) {
	d := migrated(t)
	o := options(d)
	o.StatementTimeout = 9 * time.Second
	frozen, other := open(t, o), open(t, o)
	s := company(t, other, "acme")
	thaw := store.Freeze(t, frozen)
	defer thaw()
	start := time.Now()
	if err := other.CreateProject(t.Context(), s, tenant.Project{ID: "q", Name: "q"}); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took < time.Second || took > 7*time.Second {
		t.Errorf("waited %s", took)
	}
}

// TestFrozenServer opens the database through a line that goes dead: no error,
// no answer.
func TestFrozenServer(t *testing.T) {
	d := migrated(t)
	u, err := url.Parse(d.URL)
	if err != nil {
		t.Fatal(err)
	}
	line := newLine(t, u.Host)
	u.Host = line.l.Addr().String()
	o := options(d)
	o.URL, o.StatementTimeout, o.ConnectTimeout = u.String(), 200*time.Millisecond, 200*time.Millisecond
	db := open(t, o)
	s := company(t, db, "acme")
	line.cut()
	start := time.Now()
	for range 3 {
		if _, err := db.Project(t.Context(), s, "p"); err == nil {
			t.Error("answered")
		}
	}
	if db.Ping(t.Context()) == nil {
		t.Error("is there")
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("gave up after %s", took)
	}
}

// line is a way to a server that can go dead.
type line struct {
	l    net.Listener
	dead chan struct{}
	once sync.Once
}

func newLine(t *testing.T, to string) *line {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	x := &line{l: l, dead: make(chan struct{})}
	var wg sync.WaitGroup
	ended := make(chan struct{})
	pass := func(to, from net.Conn) {
		buf := make([]byte, 32<<10)
		for {
			n, err := from.Read(buf)
			select {
			case <-x.dead:
				<-ended // holds on to both ends and says nothing
				return
			default:
			}
			if err != nil {
				to.Close()
				return
			}
			if _, err := to.Write(buf[:n]); err != nil && err != io.EOF {
				return
			}
		}
	}
	wg.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil {
				in.Close()
				return
			}
			context.AfterFunc(t.Context(), func() { in.Close(); out.Close() })
			wg.Go(func() { pass(out, in) })
			wg.Go(func() { pass(in, out) })
		}
	})
	t.Cleanup(func() { close(ended); l.Close(); wg.Wait() })
	return x
}

func (x *line) cut() { x.once.Do(func() { close(x.dead) }) }

// TestCloseWaits closes the store while a statement waits for a lock.
func TestCloseWaits(t *testing.T) {
	d := migrated(t)
	db := open(t, options(d))
	s := company(t, db, "acme")
	c := pgtest.As(t, d.AdminURL)
	tx, err := c.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), `LOCK TABLE route`); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := db.PutRoute(t.Context(), s, tenant.Route{Name: "r"}); err != nil {
			t.Error(err)
		}
	})
	waiting := func() bool {
		return count(t, tx, `SELECT count(*) FROM pg_locks WHERE NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`) == 1
	}
	for deadline := time.Now().Add(10 * time.Second); !waiting(); {
		if time.Now().After(deadline) {
			t.Fatal("nobody waits for the lock")
		}
	}
	closed := make(chan error, 1)
	go func() { closed <- db.Close() }()
	select {
	case <-closed:
		t.Error("closed beneath a statement")
	case <-time.After(50 * time.Millisecond):
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
	wg.Wait()
	if n := count(t, c, `SELECT count(*) FROM route`); n != 1 {
		t.Errorf("%d routes", n)
	}
}

// TestPrepared checks that statements are prepared once for each connection.
func TestPrepared(t *testing.T) {
	o := options(migrated(t))
	o.MaxConns = 1
	db := open(t, o)
	s := company(t, db, "acme")
	f := func() int {
		t.Helper()
		for range 3 {
			if _, _, err := db.Projects(t.Context(), s, pageOfAll, true); err != nil {
				t.Fatal(err)
			}
		}
		return store.PreparedOn(t, db)
	}
	if first, second := f(), f(); first < 3 || second > first+1 { // and the one that counts
		t.Errorf("%d statements are prepared, then %d", first, second)
	}
}
