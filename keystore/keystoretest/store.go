package keystoretest

import (
	"bytes"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"bulkhead/keystore"
	"bulkhead/tenant"
)

// RunStore tests a keystore.Store. open gives an empty one, and a function that
// makes a company in it.
func RunStore(t *testing.T, open func(t *testing.T) (store keystore.Store, company func() tenant.Scope)) {
	test := func(name string, f func(u *storeSuite)) {
		t.Run(name, func(t *testing.T) {
			store, company := open(t)
			f(&storeSuite{store, t, company(), company()})
		})
	}
	test("data key", (*storeSuite).dataKey)
	test("versions", (*storeSuite).versions)
	test("one winner", (*storeSuite).oneWinner)
	test("list", (*storeSuite).list)
	test("delete", (*storeSuite).delete)
	test("zero scope", (*storeSuite).zeroScope)
}

type storeSuite struct {
	keystore.Store
	t    *testing.T
	a, b tenant.Scope
}

func (u *storeSuite) wantErr(got, want error) {
	u.t.Helper()
	if !errors.Is(got, want) {
		u.t.Fatalf("got error %v, want %v", got, want)
	}
}

// made is a time that every backend can keep.
var made = time.Unix(1_700_000_000, 0).UTC()

func row(id, provider string, version int64) keystore.Sealed {
	return keystore.Sealed{
		ID: id, Provider: provider, Version: version, Redacted: "...abcd", BaseURL: "https://example.com/v1",
		Blob: []byte{0, 1, 0xff, byte(version)}, CreatedAt: made, UpdatedAt: made.Add(time.Duration(version) * time.Second),
	}
}

func equal(x, y keystore.Sealed) bool {
	return x.ID == y.ID && x.Provider == y.Provider && x.Version == y.Version && x.Redacted == y.Redacted && x.BaseURL == y.BaseURL &&
		bytes.Equal(x.Blob, y.Blob) && x.CreatedAt.Equal(y.CreatedAt) && x.UpdatedAt.Equal(y.UpdatedAt)
}

func (u *storeSuite) want(s tenant.Scope, want keystore.Sealed) {
	u.t.Helper()
	got, err := u.Credential(u.t.Context(), s, want.Provider)
	u.wantErr(err, nil)
	if !equal(got, want) {
		u.t.Fatalf("got %+v, want %+v", got, want)
	}
}

func (u *storeSuite) put(s tenant.Scope, c keystore.Sealed, want error) {
	u.t.Helper()
	u.wantErr(u.PutCredential(u.t.Context(), s, c), want)
}

func (u *storeSuite) dataKey() {
	ctx := u.t.Context()
	_, err := u.DataKey(ctx, u.a)
	u.wantErr(err, keystore.ErrNotFound)
	put := func(s tenant.Scope, wrapped, want string) {
		u.t.Helper()
		got, err := u.PutDataKey(ctx, s, []byte(wrapped))
		u.wantErr(err, nil)
		if string(got) != want {
			u.t.Fatalf("got %q, want %q", got, want)
		}
		if got, err = u.DataKey(ctx, s); err != nil || string(got) != want {
			u.t.Fatalf("got %q, %v, want %q", got, err, want)
		}
	}
	put(u.a, "first\x00\xff", "first\x00\xff")
	put(u.a, "second", "first\x00\xff") // never another: what it sealed would be lost
	_, err = u.DataKey(ctx, u.b)
	u.wantErr(err, keystore.ErrNotFound)
	put(u.b, "of b", "of b")
	put(u.a, "third", "first\x00\xff")
}

