package web

import (
	"encoding/json"
	"strings"
	"time"

	"bulkhead/ledger"
)

var costWidths = map[string]width{"1d": {24 * time.Hour, 7, 180}}

// costResult is OpenAI's result of a bucket of costs. What it is not grouped by
// is null.
type costResult struct {
	Object    string     `json:"object"`
	Amount    costAmount `json:"amount"`
	LineItem  *string    `json:"line_item"`
	Project   *string    `json:"project_id"`
	Key       *string    `json:"api_key_id"`
	User      *string    `json:"user_id"`
	Quantity  *int64     `json:"quantity"` // by line_item: tokens, of input and output
	Unit      *string    `json:"quantity_unit"`
	APISource *string    `json:"api_source"`
}

// costAmount has the sum with all its digits: no floating point comes near it.
type costAmount struct {
	Value    json.Number `json:"value"`
	Currency string      `json:"currency"`
}

// getCosts answers with what all calls cost, whatever their kind.
func (g *Gateway) getCosts(r *request) (any, error) {
	q, err := g.parseUsage(r, costWidths, "project_id", "user_id", "line_item", "api_key_id", "api_source")
	if err != nil {
		return nil, err
	}
	if q.Lines, err = r.list("line_items"); err != nil {
		return nil, err
	}
	group := func(u *ledger.UsageSum) string {
		return strings.Join([]string{u.ProjectID, u.UserID, u.KeyID, u.Line()}, "\x00")
	}
	return g.usage(r, q, group, func(u *ledger.UsageSum) any {
		o := costResult{Object: "organization.costs.result", Amount: costAmount{json.Number(ledger.FormatUSD(u.CostNano)), "usd"},
			LineItem: q.by("line_item", u.Line()), Project: q.by("project_id", u.ProjectID), Key: q.by("api_key_id", u.KeyID),
			User: q.by("user_id", u.UserID), APISource: q.by("api_source", "unlabeled")}
		if o.LineItem != nil {
			tokens, unit := u.Input+u.Output, "tokens"
			o.Quantity, o.Unit = &tokens, &unit
		}
		return o
	})
}
