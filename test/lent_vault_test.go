package test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bulkhead/test/upstream"
)

// TestLentVault runs a gateway with OpenBao under the policy that comes with the
// project: what is lent is there and nowhere else, is rotated and revoked through
// the API, is not taken from another's place, and moves to the store and back.
func TestLentVault(t *testing.T) {
	v := newMovingVault(t)
	up := upstream.New(t)
	g := prepare(t, "providers:\n  openai: {kind: openai, base_url: "+up.BaseURL()+"}\n")
	vaulted := g.with(v.env(v.addr)...)
	run := vaulted.serve(t)
	g.Demo, g.Operator = vaulted.Demo, vaulted.Operator
	c := g.newCompany(t, "c")
	g.call(t, http.MethodPut, g.OpsURL+"/admin/companies/"+c.ID+"/ceiling", g.Operator, map[string]any{"window": "month", "limit_usd": "10"}, nil)
	lend := func(secret string) (id string) {
		t.Helper()
		var o struct{ ID string }
		g.call(t, http.MethodPost, g.OpsURL+"/admin/credentials", g.Operator, map[string]any{"provider": "openai", "secret": secret, "all_companies": true}, &o)
		return o.ID
	}
	works := func(what, secret string) {
		t.Helper()
		g.chat(t, c.APIKey, "openai/"+paidModel).want(t, what, http.StatusOK)
		if last, _ := up.Last(); last.Header.Get("Authorization") != "Bearer "+secret {
			t.Errorf("%s: the provider was sent another credential", what)
		}
	}
	const at = "bulkhead/operator/providers/openai"
	inVault := func(want int) {
		t.Helper()
		v.ask(http.MethodGet, "secret/metadata/"+at, nil).want(t, "the secret in Vault", want)
	}
	id := lend(lentSecret + "-1")
	works("lent", lentSecret+"-1")
	if again := lend(lentSecret + "-2"); again != id {
		t.Error("the rotated credential is another")
	}
	works("rotated", lentSecret+"-2")
	inVault(http.StatusOK)

	// What another place of Vault has is not what is lent, and what is lent is
	// nobody's own: nothing is sent.
	restart := func() {
		t.Helper()
		run.stop(t)
		run = vaulted.launch(t) // with nothing in memory
		vaulted.waitReady(t, run.ended)
	}
	secretAt := func(path string) map[string]any {
		t.Helper()
		return data[map[string]any](t, v.ask(http.MethodGet, "secret/data/"+path, nil).want(t, path, http.StatusOK), "data", "data")
	}
	lentFields := secretAt(at)
	other := g.newCompany(t, "other")
	g.setCredential(t, other, "openai", "sk-own-of-the-other")
	swaps := map[string]map[string]any{
		at: secretAt("bulkhead/companies/" + other.ID + "/providers/openai"),
		"bulkhead/companies/" + other.ID + "/providers/openai": lentFields,
	}
	for path, fields := range swaps {
		v.ask(http.MethodPost, "secret/data/"+path, map[string]any{"data": fields}).want(t, "the swap", http.StatusOK)
	}
	restart()
	before := len(up.Requests())
	for _, c := range []company{c, other} {
		g.chat(t, c.APIKey, "openai/"+paidModel).want(t, "with another's secret", http.StatusInternalServerError)
	}
	if len(up.Requests()) != before {
		t.Error("another's secret was sent")
	}
	v.ask(http.MethodPost, "secret/data/"+at, map[string]any{"data": lentFields}).want(t, "put back", http.StatusOK)
	works("put back", lentSecret+"-2")

	// Moved to the store and back, as companies' credentials are.
	run.stop(t)
	move := func(want string, args ...string) {
		t.Helper()
		got := vaulted.moveCredentials(t, 0, args...)
		if state := got.short(company{ID: "operator"}); state != want || got.Failed != 0 {
			t.Errorf("move %v: %+v, want %q", args, got, want)
		}
	}
	blobs := func(want int) {
		t.Helper()
		if n := g.rows(t, "SELECT count(*) FROM lent_credential WHERE length(blob) > 0"); n != want {
			t.Errorf("%d secrets are sealed in the store, want %d", n, want)
		}
	}
	serves := func(with *gateway, what string) {
		t.Helper()
		p := with.launch(t)
		with.waitReady(t, p.ended)
		works(what, lentSecret+"-2")
		p.stop(t)
	}
	blobs(0)
	move("planned w1 s0 k0 r0", "-to", "sealed", "-company", "operator", "-dry-run")
	move("copied w1 s0 k0 r0", "-to", "sealed", "-company", "operator", "-keep")
	blobs(1)
	serves(g, "sealed")
	serves(vaulted, "in both, from Vault")
	move("moved w0 s1 k0 r1", "-to", "sealed", "-company", "operator")
	inVault(http.StatusNotFound)
	serves(g, "sealed alone")
	move("moved w1 s0 k0 r1", "-to", "vault", "-company", "operator")
	blobs(0)
	inVault(http.StatusOK)
	serves(vaulted, "in Vault alone")
	// A gateway without Vault has none then, and takes no other.
	p := g.launch(t)
	g.waitReady(t, p.ended)
	g.chat(t, c.APIKey, "openai/"+paidModel).want(t, "without Vault", http.StatusInternalServerError)
	p.stop(t)
	if n := g.rows(t, "SELECT count(*) FROM operator_act WHERE action = 'credential.move' AND company = ''"); n != 3 {
		t.Errorf("%d acts are recorded, want 3", n)
	}

	// Revoked: gone from Vault, and no call is made with it.
	run = vaulted.launch(t)
	vaulted.waitReady(t, run.ended)
	works("before it is revoked", lentSecret+"-2")
	g.call(t, http.MethodDelete, g.OpsURL+"/admin/credentials/"+id, g.Operator, nil, nil)
	inVault(http.StatusNotFound)
	eventually(t, 15*time.Second, "it is lent no more", func() bool { return g.chat(t, c.APIKey, "openai/"+paidModel).status == http.StatusNotFound })
	run.stop(t)
	if err := filepath.WalkDir(g.Data, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if err == nil && strings.Contains(string(b), lentSecret) {
			t.Errorf("%s holds the secret", d.Name())
		}
		return err
	}); err != nil {
		t.Error(err)
	}
	if log := g.log(t); strings.Contains(string(log), lentSecret) {
		t.Error("the log has the secret")
	}
}
