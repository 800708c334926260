package egress

import (
	"context"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"bulkhead/fault"
)

func TestPublic(t *testing.T) {
	f := func(want bool, addrs ...string) {
		t.Helper()
		for _, a := range addrs {
			if got := Public(netip.MustParseAddr(a)); got != want {
				t.Errorf("Public(%s) = %v", a, got)
			}
		}
	}
	f(true, "1.1.1.1", "8.8.8.8", "104.18.6.192", "172.15.255.255", "172.32.0.0", "100.63.255.255", "100.128.0.0", "192.0.3.1", "223.255.255.255", "11.0.0.0")
	f(true, "2606:4700::6812:6c0", "2a00:1450:4001::200e", "2001:4860:4860::8888", "2003::1")
	f(false, "127.0.0.1", "127.255.255.254")                       // loopback
	f(false, "10.0.0.1", "172.16.0.1", "172.31.255.255")           // private
	f(false, "192.168.0.1", "192.168.255.255")                     // private
	f(false, "169.254.169.254", "169.254.0.1", "168.63.129.16")    // link-local, metadata
	f(false, "100.64.0.1", "100.127.255.255", "100.100.100.200")   // CGNAT
	f(false, "0.0.0.0", "0.1.2.3")                                 // this network
	f(false, "192.0.0.192", "192.0.2.1", "198.51.100.1")           // assignments, documentation
	f(false, "203.0.113.9", "198.18.0.1", "198.19.255.255")        // documentation, benchmarks
	f(false, "192.88.99.1")                                        // 6to4 relay
	f(false, "224.0.0.1", "239.255.255.255", "240.0.0.1")          // multicast, reserved
	f(false, "255.255.255.255")                                    // broadcast
	f(false, "::", "::1")                                          // unspecified, loopback
	f(false, "fc00::1", "fd00:ec2::254")                           // ULA, metadata
	f(false, "fe80::1", "fe80::1%eth0", "fec0::1")                 // link-local, site-local
	f(false, "ff02::1", "100::1", "5f00::1")                       // multicast, discard, segments
	f(false, "::ffff:127.0.0.1", "::ffff:10.0.0.1")                // mapped
	f(true, "::ffff:8.8.8.8")                                      // mapped public
	f(false, "::7f00:1", "::a9fe:a9fe")                            // IPv4-compatible
	f(false, "64:ff9b::a9fe:a9fe", "64:ff9b::a00:1", "64:ff9b::1") // NAT64 of private ones
	f(true, "64:ff9b::808:808")                                    // NAT64 of 8.8.8.8
	f(false, "64:ff9b:1::808:808")                                 // NAT64 for local use
	f(false, "2002:7f00:1::", "2002:808:808::1")                   // 6to4
	f(false, "2001::1", "2001:0:53aa:64c::1", "2001:2::1")         // Teredo, benchmarks
	f(false, "2001:10::1", "2001:20::1", "2001:db8::1")            // ORCHID, documentation
	f(false, "3fff::1", "4000::1", "2606:4700::1%eth0")            // documentation, not handed out, zone
	if Public(netip.Addr{}) {
		t.Error("the zero address is public")
	}
}

func TestHops(t *testing.T) {
	f := func(in string, want int, ok bool) {
		t.Helper()
		if n, got := Hops(in); n != want || got != ok {
			t.Errorf("Hops(%q) = %d, %v", in, n, got)
		}
	}
	f("", 0, true)
	f("0", 0, true)
	f("2", 2, true)
	f("3", 0, false) // the limit
	f("255", 0, false)
	f("256", 0, false)
	f("-1", 0, false)
	f("1, 1", 0, false)
	f("x", 0, false)
}

// TestDialPrivate: a private address is refused when dialled, with nothing
// connected, whatever form the URL has.
func TestDialPrivate(t *testing.T) {
	var conns atomic.Int64
	srv := httptest.NewUnstartedServer(http.NotFoundHandler())
	srv.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			conns.Add(1)
		}
	}
	srv.StartTLS()
	defer srv.Close()
	_, port, _ := net.SplitHostPort(srv.Listener.Addr().String())
	tr := NewTransport(Options{RootCAs: roots(srv)})
	defer tr.CloseIdleConnections()
	for _, host := range []string{"127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "0.0.0.0", "[::]", "127.1", "0x7f.1", "2130706433"} {
		_, err := get(t.Context(), tr, "https://"+host+":"+port+"/")
		if err == nil {
			t.Fatalf("%s was reached", host)
		}
		// Names no resolver takes for an address fail before the dial, which is as good.
		if _, dns := errors.AsType[*net.DNSError](err); !dns && !fault.Is(err, fault.Forbidden) {
			t.Errorf("%s: %v", host, err)
		}
	}
	if n := conns.Load(); n != 0 {
		t.Errorf("%d connections were made", n)
	}
	// A laboratory may: otherwise the test shows nothing.
	lab := NewTransport(Options{RootCAs: roots(srv), AllowPrivate: true})
	defer lab.CloseIdleConnections()
	resp, err := get(t.Context(), lab, "https://127.0.0.1:"+port+"/")
	if err != nil {
		t.Fatal(err)
	}
	if resp.ProtoMajor != 1 && resp.ProtoMajor != 2 {
		t.Error(resp.Proto)
	}
	resp.Body.Close()
}

