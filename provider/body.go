package provider

import (
	"context"
	"errors"
	"io"
	"math"
	"sync/atomic"
	"time"
)

// watch is the clock of an attempt that net/http makes: a timer cancels its
// context when a limit is over.
type watch struct {
	clock
	parent  context.Context
	ctx     context.Context
	cancel  context.CancelCauseFunc
	timer   *time.Timer
	stopped atomic.Bool // nothing is to be cancelled any more
	lent    lent        // the call's body
}

var errLimit = errors.New("a time limit of the upstream is over")

// watch begins an attempt, and its wait for the header of the answer.
func (c *Client) watch(ctx context.Context) *watch {
	w := &watch{parent: ctx}
	w.ctx, w.cancel = context.WithCancelCause(ctx)
	first := w.begin(&c.timeouts)
	// fire uses the timer: it cannot be due before there is one.
	w.timer = time.AfterFunc(math.MaxInt64, w.fire)
	w.timer.Reset(first)
	return w
}

// fire is what the timer does: it cancels, or sleeps until the limit that comes
// next.
func (w *watch) fire() {
	if w.stopped.Load() {
		return
	}
	wait, over := w.next()
	if over {
		w.cancel(errLimit)
		return
	}
	w.timer.Reset(wait)
}

// stop ends the attempt and closes its connection if it is still busy.
func (w *watch) stop() {
	w.stopped.Store(true)
	w.timer.Stop()
	w.cancel(context.Canceled)
	w.lent.takeBack()
}

func (w *watch) failed(err error, answered bool) error {
	return w.clock.failed(w.parent, err, context.Cause(w.ctx) == errLimit, answered)
}

// body is the body of net/http's answer under its attempt's clock.
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

func (b *body) hurry(d time.Duration) {
	if b.w.sooner(d) {
		b.w.timer.Reset(d)
	}
}
