package openai

import (
	"bytes"
	"errors"
	"io"
)

// Limits of an EventReader.
const (
	DefaultMaxEvent = 16 << 20 // bytes of one event where the caller names no limit
	startBuffer     = 4 << 10  // most events are a few hundred bytes
	keepBuffer      = 64 << 10 // a larger buffer is let go once its event is read
	maxEmptyReads   = 100      // reads in a row that bring nothing and no error
)

// ErrEventTooLarge is returned for an event beyond the reader's limit.
var ErrEventTooLarge = errors.New("the upstream's event is too large")

// Event is one event of a stream. Its slices are valid until the next call of
// Next and share the reader's memory.
type Event struct {
	Name []byte // of the last event: line, nil if there is none
	Data []byte // the data: lines joined by \n, nil if there is none
	Raw  []byte // all of it with its line ends and the blank line
}

// EventReader splits a text/event-stream into events as the WHATWG HTML standard
// (section 9.2.6) says: lines end with LF, CRLF or CR, a blank line ends an event,
// a byte order mark at the start is dropped. It differs in one thing: a block
// without data is returned too, so that the caller decides about comments.
//
// It reads only when no whole event is in its buffer, once, and takes what comes:
// an event is never held back for bytes behind its blank line.
type EventReader struct {
	r   io.Reader
	max int
	err error // what Read said, returned once the buffer has no more events

	buf        []byte
	start, end int // the bytes not yet returned
	scan       int // the bytes before it are known not to end the event
	line       int // start of the line being read

	afterCR bool // the byte before scan was a CR that ended a line: an LF is part of it
	begun   bool // a byte order mark was looked for
	joined  []byte
}

// NewEventReader returns a reader of events up to limit bytes each; 0 is
// DefaultMaxEvent.
func NewEventReader(r io.Reader, limit int) *EventReader {
	e := new(EventReader)
	e.Reset(r, limit)
	return e
}

// Reset makes e read r from its start as a new reader would. It keeps a small
// buffer for reuse; give it a nil r to let go of the old one.
func (e *EventReader) Reset(r io.Reader, limit int) {
	if limit <= 0 {
		limit = DefaultMaxEvent
	}
	*e = EventReader{r: r, max: limit, buf: e.buf, joined: e.joined}
	e.shrink()
}

// shrink lets go of memory that only one large event needed. The buffer must be
// empty.
func (e *EventReader) shrink() {
	if len(e.buf) > keepBuffer {
		e.buf = nil
	}
	if cap(e.joined) > keepBuffer {
		e.joined = nil
	}
}

// Next returns the next event. At the end of the stream it returns io.EOF when
// nothing is pending. It returns io.ErrUnexpectedEOF when the stream ends inside
// an event, together with an Event made of what did arrive: that is never to be
// trusted as whole, but some servers leave the last blank line out after [DONE].
// Errors of the reader come after the events before them. An error stays.
func (e *EventReader) Next() (Event, error) {
	for {
		if at := e.find(); at >= 0 {
			if at-e.start > e.max {
				return Event{}, e.fail(ErrEventTooLarge)
			}
			return e.take(at), nil
		}
		if e.begun && e.end-e.start > e.max {
			return Event{}, e.fail(ErrEventTooLarge)
		}
		if e.err != nil {
			return e.last()
		}
		e.fill()
	}
}

func (e *EventReader) fail(err error) error {
	e.err = err
	e.start, e.scan, e.line = e.end, e.end, e.end
	return err
}

// last is the answer once the reader has no more bytes and no event is whole.
func (e *EventReader) last() (Event, error) {
	rest := e.buf[e.start:e.end]
	e.start, e.scan, e.line = e.end, e.end, e.end
	if e.err != io.EOF || len(rest) == 0 {
		return Event{}, e.err
	}
	e.err = io.ErrUnexpectedEOF
	return e.parse(rest), e.err
}

var byteOrderMark = []byte("\xEF\xBB\xBF")

// find looks for the blank line that ends the event and returns the offset behind
// it, or -1. Blank lines before the event are dropped.
func (e *EventReader) find() int {
	if !e.begun && !e.begin() {
		return -1
	}
	for e.scan < e.end {
		if e.afterCR {
			e.afterCR = false
			if e.buf[e.scan] == '\n' {
				e.lineEnds(e.scan + 1)
				continue
			}
		}
		n := lineLen(e.buf[e.scan:e.end])
		if n < 0 {
			e.scan = e.end
			return -1
		}
		eol := e.scan + n
		e.afterCR = e.buf[eol] == '\r'
		if eol == e.line && e.start < e.line {
			return eol + 1
		}
		if eol == e.line {
			e.start++ // a blank line with nothing before it
		}
		e.scan, e.line = eol+1, eol+1
	}
	return -1
}

