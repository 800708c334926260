package provider

import (
	"slices"
	"strconv"

	"bulkhead/fault"
	"bulkhead/openai"
)

// Cost says how something in a request can cost money, and so what bounds it.
type Cost uint8

// The ways to cost money.
const (
	Free      Cost = iota // it costs nothing
	Input                 // the model reads it: bounded by its bytes
	Media                 // the model reads it, not as text: bounded by piece, or by what the model takes
	Output                // it makes the answer longer, within its limit
	Model                 // it makes the answer longer, with no limit but the model's own
	Times                 // it multiplies the answer
	Tier                  // it chooses among prices
	Cache                 // it writes to a cache: bounded by the input at the price of that
	Fee                   // it has a price of its own, bounded by the fee of a call
	Unbounded             // nothing bounds it, or its price is not known
)

// String returns the name of the bound, for documents.
func (c Cost) String() string {
	return [...]string{"free", "input", "media", "output", "model", "times", "tier", "cache", "fee", "unbounded"}[c]
}

// Billable is something a request can have. What is not listed may cost anything.
type Billable struct {
	Where openai.Where
	Name  string
	Cost  Cost
	On    []openai.Endpoint // nil is all
	Kinds []string          // kinds of vendors for which Cost holds; for others it is Unbounded. nil is all
	State bool              // names or makes something that is kept at the vendor
	Runs  bool              // the vendor runs a tool for it
}

