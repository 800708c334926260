package web

import (
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"bulkhead/fault"
	"bulkhead/openai"
	"bulkhead/rag"
	"bulkhead/tenant"
)

// AgentStore keeps agents and contexts. What it says of errors, lists and policy is
// said at Registry. A project's key sees its project's agents, those of the company
// and those that are shared; it changes its project's only.
type AgentStore interface {
	Agents(ctx context.Context, s tenant.Scope, p openai.Page) ([]tenant.Agent, bool, error)
	Agent(ctx context.Context, s tenant.Scope, id string) (tenant.Agent, error)
	// AgentVersions returns what the agent was, newest first.
	AgentVersions(ctx context.Context, s tenant.Scope, id string) ([]tenant.AgentVersion, error)
	// CreateAgent stores an agent, unless the company has most of them.
	CreateAgent(ctx context.Context, s tenant.Scope, a tenant.Agent, most int64) error
	// UpdateAgent stores a in place of the agent with its id and version.
	UpdateAgent(ctx context.Context, s tenant.Scope, a tenant.Agent) (tenant.Agent, error)
	DeleteAgent(ctx context.Context, s tenant.Scope, id string) error
	// SetDefaultAgent sets the agent of calls in the project that name a model; ""
	// takes it away.
	SetDefaultAgent(ctx context.Context, s tenant.Scope, project, agent string) error
	// SetEmbeddingModel sets what makes the company's vectors; "" is the gateway's own.
	SetEmbeddingModel(ctx context.Context, s tenant.Scope, model string) error

	Contexts(ctx context.Context, s tenant.Scope, p openai.Page) ([]tenant.Context, bool, error)
	Context(ctx context.Context, s tenant.Scope, id string) (tenant.Context, error)
	CreateContext(ctx context.Context, s tenant.Scope, c tenant.Context) error
	UpdateContext(ctx context.Context, s tenant.Scope, id, kind, text string) (tenant.Context, error)
	DeleteContext(ctx context.Context, s tenant.Scope, id string) error

	// MasterKnowledge returns the id of the company whose shared stores are the
	// operator's knowledge, "" if there is none.
	MasterKnowledge(ctx context.Context) (company string, err error)
	SetMasterKnowledge(ctx context.Context, a tenant.Act, company string) error
}

// Bounds of agents.
const (
	maxAgents       = 500 // of one company
	maxInstructions = 32 << 10
	maxAgentStores  = 20
	maxCategories   = 20
	maxTopK         = 50
	maxKnowledge    = 32_000 // tokens
)

// agentObject is the SDK's beta agent, with slug, version, shared, knowledge and
// memory beside it. What this gateway does not do for an agent stands there as off.
type agentObject struct {
	ID           string            `json:"id"`
	Object       string            `json:"object"`
	CreatedAt    int64             `json:"created_at"`
	UpdatedAt    int64             `json:"updated_at"`
	Name         *string           `json:"name"`
	Model        string            `json:"model"`
	Instructions *string           `json:"instructions"`
	Metadata     map[string]string `json:"metadata"`
	MultiAgent   struct {
		Enabled bool `json:"enabled"`
		Max     *int `json:"max_concurrent_subagents"`
	} `json:"multi_agent"`
	Reasoning struct {
		Effort  *string `json:"effort"`
		Summary *string `json:"summary"`
	} `json:"reasoning"`
	ServiceTier string `json:"service_tier"`
	Text        struct {
		Format struct {
			Type string `json:"type"`
		} `json:"format"`
		Verbosity string `json:"verbosity"`
	} `json:"text"`
	Tools      []any `json:"tools"`
	Compaction struct {
		Async bool `json:"async"`
	} `json:"compaction"`
	Experimental struct {
		TimeAwareness bool `json:"time_awareness"`
	} `json:"experimental"`

	Slug      string            `json:"slug"`
	Version   int64             `json:"version"`
	Shared    bool              `json:"shared"`
	ProjectID *string           `json:"project_id"`
	Knowledge *tenant.Knowledge `json:"knowledge"`
	Memory    *tenant.Memory    `json:"memory"`
}

