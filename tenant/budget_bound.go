package tenant

import "bulkhead/fault"

// MaxBudgets is how many budgets a company may have, of whatever owner: all are
// part of its policy in memory.
const MaxBudgets = 1000

// CheckBudgets refuses more budgets of a company than there may be, with a fault
// of kind Invalid: MaxBudgets in all, and for one user, with those of each user,
// MaxBudgetsPerOwner.
func CheckBudgets(all []*Budget) error {
	if len(all) > MaxBudgets {
		return fault.Field("scope", "The company has %d budgets, which is as many as there may be.", MaxBudgets)
	}
	type window struct {
		unit   Unit
		period Period
	}
	users := map[string]map[window]bool{EachUser: {}}
	for _, b := range all {
		if b.Kind != OfUser {
			continue
		}
		if users[b.Of] == nil {
			users[b.Of] = map[window]bool{}
		}
		users[b.Of][window{b.Unit, b.Period}] = true
	}
	for _, own := range users {
		n := len(own)
		for w := range users[EachUser] {
			if !own[w] {
				n++
			}
		}
		if n > MaxBudgetsPerOwner {
			return fault.Field("scope", "A user would have %d budgets, with those of each user; there may be %d.", n, MaxBudgetsPerOwner)
		}
	}
	return nil
}
