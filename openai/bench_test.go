package openai

import (
	"bytes"
	"strings"
	"testing"
)

// chatBody returns a chat of about size bytes, as an SDK sends it.
func chatBody(size int) []byte {
	var b bytes.Buffer
	b.WriteString(`{"model":"gpt-4o-mini","messages":[{"role":"system","content":"You are a helpful assistant."}`)
	text := strings.Repeat("The quick brown fox jumps over the lazy dog. ", 3)
	for role := 0; b.Len() < size-200; role++ {
		b.WriteString(`,{"role":"` + []string{"user", "assistant"}[role%2] + `","content":"` + text + `\n"}`)
	}
	b.WriteString(`],"stream":true,"max_completion_tokens":512,"temperature":0.7,"user":"user-1234"}`)
	return b.Bytes()
}

var chunkData = []byte(`{"id":"chatcmpl-9abcdefghijklmnop","object":"chat.completion.chunk","created":1760000000,"model":"gpt-4o-mini-2024-07-18",` +
	`"service_tier":"default","system_fingerprint":"fp_0123456789","choices":[{"index":0,"delta":{"content":" hello"},"logprobs":null,"finish_reason":null}],"usage":null}`)

func benchmarkScan(b *testing.B, size int) {
	body := chatBody(size)
	r := new(Request)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		if err := r.Scan(Chat, body); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkScan1K(b *testing.B)  { benchmarkScan(b, 1<<10) }
func BenchmarkScan10K(b *testing.B) { benchmarkScan(b, 10<<10) }

func BenchmarkAppendUpstream(b *testing.B) {
	r := new(Request)
	if err := r.Scan(Chat, chatBody(1<<10)); err != nil {
		b.Fatal(err)
	}
	dst := make([]byte, 0, 4<<10)
	b.ReportAllocs()
	for b.Loop() {
		r.AppendUpstream(dst, UpstreamForm{Model: "gpt-4o", IncludeUsage: true})
	}
}

func BenchmarkScanChunk(b *testing.B) {
	var c Chunk
	b.ReportAllocs()
	for b.Loop() {
		if err := ScanChunk(chunkData, &c); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEventReader(b *testing.B) {
	stream := bytes.Repeat(AppendEvent(nil, "", chunkData), 50)
	e := new(EventReader)
	r := new(bytes.Reader)
	b.SetBytes(int64(len(stream)))
	b.ReportAllocs()
	for b.Loop() {
		r.Reset(stream)
		e.Reset(r, 0)
		for {
			if _, err := e.Next(); err != nil {
				break
			}
		}
	}
}
