package web

import (
	"bulkhead/egress"
	"bytes"

	"github.com/valyala/fasthttp"
)

// serve answers a request on the public listener.
func (g *Gateway) serve(rc *fasthttp.RequestCtx) {
	defer g.leave(rc)
	if rc.ConnRequestNum() == 1 {
		g.unasked.asked(rc.Conn())
	}
	if g.cors(rc) {
		return
	}
	r, params, err := g.routes.find(rc)
	if ambiguous := refuse(rc); ambiguous != nil {
		err = ambiguous
	}
	switch {
	case err != nil:
		g.serveRefusal(rc, err)
	case r.infer != 0:
		g.serveInference(rc, r.infer)
	default:
		g.serveManagement(rc, r, params)
		drain(rc) // of a method that has no use for a body: the next request stands behind it
	}
}

// leave tells the client of a gateway that retires to connect anew: see Retire.
func (g *Gateway) leave(rc *fasthttp.RequestCtx) {
	if g.retiring.Load() {
		rc.SetConnectionClose()
	}
}

// refuse finds what makes a request ambiguous or endless before it is looked at.
func refuse(rc *fasthttp.RequestCtx) error {
	h := &rc.Request.Header
	sized, encoded := hasHeader(h.RawHeaders(), "content-length"), hasHeader(h.RawHeaders(), "transfer-encoding")
	if encoded && (sized || h.ContentLength() != -1) { // both, or an encoding that fasthttp overlooks
		rc.SetConnectionClose()
		return errSmuggling
	}
	if _, ok := hops(rc); !ok {
		return errHops
	}
	return nil
}

// hops counts the gateways the request came through; see egress.
func hops(rc *fasthttp.RequestCtx) (int, bool) {
	v := rc.Request.Header.Peek(egress.HopsHeader)
	if len(v) == 0 {
		return 0, true
	}
	return egress.Hops(string(v))
}

// hasHeader looks for a header in the bytes as they were sent.
func hasHeader(raw []byte, name string) bool {
	for len(raw) > 0 {
		var line []byte
		line, raw, _ = bytes.Cut(raw, []byte{'\n'})
		k, _, ok := bytes.Cut(line, []byte{':'})
		if k = bytes.TrimSpace(k); ok && len(k) == len(name) && bytes.EqualFold(k, []byte(name)) {
			return true
		}
	}
	return false
}

// serveRefusal answers what has no call and no company.
func (g *Gateway) serveRefusal(rc *fasthttp.RequestCtx, err error) {
	drain(rc)
	rc.Response.Header.Set("X-Request-Id", requestID())
	writeError(rc, err)
	_, _, code, _ := explain(err)
	g.metrics.refused(code)
}

// serveBroken answers what fasthttp could not read as a request.
func (g *Gateway) serveBroken(rc *fasthttp.RequestCtx, err error) {
	rc.SetConnectionClose()
	g.serveRefusal(rc, brokenRequest(err))
}
