package test

import (
	"context"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"bulkhead/test/scale"
)

// journalled says that an entry survives the kill of its process: then a kill
// loses no row. Until it does, what a gateway had not yet shipped when it was
// killed is forgiven, and nothing else.
const journalled = true

// ledgerRow is what accounting looks at in a row of the ledger.
type ledgerRow struct {
	company, id, request, outcome string
}

// ledgerRows reads the ledger of all companies, past row-level security.
func (f *fleet) ledgerRows(t *testing.T) (all []ledgerRow) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	conn, err := pgx.Connect(ctx, f.db.AdminURL)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(ctx) }()
	rows, err := conn.Query(ctx, `SELECT company_id, id, request_id, outcome FROM entry`)
	if err != nil {
		t.Fatal(err)
	}
	all, err = pgx.CollectRows(rows, func(r pgx.CollectableRow) (l ledgerRow, err error) {
		return l, r.Scan(&l.company, &l.id, &l.request, &l.outcome)
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

var marker = regexp.MustCompile(`Hello (\[[0-9.]+\])`)

// account stops the fleet and compares three records of what happened: what the
// clients saw, what the provider saw, and the ledger. Each call that was answered
// was sent to the provider once, with a credential of its company, and has one
// row; whatever else was sent has one row, too; no row is of nothing. Calls that
// a kill has cut are named by killed, nil for none; see journalled.
func (f *fleet) account(t *testing.T, s *scale.Run, calls []*sent, killed func(*sent) bool) {
	t.Helper()
	f.stop(t)
	owner := map[string]string{} // company by secret
	for _, m := range f.members {
		for _, secret := range m.secrets {
			owner["Bearer "+secret] = m.ID
		}
	}
	arrived, billed := map[string][]string{}, map[string]int{} // companies by marker, requests by company
	for _, r := range f.up.Requests() {
		of := owner[r.Header.Get("Authorization")]
		if of == "" {
			t.Errorf("the provider was sent a credential that nobody set")
		}
		billed[of]++
		if m := marker.FindSubmatch(r.Body); m != nil {
			arrived[string(m[1])] = append(arrived[string(m[1])], of)
		}
	}
	rows, byRequest := map[string]int{}, map[string][]ledgerRow{}
	for _, r := range f.ledgerRows(t) {
		rows[r.company]++
		byRequest[r.request] = append(byRequest[r.request], r)
	}

	answered, streams := 0, 0
	missing, opened := map[string]int{}, map[string]int{} // by company: rows that may be missing, and that nothing was sent for
	for _, c := range calls {
		// At the provider: never twice, never as another company.
		if at := arrived[c.marker]; len(at) > 1 || len(at) == 0 && c.whole || slices.ContainsFunc(at, func(of string) bool { return of != c.by.ID }) {
			t.Errorf("the provider saw it of %v, want of %s once: %s", at, c.by.ID, c)
		}
		row := byRequest[c.request]
		if c.request == "" {
			row = nil
		}
		if c.by.erased {
			continue // its rows are counted below
		}
		switch {
		case len(row) > 1 || slices.ContainsFunc(row, func(r ledgerRow) bool { return r.company != c.by.ID }):
			t.Errorf("rows %v, want one of %s: %s", row, c.by.ID, c)
		case len(row) == 0 && killed != nil && killed(c):
			if len(arrived[c.marker]) == 0 {
				opened[c.by.ID]++
			} else if !journalled {
				missing[c.by.ID]++
			} else if c.whole {
				t.Errorf("answered and killed, without a row in the ledger: %s", c)
			}
		case len(row) == 0 && c.whole:
			t.Errorf("answered without a row in the ledger: %s", c)
		case c.whole && row[0].outcome != "answered":
			t.Errorf("answered, but the ledger has it as %s: %s", row[0].outcome, c)
		}
		if c.whole {
			answered++
			if c.stream {
				streams++
			}
		}
	}
	lost := 0
	for _, m := range f.members {
		if m.erased {
			if rows[m.ID] != 0 {
				t.Errorf("%s was erased, and the ledger has %d rows of it", m.Name, rows[m.ID])
			}
			continue
		}
		// A call whose client saw no header has no id to find its row by: it
		// counts as missing, and its row may be there.
		if n := billed[m.ID] - rows[m.ID]; n < -opened[m.ID] || n > missing[m.ID] {
			t.Errorf("%s: the provider saw %d requests, the ledger has %d rows, at most %d may be missing", m.Name, billed[m.ID], rows[m.ID], missing[m.ID])
		} else {
			lost += n
		}
	}
	if answered < 50 || streams < 10 || streams == answered {
		t.Errorf("%d calls were answered, %d of them streams: too few to say anything", answered, streams)
	}
	t.Logf("%d calls, %d answered, %d of those streams; %d rows lost", len(calls), answered, streams, lost)
	s.Figure("calls", len(calls))
	s.Figure("answered", answered)
	s.Figure("streams", streams)
	s.Figure("rows_lost", lost)
}

// none fails the test for each call that was not answered in whole, unless it
// is forgiven.
func none(t *testing.T, calls []*sent, forgiven func(*sent) bool) (failed int) {
	t.Helper()
	for _, c := range calls {
		if c.whole {
			continue
		}
		if failed++; forgiven == nil || !forgiven(c) {
			t.Errorf("failed: %s", c)
		}
	}
	return failed
}

// secretSeen reports whether the provider is sent the newest secret of m with a
// call at gateway i.
func (f *fleet) secretSeen(t *testing.T, i int, m *member) bool {
	t.Helper()
	a := f.all[i].chat(t, m.APIKey, "up/whoami")
	return a.status == http.StatusOK && strings.Contains(string(a.body), strconv.Quote(m.secrets[len(m.secrets)-1]))
}
