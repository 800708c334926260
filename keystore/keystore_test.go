package keystore_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"bulkhead/fault"
	"bulkhead/keystore"
	"bulkhead/keystore/keystoretest"
	"bulkhead/provider"
	"bulkhead/tenant"
	"bulkhead/tenant/tenanttest"
)

var masterText = strings.Repeat("5a", 32)

func master(t testing.TB, text string) *keystore.Master {
	t.Helper()
	m, _, err := keystore.LoadMaster(t.Context(), keystore.MasterSource{Given: provider.NewSecret(text)})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// fixture is a Keystore over a store that can be tampered with.
type fixture struct {
	*keystore.Keystore
	t     testing.TB
	store *keystoretest.Memory
	o     keystore.Options
}

func newFixture(t testing.TB, o keystore.Options) *fixture {
	store := keystoretest.NewMemory()
	return &fixture{keystore.New(store, master(t, masterText), o), t, store, o}
}

// fresh returns a Keystore over the same store with nothing in memory.
func (f *fixture) fresh() *fixture {
	return &fixture{keystore.New(f.store, master(f.t, masterText), f.o), f.t, f.store, f.o}
}

func (f *fixture) put(s tenant.Scope, name, secret string) keystore.Sealed {
	f.t.Helper()
	c, err := f.Put(context.Background(), s, keystore.NewCredential{Provider: name, Secret: provider.NewSecret(secret)})
	if err != nil {
		f.t.Fatalf("cannot put a credential for %q: %s", name, err)
	}
	return c
}

func (f *fixture) want(s tenant.Scope, name, secret string) provider.Credential {
	f.t.Helper()
	c, err := f.Credential(context.Background(), s, name)
	if err != nil {
		f.t.Fatalf("credential for %q: %s", name, err)
	}
	if c.Secret.Reveal() != secret {
		f.t.Fatalf("credential for %q has another secret", name)
	}
	return c
}

// wantSealed asks for a credential that must not open, of a cold Keystore.
func (f *fixture) wantSealed(s tenant.Scope, name string) {
	f.t.Helper()
	c, err := f.fresh().Credential(context.Background(), s, name)
	if !errors.Is(err, keystore.ErrSealed) || !reflect.DeepEqual(c, provider.Credential{}) {
		f.t.Fatalf("got a credential or error %v, want ErrSealed", err)
	}
	if fault.As(err).Kind != fault.Internal {
		f.t.Fatalf("the client would see %s", err)
	}
	hidden(f.t, err)
}

// hidden checks that v shows none of the secrets these tests use.
func hidden(t testing.TB, v any) {
	t.Helper()
	text := fmt.Sprintf("%v|%+v|%#v|%s|%q|%x|%d", v, v, v, v, v, v, v)
	for _, secret := range []string{secretA, secretB, string(bytes.Repeat([]byte{0x5a}, 8))} {
		for _, form := range []string{secret, hex.EncodeToString([]byte(secret)), strings.Trim(fmt.Sprint([]byte(secret)), "[]")} {
			if strings.Contains(text, form) {
				t.Fatalf("%T shows a secret", v)
			}
		}
	}
}

const (
	secretA = "sk-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	secretB = "sk-bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
)

func TestReader(t *testing.T) {
	keystoretest.Run(t, func(t *testing.T) keystoretest.Backend {
		f := newFixture(t, keystore.Options{})
		ctx := context.Background()
		return keystoretest.Backend{
			Reader: f,
			Place: func(s tenant.Scope, n keystore.NewCredential) error {
				_, err := f.Put(ctx, s, n)
				return err
			},
			Remove: func(s tenant.Scope, name string) error { return f.Delete(ctx, s, f.store.Row(s, name).ID) },
			Steal: func(from tenant.Scope, name string, to tenant.Scope, as string) error {
				r := f.store.Row(from, name)
				r.Provider = as
				f.store.SetRow(to, as, r)
				return nil
			},
			Break: f.store.Fail,
		}
	})
}

func TestMemoryStore(t *testing.T) {
	keystoretest.RunStore(t, func(t *testing.T) (keystore.Store, func() tenant.Scope) {
		return keystoretest.NewMemory(), func() tenant.Scope { return tenanttest.Scope(t, "a") }
	})
}

// What was changed in the store does not open, whatever it was.
func TestTampered(t *testing.T) {
	a, b := tenanttest.Scope(t, "a"), tenanttest.Scope(t, "b")
	f := func(change func(f *fixture, r *keystore.Sealed)) {
		t.Helper()
		f := newFixture(t, keystore.Options{})
		f.put(a, "openai", secretA)
		f.put(a, "groq", secretA)
		f.put(b, "openai", secretB)
		f.put(a, "openai", secretA) // version 2
		f.fresh().want(a, "openai", secretA)
		r := f.store.Row(a, "openai")
		change(f, &r)
		f.store.SetRow(a, "openai", r)
		f.wantSealed(a, "openai")
		f.fresh().want(b, "openai", secretB)
	}
	// B's row, or parts of it, in A's place.
	f(func(f *fixture, r *keystore.Sealed) { *r = f.store.Row(b, "openai") })
	f(func(f *fixture, r *keystore.Sealed) { r.Blob = f.store.Row(b, "openai").Blob })
	f(func(f *fixture, r *keystore.Sealed) { r.ID = f.store.Row(b, "openai").ID })
	// B's data key too: then B's row would open, were it not bound to B.
	f(func(f *fixture, r *keystore.Sealed) { f.store.SetDataKey(a, f.store.RawDataKey(b)) })
	f(func(f *fixture, r *keystore.Sealed) {
		f.store.SetDataKey(a, f.store.RawDataKey(b))
		*r = f.store.Row(b, "openai")
	})
	// Its own for another provider.
	f(func(f *fixture, r *keystore.Sealed) {
		r.Blob, r.ID = f.store.Row(a, "groq").Blob, f.store.Row(a, "groq").ID
	})
	f(func(f *fixture, r *keystore.Sealed) {
		*r = f.store.Row(a, "groq")
		r.Provider = "openai"
	})
	// Another version.
	f(func(f *fixture, r *keystore.Sealed) { r.Version-- })
	f(func(f *fixture, r *keystore.Sealed) { r.Version++ })
	f(func(f *fixture, r *keystore.Sealed) { r.Version = -r.Version })
	// No data key, no ciphertext, a very long id.
	f(func(f *fixture, r *keystore.Sealed) { f.store.SetDataKey(a, nil) })
	f(func(f *fixture, r *keystore.Sealed) { f.store.SetDataKey(a, []byte{1}) })
	f(func(f *fixture, r *keystore.Sealed) { r.Blob = nil })
	f(func(f *fixture, r *keystore.Sealed) { r.Blob = r.Blob[:len(r.Blob)-1] })
	f(func(f *fixture, r *keystore.Sealed) { r.Blob = append(r.Blob, 0) })
	f(func(f *fixture, r *keystore.Sealed) { r.ID = strings.Repeat("x", 1<<17) })
	// Every bit.
	fx := newFixture(t, keystore.Options{})
	fx.put(a, "openai", secretA)
	row := fx.store.Row(a, "openai")
	for i := range len(row.Blob) * 8 {
		bad := row
		bad.Blob = bytes.Clone(row.Blob)
		bad.Blob[i/8] ^= 1 << (i % 8)
		fx.store.SetRow(a, "openai", bad)
		fx.wantSealed(a, "openai")
	}
	key := fx.store.RawDataKey(a)
	fx.store.SetRow(a, "openai", row)
	for i := range len(key) * 8 {
		bad := bytes.Clone(key)
		bad[i/8] ^= 1 << (i % 8)
		fx.store.SetDataKey(a, bad)
		fx.wantSealed(a, "openai")
	}
}

func TestWrongMaster(t *testing.T) {
	a := tenanttest.Scope(t, "a")
	f := newFixture(t, keystore.Options{})
	f.put(a, "openai", secretA)
	before, key := f.store.Row(a, "openai"), f.store.RawDataKey(a)
	other := keystore.New(f.store, master(t, strings.Repeat("5b", 32)), keystore.Options{})
	c, err := other.Credential(t.Context(), a, "openai")
	if !errors.Is(err, keystore.ErrSealed) || !c.Secret.Empty() {
		t.Fatalf("got error %v, want ErrSealed", err)
	}
	hidden(t, err)
	// Nor does it make a new data key, which would leave the rest unreadable.
	if _, err = other.Put(t.Context(), a, keystore.NewCredential{Provider: "openai", Secret: provider.NewSecret(secretB)}); !errors.Is(err, keystore.ErrSealed) {
		t.Fatalf("got error %v, want ErrSealed", err)
	}
	if got := f.store.Row(a, "openai"); !bytes.Equal(got.Blob, before.Blob) || !bytes.Equal(f.store.RawDataKey(a), key) {
		t.Fatal("the store was changed under the wrong master key")
	}
}

func TestPut(t *testing.T) {
	now := time.Unix(1000, 0)
	f := newFixture(t, keystore.Options{Now: func() time.Time { return now }})
	a := tenanttest.Scope(t, "a")
	first := f.put(a, "openai", secretA)
	if !strings.HasPrefix(first.ID, "cred_") || len(first.ID) != 29 || first.Version != 1 || first.Redacted != "...aaaa" || first.Blob != nil || !first.CreatedAt.Equal(now) {
		t.Fatalf("got %+v", first)
	}
	hidden(t, first)
	now = now.Add(time.Hour)
	second := f.put(a, "openai", secretB)
	if second.ID != first.ID || second.Version != 2 || !second.CreatedAt.Equal(first.CreatedAt) || !second.UpdatedAt.Equal(now) {
		t.Fatalf("got %+v after %+v", second, first)
	}
	f.want(a, "openai", secretB) // at once, also for a Scope that was there before
	f.fresh().want(a, "openai", secretB)
	// Sealing the same twice gives other bytes; the secret is in none of them.
	blob := f.store.Row(a, "openai").Blob
	f.put(a, "openai", secretB)
	if again := f.store.Row(a, "openai").Blob; bytes.Equal(blob, again) || bytes.Contains(again, []byte(secretB)) || bytes.Contains(again, []byte(a.ID().String())) {
		t.Fatal("the blob repeats itself or is not sealed")
	}
	all, err := f.List(t.Context(), a)
	if err != nil || len(all) != 1 || all[0].ID != first.ID || all[0].Version != 3 {
		t.Fatalf("got %+v, %v", all, err)
	}
	if err := f.Delete(t.Context(), tenanttest.Scope(t, "b"), first.ID); !fault.Is(err, fault.NotFound) {
		t.Fatalf("another company's: got %v, want NotFound", err)
	}
	if err := f.Delete(t.Context(), a, first.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Credential(t.Context(), a, "openai"); fault.As(err).Code != "credential_missing" {
		t.Fatalf("after Delete: %v", err)
	}
	if err := f.Delete(t.Context(), a, first.ID); !fault.Is(err, fault.NotFound) {
		t.Fatalf("twice: got %v, want NotFound", err)
	}
}

// Many at once: each version is written once, the last one stays.
func TestPutRace(t *testing.T) {
	f := newFixture(t, keystore.Options{})
	a := tenanttest.Scope(t, "a")
	var wg sync.WaitGroup
	var won atomic.Int64
	for i := range 16 {
		wg.Go(func() {
			_, err := f.Put(t.Context(), a, keystore.NewCredential{Provider: "openai", Secret: provider.NewSecret(fmt.Sprint("secret", i))})
			switch {
			case err == nil:
				won.Add(1)
			case !fault.Is(err, fault.Conflict):
				t.Error(err)
			}
		})
	}
	wg.Wait()
	c, err := f.Credential(t.Context(), a, "openai")
	if err != nil || c.Version != won.Load() || won.Load() == 0 {
		t.Fatalf("%d puts, version %d, %v", won.Load(), c.Version, err)
	}
}

// conflicting is a store in which somebody else is always first.
type conflicting struct {
	*keystoretest.Memory
	puts int
}

func (c *conflicting) PutCredential(context.Context, tenant.Scope, keystore.Sealed) error {
	c.puts++
	return keystore.ErrConflict
}

func TestPutConflict(t *testing.T) {
	store := &conflicting{Memory: keystoretest.NewMemory()}
	k := keystore.New(store, master(t, masterText), keystore.Options{})
	_, err := k.Put(t.Context(), tenanttest.Scope(t, "a"), keystore.NewCredential{Provider: "openai", Secret: provider.NewSecret(secretA)})
	if !fault.Is(err, fault.Conflict) || store.puts != 8 {
		t.Fatalf("got %v after %d tries, want Conflict after 8", err, store.puts)
	}
	hidden(t, err)
}

func TestPutRefused(t *testing.T) {
	a := tenanttest.Scope(t, "a")
	f := newFixture(t, keystore.Options{})
	put := func(n keystore.NewCredential) error {
		_, err := f.Put(t.Context(), a, n)
		return err
	}
	bad := func(param string, n keystore.NewCredential) {
		t.Helper()
		err := put(n)
		if e := fault.As(err); err == nil || e.Kind != fault.Invalid || e.Param != param {
			t.Fatalf("got %v, want Invalid about %s", err, param)
		}
		hidden(t, err)
	}
	good := func(n keystore.NewCredential) {
		t.Helper()
		if err := put(n); err != nil {
			t.Fatal(err)
		}
	}
	secret := provider.NewSecret
	for _, name := range []string{"", "OpenAI", "-a", ".a", "a b", "a/b", "a:b", "a\n", "ä", "a\x00", strings.Repeat("a", 65)} {
		bad("provider", keystore.NewCredential{Provider: name, Secret: secret(secretA)})
	}
	good(keystore.NewCredential{Provider: strings.Repeat("a", 64), Secret: secret(secretA)})
	good(keystore.NewCredential{Provider: "0.b_c-d", Secret: secret(secretA)})

	for _, s := range []string{"", "a b", secretA + "\r\nX-Evil: 1", secretA + "\n", "\t", "ä", "a\x7f", "a\x00", strings.Repeat("a", 4097)} {
		bad("secret", keystore.NewCredential{Provider: "openai", Secret: secret(s)})
	}
	good(keystore.NewCredential{Provider: "openai", Secret: secret(strings.Repeat("~", 4096))})
	good(keystore.NewCredential{Provider: "vllm", BaseURL: "https://example.com/v1"})

	for _, r := range []string{"a/b", "a@b", "a#", "a?", "a:80", ".a", "a.", "-a", "a-", "a..b", "a b", "a%2e", "a\n", strings.Repeat("a", 65)} {
		bad("resource", keystore.NewCredential{Provider: "azure", Secret: secret(secretA), Resource: r})
	}
	good(keystore.NewCredential{Provider: "azure", Secret: secret(secretA), Resource: "a"})
	good(keystore.NewCredential{Provider: "azure", Secret: secret(secretA), Resource: "A.b_c-" + strings.Repeat("9", 58)})

	header := func(pairs ...string) keystore.NewCredential {
		n := keystore.NewCredential{Provider: "openai", Secret: secret(secretA), Header: map[string]string{}}
		for i := 0; i < len(pairs); i += 2 {
			n.Header[pairs[i]] = pairs[i+1]
		}
		return n
	}
	for _, name := range []string{"", "Authorization", "Host", "X-Title ", "X-Title\r\n", "X-Title:", "Content-Length"} {
		bad("header", header(name, "v"))
	}
	for _, v := range []string{"", " v", "v ", "v\r\nX-Evil: 1", "v\n", "\x00", "ä", strings.Repeat("v", 257)} {
		bad("header", header("X-Title", v))
	}
	bad("header", header("X-Title", "v", "x-title", "w"))
	good(header("x-TITLE", "a b", "openai-organization", strings.Repeat("v", 256)))
	if c, err := f.Credential(t.Context(), a, "openai"); err != nil || c.Header["X-Title"] != "a b" || len(c.Header) != 2 {
		t.Fatalf("got %v, %v", c.Header, err)
	}
}

// Four characters of a short secret would be too much of it.
func TestRedacted(t *testing.T) {
	f := newFixture(t, keystore.Options{})
	a := tenanttest.Scope(t, "a")
	want := func(secret, want string) {
		t.Helper()
		if got := f.put(a, "openai", secret).Redacted; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	want("1234", "...")
	want(strings.Repeat("x", 15)+"6789", "...")
	want(strings.Repeat("x", 16)+"6789", "...6789")
}

func TestStoreFails(t *testing.T) {
	f := newFixture(t, keystore.Options{})
	a := tenanttest.Scope(t, "a")
	f.store.Fail(errors.New("disk on fire"))
	check := func(err error) {
		t.Helper()
		if e := fault.As(err); e.Kind != fault.Unavailable || strings.Contains(e.Message, "fire") {
			t.Errorf("got %v, want Unavailable without the cause in the message", err)
		}
	}
	_, err := f.Put(t.Context(), a, keystore.NewCredential{Provider: "openai", Secret: provider.NewSecret(secretA)})
	check(err)
	_, err = f.Credential(t.Context(), a, "openai")
	check(err)
	_, err = f.List(t.Context(), a)
	check(err)
	check(f.Delete(t.Context(), a, "cred_x"))
}

func TestNotPrintable(t *testing.T) {
	f := newFixture(t, keystore.Options{})
	a := tenanttest.Scope(t, "a")
	f.put(a, "openai", secretA)
	f.want(a, "openai", secretA)
	hidden(t, f.Keystore)
	hidden(t, *f.fresh())
	hidden(t, keystore.NewCredential{Secret: provider.NewSecret(secretA)})
}
