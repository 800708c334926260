package storetest

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"bulkhead/audit"
	"bulkhead/keystore"
	"bulkhead/ledger"
	"bulkhead/limiter"
	"bulkhead/memory"
	"bulkhead/openai"
	"bulkhead/rag"
	"bulkhead/tenant"
)

// Isolation checks that two companies with objects of the same ids and names
// neither see nor change one another's. It is exported because it must fail
// when any statement loses its company predicate, which another test shows.
func Isolation(t *testing.T, open Open) {
	w := newWorld(t, open)
	acme, _ := w.company("acme")
	beta, _ := w.company("beta")
	testSeparateDataKeys(t, w, acme, beta)
	furnish(t, w, acme, "acme", epoch)
	furnish(t, w, beta, "beta", epoch.Add(time.Hour))
	must(t, w.db.CreateProject(w.ctx(), beta, tenant.Project{ID: "proj_beta", Name: "beta only", CreatedAt: epoch}))
	must(t, w.db.PutCredential(w.ctx(), beta, sealed("cred_beta", "beta-only", 1)))
	_, _, err := w.db.PutBudget(w.ctx(), beta, budget("budget_beta", tenant.OfProject, "proj_beta", tenant.Day))
	must(t, err)
	onlyBeta(t, w, beta)
	must(t, w.db.CreateAgent(w.ctx(), beta, agent("agent_beta", "beta-only", "", "beta only", epoch), 10))
	must(t, w.db.CreateConversation(w.ctx(), beta, conversation(beta, "conv_beta", "beta only", epoch), []memory.Item{itemSaying("msg_of_beta", "beta", true)}, said))
	must(t, w.db.CreateContext(w.ctx(), beta, contextOf("context_beta", "rules", "beta only", epoch)))
	must(t, w.db.CreateVectorStore(w.ctx(), beta, rag.Store{ID: "vs_of_beta", Name: "beta only", CreatedAt: epoch},
		[]rag.StoreFile{{StoreID: "vs_of_beta", FileID: "file-two", CreatedAt: epoch}}, quota))
	must(t, w.db.CreateIdentityProvider(w.ctx(), beta, issuer("wip_beta", "https://beta-only.example", epoch)))
	// A project that only one of them has ended.
	_, err = w.db.ArchiveProject(w.ctx(), acme, "proj_ended")
	must(t, err)

	for _, part := range []func(){
		func() { testSeparateViews(t, w, acme, beta) },
		func() { testSeparateKeys(t, w, acme, beta) },
		func() { testForeignIDs(t, w, acme, beta) },
		func() { testSeparateAccountKeys(t, w, acme, beta) },
		func() { testSeparateInvites(t, w, acme, beta) },
		func() { testSeparateChains(t, w, acme, beta) },
		func() { testSeparateChanges(t, w, acme, beta) },
		func() { testSeparateViews(t, w, acme, beta) },
		func() { testSeparateMoney(t, w) },
		func() { testSeparateKnowledge(t, w, acme, beta) },
		func() { testSeparateLent(t, w, acme, beta) },
		func() { testSeparateCounts(t, w) },
		func() { testSeparateSweeps(t, w) },
		func() { testSeparateStatus(t, w, acme, beta) },
	} {
		if part(); t.Failed() {
			return // hundreds of runs are to fail, and one finding is enough for each
		}
	}
}

func testSeparateViews(t *testing.T, w *world, acme, beta tenant.Scope) {
	t.Helper()
	for _, c := range []struct {
		scope      tenant.Scope
		own, other string
	}{{acme, "acme", "beta"}, {beta, "beta", "acme"}} {
		seen := snapshot(t, w, c.scope)
		if !strings.Contains(seen, c.own) || strings.Contains(seen, c.other) {
			t.Fatalf("%s sees %s", c.own, seen)
		}
	}
}

