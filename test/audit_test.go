package test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"bulkhead/tenant"
	"bulkhead/web"
)

// auditRow is one row of /v1/organization/audit_logs, of which said is the
// member that is named as the type.
type auditRow struct {
	ID    string `json:"id"`
	Type  string `json:"type"`
	Actor struct {
		Proved   *bool `json:"proved"`
		Operator bool  `json:"operator"`
		APIKey   struct {
			ID string `json:"id"`
		} `json:"api_key"`
	} `json:"actor"`
	Project struct {
		ID string `json:"id"`
	} `json:"project"`
	said struct {
		ID    string           `json:"id"`
		Count int64            `json:"count"`
		Codes map[string]int64 `json:"codes"`
	}
	raw json.RawMessage
}

// auditLog returns the rows that a company sees of itself, newest first, by an
// admin key and a query.
func (g *gateway) auditLog(t *testing.T, adminKey, query string) (rows []auditRow) {
	t.Helper()
	for after := ""; ; {
		var page struct {
			Data    []json.RawMessage `json:"data"`
			HasMore bool              `json:"has_more"`
			LastID  string            `json:"last_id"`
		}
		g.call(t, http.MethodGet, g.URL+"/v1/organization/audit_logs?limit=100&after="+after+query, adminKey, nil, &page)
		for _, raw := range page.Data {
			var members map[string]json.RawMessage
			row := auditRow{raw: raw}
			if err := json.Unmarshal(raw, &row); err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(raw, &members); err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(members[row.Type], &row.said); err != nil {
				t.Errorf("%s: %s", raw, err)
			}
			rows = append(rows, row)
		}
		if after = page.LastID; !page.HasMore {
			return rows
		}
	}
}

// auditRows are the rows of a side.
func (w *world) auditRows(t *testing.T, s *side, query string) []auditRow {
	t.Helper()
	return w.g.auditLog(t, s.AdminKey, query)
}

// auditText is the audit log of s without the rows that come of looking and of
// being refused, which are written in the background.
func (w *world) auditText(t *testing.T, s *side) string {
	t.Helper()
	var text strings.Builder
	for _, row := range w.auditRows(t, s, "") {
		if row.Type != "content.read" && row.Type != "access.denied" {
			fmt.Fprintf(&text, "%s\n", row.raw)
		}
	}
	return text.String()
}

// keyIDOf is the id of a key, which stands in it.
func keyIDOf(key string) string { return "key_" + strings.Split(key, "-")[4] }

