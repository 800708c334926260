package keystore

import (
	"context"
	"errors"

	"github.com/hashicorp/vault/api"

	"bulkhead/provider"
)

// What the operator lends lies in Vault beside the companies' folders, as their
// credentials do. Its secret says which credential it is: one that was deleted and
// lent anew is not what companies were granted before.

// fieldID is a field of what is lent only.
const fieldID = "id"

// lentPath is where Vault has what the operator lends for a provider, whose name
// must have been checked.
func (v *Vault) lentPath(name string) string {
	if !providerName.MatchString(name) {
		panic("BUG: a path of an unchecked name")
	}
	return v.o.Prefix + "/operator/providers/" + name
}

// lent reads what the operator lends for a provider.
func (v *Vault) lent(ctx context.Context, name string) (r record, err error) {
	if !providerName.MatchString(name) {
		return r, missing(name)
	}
	v.reads.Add(1)
	got, err := v.getAt(ctx, v.lentPath(name))
	switch {
	case err != nil:
		return r, unavailable(err)
	case got.fields == nil && !v.session.mounted():
		return r, unavailable(v.session.health())
	case got.fields == nil:
		return r, missing(name)
	}
	return got.openLent(name)
}

func (st stored) openLent(name string) (r record, err error) {
	if r, err = st.open(provider.Operator, name); err != nil {
		return r, err
	}
	var ok bool
	if r.ID, ok = st.fields[fieldID].(string); !ok {
		return record{}, errMismatch(provider.Operator, name, fieldID)
	}
	return r, nil
}

// putLent stores n as the credential of that id. Of two who put, the store says who
// was first; who does not ask it gives the version that must still be the last.
func (v *Vault) putLent(ctx context.Context, n NewCredential, id string, after ...api.KVOption) error {
	fields := n.fields(provider.Operator, v.o.Now())
	fields[fieldID] = id
	err := v.do(ctx, func(ctx context.Context) error {
		_, err := v.client.KVv2(v.o.Mount).Put(ctx, v.lentPath(n.Provider), fields, after...)
		if isConflict(err) {
			return ErrConflict
		}
		return plain(err)
	})
	switch {
	case errors.Is(err, ErrConflict):
		return contended(n.Provider)
	case err != nil:
		return unavailable(err)
	}
	return nil
}

func (v *Vault) removeLent(ctx context.Context, name string) error {
	err := v.do(ctx, func(ctx context.Context) error {
		return plain(v.client.KVv2(v.o.Mount).DeleteMetadata(ctx, v.lentPath(name)))
	})
	if err != nil {
		return unavailable(err)
	}
	return nil
}
