package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"bulkhead/config"
	"bulkhead/keystore"
	"bulkhead/provider"
	"bulkhead/store"
	"bulkhead/store/pgtest"
	"bulkhead/test/scale"
	"bulkhead/test/servers"
	"bulkhead/test/upstream"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// watched is a whole gateway in this process, with PostgreSQL and Vault, whose
// work behind a call can be counted.
type watched struct {
	*house
	t         *testing.T
	url       string
	companies []watchedCompany
	asked     *atomic.Int64 // requests to Vault for what it keeps, not for the gateway's own token
}

type watchedCompany struct{ key, secret string }

func newWatched(t *testing.T, up *upstream.Server, companies int) *watched {
	t.Helper()
	bao, db := servers.Start(t, "bao", "BAO_MODE=dev"), pgtest.New(t)
	w := &watched{t: t, asked: new(atomic.Int64)}
	cfg, err := config.Load("", []string{
		"BULKHEAD_DATA=" + t.TempDir(), "BULKHEAD_MASTER_KEY=" + strings.Repeat("a7", 32), "BULKHEAD_DEMO=off",
		"BULKHEAD_POSTGRES_URL=" + db.URL, "BULKHEAD_POSTGRES_OWNER_URL=" + db.OwnerURL,
		"BULKHEAD_VAULT_ADDR=" + w.vault(bao.Var("VAULT_ADDR")), "BULKHEAD_VAULT_TOKEN=" + bao.Var("VAULT_TOKEN"),
		"BULKHEAD_PROVIDERS={up: {kind: custom, base_url: \"" + up.BaseURL() + "\"}}",
	})
	if err != nil {
		t.Fatal(err)
	}
	owner, err := store.OpenOwner(t.Context(), storeOptions(cfg, nil))
	if err != nil {
		t.Fatal(err)
	}
	if err := owner.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := owner.Close(); err != nil {
		t.Fatal(err)
	}
	if w.house, err = build(t.Context(), cfg, slog.New(slog.NewTextHandler(io.Discard, nil))); err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.url = "http://" + ln.Addr().String()
	go func() { _ = w.gateway.Serve(ln) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := w.gateway.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		if err := w.close(); err != nil {
			t.Error(err)
		}
	})
	for i := range companies {
		w.companies = append(w.companies, w.company(fmt.Sprint("Company ", i)))
	}
	return w
}

// vault returns an address at which requests are counted and passed on.
func (w *watched) vault(addr string) string {
	at, err := url.Parse(addr)
	if err != nil {
		w.t.Fatal(err)
	}
	pass := httputil.NewSingleHostReverseProxy(at)
	s := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/companies/") {
			w.asked.Add(1)
		}
		pass.ServeHTTP(rw, r)
	}))
	w.t.Cleanup(s.Close)
	return s.URL
}

func (w *watched) company(name string) watchedCompany {
	w.t.Helper()
	ctx, d := w.t.Context(), w.gateway.Tenants
	act, err := d.Gateway().Begin(ctx, "company.create", "")
	if err != nil {
		w.t.Fatal(err)
	}
	c, err := w.gateway.ProvisionCompany(ctx, act, name, "")
	if err != nil {
		w.t.Fatal(err)
	}
	s, err := d.Authenticate(ctx, []byte(c.AdminKey))
	if err != nil {
		w.t.Fatal(err)
	}
	secret := "sk-" + c.ID
	if _, err := w.gateway.Keys.Put(ctx, s, keystore.NewCredential{Provider: "up", Secret: provider.NewSecret(secret)}); err != nil {
		w.t.Fatal(err)
	}
	return watchedCompany{c.APIKey, secret}
}

// call makes a call and reads its answer, every other one as a stream.
func (w *watched) call(c watchedCompany, n int) error {
	body := fmt.Sprintf(`{"model":"up/ok","stream":%t,"messages":[{"role":"user","content":"Hello"}]}`, n%2 == 0)
	req, err := http.NewRequestWithContext(w.t.Context(), http.MethodPost, w.url+"/v1/chat/completions", strings.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+c.key)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && (resp.StatusCode != http.StatusOK || !bytes.Contains(text, []byte("upstream"))) {
		err = fmt.Errorf("status %d: %s", resp.StatusCode, text)
	}
	return err
}

// counts are how often the gateway has asked others.
type counts struct {
	sql   int64 // statements but those that wrote the ledger
	loads int64 // look-ups of companies and keys
	vault int64 // requests to Vault
	reads int64 // credentials read from Vault
}

func (w *watched) counts() counts {
	w.t.Helper()
	if err := w.gateway.Ledger.Flush(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	return counts{
		sql: w.db.Executed() - w.gateway.Ledger.Stats().Shipped, loads: w.gateway.Tenants.Loads(),
		vault: w.asked.Load(), reads: w.gateway.Keys.(*keystore.Vault).Stats().Reads,
	}
}

func (c counts) since(d counts) counts {
	return counts{c.sql - d.sql, c.loads - d.loads, c.vault - d.vault, c.reads - d.reads}
}

// TestHotPath: with PostgreSQL and Vault attached and everything warm, a call
// asks neither of them anything. What runs beside the calls, such as asking for
// changes every second, does not grow with their number; the ledger's rows are
// written in batches, after the answer.
func TestHotPath(t *testing.T) {
	s := scale.Of(t)
	up := upstream.New(t)
	w := newWatched(t, up, 5)
	calls := scale.Pick(s, 1500, 50_000)
	run := func(calls int) {
		t.Helper()
		var clients sync.WaitGroup
		for i := range 8 {
			clients.Go(func() {
				for n := i; n < calls; n += 8 {
					if err := w.call(w.companies[n%len(w.companies)], n/2); err != nil {
						t.Errorf("call %d: %s", n, err)
						return
					}
				}
			})
		}
		clients.Wait()
	}
	before := w.counts()
	run(4 * len(w.companies))
	// Cold, the counters count: that is what they would do for each call.
	if cold := w.counts().since(before); cold.loads < 10 || cold.sql < 10 || cold.vault < 5 || cold.reads < 5 {
		t.Errorf("the first calls of 5 companies were counted as %+v", cold)
	}
	// The gateway's own changes come back to it once by the feed.
	for range 3 {
		began := time.Now()
		for time.Since(began) < 1200*time.Millisecond {
			run(4 * len(w.companies))
		}
	}

	before, began, shipped := w.counts(), time.Now(), w.gateway.Ledger.Stats().Shipped
	run(calls)
	warm, took := w.counts().since(before), time.Since(began)
	if warm.loads != 0 || warm.vault != 0 || warm.reads != 0 {
		t.Errorf("%d calls with everything in memory were counted as %+v", calls, warm)
	}
	if most := 20 + 10*int64(took.Seconds()+1); warm.sql > most || most > int64(calls/2) {
		t.Errorf("beside the ledger's rows %d calls in %s had %d statements, want at most %d of what runs in the background", calls, took, warm.sql, most)
	}
	if rows := w.gateway.Ledger.Stats().Shipped - shipped; rows != int64(calls) {
		t.Errorf("%d rows of the ledger for %d calls", rows, calls)
	}
	sent := map[string]int{}
	for _, r := range up.Requests() {
		sent[strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")]++
	}
	for _, c := range w.companies {
		if sent[c.secret] < calls/len(w.companies) {
			t.Errorf("a company's credential was sent with %d calls", sent[c.secret])
		}
	}
	s.Figure("calls", calls)
	s.Figure("statements_beside", warm.sql)
	s.Figure("took", took)
}
