package router

import (
	"slices"
	"strings"

	"bulkhead/openai"
	"bulkhead/provider"
	"bulkhead/tenant"
)

// Model is a name that a client may use.
type Model struct {
	ID      string
	OwnedBy string // the provider, or "company" for a route
	Created int64  // unix seconds; 0 where it is not known
}

// endpoints are asked in this order for who serves a name.
var endpoints = [...]openai.Endpoint{openai.Chat, openai.Embeddings, openai.Completions, openai.Moderations,
	openai.Images, openai.ImageEdits, openai.Speech, openai.Transcriptions}

// Models returns every name that the key of s may use, sorted: the company's
// routes, the sandbox, and the listed models of the providers it has a
// credential for. A bare name stands for the provider it resolves to; the same
// model of another provider is listed as "provider/model".
func (r *Router) Models(s tenant.Scope) []Model {
	var out []Model
	add := func(id string) {
		if m, err := r.Model(s, id); err == nil {
			out = append(out, m)
		}
	}
	c := s.Company()
	for name := range c.Routes {
		add(name)
	}
	for _, m := range r.catalogue.Names(r.sandbox.Catalogue) {
		add(provider.Sandbox + "/" + m)
	}
	for _, name := range c.Providers {
		v := r.vendors[name]
		if v == nil || v.Catalogue == "" {
			continue
		}
		for _, m := range r.catalogue.Names(v.Catalogue) {
			if c.Routes[m] == nil && r.bareProvider(s, m) == name {
				add(m)
			} else {
				add(name + "/" + m)
			}
		}
	}
	slices.SortFunc(out, func(a, b Model) int { return strings.Compare(a.ID, b.ID) })
	return slices.CompactFunc(out, func(a, b Model) bool { return a.ID == b.ID })
}

// Model returns one name, if the key of s may use it at any endpoint.
func (r *Router) Model(s tenant.Scope, id string) (Model, error) {
	var first error
	for _, e := range endpoints {
		targets, err := r.Route(s, e, id, nil)
		if err != nil {
			if first == nil {
				first = err
			}
			continue
		}
		if route := s.Company().Routes[id]; route != nil {
			return Model{id, "company", route.CreatedAt.Unix()}, nil
		}
		return Model{id, targets[0].Provider, 0}, nil
	}
	return Model{}, first
}

// bareProvider returns the provider that a bare name goes to.
func (r *Router) bareProvider(s tenant.Scope, model string) string {
	for _, listing := range r.catalogue.Providers(model) {
		for _, name := range r.byListing[listing] {
			if s.Company().HasCredential(name) {
				return name
			}
		}
	}
	return ""
}
