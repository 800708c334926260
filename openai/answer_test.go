package openai

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

func TestScanAnswer(t *testing.T) {
	f := func(e Endpoint, body string, want Answer) {
		t.Helper()
		got, err := ScanAnswer(e, []byte(body))
		if err != nil || got != want {
			t.Errorf("ScanAnswer(%s) is %+v, %v; want %+v", body, got, err, want)
		}
	}
	f(Chat, `{"id":"x","object":"chat.completion","model":"gpt-4o-2024","service_tier":"default",
		"choices":[{"index":0,"message":{"role":"assistant","content":"h\u00e9llo","refusal":null,"reasoning_content":"mm",
			"tool_calls":[{"id":"c","type":"function","function":{"name":"fn","arguments":"{}"}}]},"finish_reason":"stop"}],
		"usage":{"prompt_tokens":10,"completion_tokens":20,"total_tokens":30,
			"prompt_tokens_details":{"cached_tokens":4,"cache_write_tokens":3,"audio_tokens":2,"image_tokens":1,"new":9},
			"completion_tokens_details":{"reasoning_tokens":5,"audio_tokens":6,"image_tokens":7,"accepted_prediction_tokens":8,"rejected_prediction_tokens":9}}}`,
		Answer{
			HasUsage: true, Model: "gpt-4o-2024", ServiceTier: "default", Finished: true,
			TextBytes: int64(len("héllo") + len("mm") + len("fn") + len("{}")),
			Usage: Usage{
				Input: 10, CachedInput: 4, CacheWrite: 3, AudioInput: 2, ImageInput: 1,
				Output: 20, Reasoning: 5, AudioOutput: 6, ImageOutput: 7, AcceptedPrediction: 8, RejectedPrediction: 9, Total: 30,
			},
		})
	f(Embeddings, `{"object":"list","data":[{"embedding":[1,2],"index":0}],"model":"e","usage":{"prompt_tokens":8,"total_tokens":8}}`,
		Answer{HasUsage: true, Model: "e", Usage: Usage{Input: 8, Total: 8}})
	f(Completions, `{"choices":[{"text":"abc","finish_reason":"length"},{"text":"de","finish_reason":null}],"usage":null}`,
		Answer{Finished: true, TextBytes: 5})
	f(Moderations, `{"id":"m","model":"omni","results":[],"error":null}`, Answer{Model: "omni"})
	f(Chat, `{"usage":{"input_tokens":1,"output_tokens":2,"input_tokens_details":{"cached_tokens":1},"output_tokens_details":{"reasoning_tokens":2}}}`,
		Answer{HasUsage: true, Usage: Usage{Input: 1, Output: 2, CachedInput: 1, Reasoning: 2}})

	// counts that are none
	f(Chat, `{"usage":{"prompt_tokens":-1,"completion_tokens":1.5,"total_tokens":1e3}}`, Answer{BadUsage: true})
	f(Chat, `{"usage":{"prompt_tokens":"7","completion_tokens":99999999999999999999}}`, Answer{BadUsage: true})
	f(Chat, `{"usage":{"prompt_tokens":1099511627777}}`, Answer{BadUsage: true})
	f(Chat, `{"usage":{"prompt_tokens":3,"completion_tokens":null,"prompt_tokens_details":null,"completion_tokens_details":[]}}`,
		Answer{HasUsage: true, Usage: Usage{Input: 3}})
	f(Chat, `{"usage":{}}`, Answer{})
	f(Chat, `{"usage":[1]}`, Answer{})

	// what an upstream may send and a client may not
	f(Chat, "{\"x\":\"\\ud800\",\"y\":\"\xff\",\"z\":1,\"z\":2,\"mod\\u0065l\":\"m\"}", Answer{Model: "m"})
	f(Chat, `{"x":`+strings.Repeat("[", 500)+strings.Repeat("]", 500)+`}`, Answer{})

	bad := func(body string) {
		t.Helper()
		_, err := ScanAnswer(Chat, []byte(body))
		if err == nil {
			t.Errorf("ScanAnswer(%.100s) has no error", body)
		} else if strings.Contains(err.Error(), "SECRET") {
			t.Errorf("the error quotes the body: %v", err)
		}
	}
	bad(``)
	bad(`<html>SECRET</html>`)
	bad(`[{"usage":{}}]`)
	bad(`"SECRET"`)
	bad(`null`)
	bad(`{"usage":{"prompt_tokens":1}`)
	bad(`{"SECRET":1}x`)
	bad(`{"SECRET":,}`)
	bad(`{"usage":{"prompt_tokens":1},"usage":{"prompt_tokens":2}}`)
	bad(`{"usage":null,"us\u0061ge":{"prompt_tokens":2}}`)
	bad(`{"choices":[],"choices":[]}`)
	bad(`{"x":` + strings.Repeat("[", 200_000) + strings.Repeat("]", 200_000) + `}`)

	for _, body := range []string{`{"error":{"message":"x"}}`, `{"id":1,"error":"x"}`} {
		if _, err := ScanAnswer(Chat, []byte(body)); !errors.Is(err, ErrErrorBody) {
			t.Errorf("ScanAnswer(%s) is %v, want ErrErrorBody", body, err)
		}
	}
}

