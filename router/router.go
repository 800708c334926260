// Package router turns the model a client named into the targets that may
// answer, in the order in which they are tried.
//
// A name is looked up as: "agent/…", which is its model, a route of the company, "provider/model", a bare name
// of the catalogue. Only providers that the company has a credential for count,
// its own before one that the operator lends,
// and the project's model permission is applied to what the name resolves to,
// not only to how it is written: a denied model is not reached under another
// name. Unknown and not allowed are the same answer.
package router

import (
	"math/rand/v2"
	"slices"
	"strings"

	"bulkhead/fault"
	"bulkhead/openai"
	"bulkhead/provider"
	"bulkhead/tenant"
)

// Catalogue knows which models the vendors list.
type Catalogue interface {
	// Providers returns the catalogue names of the vendors that have a model of
	// that name, its own maker first.
	Providers(model string) []string
	// Has reports whether the vendor with that catalogue name lists the model.
	Has(catalogue, model string) bool
	// Names returns the models of a vendor that are not deprecated, sorted.
	Names(catalogue string) []string
}

// Router resolves names. It holds no company's data: what a company may reach
// is in its Scope.
type Router struct {
	vendors   map[string]*provider.Vendor
	byListing map[string][]string // catalogue name -> provider names, built-in one first
	catalogue Catalogue
	sandbox   *provider.Vendor
}

// New returns a Router over the operator's providers.
func New(vendors map[string]*provider.Vendor, c Catalogue) *Router {
	r := &Router{vendors: vendors, catalogue: c, sandbox: vendors[provider.Sandbox], byListing: map[string][]string{}}
	for name, v := range vendors {
		if v.Catalogue != "" {
			r.byListing[v.Catalogue] = append(r.byListing[v.Catalogue], name)
		}
	}
	for kind, names := range r.byListing {
		slices.SortFunc(names, func(a, b string) int {
			if (a == kind) != (b == kind) { // the built-in row is named as its listing
				if a == kind {
					return -1
				}
				return 1
			}
			return strings.Compare(a, b)
		})
	}
	return r
}

// errNoCeiling is the answer where only lent credentials are left and nobody has
// said how much of them the company may spend.
var errNoCeiling = fault.New(fault.Forbidden, "This model is reached with a credential that the operator lends, and the operator has set no ceiling for your company. Ask the operator for one, or add a credential of your own.").WithCode("ceiling_not_set")

// errLentResponses is the answer where only lent credentials are left for a
// response: a provider keeps it, and the next one names it.
var errLentResponses = func() *fault.Error {
	f := fault.Field("model", "This model is reached with a credential that the operator lends, and responses, which a provider keeps, are served with a credential of your own only. Use chat completions.")
	return f.WithCode("field_not_allowed")
}()

// maxModel bounds a model's name, in bytes.
const maxModel = 256

// Route appends to dst the targets that may answer model at the endpoint, in
// the order to try them. A test key's calls go to the sandbox only.
func (r *Router) Route(s tenant.Scope, e openai.Endpoint, model string, dst []provider.Target) ([]provider.Target, error) {
	if len(model) > maxModel {
		return dst, fault.Field("model", "model is longer than %d bytes", maxModel)
	}
	if slug, ok := strings.CutPrefix(model, tenant.AgentPrefix); ok {
		return r.agent(s, e, model, s.Agent(slug), dst)
	}
	dst, ok := r.resolve(s, model, dst)
	if s.Test() && ok {
		dst = append(dst[:0], r.sandboxTarget(s, model))
	}
	dst = slices.DeleteFunc(dst, func(t provider.Target) bool { return !allowed(s, model, t) })
	if len(dst) == 0 {
		return dst, notFound(model)
	}
	if !s.Company().HasCeiling() {
		if dst = slices.DeleteFunc(dst, func(t provider.Target) bool { return t.Lent }); len(dst) == 0 {
			return dst, errNoCeiling
		}
	}
	if e == openai.Responses { // what they leave behind would be in the operator's account
		if dst = slices.DeleteFunc(dst, func(t provider.Target) bool { return t.Lent }); len(dst) == 0 {
			return dst, errLentResponses
		}
	}
	dst = slices.DeleteFunc(dst, func(t provider.Target) bool { return !t.Vendor.Serves(e) })
	if len(dst) == 0 {
		return dst, fault.Field("model", "The model `%s` is not served at this endpoint (%s).", printable(model), e.String()).WithCode("model_not_supported")
	}
	return dst, nil
}

func notFound(model string) error {
	e := fault.New(fault.NotFound, "The model `%s` does not exist or you do not have access to it.", printable(model)).WithCode("model_not_found")
	e.Param = "model"
	return e
}

