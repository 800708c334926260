//go:build !race

package openai

import (
	"bytes"
	"testing"
)

// The race detector allocates on its own, so the counts hold without it only.
func TestAllocs(t *testing.T) {
	f := func(what string, most float64, run func()) {
		t.Helper()
		if got := testing.AllocsPerRun(200, run); got > most {
			t.Errorf("%s allocates %.0f times, at most %.0f are allowed", what, got, most)
		}
	}
	r := new(Request)
	small, large := chatBody(1<<10), chatBody(10<<10)
	scan := func(body []byte) func() {
		return func() {
			if err := r.Scan(Chat, body); err != nil {
				t.Fatal(err)
			}
		}
	}
	f("Scan of 1 KB", 2, scan(small)) // Model, User
	f("Scan of 10 KB", 2, scan(large))
	parts := []byte(`{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"a"},{"type":"image_url","image_url":{"url":"x"}}]}],` +
		`"tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object","properties":{"a":{"type":"string"}}}}}]}`)
	f("Scan of parts and tools", 1, scan(parts)) // Model

	scan(small)()
	dst := make([]byte, 0, 4<<10)
	f("AppendUpstream", 2, func() { r.AppendUpstream(dst, UpstreamForm{Model: "gpt-4o", IncludeUsage: true}) })

	var c Chunk
	last := []byte(`{"model":"m","choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2,"completion_tokens_details":{"reasoning_tokens":1}}}`)
	for _, data := range [][]byte{chunkData, last} {
		f("ScanChunk", 0, func() {
			if err := ScanChunk(data, &c); err != nil {
				t.Fatal(err)
			}
		})
	}

	stream := bytes.Repeat(AppendEvent(nil, "", chunkData), 50)
	e, in := new(EventReader), new(bytes.Reader)
	f("50 events", 0, func() {
		in.Reset(stream)
		e.Reset(in, 0)
		for range 50 {
			if _, err := e.Next(); err != nil {
				t.Fatal(err)
			}
		}
	})
	f("AppendEvent and AppendErrorEvent", 0, func() {
		AppendErrorEvent(AppendEvent(dst, "x", chunkData), "no", "t", "p", "c")
	})
}