func TestPlainHTTP(t *testing.T) {
	srv := httptest.NewServer(http.NotFoundHandler())
	defer srv.Close()
	// The port is allowed and the name is never asked for: the scheme is enough.
	res := &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		t.Error("the name was looked up")
		return nil, errors.New("no")
	}}
	tr := NewTransport(Options{Resolver: res})
	defer tr.CloseIdleConnections()
	if _, err := get(t.Context(), tr, "http://model.company.com:8080/"); !fault.Is(err, fault.Forbidden) {
		t.Errorf("http was tried: %v", err)
	}
	lab := NewTransport(Options{AllowPrivate: true})
	defer lab.CloseIdleConnections()
	resp, err := get(t.Context(), lab, srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
}

func TestDialPorts(t *testing.T) {
	f := func(address string, lab, ok bool) {
		t.Helper()
		if err := checkDial("tcp4", address, lab); (err == nil) != ok {
			t.Errorf("checkDial(%s, %v): %v", address, lab, err)
		}
	}
	f("8.8.8.8:443", false, true)
	f("8.8.8.8:8443", false, true)
	f("8.8.8.8:1024", false, true)
	f("8.8.8.8:1023", false, false)
	f("8.8.8.8:25", false, false)
	f("8.8.8.8:25", true, true)
	f("8.8.8.8:0", true, false)
	f("nonsense", true, false)
	if checkDial("udp4", "8.8.8.8:443", true) == nil {
		t.Error("udp may be dialled")
	}
	if checkDial("unix", "/run/x", true) == nil {
		t.Error("unix sockets may be dialled")
	}
}

// TestRebinding: the name is public when it is looked at and private when it is
// dialled. The first answer of the resolver is for the check, the second for the
// connection.
func TestRebinding(t *testing.T) {
	var conns atomic.Int64
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conns.Add(1)
			c.Close()
		}
	}()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	var asked atomic.Int64
	res := fakeDNS(t, func() [4]byte {
		if asked.Add(1) == 1 {
			return [4]byte{8, 8, 8, 8}
		}
		return [4]byte{127, 0, 0, 1}
	})
	addrs, err := res.LookupNetIP(t.Context(), "ip4", "model.company.com")
	if err != nil || len(addrs) != 1 || !Public(addrs[0]) {
		t.Fatalf("first look: %v %v", addrs, err)
	}
	tr := NewTransport(Options{Resolver: res, Connect: 3 * time.Second})
	defer tr.CloseIdleConnections()
	_, err = get(t.Context(), tr, "https://model.company.com:"+port+"/")
	if !fault.Is(err, fault.Forbidden) {
		t.Errorf("rebinding: %v", err)
	}
	if strings.Contains(fault.As(err).Message, "127.0.0.1") {
		t.Error("the message names the address")
	}
	if asked.Load() < 2 || conns.Load() != 0 {
		t.Errorf("asked %d times, %d connections", asked.Load(), conns.Load())
	}
}

func TestNoProxy(t *testing.T) {
	t.Setenv("HTTPS_PROXY", "http://127.0.0.1:1")
	if tr := NewTransport(Options{}); tr.Proxy != nil {
		t.Error("a proxy may be used")
	}
}

func get(ctx context.Context, tr *http.Transport, url string) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, "GET", url, nil)
	if err != nil {
		return nil, err
	}
	return tr.RoundTrip(r)
}

func roots(srv *httptest.Server) *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(srv.Certificate())
	return p
}

// fakeDNS returns a resolver that asks a server in this test; it answers every A
// question with what answer returns, and no other question.
func fakeDNS(t *testing.T, answer func() [4]byte) *net.Resolver {
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pc.Close() })
	go func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(buf[:n]) != nil || len(m.Questions) != 1 {
				continue
			}
			q := m.Questions[0]
			out := dnsmessage.Message{Header: dnsmessage.Header{ID: m.ID, Response: true, RecursionAvailable: true}, Questions: m.Questions}
			if q.Type == dnsmessage.TypeA {
				out.Answers = []dnsmessage.Resource{{
					Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class},
					Body:   &dnsmessage.AResource{A: answer()},
				}}
			}
			if b, err := out.Pack(); err == nil {
				_, _ = pc.WriteTo(b, from)
			}
		}
	}()
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", pc.LocalAddr().String())
	}}
}
