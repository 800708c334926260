package openai

import (
	"strings"
	"testing"

	"bulkhead/fault"
)

func scanResponse(t *testing.T, body string) *Request {
	t.Helper()
	r := new(Request)
	if err := r.Scan(Responses, []byte(body)); err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	return r
}

// What a response's body says, and what the model reads of it.
func TestScanResponse(t *testing.T) {
	r := scanResponse(t, `{"model":"m","input":"héllo","instructions":"brief","stream":true,"stream_options":{"include_obfuscation":false},"max_output_tokens":7,
		"previous_response_id":"resp_1","user":"u","safety_identifier":"s","prompt_cache_key":"k","store":false,"background":false,"conversation":null,
		"tools":[{"type":"function","name":"f"}],"text":{"format":{"type":"text"}},"odd":1e3}`)
	text := int64(len("héllo") + len("brief") + len(`[{"type":"function","name":"f"}]`) + len(`{"format":{"type":"text"}}`))
	if r.Model != "m" || !r.Stream || r.MaxOutput != 7 || r.MaxOutputField != "max_output_tokens" || r.Previous != "resp_1" || r.User != "s" || r.CacheKey != "k" ||
		r.Store || r.Later || r.Conversation || r.Tools != 1 || r.TextBytes != text || r.Messages != 1 {
		t.Errorf("%+v", r)
	}
	for body, want := range map[string]bool{``: true, `,"store":true`: true, `,"store":null`: true, `,"store":false`: false} {
		if r := scanResponse(t, `{"model":"m"`+body+`}`); r.Store != want {
			t.Errorf("%s: kept at the vendor: %t", body, r.Store)
		}
	}
	if r := scanResponse(t, `{"model":"m","conversation":"conv_1","background":true}`); !r.Conversation || !r.Later {
		t.Errorf("%+v", r)
	}
	r = scanResponse(t, `{"model":"m"}`)
	r.AfterPrevious(100)
	if r.InputTokens != 100 || r.Files != 0 {
		t.Errorf("%+v", r)
	}
	if r.AfterPrevious(0); r.Files != 1 {
		t.Errorf("%+v", r)
	}
}

// Items of the input: what is text counts, what is not is counted by piece, and
// what is unknown is noted.
func TestResponseItems(t *testing.T) {
	f := func(items, want string) {
		t.Helper()
		r := scanResponse(t, `{"model":"m","input":[`+items+`]}`)
		var seen []string
		for _, s := range r.Seen {
			if s.Where != Field {
				seen = append(seen, string(s.Name.Of(r.Body)))
			}
		}
		got := strings.Join(seen, " ")
		if got != want {
			t.Errorf("%s: noted %q, want %q", items, got, want)
		}
	}
	f(`{"role":"user","content":"x"}`, "")
	f(`{"type":"message","role":"assistant","content":[{"type":"output_text","text":"x","annotations":[{}],"logprobs":[]}]}`, "")
	f(`{"type":"function_call","call_id":"c","name":"f","arguments":"{}"},{"type":"function_call_output","call_id":"c","output":"x"}`, "")
	f(`{"type":"function_call_output","call_id":"c","output":[{"type":"input_image","image_url":"u"}]}`, "")
	f(`{"type":"reasoning","id":"rs_1","summary":[],"encrypted_content":"QQ=="}`, "")
	f(`{"type":"reasoning","id":"rs_1","summary":[]}`, "reasoning")
	f(`{"type":"item_reference","id":"msg_1"}`, "item_reference")
	f(`{"type":"image_generation_call","id":"ig_1"}`, "image_generation_call")
	f(`{"role":"user","content":[{"type":"input_file","file_id":"file-1"}]}`, "file_id")
	f(`{"role":"user","content":[{"type":"input_text","text":"x","image_url":"u"}]}`, "image_url")
	f(`{"role":"user","content":[{"type":"input_video","video_url":"u"}]}`, "video_url input_video")

	r := scanResponse(t, `{"model":"m","input":[{"role":"user","content":[{"type":"input_text","text":"abc"},{"type":"input_image","image_url":"data:xxxxxxxx","detail":"low"},
		{"type":"input_image","file_id":null,"image_url":"u"},{"type":"input_file","file_data":"data:yyyy","filename":"f"},{"type":"input_audio","input_audio":{"data":"QUJD"}}]},
		{"type":"computer_call_output","call_id":"c","output":{"type":"computer_screenshot","image_url":"u"}}]}`)
	if r.TextBytes != int64(len("abc")+len(`"c"`)) || r.Images != 3 || r.LowImages != 1 || r.Files != 1 || r.Audios != 1 || r.AudioBytes != int64(len(`{"data":"QUJD"}`)) || r.Messages != 2 {
		t.Errorf("%+v", r)
	}
}

