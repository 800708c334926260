package web

import (
	"slices"
	"strings"
	"unicode/utf8"

	"bulkhead/fault"
	"bulkhead/openai"
	"bulkhead/rag"
	"bulkhead/tenant"
)

type storeSeen = rag.Store

// agentVersionObject is an agent as it once was.
type agentVersionObject struct {
	Object       string            `json:"object"`
	Version      int64             `json:"version"`
	CreatedAt    int64             `json:"created_at"`
	CreatedBy    string            `json:"created_by"` // the id of the key
	Name         *string           `json:"name"`
	Model        string            `json:"model"`
	Instructions *string           `json:"instructions"`
	Knowledge    *tenant.Knowledge `json:"knowledge"`
}

func (g *Gateway) listAgentVersions(r *request) (any, error) {
	all, err := g.Agents.AgentVersions(r.ctx, r.scope, r.param("agent"))
	if err != nil {
		return nil, err
	}
	out := make([]agentVersionObject, len(all))
	for i, v := range all {
		out[i] = agentVersionObject{"agent.version", v.Version, v.CreatedAt.Unix(), v.CreatedBy, optional(v.Name), v.Model, optional(v.Instructions), v.Knowledge}
	}
	l := openai.NewList(out, func(agentVersionObject) string { return "" }, false)
	l.FirstID, l.LastID = nil, nil // a version is named by its number
	return l, nil
}

// defaultAgentObject is the agent of calls in a project that name a model.
type defaultAgentObject struct {
	Object string  `json:"object"`
	Agent  *string `json:"agent"` // the agent's id
}

func toDefaultAgent(id string) defaultAgentObject {
	return defaultAgentObject{"project.default_agent", optional(id)}
}

func (g *Gateway) getDefaultAgent(r *request) (any, error) {
	p, err := g.Registry.Project(r.ctx, r.scope, r.param("project"))
	return toDefaultAgent(p.DefaultAgent), err
}

func (g *Gateway) setDefaultAgent(r *request) (any, error) {
	var b struct {
		Agent *string `json:"agent"`
	}
	if err := r.decode(&b); err != nil {
		return nil, err
	}
	if b.Agent == nil || *b.Agent == "" {
		return nil, fault.Field("agent", "agent is required: the id of an agent.")
	}
	return toDefaultAgent(*b.Agent), g.Agents.SetDefaultAgent(r.ctx, r.scope, r.param("project"), *b.Agent)
}

func (g *Gateway) deleteDefaultAgent(r *request) (any, error) {
	return toDefaultAgent(""), g.Agents.SetDefaultAgent(r.ctx, r.scope, r.param("project"), "")
}

// contextObject is what a company tells its agents of itself.
type contextObject struct {
	ID        string `json:"id"`
	Object    string `json:"object"`
	Kind      string `json:"kind"`
	Text      string `json:"text"`
	CreatedAt int64  `json:"created_at"`
	UpdatedAt int64  `json:"updated_at"`
}

func toContext(c tenant.Context) contextObject {
	return contextObject{c.ID, "organization.context", c.Kind, c.Text, c.CreatedAt.Unix(), c.UpdatedAt.Unix()}
}

// maxContext bounds one context, in bytes.
const maxContext = 16 << 10

type contextBody struct {
	Kind *string `json:"kind"`
	Text *string `json:"text"`
}

func (b *contextBody) check() error {
	switch {
	case b.Kind != nil && !slices.Contains(tenant.ContextKinds[:], *b.Kind):
		return fault.Field("kind", "kind must be one of %s.", strings.Join(tenant.ContextKinds[:], ", "))
	case b.Text != nil && (strings.TrimSpace(*b.Text) == "" || len(*b.Text) > maxContext || !utf8.ValidString(*b.Text) || strings.ContainsRune(*b.Text, 0)):
		return fault.Field("text", "text must be 1 to %d bytes of text.", maxContext)
	}
	return nil
}

func (g *Gateway) listContexts(r *request) (any, error) {
	p, err := r.page(pageDefault, pageMost)
	if err != nil {
		return nil, err
	}
	items, more, err := g.Agents.Contexts(r.ctx, r.scope, p)
	return listed(p, items, more, err, toContext, func(o contextObject) string { return o.ID })
}

func (g *Gateway) getContext(r *request) (any, error) {
	c, err := g.Agents.Context(r.ctx, r.scope, r.param("context"))
	return toContext(c), err
}

func (g *Gateway) createContext(r *request) (any, error) {
	var b contextBody
	if err := r.decode(&b); err != nil {
		return nil, err
	}
	switch {
	case b.Kind == nil:
		return nil, fault.Field("kind", "kind is required.")
	case b.Text == nil:
		return nil, fault.Field("text", "text is required.")
	}
	if err := b.check(); err != nil {
		return nil, err
	}
	now := g.now()
	c := tenant.Context{ID: openai.NewID("context_"), CreatedBy: r.scope.KeyID(), Kind: *b.Kind, Text: *b.Text, CreatedAt: now, UpdatedAt: now}
	return toContext(c), g.Agents.CreateContext(r.ctx, r.scope, c)
}

func (g *Gateway) updateContext(r *request) (any, error) {
	var b contextBody
	if err := r.decode(&b); err != nil {
		return nil, err
	}
	if err := b.check(); err != nil {
		return nil, err
	}
	c, err := g.Agents.Context(r.ctx, r.scope, r.param("context"))
	if err != nil {
		return nil, err
	}
	if b.Kind != nil {
		c.Kind = *b.Kind
	}
	if b.Text != nil {
		c.Text = *b.Text
	}
	c, err = g.Agents.UpdateContext(r.ctx, r.scope, c.ID, c.Kind, c.Text)
	return toContext(c), err
}

func (g *Gateway) deleteContext(r *request) (any, error) {
	id := r.param("context")
	return deleted{id, "organization.context.deleted", true}, g.Agents.DeleteContext(r.ctx, r.scope, id)
}

// embeddingsObject says what makes a company's vectors.
type embeddingsObject struct {
	Object string  `json:"object"`
	Model  *string `json:"model"`     // the company's own choice
	By     string  `json:"effective"` // what is used
}

func (g *Gateway) getEmbeddings(r *request) (any, error) {
	return embeddingsObject{"organization.embeddings", optional(r.scope.Company().EmbeddingModel), g.Embedder().ID(r.scope)}, nil
}

// setEmbeddings chooses the model that makes the company's vectors. Those that are
// there are made anew.
func (g *Gateway) setEmbeddings(r *request) (any, error) {
	var b struct {
		Model *string `json:"model"`
	}
	if err := r.decode(&b); err != nil {
		return nil, err
	}
	model := ""
	if b.Model != nil {
		model = *b.Model
		if _, err := r.settings.Router.Route(r.scope, openai.Embeddings, model, nil); err != nil {
			return nil, err
		}
	}
	o := embeddingsObject{"organization.embeddings", optional(model), g.embedderID(model)}
	return o, g.Agents.SetEmbeddingModel(r.ctx, r.scope, model)
}
