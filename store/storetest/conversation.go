package storetest

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"bulkhead/fault"
	"bulkhead/memory"
	"bulkhead/openai"
	"bulkhead/tenant"
)

var said = memory.Limits{Conversations: 100, Items: 1000, Bytes: 1 << 20}

func conversation(s tenant.Scope, id, says string, at time.Time) memory.Conversation {
	return memory.Conversation{ID: id, ProjectID: s.ProjectID(), CreatedBy: "key_same", AgentID: "agent_same", UserID: "user_same", Bound: true,
		Metadata: map[string]string{"of": says}, CreatedAt: at}
}

func itemSaying(id, says string, starts bool) memory.Item {
	return memory.Item{ID: id, Starts: starts, Tokens: 3, Body: []byte(`{"type":"message","text":` + text(says) + `}`)}
}

// stored is the error of what also returns what was stored.
func stored(_ memory.Tail, err error) error { return err }

// furnishConversations gives a company conversations, one of which belongs to nobody
// yet.
func furnishConversations(t *testing.T, w *world, s tenant.Scope, name string, at time.Time) {
	t.Helper()
	ctx, db := w.ctx(), w.db
	items := []memory.Item{itemSaying("msg_1", name+" asks", true), itemSaying("msg_2", name+" answers", false)}
	must(t, db.CreateConversation(ctx, s, conversation(s, "conv_same", name, at), items, said))
	free := conversation(s, "conv_free", name, at)
	free.AgentID, free.UserID, free.Bound = "", "", false
	must(t, stored(db.BeginConversation(ctx, s, free, nil, said)))
	must(t, stored(db.AddTurn(ctx, s, "conv_same", []memory.Item{itemSaying("msg_3", name+" again", true), itemSaying("msg_4", name+" answers again", false)}, said)))
	must(t, db.AddItems(ctx, s, "conv_same", []memory.Item{itemSaying("msg_5", name+" adds", false)}, said))
	must(t, db.SetMemoryDays(ctx, s, int64(20_000+len(name))))
	if name == "beta" { // so that its last turn is another than that of the company before it
		must(t, stored(db.AddTurn(ctx, s, "conv_same", []memory.Item{itemSaying("msg_6", name, true), itemSaying("msg_7", name, true)}, said)))
	}
}

// seeConversations reads all there is of conversations.
func seeConversations(w *world, s tenant.Scope, see func(what string, v any, err error)) {
	ctx, db := w.ctx(), w.db
	for _, id := range []string{"conv_same", "conv_free", "conv_new", "conv_begun"} {
		c, err := db.Conversation(ctx, s, id)
		c.ActiveAt = time.Time{}
		see("conversation", c, err)
		recent, err := db.RecentItems(ctx, s, id, 2)
		see(fmt.Sprint("recent ", recent.Version), spoken(recent.Items), err)
		for _, p := range []openai.Page{all, {Limit: 10, Desc: true}, {Limit: 1, After: "msg_1"}} {
			items, more, err := db.ConversationItems(ctx, s, id, p)
			see(fmt.Sprint("items ", more), spoken(items), err)
		}
		i, err := db.ConversationItem(ctx, s, id, "msg_2")
		see("item", spoken([]memory.Item{i}), err)
	}
	days, err := db.MemoryDays(ctx, s)
	see("days", days, err)
}

// spoken is what items say, without when.
func spoken(items []memory.Item) (out []string) {
	for _, i := range items {
		out = append(out, fmt.Sprintf("%s of %d (%d): %s", i.ID, i.Turn, i.Tokens, i.Body))
	}
	return out
}

// testSeparateConversations makes every change of conversations in acme, where f
// compares what beta sees.
func testSeparateConversations(t *testing.T, w *world, acme tenant.Scope, f func(what string, err error)) {
	t.Helper()
	ctx, db := w.ctx(), w.db
	full := said
	full.Conversations = 3 // its own are counted
	f("CreateConversation", db.CreateConversation(ctx, acme, conversation(acme, "conv_new", "acme", epoch), nil, full))
	full.Conversations = 4
	f("BeginConversation", stored(db.BeginConversation(ctx, acme, conversation(acme, "conv_begun", "acme", epoch), []memory.Item{itemSaying("msg_2", "acme", true)}, full)))
	_, err := db.JoinConversation(ctx, acme, "conv_free", "agent_same", "user_same")
	f("JoinConversation", err)
	_, err = db.SetConversationMetadata(ctx, acme, "conv_same", map[string]string{"of": "acme changed"})
	f("SetConversationMetadata", err)
	f("AddTurn", stored(db.AddTurn(ctx, acme, "conv_same", []memory.Item{itemSaying("msg_10", "acme goes on", false)}, said)))
	i, err := db.ConversationItem(ctx, acme, "conv_same", "msg_10")
	must(t, err)
	same(t, i.Turn, 3)
	f("AddItems", db.AddItems(ctx, acme, "conv_same", []memory.Item{itemSaying("msg_11", "acme adds", false)}, said))
	_, err = db.DeleteItem(ctx, acme, "conv_same", "msg_2")
	f("DeleteItem", err)
	f("SetMemoryDays", db.SetMemoryDays(ctx, acme, 1000))
	f("DeleteConversation", db.DeleteConversation(ctx, acme, "conv_new"))
}