func TestScanResponseErrors(t *testing.T) {
	f := func(body, param string) {
		t.Helper()
		err := new(Request).Scan(Responses, []byte(body))
		if e := fault.As(err); err == nil || e.Kind != fault.Invalid || e.Param != param {
			t.Errorf("%.80s: %v, want an error in %q", body, err, param)
		}
	}
	f(`{"input":"x"}`, "model")
	f(`{"model":"m","input":1}`, "input")
	f(`{"model":"m","input":[1]}`, "input[0]")
	f(`{"model":"m","input":[{"type":1}]}`, "input[0].type")
	f(`{"model":"m","input":[{"role":"user","content":[{"type":["x"]}]}]}`, "input[0].content[0].type")
	f(`{"model":"m","input":[{"role":"user","Content":"x"}]}`, "input[0].content")
	f(`{"model":"m","input":[{"role":"user","content":[{"Type":"x"}]}]}`, "input[0].content[0].type")
	f(`{"model":"m","input":[`+strings.Repeat(`{},`, MaxMessages)+`{}]}`, "input")
	f(`{"model":"m","stream":"yes"}`, "stream")
	f(`{"model":"m","background":1}`, "background")
	f(`{"model":"m","store":"no"}`, "store")
	f(`{"model":"m","previous_response_id":7}`, "previous_response_id")
	f(`{"model":"m","previous_response_id":"`+strings.Repeat("a", MaxUserName+1)+`"}`, "previous_response_id")
	f(`{"model":"m","Previous_response_id":"a"}`, "previous_response_id")
	f(`{"model":"m","previous_response_id":"a","previous_response_id":"b"}`, "previous_response_id")
	f(`{"model":"m","max_output_tokens":0}`, "max_output_tokens")
	f(`{"model":"m","instructions":[]}`, "instructions")
	f(`{"model":"m","stream_options":{}}`, "stream_options")
}

// Nothing but what is named is changed for the upstream.
func TestResponseUpstream(t *testing.T) {
	f := func(body string, form UpstreamForm, want string) {
		t.Helper()
		if got := string(scanResponse(t, body).AppendUpstream(nil, form)); got != want {
			t.Errorf("%s\ngot  %s\nwant %s", body, got, want)
		}
	}
	all := UpstreamForm{Model: "n", IncludeUsage: true, MaxOutput: 50, MaxOutputField: "max_tokens", CacheKey: "c", System: "s", BeforeUser: "b", MaxTokensOnly: true}
	f(`{"odd":1e3,"model":"m","stream":true,"input":"x"}`, all, `{"max_output_tokens":50,"odd":1e3,"model":"n","stream":true,"input":"x"}`)
	f(`{"model":"m","max_output_tokens":60}`, all, `{"model":"n","max_output_tokens":50}`)
	f(`{"model":"m","max_output_tokens":null}`, all, `{"model":"n","max_output_tokens":50}`)
	f(`{"model":"m","max_output_tokens":40}`, all, `{"model":"n","max_output_tokens":40}`)
	f(`{"model":"m", "input" : [ ] }`, UpstreamForm{Model: "m"}, `{"model":"m", "input" : [ ] }`)
}

