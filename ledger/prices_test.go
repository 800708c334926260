package ledger

import (
	"slices"
	"strings"
	"testing"
)

func load(t testing.TB) *Prices {
	t.Helper()
	p, err := LoadPrices()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestLookup(t *testing.T) {
	p := load(t)
	if len(p.rows) < 2000 {
		t.Errorf("%d rows", len(p.rows))
	}
	f := func(catalogue, model string, found bool, input, output int64) {
		t.Helper()
		row, ok := p.Lookup(catalogue, model)
		if ok != found {
			t.Fatalf("%s %s: found %t", catalogue, model, ok)
		}
		if ok && (row.Catalogue != catalogue || row.Name != model || row.Rates.Input != input || row.Rates.Output != output) {
			t.Errorf("%s %s: %+v", catalogue, model, row)
		}
	}
	f("openai", "gpt-4o", true, 2_500_000, 10_000_000)
	f("sandbox", "echo", true, 1_000_000, 2_000_000)
	f("sandbox", "slow", true, 1_000_000, 2_000_000)
	// The catalogue is part of the name, and names are exact.
	f("groq", "gpt-4o", false, 0, 0)
	f("openai", "GPT-4o", false, 0, 0)
	f("openai", "", false, 0, 0)
	f("", "gpt-4o", false, 0, 0)
}

func TestProviders(t *testing.T) {
	p := load(t)
	f := func(model string, want ...string) {
		t.Helper()
		if got := p.Providers(model); !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", model, got, want)
		}
	}
	// Makers come before hosts.
	f("gpt-4o", "openai", "azure")
	f("claude-haiku-4-5", "anthropic", "vertex")
	f("gemini-2.5-pro", "gemini", "vertex")
	f("deepseek-v4-flash", "deepseek", "dashscope", "fireworks")
	f("glm-5.2", "zai", "dashscope", "perplexity")
	f("openai/gpt-oss-120b", "groq", "together", "nebius", "deepinfra")
	f("echo", "sandbox")
	f("no-such-model")
}

func TestModels(t *testing.T) {
	p := load(t)
	models := p.Models("openai")
	if len(models) < 100 || !slices.IsSortedFunc(models, func(a, b Model) int { return strings.Compare(a.Name, b.Name) }) {
		t.Errorf("%d models, or not in order", len(models))
	}
	if got := p.Models("sandbox"); len(got) != 2 || got[0] != (Model{Name: "echo", Mode: "chat", MaxInput: 131072, MaxOutput: 16384}) {
		t.Errorf("sandbox: %+v", got)
	}
	if got := p.Models("nobody"); got != nil {
		t.Errorf("nobody: %+v", got)
	}
	// Every catalogue has its place among makers and hosts.
	for name := range p.models {
		if rank(name) == len(makersFirst) && name != "sandbox" {
			t.Errorf("catalogue %q is not in makersFirst", name)
		}
	}
}

func TestPriced(t *testing.T) {
	var none *Price
	if none.Priced() {
		t.Error("nil is priced")
	}
	p := load(t)
	perSecond, _ := p.Lookup("openai", "whisper-1")
	if perSecond == nil || !perSecond.Priced() || perSecond.Fees.Second <= 0 || perSecond.Fees.Image != Absent {
		t.Errorf("whisper-1: %+v", perSecond)
	}
	// By the second, and a chat has none: nothing to hold a budget by.
	if err := perSecond.Check(&Bound{Input: 10, Output: 10, Answers: 1}); err == nil {
		t.Error("a chat with whisper-1 has a price")
	}
	if err := perSecond.Check(&Bound{Seconds: 10}); err != nil {
		t.Error(err)
	}
	if got := perSecond.Dearest(&Bound{Seconds: 10}); got != 1_000_000 {
		t.Errorf("10 s of whisper-1 are held at %d", got)
	}
}

