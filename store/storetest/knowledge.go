package storetest

import (
	"testing"
	"time"

	"bulkhead/rag"
	"bulkhead/tenant"
)

// roomy is a quota that nothing here reaches.
var roomy = rag.Quota{Files: 1000, Bytes: 1 << 30, Stores: 1000, StoreFiles: 1000}

// lease is longer than a test.
const lease = time.Hour

// putFile makes a file as if it had been uploaded.
func putFile(t *testing.T, w *world, s tenant.Scope, f rag.File, q rag.Quota) {
	t.Helper()
	if f.Name == "" {
		f.Name = f.ID + ".txt"
	}
	f.Purpose, f.Type, f.CreatedBy = rag.ForAssistants, "text/plain", "key_same"
	must(t, w.db.BeginFile(w.ctx(), s, f, q))
	must(t, w.db.FinishFile(w.ctx(), s, f, q))
}

// held is a file for a store.
func held(store, file, batch string, at time.Time) rag.StoreFile {
	return rag.StoreFile{StoreID: store, FileID: file, BatchID: batch, Chunking: rag.AutoChunking(), CreatedAt: at}
}

// take takes a job and fails the test if there is none.
func take(t *testing.T, w *world, s tenant.Scope, embedder string) *rag.Job {
	t.Helper()
	j, next, err := w.db.TakeJob(w.ctx(), s, lease, 100, embedder)
	must(t, err)
	if j == nil {
		t.Fatalf("there is no job; the next is at %s", next)
	}
	return j
}

// complete does a job: the file has as many chunks as texts.
func complete(t *testing.T, w *world, s tenant.Scope, j *rag.Job, embedder string, texts ...string) {
	t.Helper()
	var chunks []rag.Chunk
	for i, text := range texts {
		chunks = append(chunks, rag.Chunk{Ref: rag.Ref{StoreID: j.StoreID, FileID: j.FileID, Index: i}, Text: text, EmbedderID: embedder, Vector: []float32{float32(i), 0.5}})
	}
	must(t, w.db.PutChunks(w.ctx(), s, j, chunks))
	must(t, w.db.FinishJob(w.ctx(), s, j, rag.Done{EmbedderID: embedder, Dimension: 2, Chunks: len(texts), Bytes: int64(len(texts)) * 10, Stamp: 7}))
}

// The figures that furnishKnowledge needs, and not one more.
var exact = rag.Quota{Files: 3, Bytes: 30, Stores: 2, StoreFiles: 2}

// furnishKnowledge gives a company files and stores with the same ids in each and
// texts that name it: as many as its quota lets it have.
func furnishKnowledge(t *testing.T, w *world, s tenant.Scope, name string, at time.Time) {
	t.Helper()
	ctx, db := w.ctx(), w.db
	for _, id := range []string{"file-same", "file-two", "file-old"} {
		f := rag.File{ID: id, Name: name + " " + id, ProjectID: "proj_same", Bytes: 10, CreatedAt: at, Shared: id == "file-two"}
		if id == "file-old" && name == "beta" {
			f.ExpiresAt = at.Add(time.Minute)
		}
		putFile(t, w, s, f, exact)
	}
	for _, id := range []string{"vs_same", "vs_old"} {
		v := rag.Store{ID: id, Name: name + " " + id, ProjectID: "proj_same", CreatedBy: "key_same", CreatedAt: at, ActiveAt: at, Metadata: map[string]string{"of": name}}
		if id == "vs_old" && name == "beta" {
			v.ExpiresDays = 1
		}
		must(t, db.CreateVectorStore(ctx, s, v, nil, exact))
	}
	files := []rag.StoreFile{held("vs_same", "file-same", "vsfb_same", at)}
	files[0].Attributes = rag.Attributes{"of": name}
	must(t, db.AttachFiles(ctx, s, "vs_same", files, &rag.Batch{ID: "vsfb_same", StoreID: "vs_same", CreatedAt: at}, exact))
	must(t, db.AttachFiles(ctx, s, "vs_same", []rag.StoreFile{held("vs_same", "file-two", "", at)}, nil, exact))
	for range 2 {
		// Not TakeJob, which looks for what has expired too: that is for later.
		j := &rag.Job{Kind: rag.Ingest, StoreID: "vs_same", FileID: []string{"file-same", "file-two"}[len(files)-1]}
		complete(t, w, s, j, "embedder of "+name, name+" one", name+" two")
		files = append(files, rag.StoreFile{})
	}
}

