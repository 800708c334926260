package keystore_test

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/vault/api"

	"bulkhead/fault"
	"bulkhead/keystore"
	"bulkhead/provider"
	"bulkhead/tenant"
	"bulkhead/tenant/tenanttest"
)

// A secret that was put by hand is taken if it is right, and no other.
func TestVaultByHand(t *testing.T) {
	b := server(t)
	v := open(t, b.tokens(t))
	a, other := tenanttest.Scope(t, "a"), tenanttest.Scope(t, "b")
	type fields = map[string]any
	base := func(edit func(f fields)) fields {
		f := fields{"company": a.ID().String(), "provider": "openai", "secret": secretA}
		edit(f)
		return f
	}
	good := func(f fields) provider.Credential {
		t.Helper()
		b.byHand(t, a, "openai", f)
		v.Forget(a.ID().String())
		return v.want(a, "openai", secretA)
	}
	bad := func(f fields) {
		t.Helper()
		b.byHand(t, a, "openai", f)
		v.Forget(a.ID().String())
		c, err := v.Credential(t.Context(), a, "openai")
		if !errors.Is(err, keystore.ErrMismatch) || fault.As(err).Kind != fault.Internal || !c.Secret.Empty() {
			t.Fatalf("%v: got %v, want ErrMismatch", f, err)
		}
		hidden(t, err)
		all, err := v.List(t.Context(), a)
		if err != nil || len(all) != 1 || all[0].Redacted != "..." || all[0].BaseURL != "" {
			t.Fatalf("%v: listed %+v, %v", f, all, err)
		}
	}
	good(base(func(fields) {}))
	good(base(func(f fields) { f["note"] = "ours since May" }))
	c := good(base(func(f fields) {
		f["base_url"], f["resource"], f["header"] = "https://example.com/v1", "acme", fields{"x-title": "t"}
	}))
	if c.BaseURL != "https://example.com/v1" || c.Resource != "acme" || c.Header["X-Title"] != "t" || len(c.Header) != 1 {
		t.Fatalf("got %+v", c)
	}
	for _, company := range []any{other.ID().String(), "", nil, 1, strings.ToUpper(a.ID().String()), a.ID().String() + " "} {
		bad(base(func(f fields) { f["company"] = company }))
	}
	bad(base(func(f fields) { delete(f, "company"); f["Company"] = a.ID().String() }))
	for _, name := range []any{"groq", "", nil, 1, "OpenAI", "openai "} {
		bad(base(func(f fields) { f["provider"] = name }))
	}
	bad(base(func(f fields) { delete(f, "provider") }))
	for _, secret := range []any{"", nil, 5, "a b", secretA + "\n", secretA + "\r\nX-Evil: 1", strings.Repeat("a", 4097), fields{"a": "b"}} {
		bad(base(func(f fields) { f["secret"] = secret }))
	}
	bad(base(func(f fields) { delete(f, "secret") }))
	bad(base(func(f fields) { f["base_url"] = 7 }))
	bad(base(func(f fields) { f["resource"] = "a/b" }))
	for _, header := range []any{"X-Title: t", nil, []any{"X-Title"}, fields{"Authorization": "Bearer x"}, fields{"X-Title": "a\r\nb"}, fields{"X-Title": 1}} {
		bad(base(func(f fields) { f["header"] = header }))
	}
	bad(fields{})
	v.put(a, "openai", secretB) // heals it
	v.want(a, "openai", secretB)

	// Deleted by hand, but for its history: not there, and can be put again.
	if err := b.KVv2("secret").Delete(t.Context(), path(a, "openai")); err != nil {
		t.Fatal(err)
	}
	v.Forget(a.ID().String())
	if _, err := v.Credential(t.Context(), a, "openai"); fault.As(err).Code != "credential_missing" {
		t.Fatalf("got %v, want credential_missing", err)
	}
	if all, err := v.List(t.Context(), a); err != nil || len(all) != 0 {
		t.Fatalf("listed %+v, %v", all, err)
	}
	v.put(a, "openai", secretA)
	v.want(a, "openai", secretA)
}

