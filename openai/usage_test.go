package openai

import (
	"strings"
	"testing"
)

// The usages are as the vendors' references and reports of their users show
// them; what is a part of what is package provider's to know.
func TestParseUsage(t *testing.T) {
	f := func(raw string, want Usage, said Said) {
		t.Helper()
		got, has, err := ParseUsage([]byte(raw))
		if err != nil || got != want || has != said {
			t.Errorf("%s\n got %+v, %+v, %v\nwant %+v, %+v", raw, got, has, err, want, said)
		}
	}
	both := Said{Input: true, Output: true}
	// DeepSeek
	f(`{"prompt_tokens":12,"completion_tokens":7,"total_tokens":19,"prompt_cache_hit_tokens":8,"prompt_cache_miss_tokens":4}`,
		Usage{Input: 12, CachedInput: 8, Output: 7, Total: 19}, both)
	// Moonshot
	f(`{"prompt_tokens":12,"completion_tokens":7,"total_tokens":19,"cached_tokens":8}`, Usage{Input: 12, CachedInput: 8, Output: 7, Total: 19}, both)
	// Anthropic's own names
	f(`{"input_tokens":21,"cache_creation_input_tokens":300,"cache_read_input_tokens":1000,"output_tokens":5,
		"cache_creation":{"ephemeral_5m_input_tokens":100,"ephemeral_1h_input_tokens":200},"output_tokens_details":{"reasoning_tokens":1},
		"server_tool_use":{"web_search_requests":2,"web_fetch_requests":3,"code_execution_requests":1},"service_tier":"standard"}`,
		Usage{Input: 21, CacheWrite: 300, CacheWrite1h: 200, CachedInput: 1000, Output: 5, Reasoning: 1, Searches: 2, Tools: 1}, both)
	// Perplexity: citations are input beside the prompt's
	f(`{"prompt_tokens":33,"completion_tokens":7163,"total_tokens":7196,"citation_tokens":19028,"num_search_queries":28,"reasoning_tokens":78298,
		"search_context_size":"medium","cost":{"total_cost":0.5}}`,
		Usage{Input: 33 + 19028, Output: 7163, Reasoning: 78298, Searches: 28, SearchContext: SearchMedium, Total: 7196}, both)
	// xAI
	f(`{"prompt_tokens":10120,"completion_tokens":1499,"total_tokens":14428,"prompt_tokens_details":{"cached_tokens":128},
		"completion_tokens_details":{"reasoning_tokens":2809},"num_sources_used":5,"cost_in_usd_ticks":232856000,
		"server_side_tool_usage_details":{"web_search_calls":2,"x_search_calls":1}}`,
		Usage{Input: 10120, CachedInput: 128, Output: 1499, Reasoning: 2809, Searches: 5, Tools: 3, Total: 14428}, both)
	// OpenAI's transcriptions by the second; a begun second is a whole one
	f(`{"type":"duration","seconds":7}`, Usage{Seconds: 7}, Said{Input: true})
	f(`{"type":"duration","seconds":7.25}`, Usage{Seconds: 8}, Said{Input: true})
	f(`{"type":"duration","seconds":7.0}`, Usage{Seconds: 7}, Said{Input: true})

	// What is no count is not said, and noted.
	bad := Said{Bad: true}
	f(`{"prompt_tokens":1.5}`, Usage{}, bad)
	f(`{"prompt_tokens":1e3}`, Usage{}, bad)
	f(`{"prompt_tokens":1099511627777}`, Usage{}, bad)
	f(`{"prompt_tokens":"7"}`, Usage{}, bad)
	f(`{"prompt_tokens":{}}`, Usage{}, bad)
	f(`{"seconds":-2}`, Usage{}, bad)
	f(`{"prompt_tokens":99999999999999999999}`, Usage{}, bad)
	f(`{"seconds":1e9}`, Usage{}, bad)
	f(`{"completion_tokens":4,"completion_tokens_details":{"reasoning_tokens":0.3}}`, Usage{Output: 4}, Said{Output: true, Bad: true})
	f(`{"server_tool_use":{"web_search_requests":"1"}}`, Usage{}, bad)
	f(`{"prompt_tokens":1099511627776}`, Usage{Input: 1 << 40}, Said{Input: true})
	// null, less than nothing, and what the package does not know, is nothing.
	f(`{"prompt_tokens":-1,"completion_tokens":4,"completion_tokens_details":{"reasoning_tokens":-3}}`, Usage{Output: 4}, Said{Output: true})
	f(`{"prompt_tokens":null,"completion_tokens_details":null,"cache_creation":null,"search_context_size":null,"seconds":null,"x":-1}`, Usage{}, Said{})
	f(`{"search_context_size":"huge"}`, Usage{}, Said{})
	f(`{}`, Usage{}, Said{})

	for _, raw := range []string{``, `null`, `[]`, `"SECRET"`, `{"SECRET":`, `{} {}`} {
		if _, _, err := ParseUsage([]byte(raw)); err == nil || strings.Contains(err.Error(), "SECRET") {
			t.Errorf("ParseUsage(%q): %v", raw, err)
		}
	}
}

