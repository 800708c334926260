package ledger

import (
	"math"
	"math/bits"

	"bulkhead/openai"
)

// Cost returns what u costs at p in nano-USD (1e-9 USD), rounded up once. tier
// is the service tier that is billed (Price.Tier): a vendor may serve a call at
// another one than was asked for. Tokens cost 0 if p is not Priced, and the cost
// is math.MaxInt64 where the true sum is larger.
//
// The rules:
//
//  1. Each token is billed once, as what it is: CacheWrite, AudioInput,
//     ImageInput and CachedInput are parts of Input, CacheWrite1h is one of
//     CacheWrite, AudioOutput, ImageOutput and Reasoning are parts of Output.
//     The rest is plain. Where the parts are more than the whole they overlap
//     (cached audio): they are taken in the order written here until the whole
//     is used up. A part larger than the whole makes the whole as large. A count
//     below 0 is 0.
//  2. A part without a rate of its own is billed as plain input or output, and
//     CacheWrite1h as CacheWrite. A CacheWrite rate below the plain one is none:
//     it means that writing costs nothing on top. Where the plain rate is
//     missing, plain tokens are billed at the dearest of their parts' rates
//     (image models), else at 0.
//  3. Above a threshold of input tokens (Above) all tokens of the call are
//     billed at that row's rates, as Anthropic, Google, OpenAI and xAI do. The
//     highest threshold that Input exceeds counts; a call exactly at it is
//     below it.
//  4. A tier with a row is billed at that row's rates; "", "default" and any
//     tier without a row at the standard ones.
//  5. What a row of 3 or 4 leaves out: a part whose standard rate is the plain
//     one goes on being billed as plain. Any other rate keeps at least its
//     standard amount and rises in proportion with the plain rate: a surcharge
//     is assumed, a discount is not. Plain output rises with plain input. But
//     where a row lowers input, cached input and output all in one proportion,
//     that is a discount on everything, and what it leaves out has it too
//     (Anthropic's batches, cache writes included).
//  6. Threshold and tier together: the threshold's rate changes in the
//     proportion in which the tier's differs from the standard one, rounded up.
//  7. What is not a token is billed by Fees: a fee for the call where anything
//     of it was used, searches and images at least as many as a call of the
//     model always makes. Images are not billed where their tokens are. A count
//     without a fee costs nothing; Unpriced tells.
func Cost(p *Price, u openai.Usage, tier string) (nano int64) {
	if p == nil {
		return 0
	}
	input := atLeast(u.Input, u.CacheWrite, u.CacheWrite1h, u.AudioInput, u.ImageInput, u.CachedInput)
	output := atLeast(u.Output, u.AudioOutput, u.ImageOutput, u.Reasoning)
	r := p.ratesOf(tier, input)

	var sum pico
	if input > 0 || output > 0 || u.Seconds > 0 || u.Images > 0 || u.Characters > 0 {
		p.addFees(&sum, &u)
	}
	write := min(max(u.CacheWrite1h, 0), max(u.CacheWrite, u.CacheWrite1h))
	sum.take(&input, write, r.CacheWrite1h)
	sum.take(&input, u.CacheWrite-write, r.CacheWrite)
	sum.take(&input, u.AudioInput, r.AudioInput)
	sum.take(&input, u.ImageInput, r.ImageInput)
	sum.take(&input, u.CachedInput, r.CachedInput)
	sum.take(&input, input, r.Input)
	sum.take(&output, u.AudioOutput, r.AudioOutput)
	sum.take(&output, u.ImageOutput, r.ImageOutput)
	sum.take(&output, u.Reasoning, r.Reasoning)
	sum.take(&output, output, r.Output)
	return sum.nano()
}

// atLeast returns n, or what is larger of the parts, or 0.
func atLeast(n int64, parts ...int64) int64 {
	for _, part := range parts {
		n = max(n, part)
	}
	return max(n, 0)
}

// addFees adds what a call that used u costs beside its tokens.
func (p *Price) addFees(sum *pico, u *openai.Usage) {
	sum.add(1, p.callFee(u.SearchContext))
	sum.add(max(u.Searches, p.LeastSearches), p.Fees.Search)
	sum.add(u.Tools, p.Fees.Tool)
	if p.Rates.ImageOutput == Absent { // else the table says the same price twice
		sum.add(max(u.Images, p.LeastImages), p.Fees.Image)
	}
	sum.add(u.Seconds, p.Fees.Second)
	sum.add(u.Characters, p.Fees.Character)
}

