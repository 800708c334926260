package tenant

import (
	"slices"
	"time"
)

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

// MaxBudgetsPerOwner is how many budgets one owner may have, so that those of a
// call can be decided about in one step.
const MaxBudgetsPerOwner = 6

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

// budgetsOf resolves, once per key and policy, which budgets every request of a
// key must pass.
func (c *Company) budgetsOf(p *Project, k *Key) (all []*Budget) {
	for _, b := range c.Budgets {
		if b.Kind == OfCompany || b.Kind == OfCeiling ||
			b.Kind == OfProject && p != nil && b.Of == p.ID || b.Kind == OfKey && k != nil && b.Of == k.ID {
			all = append(all, b)
		}
	}
	return all
}

// HasBudgetsOf reports whether there are budgets of a kind.
func (c *Company) HasBudgetsOf(kind string) bool {
	return slices.ContainsFunc(c.Budgets, func(b *Budget) bool { return b.Kind == kind })
}

// AppendBudgetsOf appends the budgets of one agent or one end user. A budget of
// each user is the user's, unless the user has one of that unit and period.
func (c *Company) AppendBudgetsOf(to []*Budget, kind, id string) []*Budget {
	if id == "" {
		return to
	}
	begin := len(to)
	for _, b := range c.Budgets {
		if b.Kind == kind && b.Of == id {
			to = append(to, b)
		}
	}
	if kind != OfUser {
		return to
	}
	for _, b := range c.Budgets {
		own := func(o *Budget) bool { return o.Unit == b.Unit && o.Period == b.Period }
		if b.Kind == OfUser && b.Of == EachUser && !slices.ContainsFunc(to[begin:], own) {
			mine := *b
			mine.Of = id
			to = append(to, &mine)
		}
	}
	return to
}
