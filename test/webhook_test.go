package test

import (
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// hooked is a webhook that was received.
type hooked struct {
	path   string
	header http.Header
	body   string
}

// receiver is an https server of a company's, with a certificate that gateways
// trust which have trusted in their environment.
type receiver struct {
	*httptest.Server
	trusted string // of a gateway's environment
	mu      sync.Mutex
	got     []hooked
}

// newReceiver returns a receiver that answers with 500 as often as it is told.
func newReceiver(t *testing.T, failures int) *receiver {
	t.Helper()
	r := &receiver{}
	r.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(req.Body)
		r.mu.Lock()
		defer r.mu.Unlock()
		if err == nil {
			r.got = append(r.got, hooked{req.URL.Path, req.Header, string(body)})
		}
		if len(r.got) <= failures {
			w.WriteHeader(http.StatusInternalServerError)
		}
	}))
	t.Cleanup(r.Close)
	file := filepath.Join(t.TempDir(), "ca.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: r.Certificate().Raw})
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	r.trusted = "SSL_CERT_FILE=" + file
	return r
}

func (r *receiver) received() []hooked {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.got)
}

// ids are those of the events that were received, each as often as it was.
func (r *receiver) ids() (ids []string) {
	for _, h := range r.received() {
		ids = append(ids, h.header.Get("Webhook-Id"))
	}
	return ids
}

// spendAlertAt is an alert at so many cents a month.
func spendAlertAt(cents int, url string) any {
	return map[string]any{"threshold_amount": cents, "currency": "USD", "interval": "month",
		"notification_channel": map[string]any{"type": "webhook", "url": url}}
}

// madeAlert is what an alert shows of itself.
type madeAlert struct {
	ID      string
	Channel struct{ Secret string } `json:"notification_channel"`
	Last    *struct {
		ID, Status string
		Attempts   int
		HTTP       int `json:"last_http_status"`
	} `json:"last_event"`
}

// TestWebhook: what a company spends reaches its receiver, which fails at first,
// and the official SDKs verify it.
func TestWebhook(t *testing.T) {
	r := newReceiver(t, 1)
	g := prepare(t, "upstream: {allow_private: true}\n", r.trusted)
	g.serve(t)
	c := g.Demo
	alerts := g.URL + "/v1/organization/spend_alerts"
	var made, ofProject, never madeAlert
	g.call(t, http.MethodPost, alerts, c.AdminKey, spendAlertAt(0, r.URL+"/company"), &made)
	g.call(t, http.MethodPost, g.URL+"/v1/organization/projects/"+c.ProjectID+"/spend_alerts", c.AdminKey, spendAlertAt(0, r.URL+"/project"), &ofProject)
	g.call(t, http.MethodPost, alerts, c.AdminKey, spendAlertAt(1_000_000, r.URL+"/never"), &never)
	g.chat(t, c.APIKey, "sandbox/echo").want(t, "a call", http.StatusOK)
	eventually(t, 30*time.Second, "both alerts are delivered", func() bool {
		for _, path := range []string{"/spend_alerts/" + made.ID, "/projects/" + c.ProjectID + "/spend_alerts/" + ofProject.ID} {
			var a madeAlert
			g.call(t, http.MethodGet, g.URL+"/v1/organization"+path, c.AdminKey, nil, &a)
			if a.Last == nil || a.Last.Status != "delivered" || a.Last.HTTP != 200 {
				return false
			}
		}
		return true
	})
	got := r.received()
	if len(got) != 3 || got[0].path != got[2].path || got[0].body != got[2].body || got[0].header.Get("Webhook-Id") != got[2].header.Get("Webhook-Id") {
		t.Errorf("received %+v", got) // one, which failed, the other, and the first again
	}
	for _, h := range got {
		if h.path == "/never" {
			t.Error("an amount that was not spent was told")
		}
	}
	i := slices.IndexFunc(got, func(h hooked) bool { return h.path == "/company" })
	header := map[string]string{}
	for name := range got[i].header {
		header[strings.ToLower(name)] = got[i].header.Get(name)
	}
	text, err := json.Marshal(header)
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"webhook.py", "webhook.mjs"} {
		t.Run(file, func(t *testing.T) {
			runScript(t, g, c, file, "WEBHOOK_BODY="+got[i].body, "WEBHOOK_HEADERS="+string(text), "WEBHOOK_SECRET="+made.Channel.Secret)
		})
	}
	for what, secret := range map[string]string{"log": string(g.log(t)), "list": string(ask(t, http.MethodGet, alerts, c.AdminKey, nil).body)} {
		if strings.Contains(secret, strings.TrimPrefix(made.Channel.Secret, "whsec_")) {
			t.Errorf("the secret stands in the %s", what)
		}
	}
}

// TestWebhookPrivate: a gateway that is no laboratory's reaches no address of its
// own network.
func TestWebhookPrivate(t *testing.T) {
	r := newReceiver(t, 0)
	g := prepare(t, "", r.trusted)
	g.serve(t)
	for _, url := range []string{r.URL, "https://localhost:8443/x", "https://metadata.internal/", "http://hooks.example.com/"} {
		a := ask(t, http.MethodPost, g.URL+"/v1/organization/spend_alerts", g.Demo.AdminKey, spendAlertAt(0, url))
		if code, _ := a.want(t, url, http.StatusBadRequest).fault(); code != "invalid_url" {
			t.Errorf("%s: code %q", url, code)
		}
	}
}

// TestWebhookOfMany: three gateways that count the same company's calls tell it
// once for each amount, and one that is killed leaves its deliveries to others.
func TestWebhookOfMany(t *testing.T) {
	r := newReceiver(t, 0)
	f := newFleet(t, nil, fleetOptions{config: "upstream: {allow_private: true}\n", env: []string{r.trusted}})
	c := f.all[0].Demo
	var made madeAlert
	f.all[0].call(t, http.MethodPost, f.all[0].URL+"/v1/organization/spend_alerts", c.AdminKey, spendAlertAt(0, r.URL), &made)
	spend := func(gateways ...*gateway) {
		t.Helper()
		var calls sync.WaitGroup
		for _, g := range gateways {
			for range 5 {
				calls.Go(func() {
					if a, err := tryAsk(t.Context(), http.MethodPost, g.URL+"/v1/chat/completions", c.APIKey, chatBody("sandbox/echo", "Hello")); err != nil || a.status != http.StatusOK {
						t.Errorf("a call: %v, %d", err, a.status)
					}
				})
			}
		}
		calls.Wait()
	}
	for _, g := range f.all { // each knows of the alert
		eventually(t, everywhere, "the alert is known", func() bool {
			return ask(t, http.MethodGet, g.URL+"/v1/organization/spend_alerts/"+made.ID, c.AdminKey, nil).status == http.StatusOK
		})
	}
	spend(f.all...)
	eventually(t, 20*time.Second, "it is told", func() bool { return len(r.ids()) > 0 })
	f.runs[0].kill(t)
	f.all[1].call(t, http.MethodPost, f.all[1].URL+"/v1/organization/spend_alerts", c.AdminKey, spendAlertAt(0, r.URL+"/second"), nil)
	spend(f.all[1:]...)
	eventually(t, 90*time.Second, "the second is told", func() bool {
		return slices.ContainsFunc(r.received(), func(h hooked) bool { return h.path == "/second" })
	})
	ids := r.ids()
	once := slices.Clone(ids)
	slices.Sort(once)
	if once = slices.Compact(once); len(ids) != 2 || len(once) != 2 {
		t.Errorf("received %q", ids)
	}
}
