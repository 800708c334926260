package openai

import (
	"errors"
	"strings"
	"testing"

	"bulkhead/fault"
)

func mustScan(t *testing.T, e Endpoint, body string) *Request {
	t.Helper()
	r := new(Request)
	if err := r.Scan(e, []byte(body)); err != nil {
		t.Fatalf("Scan(%s, %.200s): %v", e, body, err)
	}
	return r
}

func equal[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s is %v, want %v", what, got, want)
	}
}

func TestScanChat(t *testing.T) {
	body := ` {"model" : "gpt\u002d4o", "stream":true,"stream_options":{"x":1,"include_usage":true},
		"max_tokens":50,"max_completion_tokens":40,"n":3,"user":"u1","safety_identifier":"s1","service_tier":"flex",
		"unknown":[{"a":1e999}],"temperature":0.5,
		"messages":[{"role":"system","content":"\u00e9\ud83d\ude00\n"},
			{"content":"one","role":"user"},
			{"role":"assistant","content":null,"tool_calls":[1,2]},
			{"role":"user","content":[{"type":"text","text":"abc"},{"type":"image_url","image_url":{"url":"data:xxxxxxxx"}},
				{"type":"input_audio","input_audio":{}},{"type":"file","file":{}},{"type":"zebra","z":"0123456789"}]},
			{"role":"tool","content":"t","tool_call_id":"c1"}],
		"tools":[{"type":"function"}],"response_format":null} `
	r := mustScan(t, Chat, body)
	equal(t, "Model", r.Model, "gpt-4o")
	equal(t, "ModelSpan", string(r.ModelSpan.Of(r.Body)), `"gpt\u002d4o"`)
	equal(t, "Stream", r.Stream, true)
	equal(t, "StreamSpan", string(r.StreamSpan.Of(r.Body)), `true`)
	equal(t, "StreamOptions", string(r.StreamOptions.Of(r.Body)), `{"x":1,"include_usage":true}`)
	equal(t, "IncludeUsage", r.IncludeUsage, true)
	equal(t, "MaxOutput", r.MaxOutput, 40)
	equal(t, "MaxOutputField", r.MaxOutputField, "max_completion_tokens")
	equal(t, "MaxTokensSpan", string(r.MaxTokensSpan.Of(r.Body)), `50`)
	equal(t, "MaxCompletionTokensSpan", string(r.MaxCompletionTokensSpan.Of(r.Body)), `40`)
	equal(t, "N", r.N, 3)
	equal(t, "User", r.User, "s1")
	equal(t, "ServiceTier", r.ServiceTier, "flex")
	equal(t, "Messages", r.Messages, 5)
	span := string(r.MessagesSpan.Of(r.Body))
	if !strings.HasPrefix(span, `[{"role":"system"`) || !strings.HasSuffix(span, `"c1"}]`) {
		t.Errorf("MessagesSpan is %s", span)
	}
	last := string(r.LastUser.Of(r.Body))
	if !strings.HasPrefix(last, `[{"type":"text"`) || !strings.HasSuffix(last, `"0123456789"}]`) {
		t.Errorf("LastUser is %s", last)
	}
	equal(t, "Images", r.Images, 1)
	equal(t, "Audios", r.Audios, 1)
	equal(t, "Files", r.Files, 1)
	text := len("é😀\n") + len("one") + len(`[1,2]`) + len("abc") + len(`{"type":"zebra","z":"0123456789"}`) +
		len("t") + len(`"c1"`) + len(`[{"type":"function"}]`)
	equal(t, "TextBytes", r.TextBytes, int64(text))
}

