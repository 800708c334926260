package keystore_test

import (
	"context"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"bulkhead/keystore"
	"bulkhead/provider"
	"bulkhead/tenant"
	"bulkhead/tenant/tenanttest"
)

// traffic asks for a credential all the time, until stop, which returns how
// often it was given and which errors there were.
func (v *vault) traffic(s tenant.Scope, name, secret string) (stop func() (int, []error)) {
	ctx, cancel := context.WithCancel(v.t.Context())
	given, errs, done := 0, []error(nil), make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			c, err := v.Credential(context.Background(), s, name)
			switch {
			case err != nil:
				errs = append(errs, err)
			case c.Secret.Reveal() != secret || c.Company != s.ID().String():
				v.t.Errorf("another credential: of %q", c.Company)
			default:
				given++
			}
			select {
			case <-ctx.Done():
			case <-time.After(5 * time.Millisecond):
			}
		}
	}()
	return func() (int, []error) {
		cancel()
		<-done
		return given, errs
	}
}

func (b *bao) seal(t testing.TB) {
	t.Helper()
	if err := b.Sys().Seal(); err != nil {
		t.Fatal(err)
	}
}

// Sealed or stopped with calls under way: what is in memory lives its TTL, then
// those companies are refused, and all is well again when Vault is.
func TestVaultSealedAndRestarted(t *testing.T) {
	b := raft(t)
	o := b.role(t, "1h", "2h")
	o.TTL, o.Check = 2*time.Second, 100*time.Millisecond
	v := open(t, o)
	short, long, cold := tenanttest.Scope(t, "short"), tenanttest.Scope(t, "long"), tenanttest.Scope(t, "cold")
	o.TTL = time.Hour
	lasting := open(t, o) // a gateway with a longer TTL
	for _, s := range []tenant.Scope{short, long, cold} {
		v.put(s, "openai", secretA)
	}
	down := func(stop, start func()) {
		t.Helper()
		v.healthy()
		v.Forget(short.ID().String())
		v.Forget(cold.ID().String())
		v.want(short, "openai", secretA)
		read := time.Now()
		lasting.want(long, "openai", secretA)
		end := lasting.traffic(long, "openai", secretA)
		stop()
		v.want(short, "openai", secretA) // known
		v.refused(cold, "openai")
		v.ill()
		lives := 0
		eventually(t, "the TTL ends", func() bool {
			_, err := v.Credential(t.Context(), short, "openai")
			if err == nil {
				lives++
			}
			return err != nil
		})
		if lived := time.Since(read); lives == 0 || lived < 1800*time.Millisecond || lived > 5*time.Second {
			t.Fatalf("it lived %s, with a TTL of 2 s", lived)
		}
		v.refused(short, "openai")
		start()
		eventually(t, "recovered", func() bool { _, err := v.Credential(t.Context(), cold, "openai"); return err == nil })
		v.want(short, "openai", secretA)
		v.healthy()
		if given, errs := end(); given == 0 || len(errs) > 0 {
			t.Fatalf("with its credential in memory: %d times given, errors %v", given, errs)
		}
	}
	down(func() { b.seal(t) }, func() { b.unseal(t) })
	down(func() { b.stop(t) }, func() { b.restart(t) })
	if c := v.put(short, "openai", secretB); c.Version != 2 {
		t.Fatalf("version %d after the restart, want 2", c.Version)
	}
}

// A token that was revoked: by AppRole the next one is there at once.
func TestVaultTokenRevoked(t *testing.T) {
	b := server(t)
	a := tenanttest.Scope(t, "a")

	o := b.role(t, "1h", "2h")
	o.TTL, o.Check = time.Nanosecond, time.Hour // each call reads, and only calls find out
	v := open(t, o)
	v.put(a, "openai", secretA)
	stop := v.traffic(a, "openai", secretA)
	for i := range int64(3) {
		eventually(t, "a login", func() bool { return v.Stats().Logins == i+1 })
		before := v.Stats().Reads
		b.revokeAll(t, o.RoleID)
		eventually(t, "calls", func() bool { return v.Stats().Reads > before+3 })
	}
	if given, errs := stop(); given == 0 || len(errs) > 0 {
		t.Fatalf("%d times given, errors %v", given, errs)
	}
	if n := v.Stats(); n.Denied != 0 || n.Logins != 4 {
		t.Fatalf("%+v, want no denial and 4 logins", n)
	}

	// A token that was given has no next one.
	o = b.tokens(t)
	o.TTL, o.Check = time.Nanosecond, 50*time.Millisecond
	v = open(t, o)
	v.want(a, "openai", secretA)
	if err := b.Auth().Token().RevokeTree(o.Token.Reveal()); err != nil {
		t.Fatal(err)
	}
	v.refused(a, "openai")
	v.ill()
	began := time.Now()
	for range 5 {
		v.refused(a, "openai")
	}
	if took := time.Since(began); took > time.Second {
		t.Fatalf("%s for five answers that are known", took)
	}
	if v.Stats().Denied == 0 {
		t.Fatal("the denial is not counted")
	}
}