// billables is the one list of what can cost money on the endpoints the gateway
// serves. Field names and meanings are from OpenAI's API description and the
// references of the vendors that have fields of their own. What openai.Request
// counts by itself (text, image_url, input_audio and file parts; function and
// custom tools; role, content, name and calls of a message) needs no row.
//
// An endpoint that is added needs rows for all of its fields: TestBillables holds
// the list against them.
var billables = func() []Billable {
	var (
		chat     = []openai.Endpoint{openai.Chat}
		complete = []openai.Endpoint{openai.Completions}
		both     = []openai.Endpoint{openai.Chat, openai.Completions}
		embed    = []openai.Endpoint{openai.Embeddings}
		input    = []openai.Endpoint{openai.Embeddings, openai.Moderations}
		words    = []openai.Endpoint{openai.Chat, openai.Completions, openai.Embeddings, openai.Moderations}
		images   = []openai.Endpoint{openai.Images, openai.ImageEdits, openai.ImageVariations}
		speech   = []openai.Endpoint{openai.Speech}
		hear     = []openai.Endpoint{openai.Transcriptions, openai.Translations}
		respond  = []openai.Endpoint{openai.Responses}
		list     []Billable
	)
	fields := func(on []openai.Endpoint, c Cost, names ...string) {
		for _, name := range names {
			list = append(list, Billable{Where: openai.Field, Name: name, Cost: c, On: on})
		}
	}
	fields(nil, Free, "model", "user", "safety_identifier", "metadata")
	fields(nil, Tier, "service_tier")
	fields(both, Free, "stream", "stream_options", "temperature", "top_p", "frequency_penalty", "presence_penalty", "logit_bias",
		"logprobs", "seed", "stop",
		"top_k", "min_p", "repetition_penalty", "random_seed") // of open models, Mistral
	fields(both, Output, "max_tokens")
	fields(both, Times, "n")
	fields(chat, Input, "messages", "tools", "functions", "response_format")
	fields(chat, Free, "tool_choice", "function_call", "parallel_tool_calls", "top_logprobs", "verbosity",
		"reasoning_format", "include_reasoning") // Groq
	fields(chat, Output, "max_completion_tokens", "reasoning_effort", "modalities", "audio",
		"thinking") // Anthropic, DeepSeek
	// Tokens of a prediction that are not in the answer are billed as output, and
	// max_completion_tokens is not allowed beside it (OpenAI, "Predicted outputs").
	fields(chat, Model, "prediction")
	fields(chat, Cache, "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention")
	fields(complete, Input, "prompt", "suffix")
	fields(complete, Times, "best_of")
	fields(complete, Free, "echo")
	fields(input, Input, "input")
	fields(embed, Free, "dimensions", "encoding_format", "output_dimension", "output_dtype")
	fields(images, Input, "prompt")
	fields(images, Media, "image", "images", "mask")
	fields(images, Times, "n")
	fields(images, Output, "size", "quality", "partial_images", "input_fidelity")
	fields(images, Free, "stream", "response_format", "output_format", "output_compression", "moderation", "style", "background")
	fields(speech, Input, "input", "instructions")
	fields(speech, Output, "speed")
	fields(speech, Free, "voice", "response_format", "stream_format")
	fields(hear, Media, "file")
	fields(hear, Input, "prompt", "keywords", "known_speaker_names", "known_speaker_references")
	fields(hear, Free, "language", "languages", "response_format", "temperature", "include", "timestamp_granularities", "stream", "chunking_strategy")

	fields(respond, Input, "input", "instructions", "tools", "text")
	fields(respond, Output, "max_output_tokens", "reasoning")
	fields(respond, Cache, "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention")
	fields(respond, Free, "stream", "stream_options", "temperature", "top_p", "top_logprobs", "tool_choice", "parallel_tool_calls", "max_tool_calls",
		"include", "truncation")

	return append(list,
		// The input of the earlier response and its output come before the new one:
		// see openai.Request.AfterPrevious.
		Billable{Where: openai.Field, Name: "previous_response_id", Cost: Input, On: respond, State: true},
		Billable{Where: openai.Field, Name: "store", Cost: Free, On: respond, State: true},
		Billable{Where: openai.Field, Name: "background", Cost: Free, On: respond, State: true},  // true is refused: see package web
		Billable{Where: openai.Field, Name: "prompt", Cost: Unbounded, On: respond, State: true}, // a template that is kept at the vendor
		Billable{Where: openai.Field, Name: "context_management", Cost: Unbounded, On: respond},  // more passes of the model
		Billable{Where: openai.Field, Name: "moderation", Cost: Unbounded, On: respond, Runs: true},
		Billable{Where: openai.ItemType, Name: "reasoning", Cost: Media, State: true}, // by its id
		Billable{Where: openai.ItemType, Name: "item_reference", Cost: Unbounded, State: true},
		Billable{Where: openai.Field, Name: "store", Cost: Free, On: chat, State: true},
		Billable{Where: openai.Field, Name: "web_search_options", Cost: Fee, On: chat, Kinds: []string{"perplexity"}, Runs: true},
		Billable{Where: openai.Field, Name: "moderation", Cost: Unbounded, On: chat, Runs: true},
		Billable{Where: openai.Field, Name: "search_parameters", Cost: Unbounded, On: chat, Runs: true}, // xAI
		Billable{Where: openai.Field, Name: "search_settings", Cost: Unbounded, On: chat, Runs: true},   // Groq
		Billable{Where: openai.Field, Name: "compound_custom", Cost: Unbounded, On: chat, Runs: true},   // Groq
		Billable{Where: openai.Field, Name: "plugins", Cost: Unbounded, On: chat, Runs: true},           // OpenRouter
		Billable{Where: openai.Field, Name: "previous_response_id", Cost: Unbounded, On: words, State: true},
		Billable{Where: openai.Field, Name: "conversation", Cost: Unbounded, State: true},
		Billable{Where: openai.Field, Name: "background", Cost: Unbounded, On: words, State: true},
		Billable{Where: openai.Field, Name: "cached_content", Cost: Unbounded, State: true}, // Gemini

		Billable{Where: openai.MessageField, Name: "reasoning_content", Cost: Input}, // DeepSeek and others
		Billable{Where: openai.MessageField, Name: "reasoning", Cost: Input},
		Billable{Where: openai.MessageField, Name: "reasoning_details", Cost: Input},
		Billable{Where: openai.MessageField, Name: "annotations", Cost: Input},
		Billable{Where: openai.MessageField, Name: "prefix", Cost: Free}, // Mistral, DeepSeek
		Billable{Where: openai.MessageField, Name: "cache_control", Cost: Cache},
		Billable{Where: openai.MessageField, Name: "audio", Cost: Media, State: true}, // an answer kept at the vendor

		Billable{Where: openai.PartField, Name: "file_id", Cost: Media, State: true},
		Billable{Where: openai.PartField, Name: "id", Cost: Free, State: true}, // a voice of one's own
		Billable{Where: openai.PartField, Name: "prompt_cache_breakpoint", Cost: Cache},
		Billable{Where: openai.PartType, Name: "video_url", Cost: Unbounded},
		Billable{Where: openai.PartType, Name: "document_url", Cost: Unbounded}, // Mistral

		Billable{Where: openai.ToolType, Name: "web_search", Cost: Unbounded, Runs: true},
		Billable{Where: openai.ToolType, Name: "web_search_preview", Cost: Unbounded, Runs: true},
		Billable{Where: openai.ToolType, Name: "x_search", Cost: Unbounded, Runs: true},
		Billable{Where: openai.ToolType, Name: "browser_search", Cost: Unbounded, Runs: true},
		Billable{Where: openai.ToolType, Name: "code_interpreter", Cost: Unbounded, Runs: true},
		Billable{Where: openai.ToolType, Name: "file_search", Cost: Unbounded, State: true, Runs: true},
		Billable{Where: openai.ToolType, Name: "image_generation", Cost: Unbounded, Runs: true},
		Billable{Where: openai.ToolType, Name: "mcp", Cost: Unbounded, Runs: true},
	)
}()

