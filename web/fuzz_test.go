package web

import (
	"bytes"
	"strings"
	"testing"

	"github.com/valyala/fasthttp"
)

// FuzzRoutes: whatever stands in the first line of a request, it is one line of
// the table or nothing, and the parameters are parts of the path.
func FuzzRoutes(f *testing.F) {
	for _, r := range Routes() {
		f.Add(r.Method, r.Pattern)
	}
	for _, path := range []string{"", "/", "//v1//models", "/v1/models/", "/v1/models/a/b", "/v1/models//", "/v1/../admin/companies", "/v1/models/%2e%2e/x",
		"/v1/organization/projects//archive", "/v1/organization/projects/p/api_keys/", "http://h/v1/models", "/v1/models\x00", "/v1/models?x=/y", "/v1/models#/x", "\\v1\\models"} {
		f.Add("GET", path)
	}
	public, ops := newRouteTable(publicRoutes), newRouteTable(opsRoutes)
	f.Fuzz(func(t *testing.T, method, path string) {
		var rc fasthttp.RequestCtx
		rc.Request.Header.SetMethod(method)
		rc.Request.SetRequestURI(path)
		for _, table := range []*routeTable{public, ops} {
			r, params, err := table.find(&rc)
			if (r == nil) == (err == nil) {
				t.Fatalf("%q: %v, %v", path, r, err)
			}
			if err != nil {
				continue
			}
			if r.method != string(rc.Method()) {
				t.Fatalf("%s %q is served as %s %s", method, path, r.method, r.pattern)
			}
			// The pattern with its parameters put in is the path.
			built := r.pattern
			for _, p := range params {
				if p.value == "" || strings.Contains(p.value, "/") && !strings.Contains(r.pattern, "{"+p.name+"...}") {
					t.Fatalf("%q: parameter %s is %q", path, p.name, p.value)
				}
			}
			for i := len(params) - 1; i >= 0; i-- { // from behind: a value may look like a mark
				at := strings.LastIndex(built, "{"+params[i].name)
				end := at + strings.IndexByte(built[at:], '}') + 1
				built = built[:at] + params[i].value + built[end:]
			}
			if built != string(rc.Path()) {
				t.Fatalf("%q is served as %s: %q", rc.Path(), r.pattern, built)
			}
			if bytes.Contains(rc.Path(), []byte("/../")) {
				t.Fatalf("%q has a way up", rc.Path())
			}
		}
	})
}
