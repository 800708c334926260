package provider

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"bulkhead/egress"
	"bulkhead/fault"
	"bulkhead/openai"
)

var update = flag.Bool("update", false, "write the golden files anew")

// rawUpstream is a TCP server that shows the request bytes as they came and
// answers with what answer writes. Each connection is closed after answer
// returned false.
type rawUpstream struct {
	addr string
	mu   sync.Mutex
	got  []string
}

func newRaw(t *testing.T, answer func(c net.Conn, n int) bool) *rawUpstream {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	u := &rawUpstream{addr: l.Addr().String()}
	var wg sync.WaitGroup
	t.Cleanup(func() { l.Close(); wg.Wait() })
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				u.serve(c, answer)
			})
		}
	})
	return u
}

func (u *rawUpstream) serve(c net.Conn, answer func(net.Conn, int) bool) {
	var raw bytes.Buffer
	br := bufio.NewReader(io.TeeReader(c, &raw))
	for {
		r, err := http.ReadRequest(br)
		if err != nil {
			return
		}
		if _, err := io.ReadAll(r.Body); err != nil {
			return
		}
		u.mu.Lock()
		u.got = append(u.got, raw.String())
		n := len(u.got)
		u.mu.Unlock()
		raw.Reset()
		if !answer(c, n) {
			return
		}
	}
}

func (u *rawUpstream) requests() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return append([]string(nil), u.got...)
}

func answerOK(c net.Conn, _ int) bool {
	_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
	return true
}

// TestRequestBytes: exactly these bytes go to the upstream, whatever the client
// sent.
func TestRequestBytes(t *testing.T) { plain(t, testRequestBytes) }

func testRequestBytes(t *testing.T, open opens) {
	u := newRaw(t, answerOK)
	c := open(t, Options{AllowPrivate: true})
	hostile := [][2]string{
		{"Authorization", "Bearer sk-bh-live-client"}, {"Cookie", "a=b"}, {"X-Forwarded-For", "1.2.3.4"}, {"Forwarded", "for=1.2.3.4"},
		{"Host", "evil.com"}, {"Content-Length", "1"}, {"Transfer-Encoding", "chunked"}, {"Connection", "close"}, {"X-Api-Key", "k"}, {"api-key", "k"},
		{"OpenAI-Organization", "org-of-the-client"}, {"OpenAI-Project", "proj"}, {"User-Agent", "OpenAI/Python"}, {"Accept-Encoding", "gzip"},
		{"Bulkhead-Hops", "0"}, {"openai-beta", "assistants=v2"}, {"idempotency-key", "idem-1"}, {"x-client-request-id", "mine"}, {"OpenAI-Beta", "a\r\nX-Smuggled: 1"},
	}
	f := func(name string, change func(*Target, *Credential, *Call)) {
		t.Helper()
		target, cred := targetAt(t, "http://"+u.addr+"/v1")
		call := &Call{Endpoint: openai.Chat, Body: []byte(`{"model":"m","x":1e3}`), RequestID: "req_ours"}
		change(&target, &cred, call)
		before := len(u.requests())
		r, err := c.Send(t.Context(), target, cred, call)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			return
		}
		_, _ = io.ReadAll(r.Body)
		r.Body.Close()
		got := strings.ReplaceAll(u.requests()[before], u.addr, "UPSTREAM")
		golden(t, "request_"+name, strings.ReplaceAll(got, "\r\n", "\n")+"\n")
	}
	f("bearer", func(*Target, *Credential, *Call) {})
	f("hostile_client", func(_ *Target, _ *Credential, c *Call) { c.Header = hostile })
	f("stream", func(_ *Target, _ *Credential, c *Call) { c.Stream = true })
	f("hops", func(_ *Target, _ *Credential, c *Call) { c.Hops = 2 })
	f("credential_headers", func(_ *Target, cr *Credential, _ *Call) {
		cr.Header = map[string]string{"OpenAI-Organization": "org-of-the-company", "OpenAI-Project": "proj_x", "Cookie": "not on the list"}
	})
	f("api_key", func(x *Target, _ *Credential, _ *Call) { v := *x.Vendor; v.Auth = APIKeyHeader; x.Vendor = &v })
	f("x_api_key", func(x *Target, _ *Credential, _ *Call) { v := *x.Vendor; v.Auth = XAPIKey; x.Vendor = &v })
	f("builtin_url", func(x *Target, _ *Credential, _ *Call) { v := *x.Vendor; v.BuiltinURL = true; x.Vendor = &v })
	f("company_base_url", func(x *Target, cr *Credential, c *Call) {
		x.Vendor, cr.BaseURL, c.Endpoint = Builtin()["openai"], "http://"+u.addr+"/own/v1", openai.Embeddings
	})
	f("no_secret", func(x *Target, cr *Credential, _ *Call) { x.Vendor = free(x.Vendor); *cr = Credential{} })
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".txt")
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", path, got, want)
	}
}

