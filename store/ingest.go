package store

import (
	"context"
	"errors"
	"time"

	"bulkhead/openai"
	"bulkhead/rag"
	"bulkhead/tenant"
)

var (
	jobsHeld = statement{"jobs_held",
		`SELECT (SELECT COUNT(*) FROM store_file WHERE company_id = $1 AND claim <> '' AND next_at > $2)
			+ (SELECT COUNT(*) FROM file WHERE company_id = $1 AND status = 'uploading' AND created_at > $3)`}
	jobDue = statement{"job_due",
		`SELECT store_id, file_id, status, chunking, tries FROM store_file
		WHERE company_id = $1 AND next_at > 0 AND next_at <= $2 AND status IN ('in_progress', 'completed')
			AND (SELECT COUNT(*) FROM discard WHERE company_id = $1 AND discard.store_id = store_file.store_id AND discard.file_id IN ('', store_file.file_id)) = 0
			AND EXISTS (SELECT 1 FROM company WHERE company_id = $1 AND status = 'active')
		ORDER BY next_at, store_id, file_id LIMIT 1`}
	jobTaken = statement{"job_taken",
		`UPDATE store_file SET claim = $4, next_at = $5, tries = tries + 1 WHERE company_id = $1 AND store_id = $2 AND file_id = $3`}
	jobRenewed = statement{"job_renewed",
		`UPDATE store_file SET next_at = $5 WHERE company_id = $1 AND store_id = $2 AND file_id = $3 AND claim = $4
			AND EXISTS (SELECT 1 FROM company WHERE company_id = $1 AND status = 'active')`}
	jobRetried = statement{"job_retried",
		`UPDATE store_file SET next_at = $5, claim = '' WHERE company_id = $1 AND store_id = $2 AND file_id = $3 AND claim = $4`}
	jobFailed = statement{"job_failed",
		`UPDATE store_file SET status = 'failed', error_code = $5, error = $6, next_at = 0, claim = ''
		WHERE company_id = $1 AND store_id = $2 AND file_id = $3 AND claim = $4`}
	jobFinished = statement{"job_finished",
		`UPDATE store_file SET status = 'completed', bytes = $5, chunks = $6, next_at = 0, claim = '', tries = 0,
			version = (SELECT version FROM vector_store WHERE company_id = $1 AND id = $2)
		WHERE company_id = $1 AND store_id = $2 AND file_id = $3 AND claim = $4`}
	jobsNext = statement{"jobs_next",
		`SELECT COALESCE(MIN(at), 0), COUNT(*) FROM (
			SELECT next_at AS at FROM store_file WHERE company_id = $1 AND next_at > 0
			UNION ALL SELECT next_at FROM discard WHERE company_id = $1
			UNION ALL SELECT expires_at FROM file WHERE company_id = $1 AND expires_at > 0
			UNION ALL SELECT expires_at FROM vector_store WHERE company_id = $1 AND expires_at > 0) AS due`}

	storeShown = statement{"store_shown",
		`UPDATE vector_store SET version = version + 1, embedder = $3, dimension = $4,
			visible_ts = CASE WHEN visible_ts > $5 THEN visible_ts ELSE $5 END
		WHERE company_id = $1 AND id = $2 AND embedder IN ('', $3) AND dimension IN (0, $4)`}
	storeStale = statement{"store_stale",
		`SELECT id FROM vector_store WHERE company_id = $1 AND embedder NOT IN ('', $2) ORDER BY id LIMIT 1`}
	storeRenewed = statement{"store_renewed",
		`UPDATE vector_store SET embedder = '', dimension = 0, version = version + 1 WHERE company_id = $1 AND id = $2`}
	heldRenewed = statement{"held_renewed",
		`UPDATE store_file SET next_at = $3, tries = 0, claim = '' WHERE company_id = $1 AND store_id = $2 AND status = 'completed'`}

	discardPut = statement{"discard_put",
		`INSERT INTO discard (company_id, store_id, file_id, next_at) VALUES ($1, $2, $3, $4)
		ON CONFLICT (company_id, store_id, file_id) DO UPDATE SET next_at = excluded.next_at, tries = 0`}
	discardDue = statement{"discard_due",
		`SELECT store_id, file_id, tries FROM discard WHERE company_id = $1 AND next_at <= $2 ORDER BY next_at, store_id, file_id LIMIT 1`}
	discardTaken = statement{"discard_taken",
		`UPDATE discard SET next_at = $4, tries = $5 WHERE company_id = $1 AND store_id = $2 AND file_id = $3`}
	discardMoved = statement{"discard_moved",
		`UPDATE discard SET next_at = $5 WHERE company_id = $1 AND store_id = $2 AND file_id = $3 AND tries = $4`}
	discardDone = statement{"discard_done",
		`DELETE FROM discard WHERE company_id = $1 AND store_id = $2 AND file_id = $3 AND tries = $4`}
)

