package store

import (
	"context"
	"slices"
	"strings"

	"bulkhead/ledger"
	"bulkhead/openai"
	"bulkhead/tenant"
)

// The columns of an entry. Calls of one key for one model, which are most of what
// comes at the same time, have the same in entryShared; entryRare is at its default
// in most.
const (
	entryShared = `project_id, key_id, kind, provider, model, requested, outcome, rank, status, priced, agent_id, user_id, tier, lent`
	entryOwn    = `id, request_id, input, cached_input, output, cost_nano, started_at, ended_at`
	entryUsual  = entryShared + ", " + entryOwn
	entryRare   = `cache_write, audio_input, image_input, reasoning, audio_output, image_output,
	accepted_prediction, rejected_prediction, total, again, marks, under_nano, over_nano,
	cache_write_1h, searches, search_context, tools, seconds, images, characters`
	entryColumns = entryUsual + ", " + entryRare
)

const (
	entryRows    = `SELECT ` + entryColumns + ` FROM entry WHERE company_id = $1`
	entryBetween = ` AND id > $2 AND id < $3`
)

// An id begins with the time of the start, so the primary key is the order.
var entryList = list[statement]{
	statement{"entries_cursor", `SELECT started_at FROM entry WHERE company_id = $1 AND id = $2`},
	statement{"entries_ascending", entryRows + entryBetween + ` ORDER BY id LIMIT $4`},
	statement{"entries_descending", entryRows + entryBetween + ` ORDER BY id DESC LIMIT $4`},
}

// An entry that is appended selects from the company so that an erased one gets
// none that arrives late. Each value that is bound costs, and each statement: eight
// entries with the same in the shared columns have one, in which that is bound once.
// (With more, SQLite's driver looks longer for each argument than they save. The
// company comes last, or SQLite would put the others in a table of their own first.)
const together = 8

var (
	entriesAppended = statement{"entries_appended", `INSERT INTO entry (company_id, ` + entryUsual + `)
		SELECT company_id, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, own.* FROM (VALUES
			(CAST($16 AS TEXT), CAST($17 AS TEXT), CAST($18 AS BIGINT), CAST($19 AS BIGINT), CAST($20 AS BIGINT), CAST($21 AS BIGINT),
			CAST($22 AS BIGINT), CAST($23 AS BIGINT)),
			($24, $25, $26, $27, $28, $29, $30, $31),
			($32, $33, $34, $35, $36, $37, $38, $39),
			($40, $41, $42, $43, $44, $45, $46, $47),
			($48, $49, $50, $51, $52, $53, $54, $55),
			($56, $57, $58, $59, $60, $61, $62, $63),
			($64, $65, $66, $67, $68, $69, $70, $71),
			($72, $73, $74, $75, $76, $77, $78, $79)) AS own
		CROSS JOIN company WHERE company_id = $1 AND status <> 'erased'` + entryReplaced}
	entryAppended = statement{"entry_appended", `INSERT INTO entry (company_id, ` + entryUsual + `)
		SELECT company_id, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23` + entryOfLiving + entryReplaced}
	entryAppendedWhole = statement{"entry_appended_whole", `INSERT INTO entry (company_id, ` + entryColumns + `)
		SELECT company_id, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23,
		$24, $25, $26, $27, $28, $29, $30, $31, $32, $33, $34, $35, $36, $37, $38, $39, $40, $41, $42, $43` + entryOfLiving + entryReplaced}
)

const entryOfLiving = `
	FROM company WHERE company_id = $1 AND status <> 'erased'`

const entryReplaced = `
	ON CONFLICT (company_id, id) DO UPDATE SET
		provider = excluded.provider, model = excluded.model, outcome = excluded.outcome,
		rank = excluded.rank, status = excluded.status,
		input = excluded.input, cached_input = excluded.cached_input, cache_write = excluded.cache_write,
		audio_input = excluded.audio_input, image_input = excluded.image_input,
		output = excluded.output, reasoning = excluded.reasoning, audio_output = excluded.audio_output,
		image_output = excluded.image_output, accepted_prediction = excluded.accepted_prediction,
		rejected_prediction = excluded.rejected_prediction, total = excluded.total,
		priced = excluded.priced, cost_nano = excluded.cost_nano, ended_at = excluded.ended_at,
		tier = excluded.tier, marks = excluded.marks, under_nano = excluded.under_nano, over_nano = excluded.over_nano,
		cache_write_1h = excluded.cache_write_1h, searches = excluded.searches, search_context = excluded.search_context,
		tools = excluded.tools, seconds = excluded.seconds, images = excluded.images, characters = excluded.characters
	WHERE entry.company_id = $1 AND entry.rank < excluded.rank`

