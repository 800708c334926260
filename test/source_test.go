package test

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// maxLines is the longest a file may be.
const maxLines = 500

// sourceFile is one file of the module.
type sourceFile struct {
	path string // from the module's root, with slashes
	text []byte
	fset *token.FileSet
	tree *ast.File // nil unless the file is Go
}

// dir is the package's folder.
func (f *sourceFile) dir() string { return path.Dir(f.path) }

// test reports whether the file is only part of tests: by its name, as part of
// a package for tests, or of the build in which isolation is tested.
func (f *sourceFile) test() bool {
	return strings.HasSuffix(f.path, "_test.go") || isTestHelper(f.dir()) || bytes.HasPrefix(f.text, []byte("//go:build isolation\n"))
}

// in reports whether the file is in one of the folders or below.
func (f *sourceFile) in(dirs ...string) bool {
	return slices.ContainsFunc(dirs, func(dir string) bool { return under(f.dir(), dir) })
}

// imports reports whether the file imports that package.
func (f *sourceFile) imports(path string) bool {
	return f.tree != nil && slices.ContainsFunc(f.tree.Imports, func(s *ast.ImportSpec) bool { return s.Path.Value == strconv.Quote(path) })
}

// name returns "path.Name" if e is the exported Name of an imported package,
// by whatever name the file imports it, else "".
func (f *sourceFile) name(e ast.Expr) string {
	sel, ok := e.(*ast.SelectorExpr)
	if !ok {
		return ""
	}
	pkg, ok := sel.X.(*ast.Ident)
	if !ok {
		return ""
	}
	for _, imp := range f.tree.Imports {
		p, err := strconv.Unquote(imp.Path.Value)
		if err != nil {
			continue
		}
		local := path.Base(p)
		if imp.Name != nil {
			local = imp.Name.Name
		}
		if local == pkg.Name {
			return p + "." + sel.Sel.Name
		}
	}
	return ""
}

// rule is something that must not stand in the source.
type rule struct {
	// exempt are the files that the rule does not concern.
	exempt func(f *sourceFile) bool
	// check returns what is wrong with the node n of f, or "".
	check func(f *sourceFile, n ast.Node) string
}

var rules = []rule{
	{func(f *sourceFile) bool { return f.test() || f.in("tenant") }, checkZeroScope},
	{func(f *sourceFile) bool {
		return f.test() || f.in("cmd/gateway", "config", "provider", "keystore", "test", "bench")
	}, checkReveal},
	// In a bubble of testing/synctest a sleep takes no time and waits for all.
	{func(f *sourceFile) bool {
		return f.in("bench", "test/upstream") || f.test() && f.imports("testing/synctest")
	}, checkSleep},
	{func(f *sourceFile) bool { return f.test() || !f.in("ledger", "limiter") }, checkFloat},
	{func(f *sourceFile) bool { return f.test() || f.in("cmd", "config", "test", "bench") }, checkGetenv},
	{func(f *sourceFile) bool { return f.test() || f.in("store", "test") }, checkSQLText},
	{func(f *sourceFile) bool { return f.test() || f.path == "web/upkeep.go" || f.path == "web/master.go" }, checkBackground},
}

// checkBackground finds companies being opened without an act and without a key,
// but for the gateway's own upkeep, and for the operator's knowledge, which is read
// for others at each question.
func checkBackground(f *sourceFile, n ast.Node) string {
	if sel, ok := n.(*ast.SelectorExpr); ok && sel.Sel.Name == "Background" && f.name(sel) == "" {
		return "opens a company in the background"
	}
	return ""
}

// checkZeroScope finds a written zero Scope. Fields and results of type Scope
// are not meant: nobody can use one that was not filled without a panic.
func checkZeroScope(f *sourceFile, n ast.Node) string {
	const scope = module + "/tenant.Scope"
	switch n := n.(type) {
	case *ast.CompositeLit:
		if n.Type != nil && f.name(n.Type) == scope {
			return "writes a zero tenant.Scope"
		}
	case *ast.ValueSpec:
		if n.Type != nil && f.name(n.Type) == scope && len(n.Values) == 0 {
			return "declares a zero tenant.Scope"
		}
	case *ast.CallExpr:
		if id, ok := n.Fun.(*ast.Ident); ok && id.Name == "new" && len(n.Args) == 1 && f.name(n.Args[0]) == scope {
			return "makes a zero tenant.Scope"
		}
	case *ast.TypeSpec:
		if f.name(n.Type) == scope {
			return "gives tenant.Scope another name"
		}
	case *ast.ImportSpec:
		if n.Path.Value == `"`+module+`/tenant"` && n.Name != nil && n.Name.Name == "." {
			return "imports tenant without a name"
		}
	}
	return ""
}

