package web

import (
	"context"
	"fmt"

	"bulkhead/ledger"
	"bulkhead/tenant"
)

// What a model costs is said by the company's own price, else by the operator's,
// else by the list. Of a credential that the operator lent, the company says nothing.

// pricesFor returns the prices of an attempt. Without prices of the company's own it
// makes nothing, and with some once for each change of policy.
func (g *Gateway) pricesFor(s tenant.Scope, lent bool) *ledger.Prices {
	base, c := g.prices.Load(), s.Company()
	if len(c.Prices) == 0 || lent {
		return base
	}
	return c.Derive(base, func() any { return g.override(base, c.Prices) }).(*ledger.Prices)
}

// override returns prices with overrides made. They were checked when they were
// stored; one that cannot be read any more is left out, and said.
func (g *Gateway) override(base *ledger.Prices, all []tenant.Price) *ledger.Prices {
	var rows []ledger.Override
	for i := range all {
		row, err := ledger.ParsePriceRow([]byte(all[i].Spec))
		if err == nil {
			var o ledger.Override
			if o, err = row.Override(""); err == nil {
				rows = append(rows, o)
				continue
			}
		}
		g.Log.Error("a stored price cannot be read; it has no effect", "provider", all[i].Provider, "error", err.Error())
	}
	return base.With(rows)
}

// operatorPricesChanged reads the operator's prices anew; false if they cannot be.
func (g *Gateway) operatorPricesChanged() bool {
	ctx, cancel := context.WithTimeout(context.Background(), manageTimeout)
	defer cancel()
	err := g.LoadPrices(ctx)
	if err != nil {
		g.Log.Error("the operator's prices changed and cannot be read; the old ones hold until they can", "error", err.Error())
	}
	return err == nil
}

// LoadPrices reads the operator's prices.
func (g *Gateway) LoadPrices(ctx context.Context) error {
	g.pricing.Lock()
	defer g.pricing.Unlock()
	all, err := g.Registry.OperatorPrices(ctx)
	if err != nil {
		return fmt.Errorf("cannot read the operator's prices: %w", err)
	}
	g.prices.Store(g.override(g.Prices, all))
	return nil
}
