package store

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"bulkhead/audit"
	"bulkhead/fault"
	"bulkhead/ledger"
	"bulkhead/limiter"
	"bulkhead/openai"
	"bulkhead/tenant"
)

const (
	maxAlerts  = 100 // of one company
	maxPending = 100 // events of one company that were not delivered yet

	// eventsKept is how long events are kept after their month began.
	eventsKept = 400 * 24 * time.Hour
)

const (
	alertColumns = `id, project_id, amount, url, created_at`
	alertRows    = `SELECT ` + alertColumns + ` FROM alert WHERE company_id = $1`
	eventColumns = `id, alert_id, amount, period, spent, created_at, tries, next_at, delivered_at, status`
	eventFields  = `e.id, e.alert_id, e.amount, e.period, e.spent, e.created_at, e.tries, e.next_at, e.delivered_at, e.status`
)

var (
	alertList = list[statement]{
		statement{"alerts_cursor", `SELECT created_at FROM alert WHERE company_id = $1 AND id = $2 AND project_id = $3`},
		statement{"alerts_ascending", alertRows + between + ` AND project_id = $7` + oldToNew},
		statement{"alerts_descending", alertRows + between + ` AND project_id = $7` + newToOld},
	}
	alertsAll     = statement{"alerts_all", alertRows + ` ORDER BY created_at, id`}
	alertOne      = statement{"alert_one", alertRows + ` AND project_id = $2 AND id = $3`}
	alertsCounted = statement{"alerts_counted", `SELECT COUNT(*) FROM alert WHERE company_id = $1`}
	alertInserted = statement{"alert_inserted",
		`INSERT INTO alert (company_id, ` + alertColumns + `) SELECT company_id, $2, $3, $4, $5, $6 FROM company WHERE company_id = $1`}
	alertUpdated = statement{"alert_updated",
		`UPDATE alert SET amount = $4, url = $5 WHERE company_id = $1 AND project_id = $2 AND id = $3`}
	alertDeleted = statement{"alert_deleted",
		`DELETE FROM alert WHERE company_id = $1 AND project_id = $2 AND id = $3`}

	alertEventsOf = statement{"alert_events_of",
		`SELECT ` + eventColumns + ` FROM alert_event WHERE company_id = $1 ORDER BY created_at, id`}
	alertEventsDeleted = statement{"alert_events_deleted",
		`DELETE FROM alert_event WHERE company_id = $1 AND alert_id = $2`}
	alertEventsOld = statement{"alert_events_old",
		`DELETE FROM alert_event WHERE company_id = $1 AND period < $2 AND next_at = 0`}
	alertEventInserted = statement{"alert_event_inserted",
		`INSERT INTO alert_event (company_id, ` + eventColumns + `)
		SELECT company_id, $2, $3, $4, $5, $6, $7, 0, $7, 0, 0 FROM company WHERE company_id = $1 AND status IN ('active', 'suspended')
			AND (SELECT COUNT(*) FROM alert_event WHERE company_id = $1 AND next_at > 0) < $8
		ON CONFLICT (company_id, alert_id, period, amount) DO NOTHING`}
	alertEventsDue = statement{"alert_events_due",
		`SELECT ` + eventFields + `, a.project_id, a.url FROM alert_event AS e
		JOIN alert AS a ON a.company_id = $1 AND a.id = e.alert_id
		WHERE e.company_id = $1 AND e.next_at > 0 AND e.next_at <= $2 ORDER BY e.next_at, e.id LIMIT $3`}
	alertEventNext = statement{"alert_event_next",
		`SELECT COALESCE(MIN(next_at), 0) FROM alert_event WHERE company_id = $1 AND next_at > 0`}
	alertEventTried = statement{"alert_event_tried",
		`UPDATE alert_event SET tries = $3, next_at = $4, delivered_at = $5, status = $6
		WHERE company_id = $1 AND id = $2 AND delivered_at = 0`}
)

func scanAlert(r row) (a tenant.SpendAlert, err error) {
	err = r.Scan(&a.ID, &a.ProjectID, &a.Nano, &a.URL, moment{&a.CreatedAt})
	return a, err
}