// callFee returns the fee of a call, the dearest where it is not said how much
// was looked up.
func (p *Price) callFee(c openai.SearchContext) int64 {
	f := &p.Fees
	switch c {
	case openai.SearchLow:
		return f.Call
	case openai.SearchMedium:
		return max(f.Call, f.CallMedium)
	}
	return max(f.Call, f.CallMedium, f.CallHigh)
}

// Unpriced reports whether u has something that costs money and that p has no
// price for, so that Cost is less than the bill.
func (p *Price) Unpriced(u openai.Usage) bool {
	if p == nil {
		return false
	}
	f := &p.Fees
	return u.Searches > 0 && f.Search == Absent || u.Tools > 0 && f.Tool == Absent
}

// Tier returns the service tier to bill, "" for the standard one, by the tier
// named in the answer and the one asked for. Where the answer names none, a
// dearer tier that was asked for is assumed to have been served and a cheaper
// one not. A tier that the table does not know, and that is not known to cost
// no more than the standard one, is billed as the dearest it does know.
func (p *Price) Tier(answered, asked string) (tier string, m Mark) {
	if p == nil {
		return answered, 0
	}
	if answered == "" {
		if asked = p.known(asked); asked != "" && asked != projectTier && len(p.Tiers) > 0 {
			m = TierAssumed
		}
		if t, ok := p.Tiers[asked]; ok && (t.Input > p.Rates.Input || t.Output > p.Rates.Output) {
			return asked, m
		}
		return "", m
	}
	if tier = p.known(answered); p.knows(tier) {
		return tier, 0
	}
	return p.dearestTier(), UnpricedFee
}

// projectTier is the name for whatever the vendor's project is set to.
const projectTier = "auto"

// known returns the name the table has for a tier, "" for the standard one.
func (p *Price) known(tier string) string {
	switch tier {
	case "default", "standard", "standard_only", "on_demand":
		return ""
	case "fast": // OpenAI's other name of it
		if _, ok := p.Tiers[tier]; !ok {
			return "priority"
		}
	}
	return tier
}

// cheapTier reports whether a tier costs no more per token than the standard
// one: discounts, and what was bought beforehand.
func cheapTier(tier string) bool {
	switch tier {
	case "flex", "batch", "scale", "performance", projectTier:
		return true
	}
	return false
}

// dearestTier returns the tier with the highest rate for input or output.
func (p *Price) dearestTier() (tier string) {
	in, out := p.Rates.Input, p.Rates.Output
	for name, t := range p.Tiers {
		if t.Input > in || t.Input == in && t.Output > out {
			tier, in, out = name, t.Input, t.Output
		}
	}
	return tier
}

// ratesOf returns the rates of a call with that tier and that much input, none
// of them Absent.
func (p *Price) ratesOf(tier string, input int64) Rates {
	above := -1
	for i := range p.Above {
		if input > p.Above[i].Tokens {
			above = i
		}
	}
	return p.ratesAt(tier, above)
}

// ratesAt returns the rates above threshold i; -1 is below the first.
func (p *Price) ratesAt(tier string, i int) Rates {
	standard := fill(p.Rates, p.Rates)
	above := standard
	if i >= 0 {
		above = fill(p.Above[i].Rates, p.Rates)
	}
	t, hasTier := p.Tiers[tier]
	if !hasTier {
		return above
	}
	t = fill(t, p.Rates)
	if i < 0 {
		return t
	}
	return each(t, above, standard, func(t, above, standard int64) int64 {
		if standard == 0 {
			return max(t, above)
		}
		return scale(above, t, standard)
	})
}

// fill returns r with what it leaves out by rules 2 and 5. standard is the row
// that r is a variant of, or r itself.
func fill(r, standard Rates) Rates {
	whole := discounts(&r, &standard)
	plainIn, plainOut := standard.Input, standard.Output
	if plainIn == Absent {
		plainIn = max(standard.CachedInput, standard.CacheWrite, standard.CacheWrite1h, standard.AudioInput, standard.ImageInput, 0)
	}
	if plainOut == Absent {
		plainOut = max(standard.Reasoning, standard.AudioOutput, standard.ImageOutput, 0)
	}
	if r.Input == Absent {
		r.Input = plainIn
	}
	if r.Output == Absent {
		r.Output = max(plainOut, scale(plainOut, r.Input, plainIn))
	}
	part := func(rate *int64, standard, plain, plainNow int64) {
		switch {
		case *rate != Absent:
		case standard == Absent || standard == plain:
			*rate = plainNow
		case whole:
			*rate = scale(standard, plainNow, plain)
		default:
			*rate = max(standard, scale(standard, plainNow, plain))
		}
	}
	standardWrite := standard.CacheWrite
	if standardWrite < plainIn {
		standardWrite = plainIn
	}
	part(&r.CachedInput, standard.CachedInput, plainIn, r.Input)
	part(&r.CacheWrite, standardWrite, plainIn, r.Input)
	r.CacheWrite = max(r.CacheWrite, r.Input)
	if r.CacheWrite1h == Absent && standard.CacheWrite1h == Absent {
		r.CacheWrite1h = r.CacheWrite
	}
	part(&r.CacheWrite1h, standard.CacheWrite1h, plainIn, r.Input)
	r.CacheWrite1h = max(r.CacheWrite1h, r.CacheWrite)
	part(&r.AudioInput, standard.AudioInput, plainIn, r.Input)
	part(&r.ImageInput, standard.ImageInput, plainIn, r.Input)
	part(&r.Reasoning, standard.Reasoning, plainOut, r.Output)
	part(&r.AudioOutput, standard.AudioOutput, plainOut, r.Output)
	part(&r.ImageOutput, standard.ImageOutput, plainOut, r.Output)
	return r
}

