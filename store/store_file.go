package store

import (
	"context"
	"errors"

	"bulkhead/fault"
	"bulkhead/openai"
	"bulkhead/rag"
	"bulkhead/tenant"
)

const (
	heldColumns = `s.store_id, s.file_id, s.batch_id, f.name, s.attributes, s.chunking, s.status, s.error_code, s.error, s.bytes, s.chunks, s.version, s.created_at`
	heldRows    = `SELECT ` + heldColumns + ` FROM store_file AS s JOIN file AS f ON f.company_id = $1 AND f.id = s.file_id
		WHERE s.company_id = $1 AND s.store_id = `
	heldBetween = ` AND (s.created_at, s.file_id) > ($2, $3) AND (s.created_at, s.file_id) < ($4, $5)
		AND ($8 = '' OR s.batch_id = $8) AND ($9 = '' OR s.status = $9)`
)

var (
	heldList = list[statement]{
		statement{"held_cursor", `SELECT created_at FROM store_file WHERE company_id = $1 AND file_id = $2 AND store_id = $3 AND ($4 = '' OR batch_id = $4)`},
		statement{"held_ascending", heldRows + `$7` + heldBetween + ` ORDER BY s.created_at, s.file_id LIMIT $6`},
		statement{"held_descending", heldRows + `$7` + heldBetween + ` ORDER BY s.created_at DESC, s.file_id DESC LIMIT $6`},
	}
	heldOne      = statement{"held_one", heldRows + `$2 AND s.file_id = $3`}
	heldContents = statement{"held_contents", heldRows + `$2 AND s.status = 'completed' ORDER BY s.file_id`}
	heldCounted  = statement{"held_counted", `SELECT COUNT(*) FROM store_file WHERE company_id = $1 AND store_id = $2`}
	heldPut      = statement{"held_put",
		`INSERT INTO store_file (company_id, store_id, file_id, batch_id, attributes, chunking, status, created_at, next_at)
		SELECT company_id, $2, $3, $4, $5, $6, 'in_progress', $7, $7 FROM company WHERE company_id = $1 AND status = 'active'
		ON CONFLICT (company_id, store_id, file_id) DO UPDATE SET batch_id = excluded.batch_id, attributes = excluded.attributes,
			chunking = excluded.chunking, status = 'in_progress', error_code = '', error = '', next_at = excluded.next_at, tries = 0, claim = ''`}
	heldAttributes = statement{"held_attributes",
		`UPDATE store_file SET attributes = $4 WHERE company_id = $1 AND store_id = $2 AND file_id = $3`}
	heldDeleted   = statement{"held_deleted", `DELETE FROM store_file WHERE company_id = $1 AND store_id = $2 AND file_id = $3`}
	heldCancelled = statement{"held_cancelled",
		`UPDATE store_file SET status = 'cancelled', next_at = 0, claim = '' WHERE company_id = $1 AND store_id = $2 AND file_id = $3 AND status = 'in_progress'`}
	heldOfBatch = statement{"held_of_batch",
		`SELECT file_id FROM store_file WHERE company_id = $1 AND store_id = $2 AND batch_id = $3 AND status = 'in_progress' ORDER BY file_id`}

	batchInserted = statement{"batch_inserted",
		`INSERT INTO file_batch (company_id, store_id, id, created_at) VALUES ($1, $2, $3, $4)`}
	batchOne = statement{"batch_one",
		`SELECT created_at, cancelled FROM file_batch WHERE company_id = $1 AND store_id = $2 AND id = $3`}
	batchCounted = statement{"batch_counted",
		`SELECT status, COUNT(*) FROM store_file WHERE company_id = $1 AND store_id = $2 AND batch_id = $3 GROUP BY status`}
	batchCancelled = statement{"batch_cancelled",
		`UPDATE file_batch SET cancelled = TRUE WHERE company_id = $1 AND store_id = $2 AND id = $3`}
)

func scanStoreFile(r row) (h rag.StoreFile, err error) {
	var code, message string
	err = r.Scan(&h.StoreID, &h.FileID, &h.BatchID, &h.Name, object{&h.Attributes}, object{&h.Chunking}, &h.Status, &code, &message,
		&h.Bytes, &h.Chunks, &h.Version, moment{&h.CreatedAt})
	if code != "" {
		h.Error = &rag.FileError{Code: code, Message: message}
	}
	return h, err
}

// attach puts files, all into one store, to be taken in. The project must see each.
func (t *tx) attach(project string, files []rag.StoreFile, q rag.Quota) error {
	if len(files) == 0 {
		return nil
	}
	store := files[0].StoreID
	var n int64
	if err := t.one(heldCounted, []any{&n}, store); err != nil {
		return err
	}
	if n+int64(len(files)) > q.StoreFiles {
		return fault.Field("file_ids", "The vector store has %d files; %d is the most it may have.", n, q.StoreFiles).WithCode("files_exceeded")
	}
	for _, h := range files {
		_, err := t.file(h.FileID, project)
		if errors.Is(err, errNoRow) {
			return &rag.NoFileError{ID: h.FileID}
		}
		if err != nil {
			return err
		}
		err = must(t.exec(heldPut, store, h.FileID, h.BatchID, asJSON(h.Attributes), asJSON(h.Chunking), micros(h.CreatedAt)))
		if err != nil {
			return err
		}
	}
	if _, err := t.exec(storeBumped, store); err != nil {
		return err
	}
	return t.askUpkeep(tenant.Ingest, t.now)
}

// detach takes a file out of a store, with its chunks.
func (t *tx) detach(store, file string) error {
	if err := t.drop(store, file); err != nil {
		return err
	}
	if err := must(t.exec(heldDeleted, store, file)); err != nil {
		return err
	}
	_, err := t.exec(storeBumped, store)
	return err
}

