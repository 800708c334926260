package provider

import (
	"testing"

	"bulkhead/openai"
)

func TestVendorUsage(t *testing.T) {
	f := func(kind string, u openai.Usage, output, reasoning int64) {
		t.Helper()
		got := Builtin()[kind].Usage(u)
		want := u
		want.Output, want.Reasoning = output, reasoning
		if got != want {
			t.Errorf("%s %+v: got %+v", kind, u, got)
		}
	}
	use := func(in, out, reasoning, total int64) openai.Usage {
		return openai.Usage{Input: in, Output: out, Reasoning: reasoning, Total: total}
	}
	// Inside, as OpenAI has it.
	f("openai", use(10, 100, 60, 110), 100, 60)
	f("openai", use(10, 100, 0, 999), 100, 0)
	f("deepseek", use(10, 100, 60, 0), 100, 60)
	f("custom", use(10, 100, 60, 0), 100, 60)
	// The total tells that it is not, whoever says it; so does more of it than there is.
	f("custom", use(10, 100, 60, 170), 160, 60)
	f("openrouter", use(10, 100, 300, 0), 400, 300)
	// xAI: beside, unless the total says otherwise.
	f("xai", use(10120, 1499, 2809, 14428), 4308, 2809)
	f("xai", use(10, 1, 386, 0), 387, 386)
	f("xai", use(10, 400, 300, 410), 400, 300)
	f("xai", use(10, 400, 300, 999), 700, 300)
	f("xai", use(10, 400, 0, 410), 400, 0)
	// Gemini: in the total only.
	f("gemini", use(5, 9, 0, 815), 810, 801)
	f("gemini", use(21, 0, 60, 81), 60, 60)
	f("gemini", use(20, 603, 405, 623), 603, 405)
	f("gemini", use(20, 603, 0, 0), 603, 0)
	// Perplexity: beside all.
	f("perplexity", use(33, 7163, 78298, 7196), 85461, 78298)
	f("perplexity", use(33, 7163, 10, 7196), 7173, 10)
}

func TestUsages(t *testing.T) {
	type said struct {
		in, out  int64
		has, bad bool
	}
	f := func(kind string, want Usages, all ...said) {
		t.Helper()
		var g Usages
		for _, s := range all {
			g.Add(Builtin()[kind], openai.Usage{Input: s.in, Output: s.out}, s.has, s.bad)
		}
		if g != want {
			t.Errorf("%s %+v: got %+v", kind, all, g)
		}
	}
	use := func(in, out int64) openai.Usage { return openai.Usage{Input: in, Output: out} }
	none := said{}
	f("openai", Usages{}, none, none)
	f("openai", Usages{Usage: use(10, 5), Has: true}, none, said{in: 10, out: 5, has: true}, none)
	// The same again is nothing new; another one is, and the last counts.
	f("openai", Usages{Usage: use(10, 5), Has: true}, said{10, 5, true, false}, said{10, 5, true, false})
	f("openai", Usages{Usage: use(10, 8), Has: true, Twice: true}, said{10, 5, true, false}, said{10, 8, true, false})
	// It does not get less.
	f("openai", Usages{Usage: use(10, 5), Has: true, Twice: true}, said{10, 5, true, false}, said{0, 0, true, false})
	f("openai", Usages{Usage: use(10, 5), Has: true, Twice: true}, said{0, 0, true, false}, said{10, 5, true, false})
	// A running count is said again and again.
	f("xai", Usages{Usage: use(10, 9), Has: true}, said{10, 1, true, false}, said{10, 5, true, false}, said{10, 9, true, false})
	f("xai", Usages{Usage: use(10, 9), Has: true, Twice: true}, said{10, 9, true, false}, said{10, 5, true, false})
	// What is no count is remembered.
	f("openai", Usages{Usage: use(10, 5), Has: true, Bad: true}, said{bad: true}, said{10, 5, true, false})
}

func TestAnthropicUsage(t *testing.T) {
	f := func(raw string, want openai.Usage, tier string, said openai.Said) {
		t.Helper()
		got, gotTier, gotSaid, err := AnthropicUsage([]byte(raw))
		if err != nil || got != want || gotTier != tier || gotSaid != said {
			t.Errorf("%s\n got %+v %q %+v %v\nwant %+v %q %+v", raw, got, gotTier, gotSaid, err, want, tier, said)
		}
	}
	both := openai.Said{Input: true, Output: true}
	f(`{"input_tokens":50,"cache_creation_input_tokens":30,"cache_read_input_tokens":1000,"output_tokens":7,
		"cache_creation":{"ephemeral_5m_input_tokens":10,"ephemeral_1h_input_tokens":20},"output_tokens_details":{"thinking_tokens":3},"service_tier":"standard"}`,
		openai.Usage{Input: 1080, CachedInput: 1000, CacheWrite: 30, CacheWrite1h: 20, Output: 7, Reasoning: 3, Total: 1087}, "standard", both)
	f(`{"output_tokens":7}`, openai.Usage{Output: 7, Total: 7}, "", openai.Said{Output: true}) // of a message_delta
	f(`{"input_tokens":1,"output_tokens":1,"service_tier":"batch","speed":null}`, openai.Usage{Input: 1, Output: 1, Total: 2}, "batch", both)
	f(`{"input_tokens":1,"output_tokens":1,"service_tier":"standard","speed":"fast"}`, openai.Usage{Input: 1, Output: 1, Total: 2}, "fast", both)
	f(`{"input_tokens":1,"output_tokens":1,"speed":"standard","inference_geo":"us"}`, openai.Usage{Input: 1, Output: 1, Total: 2}, "us", both)
	f(`{"input_tokens":1,"output_tokens":1,"inference_geo":"global","service_tier":7}`, openai.Usage{Input: 1, Output: 1, Total: 2}, "", both)
	// More for an hour than in all.
	f(`{"input_tokens":1,"output_tokens":1,"cache_creation_input_tokens":2,"cache_creation":{"ephemeral_1h_input_tokens":5}}`,
		openai.Usage{Input: 6, CacheWrite: 5, CacheWrite1h: 5, Output: 1, Total: 7}, "", both)
	f(`{"input_tokens":-1,"output_tokens":"x","output_tokens_details":{"thinking_tokens":1.5}}`, openai.Usage{}, "", openai.Said{Bad: true})
	f(`{"input_tokens":1,"output_tokens_details":null}`, openai.Usage{Input: 1, Total: 1}, "", openai.Said{Input: true})
	for _, raw := range []string{``, `null`, `[]`, `{"input_tokens":1`} {
		if _, _, _, err := AnthropicUsage([]byte(raw)); err == nil {
			t.Errorf("%q has no error", raw)
		}
	}
}

