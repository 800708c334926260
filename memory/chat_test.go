package memory

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"bulkhead/fault"
)

func read(t testing.TB, messages string) []Message {
	t.Helper()
	all, err := ReadMessages([]byte(messages))
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// stored are the items of messages as the store would have them, in one turn.
func stored(t testing.TB, turn int64, messages string) []Item {
	t.Helper()
	items := itemsOf(read(t, messages), true, map[string]bool{})
	for i := range items {
		items[i].Turn, items[i].Tokens = turn, 10
	}
	return items
}

func bodies(items []Item) []body {
	var all []body
	for _, i := range items {
		var b body
		_ = json.Unmarshal(i.Body, &b)
		all = append(all, b)
	}
	return all
}

// TestRoundTrip: what a chat says becomes items, and these become the same messages.
func TestRoundTrip(t *testing.T) {
	f := func(messages, want string) {
		t.Helper()
		got := "[" + string(encodeAll(messagesOf(bodies(stored(t, 1, messages)), nil))) + "]"
		if want == "" {
			want = messages
		}
		if got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
	f(`[{"role":"user","content":"a <b> & \u0000 \"c\""}]`, "")
	f(`[{"role":"user","content":""}]`, "")
	f(`[{"role":"user","content":[{"type":"text","text":"look"},{"type":"image_url","image_url":{"url":"https://x/y","detail":"low"}}]}]`, "")
	f(`[{"role":"user","content":[{"type":"text","text":"one"},{"type":"text","text":"two"}]}]`, "")
	f(`[{"role":"user","content":[{"type":"text","text":"one"}]}]`, `[{"role":"user","content":"one"}]`)
	f(`[{"role":"user","content":[{"type":"file","file":{"file_data":"data:x","filename":"a.pdf"}}]}]`, "")
	f(`[{"role":"user","content":[{"type":"input_audio","input_audio":{"data":"x","format":"wav"}}]}]`, "")
	f(`[{"role":"assistant","content":null,"refusal":"no"}]`, "")
	f(`[{"role":"assistant","content":"yes","refusal":null,"annotations":[],"audio":{"id":"a","transcript":"spoken"}}]`, `[{"role":"assistant","content":"yesspoken"}]`)
	// Tools: of both kinds, in parallel.
	f(`[{"role":"user","content":"q"},{"role":"assistant","content":"let me see","tool_calls":[{"id":"c1","type":"function","function":{"name":"f","arguments":"{}"}},`+
		`{"id":"c2","type":"custom","custom":{"name":"g","input":"x"}}]},{"role":"tool","content":"1","tool_call_id":"c1"},{"role":"tool","content":"2","tool_call_id":"c2"},{"role":"assistant","content":"done"}]`, "")
	f(`[{"role":"tool","content":[{"type":"text","text":"x"}],"tool_call_id":"c1"}]`, `[]`)
	f(`[{"role":"assistant","content":"I call","tool_calls":[{"id":"c1","type":"function","function":{"name":"f","arguments":"{}"}}]}]`, `[{"role":"assistant","content":"I call"}]`)
}

func TestCurrent(t *testing.T) {
	f := func(roles string, from int, alone bool) {
		t.Helper()
		var all []Message
		for _, r := range strings.Fields(roles) {
			all = append(all, Message{Role: map[string]string{"s": "system", "d": "developer", "u": "user", "a": "assistant", "t": "tool"}[r]})
		}
		if got, is := Current(all); got != from || is != alone {
			t.Errorf("%q: %d %t, want %d %t", roles, got, is, from, alone)
		}
	}
	f("u", 0, true)
	f("s d u", 2, true)
	f("s u a t", 1, true)
	f("s u a u", 3, false)
	f("a u", 1, false)
	f("s t", 1, true)
	f("s", 1, true)
	f("t t", 0, true)
	f("u s a", 0, true)
}

// TestBefore: which turns go before one, and which one goes on.
func TestBefore(t *testing.T) {
	call := func(id string) string {
		return fmt.Sprintf(`{"role":"assistant","content":null,"tool_calls":[{"id":%q,"type":"function","function":{"name":"f","arguments":"{}"}}]}`, id)
	}
	tool := func(id string) string { return fmt.Sprintf(`{"role":"tool","content":"r","tool_call_id":%q}`, id) }
	user := func(text string) string { return fmt.Sprintf(`{"role":"user","content":%q}`, text) }
	says := func(text string) string { return fmt.Sprintf(`{"role":"assistant","content":%q}`, text) }
	list := func(all ...string) string { return "[" + strings.Join(all, ",") + "]" }
	items := append(stored(t, 1, list(user("one"), says("1"))), stored(t, 3, list(user("two"), call("c1")))...)
	items = append(items, stored(t, 5, list(user("three"), says("3")))...)

	wide := Window{Tokens: 1000, Bytes: 1 << 20}
	f := func(current string, w Window, want string, turn int64, known int) {
		t.Helper()
		h, err := Before(items, read(t, current), true, w)
		if err != nil {
			t.Fatal(err)
		}
		if got := "[" + string(h.Messages) + "]"; got != want || h.turn != turn || h.known != known {
			t.Errorf("before %s: turn %d, %d known\n%s\nwant turn %d, %d\n%s", current, h.turn, h.known, got, turn, known, want)
		}
	}
	f(list(user("four")), wide, list(user("one"), says("1"), user("two"), user("three"), says("3")), 0, 0)
	f(list(user("four")), Window{Tokens: 45, Bytes: 1 << 20}, list(user("two"), user("three"), says("3")), 0, 0)
	f(list(user("four")), Window{Tokens: 39, Bytes: 1 << 20}, list(user("three"), says("3")), 0, 0)
	f(list(user("four")), Window{Tokens: 1000, Bytes: 60}, list(), 0, 0)
	f(list(user("four")), Window{}, list(), 0, 0)
	// The turn with the open call goes on, however it is sent; it is never left out.
	f(list(user("two"), call("c1"), tool("c1")), wide, list(user("one"), says("1"), user("three"), says("3")), 3, 2)
	f(list(call("c1"), tool("c1")), wide, list(user("one"), says("1"), user("three"), says("3"), user("two")), 3, 1)
	f(list(tool("c1")), wide, list(user("one"), says("1"), user("three"), says("3"), user("two"), call("c1")), 3, 0)
	f(list(tool("c1")), Window{}, list(user("two"), call("c1")), 3, 0)
	// Not that turn: other words, another call, or the question alone.
	f(list(user("two!"), call("c1"), tool("c1")), wide, list(user("one"), says("1"), user("two"), user("three"), says("3")), 0, 0)
	f(list(user("two"), call("c9"), tool("c9")), wide, list(user("one"), says("1"), user("two"), user("three"), says("3")), 0, 0)
	f(list(user("two")), wide, list(user("one"), says("1"), user("two"), user("three"), says("3")), 0, 0)
	if _, err := Before(items, read(t, list(tool("c9"))), true, wide); !fault.Is(err, fault.Invalid) {
		t.Errorf("an answer nobody asked for: %v", err)
	}
	// A client's own history stands alone.
	h, err := Before(items, read(t, list(tool("c1"))), false, wide)
	if err != nil || len(h.Messages) > 0 || h.turn != 3 {
		t.Errorf("%s, turn %d, %v", h.Messages, h.turn, err)
	}
	// What was known is not stored again.
	current := read(t, list(user("two"), call("c1"), tool("c1")))
	if h, err = Before(items, current, true, wide); err != nil {
		t.Fatal(err)
	}
	added := h.Items(current, Message{Role: "assistant", Content: json.RawMessage(`"done"`)}, true, func(b []byte) int64 { return int64(len(b)) })
	if len(added) != 2 || added[0].Turn != 3 || added[1].Turn != 3 || added[0].Starts || added[0].Tokens == 0 || !bytes.Contains(added[0].Body, []byte(functionOutput)) {
		t.Errorf("added %+v", added)
	}
	// Of the oldest turn that is looked at, items may be missing.
	many := append(stored(t, 1, list(user("old"), says("x")))[1:], make([]Item, 0)...)
	for n := int64(3); len(many) < maxRecent; n += 2 {
		many = append(many, stored(t, n, list(user("q"), says("a")))...)
	}
	many = many[:maxRecent]
	if h, err = Before(many, read(t, list(user("x"))), true, Window{Tokens: 1 << 40, Bytes: 1 << 30}); err != nil || bytes.Contains(h.Messages, []byte(`"x"`)) {
		t.Errorf("half a turn: %v", err)
	}
}

// TestAnswer: streams are gathered as what was delivered.
func TestAnswer(t *testing.T) {
	var a Answer
	for _, s := range []string{`{"choices":[{"index":0,"delta":{"role":"assistant","content":""}},{"index":1,"delta":{"content":"other"}}]}`,
		`{"choices":[{"index":0,"delta":{"content":"Hel"}}]}`, `{"choices":[]}`, `[]`} {
		a.Add([]byte(s))
	}
	a.Delivered()
	for _, s := range []string{`{"choices":[{"index":0,"delta":{"content":"lo"}}]}`,
		`{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"c1","type":"function","function":{"name":"f","arguments":"{\"a\""}}]}}]}`,
		`{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":":1}"}},{"index":1,"id":"c2","custom":{"name":"g","input":"x"}}]}}]}`} {
		a.Add([]byte(s))
	}
	m, ok := a.Message(true)
	if got := string(encode(m)); !ok || got != `{"role":"assistant","content":"Hello","tool_calls":[{"id":"c1","type":"function","function":{"name":"f","arguments":"{\"a\":1}"}},{"id":"c2","type":"custom","custom":{"name":"g","input":"x"}}]}` {
		t.Errorf("whole: %s", got)
	}
	m, ok = a.Message(false)
	if got := string(encode(m)); !ok || got != `{"role":"assistant","content":"Hel"}` {
		t.Errorf("broken off: %s", got)
	}
	if _, ok := new(Answer).Message(false); ok {
		t.Error("nothing was delivered, and is remembered")
	}
	long, _ := json.Marshal(strings.Repeat("x", MaxAnswer-10))
	a.Add(fmt.Appendf(nil, `{"choices":[{"index":0,"message":{"content":%s}}]}`, long))
	if !a.Cut || a.size > MaxAnswer {
		t.Errorf("cut: %t, %d bytes", a.Cut, a.size)
	}
}

// TestReadItems: what a client may add, and which field is named if it may not.
func TestReadItems(t *testing.T) {
	f := func(item, field, want string) {
		t.Helper()
		items, err := ReadItems([]json.RawMessage{json.RawMessage(item)})
		if field != "" {
			if e := fault.As(err); err == nil || e.Kind != fault.Invalid || e.Param != field {
				t.Errorf("%s: %v, want an error in %s", item, err, field)
			}
			return
		}
		if err != nil {
			t.Errorf("%s: %v", item, err)
		} else if got := string(items[0].Body); got != want {
			t.Errorf("%s:\n%s\nwant\n%s", item, got, want)
		}
	}
	f(`{"role":"user","content":"x","id":"msg_mine"}`, "", `{"type":"message","status":"completed","role":"user","content":[{"type":"input_text","text":"x"}]}`)
	f(`{"type":"message","role":"assistant","status":"incomplete","content":[{"type":"output_text","text":"x","annotations":[]}]}`, "",
		`{"type":"message","status":"incomplete","role":"assistant","content":[{"type":"output_text","text":"x","annotations":[]}]}`)
	f(`{"type":"custom_tool_call_output","call_id":"c","output":[{"type":"input_text","text":"x"}]}`, "",
		`{"type":"custom_tool_call_output","status":"completed","call_id":"c","output":[{"type":"input_text","text":"x"}]}`)
	f(`{"role":"user"}`, "items[0].content", "")
	f(`{"role":"robot","content":"x"}`, "items[0].role", "")
	f(`{"role":"user","content":"x","extra":1}`, "items[0]", "")
	f(`{"role":"user","content":"x","status":"lost"}`, "items[0].status", "")
	f(`{"role":"user","content":[{"type":"input_text"}]}`, "items[0].content[0]", "")
	f(`{"type":"function_call","call_id":"c","name":"f"}`, "items[0].arguments", "")
	f(`{"type":"function_call","role":"user","content":"x"}`, "items[0].call_id", "")
	f(`{"type":"function_call","call_id":"c","name":"f","arguments":"","role":"user"}`, "items[0].role", "")
	f(`{"type":"item_reference","id":"x"}`, "items[0].type", "")
	f(`[]`, "items[0]", "")
	f(`{"role":"user","content":`+strings.Repeat(" ", MaxItemBytes)+`"x"}`, "items[0]", "")
}

// FuzzTurn: whatever a client and a provider say, what is stored is items, and these
// are messages again.
func FuzzTurn(f *testing.F) {
	f.Add([]byte(`[{"role":"user","content":"a"}]`), []byte(`{"choices":[{"index":0,"delta":{"content":"x"}}]}`))
	f.Add([]byte(`[{"role":"user","content":[{"type":"text","text":"a"},{"type":"odd"}]},{"role":"assistant","tool_calls":[{"id":"c","custom":{"name":"a"}}]},{"role":"tool","tool_call_id":"c","content":[null]}]`),
		[]byte(`{"choices":[{"index":0,"message":{"content":[{"text":"x"}],"tool_calls":[{"index":7,"function":{"name":"a"}}]}}]}`))
	f.Fuzz(func(t *testing.T, messages, answer []byte) {
		if !json.Valid(messages) {
			return
		}
		all, err := ReadMessages(messages)
		if err != nil {
			return
		}
		from, alone := Current(all)
		h, err := Before(nil, all[from:], alone, Window{Tokens: 1000, Bytes: 1000})
		if err != nil {
			return
		}
		var a Answer
		a.Add(answer)
		m, _ := a.Message(true)
		items := h.Items(all[from:], m, true, func(b []byte) int64 { return int64(len(b)) })
		for _, i := range items {
			if !json.Valid(i.Object()) {
				t.Errorf("an item is %s", i.Object())
			}
		}
		if text := encodeAll(messagesOf(bodies(items), nil)); !json.Valid([]byte("[" + string(text) + "]")) {
			t.Errorf("messages are %s", text)
		}
	})
}
