package ledger_test

import (
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"bulkhead/ledger"
	"bulkhead/openai"
	"bulkhead/provider"
)

// bill is one case of testdata/golden; its files say what the lines mean.
type bill struct {
	name, vendor, model, form, asked, tier, usage, rates, sum, nano, marks, source string
}

func bills(t *testing.T) (all []bill) {
	t.Helper()
	files, err := filepath.Glob("testdata/golden/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no cases", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, block := range strings.Split(string(text), "\n\n")[1:] {
			var b bill
			fields := map[string]*string{
				"form": &b.form, "asked": &b.asked, "tier": &b.tier, "usage": &b.usage, "rates": &b.rates,
				"sum": &b.sum, "nano": &b.nano, "marks": &b.marks, "source": &b.source, "why": new(string),
			}
			for line := range strings.Lines(block) {
				key, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
				switch to := fields[key]; {
				case key == "case":
					b.name = strings.TrimSuffix(filepath.Base(file), ".txt") + ": " + value
				case key == "model":
					b.vendor, b.model, _ = strings.Cut(value, " ")
				case to == nil:
					t.Fatalf("%s: unknown line %q", file, line)
				default:
					*to = value
				}
			}
			all = append(all, b)
		}
	}
	return all
}

// TestGolden takes each usage from the vendor's bytes to the bill.
func TestGolden(t *testing.T) {
	prices, err := ledger.LoadPrices()
	if err != nil {
		t.Fatal(err)
	}
	cases := bills(t)
	if len(cases) < 85 {
		t.Fatalf("%d cases", len(cases))
	}
	of := map[string]int{}
	for _, b := range cases {
		of[b.vendor]++
		t.Run(b.name, func(t *testing.T) { golden(t, prices, &b) })
	}
	for _, vendor := range []string{"openai", "anthropic", "gemini", "azure"} {
		if of[vendor] < 10 {
			t.Errorf("%d cases of %s", of[vendor], vendor)
		}
	}
}

func golden(t *testing.T, prices *ledger.Prices, b *bill) {
	price, ok := prices.Lookup(b.vendor, b.model)
	if !ok {
		t.Fatalf("no row for %q of %q", b.model, b.vendor)
	}
	checkRates(t, price, b.rates)
	if b.source == "" || b.rates == "" {
		t.Error("no source, or no rates")
	}
	pico := sumOf(t, b.sum)
	want := new(big.Int).Div(new(big.Int).Add(pico, big.NewInt(999)), big.NewInt(1000))
	if want.String() != b.nano {
		t.Errorf("the sum is %s pico-USD, which is %s nano-USD and not %s", pico, want, b.nano)
	}

	seen := read(t, b)
	seen.Whole = true
	got := price.Settle(&ledger.Bound{Tier: b.asked}, &seen)
	if strconv.FormatInt(got.CostNano, 10) != b.nano {
		t.Errorf("got %d nano-USD, want %s; usage %+v, tier %q", got.CostNano, b.nano, got.Usage, got.Tier)
	}
	if has := marksOf(got.Marks); has != b.marks {
		t.Errorf("marks are %q, want %q", has, b.marks)
	}
	if got.Rank != ledger.Final {
		t.Errorf("rank %d", got.Rank)
	}
}