// testSeparateKeys rotates and uses a key of acme where beta has one of the same id
// and hash.
func testSeparateKeys(t *testing.T, w *world, acme, beta tenant.Scope) {
	t.Helper()
	twin := key(acme.KeyID(), "proj_same", "svc_acct_same", epoch)
	must(t, w.db.CreateKey(w.ctx(), beta, twin))
	must(t, w.db.KeysUsed(w.ctx(), acme, []tenant.KeyUse{{Scope: acme, At: epoch.Add(time.Hour)}}))
	k, err := w.db.LoadKey(w.ctx(), acme.ID(), "key_same")
	must(t, err)
	next := *k
	next.Hash, next.Old = [32]byte{7}, &tenant.OldValue{Hash: k.Hash, Until: epoch.Add(time.Hour)}
	must(t, w.db.RotateKey(w.ctx(), acme, next))
	for id, want := range map[string]tenant.Key{twin.ID: twin, k.ID: *k} {
		got, err := w.db.LoadKey(w.ctx(), beta.ID(), id)
		must(t, err)
		if got.Hash != want.Hash || !got.LastUsedAt.IsZero() || got.Old != nil {
			t.Errorf("beta's key %s is %+v", id, got)
		}
	}
}

func testSeparateDataKeys(t *testing.T, w *world, acme, beta tenant.Scope) {
	t.Helper()
	_, err := w.db.PutDataKey(w.ctx(), acme, []byte("key of acme"))
	must(t, err)
	if _, err := w.db.DataKey(w.ctx(), beta); err == nil {
		t.Error("beta has a data key, which acme has made")
	}
	got, err := w.db.PutDataKey(w.ctx(), beta, []byte("key of beta"))
	must(t, err)
	same(t, string(got), "key of beta")
}

// furnish gives a company one of everything, with ids that are the same in each
// and texts that name the company.
func furnish(t *testing.T, w *world, s tenant.Scope, name string, at time.Time) {
	t.Helper()
	ctx, db := w.ctx(), w.db
	must(t, db.CreateProject(ctx, s, tenant.Project{ID: "proj_ended", Name: name + " ended", CreatedAt: at}))
	must(t, db.CreateProject(ctx, s, tenant.Project{ID: "proj_same", Name: name + " same", CreatedAt: at}))
	first := key("key_same", "proj_same", "svc_acct_same", at)
	first.Name = name + " key"
	a := tenant.ServiceAccount{ID: "svc_acct_same", ProjectID: "proj_same", Name: name + " account", Role: "member", CreatedAt: at}
	must(t, db.CreateServiceAccount(ctx, s, a, &first))
	admin := key("key_admin_same", "", "", at)
	admin.Name = name + " admin key"
	must(t, db.CreateKey(ctx, s, admin))
	must(t, db.SetModelLimits(ctx, s, "proj_same", name+"-model", tenant.Limits{Concurrent: 3}))
	must(t, db.SetModelLimits(ctx, s, "proj_same", "same-model", tenant.Limits{Concurrent: 4}))
	must(t, db.SetModelPermission(ctx, s, "proj_same", tenant.ModelPermission{Mode: tenant.DenyList, Models: []string{name + "-denied"}}))
	_, err := db.PutRoute(ctx, s, tenant.Route{Name: "same", Targets: []tenant.RouteTarget{{Model: name + "/model"}}, CreatedAt: at})
	must(t, err)
	must(t, db.PutCredential(ctx, s, sealed("cred_same", "same", 1)))
	named := sealed("cred_named", "same", 1)
	named.Redacted = name
	must(t, db.PutCredentialName(ctx, s, named))
	e := entry("att_same", at)
	e.RequestID, e.Rank = name+" request", ledger.Estimate
	then := e
	then.ID = "att_then"
	common := ledger.Entry{ID: "att_usual", RequestID: name + " usual", Rank: ledger.Estimate, First: true, StartedAt: at, EndedAt: at}
	spent := attempt(spentAt, int64(len(name))*1000)
	spent.ID, spent.AgentID, spent.UserID, spent.Lent = ledger.AttemptIDAt(spentAt), "agent_same", "user_same", true
	spent.ProjectID, spent.KeyID = "proj_same", "key_same"
	must(t, db.AppendEntries(ctx, book(s, e, then, common, spent)))
	several := usual("att_several_", 16, at)
	for i := range several {
		several[i].RequestID, several[i].Rank = name+" several", ledger.Estimate
	}
	must(t, db.AppendEntries(ctx, book(s, several...)))
	for kind, of := range budgetOwners {
		b := budget("budget_"+kind, kind, of, tenant.Day)
		b.Limit = int64(len(name))
		b.Soft = name == "acme"
		put, created, err := db.PutBudget(ctx, s, b)
		if err != nil || !created || put.Soft != b.Soft {
			t.Fatalf("budget of %s: created %t, %+v, %v", name, created, put, err)
		}
	}
	// As many as one owner may have: none of them counts for the other company.
	for i, period := range []tenant.Period{tenant.Week, tenant.Month, tenant.Total} {
		for j, unit := range []tenant.Unit{tenant.USD, tenant.Tokens}[:min(2, 3-i)] {
			b := budget(fmt.Sprint("budget_full_", i, j), tenant.OfCompany, "", period)
			b.Unit = unit
			if _, _, err := db.PutBudget(ctx, s, b); err != nil {
				t.Fatal(err)
			}
		}
	}
	must(t, db.SetCalendar(ctx, s, &tenant.Calendar{ChangedAt: at.Add(time.Duration(len(name)) * time.Hour)}))
	furnishIdentity(t, w, s, name, at)
	furnishMoney(t, w, s, name)
	furnishPeople(t, w, s, name, at)
	furnishKnowledge(t, w, s, name, at)
	furnishAgents(t, w, s, name, at)
	furnishConversations(t, w, s, name, at)
	must(t, db.PutLentCredential(ctx, w.act("credential.put", ""), lent("cred_lent_"+name, "lent-"+name, 1)))
	must(t, db.LendTo(ctx, w.act("company.lent.put", s.ID().String()), s, []string{"lent-" + name}))
}

