package web

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"bulkhead/keystore"
	"bulkhead/keystore/keystoretest"
	"bulkhead/ledger"
	"bulkhead/limiter"
	"bulkhead/provider"
	"bulkhead/router"
	"bulkhead/tenant"
	"bulkhead/tenant/tenanttest"
	"bulkhead/test/upstream"
)

var update = flag.Bool("update", false, "write the golden files anew")

// Words that must never be seen where they do not belong.
const (
	vendorSecret = "sk-vendor-CANARYSECRET0123456789"
	promptCanary = "CANARYPROMPT"
)

// patience is how long a test waits for what must come at once.
const patience = 30 * time.Second

var loadPrices = sync.OnceValues(ledger.LoadPrices)

// labOptions change a lab. Zero values are what most tests want.
type labOptions struct {
	settings func(*Settings)
	timeouts provider.Timeouts
	sandbox  http.RoundTripper
	limiter  func(limiter.Limiter) limiter.Limiter
	ledger   ledger.Options
	limits   limiter.Options // with a Book, budgets are counted
	store    ledger.Store    // nil: the entries of the lab
	tls      bool
	registry Registry
	gone     string // base URL of the provider "gone"
}

// lab is a Gateway on a real TCP listener in front of a scripted upstream.
// Its providers "up", "openai", "mistral" are all that upstream; "gone" is an
// address where nobody listens.
type lab struct {
	t         testing.TB
	g         *Gateway
	up        *upstream.Server
	world     *tenanttest.World
	keys      *keystore.Keystore
	limiter   *limiter.Local
	book      *ledger.Ledger
	entries   entryStore
	kept      keptMemory
	responses responseMemory
	logged    logBuffer
	addr      string
	client    *http.Client
	o         labOptions
}

func newLab(t testing.TB, o labOptions) *lab {
	t.Helper()
	leaks := []goleak.Option{
		goleak.IgnoreCurrent(),
		// fasthttp's own: they sleep for up to MaxIdleWorkerDuration after the end, or for ever.
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.(*workerPool).Start.func2"),
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.updateServerDate.func1"),
	}
	t.Cleanup(func() {
		if !t.Failed() {
			goleak.VerifyNone(t, leaks...)
		}
	})
	l := &lab{t: t, up: upstream.New(t), world: tenanttest.New(t, tenant.Options{}), limiter: limiter.NewLocal(o.limits), o: o}
	master, _, err := keystore.LoadMaster(t.Context(), keystore.MasterSource{Given: provider.NewSecret(strings.Repeat("5a", 32))})
	must(t, err)
	prices, err := loadPrices()
	must(t, err)
	if o.gone == "" {
		o.gone = "http://" + nobody(t) + "/v1"
	}
	vendors, problems := provider.Vendors(map[string]provider.Override{
		"up":      {Kind: "custom", BaseURL: l.up.BaseURL()},
		"openai":  {BaseURL: l.up.BaseURL()},
		"mistral": {BaseURL: l.up.BaseURL()},
		"gemini":  {BaseURL: l.up.BaseURL()},
		"gone":    {Kind: "custom", BaseURL: o.gone},
	}, false)
	must(t, errors.Join(problems...))
	if o.timeouts == (provider.Timeouts{}) {
		o.timeouts = provider.Timeouts{Connect: 2 * time.Second, Header: patience, Idle: patience, Total: 2 * patience}
	}
	s := Settings{
		Router: router.New(vendors, prices), Vendors: vendors,
		Upstream: provider.NewClient(provider.Options{Timeouts: o.timeouts, Sandbox: o.sandbox}),
		MaxBody:  1 << 20, MaxAnswer: 8 << 20, BodiesTotal: 64 << 20, BodiesPerCompany: 16 << 20, BodyTimeout: patience,
		WriteTimeout: patience, MetricCompanies: 10,
		FormDir: t.TempDir(), MaxForm: 64 << 20, FormsTotal: 256 << 20, FormsPerCompany: 128 << 20, FormTimeout: patience,
	}
	if o.settings != nil {
		o.settings(&s)
	}
	l.keys = keystore.New(keystoretest.NewMemory(), master, keystore.Options{})
	if o.store == nil {
		o.store = &l.entries
	}
	o.ledger.Shipped = l.limiter.Shipped
	l.book, err = ledger.Open(t.Context(), o.store, o.ledger)
	must(t, err)
	var lim limiter.Limiter = l.limiter
	if o.limiter != nil {
		lim = o.limiter(lim)
	}
	l.g = New(Parts{
		Tenants: l.world.Directory, Registry: o.registry, Keys: l.keys, Kept: &l.kept, Sealer: l.keys, Responses: &l.responses, Limiter: lim, Ledger: l.book, Prices: prices,
		Log: slog.New(slog.NewJSONHandler(&l.logged, nil)), Settings: s,
	})
	l.g.Ready(true)
	l.start()
	return l
}

