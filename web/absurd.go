package web

import (
	"sync"
	"time"

	"bulkhead/provider"
)

// absurd remembers the models whose providers said that they used more than a
// call could. Strict budgets do not call them for a while: what such a model
// uses cannot be bounded. It is by company, so that no company's endpoint closes
// a model to another.
type absurd struct {
	mu   sync.Mutex
	last map[absurdModel]time.Time
}

type absurdModel struct{ company, provider, model string }

const (
	absurdFor  = time.Hour
	maxAbsurds = 4096
)

func (m *absurd) add(company string, t provider.Target) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.last) >= maxAbsurds {
		clear(m.last)
	}
	if m.last == nil {
		m.last = map[absurdModel]time.Time{}
	}
	m.last[absurdModel{company, t.Provider, t.Model}] = time.Now()
}

func (m *absurd) has(company string, t provider.Target) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	at, ok := m.last[absurdModel{company, t.Provider, t.Model}]
	return ok && time.Since(at) < absurdFor
}
