//go:build !race

package provider

import (
	"bytes"
	"io"
	"net/http"
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

func BenchmarkSend(b *testing.B) {
	send := stubbedSend(b)
	b.ReportAllocs()
	for b.Loop() {
		send()
	}
}
