package openai

import (
	"bytes"
	"errors"
	"fmt"
	"sync"

	"github.com/go-json-experiment/json/jsontext"
)

// Answer is what one pass over a body of the upstream (not a stream) found.
type Answer struct {
	Usage    Usage
	HasUsage bool // the body says input or output tokens

	Model       string // the model that answered, as the upstream names it
	ServiceTier string // the tier that was used; it decides the price

	Finished  bool  // some choice has a finish_reason
	TextBytes int64 // bytes of generated text, for an estimate where usage is missing
}

// Chunk is what one pass over the data of a stream's event found. It is filled by
// ScanChunk and may be used for one chunk after the other.
type Chunk struct {
	Usage     Usage
	HasUsage  bool // usage is an object that says input or output tokens
	UsageSpan Span // the whole member "usage":… with one adjoining comma, also when it is null; empty if absent

	EmptyChoices bool // choices is [], as in the chunk that only brings usage
	Finished     bool // some choice has a finish_reason
	IsError      bool // there is an error, as an object or a text

	// TextBytes is the size in UTF-8 of the text generated: content, refusal,
	// reasoning, arguments and names of tool calls, text of completions.
	TextBytes int64

	Model       string
	ServiceTier string

	s *scanner
}

var (
	// ErrErrorBody is returned for an answer of status 200 that is an error all
	// the same, as some aggregators send it. ParseError reads it.
	ErrErrorBody = errors.New("the upstream's answer is an error")

	errNotObject = errors.New("the upstream's answer is not a JSON object")
	errTwice     = errors.New("the upstream's answer has a field twice")
)

// ScanAnswer reads body, a 200 of e. The error, for anything but one JSON object,
// says where reading stopped and holds no text of the body; it is for the log. A
// body with an error in it is ErrErrorBody.
func ScanAnswer(e Endpoint, body []byte) (Answer, error) {
	c := chunks.Get().(*Chunk)
	defer func() {
		c.s.relayed(nil) // the body is a company's
		chunks.Put(c)
	}()
	if err := ScanChunk(body, c); err != nil {
		return Answer{}, fmt.Errorf("cannot read %s answer: %w", e, err)
	}
	if c.IsError {
		return Answer{}, ErrErrorBody
	}
	return Answer{
		Usage: c.Usage, HasUsage: c.HasUsage, Model: c.Model, ServiceTier: c.ServiceTier,
		Finished: c.Finished, TextBytes: c.TextBytes,
	}, nil
}

// chunks keeps scanners between answers: they hold most of what reading one
// would allocate.
var chunks = sync.Pool{New: func() any { return &Chunk{s: new(scanner)} }}

// IsDone reports whether data is the [DONE] that ends a stream of chunks.
func IsDone(data []byte) bool { return string(data) == "[DONE]" }

// ScanChunk reads data, the JSON of one event, into c. What an upstream sends is
// relayed and not judged: bad UTF-8 and names that come twice pass, except for the
// members the gateway itself acts on. It allocates only for a new model name or
// an escaped name. After an error c holds nothing of use.
func ScanChunk(data []byte, c *Chunk) error {
	if c.s == nil {
		c.s = new(scanner)
	}
	*c = Chunk{Model: c.Model, ServiceTier: c.ServiceTier, s: c.s}
	c.s.relayed(data)
	if err := c.scan(data); err != nil {
		return answerError(err)
	}
	return nil
}

// answerError drops what a syntax error quotes of the text.
func answerError(err error) error {
	if syntax, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		return fmt.Errorf("the upstream's answer is not valid JSON at byte %d", syntax.ByteOffset)
	}
	return err
}

