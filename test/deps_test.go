package test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// mayImport is the picture of the house: a package may import the packages on
// its line and nothing else of ours, and imports point down only. A package
// beside another whose name ends in "test" (limiter/limitertest) may import
// what its parent may, the parent, other packages of that kind, and the tools
// below test.
var mayImport = map[string]string{
	"cmd/gateway": "audit blob config egress fault keystore ledger limiter memory openai provider rag redisdb router store tenant vector web",
	"web":         "audit blob egress fault keystore ledger limiter memory openai provider rag redisdb router tenant vector",
	"store":       "audit blob fault keystore ledger limiter memory openai provider rag router tenant vector", // those whose interfaces it implements
	"router":      "fault openai provider tenant",
	"limiter":     "fault tenant redisdb",
	"ledger":      "fault openai tenant",
	"memory":      "fault openai tenant redisdb vector",
	"rag":         "fault openai tenant vector blob",
	"vector":      "fault tenant",
	"keystore":    "fault provider tenant",
	"blob":        "fault tenant",
	"audit":       "fault tenant",
	"provider":    "fault openai egress",
	"redisdb":     "fault",
	"egress":      "fault",
	"tenant":      "fault egress",
	"openai":      "fault",
	"fault":       "",
	"config":      "",
}

// homeOf names the packages that may import a dependency, by the start of its
// import path. What is neither here nor in the standard library nor below
// golang.org/x may not be imported: a new dependency is a new line.
var homeOf = map[string]string{
	"database/sql":                        "store",
	"github.com/go-json-experiment/json":  "openai provider",
	"github.com/goccy/go-yaml":            "config",
	"github.com/golang-jwt/jwt":           "tenant",
	"github.com/hashicorp/vault":          "keystore",
	"github.com/jackc/pgx":                "store",
	"github.com/ledongthuc/pdf":           "rag",
	"github.com/milvus-io":                "vector",
	"github.com/minio/minio-go":           "blob",
	"github.com/prometheus/client_golang": "web",
	"github.com/redis/go-redis":           "redisdb",
	"github.com/tiktoken-go/tokenizer":    "provider",
	"github.com/valyala/fasthttp":         "web",
	"go.opentelemetry.io":                 "web cmd/gateway",
	"google.golang.org/grpc":              "vector",
	"modernc.org/sqlite":                  "store",
}

// unlisted are folders whose packages are tools around the house, not in it.
var unlisted = []string{"test", "bench", "config/gen"}

type listedPackage struct {
	ImportPath string
	Imports    []string // without those of the package's own test files
}

func TestImports(t *testing.T) {
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports", module+"/...")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("cannot list the packages: %s\n%s", err, stderr.Bytes())
	}
	var pkgs []listedPackage
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listedPackage
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
	if len(pkgs) < 2 {
		t.Fatalf("only %d packages found", len(pkgs))
	}
	for _, problem := range checkImports(pkgs) {
		t.Error(problem)
	}
}

// module is this module's path.
const module = "bulkhead"

// checkImports returns what pkgs import against the two tables.
func checkImports(pkgs []listedPackage) []string {
	var problems []string
	for _, p := range pkgs {
		name := strings.TrimPrefix(p.ImportPath, module+"/")
		if slices.ContainsFunc(unlisted, func(dir string) bool { return under(name, dir) }) {
			continue
		}
		home, forTests := name, isTestHelper(name)
		if forTests {
			home = name[:strings.LastIndex(name, "/")]
		}
		allowed, listed := mayImport[home]
		if !listed {
			problems = append(problems, fmt.Sprintf("package %s has no line in mayImport", name))
			continue
		}
		may := strings.Fields(allowed)
		if forTests {
			may = append(may, home)
		}
		for _, imp := range p.Imports {
			if problem := checkImport(imp, home, may, forTests); problem != "" {
				problems = append(problems, name+" "+problem)
			}
		}
	}
	return problems
}

