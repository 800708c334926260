//go:build isolation

package store_test

import (
	"os"
	"os/exec"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"bulkhead/store"
	"bulkhead/store/pgtest"
	"bulkhead/store/storetest"
	"bulkhead/test/scale"
)

// The suites that run in processes of their own below, with statements that
// have lost their company predicate.
func TestIsolation(t *testing.T)         { storetest.Isolation(t, openSQLite) }
func TestIsolationPostgres(t *testing.T) { storetest.Isolation(t, openPostgres) }

func TestIsolationUnprotected(t *testing.T) {
	if os.Getenv("BULKHEAD_UNPROTECTED") != "1" {
		t.Skip("runs in a process of its own")
	}
	storetest.Isolation(t, func(t testing.TB, onChange func(string)) *store.DB {
		o := options(pgtest.Copy(t, "unprotected", migrate))
		o.OnChange = onChange
		return open(t, o)
	})
}

// suite runs one of the suites with the predicate of that statement gone, and
// returns whether it passes.
func suite(t *testing.T, environ []string, name, unscoped string) bool {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, "-test.run=^"+name+"$", "-test.timeout=5m")
	cmd.Env = append(slices.Clone(environ), "BULKHEAD_UNSCOPED="+unscoped, "REQUIRE_SERVERS=1")
	return cmd.Run() == nil
}

// noticed takes the company's predicate from each statement in turn, at small scale
// from some that chance picks, and from all at once. The suite must fail each time.
func noticed(t *testing.T, r *scale.Run, environ []string, name string) {
	t.Helper()
	if !suite(t, environ, name, "") {
		t.Fatal("the suite fails without any change")
	}
	names := store.Statements()
	if len(names) < 30 {
		t.Fatalf("only %d statements", len(names))
	}
	if !r.Full() {
		r.Rand().Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
		names = names[:16]
	}
	work := make(chan string)
	var wg sync.WaitGroup
	var caught atomic.Int64
	for range 2 {
		wg.Go(func() {
			for unscoped := range work {
				if suite(t, environ, name, unscoped) {
					t.Errorf("the suite passes although statement %s has lost its company predicate", unscoped)
					continue
				}
				caught.Add(1)
			}
		})
	}
	for _, unscoped := range append(names, "*") {
		work <- unscoped
	}
	close(work)
	wg.Wait()
	t.Logf("%d statements, each in turn, and all at once: %d of %d noticed", len(names), caught.Load(), len(names)+1)
}

// Without row-level security each predicate counts: the suite must fail.
func TestIsolationFails(t *testing.T) {
	noticed(t, scale.Of(t), os.Environ(), "TestIsolation")
}

// A database whose row-level security is off, and an Open that takes it.
func TestIsolationFailsUnprotected(t *testing.T) {
	r := scale.Of(t)
	pgtest.Copy(t, "unprotected", func(d pgtest.Database) error {
		if err := migrate(d); err != nil {
			return err
		}
		for _, table := range store.CompanyTables() {
			d.Exec(t, `ALTER TABLE `+table+` DISABLE ROW LEVEL SECURITY`)
		}
		return nil
	})
	environ := append(pgtest.Environ(t), "BULKHEAD_UNPROTECTED=1")
	noticed(t, r, environ, "TestIsolationUnprotected")
	// Any other Open refuses it, also in this build.
	if suite(t, pgtest.Environ(t), "TestOpensUnprotected", "") {
		t.Error("a database without row-level security was opened")
	}
}

// TestOpensUnprotected must fail: see above.
func TestOpensUnprotected(t *testing.T) {
	if os.Getenv(pgtest.Shared) == "" {
		t.Skip("runs in a process of its own")
	}
	open(t, options(pgtest.Copy(t, "unprotected", migrate)))
}

// With row-level security the suite passes without any predicate: all are gone at
// once, so whatever holds does not lean on another.
func TestIsolationHolds(t *testing.T) {
	migrated(t) // makes the template
	if !suite(t, pgtest.Environ(t), "TestIsolationPostgres", "*") {
		t.Fatal("row-level security does not hold the statements without their company predicates")
	}
	t.Logf("%d statements without their company predicates: held by row-level security", len(store.Statements()))
}
