package openai

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
)

// Citation is a passage that an answer may rest on, as an annotation of its
// message. Index is the number that the passage had.
type Citation struct {
	Type     string  `json:"type"` // file_citation
	Index    int     `json:"index"`
	FileID   string  `json:"file_id"`
	FileName string  `json:"filename"`
	StoreID  string  `json:"vector_store_id"`
	Score    float64 `json:"score"`
}

// AppendAnnotated appends the body of a chat's answer with annotations in the
// message of each choice. A message that has some keeps them, and gets no others.
func AppendAnnotated(dst, body []byte, all []Citation) ([]byte, error) {
	list, err := json.Marshal(all)
	if err != nil {
		return dst, err
	}
	var edits []Edit
	s := new(scanner)
	s.relayed(body)
	message := func(name []byte) error {
		if string(name) != "message" || s.peek() != '{' {
			_, err := s.skip()
			return err
		}
		before := s.offset()
		start := before
		for body[start] != '{' { // a colon and space
			start++
		}
		var has bool
		var empty Span
		names := 0
		err := s.object(func(name []byte) error {
			names++
			at, err := s.skip()
			if string(name) == "annotations" {
				has = true
				if v := string(body[at.Start:at.End]); v == "[]" || v == "null" {
					empty = at
				}
			}
			return err
		})
		switch {
		case err != nil:
			return err
		case !empty.Empty():
			edits = append(edits, Edit{At: empty, With: list})
		case !has:
			with := append(append([]byte(`"annotations":`), list...), ',')
			if names == 0 {
				with = with[:len(with)-1]
			}
			edits = append(edits, Edit{At: Span{start + 1, start + 1}, With: with})
		}
		return nil
	}
	err = s.object(func(name []byte) error {
		if string(name) != "choices" {
			_, err := s.skip()
			return err
		}
		return s.array(func() error { return s.object(message) })
	})
	if err != nil {
		return dst, fmt.Errorf("cannot annotate the answer: %w", answerError(err))
	}
	return Splice(dst, body, edits), nil
}

// chunkMembers are what every chunk of a stream has in common.
var chunkMembers = [...]string{"id", "object", "created", "model", "system_fingerprint"}

// maxChoices is OpenAI's own bound of n.
const maxChoices = 128

// AppendAnnotationChunk appends a chunk of a chat's stream, one like data, that has
// nothing but annotations in the delta of each of n choices, 1 to 128, and returns
// it. It repeats of data what all chunks have in common, and has no line end.
func AppendAnnotationChunk(dst, data []byte, n int64, all []Citation) ([]byte, error) {
	list, err := json.Marshal(all)
	if err != nil {
		return dst, err
	}
	s, seen := new(scanner), [len(chunkMembers)]bool{}
	s.relayed(data)
	before := len(dst)
	dst = append(dst, '{')
	err = s.object(func(name []byte) error {
		at, err := s.skip()
		i := slices.Index(chunkMembers[:], string(name))
		if err == nil && i >= 0 && !seen[i] && data[at.Start] != '{' && data[at.Start] != '[' { // these may have line ends
			seen[i] = true
			dst = append(append(append(dst, '"'), name...), `":`...)
			dst = append(append(dst, data[at.Start:at.End]...), ',')
		}
		return err
	})
	if err != nil {
		return dst[:before], fmt.Errorf("cannot annotate the stream: %w", answerError(err))
	}
	dst = append(dst, `"choices":[`...)
	for i := range min(max(n, 1), maxChoices) {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = strconv.AppendInt(append(dst, `{"index":`...), i, 10)
		dst = append(append(append(dst, `,"delta":{"annotations":`...), list...), `},"finish_reason":null}`...)
	}
	return append(dst, "]}"...), nil
}
