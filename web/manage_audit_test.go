package web

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"bulkhead/audit"
	"bulkhead/tenant"
)

// TestEventObject: OpenAI's shape, and who acted as well as it is known.
func TestEventObject(t *testing.T) {
	f := func(e audit.Record, want string) {
		t.Helper()
		e.ID, e.At = "audit_log-1", time.Unix(1_722_461_446, 999_000_000)
		got, err := json.Marshal(eventObject{e, "org-1"})
		must(t, err)
		want = `{"actor":` + want[:strings.Index(want, "|")] + `,"effective_at":1722461446,"id":"audit_log-1"` + want[strings.Index(want, "|")+1:] + `}`
		var g, w any
		must(t, json.Unmarshal(got, &g))
		must(t, json.Unmarshal([]byte(want), &w))
		if a, b := canonical(g), canonical(w); a != b {
			t.Errorf("got  %s\nwant %s", a, b)
		}
	}
	record := func(typ audit.Type, actor, object, detail string) audit.Record {
		return audit.Record{Event: audit.Event{Type: typ, Actor: actor, Object: object, Count: 3, Detail: detail}}
	}
	const admin = `{"type":"api_key","api_key":{"id":"key_1","type":"user","user":{"id":"org-1"}}}`
	r := record(audit.ProjectCreated, "key:key_1", "proj_1", `{"data":{"name":"n","title":"n"}}`)
	r.ProjectID, r.ProjectName = "proj_1", "n now"
	f(r, admin+`|,"type":"project.created","project.created":{"id":"proj_1","data":{"name":"n","title":"n"}},"project":{"id":"proj_1","name":"n now"}`)
	f(record(audit.RouteDeleted, "key:key_1", "fast", ""), admin+`|,"type":"route.deleted","route.deleted":{"id":"fast"}`)

	r = record(audit.AccessDenied, "key:key_1", "GET /", `{"minute":60,"codes":{"forbidden":3}}`)
	r.AccountID = "svc_acct_1"
	f(r, `{"type":"api_key","api_key":{"id":"key_1","type":"service_account","service_account":{"id":"svc_acct_1"}}}|`+
		`,"type":"access.denied","access.denied":{"id":"GET /","count":3,"minute":60,"codes":{"forbidden":3}}`)
	f(record(audit.AccessDenied, "claimed:key_1", "GET /", ""),
		`{"type":"api_key","proved":false,"api_key":{"id":"key_1"}}|,"type":"access.denied","access.denied":{"id":"GET /","count":3}`)
	f(record(audit.AccessDenied, "unknown", "*", ""),
		`{"type":"api_key","proved":false,"api_key":{}}|,"type":"access.denied","access.denied":{"id":"*","count":3}`)
	f(record(audit.CompanySuspended, "operator:key_9", "org-1", ""),
		`{"type":"api_key","operator":true,"api_key":{"id":"key_9"}}|,"type":"company.suspended","company.suspended":{"id":"org-1"}`)
	f(record(audit.CompanyCreated, "operator:gateway", "org-1", ""),
		`{"type":"api_key","operator":true,"api_key":{"id":"gateway"}}|,"type":"company.created","company.created":{"id":"org-1"}`)
	f(record(audit.CredentialUpdated, "gateway", "cred_1", ""),
		`{"type":"api_key","operator":true,"api_key":{"id":"gateway"}}|,"type":"credential.updated","credential.updated":{"id":"cred_1"}`)

	if _, err := json.Marshal(eventObject{record(audit.RouteDeleted, "gateway", "x", "no JSON"), "org-1"}); err == nil {
		t.Error("a row whose details are no JSON was shown")
	}
}

