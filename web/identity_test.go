package web

import (
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"bulkhead/tenant"
	"bulkhead/tenant/tenanttest"
)

// trusting is a company with a live key that trusts an issuer, and a token of it.
func (l *lab) trusting(edit func(*tenant.IdentityProvider, *tenant.FederationRule)) (i *tenanttest.Issuer, s tenant.Scope, token string) {
	l.t.Helper()
	i = tenanttest.NewIssuer(l.t, (*httptest.Server).Start)
	_, s = l.company("acme", tenant.KeyLive, nil)
	l.world.Trust(s, i, i.JWKS(), "ann", edit)
	return i, s, i.Token(s.ID().Audience(), "ann")
}

// The end user of a token is its subject, whatever the request says, and the rule
// is booked where a key would be.
func TestTokenCall(t *testing.T) {
	l := newLab(t, labOptions{})
	i, s, token := l.trusting(nil)
	for _, key := range []string{token, l.exchange(s, token)} {
		if a := l.chat(key, "up/ok", `,"user":"bob","safety_identifier":"eve"`); a.status != 200 {
			t.Fatalf("%s", a)
		}
	}
	all := l.booked()
	for _, e := range all {
		if e.UserID != tenant.UserID(s, i.Name+"#ann") || e.KeyID != "rule_"+s.ID().Locator() || e.ProjectID != "proj_"+s.ID().Locator() {
			t.Errorf("booked %+v", e)
		}
	}
	if len(all) != 2 {
		t.Errorf("%d entries", len(all))
	}
	for _, line := range []string{fmt.Sprint(l.lines(2)), fmt.Sprint(all)} {
		if strings.Contains(line, token[:20]) || strings.Contains(line, "#ann") {
			t.Error("something of the token is written down")
		}
	}
	if n := l.metric("bulkhead_identity_keys_issued_total"); n != 1 {
		t.Errorf("%v keys are counted", n)
	}
}

// TestTokenWithoutModels: a rule that does not name the permission lets nobody
// call models.
func TestTokenWithoutModels(t *testing.T) {
	l := newLab(t, labOptions{})
	_, s, token := l.trusting(func(_ *tenant.IdentityProvider, r *tenant.FederationRule) {
		r.Scopes = []string{tenant.KeysRead.String()}
	})
	for _, key := range []string{token, l.exchange(s, token)} {
		if a := l.chat(key, "up/ok", ""); a.status != 403 || !strings.Contains(a.body, "permission_required") {
			t.Errorf("%s", a)
		}
	}
	l.nothingSent()
}

// exchange returns the key that is given out for a token.
func (l *lab) exchange(s tenant.Scope, token string) string {
	l.t.Helper()
	body, err := json.Marshal(grant(s, token))
	must(l.t, err)
	var out exchangeAnswer
	a := l.do("POST", "", tokenPath, string(body), "Content-Type", "application/json")
	if err := json.Unmarshal([]byte(a.body), &out); a.status != 200 || err != nil || out.TokenType != "Bearer" || out.IssuedType != typeAccess {
		l.t.Fatalf("%s", a)
	}
	return out.AccessToken
}

func grant(s tenant.Scope, token string) map[string]string {
	return map[string]string{"grant_type": grantExchange, "subject_token": token, "subject_token_type": typeJWT,
		"identity_provider_id": "wip_" + s.ID().Locator(), "service_account_id": "svc_acct_1"}
}