// begin drops the byte order mark. It reports false while there are too few bytes
// to know whether there is one.
func (e *EventReader) begin() bool {
	head := e.buf[:e.end]
	if len(head) < len(byteOrderMark) && bytes.HasPrefix(byteOrderMark, head) {
		return false
	}
	e.begun = true
	if bytes.HasPrefix(head, byteOrderMark) {
		e.start = len(byteOrderMark)
		e.scan, e.line = e.start, e.start
	}
	return true
}

// lineEnds moves on behind the LF of a CRLF whose CR has ended the line already.
func (e *EventReader) lineEnds(next int) {
	if e.start == e.scan {
		e.start = next
	}
	e.scan, e.line = next, next
}

// take returns the event that ends before at.
func (e *EventReader) take(at int) Event {
	if e.afterCR && at < e.end {
		e.afterCR = false
		if e.buf[at] == '\n' {
			at++
		}
	}
	raw := e.buf[e.start:at]
	e.start, e.scan, e.line = at, at, at
	return e.parse(raw)
}

// parse reads the lines of one event.
func (e *EventReader) parse(raw []byte) Event {
	ev := Event{Raw: raw}
	lines := 0
	for rest := raw; len(rest) > 0; {
		var line []byte
		line, rest = cutLine(rest)
		name, value, _ := bytes.Cut(line, []byte{':'})
		value = bytes.TrimPrefix(value, []byte{' '})
		switch string(name) {
		case "event":
			ev.Name = value
		case "data":
			if lines++; lines == 1 {
				ev.Data = value
				continue
			}
			if lines == 2 {
				e.joined = append(e.joined[:0], ev.Data...)
			}
			e.joined = append(append(e.joined, '\n'), value...)
		}
	}
	if lines > 1 {
		ev.Data = e.joined
	} else if lines == 1 && ev.Data == nil {
		ev.Data = []byte{}
	}
	if len(ev.Name) == 0 {
		ev.Name = nil
	}
	return ev
}

// cutLine splits b behind its first line end.
func cutLine(b []byte) (line, rest []byte) {
	n := lineLen(b)
	if n < 0 {
		return b, nil
	}
	line, rest = b[:n], b[n+1:]
	if b[n] == '\r' && len(rest) > 0 && rest[0] == '\n' {
		rest = rest[1:]
	}
	return line, rest
}

// lineLen returns the offset of the first CR or LF in b, or -1. It looks in pieces,
// so that a text with only one of the two is not searched to its end for the
// other at each line.
func lineLen(b []byte) int {
	const piece = 512
	for from := 0; from < len(b); from += piece {
		p := b[from:min(from+piece, len(b))]
		lf := bytes.IndexByte(p, '\n')
		if lf >= 0 {
			p = p[:lf]
		}
		if cr := bytes.IndexByte(p, '\r'); cr >= 0 {
			return from + cr
		}
		if lf >= 0 {
			return from + lf
		}
	}
	return -1
}

// fill makes room and reads once.
func (e *EventReader) fill() {
	e.makeRoom()
	for range maxEmptyReads {
		n, err := e.r.Read(e.buf[e.end:])
		if n < 0 || n > len(e.buf)-e.end {
			panic("BUG: a reader returned a count it was not given room for")
		}
		e.end += n
		e.err = err
		if n > 0 || err != nil {
			return
		}
	}
	e.err = io.ErrNoProgress
}

// makeRoom leaves room for at least one byte. It grows the buffer up to one byte
// more than an event may have, and takes a small one again when a large event is
// behind it.
func (e *EventReader) makeRoom() {
	pending := e.buf[e.start:e.end]
	size := len(e.buf)
	switch {
	case size == 0 || size > keepBuffer && len(pending) <= startBuffer/2:
		size = startBuffer
	case len(pending) == size:
		size = min(2*size, max(e.max+1, size+1))
	case e.end < size && e.start < e.end:
		return
	}
	if size != len(e.buf) {
		buf := make([]byte, size)
		copy(buf, pending)
		e.buf = buf
	} else {
		copy(e.buf, pending)
	}
	e.scan -= e.start
	e.line -= e.start
	e.end -= e.start
	e.start = 0
}

// AppendEvent appends an event with the given name, or none if it is empty, to dst
// and returns it. Each line of data becomes a data: line. It panics when name
// holds a line end, which would let it forge events.
func AppendEvent(dst []byte, name string, data []byte) []byte {
	if name != "" {
		if lineLen([]byte(name)) >= 0 {
			panic("BUG: an event's name with a line end")
		}
		dst = append(append(append(dst, "event: "...), name...), '\n')
	}
	for {
		n := lineLen(data)
		dst = append(dst, "data: "...)
		if n < 0 {
			return append(append(dst, data...), "\n\n"...)
		}
		var line []byte
		line, data = cutLine(data)
		dst = append(append(dst, line...), '\n')
	}
}
