package web

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"bulkhead/ledger"
	"bulkhead/tenant"
	"bulkhead/tenant/tenanttest"
)

// fakeUpkeep has work for companies in memory.
type fakeUpkeep struct {
	mu     sync.Mutex
	due    []tenant.Upkeep
	ended  []string // company, kind and whether there is a next time
	events map[string][]tenant.SpendDelivery
	rolled []ledger.RollupOptions
	err    error
	block  chan struct{} // RollUp waits for it
}

func (f *fakeUpkeep) TakeUpkeep(_ context.Context, kind string, lease time.Duration) (tenant.Upkeep, bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return tenant.Upkeep{}, false, f.err
	}
	for i, u := range f.due {
		if u.Kind == kind {
			f.due = slices.Delete(f.due, i, i+1)
			u.Until = time.Now().Add(lease)
			return u, true, nil
		}
	}
	return tenant.Upkeep{}, false, nil
}

func (f *fakeUpkeep) EndUpkeep(_ context.Context, u tenant.Upkeep, next time.Time) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	end := u.Company + " " + u.Kind
	if !next.IsZero() {
		end += " again"
		if u.Kind == tenant.Deliver {
			f.due = append(f.due, u)
		}
	}
	f.ended = append(f.ended, end)
	return nil
}

func (f *fakeUpkeep) RollUp(ctx context.Context, _ tenant.Scope, o ledger.RollupOptions) (ledger.Rolled, error) {
	f.mu.Lock()
	f.rolled = append(f.rolled, o)
	block := f.block
	f.mu.Unlock()
	if block != nil {
		select {
		case <-block:
		case <-ctx.Done():
			return ledger.Rolled{}, ctx.Err()
		}
	}
	return ledger.Rolled{Next: o.Now.Add(time.Hour)}, nil
}

func (f *fakeUpkeep) SweepKept(context.Context, tenant.Scope, time.Time) (time.Time, error) {
	return time.Time{}, nil
}

func (f *fakeUpkeep) SweepMemory(context.Context, tenant.Scope, time.Time, int64) (time.Time, error) {
	return time.Time{}, nil
}

func (f *fakeUpkeep) CheckAlerts(context.Context, tenant.Scope, time.Time) error { return nil }

func (f *fakeUpkeep) Deliveries(_ context.Context, s tenant.Scope, now time.Time, limit int) (due []tenant.SpendDelivery, next time.Time, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, d := range f.events[s.ID().String()] {
		if d.Event.Next.IsZero() {
			continue
		}
		if next.IsZero() || d.Event.Next.Before(next) {
			next = d.Event.Next
		}
		if !d.Event.Next.After(now) && len(due) < limit {
			due = append(due, d)
		}
	}
	return due, next, nil
}

func (f *fakeUpkeep) DeliveryTried(_ context.Context, s tenant.Scope, e tenant.SpendEvent) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := f.events[s.ID().String()]
	for i := range all {
		if all[i].Event.ID == e.ID {
			all[i].Event = e
		}
	}
	return nil
}

// event returns what is known of the first event of a company.
func (f *fakeUpkeep) event(s tenant.Scope) tenant.SpendEvent {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.events[s.ID().String()][0].Event
}

func (f *fakeUpkeep) ends() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.ended)
}

// send makes an event of a company due at an address.
func (f *fakeUpkeep) send(s tenant.Scope, url string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	id := s.ID().String()
	at := time.Now().Add(-time.Second)
	f.events[id] = append(f.events[id], tenant.SpendDelivery{URL: url, ProjectID: "proj_1",
		Event: tenant.SpendEvent{ID: "evt_1", Alert: "alert_1", Nano: 5_000_000_000, Spent: 5_000_000_001, From: time.Unix(1793491200, 0), CreatedAt: at, Next: at}})
	f.due = append(f.due, tenant.Upkeep{Company: id, Kind: tenant.Deliver})
}

// keeper is a Gateway with nothing but upkeep.
func keeper(t *testing.T, w *tenanttest.World, f *fakeUpkeep, private bool, o UpkeepOptions) *Upkeep {
	t.Helper()
	g := &Gateway{Parts: Parts{Tenants: w.Directory, WebhookKey: []byte(strings.Repeat("k", 32)), Log: slog.New(slog.NewTextHandler(io.Discard, nil))}}
	g.settings.Store(&Settings{AllowPrivate: private})
	f.events = map[string][]tenant.SpendDelivery{}
	if o.Every == 0 {
		o.Every = time.Millisecond
	}
	u := g.StartUpkeep(f, o)
	t.Cleanup(func() { u.Close() })
	return u
}

