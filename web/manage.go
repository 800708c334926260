package web

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/valyala/fasthttp"

	"bulkhead/fault"
	"bulkhead/keystore"
	"bulkhead/openai"
	"bulkhead/rag"
	"bulkhead/tenant"
)

// manageFunc answers a request that is not a call to a model. What it returns
// is written as JSON. A nil result with a nil error means that it wrote itself.
type manageFunc func(g *Gateway, r *request) (any, error)

// request is a management request.
type request struct {
	ctx      context.Context
	rc       *fasthttp.RequestCtx // for query and header, until the handler returns
	id       string
	settings *Settings
	scope    tenant.Scope    // of a company's key
	scoped   bool            // scope is proved
	operator tenant.Operator // on the operator's listener
	params   []param
	token    []byte // that is to be exchanged, at tokenPath
}

// maxManageBody bounds the body of a management request, in bytes.
const maxManageBody = 1 << 20

// manageTimeout bounds a management request.
const manageTimeout = 30 * time.Second

// serveManagement answers a request that is not a call to a model.
func (g *Gateway) serveManagement(rc *fasthttp.RequestCtx, rt *route, params []param) {
	start := time.Now()
	r := &request{rc: rc, id: requestID(), settings: g.settings.Load(), params: params}
	ctx, cancel := context.WithTimeout(context.Background(), manageTimeout)
	defer cancel()
	r.ctx = ctx
	rc.Response.Header.Set("X-Request-Id", r.id)

	result, err := g.managed(r, rt)
	if err == nil && result != nil {
		err = writeJSON(rc, result)
	}
	if err != nil {
		drain(rc)
		err = known(err)
		if rt.pattern == tokenPath {
			writeOAuthError(rc, err)
		} else {
			writeError(rc, err)
		}
	}
	rc.Response.Header.Set("Openai-Processing-Ms", fmt.Sprint(time.Since(start).Milliseconds()))
	g.endManagement(r, rt, start, err)
}

// managed checks the key, reads the body and runs the handler. A panic becomes
// an error: fasthttp would let the process die.
func (g *Gateway) managed(r *request, rt *route) (result any, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = panicked(p)
		}
	}()
	switch rt.who {
	case anyone:
	case operator:
		r.operator, err = g.Tenants.AuthenticateOperator(r.ctx, apiKey(r.rc))
	default:
		r.scope, err = g.authenticate(r, rt)
		r.scoped = err == nil || err == error(errCSRF) // proved, and refused for something else
		if err == nil {
			err = rt.admit(r.scope, r.place())
		}
		if err == nil {
			err = g.checkAddress(r.rc, r.scope)
		}
	}
	if err != nil {
		return nil, err
	}
	return rt.manage(g, r)
}

// admit refuses who is not let in by the route, or may not do what it needs: in
// the project that the path names, else where the key is. Nothing is looked up,
// so the answer is the same for ids that are there and that are not.
func (r *route) admit(s tenant.Scope, project string) error {
	if !r.who.admits(s.Key().Kind) {
		return errKindOfKey(r.who)
	}
	if project == "" {
		project = s.ProjectID()
	}
	return permitted(s, project, r.need, r.part)
}

func errKindOfKey(w who) error {
	switch {
	case w&admin != 0:
		return fault.New(fault.Forbidden, "This address needs an admin key of your company (sk-bh-admin-…).").WithCode("admin_key_required")
	case w == session:
		return fault.New(fault.Forbidden, "This address is for people who have logged in.").WithCode("session_required")
	}
	return fault.New(fault.Forbidden, "This address needs a key of a project.").WithCode("project_key_required")
}

// readSmall returns the body of a management request, copied.
func readSmall(rc *fasthttp.RequestCtx) ([]byte, error) {
	if rc.Request.Header.ContentLength() > maxManageBody {
		return nil, tooLarge(maxManageBody)
	}
	s := rc.RequestBodyStream()
	if s == nil {
		return nil, nil
	}
	b, err := io.ReadAll(io.LimitReader(s, maxManageBody+1))
	if err != nil {
		return nil, bodyError(err)
	}
	if len(b) > maxManageBody {
		return nil, tooLarge(maxManageBody)
	}
	return b, nil
}

