package store_test

import (
	"context"
	"testing"

	"bulkhead/openai"
	"bulkhead/store"
	"bulkhead/store/pgtest"
	"bulkhead/store/storetest"
	"bulkhead/tenant"
	"bulkhead/tenant/tenanttest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// options are for tests, many of which run at once.
func options(d pgtest.Database) store.Options {
	return store.Options{URL: d.URL, OwnerURL: d.OwnerURL, MaxConns: 5}
}

// migrate is what `gateway migrate` does.
func migrate(d pgtest.Database) error {
	ctx := context.Background()
	db, err := store.OpenOwner(ctx, options(d))
	if err != nil {
		return err
	}
	defer db.Close()
	return db.Migrate(ctx)
}

// migrated makes a database that has the schema.
func migrated(t testing.TB) pgtest.Database {
	t.Helper()
	return pgtest.Copy(t, "migrated", migrate)
}

func openPostgres(t testing.TB, onChange func(string)) *store.DB {
	t.Helper()
	o := options(migrated(t))
	o.OnChange = onChange
	return open(t, o)
}

func open(t testing.TB, o store.Options) *store.DB {
	t.Helper()
	db, err := store.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	db.KeyAudit(storetest.AuditKey)
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

func TestPostgres(t *testing.T) { storetest.Run(t, openPostgres) }

var pageOfAll = openai.Page{Limit: 1000}

// act begins an act of the operator.
func act(t testing.TB, db *store.DB) tenant.Act {
	t.Helper()
	a, err := directory(db).Gateway().Begin(t.Context(), "test", "")
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func directory(db *store.DB) *tenant.Directory {
	return tenant.NewDirectory(db, db, tenant.NewMinter(tenanttest.Pepper), tenant.Options{})
}

// company makes a company with one project, p.
func company(t testing.TB, db *store.DB, name string) tenant.Scope {
	t.Helper()
	a := act(t, db)
	s := directory(db).NewCompany(a, name)
	err := db.CreateCompany(t.Context(), a, tenant.NewCompany{
		Scope:   s,
		Project: tenant.Project{ID: "p", Name: name},
		Account: tenant.ServiceAccount{ID: "a", ProjectID: "p", Name: name},
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}
