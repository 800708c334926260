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

const (
	storeColumns = `id, project_id, created_by, name, description, shared, metadata, expires_days, created_at, active_at, expires_at,
		expired, embedder, dimension, version, visible_ts`
	storeRows = `SELECT ` + storeColumns + ` FROM vector_store WHERE company_id = $1`
	storeSeen = ` AND (shared OR project_id = $7 OR $7 = '')`
)

var (
	storeList = list[statement]{
		statement{"stores_cursor", `SELECT created_at FROM vector_store WHERE company_id = $1 AND id = $2
			AND (shared OR project_id = $3 OR $3 = '')`},
		statement{"stores_ascending", storeRows + between + storeSeen + oldToNew},
		statement{"stores_descending", storeRows + between + storeSeen + newToOld},
	}
	storeOne     = statement{"store_one", storeRows + ` AND id = $2 AND (shared OR project_id = $3 OR $3 = '')`}
	storesAll    = statement{"stores_all", storeRows + ` AND (shared OR project_id = $2 OR $2 = '') AND NOT expired ORDER BY created_at, id`}
	storesHeld   = statement{"stores_held", `SELECT COUNT(*) FROM vector_store WHERE company_id = $1`}
	storeCounted = statement{"store_counted",
		`SELECT status, COUNT(*), CAST(COALESCE(SUM(bytes), 0) AS BIGINT) FROM store_file WHERE company_id = $1 AND store_id = $2 GROUP BY status`}
	storeInserted = statement{"store_inserted",
		`INSERT INTO vector_store (company_id, id, project_id, created_by, name, description, shared, metadata, expires_days, created_at, active_at, expires_at)
		SELECT company_id, $2, $3, $4, $5, $6, $7, $8, $9, $10, $10, $11 FROM company WHERE company_id = $1 AND status = 'active'`}
	storeUpdated = statement{"store_updated",
		`UPDATE vector_store SET name = $4, shared = $5, metadata = $6, expires_days = $7, active_at = $8, expires_at = $9
		WHERE company_id = $1 AND id = $2 AND (project_id = $3 OR $3 = '') AND NOT expired`}
	storeOwned = statement{"store_owned",
		`SELECT id FROM vector_store WHERE company_id = $1 AND id = $2 AND (project_id = $3 OR $3 = '')`}
	storeExpired = statement{"store_expired",
		`UPDATE vector_store SET expired = TRUE, version = version + 1, expires_at = 0, embedder = '', dimension = 0
		WHERE company_id = $1 AND id = $2`}
	storeDeleted = statement{"store_deleted", `DELETE FROM vector_store WHERE company_id = $1 AND id = $2`}
	storeTouched = statement{"store_touched",
		`UPDATE vector_store SET active_at = $3, expires_at = CASE WHEN expires_days = 0 THEN 0 ELSE $3 + expires_days * 86400000000 END
		WHERE company_id = $1 AND id = $2 AND active_at < $3 AND NOT expired`}
	storeBumped = statement{"store_bumped", `UPDATE vector_store SET version = version + 1 WHERE company_id = $1 AND id = $2`}
	storesPast  = statement{"stores_past",
		`SELECT id FROM vector_store WHERE company_id = $1 AND expires_at > 0 AND expires_at <= $2 ORDER BY expires_at, id LIMIT $3`}
	storeFileIDs = statement{"store_file_ids",
		`SELECT file_id FROM store_file WHERE company_id = $1 AND store_id = $2 ORDER BY file_id LIMIT $3`}
	batchesDeleted = statement{"batches_deleted", `DELETE FROM file_batch WHERE company_id = $1 AND store_id = $2`}
)

func scanStore(r row) (v rag.Store, err error) {
	var stamp int64
	err = r.Scan(&v.ID, &v.ProjectID, &v.CreatedBy, &v.Name, &v.Description, &v.Shared, object{&v.Metadata}, &v.ExpiresDays, moment{&v.CreatedAt},
		moment{&v.ActiveAt}, moment{&v.ExpiresAt}, &v.Expired, &v.EmbedderID, &v.Dimension, &v.Version, &stamp)
	v.VisibleStamp = uint64(stamp)
	return v, err
}

// expiry returns when a store expires that was last used at a time.
func expiry(days int64, at time.Time) time.Time {
	if days == 0 {
		return time.Time{}
	}
	return at.Add(time.Duration(days) * 24 * time.Hour)
}

// count fills in the counts of a store.
func (t *tx) count(v *rag.Store) error {
	return t.query(storeCounted, func(r row) error {
		var status rag.Status
		var n, bytes int64
		err := r.Scan(&status, &n, &bytes)
		v.Counts.Add(status, n)
		v.Bytes += bytes
		return err
	}, v.ID)
}

// vectorStore returns a store that a project sees, with its counts.
func (t *tx) vectorStore(id, project string) (v rag.Store, err error) {
	if v, err = only(t, storeOne, scanStore, storable(id), project); err != nil {
		return v, err
	}
	return v, t.count(&v)
}

// ownStore returns errNoRow unless the project may change the store.
func (t *tx) ownStore(id, project string) error {
	return t.one(storeOwned, []any{&id}, storable(id), project)
}

