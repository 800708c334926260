package web

import (
	"bytes"
	"context"
	"encoding/json"
	"time"

	"bulkhead/fault"
	"bulkhead/openai"
	"bulkhead/provider"
	"bulkhead/rag"
	"bulkhead/tenant"
)

// What the gateway asks a model for itself is a call like any other: routed by the
// company's own names, held against its limits and budgets, sent with its
// credential, and on its ledger. It has no client to read from or to answer.

// EmbeddingsService is the operator's own service for embeddings, for companies
// that have chosen no model. It is lent to all of them, as other credentials of the
// operator's are: what it costs counts for the ceiling, and where it costs something
// a company without a ceiling does not have it.
type EmbeddingsService struct {
	Vendor *provider.Vendor
	Model  string
	Secret provider.Secret
}

// Embeddings is the provider's name of the operator's service.
const Embeddings = "embeddings"

// ask makes a call of the gateway's own and returns the answer's body.
func (g *Gateway) ask(ctx context.Context, s tenant.Scope, e openai.Endpoint, model string, body []byte) (answer []byte, err error) {
	c := g.newCall(e)
	c.inner, c.scope, c.opened = true, s, true
	stop := context.AfterFunc(ctx, func() { c.cancel(ctx.Err()) })
	defer stop()
	g.load.begin(c.company(), c)
	g.metrics.inFlight.Inc()
	defer func() {
		if p := recover(); p != nil {
			err = panicked(p)
		}
		c.status, _, _, _ = explain(err)
		if err == nil {
			c.status = 200
		}
		c.end(err)
	}()
	if err := c.request.Scan(e, body); err != nil {
		return nil, err
	}
	c.requested, c.model = model, model
	if c.targets, err = g.innerTargets(c); err != nil {
		return nil, err
	}
	for i := range c.targets {
		if err = c.attempt(nil, c.targets[i]); err == nil {
			return bytes.Clone(c.answer), nil // its memory is given back at the end of the call
		}
		if c.ctx.Err() != nil {
			return nil, context.Cause(c.ctx)
		}
		if !fault.As(err).Retriable {
			break
		}
	}
	return nil, c.retold(err)
}

// innerTargets returns where a call of the gateway's own may go.
func (g *Gateway) innerTargets(c *call) ([]provider.Target, error) {
	if own := c.settings.Embeddings; own != nil && c.endpoint == openai.Embeddings && c.model == Embeddings+"/"+own.Model {
		if c.scope.Test() {
			return nil, fault.New(fault.Forbidden, "A test key reaches the built-in sandbox only.").WithCode("test_key")
		}
		price, _ := c.g.pricesFor(c.scope, true).Find(Embeddings, own.Vendor.Catalogue, own.Model)
		if !free(price) && !c.scope.Company().HasCeiling() {
			return nil, fault.New(fault.Forbidden, "Embeddings are made with a service that the operator lends, and the operator has set no ceiling for your company. Ask the operator for one, or choose a model of your own.").WithCode("ceiling_not_set")
		}
		return append(c.targetRoom[:0], provider.Target{Company: c.company(), Provider: Embeddings, Vendor: own.Vendor, Model: own.Model, Lent: true}), nil
	}
	return c.settings.Router.Route(c.scope, c.endpoint, c.model, c.targetRoom[:0])
}

// embedder makes vectors with the model that a company has chosen, else with the
// operator's service, else by words.
type embedder struct{ g *Gateway }

// Embedder returns what makes the vectors of companies.
func (g *Gateway) Embedder() rag.Embedder { return embedder{g} }

// ID implements rag.Embedder.
func (e embedder) ID(s tenant.Scope) string { return e.g.embedderID(s.Company().EmbeddingModel) }

func (g *Gateway) embedderID(model string) string {
	if model != "" {
		return model
	}
	if own := g.settings.Load().Embeddings; own != nil {
		return Embeddings + "/" + own.Model
	}
	return rag.LexicalID
}

// How texts are sent to an embedder.
const (
	embedTexts = 96      // in one call
	embedBytes = 200_000 // of text in one call
	embedTries = 3
	embedPause = 250 * time.Millisecond // before the second try; twice that before the third
)

// Embed implements rag.Embedder.
func (e embedder) Embed(ctx context.Context, s tenant.Scope, texts []string) ([][]float32, string, error) {
	id := e.ID(s)
	if id == rag.LexicalID {
		return rag.Lexical{}.Embed(ctx, s, texts)
	}
	var all [][]float32
	for len(texts) > 0 {
		n, bytes := 0, 0
		for n < len(texts) && n < embedTexts && (n == 0 || bytes+len(texts[n]) <= embedBytes) {
			bytes += len(texts[n])
			n++
		}
		some, err := e.batch(ctx, s, id, texts[:n])
		if err != nil {
			return nil, id, err
		}
		if len(all) > 0 && len(some[0]) != len(all[0]) {
			return nil, id, garbage("the embeddings have different dimensions", nil)
		}
		all, texts = append(all, some...), texts[n:]
	}
	return all, id, nil
}

// batch embeds some texts in one call, which is made again where that may help.
func (e embedder) batch(ctx context.Context, s tenant.Scope, model string, texts []string) ([][]float32, error) {
	body, err := json.Marshal(struct {
		Model  string   `json:"model"`
		Input  []string `json:"input"`
		Format string   `json:"encoding_format"`
	}{model, texts, "float"})
	if err != nil {
		return nil, err
	}
	for try, pause := 1, embedPause; ; try, pause = try+1, 2*pause {
		answer, err := e.g.ask(ctx, s, openai.Embeddings, model, body)
		if err == nil {
			return openai.Vectors(answer, len(texts))
		}
		if f := fault.As(err); try == embedTries || !f.Retriable && f.Kind != fault.RateLimited {
			return nil, err
		} else if f.RetryAfter > 0 {
			pause = min(f.RetryAfter, 2*time.Second)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
