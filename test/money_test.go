package test

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// decimalOf reads a decimal number without rounding it.
func decimalOf(t *testing.T, text string) *big.Rat {
	t.Helper()
	n, ok := new(big.Rat).SetString(text)
	if !ok {
		t.Fatalf("%q is no number", text)
	}
	return n
}

// shownBudget is a budget as the API shows it.
type shownBudget struct {
	ID, Object, Window, Mode string
	Scope                    struct {
		Type string
		ID   *string
	}
	LimitUSD      string  `json:"limit_usd"`
	SpentUSD      *string `json:"spent_usd"`
	HeldUSD       *string `json:"held_usd"`
	RemainingUSD  *string `json:"remaining_usd"`
	LimitRequests *int64  `json:"limit_requests"`
	SpentRequests *int64  `json:"spent_requests"`
	LimitTokens   *int64  `json:"limit_tokens"`
	SpentTokens   *int64  `json:"spent_tokens"`
	PeriodStart   *int64  `json:"period_start"`
	ResetAt       *int64  `json:"reset_at"`
}

func budgetBody(kind, id, window string, more ...any) map[string]any {
	body := map[string]any{"scope": map[string]any{"type": kind, "id": id}, "window": window}
	for i := 0; i < len(more); i += 2 {
		body[more[i].(string)] = more[i+1]
	}
	return body
}

func TestBudgets(t *testing.T) {
	g := startGateway(t, "")
	c, at := g.Demo, g.URL+"/v1/organization/budgets"
	cost := big.NewRat(0, 1)
	for range 3 {
		a := g.chat(t, c.APIKey, "sandbox/echo").want(t, "a call", http.StatusOK)
		cost.Add(cost, decimalOf(t, a.header.Get("X-Bulkhead-Cost-Usd")))
	}
	// A test key reaches no provider, and costs nothing.
	if a := g.chat(t, c.TestKey, "sandbox/echo").want(t, "a call with a test key", http.StatusOK); a.header.Get("X-Bulkhead-Cost-Usd") != "0" {
		t.Errorf("a call with a test key costs %s", a.header.Get("X-Bulkhead-Cost-Usd"))
	}

	// What was spent before a budget was made is spent of it, whoever it is of.
	put := func(body map[string]any) (b shownBudget) {
		t.Helper()
		g.call(t, http.MethodPost, at, c.AdminKey, body, &b)
		return b
	}
	for _, of := range [][2]string{{"company", ""}, {"project", c.ProjectID}, {"key", keyIDOf(c.APIKey)}} {
		for _, window := range []string{"day", "week", "month", "total"} {
			b := put(budgetBody(of[0], of[1], window, "limit_usd", "12.50"))
			left := new(big.Rat).Sub(big.NewRat(25, 2), cost)
			if b.SpentUSD == nil || decimalOf(t, *b.SpentUSD).Cmp(cost) != 0 || decimalOf(t, *b.RemainingUSD).Cmp(left) != 0 || *b.HeldUSD != "0" || b.LimitUSD != "12.5" {
				t.Errorf("%s per %s: %+v", of[0], window, b)
			}
			if (b.ResetAt == nil) != (window == "total") || (b.PeriodStart == nil) != (window == "total") || b.Mode != "strict" || b.Object != "organization.budget" {
				t.Errorf("%+v", b)
			}
			if b.ResetAt != nil && (*b.ResetAt <= time.Now().Unix() || *b.PeriodStart > time.Now().Unix()) {
				t.Errorf("now is not in the period of %+v", b)
			}
		}
	}
	if b := put(budgetBody("company", "", "day", "limit_requests", 10, "mode", "soft")); *b.SpentRequests != 4 || *b.LimitRequests != 10 || b.SpentUSD != nil || b.Mode != "soft" {
		t.Errorf("%+v", b)
	}
	if b := put(budgetBody("project", c.ProjectID, "day", "limit_tokens", 1000)); *b.SpentTokens <= 0 || *b.LimitTokens != 1000 {
		t.Errorf("%+v", b)
	}
	// The same window of the same owner is the same budget.
	one, two := put(budgetBody("company", "", "total", "limit_usd", "1")), put(budgetBody("company", "", "total", "limit_usd", "2"))
	if one.ID != two.ID || two.LimitUSD != "2" {
		t.Errorf("%+v, then %+v", one, two)
	}
	// A user has the id that stands for the name, and may be given by it.
	alice := put(budgetBody("user", "alice", "day", "limit_usd", "1"))
	again := put(budgetBody("user", *alice.Scope.ID, "day", "limit_usd", "3"))
	each := put(budgetBody("user", "*", "day", "limit_usd", "1"))
	if alice.ID != again.ID || strings.Contains(*alice.Scope.ID, "alice") || *each.Scope.ID != "*" || each.SpentUSD != nil || each.ResetAt == nil {
		t.Errorf("%+v, %+v, %+v", alice, again, each)
	}
	testBudgetChanges(t, g, two)
	testBadBudgets(t, g, keyIDOf(c.APIKey))
}

