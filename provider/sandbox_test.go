package provider

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"bulkhead/fault"
	"bulkhead/openai"
)

// ask sends a request to the sandbox the way every call goes.
func ask(ctx context.Context, e openai.Endpoint, body string) (*Reply, error) {
	c := NewClient(Options{})
	defer c.Close()
	return c.Send(ctx, Target{Provider: Sandbox, Vendor: Builtin()[Sandbox]}, Credential{}, &Call{Endpoint: e, Body: []byte(body)})
}

func answer(t *testing.T, e openai.Endpoint, body string) string {
	t.Helper()
	r, err := ask(t.Context(), e, body)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	if !r.Stream && !json.Valid(b) {
		t.Errorf("not JSON: %s", b)
	}
	return string(b)
}

// TestSandboxGolden shows whole answers as they are.
func TestSandboxGolden(t *testing.T) {
	f := func(name string, e openai.Endpoint, body string) {
		t.Helper()
		got := answer(t, e, body)
		if again := answer(t, e, body); again != got {
			t.Errorf("%s: the second answer differs", name)
		}
		golden(t, "sandbox_"+name, body+"\n\n"+strings.TrimRight(got, "\n")+"\n")
	}
	hi := `"messages":[{"role":"system","content":"be kind"},{"role":"user","content":"hello big world"}]`
	tools := `"tools":[{"type":"function","function":{"name":"get"}},{"type":"function","function":{"name":"get_weather"}}]`
	call := `"messages":[{"role":"user","content":"please call get_weather {\"city\": \"Köln am Rhein\"} now"}]`
	f("chat", openai.Chat, `{"model":"echo",`+hi+`}`)
	f("chat_n2_length", openai.Chat, `{"model":"echo","n":2,"max_completion_tokens":2,`+hi+`}`)
	f("chat_stream", openai.Chat, `{"model":"echo","stream":true,`+hi+`}`)
	f("chat_stream_usage_n2", openai.Chat, `{"model":"echo","stream":true,"n":2,"stream_options":{"include_usage":true},`+hi+`}`)
	f("tool", openai.Chat, `{"model":"echo",`+tools+`,`+call+`}`)
	f("tool_stream", openai.Chat, `{"model":"echo","stream":true,`+tools+`,`+call+`}`)
	f("completions", openai.Completions, `{"model":"echo","prompt":["one two","three"],"stop":" "}`)
	f("completions_stream", openai.Completions, `{"model":"echo","prompt":["one two","three"],"stream":true,"stream_options":{"include_usage":true}}`)
	f("embeddings", openai.Embeddings, `{"model":"echo","input":["a b","B a!",""],"dimensions":4}`)
	f("moderations", openai.Moderations, `{"model":"echo","input":["fine","this is sandbox-flagged"]}`)
}

type chatAnswer struct {
	Choices []struct {
		Message struct {
			Content   *string
			ToolCalls []struct {
				Function struct{ Name, Arguments string }
			} `json:"tool_calls"`
		}
		FinishReason string `json:"finish_reason"`
	}
	Usage struct {
		Prompt     int `json:"prompt_tokens"`
		Completion int `json:"completion_tokens"`
		Total      int `json:"total_tokens"`
	}
}

