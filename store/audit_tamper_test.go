package store_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"bulkhead/audit"
	"bulkhead/store"
	"bulkhead/store/pgtest"
	"bulkhead/store/storetest"
	"bulkhead/tenant"
)

// tampered is a store with one company, acme, whose chain has ten rows, and a
// way to write to the database past it.
type tampered struct {
	*store.DB
	scope tenant.Scope
	exec  func(statements ...string) // $C is the company's id
}

// The triggers that stand in the way, which who owns the tables can take off.
var guarded = []string{"audit", "audit_link", "audit_head", "operator_act", "act_link", "act_head"}

func tamperSQLite(t *testing.T) *tampered {
	t.Helper()
	db := openSQLite(t, func(string) {})
	w := &tampered{DB: db, scope: company(t, db, "acme")}
	w.exec = func(statements ...string) {
		t.Helper()
		for _, text := range statements {
			store.Tamper(t, db, strings.ReplaceAll(text, "$C", w.scope.ID().String()))
		}
	}
	// SQLite cannot switch triggers off; they are dropped.
	for _, table := range guarded {
		for _, what := range []string{"_is_not_changed", "_is_not_deleted", "_goes_forward"} {
			w.exec("DROP TRIGGER IF EXISTS " + table + what)
		}
	}
	w.fill(t)
	return w
}

func tamperPostgres(t *testing.T) *tampered {
	t.Helper()
	d := migrated(t)
	db := open(t, options(d))
	w := &tampered{DB: db, scope: company(t, db, "acme")}
	owner := pgtest.As(t, d.OwnerURL) // held by row-level security, so it says whose rows it means
	w.exec = func(statements ...string) {
		t.Helper()
		for _, text := range statements {
			if _, err := owner.Exec(t.Context(), strings.ReplaceAll(text, "$C", w.scope.ID().String())); err != nil {
				t.Fatalf("%s: %s", text, err)
			}
		}
	}
	w.exec("SELECT set_config('app.current_company_id', '$C', false)")
	for _, table := range guarded {
		w.exec("ALTER TABLE " + table + " DISABLE TRIGGER USER")
	}
	w.fill(t)
	return w
}

// fill makes the company's chain ten rows long.
func (w *tampered) fill(t *testing.T) {
	t.Helper()
	for i := range 10 - 3 { // three are of the company's creation
		if err := w.CreateProject(t.Context(), w.scope, tenant.Project{ID: fmt.Sprint("p", i), Name: "p"}); err != nil {
			t.Fatal(err)
		}
	}
	if found := w.verify(t, nil); found != "" {
		t.Fatalf("before anything was done: %s", found)
	}
}

// verify returns what the check of the company's chain finds.
func (w *tampered) verify(t *testing.T, anchor *audit.Head) string {
	t.Helper()
	r, err := w.VerifyAudit(t.Context(), w.scope, anchor)
	if err != nil {
		t.Fatal(err)
	}
	if r.Chain != w.scope.ID().String() {
		t.Errorf("the report is on chain %q", r.Chain)
	}
	return text(r)
}

func (w *tampered) verifyActs(t *testing.T) string {
	t.Helper()
	r, err := w.VerifyActs(t.Context(), nil, func(*audit.Event) {})
	if err != nil {
		t.Fatal(err)
	}
	return text(r)
}

func text(r audit.Report) string {
	var out []string
	for _, f := range r.Findings {
		one := fmt.Sprint(f.Kind, " ", f.Sequence)
		if f.To > 0 {
			one += fmt.Sprint("-", f.To)
		}
		out = append(out, one)
	}
	return strings.Join(out, ", ")
}

// Rows of the chain, by where they stand in it.
const (
	rowAt  = `company_id = '$C' AND id = (SELECT id FROM audit_link WHERE company_id = '$C' AND seq = %d)`
	linkAt = `company_id = '$C' AND seq = %d`
)

func at(n int, text, where string) string { return text + " WHERE " + fmt.Sprintf(where, n) }

// TestTampering does to real rows what somebody might who owns the database and
// has not the master key.
func TestTampering(t *testing.T) {
	t.Run("SQLite", func(t *testing.T) { testTampering(t, tamperSQLite) })
	t.Run("Postgres", func(t *testing.T) { testTampering(t, tamperPostgres) })
}

