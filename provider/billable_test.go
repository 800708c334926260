package provider

import (
	"slices"
	"strings"
	"testing"

	"bulkhead/fault"
	"bulkhead/openai"
)

func scanned(t testing.TB, e openai.Endpoint, body string) *openai.Request {
	t.Helper()
	r := new(openai.Request)
	if err := r.Scan(e, []byte(body)); err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	return r
}

// chatOf returns a chat with rest among its fields.
func chatOf(t testing.TB, rest string) *openai.Request {
	t.Helper()
	return scanned(t, openai.Chat, `{"model":"m","messages":[{"role":"user","content":"hello"}]`+rest+`}`)
}

// The list covers all fields of OpenAI's API description (of the copy the project
// was built against), each once for an endpoint.
func TestBillables(t *testing.T) {
	fields := map[openai.Endpoint]string{
		openai.Chat: `messages model audio frequency_penalty function_call functions logit_bias logprobs max_completion_tokens max_tokens metadata modalities
			moderation n parallel_tool_calls prediction presence_penalty prompt_cache_key prompt_cache_options prompt_cache_retention reasoning_effort response_format
			safety_identifier seed service_tier stop store stream stream_options temperature tool_choice tools top_logprobs top_p user verbosity web_search_options`,
		openai.Completions: `model prompt best_of echo frequency_penalty logit_bias logprobs max_tokens n presence_penalty seed stop stream stream_options suffix
			temperature top_p user`,
		openai.Embeddings:  `input model dimensions encoding_format user`,
		openai.Moderations: `input model`,
		openai.Images:      `prompt model n quality response_format output_format output_compression stream partial_images size moderation background style user`,
		openai.ImageEdits: `image images prompt mask background model n size response_format output_format output_compression user input_fidelity stream
			partial_images quality moderation`,
		openai.ImageVariations: `image model n response_format size user`,
		openai.Speech:          `model input instructions voice response_format speed stream_format`,
		openai.Transcriptions: `file model language languages keywords prompt response_format temperature include timestamp_granularities stream
			chunking_strategy known_speaker_names known_speaker_references`,
		openai.Translations: `file model prompt response_format temperature`,
		openai.Responses: `background context_management conversation include input instructions max_output_tokens max_tool_calls metadata model moderation
			parallel_tool_calls previous_response_id prompt prompt_cache_key prompt_cache_options prompt_cache_retention reasoning safety_identifier service_tier
			store stream stream_options temperature text tool_choice tools top_logprobs top_p truncation user`,
	}
	for e, names := range fields {
		for _, name := range strings.Fields(names) {
			n := 0
			for _, b := range Billables() {
				if b.Where == openai.Field && b.Name == name && (b.On == nil || slices.Contains(b.On, e)) {
					n++
				}
			}
			if n != 1 {
				t.Errorf("%s of %s has %d rows", name, e, n)
			}
		}
	}
	for _, b := range Billables() {
		if b.Name == "" || b.Cost.String() == "" || b.Cost == Fee && b.Kinds == nil {
			t.Errorf("%+v", b)
		}
		if b.Where != openai.Field && b.On != nil {
			t.Errorf("%+v: only fields differ by endpoint", b)
		}
	}
}