func eventDest(e *tenant.SpendEvent) []any {
	return []any{&e.ID, &e.Alert, &e.Nano, moment{&e.From}, &e.Spent, moment{&e.CreatedAt}, &e.Tries, moment{&e.Next},
		moment{&e.DeliveredAt}, &e.Status}
}

// lastEvents returns the last event of each alert.
func (t *tx) lastEvents() (last map[string]*tenant.SpendEvent, err error) {
	last = map[string]*tenant.SpendEvent{}
	err = t.query(alertEventsOf, func(r row) error {
		e := &tenant.SpendEvent{}
		err := r.Scan(eventDest(e)...)
		last[e.Alert] = e
		return err
	})
	return last, err
}

// SpendAlerts implements web.Registry.
func (db *DB) SpendAlerts(ctx context.Context, s tenant.Scope, project string, p openai.Page) (all []tenant.SpendAlert, more bool, err error) {
	err = db.read(ctx, s.ID(), func(t *tx) error {
		within := []any{storable(project)}
		if all, more, err = readPage(t, alertList, p, scanAlert, within, nil); err != nil {
			return err
		}
		last, err := t.lastEvents()
		for i := range all {
			all[i].Last = last[all[i].ID]
		}
		return err
	})
	return all, more, err
}

// SpendAlert implements web.Registry.
func (db *DB) SpendAlert(ctx context.Context, s tenant.Scope, project, id string) (a tenant.SpendAlert, err error) {
	err = db.read(ctx, s.ID(), func(t *tx) error {
		a, err = t.alert(project, id)
		return err
	})
	return a, err
}

func (t *tx) alert(project, id string) (a tenant.SpendAlert, err error) {
	err = t.one(alertOne, []any{&a.ID, &a.ProjectID, &a.Nano, &a.URL, moment{&a.CreatedAt}}, project, id)
	if err != nil {
		return a, err
	}
	last, err := t.lastEvents()
	a.Last = last[id]
	return a, err
}

// CreateSpendAlert implements web.Registry.
func (db *DB) CreateSpendAlert(ctx context.Context, s tenant.Scope, a tenant.SpendAlert) error {
	return db.change(ctx, s, func(t *tx) error {
		var n int64
		if err := t.one(alertsCounted, []any{&n}); err != nil {
			return err
		}
		if n >= maxAlerts {
			return fault.New(fault.Invalid, "The company has %d spend alerts, which is as many as there may be.", maxAlerts)
		}
		if _, err := t.exec(alertInserted, a.ID, a.ProjectID, a.Nano, a.URL, micros(a.CreatedAt)); err != nil {
			return conflict(err)
		}
		return t.alertChanged(audit.SpendAlertCreated, a, made[alerted]{alerted{ledger.FormatUSD(a.Nano)}})
	})
}

// UpdateSpendAlert implements web.Registry.
func (db *DB) UpdateSpendAlert(ctx context.Context, s tenant.Scope, project, id string, nano int64, url string) (a tenant.SpendAlert, err error) {
	err = db.change(ctx, s, func(t *tx) error {
		if err := must(t.exec(alertUpdated, project, id, nano, url)); err != nil {
			return err
		}
		if a, err = t.alert(project, id); err != nil {
			return err
		}
		return t.alertChanged(audit.SpendAlertUpdated, a, changed[alerted]{alerted{ledger.FormatUSD(nano)}})
	})
	return a, err
}

// DeleteSpendAlert implements web.Registry. What was not delivered is not any more.
func (db *DB) DeleteSpendAlert(ctx context.Context, s tenant.Scope, project, id string) error {
	return db.change(ctx, s, func(t *tx) error {
		if _, err := t.alert(project, id); err != nil {
			return err
		}
		if _, err := t.exec(alertEventsDeleted, id); err != nil {
			return err
		}
		if err := must(t.exec(alertDeleted, project, id)); err != nil {
			return err
		}
		return t.audit(audit.SpendAlertDeleted, project, id)
	})
}