// leaves says which rows each route that changes something leaves in the audit
// log, the oldest first. A new route without a line fails.
var leaves = map[string]string{
	"POST /v1/organization/memory":                                                           "memory_retention.updated",
	"POST /v1/organization/projects":                                                         "project.created",
	"POST /v1/organization/projects/{project}":                                               "project.updated",
	"POST /v1/organization/projects/{project}/archive":                                       "project.archived",
	"POST /v1/organization/projects/{project}/service_accounts":                              "service_account.created api_key.created",
	"POST /v1/organization/projects/{project}/service_accounts/{account}":                    "service_account.updated",
	"DELETE /v1/organization/projects/{project}/service_accounts/{account}":                  "api_key.deleted service_account.deleted",
	"POST /v1/organization/projects/{project}/service_accounts/{account}/api_keys":           "api_key.created",
	"POST /v1/organization/projects/{project}/api_keys/{key}":                                "api_key.updated",
	"DELETE /v1/organization/projects/{project}/api_keys/{key}":                              "api_key.deleted",
	"POST /v1/organization/projects/{project}/rate_limits/{limit}":                           "rate_limit.updated",
	"POST /v1/organization/projects/{project}/model_permissions":                             "model_permissions.updated",
	"DELETE /v1/organization/projects/{project}/model_permissions":                           "model_permissions.deleted",
	"POST /v1/organization/admin_api_keys":                                                   "api_key.created",
	"DELETE /v1/organization/admin_api_keys/{key}":                                           "api_key.deleted",
	"POST /v1/organization/credentials":                                                      "credential.updated",
	"DELETE /v1/organization/credentials/{credential}":                                       "credential.deleted",
	"POST /v1/organization/prices":                                                           "price.created",
	"DELETE /v1/organization/prices/{price...}":                                              "price.deleted",
	"POST /v1/organization/routes":                                                           "route.updated",
	"DELETE /v1/organization/routes/{route}":                                                 "route.deleted",
	"POST /v1/organization/projects/{project}/spend_limit":                                   "budget.created",
	"DELETE /v1/organization/projects/{project}/spend_limit":                                 "budget.deleted",
	"POST /v1/organization/projects/{project}/spend_alerts":                                  "spend_alert.created",
	"POST /v1/organization/projects/{project}/spend_alerts/{alert}":                          "spend_alert.updated",
	"DELETE /v1/organization/projects/{project}/spend_alerts/{alert}":                        "spend_alert.deleted",
	"POST /v1/organization/spend_limit":                                                      "budget.created",
	"DELETE /v1/organization/spend_limit":                                                    "budget.deleted",
	"POST /v1/organization/spend_alerts":                                                     "spend_alert.created",
	"POST /v1/organization/spend_alerts/{alert}":                                             "spend_alert.updated",
	"DELETE /v1/organization/spend_alerts/{alert}":                                           "spend_alert.deleted",
	"POST /v1/organization/budgets":                                                          "budget.created",
	"POST /v1/organization/budgets/degraded":                                                 "degraded_mode.updated",
	"POST /v1/organization/budgets/calendar":                                                 "", // it is what it was
	"POST /v1/organization/budgets/{budget}":                                                 "budget.updated",
	"DELETE /v1/organization/budgets/{budget}":                                               "budget.deleted",
	"PUT /admin/companies/{company}/ceiling":                                                 "budget.created",
	"DELETE /admin/companies/{company}/ceiling":                                              "budget.deleted",
	"POST /v1/organization/contexts":                                                         "context.created",
	"POST /v1/organization/contexts/{context}":                                               "context.updated",
	"DELETE /v1/organization/contexts/{context}":                                             "context.deleted",
	"POST /v1/organization/embeddings":                                                       "embedding_model.updated",
	"POST /v1/organization/projects/{project}/default_agent":                                 "default_agent.updated",
	"DELETE /v1/organization/projects/{project}/default_agent":                               "default_agent.updated",
	"POST /v1/organization/projects/{project}/api_keys/{key}/rotate":                         "api_key.updated",
	"POST /v1/organization/admin_api_keys/{key}/rotate":                                      "api_key.updated",
	"POST /v1/organization/api_keys/revoke":                                                  "api_key.deleted",
	"POST /v1/oauth/token":                                                                   "",
	"POST /v1/organization/workload_identity_providers":                                      "workload_identity_provider.created",
	"POST /v1/organization/workload_identity_providers/{provider}":                           "workload_identity_provider.updated",
	"DELETE /v1/organization/workload_identity_providers/{provider}":                         "workload_identity_provider.deleted",
	"POST /v1/organization/workload_identity_providers/{provider}/federation_rules":          "workload_identity_provider_mapping.created",
	"POST /v1/organization/workload_identity_providers/{provider}/federation_rules/{rule}":   "workload_identity_provider_mapping.updated",
	"DELETE /v1/organization/workload_identity_providers/{provider}/federation_rules/{rule}": "workload_identity_provider_mapping.deleted",
	"PUT /admin/knowledge":                                                                   "",
	"DELETE /admin/knowledge":                                                                "",
	"PUT /admin/companies/{company}/lent":                                                    "lent_credentials.updated",
	"POST /admin/credentials":                                                                "",
	"DELETE /admin/credentials/{credential}":                                                 "",
	"POST /admin/companies/{company}/audiences":                                              "audience.approved",
	"DELETE /admin/companies/{company}/audiences/{audience}":                                 "audience.revoked",
	"PUT /admin/prices":                                                                      "",
	"DELETE /admin/prices/{override...}":                                                     "",
	"POST /admin/companies":                                                                  "company.created project.created service_account.created api_key.created api_key.created api_key.created",
	"POST /admin/companies/{company}/suspend":                                                "company.suspended",
	"POST /admin/companies/{company}/resume":                                                 "company.resumed",
	"POST /admin/companies/{company}/erase":                                                  "", // the rows go with the company; the act stays
}

