package web

import (
	"slices"
	"strings"
	"testing"

	"bulkhead/fault"
	"bulkhead/tenant"
)

// Every route that a project's key is let in to is a part of the API, and the
// scopes of such a key are these parts.
func TestParts(t *testing.T) {
	all := parts(publicRoutes)
	want := []string{"api.agents.read", "api.agents.write", "api.files.read", "api.files.write", "api.model.read", "api.model.request",
		"api.responses.read", "api.responses.write", "api.vector_stores.read", "api.vector_stores.write"}
	for _, name := range want {
		if !slices.Contains(all, name) {
			t.Errorf("%s is missing in %v", name, all)
		}
	}
	for i := range publicRoutes {
		r := &publicRoutes[i]
		if writes := r.method != "GET" && !strings.HasSuffix(r.pattern, "/search"); writes && strings.HasSuffix(r.part(), ".read") {
			t.Errorf("%s %s is %s", r.method, r.pattern, r.part())
		}
	}
}

func TestKeyScopes(t *testing.T) {
	known := []string{"api.a.read", "api.a.write", "api.b.read"}
	f := func(given []string, want string) {
		t.Helper()
		got, err := keyScopes(&given, known)
		text := strings.Join(got, " ")
		if err != nil {
			text = fault.As(err).Param
		}
		if text != want {
			t.Errorf("%v: %q, want %q", given, text, want)
		}
	}
	f([]string{"api.a.write", "api.a.read", "api.a.write"}, "api.a.read api.a.write")
	f([]string{"api.all.read"}, "api.a.read api.b.read")
	f([]string{"api.all.read", "api.a.write"}, "api.a.read api.a.write api.b.read")
	f([]string{"api.all"}, "")
	f([]string{"api.all", "api.a.read"}, "scopes") // one says all, the other not
	f([]string{}, "scopes")
	f([]string{"api.c.read"}, "scopes")
	f([]string{""}, "scopes")
	if got, err := keyScopes(nil, known); got != nil || err != nil {
		t.Errorf("%v %v", got, err)
	}
	w := func(scopes, before []string, want bool) {
		t.Helper()
		if wider(scopes, before) != want {
			t.Errorf("%v after %v is wider: %t", scopes, before, !want)
		}
	}
	w(nil, nil, false)
	w(known, nil, false)
	w(nil, known, true)
	w(known[:1], known, false)
	w(known, known[:1], true)
}

// TestScopedCall: a key does what its scopes name and nothing else, at every
// endpoint, and what it may not reaches nobody.
func TestScopedCall(t *testing.T) {
	l := newLab(t, labOptions{})
	_, s := l.company("acme", tenant.KeyLive, nil)
	f := func(scopes []string, chat, models, response int) {
		t.Helper()
		key, k := l.world.AddKey(s, tenant.KeyLive, s.ProjectID())
		l.world.EditKey(s, k.ID, func(k *tenant.Key) { k.Rules.SetScopes(scopes) })
		before := len(l.up.Requests())
		if a := l.chat(key, "up/ok", ""); a.status != chat {
			t.Errorf("%v: %s", scopes, a)
		}
		if a := l.do("GET", key, "/v1/models", ""); a.status != models {
			t.Errorf("%v: %s", scopes, a)
		}
		if a := l.do("GET", key, "/v1/responses/resp_1", ""); a.status != response {
			t.Errorf("%v: %s", scopes, a)
		}
		if sent := len(l.up.Requests()) - before; (sent > 0) != (chat == 200) {
			t.Errorf("%v: %d requests reached the provider", scopes, sent)
		}
	}
	f(nil, 200, 200, 404)
	f([]string{"api.model.request"}, 200, 403, 403)
	f([]string{"api.model.read"}, 403, 200, 403)
	f([]string{"api.responses.read"}, 403, 403, 404)
	f([]string{"api.model.request", "api.model.read"}, 200, 200, 403)
	f([]string{"api.gone.read"}, 403, 403, 403) // of a release before or after this one
}
