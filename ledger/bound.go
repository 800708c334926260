package ledger

import (
	"math"
	"sort"

	"bulkhead/fault"
	"bulkhead/openai"
)

// Bound is the most an attempt may use. Package provider makes it of a request and
// a target.
type Bound = openai.Bound

// UsefulOutput is how many tokens an answer should be allowed to have, so that
// it is worth its call, where the client did not want fewer.
const UsefulOutput = 16

// The codes of what cannot be bounded in money.
const (
	CodePriceUnknown = "model_price_unknown"
	CodeNotPriced    = "field_not_priced"
)

// Check reports why no bound in money can be given for a call: a *fault.Error
// of kind Invalid. A model without a price has the code model_price_unknown. A
// strict bound also refuses a model that searches as often as it likes, and
// searches and tiers without a price, with field_not_priced.
func (p *Price) Check(b *Bound) error {
	switch {
	case !p.Priced(), p.byUnit() && b.Images+b.Seconds+b.Characters == 0:
		return fault.Field("model", "The price of this model is not known, so no budget can be held to. The operator can set one.").WithCode(CodePriceUnknown)
	case !b.Strict:
		return nil
	case p.LeastSearches > 0:
		return fault.Field("model", "This model searches the web as often as it likes, each search has a price, and a strict budget applies.").WithCode(CodeNotPriced)
	case !p.knows(b.Tier):
		return fault.Field("service_tier", "The price of this service tier is not known for the model, and a strict budget applies.").WithCode(CodeNotPriced)
	case b.Searches > 0 && p.Fees.Search == Absent:
		return fault.Field("web_search_options", "The price of a search is not known, and a strict budget applies.").WithCode(CodeNotPriced)
	}
	return nil
}

// knows reports whether it is known what a tier costs at most.
func (p *Price) knows(tier string) bool {
	tier = p.known(tier)
	_, ok := p.Tiers[tier]
	return ok || tier == "" || cheapTier(tier)
}

// Dearest returns the most in nano-USD (1e-9 USD) that a call within b may be
// billed, rounded up once: every token at the dearest rate it may have, of all
// tiers and thresholds that are possible. It is math.MaxInt64 where the sum is
// larger, and 0 for a model that costs nothing, or whose price is not known: see
// Check.
//
// No usage within b costs more, whatever tier of b it is billed at; a usage
// beyond it may.
func (p *Price) Dearest(b *Bound) (nano int64) {
	if !p.Priced() {
		return 0
	}
	nano = p.dearestAt("", b)
	asked := p.known(b.Tier)
	for tier := range p.Tiers {
		if tier == asked || b.AnyTier && tier != "batch" { // a batch is another call
			nano = max(nano, p.dearestAt(tier, b))
		}
	}
	return nano
}

// dearestAt returns the most at one tier, below and above all thresholds that
// the input may pass.
func (p *Price) dearestAt(tier string, b *Bound) (nano int64) {
	for i := -1; i < len(p.Above); i++ {
		if i < 0 || b.Input > p.Above[i].Tokens {
			r := p.ratesAt(tier, i)
			nano = max(nano, p.dearest(&r, b))
		}
	}
	return nano
}

// dearest returns the most at one set of rates.
func (p *Price) dearest(r *Rates, b *Bound) int64 {
	text := max(r.Input, r.CachedInput)
	if b.CacheWrite || b.CacheWrite1h {
		text = max(text, r.CacheWrite)
	}
	if b.CacheWrite1h {
		text = max(text, r.CacheWrite1h)
	}
	out := max(r.Output, r.Reasoning, r.ImageOutput)
	if b.AudioOutput {
		out = max(out, r.AudioOutput)
	}
	var sum pico
	input, output := max(b.Input, 0), mul(max(b.Output, 0), max(b.Answers, 0))
	if max(r.AudioInput, text) > max(r.ImageInput, text) { // the dearer first, where there are more than Input
		sum.take(&input, b.AudioInput, max(r.AudioInput, text))
		sum.take(&input, b.ImageInput, max(r.ImageInput, text))
	} else {
		sum.take(&input, b.ImageInput, max(r.ImageInput, text))
		sum.take(&input, b.AudioInput, max(r.AudioInput, text))
	}
	sum.take(&input, input, text)
	sum.add(output, out)
	p.addFees(&sum, &openai.Usage{
		Searches: b.Searches, SearchContext: b.SearchContext, Images: max(b.Images, mul(p.LeastImages, max(b.Answers, 0))),
		Seconds: b.Seconds, Characters: b.Characters,
	})
	return sum.nano()
}

// mul returns a*b, at most math.MaxInt64. Neither is below 0.
func mul(a, b int64) int64 {
	if a != 0 && b > math.MaxInt64/a {
		return math.MaxInt64
	}
	return a * b
}

// Clamp returns the largest output of one answer, at most b.Output, with which
// the call costs no more than nano at its dearest: the exact inverse of Dearest.
// ok is false where that is too little for a useful answer (Least); then nothing
// is worth being sent.
func (p *Price) Clamp(b *Bound, nano int64) (output int64, ok bool) {
	if p.Dearest(b) <= nano {
		return b.Output, true
	}
	useful := min(b.Output, UsefulOutput)
	if b.Fixed || b.Output <= 0 || p.with(b, useful) > nano {
		return 0, false
	}
	// The cost never falls with the output, so the first that is too dear is found
	// by halving: some 14 steps for 16,384 tokens.
	n := sort.Search(int(b.Output-useful), func(i int) bool { return p.with(b, useful+1+int64(i)) > nano })
	return useful + int64(n), true
}

// with is Dearest for another bound of the output.
func (p *Price) with(b *Bound, output int64) int64 {
	c := *b
	c.Output = output
	return p.Dearest(&c)
}

// Least returns what a call within b costs at its dearest if its output is
// lowered as far as is useful: to UsefulOutput, or the client's own limit where
// that is lower.
func (p *Price) Least(b *Bound) (nano int64) {
	if b.Fixed {
		return p.Dearest(b)
	}
	return p.with(b, min(b.Output, UsefulOutput))
}
