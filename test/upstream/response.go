package upstream

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
)

// kept is a response as the server keeps it, for the key it was made with.
type kept struct {
	key    string
	answer object
	input  []object
	tokens int
}

// responses answers /responses and what is below it. rest is what stands behind
// "/responses" in the path.
func (c *Call) responses(rest string) {
	id, below, _ := strings.Cut(strings.TrimPrefix(rest, "/"), "/")
	if id == "" {
		if !c.method(http.MethodPost) {
			return
		}
		if c.badBody {
			c.Error(http.StatusBadRequest, "the body is not a JSON object", "invalid_request_error")
			return
		}
		if !c.scripted() && !c.fault() {
			c.respond()
		}
		return
	}
	c.s.mu.Lock()
	k, there := c.s.responses[id]
	c.s.mu.Unlock()
	if !there || k.key != c.R.Header.Get("Authorization") {
		c.Error(http.StatusNotFound, "Response with id '"+id+"' not found.", "invalid_request_error")
		return
	}
	switch c.R.Method + " " + below {
	case "GET ":
		c.JSON(http.StatusOK, k.answer)
	case "DELETE ":
		c.s.mu.Lock()
		delete(c.s.responses, id)
		c.s.mu.Unlock()
		c.JSON(http.StatusOK, object{"id": id, "object": "response", "deleted": true})
	case "GET input_items":
		c.JSON(http.StatusOK, object{"object": "list", "data": k.input, "first_id": "msg_in", "last_id": "msg_in", "has_more": false})
	case "POST cancel":
		answer := object{}
		for name, v := range k.answer {
			answer[name] = v
		}
		answer["status"] = "cancelled"
		c.JSON(http.StatusOK, answer)
	default:
		c.Error(http.StatusMethodNotAllowed, "wrong method", "invalid_request_error")
	}
}

// respond makes a response.
func (c *Call) respond() {
	var in struct {
		Previous string          `json:"previous_response_id"`
		Store    *bool           `json:"store"`
		Max      int             `json:"max_output_tokens"`
		Input    json.RawMessage `json:"input"`
		Tools    []struct {
			Type, Name string
		} `json:"tools"`
	}
	if err := json.Unmarshal(c.Body, &in); err != nil {
		c.Error(http.StatusBadRequest, "the body is not a response", "invalid_request_error")
		return
	}
	key := c.R.Header.Get("Authorization")
	prompt := PromptTokens
	if in.Previous != "" {
		c.s.mu.Lock()
		k, there := c.s.responses[in.Previous]
		c.s.mu.Unlock()
		if !there || k.key != key {
			c.JSON(http.StatusBadRequest, object{"error": object{"message": "Previous response with id '" + in.Previous + "' not found.",
				"type": "invalid_request_error", "param": "previous_response_id", "code": "previous_response_not_found"}})
			return
		}
		prompt += k.tokens
	}
	c.in.MaxTokens = in.Max
	words, finish := c.words()
	r := &response{c: c, words: words, status: "completed", id: fmt.Sprintf("resp_%08x", c.number), prompt: prompt, previous: in.Previous}
	if finish == "length" {
		r.status = "incomplete"
	}
	if c.Model == "response-failed" {
		r.status = "failed"
	}
	if c.Model == "tools" && len(in.Tools) > 0 {
		r.call = in.Tools[0].Name
	}
	if in.Store == nil || *in.Store {
		item := object{"id": "msg_in", "type": "message", "role": "user", "content": []object{{"type": "input_text", "text": string(in.Input)}}}
		c.s.mu.Lock()
		c.s.responses[r.id] = kept{key, r.whole(r.status), []object{item}, r.total()}
		c.s.mu.Unlock()
	}
	if c.Stream {
		c.StartStream()
		r.stream()
		return
	}
	c.whole(r.whole(r.status), r.usage())
}

// response is one that is being made.
type response struct {
	c        *Call
	id       string
	words    []string
	status   string
	prompt   int
	previous string
	call     string // the tool that it calls
	sequence int
}

func (r *response) output() int {
	if r.call != "" {
		return ToolTokens
	}
	return len(r.words)
}

func (r *response) total() int { return r.prompt + r.output() }

func (r *response) usage() object {
	return object{
		"input_tokens": r.prompt, "input_tokens_details": object{"cached_tokens": 0},
		"output_tokens": r.output(), "output_tokens_details": object{"reasoning_tokens": 0}, "total_tokens": r.total(),
	}
}

