package openai

import (
	"bytes"
	"errors"
	"io"
	"strconv"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// Limits on the shape of any JSON the package walks. jsontext itself stops at a
// depth of 10,000; real requests stay below 20, and a low limit keeps what comes
// after us (vendors' parsers) out of trouble too.
const (
	maxDepth = 64  // objects and arrays inside one another
	maxNames = 512 // members of one object
)

var (
	errDepth    = errors.New("the JSON is nested too deeply")
	errNames    = errors.New("an object of the JSON has too many members")
	errTrailing = errors.New("bytes after the JSON value")
)

// lenientOptions are for what an upstream sent: it is relayed and not judged.
// Vendors do cut a surrogate pair in two between chunks.
var lenientOptions = []jsontext.Options{
	jsontext.AllowInvalidUTF8(true),
	jsontext.AllowDuplicateNames(true),
}

// scanner walks one JSON text and knows where in it it is. A bytes.Buffer makes
// jsontext read the text in place: nothing is copied, slices it returns share the
// text's memory, and a long string does not leave a long buffer behind.
type scanner struct {
	dec     jsontext.Decoder
	buf     bytes.Buffer
	lenient bool
}

// strict makes s read text as a client's, every limit held.
func (s *scanner) strict(text []byte) {
	s.lenient = false
	s.buf = *bytes.NewBuffer(text)
	s.dec.Reset(&s.buf)
}

// relayed makes s read text as an upstream's.
func (s *scanner) relayed(text []byte) {
	s.lenient = true
	s.buf = *bytes.NewBuffer(text)
	s.dec.Reset(&s.buf, lenientOptions...)
}

// offset is the end of the last token or value read.
func (s *scanner) offset() int { return int(s.dec.InputOffset()) }

// peek returns the kind of what comes next; 0 stands for an error, which the next
// read returns.
func (s *scanner) peek() jsontext.Kind { return s.dec.PeekKind() }

// open reads the start of an object or array whose kind the caller has peeked. The
// forms the package knows are a few levels deep; only skip meets deeper ones.
func (s *scanner) open() error {
	_, err := s.dec.ReadToken()
	return err
}

// name reads the next name of the open object, without its quotes and not
// unescaped. It reads the object's end and returns ok false when there is none.
func (s *scanner) name() (name []byte, ok bool, err error) {
	if s.peek() == '}' {
		_, err = s.dec.ReadToken()
		return nil, false, err
	}
	v, err := s.dec.ReadValue()
	if err != nil {
		return nil, false, err
	}
	if err := s.countNames(); err != nil {
		return nil, false, err
	}
	return v[1 : len(v)-1], true, nil
}

// more reports whether the open array has another element. It reads the array's
// end when there is none.
func (s *scanner) more() (bool, error) {
	if s.peek() == ']' {
		_, err := s.dec.ReadToken()
		return false, err
	}
	return true, nil
}

// scalar reads a value in one piece: a string, number, bool or null.
func (s *scanner) scalar() (raw []byte, at Span, err error) {
	v, err := s.dec.ReadValue()
	if err != nil {
		return nil, Span{}, err
	}
	end := s.offset()
	return v, Span{end - len(v), end}, nil
}

// skip reads one value of any kind, checking its syntax and its limits.
func (s *scanner) skip() (Span, error) {
	if k := s.peek(); k != '{' && k != '[' || s.lenient { // jsontext holds the lenient to a depth of 10,000
		_, at, err := s.scalar()
		return at, err
	}
	depth := s.dec.StackDepth()
	if err := s.open(); err != nil {
		return Span{}, err
	}
	start := s.offset() - 1
	for s.dec.StackDepth() > depth {
		tok, err := s.dec.ReadToken()
		if err != nil {
			return Span{}, err
		}
		switch tok.Kind() {
		case '{', '[':
			if s.dec.StackDepth() > maxDepth {
				return Span{}, errDepth
			}
		case '"':
			if err := s.countNames(); err != nil {
				return Span{}, err
			}
		}
	}
	return Span{start, s.offset()}, nil
}

// object reads an object and gives the name of each member, unescaped, to field,
// which must read the value. Anything but an object is skipped.
func (s *scanner) object(field func(name []byte) error) error {
	if s.peek() != '{' {
		_, err := s.skip()
		return err
	}
	if err := s.open(); err != nil {
		return err
	}
	for {
		name, ok, err := s.name()
		if err != nil || !ok {
			return err
		}
		if bytes.IndexByte(name, '\\') >= 0 {
			name = unescape(name)
		}
		if err := field(name); err != nil {
			return err
		}
	}
}

// array reads an array and calls item for each element, which must read it.
// Anything but an array is skipped.
func (s *scanner) array(item func() error) error {
	if s.peek() != '[' {
		_, err := s.skip()
		return err
	}
	if err := s.open(); err != nil {
		return err
	}
	for {
		more, err := s.more()
		if err != nil || !more {
			return err
		}
		if err := item(); err != nil {
			return err
		}
	}
}

// countNames holds the open object, if it is one, to maxNames. The index counts
// names and values.
func (s *scanner) countNames() error {
	if kind, n := s.dec.StackIndex(s.dec.StackDepth()); kind == '{' && n > 2*maxNames {
		return errNames
	}
	return nil
}

// end requires that nothing but white space is left. A syntax error here must not
// pass for the end: that would let `}garbage` through.
func (s *scanner) end() error {
	switch _, err := s.dec.ReadToken(); err {
	case io.EOF:
		return nil
	case nil:
		return errTrailing
	default:
		return err
	}
}

// textLen returns the length in bytes of the string literal raw once unescaped.
// raw includes the quotes and is a valid literal.
func textLen(raw []byte) int64 {
	b := raw[1 : len(raw)-1]
	i := bytes.IndexByte(b, '\\')
	if i < 0 {
		return int64(len(b))
	}
	n := i
	for b = b[i:]; len(b) > 0; b = b[i:] {
		size := 0
		size, i = escape(b)
		n += size
		b = b[i:]
		if i = bytes.IndexByte(b, '\\'); i < 0 {
			i = len(b)
		}
		n += i
	}
	return int64(n)
}

// escape returns the size in UTF-8 of the escape b begins with, and its length in
// the literal.
func escape(b []byte) (size, length int) {
	r, ok := unicodeEscape(b)
	if !ok {
		return 1, 2
	}
	if r >= 0xD800 && r < 0xDC00 {
		if low, ok := unicodeEscape(b[6:]); ok && low >= 0xDC00 && low < 0xE000 {
			return 4, 12
		}
	}
	if size = utf8.RuneLen(r); size < 0 {
		size = 3 // a lone surrogate becomes U+FFFD
	}
	return size, 6
}

func unicodeEscape(b []byte) (rune, bool) {
	if len(b) < 6 || b[0] != '\\' || b[1] != 'u' {
		return 0, false
	}
	n, err := strconv.ParseUint(string(b[2:6]), 16, 16)
	return rune(n), err == nil
}

// unquote returns the text of the valid string literal raw. It shares raw's
// memory where nothing is escaped.
func unquote(raw []byte) []byte {
	if bytes.IndexByte(raw, '\\') < 0 {
		return raw[1 : len(raw)-1]
	}
	text, _ := jsontext.AppendUnquote(nil, raw) // raw was read as a valid literal
	return text
}

// unescape is unquote for a literal without its quotes.
func unescape(b []byte) []byte {
	raw := make([]byte, 0, len(b)+2)
	raw = append(append(append(raw, '"'), b...), '"')
	return unquote(raw)
}
