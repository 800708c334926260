package limiter

import (
	"fmt"
	"strings"
	"time"

	"bulkhead/fault"
	"bulkhead/tenant"
)

// longWait is from when on a client is told not to wait inside its SDK: the
// official ones honour a retry-after of up to 60 s and try early above it.
const longWait = time.Minute

// heldWait is the wait advised where running attempts hold what is left of a
// budget. The official SDKs try twice more; most answers are there by then.
const heldWait = 2 * time.Second

// refusal is the error for a limit of l that has no room for n more tokens.
func refusal(l *tenant.Limited, b block, n int64) error {
	// Rounded up, so that whoever comes back then is not too early.
	wait := (b.wait + time.Millisecond - 1).Truncate(time.Millisecond)
	var e *fault.Error
	switch b.what {
	case openCalls:
		e = rateLimited("requests", "Too many calls at the same time for %s %q: %d allowed, %d running. Try again when one has ended.",
			l.Kind, l.ID, b.limit, b.used)
	case requests:
		e = rateLimited("requests", "Rate limit reached for %s %q: %d requests per minute allowed, %d used. Try again in %s.",
			l.Kind, l.ID, b.limit, b.used, wait)
	case tokens:
		e = rateLimited("tokens", "Rate limit reached for %s %q: %d tokens per minute allowed, %d used, %d held by running calls, %d asked for. Try again in %s.",
			l.Kind, l.ID, b.limit, b.used, b.held, n, wait)
	case tokensEver:
		e = rateLimited("tokens", "This call may use %d tokens, input and output together, but %s %q is allowed %d tokens per minute. Waiting does not help: shorten the input or lower the limit of the output.",
			n, l.Kind, l.ID, b.limit)
		e.NoRetry = true
	default:
		panic("BUG: refusal of a limit that has room")
	}
	e.RetryAfter = wait
	e.NoRetry = e.NoRetry || wait > longWait
	return e
}

func rateLimited(kind, format string, a ...any) *fault.Error {
	e := fault.New(fault.RateLimited, format, a...).WithCode("rate_limit_exceeded")
	e.Type = kind
	return e
}

// refuseClaimed is the error where another attempt has the claim.
func refuseClaimed() error {
	e := fault.New(fault.Conflict, "A call with this Idempotency-Key is running. Try again when it has ended: the answer is then the same.").WithCode(CodeClaimed)
	e.RetryAfter = heldWait
	return e
}

// refuseShare is the error for a company that has its share of the gateway.
func refuseShare(open int64) error {
	e := rateLimited("requests", "Too many calls at the same time for this company: the gateway allows it %d. Try again when one has ended.", open)
	e.RetryAfter = openWait
	return e
}

// refuseKeys is the error for a company with too many limits in use.
func refuseKeys(limit int) error {
	e := rateLimited("requests", "Too many keys, projects, models and users of this company are in use at the same time: the gateway keeps count of %d. Try again in a few minutes.", limit)
	e.RetryAfter, e.NoRetry = 2*longWait, true
	return e
}

// refuseFull is the error where the gateway as a whole has no room.
func refuseFull() error {
	e := fault.New(fault.Unavailable, "The gateway is at its limit. Try again in a moment.")
	e.RetryAfter = openWait
	return e
}

// refuseUncounted is the error where a budget cannot be counted.
func refuseUncounted(cause error) error {
	e := fault.Wrap(fault.Unavailable, cause, "The gateway cannot read what has been spent at the moment. Try again later.")
	e.RetryAfter = openWait
	return e
}

// refuseAttempts is the error for a company of which too many attempts run or
// wait for the store.
func refuseAttempts() error {
	e := fault.New(fault.Unavailable, "The gateway cannot keep count of more calls of this company at the moment. Try again later.")
	e.RetryAfter = openWait
	return e
}

// refuseBudget is the error for a budget with the standing st at the moment now
// that has no room for n more units.
func refuseBudget(b *tenant.Budget, why lack, st Standing, n int64, now time.Time) error {
	amounts := fmt.Sprintf("%s allowed, %s spent, %s held by running calls, %s asked for",
		amount(b.Unit, b.Limit), amount(b.Unit, st.Spent), amount(b.Unit, st.Held), amount(b.Unit, n))
	reset := "It does not begin anew."
	if !st.To.IsZero() {
		to := st.To.UTC()
		if b.Calendar != nil && b.Calendar.Zone != nil {
			to = to.In(b.Calendar.Zone)
		}
		reset = "It begins anew at " + to.Format(time.RFC3339) + "."
	}
	if why == lackHeld {
		e := fault.New(fault.RateLimited, "The %s has room for this call only when running ones have ended: %s. Try again in %s. %s",
			nameOf(b), amounts, heldWait, reset).WithCode("rate_limit_exceeded")
		e.Type, e.RetryAfter = "budget_held", heldWait
		return e
	}
	e := fault.New(fault.RateLimited, "The %s has no room left for this call: %s. %s", nameOf(b), amounts, reset).WithCode("insufficient_quota")
	if n > b.Limit {
		e.Message = fmt.Sprintf("This call may use more than the whole %s: %s. Shorten the input or lower the limit of the output. %s", nameOf(b), amounts, reset)
	} else if !st.To.IsZero() {
		e.RetryAfter = max(st.To.Sub(now), time.Millisecond)
	}
	e.Type, e.NoRetry = "insufficient_quota", true
	return e
}

// nameOf says which budget it is: `monthly budget of project "proj_1"`.
func nameOf(b *tenant.Budget) string {
	name := "budget of "
	switch b.Period {
	case tenant.Day:
		name = "daily " + name
	case tenant.Week:
		name = "weekly " + name
	case tenant.Month:
		name = "monthly " + name
	}
	switch b.Kind {
	case tenant.OfCompany:
		return name + "the company"
	case tenant.OfCeiling:
		return name + "the company for the operator's credentials (its ceiling)"
	case tenant.OfUser: // the id is a hash, which says nothing to anybody
		return name + "the end user"
	}
	return fmt.Sprintf("%s%s %q", name, b.Kind, b.Of)
}

// amount writes n units for a message; money as a decimal number of USD.
func amount(unit tenant.Unit, n int64) string {
	if unit != tenant.USD {
		return fmt.Sprintf("%d %s", n, unit)
	}
	text := fmt.Sprintf("%d.%09d", n/1e9, n%1e9) // never below 0
	return strings.TrimSuffix(strings.TrimRight(text, "0"), ".") + " USD"
}
