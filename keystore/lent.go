package keystore

import (
	"context"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/singleflight"

	"bulkhead/fault"
	"bulkhead/provider"
	"bulkhead/tenant"
)

// Lent is a credential of the operator's as it is stored, and how it is lent.
type Lent struct {
	Sealed
	RequestsPerMinute int64 // what the provider allows the credential; 0: not known, so nothing is shared out
	TokensPerMinute   int64
	Share             int64 // how much of that one company may use, in percent
	All               bool  // every company may use it
}

// LentStore keeps the operator's credentials. Each change is told to every
// gateway for all companies: see tenant.Everybody.
type LentStore interface {
	// OperatorDataKey and PutOperatorDataKey are as of a Store.
	OperatorDataKey(ctx context.Context) ([]byte, error)
	PutOperatorDataKey(ctx context.Context, wrapped []byte) ([]byte, error)
	// LentCredential returns the credential for a provider, or ErrNotFound.
	LentCredential(ctx context.Context, provider string) (Lent, error)
	// LentCredentials returns all, without Blob, by creation.
	LentCredentials(ctx context.Context) ([]Lent, error)
	// PutLentCredential stores version 1 as a new one, else in place of the
	// version before; ErrConflict if that is not there.
	PutLentCredential(ctx context.Context, a tenant.Act, l Lent) error
	// PutLentBlob replaces the Blob alone, which changes nothing of what is lent;
	// ErrConflict if that version is not there.
	PutLentBlob(ctx context.Context, a tenant.Act, id string, version int64, blob []byte) error
	// DeleteLentCredential removes one, or returns ErrNotFound.
	DeleteLentCredential(ctx context.Context, a tenant.Act, id string) error
}

// Lender keeps the credentials that the operator lends: sealed in the store, or
// in Vault with only their names in the store. Which of them a company may use,
// and in which version, says its Scope.
type Lender struct {
	store   LentStore
	wrap    cipher.AEAD
	vault   *Vault // nil: sealed in the store
	o       Options
	opened  *cache[provider.Credential]
	key     *cache[cipher.AEAD]
	loading singleflight.Group
}

// NewLender returns a Lender. keeper is what keeps the companies' credentials:
// where that is a Vault, the operator's are there, too.
func NewLender(store LentStore, master *Master, keeper Keeper, o Options) *Lender {
	o.defaults(5 * time.Second)
	l := &Lender{
		store: store, wrap: newGCM(master.Derive("data key wrap")), o: o,
		opened: newCache[provider.Credential](o.Cached, o.Cached), key: newCache[cipher.AEAD](1, 1),
	}
	l.vault, _ = keeper.(*Vault)
	return l
}

// Credential returns what the company of s is lent for the provider. The errors
// are those of a Reader. It does not wait for I/O for a version that it has opened,
// from Vault within the TTL.
func (l *Lender) Credential(ctx context.Context, s tenant.Scope, name string) (c provider.Credential, err error) {
	lent := s.Company().Lends(name)
	if lent == nil {
		return c, missing(name)
	}
	if c, ok := l.opened.get(provider.Operator, name, lent.Version, l.o.Now()); ok && c.ID == lent.ID {
		return c, nil
	}
	if l.vault == nil { // as opened.outlive says
		now := l.o.Now()
		if c, first, ok := l.opened.overdue(provider.Operator, name, lent.Version, now, now.Add(again)); ok && c.ID == lent.ID {
			if first {
				go func() { _, _ = l.load(context.WithoutCancel(ctx), lent, name) }() // it fails: what there is goes on
			}
			return c, nil
		}
	}
	return l.load(ctx, lent, name)
}

