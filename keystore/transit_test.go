package keystore_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"bulkhead/keystore"
	"bulkhead/provider"
)

// transitKey makes a key of the name "bulkhead" in an engine of its own and
// returns the mount, with a token of exactly the project's policy.
func (b *bao) transitKey(t testing.TB) (mount string, o keystore.VaultOptions) {
	t.Helper()
	mount = fmt.Sprint("transit-", time.Now().UnixNano())
	if err := b.Sys().Mount(mount, &api.MountInput{Type: "transit"}); err != nil {
		t.Fatal(err)
	}
	b.must(t)(b.Logical().Write(mount+"/keys/bulkhead", nil))
	text, err := os.ReadFile("../deploy/vault/transit.hcl")
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Sys().PutPolicy(mount, strings.ReplaceAll(string(text), `"transit/`, `"`+mount+`/`)); err != nil {
		t.Fatal(err)
	}
	made := b.must(t)(b.Auth().Token().CreateOrphan(&api.TokenCreateRequest{Policies: []string{mount}, NoDefaultPolicy: true, TTL: "1h"}))
	return mount, keystore.VaultOptions{Addr: b.addr, Token: provider.NewSecret(made.Auth.ClientToken)}
}

func transit(t testing.TB, o keystore.VaultOptions, mount string) *keystore.Transit {
	t.Helper()
	tr, err := keystore.NewTransit(o, mount, "bulkhead")
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

// load returns what the key derives, or fails.
func load(t testing.TB, from keystore.MasterSource) []byte {
	t.Helper()
	m, _, err := keystore.LoadMaster(t.Context(), from)
	if err != nil {
		t.Fatal(err)
	}
	return m.Derive("x")
}

func refusedMaster(t testing.TB, from keystore.MasterSource, want string) {
	t.Helper()
	m, _, err := keystore.LoadMaster(t.Context(), from)
	if err == nil || m != nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want an error with %q", err, want)
	}
}

// A new installation whose master key is never anywhere but sealed, and the
// rotation of what seals it.
func TestTransitFile(t *testing.T) {
	b := server(t)
	mount, o := b.transitKey(t)
	from := keystore.MasterSource{Path: filepath.Join(t.TempDir(), "master.key"), Transit: transit(t, o, mount)}
	m, created, err := keystore.LoadMaster(t.Context(), from)
	if err != nil || !created {
		t.Fatalf("first start: created %t, %v", created, err)
	}
	want := m.Derive("x")
	text := func() string {
		t.Helper()
		b, err := os.ReadFile(from.Path)
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(b))
	}
	first := text()
	if !strings.HasPrefix(first, "vault:v1:") {
		t.Fatal("the key lies there unsealed")
	}
	if !bytes.Equal(load(t, from), want) {
		t.Fatal("another key at the second start")
	}
	given := keystore.MasterSource{Path: "/nowhere", Given: provider.NewSecret(first), Transit: from.Transit}
	if !bytes.Equal(load(t, given), want) {
		t.Fatal("another key where it is given")
	}
	refusedMaster(t, keystore.MasterSource{Path: from.Path}, "set vault_transit_key")

	b.must(t)(b.Logical().Write(mount+"/keys/bulkhead/rotate", nil))
	again, err := keystore.SealMaster(t.Context(), given)
	if err != nil || !strings.HasPrefix(again, "vault:v2:") || text() != first {
		t.Fatalf("%.9s, %v; the file is not to be touched where the key is given", again, err)
	}
	if _, err := keystore.SealMaster(t.Context(), from); err != nil || !strings.HasPrefix(text(), "vault:v2:") {
		t.Fatalf("%.9s, %v", text(), err)
	}
	if info, err := os.Stat(from.Path); err != nil || info.Mode() != 0o600 {
		t.Fatalf("mode %v, %v", info.Mode(), err)
	}
	if !bytes.Equal(load(t, from), want) {
		t.Fatal("another key after it was sealed anew")
	}
	b.must(t)(b.Logical().Write(mount+"/keys/bulkhead/config", map[string]any{"min_decryption_version": 2}))
	if !bytes.Equal(load(t, from), want) {
		t.Fatal("another key")
	}
	refusedMaster(t, given, "vault answered 400")
}

