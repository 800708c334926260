package store

import (
	"context"
	"errors"
	"slices"
	"time"

	"bulkhead/audit"
	"bulkhead/fault"
	"bulkhead/memory"
	"bulkhead/openai"
	"bulkhead/tenant"
)

// A conversation is seen with a key of its project, and by a token of an end user
// if it is that user's. This is the project and the user in each statement on
// conversation; its items are read in a transaction that has seen it.
const (
	conversationColumns = `id, project_id, created_by, agent_id, user_id, bound, metadata, version, items, bytes, created_at, active_at`
	conversationSeen    = ` AND id = $2 AND project_id = $3 AND (user_id = $4 OR $4 = '')`
	itemColumns         = `id, turn, body, tokens, created_at`
	itemRows            = `SELECT ` + itemColumns + ` FROM conversation_item WHERE company_id = $1`
)

var (
	conversationOne = statement{"conversation_one",
		`SELECT ` + conversationColumns + ` FROM conversation WHERE company_id = $1` + conversationSeen}
	conversationsHeld    = statement{"conversations_held", `SELECT COUNT(*) FROM conversation WHERE company_id = $1`}
	conversationInserted = statement{"conversation_inserted",
		`INSERT INTO conversation (company_id, id, project_id, created_by, agent_id, user_id, bound, metadata, version, last_seq, items, bytes, created_at, active_at)
		SELECT company_id, $2, $3, $4, $5, $6, $7, $8, 1, 0, 0, 0, $9, $9 FROM company WHERE company_id = $1 AND status IN ('active', 'suspended')`}
	// Whose turn is the first owns the conversation from then on.
	conversationBound = statement{"conversation_bound",
		`UPDATE conversation SET agent_id = $4, user_id = $5, bound = TRUE
		WHERE company_id = $1 AND id = $2 AND project_id = $3 AND NOT bound AND (user_id = '' OR user_id = $5)`}
	conversationMetadata = statement{"conversation_metadata",
		`UPDATE conversation SET metadata = $5 WHERE company_id = $1` + conversationSeen}
	conversationDeleted = statement{"conversation_deleted", `DELETE FROM conversation WHERE company_id = $1` + conversationSeen}
	// It is locked from here to the end: who adds at the same time comes after it.
	conversationGrown = statement{"conversation_grown",
		`UPDATE conversation SET version = version + 1, last_seq = last_seq + $5, items = items + $5, bytes = bytes + $6, active_at = $7
		WHERE company_id = $1` + conversationSeen}
	conversationShrunk = statement{"conversation_shrunk",
		`UPDATE conversation SET version = version + 1, items = items - 1, bytes = bytes - $5, active_at = $6 WHERE company_id = $1` + conversationSeen}
	conversationSize = statement{"conversation_size",
		`SELECT last_seq, items, bytes, version FROM conversation WHERE company_id = $1 AND id = $2`}
	conversationsOver = statement{"conversations_over",
		`DELETE FROM conversation WHERE company_id = $1 AND id IN (
			SELECT id FROM conversation WHERE company_id = $1 AND active_at <= $2 ORDER BY active_at, id LIMIT $3)`}
	conversationsNext = statement{"conversations_next", `SELECT COALESCE(MIN(active_at), 0) FROM conversation WHERE company_id = $1`}

	itemInserted = statement{"item_inserted",
		`INSERT INTO conversation_item (company_id, conversation_id, seq, id, turn, body, tokens, created_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`}
	itemOne     = statement{"item_one", itemRows + ` AND conversation_id = $2 AND id = $3`}
	itemDeleted = statement{"item_deleted", `DELETE FROM conversation_item WHERE company_id = $1 AND conversation_id = $2 AND id = $3`}
	itemTurn    = statement{"item_turn",
		`SELECT turn FROM conversation_item WHERE company_id = $1 AND conversation_id = $2 ORDER BY seq DESC LIMIT 1`}
	itemsRecent = statement{"items_recent", itemRows + ` AND conversation_id = $2 ORDER BY seq DESC LIMIT $3`}
	itemList    = list[statement]{ // by number, where other lists have the time
		statement{"items_cursor", `SELECT seq FROM conversation_item WHERE company_id = $1 AND id = $2 AND conversation_id = $3`},
		statement{"items_ascending", itemRows + itemsBetween + ` ORDER BY seq, id LIMIT $6`},
		statement{"items_descending", itemRows + itemsBetween + ` ORDER BY seq DESC, id DESC LIMIT $6`},
	}

	memoryDaysLoaded = statement{"memory_days_loaded", `SELECT memory_days FROM company WHERE company_id = $1`}
	memoryDaysSet    = statement{"memory_days_set", `UPDATE company SET memory_days = $2 WHERE company_id = $1`}
)

