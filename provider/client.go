package provider

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http/httpguts"

	"bulkhead/egress"
	"bulkhead/fault"
	"bulkhead/openai"
)

// Timeouts bound one attempt. A zero field is its default.
type Timeouts struct {
	// Connect is for resolving and connecting, and once more for the TLS
	// handshake. Default 5 s, as the SDKs have it.
	Connect time.Duration

	// Header is from the start of the attempt (connecting included) to the
	// header of the answer. Without streaming that is when the model is done, so
	// it must be long: default 300 s.
	Header time.Duration

	// Idle is the longest silence within a body. Default 120 s: reasoning models
	// think for more than a minute between events, and send no comments then.
	Idle time.Duration

	// Total is for the whole attempt. Default 600 s, the SDKs' own.
	Total time.Duration
}

func (t Timeouts) withDefaults() Timeouts {
	set := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	set(&t.Connect, 5*time.Second)
	set(&t.Header, 300*time.Second)
	set(&t.Idle, 120*time.Second)
	set(&t.Total, 600*time.Second)
	return t
}

// Options are the settings of a Client; the zero value is what production wants.
type Options struct {
	Timeouts     Timeouts
	AllowPrivate bool              // credentials may name http and private addresses; laboratories only
	RootCAs      *x509.CertPool    // nil is the system's
	Resolver     *net.Resolver     // for addresses companies chose; nil is the system's
	Sandbox      http.RoundTripper // nil is a *SandboxTransport
}

// Client sends calls to upstreams. It is safe for concurrent use.
type Client struct {
	timeouts Timeouts
	private  bool
	operator *http.Transport   // built-in addresses and the operator's
	company  *http.Transport   // addresses companies chose: egress
	sandbox  http.RoundTripper // in process

	mu   sync.RWMutex
	urls map[urlKey]*url.URL
}

// idleConn is how long an unused connection to an upstream is kept. It is below
// the 60 s after which the usual load balancers close theirs: a POST written at
// that moment fails, and is not sent again by itself.
const idleConn = 50 * time.Second

// maxAnswerHeader bounds the header of an answer, in bytes.
const maxAnswerHeader = 64 << 10

// NewClient returns a client. Close it at the end.
func NewClient(o Options) *Client {
	t := o.Timeouts.withDefaults()
	c := &Client{
		timeouts: t,
		private:  o.AllowPrivate,
		sandbox:  o.Sandbox,
		urls:     make(map[urlKey]*url.URL),
		company: egress.NewTransport(egress.Options{
			AllowPrivate: o.AllowPrivate,
			Connect:      t.Connect,
			IdleConn:     idleConn,
			RootCAs:      o.RootCAs,
			Resolver:     o.Resolver,
		}),
		operator: &http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			DialContext:            (&net.Dialer{Timeout: t.Connect, KeepAlive: 30 * time.Second}).DialContext,
			TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: o.RootCAs},
			TLSHandshakeTimeout:    t.Connect,
			ForceAttemptHTTP2:      true,
			DisableCompression:     true,
			MaxIdleConns:           2048,
			MaxIdleConnsPerHost:    256,
			IdleConnTimeout:        idleConn,
			MaxResponseHeaderBytes: maxAnswerHeader,
			// A connection that died without a word takes all its streams with
			// it; pings find out before the idle timeout does.
			HTTP2: &http.HTTP2Config{SendPingTimeout: 30 * time.Second, PingTimeout: 15 * time.Second},
		},
	}
	if c.sandbox == nil {
		c.sandbox = &SandboxTransport{}
	}
	return c
}

// Close closes the connections nobody uses; calls under way go on. It is safe
// to call twice.
func (c *Client) Close() {
	c.operator.CloseIdleConnections()
	c.company.CloseIdleConnections()
}

// Call is what is sent: the same for each attempt.
type Call struct {
	Endpoint openai.Endpoint
	Body     []byte // JSON; must not change until the attempt's Reply is closed, or Send failed
	Stream   bool   // the body asks for a stream

	// Method and Path ask for something that the endpoint has made: the path below
	// the endpoint's, with its slash, made of parts that need no escapes; Query is
	// encoded. There is no body then.
	Method, Path, Query string

	// Form, if not nil, gives the body instead, each time from its start, which is
	// FormSize bytes of FormType.
	Form     func() io.Reader
	FormSize int64
	FormType string

	// Header are headers of the client's request. Only those of
	// PassedHeaders go on, the rest is dropped.
	Header [][2]string

	RequestID string // sent as X-Client-Request-Id if the client sent none
	Hops      int    // gateways the request went through; see egress.Hops
}

// PassedHeaders returns the names of the client's headers that go to the upstream.
func PassedHeaders() []string {
	return []string{"OpenAI-Beta", "Idempotency-Key", "X-Client-Request-Id"}
}

