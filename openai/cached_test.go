package openai

import (
	"strings"
	"testing"
)

func TestAppendUncached(t *testing.T) {
	f := func(in, want string) {
		t.Helper()
		got, hidden := AppendUncached(nil, []byte(in))
		if string(got) != want || hidden != (in != want) {
			t.Errorf("%s\n got %s (%t)\nwant %s", in, got, hidden, want)
		}
	}
	f(`{"usage":{"prompt_tokens":9,"prompt_tokens_details":{"cached_tokens": 7 ,"audio_tokens":3}},"n":1}`,
		`{"usage":{"prompt_tokens":9,"prompt_tokens_details":{"cached_tokens": 0 ,"audio_tokens":3}},"n":1}`)
	f(`{"usage":{"prompt_cache_hit_tokens":64,"prompt_cache_miss_tokens":1}}`, `{"usage":{"prompt_cache_hit_tokens":0,"prompt_cache_miss_tokens":0}}`)
	f(`{"x_groq":{"usage":{"cached_tokens":5}}}`, `{"x_groq":{"usage":{"cached_tokens":0}}}`)
	f(`{"usage":{"cache_creation":{"ephemeral_1h_input_tokens":5},"cache_read_input_tokens":1e3}}`,
		`{"usage":{"cache_creation":{"ephemeral_1h_input_tokens":0},"cache_read_input_tokens":0}}`)
	f(`{"usage":{},"cached_tokens":5,"choices":[{"message":{"content":"\"usage\":{\"cached_tokens\":5}"}}]}`,
		`{"usage":{},"cached_tokens":5,"choices":[{"message":{"content":"\"usage\":{\"cached_tokens\":5}"}}]}`)
	f(`{"usage":null,"cached_tokens":5}`, `{"usage":null,"cached_tokens":5}`)
	f(`{"usage":{"cached_tokens":5}`+strings.Repeat(" ", 3), `{"usage":{"cached_tokens":0}`+strings.Repeat(" ", 3)) // cut off
}

func FuzzAppendUncached(f *testing.F) {
	f.Add([]byte(`{"usage":{"prompt_tokens_details":{"cached_tokens":7}}}`))
	f.Add([]byte(`{"usage":[{"cached":{}}],"a":"\u0000cach"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		once, hidden := AppendUncached(nil, data)
		if !hidden && string(once) != string(data) {
			t.Fatalf("%q became %q, and nothing was hidden", data, once)
		}
		if twice, _ := AppendUncached(nil, once); string(twice) != string(once) {
			t.Fatalf("%q then %q", once, twice)
		}
	})
}