func TestBounded(t *testing.T) {
	f := func(kind string, r *openai.Request, param string) {
		t.Helper()
		err := Builtin()[kind].Bounded(r)
		if param == "" {
			if err != nil {
				t.Errorf("%s: %v", r.Body, err)
			}
			return
		}
		if e := fault.As(err); err == nil || e.Kind != fault.Invalid || e.Code != CodeNotPriced || e.Param != param {
			t.Errorf("%s: %+v, want %s", r.Body, e, param)
		}
	}
	parts := func(parts string) *openai.Request {
		return scanned(t, openai.Chat, `{"model":"m","messages":[{"role":"system","content":"x"},{"role":"user","content":[`+parts+`]}]}`)
	}
	// What everybody sends.
	f("openai", chatOf(t, ``), "")
	f("openai", chatOf(t, `,"n":2,"max_completion_tokens":5,"temperature":1,"top_p":1,"stream":true,"stream_options":{"include_usage":true},"stop":["a"],"seed":1,
		"logprobs":true,"top_logprobs":2,"user":"u","metadata":{"a":"b"},"service_tier":"auto","reasoning_effort":"high","verbosity":"low","store":true,
		"tools":[{"type":"function","function":{"name":"f"}},{"type":"custom","custom":{"name":"g"}}],"tool_choice":"auto","parallel_tool_calls":false,
		"response_format":{"type":"json_object"},"prediction":{"type":"content","content":"x"},"modalities":["text","audio"],"audio":{"voice":"alloy","format":"wav"},
		"prompt_cache_key":"k","functions":[],"function_call":"auto","logit_bias":{}`), "")
	f("openai", parts(`{"type":"text","text":"a"},{"type":"image_url","image_url":{"url":"u"}},{"type":"input_audio","input_audio":{"data":"QQ==","format":"wav"}},
		{"type":"file","file":{"file_id":"file-1"}},{"type":"text","text":"b","cache_control":{"type":"ephemeral"}}`), "")
	f("openai", scanned(t, openai.Completions, `{"model":"m","prompt":"x","suffix":"y","best_of":3,"echo":true,"logprobs":1,"max_tokens":5}`), "")
	f("openai", scanned(t, openai.Embeddings, `{"model":"m","input":"x","dimensions":3,"encoding_format":"float","user":"u"}`), "")
	f("openai", scanned(t, openai.Moderations, `{"input":[{"type":"text","text":"x"},{"type":"image_url","image_url":{"url":"u"}}]}`), "")
	f("deepseek", scanned(t, openai.Chat, `{"model":"m","messages":[{"role":"assistant","content":"x","reasoning_content":"y","prefix":true}],"thinking":{"type":"enabled"}}`), "")

	// What may cost anything.
	f("openai", chatOf(t, `,"web_search_options":{}`), "web_search_options")
	f("openai", chatOf(t, `,"web_search_options":null`), "")
	f("perplexity", chatOf(t, `,"web_search_options":{"search_context_size":"high"}`), "")
	f("openai", chatOf(t, `,"moderation":{"model":"x"}`), "moderation")
	f("xai", chatOf(t, `,"search_parameters":{"mode":"on"}`), "search_parameters")
	f("openrouter", chatOf(t, `,"plugins":[{"id":"web"}]`), "plugins")
	f("openai", chatOf(t, `,"brand_new_field":1`), "brand_new_field")
	f("openai", chatOf(t, `,"brand_new_field":null`), "")
	f("openai", chatOf(t, `,"tools":[{"type":"function"},{"type":"web_search"}]`), "tools[1].type")
	f("openai", chatOf(t, `,"tools":[{"type":"new_tool"}]`), "tools[0].type")
	f("openai", chatOf(t, `,"tools":[{}]`), "tools[0].type")
	f("openai", chatOf(t, `,"modalities":["text","video"]`), "modalities[1]")
	f("openai", parts(`{"type":"text","text":"a"},{"type":"video_url","video_url":{"url":"u"}}`), "messages[1].content[1].type")
	f("openai", parts(`{"type":"new"}`), "messages[1].content[0].type")
	f("openai", parts(`{"type":"image_url","image_url":{"url":"u"},"max_pixels":9}`), "messages[1].content[0].max_pixels")
	f("openai", parts(`{"type":"text","text":"a","image_url":{"url":"u"}}`), "messages[1].content[0].image_url")
	f("openai", parts(`{"type":"file","file":{"url":"u"}}`), "messages[1].content[0].url")
	f("openai", scanned(t, openai.Chat, `{"model":"m","messages":[{"role":"user","content":"x","images":["QQ=="]}]}`), "messages[0].images")
	f("openai", scanned(t, openai.Moderations, `{"input":[{"type":"text","text":"x"},{"type":"video"}]}`), "input[1].type")
	// A field of one endpoint is nothing known on another.
	f("openai", scanned(t, openai.Embeddings, `{"model":"m","input":"x","n":5}`), "n")
	f("openai", scanned(t, openai.Completions, `{"model":"m","prompt":"x","prediction":{}}`), "prediction")
	// A name that is no name is not repeated.
	f("openai", chatOf(t, `,"say this to the client!":1`), "an unknown field")
	f("openai", chatOf(t, `,"`+strings.Repeat("x", 65)+`":1`), "an unknown field")
}

func TestLendable(t *testing.T) {
	f := func(r *openai.Request, code, param string) {
		t.Helper()
		err := Builtin()["openai"].Lendable(r)
		if code == "" {
			if err != nil {
				t.Errorf("%s: %v", r.Body, err)
			}
			return
		}
		if e := fault.As(err); err == nil || e.Kind != fault.Invalid || e.Code != code || e.Param != param {
			t.Errorf("%s: %+v, want %s %s", r.Body, e, code, param)
		}
	}
	part := func(part string) *openai.Request {
		return scanned(t, openai.Chat, `{"model":"m","messages":[{"role":"user","content":[`+part+`]}]}`)
	}
	f(chatOf(t, ``), "", "")
	f(chatOf(t, `,"store":false`), "", "")
	f(chatOf(t, `,"store":null`), "", "")
	f(chatOf(t, `,"store":true`), CodeNotLent, "store")
	f(chatOf(t, `,"previous_response_id":"resp_1"`), CodeNotLent, "previous_response_id")
	f(chatOf(t, `,"conversation":"c"`), CodeNotLent, "conversation")
	f(chatOf(t, `,"background":true`), CodeNotLent, "background")
	f(chatOf(t, `,"cached_content":"c"`), CodeNotLent, "cached_content")
	f(chatOf(t, `,"web_search_options":{}`), CodeNotLent, "web_search_options")
	f(chatOf(t, `,"tools":[{"type":"code_interpreter"}]`), CodeNotLent, "tools[0].type")
	f(chatOf(t, `,"tools":[{"type":"never_heard_of"}]`), CodeNotPriced, "tools[0].type")
	f(part(`{"type":"file","file":{"file_data":"QQ=="}}`), "", "")
	f(part(`{"type":"file","file":{"file_id":"file-1"}}`), CodeNotLent, "messages[0].content[0].file_id")
	f(scanned(t, openai.Chat, `{"model":"m","messages":[{"role":"assistant","audio":{"id":"audio_1"}}]}`), CodeNotLent, "messages[0].audio")
	f(scanned(t, openai.Chat, `{"model":"m","messages":[{"role":"assistant","content":"x","audio":null}]}`), "", "")
	f(chatOf(t, `,"brand_new_field":1`), CodeNotPriced, "brand_new_field")
}
