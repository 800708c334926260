package store

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// unscoped returns the mentions of companies' tables in a text that have no
// predicate company_id = $1 of their own.
func unscoped(text string) []string {
	var bad []string
	tables := strings.Join(companyTableNames(), "|")
	// A table with the word before it, and its alias if it has one.
	mention := regexp.MustCompile(`\b(FROM|JOIN|UPDATE|INTO|,)\s+(` + tables + `)\b(?:\s+AS\s+(\w+))?`)
	found := mention.FindAllStringSubmatch(text, -1)
	plain := 0 // tables whose predicate has no alias before it
	for _, m := range found {
		switch verb, alias := m[1], m[3]; {
		case verb == "INTO":
			if !regexp.MustCompile(`INTO \w+ \(company_id, [^)]*\)\s+(VALUES \(\$1, |SELECT company_id, )`).MatchString(text) {
				bad = append(bad, m[0])
			}
			if strings.Contains(text, "ON CONFLICT") && !strings.Contains(text, "ON CONFLICT (company_id") {
				bad = append(bad, m[0]+" ON CONFLICT")
			}
		case alias != "":
			if !strings.Contains(text, alias+".company_id = $1") {
				bad = append(bad, m[0])
			}
		default:
			plain++
		}
	}
	if n := len(regexp.MustCompile(`(?:WHERE|AND|ON) company_id = \$1`).FindAllString(text, -1)); n < plain {
		bad = append(bad, fmt.Sprintf("%d tables, %d predicates", plain, n))
	}
	if regexp.MustCompile(`\bOR\b`).MatchString(regexp.MustCompile(`\([^()]*\)`).ReplaceAllString(text, "")) {
		bad = append(bad, "OR outside brackets") // it would go round the predicate
	}
	return bad
}

func TestEveryStatementNamesItsCompany(t *testing.T) {
	for _, st := range companyStatements() {
		if bad := unscoped(st.text); len(bad) > 0 {
			t.Errorf("%s: %q in\n%s", st.name, bad, st.text)
		}
		if !regexp.MustCompile(`\b(` + strings.Join(companyTableNames(), "|") + `)\b`).MatchString(st.text) {
			t.Errorf("%s is on no company's table:\n%s", st.name, st.text)
		}
	}
	for _, st := range globalStatements() {
		if m := regexp.MustCompile(`\b(FROM|JOIN|UPDATE|INTO)\s+(` + strings.Join(companyTableNames(), "|") + `)\b`).FindString(st.text); m != "" {
			t.Errorf("global statement %s has %s", st.name, m)
		}
	}
	for _, st := range operatorStatements() {
		if !strings.HasPrefix(st.text, "SELECT ") || !strings.Contains(st.text, " FROM company WHERE ") || strings.Contains(st.text, "JOIN") {
			t.Errorf("operator statement %s does more than read the company's row", st.name)
		}
	}
}

// TestUnscopedIsFound plants violations: a check that finds nothing is no check.
func TestUnscopedIsFound(t *testing.T) {
	f := func(text string, want bool) {
		t.Helper()
		if bad := unscoped(text); len(bad) > 0 != want {
			t.Errorf("%s: found %q", text, bad)
		}
	}
	f("SELECT id FROM project WHERE company_id = $1 AND id = $2", false)
	f("SELECT id FROM project WHERE id = $1", true)
	f("SELECT id FROM project WHERE company_id = $2", true)
	f("SELECT id FROM project WHERE company_id = $1 OR id = $2", true)
	f("SELECT id FROM project WHERE company_id = $1 AND (id = $2 OR id = $3)", false)
	f("UPDATE project SET name = $2 WHERE id = $1", true)
	f("DELETE FROM entry WHERE id = $1", true)
	f("SELECT k.id FROM api_key AS k JOIN project AS p ON p.id = k.project_id WHERE k.company_id = $1", true)
	f("SELECT k.id FROM api_key AS k JOIN project AS p ON p.company_id = $1 AND p.id = k.project_id WHERE k.company_id = $1", false)
	f("SELECT id FROM project WHERE company_id = $1 AND id IN (SELECT project_id FROM api_key WHERE id = $2)", true)
	f("SELECT id FROM project WHERE company_id = $1 AND id IN (SELECT project_id FROM api_key WHERE company_id = $1)", false)
	f("INSERT INTO route (company_id, name) VALUES ($1, $2)", false)
	f("INSERT INTO route (name, company_id) VALUES ($1, $2)", true)
	f("INSERT INTO route (company_id, name) SELECT company_id, $2 FROM company WHERE name = $1", true)
	f("INSERT INTO route (company_id, name) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET name = 'x'", true)
}

