package provider

import (
	"context"
	"io"
	"strconv"
	"sync/atomic"
	"time"
	"unicode/utf8"
)

// sandboxStream is an SSE body that makes each event when it is read: no
// goroutine, no buffer of the whole answer. One Read gives at most one event.
type sandboxStream struct {
	ctx    context.Context
	a      *sandboxAnswer
	delay  time.Duration
	parts  [][]string // per choice, what its deltas say
	step   int        // 0 opens, then one per part, one closes, one is the usage, one the end
	choice int        // within the step
	buf    []byte     // the event
	rest   []byte     // what of buf was not read yet
	closed atomic.Bool
}

func newSandboxStream(ctx context.Context, a *sandboxAnswer, delay time.Duration) *sandboxStream {
	s := &sandboxStream{ctx: ctx, a: a, delay: delay, parts: make([][]string, len(a.choices))}
	for i, c := range a.choices {
		s.parts[i] = words(c.text)
		if c.tool != "" {
			s.parts[i] = pieces(c.args)
		}
	}
	return s
}

// pieces splits the arguments of a call, to show clients that they may come so.
func pieces(args string) []string {
	var p []string
	for len(args) > 8 {
		n := 8
		for n < len(args) && !utf8.RuneStart(args[n]) {
			n++
		}
		p, args = append(p, args[:n]), args[n:]
	}
	return append(p, args)
}

func (s *sandboxStream) Read(p []byte) (int, error) {
	if s.closed.Load() {
		return 0, io.ErrClosedPipe
	}
	if err := s.ctx.Err(); err != nil {
		return 0, err
	}
	if len(p) == 0 {
		return 0, nil
	}
	for len(s.rest) == 0 {
		ok, err := s.next()
		if err != nil {
			return 0, err
		}
		if !ok {
			return 0, io.EOF
		}
		s.rest = s.buf
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

func (s *sandboxStream) Close() error {
	s.closed.Store(true)
	return nil
}

// longest returns the number of parts of the longest choice.
func (s *sandboxStream) longest() int {
	n := 0
	for _, p := range s.parts {
		n = max(n, len(p))
	}
	return n
}

// next puts the next event into buf; an empty one stands for nothing to say.
// false is the end.
func (s *sandboxStream) next() (bool, error) {
	s.buf = s.buf[:0]
	n := s.longest()
	switch {
	case s.step <= n+1:
		if s.step >= 1 && s.step <= n && s.choice == 0 {
			if err := sleep(s.ctx, s.delay); err != nil {
				return false, err
			}
		}
		s.event(s.choice, s.step-1, n)
		if s.choice++; s.choice == len(s.parts) {
			s.step, s.choice = s.step+1, 0
		}
	case s.step == n+2:
		s.step++
		if s.a.withUsage {
			s.buf = s.a.head(append(s.buf, "data: "...), ".chunk")
			s.buf = append(s.a.usage(append(s.buf, ']')), "}\n\n"...)
		}
	case s.step == n+3:
		s.step++
		s.buf = append(s.buf, "data: [DONE]\n\n"...)
	default:
		return false, nil
	}
	return true, nil
}

// event writes the chunk of choice i for its part k: -1 opens the choice, n
// closes it. Text completions have nothing to open.
func (s *sandboxStream) event(i, k, n int) {
	c := &s.a.choices[i]
	if k < 0 && !s.a.chat || k >= len(s.parts[i]) && k < n {
		return
	}
	b := s.a.head(append(s.buf, "data: "...), ".chunk")
	b = strconv.AppendInt(append(b, `{"index":`...), int64(i), 10)
	part := ""
	if k >= 0 && k < n {
		part = s.parts[i][k]
	}
	switch {
	case !s.a.chat:
		b = quoted(append(b, `,"text":`...), part)
	case k < 0 && c.tool != "":
		b = append(b, `,"delta":{"role":"assistant","content":null,"tool_calls":[`...)
		b = append(s.a.toolCall(b, i, *c, true), "]}"...)
	case k < 0:
		b = append(b, `,"delta":{"role":"assistant","content":"","refusal":null}`...)
	case k == n:
		b = append(b, `,"delta":{}`...)
	case c.tool != "":
		b = quoted(append(b, `,"delta":{"tool_calls":[{"index":0,"function":{"arguments":`...), part)
		b = append(b, "}}]}"...)
	default:
		b = quoted(append(b, `,"delta":{"content":`...), part)
		b = append(b, '}')
	}
	b = append(b, `,"logprobs":null,"finish_reason":`...)
	if k == n {
		b = quoted(b, c.finish)
	} else {
		b = append(b, "null"...)
	}
	b = append(b, "}]"...)
	if s.a.withUsage {
		b = append(b, `,"usage":null`...)
	}
	s.buf = append(b, "}\n\n"...)
}
