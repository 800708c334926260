package test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"bulkhead/test/scale"
	"bulkhead/test/upstream"
)

// TestConversation: what was said before goes before what is said now, and nothing
// else of the request changes.
func TestConversation(t *testing.T) {
	k := startTalking(t, "")
	in := k.send(t, k.key, "new", says("up/say", "I am Ada.")).conversation(t)
	want(t, "the first turn", k.received(t), "user: I am Ada.\n")

	// The exact bytes, with the client's system messages first.
	a := k.send(t, k.key, in, []byte(`{"messages":[ {"role":"system","content":"Be\u0020brief."},{"role":"developer","content":"x"} , {"role":"user","content":"Who am I? <&>"} ],"model":"up/say"}`))
	want(t, "the answer's conversation", a.conversation(t), in)
	last, _ := k.up.Last()
	want(t, "sent", string(last.Body), `{"messages":[ {"role":"system","content":"Be\u0020brief."},{"role":"developer","content":"x"} , `+
		`{"role":"user","content":"I am Ada."},{"role":"assistant","content":"you said: I am Ada."},{"role":"user","content":"Who am I? <&>"} ],"model":"say"}`)

	// A stream, likewise.
	s := says("up/say", "And now?")
	s["stream"] = true
	a = k.send(t, k.key, in, s)
	if a.conversation(t) != in || !bytes.Contains(a.body, []byte("data: [DONE]")) {
		t.Errorf("the stream was %s", a.body)
	}
	said := "message completed user input_text: I am Ada.\nmessage completed assistant output_text: you said: I am Ada.\n" +
		"message completed user input_text: Who am I? <&>\nmessage completed assistant output_text: you said: Who am I? <&>\n" +
		"message completed user input_text: And now?\nmessage completed assistant output_text: you said: And now?\n"
	want(t, "items", k.items(t, k.key, in), said)

	// A client that brings its own history stands alone; what is new is remembered.
	k.send(t, k.key, in, json.RawMessage(`{"model":"up/say","messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b"},{"role":"user","content":"c"}]}`)).conversation(t)
	want(t, "with a history of the client's", k.received(t), "user: a\nassistant: b\nuser: c\n")
	said += "message completed user input_text: c\nmessage completed assistant output_text: you said: c\n"
	want(t, "items", k.items(t, k.key, in), said)

	// Calls that fail leave nothing, before the first byte and after it.
	for _, model := range []string{"up/status-500", "up/cut", "up/error-mid"} {
		for _, stream := range []bool{false, true} {
			s := says(model, "this fails")
			s["stream"] = stream
			if a, err := k.trySend(t.Context(), k.key, in, s); err == nil && a.status == http.StatusOK && !stream {
				t.Errorf("%s: %s", model, a.body)
			}
		}
	}
	want(t, "items after calls that failed", k.items(t, k.key, in), said)

	// Without the header nothing is remembered or sent.
	k.send(t, k.key, "", says("up/say", "alone")).want(t, "a call without a conversation", http.StatusOK)
	want(t, "without a conversation", k.received(t), "user: alone\n")
	want(t, "items", k.items(t, k.key, in), said)

	// What is deleted is not said again.
	all := k.itemList(t, k.key, in)
	for _, i := range all[:6] {
		k.g.call(t, http.MethodDelete, k.g.URL+"/v1/conversations/"+in+"/items/"+i.ID, k.key, nil, nil)
	}
	k.send(t, k.key, in, says("up/say", "last")).conversation(t)
	want(t, "after deleting", k.received(t), "user: c\nassistant: you said: c\nuser: last\n")
	k.g.call(t, http.MethodDelete, k.g.URL+"/v1/conversations/"+in, k.key, nil, nil)
	k.send(t, k.key, in, says("up/say", "gone")).want(t, "a deleted conversation", http.StatusNotFound)
	if log := string(k.g.log(t)); strings.Contains(log, "Ada") {
		t.Error("what was said stands in the log")
	}
}

