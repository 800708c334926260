package keystore_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
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
	"bulkhead/tenant/tenanttest"
)

func TestVaultReader(t *testing.T) {
	b := server(t)
	keystoretest.Run(t, func(t *testing.T) keystoretest.Backend {
		p := b.proxy(t, (*httptest.Server).Start)
		o := b.tokens(t)
		o.Addr = p.URL
		v := open(t, o)
		ctx := context.Background()
		return keystoretest.Backend{
			Reader: v.Vault,
			Place: func(s tenant.Scope, n keystore.NewCredential) error {
				_, err := v.Put(ctx, s, n)
				return err
			},
			Remove: func(s tenant.Scope, name string) error {
				all, err := v.List(ctx, s)
				for _, c := range all {
					if c.Provider == name {
						return v.Delete(ctx, s, c.ID)
					}
				}
				return fmt.Errorf("not listed, %v", err)
			},
			Steal: func(from tenant.Scope, name string, to tenant.Scope, as string) error {
				got, err := b.KVv2("secret").Get(ctx, path(from, name))
				if err == nil {
					_, err = b.KVv2("secret").Put(ctx, path(to, as), got.Data)
				}
				return err
			},
			Break: func(err error) {
				status := 0
				if err != nil {
					status = http.StatusInternalServerError
				}
				p.status.Store(int64(status))
			},
		}
	})
}

func TestMemoryNames(t *testing.T) {
	keystoretest.RunNames(t, func(t *testing.T) (keystore.Names, func() tenant.Scope, func(tenant.Scope) int64) {
		names, generations := keystoretest.NewNames(), map[tenant.ID]int64{}
		names.Changed = func(s tenant.Scope) { generations[s.ID()]++ }
		return names, func() tenant.Scope { return tenanttest.Scope(t, "a") }, func(s tenant.Scope) int64 { return generations[s.ID()] }
	})
}

