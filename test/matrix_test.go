package test

import (
	"bytes"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"bulkhead/web"
)

var updateMatrix = flag.Bool("update", false, "write the golden files anew")

const matrixFile = "testdata/matrix.txt"

// matrix is what each caller was answered at each route, by whose the ids of the
// path were: see column.
type matrix map[string]map[string]map[string]map[int]bool

// columns are whose ids a path has: the caller's own, of a project that is not the
// one asked for, of another company, and such as never were.
var columns = []string{"own", "other project's", "other company's", "random"}

// column says in which column a choice of ids is counted; "" for none.
func column(combo []choice) string {
	has := map[string]bool{}
	for _, c := range combo {
		has[c.kind] = true
	}
	switch {
	case has["malformed"], has["foreign"] && has["random"]:
		return ""
	case has["foreign"]:
		return "other company's"
	case has["random"]:
		return "random"
	case has["own in the other project"]:
		return "other project's"
	}
	return "own"
}

func (m matrix) add(r web.Route, caller string, combo []choice, status int) {
	name, at := r.Method+" "+r.Pattern, column(combo)
	if at == "" {
		return
	}
	if m[name] == nil {
		m[name] = map[string]map[string]map[int]bool{}
	}
	if m[name][caller] == nil {
		m[name][caller] = map[string]map[int]bool{}
	}
	if m[name][caller][at] == nil {
		m[name][caller][at] = map[int]bool{}
	}
	m[name][caller][at][status] = true
}

// text is the matrix for people: each route with what it needs, and below it each
// kind of answer with the callers that get it.
func (m matrix) text(callers []string) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "What each caller is answered at each route, where the ids of the path are\n%s.\n", strings.Join(columns, " | "))
	fmt.Fprint(&b, "A cell with two numbers depends on which of the ids it is. Written by: go test ./test -run TestCrossCompany -update\n")
	for _, r := range web.Routes() {
		name := r.Method + " " + r.Pattern
		if m[name] == nil {
			continue
		}
		fmt.Fprintf(&b, "\n%s", name)
		if r.Need != 0 {
			fmt.Fprintf(&b, "   needs %s", r.Need)
		}
		b.WriteByte('\n')
		rows := map[string][]string{}
		for _, caller := range callers {
			var cells []string
			for _, at := range columns {
				var codes []string
				for _, code := range slices.Sorted(maps.Keys(m[name][caller][at])) {
					codes = append(codes, strconv.Itoa(code))
				}
				if len(codes) == 0 {
					codes = []string{"-"}
				}
				cells = append(cells, fmt.Sprintf("%-7s", strings.Join(codes, "/")))
			}
			row := strings.Join(cells, " ")
			rows[row] = append(rows[row], caller)
		}
		for _, row := range slices.Sorted(maps.Keys(rows)) {
			fmt.Fprintf(&b, "    %s  %s\n", row, strings.Join(rows[row], ", "))
		}
	}
	return b.Bytes()
}

// golden holds the matrix against the file.
func (m matrix) golden(t *testing.T, callers []string) {
	t.Helper()
	got := m.text(callers)
	if *updateMatrix {
		if err := os.WriteFile(matrixFile, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(matrixFile)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(got, want) {
		return
	}
	g, w := strings.Split(string(got), "\n"), strings.Split(string(want), "\n")
	for i := range min(len(g), len(w)) {
		if g[i] != w[i] {
			t.Fatalf("%s differs from line %d on; if that is meant, run with -update:\ngot  %s\nwant %s", matrixFile, i+1, g[i], w[i])
		}
	}
	t.Fatalf("%s has %d lines, want %d", matrixFile, len(w), len(g))
}
