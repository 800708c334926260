package ledger

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"bulkhead/fault"
	"bulkhead/openai"
	"bulkhead/provider"

	"pgregory.net/rapid"
)

// The two Bounds are one: this does not compile otherwise.
var _ = Bound(provider.Bound{})

// sortedKeys are the rows of the table in an order that is the same each time.
func sortedKeys(p *Prices) []rowKey {
	keys := make([]rowKey, 0, len(p.rows))
	for k := range p.rows {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b rowKey) int {
		return strings.Compare(a.catalogue+"\x00"+a.model, b.catalogue+"\x00"+b.model)
	})
	return keys
}

// usageWithin draws a usage that b allows.
func usageWithin(t *rapid.T, b *Bound) (u openai.Usage) {
	upTo := func(name string, n int64) int64 { return rapid.Int64Range(0, n).Draw(t, name) }
	u.Input = upTo("input", b.Input)
	u.AudioInput = upTo("audio in", min(b.AudioInput, u.Input))
	u.ImageInput = upTo("image in", min(b.ImageInput, u.Input-u.AudioInput))
	rest := u.Input - u.AudioInput - u.ImageInput
	u.CachedInput = upTo("cached", rest)
	if b.CacheWrite {
		u.CacheWrite = upTo("written", u.Input-u.CachedInput)
	}
	if b.CacheWrite1h {
		u.CacheWrite1h = upTo("written for an hour", u.CacheWrite)
	}
	out := b.Output * b.Answers
	u.Output = upTo("output", out)
	u.Reasoning = upTo("reasoning", u.Output)
	u.ImageOutput = upTo("image out", u.Output-u.Reasoning)
	if b.AudioOutput {
		u.AudioOutput = upTo("audio out", u.Output-u.Reasoning-u.ImageOutput)
	}
	u.Searches = upTo("searches", b.Searches)
	u.SearchContext = openai.SearchContext(upTo("context", 3))
	return u
}

func drawBound(t *rapid.T) Bound {
	b := Bound{
		Input: rapid.Int64Range(0, 400_000).Draw(t, "bound of input"), Output: rapid.Int64Range(0, 20_000).Draw(t, "bound of output"),
		Answers: rapid.Int64Range(1, 5).Draw(t, "answers"), AudioOutput: rapid.Bool().Draw(t, "audio"), CacheWrite1h: rapid.Bool().Draw(t, "1h"),
		Searches: rapid.Int64Range(0, 3).Draw(t, "bound of searches"), Tier: rapid.SampledFrom([]string{"", "auto", "default", "flex", "priority", "fast"}).Draw(t, "tier"),
	}
	b.CacheWrite = b.CacheWrite1h || rapid.Bool().Draw(t, "writes")
	b.AudioInput = rapid.Int64Range(0, b.Input).Draw(t, "bound of audio")
	b.ImageInput = rapid.Int64Range(0, b.Input-b.AudioInput).Draw(t, "bound of images")
	b.AnyTier = b.Tier == "" || b.Tier == "auto"
	return b
}

// No usage within a bound costs more than the bound does, whatever row it is and
// whatever tier of the possible ones is named in the answer.
func TestDearestBounds(t *testing.T) {
	prices := load(t)
	keys := sortedKeys(prices)
	rapid.Check(t, func(t *rapid.T) {
		p := prices.rows[rapid.SampledFrom(keys).Draw(t, "row")]
		b := drawBound(t)
		dearest := p.Dearest(&b)
		u := usageWithin(t, &b)
		tiers := []string{"", "default", "flex", "scale"}
		if b.AnyTier || b.Tier == "priority" || b.Tier == "fast" {
			tiers = append(tiers, "priority", "fast")
		}
		answered, _ := p.Tier(rapid.SampledFrom(tiers).Draw(t, "answered"), b.Tier)
		if !p.Priced() {
			return
		}
		if cost := Cost(p, u, answered); cost > dearest {
			t.Fatalf("%s %s: %+v at %q costs %d, the bound %+v %d", p.Catalogue, p.Name, u, answered, cost, b, dearest)
		}
	})
}

// Clamp is the exact inverse: what it returns fits, and one token more does not.
func TestClamp(t *testing.T) {
	prices := load(t)
	keys := sortedKeys(prices)
	rapid.Check(t, func(t *rapid.T) {
		p := prices.rows[rapid.SampledFrom(keys).Draw(t, "row")]
		b := drawBound(t)
		whole, least := p.Dearest(&b), p.Least(&b)
		if least > whole {
			t.Fatalf("the least is %d, all is %d", least, whole)
		}
		nano := rapid.Int64Range(0, whole+10).Draw(t, "there is")
		output, ok := p.Clamp(&b, nano)
		at := func(output int64) int64 {
			c := b
			c.Output = output
			return p.Dearest(&c)
		}
		switch {
		case ok != (nano >= least || nano >= whole):
			t.Fatalf("%s %s: there is %d, the least is %d of %d, ok is %t", p.Catalogue, p.Name, nano, least, whole, ok)
		case ok && (at(output) > nano || output > b.Output || output < min(UsefulOutput, b.Output)):
			t.Fatalf("%d tokens cost %d, there is %d", output, at(output), nano)
		case ok && output < b.Output && at(output+1) <= nano:
			t.Fatalf("%d tokens fit too, and cost %d of %d", output+1, at(output+1), nano)
		case !ok && output != 0:
			t.Fatalf("not ok, and %d", output)
		}
	})
}

