package test

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	_ "modernc.org/sqlite"

	"bulkhead/store/pgtest"
	"bulkhead/test/servers"
	"bulkhead/test/upstream"
)

// movingVault is an OpenBao server with the gateway's policy and a token.
type movingVault struct {
	t                 *testing.T
	addr, root, token string
}

func newMovingVault(t *testing.T) *movingVault {
	t.Helper()
	bao := servers.Start(t, "bao", "BAO_MODE=dev")
	v := &movingVault{t: t, addr: bao.Var("VAULT_ADDR"), root: bao.Var("VAULT_TOKEN")}
	policy, err := os.ReadFile("../deploy/vault/policy.hcl")
	if err != nil {
		t.Fatal(err)
	}
	v.ask(http.MethodPut, "sys/policies/acl/bulkhead", map[string]any{"policy": string(policy)}).want(t, "the policy", http.StatusNoContent)
	made := v.ask(http.MethodPost, "auth/token/create", map[string]any{"policies": []string{"bulkhead"}, "no_default_policy": true, "ttl": "1h"}).
		want(t, "a token", http.StatusOK)
	var token struct {
		Auth struct {
			Token string `json:"client_token"`
		}
	}
	if err := json.Unmarshal(made.body, &token); err != nil {
		t.Fatal(err)
	}
	v.token = token.Auth.Token
	return v
}

func (v *movingVault) ask(method, path string, body any) answer {
	v.t.Helper()
	return ask(v.t, method, v.addr+"/v1/"+path, v.root, body)
}

// has reports whether the company's credential is there, versions and all.
func (v *movingVault) has(c company, provider string) bool {
	v.t.Helper()
	switch a := v.ask(http.MethodGet, "secret/metadata/bulkhead/companies/"+c.ID+"/providers/"+provider, nil); a.status {
	case http.StatusOK:
		return true
	case http.StatusNotFound:
		return false
	default:
		v.t.Fatalf("vault answers %d: %s", a.status, a.body)
	}
	return false
}

// env is the environment of a gateway that uses Vault at addr.
func (v *movingVault) env(addr string) []string {
	return []string{"BULKHEAD_VAULT_ADDR=" + addr, "BULKHEAD_VAULT_TOKEN=" + v.token}
}

// with is g in another environment: the same folder and ports.
func (g *gateway) with(env ...string) *gateway {
	other := *g
	other.env = append(slices.Clone(g.env), env...)
	return &other
}

// movedReport is what the commands print with -json.
type movedReport struct {
	Companies, Failed int
	Data              []struct {
		Company, State, Error        string
		Written, Same, Kept, Removed []string
		Noted, Gone, Refused         []string
	}
}

// short is what was done for a company: "moved w1 s0 k0 r1", or "" if it has
// no credentials.
func (r movedReport) short(c company) string {
	for _, d := range r.Data {
		if d.Company == c.ID {
			return fmt.Sprintf("%s w%d s%d k%d r%d", d.State, len(d.Written), len(d.Same), len(d.Kept), len(d.Removed))
		}
	}
	return ""
}

// moveCredentials runs the command and looks that no secret is printed.
func (g *gateway) moveCredentials(t *testing.T, code int, args ...string) movedReport {
	t.Helper()
	r := g.command(t, nil, "", append([]string{"credential", "move", "-json", "-config", filepath.Join(g.dir(), "bulkhead.yaml")}, args...)...)
	if r.code != code || strings.Contains(r.out+r.err, movedSecret) || strings.Contains(r.out+r.err, lentSecret) {
		t.Fatalf("credential move %v ended with %d: %s%s", args, r.code, r.out, r.err)
	}
	return decoded[movedReport](t, r.out)
}

const movedSecret = "sk-moved-canary-"

