package keystore_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"bulkhead/keystore"
	"bulkhead/provider"
	"bulkhead/tenant/tenanttest"
)

// What was read together is not read again together.
func TestVaultJitter(t *testing.T) {
	var now atomic.Int64
	o := server(t).tokens(t)
	o.TTL, o.Now = 100*time.Second, func() time.Time { return time.Unix(1000+now.Load(), 0) }
	v := open(t, o)
	a := tenanttest.Scope(t, "a")
	const n = 40
	for i := range n {
		v.put(a, fmt.Sprint("p", i), secretA)
	}
	ask := func() int64 {
		before := v.Stats().Reads
		for i := range n {
			v.want(a, fmt.Sprint("p", i), secretA)
		}
		return v.Stats().Reads - before
	}
	if got := ask(); got != n {
		t.Fatalf("%d reads, want %d", got, n)
	}
	now.Store(89)
	if got := ask(); got != 0 {
		t.Fatalf("%d lived shorter than the TTL less a tenth", got)
	}
	now.Store(100)
	if got := ask(); got == 0 || got == n {
		t.Fatalf("%d of %d read again at the TTL", got, n)
	}
}

func TestVaultClose(t *testing.T) {
	b := server(t)
	p := b.proxy(t, (*httptest.Server).Start)
	o := b.tokens(t)
	o.Addr, o.Check = p.URL, 2*time.Millisecond
	v := open(t, o)
	a := tenanttest.Scope(t, "a")
	v.put(a, "openai", secretA)
	v.want(a, "openai", secretA)
	looks := p.count("GET /v1/auth/token/lookup-self")
	eventually(t, "looks at the token", func() bool { return looks.Load() > 5 })
	for range 2 {
		if err := v.Close(); err != nil {
			t.Fatal(err)
		}
	}
	before, end := looks.Load(), time.Now().Add(50*time.Millisecond)
	eventually(t, "50 ms", func() bool { return time.Now().After(end) })
	if n := looks.Load() - before; n > 1 { // one may have been on its way; it would be some 25
		t.Fatalf("%d looks at the token after Close", n)
	}
	v.want(a, "openai", secretA)
}

// The token goes to the address that was configured, and to no other.
func TestVaultRedirect(t *testing.T) {
	b := server(t)
	var asked atomic.Int64
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	defer elsewhere.Close()
	for _, status := range []int{301, 302, 303, 307, 308} {
		s := httptest.NewServer(http.RedirectHandler(elsewhere.URL+"/v1/x", status))
		o := b.tokens(t)
		o.Addr = s.URL
		v := open(t, o)
		v.refused(tenanttest.Scope(t, "a"), "openai")
		v.ill()
		s.Close()
	}
	if n := asked.Load(); n != 0 {
		t.Fatalf("%d requests went elsewhere", n)
	}
}

// An answer that is too long is none.
func TestVaultLongAnswer(t *testing.T) {
	b := server(t)
	v := open(t, b.tokens(t))
	a := tenanttest.Scope(t, "a")
	put := func(n int) {
		b.byHand(t, a, "openai", map[string]any{"company": a.ID().String(), "provider": "openai", "secret": secretA, "note": strings.Repeat("a", n)})
		v.Forget(a.ID().String())
	}
	put(1 << 19)
	v.want(a, "openai", secretA)
	put(1 << 20)
	v.refused(a, "openai")
}

func TestVaultNamespace(t *testing.T) {
	b := server(t)
	b.setUp(t)
	b.must(t)(b.Logical().Write("sys/namespaces/team", nil))
	in := b.WithNamespace("team")
	if err := in.Sys().Mount("secret", &api.MountInput{Type: "kv", Options: map[string]string{"version": "2"}}); err != nil {
		t.Fatal(err)
	}
	text, err := b.Sys().GetPolicy("bulkhead")
	if err != nil {
		t.Fatal(err)
	}
	if err := in.Sys().PutPolicy("bulkhead", text); err != nil {
		t.Fatal(err)
	}
	made := b.must(t)(in.Auth().Token().CreateOrphan(&api.TokenCreateRequest{Policies: []string{"bulkhead"}, NoDefaultPolicy: true}))
	o := keystore.VaultOptions{Addr: b.addr, Namespace: "team", Token: provider.NewSecret(made.Auth.ClientToken)}
	v := open(t, o)
	if err := v.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	a := tenanttest.Scope(t, "a")
	v.put(a, "openai", secretA)
	v.want(a, "openai", secretA)
	if _, err := b.KVv2("secret").Get(t.Context(), path(a, "openai")); err == nil {
		t.Fatal("it is in the root namespace")
	}
}
