package storetest

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"bulkhead/audit"
	"bulkhead/fault"
	"bulkhead/openai"
	"bulkhead/tenant"
)

func issuer(id, of string, at time.Time) tenant.IdentityProvider {
	return tenant.IdentityProvider{ID: id, Name: "name of " + id, Issuer: of, Audience: "bulkhead:x", Enabled: true,
		JWKS: `{"keys":[]}`, Attributes: []tenant.Attribute{{Name: "ns", Expression: `assertion["k8s"].ns`}}, CreatedAt: at, UpdatedAt: at}
}

func rule(id, provider string, at time.Time) tenant.FederationRule {
	return tenant.FederationRule{ID: id, ProviderID: provider, Name: "name of " + id,
		Matchers:  map[string]any{"sub": "somebody", "n": json.Number("9007199254740993"), "ok": true},
		ProjectID: "proj_same", ServiceAccountID: "svc_acct_same", Enabled: true, CreatedAt: at, UpdatedAt: at}
}

// furnishIdentity gives a company providers and rules with the ids of others'.
func furnishIdentity(t *testing.T, w *world, s tenant.Scope, name string, at time.Time) {
	t.Helper()
	for _, id := range []string{"wip_same", "wip_more"} {
		p := issuer(id, "https://issuer.example/"+id, at)
		p.Name = name + " provider"
		must(t, w.db.CreateIdentityProvider(w.ctx(), s, p))
		for _, r := range []string{"rule_same_", "rule_more_"} {
			f := rule(r+id, id, at)
			f.Name = name + " rule"
			must(t, w.db.CreateFederationRule(w.ctx(), s, f))
		}
	}
	must(t, w.db.ApproveAudience(w.ctx(), w.act("audience", s.ID().String()), s, tenant.ApprovedAudience{ID: "aud_" + name, Audience: "https://" + name, CreatedAt: at}))
}

func seeIdentity(w *world, s tenant.Scope, see func(string, any, error)) {
	ctx, db := w.ctx(), w.db
	for _, p := range []openai.Page{all, {Limit: 10, Desc: true}, {Limit: 10, After: "wip_more"}} {
		providers, _, err := db.IdentityProviders(ctx, s, p)
		see("identity providers", providers, err)
	}
	for _, p := range []openai.Page{all, {Limit: 10, Desc: true}, {Limit: 10, After: "rule_more_wip_same"}} {
		rules, _, err := db.FederationRules(ctx, s, "wip_same", "", p)
		see("federation rules", rules, err)
	}
	one, err := db.IdentityProvider(ctx, s, "wip_same")
	see("identity provider", one, err)
	f, err := db.FederationRule(ctx, s, "wip_same", "rule_same_wip_same")
	see("federation rule", f, err)
	audiences, _, err := db.Audiences(ctx, w.act("look", s.ID().String()), s, all)
	see("audiences", audiences, err)
}

// changeIdentity makes every change there is of providers and rules.
func changeIdentity(w *world, s tenant.Scope, f func(string, error)) {
	ctx, db := w.ctx(), w.db
	p := issuer("wip_same", "https://other.example", epoch)
	p.Name = "acme changed"
	_, err := db.UpdateIdentityProvider(ctx, s, p)
	f("UpdateIdentityProvider", err)
	r := rule("rule_same_wip_same", "wip_same", epoch)
	r.Name, r.Enabled = "acme changed", false
	_, err = db.UpdateFederationRule(ctx, s, r)
	f("UpdateFederationRule", err)
	f("DeleteFederationRule", db.DeleteFederationRule(ctx, s, "wip_same", "rule_same_wip_same"))
	f("DeleteIdentityProvider", db.DeleteIdentityProvider(ctx, s, "wip_more"))
	f("CreateIdentityProvider", db.CreateIdentityProvider(ctx, s, issuer("wip_new", "https://new.example", epoch)))
	f("RevokeAudience", db.RevokeAudience(ctx, w.act("audience", s.ID().String()), s, "aud_acme"))
}

