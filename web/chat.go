package web

import (
	"context"
	"errors"

	"github.com/valyala/fasthttp"

	"bulkhead/fault"
	"bulkhead/keystore"
	"bulkhead/ledger"
	"bulkhead/openai"
	"bulkhead/provider"
	"bulkhead/tenant"
)

// serveInference answers a call to a model: chat, completions, responses,
// embeddings, moderations, images, sound.
//
// A stream is written after this function returned, so the end of a call is one
// method, call.end, run by whoever writes the last byte: here, or the stream.
func (g *Gateway) serveInference(rc *fasthttp.RequestCtx, e openai.Endpoint) {
	c := g.begin(rc, e)
	defer c.recover(rc)
	err := c.run(rc)
	switch {
	case err == errReplay:
		c.writeReplay(rc)
		err = nil
	case err != nil:
		c.writeError(rc, err)
	case c.reply.Stream:
		c.writeStream(rc) // the stream ends the call
		return
	case c.asIs():
		c.writeAsIs(rc) // likewise
		return
	default:
		c.writeAnswer(rc)
	}
	c.end(err)
}

// run is the whole life of a call until its answer is there, in order. Each
// step needs the Scope that the first one proved; nothing else decides anything
// about a call.
func (c *call) run(rc *fasthttp.RequestCtx) (err error) {
	g := c.g

	// Who asks. From memory, unless the key is new here.
	if c.scope, err = g.Tenants.Authenticate(c.ctx, apiKey(rc)); err != nil {
		c.refused = g.claimed(rc)
		return err
	}
	if err = g.checkAddress(rc, c.scope); err != nil {
		c.refused = proved(c.scope)
		return err
	}
	if c.scope.Project() == nil {
		c.refused = proved(c.scope)
		return fault.New(fault.Forbidden, "An admin key manages a company; it cannot call models. Use a key of a project.").WithCode("admin_key_not_allowed")
	}
	if err = permitted(c.scope, c.scope.ProjectID(), tenant.ModelRequest, callsModels); err != nil {
		c.refused = proved(c.scope)
		return err
	}
	if err = c.open(apiKey(rc)); err != nil {
		return err
	}

	// What for. One strict pass; the body itself is not changed.
	if err = c.readRequest(rc); err != nil {
		return err
	}
	c.model, c.user = c.request.Model, c.scope.EndUser()
	if c.user == "" { // a key names nobody; a token's subject is not to be talked over
		c.user = tenant.UserID(c.scope, c.request.User)
	}

	if err = c.readIdempotencyKey(rc); err != nil {
		return err
	}
	if err = c.goOn(); err != nil {
		return err
	}

	c.beAgent()
	c.annotates = string(rc.Request.Header.Peek(annotationsHeader)) == "true"

	// Where it may go: the targets in the order to try them.
	if c.targets, err = c.settings.Router.Route(c.scope, c.endpoint, c.requested, c.targetRoom[:0]); err != nil {
		return err
	}
	if err = c.stay(); err != nil {
		return err
	}

	// What was said before, which is part of the request from here on.
	if err = c.join(rc); err != nil {
		return c.replayed(err)
	}

	c.g.health.Order(c.targets, c.start)

	// Ask, and ask the next one if that fails. From here on the client's
	// leaving ends the work.
	c.watchClient(rc)
	for i := range c.targets {
		if err = c.attempt(rc, c.targets[i]); err == nil {
			return nil
		}
		if err == errReplay {
			c.attempts = c.attempts[:0] // it was none
			return err
		}
		switch {
		case c.ctx.Err() != nil:
			return context.Cause(c.ctx) // the client left, or the gateway ended the call
		case c.drained():
			return errClientLeft // nobody waits for another answer
		}
		if !fault.As(err).Retriable || c.kept != nil && c.kept.lost { // what may have been made is not made twice
			break
		}
	}
	return c.retold(err)
}

// attempt sends the call to one target and books what it used, unless the
// answer is a stream: that is booked when it ends.
func (c *call) attempt(rc *fasthttp.RequestCtx, t provider.Target) (err error) {
	if t.Lent {
		if err := t.Vendor.Lendable(c.request); err != nil {
			return err
		}
	}
	slot, err := c.g.Ledger.Reserve(c.scope)
	if err != nil {
		return err
	}
	a := c.beginAttempt(t, slot)
	defer func() {
		if err != nil {
			c.endAttempt(a, err)
		}
	}()

	// What it may use: one step against every limit and budget at once. The next
	// attempt is held anew, at its own price.
	if err = c.take(a); err != nil {
		return c.recall(err)
	}

	// What the agent is to know, once for all attempts: what it adds is held.
	if err = c.ground(); err != nil {
		return err
	}

	// The credential is a function of the scope and the target, and of nothing
	// else. No failure is made up for with another one.
	cred, err := c.credential(t)
	if err != nil {
		return err
	}
	a.secret, a.credential = cred.Secret, cred.ID
	if c.previous != nil && cred.ID != c.previous.Credential {
		return errNoPrevious // of another account
	}
	if err = c.beginKept(); err != nil {
		return err
	}
	// On record before anything is sent: who dies now has left what it was.
	if err = a.slot.Open(a.entry); err != nil {
		return err
	}
	upstream := provider.Call{Endpoint: c.endpoint, Stream: c.request.Stream, RequestID: c.id, Hops: c.hops, Header: c.passed(rc, t)}
	if form := c.request.Form; form != nil {
		upstream.FormType = form.ContentType
		upstream.Form, upstream.FormSize = form.Reader(c.form, t.Model)
	} else {
		upstream.Body = c.request.AppendUpstream(c.buffers.forUpstream(int64(len(c.request.Body)+128)), c.upstreamForm(a))
	}
	if err = c.mayDrain(t); err != nil {
		return err
	}
	a.sent, c.sentAt = true, c.g.now()
	if c.reply, err = c.settings.Upstream.Send(c.ctx, t, cred, &upstream); err != nil {
		c.buffers.sent(upstream.Body)
		return err
	}
	if c.reply.Stream != c.request.Stream && !c.endpoint.Media() { // of these some models ignore "stream"
		c.reply.Body.Close()
		return garbage("the provider answered in another form than was asked for", nil)
	}
	if c.reply.Stream || c.asIs() {
		return nil
	}
	err = c.readAnswer() // which closes the answer
	c.buffers.sent(upstream.Body)
	if err != nil {
		return err
	}
	c.answer = c.uncached(c.answer)
	c.hear(c.answer)
	c.endAttempt(a, nil)
	if err = c.unremembered(); err != nil {
		return err
	}
	return c.annotate()
}

