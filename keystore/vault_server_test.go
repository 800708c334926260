package keystore_test

import (
	"context"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"bulkhead/fault"
	"bulkhead/keystore"
	"bulkhead/keystore/keystoretest"
	"bulkhead/provider"
	"bulkhead/tenant"
	"bulkhead/test/servers"
)

// bao is a real OpenBao server and its root's client.
type bao struct {
	*api.Client
	addr string
	run  *servers.Server
}

// shared is the one server in dev mode that the tests share.
var shared = sync.OnceValues(func() (*bao, error) {
	run, err := servers.Open(context.Background(), "bao", "BAO_MODE=dev")
	if err != nil {
		return nil, err
	}
	sharedRun.Store(run)
	return connect(context.Background(), run)
})

var sharedRun atomic.Pointer[servers.Server]

func TestMain(m *testing.M) {
	code := m.Run()
	if run := sharedRun.Load(); run != nil {
		if err := run.Close(); err != nil {
			fmt.Fprintf(os.Stderr, "cannot stop OpenBao: %s", err)
		}
	}
	os.Exit(code)
}

// server returns the shared server, and skips the test where it cannot be had.
func server(t testing.TB) *bao {
	t.Helper()
	if testing.Short() {
		t.Skip("needs OpenBao")
	}
	b, err := shared()
	servers.Require(t, err)
	return b
}

// raft returns a server of its own that can be sealed and stopped.
func raft(t testing.TB) *bao {
	t.Helper()
	server(t) // which has it installed, or skips
	b, err := connect(t.Context(), servers.Start(t, "bao", "BAO_MODE=raft"))
	if err != nil {
		t.Fatal(err)
	}
	b.setUp(t)
	return b
}

// connect returns the server once it accepts writes: in raft mode it has to elect
// itself first.
func connect(ctx context.Context, run *servers.Server) (*bao, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	b := &bao{addr: run.Var("VAULT_ADDR"), run: run}
	conf := api.DefaultConfig()
	conf.Address = b.addr
	var err error
	if b.Client, err = api.NewClient(conf); err != nil {
		return nil, err
	}
	b.SetToken(run.Var("VAULT_TOKEN"))
	for {
		_, err := b.KVv2("secret").Put(ctx, "ready", map[string]any{"is": "it"})
		if err == nil || ctx.Err() != nil {
			return b, err
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

func (b *bao) stop(t testing.TB) {
	t.Helper()
	if err := b.run.Stop(); err != nil {
		t.Fatal(err)
	}
}

// restart starts a stopped raft server again where it was.
func (b *bao) restart(t testing.TB) {
	t.Helper()
	if err := b.run.Again(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := connect(t.Context(), b.run); err != nil {
		t.Fatal(err)
	}
}

func (b *bao) must(t testing.TB) func(*api.Secret, error) *api.Secret {
	return func(s *api.Secret, err error) *api.Secret {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
}

// setUp installs the policy that comes with the project, and AppRole. It may be
// called again.
func (b *bao) setUp(t testing.TB) {
	t.Helper()
	text, err := os.ReadFile("../deploy/vault/policy.hcl")
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Sys().PutPolicy("bulkhead", string(text)); err != nil {
		t.Fatal(err)
	}
	on, err := b.Sys().ListAuth()
	if err != nil {
		t.Fatal(err)
	}
	if on["approle/"] == nil {
		if err := b.Sys().EnableAuthWithOptions("approle", &api.EnableAuthOptions{Type: "approle"}); err != nil {
			t.Fatal(err)
		}
	}
}

// token makes a token of exactly the project's policy. ttl is in Vault's form.
func (b *bao) token(t testing.TB, ttl string, renewable bool) string {
	t.Helper()
	b.setUp(t)
	return b.must(t)(b.Auth().Token().CreateOrphan(&api.TokenCreateRequest{
		Policies: []string{"bulkhead"}, NoDefaultPolicy: true, TTL: ttl, Renewable: &renewable,
	})).Auth.ClientToken
}

// role makes an AppRole whose tokens have exactly the project's policy.
func (b *bao) role(t testing.TB, ttl, maxTTL string) keystore.VaultOptions {
	t.Helper()
	b.setUp(t)
	path := "auth/approle/role/r" + fmt.Sprint(time.Now().UnixNano())
	b.must(t)(b.Logical().Write(path, map[string]any{
		"token_policies": "bulkhead", "token_no_default_policy": true, "token_ttl": ttl, "token_max_ttl": maxTTL,
	}))
	id := b.must(t)(b.Logical().Read(path + "/role-id")).Data["role_id"].(string)
	secret := b.must(t)(b.Logical().Write(path+"/secret-id", nil)).Data["secret_id"].(string)
	return keystore.VaultOptions{Addr: b.addr, RoleID: id, SecretID: provider.NewSecret(secret)}
}

// tokens is a token of an hour and the project's policy.
func (b *bao) tokens(t testing.TB) keystore.VaultOptions {
	return keystore.VaultOptions{Addr: b.addr, Token: provider.NewSecret(b.token(t, "1h", true))}
}

// path is where a credential is, as documented.
func path(s tenant.Scope, name string) string {
	return "bulkhead/companies/" + s.ID().String() + "/providers/" + name
}

// byHand writes fields to where a credential of the company is.
func (b *bao) byHand(t testing.TB, s tenant.Scope, name string, fields map[string]any) {
	t.Helper()
	if _, err := b.KVv2("secret").Put(t.Context(), path(s, name), fields); err != nil {
		t.Fatal(err)
	}
}

// proxy stands in front of a server. It counts requests and can get in the way.
type proxy struct {
	*httptest.Server
	counts sync.Map               // of *atomic.Int64, by method and path
	status atomic.Int64           // with which it answers itself
	only   atomic.Pointer[string] // the path on which it does; nil is all
	hang   atomic.Pointer[chan struct{}]
	ahead  atomic.Pointer[func(*http.Request)] // is called before a request goes on
}

func (b *bao) proxy(t testing.TB, start func(*httptest.Server)) *proxy {
	u, err := url.Parse(b.addr)
	if err != nil {
		t.Fatal(err)
	}
	next := httputil.NewSingleHostReverseProxy(u)
	next.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) }
	p := &proxy{}
	next.ModifyResponse = func(r *http.Response) error {
		p.count(fmt.Sprint("answer ", r.StatusCode)).Add(1)
		return nil
	}
	p.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.count(r.Method + " " + r.URL.Path).Add(1)
		p.count("token " + r.Header.Get("X-Vault-Token")).Add(1)
		if c := p.hang.Load(); c != nil {
			select {
			case <-*c:
			case <-r.Context().Done():
				return
			}
		}
		if f := p.ahead.Load(); f != nil {
			(*f)(r)
		}
		if only := p.only.Load(); only != nil && *only != r.URL.Path {
			next.ServeHTTP(w, r)
			return
		}
		if status := int(p.status.Load()); status != 0 {
			w.WriteHeader(status)
			fmt.Fprintf(w, `{"errors": ["broken on purpose by %s"]}`, r.Header.Get("X-Vault-Token"))
			return
		}
		next.ServeHTTP(w, r)
	}))
	p.Config.ErrorLog = log.New(io.Discard, "", 0)
	start(p.Server)
	t.Cleanup(p.Close)
	return p
}

