package provider

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"hash/fnv"
	"math"
	"net/http"
	"strconv"
	"strings"
	"unicode"
)

// sandboxInput is one text of a request, or one list of token ids.
type sandboxInput struct {
	text   string
	tokens int
}

// inputs reads what embeddings call input and completions call prompt: a
// string, strings, token ids, or lists of those.
func inputs(param string, raw json.RawMessage) ([]sandboxInput, error) {
	var one string
	if json.Unmarshal(raw, &one) == nil && len(raw) > 0 && raw[0] == '"' {
		return []sandboxInput{{one, tokens(one)}}, nil
	}
	if x, ok := idInput(raw); ok {
		return []sandboxInput{x}, nil
	}
	var list []json.RawMessage
	if json.Unmarshal(raw, &list) != nil || len(list) == 0 || len(list) > sandboxInputs {
		return nil, badField(param, "%s must be a string, token ids, or 1 to %d of them", param, sandboxInputs)
	}
	in := make([]sandboxInput, len(list))
	for i, e := range list {
		var s string
		if json.Unmarshal(e, &s) == nil && e[0] == '"' {
			in[i] = sandboxInput{s, tokens(s)}
			continue
		}
		x, ok := idInput(e)
		if !ok {
			return nil, badField(param, "%s[%d] must be a string or token ids", param, i)
		}
		in[i] = x
	}
	return in, nil
}

// idInput reads a list of token ids. Their text the sandbox cannot know: the
// ids stand in for it, as words.
func idInput(raw json.RawMessage) (sandboxInput, bool) {
	var ids []*int64
	if json.Unmarshal(raw, &ids) != nil || len(ids) == 0 {
		return sandboxInput{}, false
	}
	var b []byte
	for _, id := range ids {
		if id == nil {
			return sandboxInput{}, false
		}
		b = append(strconv.AppendInt(b, *id, 10), ' ')
	}
	return sandboxInput{string(b[:len(b)-1]), len(ids)}, true
}

const (
	sandboxDimensions    = 256        // by default
	sandboxMaxDimensions = 4096       // that may be asked for
	sandboxNumbers       = 2048 * 512 // of one answer, all vectors together
)

// embeddings answers with one unit vector per input: each word, in lower case,
// adds 1 or -1 at a place its FNV-1a hash chooses, so texts that share words
// are near one another. A text without words is the first axis.
func (s *SandboxTransport) embeddings(raw []byte) (*http.Response, error) {
	var q struct {
		Model          string          `json:"model"`
		Input          json.RawMessage `json:"input"`
		Dimensions     *int            `json:"dimensions"`
		EncodingFormat string          `json:"encoding_format"`
	}
	if err := decode(raw, &q, &q.Model); err != nil {
		return nil, err
	}
	in, err := inputs("input", q.Input)
	if err != nil {
		return nil, err
	}
	dims := sandboxDimensions
	if q.Dimensions != nil {
		dims = *q.Dimensions
	}
	if dims < 1 || dims > sandboxMaxDimensions {
		return nil, badField("dimensions", "dimensions must be 1 to %d", sandboxMaxDimensions)
	}
	if dims*len(in) > sandboxNumbers {
		return nil, badField("input", "input times dimensions must be at most %d numbers", sandboxNumbers)
	}
	if f := q.EncodingFormat; f != "" && f != "float" && f != "base64" {
		return nil, badField("encoding_format", "encoding_format must be float or base64")
	}
	b := []byte(`{"object":"list","data":[`)
	total := 0
	for i, x := range in {
		total += x.tokens
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendInt(append(b, `{"object":"embedding","index":`...), int64(i), 10)
		b = appendVector(append(b, `,"embedding":`...), vector(x.text, dims), q.EncodingFormat)
		b = append(b, '}')
	}
	b = quoted(append(b, `],"model":`...), q.Model)
	b = strconv.AppendInt(append(b, `,"usage":{"prompt_tokens":`...), int64(total), 10)
	b = strconv.AppendInt(append(b, `,"total_tokens":`...), int64(total), 10)
	return jsonResponse(http.StatusOK, append(b, "}}"...)), nil
}

