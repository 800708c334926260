package audit

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"bulkhead/tenant"
	"bulkhead/tenant/tenanttest"
)

// sink keeps what it is given.
type sink struct {
	mu    sync.Mutex
	rows  map[tenant.ID][]Event
	known []string
	err   map[tenant.ID]error // of a company; of all with the zero ID
	calls int
}

func (s *sink) AppendAudit(_ context.Context, company tenant.ID, rows []Event) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
	if err := errors.Join(s.err[company], s.err[tenant.ID{}]); err != nil {
		return err
	}
	if s.rows == nil {
		s.rows = map[tenant.ID][]Event{}
	}
	s.rows[company] = append(s.rows[company], rows...)
	return nil
}

func (s *sink) KnownKeys(_ context.Context, _ tenant.ID, ids []string) (known []string, err error) {
	for _, id := range ids {
		if slices.Contains(s.known, id) {
			known = append(known, id)
		}
	}
	return known, nil
}

func (s *sink) called() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls
}

// held returns how many rows and companies a Tally counts.
func held(t *Tally) (rows, companies int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.counts), len(t.companies)
}

// take returns the rows of a company as text, and forgets them.
func (s *sink) take(company tenant.ID) (out []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.rows[company] {
		out = append(out, fmt.Sprintf("%s %s %s %s x%d %s", e.Type, e.Actor, e.ProjectID, e.Object, e.Count, e.Detail))
	}
	delete(s.rows, company)
	return out
}

func (s *sink) fail(company tenant.ID, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.err = map[tenant.ID]error{}
	}
	s.err[company] = err
}

