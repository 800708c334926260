package provider

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// exchange is one call on one connection: the request, the answer's head, and then
// its body, which is read from it. The goroutine that reads owns it; Close may be
// called from another one.
type exchange struct {
	clock
	Reply
	head
	frame  framing
	chunks chunked

	parent context.Context
	c      *h1Conn
	ending Ending      // the parent, where it tells of its end itself
	unhook func() bool // else what ends the watch for it
	over   bool        // a limit has ended it; c.mu guards it once there is a c

	room *headRoom // of ahead
	// ahead is what came with the head and is not read yet.
	ahead []byte
	err   error // what the last Read ended with; later ones repeat it

	sent  int64         // bytes of the request that were written
	wrote chan struct{} // closed once a body that another goroutine writes is written; nil: none is
	werr  error         // why it was not written whole
}

// maxJoined is how long a request may be, in bytes, to be written at once by the
// goroutine that then reads: the system takes as much without waiting for the
// server. A longer one might wait for a server that waits until its answer is
// taken.
const maxJoined = 16 << 10

// writeWait is how long after a whole answer the request may still be written before
// the server is taken not to want the rest of it; net/http waits as long.
const writeWait = 50 * time.Millisecond

// headRoom is where the head of an answer is read. Like the room of requests it is
// cleared before another company's call has it.
type headRoom [4 << 10]byte

var (
	headRooms = sync.Pool{New: func() any { return new(headRoom) }}
	askRooms  = sync.Pool{New: func() any { return new([maxJoined]byte) }}
)

// send makes one attempt. Nothing is sent twice, with one exception: to a
// connection that was used before and took not a single byte.
func (p *h1) send(ctx context.Context, t *Timeouts, a *address, f *fields, call *Call) (*exchange, error) {
	x := &exchange{parent: ctx}
	first := x.begin(t)
	if err := cmp.Or(ctx.Err(), f.check()); err != nil {
		return nil, x.failed(ctx, &unsentError{err}, false, false)
	}
	for {
		c, used, err := p.connect(x, a.host)
		if err != nil {
			return nil, x.failed(ctx, &unsentError{err}, x.over, false)
		}
		x.use(c, first)
		if err = x.ask(a, f, call); err == nil {
			x.begins(t)
			return x, nil
		}
		x.detach(false)
		if !used || x.sent > 0 || x.over || ctx.Err() != nil {
			return nil, x.failed(ctx, err, x.over, false)
		}
	}
}

// use makes c what x is sent on. From now on the limits and the parent's end close
// it.
func (x *exchange) use(c *h1Conn, first time.Duration) {
	x.c, x.wrote, x.werr = c, nil, nil
	c.own(x, first)
	x.ending, x.unhook = nil, nil
	if e, ok := x.parent.(Ending); ok && e.OnEnd(x) {
		x.ending = e
	} else {
		x.unhook = context.AfterFunc(x.parent, x.Interrupt)
	}
}

// Interrupt ends the attempt because the parent has ended: see Ending.
func (x *exchange) Interrupt() {
	x.c.mu.Lock()
	defer x.c.mu.Unlock()
	if x.c.x == x {
		x.c.kill()
	}
}

// detach ends what x has to do with its connection, which is kept or closed. When
// it returns nobody reads the request's body any more.
func (x *exchange) detach(keep bool) {
	if x.ending != nil {
		x.ending.Off(x)
	} else {
		x.unhook()
	}
	c := x.c
	c.mu.Lock()
	mine := c.x == x
	if mine {
		if c.x, c.since = nil, time.Now(); !keep {
			c.kill()
		}
		keep = !c.dead // a limit or the parent may have been first
	}
	c.mu.Unlock()
	if x.wrote != nil {
		<-x.wrote
	}
	switch {
	case !mine:
	case keep:
		c.pool.put(c)
	default:
		c.pool.leave(c.host)
	}
}

// ask writes the request and reads the head of the answer. A server may answer
// before it has read all, and close: its answer counts then.
func (x *exchange) ask(a *address, f *fields, call *Call) error {
	x.write(a, f, call)
	if x.wrote == nil && x.werr != nil && x.sent == 0 {
		return x.werr
	}
	err := x.readHead()
	if err != nil {
		x.giveRoom()
	}
	return err
}

// write writes the request; a long one goes on being written while the answer is
// awaited.
func (x *exchange) write(a *address, f *fields, call *Call) {
	size := call.FormSize
	if call.Form == nil {
		size = int64(len(call.Body))
	}
	room := askRooms.Get().(*[maxJoined]byte)
	b := f.appendHead(room[:0], a, size)
	if call.Form != nil || len(b)+len(call.Body) > maxJoined {
		x.wrote = make(chan struct{})
		go x.writeLong(room, b, call)
		return
	}
	b = append(b, call.Body...)
	n, err := x.c.Write(b)
	x.sent, x.werr = int64(n), err
	clear(room[:len(b)])
	askRooms.Put(room)
}

