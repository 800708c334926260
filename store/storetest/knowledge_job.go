package storetest

import (
	"errors"
	"fmt"
	"testing"

	"bulkhead/fault"
	"bulkhead/rag"
	"bulkhead/tenant"
)

// testKnowledge checks projects, quotas and the life of a file in a store.
func testKnowledge(t *testing.T, open Open) {
	w := newWorld(t, open)
	admin, keys := w.company("acme")
	live, err := w.Authenticate(w.ctx(), []byte(keys[1]))
	must(t, err)
	ctx, db := w.ctx(), w.db
	putFile(t, w, live, rag.File{ID: "file-1", ProjectID: firstProject, Bytes: 10, CreatedAt: epoch}, roomy)
	putFile(t, w, admin, rag.File{ID: "file-2", ProjectID: "proj_other", Bytes: 10, CreatedAt: epoch}, roomy)
	putFile(t, w, admin, rag.File{ID: "file-3", ProjectID: "proj_other", Bytes: 10, CreatedAt: epoch, Shared: true}, roomy)
	ids := func(s tenant.Scope) (ids []string) {
		files, _, err := db.Files(ctx, s, "", all)
		must(t, err)
		for _, f := range files {
			ids = append(ids, f.ID)
		}
		return ids
	}
	same(t, ids(admin), []string{"file-1", "file-2", "file-3"})
	same(t, ids(live), []string{"file-1", "file-3"})
	_, err = db.File(ctx, live, "file-2")
	wantErr(t, err, tenant.ErrNotFound)
	wantErr(t, db.DeleteFile(ctx, live, "file-2"), tenant.ErrNotFound)
	wantErr(t, db.DeleteFile(ctx, live, "file-3"), tenant.ErrNotFound) // to be seen, not to be changed
	wantFault(t, db.BeginFile(ctx, live, rag.File{ID: "file-4", CreatedAt: epoch}, rag.Quota{Files: 3, Bytes: 1000}), fault.Invalid)
	must(t, db.BeginFile(ctx, live, rag.File{ID: "file-4", ProjectID: firstProject, CreatedAt: epoch}, rag.Quota{Files: 4, Bytes: 1000}))
	wantFault(t, db.FinishFile(ctx, live, rag.File{ID: "file-4", Bytes: 11}, rag.Quota{Files: 4, Bytes: 40}), fault.Invalid)
	same(t, ids(live), []string{"file-1", "file-3"})
	must(t, db.DeleteFile(ctx, live, "file-4"))

	must(t, db.CreateVectorStore(ctx, live, rag.Store{ID: "vs_1", ProjectID: firstProject, CreatedAt: epoch, ActiveAt: epoch},
		[]rag.StoreFile{held("vs_1", "file-1", "", epoch), held("vs_1", "file-3", "", epoch)}, roomy))
	err = db.CreateVectorStore(ctx, live, rag.Store{ID: "vs_2", ProjectID: firstProject, CreatedAt: epoch, ActiveAt: epoch},
		[]rag.StoreFile{held("vs_2", "file-1", "", epoch), held("vs_2", "file-2", "", epoch)}, roomy)
	if _, ok := err.(*rag.NoFileError); !ok {
		t.Errorf("a file of another project was put into a store: %v", err)
	}
	_, err = db.VectorStore(ctx, admin, "vs_2")
	wantErr(t, err, tenant.ErrNotFound)
	wantFault(t, db.CreateVectorStore(ctx, live, rag.Store{ID: "vs_3"}, nil, rag.Quota{Stores: 1}), fault.Invalid)
	wantFault(t, db.AttachFiles(ctx, live, "vs_1", []rag.StoreFile{held("vs_1", "file-1", "", epoch)}, nil, rag.Quota{StoreFiles: 2}), fault.Invalid)

	testJobLife(t, w, live)
}

