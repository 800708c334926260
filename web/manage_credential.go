package web

import (
	"bulkhead/fault"
	"bulkhead/keystore"
	"bulkhead/provider"
	"bulkhead/tenant"
)

// credentialObject is a credential as it is shown: never its secret.
type credentialObject struct {
	ID        string  `json:"id"`
	Object    string  `json:"object"`
	Provider  string  `json:"provider"`
	Version   int64   `json:"version"`
	Redacted  string  `json:"redacted_value"`
	BaseURL   *string `json:"base_url"`
	CreatedAt int64   `json:"created_at"`
	UpdatedAt int64   `json:"updated_at"`
}

func toCredential(c keystore.Sealed) credentialObject {
	o := credentialObject{
		ID: c.ID, Object: "organization.credential", Provider: c.Provider, Version: c.Version, Redacted: c.Redacted,
		CreatedAt: c.CreatedAt.Unix(), UpdatedAt: c.UpdatedAt.Unix(),
	}
	if c.BaseURL != "" {
		o.BaseURL = &c.BaseURL
	}
	return o
}

// credentials returns all of the company's. There is at most one per provider,
// so they are paged in memory.
func (g *Gateway) credentials(r *request) ([]credentialObject, error) {
	all, err := g.Keys.List(r.ctx, r.scope)
	out := make([]credentialObject, len(all))
	for i, c := range all {
		out[i] = toCredential(c)
	}
	return out, err
}

func credentialID(o credentialObject) string { return o.ID }

func (g *Gateway) listCredentials(r *request) (any, error) {
	page, err := r.page(pageDefault, pageMost)
	if err != nil {
		return nil, err
	}
	all, err := g.credentials(r)
	if err != nil {
		return nil, err
	}
	rows, more, err := cut(all, page, credentialID)
	return listed(page, rows, more, err, func(o credentialObject) credentialObject { return o }, credentialID)
}

func (g *Gateway) getCredential(r *request) (any, error) {
	all, err := g.credentials(r)
	if err != nil {
		return nil, err
	}
	for _, o := range all {
		if o.ID == r.param("credential") {
			return o, nil
		}
	}
	return nil, tenant.ErrNotFound
}

// credentialBody is a credential as it is sent.
type credentialBody struct {
	Provider string            `json:"provider"`
	Secret   *string           `json:"secret"` // left out for a provider that takes no key
	BaseURL  string            `json:"base_url"`
	Resource string            `json:"resource"`
	Header   map[string]string `json:"header"`
}

// checked returns the credential to be stored for company.
func (b *credentialBody) checked(r *request, company string) (n keystore.NewCredential, err error) {
	v := r.settings.Vendors[b.Provider]
	switch {
	case b.Provider == "":
		return n, fault.Field("provider", "provider is required.")
	case v == nil:
		return n, fault.Field("provider", "The gateway has no provider of this name.")
	}
	secret, keyless := "", b.Secret == nil && !v.NeedsSecret
	switch {
	case b.Secret != nil:
		secret = *b.Secret
	case !keyless:
		return n, fault.Field("secret", "secret is required: this provider takes a key.")
	}
	c := provider.Credential{
		Company: company, Provider: b.Provider, Secret: provider.NewSecret(secret),
		BaseURL: b.BaseURL, Resource: b.Resource, Header: b.Header,
	}
	if err := v.Check(&c, r.settings.AllowPrivate); err != nil {
		return n, err
	}
	return keystore.NewCredential{
		Provider: c.Provider, Keyless: keyless, Secret: c.Secret, BaseURL: c.BaseURL, Resource: c.Resource, Header: c.Header,
	}, nil
}

// putCredential stores the company's credential for a provider, in place of
// the one there was. Calls under way end with the old one.
func (g *Gateway) putCredential(r *request) (any, error) {
	var b credentialBody
	if err := r.decode(&b); err != nil {
		return nil, err
	}
	if b.BaseURL != "" && !r.settings.CompanyBaseURLs && r.settings.Vendors[b.Provider] != nil {
		return nil, fault.Field("base_url", "The operator of this gateway does not allow companies to choose addresses (upstream.company_base_urls).")
	}
	n, err := b.checked(r, r.scope.ID().String())
	if err != nil {
		return nil, err
	}
	sealed, err := g.Keys.Put(r.ctx, r.scope, n)
	return toCredential(sealed), err
}

func (g *Gateway) deleteCredential(r *request) (any, error) {
	id := r.param("credential")
	return deleted{id, "organization.credential.deleted", true}, g.Keys.Delete(r.ctx, r.scope, id)
}
