package test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"bulkhead/ledger"
	"bulkhead/test/upstream"
)

// paidModel is what tests of money call, and what it costs in the table: so many
// pico-USD for a token. Its priority tier, which may be billed where the request
// does not say, is what is held.
const (
	paidModel               = "gpt-4o-mini"
	paidIn, paidOut         = 150_000, 600_000
	dearIn, dearOut         = 250_000, 1_000_000
	billedInput             = 250 // tokens; the bound of a short message is some 275
	leastOutput, mostOutput = 300, 400
	askedOutput             = 500     // the limit that clients ask for
	paidHold                = 600_000 // nano-USD, more than a short message is held at
)

func paidNano(in, out int64) int64 { return (in*paidIn + out*paidOut + 999) / 1000 }

// biller makes an upstream bill what its answers say, and remembers it.
type biller struct {
	// at is called by the request's goroutine in each phase of an answer.
	at func(c *upstream.Call, phase string)

	mu    sync.Mutex
	bills map[string][]int64 // nano-USD, one for each request, by the gateway's id of it
	total int64
	least int64 // tokens of output that the smallest limit allowed
}

// The phases of an answer.
const (
	beforeHeader = "header"
	midStream    = "middle"
	beforeEnd    = "end"
)

// newBiller answers paidModel on up.
func newBiller(up *upstream.Server, at func(*upstream.Call, string)) *biller {
	b := &biller{at: at, bills: map[string][]int64{}, least: askedOutput}
	if at == nil {
		b.at = func(*upstream.Call, string) {}
	}
	up.Handle(paidModel, b.answer)
	return b
}

// answer generates as many words as are allowed, and bills them in full whether
// or not anybody stays to read them.
func (b *biller) answer(c *upstream.Call) {
	var in struct {
		Max      int64 `json:"max_completion_tokens"`
		MaxOld   int64 `json:"max_tokens"`
		Messages []struct{ Content string }
	}
	if err := json.Unmarshal(c.Body, &in); err != nil {
		c.Error(http.StatusBadRequest, "not JSON", "invalid_request_error")
		return
	}
	limit := in.Max + in.MaxOld // one of them
	if limit <= 0 {
		limit = 1 << 40 // nobody has bounded it: the bill will tell
	}
	output := min(leastOutput+int64(len(in.Messages[0].Content)*37%(mostOutput-leastOutput)), limit)
	b.bill(c.R.Header.Get("X-Client-Request-Id"), limit, paidNano(billedInput, output))
	b.at(c, beforeHeader)
	usage := fmt.Sprintf(`{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d}`, billedInput, output, billedInput+output)
	text := strings.Repeat(" word", int(output)) // one token each
	if !c.Stream {
		body := fmt.Sprintf(`{"id":"c","object":"chat.completion","created":1,"model":%q,"choices":[{"index":0,"message":{"role":"assistant","content":%q},"finish_reason":"stop"}],"usage":%s}`, paidModel, text, usage)
		c.W.Header().Set("Content-Type", "application/json")
		c.W.Header().Set("Content-Length", fmt.Sprint(len(body)))
		_, _ = c.W.Write([]byte(body[:len(body)/2]))
		b.at(c, midStream)
		_, _ = c.W.Write([]byte(body[len(body)/2:]))
		b.at(c, beforeEnd)
		return
	}
	c.StartStream()
	const chunk = `{"id":"c","object":"chat.completion.chunk","created":1,"model":"gpt-4o-mini","choices":[%s]%s}`
	half := len(text) / 10 * 5
	c.Event(fmt.Appendf(nil, chunk, fmt.Sprintf(`{"index":0,"delta":{"role":"assistant","content":%q},"finish_reason":null}`, text[:half]), ""))
	b.at(c, midStream)
	c.Event(fmt.Appendf(nil, chunk, fmt.Sprintf(`{"index":0,"delta":{"content":%q},"finish_reason":"stop"}`, text[half:]), ""))
	c.Event(fmt.Appendf(nil, chunk, "", `,"usage":`+usage))
	c.Event([]byte("[DONE]"))
	b.at(c, beforeEnd)
}