func foreignIdentity(t *testing.T, w *world, s tenant.Scope, f func(string, error, ...error)) {
	t.Helper()
	ctx, db := w.ctx(), w.db
	_, err := db.IdentityProvider(ctx, s, "wip_beta")
	f("IdentityProvider", err, db.DeleteIdentityProvider(ctx, s, "wip_beta"))
	_, err = db.UpdateIdentityProvider(ctx, s, issuer("wip_beta", "https://x.example", epoch))
	f("UpdateIdentityProvider", err)
	_, _, err = db.IdentityProviders(ctx, s, openai.Page{Limit: 1, After: "wip_beta"})
	f("IdentityProviders", err)
	_, _, err = db.FederationRules(ctx, s, "wip_beta", "", all)
	f("FederationRules", err, db.CreateFederationRule(ctx, s, rule("rule_x", "wip_beta", epoch)))
	// A rule of the company's own other provider is not this one's.
	_, err = db.FederationRule(ctx, s, "wip_same", "rule_same_wip_more")
	f("FederationRule", err, db.DeleteFederationRule(ctx, s, "wip_same", "rule_same_wip_more"))
	_, err = db.UpdateFederationRule(ctx, s, rule("rule_same_wip_more", "wip_same", epoch))
	f("UpdateFederationRule", err)
	_, _, err = db.FederationRules(ctx, s, "wip_same", "", openai.Page{Limit: 1, After: "rule_same_wip_more"})
	f("FederationRules after another's", err)
	bad := rule("rule_x", "wip_same", epoch)
	bad.ProjectID = "proj_beta"
	f("CreateFederationRule in a foreign project", db.CreateFederationRule(ctx, s, bad))
	bad = rule("rule_x", "wip_same", epoch)
	bad.ServiceAccountID = "svc_acct_first"
	f("CreateFederationRule with another project's account", db.CreateFederationRule(ctx, s, bad))
	f("RevokeAudience", db.RevokeAudience(ctx, w.act("audience", s.ID().String()), s, "aud_beta"))
}

// testSeparateCounts: one company that has as much as it may keeps no other from
// having its first.
func testSeparateCounts(t *testing.T, w *world) {
	t.Helper()
	full, _ := w.company("full")
	fresh, _ := w.company("fresh")
	make := func(s tenant.Scope, n int) {
		t.Helper()
		p := issuer(fmt.Sprint("wip_count_", n), fmt.Sprint("https://issuer.example/", n), epoch)
		must(t, w.db.CreateIdentityProvider(w.ctx(), s, p))
		f := rule(fmt.Sprint("rule_count_", n), "wip_count_0", epoch)
		f.ProjectID, f.ServiceAccountID = firstProject, firstAccount
		must(t, w.db.CreateFederationRule(w.ctx(), s, f))
	}
	for n := range 50 {
		make(full, n)
	}
	make(fresh, 0)
}

