package test

import (
	"bytes"
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"bulkhead/tenant"
	"bulkhead/web"
)

// bodies holds a body for every POST of the table, good enough to succeed. A
// new route without one fails the suite.
var bodies = map[string]func(s *side) any{
	"/v1/chat/completions": func(*side) any { return chatBody("shared", "Hello") },
	"/v1/completions":      func(*side) any { return map[string]any{"model": "shared", "prompt": "Hello"} },
	"/v1/embeddings":       func(*side) any { return map[string]any{"model": "shared", "input": "Hello"} },
	"/v1/moderations":      func(*side) any { return map[string]any{"model": "shared", "input": "Hello"} },

	"/v1/responses":                          func(*side) any { return map[string]any{"model": "shared", "input": "Hello"} },
	"/v1/responses/{response}/cancel":        empty,
	"/v1/images/generations":                 func(*side) any { return map[string]any{"model": "shared", "prompt": "Hello"} },
	"/v1/images/edits":                       func(*side) any { return media("image", "prompt", "Hello") },
	"/v1/images/variations":                  func(*side) any { return media("image") },
	"/v1/audio/speech":                       func(*side) any { return map[string]any{"model": "shared", "input": "Hello", "voice": "alloy"} },
	"/v1/audio/transcriptions":               func(*side) any { return media("file") },
	"/v1/audio/translations":                 func(*side) any { return media("file") },
	"/v1/files":                              func(s *side) any { return aFile(s) },
	"/v1/conversations":                      empty,
	"/v1/conversations/{conversation}":       func(*side) any { return map[string]any{"metadata": map[string]any{"topic": "same"}} },
	"/v1/conversations/{conversation}/items": func(*side) any { return someItems },
	"/v1/organization/memory":                func(*side) any { return map[string]any{"retention_days": nil} },
	"/v1/vector_stores":                      named,
	"/v1/vector_stores/{store}":              named,
	"/v1/vector_stores/{store}/files":        func(s *side) any { return map[string]any{"file_id": s.stable["file"+s.ProjectID]} },
	"/v1/vector_stores/{store}/files/{file}": func(s *side) any {
		return map[string]any{"attributes": map[string]any{"category": "same"}}
	},
	"/v1/vector_stores/{store}/search": func(s *side) any { return map[string]any{"query": "Same name"} },
	"/v1/vector_stores/{store}/file_batches": func(s *side) any {
		return map[string]any{"file_ids": []string{s.stable["file"+s.ProjectID]}}
	},
	"/v1/vector_stores/{store}/file_batches/{batch}/cancel": empty,

	"/v1/organization/projects":                                               named,
	"/v1/organization/projects/{project}":                                     named,
	"/v1/organization/projects/{project}/archive":                             empty,
	"/v1/organization/projects/{project}/service_accounts":                    named,
	"/v1/organization/projects/{project}/service_accounts/{account}":          named,
	"/v1/organization/projects/{project}/service_accounts/{account}/api_keys": named,
	"/v1/organization/projects/{project}/api_keys/{key}":                      named,
	"/v1/organization/projects/{project}/rate_limits/{limit}": func(*side) any {
		return map[string]any{"max_requests_per_1_minute": 100_000}
	},
	"/v1/organization/projects/{project}/model_permissions": func(*side) any {
		return map[string]any{"mode": "deny_list", "model_ids": []string{"up/denied"}}
	},
	"/v1/organization/projects/{project}/api_keys/{key}/rotate": func(*side) any { return map[string]any{"overlap_seconds": 60} },
	"/v1/organization/admin_api_keys/{key}/rotate":              empty,
	// A key that never was; foreign ones are TestLeakedKey's.
	"/v1/organization/api_keys/revoke": func(s *side) any {
		return map[string]any{"value": resum(s.APIKey[:len(s.APIKey)-49] + strings.Repeat("0", 43))}
	},
	"/v1/organization/admin_api_keys": named,
	"/v1/organization/credentials": func(s *side) any {
		return map[string]any{"provider": "spare", "secret": s.secret}
	},
	"/v1/organization/routes": func(s *side) any {
		return map[string]any{"name": foreignRoute(s), "targets": []map[string]any{{"model": "up/ok"}}}
	},

	"/v1/organization/budgets":                                 func(*side) any { return userBudget("somebody") },
	"/v1/organization/budgets/{budget}":                        func(*side) any { return map[string]any{"limit_requests": 999_999} },
	"/v1/organization/budgets/degraded":                        func(*side) any { return map[string]any{"degraded": "refuse"} },
	"/v1/organization/budgets/calendar":                        func(*side) any { return map[string]any{"time_zone": "UTC"} },
	"/v1/organization/spend_limit":                             spendLimit,
	"/v1/organization/projects/{project}/spend_limit":          spendLimit,
	"/v1/organization/spend_alerts":                            spendAlert,
	"/v1/organization/spend_alerts/{alert}":                    spendAlert,
	"/v1/organization/projects/{project}/spend_alerts":         spendAlert,
	"/v1/organization/projects/{project}/spend_alerts/{alert}": spendAlert,

	"/v1/organization/prices": func(s *side) any { return priceOf("up", foreignRoute(s)) },
	"/admin/prices":           func(s *side) any { return priceOf("up", "everybody's") },
	"/v1/agents":              func(*side) any { return sharedAgent },
	"/v1/agents/{agent}":      func(*side) any { return map[string]any{"instructions": "Be brief."} },
	"/v1/organization/projects/{project}/default_agent": func(s *side) any {
		return map[string]any{"agent": s.stable["agent"+s.projects[0]]}
	},
	"/v1/organization/contexts":           func(*side) any { return aContext },
	"/v1/organization/contexts/{context}": func(*side) any { return map[string]any{"text": "We are brief."} },
	"/v1/organization/embeddings":         func(*side) any { return map[string]any{"model": nil} },
	"/admin/knowledge":                    func(s *side) any { return map[string]any{"company": s.ID} },
	tokenPath:                             func(s *side) any { return exchangeBody(s) },
	"/v1/organization/workload_identity_providers": func(s *side) any {
		return providerBody(s, s.issuer.Name+"/"+likeness("x_00000000"))
	},
	"/v1/organization/workload_identity_providers/{provider}": named,
	"/v1/organization/workload_identity_providers/{provider}/federation_rules": func(s *side) any {
		return ruleBody(s)
	},
	"/v1/organization/workload_identity_providers/{provider}/federation_rules/{rule}": named,
	"/admin/companies/{company}/audiences": func(*side) any {
		return map[string]any{"audience": "api://" + likeness("x_00000000")}
	},

	"/admin/companies/{company}/ceiling": func(*side) any { return ceiling },
	"/admin/companies/{company}/lent":    func(*side) any { return map[string]any{"providers": []string{}} },
	"/admin/credentials":                 func(*side) any { return map[string]any{"provider": "spare", "secret": "sk-lent-0123456789"} },
	"/admin/companies":                   named,
	"/admin/companies/{company}/suspend": empty,
	"/admin/companies/{company}/resume":  empty,
	"/admin/companies/{company}/erase":   empty,
}