// A table with a mistake is no table: a build with one does not start.
func TestParsePricesRefuses(t *testing.T) {
	f := func(rows, want string) {
		t.Helper()
		_, err := parsePrices([]byte(rows))
		switch {
		case want == "" && err != nil:
			t.Errorf("%s: %s", rows, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%s: got %v, want %q", rows, err, want)
		}
	}
	row := func(rest string) string { return `[{"provider":"p","model":"m","mode":"chat"` + rest + `}]` }
	f(row(``), "")
	f(row(`,"pico_usd_per_token":{"input":5}`), "")
	f(row(`,"pico_usd_per_tokens":{"input":5}`), "unknown field")
	f(row(`,"pico_usd_per_token":{"inputs":5}`), "unknown field")
	f(row(`,"service_tier":{"flex":{"inputs":5}}`), "unknown field")
	f(row(`,"above_input_tokens":[{"token":5}]`), "unknown field")
	f(row(`,"pico_usd_per_token":{"input":0.5}`), "number 0.5")
	f(row(`,"pico_usd_per_token":{"input":1e3}`), "number 1e3")
	f(row(`,"pico_usd_per_token":{"input":"5"}`), "string")
	f(row(`,"pico_usd_per_token":{"input":-1}`), "below 0")
	f(row(`,"pico_usd_per_token":{"cache_write_1h":-1}`), "below 0")
	f(row(`,"pico_usd_per_token":{"input":1000000000001}`), "above")
	f(row(`,"pico_usd_per_second":-1`), "below 0")
	f(row(`,"max_input_tokens":-1`), "below 0")
	f(row(`,"deprecated":"soon"`), "no date")
	f(row(`,"above_input_tokens":[{"tokens":0,"pico_usd_per_token":{}}]`), "ascend")
	f(row(`,"above_input_tokens":[{"tokens":9,"pico_usd_per_token":{}},{"tokens":9,"pico_usd_per_token":{}}]`), "ascend")
	f(`[{"provider":"p","model":"m"}]`, "missing")
	f(`[{"provider":"p","model":"m","mode":"chat"},{"provider":"p","model":"m","mode":"chat"}]`, "another row")
	f(`[] []`, "behind its end")
	f(`[`, "unexpected EOF")
}

// A fee without its model, or without its source, is no table either.
func TestFeesRefuse(t *testing.T) {
	f := func(rows, want string) {
		t.Helper()
		p, err := parsePrices([]byte(`[{"provider":"p","model":"m1","mode":"chat"},{"provider":"p","model":"m2","mode":"chat"},{"provider":"q","model":"m1","mode":"chat"}]`))
		if err != nil {
			t.Fatal(err)
		}
		err = p.addFees([]byte(rows))
		switch {
		case want == "" && err != nil:
			t.Errorf("%s: %s", rows, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%s: got %v, want %q", rows, err, want)
		case want == "":
			m1, _ := p.Lookup("p", "m1")
			m2, _ := p.Lookup("p", "m2")
			q, _ := p.Lookup("q", "m1")
			if m1.Fees.Search != 5 || m2.Fees.Search != 7 || m2.LeastSearches != 1 || q.Fees.Search != Absent {
				t.Errorf("%+v %+v %+v", m1, m2, q)
			}
		}
	}
	f(`[{"provider":"p","models":["*"],"pico_usd_per":{"search":5},"source":"s"},{"provider":"p","models":["m2"],"pico_usd_per":{"search":7},"least":{"search":1},"source":"s"}]`, "")
	f(`[{"provider":"p","models":["m1"],"pico_usd_per":{"search":5}}]`, "no source")
	f(`[{"provider":"p","models":["m3"],"pico_usd_per":{"search":5},"source":"s"}]`, "no such model")
	f(`[{"provider":"p","models":["x*"],"source":"s"}]`, "no such model")
	f(`[{"provider":"p","models":["m1"],"pico_usd_per":{"search":-5},"source":"s"}]`, "below 0")
	f(`[{"provider":"p","models":["m1"],"pico_usd_per":{"serch":5},"source":"s"}]`, "unknown field")
	f(`[{"provider":"p","models":["m1"],"least":{"search":-1},"source":"s"}]`, "below 0")
}

// A slip in the table is money: rates that stand in no usual proportion to one
// another are looked at, and either put right or listed here.
func TestPlausible(t *testing.T) {
	odd := map[string]bool{}
	check := func(p *Price, what string, n, standard, least, most int64) { // in hundredths
		if n == Absent || standard <= 0 || n == 0 {
			return
		}
		if r := n * 100 / standard; r < least || r > most {
			odd[p.Catalogue+" "+p.Name+" "+what] = true
		}
	}
	for _, p := range load(t).rows {
		r := &p.Rates
		check(p, "cached_input", r.CachedInput, r.Input, 1, 100)
		check(p, "cache_write", r.CacheWrite, r.Input, 100, 200)
		check(p, "cache_write_1h", r.CacheWrite1h, r.Input, 100, 250)
		if p.Mode == "chat" {
			check(p, "output", r.Output, r.Input, 20, 3000)
		}
		for tier, t := range p.Tiers {
			most := int64(400)
			if cheapTier(tier) {
				most = 100
			}
			check(p, tier+" input", t.Input, r.Input, 20, most)
			check(p, tier+" output", t.Output, r.Output, 20, most)
		}
		for i := range p.Above {
			check(p, "above input", p.Above[i].Rates.Input, r.Input, 100, 500)
			check(p, "above output", p.Above[i].Rates.Output, r.Output, 100, 500)
		}
	}
	for _, known := range []string{
		// The rate of cached input stands in the place of cache writes. Rule 2 of
		// Cost: writing does not make input cheaper.
		"azure eu/gpt-4o cache_write", "azure eu/gpt-4o-2024-11-20 cache_write", "azure us/gpt-4o cache_write",
		"azure us/gpt-4o-2024-11-20 cache_write", "openai ft:gpt-4o-2024-11-20 cache_write",
	} {
		if !odd[known] {
			t.Errorf("%s is plausible now", known)
		}
		delete(odd, known)
	}
	for what := range odd {
		t.Errorf("%s is not plausible", what)
	}
}

func BenchmarkLoadPrices(b *testing.B) {
	for b.Loop() {
		load(b)
	}
}
