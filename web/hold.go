package web

import (
	"slices"
	"sync"

	"bulkhead/fault"
	"bulkhead/ledger"
	"bulkhead/limiter"
	"bulkhead/openai"
	"bulkhead/provider"
	"bulkhead/tenant"
)

// take holds what the attempt may use, of all limits and budgets or of none.
// Where budgets have room for less than the worst case but for a useful answer,
// the bound of the output is lowered.
func (c *call) take(a *attempt) (err error) {
	ask := limiter.Ask{
		ID: a.entry.ID, Limits: c.shared(a), Model: c.modelLimits(), Tokens: c.tokenBound(),
		By:    limiter.By{Project: a.entry.ProjectID, Key: a.entry.KeyID, Agent: a.entry.AgentID, User: a.entry.UserID, Lent: a.entry.Lent},
		Again: !a.entry.First, Claim: c.claim(), Lost: c.cancel,
	}
	ask.Budgets = c.budgets(&ask.By)
	if err = c.bind(a, &ask); err != nil {
		return err
	}
	begun := c.g.now()
	a.hold, c.limits, err = c.g.Limiter.Hold(c.ctx, c.scope, &ask)
	c.g.metrics.hold.Observe(c.g.now().Sub(begun).Seconds())
	if err != nil {
		return err
	}
	if at := a.hold.At(); !at.IsZero() {
		a.entry.StartedAt = at
	}
	if got := a.hold.Nano(); a.money && got < ask.Nano {
		output, ok := a.price.Clamp(&a.bound, got)
		if !ok {
			panic("BUG: less is held than the least that was asked for")
		}
		a.bound.Output = output
		a.entry.Marks |= ledger.Clamped
		a.entry.HighNano = got
	}
	return nil
}

// bind finds out the most that the attempt may use and cost: what it is held at,
// and what is booked if nobody ever hears how it ended. Budgets that are strict
// refuse what has no bound; without any, what has none is estimated.
func (c *call) bind(a *attempt, ask *limiter.Ask) error {
	strict := false
	for _, b := range ask.Budgets {
		a.money = a.money || b.Unit == tenant.USD
		strict = strict || b.Unit == tenant.USD && !b.Soft
	}
	t := a.target
	a.price, _ = c.g.pricesFor(c.scope, a.entry.Lent).Find(t.Provider, t.Vendor.Catalogue, t.Model)
	if c.scope.Test() { // no provider is reached, so no money is spent
		a.price = a.price.Free()
	}
	rules := provider.BoundRules{Strict: strict && !free(a.price) || !a.money, Model: t.Model, DefaultOutput: c.settings.DefaultMaxOutput, Injected: c.told.most}
	if a.price != nil {
		rules.MaxInput, rules.MaxOutput = a.price.MaxInput, a.price.MaxOutput
	}
	var err error
	if a.bound, err = t.Vendor.Bound(c.request, rules); err != nil && !a.money { // nobody asked for a bound that holds
		rules.Strict = false
		a.bound, err = t.Vendor.Bound(c.request, rules)
	}
	if err != nil {
		return err
	}
	if a.money {
		if err := a.price.Check(&a.bound); err != nil {
			return err
		}
		if strict && c.g.absurd.has(c.company(), t, c.g.now()) {
			return fault.Field("model", "This model's provider has lately said that it used more than a call could, and a strict budget applies.").WithCode(ledger.CodeNotPriced)
		}
		ask.Nano, ask.LeastNano = a.price.Dearest(&a.bound), a.price.Least(&a.bound)
		a.entry.HighNano = ask.Nano
	} else {
		a.entry.HighNano = min(a.price.Dearest(&a.bound), ledger.MaxCost)
	}
	if slices.ContainsFunc(ask.Budgets, func(b *tenant.Budget) bool { return b.Unit == tenant.Tokens }) {
		ask.Tokens = max(ask.Tokens, a.bound.Input+a.bound.Output*max(a.bound.Answers, 1))
	}
	return nil
}

// free reports whether a model certainly costs nothing.
func free(p *ledger.Price) bool {
	return p.Priced() && p.Dearest(&openai.Bound{Images: 1, Seconds: 1, Characters: 1, Input: 1, AudioInput: 1, ImageInput: 1, Output: 1, Answers: 1, AudioOutput: true, CacheWrite: true, CacheWrite1h: true, Searches: 1}) == 0
}

