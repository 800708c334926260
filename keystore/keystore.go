// Package keystore owns the companies' provider credentials. They are sealed in
// a Store: each company has a random data key, wrapped by a key that is derived
// from the Master, and each credential is sealed with its company's data key.
//
// What opens belongs where it was found: the ciphertext is bound to company,
// credential, version and provider, and names them once more inside. Whatever
// does not fit is an error, and never is another credential used instead. One
// thing cannot be seen: that somebody who can write to the database put a whole
// earlier row back.
//
// Secrets go in, and come out only to be sent to the provider: nothing here
// shows one.
package keystore

import (
	"context"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"strings"
	"time"

	"golang.org/x/sync/singleflight"

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

// Options bound a Keystore. Zero values take the defaults.
type Options struct {
	// TTL is how long an opened credential and an opened data key are kept in
	// memory; default 5 minutes.
	TTL time.Duration
	// Cached is how many opened credentials are kept; default 100,000.
	Cached int
	// CachedPerCompany is how many of one company are kept; default 64.
	CachedPerCompany int
	// CachedDataKeys is how many opened data keys are kept; default 10,000.
	CachedDataKeys int
	// LoadTimeout bounds a load, which is shared and so does not end with the
	// request that began it; default 5 s.
	LoadTimeout time.Duration
	// Now is the clock; default time.Now.
	Now func() time.Time
}

// Keystore keeps sealed credentials in a Store.
type Keystore struct {
	store    Store
	wrap     cipher.AEAD // wraps data keys
	o        Options
	now      func() time.Time
	opened   *cache[provider.Credential] // by provider
	dataKeys *cache[cipher.AEAD]
	loading  singleflight.Group
}

var _ Reader = (*Keystore)(nil)

// New returns a Keystore over store.
func New(store Store, master *Master, o Options) *Keystore {
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
		o.LoadTimeout = 5 * time.Second
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Keystore{
		store: store, wrap: newGCM(master.Derive("data key wrap")), o: o, now: o.Now,
		opened: newCache[provider.Credential](o.Cached, o.CachedPerCompany), dataKeys: newCache[cipher.AEAD](o.CachedDataKeys, 1),
	}
}

// Credential implements Reader. It does no I/O for a credential that it opened
// within the TTL and since the last change to the company.
func (k *Keystore) Credential(ctx context.Context, s tenant.Scope, provider string) (provider.Credential, error) {
	company := s.Company()
	if c, ok := k.opened.get(company.ID().String(), provider, company.Generation, k.now()); ok {
		return c, nil
	}
	return k.load(ctx, s, provider)
}

// load reads and opens a credential, once for all who want it at the moment.
func (k *Keystore) load(ctx context.Context, s tenant.Scope, name string) (provider.Credential, error) {
	if len(name) > maxProvider {
		return provider.Credential{}, missing(name)
	}
	company, mark := s.Company(), k.opened.mark()
	// Whoever saw a change must not be given what was read before it: so
	// generation and mark are part of the name of the load, as is the company.
	flight := binary.BigEndian.AppendUint64(nil, uint64(company.Generation))
	flight = binary.BigEndian.AppendUint64(flight, mark)
	flight = s.Name(forCredential, name).Append(flight)
	got, err, _ := k.loading.Do(string(flight), func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), k.o.LoadTimeout)
		defer cancel()
		row, err := k.store.Credential(ctx, s, name)
		switch {
		case errors.Is(err, ErrNotFound):
			return nil, missing(name)
		case err != nil:
			return nil, unavailable(err)
		}
		key, err := k.dataKey(ctx, s, false)
		if err != nil {
			return nil, err
		}
		c, err := open(key, s, name, row)
		if err != nil {
			return nil, err
		}
		k.opened.put(c.Company, name, entry[provider.Credential]{c, company.Generation, k.now().Add(k.o.TTL)}, mark)
		return c, nil
	})
	if err != nil {
		return provider.Credential{}, err
	}
	return got.(provider.Credential), nil
}

// NewCredential is what is sealed by Put. It replaces a credential as a whole:
// no part of an earlier one is kept.
type NewCredential struct {
	Provider string // [a-z0-9][a-z0-9._-]{0,63}
	Secret   provider.Secret
	// BaseURL must have been checked by who calls: see egress.CheckURL. With
	// one, Secret may be empty, since not every server has keys.
	BaseURL  string
	Resource string            // see provider.Credential
	Header   map[string]string // see provider.CredentialHeaders; values have at most 256 bytes
}

// maxID bounds the id of a credential, in bytes; those made here have 29.
const maxID = 64

// maxTries bounds how often Put begins again because others were first.
const maxTries = 8

// Put seals n as the company's credential for n.Provider, in place of the one
// there was: calls under way end with the old one, the next take the new one.
// The errors are faults: Invalid with Param, Conflict if others change the same
// one all the time, Unavailable.
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
	return Sealed{}, fault.New(fault.Conflict, "The credential for provider %q is being changed by others. Try again.", n.Provider)
}

// next returns the row for n, but for its Blob: the first one, or the version
// after the one that is stored.
func (k *Keystore) next(ctx context.Context, s tenant.Scope, n NewCredential) (Sealed, error) {
	now := k.now()
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

// List returns all of the company's credentials, without Blob, by creation.
func (k *Keystore) List(ctx context.Context, s tenant.Scope) ([]Sealed, error) {
	all, err := k.store.Credentials(ctx, s)
	if err != nil {
		return nil, unavailable(err)
	}
	return all, nil
}

// Delete removes a credential. It returns a fault of kind NotFound for one that
// is not there or another company's.
func (k *Keystore) Delete(ctx context.Context, s tenant.Scope, id string) error {
	switch err := k.store.DeleteCredential(ctx, s, id); {
	case errors.Is(err, ErrNotFound):
		return fault.New(fault.NotFound, "No such credential.").WithCode("credential_not_found")
	case err != nil:
		return unavailable(err)
	}
	k.opened.drop(s.ID().String())
	return nil
}

// Forget drops what is in memory of the company with that id. It must be called
// when a company is erased, after its rows are gone.
func (k *Keystore) Forget(company string) {
	k.opened.drop(company)
	k.dataKeys.drop(company)
}

func missing(provider string) error {
	return fault.New(fault.Invalid, "There is no credential for provider %.64q. Add one with POST /v1/organization/credentials.", provider).WithCode("credential_missing")
}

func unavailable(cause error) error {
	return fault.Wrap(fault.Unavailable, cause, "The gateway cannot reach its credentials at the moment.")
}
