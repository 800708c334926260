package web

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"

	"bulkhead/fault"
	"bulkhead/openai"
	"bulkhead/tenant"
)

// rateLimitObject is OpenAI's project rate limit object. The limit on requests
// open at one time is this gateway's own. That per day is a budget of the project,
// which only the row of all models has.
type rateLimitObject struct {
	ID         string `json:"id"`
	Object     string `json:"object"`
	Model      string `json:"model"`
	Requests   int64  `json:"max_requests_per_1_minute"`
	Tokens     int64  `json:"max_tokens_per_1_minute"`
	Concurrent int64  `json:"max_concurrent_requests"`
	Day        *int64 `json:"max_requests_per_1_day,omitempty"`
}

// allModels is the row for the project as a whole.
const allModels = "*"

// unlimited is shown where there is no limit, since OpenAI's object has no null
// there; setting it, or more, takes a limit away.
const unlimited = 1<<31 - 1

func shownLimit(n int64) int64 {
	if n == 0 {
		return unlimited
	}
	return n
}

// rateLimitID names the row of a model. Models have slashes in their names, and
// ids must not.
func rateLimitID(model string) string {
	sum := sha256.Sum256([]byte(model))
	return "rl_" + hex.EncodeToString(sum[:12])
}

func toRateLimit(p *tenant.Project, model string) rateLimitObject {
	l := p.Limits
	if model != allModels {
		l = p.Models[model]
	}
	return rateLimitObject{rateLimitID(model), "project.rate_limit", model, shownLimit(l.RequestsPerMinute), shownLimit(l.TokensPerMinute), shownLimit(l.Concurrent), nil}
}

// limitedModels returns the models that have a row: all together, those with
// limits, and every name the project may use.
func limitedModels(r *request, p *tenant.Project) []string {
	var names []string
	for m := range p.Models {
		names = append(names, m)
	}
	for _, m := range r.settings.Router.Models(r.scope) {
		names = append(names, m.ID)
	}
	slices.Sort(names)
	return append([]string{allModels}, slices.Compact(names)...)
}

func (g *Gateway) listRateLimits(r *request) (any, error) {
	const most = 100
	page, err := r.page(most, most)
	if err != nil {
		return nil, err
	}
	p, err := g.Registry.Project(r.ctx, r.scope, r.param("project"))
	if err != nil {
		return nil, err
	}
	rows := make([]rateLimitObject, 0, most)
	for _, m := range limitedModels(r, &p) {
		rows = append(rows, toRateLimit(&p, m))
	}
	if err := g.showDay(r, &rows[0], p.ID); err != nil { // that of all models is the first
		return nil, err
	}
	id := func(o rateLimitObject) string { return o.ID }
	rows, more, err := cut(rows, page, id)
	return listed(page, rows, more, err, func(o rateLimitObject) rateLimitObject { return o }, id)
}

// showDay adds the limit per day to the row of all models of a project.
func (g *Gateway) showDay(r *request, o *rateLimitObject, project string) error {
	b, err := g.budgetOf(r, tenant.OfProject, project, tenant.Requests, tenant.Day)
	if err != nil {
		return err
	}
	if o.Day = nil; b != nil {
		o.Day = &b.Limit
	}
	return nil
}

// setDay sets the limit per day of a project, or takes it away.
func (g *Gateway) setDay(r *request, project string, limit int64) error {
	b, err := g.budgetOf(r, tenant.OfProject, project, tenant.Requests, tenant.Day)
	switch {
	case err != nil:
		return err
	case limit >= unlimited && b != nil:
		return g.Registry.DeleteBudget(r.ctx, r.scope, b.ID)
	case limit >= unlimited:
		return nil
	case b == nil:
		b = &tenant.Budget{ID: openai.NewID("budget_"), Kind: tenant.OfProject, Of: project, Unit: tenant.Requests, Period: tenant.Day, CreatedAt: g.now()}
	}
	b.Limit = limit
	_, _, err = g.Registry.PutBudget(r.ctx, r.scope, *b)
	return err
}

// cut returns a page of a list that is in memory.
func cut[T any](rows []T, p openai.Page, id func(T) string) ([]T, bool, error) {
	at := func(cursor string) int { return slices.IndexFunc(rows, func(o T) bool { return id(o) == cursor }) }
	if p.Desc {
		slices.Reverse(rows)
	}
	if p.After != "" {
		i := at(p.After)
		if i < 0 {
			return nil, false, tenant.ErrNotFound
		}
		rows = rows[i+1:]
	}
	if p.Before != "" {
		i := at(p.Before)
		if i < 0 {
			return nil, false, tenant.ErrNotFound
		}
		rows = rows[:i]
	}
	if len(rows) > p.Limit {
		return rows[:p.Limit], true, nil
	}
	return rows, false, nil
}

func (g *Gateway) updateRateLimit(r *request) (any, error) {
	var b struct {
		Requests   *int64 `json:"max_requests_per_1_minute"`
		Tokens     *int64 `json:"max_tokens_per_1_minute"`
		Concurrent *int64 `json:"max_concurrent_requests"`
		Day        *int64 `json:"max_requests_per_1_day"`
	}
	if err := r.decode(&b); err != nil {
		return nil, err
	}
	p, err := g.active(r)
	if err != nil {
		return nil, err
	}
	models := limitedModels(r, &p)
	i := slices.IndexFunc(models, func(m string) bool { return rateLimitID(m) == r.param("limit") })
	if i < 0 {
		return nil, tenant.ErrNotFound
	}
	model := models[i]
	l := p.Limits
	if model != allModels {
		l = p.Models[model]
	}
	if b.Day != nil && model != allModels {
		return nil, fault.Field("max_requests_per_1_day", "Only the row %s, of all models of the project, has a limit per day.", allModels)
	}
	for _, f := range []struct {
		name string
		from *int64
		to   *int64
	}{
		{"max_requests_per_1_day", b.Day, new(int64)},
		{"max_requests_per_1_minute", b.Requests, &l.RequestsPerMinute},
		{"max_tokens_per_1_minute", b.Tokens, &l.TokensPerMinute},
		{"max_concurrent_requests", b.Concurrent, &l.Concurrent},
	} {
		switch {
		case f.from == nil:
		case *f.from < 1:
			return nil, fault.Field(f.name, "%s must be at least 1; %d is no limit.", f.name, int64(unlimited))
		case *f.from >= unlimited:
			*f.to = 0
		default:
			*f.to = *f.from
		}
	}
	if model == allModels {
		if b.Day != nil {
			if err := g.setDay(r, p.ID, *b.Day); err != nil {
				return nil, err
			}
		}
		if p, err = g.Registry.UpdateProject(r.ctx, r.scope, p.ID, p.Name, l); err != nil {
			return nil, err
		}
		o := toRateLimit(&p, model)
		err := g.showDay(r, &o, p.ID)
		return o, err
	}
	if p.Models == nil {
		p.Models = map[string]tenant.Limits{}
	}
	p.Models[model] = l
	return toRateLimit(&p, model), g.Registry.SetModelLimits(r.ctx, r.scope, p.ID, model, l)
}