func TestSandboxChat(t *testing.T) {
	f := func(members, content, finish string, tokens int) {
		t.Helper()
		var a chatAnswer
		if err := json.Unmarshal([]byte(answer(t, openai.Chat, `{"model":"echo",`+members+`}`)), &a); err != nil {
			t.Fatal(err)
		}
		c := a.Choices[0]
		got := ""
		if c.Message.Content != nil {
			got = *c.Message.Content
		}
		if got != content || c.FinishReason != finish || a.Usage.Completion != tokens || a.Usage.Total != a.Usage.Prompt+tokens {
			t.Errorf("%s: %q %s %+v", members, got, c.FinishReason, a.Usage)
		}
	}
	user := func(text string) string {
		b, _ := json.Marshal(text)
		return `"messages":[{"role":"user","content":` + string(b) + `}]`
	}
	f(user("hello"), "hello", "stop", 2)
	f(user(""), "", "stop", 0)
	f(user("ab\"\\\n\u2028é😀"), "ab\"\\\n\u2028é😀", "stop", 4)
	f(`"messages":[{"role":"user","content":"old"},{"role":"assistant","content":"x"},{"role":"user","content":"new"},{"role":"assistant","content":"y"}]`, "new", "stop", 1)
	f(`"messages":[{"role":"user","content":[{"type":"text","text":"a"},{"type":"image_url","image_url":{"url":"x"}},{"type":"text","text":"b"}]}]`, "ab", "stop", 1)
	f(`"messages":[{"role":"system","content":"only"}]`, "only", "stop", 1)
	f(`"max_tokens":1,`+user("12345"), "1234", "length", 1)
	f(`"max_tokens":2,`+user("12345"), "12345", "stop", 2)
	f(`"max_tokens":9,"max_completion_tokens":1,`+user("12345"), "1234", "length", 1)
	f(`"max_tokens":1,`+user("123é"), "123", "length", 1) // no half character
	f(`"max_tokens":9223372036854775807,`+user("12345"), "12345", "stop", 2)
	f(user(strings.Repeat("x", 4*sandboxOutput+1)), strings.Repeat("x", 4*sandboxOutput), "length", sandboxOutput)
	f(`"max_tokens":99999999,`+user(strings.Repeat("x", 4*sandboxOutput+1)), strings.Repeat("x", 4*sandboxOutput), "length", sandboxOutput)
	f(`"stop":"3",`+user("12345"), "12", "stop", 1)
	f(`"stop":["9","4","2"],`+user("12345"), "1", "stop", 1)
	f(`"stop":null,`+user("12345"), "12345", "stop", 2)
	f(`"n":3,`+user("12345"), "12345", "stop", 6)
	f(`"response_format":{"type":"json_object"},`+user(`a "b"`), `{"echo": "a \"b\""}`, "stop", 5)
	f(`"response_format":{"type":"json_schema","json_schema":{}},`+user("x"), `{"echo": "x"}`, "stop", 4)
	f(`"response_format":{"type":"text"},`+user("x"), "x", "stop", 1)
}

func TestSandboxTools(t *testing.T) {
	const tools = `"tools":[{"type":"function","function":{"name":"get"}},{"type":"function","function":{"name":"get_weather"}}],`
	f := func(members, name, args string) {
		t.Helper()
		var a chatAnswer
		if err := json.Unmarshal([]byte(answer(t, openai.Chat, `{"model":"echo",`+tools+members+`}`)), &a); err != nil {
			t.Fatal(err)
		}
		c := a.Choices[0]
		if name == "" {
			if len(c.Message.ToolCalls) != 0 || c.FinishReason != "stop" || c.Message.Content == nil {
				t.Errorf("%s: %+v", members, c)
			}
			return
		}
		if len(c.Message.ToolCalls) != 1 || c.Message.Content != nil || c.FinishReason != "tool_calls" {
			t.Errorf("%s: %+v", members, c)
		} else if fn := c.Message.ToolCalls[0].Function; fn.Name != name || fn.Arguments != args {
			t.Errorf("%s: %+v", members, fn)
		}
	}
	hi := `"messages":[{"role":"user","content":"hi"}]`
	f(hi, "", "")
	f(`"tool_choice":"auto",`+hi, "", "")
	f(`"tool_choice":"required",`+hi, "get", "{}")
	f(`"tool_choice":{"type":"function","function":{"name":"get_weather"}},`+hi, "get_weather", "{}")
	f(`"messages":[{"role":"user","content":"call get"}]`, "get", "{}")
	f(`"messages":[{"role":"user","content":"call get_weather {\"a\":{\"b\":\"}\"}} and go"}]`, "get_weather", `{"a":{"b":"}"}}`)
	f(`"messages":[{"role":"user","content":"call get_weather {bad"}]`, "get_weather", "{}")
	f(`"messages":[{"role":"user","content":"call nobody"}]`, "", "")
	f(`"tool_choice":"none","messages":[{"role":"user","content":"call get"}]`, "", "")
	f(`"tool_choice":{"type":"function","function":{"name":"get"}},"messages":[{"role":"user","content":"call get {\"x\":1}"}]`, "get", `{"x":1}`)
	// The result of a tool is echoed, else an agent's loop would never end.
	f(`"tool_choice":"required","messages":[{"role":"user","content":"call get"},{"role":"assistant","tool_calls":[]},{"role":"tool","tool_call_id":"c","content":"42"}]`, "", "")
}

