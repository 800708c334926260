package web

import (
	"errors"
	"slices"
	"time"

	"bulkhead/fault"
	"bulkhead/ledger"
	"bulkhead/limiter"
	"bulkhead/openai"
	"bulkhead/tenant"
)

// budgetObject is this gateway's own object of a budget, with where it stands in
// the period that runs. What it counts says which of the three amounts it has.
type budgetObject struct {
	ID        string        `json:"id"`
	Object    string        `json:"object"`
	CreatedAt int64         `json:"created_at"`
	Scope     budgetScope   `json:"scope"`
	Window    tenant.Period `json:"window"`
	Mode      string        `json:"mode"`
	*usdAmounts
	*requestAmounts
	*tokenAmounts
	PeriodStart *int64 `json:"period_start"`
	ResetAt     *int64 `json:"reset_at"` // null: never
}

// budgetScope says whose a budget is. The id is null for the company; that of a
// user is tenant.UserID of the name, or "*".
type budgetScope struct {
	Type string  `json:"type"`
	ID   *string `json:"id"`
}

// The amounts of a budget. What is used is null where each user has their own.
type (
	usdAmounts struct {
		Limit     string  `json:"limit_usd"`
		Spent     *string `json:"spent_usd"`
		Held      *string `json:"held_usd"`
		Remaining *string `json:"remaining_usd"`
	}
	requestAmounts struct {
		Limit     int64  `json:"limit_requests"`
		Spent     *int64 `json:"spent_requests"`
		Held      *int64 `json:"held_requests"`
		Remaining *int64 `json:"remaining_requests"`
	}
	tokenAmounts struct {
		Limit     int64  `json:"limit_tokens"`
		Spent     *int64 `json:"spent_tokens"`
		Held      *int64 `json:"held_tokens"`
		Remaining *int64 `json:"remaining_tokens"`
	}
)

// The two modes of a budget: see tenant.Budget.Soft.
const (
	modeStrict = "strict"
	modeSoft   = "soft"
)

// toBudget shows a budget; st is nil where each user stands somewhere else.
func toBudget(b *tenant.Budget, st *limiter.Standing, now time.Time) budgetObject {
	o := budgetObject{ID: b.ID, Object: "organization.budget", CreatedAt: b.CreatedAt.Unix(), Window: b.Period, Mode: modeStrict}
	if o.Scope.Type = b.Kind; b.Of != "" {
		o.Scope.ID = &b.Of
	}
	if b.Soft {
		o.Mode = modeSoft
	}
	var spent, held, left *int64
	from, to := b.Calendar.Window(b.Period, now)
	if st != nil {
		rest := max(b.Limit-st.Spent-st.Held, 0)
		spent, held, left, from, to = &st.Spent, &st.Held, &rest, st.From, st.To
	}
	switch b.Unit {
	case tenant.USD:
		o.usdAmounts = &usdAmounts{ledger.FormatUSD(b.Limit), decimal(spent), decimal(held), decimal(left)}
	case tenant.Requests:
		o.requestAmounts = &requestAmounts{b.Limit, spent, held, left}
	case tenant.Tokens:
		o.tokenAmounts = &tokenAmounts{b.Limit, spent, held, left}
	}
	o.PeriodStart, o.ResetAt = unixTime(from), unixTime(to)
	return o
}

func decimal(nano *int64) *string {
	if nano == nil {
		return nil
	}
	s := ledger.FormatUSD(*nano)
	return &s
}

// shown returns the budgets with where they stand.
func (g *Gateway) shown(r *request, s tenant.Scope, budgets []*tenant.Budget) ([]budgetObject, error) {
	counted := slices.DeleteFunc(slices.Clone(budgets), eachUser)
	stands, err := g.Limiter.Standing(r.ctx, s, counted)
	if err != nil {
		return nil, err
	}
	out := make([]budgetObject, len(budgets))
	for i, b := range budgets {
		var st *limiter.Standing
		if !eachUser(b) {
			st, stands = &stands[0], stands[1:]
		}
		out[i] = toBudget(b, st, g.now())
	}
	return out, nil
}

func eachUser(b *tenant.Budget) bool { return b.Kind == tenant.OfUser && b.Of == tenant.EachUser }

// ofCeiling reports whether a budget is the operator's: a company's own
// administration does not have it.
func ofCeiling(b *tenant.Budget) bool { return b.Kind == tenant.OfCeiling }

