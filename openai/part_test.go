package openai

import (
	"fmt"
	"strings"
	"testing"
)

// seen writes what a request has out of the ordinary: place, indices, name.
func seen(r *Request) string {
	var b strings.Builder
	for _, s := range r.Seen {
		if s.Where != Field {
			fmt.Fprintf(&b, "%d %d %d %s\n", s.Where, s.Message, s.Item, s.Name.Of(r.Body))
		}
	}
	return b.String()
}

func TestSeenFields(t *testing.T) {
	r := mustScan(t, Chat, `{"messages":[{"role":"user","content":"x"}],"brand_new":{"model":1},"model":"m","temperature":1}`)
	var names []string
	for _, s := range r.Seen {
		if s.Where != Field {
			t.Errorf("%+v", s)
		}
		names = append(names, string(s.Name.Of(r.Body)))
	}
	if got := strings.Join(names, " "); got != "messages brand_new model temperature" {
		t.Errorf("got %s", got)
	}
}

func TestSeenOddities(t *testing.T) {
	f := func(messages, rest, want string) {
		t.Helper()
		r := mustScan(t, Chat, `{"model":"m","messages":[`+messages+`]`+rest+`}`)
		if got := seen(r); got != want {
			t.Errorf("%s%s\n got %q\nwant %q", messages, rest, got, want)
		}
	}
	user := func(parts string) string { return `{"role":"user","content":[` + parts + `]}` }
	const plain = `{"role":"user","content":"x"}`
	// What the reference has is ordinary.
	f(`{"role":"assistant","content":null,"name":"n","refusal":null,"tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"{}"}}],"function_call":null},
		{"role":"tool","tool_call_id":"c","content":"y"}`, ``, "")
	f(user(`{"type":"text","text":"a"},{"type":"refusal","refusal":"b"},{"type":"image_url","image_url":{"url":"u","detail":"high"}},
		{"type":"image_url","image_url":"u"},{"type":"input_audio","input_audio":{"data":"QQ==","format":"wav"}},{"type":"file","file":{"file_data":"QQ==","filename":"f","file_id":null}}`), ``, "")
	f(plain, `,"tools":[{"type":"function","function":{"name":"f"}},{"type":"custom","custom":{"name":"g"}},{"type":"functio\u006e"}],"modalities":["text","audio","image"]`, "")
	f(plain, `,"tools":null,"modalities":null,"store":null`, "")
	// The rest is noted, once each.
	f(`{"role":"assistant","content":"x","audio":{"id":"a"},"reasoning_content":"r"},{"role":"assistant","content":"x","audio":{"id":"b"}}`, ``,
		"2 0 0 audio\n2 0 0 reasoning_content\n")
	f(plain+`,`+user(`{"type":"text","text":"a"},{"type":"video_url","video_url":{"url":"u"}},{"type":"video_url"}`), ``, "3 1 1 video_url\n4 1 1 video_url\n")
	f(user(`{"type":"document","title":"a"}`), ``, "3 0 0 document\n4 0 0 title\n")
	f(user(`{"type":"file","file":{"file_id":"file-1"}},{"type":"file","file":{"url":"u"}}`), ``, "4 0 0 file_id\n4 0 1 url\n")
	f(user(`{"type":"image_url","image_url":{"url":"u"},"min_pixels":1}`), ``, "4 0 0 min_pixels\n")
	f(`{"role":"user","content":"x","audio":null,"new":null},{"role":"user","content":[{"type":"text","text":"a","new":null,"cache_control":null}]},
		{"role":"user","content":"x","new":1}`, ``, "2 2 0 new\n")
	// An image in a text is one for some servers.
	f(user(`{"type":"text","text":"a","image_url":{"url":"u"}}`), ``, "4 0 0 image_url\n")
	f(user(`{"image_url":{"url":"u"},"type":"input_audio","input_audio":{}}`), ``, "")
	f(plain, `,"tools":[{"type":"function"},{"type":"web_search"},{"function":{}},{"type":7},"x",{"type":"web\u005fsearch"}]`,
		"5 0 1 web_search\n5 0 2 \n5 0 5 web\\u005fsearch\n")
	f(plain, `,"tools":{"type":"web_search"}`, "5 0 0 \n")
	f(plain, `,"modalities":["text","video",3]`, "6 0 1 video\n6 0 2 \n")
}

