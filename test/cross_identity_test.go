package test

import (
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"bulkhead/tenant"
	"bulkhead/tenant/tenanttest"
)

const tokenPath = "/v1/oauth/token"

// audience is the company's own.
func (c company) audience() string { return "bulkhead:" + c.ID[len("org-"):] }

// providerBody is a provider whose keys were uploaded.
func providerBody(s *side, issuer string) any {
	return map[string]any{"name": "Same issuer", "type": "oidc", "issuer": issuer, "audience": s.audience(),
		"verification": map[string]any{"type": "uploaded_jwks", "jwks": json.RawMessage(s.issuer.JWKS())}}
}

// ruleBody lets in "ann" for an account that no test changes.
func ruleBody(s *side) any {
	return map[string]any{"attribute_matchers": map[string]any{"sub": "ann"}, "project_id": s.projects[0],
		"service_account_id": s.stable["account"+s.projects[0]]}
}

func exchangeBody(s *side) map[string]any {
	return map[string]any{"grant_type": "urn:ietf:params:oauth:grant-type:token-exchange", "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
		"subject_token": s.issuer.Token(s.audience(), "ann"), "identity_provider_id": s.provider, "service_account_id": s.stable["account"+s.projects[0]]}
}

// tokensOf are tokens of what the company trusts, as each kind of rule lets them in,
// and a key that is given out for one.
func (w *world) tokensOf(t *testing.T, s *side) (all []caller) {
	t.Helper()
	rule := func(subject string, p tenant.Permissions) {
		t.Helper()
		w.create(t, s, "/workload_identity_providers/"+s.provider+"/federation_rules", map[string]any{
			"attribute_matchers": map[string]any{"sub": subject}, "project_id": s.projects[0], "service_account_id": s.stable["account"+s.projects[0]],
			"permissions": map[string]any{"type": "restricted", "scopes": p.Names()}})
	}
	project := func(id string) tenant.Permissions { o, _ := tenant.BuiltInRole(id); return o.Permissions }
	rule("owner", project(tenant.RoleProjectOwner))
	rule("member", project(tenant.RoleProjectMember))
	rule("reader", tenant.KeysRead|tenant.UsageRead)
	for _, of := range []struct {
		name, subject string
		holds         tenant.Permissions
	}{
		{"a token", "ann", tenant.ModelRequest},
		{"a token of a project's owner", "owner", project(tenant.RoleProjectOwner)},
		{"a token of a project's member", "member", project(tenant.RoleProjectMember)},
		{"a token that reads only", "reader", tenant.KeysRead | tenant.UsageRead},
	} {
		all = append(all, caller{name: of.name, key: w.issuer.Token(s.audience(), of.subject), kind: tenant.KeyLive, token: true, holds: of.holds})
	}
	var out struct {
		Key string `json:"access_token"`
	}
	w.g.call(t, http.MethodPost, w.g.URL+tokenPath, "", exchangeBody(s), &out)
	all = append(all, caller{name: "a key given out for a token", key: out.Key, kind: tenant.KeyLive, token: true, holds: tenant.ModelRequest})
	old := w.issuer.Claims(s.audience(), "ann")
	old["iat"], old["exp"] = time.Now().Add(-2*time.Hour).Unix(), time.Now().Add(-time.Hour).Unix()
	return append(all,
		caller{name: "an expired token", key: w.issuer.Sign("first", nil, old), kind: tenant.KeyLive, token: true, unknown: true},
		caller{name: "a token for nobody", key: w.issuer.Token("bulkhead:0000000000", "ann"), kind: tenant.KeyLive, token: true, unknown: true},
		caller{name: "a token that no rule lets in", key: w.issuer.Token(s.audience(), "bob"), kind: tenant.KeyLive, token: true, blocked: true})
}

// TestCrossTokens: both companies trust one issuer, with the same keys and the same
// subjects. A token is for the one company that it is made for, whatever ids it
// is shown with; so is a key that was given out for one.
func TestCrossTokens(t *testing.T) {
	w := newWorld(t)
	evil := tenanttest.NewKey(t, "ES256")
	for _, pair := range [][2]*side{{w.a, w.b}, {w.b, w.a}} {
		own, other := pair[0], pair[1]
		token := w.issuer.Token(own.audience(), "ann")
		f := func(what, bearer string, want int) {
			t.Helper()
			before := w.ofCompany(t)
			w.g.chat(t, bearer, "shared").want(t, what, want)
			for id, n := range w.ofCompany(t) {
				if grew := n > before[id]; grew != (want == http.StatusOK && id == own.secret) {
					t.Errorf("%s: calls with the secret %q went from %d to %d", what, id, before[id], n)
				}
			}
		}
		f("a token", token, http.StatusOK)
		f("a token for both", w.issuer.Token([]string{own.audience(), other.audience()}, "ann"), http.StatusUnauthorized)
		f("a token for nobody", w.issuer.Token("bulkhead:0000000000", "ann"), http.StatusUnauthorized)
		f("a token with another key", tenanttest.SignWith(t, "first", evil, nil, w.issuer.Claims(own.audience(), "ann")), http.StatusUnauthorized)
		f("a token of somebody else", w.issuer.Token(own.audience(), "bob"), http.StatusForbidden)
		if a := ask(t, http.MethodGet, w.g.URL+"/v1/organization/projects", token, nil); a.status != http.StatusForbidden {
			t.Errorf("a token manages the company: %d", a.status)
		}

		body := exchangeBody(own)
		var out struct {
			Key     string `json:"access_token"`
			Seconds int    `json:"expires_in"`
		}
		a := ask(t, http.MethodPost, w.g.URL+tokenPath, "", body).want(t, "an exchange", http.StatusOK)
		if err := json.Unmarshal(a.body, &out); err != nil || out.Seconds <= 0 || out.Seconds > 3600 || a.header.Get("Cache-Control") != "no-store" {
			t.Fatalf("%s: %v, %v", a.body, err, a.header)
		}
		f("a key given out", out.Key, http.StatusOK)
		// With one thing of the other company's: the same answer as with nobody's.
		refused := func(name string, foreign, random any) {
			t.Helper()
			answer := func(v any) string {
				body := exchangeBody(own)
				body[name] = v
				a := ask(t, http.MethodPost, w.g.URL+tokenPath, "", body).want(t, name, http.StatusBadRequest)
				var e map[string]string
				if err := json.Unmarshal(a.body, &e); err != nil || len(e) != 2 || e["error"] == "" || e["error_description"] == "" {
					t.Errorf("%s: not OAuth's form: %s", name, a.body)
				}
				return string(a.body)
			}
			if x, y := answer(foreign), answer(random); x != y {
				t.Errorf("%s of the other company is told from one that never was:\n%s\n%s", name, x, y)
			}
		}
		refused("identity_provider_id", other.provider, likeness(other.provider))
		refused("service_account_id", other.stable["account"+other.projects[0]], likeness(other.stable["account"+other.projects[0]]))
		forged := func(audience string) string {
			return tenanttest.SignWith(t, "first", evil, nil, w.issuer.Claims(audience, "ann"))
		}
		refused("subject_token", forged(other.audience()), forged("bulkhead:zzzzzzzzzz"))
	}
	w.nothingKept(t)
}

// ofCompany counts the calls that reached the upstream by the secret they came with.
func (w *world) ofCompany(t *testing.T) map[string]int {
	t.Helper()
	n := map[string]int{w.a.secret: 0, w.b.secret: 0}
	for _, r := range w.up.Requests() {
		for secret := range n {
			if r.Header.Get("Authorization") == "Bearer "+secret {
				n[secret]++
			}
		}
	}
	return n
}
