package keystore

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"bulkhead/tenant"
)

// Synced is what Sync found, by provider.
type Synced struct {
	Noted   []string // new, or another version than was noted
	Removed []string // noted, and not there any more
	Refused []string // there, and not what belongs there; the error says why
}

// Sync notes what was put into Vault, or removed there, by others than this
// gateway. What does not belong where it is is not noted: the rest is, and the
// error names each. Whatever changed is seen by every Scope made afterwards.
func (v *Vault) Sync(ctx context.Context, s tenant.Scope) (done Synced, err error) {
	there, wrong, err := v.list(ctx, s)
	if err != nil {
		return done, err
	}
	noted, err := v.o.Names.CredentialNames(ctx, s)
	if err != nil {
		return done, unavailable(err)
	}
	var problems []error
	for _, c := range there {
		if bad := wrong[c.Provider]; bad != nil {
			done.Refused, problems = append(done.Refused, c.Provider), append(problems, bad)
			continue
		}
		i := slices.IndexFunc(noted, func(old Sealed) bool { return old.Provider == c.Provider })
		if i >= 0 && noted[i].Version == c.Version && noted[i].ID == c.ID {
			continue
		}
		if err := v.o.Names.PutCredentialName(ctx, s, c); err != nil {
			return done, unavailable(err)
		}
		done.Noted = append(done.Noted, c.Provider)
	}
	for _, old := range noted {
		if slices.ContainsFunc(there, func(c Sealed) bool { return c.Provider == old.Provider }) {
			continue
		}
		if err := v.o.Names.DeleteCredentialName(ctx, s, old.Provider); err != nil {
			return done, unavailable(err)
		}
		done.Removed = append(done.Removed, old.Provider)
	}
	v.opened.drop(s.ID().String())
	return done, errors.Join(problems...)
}

// Erase deletes every credential of the company with all its versions, and sees
// that none is left. What was noted of them goes with the company's rows.
func (v *Vault) Erase(ctx context.Context, s tenant.Scope) error {
	const rounds = 3 // somebody may put one meanwhile
	for range rounds {
		names, others, err := v.names(ctx, s)
		switch {
		case err != nil:
			return unavailable(err)
		case others > 0:
			return fmt.Errorf("below the path of %s in vault are %d things that are no credentials: remove them by hand", s.ID(), others)
		case len(names) == 0:
			v.opened.drop(s.ID().String())
			return nil
		}
		for _, name := range names {
			if err := v.remove(ctx, s, name); err != nil {
				return unavailable(err)
			}
		}
	}
	return fmt.Errorf("credentials of %s keep coming back in vault", s.ID())
}
