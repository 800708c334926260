package upstream

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"
)

// maxBody bounds what a request may send, in bytes.
const maxBody = 256 << 20

// Request is what the server saw of one request.
type Request struct {
	Method string
	Path   string // as sent, escaped
	Query  string // raw, without "?"
	Header http.Header
	Body   []byte
	Model  string // of the body, else of an Azure path; "" if there is none
	Stream bool

	Arrived time.Time
	Events  int       // stream events flushed so far
	Closed  time.Time // when the client was seen to leave before the answer was whole; zero if it did not
	Ended   bool      // the answer is over, whole or not
}

// begin reads the request and records it. The caller must call busy.Done when
// there is no error.
func (s *Server) begin(w http.ResponseWriter, r *http.Request) (*Call, error) {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody))
	if err != nil {
		return nil, fmt.Errorf("cannot read the body: %w", err)
	}
	rec := &Request{
		Method: r.Method, Path: r.URL.EscapedPath(), Query: r.URL.RawQuery,
		Header: r.Header.Clone(), Body: body, Arrived: time.Now(),
	}
	c := &Call{W: w, R: r, s: s, rec: rec}
	c.parse(body)
	rec.Model, rec.Stream = c.Model, c.Stream
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return nil, http.ErrServerClosed
	}
	s.busy.Add(1)
	s.requests = append(s.requests, rec)
	s.count++
	c.number, c.released = s.count, s.released
	s.notify()
	return c, nil
}

// notify wakes the waiters. The caller holds mu.
func (s *Server) notify() {
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *Server) closed(rec *Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if rec.Closed.IsZero() && !rec.Ended && !s.closing {
		rec.Closed = time.Now()
		s.notify()
	}
}

func (s *Server) ended(rec *Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	rec.Ended = true
	s.notify()
}

func (s *Server) sent(rec *Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	rec.Events++
	s.notify()
}

// Requests is a copy of what was recorded so far, in order of arrival. Header
// and Body are shared and must not be changed.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.snapshot()
}

func (s *Server) snapshot() []Request {
	all := make([]Request, len(s.requests))
	for i, rec := range s.requests {
		all[i] = *rec
	}
	return all
}

// Last is the newest request, and false if there is none.
func (s *Server) Last() (Request, bool) {
	all := s.Requests()
	if len(all) == 0 {
		return Request{}, false
	}
	return all[len(all)-1], true
}

// Reset forgets the recorded requests. Those still being answered go on.
func (s *Server) Reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = nil
	s.notify()
}

// Wait waits until ok holds for what was recorded, and is an error after
// timeout. It looks again at each change, it does not poll.
func (s *Server) Wait(timeout time.Duration, ok func([]Request) bool) error {
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	for {
		s.mu.Lock()
		all, changed := s.snapshot(), s.changed
		s.mu.Unlock()
		if ok(all) {
			return nil
		}
		select {
		case <-changed:
		case <-timer.C:
			return fmt.Errorf("not within %s: the upstream has %d requests, %d open, %d closed by the client",
				timeout, len(all), countOpen(all), countClosed(all))
		}
	}
}

// WaitRequests waits until n requests have arrived.
func (s *Server) WaitRequests(n int, timeout time.Duration) error {
	return s.Wait(timeout, func(all []Request) bool { return len(all) >= n })
}

// WaitClosed waits until n requests were left by their client.
func (s *Server) WaitClosed(n int, timeout time.Duration) error {
	return s.Wait(timeout, func(all []Request) bool { return countClosed(all) >= n })
}

// WaitEvents waits until the newest request has been sent n stream events.
func (s *Server) WaitEvents(n int, timeout time.Duration) error {
	return s.Wait(timeout, func(all []Request) bool { return len(all) > 0 && all[len(all)-1].Events >= n })
}

// WaitIdle waits until no request is being answered.
func (s *Server) WaitIdle(timeout time.Duration) error {
	return s.Wait(timeout, func(all []Request) bool { return countOpen(all) == 0 })
}

// Open is the number of requests being answered now.
func (s *Server) Open() int { return countOpen(s.Requests()) }

func countOpen(all []Request) int {
	n := 0
	for _, rec := range all {
		if !rec.Ended {
			n++
		}
	}
	return n
}

func countClosed(all []Request) int {
	n := 0
	for _, rec := range all {
		if !rec.Closed.IsZero() {
			n++
		}
	}
	return n
}

// view is a Request as GET /_requests shows it.
type view struct {
	Method    string      `json:"method"`
	Path      string      `json:"path"`
	Query     string      `json:"query"`
	Header    http.Header `json:"header"`
	Body      string      `json:"body"`
	Model     string      `json:"model"`
	Stream    bool        `json:"stream"`
	Events    int         `json:"events"`
	Closed    bool        `json:"closed"`
	Ended     bool        `json:"ended"`
	OpenForMS int64       `json:"open_for_ms"` // from arrival to closed; 0 if not closed
}

func viewOf(rec Request) view {
	v := view{
		Method: rec.Method, Path: rec.Path, Query: rec.Query, Header: rec.Header, Body: string(rec.Body),
		Model: rec.Model, Stream: rec.Stream, Events: rec.Events, Closed: !rec.Closed.IsZero(), Ended: rec.Ended,
	}
	if v.Closed {
		v.OpenForMS = rec.Closed.Sub(rec.Arrived).Milliseconds()
	}
	return v
}

// control serves the paths that begin with "/_"; they are not recorded.
func (s *Server) control(w http.ResponseWriter, r *http.Request) {
	all := s.Requests()
	switch r.Method + " " + r.URL.Path {
	case "GET /_requests":
		views := make([]view, len(all))
		for i, rec := range all {
			views[i] = viewOf(rec)
		}
		writeJSON(w, http.StatusOK, views)
	case "GET /_open":
		writeJSON(w, http.StatusOK, map[string]int{"open": countOpen(all), "closed": countClosed(all), "requests": len(all)})
	case "DELETE /_requests":
		s.Reset()
		w.WriteHeader(http.StatusNoContent)
	case "POST /_release":
		s.Release()
		w.WriteHeader(http.StatusNoContent)
	default:
		http.NotFound(w, r)
	}
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		panic("BUG: answer is not JSON: " + err.Error())
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(b)
}
