//go:build !race

package tenant_test

import (
	"testing"

	"bulkhead/tenant"
)

// TestSessionAllocations: a warm session costs no memory, like a warm key.
func TestSessionAllocations(t *testing.T) {
	p := newPeopled(t)
	secret := []byte(p.session(t, tenant.SessionLife))
	warm := func() {
		if _, err := p.AuthenticateSession(t.Context(), secret); err != nil {
			t.Fatal(err)
		}
	}
	if n := testing.AllocsPerRun(200, warm); n > 0 {
		t.Errorf("%v allocations for a warm session", n)
	}
}
