package vector_test

import (
	"context"
	"errors"
	"syscall"
	"testing"
	"time"

	"bulkhead/fault"
	"bulkhead/tenant/tenanttest"
	"bulkhead/test/servers"
	"bulkhead/vector"
	"bulkhead/vector/vectortest"
)

// slack is what a busy machine may take on top of a deadline.
const slack = 900 * time.Millisecond

func openMilvus(t *testing.T, addr string, o vector.MilvusOptions) *vector.Milvus {
	t.Helper()
	o.Addr = addr
	x := vector.OpenMilvus(o)
	t.Cleanup(func() { x.Close() })
	return x
}

// A Milvus that was never there, is frozen, is killed: a search ends by its
// deadline, or at once, and finds again when the server is back, without a restart.
func TestMilvusFaults(t *testing.T) {
	server := servers.Start(t, "milvus")
	x := openMilvus(t, server.Var("MILVUS_ADDR"), vector.MilvusOptions{})
	h, s, sp := vectortest.NewShelf(), tenanttest.Scope(t, "a"), vectortest.Space(4)
	h.Put(t, x, s, sp, "vs_1", "file-1", axis(4, 0))
	q := vector.Query{Vector: axis(4, 0), Stores: h.Stores(s, "vs_1"), Limit: 1}

	ask := func() (time.Duration, error) {
		ctx, cancel := context.WithTimeout(t.Context(), 150*time.Millisecond)
		defer cancel()
		begun := time.Now()
		hits, err := x.Search(ctx, s, sp, q)
		if err == nil && len(hits) != 1 {
			err = errors.New("found nothing")
		}
		return time.Since(begun), err
	}
	away := func(what string) {
		t.Helper()
		took, err := ask()
		if !fault.Is(err, fault.Timeout) && !fault.Is(err, fault.Unavailable) {
			t.Errorf("%s: %v", what, err)
		}
		if took > 150*time.Millisecond+slack {
			t.Errorf("%s: a search took %s", what, took)
		}
	}
	back := func(what string) {
		t.Helper()
		for end := time.Now().Add(time.Minute); ; <-time.After(50 * time.Millisecond) {
			_, err := ask()
			if err == nil {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("%s: %v", what, err)
			}
		}
	}
	back("at first")

	pid := server.PIDs("MILVUS_PID")[0]
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	away("frozen")
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	back("no longer frozen")

	if err := server.Stop(); err != nil {
		t.Fatal(err)
	}
	away("stopped")
	if err := x.Check(t.Context()); err == nil {
		t.Error("a server that is stopped is said to be there")
	}
	never := openMilvus(t, server.Var("MILVUS_ADDR"), vector.MilvusOptions{})
	begun := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := never.Search(ctx, s, sp, q); !fault.Is(err, fault.Timeout) && !fault.Is(err, fault.Unavailable) {
		t.Errorf("one that was never there: %v", err)
	}
	if took := time.Since(begun); took > 100*time.Millisecond+slack {
		t.Errorf("one that was never there took %s", took)
	}
	if err := server.Again(t.Context()); err != nil {
		t.Fatal(err)
	}
	back("started again")
	// What was put in is still there, and more can be.
	h.Put(t, never, s, sp, "vs_1", "file-2", axis(4, 0), axis(4, 1))
	if got := len(find(t, x, s, sp, h.Stores(s, "vs_1"))); got != 3 {
		t.Errorf("found %d", got)
	}
}
