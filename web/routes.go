package web

import (
	"bytes"
	"strings"

	"github.com/valyala/fasthttp"

	"bulkhead/egress"
	"bulkhead/fault"
	"bulkhead/openai"
	"bulkhead/tenant"
)

// who says which kinds of key a route takes.
type who uint8

const (
	anyone   who = 0         // no key
	project  who = 1 << iota // a project's key, live or test
	admin                    // a company's admin key
	operator                 // the operator's key
)

// route is one line of the table: everything the gateway answers is here, and
// nothing else is answered or forwarded.
type route struct {
	method  string
	pattern string // {name} is one segment; {name...} at the end is the rest
	who     who
	infer   openai.Endpoint // a call to a model: see chat.go
	manage  manageFunc      // anything else: see manage.go
}

// publicRoutes are served on the public listener.
var publicRoutes = []route{
	{"POST", "/v1/chat/completions", project, openai.Chat, nil},
	{"POST", "/v1/completions", project, openai.Completions, nil},
	{"POST", "/v1/embeddings", project, openai.Embeddings, nil},
	{"POST", "/v1/moderations", project, openai.Moderations, nil},
	{"GET", "/v1/models", project | admin, 0, (*Gateway).listModels},
	{"GET", "/v1/models/{model...}", project | admin, 0, (*Gateway).getModel},

	{"GET", "/v1/organization/projects", admin, 0, (*Gateway).listProjects},
	{"POST", "/v1/organization/projects", admin, 0, (*Gateway).createProject},
	{"GET", "/v1/organization/projects/{project}", admin, 0, (*Gateway).getProject},
	{"POST", "/v1/organization/projects/{project}", admin, 0, (*Gateway).updateProject},
	{"POST", "/v1/organization/projects/{project}/archive", admin, 0, (*Gateway).archiveProject},

	{"GET", "/v1/organization/projects/{project}/service_accounts", admin, 0, (*Gateway).listServiceAccounts},
	{"POST", "/v1/organization/projects/{project}/service_accounts", admin, 0, (*Gateway).createServiceAccount},
	{"GET", "/v1/organization/projects/{project}/service_accounts/{account}", admin, 0, (*Gateway).getServiceAccount},
	{"POST", "/v1/organization/projects/{project}/service_accounts/{account}", admin, 0, (*Gateway).updateServiceAccount},
	{"DELETE", "/v1/organization/projects/{project}/service_accounts/{account}", admin, 0, (*Gateway).deleteServiceAccount},
	{"POST", "/v1/organization/projects/{project}/service_accounts/{account}/api_keys", admin, 0, (*Gateway).createServiceAccountKey},

	{"GET", "/v1/organization/projects/{project}/api_keys", admin, 0, (*Gateway).listProjectKeys},
	{"GET", "/v1/organization/projects/{project}/api_keys/{key}", admin, 0, (*Gateway).getProjectKey},
	{"POST", "/v1/organization/projects/{project}/api_keys/{key}", admin, 0, (*Gateway).updateProjectKey},
	{"DELETE", "/v1/organization/projects/{project}/api_keys/{key}", admin, 0, (*Gateway).deleteProjectKey},

	{"GET", "/v1/organization/projects/{project}/rate_limits", admin, 0, (*Gateway).listRateLimits},
	{"POST", "/v1/organization/projects/{project}/rate_limits/{limit}", admin, 0, (*Gateway).updateRateLimit},

	{"GET", "/v1/organization/projects/{project}/spend_limit", admin, 0, (*Gateway).getProjectSpendLimit},
	{"POST", "/v1/organization/projects/{project}/spend_limit", admin, 0, (*Gateway).setProjectSpendLimit},
	{"DELETE", "/v1/organization/projects/{project}/spend_limit", admin, 0, (*Gateway).deleteProjectSpendLimit},
	{"GET", "/v1/organization/projects/{project}/spend_alerts", admin, 0, (*Gateway).listProjectAlerts},
	{"POST", "/v1/organization/projects/{project}/spend_alerts", admin, 0, (*Gateway).createProjectAlert},
	{"GET", "/v1/organization/projects/{project}/spend_alerts/{alert}", admin, 0, (*Gateway).getProjectAlert},
	{"POST", "/v1/organization/projects/{project}/spend_alerts/{alert}", admin, 0, (*Gateway).updateProjectAlert},
	{"DELETE", "/v1/organization/projects/{project}/spend_alerts/{alert}", admin, 0, (*Gateway).deleteProjectAlert},

	{"GET", "/v1/organization/projects/{project}/model_permissions", admin, 0, (*Gateway).getModelPermissions},
	{"POST", "/v1/organization/projects/{project}/model_permissions", admin, 0, (*Gateway).updateModelPermissions},
	{"DELETE", "/v1/organization/projects/{project}/model_permissions", admin, 0, (*Gateway).deleteModelPermissions},

	{"GET", "/v1/organization/admin_api_keys", admin, 0, (*Gateway).listAdminKeys},
	{"POST", "/v1/organization/admin_api_keys", admin, 0, (*Gateway).createAdminKey},
	{"GET", "/v1/organization/admin_api_keys/{key}", admin, 0, (*Gateway).getAdminKey},
	{"DELETE", "/v1/organization/admin_api_keys/{key}", admin, 0, (*Gateway).deleteAdminKey},

	{"GET", "/v1/organization/credentials", admin, 0, (*Gateway).listCredentials},
	{"POST", "/v1/organization/credentials", admin, 0, (*Gateway).putCredential},
	{"GET", "/v1/organization/credentials/{credential}", admin, 0, (*Gateway).getCredential},
	{"DELETE", "/v1/organization/credentials/{credential}", admin, 0, (*Gateway).deleteCredential},

	{"GET", "/v1/organization/routes", admin, 0, (*Gateway).listRoutes},
	{"POST", "/v1/organization/routes", admin, 0, (*Gateway).putRoute},
	{"GET", "/v1/organization/routes/{route}", admin, 0, (*Gateway).getRoute},
	{"DELETE", "/v1/organization/routes/{route}", admin, 0, (*Gateway).deleteRoute},

	{"GET", "/v1/organization/audit_logs", admin, 0, (*Gateway).listAuditLogs},

	{"POST", tokenPath, anyone, 0, (*Gateway).exchangeToken},
	{"GET", "/v1/organization/workload_identity_providers", admin, 0, (*Gateway).listIdentityProviders},
	{"POST", "/v1/organization/workload_identity_providers", admin, 0, (*Gateway).createIdentityProvider},
	{"GET", "/v1/organization/workload_identity_providers/{provider}", admin, 0, (*Gateway).getIdentityProvider},
	{"POST", "/v1/organization/workload_identity_providers/{provider}", admin, 0, (*Gateway).updateIdentityProvider},
	{"DELETE", "/v1/organization/workload_identity_providers/{provider}", admin, 0, (*Gateway).deleteIdentityProvider},
	{"GET", "/v1/organization/workload_identity_providers/{provider}/federation_rules", admin, 0, (*Gateway).listFederationRules},
	{"POST", "/v1/organization/workload_identity_providers/{provider}/federation_rules", admin, 0, (*Gateway).createFederationRule},
	{"GET", "/v1/organization/workload_identity_providers/{provider}/federation_rules/{rule}", admin, 0, (*Gateway).getFederationRule},
	{"POST", "/v1/organization/workload_identity_providers/{provider}/federation_rules/{rule}", admin, 0, (*Gateway).updateFederationRule},
	{"DELETE", "/v1/organization/workload_identity_providers/{provider}/federation_rules/{rule}", admin, 0, (*Gateway).deleteFederationRule},

	{"GET", "/v1/organization/budgets", admin, 0, (*Gateway).listBudgets},
	{"POST", "/v1/organization/budgets", admin, 0, (*Gateway).createBudget},
	{"GET", "/v1/organization/budgets/calendar", admin, 0, (*Gateway).getCalendar},
	{"POST", "/v1/organization/budgets/calendar", admin, 0, (*Gateway).setCalendar},
	{"GET", "/v1/organization/budgets/{budget}", admin, 0, (*Gateway).getBudget},
	{"POST", "/v1/organization/budgets/{budget}", admin, 0, (*Gateway).updateBudget},
	{"DELETE", "/v1/organization/budgets/{budget}", admin, 0, (*Gateway).deleteBudget},
	{"GET", "/v1/organization/spend_limit", admin, 0, (*Gateway).getCompanySpendLimit},
	{"POST", "/v1/organization/spend_limit", admin, 0, (*Gateway).setCompanySpendLimit},
	{"DELETE", "/v1/organization/spend_limit", admin, 0, (*Gateway).deleteCompanySpendLimit},
	{"GET", "/v1/organization/spend_alerts", admin, 0, (*Gateway).listCompanyAlerts},
	{"POST", "/v1/organization/spend_alerts", admin, 0, (*Gateway).createCompanyAlert},
	{"GET", "/v1/organization/spend_alerts/{alert}", admin, 0, (*Gateway).getCompanyAlert},
	{"POST", "/v1/organization/spend_alerts/{alert}", admin, 0, (*Gateway).updateCompanyAlert},
	{"DELETE", "/v1/organization/spend_alerts/{alert}", admin, 0, (*Gateway).deleteCompanyAlert},
	{"GET", "/v1/organization/usage/completions", admin, 0, (*Gateway).getUsageOfCompletions},
	{"GET", "/v1/organization/usage/embeddings", admin, 0, (*Gateway).getUsageOfEmbeddings},
	{"GET", "/v1/organization/usage/moderations", admin, 0, (*Gateway).getUsageOfModerations},
	{"GET", "/v1/organization/costs", admin, 0, (*Gateway).getCosts},
	{"GET", "/v1/organization/ledger/export", admin, 0, (*Gateway).exportLedger},
}