// TestEveryChangeIsAudited takes each route that changes something and looks at
// what it leaves in the company's log, or among the acts of operators.
func TestEveryChangeIsAudited(t *testing.T) {
	w := newWorld(t)
	changes := 0
	for _, r := range web.Routes() {
		if r.Method == http.MethodGet || slices.Contains(r.Keys, tenant.KeyLive) {
			continue // nothing is changed by looking, or by a call to a model
		}
		name := r.Method + " " + r.Pattern
		want, known := leaves[name]
		if !known {
			t.Errorf("%s is new: say in leaves what it leaves in the audit log", name)
			continue
		}
		changes++
		if !r.Ops && !slices.Contains(r.Keys, tenant.KeyAdmin) {
			continue // by people: see TestPeopleAreAudited
		}
		if r.Ops {
			w.operatorLeaves(t, r, want)
			continue
		}
		s := w.a
		var values []string
		for _, p := range paramsOf(r.Pattern) {
			if kind := kindOfObject(r.Pattern, p); kind == "project" {
				values = append(values, s.projects[0])
			} else {
				w.path = values
				values = append(values, objects[kind].make(t, w, s, s.projects[0]))
			}
		}
		var body any
		if r.Method == http.MethodPost {
			s.unused = nil
			body = bodies[r.Pattern](s)
		}
		if strings.HasSuffix(r.Pattern, "/revoke") {
			_, key := w.newKey(t, s, s.projects[0], nil)
			body = map[string]any{"value": key}
		}
		last := w.auditRows(t, s, "")[0].ID
		ask(t, r.Method, w.g.URL+fill(r.Pattern, values), s.AdminKey, body).want(t, name, http.StatusOK)
		var got []string
		for _, row := range w.auditRows(t, s, "") {
			if row.ID == last {
				break
			}
			if row.Type == "content.read" {
				continue
			}
			got = append([]string{row.Type}, got...)
			if row.Actor.APIKey.ID != keyIDOf(s.AdminKey) || row.said.ID == "" {
				t.Errorf("%s left %s", name, row.raw)
			}
			if len(values) > 0 && strings.Contains(r.Pattern, "{project}") && row.Project.ID != values[0] {
				t.Errorf("%s left a row of another project: %s", name, row.raw)
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s left %q, want %q", name, got, want)
		}
	}
	if changes != len(leaves) {
		t.Errorf("%d routes change something, %d are known", changes, len(leaves))
	}
	if r := w.g.command(t, nil, "", "audit", "verify"); r.code != 0 {
		t.Errorf("gateway audit verify: %s%s", r.out, r.err)
	}
}

// operatorLeaves calls one of the operator's routes. Each leaves an act; what it
// leaves with the company is seen once the company may look again.
func (w *world) operatorLeaves(t *testing.T, r web.Route, want string) {
	t.Helper()
	name := r.Method + " " + r.Pattern
	acts := func() int64 { return w.g.verify(t, "operator").Chains[0].Count }
	before := acts()
	var c company
	switch {
	case r.Pattern != "/admin/companies" && !strings.Contains(r.Pattern, "{company}"):
		var values []string
		for _, p := range paramsOf(r.Pattern) {
			values = append(values, objects[kindOfObject(r.Pattern, p)].make(t, w, w.a, ""))
		}
		var body any
		if make := bodies[r.Pattern]; make != nil && r.Method != http.MethodDelete {
			body = make(w.a)
		}
		before = acts()
		w.g.call(t, r.Method, w.g.OpsURL+fill(r.Pattern, values), w.g.Operator, body, nil)
	case !strings.Contains(r.Pattern, "{company}"):
		w.g.call(t, r.Method, w.g.OpsURL+r.Pattern, w.g.Operator, named(nil), &c)
	default:
		c = w.newCompany(t)
		before = acts()
		if strings.HasSuffix(r.Pattern, "/resume") {
			w.g.call(t, r.Method, w.g.OpsURL+"/admin/companies/"+c.ID+"/suspend", w.g.Operator, empty(nil), nil)
			before = acts()
		}
		values, body := []string{c.ID}, empty(nil)
		if make := bodies[r.Pattern]; make != nil {
			body = make(&side{company: c})
		}
		if strings.HasSuffix(r.Pattern, "/{audience}") {
			values = append(values, objects["audience"].make(t, w, &side{company: c}, ""))
			before = acts()
		}
		if strings.HasSuffix(r.Pattern, "/ceiling") {
			if r.Method == http.MethodDelete {
				w.g.call(t, http.MethodPut, w.g.OpsURL+fill(r.Pattern, []string{c.ID}), w.g.Operator, body, nil)
				before = acts()
			}
		}
		w.g.call(t, r.Method, w.g.OpsURL+fill(r.Pattern, values), w.g.Operator, body, nil)
	}
	if after := acts(); after <= before {
		t.Errorf("%s left no act", name)
	}
	if want == "" {
		return
	}
	if strings.HasSuffix(r.Pattern, "/suspend") {
		w.g.call(t, r.Method, w.g.OpsURL+"/admin/companies/"+c.ID+"/resume", w.g.Operator, empty(nil), nil)
	}
	var got []string
	for _, row := range w.g.auditLog(t, c.AdminKey, "") {
		if row.Type != "content.read" && !(strings.HasSuffix(r.Pattern, "/suspend") && row.Type == "company.resumed") {
			got = append([]string{row.Type}, got...)
		}
		if !row.Actor.Operator || row.Actor.APIKey.ID != keyIDOf(w.g.Operator) {
			t.Errorf("%s left a row of another actor: %s", name, row.raw)
		}
	}
	if n := len(strings.Fields(want)); len(got) < n || strings.Join(got[len(got)-n:], " ") != want {
		t.Errorf("%s left %q, want %q", name, got, want)
	}
}

// TestDenials is refused in every way there is, many times each, and looks at
// the rows: one for each key, route and minute.
func TestDenials(t *testing.T) {
	g := prepare(t, "")
	run := g.serve(t)
	acme, other := g.newCompany(t, "acme"), g.newCompany(t, "other")
	at := g.URL + "/v1/organization"
	w := &world{g: g}
	s := &side{company: acme}
	revokedID, revoked := w.newKey(t, s, acme.ProjectID, nil)
	g.chat(t, revoked, "sandbox/echo").want(t, "before", http.StatusOK)
	g.call(t, http.MethodDelete, at+"/projects/"+acme.ProjectID+"/api_keys/"+revokedID, acme.AdminKey, nil, nil)
	suspended := g.newCompany(t, "suspended")
	g.call(t, http.MethodPost, g.OpsURL+"/admin/companies/"+suspended.ID+"/suspend", g.Operator, empty(nil), nil)
	rowsOf := func() map[string]int64 {
		counts := map[string]int64{}
		for _, c := range g.verify(t, "").Chains {
			counts[c.Chain] = c.Count
		}
		return counts
	}
	before := rowsOf()

	const times = 7
	chat := g.URL + "/v1/chat/completions"
	wants := map[string]string{} // by route, actor and whether it is proved: the code
	f := func(method, url, key string, status int, route, actor, code string) {
		t.Helper()
		for range times {
			ask(t, method, url, key, chatBody("no/model", "x")).want(t, route, status)
		}
		if actor != "" {
			wants[route+" "+actor] = code
		}
	}
	proved := func(key string) string { return keyIDOf(key) + " proved" }
	const chats = "POST /v1/chat/completions"
	f("POST", chat, acme.APIKey, 404, chats, proved(acme.APIKey), "model_not_found")
	f("POST", chat, acme.AdminKey, 403, chats, proved(acme.AdminKey), "admin_key_not_allowed")
	f("GET", at+"/projects", acme.APIKey, 403, "GET /v1/organization/projects", proved(acme.APIKey), "admin_key_required")
	f("GET", at+"/projects/"+other.ProjectID, acme.AdminKey, 404, "GET /v1/organization/projects/{project}", proved(acme.AdminKey), "not_found")
	f("GET", g.URL+"/v1/models/no/such", acme.TestKey, 404, "GET /v1/models/{model...}", proved(acme.TestKey), "model_not_found")
	f("GET", g.OpsURL+"/admin/companies", acme.AdminKey, 403, "GET /admin/companies", proved(acme.AdminKey), "operator_key_required")
	f("POST", chat, revoked, 401, chats, revokedID+" claimed", "invalid_api_key")
	f("GET", g.URL+"/v1/models", forged(acme.APIKey), 401, "GET /v1/models", keyIDOf(acme.APIKey)+" claimed", "invalid_api_key")
	for i := range 30 { // keys that never were, each another
		made := resum(strings.Replace(acme.APIKey, strings.Split(acme.APIKey, "-")[4], fmt.Sprintf("%012d", i), 1))
		ask(t, "GET", g.URL+"/v1/models", made, nil).want(t, "a key that never was", 401)
	}
	f("GET", at+"/projects", suspended.AdminKey, 403, "GET /v1/organization/projects", proved(suspended.AdminKey), "company_suspended")
	// What names no company here is nobody's.
	nobody := resum(strings.Replace(acme.APIKey, strings.Split(acme.APIKey, "-")[3], "0000000000", 1))
	for _, key := range []string{"", "garbage", nobody, g.Operator, mistyped(acme.APIKey)} {
		ask(t, "GET", g.URL+"/v1/models", key, nil)
	}

	if after := rowsOf(); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("rows were written on the way of a request: %v, before %v", after, before)
	}
	run.stop(t) // writes what is counted
	after := rowsOf()
	again := g.serve(t)
	g.call(t, http.MethodPost, g.OpsURL+"/admin/companies/"+suspended.ID+"/resume", g.Operator, empty(nil), nil)
	found := map[string]int64{}
	rows := append(g.auditLog(t, acme.AdminKey, "&event_types[]=access.denied"), g.auditLog(t, suspended.AdminKey, "&event_types[]=access.denied")...)
	var unknown int64
	for _, row := range rows {
		how := " proved"
		if row.Actor.Proved != nil && !*row.Actor.Proved {
			how = " claimed"
		}
		if row.Actor.APIKey.ID == "" {
			unknown += row.said.Count
			continue
		}
		name := row.said.ID + " " + row.Actor.APIKey.ID + how
		found[name] += row.said.Count
		if row.said.Codes[wants[name]] != row.said.Count {
			t.Errorf("%s: %s, want code %s", name, row.raw, wants[name])
		}
	}
	for name := range wants {
		if found[name] != times {
			t.Errorf("%s: %d refusals are told, want %d", name, found[name], times)
		}
	}
	if len(found) != len(wants) || unknown != 30 {
		t.Errorf("found %v and %d of unknown keys", found, unknown)
	}
	// A minute may have ended in between; not more.
	if most := 2 * (len(wants) + 2); len(rows) > most {
		t.Errorf("%d rows, want at most %d", len(rows), most)
	}
	for _, id := range []string{other.ID, "operator"} {
		if after[id] != before[id] {
			t.Errorf("%d rows of %s, before %d", after[id], id, before[id])
		}
	}
	again.stop(t)
}