// load reads what is lent, once for all who want it at the moment.
func (l *Lender) load(ctx context.Context, lent *tenant.Lent, name string) (c provider.Credential, err error) {
	mark := l.opened.mark()
	flight := fmt.Sprintf("%s %d %d %s", lent.ID, lent.Version, mark, name)
	got, err, _ := l.loading.Do(flight, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), l.o.LoadTimeout)
		defer cancel()
		c, err := l.read(ctx, lent, name)
		if err != nil {
			return nil, err
		}
		l.opened.put(provider.Operator, name, entry[provider.Credential]{c, c.Version, l.o.Now().Add(l.o.TTL)}, mark)
		return c, nil
	})
	if err != nil {
		return c, err
	}
	return got.(provider.Credential), nil
}

// read returns what is lent, if it is what the company was granted. With Vault the
// store is not asked: calls go on while it is away.
func (l *Lender) read(ctx context.Context, lent *tenant.Lent, name string) (c provider.Credential, err error) {
	var r record
	version := lent.Version
	if l.vault != nil {
		r, err = l.vault.lent(ctx, name)
	} else {
		var row Lent
		if row, err = l.row(ctx, name); err == nil {
			r, err = l.open(ctx, name, row)
			version = row.Version
		}
	}
	switch {
	case err != nil:
		return c, err
	case r.ID != lent.ID: // deleted and lent anew
		return c, missing(name)
	}
	return r.credential(version), nil
}

func (r *record) credential(version int64) provider.Credential {
	return provider.Credential{
		ID: r.ID, Company: r.Company, Provider: r.Provider, Version: version,
		Secret: provider.NewSecret(r.Secret), BaseURL: r.BaseURL, Resource: r.Resource, Header: r.Header,
	}
}

func (l *Lender) row(ctx context.Context, name string) (Lent, error) {
	row, err := l.store.LentCredential(ctx, name)
	switch {
	case errors.Is(err, ErrNotFound):
		return row, missing(name)
	case err != nil:
		return row, unavailable(err)
	}
	return row, nil
}

func (l *Lender) open(ctx context.Context, name string, row Lent) (r record, err error) {
	key, err := l.dataKey(ctx, false)
	if err != nil {
		return r, err
	}
	bad := fmt.Errorf("cannot open lent credential %.64q: %w", row.ID, ErrSealed)
	if row.Provider != name || len(row.ID) > maxID {
		return r, bad
	}
	plain, err := key.Open(nil, nil, row.Blob, lentAAD(row.ID, row.Version, name))
	if err != nil {
		return r, bad
	}
	defer clear(plain)
	if json.Unmarshal(plain, &r) != nil || r.Company != provider.Operator || r.Provider != name || r.ID != row.ID || r.Version != row.Version {
		return record{}, bad
	}
	return r, nil
}

// operatorAAD is the place of something of the operator's, in the form of a
// tenant.Name: no company is called so.
func operatorAAD(kind, id string) (b []byte) {
	for _, p := range [...]string{provider.Operator, kind, id} {
		b = binary.BigEndian.AppendUint16(b, uint16(len(p)))
		b = append(b, p...)
	}
	return b
}

func lentAAD(id string, version int64, name string) []byte {
	b := binary.BigEndian.AppendUint64(operatorAAD(forCredential, id), uint64(version))
	return append(b, name...)
}

func (l *Lender) dataKey(ctx context.Context, sealing bool) (cipher.AEAD, error) {
	mark := l.key.mark()
	if key, ok := l.key.get(provider.Operator, "", 0, l.o.Now()); ok {
		return key, nil
	}
	wrapped, err := l.store.OperatorDataKey(ctx)
	if errors.Is(err, ErrNotFound) && sealing {
		plain := make([]byte, dataKeyLen)
		defer clear(plain)
		rand.Read(plain) // never fails: see crypto/rand
		wrapped, err = l.store.PutOperatorDataKey(ctx, l.wrap.Seal(nil, nil, plain, operatorAAD(forDataKey, "")))
	}
	switch {
	case errors.Is(err, ErrNotFound):
		return nil, fmt.Errorf("the operator's data key is gone: %w", ErrSealed)
	case err != nil:
		return nil, unavailable(err)
	}
	plain, err := l.wrap.Open(nil, nil, wrapped, operatorAAD(forDataKey, ""))
	if err != nil || len(plain) != dataKeyLen {
		return nil, fmt.Errorf("cannot open the operator's data key: %w", ErrSealed)
	}
	defer clear(plain)
	key := newGCM(plain)
	l.key.put(provider.Operator, "", entry[cipher.AEAD]{key, 0, l.o.Now().Add(l.o.TTL)}, mark)
	return key, nil
}

