package storetest

import (
	"slices"
	"testing"

	"bulkhead/keystore"
	"bulkhead/tenant"
)

func lent(id, provider string, version int64) keystore.Lent {
	return keystore.Lent{Sealed: sealed(id, provider, version), RequestsPerMinute: 1000, TokensPerMinute: 3, Share: 25}
}

// lends returns the providers that the store says the company is lent.
func lends(t *testing.T, w *world, s tenant.Scope) (names []string) {
	t.Helper()
	all, err := w.db.LentTo(w.ctx(), s)
	must(t, err)
	for _, l := range all {
		names = append(names, l.Provider)
	}
	c := tenant.Company{}
	must(t, w.db.LoadCompany(w.ctx(), s.ID(), &c))
	if !slices.Equal(c.Lent, all) {
		t.Errorf("the policy has %+v, the list %+v", c.Lent, all)
	}
	return names
}

// testSeparateLent: what is lent to one company is not lent to the other, and
// taking it from one leaves the other's.
func testSeparateLent(t *testing.T, w *world, acme, beta tenant.Scope) {
	t.Helper()
	act := w.act("credential.put", "")
	must(t, w.db.PutLentCredential(w.ctx(), act, lent("cred_lent", "openai", 1)))
	of := func(s tenant.Scope) tenant.Act { return w.act("company.lent.put", s.ID().String()) }
	must(t, w.db.LendTo(w.ctx(), of(acme), acme, nil))
	must(t, w.db.LendTo(w.ctx(), of(beta), beta, nil))
	must(t, w.db.LendTo(w.ctx(), of(acme), acme, []string{"openai"}))
	if a, b := lends(t, w, acme), lends(t, w, beta); len(a) != 1 || len(b) != 0 {
		t.Fatalf("lent to acme only: acme has %v, beta %v", a, b)
	}
	must(t, w.db.LendTo(w.ctx(), of(beta), beta, []string{"openai"}))
	must(t, w.db.LendTo(w.ctx(), of(acme), acme, nil))
	if a, b := lends(t, w, acme), lends(t, w, beta); len(a) != 0 || len(b) != 1 {
		t.Fatalf("taken from acme only: acme has %v, beta %v", a, b)
	}
	must(t, w.db.LendTo(w.ctx(), of(acme), acme, []string{"openai"}))
}

// testLent: what the operator lends is kept, told to every gateway, replaced only
// by the next version, and gone for all when it is deleted.
func testLent(t *testing.T, open Open) {
	w := newWorld(t, open)
	acme, _ := w.company("acme")
	ctx, act := w.ctx(), w.act("credential.put", "")
	_, first, err := w.db.Changes(ctx, 0)
	must(t, err)
	must(t, w.db.PutLentCredential(ctx, act, lent("cred_1", "openai", 1)))
	changed, _, err := w.db.Changes(ctx, first)
	must(t, err)
	if !slices.Equal(changed, []string{tenant.Everybody}) || !slices.Contains(w.changed, tenant.Everybody) {
		t.Errorf("the feed says %v, OnChange %v", changed, w.changed)
	}
	got, err := w.db.LentCredential(ctx, "openai")
	must(t, err)
	same(t, text(got), text(lent("cred_1", "openai", 1)))
	if _, err := w.db.LentCredential(ctx, "other"); err != keystore.ErrNotFound {
		t.Errorf("another: %v", err)
	}
	if err := w.db.LendTo(ctx, w.act("x", acme.ID().String()), acme, []string{"openai", "nobody"}); err == nil || len(lends(t, w, acme)) != 0 {
		t.Errorf("a provider that is not lent: %v", err)
	}
	must(t, w.db.LendTo(ctx, w.act("x", acme.ID().String()), acme, []string{"openai"}))
	all, err := w.db.LentTo(ctx, acme)
	must(t, err)
	if want := (tenant.Limits{RequestsPerMinute: 250, TokensPerMinute: 1}); len(all) != 1 || all[0].Limits != want {
		t.Errorf("lent %+v, want %+v", all, want)
	}
	if err := w.db.PutLentCredential(ctx, act, lent("cred_1", "openai", 3)); err != keystore.ErrConflict {
		t.Errorf("version 3 after 1: %v", err)
	}
	must(t, w.db.PutLentCredential(ctx, act, lent("cred_1", "openai", 2)))
	if now := w.again(acme).Company().Lends("openai"); now == nil || now.Version != 2 {
		t.Errorf("the policy says %+v", now)
	}
	// Where the secret is changes nothing of what is lent, and nobody hears of it.
	_, first, err = w.db.Changes(ctx, 0)
	must(t, err)
	must(t, w.db.PutLentBlob(ctx, act, "cred_1", 2, []byte{}))
	if got, err := w.db.LentCredential(ctx, "openai"); err != nil || len(got.Blob) != 0 {
		t.Errorf("without its blob: %d bytes, %v", len(got.Blob), err)
	}
	must(t, w.db.PutLentBlob(ctx, act, "cred_1", 2, []byte("sealed again")))
	for _, wrong := range []keystore.Sealed{{ID: "cred_1", Version: 1}, {ID: "cred_2", Version: 2}} {
		if err := w.db.PutLentBlob(ctx, act, wrong.ID, wrong.Version, []byte("x")); err != keystore.ErrConflict {
			t.Errorf("the blob of %+v: %v", wrong, err)
		}
	}
	want := lent("cred_1", "openai", 2)
	want.Blob = []byte("sealed again")
	got, err = w.db.LentCredential(ctx, "openai")
	must(t, err)
	same(t, text(got), text(want))
	if changed, _, err := w.db.Changes(ctx, first); err != nil || len(changed) != 0 {
		t.Errorf("the feed says %v, %v", changed, err)
	}
	must(t, w.db.DeleteLentCredential(ctx, act, "cred_1"))
	if err := w.db.DeleteLentCredential(ctx, act, "cred_1"); err != keystore.ErrNotFound {
		t.Errorf("deleted twice: %v", err)
	}
	must(t, w.db.PutLentCredential(ctx, act, lent("cred_2", "openai", 1)))
	if names := lends(t, w, acme); len(names) != 0 {
		t.Errorf("a grant of before counts: %v", names)
	}
	for range 2 {
		key, err := w.db.PutOperatorDataKey(ctx, []byte("first"))
		must(t, err)
		same(t, string(key), "first")
	}
}
