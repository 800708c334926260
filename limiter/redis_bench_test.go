package limiter_test

import (
	"fmt"
	"regexp"
	"strconv"
	"testing"
	"time"

	"bulkhead/limiter"
	"bulkhead/limiter/limitertest"
	"bulkhead/redisdb"
	"bulkhead/tenant"
	"bulkhead/tenant/tenanttest"
	"bulkhead/test/servers"
)

var evalsha = regexp.MustCompile(`cmdstat_evalsha:calls=(\d+),usec=(\d+)`)

// BenchmarkRedis is one call of a company with four limits per minute and six
// budgets, from its hold to its end: time of the caller, and of the server for
// the hold and for what comes after.
func BenchmarkRedis(b *testing.B) {
	server, err := servers.Open(b.Context(), "redis")
	servers.Require(b, err)
	defer server.Close()
	c, err := redisdb.Open(server.Var("REDIS_URL"), redisdb.Options{Timeout: 5 * time.Second})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	l := limiter.OpenRedis(c, limiter.RedisOptions{Options: limiter.Options{Book: limitertest.NewLedger(), TotalConcurrent: -1, CompanyConcurrent: -1}, Heartbeat: time.Second, Patience: 5 * time.Second})
	defer l.Close()
	for l.Ready() != nil {
		<-time.After(time.Millisecond)
	}
	s := tenanttest.Scope(b, "acme")
	a := &limiter.Ask{By: by, Nano: 1000, Tokens: 100}
	for i, kind := range []string{"company", "project", "model", "key"} {
		a.Limits = append(a.Limits, tenant.Limited{Kind: kind, ID: fmt.Sprint(kind, i), Limits: tenant.Limits{RequestsPerMinute: 1 << 40, TokensPerMinute: 1 << 40, Concurrent: 1 << 40}})
	}
	for _, o := range []tenant.Budget{{Kind: tenant.OfCompany}, {Kind: tenant.OfProject, Of: by.Project}, {Kind: tenant.OfKey, Of: by.Key}} {
		for _, o.Period = range []tenant.Period{tenant.Day, tenant.Month} {
			o.Unit, o.Limit = tenant.USD, tenant.MaxBudget
			a.Budgets = append(a.Budgets, &o)
		}
	}
	spent := func() (calls, usec float64) {
		info, err := c.Do(b.Context(), "INFO", "commandstats")
		if err != nil {
			b.Fatal(err)
		}
		m := evalsha.FindStringSubmatch(info.(string))
		calls, _ = strconv.ParseFloat(m[1], 64)
		usec, _ = strconv.ParseFloat(m[2], 64)
		return calls, usec
	}
	n := 0
	hold := func() limiter.Hold {
		n++
		a.ID = "att_" + strconv.Itoa(n)
		h, _, err := l.Hold(b.Context(), s, a)
		if err != nil {
			b.Fatal(err)
		}
		return h
	}
	hold()
	holds := make([]limiter.Hold, 0, b.N)
	_, before := spent()
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		holds = append(holds, hold())
	}
	b.StopTimer()
	_, between := spent()
	ids := make([]string, 0, b.N)
	for i, h := range holds {
		h.End(limiter.Used{Nano: 500, Tokens: 50})
		ids = append(ids, "att_"+strconv.Itoa(n-i))
	}
	l.Shipped(s, ids)
	if err := l.Flush(b.Context()); err != nil {
		b.Fatal(err)
	}
	_, after := spent()
	b.ReportMetric((between-before)/float64(b.N), "server-us/hold")
	b.ReportMetric((after-between)/float64(b.N), "server-us/end")
}
