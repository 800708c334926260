//go:build isolation

package vector_test

import (
	"os"
	"os/exec"
	"sync/atomic"
	"testing"

	"bulkhead/test/servers"
	"bulkhead/vector"
	"bulkhead/vector/vectortest"
)

// milvusAddr names the server for the processes below.
const milvusAddr = "BULKHEAD_TEST_MILVUS"

func TestIsolationLocal(t *testing.T) {
	vectortest.Isolation(t, func(t *testing.T, h *vectortest.Shelf) vectortest.Opened {
		return vectortest.Opened{Index: vector.NewLocal(h, vector.LocalOptions{})}
	})
}

func TestIsolationMilvus(t *testing.T) {
	addr := os.Getenv(milvusAddr)
	if addr == "" {
		t.Skip("runs in a process of its own")
	}
	vectortest.Isolation(t, func(t *testing.T, h *vectortest.Shelf) vectortest.Opened {
		var violations atomic.Int64
		x := openMilvus(t, addr, vector.MilvusOptions{Prefix: "isolation", Violation: func() { violations.Add(1) }})
		return vectortest.Opened{Index: x, Violations: violations.Load}
	})
}

// TestIsolationFails takes the company out of the filter: the suite must notice,
// at both indexes.
func TestIsolationFails(t *testing.T) {
	server := servers.Start(t, "milvus", "MILVUS_TICK_MS=20")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	passes := func(name, unfiltered string) bool {
		cmd := exec.CommandContext(t.Context(), self, "-test.run=^"+name+"$", "-test.timeout=120s")
		cmd.Env = append(os.Environ(), "BULKHEAD_UNFILTERED="+unfiltered, "REQUIRE_SERVERS=1", milvusAddr+"="+server.Var("MILVUS_ADDR"))
		return cmd.Run() == nil
	}
	for _, name := range []string{"TestIsolationLocal", "TestIsolationMilvus"} {
		if !passes(name, "") {
			t.Errorf("%s fails without any change", name)
		}
		if passes(name, "1") {
			t.Errorf("%s passes although the company is not in the filter", name)
		}
	}
}
