package openai

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
)

// Vectors reads the answer to an embeddings call of n inputs, as arrays of numbers,
// in the order of the inputs.
func Vectors(body []byte, n int) ([][]float32, error) {
	var answer struct {
		Data []struct {
			Index     *int      `json:"index"`
			Embedding []float32 `json:"embedding"`
		} `json:"data"`
	}
	if json.Unmarshal(body, &answer) != nil {
		return nil, errors.New("the answer has no embeddings as arrays of numbers")
	}
	if len(answer.Data) != n {
		return nil, fmt.Errorf("the answer has %d embeddings for %d inputs", len(answer.Data), n)
	}
	all := make([][]float32, n)
	for i, d := range answer.Data {
		at := i
		if d.Index != nil {
			at = *d.Index
		}
		if at < 0 || at >= n || all[at] != nil || len(d.Embedding) == 0 || len(d.Embedding) != len(answer.Data[0].Embedding) {
			return nil, errors.New("the embeddings of the answer are not one for each input, of one dimension")
		}
		for _, x := range d.Embedding {
			if math.IsNaN(float64(x)) || math.IsInf(float64(x), 0) {
				return nil, errors.New("an embedding has a number that is none")
			}
		}
		all[at] = d.Embedding
	}
	return all, nil
}
