package web

import (
	"encoding/json"
	"errors"
	"net"
	"os"
	"slices"
	"strings"

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

// health is what /healthz and /readyz say.
type health struct {
	Status string `json:"status"` // "ok" or "not ready"
	// Reason says in one line why the gateway is not ready.
	Reason string `json:"reason,omitempty"`
	// Away are the servers that do not do what they should, also those that
	// the gateway can be without for a while.
	Away []awayBackend `json:"away,omitempty"`
}

type awayBackend struct {
	Backend string `json:"backend"`
	Reason  string `json:"reason"`
	Seconds int64  `json:"seconds"` // since when
}

// serveHealth says that the process runs and, for readiness, that it should be
// sent requests. No model is called, and nobody is waited for. What the query
// says with exclude=NAME, as often as one likes, does not count: where every
// gateway is told to go when the database is away, none is left to serve the
// keys that it knows.
func (g *Gateway) serveHealth(rc *fasthttp.RequestCtx, readiness bool) {
	h := health{Status: "ok"}
	if readiness {
		h = g.readiness(func(name string) bool {
			return slices.ContainsFunc(rc.QueryArgs().PeekMulti("exclude"), func(v []byte) bool { return string(v) == name })
		})
	}
	if h.Status != "ok" {
		rc.SetStatusCode(fasthttp.StatusServiceUnavailable)
	}
	body, err := json.Marshal(h)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	rc.Response.Header.SetContentType("application/json")
	rc.SetBody(body)
}

// maxReason bounds what is shown of an error, in bytes.
const maxReason = 300

func (g *Gateway) readiness(excluded func(name string) bool) health {
	h := health{Status: "ok"}
	not := func(reason string) {
		h.Status = "not ready"
		if h.Reason == "" {
			h.Reason = reason
		}
	}
	if !g.ready.Load() {
		not("it is starting or stopping")
	}
	for _, s := range g.Backends.States() {
		if s.Err == nil {
			continue
		}
		why := s.Err.Error()
		why = strings.ToValidUTF8(why[:min(len(why), maxReason)], "")
		h.Away = append(h.Away, awayBackend{s.Name, why, int64(s.Away.Seconds())})
		if s.Bad && !excluded(s.Name) {
			not(s.Name + " is away")
		}
	}
	return h
}

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
