package limitertest

import (
	"context"
	"sync"

	"bulkhead/limiter"
	"bulkhead/tenant"
)

// Spread returns a Limiter that asks several gateways over one state in turn, so
// that the suite shows that they admit what one does. An attempt ends where it
// was held, and its entry is shipped by that gateway.
func Spread(gateways ...limiter.Limiter) limiter.Limiter {
	return &spread{gateways: gateways, of: map[string]limiter.Limiter{}}
}

type spread struct {
	gateways []limiter.Limiter

	mu   sync.Mutex
	turn int
	of   map[string]limiter.Limiter // by attempt
}

func (p *spread) next() limiter.Limiter {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.turn++
	return p.gateways[p.turn%len(p.gateways)]
}

// Hold implements limiter.Limiter.
func (p *spread) Hold(ctx context.Context, s tenant.Scope, a *limiter.Ask) (limiter.Hold, limiter.State, error) {
	g := p.next()
	h, st, err := g.Hold(ctx, s, a)
	if err == nil && a.ID != "" {
		p.mu.Lock()
		p.of[a.ID] = g
		p.mu.Unlock()
	}
	return h, st, err
}

// Standing implements limiter.Limiter.
func (p *spread) Standing(ctx context.Context, s tenant.Scope, budgets []*tenant.Budget) ([]limiter.Standing, error) {
	return p.next().Standing(ctx, s, budgets)
}

// Shipped implements limiter.Limiter.
func (p *spread) Shipped(s tenant.Scope, ids []string) {
	for _, id := range ids {
		p.mu.Lock()
		g := p.of[id]
		delete(p.of, id)
		p.mu.Unlock()
		if g != nil {
			g.Shipped(s, []string{id})
		}
	}
}
