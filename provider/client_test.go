package provider

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"bulkhead/fault"
	"bulkhead/openai"
)

func TestMain(m *testing.M) {
	code := m.Run()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// upstream is a vendor that is a server in this test, and a client for it.
type upstream struct {
	srv    *httptest.Server
	client *Client
	target Target
	cred   Credential
}

// opens makes the client of a test, which is closed at its end.
type opens func(*testing.T, Options) *Client

// openClient makes the one that production has: what goes in the clear, h1 sends.
func openClient(t *testing.T, o Options) *Client {
	c := NewClient(o)
	t.Cleanup(c.Close)
	return c
}

// openNetHTTP makes one without h1, as where a proxy is on the way.
func openNetHTTP(t *testing.T, o Options) *Client {
	c := openClient(t, o)
	c.operator.plain, c.company.plain = nil, nil
	return c
}

// plain runs f for both ways to an upstream in the clear.
func plain(t *testing.T, f func(t *testing.T, open opens)) {
	t.Helper()
	t.Run("h1", func(t *testing.T) { f(t, openClient) })
	t.Run("net-http", func(t *testing.T) { f(t, openNetHTTP) })
}

// newUpstream starts a server that speaks TLS and HTTP/2.
func newUpstream(t *testing.T, times Timeouts, h http.HandlerFunc) *upstream {
	t.Helper()
	srv := httptest.NewUnstartedServer(h)
	srv.EnableHTTP2 = true
	return startUpstream(t, openClient, times, srv, srv.StartTLS)
}

// newPlain starts a server that speaks HTTP/1.1.
func newPlain(t *testing.T, open opens, times Timeouts, h http.HandlerFunc) *upstream {
	t.Helper()
	srv := httptest.NewUnstartedServer(h)
	return startUpstream(t, open, times, srv, srv.Start)
}

func startUpstream(t *testing.T, open opens, times Timeouts, srv *httptest.Server, start func()) *upstream {
	t.Helper()
	u := &upstream{srv: srv}
	start()
	t.Cleanup(srv.Close)
	var roots *x509.CertPool
	if c := srv.Certificate(); c != nil {
		roots = x509.NewCertPool()
		roots.AddCert(c)
	}
	u.client = open(t, Options{Timeouts: times, RootCAs: roots})
	u.target, u.cred = targetAt(t, srv.URL+"/v1")
	return u
}

func targetAt(t *testing.T, base string) (Target, Credential) {
	t.Helper()
	m, errs := Vendors(map[string]Override{"test": {Kind: "openai", BaseURL: base}}, true)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	return Target{Company: "co_a", Provider: "test", Vendor: m["test"], Model: "m"},
		Credential{ID: "cred_1", Company: "co_a", Provider: "test", Secret: NewSecret(canary)}
}

func (u *upstream) send(ctx context.Context) (*Reply, error) {
	return u.client.Send(ctx, u.target, u.cred, &Call{Endpoint: openai.Chat, Body: []byte(`{"model":"m"}`)})
}

func TestSend(t *testing.T) {
	u := newUpstream(t, Timeouts{}, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.ProtoMajor != 2 || r.URL.Path != "/v1/chat/completions" || r.Method != "POST" || string(body) != `{"model":"m"}` {
			t.Errorf("%s %s %s %s", r.Proto, r.Method, r.URL, body)
		}
		w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
		_, _ = io.WriteString(w, "data: [DONE]\n\n")
	})
	r, err := u.send(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil || string(b) != "data: [DONE]\n\n" || !r.Stream || r.Status != 200 || r.Type != "text/event-stream; charset=utf-8" {
		t.Errorf("%+v %s %v", r, b, err)
	}
	if _, err := r.Body.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("after the end: %v", err)
	}
}

// TestReuse: a body that was read to its end gives the connection back.
func TestReuse(t *testing.T) { plain(t, testReuse) }

func testReuse(t *testing.T, open opens) {
	var seen atomic.Value
	same := true
	u := newPlain(t, open, Timeouts{}, func(w http.ResponseWriter, r *http.Request) {
		if old := seen.Swap(r.RemoteAddr); old != nil && old != r.RemoteAddr {
			same = false
		}
		_, _ = io.WriteString(w, "{}")
	})
	for range 5 {
		r, err := u.send(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.ReadAll(r.Body)
		r.Body.Close()
		r.Body.Close()
	}
	if !same {
		t.Error("connections are not used again")
	}
}

func TestStatuses(t *testing.T) { plain(t, testStatuses) }

func testStatuses(t *testing.T, open opens) {
	status := 0
	u := newPlain(t, open, Timeouts{}, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Retry-After", "7")
		w.Header().Set("Location", "/v1/elsewhere")
		if status == 400 {
			w.Header().Set("X-Should-Retry", "false")
		}
		if strings.HasSuffix(r.URL.Path, "elsewhere") {
			t.Error("a redirect was followed")
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, `{"error":{"message":"bad thing","type":"vendor_type","param":"messages","code":"vendor_code"}}`)
	})
	f := func(s, wantStatus int, retriable bool, code string) {
		t.Helper()
		status = s
		_, err := u.send(t.Context())
		e, ok := errors.AsType[*fault.Error](err)
		if !ok {
			t.Errorf("%d: %v", s, err)
			return
		}
		if e.Kind != fault.Upstream || e.Status != wantStatus || e.Retriable != retriable || e.Code != code {
			t.Errorf("%d: %+v", s, e)
		}
		if code == "vendor_code" && (e.Message != "bad thing" || e.Type != "vendor_type" || e.Param != "messages" || e.RetryAfter != 7*time.Second || e.NoRetry != (s == 400)) {
			t.Errorf("%d: %+v", s, e)
		}
		if code == "provider_authentication_failed" && !e.NoRetry {
			t.Errorf("%d: clients would try again", s)
		}
	}
	for _, s := range []int{400, 402, 404, 405, 409, 413, 415, 422, 451} {
		f(s, s, false, "vendor_code")
	}
	for _, s := range []int{408, 429, 500, 501, 502, 503, 504, 520, 529, 599} {
		f(s, s, true, "vendor_code")
	}
	f(401, 401, false, "provider_authentication_failed")
	f(403, 403, false, "provider_authentication_failed")
	for _, s := range []int{300, 301, 302, 303, 304, 307, 308} {
		f(s, 502, false, "")
	}
}

