package web

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"bulkhead/keystore"
	"bulkhead/ledger"
	"bulkhead/limiter"
	"bulkhead/provider"
	"bulkhead/tenant"
	"bulkhead/test/upstream"
)

// writes makes the model answer text, in pieces of some bytes where it streams,
// and then end, which is told when all of it is out.
func writes(l *lab, model, text string, piece int, end func(*upstream.Call)) {
	l.up.Handle(model, func(c *upstream.Call) {
		c.StartStream()
		for _, part := range pieces(text, piece) {
			content, err := json.Marshal(part)
			if err != nil || !c.Event(fmt.Appendf(nil, `{"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":%s},"finish_reason":null}]}`, content)) {
				return
			}
		}
		end(c)
	})
}

// pieces cuts text into pieces of at least size bytes, not within a character.
func pieces(text string, size int) (all []string) {
	for text != "" {
		n := min(size, len(text))
		for n < len(text) && !utf8.RuneStart(text[n]) {
			n++
		}
		all, text = append(all, text[:n]), text[n:]
	}
	return all
}

// TestAborted: what a client has seen of a stream that ends early is booked, by
// the model's own tokenizer, and the bill is within what the entry says.
func TestAborted(t *testing.T) {
	english := strings.Repeat("The quick brown fox jumps over the lazy dog, and nobody minds that much. ", 20)
	code := strings.Repeat("func (s *Server) Close() error {\n\tif err := s.ln.Close(); err != nil {\n\t\treturn err\n\t}\n}\n", 12)
	chinese := strings.Repeat("快速的棕色狐狸跳过了懒狗，没有人介意。", 30)
	f := func(what, text string, piece int, cut bool) {
		t.Helper()
		l := newMoneyLab(t, labOptions{})
		budget := usdFor(1e12, tenant.Total)
		key, s := l.buyer(budget, nil)
		writes(l.lab, "gpt-4o", text, piece, func(c *upstream.Call) {
			if cut {
				c.Abort()
			}
			c.WaitGone()
		})
		ctx, leave := context.WithCancel(t.Context())
		defer leave()
		resp, err := l.open(ctx, "POST", key, "/v1/chat/completions", chatBody("openai/gpt-4o", streaming))
		must(t, err)
		defer resp.Body.Close()
		if cut {
			_, _ = io.ReadAll(resp.Body)
		} else {
			readEvents(t, resp.Body, len(pieces(text, piece)))
			leave()
		}
		got := l.paid(s)
		if len(got) != 1 {
			t.Fatalf("%s: booked %+v", what, got)
		}
		e, want := got[0], ledger.Cancelled
		if cut {
			want = ledger.Cut
		}
		tokens, ok := provider.CountTokens("gpt-4o", text)
		if !ok {
			t.Fatal("the tokenizer of gpt-4o is not known")
		}
		if off := math.Abs(float64(e.Usage.Output-tokens)) / float64(tokens); off > 0.02 {
			t.Errorf("%s: booked %d tokens of output, the text has %d: %.1f %% off", what, e.Usage.Output, tokens, 100*off)
		}
		if e.Outcome != want || e.Rank != ledger.Estimate || e.Marks&(ledger.Tokenized|ledger.NoUsage) != ledger.Tokenized|ledger.NoUsage {
			t.Errorf("%s: booked %+v", what, e)
		}
		for _, input := range []int64{10, e.Usage.Input, inBound(t, chatBody("gpt-4o", ""))} {
			if bill := nano4o(input, tokens); bill > e.HighNano || input == e.Usage.Input && bill < e.LowNano {
				t.Errorf("%s: the bill for %d in is %d, booked as %d to %d", what, input, bill, e.LowNano, e.HighNano)
			}
		}
		if e.LowNano > e.CostNano || e.CostNano > e.HighNano {
			t.Errorf("%s: %d is not within %d and %d", what, e.CostNano, e.LowNano, e.HighNano)
		}
		l.stands(s, budget, e.CostNano)
	}
	for _, cut := range []bool{false, true} {
		f("English", english, 7, cut)
		f("code", code, 5, cut)
		f("Chinese", chinese, 4, cut)
		f("one piece", english, len(english), cut)
		f("more than is kept", strings.Repeat(english, 30), 500, cut)
	}
}

