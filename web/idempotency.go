package web

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"sync"
	"time"

	"github.com/valyala/fasthttp"

	"bulkhead/fault"
	"bulkhead/ledger"
	"bulkhead/limiter"
	"bulkhead/tenant"
)

// A call with an Idempotency-Key claims it with its hold, so that no other with
// the key runs, and then begins a row in the store, before anything is sent. The
// row decides: who gets the claim and finds a row sends nothing. It ends, before
// the hold does, as the answer, as "nothing came of it" (then it goes), or as lost.
// A row that is begun and has no claim is of a gateway that died, or that could not
// reach the store: nobody knows what came of the call.

// KeptCalls keeps calls with an Idempotency-Key.
type KeptCalls interface {
	// KeptCall returns the call with the claim whose time is not over, or
	// tenant.ErrNotFound.
	KeptCall(ctx context.Context, s tenant.Scope, claim string) (tenant.KeptCall, error)
	// BeginKept stores k as begun, unless there is one with its claim, which it
	// returns. The error is a fault of kind RateLimited where the company has as
	// many as there may be.
	BeginKept(ctx context.Context, s tenant.Scope, k tenant.KeptCall) (there tenant.KeptCall, begun bool, err error)
	// EndKept sets State and Sealed of the call with k's claim and owner if it is
	// begun; with State Begun it removes it. Else it changes nothing.
	EndKept(ctx context.Context, s tenant.Scope, k tenant.KeptCall) error
}

// Sealer seals content with the company's data key. What is sealed opens as that of
// the same company, kind and id only.
type Sealer interface {
	Seal(ctx context.Context, s tenant.Scope, kind, id string, content []byte) ([]byte, error)
	Open(ctx context.Context, s tenant.Scope, kind, id string, sealed []byte) ([]byte, error)
	// Forget drops what is in memory of the company with that id.
	Forget(company string)
}

// Bounds of what is kept.
const (
	maxIdempotencyKey = 255       // bytes
	maxKeptAnswer     = 256 << 10 // bytes of one answer
	maxKeptTotal      = 4 << 30   // bytes that this gateway keeps in a day, of all companies
	keptTimeout       = 5 * time.Second
	sealedAnswer      = "idempotent answer"
)

// keeping is the Idempotency-Key of a call and what becomes of it.
type keeping struct {
	claim   string
	request string      // a digest of what is asked for
	begun   bool        // the row is this call's to end
	lost    bool        // something was sent, and the answer is not known whole
	replay  *keptAnswer // the answer that there was
	owner   string      // whose it was
	body    []byte      // of a stream, so far
	all     bool        // no more of it comes: the end is added when it is kept
	tooMuch bool
	err     error // what could not be written
}

// keptAnswer is an answer as it is kept, with the body behind it.
type keptAnswer struct {
	Status int         `json:"status"`
	Type   string      `json:"type"`
	Header [][2]string `json:"header"`
	body   []byte
}

var (
	errReplay = errors.New("the answer is there") // told to nobody
	errReused = fault.Field("Idempotency-Key", "This Idempotency-Key was used with another request less than a day ago. Use a new key for each request.").WithCode("idempotency_key_reused")
	errLost   = noRetry(fault.New(fault.Conflict, "It is not known what came of the first call with this Idempotency-Key, or it broke off: it may have been answered and billed. It is not sent again; use another key to do so.").WithCode("idempotency_outcome_unknown"))
	errTooBig = noRetry(fault.New(fault.Conflict, "The first call with this Idempotency-Key was answered and billed, and the answer was too large to be kept. It is not sent again; use another key to do so.").WithCode("idempotency_not_replayable"))
)

func noRetry(f *fault.Error) *fault.Error {
	f.NoRetry = true
	return f
}