// Reply is an upstream's answer with a 2xx status.
type Reply struct {
	Status int
	Header http.Header // as the vendor sent it; pass on nothing from it unchecked

	// Body must be closed. Read it to io.EOF where possible: only then is the
	// connection used again. It ends with a *fault.Error: Timeout when the
	// upstream fell silent or the total time is over, Upstream wrapping
	// io.ErrUnexpectedEOF when it was cut. Its size is the caller's to limit.
	Body io.ReadCloser

	Size   int64 // bytes the vendor says Body has; below 0 it says nothing
	Stream bool  // the content type is text/event-stream
}

// Send makes one attempt at t with cred and returns the answer if its status is
// 2xx. It never follows a redirect and never tries again by itself, except that
// net/http opens a new connection for a request of which no byte was written,
// or which the server said it did not look at (GOAWAY, REFUSED_STREAM).
//
// Everything else is a *fault.Error, with Retriable set where another target
// may do better: statuses 408, 429 and 5xx; no connection, or none that lived
// until the header; an answer that is not HTTP; a timeout. Status is the
// vendor's; 502 where there is none, or a 1xx or 3xx. 401 and 403 keep their
// status and have the code provider_authentication_failed.
//
// If ctx is done, the error wraps ctx.Err() and is no *fault.Error.
//
// A credential of another company or provider than t's is a bug of the caller:
// fault.Internal, nothing is sent. A vendor that needs no secret takes the zero
// Credential.
func (c *Client) Send(ctx context.Context, t Target, cred Credential, call *Call) (*Reply, error) {
	if err := match(t, &cred); err != nil {
		return nil, err
	}
	rt, u, err := c.route(t.Vendor, &cred, call.Endpoint)
	if err != nil {
		return nil, err
	}
	if call.Path != "" {
		below := *u
		below.Path, below.RawPath, below.RawQuery = u.Path+call.Path, "", call.Query
		u = &below
	}
	w := c.watch(ctx)
	resp, err := rt.RoundTrip(newRequest(w.ctx, u, t.Vendor, &cred, call))
	if err != nil {
		err = w.failed(err, false)
		w.stop()
		return nil, err
	}
	w.answered(c.timeouts.Total)
	b := &body{rc: resp.Body, w: w}
	if err := check(resp, b, cred.Secret); err != nil {
		b.Close()
		return nil, err
	}
	stream := strings.HasPrefix(strings.ToLower(resp.Header.Get("Content-Type")), "text/event-stream")
	return &Reply{Status: resp.StatusCode, Header: resp.Header, Body: b, Size: resp.ContentLength, Stream: stream}, nil
}

// match refuses a credential that was not made for this company and provider.
// It is the last line of DESIGN's rule that a credential is a function of scope
// and target; whoever gets here with a wrong one has a bug.
func match(t Target, cred *Credential) error {
	switch {
	case t.Vendor == nil:
		return fault.New(fault.Internal, "BUG: a target without a vendor")
	case t.Vendor.Kind == Sandbox:
		return nil
	case t.Company == "":
		return fault.New(fault.Internal, "BUG: a target without a company")
	case cred.Company == "" && cred.Provider == "" && cred.Secret.Empty() && cred.BaseURL == "" && !t.Vendor.NeedsSecret:
		return nil
	case cred.Company != t.Owner() || cred.Provider != t.Provider:
		return fault.New(fault.Internal, "BUG: a credential of another company or provider")
	case cred.Secret.Empty() && t.Vendor.NeedsSecret:
		return fault.New(fault.Internal, "BUG: a credential without its secret")
	}
	return nil
}

// urlKey identifies an address that is not a vendor's own.
type urlKey struct {
	base, resource string
	endpoint       openai.Endpoint
}

// maxURLs bounds the cache of addresses companies chose.
const maxURLs = 4096

// route returns where the call goes and by which way.
func (c *Client) route(v *Vendor, cred *Credential, e openai.Endpoint) (http.RoundTripper, *url.URL, error) {
	if !v.Serves(e) {
		return nil, nil, fault.New(fault.Invalid, "the provider %s has no %s", v.Name, e).WithCode("unsupported_endpoint")
	}
	if v.Kind == Sandbox {
		return c.sandbox, v.urls[e], nil
	}
	if cred.BaseURL == "" && v.urls != nil {
		return c.operator, v.urls[e], nil // the fast path
	}
	if cred.BaseURL != "" {
		u, err := c.url(urlKey{cred.BaseURL, "", e})
		return c.company, u, err
	}
	if !v.resource() {
		return nil, nil, fault.Field("base_url", "the credential for %s has no base_url", v.Name)
	}
	u, err := c.url(urlKey{v.BaseURL, cred.Resource, e})
	return c.operator, u, err
}

// url returns the parsed and checked address of k. The cache is emptied when it
// is full: it saves a microsecond and must not grow with what companies type.
func (c *Client) url(k urlKey) (*url.URL, error) {
	c.mu.RLock()
	u := c.urls[k]
	c.mu.RUnlock()
	if u != nil {
		return u, nil
	}
	u, err := c.parse(k)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.urls) >= maxURLs {
		clear(c.urls)
	}
	c.urls[k] = u
	return u, nil
}