var isSQL = regexp.MustCompile(`^\s*(SELECT|INSERT|UPDATE|DELETE|WITH|CREATE|ALTER|DROP|REPLACE|TRUNCATE|AND|OR|WHERE|ORDER BY|FROM|PRAGMA|VACUUM|ATTACH)\s`)

// TestStatementsAreListed reads the source: each statement is a package-level
// value and listed, and SQL stands nowhere else.
func TestStatementsAreListed(t *testing.T) {
	listed := map[string]int{}
	for _, st := range companyStatements() {
		listed[st.name]++
	}
	for _, st := range globalStatements() {
		listed[st.name]++
	}
	for _, st := range operatorStatements() {
		listed[st.name]++
	}
	for name, n := range listed {
		if n != 1 {
			t.Errorf("statement %s is listed %d times", name, n)
		}
	}
	names, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, problem := range inspect(file, found) {
			t.Error(name, problem)
		}
	}
	for name := range found {
		if listed[name] == 0 {
			t.Errorf("statement %s is not listed", name)
		}
	}
	if len(found) != len(listed) {
		t.Errorf("%d statements in the source, %d listed: %v", len(found), len(listed), slices.Sorted(maps.Keys(listed)))
	}
}

// inspect adds the names of the statements that file declares to found, and
// returns where SQL stands outside declarations or statements are made in
// functions.
func inspect(file *ast.File, found map[string]bool) (problems []string) {
	bad := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	for _, d := range file.Decls {
		in := ""
		if fn, ok := d.(*ast.FuncDecl); ok {
			in = fn.Name.Name
		}
		ast.Inspect(d, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CompositeLit:
				kind, ok := n.Type.(*ast.Ident)
				if !ok || !slices.Contains([]string{"statement", "globalStatement", "operatorStatement"}, kind.Name) {
					return true
				}
				name := ""
				if first, ok := n.Elts[0].(*ast.BasicLit); ok {
					name, _ = strconv.Unquote(first.Value)
				}
				switch {
				case in != "":
					bad("%s makes a statement", in)
				case name == "" || found[name]:
					bad("a statement has no name of its own, but %q", name)
				}
				found[name] = true
			case *ast.BasicLit:
				s, err := strconv.Unquote(n.Value)
				if err == nil && in != "" && isSQL.MatchString(s) && s != "PRAGMA wal_checkpoint(TRUNCATE)" {
					bad("%s has SQL of its own: %s", in, s)
				}
			case *ast.CallExpr:
				// Text becomes SQL where a statement gives its text, for a
				// migration, and for BEGIN.
				id, ok := n.Fun.(*ast.Ident)
				if ok && id.Name == "sqlText" && !slices.Contains([]string{"bind", "sql", "migrate", "begin"}, in) {
					bad("%s makes SQL of text", in)
				}
			}
			return true
		})
	}
	return problems
}

// TestInspect plants violations.
func TestInspect(t *testing.T) {
	f := func(source, want string) {
		t.Helper()
		file, err := parser.ParseFile(token.NewFileSet(), "x.go", "package store\n"+source, 0)
		if err != nil {
			t.Fatal(err)
		}
		got := inspect(file, map[string]bool{})
		if want == "" && len(got) > 0 || want != "" && (len(got) == 0 || !strings.Contains(got[0], want)) {
			t.Errorf("%s: got %q, want %q", source, got, want)
		}
	}
	f("var a = statement{\"a\", `SELECT 1`}", "")
	f("const rows = ` AND id = $2`", "")
	f("var a, b = statement{\"a\", `SELECT 1`}, statement{\"a\", `SELECT 2`}", "no name of its own")
	f("func f() { _ = statement{\"a\", text} }", "f makes a statement")
	f("func f(c *conn) { c.ExecContext(ctx, `DELETE FROM entry`) }", "f has SQL of its own")
	f("func f(x session, id string) { x.exec(ctx, sqlText(text+id), nil) }", "f makes SQL of text")
}
