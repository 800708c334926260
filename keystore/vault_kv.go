package keystore

import (
	"context"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"
	"golang.org/x/sync/errgroup"

	"bulkhead/provider"
	"bulkhead/tenant"
)

// ErrMismatch is the cause of an error about a secret in Vault that is another
// company's, for another provider, or not a credential.
var ErrMismatch = errors.New("not the credential that belongs there")

// The fields of a secret. What is put by hand needs the first two and a secret
// or a base_url.
const (
	fieldCompany   = "company"
	fieldProvider  = "provider"
	fieldSecret    = "secret"
	fieldBaseURL   = "base_url"
	fieldResource  = "resource"
	fieldHeader    = "header" // an object of strings
	fieldCreatedAt = "created_at"
	fieldKeyless   = "keyless" // "true" where the provider takes no key // RFC 3339; when the first version was put
)

// vaultID returns the id of a credential. It follows from the place, so one that
// was put by hand has the same id on every gateway, and is found by it unread.
func vaultID(s tenant.Scope, name string) string {
	sum := sha256.Sum256(s.Name("vault "+forCredential, name).Append(nil))
	return "cred_" + strings.ToLower(base32.StdEncoding.EncodeToString(sum[:])[:24])
}

// folder returns the path below which the company's credentials are. Of its
// parts only the company's id is not the operator's, and that comes of a Scope.
func (v *Vault) folder(s tenant.Scope) string {
	return v.o.Prefix + "/companies/" + s.ID().String() + "/providers/"
}

// stored is what lies at a path.
type stored struct {
	fields  map[string]any // nil if there is nothing, or it was deleted
	version int64          // of the last, deleted or not; 0 if there never was one
	at      time.Time      // when that was written
}

// get returns what is stored for a provider, whose name must have been checked.
func (v *Vault) get(ctx context.Context, s tenant.Scope, name string) (st stored, err error) {
	if !providerName.MatchString(name) {
		panic("BUG: a path of an unchecked name")
	}
	return v.getAt(ctx, v.folder(s)+name)
}

func (v *Vault) getAt(ctx context.Context, path string) (st stored, err error) {
	err = v.do(ctx, func(ctx context.Context) error {
		got, err := v.client.KVv2(v.o.Mount).Get(ctx, path)
		switch {
		case errors.Is(err, api.ErrSecretNotFound):
			return nil
		case err != nil:
			return plain(err)
		case got.VersionMetadata == nil:
			return errNotUnderstood
		}
		st = stored{got.Data, int64(got.VersionMetadata.Version), got.VersionMetadata.CreatedTime}
		return nil
	})
	return st, err
}

// open returns the record, if it is the owner's, a company's id or the operator,
// for that provider.
func (st stored) open(owner, name string) (r record, err error) {
	text := func(field string) string {
		value, there := st.fields[field]
		t, ok := value.(string)
		if there && !ok && err == nil {
			err = errMismatch(owner, name, field)
		}
		return t
	}
	r = record{
		Company: text(fieldCompany), Provider: text(fieldProvider), Secret: text(fieldSecret),
		BaseURL: text(fieldBaseURL), Resource: text(fieldResource),
	}
	switch {
	case r.Company != owner:
		return record{}, errMismatch(owner, name, fieldCompany)
	case r.Provider != name:
		return record{}, errMismatch(owner, name, fieldProvider)
	case err != nil:
		return record{}, err
	}
	if header, there := st.fields[fieldHeader]; there {
		object, ok := header.(map[string]any)
		if !ok {
			return record{}, errMismatch(owner, name, fieldHeader)
		}
		r.Header = make(map[string]string, len(object))
		for field, value := range object {
			if r.Header[field], ok = value.(string); !ok {
				return record{}, errMismatch(owner, name, fieldHeader)
			}
		}
	}
	// It may have been put by hand, so it was not checked yet.
	n, bad := check(NewCredential{Provider: name, Keyless: text(fieldKeyless) == "true", Secret: provider.NewSecret(r.Secret), Resource: r.Resource, BaseURL: r.BaseURL, Header: r.Header})
	if bad != nil {
		return record{}, fmt.Errorf("the secret for provider %q of %s: %w: %w", name, owner, ErrMismatch, plainFault(bad))
	}
	r.Header = n.Header
	return r, nil
}

