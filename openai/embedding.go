package openai

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strconv"
)

// maxDimensions bounds one embedding; the largest known model has 8,192.
const maxDimensions = 1 << 16

var (
	errVector     = errors.New("an embedding is neither an array of numbers nor base64 of float32")
	errDimensions = errors.New("an embedding has too many dimensions")
)

// ConvertEmbeddings appends body, an answer of the embeddings endpoint, to dst with
// every data[].embedding in the form that format names, and returns it: "base64"
// is the standard base64 of little-endian float32, "float" (or "", OpenAI's
// default) an array of numbers. The SDKs decode what they asked for and do not
// look at what came (CONTRACT section 7), and some vendors ignore the field.
//
// All other bytes stay. The numbers are float32: those of an array that are not
// are rounded. On an error, dst is returned as it was. dst must not share memory
// with body.
func ConvertEmbeddings(dst, body []byte, format string) ([]byte, error) {
	if format == "" {
		format = "float"
	}
	if format != "float" && format != "base64" {
		return dst, fmt.Errorf("cannot convert embeddings: unknown format %q", format)
	}
	c := converter{s: new(scanner), dst: dst, body: body, base64: format == "base64"}
	c.s.relayed(body)
	if err := c.scan(); err != nil {
		return dst, fmt.Errorf("cannot convert embeddings: %w", answerError(err))
	}
	return append(c.dst, body[c.done:]...), nil
}

// converter copies body to dst as it walks, up to the value it changes.
type converter struct {
	s         *scanner
	dst, body []byte
	done      int // bytes of body copied
	base64    bool
	vector    []byte // one embedding as little-endian float32
}

func (c *converter) scan() error {
	if c.s.peek() != '{' {
		if _, err := c.s.skip(); err != nil {
			return err
		}
		return errNotObject
	}
	if err := c.s.object(c.topField); err != nil {
		return err
	}
	return c.s.end()
}

func (c *converter) topField(name []byte) error {
	if string(name) != "data" {
		_, err := c.s.skip()
		return err
	}
	return c.s.array(func() error { return c.s.object(c.itemField) })
}

func (c *converter) itemField(name []byte) error {
	if string(name) != "embedding" {
		_, err := c.s.skip()
		return err
	}
	switch c.s.peek() {
	case '[':
		if c.base64 {
			return c.toBase64()
		}
	case '"':
		if !c.base64 {
			return c.toFloats()
		}
	default:
		if _, err := c.s.skip(); err != nil {
			return err
		}
		return errVector
	}
	_, err := c.s.skip()
	return err
}

func (c *converter) toBase64() error {
	raw, at, err := c.s.scalar() // valid JSON: what has no quotes and parses is a number
	if err != nil {
		return err
	}
	c.vector = c.vector[:0]
	rest := bytes.TrimSpace(raw[1 : len(raw)-1])
	for more := len(rest) > 0; more; {
		var number []byte
		number, rest, more = bytes.Cut(rest, []byte{','})
		f, err := strconv.ParseFloat(string(bytes.TrimSpace(number)), 32)
		if err != nil {
			return errVector // not a number, or beyond float32
		}
		if len(c.vector) >= 4*maxDimensions {
			return errDimensions
		}
		c.vector = binary.LittleEndian.AppendUint32(c.vector, math.Float32bits(float32(f)))
	}
	c.copyTo(at.Start)
	c.dst = append(c.dst, '"')
	c.dst = base64.StdEncoding.AppendEncode(c.dst, c.vector)
	c.dst = append(c.dst, '"')
	c.done = at.End
	return nil
}

func (c *converter) toFloats() error {
	raw, at, err := c.s.scalar()
	if err != nil {
		return err
	}
	text := unquote(raw)
	if len(text) > base64.StdEncoding.EncodedLen(4*maxDimensions) {
		return errDimensions
	}
	c.vector, err = base64.StdEncoding.AppendDecode(c.vector[:0], text)
	if err != nil || len(c.vector)%4 != 0 {
		return errVector
	}
	c.copyTo(at.Start)
	c.dst = append(c.dst, '[')
	for i := 0; i < len(c.vector); i += 4 {
		f := math.Float32frombits(binary.LittleEndian.Uint32(c.vector[i:]))
		if f64 := float64(f); math.IsNaN(f64) || math.IsInf(f64, 0) {
			return errVector // JSON has no form for it
		}
		if i > 0 {
			c.dst = append(c.dst, ',')
		}
		c.dst = strconv.AppendFloat(c.dst, float64(f), 'g', -1, 32)
	}
	c.dst = append(c.dst, ']')
	c.done = at.End
	return nil
}

func (c *converter) copyTo(at int) {
	c.dst = append(c.dst, c.body[c.done:at]...)
}
