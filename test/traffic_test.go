package test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptrace"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"bulkhead/test/scale"
	"bulkhead/test/upstream"
)

// The stream "paced" of handlePaced: long enough that there are always some
// under way.
const (
	pacedEvents = 12
	pacedEvery  = 10 * time.Millisecond
)

// handlePaced teaches the upstream the model "paced", whose stream takes
// pacedEvents times pacedEvery.
func handlePaced(up *upstream.Server) {
	up.Handle("paced", func(c *upstream.Call) {
		tick := time.NewTicker(pacedEvery)
		defer tick.Stop()
		c.StartStream()
		for i := range pacedEvents {
			finish := "null"
			if i == pacedEvents-1 {
				finish = `"stop"`
			}
			if !c.Event(fmt.Appendf(nil, `{"id":"c","object":"chat.completion.chunk","created":1,"model":"paced","choices":[{"index":0,"delta":{"content":"c%d "},"finish_reason":%s}]}`, i, finish)) {
				return
			}
			select {
			case <-tick.C:
			case <-c.R.Context().Done():
				return
			}
		}
		c.Event(fmt.Appendf(nil, `{"id":"c","object":"chat.completion.chunk","created":1,"model":"paced","choices":[],"usage":{"prompt_tokens":10,"completion_tokens":%d,"total_tokens":%d}}`, pacedEvents, pacedEvents+10))
		c.Event([]byte("[DONE]"))
	})
}

// sent is a call of the traffic as its client saw it.
type sent struct {
	marker       string // in the message, so that the provider's record can be found
	by           *member
	stream, paid bool
	began, ended time.Time
	gateway      int // that had the connection; -1: none
	status       int
	request      string // x-request-id
	code         string // of the error, if the answer is one
	err          error  // of the connection
	whole        bool   // the answer was all there
	over         atomic.Bool
}

func (s *sent) String() string {
	return fmt.Sprintf("%s of %s (stream %t) at gateway %d from %s to %s: status %d %s, %v", s.marker, s.by.Name, s.stream, s.gateway,
		s.began.Format("05.000"), s.ended.Format("05.000"), s.status, s.code, s.err)
}

// traffic is clients of several companies that call through the balancer, JSON
// and streams, on kept and on new connections, until they are stopped.
type traffic struct {
	f       *fleet
	url     string
	paid    bool // of paidModel, which a biller answers
	done    chan struct{}
	clients sync.WaitGroup
	count   atomic.Int64 // answered in whole
	number  atomic.Int64

	mu    sync.Mutex
	calls []*sent
}

// traffic starts clients that call for these companies. It runs until stop, or
// the end of the test.
func (f *fleet) traffic(t *testing.T, s *scale.Run, of ...*member) *traffic {
	t.Helper()
	return f.newTraffic(t, s, false, of...)
}

func (f *fleet) newTraffic(t *testing.T, s *scale.Run, paid bool, of ...*member) *traffic {
	t.Helper()
	tr := &traffic{f: f, url: f.balancer.URL, paid: paid, done: make(chan struct{})}
	ctx, cancel := context.WithTimeout(context.Background(), scale.Pick(s, 3*time.Minute, time.Hour))
	// What happened is kept in memory until the end: a longer run calls less often.
	every := scale.Pick(s, 15*time.Millisecond, 50*time.Millisecond)
	for i := range scale.Pick(s, 8, 12) {
		random := s.Rand()
		tr.clients.Go(func() { tr.client(ctx, i, every, random, of) })
	}
	t.Cleanup(func() {
		cancel()
		tr.stop()
	})
	return tr
}

// stop ends the traffic and returns all calls, once the last one has ended.
func (tr *traffic) stop() []*sent {
	tr.mu.Lock()
	select {
	case <-tr.done:
	default:
		close(tr.done)
	}
	tr.mu.Unlock()
	tr.clients.Wait()
	return tr.calls
}

// flows waits until n more calls were answered.
func (tr *traffic) flows(t *testing.T, n int64) {
	t.Helper()
	until := tr.count.Load() + n
	eventually(t, time.Minute, fmt.Sprintf("%d more calls are answered", n), func() bool { return tr.count.Load() >= until })
}

