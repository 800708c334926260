package test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"bulkhead/test/upstream"
)

// keyGateway serves with a provider whose model "whoami" answers with the
// secret that it was sent.
func keyGateway(t *testing.T) (*gateway, *upstream.Server) {
	t.Helper()
	up := upstream.New(t)
	handleWhoami(up)
	g := prepare(t, "providers:\n  up: {kind: custom, base_url: "+up.BaseURL()+"}\n")
	g.serve(t)
	return g, up
}

// handleWhoami teaches the upstream the model "whoami".
func handleWhoami(up *upstream.Server) {
	up.Handle("whoami", func(c *upstream.Call) {
		_, secret, _ := strings.Cut(c.R.Header.Get("Authorization"), "Bearer ")
		if c.Stream {
			c.StartStream()
			c.Event(fmt.Appendf(nil, `{"id":"c","object":"chat.completion.chunk","created":1,"model":"whoami","choices":[{"index":0,"delta":{"content":%q},"finish_reason":"stop"}]}`, secret))
			c.Event([]byte("[DONE]"))
			return
		}
		c.JSON(http.StatusOK, map[string]any{
			"id": "c", "object": "chat.completion", "created": 1, "model": "whoami",
			"choices": []any{map[string]any{"index": 0, "message": map[string]string{"role": "assistant", "content": secret}, "finish_reason": "stop"}},
			"usage":   map[string]int{"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
		})
	})
}

// newKey makes a service account with a key in the company's first project.
func (g *gateway) newKey(t *testing.T, c company, more map[string]any) (id, value string) {
	t.Helper()
	body := map[string]any{"name": "made for a test"}
	for k, v := range more {
		body[k] = v
	}
	var o struct {
		Key struct{ ID, Value string } `json:"api_key"`
	}
	g.call(t, http.MethodPost, g.URL+"/v1/organization/projects/"+c.ProjectID+"/service_accounts", c.AdminKey, body, &o)
	return o.Key.ID, o.Key.Value
}

// org sends a request below /v1/organization as the company's admin.
func (g *gateway) org(t *testing.T, c company, method, path string, body, out any) {
	t.Helper()
	g.call(t, method, g.URL+"/v1/organization"+path, c.AdminKey, body, out)
}

// TestKeyEnds ends keys in every way there is: the very next call is refused.
func TestKeyEnds(t *testing.T) {
	g, _ := keyGateway(t)
	c := g.Demo
	f := func(what string, status int, code string, end func(account, id string)) {
		t.Helper()
		for range 5 {
			var o struct {
				ID  string
				Key struct{ ID, Value string } `json:"api_key"`
			}
			g.org(t, c, http.MethodPost, "/projects/"+c.ProjectID+"/service_accounts", map[string]string{"name": "x"}, &o)
			for range 3 {
				g.chat(t, o.Key.Value, "sandbox/echo").want(t, "before: "+what, http.StatusOK)
			}
			end(o.ID, o.Key.ID)
			a := g.chat(t, o.Key.Value, "sandbox/echo")
			if got, _ := a.fault(); a.status != status || got != code {
				t.Errorf("%s: %d %s, want %d %s", what, a.status, got, status, code)
			}
		}
	}
	f("revoked", http.StatusUnauthorized, "invalid_api_key", func(_, id string) {
		g.org(t, c, http.MethodDelete, "/projects/"+c.ProjectID+"/api_keys/"+id, nil, nil)
	})
	f("its account deleted", http.StatusUnauthorized, "invalid_api_key", func(account, _ string) {
		g.org(t, c, http.MethodDelete, "/projects/"+c.ProjectID+"/service_accounts/"+account, nil, nil)
	})
	f("the company suspended", http.StatusForbidden, "company_suspended", func(_, _ string) {
		g.call(t, http.MethodPost, g.OpsURL+"/admin/companies/"+c.ID+"/suspend", g.Operator, nil, nil)
		g.call(t, http.MethodPost, g.OpsURL+"/admin/companies/"+c.ID+"/resume", g.Operator, nil, nil)
		g.chat(t, c.APIKey, "sandbox/echo").want(t, "resumed", http.StatusOK)
		g.call(t, http.MethodPost, g.OpsURL+"/admin/companies/"+c.ID+"/suspend", g.Operator, nil, nil)
		c = g.newCompany(t, "Next")
	})
	f("the project archived", http.StatusForbidden, "project_archived", func(_, _ string) {
		g.org(t, c, http.MethodPost, "/projects/"+c.ProjectID+"/archive", nil, nil)
		c = g.newCompany(t, "Next")
	})
}

// TestKeyExpires lets keys expire, and moves the end of one.
func TestKeyExpires(t *testing.T) {
	g, _ := keyGateway(t)
	made := time.Now()
	_, short := g.newKey(t, g.Demo, map[string]any{"expires_in_seconds": 2})
	id, moved := g.newKey(t, g.Demo, map[string]any{"expires_in_seconds": 3600})
	g.chat(t, short, "sandbox/echo").want(t, "before it expires", http.StatusOK)
	g.chat(t, moved, "sandbox/echo").want(t, "before it expires", http.StatusOK)
	var after struct {
		ExpiresAt int64 `json:"expires_at"`
	}
	g.org(t, g.Demo, http.MethodPost, "/projects/"+g.Demo.ProjectID+"/api_keys/"+id, map[string]any{"expires_in_seconds": 1}, &after)
	if after.ExpiresAt > time.Now().Unix()+2 {
		t.Errorf("the end was moved to 1 s from now and is %d s away", after.ExpiresAt-time.Now().Unix())
	}
	for name, key := range map[string]string{"made with an end": short, "given an end": moved} {
		eventually(t, 5*time.Second, "a key "+name+" expires", func() bool {
			code, _ := g.chat(t, key, "sandbox/echo").fault()
			return code == "expired_api_key"
		})
	}
	if lived := time.Since(made); lived < 2*time.Second {
		t.Errorf("a key of 2 s lived %s", lived)
	}
}

// TestKeyRotation puts a second key beside the first and takes the first away.
func TestKeyRotation(t *testing.T) {
	g, _ := keyGateway(t)
	c := g.Demo
	var account struct {
		ID  string
		Key struct{ ID, Value string } `json:"api_key"`
	}
	at := "/projects/" + c.ProjectID
	g.org(t, c, http.MethodPost, at+"/service_accounts", map[string]string{"name": "app"}, &account)
	old := account.Key
	for range 5 {
		var next struct{ ID, Value string }
		g.org(t, c, http.MethodPost, at+"/service_accounts/"+account.ID+"/api_keys", map[string]string{}, &next)
		g.chat(t, next.Value, "sandbox/echo").want(t, "the new key", http.StatusOK)
		g.chat(t, old.Value, "sandbox/echo").want(t, "the old key, still there", http.StatusOK)
		g.org(t, c, http.MethodDelete, at+"/api_keys/"+old.ID, nil, nil)
		g.chat(t, old.Value, "sandbox/echo").want(t, "the old key", http.StatusUnauthorized)
		g.chat(t, next.Value, "sandbox/echo").want(t, "the new key, alone", http.StatusOK)
		old = next
	}
}

// TestUnknownKeys sends keys that never were, in number, and looks that nobody
// who is right is shut out.
func TestUnknownKeys(t *testing.T) {
	g, _ := keyGateway(t)
	const base32 = "0123456789abcdefghjkmnpqrstvwxyz"
	parts := strings.SplitN(g.Demo.APIKey, "-", 6)
	random := func(n int) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = base32[rand.IntN(len(base32))]
		}
		return string(b)
	}
	for i := range 3000 {
		locator := parts[3]
		if i%3 == 0 {
			locator = random(10)
		}
		key := resum("sk-bh-live-" + locator + "-" + random(12) + "-" + parts[5])
		for range 1 + i%2 { // looked up, then remembered
			g.chat(t, key, "sandbox/echo").want(t, "a key that never was", http.StatusUnauthorized)
		}
		if i%500 == 0 {
			_, fresh := g.newKey(t, g.Demo, nil)
			g.chat(t, fresh, "sandbox/echo").want(t, "a key made in the flood", http.StatusOK)
			g.chat(t, g.Demo.APIKey, "sandbox/echo").want(t, "the first key", http.StatusOK)
		}
	}
}

