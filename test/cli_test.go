package test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"bulkhead/test/upstream"
)

// cliGateway serves with the provider "up" and a CLI that finds its keys in the
// data folder, as on the machine of whoever runs it.
func cliGateway(t *testing.T) (*gateway, *upstream.Server) {
	t.Helper()
	up := upstream.New(t)
	g := prepare(t, "providers:\n  up: {kind: custom, base_url: "+up.BaseURL()+"}\n")
	g.serve(t)
	return g, up
}

// ok runs a command that must succeed and say nothing on standard error.
func (g *gateway) ok(t *testing.T, env []string, stdin string, args ...string) string {
	t.Helper()
	r := g.command(t, env, stdin, args...)
	if r.code != 0 || r.err != "" {
		t.Fatalf("gateway %s: %+v", strings.Join(args, " "), r)
	}
	return r.out
}

// fails runs a command that must end with 1, with the message on standard error
// and nothing on standard output.
func (g *gateway) fails(t *testing.T, env []string, stdin, message string, args ...string) {
	t.Helper()
	r := g.command(t, env, stdin, args...)
	if r.code != 1 || r.out != "" || !strings.Contains(r.err, message) {
		t.Errorf("gateway %s: %+v, want exit code 1 and %q on standard error only", strings.Join(args, " "), r, message)
	}
}

// decoded reads what a command printed with -json.
func decoded[T any](t *testing.T, printed string) (v T) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(printed))
	if err := d.Decode(&v); err != nil {
		t.Fatalf("not JSON: %s in %q", err, printed)
	}
	if _, err := d.Token(); err != io.EOF {
		t.Fatalf("more than one object: %q", printed)
	}
	return v
}

// row finds the value beside a name in what a command printed for people.
func row(printed, name string) string {
	for line := range strings.Lines(printed) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == name {
			return strings.Join(f[1:], " ")
		}
	}
	return ""
}

func TestCLIUsage(t *testing.T) {
	g := prepare(t, "")
	for _, args := range [][]string{nil, {"help"}, {"-h"}, {"--help"}} {
		if out := g.ok(t, nil, "", args...); !strings.Contains(out, "gateway company create") {
			t.Errorf("gateway %v printed %q", args, out)
		}
	}
	f := func(message string, args ...string) { t.Helper(); g.fails(t, nil, "", message, args...) }
	f("unknown command", "srve")
	f("unknown command", "company")
	f("unknown command", "company", "destroy")
	f("unknown command", "key", "-json", "create") // the verb comes first
	f("NAME", "company", "create")
	f("NAME", "company", "create", "a", "b")
	f("not defined", "company", "create", "a", "-jsn")
	f("ID", "company", "erase")
	f("KEY_ID", "key", "revoke", "-json")
	f("PROVIDER", "credential", "set")
	f("takes no arguments", "serve", "now")
	f("takes no arguments", "check", "bulkhead.yaml")
	// Nobody answers, and there are no keys to be found.
	f("operator.key", "company", "list")
	f("demo.json", "key", "create")
	with := []string{"BULKHEAD_OPERATOR_KEY=x", "BULKHEAD_API_KEY=x"}
	g.fails(t, with, "", "cannot reach the gateway", "company", "list")
	g.fails(t, with, "secret", "cannot reach the gateway", "credential", "set", "up")
	for _, args := range [][]string{{"company", "create", "-h"}, {"serve", "-help"}} {
		if r := g.command(t, nil, "", args...); r.code != 0 {
			t.Errorf("gateway %v: %+v, want exit code 0", args, r)
		}
	}
}