// TestConversationOwner: a conversation's id opens it only for its company, project,
// agent and end user; for anybody else it is as if it had never been.
func TestConversationOwner(t *testing.T) {
	k := startTalking(t, "")
	g := k.g
	for _, slug := range []string{"one", "two"} {
		g.newAgent(t, k.key, map[string]any{"model": "up/say", "slug": slug, "shared": true})
	}
	var p struct{ ID string }
	g.call(t, http.MethodPost, g.URL+"/v1/organization/projects", k.c.AdminKey, map[string]any{"name": "other"}, &p)
	var account struct {
		Key struct{ Value string } `json:"api_key"`
	}
	g.call(t, http.MethodPost, g.URL+"/v1/organization/projects/"+p.ID+"/service_accounts", k.c.AdminKey, map[string]any{"name": "other"}, &account)
	foreign := g.newCompany(t, "another company")
	g.setCredential(t, foreign, "up", upstreamSecret)
	g.newAgent(t, foreign.APIKey, map[string]any{"model": "up/say", "slug": "one"})

	by := func(model, user string) map[string]any {
		b := says(model, "my secret is swordfish")
		if user != "" {
			b["user"] = user
		}
		return b
	}
	in := k.send(t, k.key, "new", by("agent/one", "ada")).conversation(t)
	k.send(t, k.key, in, by("agent/one", "ada")).conversation(t)
	never := k.send(t, k.key, "conv_never", by("agent/one", "ada")).want(t, "a conversation that never was", http.StatusNotFound)
	sent := len(k.up.Requests())
	for _, c := range []struct{ what, key, model, user string }{
		{"another end user", k.key, "agent/one", "bob"},
		{"no end user", k.key, "agent/one", ""},
		{"an end user that differs in case", k.key, "agent/one", "Ada"},
		{"another agent", k.key, "agent/two", "ada"},
		{"no agent", k.key, "up/say", "ada"},
		{"another project", account.Key.Value, "agent/one", "ada"},
		{"another company", foreign.APIKey, "agent/one", "ada"},
	} {
		a := k.send(t, c.key, in, by(c.model, c.user))
		if a.status != never.status || !bytes.Equal(a.body, never.body) || a.header.Get("X-Conversation-Id") != "" {
			t.Errorf("%s: %d %s", c.what, a.status, a.body)
		}
	}
	for _, key := range []string{account.Key.Value, foreign.APIKey, foreign.TestKey} {
		for _, path := range []string{"", "/items"} {
			a := ask(t, http.MethodGet, g.URL+"/v1/conversations/"+in+path, key, nil)
			b := ask(t, http.MethodGet, g.URL+"/v1/conversations/conv_never"+path, key, nil)
			if a.status != http.StatusNotFound || !bytes.Equal(a.body, b.body) {
				t.Errorf("GET %s: %d %s", path, a.status, a.body)
			}
		}
		ask(t, http.MethodDelete, g.URL+"/v1/conversations/"+in, key, nil).want(t, "deleting a foreign conversation", http.StatusNotFound)
	}
	if n := len(k.up.Requests()); n != sent {
		t.Errorf("%d calls were sent", n-sent)
	}
	// One that was made by the API is theirs whose turn is the first.
	var made struct{ ID string }
	g.call(t, http.MethodPost, g.URL+"/v1/conversations", k.key, map[string]any{"items": []any{map[string]any{"role": "user", "content": "before"}}}, &made)
	k.send(t, k.key, made.ID, by("agent/two", "bob")).conversation(t)
	k.send(t, k.key, made.ID, by("agent/two", "ada")).want(t, "bob's conversation", http.StatusNotFound)
	k.send(t, k.key, made.ID, by("agent/two", "bob")).conversation(t)
	want(t, "bob's conversation", k.received(t), "user: before\nuser: my secret is swordfish\nassistant: you said: my secret is swordfish\nuser: my secret is swordfish\n")
	// An agent may be one that joins none.
	g.newAgent(t, k.key, map[string]any{"model": "up/say", "slug": "forgets", "memory": map[string]any{"conversation": false}})
	k.send(t, k.key, "new", by("agent/forgets", "ada")).want(t, "an agent without memory", http.StatusBadRequest)
	for _, bad := range []string{"", strings.Repeat("x", 65)} {
		req := says("up/say", "x")
		if bad == "" {
			continue // the client drops an empty header
		}
		k.send(t, k.key, bad, req).want(t, "a bad id", http.StatusBadRequest)
	}
}

