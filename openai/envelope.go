package openai

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// maxMessage bounds the message kept of a vendor's error, in bytes.
const maxMessage = 2 << 10

// AppendError appends OpenAI's error envelope to dst and returns it. All four keys
// are always there; an empty param or code is null. Bytes that are not UTF-8
// become U+FFFD.
func AppendError(dst []byte, message, typ, param, code string) []byte {
	dst = appendString(append(dst, `{"error":{"message":`...), message)
	dst = appendString(append(dst, `,"type":`...), typ)
	dst = appendNullable(append(dst, `,"param":`...), param)
	dst = appendNullable(append(dst, `,"code":`...), code)
	return append(dst, "}}"...)
}

// AppendErrorEvent appends the envelope as an event, the way an error is told
// once the stream has begun.
func AppendErrorEvent(dst []byte, message, typ, param, code string) []byte {
	dst = AppendError(append(dst, "data: "...), message, typ, param, code)
	return append(dst, "\n\n"...)
}

// AppendResponseError is AppendErrorEvent for the stream of a response, whose events
// are numbered. It says the error twice: as the API has it, and as the SDKs raise
// it.
func AppendResponseError(dst []byte, message, typ, param, code string, sequence int64) []byte {
	dst = appendNullable(append(dst, "event: error\ndata: {\"type\":\"error\",\"code\":"...), code)
	dst = appendString(append(dst, `,"message":`...), message)
	dst = appendNullable(append(dst, `,"param":`...), param)
	dst = strconv.AppendInt(append(dst, `,"sequence_number":`...), sequence, 10)
	envelope := AppendError(nil, message, typ, param, code)
	dst = append(append(dst, ','), envelope[1:]...)
	return append(dst, "\n\n"...)
}

func appendString(dst []byte, s string) []byte {
	dst, _ = jsontext.AppendQuote(dst, s) // the error only says that U+FFFD was written
	return dst
}

func appendNullable(dst []byte, s string) []byte {
	if s == "" {
		return append(dst, "null"...)
	}
	return appendString(dst, s)
}

// VendorError is what could be read of a vendor's error body. It is the vendor's
// text: for lent credentials it must not reach the client.
type VendorError struct {
	Message string // at most 2 KiB
	Type    string
	Param   string
	Code    string
}

// vendorBody is every form of error body the vendors use, at once:
//
//	{"error":{"message","type","param","code"}}            OpenAI and most others
//	{"type":"error","error":{"type","message"}}            Anthropic
//	{"error":{"code":429,"message","status","details"}}    Google, also inside [ ]
//	{"error":"text"}                                       Ollama, TGI
//	{"message","type","param","code"}                      Mistral, Cohere, vLLM
//	{"detail":"text"} or {"detail":[{"loc","msg","type"}]} FastAPI
type vendorBody struct {
	Error   json.RawMessage `json:"error"`
	Message json.RawMessage `json:"message"`
	Msg     json.RawMessage `json:"msg"`
	Detail  json.RawMessage `json:"detail"`
	Type    json.RawMessage `json:"type"`
	Param   json.RawMessage `json:"param"`
	Loc     json.RawMessage `json:"loc"`
	Code    json.RawMessage `json:"code"`
	Status  json.RawMessage `json:"status"`
	Details json.RawMessage `json:"details"`
}

// ParseError reads a vendor's error body. What it does not know is the zero
// VendorError. The caller bounds the body.
func ParseError(body []byte) VendorError {
	e := parseVendor(body, 4)
	e.Message = clip(e.Message, maxMessage)
	e.Type, e.Param, e.Code = clip(e.Type, 256), clip(e.Param, 256), clip(e.Code, 256)
	return e
}

// parseVendor reads one level; levels bounds how deep errors hold errors.
func parseVendor(raw []byte, levels int) VendorError {
	raw = bytes.TrimLeft(raw, " \t\r\n")
	if levels == 0 || len(raw) == 0 {
		return VendorError{}
	}
	switch raw[0] {
	case '"':
		return VendorError{Message: text(raw)}
	case '[':
		var list []json.RawMessage
		if json.Unmarshal(raw, &list) != nil || len(list) == 0 {
			return VendorError{}
		}
		return parseVendor(list[0], levels-1)
	case '{':
		var b vendorBody
		if json.Unmarshal(raw, &b) != nil {
			return VendorError{}
		}
		return b.read(levels)
	}
	return VendorError{}
}

func (b *vendorBody) read(levels int) VendorError {
	for _, inner := range []json.RawMessage{b.Error, b.Detail} {
		if e := parseVendor(inner, levels-1); e != (VendorError{}) {
			return e
		}
	}
	e := VendorError{Message: text(b.Message)}
	if e.Message == "" {
		e = parseVendor(b.Message, levels-1) // Mistral: {"detail":[…]}
	}
	e.Message = first(e.Message, text(b.Msg))
	e.Type = first(e.Type, text(b.Type), text(b.Status))
	e.Param = first(e.Param, text(b.Param), location(b.Loc))
	e.Code = first(e.Code, reason(b.Details), text(b.Code))
	if e.Message == "" && e.Code == "" {
		return VendorError{} // a type alone says nothing: {"type":"object"}
	}
	return e
}

func first(texts ...string) string {
	for _, s := range texts {
		if s != "" {
			return s
		}
	}
	return ""
}

// text returns a string as it is and a number as it is written.
func text(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) == nil {
		return s
	}
	var n json.Number
	if json.Unmarshal(raw, &n) == nil {
		return n.String()
	}
	return ""
}

// reason finds the reason among Google's details, which tells a bad key from any
// other bad argument.
func reason(raw json.RawMessage) string {
	var list []struct {
		Reason string `json:"reason"`
	}
	_ = json.Unmarshal(raw, &list) // a detail of another shape is left out
	for _, d := range list {
		if d.Reason != "" {
			return d.Reason
		}
	}
	return ""
}

// location joins FastAPI's path to the field: ["body","messages",0] is
// messages[0].
func location(raw json.RawMessage) string {
	var path []any
	if json.Unmarshal(raw, &path) != nil {
		return ""
	}
	var b strings.Builder
	for i, step := range path {
		switch v := step.(type) {
		case string:
			if i == 0 && v == "body" {
				continue
			}
			if b.Len() > 0 {
				b.WriteByte('.')
			}
			b.WriteString(v)
		case float64:
			b.WriteString("[" + strconv.Itoa(int(v)) + "]")
		}
	}
	return b.String()
}

// clip cuts s to at most n bytes, between characters.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