// Put stores n in place of what was lent for n.Provider; how says how it is lent,
// and its Sealed is not looked at.
func (l *Lender) Put(ctx context.Context, a tenant.Act, n NewCredential, how Lent) (Lent, error) {
	n, err := check(n)
	if err != nil {
		return Lent{}, err
	}
	for range maxTries {
		c := how
		c.Sealed = Sealed{ID: "cred_" + strings.ToLower(rand.Text()[:24]), Provider: n.Provider, Version: 1, CreatedAt: l.o.Now()}
		switch old, err := l.store.LentCredential(ctx, n.Provider); {
		case err == nil:
			c.ID, c.Version, c.CreatedAt = old.ID, old.Version+1, old.CreatedAt
		case !errors.Is(err, ErrNotFound):
			return Lent{}, unavailable(err)
		}
		c.UpdatedAt, c.BaseURL, c.Redacted = l.o.Now(), n.BaseURL, redact(n.Secret.Reveal())
		if c.Blob, err = l.keep(ctx, n, c); err != nil {
			return Lent{}, err
		}
		switch err := l.store.PutLentCredential(ctx, a, c); {
		case errors.Is(err, ErrConflict):
			continue
		case err != nil:
			return Lent{}, unavailable(err)
		}
		c.Blob = nil
		return c, nil
	}
	return Lent{}, contended(n.Provider)
}

// keep seals the secret, or brings it to Vault and returns nothing.
func (l *Lender) keep(ctx context.Context, n NewCredential, c Lent) ([]byte, error) {
	if l.vault != nil {
		return []byte{}, l.vault.putLent(ctx, n, c.ID)
	}
	return l.seal(ctx, n, c)
}

func (l *Lender) seal(ctx context.Context, n NewCredential, c Lent) ([]byte, error) {
	key, err := l.dataKey(ctx, true)
	if err != nil {
		return nil, err
	}
	plain, err := json.Marshal(record{
		Company: provider.Operator, Provider: n.Provider, ID: c.ID, Version: c.Version,
		BaseURL: n.BaseURL, Resource: n.Resource, Header: n.Header, Secret: n.Secret.Reveal(),
	})
	if err != nil {
		panic("BUG: " + err.Error())
	}
	defer clear(plain)
	return key.Seal(nil, nil, plain, lentAAD(c.ID, c.Version, n.Provider)), nil
}

// List returns all, without Blob, by creation.
func (l *Lender) List(ctx context.Context) ([]Lent, error) {
	all, err := l.store.LentCredentials(ctx)
	if err != nil {
		return nil, unavailable(err)
	}
	return all, nil
}

// Delete ends the lending of a credential, for every company. It is lent no more
// even where Vault is away: then the error says that the secret is still there.
func (l *Lender) Delete(ctx context.Context, a tenant.Act, id string) error {
	all, err := l.List(ctx)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(all, func(c Lent) bool { return c.ID == id })
	if i < 0 {
		return noSuch()
	}
	if err := l.store.DeleteLentCredential(ctx, a, id); err != nil {
		return unavailable(err)
	}
	if l.vault == nil {
		return nil
	}
	if err := l.vault.removeLent(ctx, all[i].Provider); err != nil {
		return fault.Wrap(fault.Unavailable, err, "The credential is lent no more, but its secret is still in Vault, which does not answer. Delete it there: see docs/vault.md.").WithCode("vault_unavailable")
	}
	return nil
}