func TestCLICompany(t *testing.T) {
	g, _ := cliGateway(t)
	printed := g.ok(t, nil, "", "company", "create", "Plain & <simple>")
	plain := company{row(printed, "id"), row(printed, "name"), row(printed, "admin_key"), row(printed, "project_id"), row(printed, "api_key"), row(printed, "test_key")}
	if plain.Name != "Plain & <simple>" {
		t.Errorf("printed:\n%s", printed)
	}
	all := []company{g.Demo, plain}
	for _, args := range [][]string{{"create", "-json", "Before"}, {"create", "After", "-json"}, {"create", "-json=true", "--", "-Dashed"}} {
		all = append(all, decoded[company](t, g.ok(t, nil, "", append([]string{"company"}, args...)...)))
	}
	if last := all[len(all)-1]; last.Name != "-Dashed" {
		t.Errorf("the name behind -- is %q", last.Name)
	}
	for _, c := range all {
		g.chat(t, c.TestKey, "sandbox/echo").want(t, c.Name+"'s test key", http.StatusOK)
		g.chat(t, c.APIKey, "sandbox/echo").want(t, c.Name+"'s live key", http.StatusOK)
		ask(t, http.MethodGet, g.URL+"/v1/organization/projects/"+c.ProjectID, c.AdminKey, nil).want(t, c.Name+"'s admin key", http.StatusOK)
	}
	f := func(message string, args ...string) {
		t.Helper()
		g.fails(t, nil, "", message, append([]string{"company"}, args...)...)
	}
	f("name", "create", "")
	f("name", "create", strings.Repeat("x", 300))
	f("404", "suspend", "org-0000000000")
	f("404", "resume", "../../v1")
	f("404", "erase", "nobody")
	g.fails(t, []string{"BULKHEAD_OPERATOR_KEY=" + forged(g.Operator)}, "", "401", "company", "list")
	g.fails(t, []string{"BULKHEAD_OPERATOR_KEY=" + g.Demo.AdminKey}, "", "403", "company", "list")
	g.fails(t, []string{"BULKHEAD_ADMIN_URL=" + g.URL}, "", "404", "company", "list") // the clients' address

	// More than a page of them.
	for i := len(all); i < 105; i++ {
		all = append(all, g.newCompany(t, fmt.Sprint("Company ", i)))
	}
	var want, got []string
	for _, c := range all {
		want = append(want, c.ID)
	}
	type listed struct {
		Data []struct{ ID, Name, Status string }
	}
	for _, c := range decoded[listed](t, g.ok(t, nil, "", "company", "list", "-json")).Data {
		got = append(got, c.ID)
	}
	if !slices.Equal(got, want) {
		t.Errorf("company list -json has %d companies in another order or number than the %d that were made", len(got), len(want))
	}
	if lines := strings.Count(g.ok(t, nil, "", "company", "list"), "\n"); lines != len(want) {
		t.Errorf("company list printed %d lines, want %d", lines, len(want))
	}
}

// TestCLISuspend suspends a company in the middle of a stream, resumes it, and
// erases it.
func TestCLISuspend(t *testing.T) {
	g, up := cliGateway(t)
	a, b := g.Demo, g.newCompany(t, "Demo")
	for _, c := range []company{a, b} {
		g.setCredential(t, c, "up", upstreamSecret)
		g.setRoute(t, c, "mine", "up/ok")
	}
	g.chat(t, b.APIKey, "mine").want(t, "B", http.StatusOK)
	g.openStream(t, b.APIKey, "up/never-ending")
	stream := g.openStream(t, a.APIKey, "up/never-ending")
	if err := up.WaitEvents(3, 5*time.Second); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	out := g.ok(t, nil, "", "company", "suspend", a.ID)
	if row(out, "status") != "suspended" || row(out, "id") != a.ID {
		t.Errorf("company suspend printed\n%s", out)
	}
	text, _ := io.ReadAll(stream)
	if took := time.Since(start); took > 2*time.Second { // a second, and the start of a process
		t.Errorf("the stream ended %s after the company was suspended", took)
	}
	if bytes.Contains(text, []byte("[DONE]")) {
		t.Error("the stream that was ended looks whole")
	}
	if err := up.WaitClosed(1, time.Second); err != nil {
		t.Errorf("the upstream of the stream: %s", err)
	}
	for name, key := range map[string]string{"live": a.APIKey, "test": a.TestKey, "admin": a.AdminKey} {
		got := ask(t, http.MethodGet, g.URL+"/v1/models", key, nil)
		if code, _ := got.fault(); got.status != http.StatusForbidden || code != "company_suspended" {
			t.Errorf("the %s key of a suspended company: %d %s", name, got.status, code)
		}
	}
	g.fails(t, nil, "", "suspended", "key", "create")
	if up.Open() != 1 {
		t.Errorf("%d calls run, want B's", up.Open())
	}
	if out := decoded[map[string]any](t, g.ok(t, nil, "", "company", "resume", "-json", a.ID)); out["status"] != "active" {
		t.Errorf("company resume -json: %v", out)
	}
	g.chat(t, a.APIKey, "mine").want(t, "A after it was resumed", http.StatusOK)
	g.erases(t, a, b)
	if up.Open() != 1 {
		t.Errorf("%d calls run, want B's", up.Open())
	}
}

