package openai

import (
	"bytes"
	"cmp"
	"slices"
	"strconv"

	"github.com/go-json-experiment/json/jsontext"
)

// UpstreamForm is what the body for the upstream must say. A zero field leaves
// the client's bytes as they are.
type UpstreamForm struct {
	Model          string // the name the upstream knows the model by
	IncludeUsage   bool   // ask for usage in a stream, whatever the client asked
	EncodingFormat string // embeddings only: "float" or "base64"

	CacheKey string // chat only: takes the place of the client's prompt_cache_key

	// MaxOutput bounds the output tokens: a larger limit of the client is
	// lowered to it, a missing one is added as MaxOutputField (default
	// "max_completion_tokens" for chat, "max_tokens" for completions and where
	// MaxTokensOnly is set; of a response always "max_output_tokens").
	MaxOutput      int64
	MaxOutputField string

	// MaxTokensOnly is for upstreams that know "max_tokens" only: the client's
	// "max_completion_tokens", which means the same there, gets that name. Of
	// both the smaller becomes "max_tokens".
	MaxTokensOnly bool

	// System is what a first system message says, chat only; "" adds none.
	// OneSystem is for upstreams that take only one: it goes before the client's.
	System    string
	OneSystem bool
	// BeforeUser goes before the text of the last user's message, chat only.
	BeforeUser string
}

// AppendUpstream appends the body for the upstream to dst and returns it. What f
// does not name stays byte for byte. dst must not share memory with r.Body.
func (r *Request) AppendUpstream(dst []byte, f UpstreamForm) []byte {
	var room [10]Edit
	edits := room[:0]
	if f.Model != "" && (f.Model != r.Model || r.ModelSpan.Empty() && r.Endpoint.Media()) { // vendors differ in what they take where there is none
		edits = append(edits, r.modelEdit(f.Model))
	}
	if f.IncludeUsage && r.Stream && (r.Endpoint == Chat || r.Endpoint == Completions) { // others say it unasked
		edits = r.usageEdit(edits)
	}
	if f.EncodingFormat != "" && r.Endpoint == Embeddings && f.EncodingFormat != r.EncodingFormat {
		edits = append(edits, r.setEdit(r.encodingSpan, "encoding_format", quote(f.EncodingFormat)))
	}
	if f.CacheKey != "" && r.Endpoint == Chat {
		edits = append(edits, r.setEdit(r.CacheKeySpan, "prompt_cache_key", quote(f.CacheKey)))
	}
	if r.Endpoint == Chat {
		edits = r.injectEdits(edits, &f)
	}
	switch {
	case r.Endpoint == Chat && f.MaxTokensOnly && !r.MaxCompletionTokensSpan.Empty():
		edits = r.maxTokensEdits(edits, f.MaxOutput)
	case f.MaxOutput > 0 && (r.Endpoint == Chat || r.Endpoint == Completions || r.Endpoint == Responses):
		edits = r.outputEdits(edits, f)
	}
	// Stable: stream_options goes in behind "stream" before what follows is removed.
	slices.SortStableFunc(edits, func(a, b Edit) int { return cmp.Compare(a.At.Start, b.At.Start) })
	return Splice(dst, r.Body, edits)
}

func quote(s string) []byte {
	b, _ := jsontext.AppendQuote(make([]byte, 0, len(s)+2), s) // bad UTF-8 becomes U+FFFD
	return b
}

// setEdit replaces the value at, or adds the member where at is empty.
func (r *Request) setEdit(at Span, name string, value []byte) Edit {
	if !at.Empty() {
		return Edit{At: at, With: value}
	}
	with := append(quote(name), ':')
	with = append(append(with, value...), ',')
	return Edit{At: Span{r.afterBrace, r.afterBrace}, With: with} // the object has members: the input at least
}

// memberStart returns where the member of that name and value begins. Between a
// name and its value stand only a colon and space, and names are not escaped
// (Scan), so the last occurrence before the value is the name.
func (r *Request) memberStart(name string, value Span) int {
	at := bytes.LastIndex(r.Body[:value.Start], quote(name))
	if at < 0 {
		panic("BUG: the member " + name + " has no name")
	}
	return at
}

