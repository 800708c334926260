package ledger

import (
	"testing"

	"bulkhead/openai"
)

// TestSettle is the rules of Settle one by one, for gpt-4o: a token of input costs
// 2,500 nano-USD, 1,250 if it was cached, one of output 10,000.
func TestSettle(t *testing.T) {
	p, _ := load(t).Lookup("openai", "gpt-4o")
	b := Bound{Input: 1000, HardInput: 1000, Output: 100, Answers: 1}
	const in, cached, out = 2500, 1250, 10_000
	dearest := int64(1000*in + 100*out)
	f := func(name string, s Seen, want Settled) {
		t.Helper()
		if got := p.Settle(&b, &s); got != want {
			t.Errorf("%s:\n got %+v\nwant %+v", name, got, want)
		}
	}
	final := func(u openai.Usage, m Mark, cost, low int64) Settled {
		return Settled{Usage: u, Rank: Final, Marks: m, CostNano: cost, LowNano: low, HighNano: cost}
	}
	said := openai.Usage{Input: 300, CachedInput: 100, Output: 50, Reasoning: 10, Total: 350}
	cost := int64(200*in + 100*cached + 50*out)
	f("said", Seen{Usage: said, HasUsage: true, Whole: true, Input: 280, TextBytes: 200}, final(said, 0, cost, cost))
	f("said twice", Seen{Usage: said, HasUsage: true, Twice: true, Whole: true}, final(said, TwoUsages, cost, cost))
	f("with a count that is none", Seen{Usage: said, HasUsage: true, BadUsage: true, Whole: true}, final(said, AbsurdUsage, cost, cost))

	// Nothing said of a whole answer: counted, 3 bytes a token.
	f("not said", Seen{Whole: true, Input: 200, TextBytes: 90}, Settled{
		Usage: openai.Usage{Input: 200, Output: 30}, Rank: Estimate, Marks: NoUsage,
		CostNano: 200*in + 30*out, LowNano: 5 * out, HighNano: dearest,
	})
	// Said as nothing, though there was something.
	f("zero", Seen{Usage: openai.Usage{}, HasUsage: true, Whole: true, Input: 200, TextBytes: 90}, Settled{
		Usage: openai.Usage{Input: 200, Output: 30}, Rank: Estimate, Marks: NoUsage,
		CostNano: 200*in + 30*out, LowNano: 5 * out, HighNano: dearest,
	})
	f("no input", Seen{Usage: openai.Usage{Output: 30}, HasUsage: true, Whole: true, Input: 200, TextBytes: 90}, Settled{
		Usage: openai.Usage{Input: 200, Output: 30}, Rank: Estimate, Marks: NoUsage,
		CostNano: 200*in + 30*out, LowNano: 30 * out, HighNano: dearest,
	})
	f("no output", Seen{Usage: openai.Usage{Input: 150}, HasUsage: true, Whole: true, Input: 200, TextBytes: 90}, Settled{
		Usage: openai.Usage{Input: 200, Output: 30}, Rank: Estimate, Marks: NoUsage,
		CostNano: 200*in + 30*out, LowNano: 150*cached + 5*out, HighNano: dearest,
	})
	// There was nothing: an empty answer is one, and embeddings have no output.
	f("no text", Seen{Usage: openai.Usage{Input: 150}, HasUsage: true, Whole: true, Input: 200}, final(openai.Usage{Input: 150}, 0, 150*in, 150*in))

	// More than can be: booked, marked; the low end is the bound.
	huge := openai.Usage{Input: 5000, Output: 300}
	f("absurd", Seen{Usage: huge, HasUsage: true, Whole: true}, final(huge, AbsurdUsage, 5000*in+300*out, 1000*in+100*out))
	f("absurd reasoning", Seen{Usage: openai.Usage{Input: 1, Output: 50, Reasoning: 101}, HasUsage: true, Whole: true},
		final(openai.Usage{Input: 1, Output: 50, Reasoning: 101}, AbsurdUsage, 1*in+101*out, 1*in+100*out))
	f("exactly the bound", Seen{Usage: openai.Usage{Input: 1000, Output: 100}, HasUsage: true, Whole: true},
		final(openai.Usage{Input: 1000, Output: 100}, 0, dearest, dearest))

	// No sum overflows, whatever is said.
	wild := openai.Usage{Input: 1 << 40, Output: 1 << 40}
	f("more than there is", Seen{Usage: wild, HasUsage: true, Whole: true}, final(wild, AbsurdUsage, MaxCost, 1000*in+100*out))

	// Cut short: visible text, by the tokenizer where there is one.
	f("cut", Seen{Input: 200, TextBytes: 160}, Settled{
		Usage: openai.Usage{Input: 200, Output: 54}, Rank: Estimate, Marks: NoUsage,
		CostNano: 200*in + 54*out, LowNano: 10 * out, HighNano: dearest,
	})
	f("cut and counted", Seen{Input: 200, TextBytes: 160, Tokens: 51, Counted: true}, Settled{
		Usage: openai.Usage{Input: 200, Output: 51}, Rank: Estimate, Marks: NoUsage | Tokenized,
		CostNano: 200*in + 51*out, LowNano: 49 * out, HighNano: dearest,
	})
	f("cut before anything", Seen{Input: 200}, Settled{
		Usage: openai.Usage{Input: 200}, Rank: Estimate, Marks: NoUsage, CostNano: 200 * in, HighNano: dearest,
	})
	f("cut, and said on the way", Seen{Usage: openai.Usage{Input: 150, Output: 20, Total: 170}, HasUsage: true, Input: 100, TextBytes: 90}, Settled{
		Usage: openai.Usage{Input: 150, Output: 30}, Rank: Estimate,
		CostNano: 150*in + 30*out, LowNano: 150*cached + 20*out, HighNano: dearest,
	})
	// What is counted is never more than the bound; what the vendor says is.
	f("cut after very much", Seen{Input: 9999, TextBytes: 9999}, Settled{
		Usage: openai.Usage{Input: 1000, Output: 100}, Rank: Estimate, Marks: NoUsage, CostNano: dearest, LowNano: 100 * out, HighNano: dearest,
	})
}

