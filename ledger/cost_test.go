package ledger

import (
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"bulkhead/openai"
)

// golden is one case of testdata/cost-*.txt.
type golden struct {
	name, row, tier, usage, sum, nano string
	has                               []string
}

func goldenCases(t *testing.T) (cases []golden) {
	t.Helper()
	files, err := filepath.Glob("testdata/cost-*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no cases", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, block := range strings.Split(string(text), "\n\n")[1:] {
			var g golden
			for line := range strings.Lines(block) {
				key, value, _ := strings.Cut(strings.TrimSpace(line), ":")
				value = strings.TrimSpace(value)
				switch key {
				case "case":
					g.name = filepath.Base(file) + ": " + value
				case "row":
					g.row = value
				case "has":
					g.has = append(g.has, value)
				case "tier":
					g.tier = value
				case "usage":
					g.usage = value
				case "sum":
					g.sum = value
				case "nano":
					g.nano = value
				case "why":
				default:
					t.Fatalf("%s: unknown line %q", file, line)
				}
			}
			cases = append(cases, g)
		}
	}
	return cases
}

func TestCost(t *testing.T) {
	prices := load(t)
	lines := strings.Split(string(modelsJSON)+"\n"+string(sandboxJSON), "\n")
	cases := goldenCases(t)
	if len(cases) < 40 {
		t.Fatalf("%d cases", len(cases))
	}
	for _, g := range cases {
		t.Run(g.name, func(t *testing.T) {
			catalogue, model, _ := strings.Cut(g.row, " ")
			p, ok := prices.Lookup(catalogue, model)
			if !ok {
				t.Fatalf("no row %q", g.row)
			}
			start := `{"provider":"` + catalogue + `","model":"` + model + `",`
			for _, line := range lines {
				for _, text := range g.has {
					if strings.HasPrefix(line, start) && !strings.Contains(line, text) {
						t.Errorf("the row has no %s", text)
					}
				}
			}
			if len(g.has) == 0 {
				t.Error("no source of the rates")
			}
			want := atoi(t, g.nano)
			if pico := eval(t, g.sum); (pico+999)/1000 != want {
				t.Errorf("sum is %d pico-USD, not %d nano-USD", pico, want)
			}
			if got := Cost(p, usageOf(t, g.usage), g.tier); got != want {
				t.Errorf("got %d, want %d", got, want)
			}
		})
	}
}

func usageOf(t *testing.T, s string) (u openai.Usage) {
	t.Helper()
	fields := map[string]*int64{
		"input": &u.Input, "cached": &u.CachedInput, "cachewrite": &u.CacheWrite, "cachewrite1h": &u.CacheWrite1h, "audioin": &u.AudioInput, "imagein": &u.ImageInput,
		"output": &u.Output, "reasoning": &u.Reasoning, "audioout": &u.AudioOutput, "imageout": &u.ImageOutput,
		"accepted": &u.AcceptedPrediction, "rejected": &u.RejectedPrediction, "total": &u.Total,
	}
	for _, f := range strings.Fields(s) {
		name, value, _ := strings.Cut(f, "=")
		if fields[name] == nil {
			t.Fatalf("unknown usage %q", f)
		}
		*fields[name] = atoi(t, value)
	}
	return u
}

// eval adds products: "800*2500000 + 200*1250000".
func eval(t *testing.T, s string) (sum int64) {
	t.Helper()
	for _, product := range strings.Split(s, "+") {
		n := int64(1)
		for _, factor := range strings.Split(product, "*") {
			n *= atoi(t, strings.TrimSpace(factor))
		}
		sum += n
	}
	return sum
}