// readEvents reads until n events with content have come.
func readEvents(t *testing.T, r io.Reader, n int) {
	t.Helper()
	var got strings.Builder
	b := make([]byte, 32<<10)
	for strings.Count(got.String(), `"content":`) < n {
		k, err := r.Read(b)
		got.Write(b[:k])
		must(t, err)
	}
}

// TestSaidUsage: what a provider says that it used, and how it is booked.
func TestSaidUsage(t *testing.T) {
	const text = "Hello from the upstream"
	const max1, far = `,"max_tokens":100`, 100_000_000
	most := most4o(inBound(t, chatBody("gpt-4o", max1)), 100)
	f := func(what, more string, rank ledger.Rank, marks ledger.Mark, in, out int64, usages ...string) {
		t.Helper()
		l := newMoneyLab(t, labOptions{})
		budget := usdFor(1e13, tenant.Total)
		key, s := l.buyer(budget, nil)
		l.up.Handle("gpt-4o", func(c *upstream.Call) { saying(c, text, usages) })
		if a := l.chat(key, "openai/gpt-4o", max1+more); a.status != 200 || a.err != nil || !strings.Contains(a.body, "upstream") {
			t.Fatalf("%s: %s", what, a)
		}
		got := l.paid(s)
		if len(got) != 1 {
			t.Fatalf("%s: booked %+v", what, got)
		}
		e := got[0]
		if e.Outcome != ledger.Answered || e.Rank != rank || e.Marks != marks {
			t.Errorf("%s%s: booked %+v, want rank %d and marks %b", what, more, e, rank, marks)
		}
		if in >= 0 && (e.Usage.Input != in || e.Usage.Output != out || e.CostNano != nano4o(in, out)) {
			t.Errorf("%s%s: booked %+v, want %d in and %d out", what, more, e, in, out)
		}
		if e.LowNano > e.CostNano || e.CostNano > e.HighNano || e.CostNano <= 0 || rank == ledger.Estimate && e.HighNano != most {
			t.Errorf("%s%s: booked at %d to %d to %d, at most %d", what, more, e.LowNano, e.CostNano, e.HighNano, most)
		}
		l.stands(s, budget, e.CostNano)
		// Who says such a thing is not called within a strict budget again.
		a := l.chat(key, "openai/gpt-4o", max1)
		if absurd := marks&ledger.AbsurdUsage != 0; absurd != (a.status == 400) || absurd && a.envelope(t).Code != ledger.CodeNotPriced {
			t.Errorf("%s%s: the next call: %s", what, more, a)
		}
	}
	said := func(in, out int64) string {
		return fmt.Sprintf(`{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d}`, in, out, in+out)
	}
	for _, more := range []string{"", streaming} {
		counted, output := ledger.NoUsage, int64(len(text)+2)/3 // a token is taken to have 3 bytes
		if more != "" {
			counted, output = counted|ledger.Tokenized, 4
		}
		f("right", more, ledger.Final, 0, 10, 4, said(10, 4))
		f("none", more, ledger.Estimate, counted, -1, 0)
		f("zero", more, ledger.Estimate, counted, -1, 0, said(0, 0))
		f("no output", more, ledger.Estimate, counted, 17, output, said(17, 0))
		f("no input", more, ledger.Estimate, ledger.NoUsage, -1, 0, said(0, 4))
		f("absurd output", more, ledger.Final, ledger.AbsurdUsage, 10, far, said(10, far))
		f("absurd input", more, ledger.Final, ledger.AbsurdUsage, far, 4, said(far, 4))
		f("one too many", more, ledger.Final, ledger.AbsurdUsage, 10, 101, said(10, 101))
		f("as many as may be", more, ledger.Final, 0, 10, 100, said(10, 100))
		f("below zero", more, ledger.Estimate, counted, -1, 0, said(-5, -6)) // is none
		f("no number", more, ledger.Estimate, counted|ledger.AbsurdUsage, -1, 0, `{"prompt_tokens":"many","completion_tokens":[1]}`)
	}
	f("twice", streaming, ledger.Final, ledger.TwoUsages, 11, 5, said(10, 4), said(11, 5))
	f("twice the same", streaming, ledger.Final, 0, 10, 4, said(10, 4), said(10, 4))
}