// What others do in Vault is noted by Sync, for that company only.
func TestVaultSync(t *testing.T) {
	b := server(t)
	v := open(t, b.tokens(t))
	ctx := t.Context()
	a, other := tenanttest.Scope(t, "a"), tenanttest.Scope(t, "b")
	changes := map[tenant.ID]int{}
	v.names.Changed = func(s tenant.Scope) { changes[s.ID()]++ }
	v.put(a, "openai", secretA)
	v.put(a, "groq", secretA)
	v.put(other, "openai", secretB)
	sync := func(noted, removed, refused string) {
		t.Helper()
		before, others := changes[a.ID()], changes[other.ID()]
		got, err := v.Sync(ctx, a)
		if errors.Is(err, keystore.ErrMismatch) != (refused != "") || (err != nil) != (refused != "") {
			t.Fatal(err)
		}
		for _, names := range [][]string{got.Noted, got.Removed, got.Refused} {
			slices.Sort(names)
		}
		if n, r, f := strings.Join(got.Noted, " "), strings.Join(got.Removed, " "), strings.Join(got.Refused, " "); n != noted || r != removed || f != refused {
			t.Fatalf("got %+v", got)
		}
		if changes[a.ID()]-before != len(got.Noted)+len(got.Removed) || changes[other.ID()] != others {
			t.Fatalf("changes %v", changes)
		}
	}
	sync("", "", "")
	v.want(a, "openai", secretA)
	hand := func(name, of string) {
		b.byHand(t, a, name, map[string]any{"company": a.ID().String(), "provider": of, "secret": secretB})
	}
	hand("openai", "openai") // another version
	hand("mistral", "mistral")
	hand("cohere", "openai") // does not belong there
	if err := b.KVv2("secret").DeleteMetadata(ctx, path(a, "groq")); err != nil {
		t.Fatal(err)
	}
	v.want(a, "openai", secretA) // in memory
	sync("mistral openai", "groq", "cohere")
	v.want(a, "openai", secretB)
	sync("", "", "cohere")

	// Erase leaves nothing, and the other company alone.
	if err := v.Erase(ctx, a); err != nil {
		t.Fatal(err)
	}
	if got, err := b.Logical().List("secret/metadata/bulkhead/companies/" + a.ID().String() + "/providers"); err != nil || got != nil {
		t.Fatalf("left: %+v, %v", got, err)
	}
	if _, err := v.Credential(ctx, a, "openai"); fault.As(err).Code != "credential_missing" {
		t.Fatalf("after Erase: %v", err)
	}
	v.Forget(other.ID().String())
	v.want(other, "openai", secretB)
	b.byHand(t, a, "deeper/openai", map[string]any{"what": "is this"})
	if err := v.Erase(ctx, a); err == nil {
		t.Fatal("something is left and Erase says nothing")
	}
}

// The policy that comes with the project suffices, which all the tests here
// show, and allows nothing else.
func TestVaultPolicy(t *testing.T) {
	b := server(t)
	a := tenanttest.Scope(t, "a")
	token := b.token(t, "1h", true)
	v := open(t, keystore.VaultOptions{Addr: b.addr, Token: provider.NewSecret(token)})
	v.put(a, "openai", secretA)
	b.byHand(t, a, "openai/deeper", map[string]any{"a": "b"})
	for _, place := range []string{"other", "bulkhead/companies", "bulkhead/other/x/providers/openai", "bulkhead/companies/" + a.ID().String() + "/other/openai"} {
		if _, err := b.KVv2("secret").Put(t.Context(), place, map[string]any{"a": "b"}); err != nil {
			t.Fatal(err)
		}
	}
	c, err := api.NewClient(&api.Config{Address: b.addr})
	if err != nil {
		t.Fatal(err)
	}
	c.SetToken(token)
	denied := func(what string, do func() (*api.Secret, error)) {
		t.Helper()
		_, err := do()
		r, ok := errors.AsType[*api.ResponseError](err)
		if !ok || r.StatusCode != http.StatusForbidden {
			t.Errorf("%s: got %v, want 403", what, err)
		}
	}
	own := "bulkhead/companies/" + a.ID().String() + "/"
	for _, place := range []string{
		"secret/data/other", "secret/data/bulkhead/companies", "secret/data/bulkhead/other/x/providers/openai", "secret/data/" + own + "other/openai",
		"secret/data/" + own + "providers/openai/deeper", "secret/data/" + own, "secret/metadata/" + own + "providers/openai", "secret/metadata/other",
		"sys/mounts", "sys/policies/acl/bulkhead", "auth/approle/role/x", "cubbyhole/x", "identity/entity/id/x", "auth/token/accessors",
	} {
		denied("read "+place, func() (*api.Secret, error) { return c.Logical().Read(place) })
	}
	for _, place := range []string{"secret/metadata", "secret/metadata/bulkhead", "secret/metadata/bulkhead/companies", "secret/metadata/" + own, "auth/token/accessors"} {
		denied("list "+place, func() (*api.Secret, error) { return c.Logical().List(place) })
	}
	for _, place := range []string{"secret/data/other", "secret/data/" + own + "other/x", "secret/undelete/" + own + "providers/openai", "secret/config", "auth/token/create", "sys/policies/acl/bulkhead", "sys/seal"} {
		denied("write "+place, func() (*api.Secret, error) {
			return c.Logical().Write(place, map[string]any{"data": map[string]any{"a": "b"}})
		})
	}
	for _, place := range []string{"secret/data/" + own + "providers/openai", "secret/data/other", "secret/metadata/other", "secret/metadata/" + own} {
		denied("delete "+place, func() (*api.Secret, error) { return c.Logical().Delete(place) })
	}
	v.Forget(a.ID().String())
	v.want(a, "openai", secretA)
}