func (c *Chunk) scan(data []byte) error {
	if c.s.peek() != '{' {
		if _, err := c.s.skip(); err != nil {
			return err
		}
		return errNotObject
	}
	if err := c.s.open(); err != nil {
		return err
	}
	oldModel, oldTier := c.Model, c.ServiceTier
	c.Model, c.ServiceTier = "", ""
	seenChoices := false
	for first := true; ; first = false {
		before := c.s.offset()
		name, ok, err := c.s.name()
		if err != nil {
			return err
		}
		if !ok {
			return c.s.end()
		}
		if bytes.IndexByte(name, '\\') >= 0 {
			name = unescape(name)
		}
		switch string(name) {
		case "model":
			c.Model, err = c.s.same(oldModel)
		case "service_tier":
			c.ServiceTier, err = c.s.same(oldTier)
		case "usage":
			if !c.UsageSpan.Empty() {
				return errTwice
			}
			err = c.usage(data, before, first)
		case "choices":
			if seenChoices {
				return errTwice
			}
			seenChoices = true
			err = c.choices()
		case "error":
			err = c.error()
		default:
			_, err = c.s.skip()
		}
		if err != nil {
			return err
		}
	}
}

// error reads the error; null, "" and {} are none.
func (c *Chunk) error() error {
	kind := c.s.peek()
	at, err := c.s.skip()
	c.IsError = c.IsError || (kind == '{' || kind == '"') && at.End-at.Start > len("{}")
	return err
}

// same reads a string and returns old when it is the same, which saves the
// allocation on all but the first chunk. Any other kind is "".
func (s *scanner) same(old string) (string, error) {
	if s.peek() != '"' {
		_, err := s.skip()
		return "", err
	}
	raw, _, err := s.scalar()
	if err != nil {
		return "", err
	}
	text := unquote(raw)
	if string(text) == old {
		return old, nil
	}
	return string(text), nil
}

// usage reads the usage and finds what to cut out to remove it. before is where
// the member before it ended, or the opening brace.
func (c *Chunk) usage(data []byte, before int, first bool) (err error) {
	c.HasUsage, err = c.s.usage(&c.Usage)
	if err != nil {
		return err
	}
	c.UsageSpan = Span{before, c.s.offset()} // with the comma in front, if there is one
	if !first {
		return nil
	}
	rest := bytes.TrimLeft(data[c.UsageSpan.End:], " \t\r\n")
	if len(rest) > 0 && rest[0] == ',' {
		c.UsageSpan.End = len(data) - len(rest) + 1
	}
	return nil
}

func (c *Chunk) choices() error {
	array := c.s.peek() == '['
	n := 0
	err := c.s.array(func() error {
		n++
		return c.s.object(c.choiceField)
	})
	c.EmptyChoices = array && n == 0
	return err
}

func (c *Chunk) choiceField(name []byte) error {
	switch string(name) {
	case "delta", "message":
		return c.s.object(c.deltaField)
	case "text":
		return c.text()
	case "finish_reason":
		c.Finished = c.s.peek() == '"' || c.Finished
	}
	_, err := c.s.skip()
	return err
}

func (c *Chunk) deltaField(name []byte) error {
	switch string(name) {
	case "content", "refusal", "reasoning_content", "reasoning":
		return c.text()
	case "function_call":
		return c.s.object(c.functionField)
	case "tool_calls":
		return c.s.array(c.toolCall)
	}
	_, err := c.s.skip()
	return err
}

func (c *Chunk) toolCall() error { return c.s.object(c.toolField) }

func (c *Chunk) toolField(name []byte) error {
	switch string(name) {
	case "function", "custom":
		return c.s.object(c.functionField)
	}
	_, err := c.s.skip()
	return err
}

func (c *Chunk) functionField(name []byte) error {
	switch string(name) {
	case "name", "arguments", "input":
		return c.text()
	}
	_, err := c.s.skip()
	return err
}

// text counts a string of generated text. Parts, which a few vendors send as
// content, count as they stand.
func (c *Chunk) text() error {
	switch c.s.peek() {
	case '"':
		raw, _, err := c.s.scalar()
		if err == nil {
			c.TextBytes += textLen(raw)
		}
		return err
	case '[', '{':
		at, err := c.s.skip()
		c.TextBytes += int64(at.End - at.Start)
		return err
	}
	_, err := c.s.skip()
	return err
}

// AppendWithoutUsage appends data, which c was scanned from, without its usage
// member to dst and returns it.
func AppendWithoutUsage(dst, data []byte, c *Chunk) []byte {
	dst = append(dst, data[:c.UsageSpan.Start]...)
	return append(dst, data[c.UsageSpan.End:]...)
}
