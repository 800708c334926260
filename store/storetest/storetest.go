// Package storetest is the contract of package store as a suite of tests. Each
// kind of database passes the same one.
package storetest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"testing"
	"time"

	"bulkhead/fault"
	"bulkhead/ledger"
	"bulkhead/openai"
	"bulkhead/store"
	"bulkhead/tenant"
	"bulkhead/tenant/tenanttest"
)

// Open opens an empty, migrated store that calls onChange, and closes it when
// the test has ended.
type Open func(t testing.TB, onChange func(company string)) *store.DB

// AuditKey is the key of the audit chains that every store here must be given.
var AuditKey = []byte("a key for the chains of the tests")

// Run runs the suite.
func Run(t *testing.T, open Open) {
	for _, c := range []struct {
		name string
		test func(*testing.T, Open)
	}{
		{"Isolation", Isolation},
		{"Company", testCompany}, {"Companies", testCompanies}, {"Erase", testErase}, {"Agents", testAgents}, {"Conversations", testConversations}, {"Fence", testFence},
		{"Operator", testOperator}, {"ZeroScope", testZeroScope}, {"Feed", testFeed},
		{"Projects", testProjects}, {"Limits", testLimits}, {"Accounts", testAccounts}, {"Keys", testKeys}, {"KeyRules", testKeyRules}, {"KeysUsedTogether", testKeysUsedTogether},
		{"Routes", testRoutes}, {"Pages", testPages}, {"Audit", testAudit}, {"AuditFilter", testAuditFilter}, {"AuditChain", testAuditChain}, {"AuditAppend", testAuditAppend},
		{"RacingAudit", testRacingAudit}, {"Names", testNames},
		{"DataKey", testDataKey}, {"Credentials", testCredentials}, {"RacingCredentials", testRacingCredentials},
		{"Entries", testEntries}, {"UsualEntries", testUsualEntries}, {"Ranks", testRanks}, {"LateEntries", testLateEntries}, {"OddEntries", testOddEntries},
		{"Knowledge", testKnowledge}, {"Lent", testLent}, {"Budgets", testBudgets}, {"CeilingZone", testCeilingZone}, {"Spent", testSpent},
		{"Rollups", testRollups}, {"RollupsToday", testRollupsToday}, {"Retention", testRetention}, {"Kept", testKept}, {"Responses", testResponses}, {"Prices", testPrices}, {"SpentAtRandom", testSpentAtRandom},
		{"RacingRollups", testRacingRollups},
		{"Identity", testIdentity}, {"Audiences", testAudiences},
		{"Usage", testUsage}, {"Upkeep", testUpkeep}, {"Alerts", testAlerts}, {"People", testPeople}, {"RacingOwners", testRacingOwners},
		{"RacingErase", testRacingErase}, {"RacingAccounts", testRacingAccounts}, {"RacingNames", testRacingNames},
		{"RacingFeed", testRacingFeed},
		{"Parallel", testParallel}, {"Cancelled", testCancelled}, {"Warm", testWarm}, {"Closed", testClosed},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, open) })
	}
}

// world is a store and the Directory over it.
type world struct {
	*tenant.Directory
	t       testing.TB
	db      *store.DB
	mu      sync.Mutex
	changed []string // what OnChange was called with

	password string // the hash of samePassword, once it was made
}

func newWorld(t testing.TB, open Open) *world {
	w := &world{t: t}
	w.db = open(t, func(company string) {
		w.Changed(company)
		w.mu.Lock()
		defer w.mu.Unlock()
		w.changed = append(w.changed, company)
	})
	w.Directory = tenant.NewDirectory(w.db, w.db, tenant.NewMinter(tenanttest.Pepper), tenant.Options{})
	return w
}

func (w *world) ctx() context.Context { return w.t.Context() }

func (w *world) act(action, company string) tenant.Act {
	w.t.Helper()
	a, err := w.Gateway().Begin(w.ctx(), action, company)
	must(w.t, err)
	return a
}