// renameEdit gives the member with that value another name.
func (r *Request) renameEdit(value Span, from, to string) Edit {
	at := r.memberStart(from, value)
	return Edit{At: Span{at, at + len(quote(from))}, With: quote(to)}
}

// removeEdit takes the member with that value out, which is not the only one,
// and a comma beside it.
func (r *Request) removeEdit(value Span, name string) Edit {
	at := Span{r.memberStart(name, value), value.End}
	if rest := bytes.TrimLeft(r.Body[at.End:], " \t\r\n"); rest[0] == ',' {
		at.End = len(r.Body) - len(rest) + 1
	} else {
		at.Start = bytes.LastIndexByte(r.Body[:at.Start], ',') // only space stands between
	}
	return Edit{At: at}
}

func (r *Request) modelEdit(name string) Edit {
	return r.setEdit(r.ModelSpan, "model", quote(name))
}

// usageEdit sets stream_options.include_usage and keeps the other options.
func (r *Request) usageEdit(edits []Edit) []Edit {
	const option, member = `"include_usage":true`, `{"include_usage":true}`
	inner := Span{r.StreamOptions.Start + 1, r.StreamOptions.Start + 1}
	switch {
	case r.IncludeUsage:
		return edits
	case !r.nullStreamOptions.Empty():
		return append(edits, Edit{At: r.nullStreamOptions, With: []byte(member)})
	case r.StreamOptions.Empty():
		at := Span{r.StreamSpan.End, r.StreamSpan.End}
		return append(edits, Edit{At: at, With: []byte(`,"stream_options":` + member)})
	case !r.includeUsageSpan.Empty():
		return append(edits, Edit{At: r.includeUsageSpan, With: []byte("true")})
	case r.emptyOptions:
		return append(edits, Edit{At: inner, With: []byte(option)})
	}
	return append(edits, Edit{At: inner, With: []byte(option + ",")})
}

// outputEdits lowers the client's limits to f.MaxOutput, or adds one.
func (r *Request) outputEdits(edits []Edit, f UpstreamForm) []Edit {
	value := strconv.AppendInt(nil, f.MaxOutput, 10)
	if r.MaxOutput == 0 {
		field := f.MaxOutputField
		if field == "" || r.Endpoint == Responses {
			field = r.maxTokensName()
			if r.Endpoint == Chat && !f.MaxTokensOnly {
				field = "max_completion_tokens"
			}
		}
		at := r.MaxTokensSpan // of a null, or empty
		if field == "max_completion_tokens" {
			at = r.MaxCompletionTokensSpan
		}
		return append(edits, r.setEdit(at, field, value))
	}
	if r.maxTokens > f.MaxOutput {
		edits = append(edits, Edit{At: r.MaxTokensSpan, With: value})
	}
	if r.maxCompletion > f.MaxOutput {
		edits = append(edits, Edit{At: r.MaxCompletionTokensSpan, With: value})
	}
	return edits
}

// maxTokensEdits turns max_completion_tokens, which is there, into max_tokens,
// at most limit; 0 is none.
func (r *Request) maxTokensEdits(edits []Edit, limit int64) []Edit {
	const from, to = "max_completion_tokens", "max_tokens"
	now, at := r.maxCompletion, r.MaxCompletionTokensSpan
	if r.MaxTokensSpan.Empty() {
		edits = append(edits, r.renameEdit(at, from, to))
	} else {
		edits = append(edits, r.removeEdit(at, from))
		now, at = r.maxTokens, r.MaxTokensSpan
	}
	want := r.MaxOutput // the smaller of the two that are given
	if limit > 0 && (want == 0 || want > limit) {
		want = limit
	}
	if want > 0 && want != now {
		edits = append(edits, Edit{At: at, With: strconv.AppendInt(nil, want, 10)})
	}
	return edits
}