// testSeparateSweeps has two companies whose conversations end at different times.
func testSeparateSweeps(t *testing.T, w *world) {
	t.Helper()
	one, _ := w.company("first")
	two, _ := w.company("second")
	ctx, db := w.ctx(), w.db
	start := january
	for i, s := range []tenant.Scope{one, two} {
		must(t, stored(db.BeginConversation(ctx, s, conversation(s, "conv_swept", "swept", start.Add(time.Duration(i)*time.Hour)), nil, said)))
		must(t, stored(db.BeginConversation(ctx, s, conversation(s, "conv_later", "later", start.AddDate(0, 0, 3).Add(time.Duration(i)*time.Hour)), nil, said)))
	}
	sweep := func(s tenant.Scope, now, want time.Time) {
		t.Helper()
		next, err := db.SweepMemory(ctx, s, now, 10)
		must(t, err)
		if d := next.Sub(want); d < 0 || d > time.Hour/2 {
			t.Errorf("the next is at %s, want %s", next, want)
		}
	}
	there := func(s tenant.Scope, want bool) {
		t.Helper()
		_, err := db.Conversation(ctx, s, "conv_swept")
		same(t, err == nil, want)
	}
	sweep(two, start, start.AddDate(0, 0, 10).Add(time.Hour)) // one's end an hour before
	sweep(one, start.AddDate(0, 0, 11), start.AddDate(0, 0, 13))
	there(one, false)
	there(two, true)
	sweep(two, start.AddDate(0, 0, 11), start.AddDate(0, 0, 13).Add(time.Hour))
	there(two, false)
}

// testForeignConversations asks for what only the other company has.
func testForeignConversations(w *world, acme tenant.Scope, f func(what string, err error, more ...error)) {
	ctx, db := w.ctx(), w.db
	for _, id := range []string{"conv_beta", "conv_nobody", "", "conv_same\x00", "CONV_SAME", "conv_%", "conv_sam", "conv_same "} {
		_, err := db.Conversation(ctx, acme, id)
		_, metadata := db.SetConversationMetadata(ctx, acme, id, nil)
		_, _, items := db.ConversationItems(ctx, acme, id, all)
		_, item := db.ConversationItem(ctx, acme, id, "msg_1")
		_, gone := db.DeleteItem(ctx, acme, id, "msg_1")
		_, joined := db.JoinConversation(ctx, acme, id, "agent_same", "user_same")
		_, recent := db.RecentItems(ctx, acme, id, 5)
		f("conversation "+id, err, metadata, items, item, gone, joined, recent, db.DeleteConversation(ctx, acme, id),
			db.AddItems(ctx, acme, id, []memory.Item{itemSaying("msg_x", "x", true)}, said), stored(db.AddTurn(ctx, acme, id, []memory.Item{itemSaying("msg_y", "y", true)}, said)))
	}
	for _, id := range []string{"msg_of_beta", "msg_nobody", "", "msg_1\x00"} {
		_, item := db.ConversationItem(ctx, acme, "conv_same", id)
		_, gone := db.DeleteItem(ctx, acme, "conv_same", id)
		f("item "+id, item, gone)
	}
	_, _, after := db.ConversationItems(ctx, acme, "conv_same", openai.Page{Limit: 1, After: "msg_of_beta"})
	f("items after", after)
}

