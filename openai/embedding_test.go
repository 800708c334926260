package openai

import (
	"strings"
	"testing"
)

func TestConvertEmbeddings(t *testing.T) {
	f := func(format, body, want string) {
		t.Helper()
		got, err := ConvertEmbeddings([]byte("x"), []byte(body), format)
		if err != nil || string(got) != "x"+want {
			t.Errorf("ConvertEmbeddings(%s, %s) is %s, %v; want x%s", format, body, got, err, want)
		}
	}
	floats := `{"object":"list", "data":[{"embedding":[ 1, -0.5 ,2.5e-1],"index":0},{"index":1,"embedding":[0,1.1,1e-7]}],"usage":{"x":1.0}}`
	coded := `{"object":"list", "data":[{"embedding":"AACAPwAAAL8AAIA+","index":0},{"index":1,"embedding":"AAAAAM3MjD+Vv9Yz"}],"usage":{"x":1.0}}`
	back := `{"object":"list", "data":[{"embedding":[1,-0.5,0.25],"index":0},{"index":1,"embedding":[0,1.1,1e-07]}],"usage":{"x":1.0}}`
	f("base64", floats, coded)
	f("float", coded, back)
	f("", coded, back)
	f("float", floats, floats)
	f("base64", coded, coded)
	f("float", `{"data":[{"embedding":"AACA\u0050w=="}]}`, `{"data":[{"embedding":[1]}]}`)
	f("base64", `{"data":[{"embedding":[ ]}]}`, `{"data":[{"embedding":""}]}`)
	f("float", `{"data":[{"embedding":""}]}`, `{"data":[{"embedding":[]}]}`)
	f("float", `{"data":[]}`, `{"data":[]}`)
	f("float", `{"data":null}`, `{"data":null}`)

	bad := func(format, body string) {
		t.Helper()
		got, err := ConvertEmbeddings([]byte("x"), []byte(body), format)
		if err == nil || string(got) != "x" {
			t.Errorf("ConvertEmbeddings(%s, %.100s) is %s, %v; want an error", format, body, got, err)
		}
	}
	bad("base64", `<html>`)
	bad("base64", `[]`)
	bad("base64", `{"data":[{"embedding":[1,2]}]`)
	bad("base64", `{"data":[{"embedding":[1,"2"]}]}`)
	bad("base64", `{"data":[{"embedding":["Inf"]}]}`)
	bad("base64", `{"data":[{"embedding":[[1],[2]]}]}`)
	bad("base64", `{"data":[{"embedding":[null]}]}`)
	bad("base64", `{"data":[{"embedding":[1e999]}]}`)
	bad("base64", `{"data":[{"embedding":[1e39]}]}`)
	bad("base64", `{"data":[{"embedding":null}]}`)
	bad("float", `{"data":[{"embedding":{"float":[1]}}]}`)
	bad("float", `{"data":[{"embedding":"AACAPwA="}]}`) // 5 bytes
	bad("float", `{"data":[{"embedding":"!!"}]}`)
	bad("float", `{"data":[{"embedding":"AADAfw=="}]}`) // NaN
	bad("float", `{"data":[{"embedding":"AACAfw=="}]}`) // Inf
	bad("int8", `{"data":[]}`)
	bad("base64", `{"data":[{"embedding":[`+strings.Repeat("1,", 1<<16)+`1]}]}`)
	bad("float", `{"data":[{"embedding":"`+strings.Repeat("AAAA", 90_000)+`"}]}`)
}
