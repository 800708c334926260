package provider

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"bulkhead/fault"
)

// watch holds the clock of one attempt: a timer whose firing cancels the attempt
// if a limit is over, and which else sleeps on. So a read costs two stores and
// does not touch the timer.
type watch struct {
	parent context.Context
	ctx    context.Context
	cancel context.CancelCauseFunc
	timer  *time.Timer
	start  time.Time
	idle   time.Duration // longest silence, from waiting on

	end     atomic.Int64  // when the whole attempt is over, or its wait for a header; ns after start
	waits   atomic.Int64  // since when a read has been waiting, ns after start; 0: none is
	stopped atomic.Bool   // nothing is to be cancelled any more
	limit   atomic.Uint32 // what was over
}

// What can be over.
const (
	limitHeader uint32 = iota
	limitIdle
	limitTotal
)

var errLimit = errors.New("a time limit of the upstream is over")

// watch begins an attempt, and its wait for the header of the answer.
func (c *Client) watch(ctx context.Context) *watch {
	w := &watch{parent: ctx, start: time.Now(), idle: c.timeouts.Idle}
	w.ctx, w.cancel = context.WithCancelCause(ctx)
	first := c.timeouts.Header
	if c.timeouts.Total <= first {
		first = c.timeouts.Total
		w.limit.Store(limitTotal)
	}
	w.end.Store(int64(first))
	// It is not set again for the silences to come. fire uses the timer: it cannot
	// be due before there is one.
	w.timer = time.AfterFunc(math.MaxInt64, w.fire)
	w.timer.Reset(min(first, w.idle))
	return w
}

// fire is what the timer does: it cancels, or sleeps until the limit that comes
// next.
func (w *watch) fire() {
	if w.stopped.Load() {
		return
	}
	now := int64(time.Since(w.start))
	next := w.end.Load()
	if now >= next {
		w.cancel(errLimit)
		return
	}
	if since := w.waits.Load(); since != 0 {
		silent := since + int64(w.idle)
		if now >= silent {
			w.limit.Store(limitIdle)
			w.cancel(errLimit)
			return
		}
		next = min(next, silent)
	} else {
		// A read that begins a moment from now must not wait for longer.
		next = min(next, now+int64(w.idle))
	}
	w.timer.Reset(time.Duration(next - now))
}

// answered ends the wait for the header: from now on the silence and the total
// count.
func (w *watch) answered(total time.Duration) {
	w.limit.Store(limitTotal)
	w.end.Store(int64(total))
}

// waiting is called before a read, working after it: a caller that is slow with
// what it got is no silence of the upstream, but the total goes on.
func (w *watch) waiting() { w.waits.Store(max(int64(time.Since(w.start)), 1)) }
func (w *watch) working() { w.waits.Store(0) }

// hurry brings the end of the attempt closer.
func (w *watch) hurry(d time.Duration) {
	now := time.Since(w.start)
	if t := int64(now + d); t < w.end.Load() {
		w.end.Store(t)
		w.timer.Reset(d)
	}
}

// stop ends the attempt and closes its connection if it is still busy.
func (w *watch) stop() {
	w.stopped.Store(true)
	w.timer.Stop()
	w.cancel(context.Canceled)
}

// failed says what an error of the transport means. answered is whether the
// header of the answer had arrived. Retriable does not know what the client has
// got already: after the first byte to it nothing is tried again.
func (w *watch) failed(err error, answered bool) error {
	if context.Cause(w.ctx) == errLimit {
		return w.timeout(err)
	}
	if cerr := w.parent.Err(); cerr != nil {
		return fmt.Errorf("upstream call given up: %w", cerr)
	}
	if answered {
		e := fault.Wrap(fault.Upstream, fmt.Errorf("%w: %w", io.ErrUnexpectedEOF, err), "the provider's answer was cut off")
		e.Status, e.Retriable = http.StatusBadGateway, true
		return e
	}
	if e, ok := errors.AsType[*fault.Error](err); ok {
		return e // egress refused the address
	}
	if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() { // of connecting: a timer of our own ends all else
		e := fault.Wrap(fault.Timeout, &unsentError{err}, "the provider could not be reached in time")
		e.Retriable = true
		return e
	}
	msg := "the provider closed the connection or sent no valid answer"
	if dialed(err) {
		msg, err = "the provider could not be reached", &unsentError{err}
	}
	e := fault.Wrap(fault.Upstream, err, "%s", msg)
	e.Status, e.Retriable = http.StatusBadGateway, true
	return e
}

func (w *watch) timeout(err error) error {
	msg := "the provider did not answer in time"
	switch w.limit.Load() {
	case limitIdle:
		msg = "the provider fell silent in the middle of its answer"
	case limitTotal:
		msg = "the provider did not finish in time"
	}
	e := fault.Wrap(fault.Timeout, err, "%s", msg)
	e.Retriable = true
	return e
}

// body is the body of an answer under its attempt's clock.
type body struct {
	rc  io.ReadCloser
	w   *watch
	err error // what the last Read ended with; later ones repeat it
}

// Read reads what is there, waiting no longer than the limits allow. One Read
// gives what one read of the connection gave.
func (b *body) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	b.w.waiting()
	n, err := b.rc.Read(p)
	switch {
	case err == nil:
		b.w.working()
		return n, nil
	case err == io.EOF:
		b.w.stopped.Store(true)
		b.w.timer.Stop()
		b.err = io.EOF
	default:
		b.err = b.w.failed(err, true)
		b.w.stop()
	}
	return n, b.err
}

// Close ends the attempt: an upstream that is still sending loses its
// connection (or its stream) at once. It is safe to call twice, and while a
// Read is waiting.
func (b *body) Close() error {
	b.w.stop()
	return b.rc.Close()
}
