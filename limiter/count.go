package limiter

import (
	"bulkhead/tenant"
)

// count is what was used and is held of one period of one owner. All budgets of
// that owner and period stand there, of whatever unit.
type count struct {
	from, to int64 // microseconds; to is not in it
	used     Used
	held     Used  // of attempts that run; no requests, which are used at once
	load     *load // that reads what the store has; nil when it is all there
	touched  int64 // ns
}

// attempt is what a hold says about budgets. It outlives the hold until its
// entry is in the store: until then only it knows what was used.
type attempt struct {
	id      string // "" counts for no budget: see Local.counts
	by      By
	at      int64 // microseconds
	need    need  // nano is what was granted
	used    Used
	shipped bool
}

// has reports whether the attempt's moment is in the period.
func (n *count) has(at int64) bool { return n.from <= at && at < n.to }

// hold counts what an attempt takes.
func (n *count) hold(d *need) {
	n.held.Nano += d.nano
	n.held.Tokens += d.tokens
	n.used.add(Used{Requests: d.requests})
}

// settle counts what an attempt used in place of what it held.
func (n *count) settle(d *need, used Used) {
	n.held.Nano -= d.nano
	n.held.Tokens -= d.tokens
	n.used.add(Used{Nano: used.Nano, Tokens: used.Tokens})
}

// owned are the counts of a company, by owner. Few are of one owner: a day, a
// week, a month and the whole time, and those that have passed until they are
// swept.
type owned [kinds]map[string][]*count

// each calls f for every count an attempt counts for. The budgets it knew do not
// matter: one may have been deleted and be made again.
func (o *owned) each(a *attempt, f func(*count)) {
	for k, owners := range o {
		if len(owners) == 0 {
			continue
		}
		if id, ok := a.by.of(ownerKind(k)); ok {
			for _, n := range owners[id] {
				if n.has(a.at) {
					f(n)
				}
			}
		}
	}
}

// find returns the count of a period, nil if there is none.
func (o *owned) find(k ownerKind, id string, from, to int64) *count {
	for _, n := range o[k][id] {
		if n.from == from && n.to == to {
			return n
		}
	}
	return nil
}

func (o *owned) add(k ownerKind, id string, n *count) {
	if o[k] == nil {
		o[k] = map[string][]*count{}
	}
	o[k][id] = append(o[k][id], n)
}

// drop drops the counts for which gone holds, and returns how many.
func (o *owned) drop(gone func(*count) bool) (dropped int) {
	for k, owners := range o {
		for id, counts := range owners {
			kept := counts[:0]
			for _, n := range counts {
				if !gone(n) {
					kept = append(kept, n)
				}
			}
			clear(counts[len(kept):])
			dropped += len(counts) - len(kept)
			if len(kept) == 0 {
				delete(owners, id)
			} else {
				owners[id] = kept
			}
		}
		if len(owners) == 0 {
			o[k] = nil
		}
	}
	return dropped
}

// periods remembers where periods begin and end: the calendar says so with much
// more work than all the rest of a decision.
type periods struct {
	known []known
	turn  int // the one that is replaced next
}

type known struct {
	calendar *tenant.Calendar
	period   tenant.Period
	since    int64 // when the calendar was asked; it holds from then to its end
	from, to int64
}

const maxPeriods = 16

func (p *periods) of(b *tenant.Budget, at int64) (from, to int64) {
	if b.Period == tenant.Total {
		return ever, forever
	}
	i := 0
	for ; i < len(p.known); i++ {
		k := &p.known[i]
		if k.calendar != b.Calendar || k.period != b.Period {
			continue
		}
		// Before since the same period may have had another end: see
		// tenant.Calendar about a zone that is changed.
		if k.since <= at && at < k.to {
			return k.from, k.to
		}
		break
	}
	if i == len(p.known) {
		if i == maxPeriods {
			i, p.turn = p.turn, (p.turn+1)%maxPeriods
		} else {
			p.known = append(p.known, known{})
		}
	}
	from, to = spanOf(b, at)
	p.known[i] = known{b.Calendar, b.Period, at, from, to}
	return from, to
}
