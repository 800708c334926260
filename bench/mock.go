//go:build linux

package main

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/valyala/fasthttp"
)

// The requests and what the mock answers. Sizes are of the body, about.
const (
	smallBody = 1 << 10
	largeBody = 10 << 10
	chunks    = 50
)

// A message that holds one of these makes the mock wait between two events.
const (
	paceEvent  = "[pace-2ms]" // each chunk travels alone
	paceStream = "[pace-1s]"  // a stream that stays open: 1 s, without an end
	modelName  = "bench/ok"   // what every target is asked for
	padding    = "the quick brown fox jumps over the lazy dog. "
)

// chatRequest is a chat body of about size bytes whose last message begins
// with mark.
func chatRequest(size int, stream bool, mark string) []byte {
	return chatRequestTo(modelName, size, stream, mark)
}

func chatRequestTo(model string, size int, stream bool, mark string) []byte {
	head := fmt.Sprintf(`{"model":%q,"stream":%t,"messages":[{"role":"system","content":"You are brief."},{"role":"user","content":"%s `,
		model, stream, mark)
	const end = `"}],"temperature":0.5,"max_completion_tokens":256}`
	return []byte(head + pad(size-len(head)-len(end)) + end)
}

func pad(n int) string {
	n = max(0, n)
	return strings.Repeat(padding, n/len(padding)+1)[:n]
}

const usageJSON = `{"prompt_tokens":200,"completion_tokens":50,"total_tokens":250,"prompt_tokens_details":{"cached_tokens":0},"completion_tokens_details":{"reasoning_tokens":0}}`

// chatAnswer is a chat completion of about size bytes.
func chatAnswer(size int) []byte {
	const head = `{"id":"chatcmpl-bench","object":"chat.completion","created":1700000000,"model":"ok","choices":[{"index":0,"message":{"role":"assistant","content":"`
	const end = `","refusal":null},"logprobs":null,"finish_reason":"stop"}],"usage":` + usageJSON + `,"system_fingerprint":"fp_bench"}`
	return []byte(head + pad(size-len(head)-len(end)) + end)
}

func chunk(delta, finish string) []byte {
	return fmt.Appendf(nil, `data: {"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1700000000,"model":"ok","system_fingerprint":"fp_bench","choices":[{"index":0,"delta":%s,"logprobs":null,"finish_reason":%s}]}`+"\n\n",
		delta, finish)
}

// events is a stream of n content chunks, and at its end what OpenAI sends.
func events(n int, usage bool) [][]byte {
	all := [][]byte{chunk(`{"role":"assistant","content":""}`, "null")}
	for range n {
		all = append(all, chunk(`{"content":" token"}`, "null"))
	}
	all = append(all, chunk(`{}`, `"stop"`))
	if usage {
		all = append(all, []byte(`data: {"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1700000000,"model":"ok","choices":[],"usage":`+usageJSON+"}\n\n"))
	}
	return append(all, []byte(doneEvent))
}

const doneEvent = "data: [DONE]\n\n"

// player is a body that gives one event a Read: fasthttp flushes after each.
type player struct {
	events  [][]byte
	next    int
	pace    time.Duration
	forever bool // after the first event, the second again and again
}

func (p *player) Read(b []byte) (int, error) {
	if p.next == len(p.events) {
		return 0, io.EOF
	}
	if p.next > 0 && p.pace > 0 {
		time.Sleep(p.pace)
	}
	n := copy(b, p.events[p.next])
	if n < len(p.events[p.next]) {
		return 0, io.ErrShortBuffer
	}
	if !p.forever || p.next == 0 {
		p.next++
	}
	return n, nil
}

// mockHandler answers every path. The answer is as large as the request: 1 KB
// or 10 KB, or 50 events if the body asks for a stream.
func mockHandler() fasthttp.RequestHandler {
	small, large := chatAnswer(smallBody), chatAnswer(largeBody)
	plain, withUsage := events(chunks, false), events(chunks, true)
	return func(rc *fasthttp.RequestCtx) {
		body := rc.PostBody()
		if !bytes.Contains(body, []byte(`"stream":true`)) {
			rc.SetContentType("application/json")
			answer := small
			if len(body) > (smallBody+largeBody)/2 {
				answer = large
			}
			rc.Response.SetBodyRaw(answer)
			return
		}
		p := &player{events: plain}
		if bytes.Contains(body, []byte(`"include_usage":true`)) {
			p.events = withUsage
		}
		switch {
		case bytes.Contains(body, []byte(paceEvent)):
			p.pace = 2 * time.Millisecond
		case bytes.Contains(body, []byte(paceStream)):
			p.pace, p.forever = time.Second, true
		}
		rc.SetContentType("text/event-stream")
		rc.Response.ImmediateHeaderFlush = true
		rc.Response.SetBodyStream(p, -1)
	}
}
