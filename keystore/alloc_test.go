//go:build !race

package keystore_test

import (
	"context"
	"testing"

	"bulkhead/keystore"
	"bulkhead/tenant/tenanttest"
)

func TestWarmAllocs(t *testing.T) {
	f := newFixture(t, keystore.Options{})
	a := tenanttest.Scope(t, "a")
	f.put(a, "openai", secretA)
	f.want(a, "openai", secretA)
	ctx := context.Background()
	if n := testing.AllocsPerRun(1000, func() {
		if _, err := f.Credential(ctx, a, "openai"); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations per call, want 0", n)
	}
}
