package test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"bulkhead/ledger"
	"bulkhead/test/scale"
	"bulkhead/test/upstream"
)

// trap springs when so many answers have come to a phase. The one that springs
// it goes no further until its client has left, unless it has said all.
type trap struct {
	mu     sync.Mutex
	phase  string
	left   int
	sprung chan struct{}
	path   string // of the request that sprung it
}

// set makes the trap ready for the next time.
func (tr *trap) set(phase string, after int) (sprung <-chan struct{}) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.phase, tr.left, tr.sprung = phase, after, make(chan struct{})
	return tr.sprung
}

func (tr *trap) at(c *upstream.Call, phase string) {
	tr.mu.Lock()
	hit := false
	if tr.phase == phase {
		tr.left--
		if hit = tr.left == 0; hit {
			tr.path = c.R.URL.Path
			close(tr.sprung)
		}
	}
	tr.mu.Unlock()
	if hit && phase != beforeEnd || phase == midStream && strings.Contains(string(c.Body), leavesText) {
		c.WaitGone()
	}
}

// victim is the gateway of a fleet whose call has sprung the trap.
func (tr *trap) victim(t *testing.T) (gateway int) {
	t.Helper()
	tr.mu.Lock()
	defer tr.mu.Unlock()
	if _, err := fmt.Sscanf(tr.path, "/g%d/", &gateway); err != nil {
		t.Fatalf("no gateway of the fleet calls %s: %s", tr.path, err)
	}
	return gateway
}

// leavesText is said by a client that leaves in the middle of its stream.
const leavesText = "I leave"

// wholeCalls are the ids of calls that their clients saw end well.
type wholeCalls struct {
	mu     sync.Mutex
	ids    map[string]bool
	enough atomic.Bool // calls end as they are, and no more are made
}

// leave begins a stream and leaves in the middle of it.
func leave(ctx context.Context, url, key string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	body, err := json.Marshal(paidBody(leavesText, true))
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/v1/chat/completions", bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+key)
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	_, err = io.ReadFull(resp.Body, make([]byte, 500)) // the first half has more
	return err
}

// call calls until something fails.
func (w *wholeCalls) call(ctx context.Context, url, key string, from int) {
	for i := from; ctx.Err() == nil && !w.enough.Load(); i++ {
		stream := i%2 == 0
		if i%5 == 0 {
			if leave(ctx, url, key) != nil {
				return
			}
			continue
		}
		a, err := tryAsk(ctx, http.MethodPost, url+"/v1/chat/completions", key, paidBody("Hi"+strings.Repeat("!", i%7), stream))
		if err == nil && a.status == http.StatusServiceUnavailable { // Redis was too slow, or the company is being opened
			select {
			case <-time.After(50 * time.Millisecond):
				continue
			case <-ctx.Done():
				return
			}
		}
		if err != nil || a.status != http.StatusOK {
			return
		}
		if !stream || strings.HasSuffix(string(a.body), "data: [DONE]\n\n") {
			w.mu.Lock()
			w.ids[a.header.Get("X-Request-Id")] = true
			w.mu.Unlock()
		}
	}
}

// TestMoneyKill kills the gateway again and again, at every phase of a call: each
// attempt that the provider saw has one row, which is what it was billed, or says
// between what that is; what is spent is what the ledger says; and nothing stays
// held. (DESIGN section 10, row 1.)
func TestMoneyKill(t *testing.T) {
	s := scale.Of(t)
	random := s.Rand()
	const clients = 6
	up := upstream.New(t)
	var tr trap
	bill := newBiller(up, tr.at)
	g := prepare(t, moneyConfig(up))
	p := g.serve(t)
	c := g.Demo
	g.setCredential(t, c, "openai", upstreamSecret)
	b := g.setBudget(t, c, 1e12, "month")
	whole := wholeCalls{ids: map[string]bool{}}
	kills, look := scale.Pick(s, 8, 200), scale.Pick(s, 1, 10)
	phases := []string{beforeHeader, midStream, beforeEnd}
	for i := range kills {
		after := 3 * clients
		if i%3 == 2 { // long enough for who left to be counted: the tokenizer is loaded first
			after = 40 * clients
		}
		sprung := tr.set(phases[random.IntN(len(phases))], after/3+random.IntN(after))
		ctx, stop := context.WithTimeout(t.Context(), time.Minute)
		var calls sync.WaitGroup
		for n := range clients {
			calls.Go(func() { whole.call(ctx, g.URL, c.APIKey, n) })
		}
		select {
		case <-sprung:
		case <-ctx.Done():
			t.Fatalf("kill %d: the calls do not go on", i)
		}
		if i%2 == 0 { // at once, or some time after
			<-time.After(time.Duration(random.Int64N(int64(5 * time.Millisecond))))
		}
		p.kill(t)
		stop()
		calls.Wait()
		if err := up.WaitIdle(30 * time.Second); err != nil {
			t.Fatal(err)
		}
		if random.IntN(4) == 0 { // and once more while it starts
			p = g.launch(t)
			<-time.After(time.Duration(random.Int64N(int64(300 * time.Millisecond))))
			p.kill(t)
		}
		p = g.serve(t)
		spent, held := g.stands(t, c, b.ID)
		if held != 0 {
			t.Errorf("after kill %d: %d is held", i, held)
		}
		if i%look != 0 {
			continue
		}
		rows := g.entries(t, c)
		if spent != costOf(rows) {
			t.Errorf("%d spent, the ledger has %d", spent, costOf(rows))
		}
		if bill.check(t, rows, (i+1)*clients); t.Failed() {
			t.Fatalf("after kill %d", i)
		}
	}
	if a := ask(t, http.MethodPost, g.URL+"/v1/chat/completions", c.APIKey, paidBody("Hi", false)); a.status != http.StatusOK {
		t.Errorf("after all: %d %s", a.status, a.body)
	}
	for range 3 {
		if err := leave(t.Context(), g.URL, c.APIKey); err != nil {
			t.Errorf("after all: %s", err)
		}
	}
	p.stop(t)
	rows := g.entries(t, c)
	ranks := bill.check(t, rows, kills*clients)
	for _, e := range rows {
		if whole.ids[e.RequestID] && e.Rank != ledger.Final {
			t.Errorf("a client has the whole answer, and the ledger %+v", e)
		}
	}
	if len(whole.ids) < kills || ranks[ledger.ByLease] < kills/2 || ranks[ledger.Estimate] < 3 {
		t.Errorf("%d whole answers, and rows of rank %v: too few to say anything", len(whole.ids), ranks)
	}
	s.Figure("kills", kills)
	s.Figure("calls", len(rows))
	s.Figure("answered_whole", len(whole.ids))
	s.Figure("rows_by_rank", fmt.Sprintf("final %d, estimate %d, swept %d", ranks[ledger.Final], ranks[ledger.Estimate], ranks[ledger.ByLease]))
}
