package test

import (
	"strings"
	"testing"
)

// TestSourceRefused plants violations of each rule of checkSource, beside
// neighbours that are allowed.
func TestSourceRefused(t *testing.T) {
	f := func(path, src, want string) {
		t.Helper()
		file, err := newSourceFile(path, []byte(src))
		if err != nil {
			t.Fatal(err)
		}
		got := checkSource([]*sourceFile{file})
		switch {
		case want == "" && len(got) > 0:
			t.Errorf("%s: %q for\n%s", path, got, src)
		case want != "" && (len(got) != 1 || !strings.Contains(got[0], want)):
			t.Errorf("%s: got %q, want one problem with %q for\n%s", path, got, want, src)
		}
	}
	g := func(path, imports, body, want string) {
		t.Helper()
		src := "package p\n"
		for _, imp := range strings.Fields(imports) {
			src += "import " + imp + "\n"
		}
		f(path, src+body+"\n", want)
	}

	// A written zero Scope.
	const ten = `"bulkhead/tenant"`
	g("web/a.go", ten, "var s = tenant.Scope{}", "writes a zero tenant.Scope")
	g("web/a.go", ten, "func f() (tenant.Scope, error) { return tenant.Scope{}, nil }", "writes a zero")
	g("web/a.go", ten, "func f() { g(&tenant.Scope{}) }", "writes a zero")
	g("web/a.go", ten, "var s tenant.Scope", "declares a zero")
	g("web/a.go", ten, "func f() { var a, b tenant.Scope; g(a, b) }", "declares a zero")
	g("web/a.go", ten, "var s = *new(tenant.Scope)", "makes a zero")
	g("web/a.go", ten, "type scope = tenant.Scope", "another name")
	g("web/a.go", ten, "type scope tenant.Scope", "another name")
	f("web/a.go", "package p\nimport . \"bulkhead/tenant\"\nvar _ = Scope{}\n", "without a name")
	f("web/a.go", "package p\nimport tn \"bulkhead/tenant\"\nvar _ = tn.Scope{}\n", "writes a zero")
	g("web/a.go", ten, "type call struct{ scope tenant.Scope }", "")
	g("web/a.go", ten, "func f() (s tenant.Scope, err error) { return }", "")
	g("web/a.go", ten, "func f(x tenant.Scope) { var s tenant.Scope = x; g(s) }", "")
	g("web/a.go", `"other/tenant"`, "var s = tenant.Scope{}", "")
	g("web/a_test.go", ten, "var s = tenant.Scope{}", "")
	g("limiter/limitertest/a.go", ten, "var s = tenant.Scope{}", "")
	f("store/a.go", "//go:build isolation\n\npackage p\nimport \"bulkhead/tenant\"\nvar s = tenant.Scope{}\n", "")
	f("tenant/a.go", "package tenant\nvar s = Scope{}\n", "")

	// A company opened without an act.
	g("web/a.go", `"context"`, "func f(d dir) { d.Background(context.Background(), u) }", "opens a company")
	g("web/upkeep.go", "", "func f(d dir) { d.Background(ctx, u) }", "")
	g("web/master.go", "", "func f(d dir) { d.Background(ctx, u) }", "")

	// A secret opened away from home.
	g("web/a.go", "", "func f(s secret) { g(s.Reveal()) }", "reveals a secret")
	g("router/a.go", "", "func f(s secret) { g(s.Reveal) }", "reveals a secret")
	g("keystore/a.go", "", "func f(s secret) { g(s.Reveal()) }", "")
	g("keystorex/a.go", "", "func f(s secret) { g(s.Reveal()) }", "reveals a secret")
	g("cmd/gateway/a.go", "", "func f(s secret) { g(s.Reveal()) }", "")

	// Waiting for time to pass instead of for a thing to happen.
	g("web/a.go", `"time"`, "func f() { time.Sleep(1) }", "calls time.Sleep")
	g("web/a_test.go", `"time"`, "func f() { time.Sleep(1) }", "calls time.Sleep")
	g("limiter/limitertest/a.go", `"time"`, "func f() { time.Sleep(1) }", "calls time.Sleep")
	f("web/a.go", "package p\nimport clock \"time\"\nvar wait = clock.Sleep\n", "calls time.Sleep")
	g("bench/a.go", `"time"`, "func f() { time.Sleep(1) }", "")
	const bubble = "package p\nimport \"testing/synctest\"\nimport \"time\"\nfunc f() { synctest.Wait(); time.Sleep(1) }\n"
	f("web/a_test.go", bubble, "")
	f("web/a.go", bubble, "calls time.Sleep")
	g("web/a.go", `"my/time"`, "func f() { time.Sleep(1) }", "")

	// Floating point where money is.
	g("ledger/a.go", "", "var price float64", "uses float64")
	g("limiter/a.go", "", "func f(x int) int { return int(float32(x)) }", "uses float32")
	g("ledger/a.go", `"strconv"`, `func f() { x, err := strconv.ParseFloat("1", 64); g(x, err) }`, "ParseFloat")
	g("limiter/deeper/a.go", "", "var x float64", "uses float64")
	g("web/a.go", "", "var seconds float64", "")

	// Settings that do not come through config.
	g("provider/a.go", `"os"`, `var key = os.Getenv("KEY")`, "reads the environment: os.Getenv")
	g("web/a.go", `"os"`, `var _, _ = os.LookupEnv("KEY")`, "os.LookupEnv")
	g("web/a.go", `"os"`, `var all = os.Environ()`, "os.Environ")
	g("config/a.go", `"os"`, `var key = os.Getenv("KEY")`, "")

	// SQL away from store.
	g("audit/a.go", "", "const q = `\n\tSELECT a, b\n\tFROM t WHERE c = $1`", "holds SQL")
	g("web/a.go", "", `const q = "insert into t (a) values ($1)"`, "holds SQL")
	g("web/a.go", "", `const q = "UPDATE t SET a = 1 "`, "holds SQL")
	g("web/a.go", "", `const q = "DELETE FROM t WHERE a = 1"`, "holds SQL")
	g("web/a.go", "", `const q = "CREATE UNIQUE INDEX x ON t (a)"`, "holds SQL")
	g("web/a.go", "", `const q = "PRAGMA journal_mode"`, "holds SQL")
	g("web/a.go", "", `const q = "Select a model, then call it"`, "")
	g("web/a.go", "", `const q = "update the company"`, "")
	g("store/a.go", "", `const q = "DELETE FROM t WHERE company_id = $1"`, "")

	// SQL built at run time.
	g("store/a.go", "", `func f(id string) { g("DELETE FROM t WHERE id = '" + id + "'") }`, "joins SQL")
	g("store/a.go", "", `func f(by string) { q := q0 + " ORDER BY " + by; g(q) }`, "joins SQL")
	g("store/a.go", "", "const q = `SELECT a FROM t`\nfunc f(w string) { g(q + w) }", "joins SQL")
	g("store/a.go", "", `func f(q string) { q += " LIMIT 1"; g(q) }`, "appends SQL")
	g("store/a.go", `"fmt"`, `func f(t string) { g(fmt.Sprintf("SELECT a FROM %s", t)) }`, "builds SQL with fmt.Sprintf")
	g("store/a.go", `"fmt"`, "const q = `SELECT a FROM t%s`\nfunc f(t string) { g(fmt.Sprintf(q, t)) }", "builds SQL with fmt.Sprintf")
	g("store/a.go", `"strings"`, `func f(c []string) { g(strings.Join(c, " AND ")) }`, "builds SQL with strings.Join")
	g("store/a.go", `"strings"`, `func f(b *strings.Builder) { b.WriteString("WHERE a = 1") }`, "builds SQL with WriteString")
	g("store/a.go", "", "const cols = `a, b`\nconst q = `SELECT ` + cols + ` FROM t`", "")
	g("store/a.go", "", "const cols = `a, b`\nvar q = register(`SELECT ` + cols + ` FROM t`)", "")
	g("store/a.go", `"fmt"`, `func f(n string) error { return fmt.Errorf("cannot read %s", n) }`, "")
	g("store/a.go", "", `func f(n string) { g("company " + n) }`, "")

	// Too long.
	f("docs/a.sh", strings.Repeat("\n", maxLines+1), "more than 500")
	f("docs/a.sh", strings.Repeat("\n", maxLines), "")
}