// saying answers with text and these usages.
func saying(c *upstream.Call, text string, usages []string) {
	if !c.Stream {
		c.W.Header().Set("Content-Type", "application/json")
		usage := ""
		if len(usages) > 0 {
			usage = `,"usage":` + usages[0]
		}
		fmt.Fprintf(c.W, `{"id":"c","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":%q},"finish_reason":"stop"}]%s}`, text, usage)
		return
	}
	c.StartStream()
	c.Event(fmt.Appendf(nil, `{"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":%q},"finish_reason":"stop"}]}`, text))
	for _, u := range usages {
		c.Event([]byte(`{"id":"c","object":"chat.completion.chunk","choices":[],"usage":` + u + `}`))
	}
	c.Event([]byte("[DONE]"))
}

// overheard is a limiter that keeps what it was asked.
type overheard struct {
	limiter.Limiter
	mu  sync.Mutex
	all []limiter.Ask
}

func (a *overheard) Hold(ctx context.Context, s tenant.Scope, ask *limiter.Ask) (limiter.Hold, limiter.State, error) {
	a.mu.Lock()
	a.all = append(a.all, *ask)
	a.mu.Unlock()
	return a.Limiter.Hold(ctx, s, ask)
}

// TestUnknownOutcome: what was sent and never answered may be billed, and stays
// spent; what was never sent is given back.
func TestUnknownOutcome(t *testing.T) {
	const max1 = `,"max_tokens":100`
	for _, more := range []string{max1, max1 + streaming} {
		held := most4o(inBound(t, chatBody("gpt-4o", max1)), 100)
		budget := usdFor(1e12, tenant.Total)
		f := func(what string, outcome ledger.Outcome, spent int64, o labOptions, prepare func(*moneyLab)) {
			t.Helper()
			l := newMoneyLab(t, o)
			key, s := l.buyer(budget, nil)
			prepare(l)
			if a := l.chat(key, "openai/gpt-4o", more); a.status < 500 {
				t.Errorf("%s: %s", what, a)
			}
			got := l.paid(s)
			if len(got) != 1 || got[0].Outcome != outcome || got[0].CostNano != spent || spent > 0 && (got[0].Rank != ledger.Estimate || got[0].HighNano != spent || got[0].LowNano != 0) {
				t.Errorf("%s: booked %+v, want %s at %d", what, got, outcome, spent)
			}
			l.stands(s, budget, spent)
		}
		silent := func(l *moneyLab) {
			l.up.Handle("gpt-4o", func(c *upstream.Call) { c.WaitGone(); c.Abort() })
		}
		f("no header in time", ledger.Unknown, held, labOptions{timeouts: provider.Timeouts{Connect: time.Second, Header: 200 * time.Millisecond, Idle: time.Second, Total: patience}}, silent)
		f("the connection broke", ledger.Unknown, held, labOptions{}, func(l *moneyLab) {
			l.up.Handle("gpt-4o", func(c *upstream.Call) { c.Abort() })
		})
		f("nobody listens", ledger.Failed, 0, labOptions{}, func(l *moneyLab) { l.up.Close() })
		f("an error", ledger.Refused, 0, labOptions{}, func(l *moneyLab) {
			l.up.Handle("gpt-4o", func(c *upstream.Call) { c.Error(http.StatusInternalServerError, "broken", "server_error") })
		})
	}
}

