package tenant_test

import (
	"testing"

	"bulkhead/fault"
	"bulkhead/tenant"
	"bulkhead/tenant/tenanttest"
)

func TestClaim(t *testing.T) {
	w := tenanttest.New(t, tenant.Options{})
	key, s := w.Company("acme", tenant.KeyLive, nil)
	admin, k := w.AddKey(s, tenant.KeyAdmin, "")
	stranger, other := w.Company("other", tenant.KeyLive, nil)
	f := func(key string, want tenant.Claim, ok bool) {
		t.Helper()
		n := w.Loads()
		got, found := w.Claim([]byte(key))
		if got != want || found != ok {
			t.Errorf("%.30s: %+v, %v", key, got, found)
		}
		if w.Loads() != n {
			t.Error("a claim was looked up")
		}
	}
	claim := tenant.Claim{Company: s.ID(), KeyID: s.KeyID()}
	proved := claim
	proved.ProjectID, proved.Proved = s.ProjectID(), true
	f(key, proved, true)
	// The company is in memory, its admin key is not: what it says is a claim.
	f(admin, tenant.Claim{Company: s.ID(), KeyID: k.ID}, true)
	wantScope(t, w.Directory, admin)
	f(admin, tenant.Claim{Company: s.ID(), KeyID: k.ID, Proved: true}, true)

	// Another secret, another kind, another company's key of the same id.
	f(withCRC(key[:len(key)-49]+"0000000000000000000000000000000000000000000"), claim, true)
	f(withPart(key, 2, "test"), claim, true)
	f(withPart(key, 3, part(stranger, 3)), tenant.Claim{Company: other.ID(), KeyID: s.KeyID()}, true)

	// Suspended, the key is still proved.
	w.Edit(s, func(c *tenant.Company) { c.Status = tenant.Suspended })
	wantRefused(t, w.Directory, key, fault.Forbidden, "company_suspended")
	f(key, proved, true)

	// No company that is known here: nothing.
	for _, odd := range []string{"", "garbage", key[:50], withPart(key, 3, "0000000000"), w.AddOperator()} {
		f(odd, tenant.Claim{}, false)
	}
}