func toAgent(a tenant.Agent) agentObject {
	o := agentObject{ID: a.ID, Object: "agent", CreatedAt: a.CreatedAt.Unix(), UpdatedAt: a.UpdatedAt.Unix(), Name: optional(a.Name), Model: a.Model,
		Instructions: optional(a.Instructions), Metadata: a.Metadata, ServiceTier: "auto", Tools: []any{}, Slug: a.Slug, Version: a.Version, Shared: a.Shared,
		ProjectID: optional(a.ProjectID), Knowledge: a.Knowledge, Memory: a.Memory}
	if o.Metadata == nil {
		o.Metadata = map[string]string{}
	}
	o.Text.Format.Type, o.Text.Verbosity = "text", "medium"
	return o
}

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// agentBody is what creates or changes an agent. A field that is absent is left as
// it is, null takes the default.
type agentBody struct {
	Name         json.RawMessage `json:"name"`
	Model        *string         `json:"model"`
	Instructions json.RawMessage `json:"instructions"`
	Metadata     json.RawMessage `json:"metadata"`
	Slug         *string         `json:"slug"`
	Shared       *bool           `json:"shared"`
	Knowledge    json.RawMessage `json:"knowledge"`
	Memory       json.RawMessage `json:"memory"`

	MultiAgent   json.RawMessage `json:"multi_agent"`
	Reasoning    json.RawMessage `json:"reasoning"`
	ServiceTier  json.RawMessage `json:"service_tier"`
	Text         json.RawMessage `json:"text"`
	Tools        json.RawMessage `json:"tools"`
	Compaction   json.RawMessage `json:"compaction"`
	Experimental json.RawMessage `json:"experimental"`
}

// off are the values of fields that mean that nothing is asked for. Anything else
// is refused: an agent that silently did without would not be the one asked for.
var off = map[string][]string{
	"multi_agent": {`{}`, `{"enabled":false}`, `{"enabled":false,"max_concurrent_subagents":null}`},
	"reasoning":   {`{}`, `{"effort":null}`, `{"summary":null}`, `{"effort":null,"summary":null}`}, "service_tier": {`"auto"`, `"default"`},
	"text":  {`{}`, `{"format":{"type":"text"}}`, `{"verbosity":"medium"}`, `{"format":{"type":"text"},"verbosity":"medium"}`},
	"tools": {`[]`}, "compaction": {`{}`, `{"async":false}`, `{"async":null}`}, "experimental": {`{}`, `{"time_awareness":false}`},
}

// checkOff refuses what the gateway does not do for an agent.
func (b *agentBody) checkOff() error {
	given := map[string]json.RawMessage{"multi_agent": b.MultiAgent, "reasoning": b.Reasoning, "service_tier": b.ServiceTier, "text": b.Text,
		"tools": b.Tools, "compaction": b.Compaction, "experimental": b.Experimental}
	for _, name := range slices.Sorted(maps.Keys(given)) {
		raw := given[name]
		if len(raw) == 0 || string(raw) == "null" {
			continue
		}
		var plain bytes.Buffer
		if json.Compact(&plain, raw) != nil || !slices.Contains(off[name], plain.String()) {
			return fault.Field(name, "%s of an agent is not supported: send it with the call.", name)
		}
	}
	return nil
}

// text reads a string or null into to, if there is one.
func text(raw json.RawMessage, field string, most int, to *string) error {
	if len(raw) == 0 {
		return nil
	}
	var s *string
	if json.Unmarshal(raw, &s) != nil {
		return fault.Field(field, "%s must be a string or null.", field)
	}
	if s == nil {
		*to = ""
		return nil
	}
	if len(*s) > most || !utf8.ValidString(*s) || strings.ContainsRune(*s, 0) {
		return fault.Field(field, "%s must be at most %d bytes of text.", field, most)
	}
	*to = *s
	return nil
}

// apply puts what the body says into the agent.
func (b *agentBody) apply(g *Gateway, r *request, a *tenant.Agent) error {
	if err := b.checkOff(); err != nil {
		return err
	}
	if err := text(b.Name, "name", maxName, &a.Name); err != nil {
		return err
	}
	if err := text(b.Instructions, "instructions", maxInstructions, &a.Instructions); err != nil {
		return err
	}
	if len(b.Metadata) > 0 {
		a.Metadata = nil
		if json.Unmarshal(b.Metadata, &a.Metadata) != nil {
			return fault.Field("metadata", "metadata must be an object of strings.")
		}
		if err := checkMetadataOf(a.Metadata); err != nil {
			return err
		}
	}
	if b.Shared != nil {
		a.Shared = *b.Shared
	}
	if b.Model != nil {
		if err := agentModel(r, *b.Model); err != nil {
			return err
		}
		a.Model = *b.Model
	}
	if a.Model == "" {
		return fault.Field("model", "model is required.")
	}
	if len(b.Memory) > 0 {
		if err := b.memory(a); err != nil {
			return err
		}
	}
	if len(b.Knowledge) > 0 {
		if err := b.knowledge(g, r, a); err != nil {
			return err
		}
	}
	return b.slug(a)
}