func testBudgetChanges(t *testing.T, g *gateway, b shownBudget) {
	t.Helper()
	c, at := g.Demo, g.URL+"/v1/organization/budgets"
	var list struct {
		Data    []shownBudget
		HasMore bool   `json:"has_more"`
		LastID  string `json:"last_id"`
	}
	var ids []string
	for after := ""; ; {
		g.call(t, http.MethodGet, at+"?limit=5&order=asc"+after, c.AdminKey, nil, &list)
		for _, b := range list.Data {
			ids = append(ids, b.ID)
		}
		if !list.HasMore {
			break
		}
		after = "&after=" + list.LastID
	}
	if len(ids) != 16 || !slices.Contains(ids, b.ID) {
		t.Errorf("listed %q", ids)
	}
	g.call(t, http.MethodPost, at+"/"+b.ID, c.AdminKey, map[string]any{"limit_usd": "5.000000001", "mode": "soft"}, &b)
	if b.LimitUSD != "5.000000001" || b.Mode != "soft" {
		t.Errorf("%+v", b)
	}
	var got shownBudget
	g.call(t, http.MethodGet, at+"/"+b.ID, c.AdminKey, nil, &got)
	if got.LimitUSD != b.LimitUSD || got.ID != b.ID {
		t.Errorf("%+v", got)
	}
	g.call(t, http.MethodDelete, at+"/"+b.ID, c.AdminKey, nil, nil)
	for _, method := range []string{http.MethodGet, http.MethodDelete, http.MethodPost} {
		ask(t, method, at+"/"+b.ID, c.AdminKey, map[string]any{"limit_usd": "1"}).want(t, method+" of what was deleted", http.StatusNotFound)
	}
	// Each act is in the log.
	var log struct{ Data []struct{ Type string } }
	g.call(t, http.MethodGet, g.URL+"/v1/organization/audit_logs?limit=100&resource_ids[]="+b.ID, c.AdminKey, nil, &log)
	var types []string
	for _, e := range log.Data {
		types = append(types, e.Type)
	}
	if want := []string{"budget.deleted", "budget.updated", "budget.updated", "budget.updated", "budget.created"}; !slices.Equal(types, want) {
		t.Errorf("the log has %q", types)
	}
}

func testBadBudgets(t *testing.T, g *gateway, key string) {
	t.Helper()
	c := g.Demo
	var other company
	g.call(t, http.MethodPost, g.OpsURL+"/admin/companies", g.Operator, map[string]string{"name": "Other"}, &other)
	f := func(param string, body map[string]any) string {
		t.Helper()
		a := ask(t, http.MethodPost, g.URL+"/v1/organization/budgets", c.AdminKey, body).want(t, fmt.Sprint(body), http.StatusBadRequest)
		var e struct{ Error struct{ Param string } }
		if err := json.Unmarshal(a.body, &e); err != nil || e.Error.Param != param {
			t.Errorf("%v: %s, want an error about %s", body, a.body, param)
		}
		return string(a.body)
	}
	for _, kind := range []string{"project", "key", "agent"} { // foreign ids and those that never were are alike
		foreign := map[string]string{"project": other.ProjectID, "key": "key_000000000000", "agent": "agent_1"}[kind]
		if one, two := f("scope.id", budgetBody(kind, foreign, "day", "limit_usd", "1")), f("scope.id", budgetBody(kind, likeness(foreign), "day", "limit_usd", "1")); one != two {
			t.Errorf("told apart:\n%s\n%s", one, two)
		}
	}
	var admin struct{ Data []struct{ ID string } }
	g.call(t, http.MethodGet, g.URL+"/v1/organization/admin_api_keys", c.AdminKey, nil, &admin)
	f("scope.id", budgetBody("key", admin.Data[0].ID, "day", "limit_usd", "1"))
	f("scope.id", budgetBody("company", c.ID, "day", "limit_usd", "1"))
	f("scope.id", budgetBody("user", "", "day", "limit_usd", "1"))
	f("scope.id", budgetBody("user", strings.Repeat("x", 300), "day", "limit_usd", "1"))
	f("scope.type", budgetBody("ceiling", "", "day", "limit_usd", "1"))
	f("scope.type", budgetBody("", "", "day", "limit_usd", "1"))
	f("scope", map[string]any{"window": "day", "limit_usd": "1"})
	f("window", budgetBody("company", "", "year", "limit_usd", "1"))
	f("window", map[string]any{"scope": map[string]any{"type": "company"}, "limit_usd": "1"})
	f("limit_usd", budgetBody("company", "", "day"))
	f("limit_usd", budgetBody("company", "", "day", "limit_usd", "1", "limit_tokens", 5))
	for _, bad := range []any{"", "-1", "1e3", "9000000.000000001", "1.0000000001", "NaN", "1,5", " 1", 12.5} {
		f("limit_usd", budgetBody("company", "", "day", "limit_usd", bad))
	}
	f("limit_requests", budgetBody("company", "", "day", "limit_requests", -1))
	f("limit_tokens", budgetBody("company", "", "day", "limit_tokens", "5"))
	f("limit_tokens", budgetBody("company", "", "day", "limit_tokens", 1<<50))
	f("mode", budgetBody("company", "", "day", "limit_usd", "1", "mode", "lax"))
	f("limit_eur", budgetBody("company", "", "day", "limit_eur", "1"))
	// As many as there may be of one owner.
	for i, window := range []string{"week", "month"} {
		g.call(t, http.MethodPost, g.URL+"/v1/organization/budgets", c.AdminKey, budgetBody("key", key, window, "limit_tokens", 1000+i), nil)
	}
	f("scope", budgetBody("key", key, "day", "limit_tokens", 1))
}

