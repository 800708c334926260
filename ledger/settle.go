package ledger

import (
	"math"

	"bulkhead/openai"
)

// Seen is what the gateway saw of one answer, by its end.
type Seen struct {
	// Usage is what the provider said last, set right by Vendor.Usage of package
	// provider. HasUsage is false where it said none; BadUsage says that some
	// count of it was none, Twice that it said another one before.
	Usage    openai.Usage
	HasUsage bool
	BadUsage bool
	Twice    bool

	Tier string // the service tier named in the answer, "" if none is

	// Input is what the input is likely to have been, in tokens, estimated.
	Input int64

	TextBytes  int64 // of the text that was generated
	AudioBytes int64 // of the audio, as base64
	Tokens     int64 // of that text, counted by the model's tokenizer if Counted
	Counted    bool
	Whole      bool // the provider has said all of its answer

	// Units are images, seconds and characters as the gateway knows them, for what
	// is billed by these; SecondsGuessed says that the seconds are only likely.
	Images         int64 // whole ones that came
	Units          openai.Usage
	SecondsGuessed bool

	// Output is what the output is likely to have been, in tokens, where it is
	// neither said nor text that could be counted: sound.
	Output int64
}

// Settled is what is booked for an attempt.
type Settled struct {
	Usage openai.Usage
	Tier  string // the service tier that is billed; "" is the standard one
	Rank  Rank
	Marks Mark

	// What it costs in nano-USD, and between what the bill is: all three are the
	// same where the provider's own usage is booked. 0 where the price is unknown.
	CostNano, LowNano, HighNano int64
}

// Absurd reports whether the provider said more than the call could use. A model
// that does so must not be called within strict budgets: what it is said to use
// cannot be bounded.
func (s *Settled) Absurd() bool { return s.Marks&AbsurdUsage != 0 }

// Settle decides what is booked for an attempt that the provider has worked on,
// or may have, within b. p may be nil, where no price is known. The rules:
//
//  1. What the provider said of a whole answer is booked as said, Final. A count
//     below 0 is none (openai.Said).
//  2. More than b allows is booked too, since it will be billed, and marked
//     AbsurdUsage; the low end is what b allows. A usage with a count that is no
//     count is marked so as well. What was only estimated (Bound.Input in soft
//     mode) is no bound: HardInput is.
//  3. Where it said no usage, or 0 for something there certainly was (input that
//     was sent, text that came), what the gateway has counted is booked, as an
//     Estimate marked NoUsage.
//  4. Where the answer is not whole, a usage said on the way is the least of it:
//     the larger of that and what was counted is booked, as an Estimate.
//  5. The low end of an Estimate is what was certainly used, at the price of
//     cached input; the high end is all of b at its dearest: a provider need not
//     have stopped when the gateway did, and may have reasoned unseen.
//  6. A usage that is said twice counts as last said, and is marked.
//  7. Nothing is booked above MaxCost, which is marked AbsurdUsage.
//
// A zero b bounds nothing, and makes the high end of an Estimate what is booked.
func (p *Price) Settle(b *Bound, s *Seen) (out Settled) {
	tier, marks := p.Tier(s.Tier, b.Tier)
	out = Settled{Tier: tier, Rank: Final, Marks: marks}
	if p != nil && p.byUnit() {
		p.settleUnits(&out, b, s)
		return out
	}
	if s.Twice {
		out.Marks |= TwoUsages
	}
	said := s.Usage
	if !s.HasUsage {
		said = openai.Usage{}
	}
	counted := s.counted(b)
	low := said
	noInput := said.Input == 0 && said.Seconds == 0 && counted.Input > 0
	noOutput := said.Output == 0 && counted.Output > 0
	if noInput || noOutput || !s.HasUsage {
		out.Marks |= NoUsage
	}
	if s.Counted && (noOutput || !s.Whole) {
		out.Marks |= Tokenized
	}
	out.Usage = said
	if noInput || noOutput || !s.HasUsage || !s.Whole {
		out.Rank = Estimate
		out.Usage.Input, out.Usage.Output = max(said.Input, counted.Input), max(said.Output, counted.Output)
		out.Usage.AudioOutput = max(said.AudioOutput, counted.AudioOutput)
		out.Usage.Total = 0
		low.CachedInput, low.CacheWrite, low.CacheWrite1h = low.Input, 0, 0
		low.Output = max(low.Output, min(s.leastOutput(), counted.Output))
	}
	if p.over(b, &said) {
		low = within(b, low)
		out.Marks |= AbsurdUsage
	}
	if s.BadUsage {
		out.Marks |= AbsurdUsage
	}
	if p.Unpriced(out.Usage) {
		out.Marks |= UnpricedFee
	}
	p.cost(&out, b, &low)
	return out
}