// TestBadAnswers: what is not an answer is 502 and worth another target.
func TestBadAnswers(t *testing.T) { plain(t, testBadAnswers) }

func testBadAnswers(t *testing.T, open opens) {
	f := func(name, answer string) {
		t.Helper()
		u := newRaw(t, func(c net.Conn, _ int) bool { _, _ = io.WriteString(c, answer); return false })
		c := open(t, Options{})
		target, cred := targetAt(t, "http://"+u.addr+"/v1")
		_, err := c.Send(t.Context(), target, cred, &Call{Endpoint: openai.Chat, Body: []byte("{}")})
		e, ok := errors.AsType[*fault.Error](err)
		if !ok || e.Kind != fault.Upstream || e.Status != 502 || !e.Retriable {
			t.Errorf("%s: %#v", name, err)
		}
		if ok && strings.Contains(e.Message, u.addr) {
			t.Errorf("%s: the message has the address: %s", name, e.Message)
		}
		if n := len(u.requests()); n != 1 {
			t.Errorf("%s: sent %d times", name, n)
		}
	}
	f("closed", "")
	f("garbage", "\x00\x01\x02 nonsense\r\n\r\n")
	f("half a header", "HTTP/1.1 200 OK\r\nContent-Le")
	f("two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}")
	f("large header", "HTTP/1.1 200 OK\r\nX: "+strings.Repeat("a", maxAnswerHeader+8192)+"\r\n\r\n")
	f("many 1xx", strings.Repeat("HTTP/1.1 103 Early Hints\r\nX: "+strings.Repeat("a", 4096)+"\r\n\r\n", 64))
	f("gzip", "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}")
}

func TestInformational(t *testing.T) { plain(t, testInformational) }

func testInformational(t *testing.T, open opens) {
	u := newRaw(t, func(c net.Conn, _ int) bool {
		_, _ = io.WriteString(c, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n")
		return answerOK(c, 0)
	})
	c := open(t, Options{})
	target, cred := targetAt(t, "http://"+u.addr+"/v1")
	r, err := c.Send(t.Context(), target, cred, &Call{Endpoint: openai.Chat, Body: []byte("{}")})
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()

	u = newRaw(t, func(c net.Conn, _ int) bool {
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n")
		return false
	})
	target, cred = targetAt(t, "http://"+u.addr+"/v1")
	_, err = c.Send(t.Context(), target, cred, &Call{Endpoint: openai.Chat, Body: []byte("{}")})
	if e := fault.As(err); e.Kind != fault.Upstream || e.Status != 502 || e.Retriable {
		t.Errorf("101: %+v", e)
	}
}

// TestNoSilentResend: the server reads the second request on a connection that
// it kept open, and closes it without an answer. With a canonical
// Idempotency-Key net/http would send the request a third time.
func TestNoSilentResend(t *testing.T) { plain(t, testNoSilentResend) }

func testNoSilentResend(t *testing.T, open opens) {
	u := newRaw(t, func(c net.Conn, n int) bool { return n == 1 && answerOK(c, n) })
	c := open(t, Options{})
	target, cred := targetAt(t, "http://"+u.addr+"/v1")
	call := &Call{Endpoint: openai.Chat, Body: []byte("{}"), Header: [][2]string{{"Idempotency-Key", "k"}}}
	r, err := c.Send(t.Context(), target, cred, call)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.ReadAll(r.Body)
	r.Body.Close()
	_, err = c.Send(t.Context(), target, cred, call)
	if e := fault.As(err); e.Kind != fault.Upstream || !e.Retriable {
		t.Errorf("%#v", err)
	}
	if n := len(u.requests()); n != 2 {
		t.Errorf("the server saw %d requests", n)
	}
}

func TestUnreachable(t *testing.T) { plain(t, testUnreachable) }

func testUnreachable(t *testing.T, open opens) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	c := open(t, Options{})
	target, cred := targetAt(t, "http://"+addr+"/v1")
	_, err = c.Send(t.Context(), target, cred, &Call{Endpoint: openai.Chat, Body: []byte("{}")})
	if e := fault.As(err); e.Kind != fault.Upstream || e.Status != 502 || !e.Retriable || strings.Contains(e.Message, addr) {
		t.Errorf("refused: %+v", e)
	}
	// A certificate nobody signed.
	srv := httptest.NewUnstartedServer(http.NotFoundHandler())
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	defer srv.Close()
	target, cred = targetAt(t, srv.URL+"/v1")
	_, err = c.Send(t.Context(), target, cred, &Call{Endpoint: openai.Chat, Body: []byte("{}")})
	if e := fault.As(err); e.Kind != fault.Upstream || !e.Retriable {
		t.Errorf("untrusted: %+v", e)
	}
	// A server that takes the connection and never shakes hands.
	l, err = net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	quick := open(t, Options{Timeouts: Timeouts{Connect: 50 * time.Millisecond}})
	target, cred = targetAt(t, "https://"+l.Addr().String()+"/v1")
	_, err = quick.Send(t.Context(), target, cred, &Call{Endpoint: openai.Chat, Body: []byte("{}")})
	if e := fault.As(err); e.Kind != fault.Timeout || !e.Retriable {
		t.Errorf("silent handshake: %+v", e)
	}
}