// More oddities than are noted leave one without a name, which nobody knows.
func TestSeenTooMany(t *testing.T) {
	var b strings.Builder
	for i := range 3 * maxOddities {
		fmt.Fprintf(&b, `,"x%d":1`, i)
	}
	r := mustScan(t, Chat, `{"model":"m","messages":[{"role":"user","content":"x"`+b.String()+`}],"tools":[{"type":"late"}]}`)
	lines := strings.Split(strings.TrimSuffix(seen(r), "\n"), "\n")
	if n := len(lines); n != maxOddities+2 || lines[n-2] != "2 0 0 " || lines[n-1] != "5 0 0 " {
		t.Errorf("%d: %q", n, lines[n-2:])
	}
}

func TestParts(t *testing.T) {
	r := mustScan(t, Chat, `{"model":"m","store":true,"modalities":["text","audio"],"messages":[{"role":"user","content":[
		{"image_url":{"detail":"low","url":"u"},"type":"image_url"},{"type":"image_url","image_url":{"detail":"l\u006fw"}},{"type":"image_url","image_url":{"detail":"auto"}},
		{"type":"image_url","image_url":{"detail":["low"]}},{"type":"text","text":"x","cache_control":{"type":"ephemeral"}},
		{"type":"input_audio","input_audio":{"data":"QUJD"}},{"type":"text","text":"y","input_audio":{"data":"QUJD"}}]}]}`)
	if r.Images != 4 || r.LowImages != 2 || r.Audios != 1 || r.AudioBytes != int64(len(`{"data":"QUJD"}`)) || !r.CacheControl || !r.Store || !r.AudioOut || r.ImageOut {
		t.Errorf("%+v", r)
	}
	for _, body := range []string{
		`{"model":"m","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"detail":"low","Detail":"high"}}]}]}`,
		`{"model":"m","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"detail":"low","detail":"high"}}]}]}`,
		`{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"x","Image_url":1}]}]}`,
		`{"model":"m","messages":[{"role":"user","content":"x"}],"tools":[{"type":"function","Type":"web_search"}]}`,
		`{"model":"m","messages":[{"role":"user","content":"x"}],"store":"yes"}`,
	} {
		if err := new(Request).Scan(Chat, []byte(body)); err == nil {
			t.Errorf("%s is accepted", body)
		}
	}
}

func TestTexts(t *testing.T) {
	f := func(e Endpoint, body string, want ...string) {
		t.Helper()
		r := mustScan(t, e, body)
		var got []string
		for _, at := range r.Texts {
			got = append(got, string(at.Of(r.Body)))
		}
		if strings.Join(got, "|") != strings.Join(want, "|") {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	f(Chat, `{"model":"m","tools":[ {"type":"function"} ],"messages":[{"role":"user","name":"n","content":[{"type":"text","text":"a"},{"type":"image_url","image_url":{"url":"u"}}]},
		{"role":"user","content":"b"},{"role":"user","content":[{"text":"c","type":"new"}]}],"response_format":{"type":"text"}}`,
		`[ {"type":"function"} ]`, `"n"`, `"a"`, `"b"`, `{"text":"c","type":"new"}`, `{"type":"text"}`)
	f(Embeddings, `{"model":"m","input":["a","b"]}`, `"a"`, `"b"`)
	f(Embeddings, `{"model":"m","input":[1,2]}`)
	f(Completions, `{"model":"m","prompt":"p","suffix":"s"}`, `"p"`, `"s"`)

	// What a body of many parts took is not kept for the next.
	r := mustScan(t, Embeddings, `{"model":"m","input":["a"`+strings.Repeat(`,"a"`, maxKeptSpans+1)+`]}`)
	r.Reset()
	if cap(r.Texts) != 0 {
		t.Errorf("kept %d", cap(r.Texts))
	}
}
