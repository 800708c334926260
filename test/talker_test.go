package test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"bulkhead/test/upstream"
)

// talker is a company that talks to a provider that says what it was asked.
type talker struct {
	g   *gateway
	up  *upstream.Server
	c   company
	key string

	again string // Idempotency-Key, if it is not ""
}

// startTalking starts a gateway whose provider "up" has the models "say", which
// answers "you said: …", and "call", which calls a tool first.
func startTalking(t *testing.T, config string) talker {
	t.Helper()
	up := upstream.New(t)
	up.Handle("say", say)
	up.Handle("call", func(c *upstream.Call) {
		if m := messagesIn(c.Body); m[len(m)-1].Role == "tool" {
			say(c)
			return
		}
		c.JSON(http.StatusOK, map[string]any{"id": "x", "object": "chat.completion", "choices": []any{map[string]any{"index": 0, "finish_reason": "tool_calls",
			"message": map[string]any{"role": "assistant", "content": nil, "tool_calls": []any{
				map[string]any{"id": fmt.Sprintf("call_%d", len(c.Body)), "type": "function", "function": map[string]any{"name": "look", "arguments": `{"at":"it"}`}}}}}},
			"usage": map[string]any{"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}})
	})
	g := startGateway(t, fmt.Sprintf("providers: {up: {kind: openai, base_url: %q}}\n", up.BaseURL())+config)
	g.setCredential(t, g.Demo, "up", upstreamSecret)
	return talker{g: g, up: up, c: g.Demo, key: g.Demo.APIKey}
}

type chatMessage struct {
	Role      string           `json:"role"`
	Content   any              `json:"content"`
	ToolCalls []map[string]any `json:"tool_calls,omitempty"`
	ToolCall  string           `json:"tool_call_id,omitempty"`
}

func messagesIn(body []byte) []chatMessage {
	var b struct{ Messages []chatMessage }
	if err := json.Unmarshal(body, &b); err != nil {
		panic(err)
	}
	return b.Messages
}

// say answers with what the last message says, in four pieces if it streams.
func say(c *upstream.Call) {
	m := messagesIn(c.Body)
	text := fmt.Sprint("you said: ", m[len(m)-1].Content)
	if !c.Stream {
		c.JSON(http.StatusOK, map[string]any{"id": "x", "object": "chat.completion", "choices": []any{map[string]any{"index": 0, "finish_reason": "stop",
			"message": map[string]any{"role": "assistant", "content": text}}}, "usage": map[string]any{"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}})
		return
	}
	c.StartStream()
	chunk := func(delta map[string]any, finish any) {
		b, _ := json.Marshal(map[string]any{"id": "x", "object": "chat.completion.chunk", "choices": []any{map[string]any{"index": 0, "delta": delta, "finish_reason": finish}}})
		c.Event(b)
	}
	for i := range 4 {
		chunk(map[string]any{"content": text[i*len(text)/4 : (i+1)*len(text)/4]}, nil)
	}
	chunk(map[string]any{}, "stop")
	c.Event([]byte("[DONE]"))
}

// send makes a call in a conversation, or without one if in is "".
func (k talker) send(t *testing.T, key, in string, body any) answer {
	t.Helper()
	a, err := k.trySend(t.Context(), key, in, body)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func (k talker) trySend(ctx context.Context, key, in string, body any) (a answer, err error) {
	resp, err := k.open(ctx, key, in, body)
	if err != nil {
		return a, err
	}
	defer resp.Body.Close()
	a.status, a.header = resp.StatusCode, resp.Header
	a.body, err = io.ReadAll(resp.Body)
	return a, err
}

func (k talker) open(ctx context.Context, key, in string, body any) (*http.Response, error) {
	b, as := body.([]byte)
	if !as {
		var err error
		if b, err = json.Marshal(body); err != nil {
			return nil, err
		}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, k.g.URL+"/v1/chat/completions", bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+key)
	req.Header.Set("Content-Type", "application/json")
	if k.again != "" {
		req.Header.Set("Idempotency-Key", k.again)
	}
	if in != "" {
		req.Header.Set("X-Conversation-Id", in)
	}
	return client.Do(req)
}

// says is a call that says something.
func says(model, text string) map[string]any {
	return map[string]any{"model": model, "messages": []chatMessage{{Role: "user", Content: text}}}
}

// received is what the provider was last sent, as one line a message.
func (k talker) received(t *testing.T) string {
	t.Helper()
	last, ok := k.up.Last()
	if !ok {
		t.Fatal("nothing was sent")
	}
	return lines(messagesIn(last.Body))
}

func lines(all []chatMessage) string {
	var b strings.Builder
	for _, m := range all {
		fmt.Fprintf(&b, "%s: %v", m.Role, m.Content)
		for _, c := range m.ToolCalls {
			fmt.Fprintf(&b, " calls %s", c["id"])
		}
		if m.ToolCall != "" {
			fmt.Fprintf(&b, " for %s", m.ToolCall)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// item is an item of a conversation.
type item struct {
	ID, Type, Role, Status, Output string
	CallID                         string `json:"call_id"`
	Content                        []struct{ Type, Text string }
}

// items are the items of a conversation, oldest first, as one line each.
func (k talker) items(t *testing.T, key, in string) string {
	t.Helper()
	var b strings.Builder
	for _, i := range k.itemList(t, key, in) {
		fmt.Fprintf(&b, "%s %s", i.Type, i.Status)
		for _, p := range i.Content {
			fmt.Fprintf(&b, " %s %s: %s", i.Role, p.Type, p.Text)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func (k talker) itemList(t *testing.T, key, in string) (all []item) {
	t.Helper()
	for after := ""; ; {
		var page struct {
			Data    []item
			HasMore bool   `json:"has_more"`
			LastID  string `json:"last_id"`
		}
		k.g.call(t, http.MethodGet, k.g.URL+"/v1/conversations/"+in+"/items?order=asc&limit=7"+after, key, nil, &page)
		all = append(all, page.Data...)
		if !page.HasMore {
			return all
		}
		after = "&after=" + page.LastID
	}
}

func want(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s:\n%s\nwant\n%s", what, got, want)
	}
}

// id is the conversation that an answer names.
func (a answer) conversation(t *testing.T) string {
	t.Helper()
	id := a.header.Get("X-Conversation-Id")
	if a.status != http.StatusOK || !strings.HasPrefix(id, "conv_") {
		t.Fatalf("status %d, conversation %q: %s", a.status, id, a.body)
	}
	return id
}
