package test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"bulkhead/tenant"
	"bulkhead/tenant/tenanttest"
	"bulkhead/test/upstream"
	"bulkhead/web"
)

// side is one of the two companies of the cross-company tests. Both have
// objects of the same names everywhere, and what is told apart is told apart by
// id and by secret.
type side struct {
	company
	letter   string
	secret   string            // of the provider that both have, for this company only
	projects [2]string         // the first is the company's first
	stable   map[string]string // objects that no test changes, by kind and project
	ready    bool              // stable is whole
	w        *world
	door     string             // the address of a user for logging in
	unused   map[string]string  // see fresh
	issuer   *tenanttest.Issuer // whose tokens both trust
	provider string             // its id
}

// world is a gateway with two companies that look alike, and every kind of key.
type world struct {
	g    *gateway
	up   *upstream.Server
	a, b *side
	t    *testing.T
	path []string // the values of the path so far, while an object of it is made
	// asking is the person who will ask, nil for keys.
	asking *person
	cells  matrix
	issuer *tenanttest.Issuer

	revokedLive, revokedAdmin     string
	expiredLive, expiredAdmin     string
	archived                      string
	suspendedLive, suspendedAdmin string
}

const crossConfig = `
providers:
  up: {kind: custom, base_url: %[1]q}
  spare: {kind: custom, base_url: %[1]q}
  only-b: {kind: custom, base_url: %[1]q}
`

// newWorld makes the world. Secrets are canaries: none may be seen again but by
// the upstream.
func newWorld(t *testing.T) *world {
	t.Helper()
	up := upstream.New(t)
	g := startGateway(t, fmt.Sprintf(crossConfig, up.BaseURL()))
	w := &world{g: g, up: up, t: t, cells: matrix{}, issuer: tenanttest.NewIssuer(t, (*httptest.Server).Start)}
	w.a, w.b = w.newSide(t, "a"), w.newSide(t, "b")
	g.setCredential(t, w.b.company, "only-b", w.b.secret)
	w.keysOfA(t)
	suspended := w.newCompany(t)
	w.suspendedLive, w.suspendedAdmin = suspended.APIKey, suspended.AdminKey
	g.call(t, http.MethodPost, g.OpsURL+"/admin/companies/"+suspended.ID+"/suspend", g.Operator, nil, nil)
	up.Reset() // of what was asked to make it
	return w
}

func (w *world) newCompany(t *testing.T) company {
	t.Helper()
	return w.g.newCompany(t, "Same name")
}

func (w *world) newSide(t *testing.T, letter string) *side {
	t.Helper()
	s := &side{company: w.newCompany(t), letter: letter, stable: map[string]string{}, issuer: w.issuer}
	s.secret = "sk-canary-" + strings.Repeat(letter, 24) + "-0123456789"
	s.projects[0] = s.ProjectID
	s.projects[1] = w.create(t, s, "/projects", map[string]any{"name": "Default project"})
	for _, provider := range []string{"up", "spare"} {
		w.g.setCredential(t, s.company, provider, s.secret)
	}
	w.g.setRoute(t, s.company, "shared", "up/ok")
	w.g.setRoute(t, s.company, "fallback", "up/status-500", "up/ok")
	w.g.setRoute(t, s.company, foreignRoute(s), "up/ok")
	s.provider = w.create(t, s, "/workload_identity_providers", providerBody(s, w.issuer.Name))
	for _, project := range s.projects {
		at := w.g.URL + "/v1/organization/projects/" + project
		w.g.call(t, http.MethodPost, at+"/rate_limits/"+rateLimitID("shared"), s.AdminKey, map[string]any{"max_requests_per_1_minute": 100_000}, nil)
		w.g.call(t, http.MethodPost, at+"/model_permissions", s.AdminKey, map[string]any{"mode": "deny_list", "model_ids": []string{"up/denied"}}, nil)
		for name, o := range objects {
			if _, later := peopleObjects[name]; later || dependentObjects[name].make != nil {
				continue
			}
			if s.stable[name+project] == "" { // not made for another one
				s.stable[name+project] = o.make(t, w, s, project)
			}
		}
	}
	w.stablePeople(t, s)
	for _, project := range s.projects {
		s.stable["audit row"+project] = w.auditRows(t, s, "")[0].ID
	}
	w.create(t, s, "/workload_identity_providers/"+s.provider+"/federation_rules", ruleBody(s)) // of an account that stays
	s.ready = true
	return s
}