// CreateVectorStore implements web.Files.
func (db *DB) CreateVectorStore(ctx context.Context, s tenant.Scope, v rag.Store, files []rag.StoreFile, q rag.Quota) error {
	return db.write(ctx, s, func(t *tx) error {
		var n int64
		if err := t.one(storesHeld, []any{&n}); err != nil {
			return err
		}
		if n >= q.Stores {
			return fault.New(fault.Invalid, "Your company has %d vector stores, which is as many as it may have. Delete some.", n).WithCode("vector_stores_exceeded")
		}
		expires := expiry(v.ExpiresDays, v.CreatedAt)
		err := must(t.exec(storeInserted, v.ID, v.ProjectID, v.CreatedBy, v.Name, v.Description, v.Shared, asJSON(v.Metadata), v.ExpiresDays,
			micros(v.CreatedAt), micros(expires)))
		if err != nil {
			return err
		}
		if !expires.IsZero() {
			if err := t.askUpkeep(tenant.Ingest, expires); err != nil {
				return err
			}
		}
		if err := t.attach(s.ProjectID(), files, q); err != nil {
			return err
		}
		return t.audit(audit.VectorStoreCreated, v.ProjectID, v.ID)
	})
}

// VectorStores implements web.Files.
func (db *DB) VectorStores(ctx context.Context, s tenant.Scope, p openai.Page) (all []rag.Store, more bool, err error) {
	err = db.read(ctx, s.ID(), func(t *tx) error {
		all, more, err = readPage(t, storeList, p, scanStore, []any{s.ProjectID()}, nil)
		for i := range all {
			if err == nil {
				err = t.count(&all[i])
			}
		}
		return err
	})
	return all, more, err
}

// VectorStore implements web.Files.
func (db *DB) VectorStore(ctx context.Context, s tenant.Scope, id string) (v rag.Store, err error) {
	err = db.read(ctx, s.ID(), func(t *tx) error {
		v, err = t.vectorStore(id, s.ProjectID())
		return err
	})
	return v, err
}

// UpdateVectorStore implements web.Files.
func (db *DB) UpdateVectorStore(ctx context.Context, s tenant.Scope, v rag.Store) (rag.Store, error) {
	err := db.write(ctx, s, func(t *tx) error {
		expires := expiry(v.ExpiresDays, t.now)
		err := must(t.exec(storeUpdated, storable(v.ID), s.ProjectID(), v.Name, v.Shared, asJSON(v.Metadata), v.ExpiresDays, micros(t.now), micros(expires)))
		if err != nil {
			return err
		}
		if v, err = t.vectorStore(v.ID, s.ProjectID()); err != nil {
			return err
		}
		if !expires.IsZero() {
			if err := t.askUpkeep(tenant.Ingest, expires); err != nil {
				return err
			}
		}
		return t.audit(audit.VectorStoreUpdated, v.ProjectID, v.ID)
	})
	return v, err
}

// filesPerTurn is how many files of a store that ends are removed in one
// transaction, which others wait for.
const filesPerTurn = 20

// DeleteVectorStore implements web.Files. It is emptied first, some files at a
// time: from then on nothing is found in it, also where this does not get to its end.
func (db *DB) DeleteVectorStore(ctx context.Context, s tenant.Scope, id string) error {
	id = storable(id)
	var of rag.Store
	err := db.write(ctx, s, func(t *tx) (err error) {
		if err := t.ownStore(id, s.ProjectID()); err != nil {
			return err
		}
		if of, err = t.vectorStore(id, s.ProjectID()); err != nil {
			return err
		}
		return must(t.exec(storeExpired, id))
	})
	for left := true; left && err == nil; {
		err = db.write(ctx, s, func(t *tx) error {
			left, err = t.emptyStore(id)
			return err
		})
	}
	if err != nil {
		return err
	}
	return db.write(ctx, s, func(t *tx) error {
		if _, err := t.exec(batchesDeleted, id); err != nil {
			return err
		}
		if err := must(t.exec(storeDeleted, id)); err != nil {
			return err
		}
		if err := t.discard(id, ""); err != nil {
			return err
		}
		return t.audit(audit.VectorStoreDeleted, of.ProjectID, id)
	})
}

// emptyStore takes some files out of a store; left says that there may be more.
func (t *tx) emptyStore(id string) (left bool, err error) {
	var files []string
	err = t.query(storeFileIDs, func(r row) error {
		var file string
		err := r.Scan(&file)
		files = append(files, file)
		return err
	}, id, filesPerTurn)
	for _, file := range files {
		if err == nil {
			err = t.detach(id, file)
		}
	}
	return len(files) == filesPerTurn, err
}

// expireStores empties some of the stores whose time is over. It returns whether
// there is more to be done.
func (t *tx) expireStores(now time.Time) (left bool, err error) {
	var past []string
	err = t.query(storesPast, func(r row) error {
		var id string
		err := r.Scan(&id)
		past = append(past, id)
		return err
	}, micros(now), 1)
	if err != nil || len(past) == 0 {
		return false, err
	}
	left, err = t.emptyStore(past[0])
	if err != nil || left {
		return left, err
	}
	_, err = t.exec(storeExpired, past[0])
	return true, err
}

// touchEvery is how exactly it is known when a store was last searched.
const touchEvery = time.Minute

// Touched implements rag.Library.
func (db *DB) Touched(ctx context.Context, s tenant.Scope, stores []string) error {
	return db.add(ctx, s, func(t *tx) error {
		for _, id := range stores {
			if _, err := t.exec(storeTouched, id, micros(t.now.Truncate(touchEvery))); err != nil {
				return err
			}
		}
		return nil
	})
}

// FindStores implements rag.Library.
func (db *DB) FindStores(ctx context.Context, s tenant.Scope, ids []string) (found []rag.Store, err error) {
	err = db.read(ctx, s.ID(), func(t *tx) error {
		collect := func(r row) error {
			v, err := scanStore(r)
			if !v.Expired {
				found = append(found, v)
			}
			return err
		}
		if ids == nil {
			return t.query(storesAll, collect, s.ProjectID())
		}
		for _, id := range ids {
			if err := t.query(storeOne, collect, storable(id), s.ProjectID()); err != nil {
				return err
			}
		}
		return nil
	})
	return found, err
}