var (
	spentAt      = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	budgetOwners = map[string]string{tenant.OfCompany: "", tenant.OfProject: "proj_same", tenant.OfKey: "key_same",
		tenant.OfAgent: "agent_same", tenant.OfUser: "user_same"}
)

func sealed(id, provider string, version int64) keystore.Sealed {
	return keystore.Sealed{ID: id, Provider: provider, Version: version, Redacted: "...wxyz", BaseURL: "https://models.example",
		Blob: fmt.Appendf(nil, "sealed %s %d", id, version), CreatedAt: epoch, UpdatedAt: epoch.Add(time.Duration(version) * time.Minute)}
}

// snapshot is all that a company can read of itself, by every read there is.
func snapshot(t *testing.T, w *world, s tenant.Scope) string {
	t.Helper()
	ctx, db := w.ctx(), w.db
	var b strings.Builder
	see := func(what string, v any, err error) {
		t.Helper()
		if err != nil && err != keystore.ErrNotFound && err != tenant.ErrNotFound {
			t.Errorf("cannot read %s: %s", what, err)
		}
		fmt.Fprintf(&b, "%s %s %v\n", what, text(v), err)
	}
	c := tenant.Company{}
	see("company", &c, db.LoadCompany(ctx, s.ID(), &c))
	page := all
	for _, page.Desc = range []bool{false, true} {
		for _, cursor := range []string{"", "proj_same"} {
			page.After = cursor
			projects, _, err := db.Projects(ctx, s, page, true)
			see("projects", projects, err)
		}
		page.After = ""
		accounts, _, err := db.ServiceAccounts(ctx, s, "proj_same", page)
		see("accounts", accounts, err)
		keys, _, err := db.ProjectKeys(ctx, s, "proj_same", page)
		see("keys", keys, err)
		admin, _, err := db.AdminKeys(ctx, s, page)
		see("admin keys", admin, err)
	}
	// The lists from a cursor on, so that it must be found within the company.
	page = all
	page.After = "svc_acct_same"
	accounts, _, err := db.ServiceAccounts(ctx, s, "proj_same", page)
	see("accounts", accounts, err)
	page.After = "key_same"
	keys, _, err := db.ProjectKeys(ctx, s, "proj_same", page)
	see("keys", keys, err)
	page.After = "key_admin_same"
	admin, _, err := db.AdminKeys(ctx, s, page)
	see("admin keys", admin, err)
	for _, page.After = range []string{"", "att_same"} {
		entries, _, err := db.Entries(ctx, s, page)
		see("entries", entries, err)
	}
	spans := []limiter.Span{{Kind: tenant.OfCeiling}}
	for _, kind := range slices.Sorted(maps.Keys(budgetOwners)) {
		spans = append(spans, limiter.Span{Kind: kind, Of: budgetOwners[kind]})
	}
	for _, except := range [][]string{nil, {ledger.AttemptIDAt(spentAt)}} {
		used, err := db.Spent(ctx, s, spans, spentAt.Add(time.Hour), except)
		see("spent", used, err)
	}
	has, err := db.Has(ctx, s, []string{ledger.AttemptIDAt(spentAt), "att_same", "att_a", "att_b"})
	see("has", has, err)
	before := all
	before.Before = "att_same"
	entries, _, err := db.Entries(ctx, s, before)
	see("entries", entries, err)
	events, _, err := db.AuditEvents(ctx, s, audit.Filter{}, all)
	see("audit", events, err)
	if len(events) > 0 {
		before.Before = events[len(events)-1].ID
		events, _, err = db.AuditEvents(ctx, s, audit.Filter{}, before)
		see("audit", events, err)
	}
	chain, err := db.VerifyAudit(ctx, s, nil)
	see("chain", chain, err)
	same(t, chain.Findings, []audit.Finding{})

	project, err := db.Project(ctx, s, "proj_same")
	see("project", project, err)
	account, err := db.ServiceAccount(ctx, s, "proj_same", "svc_acct_same")
	see("account", account, err)
	owned, err := db.ProjectKey(ctx, s, "proj_same", "key_same")
	see("key", owned, err)
	adminKey, err := db.AdminKey(ctx, s, "key_admin_same")
	see("admin key", adminKey, err)
	loaded, err := db.LoadKey(ctx, s.ID(), "key_same")
	see("loaded key", loaded, err)
	credentials, err := db.Credentials(ctx, s)
	see("credentials", credentials, err)
	credential, err := db.Credential(ctx, s, "same")
	see("credential", credential, err)
	names, err := db.CredentialNames(ctx, s)
	see("credential names", names, err)
	dataKey, err := db.DataKey(ctx, s)
	see("data key", string(dataKey), err)
	seeIdentity(w, s, see)
	seeMoney(w, s, see)
	seePeople(w, s, see)
	seeAgents(w, s, see)
	seeConversations(w, s, see)
	seeKnowledge(t, w, s, see)
	return b.String()
}