// TestBudgetCalendar changes the time zone once, and not again while periods run.
func TestBudgetCalendar(t *testing.T) {
	g := startGateway(t, "")
	at := g.URL + "/v1/organization/budgets/calendar"
	var cal struct {
		Zone    string `json:"time_zone"`
		Changed *int64 `json:"changed_at"`
		Periods map[string]struct {
			Start int64 `json:"period_start"`
			Reset int64 `json:"reset_at"`
		}
	}
	g.call(t, http.MethodGet, at, g.Demo.AdminKey, nil, &cal)
	if cal.Zone != "UTC" || cal.Changed != nil || len(cal.Periods) != 3 {
		t.Errorf("%+v", cal)
	}
	before := cal.Periods["day"]
	g.call(t, http.MethodPost, at, g.Demo.AdminKey, map[string]any{"time_zone": "UTC"}, &cal)
	g.call(t, http.MethodPost, at, g.Demo.AdminKey, map[string]any{"time_zone": "Asia/Tokyo"}, &cal)
	if cal.Zone != "Asia/Tokyo" || cal.Changed == nil || cal.Periods["day"] != before {
		t.Errorf("%+v, before %+v", cal, before)
	}
	for _, bad := range []string{"", "Local", "Mars/Olympus", "../../etc/passwd", "UTC\x00", strings.Repeat("x", 100)} {
		ask(t, http.MethodPost, at, g.Demo.AdminKey, map[string]any{"time_zone": bad}).want(t, bad, http.StatusBadRequest)
	}
	a := ask(t, http.MethodPost, at, g.Demo.AdminKey, map[string]any{"time_zone": "Europe/Berlin"}).want(t, "a second change", http.StatusConflict)
	_, message := a.fault()
	i := strings.Index(message, "from ")
	if i < 0 {
		t.Fatalf("it is not said when: %s", message)
	}
	when, err := time.Parse(time.RFC3339, strings.Fields(message[i+len("from "):])[0])
	if err != nil || !when.After(time.Now()) || when.After(time.Now().Add(63*24*time.Hour)) {
		t.Errorf("possible again at %s: %v", when, err)
	}
}

// TestCeiling: the operator has one bound for what a company spends of lent
// credentials; the company neither sees nor touches it.
func TestCeiling(t *testing.T) {
	g := startGateway(t, "")
	c, at := g.Demo, g.OpsURL+"/admin/companies/"+g.Demo.ID+"/ceiling"
	ask(t, http.MethodGet, at, g.Operator, nil).want(t, "no ceiling", http.StatusNotFound)
	var b shownBudget
	g.call(t, http.MethodPut, at, g.Operator, map[string]any{"window": "month", "limit_usd": "5"}, &b)
	g.call(t, http.MethodPut, at, g.Operator, map[string]any{"window": "week", "limit_usd": "6.5"}, &b)
	g.call(t, http.MethodGet, at, g.Operator, nil, &b)
	if b.Window != "week" || b.LimitUSD != "6.5" || *b.SpentUSD != "0" || b.Object != "company.ceiling" {
		t.Errorf("%+v", b)
	}
	if a := ask(t, http.MethodGet, g.URL+"/v1/organization/budgets", c.AdminKey, nil); !bytes.Contains(a.body, []byte(`"data":[]`)) {
		t.Errorf("the company sees %s", a.body)
	}
	ask(t, http.MethodDelete, g.URL+"/v1/organization/budgets/"+b.ID, c.AdminKey, nil).want(t, "the company deletes it", http.StatusNotFound)
	for _, bad := range []map[string]any{{}, {"window": "month"}, {"limit_usd": "1"}, {"window": "month", "limit_usd": "x"}, {"window": "month", "limit_usd": "1", "mode": "soft"}} {
		ask(t, http.MethodPut, at, g.Operator, bad).want(t, fmt.Sprint(bad), http.StatusBadRequest)
	}
	for range 2 {
		g.call(t, http.MethodDelete, at, g.Operator, nil, nil)
	}
	ask(t, http.MethodGet, at, g.Operator, nil).want(t, "deleted", http.StatusNotFound)
	ask(t, http.MethodPut, g.OpsURL+"/admin/companies/org-0000000000/ceiling", g.Operator, map[string]any{"window": "month", "limit_usd": "5"}).want(t, "nobody's", http.StatusNotFound)
}

