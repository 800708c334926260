package test

import (
	"net/http"
	"slices"
	"strings"

	"bulkhead/tenant"
	"bulkhead/web"
)

// mayCall says once more, by the beginning of the path, which keys a route is
// for: the table itself must not be what it is held against.
func mayCall(r web.Route) (keys []tenant.KeyKind, known bool) {
	switch p := r.Pattern; {
	case slices.Contains([]string{"/healthz", "/readyz", "/metrics", tokenPath}, p):
		return nil, true
	case strings.HasPrefix(p, "/admin/"):
		return []tenant.KeyKind{tenant.KeyOperator}, true
	case p == "/v1/organization/invites/accept", r.Method == http.MethodPost && p == "/v1/sessions":
		return nil, true
	case p == "/v1/sessions", strings.HasPrefix(p, "/v1/sessions/"):
		return []tenant.KeyKind{tenant.KeySession}, true
	case strings.HasPrefix(p, "/v1/organization/"), strings.HasPrefix(p, "/v1/projects/{project}/"):
		return []tenant.KeyKind{tenant.KeyAdmin, tenant.KeySession}, true
	case p == "/v1/models", strings.HasPrefix(p, "/v1/models/"):
		return []tenant.KeyKind{tenant.KeyLive, tenant.KeyTest, tenant.KeyAdmin, tenant.KeySession}, true
	case p == "/v1/agents", strings.HasPrefix(p, "/v1/agents/"),
		p == "/v1/files", strings.HasPrefix(p, "/v1/files/"), p == "/v1/vector_stores", strings.HasPrefix(p, "/v1/vector_stores/"):
		return []tenant.KeyKind{tenant.KeyLive, tenant.KeyTest, tenant.KeyAdmin, tenant.KeySession}, true
	case slices.Contains([]string{"/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/moderations"}, p),
		p == "/v1/responses", strings.HasPrefix(p, "/v1/responses/"),
		strings.HasPrefix(p, "/v1/images/"), strings.HasPrefix(p, "/v1/audio/"),
		p == "/v1/conversations", strings.HasPrefix(p, "/v1/conversations/"):
		return []tenant.KeyKind{tenant.KeyLive, tenant.KeyTest}, true
	}
	return nil, false
}

// caller is a kind of key. The flags are what the rule depends on.
type caller struct {
	name    string
	key     string
	kind    tenant.KeyKind     // 0: it has not the form of a key
	unknown bool               // right form, but revoked, expired or forged: 401
	blocked bool               // proved, but company or project may not be served: 403
	person  *person            // in a session
	token   bool               // a token of the company's identity provider, or a key given out for one
	holds   tenant.Permissions // of a token, or of a key with scopes
	reads   bool               // its scopes are all that only read
}

// may reports whether the caller holds what the route needs, where it needs it.
func (c caller) may(r web.Route, project string) bool {
	switch {
	case c.reads && c.kind == tenant.KeyLive:
		return r.Method == http.MethodGet || strings.HasSuffix(r.Pattern, "/search")
	case c.token || c.reads:
		return c.holds.Allows(r.Need)
	case c.person == nil:
		return true // keys have all that the routes they are let in to need
	case strings.Contains(r.Pattern, "{project}"):
		return c.person.grants.Allows(project, r.Need)
	}
	return c.person.grants.Allows("", r.Need)
}

// expected is the one rule: what a request is answered with, by route, listener,
// key, the project in the path and whether all ids of the path are the caller's own.
func expected(r web.Route, ops bool, c caller, project string, own bool) int {
	switch {
	case r.Ops != ops:
		return http.StatusNotFound
	case len(r.Keys) == 0:
		return http.StatusOK
	case c.kind == 0:
		return http.StatusUnauthorized
	case c.token && ops:
		return http.StatusUnauthorized // nothing is known of companies' tokens there
	case c.kind == tenant.KeySession && ops:
		return http.StatusUnauthorized // there are no cookies there
	case c.kind == tenant.KeySession && slices.Contains(r.Keys, tenant.KeyLive) && !slices.Contains(r.Keys, tenant.KeySession) &&
		!strings.HasPrefix(r.Pattern, "/v1/conversations") && !strings.HasPrefix(r.Pattern, "/v1/responses/"): // which know who asks
		return http.StatusUnauthorized // nor where models are called
	case (c.kind == tenant.KeyOperator) != ops:
		return http.StatusForbidden // before anything is looked up
	case c.unknown:
		return http.StatusUnauthorized
	case c.blocked, !slices.Contains(r.Keys, c.kind), !c.may(r, project):
		return http.StatusForbidden // also before: nothing is told of the ids
	case c.kind == tenant.KeyTest && r.Pattern == "/v1/responses":
		return http.StatusBadRequest // the sandbox, which is all they reach, has none
	case c.kind == tenant.KeyTest && strings.HasPrefix(r.Pattern, "/v1/responses/"):
		return http.StatusNotFound
	case c.token && (strings.HasPrefix(r.Pattern, "/v1/responses/") || strings.HasPrefix(r.Pattern, "/v1/conversations/")):
		return http.StatusNotFound // the company's, but not of the one whom the token names
	case !own, absent(r):
		return http.StatusNotFound
	}
	return http.StatusOK
}
