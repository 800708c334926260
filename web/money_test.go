package web

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"bulkhead/ledger"
	"bulkhead/limiter"
	"bulkhead/openai"
	"bulkhead/provider"
	"bulkhead/tenant"
)

// moneyStore keeps entries as the real store does, and says what was spent.
type moneyStore struct {
	mu   sync.Mutex
	rows map[string]ledger.Booked // by attempt
}

func (s *moneyStore) AppendEntries(_ context.Context, batch []ledger.Booked) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.rows == nil {
		s.rows = map[string]ledger.Booked{}
	}
	for _, b := range batch {
		if old, there := s.rows[b.Entry.ID]; !there || old.Entry.Rank < b.Entry.Rank {
			s.rows[b.Entry.ID] = b
		}
	}
	return nil
}

// Spent implements limiter.Book.
func (s *moneyStore) Has(_ context.Context, scope tenant.Scope, ids []string) (has []string, err error) {
	for _, e := range s.all(scope) {
		if slices.Contains(ids, e.ID) {
			has = append(has, e.ID)
		}
	}
	return has, nil
}

func (s *moneyStore) Spent(_ context.Context, scope tenant.Scope, spans []limiter.Span, before time.Time, except []string) ([]limiter.Used, error) {
	all := make([]limiter.Used, len(spans))
	for _, e := range s.all(scope) {
		if slices.Contains(except, e.ID) || !e.StartedAt.Before(before) {
			continue
		}
		by := limiter.By{Project: e.ProjectID, Key: e.KeyID, Agent: e.AgentID, User: e.UserID, Lent: e.Lent}
		for i, p := range spans {
			if by.Has(&tenant.Budget{Kind: p.Kind, Of: p.Of}) && !e.StartedAt.Before(p.From) && (p.To.IsZero() || e.StartedAt.Before(p.To)) {
				all[i].Nano += e.CostNano
				all[i].Tokens += e.Usage.Input + e.Usage.Output
				if e.First {
					all[i].Requests++
				}
			}
		}
	}
	return all, nil
}

// all returns the entries of a company, by their time.
func (s *moneyStore) all(scope tenant.Scope) (out []ledger.Entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range s.rows {
		if b.Scope.ID() == scope.ID() {
			out = append(out, b.Entry)
		}
	}
	slices.SortFunc(out, func(a, b ledger.Entry) int {
		return strings.Compare(a.StartedAt.String()+a.ID, b.StartedAt.String()+b.ID)
	})
	return out
}

// moneyLab is a lab that counts budgets, with a clock for their periods.
type moneyLab struct {
	*lab
	store *moneyStore
	clock atomic.Int64 // what is added to the clock of periods, ns
}

func newMoneyLab(t testing.TB, o labOptions) *moneyLab {
	t.Helper()
	m := &moneyLab{store: &moneyStore{}}
	o.store, o.limits = m.store, limiter.Options{Book: m.store, Now: m.now}
	m.lab = newLab(t, o)
	return m
}

func (m *moneyLab) now() time.Time { return time.Now().Add(time.Duration(m.clock.Load())) }

// usdFor is a strict budget of the whole company.
func usdFor(nano int64, p tenant.Period) *tenant.Budget {
	return &tenant.Budget{ID: "budget_1", Kind: tenant.OfCompany, Unit: tenant.USD, Period: p, Limit: nano, Calendar: &tenant.Calendar{}}
}

// buyer makes a company with a budget.
func (m *moneyLab) buyer(b *tenant.Budget, edit func(*tenant.Company)) (key string, s tenant.Scope) {
	m.t.Helper()
	return m.company("buyer", tenant.KeyLive, func(c *tenant.Company) {
		c.Budgets = []*tenant.Budget{b}
		if edit != nil {
			edit(c)
		}
	})
}

// paid settles and returns the entries of a company.
func (m *moneyLab) paid(s tenant.Scope) []ledger.Entry {
	m.t.Helper()
	m.settle()
	must(m.t, m.book.Flush(m.t.Context()))
	return m.store.all(s)
}

