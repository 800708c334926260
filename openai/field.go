package openai

import (
	"strconv"

	"bulkhead/fault"

	"github.com/go-json-experiment/json/jsontext"
)

// text reads a string of at most limit bytes. null is true, and nothing else set,
// for null where it stands for absent.
func (r *Request) text(param string, limit int) (text string, at Span, null bool, err error) {
	switch r.s.peek() {
	case '"':
	case 'n':
		_, at, err = r.s.scalar()
		return "", at, true, err
	default:
		return "", at, false, r.wrongKind(param, "a string")
	}
	raw, at, err := r.s.scalar()
	if err != nil {
		return "", at, false, err
	}
	b := unquote(raw)
	if len(b) > limit {
		return "", at, false, fault.Field(param, "%s is longer than %d bytes", param, limit)
	}
	return string(b), at, false, nil
}

// wrongKind is the error for a value of another kind than wanted, unless what
// comes is not JSON at all: then the reader says it better.
func (r *Request) wrongKind(param, want string) error {
	if _, err := r.s.skip(); err != nil {
		return err
	}
	return fault.Field(param, "%s must be %s", param, want)
}

func (r *Request) model() error {
	if r.s.peek() == 'n' && r.Endpoint.DefaultModel() == "" {
		return r.wrongKind("model", "a string")
	}
	text, at, null, err := r.text("model", MaxModelName)
	switch {
	case err != nil:
		return err
	case !null && text == "":
		return fault.Field("model", "model must not be empty")
	case hasControl(text):
		return fault.Field("model", "model must not hold control characters")
	}
	r.Model, r.ModelSpan = text, at
	return nil
}

func (r *Request) user(safetyID bool) error {
	param := "user"
	if safetyID {
		param = "safety_identifier"
	}
	text, _, _, err := r.text(param, MaxUserName)
	if err == nil && text != "" && (safetyID || !r.safetyID) {
		r.User, r.safetyID = text, safetyID
	}
	return err
}

func (r *Request) serviceTier() (err error) {
	r.ServiceTier, _, _, err = r.text("service_tier", 64)
	return err
}

func (r *Request) encodingFormat() error {
	text, at, null, err := r.text("encoding_format", 64)
	if err != nil {
		return err
	}
	if !null && text != "float" && text != "base64" {
		return fault.Field("encoding_format", `encoding_format must be "float" or "base64"`)
	}
	r.EncodingFormat, r.encodingSpan = text, at
	return nil
}

// boolean reads true, false, or null for false.
func (r *Request) boolean(param string) (bool, Span, error) {
	kind := r.s.peek()
	if kind != 't' && kind != 'f' && kind != 'n' {
		return false, Span{}, r.wrongKind(param, "true or false")
	}
	_, at, err := r.s.scalar()
	return kind == 't', at, err
}

// integer reads a whole number from 1 to limit, written as such: 1e3 and 5.0 are
// refused, because not every server reads them alike. null is 0, for absent.
func (r *Request) integer(param string, limit int64) (int64, Span, error) {
	switch r.s.peek() {
	case '0':
	case 'n':
		_, at, err := r.s.scalar()
		return 0, at, err
	default:
		return 0, Span{}, r.wrongKind(param, "an integer")
	}
	raw, at, err := r.s.scalar()
	if err != nil {
		return 0, Span{}, err
	}
	n, err := strconv.ParseInt(string(raw), 10, 64)
	if err != nil || n < 1 || n > limit {
		return 0, Span{}, fault.Field(param, "%s must be an integer from 1 to %d", param, limit)
	}
	return n, at, nil
}

// rawText counts a value the model reads as it stands.
func (r *Request) rawText() error {
	null := r.s.peek() == 'n'
	at, err := r.s.skip()
	if !null {
		r.countRaw(at)
	}
	return err
}

func (r *Request) countRaw(at Span) {
	r.TextBytes += int64(at.End - at.Start)
	r.Texts = append(r.Texts, at)
}

