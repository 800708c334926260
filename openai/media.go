package openai

import (
	"bytes"
	"unicode/utf8"

	"bulkhead/fault"
)

// Limits of images and sound, which are OpenAI's own (API description).
const (
	MaxImages        = 10 // "n"
	MaxPartialImages = 3
	MaxEditImages    = 16
)

// imageField reads the fields of images that are made or edited, in JSON.
func (r *Request) imageField(name []byte) (err error) {
	switch string(name) {
	case "prompt":
		r.InputItems = 1
		return r.oneText("prompt")
	case "n":
		r.N, _, err = r.integer("n", MaxImages)
		r.N = max(r.N, 1)
	case "stream":
		r.Stream, r.StreamSpan, err = r.boolean("stream")
	case "partial_images":
		err = r.partialImages()
	case "images":
		return r.imageList()
	case "mask":
		return r.imageRef(0)
	default:
		_, err = r.s.skip()
	}
	return err
}

// partialImages reads a number from 0 to MaxPartialImages.
func (r *Request) partialImages() (err error) {
	if r.s.peek() == '0' {
		raw, _, err := r.s.scalar()
		if err != nil {
			return err
		}
		return r.setPartialImages(string(raw))
	}
	r.PartialImages, _, err = r.integer("partial_images", MaxPartialImages)
	return err
}

func (r *Request) setPartialImages(text string) error {
	if len(text) != 1 || text[0] < '0' || text[0] > '0'+MaxPartialImages {
		return fault.Field("partial_images", "partial_images must be an integer from 0 to %d", MaxPartialImages)
	}
	r.PartialImages = int64(text[0] - '0')
	return nil
}

// imageList reads the images of an edit: addresses or ids of files.
func (r *Request) imageList() error {
	if r.s.peek() != '[' {
		return r.wrongKind("images", "an array")
	}
	return r.s.array(func() error {
		if r.Images >= MaxEditImages {
			return fault.Field("images", "images has more than %d items", MaxEditImages)
		}
		return r.imageRef(r.Images)
	})
}

// imageRef reads one image. The id of a file names something at the vendor.
func (r *Request) imageRef(i int) error {
	if r.s.peek() == 'n' {
		_, err := r.s.skip()
		return err
	}
	r.Images++
	return r.s.object(func(name []byte) error {
		if string(name) != "image_url" && r.s.peek() != 'n' {
			r.note(Seen{Where: PartField, Item: i, Name: r.lastName(name)})
		}
		_, err := r.s.skip()
		return err
	})
}

// speechField reads the fields of a text that is to be spoken.
func (r *Request) speechField(name []byte) (err error) {
	switch string(name) {
	case "input":
		r.InputItems = 1
		if r.s.peek() != '"' {
			return r.wrongKind("input", "a string")
		}
		raw, at, err := r.s.scalar()
		if err != nil {
			return err
		}
		text := unquote(raw)
		r.Characters = int64(utf8.RuneCount(text))
		r.TextBytes += int64(len(text))
		r.Texts = append(r.Texts, at)
		return nil
	case "instructions":
		return r.oneText("instructions")
	case "voice":
		if r.s.peek() == '{' {
			return r.vendorRef()
		}
	case "stream_format":
		var text string
		text, _, _, err = r.text("stream_format", 64)
		r.Stream = text == "sse"
		return err
	}
	_, err = r.s.skip()
	return err
}

// vendorRef reads an object each member of which names something at the
// vendor: a voice of the company's own.
func (r *Request) vendorRef() error {
	return r.s.object(func(name []byte) error {
		r.note(Seen{Where: PartField, Name: r.lastName(name)})
		_, err := r.s.skip()
		return err
	})
}

// oneText reads a string, or null for none, that the model reads.
func (r *Request) oneText(param string) error {
	switch r.s.peek() {
	case '"':
		return r.countText()
	case 'n':
		_, err := r.s.skip()
		return err
	}
	return r.wrongKind(param, "a string")
}

// checkMedia looks at what only the whole body can tell.
func (r *Request) checkMedia() error {
	switch r.Endpoint {
	case Images:
		if r.InputItems == 0 {
			return fault.Field("prompt", "prompt is required")
		}
	case ImageEdits, ImageVariations:
		switch {
		case r.Images == 0 && r.Form == nil:
			return fault.Field("images", "images is required")
		case r.Images == 0:
			return fault.Field("image", "image is required")
		case r.Endpoint == ImageEdits && r.InputItems == 0:
			return fault.Field("prompt", "prompt is required")
		}
	case Speech:
		if r.InputItems == 0 {
			return fault.Field("input", "input is required")
		}
	case Transcriptions, Translations:
		if r.Audios == 0 {
			return fault.Field("file", "file is required")
		}
	}
	return nil
}

// otherField reads what images and sound say beside what a text says: the images
// of an answer, the type of an event, a text that was heard and how long it took.
func (c *Chunk) otherField(name []byte) error {
	if !c.Media {
		_, err := c.s.skip()
		return err
	}
	switch string(name) {
	case "data":
		return c.s.array(func() error {
			c.Images++
			_, err := c.s.skip()
			return err
		})
	case "type":
		if c.s.peek() != '"' {
			break
		}
		raw, _, err := c.s.scalar()
		if err != nil {
			return err
		}
		if typ := unquote(raw); bytes.HasSuffix(typ, []byte(".completed")) {
			c.Finished = true
			c.Images++
		} else if bytes.HasSuffix(typ, []byte(".done")) {
			c.Finished = true
		}
		return err
	case "text", "delta":
		return c.text()
	case "audio": // of speech
		at, err := c.s.skip()
		c.AudioBytes += int64(max(at.End-at.Start-len(`""`), 0))
		return err
	case "duration":
		if !c.HasUsage {
			var got Said
			err := c.s.seconds(&c.Usage, &got)
			c.HasUsage, c.BadUsage = got.Input, got.Bad
			return err
		}
	}
	_, err := c.s.skip()
	return err
}