// stands checks where a budget stands, as this gateway counts it and as one does
// that has only the store.
func (m *moneyLab) stands(s tenant.Scope, b *tenant.Budget, spent int64) {
	m.t.Helper()
	m.paid(s)
	for who, l := range map[string]*limiter.Local{"it": m.limiter, "the next one": limiter.NewLocal(limiter.Options{Book: m.store, Now: m.now})} {
		st, err := l.Standing(m.t.Context(), s, []*tenant.Budget{b})
		must(m.t, err)
		if st[0].Spent != spent || st[0].Held != 0 {
			m.t.Errorf("%s counts %d spent and %d held, want %d and nothing", who, st[0].Spent, st[0].Held, spent)
		}
	}
}

// Prices of openai/gpt-4o in the table, in nano-USD for 1,000 tokens, and of its
// priority tier: any may be billed where the request does not say.
const (
	inMilli, outMilli         = 2_500_000, 10_000_000
	dearInMilli, dearOutMilli = 4_250_000, 17_000_000
)

// nano4o is what gpt-4o costs.
func nano4o(in, out int64) int64 { return (in*inMilli + out*outMilli + 999) / 1000 }

// most4o is what is held for it.
func most4o(in, out int64) int64 { return (in*dearInMilli + out*dearOutMilli + 999) / 1000 }

// TestClamp: where a budget has room for less than the worst case but for a
// useful answer, the provider is told so in the field that it knows, and the
// client in a header.
func TestClamp(t *testing.T) {
	for _, more := range []string{"", `,"max_tokens":900`, `,"max_completion_tokens":900`} {
		for _, stream := range []string{"", streaming} {
			for _, output := range []int64{ledger.UsefulOutput - 1, ledger.UsefulOutput, 333} {
				clamped(t, more, stream, output)
			}
		}
	}
}