// rows counts what a statement finds in the gateway's SQLite file, while no
// gateway runs.
func (g *gateway) rows(t *testing.T, text string) (n int) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(g.Data, "bulkhead.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := db.QueryRowContext(t.Context(), text).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// calls sees that each company's call goes out with its own credential, or is
// refused where there is none.
func (g *gateway) calls(t *testing.T, up *upstream.Server, want map[string]string, all ...company) {
	t.Helper()
	p := g.launch(t)
	g.waitReady(t, p.ended)
	for _, c := range all {
		a := g.chat(t, c.APIKey, "up/ok")
		if want[c.ID] == "" {
			if a.status != http.StatusNotFound && a.status != http.StatusBadRequest {
				t.Errorf("without a credential: status %d: %s", a.status, a.body)
			}
			continue
		}
		a.want(t, "with a credential", http.StatusOK)
		if last, _ := up.Last(); last.Header.Get("Authorization") != "Bearer "+want[c.ID] {
			t.Error("the provider was sent another credential")
		}
	}
	p.stop(t)
}

// TestCredentialMove moves credentials from the SQLite file to Vault and back.
func TestCredentialMove(t *testing.T) {
	up, v := upstream.New(t), newMovingVault(t)
	g := prepare(t, "providers:\n  up: {kind: custom, base_url: "+up.BaseURL()+"}\n")
	run := g.serve(t)
	a, b, none := g.Demo, g.newCompany(t, "Other"), g.newCompany(t, "Without")
	secrets := map[string]string{a.ID: movedSecret + "a", b.ID: movedSecret + "b"}
	g.setCredential(t, a, "up", secrets[a.ID])
	g.setCredential(t, a, "openai", movedSecret+"openai")
	g.setCredential(t, b, "up", secrets[b.ID])
	g.ok(t, []string{"BULKHEAD_OPERATOR_KEY=" + g.Operator}, "", "company", "suspend", b.ID)
	vaulted := g.with(v.env(v.addr)...)

	refused := func(g *gateway, message string, args ...string) {
		t.Helper()
		g.fails(t, nil, "", message, append([]string{"credential"}, args...)...)
	}
	refused(vaulted, "in use by another gateway: stop it first", "move", "-to", "vault")
	g.ok(t, []string{"BULKHEAD_OPERATOR_KEY=" + g.Operator}, "", "company", "resume", b.ID)
	run.stop(t)
	refused(g, "vault_addr is not set", "move", "-to", "vault")
	refused(g, "vault_addr is not set", "sync")
	refused(vaulted, "-to vault or -to sealed", "move")
	refused(vaulted, "-to vault or -to sealed", "move", "-to", "elsewhere")
	refused(vaulted, "no arguments", "move", "-to", "vault", a.ID)
	away := g.with("BULKHEAD_VAULT_ADDR=http://127.0.0.1:1", "BULKHEAD_VAULT_TOKEN=x")
	if r := away.command(t, nil, "", "credential", "move", "-to", "vault"); r.code != 1 || !strings.Contains(r.err, "cannot reach vault") || r.out != "" {
		t.Errorf("without Vault: %+v", r)
	}

	f := func(wantA, wantB string, args ...string) {
		t.Helper()
		got := vaulted.moveCredentials(t, 0, args...)
		if got.short(a) != wantA || got.short(b) != wantB || got.short(none) != "" || got.Failed != 0 {
			t.Errorf("move %v: %+v", args, got)
		}
	}
	f("planned w2 s0 k0 r0", "planned w1 s0 k0 r0", "-to", "vault", "-dry-run")
	if v.has(a, "up") || v.has(b, "up") {
		t.Fatal("a dry run wrote")
	}
	f("copied w2 s0 k0 r0", "", "-to", "vault", "-keep", "-company", a.ID)
	f("copied w0 s2 k0 r0", "copied w1 s0 k0 r0", "-to", "vault", "-keep")
	g.calls(t, up, secrets, a, b, none) // both kinds of gateway can serve
	vaulted.calls(t, up, secrets, a, b, none)
	f("moved w0 s2 k0 r2", "moved w0 s1 k0 r1", "-to", "vault")
	f("", "", "-to", "vault") // there is nothing left to do
	if n := g.rows(t, "SELECT count(*) FROM credential"); n != 0 {
		t.Errorf("%d sealed credentials are left", n)
	}
	vaulted.calls(t, up, secrets, a, b, none)

	f("planned w2 s0 k0 r0", "planned w1 s0 k0 r0", "-to", "sealed", "-dry-run")
	f("moved w2 s0 k0 r2", "moved w1 s0 k0 r1", "-to", "sealed")
	if v.has(a, "up") || v.has(b, "up") || v.has(a, "openai") {
		t.Error("credentials are left in Vault")
	}
	if n := g.rows(t, "SELECT count(*) FROM credential_name"); n != 0 {
		t.Errorf("%d names of credentials in Vault are left", n)
	}
	g.calls(t, up, secrets, a, b, none)

	// Each company's part was recorded before it was done, and each change is in
	// the company's own audit log.
	if n := g.rows(t, "SELECT count(*) FROM operator_act WHERE action = 'credential.move' AND company = '"+b.ID+"'"); n != 4 {
		t.Errorf("%d acts on one company are recorded, want 4", n)
	}
	if n := g.rows(t, "SELECT count(*) FROM audit WHERE type = 'credential.deleted' AND company_id = '"+b.ID+"'"); n != 2 {
		t.Errorf("%d deletions are in the company's audit log, want 2", n)
	}
	refused(vaulted, "no company", "move", "-to", "vault", "-company", "org-0000000000")

	// What a person reads.
	r := vaulted.command(t, nil, "", "credential", "move", "-to", "vault")
	if r.code != 0 || row(r.out, a.ID) != "moved 2 0 0 2" || row(r.out, b.ID) != "moved 1 0 0 1" || strings.Contains(r.out, none.ID) || strings.Contains(r.out, movedSecret) {
		t.Errorf("credential move: %+v", r)
	}
}

// TestCredentialSync: what others put into Vault, or removed there, is noted, and
// what does not belong there is named.
func TestCredentialSync(t *testing.T) {
	up, v := upstream.New(t), newMovingVault(t)
	g := prepare(t, "providers:\n  up: {kind: custom, base_url: "+up.BaseURL()+"}\n", v.env(v.addr)...)
	run := g.serve(t)
	a, b := g.Demo, g.newCompany(t, "Other")
	g.setCredential(t, b, "openai", movedSecret+"b")
	run.stop(t)
	place := func(c company, provider string) string {
		return "bulkhead/companies/" + c.ID + "/providers/" + provider
	}
	put := func(c company, provider, company string) {
		t.Helper()
		v.ask(http.MethodPost, "secret/data/"+place(c, provider), map[string]any{"data": map[string]string{
			"company": company, "provider": provider, "secret": movedSecret + "hand",
		}}).want(t, "put by hand", http.StatusOK)
	}
	put(a, "up", a.ID)
	v.ask(http.MethodDelete, "secret/metadata/"+place(b, "openai"), nil).want(t, "deleted by hand", http.StatusNoContent)
	sync := func(code int) movedReport {
		t.Helper()
		r := g.command(t, nil, "", "credential", "sync", "-json", "-config", filepath.Join(g.dir(), "bulkhead.yaml"))
		if r.code != code || strings.Contains(r.out+r.err, movedSecret) {
			t.Fatalf("credential sync ended with %d: %s%s", r.code, r.out, r.err)
		}
		return decoded[movedReport](t, r.out)
	}
	got := sync(0)
	if len(got.Data) != 2 || got.Companies != 2 {
		t.Fatalf("sync: %+v", got)
	}
	for _, d := range got.Data {
		if d.Company == a.ID && !slices.Equal(d.Noted, []string{"up"}) || d.Company == b.ID && !slices.Equal(d.Gone, []string{"openai"}) {
			t.Errorf("sync: %+v", d)
		}
	}
	if again := sync(0); len(again.Data) != 0 {
		t.Errorf("sync again: %+v", again)
	}
	g.calls(t, up, map[string]string{a.ID: movedSecret + "hand"}, a, b)
	put(b, "up", a.ID) // another company's
	if got := sync(1); got.Failed != 1 || len(got.Data) != 1 || !slices.Equal(got.Data[0].Refused, []string{"up"}) || got.Data[0].Company != b.ID {
		t.Errorf("sync of a secret that does not belong there: %+v", got)
	}
}

// gate is a way to Vault on which one request is held: before it goes on, or
// when its answer comes back.
type gate struct {
	*httptest.Server
	held chan struct{} // closed when it is held
}

func newGate(t *testing.T, v *movingVault, method, part string, through bool) *gate {
	t.Helper()
	to, err := url.Parse(v.addr)
	if err != nil {
		t.Fatal(err)
	}
	g := &gate{held: make(chan struct{})}
	proxy := httputil.NewSingleHostReverseProxy(to)
	free := make(chan struct{})
	var caught atomic.Bool
	g.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != method || !strings.Contains(r.URL.Path, part) || !caught.CompareAndSwap(false, true) {
			proxy.ServeHTTP(w, r)
			return
		}
		if through {
			proxy.ServeHTTP(httptest.NewRecorder(), r)
		}
		close(g.held)
		<-free
	}))
	t.Cleanup(func() { close(free); g.Close() })
	return g
}