// opsRoutes are served on the operator's listener.
var opsRoutes = []route{
	{"GET", "/healthz", anyone, 0, nil},
	{"GET", "/readyz", anyone, 0, nil},
	{"GET", "/metrics", anyone, 0, nil},

	{"GET", "/admin/companies", operator, 0, (*Gateway).listCompanies},
	{"POST", "/admin/companies", operator, 0, (*Gateway).createCompany},
	{"GET", "/admin/companies/{company}", operator, 0, (*Gateway).getCompany},
	{"POST", "/admin/companies/{company}/suspend", operator, 0, (*Gateway).suspendCompany},
	{"POST", "/admin/companies/{company}/resume", operator, 0, (*Gateway).resumeCompany},
	{"POST", "/admin/companies/{company}/erase", operator, 0, (*Gateway).eraseCompany},
	{"GET", "/admin/companies/{company}/ceiling", operator, 0, (*Gateway).getCeiling},
	{"PUT", "/admin/companies/{company}/ceiling", operator, 0, (*Gateway).putCeiling},
	{"DELETE", "/admin/companies/{company}/ceiling", operator, 0, (*Gateway).deleteCeiling},
	{"GET", "/admin/companies/{company}/audiences", operator, 0, (*Gateway).listAudiences},
	{"POST", "/admin/companies/{company}/audiences", operator, 0, (*Gateway).approveAudience},
	{"DELETE", "/admin/companies/{company}/audiences/{audience}", operator, 0, (*Gateway).revokeAudience},
}

