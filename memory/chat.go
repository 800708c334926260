package memory

import (
	"bytes"
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	"bulkhead/fault"
)

// Message is a message of a chat.
type Message struct {
	Role       string          `json:"role"`
	Content    json.RawMessage `json:"content"`
	Refusal    *string         `json:"refusal,omitempty"`
	Audio      *messageAudio   `json:"audio,omitempty"`
	ToolCalls  []toolCall      `json:"tool_calls,omitempty"`
	ToolCallID string          `json:"tool_call_id,omitempty"`

	// Start and End are where it stands in what ReadMessages read.
	Start, End int `json:"-"`
}

// messageAudio is sound that a model made: of it the words are kept.
type messageAudio struct {
	Transcript string `json:"transcript,omitempty"`
}

type toolCall struct {
	ID       string        `json:"id"`
	Type     string        `json:"type"`
	Function *functionPart `json:"function,omitempty"`
	Custom   *customPart   `json:"custom,omitempty"`
}

type functionPart struct {
	Name      string `json:"name"`
	Arguments string `json:"arguments"`
}

type customPart struct {
	Name  string `json:"name"`
	Input string `json:"input"`
}

// ReadMessages reads the messages of a chat, an array that was read as a request
// before. The error is a *fault.Error for what no conversation keeps.
func ReadMessages(raw []byte) ([]Message, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	if _, err := d.Token(); err != nil {
		return nil, fault.Field("messages", "messages must be an array.")
	}
	var all []Message
	for d.More() {
		at := "messages[" + strconv.Itoa(len(all)) + "]"
		var one json.RawMessage
		var m Message
		if d.Decode(&one) != nil || json.Unmarshal(one, &m) != nil {
			return nil, fault.Field(at, "%s has not the form that a conversation can keep.", at)
		}
		if m.Role == "function" {
			return nil, fault.Field(at+".role", "A conversation keeps no messages of role function: use tools.")
		}
		m.End = int(d.InputOffset())
		m.Start = m.End - len(one)
		all = append(all, m)
	}
	return all, nil
}

// Current returns where the current turn begins: at the last user's message, or
// behind what is said before any turn. alone reports whether nothing but system and
// developer messages stands before it.
func Current(all []Message) (from int, alone bool) {
	said := func(m Message) bool { return m.Role != "system" && m.Role != "developer" }
	first := slices.IndexFunc(all, said)
	if first < 0 {
		return len(all), true
	}
	for i := len(all) - 1; i >= 0; i-- {
		if all[i].Role == "user" {
			return i, i == first
		}
	}
	return first, true
}

// itemsOf makes the items of messages. starts says that the first begins a turn.
func itemsOf(all []Message, starts bool, custom map[string]bool) (items []Item) {
	add := func(b body) {
		if b.Status == "" {
			b.Status = "completed"
		}
		items = append(items, newItem(b, starts && len(items) == 0))
	}
	for i := range all {
		m := &all[i]
		if m.Role == "tool" {
			kind := functionOutput
			if custom[m.ToolCallID] {
				kind = customOutput
			}
			add(body{Type: kind, CallID: m.ToolCallID, Output: outputOf(m.Content)})
			continue
		}
		if parts := m.parts(); len(parts) > 0 || len(m.ToolCalls) == 0 {
			add(body{Type: message, Role: m.Role, Content: encode(parts)})
		}
		for _, c := range m.ToolCalls {
			switch {
			case c.Custom != nil:
				custom[c.ID] = true
				add(body{Type: customCall, CallID: c.ID, Name: c.Custom.Name, Input: &c.Custom.Input})
			case c.Function != nil:
				add(body{Type: functionCall, CallID: c.ID, Name: c.Function.Name, Arguments: &c.Function.Arguments})
			}
		}
	}
	return items
}

// parts are the parts of a message as the API has them.
func (m *Message) parts() []json.RawMessage {
	out := []json.RawMessage{}
	var text string
	var parts []json.RawMessage
	switch {
	case json.Unmarshal(m.Content, &text) == nil && len(m.Content) > 0 && m.Content[0] == '"':
		if text != "" || m.Role != "assistant" {
			out = append(out, encode(textPart(m.Role, text)))
		}
	case json.Unmarshal(m.Content, &parts) == nil:
		for _, p := range parts {
			out = append(out, fromChat(m.Role, p))
		}
	}
	if m.Refusal != nil && *m.Refusal != "" {
		out = append(out, encode(part{Type: "refusal", Refusal: m.Refusal}))
	}
	if m.Audio != nil && m.Audio.Transcript != "" {
		out = append(out, encode(textPart(m.Role, m.Audio.Transcript)))
	}
	return out
}

// outputOf is the content of a tool's message as an item's output.
func outputOf(content json.RawMessage) json.RawMessage {
	var parts []json.RawMessage
	if len(content) > 0 && content[0] == '[' && json.Unmarshal(content, &parts) == nil {
		for i := range parts {
			parts[i] = fromChat("tool", parts[i])
		}
		return encode(parts)
	}
	if len(content) == 0 || content[0] != '"' {
		return json.RawMessage(`""`)
	}
	return content
}

// chatPart is a part of a chat's message.
type chatPart struct {
	Type     string     `json:"type"`
	Text     *string    `json:"text,omitempty"`
	Refusal  *string    `json:"refusal,omitempty"`
	ImageURL *chatImage `json:"image_url,omitempty"`
	File     *chatFile  `json:"file,omitempty"`
}

type chatImage struct {
	URL    string  `json:"url"`
	Detail *string `json:"detail,omitempty"`
}