// agent appends the targets of an agent's model, which the caller needs the right
// to itself: an agent grants nothing. A list that denies the agent's name denies it
// too.
func (r *Router) agent(s tenant.Scope, e openai.Endpoint, name string, a *tenant.Agent, dst []provider.Target) ([]provider.Target, error) {
	if a == nil || denied(s, name) {
		return dst, notFound(name)
	}
	if e != openai.Chat {
		return dst, fault.Field("model", "The model `%s` is not served at this endpoint (%s).", printable(name), e.String()).WithCode("model_not_supported")
	}
	dst, err := r.Route(s, e, a.Model, dst)
	if fault.Is(err, fault.NotFound) {
		return dst, notFound(name) // whose model the caller has no right to
	}
	return dst, err
}

// denied reports whether the project's list denies a name.
func denied(s tenant.Scope, name string) bool {
	p := s.Project()
	return p != nil && p.Permission.Mode == tenant.DenyList && p.Permission.Names(name)
}

// resolve appends what the name stands for, without asking for permission.
// For a test key it says only whether the name means anything.
func (r *Router) resolve(s tenant.Scope, model string, dst []provider.Target) ([]provider.Target, bool) {
	c := s.Company()
	if route := c.Routes[model]; route != nil {
		for _, t := range route.Targets {
			if target, ok := r.exact(s, t.Model); ok {
				target.Weight, target.OnDisconnect = t.Weight, t.OnDisconnect
				dst = append(dst, target)
			}
		}
		prefer(dst)
		return dst, len(dst) > 0 || s.Test()
	}
	if strings.Contains(model, "/") {
		if target, ok := r.exact(s, model); ok {
			return append(dst, target), true
		}
		// A bare catalogue name may have a slash of its own.
	}
	if s.Test() {
		return dst, slices.ContainsFunc(r.catalogue.Providers(model), func(listing string) bool { return len(r.byListing[listing]) > 0 })
	}
	if name := r.bareProvider(s, model); name != "" {
		return append(dst, r.target(c, name, model)), true
	}
	return dst, false
}

// exact resolves "provider/model".
func (r *Router) exact(s tenant.Scope, model string) (provider.Target, bool) {
	name, upstream, _ := strings.Cut(model, "/")
	v := r.vendors[name]
	switch {
	case v == nil || upstream == "":
		return provider.Target{}, false
	case v == r.sandbox:
		if !r.catalogue.Has(v.Catalogue, upstream) {
			return provider.Target{}, false
		}
	case !s.Test() && !s.Company().HasCredential(name) && s.Company().Lends(name) == nil:
		return provider.Target{}, false
	}
	return r.target(s.Company(), name, upstream), true
}

// target is where the company's calls to a provider go. Its own credential, if
// there is one, is the one that is used, whatever comes of it.
func (r *Router) target(c *tenant.Company, name, model string) provider.Target {
	v := r.vendors[name]
	return provider.Target{
		Company: c.ID().String(), Provider: name, Vendor: v, Model: model,
		Lent: v != r.sandbox && !c.HasCredential(name) && c.Lends(name) != nil,
	}
}

// sandboxTarget stands in for whatever a test key asked for. A sandbox model is
// itself; anything else is answered by echo.
func (r *Router) sandboxTarget(s tenant.Scope, model string) provider.Target {
	name, upstream, _ := strings.Cut(model, "/")
	if name != provider.Sandbox {
		upstream = "echo"
	}
	return provider.Target{Company: s.ID().String(), Provider: provider.Sandbox, Vendor: r.sandbox, Model: upstream}
}

// prefer moves one of the weighted targets to the front, by its share of the
// weights. The others keep their order behind it.
func prefer(targets []provider.Target) {
	sum := 0
	for _, t := range targets {
		sum += t.Weight
	}
	if sum == 0 {
		return
	}
	pick := rand.IntN(sum)
	for i, t := range targets {
		if pick -= t.Weight; pick < 0 {
			copy(targets[1:i+1], targets[:i])
			targets[0] = t
			return
		}
	}
}

// allowed applies the project's permission to one target that the client
// reached under the name model.
func allowed(s tenant.Scope, model string, t provider.Target) bool {
	p := s.Project()
	if p == nil || p.Permission.Mode == tenant.AllowAll {
		return true
	}
	named := p.Permission.Names(model, t.Model, t.Provider+"/"+t.Model)
	if p.Permission.Mode == tenant.DenyList {
		return !named
	}
	return named
}

// printable cuts control characters out of a name that is shown in an error.
func printable(s string) string {
	return strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f {
			return -1
		}
		return c
	}, s)
}
