package openai

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// events reads all of r and writes one line for each event, the last for the error.
func events(r io.Reader, limit int) string {
	var b strings.Builder
	e := NewEventReader(r, limit)
	for {
		ev, err := e.Next()
		if err == nil || err == io.ErrUnexpectedEOF && ev.Raw != nil {
			fmt.Fprintf(&b, "%s %s\n", show(ev.Name), show(ev.Data))
		}
		if err != nil {
			fmt.Fprintf(&b, "%v\n", err)
			if _, again := e.Next(); again == nil || again.Error() != err.Error() {
				fmt.Fprintf(&b, "then %v\n", again)
			}
			return b.String()
		}
	}
}

func show(b []byte) string {
	if b == nil {
		return "-"
	}
	return fmt.Sprintf("%q", b)
}

func TestEventReader(t *testing.T) {
	f := func(stream string, want ...string) {
		t.Helper()
		w := strings.Join(want, "\n") + "\n"
		if got := events(strings.NewReader(stream), 0); got != w {
			t.Errorf("%q gives\n%swant\n%s", stream, got, w)
		}
		if got := events(iotest.OneByteReader(strings.NewReader(stream)), 0); got != w {
			t.Errorf("%q by single bytes gives\n%swant\n%s", stream, got, w)
		}
		if got := events(iotest.DataErrReader(strings.NewReader(stream)), 0); got != w {
			t.Errorf("%q with the error beside the data gives\n%swant\n%s", stream, got, w)
		}
	}
	f("", "EOF")
	f("\n\n\r\r\r\n", "EOF")
	f("data: a\n\ndata: b\n\n", `- "a"`, `- "b"`, "EOF")
	f("data: a\r\n\r\ndata: b\r\n\r\n", `- "a"`, `- "b"`, "EOF")
	f("data: a\r\rdata: b\r\r", `- "a"`, `- "b"`, "EOF")
	f("data: a\r\n\ndata: b\n\r\n", `- "a"`, `- "b"`, "EOF")
	f("data: a\n\r\r\ndata: b\r\r\n", `- "a"`, `- "b"`, "EOF")
	f("data:a\ndata:  b\ndata\n\n", `- "a\n b\n"`, "EOF")
	f("event: x\ndata: a\n\nevent:y\nevent:z\n\n", `"x" "a"`, `"z" -`, "EOF")
	f("event:\ndata:\n\n", `- ""`, "EOF")
	f("data\n\n", `- ""`, "EOF")
	f(": keepalive\n\ndata: a\n\n", "- -", `- "a"`, "EOF")
	f(": c\ndata: a\nid: 7\nretry: 9\nother: x\n\n", `- "a"`, "EOF")
	f("id: 1\n\n", "- -", "EOF")
	f("\xEF\xBB\xBFdata: a\n\n", `- "a"`, "EOF")
	f("\xEF\xBB\xBF\n\ndata: a\n\n", `- "a"`, "EOF")
	f("data: a\n\n\xEF\xBB\xBFdata: b\n\n", `- "a"`, `- -`, "EOF") // only the first is a mark
	f("\xEF\xBB\xBF", "EOF")
	f(" data: a\n\n", "- -", "EOF")
	f("data: a:b\n\n", `- "a:b"`, "EOF")
	f("data: a\x00\xff\n\n", "- \"a\\x00\\xff\"", "EOF")

	// cut inside an event
	f("data: a\n\ndata: b", `- "a"`, `- "b"`, "unexpected EOF")
	f("data: a\n\ndata: b\n", `- "a"`, `- "b"`, "unexpected EOF")
	f("data: b\r", `- "b"`, "unexpected EOF")
	f("data: b\r\n", `- "b"`, "unexpected EOF")
	f("\xEF\xBB\xBFdata: [DONE]", `- "[DONE]"`, "unexpected EOF")
	f("\xEF", "- -", "unexpected EOF")
}

// Raw must be the event's own bytes, so that relaying it changes nothing.
func TestEventRaw(t *testing.T) {
	f := func(stream string) {
		t.Helper()
		e := NewEventReader(strings.NewReader(stream), 0)
		var got []byte
		for {
			ev, err := e.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, ev.Raw...)
		}
		equal(t, "Raw", string(got), stream)
	}
	f("data: a\n\n: c\n\nevent: b\ndata: c\ndata: d\n\n")
	f("data: a\r\n\r\n: c\r\n\r\ndata: b\r\n\r\n")
	f("data: a\r\r: c\r\rdata: b\r\r")
}

// stepReader gives one step at a time and fails the test when it is asked for
// more than the test has allowed.
type stepReader struct {
	t     *testing.T
	steps []string
}