// agentModel refuses a model that the caller could not call.
func agentModel(r *request, model string) error {
	if strings.HasPrefix(model, tenant.AgentPrefix) {
		return fault.Field("model", "The model of an agent is not another agent.")
	}
	if _, err := r.settings.Router.Route(r.scope, openai.Chat, model, nil); err != nil {
		return err
	}
	return nil
}

func checkMetadataOf(m map[string]string) error {
	if len(m) > 16 {
		return fault.Field("metadata", "metadata has more than 16 keys.")
	}
	for k, v := range m {
		if k == "" || utf8.RuneCountInString(k) > 64 || utf8.RuneCountInString(v) > 512 || strings.ContainsRune(k+v, 0) {
			return fault.Field("metadata", "Keys of metadata have 1 to 64 characters, values at most 512.")
		}
	}
	return nil
}

// slug takes the agent's name in a call: the one that is given, or one that its
// name makes.
func (b *agentBody) slug(a *tenant.Agent) error {
	if b.Slug != nil {
		a.Slug = *b.Slug
	}
	if a.Slug == "" {
		a.Slug = slugOf(a.Name, a.ID)
	}
	if !slugOK(a.Slug) {
		return fault.Field("slug", "slug must be 1 to 64 of a-z 0-9 . _ - and begin with a letter or digit.")
	}
	return nil
}

func slugOK(s string) bool {
	if s == "" || len(s) > 64 || strings.ContainsRune("._-", rune(s[0])) {
		return false
	}
	return !strings.ContainsFunc(s, func(c rune) bool {
		return !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || strings.ContainsRune("._-", c))
	})
}

// slugOf makes a slug of a name, with a part of the id behind it, so that two
// agents of one name have two.
func slugOf(name, id string) string {
	var b strings.Builder
	for _, c := range strings.ToLower(name) {
		switch {
		case c >= 'a' && c <= 'z' || c >= '0' && c <= '9':
			b.WriteRune(c)
		case b.Len() > 0 && !strings.HasSuffix(b.String(), "-"):
			b.WriteByte('-')
		}
		if b.Len() >= 40 {
			break
		}
	}
	s := strings.Trim(b.String(), "-")
	if s == "" {
		s = "agent"
	}
	return s + "-" + strings.ToLower(id[len(id)-8:])
}

// What an agent looks up where it does not say.
const (
	defaultTopK     = 5
	defaultMinScore = 0.2
	defaultTokens   = 2000

	// The built-in vectors match words, and a passage has many more words than the
	// question: one that fits well scores 0.1 to 0.3, one that has none of the words 0.
	defaultMinWords = 0.05
)

// defaultMinScore is what an agent of the company looks for where it does not say:
// scores of different embedders do not compare.
func (g *Gateway) defaultMinScore(s tenant.Scope) float64 {
	if g.embedderID(s.Company().EmbeddingModel) == rag.LexicalID {
		return defaultMinWords
	}
	return defaultMinScore
}

