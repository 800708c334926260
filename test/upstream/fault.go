package upstream

import (
	"bytes"
	"net/http"
	"strings"
	"time"
)

// Sizes of the unusual answers, in bytes.
const (
	hugeLine  = 2 << 20
	floodSize = 16 << 10
)

// everyNever is the pace of model never-ending.
const everyNever = 5 * time.Millisecond

// fault answers the models whose answer is the same on every endpoint, and
// returns false for the others.
func (c *Call) fault() bool {
	switch m := c.Model; {
	case m == "slow-header":
		c.WaitGone()
		c.Abort()
	case m == "hold":
		c.waitRelease()
		return false
	case strings.HasPrefix(m, "fail-once:"):
		if !c.firstOf() {
			return false
		}
		c.Error(http.StatusInternalServerError, "the first call fails", "server_error")
	case m == "garbage":
		c.W.Header().Set("Content-Type", "text/html")
		_, _ = c.W.Write([]byte("<!DOCTYPE html><title>Oops</title><h1>Something else lives here</h1>"))
	case m == "garbage-json":
		c.garbageJSON()
	case m == "redirect":
		c.W.Header().Set("Location", c.s.URL()+"/stolen?key=sk-stolen")
		c.W.WriteHeader(http.StatusFound)
	case m == "echo-key":
		c.Error(http.StatusBadRequest, "I was sent the key "+c.R.Header.Get("Authorization"), "invalid_request_error")
	case numbered(m, "status-", 599) >= 400:
		c.status(numbered(m, "status-", 599))
	default:
		return false
	}
	return true
}

func (c *Call) garbageJSON() {
	broken := []byte(`{"id": "chatcmpl-1", "choices": [nope`)
	if !c.Stream {
		c.W.Header().Set("Content-Type", "application/json")
		_, _ = c.W.Write(broken)
		return
	}
	c.StartStream()
	_ = c.Event(broken) && c.Event([]byte("[DONE]"))
}

func (c *Call) status(code int) {
	typ := "server_error"
	switch {
	case code == http.StatusTooManyRequests:
		typ = "requests"
		c.W.Header().Set("Retry-After", "1")
	case code == http.StatusUnauthorized:
		typ = "authentication_error"
	case code < 500:
		typ = "invalid_request_error"
	}
	c.Error(code, "the upstream says "+http.StatusText(code), typ)
}

// brokenBody sends the first half of a JSON answer that was to be whole.
func (c *Call) brokenBody(whole []byte, sized bool) {
	c.W.Header().Set("Content-Type", "application/json")
	if sized {
		c.W.Header().Set("Content-Length", itoa(len(whole)))
	}
	_, _ = c.W.Write(whole[:len(whole)/2])
	c.flush()
}

func (c *Call) neverEnding(event func() []byte) {
	tick := time.NewTicker(everyNever)
	defer tick.Stop()
	for c.Event(event()) {
		select {
		case <-tick.C:
		case <-c.R.Context().Done():
		case <-c.s.done:
			return
		}
	}
}

func filler(n int) string { return string(bytes.Repeat([]byte("x"), n)) }
