package provider

import (
	"bytes"
	"errors"
	"net/http"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// head is what the gateway looks at of an answer's head. Nothing else of it goes
// anywhere.
type head struct {
	status       int
	typ          string // Content-Type
	encoding     string // Content-Encoding
	retryAfter   string
	retryAfterMs string
	shouldRetry  string
}

// headOf is the head of net/http's answer.
func headOf(resp *http.Response) head {
	h := resp.Header
	return head{
		status: resp.StatusCode, typ: h.Get("Content-Type"), encoding: h.Get("Content-Encoding"),
		retryAfter: h.Get("Retry-After"), retryAfterMs: h.Get("Retry-After-Ms"), shouldRetry: h.Get("X-Should-Retry"),
	}
}

func (h *head) stream() bool {
	const eventStream = "text/event-stream"
	return len(h.typ) >= len(eventStream) && strings.EqualFold(h.typ[:len(eventStream)], eventStream)
}

// framing is how the end of a body on an HTTP/1.1 connection is found (RFC 9112,
// section 6.3).
type framing struct {
	size    int64 // Content-Length; -1: not said
	chunked bool
	last    bool // nothing may follow on the connection: HTTP/1.0, Connection: close, an odd answer
}

// Why an answer is none. What the upstream sent is not repeated.
var (
	errStatusLine   = errors.New("the answer does not begin like HTTP/1.1")
	errHeaderLine   = errors.New("the answer's header has a line that is none")
	errHeaderLength = errors.New("the answer's header is too long")
	errBodyLength   = errors.New("the answer's header is at odds about the length of the body")
	errBodyCoding   = errors.New("the answer's body is in a transfer coding that was not asked for")
)

// headEnd returns the length of the head that b begins with, and 0 while it is not
// whole. Nothing before from, which an earlier call had, ends it.
func headEnd(b []byte, from int) int {
	for i := max(from-3, 0); i < len(b); {
		n := bytes.IndexByte(b[i:], '\n')
		if n < 0 {
			return 0
		}
		i += n + 1
		switch rest := b[i:]; {
		case bytes.HasPrefix(rest, []byte("\n")):
			return i + 1
		case bytes.HasPrefix(rest, []byte("\r\n")):
			return i + 2
		}
	}
	return 0
}

// parseHead reads a whole head, as headEnd found it. Lines may end with LF alone;
// everything else is as RFC 9112 has it, and what is not is refused: names that
// are no tokens, space before a colon, lines that go on in the next, control
// characters, lengths that differ.
func parseHead(b []byte) (h head, f framing, err error) {
	f.size = -1
	line, rest := cutLine(b)
	minor := 0
	if h.status, minor, err = parseStatus(line); err != nil {
		return h, f, err
	}
	f.last = minor == 0
	codings := 0
	for {
		if line, rest = cutLine(rest); len(line) == 0 {
			break
		}
		name, value, ok := bytes.Cut(line, []byte{':'})
		if value = bytes.Trim(value, " \t"); !ok || !token(name) || !fieldValue(value) {
			return h, f, errHeaderLine
		}
		switch len(name) { // most are none of those that count
		case len("Content-Type"), len("Content-Length"), len("Transfer-Encoding"), len("Connection"), len("Retry-After"), len("Content-Encoding"):
		default:
			continue
		}
		switch {
		case is(name, "Content-Type"):
			first(&h.typ, value)
		case is(name, "Content-Length"):
			n, ok := length(value)
			if !ok || f.size >= 0 && f.size != n {
				return h, f, errBodyLength
			}
			f.size = n
		case is(name, "Transfer-Encoding"):
			if codings++; codings > 1 || !is(value, "chunked") || minor == 0 {
				return h, f, errBodyCoding
			}
			f.chunked = true
		case is(name, "Connection"):
			f.last = f.last || hasToken(value, "close")
		case is(name, "Content-Encoding"):
			if h.encoding != "" {
				h.encoding += ", "
			}
			h.encoding += string(value)
		case is(name, "Retry-After"):
			first(&h.retryAfter, value)
		case is(name, "Retry-After-Ms"):
			first(&h.retryAfterMs, value)
		case is(name, "X-Should-Retry"):
			first(&h.shouldRetry, value)
		}
	}
	f.settle(h.status)
	return h, f, nil
}

// settle decides what of the lengths counts.
func (f *framing) settle(status int) {
	switch {
	case status < 200 || status == http.StatusNoContent || status == http.StatusNotModified:
		// There is no body, whatever is said of one. If one comes, it is not taken
		// for the next answer.
		f.last = f.last || f.chunked || f.size > 0 || status == http.StatusSwitchingProtocols
		f.size, f.chunked = 0, false
	case f.chunked:
		f.last = f.last || f.size >= 0 // what the two disagree about may be an answer
		f.size = -1
	case f.size < 0:
		f.last = true // the end of the connection is the end of the body
	}
}

// parseStatus reads "HTTP/1.1 200 OK".
func parseStatus(line []byte) (status, minor int, err error) {
	const start = len("HTTP/1.1 ")
	if len(line) < start+3 || string(line[:7]) != "HTTP/1." || line[7] != '0' && line[7] != '1' || line[8] != ' ' ||
		len(line) > start+3 && line[start+3] != ' ' || !fieldValue(line) {
		return 0, 0, errStatusLine
	}
	for _, c := range line[start : start+3] {
		if c < '0' || c > '9' {
			return 0, 0, errStatusLine
		}
		status = status*10 + int(c-'0')
	}
	if status < 100 {
		return 0, 0, errStatusLine
	}
	return status, int(line[7] - '0'), nil
}

// cutLine splits b behind its first line, which it returns without its end.
func cutLine(b []byte) (line, rest []byte) {
	line, rest, _ = bytes.Cut(b, []byte{'\n'})
	return bytes.TrimSuffix(line, []byte{'\r'}), rest
}

func is(b []byte, name string) bool { return len(b) == len(name) && strings.EqualFold(string(b), name) }

// first keeps a header's first value, as net/http's Get returns it. Those that
// nearly every answer has are not made anew.
func first(to *string, value []byte) {
	if *to != "" {
		return
	}
	switch string(value) {
	case "application/json":
		*to = "application/json"
	case "text/event-stream":
		*to = "text/event-stream"
	default:
		*to = string(value)
	}
}

// length reads a Content-Length: digits and nothing else.
func length(b []byte) (n int64, ok bool) {
	if len(b) == 0 || len(b) > 18 {
		return 0, false
	}
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}

func hasToken(list []byte, name string) bool {
	for one := range bytes.SplitSeq(list, []byte{','}) {
		if is(bytes.Trim(one, " \t"), name) {
			return true
		}
	}
	return false
}

func token(b []byte) bool {
	for _, c := range b {
		if !httpguts.IsTokenRune(rune(c)) {
			return false
		}
	}
	return len(b) > 0
}

// fieldValue reports whether b has no control characters but tabs.
func fieldValue(b []byte) bool {
	for _, c := range b {
		if c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}
