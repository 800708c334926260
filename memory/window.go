package memory

import (
	"bytes"
	"encoding/json"
	"slices"

	"bulkhead/fault"
)

// Window bounds what goes before a turn.
type Window struct {
	Tokens int64 // of stored turns, by the estimate kept with each item
	Bytes  int   // of them as JSON
}

// History is what goes before the current turn, and how that is stored.
type History struct {
	// Messages are stored turns as messages, with commas between them; empty for none.
	Messages []byte

	turn   int64 // the stored turn that the current one goes on with; 0: it is new
	known  int   // how many messages of the current turn are stored already
	custom map[string]bool
}

// turn is a stored turn.
type turn struct {
	number int64
	tokens int64
	items  []body
	open   map[string]bool // calls of its last message that have no answer
}

// turnsOf groups items, which are the last of a conversation, by turn. Of the
// oldest, items may be missing where there are more: it is left out then.
func turnsOf(items []Item, more bool) (turns []*turn) {
	byNumber := map[int64]*turn{}
	for _, i := range items {
		t := byNumber[i.Turn]
		if t == nil {
			t = &turn{number: i.Turn}
			byNumber[i.Turn] = t
			turns = append(turns, t)
		}
		var b body
		_ = json.Unmarshal(i.Body, &b) // it was written by newItem
		t.items = append(t.items, b)
		t.tokens += i.Tokens
	}
	if more && len(turns) > 0 {
		oldest := slices.MinFunc(turns, func(a, b *turn) int { return int(a.number - b.number) })
		turns = slices.DeleteFunc(turns, func(t *turn) bool { return t == oldest })
	}
	for _, t := range turns {
		t.open = map[string]bool{}
		for _, b := range t.items {
			switch b.Type {
			case functionCall, customCall:
				t.open[b.CallID] = true
			default:
				delete(t.open, b.CallID)
			}
		}
	}
	slices.SortFunc(turns, func(a, b *turn) int { return int(a.number - b.number) })
	return turns
}

// Before returns what goes before a current turn. items are the last of the
// conversation; alone is what Current says. The error is a *fault.Error: an answer
// of a tool that nobody in the conversation has called.
func Before(items []Item, current []Message, alone bool, w Window) (History, error) {
	turns := turnsOf(items, len(items) >= maxRecent)
	h := History{custom: map[string]bool{}}
	of, known, err := goesOn(turns, current)
	if err != nil {
		return h, err
	}
	var chosen [][]byte
	if of != nil {
		h.turn, h.known = of.number, known
		for _, b := range of.items {
			h.custom[b.CallID] = h.custom[b.CallID] || b.Type == customCall
		}
		if rest := messagesOf(of.items, of.open); alone && len(rest) > known {
			chosen = append(chosen, encodeAll(rest[:len(rest)-known]))
			w.Tokens -= of.tokens
			w.Bytes -= len(chosen[0])
		}
	}
	for i := len(turns) - 1; alone && i >= 0; i-- {
		t := turns[i]
		if t == of {
			continue
		}
		text := encodeAll(messagesOf(t.items, nil))
		if w.Tokens -= t.tokens; w.Tokens < 0 {
			break
		}
		if w.Bytes -= len(text); w.Bytes < 0 {
			break
		}
		if len(text) > 0 {
			chosen = append(chosen, text)
		}
	}
	slices.Reverse(chosen)
	h.Messages = bytes.Join(chosen, []byte{','})
	return h, nil
}

// goesOn finds the stored turn that a current turn goes on with: one that waits for
// the answers of tools. known is how many of the current messages are stored.
func goesOn(turns []*turn, current []Message) (of *turn, known int, err error) {
	if len(current) == 0 {
		return nil, 0, nil
	}
	first := &current[0]
	for i := len(turns) - 1; i >= 0; i-- {
		t := turns[i]
		if len(t.open) == 0 {
			continue
		}
		said := messagesOf(t.items, t.open)
		switch first.Role {
		case "user": // the client has sent the turn from its beginning
			if n := len(said); n < len(current) && slices.EqualFunc(said, current[:n], func(a, b Message) bool { return same(&a, &b) }) {
				return t, n, nil
			}
		case "assistant": // from the call on
			if len(first.ToolCalls) > 0 && len(said) > 0 && same(&said[len(said)-1], first) {
				return t, 1, nil
			}
		case "tool": // from the answers on
			if t.open[first.ToolCallID] {
				return t, 0, nil
			}
		}
	}
	if first.Role == "tool" {
		return nil, 0, fault.Field("messages", "The first message answers a call of a tool that is not open in this conversation.")
	}
	return nil, 0, nil
}

// encodeAll encodes messages with commas between them.
func encodeAll(all []Message) []byte {
	var b []byte
	for i := range all {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, encode(all[i])...)
	}
	return b
}

// Items makes the items that a call adds: of the current turn what is not stored,
// and the answer to it. tokens estimates a text.
func (h *History) Items(current []Message, answer Message, whole bool, tokens func([]byte) int64) []Item {
	added := append(slices.Clone(current[h.known:]), answer)
	items := itemsOf(added, h.turn == 0, h.custom)
	if !whole && len(items) > 0 {
		last := &items[len(items)-1]
		last.Body = bytes.Replace(last.Body, []byte(`"status":"completed"`), []byte(`"status":"incomplete"`), 1)
	}
	for i := range items {
		items[i].Turn = h.turn
	}
	Weigh(items, tokens)
	return items
}

// Weigh sets how many tokens items are likely to have.
func Weigh(items []Item, tokens func([]byte) int64) {
	for i := range items {
		items[i].Tokens = weigh(items[i].Body, tokens)
	}
}

// mediaTokens is what an image or a file is taken to have: their bytes say little.
const mediaTokens = 1000

func weigh(raw []byte, tokens func([]byte) int64) (n int64) {
	var b body
	_ = json.Unmarshal(raw, &b)
	for _, text := range []string{b.Name, deref(b.Arguments), deref(b.Input)} {
		n += tokens([]byte(text))
	}
	for _, content := range []json.RawMessage{b.Content, b.Output} {
		var parts []part
		if len(content) == 0 || content[0] != '[' || json.Unmarshal(content, &parts) != nil {
			n += tokens(content)
			continue
		}
		for _, p := range parts {
			if p.Text == nil && p.Refusal == nil {
				n += mediaTokens
				continue
			}
			n += tokens([]byte(deref(p.Text))) + tokens([]byte(deref(p.Refusal)))
		}
	}
	const frame = 4 // what a chat format adds to each message
	return n + frame
}