func (b *agentBody) knowledge(g *Gateway, r *request, a *tenant.Agent) error {
	if string(b.Knowledge) == "null" {
		a.Knowledge = nil
		return nil
	}
	k := tenant.Knowledge{TopK: defaultTopK, MinScore: g.defaultMinScore(r.scope), MaxTokens: defaultTokens}
	d := json.NewDecoder(bytes.NewReader(b.Knowledge))
	d.DisallowUnknownFields()
	if d.Decode(&k) != nil {
		return fault.Field("knowledge", "knowledge must be an object with stores, categories, top_k, min_score, max_tokens and required, each of its kind.")
	}
	switch {
	case len(k.Stores) > maxAgentStores:
		return fault.Field("knowledge.stores", "knowledge.stores has more than %d entries.", maxAgentStores)
	case len(k.Categories) > maxCategories || slices.ContainsFunc(k.Categories, func(c string) bool { return c == "" || len(c) > 512 }):
		return fault.Field("knowledge.categories", "knowledge.categories has at most %d entries of 1 to 512 bytes.", maxCategories)
	case k.TopK < 1 || k.TopK > maxTopK:
		return fault.Field("knowledge.top_k", "knowledge.top_k must be from 1 to %d.", maxTopK)
	case !(k.MinScore >= 0 && k.MinScore <= 1):
		return fault.Field("knowledge.min_score", "knowledge.min_score must be from 0 to 1.")
	case k.MaxTokens < 1 || k.MaxTokens > maxKnowledge:
		return fault.Field("knowledge.max_tokens", "knowledge.max_tokens must be from 1 to %d.", maxKnowledge)
	}
	if len(k.Stores) > 0 {
		// Nobody grants what they do not see.
		seen, err := g.Knowledge.Library.FindStores(r.ctx, r.scope, k.Stores)
		if err != nil {
			return err
		}
		for i, id := range k.Stores {
			if !slices.ContainsFunc(seen, func(st storeSeen) bool { return st.ID == id }) {
				return fault.Field("knowledge.stores["+strconv.Itoa(i)+"]", "No such vector store, or it is not yours.")
			}
		}
	}
	a.Knowledge = &k
	return nil
}

// memory reads what an agent remembers. A field that is not said is as for an agent
// without memory.
func (b *agentBody) memory(a *tenant.Agent) error {
	if string(b.Memory) == "null" {
		a.Memory = nil
		return nil
	}
	var m tenant.Memory
	if err := decodeField("memory", b.Memory, &m); err != nil {
		return err
	}
	if m.Conversation == nil {
		m.Conversation = new(bool)
		*m.Conversation = true
	}
	if n := m.WindowTokens; n != nil && (*n < 0 || *n > maxWindow) {
		return fault.Field("memory.window_tokens", "memory.window_tokens must be from 0 to %d.", maxWindow)
	}
	a.Memory = &m
	return nil
}

// maxWindow bounds the earlier turns of a conversation, in tokens.
const maxWindow = 1_000_000

func (g *Gateway) listAgents(r *request) (any, error) {
	p, err := r.page(pageDefault, pageMost)
	if err != nil {
		return nil, err
	}
	items, more, err := g.Agents.Agents(r.ctx, r.scope, p)
	return listed(p, items, more, err, toAgent, func(o agentObject) string { return o.ID })
}

func (g *Gateway) getAgent(r *request) (any, error) {
	a, err := g.Agents.Agent(r.ctx, r.scope, r.param("agent"))
	if err != nil {
		return nil, err
	}
	return toAgent(a), nil
}

func (g *Gateway) createAgent(r *request) (any, error) {
	var b agentBody
	if err := r.decode(&b); err != nil {
		return nil, err
	}
	now := g.now()
	a := tenant.Agent{ID: openai.NewID("agent_"), ProjectID: r.scope.ProjectID(), CreatedBy: r.scope.KeyID(), Version: 1, CreatedAt: now, UpdatedAt: now}
	if err := b.apply(g, r, &a); err != nil {
		return nil, err
	}
	if err := g.Agents.CreateAgent(r.ctx, r.scope, a, maxAgents); err != nil {
		return nil, agentConflict(err)
	}
	return toAgent(a), nil
}

func agentConflict(err error) error {
	if fault.Is(err, fault.Conflict) && fault.As(err).Unwrap() != nil {
		return fault.Field("slug", "Your company has an agent with this slug already.")
	}
	return err
}

func (g *Gateway) updateAgent(r *request) (any, error) {
	var b agentBody
	if err := r.decode(&b); err != nil {
		return nil, err
	}
	a, err := g.Agents.Agent(r.ctx, r.scope, r.param("agent"))
	if err != nil {
		return nil, err
	}
	if err := b.apply(g, r, &a); err != nil {
		return nil, err
	}
	if a, err = g.Agents.UpdateAgent(r.ctx, r.scope, a); err != nil {
		return nil, agentConflict(err)
	}
	return toAgent(a), nil
}

func (g *Gateway) deleteAgent(r *request) (any, error) {
	id := r.param("agent")
	return deleted{id, "agent.deleted", true}, g.Agents.DeleteAgent(r.ctx, r.scope, id)
}