func TestUpkeep(t *testing.T) {
	w := tenanttest.New(t, tenant.Options{})
	_, s := w.Company("acme", tenant.KeyLive, nil)
	f := &fakeUpkeep{err: errors.New("away")}
	var mu sync.Mutex
	var told []string
	u := keeper(t, w, f, false, UpkeepOptions{Keep: 70 * 24 * time.Hour, Failed: func(kind string, err error) {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, kind)
		if err == nil {
			told[len(told)-1] += " works"
		}
	}})
	heard := func(what string) func() bool {
		return func() bool {
			mu.Lock()
			defer mu.Unlock()
			return slices.Contains(told, what)
		}
	}
	eventually(t, "the failure is told", heard(tenant.RollUp))
	id := s.ID().String()
	f.mu.Lock()
	f.err = nil
	f.due = []tenant.Upkeep{{Company: id, Kind: tenant.RollUp}, {Company: id, Kind: tenant.CheckAlerts}, {Company: "org-0000000000", Kind: tenant.RollUp}}
	f.mu.Unlock()
	eventually(t, "all is done", func() bool { return len(f.ends()) == 3 })
	ends := f.ends()
	slices.Sort(ends)
	want := []string{id + " alert", id + " rollup again", "org-0000000000 rollup"}
	slices.Sort(want)
	if !slices.Equal(ends, want) {
		t.Errorf("ended %q, want %q", ends, want)
	}
	eventually(t, "it is told that it works", heard(tenant.RollUp+" works"))
	if len(f.rolled) != 1 || f.rolled[0].Keep != 70*24*time.Hour || time.Since(f.rolled[0].Now) > time.Minute {
		t.Errorf("rolled up with %+v", f.rolled)
	}
	// What is under way at the end is given back.
	f.mu.Lock()
	f.block = make(chan struct{})
	f.due = []tenant.Upkeep{{Company: id, Kind: tenant.RollUp}}
	f.mu.Unlock()
	eventually(t, "the work begins", func() bool { f.mu.Lock(); defer f.mu.Unlock(); return len(f.rolled) == 2 })
	for range 2 {
		if err := u.Close(); err != nil {
			t.Error(err)
		}
	}
	if ends := f.ends(); len(ends) != 4 || ends[3] != id+" rollup again" {
		t.Errorf("ended %q", ends)
	}
}

// receiver answers webhooks over https and keeps them.
type receiver struct {
	*httptest.Server
	mu   sync.Mutex
	got  []*http.Request
	body [][]byte
}

func newReceiver(t *testing.T, answer func(n int, w http.ResponseWriter)) *receiver {
	t.Helper()
	r := &receiver{}
	r.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		b, err := io.ReadAll(req.Body)
		if err != nil {
			t.Error(err)
		}
		r.mu.Lock()
		r.got, r.body = append(r.got, req), append(r.body, b)
		n := len(r.got)
		r.mu.Unlock()
		answer(n, w)
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.got)
}

// trust makes u trust the receiver's certificate.
func (u *Upkeep) trust(r *receiver) {
	pool := x509.NewCertPool()
	pool.AddCert(r.Certificate())
	u.hooks.lab.TLSClientConfig.RootCAs, u.hooks.public.TLSClientConfig.RootCAs = pool, pool
}

func TestWebhook(t *testing.T) {
	w := tenanttest.New(t, tenant.Options{})
	_, s := w.Company("acme", tenant.KeyLive, nil)
	f := &fakeUpkeep{}
	r := newReceiver(t, func(n int, w http.ResponseWriter) {
		if n == 1 {
			w.WriteHeader(http.StatusInternalServerError)
		}
	})
	u := keeper(t, w, f, true, UpkeepOptions{Retries: []time.Duration{20 * time.Millisecond, time.Hour}})
	u.trust(r)
	f.send(s, r.URL+"/hook")
	eventually(t, "it is delivered", func() bool { return !f.event(s).DeliveredAt.IsZero() })
	if e := f.event(s); e.Tries != 2 || e.Status != 200 || !e.Next.IsZero() || r.count() != 2 {
		t.Errorf("%d received: %+v", r.count(), e)
	}
	secret, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(u.g.webhookSecret(s, "alert_1"), "whsec_"))
	must(t, err)
	for i, req := range r.got {
		h := req.Header
		if req.Method != http.MethodPost || req.URL.Path != "/hook" || h.Get("Content-Type") != "application/json" || h.Get("Webhook-Id") != "evt_1" {
			t.Errorf("%s %s with %v", req.Method, req.URL, h)
		}
		mac := hmac.New(sha256.New, secret)
		mac.Write([]byte(h.Get("Webhook-Id") + "." + h.Get("Webhook-Timestamp") + "." + string(r.body[i])))
		if want := "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil)); h.Get("Webhook-Signature") != want {
			t.Errorf("signature %q, want %q", h.Get("Webhook-Signature"), want)
		}
	}
	if string(r.body[0]) != string(r.body[1]) {
		t.Error("the two attempts have not the same body")
	}
	var event webhookEvent
	must(t, json.Unmarshal(r.body[0], &event))
	if d := event.Data; event.Type != "spend_alert.triggered" || d.ID != "alert_1" || d.Object != "project.spend_alert" || *d.ProjectID != "proj_1" ||
		d.Amount != 500 || d.Spent != "5.000000001" || d.PeriodStart != 1793491200 {
		t.Errorf("%s", r.body[0])
	}
	// Another company, another alert: another secret.
	_, other := w.Company("beta", tenant.KeyLive, nil)
	if u.g.webhookSecret(other, "alert_1") == u.g.webhookSecret(s, "alert_1") || u.g.webhookSecret(s, "alert_2") == u.g.webhookSecret(s, "alert_1") {
		t.Error("two webhooks have the same secret")
	}
}

