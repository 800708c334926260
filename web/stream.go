package web

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/valyala/fasthttp"

	"bulkhead/fault"
	"bulkhead/ledger"
	"bulkhead/openai"
	"bulkhead/provider"
)

// stream is the body of a streamed answer. fasthttp calls WriteTo after the
// handler has returned, each write of which is one chunk on the wire, flushed at
// once; then Close, on every path.
type stream struct {
	c      *call
	conn   net.Conn
	events *openai.EventReader
	chunk  openai.Chunk
	out    []byte // events to be sent with the next write
	err    error  // how the stream ended; nil is a clean end
	done   bool   // the provider has said all, and so has the stream

	finished bool // the provider gave a reason for the end

	cited    bool   // what was used was looked at
	citing   []byte // the event that says it, until it is sent
	noted    string // the id of the response, once it is noted
	sequence int64  // the number of the last event of a response

	keepalive *keepalive
}

// maxPending is how many bytes of events are gathered for one write, at most.
// Only events that have arrived are gathered: nothing waits.
const maxPending = 16 << 10

// writeStream hands the answer to fasthttp as a body to be written.
func (c *call) writeStream(rc *fasthttp.RequestCtx) {
	s := &stream{c: c, conn: rc.Conn(), chunk: openai.Chunk{Media: c.endpoint.Media(), Responses: c.endpoint == openai.Responses}, events: openai.NewEventReader(c.reply.Body, int(c.settings.MaxAnswer))}
	c.stream = s
	if a := c.last(); provider.Counts(a.target.Model) {
		a.text.Max = maxCounted
		s.chunk.Text = &a.text
	}
	c.answerHeaders(rc)
	h := &rc.Response.Header
	h.SetContentType("text/event-stream")
	h.Set("Cache-Control", "no-cache")
	h.Set("X-Accel-Buffering", "no")
	c.setStatus(rc, fasthttp.StatusOK)
	rc.Response.ImmediateHeaderFlush = true
	if rc.Request.Header.IsHTTP11() && c.settings.Keepalive > 0 {
		s.keepalive = newKeepalive(s.conn, c.settings.Keepalive, c.settings.WriteTimeout, c.clientLeft)
	}
	rc.Response.SetBodyStream(s, -1)
}

// SupportsBodyWriteTo makes fasthttp use WriteTo.
func (s *stream) SupportsBodyWriteTo() bool { return true }

// Read is never called: see SupportsBodyWriteTo.
func (s *stream) Read([]byte) (int, error) { panic("BUG: a stream is written, not read") }

// errCutOff makes fasthttp close the connection without the chunk that ends a
// body: a client that overlooks the error event must not take the end for one.
var errCutOff = errors.New("the stream was cut off")

// WriteTo relays the provider's events until they end.
func (s *stream) WriteTo(w io.Writer) (n int64, err error) {
	defer func() {
		if p := recover(); p != nil {
			s.err, err = panicked(p), errCutOff
		}
	}()
	for !s.done && s.err == nil {
		s.next()
		if len(s.out) == 0 {
			continue
		}
		_ = s.conn.SetWriteDeadline(time.Now().Add(s.c.settings.WriteTimeout)) // a client that takes nothing
		if s.c.firstByte == 0 {
			s.c.firstByte = max(s.c.g.now().Sub(s.c.start), 1)
		}
		s.c.capture(s.out)
		if s.c.drained() { // read to its end for the bill, and for whoever asks again
			s.out = s.out[:0]
			continue
		}
		k, err := w.Write(s.out)
		n += int64(k)
		s.out = s.out[:0]
		if err == nil {
			s.c.heard()
			continue
		}
		if s.c.clientLeft(); !s.c.drained() {
			s.err = errClientLeft
			return n, err
		}
	}
	if s.err != nil || s.c.drained() {
		return n, errCutOff
	}
	return n, nil
}

// next waits for an event and appends it, and those that arrived with it, to
// s.out as the client is to see them.
func (s *stream) next() {
	s.keepalive.waiting()
	ev, err := s.events.Next()
	if !s.keepalive.writing() && !s.c.drained() {
		s.err = errClientLeft
		return
	}
	for {
		if err != nil {
			s.finish(ev, err)
			return
		}
		if s.relay(ev); s.done || s.err != nil || len(s.out) > maxPending || !s.events.Buffered() {
			return
		}
		ev, err = s.events.Next()
	}
}

