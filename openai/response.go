package openai

import (
	"strconv"

	"bulkhead/fault"
)

// MaxResponseID bounds the id of a response, in bytes. Vendors' have up to 60.
const MaxResponseID = 64

// Names that may not come in another case; see checkName.
var (
	itemNames      = []string{"type", "role", "content", "output", "encrypted_content"}
	itemPartNames  = []string{"type", "text", "refusal", "image_url", "file_id", "file_data", "file_url", "filename", "input_audio", "detail"}
	responseInputs = MaxMessages
)

// ResponseID reports whether s may be the id of a response, and a part of a path:
// it matches [A-Za-z0-9._-]{1,64} and is not made of dots.
func ResponseID(s string) bool {
	if s == "" || len(s) > MaxResponseID {
		return false
	}
	dots := true
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '_', c == '-':
			dots = false
		case c != '.':
			return false
		}
	}
	return !dots
}

// responseField reads the fields of a response.
func (r *Request) responseField(name []byte) (err error) {
	switch string(name) {
	case "input":
		return r.responseInput()
	case "instructions":
		return r.oneText("instructions")
	case "tools":
		return r.tools()
	case "text":
		return r.rawText()
	case "prompt_cache_key":
		r.CacheKey, r.CacheKeySpan, _, err = r.text("prompt_cache_key", MaxCacheKey)
	case "store":
		null := r.s.peek() == 'n'
		if r.Store, _, err = r.boolean("store"); null {
			r.Store = true
		}
	case "background":
		r.Later, _, err = r.boolean("background")
	case "previous_response_id":
		r.Previous, _, _, err = r.text("previous_response_id", MaxUserName)
	case "conversation":
		r.Conversation = r.s.peek() != 'n'
		_, err = r.s.skip()
	case "stream":
		r.Stream, r.StreamSpan, err = r.boolean("stream")
	case "stream_options":
		return r.streamOptions()
	case "max_output_tokens":
		r.maxTokens, r.MaxTokensSpan, err = r.integer("max_output_tokens", MaxOutputCap)
	default:
		_, err = r.s.skip()
	}
	return err
}

// maxTokensName is the name of what MaxTokensSpan is the value of.
func (r *Request) maxTokensName() string {
	if r.Endpoint == Responses {
		return "max_output_tokens"
	}
	return "max_tokens"
}

// AfterPrevious takes in how many tokens the response had, its input and its
// output together, that the call goes on from: the vendor puts them before what
// the body has. 0 is not known: then it is bounded like a file, by what the
// model takes.
func (r *Request) AfterPrevious(tokens int64) {
	if tokens <= 0 {
		r.Files++
		return
	}
	r.InputTokens += min(tokens, maxCount)
}

// responseInput reads what the model is to answer: a text, or items.
func (r *Request) responseInput() error {
	switch r.s.peek() {
	case '"':
		r.InputItems, r.Messages = 1, 1
		return r.countText()
	case 'n':
		_, _, err := r.s.scalar()
		return err
	case '[':
	default:
		return r.wrongKind("input", "a string or an array")
	}
	return r.s.array(func() error {
		if r.Messages >= responseInputs {
			return fault.Field("input", "input has more than %d items", responseInputs)
		}
		i := r.Messages
		r.Messages++
		r.InputItems++
		return r.item(i)
	})
}

func itemParam(i int) string { return "input[" + strconv.Itoa(i) + "]" }

// item reads item i of the input. Whatever its type says, content and output are
// read for images, sound and files, and the rest counts as it stands.
func (r *Request) item(i int) error {
	if r.s.peek() != '{' {
		return r.wrongKind(itemParam(i), "an object")
	}
	if err := r.s.open(); err != nil {
		return err
	}
	var kind string
	var at Span
	encrypted := false
	for {
		name, ok, err := r.s.name()
		if err != nil {
			return err
		}
		if !ok {
			break
		}
		if err := checkName(name, itemNames); err != nil {
			return within(err, itemParam(i))
		}
		switch string(name) {
		case "type":
			kind, at, _, err = r.text(itemParam(i)+".type", MaxModelName)
		case "role":
			_, _, _, err = r.text(itemParam(i)+".role", MaxModelName)
		case "content", "output":
			err = r.itemContent(i, itemParam(i)+"."+string(name))
		case "encrypted_content":
			encrypted = r.s.peek() == '"'
			err = r.rawText()
		default:
			err = r.rawText()
		}
		if err != nil {
			return err
		}
	}
	switch kind {
	case "", "message", "function_call", "function_call_output", "custom_tool_call", "custom_tool_call_output":
	case "reasoning":
		if !encrypted { // the vendor looks up what it has kept
			r.note(Seen{Where: ItemType, Message: i, Name: at.inner()})
		}
	default:
		r.note(Seen{Where: ItemType, Message: i, Name: at.inner()})
	}
	return nil
}

// itemContent reads a text, parts, or one part.
func (r *Request) itemContent(i int, param string) error {
	switch r.s.peek() {
	case '"':
		return r.countText()
	case '{':
		return r.itemPart(i, 0, param)
	case '[':
		j := -1
		return r.s.array(func() error {
			j++
			if r.s.peek() != '{' {
				return r.rawText()
			}
			return r.itemPart(i, j, param+"["+strconv.Itoa(j)+"]")
		})
	}
	return r.rawText()
}

