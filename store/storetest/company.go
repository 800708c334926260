package storetest

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"bulkhead/audit"
	"bulkhead/fault"
	"bulkhead/ledger"
	"bulkhead/openai"
	"bulkhead/tenant"
)

func testCompany(t *testing.T, open Open) {
	w := newWorld(t, open)
	s, values := w.company("Ünïted & Söns")
	// What was created is what the Directory finds, and each key opens it.
	c := s.Company()
	same(t, []any{c.Name, c.Status, c.Generation > 0, s.KeyID() != ""}, []any{"Ünïted & Söns", "active", true, true})
	live, err := w.Authenticate(w.ctx(), []byte(values[1]))
	must(t, err)
	p := live.Project()
	same(t, []any{p.ID, p.Name, p.CreatedAt, p.Limits}, []any{firstProject, "Ünïted & Söns project", epoch, tenant.Limits{Concurrent: 7}})
	test, err := w.Authenticate(w.ctx(), []byte(values[2]))
	must(t, err)
	same(t, []any{live.Test(), test.Test(), test.Key().ServiceAccountID}, []any{false, true, firstAccount})

	// Archived projects are no part of the policy.
	must(t, w.db.CreateProject(w.ctx(), s, tenant.Project{ID: "proj_old", Name: "old", CreatedAt: epoch}))
	_, err = w.db.ArchiveProject(w.ctx(), s, "proj_old")
	must(t, err)
	if s = w.again(s); len(s.Company().Projects) != 1 {
		t.Errorf("%d projects", len(s.Company().Projects))
	}
	must(t, w.db.PutCredential(w.ctx(), s, sealed("cred_1", "zeta", 1)))
	must(t, w.db.PutCredential(w.ctx(), s, sealed("cred_2", "Alpha", 1)))
	// Providers are those of credentials here and of names of credentials in Vault.
	must(t, w.db.PutCredentialName(w.ctx(), s, sealed("cred_3", "beta", 1)))
	must(t, w.db.PutCredentialName(w.ctx(), s, sealed("cred_4", "zeta", 1)))
	same(t, w.again(s).Company().Providers, []string{"Alpha", "beta", "zeta"})

	// A company that never was.
	a := w.act("look", "org-0123456789")
	_, err = w.Scope(w.ctx(), a, "org-0123456789")
	wantFault(t, err, fault.NotFound)

	// The same id again is refused and changes nothing.
	err = w.db.CreateCompany(w.ctx(), w.act("company.create", ""), tenant.NewCompany{Scope: s})
	wantFault(t, err, fault.Conflict)
	same(t, w.again(s).Company().Name, "Ünïted & Söns")

	// All or nothing: the key has no account.
	a = w.act("company.create", "")
	fresh := w.NewCompany(a, "half")
	err = w.db.CreateCompany(w.ctx(), a, tenant.NewCompany{
		Scope: fresh, Project: tenant.Project{ID: "proj_1", Name: "p"},
		Account: tenant.ServiceAccount{ID: "svc_acct_1", ProjectID: "proj_1", Name: "a"},
		Keys:    []tenant.Key{key("key_1", "proj_1", "svc_acct_other", epoch)},
	})
	wantErr(t, err, tenant.ErrNotFound)
	_, err = w.db.Company(w.ctx(), a, fresh.ID().String())
	wantErr(t, err, tenant.ErrNotFound)
}