// relay appends one event as the client is to see it.
func (s *stream) relay(ev openai.Event) {
	c, a := s.c, s.c.last()
	switch {
	case ev.Data == nil:
		return // a comment of the provider's; the gateway sends its own
	case openai.IsDone(ev.Data) && s.chunk.Responses: // the last event has ended it, if one came
		s.fail(errCut(nil))
		return
	case openai.IsDone(ev.Data):
		s.end()
		return
	}
	if err := openai.ScanChunk(ev.Data, &s.chunk); err != nil {
		s.fail(garbage("the provider sent an event that is not valid", err))
		return
	}
	if s.chunk.IsError {
		s.fail(s.providerError(ev.Data))
		return
	}
	if err := s.cite(ev.Data); err != nil {
		s.fail(err)
		return
	}
	c.hear(ev.Data)
	a.seen.TextBytes += s.chunk.TextBytes
	a.seen.AudioBytes += s.chunk.AudioBytes
	a.seen.Images += s.chunk.Images
	if s.chunk.ServiceTier != "" {
		a.seen.Tier = s.chunk.ServiceTier
	}
	a.usages.Add(a.target.Vendor, s.chunk.Usage, s.chunk.HasUsage, s.chunk.BadUsage)
	// A reason for the end was given: what follows is at most usage and [DONE],
	// and some providers send no [DONE].
	s.finished = s.finished || s.chunk.Finished
	if s.chunk.Responses {
		s.relayResponse(ev)
		return
	}
	if s.chunk.Finished {
		s.appendCitations()
	}
	switch {
	case a.target.Lent && s.hide(ev):
	case s.chunk.UsageSpan.Empty() || c.request.IncludeUsage || s.chunk.Media:
		s.out = append(s.out, ev.Raw...)
	case s.chunk.EmptyChoices && s.chunk.HasUsage:
		// The chunk that was asked for on the gateway's own account.
	default:
		s.out = append(s.out, "data: "...)
		s.out = openai.AppendWithoutUsage(s.out, ev.Data, &s.chunk)
		s.out = append(s.out, "\n\n"...)
	}
}

// relayResponse appends an event of a response. The id is noted before the client
// sees it, and what it used before the client sees the end.
func (s *stream) relayResponse(ev openai.Event) {
	c, a := s.c, s.c.last()
	a.searches += s.chunk.Searches
	a.toolRuns += s.chunk.ToolRuns
	s.sequence = max(s.sequence, s.chunk.Sequence)
	if id := s.chunk.ID; id != "" && (id != s.noted || s.chunk.Finished) {
		s.noted = id
		c.noteResponse(a, id, tokensOf(a))
	}
	if s.chunk.Failed { // as in providerError
		s.out = append(s.out, a.secret.Mask(string(ev.Raw))...)
	} else {
		s.out = append(s.out, ev.Raw...)
	}
	if s.chunk.Finished {
		s.end()
	}
}

// hide appends an event without what it says of the provider's caches, and
// reports false, having appended nothing, where it says nothing of them or the
// client is to see no usage at all.
func (s *stream) hide(ev openai.Event) bool {
	if !s.chunk.UsageSpan.Empty() && !s.c.request.IncludeUsage && !s.chunk.Media {
		return false
	}
	before := len(s.out)
	named := ev.Raw[:max(bytes.Index(ev.Raw, []byte("data:")), 0)] // events of images and sound have names
	out, hidden := openai.AppendUncached(append(append(s.out, named...), "data: "...), ev.Data)
	if !hidden {
		s.out = out[:before]
		return false
	}
	s.out = append(out, "\n\n"...)
	return true
}

// finish is called when no more events come.
func (s *stream) finish(ev openai.Event, err error) {
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF) && openai.IsDone(ev.Data) && !s.chunk.Responses, // without its blank line
		err == io.EOF && s.finished:
		s.end()
	case s.c.ctx.Err() != nil:
		s.err = context.Cause(s.c.ctx)
		if !fault.Is(s.err, fault.ClientLeft) { // suspended, shut down, its hold lost: the client is still there
			s.fail(s.err)
		}
	case errors.Is(err, openai.ErrEventTooLarge):
		s.fail(garbage("the provider sent an event that is too large", err))
	case err == io.EOF, errors.Is(err, io.ErrUnexpectedEOF) && !fault.Is(err, fault.Timeout):
		s.fail(errCut(err))
	default:
		s.fail(err)
	}
}

func errCut(cause error) error {
	return fault.Wrap(fault.Upstream, cause, "the provider's answer was cut off").WithCode("upstream_cut")
}

// end appends what stands at the end of a whole stream: the cost as a comment,
// which every SDK skips, and [DONE].
func (s *stream) end() {
	c := s.c
	c.last().seen.Whole = true
	s.appendCitations() // of a provider that gave no reason for the end
	if c.capture(s.out); c.kept != nil {
		c.kept.all = true
	}
	c.endAttempt(c.last(), nil)
	if err := c.unremembered(); err != nil {
		s.fail(err)
		return
	}
	s.done = true
	s.out = c.appendTail(s.out)
}

