package keystore_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"bulkhead/fault"
	"bulkhead/keystore"
	"bulkhead/provider"
	"bulkhead/tenant"
	"bulkhead/tenant/tenanttest"
)

// lentAt is where what is lent for openai is, as documented.
const lentAt = "bulkhead/operator/providers/openai"

// vaultLender is a Lender over Vault, and one over the same store without.
type vaultLender struct {
	memory        *lentMemory
	proxy         *proxy
	b             *bao
	vault, sealed *keystore.Lender
	act           tenant.Act
	w             *tenanttest.World
	clock         atomic.Int64
}

func newVaultLender(t *testing.T) *vaultLender {
	t.Helper()
	b := server(t)
	l := &vaultLender{memory: &lentMemory{rows: map[string]keystore.Lent{}}, b: b, proxy: b.proxy(t, (*httptest.Server).Start), w: tenanttest.New(t, tenant.Options{})}
	o := b.tokens(t)
	o.Addr = l.proxy.URL
	v := open(t, o)
	l.clock.Store(time.Now().Unix())
	now := keystore.Options{Now: func() time.Time { return time.Unix(l.clock.Load(), 0) }}
	l.vault = keystore.NewLender(l.memory, master(t, masterText), v.Vault, now)
	l.sealed = keystore.NewLender(l.memory, master(t, masterText), nil, now)
	var err error
	if l.act, err = l.w.Gateway().Begin(t.Context(), "credential.put", ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // t's context has ended
		if err := b.KVv2("secret").DeleteMetadata(context.Background(), lentAt); err != nil {
			t.Error(err)
		}
	})
	return l
}

func (l *vaultLender) put(t *testing.T, to *keystore.Lender, secret string) keystore.Lent {
	t.Helper()
	lent, err := to.Put(t.Context(), l.act, keystore.NewCredential{Provider: "openai", Secret: provider.NewSecret(secret), Header: map[string]string{"OpenAI-Organization": "org-o"}}, keystore.Lent{})
	if err != nil {
		t.Fatal(err)
	}
	return lent
}

func (l *vaultLender) granted(name string, c keystore.Lent) tenant.Scope {
	_, s := l.w.Company(name, tenant.KeyLive, func(o *tenant.Company) {
		o.Lent = []tenant.Lent{{Provider: "openai", ID: c.ID, Version: c.Version}}
	})
	return s
}

