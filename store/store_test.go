package store_test

import (
	"path/filepath"
	"testing"

	"bulkhead/keystore"
	"bulkhead/keystore/keystoretest"
	"bulkhead/ledger"
	"bulkhead/store"
	"bulkhead/store/storetest"
	"bulkhead/tenant"
	"bulkhead/tenant/tenanttest"
	"bulkhead/web"
)

var (
	_ tenant.Source   = (*store.DB)(nil)
	_ tenant.Recorder = (*store.DB)(nil)
	_ keystore.Store  = (*store.DB)(nil)
	_ ledger.Store    = (*store.DB)(nil)
	_ web.Registry    = (*store.DB)(nil)
)

func openSQLite(t testing.TB, onChange func(string)) *store.DB {
	t.Helper()
	db, err := store.Open(t.Context(), store.Options{Path: filepath.Join(t.TempDir(), "data", "bulkhead.db"), OnChange: onChange})
	if err != nil {
		t.Fatal(err)
	}
	db.KeyAudit(storetest.AuditKey)
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := db.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	return db
}

func TestSQLite(t *testing.T) { storetest.Run(t, openSQLite) }

// TestKeystore runs the contract of package keystore on the real store.
func TestKeystore(t *testing.T) {
	t.Run("SQLite", func(t *testing.T) { testKeystore(t, openSQLite) })
	t.Run("Postgres", func(t *testing.T) { testKeystore(t, openPostgres) })
}

func testKeystore(t *testing.T, open storetest.Open) {
	keystoretest.RunStore(t, func(t *testing.T) (keystore.Store, func() tenant.Scope) {
		db, company, _ := openForKeystore(t, open)
		return db, company
	})
	keystoretest.RunNames(t, func(t *testing.T) (keystore.Names, func() tenant.Scope, func(tenant.Scope) int64) {
		return openForKeystore(t, open)
	})
}

// openForKeystore returns a store, what makes companies in it, and what tells
// the generation of one's policy.
func openForKeystore(t *testing.T, open storetest.Open) (*store.DB, func() tenant.Scope, func(tenant.Scope) int64) {
	db := open(t, func(string) {})
	dir := tenant.NewDirectory(db, db, tenant.NewMinter(tenanttest.Pepper), tenant.Options{})
	act := func(company string) tenant.Act {
		t.Helper()
		a, err := dir.Gateway().Begin(t.Context(), "test", company)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	company := func() tenant.Scope {
		t.Helper()
		a := act("")
		s := dir.NewCompany(a, "a company")
		if err := db.CreateCompany(t.Context(), a, tenant.NewCompany{
			Scope:   s,
			Project: tenant.Project{ID: "proj_1", Name: "p"},
			Account: tenant.ServiceAccount{ID: "svc_acct_1", ProjectID: "proj_1", Name: "a"},
		}); err != nil {
			t.Fatal(err)
		}
		return s
	}
	generation := func(s tenant.Scope) int64 {
		t.Helper()
		id := s.ID().String()
		dir.Changed(id)
		now, err := dir.Scope(t.Context(), act(id), id)
		if err != nil {
			t.Fatal(err)
		}
		return now.Company().Generation
	}
	return db, company, generation
}