func testTampering(t *testing.T, open func(t *testing.T) *tampered) {
	f := func(want string, statements ...string) {
		t.Helper()
		w := open(t)
		w.exec(statements...)
		if got := w.verify(t, nil); got != want {
			t.Errorf("%s: found %q, want %q", strings.Join(statements, "; "), got, want)
		}
		// What is wrong with a chain is not made right by going on, and nothing is
		// added behind a head that is not a gateway's.
		err := w.CreateProject(t.Context(), w.scope, tenant.Project{ID: "after", Name: "after"})
		if (err != nil) != strings.Contains(want, "head") {
			t.Errorf("%s: a change afterwards: %v", strings.Join(statements, "; "), err)
		}
		want = strings.Replace(want, "cut", "missing", 1) // something stands behind it now
		if got := w.verify(t, nil); got != want {
			t.Errorf("%s: found %q after one more row, want %q", strings.Join(statements, "; "), got, want)
		}
		if found := w.verifyActs(t); found != "" {
			t.Errorf("in the acts of operators: %s", found)
		}
	}
	for _, set := range []string{"created_at = created_at + 1", "type = 'x'", "actor = 'x'", "project_id = 'x'", "object = 'x'", "count = 2", "detail = '{}'"} {
		f("changed 5", at(5, "UPDATE audit SET "+set, rowAt))
	}
	f("changed 5, changed 6", at(5, "UPDATE audit_link SET hash = (SELECT hash FROM audit_link WHERE company_id = '$C' AND seq = 1)", linkAt))
	f("missing 5", at(5, "DELETE FROM audit", rowAt))
	f("missing 5", at(5, "DELETE FROM audit", rowAt), at(5, "DELETE FROM audit_link", linkAt))
	f("missing 5, inserted 4", at(5, "DELETE FROM audit_link", linkAt))
	f("missing 1-3",
		"DELETE FROM audit WHERE company_id = '$C' AND id IN (SELECT id FROM audit_link WHERE company_id = '$C' AND seq <= 3)",
		"DELETE FROM audit_link WHERE company_id = '$C' AND seq <= 3")
	const row = `INSERT INTO audit (company_id, id, created_at, type, actor, project_id, object)
		SELECT company_id, 'new', created_at, type, actor, project_id, object FROM audit`
	const link = `INSERT INTO audit_link (company_id, seq, id, hash)
		SELECT company_id, 11, 'new', hash FROM audit_link`
	w := open(t) // in the order of time, an inserted row stands behind the one it copies or the one before
	w.exec(at(5, row, rowAt))
	if got := w.verify(t, nil); got != "inserted 4" && got != "inserted 5" {
		t.Errorf("an inserted row: found %q", got)
	}
	w = open(t)
	w.exec(at(10, row, rowAt), at(10, link, linkAt))
	if got := w.verify(t, nil); got != "changed 11, inserted 11" {
		t.Errorf("an inserted row with a link: found %q", got)
	}
	w.exec(at(11, "UPDATE audit_head SET count = 11, hash = (SELECT hash FROM audit_link WHERE company_id = '$C' AND seq = 11)", `company_id = '$C' AND %d = 11`))
	if got := w.verify(t, nil); got != "changed 11, head 11" {
		t.Errorf("an inserted row with a link and a head: found %q", got)
	}
	f("changed 5, changed 6", // two rows change places
		at(5, "UPDATE audit_link SET id = 'hold'", linkAt),
		"UPDATE audit_link SET id = (SELECT a.id FROM audit AS a LEFT JOIN audit_link AS l ON l.id = a.id WHERE l.id IS NULL) WHERE company_id = '$C' AND seq = 11",
		"CREATE TABLE held AS SELECT id FROM audit_link WHERE seq = 6",
		"UPDATE audit_link SET id = (SELECT a.id FROM audit AS a LEFT JOIN audit_link AS l ON l.id = a.id WHERE l.id IS NULL) WHERE company_id = '$C' AND seq = 6",
		"UPDATE audit_link SET id = (SELECT id FROM held) WHERE company_id = '$C' AND seq = 5",
		"DROP TABLE held")
	f("cut 9-10",
		"DELETE FROM audit WHERE company_id = '$C' AND id IN (SELECT id FROM audit_link WHERE company_id = '$C' AND seq > 8)",
		"DELETE FROM audit_link WHERE company_id = '$C' AND seq > 8")
	f("head 8",
		"DELETE FROM audit WHERE company_id = '$C' AND id IN (SELECT id FROM audit_link WHERE company_id = '$C' AND seq > 8)",
		"DELETE FROM audit_link WHERE company_id = '$C' AND seq > 8",
		"UPDATE audit_head SET count = 8, hash = (SELECT hash FROM audit_link WHERE company_id = '$C' AND seq = 8) WHERE company_id = '$C'")
	f("head 10", "UPDATE audit_head SET seal = hash WHERE company_id = '$C'")
	testRestart(t, open)
	testOldHead(t, open)
	testTamperedActs(t, open)
}

