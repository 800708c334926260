package openai

import (
	"bytes"

	"github.com/go-json-experiment/json/jsontext"
)

// AppendUncached appends data, an answer or the data of an event, to dst with
// every count in a usage that speaks of a cache set to 0, and says whether there
// was one. What a vendor has in its caches for a key that many companies use is
// for none of them to know. What is not valid JSON is appended as it is: it is
// refused elsewhere.
func AppendUncached(dst, data []byte) (out []byte, hidden bool) {
	if !bytes.Contains(data, []byte("cach")) {
		return append(dst, data...), false
	}
	var edits []Edit
	d := jsontext.NewDecoder(bytes.NewReader(data), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	within := 0 // the depth of the usage, 0 outside
	name := ""
	for {
		t, err := d.ReadToken()
		if err != nil { // io.EOF, but for what is no JSON
			break
		}
		depth := d.StackDepth()
		kind, size := t.Kind(), 0
		if kind == '0' {
			size = len(t.String())
		}
		if within > 0 && depth < within {
			within = 0
		}
		in, n := d.StackIndex(depth)
		isName := kind == '"' && in == '{' && n%2 == 1
		switch {
		case isName:
			name = t.String()
		case kind == '{' && name == "usage" && within == 0:
			within = depth
		case kind == '0' && within > 0 && bytes.Contains([]byte(name), []byte("cach")):
			end := int(d.InputOffset())
			edits = append(edits, Edit{At: Span{end - size, end}, With: []byte("0")})
		case kind == '0' && within > 0 && name == "ephemeral_1h_input_tokens", kind == '0' && within > 0 && name == "ephemeral_5m_input_tokens": // of Anthropic's cache_creation
			end := int(d.InputOffset())
			edits = append(edits, Edit{At: Span{end - size, end}, With: []byte("0")})
		}
		if !isName {
			name = ""
		}
	}
	return Splice(dst, data, edits), len(edits) > 0
}
