package keystore

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// VaultLooked is what Vault says of itself and of the gateway's token.
type VaultLooked struct {
	Version string // of the server; "" where it does not say
	// Ends is how long the token is still good, 0 without an end. Renewable says
	// that it can be made longer, and Again that the gateway can get another.
	Ends             time.Duration
	Renewable, Again bool
	// Missing are rights that the gateway needs and the token has not, as
	// "delete at secret/metadata/…". Unasked says that the token may not ask.
	Missing []string
	Unasked bool
	// All says that the token may do everything.
	All bool
}

// Look says what is wrong with Vault, or with the token, and what they are. It
// changes nothing. What it could find out is there besides an error, too.
func (v *Vault) Look(ctx context.Context) (l VaultLooked, err error) {
	// A sealed Vault says this, too, and nobody needs a token for it.
	root := v.client.WithNamespace("")
	if health, err := root.Sys().HealthWithContext(ctx); err == nil {
		l.Version = health.Version
	}
	if err := v.Check(ctx); err != nil {
		return l, err
	}
	self, err := v.client.Auth().Token().LookupSelfWithContext(ctx)
	if err != nil {
		return l, fmt.Errorf("cannot look at the token: %w", plain(err))
	}
	if l.Ends, err = self.TokenTTL(); err != nil {
		return l, errNotUnderstood
	}
	l.Renewable, _ = self.TokenIsRenewable()
	l.Again = v.session.login != nil
	return l, v.lookAtRights(ctx, &l)
}

// vaultRights are the rights that the gateway needs, all of which
// deploy/vault/policy.hcl gives: at a kind of path below the mount and a path
// below the prefix.
var vaultRights = []struct{ kind, path, need string }{
	{"data", "companies/none/providers/none", "create read update"},
	{"metadata", "companies/none/providers/none", "delete"},
	{"metadata", "companies/none/providers/", "list"},
	{"data", "operator/providers/none", "create read update"},
	{"metadata", "operator/providers/none", "delete"},
}

func (v *Vault) lookAtRights(ctx context.Context, l *VaultLooked) error {
	var paths []string
	for _, r := range vaultRights {
		paths = append(paths, v.o.Mount+"/"+r.kind+"/"+v.o.Prefix+"/"+r.path)
	}
	got, err := v.client.Logical().WriteWithContext(ctx, "sys/capabilities-self", map[string]any{"paths": paths})
	switch err = plain(err); {
	case statusOf(err) == http.StatusForbidden:
		l.Unasked = true
		return nil
	case err != nil:
		return fmt.Errorf("cannot ask what the token may do: %w", err)
	case got == nil:
		return errNotUnderstood
	}
	l.All = true
	for i, r := range vaultRights {
		has := texts(got.Data[paths[i]])
		all := slices.Contains(has, "root")
		l.All = l.All && all
		for _, need := range strings.Fields(r.need) {
			if !all && !slices.Contains(has, need) {
				l.Missing = append(l.Missing, need+" at "+paths[i])
			}
		}
	}
	return nil
}

// texts returns the strings of a list in an answer.
func texts(v any) (all []string) {
	list, _ := v.([]any)
	for _, one := range list {
		if s, ok := one.(string); ok {
			all = append(all, s)
		}
	}
	return all
}
