package tenant

import (
	"context"
	"time"
)

// Upkeep is a piece of work that the gateway does for a company by itself, such
// as adding up its ledger, as the store gives it out.
type Upkeep struct {
	Company string // its id
	Kind    string // see the kinds
	// Until is how long the one who took the work may take for it: then it is
	// given out again.
	Until time.Time
}

// The kinds of Upkeep.
const (
	RollUp      = "rollup"  // add up the ledger, and delete entries that are past their time
	CheckAlerts = "alert"   // compare spending with the thresholds of alerts
	Deliver     = "webhook" // send what is due to webhooks
	SweepKept   = "kept"    // delete calls with an Idempotency-Key, and whose responses are, when their time is over
	SweepMemory = "memory"  // delete conversations whose time is over
	Ingest      = "ingest"  // take files into vector stores, and remove what was deleted
)

// Background opens the company of u for the work. Nobody is shown what comes of
// it, so unlike with Scope no act of an operator is recorded. The error is a
// fault of kind NotFound for a company that was erased or is being erased.
func (d *Directory) Background(ctx context.Context, u Upkeep) (Scope, error) {
	locator := ID{u.Company}.Locator()
	if u.Company != idPrefix+locator || !validLocator([]byte(locator)) {
		return Scope{}, errNoCompany
	}
	kn, err := d.known(ctx, []byte(locator))
	if err != nil {
		return Scope{}, err
	}
	if kn == nil || kn.company.Status == Erasing {
		return Scope{}, errNoCompany
	}
	return d.background(kn.company), nil
}

// background is the scope of no key.
func (d *Directory) background(c *Company) Scope {
	return Scope{&access{company: c, limits: d.limits(c, nil, nil), budgets: c.budgetsOf(nil, nil), minter: d.minter}}
}