// testRestart takes a chain away whole. The gateway begins it anew, and the acts
// of operators tell.
func testRestart(t *testing.T, open func(t *testing.T) *tampered) {
	t.Helper()
	w := open(t)
	w.exec("DELETE FROM audit_head WHERE company_id = '$C'")
	if got := w.verify(t, nil); got != "head 10" {
		t.Errorf("without a head: found %q", got)
	}
	w.exec("DELETE FROM audit_link WHERE company_id = '$C'", "UPDATE audit SET actor = 'x' WHERE company_id = '$C'")
	if got := w.verify(t, nil); !strings.HasPrefix(got, "inserted 0") {
		t.Errorf("without a chain: found %q", got)
	}
	if err := w.CreateProject(t.Context(), w.scope, tenant.Project{ID: "after", Name: "after"}); err != nil {
		t.Fatal(err)
	}
	roll := audit.NewRoll()
	if _, err := w.VerifyActs(t.Context(), nil, roll.Act); err != nil {
		t.Fatal(err)
	}
	r := audit.Report{Chain: w.scope.ID().String()}
	roll.Company(&r, false)
	if got := text(r); got != "restarted 0" {
		t.Errorf("begun anew: found %q", got)
	}
}

// testOldHead cuts the end and puts back a head that a gateway has sealed once.
// By itself the database is whole; what was kept elsewhere tells.
func testOldHead(t *testing.T, open func(t *testing.T) *tampered) {
	t.Helper()
	w := open(t)
	w.exec("CREATE TABLE kept AS SELECT count, hash, seal FROM audit_head WHERE company_id = '$C'")
	if err := w.CreateProject(t.Context(), w.scope, tenant.Project{ID: "hidden", Name: "hidden"}); err != nil {
		t.Fatal(err)
	}
	r, err := w.VerifyAudit(t.Context(), w.scope, nil)
	if err != nil {
		t.Fatal(err)
	}
	anchor, err := audit.ParseHead(fmt.Sprint(r.Count, ":", r.Head))
	if err != nil {
		t.Fatal(err)
	}
	w.exec("DELETE FROM audit WHERE company_id = '$C' AND id IN (SELECT id FROM audit_link WHERE company_id = '$C' AND seq = 11)",
		"DELETE FROM audit_link WHERE company_id = '$C' AND seq = 11",
		"UPDATE audit_head SET count = (SELECT count FROM kept), hash = (SELECT hash FROM kept), seal = (SELECT seal FROM kept) WHERE company_id = '$C'")
	if got := w.verify(t, nil); got != "" {
		t.Errorf("an old head was told by itself: %s", got)
	}
	if got := w.verify(t, &anchor); got != "anchor 11" {
		t.Errorf("with the anchor: found %q", got)
	}
	// Written anew from there, it is still another chain.
	if err := w.CreateProject(t.Context(), w.scope, tenant.Project{ID: "instead", Name: "instead"}); err != nil {
		t.Fatal(err)
	}
	if got := w.verify(t, &anchor); got != "anchor 11" {
		t.Errorf("written anew, with the anchor: found %q", got)
	}
}

// testTamperedActs does the same to the acts of operators: two with the
// company, here.
func testTamperedActs(t *testing.T, open func(t *testing.T) *tampered) {
	t.Helper()
	f := func(want string, statements ...string) {
		t.Helper()
		w := open(t)
		for range 3 {
			if err := w.RecordAct(t.Context(), "operator:x", "company.list", ""); err != nil {
				t.Fatal(err)
			}
		}
		w.exec(statements...)
		if got := w.verifyActs(t); got != want {
			t.Errorf("%s: found %q, want %q", strings.Join(statements, "; "), got, want)
		}
		// An act that cannot be added to a chain that is broken does not happen.
		err := w.RecordAct(t.Context(), "operator:x", "company.list", "")
		if (err != nil) != strings.Contains(want, "head") {
			t.Errorf("%s: an act afterwards: %v", strings.Join(statements, "; "), err)
		}
	}
	const act = "WHERE id = (SELECT id FROM act_link WHERE seq = 3)"
	f("")
	f("changed 3", "UPDATE operator_act SET actor = 'x' "+act)
	f("changed 3", "UPDATE operator_act SET action = 'x' "+act)
	f("changed 3", "UPDATE operator_act SET company = 'x' "+act)
	f("changed 3", "UPDATE operator_act SET at = at - 1 "+act)
	f("missing 3", "DELETE FROM operator_act "+act)
	f("missing 3", "DELETE FROM operator_act "+act, "DELETE FROM act_link WHERE seq = 3")
	f("inserted 5", "INSERT INTO operator_act (id, at, actor, action, company) VALUES ('new', 9000000000000000, 'operator:x', 'x', '')")
	f("cut 5", "DELETE FROM operator_act WHERE id = (SELECT id FROM act_link WHERE seq = 5)", "DELETE FROM act_link WHERE seq = 5")
	f("head 4", "DELETE FROM operator_act WHERE id = (SELECT id FROM act_link WHERE seq = 5)", "DELETE FROM act_link WHERE seq = 5",
		"UPDATE act_head SET count = 4, hash = (SELECT hash FROM act_link WHERE seq = 4)")
}