// TestLenderVault: with Vault a secret is there and not in the store, in the version
// that is granted; it is another's for who was granted another; and neither the
// store's nor Vault's absence ends what runs before its time.
func TestLenderVault(t *testing.T) {
	l := newVaultLender(t)
	want := func(what string, s tenant.Scope, secret string) {
		t.Helper()
		c, err := l.vault.Credential(t.Context(), s, "openai")
		if err != nil || c.Secret.Reveal() != secret || c.Company != provider.Operator || c.Header["OpenAI-Organization"] != "org-o" {
			t.Fatalf("%s: %+v, %v", what, c, err)
		}
	}
	refused := func(what string, s tenant.Scope, as error) {
		t.Helper()
		if c, err := l.vault.Credential(t.Context(), s, "openai"); err == nil || as != nil && !errors.Is(err, as) || !c.Secret.Empty() {
			t.Errorf("%s: %v", what, err)
		}
	}
	first := l.put(t, l.vault, secretA)
	if len(l.memory.rows["openai"].Blob) != 0 || l.memory.key != nil {
		t.Error("something is sealed in the store")
	}
	a := l.granted("a", first)
	want("put", a, secretA)
	refused("another id", l.granted("b", keystore.Lent{Sealed: keystore.Sealed{ID: "cred_other", Version: 1}}), nil)

	// Rotated: who has heard of it uses the new one, and who has not the old.
	second := l.put(t, l.vault, secretB)
	want("not heard of", a, secretA)
	b := l.granted("c", second)
	want("rotated", b, secretB)

	// The store is not needed, however long it is away.
	l.memory.fail(errors.New("away"))
	for range 3 {
		l.clock.Add(3600)
		want("without the store", b, secretB)
	}
	l.memory.fail(nil)
	// Vault is, once what is in memory is too old; and again as soon as it is back.
	l.proxy.status.Store(http.StatusServiceUnavailable)
	want("without Vault", b, secretB)
	l.clock.Add(3600)
	if _, err := l.vault.Credential(t.Context(), b, "openai"); !fault.Is(err, fault.Unavailable) {
		t.Errorf("without Vault: %v", err)
	}
	l.proxy.status.Store(0)
	want("with Vault again", b, secretB)

	// By hand: a rotation is taken, what belongs elsewhere is not.
	hand := func(fields map[string]any) {
		t.Helper()
		if _, err := l.b.KVv2("secret").Put(t.Context(), lentAt, fields); err != nil {
			t.Fatal(err)
		}
		l.clock.Add(3600)
	}
	good := func() map[string]any {
		return map[string]any{"company": "operator", "provider": "openai", "id": second.ID, "secret": secretA, "header": map[string]any{"OpenAI-Organization": "org-o"}}
	}
	hand(good())
	want("rotated by hand", b, secretA)
	for field, value := range map[string]any{"company": a.ID().String(), "provider": "groq", "id": 7} {
		fields := good()
		fields[field] = value
		hand(fields)
		refused("by hand with another "+field, b, keystore.ErrMismatch)
	}
	fields := good()
	fields["id"] = "cred_of_before"
	hand(fields)
	refused("another's id by hand", b, nil)
	hand(good())

	// Deleted: gone from Vault; if that is away, lent no more all the same, and said.
	l.proxy.status.Store(http.StatusServiceUnavailable)
	err := l.vault.Delete(t.Context(), l.act, second.ID)
	if f := fault.As(err); !fault.Is(err, fault.Unavailable) || f.Code != "vault_unavailable" || len(l.memory.rows) != 0 {
		t.Errorf("deleted without Vault: %v", err)
	}
	l.proxy.status.Store(0)
	third := l.put(t, l.vault, secretB) // in place of what was left there
	refused("a grant of what was deleted", b, nil)
	want("lent anew", l.granted("d", third), secretB)
	if err := l.vault.Delete(t.Context(), l.act, third.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := l.b.KVv2("secret").GetMetadata(t.Context(), lentAt); err == nil {
		t.Error("Vault still has it")
	}
}

// TestLentMove: what is lent is moved whole, nothing is removed that was not read
// back, the later of two stays, and what changes meanwhile is not lost.
func TestLentMove(t *testing.T) {
	l := newVaultLender(t)
	c := l.put(t, l.sealed, secretA)
	s := l.granted("a", c)
	move := func(m keystore.LentMove) keystore.Copied {
		t.Helper()
		m.Sealed, m.Vault = l.sealed, l.vault
		done, err := m.Run(t.Context(), l.act)
		if err != nil {
			t.Fatal(err)
		}
		return done
	}
	is := func(what string, got keystore.Copied, written, same, kept, removed int) {
		t.Helper()
		if len(got.Written) != written || len(got.Same) != same || len(got.Kept) != kept || len(got.Removed) != removed {
			t.Errorf("%s: %+v", what, got)
		}
	}
	opens := func(what string, with *keystore.Lender, secret string) {
		t.Helper()
		l.clock.Add(3600)
		got, err := with.Credential(t.Context(), s, "openai")
		if secret == "" {
			if err == nil {
				t.Errorf("%s: it opens", what)
			}
		} else if err != nil || got.Secret.Reveal() != secret || got.Header["OpenAI-Organization"] != "org-o" {
			t.Errorf("%s: %+v, %v", what, got, err)
		}
	}
	byHand := func(id, secret string) {
		t.Helper()
		fields := map[string]any{"company": "operator", "provider": "openai", "id": id, "secret": secret, "header": map[string]any{"OpenAI-Organization": "org-o"}}
		if _, err := l.b.KVv2("secret").Put(t.Context(), lentAt, fields); err != nil {
			t.Error(err)
		}
	}
	toVault, toStore := keystore.LentMove{ToVault: true}, keystore.LentMove{}
	with := func(m keystore.LentMove, keep, plan bool) keystore.LentMove { m.Keep, m.Plan = keep, plan; return m }

	is("a plan", move(with(toVault, false, true)), 1, 0, 0, 0)
	opens("after a plan", l.vault, "")
	is("nothing there", move(toStore), 0, 0, 0, 0)
	is("kept", move(with(toVault, true, false)), 1, 0, 0, 0)
	opens("kept", l.sealed, secretA)
	opens("kept", l.vault, secretA)
	is("moved", move(toVault), 0, 1, 0, 1)
	if len(l.memory.rows["openai"].Blob) != 0 {
		t.Error("it is still in the store")
	}
	opens("moved", l.vault, secretA)
	is("moved again", move(toVault), 0, 0, 0, 0)
	is("back", move(toStore), 1, 0, 0, 1)
	opens("back", l.sealed, secretA)
	if _, err := l.b.KVv2("secret").GetMetadata(t.Context(), lentAt); err == nil {
		t.Error("Vault still has it")
	}

	// In both, and different: the later one stays.
	is("kept", move(with(toVault, true, false)), 1, 0, 0, 0)
	l.clock.Add(1e6)
	c = l.put(t, l.sealed, secretB)
	s = l.granted("b", c)
	is("the store's is later", move(with(toVault, true, false)), 1, 0, 0, 0)
	opens("the store's is later", l.vault, secretB)
	row := l.memory.rows["openai"]
	row.UpdatedAt = time.Unix(1000, 0)
	l.memory.rows["openai"] = row
	byHand(c.ID, secretA)
	is("Vault's is later", move(toVault), 0, 0, 1, 1)
	opens("Vault's is later", l.vault, secretA)

	// What a gateway puts while the copy is being made is not overwritten.
	l.put(t, l.sealed, secretB)
	m := toVault
	m.Sealed, m.Vault = l.sealed, l.vault
	var once sync.Once
	between := func(r *http.Request) {
		if r.Method == http.MethodPut {
			once.Do(func() { byHand(c.ID, secretA) })
		}
	}
	l.proxy.ahead.Store(&between)
	if _, err := m.Run(t.Context(), l.act); !fault.Is(err, fault.Conflict) {
		t.Errorf("changed in the middle: %v", err)
	}
	got, err := l.b.KVv2("secret").Get(t.Context(), lentAt)
	if err != nil || got.Data["secret"] != secretA || len(l.memory.rows["openai"].Blob) == 0 {
		t.Errorf("one of the two is lost: %v", err)
	}
}
