package web

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"regexp"
	"runtime/debug"
	"sync"
	"time"

	"github.com/valyala/fasthttp"

	"bulkhead/audit"
	"bulkhead/fault"
	"bulkhead/ledger"
	"bulkhead/limiter"
	"bulkhead/openai"
	"bulkhead/provider"
	"bulkhead/tenant"
)

// call is one request to a model from its first byte to its last. One goroutine
// at a time owns it: the handler, then the writer of the stream.
type call struct {
	g        *Gateway
	settings *Settings
	life     life
	ctx      context.Context // life
	cancel   context.CancelCauseFunc
	id       string // x-request-id
	endpoint openai.Endpoint
	hops     int
	start    time.Time

	scope      tenant.Scope // zero until the key is proved: see opened
	opened     bool
	inner      bool             // of the gateway's own: see inner.go
	refused    *audit.Caller    // whose key it is, if it was refused before that
	request    *openai.Request  // from requests, until the end
	buffers    *buffers         // likewise
	form       *spool           // the body, where it is a form
	relays     bool             // the answer is written as it comes: see asIs
	requested  string           // the name the client asked for
	model      string           // the same, or an agent's model
	agent      *tenant.Agent    // whose call it is; nil: a model's
	told       told             // what the agent was told
	annotates  bool             // the client wants to see it in the answer
	user       string           // the end user's id; "" for none
	kept       *keeping         // of a call with an Idempotency-Key
	said       *conversing      // of a call that joins a conversation
	previous   *tenant.Response // that the call goes on from
	unnoted    error            // why it is not known whose the response is
	modelLimit tenant.Limited
	targets    []provider.Target
	targetRoom [2]provider.Target
	limits     limiter.State
	budgetRoom [4]*tenant.Budget
	bodyBytes  int64
	client     clientWatch
	leaving    leaving
	inLoad     bool // it is on its company's list: see load
	older      *call
	newer      *call

	attempts []*attempt
	first    [1]*attempt // room of attempts
	sentAt   time.Time   // when the last attempt was sent
	reply    *provider.Reply
	answer   []byte
	stream   *stream

	firstByte time.Duration // from the start to the first byte for the client; 0: none
	overhead  time.Duration // of the gateway itself, before the call was sent
	costNano  int64         // of all attempts
	ended     bool
	lingers   bool // the provider's body outlives the call: see letEnd
	status    int
	trace     span
}

// attempt is one try at one target.
type attempt struct {
	target             provider.Target
	entry              ledger.Entry
	slot               ledger.Slot
	hold               limiter.Hold
	secret             provider.Secret // what was sent to the provider
	credential         string          // id of what that is a part of
	price              *ledger.Price
	bound              openai.Bound // what it may use
	money              bool         // a budget of money holds for it
	seen               ledger.Seen  // of the answer
	usages             provider.Usages
	searches, toolRuns int64       // of the vendor's own tools
	text               openai.Text // of a stream that may be cut off, for the model's tokenizer
	sent               bool        // something may have reached the provider
	broken             bool        // the answer began and was not read to its end
	closed             bool
}

// begin makes the call. The RequestCtx is not passed on as a context: it is used
// again after the handler returned, and its Done means that the server stops.
func (g *Gateway) begin(rc *fasthttp.RequestCtx, e openai.Endpoint) *call {
	c := g.newCall(e)
	c.hops, _ = hops(rc) // refused before if it was too many
	return c
}

func (g *Gateway) newCall(e openai.Endpoint) *call {
	c := &call{g: g, settings: g.settings.Load(), endpoint: e, start: g.now(), id: requestID()}
	c.request = requests.Get().(*openai.Request)
	c.buffers = buffersPool.Get().(*buffers)
	c.ctx, c.cancel = &c.life, c.life.cancel
	c.attempts = c.first[:0]
	c.trace = g.startSpan(c)
	return c
}

// requests keeps the scanners of Requests, which hold most of what reading a
// body would allocate. Reset lets go of the body before another company's.
var requests = sync.Pool{New: func() any { return new(openai.Request) }}

// open notes the call under its company, which is known from now on. A company
// that was suspended before the call stood on the list of those to end is refused.
func (c *call) open(key []byte) error {
	c.opened = true
	c.g.load.begin(c.company(), c)
	c.g.metrics.inFlight.Inc()
	if c.g.Tenants.UpToDate(c.scope) {
		return nil
	}
	now, err := c.g.Tenants.Authenticate(c.ctx, key)
	if err != nil {
		return err
	}
	c.scope = now
	return nil
}

func (c *call) company() string { return c.scope.ID().String() }