// plainFault returns the text of a fault as an ordinary error: it is about what
// is stored, not about what the client sent.
func plainFault(err error) error { return errors.New(err.Error()) }

func errMismatch(owner, name, field string) error {
	return fmt.Errorf("the secret for provider %q of %s: field %s: %w", name, owner, field, ErrMismatch)
}

// createdAt returns when the first version was put, as far as that is known.
func (st stored) createdAt() time.Time {
	text, _ := st.fields[fieldCreatedAt].(string)
	if t, err := time.Parse(time.RFC3339Nano, text); err == nil {
		return t
	}
	return st.at
}

// Put implements Keeper. The version is that of the secret in Vault.
func (v *Vault) Put(ctx context.Context, s tenant.Scope, n NewCredential) (Sealed, error) {
	ctx, cancel := context.WithTimeout(ctx, manageTimeout)
	defer cancel()
	n, err := check(n)
	if err != nil {
		return Sealed{}, err
	}
	c := Sealed{ID: vaultID(s, n.Provider), Provider: n.Provider, Redacted: redact(n.Secret.Reveal()), BaseURL: n.BaseURL}
	for range maxTries {
		old, err := v.get(ctx, s, n.Provider)
		if err != nil {
			return Sealed{}, unavailable(err)
		}
		c.CreatedAt = v.o.Now().UTC()
		if _, err := old.open(s.ID().String(), n.Provider); err == nil {
			c.CreatedAt = old.createdAt()
		}
		err = v.write(ctx, s, n, old.version, &c)
		switch {
		case errors.Is(err, ErrConflict):
			continue
		case err != nil:
			return Sealed{}, unavailable(err)
		}
		v.opened.drop(s.ID().String())
		if err := v.o.Names.PutCredentialName(ctx, s, c); err != nil {
			return Sealed{}, unavailable(err) // to be put again, or found by Sync
		}
		return c, nil
	}
	return Sealed{}, contended(n.Provider)
}

// write stores n after that version, and fills in version and time of c.
func (v *Vault) write(ctx context.Context, s tenant.Scope, n NewCredential, after int64, c *Sealed) error {
	fields := n.fields(s.ID().String(), c.CreatedAt)
	return v.do(ctx, func(ctx context.Context) error {
		got, err := v.client.KVv2(v.o.Mount).Put(ctx, v.folder(s)+n.Provider, fields, api.WithCheckAndSet(int(after)))
		switch {
		case isConflict(err):
			return ErrConflict
		case err != nil:
			return plain(err)
		case got.VersionMetadata == nil:
			return errNotUnderstood
		}
		c.Version, c.UpdatedAt = int64(got.VersionMetadata.Version), got.VersionMetadata.CreatedTime
		return nil
	})
}

// fields is what Vault is given of n.
func (n *NewCredential) fields(owner string, created time.Time) map[string]any {
	fields := map[string]any{
		fieldCompany: owner, fieldProvider: n.Provider, fieldSecret: n.Secret.Reveal(),
		fieldCreatedAt: created.Format(time.RFC3339Nano),
	}
	if n.BaseURL != "" {
		fields[fieldBaseURL] = n.BaseURL
	}
	if n.Keyless {
		fields[fieldKeyless] = "true"
	}
	if n.Resource != "" {
		fields[fieldResource] = n.Resource
	}
	if len(n.Header) > 0 {
		fields[fieldHeader] = n.Header
	}
	return fields
}

// isConflict reports whether Vault says that another writer was first.
func isConflict(err error) bool {
	r, ok := errors.AsType[*api.ResponseError](err)
	return ok && r.StatusCode == http.StatusBadRequest &&
		slices.ContainsFunc(r.Errors, func(text string) bool { return strings.Contains(text, "check-and-set") })
}

