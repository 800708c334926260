package provider

import (
	"math"
	"strconv"
	"strings"
	"testing"

	"bulkhead/fault"
	"bulkhead/openai"
)

func bound(t *testing.T, kind string, r *openai.Request, rules BoundRules) Bound {
	t.Helper()
	b, err := Builtin()[kind].Bound(r, rules)
	if err != nil {
		t.Fatalf("%s: %v", r.Body, err)
	}
	return b
}

func TestBoundInput(t *testing.T) {
	strict := BoundRules{Strict: true, Model: "m", MaxInput: 100_000, MaxOutput: 8192}
	f := func(kind string, r *openai.Request, rules BoundRules, input, audio, images int64) {
		t.Helper()
		b := bound(t, kind, r, rules)
		if b.Input != input || b.HardInput != input || b.AudioInput != audio || b.ImageInput != images {
			t.Errorf("%s at %s: %+v, want %d, %d, %d", r.Body, kind, b, input, audio, images)
		}
	}
	const frame = tokensPerRequest + tokensPerMessage
	// Five bytes of text; twice that where nothing is known of the tokenizer.
	f("openai", chatOf(t, ``), strict, frame+5, 0, 0)
	f("mistral", chatOf(t, ``), strict, frame+5, 0, 0)
	f("gemini", chatOf(t, ``), strict, frame+5, 0, 0)
	f("anthropic", chatOf(t, ``), strict, frame+10, 0, 0)
	f("custom", chatOf(t, ``), strict, frame+10, 0, 0)
	// Escapes are what they mean: é is two bytes.
	f("openai", scanned(t, openai.Chat, `{"model":"m","messages":[{"role":"user","content":"\u00e9"}]}`), strict, frame+2, 0, 0)
	// What the gateway adds.
	injected := strict
	injected.Injected = 1000
	f("openai", chatOf(t, ``), injected, frame+1005, 0, 0)
	f("anthropic", chatOf(t, ``), injected, frame+2010, 0, 0)
	injected.Injected = -5
	f("openai", chatOf(t, ``), injected, frame+5, 0, 0)
	// Tools count as they stand, with what vendors write around them.
	const tools = `[{"type":"function","function":{"name":"f"}}]`
	f("openai", chatOf(t, `,"tools":`+tools), strict, frame+5+int64(len(tools))+commonToolPrompt+tokensPerTool, 0, 0)
	f("anthropic", chatOf(t, `,"tools":`+tools), strict, frame+10+2*int64(len(tools))+1024+tokensPerTool, 0, 0)
	f("openai", chatOf(t, `,"functions":[]`), strict, frame+5+2+commonToolPrompt+tokensPerTool, 0, 0)
	// Inputs given as tokens.
	f("openai", scanned(t, openai.Embeddings, `{"model":"m","input":[[1,2],[3]]}`), strict, tokensPerRequest+3, 0, 0)

	// Images by the model's family and detail, else the worst there is, else all
	// that the model takes.
	image := func(images string) *openai.Request {
		return scanned(t, openai.Chat, `{"model":"m","messages":[{"role":"user","content":[`+images+`]}]}`)
	}
	const low, high = `{"type":"image_url","image_url":{"url":"u","detail":"low"}}`, `{"type":"image_url","image_url":{"url":"u"}}`
	rules := func(model string) BoundRules { r := strict; r.Model = model; return r }
	f("openai", image(low), rules("gpt-4o"), frame+85, 0, 85)
	f("openai", image(high), rules("gpt-4o-2024-08-06"), frame+85+8*170, 0, 85+8*170)
	f("openai", image(high+","+low+","+high), rules("gpt-4o"), frame+3*85+16*170, 0, 3*85+16*170)
	f("openai", image(low), rules("gpt-4o-mini"), frame+2833, 0, 2833)
	f("openai", image(high), rules("gpt-4o-mini"), frame+2833+8*5667, 0, 2833+8*5667)
	f("openai", image(low), rules("gpt-4.1-nano"), frame+3779, 0, 3779)
	f("openai", image(high), rules("gpt-5.4"), frame+anyImage, 0, anyImage)
	f("openai", image(low), rules("gpt-4o-new"), frame+anyLowImage, 0, anyLowImage)
	f("azure", image(high), rules("o3"), frame+75+8*150, 0, 75+8*150)
	f("anthropic", image(high), strict, frame+4784, 0, 4784)
	f("xai", image(high+","+high), strict, frame+2*1792, 0, 2*1792)
	f("gemini", image(high), strict, frame+100_000, 0, 100_000)
	f("openai", image(high+","+high+","+high), rules("gpt-4o-mini"), frame+100_000, 0, 100_000) // no more than it takes

	// Audio by its size, files by what the model takes.
	const audio = `{"data":"QUJD","format":"wav"}`
	f("openai", image(`{"type":"input_audio","input_audio":`+audio+`}`), strict, frame+int64(len(audio)), int64(len(audio)), 0)
	f("openai", image(`{"type":"file","file":{"file_data":"QQ=="}}`), strict, frame+100_000, 0, 0)
	// An answer in audio that is named by its id, which is counted as text as well.
	f("openai", scanned(t, openai.Chat, `{"model":"m","messages":[{"role":"assistant","audio":{"id":"a"}}]}`), strict, frame+int64(len(`{"id":"a"}`))+100_000, 100_000, 0)
}