// foreignRoute is the name of a route that only s has.
func foreignRoute(s *side) string { return "route_of_" + strings.Repeat(s.letter, 8) }

// rateLimitID is the id of a model's row, which is the same in every project.
func rateLimitID(model string) string {
	sum := sha256.Sum256([]byte(model))
	return "rl_" + hex.EncodeToString(sum[:12])
}

// create posts body below /v1/organization as the admin of s and returns the id.
func (w *world) create(t *testing.T, s *side, path string, body any) string {
	t.Helper()
	var o struct {
		ID string `json:"id"`
	}
	w.g.call(t, http.MethodPost, w.g.URL+"/v1/organization"+path, s.AdminKey, body, &o)
	if o.ID == "" {
		t.Fatalf("POST %s answered without an id", path)
	}
	return o.ID
}

// newKey makes a service account with a key in a project.
func (w *world) newKey(t *testing.T, s *side, project string, more map[string]any) (id, value string) {
	t.Helper()
	body := map[string]any{"name": "Same account"}
	for k, v := range more {
		body[k] = v
	}
	var o struct {
		Key struct{ ID, Value string } `json:"api_key"`
	}
	w.g.call(t, http.MethodPost, w.g.URL+"/v1/organization/projects/"+project+"/service_accounts", s.AdminKey, body, &o)
	return o.Key.ID, o.Key.Value
}

func (w *world) newAdminKey(t *testing.T, s *side, more map[string]any) (id, value string) {
	t.Helper()
	body := map[string]any{"name": "Same admin key"}
	for k, v := range more {
		body[k] = v
	}
	var o struct{ ID, Value string }
	w.g.call(t, http.MethodPost, w.g.URL+"/v1/organization/admin_api_keys", s.AdminKey, body, &o)
	return o.ID, o.Value
}

// keysOfA makes the keys of A that no longer work.
func (w *world) keysOfA(t *testing.T) {
	t.Helper()
	at := w.g.URL + "/v1/organization"
	soon := map[string]any{"expires_in_seconds": 1}
	_, w.expiredLive = w.newKey(t, w.a, w.a.ProjectID, soon)
	_, w.expiredAdmin = w.newAdminKey(t, w.a, soon)

	var id string
	id, w.revokedLive = w.newKey(t, w.a, w.a.ProjectID, nil)
	w.g.call(t, http.MethodDelete, at+"/projects/"+w.a.ProjectID+"/api_keys/"+id, w.a.AdminKey, nil, nil)
	id, w.revokedAdmin = w.newAdminKey(t, w.a, nil)
	w.g.call(t, http.MethodDelete, at+"/admin_api_keys/"+id, w.a.AdminKey, nil, nil)

	gone := w.create(t, w.a, "/projects", map[string]any{"name": "Default project"})
	_, w.archived = w.newKey(t, w.a, gone, nil)
	w.g.call(t, http.MethodPost, at+"/projects/"+gone+"/archive", w.a.AdminKey, nil, nil)

	eventually(t, 5*time.Second, "the keys expire", func() bool {
		return ask(t, http.MethodGet, w.g.URL+"/v1/models", w.expiredLive, nil).status == http.StatusUnauthorized &&
			ask(t, http.MethodGet, at+"/projects", w.expiredAdmin, nil).status == http.StatusUnauthorized
	})
}

// object is what a parameter of a path names. make makes one in a project of s,
// or in the company as a whole, and returns its id.
type object struct {
	inProject bool
	make      func(t *testing.T, w *world, s *side, project string) string
}

