// Package pgtest gives tests databases on a real PostgreSQL server: one server
// for each test process, on loopback, which ends with the process.
//
// Tests are skipped where the server cannot be had, and fail there if
// REQUIRE_SERVERS is 1.
package pgtest

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"bulkhead/test/servers"
)

// Shared is the environment variable that has the URL of the server's superuser
// if a parent process has started it: a test that starts itself again with
// Environ shares server and templates.
const Shared = "BULKHEAD_TEST_POSTGRES"

// Database is one database and who may use it.
type Database struct {
	Name     string
	AdminURL string // the superuser of the server
	OwnerURL string // who migrates: no superuser, but may make roles
	URL      string // the gateway's user, which is there once somebody has made it
}

// server is the server of this process.
type server struct {
	admin *url.URL
	run   *servers.Server // nil if another process has started it

	mu        sync.Mutex
	templates map[string]error
	last      atomic.Int64
}

var started = sync.OnceValues(start)

func start() (*server, error) {
	s := &server{templates: map[string]error{}}
	var err error
	if shared := os.Getenv(Shared); shared != "" {
		s.admin, err = url.Parse(shared)
		return s, err
	}
	if s.run, err = servers.Open(context.Background(), "postgres"); err != nil {
		return nil, err
	}
	if s.admin, err = url.Parse(s.run.Var("POSTGRES_URL")); err != nil {
		return nil, err
	}
	return s, s.do("postgres", `CREATE ROLE bulkhead_owner LOGIN CREATEROLE PASSWORD 'owner'`)
}

// Main runs the tests of a package and then stops the server, if there is one.
// It is for TestMain and does not return.
func Main(m *testing.M) {
	status := m.Run()
	// Nothing is started here: that a test asks first is why it is a OnceValues.
	if asked.Load() {
		if s, err := started(); err == nil && s.run != nil {
			_ = s.run.Close()
		}
	}
	os.Exit(status)
}

var asked atomic.Bool

func get(t testing.TB) *server {
	t.Helper()
	asked.Store(true)
	s, err := started()
	servers.Require(t, err)
	return s
}

// Environ is the environment for a process that shares the server.
func Environ(t testing.TB) []string {
	t.Helper()
	return append(os.Environ(), Shared+"="+get(t).admin.String())
}

// New makes an empty database, which is dropped when the test has ended.
func New(t testing.TB) Database {
	t.Helper()
	return get(t).make(t, "template0")
}

// Copy makes a copy of the template with that name. fill makes the template of
// an empty database, once in the life of the server. It must close every
// connection.
func Copy(t testing.TB, template string, fill func(Database) error) Database {
	t.Helper()
	s := get(t)
	s.mu.Lock()
	err, done := s.templates[template]
	if !done {
		err = s.template(template, fill)
		s.templates[template] = err
	}
	s.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	return s.make(t, template)
}

func (s *server) template(name string, fill func(Database) error) error {
	there := false
	err := s.with("postgres", func(ctx context.Context, c *pgx.Conn) error {
		return c.QueryRow(ctx, `SELECT EXISTS (SELECT 1 FROM pg_database WHERE datname = $1)`, name).Scan(&there)
	})
	if err != nil || there {
		return err
	}
	if err := s.create(name, "template0"); err != nil {
		return err
	}
	return fill(s.database(name))
}

func (s *server) make(t testing.TB, template string) Database {
	t.Helper()
	name := fmt.Sprintf("t%d_%d", os.Getpid(), s.last.Add(1))
	if err := s.create(name, template); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.do("postgres", "DROP DATABASE "+name+" WITH (FORCE)"); err != nil {
			t.Error(err)
		}
	})
	return s.database(name)
}

func (s *server) create(name, template string) error {
	return s.do("postgres", "CREATE DATABASE "+name+" OWNER bulkhead_owner TEMPLATE "+template)
}

func (s *server) database(name string) Database {
	as := func(user *url.Userinfo) string {
		u := *s.admin
		u.User, u.Path = user, "/"+name
		return u.String()
	}
	return Database{
		Name:     name,
		AdminURL: as(s.admin.User),
		OwnerURL: as(url.UserPassword("bulkhead_owner", "owner")),
		URL:      as(url.UserPassword("gateway", "run'time")),
	}
}

func (s *server) do(database string, statements ...string) error {
	return s.with(database, func(ctx context.Context, c *pgx.Conn) error {
		for _, text := range statements {
			if _, err := c.Exec(ctx, text); err != nil {
				return fmt.Errorf("%s: %w", text, err)
			}
		}
		return nil
	})
}

// with runs fn as the superuser.
func (s *server) with(database string, fn func(context.Context, *pgx.Conn) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	u := *s.admin
	u.Path = "/" + database
	c, err := pgx.Connect(ctx, u.String())
	if err != nil {
		return err
	}
	defer c.Close(ctx)
	return fn(ctx, c)
}

// Exec runs statements in the database as the server's superuser.
func (d Database) Exec(t testing.TB, statements ...string) {
	t.Helper()
	if err := get(t).do(d.Name, statements...); err != nil {
		t.Fatal(err)
	}
}

// As connects to the database with one of its URLs until the test has ended.
func As(t testing.TB, url string) *pgx.Conn {
	t.Helper()
	c, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(context.Background()) })
	return c
}