// TestFallbackMoney: each target is held at its own price, and what the first
// one may have cost stays.
func TestFallbackMoney(t *testing.T) {
	const max1 = `,"max_tokens":100`
	short := provider.Timeouts{Connect: time.Second, Header: 200 * time.Millisecond, Idle: patience, Total: patience}
	input := inBound(t, chatBody("gpt-4o", max1))
	big, small := most4o(input, 100), (input*250_000+100*1_000_000+999)/1000
	budget := usdFor(1e12, tenant.Total)
	f := func(what string, first, second string, fail func(*upstream.Call), holds [2]int64, costs [2]int64) {
		t.Helper()
		var asks *overheard
		l := newMoneyLab(t, labOptions{timeouts: short, limiter: func(lim limiter.Limiter) limiter.Limiter {
			asks = &overheard{Limiter: lim}
			return asks
		}})
		key, s := l.buyer(budget, func(c *tenant.Company) {
			routeTo(first, second)(c)
			c.Providers = []string{"gemini", "openai"}
		})
		_, err := l.keys.Put(t.Context(), s, keystore.NewCredential{Provider: "gemini", Secret: provider.NewSecret(vendorSecret)})
		must(t, err)
		_, model, _ := strings.Cut(first, "/")
		l.up.Handle(model, fail)
		a := l.chat(key, "best", max1)
		if a.status != 200 || a.header.Get("X-Bulkhead-Attempts") != "2" || a.header.Get("X-Bulkhead-Cost-Usd") != ledger.FormatUSD(costs[0]+costs[1]) {
			t.Errorf("%s: %s", what, a)
		}
		got := l.paid(s)
		if len(asks.all) != 2 || len(got) != 2 {
			t.Fatalf("%s: asked %+v, booked %+v", what, asks.all, got)
		}
		for i := range 2 {
			if asks.all[i].Nano != holds[i] || asks.all[i].Again != (i == 1) || got[i].CostNano != costs[i] || got[i].ID != asks.all[i].ID {
				t.Errorf("%s: attempt %d: asked %+v, booked %+v; want %d held and %d booked", what, i, asks.all[i], got[i], holds[i], costs[i])
			}
		}
		l.stands(s, budget, costs[0]+costs[1])
	}
	broken := func(c *upstream.Call) { c.Error(http.StatusInternalServerError, "broken", "server_error") }
	silent := func(c *upstream.Call) { c.WaitGone(); c.Abort() }
	answer := (10*150_000 + 4*600_000 + 999) / 1000 // of gpt-4o-mini, in pico-USD a token
	f("the first one fails", "openai/gpt-4o", "openai/gpt-4o-mini", broken, [2]int64{big, small}, [2]int64{0, int64(answer)})
	f("nobody knows of the first one", "openai/gpt-4o", "openai/gpt-4o-mini", silent, [2]int64{big, small}, [2]int64{big, int64(answer)})
	f("the first one is cheaper", "openai/gpt-4o-mini", "openai/gpt-4o", broken, [2]int64{small, big}, [2]int64{0, nano4o(10, 4)})
	f("the first one is free", "gemini/gemma-3-27b-it", "openai/gpt-4o", broken, [2]int64{0, big}, [2]int64{0, nano4o(10, 4)})

	// A budget that is spent stops who costs something, and nobody else.
	l := newMoneyLab(t, labOptions{})
	none := usdFor(0, tenant.Total)
	key, s := l.buyer(none, func(c *tenant.Company) {
		routeTo("gemini/gemma-3-27b-it", "openai/gpt-4o")(c)
		c.Providers = []string{"gemini", "openai"}
	})
	_, err := l.keys.Put(t.Context(), s, keystore.NewCredential{Provider: "gemini", Secret: provider.NewSecret(vendorSecret)})
	must(t, err)
	if a := l.chat(key, "best", max1); a.status != 200 || a.header.Get("X-Bulkhead-Provider") != "gemini" {
		t.Errorf("free: %s", a)
	}
	l.up.Handle("gemma-3-27b-it", broken)
	if a := l.chat(key, "best", max1); a.status != 429 || a.envelope(t).Type != "insufficient_quota" {
		t.Errorf("paid: %s", a)
	}
	if n := slices.IndexFunc(l.up.Requests(), func(r upstream.Request) bool { return r.Model == "gpt-4o" }); n >= 0 {
		t.Error("a call that nobody can pay was sent")
	}
	l.stands(s, none, 0)
}