var (
	sharedAgent = map[string]any{"model": "up/ok", "name": "Same agent", "shared": true}
	aContext    = map[string]any{"kind": "rules", "text": "Be kind."}
)

// TestRouteTableIsCovered fails when the table has a route or a parameter that
// the suite cannot fill, or the suite one that the table has not.
func TestRouteTableIsCovered(t *testing.T) {
	posts := map[string]bool{}
	for _, r := range web.Routes() {
		switch r.Method {
		case http.MethodPost, http.MethodPut:
			posts[r.Pattern] = true
			if bodies[r.Pattern] == nil {
				t.Errorf("POST %s is new: give it a body in bodies", r.Pattern)
			}
		case http.MethodGet, http.MethodDelete:
		default:
			t.Errorf("%s %s: the suite does not know this method", r.Method, r.Pattern)
		}
		if want, ok := mayCall(r); !ok || r.Ops != strings.Contains(" /admin /healthz /readyz /metrics ", " /"+strings.Split(r.Pattern, "/")[1]+" ") {
			t.Errorf("%s %s is new: say in mayCall whose it is", r.Method, r.Pattern)
		} else if !slices.Equal(r.Keys, want) {
			t.Errorf("%s %s lets in the kinds of key %v, want %v", r.Method, r.Pattern, r.Keys, want)
		}
		for _, param := range paramsOf(r.Pattern) {
			if kind := kindOfObject(r.Pattern, param); kind != "project" && objects[kind].make == nil {
				t.Errorf("%s %s: {%s} is new: say in objects how one is made", r.Method, r.Pattern, param)
			}
		}
	}
	for pattern := range bodies {
		if !posts[pattern] {
			t.Errorf("there is a body for POST %s, which is not in the table", pattern)
		}
	}
}