// TestSandboxStream: the deltas joined are the message, the form is OpenAI's.
func TestSandboxStream(t *testing.T) {
	type chunk struct {
		ID      string
		Object  string
		Choices []struct {
			Index int
			Delta struct {
				Role, Content string
				ToolCalls     []struct {
					Index    *int
					ID       string
					Function struct{ Name, Arguments string }
				} `json:"tool_calls"`
			}
			FinishReason *string `json:"finish_reason"`
		}
		Usage *struct {
			Completion int `json:"completion_tokens"`
		}
	}
	f := func(members string, usage bool, want ...string) {
		t.Helper()
		opt := ""
		if usage {
			opt = `"stream_options":{"include_usage":true},`
		}
		out := answer(t, openai.Chat, `{"model":"echo","stream":true,`+opt+members+`}`)
		events := strings.Split(strings.TrimSuffix(out, "\n\n"), "\n\n")
		if events[len(events)-1] != "data: [DONE]" {
			t.Errorf("no end: %s", out)
		}
		got := make([]string, len(want))
		roles, ends, usages := 0, 0, 0
		for _, ev := range events[:len(events)-1] {
			var c chunk
			if err := json.Unmarshal([]byte(strings.TrimPrefix(ev, "data: ")), &c); err != nil || c.Object != "chat.completion.chunk" || c.ID == "" {
				t.Fatalf("%s: %v", ev, err)
			}
			if strings.Contains(ev, `"usage"`) != usage {
				t.Errorf("usage in %s", ev)
			}
			if c.Usage != nil {
				usages++
				if len(c.Choices) != 0 {
					t.Errorf("choices beside usage: %s", ev)
				}
			}
			for _, ch := range c.Choices {
				got[ch.Index] += ch.Delta.Content
				for _, tc := range ch.Delta.ToolCalls {
					if tc.Index == nil {
						t.Errorf("a call without index: %s", ev)
					}
					got[ch.Index] += tc.Function.Name + tc.Function.Arguments
				}
				if ch.Delta.Role != "" {
					roles++
				}
				if ch.FinishReason != nil {
					ends++
				}
			}
		}
		if fmt.Sprint(got) != fmt.Sprint(want) || roles != len(want) || ends != len(want) || usages != map[bool]int{true: 1}[usage] {
			t.Errorf("%s: %q, %d roles, %d ends, %d usages", members, got, roles, ends, usages)
		}
	}
	f(`"messages":[{"role":"user","content":"a  bc\n d "}]`, false, "a  bc\n d ")
	f(`"messages":[{"role":"user","content":""}]`, true, "")
	f(`"n":2,"max_tokens":1,"messages":[{"role":"user","content":"ab cd ef"}]`, true, "ab c", "ab c")
	f(`"tools":[{"function":{"name":"f"}}],"messages":[{"role":"user","content":"call f {\"k\": \"äöü äöü äöü\"}"}]`, true, `f{"k": "äöü äöü äöü"}`)
}