func testCompanies(t *testing.T, open Open) {
	w := newWorld(t, open)
	var ids []string
	for i := range 5 {
		s, _ := w.company(fmt.Sprint("company ", i))
		ids = append(ids, s.ID().String())
	}
	names := func(p openai.Page) (out []string, more bool) {
		t.Helper()
		found, more, err := w.db.Companies(w.ctx(), w.act("company.list", ""), p)
		must(t, err)
		for _, c := range found {
			out = append(out, strings.TrimPrefix(c.Name, "company "))
		}
		return out, more
	}
	got, more := names(openai.Page{Limit: 3})
	same(t, []any{got, more}, []any{[]string{"0", "1", "2"}, true})
	got, more = names(openai.Page{Limit: 3, After: ids[2]})
	same(t, []any{got, more}, []any{[]string{"3", "4"}, false})
	got, more = names(openai.Page{Limit: 2, Desc: true, After: ids[4]})
	same(t, []any{got, more}, []any{[]string{"3", "2"}, true})
	_, _, err := w.db.Companies(w.ctx(), w.act("company.list", ""), openai.Page{Limit: 1, After: "org-nobody"})
	wantErr(t, err, tenant.ErrNotFound)

	a := w.act("company.read", ids[1])
	c, err := w.db.Company(w.ctx(), a, ids[1])
	must(t, err)
	same(t, []any{c.ID, c.Name, c.Status}, []any{ids[1], "company 1", "active"})
	for _, id := range []string{"", "org-nobody", "%"} {
		_, err = w.db.Company(w.ctx(), a, id)
		wantErr(t, err, tenant.ErrNotFound)
		_, err = w.db.SetCompanyStatus(w.ctx(), a, id, tenant.Suspended)
		wantErr(t, err, tenant.ErrNotFound)
	}
}

func testErase(t *testing.T, open Open) {
	w := newWorld(t, open)
	s, values := w.company("gone")
	other, _ := w.company("stays")
	furnish(t, w, s, "gone", epoch)
	_, err := w.db.PutDataKey(w.ctx(), s, []byte("wrapped"))
	must(t, err)
	must(t, w.db.DetachFile(w.ctx(), s, "vs_same", "file-two"))
	id := s.ID().String()
	a := w.act("company.erase", id)

	// Only a company that was set to erasing is erased, and then it cannot come back.
	_, err = w.db.EraseCompany(w.ctx(), a, s)
	wantFault(t, err, fault.Conflict)
	c, err := w.db.SetCompanyStatus(w.ctx(), a, id, tenant.Erasing)
	must(t, err)
	same(t, c.Status, tenant.Erasing)
	for _, st := range []tenant.Status{tenant.Active, tenant.Suspended} {
		_, err = w.db.SetCompanyStatus(w.ctx(), a, id, st)
		wantErr(t, err, tenant.ErrNotFound)
	}
	if _, err = w.db.SetCompanyStatus(w.ctx(), a, id, tenant.Erasing); err != nil {
		t.Errorf("cannot begin the erasure again: %s", err)
	}

	scope, err := w.Scope(w.ctx(), a, id)
	must(t, err)
	removed, err := w.db.EraseCompany(w.ctx(), a, scope)
	must(t, err)
	want := map[string]int64{"entry": 21, "idempotency": 3, "response_owner": 2, "rollup": 1, "rollup_day": 3, "alert": 2, "alert_event": 1, "api_key": 6, "person": 2, "invite": 3, "person_group": 1, "group_member": 1, "custom_role": 2, "role_grant": 5, "session": 2, "service_account": 2, "model_limit": 2, "project": 3, "route": 1, "price": 1, "budget": 10,
		"identity_provider": 2, "federation_rule": 4, "credential": 1, "credential_name": 1, "data_key": 1, "lent_grant": 1, "audit_head": 1, "audit_link": removed["audit"],
		"file": 3, "vector_store": 2, "file_batch": 1, "store_file": 1, "chunk": 2, "discard": 1, "keyword_segment": 1, "agent": 2, "agent_version": 3, "context": 1, "conversation": 2, "conversation_item": 5}
	for table, n := range want {
		if removed[table] != n {
			t.Errorf("%d rows of %s removed, want %d", removed[table], table, n)
		}
	}
	if removed["audit"] < 10 || len(removed) != len(want)+1 {
		t.Errorf("removed %v", removed)
	}

	// What is left is a tombstone that opens nothing and is not listed.
	_, err = w.Authenticate(w.ctx(), []byte(values[0]))
	wantFault(t, err, fault.Unauthenticated)
	dead := &tenant.Company{}
	must(t, w.db.LoadCompany(w.ctx(), s.ID(), dead))
	same(t, []any{dead.Status, dead.Name, len(dead.Projects)}, []any{"erased", "", 0})
	_, err = w.db.Company(w.ctx(), a, id)
	wantErr(t, err, tenant.ErrNotFound)
	_, err = w.db.EraseCompany(w.ctx(), a, scope)
	wantErr(t, err, tenant.ErrNotFound)
	_, err = w.db.SetCompanyStatus(w.ctx(), a, id, tenant.Active)
	wantErr(t, err, tenant.ErrNotFound)
	found, _, err := w.db.Companies(w.ctx(), a, all)
	must(t, err)
	if len(found) != 1 || found[0].ID != other.ID().String() {
		t.Errorf("companies %v", found)
	}
}