// TestLedgerExport holds what is exported against what the calls said they cost,
// and against usage and costs.
func TestLedgerExport(t *testing.T) {
	g := prepare(t, "")
	p := g.serve(t)
	c, at := g.Demo, g.URL+"/v1/organization/ledger/export"
	cost := big.NewRat(0, 1)
	const calls = 1100 // more than two pages
	for i := range calls {
		a := ask(t, http.MethodPost, g.URL+"/v1/chat/completions", c.APIKey, chatBody("sandbox/echo", strings.Repeat("word ", 1+i%50))).want(t, "a call", http.StatusOK)
		cost.Add(cost, decimalOf(t, a.header.Get("X-Bulkhead-Cost-Usd")))
	}
	lines := func(query string) [][]byte {
		t.Helper()
		a := ask(t, http.MethodGet, at+query, c.AdminKey, nil).want(t, query, http.StatusOK)
		return bytes.SplitAfter(bytes.TrimSuffix(a.body, []byte("\n")), []byte("\n"))
	}
	eventually(t, 20*time.Second, "the ledger is written", func() bool { return len(lines("?format=jsonl")) == calls })
	sum, seen, before := big.NewRat(0, 1), map[string]bool{}, ""
	for _, line := range lines("?format=jsonl") {
		var e struct {
			ID        string
			StartedAt string `json:"started_at"`
			Cost      string `json:"cost_usd"`
			Rank      string
		}
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatalf("%s: %s", line, err)
		}
		sum.Add(sum, decimalOf(t, e.Cost))
		if seen[e.ID] || e.ID < before || e.Rank != "final" {
			t.Fatalf("%s", line)
		}
		seen[e.ID], before = true, e.ID
	}
	if sum.Cmp(cost) != 0 || len(seen) != calls {
		t.Errorf("%d entries cost %s, the calls said %s", len(seen), sum.FloatString(9), cost.FloatString(9))
	}
	a := ask(t, http.MethodGet, g.URL+"/v1/organization/costs"+usageSpan, c.AdminKey, nil).want(t, "costs", http.StatusOK)
	if want := `"value":` + strings.TrimRight(cost.FloatString(9), "0"); !bytes.Contains(a.body, []byte(want+",")) {
		t.Errorf("costs are %s, want %s", a.body, want)
	}
	a = ask(t, http.MethodGet, g.URL+"/v1/organization/usage/completions"+usageSpan, c.AdminKey, nil).want(t, "usage", http.StatusOK)
	if !bytes.Contains(a.body, fmt.Appendf(nil, `"num_model_requests":%d,`, calls)) {
		t.Errorf("usage is %s", a.body)
	}

	// The table, from the command line: into a file, and of no time.
	file := filepath.Join(t.TempDir(), "ledger.csv")
	g.run(t, "", "ledger", "export", "-out", file, "-start", "2020-01-01")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(bytes.NewReader(text)).ReadAll()
	if err != nil || len(rows) != calls+1 || rows[0][0] != "id" {
		t.Errorf("%d rows: %v", len(rows), err)
	}
	if out := g.run(t, "", "ledger", "export", "-end", "2020-01-01T00:00:00Z"); !bytes.HasPrefix(out, []byte("id,started_at,")) || bytes.Count(out, []byte("\n")) != 1 {
		t.Errorf("printed %s", out)
	}
	for _, bad := range []string{"?format=xml", "?start_time=x", "?start_time=10&end_time=5"} {
		ask(t, http.MethodGet, at+bad, c.AdminKey, nil).want(t, bad, http.StatusBadRequest)
	}
	ask(t, http.MethodGet, at, c.TestKey, nil).want(t, "a project's key", http.StatusForbidden)

	// That it was read is in the company's log.
	p.stop(t)
	g.serve(t)
	if a := ask(t, http.MethodGet, g.URL+"/v1/organization/audit_logs?event_types[]=content.read", c.AdminKey, nil); !bytes.Contains(a.body, []byte(`"id":"ledger"`)) {
		t.Errorf("the log has %s", a.body)
	}
}