func (p *proxy) count(what string) *atomic.Int64 {
	n, _ := p.counts.LoadOrStore(what, new(atomic.Int64))
	return n.(*atomic.Int64)
}

// reads is how often a credential was asked for.
func (p *proxy) reads(s tenant.Scope, name string) int64 {
	return p.count("GET /v1/secret/data/" + path(s, name)).Load()
}

// vault is an open Vault under test.
type vault struct {
	*keystore.Vault
	t     testing.TB
	names *keystoretest.Names
}

func open(t testing.TB, o keystore.VaultOptions) *vault {
	t.Helper()
	names := keystoretest.NewNames()
	if o.Names == nil {
		o.Names = names
	}
	v, err := keystore.OpenVault(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = v.Close() })
	return &vault{v, t, names}
}

func (v *vault) put(s tenant.Scope, name, secret string) keystore.Sealed {
	v.t.Helper()
	c, err := v.Put(v.t.Context(), s, keystore.NewCredential{Provider: name, Secret: provider.NewSecret(secret)})
	if err != nil {
		v.t.Fatalf("cannot put a credential for %q: %s", name, err)
	}
	return c
}

func (v *vault) want(s tenant.Scope, name, secret string) provider.Credential {
	v.t.Helper()
	c, err := v.Credential(v.t.Context(), s, name)
	if err != nil || c.Secret.Reveal() != secret || c.Company != s.ID().String() {
		v.t.Fatalf("credential for %q of %s: got one of %q, %v", name, s.ID(), c.Company, err)
	}
	return c
}

// refused asks for a credential that must not be had at the moment.
func (v *vault) refused(s tenant.Scope, name string) {
	v.t.Helper()
	began := time.Now()
	c, err := v.Credential(v.t.Context(), s, name)
	if !fault.Is(err, fault.Unavailable) || !c.Secret.Empty() {
		v.t.Fatalf("got error %v, want Unavailable", err)
	}
	if took := time.Since(began); took > 3*time.Second {
		v.t.Fatalf("it took %s to say so", took)
	}
	hidden(v.t, err)
}

// eventually waits until ok.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(45 * time.Second); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("not in time: %s", what)
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-t.Context().Done():
		}
	}
}

func (v *vault) healthy() {
	v.t.Helper()
	eventually(v.t, "healthy", func() bool { return v.Health() == nil })
}

func (v *vault) ill() {
	v.t.Helper()
	eventually(v.t, "not healthy", func() bool { return v.Health() != nil })
	hidden(v.t, v.Health())
}

func writeCA(t testing.TB, der []byte) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func (b *bao) unseal(t testing.TB) {
	t.Helper()
	key, err := os.ReadFile(filepath.Join(b.run.Dir, "unseal"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Sys().Unseal(strings.TrimSpace(string(key))); err != nil {
		t.Fatal(err)
	}
}
