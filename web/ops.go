package web

import (
	"errors"
	"net"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/valyala/fasthttp"
	"github.com/valyala/fasthttp/fasthttpadaptor"
	"github.com/valyala/fasthttp/pprofhandler"

	"bulkhead/fault"
)

// serveOps answers a request on the operator's listener. It is bound to
// loopback unless the operator says otherwise: metrics and profiles take no key.
func (g *Gateway) serveOps(rc *fasthttp.RequestCtx) {
	path := string(rc.Path())
	if len(path) > len("/debug/pprof") && path[:len("/debug/pprof")] == "/debug/pprof" {
		pprofhandler.PprofHandler(rc)
		return
	}
	r, params, err := g.ops.find(rc)
	if ambiguous := refuse(rc); ambiguous != nil {
		err = ambiguous
	}
	switch {
	case err != nil:
		g.serveRefusal(rc, err)
	case r.manage != nil:
		g.serveManagement(rc, r, params)
	case path == "/metrics":
		g.metrics.serve(rc)
	default:
		g.serveHealth(rc, path == "/readyz")
	}
}

// serveHealth says that the process runs and, for readiness, that it should be
// sent requests. No model is called.
func (g *Gateway) serveHealth(rc *fasthttp.RequestCtx, readiness bool) {
	rc.Response.Header.SetContentType("application/json")
	if readiness && !g.ready.Load() {
		rc.SetStatusCode(fasthttp.StatusServiceUnavailable)
		rc.SetBodyString(`{"status":"not ready"}`)
		return
	}
	if readiness && g.Tenants.Stale() > staleNews {
		rc.SetStatusCode(fasthttp.StatusServiceUnavailable)
		rc.SetBodyString(`{"status":"not ready","reason":"the store does not answer"}`)
		return
	}
	if readiness && g.Health != nil {
		for name, err := range g.Health() {
			if err != nil {
				rc.SetStatusCode(fasthttp.StatusServiceUnavailable)
				rc.SetBodyString(`{"status":"not ready","reason":"` + name + ` does not answer"}`)
				return
			}
		}
	}
	rc.SetBodyString(`{"status":"ok"}`)
}

// staleNews is how long the store may not answer before readiness says so.
// Known keys go on working for max_stale.
const staleNews = 10 * time.Second

func (m *metrics) serve(rc *fasthttp.RequestCtx) {
	fasthttpadaptor.NewFastHTTPHandler(promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{}))(rc)
}

// brokenRequest says what was wrong with bytes that fasthttp could not read as
// a request.
func brokenRequest(err error) error {
	var small *fasthttp.ErrSmallBuffer
	switch {
	case errors.As(err, &small):
		return fault.New(fault.HeaderTooLarge, "The header of the request is too large.")
	case errors.Is(err, fasthttp.ErrBodyTooLarge):
		return fault.New(fault.TooLarge, "The body of the request is too large.")
	case isTimeout(err):
		return fault.New(fault.RequestTimeout, "The request did not arrive in time.")
	}
	return fault.New(fault.Invalid, "The request is not valid HTTP.").WithCode("invalid_http")
}

func isTimeout(err error) bool {
	ne, ok := errors.AsType[net.Error](err)
	return ok && ne.Timeout() || errors.Is(err, os.ErrDeadlineExceeded)
}