// seeKnowledge reads all there is of a company's knowledge.
func seeKnowledge(t *testing.T, w *world, s tenant.Scope, see func(what string, v any, err error)) {
	t.Helper()
	ctx, db := w.ctx(), w.db
	page := all
	for _, page.Desc = range []bool{false, true} {
		for _, page.After = range []string{"", "file-same"} {
			files, _, err := db.Files(ctx, s, "", page)
			see("files", files, err)
			in, _, err := db.StoreFiles(ctx, s, "vs_same", "", "", page)
			see("files in a store", in, err)
		}
		for _, page.After = range []string{"", "vs_same"} {
			stores, _, err := db.VectorStores(ctx, s, page)
			see("stores", stores, err)
		}
	}
	in, _, err := db.StoreFiles(ctx, s, "vs_same", "vsfb_same", "", all)
	see("files of a batch", in, err)
	for _, id := range []string{"file-same", "file-two", "file-old", "file-late"} {
		f, err := db.File(ctx, s, id)
		see("file", f, err)
		h, err := db.StoreFile(ctx, s, "vs_same", id)
		see("file in a store", h, err)
		chunks, err := db.FileChunks(ctx, s, "vs_same", id, 0, 100)
		see("chunks", chunks, err)
		chunks, err = db.JobChunks(ctx, s, &rag.Job{StoreID: "vs_same", FileID: id}, 0, 100)
		see("chunks of a job", chunks, err)
	}
	for _, id := range []string{"vs_same", "vs_old"} {
		v, err := db.VectorStore(ctx, s, id)
		see("store", v, err)
	}
	b, err := db.Batch(ctx, s, "vs_same", "vsfb_same")
	see("batch", b, err)
	for _, ids := range [][]string{nil, {"vs_same", "vs_old"}} {
		found, err := db.FindStores(ctx, s, ids)
		see("found stores", found, err)
	}
	contents, err := db.Contents(ctx, s, "vs_same")
	see("contents", contents, err)
	chunks, err := db.ReadChunks(ctx, s, []rag.Ref{{StoreID: "vs_same", FileID: "file-same", Index: 1}, {StoreID: "vs_same", FileID: "file-nobody"}})
	see("read chunks", chunks, err)
	backlog, err := db.Backlog(ctx, s)
	see("backlog", backlog, err)
}