// testFence checks that a scope from before changes nothing of a company that
// is being erased.
func testFence(t *testing.T, open Open) {
	w := newWorld(t, open)
	s, _ := w.company("fenced")
	furnish(t, w, s, "fenced", epoch)
	id := s.ID().String()
	a := w.act("company.erase", id)
	_, err := w.db.SetCompanyStatus(w.ctx(), a, id, tenant.Erasing)
	must(t, err)
	before := snapshot(t, w, s)
	f := func() {
		t.Helper()
		wantErr(t, w.db.CreateProject(w.ctx(), s, tenant.Project{ID: "proj_late", Name: "late"}), tenant.ErrNotFound)
		wantErr(t, w.db.CreateKey(w.ctx(), s, key("key_late", "", "", epoch)), tenant.ErrNotFound)
		_, err := w.db.PutRoute(w.ctx(), s, tenant.Route{Name: "late"})
		wantErr(t, err, tenant.ErrNotFound)
		if err := w.db.PutCredential(w.ctx(), s, sealed("cred_late", "late", 1)); err == nil {
			t.Error("a credential was stored")
		}
		if _, err := w.db.PutDataKey(w.ctx(), s, []byte("late")); err == nil {
			t.Error("a data key was stored")
		}
	}
	f()
	same(t, snapshot(t, w, s), before)
	// A stream that ends now is still booked.
	must(t, w.db.AppendEntries(w.ctx(), []ledger.Booked{{Scope: s, Entry: entry("att_late", epoch)}}))
	removed, err := w.db.EraseCompany(w.ctx(), a, s)
	must(t, err)
	same(t, removed["entry"], 22)
	f()
	must(t, w.db.AppendEntries(w.ctx(), book(s, append(usual("att_later_", 16, epoch), entry("att_later", epoch))...)))
	entries, _, err := w.db.Entries(w.ctx(), s, all)
	must(t, err)
	same(t, len(entries), 0)
}

func testOperator(t *testing.T, open Open) {
	w := newWorld(t, open)
	has := func(want bool) {
		t.Helper()
		got, err := w.db.HasOperatorKey(w.ctx())
		must(t, err)
		same(t, got, want)
	}
	has(false)
	value, k := w.Minter().MintOperator()
	k.Name, k.CreatedAt = "first", epoch
	must(t, w.db.AddOperatorKey(w.ctx(), k))
	has(true)
	wantFault(t, w.db.AddOperatorKey(w.ctx(), k), fault.Conflict)
	got, err := w.db.LoadOperatorKey(w.ctx(), k.ID)
	must(t, err)
	same(t, got, k)
	_, err = w.db.LoadOperatorKey(w.ctx(), "key_nobody")
	wantErr(t, err, tenant.ErrNotFound)
	op, err := w.AuthenticateOperator(w.ctx(), []byte(value))
	must(t, err)
	a, err := op.Begin(w.ctx(), "company.list", "")
	must(t, err)
	same(t, a.Actor(), "operator:"+k.ID)

	// Suspended, every key is refused at once; resumed, all work again.
	s, values := w.company("paused")
	id := s.ID().String()
	try := func() error { _, err := w.Authenticate(w.ctx(), []byte(values[1])); return err }
	must(t, try())
	_, err = w.db.SetCompanyStatus(w.ctx(), a, id, tenant.Suspended)
	must(t, err)
	wantFault(t, try(), fault.Forbidden)
	_, err = w.db.SetCompanyStatus(w.ctx(), a, id, tenant.Active)
	must(t, err)
	must(t, try())
	events, _, err := w.db.AuditEvents(w.ctx(), s, audit.Filter{}, openai.Page{Limit: 2})
	must(t, err)
	same(t, []any{events[0].Type, events[1].Type, events[0].Actor, events[0].Object},
		[]any{audit.CompanyResumed, audit.CompanySuspended, a.Actor(), id})
	// What is so already leaves no row.
	_, err = w.db.SetCompanyStatus(w.ctx(), a, id, tenant.Active)
	must(t, err)
	again, _, err := w.db.AuditEvents(w.ctx(), s, audit.Filter{}, openai.Page{Limit: 2})
	must(t, err)
	same(t, again, events)
}

