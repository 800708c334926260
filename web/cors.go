package web

import (
	"slices"
	"strings"

	"github.com/valyala/fasthttp"
)

// What browsers may send and read across origins. Keys go in a header that a page
// must name itself; cookies never cross an origin here.
const (
	corsMethods = "GET, POST, DELETE, OPTIONS"
	corsExposed = "x-request-id, openai-processing-ms, retry-after, retry-after-ms, x-should-retry, " +
		"x-ratelimit-limit-requests, x-ratelimit-remaining-requests, x-ratelimit-reset-requests, " +
		"x-ratelimit-limit-tokens, x-ratelimit-remaining-tokens, x-ratelimit-reset-tokens, " +
		"x-bulkhead-provider, x-bulkhead-model, x-bulkhead-overhead-ms, x-bulkhead-knowledge, " +
		"x-bulkhead-cost-usd, x-bulkhead-budget-remaining-usd, x-bulkhead-attempts, x-bulkhead-max-output-tokens, x-conversation-id"
	corsAge = "600" // seconds for which a browser remembers what it may do
)

// cors lets pages of the origins that the operator lists read what the gateway
// answers. It reports whether the request was only the browser's question whether
// it may ask, which is answered then. By default no origin is listed, and nothing
// here does anything.
func (g *Gateway) cors(rc *fasthttp.RequestCtx) (answered bool) {
	origins := g.settings.Load().Origins
	if len(origins) == 0 {
		return false
	}
	h := &rc.Response.Header
	h.Add("Vary", "Origin")
	origin := string(rc.Request.Header.Peek("Origin"))
	any := slices.Contains(origins, "*")
	if origin == "" || !any && !slices.Contains(origins, origin) {
		return false
	}
	if any {
		origin = "*"
	}
	h.Set("Access-Control-Allow-Origin", origin)
	h.Set("Access-Control-Expose-Headers", corsExposed)
	if !rc.IsOptions() || len(rc.Request.Header.Peek("Access-Control-Request-Method")) == 0 {
		return false
	}
	h.Set("Access-Control-Allow-Methods", corsMethods)
	if asked := string(rc.Request.Header.Peek("Access-Control-Request-Headers")); headerNames(asked) {
		h.Set("Access-Control-Allow-Headers", asked)
	}
	h.Set("Access-Control-Max-Age", corsAge)
	rc.SetStatusCode(fasthttp.StatusNoContent)
	drain(rc)
	return true
}

// headerNames reports whether s is a list of names of headers.
func headerNames(s string) bool {
	return s != "" && len(s) <= 4096 && !strings.ContainsFunc(s, func(c rune) bool {
		return !(c < 0x80 && (c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || strings.ContainsRune("-_, ", c)))
	})
}