// objects holds each kind of object that a path of the table can name.
var objects = map[string]object{
	"account": {true, func(t *testing.T, w *world, s *side, project string) string {
		return w.create(t, s, "/projects/"+project+"/service_accounts", map[string]any{"name": "Same account"})
	}},
	"key": {true, func(t *testing.T, w *world, s *side, project string) string {
		id, _ := w.newKey(t, s, project, nil)
		return id
	}},
	"admin key": {false, func(t *testing.T, w *world, s *side, _ string) string {
		id, _ := w.newAdminKey(t, s, nil)
		return id
	}},
	"credential": {false, func(t *testing.T, w *world, s *side, _ string) string {
		provider := "up"
		if s.ready { // this one may be deleted
			provider = "spare"
		}
		return w.create(t, s, "/credentials", map[string]any{"provider": provider, "secret": s.secret})
	}},
	"route": {false, func(t *testing.T, w *world, s *side, _ string) string {
		name := likeness("route_of_00000000")
		w.g.setRoute(t, s.company, name, "up/ok")
		return name
	}},
	"price": {false, func(t *testing.T, w *world, s *side, _ string) string {
		return w.create(t, s, "/prices", priceOf("up", likeness("price_of_00000000")))
	}},
	"override": {false, func(t *testing.T, w *world, _ *side, _ string) string {
		var o struct{ ID string }
		w.g.call(t, http.MethodPut, w.g.OpsURL+"/admin/prices", w.g.Operator, priceOf("up", likeness("price_of_00000000")), &o)
		return o.ID
	}},
	"limit": {false, func(t *testing.T, w *world, s *side, _ string) string { return rateLimitID(foreignRoute(s)) }},
	"model": {false, func(t *testing.T, w *world, s *side, _ string) string { return foreignRoute(s) }},
	"company": {false, func(t *testing.T, w *world, _ *side, _ string) string {
		id := w.newCompany(t).ID
		w.g.call(t, http.MethodPut, w.g.OpsURL+"/admin/companies/"+id+"/ceiling", w.g.Operator, ceiling, nil)
		return id
	}},
	"agent": {false, func(t *testing.T, w *world, s *side, _ string) string {
		var o struct{ ID string }
		w.g.call(t, http.MethodPost, w.g.URL+"/v1/agents", s.APIKey, sharedAgent, &o)
		return o.ID
	}},
	"response": {false, func(t *testing.T, w *world, s *side, project string) string {
		key := s.APIKey
		if project == s.projects[1] {
			_, key = w.newKey(t, s, project, nil)
		}
		var o struct{ ID string }
		w.g.call(t, http.MethodPost, w.g.URL+"/v1/responses", key, bodies["/v1/responses"](s), &o)
		return o.ID
	}},
	"context": {false, func(t *testing.T, w *world, s *side, _ string) string {
		return w.create(t, s, "/contexts", aContext)
	}},
	"lent credential": {false, func(t *testing.T, w *world, _ *side, _ string) string {
		var o struct{ ID string }
		w.g.call(t, http.MethodPost, w.g.OpsURL+"/admin/credentials", w.g.Operator, map[string]any{"provider": "spare", "secret": "sk-lent-0123456789"}, &o)
		return o.ID
	}},
	"budget": {false, func(t *testing.T, w *world, s *side, _ string) string {
		return w.create(t, s, "/budgets", userBudget(likeness("someone_00000000")))
	}},
	"alert": {false, func(t *testing.T, w *world, s *side, _ string) string {
		return w.create(t, s, "/spend_alerts", spendAlert(s))
	}},
	"project alert": {true, func(t *testing.T, w *world, s *side, project string) string {
		return w.create(t, s, "/projects/"+project+"/spend_alerts", spendAlert(s))
	}},
	"file":         {false, func(t *testing.T, w *world, s *side, _ string) string { return w.upload(t, s) }},
	"store":        {false, makeStore},
	"conversation": {false, func(t *testing.T, w *world, s *side, _ string) string { return w.post(t, s, "/v1/conversations", nil) }},
	"item":         {false, makeItem},
	"store file":   {false, makeStoreFile},
	"batch":        {false, makeBatch},
	"provider": {false, func(t *testing.T, w *world, s *side, _ string) string {
		return w.create(t, s, "/workload_identity_providers", providerBody(s, w.issuer.Name+"/"+likeness("x_00000000")))
	}},
	"provider of rules": {false, func(_ *testing.T, _ *world, s *side, _ string) string { return s.provider }},
	"rule": {false, func(t *testing.T, w *world, s *side, project string) string {
		if at := "account" + s.projects[0]; s.stable[at] == "" {
			s.stable[at] = w.create(t, s, "/projects/"+s.projects[0]+"/service_accounts", map[string]any{"name": "Same account"})
		}
		return w.create(t, s, "/workload_identity_providers/"+s.provider+"/federation_rules", ruleBody(s))
	}},
	"audience": {false, func(t *testing.T, w *world, s *side, _ string) string {
		var o struct{ ID string }
		w.g.call(t, http.MethodPost, w.g.OpsURL+"/admin/companies/"+s.ID+"/audiences", w.g.Operator, bodies["/admin/companies/{company}/audiences"](s), &o)
		return o.ID
	}},
	"company of audiences": {false, func(_ *testing.T, _ *world, s *side, _ string) string { return s.ID }},
	"archived project": {false, func(t *testing.T, w *world, s *side, _ string) string {
		id := w.create(t, s, "/projects", map[string]any{"name": "Default project"})
		if w.asking != nil { // who may archive one project must be able to do so with this one
			w.grant(t, s, "/v1/projects/"+id+"/users", w.asking.id, tenant.RoleProjectOwner)
		}
		return id
	}},
}

