package tenant

import (
	"sync/atomic"
	"time"
)

// Price is an override of a list price, as it is stored: what is in Spec is
// package ledger's.
type Price struct {
	Provider  string // as configured, or the catalogue's name
	Model     string // the provider's own name of it
	Spec      string // a ledger.PriceRow in JSON
	UpdatedAt time.Time
}

// ID names the price in the API.
func (p *Price) ID() string { return p.Provider + "/" + p.Model }

// OperatorPrices stands in the change feed, where a company's id stands, for the
// operator's prices.
const OperatorPrices = "operator prices"

// derived is what somebody made of a company's policy and something else.
type derived struct{ from, made any }

// memo keeps one such thing as long as the policy is in memory.
type memo struct{ p atomic.Pointer[derived] }

// Derive returns what make makes of the company's policy and from, which is
// compared by identity. It is made once for both; make may run more than once at the
// same time. There is room for one thing: its user is package web, for prices.
func (c *Company) Derive(from any, make func() any) any {
	if d := c.memo.p.Load(); d != nil && d.from == from {
		return d.made
	}
	made := make()
	c.memo.p.Store(&derived{from, made})
	return made
}