func (u *storeSuite) versions() {
	_, err := u.Credential(u.t.Context(), u.a, "openai")
	u.wantErr(err, keystore.ErrNotFound)
	u.put(u.a, row("cred_a", "openai", 2), keystore.ErrConflict) // there is no 1
	u.put(u.a, row("cred_a", "openai", 1), nil)
	u.put(u.a, row("cred_a", "openai", 1), keystore.ErrConflict)
	u.put(u.a, row("cred_other", "openai", 1), keystore.ErrConflict) // one per provider
	u.put(u.a, row("cred_a", "openai", 3), keystore.ErrConflict)
	u.want(u.a, row("cred_a", "openai", 1))
	u.put(u.a, row("cred_a", "openai", 2), nil)
	u.put(u.a, row("cred_a", "openai", 2), keystore.ErrConflict)
	u.want(u.a, row("cred_a", "openai", 2))

	// Another company: neither seen nor in the way.
	_, err = u.Credential(u.t.Context(), u.b, "openai")
	u.wantErr(err, keystore.ErrNotFound)
	u.put(u.b, row("cred_a", "openai", 3), keystore.ErrConflict)
	u.put(u.b, row("cred_b", "openai", 1), nil)
	u.want(u.a, row("cred_a", "openai", 2))
	u.want(u.b, row("cred_b", "openai", 1))
	for _, name := range []string{"OpenAI", "openai ", "openai%", "%", "_penai", "openai\x00", ""} {
		_, err := u.Credential(u.t.Context(), u.a, name)
		u.wantErr(err, keystore.ErrNotFound)
	}
}

func (u *storeSuite) oneWinner() {
	u.put(u.a, row("cred_a", "openai", 1), nil)
	var wg sync.WaitGroup
	var won, lost atomic.Int64
	for range 8 {
		wg.Go(func() {
			switch err := u.PutCredential(u.t.Context(), u.a, row("cred_a", "openai", 2)); {
			case err == nil:
				won.Add(1)
			case errors.Is(err, keystore.ErrConflict):
				lost.Add(1)
			default:
				u.t.Error(err)
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 || lost.Load() != 7 {
		u.t.Fatalf("%d won and %d lost, want 1 and 7", won.Load(), lost.Load())
	}
}

func (u *storeSuite) list() {
	want := func(s tenant.Scope, ids ...string) {
		u.t.Helper()
		all, err := u.Credentials(u.t.Context(), s)
		u.wantErr(err, nil)
		if len(all) != len(ids) {
			u.t.Fatalf("got %+v, want %q", all, ids)
		}
		for i, c := range all {
			if c.ID != ids[i] || c.Blob != nil {
				u.t.Fatalf("got %+v, want %q without Blob", all, ids)
			}
		}
	}
	want(u.a)
	for i, id := range []string{"cred_z", "cred_y", "cred_x"} {
		c := row(id, "p"+id, 1)
		c.CreatedAt = made.Add(time.Duration(i) * time.Second)
		u.put(u.a, c, nil)
	}
	u.put(u.b, row("cred_b", "openai", 1), nil)
	want(u.a, "cred_z", "cred_y", "cred_x")
	want(u.b, "cred_b")
}

func (u *storeSuite) delete() {
	ctx := u.t.Context()
	u.put(u.a, row("cred_a", "openai", 1), nil)
	u.put(u.b, row("cred_b", "openai", 1), nil)
	u.wantErr(u.DeleteCredential(ctx, u.a, "cred_b"), keystore.ErrNotFound) // another company's
	u.wantErr(u.DeleteCredential(ctx, u.a, "cred_none"), keystore.ErrNotFound)
	u.wantErr(u.DeleteCredential(ctx, u.a, "openai"), keystore.ErrNotFound)
	u.want(u.b, row("cred_b", "openai", 1))
	u.wantErr(u.DeleteCredential(ctx, u.a, "cred_a"), nil)
	u.wantErr(u.DeleteCredential(ctx, u.a, "cred_a"), keystore.ErrNotFound)
	_, err := u.Credential(ctx, u.a, "openai")
	u.wantErr(err, keystore.ErrNotFound)
	u.put(u.a, row("cred_a2", "openai", 1), nil) // begins anew
	u.want(u.b, row("cred_b", "openai", 1))
}

func (u *storeSuite) zeroScope() {
	var zero tenant.Scope
	ctx := u.t.Context()
	panics(u.t, func() { _, _ = u.DataKey(ctx, zero) })
	panics(u.t, func() { _, _ = u.PutDataKey(ctx, zero, []byte("k")) })
	panics(u.t, func() { _, _ = u.Credential(ctx, zero, "openai") })
	panics(u.t, func() { _, _ = u.Credentials(ctx, zero) })
	panics(u.t, func() { _ = u.PutCredential(ctx, zero, row("cred_a", "openai", 1)) })
	panics(u.t, func() { _ = u.DeleteCredential(ctx, zero, "cred_a") })
}