func TestScanChunk(t *testing.T) {
	var c Chunk
	f := func(data string, want Chunk) {
		t.Helper()
		if err := ScanChunk([]byte(data), &c); err != nil {
			t.Errorf("ScanChunk(%s): %v", data, err)
			return
		}
		got := c
		got.s, got.UsageSpan = nil, Span{}
		if got != want {
			t.Errorf("ScanChunk(%s) is %+v, want %+v", data, got, want)
		}
	}
	f(`{"model":"m","choices":[{"index":0,"delta":{"content":"a\nb"},"finish_reason":null}],"usage":null}`, Chunk{Model: "m", TextBytes: 3})
	f(`{"model":"m","choices":[{"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{\"a"}}]}}]}`, Chunk{Model: "m", TextBytes: 3})
	f(`{"choices":[{"delta":{},"finish_reason":"tool_calls"}]}`, Chunk{Finished: true})
	f(`{"model":"m","choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}`,
		Chunk{Model: "m", EmptyChoices: true, HasUsage: true, Usage: Usage{Input: 1, Output: 2, Total: 3}})
	f(`{"choices":[],"service_tier":"flex"}`, Chunk{EmptyChoices: true, ServiceTier: "flex"})
	f(`{"choices":null}`, Chunk{})
	f(`{"choices":[null,1]}`, Chunk{})
	f(`{"error":{"message":"x"}}`, Chunk{IsError: true})
	f(`{"error":"x"}`, Chunk{IsError: true})
	f(`{"error":null,"choices":[{"text":"abc"}]}`, Chunk{TextBytes: 3})
	f(`{"error":{}}`, Chunk{})
	f(`{"error":""}`, Chunk{})
	f(`{"error":true}`, Chunk{})
	f(`{}`, Chunk{})
	f(`{"choices":[{"delta":{"content":[{"type":"text"}]}}]}`, Chunk{TextBytes: int64(len(`[{"type":"text"}]`))})

	bad := func(data string) {
		t.Helper()
		if err := ScanChunk([]byte(data), &c); err == nil {
			t.Errorf("ScanChunk(%s) has no error", data)
		}
	}
	bad(`[DONE]`)
	bad(``)
	bad(`[]`)
	bad(`{"choices":[}`)
	bad(`{} {}`)
	equal(t, "IsDone", IsDone([]byte("[DONE]")), true)
	equal(t, "IsDone", IsDone([]byte(`{}`)), false)
}

func TestAppendWithoutUsage(t *testing.T) {
	f := func(data, want string) {
		t.Helper()
		var c Chunk
		if err := ScanChunk([]byte(data), &c); err != nil {
			t.Fatal(err)
		}
		if got := string(AppendWithoutUsage(nil, []byte(data), &c)); got != want || !json.Valid([]byte(got)) {
			t.Errorf("%s without usage is %s, want %s", data, got, want)
		}
	}
	f(`{"a":1,"usage":null,"b":2}`, `{"a":1,"b":2}`)
	f(`{"a":1 , "usage" : {"x":[1]} , "b":2}`, `{"a":1 , "b":2}`)
	f(`{"a":1,"usage":null}`, `{"a":1}`)
	f(`{"usage":null,"b":2}`, `{"b":2}`)
	f(`{ "usage":null , "b":2}`, `{ "b":2}`)
	f(`{"usage":{}}`, `{}`)
	f(`{ "usage":{} }`, `{ }`)
	f(`{"a":1,"us\u0061ge":null,"b":2}`, `{"a":1,"b":2}`)
	f(`{"a":{"usage":1}}`, `{"a":{"usage":1}}`)
	f(`{}`, `{}`)
}