func TestVaultPut(t *testing.T) {
	bao := server(t)
	v := open(t, bao.tokens(t))
	ctx := t.Context()
	a, b := tenanttest.Scope(t, "a"), tenanttest.Scope(t, "b")
	// Vault itself sees that each write names the version it follows.
	if err := bao.KVv2("secret").PutMetadata(ctx, path(a, "openai"), api.KVMetadataPutInput{CASRequired: true}); err != nil {
		t.Fatal(err)
	}
	noted := func(n int) keystore.Sealed {
		t.Helper()
		all, err := v.names.CredentialNames(ctx, a)
		if err != nil || len(all) != n {
			t.Fatalf("noted: %+v, %v, want %d", all, err, n)
		}
		if n == 0 {
			return keystore.Sealed{}
		}
		return all[0]
	}
	first := v.put(a, "openai", secretA)
	if !strings.HasPrefix(first.ID, "cred_") || len(first.ID) != 29 || first.Version != 1 || first.Redacted != "...aaaa" || first.UpdatedAt.IsZero() {
		t.Fatalf("got %+v", first)
	}
	v.want(a, "openai", secretA)
	second := v.put(a, "openai", secretB)
	if second.ID != first.ID || second.Version != 2 || !second.CreatedAt.Equal(first.CreatedAt) || !second.UpdatedAt.After(first.UpdatedAt) {
		t.Fatalf("got %+v after %+v", second, first)
	}
	if got := noted(1); got.Version != 2 || got.ID != first.ID || got.Provider != "openai" {
		t.Fatalf("noted: %+v", got)
	}
	hidden(t, second)
	v.want(a, "openai", secretB)
	if other := v.put(b, "openai", secretA); other.ID == first.ID {
		t.Fatal("two companies' credentials have one id")
	}
	v.put(a, "groq", secretA)
	all, err := v.List(ctx, a)
	if err != nil || len(all) != 2 || all[0].ID != first.ID || all[0].Version != 2 || all[0].Redacted != "...bbbb" || !all[0].CreatedAt.Equal(first.CreatedAt) || all[1].Provider != "groq" {
		t.Fatalf("got %+v, %v", all, err)
	}
	hidden(t, all)
	if err := v.Delete(ctx, b, first.ID); !fault.Is(err, fault.NotFound) {
		t.Fatalf("another company's: got %v, want NotFound", err)
	}
	v.want(a, "openai", secretB)
	if err := v.Delete(ctx, a, first.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Credential(ctx, a, "openai"); fault.As(err).Code != "credential_missing" {
		t.Fatalf("after Delete: %v", err)
	}
	if err := v.Delete(ctx, a, first.ID); !fault.Is(err, fault.NotFound) {
		t.Fatalf("twice: got %v, want NotFound", err)
	}
	v.want(b, "openai", secretA)
	if got := noted(1); got.Provider != "groq" {
		t.Fatalf("noted: %+v", got)
	}
	if again := v.put(a, "openai", secretA); again.Version != 1 { // nothing is left, no history either
		t.Fatalf("after Delete: %+v", again)
	}
	_, err = v.Put(ctx, a, keystore.NewCredential{Provider: "../openai", Secret: provider.NewSecret(secretA)})
	if fault.As(err).Param != "provider" {
		t.Fatalf("got %v, want Invalid about provider", err)
	}
}

// stuck is Names of which nothing can be removed.
type stuck struct{ keystore.Names }

func (stuck) DeleteCredentialName(context.Context, tenant.Scope, string) error {
	return fmt.Errorf("disk on fire")
}

// What stops half way can be done again.
func TestVaultNamesFail(t *testing.T) {
	o := server(t).tokens(t)
	v := open(t, o)
	a := tenanttest.Scope(t, "a")
	v.names.Fail(fmt.Errorf("disk on fire"))
	_, err := v.Put(t.Context(), a, keystore.NewCredential{Provider: "openai", Secret: provider.NewSecret(secretA)})
	if !fault.Is(err, fault.Unavailable) {
		t.Fatalf("got %v, want Unavailable", err)
	}
	v.names.Fail(nil)
	c := v.put(a, "openai", secretA)
	o.Names = stuck{v.names}
	if err := open(t, o).Delete(t.Context(), a, c.ID); !fault.Is(err, fault.Unavailable) {
		t.Fatalf("got %v, want Unavailable", err)
	}
	if all, _ := v.names.CredentialNames(t.Context(), a); len(all) != 1 {
		t.Fatalf("noted: %+v", all)
	}
	if err := v.Delete(t.Context(), a, c.ID); err != nil {
		t.Fatal(err)
	}
	if all, _ := v.names.CredentialNames(t.Context(), a); len(all) != 0 {
		t.Fatalf("noted: %+v", all)
	}
}

// Many at once: each version is written once, the last one stays.
func TestVaultPutRace(t *testing.T) {
	v := open(t, server(t).tokens(t))
	a := tenanttest.Scope(t, "a")
	var wg sync.WaitGroup
	var won atomic.Int64
	for i := range 8 {
		wg.Go(func() {
			_, err := v.Put(t.Context(), a, keystore.NewCredential{Provider: "openai", Secret: provider.NewSecret(fmt.Sprint("secret", i))})
			switch {
			case err == nil:
				won.Add(1)
			case !fault.Is(err, fault.Conflict):
				t.Error(err)
			}
		})
	}
	wg.Wait()
	c, err := v.Credential(t.Context(), a, "openai")
	if err != nil || c.Version != won.Load() || won.Load() == 0 {
		t.Fatalf("%d puts, version %d, %v", won.Load(), c.Version, err)
	}
}

// The deadline of a load, and what a company without a warm credential sees.
func TestVaultAway(t *testing.T) {
	b := server(t)
	p := b.proxy(t, (*httptest.Server).Start)
	o := b.tokens(t)
	a, c := tenanttest.Scope(t, "a"), tenanttest.Scope(t, "c")
	direct := open(t, o)
	direct.put(a, "openai", secretA)
	direct.put(c, "openai", secretB)

	hang := make(chan struct{})
	p.hang.Store(&hang)
	o.Addr, o.LoadTimeout, o.Check = p.URL, 500*time.Millisecond, 200*time.Millisecond
	began := time.Now()
	v := open(t, o) // does not wait
	if took := time.Since(began); took > time.Second || v.Health() == nil {
		t.Fatalf("opened after %s, health %v", took, v.Health())
	}
	began = time.Now()
	v.refused(a, "openai")
	if took := time.Since(began); took > time.Second {
		t.Fatalf("it took %s, with a deadline of 0.5 s", took)
	}
	p.hang.Store(nil)
	close(hang)
	v.healthy()
	v.want(a, "openai", secretA)

	// Frozen again: what is warm lives, what is not is refused in time.
	hang = make(chan struct{})
	p.hang.Store(&hang)
	v.want(a, "openai", secretA)
	v.refused(c, "openai")
	p.hang.Store(nil)
	close(hang)
	eventually(t, "recovered", func() bool { _, err := v.Credential(t.Context(), c, "openai"); return err == nil })

	// With nothing said about the deadline it is 2 s, which v.refused looks at.
	hang = make(chan struct{})
	p.hang.Store(&hang)
	o.LoadTimeout = 0
	open(t, o).refused(a, "openai")
	close(hang)

	// Nobody listens.
	o.Addr = "http://127.0.0.1:1"
	v = open(t, o)
	v.refused(a, "openai")
	v.ill()
	if v.Stats().Failed == 0 {
		t.Fatal("not counted")
	}
}

// Repetitions are bounded: 200 loads that fail do not become 400 requests.
func TestVaultRetries(t *testing.T) {
	b := server(t)
	p := b.proxy(t, (*httptest.Server).Start)
	o := b.tokens(t)
	o.Addr, o.Check = p.URL, time.Hour
	v := open(t, o)
	v.healthy()
	p.status.Store(http.StatusServiceUnavailable)
	looks, began := p.count("GET /v1/auth/token/lookup-self"), time.Now()
	before := looks.Load()
	a := tenanttest.Scope(t, "a")
	var requests int64
	for i := range 200 {
		name := fmt.Sprint("p", i)
		v.refused(a, name)
		requests += p.reads(a, name)
	}
	if requests < 201 || requests > 260 {
		t.Fatalf("%d requests for 200 loads", requests)
	}
	// Nor is the token looked at for each.
	if n, took := looks.Load()-before, time.Since(began); n == 0 || n > 8+2*int64(took/time.Second) {
		t.Fatalf("%d looks at the token in %s", n, took)
	}
	if err := v.Health(); err == nil || !strings.Contains(err.Error(), "503") || strings.Contains(err.Error(), "ended") {
		t.Fatalf("health %v", err)
	}
}

// Five hundred who want the same are one request, for each company its own; and
// what is warm is none.
func TestVaultSingleFlight(t *testing.T) {
	b := server(t)
	p := b.proxy(t, (*httptest.Server).Start)
	o := b.tokens(t)
	o.Addr = p.URL
	seed := open(t, b.tokens(t))
	const companies, all = 10, 500
	var scopes []tenant.Scope
	for i := range companies {
		s := tenanttest.Scope(t, "same")
		seed.put(s, "openai", fmt.Sprint("secret-of-", i))
		scopes = append(scopes, s)
	}
	run := func(v *vault, n int) {
		t.Helper()
		var wg sync.WaitGroup
		start := make(chan struct{})
		for i := range all {
			wg.Go(func() {
				<-start
				c, err := v.Credential(t.Context(), scopes[i%n], "openai")
				if err != nil || c.Secret.Reveal() != fmt.Sprint("secret-of-", i%n) {
					t.Errorf("company %d: %v", i%n, err)
				}
			})
		}
		close(start)
		wg.Wait()
	}
	v := open(t, o)
	v.healthy()
	run(v, 1)
	if n := p.reads(scopes[0], "openai"); n != 1 || v.Stats().Reads != 1 {
		t.Fatalf("%d requests, %+v, want 1", n, v.Stats())
	}
	run(v, companies)
	for i, s := range scopes {
		if n := p.reads(s, "openai"); n != 1 {
			t.Fatalf("company %d: %d requests, want 1", i, n)
		}
	}
	before := v.Stats().Reads
	run(v, companies)
	if n := v.Stats().Reads - before; n != 0 {
		t.Fatalf("%d requests for what is warm", n)
	}
}

func TestVaultTLSAndEnvironment(t *testing.T) {
	b := server(t)
	p := b.proxy(t, (*httptest.Server).StartTLS)
	file := writeCA(t, p.Certificate().Raw)
	o := b.tokens(t)
	o.Addr, o.CAFile = p.URL, file
	for name, value := range map[string]string{
		"VAULT_ADDR": "http://127.0.0.1:1", "VAULT_TOKEN": "nonsense", "VAULT_NAMESPACE": "nowhere", "VAULT_PROXY_ADDR": "http://127.0.0.1:1",
		"HTTPS_PROXY": "http://127.0.0.1:1", "HTTP_PROXY": "http://127.0.0.1:1", "VAULT_SKIP_VERIFY": "true", "VAULT_HEADERS": `{"X-Evil": "1"}`,
	} {
		t.Setenv(name, value)
	}
	a := tenanttest.Scope(t, "a")
	v := open(t, o)
	v.healthy()
	v.put(a, "openai", secretA)
	v.want(a, "openai", secretA)
	role := b.role(t, "1h", "2h")
	role.Addr, role.CAFile = p.URL, file
	open(t, role).want(a, "openai", secretA)
	if p.count("token nonsense").Load() != 0 {
		t.Fatal("the token of the environment was used")
	}

	o.CAFile = ""
	v = open(t, o)
	v.refused(a, "openai")
	if err := v.Health(); err == nil || !strings.Contains(err.Error(), "trust") {
		t.Fatalf("an unknown authority: health %v", err)
	}
}

func TestVaultNotPrintable(t *testing.T) {
	b := server(t)
	o := b.role(t, "1h", "2h")
	v := open(t, o)
	a := tenanttest.Scope(t, "a")
	v.put(a, "openai", secretA)
	v.want(a, "openai", secretA)
	hidden(t, v.Vault)
	hidden(t, o)
	text := fmt.Sprintf("%v %+v %#v", v.Vault, o, o)
	if strings.Contains(text, o.SecretID.Reveal()) {
		t.Fatal("the secret id is shown")
	}
	// Nor is what a server says, which here repeats the token.
	p := b.proxy(t, (*httptest.Server).Start)
	o = b.tokens(t)
	o.Addr = p.URL
	v = open(t, o)
	v.healthy()
	for _, status := range []int64{400, 403, 404, 429, 500, 307} {
		p.status.Store(status)
		_, err := v.Credential(t.Context(), a, "openai")
		if err == nil || strings.Contains(fmt.Sprintf("%v %+v", err, err), o.Token.Reveal()) || strings.Contains(err.Error(), "purpose") {
			t.Fatalf("%d: %v", status, err)
		}
	}
}