// Strict mode refuses what has no bound; the other takes it as it is.
func TestBoundRefuses(t *testing.T) {
	f := func(kind string, r *openai.Request, rules BoundRules, param string) {
		t.Helper()
		v := Builtin()[kind]
		rules.Strict = true
		_, err := v.Bound(r, rules)
		switch {
		case param == "" && err != nil:
			t.Errorf("%s: %v", r.Body, err)
		case param != "":
			if e := fault.As(err); err == nil || e.Kind != fault.Invalid || e.Code != CodeNotPriced || e.Param != param {
				t.Errorf("%s: %+v, want %s", r.Body, e, param)
			}
		}
		rules.Strict = false
		b, err := v.Bound(r, rules)
		if err != nil || param != "" && b.HardInput != 0 && !b.Fixed {
			t.Errorf("not strict: %s: %+v, %v", r.Body, b, err)
		}
	}
	file := scanned(t, openai.Chat, `{"model":"m","messages":[{"role":"user","content":[{"type":"file","file":{"file_data":"QQ=="}}]}]}`)
	image := scanned(t, openai.Chat, `{"model":"m","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"u"}}]}]}`)
	prediction := chatOf(t, `,"prediction":{"type":"content","content":"x"}`)
	f("openai", file, BoundRules{MaxInput: 10}, "")
	f("openai", file, BoundRules{}, "messages")
	f("openai", image, BoundRules{}, "")
	f("gemini", image, BoundRules{}, "messages")
	f("openai", prediction, BoundRules{MaxOutput: 10}, "")
	f("openai", prediction, BoundRules{}, "prediction")
	f("openai", chatOf(t, `,"brand_new":1`), BoundRules{}, "brand_new")
	f("openai", chatOf(t, `,"tools":[{"type":"web_search"}]`), BoundRules{}, "tools[0].type")
}