// append appends the entries of the company that the transaction has entered.
func (t *tx) append(some []*ledger.Booked) error {
	var room [entryWidth + (together-1)*entryOwns]any
	for len(some) > 0 {
		n := 1
		if len(some) >= together && share(some[:together]) {
			n = together
		}
		e := &some[0].Entry
		all := appendShared(room[:0], e)
		for _, b := range some[:n] {
			all = appendOwn(all, &b.Entry)
		}
		st := entryAppended
		switch {
		case n > 1:
			st = entriesAppended
		case !usual(e):
			st, all = entryAppendedWhole, appendRare(all, e)
		}
		if err := t.send(st, all...); err != nil {
			return err
		}
		some = some[n:]
	}
	return nil
}

// share reports whether some can have one statement. One that came twice may be
// replaced by the second only in another.
func share(some []*ledger.Booked) bool {
	first := &some[0].Entry
	for i := range some {
		e := &some[i].Entry
		if !usual(e) || i > 0 && (e.ID == some[i-1].Entry.ID || !alike(e, first)) {
			return false
		}
	}
	return true
}

// alike reports whether a and b have the same in the shared columns.
func alike(a, b *ledger.Entry) bool {
	return a.ProjectID == b.ProjectID && a.KeyID == b.KeyID && a.Kind == b.Kind && a.Provider == b.Provider && a.Model == b.Model &&
		a.Requested == b.Requested && a.Outcome == b.Outcome && a.Rank == b.Rank && a.Status == b.Status && a.Priced == b.Priced &&
		a.AgentID == b.AgentID && a.UserID == b.UserID && a.Tier == b.Tier && a.Lent == b.Lent
}

// usual reports whether an entry has nothing in the rare columns.
func usual(e *ledger.Entry) bool {
	u := &e.Usage
	return e.First && e.Marks == 0 && e.LowNano == e.CostNano && e.HighNano == e.CostNano && total(u) == 0 &&
		*u == openai.Usage{Input: u.Input, CachedInput: u.CachedInput, Output: u.Output, Total: u.Total}
}

// total is the total as it is stored: 0 where it is the sum.
func total(u *openai.Usage) int64 {
	if u.Total == u.Input+u.Output {
		return 0
	}
	return u.Total
}

// How many values an entry has in entryOwn, and in all columns.
const (
	entryOwns  = 8
	entryWidth = 42
)

func appendShared(all []any, e *ledger.Entry) []any {
	return append(all, e.ProjectID, e.KeyID, e.Kind, storable(e.Provider), storable(e.Model), storable(e.Requested), string(e.Outcome),
		int64(e.Rank), int64(e.Status), e.Priced, e.AgentID, e.UserID, storable(e.Tier), bit(e.Lent))
}

func appendOwn(all []any, e *ledger.Entry) []any {
	u := &e.Usage
	return append(all, e.ID, e.RequestID, u.Input, u.CachedInput, u.Output, e.CostNano, micros(e.StartedAt), micros(e.EndedAt))
}

func appendRare(all []any, e *ledger.Entry) []any {
	u := &e.Usage
	return append(all, u.CacheWrite, u.AudioInput, u.ImageInput, u.Reasoning, u.AudioOutput, u.ImageOutput,
		u.AcceptedPrediction, u.RejectedPrediction, total(u), bit(!e.First), int64(e.Marks),
		e.CostNano-e.LowNano, e.HighNano-e.CostNano,
		u.CacheWrite1h, u.Searches, int64(u.SearchContext), u.Tools, u.Seconds, u.Images, u.Characters)
}

func bit(yes bool) int64 {
	if yes {
		return 1
	}
	return 0
}

// appendTries is how often a batch comes again that met another.
const appendTries = 5

