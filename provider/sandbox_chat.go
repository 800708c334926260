package provider

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// sandboxRequest is what the sandbox looks at in a chat or completions request.
type sandboxRequest struct {
	Model    string          `json:"model"`
	Prompt   json.RawMessage `json:"prompt"`
	Messages []struct {
		Role    string          `json:"role"`
		Content json.RawMessage `json:"content"`
	} `json:"messages"`
	Stream        bool `json:"stream"`
	StreamOptions struct {
		IncludeUsage bool `json:"include_usage"`
	} `json:"stream_options"`
	MaxTokens           *int64          `json:"max_tokens"`
	MaxCompletionTokens *int64          `json:"max_completion_tokens"`
	N                   *int            `json:"n"`
	Stop                json.RawMessage `json:"stop"`
	Tools               []struct {
		Function struct {
			Name string `json:"name"`
		} `json:"function"`
	} `json:"tools"`
	ToolChoice     json.RawMessage `json:"tool_choice"`
	ResponseFormat struct {
		Type string `json:"type"`
	} `json:"response_format"`
}

// sandboxChoice is one answer, before it is written as JSON or SSE.
type sandboxChoice struct {
	text   string
	tool   string // name of the function that is called; "" is none
	args   string
	finish string
	tokens int
}

// sandboxAnswer is all that is answered to one chat or completions request.
type sandboxAnswer struct {
	id, model   string
	chat        bool
	choices     []sandboxChoice
	prompt, out int // tokens
	withUsage   bool
}

func (s *SandboxTransport) chat(ctx context.Context, raw []byte) (*http.Response, error) {
	var q sandboxRequest
	if err := decode(raw, &q, &q.Model); err != nil {
		return nil, err
	}
	if len(q.Messages) == 0 {
		return nil, badField("messages", "messages must have at least one message")
	}
	a := sandboxAnswer{id: sandboxID("chatcmpl-", raw), model: q.Model, chat: true}
	texts := make([]string, len(q.Messages))
	last := len(texts) - 1
	for i, m := range q.Messages {
		texts[i] = contentText(m.Content)
		a.prompt += tokens(texts[i])
		if m.Role == "user" || m.Role == "tool" {
			last = i
		}
	}
	c := sandboxChoice{text: texts[last]}
	if q.Model == "grounded" && q.Messages[last].Role == "user" {
		c.text = grounded(texts[last])
	}
	if q.Messages[last].Role != "tool" {
		c.tool, c.args = q.toolCall(c.text)
	}
	if c.tool != "" {
		c.text, c.finish, c.tokens = "", "tool_calls", tokens(c.tool)+tokens(c.args)
	} else {
		if t := q.ResponseFormat.Type; t == "json_object" || t == "json_schema" {
			c.text = string(quoted([]byte(`{"echo": `), c.text)) + "}"
		}
		if err := q.limit(&c); err != nil {
			return nil, err
		}
	}
	return s.finish(ctx, &q, &a, []sandboxChoice{c})
}

func (s *SandboxTransport) completions(ctx context.Context, raw []byte) (*http.Response, error) {
	var q sandboxRequest
	if err := decode(raw, &q, &q.Model); err != nil {
		return nil, err
	}
	in, err := inputs("prompt", q.Prompt)
	if err != nil {
		return nil, err
	}
	a := sandboxAnswer{id: sandboxID("cmpl-", raw), model: q.Model}
	var choices []sandboxChoice
	for _, i := range in {
		a.prompt += i.tokens
		c := sandboxChoice{text: i.text}
		if err := q.limit(&c); err != nil {
			return nil, err
		}
		choices = append(choices, c)
	}
	return s.finish(ctx, &q, &a, choices)
}

// finish gives each choice n times and writes the answer.
func (s *SandboxTransport) finish(ctx context.Context, q *sandboxRequest, a *sandboxAnswer, choices []sandboxChoice) (*http.Response, error) {
	n := 1
	if q.N != nil {
		n = *q.N
	}
	if n < 1 || n > sandboxChoices || n*len(choices) > sandboxChoices {
		return nil, badField("n", "n must be at least 1, and n times the prompts at most %d", sandboxChoices)
	}
	for _, c := range choices {
		a.out += n * c.tokens
		for range n {
			a.choices = append(a.choices, c)
		}
	}
	delay := s.delay(q.Model)
	if q.Stream {
		a.withUsage = q.StreamOptions.IncludeUsage
		return sandboxResponse(http.StatusOK, "text/event-stream", -1, newSandboxStream(ctx, a, delay)), nil
	}
	for range words(a.choices[0].text) {
		if err := sleep(ctx, delay); err != nil {
			return nil, err
		}
	}
	return jsonResponse(http.StatusOK, a.json()), nil
}

// limit cuts the text at a stop sequence, then to the tokens allowed.
func (q *sandboxRequest) limit(c *sandboxChoice) error {
	c.finish = "stop"
	stops, err := stopList(q.Stop)
	if err != nil {
		return err
	}
	for _, stop := range stops {
		if before, _, found := strings.Cut(c.text, stop); found && stop != "" {
			c.text = before
		}
	}
	most := q.MaxTokens
	name := "max_tokens"
	if q.MaxCompletionTokens != nil {
		most, name = q.MaxCompletionTokens, "max_completion_tokens"
	}
	limit := sandboxOutput
	if most != nil {
		if *most < 1 {
			return badField(name, "%s must be at least 1", name)
		}
		limit = int(min(*most, sandboxOutput))
	}
	if tokens(c.text) > limit {
		c.text, c.finish = cutRunes(c.text, 4*limit), "length"
	}
	c.tokens = tokens(c.text)
	return nil
}