// maxCounted is how much of a stream's text is kept for the tokenizer, in bytes.
// What comes after is counted in proportion.
const maxCounted = 32 << 10

// book decides what the attempt is booked at.
func (c *call) book(a *attempt) {
	e := &a.entry
	e.Priced = a.price.Priced()
	high := e.HighNano
	e.HighNano = 0
	switch e.Outcome {
	case ledger.Refused, ledger.Failed:
		e.Rank = ledger.Final
		return
	case ledger.Unknown:
		// It may be billed, whole or not at all. What was held of a budget stays
		// spent; without one the input is booked, and that it may be more.
		e.Rank, e.CostNano, e.HighNano = ledger.Estimate, high, high
		e.Usage.Input = c.inputEstimate()
		e.Usage.Total = e.Usage.Input
		if !a.money {
			e.CostNano = min(ledger.Cost(a.price, e.Usage, ""), high)
		}
		return
	}
	s := &a.seen
	s.Usage, s.HasUsage, s.BadUsage, s.Twice = a.usages.Usage, a.usages.Has, a.usages.Bad, a.usages.Twice
	// Some vendors count them in the usage, others only show them in the answer.
	s.Usage.Searches, s.Usage.Tools = max(s.Usage.Searches, a.searches), max(s.Usage.Tools, a.toolRuns)
	if c.endpoint.Media() {
		c.countMedia(a)
	}
	if !s.Whole || !s.HasUsage || s.Usage.Input == 0 || s.Usage.Output == 0 && s.TextBytes > 0 {
		c.count(a)
	}
	st := a.price.Settle(&a.bound, s)
	e.Usage, e.Tier, e.Rank, e.CostNano, e.LowNano, e.HighNano = st.Usage, st.Tier, st.Rank, st.CostNano, st.LowNano, st.HighNano
	e.Marks |= st.Marks
	if st.Absurd() {
		c.g.absurd.add(c.company(), a.target, c.g.now())
	}
}

// counting bounds how much is counted by a tokenizer at one time, which is work
// for a processor: what comes on top is estimated. A company has one at a time,
// so that one that breaks off many streams leaves the others theirs.
type counting struct {
	mu   sync.Mutex
	busy map[string]struct{} // companies
}

const maxCounting = 4

func (n *counting) begin(company string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, is := n.busy[company]; is || len(n.busy) >= maxCounting {
		return false
	}
	if n.busy == nil {
		n.busy = map[string]struct{}{}
	}
	n.busy[company] = struct{}{}
	return true
}

func (n *counting) end(company string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.busy, company)
}

// count finds out what the provider did not say: by the model's own tokenizer
// where it is known, and by estimate else. The client has its last byte, or has
// left.
func (c *call) count(a *attempt) {
	s := &a.seen
	s.Input = c.inputEstimate()
	if len(a.text.Bytes) == 0 || !c.g.counting.begin(c.company()) {
		return
	}
	defer c.g.counting.end(c.company())
	if n, ok := provider.CountTokens(a.target.Model, string(a.text.Bytes)); ok {
		s.Counted, s.Tokens = true, n
		if kept := int64(len(a.text.Bytes)); s.TextBytes > kept {
			s.Tokens = n * s.TextBytes / kept
		}
	}
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
	if p == nil {
		return nil // work of the company's own
	}
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

// inputEstimate is what the input is likely to have, in tokens.
func (c *call) inputEstimate() int64 {
	r := c.request
	return (r.TextBytes+int64(len(c.told.system)+len(c.told.passages)))/bytesPerToken + int64(r.Messages)*messageTokens + r.InputTokens
}

// tokenBound estimates what the call will use, for the limits per minute.
func (c *call) tokenBound() int64 {
	r := c.request
	n := c.inputEstimate() + (c.told.most-int64(len(c.told.system)+len(c.told.passages)))/bytesPerToken
	if c.endpoint == openai.Chat || c.endpoint == openai.Completions || c.endpoint == openai.Responses {
		out := r.MaxOutput
		if out == 0 {
			out = assumedOutput
		}
		n += min(out, 1<<31) * r.N
	}
	return max(n, minimumPerCall)
}
