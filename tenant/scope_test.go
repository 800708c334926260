package tenant_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"bulkhead/fault"
	"bulkhead/tenant"
	"bulkhead/tenant/tenanttest"
)

func wantPanic(t testing.TB, what string, f func()) {
	t.Helper()
	defer func() {
		if r := recover(); r == nil || !strings.HasPrefix(fmt.Sprint(r), "BUG: ") {
			t.Errorf("%s: recovered %v, want a BUG", what, r)
		}
	}()
	f()
}

func TestZeroValues(t *testing.T) {
	var s tenant.Scope
	wantPanic(t, "ID", func() { s.ID() })
	wantPanic(t, "Company", func() { s.Company() })
	wantPanic(t, "Project", func() { s.Project() })
	wantPanic(t, "ProjectID", func() { s.ProjectID() })
	wantPanic(t, "Key", func() { s.Key() })
	wantPanic(t, "KeyID", func() { s.KeyID() })
	wantPanic(t, "Test", func() { s.Test() })
	wantPanic(t, "Actor", func() { s.Actor() })
	wantPanic(t, "Limits", func() { s.Limits() })
	wantPanic(t, "Name", func() { s.Name("k", "id") })
	wantPanic(t, "zero Name", func() { tenant.Name{}.Append(nil) })

	w := tenanttest.New(t, tenant.Options{})
	ctx := context.Background()
	wantPanic(t, "Mint", func() { w.Minter().Mint(s, tenant.KeyLive) })
	wantPanic(t, "Act", func() { tenant.Act{}.Actor() })
	wantPanic(t, "Action", func() { tenant.Act{}.Action() })
	wantPanic(t, "Begin", func() { _, _ = tenant.Operator{}.Begin(ctx, "a", "") })
	wantPanic(t, "Scope of zero Act", func() { _, _ = w.Scope(ctx, tenant.Act{}, "") })
	wantPanic(t, "NewCompany of zero Act", func() { w.NewCompany(tenant.Act{}, "a") })
}