// testSeparateChanges makes every change there is in acme. beta must not see one.
func testSeparateChanges(t *testing.T, w *world, acme, beta tenant.Scope) {
	t.Helper()
	ctx, db := w.ctx(), w.db
	before := snapshot(t, w, beta)
	f := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Errorf("%s: %s", what, err)
		}
		if after := snapshot(t, w, beta); after != before {
			t.Fatalf("%s in acme changed beta:\n%s\n%s", what, before, after)
		}
	}
	changePeople(t, w, acme)
	f("changing people", nil)
	_, err := db.UpdateProject(ctx, acme, "proj_same", "acme renamed", tenant.Limits{TokensPerMinute: 9})
	f("UpdateProject", err)
	f("SetModelLimits", db.SetModelLimits(ctx, acme, "proj_same", "same-model", tenant.Limits{Concurrent: 5}))
	f("SetModelLimits to none", db.SetModelLimits(ctx, acme, "proj_same", "same-model", tenant.Limits{}))
	f("SetModelPermission", db.SetModelPermission(ctx, acme, "proj_same", tenant.ModelPermission{}))
	_, err = db.UpdateServiceAccount(ctx, acme, "proj_same", "svc_acct_same", "acme renamed", "owner")
	f("UpdateServiceAccount", err)
	_, err = db.UpdateKey(ctx, acme, tenant.Key{ProjectID: "proj_same", ID: "key_same", Name: "acme renamed", Limits: tenant.Limits{Concurrent: 2}})
	f("UpdateKey", err)
	for kind, of := range budgetOwners {
		b := budget("budget_new", kind, of, tenant.Day)
		_, _, err := db.PutBudget(ctx, acme, b)
		f("PutBudget", err)
		f("DeleteBudget", db.DeleteBudget(ctx, acme, "budget_"+kind))
	}
	_, _, err = db.PutBudget(ctx, acme, budget("budget_new", tenant.OfCompany, "", tenant.Week))
	f("PutBudget of a new one", err)
	f("SetCalendar", db.SetCalendar(ctx, acme, &tenant.Calendar{ChangedAt: spentAt}))
	f("SetDegraded", db.SetDegraded(ctx, acme, tenant.Allowance{Nano: 1, Requests: 2}))
	_, err = db.PutRoute(ctx, acme, tenant.Route{Name: "same", Targets: []tenant.RouteTarget{{Model: "acme/other"}}})
	f("PutRoute", err)
	f("DeleteRoute", db.DeleteRoute(ctx, acme, "same"))
	f("PutCredential", db.PutCredential(ctx, acme, sealed("cred_same", "same", 2)))
	f("DeleteCredential", db.DeleteCredential(ctx, acme, "cred_same"))
	f("PutCredentialName", db.PutCredentialName(ctx, acme, sealed("cred_named", "same", 2)))
	f("DeleteCredentialName", db.DeleteCredentialName(ctx, acme, "same"))
	f("PutPrice", db.PutPrice(ctx, acme, price("same", "model", "changed")))
	f("PutPrice of a new one", db.PutPrice(ctx, acme, price("same", "new", "acme")))
	f("DeletePrice", db.DeletePrice(ctx, acme, "same", "model"))
	f("EndKept", db.EndKept(ctx, acme, ended("claim_begun", tenant.Kept, "acme")))
	f("EndKept to free", db.EndKept(ctx, acme, ended("claim_free", tenant.Begun, "")))
	_, _, err = db.BeginKept(ctx, acme, kept("claim_new", "acme"))
	f("BeginKept", err)
	f("PutResponse", db.PutResponse(ctx, acme, response("resp_same", "acme", 7)))
	f("PutResponse of a new one", db.PutResponse(ctx, acme, response("resp_new", "acme", 7)))
	f("DeleteResponse", db.DeleteResponse(ctx, acme, "resp_gone"))
	e := entry("att_same", epoch)
	e.RequestID = "acme request"
	f("AppendEntries", db.AppendEntries(ctx, []ledger.Booked{{Scope: acme, Entry: e}}))
	e.ID = "att_new"
	f("AppendEntries of a new one", db.AppendEntries(ctx, []ledger.Booked{{Scope: acme, Entry: e}}))
	testSeparateAgents(t, w, acme, f)
	testSeparateConversations(t, w, acme, f)
	changeIdentity(w, acme, f)
	f("AppendEntries of several", db.AppendEntries(ctx, book(acme, usual("att_several_", 16, epoch)...)))
	f("AppendEntries of several new ones", db.AppendEntries(ctx, book(acme, usual("att_new_", 16, epoch)...)))
	f("RevokeKey", db.RevokeKey(ctx, acme, "proj_same", "key_same"))
	f("RevokeKey of an admin key", db.RevokeKey(ctx, acme, "", "key_admin_same"))
	f("CreateKey", db.CreateKey(ctx, acme, key("key_owned", "proj_same", "svc_acct_same", epoch)))
	f("DeleteServiceAccount", db.DeleteServiceAccount(ctx, acme, "proj_same", "svc_acct_same"))
	_, err = db.ArchiveProject(ctx, acme, "proj_same")
	f("ArchiveProject", err)
}

