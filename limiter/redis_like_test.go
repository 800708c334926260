package limiter_test

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"bulkhead/limiter"
	"bulkhead/limiter/limitertest"
	"bulkhead/tenant"
	"bulkhead/tenant/tenanttest"
	"bulkhead/test/servers"
)

// The arithmetic of limits per minute is done twice, in Go and in Lua: in any
// history both decide the same and say the same, to the microsecond. (Limits stay
// as they are in it: a refusal under another limit leaves no mark in Redis.)
func TestRedisLikeLocal(t *testing.T) {
	server := servers.Start(t, "redis")
	clock := limitertest.NewClock(time.Unix(1_700_000_000, 0))
	o := limiter.Options{Now: clock.Now, TotalConcurrent: -1, CompanyConcurrent: -1}
	shared := gateway(t, server.Var("REDIS_URL"), limiter.RedisOptions{Options: o})
	limiter.SetRedisClock(shared, clock.Now)
	decided := map[string]int{}
	rapid.Check(t, func(rt *rapid.T) {
		local, s := limiter.NewLocal(o), tenanttest.Scope(t, "acme")
		int := func(name string, from, to int64) int64 { return rapid.Int64Range(from, to).Draw(rt, name) }
		limit := func(name string) int64 {
			return rapid.SampledFrom([]int64{0, 0, 1, 3, 7, 60, 1000, 599_999_999, 1 << 42, 1 << 50}).Draw(rt, name)
		}
		var keys [3]tenant.Limits
		for i := range keys {
			keys[i] = tenant.Limits{RequestsPerMinute: limit("requests"), TokensPerMinute: limit("tokens"), Concurrent: limit("calls")}
		}
		var open [][2]limiter.Hold
		defer func() {
			for _, h := range open {
				h[1].End(limiter.Used{})
			}
		}()
		for range int("steps", 1, 60) {
			clock.Pass(time.Duration(rapid.SampledFrom([]int64{0, 1, 999, 33_333, 1_000_000, 7_777_777, 59_999_999, 60_000_000, 125_000_000}).Draw(rt, "passed")) * time.Microsecond)
			if n := int64(len(open)); n > 0 && rapid.Bool().Draw(rt, "end") {
				i := int("which", 0, n-1)
				used := limiter.Used{Tokens: rapid.SampledFrom([]int64{0, 1, 5, 600, 1 << 41, 1 << 62}).Draw(rt, "used")}
				how := int("how", 0, 2)
				for _, h := range open[i] {
					switch how {
					case 0:
						h.Settle(used)
					case 1:
						h.Release()
					default:
						h.End(used)
					}
				}
				if err := shared.Flush(t.Context()); err != nil {
					rt.Fatal(err)
				}
				continue
			}
			a := &limiter.Ask{Tokens: rapid.SampledFrom([]int64{-1, 0, 1, 5, 600, 1 << 41, 1 << 62}).Draw(rt, "tokens"), Again: rapid.Bool().Draw(rt, "again")}
			for i := range int("limits", 0, 3) {
				a.Limits = append(a.Limits, tenant.Limited{Kind: "key", ID: fmt.Sprint("key_", i), Limits: keys[i]})
			}
			h1, st1, err1 := local.Hold(t.Context(), s, a)
			h2, st2, err2 := shared.Hold(t.Context(), s, a)
			if fmt.Sprint(err1) != fmt.Sprint(err2) {
				rt.Fatalf("in process: %v\nin Redis: %v", err1, err2)
			}
			if st1 != st2 {
				rt.Fatalf("in process: %+v\nin Redis: %+v", st1, st2)
			}
			if err1 == nil {
				open = append(open, [2]limiter.Hold{h1, h2})
				decided["admitted"]++
			} else {
				decided["refused"]++
			}
		}
	})
	if decided["admitted"] < 100 || decided["refused"] < 100 {
		t.Errorf("the test shows little: %v", decided)
	}
}
