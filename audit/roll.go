package audit

import (
	"fmt"
	"maps"
	"slices"
)

// EraseAct is the act with which an operator erases a company.
const EraseAct = "company.erase"

// Roll is what the operators' acts say of companies, to be held against the
// companies that there are: a chain that is taken away whole leaves nothing that
// its own rows could tell.
type Roll struct {
	begun  map[string]int
	erased map[string]bool
	seen   map[string]bool
}

// NewRoll returns an empty Roll.
func NewRoll() *Roll {
	return &Roll{map[string]int{}, map[string]bool{}, map[string]bool{}}
}

// Act notes an act of the operators' chain.
func (r *Roll) Act(e *Event) {
	switch e.Type {
	case ChainBegun:
		r.begun[e.Object]++
	case EraseAct:
		r.erased[e.Object] = true
	}
}

// Company holds one company against the acts, which were all noted before, and
// adds to its report what is wrong. erased says what the company's row says.
func (r *Roll) Company(report *Report, erased bool) {
	id := report.Chain
	r.seen[id] = true
	switch n := r.begun[id]; {
	case n > 1:
		report.Add(Finding{Kind: Restarted, Text: fmt.Sprintf("The chain was begun %d times: it was taken away in between.", n)})
	case n == 0 && !erased: // an erased one may be from before there were chains
		report.Add(Finding{Kind: Unbegun, Text: "No act says that the company's chain began."})
	}
	if erased && !r.erased[id] {
		report.Add(Finding{Kind: Unerased, Text: "The company is marked as erased, and no operator has erased it."})
	}
}

// Gone returns the companies that the acts speak of and that Company was not
// called for, sorted.
func (r *Roll) Gone() []string {
	gone := maps.Clone(r.begun)
	for id := range r.seen {
		delete(gone, id)
	}
	return slices.Sorted(maps.Keys(gone))
}
