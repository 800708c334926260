package limiter

import (
	"context"
	"errors"
	"fmt"
	"time"

	"bulkhead/tenant"
)

// How a period is read that nobody has counted, with many gateways at once:
//
//   - A script begins the read: it sets the mark, a moment after every hold there
//     was and before every one that comes while the read may last, and lists the
//     attempts that are not known to be in the store.
//   - The Book says what it has of attempts before the mark, without those.
//   - Another script adds what it said to what the attempts say that were listed
//     or have come since, running or ended, and the period is counted.
//
// An attempt that is shipped meanwhile stays known for as long as a read may
// last, with the number of the read before which it was not in the store yet; so
// it counts once in each. See load.go for the same thing in one process.

// redisRead is one read of the Book.
type redisRead struct {
	wanted map[redisSpanKey]Span
	done   chan struct{} // closed when it is over
	err    error         // set before
}

type redisSpanKey struct {
	field    string
	from, to int64
}

// awaitCounts sees to it that periods of budgets are read, and waits.
func (l *Redis) awaitCounts(ctx context.Context, s tenant.Scope, o *redisCompany, budgets []*tenant.Budget, missing []uncounted, ends *time.Time) error {
	if l.o.Book == nil {
		return errNoBook
	}
	read, err := l.want(s, o, budgets, missing)
	if err != nil {
		return err
	}
	if ends.IsZero() {
		*ends = time.Now().Add(l.o.BookTimeout)
	}
	timer := time.NewTimer(time.Until(*ends))
	defer timer.Stop()
	select {
	case <-read.done:
		return read.err
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return errTimeout
	}
}

func (l *Redis) want(s tenant.Scope, o *redisCompany, budgets []*tenant.Budget, missing []uncounted) (*redisRead, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if time.Now().Before(o.retryRead) {
		return nil, errPause
	}
	if o.next == nil {
		o.next = &redisRead{wanted: map[redisSpanKey]Span{}, done: make(chan struct{})}
	}
	for _, m := range missing {
		if m.place < 0 || m.place >= len(budgets) {
			return nil, unexpected("count of no budget")
		}
		if len(o.next.wanted) >= maxSpans {
			return nil, errBusy
		}
		b := budgets[m.place]
		k, id := ownerOf(b)
		span := Span{Kind: ownerKinds[k], Of: id}
		if m.to != redisForever {
			span.From, span.To = moment(m.from), moment(m.to)
		}
		o.next.wanted[redisSpanKey{ownerField(b), m.from, m.to}] = span
	}
	read := o.next
	if !o.busy {
		o.busy = true
		go l.keepReading(s, o) // ends with the Book's time
	}
	return read, nil
}

// keepReading reads for a company until nothing more is wanted.
func (l *Redis) keepReading(s tenant.Scope, o *redisCompany) {
	for {
		o.mu.Lock()
		read := o.next
		if o.next = nil; read == nil {
			o.busy = false
			o.mu.Unlock()
			return
		}
		o.mu.Unlock()
		read.err = l.read(s, o, read)
		l.counters.reads.Add(1)
		if read.err != nil && read.err != errNotOpen {
			l.counters.failedReads.Add(1)
			o.mu.Lock()
			o.retryRead = time.Now().Add(time.Duration(readPause))
			o.mu.Unlock()
		}
		close(read.done)
	}
}

// read reads once, and again if that came too late.
func (l *Redis) read(s tenant.Scope, o *redisCompany, read *redisRead) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the Book panicked: %v", p)
		}
	}()
	ctx, cancel := context.WithTimeout(context.Background(), l.o.BookTimeout)
	defer cancel()
	select {
	case l.reading <- struct{}{}:
		defer func() { <-l.reading }()
	case <-ctx.Done():
		return ctx.Err()
	}
	var (
		keys  []redisSpanKey
		spans []Span
	)
	for k, span := range read.wanted {
		keys, spans = append(keys, k), append(spans, span)
	}
	for range 5 {
		if again, err := l.readOnce(ctx, s, o, keys, spans); !again {
			return err
		}
	}
	return errTries
}

func (l *Redis) readOnce(ctx context.Context, s tenant.Scope, o *redisCompany, keys []redisSpanKey, spans []Span) (again bool, err error) {
	o.mu.Lock()
	epoch := o.believed()
	o.mu.Unlock()
	reply, err := l.runLong(ctx, scriptBegin, o, l.head(epoch))
	if err != nil {
		return false, err
	}
	r := &reader{reply: reply}
	if what := r.text(); what != "read" {
		return false, l.notOpen(what)
	}
	epoch = r.text()
	number, round, began, mark := r.int(), r.int(), r.int(), r.int()
	except := r.texts()
	if r.bad != nil {
		return false, r.bad
	}
	used, err := l.o.Book.Spent(ctx, s, spans, moment(mark), except)
	if err == nil && len(used) != len(spans) {
		err = fmt.Errorf("the Book answered %d spans of %d", len(used), len(spans))
	}
	if err != nil {
		return false, err
	}
	args := append(l.head(epoch), text(number), text(round), text(began), text(int64(l.o.MaxWindowsPerCompany)))
	for i, k := range keys {
		u := used[i]
		args = append(args, k.field, text(k.from), text(k.to), amountText(u.Nano), amountText(u.Tokens), amountText(u.Requests))
	}
	for hard := false; ; hard = true {
		if reply, err = l.runLong(ctx, scriptCount, o, args); err != nil {
			return false, err
		}
		r := &reader{reply: reply}
		switch what := r.text(); {
		case what == "ok":
			return false, nil
		case what == "late":
			return true, nil
		case what == "many" && !hard:
			if err := l.tidy(ctx, o, true); err != nil {
				return false, err
			}
		case what == "many":
			return false, errShare
		default:
			return false, l.notOpen(what)
		}
	}
}

// errNotOpen says that who waits for a read has to look at the company again.
var errNotOpen = errors.New("the company is closed")

// notOpen is why a script about a read was not run. It does not fail the read:
// whoever wanted it asks Redis again and sees to it.
func (l *Redis) notOpen(what string) error {
	if what == "closed" || what == "join" {
		return errNotOpen
	}
	return unexpected(what)
}

func amountText(n int64) string { return text(min(max(n, 0), largest)) }