func TestScanOther(t *testing.T) {
	f := func(e Endpoint, body string, items int, tokens, textBytes int64) *Request {
		t.Helper()
		r := mustScan(t, e, body)
		equal(t, "InputItems", r.InputItems, items)
		equal(t, "InputTokens", r.InputTokens, tokens)
		equal(t, "TextBytes", r.TextBytes, textBytes)
		return r
	}
	f(Embeddings, `{"model":"m","input":"abc"}`, 1, 0, 3)
	f(Embeddings, `{"model":"m","input":["abc","de"]}`, 2, 0, 5)
	f(Embeddings, `{"model":"m","input":[1,2,3]}`, 1, 3, 0)
	f(Embeddings, `{"model":"m","input":[[1,2,3],[4],[]]}`, 3, 4, 0)
	r := f(Embeddings, `{"model":"m","input":"","encoding_format":"base64","dimensions":256}`, 1, 0, 0)
	equal(t, "EncodingFormat", r.EncodingFormat, "base64")
	equal(t, "Dimensions", r.Dimensions, 256)
	f(Embeddings, `{"model":"m","input":"x","encoding_format":null,"stream":"not read here"}`, 1, 0, 1)

	// more integers than inputs are allowed: they are tokens of one input
	f(Embeddings, `{"model":"m","input":[`+strings.Repeat("1,", 5000)+`1]}`, 1, 5001, 0)

	f(Moderations, `{"model":"m","input":[{"type":"text","text":"abc"},{"type":"image_url","image_url":{"url":"x"}}]}`, 1, 0, 3)
	r = f(Moderations, `{"input":"abc"}`, 1, 0, 3)
	equal(t, "Model", r.Model, DefaultModerationModel)
	equal(t, "ModelSpan.Empty", r.ModelSpan.Empty(), true)

	r = f(Completions, `{"model":"m","prompt":["a","b"],"suffix":"xyz","n":2,"best_of":5,"max_tokens":7,"stream":false,"stream_options":null}`, 2, 0, 2+5)
	equal(t, "N", r.N, 5)
	equal(t, "MaxOutput", r.MaxOutput, 7)
	f(Completions, `{"model":"m","prompt":[[1,2],[3]]}`, 2, 3, 0)
	f(Completions, `{"model":"m"}`, 0, 0, 0)
	f(Completions, `{"model":"m","prompt":null}`, 0, 0, 0)
}

// safety_identifier goes before user, whichever comes first.
func TestScanUser(t *testing.T) {
	f := func(fields, want string) {
		t.Helper()
		equal(t, "User of "+fields, mustScan(t, Chat, `{"model":"m",`+msgs+`,`+fields+`}`).User, want)
	}
	f(`"user":"u"`, "u")
	f(`"user":"u","safety_identifier":"s"`, "s")
	f(`"safety_identifier":"s","user":"u"`, "s")
	f(`"safety_identifier":"","user":"u"`, "u")
	f(`"safety_identifier":null,"user":null`, "")
}

func TestScanReuse(t *testing.T) {
	r := new(Request)
	full := `{"model":"a","stream":true,"user":"u","n":4,"max_tokens":9,"messages":[{"role":"user","content":"x"}]}`
	if err := r.Scan(Chat, []byte(full)); err != nil {
		t.Fatal(err)
	}
	if err := r.Scan(Chat, []byte(`{"model":`)); err == nil {
		t.Fatal("half a body is accepted")
	}
	if err := r.Scan(Embeddings, []byte(`{"model":"b","input":"y"}`)); err != nil {
		t.Fatal(err)
	}
	if r.Stream || r.User != "" || r.N != 1 || r.MaxOutput != 0 || r.Messages != 0 || !r.LastUser.Empty() || r.Model != "b" {
		t.Errorf("a second Scan kept something of the first: %+v", r)
	}
	r.Reset()
	if r.Body != nil || r.Model != "" {
		t.Errorf("Reset kept something: %+v", r)
	}
}

// refuse checks that body is a 400 that names param and quotes nothing of it.
func refuse(t *testing.T, e Endpoint, body, param string) {
	t.Helper()
	err := new(Request).Scan(e, []byte(body))
	var fe *fault.Error
	if !errors.As(err, &fe) {
		t.Errorf("Scan(%s, %.120s) is %v, want a fault", e, body, err)
		return
	}
	if fe.Kind != fault.Invalid || fe.Param != param || fe.Message == "" {
		t.Errorf("Scan(%s, %.120s) is kind %d, param %q, message %q; want Invalid, param %q", e, body, fe.Kind, fe.Param, fe.Message, param)
	}
	if strings.Contains(fe.Error(), "SECRET") {
		t.Errorf("the error quotes the body: %v", fe)
	}
}

const msgs = `"messages":[{"role":"user","content":"x"}]`

