package web

import (
	"io"
	"net"
	"strings"
	"time"

	"github.com/valyala/fasthttp"

	"bulkhead/openai"
	"bulkhead/provider"
)

// asIs reports whether an answer is relayed byte by byte and not looked into:
// sound, and what was heard as subtitles or text.
func (c *call) asIs() bool {
	return c.endpoint.Media() && !c.reply.Stream && !strings.HasPrefix(strings.ToLower(c.reply.Type), "application/json")
}

// relayed is the body of such an answer. fasthttp calls WriteTo after the handler
// has returned, and then Close, on every path.
type relayed struct {
	c    *call
	conn net.Conn
	err  error
	done bool
}

// writeAsIs hands the answer to fasthttp as a body to be written.
func (c *call) writeAsIs(rc *fasthttp.RequestCtx) {
	c.relays = true
	c.answerHeaders(rc)
	h := &rc.Response.Header
	h.SetContentType(mediaType(c.reply.Type))
	h.Set("X-Content-Type-Options", "nosniff")
	c.setStatus(rc, fasthttp.StatusOK)
	size := -1
	if c.reply.Size >= 0 && c.reply.Size <= 1<<31-1 {
		size = int(c.reply.Size)
	}
	rc.Response.SetBodyStream(&relayed{c: c, conn: rc.Conn()}, size)
}

// mediaType is the content type that the client is told: the provider's, if it is
// one that no browser runs.
func mediaType(t string) string {
	typ, _, _ := strings.Cut(strings.ToLower(t), ";")
	switch typ = strings.TrimSpace(typ); {
	case typ == "text/plain", typ == "text/vtt", typ == "text/srt", typ == "application/x-subrip",
		strings.HasPrefix(typ, "audio/"), strings.HasPrefix(typ, "image/") && typ != "image/svg+xml":
		return headerSafe(t)
	}
	return "application/octet-stream"
}

// SupportsBodyWriteTo makes fasthttp use WriteTo.
func (r *relayed) SupportsBodyWriteTo() bool { return true }

// Read is never called: see SupportsBodyWriteTo.
func (r *relayed) Read([]byte) (int, error) { panic("BUG: an answer is written, not read") }

// WriteTo relays the provider's bytes as they come.
func (r *relayed) WriteTo(w io.Writer) (n int64, err error) {
	defer func() {
		if p := recover(); p != nil {
			r.err, err = panicked(p), errCutOff
		}
	}()
	c := r.c
	a := c.last()
	buf := make([]byte, 32<<10)
	for {
		got, rerr := c.reply.Body.Read(buf)
		if got > 0 {
			if c.firstByte == 0 {
				c.firstByte = max(c.g.now().Sub(c.start), 1)
			}
			c.capture(buf[:got])
			if c.endpoint != openai.Speech {
				a.seen.TextBytes += int64(got)
			}
			k, werr := r.write(w, buf[:got])
			if n += int64(k); werr != nil {
				r.err = errClientLeft
				return n, werr
			}
		}
		switch {
		case rerr == io.EOF && c.drained():
			r.done, a.seen.Whole = true, true
			return n, errCutOff
		case rerr == io.EOF:
			r.done, a.seen.Whole = true, true
			return n, nil
		case rerr != nil:
			r.err = rerr
			return n, errCutOff // and no end of the body: the client must not take it for one
		}
	}
}

// write gives b to the client, if it is there. One that has left is no error where
// the call goes on without it.
func (r *relayed) write(w io.Writer, b []byte) (n int, err error) {
	c := r.c
	if c.drained() {
		return 0, nil
	}
	_ = r.conn.SetWriteDeadline(time.Now().Add(c.settings.WriteTimeout)) // a client that takes nothing
	if n, err = w.Write(b); err != nil {
		if c.clientLeft(); c.drained() {
			return n, nil
		}
	}
	return n, err
}

// Close ends the call.
func (r *relayed) Close() error {
	r.c.reply.Body.Close()
	if !r.done && r.err == nil {
		r.err = errClientLeft
	}
	r.c.end(r.err)
	return nil
}

// countMedia adds what the gateway knows of images and sound to what the
// provider's answer said.
func (c *call) countMedia(a *attempt) {
	s, r := &a.seen, c.request
	s.Units = openai.Usage{Characters: r.Characters}
	switch r.Endpoint {
	case openai.Images, openai.ImageEdits, openai.ImageVariations:
		if s.Units.Images = s.Images; !s.Whole || s.Images == 0 {
			s.Units.Images = r.N
		}
		if a.price.Priced() {
			s.Output = a.bound.Output * a.bound.Answers
		}
	case openai.Speech:
		s.Output = provider.MediaOutput(r)
	default:
		s.Units.Seconds, s.SecondsGuessed = provider.MediaSeconds(r, true), true
	}
}
