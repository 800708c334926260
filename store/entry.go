package store

import (
	"context"
	"slices"
	"strings"

	"bulkhead/ledger"
	"bulkhead/openai"
	"bulkhead/tenant"
)

// Columns that most entries leave at their default are last.
const (
	entryCommon = `id, request_id, project_id, key_id, kind, provider, model, requested, outcome, rank, status,
	input, output, priced, cost_nano, started_at, ended_at`
	entryRare = `cached_input, cache_write, audio_input, image_input, reasoning, audio_output, image_output,
	accepted_prediction, rejected_prediction, total, agent_id, user_id, tier, again, lent, marks, under_nano, over_nano,
	cache_write_1h, searches, search_context, tools, seconds, images, characters`
	entryColumns = entryCommon + ", " + entryRare
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
// none that arrives late. Most have nothing in the rare columns, and each column
// costs. So does each statement: four of most entries have one. (More would have
// SQLite's driver look longer for each of their arguments than they save.)
const fourTogether = 4

var (
	entriesAppended = statement{"entries_appended", `INSERT INTO entry (company_id, ` + entryCommon + `)
		SELECT company_id, usual.* FROM company CROSS JOIN (VALUES
			(CAST($2 AS TEXT), CAST($3 AS TEXT), CAST($4 AS TEXT), CAST($5 AS TEXT), CAST($6 AS TEXT), CAST($7 AS TEXT), CAST($8 AS TEXT),
			CAST($9 AS TEXT), CAST($10 AS TEXT), CAST($11 AS BIGINT), CAST($12 AS BIGINT), CAST($13 AS BIGINT), CAST($14 AS BIGINT),
			CAST($15 AS BOOLEAN), CAST($16 AS BIGINT), CAST($17 AS BIGINT), CAST($18 AS BIGINT)),
			($19, $20, $21, $22, $23, $24, $25, $26, $27, $28, $29, $30, $31, $32, $33, $34, $35),
			($36, $37, $38, $39, $40, $41, $42, $43, $44, $45, $46, $47, $48, $49, $50, $51, $52),
			($53, $54, $55, $56, $57, $58, $59, $60, $61, $62, $63, $64, $65, $66, $67, $68, $69)) AS usual
		WHERE company_id = $1 AND status <> 'erased'` + entryReplaced}
	entryAppended = statement{"entry_appended", `INSERT INTO entry (company_id, ` + entryCommon + `)
		SELECT company_id, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18` + entryOfLiving + entryReplaced}
	entryAppendedWhole = statement{"entry_appended_whole", `INSERT INTO entry (company_id, ` + entryColumns + `)
		SELECT company_id, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18,
		$19, $20, $21, $22, $23, $24, $25, $26, $27, $28, $29, $30, $31, $32, $33, $34, $35, $36, $37, $38, $39, $40, $41, $42, $43` + entryOfLiving + entryReplaced}
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
	var room [fourTogether * entryCommons]any
	for len(some) > 0 {
		if n := fourTogether; together(some, n) {
			all := room[:0]
			for i := range some[:n] {
				all = appendCommon(all, &some[i].Entry)
			}
			if err := t.send(entriesAppended, all...); err != nil {
				return err
			}
			some = some[n:]
			continue
		}
		if err := t.appendOne(&some[0].Entry); err != nil {
			return err
		}
		some = some[1:]
	}
	return nil
}

// together reports whether the first n of some can have one statement: one that
// came twice may be replaced by the second only in another.
func together(some []*ledger.Booked, n int) bool {
	if len(some) < n {
		return false
	}
	for i := range some[:n] {
		if !common(&some[i].Entry) || i > 0 && some[i].Entry.ID == some[i-1].Entry.ID {
			return false
		}
	}
	return true
}

// common reports whether an entry has nothing in the rare columns.
func common(e *ledger.Entry) bool {
	u := &e.Usage
	return e.First && !e.Lent && e.AgentID == "" && e.UserID == "" && e.Tier == "" && e.Marks == 0 &&
		e.LowNano == e.CostNano && e.HighNano == e.CostNano && total(u) == 0 && *u == openai.Usage{Input: u.Input, Output: u.Output, Total: u.Total}
}

// total is the total as it is stored: 0 where it is the sum.
func total(u *openai.Usage) int64 {
	if u.Total == u.Input+u.Output {
		return 0
	}
	return u.Total
}

const entryCommons = 17

func appendCommon(all []any, e *ledger.Entry) []any {
	u := &e.Usage
	return append(all, e.ID, e.RequestID, e.ProjectID, e.KeyID, e.Kind, storable(e.Provider), storable(e.Model),
		storable(e.Requested), string(e.Outcome), int64(e.Rank), int64(e.Status), u.Input, u.Output, e.Priced, e.CostNano,
		micros(e.StartedAt), micros(e.EndedAt))
}

func (t *tx) appendOne(e *ledger.Entry) error {
	var room [42]any
	all := appendCommon(room[:0], e)
	if common(e) {
		return t.send(entryAppended, all...)
	}
	u := &e.Usage
	all = append(all, u.CachedInput, u.CacheWrite, u.AudioInput, u.ImageInput, u.Reasoning, u.AudioOutput, u.ImageOutput,
		u.AcceptedPrediction, u.RejectedPrediction, total(u), e.AgentID, e.UserID, storable(e.Tier), bit(!e.First), bit(e.Lent), int64(e.Marks),
		e.CostNano-e.LowNano, e.HighNano-e.CostNano,
		u.CacheWrite1h, u.Searches, int64(u.SearchContext), u.Tools, u.Seconds, u.Images, u.Characters)
	return t.send(entryAppendedWhole, all...)
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

// inOrder returns batch by company and id, what was appended first first. Two
// gateways that append the same rows must do it in the same order, or each
// could wait for the other. Calls end in another order than they began in, so
// there is nearly always something to sort: that is pointers, as an entry is
// large.
func inOrder(batch []ledger.Booked) []*ledger.Booked {
	all := make([]*ledger.Booked, len(batch))
	for i := range batch {
		all[i] = &batch[i]
	}
	slices.SortStableFunc(all, func(a, b *ledger.Booked) int {
		if c := strings.Compare(a.Scope.ID().String(), b.Scope.ID().String()); c != 0 {
			return c
		}
		return strings.Compare(a.Entry.ID, b.Entry.ID)
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
	err := r.Scan(&e.ID, &e.RequestID, &e.ProjectID, &e.KeyID, &e.Kind, &e.Provider, &e.Model,
		&e.Requested, &e.Outcome, &e.Rank, &e.Status, &u.Input, &u.Output, &e.Priced, &e.CostNano,
		moment{&e.StartedAt}, moment{&e.EndedAt},
		&u.CachedInput, &u.CacheWrite, &u.AudioInput, &u.ImageInput, &u.Reasoning, &u.AudioOutput, &u.ImageOutput,
		&u.AcceptedPrediction, &u.RejectedPrediction, &u.Total, &e.AgentID, &e.UserID, &e.Tier, &again, &lent, &marks,
		&e.LowNano, &e.HighNano,
		&u.CacheWrite1h, &u.Searches, &u.SearchContext, &u.Tools, &u.Seconds, &u.Images, &u.Characters)
	e.First, e.Lent, e.Marks = again == 0, lent != 0, ledger.Mark(marks)
	e.LowNano, e.HighNano = e.CostNano-e.LowNano, e.CostNano+e.HighNano
	if u.Total == 0 {
		u.Total = u.Input + u.Output
	}
	return e, err
}
