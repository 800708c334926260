// Package openai owns OpenAI's wire form: it reads what the gateway must know
// from a request or an answer, changes a few bytes of it, and knows server-sent
// events, the error envelope, lists and ids. It keeps no state, does no I/O but
// through the reader of an EventReader, and decides nothing about money,
// companies or vendors.
//
// Bodies are never decoded and encoded again: numbers, the order of members and
// fields unknown to the gateway reach the other side byte for byte. A body is
// scanned once, strictly, and edits are spliced in at byte offsets:
//
//	var r openai.Request
//	if err := r.Scan(openai.Chat, body); err != nil {
//		return err // a *fault.Error, safe to show
//	}
//	out := r.AppendUpstream(nil, openai.UpstreamForm{Model: "gpt-4o", IncludeUsage: true})
package openai

import "fmt"

// Endpoint is an inference endpoint of the API. The zero value is none.
type Endpoint uint8

// The endpoints whose bodies Scan reads. ScanForm reads those that take a form
// (see Form) when they are sent one.
const (
	Chat Endpoint = iota + 1
	Completions
	Embeddings
	Moderations
	Images // generations
	ImageEdits
	ImageVariations
	Speech
	Transcriptions
	Translations
	Responses
)

// endpoints says what there is to know of each.
var endpoints = [...]struct {
	name, path string
	model      string // where none is named; "" requires one
	form, json bool   // the forms of body it takes
}{
	Chat:            {name: "chat", path: "/chat/completions", json: true},
	Completions:     {name: "completions", path: "/completions", json: true},
	Embeddings:      {name: "embeddings", path: "/embeddings", json: true},
	Moderations:     {name: "moderations", path: "/moderations", model: DefaultModerationModel, json: true},
	Images:          {name: "images", path: "/images/generations", model: "dall-e-2", json: true},
	ImageEdits:      {name: "image_edits", path: "/images/edits", model: "gpt-image-1.5", form: true, json: true},
	ImageVariations: {name: "image_variations", path: "/images/variations", model: "dall-e-2", form: true},
	Speech:          {name: "speech", path: "/audio/speech", json: true},
	Transcriptions:  {name: "transcriptions", path: "/audio/transcriptions", form: true},
	Translations:    {name: "translations", path: "/audio/translations", form: true},
	Responses:       {name: "responses", path: "/responses", json: true},
}

// Path returns the endpoint's path below /v1, or "" when e is none.
func (e Endpoint) Path() string {
	if int(e) < len(endpoints) {
		return endpoints[e].path
	}
	return ""
}

// String returns the name used as a metric label and as the ledger's kind.
func (e Endpoint) String() string {
	if e.Path() == "" {
		return "none"
	}
	return endpoints[e].name
}

// DefaultModel is the model of a request that names none, as OpenAI's API
// description has it; "" where one must be named.
func (e Endpoint) DefaultModel() string { return endpoints[e].model }

// Form reports whether the endpoint takes multipart/form-data, JSON whether it
// takes JSON. Image edits take both.
func (e Endpoint) Form() bool { return endpoints[e].form }

// JSON reports whether the endpoint takes JSON.
func (e Endpoint) JSON() bool { return endpoints[e].json }

// Media reports whether what e takes or makes is images or sound, which is
// relayed and never looked into.
func (e Endpoint) Media() bool { return e >= Images && e <= Translations }

// Span is the half-open range [Start, End) of the bytes of a body.
type Span struct{ Start, End int }

// Empty reports whether the span holds no bytes, which also means "absent".
func (s Span) Empty() bool { return s.End <= s.Start }

// Of returns the bytes of body that s covers. The result shares body's memory.
func (s Span) Of(body []byte) []byte { return body[s.Start:s.End] }

// Edit replaces the bytes at At by With. An At of no length inserts.
type Edit struct {
	At   Span
	With []byte
}

// Splice appends body with the edits made to dst and returns it. The edits must
// be in order and must not overlap; several may insert at the same place. It
// panics otherwise, because the bytes sent would not be what was checked.
// dst must not share memory with body.
func Splice(dst, body []byte, edits []Edit) []byte {
	done := 0
	for _, e := range edits {
		if e.At.Start < done || e.At.End < e.At.Start || e.At.End > len(body) {
			panic(fmt.Sprintf("BUG: edit [%d,%d) after offset %d of %d bytes", e.At.Start, e.At.End, done, len(body)))
		}
		dst = append(dst, body[done:e.At.Start]...)
		dst = append(dst, e.With...)
		done = e.At.End
	}
	return append(dst, body[done:]...)
}
