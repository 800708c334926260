package test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const fasthttpPath = "github.com/valyala/fasthttp"

// TestRequestCtx: a *fasthttp.RequestCtx can be handed on as a context.Context,
// and then lives on in what the callee started, with the memory of a request
// that is by then another company's. Its Done is also not the request's end but
// the server's. So nowhere is it used as one.
func TestRequestCtx(t *testing.T) {
	cmd := exec.Command("go", "list", "-json=Dir,ImportPath,GoFiles,Imports", module+"/...")
	cmd.Dir = root
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("cannot list the packages: %s\n%s", err, stderr.Bytes())
	}
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p struct {
			Dir, ImportPath  string
			GoFiles, Imports []string
		}
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(p.Imports, fasthttpPath) {
			continue
		}
		fset := token.NewFileSet()
		var files []*ast.File
		for _, name := range p.GoFiles {
			file, err := parser.ParseFile(fset, filepath.Join(p.Dir, name), nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, file)
		}
		imports := exportImporter(t, fset, append(p.Imports, "context")...)
		problems, err := requestCtxUses(fset, imports, p.ImportPath, files)
		if err != nil {
			t.Errorf("cannot check %s: %s", p.ImportPath, err)
		}
		for _, problem := range problems {
			t.Error(problem)
		}
	}
}

// requestCtxUses finds every place where a RequestCtx becomes an interface that
// is, or holds, context.Context.
func requestCtxUses(fset *token.FileSet, imports types.Importer, path string, files []*ast.File) ([]string, error) {
	info := &types.Info{Types: map[ast.Expr]types.TypeAndValue{}, Defs: map[*ast.Ident]types.Object{}, Uses: map[*ast.Ident]types.Object{}}
	conf := types.Config{Importer: imports}
	if _, err := conf.Check(path, fset, files, info); err != nil {
		return nil, err
	}
	pkg, err := imports.Import("context")
	if err != nil {
		return nil, err
	}
	w := ctxWalk{info: info, context: pkg.Scope().Lookup("Context").Type().Underlying().(*types.Interface)}
	var problems []string
	w.report = func(n ast.Node) {
		p := fset.Position(n.Pos())
		problems = append(problems, fmt.Sprintf("%s/%s:%d uses a RequestCtx as a context.Context",
			strings.TrimPrefix(path, module+"/"), filepath.Base(p.Filename), p.Line))
	}
	for _, f := range files {
		w.walk(f, nil)
	}
	return problems, nil
}

type ctxWalk struct {
	info    *types.Info
	context *types.Interface
	report  func(ast.Node)
}

// to looks at the expression e where a value of type target is wanted.
func (w *ctxWalk) to(target types.Type, e ast.Expr) {
	if target == nil || !types.IsInterface(target) || !types.Implements(target, w.context) {
		return
	}
	if ptr, ok := w.info.TypeOf(e).(*types.Pointer); ok {
		if named, ok := ptr.Elem().(*types.Named); ok {
			o := named.Obj()
			if o.Name() == "RequestCtx" && o.Pkg() != nil && o.Pkg().Path() == fasthttpPath {
				w.report(e)
			}
		}
	}
}

// walk looks at every assignment below n; f is the function around it.
func (w *ctxWalk) walk(n ast.Node, f *types.Signature) {
	ast.Inspect(n, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncDecl:
			if n.Body != nil {
				w.walk(n.Body, w.info.Defs[n.Name].Type().(*types.Signature))
			}
			return false
		case *ast.FuncLit:
			w.walk(n.Body, w.info.TypeOf(n).(*types.Signature))
			return false
		case *ast.CallExpr:
			w.call(n)
		case *ast.AssignStmt:
			if len(n.Lhs) == len(n.Rhs) && n.Tok == token.ASSIGN {
				for i, e := range n.Rhs {
					w.to(w.info.TypeOf(n.Lhs[i]), e)
				}
			}
		case *ast.ValueSpec:
			if n.Type != nil {
				for _, e := range n.Values {
					w.to(w.info.TypeOf(n.Type), e)
				}
			}
		case *ast.ReturnStmt:
			if f != nil && len(n.Results) == f.Results().Len() {
				for i, e := range n.Results {
					w.to(f.Results().At(i).Type(), e)
				}
			}
		case *ast.CompositeLit:
			w.composite(n)
		case *ast.SendStmt:
			if ch, ok := w.info.TypeOf(n.Chan).Underlying().(*types.Chan); ok {
				w.to(ch.Elem(), n.Value)
			}
		}
		return true
	})
}

