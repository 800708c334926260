package provider

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/net/http/httpguts"

	"bulkhead/egress"
)

// userAgent is what upstreams are told of who asks.
const userAgent = "bulkhead"

// address is where the calls of one endpoint go. It is never written to.
type address struct {
	*url.URL
	host  string // and port, where h1 dials; "": not its to send
	start string // of a request as h1 writes it, up to the value of Content-Length
}

func newAddress(u *url.URL) *address {
	a := &address{URL: u}
	if u.Scheme != "http" {
		return a
	}
	if a.host = u.Host; u.Port() == "" {
		a.host = net.JoinHostPort(u.Hostname(), "80")
	}
	a.start = "POST " + u.RequestURI() + " HTTP/1.1\r\nHost: " + u.Host + "\r\nUser-Agent: " + userAgent + "\r\nContent-Length: "
	return a
}

// field is one header of a request; prefix stands before its value.
type field struct{ name, prefix, value string }

// fields are the headers of a request beside Host, User-Agent and Content-Length,
// by name. There are never more than there is room for: fill and
// CredentialHeaders list all there are.
type fields struct {
	n   int
	all [16]field
}

// set adds a header, or replaces the one of its name.
func (f *fields) set(name, prefix, value string) {
	i := f.n
	for i > 0 && f.all[i-1].name >= name {
		i--
	}
	if i == f.n || f.all[i].name != name {
		copy(f.all[i+1:f.n+1], f.all[i:f.n])
		f.n++
	}
	f.all[i] = field{name, prefix, value}
}

func (f *fields) list() []field { return f.all[:f.n] }

// fill makes the headers from nothing: what is not written here is not sent.
// The client's authorization, cookies and forwarding headers have no way in.
func (f *fields) fill(v *Vendor, cred *Credential, call *Call) {
	accept, typ := "application/json", "application/json" // for streams too, as the official SDKs do
	if call.Endpoint.Media() {
		accept = "*/*"
	}
	if call.Form != nil {
		typ = call.FormType
	}
	f.set("Accept", "", accept)
	f.set("Accept-Encoding", "", "identity")
	if !cred.Secret.Empty() {
		switch v.Auth {
		case APIKeyHeader:
			f.set("Api-Key", "", cred.Secret.Reveal())
		case XAPIKey:
			f.set("X-Api-Key", "", cred.Secret.Reveal())
		default:
			f.set("Authorization", "Bearer ", cred.Secret.Reveal())
		}
	}
	if !v.BuiltinURL || cred.BaseURL != "" {
		f.set(egress.HopsHeader, "", strconv.Itoa(call.Hops+1))
	}
	if call.Path == "" {
		f.set("Content-Type", "", typ)
	}
	for name, value := range cred.Header {
		if credentialHeader(name) {
			f.set(http.CanonicalHeaderKey(name), "", value)
		}
	}
	if call.RequestID != "" {
		f.set("X-Client-Request-Id", "", call.RequestID)
	}
	f.pass(call.Header)
}

// pass adds the client's headers that may go on.
//
// The name Idempotency-Key is written in lower case on purpose. net/http takes
// a POST with the canonical name for one it may send again after the server
// closed the connection without an answer, even if the server has read it: a
// second call that nobody would account for, at a vendor that need not know the
// header. It looks under the canonical name only; on the wire case means nothing.
func (f *fields) pass(header [][2]string) {
	for _, kv := range header {
		name, value := kv[0], kv[1]
		if value == "" || len(value) > maxHeaderValue || !httpguts.ValidHeaderFieldValue(value) {
			continue
		}
		switch {
		case strings.EqualFold(name, "Idempotency-Key"):
			f.set("idempotency-key", "", value)
		case strings.EqualFold(name, "OpenAI-Beta"):
			f.set("Openai-Beta", "", value)
		case strings.EqualFold(name, "X-Client-Request-Id"):
			f.set("X-Client-Request-Id", "", value)
		}
	}
}

var errHeaderValue = errors.New("a header of the call has a value that cannot be sent")

// check refuses what would be more than one header. net/http does so by itself.
func (f *fields) check() error {
	for i := range f.list() {
		if !httpguts.ValidHeaderFieldValue(f.all[i].value) {
			return errHeaderValue
		}
	}
	return nil
}

// appendHead appends the head of a request with a body of size bytes, as net/http
// would write it.
func (f *fields) appendHead(b []byte, a *address, size int64) []byte {
	b = append(b, a.start...)
	b = strconv.AppendInt(b, size, 10)
	for i := range f.list() {
		h := &f.all[i]
		b = append(append(b, "\r\n"...), h.name...)
		b = append(append(b, ": "...), h.prefix...)
		b = append(b, h.value...)
	}
	return append(b, "\r\n\r\n"...)
}

// Values of headers that are the same in each request. net/http reads them only.
var userAgents = []string{userAgent}

var blank http.Request

// newRequest is the request for net/http.
func newRequest(ctx context.Context, a *address, f *fields, call *Call, lent *lent) *http.Request {
	h := make(http.Header, f.n+1)
	values := make([]string, f.n) // in one piece
	for i, one := range f.list() {
		values[i] = one.prefix + one.value
		h[one.name] = values[i : i+1 : i+1]
	}
	h["User-Agent"] = userAgents
	r := blank.WithContext(ctx) // a copy
	r.Method, r.URL, r.Host = http.MethodPost, a.URL, a.Host
	r.Proto, r.ProtoMajor, r.ProtoMinor = "HTTP/1.1", 1, 1
	r.Header = h
	if call.Form != nil {
		r.Body, r.ContentLength = io.NopCloser(call.Form()), call.FormSize
		r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(call.Form()), nil }
		return r
	}
	if call.Path != "" {
		r.Method, r.Body = call.Method, http.NoBody
		return r
	}
	r.Body = &lentBody{of: lent}
	r.ContentLength = int64(len(call.Body))
	r.GetBody = func() (io.ReadCloser, error) { return &lentBody{of: lent}, nil }
	return r
}

// lent is the body of a call while net/http may read it, which it does for longer
// than the attempt takes. The zero lent is none.
type lent struct {
	mu   sync.Mutex
	body []byte
}

// takeBack returns when nobody reads the body any more.
func (l *lent) takeBack() {
	l.mu.Lock()
	l.body = nil
	l.mu.Unlock()
}

// lentBody reads it from its start.
type lentBody struct {
	of *lent
	at int
}

func (b *lentBody) Close() error { return nil }
func (b *lentBody) Read(p []byte) (int, error) {
	b.of.mu.Lock()
	defer b.of.mu.Unlock()
	if b.at >= len(b.of.body) { // net/http finds out itself if that is too early
		return 0, io.EOF
	}
	n := copy(p, b.of.body[b.at:])
	b.at += n
	return n, nil
}
