package memory

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"

	"bulkhead/fault"
	"bulkhead/openai"
)

// Bounds of items.
const (
	MaxItems     = 20      // added at once; OpenAI's own limit
	MaxItemBytes = 1 << 20 // of one item, as JSON
	maxParts     = 256     // of one message
)

// Kinds of items. Source: OpenAI API reference, "Conversations", the items that a
// client can make and a chat can hold.
const (
	message        = "message"
	functionCall   = "function_call"
	functionOutput = "function_call_output"
	customCall     = "custom_tool_call"
	customOutput   = "custom_tool_call_output"
)

// prefixes of ids, by kind.
var prefixes = map[string]string{message: "msg_", functionCall: "fc_", functionOutput: "fco_", customCall: "ctc_", customOutput: "ctco_"}

// body is an item. Of a client, the id it says is not the item's: an id is given
// out by the gateway alone.
type body struct {
	ID        string          `json:"id,omitempty"`
	Type      string          `json:"type"`
	Status    string          `json:"status,omitempty"`
	Role      string          `json:"role,omitempty"`
	Content   json.RawMessage `json:"content,omitempty"`
	Phase     string          `json:"phase,omitempty"`
	CallID    string          `json:"call_id,omitempty"`
	Name      string          `json:"name,omitempty"`
	Namespace string          `json:"namespace,omitempty"`
	Arguments *string         `json:"arguments,omitempty"`
	Input     *string         `json:"input,omitempty"`
	Output    json.RawMessage `json:"output,omitempty"`
}

// part is a part of a message's content, or of an output.
type part struct {
	Type        string          `json:"type"`
	Text        *string         `json:"text,omitempty"`
	Refusal     *string         `json:"refusal,omitempty"`
	Annotations json.RawMessage `json:"annotations,omitempty"`
	Logprobs    json.RawMessage `json:"logprobs,omitempty"`
	ImageURL    *string         `json:"image_url,omitempty"`
	Detail      *string         `json:"detail,omitempty"`
	FileID      *string         `json:"file_id,omitempty"`
	FileData    *string         `json:"file_data,omitempty"`
	FileURL     *string         `json:"file_url,omitempty"`
	Filename    *string         `json:"filename,omitempty"`
	InputAudio  json.RawMessage `json:"input_audio,omitempty"`
}

// newItem makes an item of a body.
func newItem(b body, starts bool) Item {
	i := Item{ID: openai.NewID(prefixes[b.Type]), Starts: starts}
	b.ID = ""
	i.Body = encode(b)
	return i
}

// encode is JSON without escapes that a model would have to read.
func encode(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic("BUG: " + err.Error())
	}
	return bytes.TrimSuffix(b.Bytes(), []byte{'\n'})
}

// ReadItems makes items of what a client wants to add. The error is a *fault.Error
// that names the field.
func ReadItems(raw []json.RawMessage) ([]Item, error) {
	if len(raw) > MaxItems {
		return nil, fault.Field("items", "items has more than %d items.", MaxItems)
	}
	items := make([]Item, 0, len(raw))
	for n, r := range raw {
		i, err := readItem("items["+strconv.Itoa(n)+"]", r)
		if err != nil {
			return nil, err
		}
		items = append(items, i)
	}
	return items, nil
}