// Route describes one line of the table, for tests and documentation.
type Route struct {
	Method, Pattern string
	Keys            []tenant.KeyKind // kinds of key that are let in; empty: no key is needed
	Ops             bool             // on the operator's listener
}

// Routes returns the table.
func Routes() (out []Route) {
	for i, table := range [...][]route{publicRoutes, opsRoutes} {
		for _, r := range table {
			d := Route{Method: r.method, Pattern: r.pattern, Ops: i == 1}
			if r.who&project != 0 {
				d.Keys = append(d.Keys, tenant.KeyLive, tenant.KeyTest)
			}
			if r.who&admin != 0 {
				d.Keys = append(d.Keys, tenant.KeyAdmin)
			}
			if r.who&operator != 0 {
				d.Keys = append(d.Keys, tenant.KeyOperator)
			}
			out = append(out, d)
		}
	}
	return out
}

// routeTable finds the route of a request.
type routeTable struct {
	exact    map[string][]*route // by path, for patterns without parameters
	patterns []*route
}

func newRouteTable(routes []route) *routeTable {
	t := &routeTable{exact: map[string][]*route{}}
	for i := range routes {
		r := &routes[i]
		if strings.Contains(r.pattern, "{") {
			t.patterns = append(t.patterns, r)
		} else {
			t.exact[r.pattern] = append(t.exact[r.pattern], r)
		}
	}
	return t
}

// param is a parameter of a path.
type param struct{ name, value string }

var (
	errNoPath    = fault.New(fault.NotFound, "Unknown path. The gateway serves the paths of OpenAI's API that its documentation lists.").WithCode("unknown_url")
	errNoMethod  = fault.New(fault.MethodNotAllowed, "This path does not take this method.")
	errHops      = fault.New(fault.Invalid, "The request went through too many gateways: one of them is its own upstream.").WithCode("too_many_hops")
	errSmuggling = fault.New(fault.Invalid, "It is not clear where the body of the request ends: it has Content-Length and Transfer-Encoding, or an encoding other than chunked.").WithCode("ambiguous_body")
)