const itemsBetween = ` AND conversation_id = $7 AND (seq, id) > ($2, $3) AND (seq, id) < ($4, $5)`

func scanConversation(r row) (c memory.Conversation, err error) {
	err = r.Scan(&c.ID, &c.ProjectID, &c.CreatedBy, &c.AgentID, &c.UserID, &c.Bound, object{&c.Metadata}, &c.Version, &c.Items, &c.Bytes,
		moment{&c.CreatedAt}, moment{&c.ActiveAt})
	return c, err
}

func scanItem(r row) (i memory.Item, err error) {
	var body string
	err = r.Scan(&i.ID, &i.Turn, &body, &i.Tokens, moment{&i.CreatedAt})
	i.Body = []byte(body)
	return i, err
}

// conversation returns a conversation that s sees.
func (t *tx) conversation(s tenant.Scope, id string) (memory.Conversation, error) {
	return only(t, conversationOne, scanConversation, storable(id), s.ProjectID(), s.EndUser())
}

// CreateConversation implements memory.Store.
func (db *DB) CreateConversation(ctx context.Context, s tenant.Scope, c memory.Conversation, items []memory.Item, l memory.Limits) error {
	return db.write(ctx, s, func(t *tx) error {
		if _, err := t.beginConversation(s, c, items, l); err != nil {
			return err
		}
		return t.audit(audit.ConversationCreated, c.ProjectID, c.ID)
	})
}

// MayBegin implements memory.Store.
func (db *DB) MayBegin(ctx context.Context, s tenant.Scope, l memory.Limits) error {
	return db.read(ctx, s.ID(), func(t *tx) error {
		_, err := t.conversationsFit(l)
		return err
	})
}

// conversationsFit returns how many conversations the company has, which are fewer
// than it may have.
func (t *tx) conversationsFit(l memory.Limits) (n int64, err error) {
	if err = t.one(conversationsHeld, []any{&n}); err == nil && n >= l.Conversations {
		err = fault.New(fault.Invalid, "Your company has %d conversations, which is as many as it may have. Delete some.", n).WithCode("conversations_exceeded")
	}
	return n, err
}

// BeginConversation implements memory.Store.
func (db *DB) BeginConversation(ctx context.Context, s tenant.Scope, c memory.Conversation, items []memory.Item, l memory.Limits) (tail memory.Tail, err error) {
	err = db.add(ctx, s, func(t *tx) error {
		tail, err = t.beginConversation(s, c, items, l)
		return err
	})
	return tail, err
}

func (t *tx) beginConversation(s tenant.Scope, c memory.Conversation, items []memory.Item, l memory.Limits) (tail memory.Tail, err error) {
	n, err := t.conversationsFit(l)
	if err != nil {
		return tail, err
	}
	err = must(t.exec(conversationInserted, c.ID, c.ProjectID, c.CreatedBy, c.AgentID, c.UserID, c.Bound, asJSON(c.Metadata), micros(c.CreatedAt)))
	if err != nil {
		return tail, err
	}
	tail.Version = 1
	if len(items) > 0 {
		if tail, err = t.addItems(s, c.ID, items, l); err != nil {
			return tail, err
		}
	}
	if n == 0 { // what comes later is swept with it, or after it
		err = t.askUpkeep(tenant.SweepMemory, t.now)
	}
	return tail, err
}

// Conversation implements memory.Store.
func (db *DB) Conversation(ctx context.Context, s tenant.Scope, id string) (c memory.Conversation, err error) {
	err = db.read(ctx, s.ID(), func(t *tx) error {
		c, err = t.conversation(s, id)
		return err
	})
	return c, err
}

