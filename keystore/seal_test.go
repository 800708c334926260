package keystore

import (
	"context"
	"crypto/cipher"
	"encoding/json"
	"errors"
	"testing"

	"bulkhead/tenant"
	"bulkhead/tenant/tenanttest"
)

// Several things must fail before a credential of one company opens for
// another. These tests look at each of them alone.

func testKey(b byte) cipher.AEAD {
	key := make([]byte, dataKeyLen)
	key[0] = b
	return newGCM(key)
}

// The place that a ciphertext is bound to differs in each of its parts.
func TestCredentialAAD(t *testing.T) {
	a, b := tenanttest.Scope(t, "a"), tenanttest.Scope(t, "b")
	key := testKey(1)
	blob := seal(key, a, record{Company: a.ID().String(), Provider: "openai", ID: "cred_1", Version: 2})
	f := func(s tenant.Scope, id string, version int64, provider string, opens bool) {
		t.Helper()
		if _, err := key.Open(nil, nil, blob, credentialAAD(s, id, version, provider)); (err == nil) != opens {
			t.Errorf("%s %q %d %q: %v", s.ID(), id, version, provider, err)
		}
	}
	f(a, "cred_1", 2, "openai", true)
	f(b, "cred_1", 2, "openai", false)
	f(a, "cred_2", 2, "openai", false)
	f(a, "cred_1", 1, "openai", false)
	f(a, "cred_1", 2, "groq", false)
	f(a, "", 2, "openai", false)
	f(a, "cred_1", 2, "", false)
	if _, err := key.Open(nil, nil, blob, nil); err == nil {
		t.Error("opens without its place")
	}
	if _, err := testKey(2).Open(nil, nil, blob, credentialAAD(a, "cred_1", 2, "openai")); err == nil {
		t.Error("opens with another key")
	}
}

// What is inside must agree, even if it was sealed for this place.
func TestRecordInside(t *testing.T) {
	a, b := tenanttest.Scope(t, "a"), tenanttest.Scope(t, "b")
	key := testKey(1)
	right := record{Company: a.ID().String(), Provider: "openai", ID: "cred_1", Version: 2, Secret: "s"}
	row := Sealed{ID: "cred_1", Provider: "openai", Version: 2}
	f := func(plain []byte, opens bool) {
		t.Helper()
		row.Blob = key.Seal(nil, nil, plain, credentialAAD(a, row.ID, row.Version, row.Provider))
		c, err := open(key, a, "openai", row)
		if opens && (err != nil || c.Secret.Reveal() != "s") || !opens && (!errors.Is(err, ErrSealed) || !c.Secret.Empty()) {
			t.Errorf("%s: %v", plain, err)
		}
	}
	lie := func(edit func(r *record), opens bool) {
		t.Helper()
		r := right
		edit(&r)
		plain, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		f(plain, opens)
	}
	lie(func(*record) {}, true)
	lie(func(r *record) { r.Company = b.ID().String() }, false)
	lie(func(r *record) { r.Company = "" }, false)
	lie(func(r *record) { r.Provider = "groq" }, false)
	lie(func(r *record) { r.ID = "cred_2" }, false)
	lie(func(r *record) { r.Version = 1 }, false)
	f([]byte("{}"), false)
	f([]byte("{"), false)
	f(nil, false)

	// The row itself says that it is for another provider.
	row.Provider = "groq"
	row.Blob = seal(key, a, right)
	if _, err := open(key, a, "openai", row); !errors.Is(err, ErrSealed) {
		t.Errorf("got %v, want ErrSealed", err)
	}
}

// wrapped is a Store with one wrapped data key.
type wrapped struct {
	Store
	key []byte
}

func (w wrapped) DataKey(context.Context, tenant.Scope) ([]byte, error) { return w.key, nil }

// A wrapped data key opens for its company only.
func TestDataKeyBound(t *testing.T) {
	a, b := tenanttest.Scope(t, "a"), tenanttest.Scope(t, "b")
	master := newMaster([masterLen]byte{1})
	w := wrapped{key: New(nil, master, Options{}).newDataKey(a)}
	k := New(w, master, Options{})
	if _, err := k.dataKey(t.Context(), b, false); !errors.Is(err, ErrSealed) {
		t.Errorf("another company's: got %v, want ErrSealed", err)
	}
	if _, err := k.dataKey(t.Context(), b, true); !errors.Is(err, ErrSealed) {
		t.Errorf("another company's, for sealing: got %v, want ErrSealed", err)
	}
	if _, err := k.dataKey(t.Context(), a, false); err != nil {
		t.Error(err)
	}
	// A key of another length, even if it was wrapped here.
	short := wrapped{key: k.wrap.Seal(nil, nil, make([]byte, 16), dataKeyAAD(a))}
	if _, err := New(short, master, Options{}).dataKey(t.Context(), a, false); !errors.Is(err, ErrSealed) {
		t.Errorf("16 bytes: got %v, want ErrSealed", err)
	}
}