type chatFile struct {
	FileData *string `json:"file_data,omitempty"`
	FileID   *string `json:"file_id,omitempty"`
	Filename *string `json:"filename,omitempty"`
}

// fromChat makes a part as the API has it. What it does not know it leaves as it is.
func fromChat(role string, raw json.RawMessage) json.RawMessage {
	var p chatPart
	if json.Unmarshal(raw, &p) != nil {
		return raw
	}
	switch {
	case p.Type == "text" && p.Text != nil:
		return encode(textPart(role, *p.Text))
	case p.Type == "image_url" && p.ImageURL != nil:
		auto := "auto"
		if p.ImageURL.Detail == nil {
			p.ImageURL.Detail = &auto
		}
		return encode(part{Type: "input_image", ImageURL: &p.ImageURL.URL, Detail: p.ImageURL.Detail})
	case p.Type == "file" && p.File != nil:
		return encode(part{Type: "input_file", FileData: p.File.FileData, FileID: p.File.FileID, Filename: p.File.Filename})
	}
	return raw
}

// toChat makes a part of a chat. What a chat cannot hold is said to have been there.
func toChat(raw json.RawMessage) json.RawMessage {
	var p part
	if json.Unmarshal(raw, &p) != nil {
		return raw
	}
	text := func(s string) json.RawMessage { return encode(chatPart{Type: "text", Text: &s}) }
	switch p.Type {
	case "input_text", "output_text", "text":
		if p.Text != nil {
			return text(*p.Text)
		}
	case "input_image":
		if p.ImageURL == nil {
			return text("[image]")
		}
		return encode(chatPart{Type: "image_url", ImageURL: &chatImage{*p.ImageURL, p.Detail}})
	case "input_file":
		if p.FileData == nil && p.FileID == nil {
			return text("[file]")
		}
		return encode(chatPart{Type: "file", File: &chatFile{p.FileData, p.FileID, p.Filename}})
	}
	return raw
}

// messagesOf makes messages of the items of a turn. Of a tool's call without an
// answer, and of an answer without its call, nothing is said, unless pending has the
// call's id: its answer comes behind them.
func messagesOf(items []body, pending map[string]bool) (all []Message) {
	called, answered := map[string]bool{}, map[string]bool{}
	for _, b := range items {
		switch b.Type {
		case functionCall, customCall:
			called[b.CallID] = true
		case functionOutput, customOutput:
			answered[b.CallID] = called[b.CallID]
		}
	}
	for i := range items {
		b := &items[i]
		switch b.Type {
		case message:
			m := Message{Role: b.Role}
			var parts []json.RawMessage
			_ = json.Unmarshal(b.Content, &parts) // it was written by encode
			m.Content, m.Refusal = contentOf(b.Role, parts)
			all = append(all, m)
		case functionCall, customCall:
			if !answered[b.CallID] && !pending[b.CallID] {
				continue
			}
			if n := len(all); n == 0 || all[n-1].Role != "assistant" {
				all = append(all, Message{Role: "assistant", Content: json.RawMessage("null")})
			}
			c := toolCall{ID: b.CallID, Type: "function"}
			if b.Type == customCall {
				c.Type, c.Custom = "custom", &customPart{b.Name, deref(b.Input)}
			} else {
				c.Function = &functionPart{b.Name, deref(b.Arguments)}
			}
			last := &all[len(all)-1]
			last.ToolCalls = append(last.ToolCalls, c)
		case functionOutput, customOutput:
			if !answered[b.CallID] {
				continue
			}
			m := Message{Role: "tool", ToolCallID: b.CallID, Content: b.Output}
			var parts []json.RawMessage
			if json.Unmarshal(b.Output, &parts) == nil {
				m.Content, _ = contentOf("tool", parts)
			}
			all = append(all, m)
		}
	}
	return all
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// contentOf is a content of a chat: a text where it is nothing else.
func contentOf(role string, parts []json.RawMessage) (content json.RawMessage, refusal *string) {
	var p part
	kept := make([]json.RawMessage, 0, len(parts))
	texts := true
	var b strings.Builder
	for i, raw := range parts {
		p = part{}
		_ = json.Unmarshal(raw, &p)
		if role == "assistant" && p.Type == "refusal" {
			refusal = p.Refusal
			continue
		}
		kept = append(kept, toChat(raw))
		if texts = texts && p.Text != nil && (i == 0 || role == "assistant"); texts {
			b.WriteString(*p.Text)
		}
	}
	switch {
	case len(kept) == 0 && role == "assistant":
		return json.RawMessage("null"), refusal
	case texts:
		return encode(b.String()), refusal
	}
	return encode(kept), refusal
}

// says is the text of a message, to tell whether it is the same as another.
func (m *Message) says() string {
	var text string
	if json.Unmarshal(m.Content, &text) == nil {
		return text
	}
	var parts []chatPart
	_ = json.Unmarshal(m.Content, &parts)
	var b strings.Builder
	for _, p := range parts {
		b.WriteString(deref(p.Text))
		if p.ImageURL != nil {
			b.WriteString(p.ImageURL.URL)
		}
	}
	return b.String()
}

// same reports whether two messages say the same. Clients send back what they were
// answered with fields that are empty.
func same(a, b *Message) bool {
	return a.Role == b.Role && a.ToolCallID == b.ToolCallID && a.says() == b.says() &&
		slices.EqualFunc(a.ToolCalls, b.ToolCalls, func(x, y toolCall) bool { return x.ID == y.ID })
}
