// Package limiter owns how much a company may use per time: requests and
// tokens per minute, calls open at the same time, and budgets. It is the one
// place where a call is admitted, and it decides about every limit and budget of
// a call in one atomic step: all of them have room and all are taken, or none is.
//
// What was taken is a Hold, which is given back once, on every path:
//
//	hold, state, err := l.Hold(ctx, s, &limiter.Ask{ID: id, Limits: s.Limits(), Tokens: bound})
//	if err != nil {
//		return err // a *fault.Error that names the limit and says when to come back
//	}
//	defer func() { hold.End(limiter.Used{Tokens: tokens, Nano: cost}) }()
//
// # What a limit per minute means
//
// A limit of n per minute is a bucket that holds n and is refilled evenly, n in
// a minute. A company that was idle may therefore use n at once (the burst),
// and after that as fast as the bucket is refilled: in any span of d minutes at
// most n + n*d. Nothing starts anew at a full minute.
//
// Tokens are not known before the call, so the most it may use is held and what
// it did use is booked when it is settled. Held and booked tokens together
// never exceed the limit. Held ones do not fade with time, booked ones do. If a
// provider reports more than was held, the company owes the difference, at most
// one more minute's worth.
//
// # What a budget means
//
// A budget is a limit for a calendar period (tenant.Budget): of money, calls or
// tokens. What was used of it is spent, what running attempts may still use is
// held, and spent and held together never exceed the limit. Money that is not
// known before the call is held at its worst case; where that has no room but
// Ask.LeastNano has, what there is is held and the caller lowers the bound of
// the output to it. Who takes nothing of a budget is not stopped by it: a model
// that costs nothing may be called when all money is spent.
//
// An attempt books into the period in which it was held, however late it ends.
// A period that nobody has counted yet is read from the ledger (Book), so that
// counters are derived from it and never the other way round:
//
//   - what the store has of attempts held before now, but for those below;
//   - attempts that ended and are not known to be in the store yet (Shipped);
//   - attempts that run are held, and book when they end, also into a period
//     that was not counted when they began.
//
// What counts for a budget is decided by the owner and the moment of the hold
// alone (By.Has, Hold.At), whether or not the budget was known to the attempt.
// A budget has no count of its own: one that is deleted and made again, or whose
// limit changes, stands where its owner's period stands.
//
// The package does not know what a call costs (ledger) nor which limits a
// company has (tenant). There is one implementation in process, Local, and one
// for many gateways, Redis; the suite in limitertest says what any must do.
package limiter

import (
	"context"
	"time"

	"bulkhead/tenant"
)

// MaxBudgets is how many budgets one attempt may have.
const MaxBudgets = 6 * tenant.MaxBudgetsPerOwner // of company, project, key, agent, user and the operator

// Ask is what one attempt wants. It is only read and not kept, but for the
// strings of ID and By: none may share memory with a request.
type Ask struct {
	// ID is the attempt's, and of its entry in the ledger, made for this attempt
	// alone. An attempt without an ID has no entry and never counts for a
	// budget: it may have none.
	ID string
	// Limits are those that hold for every call of the key, Scope.Limits().
	Limits []tenant.Limited
	// Model is the limit of the model within the project; nil if it has none.
	Model *tenant.Limited
	// Budgets are all that apply, of whatever owner; at most MaxBudgets. By has
	// each of them: one of each user is resolved to the user's own.
	Budgets []*tenant.Budget
	// By says whose attempt it is, for budgets that are made while it runs.
	By By
	// Again says that it is not the first attempt of its call, which was counted
	// as a request with that: it takes none, neither of a limit per minute nor of
	// a budget.
	Again bool
	// Tokens is the most the call may use: the input, counted or estimated, and
	// the bound of the output. Below 0 counts as 0.
	Tokens int64
	// Nano is the most the attempt may cost, in nano-USD. LeastNano is what is
	// enough for a useful answer, if the bound of the output is lowered; 0 is
	// Nano: all or nothing.
	Nano, LeastNano int64
	// Claim is what the attempt claims for itself alone, with an ID only; "" is
	// nothing. As long as it runs, and its lease where it has one, no other attempt
	// of the company with the same claim is admitted. It has at most 64 bytes.
	Claim string
	// Lost is called at most once, from any goroutine, when the hold has gone
	// before its end: its owner was taken for dead. The call must be cancelled
	// then. May be nil.
	Lost func(error)
}

