package web

import (
	"sync"
	"time"

	"bulkhead/provider"
)

// absurd remembers the models whose providers said that they used more than a
// call could. Strict budgets do not call them for a while: what such a model
// uses cannot be bounded. No company's models take another's place, so that
// nobody has one forgotten that is not theirs.
type absurd struct {
	mu        sync.Mutex
	companies map[string]map[absurdModel]time.Time // until when
	swept     time.Time
}

type absurdModel struct{ provider, model string }

const (
	absurdFor = time.Hour
	// maxAbsurd is how many models of one company are remembered by name. A
	// company that has more has all of its models taken for such.
	maxAbsurd = 64
)

func (m *absurd) add(company string, t provider.Target, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sweep(now)
	models := m.companies[company]
	if models == nil {
		if m.companies == nil {
			m.companies = map[string]map[absurdModel]time.Time{}
		}
		models = map[absurdModel]time.Time{}
		m.companies[company] = models
	}
	model := absurdModel{t.Provider, t.Model}
	if _, known := models[model]; !known && len(models) >= maxAbsurd {
		model = absurdModel{} // all
	}
	models[model] = now.Add(absurdFor)
}

func (m *absurd) has(company string, t provider.Target, now time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	models := m.companies[company]
	return now.Before(models[absurdModel{t.Provider, t.Model}]) || now.Before(models[absurdModel{}])
}

// sweep drops what is over, once in a while.
func (m *absurd) sweep(now time.Time) {
	if now.Sub(m.swept) < absurdFor {
		return
	}
	m.swept = now
	for company, models := range m.companies {
		for model, until := range models {
			if !now.Before(until) {
				delete(models, model)
			}
		}
		if len(models) == 0 {
			delete(m.companies, company)
		}
	}
}
