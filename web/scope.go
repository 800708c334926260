package web

import (
	"slices"
	"strings"

	"bulkhead/fault"
	"bulkhead/tenant"
)

// Scopes narrow a key. Those of an admin key are permissions: it holds no others,
// so nothing else asks for them. Those of a project's key are parts of the API,
// named as OpenAI's are: calls to models are one, and of everything else that such
// a key is let in to, reading and writing.

// callsModels is the part of the API that every call to a model is.
func callsModels() string { return tenant.ModelRequest.String() }

// part names the part of the API that a route is, for the scopes of projects' keys.
func (r *route) part() string {
	if r.infer != 0 {
		return callsModels()
	}
	rest := strings.TrimPrefix(r.pattern, "/v1/")
	of, _, _ := strings.Cut(rest, "/")
	if of == "models" {
		of = "model" // OpenAI's name
	}
	if r.method == "GET" || strings.HasSuffix(r.pattern, "/search") {
		return "api." + of + ".read"
	}
	return "api." + of + ".write"
}

// permitted refuses who does not hold need in the project, and a key whose scopes
// are without part. It is the one place that looks at either.
func permitted(s tenant.Scope, project string, need tenant.Permissions, part func() string) error {
	if !s.Allows(project, need) {
		return fault.New(fault.Forbidden, "You do not have the permissions that this needs: %s.", need).WithCode("permission_required")
	}
	if k := s.Key(); k != nil && k.Rules.Scopes != nil && !s.May(part()) {
		return fault.New(fault.Forbidden, "This key may not be used for that: it has not the scope %s.", part()).WithCode("permission_required")
	}
	return nil
}

// parts returns the parts of the API that routes has for the keys of projects, in
// order: the scopes that such a key may have.
func parts(routes []route) (all []string) {
	for i := range routes {
		if r := &routes[i]; r.who&project != 0 && !slices.Contains(all, r.part()) {
			all = append(all, r.part())
		}
	}
	slices.Sort(all)
	return all
}

// readOnly stands for all scopes that only read, and everything for no scopes at
// all, where a key is made or changed.
const (
	readOnly   = "api.all.read"
	everything = "api.all"
)

var errWider = fault.New(fault.Forbidden, "This would let a key do more than you may do yourself.").WithCode("above_own_permissions")

// keyScopes reads the scopes of a key, each of which is in known; nil is
// everything.
func keyScopes(given *[]string, known []string) (scopes []string, err error) {
	if given == nil {
		return nil, nil
	}
	if len(*given) == 0 {
		return nil, fault.Field("scopes", "scopes must have at least one item. %s is everything.", everything)
	}
	for i, name := range *given {
		switch {
		case name == everything && len(*given) == 1:
			return nil, nil
		case name == readOnly:
			for _, one := range known {
				if strings.HasSuffix(one, ".read") {
					scopes = append(scopes, one)
				}
			}
		case slices.Contains(known, name):
			scopes = append(scopes, name)
		default:
			return nil, fault.Field("scopes", "scopes[%d] must be %s, or one of: %s.", i, readOnly, strings.Join(known, ", "))
		}
	}
	slices.Sort(scopes)
	return slices.Compact(scopes), nil
}

// wider reports whether scopes let a key do what before does not.
func wider(scopes, before []string) bool {
	switch {
	case len(before) == 0:
		return false
	case len(scopes) == 0:
		return true
	}
	return slices.ContainsFunc(scopes, func(s string) bool { return !slices.Contains(before, s) })
}
