package web

import (
	"net/netip"
	"time"

	"bulkhead/fault"
	"bulkhead/openai"
	"bulkhead/tenant"
)

// keyObject is OpenAI's project API key object. kind and limits are this
// gateway's own.
type keyObject struct {
	ID         string         `json:"id"`
	Object     string         `json:"object"`
	Name       string         `json:"name"`
	Redacted   string         `json:"redacted_value"`
	CreatedAt  int64          `json:"created_at"`
	LastUsedAt *int64         `json:"last_used_at"` // to the minute
	ExpiresAt  *int64         `json:"expires_at"`
	Access     string         `json:"owner_project_access"`
	Owner      keyOwner       `json:"owner"`
	Kind       string         `json:"kind"`
	Limits     *tenant.Limits `json:"limits,omitempty"`
	AllowedIPs []netip.Prefix `json:"allowed_ips,omitempty"`
	Scopes     []string       `json:"scopes,omitempty"`
	OldExpires *int64         `json:"previous_value_expires_at,omitempty"` // while a rotation overlaps
}

type keyOwner struct {
	Type    string        `json:"type"`
	Account accountObject `json:"service_account"`
}

func toKey(k tenant.KeyWithOwner) keyObject {
	o := keyObject{
		ID: k.Key.ID, Object: "organization.project.api_key", Name: k.Key.Name, Redacted: k.Key.Redacted, CreatedAt: k.Key.CreatedAt.Unix(),
		ExpiresAt: unixTime(k.Key.ExpiresAt), Access: "active", Owner: keyOwner{"service_account", toAccount(k.Owner)}, Kind: k.Key.Kind.String(),
		LastUsedAt: unixTime(k.Key.LastUsedAt), AllowedIPs: k.Key.Rules.AllowedIPs, Scopes: k.Key.Rules.ScopeNames(),
	}
	if k.Key.OldUntil().After(time.Now()) {
		o.OldExpires = unixTime(k.Key.OldUntil())
	}
	if !k.Key.Limits.Zero() {
		o.Limits = &k.Key.Limits
	}
	return o
}

func (g *Gateway) listProjectKeys(r *request) (any, error) {
	p, err := r.page(pageDefault, pageMost)
	if err != nil {
		return nil, err
	}
	switch r.query("owner_project_access") {
	case "", "active", "any":
	case "inactive": // a key goes with its account, so none is without access
		return openai.NewList([]keyObject(nil), func(o keyObject) string { return o.ID }, false), nil
	default:
		return nil, fault.Field("owner_project_access", "owner_project_access must be active, inactive or any.")
	}
	of, err := g.Registry.Project(r.ctx, r.scope, r.param("project"))
	if err != nil {
		return nil, err
	}
	items, more, err := g.Registry.ProjectKeys(r.ctx, r.scope, of.ID, p)
	return listed(p, items, more, err, toKey, func(o keyObject) string { return o.ID })
}

func (g *Gateway) getProjectKey(r *request) (any, error) {
	k, err := g.Registry.ProjectKey(r.ctx, r.scope, r.param("project"), r.param("key"))
	return toKey(k), err
}

func (g *Gateway) updateProjectKey(r *request) (any, error) {
	var b struct {
		Name       *string        `json:"name"`
		ExpiresIn  *int64         `json:"expires_in_seconds"`
		Limits     *tenant.Limits `json:"limits"`
		AllowedIPs *[]string      `json:"allowed_ips"`
		Scopes     *[]string      `json:"scopes"`
	}
	if err := r.decode(&b); err != nil {
		return nil, err
	}
	p, err := g.active(r)
	if err != nil {
		return nil, err
	}
	old, err := g.Registry.ProjectKey(r.ctx, r.scope, p.ID, r.param("key"))
	if err != nil {
		return nil, err
	}
	k := old.Key
	if !k.ExpiresAt.IsZero() && !g.now().Before(k.ExpiresAt) {
		return nil, fault.New(fault.Invalid, "The key has expired; make a new one.").WithCode("expired_api_key")
	}
	if b.Name != nil {
		if k.Name, err = checkName("name", *b.Name); err != nil {
			return nil, err
		}
	}
	if b.ExpiresIn != nil {
		if k.ExpiresAt, err = g.expiry(b.ExpiresIn); err != nil {
			return nil, err
		}
	}
	if b.Limits != nil {
		if err := checkLimits(b.Limits); err != nil {
			return nil, err
		}
		k.Limits = *b.Limits
	}
	if b.AllowedIPs != nil {
		if k.Rules.AllowedIPs, err = parseNetworks("allowed_ips", *b.AllowedIPs); err != nil {
			return nil, err
		}
	}
	if b.Scopes != nil {
		scopes, err := keyScopes(b.Scopes, g.routes.parts)
		if err != nil {
			return nil, err
		}
		before := k.Rules.ScopeNames()
		k.Rules.SetScopes(scopes)
		if wider(scopes, before) && !r.scope.Allows(p.ID, tenant.ModelRequest) {
			return nil, errWider // who makes keys needs it too
		}
	}
	changed, err := g.Registry.UpdateKey(r.ctx, r.scope, k)
	return toKey(changed), err
}

