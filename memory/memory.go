// Package memory owns what was said: conversations, and what goes of one before
// the turn that is being asked.
//
// A conversation is a list of items in the form of OpenAI's Conversations API,
// which the store keeps. What the gateway hears in a chat becomes items, and goes
// back into a chat as messages: the two forms meet in chat.go. The package keeps
// nothing of what agents tell models beside what people wrote: passages, contexts
// and instructions are not what was said.
package memory

import (
	"context"
	"encoding/json"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"bulkhead/fault"
	"bulkhead/openai"
	"bulkhead/tenant"
)

// Conversation is a list of items of one project of a company. It belongs to one
// agent and one end user from its first turn on; its id alone opens nothing.
type Conversation struct {
	ID        string
	ProjectID string
	CreatedBy string // the id of the key
	// AgentID and UserID are whose turns may join it: "" is a bare model, and no end
	// user. Until it is Bound, which its first turn does, any agent may, and if
	// UserID is "" any end user.
	AgentID string
	UserID  string
	Bound   bool

	Metadata map[string]string
	// Version is raised with every change of the items.
	Version   int64
	Items     int64
	Bytes     int64 // of the items
	CreatedAt time.Time
	ActiveAt  time.Time // when the items were last changed
}

// Item is one item of a conversation.
type Item struct {
	ID   string `json:"id"`
	Turn int64  `json:"turn"` // the number of the turn; 0 before it is stored: see Starts
	// Starts says of an item without a Turn that it is the first of one. Another
	// goes on with the turn of the item before it.
	Starts bool `json:"-"`
	// Body is the item as the API has it, but for its id: a JSON object.
	Body      json.RawMessage `json:"body"`
	Tokens    int64           `json:"tokens"` // an estimate, as part of a chat
	CreatedAt time.Time       `json:"-"`      // set by the store where it is read
}

// Object returns the item as the API has it.
func (i Item) Object() json.RawMessage {
	b := append([]byte(`{"id":"`), i.ID...)
	return append(append(b, `",`...), i.Body[1:]...)
}

// Limits bound what a company keeps of what was said.
type Limits struct {
	Conversations int64 // of the company
	Items         int64 // of one conversation
	Bytes         int64 // of the items of one conversation
}

// Fit refuses more items or bytes than one conversation may have.
func (l Limits) Fit(items, bytes int64) error {
	if items > l.Items || bytes > l.Bytes {
		return fault.New(fault.Invalid, "The conversation would have %d items of %d bytes; it may have %d of %d. Begin a new one.", items, bytes, l.Items, l.Bytes).WithCode("conversation_full")
	}
	return nil
}

// Store keeps conversations. A conversation is there for keys of its project, and
// if the key is a token of an end user for that user's only; for others, and where
// it never was, each method returns tenant.ErrNotFound. Lists are as openai.Page
// says; a cursor that is not there is tenant.ErrNotFound. What would be more than
// Limits is a *fault.Error.
type Store interface {
	// CreateConversation stores c with its first items, which it numbers.
	CreateConversation(ctx context.Context, s tenant.Scope, c Conversation, items []Item, l Limits) error
	Conversation(ctx context.Context, s tenant.Scope, id string) (Conversation, error)
	SetConversationMetadata(ctx context.Context, s tenant.Scope, id string, metadata map[string]string) (Conversation, error)
	DeleteConversation(ctx context.Context, s tenant.Scope, id string) error

	ConversationItems(ctx context.Context, s tenant.Scope, id string, p openai.Page) ([]Item, bool, error)
	ConversationItem(ctx context.Context, s tenant.Scope, id, item string) (Item, error)
	// AddItems adds items behind those there are. Either all are stored, next to each
	// other, or none.
	AddItems(ctx context.Context, s tenant.Scope, id string, items []Item, l Limits) error
	DeleteItem(ctx context.Context, s tenant.Scope, id, item string) (Conversation, error)

	// JoinConversation returns the conversation for a turn of an agent and an end
	// user, whose it is from then on; tenant.ErrNotFound also where it is another's.
	JoinConversation(ctx context.Context, s tenant.Scope, id, agent, user string) (Conversation, error)
	// RecentItems returns the last items, at most so many.
	RecentItems(ctx context.Context, s tenant.Scope, id string, most int) (Tail, error)
	// MayBegin refuses one more conversation where the company has as many as it may.
	MayBegin(ctx context.Context, s tenant.Scope, l Limits) error
	// BeginConversation is CreateConversation for one that begins with a turn. It
	// leaves no row in the audit log, nor does AddTurn.
	BeginConversation(ctx context.Context, s tenant.Scope, c Conversation, items []Item, l Limits) (Tail, error)
	// AddTurn is AddItems for what was said in a call. It returns the items as they
	// are stored, and the version that they made.
	AddTurn(ctx context.Context, s tenant.Scope, id string, items []Item, l Limits) (Tail, error)
}