// erases erases a, which has one project with its first keys, one credential,
// one route and calls in the ledger, and looks that b is as it was.
func (g *gateway) erases(t *testing.T, a, b company) {
	t.Helper()
	shown := func() (all string) {
		for _, path := range []string{"/projects", "/credentials", "/routes", "/admin_api_keys", "/projects/" + b.ProjectID + "/api_keys"} {
			all += string(ask(t, http.MethodGet, g.URL+"/v1/organization"+path, b.AdminKey, nil).want(t, path, http.StatusOK).body)
		}
		return all
	}
	before := shown()
	type erased struct {
		ID, Status string
		Rows       map[string]int `json:"rows_removed"`
	}
	out := decoded[erased](t, g.ok(t, nil, "", "company", "erase", a.ID, "-json"))
	want := map[string]int{"api_key": 3, "service_account": 1, "project": 1, "credential": 1, "route": 1, "data_key": 1, "entry": 2}
	for table, n := range want {
		if out.Rows[table] != n {
			t.Errorf("erase removed %d rows of %s, want %d: %v", out.Rows[table], table, n, out.Rows)
		}
	}
	if out.ID != a.ID || out.Status != "erased" || out.Rows["audit"] == 0 {
		t.Errorf("company erase -json: %+v", out)
	}
	for name, key := range map[string]string{"live": a.APIKey, "test": a.TestKey, "admin": a.AdminKey} {
		for range 2 { // looked up, and from what is remembered
			got := ask(t, http.MethodGet, g.URL+"/v1/models", key, nil)
			never := ask(t, http.MethodGet, g.URL+"/v1/models", forged(key), nil)
			if got.status != http.StatusUnauthorized || plain(got, nil) != plain(never, nil) {
				t.Errorf("the %s key of an erased company: %d %s", name, got.status, got.body)
			}
		}
	}
	if list := g.ok(t, nil, "", "company", "list"); strings.Contains(list, a.ID) || !strings.Contains(list, b.ID) {
		t.Errorf("company list after the erasure:\n%s", list)
	}
	for _, verb := range []string{"resume", "suspend", "erase"} {
		g.fails(t, nil, "", "404", "company", verb, a.ID)
	}
	if c := g.newCompany(t, a.Name); c.ID == a.ID || c.ProjectID == a.ProjectID {
		t.Error("an id was used again")
	}
	if shown() != before {
		t.Errorf("erasing A changed B:\n%s\n%s", before, shown())
	}
	g.chat(t, b.APIKey, "mine").want(t, "B after A was erased", http.StatusOK)
	metrics := ask(t, http.MethodGet, g.OpsURL+"/metrics", "", nil).body
	if bytes.Contains(metrics, []byte(a.ID)) || !bytes.Contains(metrics, []byte(b.ID)) {
		t.Error("the erased company still has series in the metrics, or B has none")
	}
}

func TestCLIKey(t *testing.T) {
	g, _ := cliGateway(t)
	type made struct {
		ID, Name, Value string
		ExpiresAt       int64 `json:"expires_at"`
	}
	create := func(args ...string) made {
		t.Helper()
		return decoded[made](t, g.ok(t, nil, "", append([]string{"key", "create", "-json"}, args...)...))
	}
	works := func(k made, status int) {
		t.Helper()
		path := "/v1/models"
		if strings.HasPrefix(k.Value, "sk-bh-admin-") {
			path = "/v1/organization/projects"
		}
		if a := ask(t, http.MethodGet, g.URL+path, k.Value, nil); a.status != status {
			t.Errorf("key %s (%.12s): status %d, want %d", k.Name, k.Value, a.status, status)
		}
	}
	live := create("-name", "for the app")
	test := create("-kind", "test")
	admin := create("-kind", "admin", "-name", "for the deployment", "-expires", "3600")
	for prefix, k := range map[string]made{"sk-bh-live-": live, "sk-bh-test-": test, "sk-bh-admin-": admin} {
		if !strings.HasPrefix(k.Value, prefix) || !strings.HasPrefix(k.ID, "key_") {
			t.Errorf("%+v, want a key that begins with %s", k, prefix)
		}
		works(k, http.StatusOK)
	}
	if live.Name != "for the app" || live.ExpiresAt != 0 || admin.ExpiresAt < time.Now().Unix()+3500 {
		t.Errorf("made %+v and %+v", live, admin)
	}
	narrow := decoded[made](t, g.ok(t, nil, "", "key", "create", "-json", "-scopes", "api.model.read"))
	g.chat(t, narrow.Value, "sandbox/echo").want(t, "a call with a key that only lists models", http.StatusForbidden)
	printed := g.ok(t, nil, "", "key", "create", "-expires", "60")
	people := made{ID: row(printed, "id"), Value: row(printed, "value"), Name: row(printed, "name")}
	works(people, http.StatusOK)
	if row(printed, "expires_at") == "" {
		t.Errorf("key create -expires 60 printed\n%s", printed)
	}

	for _, k := range []made{live, test, admin, people} {
		works(k, http.StatusOK)
		if out := g.ok(t, nil, "", "key", "revoke", k.ID); row(out, "deleted") != "true" {
			t.Errorf("key revoke printed\n%s", out)
		}
		works(k, http.StatusUnauthorized)
		g.fails(t, nil, "", "404", "key", "revoke", k.ID)
	}

	f := func(message string, args ...string) {
		t.Helper()
		g.fails(t, nil, "", message, append([]string{"key"}, args...)...)
	}
	f("kind", "create", "-kind", "op")
	f("scopes", "create", "-scopes", "api.nothing")
	f("expires_in_seconds", "create", "-expires", "-5")
	f("404", "create", "-project", "proj_none")
	f("404", "revoke", g.Demo.APIKey) // the key is not its id
	f("name", "create", "-name", "")
	other := g.newCompany(t, "Other")
	g.fails(t, []string{"BULKHEAD_API_KEY=" + other.AdminKey}, "", "404", "key", "revoke", keyID(g.Demo.APIKey))
	g.fails(t, []string{"BULKHEAD_API_KEY=" + other.AdminKey}, "", "404", "key", "create", "-project", g.Demo.ProjectID)
	g.fails(t, []string{"BULKHEAD_API_KEY=" + other.APIKey}, "", "403", "key", "create")
	g.fails(t, []string{"BULKHEAD_API_KEY=" + g.Operator}, "", "403", "key", "create")
	g.chat(t, g.Demo.APIKey, "sandbox/echo").want(t, "the key that was not revoked", http.StatusOK)

	// With a second project one must be chosen; revoking finds the key by itself.
	var second struct{ ID string }
	g.call(t, http.MethodPost, g.URL+"/v1/organization/projects", g.Demo.AdminKey, map[string]string{"name": "Second"}, &second)
	f("-project", "create")
	there := create("-project", second.ID)
	works(there, http.StatusOK)
	g.ok(t, nil, "", "key", "revoke", "-json", there.ID)
	works(there, http.StatusUnauthorized)
}