// TestChainsBegin takes the chains away that the migration before knew nothing
// of, as a database is that was migrated from there: they begin with the rows
// there are, once.
func TestChainsBegin(t *testing.T) {
	f := func(t *testing.T, w *tampered) {
		w.exec("DELETE FROM audit_link WHERE company_id = '$C'", "DELETE FROM audit_head WHERE company_id = '$C'",
			"DELETE FROM act_link", "DELETE FROM act_head", "DELETE FROM operator_act WHERE action = 'audit.begin'")
		ctx := t.Context()
		if done, err := w.ChainsBegun(ctx); err != nil || done {
			t.Fatalf("begun: %v, %v", done, err)
		}
		for range 2 {
			if err := w.BeginChains(ctx, act(t, w.DB)); err != nil {
				t.Fatal(err)
			}
		}
		if done, err := w.ChainsBegun(ctx); err != nil || !done {
			t.Errorf("begun: %v, %v", done, err)
		}
		roll := audit.NewRoll()
		acts, err := w.VerifyActs(ctx, nil, roll.Act)
		if err != nil {
			t.Fatal(err)
		}
		r, err := w.VerifyAudit(ctx, w.scope, nil)
		if err != nil {
			t.Fatal(err)
		}
		roll.Company(&r, false)
		if got := text(r) + text(acts); got != "" || r.Count != 10 || acts.Count < 3 {
			t.Errorf("found %q of %d rows and %d acts", got, r.Count, acts.Count)
		}
		// The version before writes on beside this one: its rows are shown, and told
		// apart.
		w.exec("INSERT INTO audit (company_id, id, created_at, type, actor, project_id, object) VALUES ('$C', 'audit_log-before', 9000000000000000, 'x', 'a', '', '')")
		events, _, err := w.AuditEvents(ctx, w.scope, audit.Filter{}, pageOfAll)
		if err != nil || len(events) != 11 || !slices.ContainsFunc(events, func(e audit.Record) bool { return e.ID == "audit_log-before" && e.Count == 1 }) {
			t.Errorf("%d events, %v", len(events), err)
		}
		if got := w.verify(t, nil); got != "inserted 10" {
			t.Errorf("found %q", got)
		}
	}
	t.Run("SQLite", func(t *testing.T) { f(t, tamperSQLite(t)) })
	t.Run("Postgres", func(t *testing.T) { f(t, tamperPostgres(t)) })
}

// TestAnotherKey: with another master key no chain looks right, and none is gone
// on with.
func TestAnotherKey(t *testing.T) {
	f := func(t *testing.T, w *tampered) {
		w.KeyAudit([]byte(strings.Repeat("other", 10)))
		if got := w.verify(t, nil); !strings.HasPrefix(got, "changed 1, changed 2") || !strings.HasSuffix(got, "head 10") {
			t.Errorf("found %q", got)
		}
		if err := w.CreateProject(t.Context(), w.scope, tenant.Project{ID: "after", Name: "after"}); err == nil {
			t.Error("a row was added with another key")
		}
		if _, err := directory(w.DB).Gateway().Begin(t.Context(), "test", ""); err == nil {
			t.Error("an act was added with another key")
		}
		w.KeyAudit(storetest.AuditKey)
		if got := w.verify(t, nil) + w.verifyActs(t); got != "" {
			t.Errorf("found %q", got)
		}
	}
	t.Run("SQLite", func(t *testing.T) { f(t, tamperSQLite(t)) })
	t.Run("Postgres", func(t *testing.T) { f(t, tamperPostgres(t)) })
}
