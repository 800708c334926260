package keystore

import (
	"context"
	"fmt"
	"testing"
	"time"

	"bulkhead/provider"
	"bulkhead/tenant"
	"bulkhead/tenant/tenanttest"
)

// What was read together is not read again together, and none lives shorter or
// longer than a tenth.
func TestSpread(t *testing.T) {
	now := time.Unix(1000, 0)
	o := Options{TTL: 100 * time.Second, CachedPerCompany: 1000, Now: func() time.Time { return now }}
	o.defaults(time.Second)
	s, reads := tenanttest.Scope(t, "a"), 0
	p := newOpened(o, 10*time.Second, func(_ context.Context, s tenant.Scope, name string) (provider.Credential, error) {
		reads++
		return provider.Credential{Company: s.ID().String(), Provider: name}, nil
	})
	ask := func() int {
		before := reads
		for i := range 200 {
			if _, err := p.credential(t.Context(), s, fmt.Sprint("p", i)); err != nil {
				t.Fatal(err)
			}
		}
		return reads - before
	}
	if n := ask(); n != 200 {
		t.Fatalf("%d reads, want 200", n)
	}
	now = now.Add(90*time.Second - 1)
	if n := ask(); n != 0 {
		t.Fatalf("%d of 200 lived shorter than the TTL less a tenth", n)
	}
	now = now.Add(10 * time.Second)
	half := ask()
	if half < 50 || half > 150 {
		t.Fatalf("%d of 200 were read again after the TTL, want about half", half)
	}
	now = now.Add(10*time.Second + 2)
	if n := ask(); n != 200-half {
		t.Fatalf("%d read again after the TTL and a tenth, want %d", n, 200-half)
	}
}
