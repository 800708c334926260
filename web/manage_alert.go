package web

import (
	"bulkhead/egress"
	"bulkhead/fault"
	"bulkhead/ledger"
	"bulkhead/openai"
	"bulkhead/tenant"
)

// alertObject is OpenAI's spend alert. It tells a webhook, since the gateway sends
// no email.
type alertObject struct {
	ID       string       `json:"id"`
	Object   string       `json:"object"`
	Amount   int64        `json:"threshold_amount"` // cents
	Currency string       `json:"currency"`
	Interval string       `json:"interval"`
	Channel  alertChannel `json:"notification_channel"`
	// Last is the last event there was, null for none.
	Last *alertEvent `json:"last_event"`
}

type alertChannel struct {
	Type       string   `json:"type"`
	URL        string   `json:"url"`
	Secret     string   `json:"secret,omitempty"` // once, when the alert is made
	Recipients []string `json:"recipients"`       // always empty: those of OpenAI's emails
}

// alertEvent says what came of an event.
type alertEvent struct {
	ID          string `json:"id"`
	CreatedAt   int64  `json:"created_at"`
	Amount      int64  `json:"threshold_amount"`
	Spent       string `json:"spent_usd"`
	Status      string `json:"status"` // "pending", "delivered" or "failed"
	DeliveredAt *int64 `json:"delivered_at"`
	Attempts    int    `json:"attempts"`
	LastStatus  *int   `json:"last_http_status"` // null: there was no answer, or no attempt
}

// alertName is how an alert is called, without what is behind a dot.
func alertName(project string) string {
	if project == "" {
		return "organization.spend_alert"
	}
	return "project.spend_alert"
}

func toAlert(a tenant.SpendAlert) alertObject {
	o := alertObject{ID: a.ID, Object: alertName(a.ProjectID), Amount: a.Nano / nanoPerCent, Currency: "USD", Interval: "month",
		Channel: alertChannel{Type: "webhook", URL: a.URL, Recipients: []string{}}}
	e := a.Last
	if e == nil {
		return o
	}
	o.Last = &alertEvent{ID: e.ID, CreatedAt: e.CreatedAt.Unix(), Amount: e.Nano / nanoPerCent, Spent: ledger.FormatUSD(e.Spent), Status: "pending",
		DeliveredAt: unixTime(e.DeliveredAt), Attempts: e.Tries}
	switch {
	case o.Last.DeliveredAt != nil:
		o.Last.Status = "delivered"
	case e.Next.IsZero():
		o.Last.Status = "failed"
	}
	if e.Status != 0 {
		o.Last.LastStatus = &e.Status
	}
	return o
}

// alertBody is what an alert is made or changed with: all of it each time.
type alertBody struct {
	monthly
	Channel *struct {
		Type          string   `json:"type"`
		URL           string   `json:"url"`
		Recipients    []string `json:"recipients"`
		SubjectPrefix *string  `json:"subject_prefix"`
	} `json:"notification_channel"`
}

func (b *alertBody) check(allowPrivate bool) (nano int64, url string, err error) {
	if nano, err = b.nano(0); err != nil {
		return 0, "", err
	}
	c := b.Channel
	if c == nil {
		return 0, "", fault.Field("notification_channel", "notification_channel is required.")
	}
	bad := func(field, format string, a ...any) (int64, string, error) {
		return 0, "", fault.Field("notification_channel."+field, format, a...)
	}
	switch {
	case c.Type == "email":
		return bad("type", `The gateway sends no email: use {"type": "webhook", "url": "https://…"}.`)
	case c.Type != "webhook":
		return bad("type", "notification_channel.type must be webhook.")
	case len(c.Recipients) > 0:
		return bad("recipients", "A webhook has a url and no recipients.")
	case c.SubjectPrefix != nil:
		return bad("subject_prefix", "A webhook has no subject.")
	}
	if _, err := egress.CheckURL(c.URL, allowPrivate); err != nil {
		f := fault.As(err)
		e := fault.Field("notification_channel.url", "%s", f.Message).WithCode("invalid_url")
		return 0, "", e
	}
	return nano, c.URL, nil
}

