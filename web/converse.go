package web

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/valyala/fasthttp"

	"bulkhead/fault"
	"bulkhead/ledger"
	"bulkhead/memory"
	"bulkhead/openai"
	"bulkhead/provider"
)

// A call joins a conversation by a header. What was said before goes into the
// request before anything is counted, held or looked up, so that it is bounded and
// paid for as if the client had sent it. What is said in the call is in the store
// before the client gets the end of its answer.

const (
	conversationHeader = "X-Conversation-Id"
	newConversation    = "new"
)

// maxHistory bounds stored turns that go before a turn, as JSON in bytes, and
// maxTurn what is stored of the current one.
const (
	maxHistory = 4 << 20
	maxTurn    = memory.MaxItemBytes
)

// conversing is the conversation of a call and what becomes of it.
type conversing struct {
	in      memory.Joined
	current []memory.Message // of the client
	history memory.History
	answer  memory.Answer
	room    int64 // of the answer, taken
	done    bool
	err     error // what was said could not be stored
}

// join finds the conversation of the call, and puts its last turns before the
// current one.
func (c *call) join(rc *fasthttp.RequestCtx) error {
	ids := rc.Request.Header.PeekAll(conversationHeader)
	if len(ids) == 0 || c.g.Memory == nil {
		return nil
	}
	id := string(ids[0])
	switch {
	case len(ids) > 1 || id == "" || len(id) > 64:
		return fault.Field(conversationHeader, "%s must be one header with the id of a conversation, or %q.", conversationHeader, newConversation)
	case c.endpoint != openai.Chat:
		return fault.Field(conversationHeader, "Only chat completions can join a conversation.")
	case c.agent != nil && !c.agent.Remembers():
		return fault.Field(conversationHeader, "This agent joins no conversations.")
	}
	v := &conversing{}
	all, err := memory.ReadMessages(c.request.MessagesSpan.Of(c.request.Body))
	if err != nil {
		return err
	}
	from, alone := memory.Current(all)
	v.current = all[from:]
	if n := len(v.current); n > 0 && v.current[n-1].End-v.current[0].Start > maxTurn {
		return fault.Field("messages", "The current turn has more than %d bytes, which is more than a conversation keeps of one.", maxTurn)
	}
	agent := ""
	if c.agent != nil {
		agent = c.agent.ID
	}
	if id == newConversation {
		v.in.Conversation = c.g.newConversation(c.scope)
		v.in.AgentID, v.in.UserID, v.in.Bound = agent, c.user, true
	} else if v.in, err = c.g.Memory.Chats.Join(c.ctx, c.scope, id, agent, c.user); err != nil {
		return conversationFault(err)
	}
	if err := c.hasRoom(&v.in); err != nil {
		return err
	}
	window := memory.Window{Tokens: c.settings.Memory.Window, Bytes: maxHistory}
	if c.agent != nil && c.agent.Memory != nil && c.agent.Memory.WindowTokens != nil {
		window.Tokens = *c.agent.Memory.WindowTokens
	}
	if v.history, err = memory.Before(v.in.Tail.Items, v.current, alone, window); err != nil {
		return err
	}
	c.said = v
	return c.putBefore(all, from)
}

// hasRoom refuses a turn before it is sent, and billed, where it cannot be stored.
func (c *call) hasRoom(in *memory.Joined) error {
	l := c.settings.Memory.Limits
	if in.Version == 0 {
		return c.g.Memory.Store.MayBegin(c.ctx, c.scope, l)
	}
	return l.Fit(in.Items+2, in.Bytes+1) // a question and an answer at least
}

// putBefore puts the stored turns before the message at from, and reads the request
// anew.
func (c *call) putBefore(all []memory.Message, from int) error {
	history := c.said.history.Messages
	if len(history) == 0 {
		return nil
	}
	body, span := c.request.Body, c.request.MessagesSpan
	at := span.End - 1
	if from < len(all) {
		at = span.Start + all[from].Start
		history = append(history, ',')
	} else {
		history = append([]byte{','}, history...) // there is one message at least
	}
	if err := c.takeRoom(int64(len(body) + len(history))); err != nil {
		return err
	}
	return c.request.Scan(openai.Chat, slices.Concat(body[:at], history, body[at:]))
}

// errNoConversation is the same for an id that is another's and one that never was.
var errNoConversation = func() error {
	e := fault.New(fault.NotFound, "No such conversation, or it is not yours.").WithCode("conversation_not_found")
	e.Param = conversationHeader
	return e
}()

func conversationFault(err error) error {
	switch f := fault.As(known(err)); {
	case f.Kind == fault.NotFound:
		return errNoConversation
	case f.Kind == fault.Internal:
		e := fault.Wrap(fault.Unavailable, err, "The conversation cannot be read at the moment. Nothing was sent; try again.").WithCode("conversation_unavailable")
		e.RetryAfter = time.Second
		return e
	}
	return err
}

// hear takes in what the client is about to be sent.
func (c *call) hear(data []byte) {
	v := c.said
	if v == nil || v.done || v.answer.Cut {
		return
	}
	if need := int64(len(data)); need > v.room {
		room := max(need, 16<<10)
		if c.takeRoom(room) != nil {
			v.answer.Cut = true
			return
		}
		v.room += room
	}
	v.room -= int64(len(data))
	v.answer.Add(data)
}

// heard says that the client has what was taken in.
func (c *call) heard() {
	if c.said != nil {
		c.said.answer.Delivered()
	}
}

// rememberTimeout bounds what the client waits for the store at the end of its
// answer.
const rememberTimeout = 5 * time.Second

// remember stores what was said, before the client is told that the answer is
// whole. Of an answer that the client has broken off it stores what the client got;
// of a call that failed nothing.
func (c *call) remember(a *attempt, err error) {
	v := c.said
	if v == nil || v.done || a.entry.Outcome == ledger.Refused {
		return
	}
	whole := err == nil && !c.drained()
	if !whole && !(c.stream != nil && (err == nil || fault.Is(err, fault.ClientLeft))) {
		return
	}
	v.done = true
	answer, ok := v.answer.Message(whole)
	if !ok {
		return
	}
	items := v.history.Items(v.current, answer, whole && !v.answer.Cut, provider.EstimateTokens)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.ctx), rememberTimeout)
	defer cancel()
	failed := c.g.Memory.Chats.Remember(ctx, c.scope, v.in, items, c.settings.Memory.Limits)
	switch f := fault.As(known(failed)); {
	case failed == nil:
	case f.Kind == fault.NotFound: // it was deleted meanwhile: there is nothing to remember
	case f.Kind == fault.Invalid:
		v.err = f
	default:
		e := fault.Wrap(fault.Unavailable, failed, "The answer came, and was billed, but the conversation cannot be written at the moment: it does not hold this turn.").WithCode("conversation_unavailable")
		e.NoRetry = true
		v.err = e
	}
}

// unremembered is why an answer that came is not given to the client.
func (c *call) unremembered() error {
	if c.said == nil {
		return nil
	}
	return c.said.err
}

// turnOf names the current turn of a conversation for what is looked up once in
// it: the same text in it is the same turn, whatever now stands before it.
func (v *conversing) turnOf(agent, text string) string {
	b, _ := json.Marshal([]string{agent, v.in.ID, text})
	return string(b)
}