func TestRefusedCredentialText(t *testing.T) {
	u := newPlain(t, openClient, Timeouts{}, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(401)
		fmt.Fprintf(w, `{"error":{"message":"Incorrect API key provided: sk-ca***cdef","code":"invalid_api_key"}}`)
	})
	_, err := u.send(t.Context())
	if m := fault.As(err).Message; strings.Contains(m, "sk-") || !strings.Contains(m, "your company's credential") {
		t.Error(m)
	}
}

// TestScrub: a vendor that repeats the key, wherever it does, in whatever form.
func TestScrub(t *testing.T) { plain(t, testScrub) }

func testScrub(t *testing.T, open opens) {
	body := ""
	u := newPlain(t, open, Timeouts{}, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(400)
		_, _ = io.WriteString(w, body)
	})
	esc := `\u0073` + canary[1:] // JSON may write the s so
	f := func(b, want string) {
		t.Helper()
		body = b
		_, err := u.send(t.Context())
		e := fault.As(err)
		if all := fmt.Sprintf("%+v %s", *e, e); leaks(all) || len(e.Message) > maxErrorText {
			t.Errorf("%.100s: %.300s", b, all)
		}
		if want != "" && e.Message != want {
			t.Errorf("%.100s: %s", b, e.Message)
		}
	}
	f(`{"error":{"message":"key `+canary+` is bad"}}`, "key [secret] is bad")
	f(`{"error":{"message":"key `+esc+` is bad"}}`, "key [secret] is bad")
	f(`{"error":{"message":"m","code":"`+canary+`","type":"`+canary+`","param":"`+canary+`"}}`, "m")
	f(`{"error":{"message":"`+strings.Repeat("x", maxErrorText-10)+canary+`"}}`, "")
	f(`{"error":{"message":"`+strings.Repeat("x", maxErrorBody-40)+canary+`"}}`, "")
	f(canary, "")
	f("<html>"+canary, "")
	f("", "the provider answered with status 400")
}

func TestMismatch(t *testing.T) {
	hit := false
	u := newPlain(t, openClient, Timeouts{}, func(http.ResponseWriter, *http.Request) { hit = true })
	f := func(change func(*Target, *Credential)) {
		t.Helper()
		target, cred := u.target, u.cred
		change(&target, &cred)
		_, err := u.client.Send(t.Context(), target, cred, &Call{Endpoint: openai.Chat, Body: []byte("{}")})
		if !fault.Is(err, fault.Internal) {
			t.Errorf("sent: %v", err)
		}
	}
	f(func(_ *Target, c *Credential) { c.Company = "co_b" })
	f(func(x *Target, _ *Credential) { x.Company = "co_b" })
	f(func(x *Target, c *Credential) { x.Company, c.Company = "", "" })
	f(func(_ *Target, c *Credential) { c.Provider = "openai" })
	f(func(_ *Target, c *Credential) { c.Secret = Secret{} })
	f(func(_ *Target, c *Credential) { *c = Credential{} })
	f(func(x *Target, _ *Credential) { x.Vendor = nil })
	// No secret needed does not mean that another company's is fine.
	f(func(x *Target, c *Credential) { x.Vendor = free(x.Vendor); c.Company = "co_b" })
	f(func(x *Target, c *Credential) { x.Vendor = free(x.Vendor); *c = Credential{BaseURL: "https://a.com"} })
	if hit {
		t.Error("something was sent")
	}
	v := free(u.target.Vendor)
	target := u.target
	target.Vendor = v
	r, err := u.client.Send(t.Context(), target, Credential{}, &Call{Endpoint: openai.Chat, Body: []byte("{}")})
	if err != nil || !hit {
		t.Fatal(err)
	}
	r.Body.Close()
}

func free(v *Vendor) *Vendor {
	c := *v
	c.NeedsSecret = false
	return &c
}

func TestUnserved(t *testing.T) {
	c := NewClient(Options{})
	defer c.Close()
	v := Builtin()["groq"]
	_, err := c.Send(t.Context(), Target{Company: "a", Provider: "groq", Vendor: v}, Credential{Company: "a", Provider: "groq", Secret: NewSecret("x")}, &Call{Endpoint: openai.Moderations})
	if !fault.Is(err, fault.Invalid) {
		t.Error(err)
	}
}

func TestTimeoutDefaults(t *testing.T) {
	d := Timeouts{}.withDefaults()
	if d.Connect != 5*time.Second || d.Header != 300*time.Second || d.Idle != 120*time.Second || d.Total != 600*time.Second {
		t.Errorf("%+v", d)
	}
	if d := (Timeouts{Idle: 1}).withDefaults(); d.Idle != 1 {
		t.Errorf("%+v", d)
	}
}
