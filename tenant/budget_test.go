//go:build !race

package tenant_test

import (
	"context"
	"fmt"
	"runtime"
	"testing"

	"bulkhead/tenant"
	"bulkhead/tenant/tenanttest"
)

func TestWarmAllocs(t *testing.T) {
	w := tenanttest.New(t, tenant.Options{})
	key, s := w.Company("a", tenant.KeyLive, nil)
	ctx := context.Background()
	f := func(key string, ok bool) {
		t.Helper()
		k := []byte(key)
		if n := testing.AllocsPerRun(1000, func() {
			if _, err := w.Authenticate(ctx, k); (err == nil) != ok {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("%v allocations per call, want 0", n)
		}
	}
	f(key, true)
	f(withPart(key, 4, "000000000000"), false) // refused, and remembered
	f(withPart(key, 3, "0000000000"), false)
	f(key[:50], false)

	name, buf := s.Name("kind", "id"), make([]byte, 0, 64)
	if n := testing.AllocsPerRun(1000, func() { buf = name.Append(buf[:0]) }); n != 0 {
		t.Errorf("Append: %v allocations per call, want 0", n)
	}
}

// fleet is a Source of companies that are made when they are asked for, so
// that what stays in memory is the Directory's.
type fleet struct {
	tenant.Source
	keys map[string]*tenant.Key
	rich bool // with a route, limits of a model and a second provider
}

func (f *fleet) LoadCompany(_ context.Context, id tenant.ID, c *tenant.Company) error {
	p := &tenant.Project{ID: fmt.Sprintf("proj_%s%014d", id.Locator(), 1), Name: fmt.Sprint("project of ", id), Limits: tenant.Limits{RequestsPerMinute: 600}}
	c.Name, c.Status, c.Generation = "company "+id.Locator(), tenant.Active, 3
	c.Limits = tenant.Limits{RequestsPerMinute: 6000, Concurrent: 100}
	c.Projects = map[string]*tenant.Project{p.ID: p}
	c.Providers = []string{"openai"}
	if f.rich {
		p.Models = map[string]tenant.Limits{"gpt-4o": {TokensPerMinute: 100_000}}
		c.Routes = map[string]*tenant.Route{"fast": {Name: "fast", Targets: []tenant.RouteTarget{{Model: "openai/gpt-4o-mini"}, {Model: "groq/llama-3.1-8b-instant"}}}}
		c.Providers = []string{"groq", "openai"}
	}
	return nil
}

func (f *fleet) LoadKey(_ context.Context, id tenant.ID, keyID string) (*tenant.Key, error) {
	k := *f.keys[keyID]
	k.ProjectID = fmt.Sprintf("proj_%s%014d", id.Locator(), 1)
	k.ServiceAccountID, k.Name = "svc_acct_"+keyID, "key of "+keyID
	return &k, nil
}

// An idle company with one project, limits, a credential and a key costs at
// most 2 KB (DESIGN section 11). Each map in its policy adds 250 bytes or more,
// since Go's smallest has room for eight.
func TestIdleMemory(t *testing.T) {
	const companies = 10_000
	w := tenanttest.New(t, tenant.Options{})
	act, err := w.Gateway().Begin(t.Context(), "company.create", "")
	if err != nil {
		t.Fatal(err)
	}
	keys, rows := make([]string, companies), map[string]*tenant.Key{}
	for i := range keys {
		value, k := w.Minter().Mint(w.NewCompany(act, "a"), tenant.KeyLive)
		keys[i], rows[k.ID] = value, &k
	}
	heap := func() int64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	f := func(rich bool, budget int64) {
		t.Helper()
		before := heap()
		d := tenant.NewDirectory(&fleet{keys: rows, rich: rich}, w, w.Minter(), tenant.Options{})
		for _, key := range keys {
			wantScope(t, d, key)
		}
		each := (heap() - before) / companies
		t.Logf("%d bytes per company", each)
		if each > budget || each <= 0 {
			t.Errorf("%d bytes per company, want at most %d", each, budget)
		}
		runtime.KeepAlive(d)
	}
	f(false, 2048)
	f(true, 3072)
	runtime.KeepAlive(keys)
	runtime.KeepAlive(rows)
}
