package test

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// nothingKept looks for the providers' secrets and the keys of both companies
// in everything the gateway has written.
func (w *world) nothingKept(t *testing.T) {
	t.Helper()
	canaries := map[string]string{"the operator's key": w.g.Operator}
	for _, s := range []*side{w.a, w.b} {
		canaries["the provider's secret of "+s.letter] = s.secret
		canaries["the same in base64 of "+s.letter] = base64.StdEncoding.EncodeToString([]byte(s.secret))[:40]
		canaries["the live key of "+s.letter], canaries["the admin key of "+s.letter] = s.APIKey, s.AdminKey
		canaries["the random part of the live key of "+s.letter] = s.APIKey[len(s.APIKey)-49 : len(s.APIKey)-6]
	}
	look := func(where string, text []byte) {
		if len(text) == 0 && !strings.HasSuffix(where, "lock") && !strings.HasSuffix(where, "-wal") {
			t.Errorf("%s is empty, so nothing was looked at", where)
		}
		for what, canary := range canaries {
			if bytes.Contains(text, []byte(canary)) && !(what == "the operator's key" && where == "operator.key") {
				t.Errorf("%s stands in %s", what, where)
			}
		}
	}
	look("the log", w.g.log(t))
	look("the metrics", ask(t, http.MethodGet, w.g.OpsURL+"/metrics", "", nil).body)
	files := 0
	err := filepath.WalkDir(w.g.Data, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		files++
		look(filepath.Base(path), text)
		return nil
	})
	if err != nil || files < 4 {
		t.Errorf("%d files of the data folder were looked at: %v", files, err)
	}
	db, err := os.ReadFile(filepath.Join(w.g.Data, "bulkhead.db"))
	wal, walErr := os.ReadFile(filepath.Join(w.g.Data, "bulkhead.db-wal"))
	if err != nil || walErr != nil || !bytes.Contains(append(db, wal...), []byte(w.a.ID)) {
		t.Errorf("the database was not looked at as it is: %v %v", err, walErr)
	}
}

// TestLyingKeys sends keys whose parts belong to different companies, kinds and
// keys, with the checksum made right. All get the answer of a key that never was.
func TestLyingKeys(t *testing.T) {
	w := newWorld(t)
	type parts struct{ kind, locator, id, secret string }
	cut := func(key string) parts {
		p := strings.SplitN(strings.TrimPrefix(key, "sk-bh-"), "-", 4)
		return parts{p[0], p[1], p[2], p[3]}
	}
	join := func(p parts) string {
		return resum("sk-bh-" + p.kind + "-" + p.locator + "-" + p.id + "-" + p.secret)
	}
	addresses := []struct{ method, path string }{
		{http.MethodGet, "/v1/models"}, {http.MethodGet, "/v1/organization/projects"}, {http.MethodPost, "/v1/chat/completions"},
	}
	body := chatBody("shared", "Hello")
	try := func(path, method, key string) answer {
		if method == http.MethodGet {
			return ask(t, method, w.g.URL+path, key, nil)
		}
		return ask(t, method, w.g.URL+path, key, body)
	}
	f := func(what string, lie parts) {
		t.Helper()
		never := lie
		never.id, never.secret = strings.Repeat("0", 12), strings.Repeat("0", len(lie.secret))
		for _, at := range addresses {
			got := try(at.path, at.method, join(lie))
			if got.status != http.StatusUnauthorized {
				t.Errorf("%s: %s answers %d, want 401", what, at.path, got.status)
			}
			if want := try(at.path, at.method, join(never)); plain(got, nil) != plain(want, nil) {
				t.Errorf("%s: %s tells it from a key that never was:\n%s\n%s", what, at.path, plain(got, nil), plain(want, nil))
			}
		}
	}
	keys := func(s *side) []parts { return []parts{cut(s.APIKey), cut(s.TestKey), cut(s.AdminKey)} }
	if join(cut(w.a.APIKey)) != w.a.APIKey {
		t.Fatal("a key taken apart is not put together again: the test lies")
	}
	for i, a := range keys(w.a) {
		b := keys(w.b)[i]
		f("A's locator with B's id and secret", parts{a.kind, a.locator, b.id, b.secret})
		f("B's locator with A's id and secret", parts{a.kind, b.locator, a.id, a.secret})
		f("A's locator and id with B's secret", parts{a.kind, a.locator, a.id, b.secret})
		f("A's locator and secret with B's id", parts{a.kind, a.locator, b.id, a.secret})
		f("a locator of nobody", parts{a.kind, "zzzzzzzzzz", a.id, a.secret})
		for _, other := range keys(w.a) {
			if other.kind != a.kind {
				f("A's "+a.kind+" key said to be "+other.kind, parts{other.kind, a.locator, a.id, a.secret})
				f("A's "+a.kind+" key with the id of its "+other.kind+" key", parts{a.kind, a.locator, other.id, a.secret})
			}
		}
	}
	if n := len(w.up.Requests()); n != 0 {
		t.Errorf("%d requests of lying keys reached the upstream", n)
	}
	// What was refused in between must not have shut out who is right.
	for _, s := range []*side{w.a, w.b} {
		w.g.chat(t, s.APIKey, "shared").want(t, "the right key of "+s.letter, http.StatusOK)
	}
}

