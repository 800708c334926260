package openai

import (
	"bytes"
	"strconv"

	"bulkhead/fault"
)

// Where is the place of something a Request has Seen.
type Where uint8

// The places.
const (
	Field        Where = iota + 1 // a name at the top of the body; each is Seen
	MessageField                  // a name in a message beside those OpenAI's API reference has, but "audio"
	PartType                      // the type of a part that is not text, refusal, image_url, input_audio or file
	PartField                     // a name in a part that its type does not have
	ToolType                      // the type of a tool that is neither function nor custom; an empty Name where it has none
	Modality                      // a modality that is neither text nor audio nor image
	ItemType                      // the type of an item of a response's input that is no message, call or result of a tool of the client's
)

// Seen is a name that a request has, or what it has that is out of the ordinary.
// All but fields are noted at their first occurrence only, and not where they are
// null.
type Seen struct {
	Where         Where
	Null          bool // a field whose value is null, which means that it is not there
	Message, Item int  // the indices of the message, and of the part or tool
	Name          Span // in the body, as it stands there without its quotes
}

// maxOddities bounds what is noted beside fields. What comes after is noted
// without its name, so that nobody takes it for something known.
const maxOddities = 32

// note adds what is out of the ordinary, once.
func (r *Request) note(s Seen) {
	odd := 0
	for i := range r.Seen {
		if r.Seen[i].Where != Field {
			odd++
		}
	}
	if odd >= maxOddities {
		s.Name = Span{}
	}
	for i := range r.Seen {
		if old := &r.Seen[i]; old.Where == s.Where && bytes.Equal(old.Name.Of(r.Body), s.Name.Of(r.Body)) {
			return
		}
	}
	r.Seen = append(r.Seen, s)
}

// lastName is where the name stands that the scanner has just read.
func (r *Request) lastName(name []byte) Span {
	end := r.s.offset() - len(`"`)
	return Span{end - len(name), end}
}

// inner is a span without the quotes.
func (s Span) inner() Span { return Span{s.Start + 1, s.End - 1} }

// piece is what a part of a content has, whatever its type says.
type piece struct {
	kind  string
	low   bool // an image with detail "low"
	audio int  // bytes of input_audio
	media Span // the name of the last member that holds data
}

// part reads part j of the content of message i, which the caller has peeked to
// be an object. Text counts whatever the part's type says; the rest of a part is
// data (an image, a file) that is counted by piece, or, where the type is
// unknown, bytes.
func (r *Request) part(i, j int, item func() string) error {
	if err := r.s.open(); err != nil {
		return err
	}
	start := r.s.offset() - 1
	before, texts := r.TextBytes, len(r.Texts)
	p := piece{}
	for {
		name, ok, err := r.s.name()
		if err != nil {
			return err
		}
		if !ok {
			break
		}
		if err := checkName(name, partNames); err != nil {
			return within(err, item())
		}
		if err := r.partField(i, j, name, &p, item); err != nil {
			return err
		}
	}
	switch p.kind {
	case "":
		return fault.Field(item()+".type", "%s.type is required", item())
	case "text", "refusal":
	case "image_url":
		r.Images++
		if p.low {
			r.LowImages++
		}
	case "input_audio":
		r.Audios++
		r.AudioBytes += int64(p.audio)
	case "file":
		r.Files++
	default:
		r.TextBytes, r.Texts = before, r.Texts[:texts]
		r.countRaw(Span{start, r.s.offset()})
		return nil
	}
	if !p.media.Empty() && string(p.media.Of(r.Body)) != p.kind {
		r.note(Seen{Where: PartField, Message: i, Item: j, Name: p.media}) // an image in a text: some server may look at it
	}
	return nil
}

func (r *Request) partField(i, j int, name []byte, p *piece, item func() string) (err error) {
	at := r.lastName(name)
	switch string(name) {
	case "type":
		p.kind, err = r.partType(i, j, item)
		return err
	case "text", "refusal":
		if r.s.peek() != '"' {
			return r.wrongKind(item()+"."+string(name), "a string")
		}
		return r.countText()
	case "image_url":
		p.media = at
		p.low, err = r.imageDetail(item)
		return err
	case "input_audio":
		p.media = at
		var v Span
		v, err = r.s.skip()
		p.audio = v.End - v.Start
		return err
	case "file":
		p.media = at
		return r.file(i, j, item)
	case "cache_control":
		r.CacheControl = r.CacheControl || r.s.peek() != 'n'
	default:
		if r.s.peek() != 'n' {
			r.note(Seen{Where: PartField, Message: i, Item: j, Name: at})
		}
	}
	_, err = r.s.skip()
	return err
}

