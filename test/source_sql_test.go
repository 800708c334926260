package test

import (
	"fmt"
	"go/ast"
	"go/token"
	"regexp"
)

// sqlPart finds pieces of statements: in capitals, as all SQL here is.
var sqlPart = regexp.MustCompile(`\b(SELECT|INSERT INTO|UPDATE|DELETE FROM|FROM|WHERE|VALUES|ORDER BY|LIMIT|SET|AND|JOIN|ON CONFLICT|RETURNING)\b`)

// checkBuiltSQL finds statements in package store that are put together at run
// time. Only constants may be joined: what is not there cannot be injected.
func checkBuiltSQL(files []*sourceFile) []string {
	consts := constants(files)
	var problems []string
	for _, f := range files {
		if f.tree == nil || f.test() || !f.in("store") {
			continue
		}
		ast.Inspect(f.tree, func(n ast.Node) bool {
			what, deeper := consts.built(f, n)
			if what != "" {
				problems = append(problems, fmt.Sprintf("%s:%d %s", f.path, f.fset.Position(n.Pos()).Line, what))
			}
			return deeper
		})
	}
	return problems
}

// sqlConstants are the names of store's constants, and whether they hold SQL.
type sqlConstants map[string]bool

func constants(files []*sourceFile) sqlConstants {
	consts := sqlConstants{}
	for _, f := range files {
		if f.tree == nil || !f.in("store") {
			continue
		}
		ast.Inspect(f.tree, func(n ast.Node) bool {
			decl, ok := n.(*ast.GenDecl)
			if !ok || decl.Tok != token.CONST {
				return true
			}
			for _, spec := range decl.Specs {
				spec := spec.(*ast.ValueSpec)
				sql := false
				for _, v := range spec.Values {
					ast.Inspect(v, func(n ast.Node) bool {
						text, _ := literal(n)
						sql = sql || sqlPart.MatchString(text)
						return true
					})
				}
				for _, name := range spec.Names {
					consts[name.Name] = sql
				}
			}
			return false
		})
	}
	return consts
}

// built says what is wrong with n, and whether to look inside it.
func (c sqlConstants) built(f *sourceFile, n ast.Node) (what string, deeper bool) {
	switch n := n.(type) {
	case *ast.BinaryExpr:
		if n.Op == token.ADD {
			constant, sql := c.sum(n)
			if sql && !constant {
				return "joins SQL with what is not a constant", false
			}
			return "", !sql
		}
	case *ast.AssignStmt:
		if n.Tok == token.ADD_ASSIGN {
			if _, sql := c.sum(n.Rhs[0]); sql {
				return "appends SQL to a variable", false
			}
		}
	case *ast.CallExpr:
		name := f.name(n.Fun)
		if sel, ok := n.Fun.(*ast.SelectorExpr); ok && sel.Sel.Name == "WriteString" {
			name = "WriteString"
		}
		switch name {
		case "fmt.Sprintf", "fmt.Sprint", "fmt.Sprintln", "fmt.Fprintf", "fmt.Fprint", "fmt.Appendf", "fmt.Append",
			"strings.Join", "strings.Replace", "strings.ReplaceAll", "strings.NewReplacer", "WriteString":
			for _, arg := range n.Args {
				if c.holdsSQL(arg) {
					return "builds SQL with " + name, false
				}
			}
		}
	}
	return "", true
}

// sum says of a chain of + whether all of it is constant, and whether it holds
// SQL.
func (c sqlConstants) sum(e ast.Expr) (constant, sql bool) {
	switch e := e.(type) {
	case *ast.ParenExpr:
		return c.sum(e.X)
	case *ast.BinaryExpr:
		xc, xs := c.sum(e.X)
		yc, ys := c.sum(e.Y)
		return xc && yc, xs || ys
	case *ast.BasicLit:
		text, _ := literal(e)
		return true, sqlPart.MatchString(text)
	case *ast.Ident:
		sql, constant = c[e.Name]
		return constant, sql
	}
	return false, false
}

func (c sqlConstants) holdsSQL(e ast.Expr) bool {
	found := false
	ast.Inspect(e, func(n ast.Node) bool {
		if x, ok := n.(ast.Expr); ok {
			_, sql := c.sum(x)
			found = found || sql
		}
		return true
	})
	return found
}