// keyID is the id of a key, which stands in it.
func keyID(key string) string { return "key_" + strings.Split(key, "-")[4] }

// TestCLICredential sets a credential and puts another in its place while a call
// is under way.
func TestCLICredential(t *testing.T) {
	g, up := cliGateway(t)
	set := func(secret string, args ...string) string {
		t.Helper()
		r := g.command(t, nil, secret, append([]string{"credential", "set", "up"}, args...)...)
		if r.code != 0 || r.err != "" || strings.Contains(r.out, strings.TrimSpace(secret)) {
			t.Fatalf("credential set: %+v", r)
		}
		return r.out
	}
	g.chat(t, g.Demo.APIKey, "up/ok").want(t, "before there is a credential", http.StatusNotFound)
	first := set("sk-first-canary-1111\n")
	if row(first, "version") != "1" || row(first, "provider") != "up" || !strings.HasSuffix(row(first, "redacted_value"), "1111") {
		t.Errorf("credential set printed\n%s", first)
	}
	old := make(chan answer, 1)
	go func() {
		a, _ := tryAsk(t.Context(), http.MethodPost, g.URL+"/v1/chat/completions", g.Demo.APIKey, chatBody("up/hold", "Hello"))
		old <- a
	}()
	if err := up.WaitRequests(1, 5*time.Second); err != nil {
		t.Fatal(err)
	}
	type shown struct {
		ID       string
		Version  int
		Redacted string `json:"redacted_value"`
	}
	second := decoded[shown](t, set("  sk-second-canary-2222  ", "-json"))
	if second.ID != row(first, "id") || second.Version != 2 || !strings.HasSuffix(second.Redacted, "2222") {
		t.Errorf("the second credential is %+v, the first\n%s", second, first)
	}
	g.chat(t, g.Demo.APIKey, "up/ok").want(t, "with the second credential", http.StatusOK)
	up.Release()
	if a := <-old; a.status != http.StatusOK {
		t.Errorf("the call under way ended with %d: %s", a.status, a.body)
	}
	all := up.Requests()
	for i, secret := range []string{"sk-first-canary-1111", "sk-second-canary-2222"} {
		if got := all[i].Header.Get("Authorization"); got != "Bearer "+secret {
			t.Errorf("call %d came with %q", i, got)
		}
	}
	g.fails(t, nil, "", "secret", "credential", "set", "up")
	g.fails(t, nil, "", "secret", "credential", "set", "openai", "-keyless") // which takes a key
	// A provider that takes none is sent none.
	if r := g.command(t, nil, "not read", "credential", "set", "up", "-keyless"); r.code != 0 {
		t.Errorf("credential set -keyless: %+v", r)
	}
	g.chat(t, g.Demo.APIKey, "up/ok").want(t, "without a key", http.StatusOK)
	if last, _ := up.Last(); last.Header.Get("Authorization") != "" {
		t.Error("a provider that takes no key was sent one")
	}
	g.fails(t, nil, "x", "no provider", "credential", "set", "nobody")
	g.fails(t, nil, "sk-third", "company_base_urls", "credential", "set", "up", "-base-url", "https://example.com/v1")
	if log := g.log(t); bytes.Contains(log, []byte("canary-1111")) || bytes.Contains(log, []byte("canary-2222")) {
		t.Error("a secret stands in the log")
	}
}