// testSeparateKnowledge makes every change there is in acme; beta must not see one.
func testSeparateKnowledge(t *testing.T, w *world, acme, beta tenant.Scope) {
	t.Helper()
	ctx, db := w.ctx(), w.db
	v, err := db.VectorStore(ctx, acme, "vs_same")
	must(t, err)
	same(t, v.Counts, rag.Counts{Completed: 2})
	b, err := db.Batch(ctx, acme, "vs_same", "vsfb_same")
	must(t, err)
	same(t, b.Counts, rag.Counts{Completed: 1})
	for _, s := range []tenant.Scope{acme, beta} {
		must(t, db.BeginFile(ctx, s, rag.File{ID: "file-late", Name: "late.txt", ProjectID: "proj_same", CreatedAt: time.Now()}, roomy))
	}
	before := snapshot(t, w, beta)
	f := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Errorf("%s: %s", what, err)
		}
		if after := snapshot(t, w, beta); after != before {
			t.Fatalf("%s in acme changed beta:\n%s\n%s", what, before, after)
		}
	}
	// What is due in beta is not in acme: a file and a store that have expired, and
	// vectors of another embedder.
	j, _, err := db.TakeJob(ctx, acme, lease, 2, "embedder of acme")
	f("TakeJob", err)
	if j != nil {
		t.Errorf("acme has a job of beta's: %+v", j)
	}
	own := snapshot(t, w, acme)
	for _, id := range []string{"file-old", "file-same"} {
		_, err := db.File(ctx, acme, id)
		f("File", err)
	}
	v, err = db.VectorStore(ctx, acme, "vs_old")
	f("VectorStore", err)
	same(t, v.Expired, false)
	v, err = db.VectorStore(ctx, acme, "vs_same")
	f("VectorStore", err)
	same(t, []any{v.EmbedderID, v.Counts}, []any{"embedder of acme", rag.Counts{Completed: 2}})
	if again := snapshot(t, w, acme); again != own {
		t.Errorf("reading acme changed it")
	}

	f("FinishFile", db.FinishFile(ctx, acme, rag.File{ID: "file-late", Purpose: rag.ForUserData, Type: "text/plain", Bytes: 4}, roomy))
	v.Name, v.Metadata = "acme renamed", nil
	_, err = db.UpdateVectorStore(ctx, acme, v)
	f("UpdateVectorStore", err)
	f("Touched", db.Touched(ctx, acme, []string{"vs_old"}))
	_, err = db.SetAttributes(ctx, acme, "vs_same", "file-two", rag.Attributes{"of": "acme now"})
	f("SetAttributes", err)
	f("Stale", db.Stale(ctx, acme))
	separateJobs(t, w, acme, beta, f)
	// A batch that is under way in both.
	anew := []rag.StoreFile{held("vs_same", "file-same", "vsfb_same", epoch)}
	must(t, db.AttachFiles(ctx, beta, "vs_same", anew, nil, roomy))
	before = snapshot(t, w, beta)
	f("AttachFiles anew", db.AttachFiles(ctx, acme, "vs_same", anew, nil, roomy))
	_, err = db.CancelBatch(ctx, acme, "vs_same", "vsfb_same")
	f("CancelBatch", err)
	f("DetachFile", db.DetachFile(ctx, acme, "vs_same", "file-same"))
	f("DeleteFile", db.DeleteFile(ctx, acme, "file-two"))
	f("DeleteVectorStore", db.DeleteVectorStore(ctx, acme, "vs_same"))
	f("DeleteVectorStore", db.DeleteVectorStore(ctx, acme, "vs_old"))
	// Something is left to be discarded in both, for their erasure.
	must(t, db.DetachFile(ctx, beta, "vs_same", "file-two"))
}

