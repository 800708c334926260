package web

import (
	"context"
	"sync"
	"time"

	"bulkhead/provider"
)

// life is the context of a call. Nothing is derived from that of most calls, and
// nobody waits for its end: so what that takes is made when it is asked for, and
// the attempt under way is told of the end directly.
type life struct {
	mu       sync.Mutex
	ended    bool
	cause    error
	attempt  provider.Interrupter    // nil: none is under way
	derived  context.Context         // nil: nobody has asked for more than Err
	endCause context.CancelCauseFunc // of derived
}

var _ provider.Ending = (*life)(nil)

// cancel ends the call's work, for the reason that context.Cause returns; nil is
// context.Canceled. The first one counts.
func (l *life) cancel(cause error) {
	l.mu.Lock()
	if l.ended {
		l.mu.Unlock()
		return
	}
	l.ended, l.cause = true, cause
	end, attempt := l.endCause, l.attempt
	l.attempt = nil
	l.mu.Unlock()
	if end != nil {
		end(cause)
	}
	if attempt != nil {
		attempt.Interrupt()
	}
}

// Err implements context.Context.
func (l *life) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return context.Canceled
	}
	return nil
}

// std is the context of the standard library that ends with l.
func (l *life) std() context.Context {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.derived == nil {
		l.derived, l.endCause = context.WithCancelCause(context.Background())
		if l.ended {
			l.endCause(l.cause)
		}
	}
	return l.derived
}

// Done implements context.Context.
func (l *life) Done() <-chan struct{} { return l.std().Done() }

// Value implements context.Context. The standard library finds its own context by
// it: so context.Cause, and contexts that are derived, work as with any.
func (l *life) Value(key any) any { return l.std().Value(key) }

// Deadline implements context.Context: a call has none.
func (l *life) Deadline() (time.Time, bool) { return time.Time{}, false }

// OnEnd implements provider.Ending.
func (l *life) OnEnd(x provider.Interrupter) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended || l.attempt != nil {
		return false
	}
	l.attempt = x
	return true
}

// Off implements provider.Ending.
func (l *life) Off(x provider.Interrupter) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.attempt == x {
		l.attempt = nil
	}
}