// choice is what stands in one place of a path.
type choice struct {
	kind string // "own", "own in the other project", "foreign", "random", "malformed"
	text string
	in   string // the project it is in, "" for all
	own  bool
}

// choices returns what to put for a parameter. Random ones have the form of
// foreign ones.
func choices(kind string, own, foreign *side) []choice {
	if kind == "project" || kind == "archived project" {
		return []choice{
			{"own", own.projects[0], "", true},
			{"own in the other project", own.projects[1], "", true},
			{"foreign", foreign.projects[0], "", false},
			{"random", likeness(foreign.projects[0]), "", false},
			{"malformed", malformed, "", false},
		}
	}
	o := objects[kind]
	id := foreign.stable[kind+foreign.projects[0]]
	list := []choice{
		{"own", own.stable[kind+own.projects[0]], "", true},
		{"foreign", id, "", kind == "company" || kind == "override" || kind == "lent credential" || kind == "company of audiences"}, // the operator may see every company, and has the same overrides for all
		{"random", likeness(id), "", false},
		{"malformed", malformed, "", false},
	}
	if kind == "response" { // seen in its project only, though the path does not name it
		list = append(list, choice{"own in the other project", own.stable[kind+own.projects[1]], "", false})
	}
	if kind == "limit" {
		list[2].text = rateLimitID(likeness("route_of_00000000"))
	}
	if kind == "audience" { // the operator may see each in its company
		list[0].in, list[1].in, list[1].own = own.ID, foreign.ID, true
	}
	if o.inProject {
		list[0].in = own.projects[0]
		list = append(list, choice{"own in the other project", own.stable[kind+own.projects[1]], own.projects[1], true})
	}
	return list
}

// product is every combination of the choices for the parameters of a path.
func product(params [][]choice) [][]choice {
	out := [][]choice{nil}
	for _, list := range params {
		var longer [][]choice
		for _, head := range out {
			for _, c := range list {
				longer = append(longer, append(slices.Clone(head), c))
			}
		}
		out = longer
	}
	return out
}

// sweep sends every route with every choice of ids and every caller, to both
// listeners. own is the company of the callers that work.
func (w *world) sweep(t *testing.T, own, foreign *side, callers []caller) {
	sent := 0
	for _, r := range web.Routes() {
		var kinds []string
		var params [][]choice
		for _, p := range paramsOf(r.Pattern) {
			kind := kindOfObject(r.Pattern, p)
			kinds = append(kinds, kind)
			params = append(params, choices(kind, own, foreign))
		}
		combos := product(params)
		for _, c := range callers {
			for _, ops := range []bool{r.Ops, !r.Ops} {
				answers := map[string]string{}
				for _, combo := range combos {
					w.one(t, r, ops, c, own, foreign, kinds, combo, answers)
					sent++
				}
				indistinguishable(t, r, c, answers)
			}
		}
	}
	if sent < 1000 {
		t.Errorf("only %d requests were sent", sent)
	}
	t.Logf("%d requests", sent)
}

// one sends one request and holds the answer against the rule.
func (w *world) one(t *testing.T, r web.Route, ops bool, c caller, own, foreign *side, kinds []string, combo []choice, answers map[string]string) {
	t.Helper()
	isOwn, project := true, ""
	var names, values []string
	for _, v := range combo {
		isOwn = isOwn && v.own && (v.in == "" || v.in == project)
		if project == "" {
			project = v.text // where there is a project it stands first
		}
		names, values = append(names, v.kind), append(values, v.text)
	}
	want := expected(r, ops, c, project, isOwn)
	w.asking = c.person
	if want == http.StatusOK && r.Method != http.MethodGet {
		// It will happen, so it happens to an object that nothing else needs.
		for i, kind := range kinds {
			if kind != "project" {
				w.path = values[:i]
				values[i] = objects[kind].make(t, w, own, project)
			}
			if i == 0 {
				project = values[0] // or the store that what follows is in
			}
		}
	}
	var body any
	if r.Method == http.MethodPost || r.Method == http.MethodPut {
		body = bodies[r.Pattern](own)
	}
	base := w.g.URL
	if ops {
		base = w.g.OpsURL
	}
	what := r.Method + " " + r.Pattern + " by " + c.name + " with ids " + strings.Join(names, ", ")
	a := ask(t, r.Method, base+fill(r.Pattern, values)+query(r), c.key, body)
	if a.status == http.StatusOK {
		own.unused = nil
	}
	if ops == r.Ops {
		w.cells.add(r, c.name, combo, a.status)
	}
	if a.status != want {
		t.Errorf("%s: status %d, want %d: %s", what, a.status, want, tail(a.body, 300))
	}
	w.clean(t, what, a, c, foreign, values)
	answers[strings.Join(names, ", ")] = plain(a, values)
}

