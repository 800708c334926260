package keystore

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"sync/atomic"
	"time"

	"github.com/hashicorp/vault/api"

	"bulkhead/provider"
	"bulkhead/tenant"
)

// VaultOptions say where Vault is and who asks. Zero values of the last group
// take the defaults. No variable of the environment is looked at, neither VAULT_*
// nor those that name a proxy: what protects credentials stands in one place.
type VaultOptions struct {
	// Addr is https://host:port. Over http, secrets pass in the clear: for the
	// same machine, or a network as trusted as it.
	Addr string
	// CAFile is a PEM file of the authorities to trust; "" trusts the system's.
	CAFile string
	// Namespace is that of Vault Enterprise and OpenBao; "" is the root.
	Namespace string

	// Either Token, which is renewed as long as Vault allows, or RoleID and
	// SecretID of an AppRole at auth/approle, with which the gateway logs in
	// again whenever its token ends. The role's token_num_uses must be 0.
	Token    provider.Secret
	RoleID   string
	SecretID provider.Secret

	// Mount is where KV version 2 is mounted; default "secret". Prefix comes
	// before "companies" in every path; default "bulkhead".
	Mount, Prefix string
	// Names is told of every credential that is put and deleted. Required.
	Names Names

	// Check is how often the token is looked at, which is how old what Health
	// says may be; default 10 s.
	Check time.Duration
	Options
}

// Names notes, beside the company's policy, which credentials it has in Vault,
// so that routing knows without asking Vault, and every gateway hears of a
// change. Each change gives the company's policy a new generation in the same
// transaction, even if nothing differs. keystoretest.RunNames is its contract.
type Names interface {
	// CredentialNames returns what is noted of the company, without Blob.
	CredentialNames(ctx context.Context, s tenant.Scope) ([]Sealed, error)
	// PutCredentialName notes c, which has no Blob, in place of what was noted
	// for c.Provider.
	PutCredentialName(ctx context.Context, s tenant.Scope, c Sealed) error
	// DeleteCredentialName removes what was noted for the provider; it is no
	// error if there is nothing.
	DeleteCredentialName(ctx context.Context, s tenant.Scope, provider string) error
}

// VaultStats count since the start.
type VaultStats struct {
	Reads  int64 // credentials asked of Vault, found or not; those from memory are not counted
	Denied int64 // requests that Vault refused (403) under a token that it took to be good, or for which there was no other
	Failed int64 // requests that Vault did not answer, or answered with an error of its own
	Logins int64 // tokens got by AppRole
}

// Vault keeps credentials in KV version 2 of HashiCorp Vault or OpenBao, at
// <mount>/data/<prefix>/companies/<company id>/providers/<provider>.
type Vault struct {
	o       VaultOptions
	client  *api.Client
	session *session
	opened  *opened

	reads, denied, failed atomic.Int64
}

var _ Keeper = (*Vault)(nil)

// manageTimeout bounds a request that is not for a call: put, list, delete.
const manageTimeout = 10 * time.Second

var vaultPath = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*$`)

// OpenVault returns a Vault and begins to log in. It fails only for options that
// cannot be right: whether Vault is there, Health says. Close ends it.
func OpenVault(o VaultOptions) (*Vault, error) {
	if o.Mount == "" {
		o.Mount = "secret"
	}
	if o.Prefix == "" {
		o.Prefix = "bulkhead"
	}
	if o.Check <= 0 {
		o.Check = 10 * time.Second
	}
	o.defaults(2 * time.Second)
	switch byRole := o.RoleID != "" || !o.SecretID.Empty(); {
	case o.Names == nil:
		panic("BUG: VaultOptions without Names")
	case !vaultPath.MatchString(o.Mount):
		return nil, fmt.Errorf("vault: mount %q is not a path of [A-Za-z0-9._-] parts", o.Mount)
	case !vaultPath.MatchString(o.Prefix):
		return nil, fmt.Errorf("vault: prefix %q is not a path of [A-Za-z0-9._-] parts", o.Prefix)
	case byRole && !o.Token.Empty():
		return nil, errors.New("vault: there is a token and a role id: which of them is meant?")
	case !byRole && o.Token.Empty():
		return nil, errors.New("vault: there is neither a token nor a role id")
	case byRole && (o.RoleID == "" || o.SecretID.Empty()):
		return nil, errors.New("vault: a role id needs a secret id, and the other way round")
	}
	transport, err := newTransport(o.CAFile)
	if err != nil {
		return nil, err
	}
	v := &Vault{o: o}
	if v.client, err = newClient(o, transport, nil); err != nil {
		return nil, err
	}
	v.client.SetToken(o.Token.Reveal())
	v.opened = newOpened(o.Options, o.TTL/10, v.read)
	if v.session, err = openSession(o, v.client, transport); err != nil {
		return nil, err
	}
	return v, nil
}

// Close ends the renewal of the token. Credentials that are in memory stay
// there, so that what is under way can end. It may be called twice.
func (v *Vault) Close() error {
	v.session.close()
	return nil
}

// Health returns why Vault could not be used when the token was last looked at,
// nil if it could. What is in memory is given out all the same.
func (v *Vault) Health() error { return v.session.health() }

// Check is Health, but waits until Vault was asked for the first time.
func (v *Vault) Check(ctx context.Context) error {
	if err := v.session.wait(ctx, func() bool { return v.session.done > 0 }); err != nil {
		return err
	}
	return v.Health()
}

// Stats returns what was counted.
func (v *Vault) Stats() VaultStats {
	return VaultStats{v.reads.Load(), v.denied.Load(), v.failed.Load(), v.session.logins.Load()}
}

// Credential implements Reader. It does no I/O for a credential that it read
// within the TTL and since the last change to the company.
func (v *Vault) Credential(ctx context.Context, s tenant.Scope, provider string) (provider.Credential, error) {
	return v.opened.credential(ctx, s, provider)
}

// Forget implements Keeper.
func (v *Vault) Forget(company string) { v.opened.drop(company) }

// read reads a credential and checks that it belongs where it was.
func (v *Vault) read(ctx context.Context, s tenant.Scope, name string) (c provider.Credential, err error) {
	if !providerName.MatchString(name) {
		return c, missing(name)
	}
	v.reads.Add(1)
	got, err := v.get(ctx, s, name)
	switch {
	case err != nil:
		return c, unavailable(err)
	case got.fields == nil && !v.session.mounted():
		// Where nothing is mounted nothing is found, which says nothing.
		return c, unavailable(v.session.health())
	case got.fields == nil:
		return c, missing(name)
	}
	r, err := got.open(s.ID().String(), name)
	if err != nil {
		return c, err
	}
	return provider.Credential{
		ID: vaultID(s, name), Company: s.ID().String(), Provider: name, Version: got.version,
		Secret: provider.NewSecret(r.Secret), BaseURL: r.BaseURL, Resource: r.Resource, Header: r.Header,
	}, nil
}

// do sends one request, and sends it again if the token was refused and another
// is to be had. Its errors show neither the server's words nor the path.
func (v *Vault) do(ctx context.Context, send func(ctx context.Context) error) error {
	for first := true; ; first = false {
		used, err := v.session.token(ctx)
		if err != nil {
			v.failed.Add(1)
			return err
		}
		err = send(ctx)
		switch status := statusOf(err); {
		case err == nil:
			return nil
		case status == http.StatusForbidden:
			if first && v.session.replaced(ctx, used) {
				continue
			}
			v.denied.Add(1)
		case status == 0 || status >= http.StatusInternalServerError:
			v.failed.Add(1)
			v.session.look()
		}
		return err
	}
}