// drop removes the chunks of a file in a store, here now and from the index later.
func (t *tx) drop(store, file string) error {
	if _, err := t.exec(chunksTrimmed, store, file, 0); err != nil {
		return err
	}
	return t.discard(store, file)
}

// discard notes what has to go from index or blobs.
func (t *tx) discard(store, file string) error {
	if _, err := t.exec(discardPut, store, file, micros(t.now)); err != nil {
		return err
	}
	return t.askUpkeep(tenant.Ingest, t.now)
}

// expiredPerTurn is how many files whose time is over go in one turn.
const expiredPerTurn = 20

// TakeJob implements rag.Jobs.
func (db *DB) TakeJob(ctx context.Context, s tenant.Scope, lease time.Duration, atOnce int, embedder string) (j *rag.Job, next time.Time, err error) {
	err = db.write(ctx, s, func(t *tx) error {
		j = nil
		more, err := t.expireStores(t.now)
		if err != nil {
			return err
		}
		if err := t.deleteExpiredFiles(t.now, expiredPerTurn); err != nil {
			return err
		}
		if err := t.renewStores(embedder); err != nil {
			return err
		}
		if j, err = t.takeJob(lease, atOnce); err != nil {
			return err
		}
		if err := t.one(jobsNext, []any{moment{&next}, new(int64)}); err != nil {
			return err
		}
		if more {
			next = t.now
		}
		return nil
	})
	if err != nil {
		return nil, next, err
	}
	if j == nil && !next.IsZero() && !next.After(db.o.Now()) {
		next = db.o.Now().Add(time.Second) // what is due has to wait for others of the company
	}
	return j, next, nil
}

// takeJob takes what is due, what was deleted before what is new.
func (t *tx) takeJob(lease time.Duration, atOnce int) (*rag.Job, error) {
	until := micros(t.now.Add(lease))
	j := &rag.Job{Kind: rag.Discard}
	err := t.one(discardDue, []any{&j.StoreID, &j.FileID, &j.Tries}, micros(t.now))
	if err == nil {
		j.Tries++
		_, err = t.exec(discardTaken, j.StoreID, j.FileID, until, j.Tries)
		return j, err
	}
	if !errors.Is(err, errNoRow) {
		return nil, err
	}
	n, err := t.working(t.now)
	if err != nil || n >= int64(atOnce) {
		return nil, err
	}
	var status rag.Status
	err = t.one(jobDue, []any{&j.StoreID, &j.FileID, &status, object{&j.Chunking}, &j.Tries}, micros(t.now))
	if errors.Is(err, errNoRow) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	j.Kind, j.Claim = rag.Ingest, openai.NewID("claim_")
	j.Tries++
	if status == rag.Completed {
		j.Kind = rag.Embed
	}
	if j.File, err = t.file(j.FileID, ""); err != nil {
		return nil, err
	}
	_, err = t.exec(jobTaken, j.StoreID, j.FileID, j.Claim, until)
	return j, err
}

// working counts jobs and uploads that are under way.
func (t *tx) working(uploads time.Time) (n int64, err error) {
	err = t.one(jobsHeld, []any{&n}, micros(t.now), micros(uploads))
	return n, err
}

// Backlog implements web.Files.
func (db *DB) Backlog(ctx context.Context, s tenant.Scope) (b rag.Backlog, err error) {
	err = db.read(ctx, s.ID(), func(t *tx) error {
		if b.Working, err = t.working(t.now.Add(-uploadTime)); err != nil {
			return err
		}
		return t.one(jobsNext, []any{moment{&b.Next}, &b.Waiting})
	})
	return b, err
}

// renewStores has the vectors of a store made anew that are of another embedder.
// Its files stay completed: they are found by their words meanwhile.
func (t *tx) renewStores(embedder string) error {
	var id string
	err := t.one(storeStale, []any{&id}, embedder)
	if errors.Is(err, errNoRow) {
		return nil
	}
	if err != nil {
		return err
	}
	if _, err := t.exec(storeRenewed, id); err != nil {
		return err
	}
	if _, err := t.exec(heldRenewed, id, micros(t.now)); err != nil {
		return err
	}
	return t.discard(id, "")
}

