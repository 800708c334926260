package limiter

import (
	"context"
	"time"

	"bulkhead/tenant"
)

// SetRedisClock gives the moment that decides about limits and periods in Redis.
// Leases and reads go by the server's own clock.
func SetRedisClock(l *Redis, now func() time.Time) {
	l.now = func() string { return text(now().UnixMicro()) }
}

// HoldScript is the name by which Redis knows the script of a Hold.
var HoldScript = scriptHold.Hash()

// RedisScripts are the sizes of the scripts in bytes.
func RedisScripts() map[string]int {
	return map[string]int{
		"hold": scriptHold.Size(), "stand": scriptStand.Size(), "begin": scriptBegin.Size(), "count": scriptCount.Size(),
		"flush": scriptFlush.Size(), "join": scriptJoin.Size(), "open": scriptOpen.Size(), "tidy": scriptTidy.Size(), "registry": scriptRegistry.Size(),
	}
}

// Kill ends a gateway as the death of its process would: nothing is told to
// anybody.
func Kill(l *Redis) {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.stop()
	l.stopped.Wait()
	l.closing.Do(func() {})
}

// Tidy drops what is idle of a company in Redis.
func Tidy(ctx context.Context, l *Redis, s tenant.Scope) error {
	o := l.enter(s.ID())
	defer l.done(o)
	return l.tidy(ctx, o, false)
}