func TestSandboxErrors(t *testing.T) {
	f := func(e openai.Endpoint, body string, status int, param string) {
		t.Helper()
		_, err := ask(t.Context(), e, body)
		x := fault.As(err)
		if x.Kind != fault.Upstream || x.Status != status || x.Param != param || x.Type != "invalid_request_error" || x.Retriable {
			t.Errorf("%s: %+v", body, x)
		}
		if status == 404 && x.Code != "model_not_found" {
			t.Errorf("%s: %+v", body, x)
		}
	}
	f(openai.Chat, `{"model":"gpt-4o","messages":[{"role":"user","content":"x"}]}`, 404, "model")
	f(openai.Embeddings, `{"model":"x","input":"y"}`, 404, "model")
	f(openai.Chat, `{"messages":[]}`, 400, "model")
	f(openai.Chat, `{"model":"echo","messages":[]}`, 400, "messages")
	f(openai.Chat, `{"model":"echo","n":0,"messages":[{}]}`, 400, "n")
	f(openai.Chat, `{"model":"echo","n":129,"messages":[{}]}`, 400, "n")
	f(openai.Chat, `{"model":"echo","max_tokens":0,"messages":[{}]}`, 400, "max_tokens")
	f(openai.Chat, `{"model":"echo","max_tokens":"x","messages":[{}]}`, 400, "max_tokens")
	f(openai.Chat, `{"model":"echo","stop":5,"messages":[{}]}`, 400, "stop")
	f(openai.Chat, `{"model":`, 400, "")
	f(openai.Completions, `{"model":"echo"}`, 400, "prompt")
	f(openai.Completions, `{"model":"echo","n":65,"prompt":["a","b"]}`, 400, "n")
	f(openai.Embeddings, `{"model":"echo","dimensions":4096,"input":[`+strings.Repeat(`"x",`, 256)+`"x"]}`, 400, "input")
	f(openai.Embeddings, `{"model":"echo","input":[]}`, 400, "input")
	f(openai.Embeddings, `{"model":"echo","input":[null]}`, 400, "input")
	f(openai.Embeddings, `{"model":"echo","input":"x","dimensions":0}`, 400, "dimensions")
	f(openai.Embeddings, `{"model":"echo","input":"x","encoding_format":"hex"}`, 400, "encoding_format")
	f(openai.Moderations, `{"model":"echo"}`, 400, "input")
}

func TestSandboxEmbeddings(t *testing.T) {
	vectors := func(members string) [][]float32 {
		t.Helper()
		var a struct {
			Data []struct{ Embedding json.RawMessage }
		}
		if err := json.Unmarshal([]byte(answer(t, openai.Embeddings, `{"model":"echo",`+members+`}`)), &a); err != nil {
			t.Fatal(err)
		}
		out := make([][]float32, len(a.Data))
		for i, d := range a.Data {
			var s string
			if json.Unmarshal(d.Embedding, &s) != nil {
				if err := json.Unmarshal(d.Embedding, &out[i]); err != nil {
					t.Fatal(err)
				}
				continue
			}
			raw, err := base64.StdEncoding.DecodeString(s)
			if err != nil {
				t.Fatal(err)
			}
			out[i] = make([]float32, len(raw)/4)
			if err := binary.Read(bytes.NewReader(raw), binary.LittleEndian, out[i]); err != nil {
				t.Fatal(err)
			}
		}
		return out
	}
	dot := func(a, b []float32) (sum float64) {
		for i := range a {
			sum += float64(a[i]) * float64(b[i])
		}
		return sum
	}
	const in = `"input":["the cat sat on the mat","The cat, sat on a mat.","stock prices fell today",""]`
	v := vectors(in)
	for i := range v {
		if len(v[i]) != 256 || math.Abs(dot(v[i], v[i])-1) > 1e-5 {
			t.Errorf("vector %d: %d dimensions, length %v", i, len(v[i]), dot(v[i], v[i]))
		}
	}
	if near, far := dot(v[0], v[1]), dot(v[0], v[2]); near < 0.6 || far > 0.4 {
		t.Errorf("near %v, far %v", near, far)
	}
	if b := vectors(`"encoding_format":"base64",` + in); fmt.Sprint(b) != fmt.Sprint(v) {
		t.Error("base64 differs from float")
	}
	if got := vectors(`"dimensions":1536,"input":[[1,2],[3]]`); len(got) != 2 || len(got[0]) != 1536 {
		t.Error("token ids")
	}
	if got := vectors(`"input":[1,2,3]`); len(got) != 1 {
		t.Error("one list of ids is one input")
	}
}