// testJobLife takes files in, loses jobs, deletes what is under way.
func testJobLife(t *testing.T, w *world, s tenant.Scope) {
	t.Helper()
	ctx, db := w.ctx(), w.db
	gone := take(t, w, s, "e") // the blob of file-4
	same(t, []any{gone.Kind, gone.StoreID, gone.FileID}, []any{rag.Discard, "", "file-4"})
	must(t, db.FinishJob(ctx, s, gone, rag.Done{}))
	first := take(t, w, s, "e")
	second := take(t, w, s, "e")
	same(t, []any{first.FileID, first.File.Name, second.FileID, first.Tries}, []any{"file-1", "file-1.txt", "file-3", 1})
	if j, _, err := db.TakeJob(ctx, s, lease, 100, "e"); j != nil || err != nil {
		t.Errorf("a job that is held was given out again: %+v, %v", j, err)
	}
	chunk := []rag.Chunk{{Ref: rag.Ref{StoreID: "vs_1", FileID: "file-1"}, Text: "text", EmbedderID: "e", Vector: []float32{1, -2.5}}}
	must(t, db.PutChunks(ctx, s, first, chunk))
	// Not to be found before it is completed.
	refs := []rag.Ref{{StoreID: "vs_1", FileID: "file-1"}}
	seen := func() int {
		t.Helper()
		chunks, err := db.ReadChunks(ctx, s, refs)
		must(t, err)
		in, err := db.FileChunks(ctx, s, "vs_1", "file-1", 0, 10)
		must(t, err)
		contents, err := db.Contents(ctx, s, "vs_1")
		must(t, err)
		if len(chunks) != len(in) || len(in) != len(contents) {
			t.Errorf("%d chunks read, %d of the file, %d files", len(chunks), len(in), len(contents))
		}
		return len(chunks)
	}
	same(t, seen(), 0)
	must(t, db.FinishJob(ctx, s, first, rag.Done{EmbedderID: "e", Dimension: 2, Chunks: 1, Bytes: 12}))
	same(t, seen(), 1)
	wantErr(t, db.FinishJob(ctx, s, first, rag.Done{EmbedderID: "e", Dimension: 2}), rag.ErrLost)
	wantErr(t, db.RenewJob(ctx, s, first, lease), rag.ErrLost)
	got, err := db.FileChunks(ctx, s, "vs_1", "file-1", 0, 10)
	must(t, err)
	same(t, []any{got[0].Text, got[0].Vector, got[0].EmbedderID}, []any{"text", []float32{1, -2.5}, "e"})

	// Vectors unlike those that the store has are no lost job: it is tried again, until
	// the tries end. Nothing of it is shown.
	for _, d := range []rag.Done{{EmbedderID: "e", Dimension: 3, Chunks: 1}, {EmbedderID: "other", Dimension: 2, Chunks: 1}} {
		if err := db.FinishJob(ctx, s, second, d); err == nil || errors.Is(err, rag.ErrLost) {
			t.Errorf("unlike vectors: %v", err)
		}
	}
	must(t, db.RenewJob(ctx, s, second, lease))

	// A file that is deleted while it is taken in.
	must(t, db.PutChunks(ctx, s, second, []rag.Chunk{{Ref: rag.Ref{StoreID: "vs_1", FileID: "file-3"}, Text: "x", EmbedderID: "e", Vector: []float32{1, 1}}}))
	must(t, db.DetachFile(ctx, s, "vs_1", "file-3"))
	wantErr(t, db.PutChunks(ctx, s, second, chunk), rag.ErrLost)
	wantErr(t, db.FinishJob(ctx, s, second, rag.Done{EmbedderID: "e", Dimension: 2}), rag.ErrLost)
	// It comes back, and waits until the index has let go of it.
	must(t, db.AttachFiles(ctx, s, "vs_1", []rag.StoreFile{held("vs_1", "file-3", "", epoch)}, nil, roomy))
	index := take(t, w, s, "e")
	same(t, []any{index.Kind, index.StoreID, index.FileID}, []any{rag.Discard, "vs_1", "file-3"})
	if j, _, err := db.TakeJob(ctx, s, lease, 100, "e"); j != nil || err != nil {
		t.Errorf("a file is taken in that is still in the index: %+v, %v", j, err)
	}
	must(t, db.FinishJob(ctx, s, index, rag.Done{}))
	third := take(t, w, s, "e")
	// Its time is over, and somebody else has it.
	must(t, db.RetryJob(ctx, s, third, epoch))
	fourth := take(t, w, s, "e")
	same(t, []any{fourth.FileID, fourth.Tries}, []any{"file-3", 2})
	wantErr(t, db.PutChunks(ctx, s, third, chunk), rag.ErrLost)
	must(t, db.FailJob(ctx, s, fourth, rag.FileError{Code: rag.InvalidFile, Message: "It is damaged."}))
	h, err := db.StoreFile(ctx, s, "vs_1", "file-3")
	must(t, err)
	same(t, []any{h.Status, h.Error}, []any{rag.Failed, rag.FileError{Code: rag.InvalidFile, Message: "It is damaged."}})
	chunks, err := db.JobChunks(ctx, s, third, 0, 10)
	must(t, err)
	same(t, len(chunks), 0)

	testNewEmbedder(t, w, s, refs, seen)
	testFencedJobs(t, w, s)
}

