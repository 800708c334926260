package memory

import (
	"encoding/json"
)

// MaxAnswer bounds what is remembered of one answer, in bytes of text and of calls'
// arguments. What is longer is cut off, and said to be incomplete.
const MaxAnswer = 1 << 20

// Answer gathers the first choice of an answer as it comes. The zero value is
// ready.
type Answer struct {
	text, refusal []byte
	calls         []call
	seen          size // of what was delivered
	size          int
	Cut           bool // some of it was too much
}

type size struct{ text, refusal int }

type call struct {
	index       int
	id, kind    string
	name, input []byte
}

// choice is a choice of a chunk, or of an answer that is not streamed.
type choice struct {
	Index   int   `json:"index"`
	Delta   *said `json:"delta"`
	Message *said `json:"message"`
}

type said struct {
	Content json.RawMessage `json:"content"`
	Refusal string          `json:"refusal"`
	Audio   *messageAudio   `json:"audio"`
	Calls   []struct {
		Index    *int          `json:"index"`
		ID       string        `json:"id"`
		Type     string        `json:"type"`
		Function *functionPart `json:"function"`
		Custom   *customPart   `json:"custom"`
	} `json:"tool_calls"`
}

// Add takes in a chunk, or a whole answer. What it cannot read it leaves out: it
// was read before as what the client is to see.
func (a *Answer) Add(data []byte) {
	var c struct {
		Choices []choice `json:"choices"`
	}
	if json.Unmarshal(data, &c) != nil {
		return
	}
	for _, ch := range c.Choices {
		if ch.Index != 0 {
			continue
		}
		for _, s := range []*said{ch.Delta, ch.Message} {
			if s != nil {
				a.add(s)
			}
		}
	}
}

func (a *Answer) add(s *said) {
	var text string
	if json.Unmarshal(s.Content, &text) != nil {
		var parts []chatPart
		_ = json.Unmarshal(s.Content, &parts)
		for _, p := range parts {
			text += deref(p.Text)
		}
	}
	a.text = a.grow(a.text, text)
	a.refusal = a.grow(a.refusal, s.Refusal)
	if s.Audio != nil {
		a.text = a.grow(a.text, s.Audio.Transcript)
	}
	for i, c := range s.Calls {
		if c.Index == nil {
			c.Index = &i
		}
		if f := a.call(*c.Index); f != nil {
			if c.ID != "" {
				f.id = c.ID
			}
			switch {
			case c.Function != nil:
				f.kind = "function"
				f.name, f.input = a.grow(f.name, c.Function.Name), a.grow(f.input, c.Function.Arguments)
			case c.Custom != nil:
				f.kind = "custom"
				f.name, f.input = a.grow(f.name, c.Custom.Name), a.grow(f.input, c.Custom.Input)
			}
		}
	}
}

// maxCalls is how many calls of tools one answer may have.
const maxCalls = 128

// call returns the call at an index of the provider's, nil if there are too many.
func (a *Answer) call(index int) *call {
	for i := range a.calls {
		if a.calls[i].index == index {
			return &a.calls[i]
		}
	}
	if len(a.calls) == maxCalls {
		a.Cut = true
		return nil
	}
	a.calls = append(a.calls, call{index: index})
	return &a.calls[len(a.calls)-1]
}

func (a *Answer) grow(to []byte, text string) []byte {
	if a.size+len(text) > MaxAnswer {
		a.Cut = true
		return to
	}
	a.size += len(text)
	return append(to, text...)
}

// Delivered says that the client has what was added so far.
func (a *Answer) Delivered() { a.seen = size{len(a.text), len(a.refusal)} }

// Message returns the answer as a message; of one that was broken off what was
// delivered, without the calls of tools. ok is false where that is nothing.
func (a *Answer) Message(whole bool) (m Message, ok bool) {
	text, refusal := a.text, a.refusal
	if !whole {
		text, refusal = text[:a.seen.text], refusal[:a.seen.refusal]
	}
	m = Message{Role: "assistant", Content: encode(string(text))}
	if len(refusal) > 0 {
		s := string(refusal)
		m.Refusal = &s
	}
	if whole && !a.Cut {
		for _, c := range a.calls {
			t := toolCall{ID: c.id, Type: c.kind}
			if c.kind == "custom" {
				t.Custom = &customPart{string(c.name), string(c.input)}
			} else {
				t.Function = &functionPart{string(c.name), string(c.input)}
			}
			m.ToolCalls = append(m.ToolCalls, t)
		}
	}
	return m, whole || len(text)+len(refusal) > 0
}