// budgets returns the company's own budgets as they now are.
func (g *Gateway) budgets(r *request) ([]*tenant.Budget, error) {
	_, all, err := g.Registry.Budgets(r.ctx, r.scope)
	return slices.DeleteFunc(all, ofCeiling), err
}

func (g *Gateway) listBudgets(r *request) (any, error) {
	p, err := r.page(pageDefault, pageMost)
	if err != nil {
		return nil, err
	}
	all, err := g.budgets(r)
	if err != nil {
		return nil, err
	}
	some, more, err := cut(all, p, func(b *tenant.Budget) string { return b.ID })
	if err != nil {
		return listed(p, some, more, err, func(*tenant.Budget) budgetObject { return budgetObject{} }, nil)
	}
	rows, err := g.shown(r, r.scope, some)
	return listed(p, rows, more, err, func(o budgetObject) budgetObject { return o }, func(o budgetObject) string { return o.ID })
}

// budget returns the budget of the path.
func (g *Gateway) budget(r *request) (*tenant.Budget, error) {
	all, err := g.budgets(r)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(all, func(b *tenant.Budget) bool { return b.ID == r.param("budget") })
	if i < 0 {
		return nil, tenant.ErrNotFound
	}
	return all[i], nil
}

// oneShown is shown for one budget.
func (g *Gateway) oneShown(r *request, s tenant.Scope, b *tenant.Budget) (any, error) {
	rows, err := g.shown(r, s, []*tenant.Budget{b})
	if err != nil {
		return nil, err
	}
	return rows[0], nil
}

func (g *Gateway) getBudget(r *request) (any, error) {
	b, err := g.budget(r)
	if err != nil {
		return nil, err
	}
	return g.oneShown(r, r.scope, b)
}

// budgetBody is what a budget is made or changed with.
type budgetBody struct {
	Scope *struct {
		Type string `json:"type"`
		ID   string `json:"id"`
	} `json:"scope"`
	Window        *tenant.Period `json:"window"`
	LimitUSD      *string        `json:"limit_usd"`
	LimitRequests *int64         `json:"limit_requests"`
	LimitTokens   *int64         `json:"limit_tokens"`
	Mode          *string        `json:"mode"`
}

// limit returns the one limit of a body; unit is "" if it has none.
func (b *budgetBody) limit() (unit tenant.Unit, limit int64, err error) {
	n := 0
	if b.LimitUSD != nil {
		n, unit = n+1, tenant.USD
		if limit, err = parseLimit("limit_usd", *b.LimitUSD); err != nil {
			return "", 0, err
		}
	}
	for _, f := range []struct {
		name string
		unit tenant.Unit
		v    *int64
	}{{"limit_requests", tenant.Requests, b.LimitRequests}, {"limit_tokens", tenant.Tokens, b.LimitTokens}} {
		if f.v == nil {
			continue
		}
		if n, unit, limit = n+1, f.unit, *f.v; limit < 0 || limit > maxLimit {
			return "", 0, fault.Field(f.name, "%s must be a whole number from 0 to %d.", f.name, int64(maxLimit))
		}
	}
	if n > 1 {
		return "", 0, fault.Field("limit_usd", "A budget has one of limit_usd, limit_requests and limit_tokens.")
	}
	return unit, limit, nil
}

// parseLimit reads an amount of USD that bounds something.
func parseLimit(field, text string) (nano int64, err error) {
	nano, err = ledger.ParseUSD(text)
	if err != nil {
		return 0, fault.Field(field, "%s is %s.", field, err)
	}
	if nano < 0 || nano > tenant.MaxBudget {
		return 0, fault.Field(field, "%s must be from 0 to %s.", field, ledger.FormatUSD(tenant.MaxBudget))
	}
	return nano, nil
}

func (b *budgetBody) soft(before bool) (bool, error) {
	if b.Mode == nil {
		return before, nil
	}
	if *b.Mode != modeStrict && *b.Mode != modeSoft {
		return false, fault.Field("mode", "mode must be strict or soft.")
	}
	return *b.Mode == modeSoft, nil
}