// AppendEntries implements ledger.Store. Entries of a company that was erased
// are left out: what was erased stays erased. A batch is one transaction.
func (db *DB) AppendEntries(ctx context.Context, batch []ledger.Booked) error {
	if len(batch) == 0 {
		return nil
	}
	ordered := inOrder(batch)
	var asked []string
	var today int64
	add := func(t *tx) error {
		today, asked = dayOf(t.now), nil
		for rest := ordered; len(rest) > 0; {
			some := ofOne(rest)
			rest = rest[len(some):]
			if err := t.enter(some[0].Scope); err != nil {
				return err
			}
			if err := t.append(some); err != nil {
				return err
			}
			first, err := t.appended(some, &db.upkept)
			if err != nil {
				return err
			}
			if first {
				asked = append(asked, t.company)
			}
		}
		return t.flush()
	}
	err := db.global(ctx, adding, add)
	// PostgreSQL breaks one of two that wait for each other, here for the upkeep of
	// the rollups, and expects it to come again; nothing of the batch is there.
	for range appendTries {
		if !deadlocked(err) || ctx.Err() != nil {
			break
		}
		err = db.global(ctx, adding, add)
	}
	if err == nil && len(asked) > 0 {
		db.upkept.add(asked, today)
	}
	return err
}

// ofOne returns the entries at the beginning of batch that are of one company.
func ofOne(batch []*ledger.Booked) []*ledger.Booked {
	first := batch[0].Scope.ID()
	for i := range batch {
		if batch[i].Scope.ID() != first {
			return batch[:i]
		}
	}
	return batch
}

// inOrder returns batch by company, key, model asked for and id, what was appended
// first first. None of these changes when an entry is replaced: two gateways that
// append the same rows must do it in the same order, or each could wait for the
// other. It is pointers that are sorted, as an entry is large.
func inOrder(batch []ledger.Booked) []*ledger.Booked {
	all := make([]*ledger.Booked, len(batch))
	for i := range batch {
		all[i] = &batch[i]
	}
	slices.SortStableFunc(all, func(a, b *ledger.Booked) int {
		x, y := &a.Entry, &b.Entry
		if c := strings.Compare(a.Scope.ID().String(), b.Scope.ID().String()); c != 0 {
			return c
		}
		if c := strings.Compare(x.KeyID, y.KeyID); c != 0 {
			return c
		}
		if c := strings.Compare(x.Requested, y.Requested); c != 0 {
			return c
		}
		return strings.Compare(x.ID, y.ID)
	})
	return all
}

// Entries lists the company's entries, newest start first, whatever p.Desc says.
func (db *DB) Entries(ctx context.Context, s tenant.Scope, p openai.Page) (all []ledger.Entry, more bool, err error) {
	p.Desc = true
	err = db.read(ctx, s.ID(), func(t *tx) error {
		all, more, err = readPageBy(byID, t, entryList, p, scanEntry, nil, nil)
		return err
	})
	return all, more, err
}

func scanEntry(r row) (ledger.Entry, error) {
	var e ledger.Entry
	var again, lent, marks int64
	u := &e.Usage
	err := r.Scan(&e.ProjectID, &e.KeyID, &e.Kind, &e.Provider, &e.Model, &e.Requested, &e.Outcome, &e.Rank, &e.Status, &e.Priced,
		&e.AgentID, &e.UserID, &e.Tier, &lent,
		&e.ID, &e.RequestID, &u.Input, &u.CachedInput, &u.Output, &e.CostNano, moment{&e.StartedAt}, moment{&e.EndedAt},
		&u.CacheWrite, &u.AudioInput, &u.ImageInput, &u.Reasoning, &u.AudioOutput, &u.ImageOutput,
		&u.AcceptedPrediction, &u.RejectedPrediction, &u.Total, &again, &marks, &e.LowNano, &e.HighNano,
		&u.CacheWrite1h, &u.Searches, &u.SearchContext, &u.Tools, &u.Seconds, &u.Images, &u.Characters)
	e.First, e.Lent, e.Marks = again == 0, lent != 0, ledger.Mark(marks)
	e.LowNano, e.HighNano = e.CostNano-e.LowNano, e.CostNano+e.HighNano
	if u.Total == 0 {
		u.Total = u.Input + u.Output
	}
	return e, err
}