// TestCompanyCredential calls every endpoint as both companies by the same names
// and looks at which secret the upstream saw for whom.
func TestCompanyCredential(t *testing.T) {
	w := newWorld(t)
	whose := map[string]string{"Bearer " + w.a.secret: "a", "Bearer " + w.b.secret: "b"}
	calls := 0
	for _, model := range []string{"up/ok", "shared", "fallback"} {
		for range 3 {
			for _, s := range []*side{w.a, w.b} {
				mark := "said by " + s.letter
				chat := chatBody(model, mark)
				stream := chatBody(model, mark)
				stream["stream"] = true
				for path, body := range map[string]any{
					"chat/completions": chat, "chat/completions?stream": stream,
					"completions": map[string]any{"model": model, "prompt": mark},
					"embeddings":  map[string]any{"model": model, "input": mark},
					"moderations": map[string]any{"model": model, "input": mark},
				} {
					ask(t, http.MethodPost, w.g.URL+"/v1/"+path, s.APIKey, body).want(t, path+" "+model+" of "+s.letter, http.StatusOK)
					calls++
				}
			}
		}
	}
	seen := map[string]int{}
	for _, r := range w.up.Requests() {
		_, by, _ := bytes.Cut(r.Body, []byte("said by "))
		owner := whose[r.Header.Get("Authorization")]
		seen[owner]++
		if len(by) == 0 || owner != string(by[:1]) {
			t.Errorf("a call of company %.1s came with the credential of %q", by, owner)
		}
	}
	// A third goes to two targets, until the first has failed five times in a row:
	// then each company passes it over, for itself.
	if want := calls/2 + 5; seen["a"] != want || seen["b"] != want {
		t.Errorf("the upstream saw %v, want %d of each company", seen, want)
	}
	w.unknownModels(t)
	w.foreignResponses(t)

	// What a provider says about the secret it was sent is not passed on.
	for _, s := range []*side{w.a, w.b} {
		if a := w.g.chat(t, s.APIKey, "up/echo-key"); bytes.Contains(a.body, []byte(s.secret)) {
			t.Errorf("the provider's secret of %s came back in an error (status %d)", s.letter, a.status)
		}
	}
	eventually(t, 5*time.Second, "the ledger is written", func() bool {
		return bytes.Contains(ask(t, http.MethodGet, w.g.OpsURL+"/metrics", "", nil).body, []byte("\nbulkhead_ledger_queued_entries 0"))
	})
	w.nothingKept(t)
}

