package openai

import (
	"bytes"
	"errors"
	"unicode"

	"bulkhead/fault"

	"github.com/go-json-experiment/json/jsontext"
)

// Limits on the fields of a request.
const (
	MaxMessages  = 2048    // messages of a chat
	MaxInputs    = 2048    // inputs of one call; OpenAI's own limit for embeddings
	MaxModelName = 256     // bytes of "model"
	MaxUserName  = 512     // bytes of "user" and "safety_identifier"
	MaxCacheKey  = 512     // bytes of "prompt_cache_key"
	MaxChoices   = 128     // "n" and "best_of"; OpenAI's own limit for n
	MaxOutputCap = 1 << 31 // tokens in max_tokens and max_completion_tokens
)

// DefaultModerationModel is what OpenAI uses where a moderation names no model.
// Source: OpenAI API reference, "Create moderation".
const DefaultModerationModel = "omni-moderation-latest"

// Request is what one strict pass over a body found. It keeps Body by reference
// and changes nothing in it, so the body must stay as it is for as long as the
// Request is used. A Request may be used again: Scan forgets what was there.
// It is not safe for concurrent Scans.
//
// Adding a field of the API means: a case in chatField, completionField,
// responseField or inputField, its name in readFields, and its row among what can cost money
// (Billables in package provider).
type Request struct {
	Endpoint Endpoint
	Body     []byte

	Model     string
	ModelSpan Span // the literal with its quotes; empty where a moderation named none

	Stream        bool
	StreamSpan    Span // the value of "stream"
	StreamOptions Span // the object with its braces; empty if absent or null
	IncludeUsage  bool // the client asked for usage in the stream

	// MaxOutput is the smallest limit on output tokens the client gave, 0 if
	// none, and MaxOutputField the field it stands in.
	MaxOutput               int64
	MaxOutputField          string
	MaxTokensSpan           Span // the value of "max_tokens", of a response "max_output_tokens", also null; empty if absent
	MaxCompletionTokensSpan Span // the value of "max_completion_tokens", likewise

	// N is how many answers are made, and billed, for each input: "n", or
	// "best_of" where it is larger. It is at least 1.
	N int64

	User        string // "safety_identifier", else "user", else ""
	ServiceTier string // the tier asked for; the answer's decides the price

	Messages     int
	MessagesSpan Span // the array with its brackets
	LastUser     Span // the content of the last message of role user; empty if there is none
	LastUserAt   int  // which of the messages that is
	FirstSystem  Span // the content of the first message if it is of role system or developer, else empty

	// TextBytes is the size in UTF-8 of what the model reads as text: contents
	// unescaped; tools, functions, response_format, prediction and what else a
	// message holds as they stand in the body. For a byte-level tokenizer it is
	// an upper bound of the tokens of this text (FINDINGS A.6), without the few
	// tokens each message adds.
	TextBytes int64

	// Texts are where that text stands, for an estimate that is closer than its
	// size: string literals with their quotes, and values as they stand.
	Texts []Span

	// Images, Audios and Files count the parts that are not text and so are not
	// in TextBytes. Parts of an unknown type count with all their bytes there.
	Images, Audios, Files int
	LowImages             int   // of Images those with detail "low"
	AudioBytes            int64 // of the input_audio values, base64 and all
	Tools                 int   // in "tools"; all "functions" together are one
	CacheControl          bool  // some part asks the vendor to cache it (Anthropic's cache_control)
	Store                 bool  // the vendor keeps the answer: "store" is true or, of a response, not false
	AudioOut, ImageOut    bool  // "modalities" has "audio", "image"

	CacheKey     string // "prompt_cache_key" of a chat
	CacheKeySpan Span   // its value, also when null

	// Seen are the names at the top of the body in order, and what else is in it
	// that may cost more than its bytes.
	Seen []Seen

	// Of responses.
	Previous     string // "previous_response_id", "" for none
	Conversation bool   // there is a "conversation"
	Later        bool   // "background" is true: the answer is to be asked for later

	// Of images and sound.
	PartialImages int64 // asked for on the way to the whole one
	Characters    int64 // of the text to be spoken
	FormatText    bool  // the answer is asked for as text that is not JSON
	Form          *Form // of a body that is a form; see ScanForm

	InputItems     int    // inputs or prompts: a string is one, a list of tokens is one
	InputTokens    int64  // integers in inputs given as tokens
	EncodingFormat string // "", "float" or "base64"
	Dimensions     int64  // 0 if absent

	s                 *scanner
	afterBrace        int  // just behind the opening brace
	nullStreamOptions Span // the literal null, which must be replaced and not added to
	includeUsageSpan  Span
	emptyOptions      bool // stream_options is an object without members
	encodingSpan      Span // the value, also when null
	safetyID          bool // User came from safety_identifier
	maxTokens         int64
	maxCompletion     int64
}

