package storetest

import (
	"slices"
	"testing"

	"bulkhead/tenant"
)

func price(provider, model, says string) tenant.Price {
	return tenant.Price{Provider: provider, Model: model, Spec: `{"says":"` + says + `"}`, UpdatedAt: epoch}
}

// testPrices stores prices of a company and of the operator, and hears of both.
func testPrices(t *testing.T, open Open) {
	w := newWorld(t, open)
	s, _ := w.company("acme")
	must(t, w.db.PutPrice(w.ctx(), s, price("up", "b", "1")))
	must(t, w.db.PutPrice(w.ctx(), s, price("up", "a", "2")))
	must(t, w.db.PutPrice(w.ctx(), s, price("up", "b", "3")))
	same(t, w.again(s).Company().Prices, []tenant.Price{price("up", "a", "2"), price("up", "b", "3")})
	must(t, w.db.DeletePrice(w.ctx(), s, "up", "a"))
	wantErr(t, w.db.DeletePrice(w.ctx(), s, "up", "a"), tenant.ErrNotFound)
	same(t, w.again(s).Company().Prices, []tenant.Price{price("up", "b", "3")})

	must(t, w.db.SetDegraded(w.ctx(), s, tenant.Allowance{Nano: 5, Requests: 7}))
	same(t, w.again(s).Company().Degraded, tenant.Allowance{Nano: 5, Requests: 7})
	must(t, w.db.SetDegraded(w.ctx(), s, tenant.Allowance{}))
	same(t, w.again(s).Company().Degraded, tenant.Allowance{})

	_, last, err := w.db.Changes(w.ctx(), 0)
	must(t, err)
	heard := func(want bool) {
		t.Helper()
		who, now, err := w.db.Changes(w.ctx(), last)
		must(t, err)
		last = now
		same(t, slices.Contains(who, tenant.OperatorPrices), want)
	}
	heard(false)
	act := w.act("price.put", "")
	must(t, w.db.PutOperatorPrice(w.ctx(), act, price("up", "b", "4")))
	heard(true)
	must(t, w.db.PutOperatorPrice(w.ctx(), act, price("up", "a", "5")))
	must(t, w.db.PutOperatorPrice(w.ctx(), act, price("up", "b", "6")))
	heard(true)
	listed := func(want ...tenant.Price) {
		t.Helper()
		all, err := w.db.OperatorPrices(w.ctx())
		must(t, err)
		same(t, all, want)
	}
	listed(price("up", "a", "5"), price("up", "b", "6"))
	wantErr(t, w.db.DeleteOperatorPrice(w.ctx(), act, "up", "c"), tenant.ErrNotFound)
	heard(false)
	must(t, w.db.DeleteOperatorPrice(w.ctx(), act, "up", "a"))
	heard(true)
	listed(price("up", "b", "6"))
	same(t, w.again(s).Company().Prices, []tenant.Price{price("up", "b", "3")})
}