// cutRunes returns at most max bytes of s, without half a character at the end.
func cutRunes(s string, max int) string {
	for max > 0 && !utf8.RuneStart(s[max]) {
		max--
	}
	return s[:max]
}

// toolCall returns the function the answer calls, and with which arguments.
func (q *sandboxRequest) toolCall(text string) (name, args string) {
	var mode string
	var named struct {
		Function struct {
			Name string `json:"name"`
		} `json:"function"`
	}
	if json.Unmarshal(q.ToolChoice, &mode) != nil {
		_ = json.Unmarshal(q.ToolChoice, &named)
	}
	if mode == "none" || len(q.Tools) == 0 {
		return "", ""
	}
	for _, t := range q.Tools {
		n := t.Function.Name
		_, rest, said := strings.Cut(text, "call "+n)
		if n == "" || !said || named.Function.Name != "" && named.Function.Name != n {
			continue
		}
		if rest != "" && isNameByte(rest[0]) {
			continue // the name of another tool begins with this one
		}
		return n, arguments(rest)
	}
	if named.Function.Name != "" {
		return named.Function.Name, "{}"
	}
	if mode == "required" {
		return q.Tools[0].Function.Name, "{}"
	}
	return "", ""
}

func isNameByte(c byte) bool { return alnum(c) || c == '_' || c == '-' }

// arguments returns the JSON object that rest begins with, or {}.
func arguments(rest string) string {
	rest = strings.TrimLeft(rest, " \t\r\n")
	if !strings.HasPrefix(rest, "{") {
		return "{}"
	}
	var v json.RawMessage
	if json.NewDecoder(strings.NewReader(rest)).Decode(&v) != nil || tokens(string(v)) > sandboxOutput {
		return "{}"
	}
	return string(v)
}

// contentText returns the text of a message's content: a string, or parts.
func contentText(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) == nil {
		return s
	}
	var parts []struct {
		Text string `json:"text"`
	}
	if json.Unmarshal(raw, &parts) != nil {
		return ""
	}
	var b strings.Builder
	for _, p := range parts {
		b.WriteString(p.Text)
	}
	return b.String()
}

func stopList(raw json.RawMessage) ([]string, error) {
	var one string
	var many []string
	switch {
	case len(raw) == 0 || bytes.Equal(raw, []byte("null")):
		return nil, nil
	case json.Unmarshal(raw, &one) == nil:
		return []string{one}, nil
	case json.Unmarshal(raw, &many) == nil && len(many) <= 4:
		return many, nil
	}
	return nil, badField("stop", "stop must be a string or up to 4 strings")
}

// words splits s behind each run of spaces, so that the parts joined are s.
func words(s string) []string {
	var w []string
	for s != "" {
		i := strings.IndexByte(s, ' ')
		if i < 0 {
			return append(w, s)
		}
		for i < len(s) && s[i] == ' ' {
			i++
		}
		w, s = append(w, s[:i]), s[i:]
	}
	return w
}

// json writes the answer as one object.
func (a *sandboxAnswer) json() []byte {
	b := make([]byte, 0, 512+2*len(a.choices[0].text))
	b = a.head(b, "")
	for i, c := range a.choices {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, `{"index":`...)
		b = strconv.AppendInt(b, int64(i), 10)
		switch {
		case !a.chat:
			b = quoted(append(b, `,"text":`...), c.text)
		case c.tool != "":
			b = append(b, `,"message":{"role":"assistant","content":null,"refusal":null,"tool_calls":[`...)
			b = a.toolCall(b, i, c, false)
			b = append(b, "]}"...)
		default:
			b = quoted(append(b, `,"message":{"role":"assistant","content":`...), c.text)
			b = append(b, `,"refusal":null}`...)
		}
		b = quoted(append(b, `,"logprobs":null,"finish_reason":`...), c.finish)
		b = append(b, '}')
	}
	return append(a.usage(append(b, ']')), '}')
}

// head begins the answer or one chunk of it, up to the choices.
func (a *sandboxAnswer) head(b []byte, chunk string) []byte {
	b = quoted(append(b, `{"id":`...), a.id)
	b = append(b, `,"object":"`...)
	if a.chat {
		b = append(append(b, "chat.completion"...), chunk...)
	} else {
		b = append(b, "text_completion"...)
	}
	b = append(b, `","created":`...)
	b = strconv.AppendInt(b, sandboxCreated, 10)
	b = quoted(append(b, `,"model":`...), a.model)
	return append(b, `,"system_fingerprint":"sandbox","choices":[`...)
}

func (a *sandboxAnswer) usage(b []byte) []byte {
	b = strconv.AppendInt(append(b, `,"usage":{"prompt_tokens":`...), int64(a.prompt), 10)
	b = strconv.AppendInt(append(b, `,"completion_tokens":`...), int64(a.out), 10)
	b = strconv.AppendInt(append(b, `,"total_tokens":`...), int64(a.prompt+a.out), 10)
	return append(b, `,"prompt_tokens_details":{"cached_tokens":0},"completion_tokens_details":{"reasoning_tokens":0}}`...)
}

// toolCall writes choice i's call; in a chunk with its index and no arguments yet.
func (a *sandboxAnswer) toolCall(b []byte, i int, c sandboxChoice, chunk bool) []byte {
	b = append(b, '{')
	args := c.args
	if chunk {
		b, args = append(b, `"index":0,`...), ""
	}
	id := sandboxID("call_", slices.Concat([]byte(a.id), []byte{byte(i)}))
	b = quoted(append(b, `"id":`...), id)
	b = quoted(append(b, `,"type":"function","function":{"name":`...), c.tool)
	b = quoted(append(b, `,"arguments":`...), args)
	return append(b, "}}"...)
}