// held turns a statement that changed nothing into rag.ErrLost.
func held(n int64, err error) error {
	if err = must(n, err); errors.Is(err, errNoRow) || errors.Is(err, errForeign) {
		return rag.ErrLost
	}
	return err
}

// RenewJob implements rag.Jobs.
func (db *DB) RenewJob(ctx context.Context, s tenant.Scope, j *rag.Job, lease time.Duration) error {
	return db.add(ctx, s, func(t *tx) error { return t.renew(j, lease) })
}

func (t *tx) renew(j *rag.Job, lease time.Duration) error {
	until := micros(t.now.Add(lease))
	if j.Kind == rag.Discard {
		return held(t.exec(discardMoved, j.StoreID, j.FileID, j.Tries, until))
	}
	return held(t.exec(jobRenewed, j.StoreID, j.FileID, j.Claim, until))
}

// JobChunks implements rag.Jobs.
func (db *DB) JobChunks(ctx context.Context, s tenant.Scope, j *rag.Job, from, limit int) (all []rag.Chunk, err error) {
	err = db.read(ctx, s.ID(), func(t *tx) error {
		all, err = t.readChunks(chunksRead, j.StoreID, j.FileID, from, limit)
		return err
	})
	return all, err
}

// putLease is for how long a job is held at least after chunks were stored.
const putLease = 10 * time.Second

// PutChunks implements rag.Jobs.
func (db *DB) PutChunks(ctx context.Context, s tenant.Scope, j *rag.Job, chunks []rag.Chunk) error {
	return db.add(ctx, s, func(t *tx) error {
		// The row is locked from here on: nobody takes the file out meanwhile.
		if err := t.renew(j, putLease); err != nil {
			return err
		}
		for i := range chunks {
			c := &chunks[i]
			if err := t.send(chunkPut, c.StoreID, c.FileID, c.Index, storable(c.Text), c.EmbedderID, packVector(c.Vector)); err != nil {
				return err
			}
		}
		return t.flush()
	})
}

var errUnlike = errors.New("the store has vectors of another embedder, or of another dimension")

// FinishJob implements rag.Jobs.
func (db *DB) FinishJob(ctx context.Context, s tenant.Scope, j *rag.Job, d rag.Done) error {
	return db.write(ctx, s, func(t *tx) error {
		if j.Kind == rag.Discard {
			return held(t.exec(discardDone, j.StoreID, j.FileID, j.Tries))
		}
		if err := t.renew(j, putLease); err != nil {
			return err
		}
		if _, err := t.exec(chunksTrimmed, j.StoreID, j.FileID, d.Chunks); err != nil {
			return err
		}
		// The job is this gateway's, so the store is there: it is the vectors that do
		// not fit. To make them anew helps where the store was changed meanwhile; where
		// the embedder makes others than it did, the tries end.
		if err := must(t.exec(storeShown, j.StoreID, d.EmbedderID, d.Dimension, int64(d.Stamp))); errors.Is(err, errNoRow) {
			return errUnlike
		} else if err != nil {
			return err
		}
		return held(t.exec(jobFinished, j.StoreID, j.FileID, j.Claim, d.Bytes, d.Chunks))
	})
}

// FailJob implements rag.Jobs.
func (db *DB) FailJob(ctx context.Context, s tenant.Scope, j *rag.Job, why rag.FileError) error {
	return db.write(ctx, s, func(t *tx) error {
		if err := held(t.exec(jobFailed, j.StoreID, j.FileID, j.Claim, why.Code, storable(why.Message))); err != nil {
			return err
		}
		return t.drop(j.StoreID, j.FileID)
	})
}

// RetryJob implements rag.Jobs.
func (db *DB) RetryJob(ctx context.Context, s tenant.Scope, j *rag.Job, at time.Time) error {
	return db.write(ctx, s, func(t *tx) error {
		var err error
		if j.Kind == rag.Discard {
			err = held(t.exec(discardMoved, j.StoreID, j.FileID, j.Tries, micros(at)))
		} else {
			err = held(t.exec(jobRetried, j.StoreID, j.FileID, j.Claim, micros(at)))
		}
		if err != nil {
			return err
		}
		return t.askUpkeep(tenant.Ingest, at)
	})
}

// Stale implements rag.Library.
func (db *DB) Stale(ctx context.Context, s tenant.Scope) error {
	return db.add(ctx, s, func(t *tx) error { return t.askUpkeep(tenant.Ingest, t.now) })
}