// TestAuditFilters asks for parts of the log as the SDKs do.
func TestAuditFilters(t *testing.T) {
	g := prepare(t, "")
	run := g.serve(t)
	c := g.newCompany(t, "acme")
	g.setRoute(t, c, "fast", "sandbox/echo")
	all := g.auditLog(t, c.AdminKey, "")
	count := func(query string) int { t.Helper(); return len(g.auditLog(t, c.AdminKey, query)) }
	f := func(query string, want int) {
		t.Helper()
		if got := count(query); got != want {
			t.Errorf("%s: %d rows, want %d", query, got, want)
		}
	}
	f("&event_types[]=route.created", 1)
	f("&event_types[]=route.created&event_types[]=project.created", 2)
	f("&event_types[]=login.succeeded", 0)
	f("&resource_ids[]=fast", 1)
	f("&actor_ids[]="+keyIDOf(c.AdminKey), 1)
	f("&actor_ids[]="+keyIDOf(g.Operator), len(all)-1)
	f("&actor_emails[]=somebody@example.com", 0)
	f("&project_ids[]="+c.ProjectID, 4) // the project, an account and its two keys
	f("&effective_at[gte]=0", len(all))
	f("&effective_at[gt]=4000000000", 0)
	f("&effective_at[lt]=1000000000", 0)
	f("&effective_at[lte]=4000000000&effective_at[gte]=1000000000", len(all))
	f("&tenant_only=false", len(all))
	bad := func(query, param string) {
		t.Helper()
		var e struct {
			Error struct{ Param string } `json:"error"`
		}
		a := ask(t, http.MethodGet, g.URL+"/v1/organization/audit_logs?"+query, c.AdminKey, nil)
		if err := json.Unmarshal(a.body, &e); err != nil || a.status != http.StatusBadRequest || e.Error.Param != param {
			t.Errorf("%s: %d %s", query, a.status, a.body)
		}
	}
	bad("effective_at[gte]=yesterday", "effective_at[gte]")
	bad("effective_at[lt]=-1", "effective_at[lt]")
	bad("event_types[]=", "event_types[]")
	bad("resource_ids[]="+strings.Repeat("x", 300), "resource_ids[]")
	bad(strings.Repeat("project_ids[]=p&", 101), "project_ids[]")
	bad("tenant_only=true", "tenant_only")
	bad("order=asc", "order")
	bad("limit=0", "limit")
	bad("after=audit_log-nobody", "after")

	// Reading is written down, once for a minute and key.
	run.stop(t)
	again := g.serve(t)
	var reads int64
	rows := g.auditLog(t, c.AdminKey, "&event_types[]=content.read")
	for _, row := range rows {
		if row.said.ID != "audit_log" || row.Actor.APIKey.ID != keyIDOf(c.AdminKey) {
			t.Errorf("%s", row.raw)
		}
		reads += row.said.Count
	}
	if len(rows) < 1 || len(rows) > 2 || reads != 14 {
		t.Errorf("%d reads in %d rows", reads, len(rows))
	}
	again.stop(t)
}
