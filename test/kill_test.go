package test

import (
	"slices"
	"testing"
	"time"

	"bulkhead/test/scale"
)

// killed is a gateway that was killed while calls ran.
type killed struct {
	gateway      int
	began, ended time.Time // of the kill itself
}

// unshipped is how long before a kill a call may have ended whose row was not in
// the database yet: much more than entries wait (50 ms) plus a slow machine.
const unshipped = 3 * time.Second

// cut reports whether the kill took c with it, if that had not ended so long
// before. A kept connection may be used once more before its client sees its end.
func (k killed) cut(c *sent, before time.Duration) bool {
	return c.gateway == k.gateway && c.ended.After(k.began.Add(-before)) && c.began.Before(k.ended.Add(time.Second))
}

// TestKillOneOfThree kills gateways with traffic running, one at a time: the
// others serve everybody and obey changes of policy, the killed one comes back
// as if nothing had been, and the ledger has each answer once. (DESIGN section 10,
// row 1.)
func TestKillOneOfThree(t *testing.T) {
	s := scale.Of(t)
	f := newFleet(t, s, fleetOptions{})
	random := s.Rand()
	tr := f.traffic(t, s, f.members...)
	tr.flows(t, 100)
	var kills []killed
	for range scale.Pick(s, 3, 60) {
		tr.flows(t, 1+random.Int64N(60)) // not always at the same point
		victim := random.IntN(len(f.all))
		k := killed{gateway: victim, began: time.Now()}
		f.runs[victim].kill(t)
		k.ended = time.Now()
		kills = append(kills, k)
		tr.flows(t, 50)
		f.obey(t, f.members[random.IntN(len(f.members))], f.others(victim)...)
		f.start(t, victim)
		f.balancer.waitUp(t, victim, true)
		given := f.balancer.all[victim].given.Load()
		eventually(t, 10*time.Second, "the one that was killed has calls again", func() bool { return f.balancer.all[victim].given.Load() > given+5 })
	}
	f.obey(t, f.members[0], 0, 1, 2)
	calls := tr.stop()
	by := func(before time.Duration) func(*sent) bool {
		return func(c *sent) bool {
			return slices.ContainsFunc(kills, func(k killed) bool { return k.cut(c, before) })
		}
	}
	s.Figure("kills", len(kills))
	s.Figure("calls_cut", none(t, calls, by(0)))
	f.account(t, s, calls, by(unshipped))
}