// watchClient notices when the client leaves.
func (c *call) watchClient(rc *fasthttp.RequestCtx) {
	c.client.start(rc.Conn(), c)
}

// errClientLeft is told to nobody: it is for the log and the count.
var errClientLeft = fault.New(fault.ClientLeft, "The client closed the connection.")

func (c *call) beginAttempt(t provider.Target, slot ledger.Slot) *attempt {
	var a *attempt
	if len(c.attempts) == 0 && c.buffers != nil {
		a = &c.buffers.attempt
	} else {
		a = new(attempt)
	}
	*a = attempt{target: t, slot: slot}
	a.entry = ledger.Entry{
		ID: ledger.NewAttemptID(), RequestID: c.id, ProjectID: c.scope.ProjectID(), KeyID: c.scope.KeyID(),
		Kind: c.endpoint.String(), Provider: t.Provider, Model: t.Model, Requested: c.requested, StartedAt: c.g.now(),
		First: len(c.attempts) == 0, UserID: c.user, Lent: t.Lent,
	}
	if c.agent != nil {
		a.entry.AgentID = c.agent.ID
	}
	c.attempts = append(c.attempts, a)
	return a
}

// last returns the attempt under way, or the last there was; nil if none.
func (c *call) last() *attempt {
	if len(c.attempts) == 0 {
		return nil
	}
	return c.attempts[len(c.attempts)-1]
}

// endAttempt closes the attempt's entry in the ledger, and then its hold.
func (c *call) endAttempt(a *attempt, err error) {
	if a.closed {
		return
	}
	a.closed = true
	var used limiter.Used
	defer func() { a.hold.End(used) }() // after its entry: see limiter.Ender
	defer c.endKept(a)
	defer c.remember(a, err)
	if !a.sent {
		a.slot.Cancel()
		return
	}
	c.report(a, err)
	e := &a.entry
	most, booked := e.HighNano, false
	defer func() { // also where a step below panics
		if !booked {
			e.Outcome, e.Rank, e.CostNano, e.LowNano, e.HighNano = ledger.Unknown, ledger.Estimate, most, 0, most
		}
		c.costNano += e.CostNano
		used = limiter.Used{Nano: e.CostNano, Tokens: e.Usage.Input + e.Usage.Output}
		a.slot.Record(*e)
	}()
	e.Outcome = c.outcome(a, err)
	e.EndedAt = c.g.now()
	switch {
	case c.reply != nil:
		e.Status = c.reply.Status
	case answered(err):
		e.Status = fault.As(err).Status
	}
	c.book(a)
	booked = true
}

// end gives back what the call took and writes down what it was. It is the only
// place that logs, counts and settles, and does so once on every path. A step
// that panics keeps none of the later ones from being made.
func (c *call) end(err error) {
	if c.ended {
		return
	}
	c.ended = true
	defer c.close()
	defer c.writeDown(err)
	c.client.stop()
	if a := c.last(); a != nil {
		c.endAttempt(a, err)
	}
}

// close takes the call off the list of those under way, last of all: who waits
// for it to end may end the process then.
func (c *call) close() {
	c.endDrain()
	if !c.lingers {
		c.cancel(nil)
	}
	if c.opened {
		c.g.metrics.inFlight.Dec()
		c.g.load.end(c.company(), c)
	}
}

// writeDown logs and counts the call. It is deferred, and a panic ends here.
func (c *call) writeDown(err error) {
	if p := recover(); p != nil {
		err = panicked(p)
	}
	now := c.g.now()
	c.log(err, now)
	c.denied(err)
	c.g.metrics.count(c, err, now)
	c.trace.end(c, err)
	c.form.close()
	c.request.Reset()
	requests.Put(c.request)
	c.buffers.giveBack()
	c.request, c.buffers, c.answer, c.attempts = nil, nil, nil, nil
}

// recover ends a call that panicked; fasthttp would let the process die.
func (c *call) recover(rc *fasthttp.RequestCtx) {
	p := recover()
	if p == nil {
		return
	}
	err := panicked(p)
	if c.reply != nil {
		c.reply.Body.Close()
	}
	if rc != nil {
		c.writeError(rc, err)
	}
	c.end(err)
}

func panicked(p any) error {
	return fmt.Errorf("panic: %v\n%s", p, debug.Stack())
}