// start serves on a free port until the test ends.
func (l *lab) start() {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(l.t, err)
	l.addr = ln.Addr().String()
	transport := &http.Transport{DisableCompression: true}
	l.client = &http.Client{Transport: transport}
	if l.o.tls {
		// httptest carries a certificate for 127.0.0.1.
		srv := httptest.NewUnstartedServer(nil)
		srv.StartTLS()
		ln = tls.NewListener(ln, &tls.Config{Certificates: srv.TLS.Certificates, NextProtos: []string{"http/1.1"}})
		transport.TLSClientConfig = &tls.Config{InsecureSkipVerify: true}
		srv.Close()
	}
	served := make(chan error, 1)
	go func() { served <- l.g.Serve(ln) }()
	l.t.Cleanup(func() {
		transport.CloseIdleConnections()
		l.settle()
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := l.g.Shutdown(ctx); err != nil {
			l.t.Errorf("shutdown: %s", err)
		}
		if err := <-served; err != nil {
			l.t.Errorf("serve: %s", err)
		}
		if err := l.book.Close(ctx); err != nil {
			l.t.Errorf("ledger: %s", err)
		}
		l.g.CloseUpstream()
	})
}

// nobody returns an address where nobody listens.
func nobody(t testing.TB) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer ln.Close()
	return ln.Addr().String()
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually polls until ok.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("waited %s in vain: %s", patience, what)
		}
		<-time.After(time.Millisecond)
	}
}

// company makes a company with credentials for all providers of the lab.
func (l *lab) company(name string, kind tenant.KeyKind, edit func(*tenant.Company)) (key string, s tenant.Scope) {
	l.t.Helper()
	providers := []string{"gone", "mistral", "openai", "up"}
	key, s = l.world.Company(name, kind, func(c *tenant.Company) {
		c.Providers = providers
		if edit != nil {
			edit(c)
		}
	})
	for _, p := range providers {
		_, err := l.keys.Put(l.t.Context(), s, keystore.NewCredential{Provider: p, Secret: provider.NewSecret(vendorSecret)})
		must(l.t, err)
	}
	return key, s
}

func routeTo(models ...string) func(*tenant.Company) {
	return func(c *tenant.Company) {
		r := &tenant.Route{Name: "best", CreatedAt: time.Unix(1, 0)}
		for _, m := range models {
			r.Targets = append(r.Targets, tenant.RouteTarget{Model: m})
		}
		c.Routes = map[string]*tenant.Route{r.Name: r}
	}
}

// project returns the one project of a company, while its policy is edited.
func projectOf(c *tenant.Company) *tenant.Project {
	for _, p := range c.Projects {
		return p
	}
	panic("a company without a project")
}

func chatBody(model string, more string) string {
	return fmt.Sprintf(`{"model":%q,"messages":[{"role":"user","content":"%s hello"}]%s}`, model, promptCanary, more)
}

const streaming = `,"stream":true`

// answer is what a client got.
type answerGot struct {
	status int
	header http.Header
	body   string
	err    error // the body did not end well
}

func (a answerGot) String() string {
	return fmt.Sprintf("%d %v %.600s err=%v", a.status, a.header, a.body, a.err)
}

func (a answerGot) envelope(t testing.TB) (e struct{ Message, Type, Param, Code string }) {
	t.Helper()
	var v struct {
		Error map[string]any `json:"error"`
	}
	if err := json.Unmarshal([]byte(a.body), &v); err != nil || len(v.Error) != 4 {
		t.Fatalf("not OpenAI's envelope: %s", a)
	}
	if a.header.Get("Content-Type") != "application/json" || !strings.HasPrefix(a.header.Get("X-Request-Id"), "req_") {
		t.Errorf("header of an error: %v", a.header)
	}
	str := func(k string) string { s, _ := v.Error[k].(string); return s }
	e.Message, e.Type, e.Param, e.Code = str("message"), str("type"), str("param"), str("code")
	return e
}

func (l *lab) url(path string) string {
	if l.o.tls {
		return "https://" + l.addr + path
	}
	return "http://" + l.addr + path
}

// do sends a request and reads the answer to its end.
func (l *lab) do(method, key, path, body string, header ...string) answerGot {
	l.t.Helper()
	resp, err := l.open(l.t.Context(), method, key, path, body, header...)
	if err != nil {
		l.t.Fatalf("%s %s: %s", method, path, err)
	}
	return readAnswer(resp)
}

func readAnswer(resp *http.Response) answerGot {
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return answerGot{resp.StatusCode, resp.Header, string(b), err}
}

func (l *lab) open(ctx context.Context, method, key, path, body string, header ...string) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, method, l.url(path), strings.NewReader(body))
	must(l.t, err)
	if key != "" {
		r.Header.Set("Authorization", "Bearer "+key)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	return l.client.Do(r)
}

func (l *lab) chat(key, model, more string) answerGot {
	l.t.Helper()
	return l.do("POST", key, "/v1/chat/completions", chatBody(model, more))
}