// By says whose an attempt is.
type By struct {
	Project, Key, Agent, User string // ids; "" is none. User is the hash of the end user's name
	Lent                      bool   // it uses a credential that the operator lent
}

// Has reports whether what by does counts for the budget.
func (by *By) Has(b *tenant.Budget) bool {
	switch b.Kind {
	case tenant.OfCompany:
		return true
	case tenant.OfProject:
		return by.Project == b.Of && b.Of != ""
	case tenant.OfKey:
		return by.Key == b.Of && b.Of != ""
	case tenant.OfAgent:
		return by.Agent == b.Of && b.Of != ""
	case tenant.OfUser: // a budget of each user is resolved to the user's before it gets here
		return by.User == b.Of && b.Of != ""
	case tenant.OfCeiling:
		return by.Lent
	}
	return false
}

// CodeClaimed is the code of the refusal of an attempt whose claim another one has.
const CodeClaimed = "idempotency_in_progress"

// Used is what attempts used: of a window, or one attempt.
type Used struct {
	Nano     int64 // nano-USD
	Tokens   int64 // input and output
	Requests int64 // first attempts; a limiter counts them itself, Settle ignores it
}

// Of returns the amount in a unit.
func (u Used) Of(unit tenant.Unit) int64 {
	switch unit {
	case tenant.Tokens:
		return u.Tokens
	case tenant.Requests:
		return u.Requests
	}
	return u.Nano
}

// Span is what a Book is asked for: the attempts of an owner, as in
// tenant.Budget, that were held in a period. The zero To is now and ever.
type Span struct {
	Kind, Of string
	From, To time.Time
}

// Book is where the truth is read: the ledger's entries in the store.
type Book interface {
	// Spent returns, for each span in order, what the entries of attempts with
	// StartedAt in it, and before the moment before, used, leaving out those whose
	// ids are in except. All are read in one view of the store: what is in the
	// store for good when Spent is called is seen. There may be a thousand spans
	// and tens of thousands of ids. It does I/O and ends when ctx does.
	Spent(ctx context.Context, s tenant.Scope, spans []Span, before time.Time, except []string) ([]Used, error)
	// Has returns those of the ids of which the store has an entry of the company.
	// It does I/O and ends when ctx does.
	Has(ctx context.Context, s tenant.Scope, ids []string) ([]string, error)
}

// Standing is where a budget stands in its current period.
type Standing struct {
	Spent, Held int64     // in the budget's unit
	From, To    time.Time // of the period; To is the reset, zero for ever
}

// State is what is left in the tightest windows after the decision, for the
// x-ratelimit-* headers. The tightest is the one with the least left.
type State struct {
	HasRequests, HasTokens           bool // false: no such limit, the rest is 0
	LimitRequests, RemainingRequests int64
	LimitTokens, RemainingTokens     int64         // held tokens count as used
	ResetRequests, ResetTokens       time.Duration // until the window is full again if nothing else comes

	HasBudget     bool  // a budget of money applies and is counted
	RemainingNano int64 // of the one with the least left: limit - spent - held, nano-USD; not below 0
}

