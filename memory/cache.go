package memory

import (
	"context"
	"time"

	"bulkhead/tenant"
)

// Cache keeps the tails of conversations that are going on. It owns no truth: what
// it has may be gone or old at any time, and who asks compares the version. None of
// its methods waits for longer than its backend's deadline, and what fails is as if it
// were not there.
type Cache interface {
	// Get returns what was last put for a conversation of the company of s.
	Get(ctx context.Context, s tenant.Scope, id string) (t Tail, ok bool)
	// Put keeps a tail in place of the one before, for CacheTTL at most. A tail that is
	// too large is not kept, nor is the one before it.
	Put(ctx context.Context, s tenant.Scope, id string, t Tail)
	// Drop forgets a conversation.
	Drop(ctx context.Context, s tenant.Scope, id string)
	// Forget forgets all conversations of the company. After a nil error there are none.
	Forget(ctx context.Context, s tenant.Scope) error
}

// Bounds of a Cache.
const (
	CacheTTL      = 30 * time.Minute
	MaxTail       = 64 << 10  // bytes of one tail
	MaxCompany    = 256       // tails of one company
	maxLocalBytes = 256 << 20 // of all companies, in process
)

// size is what a tail takes, about.
func (t Tail) size() int64 {
	n := int64(64)
	for _, i := range t.Items {
		n += int64(len(i.Body)+len(i.ID)) + 64
	}
	return n
}
