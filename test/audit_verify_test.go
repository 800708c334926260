package test

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	_ "modernc.org/sqlite" // to change rows as nobody else may

	"bulkhead/store/pgtest"
)

// verified is what gateway audit verify -json prints.
type verified struct {
	OK     bool `json:"ok"`
	Chains []struct {
		Chain    string `json:"chain"`
		Count    int64  `json:"count"`
		Head     string `json:"head"`
		Findings []struct {
			Kind     string `json:"kind"`
			Sequence int64  `json:"sequence"`
		} `json:"findings"`
	} `json:"chains"`
	Gone []string `json:"gone"`
}

// verify verifies one chain, or all.
func (g *gateway) verify(t *testing.T, company string) (v verified) {
	t.Helper()
	args := []string{"audit", "verify", "-json"}
	if company != "" {
		args = append(args, "-company", company)
	}
	r := g.command(t, nil, "", args...)
	if err := json.Unmarshal([]byte(r.out), &v); err != nil || v.OK != (r.code == 0) {
		t.Fatalf("gateway %s ended with %d: %s%s", strings.Join(args, " "), r.code, r.out, r.err)
	}
	return v
}

// TestAuditVerify holds the command against what somebody does to the database
// of a gateway: a SQLite file here, below a PostgreSQL server.
func TestAuditVerify(t *testing.T) {
	g := prepare(t, "")
	run := g.serve(t)
	c := g.newCompany(t, "acme")
	gone := g.newCompany(t, "gone")
	erased := g.newCompany(t, "erased")
	g.call(t, http.MethodPost, g.OpsURL+"/admin/companies/"+erased.ID+"/erase", g.Operator, empty(nil), nil)
	testVerify(t, g, c)
	run.stop(t)
	testVerify(t, g, c) // nobody has the file open now

	db, err := sql.Open("sqlite", filepath.Join(g.Data, "bulkhead.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	exec := func(statements ...string) {
		t.Helper()
		for _, text := range statements {
			if _, err := db.ExecContext(t.Context(), text); err != nil {
				t.Fatalf("%s: %s", text, err)
			}
		}
	}
	for _, trigger := range []string{"audit_is_not_changed", "audit_is_not_deleted", "audit_link_is_not_deleted", "audit_head_is_not_deleted"} {
		exec("DROP TRIGGER " + trigger)
	}
	testTampered(t, g, c, exec)

	// A company that is taken away whole, and one that is marked as erased.
	for _, table := range []string{"audit_head", "audit_link", "audit", "api_key", "service_account", "project", "company"} {
		exec("DELETE FROM " + table + " WHERE company_id = '" + gone.ID + "'")
	}
	if v := g.verify(t, ""); v.OK || !slices.Equal(v.Gone, []string{gone.ID}) {
		t.Errorf("%+v", v)
	}
	exec("UPDATE company SET status = 'erased' WHERE company_id = '" + c.ID + "'")
	if got := findings(g.verify(t, ""), c.ID); got != "unerased 0" {
		t.Errorf("found %q", got)
	}

	// With another master key nothing is verified, and none is made.
	r := g.command(t, []string{"BULKHEAD_MASTER_KEY=" + strings.Repeat("b8", 32)}, "", "audit", "verify")
	if r.code != 1 || !strings.Contains(r.err, "not the master key") {
		t.Errorf("%+v", r)
	}
	master := filepath.Join(g.Data, "master.key")
	if err := os.Rename(master, master+".away"); err != nil {
		t.Fatal(err)
	}
	r = g.command(t, nil, "", "audit", "verify")
	if _, err := os.Stat(master); r.code != 1 || !strings.Contains(r.err, "master.key is missing") || err == nil {
		t.Errorf("%+v, %v", r, err)
	}
	r = g.command(t, []string{"BULKHEAD_DATA=" + filepath.Join(g.dir(), "nowhere")}, "", "audit", "verify")
	if r.code != 1 || !strings.Contains(r.err, "there is no database") {
		t.Errorf("%+v", r)
	}
}

// findings is what was found of one chain.
func findings(v verified, chain string) string {
	var out []string
	for _, c := range v.Chains {
		if c.Chain != chain {
			continue
		}
		for _, f := range c.Findings {
			out = append(out, fmt.Sprint(f.Kind, " ", f.Sequence))
		}
	}
	return strings.Join(out, ", ")
}

// testVerify verifies a database that nobody has touched.
func testVerify(t *testing.T, g *gateway, c company) {
	t.Helper()
	v := g.verify(t, "")
	if !v.OK || len(v.Chains) < 3 {
		t.Fatalf("%+v", v)
	}
	r := g.command(t, nil, "", "audit", "verify")
	if r.code != 0 || !strings.Contains(r.out, "are as they were written") || !strings.Contains(r.out, c.ID) || r.err != "" {
		t.Errorf("%+v", r)
	}
	one := g.verify(t, c.ID)
	if len(one.Chains) != 1 || one.Chains[0].Count < 6 {
		t.Errorf("%+v", one)
	}
	head := fmt.Sprint(one.Chains[0].Count, ":", one.Chains[0].Head)
	if !strings.Contains(r.out, c.ID+"  "+head) {
		t.Errorf("%s does not tell the head %s", r.out, head)
	}
	f := func(code int, says string, args ...string) {
		t.Helper()
		r := g.command(t, nil, "", append([]string{"audit", "verify"}, args...)...)
		if r.code != code || !strings.Contains(r.out+r.err, says) {
			t.Errorf("%q: %+v", args, r)
		}
	}
	f(0, "as they were written", "-company", c.ID, "-expect", head)
	f(1, "anchor at "+fmt.Sprint(one.Chains[0].Count), "-company", c.ID, "-expect", fmt.Sprint(one.Chains[0].Count, ":", strings.Repeat("0", 64)))
	f(1, "anchor at", "-company", c.ID, "-expect", "99:"+one.Chains[0].Head)
	f(0, "as they were written", "-company", "operator")
	f(1, "COUNT:HASH", "-company", c.ID, "-expect", "x")
	f(1, "say with -company", "-expect", head)
	f(1, "No such company", "-company", "org-0000000000")
	f(1, "takes no arguments", "more")
}

// testTampered changes, takes away, adds and cuts rows of the company.
func testTampered(t *testing.T, g *gateway, c company, exec func(...string)) {
	t.Helper()
	at := func(n int) string {
		return fmt.Sprintf(" WHERE company_id = '%s' AND id = (SELECT id FROM audit_link WHERE company_id = '%s' AND seq = %d)", c.ID, c.ID, n)
	}
	f := func(want string, statements ...string) {
		t.Helper()
		exec(statements...)
		v := g.verify(t, "")
		if got := findings(v, c.ID); v.OK || got != want {
			t.Errorf("found %q, want %q", got, want)
		}
		r := g.command(t, nil, "", "audit", "verify")
		kind, sequence, _ := strings.Cut(strings.Split(want, ",")[0], " ")
		if r.code != 1 || !strings.Contains(r.out, c.ID+"  "+kind+" at "+sequence) {
			t.Errorf("%+v", r)
		}
	}
	f("changed 2", "UPDATE audit SET actor = 'key:somebody'"+at(2))
	f("changed 2, missing 4", "DELETE FROM audit"+at(4))
	f("changed 2, missing 4, cut 6", "DELETE FROM audit"+at(6), "DELETE FROM audit_link WHERE company_id = '"+c.ID+"' AND seq = 6")
	f("changed 2, missing 4, inserted 5, cut 6", "INSERT INTO audit (company_id, id, created_at, type, actor, project_id, object) VALUES ('"+
		c.ID+"', 'audit_log-new', 9000000000000000, 'project.created', 'key:x', '', 'x')")
}

// TestAuditVerifyPostgres is the same on PostgreSQL: the command reads as the
// gateway's user, and the rows are changed by the owner of the tables.
func TestAuditVerifyPostgres(t *testing.T) {
	d := pgtest.New(t)
	g := prepare(t, "", "BULKHEAD_POSTGRES_URL="+d.URL, "BULKHEAD_POSTGRES_OWNER_URL="+d.OwnerURL, "BULKHEAD_MASTER_KEY="+strings.Repeat("a7", 32))
	if r := g.command(t, nil, "", "migrate"); r.code != 0 {
		t.Fatalf("gateway migrate: %s%s", r.out, r.err)
	}
	run := g.serve(t)
	c := g.newCompany(t, "acme")
	testVerify(t, g, c)
	owner := pgtest.As(t, d.OwnerURL)
	exec := func(statements ...string) {
		t.Helper()
		for _, text := range statements {
			if _, err := owner.Exec(t.Context(), text); err != nil {
				t.Fatalf("%s: %s", text, err)
			}
		}
	}
	exec("SELECT set_config('app.current_company_id', '"+c.ID+"', false)", "ALTER TABLE audit DISABLE TRIGGER USER", "ALTER TABLE audit_link DISABLE TRIGGER USER")
	testTampered(t, g, c, exec)
	run.stop(t)
}