// testConversations tests what is particular about conversations.
func testConversations(t *testing.T, open Open) {
	w := newWorld(t, open)
	admin, values := w.company("acme")
	s, err := w.Authenticate(w.ctx(), []byte(values[1])) // a key of a project
	must(t, err)
	ctx, db := w.ctx(), w.db

	// Who may: its project, and of agents and end users those whose first turn it was.
	free := conversation(s, "conv_1", "one", epoch)
	free.AgentID, free.UserID, free.Bound = "", "", false
	must(t, db.CreateConversation(ctx, s, free, nil, said))
	_, err = db.Conversation(ctx, admin, "conv_1")
	wantErr(t, err, tenant.ErrNotFound) // the company as a whole is another project
	c, err := db.JoinConversation(ctx, s, "conv_1", "agent_1", "user_1")
	must(t, err)
	same(t, []any{c.Bound, c.AgentID, c.UserID, c.Version}, []any{true, "agent_1", "user_1", 1})
	_, err = db.JoinConversation(ctx, s, "conv_1", "agent_1", "user_1")
	must(t, err)
	for _, of := range [][2]string{{"agent_1", "user_2"}, {"agent_2", "user_1"}, {"agent_1", ""}, {"", "user_1"}, {"", ""}} {
		_, err = db.JoinConversation(ctx, s, "conv_1", of[0], of[1])
		wantErr(t, err, tenant.ErrNotFound)
	}
	// Of many who want to be the first one is.
	free.ID = "conv_2"
	must(t, db.CreateConversation(ctx, s, free, nil, said))
	var wg sync.WaitGroup
	owners := make(chan string, 10)
	for i := range cap(owners) {
		wg.Go(func() {
			user := fmt.Sprint("user_", i)
			if _, err := db.JoinConversation(ctx, s, "conv_2", "agent_1", user); err == nil {
				owners <- user
			} else if err != tenant.ErrNotFound {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	same(t, len(owners), 1)
	c, err = db.Conversation(ctx, s, "conv_2")
	must(t, err)
	same(t, c.UserID, <-owners)

	// Turns that come at once are each whole, next to each other, and none is lost.
	for i := range 8 {
		wg.Go(func() {
			items := []memory.Item{itemSaying(fmt.Sprint("msg_ask_", i), "ask", true), itemSaying(fmt.Sprint("msg_tell_", i), "tell", false)}
			if _, err := db.AddTurn(ctx, s, "conv_1", items, said); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	tail, err := db.RecentItems(ctx, s, "conv_1", 100)
	must(t, err)
	items := tail.Items
	same(t, []any{len(items), tail.Version}, []any{16, 9})
	for i := 0; i+1 < len(items); i += 2 {
		if items[i].ID[len("msg_ask_"):] != items[i+1].ID[len("msg_tell_"):] || items[i].Turn != int64(i+1) || items[i+1].Turn != items[i].Turn {
			t.Errorf("item %d: %s", i, spoken(items[i:i+2]))
		}
	}
	// A turn goes on where it is said to, whatever came after it.
	added, err := db.AddTurn(ctx, s, "conv_1", []memory.Item{{ID: "msg_late", Turn: 3, Body: []byte(`{}`)}}, said)
	must(t, err)
	last, err := db.RecentItems(ctx, s, "conv_1", 1)
	must(t, err)
	same(t, []any{last.Items[0].ID, last.Items[0].Turn, last.Version}, []any{"msg_late", 3, added.Version})
	same(t, added.Items, last.Items)

	// What is deleted makes room, and raises the version.
	before, err := db.Conversation(ctx, s, "conv_1")
	must(t, err)
	after, err := db.DeleteItem(ctx, s, "conv_1", "msg_late")
	must(t, err)
	same(t, []any{after.Version - before.Version, before.Items - after.Items, before.Bytes - after.Bytes}, []any{1, 1, 2})
	_, err = db.DeleteItem(ctx, s, "conv_1", "msg_late")
	wantErr(t, err, tenant.ErrNotFound)

	// Bounds: of a call that goes past them nothing is stored.
	few := said
	few.Items = 17
	_, err = db.AddTurn(ctx, s, "conv_1", []memory.Item{itemSaying("msg_a", "a", true), itemSaying("msg_b", "b", false)}, few)
	same(t, fault.As(err).Code, "conversation_full")
	few = said
	few.Bytes = after.Bytes + 10
	err = db.AddItems(ctx, s, "conv_1", []memory.Item{itemSaying("msg_a", "aaaaaaaaaa", true)}, few)
	same(t, fault.As(err).Code, "conversation_full")
	_, err = db.ConversationItem(ctx, s, "conv_1", "msg_a")
	wantErr(t, err, tenant.ErrNotFound)
	few.Conversations = 2
	err = db.CreateConversation(ctx, s, conversation(s, "conv_3", "three", epoch), nil, few)
	same(t, fault.As(err).Code, "conversations_exceeded")
	same(t, fault.As(db.MayBegin(ctx, s, few)).Code, "conversations_exceeded")
	must(t, db.MayBegin(ctx, s, said))

	// They go when their time is over, many in turn, the company's own time first.
	for i := range 250 {
		must(t, stored(db.BeginConversation(ctx, s, conversation(s, fmt.Sprint("conv_old_", i), "old", january), []memory.Item{}, memory.Limits{Conversations: 1000})))
	}
	next, err := db.SweepMemory(ctx, s, january.AddDate(0, 0, 9), 10)
	must(t, err)
	if next.Before(january.AddDate(0, 0, 10)) || next.After(january.AddDate(0, 0, 11)) {
		t.Errorf("the next is at %s", next)
	}
	must(t, db.SetMemoryDays(ctx, s, 0))
	_, err = db.SweepMemory(ctx, s, january.AddDate(0, 0, 11), 10)
	must(t, err)
	_, err = db.Conversation(ctx, s, "conv_old_7")
	must(t, err) // for ever
	must(t, db.SetMemoryDays(ctx, s, 5))
	_, err = db.SweepMemory(ctx, s, january.AddDate(0, 0, 6), 10)
	must(t, err)
	for i := range 250 {
		_, err = db.Conversation(ctx, s, fmt.Sprint("conv_old_", i))
		wantErr(t, err, tenant.ErrNotFound)
	}
	_, err = db.Conversation(ctx, s, "conv_1")
	must(t, err)
}