// clean fails the test if an answer holds a secret, or what belongs to the
// other company, or is no envelope.
func (w *world) clean(t *testing.T, what string, a answer, c caller, foreign *side, sent []string) {
	t.Helper()
	body := string(a.body)
	for _, s := range []*side{w.a, w.b} {
		if strings.Contains(body, s.secret) {
			t.Errorf("%s: the answer holds the provider's secret of company %s", what, s.letter)
		}
	}
	for _, id := range sent {
		body = strings.ReplaceAll(body, id, "")
	}
	if c.kind != tenant.KeyOperator && !strings.HasPrefix(what, "GET /metrics") {
		for _, id := range foreign.ids() {
			if strings.Contains(body, id) {
				t.Errorf("%s: the answer holds %q of the other company", what, id)
			}
		}
	}
	if a.status >= 400 {
		var e struct {
			Error map[string]any `json:"error"`
		}
		if json.Unmarshal(a.body, &e) != nil || len(e.Error) != 4 {
			t.Errorf("%s: not an error envelope: %s", what, tail(a.body, 300))
		}
		if a.header.Get("X-Request-Id") == "" {
			t.Errorf("%s: no x-request-id", what)
		}
	}
}

// plain is an answer without what may differ: the ids sent, the request's id,
// the time.
func plain(a answer, sent []string) string {
	var b bytes.Buffer
	h := a.header.Clone()
	for _, name := range []string{"X-Request-Id", "Date", "Openai-Processing-Ms"} {
		h.Del(name)
	}
	_ = h.Write(&b)
	b.Write(a.body)
	text := b.String()
	for _, id := range sent {
		text = strings.ReplaceAll(text, id, "<id>")
	}
	return text
}

// indistinguishable compares the answers for foreign ids with those for ids that
// never were, byte by byte.
func indistinguishable(t *testing.T, r web.Route, c caller, answers map[string]string) {
	t.Helper()
	if c.kind == tenant.KeyOperator {
		return // sees every company
	}
	for names, got := range answers {
		twin := strings.ReplaceAll(names, "foreign", "random")
		if twin != names && got != answers[twin] {
			t.Errorf("%s %s by %s: ids %s and %s are told apart:\n%s\n%s", r.Method, r.Pattern, c.name, names, twin, got, answers[twin])
		}
	}
}

// TestCrossCompany is DESIGN 4.9 and the table of who may call what, for every
// route, every kind of id in every place, and every kind of key.
func TestCrossCompany(t *testing.T) {
	w := newWorld(t)
	a, b := w.a, w.b
	before := w.snapshot(t, b)

	callers := []caller{
		{name: "nobody"},
		{name: "garbage", key: "garbage"},
		{name: "a mistyped key", key: mistyped(a.APIKey)},
		{name: "a live key", key: a.APIKey, kind: tenant.KeyLive},
		{name: "a test key", key: a.TestKey, kind: tenant.KeyTest},
		{name: "an admin key", key: a.AdminKey, kind: tenant.KeyAdmin},
		{name: "the operator", key: w.g.Operator, kind: tenant.KeyOperator},
		{name: "a forged operator key", key: forged(w.g.Operator), kind: tenant.KeyOperator, unknown: true},
		{name: "a revoked live key", key: w.revokedLive, kind: tenant.KeyLive, unknown: true},
		{name: "a revoked admin key", key: w.revokedAdmin, kind: tenant.KeyAdmin, unknown: true},
		{name: "an expired live key", key: w.expiredLive, kind: tenant.KeyLive, unknown: true},
		{name: "an expired admin key", key: w.expiredAdmin, kind: tenant.KeyAdmin, unknown: true},
		{name: "an archived project's key", key: w.archived, kind: tenant.KeyLive, blocked: true},
		{name: "a suspended company's live key", key: w.suspendedLive, kind: tenant.KeyLive, blocked: true},
		{name: "a suspended company's admin key", key: w.suspendedAdmin, kind: tenant.KeyAdmin, blocked: true},
	}
	readOnly := map[string]any{"scopes": []string{"api.all.read"}}
	_, live := w.newKey(t, a, a.ProjectID, readOnly)
	_, admin := w.newAdminKey(t, a, readOnly)
	callers = append(callers, caller{name: "a live key that reads only", key: live, kind: tenant.KeyLive, reads: true},
		caller{name: "an admin key that reads only", key: admin, kind: tenant.KeyAdmin, reads: true,
			holds: tenant.ProjectsRead | tenant.KeysRead | tenant.UsageRead | tenant.AuditRead | tenant.GroupsRead})
	callers = append(callers, w.tokensOf(t, a)...)
	people := w.peopleOf(t, a)
	for _, name := range slices.Sorted(maps.Keys(people)) {
		callers = append(callers, caller{name: name, key: people[name].key, kind: tenant.KeySession, person: people[name]})
	}
	w.sweep(t, a, b, callers)
	var names []string
	for _, c := range callers {
		names = append(names, c.name)
	}
	w.cells.golden(t, names)
	w.cursors(t, a, b)
	w.unchanged(t, b, before)

	// The other way round, so that "B's admin key on A's objects" is every route too.
	before = w.snapshot(t, a)
	w.sweep(t, b, a, []caller{
		{name: "B's admin key", key: b.AdminKey, kind: tenant.KeyAdmin},
		{name: "B's live key", key: b.APIKey, kind: tenant.KeyLive},
	})
	w.unchanged(t, a, before)

	for _, s := range []*side{a, b} {
		w.g.chat(t, s.APIKey, "shared").want(t, "a call of company "+s.letter+" after the sweep", http.StatusOK)
	}
	w.nothingKept(t)
}

