// Package limiter owns how much a company may use per time: requests and
// tokens per minute, and calls open at the same time. It is the one place where
// a call is admitted, and it decides about every limit of a call in one atomic
// step: all of them have room and all are taken, or none is.
//
// What was taken is a Hold, which is given back once, on every path:
//
//	hold, state, err := l.Hold(ctx, s, &limiter.Ask{Limits: s.Limits(), Tokens: bound})
//	if err != nil {
//		return err // a *fault.Error that names the limit and says when to come back
//	}
//	defer hold.End(tokensUsed)
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
// The package does not know what a call costs (ledger) nor which limits a
// company has (tenant). There is one implementation in process, Local; the
// suite in limitertest says what any other must do.
package limiter

import (
	"context"
	"time"

	"bulkhead/tenant"
)

// Ask is what one call wants. It is only read, and not kept.
type Ask struct {
	// Limits are those that hold for every call of the key, Scope.Limits().
	Limits []tenant.Limited
	// Model is the limit of the model within the project; nil if it has none.
	Model *tenant.Limited
	// Tokens is the most the call may use: the input, counted or estimated, and
	// the bound of the output. Below 0 counts as 0.
	Tokens int64
}

// State is what is left in the tightest windows after the decision, for the
// x-ratelimit-* headers. The tightest is the one with the least left.
type State struct {
	HasRequests, HasTokens           bool // false: no such limit, the rest is 0
	LimitRequests, RemainingRequests int64
	LimitTokens, RemainingTokens     int64         // held tokens count as used
	ResetRequests, ResetTokens       time.Duration // until the window is full again if nothing else comes
}

// Limiter admits calls.
type Limiter interface {
	// Hold takes one request, a.Tokens tokens and one open call from every
	// limit in a, or takes nothing and says why.
	//
	// The refusals are faults:
	//   - RateLimited, code "rate_limit_exceeded", type "tokens" where tokens
	//     were short and else "requests". The first limit without room is named,
	//     in the order of a: Limits, then Model. RetryAfter says when to come
	//     back; NoRetry is set where waiting does not help or takes longer than
	//     a minute.
	//   - Unavailable: the gateway as a whole is full, or the backend is away.
	//
	// The State is that of the windows whether the call is admitted or not. A
	// Hold of another company never changes the answer, but for the gateway's
	// total. Hold panics for the zero Scope.
	Hold(ctx context.Context, s tenant.Scope, a *Ask) (Hold, State, error)
}

// HoldID names a hold within its Limiter, whose meaning of it is its own.
type HoldID [2]uint64

// Ender is the part of a Limiter that ends its holds. Both methods do nothing
// for a hold that has ended, from whatever goroutine.
type Ender interface {
	// Settle books the tokens used in place of those held, once.
	Settle(id HoldID, tokens int64)
	// Release ends the open call, once.
	Release(id HoldID)
}

// Hold is what one call has taken. The zero Hold took nothing and may be ended.
// It may be copied: whatever copy is ended, it is ended once.
type Hold struct {
	by Ender
	id HoldID
}

// NewHold is for implementations of Limiter.
func NewHold(by Ender, id HoldID) Hold { return Hold{by, id} }

// Settle books the tokens that were used in place of those held; 0 gives all
// back. Only the first Settle of a hold counts.
func (h Hold) Settle(tokens int64) {
	if h.by != nil {
		h.by.Settle(h.id, tokens)
	}
}

// Release says that the call is no longer open. Only the first counts. Tokens
// stay held until Settle.
func (h Hold) Release() {
	if h.by != nil {
		h.by.Release(h.id)
	}
}

// End settles and releases. What was settled or released before stays so.
func (h Hold) End(tokens int64) {
	h.Settle(tokens)
	h.Release()
}