// checkImport returns what is wrong with imp in a package that lives in home
// and may import the packages may of ours, or "".
func checkImport(imp, home string, may []string, forTests bool) string {
	if own, ok := strings.CutPrefix(imp, module+"/"); ok {
		switch {
		case forTests && (isTestHelper(own) || under(own, "test")), slices.Contains(may, own):
			return ""
		case isTestHelper(own):
			return "must not import " + own + " outside its tests"
		}
		return "must not import " + own
	}
	if imp == "testing" && !forTests {
		return "must not import testing outside its tests"
	}
	if forTests && imp == "pgregory.net/rapid" { // suites with histories
		return ""
	}
	for dep, homes := range homeOf {
		if under(imp, dep) {
			if slices.Contains(strings.Fields(homes), home) {
				return ""
			}
			return "must not import " + dep + ", whose home is " + homes
		}
	}
	first, _, _ := strings.Cut(imp, "/")
	if strings.Contains(first, ".") && !under(imp, "golang.org/x") {
		return "imports " + imp + ", which has no line in homeOf"
	}
	return ""
}

// isTestHelper reports whether name is a package such as limiter/limitertest.
func isTestHelper(name string) bool {
	return strings.Contains(name, "/") && strings.HasSuffix(name, "test")
}

// under reports whether path is dir or below it.
func under(path, dir string) bool {
	rest, ok := strings.CutPrefix(path, dir)
	return ok && (rest == "" || rest[0] == '/')
}

// TestImportsRefused plants violations: a check that finds nothing is no check.
func TestImportsRefused(t *testing.T) {
	f := func(importing, imported, want string) {
		t.Helper()
		got := checkImports([]listedPackage{{"bulkhead/" + importing, []string{"fmt", imported}}})
		switch {
		case want == "" && len(got) > 0:
			t.Errorf("%s importing %s: %q", importing, imported, got)
		case want != "" && (len(got) != 1 || !strings.Contains(got[0], want)):
			t.Errorf("%s importing %s: got %q, want one problem with %q", importing, imported, got, want)
		}
	}
	// Sideways and upward.
	f("limiter", "bulkhead/ledger", "limiter must not import ledger")
	f("ledger", "bulkhead/limiter", "ledger must not import limiter")
	f("fault", "bulkhead/tenant", "fault must not import tenant")
	f("web", "bulkhead/store", "web must not import store")
	f("web", "bulkhead/config", "web must not import config")
	f("store", "bulkhead/web", "store must not import web")
	f("store", "bulkhead/config", "store must not import config")
	f("web", "bulkhead/tenant", "")
	f("cmd/gateway", "bulkhead/store", "")

	// Heavy dependencies away from home, also below another major version.
	f("router", "github.com/valyala/fasthttp", "whose home is web")
	f("cmd/gateway", "github.com/valyala/fasthttp/fasthttpadaptor", "whose home is web")
	f("limiter", "github.com/redis/go-redis/v9", "whose home is redisdb")
	f("web", "github.com/go-json-experiment/json/jsontext", "whose home is openai provider")
	f("web", "database/sql", "whose home is store")
	f("web", "github.com/valyala/fasthttp", "")
	f("provider", "github.com/go-json-experiment/json/jsontext", "")
	f("store", "database/sql/driver", "")

	// A similar name is another package.
	f("config", "github.com/goccy/go-yaml-more", "no line in homeOf")
	f("web", "example.com/unknown", "no line in homeOf")
	f("web", "golang.org/x/sys/unix", "")
	f("web", "golang.org/xyz", "no line in homeOf")

	// A package that nobody wrote down.
	f("util", "bulkhead/fault", "no line in mayImport")
	f("web/console", "bulkhead/fault", "no line in mayImport")

	// Test helpers.
	f("web", "bulkhead/tenant/tenanttest", "outside its tests")
	f("web", "testing", "outside its tests")
	f("limiter/limitertest", "bulkhead/tenant/tenanttest", "")
	f("limiter/limitertest", "bulkhead/limiter", "")
	f("limiter/limitertest", "bulkhead/test/servers", "")
	f("limiter", "bulkhead/test/servers", "limiter must not import test/servers")
	f("limiter/limitertest", "testing", "")
	f("limiter/limitertest", "bulkhead/store", "must not import store")
	f("limiter/limitertest", "github.com/redis/go-redis/v9", "whose home is redisdb")
	f("test", "testing", "")
	f("test/upstream", "bulkhead/web", "")
	f("bench", "bulkhead/web", "")
	f("testing", "bulkhead/fault", "no line in mayImport")
}
