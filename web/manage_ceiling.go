package web

import (
	"errors"
	"slices"

	"bulkhead/fault"
	"bulkhead/openai"
	"bulkhead/tenant"
)

// The operator's ceiling is what a company may spend of lent credentials. There
// is one at most.

// ceilings returns the company of the path and its ceilings.
func (g *Gateway) ceilings(r *request, action string) (act tenant.Act, s tenant.Scope, all []*tenant.Budget, err error) {
	act, id, err := r.begin(action)
	if err != nil {
		return act, s, nil, err
	}
	if s, err = g.Tenants.Scope(r.ctx, act, id); err != nil {
		return act, s, nil, err
	}
	_, all, err = g.Registry.Budgets(r.ctx, s)
	return act, s, slices.DeleteFunc(all, func(b *tenant.Budget) bool { return !ofCeiling(b) }), err
}

func (g *Gateway) getCeiling(r *request) (any, error) {
	_, s, all, err := g.ceilings(r, "company.ceiling.get")
	if err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, fault.New(fault.NotFound, "The company has no ceiling, so it may use no lent credential.").WithCode("ceiling_not_set")
	}
	return g.ceilingShown(r, s, all[0])
}

func (g *Gateway) ceilingShown(r *request, s tenant.Scope, b *tenant.Budget) (any, error) {
	rows, err := g.shown(r, s, []*tenant.Budget{b})
	if err != nil {
		return nil, err
	}
	o := rows[0]
	o.Object, o.Scope.ID = "company.ceiling", nil
	return o, nil
}

// putCeiling sets the ceiling in place of the one there was. The new one is there
// before the old one goes: at no time there is none.
func (g *Gateway) putCeiling(r *request) (any, error) {
	var body struct {
		Window *tenant.Period `json:"window"`
		Limit  *string        `json:"limit_usd"`
	}
	if err := r.decode(&body); err != nil {
		return nil, err
	}
	b := tenant.Budget{ID: openai.NewID("budget_"), Unit: tenant.USD, CreatedAt: g.now()}
	var err error
	if b.Period, err = parseWindow(body.Window); err != nil {
		return nil, err
	}
	if body.Limit == nil {
		return nil, fault.Field("limit_usd", "limit_usd is required.")
	}
	if b.Limit, err = parseLimit("limit_usd", *body.Limit); err != nil {
		return nil, err
	}
	act, s, before, err := g.ceilings(r, "company.ceiling.put")
	if err != nil {
		return nil, err
	}
	put, err := g.Registry.PutCeiling(r.ctx, act, s, b)
	if err != nil {
		return nil, err
	}
	if err := g.dropCeilings(r, act, s, before, put.ID); err != nil {
		return nil, err
	}
	return g.ceilingShown(r, s, &put)
}

// dropCeilings deletes all but the one with the id.
func (g *Gateway) dropCeilings(r *request, act tenant.Act, s tenant.Scope, all []*tenant.Budget, but string) error {
	for _, b := range all {
		if b.ID == but {
			continue
		}
		if err := g.Registry.DeleteCeiling(r.ctx, act, s, b.ID); err != nil && !errors.Is(err, tenant.ErrNotFound) {
			return err
		}
	}
	return nil
}

// deleteCeiling takes the ceiling away; where there is none, it stays so.
func (g *Gateway) deleteCeiling(r *request) (any, error) {
	act, s, all, err := g.ceilings(r, "company.ceiling.delete")
	if err != nil {
		return nil, err
	}
	return deleted{Object: "company.ceiling.deleted", Deleted: true}, g.dropCeilings(r, act, s, all, "")
}
