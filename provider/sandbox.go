package provider

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"bulkhead/openai"
)

// SandboxTransport is the built-in provider "sandbox": an upstream inside the
// process, offline and deterministic, for first steps and for tests. It answers
// in OpenAI's form on /chat/completions, /completions, /embeddings and
// /moderations, and on /images and /audio, as JSON or SSE, and is called like a
// real upstream.
//
// Models: "echo" answers with the text of the last user message (or of a tool
// message that follows it); "slow" does the same with a pause before each word.
// The same request gives the same bytes, id and created included.
//
// Tokens: one per started 4 bytes of each text; images and other parts are free.
//
// A choice ends at 16,384 tokens (finish_reason length).
//
// Tools: the answer is a call of a function if tool_choice forces one ("required"
// is the first of the list), or if the user's message says "call NAME" with the
// name of a tool; a JSON object right behind it is the arguments, else they are
// {}. With a response_format of JSON the answer is {"echo": TEXT}.
//
// Moderation flags a text with the word "sandbox-flagged" as violence, nothing else.
type SandboxTransport struct {
	// Delay is the pause of "slow" before each word; 0 is 200 ms.
	Delay time.Duration
}

const (
	sandboxDelay   = 200 * time.Millisecond
	sandboxCreated = 1_735_689_600 // 2025-01-01T00:00:00Z, so that answers stay the same
	sandboxChoices = 128           // n times the prompts, as OpenAI's n
	sandboxInputs  = 2048          // texts of one embeddings call, as OpenAI
	sandboxOutput  = 16_384        // tokens of one choice, whatever is asked for
)

// sandboxError is a refusal in OpenAI's form.
type sandboxError struct {
	status               int
	param, code, message string
}

func (e *sandboxError) Error() string { return e.message }

func badField(param, format string, a ...any) error {
	return &sandboxError{status: http.StatusBadRequest, param: param, message: fmt.Sprintf(format, a...)}
}

// RoundTrip answers one request. Waiting, and the body of the answer, end with
// the request's context.
func (s *SandboxTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	var raw []byte
	if r.Body != nil {
		defer r.Body.Close()
		var err error
		if raw, err = io.ReadAll(r.Body); err != nil {
			return nil, err
		}
	}
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	path := strings.TrimPrefix(r.URL.Path, "/v1")
	resp, ok, err := s.media(path, r.Header.Get("Content-Type"), raw)
	if !ok {
		resp, err = s.answer(r.Context(), path, raw)
	}
	if e, ok := err.(*sandboxError); ok {
		return e.response(r), nil
	}
	if err != nil {
		return nil, err
	}
	resp.Request = r
	return resp, nil
}

func (s *SandboxTransport) answer(ctx context.Context, path string, raw []byte) (*http.Response, error) {
	switch path {
	case openai.Chat.Path():
		return s.chat(ctx, raw)
	case openai.Completions.Path():
		return s.completions(ctx, raw)
	case openai.Embeddings.Path():
		return s.embeddings(raw)
	case openai.Moderations.Path():
		return s.moderations(raw)
	}
	return nil, &sandboxError{status: http.StatusNotFound, code: "unknown_url", message: "the sandbox has no such endpoint"}
}

func (s *SandboxTransport) delay(model string) time.Duration {
	switch {
	case model != "slow":
		return 0
	case s.Delay > 0:
		return s.Delay
	}
	return sandboxDelay
}

// decode reads a request and checks its model.
func decode(raw []byte, into any, model *string) error {
	if err := json.Unmarshal(raw, into); err != nil {
		if te, ok := err.(*json.UnmarshalTypeError); ok {
			return badField(te.Field, "%s has the wrong type", te.Field)
		}
		return badField("", "the body is not JSON")
	}
	return checkModel(*model)
}

func checkModel(model string) error {
	switch model {
	case "echo", "slow":
		return nil
	case "":
		return badField("model", "model is missing")
	}
	return &sandboxError{
		status: http.StatusNotFound, param: "model", code: "model_not_found",
		message: fmt.Sprintf("the sandbox has no model %.64q; it has echo and slow", model),
	}
}

// sandboxID derives an id from the request, so that it stays the same.
func sandboxID(prefix string, raw []byte) string {
	h := fnv.New128a()
	h.Write(raw)
	return fmt.Sprintf("%s%x", prefix, h.Sum(nil))
}

// tokens counts a text by the sandbox's rule.
func tokens(text string) int { return (len(text) + 3) / 4 }

// sleep waits d, or until ctx is done, which it returns as an error.
func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// quoted appends s as a JSON string; bytes that are no UTF-8 become U+FFFD.
func quoted(dst []byte, s string) []byte {
	dst, err := jsontext.AppendQuote(dst, strings.ToValidUTF8(s, "\uFFFD"))
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return dst
}

func sandboxResponse(status int, contentType string, length int64, body io.ReadCloser) *http.Response {
	return &http.Response{
		Status: strconv.Itoa(status) + " " + http.StatusText(status), StatusCode: status,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header:        http.Header{"Content-Type": {contentType}},
		Body:          body,
		ContentLength: length,
	}
}

func jsonResponse(status int, b []byte) *http.Response {
	return sandboxResponse(status, "application/json", int64(len(b)), io.NopCloser(bytes.NewReader(b)))
}

func (e *sandboxError) response(r *http.Request) *http.Response {
	b := quoted([]byte(`{"error":{"message":`), e.message)
	b = append(b, `,"type":"invalid_request_error","param":`...)
	for i, s := range []string{e.param, e.code} {
		if i == 1 {
			b = append(b, `,"code":`...)
		}
		if s == "" {
			b = append(b, "null"...)
		} else {
			b = quoted(b, s)
		}
	}
	resp := jsonResponse(e.status, append(b, "}}"...))
	resp.Request = r
	return resp
}