// A usage in another place counts where there is none in its own.
func TestUsageElsewhere(t *testing.T) {
	f := func(data string, want Usage, has bool) {
		t.Helper()
		var c Chunk
		if err := ScanChunk([]byte(data), &c); err != nil || c.Usage != want || c.HasUsage != has {
			t.Errorf("%s: %+v, %t, %v", data, c.Usage, c.HasUsage, err)
		}
	}
	const one, two = `"usage":{"prompt_tokens":1,"completion_tokens":1}`, `"usage":{"prompt_tokens":2}`
	f(`{"choices":[],"x_groq":{"id":"r",`+one+`}}`, Usage{Input: 1, Output: 1}, true)
	f(`{"choices":[{"index":0,"delta":{},`+one+`}]}`, Usage{Input: 1, Output: 1}, true)
	f(`{"x_groq":{`+one+`},`+two+`}`, Usage{Input: 2}, true)
	f(`{`+two+`,"x_groq":{`+one+`}}`, Usage{Input: 2}, true)
	f(`{"x_groq":{`+one+`},"usage":null}`, Usage{Input: 1, Output: 1}, true)
	f(`{"x_groq":{"usage":null}}`, Usage{}, false)
	f(`{"x_groq":{"other":`+`{`+one+`}}}`, Usage{}, false)
}

func TestText(t *testing.T) {
	f := func(limit int, want string, chunks ...string) {
		t.Helper()
		text := &Text{Max: limit}
		c := Chunk{Text: text}
		for _, data := range chunks {
			if err := ScanChunk([]byte(data), &c); err != nil {
				t.Fatal(err)
			}
		}
		if got := string(text.Bytes); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	delta := func(index, text string) string {
		return `{"choices":[{"index":` + index + `,"delta":{"content":"` + text + `"}}]}`
	}
	f(100, "héllo you", delta("0", `h\u00e9llo`), delta("0", ` you`))
	f(3, "abc", delta("0", "ab"), delta("0", "cd"), delta("0", "ef"))
	f(4, "a\nbc", delta("0", `a\nbcd`))
	f(0, "", delta("0", "ab"))
	// Only the first choice, wherever its index stands.
	f(100, "ac", delta("0", "a"), delta("1", "b"), delta("0", "c"))
	f(100, "", `{"choices":[{"delta":{"content":"b"},"index":1}]}`)
	f(100, "a", `{"choices":[{"delta":{"content":"a"}},{"index":1,"delta":{"content":"b"}}]}`)
	// Reasoning, calls and transcripts are generated too.
	f(100, "rfxt", `{"choices":[{"delta":{"reasoning_content":"r","tool_calls":[{"function":{"name":"f","arguments":"x"}}],"audio":{"transcript":"t","data":"QUJD"}}}]}`)
}

func TestAudioBytes(t *testing.T) {
	var c Chunk
	if err := ScanChunk([]byte(`{"choices":[{"delta":{"audio":{"id":"a","data":"QUJDRA==","transcript":"hi"}}}]}`), &c); err != nil || c.AudioBytes != 8 || c.TextBytes != 2 {
		t.Errorf("%d and %d, %v", c.AudioBytes, c.TextBytes, err)
	}
}