// readFields are the top-level names the gateway reads on some endpoint. A name
// that differs from one of these only in case is refused: a server that ignores
// case (Go's encoding/json does) would read a value the gateway has not checked.
var readFields = []string{
	"model", "messages", "stream", "stream_options", "max_tokens", "max_completion_tokens", "n", "best_of",
	"user", "safety_identifier", "service_tier", "tools", "functions", "response_format", "prediction", "modalities", "store",
	"prompt_cache_key", "prompt", "suffix", "input", "encoding_format", "dimensions",
	"partial_images", "images", "mask", "instructions", "voice", "stream_format",
	"max_output_tokens", "previous_response_id", "conversation", "background", "text",
}

// Scan reads body as a request to e. The error is a *fault.Error of kind Invalid
// that names the field in Param. It holds no text of the body. After an error the
// Request holds what was read until then and is good for nothing but another Scan.
func (r *Request) Scan(e Endpoint, body []byte) error {
	if e.Path() == "" {
		panic("BUG: scan for no endpoint")
	}
	if r.s == nil {
		r.s = new(scanner)
	}
	*r = Request{Endpoint: e, Body: body, N: 1, Store: e == Responses, s: r.s, Texts: r.Texts[:0], Seen: r.Seen[:0]}
	r.s.strict(body)
	err := r.scan()
	if err == nil {
		err = r.check()
	}
	if err != nil {
		return requestFault(err)
	}
	return nil
}

// Reset forgets the body and everything read from it, for a Request that goes
// back to a pool: the next owner may be another company.
func (r *Request) Reset() {
	if r.s != nil {
		r.s.strict(nil)
	}
	*r = Request{s: r.s, Texts: r.Texts, Seen: r.Seen} // the bytes of a form stay its caller's
	if cap(r.Texts) > maxKeptSpans {
		r.Texts = nil // a rare body with very many parts
	}
	if cap(r.Seen) > maxKeptSpans {
		r.Seen = nil
	}
}

// maxKeptSpans is how many spans a Request keeps the memory of between bodies.
const maxKeptSpans = 1024

func (r *Request) scan() error {
	switch r.s.peek() {
	case '{':
	case '[', '"', '0', 't', 'f', 'n':
		return fault.New(fault.Invalid, "the request body must be a JSON object")
	}
	if err := r.s.open(); err != nil {
		return err
	}
	r.afterBrace = r.s.offset()
	for {
		name, ok, err := r.s.name()
		if err != nil {
			return err
		}
		if !ok {
			return r.s.end()
		}
		if err := checkName(name, readFields); err != nil {
			return err
		}
		end := r.s.offset() - len(`"`)
		r.Seen = append(r.Seen, Seen{Where: Field, Name: Span{end - len(name), end}, Null: r.s.peek() == 'n'})
		if err := r.field(name); err != nil {
			return err
		}
	}
}

func (r *Request) field(name []byte) error {
	switch string(name) {
	case "model":
		return r.model()
	case "user", "safety_identifier":
		return r.user(string(name) == "safety_identifier")
	case "service_tier":
		return r.serviceTier()
	}
	switch r.Endpoint {
	case Chat:
		return r.chatField(name)
	case Completions:
		return r.completionField(name)
	case Images, ImageEdits:
		return r.imageField(name)
	case Speech:
		return r.speechField(name)
	case Responses:
		return r.responseField(name)
	}
	return r.inputField(name)
}

func (r *Request) chatField(name []byte) error {
	switch string(name) {
	case "messages":
		return r.messages()
	case "tools":
		return r.tools()
	case "functions":
		if r.s.peek() != 'n' {
			r.Tools++
		}
		return r.rawText()
	case "response_format", "prediction":
		return r.rawText()
	case "modalities":
		return r.modalities()
	case "prompt_cache_key":
		var err error
		r.CacheKey, r.CacheKeySpan, _, err = r.text("prompt_cache_key", MaxCacheKey)
		return err
	case "store":
		var err error
		r.Store, _, err = r.boolean("store")
		return err
	case "max_completion_tokens":
		n, at, err := r.integer("max_completion_tokens", MaxOutputCap)
		r.maxCompletion, r.MaxCompletionTokensSpan = n, at
		return err
	}
	return r.generationField(name)
}