// checkReveal finds secrets being opened away from where they are needed.
func checkReveal(_ *sourceFile, n ast.Node) string {
	if sel, ok := n.(*ast.SelectorExpr); ok && sel.Sel.Name == "Reveal" {
		return "reveals a secret"
	}
	return ""
}

func checkSleep(f *sourceFile, n ast.Node) string {
	if e, ok := n.(ast.Expr); ok && f.name(e) == "time.Sleep" {
		return "calls time.Sleep"
	}
	return ""
}

// checkFloat finds floating point where money and limits are counted.
func checkFloat(_ *sourceFile, n ast.Node) string {
	switch n := n.(type) {
	case *ast.Ident:
		if n.Name == "float64" || n.Name == "float32" {
			return "uses " + n.Name
		}
	case *ast.SelectorExpr: // strconv.ParseFloat, big.Float, math.Float64bits
		if strings.Contains(n.Sel.Name, "Float") {
			return "uses floating point: " + n.Sel.Name
		}
	}
	return ""
}

func checkGetenv(f *sourceFile, n ast.Node) string {
	if e, ok := n.(ast.Expr); ok {
		switch name := f.name(e); name {
		case "os.Getenv", "os.LookupEnv", "os.Environ", "os.ExpandEnv", "syscall.Getenv", "syscall.Environ":
			return "reads the environment: " + name
		}
	}
	return ""
}

var sqlText = regexp.MustCompile(`(?i)^\s*(SELECT\s[\s\S]+\sFROM\s|INSERT\s+(OR\s+\w+\s+)?INTO\s|UPDATE\s+\w+\s+SET\s|DELETE\s+FROM\s|` +
	`(CREATE|ALTER|DROP)\s+(UNIQUE\s+)?(TABLE|INDEX|VIEW|TRIGGER|POLICY|ROLE)\s|PRAGMA\s+\w+|BEGIN\s+IMMEDIATE)`)

func checkSQLText(_ *sourceFile, n ast.Node) string {
	if text, ok := literal(n); ok && sqlText.MatchString(text) {
		return "holds SQL"
	}
	return ""
}

// literal returns the value of a string literal.
func literal(n ast.Node) (string, bool) {
	lit, ok := n.(*ast.BasicLit)
	if !ok || lit.Kind != token.STRING {
		return "", false
	}
	text, err := strconv.Unquote(lit.Value)
	return text, err == nil
}

// checkSource returns everything that is wrong with files.
func checkSource(files []*sourceFile) []string {
	var problems []string
	for _, f := range files {
		if n := bytes.Count(f.text, []byte("\n")); n > maxLines {
			problems = append(problems, fmt.Sprintf("%s has %d lines, more than %d", f.path, n, maxLines))
		}
		if f.tree == nil {
			continue
		}
		report := func(n ast.Node, what string) {
			problems = append(problems, fmt.Sprintf("%s:%d %s", f.path, f.fset.Position(n.Pos()).Line, what))
		}
		for _, r := range rules {
			if r.exempt(f) {
				continue
			}
			ast.Inspect(f.tree, func(n ast.Node) bool {
				if what := r.check(f, n); what != "" {
					report(n, what)
				}
				return true
			})
		}
	}
	return append(problems, checkBuiltSQL(files)...)
}

func TestSource(t *testing.T) {
	files := readSource(t)
	if len(files) < 20 {
		t.Fatalf("only %d files found", len(files))
	}
	for _, problem := range checkSource(files) {
		t.Error(problem)
	}
}

// readSource reads the files of the module that people write.
func readSource(t *testing.T) []*sourceFile {
	t.Helper()
	var files []*sourceFile
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name := d.Name(); p != root && (strings.HasPrefix(name, ".") || name == "testdata" || name == "node_modules") {
				return fs.SkipDir
			}
			return nil
		}
		switch filepath.Ext(p) {
		case ".go", ".sql", ".sh", ".py", ".mjs":
		default:
			return nil
		}
		text, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		f, err := newSourceFile(filepath.ToSlash(rel), text)
		files = append(files, f)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func newSourceFile(path string, text []byte) (*sourceFile, error) {
	f := &sourceFile{path: path, text: text, fset: token.NewFileSet()}
	if !strings.HasSuffix(path, ".go") {
		return f, nil
	}
	var err error
	f.tree, err = parser.ParseFile(f.fset, path, text, parser.SkipObjectResolution)
	return f, err
}
