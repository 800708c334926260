package limiter

import (
	"time"

	"bulkhead/fault"
	"bulkhead/tenant"
)

// longWait is from when on a client is told not to wait inside its SDK: the
// official ones honour a retry-after of up to 60 s and try early above it.
const longWait = time.Minute

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

// refuseShare is the error for a company that has its share of the gateway.
func refuseShare(open int64) error {
	e := rateLimited("requests", "Too many calls at the same time for this company: the gateway allows it %d. Try again when one has ended.", open)
	e.RetryAfter = openWait
	return e
}

// refuseKeys is the error for a company with too many limits in use.
func refuseKeys(limit int) error {
	e := rateLimited("requests", "Too many keys, projects and models of this company are in use at the same time: the gateway keeps count of %d. Try again in a few minutes.", limit)
	e.RetryAfter, e.NoRetry = 2*longWait, true
	return e
}

// refuseFull is the error where the gateway as a whole has no room.
func refuseFull() error {
	e := fault.New(fault.Unavailable, "The gateway is at its limit. Try again in a moment.")
	e.RetryAfter = openWait
	return e
}