// createBudget makes a budget, or replaces the limit of the one that the same
// owner has for the same window and unit.
func (g *Gateway) createBudget(r *request) (any, error) {
	var body budgetBody
	if err := r.decode(&body); err != nil {
		return nil, err
	}
	b := tenant.Budget{ID: openai.NewID("budget_"), CreatedAt: g.now()}
	var err error
	if b.Unit, b.Limit, err = body.limit(); err != nil {
		return nil, err
	}
	switch {
	case body.Scope == nil:
		return nil, fault.Field("scope", "scope is required.")
	case b.Unit == "":
		return nil, fault.Field("limit_usd", "One of limit_usd, limit_requests and limit_tokens is required.")
	}
	if b.Period, err = parseWindow(body.Window); err != nil {
		return nil, err
	}
	if b.Soft, err = body.soft(false); err != nil {
		return nil, err
	}
	if b.Kind, b.Of, err = g.owner(r, body.Scope.Type, body.Scope.ID); err != nil {
		return nil, err
	}
	return g.putBudget(r, b)
}

func (g *Gateway) putBudget(r *request, b tenant.Budget) (any, error) {
	put, _, err := g.Registry.PutBudget(r.ctx, r.scope, b)
	if err != nil {
		return nil, err
	}
	calendar, _, err := g.Registry.Budgets(r.ctx, r.scope)
	if err != nil {
		return nil, err
	}
	put.Calendar = calendar
	return g.oneShown(r, r.scope, &put)
}

func parseWindow(p *tenant.Period) (tenant.Period, error) {
	if p == nil {
		return "", fault.Field("window", "window is required.")
	}
	if !slices.Contains([]tenant.Period{tenant.Day, tenant.Week, tenant.Month, tenant.Total}, *p) {
		return "", fault.Field("window", "window must be day, week, month or total.")
	}
	return *p, nil
}

// owner returns whose a budget is to be. What there is not and what is another
// company's are the same.
func (g *Gateway) owner(r *request, kind, id string) (tenantKind, of string, err error) {
	unknown := func() error { return fault.Field("scope.id", "There is no such %s, or it is not yours.", kind) }
	switch {
	case !slices.Contains([]string{tenant.OfCompany, tenant.OfProject, tenant.OfKey, tenant.OfAgent, tenant.OfUser}, kind):
		return "", "", fault.Field("scope.type", "scope.type must be company, project, key, agent or user.")
	case kind == tenant.OfCompany:
		if id != "" {
			return "", "", fault.Field("scope.id", "The company has no id here: it is that of the key.")
		}
		return kind, "", nil
	case id == "":
		return "", "", fault.Field("scope.id", "scope.id is required.")
	case len(id) > maxName:
		return "", "", fault.Field("scope.id", "scope.id must be at most %d bytes.", maxName)
	}
	switch kind {
	case tenant.OfProject:
		var p tenant.Project
		if p, err = g.Registry.Project(r.ctx, r.scope, id); err == nil && !p.ArchivedAt.IsZero() {
			err = tenant.ErrNotFound
		}
	case tenant.OfKey:
		var k *tenant.Key
		if k, err = g.Registry.LoadKey(r.ctx, r.scope.ID(), id); err == nil && k.Kind == tenant.KeyAdmin {
			err = tenant.ErrNotFound // it calls no models
		}
	case tenant.OfAgent:
		if g.Agents == nil {
			return "", "", unknown()
		}
		_, err = g.Agents.Agent(r.ctx, r.scope, id)
	case tenant.OfUser:
		if id != tenant.EachUser && !tenant.IsUserID(id) {
			id = tenant.UserID(r.scope, id)
		}
	}
	if errors.Is(err, tenant.ErrNotFound) {
		err = unknown()
	}
	return kind, id, err
}

func (g *Gateway) updateBudget(r *request) (any, error) {
	var body budgetBody
	if err := r.decode(&body); err != nil {
		return nil, err
	}
	b, err := g.budget(r)
	if err != nil {
		return nil, err
	}
	unit, limit, err := body.limit()
	switch {
	case err != nil:
		return nil, err
	case body.Scope != nil:
		return nil, fault.Field("scope", "The scope of a budget does not change. Make another one.")
	case body.Window != nil && *body.Window != b.Period:
		return nil, fault.Field("window", "The window of a budget does not change. Make another one.")
	case unit != "" && unit != b.Unit:
		return nil, fault.Field("limit_"+string(unit), "What a budget counts does not change. Make another one.")
	case unit != "":
		b.Limit = limit
	}
	if b.Soft, err = body.soft(b.Soft); err != nil {
		return nil, err
	}
	return g.putBudget(r, *b)
}

func (g *Gateway) deleteBudget(r *request) (any, error) {
	id := r.param("budget")
	return deleted{id, "organization.budget.deleted", true}, g.Registry.DeleteBudget(r.ctx, r.scope, id)
}
