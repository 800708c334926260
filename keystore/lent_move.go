package keystore

import (
	"context"
	"errors"
	"fmt"

	"github.com/hashicorp/vault/api"

	"bulkhead/fault"
	"bulkhead/provider"
	"bulkhead/tenant"
)

// LentMove moves what the operator lends between the store and Vault, as Copy and
// Move do companies' credentials: each is written, read back, and only then removed
// from where it was. It may be stopped anywhere and called again. What is lent, to
// whom and how, stays in the store and does not change.
type LentMove struct {
	Sealed, Vault *Lender // over the same store, without and with a Vault
	ToVault       bool
	Keep          bool // leave it where it was, too
	Plan          bool // say what would be done, and do nothing
}

// Run does it. It goes on after an error.
func (m *LentMove) Run(ctx context.Context, a tenant.Act) (done Copied, err error) {
	all, err := m.Sealed.List(ctx)
	if err != nil {
		return done, err
	}
	var problems []error
	for _, l := range all {
		if err := m.one(ctx, a, l.Provider, &done); err != nil {
			problems = append(problems, fmt.Errorf("lent credential for %q: %w", l.Provider, err))
		}
	}
	return done, errors.Join(problems...)
}

// both is a credential at its two places.
type both struct {
	row           Lent
	stored        stored // in Vault
	sealed, vault record // the zero record where there is none
}

func (m *LentMove) read(ctx context.Context, name string) (b both, err error) {
	if b.row, err = m.Sealed.row(ctx, name); err != nil {
		return b, err
	}
	if len(b.row.Blob) > 0 {
		if b.sealed, err = m.Sealed.open(ctx, name, b.row); err != nil {
			return b, err
		}
	}
	v := m.Vault.vault
	if b.stored, err = v.getAt(ctx, v.lentPath(name)); err != nil {
		return b, unavailable(err)
	}
	if b.stored.fields == nil {
		return b, nil
	}
	if b.vault, err = b.stored.openLent(name); err != nil {
		return b, err
	}
	if b.vault.ID != b.row.ID { // of one that was deleted while Vault was away
		b.vault, b.stored = record{}, stored{version: b.stored.version}
	}
	return b, nil
}

func (b *both) alike() bool { return same(b.sealed.credential(0), b.vault.credential(0)) }

func (m *LentMove) one(ctx context.Context, a tenant.Act, name string, done *Copied) error {
	b, err := m.read(ctx, name)
	if err != nil {
		return err
	}
	from, to := &b.vault, &b.sealed
	later := b.row.UpdatedAt.After(b.stored.at) // what it is copied to is the later one
	if m.ToVault {
		from, to, later = to, from, b.stored.at.After(b.row.UpdatedAt)
	}
	switch {
	case from.ID == "":
		return nil
	case to.ID != "" && b.alike():
		done.Same = append(done.Same, name)
	case to.ID != "" && later:
		done.Kept = append(done.Kept, name)
	case m.Plan:
		done.Written = append(done.Written, name)
	default:
		if err := m.write(ctx, a, &b, from); err != nil {
			return err
		}
		again, err := m.read(ctx, name)
		switch {
		case err != nil:
			return err
		case again.row.Version != b.row.Version || again.sealed.ID == "" || !again.alike():
			return fault.New(fault.Conflict, "It was changed by others.")
		}
		done.Written = append(done.Written, name)
	}
	if m.Plan || m.Keep {
		return nil
	}
	if err := m.remove(ctx, a, &b); err != nil {
		return err
	}
	done.Removed = append(done.Removed, name)
	return nil
}

func (m *LentMove) write(ctx context.Context, a tenant.Act, b *both, from *record) error {
	n := NewCredential{Provider: from.Provider, Keyless: from.Secret == "", Secret: provider.NewSecret(from.Secret), BaseURL: from.BaseURL, Resource: from.Resource, Header: from.Header}
	if m.ToVault {
		return m.Vault.vault.putLent(ctx, n, b.row.ID, api.WithCheckAndSet(int(b.stored.version)))
	}
	blob, err := m.Sealed.seal(ctx, n, b.row)
	if err != nil {
		return err
	}
	return m.putBlob(ctx, a, b, blob)
}

func (m *LentMove) putBlob(ctx context.Context, a tenant.Act, b *both, blob []byte) error {
	switch err := m.Sealed.store.PutLentBlob(ctx, a, b.row.ID, b.row.Version, blob); {
	case errors.Is(err, ErrConflict):
		return contended(b.row.Provider)
	case err != nil:
		return unavailable(err)
	}
	return nil
}

func (m *LentMove) remove(ctx context.Context, a tenant.Act, b *both) error {
	if m.ToVault {
		return m.putBlob(ctx, a, b, []byte{})
	}
	return m.Vault.vault.removeLent(ctx, b.row.Provider)
}