// TestConversationTools: calls of tools and their answers stay together, whether the
// client sends the turn again or only what is new.
func TestConversationTools(t *testing.T) {
	k := startTalking(t, "")
	ask := says("up/call", "How is it?")
	in := k.send(t, k.key, "new", ask).conversation(t)
	id := k.itemList(t, k.key, in)[1].CallID
	answers := func(text string) chatMessage { return chatMessage{Role: "tool", ToolCall: id, Content: text} }
	calls := chatMessage{Role: "assistant", ToolCalls: []map[string]any{{"id": id, "type": "function", "function": map[string]any{"name": "look", "arguments": `{"at":"it"}`}}}}

	// Another turn gets in between: of the open call nothing is said in it.
	k.send(t, k.key, in, says("up/say", "Hello?")).conversation(t)
	want(t, "while a call is open", k.received(t), "user: How is it?\nuser: Hello?\n")

	// The whole turn, as clients of chat do it.
	loop := "user: How is it?\nassistant: <nil> calls " + id + "\ntool: fine for " + id + "\n"
	between := "user: Hello?\nassistant: you said: Hello?\n"
	k.send(t, k.key, in, map[string]any{"model": "up/call", "messages": []chatMessage{{Role: "user", Content: "How is it?"}, calls, answers("fine")}}).conversation(t)
	want(t, "the turn goes on", k.received(t), between+loop)
	k.send(t, k.key, in, says("up/say", "Thanks")).conversation(t)
	want(t, "the turn after", k.received(t), loop+"assistant: you said: fine\n"+between+"user: Thanks\n")
	if n := len(k.itemList(t, k.key, in)); n != 8 {
		t.Errorf("%d items:\n%s", n, k.items(t, k.key, in))
	}

	// Only what is new.
	in = k.send(t, k.key, "new", ask).conversation(t)
	if id = k.itemList(t, k.key, in)[1].CallID; id == "" {
		t.Fatal("no call")
	}
	k.send(t, k.key, in, map[string]any{"model": "up/call", "messages": []chatMessage{{Role: "system", Content: "Be kind."}, answers("good")}}).conversation(t)
	want(t, "only the tool's answer", k.received(t), "system: Be kind.\nuser: How is it?\nassistant: <nil> calls "+id+"\ntool: good for "+id+"\n")
	k.send(t, k.key, in, says("up/say", "Thanks")).conversation(t)
	want(t, "the turn after", k.received(t), "user: How is it?\nassistant: <nil> calls "+id+"\ntool: good for "+id+"\nassistant: you said: good\nuser: Thanks\n")

	// Sent again with its key it is answered again, though the call is not open any more.
	in = k.send(t, k.key, "new", ask).conversation(t)
	id = k.itemList(t, k.key, in)[1].CallID
	k.again = "once"
	only := map[string]any{"model": "up/call", "messages": []chatMessage{answers("well")}}
	first := k.send(t, k.key, in, only)
	second := k.send(t, k.key, in, only)
	if first.conversation(t) != in || second.conversation(t) != in || !bytes.Equal(first.body, second.body) || second.header.Get("X-Bulkhead-Idempotent-Replay") != "true" {
		t.Errorf("sent again: %s\n%s", first.body, second.body)
	}
	other := k.send(t, k.key, "new", ask).want(t, "the key with another request", http.StatusBadRequest)
	if code, _ := other.fault(); code != "idempotency_key_reused" {
		t.Errorf("%s", other.body)
	}
	k.again = ""
	if n := len(k.itemList(t, k.key, in)); n != 4 {
		t.Errorf("%d items:\n%s", n, k.items(t, k.key, in))
	}

	// An answer that nobody has asked for is refused, before anything is sent.
	n := len(k.up.Requests())
	a := k.send(t, k.key, in, map[string]any{"model": "up/call", "messages": []chatMessage{{Role: "tool", ToolCall: "call_never", Content: "x"}}})
	if _, message := a.fault(); a.status != http.StatusBadRequest || !strings.Contains(message, "not open") || len(k.up.Requests()) != n {
		t.Errorf("status %d: %s", a.status, a.body)
	}
}