// Billables returns the list, for documents.
func Billables() []Billable { return slices.Clone(billables) }

type billableKey struct {
	where openai.Where
	name  string
}

// billableAt finds the rows of a name; few names have one for each endpoint.
var billableAt = func() map[billableKey][]*Billable {
	m := make(map[billableKey][]*Billable, len(billables))
	for i := range billables {
		k := billableKey{billables[i].Where, billables[i].Name}
		m[k] = append(m[k], &billables[i])
	}
	return m
}()

// billable returns the row for what was seen in r, nil if there is none.
func billable(r *openai.Request, s *openai.Seen) *Billable {
	for _, b := range billableAt[billableKey{s.Where, string(s.Name.Of(r.Body))}] {
		if b.On == nil || slices.Contains(b.On, r.Endpoint) {
			return b
		}
	}
	return nil
}

// costAt is what b costs at the vendor.
func (b *Billable) costAt(v *Vendor) Cost {
	if b == nil || b.Kinds != nil && !slices.Contains(b.Kinds, v.Kind) {
		return Unbounded
	}
	return b.Cost
}

// CodeNotPriced and CodeNotLent are the codes of what a request may not have.
const (
	CodeNotPriced = "field_not_priced"
	CodeNotLent   = "field_not_allowed"
)

// Bounded reports what in r has no bound in money at v: the first of it, as a
// *fault.Error of kind Invalid with the code field_not_priced and the field in
// Param. Strict budgets, and credentials that the operator lent, need it nil.
func (v *Vendor) Bounded(r *openai.Request) error {
	for i := range r.Seen {
		s := &r.Seen[i]
		if s.Null || billable(r, s).costAt(v) != Unbounded {
			continue
		}
		param := place(r, s)
		return fault.Field(param, "What %s costs is not bounded, or not known, and what this call may cost must be. Leave it out.", param).WithCode(CodeNotPriced)
	}
	return nil
}

// Lendable reports what in r a credential that is lent to many companies must not
// be used for: what is kept at the vendor, where one company could name another's,
// and tools that the vendor runs. The error is a *fault.Error of kind Invalid
// with the code field_not_allowed and the field in Param; what is not priced, with
// that of Bounded.
func (v *Vendor) Lendable(r *openai.Request) error {
	for i := range r.Seen {
		s := &r.Seen[i]
		b := billable(r, s)
		if b == nil || s.Null || !b.State && !b.Runs || b.Name == "store" && !r.Store {
			continue
		}
		param := place(r, s)
		return fault.Field(param, "%s is not allowed with a credential lent by the operator.", param).WithCode(CodeNotLent)
	}
	return v.Bounded(r)
}

// place names where something was seen, for the client. A name that is not one
// of the usual form is not repeated.
func place(r *openai.Request, s *openai.Seen) string {
	name := string(s.Name.Of(r.Body))
	if !plainName(name) {
		name = "an unknown field"
	}
	message := "messages[" + strconv.Itoa(s.Message) + "]"
	item := "[" + strconv.Itoa(s.Item) + "]"
	part := message + ".content" + item
	switch r.Endpoint {
	case openai.Moderations:
		part = "input" + item
	case openai.ImageEdits:
		part = "images" + item
	case openai.Speech:
		part = "voice"
	case openai.Responses:
		part = "input[" + strconv.Itoa(s.Message) + "].content" + item
	}
	switch s.Where {
	case openai.MessageField:
		return message + "." + name
	case openai.PartType:
		return part + ".type"
	case openai.PartField:
		return part + "." + name
	case openai.ItemType:
		return "input[" + strconv.Itoa(s.Message) + "].type"
	case openai.ToolType:
		return "tools" + item + ".type"
	case openai.Modality:
		return "modalities" + item
	}
	return name
}

// plainName reports whether s matches [A-Za-z0-9_.-]{1,64}.
func plainName(s string) bool {
	if s == "" || len(s) > 64 {
		return false
	}
	for i := range len(s) {
		if c := s[i]; !alnum(c) && c != '_' && c != '.' && c != '-' {
			return false
		}
	}
	return true
}
