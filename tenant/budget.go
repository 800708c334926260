package tenant

import "time"

// Unit says what a budget counts.
type Unit string

// The units. An amount of money is nano-USD (1e-9 USD).
const (
	USD      Unit = "usd"
	Requests Unit = "requests" // calls, not attempts
	Tokens   Unit = "tokens"   // input and output together
)

// MaxBudget is the largest limit of a budget: 9,000,000 USD in nano-USD. Sums
// stay below 2^53, up to which Redis' Lua counts exactly.
const MaxBudget = 9_000_000_000_000_000

// Budget bounds what is used in a period. All that apply to a call must have
// room for it.
type Budget struct {
	ID string // "budget_…"

	// Kind and Of say whose it is: "company" and "", "project" and its id, "key"
	// and its id, "agent" and its id, "user" and the hash of the end user's name
	// or "*", which is each user without a budget of their own; or "ceiling" and
	// "", the operator's bound on what a company spends of lent credentials.
	Kind, Of string

	Unit     Unit
	Period   Period
	Limit    int64 // nano-USD, calls or tokens in one period; at most MaxBudget
	Soft     bool  // see Bound in package provider: a call is held at its likely worst, not at the worst possible
	Calendar *Calendar

	CreatedAt time.Time
}

// The kinds of a budget.
const (
	OfCompany = "company"
	OfProject = "project"
	OfKey     = "key"
	OfAgent   = "agent"
	OfUser    = "user"
	OfCeiling = "ceiling"

	EachUser = "*"
)