func vector(text string, dims int) []float32 {
	v := make([]float32, dims)
	for w := range strings.FieldsFuncSeq(strings.ToLower(text), func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsNumber(r) }) {
		h := fnv.New64a()
		h.Write([]byte(w))
		sum := h.Sum64()
		sign := float32(1)
		if sum>>63 == 1 {
			sign = -1
		}
		v[(sum&math.MaxInt64)%uint64(dims)] += sign
	}
	var square float64
	for _, x := range v {
		square += float64(x) * float64(x)
	}
	if square == 0 {
		v[0] = 1
		return v
	}
	for i := range v {
		v[i] = float32(float64(v[i]) / math.Sqrt(square))
	}
	return v
}

// appendVector writes v as an array, or as base64 of little-endian float32.
func appendVector(b []byte, v []float32, format string) []byte {
	if format == "base64" {
		raw := make([]byte, 0, 4*len(v))
		for _, x := range v {
			raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(x))
		}
		b = base64.StdEncoding.AppendEncode(append(b, '"'), raw)
		return append(b, '"')
	}
	b = append(b, '[')
	for i, x := range v {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendFloat(b, float64(x), 'g', -1, 32)
	}
	return append(b, ']')
}

// sandboxFlagged is the word moderation flags.
const sandboxFlagged = "sandbox-flagged"

// sandboxCategories are the categories of OpenAI's moderation model.
var sandboxCategories = []string{
	"harassment", "harassment/threatening", "hate", "hate/threatening", "illicit", "illicit/violent", "self-harm",
	"self-harm/instructions", "self-harm/intent", "sexual", "sexual/minors", "violence", "violence/graphic",
}

func (s *SandboxTransport) moderations(raw []byte) (*http.Response, error) {
	var q struct {
		Model string          `json:"model"`
		Input json.RawMessage `json:"input"`
	}
	if err := decode(raw, &q, &q.Model); err != nil {
		return nil, err
	}
	var texts []string
	var one string
	switch {
	case json.Unmarshal(q.Input, &one) == nil && len(q.Input) > 0 && q.Input[0] == '"':
		texts = []string{one}
	case json.Unmarshal(q.Input, &texts) == nil && len(texts) > 0:
	default: // parts, which are one input together
		var parts []json.RawMessage
		if json.Unmarshal(q.Input, &parts) != nil || len(parts) == 0 {
			return nil, badField("input", "input must be a string, strings, or parts")
		}
		texts = []string{contentText(q.Input)}
	}
	b := quoted([]byte(`{"id":`), sandboxID("modr-", raw))
	b = quoted(append(b, `,"model":`...), q.Model)
	b = append(b, `,"results":[`...)
	for i, t := range texts {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendModeration(b, strings.Contains(t, sandboxFlagged))
	}
	return jsonResponse(http.StatusOK, append(b, "]}"...)), nil
}

func appendModeration(b []byte, flagged bool) []byte {
	b = strconv.AppendBool(append(b, `{"flagged":`...), flagged)
	member := func(head string, value func(b []byte, hit bool) []byte) {
		b = append(b, head...)
		for i, c := range sandboxCategories {
			if i > 0 {
				b = append(b, ',')
			}
			b = value(append(quoted(b, c), ':'), flagged && c == "violence")
		}
		b = append(b, '}')
	}
	member(`,"categories":{`, strconv.AppendBool)
	member(`,"category_scores":{`, func(b []byte, hit bool) []byte {
		if hit {
			return append(b, '1')
		}
		return append(b, '0')
	})
	member(`,"category_applied_input_types":{`, func(b []byte, _ bool) []byte { return append(b, `["text"]`...) })
	return append(b, '}')
}