// Limiter admits attempts.
type Limiter interface {
	// Hold takes one request (but for a.Again), a.Tokens tokens, one open call and
	// a.Nano of money from every limit and budget in a, or takes nothing and says
	// why. Requests are spent with that, also of a budget, whatever comes of the
	// attempt; money and tokens are held until Settle.
	//
	// The refusals are faults:
	//   - Conflict, code CodeClaimed, with RetryAfter, where another attempt has
	//     a.Claim; before all others but those of the gateway as a whole.
	//   - RateLimited, code "rate_limit_exceeded", type "tokens" where tokens of
	//     a limit per minute were short and "requests" for the others of
	//     a.Limits. The first limit without room is named, in the order of a:
	//     Limits, Model, Budgets. RetryAfter says when to come back; NoRetry is
	//     set where waiting does not help or takes longer than a minute.
	//   - RateLimited, code "insufficient_quota", type "insufficient_quota" and
	//     NoRetry where what is spent of a budget leaves no room, or the attempt
	//     may use more than the whole of it.
	//   - RateLimited, code "rate_limit_exceeded", type "budget_held" where only
	//     running attempts stand in the way, with RetryAfter. Both say what is
	//     spent, held, the limit and when the period ends.
	//   - Unavailable: the gateway as a whole is full, the backend is away, or a
	//     budget cannot be counted because the ledger cannot be read.
	//
	// The State is that of the windows whether the call is admitted or not, but
	// for budgets that nobody has counted yet when a limit refuses: a refusal by
	// a limit reads no Book. A Hold of another company never changes the answer,
	// but for the gateway's total. Hold panics for the zero Scope, for more
	// budgets than there may be and for one that By has not.
	//
	// It does no I/O where all is counted in process, and one round trip where a
	// server counts; the first Hold of a period reads the Book as well.
	Hold(ctx context.Context, s tenant.Scope, a *Ask) (Hold, State, error)

	// Standing returns where any number of budgets stand, in order. It reads the
	// Book for those that nobody has counted yet. The error is a fault of kind
	// Unavailable.
	Standing(ctx context.Context, s tenant.Scope, budgets []*tenant.Budget) ([]Standing, error)

	// Shipped says that the entries of these attempts are in the store for good.
	// It may come before Settle. Ids that are not known are left alone; where many
	// gateways count they are of a process before, and what was spent is read
	// again. It does no I/O and does not wait.
	Shipped(s tenant.Scope, ids []string)
}

// HoldID names a hold within its Limiter, whose meaning of it is its own.
type HoldID [2]uint64

// Ender is the part of a Limiter that ends its holds. Both methods do nothing
// for a hold that has ended, from whatever goroutine; they do no I/O and do not
// wait.
type Ender interface {
	// Settle books what was used in place of what was held, once, into the
	// periods of the hold's moment. The attempt's entry, with the same figures,
	// must have been recorded in the ledger before, or it is remembered until the
	// process ends: every attempt that is held gets an entry and is Shipped.
	Settle(id HoldID, used Used)
	// Release ends the open call, once.
	Release(id HoldID)
}

// Hold is what one attempt has taken. The zero Hold took nothing and may be
// ended. It may be copied: whatever copy is ended, it is ended once.
type Hold struct {
	by   Ender
	id   HoldID
	nano int64
	at   time.Time
}

// NewHold is for implementations of Limiter. at is the moment that decided
// about the periods; nano what was held of money.
func NewHold(by Ender, id HoldID, nano int64, at time.Time) Hold { return Hold{by, id, nano, at} }

// Nano returns what is held of money: Ask.Nano, or less down to Ask.LeastNano.
// It is 0 where no budget of money applies.
func (h Hold) Nano() int64 { return h.nano }

// At returns the moment of the hold by the clock that decides about periods, to
// the microsecond, which the store keeps. It is the StartedAt of the attempt's
// entry, or the entry would be counted in another period than the hold. Zero for
// the zero Hold.
func (h Hold) At() time.Time { return h.at }

// Settle books what was used in place of what was held; the zero Used gives all
// back. Only the first Settle of a hold counts.
func (h Hold) Settle(used Used) {
	if h.by != nil {
		h.by.Settle(h.id, used)
	}
}

// Release says that the call is no longer open. Only the first counts. Tokens
// and money stay held until Settle.
func (h Hold) Release() {
	if h.by != nil {
		h.by.Release(h.id)
	}
}

// End settles and releases. What was settled or released before stays so.
func (h Hold) End(used Used) {
	h.Settle(used)
	h.Release()
}