// killed runs a command that is killed as soon as ready is closed or says so.
func (g *gateway) killed(t *testing.T, ready func() bool, args ...string) {
	t.Helper()
	cmd := exec.Command(g.path, args...)
	cmd.Dir, cmd.Env = g.dir(), g.env
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	defer func() { _ = cmd.Process.Kill(); <-ended }()
	eventually(t, 30*time.Second, "it is where it shall be killed", func() bool {
		select {
		case <-ended:
			t.Fatal("it ended before it was killed")
		default:
		}
		return ready()
	})
}

func closed(c chan struct{}) func() bool {
	return func() bool {
		select {
		case <-c:
			return true
		default:
			return false
		}
	}
}

// TestCredentialMoveKilled kills the command at its worst moments: called again it
// ends what it began, and at no moment is a credential nowhere.
func TestCredentialMoveKilled(t *testing.T) {
	up, v := upstream.New(t), newMovingVault(t)
	g := prepare(t, "providers:\n  up: {kind: custom, base_url: "+up.BaseURL()+"}\n")
	run := g.serve(t)
	c := g.Demo
	secrets := map[string]string{c.ID: movedSecret + "a"}
	g.setCredential(t, c, "up", secrets[c.ID])
	run.stop(t)
	vaulted := g.with(v.env(v.addr)...)
	f := func(what, to, method, part string, through bool, inVault bool, sealed, names int, want string) {
		t.Helper()
		hold := newGate(t, v, method, part, through)
		g.with(v.env(hold.URL)...).killed(t, closed(hold.held), "credential", "move", "-to", to)
		if v.has(c, "up") != inVault || g.rows(t, "SELECT count(*) FROM credential") != sealed || g.rows(t, "SELECT count(*) FROM credential_name") != names {
			t.Errorf("%s: killed elsewhere", what)
		}
		if got := vaulted.moveCredentials(t, 0, "-to", to); got.short(c) != want {
			t.Errorf("%s, called again: %+v, want %q", what, got, want)
		}
		vaulted.calls(t, up, map[string]string{c.ID: map[bool]string{true: secrets[c.ID]}[to == "vault"]}, c)
		g.calls(t, up, map[string]string{c.ID: map[bool]string{true: secrets[c.ID]}[to == "sealed"]}, c)
	}
	// Written to Vault, and not yet noted beside the policy.
	f("after the secret was written", "vault", http.MethodPut, "/data/bulkhead/companies/"+c.ID, true, true, 1, 0, "moved w0 s1 k0 r1")
	// Sealed again, and not yet removed from Vault.
	f("before the secret was removed", "sealed", http.MethodDelete, "/metadata/bulkhead/companies/"+c.ID, false, true, 1, 1, "moved w0 s1 k0 r1")
	f("before it was written", "vault", http.MethodPut, "/data/bulkhead/companies/"+c.ID, false, false, 1, 0, "moved w1 s0 k0 r1")
	// Removed from Vault, and still noted.
	f("after the secret was removed", "sealed", http.MethodDelete, "/metadata/bulkhead/companies/"+c.ID, true, false, 1, 1, "")
	if n := g.rows(t, "SELECT count(*) FROM credential_name"); n != 0 {
		t.Errorf("%d names of credentials in Vault are left", n)
	}
}