func TestBoundOutput(t *testing.T) {
	f := func(r *openai.Request, rules BoundRules, output, answers int64, fixed bool) {
		t.Helper()
		b := bound(t, "openai", r, rules)
		if b.Output != output || b.Answers != answers || b.Fixed != fixed {
			t.Errorf("%s %+v: %+v", r.Body, rules, b)
		}
	}
	// The client's limit, whatever the model's.
	f(chatOf(t, `,"max_tokens":100`), BoundRules{MaxOutput: 50}, 100, 1, false)
	f(chatOf(t, `,"max_tokens":100,"max_completion_tokens":70`), BoundRules{}, 70, 1, false)
	// Else the default, or the model's if that is less.
	f(chatOf(t, ``), BoundRules{}, DefaultMaxOutput, 1, false)
	f(chatOf(t, ``), BoundRules{MaxOutput: 128_000}, DefaultMaxOutput, 1, false)
	f(chatOf(t, ``), BoundRules{MaxOutput: 4096}, 4096, 1, false)
	f(chatOf(t, ``), BoundRules{MaxOutput: 4096, DefaultOutput: 1000}, 1000, 1, false)
	f(chatOf(t, `,"max_tokens":null`), BoundRules{MaxOutput: 4096}, 4096, 1, false)
	// Times n; completions for each prompt, and best_of instead of n.
	f(chatOf(t, `,"n":3,"max_tokens":5`), BoundRules{}, 5, 3, false)
	f(scanned(t, openai.Completions, `{"model":"m","prompt":["a","b","c"],"n":2,"max_tokens":5}`), BoundRules{}, 5, 6, false)
	f(scanned(t, openai.Completions, `{"model":"m","prompt":["a","b"],"n":2,"best_of":5}`), BoundRules{MaxOutput: 9}, 9, 10, false)
	f(scanned(t, openai.Completions, `{"model":"m"}`), BoundRules{MaxOutput: 9}, 9, 1, false)
	f(scanned(t, openai.Embeddings, `{"model":"m","input":["a","b"]}`), BoundRules{MaxOutput: 9}, 0, 1, false)
	f(scanned(t, openai.Moderations, `{"input":"a"}`), BoundRules{}, 0, 1, false)
	// A prediction cannot be limited but by a limit the client gave.
	const prediction = `,"prediction":{"type":"content","content":"x"}`
	f(chatOf(t, prediction), BoundRules{MaxOutput: 32_000}, 32_000, 1, true)
	f(chatOf(t, prediction), BoundRules{}, DefaultMaxOutput, 1, true)
	f(chatOf(t, prediction+`,"max_tokens":9`), BoundRules{MaxOutput: 32_000}, 9, 1, false)
}