// testForeignIDs asks acme for what only beta has, which must look like what
// nobody has.
func testForeignIDs(t *testing.T, w *world, acme, beta tenant.Scope) {
	t.Helper()
	ctx, db := w.ctx(), w.db
	f := func(what string, err error, more ...error) {
		t.Helper()
		for _, err := range append(more, err) {
			if err != tenant.ErrNotFound && err != keystore.ErrNotFound {
				t.Errorf("%s: error %v, want not found", what, err)
			}
		}
	}
	foreignKnowledge(t, w, acme, beta, f)
	before := snapshot(t, w, beta)
	for _, id := range []string{"proj_beta", "proj_nobody", "proj_ended", "", "proj_same\x00", "proj_%", "PROJ_SAME"} {
		_, err := db.UpdateProject(ctx, acme, id, "x", tenant.Limits{})
		f("UpdateProject "+id, err)
		f("SetModelLimits "+id, db.SetModelLimits(ctx, acme, id, "m", tenant.Limits{Concurrent: 1}))
		f("SetModelPermission "+id, db.SetModelPermission(ctx, acme, id, tenant.ModelPermission{}))
		f("CreateServiceAccount "+id, db.CreateServiceAccount(ctx, acme,
			tenant.ServiceAccount{ID: "svc_acct_x", ProjectID: id, Name: "x", CreatedAt: epoch}, nil))
		_, err = db.UpdateServiceAccount(ctx, acme, id, "svc_acct_same", "x", "owner")
		f("UpdateServiceAccount "+id, err)
		f("DeleteServiceAccount "+id, db.DeleteServiceAccount(ctx, acme, id, "svc_acct_same"))
		_, err = db.UpdateKey(ctx, acme, tenant.Key{ProjectID: id, ID: "key_same", Name: "x"})
		f("UpdateKey "+id, err)
		f("RevokeKey "+id, db.RevokeKey(ctx, acme, id, "key_same"))
		_, err = db.ServiceAccount(ctx, acme, id, "svc_acct_same")
		f("ServiceAccount "+id, err)
		_, err = db.ProjectKey(ctx, acme, id, "key_same")
		f("ProjectKey "+id, err)
		if id == "proj_ended" {
			continue // acme has it, to look at
		}
		_, err = db.Project(ctx, acme, id)
		f("Project "+id, err)
		_, err = db.ArchiveProject(ctx, acme, id)
		f("ArchiveProject "+id, err)
		_, _, err = db.ServiceAccounts(ctx, acme, id, all)
		f("ServiceAccounts "+id, err)
		_, _, err = db.ProjectKeys(ctx, acme, id, all)
		f("ProjectKeys "+id, err)
		if id != "" {
			page := all
			page.After = id
			_, _, err = db.Projects(ctx, acme, page, true)
			f("Projects after "+id, err)
		}
	}
	_, err := db.Credential(ctx, acme, "beta-only")
	f("Credential", err, db.DeleteCredential(ctx, acme, "cred_beta"), db.DeleteRoute(ctx, acme, "beta-only"))
	_, err = db.LoadKey(ctx, acme.ID(), beta.KeyID())
	f("LoadKey", err, db.RevokeKey(ctx, acme, "", beta.KeyID()))
	_, err = db.AdminKey(ctx, acme, beta.KeyID())
	f("AdminKey", err)
	events, _, err := db.AuditEvents(ctx, beta, audit.Filter{}, all)
	must(t, err)
	_, _, err = db.AuditEvents(ctx, acme, audit.Filter{}, openai.Page{After: events[0].ID})
	f("AuditEvents", err)
	f("DeleteBudget", db.DeleteBudget(ctx, acme, "budget_beta"))
	f("DeletePrice", db.DeletePrice(ctx, acme, "beta", "model"))
	foreignPeople(w, acme, f)
	testForeignAgents(w, acme, f)
	testForeignConversations(w, acme, f)
	foreignIdentity(t, w, acme, f)
	if after := snapshot(t, w, beta); after != before {
		t.Errorf("acme changed beta:\n%s\n%s", before, after)
	}
	if t.Failed() {
		t.FailNow()
	}
}