// separateJobs does in acme what is done for a job.
func separateJobs(t *testing.T, w *world, acme, beta tenant.Scope, f func(what string, err error)) {
	t.Helper()
	ctx, db := w.ctx(), w.db
	two := func() *rag.Job { return &rag.Job{Kind: rag.Ingest, StoreID: "vs_same", FileID: "file-two"} } // whose claim nobody has
	f("RenewJob", db.RenewJob(ctx, acme, two(), lease))
	f("PutChunks", db.PutChunks(ctx, acme, two(), []rag.Chunk{{Ref: rag.Ref{StoreID: "vs_same", FileID: "file-two"}, Text: "acme now", EmbedderID: "embedder of acme", Vector: []float32{1, 2}}}))
	f("RetryJob", db.RetryJob(ctx, acme, two(), epoch.Add(time.Hour)))
	f("FinishJob", db.FinishJob(ctx, acme, two(), rag.Done{EmbedderID: "embedder of acme", Dimension: 2, Chunks: 1, Bytes: 3}))
	// The first file of a store that has no vectors yet, in either.
	f("AttachFiles", db.AttachFiles(ctx, acme, "vs_old", []rag.StoreFile{held("vs_old", "file-old", "", epoch)}, nil, roomy))
	f("FinishJob of the first file", db.FinishJob(ctx, acme, &rag.Job{StoreID: "vs_old", FileID: "file-old"}, rag.Done{EmbedderID: "embedder of acme", Dimension: 2, Stamp: 9}))
	f("DetachFile", db.DetachFile(ctx, acme, "vs_old", "file-old"))
	first := take(t, w, acme, "embedder of acme")
	f("FinishJob of what was discarded", db.FinishJob(ctx, acme, first, rag.Done{}))
	v, err := db.VectorStore(ctx, acme, "vs_old")
	f("VectorStore", err)
	same(t, []any{v.EmbedderID, v.VisibleStamp}, []any{"embedder of acme", 9})
	// All vectors of acme are made anew: two jobs, behind that of the index.
	other := take(t, w, acme, "another embedder")
	same(t, []any{other.Kind, other.StoreID}, []any{rag.Discard, "vs_old"})
	f("FinishJob of the other index", db.FinishJob(ctx, acme, other, rag.Done{}))
	index := take(t, w, acme, "another embedder")
	same(t, []any{index.Kind, index.StoreID, index.FileID}, []any{rag.Discard, "vs_same", ""})
	f("TakeJob for another embedder", nil)
	f("RenewJob of the index", db.RenewJob(ctx, acme, index, lease))
	// While beta has as many under way as there may be.
	f("RetryJob of the index", db.RetryJob(ctx, acme, index, epoch))
	index = take(t, w, acme, "another embedder")
	f("FinishJob of the index", db.FinishJob(ctx, acme, index, rag.Done{}))
	one := take(t, w, acme, "another embedder")
	same(t, []any{one.Kind, one.StoreID, one.Tries}, []any{rag.Embed, "vs_same", 1})
	f("TakeJob", nil)
	complete(t, w, acme, one, "another embedder", "acme one", "acme two")
	f("a job", nil)

	// The same discard in both: each takes its own, for the first time.
	for _, s := range []tenant.Scope{acme, beta} {
		must(t, db.DetachFile(ctx, s, "vs_same", "file-two"))
		must(t, db.RetryJob(ctx, s, &rag.Job{Kind: rag.Discard, StoreID: "vs_same", FileID: "file-two"}, time.Unix(1, 0))) // before all there is
	}
	for _, s := range []tenant.Scope{acme, beta} {
		own := take(t, w, s, map[tenant.Scope]string{beta: "embedder of beta", acme: "another embedder"}[s])
		same(t, []any{own.Kind, own.FileID, own.Tries}, []any{rag.Discard, "file-two", 1})
		must(t, db.FinishJob(ctx, s, own, rag.Done{}))
		must(t, db.AttachFiles(ctx, s, "vs_same", []rag.StoreFile{held("vs_same", "file-two", "", epoch)}, nil, roomy))
	}
	// The same discards, of as many tries, in both: what is done to one is not to the other.
	for _, s := range []tenant.Scope{acme, beta} {
		must(t, db.DetachFile(ctx, s, "vs_same", "file-two"))
		must(t, db.AttachFiles(ctx, s, "vs_same", []rag.StoreFile{held("vs_same", "file-two", "", epoch)}, nil, roomy))
	}
	before := snapshot(t, w, beta)
	g := func(what string) {
		t.Helper()
		if after := snapshot(t, w, beta); after != before {
			t.Fatalf("%s in acme changed beta:\n%s\n%s", what, before, after)
		}
	}
	again := &rag.Job{Kind: rag.Discard, StoreID: "vs_same", FileID: "file-two"}
	must(t, db.RenewJob(ctx, acme, again, lease))
	g("RenewJob of a discard")
	must(t, db.RetryJob(ctx, acme, again, time.Unix(1, 0))) // before all there is
	g("RetryJob of a discard")
	must(t, db.FinishJob(ctx, acme, again, rag.Done{}))
	g("FinishJob of a discard")
	must(t, db.FailJob(ctx, acme, two(), rag.FileError{Code: rag.InvalidFile, Message: "acme"}))
	g("FailJob")
	// Beta has a discard and a file to be taken in, acme has not after these.
	gone := take(t, w, acme, "another embedder")
	g("TakeJob of a discard")
	must(t, db.FinishJob(ctx, acme, gone, rag.Done{}))
	must(t, db.DetachFile(ctx, acme, "vs_same", "file-two"))
	must(t, db.FinishJob(ctx, acme, again, rag.Done{}))
	must(t, db.AttachFiles(ctx, acme, "vs_same", []rag.StoreFile{held("vs_same", "file-two", "", epoch)}, nil, roomy))
	j := take(t, w, acme, "another embedder")
	same(t, []any{j.Kind, j.FileID}, []any{rag.Ingest, "file-two"})
	g("TakeJob of a file")
	complete(t, w, acme, j, "another embedder", "acme")
	if j, _, err := db.TakeJob(ctx, acme, lease, 100, "another embedder"); err != nil || j != nil {
		t.Errorf("acme has a job of beta's: %+v, %v", j, err)
	}
	// One at a time: what is under way in one company does not count for another.
	for _, s := range []tenant.Scope{beta, acme} {
		must(t, db.AttachFiles(ctx, s, "vs_same", []rag.StoreFile{held("vs_same", "file-two", "", epoch)}, nil, roomy))
		deadline := 20
		for ; deadline > 0; deadline-- {
			j, _, err := db.TakeJob(ctx, s, lease, 1, map[tenant.Scope]string{beta: "embedder of beta", acme: "another embedder"}[s])
			must(t, err)
			if j == nil {
				t.Fatal("there is no job for a company that has none under way")
			}
			if j.Kind != rag.Discard {
				break
			}
			must(t, db.FinishJob(ctx, s, j, rag.Done{}))
		}
	}
	if j, _, err := db.TakeJob(ctx, acme, lease, 1, "another embedder"); err != nil || j != nil {
		t.Errorf("a company has more under way than it may: %+v, %v", j, err)
	}
}

