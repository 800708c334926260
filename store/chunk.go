package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"bulkhead/rag"
	"bulkhead/tenant"
)

var (
	chunkPut = statement{"chunk_put",
		`INSERT INTO chunk (company_id, store_id, file_id, place, text, embedder, vector)
		SELECT company_id, $2, $3, $4, $5, $6, $7 FROM company WHERE company_id = $1 AND status = 'active'
		ON CONFLICT (company_id, store_id, file_id, place) DO UPDATE SET text = excluded.text, embedder = excluded.embedder, vector = excluded.vector`}
	chunksRead = statement{"chunks_read",
		`SELECT place, text, embedder, vector FROM chunk WHERE company_id = $1 AND store_id = $2 AND file_id = $3 AND place >= $4
		ORDER BY place LIMIT $5`}
	// Of a file that can be found, by whoever sees its store. A vector of another
	// embedder than the store's is left out: it would be compared with others.
	chunksSeen = statement{"chunks_seen",
		`SELECT c.place, c.text, c.embedder, CASE WHEN c.embedder = v.embedder THEN c.vector END FROM chunk AS c JOIN vector_store AS v ON v.company_id = $1 AND v.id = c.store_id
		WHERE c.company_id = $1 AND c.store_id = $2 AND c.file_id = $3 AND c.place >= $4 AND (v.shared OR v.project_id = $6 OR $6 = '')
			AND NOT v.expired AND (SELECT status FROM store_file WHERE company_id = $1 AND store_id = $2 AND file_id = $3) = 'completed'
		ORDER BY c.place LIMIT $5`}
	chunkOne = statement{"chunk_one",
		`SELECT c.text, c.embedder, f.name, s.attributes FROM chunk AS c
		JOIN store_file AS s ON s.company_id = $1 AND s.store_id = c.store_id AND s.file_id = c.file_id
		JOIN file AS f ON f.company_id = $1 AND f.id = c.file_id
		JOIN vector_store AS v ON v.company_id = $1 AND v.id = c.store_id
		WHERE c.company_id = $1 AND c.store_id = $2 AND c.file_id = $3 AND c.place = $4 AND s.status = 'completed'
			AND (v.shared OR v.project_id = $5 OR $5 = '') AND NOT v.expired`}
	chunksTrimmed = statement{"chunks_trimmed",
		`DELETE FROM chunk WHERE company_id = $1 AND store_id = $2 AND file_id = $3 AND place >= $4`}
)

// packVector encodes a vector as it is stored.
func packVector(v []float32) []byte {
	b := make([]byte, 0, 4*len(v))
	for _, x := range v {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
	}
	return b
}

// unpackVector decodes what packVector encoded.
func unpackVector(b []byte) ([]float32, error) {
	if len(b)%4 != 0 {
		return nil, fmt.Errorf("a vector of %d bytes", len(b))
	}
	if len(b) == 0 {
		return nil, nil
	}
	v := make([]float32, len(b)/4)
	for i := range v {
		v[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
	}
	return v, nil
}

// readChunks runs one of the statements that read a file's chunks.
func (t *tx) readChunks(st statement, store, file string, from, limit int, more ...any) (all []rag.Chunk, err error) {
	err = t.query(st, func(r row) error {
		c := rag.Chunk{Ref: rag.Ref{StoreID: store, FileID: file}}
		var packed []byte
		if err := r.Scan(&c.Index, &c.Text, &c.EmbedderID, &packed); err != nil {
			return err
		}
		c.Vector, err = unpackVector(packed)
		all = append(all, c)
		return err
	}, append([]any{store, file, from, limit}, more...)...)
	return all, err
}

// FileChunks implements rag.Library.
func (db *DB) FileChunks(ctx context.Context, s tenant.Scope, store, file string, from, limit int) (all []rag.Chunk, err error) {
	err = db.read(ctx, s.ID(), func(t *tx) error {
		all, err = t.readChunks(chunksSeen, storable(store), storable(file), from, limit, s.ProjectID())
		return err
	})
	return all, err
}

// ReadChunks implements rag.Library.
func (db *DB) ReadChunks(ctx context.Context, s tenant.Scope, refs []rag.Ref) (all []rag.Chunk, err error) {
	err = db.read(ctx, s.ID(), func(t *tx) error {
		for _, ref := range refs {
			c := rag.Chunk{Ref: ref}
			err := t.one(chunkOne, []any{&c.Text, &c.EmbedderID, &c.FileName, object{&c.Attributes}},
				storable(ref.StoreID), storable(ref.FileID), ref.Index, s.ProjectID())
			if errors.Is(err, errNoRow) {
				continue
			}
			if err != nil {
				return err
			}
			all = append(all, c)
		}
		return nil
	})
	return all, err
}
