package web

import (
	"context"
	"sync"

	"bulkhead/provider"
	"bulkhead/tenant"
)

// When the client leaves, the provider's call is cancelled, or it is drained: read
// to its end as if the client were there, so that the bill is the provider's own
// figure. Which of the two is said by the target and else by the configuration.

// Bounds of the calls that are drained at one time, each of which the provider's
// total timeout bounds too. What comes on top is cancelled.
const (
	maxDrains        = 1000
	maxCompanyDrains = 100
)

// drains counts them.
type drains struct {
	mu        sync.Mutex
	all       int
	companies map[string]int
}

func (d *drains) begin(company string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.all >= maxDrains || d.companies[company] >= maxCompanyDrains {
		return false
	}
	if d.companies == nil {
		d.companies = map[string]int{}
	}
	d.all++
	d.companies[company]++
	return true
}

func (d *drains) end(company string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.all--
	if d.companies[company]--; d.companies[company] == 0 {
		delete(d.companies, company)
	}
}

// leaving is whether the client has left, and what follows from it. The client is
// watched by another goroutine than the call's.
type leaving struct {
	mu      sync.Mutex
	may     bool // the target under way is to be drained
	left    bool
	drained bool
}

// mayDrain says that t is being asked. It fails if the client has left by now.
func (c *call) mayDrain(t provider.Target) error {
	may := c.settings.Drain
	if t.OnDisconnect != "" {
		may = t.OnDisconnect == tenant.Drain
	}
	l := &c.leaving
	l.mu.Lock()
	defer l.mu.Unlock()
	l.may = may
	if l.left {
		return context.Cause(c.ctx)
	}
	return nil
}

// clientLeft drains the call or cancels it. It may be called more than once, from
// any goroutine.
func (c *call) clientLeft() {
	l := &c.leaving
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.left {
		return
	}
	l.left = true
	if l.drained = l.may && c.g.drains.begin(c.company()); !l.drained {
		c.cancel(errClientLeft)
	}
}

// drained reports whether the client has left and the call goes on without it.
func (c *call) drained() bool {
	l := &c.leaving
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.drained
}

func (c *call) endDrain() {
	if c.drained() {
		c.g.drains.end(c.company())
	}
}
