package web

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"time"

	"bulkhead/egress"
	"bulkhead/ledger"
	"bulkhead/tenant"
)

// How long a webhook may take, and how long after each attempt that failed comes
// the next one. After the last there is none: some 21 hours in all.
const webhookTimeout = 10 * time.Second

var webhookRetries = []time.Duration{5 * time.Second, 30 * time.Second, 2 * time.Minute, 10 * time.Minute, 30 * time.Minute, 2 * time.Hour, 6 * time.Hour, 12 * time.Hour}

// webhookSecret returns the secret of an alert's webhook, in the form of the
// Standard Webhooks specification: "whsec_" and base64. It is derived and kept
// nowhere: who has the store has no secret.
func (g *Gateway) webhookSecret(s tenant.Scope, alert string) string {
	return "whsec_" + base64.StdEncoding.EncodeToString(g.webhookKey(s, alert))
}

func (g *Gateway) webhookKey(s tenant.Scope, alert string) []byte {
	if len(g.WebhookKey) < sha256.Size {
		panic("BUG: there is no key for webhooks")
	}
	h := hmac.New(sha256.New, g.WebhookKey)
	h.Write(s.Name("webhook", alert).Append(nil))
	return h.Sum(nil)
}

// signature signs what is sent as OpenAI signs its webhooks, and the Standard
// Webhooks specification has it: id, time and body, joined with dots.
func signature(key []byte, id, timestamp string, body []byte) string {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(id + "." + timestamp + "."))
	h.Write(body)
	return "v1," + base64.StdEncoding.EncodeToString(h.Sum(nil))
}

// webhookEvent is the body. It is the same at each attempt.
type webhookEvent struct {
	ID        string      `json:"id"`
	Object    string      `json:"object"`
	Type      string      `json:"type"`
	CreatedAt int64       `json:"created_at"`
	Data      webhookData `json:"data"`
}

type webhookData struct {
	ID          string  `json:"id"`
	Object      string  `json:"object"`
	ProjectID   *string `json:"project_id"`
	Amount      int64   `json:"threshold_amount"`
	Currency    string  `json:"currency"`
	Interval    string  `json:"interval"`
	Spent       string  `json:"spent_usd"` // when it was noticed
	PeriodStart int64   `json:"period_start"`
}

func webhookBody(d *tenant.SpendDelivery) []byte {
	e := &d.Event
	o := webhookEvent{e.ID, "event", "spend_alert.triggered", e.CreatedAt.Unix(), webhookData{ID: e.Alert, Object: alertName(d.ProjectID),
		Amount: e.Nano / nanoPerCent, Currency: "USD", Interval: "month", Spent: ledger.FormatUSD(e.Spent), PeriodStart: e.From.Unix()}}
	if d.ProjectID != "" {
		o.Data.ProjectID = &d.ProjectID
	}
	b, err := json.Marshal(o)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return b
}

// webhooks sends events to the addresses that companies chose.
type webhooks struct {
	public, lab *http.Transport // lab reaches private addresses
}

func newWebhooks() *webhooks {
	o := egress.Options{Connect: 5 * time.Second, IdleConn: 5 * time.Second}
	w := &webhooks{public: egress.NewTransport(o)}
	o.AllowPrivate = true
	w.lab = egress.NewTransport(o)
	return w
}

func (w *webhooks) close() {
	w.public.CloseIdleConnections()
	w.lab.CloseIdleConnections()
}

// send makes one attempt and returns the status of the answer; 0: there was none.
// A redirect is not followed.
func (w *webhooks) send(ctx context.Context, d *tenant.SpendDelivery, key []byte, now time.Time, allowPrivate bool) (status int) {
	ctx, cancel := context.WithTimeout(ctx, webhookTimeout)
	defer cancel()
	body, at := webhookBody(d), strconv.FormatInt(now.Unix(), 10)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, d.URL, bytes.NewReader(body))
	if err != nil {
		return 0
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "Bulkhead-Webhook/1")
	req.Header.Set("Webhook-Id", d.Event.ID)
	req.Header.Set("Webhook-Timestamp", at)
	req.Header.Set("Webhook-Signature", signature(key, d.Event.ID, at, body))
	transport := w.public
	if allowPrivate {
		transport = w.lab
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 4<<10)) // so that the connection can be used again
	return resp.StatusCode
}

// tried returns e after an attempt that ended with a status.
func tried(e tenant.SpendEvent, status int, now time.Time, retries []time.Duration) tenant.SpendEvent {
	e.Tries++
	e.Status, e.Next = status, time.Time{}
	switch {
	case status >= 200 && status < 300:
		e.DeliveredAt = now
	case e.Tries <= len(retries):
		e.Next = now.Add(retries[e.Tries-1])
	}
	return e
}
