// Package keystore owns the companies' provider credentials. A Keystore keeps
// them sealed in a Store: each company has a random data key, wrapped by a key
// that is derived from the Master, and each credential is sealed with its
// company's data key. A Vault keeps them in HashiCorp Vault or OpenBao.
//
// What opens belongs where it was found: a ciphertext is bound to company,
// credential, version and provider, and names them once more inside; a secret in
// Vault names company and provider. Whatever does not fit is an error, and never
// is another credential used instead. One thing cannot be seen: that somebody who
// can write to the database, or to Vault, put a whole earlier one back.
//
// Secrets go in, and come out only to be sent to the provider: nothing here
// shows one.
package keystore

import (
	"context"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"strings"
	"time"

	"bulkhead/fault"
	"bulkhead/provider"
	"bulkhead/tenant"
)

// Reader gives the credential for a call. It is a function of company and
// provider and of nothing else; keystoretest.Run is its contract.
type Reader interface {
	// Credential returns the company's credential for the provider of that
	// name; its Header must not be changed. The error is a fault of kind
	// Invalid and code "credential_missing" if there is none and of kind
	// Unavailable if that cannot be found out; any other error means that what
	// was found is not to be trusted. A change is seen by every Scope that was
	// made after it.
	Credential(ctx context.Context, s tenant.Scope, provider string) (provider.Credential, error)
}

// Keeper keeps credentials and gives them out. Keystore and Vault are the two.
type Keeper interface {
	Reader
	// Put stores n as the company's credential for n.Provider, in place of the
	// one there was: calls under way end with the old one, the next take the new
	// one. The errors are faults: Invalid with Param, Conflict if others change
	// the same one all the time, Unavailable.
	Put(ctx context.Context, s tenant.Scope, n NewCredential) (Sealed, error)
	// List returns all of the company's credentials, without Blob, by creation.
	List(ctx context.Context, s tenant.Scope) ([]Sealed, error)
	// Delete removes a credential. It returns a fault of kind NotFound for one
	// that is not there or another company's.
	Delete(ctx context.Context, s tenant.Scope, id string) error
	// Forget drops what is in memory of the company with that id.
	Forget(company string)
}

// Options bound what is kept in memory. Zero values take the defaults.
type Options struct {
	// TTL is how long an opened credential and an opened data key are kept in
	// memory; default 5 minutes. A credential in the store is then read anew, and
	// goes on while that cannot be done. Those from Vault end, and live up to a tenth
	// shorter or longer, so that not all that were read together are read again
	// together.
	TTL time.Duration
	// Cached is how many opened credentials are kept; default 100,000.
	Cached int
	// CachedPerCompany is how many of one company are kept; default 64.
	CachedPerCompany int
	// CachedDataKeys is how many opened data keys are kept; default 10,000.
	CachedDataKeys int
	// LoadTimeout bounds a load, which is shared and so does not end with the
	// request that began it; default 5 s, from Vault 2 s.
	LoadTimeout time.Duration
	// Now is the clock; default time.Now.
	Now func() time.Time
}

// defaults fills in what is not set.
func (o *Options) defaults(loadTimeout time.Duration) {
	def := func(n *int, to int) {
		if *n <= 0 {
			*n = to
		}
	}
	def(&o.Cached, 100_000)
	def(&o.CachedPerCompany, 64)
	def(&o.CachedDataKeys, 10_000)
	if o.TTL <= 0 {
		o.TTL = 5 * time.Minute
	}
	if o.LoadTimeout <= 0 {
		o.LoadTimeout = loadTimeout
	}
	if o.Now == nil {
		o.Now = time.Now
	}
}

// Keystore keeps sealed credentials in a Store.
type Keystore struct {
	store    Store
	wrap     cipher.AEAD // wraps data keys
	o        Options
	opened   *opened
	dataKeys *cache[cipher.AEAD]
}

var _ Keeper = (*Keystore)(nil)

// New returns a Keystore over store.
func New(store Store, master *Master, o Options) *Keystore {
	o.defaults(5 * time.Second)
	k := &Keystore{
		store: store, wrap: newGCM(master.Derive("data key wrap")), o: o,
		dataKeys: newCache[cipher.AEAD](o.CachedDataKeys, 1),
	}
	k.opened = newOpened(o, 0, k.read)
	k.opened.outlive = true
	return k
}

// Credential implements Reader. It does not wait for I/O for a credential that it
// has opened since the last change to the company.
func (k *Keystore) Credential(ctx context.Context, s tenant.Scope, provider string) (provider.Credential, error) {
	return k.opened.credential(ctx, s, provider)
}