func TestOperator(t *testing.T) {
	w := tenanttest.New(t, tenant.Options{})
	key, s := w.Company("a", tenant.KeyLive, nil)
	admin, _ := w.AddKey(s, tenant.KeyAdmin, "")
	text := w.AddOperator()

	// Each kind at its own door only.
	wantRefused(t, w.Directory, text, fault.Forbidden, "operator_key_not_allowed")
	for _, k := range []string{key, admin} {
		_, err := w.AuthenticateOperator(t.Context(), []byte(k))
		wantFault(t, err, fault.Forbidden, "operator_key_required")
	}
	for _, lie := range []string{withPart(text, 4, "000000000000"), withPart(text, 4, part(key, 4)), withCRC(text[:len(text)-49] + strings.Repeat("0", 43))} {
		_, err := w.AuthenticateOperator(t.Context(), []byte(lie))
		wantFault(t, err, fault.Unauthenticated, "invalid_api_key")
	}

	op, err := w.AuthenticateOperator(t.Context(), []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	id := s.ID().String()
	act, err := op.Begin(t.Context(), "company.suspend", id)
	if err != nil {
		t.Fatal(err)
	}
	actor := "operator:key_" + part(text, 4)
	if act.Actor() != actor || act.Action() != "company.suspend" {
		t.Errorf("actor %q, action %q", act.Actor(), act.Action())
	}
	acts := w.Acts()
	if last := acts[len(acts)-1]; last != actor+" company.suspend "+id {
		t.Errorf("recorded %q", last)
	}

	// An act that cannot be recorded does not happen.
	cause := errors.New("disk on fire")
	w.Fail(cause)
	if act, err := op.Begin(t.Context(), "company.erase", id); !errors.Is(err, cause) || act != (tenant.Act{}) {
		t.Errorf("got an Act, or error %v", err)
	}
}

func TestScopeOfAct(t *testing.T) {
	w := tenanttest.New(t, tenant.Options{})
	_, a := w.Company("a", tenant.KeyLive, nil)
	_, b := w.Company("b", tenant.KeyLive, nil)
	begin := func(company string) tenant.Act {
		t.Helper()
		act, err := w.Gateway().Begin(t.Context(), "erase", company)
		if err != nil {
			t.Fatal(err)
		}
		return act
	}
	act := begin(a.ID().String())
	s, err := w.Scope(t.Context(), act, a.ID().String())
	if err != nil || s.ID() != a.ID() || s.Key() != nil || s.KeyID() != "" || s.Project() != nil || s.Actor() != "gateway" || s.Test() {
		t.Fatalf("%v, or a Scope with a key", err)
	}
	wantPanic(t, "another company", func() { _, _ = w.Scope(t.Context(), act, b.ID().String()) })
	wantPanic(t, "no company", func() { _, _ = w.Scope(t.Context(), act, "") })
	wantPanic(t, "an act that concerns none", func() { _, _ = w.Scope(t.Context(), begin(""), a.ID().String()) })

	// Any status but erased is opened, so that it can be erased.
	for _, status := range []tenant.Status{tenant.Suspended, tenant.Erasing} {
		w.Edit(a, func(c *tenant.Company) { c.Status = status })
		if s, err := w.Scope(t.Context(), act, a.ID().String()); err != nil || s.Company().Status != status {
			t.Errorf("%s: %v", status, err)
		}
	}
	w.Edit(a, func(c *tenant.Company) { c.Status = tenant.Erased })
	f := func(company string) {
		t.Helper()
		s, err := w.Scope(t.Context(), begin(company), company)
		wantFault(t, err, fault.NotFound, "company_not_found")
		if s != (tenant.Scope{}) {
			t.Fatal("a Scope came with the error")
		}
	}
	f(a.ID().String())
	f("org-0000000000")
	for _, odd := range []string{"", "org-", b.ID().Locator(), strings.ToUpper(b.ID().String()), b.ID().String() + " ", "org-org-" + b.ID().Locator(), "org-operator", "org-../../../x", "org-%%%%%%%%%%"} {
		if n := loads(w.Directory, func() { f(odd) }); n != 0 {
			t.Errorf("%q: %d look-ups for what is no id", odd, n)
		}
	}
}

func TestNewCompany(t *testing.T) {
	w := tenanttest.New(t, tenant.Options{})
	act, err := w.Gateway().Begin(t.Context(), "company.create", "")
	if err != nil {
		t.Fatal(err)
	}
	x, y := w.NewCompany(act, "same"), w.NewCompany(act, "same")
	if x.ID() == y.ID() || x.Company().Name != "same" || x.Company().Status != tenant.Active || x.Key() != nil {
		t.Error("two companies are one, or not new")
	}
}

// Names differ as soon as company, kind or id do, wherever the borders are.
func TestName(t *testing.T) {
	w := tenanttest.New(t, tenant.Options{})
	_, a := w.Company("a", tenant.KeyLive, nil)
	_, b := w.Company("b", tenant.KeyLive, nil)
	scopes := []tenant.Scope{a, b}
	// Few letters, so that parts often look alike; ids of companies among them.
	text := rapid.OneOf(
		rapid.StringOfN(rapid.SampledFrom([]rune("a:/\x00\x01{}")), 0, 6, -1),
		rapid.SampledFrom([]string{a.ID().String(), b.ID().String(), "\x00\x0e" + b.ID().String()}),
		rapid.String(),
	)
	rapid.Check(t, func(t *rapid.T) {
		type name struct {
			company  int
			kind, id string
		}
		draw := func(label string) name {
			return name{rapid.IntRange(0, 1).Draw(t, label+" company"), text.Draw(t, label+" kind"), text.Draw(t, label+" id")}
		}
		x, y := draw("x"), draw("y")
		encode := func(n name) string { return string(scopes[n.company].Name(n.kind, n.id).Append(nil)) }
		if (encode(x) == encode(y)) != (x == y) {
			t.Fatalf("%+v and %+v: %q and %q", x, y, encode(x), encode(y))
		}
		// Nor is one the beginning of another, so more may be appended.
		if x != y && strings.HasPrefix(encode(x), encode(y)) {
			t.Fatalf("%+v begins as %+v", x, y)
		}
	})
	f := func(kind, id string) {
		t.Helper()
		if k, i := a.Name(kind, id).Append(nil), a.Name(kind+id, "").Append(nil); string(k) == string(i) {
			t.Errorf("%q and %q collide", kind, id)
		}
	}
	f("ab", "c")
	f("a", "b")
	f("a", "\x00\x00")
	if got := a.Name("k", "i").Append([]byte("before")); !strings.HasPrefix(string(got), "before\x00\x0e"+a.ID().String()+"\x00\x01k\x00\x01i") {
		t.Errorf("got %q", got)
	}
	a.Name("k", strings.Repeat("x", 0xffff)).Append(nil)
	wantPanic(t, "long id", func() { a.Name("k", strings.Repeat("x", 0x10000)).Append(nil) })
	wantPanic(t, "long kind", func() { a.Name(strings.Repeat("x", 0x10000), "").Append(nil) })
}

func TestPolicy(t *testing.T) {
	c := &tenant.Company{Providers: []string{"groq", "openai"}}
	for _, name := range []string{"", "open", "openai2", "OpenAI", "a", "z"} {
		if c.HasCredential(name) {
			t.Errorf("has a credential for %q", name)
		}
	}
	if !c.HasCredential("groq") || !c.HasCredential("openai") || (&tenant.Company{}).HasCredential("openai") {
		t.Error("HasCredential is wrong")
	}
	p := &tenant.Project{Models: map[string]tenant.Limits{"m": {Concurrent: 1}}}
	if l, ok := p.ModelLimits("m"); !ok || l.Concurrent != 1 {
		t.Error("the model's limits are not found")
	}
	if _, ok := p.ModelLimits("n"); ok {
		t.Error("limits of a model that has none")
	}
	m := tenant.ModelPermission{Mode: tenant.AllowList, Models: []string{"gpt-4o", "openai/o3"}}
	if !m.Names("x", "openai/o3") || m.Names() || m.Names("o3", "GPT-4o", "") {
		t.Error("Names is wrong")
	}
}