// foreignResponses goes on as A from what only B has been answered.
func (w *world) foreignResponses(t *testing.T) {
	t.Helper()
	before := len(w.up.Requests())
	goOn := func(id string) string {
		t.Helper()
		body := map[string]any{"model": "shared", "input": "Hello", "previous_response_id": id}
		a := ask(t, http.MethodPost, w.g.URL+"/v1/responses", w.a.APIKey, body)
		return plain(a.want(t, "going on from "+id, http.StatusNotFound), []string{id})
	}
	id := w.b.stable["response"+w.b.ProjectID]
	if foreign, never := goOn(id), goOn(likeness(id)); foreign != never {
		t.Errorf("a foreign response is told from one that never was:\n%s\n%s", foreign, never)
	}
	if n := len(w.up.Requests()); n != before {
		t.Errorf("%d requests that go on from a response of B reached the upstream", n-before)
	}
}

// unknownModels asks as A for what only B has, in every way a model is named.
func (w *world) unknownModels(t *testing.T) {
	t.Helper()
	before := len(w.up.Requests())
	w.g.setRoute(t, w.a.company, "to-b", "only-b/ok")
	ours := plain(w.g.chat(t, w.a.APIKey, "nobody/ok").want(t, "a model of no provider", http.StatusNotFound), []string{"nobody/ok"})
	f := func(model string) {
		t.Helper()
		a := w.g.chat(t, w.a.APIKey, model)
		got := plain(a, []string{model})
		// Names differ in length, and the length is in the header.
		if strip(got) != strip(ours) || a.status != http.StatusNotFound {
			t.Errorf("%s is told from a model that never was:\n%s\n%s", model, got, ours)
		}
		get := ask(t, http.MethodGet, w.g.URL+"/v1/models/"+model, w.a.APIKey, nil)
		if get.status != http.StatusNotFound {
			t.Errorf("GET /v1/models/%s: status %d, want 404", model, get.status)
		}
	}
	f("only-b/ok")
	f("to-b")
	f(foreignRoute(w.b))
	f("agent/" + w.b.ID)
	f(w.b.ID + "/shared")
	if n := len(w.up.Requests()); n != before {
		t.Errorf("%d requests for models of B reached the upstream", n-before)
	}
	w.g.chat(t, w.b.APIKey, "only-b/ok").want(t, "B's own provider", http.StatusOK)
	for _, s := range []*side{w.a, w.b} {
		list := ask(t, http.MethodGet, w.g.URL+"/v1/models", s.APIKey, nil).body
		other := w.a
		if s == w.a {
			other = w.b
		}
		if !bytes.Contains(list, []byte(foreignRoute(s))) || bytes.Contains(list, []byte(foreignRoute(other))) {
			t.Errorf("the models of %s: %s", s.letter, list)
		}
	}
}

// strip drops the line with the content length.
func strip(plain string) string {
	var out []string
	for line := range strings.Lines(plain) {
		if !strings.HasPrefix(line, "Content-Length:") {
			out = append(out, line)
		}
	}
	return fmt.Sprint(out)
}

