package vector_test

import (
	"sync/atomic"
	"testing"
	"time"

	"bulkhead/test/servers"
	"bulkhead/vector"
	"bulkhead/vector/vectortest"
)

// TestMilvus runs the suite against the real server as it comes: it ticks every
// 200 ms.
func TestMilvus(t *testing.T) {
	server := servers.Start(t, "milvus")
	prefixes := map[*vectortest.Shelf]string{}
	vectortest.Run(t, func(t *testing.T, h *vectortest.Shelf) vectortest.Opened {
		if prefixes[h] == "" {
			prefixes[h] = "suite" // one collection for all: other tests' vectors stand beside
		}
		var violations atomic.Int64
		x := vector.OpenMilvus(vector.MilvusOptions{Addr: server.Var("MILVUS_ADDR"), Prefix: prefixes[h], Search: 10 * time.Second,
			Violation: func() { violations.Add(1) }})
		t.Cleanup(func() { x.Close() })
		return vectortest.Opened{Index: x, Violations: violations.Load}
	})
}