// log writes the one line of a call. It holds nothing of what was said.
func (c *call) log(err error, now time.Time) {
	level := slog.LevelInfo
	if err != nil && fault.As(err).Kind == fault.Internal {
		level = slog.LevelError
	}
	if !c.g.Log.Enabled(c.ctx, level) {
		return
	}
	room := lineRoom.Get().(*[]slog.Attr)
	attrs := append((*room)[:0], slog.String("id", c.id), slog.String("endpoint", c.endpoint.String()), slog.Int("status", c.status),
		slog.Int64("ms", now.Sub(c.start).Milliseconds()))
	if c.opened {
		attrs = append(attrs, slog.String("company", c.company()), slog.String("project", c.scope.ProjectID()), slog.String("key", c.scope.KeyID()))
	}
	if a := c.last(); a != nil {
		attrs = append(attrs, slog.String("provider", a.target.Provider), slog.String("model", a.target.Model),
			slog.Int("attempts", len(c.attempts)), slog.String("outcome", string(a.entry.Outcome)), slog.Bool("stream", c.request.Stream),
			slog.Int64("input_tokens", a.entry.Usage.Input), slog.Int64("output_tokens", a.entry.Usage.Output),
			slog.Int64("cost_nano_usd", c.costNano), slog.Int64("first_byte_ms", c.firstByte.Milliseconds()),
			slog.Int64("overhead_us", c.overhead.Microseconds()))
	}
	if err != nil {
		attrs = append(attrs, slog.String("error", loggable(err)))
	}
	if c.drained() {
		attrs = append(attrs, slog.Bool("drained", true))
	}
	if c.unnoted != nil {
		attrs = append(attrs, slog.String("response_not_noted", loggable(c.unnoted)))
	}
	if c.kept != nil {
		attrs = append(attrs, slog.Bool("replay", c.kept.replay != nil))
		if c.kept.err != nil {
			attrs = append(attrs, slog.String("not_kept", loggable(c.kept.err)))
		}
	}
	if h, ok := c.g.Log.Handler().(LineHandler); ok {
		h.HandleLine(now, level, "call", attrs)
	} else {
		// Past the Logger, which would look up the line of code that logs: it is this one.
		r := slog.NewRecord(now, level, "call", 0)
		r.AddAttrs(attrs...)
		_ = c.g.Log.Handler().Handle(context.Background(), r)
	}
	clear(attrs)
	*room = attrs
	lineRoom.Put(room)
}

// LineHandler is a slog.Handler that takes a line without a slog.Record, which
// would copy it. It does not keep attrs.
type LineHandler interface {
	HandleLine(t time.Time, level slog.Level, msg string, attrs []slog.Attr)
}

// lineRoom keeps the room for the attributes of a line. They are cleared before
// another company's call has it.
var lineRoom = sync.Pool{New: func() any { room := make([]slog.Attr, 0, 24); return &room }}

// loggable is what may be written of an error. A message made for the client
// may repeat what the client or its provider said, so of those only the code and
// the cause are written: the code if it is the gateway's own, the cause without
// what it quotes.
func loggable(err error) string {
	f := fault.As(err)
	text := ownCode(err)
	switch {
	case f.Kind == fault.Upstream:
		text += fmt.Sprintf(" (provider's status %d)", f.Status)
	case f.Param != "":
		text += " in " + f.Param
	}
	if cause := f.Unwrap(); cause != nil {
		text += ": " + quoted.ReplaceAllString(cause.Error(), `"…"`)
	}
	return text
}

// ownCode is the code of an error if it is the gateway's own, and for what a
// provider answered one word.
func ownCode(err error) string {
	_, typ, code, f := explain(err)
	if f.Kind == fault.Upstream {
		switch code {
		case "upstream_cut", "upstream_garbage", "provider_authentication_failed":
			return code
		}
		return "upstream_error"
	}
	return cmp.Or(code, typ)
}

// quoted is text that an error repeats: net/http quotes an answer that is not
// HTTP, which may be anything.
var quoted = regexp.MustCompile(`"(?:[^"\\]|\\.)*"`)

// garbage is an answer of the provider that cannot be one.
func garbage(message string, cause error) error {
	f := fault.Wrap(fault.Upstream, cause, "%s", message)
	f.Code, f.Retriable = "upstream_garbage", true
	return f
}

// readAll reads r to its end, at most limit bytes. size is what the provider
// says there is, which is believed up to firstRead; below 0 it says nothing.
// room returns the memory to begin with. With an error readAll returns what there
// was before it.
func readAll(r io.Reader, size, limit int64, room func(n int64) []byte) ([]byte, error) {
	n := int64(4 << 10)
	if size >= 0 {
		n = min(size, firstRead) + 1 // so that the end is seen without growing
	}
	b := room(n)
	for {
		n, err := r.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		switch {
		case int64(len(b)) > limit:
			return b, garbage("the provider's answer is too large", nil)
		case err == io.EOF:
			return b, nil
		case err != nil:
			return b, err
		}
		if len(b) == cap(b) {
			b = append(b, 0)[:len(b)]
		}
	}
}