// settles waits until every gateway has heard of all changes so far and has then
// answered each of those companies: what it needs for them is in memory. A
// gateway that knows of a change, but not what has changed, trusts its memory no
// more.
func (tr *traffic) settles(t *testing.T, of ...*member) {
	t.Helper()
	begin := time.Now()
	for i := range tr.f.all {
		eventually(t, everywhere, fmt.Sprintf("gateway %d has asked for changes", i), func() bool { return tr.f.heard(t, i).After(begin) })
	}
	heard := time.Now()
	warm := map[string]bool{}
	eventually(t, time.Minute, "every gateway answers every company", func() bool {
		tr.mu.Lock()
		defer tr.mu.Unlock()
		for _, c := range slices.Backward(tr.calls) {
			if c.began.Before(heard) {
				break
			}
			if c.over.Load() && c.whole {
				warm[fmt.Sprint(c.gateway, c.by.ID)] = true
			}
		}
		return len(warm) == len(tr.f.all)*len(of)
	})
}

// client calls, one call after the other, with a transport of its own as another
// program would have.
func (tr *traffic) client(ctx context.Context, number int, every time.Duration, random *rand.Rand, of []*member) {
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: number%2 == 1}, Timeout: 2 * time.Minute}
	defer c.CloseIdleConnections()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-tr.done:
			return
		case <-ctx.Done():
			return
		}
		call := &sent{began: time.Now(), marker: fmt.Sprintf("[%d.%d]", number, tr.number.Add(1)), by: of[random.IntN(len(of))], stream: random.IntN(2) == 0, paid: tr.paid}
		tr.mu.Lock()
		tr.calls = append(tr.calls, call)
		tr.mu.Unlock()
		if call.send(ctx, c, tr.url, tr.f.balancer); call.whole {
			tr.count.Add(1)
		}
	}
}

// send makes the call and notes what came of it.
func (s *sent) send(ctx context.Context, c *http.Client, url string, b *balancer) {
	from := ""
	defer func() {
		s.ended, s.gateway = time.Now(), b.gatewayOf(from)
		s.over.Store(true)
	}()
	body := chatBody("up/ok", "Hello "+s.marker)
	if s.stream {
		body = chatBody("up/paced", "Hello "+s.marker)
		body["stream"] = true
	}
	if s.paid {
		body = paidBody("Hello "+s.marker, s.stream)
	}
	text, err := json.Marshal(body)
	if err != nil {
		panic("BUG: a call is not JSON: " + err.Error())
	}
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(got httptrace.GotConnInfo) {
		from = got.Conn.LocalAddr().String()
	}})
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/v1/chat/completions", bytes.NewReader(text))
	if err != nil {
		s.err = err
		return
	}
	req.Header.Set("Authorization", "Bearer "+s.by.APIKey)
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.Do(req)
	if err != nil {
		s.err = err
		return
	}
	s.status, s.request = resp.StatusCode, resp.Header.Get("X-Request-Id")
	text, err = io.ReadAll(resp.Body)
	s.err = errors.Join(err, resp.Body.Close())
	s.code, _ = answer{body: text}.fault()
	s.whole = s.err == nil && s.status == http.StatusOK && s.isWhole(string(text))
}

// isWhole reports whether all was there that the upstream says.
func (s *sent) isWhole(text string) bool {
	if s.paid {
		return strings.Contains(text, `"usage":{`) && !s.stream || strings.HasSuffix(text, "data: [DONE]\n\n")
	}
	if !s.stream {
		return strings.Contains(text, "Hello from the upstream") && strings.Contains(text, `"usage"`)
	}
	if !strings.Contains(text, `"finish_reason":"stop"`) || !strings.HasSuffix(text, "data: [DONE]\n\n") {
		return false
	}
	for i := range pacedEvents {
		_, rest, found := strings.Cut(text, fmt.Sprintf(`"c%d "`, i))
		if !found {
			return false
		}
		text = rest
	}
	return true
}
