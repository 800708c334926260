// Package egress owns the way to an address a company chose: a base_url, and
// later JWKS and webhooks. Nothing else dials such an address.
//
// The rules are checked where they cannot be gone around: the address when the
// socket is about to connect (so a name that resolves anew to a private address
// between check and use wins nothing), the scheme in the transport. CheckURL is
// the early, friendly form of the same rules for the moment an address is set.
package egress

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"syscall"
	"time"

	"bulkhead/fault"
)

// HopsHeader counts how many gateways a request has gone through. Every call to
// an upstream that is not a built-in vendor carries it, so a gateway that is
// pointed at itself ends after MaxHops rounds instead of never.
const HopsHeader = "Bulkhead-Hops"

// MaxHops is the largest count that is still served: a client, an edge gateway
// and a central one make 1; 3 leaves room and bounds a loop.
const MaxHops = 3

// Hops reads the value of HopsHeader from a request that came in; "" is 0. ok is
// false when the request must be refused: it went through MaxHops gateways or
// more, or the value is not a number (somebody else's idea of the header must
// not switch the protection off).
func Hops(value string) (n int, ok bool) {
	if value == "" {
		return 0, true
	}
	u, err := strconv.ParseUint(value, 10, 8)
	if err != nil || u >= MaxHops {
		return 0, false
	}
	return int(u), true
}

// Options are the settings of a transport. The zero value is what production
// wants.
type Options struct {
	// AllowPrivate lets http, private addresses and all ports through. For
	// laboratories: every company can then reach what the gateway can reach.
	AllowPrivate bool

	Connect  time.Duration  // limit for resolving and connecting, and again for the TLS handshake; 0 is 5 s
	IdleConn time.Duration  // an unused connection is closed after this; 0 is 50 s
	RootCAs  *x509.CertPool // nil is the system's
	Resolver *net.Resolver  // nil is net.DefaultResolver
}

// maxHeader bounds the header of an answer, in bytes.
const maxHeader = 64 << 10

// NewTransport returns a transport that reaches public addresses only, over
// https only, with no proxy from the environment. A RoundTrip never follows a
// redirect; a caller must not put the transport into an http.Client that does.
//
// A refused address is a *fault.Error of kind Forbidden in the chain of the
// returned error, with nothing sent.
func NewTransport(o Options) *http.Transport {
	if o.IdleConn == 0 {
		o.IdleConn = 50 * time.Second
	}
	if o.Connect == 0 {
		o.Connect = 5 * time.Second
	}
	t := &http.Transport{
		Proxy:                  nil,
		DialContext:            Dialer(o).DialContext,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: o.RootCAs},
		TLSHandshakeTimeout:    o.Connect,
		ForceAttemptHTTP2:      true,
		DisableCompression:     true,
		MaxIdleConns:           1024,
		MaxIdleConnsPerHost:    32,
		MaxConnsPerHost:        512, // one company's endpoint must not take all sockets
		IdleConnTimeout:        o.IdleConn,
		MaxResponseHeaderBytes: maxHeader,
		HTTP2:                  &http.HTTP2Config{SendPingTimeout: 30 * time.Second, PingTimeout: 15 * time.Second},
	}
	if !o.AllowPrivate {
		t.RegisterProtocol("http", refuseHTTP{})
	}
	return t
}

// Dialer returns the dialer of NewTransport. It looks at the address of each
// connection attempt right before connect(2), after the name was resolved.
func Dialer(o Options) *net.Dialer {
	d := &net.Dialer{Timeout: o.Connect, KeepAlive: 30 * time.Second, Resolver: o.Resolver}
	if d.Timeout == 0 {
		d.Timeout = 5 * time.Second
	}
	d.ControlContext = func(_ context.Context, network, address string, _ syscall.RawConn) error {
		return checkDial(network, address, o.AllowPrivate)
	}
	return d
}

func checkDial(network, address string, allowPrivate bool) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil || network != "tcp4" && network != "tcp6" {
		return forbidden()
	}
	if !allowPrivate && !Public(ap.Addr()) || !portAllowed(ap.Port(), allowPrivate) {
		return forbidden()
	}
	return nil
}

// refuseHTTP stands where plain http would be.
type refuseHTTP struct{}

func (refuseHTTP) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body != nil {
		r.Body.Close()
	}
	return nil, forbidden()
}

// forbidden says nothing about which address it was or why: the answer would
// tell a company what names mean inside the operator's network.
func forbidden() *fault.Error {
	return fault.New(fault.Forbidden, "the base_url of this credential leads to an address that is not allowed").WithCode("base_url_refused")
}