// TestExchangeForm: what is taken as a request for a key, and how the rest is
// refused.
func TestExchangeForm(t *testing.T) {
	l := newLab(t, labOptions{})
	_, s, token := l.trusting(nil)
	ask := func(contentType, body string) answerGot {
		return l.do("POST", "", tokenPath, body, "Content-Type", contentType)
	}
	f := func(contentType, body string, status int, code string) {
		t.Helper()
		a := ask(contentType, body)
		var e struct{ Error string }
		if a.status != status || status != 200 && (json.Unmarshal([]byte(a.body), &e) != nil || e.Error != code || !strings.Contains(a.body, "error_description")) {
			t.Errorf("%.200s: %s", body, a)
		}
		if a.header.Get("Cache-Control") != "no-store" || a.header.Get("X-Request-Id") == "" {
			t.Errorf("%.200s: %v", body, a.header)
		}
	}
	form := url.Values{}
	for name, v := range grant(s, token) {
		form.Set(name, v)
	}
	const asForm, asJSON = "application/x-www-form-urlencoded", "application/json"
	f(asForm, form.Encode(), 200, "")
	f(asForm+"; charset=utf-8", form.Encode()+"&unknown=1&scope=api.everything", 200, "")
	f(asForm, form.Encode()+"&grant_type=x", 400, "invalid_request") // twice
	f("text/plain", form.Encode(), 400, "invalid_request")
	f(asForm, "%zz", 400, "invalid_request")
	f(asForm, "", 400, "invalid_request")
	with := func(name string, v any) string {
		all := map[string]any{}
		for n, v := range grant(s, token) {
			all[n] = v
		}
		all[name] = v
		if v == nil {
			delete(all, name)
		}
		b, err := json.Marshal(all)
		must(t, err)
		return string(b)
	}
	f(asJSON, with("client_id", "x"), 200, "")
	f(asJSON, with("subject_token_type", typeIDToken), 200, "")
	f(asJSON, with("requested_token_type", typeAccess), 200, "")
	f(asJSON, with("grant_type", "client_credentials"), 400, "unsupported_grant_type")
	f(asJSON, with("requested_token_type", "urn:ietf:params:oauth:token-type:refresh_token"), 400, "invalid_request")
	f(asJSON, with("subject_token_type", "urn:ietf:params:oauth:token-type:saml2"), 400, "invalid_request")
	f(asJSON, with("actor_token", "x"), 400, "invalid_request")
	f(asJSON, with("subject_token", "x.y.z"), 400, "invalid_subject_token")
	f(asJSON, with("subject_token", "sk-bh-live-x"), 400, "invalid_subject_token")
	f(asJSON, with("subject_token", strings.Repeat("x", 9000)+".y.z"), 400, "invalid_subject_token")
	f(asJSON, with("service_account_id", "svc_acct_2"), 400, "invalid_grant")
	f(asJSON, with("identity_provider_id", "wip_other"), 400, "invalid_grant")
	for _, name := range []string{"grant_type", "subject_token", "subject_token_type", "identity_provider_id", "service_account_id"} {
		f(asJSON, with(name, nil), 400, "invalid_request")
		f(asJSON, with(name, 1), 400, "invalid_request")
	}
	whole := with("", "x")
	f(asJSON, `{"grant_type":"x",`+whole[1:], 400, "invalid_request") // twice
	f(asJSON, whole+"{}", 400, "invalid_request")
	f(asJSON, "["+whole+"]", 400, "invalid_request")
	f(asJSON, strings.Repeat("[", 100_000), 400, "invalid_request")
	f(asJSON, strings.Repeat(" ", 2<<20), 413, "invalid_request")
	// The key of somebody else beside it changes nothing.
	if a := l.do("POST", "garbage", tokenPath, whole, "Content-Type", asJSON); a.status != 200 {
		t.Errorf("%s", a)
	}
}

// FuzzExchangeForm: a parameter is one text or is not there, in both forms.
func FuzzExchangeForm(f *testing.F) {
	f.Add("application/json", `{"grant_type":"x","n":1,"o":{}}`)
	f.Add("application/json", `{"a":"1","a":"2"}`)
	f.Add("application/x-www-form-urlencoded", "a=1&b=2&a=3")
	f.Add("application/x-www-form-urlencoded; x", "a=1;b")
	f.Fuzz(func(t *testing.T, contentType, body string) {
		form, err := parseForm(contentType, []byte(body))
		if (form == nil) == (err == nil) {
			t.Fatalf("%q: %v, %v", body, form, err)
		}
		_ = checkGrant(form)
	})
}