// testNewEmbedder has the vectors made anew. The file is found meanwhile, its old
// vector is not.
func testNewEmbedder(t *testing.T, w *world, s tenant.Scope, refs []rag.Ref, seen func() int) {
	t.Helper()
	ctx, db := w.ctx(), w.db
	for {
		j := take(t, w, s, "f")
		if j.Kind == rag.Discard {
			must(t, db.FinishJob(ctx, s, j, rag.Done{}))
			continue
		}
		same(t, []any{j.Kind, j.FileID}, []any{rag.Embed, "file-1"})
		same(t, seen(), 1)
		old, err := db.FileChunks(ctx, s, "vs_1", "file-1", 0, 10)
		must(t, err)
		same(t, old[0].Vector == nil, true)
		must(t, db.PutChunks(ctx, s, j, []rag.Chunk{{Ref: refs[0], Text: "text", EmbedderID: "f", Vector: []float32{3}}}))
		must(t, db.FinishJob(ctx, s, j, rag.Done{EmbedderID: "f", Dimension: 1, Chunks: 1}))
		v, err := db.VectorStore(ctx, s, "vs_1")
		must(t, err)
		same(t, []any{v.EmbedderID, v.Dimension}, []any{"f", 1})
		return
	}
}

// testFencedJobs suspends and erases a company with a job under way.
func testFencedJobs(t *testing.T, w *world, s tenant.Scope) {
	t.Helper()
	ctx, db := w.ctx(), w.db
	must(t, db.AttachFiles(ctx, s, "vs_1", []rag.StoreFile{held("vs_1", "file-1", "", epoch), held("vs_1", "file-3", "", epoch)}, nil, roomy))
	j := take(t, w, s, "f")
	id := s.ID().String()
	for _, st := range []tenant.Status{tenant.Suspended, tenant.Erasing} {
		_, err := db.SetCompanyStatus(ctx, w.act("company.status", id), id, st)
		must(t, err)
		wantErr(t, db.PutChunks(ctx, s, j, nil), rag.ErrLost)
		wantErr(t, db.RenewJob(ctx, s, j, lease), rag.ErrLost)
		wantErr(t, db.FinishJob(ctx, s, j, rag.Done{EmbedderID: "f", Dimension: 1}), rag.ErrLost)
		if other, _, err := db.TakeJob(ctx, s, lease, 100, "f"); other != nil || err != nil {
			t.Errorf("a job was given out of a company that is %s: %+v, %v", st, other, err)
		}
		if err := db.BeginFile(ctx, s, rag.File{ID: fmt.Sprint("file-", st), CreatedAt: epoch}, roomy); err == nil {
			t.Errorf("a company that is %s took a file", st)
		}
	}
	b, err := db.Backlog(ctx, s)
	must(t, err)
	same(t, b.Working, 1)
	must(t, db.RetryJob(ctx, s, j, epoch)) // who held it lets go
	b, err = db.Backlog(ctx, s)
	must(t, err)
	same(t, b.Working, 0)
}