// find returns the route of a request and the parameters of its path. The path
// is the normalised one: nothing else is looked at, and nothing of it is ever
// sent on.
func (t *routeTable) find(rc *fasthttp.RequestCtx) (*route, []param, error) {
	path, method := rc.Path(), rc.Method()
	candidates := t.exact[string(path)]
	for _, r := range candidates {
		if r.method == string(method) {
			return r, nil, nil
		}
	}
	known := len(candidates) > 0
	for _, r := range t.patterns {
		params, ok := match(r.pattern, string(path))
		if !ok {
			continue
		}
		if r.method == string(method) {
			return r, params, nil
		}
		known = true
	}
	if known {
		return nil, nil, errNoMethod
	}
	return nil, nil, errNoPath
}

// match compares a path with a pattern, segment by segment.
func match(pattern, path string) (params []param, ok bool) {
	for pattern != "" {
		var want, got string
		pattern, want = segment(pattern)
		if name, rest := strings.CutSuffix(want, "...}"); rest {
			value := strings.TrimPrefix(path, "/")
			return append(params, param{name[1:], value}), value != ""
		}
		path, got = segment(path)
		switch {
		case strings.HasPrefix(want, "{"):
			if got == "" {
				return nil, false
			}
			params = append(params, param{want[1 : len(want)-1], got})
		case want != got:
			return nil, false
		}
	}
	return params, path == ""
}

// segment cuts the first "/segment" off p.
func segment(p string) (rest, first string) {
	p = strings.TrimPrefix(p, "/")
	if i := strings.IndexByte(p, '/'); i >= 0 {
		return p[i:], p[:i]
	}
	return "", p
}

// serve answers a request on the public listener.
func (g *Gateway) serve(rc *fasthttp.RequestCtx) {
	defer g.leave(rc)
	if rc.ConnRequestNum() == 1 {
		g.unasked.asked(rc.Conn())
	}
	r, params, err := g.routes.find(rc)
	if ambiguous := refuse(rc); ambiguous != nil {
		err = ambiguous
	}
	switch {
	case err != nil:
		g.serveRefusal(rc, err)
	case r.infer != 0:
		g.serveInference(rc, r.infer)
	default:
		g.serveManagement(rc, r, params)
		drain(rc) // of a method that has no use for a body: the next request stands behind it
	}
}

// leave tells the client of a gateway that retires to connect anew: see Retire.
func (g *Gateway) leave(rc *fasthttp.RequestCtx) {
	if g.retiring.Load() {
		rc.SetConnectionClose()
	}
}

// refuse finds what makes a request ambiguous or endless before it is looked at.
func refuse(rc *fasthttp.RequestCtx) error {
	h := &rc.Request.Header
	sized, encoded := hasHeader(h.RawHeaders(), "content-length"), hasHeader(h.RawHeaders(), "transfer-encoding")
	if encoded && (sized || h.ContentLength() != -1) { // both, or an encoding that fasthttp overlooks
		rc.SetConnectionClose()
		return errSmuggling
	}
	if _, ok := hops(rc); !ok {
		return errHops
	}
	return nil
}

// hops counts the gateways the request came through; see egress.
func hops(rc *fasthttp.RequestCtx) (int, bool) {
	v := rc.Request.Header.Peek(egress.HopsHeader)
	if len(v) == 0 {
		return 0, true
	}
	return egress.Hops(string(v))
}

// hasHeader looks for a header in the bytes as they were sent.
func hasHeader(raw []byte, name string) bool {
	for len(raw) > 0 {
		var line []byte
		line, raw, _ = bytes.Cut(raw, []byte{'\n'})
		k, _, ok := bytes.Cut(line, []byte{':'})
		if k = bytes.TrimSpace(k); ok && len(k) == len(name) && bytes.EqualFold(k, []byte(name)) {
			return true
		}
	}
	return false
}

// serveRefusal answers what has no call and no company.
func (g *Gateway) serveRefusal(rc *fasthttp.RequestCtx, err error) {
	drain(rc)
	rc.Response.Header.Set("X-Request-Id", requestID())
	writeError(rc, err)
	_, _, code, _ := explain(err)
	g.metrics.refused(code)
}

// serveBroken answers what fasthttp could not read as a request.
func (g *Gateway) serveBroken(rc *fasthttp.RequestCtx, err error) {
	rc.SetConnectionClose()
	g.serveRefusal(rc, brokenRequest(err))
}

// kinds returns the kinds of key that w lets in.
func (w who) admits(k tenant.KeyKind) bool {
	switch k {
	case tenant.KeyLive, tenant.KeyTest:
		return w&project != 0
	case tenant.KeyAdmin:
		return w&admin != 0
	}
	return false
}
