package web

import (
	"encoding/json"

	"bulkhead/audit"
	"bulkhead/fault"
	"bulkhead/memory"
	"bulkhead/openai"
	"bulkhead/provider"
	"bulkhead/rag"
	"bulkhead/tenant"
)

// Memory is what conversations need.
type Memory struct {
	Store memory.Store
	Chats *memory.Conversations
	// Retention is how long companies keep what was said.
	Retention MemoryRetention
}

// MemorySettings are the bounds of what was said.
type MemorySettings struct {
	Limits memory.Limits
	Window int64 // tokens of stored turns that go before a turn
	Days   int64 // for which companies without a time of their own keep conversations; 0: for ever
}

// conversationObject is OpenAI's conversation object.
type conversationObject struct {
	ID        string            `json:"id"`
	Object    string            `json:"object"`
	CreatedAt int64             `json:"created_at"`
	Metadata  map[string]string `json:"metadata"`
}

func toConversation(c memory.Conversation) conversationObject {
	o := conversationObject{ID: c.ID, Object: "conversation", CreatedAt: c.CreatedAt.Unix(), Metadata: c.Metadata}
	if o.Metadata == nil {
		o.Metadata = map[string]string{}
	}
	return o
}

// itemObject is an item of one.
type itemObject struct {
	json.RawMessage
	id string
}

func toItem(i memory.Item) itemObject { return itemObject{i.Object(), i.ID} }

// readItems makes items of a client's, weighed.
func readItems(raw []json.RawMessage) ([]memory.Item, error) {
	items, err := memory.ReadItems(raw)
	memory.Weigh(items, provider.EstimateTokens)
	return items, err
}

// newConversation is one that begins now, for callers of the scope.
func (g *Gateway) newConversation(s tenant.Scope) memory.Conversation {
	return memory.Conversation{ID: openai.NewID("conv_"), ProjectID: s.ProjectID(), CreatedBy: s.KeyID(), UserID: s.EndUser(), CreatedAt: g.now()}
}

func (g *Gateway) createConversation(r *request) (any, error) {
	var b struct {
		Items    []json.RawMessage `json:"items"`
		Metadata map[string]string `json:"metadata"`
	}
	if err := r.decode(&b); err != nil {
		return nil, err
	}
	if err := rag.CheckMetadata("metadata", b.Metadata); err != nil {
		return nil, err
	}
	items, err := readItems(b.Items)
	if err != nil {
		return nil, err
	}
	c := g.newConversation(r.scope)
	c.Metadata = b.Metadata
	if err := g.Memory.Store.CreateConversation(r.ctx, r.scope, c, items, r.settings.Memory.Limits); err != nil {
		return nil, err
	}
	return toConversation(c), nil
}

func (g *Gateway) getConversation(r *request) (any, error) {
	c, err := g.Memory.Store.Conversation(r.ctx, r.scope, r.param("conversation"))
	return toConversation(c), err
}

func (g *Gateway) updateConversation(r *request) (any, error) {
	var b struct {
		Metadata map[string]string `json:"metadata"` // null empties it
	}
	if err := r.decode(&b); err != nil {
		return nil, err
	}
	if err := rag.CheckMetadata("metadata", b.Metadata); err != nil {
		return nil, err
	}
	c, err := g.Memory.Store.SetConversationMetadata(r.ctx, r.scope, r.param("conversation"), b.Metadata)
	return toConversation(c), err
}

func (g *Gateway) deleteConversation(r *request) (any, error) {
	id := r.param("conversation")
	err := g.Memory.Chats.Delete(r.ctx, r.scope, id)
	return deleted{ID: id, Object: "conversation.deleted", Deleted: true}, err
}

func (g *Gateway) listItems(r *request) (any, error) {
	p, err := r.page(pageDefault, pageMost)
	if err != nil {
		return nil, err
	}
	// Of a list that is not there it is not said that the cursor is not in it.
	id := r.param("conversation")
	if _, err := g.Memory.Store.Conversation(r.ctx, r.scope, id); err != nil {
		return nil, err
	}
	items, more, err := g.Memory.Store.ConversationItems(r.ctx, r.scope, id, p)
	g.Audit.Read(audit.Proved(r.scope), "conversation")
	return listed(p, items, more, err, toItem, func(o itemObject) string { return o.id })
}

func (g *Gateway) createItems(r *request) (any, error) {
	var b struct {
		Items []json.RawMessage `json:"items"`
	}
	if err := r.decode(&b); err != nil {
		return nil, err
	}
	if len(b.Items) == 0 {
		return nil, fault.Field("items", "items is required, with at least one item.")
	}
	items, err := readItems(b.Items)
	if err != nil {
		return nil, err
	}
	if err := g.Memory.Store.AddItems(r.ctx, r.scope, r.param("conversation"), items, r.settings.Memory.Limits); err != nil {
		return nil, err
	}
	all := make([]itemObject, len(items))
	for i := range items {
		all[i] = toItem(items[i])
	}
	return openai.NewList(all, func(o itemObject) string { return o.id }, false), nil
}

func (g *Gateway) getItem(r *request) (any, error) {
	i, err := g.Memory.Store.ConversationItem(r.ctx, r.scope, r.param("conversation"), r.param("item"))
	if err != nil {
		return nil, err
	}
	g.Audit.Read(audit.Proved(r.scope), "conversation")
	return i.Object(), nil
}

func (g *Gateway) deleteItem(r *request) (any, error) {
	c, err := g.Memory.Chats.DeleteItem(r.ctx, r.scope, r.param("conversation"), r.param("item"))
	return toConversation(c), err
}