func TestBoundKinds(t *testing.T) {
	strict := BoundRules{Strict: true, MaxInput: 1000}
	f := func(kind string, r *openai.Request, want string) {
		t.Helper()
		b := bound(t, kind, r, strict)
		var got []string
		for _, x := range []struct {
			is   bool
			name string
		}{{b.AudioOutput, "audio"}, {b.CacheWrite, "write"}, {b.CacheWrite1h, "1h"}, {b.AnyTier, "any"}, {b.Tier != "", b.Tier}, {b.Strict, "strict"}} {
			if x.is {
				got = append(got, x.name)
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s at %s: %s, want %s", r.Body, kind, strings.Join(got, " "), want)
		}
	}
	cached := scanned(t, openai.Chat, `{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"a","cache_control":{"type":"ephemeral","ttl":"1h"}}]}]}`)
	f("openai", chatOf(t, ``), "write any strict")
	f("openai", chatOf(t, `,"service_tier":"auto"`), "write any auto strict")
	f("openai", chatOf(t, `,"service_tier":"default"`), "write default strict")
	f("openai", chatOf(t, `,"service_tier":"flex"`), "write flex strict")
	f("openai", chatOf(t, `,"modalities":["text","audio"]`), "audio write any strict")
	f("openai", cached, "write 1h any strict")
	f("groq", chatOf(t, ``), "audio write strict")
	f("anthropic", chatOf(t, ``), "audio strict")
	f("anthropic", cached, "audio write 1h strict")
	f("anthropic", scanned(t, openai.Chat, `{"model":"m","messages":[{"role":"user","content":"x","cache_control":{}}]}`), "audio write 1h strict")
	f("openai", scanned(t, openai.Chat, `{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"a","prompt_cache_breakpoint":{}}]}]}`), "write 1h any strict")

	// Not strict: the likely tier, and one search where the vendor searches.
	b := bound(t, "openai", chatOf(t, `,"web_search_options":{}`), BoundRules{})
	if b.AnyTier || b.Searches != 1 || b.HardInput != 0 {
		t.Errorf("%+v", b)
	}
	if b := bound(t, "perplexity", chatOf(t, `,"web_search_options":{}`), strict); b.Searches != 0 {
		t.Errorf("%+v", b)
	}
}

// The estimate of soft mode is no more than the bound, and less where the text
// is ordinary.
func TestBoundSoft(t *testing.T) {
	text := strings.Repeat("The quick brown fox jumps over the lazy dog. ", 100)
	r := scanned(t, openai.Chat, `{"model":"m","messages":[{"role":"user","content":"`+text+`"}]}`)
	hard := bound(t, "openai", r, BoundRules{Strict: true}).Input
	soft := bound(t, "openai", r, BoundRules{})
	if soft.Input >= hard/2 || soft.Input < 1000 || soft.HardInput != hard || soft.Strict { // it has 1,001 tokens
		t.Errorf("%+v, the bound is %d", soft, hard)
	}
	more := bound(t, "openai", r, BoundRules{Injected: 500})
	if more.Input != soft.Input+250 {
		t.Errorf("%d with 500 bytes more, %d without", more.Input, soft.Input)
	}
	media := scanned(t, openai.Chat, `{"model":"m","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"u"}},{"type":"file","file":{}},
		{"type":"input_audio","input_audio":{"data":"`+strings.Repeat("A", 51_200)+`"}}]}]}`)
	b := bound(t, "gemini", media, BoundRules{MaxInput: 1_000_000})
	if b.ImageInput != likelyImage || b.AudioInput != 101 || b.Input != tokensPerRequest+tokensPerMessage+likelyImage+101+likelyFile {
		t.Errorf("%+v", b)
	}
}

func TestLimitOutput(t *testing.T) {
	f := func(kind, rest string, b Bound, want string) {
		t.Helper()
		form := openai.UpstreamForm{MaxTokensOnly: Builtin()[kind].MaxTokensOnly}
		Builtin()[kind].LimitOutput(&form, &b)
		r := chatOf(t, rest)
		got := string(r.AppendUpstream(nil, form))
		if plain := `"model":"m","messages":[{"role":"user","content":"hello"}]`; strings.Replace(got, plain, "…", 1) != want {
			t.Errorf("%s%s: %s, want %s", kind, rest, got, want)
		}
	}
	b := Bound{Output: 100}
	f("openai", ``, b, `{"max_completion_tokens":100,…}`)
	f("openai", `,"max_tokens":50`, b, `{…,"max_tokens":50}`)
	f("openai", `,"max_tokens":500`, b, `{…,"max_tokens":100}`)
	f("custom", ``, b, `{"max_tokens":100,…}`)
	f("custom", `,"max_completion_tokens":500`, b, `{…,"max_completion_tokens":100}`)
	for _, kind := range []string{"mistral", "deepseek", "together", "perplexity", "ollama"} {
		f(kind, ``, b, `{"max_tokens":100,…}`)
		f(kind, `,"max_completion_tokens":500`, b, `{…,"max_tokens":100}`)
		f(kind, `,"max_completion_tokens":50`, b, `{…,"max_tokens":50}`)
	}
	// Nothing to say: a prediction, or an endpoint without output.
	f("openai", ``, Bound{Output: 100, Fixed: true}, `{…}`)
	f("openai", ``, Bound{}, `{…}`)
}

func TestPlusTimes(t *testing.T) {
	f := func(got, want int64) {
		t.Helper()
		if got != want {
			t.Errorf("got %d, want %d", got, want)
		}
	}
	const most = math.MaxInt64
	f(plus(most, 1), most)
	f(plus(most-1, 1), most)
	f(plus(2, 3), 5)
	f(times(most/2+1, 2), most)
	f(times(0, most), 0)
	f(times(3, 4), 12)
}

func BenchmarkBoundStrict(b *testing.B) { benchmarkBound(b, true) }
func BenchmarkBoundSoft(b *testing.B)   { benchmarkBound(b, false) }

// 4 KB of prose in 12 messages.
func benchmarkBound(b *testing.B, strict bool) {
	var messages []string
	for i := range 12 {
		messages = append(messages, `{"role":"user","content":"`+strings.Repeat("The quick brown fox jumps. ", 12)+strconv.Itoa(i)+`"}`)
	}
	r := scanned(b, openai.Chat, `{"model":"gpt-4o","messages":[`+strings.Join(messages, ",")+`],"stream":true,"temperature":1,"user":"u"}`)
	v := Builtin()["openai"]
	b.ReportAllocs()
	for b.Loop() {
		if _, err := v.Bound(r, BoundRules{Strict: strict, Model: "gpt-4o", MaxOutput: 16384}); err != nil {
			b.Fatal(err)
		}
	}
}