// Credentials go from one kind of keeping to the other and back, whole.
func TestMove(t *testing.T) {
	b := server(t)
	v := open(t, b.tokens(t))
	f := newFixture(t, keystore.Options{})
	ctx := t.Context()
	a, other := tenanttest.Scope(t, "a"), tenanttest.Scope(t, "b")
	azure := keystore.NewCredential{
		Provider: "azure", Secret: provider.NewSecret(secretB), BaseURL: "https://example.com/v1", Resource: "acme", Header: map[string]string{"X-Title": "t"},
	}
	if _, err := f.Put(ctx, a, azure); err != nil {
		t.Fatal(err)
	}
	f.put(a, "openai", secretA)
	f.put(other, "openai", secretB)
	type keeper = keystore.Keeper
	do := func(how func(context.Context, tenant.Scope, keeper, keeper) (keystore.Copied, error), from, to keeper, written, same, kept, removed int) {
		t.Helper()
		got, err := how(ctx, a, from, to)
		if err != nil || len(got.Written) != written || len(got.Same) != same || len(got.Kept) != kept || len(got.Removed) != removed {
			t.Fatalf("got %+v, %v", got, err)
		}
	}
	has := func(k keeper, n int) {
		t.Helper()
		k.Forget(a.ID().String())
		all, err := k.List(ctx, a)
		if err != nil || len(all) != n {
			t.Fatalf("%T has %+v, %v, want %d", k, all, err, n)
		}
		if n == 0 {
			return
		}
		if c, err := k.Credential(ctx, a, "openai"); err != nil || c.Secret.Reveal() != secretA {
			t.Fatalf("openai: %v", err)
		}
		c, err := k.Credential(ctx, a, "azure")
		if err != nil || c.Secret.Reveal() != secretB || c.BaseURL != azure.BaseURL || c.Resource != "acme" || c.Header["X-Title"] != "t" {
			t.Fatalf("azure: %+v, %v", c, err)
		}
	}
	do(keystore.Copy, f.Keystore, v.Vault, 2, 0, 0, 0)
	has(f.Keystore, 2)
	has(v.Vault, 2)
	do(keystore.Copy, f.Keystore, v.Vault, 0, 2, 0, 0) // again
	f.put(a, "openai", secretB)                        // changed since
	f.put(a, "openai", secretA)
	do(keystore.Copy, f.Keystore, v.Vault, 0, 2, 0, 0)
	do(keystore.Move, f.Keystore, v.Vault, 0, 2, 0, 2)
	has(f.Keystore, 0)
	has(v.Vault, 2)
	do(keystore.Move, f.Keystore, v.Vault, 0, 0, 0, 0) // again
	do(keystore.Move, v.Vault, f.Keystore, 2, 0, 0, 2) // back
	has(v.Vault, 0)
	has(f.Keystore, 2)
	f.want(other, "openai", secretB)

	// Where both differ the later one stays.
	do(keystore.Copy, f.Keystore, v.Vault, 2, 0, 0, 0)
	f.put(a, "openai", secretB)
	do(keystore.Copy, f.Keystore, v.Vault, 1, 1, 0, 0)
	v.want(a, "openai", secretB)
	v.put(a, "openai", secretA)
	do(keystore.Move, f.Keystore, v.Vault, 0, 1, 1, 2)
	has(v.Vault, 2)
	has(f.Keystore, 0)
}

// What another gateway changed is seen: memory is not asked.
func TestMoveFresh(t *testing.T) {
	f, to := newFixture(t, keystore.Options{}), newFixture(t, keystore.Options{})
	a := tenanttest.Scope(t, "a")
	f.put(a, "openai", secretA)
	f.want(a, "openai", secretA)
	f.fresh().put(a, "openai", secretB)
	if _, err := keystore.Move(t.Context(), a, f.Keystore, to.Keystore); err != nil {
		t.Fatal(err)
	}
	to.want(a, "openai", secretB)

	// Changed after it was copied: it stays.
	f.put(a, "openai", secretB)
	to = newFixture(t, keystore.Options{})
	rotates := rotating{to.Keystore, func() { f.put(a, "openai", secretA) }}
	got, err := keystore.Move(t.Context(), a, f.Keystore, rotates)
	if !fault.Is(err, fault.Conflict) || len(got.Removed) != 0 {
		t.Fatalf("got %+v, %v, want Conflict", got, err)
	}
	f.want(a, "openai", secretA)
}

