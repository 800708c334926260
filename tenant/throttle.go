package tenant

import (
	"sync"
	"time"

	"bulkhead/fault"
)

// throttle counts guesses at passwords: by account, whether it is there or not,
// and by address. It is this gateway's own; what it holds is bounded.
type throttle struct {
	mu    sync.Mutex
	tries map[string]*tries
}

type tries struct {
	n     int
	until time.Time // when they are forgotten
}

// How many guesses are answered in throttleSpan before the next must wait. Many
// people may share an address.
const (
	triesOfAccount = 10
	triesOfAddress = 100
	throttleSpan   = 15 * time.Minute
	throttleMost   = 50_000 // accounts and addresses counted at a time
)

func newThrottle() *throttle { return &throttle{tries: map[string]*tries{}} }

// begin counts one guess, before it is looked at: many at once must not be more
// than one after the other.
func (h *throttle) begin(now time.Time, account, address string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	a, b := h.of(now, "account\x00"+account), h.of(now, "address\x00"+address)
	var until time.Time
	if a.n >= triesOfAccount {
		until = a.until
	}
	if b.n >= triesOfAddress && b.until.After(until) {
		until = b.until
	}
	if !until.IsZero() {
		f := fault.New(fault.RateLimited, "Too many attempts to log in. Try again later.").WithCode("too_many_logins")
		f.RetryAfter, f.NoRetry = until.Sub(now), true
		return f
	}
	a.n++
	b.n++
	return nil
}

// right takes back a guess that was right, and the account's others with it.
func (h *throttle) right(account, address string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.tries, "account\x00"+account)
	if b := h.tries["address\x00"+address]; b != nil && b.n > 0 {
		b.n--
	}
}

func (h *throttle) of(now time.Time, name string) *tries {
	at := h.tries[name]
	if at == nil || !now.Before(at.until) {
		if at == nil {
			h.room(now)
		}
		at = &tries{until: now.Add(throttleSpan)}
		h.tries[name] = at
	}
	return at
}

// room makes room for one more. What is over goes first; else chance decides,
// so that nobody can aim at another's count.
func (h *throttle) room(now time.Time) {
	if len(h.tries) < throttleMost {
		return
	}
	looked := 0
	for name, at := range h.tries {
		if looked++; looked > 64 {
			break
		}
		if !now.Before(at.until) {
			delete(h.tries, name)
		}
	}
	dropOne(h.tries, throttleMost)
}
