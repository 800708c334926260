package test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestRefused type-checks pairs of snippets that differ in one place: the
// compiler refuses the first for the reason named, and takes the second, so
// that no snippet is refused for another reason (a renamed method, a typo).
func TestRefused(t *testing.T) {
	check := typeChecker(t, "bulkhead/tenant", "bulkhead/keystore", "context")
	const frame = `package snippet

import (
	"context"

	"bulkhead/keystore"
	"bulkhead/tenant"
)

var _ tenant.ID

func _(ctx context.Context, st keystore.Store, d *tenant.Directory, s, other tenant.Scope, act tenant.Act, company string, key []byte) error {
	%s
	return nil
}
`
	f := func(refused, why, taken string) {
		t.Helper()
		if problems := check(fmt.Sprintf(frame, taken)); len(problems) > 0 {
			t.Errorf("the twin of the refused snippet must compile:\n\t%s\n%q", taken, problems)
		}
		problems := check(fmt.Sprintf(frame, refused))
		if len(problems) == 0 {
			t.Errorf("this compiles:\n\t%s", refused)
		} else if len(problems) > 1 || !strings.Contains(problems[0], why) {
			t.Errorf("want one error with %q, got %q for\n\t%s", why, problems, refused)
		}
	}

	const call = `_, err := st.Credential(ctx, s, "openai"); if err != nil { return err }`
	// Without a Scope.
	f(`_, err := st.Credential(ctx, "openai"); if err != nil { return err }`, "not enough arguments", call)
	f(`_, err := st.Credential(ctx, nil, "openai"); if err != nil { return err }`, "cannot use nil as tenant.Scope", call)
	// With what names a company but proves nothing.
	f(`_, err := st.Credential(ctx, "org-acme", "openai"); if err != nil { return err }`, "as tenant.Scope", call)
	f(`_, err := st.Credential(ctx, company, "openai"); if err != nil { return err }`, "as tenant.Scope", call)
	f(`_, err := st.Credential(ctx, s.ID(), "openai"); if err != nil { return err }`, "as tenant.Scope", call)
	f(`_, err := st.Credential(ctx, s.Company(), "openai"); if err != nil { return err }`, "as tenant.Scope", call)
	// With the proof of something else.
	f(`_, err := st.Credential(ctx, act, "openai"); if err != nil { return err }`, "as tenant.Scope", call)
	f(`_, err := d.Scope(ctx, d.Gateway(), company); if err != nil { return err }`, "as tenant.Act",
		`_, err := d.Scope(ctx, act, company); if err != nil { return err }`)
	// The context carries no Scope, and is none.
	f(`_, err := st.Credential(s, s, "openai"); if err != nil { return err }`, "as context.Context", call)

	// Made by hand.
	f(`_ = tenant.Scope{"org-acme"}`, "implicit assignment to unexported field", `_ = tenant.Scope{}`)
	f(`_ = tenant.Scope{a: nil}`, "cannot refer to unexported field", `_ = tenant.Scope{}`)
	f(`_ = tenant.Scope(company)`, "cannot convert company", `_ = tenant.Scope(s)`)
	f(`_ = tenant.Scope(struct{ a *int }{})`, "cannot convert", `_ = tenant.Scope(other)`)
	f(`_ = tenant.ID(company)`, "cannot convert company", `_ = tenant.ID(s.ID())`)
	f(`_ = tenant.ID{company}`, "implicit assignment to unexported field", `_ = tenant.ID{}`)
	f(`_ = tenant.ID{name: company}`, "cannot refer to unexported field", `_ = tenant.ID{}`)
	f(`_ = tenant.Act(struct{ a *int }{})`, "cannot convert", `_ = tenant.Act(act)`)
	f(`_ = tenant.Operator{nil}`, "implicit assignment to unexported field", `_ = tenant.Operator{}`)
	f(`_ = tenant.Name{kind: "file"}`, "cannot refer to unexported field", `_ = s.Name("file", "1")`)
	// Changed afterwards.
	f(`s.a = nil`, "s.a undefined (cannot refer to unexported field a)", `s = other`)
}

// typeChecker returns a function that type-checks the text of a Go file which
// imports some of the given packages, and returns the errors. The packages'
// types come from the build cache, filled if need be.
func typeChecker(t *testing.T, packages ...string) func(src string) []string {
	t.Helper()
	fset := token.NewFileSet()
	imports := exportImporter(t, fset, packages...)
	return func(src string) []string {
		t.Helper()
		file, err := parser.ParseFile(fset, "snippet.go", src, 0)
		if err != nil {
			t.Fatalf("%s in\n%s", err, src)
		}
		var problems []string
		conf := types.Config{Importer: imports, Error: func(err error) { problems = append(problems, err.Error()) }}
		_, _ = conf.Check("snippet", fset, []*ast.File{file}, nil) // the errors are in problems
		return problems
	}
}

// exportImporter imports the given packages and all they depend on.
func exportImporter(t *testing.T, fset *token.FileSet, packages ...string) types.Importer {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-export", "-deps", "-json=ImportPath,Export"}, packages...)...)
	cmd.Dir = root
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("cannot build %s: %s\n%s", strings.Join(packages, " "), err, stderr.Bytes())
	}
	exports := map[string]string{}
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p struct{ ImportPath, Export string }
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		exports[p.ImportPath] = p.Export
	}
	return importer.ForCompiler(fset, "gc", func(path string) (io.ReadCloser, error) {
		if exports[path] == "" {
			return nil, fmt.Errorf("no export data for %q", path)
		}
		return os.Open(exports[path])
	})
}
