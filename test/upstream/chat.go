package upstream

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
)

// Object is a JSON object of an answer.
type object = map[string]any

func itoa(n int) string { return strconv.Itoa(n) }

// form is how the two text endpoints differ in what they say.
type form struct {
	object, chunk, prefix string
	whole                 func(text string, finish any) object // the choice of an answer
	part                  func(text string, first bool) object // the choice of a chunk
}

var chatForm = form{
	object: "chat.completion", chunk: "chat.completion.chunk", prefix: "chatcmpl-",
	whole: func(text string, finish any) object {
		return object{"message": object{"role": "assistant", "content": text, "refusal": nil}, "logprobs": nil, "finish_reason": finish}
	},
	part: func(text string, first bool) object {
		if first {
			return object{"delta": object{"role": "assistant", "content": ""}, "finish_reason": nil}
		}
		return object{"delta": object{"content": text}, "finish_reason": nil}
	},
}

var textForm = form{
	object: "text_completion", chunk: "text_completion", prefix: "cmpl-",
	whole: func(text string, finish any) object {
		return object{"text": text, "logprobs": nil, "finish_reason": finish}
	},
	part: func(text string, _ bool) object {
		return object{"text": text, "logprobs": nil, "finish_reason": nil}
	},
}

func (c *Call) chat() {
	if c.Model == "tools" && len(c.in.Tools) > 0 && !c.answersTool() {
		c.toolCall()
		return
	}
	c.text(chatForm)
}

func (c *Call) completion() { c.text(textForm) }

func (c *Call) answersTool() bool {
	n := len(c.in.Messages)
	return n > 0 && c.in.Messages[n-1].Role == "tool"
}

// words is the content of the answer, one chunk each, and how it finished.
func (c *Call) words() (words []string, finish string) {
	words = []string{"Hello", " from", " the", " upstream"}
	if n := numbered(c.Model, "chunks-", 100_000); n >= 0 {
		words = make([]string, n)
		for i := range words {
			words[i] = fmt.Sprintf("c%d ", i)
		}
	}
	if c.Model == "huge-line" {
		words = []string{filler(hugeLine)}
	}
	limit := c.in.MaxCompletionTokens
	if limit == 0 {
		limit = c.in.MaxTokens
	}
	if limit > 0 && limit < len(words) {
		return words[:limit], "length"
	}
	return words, "stop"
}

func (c *Call) choices() int { return max(1, c.in.N) }

func (c *Call) text(f form) {
	if c.Stream {
		c.StartStream()
		c.textStream(f)
		return
	}
	words, finish := c.words()
	text := ""
	for _, w := range words {
		text += w
	}
	var choices []object
	for i := range c.choices() {
		ch := f.whole(text, finish)
		ch["index"] = i
		choices = append(choices, ch)
	}
	c.whole(c.base(f.prefix, f.object, choices), usage(len(words)*c.choices()))
}

// whole sends a JSON answer, or what the model makes of it.
func (c *Call) whole(answer, use object) {
	if c.Model != "no-usage" {
		answer["usage"] = use
	}
	b := encode(answer)
	switch c.Model {
	case "cut":
		c.brokenBody(b, true)
		c.Abort()
	case "cut-clean":
		c.brokenBody(b, false)
	case "silent", "flood", "never-ending":
		c.brokenBody(b, true)
		c.WaitGone()
		c.Abort()
	case "error-mid":
		c.status(http.StatusInternalServerError)
	case "drip":
		c.drip = true
		c.W.Header().Set("Content-Type", "application/json")
		c.write(b)
	default:
		c.W.Header().Set("Content-Type", "application/json")
		_, _ = c.W.Write(b)
	}
}

func (c *Call) base(prefix, object string, choices []map[string]any) map[string]any {
	return map[string]any{
		"id": prefix + itoa(c.number), "object": object, "created": 1_700_000_000, "model": c.Model,
		"system_fingerprint": "fp_upstream", "choices": choices,
	}
}