// An installation that begins to have its key sealed.
func TestTransitSealsPlain(t *testing.T) {
	b := server(t)
	mount, o := b.transitKey(t)
	path := filepath.Join(t.TempDir(), "master.key")
	if err := os.WriteFile(path, []byte(masterText+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	want := load(t, keystore.MasterSource{Path: path})
	from := keystore.MasterSource{Path: path, Transit: transit(t, o, mount)}
	refusedMaster(t, from, "run gateway master seal")
	sealed, err := keystore.SealMaster(t.Context(), from)
	if err != nil {
		t.Fatal(err)
	}
	if raw, _ := hex.DecodeString(masterText); strings.Contains(sealed, masterText) || strings.Contains(sealed, base64.StdEncoding.EncodeToString(raw)) {
		t.Fatal("the key is in it")
	}
	if !bytes.Equal(load(t, from), want) {
		t.Fatal("sealing changed the key")
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), ".*")); len(left) != 0 {
		t.Fatalf("left behind: %q", left)
	}

	short, err := from.Transit.Seal(t.Context(), []byte("short"))
	if err != nil {
		t.Fatal(err)
	}
	from.Given = provider.NewSecret(short)
	refusedMaster(t, from, "not 32 bytes")
	other, o2 := b.transitKey(t)
	refusedMaster(t, keystore.MasterSource{Path: path, Transit: transit(t, o2, other)}, "vault answered 400")
	refusedMaster(t, keystore.MasterSource{Path: path, Transit: transit(t, o2, mount)}, "vault answered 403")
}

// By AppRole, and with a Vault that comes later than the gateway.
func TestTransitWaits(t *testing.T) {
	b := server(t)
	mount, _ := b.transitKey(t)
	o := b.role(t, "1h", "2h")
	p := b.proxy(t, (*httptest.Server).Start)
	o.Addr = p.URL
	path := "auth/approle/role/" + mount
	b.must(t)(b.Logical().Write(path, map[string]any{"token_policies": mount, "token_no_default_policy": true}))
	o.RoleID = b.must(t)(b.Logical().Read(path + "/role-id")).Data["role_id"].(string)
	o.SecretID = provider.NewSecret(b.must(t)(b.Logical().Write(path+"/secret-id", nil)).Data["secret_id"].(string))

	p.status.Store(503)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		eventually(t, "the third login", func() bool { return p.count("PUT /v1/auth/approle/login").Load() >= 3 })
		p.status.Store(0)
	}()
	from := keystore.MasterSource{Path: filepath.Join(t.TempDir(), "master.key"), Transit: transit(t, o, mount)}
	load(t, from)
	<-ended
	if p.count("PUT /v1/auth/token/revoke-self").Load() == 0 || b.living(t, mount) != 0 {
		t.Error("the tokens it logged in for are left")
	}

	p.status.Store(503)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, _, err := keystore.LoadMaster(ctx, from); err == nil || !strings.Contains(err.Error(), `the master key with "bulkhead"`) {
		t.Errorf("%v", err)
	}
}

// living counts the tokens of a policy, but the one transitKey made.
func (b *bao) living(t testing.TB, policy string) (n int) {
	t.Helper()
	all := b.must(t)(b.Logical().List("auth/token/accessors"))
	for _, accessor := range all.Data["keys"].([]any) {
		info, err := b.Auth().Token().LookupAccessor(accessor.(string))
		if err != nil {
			continue // ended meanwhile
		}
		if meta, _ := info.Data["meta"].(map[string]any); meta["role_name"] == policy {
			n++
		}
	}
	return n
}

func TestTransitOptions(t *testing.T) {
	f := func(addr, mount, key, want string) {
		t.Helper()
		if _, err := keystore.NewTransit(keystore.VaultOptions{Addr: addr}, mount, key); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	f("https://v:1", "", "k", "transit mount")
	f("https://v:1", "../sys", "k", "transit mount")
	f("https://v:1", "transit", "", "transit key")
	f("https://v:1", "transit", "a/b", "transit key")
	f("v:1", "transit", "k", "the address must be")
}
