package web

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/valyala/fasthttp"

	"bulkhead/ledger"
	"bulkhead/provider"
)

// now is the clock of calls.
func (g *Gateway) now() time.Time { return time.Now() }

// requestID returns a new x-request-id: "req_" and 128 random bits. It names a
// request and proves nothing, so the fast generator is good enough.
func requestID() string {
	var b [16]byte
	binary.LittleEndian.PutUint64(b[:8], rand.Uint64())
	binary.LittleEndian.PutUint64(b[8:], rand.Uint64())
	var out [36]byte
	copy(out[:], "req_")
	hex.Encode(out[4:], b[:])
	return string(out[:])
}

// apiKey returns the key of a request, from the header of whichever SDK sent
// it: OpenAI's, Anthropic's, Azure's, Google's. It is valid until the handler
// returns.
func apiKey(rc *fasthttp.RequestCtx) []byte {
	h := &rc.Request.Header
	if v := h.Peek(fasthttp.HeaderAuthorization); len(v) > 0 {
		scheme, key, ok := bytes.Cut(v, []byte(" "))
		if ok && bytes.EqualFold(scheme, []byte("Bearer")) {
			return bytes.TrimSpace(key)
		}
		return nil
	}
	for _, name := range [...]string{"X-Api-Key", "Api-Key", "X-Goog-Api-Key"} {
		if v := h.Peek(name); len(v) > 0 {
			return v
		}
	}
	return nil
}

// passed returns the headers of the client that go on to the provider; what may
// is decided in package provider. With a lent credential none does: the provider
// would give one company the answer to another's Idempotency-Key.
func (c *call) passed(rc *fasthttp.RequestCtx, t provider.Target) (out [][2]string) {
	if rc == nil || t.Lent { // rc is nil in a call of the gateway's own
		return nil
	}
	for _, name := range [...]string{"Openai-Beta", "Idempotency-Key", "X-Client-Request-Id"} {
		if v := rc.Request.Header.Peek(name); len(v) > 0 {
			out = append(out, [2]string{name, string(v)})
		}
	}
	return out
}

func (c *call) setStatus(rc *fasthttp.RequestCtx, status int) {
	rc.SetStatusCode(status)
	c.status = status
}

// answerHeaders sets what stands above every answer of a provider.
func (c *call) answerHeaders(rc *fasthttp.RequestCtx) {
	h := &rc.Response.Header
	h.Set("X-Request-Id", c.id)
	c.limitHeaders(h)
	now := c.g.now()
	c.overhead = c.sentAt.Sub(c.start)
	setInt(h, "Openai-Processing-Ms", now.Sub(c.start).Milliseconds())
	h.Set("X-Bulkhead-Overhead-Ms", milliseconds(c.overhead))
	c.answeredBy(h, c.last())
}

// answeredBy says who answered.
func (c *call) answeredBy(h *fasthttp.ResponseHeader, a *attempt) {
	h.Set("X-Bulkhead-Provider", a.target.Provider)
	h.Set("X-Bulkhead-Model", headerSafe(a.target.Model))
	if k := c.told.header; k != "" {
		h.Set("X-Bulkhead-Knowledge", k)
	}
	if c.said != nil {
		h.Set(conversationHeader, c.said.in.ID)
	}
	if a.entry.Marks&ledger.Clamped != 0 {
		setInt(h, "X-Bulkhead-Max-Output-Tokens", a.bound.Output)
	}
}

// headerSafe drops what a header's value cannot hold. A model's name is the
// company's text.
func headerSafe(s string) string {
	for i := range len(s) {
		if s[i] < ' ' || s[i] >= 0x7f {
			return strconv.QuoteToASCII(s)
		}
	}
	return s
}

// milliseconds formats d with three digits behind the point.
func milliseconds(d time.Duration) string {
	us := d.Microseconds()
	b := strconv.AppendInt(make([]byte, 0, 16), us/1000, 10)
	b = append(b, '.', byte('0'+us/100%10), byte('0'+us/10%10), byte('0'+us%10))
	return string(b)
}

// limitHeaders tells the client where it stands, in OpenAI's form: whole
// numbers, and resets as Go durations.
func (c *call) limitHeaders(h *fasthttp.ResponseHeader) {
	s := &c.limits
	if s.HasRequests {
		setInt(h, "X-Ratelimit-Limit-Requests", s.LimitRequests)
		setInt(h, "X-Ratelimit-Remaining-Requests", s.RemainingRequests)
		h.Set("X-Ratelimit-Reset-Requests", reset(s.ResetRequests))
	}
	if s.HasTokens {
		setInt(h, "X-Ratelimit-Limit-Tokens", s.LimitTokens)
		setInt(h, "X-Ratelimit-Remaining-Tokens", s.RemainingTokens)
		h.Set("X-Ratelimit-Reset-Tokens", reset(s.ResetTokens))
	}
}

// budgetHeader says what is left of the budget with the least left, now that the
// last attempt is booked: what it held and did not cost is there again.
func (c *call) budgetHeader(h *fasthttp.ResponseHeader) {
	if left, ok := c.budgetLeft(); ok {
		h.Set("X-Bulkhead-Budget-Remaining-Usd", left)
	}
}

func (c *call) budgetLeft() (usd string, ok bool) {
	s, a := &c.limits, c.last()
	if !s.HasBudget || a == nil {
		return "", false
	}
	return ledger.FormatUSD(max(s.RemainingNano+a.hold.Nano()-a.entry.CostNano, 0)), true
}

func reset(d time.Duration) string { return max(d, 0).Round(time.Millisecond).String() }

func setInt(h *fasthttp.ResponseHeader, name string, n int64) {
	var b [20]byte
	h.SetBytesV(name, strconv.AppendInt(b[:0], n, 10))
}

// writeAnswer writes an answer that is not a stream.
func (c *call) writeAnswer(rc *fasthttp.RequestCtx) {
	c.answerHeaders(rc)
	h := &rc.Response.Header
	c.costHeaders(h)
	c.budgetHeader(h)
	h.SetContentType("application/json")
	c.setStatus(rc, fasthttp.StatusOK)
	c.firstByte = max(c.g.now().Sub(c.start), 1)
	if len(c.answer) > keptBuffer {
		rc.Response.SetBodyRaw(c.answer)
	} else {
		rc.Response.SetBody(c.answer) // copied: its memory is given back before fasthttp writes it
	}
}

// costHeaders says what the call cost, and how many attempts it took.
func (c *call) costHeaders(h *fasthttp.ResponseHeader) {
	h.Set("X-Bulkhead-Cost-Usd", ledger.FormatUSD(c.costNano))
	setInt(h, "X-Bulkhead-Attempts", int64(len(c.attempts)))
}

// writeError writes an error that came before the first byte of an answer.
func (c *call) writeError(rc *fasthttp.RequestCtx, err error) {
	drain(rc)
	h := &rc.Response.Header
	h.Set("X-Request-Id", c.id)
	c.limitHeaders(h)
	c.budgetHeader(h)
	if a := c.last(); a != nil {
		h.Set("X-Bulkhead-Provider", a.target.Provider)
		setInt(h, "X-Bulkhead-Attempts", int64(len(c.attempts)))
	}
	writeError(rc, err)
	c.status = rc.Response.StatusCode()
}
