package storetest

import (
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"bulkhead/fault"
	"bulkhead/openai"
	"bulkhead/tenant"
)

func testProjects(t *testing.T, open Open) {
	w := newWorld(t, open)
	s, values := w.company("acme")
	p := tenant.Project{ID: "proj_a", Name: "a", CreatedAt: epoch.Add(time.Hour), Limits: tenant.Limits{RequestsPerMinute: 1, TokensPerMinute: 2, Concurrent: 3},
		Models:     map[string]tenant.Limits{"gpt-4o": {TokensPerMinute: 5}},
		Permission: tenant.ModelPermission{Mode: tenant.AllowList, Models: []string{"gpt-4o", `"'%_\`}}}
	must(t, w.db.CreateProject(w.ctx(), s, p))
	got, err := w.db.Project(w.ctx(), s, "proj_a")
	must(t, err)
	same(t, got, p)
	same(t, w.again(s).Company().Projects["proj_a"], p)
	wantFault(t, w.db.CreateProject(w.ctx(), s, p), fault.Conflict)

	p.Name, p.Limits = "b", tenant.Limits{}
	got, err = w.db.UpdateProject(w.ctx(), s, "proj_a", "b", tenant.Limits{})
	must(t, err)
	same(t, got, p)

	// Archived it is listed only when asked for, keeps the time, and nothing begins in it.
	got, err = w.db.ArchiveProject(w.ctx(), s, firstProject)
	must(t, err)
	if got.ArchivedAt.IsZero() {
		t.Error("not archived")
	}
	again, err := w.db.ArchiveProject(w.ctx(), s, firstProject)
	must(t, err)
	same(t, again, got)
	f := func(archived bool, want ...string) {
		t.Helper()
		found, _, err := w.db.Projects(w.ctx(), s, all, archived)
		must(t, err)
		var ids []string
		for _, p := range found {
			ids = append(ids, p.ID)
		}
		same(t, ids, want)
	}
	f(false, "proj_a")
	f(true, firstProject, "proj_a")
	_, err = w.db.UpdateProject(w.ctx(), s, firstProject, "x", tenant.Limits{})
	wantErr(t, err, tenant.ErrNotFound)
	wantErr(t, w.db.CreateKey(w.ctx(), s, key("k", firstProject, firstAccount, epoch)), tenant.ErrNotFound)
	_, err = w.Authenticate(w.ctx(), []byte(values[1]))
	wantFault(t, err, fault.Forbidden)
	_, err = w.db.ArchiveProject(w.ctx(), s, "proj_nobody")
	wantErr(t, err, tenant.ErrNotFound)
	found, _, err := w.db.Projects(w.ctx(), s, all, false)
	must(t, err)
	same(t, found[0], p) // with the limits of its models
}

func testLimits(t *testing.T, open Open) {
	w := newWorld(t, open)
	s, _ := w.company("acme")
	f := func(model string, l tenant.Limits, want map[string]tenant.Limits) {
		t.Helper()
		must(t, w.db.SetModelLimits(w.ctx(), s, firstProject, model, l))
		got, err := w.db.Project(w.ctx(), s, firstProject)
		must(t, err)
		same(t, got.Models, want)
		same(t, w.again(s).Company().Projects[firstProject].Models, want)
	}
	one, two := tenant.Limits{TokensPerMinute: 1}, tenant.Limits{RequestsPerMinute: 2}
	f("a", one, map[string]tenant.Limits{"a": one})
	f("b", two, map[string]tenant.Limits{"a": one, "b": two})
	f("a", two, map[string]tenant.Limits{"a": two, "b": two})
	f("a", tenant.Limits{}, map[string]tenant.Limits{"b": two})
	f("a", tenant.Limits{}, map[string]tenant.Limits{"b": two}) // no harm
	wantErr(t, w.db.SetModelLimits(w.ctx(), s, "proj_nobody", "a", tenant.Limits{}), tenant.ErrNotFound)

	err := w.db.SetModelPermission(w.ctx(), s, firstProject, tenant.ModelPermission{Mode: "both"})
	wantFault(t, err, fault.Invalid)
	deny := tenant.ModelPermission{Mode: tenant.DenyList, Models: []string{"x", "y"}}
	must(t, w.db.SetModelPermission(w.ctx(), s, firstProject, deny))
	same(t, w.again(s).Company().Projects[firstProject].Permission, deny)
	must(t, w.db.SetModelPermission(w.ctx(), s, firstProject, tenant.ModelPermission{}))
	same(t, w.again(s).Company().Projects[firstProject].Permission, tenant.ModelPermission{})
}

func testAccounts(t *testing.T, open Open) {
	w := newWorld(t, open)
	s, values := w.company("acme")
	a := tenant.ServiceAccount{ID: "svc_acct_b", ProjectID: firstProject, Name: "b", Role: "none", CreatedAt: epoch.Add(time.Second)}
	must(t, w.db.CreateServiceAccount(w.ctx(), s, a, nil))
	got, err := w.db.ServiceAccount(w.ctx(), s, firstProject, a.ID)
	must(t, err)
	same(t, got, a)
	a.Name, a.Role = "c", "owner"
	got, err = w.db.UpdateServiceAccount(w.ctx(), s, firstProject, a.ID, "c", "owner")
	must(t, err)
	same(t, got, a)
	// Of one project it is nothing in another.
	must(t, w.db.CreateProject(w.ctx(), s, tenant.Project{ID: "proj_b", Name: "b"}))
	_, err = w.db.ServiceAccount(w.ctx(), s, "proj_b", a.ID)
	wantErr(t, err, tenant.ErrNotFound)
	wantErr(t, w.db.CreateKey(w.ctx(), s, key("k", "proj_b", a.ID, epoch)), tenant.ErrNotFound)
	wantErr(t, w.db.DeleteServiceAccount(w.ctx(), s, "proj_b", a.ID), tenant.ErrNotFound)
	_, _, err = w.db.ServiceAccounts(w.ctx(), s, "proj_b", openai.Page{Limit: 1, After: a.ID})
	wantErr(t, err, tenant.ErrNotFound)

	// Deleted it is gone, and so are its keys, at once.
	_, err = w.Authenticate(w.ctx(), []byte(values[1]))
	must(t, err)
	must(t, w.db.DeleteServiceAccount(w.ctx(), s, firstProject, firstAccount))
	_, err = w.Authenticate(w.ctx(), []byte(values[1]))
	wantFault(t, err, fault.Unauthenticated)
	wantErr(t, w.db.DeleteServiceAccount(w.ctx(), s, firstProject, firstAccount), tenant.ErrNotFound)
	wantErr(t, w.db.CreateKey(w.ctx(), s, key("k", firstProject, firstAccount, epoch)), tenant.ErrNotFound)
	_, err = w.db.UpdateServiceAccount(w.ctx(), s, firstProject, firstAccount, "x", "owner")
	wantErr(t, err, tenant.ErrNotFound)
	list, _, err := w.db.ServiceAccounts(w.ctx(), s, firstProject, all)
	must(t, err)
	same(t, list, []tenant.ServiceAccount{a})
	keys, _, err := w.db.ProjectKeys(w.ctx(), s, firstProject, all)
	must(t, err)
	same(t, len(keys), 0)
}

func testKeys(t *testing.T, open Open) {
	w := newWorld(t, open)
	s, values := w.company("acme")
	k := key("key_b", firstProject, firstAccount, epoch.Add(time.Hour))
	k.ExpiresAt, k.Limits, k.Kind = epoch.AddDate(1, 0, 0), tenant.Limits{Concurrent: 1}, tenant.KeyTest
	must(t, w.db.CreateKey(w.ctx(), s, k))
	loaded, err := w.db.LoadKey(w.ctx(), s.ID(), k.ID)
	must(t, err)
	same(t, loaded, k)
	wantFault(t, w.db.CreateKey(w.ctx(), s, k), fault.Conflict)
	owned, err := w.db.ProjectKey(w.ctx(), s, firstProject, k.ID)
	must(t, err)
	same(t, []any{owned.Key, owned.Owner.ID, owned.Owner.Name}, []any{k, firstAccount, "acme account"})
	k.Name, k.Limits, k.ExpiresAt = "", tenant.Limits{}, k.CreatedAt.Add(time.Hour)
	owned, err = w.db.UpdateKey(w.ctx(), s, tenant.Key{ProjectID: firstProject, ID: k.ID, ExpiresAt: k.ExpiresAt, Hash: [32]byte{1}, Redacted: "not taken"})
	must(t, err)
	same(t, owned.Key, k)

	// Keys of projects and the company's own are apart.
	_, err = w.db.AdminKey(w.ctx(), s, k.ID)
	wantErr(t, err, tenant.ErrNotFound)
	_, err = w.db.ProjectKey(w.ctx(), s, firstProject, s.KeyID())
	wantErr(t, err, tenant.ErrNotFound)
	wantErr(t, w.db.RevokeKey(w.ctx(), s, "", k.ID), tenant.ErrNotFound)
	wantErr(t, w.db.RevokeKey(w.ctx(), s, firstProject, s.KeyID()), tenant.ErrNotFound)
	_, _, err = w.db.AdminKeys(w.ctx(), s, openai.Page{Limit: 1, After: k.ID})
	wantErr(t, err, tenant.ErrNotFound)

	// Revoked, a key is refused by the next request and not listed. A cursor
	// that was on it goes on.
	_, err = w.Authenticate(w.ctx(), []byte(values[0]))
	must(t, err)
	admin := key("key_admin", "", "", epoch.Add(time.Hour))
	must(t, w.db.CreateKey(w.ctx(), s, admin))
	must(t, w.db.RevokeKey(w.ctx(), s, "", s.KeyID()))
	_, err = w.Authenticate(w.ctx(), []byte(values[0]))
	wantFault(t, err, fault.Unauthenticated)
	wantErr(t, w.db.RevokeKey(w.ctx(), s, "", s.KeyID()), tenant.ErrNotFound)
	list, more, err := w.db.AdminKeys(w.ctx(), s, openai.Page{Limit: 1, After: s.KeyID()})
	must(t, err)
	same(t, []any{list, more}, []any{[]tenant.Key{admin}, false})
	must(t, w.db.RevokeKey(w.ctx(), s, firstProject, k.ID))
	_, err = w.db.LoadKey(w.ctx(), s.ID(), k.ID)
	wantErr(t, err, tenant.ErrNotFound)
	_, err = w.db.UpdateKey(w.ctx(), s, tenant.Key{ProjectID: firstProject, ID: k.ID, Name: "x"})
	wantErr(t, err, tenant.ErrNotFound)
}

func testRoutes(t *testing.T, open Open) {
	w := newWorld(t, open)
	s, _ := w.company("acme")
	r := tenant.Route{Name: "fast", Targets: []tenant.RouteTarget{{Model: "a/b", Weight: 3}, {Model: "c/d"}}, CreatedAt: epoch}
	created, err := w.db.PutRoute(w.ctx(), s, r)
	must(t, err)
	same(t, created, true)
	same(t, w.again(s).Company().Routes, map[string]*tenant.Route{"fast": &r})
	// Replaced, it keeps the time it was created.
	next := r
	next.Targets, next.CreatedAt = r.Targets[:1], epoch.Add(time.Hour)
	created, err = w.db.PutRoute(w.ctx(), s, next)
	must(t, err)
	same(t, created, false)
	got := w.again(s).Company().Routes["fast"]
	same(t, []any{got.Targets, got.CreatedAt}, []any{next.Targets, epoch})
	must(t, w.db.DeleteRoute(w.ctx(), s, "fast"))
	wantErr(t, w.db.DeleteRoute(w.ctx(), s, "fast"), tenant.ErrNotFound)
	same(t, len(w.again(s).Company().Routes), 0)
}

// testPages turns pages in both directions through rows that share times.
func testPages(t *testing.T, open Open) {
	w := newWorld(t, open)
	s, _ := w.company("acme")
	_, err := w.db.ArchiveProject(w.ctx(), s, firstProject)
	must(t, err)
	var ids []string // in the order of the list: by time, then id
	for i := range 9 {
		ids = append(ids, fmt.Sprint("p", i))
	}
	for _, i := range []int{4, 8, 0, 2, 6, 1, 7, 3, 5} {
		at := epoch.Add(time.Duration(i/3) * time.Second)
		must(t, w.db.CreateProject(w.ctx(), s, tenant.Project{ID: ids[i], Name: "p", CreatedAt: at}))
	}
	f := func(p openai.Page, want string, wantMore bool) {
		t.Helper()
		found, more, err := w.db.Projects(w.ctx(), s, p, false)
		must(t, err)
		var got []string
		for _, p := range found {
			got = append(got, p.ID)
		}
		same(t, []any{strings.Join(got, " "), more}, []any{want, wantMore})
	}
	f(openai.Page{Limit: 4}, "p0 p1 p2 p3", true)
	f(openai.Page{Limit: 4, After: "p3"}, "p4 p5 p6 p7", true)
	f(openai.Page{Limit: 1, After: "p7"}, "p8", false)
	f(openai.Page{Limit: 4, After: "p8"}, "", false)
	f(openai.Page{Limit: 9}, strings.Join(ids, " "), false)
	f(openai.Page{}, strings.Join(ids, " "), false)
	f(openai.Page{Limit: 3, Desc: true}, "p8 p7 p6", true)
	f(openai.Page{Limit: 3, Desc: true, After: "p2"}, "p1 p0", false)
	// The page before a row is the one that ends next to it.
	f(openai.Page{Limit: 3, Before: "p5"}, "p2 p3 p4", true)
	f(openai.Page{Limit: 3, Before: "p2"}, "p0 p1", false)
	f(openai.Page{Limit: 3, Desc: true, Before: "p5"}, "p8 p7 p6", false)
	f(openai.Page{Limit: 2, Desc: true, Before: "p5"}, "p7 p6", true)
	f(openai.Page{Limit: 9, After: "p2", Before: "p6"}, "p3 p4 p5", false)
	f(openai.Page{Limit: 2, After: "p2", Before: "p6"}, "p3 p4", true)
	f(openai.Page{Limit: 2, Desc: true, After: "p6", Before: "p2"}, "p5 p4", true)
	_, _, err = w.db.Projects(w.ctx(), s, openai.Page{Limit: 1, Before: "p9"}, false)
	wantErr(t, err, tenant.ErrNotFound)

	// The lists of a project.
	must(t, w.db.CreateServiceAccount(w.ctx(), s, tenant.ServiceAccount{ID: "a0", ProjectID: "p0", Name: "a", CreatedAt: epoch}, nil))
	must(t, w.db.CreateServiceAccount(w.ctx(), s, tenant.ServiceAccount{ID: "a1", ProjectID: "p0", Name: "a", CreatedAt: epoch}, nil))
	must(t, w.db.CreateServiceAccount(w.ctx(), s, tenant.ServiceAccount{ID: "b0", ProjectID: "p1", Name: "b", CreatedAt: epoch}, nil))
	for _, id := range []string{"k2", "k0", "k1"} {
		must(t, w.db.CreateKey(w.ctx(), s, key(id, "p0", "a0", epoch)))
	}
	must(t, w.db.CreateKey(w.ctx(), s, key("k9", "p1", "b0", epoch)))
	accounts, more, err := w.db.ServiceAccounts(w.ctx(), s, "p0", openai.Page{Limit: 1, Desc: true})
	must(t, err)
	same(t, []any{accounts[0].ID, more}, []any{"a1", true})
	keys, more, err := w.db.ProjectKeys(w.ctx(), s, "p0", openai.Page{Limit: 2, After: "k0"})
	must(t, err)
	same(t, []any{keys[0].Key.ID, keys[1].Key.ID, keys[0].Owner.ID, more}, []any{"k1", "k2", "a0", false})
	_, _, err = w.db.ProjectKeys(w.ctx(), s, "p0", openai.Page{Limit: 2, After: "k9"})
	wantErr(t, err, tenant.ErrNotFound)
}

func testNames(t *testing.T, open Open) {
	w := newWorld(t, open)
	s, _ := w.company("acme")
	long := strings.Repeat("ü", 256)
	for _, name := range []string{"x", long, `'; DROP TABLE project; --`, "%_\\\"", "line\nline", "$1"} {
		got, err := w.db.UpdateProject(w.ctx(), s, firstProject, name, tenant.Limits{})
		must(t, err)
		same(t, got.Name, name)
	}
	before := snapshot(t, w, s)
	for _, name := range []string{"", long + "ü", "a\x00b", "\xff"} {
		f := func(err error) { t.Helper(); wantFault(t, err, fault.Invalid) }
		_, err := w.db.UpdateProject(w.ctx(), s, firstProject, name, tenant.Limits{})
		f(err)
		f(w.db.CreateProject(w.ctx(), s, tenant.Project{ID: "p", Name: name}))
		f(w.db.CreateServiceAccount(w.ctx(), s, tenant.ServiceAccount{ID: "a", ProjectID: firstProject, Name: name}, nil))
		_, err = w.db.UpdateServiceAccount(w.ctx(), s, firstProject, firstAccount, name, "owner")
		f(err)
		_, err = w.db.PutRoute(w.ctx(), s, tenant.Route{Name: name})
		f(err)
		f(w.db.SetModelLimits(w.ctx(), s, firstProject, name, tenant.Limits{}))
		a := w.act("company.create", "")
		f(w.db.CreateCompany(w.ctx(), a, tenant.NewCompany{Scope: w.NewCompany(a, name)}))
		if name == "" {
			continue // a key needs no name
		}
		k := key("k", "", "", epoch)
		k.Name = name
		f(w.db.CreateKey(w.ctx(), s, k))
		keys, _, err := w.db.ProjectKeys(w.ctx(), s, firstProject, all)
		must(t, err)
		_, err = w.db.UpdateKey(w.ctx(), s, tenant.Key{ProjectID: firstProject, ID: keys[0].Key.ID, Name: name})
		f(err)
	}
	same(t, snapshot(t, w, s), before)
}

// testKeyRules: a rotated key keeps its id and all that hangs on it, and both
// values work until the old one's time is over; rules and use are kept.
func testKeyRules(t *testing.T, open Open) {
	w := newWorld(t, open)
	s, values := w.company("acme")
	other, _ := w.company("other")
	k := key("key_r", firstProject, firstAccount, epoch)
	k.Rules.AllowedIPs = []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("2001:db8::/32")}
	must(t, w.db.CreateKey(w.ctx(), s, k))
	loaded, err := w.db.LoadKey(w.ctx(), s.ID(), k.ID)
	must(t, err)
	same(t, loaded.Rules, k.Rules)

	// Rotation, of a project's key and of an admin key.
	next := k
	next.Old, next.Hash, next.Redacted = &tenant.OldValue{Hash: k.Hash, Until: epoch.Add(time.Hour)}, [32]byte{9}, "sk-bh-live-...new1"
	must(t, w.db.RotateKey(w.ctx(), s, next))
	loaded, err = w.db.LoadKey(w.ctx(), s.ID(), k.ID)
	must(t, err)
	same(t, []any{loaded.Hash, *loaded.Old, loaded.Redacted, loaded.Rules}, []any{next.Hash, *next.Old, next.Redacted, k.Rules})
	wantFault(t, w.db.RotateKey(w.ctx(), s, next), fault.Conflict) // the value before is no longer that one
	wantFault(t, w.db.RotateKey(w.ctx(), other, loadedOf(next, loaded)), fault.Conflict)
	admin, err := w.db.AdminKey(w.ctx(), s, s.KeyID())
	must(t, err)
	value, rotated := w.Minter().Rotate(s, admin, time.Now().Add(time.Hour))
	must(t, w.db.RotateKey(w.ctx(), s, rotated))
	for _, v := range []string{values[0], value} {
		now, err := w.Authenticate(w.ctx(), []byte(v))
		must(t, err)
		same(t, now.KeyID(), s.KeyID())
	}
	_, over := w.Minter().Rotate(s, rotated, time.Now().Add(-time.Second))
	must(t, w.db.RotateKey(w.ctx(), s, over))
	for _, v := range []string{values[0], value} {
		_, err = w.Authenticate(w.ctx(), []byte(v))
		wantFault(t, err, fault.Unauthenticated)
	}

	must(t, w.db.CreateKey(w.ctx(), other, key(s.KeyID(), firstProject, firstAccount, epoch))) // ids are a company's own
	// When it was used: never earlier than what is known, and of this company only.
	at := epoch.Add(2 * time.Hour)
	use := func(s tenant.Scope, at time.Time) {
		must(t, w.db.KeysUsed(w.ctx(), s, []tenant.KeyUse{{Scope: s, At: at}}))
	}
	use(s, at)
	use(s, at.Add(-time.Minute))
	admin, err = w.db.AdminKey(w.ctx(), s, s.KeyID())
	must(t, err)
	same(t, admin.LastUsedAt, at)
	foreign, err := w.db.LoadKey(w.ctx(), other.ID(), s.KeyID())
	must(t, err)
	same(t, foreign.LastUsedAt, time.Time{})
}

// testKeysUsedTogether: gateways note at the same time when the same keys were used,
// each in an order of its own, and none breaks another's.
func testKeysUsedTogether(t *testing.T, open Open) {
	w := newWorld(t, open)
	_, values := w.company("acme")
	var keys []tenant.Scope
	for _, v := range values {
		s, err := w.Authenticate(w.ctx(), []byte(v))
		must(t, err)
		keys = append(keys, s)
	}
	at := func(round int) time.Time { return epoch.Add(time.Duration(round) * time.Minute) }
	const rounds = 60
	var gateways sync.WaitGroup
	for g := range 6 {
		gateways.Go(func() {
			for round := range rounds {
				var used []tenant.KeyUse
				for i := range keys {
					used = append(used, tenant.KeyUse{Scope: keys[(i*(1+g%2)+g+round)%len(keys)], At: at(round*6 + g)})
				}
				if err := w.db.KeysUsed(w.ctx(), keys[0], used); err != nil {
					t.Errorf("gateway %d, round %d: %s", g, round, err)
					return
				}
			}
		})
	}
	gateways.Wait()
	for _, s := range keys {
		k, err := w.db.LoadKey(w.ctx(), s.ID(), s.KeyID())
		must(t, err)
		same(t, k.LastUsedAt, at(rounds*6-1))
	}
}

// loadedOf is next rotated once more, from what is stored.
func loadedOf(next tenant.Key, stored *tenant.Key) tenant.Key {
	next.Old = &tenant.OldValue{Hash: stored.Hash}
	return next
}
