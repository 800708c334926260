package store

import (
	"context"
	"time"

	"bulkhead/audit"
	"bulkhead/fault"
	"bulkhead/openai"
	"bulkhead/rag"
	"bulkhead/tenant"
)

// Who sees an object of a company's content: a key of its project, any key if it
// is shared, and whoever has no project (an admin key, the gateway itself). Who
// may change it: the first and the last.
const (
	fileColumns = `id, project_id, created_by, name, purpose, type, bytes, shared, created_at, expires_at`
	fileRows    = `SELECT ` + fileColumns + ` FROM file WHERE company_id = $1`
	fileSeen    = ` AND status = 'ready' AND (shared OR project_id = $7 OR $7 = '') AND ($8 = '' OR purpose = $8)`
)

var (
	fileList = list[statement]{
		statement{"files_cursor", `SELECT created_at FROM file WHERE company_id = $1 AND id = $2 AND status = 'ready'
			AND (shared OR project_id = $3 OR $3 = '')`},
		statement{"files_ascending", fileRows + between + fileSeen + oldToNew},
		statement{"files_descending", fileRows + between + fileSeen + newToOld},
	}
	fileOne = statement{"file_one", fileRows + ` AND id = $2 AND status = 'ready' AND (shared OR project_id = $3 OR $3 = '')`}
	// filesHeld counts what is not past its time; what is being received has no bytes yet.
	filesHeld    = statement{"files_held", `SELECT COUNT(*), CAST(COALESCE(SUM(bytes), 0) AS BIGINT) FROM file WHERE company_id = $1`}
	fileInserted = statement{"file_inserted",
		`INSERT INTO file (company_id, ` + fileColumns + `, status)
		SELECT company_id, $2, $3, $4, $5, $6, $7, 0, $8, $9, $10, 'uploading' FROM company WHERE company_id = $1 AND status = 'active'`}
	fileReady = statement{"file_ready",
		`UPDATE file SET status = 'ready', purpose = $3, type = $4, bytes = $5, shared = $6, expires_at = $7
		WHERE company_id = $1 AND id = $2 AND status = 'uploading'
			AND EXISTS (SELECT 1 FROM company WHERE company_id = $1 AND status = 'active')`}
	fileDeleted  = statement{"file_deleted", `DELETE FROM file WHERE company_id = $1 AND id = $2 AND (project_id = $3 OR $3 = '')`}
	fileOwned    = statement{"file_owned", `SELECT project_id, status FROM file WHERE company_id = $1 AND id = $2 AND (project_id = $3 OR $3 = '')`}
	filesExpired = statement{"files_expired",
		`SELECT id FROM file WHERE company_id = $1 AND expires_at > 0 AND expires_at <= $2 ORDER BY expires_at, id LIMIT $3`}
	fileStores = statement{"file_stores", `SELECT store_id FROM store_file WHERE company_id = $1 AND file_id = $2 ORDER BY store_id`}
)

func scanFile(r row) (f rag.File, err error) {
	err = r.Scan(&f.ID, &f.ProjectID, &f.CreatedBy, &f.Name, &f.Purpose, &f.Type, &f.Bytes, &f.Shared, moment{&f.CreatedAt}, moment{&f.ExpiresAt})
	return f, err
}

// write runs fn in one transaction that has the company's rows to itself. It
// changes no policy.
func (db *DB) write(ctx context.Context, s tenant.Scope, fn func(*tx) error) error {
	return db.run(ctx, &tx{company: s.ID().String(), actor: s.Actor()}, writing, fn)
}

// uploadTime is after how long a file that was not received to its end is dropped.
const uploadTime = time.Hour

// BeginFile implements web.Files.
func (db *DB) BeginFile(ctx context.Context, s tenant.Scope, f rag.File, q rag.Quota) error {
	return db.write(ctx, s, func(t *tx) error {
		if err := t.filesFit(q, 1, 1); err != nil {
			return err
		}
		until := f.CreatedAt.Add(uploadTime)
		err := must(t.exec(fileInserted, f.ID, f.ProjectID, f.CreatedBy, f.Name, f.Purpose, f.Type, f.Shared, micros(f.CreatedAt), micros(until)))
		if err != nil {
			return err
		}
		return t.askUpkeep(tenant.Ingest, until)
	})
}