// What the events of a stream say, and what a whole response does.
func TestScanResponseAnswer(t *testing.T) {
	c := &Chunk{Responses: true}
	f := func(data string, want Chunk) {
		t.Helper()
		if err := ScanChunk([]byte(data), c); err != nil {
			t.Fatalf("%s: %v", data, err)
		}
		got := *c
		got.s, got.event, want.Responses = nil, 0, true
		if got != want {
			t.Errorf("%s\ngot  %+v\nwant %+v", data, got, want)
		}
	}
	f(`{"type":"response.created","sequence_number":1,"response":{"id":"resp_1","model":"m","usage":null,"error":null,"output":[]}}`, Chunk{ID: "resp_1", Model: "m", Sequence: 1})
	f(`{"delta":"abc","type":"response.output_text.delta","sequence_number":2,"obfuscation":"zzzz"}`, Chunk{TextBytes: 3, Sequence: 2})
	f(`{"type":"response.output_text.done","text":"abc"}`, Chunk{})
	f(`{"type":"response.output_item.done","item":{"type":"message","content":[{"type":"output_text","text":"abc"}]}}`, Chunk{})
	f(`{"item":{"type":"web_search_call"},"type":"response.output_item.done"}`, Chunk{Searches: 1})
	f(`{"item":{"type":"web_search_call"},"type":"response.output_item.added"}`, Chunk{})
	f(`{"type":"response.output_item.done","item":{"type":"mcp_call","name":"f","arguments":"{}"}}`, Chunk{ToolRuns: 1})
	f(`{"type":"response.completed","response":{"id":"resp_1","service_tier":"flex","output":[{"type":"web_search_call"}],
		"usage":{"input_tokens":5,"input_tokens_details":{"cached_tokens":2},"output_tokens":3,"output_tokens_details":{"reasoning_tokens":1},"total_tokens":8}}}`,
		Chunk{ID: "resp_1", ServiceTier: "flex", Finished: true, HasUsage: true, Usage: Usage{Input: 5, CachedInput: 2, Output: 3, Reasoning: 1, Total: 8}})
	f(`{"type":"response.incomplete","response":{"id":"resp_1"}}`, Chunk{ID: "resp_1", Finished: true})
	f(`{"type":"response.failed","response":{"id":"resp_1","error":{"code":"server_error","message":"x"}}}`, Chunk{ID: "resp_1", Finished: true, Failed: true})
	f(`{"type":"error","code":"c","message":"x","param":null}`, Chunk{IsError: true})
	f(`{"error":{"message":"x"}}`, Chunk{IsError: true})
	f(`{"type":"response.brand_new","x":1}`, Chunk{})

	a, err := ScanAnswer(Responses, []byte(`{"id":"resp_2","object":"response","status":"completed","model":"m","service_tier":"default","error":null,
		"output":[{"type":"reasoning","summary":[{"type":"summary_text","text":"ab"}]},{"type":"web_search_call"},{"type":"code_interpreter_call"},
		{"type":"message","content":[{"type":"output_text","text":"abc"},{"type":"refusal","refusal":"d"}]},{"type":"function_call","name":"f","arguments":"{}"}],
		"usage":{"input_tokens":5,"output_tokens":3,"total_tokens":8}}`))
	want := Answer{ID: "resp_2", Model: "m", ServiceTier: "default", HasUsage: true, Usage: Usage{Input: 5, Output: 3, Total: 8}, TextBytes: 2 + 3 + 1 + 1 + 2, Searches: 1, ToolRuns: 1}
	if err != nil || a != want {
		t.Errorf("%v\ngot  %+v\nwant %+v", err, a, want)
	}
	if a, err := ScanAnswer(Responses, []byte(`{"error":{"code":"x"},"id":"resp_3","object":"response","status":"failed","output":[]}`)); err != nil || a.ID != "resp_3" || !a.Failed {
		t.Errorf("a response that failed: %+v %v", a, err)
	}
	if _, err := ScanAnswer(Responses, []byte(`{"error":{"message":"x"}}`)); err != ErrErrorBody {
		t.Errorf("an error of status 200: %v", err)
	}
}

func TestResponseID(t *testing.T) {
	for id, want := range map[string]bool{"resp_1": true, "a": true, "A-9_.z": true, "": false, ".": false, "..": false, "...": false, "a/b": false, "a?b": false,
		"a b": false, "é": false, "a\x00": false, strings.Repeat("a", 64): true, strings.Repeat("a", 65): false} {
		if ResponseID(id) != want {
			t.Errorf("%q: %t", id, !want)
		}
	}
}

// FuzzScanResponseChunk: whatever an event says, what is read of it is in bounds,
// and nothing of one event stays for the next.
func FuzzScanResponseChunk(f *testing.F) {
	f.Add([]byte(`{"type":"response.output_text.delta","delta":"a\u00e9","sequence_number":3}`))
	f.Add([]byte(`{"type":"response.completed","response":{"id":"resp_1","usage":{"input_tokens":1,"output_tokens":-2},"output":[{"type":"mcp_call"}]}}`))
	f.Add([]byte(`{"type":"response.output_item.done","item":{"type":"web_search_call"}}`))
	f.Add([]byte(`{"object":"response","error":{"code":"x"},"output":[{"content":[{"text":"a"}],"arguments":"{}"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		c := Chunk{Responses: true, ID: "old", Sequence: 7, Searches: 1, Finished: true}
		kept := string(data)
		err := ScanChunk(data, &c)
		if string(data) != kept {
			t.Fatal("ScanChunk changed the data")
		}
		if err != nil {
			return
		}
		fresh := Chunk{Responses: true}
		if err := ScanChunk(data, &fresh); err != nil {
			t.Fatal(err)
		}
		c.s, fresh.s = nil, nil
		if c != fresh || c.TextBytes < 0 || c.TextBytes > 3*int64(len(data)) || c.Sequence < 0 || c.Usage.Input > 2*maxCount || !c.UsageSpan.Empty() {
			t.Fatalf("%q: %+v, afresh %+v", data, c, fresh)
		}
	})
}