// foreignKnowledge asks acme for what only beta has.
func foreignKnowledge(t *testing.T, w *world, acme, beta tenant.Scope, f func(what string, err error, more ...error)) {
	t.Helper()
	ctx, db := w.ctx(), w.db
	putFile(t, w, beta, rag.File{ID: "file-beta", CreatedAt: epoch, Shared: true, Bytes: 1}, roomy)
	must(t, db.CreateVectorStore(ctx, beta, rag.Store{ID: "vs_beta", CreatedAt: epoch, ActiveAt: epoch, Shared: true}, []rag.StoreFile{held("vs_beta", "file-beta", "", epoch)}, roomy))
	for _, id := range []string{"file-beta", "file-nobody", "", "file-same\x00", "FILE-SAME", "file-%"} {
		_, err := db.File(ctx, acme, id)
		f("File "+id, err, db.DeleteFile(ctx, acme, id), db.DetachFile(ctx, acme, "vs_same", id))
		_, err = db.StoreFile(ctx, acme, "vs_same", id)
		f("StoreFile "+id, err)
		_, err = db.SetAttributes(ctx, acme, "vs_same", id, nil)
		f("SetAttributes "+id, err)
		err = db.AttachFiles(ctx, acme, "vs_same", []rag.StoreFile{held("vs_same", id, "", epoch)}, nil, roomy)
		if no, ok := err.(*rag.NoFileError); !ok || no.ID != id {
			t.Errorf("AttachFiles of %q: %v", id, err)
		}
	}
	for _, id := range []string{"vs_beta", "vs_nobody", "", "vs_same\x00", "VS_SAME"} {
		v, err := db.VectorStore(ctx, acme, id)
		f("VectorStore "+id, err, db.DeleteVectorStore(ctx, acme, id))
		v.ID = id
		_, err = db.UpdateVectorStore(ctx, acme, v)
		f("UpdateVectorStore "+id, err, db.AttachFiles(ctx, acme, id, []rag.StoreFile{held(id, "file-same", "", epoch)}, nil, roomy))
		_, _, err = db.StoreFiles(ctx, acme, id, "", "", all)
		f("StoreFiles "+id, err)
		_, err = db.Batch(ctx, acme, id, "vsfb_same")
		f("Batch "+id, err)
		_, err = db.CancelBatch(ctx, acme, id, "vsfb_same")
		f("CancelBatch "+id, err)
		found, err := db.FindStores(ctx, acme, []string{id})
		if err != nil || len(found) != 0 {
			t.Errorf("FindStores %q: %v, %v", id, found, err)
		}
	}
	must(t, db.DeleteVectorStore(ctx, beta, "vs_beta"))
	must(t, db.DeleteFile(ctx, beta, "file-beta"))
}