// filesFit refuses more files or bytes than the company may have.
func (t *tx) filesFit(q rag.Quota, files, bytes int64) error {
	var n, sum int64
	if err := t.one(filesHeld, []any{&n, &sum}); err != nil {
		return err
	}
	switch {
	case n+files > q.Files:
		return fault.Field("file", "Your company has %d files, which is as many as it may have. Delete some.", n).WithCode("files_exceeded")
	case sum+bytes > q.Bytes:
		return fault.Field("file", "Your company's files have %d bytes; %d is the most it may have. Delete some.", sum, q.Bytes).WithCode("storage_exceeded")
	}
	return nil
}

// FinishFile implements web.Files.
func (db *DB) FinishFile(ctx context.Context, s tenant.Scope, f rag.File, q rag.Quota) error {
	return db.write(ctx, s, func(t *tx) error {
		if err := t.filesFit(q, 0, f.Bytes); err != nil {
			return err
		}
		if err := must(t.exec(fileReady, f.ID, f.Purpose, f.Type, f.Bytes, f.Shared, micros(f.ExpiresAt))); err != nil {
			return err
		}
		if !f.ExpiresAt.IsZero() {
			if err := t.askUpkeep(tenant.Ingest, f.ExpiresAt); err != nil {
				return err
			}
		}
		return t.audit(audit.FileCreated, f.ProjectID, f.ID)
	})
}

// Files implements web.Files.
func (db *DB) Files(ctx context.Context, s tenant.Scope, purpose string, p openai.Page) (all []rag.File, more bool, err error) {
	err = db.read(ctx, s.ID(), func(t *tx) error {
		all, more, err = readPage(t, fileList, p, scanFile, []any{s.ProjectID()}, []any{storable(purpose)})
		return err
	})
	return all, more, err
}

// File implements web.Files and rag.Jobs.
func (db *DB) File(ctx context.Context, s tenant.Scope, id string) (f rag.File, err error) {
	err = db.read(ctx, s.ID(), func(t *tx) error {
		f, err = t.file(id, s.ProjectID())
		return err
	})
	return f, err
}

func (t *tx) file(id, project string) (rag.File, error) {
	return only(t, fileOne, scanFile, storable(id), project)
}

// DeleteFile implements web.Files: the file goes from all stores too.
func (db *DB) DeleteFile(ctx context.Context, s tenant.Scope, id string) error {
	return db.write(ctx, s, func(t *tx) error { return t.deleteFile(storable(id), s.ProjectID()) })
}

func (t *tx) deleteFile(id, project string) error {
	var of, status string
	if err := t.one(fileOwned, []any{&of, &status}, id, project); err != nil {
		return err
	}
	var stores []string
	err := t.query(fileStores, func(r row) error {
		var store string
		err := r.Scan(&store)
		stores = append(stores, store)
		return err
	}, id)
	if err != nil {
		return err
	}
	for _, store := range stores {
		if err := t.detach(store, id); err != nil {
			return err
		}
	}
	if err := must(t.exec(fileDeleted, id, project)); err != nil {
		return err
	}
	if err := t.discard("", id); err != nil || status != "ready" {
		return err
	}
	return t.audit(audit.FileDeleted, of, id)
}

// deleteExpiredFiles removes some of the files whose time is over.
func (t *tx) deleteExpiredFiles(now time.Time, limit int) error {
	var ids []string
	err := t.query(filesExpired, func(r row) error {
		var id string
		err := r.Scan(&id)
		ids = append(ids, id)
		return err
	}, micros(now), limit)
	for _, id := range ids {
		if err == nil {
			err = t.deleteFile(id, "")
		}
	}
	return err
}
