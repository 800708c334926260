package limiter_test

import (
	"testing"
	"time"

	"bulkhead/fault"
	"bulkhead/ledger"
	"bulkhead/limiter"
	"bulkhead/limiter/limitertest"
	"bulkhead/tenant/tenanttest"
	"bulkhead/test/servers"
)

// A claim is that of all gateways. It ends with the lease of one that dies, stays
// when Redis loses all it had, and leaves nothing behind.
func TestRedisClaims(t *testing.T) {
	server := servers.Start(t, "redis")
	url := server.Var("REDIS_URL")
	direct := redisClient(t, url)
	s := tenanttest.Scope(t, "acme")
	key := "bh:{" + s.ID().String() + "}:claims"
	o := limiter.RedisOptions{Options: limiter.Options{Book: limitertest.NewLedger()}, Lease: 3 * time.Second}
	dies, lives := gateway(t, url, o), gateway(t, url, o)
	hold := func(l *limiter.Redis) (limiter.Hold, error) {
		h, _, err := l.Hold(t.Context(), s, &limiter.Ask{ID: ledger.NewAttemptID(), Claim: "same"})
		return h, err
	}
	claimed := func(when string, l *limiter.Redis) {
		t.Helper()
		eventually(t, "an answer "+when, func() bool { // the company may be closed at first
			_, err := hold(l)
			if err == nil || fault.As(err).Code != limiter.CodeClaimed && !fault.Is(err, fault.Unavailable) {
				t.Fatalf("%s: got %v", when, err)
			}
			return !fault.Is(err, fault.Unavailable)
		})
	}
	h, err := hold(dies)
	if err != nil {
		t.Fatal(err)
	}
	claimed("while it runs", lives)
	do(t, direct, "FLUSHALL")
	claimed("after a flush", lives)
	claimed("after a flush, at its own", dies)
	limiter.Kill(dies)
	claimed("before the lease ends", lives)
	eventually(t, "the lease ends", func() bool {
		h, err = hold(lives)
		return err == nil
	})
	if n := do(t, direct, "HLEN", key); n != int64(1) {
		t.Errorf("%v claims are kept, one runs", n)
	}
	h.End(limiter.Used{})
	if err := lives.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := do(t, direct, "EXISTS", key); n != int64(0) {
		t.Error("a claim is kept that nobody has")
	}
	// The gateway does not hear that it was admitted: the claim is free when Redis
	// has been told that nobody took it.
	limiter.LoseReply(t, lives, s, &limiter.Ask{ID: ledger.NewAttemptID(), Claim: "same"})
	if err := lives.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := hold(lives); err != nil {
		t.Error(err)
	}
}