// discounts reports whether r lowers input, cached input and output of standard
// all in one proportion.
func discounts(r, standard *Rates) bool {
	if r.Input >= standard.Input || min(r.Input, r.CachedInput, r.Output) <= 0 || min(standard.CachedInput, standard.Output) <= 0 {
		return false
	}
	same := func(a, b int64) bool { // a/b as r.Input/standard.Input
		hi1, lo1 := bits.Mul64(uint64(a), uint64(standard.Input))
		hi2, lo2 := bits.Mul64(uint64(b), uint64(r.Input))
		return hi1 == hi2 && lo1 == lo2
	}
	return same(r.CachedInput, standard.CachedInput) && same(r.Output, standard.Output)
}

// scale returns rate*now/before, rounded up; rate if before is 0. All are at
// most maxRate or a scaled rate, saturating at maxScaled.
func scale(rate, now, before int64) int64 {
	if before <= 0 {
		return rate
	}
	hi, lo := bits.Mul64(uint64(rate), uint64(now))
	lo, carry := bits.Add64(lo, uint64(before-1), 0)
	if hi += carry; hi >= uint64(before) {
		return maxScaled
	}
	q, _ := bits.Div64(hi, lo, uint64(before))
	return int64(min(q, maxScaled))
}

const maxScaled = 1 << 60

func each(a, b, c Rates, f func(a, b, c int64) int64) Rates {
	return Rates{
		Input:        f(a.Input, b.Input, c.Input),
		CachedInput:  f(a.CachedInput, b.CachedInput, c.CachedInput),
		CacheWrite:   f(a.CacheWrite, b.CacheWrite, c.CacheWrite),
		CacheWrite1h: f(a.CacheWrite1h, b.CacheWrite1h, c.CacheWrite1h),
		AudioInput:   f(a.AudioInput, b.AudioInput, c.AudioInput),
		ImageInput:   f(a.ImageInput, b.ImageInput, c.ImageInput),
		Output:       f(a.Output, b.Output, c.Output),
		Reasoning:    f(a.Reasoning, b.Reasoning, c.Reasoning),
		AudioOutput:  f(a.AudioOutput, b.AudioOutput, c.AudioOutput),
		ImageOutput:  f(a.ImageOutput, b.ImageOutput, c.ImageOutput),
	}
}

// pico is a sum of pico-USD in 128 bits. All the input of a call is less than
// 2^63 tokens at less than 2^63 each, the output likewise, and each fee's
// product too: a handful of them never overflows.
type pico struct{ hi, lo uint64 }

// take moves at most n tokens out of left and adds them at the rate.
func (p *pico) take(left *int64, n, rate int64) {
	n = min(max(n, 0), *left)
	*left -= n
	p.add(n, rate)
}

// add adds n at the rate; what is below 0, such as Absent, is 0.
func (p *pico) add(n, rate int64) {
	hi, lo := bits.Mul64(uint64(max(n, 0)), uint64(max(rate, 0)))
	var carry uint64
	p.lo, carry = bits.Add64(p.lo, lo, 0)
	p.hi, carry = bits.Add64(p.hi, hi, carry)
	if carry != 0 {
		p.hi = math.MaxInt64
	}
}

func (p *pico) nano() int64 {
	const perNano = 1000
	lo, carry := bits.Add64(p.lo, perNano-1, 0)
	hi := p.hi + carry
	if hi >= perNano {
		return math.MaxInt64
	}
	q, _ := bits.Div64(hi, lo, perNano)
	return int64(min(q, math.MaxInt64))
}