// credential returns the credential for the target: the company's own, or the
// operator's where the company has none (Target.Lent). The sandbox runs in
// process and has none.
func (c *call) credential(t provider.Target) (provider.Credential, error) {
	if t.Company != c.scope.ID().String() {
		c.g.metrics.violation(foreignTarget)
		panic("BUG: a target of another company")
	}
	if t.Vendor.Kind == provider.Sandbox {
		return provider.Credential{}, nil
	}
	if t.Provider == Embeddings && c.inner {
		return provider.Credential{Company: t.Owner(), Provider: t.Provider, Secret: c.settings.Embeddings.Secret}, nil
	}
	keys := keystore.Reader(c.g.Keys)
	if t.Lent {
		keys = c.g.Lent
	}
	cred, err := keys.Credential(c.ctx, c.scope, t.Provider)
	if err != nil {
		return cred, err
	}
	if cred.Company != t.Owner() {
		c.g.metrics.violation(foreignCredential)
		panic("BUG: a credential of another company")
	}
	return cred, nil
}

// upstreamForm says what the target must be told differently from what the
// client wrote.
func (c *call) upstreamForm(a *attempt) openai.UpstreamForm {
	t := a.target
	f := openai.UpstreamForm{Model: t.Model, MaxTokensOnly: t.Vendor.MaxTokensOnly}
	// Usage is always asked for; what the client did not ask is hidden again.
	f.IncludeUsage = c.request.Stream && !t.Vendor.NoStreamOptions
	if c.agent != nil && c.endpoint == openai.Chat {
		f.System, f.OneSystem, f.BeforeUser = c.told.system, t.Vendor.OneSystem, c.told.passages
	}
	if t.Lent && (t.Vendor.CacheKey || !c.request.CacheKeySpan.Empty()) {
		f.CacheKey = c.cacheKey()
	}
	if a.money { // the provider must keep to what is held
		t.Vendor.LimitOutput(&f, &a.bound)
	}
	return f
}

// readAnswer reads an answer that is not a stream, and what it used.
func (c *call) readAnswer() (err error) {
	defer c.reply.Body.Close()
	if c.answer, err = readAll(c.reply.Body, c.reply.Size, c.settings.MaxAnswer, c.buffers.forAnswer); err != nil {
		c.broke()
		return err
	}
	found, err := openai.ScanAnswer(c.endpoint, c.answer)
	if err != nil {
		c.broke()
		return garbage("the provider's answer is not a valid one", err)
	}
	a := c.last()
	a.usages.Add(a.target.Vendor, found.Usage, found.HasUsage, found.BadUsage)
	a.seen.Tier, a.seen.TextBytes, a.seen.AudioBytes, a.seen.Whole = found.ServiceTier, found.TextBytes, found.AudioBytes, true
	a.seen.Images = found.Images
	a.searches, a.toolRuns = found.Searches, found.ToolRuns
	if c.endpoint == openai.Responses {
		c.noteResponse(a, found.ID, tokensOf(a))
		if found.Failed { // why, may repeat the key
			c.answer = []byte(a.secret.Mask(string(c.answer)))
		}
	}
	if c.endpoint == openai.Embeddings {
		format := c.request.EncodingFormat
		if format == "" {
			format = "float" // OpenAI's default; the SDKs ask for base64 by themselves
		}
		if c.answer, err = openai.ConvertEmbeddings(nil, c.answer, format); err != nil {
			return garbage("the provider's embeddings are not valid", err)
		}
	}
	return nil
}

// broke notes an answer that came and is none: it will be billed. There is more
// of it than of the text in it.
func (c *call) broke() {
	a := c.last()
	a.broken, a.seen.TextBytes = true, int64(len(c.answer))
}

// outcome says how an attempt ended, for the ledger.
func (c *call) outcome(a *attempt, err error) ledger.Outcome {
	switch {
	case err == nil:
		return ledger.Answered
	case fault.Is(err, fault.ClientLeft) || c.ctx.Err() != nil:
		return ledger.Cancelled
	case c.reply != nil || a.broken:
		return ledger.Cut // it has answered, and what came was no whole answer
	case answered(err):
		return ledger.Refused
	case provider.Unsent(err):
		return ledger.Failed
	}
	return ledger.Unknown
}

// answered reports whether err is what the provider answered. Where there was no
// answer the error has a cause, and its status is the gateway's.
func answered(err error) bool {
	f, ok := errors.AsType[*fault.Error](err)
	return ok && f.Kind == fault.Upstream && f.Status >= 400 && f.Unwrap() == nil
}
