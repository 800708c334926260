package openai

import (
	"encoding/json"
	"fmt"
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
