package limiter

import (
	"math"
	"time"

	"bulkhead/tenant"
)

// The arithmetic of budgets. Like that of the buckets it touches nothing.

const (
	// maxNano is the most one attempt may hold of money: some 35,184 USD in
	// nano-USD. No attempt costs that much, and what all attempts hold can be
	// added up in an int64.
	maxNano = 1 << 45

	// maxSpent is where what is spent stands still, so that no report of a
	// provider can wrap it.
	maxSpent = 1 << 61

	// forever is the end of a period that has none, and ever its beginning, in
	// microseconds.
	forever = math.MaxInt64
	ever    = math.MinInt64
)

// ownerKind is a tenant.Budget's Kind as a number.
type ownerKind int

const (
	ofCompany ownerKind = iota
	ofProject
	ofKey
	ofAgent
	ofUser
	ofCeiling
	kinds
)

// ownerKinds are the names, by number.
var ownerKinds = [kinds]string{tenant.OfCompany, tenant.OfProject, tenant.OfKey, tenant.OfAgent, tenant.OfUser, tenant.OfCeiling}

// of returns the owner of kind k among those by has; ok is false if it has none.
// It says the same as Has.
func (by *By) of(k ownerKind) (id string, ok bool) {
	switch k {
	case ofCompany:
		return "", true
	case ofProject:
		return by.Project, by.Project != ""
	case ofKey:
		return by.Key, by.Key != ""
	case ofAgent:
		return by.Agent, by.Agent != ""
	case ofUser:
		return by.User, by.User != ""
	}
	return "", by.Lent
}

// ownerOf returns the owner of a budget, as in By.of. The company and the
// ceiling are one each, whatever Of says.
func ownerOf(b *tenant.Budget) (k ownerKind, id string) {
	switch b.Kind {
	case tenant.OfCompany:
		return ofCompany, ""
	case tenant.OfProject:
		return ofProject, b.Of
	case tenant.OfKey:
		return ofKey, b.Of
	case tenant.OfAgent:
		return ofAgent, b.Of
	case tenant.OfUser:
		return ofUser, b.Of
	case tenant.OfCeiling:
		return ofCeiling, ""
	}
	panic("BUG: a budget of an unknown kind: " + b.Kind)
}

// need is what an attempt takes of budgets.
type need struct {
	nano     int64 // at most maxNano
	least    int64 // of money; above any limit if it is more than maxNano
	tokens   int64 // at most maxLimit+1
	requests int64 // 0 or 1
}

func needOf(a *Ask) need {
	n := need{tokens: min(max(a.Tokens, 0), maxLimit+1)}
	least := a.LeastNano
	if least <= 0 || least > a.Nano {
		least = a.Nano
	}
	n.nano, n.least = min(max(a.Nano, 0), maxNano), max(least, 0)
	if n.least > maxNano {
		n.least = tenant.MaxBudget + 1
	}
	if !a.Again {
		n.requests = 1
	}
	return n
}

// of returns the least that is enough, in the unit.
func (n *need) of(unit tenant.Unit) int64 {
	switch unit {
	case tenant.Tokens:
		return n.tokens
	case tenant.Requests:
		return n.requests
	}
	return n.least
}

// lack says what stands in the way in a budget.
type lack uint8

const (
	lackNothing lack = iota
	lackSpent        // what is spent leaves no room, or the budget as a whole does not
	lackHeld         // only attempts that run do not
)

// lackOf returns what stands in the way of n more units.
func lackOf(limit, used, held, n int64) lack {
	limit = min(max(limit, 0), tenant.MaxBudget)
	switch {
	case n <= 0 || n <= limit-used-held:
		return lackNothing
	case n > limit-used:
		return lackSpent
	}
	return lackHeld
}

// left returns what is left of a budget, at least 0.
func left(limit, used, held int64) int64 {
	return max(min(max(limit, 0), tenant.MaxBudget)-used-held, 0)
}

// add adds what was used, up to maxSpent. What is below 0 is not added.
func (u *Used) add(v Used) {
	u.Nano = min(u.Nano+min(max(v.Nano, 0), maxSpent), maxSpent)
	u.Tokens = min(u.Tokens+min(max(v.Tokens, 0), maxSpent), maxSpent)
	u.Requests = min(u.Requests+min(max(v.Requests, 0), maxSpent), maxSpent)
}

// micros returns a moment of a period in microseconds, which the store keeps.
// The zero time is zero.
func micros(t time.Time, zero int64) int64 {
	if t.IsZero() {
		return zero
	}
	return t.UnixMicro()
}

// moment is the other way round: ever and forever are the zero time.
func moment(us int64) time.Time {
	if us == ever || us == forever {
		return time.Time{}
	}
	return time.UnixMicro(us).UTC()
}

// utc is the calendar of a budget that has none.
var utc tenant.Calendar

// spanOf returns the period of b that holds at, in microseconds: from is in it,
// to is not.
func spanOf(b *tenant.Budget, at int64) (from, to int64) {
	c := b.Calendar
	if c == nil {
		c = &utc
	}
	f, t := c.Window(b.Period, time.UnixMicro(at))
	return micros(f, ever), micros(t, forever)
}
