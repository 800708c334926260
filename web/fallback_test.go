package web

import (
	"strings"
	"testing"
	"time"

	"bulkhead/ledger"
	"bulkhead/provider"
	"bulkhead/tenant"
)

// TestFallback: the next target is asked after a failure that it may not share,
// each attempt is written down, and the client is told who answered.
func TestFallback(t *testing.T) {
	type attempt struct {
		outcome ledger.Outcome
		status  int
	}
	answered := attempt{ledger.Answered, 200}
	short := provider.Timeouts{Connect: time.Second, Header: 300 * time.Millisecond, Idle: 300 * time.Millisecond, Total: patience}
	f := func(first, more string, want ...attempt) {
		t.Helper()
		l := newLab(t, labOptions{timeouts: short})
		key, _ := l.company("acme", tenant.KeyLive, routeTo(first, "openai/ok"))
		a := l.chat(key, "best", more)
		if a.status != 200 || a.err != nil || !strings.Contains(a.body, "Hello") || a.header.Get("X-Bulkhead-Provider") != "openai" ||
			a.header.Get("X-Bulkhead-Model") != "ok" {
			t.Errorf("%s: %s", first, a)
		}
		if told := a.header.Get("X-Bulkhead-Attempts") == "2" || strings.Contains(a.body, " attempts=2\n"); !told {
			t.Errorf("%s: the client is not told of two attempts: %s", first, a)
		}
		got := l.booked()
		if len(got) != 2 || got[0].ID == got[1].ID || got[0].RequestID != got[1].RequestID || got[0].Requested != "best" {
			t.Fatalf("%s: booked %+v", first, got)
		}
		for i, w := range append(want, answered) {
			if got[i].Outcome != w.outcome || got[i].Status != w.status {
				t.Errorf("%s: attempt %d: booked %+v, want %v", first, i, got[i], w)
			}
		}
		if line := l.lines(1)[0]; line["attempts"] != 2.0 || line["provider"] != "openai" {
			t.Errorf("%s: logged %v", first, line)
		}
	}
	for _, more := range []string{"", streaming} {
		f("up/status-500", more, attempt{ledger.Refused, 500})
		f("up/status-429", more, attempt{ledger.Refused, 429})
		f("up/status-408", more, attempt{ledger.Refused, 408})
		f("up/status-503", more, attempt{ledger.Refused, 503})
		f("gone/ok", more, attempt{ledger.Failed, 0})
		f("up/garbage", more, attempt{ledger.Cut, 200})
		f("up/slow-header", more, attempt{ledger.Unknown, 0})
	}
	f("up/garbage-json", "", attempt{ledger.Cut, 200})
	f("up/cut", "", attempt{ledger.Cut, 200})
	f("up/silent", "", attempt{ledger.Cut, 200})
}

// TestNoFallback: what the next target would answer likewise is not sent to it,
// and after the first byte nothing is.
func TestNoFallback(t *testing.T) {
	f := func(first, more string, status int) {
		t.Helper()
		l := newLab(t, labOptions{})
		key, _ := l.company("acme", tenant.KeyLive, routeTo(first, "openai/ok"))
		if a := l.chat(key, "best", more); a.status != status {
			t.Errorf("%s: %s", first, a)
		}
		if n := len(l.up.Requests()); n != 1 || len(l.booked()) != 1 {
			t.Errorf("%s: %d calls were sent", first, n)
		}
	}
	for _, more := range []string{"", streaming} {
		f("up/status-400", more, 400)
		f("up/status-401", more, 401)
		f("up/status-403", more, 403)
		f("up/status-404", more, 404)
		f("up/status-422", more, 422)
		f("up/redirect", more, 502)
	}
	f("up/cut", streaming, 200)
	f("up/error-mid", streaming, 200)
	f("up/cut-clean", streaming, 200)
}

// TestFallbackFails: after the last one failed the client gets its error, with
// status and wait.
func TestFallbackFails(t *testing.T) {
	l := newLab(t, labOptions{})
	key, _ := l.company("acme", tenant.KeyLive, routeTo("up/status-500", "gone/ok", "openai/status-429"))
	a := l.chat(key, "best", "")
	e := a.envelope(t)
	if a.status != 429 || a.header.Get("Retry-After") != "1" || a.header.Get("Retry-After-Ms") != "1000" || e.Type != "requests" ||
		e.Message != "the upstream says Too Many Requests" || a.header.Get("X-Bulkhead-Attempts") != "3" || a.header.Get("X-Bulkhead-Provider") != "openai" {
		t.Errorf("%s", a)
	}
	if got := l.booked(); len(got) != 3 {
		t.Errorf("booked %+v", got)
	}
}

// TestFallbackLeaves: a client that has left gets no second attempt.
func TestFallbackLeaves(t *testing.T) {
	l := newLab(t, labOptions{})
	key, _ := l.company("acme", tenant.KeyLive, routeTo("up/slow-header", "openai/ok"))
	c := l.dial()
	c.send(rawChat(key, "best", ""))
	must(t, l.up.WaitRequests(1, patience))
	must(t, c.Close())
	if got := l.booked(); len(got) != 1 || got[0].Outcome != ledger.Cancelled {
		t.Errorf("booked %+v", got)
	}
	if n := len(l.up.Requests()); n != 1 {
		t.Errorf("%d calls were sent", n)
	}
}

// TestFallbackHoldsOnce: the attempts of a call take one place among those open
// at the same time, and its tokens are added up.
func TestFallbackHoldsOnce(t *testing.T) {
	l := newLab(t, labOptions{})
	key, _ := l.company("acme", tenant.KeyLive, func(c *tenant.Company) {
		routeTo("up/status-500", "openai/ok")(c)
		projectOf(c).Limits = tenant.Limits{Concurrent: 1, RequestsPerMinute: 2, TokensPerMinute: 10_000}
	})
	for i := range 2 {
		if a := l.chat(key, "best", ""); a.status != 200 || a.header.Get("X-Ratelimit-Remaining-Requests") != []string{"1", "0"}[i] {
			t.Errorf("%s", a)
		}
	}
	if a := l.chat(key, "best", ""); a.status != 429 {
		t.Errorf("%s", a)
	}
}
