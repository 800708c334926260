package web

import (
	"context"
	"errors"
	"sync"
	"time"
)

// Backend is a server that the gateway needs, and how to ask for it.
type Backend struct {
	// Name is the label in metrics and the name at /readyz: postgres, vault.
	Name string
	// Ask returns nil if the server is there and does what it should. ctx ends
	// after askTimeout. The error is shown at /readyz, so no secret may be in it.
	Ask func(ctx context.Context) error
	// Grace is how long it may be away before the gateway is not ready. One that
	// was never there has none.
	Grace time.Duration
}

// How often a backend is asked: while it is there, and while it is away, when
// everybody waits for it to be back. An answer may take as long as askTimeout.
const (
	askEvery   = 5 * time.Second
	askAgain   = time.Second
	askTimeout = 3 * time.Second
)

// BackendState is what is known of a backend.
type BackendState struct {
	Name string
	Err  error         // why it is away; nil if it is there
	Away time.Duration // since when
	Bad  bool          // longer than its grace, or ever
}

// Backends asks each of some backends from time to time, so that nobody who
// wants to know has to wait for one.
type Backends struct {
	all    []*watched
	change func(name string, err error) // nil: nobody is told
	cancel context.CancelFunc
	ended  sync.WaitGroup
}

// watched is a backend that is being watched.
type watched struct {
	Backend
	mu     sync.Mutex
	err    error
	since  time.Time // when it was first found to be away; zero if it is there
	asking time.Time // when it was asked what it has not answered; zero if it has
	known  bool      // whether a question has ever ended
	met    bool      // whether it was ever there
}

// errNotAsked is how a backend is before its first answer.
var errNotAsked = errors.New("it was not asked yet")

// errSilent is how a backend is that does not even end a question.
var errSilent = errors.New("it does not answer")

// WatchBackends begins to ask, until Close. change is told when one goes away,
// with the reason, and when it is back, with nil; nil tells nobody.
func WatchBackends(all []Backend, change func(name string, err error)) *Backends {
	ctx, cancel := context.WithCancel(context.Background())
	b := &Backends{change: change, cancel: cancel}
	for _, one := range all {
		w := &watched{Backend: one, err: errNotAsked, since: time.Now()}
		b.all = append(b.all, w)
		b.ended.Go(func() { b.watch(ctx, w) })
	}
	return b
}

// Close ends the asking. It may be called twice, and waits for a question that
// is under way.
func (b *Backends) Close() error {
	b.cancel()
	b.ended.Wait()
	return nil
}

func (b *Backends) watch(ctx context.Context, w *watched) {
	for {
		b.ask(ctx, w)
		pause := askEvery
		if w.state(time.Now()).Err != nil {
			pause = askAgain
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// ask asks once and writes down what came of it.
func (b *Backends) ask(ctx context.Context, w *watched) {
	asking, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	w.mu.Lock()
	w.asking = time.Now()
	w.mu.Unlock()
	err := w.Ask(asking)
	if ctx.Err() != nil {
		return // it was not the backend that ended it
	}
	w.mu.Lock()
	news := err != nil // of the first answer
	if w.known {
		news = (w.err == nil) != (err == nil)
	}
	switch {
	case err == nil:
		w.since, w.met = time.Time{}, true
	case w.since.IsZero():
		w.since = w.asking
	}
	w.err, w.asking, w.known = err, time.Time{}, true
	w.mu.Unlock()
	if news && b.change != nil {
		b.change(w.Name, err)
	}
}

func (w *watched) state(now time.Time) BackendState {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := BackendState{Name: w.Name, Err: w.err}
	since := w.since
	if s.Err == nil && !w.asking.IsZero() && now.Sub(w.asking) > 2*askTimeout {
		s.Err, since = errSilent, w.asking
	}
	if s.Err != nil {
		s.Away = now.Sub(since)
		s.Bad = s.Away >= w.Grace || !w.met
	}
	return s
}

// States returns what is known of each, in their order.
func (b *Backends) States() []BackendState {
	if b == nil {
		return nil
	}
	now := time.Now()
	all := make([]BackendState, len(b.all))
	for i, w := range b.all {
		all[i] = w.state(now)
	}
	return all
}
