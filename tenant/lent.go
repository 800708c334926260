package tenant

import (
	"slices"
	"strings"
)

// Lent is a credential of the operator's that a company may use, without what is
// secret of it.
type Lent struct {
	Provider string
	ID       string
	Version  int64 // counts the changes: what was read of an earlier one is not used

	// Limits are the company's share of what the provider allows the credential
	// per minute.
	Limits Limits
}

// LentKind is the kind of Limited that is a company's share of a lent credential.
const LentKind = "lent credential of provider"

// Lends returns the credential that the operator lends the company for the
// provider, nil if none. It does not matter where the company has its own.
func (c *Company) Lends(provider string) *Lent {
	i, found := slices.BinarySearchFunc(c.Lent, provider, func(l Lent, name string) int { return strings.Compare(l.Provider, name) })
	if !found {
		return nil
	}
	return &c.Lent[i]
}

// HasCeiling reports whether the operator has set what the company may spend of
// lent credentials. Without it, none is used.
func (c *Company) HasCeiling() bool { return c.HasBudgetsOf(OfCeiling) }

// Everybody stands in the feed of changes for all companies at once.
const Everybody = "*"
