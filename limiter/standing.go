package limiter

import (
	"context"
	"time"

	"bulkhead/tenant"
)

// standAtOnce is how many budgets are looked at under one lock.
const standAtOnce = 64

// Standing implements Limiter.
func (l *Local) Standing(ctx context.Context, s tenant.Scope, budgets []*tenant.Budget) ([]Standing, error) {
	sh := &l.shards[l.shard(s.ID())]
	all := make([]Standing, len(budgets))
	var ends time.Time
	for i := 0; i < len(budgets); {
		n, err := l.stand(ctx, s, sh, budgets[i:min(i+standAtOnce, len(budgets))], all[i:], &ends)
		if err != nil {
			return nil, l.uncounted(err)
		}
		i += n
	}
	return all, nil
}

// stand says where some budgets stand, and returns how many.
func (l *Local) stand(ctx context.Context, s tenant.Scope, sh *shard, budgets []*tenant.Budget, all []Standing, ends *time.Time) (int, error) {
	for range maxTries {
		wait, err := l.standNow(s, sh, budgets, all)
		switch {
		case err == errFull && l.sweepAll():
		case err != nil:
			return 0, err
		case wait == nil:
			return len(budgets), nil
		default:
			if err := l.await(ctx, wait, ends); err != nil {
				return 0, err
			}
		}
	}
	return 0, errBusy
}

// standNow says where the budgets stand, or what to wait for first.
func (l *Local) standNow(s tenant.Scope, sh *shard, budgets []*tenant.Budget, all []Standing) (wait *load, err error) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	c, now, at := l.enter(sh, s.ID())
	defer func() { l.startReading(s, sh, c) }()
	var missing *count
	for i, b := range budgets {
		n, err := l.count(c, b, now, at)
		if err != nil {
			return nil, err
		}
		if n.load != nil {
			missing = n
			continue
		}
		all[i] = n.standing(b.Unit)
	}
	if missing == nil {
		return nil, nil
	}
	return missing.wait()
}

// Known returns where a budget stands, if that is counted already: it does no
// I/O and does not wait. It is for gauges, and keeps nothing from being dropped.
func (l *Local) Known(s tenant.Scope, b *tenant.Budget) (st Standing, ok bool) {
	id := s.ID()
	k, owner := ownerOf(b)
	sh := &l.shards[l.shard(id)]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	c := sh.companies[id]
	if c == nil {
		return Standing{}, false
	}
	from, to := c.periods.of(b, l.o.Now().UnixMicro())
	n := c.counts.find(k, owner, from, to)
	if n == nil || n.load != nil {
		return Standing{}, false
	}
	return n.standing(b.Unit), true
}

// Shipped implements Limiter.
func (l *Local) Shipped(s tenant.Scope, ids []string) {
	id := s.ID()
	sh := &l.shards[l.shard(id)]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	c := sh.companies[id]
	if c == nil {
		return
	}
	for _, id := range ids {
		if place, ok := c.attempts[id]; ok {
			h := &sh.holds[place]
			h.attempt.shipped = true
			l.forget(sh, h, place)
		}
	}
}