// kindOfObject names the entry of objects, or "project", that a parameter of a
// pattern stands for.
func kindOfObject(pattern, param string) string {
	if kind := kindOfPerson(pattern, param); kind != "" {
		return kind
	}
	switch {
	case param == "key" && strings.Contains(pattern, "/admin_api_keys/"):
		return "admin key"
	case param == "credential" && strings.HasPrefix(pattern, "/admin/"):
		return "lent credential"
	case param == "project" && strings.HasSuffix(pattern, "/archive"):
		return "archived project"
	case param == "file" && strings.Contains(pattern, "/vector_stores/"):
		return "store file"
	case param == "provider" && strings.Contains(pattern, "/federation_rules"):
		return "provider of rules"
	case param == "company" && strings.Contains(pattern, "/audiences/"):
		return "company of audiences"
	case param == "alert" && strings.Contains(pattern, "/projects/"):
		return "project alert"
	}
	return strings.TrimSuffix(param, "...")
}

// paramsOf returns the names of the parameters of a pattern.
func paramsOf(pattern string) (names []string) {
	for _, part := range strings.Split(pattern, "/") {
		if strings.HasPrefix(part, "{") {
			names = append(names, strings.Trim(part, "{}"))
		}
	}
	return names
}

// fill puts values in the places of a pattern's parameters.
func fill(pattern string, values []string) string {
	parts := strings.Split(pattern, "/")
	for i, part := range parts {
		if strings.HasPrefix(part, "{") {
			parts[i], values = url.PathEscape(values[0]), values[1:]
		}
	}
	return strings.Join(parts, "/")
}

// malformed is an id that nothing has the form of.
const malformed = "' OR 1=1--\x00*é"

// likeness returns an id of the same form and length that never was.
func likeness(id string) string {
	const digits = "0123456789abcdef"
	b := []byte(id)
	for i := strings.LastIndexAny(id, "_-") + 1; i < len(b); i++ {
		b[i] = digits[rand.IntN(len(digits))]
	}
	return string(b)
}