func testIdentity(t *testing.T, open Open) {
	w := newWorld(t, open)
	s, _ := w.company("acme")
	if s.Company().Identity != nil {
		t.Error("a new company trusts somebody")
	}
	p := issuer("wip_1", "https://issuer.example", epoch)
	p.Description, p.DiscoveryURL = "what it is", "https://keys.example"
	must(t, w.db.CreateIdentityProvider(w.ctx(), s, p))
	got, err := w.db.IdentityProvider(w.ctx(), s, "wip_1")
	must(t, err)
	same(t, got, p)
	again := p
	again.ID = "wip_2"
	wantFault(t, w.db.CreateIdentityProvider(w.ctx(), s, again), fault.Conflict)
	again.Audience = "bulkhead:y" // the same issuer for another audience
	must(t, w.db.CreateIdentityProvider(w.ctx(), s, again))
	again.Audience = p.Audience
	_, err = w.db.UpdateIdentityProvider(w.ctx(), s, again)
	wantFault(t, err, fault.Conflict)

	f := rule("rule_1", "wip_1", epoch)
	f.ProjectID, f.ServiceAccountID, f.Scopes = firstProject, firstAccount, []string{"api.model.request"}
	must(t, w.db.CreateFederationRule(w.ctx(), s, f))
	gotRule, err := w.db.FederationRule(w.ctx(), s, "wip_1", "rule_1")
	must(t, err)
	same(t, gotRule, f)
	if n, ok := gotRule.Matchers["n"].(json.Number); !ok || n != "9007199254740993" {
		t.Errorf("a number is read as %T %v", gotRule.Matchers["n"], n)
	}
	// What the Directory sees, and that each change is seen at once and has a time of its own.
	before := w.again(s).Company()
	same(t, before.Identity.Providers[0].Rules, []tenant.FederationRule{f})
	f.Enabled, f.Scopes = false, nil
	for range 3 {
		last := gotRule.UpdatedAt
		gotRule, err = w.db.UpdateFederationRule(w.ctx(), s, f)
		must(t, err)
		if !gotRule.UpdatedAt.After(last) {
			t.Errorf("updated at %s, and then at %s", last, gotRule.UpdatedAt)
		}
	}
	same(t, []any{gotRule.Enabled, gotRule.Scopes == nil, gotRule.CreatedAt}, []any{false, true, epoch})
	now := w.again(s).Company()
	same(t, now.Identity.Providers[0].Rules[0].Enabled, false)
	if now.Generation <= before.Generation {
		t.Error("the change of a rule is not in the feed")
	}

	// Lists: by provider, by account.
	other := rule("rule_2", "wip_1", epoch.Add(time.Second))
	other.ProjectID, other.ServiceAccountID = firstProject, "svc_acct_2"
	must(t, w.db.CreateServiceAccount(w.ctx(), s, tenant.ServiceAccount{ID: "svc_acct_2", ProjectID: firstProject, Name: "two", CreatedAt: epoch}, nil))
	must(t, w.db.CreateFederationRule(w.ctx(), s, other))
	ids := func(provider, account string, page openai.Page) (out []string) {
		t.Helper()
		rules, _, err := w.db.FederationRules(w.ctx(), s, provider, account, page)
		must(t, err)
		for _, r := range rules {
			out = append(out, r.ID)
		}
		return out
	}
	same(t, ids("wip_1", "", all), []string{"rule_1", "rule_2"})
	same(t, ids("wip_1", "", openai.Page{Limit: 5, Desc: true}), []string{"rule_2", "rule_1"})
	same(t, ids("wip_1", "svc_acct_2", all), []string{"rule_2"})
	same(t, ids("wip_2", "", all), nil)

	// A rule goes with its account, and all with their provider.
	must(t, w.db.DeleteServiceAccount(w.ctx(), s, firstProject, "svc_acct_2"))
	same(t, ids("wip_1", "", all), []string{"rule_1"})
	must(t, w.db.DeleteIdentityProvider(w.ctx(), s, "wip_1"))
	_, err = w.db.FederationRule(w.ctx(), s, "wip_1", "rule_1")
	wantErr(t, err, tenant.ErrNotFound)
	events, _, err := w.db.AuditEvents(w.ctx(), s, audit.Filter{Objects: []string{"rule_1", "rule_2", "wip_1"}}, openai.Page{Limit: 100})
	must(t, err)
	same(t, len(events), 9) // 3 made, 3 changed, 3 deleted

	for i := range 49 {
		must(t, w.db.CreateIdentityProvider(w.ctx(), s, issuer(fmt.Sprint("wip_more_", i), fmt.Sprint("https://issuer.example/", i), epoch)))
	}
	wantFault(t, w.db.CreateIdentityProvider(w.ctx(), s, issuer("wip_much", "https://much.example", epoch)), fault.Invalid)
}

// testAudiences: an audience is one company's in the whole installation.
func testAudiences(t *testing.T, open Open) {
	w := newWorld(t, open)
	acme, _ := w.company("acme")
	beta, _ := w.company("beta")
	approve := func(s tenant.Scope, id string) error {
		return w.db.ApproveAudience(w.ctx(), w.act("audience.approve", s.ID().String()), s,
			tenant.ApprovedAudience{ID: id, Audience: "api://same", CreatedAt: epoch})
	}
	must(t, approve(acme, "aud_1"))
	wantFault(t, approve(beta, "aud_2"), fault.Conflict)
	wantFault(t, approve(acme, "aud_3"), fault.Conflict)
	known, err := w.db.LoadAudiences(w.ctx())
	must(t, err)
	same(t, known, map[string]string{"api://same": acme.ID().String()})
	same(t, []bool{w.again(acme).Company().Takes("api://same"), w.again(beta).Company().Takes("api://same")}, []bool{true, false})

	act := w.act("audience.revoke", beta.ID().String())
	wantErr(t, w.db.RevokeAudience(w.ctx(), act, beta, "aud_1"), tenant.ErrNotFound)
	must(t, w.db.RevokeAudience(w.ctx(), w.act("audience.revoke", acme.ID().String()), acme, "aud_1"))
	same(t, w.again(acme).Company().Takes("api://same"), false)
	must(t, approve(beta, "aud_4"))
	same(t, w.again(beta).Company().Takes("api://same"), true)

	// It goes with the company.
	id := beta.ID().String()
	_, err = w.db.SetCompanyStatus(w.ctx(), w.act("company.erase", id), id, tenant.Erasing)
	must(t, err)
	_, err = w.db.EraseCompany(w.ctx(), w.act("company.erase", id), beta)
	must(t, err)
	must(t, approve(acme, "aud_5"))
}
