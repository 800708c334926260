package keystore

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"

	"bulkhead/provider"
	"bulkhead/tenant"
)

// ErrSealed is the cause of an error about a credential or a data key that
// does not open, or opens to something that does not belong where it was found.
var ErrSealed = errors.New("changed, moved, or sealed under another master key")

// dataKeyLen is the length of a company's data key, in bytes: AES-256.
const dataKeyLen = 32

// The purposes in what is authenticated along with a ciphertext. Renaming one
// makes all that was sealed under it unreadable.
const (
	forDataKey    = "data key"
	forCredential = "credential"
)

// record is what is sealed: host, headers and secret in one piece. What the row
// says in the clear is said here again and must agree.
type record struct {
	Company  string            `json:"company"`
	Provider string            `json:"provider"`
	ID       string            `json:"id"`
	Version  int64             `json:"version"`
	BaseURL  string            `json:"base_url,omitempty"`
	Resource string            `json:"resource,omitempty"`
	Header   map[string]string `json:"header,omitempty"`
	Secret   string            `json:"secret"`
}

// newGCM returns AES-256-GCM that makes its own nonces. They are random, which
// is safe for 2^32 messages per key (NIST SP 800-38D, section 8.3).
func newGCM(key []byte) cipher.AEAD {
	block, err := aes.NewCipher(key)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return aead
}

// credentialAAD binds a ciphertext to its place. The parts before the last have
// their lengths in front or are of fixed length, so no two places have the same.
func credentialAAD(s tenant.Scope, id string, version int64, provider string) []byte {
	b := s.Name(forCredential, id).Append(nil)
	b = binary.BigEndian.AppendUint64(b, uint64(version))
	return append(b, provider...)
}

func dataKeyAAD(s tenant.Scope) []byte { return s.Name(forDataKey, "").Append(nil) }

func seal(key cipher.AEAD, s tenant.Scope, r record) []byte {
	plain, err := json.Marshal(r)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	defer clear(plain)
	return key.Seal(nil, nil, plain, credentialAAD(s, r.ID, r.Version, r.Provider))
}

// open returns the credential in row, which was found as the company's for the
// provider of that name. The cause of a failure is not told apart: it would
// help nobody but who tampers.
func open(key cipher.AEAD, s tenant.Scope, name string, row Sealed) (c provider.Credential, err error) {
	if row.Provider != name || len(row.ID) > maxID {
		return c, errOpen(s, row.ID)
	}
	plain, err := key.Open(nil, nil, row.Blob, credentialAAD(s, row.ID, row.Version, name))
	if err != nil {
		return c, errOpen(s, row.ID)
	}
	defer clear(plain)
	var r record
	if json.Unmarshal(plain, &r) != nil || r.Company != s.ID().String() || r.Provider != name || r.ID != row.ID || r.Version != row.Version {
		return c, errOpen(s, row.ID)
	}
	return provider.Credential{
		ID: r.ID, Company: r.Company, Provider: r.Provider, Version: r.Version,
		Secret: provider.NewSecret(r.Secret), BaseURL: r.BaseURL, Resource: r.Resource, Header: r.Header,
	}, nil
}

func errOpen(s tenant.Scope, id string) error {
	return fmt.Errorf("cannot open credential %.64q of %s: %w", id, s.ID(), ErrSealed)
}

// dataKey returns the company's data key. If it has none yet, one is made for
// somebody who is about to seal, and an error for somebody who wants to open.
func (k *Keystore) dataKey(ctx context.Context, s tenant.Scope, sealing bool) (cipher.AEAD, error) {
	company, mark := s.ID().String(), k.dataKeys.mark()
	if key, ok := k.dataKeys.get(company, "", 0, k.o.Now()); ok {
		return key, nil
	}
	wrapped, err := k.store.DataKey(ctx, s)
	if errors.Is(err, ErrNotFound) && sealing {
		wrapped, err = k.store.PutDataKey(ctx, s, k.newDataKey(s))
	}
	switch {
	case errors.Is(err, ErrNotFound):
		return nil, fmt.Errorf("the data key of %s is gone: %w", s.ID(), ErrSealed)
	case err != nil:
		return nil, unavailable(err)
	}
	plain, err := k.wrap.Open(nil, nil, wrapped, dataKeyAAD(s))
	if err != nil || len(plain) != dataKeyLen {
		return nil, fmt.Errorf("cannot open the data key of %s: %w", s.ID(), ErrSealed)
	}
	defer clear(plain)
	key := newGCM(plain)
	k.dataKeys.put(company, "", entry[cipher.AEAD]{key, 0, k.o.Now().Add(k.o.TTL)}, mark)
	return key, nil
}

// newDataKey returns a new data key, wrapped.
func (k *Keystore) newDataKey(s tenant.Scope) []byte {
	plain := make([]byte, dataKeyLen)
	defer clear(plain)
	rand.Read(plain) // never fails: see crypto/rand
	return k.wrap.Seal(nil, nil, plain, dataKeyAAD(s))
}
