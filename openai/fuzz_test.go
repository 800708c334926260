package openai

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
	"unicode/utf8"

	"bulkhead/fault"
)

// fuzzed are the endpoints whose bodies FuzzScan tries.
var fuzzed = [...]Endpoint{Chat, Completions, Embeddings, Moderations, Responses}

// FuzzScan checks, for each body that is accepted, that what goes upstream scans
// again, has the new model, and is the same but for what was edited; and that
// encoding/json, which takes the last of duplicates and ignores case, reads the
// same model.
func FuzzScan(f *testing.F) {
	for _, body := range []string{
		`{"model":"m","stream":true,"stream_options":null,"messages":[{"role":"user","content":"x"}]}`,
		`{"stream_options":{"a":1},"stream":true,"model":"\u006d","messages":[{"role":"user","content":[{"type":"text","text":"\ud83d\ude00"}]}],"z":1e999}`,
		`{"model":"m","messages":[{"role":"user"}],"max_tokens":5,"max_completion_tokens":7,"n":2}`,
		`{"model":"m","input":[[1,2],[3]],"encoding_format":"float","dimensions":3}`,
		`{"input":[{"type":"text","text":"x"}]}`,
		`{"model":"m","prompt":["a","b"],"best_of":3,"stream":true,"stream_options":{}}`,
		`{"model":"a","mod\u0065l":"b"}`,
		`{"model":"m","Model":"n","input":"x"}`,
		`{"model":"m","messages":[{"role":"user","x":1,"content":[{"type":"image_url","image_url":{"url":"u","detail":"low"}},` +
			`{"type":"file","file":{"file_id":"f"}},{"type":"v","cache_control":{}}]}],"tools":[{"type":"function"},{"type":"t"},1],"modalities":["audio","x"],"store":true}`,
		`{"max_completion_tokens":9,"max_tokens":null,"model":"m","messages":[{"role":"user"}]}`,
		`{"model":"m","stream":true,"messages":[{"role":"user"}],"max_tokens":2 , "max_completion_tokens" : 1}`,
		`{"model":"m","input":[{"role":"user","content":[{"type":"input_image","image_url":"u","detail":"low"},{"type":"input_file","file_id":"f"},{"type":null}]},` +
			`{"type":"computer_call_output","output":{"type":"computer_screenshot"}},{"type":"reasoning","encrypted_content":"x"},{}],"max_output_tokens":9}`,
		`{"previous_response_id":"a","conversation":{},"background":true,"store":null,"input":"x","instructions":"y","text":{},"stream":true,"model":"m"}`,
	} {
		for e := range fuzzed {
			f.Add(uint8(e), []byte(body))
		}
	}
	form := UpstreamForm{Model: "up/stream", IncludeUsage: true, EncodingFormat: "base64", MaxOutput: 3}
	f.Fuzz(func(t *testing.T, endpoint uint8, body []byte) {
		e := fuzzed[int(endpoint)%len(fuzzed)]
		var r Request
		kept := bytes.Clone(body)
		err := r.Scan(e, body)
		if !bytes.Equal(body, kept) {
			t.Fatal("Scan changed the body")
		}
		if err != nil {
			if !fault.Is(err, fault.Invalid) {
				t.Fatalf("the error is no fault of the client: %v", err)
			}
			return
		}
		if !utf8.Valid(body) || r.TextBytes < 0 || r.TextBytes > int64(len(body)) || r.N < 1 || r.MaxOutput < 0 {
			t.Fatalf("impossible: %+v", r)
		}
		var plain struct{ Model *string }
		if json.Unmarshal(body, &plain) == nil && plain.Model != nil && *plain.Model != r.Model {
			t.Fatalf("model %q, encoding/json reads %q", r.Model, *plain.Model)
		}
		if same := r.AppendUpstream(nil, UpstreamForm{Model: r.Model}); !bytes.Equal(same, body) {
			t.Fatalf("no change, yet %q", same)
		}
		checkSpans(t, &r)
		checkMaxTokens(t, &r)
		out := r.AppendUpstream(nil, form)
		var again Request
		if err := again.Scan(e, out); err != nil {
			t.Fatalf("%q does not scan: %v", out, err)
		}
		generates := e == Chat || e == Completions || e == Responses
		switch {
		case again.Model != form.Model,
			generates && (again.MaxOutput < 1 || again.MaxOutput > form.MaxOutput),
			generates && e != Responses && r.Stream && !again.IncludeUsage,
			again.Previous != r.Previous, again.Store != r.Store, again.Stream != r.Stream, again.Later != r.Later, again.Conversation != r.Conversation,
			e == Embeddings && again.EncodingFormat != "base64",
			again.TextBytes != r.TextBytes, again.Messages != r.Messages, again.User != r.User:
			t.Fatalf("%q became %q: %+v", body, out, again)
		}
		if !reflect.DeepEqual(unedited(t, body), unedited(t, out)) {
			t.Fatalf("%q became %q", body, out)
		}
	})
}