func TestDearest(t *testing.T) {
	prices := load(t)
	f := func(catalogue, model string, b Bound, want int64) {
		t.Helper()
		p, ok := prices.Lookup(catalogue, model)
		if !ok {
			t.Fatalf("no row %s %s", catalogue, model)
		}
		if got := p.Dearest(&b); got != want {
			t.Errorf("%s %s %+v: got %d, want %d", catalogue, model, b, got, want)
		}
	}
	const million = 1_000_000
	// 1000 tokens at 2.50 USD a million, 100 at 10
	f("openai", "gpt-4o", Bound{Input: 1000, Output: 100, Answers: 1}, 3500_000)
	f("openai", "gpt-4o", Bound{Input: 1000, Output: 100, Answers: 3}, 5500_000)
	// The project may be set to priority: 4.25 and 17.
	f("openai", "gpt-4o", Bound{Input: 1000, Output: 100, Answers: 1, AnyTier: true}, 5950_000)
	f("openai", "gpt-4o", Bound{Input: 1000, Output: 100, Answers: 1, Tier: "priority"}, 5950_000)
	f("openai", "gpt-4o", Bound{Input: 1000, Output: 100, Answers: 1, Tier: "fast"}, 5950_000)
	// Flex may not be served.
	f("openai", "o3", Bound{Input: 1000, Output: 100, Answers: 1, Tier: "flex"}, 2800_000)
	// Cache writes, for five minutes and an hour.
	f("anthropic", "claude-sonnet-4-5", Bound{Input: 1000, Answers: 1}, 3000_000)
	f("anthropic", "claude-sonnet-4-5", Bound{Input: 1000, Answers: 1, CacheWrite: true}, 3750_000)
	f("anthropic", "claude-sonnet-4-5", Bound{Input: 1000, Answers: 1, CacheWrite1h: true}, 6000_000)
	// Above the threshold if it may be.
	f("openai", "gpt-5.6", Bound{Input: 272_000, Output: 1, Answers: 1}, 272_000*4000+20_000)
	f("openai", "gpt-5.6", Bound{Input: 272_001, Output: 1, Answers: 1}, 272_001*8000+30_000)
	// Audio and images by themselves.
	f("openai", "gpt-audio", Bound{Input: 1000, AudioInput: 300, Output: 10, Answers: 1}, 700*2500+300*32000+10*10000)
	f("openai", "gpt-audio", Bound{Input: 1000, AudioInput: 300, Output: 10, Answers: 1, AudioOutput: true}, 700*2500+300*32000+10*64000)
	f("gemini", "gemini-embedding-2", Bound{Input: 1000, ImageInput: 600, Answers: 1}, 400*200+600*450)
	f("gemini", "gemini-embedding-2", Bound{Input: 1000, ImageInput: 600, AudioInput: 700, Answers: 1}, 700*6500+300*450)
	f("gemini", "gemini-2.5-flash-image", Bound{Input: 10, Output: 100, Answers: 1}, 10*300+100*30000)
	// Fees: the dearest of a call, searches, songs.
	f("perplexity", "sonar", Bound{Input: 1000, Answers: 1}, 1000*1000+12*million)
	f("perplexity", "sonar", Bound{Input: 1000, Answers: 1, SearchContext: openai.SearchLow}, 1000*1000+5*million)
	f("anthropic", "claude-sonnet-4-5", Bound{Input: 1000, Answers: 1, Searches: 2}, 3000_000+2*10*million)
	f("gemini", "lyria-3.5", Bound{Input: 1000, Output: 100, Answers: 2}, 2*80*million)
	// What is free, unknown, empty and enormous.
	f("openai", "omni-moderation-latest", Bound{Input: 1 << 40, Output: 1 << 40, Answers: 1}, 0)
	f("openai", "whisper-1", Bound{Input: 1000, Answers: 1}, 0)
	f("openai", "gpt-4o", Bound{}, 0)
	f("openai", "gpt-4o", Bound{Input: math.MaxInt64, Output: math.MaxInt64, Answers: math.MaxInt64, CacheWrite: true, AnyTier: true}, math.MaxInt64)
	f("openai", "gpt-4o", Bound{Input: -5, Output: -5, Answers: -5}, 0)

	var none *Price
	if got := none.Dearest(&Bound{Input: 1}); got != 0 {
		t.Errorf("nil: %d", got)
	}
}

