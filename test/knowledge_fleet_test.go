package test

import (
	"bytes"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	milvussdk "github.com/milvus-io/milvus-sdk-go/v2/client"

	"bulkhead/rag"
	"bulkhead/store/pgtest"
	"bulkhead/test/scale"
	"bulkhead/test/servers"
)

// shelves is what a company of a fleet has put in.
type shelves struct {
	*member
	store string
	files map[string]string // ids, by document
}

// TestIngestFleet shares the taking in of files between gateways over PostgreSQL, S3
// and Milvus: a file that is uploaded at one is indexed once, by any, and found from
// all, by the vectors alone; a gateway that is killed in any phase of it leaves work
// that the others finish, and nothing is there twice: in the store, in Milvus, in
// the index of words.
func TestIngestFleet(t *testing.T) {
	sc := scale.Of(t)
	quiet, more, kills := scale.Pick(sc, 2, 3), scale.Pick(sc, 2, 1), scale.Pick(sc, 3, 30) // files of each company, at first and before each kill
	s3, milvus := servers.Start(t, "s3"), servers.Start(t, "milvus", patientMilvus)
	f := newFleet(t, sc, fleetOptions{config: s3Config(s3), env: []string{"BULKHEAD_MILVUS_ADDR=" + milvus.Var("MILVUS_ADDR")}})
	embed := newScriptedEmbedder(f.up)
	random := sc.Rand()

	var all []*shelves
	for _, m := range f.members {
		f.all[0].setCredential(t, m.company, "openai", upstreamSecret)
		f.all[0].org(t, m.company, http.MethodPost, "/embeddings", map[string]any{"model": "openai/embed"}, nil)
		sh := &shelves{member: m, files: map[string]string{}}
		sh.store = shelf{f.all[0], m.APIKey}.do(t, http.StatusOK, http.MethodPost, "/vector_stores", map[string]any{"name": "fleet"})["id"].(string)
		all = append(all, sh)
	}
	begin := time.Now()
	for i := range f.all {
		eventually(t, everywhere, fmt.Sprintf("gateway %d has heard of it", i), func() bool { return f.heard(t, i).After(begin) })
	}
	// numbers are those of the documents' paragraphs, all different.
	numbers := map[string]int{}
	upload := func(n int) {
		t.Helper()
		for range n {
			for c, sh := range all {
				title := fmt.Sprintf("%d.%d", c, len(sh.files))
				numbers[title] = 1000 * (len(numbers) + 1)
				at := shelf{f.all[random.IntN(len(f.all))], sh.APIKey}
				sh.files[title] = at.upload(t, title+".docx", document(title, numbers[title]))
				at = shelf{f.all[random.IntN(len(f.all))], sh.APIKey}
				at.do(t, http.StatusOK, http.MethodPost, "/vector_stores/"+sh.store+"/files", map[string]any{"file_id": sh.files[title], "chunking_strategy": smallChunks})
			}
		}
	}
	completed := func(within time.Duration) {
		t.Helper()
		for _, sh := range all {
			at := shelf{f.all[f.others(f.down(t)...)[0]], sh.APIKey}
			eventually(t, within, "the files of "+sh.Name+" are taken in", func() bool {
				return at.counts(t, "/vector_stores/"+sh.store)["completed"] == float64(len(sh.files))
			})
		}
	}

	// Undisturbed: each text is embedded once, by one of them.
	upload(quiet)
	completed(3 * time.Minute)
	embed.mu.Lock()
	for text, n := range embed.texts {
		if n != 1 {
			t.Errorf("embedded %d times: %.80q", n, text)
		}
	}
	embed.mu.Unlock()

	// Kills, in turn while the first chunks are embedded, when some are stored, and at
	// any moment from the answer for the last ones on.
	phases := map[string]int{}
	for k := range kills {
		skip := random.IntN(2)
		pick := func(ok func(embedding) bool) func(embedding) bool {
			return func(call embedding) bool {
				if !ok(call) {
					return false
				}
				skip--
				return skip < 0
			}
		}
		var next func(*testing.T) embedding
		switch k % 3 {
		case 0:
			next = embed.next("first chunks are embedded", true, pick(func(c embedding) bool { return c.first }))
		case 1:
			next = embed.next("more chunks are embedded", true, pick(func(c embedding) bool { return !c.first && !c.last }))
		default:
			next = embed.next("the last chunks are embedded", false, pick(func(c embedding) bool { return c.last }))
		}
		upload(more)
		hit := next(t)
		if k%3 == 2 {
			<-time.After(time.Duration(random.IntN(400)) * time.Millisecond) // the moment is the test's choice
		}
		f.runs[hit.gateway].kill(t)
		phases[f.cutIn(t, all, hit)]++
		if k < kills-1 { // the last one stays away until all is done
			f.start(t, hit.gateway)
		}
	}
	completed(scale.Pick(sc, 3*time.Minute, 20*time.Minute))
	for _, i := range f.down(t) {
		f.start(t, i)
	}
	t.Logf("killed in these phases: %v; calls for embeddings by gateway: %v", phases, embed.by)
	sc.Figure("killed_while_embedding", phases["embedding"])
	sc.Figure("killed_between_chunks", phases["between"])
	sc.Figure("killed_while_indexing", phases["indexing"])
	sc.Figure("killed_at_its_end", phases["done"])
	if phases["embedding"] == 0 || phases["between"] == 0 || sc.Full() && phases["indexing"] == 0 {
		t.Errorf("gateways were killed in these phases only: %v", phases)
	}
	if len(embed.by) < 2 {
		t.Errorf("only one gateway took files in: %v", embed.by)
	}
	again := 0
	for _, n := range embed.texts {
		again += n - 1
	}
	sc.Figure("texts_embedded_again", again)
	if again > kills*4*embedBatch { // what each of four jobs had not stored yet
		t.Errorf("%d texts were embedded again after %d kills", again, kills)
	}

	// Found from all, and by the vectors alone.
	asked := 0
	for c, sh := range all {
		for _, title := range slices.Sorted(maps.Keys(sh.files)) {
			if sc.Full() && random.IntN(4) != 0 {
				continue
			}
			number := numbers[title] + random.IntN(paragraphs)
			for i, g := range f.all {
				hits := shelf{g, sh.APIKey}.do(t, http.StatusOK, http.MethodPost, "/vector_stores/"+sh.store+"/search",
					map[string]any{"query": inOtherWords(number), "max_num_results": 3})["data"].([]any)
				asked++
				if len(hits) == 0 || hits[0].(map[string]any)["file_id"] != sh.files[title] || !strings.Contains(fmt.Sprint(hits[0]), fmt.Sprintf("number %d ", number)) {
					t.Errorf("gateway %d does not find number %d of document %s first: %.300s", i, number, title, fmt.Sprint(hits))
				}
				if text := fmt.Sprint(hits); strings.Contains(text, fmt.Sprintf("document %d.", (c+1)%len(all))) {
					t.Errorf("gateway %d finds another company's: %.300s", i, text)
				}
			}
		}
	}
	sc.Figure("files", len(numbers))
	sc.Figure("questions", asked)
	f.onceEach(t, sc, all, milvusClient(t, milvus))
}