func (c *Client) parse(k urlKey) (*url.URL, error) {
	if strings.Contains(k.base, resourceMark) {
		if !resourceName(k.resource) {
			return nil, fault.Field("resource", "the credential has no valid resource")
		}
		u, err := url.Parse(strings.Replace(k.base, resourceMark, k.resource, 1) + k.endpoint.Path())
		if err != nil {
			return nil, fault.Wrap(fault.Internal, err, "the provider's address is wrong")
		}
		return u, nil
	}
	// Checked again although it was when it was set: what is stored may be older
	// than the rule.
	u, err := egress.CheckURL(k.base, c.private)
	if err != nil {
		return nil, err
	}
	u.Path += k.endpoint.Path()
	return u, nil
}

// Values of headers that are the same in each request. net/http reads them only.
var (
	jsonType  = []string{"application/json"}
	anyType   = []string{"*/*"}
	identity  = []string{"identity"}
	userAgent = []string{"bulkhead"}

	blank http.Request
)

// newRequest builds the request from nothing: what is not written here is not
// sent. The client's authorization, cookies and forwarding headers have no way
// in.
func newRequest(ctx context.Context, u *url.URL, v *Vendor, cred *Credential, call *Call) *http.Request {
	h := make(http.Header, 8+len(cred.Header))
	room := new([3]string) // of values, in one piece
	one := func(i int, v string) []string {
		room[i] = v
		return room[i : i+1 : i+1]
	}
	h["Content-Type"] = jsonType
	h["Accept"] = jsonType // for streams too, as the official SDKs do
	h["Accept-Encoding"] = identity
	h["User-Agent"] = userAgent
	for name, value := range cred.Header {
		if credentialHeader(name) {
			h[http.CanonicalHeaderKey(name)] = []string{value}
		}
	}
	if !passHeaders(h, call) && call.RequestID != "" {
		h["X-Client-Request-Id"] = one(2, call.RequestID)
	}
	if !cred.Secret.Empty() {
		switch v.Auth {
		case APIKeyHeader:
			h["Api-Key"] = one(0, cred.Secret.Reveal())
		case XAPIKey:
			h["X-Api-Key"] = one(0, cred.Secret.Reveal())
		default:
			h["Authorization"] = one(0, "Bearer "+cred.Secret.Reveal())
		}
	}
	if !v.BuiltinURL || cred.BaseURL != "" {
		h[egress.HopsHeader] = one(1, strconv.Itoa(call.Hops+1))
	}
	if call.Endpoint.Media() {
		h["Accept"] = anyType
	}
	body := call.Body
	r := blank.WithContext(ctx) // a copy
	r.Method, r.URL, r.Host = http.MethodPost, u, u.Host
	r.Proto, r.ProtoMajor, r.ProtoMinor = "HTTP/1.1", 1, 1
	r.Header = h
	if call.Form != nil {
		h["Content-Type"] = []string{call.FormType}
		r.Body, r.ContentLength = io.NopCloser(call.Form()), call.FormSize
		r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(call.Form()), nil }
		return r
	}
	if call.Path != "" {
		r.Method = call.Method
		delete(h, "Content-Type")
		r.Body, r.ContentLength = http.NoBody, 0
		return r
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	r.ContentLength = int64(len(body))
	r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	return r
}

// passHeaders copies the client's headers that may go on, and says whether one
// of them names the request.
//
// The name Idempotency-Key is written in lower case on purpose. net/http takes
// a POST with the canonical name for one it may send again after the server
// closed the connection without an answer, even if the server has read it: a
// second call that nobody would account for, at a vendor that need not know the
// header. It looks under the canonical name only; on the wire case means nothing.
func passHeaders(h http.Header, call *Call) (id bool) {
	for _, kv := range call.Header {
		name, value := kv[0], kv[1]
		if value == "" || len(value) > maxHeaderValue || !httpguts.ValidHeaderFieldValue(value) {
			continue
		}
		switch {
		case strings.EqualFold(name, "Idempotency-Key"):
			h["idempotency-key"] = []string{value}
		case strings.EqualFold(name, "OpenAI-Beta"):
			h["Openai-Beta"] = []string{value}
		case strings.EqualFold(name, "X-Client-Request-Id"):
			h["X-Client-Request-Id"] = []string{value}
			id = true
		}
	}
	return id
}

// dialed reports whether err happened before there was a connection that is
// secure: nothing of the call was sent.
func dialed(err error) bool {
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
		return true
	}
	_, wrong := errors.AsType[*tls.CertificateVerificationError](err)
	_, plain := errors.AsType[tls.RecordHeaderError](err)
	_, alert := errors.AsType[tls.AlertError](err)
	return wrong || plain || alert
}

// unsentError is the cause of a failure before anything was sent.
type unsentError struct{ err error }

func (e *unsentError) Error() string { return e.err.Error() }
func (e *unsentError) Unwrap() error { return e.err }

// Unsent reports whether err says for certain that nothing of the call reached
// the provider, so that it cannot be billed.
func Unsent(err error) bool {
	if _, ok := errors.AsType[*unsentError](err); ok {
		return true
	}
	f, ok := errors.AsType[*fault.Error](err)
	return ok && f.Kind != fault.Upstream && f.Kind != fault.Timeout && f.Kind != fault.ClientLeft
}
