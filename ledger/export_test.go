package ledger

import (
	"encoding/csv"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"bulkhead/openai"
)

func TestExport(t *testing.T) {
	at := time.Date(2026, 11, 22, 12, 0, 0, 1000, time.FixedZone("", 3600))
	e := Entry{ID: "att_1", Kind: "chat", Provider: "up", Model: "=cmd|'/c calc'!A1", Requested: "a,\"b\"\nc", Outcome: Answered, Rank: Estimate, Status: 200,
		First: true, Usage: openai.Usage{Input: 7, CachedInput: 3, Output: 5}, Priced: true, CostNano: 1_500_000_001, LowNano: 1, HighNano: 2_000_000_000,
		StartedAt: at, EndedAt: at.Add(time.Second)}
	text := string(AppendCSV(AppendCSVHeader(nil), &e))
	rows, err := csv.NewReader(strings.NewReader(text)).ReadAll()
	if err != nil || len(rows) != 2 || len(rows[0]) != len(rows[1]) {
		t.Fatalf("%v in\n%s", err, text)
	}
	var object map[string]any
	line := AppendJSON([]byte("before\n"), &e)
	if err := json.Unmarshal(line[len("before\n"):], &object); err != nil || line[len(line)-1] != '\n' || len(object) != len(rows[0]) {
		t.Fatalf("%v in %s", err, line)
	}
	got := map[string]string{}
	for i, name := range rows[0] {
		got[name] = rows[1][i]
		if _, ok := object[name]; !ok {
			t.Errorf("no %s in JSON", name)
		}
	}
	f := func(name, want string) {
		t.Helper()
		if got[name] != want {
			t.Errorf("%s is %q, want %q", name, got[name], want)
		}
	}
	f("model", "'=cmd|'/c calc'!A1")
	f("requested_model", "a,\"b\"\nc")
	f("started_at", "2026-11-22T11:00:00.000001Z")
	f("cost_usd", "1.500000001")
	f("cost_low_usd", "0.000000001")
	f("rank", "estimate")
	f("input_cached_tokens", "3")
	f("first_attempt", "true")
	if object["cost_usd"] != "1.500000001" || object["model"] != e.Model {
		t.Errorf("%v", object)
	}
	// What a lent credential has cached is not told.
	e.Lent = true
	if text := string(AppendJSON(nil, &e)); !strings.Contains(text, `"input_cached_tokens":0`) {
		t.Error(text)
	}
}

// No cell begins with what a spreadsheet computes.
func TestPlainText(t *testing.T) {
	f := func(s string, want bool) {
		t.Helper()
		if got := strings.HasPrefix(plainText(s), "'"); got != want || strings.TrimPrefix(plainText(s), "'") != s {
			t.Errorf("%q becomes %q", s, plainText(s))
		}
	}
	for _, s := range []string{"=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", " =1", "  @x", "\u00a0=1", "＝1", "|x", "%0"} {
		f(s, true)
	}
	for _, s := range []string{"", "gpt-4o", "a=b", "openai/gpt", "é"} {
		f(s, false)
	}
}