func testZeroScope(t *testing.T, open Open) {
	w := newWorld(t, open)
	var s tenant.Scope
	var a tenant.Act
	ctx, db := w.ctx(), w.db
	for name, f := range map[string]func(){
		"Projects":      func() { db.Projects(ctx, s, all, true) },
		"CreateProject": func() { db.CreateProject(ctx, s, tenant.Project{Name: "x"}) },
		"PutRoute":      func() { db.PutRoute(ctx, s, tenant.Route{Name: "x"}) },
		"DataKey":       func() { db.DataKey(ctx, s) },
		"PutDataKey":    func() { db.PutDataKey(ctx, s, nil) },
		"Credentials":   func() { db.Credentials(ctx, s) },
		"AppendEntries": func() { db.AppendEntries(ctx, []ledger.Booked{{}}) },
		"Entries":       func() { db.Entries(ctx, s, all) },
		"AuditEvents":   func() { db.AuditEvents(ctx, s, audit.Filter{}, all) },
		"EraseCompany":  func() { db.EraseCompany(ctx, w.act("company.erase", ""), s) },
		"Companies":     func() { db.Companies(ctx, a, all) },
		"Company":       func() { db.Company(ctx, a, "x") },
		"LoadCompany":   func() { db.LoadCompany(ctx, tenant.ID{}, &tenant.Company{}) },
		"LoadKey":       func() { db.LoadKey(ctx, tenant.ID{}, "x") },
	} {
		func() {
			defer func() {
				if p := fmt.Sprint(recover()); !strings.Contains(p, "BUG: ") {
					t.Errorf("%s without a company: panic %s", name, p)
				}
			}()
			f()
		}()
	}
	// The store works on after a panic in a transaction.
	w.company("after")
}

func testFeed(t *testing.T, open Open) {
	w := newWorld(t, open)
	acme, _ := w.company("acme")
	beta, _ := w.company("beta")
	_, last, err := w.db.Changes(w.ctx(), 0)
	must(t, err)
	w.changed = nil
	must(t, w.db.CreateProject(w.ctx(), beta, tenant.Project{ID: "p1", Name: "p"}))
	must(t, w.db.CreateProject(w.ctx(), acme, tenant.Project{ID: "p1", Name: "p"}))
	must(t, w.db.CreateProject(w.ctx(), beta, tenant.Project{ID: "p2", Name: "p"}))
	ids := []string{beta.ID().String(), acme.ID().String(), beta.ID().String()}
	same(t, w.changed, ids)
	// One row for each company, in the order of the last change.
	got, next, err := w.db.Changes(w.ctx(), last)
	must(t, err)
	same(t, got, ids[1:])
	same(t, []any{next, w.again(beta).Company().Generation, w.again(acme).Company().Generation}, []any{last + 3, last + 3, last + 2})
	// What failed is no change.
	if err := w.db.CreateProject(w.ctx(), beta, tenant.Project{ID: "p2", Name: "p"}); err == nil {
		t.Error("created twice")
	}
	got, next, err = w.db.Changes(w.ctx(), next)
	must(t, err)
	same(t, []any{len(got), next, len(w.changed)}, []any{0, last + 3, 3})
}

