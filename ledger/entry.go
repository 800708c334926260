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
	Failed    Outcome = "failed"    // no answer, and nothing was accepted: connection, garbage
	Unknown   Outcome = "unknown"   // sent, and no answer came: it may have been done and billed
	Swept     Outcome = "swept"     // the gateway died before it could write down how it ended
)

// Rank says how sure the figures of an entry are. A higher rank replaces a
// lower one of the same entry, once.
type Rank int

// The ranks, from the least sure.
const (
	ByLease  Rank = 0 // swept: what was held, whole
	Estimate Rank = 1 // counted by the gateway that made the attempt
	Final    Rank = 2 // the provider's own usage
)

// Mark is something about an entry that whoever audits the bill wants to see.
type Mark uint16

// The marks, a set of bits.
const (
	NoUsage     Mark = 1 << iota // the provider said no usage
	AbsurdUsage                  // it said more than the call could use, and was booked so
	TwoUsages                    // it said usage twice; the last counts
	Clamped                      // the bound of the output was lowered to what the budgets had room for
	Tokenized                    // the visible text was counted by the model's tokenizer
	TierAssumed                  // the answer does not name its service tier
	UnpricedFee                  // something was used that no price is known for, such as a tool
)

// Entry is what one attempt at one provider used and cost. The ledger is the
// truth about money; every counter is derived from it.
type Entry struct {
	ID        string // of the attempt and its hold, made before it begins
	RequestID string // x-request-id; attempts of one request share it
	ProjectID string
	KeyID     string
	AgentID   string // "" without an agent
	UserID    string // hash of the end user's name, by company; "" without one
	Kind      string // "chat", "completions", "embeddings", "moderations"
	Provider  string // as configured
	Model     string // the provider's name for it
	Requested string // the name the client asked for
	Tier      string // the service tier that was billed; "" is the standard one
	Outcome   Outcome
	Rank      Rank
	Status    int  // HTTP status of the provider; 0 if there was none
	First     bool // the first attempt of its request; the others are fallbacks
	Lent      bool // with a credential that the operator lent
	Marks     Mark
	Usage     openai.Usage
	Priced    bool // false: the price of the model is not known and Cost is 0

	// CostNano is nano-USD (1e-9 USD), rounded up once per attempt. Where it is
	// not Final the bill is between LowNano and HighNano; else both are CostNano.
	CostNano, LowNano, HighNano int64

	StartedAt time.Time // of the hold: decides about the budgets' periods
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