// TestLateSettlement: what ends after its period books into it, also when the
// gateway was killed and started again in between.
func TestLateSettlement(t *testing.T) {
	dir := t.TempDir()
	var l *moneyLab
	scopeOf := func(ctx context.Context, company string) (tenant.Scope, error) {
		a, err := l.world.Gateway().Begin(ctx, "ledger.recover", company)
		if err != nil {
			return tenant.Scope{}, err
		}
		return l.world.Scope(ctx, a, company)
	}
	l = newMoneyLab(t, labOptions{ledger: ledger.Options{Journal: dir, ScopeOf: scopeOf}})
	budget := usdFor(1e12, tenant.Day)
	key, s := l.buyer(budget, nil)
	// A minute before midnight, by a clock that is a day ahead of the machine's:
	// that of the hold decides.
	_, midnight := budget.Calendar.Window(tenant.Day, time.Now().Add(24*time.Hour))
	l.clock.Store(int64(time.Until(midnight) - time.Minute))
	release := make(chan struct{})
	l.up.Handle("gpt-4o", func(c *upstream.Call) {
		<-release
		saying(c, "late", []string{`{"prompt_tokens":10,"completion_tokens":4,"total_tokens":14}`})
	})
	answered := make(chan answerGot)
	go func() { answered <- l.chat(key, "openai/gpt-4o", `,"max_tokens":100`) }()
	must(t, l.up.WaitRequests(1, patience))
	yesterday := l.now()
	held := most4o(inBound(t, chatBody("gpt-4o", "")), 100)
	on := func(what string, lim limiter.Limiter, spent, holds int64) {
		t.Helper()
		st, err := lim.Standing(t.Context(), s, []*tenant.Budget{budget})
		must(t, err)
		if st[0].Spent != spent || st[0].Held != holds {
			t.Errorf("%s: %d spent and %d held, want %d and %d", what, st[0].Spent, st[0].Held, spent, holds)
		}
	}
	on("before midnight", l.limiter, 0, held)

	// Killed now, a process of the next day finds this on its disk.
	crashed := t.TempDir()
	must(t, os.CopyFS(crashed, os.DirFS(dir)))
	l.clock.Add(int64(2 * time.Minute))
	after := &moneyStore{}
	next, err := ledger.Open(t.Context(), after, ledger.Options{Journal: crashed, ScopeOf: scopeOf})
	must(t, err)
	must(t, next.Flush(t.Context()))
	must(t, next.Close(t.Context()))
	swept := after.all(s)
	if len(swept) != 1 || swept[0].Outcome != ledger.Swept || swept[0].CostNano != held || !swept[0].StartedAt.Before(midnight) {
		t.Errorf("swept %+v, want %d before midnight", swept, held)
	}
	then := func(at time.Time, book limiter.Book) limiter.Limiter {
		return limiter.NewLocal(limiter.Options{Book: book, Now: func() time.Time { return at }})
	}
	on("killed, the next day", then(l.now(), after), 0, 0)
	on("killed, the day before", then(yesterday, after), held, 0)

	// Not killed, it ends after midnight.
	on("after midnight", l.limiter, 0, 0)
	close(release)
	if a := <-answered; a.status != 200 {
		t.Fatalf("%s", a)
	}
	cost := nano4o(10, 4)
	if e := l.paid(s)[0]; e.CostNano != cost || !e.StartedAt.Before(midnight) {
		t.Errorf("booked %+v", e)
	}
	on("after it ended", l.limiter, 0, 0)
	l.clock.Add(-int64(2 * time.Minute))
	on("the day that it began", l.limiter, cost, 0)
	on("the day that it began, counted anew", then(yesterday, l.store), cost, 0)
	// The late answer of who was killed replaces what was swept, once.
	must(t, after.AppendEntries(t.Context(), []ledger.Booked{{Scope: s, Entry: l.paid(s)[0]}}))
	on("replaced", then(yesterday, after), cost, 0)
}
