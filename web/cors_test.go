package web

import (
	"net/http"
	"testing"

	"bulkhead/tenant"
)

// TestCORS: pages of listed origins may read answers and errors, others may not,
// and by default nobody is listed.
func TestCORS(t *testing.T) {
	preflight := []string{"Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "authorization,content-type,x-stainless-lang,x-stainless-retry-count"}
	f := func(l *lab, origin string, allowed string) {
		t.Helper()
		key, _ := l.company("acme"+origin, tenant.KeyLive, nil)
		check := func(what string, a answerGot, status int) {
			t.Helper()
			if a.status != status || a.header.Get("Access-Control-Allow-Origin") != allowed || a.header.Get("Access-Control-Allow-Credentials") != "" {
				t.Errorf("%s of %q: %s", what, origin, a)
			}
		}
		status := http.StatusNoContent
		if allowed == "" {
			status = http.StatusMethodNotAllowed
		}
		a := l.do("OPTIONS", "", "/v1/chat/completions", "", append([]string{"Origin", origin}, preflight...)...)
		check("preflight", a, status)
		if got := a.header.Get("Access-Control-Allow-Headers"); (got == preflight[3]) != (allowed != "") {
			t.Errorf("headers %q", got)
		}
		check("call", l.do("POST", key, "/v1/chat/completions", chatBody("up/ok", ""), "Origin", origin), 200)
		check("stream", l.do("POST", key, "/v1/chat/completions", chatBody("up/ok", streaming), "Origin", origin), 200)
		check("error", l.do("POST", "", "/v1/chat/completions", "{}", "Origin", origin), 401)
		check("no path", l.do("GET", key, "/v1/nothing", "", "Origin", origin), 404)
	}
	f(newLab(t, labOptions{}), "https://app.example.com", "")
	l := newLab(t, labOptions{settings: func(s *Settings) { s.Origins = []string{"https://app.example.com", "http://localhost:3000"} }})
	f(l, "https://app.example.com", "https://app.example.com")
	f(l, "http://localhost:3000", "http://localhost:3000")
	f(l, "https://evil.example.com", "")
	f(l, "https://app.example.com.evil.com", "")
	f(l, "null", "")
	f(newLab(t, labOptions{settings: func(s *Settings) { s.Origins = []string{"*"} }}), "https://any.example.com", "*")
}