// ids are what tells s from the other company: none of it may be seen there.
func (s *side) ids() []string {
	out := []string{s.ID, s.projects[0], s.projects[1], foreignRoute(s), s.secret, s.AdminKey, s.APIKey, s.TestKey}
	for name, id := range s.stable {
		if !strings.HasPrefix(name, "limit") { // the ids of limits are hashes of names, equal in all companies
			out = append(out, id)
		}
	}
	return out
}

// snapshot is all that the management API shows of s, by path.
func (w *world) snapshot(t *testing.T, s *side) map[string]string {
	t.Helper()
	w.written(t)
	w.takenIn(t, s)
	shown := map[string]string{}
	for _, r := range web.Routes() {
		if r.Ops || r.Method != http.MethodGet || len(r.Keys) == 0 || slices.Equal(r.Keys, []tenant.KeyKind{tenant.KeySession}) {
			continue
		}
		key := s.AdminKey
		if !slices.Contains(r.Keys, tenant.KeyAdmin) { // a project's own
			key = s.APIKey
		}
		for i, project := range s.projects {
			if i > 0 && strings.Contains(r.Pattern, "{response}") {
				continue // the key's project does not see it
			}
			var values []string
			for _, param := range paramsOf(r.Pattern) {
				kind := kindOfObject(r.Pattern, param)
				switch kind {
				case "project":
					values = append(values, project)
				case "user", "group": // what stands behind them is theirs: see stablePeople
					values = append(values, s.stable[kind+s.projects[0]])
				default:
					values = append(values, s.stable[kind+project])
				}
			}
			if strings.HasSuffix(r.Pattern, "/audit_logs") {
				shown[r.Pattern] = w.auditText(t, s)
				continue
			}
			path, want := fill(r.Pattern, values), http.StatusOK
			if q := query(r); q != "" {
				path += q
			} else if r.Pattern != "/v1/responses/{response}" { // which has no pages, and says so
				path += "?limit=100"
			}
			if absent(r) {
				want = http.StatusNotFound
			}
			a := ask(t, r.Method, w.g.URL+path, key, nil).want(t, "the other company's own "+path, want)
			if absent(r) { // each such answer has an id of its own
				a.body = nil
			}
			// Of users, invites and stores there are more than a page: what a sweep does
			// is seen on the first.
			if many := strings.HasSuffix(r.Pattern, "/organization/users") || strings.HasSuffix(r.Pattern, "/invites") || r.Pattern == "/v1/vector_stores"; !many && bytes.Contains(a.body, []byte(`"has_more":true`)) {
				t.Fatalf("%s has more than one page: the snapshot is not whole", path)
			}
			shown[path] = lastUsed.ReplaceAllString(string(a.body), "") // written some time after the use
		}
	}
	return shown
}

var lastUsed = regexp.MustCompile(`"last_used_at":(null|\d+),?`)

// written waits until the ledger is in the store.
func (w *world) written(t *testing.T) {
	t.Helper()
	eventually(t, 10*time.Second, "the ledger is written", func() bool {
		return bytes.Contains(ask(t, http.MethodGet, w.g.OpsURL+"/metrics", "", nil).body, []byte("\nbulkhead_ledger_queued_entries 0"))
	})
}

// unchanged fails the test where s looks different from before.
func (w *world) unchanged(t *testing.T, s *side, before map[string]string) {
	t.Helper()
	if len(before) < 15 {
		t.Errorf("the snapshot has only %d paths", len(before))
	}
	after := w.snapshot(t, s)
	for path, was := range before {
		if after[path] != was {
			t.Errorf("company %s was changed through a key of the other one: %s\nbefore %s\nafter  %s", s.letter, path, was, after[path])
		}
	}
}

// resum returns a key with its checksum made right again.
func resum(key string) string {
	const crcLen = 6
	const base62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	b := []byte(key[:len(key)-crcLen])
	n := crc32.ChecksumIEEE(b)
	var sum [crcLen]byte
	for i := crcLen - 1; i >= 0; i-- {
		sum[i] = base62[n%62]
		n /= 62
	}
	return string(append(b, sum[:]...))
}