// SetConversationMetadata implements memory.Store.
func (db *DB) SetConversationMetadata(ctx context.Context, s tenant.Scope, id string, metadata map[string]string) (c memory.Conversation, err error) {
	err = db.write(ctx, s, func(t *tx) error {
		if err := must(t.exec(conversationMetadata, storable(id), s.ProjectID(), s.EndUser(), asJSON(metadata))); err != nil {
			return err
		}
		if c, err = t.conversation(s, id); err != nil {
			return err
		}
		return t.audit(audit.ConversationUpdated, c.ProjectID, c.ID)
	})
	return c, err
}

// DeleteConversation implements memory.Store.
func (db *DB) DeleteConversation(ctx context.Context, s tenant.Scope, id string) error {
	return db.write(ctx, s, func(t *tx) error {
		if err := must(t.exec(conversationDeleted, storable(id), s.ProjectID(), s.EndUser())); err != nil {
			return err
		}
		return t.audit(audit.ConversationDeleted, s.ProjectID(), id)
	})
}

// ConversationItems implements memory.Store.
func (db *DB) ConversationItems(ctx context.Context, s tenant.Scope, id string, p openai.Page) (all []memory.Item, more bool, err error) {
	err = db.read(ctx, s.ID(), func(t *tx) error {
		if _, err := t.conversation(s, id); err != nil {
			return err
		}
		p.After, p.Before = storable(p.After), storable(p.Before)
		all, more, err = readPage(t, itemList, p, scanItem, []any{id}, nil)
		return err
	})
	return all, more, err
}

// ConversationItem implements memory.Store.
func (db *DB) ConversationItem(ctx context.Context, s tenant.Scope, id, item string) (i memory.Item, err error) {
	err = db.read(ctx, s.ID(), func(t *tx) error {
		if _, err := t.conversation(s, id); err != nil {
			return err
		}
		i, err = only(t, itemOne, scanItem, id, storable(item))
		return err
	})
	return i, err
}

// AddItems implements memory.Store.
func (db *DB) AddItems(ctx context.Context, s tenant.Scope, id string, items []memory.Item, l memory.Limits) error {
	return db.write(ctx, s, func(t *tx) error {
		if _, err := t.addItems(s, storable(id), items, l); err != nil {
			return err
		}
		return t.audit(audit.ConversationUpdated, s.ProjectID(), id)
	})
}

// AddTurn implements memory.Store.
func (db *DB) AddTurn(ctx context.Context, s tenant.Scope, id string, items []memory.Item, l memory.Limits) (tail memory.Tail, err error) {
	err = db.add(ctx, s, func(t *tx) error {
		tail, err = t.addItems(s, storable(id), items, l)
		return err
	})
	return tail, err
}

func (t *tx) addItems(s tenant.Scope, id string, items []memory.Item, l memory.Limits) (tail memory.Tail, err error) {
	added := int64(0)
	for _, i := range items {
		added += int64(len(i.Body))
	}
	n := int64(len(items))
	if err := must(t.exec(conversationGrown, id, s.ProjectID(), s.EndUser(), n, added, micros(t.now))); err != nil {
		return tail, err
	}
	var seq, count, bytes int64
	if err := t.one(conversationSize, []any{&seq, &count, &bytes, &tail.Version}, id); err != nil {
		return tail, err
	}
	if err := l.Fit(count, bytes); err != nil {
		return tail, err
	}
	seq -= n
	var turn int64
	if err := t.one(itemTurn, []any{&turn}, id); err != nil && !errors.Is(err, errNoRow) {
		return tail, err
	}
	for _, i := range items {
		seq++
		switch {
		case i.Turn != 0:
			turn = i.Turn
		case i.Starts || turn == 0:
			turn = seq
		}
		if err := t.send(itemInserted, id, seq, i.ID, turn, string(i.Body), i.Tokens, micros(t.now)); err != nil {
			return tail, err
		}
		i.Turn, i.CreatedAt = turn, t.now
		tail.Items = append(tail.Items, i)
	}
	return tail, t.flush()
}

