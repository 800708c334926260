package web

import (
	"bulkhead/fault"
	"bulkhead/openai"
	"bulkhead/tenant"
)

// audienceObject is an audience that the operator approved for a company.
type audienceObject struct {
	ID        string `json:"id"`
	Object    string `json:"object"`
	Audience  string `json:"audience"`
	CreatedAt int64  `json:"created_at"`
}

func toAudience(a tenant.ApprovedAudience) audienceObject {
	return audienceObject{a.ID, "company.audience", a.Audience, a.CreatedAt.Unix()}
}

// ofCompany begins an operator's act on the company of the path and opens it.
func (g *Gateway) ofCompany(r *request, action string) (act tenant.Act, s tenant.Scope, err error) {
	act, id, err := r.begin(action)
	if err != nil {
		return act, s, err
	}
	s, err = g.Tenants.Scope(r.ctx, act, id)
	return act, s, err
}

func (g *Gateway) listAudiences(r *request) (any, error) {
	p, err := r.page(pageDefault, pageMost)
	if err != nil {
		return nil, err
	}
	act, s, err := g.ofCompany(r, "company.audience.list")
	if err != nil {
		return nil, err
	}
	items, more, err := g.Registry.Audiences(r.ctx, act, s, p)
	return listed(p, items, more, err, toAudience, func(o audienceObject) string { return o.ID })
}

// approveAudience lets a company have tokens for an audience that is not its own.
// It is that company's only, so the operator should know that it is theirs.
func (g *Gateway) approveAudience(r *request) (any, error) {
	var b struct {
		Audience string `json:"audience"`
	}
	if err := r.decode(&b); err != nil {
		return nil, err
	}
	switch {
	case !plainText(b.Audience):
		return nil, fault.Field("audience", "audience must be 1 to %d visible ASCII characters.", maxIssuer)
	case tenant.IsOwnAudience(b.Audience):
		return nil, fault.Field("audience", "This is the form of the audience that each company has of its own.")
	}
	act, s, err := g.ofCompany(r, "company.audience.approve")
	if err != nil {
		return nil, err
	}
	a := tenant.ApprovedAudience{ID: openai.NewID("aud_"), Audience: b.Audience, CreatedAt: g.now()}
	return toAudience(a), g.Registry.ApproveAudience(r.ctx, act, s, a)
}

// revokeAudience takes an audience away. Providers that have it trust nobody any
// more.
func (g *Gateway) revokeAudience(r *request) (any, error) {
	act, s, err := g.ofCompany(r, "company.audience.revoke")
	if err != nil {
		return nil, err
	}
	id := r.param("audience")
	return deleted{id, "company.audience.deleted", true}, g.Registry.RevokeAudience(r.ctx, act, s, id)
}
