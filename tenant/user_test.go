package tenant_test

import (
	"bytes"
	"strings"
	"testing"

	"bulkhead/tenant"
	"bulkhead/tenant/tenanttest"
)

func TestUserID(t *testing.T) {
	w := tenanttest.New(t, tenant.Options{})
	_, acme := w.Company("acme", tenant.KeyLive, nil)
	_, beta := w.Company("beta", tenant.KeyLive, nil)
	a := tenant.UserID(acme, "alice@example.com")
	if !tenant.IsUserID(a) || strings.Contains(a, "alice") {
		t.Errorf("the id is %q", a)
	}
	if again := tenant.UserID(acme, "alice@example.com"); again != a {
		t.Errorf("once %s, then %s", a, again)
	}
	// Whatever key of the company asks, and the gateway itself.
	act, err := w.Gateway().Begin(t.Context(), "look", acme.ID().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := w.Scope(t.Context(), act, acme.ID().String())
	if err != nil || tenant.UserID(s, "alice@example.com") != a {
		t.Errorf("another id without a key: %v", err)
	}
	seen := map[string]bool{a: true}
	other := tenant.NewDirectory(w, w, tenant.NewMinter(bytes.Repeat([]byte("x"), 32)), tenant.Options{})
	elsewhere, err := other.Background(t.Context(), tenant.Upkeep{Company: acme.ID().String()})
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{
		tenant.UserID(beta, "alice@example.com"), tenant.UserID(elsewhere, "alice@example.com"),
		tenant.UserID(acme, "alice@example.co"), tenant.UserID(acme, "Alice@example.com"), tenant.UserID(acme, " "), tenant.UserID(acme, "\x00"),
		tenant.UserID(acme, strings.Repeat("x", 1<<20)),
	} {
		if seen[id] || !tenant.IsUserID(id) {
			t.Errorf("id %q twice, or no id", id)
		}
		seen[id] = true
	}
	if tenant.UserID(acme, "") != "" {
		t.Error("nobody has an id")
	}
	for _, id := range []string{"", "*", "user_", "alice", a[:len(a)-1], a + "0", strings.ToUpper(a), "x" + a[1:], a[:len(a)-1] + "g"} {
		if tenant.IsUserID(id) {
			t.Errorf("%q is taken for an id", id)
		}
	}
}

// Background opens companies that are there, whether they may call or not.
func TestBackground(t *testing.T) {
	w := tenanttest.New(t, tenant.Options{})
	_, s := w.Company("acme", tenant.KeyLive, nil)
	id := s.ID().String()
	f := func(company string, status tenant.Status, want bool) {
		t.Helper()
		w.Edit(s, func(c *tenant.Company) { c.Status = status })
		got, err := w.Background(t.Context(), tenant.Upkeep{Company: company})
		if (err == nil) != want {
			t.Errorf("%q, %s: %v", company, status, err)
		}
		if err == nil && (got.ID() != s.ID() || got.Key() != nil || got.Project() != nil || got.Actor() != "gateway") {
			t.Errorf("opened %s of key %q", got.ID(), got.KeyID())
		}
	}
	f(id, tenant.Active, true)
	f(id, tenant.Suspended, true)
	f(id, tenant.Erasing, false)
	f(id, tenant.Erased, false)
	for _, other := range []string{"", "org-", "org-0000000000", id + "x", "x" + id, s.ID().Locator()} {
		f(other, tenant.Active, false)
	}
	if n := len(w.Acts()); n != 1 { // that which made the company
		t.Errorf("%d acts were recorded", n)
	}
}

func TestCheckBudgets(t *testing.T) {
	f := func(want bool, all ...*tenant.Budget) {
		t.Helper()
		if err := tenant.CheckBudgets(all); (err == nil) != want {
			t.Errorf("%d budgets: %v", len(all), err)
		}
	}
	of := func(kind, of string, n, from int) (all []*tenant.Budget) {
		units, periods := []tenant.Unit{tenant.USD, tenant.Requests, tenant.Tokens}, []tenant.Period{tenant.Day, tenant.Week, tenant.Month, tenant.Total}
		for i := from; i < from+n; i++ {
			all = append(all, &tenant.Budget{Kind: kind, Of: of, Unit: units[i/4], Period: periods[i%4]})
		}
		return all
	}
	f(true)
	f(true, of(tenant.OfUser, "a", 6, 0)...)
	f(true, append(of(tenant.OfUser, "a", 3, 0), of(tenant.OfUser, tenant.EachUser, 6, 0)...)...)
	f(false, append(of(tenant.OfUser, "a", 1, 6), of(tenant.OfUser, tenant.EachUser, 6, 0)...)...)
	f(true, append(of(tenant.OfUser, "a", 3, 0), of(tenant.OfUser, "b", 4, 0)...)...)
	var many []*tenant.Budget
	for i := range tenant.MaxBudgets {
		many = append(many, &tenant.Budget{Kind: tenant.OfUser, Of: strings.Repeat("x", i+1), Unit: tenant.USD, Period: tenant.Day})
	}
	f(true, many...)
	f(false, append(many, of(tenant.OfCompany, "", 1, 0)...)...)
}
