package web

import (
	"cmp"
	"time"

	"bulkhead/fault"
	"bulkhead/openai"
	"bulkhead/tenant"
)

// accountObject is OpenAI's project service account object.
type accountObject struct {
	ID        string `json:"id"`
	Object    string `json:"object"`
	Name      string `json:"name"`
	Role      string `json:"role"`
	CreatedAt int64  `json:"created_at"`
}

func toAccount(a tenant.ServiceAccount) accountObject {
	return accountObject{a.ID, "organization.project.service_account", a.Name, a.Role, a.CreatedAt.Unix()}
}

// newKeyObject is a key at the one time it is shown.
type newKeyObject struct {
	ID        string `json:"id"`
	Object    string `json:"object"`
	Name      string `json:"name"`
	Value     string `json:"value"`
	CreatedAt int64  `json:"created_at"`
	ExpiresAt *int64 `json:"expires_at"`
}

func toNewKey(k tenant.Key, value string) *newKeyObject {
	return &newKeyObject{k.ID, "organization.project.service_account.api_key", k.Name, value, k.CreatedAt.Unix(), unixTime(k.ExpiresAt)}
}

func (g *Gateway) listServiceAccounts(r *request) (any, error) {
	p, err := r.page(pageDefault, pageMost)
	if err != nil {
		return nil, err
	}
	of, err := g.Registry.Project(r.ctx, r.scope, r.param("project"))
	if err != nil {
		return nil, err
	}
	items, more, err := g.Registry.ServiceAccounts(r.ctx, r.scope, of.ID, p)
	return listed(p, items, more, err, toAccount, func(o accountObject) string { return o.ID })
}

func (g *Gateway) getServiceAccount(r *request) (any, error) {
	a, err := g.Registry.ServiceAccount(r.ctx, r.scope, r.param("project"), r.param("account"))
	return toAccount(a), err
}

// keyBody is what a new key of a project can be made with. kind and limits are
// this gateway's own.
type keyBody struct {
	Name       *string        `json:"name"`
	ExpiresIn  *int64         `json:"expires_in_seconds"`
	Kind       string         `json:"kind"` // live (default) or test
	Limits     *tenant.Limits `json:"limits"`
	AllowedIPs []string       `json:"allowed_ips"`
	Scopes     *[]string      `json:"scopes"`
}

// maxExpiry is the longest life of a key that has an end, in seconds: 10 years.
const maxExpiry = 10 * 366 * 24 * 60 * 60

// expiry returns when something ends that ends so many seconds from now.
func (g *Gateway) expiry(seconds *int64) (time.Time, error) {
	switch {
	case seconds == nil:
		return time.Time{}, nil
	case *seconds < 1 || *seconds > maxExpiry:
		return time.Time{}, fault.Field("expires_in_seconds", "expires_in_seconds must be from 1 to %d.", int64(maxExpiry))
	}
	return g.now().Add(time.Duration(*seconds) * time.Second), nil
}

// mint makes a key of a service account by what the body asks for.
func (g *Gateway) mint(r *request, b keyBody, a tenant.ServiceAccount, name string) (string, tenant.Key, error) {
	kind, ok := tenant.ParseKeyKind(cmp.Or(b.Kind, tenant.KeyLive.String()))
	if !ok || kind != tenant.KeyLive && kind != tenant.KeyTest {
		return "", tenant.Key{}, fault.Field("kind", "kind must be live or test.")
	}
	expires, err := g.expiry(b.ExpiresIn)
	if err != nil {
		return "", tenant.Key{}, err
	}
	if err := checkLimits(b.Limits); err != nil {
		return "", tenant.Key{}, err
	}
	networks, err := parseNetworks("allowed_ips", b.AllowedIPs)
	if err != nil {
		return "", tenant.Key{}, err
	}
	scopes, err := keyScopes(b.Scopes, g.routes.parts)
	if err != nil {
		return "", tenant.Key{}, err
	}
	value, k := g.Tenants.Minter().Mint(r.scope, kind)
	k.Rules.AllowedIPs = networks
	k.Rules.SetScopes(scopes)
	k.ProjectID, k.ServiceAccountID, k.Name, k.CreatedAt, k.ExpiresAt = a.ProjectID, a.ID, name, g.now(), expires
	if b.Limits != nil {
		k.Limits = *b.Limits
	}
	return value, k, nil
}

func (g *Gateway) createServiceAccount(r *request) (any, error) {
	var b struct {
		keyBody
		Only *bool `json:"create_service_account_only"`
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
	p, err := g.active(r)
	if err != nil {
		return nil, err
	}
	a := tenant.ServiceAccount{ID: openai.NewID("svc_acct_"), ProjectID: p.ID, Name: name, Role: "member", CreatedAt: g.now()}
	out := struct {
		accountObject
		Key *newKeyObject `json:"api_key"`
	}{}
	var first *tenant.Key
	if b.Only != nil && *b.Only {
		if b.ExpiresIn != nil {
			return nil, fault.Field("expires_in_seconds", "expires_in_seconds is the life of a key, and create_service_account_only makes none.")
		}
		a.Role = "none"
	} else {
		value, k, err := g.mint(r, b.keyBody, a, name)
		if err != nil {
			return nil, err
		}
		first, out.Key = &k, toNewKey(k, value)
	}
	out.accountObject = toAccount(a)
	return out, g.Registry.CreateServiceAccount(r.ctx, r.scope, a, first)
}

func (g *Gateway) updateServiceAccount(r *request) (any, error) {
	var b struct {
		Name *string `json:"name"`
		Role *string `json:"role"`
	}
	if err := r.decode(&b); err != nil {
		return nil, err
	}
	p, err := g.active(r)
	if err != nil {
		return nil, err
	}
	a, err := g.Registry.ServiceAccount(r.ctx, r.scope, p.ID, r.param("account"))
	if err != nil {
		return nil, err
	}
	if b.Name != nil {
		if a.Name, err = checkName("name", *b.Name); err != nil {
			return nil, err
		}
	}
	if b.Role != nil {
		if *b.Role != "member" && *b.Role != "owner" {
			return nil, fault.Field("role", "role must be member or owner.")
		}
		a.Role = *b.Role
	}
	a, err = g.Registry.UpdateServiceAccount(r.ctx, r.scope, p.ID, a.ID, a.Name, a.Role)
	return toAccount(a), err
}

func (g *Gateway) deleteServiceAccount(r *request) (any, error) {
	id := r.param("account")
	return deleted{id, "organization.project.service_account.deleted", true},
		g.Registry.DeleteServiceAccount(r.ctx, r.scope, r.param("project"), id)
}

func (g *Gateway) createServiceAccountKey(r *request) (any, error) {
	var b keyBody
	if err := r.decode(&b); err != nil {
		return nil, err
	}
	p, err := g.active(r)
	if err != nil {
		return nil, err
	}
	a, err := g.Registry.ServiceAccount(r.ctx, r.scope, p.ID, r.param("account"))
	if err != nil {
		return nil, err
	}
	name := a.Name
	if b.Name != nil {
		if name, err = checkName("name", *b.Name); err != nil {
			return nil, err
		}
	}
	value, k, err := g.mint(r, b, a, name)
	if err != nil {
		return nil, err
	}
	return toNewKey(k, value), g.Registry.CreateKey(r.ctx, r.scope, k)
}
