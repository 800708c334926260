package test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"bulkhead/tenant/tenanttest"
)

// TestIdentityFleet: a rule that is made at one gateway lets in at all, a key that
// one has given out is a key at all, and what is disabled at one is refused at all,
// also the keys that were given out before, within the time of a change.
func TestIdentityFleet(t *testing.T) {
	f := newFleet(t, nil, fleetOptions{config: "upstream: {allow_private: true}\n"})
	m, issuer := f.members[0], tenanttest.NewIssuer(t, (*httptest.Server).Start)
	var account, provider, rule struct{ ID string }
	one := f.all[0]
	one.org(t, m.company, http.MethodPost, "/projects/"+m.ProjectID+"/service_accounts", map[string]any{"name": "ci", "create_service_account_only": true}, &account)
	one.org(t, m.company, http.MethodPost, "/workload_identity_providers", map[string]any{"name": "CI", "type": "oidc", "issuer": issuer.Name, "audience": m.audience()}, &provider)
	rules := "/workload_identity_providers/" + provider.ID + "/federation_rules"
	one.org(t, m.company, http.MethodPost, rules, map[string]any{"attribute_matchers": map[string]any{"sub": "ann"},
		"project_id": m.ProjectID, "service_account_id": account.ID}, &rule)
	token := issuer.Token(m.audience(), "ann")
	everywhere3 := func(what, key string, want int) {
		t.Helper()
		for i, g := range f.all {
			eventually(t, everywhere, fmt.Sprintf("%s, at gateway %d", what, i), func() bool { return g.chat(t, key, "up/ok").status == want })
		}
	}
	everywhere3("the token is let in", token, http.StatusOK)
	exchanged := func(i int) (key string) {
		t.Helper()
		var out struct {
			Key string `json:"access_token"`
		}
		a := ask(t, http.MethodPost, f.all[i].URL+tokenPath, "", map[string]any{"grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
			"subject_token_type": "urn:ietf:params:oauth:token-type:jwt", "subject_token": token, "identity_provider_id": provider.ID, "service_account_id": account.ID})
		a.want(t, "an exchange", http.StatusOK)
		if err := json.Unmarshal(a.body, &out); err != nil || out.Key == "" {
			t.Fatalf("%s: %v", a.body, err)
		}
		return out.Key
	}
	key := exchanged(2)
	everywhere3("a key of gateway 2 is let in", key, http.StatusOK)

	one.org(t, m.company, http.MethodPost, rules+"/"+rule.ID, map[string]any{"enabled": false}, nil)
	everywhere3("the token of a disabled rule is refused", token, http.StatusForbidden)
	everywhere3("the key of a disabled rule is refused", key, http.StatusUnauthorized)
	one.org(t, m.company, http.MethodPost, rules+"/"+rule.ID, map[string]any{"enabled": true}, nil)
	everywhere3("the token is let in again", token, http.StatusOK)
	for range 3 { // what was given out before stays void
		everywhere3("the old key is refused", key, http.StatusUnauthorized)
	}
	key = exchanged(1)
	everywhere3("a key of gateway 1 is let in", key, http.StatusOK)
	one.org(t, m.company, http.MethodDelete, "/workload_identity_providers/"+provider.ID, nil, nil)
	everywhere3("the token without a provider is refused", token, http.StatusUnauthorized)
	everywhere3("the key without a provider is refused", key, http.StatusUnauthorized)
}
