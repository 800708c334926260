package test

import (
	"cmp"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"bulkhead/store/pgtest"
	"bulkhead/test/scale"
	"bulkhead/test/upstream"
)

// everywhere is how long a change of policy may take to reach every gateway
// (DESIGN section 6).
const everywhere = 5 * time.Second

// fleetOptions say what is special about a fleet. Zero values: nothing.
type fleetOptions struct {
	companies int // with a credential each; default 3
	gateways  int // default 3
	config    string
	log       string // level; default warn: a line for each call would hide the others
	env       []string
	// database is where the rows are; default a new one on the shared server.
	database *pgtest.Database
	// redis is the URL of what counts limits and budgets; "" is each gateway for
	// itself.
	redis string
	// link is the gateway whose way to the database is a link; 0 none, 1 the
	// first.
	link int
}

// fleet is some gateways over one PostgreSQL database behind a balancer, each
// with a data folder of its own and none special, and companies whose calls go
// to one provider with the credential of each. It is there twice: as up, of which
// no price is known, and as openai, where the provider sees by the path which
// gateway calls, /g0/v1 and so on.
type fleet struct {
	up       *upstream.Server
	db       pgtest.Database
	all      []*gateway
	runs     []*process
	balancer *balancer
	link     *link
	members  []*member
}

// member is a company of a fleet.
type member struct {
	company
	secrets []string // of its provider, the newest last
	erased  bool     // its rows are gone
}

// migrated brings the database up to this version.
func (g *gateway) migrated(t *testing.T) {
	t.Helper()
	if r := g.command(t, nil, "", "migrate", "-config", filepath.Join(g.dir(), "bulkhead.yaml")); r.code != 0 {
		t.Fatalf("gateway migrate: %s%s", r.out, r.err)
	}
}

var migrating sync.Mutex

// newFleet starts a fleet that ends with the test. Small tests of fleets wait
// more than they work, so they run beside one another; s is nil for one that must
// not.
func newFleet(t *testing.T, s *scale.Run, o fleetOptions) *fleet {
	t.Helper()
	if s != nil && !s.Full() {
		t.Parallel()
	}
	f := &fleet{up: upstream.New(t)}
	handlePaced(f.up)
	handleWhoami(f.up)
	if o.database == nil {
		db := pgtest.New(t)
		o.database = &db
	}
	f.db = *o.database
	if o.redis != "" {
		o.env = append(o.env, "BULKHEAD_REDIS_URL="+o.redis)
	}
	for i := range cmp.Or(o.gateways, 3) {
		config := fmt.Sprintf("log: {level: %s}\nproviders:\n  up: {kind: custom, base_url: %s}\n  openai: {kind: openai, base_url: %s/g%d/v1}\n%s",
			cmp.Or(o.log, "warn"), f.up.BaseURL(), f.up.URL(), i, o.config)
		at := f.db.URL
		if i == o.link-1 {
			at = f.linked(t)
		}
		env := append([]string{
			"BULKHEAD_POSTGRES_URL=" + at, "BULKHEAD_POSTGRES_OWNER_URL=" + f.db.OwnerURL,
			"BULKHEAD_MASTER_KEY=" + strings.Repeat("a7", 32),
		}, o.env...)
		f.all = append(f.all, prepare(t, config, env...))
	}
	f.runs = make([]*process, len(f.all))
	first := f.all[0]
	migrating.Lock() // roles are the server's, not the database's
	first.migrated(t)
	migrating.Unlock()
	f.runs[0] = first.serve(t)
	for i := 1; i < len(f.all); i++ {
		f.all[i].Demo, f.all[i].Operator = first.Demo, first.Operator
		f.start(t, i)
	}
	f.balancer = newBalancer(t, f.all...)
	for i := range max(o.companies, 3) {
		m := &member{company: first.newCompany(t, fmt.Sprint("Member ", i))}
		f.newSecret(t, 0, m)
		f.members = append(f.members, m)
	}
	for i := range f.all {
		for _, m := range f.members {
			f.knows(t, i, m)
		}
	}
	return f
}