func TestClampEdges(t *testing.T) {
	p, _ := load(t).Lookup("openai", "gpt-4o") // 2500 and 10000 nano-USD a thousand
	f := func(b Bound, nano, want int64, ok bool) {
		t.Helper()
		if got, gotOK := p.Clamp(&b, nano); got != want || gotOK != ok {
			t.Errorf("%+v with %d: %d, %t; want %d, %t", b, nano, got, gotOK, want, ok)
		}
	}
	b := Bound{Input: 100, Output: 1000, Answers: 1} // 250,000 + 10,000 a token
	f(b, 10_250_000, 1000, true)
	f(b, 10_249_999, 999, true)
	f(b, 250_000+16*10_000, 16, true)
	f(b, 250_000+16*10_000-1, 0, false)
	f(b, 0, 0, false)
	b.Output = 5 // the client wants fewer than is useful
	f(b, 300_000, 5, true)
	f(b, 299_999, 0, false)
	b.Output, b.Answers = 1000, 4
	f(b, 250_000+4*100*10_000+39_999, 100, true)
	b.Fixed = true
	f(b, 250_000+4*1000*10_000-1, 0, false)
	f(b, 250_000+4*1000*10_000, 1000, true)
	if got := p.Least(&b); got != 250_000+4*1000*10_000 {
		t.Errorf("the least of what cannot be lowered is %d", got)
	}
	f(Bound{Input: 100, Answers: 1}, 250_000, 0, true) // embeddings
	f(Bound{Input: 100, Answers: 1}, 249_999, 0, false)

	free, _ := load(t).Lookup("openai", "omni-moderation-latest")
	if got, ok := free.Clamp(&Bound{Input: 10, Output: 77, Answers: 1}, 0); got != 77 || !ok || free.Least(&b) != 0 {
		t.Errorf("free: %d, %t", got, ok)
	}
}

func TestCheck(t *testing.T) {
	prices := load(t)
	f := func(catalogue, model string, b Bound, code, param string) {
		t.Helper()
		p, _ := prices.Lookup(catalogue, model)
		err := p.Check(&b)
		if code == "" {
			if err != nil {
				t.Errorf("%s: %v", model, err)
			}
			return
		}
		if e := fault.As(err); e.Kind != fault.Invalid || e.Code != code || e.Param != param {
			t.Errorf("%s %+v: %+v", model, b, e)
		}
	}
	f("openai", "gpt-4o", Bound{Strict: true}, "", "")
	f("openai", "no-such-model", Bound{}, CodePriceUnknown, "model")
	f("openai", "whisper-1", Bound{}, CodePriceUnknown, "model")
	f("openai", "gpt-4o-search-preview", Bound{}, "", "")
	f("openai", "gpt-4o-search-preview", Bound{Strict: true}, CodeNotPriced, "model")
	f("perplexity", "sonar", Bound{Strict: true}, "", "")
	f("openai", "gpt-4o", Bound{Strict: true, Searches: 1}, CodeNotPriced, "web_search_options")
	f("anthropic", "claude-opus-4-8", Bound{Strict: true, Searches: 1}, "", "")
	f("openai", "gpt-4o", Bound{Strict: true, Tier: "ultrafast"}, CodeNotPriced, "service_tier")
	f("openai", "gpt-4o", Bound{Strict: true, Tier: "priority"}, "", "")
	f("openai", "gpt-5-nano", Bound{Strict: true, Tier: "priority"}, CodeNotPriced, "service_tier")
	f("openai", "gpt-4o", Bound{Tier: "ultrafast"}, "", "")
	for _, tier := range []string{"auto", "default", "flex", "scale", "standard_only", "on_demand"} {
		f("openai", "gpt-4o", Bound{Strict: true, Tier: tier}, "", "")
	}
}

func BenchmarkDearest(b *testing.B) {
	p, _ := load(b).Lookup("openai", "gpt-5.6")
	bound := Bound{Input: 300_000, Output: 16384, Answers: 1, CacheWrite: true, AnyTier: true}
	b.ReportAllocs()
	for b.Loop() {
		p.Dearest(&bound)
	}
}

func BenchmarkClamp(b *testing.B) {
	p, _ := load(b).Lookup("openai", "gpt-4o")
	bound := Bound{Input: 3000, Output: 16384, Answers: 1, CacheWrite: true, AnyTier: true}
	r := rand.New(rand.NewPCG(1, 2))
	b.ReportAllocs()
	for b.Loop() {
		p.Clamp(&bound, 20_000_000+r.Int64N(1_000_000))
	}
}