func (r *response) items(status string) []object {
	items := []object{}
	if r.c.Model == "web-search" {
		items = append(items, object{"id": "ws_1", "type": "web_search_call", "status": "completed", "action": object{"type": "search", "query": "q"}})
	}
	if r.call != "" {
		return append(items, object{"id": "fc_1", "type": "function_call", "status": status, "call_id": "call_1", "name": r.call, "arguments": `{"city":"Paris"}`})
	}
	part := object{"type": "output_text", "text": strings.Join(r.words, ""), "annotations": []object{}, "logprobs": []object{}}
	return append(items, object{"id": "msg_" + r.id, "type": "message", "status": status, "role": "assistant", "content": []object{part}})
}

// whole is the response in a status.
func (r *response) whole(status string) object {
	o := object{
		"id": r.id, "object": "response", "created_at": 1_700_000_000, "status": status, "model": r.c.Model, "error": nil, "incomplete_details": nil,
		"instructions": nil, "metadata": object{}, "parallel_tool_calls": true, "temperature": 1.0, "top_p": 1.0, "tool_choice": "auto", "tools": []object{},
		"output": []object{}, "usage": nil, "previous_response_id": nil, "service_tier": "default",
	}
	if r.previous != "" {
		o["previous_response_id"] = r.previous
	}
	if status == "in_progress" {
		return o
	}
	o["output"] = r.items("completed")
	if r.c.Model != "no-usage" {
		o["usage"] = r.usage()
	}
	switch status {
	case "incomplete":
		o["incomplete_details"] = object{"reason": "max_output_tokens"}
	case "failed":
		o["error"] = object{"code": "server_error", "message": "the upstream failed; it was sent " + r.c.R.Header.Get("Authorization")}
	}
	return o
}

// event sends one event of the response.
func (r *response) event(typ string, more object) bool {
	more["type"], more["sequence_number"] = typ, r.sequence
	r.sequence++
	c := r.c
	b := append([]byte("event: "+typ+c.eol+"data: "), encode(more)...)
	if !c.write(append(b, c.eol+c.eol...)) {
		return false
	}
	c.s.sent(c.rec)
	return true
}

func (r *response) stream() {
	c := r.c
	switch c.Model {
	case "crlf":
		c.eol = "\r\n"
	case "drip":
		c.drip = true
	}
	r.event("response.created", object{"response": r.whole("in_progress")})
	if c.Model == "response-done" { // what some servers end with
		defer c.Event([]byte("[DONE]"))
	}
	r.event("response.in_progress", object{"response": r.whole("in_progress")})
	delta := func(text string) bool {
		return r.event("response.output_text.delta", object{"item_id": "msg_" + r.id, "output_index": 0, "content_index": 0, "delta": text, "logprobs": []object{}, "obfuscation": "zz"})
	}
	for c.Model == "flood" && delta(filler(floodSize)) {
	}
	if c.Model == "never-ending" {
		c.neverEnding(func() []byte {
			return encode(object{"type": "response.output_text.delta", "sequence_number": 9, "delta": "more ", "item_id": "msg_1", "output_index": 0, "content_index": 0})
		})
	}
	if c.Gone() {
		return
	}
	items := r.items("completed")
	for i, item := range items[:len(items)-1] {
		r.event("response.output_item.done", object{"output_index": i, "item": item})
	}
	last := items[len(items)-1]
	r.event("response.output_item.added", object{"output_index": len(items) - 1, "item": object{"id": last["id"], "type": last["type"], "status": "in_progress",
		"role": last["role"], "content": []object{}, "call_id": last["call_id"], "name": last["name"], "arguments": ""}})
	if r.call != "" {
		r.event("response.function_call_arguments.delta", object{"item_id": "fc_1", "output_index": 0, "delta": last["arguments"]})
	} else {
		part := func(text string) object {
			return object{"item_id": last["id"], "output_index": 0, "content_index": 0,
				"part": object{"type": "output_text", "text": text, "annotations": []object{}, "logprobs": []object{}}}
		}
		r.event("response.content_part.added", part(""))
		for n, w := range r.words {
			if c.Model == "comments" {
				c.Comment("keepalive")
			}
			if !delta(w) {
				return
			}
			if c.Model == "error-mid" && n == 1 {
				r.event("error", object{"code": "server_error", "message": "the upstream broke in the middle", "param": nil})
				return
			}
			if c.breaksAfter(n + 1) {
				return
			}
		}
		r.event("response.output_text.done", object{"item_id": last["id"], "output_index": 0, "content_index": 0, "text": strings.Join(r.words, ""), "logprobs": []object{}})
		r.event("response.content_part.done", part(strings.Join(r.words, "")))
	}
	r.event("response.output_item.done", object{"output_index": len(items) - 1, "item": last})
	r.event("response."+r.status, object{"response": r.whole(r.status)})
}