// partType returns the type if it is a known one, "other" otherwise.
func (r *Request) partType(i, j int, item func() string) (string, error) {
	if r.s.peek() != '"' {
		return "", r.wrongKind(item()+".type", "a string")
	}
	raw, at, err := r.s.scalar()
	if err != nil {
		return "", err
	}
	switch string(unquote(raw)) {
	case "text":
		return "text", nil
	case "refusal":
		return "refusal", nil
	case "image_url":
		return "image_url", nil
	case "input_audio":
		return "input_audio", nil
	case "file":
		return "file", nil
	}
	r.note(Seen{Where: PartType, Message: i, Item: j, Name: at.inner()})
	return "other", nil
}

var imageNames = []string{"url", "detail"}

// imageDetail reads an image_url and reports whether it asks for low detail. A
// few vendors take the address by itself.
func (r *Request) imageDetail(item func() string) (low bool, err error) {
	if r.s.peek() != '{' {
		_, err := r.s.skip()
		return false, err
	}
	if err := r.s.open(); err != nil {
		return false, err
	}
	for {
		name, ok, err := r.s.name()
		if err != nil || !ok {
			return low, err
		}
		if err := checkName(name, imageNames); err != nil {
			return false, within(err, item()+".image_url")
		}
		detail := string(name) == "detail" && r.s.peek() == '"'
		if !detail {
			if _, err := r.s.skip(); err != nil {
				return false, err
			}
			continue
		}
		raw, _, err := r.s.scalar()
		if err != nil {
			return false, err
		}
		low = string(unquote(raw)) == "low"
	}
}

var fileNames = []string{"file_id", "file_data", "filename"}

// file reads a file; one that is named by its id at the vendor is noted.
func (r *Request) file(i, j int, item func() string) error {
	if r.s.peek() != '{' {
		_, err := r.s.skip()
		return err
	}
	if err := r.s.open(); err != nil {
		return err
	}
	for {
		name, ok, err := r.s.name()
		if err != nil || !ok {
			return err
		}
		if err := checkName(name, fileNames); err != nil {
			return within(err, item()+".file")
		}
		if string(name) != "file_data" && string(name) != "filename" && r.s.peek() != 'n' {
			r.note(Seen{Where: PartField, Message: i, Item: j, Name: r.lastName(name)})
		}
		if _, err := r.s.skip(); err != nil {
			return err
		}
	}
}

var toolNames = []string{"type"}

// tools reads the tools: their bytes are read by the model, their types say
// whether the vendor runs them.
func (r *Request) tools() error {
	if r.s.peek() != '[' {
		if r.s.peek() != 'n' {
			r.note(Seen{Where: ToolType})
		}
		return r.rawText()
	}
	if err := r.s.open(); err != nil {
		return err
	}
	start := r.s.offset() - 1
	for i := 0; ; i++ {
		more, err := r.s.more()
		if err != nil {
			return err
		}
		if !more {
			r.countRaw(Span{start, r.s.offset()})
			return nil
		}
		if err := r.tool(i); err != nil {
			return err
		}
		r.Tools++
	}
}

func (r *Request) tool(i int) error {
	if r.s.peek() != '{' {
		r.note(Seen{Where: ToolType, Item: i})
		_, err := r.s.skip()
		return err
	}
	if err := r.s.open(); err != nil {
		return err
	}
	known := false
	for {
		name, ok, err := r.s.name()
		if err != nil {
			return err
		}
		if !ok {
			if !known {
				r.note(Seen{Where: ToolType, Item: i})
			}
			return nil
		}
		if err := checkName(name, toolNames); err != nil {
			return within(err, "tools["+strconv.Itoa(i)+"]")
		}
		if string(name) != "type" || r.s.peek() != '"' {
			if _, err := r.s.skip(); err != nil {
				return err
			}
			continue
		}
		raw, at, err := r.s.scalar()
		if err != nil {
			return err
		}
		known = true
		if kind := string(unquote(raw)); kind != "function" && kind != "custom" {
			r.note(Seen{Where: ToolType, Item: i, Name: at.inner()})
		}
	}
}

// modalities reads what the answer may be made of.
func (r *Request) modalities() error {
	i := -1
	return r.s.array(func() error {
		i++
		if r.s.peek() != '"' {
			r.note(Seen{Where: Modality, Item: i})
			_, err := r.s.skip()
			return err
		}
		raw, at, err := r.s.scalar()
		if err != nil {
			return err
		}
		switch string(unquote(raw)) {
		case "text":
		case "audio":
			r.AudioOut = true
		case "image":
			r.ImageOut = true
		default:
			r.note(Seen{Where: Modality, Item: i, Name: at.inner()})
		}
		return nil
	})
}
