package web

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"bulkhead/fault"
	"bulkhead/tenant"
)

// routeObject is a company's own model name.
type routeObject struct {
	Object    string               `json:"object"`
	Name      string               `json:"name"`
	Targets   []tenant.RouteTarget `json:"targets"`
	CreatedAt int64                `json:"created_at"`
}

func toRoute(t *tenant.Route) routeObject {
	return routeObject{"organization.route", t.Name, t.Targets, t.CreatedAt.Unix()}
}

func routeName(o routeObject) string { return o.Name }

func (g *Gateway) listRoutes(r *request) (any, error) {
	page, err := r.page(pageDefault, pageMost)
	if err != nil {
		return nil, err
	}
	c := r.scope.Company()
	all := make([]routeObject, 0, len(c.Routes))
	for _, name := range slices.Sorted(maps.Keys(c.Routes)) {
		all = append(all, toRoute(c.Routes[name]))
	}
	rows, more, err := cut(all, page, routeName)
	return listed(page, rows, more, err, func(o routeObject) routeObject { return o }, routeName)
}

func (g *Gateway) getRoute(r *request) (any, error) {
	t := r.scope.Company().Routes[r.param("route")]
	if t == nil {
		return nil, tenant.ErrNotFound
	}
	return toRoute(t), nil
}

// Bounds of routes.
const (
	maxRoutes  = 500 // of one company
	maxTargets = 16  // of one route
	maxWeight  = 1_000_000
)

// putRoute stores a route in place of the one with its name.
func (g *Gateway) putRoute(r *request) (any, error) {
	var b tenant.Route
	if err := r.decode(&b); err != nil {
		return nil, err
	}
	b.CreatedAt = g.now()
	if err := checkRoute(r, &b); err != nil {
		return nil, err
	}
	if old := r.scope.Company().Routes[b.Name]; old != nil {
		b.CreatedAt = old.CreatedAt
	} else if len(r.scope.Company().Routes) >= maxRoutes {
		return nil, fault.Field("name", "A company has at most %d routes.", maxRoutes)
	}
	_, err := g.Registry.PutRoute(r.ctx, r.scope, b)
	return toRoute(&b), err
}

func checkRoute(r *request, b *tenant.Route) error {
	if !routeNameOK(b.Name) {
		return fault.Field("name", "name must be 1 to 128 of A-Z a-z 0-9 . _ - : and must not hold a slash, which stands between provider and model.")
	}
	if len(b.Targets) == 0 || len(b.Targets) > maxTargets {
		return fault.Field("targets", "targets must have 1 to %d entries.", maxTargets)
	}
	for i, t := range b.Targets {
		field := "targets[" + strconv.Itoa(i) + "]"
		name, model, ok := strings.Cut(t.Model, "/")
		switch {
		case !ok || model == "" || len(t.Model) > maxName || strings.ContainsFunc(t.Model, unicode.IsControl):
			return fault.Field(field+".model", "model must be \"provider/model\".")
		case r.settings.Vendors[name] == nil:
			return fault.Field(field+".model", "The gateway has no provider of this name.")
		case t.Weight < 0 || t.Weight > maxWeight:
			return fault.Field(field+".weight", "weight must be from 0 to %d.", maxWeight)
		case t.OnDisconnect != "" && t.OnDisconnect != tenant.Cancel && t.OnDisconnect != tenant.Drain:
			return fault.Field(field+".on_disconnect", "on_disconnect must be %q or %q.", tenant.Cancel, tenant.Drain)
		}
	}
	return nil
}

func (g *Gateway) deleteRoute(r *request) (any, error) {
	name := r.param("route")
	return deleted{name, "organization.route.deleted", true}, g.Registry.DeleteRoute(r.ctx, r.scope, name)
}

// routeNameOK reports whether s may be the name of a route.
func routeNameOK(s string) bool {
	if s == "" || len(s) > 128 {
		return false
	}
	return !strings.ContainsFunc(s, func(c rune) bool {
		return !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune("._-:", c))
	})
}
