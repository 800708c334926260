package keystore

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"bulkhead/fault"
	"bulkhead/provider"
	"bulkhead/tenant"
)

// Copied is what Copy and Move did, by provider.
type Copied struct {
	Written []string // to where there was none, or an earlier one
	Same    []string // was there already
	Kept    []string // not copied, because what was there is later
	Removed []string // from where it came, by Move
}

// Copy copies a company's credentials from one Keeper to another, and reads each
// back. Where both have one and they differ, the one that was changed later
// stays. It goes on after an error, and may be called again.
func Copy(ctx context.Context, s tenant.Scope, from, to Keeper) (Copied, error) {
	return transfer(ctx, s, from, to, false)
}

// Move is Copy, and removes each credential from where it came once it was read
// back, or a later one was. Gateways must already use to: one that uses from
// still has no credentials any more.
func Move(ctx context.Context, s tenant.Scope, from, to Keeper) (Copied, error) {
	return transfer(ctx, s, from, to, true)
}

// Plan says what Move would do, and does nothing. What it would keep or find to
// be the same it would remove from where it is, as it would what it writes.
func Plan(ctx context.Context, s tenant.Scope, from, to Keeper) (Copied, error) {
	return transfer(ctx, s, from, planned{to}, false)
}

// planned is a Keeper that others only plan to put something into.
type planned struct{ Keeper }

func transfer(ctx context.Context, s tenant.Scope, from, to Keeper, remove bool) (done Copied, err error) {
	all, err := from.List(ctx, s)
	if err != nil {
		return done, err
	}
	there, err := to.List(ctx, s)
	if err != nil {
		return done, err
	}
	var problems []error
	for _, c := range all {
		i := slices.IndexFunc(there, func(old Sealed) bool { return old.Provider == c.Provider })
		var old *Sealed
		if i >= 0 {
			old = &there[i]
		}
		err := done.one(ctx, s, from, to, c, old)
		if err == nil && remove {
			err = done.remove(ctx, s, from, c)
		}
		if err != nil {
			problems = append(problems, fmt.Errorf("credential for %q of %s: %w", c.Provider, s.ID(), err))
		}
	}
	return done, errors.Join(problems...)
}

// one copies c unless it is there, or old is and is later.
func (d *Copied) one(ctx context.Context, s tenant.Scope, from, to Keeper, c Sealed, old *Sealed) error {
	want, err := fresh(ctx, s, from, c.Provider)
	if err != nil {
		return err
	}
	if old != nil {
		have, err := fresh(ctx, s, to, c.Provider)
		switch {
		case err != nil:
			return err
		case same(have, want):
			d.Same = append(d.Same, c.Provider)
			return nil
		case old.UpdatedAt.After(c.UpdatedAt):
			d.Kept = append(d.Kept, c.Provider)
			return nil
		}
	}
	if _, plan := to.(planned); plan {
		d.Written = append(d.Written, c.Provider)
		return nil
	}
	_, err = to.Put(ctx, s, NewCredential{Provider: c.Provider, Keyless: want.Secret.Empty(), Secret: want.Secret, BaseURL: want.BaseURL, Resource: want.Resource, Header: want.Header})
	if err != nil {
		return err
	}
	have, err := fresh(ctx, s, to, c.Provider)
	switch {
	case err != nil:
		return err
	case !same(have, want):
		return fault.New(fault.Conflict, "It was changed by others where it was copied to.")
	}
	d.Written = append(d.Written, c.Provider)
	return nil
}

func (d *Copied) remove(ctx context.Context, s tenant.Scope, from Keeper, c Sealed) error {
	now, err := fresh(ctx, s, from, c.Provider)
	switch {
	case err != nil:
		return err
	case now.ID != c.ID || now.Version != c.Version:
		return fault.New(fault.Conflict, "It was changed by others where it was copied from.")
	}
	if err := from.Delete(ctx, s, c.ID); err != nil {
		return err
	}
	d.Removed = append(d.Removed, c.Provider)
	return nil
}

// fresh reads a credential from where it is kept, not from memory.
func fresh(ctx context.Context, s tenant.Scope, k Keeper, name string) (provider.Credential, error) {
	k.Forget(s.ID().String())
	return k.Credential(ctx, s, name)
}

// same reports whether two credentials are used in the same way.
func same(x, y provider.Credential) bool {
	return x.Company == y.Company && x.Provider == y.Provider && x.Secret.Reveal() == y.Secret.Reveal() &&
		x.BaseURL == y.BaseURL && x.Resource == y.Resource && maps.Equal(x.Header, y.Header)
}