// TestSandboxSlow: one word per 200 ms, each readable at once, and the end of the
// caller is the end of it. The clock is synctest's.
func TestSandboxSlow(t *testing.T) {
	const body = `{"model":"slow","stream":true,"messages":[{"role":"user","content":"one two three"}]}`
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		r, err := ask(t.Context(), openai.Chat, body)
		if err != nil || time.Since(start) != 0 {
			t.Fatal(err, time.Since(start))
		}
		var at []time.Duration
		buf := make([]byte, 4096)
		for {
			n, err := r.Body.Read(buf)
			if bytes.Contains(buf[:n], []byte(`"delta":{"content":"`)) {
				at = append(at, time.Since(start))
			}
			if bytes.Count(buf[:n], []byte("data: ")) > 1 {
				t.Errorf("two events at once: %s", buf[:n])
			}
			if err != nil {
				break
			}
		}
		r.Body.Close()
		if fmt.Sprint(at) != "[200ms 400ms 600ms]" {
			t.Error(at)
		}

		ctx, cancel := context.WithCancel(t.Context())
		start = time.Now()
		r, err = ask(ctx, openai.Chat, body)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.Body.Read(buf); err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(50*time.Millisecond, cancel)
		if _, err := r.Body.Read(buf); !errors.Is(err, context.Canceled) || time.Since(start) != 50*time.Millisecond {
			t.Error(err, time.Since(start))
		}
		r.Body.Close()

		// Close from elsewhere ends a Read that waits.
		start = time.Now()
		if r, err = ask(t.Context(), openai.Chat, body); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Body.Read(buf); err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(50*time.Millisecond, func() { r.Body.Close() })
		if _, err := r.Body.Read(buf); err == nil || time.Since(start) != 50*time.Millisecond {
			t.Error(err, time.Since(start))
		}

		// Without a stream it answers after the last word.
		start = time.Now()
		r, err = ask(t.Context(), openai.Chat, strings.Replace(body, `"stream":true,`, "", 1))
		if err != nil || time.Since(start) != 600*time.Millisecond {
			t.Fatal(err, time.Since(start))
		}
		r.Body.Close()
		ctx, cancel = context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		start = time.Now()
		if _, err = ask(ctx, openai.Chat, strings.Replace(body, `"stream":true,`, "", 1)); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 300*time.Millisecond {
			t.Error(err, time.Since(start))
		}
	})
}

func TestSandboxDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := NewClient(Options{Sandbox: &SandboxTransport{Delay: time.Millisecond}})
		start := time.Now()
		r, err := c.Send(t.Context(), Target{Vendor: Builtin()[Sandbox]}, Credential{}, &Call{Endpoint: openai.Completions, Body: []byte(`{"model":"slow","prompt":"a b"}`)})
		if err != nil || time.Since(start) != 2*time.Millisecond {
			t.Fatal(err, time.Since(start))
		}
		r.Body.Close()
	})
}

// FuzzSandbox: whatever comes, the answer is OpenAI's form or its error form.
func FuzzSandbox(f *testing.F) {
	f.Add("/chat/completions", []byte(`{"model":"echo","messages":[{"role":"user","content":"call f {\"a\":1}"}],"tools":[{"function":{"name":"f"}}],"stream":true}`))
	f.Add("/chat/completions", []byte(`{"model":"echo","n":2,"stop":["a"],"max_tokens":1,"messages":[{"role":"user","content":[{"text":"ä"}]}]}`))
	f.Add("/completions", []byte(`{"model":"echo","prompt":[[1],"x"]}`))
	f.Add("/embeddings", []byte(`{"model":"echo","input":["x",[1,2]],"encoding_format":"base64","dimensions":3}`))
	f.Add("/moderations", []byte(`{"model":"echo","input":[{"type":"text","text":"x"}]}`))
	s := &SandboxTransport{}
	f.Fuzz(func(t *testing.T, path string, body []byte) {
		if bytes.Contains(body, []byte("slow")) {
			return // its waits are another test's
		}
		resp, err := s.answer(t.Context(), path, body)
		if e, ok := err.(*sandboxError); ok {
			resp = e.response(&http.Request{})
		} else if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		if resp.Header.Get("Content-Type") == "application/json" {
			if !json.Valid(b) {
				t.Fatalf("%s: %s", body, b)
			}
			return
		}
		for ev := range strings.SplitSeq(strings.TrimSuffix(string(b), "\n\n"), "\n\n") {
			data, ok := strings.CutPrefix(ev, "data: ")
			if !ok || data != "[DONE]" && !json.Valid([]byte(data)) {
				t.Fatalf("%s: %q", body, ev)
			}
		}
	})
}
