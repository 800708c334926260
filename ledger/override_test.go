package ledger

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"bulkhead/fault"
	"bulkhead/openai"
)

func overrides(t *testing.T, text string) []Override {
	t.Helper()
	rows, err := ParsePriceRows("prices", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	o, err := Overrides("prices", rows)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func TestWith(t *testing.T) {
	list := load(t)
	operator := list.With(overrides(t, `[
		{"provider":"openai","model":"gpt-4o","usd_per_million_tokens":{"input":"2","output":"8.000001"}},
		{"provider":"openai","model":"gpt-5","usd_per":{"search":"0.01"}},
		{"provider":"own","model":"llama","max_input_tokens":8000,"max_output_tokens":1000,"usd_per_million_tokens":{"input":"0","output":"0"}}]`))
	company := operator.With(overrides(t, `[
		{"provider":"openai","model":"gpt-4o","max_output_tokens":4096,"usd_per_million_tokens":{"input":"1","cached_input":"0.5","cache_write_1h":"2","output":"4"},
			"above_input_tokens":[{"tokens":1000,"usd_per_million_tokens":{"input":"3"}},{"tokens":2000,"usd_per_million_tokens":{"input":"5"}}],
			"service_tier":{"flex":{"input":"0.25"}},"usd_per":{"call":"0.000000000001"}},
		{"provider":"openai","model":"000-new","usd_per_million_tokens":{"input":"1"}}]`))
	f := func(p *Prices, provider, model string, u openai.Usage, tier string, want int64) {
		t.Helper()
		price, ok := p.Lookup(provider, model)
		if !ok {
			t.Fatalf("no %s %s", provider, model)
		}
		if got := Cost(price, u, tier); got != want {
			t.Errorf("%s %s: got %d, want %d", provider, model, got, want)
		}
	}
	u := openai.Usage{Input: 1000, CachedInput: 500, Output: 1000}
	f(list, "openai", "gpt-4o", u, "", 500*2500+500*1250+1000*10_000)
	f(operator, "openai", "gpt-4o", u, "", 1000*2000+8_000_001) // it says no cached rate: plain
	f(operator, "openai", "gpt-4o", u, "priority", 1000*2000+8_000_001)
	f(company, "openai", "gpt-4o", u, "", 500*1000+500*500+1000*4000+1) // and a pico-USD for the call, rounded up
	f(company, "openai", "gpt-4o", openai.Usage{Input: 1001}, "", 1001*3000+1)
	f(company, "openai", "gpt-4o", openai.Usage{Input: 2001}, "", 2001*5000+1)
	f(company, "openai", "gpt-4o", openai.Usage{Input: 1000}, "flex", 1000*250+1)
	f(company, "openai", "gpt-4o", openai.Usage{Input: 100, CacheWrite: 100, CacheWrite1h: 100}, "", 100*2000+1)
	// What a row does not say stays; what no row says is the list's.
	f(operator, "openai", "gpt-5", openai.Usage{Input: 10, Searches: 2}, "", 10*1250+2*10_000_000)
	f(operator, "openai", "gpt-4.1", openai.Usage{Input: 10}, "", 10*2000)
	f(company, "own", "llama", u, "", 0)
	f(company, "openai", "000-new", u, "", 1000_000)

	sonar := list.With(overrides(t, `[{"provider":"perplexity","model":"sonar","usd_per":{"search":"0.5"}}]`))
	f(sonar, "perplexity", "sonar", openai.Usage{Input: 1, Searches: 1, SearchContext: openai.SearchLow}, "", 1000+5_000_000+500_000_000)

	p, _ := company.Lookup("openai", "gpt-4o")
	if p.MaxOutput != 4096 || p.MaxInput != 128000 || p.Mode != "chat" {
		t.Errorf("%+v", p.Model)
	}
	if old, _ := list.Lookup("openai", "gpt-4o"); old.MaxOutput != 16384 || old.Fees.Call != Absent {
		t.Errorf("the list has changed: %+v", old)
	}
	if list.Has("own", "llama") || !operator.Has("own", "llama") || list.With(nil) != list {
		t.Error("Has, or With of nothing")
	}
	// Names: added in order, and not twice.
	models := company.Models("openai")
	if models[0].Name != "000-new" || len(models) != len(list.Models("openai"))+1 {
		t.Errorf("%d models from %s", len(models), models[0].Name)
	}
	for _, m := range models {
		if m.Name == "gpt-4o" && m.MaxOutput != 4096 {
			t.Errorf("%+v", m)
		}
	}
	if got := strings.Join(company.Providers("gpt-4o"), " "); got != "openai azure" {
		t.Errorf("providers of gpt-4o: %s", got)
	}
	if got := strings.Join(company.Providers("llama"), " "); got != "own" {
		t.Errorf("providers of llama: %s", got)
	}
	if list.Providers("llama") != nil {
		t.Error("the list has changed")
	}
}

func TestFind(t *testing.T) {
	p := load(t).With(overrides(t, `[{"provider":"openai-eu","model":"gpt-4o","usd_per_million_tokens":{"input":"9","output":"9"}},
		{"provider":"vllm","model":"m","usd_per_million_tokens":{"input":"7"}}]`))
	f := func(provider, catalogue, model string, input int64) {
		t.Helper()
		price, ok := p.Find(provider, catalogue, model)
		if ok != (input >= 0) || ok && price.Rates.Input != input {
			t.Errorf("%s %s %s: %+v", provider, catalogue, model, price)
		}
	}
	f("openai", "openai", "gpt-4o", 2_500_000)
	f("openai-eu", "openai", "gpt-4o", 9_000_000)
	f("openai-eu", "openai", "gpt-4.1", 2_000_000)
	f("vllm", "", "m", 7_000_000)
	f("vllm", "", "gpt-4o", -1)
	f("other", "", "gpt-4o", -1)
}

// Each mistake is named by its place.
func TestOverrideRefuses(t *testing.T) {
	f := func(text, param string) {
		t.Helper()
		rows, err := ParsePriceRows("prices", []byte(text))
		if err == nil {
			_, err = Overrides("prices", rows)
		}
		if param == "" {
			if err != nil {
				t.Errorf("%s: %v", text, err)
			}
			return
		}
		if e := fault.As(err); err == nil || e.Kind != fault.Invalid || e.Param != param {
			t.Errorf("%s: %+v, want %s", text, e, param)
		}
	}
	row := func(rest string) string { return `[{"provider":"p","model":"m"` + rest + `}]` }
	price := func(rest string) string { return row(`,"usd_per_million_tokens":{"input":"1"}` + rest) }
	f(`[]`, "")
	f(price(``), "")
	f(row(`,"usd_per":{"call":"1"}`), "")
	f(row(`,"usd_per_million_tokens":{"output":"0"}`), "")
	f(price(`,"service_tier":{"flex":{}}`), "")

	f(``, "prices")
	f(`{}`, "prices")
	f(`[] []`, "prices")
	f(`[`, "prices")
	f(`[1]`, "prices[0]")
	f(`[null]`, "prices[0]")
	f(price(``)+`x`, "prices")
	f(`[{"provider":"p"}]`, "prices[0].model")
	f(`[{"provider":"p p","model":"m"}]`, "prices[0].provider")
	f(`[{"provider":"p","model":"`+strings.Repeat("m", 300)+`"}]`, "prices[0].model")
	f(row(``), "prices[0].usd_per_million_tokens")
	f(row(`,"model":"n"`), "prices[0].model")
	f(row(`,"Model":"n"`), "prices[0].Model")
	f(row(`,"mode":"chat"`), "prices[0].mode")
	f(row(`,"max_input_tokens":-1`), "prices[0].max_input_tokens")
	f(row(`,"max_input_tokens":1.5`), "prices[0].max_input_tokens")
	f(row(`,"max_output_tokens":"5"`), "prices[0].max_output_tokens")
	f(row(`,"usd_per_million_tokens":[]`), "prices[0].usd_per_million_tokens")
	f(row(`,"usd_per_million_tokens":{"cached_input":"1"}`), "prices[0].usd_per_million_tokens")
	f(price(`,"above_input_tokens":{}`), "prices[0].above_input_tokens")
	f(price(`,"above_input_tokens":[{"tokens":0}]`), "prices[0].above_input_tokens[0].tokens")
	f(price(`,"above_input_tokens":[{"tokens":9},{"tokens":9}]`), "prices[0].above_input_tokens[1].tokens")
	f(price(`,"above_input_tokens":[{"token":9}]`), "prices[0].above_input_tokens[0].token")
	f(price(`,"above_input_tokens":[{"tokens":9,"usd_per_million_tokens":{"input":"-1"}}]`), "prices[0].above_input_tokens[0].usd_per_million_tokens.input")
	f(price(`,"service_tier":{"flex":{"inputs":"1"}}`), "prices[0].service_tier.flex.inputs")
	f(price(`,"service_tier":{"default":{"input":"1"}}`), "prices[0].service_tier")
	f(price(`,"service_tier":{"":{"input":"1"}}`), "prices[0].service_tier")
	f(row(`,"service_tier":{"flex":{"input":"1"}}`), "prices[0].usd_per_million_tokens")
	f(row(`,"usd_per":{"searches":"1"}`), "prices[0].usd_per.searches")
	f(row(`,"usd_per":{"search":"1001"}`), "prices[0].usd_per.search")
	f(row(`,"usd_per":{"search":"0.0000000000001"}`), "prices[0].usd_per.search")
	f(`[{"provider":"p","model":"m","usd_per":{"call":"1"}},{"provider":"p","model":"m","usd_per":{"call":"1"}}]`, "prices[1].model")
	f(`[`+strings.Repeat(`{"provider":"p","model":"m","usd_per":{"call":"1"}},`, MaxPriceRows)+`{}]`, "prices")

	amount := func(s string, ok bool) {
		t.Helper()
		param := "prices[0].usd_per_million_tokens.input"
		if ok {
			param = ""
		}
		b, _ := json.Marshal(s)
		f(row(`,"usd_per_million_tokens":{"input":`+string(b)+`}`), param)
	}
	for _, s := range []string{"0", "1", "2.50", "0.000001", "1.0000000", "1000000", "007"} {
		amount(s, true)
	}
	for _, s := range []string{"", ".", "1.", ".5", "-1", "+1", "1e3", "1,5", " 1", "0x1", "1_0", "0.0000001", "1000000.000001", "99999999999999999999", "NaN", "١"} {
		amount(s, false)
	}
	f(row(`,"usd_per_million_tokens":{"input":2.5}`), "prices[0].usd_per_million_tokens.input")
	f(row(`,"usd_per_million_tokens":{"input":null}`), "prices[0].usd_per_million_tokens.input")
	f(row(`,"usd_per_million_tokens":{"input":"1","input":"2"}`), "prices[0].usd_per_million_tokens.input")
}

// A price written as a row and read again is the same price.
func TestPriceRow(t *testing.T) {
	prices := load(t)
	n := 0
	for _, key := range sortedKeys(prices)[:400] {
		p := prices.rows[key]
		if !p.Priced() || strings.ContainsAny(p.Name, " ") {
			continue
		}
		n++
		text, err := json.Marshal([]PriceRow{p.Row()})
		if err != nil {
			t.Fatal(err)
		}
		again, _ := (&Prices{}).With(overrides(t, string(text))).Lookup(key.catalogue, key.model)
		if !reflect.DeepEqual(again.Rates, p.Rates) || !reflect.DeepEqual(again.Above, p.Above) || !reflect.DeepEqual(again.Tiers, p.Tiers) || again.Fees != p.Fees {
			t.Errorf("%s\n got %+v\nwant %+v", text, again, p)
		}
	}
	if n < 300 {
		t.Errorf("%d rows", n)
	}
}

func TestFormatDecimal(t *testing.T) {
	f := func(n int64, fine int, want string) {
		t.Helper()
		got := formatDecimal(n, fine)
		back, ok := parseDecimal(got, fine)
		if got != want || !ok || back != n {
			t.Errorf("%d: %s, and back %d", n, got, back)
		}
	}
	f(0, 6, "0")
	f(1, 6, "0.000001")
	f(2_500_000, 6, "2.5")
	f(10_000_000, 6, "10")
	f(1, 12, "0.000000000001")
	f(maxFee, 12, "1000")
}

func FuzzParsePriceRows(f *testing.F) {
	f.Add([]byte(`[{"provider":"p","model":"m","max_input_tokens":1,"usd_per_million_tokens":{"input":"1"},"above_input_tokens":[{"tokens":5,"usd_per_million_tokens":{}}],"service_tier":{"flex":{"output":"2"}},"usd_per":{"call":"3"}}]`))
	f.Add([]byte(`[{"provider":"p","model":"m","usd_per":{"call":"0.5","call":"1"}}]`))
	f.Fuzz(func(t *testing.T, text []byte) {
		rows, err := ParsePriceRows("p", text)
		if err != nil {
			if !fault.Is(err, fault.Invalid) {
				t.Fatalf("%v", err)
			}
			return
		}
		o, err := Overrides("p", rows)
		if err != nil {
			return
		}
		p := (&Prices{}).With(o)
		for i := range o {
			price, ok := p.Lookup(o[i].Provider(), o[i].Model())
			if !ok {
				t.Fatalf("%q: no row", text)
			}
			if n := price.Dearest(&Bound{Input: 100, Output: 100, Answers: 1}); n < 0 {
				t.Fatalf("%q: %d", text, n)
			}
		}
		back, err := json.Marshal(rows)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParsePriceRows("p", back); err != nil {
			t.Fatalf("%q became %q: %v", text, back, err)
		}
	})
}