func TestScanHostile(t *testing.T) {
	f := func(body, param string) { t.Helper(); refuse(t, Chat, body, param) }

	// no JSON object
	f(``, "")
	f(` `, "")
	f(`[]`, "")
	f(`"SECRET"`, "")
	f(`null`, "")
	f(`<html>SECRET</html>`, "")
	f(`{`, "")
	f(`{"model":"m",`+msgs, "")
	f("\xEF\xBB\xBF"+`{"model":"m",`+msgs+`}`, "") // byte order mark
	f("{\"model\":\"m\",\x00"+msgs+"}", "")

	// something behind it
	f(`{"model":"m",`+msgs+`}garbage`, "")
	f(`{"model":"m",`+msgs+`}}`, "")
	f(`{"model":"m",`+msgs+`}{}`, "")
	f(`{"model":"m",`+msgs+`} ,`, "")
	f(`{"model":"m",`+msgs+`} null`, "")
	f("{\"model\":\"m\","+msgs+"}\x00", "")

	// syntax
	f(`{"model":"m",`+msgs+`,}`, "")
	f(`{"model":"m",`+msgs+`,"x":01}`, "")
	f(`{"model":"m",`+msgs+`,"x":NaN}`, "")
	f(`{'model':'m',`+msgs+`}`, "")
	f(`{"model":"m",`+msgs+`,"x":"a`+"\n"+`b"}`, "")

	// duplicates, plain, escaped and deep down
	f(`{"model":"cheap","model":"dear",`+msgs+`}`, "model")
	f(`{"model":"cheap",`+msgs+`,"mod\u0065l":"dear"}`, "model")
	f(`{"mod\u0065l":"dear",`+msgs+`}`, "")
	f(`{"model":"m",`+msgs+`,`+msgs+`}`, "messages")
	f(`{"model":"m","messages":[{"role":"user","content":"a","content":"SECRET"}]}`, "")
	f(`{"model":"m",`+msgs+`,"metadata":{"SECRET":1,"S\u0045CRET":2}}`, "")
	f(`{"model":"m",`+msgs+`,"stream":true,"stream_options":{"include_usage":false,"include_usage":true}}`, "")

	// names that differ in case, also by Unicode folding (U+017F, U+212A)
	f(`{"model":"m","Model":"dear",`+msgs+`}`, "model")
	f(`{"model":"m","MAX_TOKENS":1,`+msgs+`}`, "max_tokens")
	f(`{"model":"m","ſtream":true,`+msgs+`}`, "stream")
	f(`{"model":"m","max_toKens":1,`+msgs+`}`, "max_tokens")
	f(`{"model":"m","messages":[{"role":"user","Content":"x"}]}`, "messages[0].content")
	f(`{"model":"m","messages":[{"role":"user","cont\u0065nt":"x"}]}`, "messages[0]")
	f(`{"model":"m","messages":[{"role":"user","content":[{"type":"image_url","TEXT":"x"}]}]}`, "messages[0].content[0].text")
	f(`{"model":"m","stream":true,"stream_options":{"Include_Usage":true},`+msgs+`}`, "stream_options.include_usage")

	// text that is not Unicode
	f(`{"model":"m","messages":[{"role":"user","content":"`+"\xff"+`"}]}`, "")
	f(`{"model":"m","messages":[{"role":"user","content":"\ud800"}]}`, "")
	f(`{"model":"m","messages":[{"role":"user","content":"\udc00\ud800"}]}`, "")
	f(`{"model":"m",`+msgs+`,"x":"`+"\xc0\x80"+`"}`, "")

	// sizes
	deep := strings.Repeat("[", 200_000) + strings.Repeat("]", 200_000)
	f(`{"model":"m",`+msgs+`,"x":`+deep+`}`, "")
	f(deep, "")
	f(`{"model":"m",`+msgs+`,"x":`+strings.Repeat(`{"a":`, 200_000)+`1`+strings.Repeat("}", 200_000)+`}`, "")
	f(`{"model":"m",`+msgs+`,"x":{`+manyNames(513)+`}}`, "")
	f(`{"model":"m",`+msgs+`,`+manyNames(511)+`}`, "")
	f(`{"model":"m","messages":[`+strings.Repeat(`{"role":"user"},`, 2048)+`{"role":"user"}]}`, "messages")
}

// The largest that is still accepted, so that the limits are where they are said.
func TestScanLimits(t *testing.T) {
	nest := strings.Repeat("[", 63) + strings.Repeat("]", 63) // and the body's own object
	mustScan(t, Chat, `{"model":"m",`+msgs+`,"x":`+nest+`}`)
	refuse(t, Chat, `{"model":"m",`+msgs+`,"x":[`+nest+`]}`, "")
	mustScan(t, Chat, `{"model":"m",`+msgs+`,"x":{`+manyNames(512)+`}}`)
	mustScan(t, Chat, `{"model":"m",`+msgs+`,`+manyNames(510)+`}`)
	r := mustScan(t, Chat, `{"model":"m","messages":[`+strings.Repeat(`{"role":"user"},`, 2047)+`{"role":"user"}]}`)
	equal(t, "Messages", r.Messages, 2048)
	mustScan(t, Chat, `{"model":"`+strings.Repeat("m", 256)+`",`+msgs+`}`)
	mustScan(t, Chat, `{"model":"m","max_tokens":2147483648,"n":128,`+msgs+`}`)
	mustScan(t, Embeddings, `{"model":"m","input":[`+strings.Repeat(`"",`, 2047)+`""]}`)
}

func manyNames(n int) string {
	var b strings.Builder
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(`"k`)
		for d := i; d > 0; d /= 10 {
			b.WriteByte('0' + byte(d%10))
		}
		b.WriteString(`":0`)
	}
	return b.String()
}