// alerted is an alert. Its address may hold a secret.
type alerted struct {
	Threshold string `json:"threshold_usd"`
}

// alertChanged has the alerts looked at: the amount may be spent already.
func (t *tx) alertChanged(what audit.Type, a tenant.SpendAlert, said any) error {
	if err := t.askUpkeep(tenant.CheckAlerts, t.now); err != nil {
		return err
	}
	return t.audit(what, a.ProjectID, a.ID, said)
}

// CheckAlerts implements web.UpkeepStore: it makes an event for each alert whose
// amount is spent and that has none for it in this month, and asks for its
// delivery.
func (db *DB) CheckAlerts(ctx context.Context, s tenant.Scope, now time.Time) error {
	var alerts []tenant.SpendAlert
	err := db.read(ctx, s.ID(), func(t *tx) error {
		return t.query(alertsAll, func(r row) error {
			a, err := scanAlert(r)
			alerts = append(alerts, a)
			return err
		})
	})
	if err != nil || len(alerts) == 0 {
		return err
	}
	calendar := s.Company().Calendar
	if calendar == nil {
		calendar = &tenant.Calendar{}
	}
	from, to := calendar.Window(tenant.Month, now)
	var spans []limiter.Span // one for all alerts of a project, or of the company
	at := map[string]int{}
	for _, a := range alerts {
		if _, there := at[a.ProjectID]; there {
			continue
		}
		sp := limiter.Span{Kind: tenant.OfCompany, From: from, To: to}
		if a.ProjectID != "" {
			sp.Kind, sp.Of = tenant.OfProject, a.ProjectID
		}
		at[a.ProjectID] = len(spans)
		spans = append(spans, sp)
	}
	used, err := db.Spent(ctx, s, spans, to, nil)
	if err != nil {
		return err
	}
	for _, a := range alerts {
		spent := used[at[a.ProjectID]].Nano
		if spent <= 0 || spent < a.Nano {
			continue
		}
		if err := db.reached(ctx, s, &a, from, spent, now); err != nil {
			return err
		}
	}
	return nil
}

// reached makes the event of an alert, unless there is one.
func (db *DB) reached(ctx context.Context, s tenant.Scope, a *tenant.SpendAlert, from time.Time, spent int64, now time.Time) error {
	err := db.add(ctx, s, func(t *tx) error {
		if _, err := t.exec(alertEventsOld, micros(from.Add(-eventsKept))); err != nil {
			return err
		}
		n, err := t.exec(alertEventInserted, eventID(a, from), a.ID, a.Nano, micros(from), spent, micros(now), maxPending)
		if err != nil || n == 0 {
			return err
		}
		return t.askUpkeep(tenant.Deliver, now)
	})
	if errors.Is(err, errForeign) { // the alert was deleted
		return nil
	}
	return err
}

// eventID names an event by what there is one of.
func eventID(a *tenant.SpendAlert, from time.Time) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %d %d", a.ID, from.UnixMicro(), a.Nano))
	return "evt_" + hex.EncodeToString(sum[:16])
}

// Deliveries implements web.UpkeepStore.
func (db *DB) Deliveries(ctx context.Context, s tenant.Scope, now time.Time, limit int) (due []tenant.SpendDelivery, next time.Time, err error) {
	err = db.read(ctx, s.ID(), func(t *tx) error {
		err := t.query(alertEventsDue, func(r row) error {
			var d tenant.SpendDelivery
			err := r.Scan(append(eventDest(&d.Event), &d.ProjectID, &d.URL)...)
			due = append(due, d)
			return err
		}, micros(now), limit)
		if err != nil {
			return err
		}
		return t.one(alertEventNext, []any{moment{&next}})
	})
	return due, next, err
}

// DeliveryTried implements web.UpkeepStore.
func (db *DB) DeliveryTried(ctx context.Context, s tenant.Scope, e tenant.SpendEvent) error {
	return db.add(ctx, s, func(t *tx) error {
		_, err := t.exec(alertEventTried, e.ID, e.Tries, micros(e.Next), micros(e.DeliveredAt), e.Status)
		return err
	})
}