// cursors turns the pages of every list of A from objects that are not A's.
func (w *world) cursors(t *testing.T, a, b *side) {
	for _, r := range web.Routes() {
		last := r.Pattern[strings.LastIndex(r.Pattern, "/")+1:]
		kind := map[string]string{
			"projects": "project", "service_accounts": "account", "api_keys": "key", "rate_limits": "limit",
			"admin_api_keys": "admin key", "credentials": "credential", "routes": "route", "prices": "price", "audit_logs": "audit row",
			"agents": "agent", "contexts": "context",
			"workload_identity_providers": "provider", "federation_rules": "rule",
			"budgets": "budget", "spend_alerts": kindOfObject(r.Pattern, "alert"),
			"users": kindOfObject(r.Pattern+"/{user}", "user"), "groups": kindOfObject(r.Pattern+"/{group}", "group"),
			"roles": kindOfObject(r.Pattern+"/{role}", "role"), "invites": "invite",
		}[last]
		if strings.Contains(r.Pattern, "{user}") || strings.Contains(r.Pattern, "{group}") {
			continue // few, and read in one piece
		}
		parent, key := []string{a.ProjectID}, a.AdminKey
		switch {
		case r.Pattern == "/v1/files":
			kind = "file"
		case r.Pattern == "/v1/vector_stores":
			kind = "store"
		case r.Pattern == "/v1/conversations/{conversation}/items":
			kind, key = "item", a.APIKey
			parent = []string{a.stable["conversation"+a.ProjectID]}
		case strings.HasPrefix(r.Pattern, "/v1/vector_stores/{store}/") && last == "files":
			kind = "store file"
			parent = []string{a.stable["store"+a.ProjectID], a.stable["batch"+a.ProjectID]}
		}
		if r.Ops || r.Method != http.MethodGet || kind == "" {
			continue
		}
		id := b.stable[kind+b.ProjectID]
		if kind == "project" {
			id = b.ProjectID
		}
		if kind == "rule" {
			parent = []string{a.provider}
		}
		for _, name := range []string{"after", "before"} {
			at := func(cursor string) string {
				path := w.g.URL + fill(r.Pattern, parent) + "?" + name + "=" + url.QueryEscape(cursor)
				return plain(ask(t, r.Method, path, key, nil).want(t, r.Pattern+"?"+name+"=", http.StatusBadRequest), []string{cursor})
			}
			random := likeness(id)
			if foreign, never := at(id), at(random); foreign != never {
				t.Errorf("%s?%s= tells a foreign id from one that never was:\n%s\n%s", r.Pattern, name, foreign, never)
			}
		}
	}
}

// mistyped is a key with one letter of its secret wrong.
func mistyped(key string) string {
	i := len(key) - 20
	other := byte('x')
	if key[i] == other {
		other = 'y'
	}
	return key[:i] + string(other) + key[i+1:]
}

// forged is a key with one letter of its secret wrong and the checksum right.
func forged(key string) string { return resum(mistyped(key)) }