// down are the gateways that do not run.
func (f *fleet) down(t *testing.T) (all []int) {
	t.Helper()
	for i, r := range f.runs {
		select {
		case <-r.ended:
			all = append(all, i)
		default:
		}
	}
	return all
}

// cutIn says how far the taking in of a document was whose gateway was killed.
func (f *fleet) cutIn(t *testing.T, all []*shelves, hit embedding) string {
	t.Helper()
	var chunks int
	var status string
	for _, sh := range all {
		file, ok := sh.files[hit.document]
		if !ok {
			continue
		}
		err := pgtest.As(t, f.db.AdminURL).QueryRow(t.Context(), `SELECT status, (SELECT COUNT(*) FROM chunk WHERE company_id = $1 AND file_id = $2)
			FROM store_file WHERE company_id = $1 AND file_id = $2`, sh.ID, file).Scan(&status, &chunks)
		if err != nil {
			t.Fatal(err)
		}
	}
	switch {
	case status == string(rag.Completed):
		return "done"
	case chunks == 0:
		return "embedding"
	case hit.last && chunks%embedBatch != 0:
		return "indexing"
	}
	return "between"
}

// onceEach looks at all that is kept of the documents: in the database, in Milvus
// and in the index of words each chunk is there once.
func (f *fleet) onceEach(t *testing.T, sc *scale.Run, all []*shelves, milvus milvussdk.Client) {
	t.Helper()
	db := pgtest.As(t, f.db.AdminURL)
	collection := fmt.Sprint("bulkhead_v1_", embedDimensions)
	total := 0
	for _, sh := range all {
		for title, file := range sh.files {
			rows, err := db.Query(t.Context(), `SELECT text FROM chunk WHERE company_id = $1 AND store_id = $2 AND file_id = $3 ORDER BY place`, sh.ID, sh.store, file)
			if err != nil {
				t.Fatal(err)
			}
			texts, err := pgx.CollectRows(rows, pgx.RowTo[string])
			if err != nil {
				t.Fatal(err)
			}
			seen := map[string]bool{}
			for _, text := range texts {
				if seen[text] {
					t.Errorf("document %s has a chunk twice: %.80q", title, text)
				}
				seen[text] = true
			}
			if len(texts) != paragraphs {
				t.Errorf("document %s has %d chunks instead of %d", title, len(texts), paragraphs)
			}
			total += len(texts)
			n, chunks := vectorsOf(t, milvus, collection, sh.ID, file)
			slices.Sort(chunks)
			if distinct := len(slices.Compact(chunks)); n != int64(len(texts)) || distinct != len(texts) {
				t.Errorf("Milvus has %d vectors of %d chunks of document %s, which has %d", n, distinct, title, len(texts))
			}
			var words []byte
			err = db.QueryRow(t.Context(), `SELECT words FROM keyword_segment WHERE company_id = $1 AND store_id = $2 AND file_id = $3`, sh.ID, sh.store, file).Scan(&words)
			if err != nil || !bytes.Equal(words, rag.EncodeSegment(texts)) {
				t.Errorf("the words of document %s are not those of its chunks: %v", title, err)
			}
		}
		var left int
		err := db.QueryRow(t.Context(), `SELECT (SELECT COUNT(*) FROM discard WHERE company_id = $1) + (SELECT COUNT(*) FROM store_file WHERE company_id = $1 AND claim <> '')
			+ (SELECT COUNT(*) FROM chunk WHERE company_id = $1) - (SELECT SUM(chunks) FROM store_file WHERE company_id = $1)`, sh.ID).Scan(&left)
		if err != nil || left != 0 {
			t.Errorf("%s has %d jobs or chunks that should not be there: %v", sh.Name, left, err)
		}
	}
	sc.Figure("chunks", total)
}