// TestCompanyAddress: an address a company chose goes through egress; an
// operator's does not.
func TestCompanyAddress(t *testing.T) { plain(t, testCompanyAddress) }

func testCompanyAddress(t *testing.T, open opens) {
	u := newRaw(t, answerOK)
	strict := open(t, Options{})
	target, cred := targetAt(t, "http://"+u.addr+"/v1")
	f := func(base string, kind fault.Kind) {
		t.Helper()
		cred.BaseURL = base
		_, err := strict.Send(t.Context(), target, cred, &Call{Endpoint: openai.Chat, Body: []byte("{}")})
		if e := fault.As(err); e.Kind != kind || e.Retriable {
			t.Errorf("%s: %v", base, err)
		}
	}
	f("http://"+u.addr, fault.Invalid)
	f("https://"+u.addr, fault.Invalid)
	f("https://localhost:8443", fault.Invalid)
	// A public name that leads here, and a stored address older than the rules:
	// past the early check the dialer still refuses.
	strict.private = true
	f("https://"+u.addr, fault.Forbidden)
	f("http://"+u.addr, fault.Forbidden)
	if n := len(u.requests()); n != 0 {
		t.Errorf("%d requests arrived", n)
	}
	if strict.company.RoundTripper.(*http.Transport).Proxy != nil || strict.operator.RoundTripper.(*http.Transport).Proxy == nil {
		t.Error("the environment's proxy is for the operator's addresses only")
	}
	if egress.HopsHeader != "Bulkhead-Hops" {
		t.Error("the golden files name another header")
	}
}

func TestResource(t *testing.T) {
	c := NewClient(Options{})
	defer c.Close()
	v := Builtin()["azure"]
	f := func(resource, want string) {
		t.Helper()
		rt, u, err := c.route(v, &Credential{Resource: resource}, openai.Chat)
		if want == "" {
			if !fault.Is(err, fault.Invalid) {
				t.Errorf("%q: %v", resource, u)
			}
			return
		}
		if err != nil || u.String() != want || rt != &c.operator {
			t.Errorf("%q: %v %v", resource, u, err)
		}
	}
	f("res-1", "https://res-1.openai.azure.com/openai/v1/chat/completions")
	f("res-1", "https://res-1.openai.azure.com/openai/v1/chat/completions") // from the cache
	f("", "")
	f("evil.com/", "")
	f("evil.com#", "")
	f("u@evil", "")
	for i := range 2*maxURLs - 1 {
		if _, _, err := c.route(v, &Credential{Resource: "r" + strconv.Itoa(i)}, openai.Chat); err != nil {
			t.Fatal(err)
		}
	}
	if len(c.addresses) == 0 || len(c.addresses) > maxURLs {
		t.Errorf("the cache has %d entries", len(c.addresses))
	}
}

func TestContextDone(t *testing.T) { plain(t, testContextDone) }

func testContextDone(t *testing.T, open opens) {
	u := newRaw(t, answerOK)
	c := open(t, Options{})
	target, cred := targetAt(t, "http://"+u.addr+"/v1")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := c.Send(ctx, target, cred, &Call{Endpoint: openai.Chat, Body: []byte("{}")})
	if _, isFault := errors.AsType[*fault.Error](err); isFault || !errors.Is(err, context.Canceled) {
		t.Errorf("%#v", err)
	}
}