func (s *stepReader) Read(p []byte) (int, error) {
	if len(s.steps) == 0 {
		s.t.Fatal("read again though the event was whole")
	}
	n := copy(p, s.steps[0])
	if s.steps[0] = s.steps[0][n:]; s.steps[0] == "" {
		s.steps = s.steps[1:]
	}
	return n, nil
}

func TestEventAtOnce(t *testing.T) {
	s := &stepReader{t: t}
	e := NewEventReader(s, 0)
	f := func(want string, steps ...string) {
		t.Helper()
		s.steps = append(s.steps, steps...)
		ev, err := e.Next()
		if err != nil || string(ev.Data) != want {
			t.Fatalf("got %q, %v; want %q", ev.Data, err, want)
		}
		if len(s.steps) > 0 {
			t.Fatalf("%q was not read", s.steps)
		}
	}
	f("a", "data", ": a\n", "\n")
	f("b", "data: b\n\n")
	f("c", "data: c\r\n\r") // not waiting for the LF
	f("d", "\n", "data: d\r\r")
	f("e", "data: e\n\n\ndata: f\n\nda")
	f("f")
	f("g", "ta: g\n\n")
}

func TestEventLimit(t *testing.T) {
	f := func(stream, want string) {
		t.Helper()
		for _, r := range []io.Reader{strings.NewReader(stream), iotest.OneByteReader(strings.NewReader(stream))} {
			if got := events(r, 20); got != want {
				t.Errorf("%.40q gives\n%swant\n%s", stream, got, want)
			}
		}
	}
	large := ErrEventTooLarge.Error() + "\n"
	f("data: 456789012345\n\n", "- \"456789012345\"\nEOF\n") // exactly 20
	f("data: 4567890123456\n\n", large)
	f("data: a\n\ndata: 4567890123456\n\ndata: b\n\n", "- \"a\"\n"+large)
	f(strings.Repeat("x", 100), large)
	f(strings.Repeat("x\n", 100), large)
	f(strings.Repeat("\n", 100), "EOF\n") // blank lines are no event
}

func TestEventReaderErrors(t *testing.T) {
	broken := errors.New("connection reset")
	r := io.MultiReader(strings.NewReader("data: a\n\ndata: b"), iotest.ErrReader(broken))
	if got, want := events(r, 0), "- \"a\"\nconnection reset\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := events(emptyReader{}, 0), io.ErrNoProgress.Error()+"\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

type emptyReader struct{}

func (emptyReader) Read([]byte) (int, error) { return 0, nil }

func TestEventBuffer(t *testing.T) {
	large := "data: " + strings.Repeat("x", 1<<20) + "\n\n"
	e := NewEventReader(strings.NewReader("data: a\n\n"+large+"data: b\n\n"), 0)
	f := func(want int) {
		t.Helper()
		ev, err := e.Next()
		if err != nil || len(ev.Data) != want {
			t.Fatalf("got %d bytes, %v; want %d", len(ev.Data), err, want)
		}
	}
	f(1)
	equal(t, "the buffer", len(e.buf), startBuffer)
	f(1 << 20)
	f(1)
	if _, err := e.Next(); err != io.EOF {
		t.Fatal(err)
	}
	if len(e.buf) > keepBuffer {
		t.Errorf("the buffer stays at %d bytes after a large event", len(e.buf))
	}

	// the largest that fits, and what is held for it
	e.Reset(strings.NewReader(large), len(large))
	f(1 << 20)
	if len(e.buf) > len(large)+1 {
		t.Errorf("the buffer has %d bytes for a limit of %d", len(e.buf), len(large))
	}
	e.Reset(nil, 0)
	if len(e.buf) > keepBuffer || e.r != nil {
		t.Error("Reset keeps the large buffer or the reader")
	}
}

func TestAppendEvent(t *testing.T) {
	f := func(name, data, want string) {
		t.Helper()
		got := AppendEvent([]byte("x"), name, []byte(data))
		equal(t, "AppendEvent", string(got), "x"+want)
		ev, err := NewEventReader(bytes.NewReader(got[1:]), 0).Next()
		if err != nil || string(ev.Name) != name {
			t.Errorf("reads back as %q %q, %v", ev.Name, ev.Data, err)
		}
	}
	f("", "a", "data: a\n\n")
	f("", "", "data: \n\n")
	f("x", "{}", "event: x\ndata: {}\n\n")
	f("", "a\nb\r\nc\rd\n", "data: a\ndata: b\ndata: c\ndata: d\ndata: \n\n")

	defer func() {
		if recover() == nil {
			t.Error("no panic for a name with a line end")
		}
	}()
	AppendEvent(nil, "x\ndata: y", nil)
}
