package provider

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"bulkhead/fault"
)

// clock holds the limits of one attempt. A timer looks at it when a limit may be
// over, and sleeps on otherwise: so a read costs two stores and touches no timer.
type clock struct {
	start time.Time
	idle  time.Duration // longest silence, from waiting on

	end   atomic.Int64  // when the whole attempt is over, or its wait for a header; ns after start
	waits atomic.Int64  // since when a read has been waiting, ns after start; 0: none is
	limit atomic.Uint32 // what was over
}

// What can be over.
const (
	limitHeader uint32 = iota
	limitIdle
	limitTotal
)

// begin starts the attempt, and its wait for the header of the answer. It returns
// when a timer has to look for the first time.
func (k *clock) begin(t *Timeouts) time.Duration {
	k.start, k.idle = time.Now(), t.Idle
	first := t.Header
	if t.Total <= first {
		first = t.Total
		k.limit.Store(limitTotal)
	}
	k.end.Store(int64(first))
	// A timer is not set again for the silences to come.
	return min(first, k.idle)
}

// next reports whether a limit is over, and else when one may be.
func (k *clock) next() (wait time.Duration, over bool) {
	now := int64(time.Since(k.start))
	next := k.end.Load()
	if now >= next {
		return 0, true
	}
	if since := k.waits.Load(); since != 0 {
		silent := since + int64(k.idle)
		if now >= silent {
			k.limit.Store(limitIdle)
			return 0, true
		}
		next = min(next, silent)
	} else {
		// A read that begins a moment from now must not wait for longer.
		next = min(next, now+int64(k.idle))
	}
	return time.Duration(next - now), false
}

// left is how long the attempt may still take.
func (k *clock) left() time.Duration {
	return time.Duration(k.end.Load()) - time.Since(k.start)
}

// answered ends the wait for the header: from now on the silence and the total
// count.
func (k *clock) answered(total time.Duration) {
	k.limit.Store(limitTotal)
	k.end.Store(int64(total))
}

// waiting is called before a read, working after it: a caller that is slow with
// what it got is no silence of the upstream, but the total goes on.
func (k *clock) waiting() { k.waits.Store(max(int64(time.Since(k.start)), 1)) }
func (k *clock) working() { k.waits.Store(0) }

// sooner brings the end of the attempt closer, and reports whether it has.
func (k *clock) sooner(d time.Duration) bool {
	t := int64(time.Since(k.start) + d)
	if t >= k.end.Load() {
		return false
	}
	k.end.Store(t)
	return true
}

// failed says what an error on the way to the upstream or back means. over is
// whether a limit has ended the attempt, answered whether the header of the answer
// had arrived. Retriable does not know what the client has got already: after the
// first byte to it nothing is tried again.
func (k *clock) failed(parent context.Context, err error, over, answered bool) error {
	if over {
		return k.timeout(err)
	}
	if cerr := parent.Err(); cerr != nil {
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

func (k *clock) timeout(err error) error {
	msg := "the provider did not answer in time"
	switch k.limit.Load() {
	case limitIdle:
		msg = "the provider fell silent in the middle of its answer"
	case limitTotal:
		msg = "the provider did not finish in time"
	}
	e := fault.Wrap(fault.Timeout, err, "%s", msg)
	e.Retriable = true
	return e
}
