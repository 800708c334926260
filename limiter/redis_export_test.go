package limiter

import (
	"context"
	"testing"
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

// RegistryScript is the text of the script about the registry.
var RegistryScript = luaRegistry

// RedisScripts are the sizes of the scripts in bytes.
func RedisScripts() map[string]int {
	return map[string]int{
		"hold": scriptHold.Size(), "stand": scriptStand.Size(), "begin": scriptBegin.Size(), "count": scriptCount.Size(),
		"flush": scriptFlush.Size(), "join": scriptJoin.Size(), "open": scriptOpen.Size(), "tidy": scriptTidy.Size(), "swept": scriptSwept.Size(), "registry": scriptRegistry.Size(),
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

// LoseReply takes an attempt in Redis of which the gateway does not hear.
func LoseReply(t testing.TB, l *Redis, s tenant.Scope, a *Ask) {
	o := l.enter(s.ID())
	defer l.done(o)
	h := &holding{l: l, s: s, ask: a, need: needOf(a)}
	at, err := l.begin(o, a, &h.need)
	if err != nil {
		t.Fatal(err)
	}
	o.mu.Lock()
	args := h.args(o, at)
	at.state = attemptVoid
	o.mu.Unlock()
	reply, err := l.c.Run(t.Context(), scriptHold, o.keys, args)
	if r := (&reader{reply: reply}); err != nil || r.text() != "held" {
		t.Fatalf("got %v, %v", reply, err)
	}
	l.forgo(o, at)
}