// revokeAll ends the tokens that were made for a role.
func (b *bao) revokeAll(t testing.TB, roleID string) {
	t.Helper()
	all := b.must(t)(b.Logical().List("auth/token/accessors"))
	for _, accessor := range all.Data["keys"].([]any) {
		info, err := b.Auth().Token().LookupAccessor(accessor.(string))
		if err != nil {
			continue // ended meanwhile
		}
		if meta, _ := info.Data["meta"].(map[string]any); meta["role_name"] != nil {
			id := b.must(t)(b.Logical().Read("auth/approle/role/" + meta["role_name"].(string) + "/role-id"))
			if id.Data["role_id"] == roleID {
				if err := b.Auth().Token().RevokeAccessor(accessor.(string)); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
}

// Tokens that end while calls are under way: renewed as long as that goes, then
// the next one.
func TestVaultTokenExpires(t *testing.T) {
	b := server(t)
	a := tenanttest.Scope(t, "a")
	open(t, b.tokens(t)).put(a, "openai", secretA)
	o := b.role(t, "2s", "5s")
	p := b.proxy(t, (*httptest.Server).Start)
	o.Addr, o.TTL, o.Check = p.URL, time.Nanosecond, time.Hour
	role := open(t, o)
	o.TTL = time.Hour
	quiet := open(t, o) // nobody asks it for anything
	stopRole := role.traffic(a, "openai", secretA)

	// Given, of 2 s and renewable up to the server's own limit.
	o = keystore.VaultOptions{Addr: b.addr, Token: provider.NewSecret(b.token(t, "2s", true))}
	o.TTL, o.Check = time.Nanosecond, 100*time.Millisecond
	renewed := open(t, o)
	stopRenewed := renewed.traffic(a, "openai", secretA)

	// Given, and not renewable.
	o.Token = provider.NewSecret(b.token(t, "2s", false))
	ending := open(t, o)
	ending.want(a, "openai", secretA)
	ending.ill()
	ending.refused(a, "openai")
	if ending.Stats().Denied == 0 {
		t.Fatal("the denial is not counted")
	}

	eventually(t, "the third login", func() bool { return role.Stats().Logins >= 3 })
	if given, errs := stopRole(); given == 0 || len(errs) > 0 {
		t.Fatalf("AppRole: %d times given, %d logins, errors %v", given, role.Stats().Logins, errs)
	}
	if p.count("PUT /v1/auth/token/renew-self").Load() == 0 {
		t.Fatal("AppRole: no token was renewed")
	}
	eventually(t, "the second login without a call", func() bool { return quiet.Stats().Logins >= 2 })
	if given, errs := stopRenewed(); given == 0 || len(errs) > 0 {
		t.Fatalf("renewed: %d times given, errors %v", given, errs)
	}
}

// A renewal that failed is tried again, but not all the time.
func TestVaultRenewalResumes(t *testing.T) {
	b := server(t)
	p := b.proxy(t, (*httptest.Server).Start)
	o := keystore.VaultOptions{Addr: p.URL, Token: provider.NewSecret(b.token(t, "12s", true)), Check: 50 * time.Millisecond}
	v := open(t, o)
	renewals := p.count("PUT /v1/auth/token/renew-self")
	eventually(t, "the first renewal", func() bool { return renewals.Load() == 1 && p.count("answer 200").Load() > 2 })
	path := "/v1/auth/token/renew-self"
	p.only.Store(&path)
	p.status.Store(503)
	eventually(t, "the next one, which fails twice", func() bool { return renewals.Load() >= 3 })
	end := time.Now().Add(500 * time.Millisecond)
	eventually(t, "0.5 s", func() bool { return time.Now().After(end) })
	before := renewals.Load()
	if before > 7 {
		t.Fatalf("%d renewals tried in 0.5 s", before-1)
	}
	p.status.Store(0)
	eventually(t, "another", func() bool { return renewals.Load() > before })
	end = time.Now().Add(5 * time.Second) // without it the token has about three left
	eventually(t, "5 s", func() bool { return time.Now().After(end) })
	if err := v.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// A denial by policy is not taken for the end of the token: no login for each.
func TestVaultDenied(t *testing.T) {
	b := server(t)
	a := tenanttest.Scope(t, "a")
	o := b.role(t, "1h", "2h")
	o.Prefix = "elsewhere"
	p := b.proxy(t, (*httptest.Server).Start)
	o.Addr = p.URL
	v := open(t, o)
	for range 20 {
		v.refused(a, "openai")
	}
	if n := v.Stats(); n.Denied != 20 || n.Logins != 1 {
		t.Fatalf("%+v, want 20 denials and one login", n)
	}
	if _, err := v.List(t.Context(), a); err == nil {
		t.Fatal("listed")
	}
	if err := v.Check(t.Context()); err == nil || !strings.Contains(err.Error(), `"elsewhere"`) {
		t.Fatalf("a policy for another prefix: %v", err)
	}

	// A wrong secret id: no storm of logins, and no answer takes long.
	o.SecretID = provider.NewSecret("12345678-1234-1234-1234-123456789012")
	began, before := time.Now(), p.count("PUT /v1/auth/approle/login").Load()
	v = open(t, o)
	eventually(t, "2 s", func() bool { v.refused(a, "openai"); return time.Since(began) > 2*time.Second })
	v.ill()
	if n := p.count("PUT /v1/auth/approle/login").Load() - before; n == 0 || n > 12 {
		t.Fatalf("%d logins in 2 s", n)
	}

	// Something else than KV version 2 where it should be.
	if err := b.Sys().PutPolicy("all", `path "*" { capabilities = ["read", "list"] }`); err != nil {
		t.Fatal(err)
	}
	all := b.must(t)(b.Auth().Token().CreateOrphan(&api.TokenCreateRequest{Policies: []string{"all"}})).Auth.ClientToken
	v = open(t, keystore.VaultOptions{Addr: b.addr, Token: provider.NewSecret(all), Mount: "cubbyhole"})
	v.refused(a, "openai")
	v.ill()
}
