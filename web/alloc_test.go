//go:build !race

package web

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"bulkhead/tenant"
)

// Allocations of a whole warm call, from the bytes of the request to the bytes of
// the answer on a TCP connection: server, gateway, ledger, log and the stub that
// stands for net/http's client and the provider (3 of its own); one is left for what runs beside it. Raising one is a
// commit of its own with the reason.
const (
	allocsClear  = 12 // to a provider in the clear, with all of its transport
	allocsPlain  = 33
	allocsStream = 58 // its text is gathered, and counted where the provider says no usage, as the stub does
)

// stub is a provider in memory. A stream is read event by event.
type stub struct{ plain, event string }

func (s *stub) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.ContentLength < 1000 {
		return &http.Response{StatusCode: 200, Header: stubPlain, ContentLength: int64(len(s.plain)), Body: io.NopCloser(strings.NewReader(s.plain))}, nil
	}
	// One more event for each byte beyond 1,000.
	return &http.Response{StatusCode: 200, Header: stubStream, ContentLength: -1, Body: &stubBody{event: s.event, left: int(r.ContentLength) - 1000}}, nil
}

var (
	stubPlain  = http.Header{"Content-Type": {"application/json"}}
	stubStream = http.Header{"Content-Type": {"text/event-stream"}}
)

type stubBody struct {
	event string
	left  int
}

func (b *stubBody) Close() error { return nil }
func (b *stubBody) Read(p []byte) (int, error) {
	switch b.left--; {
	case b.left > 0:
		return copy(p, b.event), nil
	case b.left == 0:
		return copy(p, "data: [DONE]\n\n"), nil
	}
	return 0, io.EOF
}

// allocations counts those of one call with this body, whose answer ends with
// end.
func (l *lab) allocations(key, body, end string) float64 {
	l.t.Helper()
	c := l.dial()
	request, room := []byte(rawRequest("POST", key, "/v1/chat/completions", body)), make([]byte, 1<<20)
	once := func() {
		if _, err := c.Conn.Write(request); err != nil {
			l.t.Fatal(err)
		}
		for n := 0; !bytes.HasSuffix(room[:n], []byte(end)); {
			k, err := c.Conn.Read(room[n:])
			if err != nil {
				l.t.Fatalf("%s: %q", err, room[:n])
			}
			n += k
		}
	}
	for range 100 {
		once()
	}
	return testing.AllocsPerRun(300, once)
}

// constant is a provider that gives everybody one answer, and allocates nothing.
func constant(t *testing.T) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { ln.Close() })
	const body = `{"choices":[{"message":{"role":"assistant","content":"Hello"},"finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":1,"total_tokens":10}}`
	answer := fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	go func() {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		for room := make([]byte, 16<<10); ; {
			if _, err := c.Read(room); err != nil {
				return
			}
			if _, err := c.Write(answer); err != nil {
				return
			}
		}
	}()
	return ln.Addr().String()
}

func TestAllocations(t *testing.T) {
	l := newLab(t, labOptions{gone: "http://" + constant(t) + "/v1", sandbox: &stub{
		plain: `{"choices":[{"message":{"role":"assistant","content":"Hello"},"finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":1,"total_tokens":10}}`,
		event: `data: {"id":"chatcmpl-1","model":"echo","choices":[{"index":0,"delta":{"content":" word"},"finish_reason":null}]}` + "\n\n",
	}})
	l.entries.drop = true
	key, _ := l.company("acme", tenant.KeyLive, nil)

	inTheClear := l.allocations(key, chatBody("gone/echo", ""), "}")
	t.Logf("a call in the clear: %.1f allocations", inTheClear)
	if inTheClear > allocsClear {
		t.Errorf("a call in the clear: %.1f allocations, at most %d", inTheClear, allocsClear)
	}

	plain := l.allocations(key, chatBody("sandbox/echo", ""), "}")
	t.Logf("a plain call: %.1f allocations", plain)
	if plain > allocsPlain {
		t.Errorf("a plain call: %.1f allocations, at most %d", plain, allocsPlain)
	}

	// The length of the body says how many events come: see stub.
	stream := func(events int) float64 {
		body := chatBody("sandbox/echo", streaming+`,"stream_options":{"include_usage":true},"note":"`)
		const renamed = len("sandbox/")
		return l.allocations(key, body[:len(body)-1]+strings.Repeat("u", 1000+events-len(body)-1+renamed)+`"}`, "\r\n0\r\n\r\n")
	}
	few, many := stream(5), stream(405)
	t.Logf("a stream: %.1f allocations, and %.3f for each event more", few, (many-few)/400)
	if few > allocsStream {
		t.Errorf("a stream: %.1f allocations, at most %d", few, allocsStream)
	}
	if more := (many - few) / 400; more > 0.01 {
		t.Errorf("%.3f allocations for each event of a stream", more)
	}
}
