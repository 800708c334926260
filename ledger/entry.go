package ledger

import (
	"context"
	"time"

	"bulkhead/openai"
	"bulkhead/tenant"
)

// Outcome says how an attempt ended.
type Outcome string

// The outcomes of an attempt.
const (
	Answered  Outcome = "answered"  // the provider's answer was complete
	Cut       Outcome = "cut"       // the provider stopped in the middle
	Cancelled Outcome = "cancelled" // the client left
	Refused   Outcome = "refused"   // the provider answered with an error
	Failed    Outcome = "failed"    // no answer: connection, timeout, garbage
)

// Rank says how sure the figures of an entry are. A higher rank replaces a
// lower one of the same entry, once.
type Rank int

// The ranks, from the least sure.
const (
	Estimate Rank = 1 // counted by the gateway
	Final    Rank = 2 // the provider's own usage
)

// Entry is what one attempt at one provider used and cost. The ledger is the
// truth about money; every counter is derived from it.
type Entry struct {
	ID        string // of the attempt, made before it begins
	RequestID string // x-request-id; attempts of one request share it
	ProjectID string
	KeyID     string
	Kind      string // "chat", "completions", "embeddings", "moderations"
	Provider  string // as configured
	Model     string // the provider's name for it
	Requested string // the name the client asked for
	Outcome   Outcome
	Rank      Rank
	Status    int // HTTP status of the provider; 0 if there was none
	Usage     openai.Usage
	Priced    bool  // false: the price of the model is not known and Cost is 0
	CostNano  int64 // nano-USD (1e-9 USD), rounded up once per attempt
	StartedAt time.Time
	EndedAt   time.Time
}

// Booked is an entry with the company it belongs to.
type Booked struct {
	Scope tenant.Scope
	Entry Entry
}

// Store keeps entries.
type Store interface {
	// AppendEntries stores all of the batch or nothing. An entry that is there
	// already is left alone, or replaced if its rank is lower: sending a batch
	// twice changes nothing.
	AppendEntries(ctx context.Context, batch []Booked) error
}
