package web

import (
	"bulkhead/limiter"
	"bulkhead/openai"
	"bulkhead/tenant"
)

// take holds what the attempt may use, of all limits and budgets or of none.
func (c *call) take(a *attempt) (err error) {
	ask := limiter.Ask{
		ID: a.entry.ID, Limits: c.scope.Limits(), Model: c.modelLimits(), Tokens: c.tokenBound(),
		By:    limiter.By{Project: a.entry.ProjectID, Key: a.entry.KeyID, Agent: a.entry.AgentID, User: a.entry.UserID, Lent: a.entry.Lent},
		Again: !a.entry.First, Lost: c.cancel,
	}
	ask.Budgets = c.budgets(&ask.By)
	if a.hold, c.limits, err = c.g.Limiter.Hold(c.ctx, c.scope, &ask); err != nil {
		return err
	}
	if at := a.hold.At(); !at.IsZero() {
		a.entry.StartedAt = at
	}
	return nil
}

// budgets returns those that count what by does.
func (c *call) budgets(by *limiter.By) []*tenant.Budget {
	all := c.budgetRoom[:0]
	for _, b := range c.scope.Budgets() {
		if by.Has(b) {
			all = append(all, b)
		}
	}
	company := c.scope.Company()
	all = company.AppendBudgetsOf(all, tenant.OfAgent, by.Agent)
	return company.AppendBudgetsOf(all, tenant.OfUser, by.User)
}

// modelLimits returns the project's limits for the model that was asked for.
func (c *call) modelLimits() *tenant.Limited {
	p := c.scope.Project()
	l, ok := p.ModelLimits(c.model)
	if !ok {
		return nil
	}
	c.modelLimit = tenant.Limited{Kind: "model", ID: p.ID + "/" + c.model, Limits: l}
	return &c.modelLimit
}

// Tokens assumed where nothing better is known, for limits per minute only: the
// true number is booked at the end.
const (
	bytesPerToken  = 3   // of English text it is about 4, of code and other languages less
	messageTokens  = 4   // what a chat format adds to each message
	assumedOutput  = 512 // of an answer whose length the client did not limit
	minimumPerCall = 1
)

// tokenBound estimates what the call will use, for the limits per minute.
func (c *call) tokenBound() int64 {
	r := c.request
	n := r.TextBytes/bytesPerToken + int64(r.Messages)*messageTokens + r.InputTokens
	if c.endpoint == openai.Chat || c.endpoint == openai.Completions {
		out := r.MaxOutput
		if out == 0 {
			out = assumedOutput
		}
		n += min(out, 1<<31) * r.N
	}
	return max(n, minimumPerCall)
}