// Tail is the end of a conversation: its last items, oldest first, as they were at a
// version. Two tails of one conversation with the same version are the same.
type Tail struct {
	Version int64  `json:"version"`
	Items   []Item `json:"items"`
}

// maxRecent is how many items are looked at for a turn. An open tool call that is
// further back is not found.
const maxRecent = 500

// Conversations is what chats join: the store, and before it a cache of what was
// said last. The store is asked for each turn whose the conversation is and at which
// version: a cache that is old, empty or away changes nothing that is answered.
type Conversations struct {
	store  Store
	cache  Cache
	puts   sync.WaitGroup
	closed atomic.Bool
	busy   chan struct{} // a place for each that is being put
}

// maxPuts bounds how many tails are put into the cache at one time. What comes on
// top is not: it is read from the store when it is needed.
const maxPuts = 64

// New returns the conversations of a store.
func New(store Store, cache Cache) *Conversations {
	return &Conversations{store: store, cache: cache, busy: make(chan struct{}, maxPuts)}
}

// Close waits for what is on its way into the cache. It is safe to call twice.
func (c *Conversations) Close() error {
	c.closed.Store(true)
	c.puts.Wait()
	return nil
}

// Joined is a conversation that a turn has joined.
type Joined struct {
	Conversation
	Tail Tail
}

// Join returns a conversation for a turn of an agent and an end user.
func (c *Conversations) Join(ctx context.Context, s tenant.Scope, id, agent, user string) (j Joined, err error) {
	var cached Tail
	var hit bool
	var both sync.WaitGroup
	both.Go(func() { cached, hit = c.cache.Get(ctx, s, id) }) // whose it is, the store says
	j.Conversation, err = c.store.JoinConversation(ctx, s, id, agent, user)
	both.Wait()
	if err != nil {
		return Joined{}, err
	}
	if hit && cached.Version == j.Version {
		j.Tail = cached
		return j, nil
	}
	if j.Tail, err = c.store.RecentItems(ctx, s, id, maxRecent); err == nil {
		c.put(s, id, j.Tail)
	}
	return j, err
}

// Remember stores what was said in a turn. Once it has returned without an error
// the turn is there whatever happens to the gateway. A Conversation without a
// Version begins with it.
func (c *Conversations) Remember(ctx context.Context, s tenant.Scope, in Joined, items []Item, l Limits) error {
	var added Tail
	var err error
	if in.Version == 0 {
		added, err = c.store.BeginConversation(ctx, s, in.Conversation, items, l)
	} else {
		added, err = c.store.AddTurn(ctx, s, in.ID, items, l)
	}
	if err != nil {
		return err
	}
	if in.Version != 0 && added.Version != in.Tail.Version+1 {
		return nil // another turn came between: what is in the cache is old, and is seen to be
	}
	all := slices.Concat(in.Tail.Items, added.Items)
	c.put(s, in.ID, Tail{added.Version, all[max(0, len(all)-maxRecent):]})
	return nil
}

// put puts a tail into the cache, on nobody's time.
func (c *Conversations) put(s tenant.Scope, id string, t Tail) {
	if c.closed.Load() {
		return
	}
	select {
	case c.busy <- struct{}{}:
	default:
		return
	}
	c.puts.Go(func() {
		defer func() { <-c.busy }()
		ctx, cancel := context.WithTimeout(context.Background(), putTimeout)
		defer cancel()
		c.cache.Put(ctx, s, id, t)
	})
}

const putTimeout = 5 * time.Second

// Delete deletes a conversation, also from the cache.
func (c *Conversations) Delete(ctx context.Context, s tenant.Scope, id string) error {
	err := c.store.DeleteConversation(ctx, s, id)
	if err == nil {
		c.cache.Drop(ctx, s, id)
	}
	return err
}

// DeleteItem deletes an item of a conversation, also from the cache.
func (c *Conversations) DeleteItem(ctx context.Context, s tenant.Scope, id, item string) (Conversation, error) {
	out, err := c.store.DeleteItem(ctx, s, id, item)
	if err == nil {
		c.cache.Drop(ctx, s, id)
	}
	return out, err
}

// Forget empties the cache of a company whose calls have ended, and sees that
// nothing is left.
func (c *Conversations) Forget(ctx context.Context, s tenant.Scope) error {
	c.puts.Wait()
	return c.cache.Forget(ctx, s)
}

// Has reports whether there is something in this process of the company with that
// id, and Evict drops it: of one that was erased elsewhere.
func (c *Conversations) Has(company string) bool {
	l, ok := c.cache.(*Local)
	return ok && l.has(company)
}

// Evict is said at Has.
func (c *Conversations) Evict(company string) {
	if l, ok := c.cache.(*Local); ok {
		l.evict(company)
	}
}