// A receiver that is never content is left alone in the end; a redirect is no
// success and is not followed.
func TestWebhookFails(t *testing.T) {
	w := tenanttest.New(t, tenant.Options{})
	f := &fakeUpkeep{}
	r := newReceiver(t, func(_ int, w http.ResponseWriter) {
		w.Header().Set("Location", "/elsewhere")
		w.WriteHeader(http.StatusTemporaryRedirect)
	})
	u := keeper(t, w, f, true, UpkeepOptions{Retries: []time.Duration{time.Millisecond, time.Millisecond}})
	u.trust(r)
	_, s := w.Company("acme", tenant.KeyLive, nil)
	f.send(s, r.URL)
	eventually(t, "it is given up", func() bool { e := f.event(s); return e.Next.IsZero() })
	if e := f.event(s); e.Tries != 3 || e.Status != 307 || !e.DeliveredAt.IsZero() || r.count() != 3 {
		t.Errorf("%d received: %+v", r.count(), e)
	}
	_, gone := w.Company("gone", tenant.KeyLive, nil)
	f.send(gone, "https://"+nobody(t))
	eventually(t, "it is given up", func() bool { return f.event(gone).Next.IsZero() })
	if e := f.event(gone); e.Tries != 3 || e.Status != 0 {
		t.Errorf("%+v", e)
	}
}

// Without allow_private an address of the operator's network is not reached, in
// whatever way it is written.
func TestWebhookPrivate(t *testing.T) {
	w := tenanttest.New(t, tenant.Options{})
	f := &fakeUpkeep{}
	r := newReceiver(t, func(int, http.ResponseWriter) {})
	u := keeper(t, w, f, false, UpkeepOptions{Retries: []time.Duration{}})
	u.trust(r)
	_, port, _ := strings.Cut(strings.TrimPrefix(r.URL, "https://"), ":")
	for _, url := range []string{r.URL, "https://localhost:" + port, strings.Replace(r.URL, "https", "http", 1)} {
		_, s := w.Company(url, tenant.KeyLive, nil)
		f.send(s, url)
		eventually(t, url+" is given up", func() bool { return f.event(s).Next.IsZero() })
		if e := f.event(s); e.Tries != 1 || e.Status != 0 || r.count() != 0 {
			t.Errorf("%s: %d received: %+v", url, r.count(), e)
		}
	}
}

// One company's receiver that does not answer does not keep another's waiting.
func TestWebhookTarpit(t *testing.T) {
	w := tenanttest.New(t, tenant.Options{})
	f := &fakeUpkeep{}
	hang := make(chan struct{})
	slow := newReceiver(t, func(int, http.ResponseWriter) { <-hang })
	r := newReceiver(t, func(int, http.ResponseWriter) {})
	u := keeper(t, w, f, true, UpkeepOptions{})
	defer close(hang) // before the receivers are closed
	u.trust(r)        // all test servers have the same certificate
	for range 5 {
		_, s := w.Company("tarpit", tenant.KeyLive, nil)
		f.send(s, slow.URL)
	}
	eventually(t, "all are stuck", func() bool { return slow.count() == 5 })
	_, s := w.Company("acme", tenant.KeyLive, nil)
	f.send(s, r.URL)
	eventually(t, "another's is delivered", func() bool { return !f.event(s).DeliveredAt.IsZero() })
}

func TestTried(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	e := tenant.SpendEvent{ID: "evt"}
	var waited time.Duration
	for range len(webhookRetries) {
		e = tried(e, 500, now, webhookRetries)
		waited += e.Next.Sub(now)
	}
	if waited < 20*time.Hour || waited > 24*time.Hour {
		t.Errorf("tried for %s", waited)
	}
	if e = tried(e, 500, now, webhookRetries); !e.Next.IsZero() || !e.DeliveredAt.IsZero() || e.Tries != len(webhookRetries)+1 {
		t.Errorf("%+v", e)
	}
	if e = tried(e, 204, now, webhookRetries); !e.DeliveredAt.Equal(now) {
		t.Errorf("%+v", e)
	}
}