// rotating is one during whose Put something happens.
type rotating struct {
	keystore.Keeper
	happens func()
}

func (r rotating) Put(ctx context.Context, s tenant.Scope, n keystore.NewCredential) (keystore.Sealed, error) {
	defer r.happens()
	return r.Keeper.Put(ctx, s, n)
}

// lossy is a Keeper that says that it stored, and did not.
type lossy struct{ keystore.Keeper }

func (lossy) Put(context.Context, tenant.Scope, keystore.NewCredential) (keystore.Sealed, error) {
	return keystore.Sealed{}, nil
}

// garbling is one that stores something else.
type garbling struct{ keystore.Keeper }

func (g garbling) Put(ctx context.Context, s tenant.Scope, n keystore.NewCredential) (keystore.Sealed, error) {
	n.Resource = "another"
	return g.Keeper.Put(ctx, s, n)
}

// Nothing is removed that was not read back.
func TestMoveFails(t *testing.T) {
	f, to := newFixture(t, keystore.Options{}), newFixture(t, keystore.Options{})
	a := tenanttest.Scope(t, "a")
	f.put(a, "openai", secretA)
	f.put(a, "groq", secretA)
	stays := func(to keystore.Keeper) {
		t.Helper()
		got, err := keystore.Move(t.Context(), a, f.Keystore, to)
		if err == nil || len(got.Removed) != 0 {
			t.Fatalf("got %+v, %v", got, err)
		}
		hidden(t, err)
		f.fresh().want(a, "openai", secretA)
		f.fresh().want(a, "groq", secretA)
	}
	stays(lossy{to.Keystore})
	stays(garbling{newFixture(t, keystore.Options{}).Keystore})
	to.store.Fail(errors.New("disk on fire"))
	stays(to.Keystore)
	to.store.Fail(nil)
	f.store.Fail(errors.New("disk on fire"))
	if _, err := keystore.Move(t.Context(), a, f.Keystore, to.Keystore); err == nil {
		t.Fatal("no error")
	}
	f.store.Fail(nil)

	// One that cannot be read stays, the others go.
	row := f.store.Row(a, "groq")
	row.Version++
	f.store.SetRow(a, "groq", row)
	got, err := keystore.Move(t.Context(), a, f.Keystore, to.Keystore)
	if !errors.Is(err, keystore.ErrSealed) || !slices.Equal(got.Removed, []string{"openai"}) {
		t.Fatalf("got %+v, %v", got, err)
	}
	to.want(a, "openai", secretA)
}

func TestVaultOptions(t *testing.T) {
	secret := provider.NewSecret("s.token")
	bad := func(o keystore.VaultOptions) {
		t.Helper()
		o.Names = v0{}
		v, err := keystore.OpenVault(o)
		if err == nil {
			_ = v.Close()
			t.Fatalf("taken: %+v", o)
		}
		if strings.Contains(err.Error(), "s.token") {
			t.Fatalf("the error shows the token: %s", err)
		}
	}
	addr := "http://127.0.0.1:1"
	bad(keystore.VaultOptions{Addr: addr})
	bad(keystore.VaultOptions{Addr: addr, RoleID: "r"})
	bad(keystore.VaultOptions{Addr: addr, SecretID: secret})
	bad(keystore.VaultOptions{Addr: addr, Token: secret, RoleID: "r", SecretID: secret})
	for _, a := range []string{"", "127.0.0.1:8200", "unix:///run/vault", "ftp://x", "http://", "http://u:p@x", "http://x/path", "http://x?y", "http://[::1"} {
		bad(keystore.VaultOptions{Addr: a, Token: secret})
	}
	for _, p := range []string{"/", "a/", "/a", "a//b", "..", "a/../b", ".", "a b", "a%2f", "a?b", "ä"} {
		bad(keystore.VaultOptions{Addr: addr, Token: secret, Mount: p})
		bad(keystore.VaultOptions{Addr: addr, Token: secret, Prefix: p})
	}
	bad(keystore.VaultOptions{Addr: addr, Token: secret, CAFile: "/does/not/exist"})
	bad(keystore.VaultOptions{Addr: addr, Token: secret, CAFile: "vault_kv_test.go"})
}

// v0 is Names that nobody asks.
type v0 struct{ keystore.Names }