func (b *biller) bill(request string, limit, nano int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.bills[request] = append(b.bills[request], nano)
	b.total += nano
	b.least = min(b.least, limit)
}

// sum is the whole bill so far.
func (b *biller) sum() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.total
}

// check compares the bill with the rows of the ledger: each request that the
// provider saw has one row, which says what it was billed, or between what. Rows
// that nothing was seen of are of attempts that died on the way: at most dead.
// It returns how many rows have each rank.
func (b *biller) check(t *testing.T, rows []ledger.Entry, dead int) (ranks map[ledger.Rank]int) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	ranks = map[ledger.Rank]int{}
	byRequest := map[string][]ledger.Entry{}
	unseen := 0
	for _, e := range rows {
		ranks[e.Rank]++
		byRequest[e.RequestID] = append(byRequest[e.RequestID], e)
		if len(b.bills[e.RequestID]) > 0 {
			continue
		}
		if unseen++; e.Outcome != ledger.Swept && e.CostNano != 0 {
			t.Errorf("the provider saw nothing of %+v", e)
		}
	}
	if unseen > dead {
		t.Errorf("%d rows are of nothing, at most %d may be", unseen, dead)
	}
	for request, bills := range b.bills {
		got := byRequest[request]
		if len(bills) != 1 || len(got) != 1 {
			t.Errorf("%s: billed %v, the ledger has %+v", request, bills, got)
			continue
		}
		e, bill := got[0], bills[0]
		if e.Rank == ledger.Final && e.CostNano != bill || bill < e.LowNano || bill > e.HighNano || e.CostNano < e.LowNano || e.CostNano > e.HighNano {
			t.Errorf("%s: billed %d, the ledger has %d of %d to %d: %+v", request, bill, e.CostNano, e.LowNano, e.HighNano, e)
		}
	}
	return ranks
}

func costOf(rows []ledger.Entry) (nano int64) {
	for _, e := range rows {
		nano += e.CostNano
	}
	return nano
}

// paidBody is a call of paidModel that says text.
func paidBody(text string, stream bool) map[string]any {
	body := chatBody("openai/"+paidModel, text)
	body["max_completion_tokens"] = askedOutput
	if stream {
		body["stream"] = true
	}
	return body
}

// budget is what the API says of one.
type budget struct {
	ID        string `json:"id"`
	Limit     string `json:"limit_usd"`
	Spent     string `json:"spent_usd"`
	Held      string `json:"held_usd"`
	Remaining string `json:"remaining_usd"`
}

// setBudget gives the company a budget, or another limit to the one it has.
func (g *gateway) setBudget(t *testing.T, c company, nano int64, window string) (b budget) {
	t.Helper()
	g.org(t, c, http.MethodPost, "/budgets", map[string]any{"scope": map[string]string{"type": "company"}, "window": window, "limit_usd": ledger.FormatUSD(nano)}, &b)
	if got := nanoUSD(t, b.Limit); got != nano || b.ID == "" {
		t.Fatalf("a budget of %d was set, and is %+v", nano, b)
	}
	return b
}

// stands is where a budget stands, in nano-USD.
func (g *gateway) stands(t *testing.T, c company, id string) (spent, held int64) {
	t.Helper()
	var b budget
	g.org(t, c, http.MethodGet, "/budgets/"+id, nil, &b)
	return nanoUSD(t, b.Spent), nanoUSD(t, b.Held)
}

// standing is stands, or says that the budget cannot be counted at the moment.
func (g *gateway) standing(t *testing.T, c company, id string) (spent, held int64, ok bool) {
	t.Helper()
	a := ask(t, http.MethodGet, g.URL+"/v1/organization/budgets/"+id, c.AdminKey, nil)
	if a.status == http.StatusServiceUnavailable {
		return 0, 0, false
	}
	var b budget
	if err := json.Unmarshal(a.want(t, "a budget", http.StatusOK).body, &b); err != nil {
		t.Fatal(err)
	}
	return nanoUSD(t, b.Spent), nanoUSD(t, b.Held), true
}

func nanoUSD(t *testing.T, text string) int64 {
	t.Helper()
	nano, err := ledger.ParseUSD(text)
	if err != nil {
		t.Fatalf("an amount is %q: %s", text, err)
	}
	return nano
}
