package upstream

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// Call is one request being answered: what Handle's function gets.
type Call struct {
	W http.ResponseWriter
	R *http.Request // its body has been read, see Body

	Model        string
	Stream       bool
	IncludeUsage bool // stream_options.include_usage
	Body         []byte

	Fields    map[string][]string // of a form, files too
	FileBytes int                 // of its files

	in      input
	badBody bool // not a JSON object
	s       *Server
	rec     *Request
	number  int // of the request, from 1
	eol     string
	drip    bool

	released chan struct{} // closed by the next Release
}

// input is the part of a request's body that answers depend on.
type input struct {
	Model         string `json:"model"`
	Stream        bool   `json:"stream"`
	StreamOptions struct {
		IncludeUsage bool `json:"include_usage"`
	} `json:"stream_options"`
	N                   int             `json:"n"`
	MaxTokens           int             `json:"max_tokens"`
	MaxCompletionTokens int             `json:"max_completion_tokens"`
	Messages            []message       `json:"messages"`
	Tools               []tool          `json:"tools"`
	Input               json.RawMessage `json:"input"`
	Prompt              json.RawMessage `json:"prompt"`
	EncodingFormat      string          `json:"encoding_format"`
	Dimensions          int             `json:"dimensions"`
}

type message struct {
	Role string `json:"role"`
}

type tool struct {
	Function struct {
		Name string `json:"name"`
	} `json:"function"`
}

func (c *Call) parse(body []byte) {
	c.Body, c.eol = body, "\n"
	if !c.parseForm(body) {
		c.badBody = json.Unmarshal(body, &c.in) != nil
	}
	c.Model, c.Stream, c.IncludeUsage = c.in.Model, c.in.Stream, c.in.StreamOptions.IncludeUsage
	if _, rest, ok := strings.Cut(c.R.URL.Path, "/deployments/"); ok && c.Model == "" {
		c.Model, _, _ = strings.Cut(rest, "/")
	}
}

// answer sends the request to its endpoint.
func (c *Call) answer() {
	h := c.W.Header()
	// A gateway must replace or drop these, so they are always there.
	h.Set("X-Request-Id", fmt.Sprintf("req_upstream_%d", c.number))
	h.Set("Openai-Organization", "org-upstream")
	h.Set("X-Ratelimit-Remaining-Requests", "4999")
	h.Set("Set-Cookie", "upstream=1")

	path := c.R.URL.Path
	if path == "/stolen" {
		writeJSON(c.W, http.StatusOK, map[string]bool{"stolen": true})
		return
	}
	if i := strings.LastIndex(path, "/models"); i >= 0 && (path[i:] == "/models" || path[i:][7] == '/') {
		if c.method(http.MethodGet) {
			c.models(strings.TrimPrefix(path[i+7:], "/"))
		}
		return
	}
	if i := strings.LastIndex(path, "/responses"); i >= 0 && (path[i:] == "/responses" || path[i:][10] == '/') {
		c.responses(path[i+10:])
		return
	}
	endpoints := []struct {
		end    string
		answer func()
	}{
		{"/chat/completions", c.chat},
		{"/completions", c.completion},
		{"/embeddings", c.embeddings},
		{"/moderations", c.moderations},
		{"/images/generations", c.media},
		{"/images/edits", c.media},
		{"/images/variations", c.media},
		{"/audio/speech", c.media},
		{"/audio/transcriptions", c.media},
		{"/audio/translations", c.media},
	}
	for _, e := range endpoints {
		if !strings.HasSuffix(path, e.end) {
			continue
		}
		if !c.method(http.MethodPost) {
			return
		}
		if c.badBody {
			c.Error(http.StatusBadRequest, "the body is not a JSON object", "invalid_request_error")
			return
		}
		if !c.scripted() && !c.fault() {
			e.answer()
		}
		return
	}
	c.Error(http.StatusNotFound, "unknown path", "invalid_request_error")
}

func (c *Call) method(want string) bool {
	if c.R.Method != want {
		c.Error(http.StatusMethodNotAllowed, "wrong method", "invalid_request_error")
	}
	return c.R.Method == want
}

func (c *Call) scripted() bool {
	c.s.mu.Lock()
	f := c.s.scripts[c.Model]
	c.s.mu.Unlock()
	if f != nil {
		f(c)
	}
	return f != nil
}

// JSON answers with status and v.
func (c *Call) JSON(status int, v any) { writeJSON(c.W, status, v) }

// Error answers with OpenAI's error envelope.
func (c *Call) Error(status int, msg, typ string) {
	c.JSON(status, envelope(msg, typ))
}

func envelope(msg, typ string) any {
	return map[string]any{"error": map[string]any{"message": msg, "type": typ, "param": nil, "code": nil}}
}

// StartStream sends the header of an event stream.
func (c *Call) StartStream() {
	c.W.Header().Set("Content-Type", "text/event-stream")
	c.W.WriteHeader(http.StatusOK)
	c.flush()
}

// Event sends one event with these bytes as its data and flushes it. It
// returns false once the client is gone.
func (c *Call) Event(data []byte) bool {
	b := make([]byte, 0, len(data)+16)
	b = append(b, "data: "...)
	b = append(b, data...)
	b = append(b, c.eol...)
	b = append(b, c.eol...)
	if !c.write(b) {
		return false
	}
	c.s.sent(c.rec)
	return true
}

// Comment sends a comment line, which is no event.
func (c *Call) Comment(text string) bool {
	return c.write([]byte(": " + text + c.eol + c.eol))
}

func (c *Call) write(b []byte) bool {
	step := len(b)
	if c.drip {
		step = 1
	}
	for i := 0; i < len(b); i += step {
		if c.Gone() {
			return c.lost()
		}
		if _, err := c.W.Write(b[i : i+step]); err != nil {
			return c.lost()
		}
		c.flush()
	}
	return true
}

// lost notes that the client left, which a write may find out before net/http
// has cancelled the context.
func (c *Call) lost() bool {
	c.s.closed(c.rec)
	return false
}

func (c *Call) flush() { _ = http.NewResponseController(c.W).Flush() }

// Gone says whether the client has left or the server is stopping.
func (c *Call) Gone() bool { return c.R.Context().Err() != nil }

// WaitGone blocks until the client leaves or the server stops.
func (c *Call) WaitGone() {
	select {
	case <-c.R.Context().Done():
	case <-c.s.done:
	}
}

// Abort breaks the connection at once: the client sees an unexpected end. It
// does not return.
func (c *Call) Abort() { panic(http.ErrAbortHandler) }

// firstOf says whether this is the first request with the model's name.
func (c *Call) firstOf() bool {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	first := !c.s.seen[c.Model]
	c.s.seen[c.Model] = true
	return first
}

// WaitRelease blocks until Release or until the client leaves. A server that stops
// breaks the connection: what is held is never answered then.
func (c *Call) WaitRelease() { c.waitRelease() }

func (c *Call) waitRelease() {
	select {
	case <-c.released:
	case <-c.R.Context().Done():
	case <-c.s.done:
		c.Abort()
	}
}

// numbered is N of "prefixN", or -1.
func numbered(model, prefix string, most int) int {
	rest, ok := strings.CutPrefix(model, prefix)
	n, err := strconv.Atoi(rest)
	if !ok || err != nil || n < 0 || n > most {
		return -1
	}
	return n
}