// textStream sends the chunks of a streamed answer.
func (c *Call) textStream(f form) {
	chunk := func(choices ...object) object {
		o := c.base(f.prefix, f.chunk, choices)
		if len(choices) == 0 {
			o["choices"] = []object{}
		}
		if c.Model == "usage-every-chunk" {
			o["usage"] = nil
		}
		return o
	}
	part := func(i int, text string, first bool) []byte {
		ch := f.part(text, first)
		ch["index"] = i
		return encode(chunk(ch))
	}
	switch c.Model {
	case "crlf":
		c.eol = "\r\n"
	case "drip":
		c.drip = true
	case "empty-choices-first":
		first := chunk()
		first["prompt_filter_results"] = []object{{"prompt_index": 0, "content_filter_results": object{}}}
		c.Event(encode(first))
	case "flood":
		for big := part(0, filler(floodSize), false); c.Event(big); {
		}
		return
	case "never-ending":
		c.neverEnding(func() []byte { return part(0, "more ", false) })
		return
	}
	words, finish := c.words()
	if f.object == chatForm.object {
		for i := range c.choices() {
			c.Event(part(i, "", true))
		}
	}
	for n, w := range words {
		for i := range c.choices() {
			if c.Model == "comments" {
				c.Comment("keepalive")
			}
			if !c.Event(part(i, w, false)) {
				return
			}
		}
		if c.breaksAfter(n + 1) {
			return
		}
	}
	c.finish(f, chunk, finish, usage(len(words)*c.choices()))
}

// breaksAfter breaks the stream off after n content chunks if the model is one
// that does.
func (c *Call) breaksAfter(n int) bool {
	switch {
	case c.Model == "silent" && n == 1:
		c.WaitGone()
	case c.Model == "cut" && n == 2:
		c.Abort()
	case c.Model == "cut-clean" && n == 2:
	case c.Model == "error-mid" && n == 2:
		c.Event(encode(envelope("the upstream broke in the middle", "server_error")))
	default:
		return false
	}
	return true
}

// finish sends the finish chunks, the usage chunk and [DONE].
func (c *Call) finish(f form, chunk func(...object) object, reason string, use object) {
	for i := range c.choices() {
		ch := f.part("", false)
		if f.object == chatForm.object {
			ch["delta"] = object{}
		}
		ch["index"], ch["finish_reason"] = i, reason
		o := chunk(ch)
		if c.Model == "usage-with-finish" && i == c.choices()-1 {
			o["usage"] = use
		}
		c.Event(encode(o))
	}
	switch c.Model {
	case "no-usage", "usage-with-finish":
	default:
		if c.IncludeUsage || c.Model == "usage-every-chunk" {
			o := chunk()
			o["usage"] = use
			c.Event(encode(o))
		}
	}
	c.Event([]byte("[DONE]"))
}

// toolCall calls the first tool of the request.
func (c *Call) toolCall() {
	name, args := c.in.Tools[0].Function.Name, []string{`{"ci`, `ty":"`, `Paris"}`}
	call := func(args string) object {
		return object{"id": "call_1", "type": "function", "function": object{"name": name, "arguments": args}}
	}
	if !c.Stream {
		msg := object{"role": "assistant", "content": nil, "refusal": nil, "tool_calls": []object{call(args[0] + args[1] + args[2])}}
		c.whole(c.base("chatcmpl-", "chat.completion",
			[]object{{"index": 0, "message": msg, "logprobs": nil, "finish_reason": "tool_calls"}}), usage(ToolTokens))
		return
	}
	c.StartStream()
	chunk := func(choices ...object) object {
		if choices == nil {
			choices = []object{}
		}
		return c.base("chatcmpl-", "chat.completion.chunk", choices)
	}
	delta := func(d object) { c.Event(encode(chunk(object{"index": 0, "delta": d, "finish_reason": nil}))) }
	head := call("")
	head["index"] = 0
	delta(object{"role": "assistant", "content": nil, "tool_calls": []object{head}})
	for _, a := range args {
		delta(object{"tool_calls": []object{{"index": 0, "function": object{"arguments": a}}}})
	}
	c.finish(chatForm, chunk, "tool_calls", usage(ToolTokens))
}

func usage(completion int) object {
	return object{
		"prompt_tokens": PromptTokens, "completion_tokens": completion, "total_tokens": PromptTokens + completion,
		"prompt_tokens_details":     object{"cached_tokens": 0, "audio_tokens": 0},
		"completion_tokens_details": object{"reasoning_tokens": 0, "audio_tokens": 0, "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0},
	}
}

func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic("BUG: answer is not JSON: " + err.Error())
	}
	return b
}
