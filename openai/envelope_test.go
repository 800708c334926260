package openai

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestAppendError(t *testing.T) {
	f := func(message, typ, param, code, want string) {
		t.Helper()
		got := AppendError([]byte("x"), message, typ, param, code)
		equal(t, "AppendError", string(got), "x"+want)
		if !json.Valid(got[1:]) || !utf8.Valid(got) {
			t.Errorf("%q is not JSON in UTF-8", got[1:])
		}
	}
	f("no", "t", "p", "c", `{"error":{"message":"no","type":"t","param":"p","code":"c"}}`)
	f("no", "t", "", "", `{"error":{"message":"no","type":"t","param":null,"code":null}}`)
	f("", "", "", "", `{"error":{"message":"","type":"","param":null,"code":null}}`)
	f("a\"\\\n\r\x00\x7f", "t", "", "", `{"error":{"message":"a\"\\\n\r\u0000`+"\x7f"+`","type":"t","param":null,"code":null}}`)
	f("a\xffb\xed\xa0\x80", "t", "", "", `{"error":{"message":"a`+"\uFFFDb\uFFFD\uFFFD\uFFFD"+`","type":"t","param":null,"code":null}}`)
	equal(t, "AppendErrorEvent", string(AppendErrorEvent([]byte("x"), "a\nb", "t", "", "")),
		"x"+`data: {"error":{"message":"a\nb","type":"t","param":null,"code":null}}`+"\n\n")
}

func TestParseError(t *testing.T) {
	f := func(body string, want VendorError) {
		t.Helper()
		if got := ParseError([]byte(body)); got != want {
			t.Errorf("ParseError(%.200s) is %+v, want %+v", body, got, want)
		}
	}
	// OpenAI, and numbers for code
	f(`{"error":{"message":"no","type":"invalid_request_error","param":"model","code":"model_not_found"}}`,
		VendorError{"no", "invalid_request_error", "model", "model_not_found"})
	f(`{"error":{"message":"no","type":null,"param":null,"code":null}}`, VendorError{Message: "no"})
	f(`{"error":{"message":"no","code":429}}`, VendorError{Message: "no", Code: "429"})
	f(`{"error":"no"}`, VendorError{Message: "no"})
	// Anthropic
	f(`{"type":"error","error":{"type":"overloaded_error","message":"busy"},"request_id":"r"}`, VendorError{Message: "busy", Type: "overloaded_error"})
	// Google, alone and in a list
	f(`{"error":{"code":429,"message":"quota","status":"RESOURCE_EXHAUSTED"}}`, VendorError{Message: "quota", Type: "RESOURCE_EXHAUSTED", Code: "429"})
	f(` [ {"error":{"code":400,"message":"bad key","status":"INVALID_ARGUMENT","details":[{"@type":"x"},{"reason":"API_KEY_INVALID"}]}} ]`,
		VendorError{Message: "bad key", Type: "INVALID_ARGUMENT", Code: "API_KEY_INVALID"})
	// FastAPI
	f(`{"detail":"no"}`, VendorError{Message: "no"})
	f(`{"detail":[{"type":"missing","loc":["body","messages",0,"role"],"msg":"Field required"}]}`,
		VendorError{Message: "Field required", Type: "missing", Param: "messages[0].role"})
	// flat
	f(`{"message":"no"}`, VendorError{Message: "no"})
	f(`{"object":"error","message":"no","type":"invalid","param":null,"code":"3000"}`, VendorError{Message: "no", Type: "invalid", Code: "3000"})
	f(`{"object":"error","message":{"detail":[{"loc":["body","x"],"msg":"bad"}]},"type":"invalid"}`,
		VendorError{Message: "bad", Type: "invalid", Param: "x"})
	// nothing
	f(``, VendorError{})
	f(`<html>`, VendorError{})
	f(`{}`, VendorError{})
	f(`[]`, VendorError{})
	f(`null`, VendorError{})
	f(`{"error":{}}`, VendorError{})
	f(`{"error":null}`, VendorError{})
	f(`{"error":[1]}`, VendorError{})
	f(`{"type":"object","properties":{}}`, VendorError{})
	f(strings.Repeat("[", 200_000), VendorError{})
	f(strings.Repeat("[", 9_000)+strings.Repeat("]", 9_000), VendorError{})
	f(strings.Repeat(`{"error":`, 9_000)+"1"+strings.Repeat("}", 9_000), VendorError{})

	got := ParseError([]byte(`{"error":{"message":"` + strings.Repeat("é", 5000) + `"}}`)).Message
	if len(got) > 2048 || len(got) < 2046 || !utf8.ValidString(got) {
		t.Errorf("a long message is cut to %d bytes", len(got))
	}
}