// appendTail appends the end of a stream. Streams of responses, images and sound
// end with an event of their own.
func (c *call) appendTail(b []byte) []byte {
	b = append(b, ": bulkhead cost_usd="...)
	b = append(b, ledger.FormatUSD(c.costNano)...)
	b = append(b, " attempts="...)
	b = strconv.AppendInt(b, int64(len(c.attempts)), 10)
	if left, ok := c.budgetLeft(); ok {
		b = append(append(b, " budget_remaining_usd="...), left...)
	}
	b = append(b, "\n\n"...)
	if c.endpoint.Media() || c.endpoint == openai.Responses {
		return b
	}
	return append(b, "data: [DONE]\n\n"...)
}

// fail appends an error event. The stream ends after it, without [DONE] and
// without the end of the body.
func (s *stream) fail(err error) {
	s.err = err
	_, typ, code, f := explain(err)
	if s.chunk.Responses {
		s.out = openai.AppendResponseError(s.out, f.Message, typ, f.Param, code, s.sequence+1)
		return
	}
	s.out = openai.AppendErrorEvent(s.out, f.Message, typ, f.Param, code)
}

// providerError is an error the provider sent in the middle of its stream. Some
// repeat the key they were sent, which is not the client's to see.
func (s *stream) providerError(data []byte) error {
	a := s.c.last()
	mask := a.secret.Mask
	// Before anything cuts the text, and after what JSON has escaped.
	v := openai.ParseError([]byte(mask(string(data))))
	if a.target.Lent {
		return lentFault(400, v.Code)
	}
	f := fault.New(fault.Upstream, "%s", mask(v.Message))
	if f.Message == "" {
		f.Message = "the provider broke its answer off with an error"
	}
	f.Type, f.Code, f.Param = mask(v.Type), mask(v.Code), mask(v.Param)
	if f.Type == "error" { // an event's type, and none of an error
		f.Type = ""
	}
	return f
}

// Close ends the call. fasthttp calls it once the last byte is written or the
// client is gone.
func (s *stream) Close() error {
	s.keepalive.stop()
	c := s.c
	if s.done {
		c.lingers = true
		go letEnd(c.reply.Body, c.cancel)
		c.end(nil)
		return nil
	}
	c.reply.Body.Close()
	if s.err == nil {
		s.err = errClientLeft
	}
	c.end(s.err)
	return nil
}

// lingering is how long a provider may take from [DONE] to the end of its body.
const lingering = time.Second

// letEnd reads a body that has said all to its end, so that its connection can
// be used again, for as long as that takes no time. It owns the body and its
// context: to cancel that before would close the connection.
func letEnd(body io.ReadCloser, cancel context.CancelCauseFunc) {
	t := time.AfterFunc(lingering, func() { body.Close() })
	_, _ = io.Copy(io.Discard, io.LimitReader(body, 4<<10))
	t.Stop()
	body.Close()
	cancel(nil)
}

// keepalive writes a comment to the client when its stream has been silent, so
// that no proxy on the way takes the silence for the end.
//
// It writes to the connection past fasthttp, which is right only while fasthttp
// waits for the next event with everything flushed: between waiting and
// writing. The nil keepalive does nothing.
type keepalive struct {
	mu      sync.Mutex
	conn    net.Conn
	every   time.Duration
	timeout time.Duration
	lost    func() // the client takes nothing
	idle    bool
	failed  bool // half a comment may have been written: nothing may follow it
	timer   *time.Timer
}

// comment is a chunk of 14 (hexadecimal e) bytes with a comment line in it.
var comment = []byte("e\r\n: keepalive \n\n\r\n")

func newKeepalive(conn net.Conn, every, timeout time.Duration, lost func()) *keepalive {
	return &keepalive{conn: conn, every: every, timeout: timeout, lost: lost}
}

// waiting says that fasthttp has flushed and an event is awaited.
func (k *keepalive) waiting() {
	if k == nil {
		return
	}
	k.mu.Lock()
	k.idle = true
	if k.timer == nil {
		k.timer = time.AfterFunc(k.every, k.fire)
	} else {
		k.timer.Reset(k.every)
	}
	k.mu.Unlock()
}

// writing says that fasthttp may write from now on. It returns once a comment
// that is being written is out, and false if that could not be written: then
// nothing else must be.
func (k *keepalive) writing() bool {
	if k == nil {
		return true
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.idle = false
	return !k.failed
}

func (k *keepalive) stop() {
	if k == nil {
		return
	}
	k.writing()
	if k.timer != nil {
		k.timer.Stop()
	}
}

func (k *keepalive) fire() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.idle {
		return
	}
	_ = k.conn.SetWriteDeadline(time.Now().Add(k.timeout))
	if _, err := k.conn.Write(comment); err != nil {
		k.failed = true
		k.lost()
		return
	}
	k.timer.Reset(k.every)
}
