package web

import (
	"slices"

	"bulkhead/fault"
	"bulkhead/keystore"
	"bulkhead/provider"
	"bulkhead/tenant"
)

// lentObject is a credential that the operator lends, as it is shown: never its
// secret.
type lentObject struct {
	credentialObject
	RequestsPerMinute *int64 `json:"requests_per_minute"`
	TokensPerMinute   *int64 `json:"tokens_per_minute"`
	Share             int64  `json:"share_percent"`
	All               bool   `json:"all_companies"`
}

func toLent(l keystore.Lent) lentObject {
	o := lentObject{credentialObject: toCredential(l.Sealed), Share: l.Share, All: l.All}
	o.Object = "lent_credential"
	o.RequestsPerMinute, o.TokensPerMinute = orNull(l.RequestsPerMinute), orNull(l.TokensPerMinute)
	return o
}

// orNull returns a limit, nil where there is none.
func orNull(n int64) *int64 {
	if n == 0 {
		return nil
	}
	return &n
}

// defaultShare is how much of a credential's rates one company may use, in
// percent, where the operator does not say.
const defaultShare = 25

// maxRate bounds a rate of a credential; as other limits per minute.
const maxRate = 1_000_000_000

// lent records the act and returns all that the operator lends.
func (g *Gateway) lent(r *request, action string) (act tenant.Act, all []lentObject, err error) {
	if act, err = r.operator.Begin(r.ctx, action, ""); err != nil {
		return act, nil, err
	}
	some, err := g.Lent.List(r.ctx)
	for _, l := range some {
		all = append(all, toLent(l))
	}
	return act, all, err
}

func lentID(o lentObject) string { return o.ID }

func (g *Gateway) listLentCredentials(r *request) (any, error) {
	page, err := r.page(pageDefault, pageMost)
	if err != nil {
		return nil, err
	}
	_, all, err := g.lent(r, "credential.list")
	if err != nil {
		return nil, err
	}
	rows, more, err := cut(all, page, lentID)
	return listed(page, rows, more, err, func(o lentObject) lentObject { return o }, lentID)
}

func (g *Gateway) getLentCredential(r *request) (any, error) {
	_, all, err := g.lent(r, "credential.get")
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(all, func(o lentObject) bool { return o.ID == r.param("credential") })
	if i < 0 {
		return nil, tenant.ErrNotFound
	}
	return all[i], nil
}

// putLentCredential lends a credential for a provider, in place of the one there
// was: with another secret, and lent as it says now. Who was granted it keeps it.
func (g *Gateway) putLentCredential(r *request) (any, error) {
	var b struct {
		credentialBody
		RequestsPerMinute int64  `json:"requests_per_minute"`
		TokensPerMinute   int64  `json:"tokens_per_minute"`
		Share             *int64 `json:"share_percent"`
		All               bool   `json:"all_companies"`
	}
	if err := r.decode(&b); err != nil {
		return nil, err
	}
	how := keystore.Lent{RequestsPerMinute: b.RequestsPerMinute, TokensPerMinute: b.TokensPerMinute, Share: defaultShare, All: b.All}
	if b.Share != nil {
		how.Share = *b.Share
	}
	switch {
	case how.RequestsPerMinute < 0 || how.RequestsPerMinute > maxRate:
		return nil, fault.Field("requests_per_minute", "requests_per_minute must be from 0, which is not known, to %d.", maxRate)
	case how.TokensPerMinute < 0 || how.TokensPerMinute > maxRate:
		return nil, fault.Field("tokens_per_minute", "tokens_per_minute must be from 0, which is not known, to %d.", maxRate)
	case how.Share < 1 || how.Share > 100:
		return nil, fault.Field("share_percent", "share_percent must be from 1 to 100.")
	}
	n, err := b.checked(r, provider.Operator)
	if err != nil {
		return nil, err
	}
	act, err := r.operator.Begin(r.ctx, "credential.put", "")
	if err != nil {
		return nil, err
	}
	put, err := g.Lent.Put(r.ctx, act, n, how)
	return toLent(put), err
}

func (g *Gateway) deleteLentCredential(r *request) (any, error) {
	act, err := r.operator.Begin(r.ctx, "credential.delete", "")
	if err != nil {
		return nil, err
	}
	id := r.param("credential")
	return deleted{id, "lent_credential.deleted", true}, g.Lent.Delete(r.ctx, act, id)
}

// companyLent is what a company may use of what the operator lends.
type companyLent struct {
	Object string         `json:"object"`
	Data   []companyShare `json:"data"`
}

type companyShare struct {
	Provider          string `json:"provider"`
	Credential        string `json:"credential_id"`
	RequestsPerMinute *int64 `json:"requests_per_minute"` // the company's share
	TokensPerMinute   *int64 `json:"tokens_per_minute"`
	Own               bool   `json:"own_first"` // the company has one of its own, which is the one that is used
}

func (g *Gateway) companyLent(r *request, action string, change func(tenant.Act, tenant.Scope) error) (any, error) {
	act, id, err := r.begin(action)
	if err != nil {
		return nil, err
	}
	s, err := g.Tenants.Scope(r.ctx, act, id)
	if err != nil {
		return nil, err
	}
	if change != nil {
		if err := change(act, s); err != nil {
			return nil, err
		}
	}
	all, err := g.Registry.LentTo(r.ctx, s)
	out := companyLent{Object: "list", Data: []companyShare{}}
	for _, l := range all {
		out.Data = append(out.Data, companyShare{
			Provider: l.Provider, Credential: l.ID, Own: s.Company().HasCredential(l.Provider),
			RequestsPerMinute: orNull(l.Limits.RequestsPerMinute), TokensPerMinute: orNull(l.Limits.TokensPerMinute),
		})
	}
	return out, err
}

func (g *Gateway) getLent(r *request) (any, error) { return g.companyLent(r, "company.lent.get", nil) }

// putLent says which credentials are lent to the company, beside those that are
// lent to all.
func (g *Gateway) putLent(r *request) (any, error) {
	var b struct {
		Providers *[]string `json:"providers"`
	}
	if err := r.decode(&b); err != nil {
		return nil, err
	}
	if b.Providers == nil {
		return nil, fault.Field("providers", "providers is required; an empty list lends nothing.")
	}
	slices.Sort(*b.Providers)
	names := slices.Compact(*b.Providers)
	return g.companyLent(r, "company.lent.put", func(act tenant.Act, s tenant.Scope) error {
		return g.Registry.LendTo(r.ctx, act, s, names)
	})
}