// AttachFiles implements web.Files.
func (db *DB) AttachFiles(ctx context.Context, s tenant.Scope, store string, files []rag.StoreFile, batch *rag.Batch, q rag.Quota) error {
	store = storable(store)
	return db.write(ctx, s, func(t *tx) error {
		v, err := t.vectorStore(store, s.ProjectID())
		if err != nil {
			return err
		}
		if err := t.ownStore(store, s.ProjectID()); err != nil {
			return err
		}
		if v.Expired {
			return fault.New(fault.Invalid, "The vector store has expired.").WithCode("vector_store_expired")
		}
		if batch != nil {
			if _, err := t.exec(batchInserted, store, batch.ID, micros(batch.CreatedAt)); err != nil {
				return err
			}
		}
		if err := t.attach(s.ProjectID(), files, q); err != nil {
			return err
		}
		_, err = t.exec(storeTouched, store, micros(t.now))
		return err
	})
}

// StoreFiles implements web.Files.
func (db *DB) StoreFiles(ctx context.Context, s tenant.Scope, store, batch string, status rag.Status, p openai.Page) (all []rag.StoreFile, more bool, err error) {
	store, batch = storable(store), storable(batch)
	err = db.read(ctx, s.ID(), func(t *tx) error {
		if _, err := t.vectorStore(store, s.ProjectID()); err != nil {
			return err
		}
		if batch != "" {
			if _, err := t.batch(store, batch); err != nil {
				return err
			}
		}
		all, more, err = readPage(t, heldList, p, scanStoreFile, []any{store, batch}, []any{string(status)})
		return err
	})
	return all, more, err
}

// StoreFile implements web.Files.
func (db *DB) StoreFile(ctx context.Context, s tenant.Scope, store, file string) (h rag.StoreFile, err error) {
	err = db.read(ctx, s.ID(), func(t *tx) error {
		if _, err := t.vectorStore(store, s.ProjectID()); err != nil {
			return err
		}
		h, err = t.storeFile(store, file)
		return err
	})
	return h, err
}

func (t *tx) storeFile(store, file string) (rag.StoreFile, error) {
	return only(t, heldOne, scanStoreFile, storable(store), storable(file))
}

// SetAttributes implements web.Files. No index holds attributes: there is nothing
// to be done for it.
func (db *DB) SetAttributes(ctx context.Context, s tenant.Scope, store, file string, a rag.Attributes) (h rag.StoreFile, err error) {
	store, file = storable(store), storable(file)
	err = db.write(ctx, s, func(t *tx) error {
		if err := t.ownStore(store, s.ProjectID()); err != nil {
			return err
		}
		if err := must(t.exec(heldAttributes, store, file, asJSON(a))); err != nil {
			return err
		}
		if _, err := t.exec(storeBumped, store); err != nil {
			return err
		}
		h, err = t.storeFile(store, file)
		return err
	})
	return h, err
}

// DetachFile implements web.Files.
func (db *DB) DetachFile(ctx context.Context, s tenant.Scope, store, file string) error {
	return db.write(ctx, s, func(t *tx) error {
		if err := t.ownStore(store, s.ProjectID()); err != nil {
			return err
		}
		if _, err := t.storeFile(store, file); err != nil {
			return err
		}
		return t.detach(store, file)
	})
}

// Batch implements web.Files.
func (db *DB) Batch(ctx context.Context, s tenant.Scope, store, id string) (b rag.Batch, err error) {
	err = db.read(ctx, s.ID(), func(t *tx) error {
		if _, err := t.vectorStore(store, s.ProjectID()); err != nil {
			return err
		}
		b, err = t.batch(store, id)
		return err
	})
	return b, err
}

func (t *tx) batch(store, id string) (b rag.Batch, err error) {
	b.ID, b.StoreID = storable(id), storable(store)
	if err := t.one(batchOne, []any{moment{&b.CreatedAt}, &b.Cancelled}, b.StoreID, b.ID); err != nil {
		return b, err
	}
	return b, t.query(batchCounted, func(r row) error {
		var status rag.Status
		var n int64
		err := r.Scan(&status, &n)
		b.Counts.Add(status, n)
		return err
	}, b.StoreID, b.ID)
}

// CancelBatch implements web.Files: what is not completed is not any more.
func (db *DB) CancelBatch(ctx context.Context, s tenant.Scope, store, id string) (b rag.Batch, err error) {
	store, id = storable(store), storable(id)
	err = db.write(ctx, s, func(t *tx) error {
		if err := t.ownStore(store, s.ProjectID()); err != nil {
			return err
		}
		if err := must(t.exec(batchCancelled, store, id)); err != nil {
			return err
		}
		var files []string
		err := t.query(heldOfBatch, func(r row) error {
			var file string
			err := r.Scan(&file)
			files = append(files, file)
			return err
		}, store, id)
		for _, file := range files {
			if err == nil {
				err = must(t.exec(heldCancelled, store, file))
			}
			if err == nil {
				err = t.drop(store, file)
			}
		}
		if err != nil {
			return err
		}
		b, err = t.batch(store, id)
		return err
	})
	return b, err
}

// Contents implements rag.Library.
func (db *DB) Contents(ctx context.Context, s tenant.Scope, store string) (all []rag.StoreFile, err error) {
	err = db.read(ctx, s.ID(), func(t *tx) error {
		if v, err := t.vectorStore(store, s.ProjectID()); err != nil || v.Expired {
			return err
		}
		return t.query(heldContents, func(r row) error {
			h, err := scanStoreFile(r)
			all = append(all, h)
			return err
		}, store)
	})
	if errors.Is(err, errNoRow) {
		return nil, nil
	}
	return all, err
}
