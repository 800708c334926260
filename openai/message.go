package openai

import (
	"strconv"

	"bulkhead/fault"
)

// Names that may not come in another case; see checkName.
var (
	messageNames = []string{"role", "content", "audio"}
	partNames    = []string{"type", "text", "image_url", "input_audio", "file", "cache_control"}
)

// messages reads the messages of a chat.
func (r *Request) messages() error {
	if r.s.peek() != '[' {
		return r.wrongKind("messages", "an array")
	}
	if err := r.s.open(); err != nil {
		return err
	}
	start := r.s.offset() - 1
	for {
		more, err := r.s.more()
		if err != nil {
			return err
		}
		if !more {
			break
		}
		if r.Messages >= MaxMessages {
			return fault.Field("messages", "messages has more than %d items", MaxMessages)
		}
		if err := r.message(r.Messages); err != nil {
			return err
		}
		r.Messages++
	}
	if r.Messages == 0 {
		return fault.Field("messages", "messages must not be empty")
	}
	r.MessagesSpan = Span{start, r.s.offset()}
	return nil
}

func messageParam(i int, field string) string {
	p := "messages[" + strconv.Itoa(i) + "]"
	if field != "" {
		p += "." + field
	}
	return p
}

// message reads message i. What it holds beside role and content (tool calls,
// names, a vendor's reasoning) is read by the model too and counts as it stands.
func (r *Request) message(i int) error {
	if r.s.peek() != '{' {
		return r.wrongKind(messageParam(i, ""), "an object")
	}
	if err := r.s.open(); err != nil {
		return err
	}
	var hasRole bool
	var role string
	var content Span
	for {
		name, ok, err := r.s.name()
		if err != nil {
			return err
		}
		if !ok {
			break
		}
		if err := checkName(name, messageNames); err != nil {
			return within(err, messageParam(i, ""))
		}
		switch string(name) {
		case "role":
			hasRole = true
			role, err = r.role(i)
		case "content":
			content, err = r.content(i)
		case "name", "tool_calls", "tool_call_id", "refusal", "function_call":
			err = r.rawText()
		default:
			if at := r.lastName(name); r.s.peek() != 'n' {
				r.note(Seen{Where: MessageField, Message: i, Name: at})
			}
			err = r.rawText()
		}
		if err != nil {
			return err
		}
	}
	if !hasRole {
		return fault.Field(messageParam(i, "role"), "%s is required", messageParam(i, "role"))
	}
	switch {
	case role == "user":
		r.LastUser, r.LastUserAt = content, i
	case i == 0 && (role == "system" || role == "developer"):
		r.FirstSystem = content
	}
	return nil
}

// within puts path before the field that err, of checkName, names.
func within(err error, path string) error {
	e := fault.As(err)
	if e.Param == "" {
		e.Param = path
	} else {
		e.Param = path + "." + e.Param
	}
	return e
}

// roles are those a message may have.
var roles = [...]string{"user", "assistant", "system", "developer", "tool", "function"}

func (r *Request) role(i int) (string, error) {
	if r.s.peek() != '"' {
		return "", r.wrongKind(messageParam(i, "role"), "a string")
	}
	raw, _, err := r.s.scalar()
	if err != nil {
		return "", err
	}
	for _, role := range roles {
		if string(unquote(raw)) == role {
			return role, nil
		}
	}
	return "", fault.Field(messageParam(i, "role"),
		"%s must be one of developer, system, user, assistant, tool, function", messageParam(i, "role"))
}

// content reads a message's content: text, null, or parts. The span of null is
// empty.
func (r *Request) content(i int) (Span, error) {
	switch r.s.peek() {
	case '"':
		raw, at, err := r.s.scalar()
		if err == nil {
			r.TextBytes += textLen(raw)
			r.Texts = append(r.Texts, at)
		}
		return at, err
	case 'n':
		_, _, err := r.s.scalar()
		return Span{}, err
	case '[':
	default:
		return Span{}, r.wrongKind(messageParam(i, "content"), "a string, null or an array of parts")
	}
	if err := r.s.open(); err != nil {
		return Span{}, err
	}
	start := r.s.offset() - 1
	for j := 0; ; j++ {
		more, err := r.s.more()
		if err != nil {
			return Span{}, err
		}
		if !more {
			return Span{start, r.s.offset()}, nil
		}
		item := func() string { return messageParam(i, "content") + "[" + strconv.Itoa(j) + "]" }
		if r.s.peek() != '{' {
			return Span{}, r.wrongKind(item(), "an object")
		}
		if err := r.part(i, j, item); err != nil {
			return Span{}, err
		}
	}
}
