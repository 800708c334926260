package web

import (
	"context"
	"sync"

	"bulkhead/fault"
)

// load knows what is under way, by company: the bytes of request bodies, which
// are bounded in total and per company, and the calls, so that a company's can
// be ended.
type load struct {
	mu        sync.Mutex
	bytes     int64
	disk      int64 // of forms
	companies map[string]*companyLoad
	count     int
	ended     chan struct{} // closed and made anew when a call ends, while somebody waits
}

type companyLoad struct {
	bytes int64
	disk  int64
	calls int
	last  *call // to begin; call.older leads to the others
}

func newLoad() *load { return &load{companies: map[string]*companyLoad{}} }

func (l *load) of(company string) *companyLoad {
	c := l.companies[company]
	if c == nil {
		c = new(companyLoad)
		l.companies[company] = c
	}
	return c
}

// forget drops the entry of a company that has nothing under way.
func (l *load) forget(company string, c *companyLoad) {
	if c.bytes == 0 && c.disk == 0 && c.calls == 0 {
		delete(l.companies, company)
	}
}

var (
	errBodiesTotal   = fault.New(fault.Unavailable, "The gateway is receiving more request bodies than it has memory for. Try again.").WithCode("bodies_in_flight")
	errBodiesCompany = fault.New(fault.RateLimited, "Your company has too many bytes of request bodies in flight. Wait for some of its requests to end.").WithCode("bodies_in_flight")
)

// addBytes takes room for n more bytes of a body.
func (l *load) addBytes(company string, n int64, s *Settings) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.of(company)
	switch {
	case c.bytes+n > s.BodiesPerCompany:
		l.forget(company, c)
		return errBodiesCompany
	case l.bytes+n > s.BodiesTotal:
		l.forget(company, c)
		return errBodiesTotal
	}
	c.bytes += n
	l.bytes += n
	return nil
}

// giveBytes gives back room that no call has.
func (l *load) giveBytes(company string, n int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.of(company)
	c.bytes -= n
	l.bytes -= n
	l.forget(company, c)
}

// begin notes a call, so that cancel finds it.
func (l *load) begin(company string, c *call) {
	l.mu.Lock()
	defer l.mu.Unlock()
	of := l.of(company)
	if c.inLoad, c.older = true, of.last; c.older != nil {
		c.older.newer = c
	}
	of.last = c
	of.calls++
	l.count++
}

// end gives back what a call took.
func (l *load) end(company string, c *call) {
	l.mu.Lock()
	defer l.mu.Unlock()
	of := l.of(company)
	if c.inLoad {
		of.remove(c)
		l.count--
		if l.ended != nil {
			close(l.ended)
			l.ended = nil
		}
	}
	of.bytes -= c.bodyBytes
	l.bytes -= c.bodyBytes
	c.bodyBytes = 0
	l.forget(company, of)
}

func (of *companyLoad) remove(c *call) {
	if c.newer != nil {
		c.newer.older = c.older
	} else {
		of.last = c.older
	}
	if c.older != nil {
		c.older.newer = c.newer
	}
	c.inLoad, c.older, c.newer = false, nil, nil
	of.calls--
}

func (of *companyLoad) cancel() {
	for c := of.last; c != nil; c = c.older {
		c.cancel(errEnded)
	}
}

// idle waits until a company has no call under way.
func (l *load) idle(ctx context.Context, company string) error {
	return l.wait(ctx, func() bool {
		c := l.companies[company]
		return c == nil || c.calls == 0
	})
}

// allIdle waits until there is no call under way.
func (l *load) allIdle(ctx context.Context) error {
	return l.wait(ctx, func() bool { return l.count == 0 })
}

// wait waits until idle, which is asked with the lock held.
func (l *load) wait(ctx context.Context, idle func() bool) error {
	for {
		l.mu.Lock()
		if idle() {
			l.mu.Unlock()
			return nil
		}
		if l.ended == nil {
			l.ended = make(chan struct{})
		}
		ended := l.ended
		l.mu.Unlock()
		select {
		case <-ended:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// busy reports whether a company has a call under way.
func (l *load) busy(company string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.companies[company]
	return c != nil && c.calls > 0
}

func (l *load) calls() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.count
}

// errEnded is why a call was cancelled that neither its client nor its upstream
// ended.
var errEnded = fault.New(fault.Unavailable, "The gateway ended this call.").WithCode("call_ended")

// cancel ends the calls of one company.
func (l *load) cancel(company string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.companies[company]
	if c == nil {
		return 0
	}
	c.cancel()
	return c.calls
}

func (l *load) cancelAll() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.companies {
		c.cancel()
	}
	return l.count
}
