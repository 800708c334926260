// Package upstream is a provider for tests: a small server that speaks
// OpenAI's form on a loopback port, records every request it gets, and
// misbehaves on demand. The *model name* in the request says how it answers,
// so that an SDK script in any language can ask for a fault as well as a Go
// test can; Handle adds answers of a test's own.
//
// It owns no part of the gateway and imports none. Paths are matched by their
// end ("…/chat/completions"), so a provider row of any vendor can point here.
//
// # Models
//
// Every model answers JSON, or a stream when "stream" is true.
//
//	ok                   "Hello from the upstream": four words, four content chunks
//	chunks-N             N content chunks "c0 " … (N up to 100,000)
//	tools                calls the first tool with {"city":"Paris"}; plain text when the last message is a tool's
//	hold                 waits for Release (or POST /_release), then as ok
//	fail-once:ID         500 the first time this name is seen, then as ok
//	no-usage             as ok, and never says usage
//	usage-every-chunk    "usage":null on every chunk and the usage chunk, asked or not
//	usage-with-finish    usage on the finish chunk, asked or not; no chunk of its own
//	empty-choices-first  first chunk has prompt_filter_results and no choices (Azure)
//	comments             a comment line between any two events
//	crlf                 lines end in CR LF
//	drip                 one byte at a time, each flushed
//	huge-line            one event (or answer) of 2 MiB
//	flood                16 KiB events as fast as they are read, until the client closes
//	never-ending         an event each 5 ms until the client closes
//	silent               one content event (or half a body), then nothing until the client closes
//	slow-header          nothing at all until the client closes
//	cut                  two content chunks (or half a body), then the connection is aborted
//	cut-clean            the same, then the body ends as if whole: no finish_reason, no [DONE]
//	error-mid            two content chunks, then an event with an error, then the end
//	garbage              200 with a page of HTML
//	garbage-json         200 with broken JSON
//	redirect             302 to /stolen, with a key in the Location
//	echo-key             400 whose message quotes the Authorization header
//	status-NNN           that status (400 to 599) with OpenAI's envelope; 429 has Retry-After: 1
//	float-embeddings     embeddings as numbers, whatever encoding_format says
//
// A chat stream begins with a chunk that has the role and no content. A model
// that breaks a stream breaks a body too; error-mid without a stream is a 500.
//
// # Usage
//
// Chat and completions: prompt_tokens is PromptTokens, always; completion_tokens
// is the number of content chunks (words) times n, cut by max_completion_tokens
// or max_tokens; a tool call is ToolTokens. Embeddings: EmbeddingTokens for each
// input. total_tokens is the sum, details are 0.
//
// Images and sound: see media.go.
//
// Responses are kept, unless "store" is false, for the key they were made with:
// GET, DELETE, /cancel and /input_items answer that key only. input_tokens is
// PromptTokens and, with previous_response_id, all tokens of that one. Further
// models: web-search (a run of the server's own tool), response-failed (the stream
// ends so), response-done (with [DONE] behind it).
//
// # Control over HTTP
//
// GET /_requests lists what was recorded, DELETE forgets it; GET /_open gives
// {"open":N,"closed":N,"requests":N}; POST /_release is Release.
package upstream

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// What an answer says it used, see the package comment.
const (
	PromptTokens    = 10
	ToolTokens      = 6
	EmbeddingTokens = 5
)

// Server is a running upstream. All methods may be called from any goroutine.
type Server struct {
	http *http.Server
	addr string
	done chan struct{}  // closed when the server stops
	busy sync.WaitGroup // requests being answered, and the accept loop

	mu        sync.Mutex
	changed   chan struct{} // closed and replaced whenever a record changes
	requests  []*Request
	count     int // of requests, those forgotten too
	scripts   map[string]func(*Call)
	seen      map[string]bool // names of fail-once
	responses map[string]kept // that are asked for again by id
	released  chan struct{}   // closed by Release
	closing   bool
}

// New starts a server on a free loopback port and stops it when the test ends.
func New(t testing.TB) *Server {
	t.Helper()
	s, err := Start("127.0.0.1:0")
	if err != nil {
		t.Fatalf("cannot start the upstream: %s", err)
	}
	t.Cleanup(s.Close)
	return s
}

// Start starts a server on addr, which should be a loopback address.
func Start(addr string) (*Server, error) {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %q: %w", addr, err)
	}
	s := &Server{
		addr:      ln.Addr().String(),
		done:      make(chan struct{}),
		changed:   make(chan struct{}),
		scripts:   make(map[string]func(*Call)),
		seen:      make(map[string]bool),
		responses: make(map[string]kept),
		released:  make(chan struct{}),
	}
	s.http = &http.Server{Handler: s, ReadHeaderTimeout: 10 * time.Second}
	s.busy.Go(func() { _ = s.http.Serve(ln) })
	return s, nil
}

// Close ends every open answer and stops the server. It is safe to call twice.
// Requests it ends do not count as closed by the client.
func (s *Server) Close() {
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		return
	}
	s.closing = true
	s.mu.Unlock()
	close(s.done)
	_ = s.http.Close()
	s.busy.Wait()
}

// URL is the root, without a final slash: "http://127.0.0.1:PORT".
func (s *Server) URL() string { return "http://" + s.addr }

// BaseURL is what an SDK or a provider row takes as its base: URL and "/v1".
func (s *Server) BaseURL() string { return s.URL() + "/v1" }

// Handle answers requests for this model with f, before any built-in model of
// that name. f runs on the request's own goroutine; when it returns the answer
// is complete.
func (s *Server) Handle(model string, f func(*Call)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.scripts[model] = f
}

// Release lets every recorded request of model "hold" go on. Those that come
// later wait for the next Release.
func (s *Server) Release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.released)
	s.released = make(chan struct{})
}

// Forget drops the responses that are kept.
func (s *Server) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.responses)
}

// ServeHTTP records the request and answers it.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.URL.Path, "/_") {
		s.control(w, r)
		return
	}
	c, err := s.begin(w, r)
	if err != nil {
		return // the body did not arrive: nobody is there to be answered
	}
	defer s.busy.Done()
	// A client that leaves is seen by net/http, which cancels the context. It
	// does the same once the handler has returned; by then the request is Ended.
	stop := context.AfterFunc(r.Context(), func() { s.closed(c.rec) })
	defer func() {
		stop()
		if r.Context().Err() != nil {
			s.closed(c.rec) // the answer may be over before the AfterFunc has run, or was begun
		}
		s.ended(c.rec)
	}()
	c.answer()
}