func (g *Gateway) deleteProjectKey(r *request) (any, error) {
	id := r.param("key")
	if _, err := g.Registry.ProjectKey(r.ctx, r.scope, r.param("project"), id); err != nil {
		return nil, err
	}
	return deleted{id, "organization.project.api_key.deleted", true}, g.Registry.RevokeKey(r.ctx, r.scope, r.param("project"), id)
}

// adminKeyObject is OpenAI's admin API key object.
type adminKeyObject struct {
	ID         string     `json:"id"`
	Object     string     `json:"object"`
	Name       string     `json:"name"`
	Redacted   string     `json:"redacted_value"`
	Value      string     `json:"value,omitempty"` // in the answer that makes it
	CreatedAt  int64      `json:"created_at"`
	LastUsedAt *int64     `json:"last_used_at"` // to the minute
	ExpiresAt  *int64     `json:"expires_at"`
	Owner      adminOwner `json:"owner"`

	AllowedIPs []netip.Prefix `json:"allowed_ips,omitempty"`
	Scopes     []string       `json:"scopes,omitempty"`
	OldExpires *int64         `json:"previous_value_expires_at,omitempty"` // while a rotation overlaps
}

// adminOwner stands where OpenAI names a person: an admin key acts for the
// company.
type adminOwner struct {
	Type      string `json:"type"`
	Object    string `json:"object"`
	ID        string `json:"id"`
	Name      string `json:"name"`
	CreatedAt int64  `json:"created_at"`
	Role      string `json:"role"`
}

func toAdminKey(s tenant.Scope, k tenant.Key) adminKeyObject {
	c := s.Company()
	o := adminKeyObject{
		ID: k.ID, Object: "organization.admin_api_key", Name: k.Name, Redacted: k.Redacted, CreatedAt: k.CreatedAt.Unix(), ExpiresAt: unixTime(k.ExpiresAt),
		LastUsedAt: unixTime(k.LastUsedAt), AllowedIPs: k.Rules.AllowedIPs, Scopes: k.Rules.ScopeNames(),
		Owner: adminOwner{"user", "organization.user", c.ID().String(), c.Name, c.CreatedAt.Unix(), "owner"},
	}
	if k.OldUntil().After(time.Now()) {
		o.OldExpires = unixTime(k.OldUntil())
	}
	return o
}

func (g *Gateway) listAdminKeys(r *request) (any, error) {
	p, err := r.page(pageDefault, pageMost)
	if err != nil {
		return nil, err
	}
	p.Desc = r.query("order") == "desc" // here alone OpenAI's default is ascending
	items, more, err := g.Registry.AdminKeys(r.ctx, r.scope, p)
	to := func(k tenant.Key) adminKeyObject { return toAdminKey(r.scope, k) }
	return listed(p, items, more, err, to, func(o adminKeyObject) string { return o.ID })
}

func (g *Gateway) getAdminKey(r *request) (any, error) {
	k, err := g.Registry.AdminKey(r.ctx, r.scope, r.param("key"))
	return toAdminKey(r.scope, k), err
}

func (g *Gateway) createAdminKey(r *request) (any, error) {
	var b struct {
		Name       *string   `json:"name"`
		ExpiresIn  *int64    `json:"expires_in_seconds"`
		AllowedIPs []string  `json:"allowed_ips"`
		Scopes     *[]string `json:"scopes"`
	}
	if err := r.decode(&b); err != nil {
		return nil, err
	}
	if b.Name == nil {
		return nil, fault.Field("name", "name is required.")
	}
	name, err := checkName("name", *b.Name)
	if err != nil {
		return nil, err
	}
	expires, err := g.expiry(b.ExpiresIn)
	if err != nil {
		return nil, err
	}
	networks, err := parseNetworks("allowed_ips", b.AllowedIPs)
	if err != nil {
		return nil, err
	}
	scopes, err := keyScopes(b.Scopes, tenant.AllPermissions.Names())
	if err != nil {
		return nil, err
	}
	value, k := g.Tenants.Minter().Mint(r.scope, tenant.KeyAdmin)
	k.Rules.AllowedIPs = networks
	k.Rules.SetScopes(scopes)
	k.Name, k.CreatedAt, k.ExpiresAt, k.UserID = name, g.now(), expires, r.scope.UserID()
	o := toAdminKey(r.scope, k)
	o.Value = value
	return o, g.Registry.CreateKey(r.ctx, r.scope, k)
}

// deleteAdminKey revokes an admin key, the one that asks included: who loses
// the last one asks the operator for another.
func (g *Gateway) deleteAdminKey(r *request) (any, error) {
	id := r.param("key")
	if _, err := g.Registry.AdminKey(r.ctx, r.scope, id); err != nil {
		return nil, err
	}
	return deleted{id, "organization.admin_api_key.deleted", true}, g.Registry.RevokeKey(r.ctx, r.scope, "", id)
}