// TestCredentialMovePostgres moves under gateways that run, the documented way,
// and is killed between the copy and the removal.
func TestCredentialMovePostgres(t *testing.T) {
	up, v, db := upstream.New(t), newMovingVault(t), pgtest.New(t)
	g := prepare(t, "providers:\n  up: {kind: custom, base_url: "+up.BaseURL()+"}\n",
		"BULKHEAD_POSTGRES_URL="+db.URL, "BULKHEAD_POSTGRES_OWNER_URL="+db.OwnerURL, "BULKHEAD_MASTER_KEY="+strings.Repeat("c3", 32))
	if r := g.command(t, nil, "", "migrate"); r.code != 0 {
		t.Fatalf("gateway migrate: %+v", r)
	}
	old := g.serve(t)
	c := g.Demo
	g.setCredential(t, c, "up", movedSecret+"a")
	vaulted := g.with(v.env(v.addr)...)
	// 1. Copied, while a gateway uses the sealed ones.
	if got := vaulted.moveCredentials(t, 0, "-to", "vault", "-keep"); got.short(c) != "copied w1 s0 k0 r0" {
		t.Fatalf("move -keep: %+v", got)
	}
	g.chat(t, c.APIKey, "up/ok").want(t, "after the copy", http.StatusOK)
	// 2. Gateways with Vault take over.
	old.stop(t)
	next := vaulted.launch(t)
	vaulted.waitReady(t, next.ended)
	works := func(what string) {
		t.Helper()
		vaulted.chat(t, c.APIKey, "up/ok").want(t, what, http.StatusOK)
		if last, _ := up.Last(); last.Header.Get("Authorization") != "Bearer "+movedSecret+"a" {
			t.Errorf("%s the provider was sent another credential", what)
		}
	}
	works("with the copy")
	// 3. Removed, but killed before: the row is held, so the removal waits.
	conn := pgtest.As(t, db.AdminURL)
	hold, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := hold.Exec(t.Context(), "SELECT 1 FROM credential FOR UPDATE"); err != nil {
		t.Fatal(err)
	}
	watch := pgtest.As(t, db.AdminURL)
	vaulted.killed(t, func() bool {
		var waiting int
		err := watch.QueryRow(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'DELETE FROM credential %' AND datname = current_database()").Scan(&waiting)
		return err == nil && waiting == 1
	}, "credential", "move", "-to", "vault")
	if err := hold.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	sealed := func(want int) {
		t.Helper()
		eventually(t, 10*time.Second, fmt.Sprint(want, " sealed credentials"), func() bool {
			var n int
			err := watch.QueryRow(t.Context(), "SELECT count(*) FROM credential").Scan(&n)
			return err == nil && n == want
		})
	}
	works("after the kill")
	// The server may have removed it all the same, or not: it is read back.
	got := vaulted.moveCredentials(t, 0, "-to", "vault")
	if s := got.short(c); s != "moved w0 s1 k0 r1" && s != "" {
		t.Errorf("called again: %+v", got)
	}
	sealed(0)
	works("after the move")
	next.stop(t)
}
