package web

import (
	"context"
	"errors"
	"testing"
	"time"
)

// toldAttempt counts how often an attempt is told to end.
type toldAttempt struct{ n int }

func (a *toldAttempt) Interrupt() { a.n++ }

// TestLife: a call's context is one like the standard library's, whenever it is
// asked for more than it has.
func TestLife(t *testing.T) {
	cause := errors.New("why")
	for _, early := range []bool{true, false} {
		var l life
		var ctx context.Context = &l
		if ctx.Err() != nil || context.Cause(ctx) != nil && early {
			t.Fatal("it begins ended")
		}
		if early { // derived before the end, and after it
			derived, stop := context.WithTimeout(ctx, time.Hour)
			defer stop()
			after := make(chan struct{})
			context.AfterFunc(derived, func() { close(after) })
			l.cancel(cause)
			<-derived.Done()
			<-after
			if context.Cause(derived) != cause {
				t.Error(context.Cause(derived))
			}
		}
		l.cancel(cause)
		l.cancel(errors.New("later"))
		<-ctx.Done()
		late, stop := context.WithCancel(ctx)
		defer stop()
		if ctx.Err() != context.Canceled || context.Cause(ctx) != cause || late.Err() != context.Canceled || context.Cause(late) != cause {
			t.Errorf("%v %v %v %v", ctx.Err(), context.Cause(ctx), late.Err(), context.Cause(late))
		}
		if _, limited := ctx.Deadline(); limited || ctx.Value(t) != nil {
			t.Error("it has a deadline, or a value")
		}
	}
	var plain life
	if plain.cancel(nil); context.Cause(&plain) != context.Canceled {
		t.Error(context.Cause(&plain))
	}
}

// TestLifeTells: the attempt under way is told of the end once, and no other one.
func TestLifeTells(t *testing.T) {
	var l life
	var first, second, third toldAttempt
	if !l.OnEnd(&first) || l.OnEnd(&second) {
		t.Error("one attempt can be told, and only one")
	}
	l.Off(&second) // was not told anyway
	l.Off(&first)
	if !l.OnEnd(&second) {
		t.Error("there is no room for the next attempt")
	}
	l.Off(&first)
	l.cancel(nil)
	l.cancel(nil)
	if first.n != 0 || second.n != 1 {
		t.Errorf("told %d and %d times", first.n, second.n)
	}
	if l.OnEnd(&third) {
		t.Error("one that begins after the end must find out by itself")
	}
}