// linked makes the link to the database and returns its URL by that way.
func (f *fleet) linked(t *testing.T) string {
	t.Helper()
	u, err := url.Parse(f.db.URL)
	if err != nil {
		t.Fatal(err)
	}
	f.link = newLink(t, u.Host)
	u.Host = f.link.addr
	return u.String()
}

// start runs gateway i, which does not run, and waits until it is ready.
func (f *fleet) start(t *testing.T, i int) {
	t.Helper()
	f.runs[i] = f.all[i].launch(t)
	f.all[i].waitReady(t, f.runs[i].ended)
}

// stop ends all gateways that run, so that everything is in the database.
func (f *fleet) stop(t *testing.T) {
	t.Helper()
	for _, r := range f.runs {
		r.signal(t, syscall.SIGTERM)
	}
	for i, r := range f.runs {
		if code := r.exit(t); code != 0 {
			t.Errorf("gateway %d ended with %d", i, code)
		}
	}
}

// knows waits until gateway i serves m.
func (f *fleet) knows(t *testing.T, i int, m *member) {
	t.Helper()
	eventually(t, everywhere, fmt.Sprintf("gateway %d knows %s", i, m.Name), func() bool {
		return f.all[i].chat(t, m.APIKey, "up/ok").status == http.StatusOK
	})
}

// newSecret gives m another credential, at gateway i.
func (f *fleet) newSecret(t *testing.T, i int, m *member) string {
	t.Helper()
	secret := fmt.Sprintf("sk-%s-%d", strings.ReplaceAll(m.Name, " ", "-"), len(m.secrets))
	m.secrets = append(m.secrets, secret)
	f.all[i].setCredential(t, m.company, "up", secret)
	return secret
}

var staleness = regexp.MustCompile(`(?m)^bulkhead_policy_stale_seconds (.*)$`)

// heard returns when gateway i last asked the database for changes and was told.
func (f *fleet) heard(t *testing.T, i int) time.Time {
	t.Helper()
	now := time.Now()
	metrics := ask(t, http.MethodGet, f.all[i].OpsURL+"/metrics", "", nil).want(t, "metrics", http.StatusOK)
	found := staleness.FindSubmatch(metrics.body)
	if found == nil {
		t.Fatal("the metrics do not say how old the news is")
	}
	seconds, err := strconv.ParseFloat(string(found[1]), 64)
	if err != nil {
		t.Fatal(err)
	}
	return now.Add(-time.Duration(seconds * float64(time.Second)))
}

// others are the numbers of the gateways but those.
func (f *fleet) others(not ...int) (all []int) {
	for i := range f.all {
		if !slices.Contains(not, i) {
			all = append(all, i)
		}
	}
	return all
}

// obey makes changes of policy of m at the first of those gateways and waits until
// all of them obey: a key made, a key revoked, a new credential, a route. The
// others had the old policy in memory.
func (f *fleet) obey(t *testing.T, m *member, at ...int) {
	t.Helper()
	every := func(what string, ok func(g *gateway, i int) bool) {
		t.Helper()
		for _, i := range at {
			eventually(t, everywhere, fmt.Sprintf("%s, at gateway %d", what, i), func() bool { return ok(f.all[i], i) })
		}
	}
	one := f.all[at[0]]
	id, key := one.newKey(t, m.company, nil)
	every("the new key works", func(g *gateway, _ int) bool { return g.chat(t, key, "up/ok").status == http.StatusOK })
	route := fmt.Sprint("route-", len(m.secrets))
	f.newSecret(t, at[0], m)
	one.setRoute(t, m.company, route, "up/ok")
	one.org(t, m.company, http.MethodDelete, "/projects/"+m.ProjectID+"/api_keys/"+id, nil, nil)
	every("the revoked key is refused", func(g *gateway, _ int) bool { return g.chat(t, key, "up/ok").status == http.StatusUnauthorized })
	every("the new credential is used", func(_ *gateway, i int) bool { return f.secretSeen(t, i, m) })
	every("the new route is there", func(g *gateway, _ int) bool { return g.chat(t, m.APIKey, route).status == http.StatusOK })
}