// checkSpans checks that all that was noted stands in the body, and that the
// texts are no less than what is counted.
func checkSpans(t *testing.T, r *Request) {
	t.Helper()
	var size int64
	for _, at := range r.Texts {
		if at.Start < 0 || at.Start >= at.End || at.End > len(r.Body) {
			t.Fatalf("a text at %v of %d bytes", at, len(r.Body))
		}
		size += int64(at.End - at.Start)
	}
	if size < r.TextBytes || size > int64(len(r.Body)) {
		t.Fatalf("%d bytes of text at places of %d, in %d", r.TextBytes, size, len(r.Body))
	}
	odd := 0
	for _, s := range r.Seen {
		if s.Name.Start < 0 || s.Name.End < s.Name.Start || s.Name.End > len(r.Body) {
			t.Fatalf("a name at %v of %d bytes", s.Name, len(r.Body))
		}
		if s.Where != Field {
			odd++
		}
	}
	if odd > maxOddities+int(ItemType) || r.LowImages > r.Images || r.AudioBytes > int64(len(r.Body)) {
		t.Fatalf("impossible: %+v", r)
	}
}

// checkMaxTokens checks the body for an upstream that knows max_tokens only.
func checkMaxTokens(t *testing.T, r *Request) {
	t.Helper()
	for _, limit := range []int64{0, 3} {
		out := r.AppendUpstream(nil, UpstreamForm{Model: "n", IncludeUsage: true, MaxOutput: limit, MaxTokensOnly: true})
		var again Request
		if err := again.Scan(r.Endpoint, out); err != nil {
			t.Fatalf("%q became %q: %v", r.Body, out, err)
		}
		if r.Endpoint == Chat || r.Endpoint == Completions || r.Endpoint == Responses {
			want := r.MaxOutput
			if limit > 0 && (want == 0 || want > limit) {
				want = limit
			}
			if again.MaxOutput != want || r.Endpoint == Chat && !again.MaxCompletionTokensSpan.Empty() {
				t.Fatalf("%q became %q, limit %d", r.Body, out, limit)
			}
		}
		if !reflect.DeepEqual(unedited(t, r.Body), unedited(t, out)) {
			t.Fatalf("%q became %q", r.Body, out)
		}
	}
}

// unedited decodes body without the members FuzzScan's form may change.
func unedited(t *testing.T, body []byte) map[string]any {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	var m map[string]any
	if err := d.Decode(&m); err != nil {
		t.Fatalf("encoding/json does not read what was accepted: %v", err)
	}
	if o, ok := m["stream_options"].(map[string]any); ok {
		delete(o, "include_usage")
		if len(o) == 0 {
			delete(m, "stream_options")
		}
	} else {
		delete(m, "stream_options")
	}
	for _, k := range []string{"model", "encoding_format", "max_tokens", "max_completion_tokens", "max_output_tokens"} {
		delete(m, k)
	}
	return m
}