func TestSettleAudio(t *testing.T) {
	p, _ := load(t).Lookup("openai", "gpt-audio")
	b := Bound{Input: 1000, HardInput: 1000, Output: 1000, Answers: 1, AudioOutput: true}
	got := p.Settle(&b, &Seen{Input: 10, TextBytes: 30, AudioBytes: 32_000})
	if want := (openai.Usage{Input: 10, Output: 20, AudioOutput: 10}); got.Usage != want || got.CostNano != 10*2500+10*10_000+10*64_000 {
		t.Errorf("%+v", got)
	}
}

// Bounds that are not there bound nothing; an estimate is no bound.
func TestSettleWithoutBound(t *testing.T) {
	p, _ := load(t).Lookup("openai", "gpt-4o")
	f := func(b Bound, u openai.Usage, absurd bool) {
		t.Helper()
		got := p.Settle(&b, &Seen{Usage: u, HasUsage: true, Whole: true})
		if got.Absurd() != absurd || got.Usage != u {
			t.Errorf("%+v of %+v: %+v", u, b, got)
		}
	}
	f(Bound{}, openai.Usage{Input: 1 << 30, Output: 1 << 30}, false)
	f(Bound{Input: 10, Output: 10, Answers: 1}, openai.Usage{Input: 11, Output: 10}, false)
	f(Bound{Input: 10, Output: 10, Answers: 1}, openai.Usage{Input: 11, Output: 11}, true)
	f(Bound{Input: 10, HardInput: 30, Output: 10, Answers: 1}, openai.Usage{Input: 30, Output: 10}, false)
	f(Bound{Input: 10, HardInput: 30, Output: 10, Answers: 1}, openai.Usage{Input: 31, Output: 10}, true)
	f(Bound{HardInput: 30, Output: 10, Answers: 3}, openai.Usage{Input: 1, Output: 30}, false)
	f(Bound{HardInput: 30, Output: 10, Answers: 3}, openai.Usage{Input: 1, CachedInput: 31}, true)

	cut := p.Settle(&Bound{}, &Seen{Input: 10, TextBytes: 30})
	if cut.CostNano != 10*2500+10*10_000 || cut.HighNano != cut.CostNano || cut.LowNano >= cut.CostNano {
		t.Errorf("%+v", cut)
	}

	// A model that searches reads what it finds.
	search, _ := load(t).Lookup("openai", "gpt-4o-search-preview")
	if got := search.Settle(&Bound{Input: 10, HardInput: 10, Output: 10, Answers: 1}, &Seen{Usage: openai.Usage{Input: 9000, Output: 5}, HasUsage: true, Whole: true}); got.Absurd() {
		t.Errorf("%+v", got)
	}
}

// No price: all is booked but money.
func TestSettleUnpriced(t *testing.T) {
	var none *Price
	u := openai.Usage{Input: 10, Output: 20, Searches: 1, Tools: 1}
	want := Settled{Usage: u, Tier: "priority", Rank: Final}
	if got := none.Settle(&Bound{}, &Seen{Usage: u, HasUsage: true, Whole: true, Tier: "priority"}); got != want {
		t.Errorf("%+v", got)
	}
	if got := none.Settle(&Bound{Output: 5, Answers: 1}, &Seen{TextBytes: 30}); got.Usage.Output != 5 || got.HighNano != 0 {
		t.Errorf("%+v", got)
	}
	p, _ := load(t).Lookup("openai", "gpt-4o")
	if got := p.Settle(&Bound{}, &Seen{Usage: u, HasUsage: true, Whole: true}); got.Marks != UnpricedFee || got.CostNano != 10*2500+20*10_000 {
		t.Errorf("%+v", got)
	}
}

func TestTier(t *testing.T) {
	prices := load(t)
	f := func(model, answered, asked, tier string, m Mark) {
		t.Helper()
		p, _ := prices.Lookup("openai", model)
		if got, marks := p.Tier(answered, asked); got != tier || marks != m {
			t.Errorf("%s answered %q asked %q: %q, %d; want %q, %d", model, answered, asked, got, marks, tier, m)
		}
	}
	f("gpt-4o", "default", "priority", "", 0)
	f("gpt-4o", "priority", "", "priority", 0)
	f("gpt-4o", "fast", "", "priority", 0)
	f("gpt-4o", "scale", "", "scale", 0)
	f("gpt-4o", "", "", "", 0)
	f("gpt-4o", "", "auto", "", 0)
	f("gpt-4o", "", "default", "", 0)
	f("gpt-4o", "", "priority", "priority", TierAssumed)
	f("gpt-4o", "", "fast", "priority", TierAssumed)
	f("o3", "", "flex", "", TierAssumed)
	f("o3", "flex", "flex", "flex", 0)
	f("gpt-4o", "ultrafast", "", "priority", UnpricedFee)
	f("gpt-audio", "ultrafast", "", "", UnpricedFee)
	f("gpt-audio", "", "priority", "", 0) // it has one price only
}
