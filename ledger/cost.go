package ledger

import (
	"math"
	"math/bits"

	"bulkhead/openai"
)

// Cost returns what u costs at p in nano-USD (1e-9 USD), rounded up once. tier
// is the service tier named in the answer, not in the request: a vendor may
// serve a call at another one than was asked for, and bills that. Cost is 0 if
// p is not Priced, and math.MaxInt64 where the true sum is larger.
//
// The rules:
//
//  1. Each token is billed once, as what it is: CacheWrite, AudioInput,
//     ImageInput and CachedInput are parts of Input, AudioOutput, ImageOutput
//     and Reasoning parts of Output. The rest is plain. Where the parts are
//     more than the whole they overlap (cached audio): they are taken in the
//     order written here until the whole is used up. A part larger than the
//     whole makes the whole as large. A count below 0 is 0.
//  2. A part without a rate of its own is billed as plain input or output; a
//     CacheWrite rate of 0 is none, since it means that writing costs nothing
//     on top. Where the plain rate is missing, plain tokens are billed at the
//     dearest of their parts' rates (image models), else at 0.
//  3. Above a threshold of input tokens (Above) all tokens of the call are
//     billed at that row's rates, as Anthropic, Google, OpenAI and xAI do. The
//     highest threshold that Input exceeds counts; a call exactly at it is
//     below it.
//  4. A tier with a row is billed at that row's rates; "", "default" and any
//     tier without a row at the standard ones.
//  5. What a row of 3 or 4 leaves out: a part whose standard rate is the plain
//     one goes on being billed as plain. Any other rate keeps at least its
//     standard amount and rises in proportion with the plain rate: a surcharge
//     is assumed, a discount is not. Plain output rises with plain input.
//  6. Threshold and tier together: a dearer tier raises the threshold's rate in
//     proportion, rounded up; otherwise the dearer of the two is billed.
//
// Writing to a cache that lasts an hour is billed at CacheWrite, since OpenAI's
// usage does not tell how long an entry lasts.
func Cost(p *Price, u openai.Usage, tier string) (nano int64) {
	if !p.Priced() {
		return 0
	}
	whole := func(n int64, parts ...int64) int64 {
		for _, part := range parts {
			n = max(n, part)
		}
		return max(n, 0)
	}
	input := whole(u.Input, u.CacheWrite, u.AudioInput, u.ImageInput, u.CachedInput)
	output := whole(u.Output, u.AudioOutput, u.ImageOutput, u.Reasoning)
	r := p.ratesOf(tier, input)

	var sum pico
	sum.take(&input, u.CacheWrite, r.CacheWrite)
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

// ratesOf returns the rates of a call with that tier and that much input, none
// of them Absent.
func (p *Price) ratesOf(tier string, input int64) Rates {
	standard := fill(p.Rates, p.Rates)
	above, isAbove := standard, false
	for _, a := range p.Above {
		if input > a.Tokens {
			above, isAbove = fill(a.Rates, p.Rates), true
		}
	}
	t, hasTier := p.Tiers[tier]
	if !hasTier {
		return above
	}
	t = fill(t, p.Rates)
	if !isAbove {
		return t
	}
	return each(t, above, standard, func(t, above, standard int64) int64 {
		if t > standard {
			return max(t, scale(above, t, standard))
		}
		return max(t, above)
	})
}

// fill returns r with what it leaves out by rules 2 and 5. standard is the row
// that r is a variant of, or r itself.
func fill(r, standard Rates) Rates {
	plainIn, plainOut := standard.Input, standard.Output
	if plainIn == Absent {
		plainIn = max(standard.CachedInput, standard.CacheWrite, standard.AudioInput, standard.ImageInput, 0)
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
		default:
			*rate = max(standard, scale(standard, plainNow, plain))
		}
	}
	part(&r.CachedInput, standard.CachedInput, plainIn, r.Input)
	part(&r.CacheWrite, standard.CacheWrite, plainIn, r.Input)
	part(&r.AudioInput, standard.AudioInput, plainIn, r.Input)
	part(&r.ImageInput, standard.ImageInput, plainIn, r.Input)
	part(&r.Reasoning, standard.Reasoning, plainOut, r.Output)
	part(&r.AudioOutput, standard.AudioOutput, plainOut, r.Output)
	part(&r.ImageOutput, standard.ImageOutput, plainOut, r.Output)
	return r
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
		Input:       f(a.Input, b.Input, c.Input),
		CachedInput: f(a.CachedInput, b.CachedInput, c.CachedInput),
		CacheWrite:  f(a.CacheWrite, b.CacheWrite, c.CacheWrite),
		AudioInput:  f(a.AudioInput, b.AudioInput, c.AudioInput),
		ImageInput:  f(a.ImageInput, b.ImageInput, c.ImageInput),
		Output:      f(a.Output, b.Output, c.Output),
		Reasoning:   f(a.Reasoning, b.Reasoning, c.Reasoning),
		AudioOutput: f(a.AudioOutput, b.AudioOutput, c.AudioOutput),
		ImageOutput: f(a.ImageOutput, b.ImageOutput, c.ImageOutput),
	}
}

// pico is a sum of pico-USD in 128 bits. All the input of a call is less than
// 2^63 tokens at less than 2^63 each, the output likewise: it never overflows.
type pico struct{ hi, lo uint64 }

// take moves at most n tokens out of left and adds them at the rate.
func (p *pico) take(left *int64, n, rate int64) {
	n = min(max(n, 0), *left)
	*left -= n
	hi, lo := bits.Mul64(uint64(n), uint64(max(rate, 0)))
	var carry uint64
	p.lo, carry = bits.Add64(p.lo, lo, 0)
	p.hi, _ = bits.Add64(p.hi, hi, carry)
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