// known turns the errors of stores into what a client is told. A foreign id
// and one that never was give the same answer.
func known(err error) error {
	switch {
	case errors.Is(err, tenant.ErrNotFound), errors.Is(err, keystore.ErrNotFound):
		return errNoObject
	case isNoFile(err):
		return errNoObject
	case errors.Is(err, keystore.ErrConflict):
		return fault.New(fault.Conflict, "Somebody else changed this at the same time. Try again.")
	}
	return err
}

func isNoFile(err error) bool {
	_, ok := errors.AsType[*rag.NoFileError](err)
	return ok
}

var errNoObject = fault.New(fault.NotFound, "No such object, or it is not yours.").WithCode("not_found")

// endManagement writes the one line of a management request and counts it.
func (g *Gateway) endManagement(r *request, rt *route, start time.Time, err error) {
	status := r.rc.Response.StatusCode()
	g.metrics.managed(rt, status)
	level := slog.LevelInfo
	attrs := []slog.Attr{slog.String("id", r.id), slog.String("method", rt.method), slog.String("route", rt.pattern),
		slog.Int("status", status), slog.Int64("ms", time.Since(start).Milliseconds())}
	if r.scoped {
		attrs = append(attrs, slog.String("company", r.scope.ID().String()), slog.String("key", r.scope.KeyID()))
		if u := r.scope.UserID(); u != "" {
			attrs = append(attrs, slog.String("user", u))
		}
	}
	if err != nil {
		g.denied(r, rt, err)
		if fault.Is(fault.As(err), fault.Internal) {
			level = slog.LevelError
		}
		attrs = append(attrs, slog.String("error", loggable(err)))
	}
	g.Log.LogAttrs(context.Background(), level, "management", attrs...)
}

// param returns a parameter of the path.
func (r *request) param(name string) string {
	for _, p := range r.params {
		if p.name == name {
			return p.value
		}
	}
	panic("BUG: the route has no parameter " + name)
}

// query returns a parameter of the query, "" if it is absent.
func (r *request) query(name string) string { return string(r.rc.QueryArgs().Peek(name)) }

// page reads limit, after, before and order from the query.
func (r *request) page(limit, most int) (openai.Page, error) {
	return openai.ParsePage(r.query, limit, most)
}

// decode reads the body, which may be read once, into v. A field that v does not have is an error that
// names it: nothing a client asks for is dropped in silence.
func (r *request) decode(v any) (err error) {
	body, err := readSmall(r.rc)
	if err != nil {
		return err
	}
	if len(bytes.TrimSpace(body)) == 0 {
		body = []byte("{}")
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	err = d.Decode(v)
	if err == nil {
		if _, err := d.Token(); err != io.EOF {
			return fault.New(fault.Invalid, "There is more in the body than one JSON object.")
		}
		return nil
	}
	if field, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
		field = strings.Trim(field, `"`)
		return fault.Field(field, "Unknown or unsupported field: %.64s.", field)
	}
	if te, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return fault.Field(te.Field, "Field %.64s must be %s, not %s.", te.Field, kindOf(te.Type.Kind().String()), te.Value)
	}
	if f, ok := errors.AsType[*fault.Error](err); ok {
		return f
	}
	return fault.New(fault.Invalid, "The request body is not valid JSON.")
}

// kindOf names a Go kind as JSON does.
func kindOf(kind string) string {
	switch {
	case strings.HasPrefix(kind, "int"), strings.HasPrefix(kind, "uint"):
		return "a whole number"
	case kind == "string":
		return "a string"
	case kind == "bool":
		return "true or false"
	case kind == "slice":
		return "an array"
	}
	return "an object"
}

func writeJSON(rc *fasthttp.RequestCtx, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("cannot encode the answer: %w", err)
	}
	rc.Response.Header.SetContentType("application/json")
	rc.Response.SetBodyRaw(b)
	return nil
}