// settleUnits is Settle for what is not billed by tokens. What the provider says
// goes before what the gateway knows; an answer that is not whole may be billed
// like one that is, or not at all.
func (p *Price) settleUnits(out *Settled, b *Bound, s *Seen) {
	out.Usage = s.Usage
	guessed := false
	if u := &out.Usage; u.Seconds == 0 {
		u.Seconds, guessed = s.Units.Seconds, s.SecondsGuessed && p.Fees.Second != Absent
	}
	out.Usage.Images = max(out.Usage.Images, s.Units.Images)
	out.Usage.Characters = max(out.Usage.Characters, s.Units.Characters)
	low := out.Usage
	if guessed {
		out.Marks |= NoUsage
	}
	if guessed || !s.Whole {
		out.Rank, low = Estimate, openai.Usage{}
	}
	if u := &out.Usage; u.Images > b.Images || b.Seconds > 0 && u.Seconds > b.Seconds {
		out.Marks |= AbsurdUsage
	}
	p.cost(out, b, &low)
}

// MaxCost is the most that one attempt is booked at, 35,184 USD in nano-USD: far
// above any bill, and so low that a provider that says what it likes cannot make
// a company's sums overflow.
const MaxCost = 1 << 45

// cost sets the costs of out, of which the low end is low's.
func (p *Price) cost(out *Settled, b *Bound, low *openai.Usage) {
	out.CostNano = Cost(p, out.Usage, out.Tier)
	if out.CostNano > MaxCost {
		out.CostNano = MaxCost
		out.Marks |= AbsurdUsage
	}
	out.LowNano, out.HighNano = out.CostNano, out.CostNano
	if out.Rank == Final && out.Marks&AbsurdUsage == 0 {
		return
	}
	out.LowNano = min(out.CostNano, Cost(p, *low, out.Tier))
	if out.Rank == Estimate {
		hard := *b
		hard.Input = max(b.Input, b.HardInput)
		out.HighNano = min(max(out.CostNano, p.Dearest(&hard)), MaxCost)
	}
}

// How much the gateway takes for a token where no tokenizer says it.
const (
	bytesPerToken = 3  // English has about 4, code and other languages less
	bytesAtMost   = 16 // of a token, on the average of any text
	// OpenAI's audio is 24,000 samples of 2 bytes a second when streamed, and 20
	// tokens of output a second: 3,200 characters of base64 a token.
	audioPerToken = 3200
)

// counted is what the gateway itself counted, likely rather than at most.
func (s *Seen) counted(b *Bound) (u openai.Usage) {
	u.Input = max(s.Input, 0)
	if b.HardInput > 0 {
		u.Input = min(u.Input, b.HardInput)
	}
	u.AudioOutput = (s.AudioBytes + audioPerToken - 1) / audioPerToken
	u.Output = s.Tokens
	if !s.Counted {
		u.Output = (s.TextBytes + bytesPerToken - 1) / bytesPerToken
	}
	u.Output = max(u.Output+u.AudioOutput, s.Output)
	if b.Answers > 0 {
		u.Output = min(u.Output, mul(b.Output, b.Answers))
		u.AudioOutput = min(u.AudioOutput, u.Output)
	}
	return u
}

// leastOutput is what the output cannot have been less than.
func (s *Seen) leastOutput() int64 {
	if s.Counted {
		return s.Tokens - (s.Tokens+49)/50 // a tokenizer of the same family: 2 %
	}
	return s.TextBytes / bytesAtMost
}

// over reports whether u is beyond b. What a model brings by searching at its
// own will has no bound.
func (p *Price) over(b *Bound, u *openai.Usage) bool {
	if b.Answers <= 0 {
		return false
	}
	input := atLeast(u.Input, u.CacheWrite, u.CacheWrite1h, u.AudioInput, u.ImageInput, u.CachedInput)
	output := atLeast(u.Output, u.AudioOutput, u.ImageOutput, u.Reasoning)
	searches := p != nil && p.LeastSearches > 0
	return b.HardInput > 0 && input > b.HardInput && !searches || output > mul(b.Output, b.Answers)
}

// within returns u with each count of tokens at most what b allows.
func within(b *Bound, u openai.Usage) openai.Usage {
	in, out := b.HardInput, mul(b.Output, b.Answers)
	if in <= 0 {
		in = math.MaxInt64
	}
	for _, n := range []*int64{&u.Input, &u.CachedInput, &u.CacheWrite, &u.CacheWrite1h, &u.AudioInput, &u.ImageInput} {
		*n = min(*n, in)
	}
	for _, n := range []*int64{&u.Output, &u.Reasoning, &u.AudioOutput, &u.ImageOutput, &u.AcceptedPrediction, &u.RejectedPrediction} {
		*n = min(*n, out)
	}
	u.Total = 0
	return u
}
