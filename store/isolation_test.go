//go:build isolation

package store_test

import (
	"os"
	"os/exec"
	"testing"

	"bulkhead/store"
	"bulkhead/store/storetest"
)

// TestIsolation is the suite that must fail below.
func TestIsolation(t *testing.T) { storetest.Isolation(t, openSQLite) }

// TestIsolationFails takes the company's predicate from each statement in turn
// and runs the suite in a process of its own, which must fail each time.
func TestIsolationFails(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	run := func(unscoped string) (passed bool) {
		cmd := exec.CommandContext(t.Context(), self, "-test.run=^TestIsolation$", "-test.timeout=60s")
		cmd.Env = append(os.Environ(), "BULKHEAD_UNSCOPED="+unscoped)
		return cmd.Run() == nil
	}
	if !run("") {
		t.Fatal("the suite fails without any change")
	}
	names := store.Statements()
	if len(names) < 30 {
		t.Fatalf("only %d statements", len(names))
	}
	for _, name := range append(names, "*") {
		if run(name) {
			t.Errorf("the suite passes although statement %s has lost its company predicate", name)
		}
	}
}