// dial opens a connection to the gateway that the test drives byte by byte.
func (l *lab) dial() *rawConn {
	l.t.Helper()
	tcp, err := net.Dial("tcp", l.addr)
	must(l.t, err)
	c := &rawConn{t: l.t, tcp: tcp.(*net.TCPConn), Conn: tcp}
	if l.o.tls {
		c.Conn = tls.Client(tcp, &tls.Config{InsecureSkipVerify: true})
	}
	must(l.t, c.SetDeadline(time.Now().Add(2*patience)))
	c.r = bufio.NewReader(c.Conn)
	l.t.Cleanup(func() { c.Close() })
	return c
}

type rawConn struct {
	net.Conn
	t   testing.TB
	tcp *net.TCPConn
	r   *bufio.Reader
}

func (c *rawConn) send(s string) {
	c.t.Helper()
	_, err := io.WriteString(c.Conn, s)
	must(c.t, err)
}

// answer reads one whole answer.
func (c *rawConn) answer() answerGot {
	c.t.Helper()
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil {
		c.t.Fatalf("no answer: %s", err)
	}
	return readAnswer(resp)
}

// closed reports whether the server has closed the connection, and that nothing
// more came on it.
func (c *rawConn) closed() bool {
	c.t.Helper()
	_, err := c.r.ReadByte()
	return err == io.EOF || err != nil && strings.Contains(err.Error(), "reset")
}

// reset closes the connection with RST.
func (c *rawConn) reset() { _ = c.tcp.SetLinger(0); _ = c.tcp.Close() }

// request is an HTTP/1.1 request with a key and a sized body.
// peekUntil waits until text has arrived, and leaves it to be read.
func (c *rawConn) peekUntil(text string) {
	c.t.Helper()
	for n := 1; ; n++ {
		b, err := c.r.Peek(n)
		must(c.t, err)
		if bytes.Contains(b, []byte(text)) {
			return
		}
	}
}

func rawRequest(method, key, path, body string, header ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer %s\r\n", method, path, key)
	for _, h := range header {
		b.WriteString(h + "\r\n")
	}
	fmt.Fprintf(&b, "Content-Length: %d\r\n\r\n%s", len(body), body)
	return b.String()
}

func rawChat(key, model, more string) string {
	return rawRequest("POST", key, "/v1/chat/completions", chatBody(model, more))
}

// settle waits until nothing is under way and checks that everything that calls
// took was given back.
func (l *lab) settle() {
	l.t.Helper()
	eventually(l.t, "calls end", func() bool { return l.g.InFlight() == 0 })
	g := l.g.load
	g.mu.Lock()
	if g.bytes != 0 || len(g.companies) != 0 {
		l.t.Errorf("load: %d bytes of bodies and %d companies are left", g.bytes, len(g.companies))
	}
	g.mu.Unlock()
	// The call is taken off the list last of all.
	if n := l.limiter.Stats().Open; n != 0 {
		l.t.Errorf("%d holds are left", n)
	}
	if n := l.book.Stats().Reserved; n != 0 {
		l.t.Errorf("%d places in the ledger are left", n)
	}
	if n := l.metric("bulkhead_requests_in_flight"); n != 0 {
		l.t.Errorf("the gauge is %v", n)
	}
}

// booked settles and returns the entries of the ledger so far, in order.
func (l *lab) booked() []ledger.Entry {
	l.t.Helper()
	l.settle()
	must(l.t, l.book.Flush(l.t.Context()))
	return l.entries.all()
}

// lines settles and returns the lines logged about calls, which are want.
func (l *lab) lines(want int) []map[string]any {
	l.t.Helper()
	l.settle()
	got := l.logged.calls()
	if len(got) != want {
		l.t.Errorf("%d lines in the log, want %d:\n%s", len(got), want, &l.logged)
	}
	ids := map[any]bool{}
	for _, line := range got {
		if ids[line["id"]] {
			l.t.Errorf("two lines for one call: %v", line)
		}
		ids[line["id"]] = true
	}
	return got
}

// metric adds up all series of a counter or gauge.
func (l *lab) metric(name string) (sum float64) {
	l.t.Helper()
	families, err := l.g.metrics.registry.Gather()
	must(l.t, err)
	for _, f := range families {
		if f.GetName() == name {
			for _, m := range f.GetMetric() {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}

// entryStore is a ledger.Store that keeps what it is given.
type entryStore struct {
	drop    bool // keep nothing; set before use
	mu      sync.Mutex
	entries []ledger.Entry
}

func (s *entryStore) AppendEntries(_ context.Context, batch []ledger.Booked) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.drop {
		return nil
	}
	for _, b := range batch {
		s.entries = append(s.entries, b.Entry)
	}
	return nil
}

func (s *entryStore) all() []ledger.Entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := slices.Clone(s.entries)
	slices.SortStableFunc(out, func(a, b ledger.Entry) int { return a.StartedAt.Compare(b.StartedAt) })
	return out
}
