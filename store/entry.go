package store

import (
	"context"
	"slices"
	"strings"

	"bulkhead/ledger"
	"bulkhead/openai"
	"bulkhead/tenant"
)

const entryColumns = `id, request_id, project_id, key_id, kind, provider, model, requested, outcome, rank, status,
	input, cached_input, cache_write, audio_input, image_input,
	output, reasoning, audio_output, image_output, accepted_prediction, rejected_prediction, total,
	priced, cost_nano, started_at, ended_at`

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

// entryAppended selects from the company so that an erased one gets no entry
// that arrives late.
var entryAppended = statement{"entry_appended",
	`INSERT INTO entry (company_id, ` + entryColumns + `)
	SELECT company_id, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20,
		$21, $22, $23, $24, $25, $26, $27, $28
	FROM company WHERE company_id = $1 AND status <> 'erased'
	ON CONFLICT (company_id, id) DO UPDATE SET
		provider = excluded.provider, model = excluded.model, outcome = excluded.outcome,
		rank = excluded.rank, status = excluded.status,
		input = excluded.input, cached_input = excluded.cached_input, cache_write = excluded.cache_write,
		audio_input = excluded.audio_input, image_input = excluded.image_input,
		output = excluded.output, reasoning = excluded.reasoning, audio_output = excluded.audio_output,
		image_output = excluded.image_output, accepted_prediction = excluded.accepted_prediction,
		rejected_prediction = excluded.rejected_prediction, total = excluded.total,
		priced = excluded.priced, cost_nano = excluded.cost_nano, ended_at = excluded.ended_at
	WHERE entry.company_id = $1 AND entry.rank < excluded.rank`}

// AppendEntries implements ledger.Store. Entries of a company that was erased
// are left out: what was erased stays erased. A batch is one transaction.
func (db *DB) AppendEntries(ctx context.Context, batch []ledger.Booked) error {
	if len(batch) == 0 {
		return nil
	}
	batch = inOrder(batch)
	return db.global(ctx, adding, func(t *tx) error {
		for i := range batch {
			if err := t.enter(batch[i].Scope); err != nil {
				return err
			}
			e, u := &batch[i].Entry, &batch[i].Entry.Usage
			err := t.send(entryAppended, e.ID, e.RequestID, e.ProjectID, e.KeyID, e.Kind, storable(e.Provider), storable(e.Model),
				storable(e.Requested), string(e.Outcome), int64(e.Rank), int64(e.Status),
				u.Input, u.CachedInput, u.CacheWrite, u.AudioInput, u.ImageInput,
				u.Output, u.Reasoning, u.AudioOutput, u.ImageOutput, u.AcceptedPrediction, u.RejectedPrediction, u.Total,
				e.Priced, e.CostNano, micros(e.StartedAt), micros(e.EndedAt))
			if err != nil {
				return err
			}
		}
		return t.flush()
	})
}

// inOrder returns batch by company and id, what was appended first first. Two
// gateways that append the same rows must do it in the same order, or each
// could wait for the other.
func inOrder(batch []ledger.Booked) []ledger.Booked {
	sorted := true
	for i := 1; i < len(batch) && sorted; i++ {
		sorted = compareBooked(&batch[i-1], &batch[i]) <= 0
	}
	if sorted { // the batch of one company, as a rule
		return batch
	}
	batch = slices.Clone(batch)
	slices.SortStableFunc(batch, func(a, b ledger.Booked) int { return compareBooked(&a, &b) })
	return batch
}

func compareBooked(a, b *ledger.Booked) int {
	if c := strings.Compare(a.Scope.ID().String(), b.Scope.ID().String()); c != 0 {
		return c
	}
	return strings.Compare(a.Entry.ID, b.Entry.ID)
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
	u := &e.Usage
	err := r.Scan(&e.ID, &e.RequestID, &e.ProjectID, &e.KeyID, &e.Kind, &e.Provider, &e.Model,
		&e.Requested, &e.Outcome, &e.Rank, &e.Status,
		&u.Input, &u.CachedInput, &u.CacheWrite, &u.AudioInput, &u.ImageInput,
		&u.Output, &u.Reasoning, &u.AudioOutput, &u.ImageOutput, &u.AcceptedPrediction, &u.RejectedPrediction, &u.Total,
		&e.Priced, &e.CostNano, moment{&e.StartedAt}, moment{&e.EndedAt})
	return e, err
}
