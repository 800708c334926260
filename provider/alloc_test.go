//go:build !race

package provider

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"bulkhead/openai"
)

// stub answers at once, so that what is counted is ours.
type stub struct{ resp http.Response }

func (s *stub) RoundTrip(r *http.Request) (*http.Response, error) {
	resp := s.resp
	resp.Body, resp.Request = io.NopCloser(bytes.NewReader([]byte("{}"))), r
	return &resp, nil
}

// TestSendAllocs is the budget of one call beside the transport's own work. The
// stub takes 4 of them.
func TestSendAllocs(t *testing.T) {
	const budget = 19
	send := stubbedSend(t)
	if n := testing.AllocsPerRun(1000, send); n > budget {
		t.Errorf("%v allocations per call, the budget is %d", n, budget)
	} else {
		t.Logf("%v allocations per call", n)
	}
}

func stubbedSend(t testing.TB) func() {
	c := NewClient(Options{Sandbox: &stub{http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {"application/json"}}}}})
	v := *Builtin()["openai"]
	v.Kind = Sandbox // goes to the stub, with all the headers of a real call
	target := Target{Company: "co_a", Provider: "openai", Vendor: &v}
	cred := Credential{Company: "co_a", Provider: "openai", Secret: NewSecret("sk-x")}
	call := &Call{Endpoint: openai.Chat, Body: []byte(`{"model":"m"}`), RequestID: "req_1"}
	buf := make([]byte, 512)
	return func() {
		r, err := c.Send(t.Context(), target, cred, call)
		if err != nil {
			t.Fatal(err)
		}
		for err == nil {
			_, err = r.Body.Read(buf)
		}
		r.Body.Close()
	}
}

// TestPlainAllocs is the budget of one call in the clear on a connection that is
// kept, the transport's work and all, and of each event of a stream.
func TestPlainAllocs(t *testing.T) {
	const budget = 4
	const whole = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nDate: Sat, 28 Nov 2026 12:00:00 GMT\r\nServer: x\r\nContent-Length: 2\r\n\r\n{}"
	f := func(name, answer string) float64 {
		t.Helper()
		send := plainSend(t, answer)
		n := testing.AllocsPerRun(1000, send)
		t.Logf("%s: %v allocations per call", name, n)
		return n
	}
	plain := f("json", whole)
	if plain > budget {
		t.Errorf("%v allocations per call, the budget is %d", plain, budget)
	}
	const head, event = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n", "b\r\ndata: 123\n\n\r\n"
	if n := f("stream", head+strings.Repeat(event, 1000)+"0\r\n\r\n"); n > plain {
		t.Errorf("%v allocations per stream, %v per call", n, plain)
	}
}

// plainSend makes calls to a server that does nothing but answer.
func plainSend(t testing.TB, answer string) func() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		b, a := make([]byte, 4096), []byte(answer)
		for {
			if _, err := c.Read(b); err != nil {
				return
			}
			if _, err := c.Write(a); err != nil {
				return
			}
		}
	}()
	c := NewClient(Options{})
	t.Cleanup(c.Close)
	m, errs := Vendors(map[string]Override{"test": {Kind: "openai", BaseURL: "http://" + l.Addr().String()}}, true)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	target := Target{Company: "co_a", Provider: "test", Vendor: m["test"]}
	cred := Credential{Company: "co_a", Provider: "test", Secret: NewSecret("sk-x")}
	call := &Call{Endpoint: openai.Chat, Body: []byte(`{"model":"m"}`), RequestID: "req_1"}
	buf := make([]byte, 4096)
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	return func() {
		r, err := c.Send(ctx, target, cred, call)
		if err != nil {
			t.Fatal(err)
		}
		for err == nil {
			_, err = r.Body.Read(buf)
		}
		if err != io.EOF {
			t.Fatal(err)
		}
		r.Body.Close()
	}
}

func BenchmarkPlain(b *testing.B) {
	send := plainSend(b, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
	b.ReportAllocs()
	for b.Loop() {
		send()
	}
}

func BenchmarkSend(b *testing.B) {
	send := stubbedSend(b)
	b.ReportAllocs()
	for b.Loop() {
		send()
	}
}