func testAudit(t *testing.T, open Open) {
	w := newWorld(t, open)
	s, _ := w.company("watched")
	testChanges(t, w, s)
	events, more, err := w.db.AuditEvents(w.ctx(), s, audit.Filter{}, all)
	must(t, err)
	var got []string
	for _, e := range slices.Backward(events) {
		got = append(got, strings.Join([]string{string(e.Type), e.ProjectID, e.Object}, " "))
		if !strings.HasPrefix(e.ID, "audit_log-") || e.At.IsZero() || time.Since(e.At) > time.Hour {
			t.Errorf("event %v", e)
		}
	}
	same(t, more, false)
	id := s.ID().String()
	want := []string{
		"company.created  " + id, "project.created proj_first proj_first", "service_account.created proj_first svc_acct_first",
		got[3], "api_key.created" + got[4][len("api_key.created"):], "api_key.created" + got[5][len("api_key.created"):],
		"project.created p p", "project.updated p p", "rate_limit.updated p m", "rate_limit.updated p m",
		"model_permissions.updated p p", "model_permissions.deleted p p",
		"service_account.created p a", "api_key.created p k", "service_account.updated p a",
		"api_key.created p k2", "api_key.updated p k2", "api_key.deleted p k2", "api_key.deleted p k", "service_account.deleted p a",
		"api_key.created  k3", "api_key.deleted  k3",
		"route.created  r", "route.updated  r", "route.deleted  r",
		"credential.created  c", "credential.updated  c", "credential.deleted  c",
		"credential.created  n", "credential.updated  n", "credential.deleted  v",
		"project.archived p p",
	}
	same(t, got, want)
	same(t, []any{events[len(events)-1].Actor, events[0].Actor}, []any{"operator:gateway", "key:" + s.KeyID()})
}

// testChanges makes one change of each kind.
func testChanges(t *testing.T, w *world, s tenant.Scope) {
	t.Helper()
	ctx, db := w.ctx(), w.db
	two := func(_ any, err error) { t.Helper(); must(t, err) }
	must(t, db.CreateProject(ctx, s, tenant.Project{ID: "p", Name: "p"}))
	two(db.UpdateProject(ctx, s, "p", "q", tenant.Limits{}))
	must(t, db.SetModelLimits(ctx, s, "p", "m", tenant.Limits{Concurrent: 1}))
	must(t, db.SetModelLimits(ctx, s, "p", "m", tenant.Limits{}))
	must(t, db.SetModelPermission(ctx, s, "p", tenant.ModelPermission{Mode: tenant.AllowList, Models: []string{"m"}}))
	must(t, db.SetModelPermission(ctx, s, "p", tenant.ModelPermission{}))
	k := key("k", "p", "a", epoch)
	must(t, db.CreateServiceAccount(ctx, s, tenant.ServiceAccount{ID: "a", ProjectID: "p", Name: "a"}, &k))
	two(db.UpdateServiceAccount(ctx, s, "p", "a", "b", "owner"))
	must(t, db.CreateKey(ctx, s, key("k2", "p", "a", epoch)))
	two(db.UpdateKey(ctx, s, tenant.Key{ProjectID: "p", ID: "k2", Name: "n"}))
	must(t, db.RevokeKey(ctx, s, "p", "k2"))
	must(t, db.DeleteServiceAccount(ctx, s, "p", "a"))
	must(t, db.CreateKey(ctx, s, key("k3", "", "", epoch)))
	must(t, db.RevokeKey(ctx, s, "", "k3"))
	two(db.PutRoute(ctx, s, tenant.Route{Name: "r"}))
	two(db.PutRoute(ctx, s, tenant.Route{Name: "r"}))
	must(t, db.DeleteRoute(ctx, s, "r"))
	must(t, db.PutCredential(ctx, s, sealed("c", "v", 1)))
	must(t, db.PutCredential(ctx, s, sealed("c", "v", 2)))
	must(t, db.DeleteCredential(ctx, s, "c"))
	must(t, db.PutCredentialName(ctx, s, sealed("n", "v", 1)))
	must(t, db.PutCredentialName(ctx, s, sealed("n", "v", 2)))
	must(t, db.DeleteCredentialName(ctx, s, "v"))
	two(db.ArchiveProject(ctx, s, "p"))
	two(db.ArchiveProject(ctx, s, "p")) // is archived: no second row
}