// TestConversationLeft: of a stream that the client has broken off is remembered
// what it got.
func TestConversationLeft(t *testing.T) {
	k := startTalking(t, "")
	k.up.Handle("slow", func(c *upstream.Call) {
		c.StartStream()
		c.Event([]byte(`{"id":"x","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"Once upon"}}]}`))
		c.WaitGone()
	})
	in := k.send(t, k.key, "new", says("up/say", "Hello")).conversation(t)
	s := says("up/slow", "Tell me a story.")
	s["stream"] = true
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	resp, err := k.open(ctx, k.key, in, s)
	if err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(resp.Body).ReadString('\n'); err != nil || !strings.Contains(line, "Once upon") {
		t.Fatalf("%q, %v", line, err)
	}
	leave()
	resp.Body.Close()
	eventually(t, 30*time.Second, "what was delivered is remembered", func() bool { return len(k.itemList(t, k.key, in)) == 4 })
	want(t, "items", k.items(t, k.key, in), "message completed user input_text: Hello\nmessage completed assistant output_text: you said: Hello\n"+
		"message completed user input_text: Tell me a story.\nmessage incomplete assistant output_text: Once upon\n")
}

// TestConversationAtOnce: turns that come at the same time are all there, each whole.
func TestConversationAtOnce(t *testing.T) {
	k := startTalking(t, "")
	in := k.send(t, k.key, "new", says("up/say", "start")).conversation(t)
	const n = 12
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			s := says("up/say", fmt.Sprint("turn ", i))
			s["stream"] = i%2 == 0
			if a, err := k.trySend(t.Context(), k.key, in, s); err != nil || a.status != http.StatusOK {
				t.Errorf("%d, %v: %s", a.status, err, a.body)
			}
		})
	}
	wg.Wait()
	all := k.itemList(t, k.key, in)
	if len(all) != 2+2*n {
		t.Fatalf("%d items", len(all))
	}
	seen := map[string]bool{}
	for i := 0; i < len(all); i += 2 {
		asked, told := all[i].Content[0].Text, all[i+1].Content[0].Text
		if told != "you said: "+asked || seen[asked] {
			t.Errorf("%q is followed by %q", asked, told)
		}
		seen[asked] = true
	}
}

// TestConversationWindow: as many whole turns go before as fit, the newest first.
func TestConversationWindow(t *testing.T) {
	k := startTalking(t, "memory: {window_tokens: 60, conversation_items: 12, conversation_bytes: 8KiB}\n")
	in := k.send(t, k.key, "new", says("up/say", "one")).conversation(t)
	for _, text := range []string{"two", strings.Repeat("long ", 100), "three", "four"} {
		k.send(t, k.key, in, says("up/say", text)).conversation(t)
	}
	want(t, "the window", k.received(t), "user: three\nassistant: you said: three\nuser: four\n")
	k.send(t, k.key, in, says("up/say", "five")).conversation(t)
	want(t, "the window", k.received(t), "user: three\nassistant: you said: three\nuser: four\nassistant: you said: four\nuser: five\n")
	// A full conversation takes no more, and says so before anything is sent.
	n := len(k.up.Requests())
	full := func(in, text string) {
		t.Helper()
		a := k.send(t, k.key, in, says("up/say", text))
		if code, _ := a.fault(); a.status != http.StatusBadRequest || code != "conversation_full" {
			t.Errorf("status %d: %s", a.status, a.body)
		}
	}
	full(in, "six")
	if len(k.up.Requests()) != n {
		t.Error("a turn that has no room was sent")
	}
	// What turns out to be too much only with its answer is not given to the client
	// as if it had been remembered.
	in = k.send(t, k.key, "new", says("up/say", "one")).conversation(t)
	long := strings.Repeat("x", 4000)
	full(in, long)
	s := says("up/say", long)
	s["stream"] = true
	if a, err := k.trySend(t.Context(), k.key, in, s); err == nil || !bytes.Contains(a.body, []byte("conversation_full")) || bytes.Contains(a.body, []byte("[DONE]")) {
		t.Errorf("%v: %s", err, a.body)
	}
	if n := len(k.itemList(t, k.key, in)); n != 2 {
		t.Errorf("%d items", n)
	}
	// An agent has its own window.
	k.g.newAgent(t, k.key, map[string]any{"model": "up/say", "slug": "short", "memory": map[string]any{"window_tokens": 0}})
	in = k.send(t, k.key, "new", says("agent/short", "one")).conversation(t)
	k.send(t, k.key, in, says("agent/short", "two")).conversation(t)
	want(t, "an agent without a window", k.received(t), "user: two\n")
}

