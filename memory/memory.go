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
	"time"

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
	ID   string
	Turn int64 // the number of the turn; 0 before it is stored: see Starts
	// Starts says of an item without a Turn that it is the first of one. Another
	// goes on with the turn of the item before it.
	Starts bool
	// Body is the item as the API has it, but for its id: a JSON object.
	Body      []byte
	Tokens    int64 // an estimate, as part of a chat
	CreatedAt time.Time
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
	// RecentItems returns the last items, at most so many, oldest first, and the
	// version of the conversation at which they were the last.
	RecentItems(ctx context.Context, s tenant.Scope, id string, most int) (items []Item, version int64, err error)
	// BeginConversation is CreateConversation for one that begins with a turn. It
	// leaves no row in the audit log, nor does AddTurn.
	BeginConversation(ctx context.Context, s tenant.Scope, c Conversation, items []Item, l Limits) error
	// AddTurn is AddItems for what was said in a call.
	AddTurn(ctx context.Context, s tenant.Scope, id string, items []Item, l Limits) error
}

// maxRecent is how many items are looked at for a turn. An open tool call that is
// further back is not found.
const maxRecent = 500

// Conversations is what chats join.
type Conversations struct {
	store Store
}

// New returns the conversations of a store.
func New(store Store) *Conversations { return &Conversations{store: store} }

// Join returns a conversation for a turn of an agent and an end user, with its last
// items, oldest first.
func (c *Conversations) Join(ctx context.Context, s tenant.Scope, id, agent, user string) (Conversation, []Item, error) {
	joined, err := c.store.JoinConversation(ctx, s, id, agent, user)
	if err != nil {
		return Conversation{}, nil, err
	}
	items, _, err := c.store.RecentItems(ctx, s, id, maxRecent)
	return joined, items, err
}

// Remember stores what was said in a turn. Once it has returned without an error
// the turn is there whatever happens to the gateway. A Conversation without a
// Version begins with it.
func (c *Conversations) Remember(ctx context.Context, s tenant.Scope, in Conversation, items []Item, l Limits) error {
	if in.Version == 0 {
		return c.store.BeginConversation(ctx, s, in, items, l)
	}
	return c.store.AddTurn(ctx, s, in.ID, items, l)
}
