package tenant

import "time"

// SpendAlert tells a company that it has spent an amount in a calendar month. It
// stops nothing.
type SpendAlert struct {
	ID        string // "alert_…"
	ProjectID string // "" for what the company spends as a whole
	Nano      int64  // nano-USD in one month
	URL       string // where the event is sent, by POST
	CreatedAt time.Time
	Last      *SpendEvent // the last time the amount was reached; nil: never
}

// SpendEvent says that the amount of an alert was reached. There is one for each
// alert, month and amount.
type SpendEvent struct {
	ID          string // "evt_…"
	Alert       string
	Nano        int64     // the amount that was reached
	Spent       int64     // nano-USD, when it was noticed
	From        time.Time // when the month began
	CreatedAt   time.Time
	Tries       int       // so far
	Next        time.Time // of the next try; zero: there is none
	DeliveredAt time.Time // zero: not yet
	Status      int       // HTTP status of the last answer; 0: there was none
}

// SpendDelivery is an event that is to be sent, and where to.
type SpendDelivery struct {
	Event     SpendEvent
	ProjectID string // of the alert
	URL       string
}