// FuzzEventReader checks that events do not depend on how the bytes arrive.
func FuzzEventReader(f *testing.F) {
	f.Add("data: a\n\n: c\r\n\r\ndata: b\rdata: c\r\r", 0)
	f.Add("\xEF\xBB\xBFevent: x\ndata\n\n\r\n\r", 12)
	f.Add("data: 0123456789\r\n\r\ndata: [DONE]", 16)
	f.Fuzz(func(t *testing.T, stream string, limit int) {
		limit &= 63
		whole := events(strings.NewReader(stream), limit)
		if got := events(iotest.OneByteReader(strings.NewReader(stream)), limit); got != whole {
			t.Fatalf("%q by bytes\n%swhole\n%s", stream, got, whole)
		}
		if got := events(iotest.HalfReader(strings.NewReader(stream)), limit); got != whole {
			t.Fatalf("%q by halves\n%swhole\n%s", stream, got, whole)
		}
		e := NewEventReader(strings.NewReader(stream), limit)
		for {
			ev, err := e.Next()
			if err == io.EOF || err == io.ErrUnexpectedEOF || err == ErrEventTooLarge {
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if ev.Data == nil {
				continue
			}
			written := AppendEvent(nil, string(ev.Name), ev.Data)
			back, err := NewEventReader(bytes.NewReader(written), 0).Next()
			if err != nil || !bytes.Equal(back.Data, ev.Data) || !bytes.Equal(back.Name, ev.Name) {
				t.Fatalf("%q written is %q and reads %q %q, %v", ev.Raw, written, back.Name, back.Data, err)
			}
		}
	})
}

// FuzzParseError checks that any body gives texts a client can be shown.
func FuzzParseError(f *testing.F) {
	f.Add([]byte(`{"error":{"message":"no","code":1}}`))
	f.Add([]byte(`[{"error":{"details":[{"reason":"x"}]}}]`))
	f.Add([]byte(`{"detail":[{"loc":["body",1e300],"msg":"x"}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		e := ParseError(body)
		if len(e.Message) > maxMessage || !utf8.ValidString(e.Message) {
			t.Fatalf("message %q", e.Message)
		}
		out := AppendError(nil, string(body), e.Type, e.Param, e.Code)
		if !json.Valid(out) || bytes.ContainsAny(out, "\r\n") {
			t.Fatalf("the envelope is not one line of JSON: %q", out)
		}
		if back := ParseError(AppendError(nil, e.Message, e.Type, e.Param, e.Code)); e.Message != "" && back != e {
			t.Fatalf("%+v came back as %+v", e, back)
		}
	})
}

// FuzzConvertEmbeddings checks that a body that can be made base64 can be made
// floats and base64 again, the same both times, as valid JSON.
func FuzzConvertEmbeddings(f *testing.F) {
	f.Add([]byte(`{"data":[{"embedding":[1,-0.5,1e-45,3.4e38]},{"embedding":"AACAPw=="}]}`))
	f.Add([]byte(`{"data":[{"embedding":[ ]}],"x":[1]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		coded, err := ConvertEmbeddings(nil, body, "base64")
		if err != nil {
			return
		}
		if json.Valid(body) && !json.Valid(coded) {
			t.Fatalf("%q became %q", body, coded)
		}
		floats, err := ConvertEmbeddings(nil, coded, "float")
		if err != nil {
			return // the body's own strings need not be vectors
		}
		again, err := ConvertEmbeddings(nil, floats, "base64")
		if err != nil {
			t.Fatalf("%q: %v", floats, err)
		}
		if !reflect.DeepEqual(vectors(coded), vectors(again)) {
			t.Fatalf("%q became %q", coded, again)
		}
	})
}

// vectors returns the decoded embeddings of a base64 answer, empty ones as nil.
func vectors(body []byte) [][]byte {
	var answer struct {
		Data []struct {
			Embedding string `json:"embedding"`
		} `json:"data"`
	}
	if json.Unmarshal(body, &answer) != nil {
		return nil // names that come twice with different kinds
	}
	var all [][]byte
	for _, d := range answer.Data {
		v, _ := base64.StdEncoding.DecodeString(d.Embedding)
		all = append(all, append([]byte(nil), v...))
	}
	return all
}

// FuzzScanChunk checks that removing the usage gives JSON that is the same but
// for it, and that usage is in bounds.
func FuzzScanChunk(f *testing.F) {
	f.Add([]byte(`{"model":"m","choices":[{"delta":{"content":"a\u00e9"}}],"usage":null}`))
	f.Add([]byte(`{"usage":{"prompt_tokens":1,"completion_tokens_details":{"reasoning_tokens":2}} , "choices":[]}`))
	f.Add([]byte(`{"type":"audio","data":[{}],"duration":1.5}`))
	f.Add([]byte(`{"type":"`))
	f.Add([]byte(`{"error":{"message":"x"},"choices":[{"delta":{"tool_calls":[{"function":{"name":"f"}}]}}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		text := &Text{Max: 10}
		if err := ScanChunk(data, &Chunk{Media: true}); err == nil && ScanChunk(data, &Chunk{}) != nil {
			t.Fatalf("%q is an event of images or sound only", data)
		}
		c := Chunk{Model: "old", Text: text}
		kept := bytes.Clone(data)
		err := ScanChunk(data, &c)
		if !bytes.Equal(data, kept) {
			t.Fatal("ScanChunk changed the data")
		}
		if err != nil {
			return
		}
		if c.Usage.Input < 0 || c.Usage.Input > 2*maxCount || c.TextBytes < 0 || c.TextBytes > 3*int64(len(data)) || len(text.Bytes) > text.Max {
			t.Fatalf("impossible: %+v", c)
		}
		var before, after map[string]any
		if json.Unmarshal(data, &before) != nil {
			return // numbers beyond float64
		}
		out := AppendWithoutUsage(nil, data, &c)
		if err := json.Unmarshal(out, &after); err != nil {
			t.Fatalf("%q became %q: %v", data, out, err)
		}
		_, had := before["usage"]
		delete(before, "usage")
		if had == c.UsageSpan.Empty() || !reflect.DeepEqual(before, after) {
			t.Fatalf("%q became %q", data, out)
		}
	})
}