func same(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s:\n%s\nwant\n%s", what, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// bubble runs fn with a Tally in a bubble that begins at a full minute.
func bubble(t *testing.T, o TallyOptions, fn func(t *testing.T, tally *Tally, s *sink, company func(name string) Caller)) {
	world := tenanttest.New(t, tenant.Options{})
	callers := map[string]Caller{}
	for _, name := range []string{"acme", "beta", "gamma", "delta"} {
		_, scope := world.Company(name, tenant.KeyLive, nil)
		callers[name] = Proved(scope)
	}
	synctest.Test(t, func(t *testing.T) {
		s := &sink{}
		tally := NewTally(s, o)
		fn(t, tally, s, func(name string) Caller {
			c := callers[name]
			c.KeyID, c.Project = "key_"+name, "proj_"+name
			return c
		})
		if err := tally.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func minute(t time.Time) string { return fmt.Sprint(t.Truncate(time.Minute).Unix()) }

// wait lets time go by and everything happen that was to happen until then.
func wait(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func TestTally(t *testing.T) {
	bubble(t, TallyOptions{}, func(t *testing.T, tally *Tally, s *sink, company func(string) Caller) {
		acme, beta := company("acme"), company("beta")
		first := minute(time.Now())
		for range 3 {
			tally.Denied(acme, "POST /chat", "model_not_found")
		}
		tally.Denied(acme, "POST /chat", "forbidden")
		tally.Denied(acme, "GET /models", "forbidden")
		tally.Read(acme, "audit_log")
		tally.Denied(beta, "POST /chat", "forbidden")
		wait(50 * time.Second)
		if s.called() != 0 {
			t.Error("a minute was written that was not over")
		}
		wait(15 * time.Second)
		same(t, "acme", s.take(acme.Company),
			`access.denied key:key_acme proj_acme GET /models x1 {"minute":`+first+`,"codes":{"forbidden":1}}`,
			`access.denied key:key_acme proj_acme POST /chat x4 {"minute":`+first+`,"codes":{"forbidden":1,"model_not_found":3}}`,
			`content.read key:key_acme proj_acme audit_log x1 {"minute":`+first+`}`)
		same(t, "beta", s.take(beta.Company), `access.denied key:key_beta proj_beta POST /chat x1 {"minute":`+first+`,"codes":{"forbidden":1}}`)

		// Another minute, another row.
		second := minute(time.Now())
		tally.Denied(acme, "POST /chat", "forbidden")
		wait(time.Minute)
		third := minute(time.Now())
		tally.Denied(acme, "POST /chat", "forbidden")
		wait(10 * time.Second)
		same(t, "the minute before", s.take(acme.Company), `access.denied key:key_acme proj_acme POST /chat x1 {"minute":`+second+`,"codes":{"forbidden":1}}`)
		if err := tally.Close(t.Context()); err != nil { // writes what is not over yet
			t.Error(err)
		}
		same(t, "at the end", s.take(acme.Company), `access.denied key:key_acme proj_acme POST /chat x1 {"minute":`+third+`,"codes":{"forbidden":1}}`)
		tally.Denied(acme, "POST /chat", "forbidden")
		if st := tally.Stats(); st != (TallyStats{Written: 6, Lost: 1}) {
			t.Errorf("%+v", st)
		}
	})
}

// TestTallyClaims: keys that are only named are told by name if they are the
// company's, and together if nobody ever had them.
// TestTallyLogins counts passwords that were wrong: whose they were not, and never
// who tried.
func TestTallyLogins(t *testing.T) {
	bubble(t, TallyOptions{}, func(t *testing.T, tally *Tally, s *sink, company func(string) Caller) {
		acme := company("acme").Company
		for range 3 {
			tally.LoginFailed(acme, "user_a")
		}
		tally.LoginFailed(acme, "")
		wait(2 * time.Minute)
		s.mu.Lock()
		defer s.mu.Unlock()
		if rows := s.rows[acme]; len(rows) != 2 || rows[0].Type != LoginFailed || rows[0].Actor != Unknown || rows[0].Object != "" || rows[0].Count != 1 ||
			rows[1].Object != "user_a" || rows[1].Count != 3 {
			t.Errorf("rows %+v", rows)
		}
	})
}

func TestTallyClaims(t *testing.T) {
	bubble(t, TallyOptions{Unproved: 4}, func(t *testing.T, tally *Tally, s *sink, company func(string) Caller) {
		s.known = []string{"key_revoked"}
		claim := func(id string) Caller { return Caller{Company: company("acme").Company, KeyID: id} }
		tally.Denied(company("acme"), "GET /", "forbidden") // proved, in the same company
		for _, id := range []string{"key_revoked", "key_made", "key_up"} {
			tally.Denied(claim(id), "GET /", "invalid_api_key")
		}
		for i := range 100 {
			tally.Denied(claim(fmt.Sprint("key_", i)), "GET /", "invalid_api_key")
		}
		m := minute(time.Now())
		wait(65 * time.Second)
		same(t, "rows", s.take(company("acme").Company),
			`access.denied claimed:key_revoked  GET / x1 {"minute":`+m+`,"codes":{"invalid_api_key":1}}`,
			`access.denied key:key_acme proj_acme GET / x1 {"minute":`+m+`,"codes":{"forbidden":1}}`,
			`access.denied unknown  * x99 {"minute":`+m+`,"codes":{"invalid_api_key":99}}`,
			`access.denied unknown  GET / x3 {"minute":`+m+`,"codes":{"invalid_api_key":3}}`)
	})
}

// TestTallyBounds: a company that floods has its share and no more, nothing is
// lost of the number, and another company is told as ever.
func TestTallyBounds(t *testing.T) {
	bubble(t, TallyOptions{PerCompany: 10, Total: 15}, func(t *testing.T, tally *Tally, s *sink, company func(string) Caller) {
		const flood = 1000
		acme := company("acme")
		for i := range flood {
			c := acme
			c.KeyID = fmt.Sprint("key_", i)
			tally.Denied(c, "GET /", "forbidden")
		}
		for i := range 5 {
			tally.Denied(company("beta"), fmt.Sprint("GET /", i), fmt.Sprint("code ", i))
		}
		// All places are taken: who comes first now finds none.
		tally.Denied(company("gamma"), "GET /", "forbidden")
		if n, _ := held(tally); n > 16 {
			t.Errorf("%d rows are counted", n)
		}
		wait(65 * time.Second)
		rows := s.take(acme.Company)
		if len(rows) != 11 || !strings.Contains(strings.Join(rows, "\n"), fmt.Sprintf("unknown  * x%d ", flood-10)) {
			t.Errorf("%d rows: %q", len(rows), rows)
		}
		if rows := s.take(company("beta").Company); len(rows) != 5 {
			t.Errorf("of beta: %q", rows)
		}
		if rows, companies := held(tally); rows != 0 || companies != 0 {
			t.Errorf("%d counts of %d companies are left", rows, companies)
		}
		// The reasons are bounded too.
		for i := range 100 {
			tally.Denied(acme, "GET /", fmt.Sprint("code ", i))
		}
		wait(65 * time.Second)
		if rows := s.take(acme.Company); len(rows) != 1 || strings.Count(rows[0], `"code `) != maxCodes || !strings.Contains(rows[0], `"*":84`) {
			t.Errorf("%q", rows)
		}
	})
}

// TestTallyAway: while the store is away counts wait, bounded, and are written
// once it is back. A company that is refused holds up no other.
func TestTallyAway(t *testing.T) {
	said := make(chan bool, 10)
	o := TallyOptions{Failed: func(err error) { said <- err != nil }, PerCompany: 4}
	bubble(t, o, func(t *testing.T, tally *Tally, s *sink, company func(string) Caller) {
		acme, beta := company("acme"), company("beta")
		s.fail(tenant.ID{}, errors.New("away"))
		for range 20 { // minutes
			tally.Denied(acme, "GET /", "forbidden")
			wait(time.Minute)
		}
		if n, _ := held(tally); n > 8 {
			t.Errorf("%d rows wait", n)
		}
		lost := tally.Stats().Lost
		s.fail(tenant.ID{}, nil)
		wait(10 * time.Second)
		if rows := s.take(acme.Company); len(rows) != 8 || lost != 12 {
			t.Errorf("%d rows after the return, %d lost of 20", len(rows), lost)
		}
		if len(said) != 2 || !<-said || <-said {
			t.Error("the store's going away and coming back were not told, once each")
		}

		s.fail(acme.Company, errors.New("the chain is broken"))
		tally.Denied(acme, "GET /", "forbidden")
		tally.Denied(beta, "GET /", "forbidden")
		wait(65 * time.Second)
		if a, b := s.take(acme.Company), s.take(beta.Company); len(a) != 0 || len(b) != 1 {
			t.Errorf("rows %q, %q", a, b)
		}
		// A company that is gone is forgotten.
		s.fail(acme.Company, tenant.ErrNotFound)
		wait(10 * time.Second)
		if n, _ := held(tally); n != 0 {
			t.Errorf("%d counts are left", n)
		}
	})
}

// TestTallyClock: a clock that goes back counts in a minute that is being
// written. Nothing is counted twice or dropped.
func TestTallyClock(t *testing.T) {
	bubble(t, TallyOptions{}, func(t *testing.T, tally *Tally, s *sink, company func(string) Caller) {
		acme := company("acme")
		tally.Denied(acme, "GET /", "forbidden")
		var slots []slot
		for _, found := range tally.due(1 << 62) {
			slots = append(slots, found...)
		}
		taken := tally.take(slots)
		tally.Denied(acme, "GET /", "other")
		tally.drop(acme.Company, taken, true)
		tally.mu.Lock()
		defer tally.mu.Unlock()
		if n := len(tally.counts); n != 1 {
			t.Fatalf("%d counts", n)
		}
		for _, at := range tally.counts {
			if at.n != 1 || len(at.codes) != 1 || at.codes["other"] != 1 {
				t.Errorf("%+v", at)
			}
		}
	})
}

func TestNoTally(t *testing.T) {
	var tally *Tally
	tally.Denied(Caller{}, "GET /", "forbidden")
	tally.Read(Caller{}, "audit_log")
	if tally.Stats() != (TallyStats{}) {
		t.Error("a Tally that is not there has counted")
	}
}