// refused calls model until it is refused, and returns how often it was not.
func (g *gateway) refused(t *testing.T, key, model, what string) (n int, a answer) {
	t.Helper()
	for n = range 50 {
		if a = g.chat(t, key, model); a.status != http.StatusOK {
			break
		}
	}
	code, message := a.fault()
	wait, err := strconv.Atoi(a.header.Get("Retry-After-Ms"))
	if a.status != http.StatusTooManyRequests || code != "rate_limit_exceeded" || err != nil || wait < 1 || message == "" {
		t.Errorf("%s: refused with %d %s, retry-after-ms %q: %s", what, a.status, code, a.header.Get("Retry-After-Ms"), message)
	}
	return n, a
}

// TestLimits sets limits in every place where the API has them.
func TestLimits(t *testing.T) {
	g, up := keyGateway(t)
	// Each case has a company of its own, so that none uses up another's.
	f := func(what string, allowed int, kind string, set func(c company) (key, model string), free func(c company) (key, model string)) {
		t.Helper()
		c := g.newCompany(t, what)
		g.setCredential(t, c, "up", upstreamSecret)
		key, model := set(c)
		n, a := g.refused(t, key, model, what)
		if n != allowed {
			t.Errorf("%s: %d calls were let through, want %d", what, n, allowed)
		}
		if _, message := a.fault(); !strings.Contains(message, kind) {
			t.Errorf("%s: the refusal does not name the %s: %s", what, kind, message)
		}
		if limit := a.header.Get("X-Ratelimit-Limit-Requests"); limit != strconv.Itoa(allowed) {
			t.Errorf("%s: x-ratelimit-limit-requests is %q", what, limit)
		}
		if left := a.header.Get("X-Ratelimit-Remaining-Requests"); left != "0" {
			t.Errorf("%s: x-ratelimit-remaining-requests is %q", what, left)
		}
		key, model = free(c)
		for range allowed + 3 {
			g.chat(t, key, model).want(t, what+": what has no limit", http.StatusOK)
		}
	}
	three := map[string]any{"limits": map[string]int{"requests_per_minute": 3}}
	row := map[string]any{"max_requests_per_1_minute": 3}
	ofDemo := func(company) (string, string) { return g.Demo.APIKey, "sandbox/echo" }
	f("a key made with a limit", 3, "key", func(c company) (string, string) {
		_, key := g.newKey(t, c, three)
		return key, "up/ok"
	}, func(c company) (string, string) { return c.APIKey, "up/ok" })
	f("a key given a limit", 3, "key", func(c company) (string, string) {
		id, key := g.newKey(t, c, nil)
		g.chat(t, key, "up/ok").want(t, "before", http.StatusOK)
		g.org(t, c, http.MethodPost, "/projects/"+c.ProjectID+"/api_keys/"+id, three, nil)
		return key, "up/ok"
	}, func(c company) (string, string) { return c.APIKey, "up/ok" })
	f("a project given limits", 3, "project", func(c company) (string, string) {
		g.org(t, c, http.MethodPost, "/projects/"+c.ProjectID, three, nil)
		return c.APIKey, "up/ok"
	}, ofDemo)
	f("a project's row for all models", 3, "project", func(c company) (string, string) {
		g.org(t, c, http.MethodPost, "/projects/"+c.ProjectID+"/rate_limits/"+rateLimitID("*"), row, nil)
		return c.APIKey, "up/ok"
	}, ofDemo)
	f("a project's row for one model", 3, "model", func(c company) (string, string) {
		g.setRoute(t, c, "limited", "up/ok")
		g.org(t, c, http.MethodPost, "/projects/"+c.ProjectID+"/rate_limits/"+rateLimitID("limited"), row, nil)
		return c.APIKey, "limited"
	}, func(c company) (string, string) { return c.APIKey, "up/ok" })
	f("a limit taken away", 3, "project", func(c company) (string, string) {
		g.org(t, c, http.MethodPost, "/projects/"+c.ProjectID, three, nil)
		return c.APIKey, "up/ok"
	}, func(c company) (string, string) {
		g.org(t, c, http.MethodPost, "/projects/"+c.ProjectID+"/rate_limits/"+rateLimitID("*"), map[string]any{"max_requests_per_1_minute": 1<<31 - 1}, nil)
		return c.APIKey, "up/ok"
	})

	// Tokens: what the call may use is held (an answer without a limit as 512),
	// what it did use is booked.
	c := g.newCompany(t, "tokens")
	_, key := g.newKey(t, c, map[string]any{"limits": map[string]int{"tokens_per_minute": 530}})
	if n, a := g.refused(t, key, "sandbox/echo", "tokens"); n < 2 || !bytes.Contains(a.body, []byte(`"type":"tokens"`)) || a.header.Get("X-Ratelimit-Limit-Tokens") != "530" {
		t.Errorf("tokens: %d calls were let through, then %s", n, a.body)
	}

	// Calls open at one time, by the project's row.
	g.setCredential(t, c, "up", upstreamSecret)
	g.org(t, c, http.MethodPost, "/projects/"+c.ProjectID+"/rate_limits/"+rateLimitID("*"), map[string]any{"max_concurrent_requests": 1}, nil)
	stream := g.openStream(t, c.APIKey, "up/never-ending")
	if n, _ := g.refused(t, c.APIKey, "up/ok", "a second call at the same time"); n != 0 {
		t.Errorf("%d calls were let through beside the one that is open", n)
	}
	g.chat(t, g.Demo.APIKey, "sandbox/echo").want(t, "another company", http.StatusOK)
	if err := stream.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, 5*time.Second, "the stream's place is free again", func() bool { return g.chat(t, c.APIKey, "up/ok").status == http.StatusOK })
	if err := up.WaitIdle(5 * time.Second); err != nil {
		t.Error(err)
	}
}