// read reads and opens a credential.
func (k *Keystore) read(ctx context.Context, s tenant.Scope, name string) (c provider.Credential, err error) {
	row, err := k.store.Credential(ctx, s, name)
	switch {
	case errors.Is(err, ErrNotFound):
		return c, missing(name)
	case err != nil:
		return c, unavailable(err)
	}
	key, err := k.dataKey(ctx, s, false)
	if err != nil {
		return c, err
	}
	return open(key, s, name, row)
}

// NewCredential is what is stored by Put. It replaces a credential as a whole:
// no part of an earlier one is kept.
type NewCredential struct {
	Provider string // [a-z0-9][a-z0-9._-]{0,63}
	Secret   provider.Secret
	// BaseURL must have been checked by who calls: see egress.CheckURL. With
	// one, Secret may be empty, since not every server has keys.
	BaseURL string
	// Keyless says that the provider takes no key, so that Secret may be empty
	// without a BaseURL too. The caller knows: see provider.Vendor.NeedsSecret.
	Keyless  bool
	Resource string            // see provider.Credential
	Header   map[string]string // see provider.CredentialHeaders; values have at most 256 bytes
}

// maxID bounds the id of a credential, in bytes; those made here have 29.
const maxID = 64

// maxTries bounds how often Put begins again because others were first.
const maxTries = 8

// Put implements Keeper.
func (k *Keystore) Put(ctx context.Context, s tenant.Scope, n NewCredential) (Sealed, error) {
	n, err := check(n)
	if err != nil {
		return Sealed{}, err
	}
	key, err := k.dataKey(ctx, s, true)
	if err != nil {
		return Sealed{}, err
	}
	for range maxTries {
		c, err := k.next(ctx, s, n)
		if err != nil {
			return Sealed{}, err
		}
		c.Blob = seal(key, s, record{
			Company: s.ID().String(), Provider: n.Provider, ID: c.ID, Version: c.Version,
			BaseURL: n.BaseURL, Resource: n.Resource, Header: n.Header, Secret: n.Secret.Reveal(),
		})
		switch err := k.store.PutCredential(ctx, s, c); {
		case errors.Is(err, ErrConflict):
			continue
		case err != nil:
			return Sealed{}, unavailable(err)
		}
		k.opened.drop(s.ID().String())
		c.Blob = nil
		return c, nil
	}
	return Sealed{}, contended(n.Provider)
}

// next returns the row for n, but for its Blob: the first one, or the version
// after the one that is stored.
func (k *Keystore) next(ctx context.Context, s tenant.Scope, n NewCredential) (Sealed, error) {
	now := k.o.Now()
	c := Sealed{ID: "cred_" + strings.ToLower(rand.Text()[:24]), Provider: n.Provider, Version: 1, CreatedAt: now}
	switch old, err := k.store.Credential(ctx, s, n.Provider); {
	case err == nil && len(old.ID) > maxID:
		return Sealed{}, errOpen(s, old.ID)
	case err == nil:
		c.ID, c.Version, c.CreatedAt = old.ID, old.Version+1, old.CreatedAt
	case !errors.Is(err, ErrNotFound):
		return Sealed{}, unavailable(err)
	}
	c.UpdatedAt, c.BaseURL, c.Redacted = now, n.BaseURL, redact(n.Secret.Reveal())
	return c, nil
}

// List implements Keeper.
func (k *Keystore) List(ctx context.Context, s tenant.Scope) ([]Sealed, error) {
	all, err := k.store.Credentials(ctx, s)
	if err != nil {
		return nil, unavailable(err)
	}
	return all, nil
}

// Delete implements Keeper.
func (k *Keystore) Delete(ctx context.Context, s tenant.Scope, id string) error {
	switch err := k.store.DeleteCredential(ctx, s, id); {
	case errors.Is(err, ErrNotFound):
		return noSuch()
	case err != nil:
		return unavailable(err)
	}
	k.opened.drop(s.ID().String())
	return nil
}

// Forget implements Keeper. It must be called when a company is erased, after its
// rows are gone.
func (k *Keystore) Forget(company string) {
	k.opened.drop(company)
	k.dataKeys.drop(company)
}

func missing(provider string) error {
	return fault.New(fault.Invalid, "There is no credential for provider %.64q. Add one with POST /v1/organization/credentials.", provider).WithCode("credential_missing")
}

func noSuch() error {
	return fault.New(fault.NotFound, "No such credential.").WithCode("credential_not_found")
}

func contended(provider string) error {
	return fault.New(fault.Conflict, "The credential for provider %q is being changed by others. Try again.", provider)
}

func unavailable(cause error) error {
	return fault.Wrap(fault.Unavailable, cause, "The gateway cannot reach its credentials at the moment.")
}