func (r *Request) completionField(name []byte) error {
	switch string(name) {
	case "prompt":
		return r.inputs("prompt")
	case "suffix":
		return r.rawText()
	case "best_of":
		n, _, err := r.integer("best_of", MaxChoices)
		r.N = max(r.N, n)
		return err
	}
	return r.generationField(name)
}

// generationField reads what chat and completions share.
func (r *Request) generationField(name []byte) (err error) {
	switch string(name) {
	case "stream":
		r.Stream, r.StreamSpan, err = r.boolean("stream")
	case "stream_options":
		err = r.streamOptions()
	case "max_tokens":
		r.maxTokens, r.MaxTokensSpan, err = r.integer("max_tokens", MaxOutputCap)
	case "n":
		var n int64
		n, _, err = r.integer("n", MaxChoices)
		r.N = max(r.N, n)
	default:
		_, err = r.s.skip()
	}
	return err
}

// inputField reads the fields of embeddings and moderations.
func (r *Request) inputField(name []byte) (err error) {
	switch {
	case string(name) == "input":
		return r.inputs("input")
	case r.Endpoint == Embeddings && string(name) == "dimensions":
		r.Dimensions, _, err = r.integer("dimensions", MaxOutputCap)
	case r.Endpoint == Embeddings && string(name) == "encoding_format":
		return r.encodingFormat()
	default:
		_, err = r.s.skip()
	}
	return err
}

// check looks at what only the whole body can tell.
func (r *Request) check() error {
	if r.Model == "" {
		if r.Model = r.Endpoint.DefaultModel(); r.Model == "" {
			return fault.Field("model", "model is required")
		}
	}
	switch {
	case r.Endpoint == Chat && r.MessagesSpan.Empty():
		return fault.Field("messages", "messages is required")
	case (r.Endpoint == Embeddings || r.Endpoint == Moderations) && r.InputItems == 0:
		return fault.Field("input", "input is required")
	case r.Endpoint.Media():
		return r.checkMedia()
	case !r.StreamOptions.Empty() && !r.Stream:
		return fault.Field("stream_options", "stream_options is only allowed when stream is true")
	}
	if r.maxTokens > 0 {
		r.MaxOutput, r.MaxOutputField = r.maxTokens, r.maxTokensName()
	}
	if r.maxCompletion > 0 && (r.MaxOutput == 0 || r.maxCompletion < r.MaxOutput) {
		r.MaxOutput, r.MaxOutputField = r.maxCompletion, "max_completion_tokens"
	}
	return nil
}

// checkName refuses a name that another reader might take for one of known.
func checkName(name []byte, known []string) error {
	plain := true
	for _, c := range name {
		if c == '\\' {
			return fault.New(fault.Invalid, "the name of a field must be written without escapes")
		}
		plain = plain && c < 0x80 && (c < 'A' || c > 'Z')
	}
	if plain {
		return nil // lower-case ASCII folds to itself
	}
	for _, k := range known {
		if string(name) != k && bytes.EqualFold(name, []byte(k)) {
			return fault.Field(k, "a field is ambiguous: its name differs from %q only in case", k)
		}
	}
	return nil
}

func hasControl(s string) bool {
	for _, c := range s {
		if unicode.IsControl(c) {
			return true
		}
	}
	return false
}

// requestFault gives an error of the scanner the words a client may see.
func requestFault(err error) error {
	var syntax *jsontext.SyntacticError
	if errors.Is(err, errDepth) {
		return fault.New(fault.Invalid, "the request body nests objects and arrays deeper than %d", maxDepth)
	}
	if errors.Is(err, errNames) {
		return fault.New(fault.Invalid, "an object in the request body has more than %d fields", maxNames)
	}
	if errors.Is(err, errTrailing) {
		return fault.New(fault.Invalid, "the request body goes on after its JSON object")
	}
	if !errors.As(err, &syntax) {
		if _, ok := errors.AsType[*fault.Error](err); ok {
			return err
		}
		// bytes ran out: io.EOF or io.ErrUnexpectedEOF
		return fault.New(fault.Invalid, "the request body is empty or ends too early")
	}
	if errors.Is(err, jsontext.ErrDuplicateName) {
		e := fault.New(fault.Invalid, "an object in the request body has a field twice, at byte %d", syntax.ByteOffset)
		for _, k := range readFields {
			if string(syntax.JSONPointer) == "/"+k {
				e.Param = k
			}
		}
		return e
	}
	return fault.New(fault.Invalid, "the request body is not valid JSON in UTF-8, at byte %d", syntax.ByteOffset)
}