// read takes the usage the way a call does.
func read(t *testing.T, b *bill) (s ledger.Seen) {
	t.Helper()
	native := func(u openai.Usage, tier string, said openai.Said, err error) {
		if err != nil {
			t.Fatal(err)
		}
		s.Usage, s.HasUsage, s.BadUsage, s.Tier = u, said.Input || said.Output, said.Bad, tier
	}
	switch b.form {
	case "anthropic":
		native(provider.AnthropicUsage([]byte(b.usage)))
	case "gemini":
		native(provider.GeminiUsage([]byte(b.usage)))
	default:
		e := map[string]openai.Endpoint{"": openai.Chat, "embeddings": openai.Embeddings, "completions": openai.Completions, "moderations": openai.Moderations}[b.form]
		answer, err := openai.ScanAnswer(e, []byte(`{"id":"x","model":"`+b.model+`","usage":`+b.usage+`,"service_tier":"`+b.tier+`"}`))
		if err != nil {
			t.Fatal(err)
		}
		v := provider.Builtin()[b.vendor]
		if v == nil || v.Catalogue != b.vendor {
			t.Fatalf("no vendor %q, or in another catalogue", b.vendor)
		}
		s.Usage, s.HasUsage, s.BadUsage, s.Tier = v.Usage(answer.Usage), answer.HasUsage, answer.BadUsage, answer.ServiceTier
		return s
	}
	if b.tier != "" {
		s.Tier = b.tier // of a batch's answers, which is known to who fetches them
	}
	return s
}

func marksOf(m ledger.Mark) string {
	var names []string
	for _, x := range []struct {
		bit  ledger.Mark
		name string
	}{
		{ledger.NoUsage, "no_usage"}, {ledger.AbsurdUsage, "absurd_usage"}, {ledger.TwoUsages, "two_usages"}, {ledger.Clamped, "clamped"},
		{ledger.Tokenized, "tokenized"}, {ledger.TierAssumed, "tier_assumed"}, {ledger.UnpricedFee, "unpriced_fee"},
	} {
		if m&x.bit != 0 {
			names = append(names, x.name)
		}
	}
	return strings.Join(names, " ")
}

// checkRates checks "flex.input=1000000 >272000.output=30000000 fee.search=…".
func checkRates(t *testing.T, p *ledger.Price, rates string) {
	t.Helper()
	for _, f := range strings.Fields(rates) {
		name, value, _ := strings.Cut(f, "=")
		row, rate, found := strings.Cut(name, ".")
		if !found {
			row, rate = "", name
		}
		got, err := rateOf(p, row, rate)
		if err != nil || strconv.FormatInt(got, 10) != value {
			t.Errorf("the table has %d for %s, not %s (%v)", got, name, value, err)
		}
	}
}

func rateOf(p *ledger.Price, row, rate string) (int64, error) {
	r := p.Rates
	switch tokens, isAbove := strings.CutPrefix(row, ">"); {
	case row == "fee":
		fees := map[string]int64{"call": p.Fees.Call, "call_medium": p.Fees.CallMedium, "call_high": p.Fees.CallHigh,
			"search": p.Fees.Search, "image": p.Fees.Image, "second": p.Fees.Second}
		n, ok := fees[rate]
		if !ok {
			return 0, fmt.Errorf("no fee %q", rate)
		}
		return n, nil
	case isAbove:
		for _, a := range p.Above {
			if strconv.FormatInt(a.Tokens, 10) == tokens {
				r = a.Rates
			}
		}
	case row != "":
		tier, ok := p.Tiers[row]
		if !ok {
			return 0, fmt.Errorf("no tier %q", row)
		}
		r = tier
	}
	all := map[string]int64{"input": r.Input, "cached_input": r.CachedInput, "cache_write": r.CacheWrite, "cache_write_1h": r.CacheWrite1h,
		"audio_input": r.AudioInput, "image_input": r.ImageInput, "output": r.Output, "reasoning": r.Reasoning,
		"audio_output": r.AudioOutput, "image_output": r.ImageOutput}
	n, ok := all[rate]
	if !ok {
		return 0, fmt.Errorf("no rate %q", rate)
	}
	return n, nil
}

// sumOf adds products: "800*2500000 + 200*1250000".
func sumOf(t *testing.T, s string) *big.Int {
	t.Helper()
	sum := new(big.Int)
	for _, product := range strings.Split(s, "+") {
		n := big.NewInt(1)
		for _, factor := range strings.Split(product, "*") {
			f, ok := new(big.Int).SetString(strings.TrimSpace(factor), 10)
			if !ok {
				t.Fatalf("no number: %q", factor)
			}
			n.Mul(n, f)
		}
		sum.Add(sum, n)
	}
	return sum
}