// readIdempotencyKey finds out whether the call has a key.
func (c *call) readIdempotencyKey(rc *fasthttp.RequestCtx) error {
	keys := rc.Request.Header.PeekAll("Idempotency-Key")
	if len(keys) == 0 || c.g.Kept == nil {
		return nil
	}
	key := keys[0]
	if len(keys) > 1 || len(key) == 0 || len(key) > maxIdempotencyKey || bytes.ContainsFunc(key, func(r rune) bool { return r < ' ' || r > '~' }) {
		return fault.Field("Idempotency-Key", "Idempotency-Key must be one header of 1 to %d printable ASCII characters.", maxIdempotencyKey)
	}
	body := sha256.Sum256(c.request.Body)
	if form := c.request.Form; form != nil {
		var err error
		if body, err = form.Digest(c.form); err != nil {
			return err
		}
	}
	asked := [][]byte{[]byte(c.endpoint.String()), body[:]}
	if in := rc.Request.Header.Peek(conversationHeader); len(in) > 0 {
		asked = append(asked, in)
	}
	c.kept = &keeping{
		claim:   tenant.IdempotencyClaim(c.scope, string(key)),
		request: c.scope.Digest("idempotent request", asked...),
	}
	return nil
}

// claim is what the attempts of the call claim.
func (c *call) claim() string {
	if c.kept == nil {
		return ""
	}
	return c.kept.claim
}

// recall looks for an answer where there is no hold because another call has the
// claim, or because no budget has room for one more: a replay costs nothing.
func (c *call) recall(err error) error {
	f := fault.As(err)
	if c.kept == nil || f.Code != limiter.CodeClaimed && f.Type != "budget_held" && f.Code != "insufficient_quota" {
		return err
	}
	return c.replayed(err)
}

// replayed is what the call ends with where it cannot be made because of err: the
// answer, if it was made before.
func (c *call) replayed(err error) error {
	if c.kept == nil {
		return err
	}
	k, failed := c.g.Kept.KeptCall(c.ctx, c.scope, c.kept.claim)
	if failed != nil || k.State == tenant.Begun && k.Request == c.kept.request {
		return err
	}
	return c.found(k)
}

// beginKept writes down that the call is about to be sent.
func (c *call) beginKept() error {
	if c.kept == nil {
		return nil
	}
	k := tenant.KeptCall{Claim: c.kept.claim, Project: c.scope.ProjectID(), Request: c.kept.request, Owner: c.id, Until: c.g.now().Add(tenant.KeptFor)}
	there, begun, err := c.g.Kept.BeginKept(c.ctx, c.scope, k)
	switch {
	case fault.Is(err, fault.RateLimited):
		return err
	case err != nil:
		return errNotKept(err)
	case begun:
		c.kept.begun = true
		return nil
	}
	return c.found(there)
}

func errNotKept(cause error) error {
	f := fault.Wrap(fault.Unavailable, cause, "The gateway cannot see at the moment whether this Idempotency-Key was used. Nothing was sent; try again.")
	f.RetryAfter = time.Second
	return f
}

// found is what the call ends with since there was one with its key.
func (c *call) found(k tenant.KeptCall) error {
	switch {
	case k.Request != c.kept.request:
		return errReused
	case k.State == tenant.TooMuch:
		return errTooBig
	case k.State != tenant.Kept:
		return errLost
	}
	plain, err := c.g.Sealer.Open(c.ctx, c.scope, sealedAnswer, k.Claim, k.Sealed)
	if err != nil {
		return errNotKept(err)
	}
	head, body, _ := bytes.Cut(plain, []byte{'\n'})
	a := &keptAnswer{body: body}
	if err := json.Unmarshal(head, a); err != nil {
		return errNotKept(err)
	}
	c.kept.replay, c.kept.owner = a, k.Owner
	return errReplay
}

