package test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"bulkhead/store/pgtest"
	"bulkhead/test/scale"
)

// keptOfErased are the rows that may name a company that was erased, at most so
// many of each table: the tombstone, that its policy changed, and what operators
// did.
var keptOfErased = map[string]int{"company": 1, "change": 1, "operator_act": 1 << 30}

// rowsOf counts the rows of a company in every table that has a column for it,
// and fails the test for those that must not be there.
func (f *fleet) rowsOf(t *testing.T, m *member, when string) {
	t.Helper()
	conn := pgtest.As(t, f.db.AdminURL)
	found, err := conn.Query(t.Context(), `SELECT c.table_name FROM information_schema.columns c
		JOIN information_schema.tables t ON t.table_schema = c.table_schema AND t.table_name = c.table_name
		WHERE c.table_schema = 'public' AND c.column_name = 'company_id' AND t.table_type = 'BASE TABLE'`)
	if err != nil {
		t.Fatal(err)
	}
	tables, err := pgx.CollectRows(found, pgx.RowTo[string])
	if err != nil || len(tables) < 10 {
		t.Fatalf("only the tables %v have a company: %v", tables, err)
	}
	for _, table := range tables {
		var n int
		if err := conn.QueryRow(t.Context(), fmt.Sprintf(`SELECT count(*) FROM %q WHERE company_id = $1`, table), m.ID).Scan(&n); err != nil {
			t.Fatal(err)
		}
		if n > keptOfErased[table] {
			t.Errorf("%s: table %s has %d rows of the company", when, table, n)
		}
	}
	var status, name string
	if err := conn.QueryRow(t.Context(), `SELECT status, name FROM company WHERE company_id = $1`, m.ID).Scan(&status, &name); err != nil {
		t.Fatal(err)
	}
	if status != "erased" || name != "" {
		t.Errorf("%s: the tombstone is of a company %q, %s", when, name, status)
	}
}

// TestEraseEverywhere erases a company whose calls and streams run at three
// gateways, one of which hears of nothing until it is over. (DESIGN section 4.16.)
// Streams end, no row of the company is left or comes late, and nobody else
// notices.
func TestEraseEverywhere(t *testing.T) {
	s := scale.Of(t)
	rounds := scale.Pick(s, 1, 15)
	f := newFleet(t, s, fleetOptions{companies: 3 + rounds})
	tr := f.traffic(t, s, f.members...)
	const late = 2 // sleeps while the company is erased
	for _, m := range f.members[3:] {
		tr.flows(t, 100)
		var streams []io.ReadCloser
		for _, g := range f.all {
			streams = append(streams, g.openStream(t, m.APIKey, "up/never-ending"))
		}
		f.runs[late].signal(t, syscall.SIGSTOP)
		// Where calls are still ending, the company is fenced and the answer says
		// that it must be asked again. The sleeper may hold a lock for a while.
		began := time.Now()
		eventually(t, 30*time.Second, "the company is erased", func() bool {
			a := ask(t, http.MethodPost, f.all[0].OpsURL+"/admin/companies/"+m.ID+"/erase", f.all[0].Operator, map[string]any{})
			if a.status != http.StatusOK && a.status != http.StatusServiceUnavailable {
				t.Fatalf("the erasure was answered with %d: %s", a.status, a.body)
			}
			return a.status == http.StatusOK
		})
		s.Figure("erased_after", time.Since(began))
		m.erased = true
		f.rowsOf(t, m, "with the others' calls still ending")
		gone := func(i int) {
			t.Helper()
			since := time.Now()
			text, err := io.ReadAll(streams[i])
			if err == nil || strings.Contains(string(text), "[DONE]") || !strings.Contains(string(text), "call_ended") {
				t.Errorf("the stream at gateway %d ended as a whole one: %v", i, err)
			}
			if took := time.Since(since); took > everywhere {
				t.Errorf("the stream at gateway %d ended after %s", i, took)
			}
			eventually(t, everywhere, "the company's key is unknown", func() bool {
				a := f.all[i].chat(t, m.APIKey, "up/ok")
				if a.status != http.StatusUnauthorized && a.status != http.StatusForbidden { // suspended, before it is erased
					t.Errorf("the company's key: %d %s", a.status, a.body)
				}
				return a.status == http.StatusUnauthorized
			})
			eventually(t, everywhere, "no metric names the company", func() bool {
				return !strings.Contains(string(ask(t, http.MethodGet, f.all[i].OpsURL+"/metrics", "", nil).body), m.ID)
			})
		}
		for _, i := range f.others(late) {
			gone(i)
		}
		f.runs[late].signal(t, syscall.SIGCONT)
		gone(late)
		tr.flows(t, 50)
		f.rowsOf(t, m, "a while after")
	}
	calls := tr.stop()
	none(t, calls, func(c *sent) bool { return c.by.erased })
	f.account(t, s, calls, nil)
	for _, m := range f.members[3:] {
		f.rowsOf(t, m, "after all gateways have ended")
	}
}