// crowd is one company in the test of many clients.
type crowd struct {
	company
	letter string
	mu     sync.Mutex
	keys   []*crowdKey
}

// crowdKey is a key that may be revoked while it is used.
type crowdKey struct {
	id, value string
	ending    atomic.Bool // its revocation has begun
	ended     atomic.Bool // and was confirmed
}

func (c *crowd) pick() *crowdKey {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.keys[rand.IntN(len(c.keys))]
}

// TestManyClients has 64 clients of two companies call at the same time while
// keys come and go and credentials change. Each answer says which company's
// secret was sent, which must be the caller's.
func TestManyClients(t *testing.T) {
	g, _ := keyGateway(t)
	crowds := []*crowd{{company: g.newCompany(t, "Same"), letter: "a"}, {company: g.newCompany(t, "Same"), letter: "b"}}
	for _, c := range crowds {
		g.setCredential(t, c.company, "up", "sk-"+c.letter+"-0")
		g.setRoute(t, c.company, "same", "up/whoami")
		for range 4 {
			id, value := g.newKey(t, c.company, nil)
			c.keys = append(c.keys, &crowdKey{id: id, value: value})
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var calling, churning sync.WaitGroup
	var good, refused atomic.Int64
	for i := range 64 {
		c := crowds[i%2]
		calling.Go(func() {
			for n := range 60 {
				if err := g.oneOfMany(ctx, c, n, &good, &refused); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	done := make(chan struct{})
	changes := 0
	churning.Go(func() {
		for ; ; changes++ {
			select {
			case <-done:
				return
			case <-ctx.Done():
				return
			default:
			}
			if err := g.churn(ctx, crowds[changes%2], changes); err != nil {
				t.Error(err)
				return
			}
		}
	})
	calling.Wait()
	close(done)
	churning.Wait()
	t.Logf("%d answers, %d refusals, %d changes of keys and credentials", good.Load(), refused.Load(), changes)
	if good.Load() < 1000 || changes < 10 || refused.Load() == 0 {
		t.Errorf("%d answers, %d refusals, %d changes: too few to say anything", good.Load(), refused.Load(), changes)
	}
}

// oneOfMany makes one call and says what is wrong with its answer.
func (g *gateway) oneOfMany(ctx context.Context, c *crowd, n int, good, refused *atomic.Int64) error {
	k := c.pick()
	was := k.ended.Load()
	body := chatBody([]string{"up/whoami", "same"}[n%2], "Hello")
	body["stream"] = n%3 == 0
	a, err := tryAsk(ctx, http.MethodPost, g.URL+"/v1/chat/completions", k.value, body)
	switch {
	case err != nil:
		return err
	case a.status == http.StatusUnauthorized:
		refused.Add(1)
		if !k.ending.Load() {
			return fmt.Errorf("a key of %s that nobody revoked was refused: %s", c.letter, a.body)
		}
		return nil
	case a.status != http.StatusOK:
		return fmt.Errorf("status %d: %s", a.status, a.body)
	case was:
		return fmt.Errorf("a key of %s was revoked before the call and let in", c.letter)
	case !bytes.Contains(a.body, []byte("sk-"+c.letter+"-")):
		return fmt.Errorf("a caller of %s was answered with another company's credential: %s", c.letter, a.body)
	}
	good.Add(1)
	return nil
}

// churn puts a new key in the place of one, changes the credential, and revokes
// the old key.
func (g *gateway) churn(ctx context.Context, c *crowd, n int) error {
	org := func(method, path string, body, out any) error {
		a, err := tryAsk(ctx, method, g.URL+"/v1/organization"+path, c.AdminKey, body)
		if err == nil && a.status != http.StatusOK {
			err = fmt.Errorf("%s %s: status %d: %s", method, path, a.status, a.body)
		}
		if err == nil && out != nil {
			err = json.Unmarshal(a.body, out)
		}
		return err
	}
	var o struct {
		Key struct{ ID, Value string } `json:"api_key"`
	}
	at := "/projects/" + c.ProjectID
	if err := org(http.MethodPost, at+"/service_accounts", map[string]string{"name": "next"}, &o); err != nil {
		return err
	}
	i := n / 2 % len(c.keys)
	c.mu.Lock()
	old := c.keys[i]
	c.mu.Unlock()
	old.ending.Store(true)
	if err := org(http.MethodDelete, at+"/api_keys/"+old.id, nil, nil); err != nil {
		return err
	}
	old.ended.Store(true)
	// Clients go on with the old one until the credential is changed too.
	err := org(http.MethodPost, "/credentials", map[string]string{"provider": "up", "secret": fmt.Sprintf("sk-%s-%d", c.letter, n)}, nil)
	c.mu.Lock()
	c.keys[i] = &crowdKey{id: o.Key.ID, value: o.Key.Value}
	c.mu.Unlock()
	return err
}
