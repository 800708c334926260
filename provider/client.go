package provider

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http/httpproxy"

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
	operator way // built-in addresses and the operator's
	company  way // addresses companies chose: egress
	sandbox  way // in process

	mu        sync.RWMutex
	addresses map[urlKey]*address
}

// way is how calls are sent.
type way struct {
	http.RoundTripper

	// plain, if not nil, sends those in the clear instead, unless proxy is not nil
	// and says that they go through one.
	plain *h1
	proxy func(*http.Request) (*url.URL, error)
}

// lean returns what sends calls to a without net/http, nil if nothing does.
func (w *way) lean(a *address) *h1 {
	if w.plain == nil || a.host == "" {
		return nil
	}
	if w.proxy != nil {
		if through, err := w.proxy(&http.Request{URL: a.URL}); through != nil || err != nil {
			return nil
		}
	}
	return w.plain
}

func (w *way) close() {
	if t, ok := w.RoundTripper.(*http.Transport); ok {
		t.CloseIdleConnections()
	}
	if w.plain != nil {
		w.plain.close()
	}
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
	c := &Client{timeouts: t, private: o.AllowPrivate, addresses: make(map[urlKey]*address)}
	chosen := egress.Options{
		AllowPrivate: o.AllowPrivate,
		Connect:      t.Connect,
		IdleConn:     idleConn,
		RootCAs:      o.RootCAs,
		Resolver:     o.Resolver,
	}
	company := egress.NewTransport(chosen)
	dialer := &net.Dialer{Timeout: t.Connect, KeepAlive: 30 * time.Second}
	operator := &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            dialer.DialContext,
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
	}
	c.operator.RoundTripper, c.company.RoundTripper, c.sandbox.RoundTripper = operator, company, o.Sandbox
	if o.Sandbox == nil {
		c.sandbox.RoundTripper = &SandboxTransport{}
	}
	if !h1Works {
		return c
	}
	c.operator.plain = newH1(operator)
	if httpproxy.FromEnvironment().HTTPProxy != "" { // else asking costs as much as the headers do
		c.operator.proxy = operator.Proxy
	}
	if o.AllowPrivate { // else net/http refuses it
		c.company.plain = newH1(company)
	}
	return c
}

// Close closes the connections nobody uses; calls under way go on. It is safe
// to call twice.
func (c *Client) Close() {
	c.operator.close()
	c.company.close()
}

// Ending is a context that can tell one attempt of its end itself, which costs less
// than context.AfterFunc.
type Ending interface {
	context.Context

	// OnEnd has x.Interrupt called once when the context ends, unless Off is called
	// before. It reports false, and does nothing, if the context has ended or tells
	// another one: then the attempt finds out in the usual way.
	OnEnd(x Interrupter) bool

	// Off ends what OnEnd began. Interrupt may be running when it returns.
	Off(x Interrupter)
}

// Interrupter is an attempt that is told to end. Interrupt does not wait for
// anything, and does nothing to an attempt that is over.
type Interrupter interface{ Interrupt() }

// Call is what is sent: the same for each attempt.
type Call struct {
	Endpoint openai.Endpoint
	Body     []byte // JSON; must not change until the attempt's Reply is closed, or Send failed; then nobody reads it
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
	Type   string // the content type as the vendor sent it; do not pass it on unchecked

	// Body must be closed. Read it to io.EOF where possible: only then is the
	// connection used again. It ends with a *fault.Error: Timeout when the
	// upstream fell silent or the total time is over, Upstream wrapping
	// io.ErrUnexpectedEOF when it was cut. Its size is the caller's to limit.
	Body io.ReadCloser

	Size   int64 // bytes the vendor says Body has; below 0 it says nothing
	Stream bool  // the content type is text/event-stream
}

// Send makes one attempt at t with cred and returns the answer if its status is
// 2xx. It never follows a redirect and never tries again by itself, except on
// another connection for a request of which no byte was written, or which the
// server said it did not look at (GOAWAY, REFUSED_STREAM).
//
// http:// is sent by h1, unless it goes through a proxy, and https:// by net/http.
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
	w, a, err := c.route(t.Vendor, &cred, call.Endpoint)
	if err != nil {
		return nil, err
	}
	if call.Path != "" { // rare: net/http sends it
		below := *a.URL
		below.Path, below.RawPath, below.RawQuery = a.Path+call.Path, "", call.Query
		a = &address{URL: &below}
	}
	var f fields
	f.fill(t.Vendor, &cred, call)
	if p := w.lean(a); p != nil {
		x, err := p.send(ctx, &c.timeouts, a, &f, call)
		if err != nil {
			return nil, err
		}
		if err := check(&x.head, x, cred.Secret); err != nil {
			x.Close()
			return nil, err
		}
		return &x.Reply, nil
	}
	return c.roundTrip(ctx, w, a, &f, cred.Secret, call)
}

// roundTrip sends a call by net/http, or to the sandbox.
func (c *Client) roundTrip(ctx context.Context, rt http.RoundTripper, a *address, f *fields, secret Secret, call *Call) (*Reply, error) {
	w := c.watch(ctx)
	w.lent.body = call.Body
	resp, err := rt.RoundTrip(newRequest(w.ctx, a, f, call, &w.lent))
	if err != nil {
		err = w.failed(err, false)
		w.stop()
		return nil, err
	}
	w.answered(c.timeouts.Total)
	b, h := &body{rc: resp.Body, w: w}, headOf(resp)
	if err := check(&h, b, secret); err != nil {
		b.Close()
		return nil, err
	}
	return &Reply{Status: h.status, Type: h.typ, Body: b, Size: resp.ContentLength, Stream: h.stream()}, nil
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
func (c *Client) route(v *Vendor, cred *Credential, e openai.Endpoint) (*way, *address, error) {
	if !v.Serves(e) {
		return nil, nil, fault.New(fault.Invalid, "the provider %s has no %s", v.Name, e).WithCode("unsupported_endpoint")
	}
	if v.Kind == Sandbox {
		return &c.sandbox, v.urls[e], nil
	}
	if cred.BaseURL == "" && v.urls != nil {
		return &c.operator, v.urls[e], nil // the fast path
	}
	if cred.BaseURL != "" {
		a, err := c.address(urlKey{cred.BaseURL, "", e})
		return &c.company, a, err
	}
	if !v.resource() {
		return nil, nil, fault.Field("base_url", "the credential for %s has no base_url", v.Name)
	}
	a, err := c.address(urlKey{v.BaseURL, cred.Resource, e})
	return &c.operator, a, err
}

// address returns the parsed and checked address of k. The cache is emptied when
// it is full: it saves a microsecond and must not grow with what companies type.
func (c *Client) address(k urlKey) (*address, error) {
	c.mu.RLock()
	a := c.addresses[k]
	c.mu.RUnlock()
	if a != nil {
		return a, nil
	}
	u, err := c.parse(k)
	if err != nil {
		return nil, err
	}
	a = newAddress(u)
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.addresses) >= maxURLs {
		clear(c.addresses)
	}
	c.addresses[k] = a
	return a, nil
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
