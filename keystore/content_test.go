package keystore_test

import (
	"bytes"
	"errors"
	"testing"

	"bulkhead/keystore"
	"bulkhead/tenant"
	"bulkhead/tenant/tenanttest"
)

// TestContent: content opens where it was sealed and nowhere else, and shows
// nothing before.
func TestContent(t *testing.T) {
	f := newFixture(t, keystore.Options{})
	acme, beta := tenanttest.Scope(t, "acme"), tenanttest.Scope(t, "beta")
	if _, err := f.Open(t.Context(), beta, "answer", "1", []byte("anything")); !errors.Is(err, keystore.ErrSealed) {
		t.Errorf("without a data key: %v", err)
	}
	plain := []byte("what the model said")
	sealed, err := f.Seal(t.Context(), acme, "answer", "1", plain)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(sealed, []byte("model")) {
		t.Error("it is readable")
	}
	other, err := f.Seal(t.Context(), beta, "answer", "1", plain)
	if err != nil {
		t.Fatal(err)
	}
	got, err := f.fresh().Open(t.Context(), acme, "answer", "1", sealed)
	if err != nil || !bytes.Equal(got, plain) {
		t.Fatalf("opened %q, %v", got, err)
	}
	no := func(s tenant.Scope, kind, id string, sealed []byte) {
		t.Helper()
		if got, err := f.Open(t.Context(), s, kind, id, sealed); !errors.Is(err, keystore.ErrSealed) {
			t.Errorf("opened as %s %s of %s: %q, %v", kind, id, s.ID(), got, err)
		}
	}
	no(acme, "answer", "2", sealed)
	no(acme, "other", "1", sealed)
	no(beta, "answer", "1", sealed)
	no(acme, "answer", "1", other)
	no(acme, "answer", "1", sealed[:len(sealed)-1])
	no(acme, "answer", "1", nil)
}