func TestGeminiUsage(t *testing.T) {
	f := func(raw string, want openai.Usage, tier string, said openai.Said) {
		t.Helper()
		got, gotTier, gotSaid, err := GeminiUsage([]byte(raw))
		if err != nil || got != want || gotTier != tier || gotSaid != said {
			t.Errorf("%s\n got %+v %q %+v %v\nwant %+v %q %+v", raw, got, gotTier, gotSaid, err, want, tier, said)
		}
	}
	both := openai.Said{Input: true, Output: true}
	f(`{"promptTokenCount":100,"candidatesTokenCount":50,"thoughtsTokenCount":30,"cachedContentTokenCount":40,"toolUsePromptTokenCount":20,"totalTokenCount":200,
		"promptTokensDetails":[{"modality":"TEXT","tokenCount":70},{"modality":"AUDIO","tokenCount":20},{"modality":"IMAGE","tokenCount":10}],
		"toolUsePromptTokensDetails":[{"modality":"IMAGE","tokenCount":5}],"candidatesTokensDetails":[{"modality":"AUDIO","tokenCount":8},{"modality":"IMAGE","tokenCount":9}],
		"trafficType":"ON_DEMAND_PRIORITY"}`,
		openai.Usage{Input: 120, CachedInput: 40, AudioInput: 20, ImageInput: 15, Output: 80, Reasoning: 30, AudioOutput: 8, ImageOutput: 9, Total: 200}, "priority", both)
	f(`{"promptTokenCount":20,"candidatesTokenCount":198,"totalTokenCount":623}`, openai.Usage{Input: 20, Output: 603, Reasoning: 405, Total: 623}, "", both)
	// A prompt that was refused; a total below its parts.
	f(`{"promptTokenCount":20,"totalTokenCount":20}`, openai.Usage{Input: 20, Total: 20}, "", openai.Said{Input: true})
	f(`{"promptTokenCount":20,"candidatesTokenCount":5,"totalTokenCount":10,"serviceTier":"flex"}`, openai.Usage{Input: 20, Output: 5, Total: 10}, "flex", both)
	f(`{"totalTokenCount":20}`, openai.Usage{Total: 20}, "", openai.Said{})
	f(`{"promptTokenCount":-3,"candidatesTokenCount":null,"trafficType":3}`, openai.Usage{}, "", openai.Said{})
	f(`{"promptTokenCount":1.5,"candidatesTokenCount":"4","thoughtsTokenCount":1e3}`, openai.Usage{}, "", openai.Said{Bad: true})
	f(`{"promptTokenCount":1,"promptTokensDetails":[{"modality":"AUDIO","tokenCount":1099511627777}]}`, openai.Usage{Input: 1}, "", openai.Said{Input: true, Bad: true})
	f(`{"promptTokenCount":1,"promptTokensDetails":{}}`, openai.Usage{Input: 1}, "", openai.Said{Input: true, Bad: true})
	for _, raw := range []string{``, `[]`, `{"promptTokenCount":1`} {
		if _, _, _, err := GeminiUsage([]byte(raw)); err == nil {
			t.Errorf("%q has no error", raw)
		}
	}
}

// FuzzNativeUsage checks that what a vendor sends gives counts that are counts.
func FuzzNativeUsage(f *testing.F) {
	f.Add([]byte(`{"input_tokens":50,"cache_creation":{"ephemeral_1h_input_tokens":20},"service_tier":"standard","output_tokens_details":{"thinking_tokens":3}}`))
	f.Add([]byte(`{"promptTokenCount":100,"totalTokenCount":200,"promptTokensDetails":[{"modality":"AUDIO","tokenCount":20}]}`))
	f.Add([]byte(`{"promptTokenCount":1e300,"input_tokens":-9223372036854775808}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		check := func(u openai.Usage, _ string, said openai.Said, err error) {
			if err != nil {
				return
			}
			for _, n := range []int64{u.Input, u.CachedInput, u.CacheWrite, u.CacheWrite1h, u.AudioInput, u.ImageInput,
				u.Output, u.Reasoning, u.AudioOutput, u.ImageOutput, u.Total, u.Searches, u.Tools, u.Seconds} {
				if n < 0 || n > 8*maxCount {
					t.Fatalf("%q: %+v, %+v", raw, u, said)
				}
			}
		}
		check(AnthropicUsage(raw))
		check(GeminiUsage(raw))
		if u, _, err := openai.ParseUsage(raw); err == nil {
			for _, v := range Builtin() {
				if got := v.Usage(u); got.Output < u.Output || got.Input != u.Input {
					t.Fatalf("%s made %+v of %+v", v.Name, got, u)
				}
			}
		}
	})
}