// names returns the names below the company's path: those that can be
// providers', and how many others there are.
func (v *Vault) names(ctx context.Context, s tenant.Scope) (names []string, others int, err error) {
	err = v.do(ctx, func(ctx context.Context) error {
		names, others = nil, 0
		got, err := v.client.Logical().ListWithContext(ctx, v.o.Mount+"/metadata/"+v.folder(s))
		switch {
		case err != nil:
			return plain(err)
		case got == nil && !v.session.mounted():
			return vaultStatus(http.StatusNotFound)
		case got == nil:
			return nil
		}
		keys, ok := got.Data["keys"].([]any)
		if !ok {
			return errNotUnderstood
		}
		for _, key := range keys {
			if name, ok := key.(string); ok && providerName.MatchString(name) {
				names = append(names, name)
			} else {
				others++
			}
		}
		return nil
	})
	return names, others, err
}

// List implements Keeper. Of a secret that does not belong where it is only the
// place is shown. It reads every secret of the company, eight at a time.
func (v *Vault) List(ctx context.Context, s tenant.Scope) ([]Sealed, error) {
	all, _, err := v.list(ctx, s)
	return all, err
}

// list returns besides which of all are not what belongs there.
func (v *Vault) list(ctx context.Context, s tenant.Scope) (all []Sealed, wrong map[string]error, err error) {
	ctx, cancel := context.WithTimeout(ctx, manageTimeout)
	defer cancel()
	names, _, err := v.names(ctx, s)
	if err != nil {
		return nil, nil, unavailable(err)
	}
	found := make([]stored, len(names))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(8)
	for i, name := range names {
		group.Go(func() (err error) {
			found[i], err = v.get(ctx, s, name)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, nil, unavailable(err)
	}
	wrong = map[string]error{}
	for i, name := range names {
		if found[i].fields == nil {
			continue // deleted, but for its history
		}
		c := Sealed{ID: vaultID(s, name), Provider: name, Version: found[i].version, Redacted: "...", CreatedAt: found[i].at, UpdatedAt: found[i].at}
		if r, err := found[i].open(s.ID().String(), name); err != nil {
			wrong[name] = err
		} else {
			c.Redacted, c.BaseURL, c.CreatedAt = redact(r.Secret), r.BaseURL, found[i].createdAt()
		}
		all = append(all, c)
	}
	slices.SortFunc(all, func(x, y Sealed) int {
		if c := x.CreatedAt.Compare(y.CreatedAt); c != 0 {
			return c
		}
		return strings.Compare(x.ID, y.ID)
	})
	return all, wrong, nil
}

// Delete implements Keeper. The secret goes with all its versions.
func (v *Vault) Delete(ctx context.Context, s tenant.Scope, id string) error {
	ctx, cancel := context.WithTimeout(ctx, manageTimeout)
	defer cancel()
	names, _, err := v.names(ctx, s)
	if err != nil {
		return unavailable(err)
	}
	// One that is noted and not there is left of a Delete that went half way.
	noted, err := v.o.Names.CredentialNames(ctx, s)
	if err != nil {
		return unavailable(err)
	}
	for _, c := range noted {
		names = append(names, c.Provider)
	}
	i := slices.IndexFunc(names, func(name string) bool { return vaultID(s, name) == id })
	if i < 0 {
		return noSuch()
	}
	if err := v.remove(ctx, s, names[i]); err != nil {
		return unavailable(err)
	}
	v.opened.drop(s.ID().String())
	if err := v.o.Names.DeleteCredentialName(ctx, s, names[i]); err != nil {
		return unavailable(err)
	}
	return nil
}

// remove deletes a secret with all its versions, if it is there.
func (v *Vault) remove(ctx context.Context, s tenant.Scope, name string) error {
	if !providerName.MatchString(name) {
		panic("BUG: a path of an unchecked name")
	}
	return v.do(ctx, func(ctx context.Context) error {
		return plain(v.client.KVv2(v.o.Mount).DeleteMetadata(ctx, v.folder(s)+name))
	})
}