// endKept writes down what came of an attempt, before another call may claim the
// key: see endAttempt.
func (c *call) endKept(a *attempt) {
	if c.kept == nil || !c.kept.begun {
		return
	}
	c.kept.begun = false
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.ctx), keptTimeout)
	defer cancel()
	k := tenant.KeptCall{Claim: c.kept.claim, Owner: c.id, State: tenant.Begun}
	if a.sent {
		switch a.entry.Outcome {
		case ledger.Answered:
			if c.unremembered() != nil { // the client is not given the answer, nor is it later
				k.State, c.kept.lost = tenant.Lost, true
				break
			}
			k.State = tenant.TooMuch
			if plain := c.keptPlain(a); plain != nil {
				if k.Sealed, c.kept.err = c.g.Sealer.Seal(ctx, c.scope, sealedAnswer, k.Claim, plain); c.kept.err == nil {
					k.State = tenant.Kept
				}
			}
		case ledger.Refused, ledger.Failed: // nothing was made: the key is free again
		default:
			k.State, c.kept.lost = tenant.Lost, true
		}
	}
	if err := c.g.Kept.EndKept(ctx, c.scope, k); err != nil {
		c.kept.err = err // it stays begun: nobody will send it again
	}
}

// keptPlain is the answer as it is sealed, nil if it is too large to be kept.
func (c *call) keptPlain(a *attempt) []byte {
	body, answer := c.answer, keptAnswer{Status: fasthttp.StatusOK, Type: "application/json"}
	var tail []byte
	switch {
	case c.stream != nil:
		body, tail = c.kept.body, c.appendTail(nil)
		answer.Type = "text/event-stream"
	case c.relays:
		body, answer.Type = c.kept.body, mediaType(c.reply.Type)
	}
	size := len(body) + len(tail)
	if c.kept.tooMuch || size > maxKeptAnswer || !c.g.keptToday.take(int64(size), c.g.now()) {
		return nil
	}
	var h fasthttp.ResponseHeader
	c.answeredBy(&h, a)
	if c.stream == nil {
		c.costHeaders(&h)
	}
	for name, value := range h.All() {
		if bytes.HasPrefix(name, []byte("X-Bulkhead-")) || string(name) == conversationHeader {
			answer.Header = append(answer.Header, [2]string{string(name), string(value)})
		}
	}
	plain, err := json.Marshal(answer)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return append(append(append(plain, '\n'), body...), tail...)
}

// writeReplay writes the answer that there was.
func (c *call) writeReplay(rc *fasthttp.RequestCtx) {
	h, k := &rc.Response.Header, c.kept.replay
	h.Set("X-Request-Id", c.id)
	h.Set("X-Bulkhead-Idempotent-Replay", "true")
	h.Set("X-Bulkhead-Original-Request-Id", c.kept.owner)
	c.limitHeaders(h)
	for _, kv := range k.Header {
		h.Set(kv[0], kv[1])
	}
	h.SetContentType(k.Type)
	c.setStatus(rc, k.Status)
	c.firstByte = max(c.g.now().Sub(c.start), 1)
	rc.Response.SetBodyRaw(k.body)
	c.g.metrics.replays.Inc()
}

// capture keeps what is sent of a stream.
func (c *call) capture(b []byte) {
	k := c.kept
	if k == nil || !k.begun || k.all || k.tooMuch {
		return
	}
	need := len(k.body) + len(b)
	if need > cap(k.body) && need <= maxKeptAnswer {
		room := min(max(need, 2*cap(k.body), 4<<10), maxKeptAnswer)
		if c.takeRoom(int64(room-cap(k.body))) != nil {
			need = maxKeptAnswer + 1 // as if it were too large
		} else {
			k.body = append(make([]byte, 0, room), k.body...)
		}
	}
	if need > maxKeptAnswer {
		k.tooMuch, k.body = true, nil
		return
	}
	k.body = append(k.body, b...)
}

// keptToday bounds what a gateway keeps: so many bytes in 24 hours, by the hour.
type keptToday struct {
	mu    sync.Mutex
	hours [24]int64
	at    [24]int64 // the hour that each counts
	sum   int64
}

func (t *keptToday) take(n int64, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	hour := now.Unix() / 3600
	for i := range t.hours {
		if t.at[i] <= hour-24 || t.at[i] > hour {
			t.sum -= t.hours[i]
			t.hours[i] = 0
		}
	}
	if t.sum+n > maxKeptTotal {
		return false
	}
	i := hour % 24
	t.hours[i] += n
	t.at[i], t.sum = hour, t.sum+n
	return true
}