func readItem(at string, raw json.RawMessage) (Item, error) {
	if len(raw) > MaxItemBytes {
		return Item{}, fault.Field(at, "%s is larger than %d bytes.", at, MaxItemBytes)
	}
	var b body
	if err := strictly(raw, &b); err != nil {
		return Item{}, fault.Field(at, "%s is no item that this gateway keeps: it must be a message, function_call, function_call_output, custom_tool_call or custom_tool_call_output with the fields of that.", at)
	}
	if b.Type == "" && b.Role != "" {
		b.Type = message // as the API lets it out
	}
	switch b.Status {
	case "":
		b.Status = "completed"
	case "completed", "incomplete", "in_progress":
	default:
		return Item{}, fault.Field(at+".status", "%s.status must be completed, incomplete or in_progress.", at)
	}
	var err error
	switch b.Type {
	case message:
		err = readMessage(at, &b)
	case functionCall, customCall:
		err = readCall(at, &b)
	case functionOutput, customOutput:
		if b.CallID == "" {
			return Item{}, fault.Field(at+".call_id", "%s.call_id is required.", at)
		}
		b.Output, err = readContent(at+".output", b.Output, "", true)
	default:
		return Item{}, fault.Field(at+".type", "%s.type must be message, function_call, function_call_output, custom_tool_call or custom_tool_call_output.", at)
	}
	if err != nil {
		return Item{}, err
	}
	if b.Type != message && (b.Role != "" || len(b.Content) > 0) {
		return Item{}, fault.Field(at+".role", "Only a message has role and content.")
	}
	return newItem(b, b.Role != "" && b.Role != "assistant"), nil
}

// strictly decodes one JSON value without unknown fields.
func strictly(raw []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	return d.Decode(v)
}

func readMessage(at string, b *body) (err error) {
	switch b.Role {
	case "user", "assistant", "system", "developer":
	default:
		return fault.Field(at+".role", "%s.role must be user, assistant, system or developer.", at)
	}
	if b.CallID != "" || b.Arguments != nil || b.Input != nil || len(b.Output) > 0 {
		return fault.Field(at, "A message has role and content.")
	}
	b.Content, err = readContent(at+".content", b.Content, b.Role, false)
	return err
}

func readCall(at string, b *body) error {
	missing := ""
	switch {
	case b.CallID == "":
		missing = "call_id"
	case b.Name == "":
		missing = "name"
	case b.Type == functionCall && b.Arguments == nil:
		missing = "arguments"
	case b.Type == customCall && b.Input == nil:
		missing = "input"
	}
	if missing != "" {
		return fault.Field(at+"."+missing, "%s.%s is required.", at, missing)
	}
	return nil
}

// readContent reads a content, which is a text or parts, and returns parts; of an
// output a text stays one.
func readContent(at string, raw json.RawMessage, role string, output bool) (json.RawMessage, error) {
	var text string
	if len(raw) > 0 && raw[0] == '"' && json.Unmarshal(raw, &text) == nil {
		if output {
			return encode(text), nil
		}
		return encode([]part{textPart(role, text)}), nil
	}
	var parts []json.RawMessage
	if len(raw) == 0 || raw[0] != '[' || json.Unmarshal(raw, &parts) != nil {
		return nil, fault.Field(at, "%s must be a text, or an array of parts.", at)
	}
	if len(parts) > maxParts {
		return nil, fault.Field(at, "%s has more than %d parts.", at, maxParts)
	}
	for n, r := range parts {
		if err := checkPart(fmt.Sprintf("%s[%d]", at, n), r); err != nil {
			return nil, err
		}
	}
	return encode(parts), nil
}

func checkPart(at string, raw json.RawMessage) error {
	var p part
	if strictly(raw, &p) != nil {
		return fault.Field(at, "%s is no part of a message that this gateway keeps.", at)
	}
	ok := false
	switch p.Type {
	case "input_text", "output_text", "text":
		ok = p.Text != nil
	case "refusal":
		ok = p.Refusal != nil
	case "input_image":
		ok = p.ImageURL != nil || p.FileID != nil
	case "input_file":
		ok = p.FileID != nil || p.FileData != nil || p.FileURL != nil
	case "input_audio":
		ok = len(p.InputAudio) > 0
	default:
		return fault.Field(at+".type", "%s.type must be input_text, output_text, text, refusal, input_image, input_file or input_audio.", at)
	}
	if !ok {
		return fault.Field(at, "%s has not what its type says.", at)
	}
	return nil
}

// textPart is a text as the API has it in a message of that role.
func textPart(role, text string) part {
	if role == "assistant" {
		return part{Type: "output_text", Text: &text, Annotations: json.RawMessage("[]")}
	}
	return part{Type: "input_text", Text: &text}
}