// TestOnlyTheKeyDecides asks as A with B's names in every other place of a
// request.
func TestOnlyTheKeyDecides(t *testing.T) {
	w := newWorld(t)
	send := func(path, body string, header map[string]string) answer {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.g.URL+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		for name, v := range header {
			req.Header.Set(name, v)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return answer{resp.StatusCode, resp.Header, text}
	}
	const chat = "/v1/chat/completions"
	const plainBody = `{"model":"shared","messages":[{"role":"user","content":"Hello"}]}`
	bearer := "Bearer " + w.a.APIKey
	f := func(what, path, body string, header map[string]string) {
		t.Helper()
		w.up.Reset()
		a := send(path, body, header)
		all := w.up.Requests()
		if a.status != http.StatusOK || len(all) != 1 || all[0].Header.Get("Authorization") != "Bearer "+w.a.secret {
			t.Errorf("%s: status %d, %d calls, want one with A's credential: %s", what, a.status, len(all), a.body)
			return
		}
		for _, values := range all[0].Header {
			for _, v := range values {
				if strings.Contains(v, w.a.APIKey) || strings.Contains(v, w.b.APIKey) || strings.Contains(v, w.b.ID) {
					t.Errorf("%s: the upstream was sent %q", what, v)
				}
			}
		}
	}
	f("nothing of B", chat, plainBody, map[string]string{"Authorization": bearer})
	f("B's organization and project", chat, plainBody, map[string]string{
		"Authorization": bearer, "OpenAI-Organization": w.b.ID, "OpenAI-Project": w.b.ProjectID, "X-Company-Id": w.b.ID})
	f("B's key in other headers", chat, plainBody, map[string]string{
		"Authorization": bearer, "X-Api-Key": w.b.APIKey, "Api-Key": w.b.APIKey, "X-Goog-Api-Key": w.b.APIKey})
	f("B's names in the query", chat+"?company_id="+w.b.ID+"&project="+w.b.ProjectID+"&api_key="+w.b.APIKey+"&key="+w.b.APIKey, plainBody,
		map[string]string{"Authorization": bearer})
	f("B's names in the body", chat, strings.TrimSuffix(plainBody, "}")+fmt.Sprintf(`,"organization":%q,"project":%q,"company_id":%q,"user":%q,"metadata":{"company":%q}}`,
		w.b.ID, w.b.ProjectID, w.b.ID, w.b.ID, w.b.ID), map[string]string{"Authorization": bearer})
	f("A's key in a header of another SDK", chat, plainBody, map[string]string{"X-Api-Key": w.a.APIKey})

	w.up.Reset()
	for what, header := range map[string]map[string]string{
		"another scheme, and a key in another header": {"Authorization": "Basic " + w.a.APIKey, "X-Api-Key": w.b.APIKey},
		"two keys in one header":                      {"Authorization": bearer + ", Bearer " + w.b.APIKey},
		"a key in the query":                          {},
	} {
		if a := send(chat+"?api_key="+w.a.APIKey, plainBody, header); a.status != http.StatusUnauthorized {
			t.Errorf("%s: status %d, want 401", what, a.status)
		}
	}
	if n := len(w.up.Requests()); n != 0 {
		t.Errorf("%d refused calls reached the upstream", n)
	}
}

// TestPathsDoNotWander spells the path of B's objects in ways that a careless
// router would read as A's.
func TestPathsDoNotWander(t *testing.T) {
	w := newWorld(t)
	before := w.snapshot(t, w.b)
	a, b := w.a.ProjectID, w.b.ProjectID
	base := "/v1/organization/projects/"
	for _, path := range []string{
		base + a + "/../" + b, base + a + "/%2e%2e/" + b, base + a + "%2F..%2F" + b, base + a + "/..%2f" + b + "/api_keys",
		base + "./" + b, base + "/" + b, base + b + "/", base + b + "/.", base + b + "%00", base + b + ";", base + b + "%20",
		base + b + "?project=" + a, base + a + "%2F" + b, "/v1/organization//projects//" + b, "/V1/organization/projects/" + b,
		base + b + "/api_keys/" + w.b.stable["key"+b], base + a + "/api_keys/" + w.b.stable["key"+b],
		base + a + "/api_keys/..%2F..%2F" + b + "%2Fapi_keys%2F" + w.b.stable["key"+b],
	} {
		for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodDelete} {
			var body any
			if method == http.MethodPost {
				body = map[string]string{"name": "taken over"}
			}
			got := ask(t, method, w.g.URL+path, w.a.AdminKey, body)
			if got.status != http.StatusNotFound && got.status != http.StatusMethodNotAllowed {
				t.Errorf("%s %s: status %d: %s", method, path, got.status, tail(got.body, 300))
			}
		}
	}
	w.unchanged(t, w.b, before)
}