// testSeparateAccountKeys revokes the keys of an account whose id both have.
func testSeparateAccountKeys(t *testing.T, w *world, acme, beta tenant.Scope) {
	t.Helper()
	for _, s := range []tenant.Scope{acme, beta} {
		a := tenant.ServiceAccount{ID: "svc_acct_two", ProjectID: "proj_same", Name: "two", CreatedAt: epoch}
		k := key("key_two", "proj_same", "svc_acct_two", epoch)
		must(t, w.db.CreateServiceAccount(w.ctx(), s, a, &k))
		f := rule("rule_two", "wip_same", epoch)
		f.ServiceAccountID = "svc_acct_two"
		must(t, w.db.CreateFederationRule(w.ctx(), s, f))
	}
	must(t, w.db.DeleteServiceAccount(w.ctx(), acme, "proj_same", "svc_acct_two"))
	_, err := w.db.LoadKey(w.ctx(), acme.ID(), "key_two")
	wantErr(t, err, tenant.ErrNotFound)
	_, err = w.db.LoadKey(w.ctx(), beta.ID(), "key_two")
	must(t, err)
	_, err = w.db.FederationRule(w.ctx(), acme, "wip_same", "rule_two")
	wantErr(t, err, tenant.ErrNotFound)
	_, err = w.db.FederationRule(w.ctx(), beta, "wip_same", "rule_two")
	must(t, err)
}

// testSeparateStatus suspends and erases acme beside beta.
func testSeparateStatus(t *testing.T, w *world, acme, beta tenant.Scope) {
	t.Helper()
	before := snapshot(t, w, beta)
	id := acme.ID().String()
	for _, st := range []tenant.Status{tenant.Suspended, tenant.Active, tenant.Erasing} {
		_, err := w.db.SetCompanyStatus(w.ctx(), w.act("company.status", id), id, st)
		must(t, err)
		same(t, w.again(acme).Company().Status, st)
		same(t, w.again(beta).Company().Status, tenant.Active)
	}
	a := w.act("company.erase", id)
	scope, err := w.Scope(w.ctx(), a, id)
	must(t, err)
	_, err = w.db.EraseCompany(w.ctx(), a, scope)
	must(t, err)
	if after := snapshot(t, w, beta); after != before {
		t.Errorf("erasing acme changed beta:\n%s\n%s", before, after)
	}
}
