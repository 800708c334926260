package router

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"bulkhead/provider"
)

// When a target is taken for broken, and for how long. A company's own failures
// make it broken for that company. What is reached with a lent credential is
// broken for all only where two companies have each seen it fail: one alone could
// else take it from the others with requests that are made to fail.
const (
	failuresOfOne  = 5
	failuresOfEach = 3 // of two companies at least
	failureWindow  = 30 * time.Second
	brokenFor      = 15 * time.Second
	probeFor       = 5 * time.Second // a probe is given so long before there is another
)

// Bounds of what is remembered. Only what fails is.
const (
	maxSick           = 64 // targets of one company
	maxSickOwners     = 4096
	maxSeenFailing    = 16 // companies, of one target
	everybody         = "" // the owner of what is remembered for all
	maxSickOfEveryone = 1024
)

// Health knows which targets fail. A broken one is tried after the others, and
// every now and then in its place to see whether it is well again. No call is
// refused for it. The zero Health is ready for use.
type Health struct {
	sick   atomic.Int64 // how many are remembered
	opened [2]atomic.Int64

	mu     sync.Mutex
	owners map[string]map[place]*sickness
}

// place is a model at a provider, with a lent credential or with the own one.
type place struct {
	provider, model string
	lent            bool
}

func placeOf(t *provider.Target) place { return place{t.Provider, t.Model, t.Lent} }

// sickness is what is remembered of a target that failed.
type sickness struct {
	last   time.Time
	failed map[string]int // times, by company
	until  time.Time      // it is broken until then, or being probed; zero: it is not
	broken bool
}

// Order moves the targets that are broken behind the others.
func (h *Health) Order(targets []provider.Target, now time.Time) {
	if len(targets) < 2 || h.sick.Load() == 0 {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	slices.SortStableFunc(targets, func() func(a, b provider.Target) int {
		broken := map[place]int{}
		for i := range targets {
			p := placeOf(&targets[i])
			if _, asked := broken[p]; asked {
				continue
			}
			broken[p] = 0
			if h.broken(targets[i].Company, p, now) || p.lent && h.broken(everybody, p, now) {
				broken[p] = 1
			}
		}
		return func(a, b provider.Target) int { return broken[placeOf(&a)] - broken[placeOf(&b)] }
	}())
}

// broken reports whether the target is to be tried last. Once in a while it says
// no of one that is: that call is the probe.
func (h *Health) broken(owner string, p place, now time.Time) bool {
	s := h.owners[owner][p]
	switch {
	case s == nil || !s.broken:
		return false
	case now.Before(s.until):
		return true
	}
	s.until = now.Add(probeFor)
	return false
}

// Report says how an attempt at the target ended.
func (h *Health) Report(t *provider.Target, failed bool, now time.Time) {
	if !failed && h.sick.Load() == 0 {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	owners := [2]string{t.Company, everybody}
	for _, owner := range owners[:1+boolInt(t.Lent)] {
		if failed {
			h.fail(owner, t, now)
		} else {
			h.well(owner, placeOf(t))
		}
	}
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (h *Health) well(owner string, p place) {
	if _, there := h.owners[owner][p]; !there {
		return
	}
	h.sick.Add(-1)
	if delete(h.owners[owner], p); len(h.owners[owner]) == 0 {
		delete(h.owners, owner)
	}
}

func (h *Health) fail(owner string, t *provider.Target, now time.Time) {
	p := placeOf(t)
	s := h.owners[owner][p]
	if s == nil {
		s = h.add(owner, p)
	}
	if now.Sub(s.last) > failureWindow && !s.broken {
		clear(s.failed)
	}
	s.last = now
	if _, there := s.failed[t.Company]; there || len(s.failed) < maxSeenFailing {
		s.failed[t.Company]++
	}
	if !s.tooOften(owner) {
		return
	}
	if !s.broken {
		h.opened[boolInt(p.lent)].Add(1)
	}
	s.broken, s.until = true, now.Add(brokenFor)
}

func (s *sickness) tooOften(owner string) bool {
	if owner != everybody {
		return s.failed[owner] >= failuresOfOne
	}
	n := 0
	for times := range maps.Values(s.failed) {
		n += boolInt(times >= failuresOfEach)
	}
	return n >= 2
}

// add begins to remember a target, in the place of another if there are too many.
func (h *Health) add(owner string, p place) *sickness {
	if h.owners == nil {
		h.owners = map[string]map[place]*sickness{}
	}
	most := maxSick
	if owner == everybody {
		most = maxSickOfEveryone
	}
	if len(h.owners[owner]) >= most {
		for old := range h.owners[owner] {
			h.well(owner, old)
			break
		}
	}
	if h.owners[owner] == nil && len(h.owners) >= maxSickOwners {
		for other := range h.owners {
			if other == everybody {
				continue
			}
			for old := range h.owners[other] {
				h.well(other, old)
			}
			break
		}
	}
	if h.owners[owner] == nil {
		h.owners[owner] = map[place]*sickness{}
	}
	s := &sickness{failed: map[string]int{}}
	h.owners[owner][p] = s
	h.sick.Add(1)
	return s
}

// HealthStats are for metrics.
type HealthStats struct {
	Broken int64 // targets that are tried last now, or probed; of a company's own or for all
	Own    int64 // how often one was found to be broken, of a company's own credential
	Lent   int64 // and of a lent one
}

// Stats counts.
func (h *Health) Stats() (s HealthStats) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, places := range h.owners {
		for _, sick := range places {
			s.Broken += int64(boolInt(sick.broken))
		}
	}
	s.Own, s.Lent = h.opened[0].Load(), h.opened[1].Load()
	return s
}