// The ids that every company made here has.
const (
	firstProject = "proj_first"
	firstAccount = "svc_acct_first"
)

// epoch is when the first company was created. It has microseconds, which must survive.
var epoch = time.Date(2026, 3, 1, 12, 0, 0, 123456000, time.UTC)

// company makes a company with one project, one account and three keys, and
// returns the scope of its admin key. The keys are admin, live, test.
func (w *world) company(name string) (s tenant.Scope, values []string) {
	w.t.Helper()
	a := w.act("company.create", "")
	fresh := w.NewCompany(a, name)
	c := tenant.NewCompany{
		Scope:   fresh,
		Project: tenant.Project{ID: firstProject, Name: name + " project", CreatedAt: epoch, Limits: tenant.Limits{Concurrent: 7}},
		Account: tenant.ServiceAccount{ID: firstAccount, ProjectID: firstProject, Name: name + " account", Role: "member", CreatedAt: epoch},
	}
	for i, kind := range []tenant.KeyKind{tenant.KeyAdmin, tenant.KeyLive, tenant.KeyTest} {
		value, k := w.Minter().Mint(fresh, kind)
		k.Name, k.CreatedAt = fmt.Sprint(name, " ", kind), epoch.Add(time.Duration(i)*time.Second)
		if kind != tenant.KeyAdmin {
			k.ProjectID, k.ServiceAccountID = firstProject, firstAccount
		}
		values = append(values, value)
		c.Keys = append(c.Keys, k)
	}
	must(w.t, w.db.CreateCompany(w.ctx(), a, c))
	s, err := w.Authenticate(w.ctx(), []byte(values[0]))
	must(w.t, err)
	return s, values
}

// again returns the scope as the store has it now.
func (w *world) again(s tenant.Scope) tenant.Scope {
	w.t.Helper()
	id := s.ID().String()
	now, err := w.Scope(w.ctx(), w.act("look", id), id)
	must(w.t, err)
	return now
}

// key returns a key that nobody can prove, for a project or, with "", for the company.
func key(id, project, account string, at time.Time) tenant.Key {
	k := tenant.Key{ID: id, Kind: tenant.KeyLive, ProjectID: project, ServiceAccountID: account, Name: "name of " + id,
		Redacted: "sk-bh-live-...abcd", CreatedAt: at}
	if project == "" {
		k.Kind, k.Redacted = tenant.KeyAdmin, "sk-bh-admin-...abcd"
	}
	copy(k.Hash[:], id)
	return k
}

// entry returns an entry with a figure in every field.
func entry(id string, at time.Time) ledger.Entry {
	e := ledger.Entry{}
	n := int64(100)
	fill(reflect.ValueOf(&e).Elem(), &n)
	e.ID, e.Outcome, e.Rank = id, ledger.Answered, ledger.Final
	e.StartedAt, e.EndedAt = at.Add(-time.Second), at
	return e
}

func fill(v reflect.Value, n *int64) {
	*n++
	switch {
	case v.Type() == reflect.TypeFor[time.Time]():
	case v.Kind() == reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), n)
		}
	case v.Kind() == reflect.Bool:
		v.SetBool(true)
	case v.CanUint():
		v.SetUint(uint64(*n))
	case v.CanInt():
		v.SetInt(*n)
	case v.Kind() == reflect.String:
		v.SetString(fmt.Sprint("text ", *n))
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wantErr checks that err is want.
func wantErr(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("error %v, want %v", err, want)
	}
}

// wantFault checks that err is a fault of the kind.
func wantFault(t testing.TB, err error, kind fault.Kind) {
	t.Helper()
	if !fault.Is(err, kind) {
		t.Errorf("error %v, want a fault of kind %d", err, kind)
	}
}

// same compares two values as JSON.
func same(t testing.TB, got, want any) {
	t.Helper()
	if g, w := text(got), text(want); g != w {
		t.Errorf("got  %s\nwant %s", g, w)
	}
}

func text(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// all is a page that is the whole list.
var all = openai.Page{Limit: 1000}
