package store

import (
	"context"
	"errors"

	"bulkhead/tenant"
)

var (
	segmentOne = statement{"segment_one",
		`SELECT words FROM keyword_segment WHERE company_id = $1 AND store_id = $2 AND file_id = $3 AND version = $4`}
	// Of a file that is in the store, and not in place of a newer one.
	segmentPut = statement{"segment_put",
		`INSERT INTO keyword_segment (company_id, store_id, file_id, version, words)
		SELECT company_id, store_id, file_id, $4, $5 FROM store_file WHERE company_id = $1 AND store_id = $2 AND file_id = $3
		ON CONFLICT (company_id, store_id, file_id) DO UPDATE SET version = excluded.version, words = excluded.words
		WHERE keyword_segment.version <= excluded.version`}
	fileTracked = statement{"file_tracked",
		`SELECT (SELECT count(*) FROM store_file WHERE company_id = $1 AND store_id = $2 AND file_id = $3)
		+ (SELECT count(*) FROM discard WHERE company_id = $1 AND store_id = $2 AND (file_id = $3 OR file_id = ''))`}
)

// Segment implements rag.Segments.
func (db *DB) Segment(ctx context.Context, s tenant.Scope, store, file string, version int64) (words []byte, err error) {
	err = db.read(ctx, s.ID(), func(t *tx) error {
		err := t.one(segmentOne, []any{&words}, storable(store), storable(file), version)
		if errors.Is(err, errNoRow) {
			return nil
		}
		return err
	})
	return words, err
}

// PutSegment implements rag.Segments.
func (db *DB) PutSegment(ctx context.Context, s tenant.Scope, store, file string, version int64, words []byte) error {
	return db.add(ctx, s, func(t *tx) error {
		_, err := t.exec(segmentPut, storable(store), storable(file), version, words)
		return err
	})
}

// FileTracked reports whether a file is in the store of the company, in whatever
// state, or was and is still to be discarded from the index.
func (db *DB) FileTracked(ctx context.Context, s tenant.Scope, store, file string) (bool, error) {
	var n int64
	err := db.read(ctx, s.ID(), func(t *tx) error {
		return t.one(fileTracked, []any{&n}, storable(store), storable(file))
	})
	return n > 0, err
}
