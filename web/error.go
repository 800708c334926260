package web

import (
	"strconv"
	"time"

	"github.com/valyala/fasthttp"

	"bulkhead/fault"
	"bulkhead/openai"
)

// answer is how a kind of fault is told to a client. This table is the only
// place where a kind becomes a status, a type or a code; nobody else sets one.
type answer struct {
	status int
	typ    string
	code   string
}

var answers = [...]answer{
	fault.Internal:         {500, "server_error", "internal_error"},
	fault.Invalid:          {400, "invalid_request_error", ""},
	fault.Unauthenticated:  {401, "invalid_request_error", "invalid_api_key"},
	fault.Forbidden:        {403, "invalid_request_error", "forbidden"},
	fault.NotFound:         {404, "invalid_request_error", "not_found"},
	fault.MethodNotAllowed: {405, "invalid_request_error", "method_not_allowed"},
	fault.RequestTimeout:   {408, "invalid_request_error", "request_timeout"},
	fault.Conflict:         {409, "invalid_request_error", "conflict"},
	fault.TooLarge:         {413, "invalid_request_error", "request_too_large"},
	fault.HeaderTooLarge:   {431, "invalid_request_error", "request_header_too_large"},
	fault.RateLimited:      {429, "requests", "rate_limit_exceeded"},
	fault.OverBudget:       {429, "insufficient_quota", "insufficient_quota"},
	fault.Upstream:         {502, "server_error", "upstream_error"},
	fault.Unavailable:      {503, "server_error", "unavailable"},
	fault.Timeout:          {504, "server_error", "upstream_timeout"},
	fault.ClientLeft:       {499, "invalid_request_error", "client_closed_request"}, // as nginx counts it
}

// explain returns what the client is told of err: the status and the four
// fields of OpenAI's envelope.
func explain(err error) (status int, typ, code string, f *fault.Error) {
	f = fault.As(err)
	a := answers[f.Kind]
	status, typ, code = a.status, a.typ, a.code
	if f.Kind == fault.Upstream && f.Status >= 400 && f.Status <= 599 {
		status = f.Status
		if status < 500 {
			typ = "invalid_request_error"
		}
	}
	if f.Type != "" {
		typ = f.Type
	}
	if f.Code != "" {
		code = f.Code
	}
	return status, typ, code, f
}

// writeError answers with err in OpenAI's envelope.
func writeError(rc *fasthttp.RequestCtx, err error) {
	status, typ, code, f := explain(err)
	rc.Response.ResetBody()
	rc.SetStatusCode(status)
	h := &rc.Response.Header
	h.SetContentType("application/json")
	if f.RetryAfter > 0 {
		h.Set("Retry-After-Ms", strconv.FormatInt(int64((f.RetryAfter+time.Millisecond-1)/time.Millisecond), 10))
		h.Set("Retry-After", strconv.FormatInt(int64((f.RetryAfter+time.Second-1)/time.Second), 10))
	}
	if f.NoRetry {
		h.Set("X-Should-Retry", "false")
	}
	if f.Kind == fault.Unauthenticated {
		h.Set("WWW-Authenticate", "Bearer")
	}
	rc.Response.SetBodyRaw(openai.AppendError(nil, f.Message, typ, f.Param, code))
}