// DeleteItem implements memory.Store.
func (db *DB) DeleteItem(ctx context.Context, s tenant.Scope, id, item string) (c memory.Conversation, err error) {
	err = db.write(ctx, s, func(t *tx) error {
		if _, err := t.conversation(s, id); err != nil {
			return err
		}
		i, err := only(t, itemOne, scanItem, id, storable(item))
		if err != nil {
			return err
		}
		if err := must(t.exec(itemDeleted, id, i.ID)); err != nil {
			return err
		}
		if err := must(t.exec(conversationShrunk, id, s.ProjectID(), s.EndUser(), int64(len(i.Body)), micros(t.now))); err != nil {
			return err
		}
		if c, err = t.conversation(s, id); err != nil {
			return err
		}
		return t.audit(audit.ConversationUpdated, c.ProjectID, c.ID)
	})
	return c, err
}

// JoinConversation implements memory.Store.
func (db *DB) JoinConversation(ctx context.Context, s tenant.Scope, id, agent, user string) (c memory.Conversation, err error) {
	if c, err = db.Conversation(ctx, s, id); err != nil {
		return c, err
	}
	if !c.Bound {
		err = db.add(ctx, s, func(t *tx) error {
			if _, err := t.exec(conversationBound, c.ID, s.ProjectID(), agent, user); err != nil {
				return err
			}
			c, err = t.conversation(s, id) // it may be another's now
			return err
		})
	}
	if err == nil && (c.AgentID != agent || c.UserID != user) {
		err = errNoRow
	}
	if err != nil {
		return memory.Conversation{}, err
	}
	return c, nil
}

// RecentItems implements memory.Store.
func (db *DB) RecentItems(ctx context.Context, s tenant.Scope, id string, most int) (tail memory.Tail, err error) {
	err = db.read(ctx, s.ID(), func(t *tx) error {
		c, err := t.conversation(s, id)
		if err != nil {
			return err
		}
		tail.Version = c.Version
		return t.query(itemsRecent, func(r row) error {
			i, err := scanItem(r)
			tail.Items = append(tail.Items, i)
			return err
		}, id, most)
	})
	slices.Reverse(tail.Items)
	return tail, err
}

// MemoryDays implements web.MemoryStore.
func (db *DB) MemoryDays(ctx context.Context, s tenant.Scope) (days int64, err error) {
	err = db.read(ctx, s.ID(), func(t *tx) error { return t.one(memoryDaysLoaded, []any{&days}) })
	return days, err
}

// SetMemoryDays implements web.MemoryStore.
func (db *DB) SetMemoryDays(ctx context.Context, s tenant.Scope, days int64) error {
	return db.write(ctx, s, func(t *tx) error {
		if err := must(t.exec(memoryDaysSet, days)); err != nil {
			return err
		}
		if err := t.askUpkeep(tenant.SweepMemory, t.now); err != nil {
			return err
		}
		return t.audit(audit.MemoryRetentionUpdated, "", t.company)
	})
}

// sweptAtOnce is how many conversations are deleted in one transaction.
const sweptAtOnce = 100

// SweepMemory implements web.UpkeepStore.
func (db *DB) SweepMemory(ctx context.Context, s tenant.Scope, now time.Time, days int64) (next time.Time, err error) {
	for gone := int64(sweptAtOnce); gone == sweptAtOnce; {
		err := db.add(ctx, s, func(t *tx) error {
			own := int64(-1)
			if err := t.one(memoryDaysLoaded, []any{&own}); err != nil {
				return err
			}
			keep := days
			if own >= 0 {
				keep = own
			}
			gone, next = 0, time.Time{}
			if keep == 0 { // until it is said otherwise
				next = now.Add(24 * time.Hour)
				return nil
			}
			kept := time.Duration(keep) * 24 * time.Hour
			var err error
			if gone, err = t.exec(conversationsOver, micros(now.Add(-kept)), sweptAtOnce); err != nil {
				return err
			}
			var first time.Time
			if err := t.one(conversationsNext, []any{moment{&first}}); err != nil {
				return err
			}
			switch {
			case !first.IsZero():
				next = first.Add(kept + sweepEvery)
			case gone > 0: // one may have begun that still saw them and did not ask
				next = now.Add(kept + sweepEvery)
			}
			return nil
		})
		if err != nil {
			return next, err
		}
	}
	return next, nil
}