func TestScanFields(t *testing.T) {
	f := func(fields, param string) {
		t.Helper()
		refuse(t, Chat, `{"model":"m",`+msgs+`,`+fields+`}`, param)
	}
	model := func(literal string) { t.Helper(); refuse(t, Chat, `{"model":`+literal+`,`+msgs+`}`, "model") }
	model(`""`)
	model(`null`)
	model(`1`)
	model(`["m"]`)
	model(`"a\nb"`)
	model(`"a\u007fb"`)
	model(`"a\u0085b"`)
	model(`"` + strings.Repeat("m", 257) + `"`)
	refuse(t, Chat, `{`+msgs+`}`, "model")

	for _, field := range []string{"max_tokens", "max_completion_tokens", "n"} {
		for _, bad := range []string{"0", "-1", "-0", "1.0", "1e3", "1e999", "1.5", "99999999999999999999", "2147483649", `"5"`, "true", "{}"} {
			f(`"`+field+`":`+bad, field)
		}
		mustScan(t, Chat, `{"model":"m",`+msgs+`,"`+field+`":null}`)
	}
	f(`"n":129`, "n")
	f(`"stream":1`, "stream")
	f(`"stream":"true"`, "stream")
	f(`"stream_options":{"include_usage":true}`, "stream_options")
	f(`"stream":false,"stream_options":{}`, "stream_options")
	f(`"stream":true,"stream_options":true`, "stream_options")
	f(`"stream":true,"stream_options":{"include_usage":1}`, "stream_options.include_usage")
	f(`"user":1`, "user")
	f(`"user":"`+strings.Repeat("u", 513)+`"`, "user")
	f(`"safety_identifier":[]`, "safety_identifier")
	f(`"service_tier":1`, "service_tier")

	m := func(messages, param string) {
		t.Helper()
		refuse(t, Chat, `{"model":"m","messages":`+messages+`}`, param)
	}
	refuse(t, Chat, `{"model":"m"}`, "messages")
	m(`null`, "messages")
	m(`{}`, "messages")
	m(`"x"`, "messages")
	m(`[]`, "messages")
	m(`["x"]`, "messages[0]")
	m(`[{"role":"user"},{}]`, "messages[1].role")
	m(`[{"role":"user"},{"role":1}]`, "messages[1].role")
	m(`[{"role":"root"}]`, "messages[0].role")
	m(`[{"role":"User"}]`, "messages[0].role")
	m(`[{"role":"user","content":1}]`, "messages[0].content")
	m(`[{"role":"user","content":{}}]`, "messages[0].content")
	m(`[{"role":"user","content":["x"]}]`, "messages[0].content[0]")
	m(`[{"role":"user","content":[{"type":"text","text":"x"},{"text":"x"}]}]`, "messages[0].content[1].type")
	m(`[{"role":"user","content":[{"type":1}]}]`, "messages[0].content[0].type")
	m(`[{"role":"user","content":[{"type":"text","text":null}]}]`, "messages[0].content[0].text")

	e := func(fields, param string) { t.Helper(); refuse(t, Embeddings, `{"model":"m",`+fields+`}`, param) }
	refuse(t, Embeddings, `{"model":"m"}`, "input")
	e(`"input":null`, "input")
	e(`"input":1`, "input")
	e(`"input":{}`, "input")
	e(`"input":[]`, "input")
	e(`"input":["a",1]`, "input[1]")
	e(`"input":[1,"a"]`, "input[1]")
	e(`"input":[1,1.5]`, "input[1]")
	e(`"input":[1,-1]`, "input[1]")
	e(`"input":[[1],["a"]]`, "input[1]")
	e(`"input":[{"type":"text","text":"x"}]`, "input[0]")
	e(`"input":[`+strings.Repeat(`"",`, 2048)+`""]`, "input")
	e(`"input":"x","encoding_format":"int8"`, "encoding_format")
	e(`"input":"x","dimensions":0`, "dimensions")
	refuse(t, Moderations, `{"input":[1,2]}`, "input[0]")
	refuse(t, Moderations, `{"input":[{"text":"x"}]}`, "input[0].type")
	refuse(t, Completions, `{"model":"m","prompt":{}}`, "prompt")
	refuse(t, Completions, `{"model":"m","best_of":129}`, "best_of")
}

func TestEndpoint(t *testing.T) {
	f := func(e Endpoint, name, path string) {
		t.Helper()
		equal(t, "String", e.String(), name)
		equal(t, "Path", e.Path(), path)
	}
	f(Chat, "chat", "/chat/completions")
	f(Completions, "completions", "/completions")
	f(Embeddings, "embeddings", "/embeddings")
	f(Moderations, "moderations", "/moderations")
	f(0, "none", "")
}