var streamOptionNames = []string{"include_usage"}

func (r *Request) streamOptions() error {
	switch r.s.peek() {
	case '{':
	case 'n':
		_, at, err := r.s.scalar()
		r.nullStreamOptions = at
		return err
	default:
		return r.wrongKind("stream_options", "an object")
	}
	if err := r.s.open(); err != nil {
		return err
	}
	start := r.s.offset() - 1
	r.emptyOptions = r.s.peek() == '}'
	for {
		name, ok, err := r.s.name()
		if err != nil {
			return err
		}
		if !ok {
			r.StreamOptions = Span{start, r.s.offset()}
			return nil
		}
		if err := checkName(name, streamOptionNames); err != nil {
			return within(err, "stream_options")
		}
		if string(name) == "include_usage" {
			r.IncludeUsage, r.includeUsageSpan, err = r.boolean("stream_options.include_usage")
		} else {
			_, err = r.s.skip()
		}
		if err != nil {
			return err
		}
	}
}

// inputs reads the input of embeddings and moderations, or the prompt of
// completions: a string, strings, tokens, or lists of tokens; for moderations
// also parts as in a message.
func (r *Request) inputs(param string) error {
	switch r.s.peek() {
	case '"':
		r.InputItems = 1
		return r.countText()
	case 'n':
		_, _, err := r.s.scalar()
		return err
	case '[':
	default:
		return r.wrongKind(param, "a string or an array")
	}
	if err := r.s.open(); err != nil {
		return err
	}
	first := r.s.peek()
	for i := 0; ; i++ {
		more, err := r.s.more()
		if err != nil {
			return err
		}
		if !more {
			return r.endInputs(param, first, i)
		}
		if first != '0' && i >= MaxInputs {
			return fault.Field(param, "%s has more than %d items", param, MaxInputs)
		}
		if err := r.inputItem(param, first, i); err != nil {
			return err
		}
	}
}

func (r *Request) endInputs(param string, first jsontext.Kind, count int) error {
	switch {
	case count == 0:
		return fault.Field(param, "%s must not be an empty array", param)
	case first == '0' || first == '{': // one list of tokens, one message made of parts
		r.InputItems = 1
	default:
		r.InputItems = count
	}
	return nil
}

// inputItem reads element i of an array whose elements are all of one kind.
func (r *Request) inputItem(param string, first jsontext.Kind, i int) error {
	kind := r.s.peek()
	item := func() string { return param + "[" + strconv.Itoa(i) + "]" }
	if kind != first {
		return r.wrongKind(item(), "of the same type as the items before it")
	}
	switch {
	case kind == '"':
		return r.countText()
	case kind == '0' && r.Endpoint != Moderations:
		return r.token(item)
	case kind == '[' && r.Endpoint != Moderations:
		return r.tokenList(item)
	case kind == '{' && r.Endpoint == Moderations:
		return r.part(0, i, item)
	}
	return r.wrongKind(item(), "a string or, where the endpoint takes them, tokens")
}

func (r *Request) tokenList(item func() string) error {
	if err := r.s.open(); err != nil {
		return err
	}
	for {
		more, err := r.s.more()
		if err != nil || !more {
			return err
		}
		if r.s.peek() != '0' {
			return r.wrongKind(item(), "an array of integers")
		}
		if err := r.token(item); err != nil {
			return err
		}
	}
}

// token reads one token number of an input given as tokens.
func (r *Request) token(item func() string) error {
	raw, _, err := r.s.scalar()
	if err != nil {
		return err
	}
	if _, err := strconv.ParseUint(string(raw), 10, 31); err != nil {
		return fault.Field(item(), "%s must be a token number", item())
	}
	r.InputTokens++
	return nil
}

// countText reads a string that the caller has peeked and counts it.
func (r *Request) countText() error {
	raw, at, err := r.s.scalar()
	if err != nil {
		return err
	}
	r.TextBytes += textLen(raw)
	r.Texts = append(r.Texts, at)
	return nil
}