// writeLong writes a request of the head b. It does not touch x once the channel is
// closed.
func (x *exchange) writeLong(room *[maxJoined]byte, b []byte, call *Call) {
	defer close(x.wrote)
	if call.Form == nil {
		all := net.Buffers{b, call.Body}
		x.sent, x.werr = all.WriteTo(x.c.Conn)
	} else {
		n, err := x.c.Write(b)
		if x.sent, x.werr = int64(n), err; err == nil {
			x.writeForm(call)
		}
	}
	clear(room[:])
	askRooms.Put(room)
}

var errFormSize = errors.New("the form has another size than was said")

// writeForm writes a form, whose size is in the head. If that turns out to be
// wrong, nothing on the connection means anything any more.
func (x *exchange) writeForm(call *Call) {
	r := call.Form()
	n, err := io.Copy(x.c.Conn, io.LimitReader(r, call.FormSize))
	x.sent += n
	if err == nil {
		if more, _ := io.ReadFull(r, make([]byte, 1)); n == call.FormSize && more == 0 {
			return
		}
		err = errFormSize
		x.c.close()
	}
	x.werr = err
}

// readHead reads the head of the answer, past those that only inform.
func (x *exchange) readHead() error {
	x.room = headRooms.Get().(*headRoom)
	b, looked, informed := x.room[:0], 0, 0
	for {
		if n := headEnd(b, looked); n > 0 {
			h, f, err := parseHead(b[:n])
			switch {
			case err != nil:
				return err
			case informed+n > maxAnswerHeader:
				return errHeaderLength
			case h.status >= 200 || h.status == http.StatusSwitchingProtocols:
				x.head, x.frame, x.ahead = h, f, b[n:]
				return nil
			}
			b, looked, informed = b[:copy(b, b[n:])], 0, informed+n
			continue
		}
		if informed+len(b) >= maxAnswerHeader {
			return errHeaderLength
		}
		const start = "HTTP/1."
		if k := min(len(b), len(start)); string(b[:k]) != start[:k] {
			return errStatusLine
		}
		if len(b) == cap(b) {
			b = append(make([]byte, 0, 4*cap(b)), b...)
		}
		looked = len(b)
		n, err := x.c.Read(b[len(b):cap(b)])
		if b = b[:len(b)+n]; n == 0 && err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
	}
}

// begins is called when the answer's head is there.
func (x *exchange) begins(t *Timeouts) {
	x.answered(t.Total)
	x.Reply = Reply{Status: x.status, Type: x.typ, Body: x, Size: x.frame.size, Stream: x.stream()}
	if x.frame.size == 0 {
		x.finish()
	}
}

// Read reads what is there, waiting no longer than the limits allow. One Read
// gives what one read of the connection gave. With the last byte it gives the
// connection back.
func (x *exchange) Read(p []byte) (int, error) {
	for x.err == nil && len(p) > 0 {
		n, done, err := x.more(p)
		switch {
		case err != nil:
			x.detach(false)
			x.err = x.failed(x.parent, err, x.over, true)
			return n, x.err
		case done:
			x.finish()
			return n, x.err
		case n > 0:
			return n, nil
		}
	}
	return 0, x.err
}

// more reads once, and reports whether the body is at its end.
func (x *exchange) more(p []byte) (n int, done bool, err error) {
	f := &x.frame
	if f.size >= 0 {
		p = p[:min(int64(len(p)), f.size)]
	}
	n, err = x.fill(p)
	switch {
	case f.chunked:
		data, used, bad := x.chunks.decode(p[:n])
		if x.chunks.done {
			f.last = f.last || used < n
			return data, true, nil
		}
		n, err = data, cmp.Or(bad, err)
	case f.size >= 0:
		if f.size -= int64(n); f.size == 0 {
			return n, true, nil
		}
	case err == io.EOF:
		return n, true, nil
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return n, false, err
}

// fill takes what came with the head, and reads from the connection after that.
func (x *exchange) fill(p []byte) (n int, err error) {
	if n = copy(p, x.ahead); n > 0 {
		if x.ahead = x.ahead[n:]; len(x.ahead) == 0 {
			x.giveRoom()
		}
		return n, nil
	}
	x.waiting()
	n, err = x.c.Read(p)
	x.working()
	return n, err
}

// finish ends the exchange at the end of its body.
func (x *exchange) finish() {
	x.err = io.EOF
	keep := !x.frame.last && len(x.ahead) == 0
	if keep && x.wrote != nil {
		t := time.NewTimer(writeWait)
		select {
		case <-x.wrote:
		case <-t.C:
			keep = false
		}
		t.Stop()
	}
	x.giveRoom()
	x.detach(keep && x.werr == nil)
}

// Close ends the attempt: an upstream that is still sending loses its connection
// at once. It is safe to call twice, and while a Read is waiting.
func (x *exchange) Close() error {
	x.detach(false)
	return nil
}

// hurry brings the end of the attempt closer.
func (x *exchange) hurry(d time.Duration) {
	if !x.sooner(d) {
		return
	}
	x.c.mu.Lock()
	defer x.c.mu.Unlock()
	if x.c.x == x && !x.c.dead {
		x.c.sleep(d)
	}
}

// giveRoom lets go of the room of the head.
func (x *exchange) giveRoom() {
	if x.room != nil {
		clear(x.room[:])
		headRooms.Put(x.room)
		x.room, x.ahead = nil, nil
	}
}