func clamped(t *testing.T, more, stream string, output int64) {
	t.Helper()
	probe := newMoneyLab(t, labOptions{})
	key, s := probe.buyer(usdFor(1e12, tenant.Total), nil)
	if a := probe.chat(key, "openai/gpt-4o", more+stream); a.status != 200 || a.header.Get("X-Bulkhead-Max-Output-Tokens") != "" {
		t.Fatalf("%s", a)
	} else if left := a.header.Get("X-Bulkhead-Budget-Remaining-Usd"); stream == "" && left != ledger.FormatUSD(1e12-nano4o(10, 4)) {
		t.Errorf("%s USD are said to be left", left)
	} else if stream != "" && !strings.Contains(a.body, "attempts=1 budget_remaining_usd="+ledger.FormatUSD(1e12-nano4o(10, 4))+"\n\ndata: [DONE]") {
		t.Errorf("the end of the stream is %s", a.body[len(a.body)-150:])
	}
	if e := probe.paid(s)[0]; e.Marks&ledger.Clamped != 0 || e.Rank != ledger.Final || e.CostNano != nano4o(10, 4) {
		t.Errorf("booked %+v", e)
	}
	l := newMoneyLab(t, labOptions{})
	budget := usdFor(most4o(inBound(t, chatBody("gpt-4o", "")), output), tenant.Total)
	key, s = l.buyer(budget, nil)
	a := l.chat(key, "openai/gpt-4o", more+stream)
	what := fmt.Sprintf("%s%s with room for %d", more, stream, output)
	if output < ledger.UsefulOutput {
		if e := a.envelope(t); a.status != 429 || e.Type != "insufficient_quota" || e.Code != "insufficient_quota" || a.header.Get("X-Should-Retry") != "false" || len(l.up.Requests()) != 0 {
			t.Errorf("%s: %s", what, a)
		}
		l.stands(s, budget, 0)
		return
	}
	if a.status != 200 || a.header.Get("X-Bulkhead-Max-Output-Tokens") != fmt.Sprint(output) {
		t.Fatalf("%s: %s", what, a)
	}
	field := "max_completion_tokens"
	if strings.Contains(more, "max_tokens") {
		field = "max_tokens"
	}
	var sent map[string]json.RawMessage
	must(t, json.Unmarshal(l.up.Requests()[0].Body, &sent))
	other := map[string]string{"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}[field]
	if string(sent[field]) != fmt.Sprint(output) || sent[other] != nil {
		t.Errorf("%s: sent %s", what, l.up.Requests()[0].Body)
	}
	if e := l.paid(s)[0]; e.Marks&ledger.Clamped == 0 || e.Rank != ledger.Final {
		t.Errorf("%s: booked %+v", what, e)
	}
	l.stands(s, budget, nano4o(10, 4))
}

// inBound is the strict bound of the input of a chat call at OpenAI.
func inBound(t testing.TB, body string) int64 {
	t.Helper()
	var r openai.Request
	must(t, r.Scan(openai.Chat, []byte(body)))
	b, err := provider.Builtin()["openai"].Bound(&r, provider.BoundRules{Strict: true, Model: "gpt-4o", MaxInput: 128_000, MaxOutput: 16_384})
	must(t, err)
	return b.Input
}

// TestUntouched: without a budget of money the provider is sent what the client
// wrote, byte by byte, but for the model's own name.
func TestUntouched(t *testing.T) {
	f := func(body string, budgets ...*tenant.Budget) {
		t.Helper()
		l := newMoneyLab(t, labOptions{})
		key, _ := l.company("free", tenant.KeyLive, func(c *tenant.Company) { c.Budgets = budgets })
		if a := l.do("POST", key, "/v1/chat/completions", body); a.status != 200 {
			t.Fatalf("%s", a)
		}
		if got, want := string(l.up.Requests()[0].Body), strings.Replace(body, "openai/gpt-4o", "gpt-4o", 1); got != want {
			t.Errorf("sent\n%s\nwant\n%s", got, want)
		}
	}
	calls := usdFor(100, tenant.Day)
	calls.Unit = tenant.Requests
	for _, body := range []string{
		`{ "model" : "openai/gpt-4o" ,"messages":[ {"role":"user","content":"h\u00e9llo"}], "temperature":1.0e0 }`,
		`{"max_tokens":  900,"model":"openai/gpt-4o","messages":[{"role":"user","content":"x"}],"n":2}`,
		`{"max_completion_tokens" :7 ,"stream":true,"stream_options":{"include_usage":true},"model":"openai/gpt-4o","messages":[{"role":"user","content":"x"}]}`,
	} {
		f(body)
		f(body, calls)
	}
}

// TestTestKeyCost: a call with a test key reaches no provider, so it takes nothing of a
// budget of money, and none is in its way; one of calls counts it.
func TestTestKeyCost(t *testing.T) {
	l := newMoneyLab(t, labOptions{})
	money, calls := usdFor(1, tenant.Total), usdFor(2, tenant.Total)
	calls.Unit = tenant.Requests
	key, s := l.company("acme", tenant.KeyTest, func(c *tenant.Company) { c.Budgets = []*tenant.Budget{money, calls} })
	for _, more := range []string{"", streaming} {
		if a := l.chat(key, "openai/gpt-4o", more); a.status != 200 || more == "" && a.header.Get("X-Bulkhead-Cost-Usd") != "0" {
			t.Errorf("%s", a)
		}
	}
	if a := l.chat(key, "openai/gpt-4o", ""); a.status != 429 || a.envelope(t).Code != "insufficient_quota" {
		t.Errorf("a third call of two: %s", a)
	}
	for _, e := range l.paid(s) {
		if e.CostNano != 0 || e.HighNano != 0 || !e.Priced || e.Rank != ledger.Final || e.Usage.Output == 0 {
			t.Errorf("booked %+v", e)
		}
	}
	l.stands(s, money, 0)
	if n := len(l.up.Requests()); n != 0 {
		t.Errorf("%d calls reached a provider", n)
	}
}
