package tenant_test

import (
	"testing"

	"bulkhead/tenant"
	"bulkhead/tenant/tenanttest"
)

// A Scope from before a change is not up to date, and one from after it is.
func TestUpToDate(t *testing.T) {
	w := tenanttest.New(t, tenant.Options{})
	key, _ := w.Company("acme", tenant.KeyLive, nil)
	authenticate := func() tenant.Scope {
		t.Helper()
		s, err := w.Authenticate(t.Context(), []byte(key))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	before := authenticate()
	if !w.UpToDate(before) {
		t.Error("not up to date, and nothing changed")
	}
	w.Changed(before.ID().String())
	if w.UpToDate(before) {
		t.Error("up to date after a change")
	}
	if after := authenticate(); !w.UpToDate(after) || w.UpToDate(before) {
		t.Error("the Scope of before the change is taken for that of after it")
	}
}