func atoi(t *testing.T, s string) int64 {
	t.Helper()
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// madeUp is a price with no rate but these.
func madeUp(input, output int64) *Price {
	none := noRates
	none.Input, none.Output = input, output
	return &Price{Rates: none, Fees: noFees}
}

func TestCostRounding(t *testing.T) {
	f := func(input, output, want int64) {
		t.Helper()
		if got := Cost(madeUp(1, 999), openai.Usage{Input: input, Output: output}, ""); got != want {
			t.Errorf("%d and %d tokens: got %d, want %d", input, output, got, want)
		}
	}
	f(1, 0, 1)    // 1 pico-USD is not nothing
	f(1000, 0, 1) // exactly 1 nano-USD
	f(1001, 0, 2)
	f(1, 1, 1) // 1 + 999: rounded once, not each
	f(2, 1, 2)
	f(0, 1000, 999)
}

// A sum that is too large to write down stays the largest, and never wraps.
func TestCostOverflow(t *testing.T) {
	f := func(rate, tokens, want int64) {
		t.Helper()
		u := openai.Usage{Input: tokens, Output: tokens}
		if got := Cost(madeUp(rate, rate), u, ""); got != want {
			t.Errorf("%d tokens at %d: got %d, want %d", tokens, rate, got, want)
		}
	}
	f(maxRate, 1<<40, math.MaxInt64)
	f(math.MaxInt64, math.MaxInt64, math.MaxInt64)
	f(500, math.MaxInt64, math.MaxInt64) // both together are exact, and just fit
	f(501, math.MaxInt64, math.MaxInt64)
	f(1, math.MaxInt64, math.MaxInt64/500+1)

	// Every part at once.
	big := int64(math.MaxInt64)
	p := &Price{Rates: Rates{big, big, big, big, big, big, big, big, big, big}}
	u := openai.Usage{Input: big, CachedInput: big, Output: big, Reasoning: big}
	if got := Cost(p, u, ""); got != math.MaxInt64 {
		t.Errorf("got %d", got)
	}
}

// The price that is not known is 0, and Priced says so.
func TestCostWithoutPrice(t *testing.T) {
	u := openai.Usage{Input: 1000, Output: 1000}
	if got := Cost(nil, u, ""); got != 0 {
		t.Errorf("nil: %d", got)
	}
	perSecond, _ := load(t).Lookup("openai", "whisper-1")
	if got := Cost(perSecond, u, ""); got != 0 {
		t.Errorf("whisper-1: %d", got)
	}
}

// Fees for what is counted apart from tokens, once each.
func TestCostFees(t *testing.T) {
	prices := load(t)
	f := func(catalogue, model string, u openai.Usage, want int64) {
		t.Helper()
		p, _ := prices.Lookup(catalogue, model)
		if got := Cost(p, u, ""); got != want {
			t.Errorf("%s %+v: got %d, want %d", model, u, got, want)
		}
	}
	const million = 1_000_000
	// An image whose tokens have a price is not billed by the piece as well.
	f("gemini", "gemini-2.5-flash-image", openai.Usage{Output: 1290, ImageOutput: 1290, Images: 1}, 1290*30_000)
	f("gemini", "imagen-3.0-fast-generate-001", openai.Usage{Images: 3}, 3*20*million)
	f("gemini", "lyria-3.5", openai.Usage{Output: 5, Images: 2}, 2*80*million)
	f("gemini", "lyria-3.5", openai.Usage{}, 0)
	f("openai", "tts-1", openai.Usage{Characters: 1000}, 15*million)
	f("openai", "whisper-1", openai.Usage{Seconds: 10}, million)
	f("xai", "grok-4.20", openai.Usage{Input: 1, Searches: 1, Tools: 2}, 1250+25*million+2*5*million)
	f("perplexity", "sonar", openai.Usage{Input: 1, SearchContext: openai.SearchMedium}, 1000+8*million)
	f("perplexity", "sonar", openai.Usage{}, 0)
	f("anthropic", "claude-opus-5", openai.Usage{Input: 1, Searches: -3, Tools: -3, Images: -1, Seconds: -1, Characters: -1}, 5000)
}

// For every row: more tokens never cost less, and no cost is below 0. A longer
// input may only cross a threshold upward.
func TestCostOfEveryRow(t *testing.T) {
	for key, p := range load(t).rows {
		for _, tier := range []string{"", "flex", "priority", "batch"} {
			last := int64(0)
			for _, n := range []int64{0, 1, 999, 100_000, 100_001, 128_001, 200_001, 272_001, 1 << 40} {
				u := openai.Usage{Input: n, CachedInput: n / 3, CacheWrite: n / 5, CacheWrite1h: n / 6, AudioInput: n / 7, ImageInput: n / 9,
					Output: n, Reasoning: n / 2, AudioOutput: n / 4, ImageOutput: n / 8}
				got := Cost(p, u, tier)
				if got < last {
					t.Errorf("%v tier %q: %d tokens cost %d, fewer cost %d", key, tier, n, got, last)
				}
				last = got
			}
		}
	}
}

func BenchmarkCost(b *testing.B) {
	p, _ := load(b).Lookup("gemini", "gemini-2.5-pro")
	u := openai.Usage{Input: 500_000, CachedInput: 1000, Output: 100, Reasoning: 50}
	b.ReportAllocs()
	for b.Loop() {
		Cost(p, u, "priority")
	}
}
