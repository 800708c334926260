package web

import (
	"slices"

	"bulkhead/fault"
	"bulkhead/openai"
	"bulkhead/tenant"
)

// nanoPerCent is how many nano-USD a cent is.
const nanoPerCent = 10_000_000

// spendLimitObject is OpenAI's spend limit: the budget of money per month of the
// company or of a project.
type spendLimitObject struct {
	Object      string `json:"object"`
	Amount      int64  `json:"threshold_amount"` // cents
	Currency    string `json:"currency"`
	Interval    string `json:"interval"`
	Enforcement struct {
		Status string `json:"status"`
	} `json:"enforcement"`
}

func toSpendLimit(object string, b *tenant.Budget) spendLimitObject {
	o := spendLimitObject{Object: object, Amount: b.Limit / nanoPerCent, Currency: "USD", Interval: "month"}
	o.Enforcement.Status = "enforcing"
	return o
}

// monthly is OpenAI's way to say USD per month. The threshold is in cents.
type monthly struct {
	Amount   *int64 `json:"threshold_amount"`
	Currency string `json:"currency"`
	Interval string `json:"interval"`
}

// nano returns the threshold in nano-USD; least is what it is at least, in cents.
func (m *monthly) nano(least int64) (int64, error) {
	const most = tenant.MaxBudget / nanoPerCent
	switch {
	case m.Amount == nil:
		return 0, fault.Field("threshold_amount", "threshold_amount is required.")
	case *m.Amount < least || *m.Amount > most:
		return 0, fault.Field("threshold_amount", "threshold_amount must be from %d to %d cents.", least, int64(most))
	case m.Currency != "USD":
		return 0, fault.Field("currency", "currency must be USD.")
	case m.Interval != "month":
		return 0, fault.Field("interval", "interval must be month.")
	}
	return *m.Amount * nanoPerCent, nil
}

// spendLimitOf returns the object's name and the owner of the budget: the
// company, or the project of the path.
func (g *Gateway) spendLimitOf(r *request, ofProject, change bool) (object, kind, of string, err error) {
	if !ofProject {
		return "organization.spend_limit", tenant.OfCompany, "", nil
	}
	var p tenant.Project
	if change {
		p, err = g.active(r)
	} else {
		p, err = g.Registry.Project(r.ctx, r.scope, r.param("project"))
	}
	return "project.spend_limit", tenant.OfProject, p.ID, err
}

// budgetOf returns the owner's budget of that unit and period, nil if there is none.
func (g *Gateway) budgetOf(r *request, kind, of string, unit tenant.Unit, period tenant.Period) (*tenant.Budget, error) {
	all, err := g.budgets(r)
	i := slices.IndexFunc(all, func(b *tenant.Budget) bool {
		return b.Kind == kind && b.Of == of && b.Unit == unit && b.Period == period
	})
	if err != nil || i < 0 {
		return nil, err
	}
	return all[i], nil
}

func (g *Gateway) getSpendLimit(r *request, ofProject bool) (any, error) {
	object, kind, of, err := g.spendLimitOf(r, ofProject, false)
	if err != nil {
		return nil, err
	}
	b, err := g.budgetOf(r, kind, of, tenant.USD, tenant.Month)
	if err == nil && b == nil {
		err = tenant.ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	return toSpendLimit(object, b), nil
}

func (g *Gateway) setSpendLimit(r *request, ofProject bool) (any, error) {
	var body monthly
	if err := r.decode(&body); err != nil {
		return nil, err
	}
	nano, err := body.nano(1)
	if err != nil {
		return nil, err
	}
	object, kind, of, err := g.spendLimitOf(r, ofProject, true)
	if err != nil {
		return nil, err
	}
	before, err := g.budgetOf(r, kind, of, tenant.USD, tenant.Month)
	if err != nil {
		return nil, err
	}
	b := tenant.Budget{ID: openai.NewID("budget_"), Kind: kind, Of: of, Unit: tenant.USD, Period: tenant.Month, Limit: nano, CreatedAt: g.now()}
	if before != nil {
		b.Soft = before.Soft
	}
	b, _, err = g.Registry.PutBudget(r.ctx, r.scope, b)
	return toSpendLimit(object, &b), err
}

// deleteSpendLimit takes the limit away; where there is none, it stays so.
func (g *Gateway) deleteSpendLimit(r *request, ofProject bool) (any, error) {
	object, kind, of, err := g.spendLimitOf(r, ofProject, true)
	if err != nil {
		return nil, err
	}
	b, err := g.budgetOf(r, kind, of, tenant.USD, tenant.Month)
	if err == nil && b != nil {
		err = g.Registry.DeleteBudget(r.ctx, r.scope, b.ID)
	}
	return deleted{Object: object + ".deleted", Deleted: true}, err
}

func (g *Gateway) getCompanySpendLimit(r *request) (any, error) { return g.getSpendLimit(r, false) }
func (g *Gateway) setCompanySpendLimit(r *request) (any, error) { return g.setSpendLimit(r, false) }
func (g *Gateway) deleteCompanySpendLimit(r *request) (any, error) {
	return g.deleteSpendLimit(r, false)
}
func (g *Gateway) getProjectSpendLimit(r *request) (any, error) { return g.getSpendLimit(r, true) }
func (g *Gateway) setProjectSpendLimit(r *request) (any, error) { return g.setSpendLimit(r, true) }
func (g *Gateway) deleteProjectSpendLimit(r *request) (any, error) {
	return g.deleteSpendLimit(r, true)
}
