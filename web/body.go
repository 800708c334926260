package web

import (
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"github.com/valyala/fasthttp"

	"bulkhead/fault"
)

// firstRead is how much memory a body is given before any of it has arrived,
// whatever its header claims.
const firstRead = 64 << 10

// buffers keeps the memory that the bodies of most calls fit in: the client's,
// what the provider is sent, and its answer where it is no stream; and the room of
// the first attempt. It belongs to one call until its end, and is cleared before
// another company's call has it.
type buffers struct {
	body, upstream, answer []byte
	attempt                attempt
}

// keptBuffer is how much of it is kept, for each body.
const keptBuffer = 16 << 10

var buffersPool = sync.Pool{New: func() any { return new(buffers) }}

func (b *buffers) forBody(n int64) []byte   { return take(&b.body, n) }
func (b *buffers) forAnswer(n int64) []byte { return take(&b.answer, n) }

// forUpstream returns memory that b has no more until it is given back: until the
// provider's call is over somebody may be sending it.
func (b *buffers) forUpstream(n int64) []byte {
	room := take(&b.upstream, n)
	b.upstream = nil
	return room
}

// sent gives back what forUpstream returned, which nobody sends any more.
func (b *buffers) sent(room []byte) {
	if room != nil && cap(room) <= keptBuffer {
		b.upstream = room
	}
}

// take returns an empty slice with room for n bytes, which is *kept where that is
// large enough.
func take(kept *[]byte, n int64) []byte {
	if int64(cap(*kept)) < n {
		made := make([]byte, 0, n)
		if n > keptBuffer {
			return made
		}
		*kept = made
	}
	return (*kept)[:0]
}

// giveBack clears what may be in use.
func (b *buffers) giveBack() {
	clear(b.body[:cap(b.body)])
	clear(b.answer[:cap(b.answer)])
	clear(b.upstream[:cap(b.upstream)])
	b.attempt = attempt{}
	buffersPool.Put(b)
}

// readBody returns the request's body, copied: it outlives the handler. The
// memory is counted to the company as it grows, not as it is announced. It is the
// call's until its end.
//
// With StreamRequestBody fasthttp does not enforce a limit on the body; this
// does.
func (c *call) readBody(rc *fasthttp.RequestCtx) ([]byte, error) {
	limit := c.settings.MaxBody
	size := int64(rc.Request.Header.ContentLength())
	if size > limit {
		return nil, tooLarge(limit)
	}
	r := rc.RequestBodyStream()
	if r == nil {
		return nil, nil
	}
	room := min(size, firstRead)
	if size < 0 {
		room = 4 << 10
	}
	room++ // so that the end is seen without growing
	if err := c.takeRoom(room); err != nil {
		return nil, err
	}
	body := c.buffers.forBody(room)
	for {
		if len(body) == cap(body) {
			more := min(int64(cap(body)), limit+1-int64(len(body)))
			if size > 0 {
				more = min(more, size+1-int64(len(body)))
			}
			if more <= 0 {
				return nil, tooLarge(limit)
			}
			if err := c.takeRoom(more); err != nil {
				return nil, err
			}
			grown := make([]byte, len(body), int64(cap(body))+more)
			copy(grown, body)
			body = grown
		}
		n, err := r.Read(body[len(body):cap(body)])
		body = body[:len(body)+n]
		if int64(len(body)) > limit {
			return nil, tooLarge(limit)
		}
		if err == io.EOF && int64(len(body)) < size {
			err = io.ErrUnexpectedEOF // fasthttp takes the end of the connection for the end of the body
		}
		if err == io.EOF {
			return body, nil
		}
		if err != nil {
			return nil, bodyError(err)
		}
	}
}

func (c *call) takeRoom(n int64) error {
	if err := c.g.load.addBytes(c.company(), n, c.settings); err != nil {
		return err
	}
	c.bodyBytes += n
	return nil
}

func tooLarge(limit int64) error {
	return fault.New(fault.TooLarge, "The request body is larger than %d bytes.", limit)
}

func bodyError(err error) error {
	if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
		return fault.Wrap(fault.RequestTimeout, err, "The request body did not arrive in time.")
	}
	return fault.Wrap(fault.Invalid, err, "The request body could not be read to its end.")
}

// drain reads what is left of a body, so that the client gets to read an early
// refusal and the connection can be used again. A large one is not worth that:
// some of it is taken, since a client that is cut off while it sends would not
// see the answer, and the connection is closed.
func drain(rc *fasthttp.RequestCtx) {
	const small = 256 << 10
	r := rc.RequestBodyStream()
	if r == nil {
		return
	}
	_ = rc.Conn().SetReadDeadline(time.Now().Add(drainTime))
	n, err := io.Copy(io.Discard, io.LimitReader(r, small+1))
	if err == nil && n <= small {
		return
	}
	rc.SetConnectionClose()
	if err == nil {
		_, _ = io.Copy(io.Discard, r)
	}
}

// drainTime is how long a body is read after it was refused: as long as
// net/http's server waits before it closes such a connection.
const drainTime = 500 * time.Millisecond