func (w *ctxWalk) call(n *ast.CallExpr) {
	fun := w.info.Types[n.Fun]
	if fun.IsType() { // a conversion
		w.to(fun.Type, n.Args[0])
		return
	}
	if fun.Type == nil {
		return
	}
	sig, ok := fun.Type.Underlying().(*types.Signature)
	if !ok {
		return
	}
	for i, e := range n.Args {
		switch last := sig.Params().Len() - 1; {
		case sig.Variadic() && i >= last && !n.Ellipsis.IsValid():
			w.to(sig.Params().At(last).Type().(*types.Slice).Elem(), e)
		case i <= last:
			w.to(sig.Params().At(i).Type(), e)
		}
	}
}

func (w *ctxWalk) composite(n *ast.CompositeLit) {
	t := w.info.TypeOf(n).Underlying()
	for i, e := range n.Elts {
		kv, keyed := e.(*ast.KeyValueExpr)
		if keyed {
			e = kv.Value
		}
		switch t := t.(type) {
		case *types.Struct:
			if !keyed {
				w.to(t.Field(i).Type(), e)
			} else if id, ok := kv.Key.(*ast.Ident); ok && w.info.Uses[id] != nil {
				w.to(w.info.Uses[id].Type(), e)
			}
		case *types.Map:
			w.to(t.Elem(), e)
		case interface{ Elem() types.Type }: // slice, array
			w.to(t.Elem(), e)
		}
	}
}

// TestRequestCtxRefused plants violations.
func TestRequestCtxRefused(t *testing.T) {
	fset := token.NewFileSet()
	imports := exportImporter(t, fset, fasthttpPath, "context")
	f := func(body string, want int) {
		t.Helper()
		src := "package p\nimport (\n\"context\"\n\"github.com/valyala/fasthttp\"\n)\n" +
			"func use(ctx context.Context, more ...context.Context) {}\nfunc keep(v any) {}\nfunc own(rc *fasthttp.RequestCtx) {}\n" +
			"type wide interface { context.Context; Extra() }\ntype holder struct { ctx context.Context }\nvar _ wide\n" +
			"func _(ctx context.Context, rc *fasthttp.RequestCtx, h holder, ch chan context.Context) {\n" + body + "\n}\n"
		file, err := parser.ParseFile(fset, "p.go", src, 0)
		if err != nil {
			t.Fatal(err)
		}
		got, err := requestCtxUses(fset, imports, "p", []*ast.File{file})
		if err != nil {
			t.Fatalf("%s in\n%s", err, src)
		}
		if len(got) != want {
			t.Errorf("got %q, want %d problems for\n%s", got, want, body)
		}
	}
	f("use(rc)", 1)
	f("use(ctx, ctx, rc)", 1)
	f("use(ctx, []context.Context{rc}...)", 1)
	f("c, stop := context.WithCancel(rc); use(c); stop()", 1)
	f("ctx = rc; _ = ctx", 1)
	f("var c context.Context = rc; _ = c", 1)
	f("_ = context.Context(rc)", 1)
	f("h = holder{rc}; h = holder{ctx: rc}; h.ctx = rc", 3)
	f("_ = map[string]context.Context{\"a\": rc}", 1)
	f("ch <- rc", 1)
	f("_ = func() context.Context { return rc }", 1)
	f("use(ctx); own(rc); keep(rc); use(ctx, ctx)", 0)
	f("_ = holder{ctx: ctx}; _ = []*fasthttp.RequestCtx{rc}", 0)
}
