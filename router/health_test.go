package router_test

import (
	"testing"
	"time"

	"bulkhead/provider"
	"bulkhead/router"
)

// TestHealth: what fails is tried last by who saw it fail, a lent one by all only
// when two companies saw it, and each is tried again after a while.
func TestHealth(t *testing.T) {
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	var h router.Health
	target := func(company string, lent bool) provider.Target {
		return provider.Target{Company: company, Provider: "first", Model: "m", Lent: lent}
	}
	first := func(company string, lent bool) string {
		all := []provider.Target{target(company, lent), {Company: company, Provider: "second", Model: "m"}}
		h.Order(all, now)
		return all[0].Provider
	}
	fail := func(company string, lent bool, times int) {
		one := target(company, lent)
		for range times {
			h.Report(&one, true, now)
		}
	}
	f := func(what, company string, lent bool, want string) {
		t.Helper()
		if got := first(company, lent); got != want {
			t.Errorf("%s: %s tries %q first, want %q", what, company, got, want)
		}
	}
	f("before any failure", "a", false, "first")
	fail("a", false, 4)
	f("four failures", "a", false, "first")
	fail("a", false, 1)
	f("five", "a", false, "second")
	f("another company's own", "b", false, "first")
	f("not the lent one", "a", true, "first")

	fail("a", true, 50)
	f("its own failures with a lent one", "a", true, "second")
	f("of one company alone", "b", true, "first")
	fail("b", true, 2)
	f("too few of the second", "c", true, "first")
	fail("b", true, 1)
	f("two companies saw it", "c", true, "second")
	if s := h.Stats(); s.Own != 1 || s.Lent != 2 || s.Broken != 3 {
		t.Errorf("stats %+v", s)
	}

	now = now.Add(15 * time.Second)
	f("the probe", "c", true, "first")
	f("while it is probed", "c", true, "second")
	fail("c", true, 1)
	now = now.Add(6 * time.Second)
	f("the probe failed", "c", true, "second")
	now = now.Add(10 * time.Second)
	f("probed again", "c", true, "first")
	one := target("c", true)
	h.Report(&one, false, now)
	f("well again", "c", true, "first")
	f("and for all", "d", true, "first")
}

// TestHealthForgets: failures that are far apart are no sickness, and one company
// cannot fill what is remembered.
func TestHealthForgets(t *testing.T) {
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	var h router.Health
	one := provider.Target{Company: "a", Provider: "first", Model: "m"}
	for range 20 {
		h.Report(&one, true, now)
		now = now.Add(31 * time.Second)
	}
	if s := h.Stats(); s.Broken != 0 {
		t.Errorf("failures half a minute apart: %+v", s)
	}
	other := provider.Target{Company: "b", Provider: "first", Model: "m"}
	for range 5 {
		h.Report(&other, true, now)
	}
	for i := range 10_000 {
		one.Model = string(rune('a' + i))
		for range 5 {
			h.Report(&one, true, now)
		}
	}
	if s := h.Stats(); s.Broken != 65 {
		t.Errorf("%d targets are remembered as broken, want 64 of a and 1 of b", s.Broken)
	}
}