// itemPart reads part j of the content or output of item i.
func (r *Request) itemPart(i, j int, param string) error {
	if err := r.s.open(); err != nil {
		return err
	}
	start := r.s.offset() - 1
	before, texts := r.TextBytes, len(r.Texts)
	var kind string
	var at, media Span // the type, and the name of the last member that holds data
	var low bool
	var audio int
	for {
		name, ok, err := r.s.name()
		if err != nil {
			return err
		}
		if !ok {
			break
		}
		if err := checkName(name, itemPartNames); err != nil {
			return within(err, param)
		}
		here := r.lastName(name)
		switch string(name) {
		case "type":
			kind, at, _, err = r.text(param+".type", MaxModelName)
		case "text", "refusal":
			if r.s.peek() != '"' {
				err = r.rawText()
				break
			}
			err = r.countText()
		case "image_url", "file_data", "file_url", "input_audio":
			if r.s.peek() != 'n' {
				media = here
			}
			var v Span
			if v, err = r.s.skip(); string(name) == "input_audio" {
				audio = v.End - v.Start
			}
		case "detail":
			var text string
			text, _, _, err = r.text(param+".detail", MaxModelName)
			low = text == "low"
		case "filename", "annotations", "logprobs": // the last two are of an answer, and no model reads them
			_, err = r.s.skip()
		default: // file_id too
			if r.s.peek() != 'n' {
				r.note(Seen{Where: PartField, Message: i, Item: j, Name: here})
			}
			err = r.rawText()
		}
		if err != nil {
			return err
		}
	}
	switch kind {
	case "input_text", "output_text", "text", "summary_text", "reasoning_text", "refusal":
		if !media.Empty() { // an image in a text: some server may look at it
			r.note(Seen{Where: PartField, Message: i, Item: j, Name: media})
		}
	case "input_image", "computer_screenshot":
		r.Images++
		if low {
			r.LowImages++
		}
	case "input_file":
		r.Files++
	case "input_audio":
		r.Audios++
		r.AudioBytes += int64(audio)
	default:
		r.TextBytes, r.Texts = before, r.Texts[:texts]
		r.countRaw(Span{start, r.s.offset()})
		name := Span{}
		if !at.Empty() {
			name = at.inner()
		}
		r.note(Seen{Where: PartType, Message: i, Item: j, Name: name})
	}
	return nil
}

// event is what the type of an event of a response's stream means.
type event uint8

const (
	otherEvent event = iota
	lastEvent        // the response has ended, one way or another
	itemEvent        // an item of the output is whole
	errorEvent
)

// ranByVendor are the items of an output that are runs of the vendor's own
// tools, beside searches of the web.
var ranByVendor = [...]string{"file_search_call", "code_interpreter_call", "image_generation_call", "mcp_call"}

// responseField reads a member of an event of a response's stream, or of a
// response that is no stream's.
func (c *Chunk) responseField(name []byte) (err error) {
	switch string(name) {
	case "type":
		var raw []byte
		if c.s.peek() != '"' {
			break
		}
		if raw, _, err = c.s.scalar(); err != nil {
			return err
		}
		switch string(unquote(raw)) {
		case "response.failed":
			c.event, c.Failed = lastEvent, true
		case "response.completed", "response.incomplete":
			c.event = lastEvent
		case "response.output_item.done":
			c.event = itemEvent
		case "error":
			c.event = errorEvent
		}
		return err
	case "sequence_number":
		_, _, err = c.s.count(&c.Sequence)
		return err
	case "delta":
		return c.text()
	case "response":
		return c.s.object(c.innerField)
	case "item":
		return c.outputItem()
	case "error":
		return c.error()
	case "object":
		c.whole = true
	case "output":
		c.whole = true
		return c.s.array(c.outputItem)
	}
	return c.innerField(name)
}

// innerField reads a member of the response itself.
func (c *Chunk) innerField(name []byte) (err error) {
	switch string(name) {
	case "id":
		c.ID, err = c.s.same(c.oldID)
	case "model":
		c.Model, err = c.s.same(c.oldModel)
	case "service_tier":
		c.ServiceTier, err = c.s.same(c.oldTier)
	case "usage":
		if c.s.peek() == '{' {
			return c.readUsage()
		}
		_, err = c.s.skip()
	default:
		_, err = c.s.skip()
	}
	return err
}

// outputItem reads an item of the output.
func (c *Chunk) outputItem() error { return c.s.object(c.itemField) }

func (c *Chunk) itemField(name []byte) error {
	switch string(name) {
	case "type":
		if c.s.peek() != '"' {
			break
		}
		raw, _, err := c.s.scalar()
		if err != nil {
			return err
		}
		switch kind := unquote(raw); {
		case string(kind) == "web_search_call":
			c.Searches++
		default:
			for _, tool := range ranByVendor {
				if string(kind) == tool {
					c.ToolRuns++
				}
			}
		}
		return err
	case "content", "summary":
		return c.s.array(c.outputPart)
	case "arguments", "input", "name":
		return c.text()
	}
	_, err := c.s.skip()
	return err
}

func (c *Chunk) outputPart() error { return c.s.object(c.outputPartField) }

func (c *Chunk) outputPartField(name []byte) error {
	switch string(name) {
	case "text", "refusal", "transcript":
		return c.text()
	}
	_, err := c.s.skip()
	return err
}

// endResponse draws together what only the whole of it tells.
func (c *Chunk) endResponse() {
	switch {
	case c.whole: // a response that failed has an error too, and is one all the same
		c.Failed, c.IsError = c.IsError, false
	case c.event == errorEvent:
		c.IsError = true
	case c.event == itemEvent: // its text came before, piece by piece
		c.TextBytes = 0
	}
	if c.event != itemEvent && !c.whole {
		c.Searches, c.ToolRuns = 0, 0
	}
	c.Finished = c.event == lastEvent
}
