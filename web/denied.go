package web

import (
	"github.com/valyala/fasthttp"

	"bulkhead/audit"
	"bulkhead/fault"
	"bulkhead/openai"
	"bulkhead/tenant"
)

// denial reports whether err refuses access: what the key may not do, does not
// see, or is not. A limit that was reached is none of these.
func denial(err error) (code string, ok bool) {
	if err == nil {
		return "", false
	}
	_, _, code, f := explain(err)
	switch f.Kind {
	case fault.Unauthenticated, fault.Forbidden, fault.NotFound:
		return code, true
	}
	return "", false
}

// denied has a refused management request counted for the audit log of the
// company whose key it came with, or says it did; see audit.Tally.
func (g *Gateway) denied(r *request, rt *route, err error) {
	if code, ok := denial(err); ok {
		g.deny(g.caller(r), rt.name(), code)
	}
}

// denied has a refused call counted likewise.
func (c *call) denied(err error) {
	code, ok := denial(err)
	if !ok {
		return
	}
	who := c.refused
	if c.opened {
		who = proved(c.scope)
	}
	c.g.deny(who, c.g.routes.inference(c.endpoint), code)
}

func (g *Gateway) deny(who *audit.Caller, route, code string) {
	if who != nil {
		g.Audit.Denied(*who, route, code)
	}
}

func proved(s tenant.Scope) *audit.Caller {
	c := audit.Proved(s)
	return &c
}

// claimed returns whom the key of a refused request names; nil: nobody here.
func (g *Gateway) claimed(rc *fasthttp.RequestCtx) *audit.Caller { return g.claimedBy(apiKey(rc)) }

func (g *Gateway) claimedBy(key []byte) *audit.Caller {
	claim, ok := g.Tenants.Claim(key)
	if !ok {
		return nil
	}
	c := audit.Claimed(claim)
	return &c
}

// caller returns who a management request is by; nil: nobody here.
func (g *Gateway) caller(r *request) *audit.Caller {
	switch {
	case r.scoped:
		return proved(r.scope)
	case r.token != nil:
		return g.claimedBy(r.token)
	}
	return g.claimed(r.rc)
}

// name is what the route is called in the audit log.
func (r *route) name() string { return r.method + " " + r.pattern }

// inference names the route of calls to models at that endpoint.
func (t *routeTable) inference(e openai.Endpoint) string {
	for _, routes := range t.exact {
		for _, r := range routes {
			if r.infer == e {
				return r.name()
			}
		}
	}
	panic("BUG: an endpoint without a route")
}
