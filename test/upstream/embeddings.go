package upstream

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"math"
	"net/http"
)

// Dimensions is the length of an embedding when the request names none.
const Dimensions = 8

// Embedding is the vector answered for the i-th input: (i+d+1)/16 at place d,
// which float32 holds exactly.
func Embedding(i, dimensions int) []float32 {
	v := make([]float32, dimensions)
	for d := range v {
		v[d] = float32(i+d+1) / 16
	}
	return v
}

func (c *Call) embeddings() {
	n := inputs(c.in.Input)
	if n == 0 || c.in.Dimensions < 0 || c.in.Dimensions > 4096 {
		c.Error(http.StatusBadRequest, "input or dimensions is wrong", "invalid_request_error")
		return
	}
	dims := c.in.Dimensions
	if dims == 0 {
		dims = Dimensions
	}
	data := make([]object, n)
	for i := range data {
		v := Embedding(i, dims)
		data[i] = object{"object": "embedding", "index": i, "embedding": v}
		if c.in.EncodingFormat == "base64" && c.Model != "float-embeddings" {
			data[i]["embedding"] = base64.StdEncoding.EncodeToString(littleEndian(v))
		}
	}
	c.whole(object{"object": "list", "model": c.Model, "data": data},
		object{"prompt_tokens": EmbeddingTokens * n, "total_tokens": EmbeddingTokens * n})
}

func littleEndian(v []float32) []byte {
	var b []byte
	for _, x := range v {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
	}
	return b
}

// inputs counts the texts of an embedding request: a string or a list of
// tokens is one, a list of strings or of lists is as many as it has.
func inputs(raw json.RawMessage) int {
	var one string
	if json.Unmarshal(raw, &one) == nil {
		return 1
	}
	var tokens []int
	if json.Unmarshal(raw, &tokens) == nil {
		return min(1, len(tokens))
	}
	var many []json.RawMessage
	if json.Unmarshal(raw, &many) != nil {
		return 0
	}
	return len(many)
}

func (c *Call) moderations() {
	results := make([]object, max(1, inputs(c.in.Input)))
	for i := range results {
		results[i] = object{
			"flagged":                      false,
			"categories":                   object{"violence": false, "hate": false},
			"category_scores":              object{"violence": 0.001, "hate": 0.002},
			"category_applied_input_types": object{"violence": []string{"text"}, "hate": []string{"text"}},
		}
	}
	c.JSON(http.StatusOK, object{"id": "modr-" + itoa(c.number), "model": c.Model, "results": results})
}

// models lists two of the names this server knows, or shows any single one.
func (c *Call) models(id string) {
	model := func(id string) object {
		return object{"id": id, "object": "model", "created": 1_700_000_000, "owned_by": "upstream"}
	}
	if id != "" {
		c.JSON(http.StatusOK, model(id))
		return
	}
	c.JSON(http.StatusOK, object{"object": "list", "data": []object{model("ok"), model("tools")}})
}