func canonical(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// auditSink keeps what a Tally writes, once it may.
type auditSink struct {
	mu   sync.Mutex
	rows map[string][]audit.Event // by company
	hold chan struct{}
}

func (s *auditSink) AppendAudit(ctx context.Context, company tenant.ID, rows []audit.Event) error {
	select {
	case <-s.hold:
	case <-ctx.Done():
		return ctx.Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rows[company.String()] = append(s.rows[company.String()], rows...)
	return nil
}

func (s *auditSink) KnownKeys(_ context.Context, _ tenant.ID, ids []string) ([]string, error) {
	return ids, nil
}

// TestDenied: refusals are counted for the company that the key names, while
// the log cannot be written, and requests do not wait for it.
func TestDenied(t *testing.T) {
	l := newLab(t, labOptions{})
	s := &auditSink{rows: map[string][]audit.Event{}, hold: make(chan struct{})}
	now := time.Now()
	l.g.Audit = audit.NewTally(s, audit.TallyOptions{Every: time.Millisecond, Now: func() time.Time {
		s.mu.Lock()
		defer s.mu.Unlock()
		return now
	}})
	live, acme := l.company("acme", tenant.KeyLive, nil)
	adminKey, _ := l.world.AddKey(acme, tenant.KeyAdmin, "")
	made, _ := l.world.Minter().Mint(acme, tenant.KeyLive) // has the form, and was never given out
	_, beta := l.company("beta", tenant.KeyLive, nil)

	f := func(a answerGot, status int) {
		t.Helper()
		if a.status != status {
			t.Errorf("%s, want %d", a, status)
		}
	}
	for range 3 {
		f(l.chat(live, "up/ok", ""), 200)                                       // none of what is allowed is counted
		f(l.do("POST", live, "/v1/chat/completions", `{"model":"up/ok"}`), 400) // nor what is only wrong
		f(l.chat(live, "no/such", ""), 404)
		f(l.chat(live, "no/such", streaming), 404)
		f(l.chat(adminKey, "up/ok", ""), 403)
		f(l.do("GET", live, "/v1/organization/projects", ""), 403)
		f(l.do("GET", live, "/v1/models/no/such", ""), 404)
		f(l.do("GET", live, "/v1/nowhere", ""), 404)                                  // no route: nobody looks at the key
		f(l.do("GET", "", "/v1/models", ""), 401)                                     // nobody's
		f(l.do("POST", "sk-nonsense", "/v1/embeddings", `{}`), 401)                   // nobody's
		f(l.do("POST", made, "/v1/embeddings", `{"model":"up/ok","input":"x"}`), 401) // named, not proved
	}
	s.mu.Lock()
	now = now.Add(2 * time.Minute) // from now on the Tally wants to write, and cannot
	s.mu.Unlock()
	f(l.chat(live, "no/such", ""), 404)
	close(s.hold)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	must(t, l.g.Audit.Close(ctx))
	var got []string
	for _, e := range s.rows[acme.ID().String()] {
		for code := range codesOf(t, e) {
			got = append(got, strings.Join([]string{string(e.Type), e.Object, e.Actor[:strings.Index(e.Actor, ":")], code, string('0' + rune(e.Count))}, " "))
		}
	}
	slices.Sort(got)
	want := []string{
		"access.denied GET /v1/models/{model...} key model_not_found 3",
		"access.denied GET /v1/organization/projects key admin_key_required 3",
		"access.denied POST /v1/chat/completions key admin_key_not_allowed 3",
		"access.denied POST /v1/chat/completions key model_not_found 1",
		"access.denied POST /v1/chat/completions key model_not_found 6",
		"access.denied POST /v1/embeddings claimed invalid_api_key 3",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if rows := s.rows[beta.ID().String()]; len(rows) > 0 || len(s.rows) != 1 {
		t.Errorf("rows of others: %v", s.rows)
	}
}

func codesOf(t *testing.T, e audit.Event) map[string]int64 {
	t.Helper()
	var d struct{ Codes map[string]int64 }
	must(t, json.Unmarshal([]byte(e.Detail), &d))
	return d.Codes
}