// alertsOf returns the project of the path, "" for alerts of the company.
func (g *Gateway) alertsOf(r *request, ofProject, change bool) (project string, err error) {
	_, _, project, err = g.spendLimitOf(r, ofProject, change)
	return project, err
}

func (g *Gateway) listAlerts(r *request, ofProject bool) (any, error) {
	p, err := r.page(pageDefault, pageMost)
	if err != nil {
		return nil, err
	}
	p.Desc = r.query("order") == "desc" // OpenAI lists these by creation, oldest first
	project, err := g.alertsOf(r, ofProject, false)
	if err != nil {
		return nil, err
	}
	items, more, err := g.Registry.SpendAlerts(r.ctx, r.scope, project, p)
	return listed(p, items, more, err, toAlert, func(o alertObject) string { return o.ID })
}

func (g *Gateway) createAlert(r *request, ofProject bool) (any, error) {
	var b alertBody
	if err := r.decode(&b); err != nil {
		return nil, err
	}
	a := tenant.SpendAlert{ID: openai.NewID("alert_"), CreatedAt: g.now()}
	var err error
	if a.Nano, a.URL, err = b.check(r.settings.AllowPrivate); err != nil {
		return nil, err
	}
	if a.ProjectID, err = g.alertsOf(r, ofProject, true); err != nil {
		return nil, err
	}
	o := toAlert(a)
	o.Channel.Secret = g.webhookSecret(r.scope, a.ID)
	return o, g.Registry.CreateSpendAlert(r.ctx, r.scope, a)
}

func (g *Gateway) getAlert(r *request, ofProject bool) (any, error) {
	project, err := g.alertsOf(r, ofProject, false)
	if err != nil {
		return nil, err
	}
	a, err := g.Registry.SpendAlert(r.ctx, r.scope, project, r.param("alert"))
	return toAlert(a), err
}

func (g *Gateway) updateAlert(r *request, ofProject bool) (any, error) {
	var b alertBody
	if err := r.decode(&b); err != nil {
		return nil, err
	}
	nano, url, err := b.check(r.settings.AllowPrivate)
	if err != nil {
		return nil, err
	}
	project, err := g.alertsOf(r, ofProject, true)
	if err != nil {
		return nil, err
	}
	a, err := g.Registry.UpdateSpendAlert(r.ctx, r.scope, project, r.param("alert"), nano, url)
	return toAlert(a), err
}

func (g *Gateway) deleteAlert(r *request, ofProject bool) (any, error) {
	project, err := g.alertsOf(r, ofProject, true)
	if err != nil {
		return nil, err
	}
	id := r.param("alert")
	return deleted{id, alertName(project) + ".deleted", true}, g.Registry.DeleteSpendAlert(r.ctx, r.scope, project, id)
}

func (g *Gateway) listCompanyAlerts(r *request) (any, error)  { return g.listAlerts(r, false) }
func (g *Gateway) createCompanyAlert(r *request) (any, error) { return g.createAlert(r, false) }
func (g *Gateway) getCompanyAlert(r *request) (any, error)    { return g.getAlert(r, false) }
func (g *Gateway) updateCompanyAlert(r *request) (any, error) { return g.updateAlert(r, false) }
func (g *Gateway) deleteCompanyAlert(r *request) (any, error) { return g.deleteAlert(r, false) }
func (g *Gateway) listProjectAlerts(r *request) (any, error)  { return g.listAlerts(r, true) }
func (g *Gateway) createProjectAlert(r *request) (any, error) { return g.createAlert(r, true) }
func (g *Gateway) getProjectAlert(r *request) (any, error)    { return g.getAlert(r, true) }
func (g *Gateway) updateProjectAlert(r *request) (any, error) { return g.updateAlert(r, true) }
func (g *Gateway) deleteProjectAlert(r *request) (any, error) { return g.deleteAlert(r, true) }
