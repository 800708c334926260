package web

import (
	"bytes"
	"encoding/json"
	"io"
	"mime"
	"net/url"

	"github.com/valyala/fasthttp"

	"bulkhead/audit"
	"bulkhead/fault"
	"bulkhead/tenant"
)

// tokenPath is where tokens are exchanged for keys (RFC 8693), as the workload
// identity of OpenAI's SDKs does. Its errors have the form of OAuth's.
const tokenPath = "/v1/oauth/token"

// What OAuth calls things.
const (
	grantExchange = "urn:ietf:params:oauth:grant-type:token-exchange"
	typeJWT       = "urn:ietf:params:oauth:token-type:jwt"
	typeIDToken   = "urn:ietf:params:oauth:token-type:id_token"
	typeAccess    = "urn:ietf:params:oauth:token-type:access_token"
)

// exchangeAnswer is the answer of RFC 8693, section 2.2.1.
type exchangeAnswer struct {
	AccessToken string `json:"access_token"`
	IssuedType  string `json:"issued_token_type"`
	TokenType   string `json:"token_type"`
	ExpiresIn   int64  `json:"expires_in"`
}

// exchangeToken gives out a key for a token of a company's identity provider.
// Nobody is asked for a key: the token is the proof.
func (g *Gateway) exchangeToken(r *request) (any, error) {
	noStore(r.rc)
	body, err := readSmall(r.rc)
	if err != nil {
		return nil, err
	}
	form, err := parseForm(string(r.rc.Request.Header.ContentType()), body)
	if err != nil {
		return nil, err
	}
	if err := checkGrant(form); err != nil {
		return nil, err
	}
	r.token = []byte(form["subject_token"])
	x, err := g.Tenants.Exchange(r.ctx, tenant.Exchange{Token: r.token, Provider: form["identity_provider_id"], AccountID: form["service_account_id"]})
	if err != nil {
		return nil, err
	}
	r.scope, r.scoped = x.Scope, true
	g.Audit.Issued(audit.Proved(x.Scope), x.Scope.Rule().ID)
	return exchangeAnswer{x.Value, typeAccess, "Bearer", int64(x.For.Seconds())}, nil
}

// noStore keeps what is answered, a key or why there is none, from being kept.
func noStore(rc *fasthttp.RequestCtx) {
	rc.Response.Header.Set("Cache-Control", "no-store")
	rc.Response.Header.Set("Pragma", "no-cache")
}

func badGrant(code, format string, a ...any) error {
	return fault.New(fault.Invalid, format, a...).WithCode(code)
}

func checkGrant(form map[string]string) error {
	for _, name := range []string{"grant_type", "subject_token", "subject_token_type", "identity_provider_id", "service_account_id"} {
		if form[name] == "" {
			return badGrant("invalid_request", "%s is required.", name)
		}
	}
	switch kind := form["subject_token_type"]; {
	case form["grant_type"] != grantExchange:
		return badGrant("unsupported_grant_type", "grant_type must be %s.", grantExchange)
	case kind != typeJWT && kind != typeIDToken:
		return badGrant("invalid_request", "subject_token_type must be %s or %s.", typeJWT, typeIDToken)
	case form["actor_token"] != "" || form["actor_token_type"] != "":
		return badGrant("invalid_request", "Nobody can act for another here: leave out actor_token.")
	}
	if kind := form["requested_token_type"]; kind != "" && kind != typeAccess {
		return badGrant("invalid_request", "requested_token_type must be %s.", typeAccess)
	}
	return nil
}

// parseForm reads the parameters, in the form of RFC 8693 or as the JSON object
// that the SDKs send. One that comes twice is refused, one that is not known is
// not looked at, as RFC 6749 has it.
func parseForm(contentType string, body []byte) (map[string]string, error) {
	kind, _, _ := mime.ParseMediaType(contentType)
	switch kind {
	case "application/json":
		return parseJSONForm(body)
	case "application/x-www-form-urlencoded":
	default:
		return nil, badGrant("invalid_request", "The content type must be application/json or application/x-www-form-urlencoded.")
	}
	values, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, badGrant("invalid_request", "The body is no form.")
	}
	form := make(map[string]string, len(values))
	for name, v := range values {
		if len(v) > 1 {
			return nil, errParameterTwice
		}
		form[name] = v[0]
	}
	return form, nil
}

var (
	errParameterTwice = badGrant("invalid_request", "A parameter is in the body twice.")
	errNoJSONForm     = badGrant("invalid_request", "The body must be one JSON object.")
)

func parseJSONForm(body []byte) (map[string]string, error) {
	d := json.NewDecoder(bytes.NewReader(body))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, errNoJSONForm
	}
	form, seen := map[string]string{}, map[string]bool{}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return nil, errNoJSONForm
		}
		var v any
		if err := d.Decode(&v); err != nil {
			return nil, errNoJSONForm
		}
		key, _ := name.(string)
		if seen[key] {
			return nil, errParameterTwice
		}
		seen[key] = true
		if s, is := v.(string); is {
			form[key] = s
		}
	}
	if _, err := d.Token(); err != nil {
		return nil, errNoJSONForm
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errNoJSONForm
	}
	return form, nil
}

// writeOAuthError answers with err in the form of RFC 6749, section 5.2. A token
// that is refused has the code that the SDKs know for it.
func writeOAuthError(rc *fasthttp.RequestCtx, err error) {
	writeError(rc, err)
	noStore(rc)
	f := fault.As(err)
	status, code := rc.Response.StatusCode(), "server_error"
	switch f.Kind {
	case fault.Invalid:
		code = f.Code
	case fault.TooLarge, fault.RequestTimeout:
		code = "invalid_request"
	case fault.Unauthenticated:
		status, code = fasthttp.StatusBadRequest, "invalid_subject_token"
	case fault.Forbidden:
		status, code = fasthttp.StatusBadRequest, "invalid_grant"
	case fault.Unavailable, fault.RateLimited:
		code = "temporarily_unavailable"
	}
	if code == "" {
		code = "invalid_request"
	}
	rc.Response.Header.Del("WWW-Authenticate")
	rc.SetStatusCode(status)
	b, err := json.Marshal(map[string]string{"error": code, "error_description": f.Message})
	if err != nil {
		panic("BUG: " + err.Error())
	}
	rc.Response.SetBodyRaw(b)
}