// TestConversationHeld: what goes before a turn is part of what the call is held at.
func TestConversationHeld(t *testing.T) {
	k := startTalking(t, "")
	g := k.g
	g.call(t, http.MethodPost, g.URL+"/v1/organization/prices", k.c.AdminKey, priceOf("up", "say"), nil)
	short := says("up/say", "And?")
	short["max_tokens"] = 16
	in := k.send(t, k.key, "new", says("up/say", strings.Repeat("word ", 1000))).conversation(t)
	g.call(t, http.MethodPost, g.URL+"/v1/organization/budgets", k.c.AdminKey, map[string]any{"scope": map[string]any{"type": "company"}, "window": "total", "limit_usd": "0.01"}, nil)
	k.send(t, k.key, "", short).want(t, "a call without a conversation", http.StatusOK)
	n := len(k.up.Requests())
	k.send(t, k.key, in, short).want(t, "a call with more before it than the budget pays for", http.StatusTooManyRequests)
	if len(k.up.Requests()) != n {
		t.Error("it was sent")
	}
}

// TestConversationKill kills the gateway while turns are said, again and again: what
// a client got the end of is there afterwards, whole; of nothing else there is half.
func TestConversationKill(t *testing.T) {
	s := scale.Of(t)
	random := s.Rand()
	up := upstream.New(t)
	up.Handle("say", say)
	g := prepare(t, fmt.Sprintf("providers: {up: {kind: openai, base_url: %q}}\n", up.BaseURL()))
	run := g.serve(t)
	g.setCredential(t, g.Demo, "up", upstreamSecret)
	k := talker{g: g, up: up, c: g.Demo, key: g.Demo.APIKey}
	const talks = 4
	var ids [talks]string
	for i := range ids {
		ids[i] = k.send(t, k.key, "new", says("up/say", "start")).conversation(t)
	}
	var got [talks][]string // what was answered whole
	ended := 0
	for kill := range scale.Pick(s, 4, 60) {
		ctx, stop := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		var mu sync.Mutex
		enough := make(chan struct{})
		left := 5 + random.IntN(40)
		for i := range ids {
			wg.Go(func() {
				for n := 0; ctx.Err() == nil; n++ {
					text := fmt.Sprintf("kill %d talk %d turn %d", kill, i, n)
					b := says("up/say", text)
					b["stream"] = n%2 == 0
					a, err := k.trySend(ctx, k.key, ids[i], b)
					if err != nil || a.status != http.StatusOK || n%2 == 0 && !bytes.HasSuffix(a.body, []byte("data: [DONE]\n\n")) {
						continue
					}
					mu.Lock()
					got[i] = append(got[i], text)
					if left--; left == 0 {
						close(enough)
					}
					mu.Unlock()
				}
			})
		}
		select {
		case <-enough:
		case <-time.After(time.Minute):
			t.Error("nothing is answered")
		}
		run.kill(t)
		stop()
		wg.Wait()
		run = g.serve(t)
	}
	for i, id := range ids {
		all := k.itemList(t, k.key, id)
		there := map[string]bool{}
		for n := 0; n+1 < len(all); n += 2 {
			asked, told := all[n].Content[0].Text, all[n+1].Content[0].Text
			if told != "you said: "+asked || there[asked] {
				t.Errorf("%q is followed by %q", asked, told)
			}
			there[asked] = true
		}
		for _, text := range got[i] {
			if !there[text] {
				t.Errorf("%q was answered and is not there", text)
			}
			ended++
		}
		if len(all)%2 != 0 {
			t.Errorf("there is half a turn: %d items", len(all))
		}
	}
	s.Figure("turns_answered", ended)
}
