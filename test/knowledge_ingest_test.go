package test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bulkhead/rag/ragtest"
	"bulkhead/test/scale"
	"bulkhead/test/servers"
)

// shelf asks for files and vector stores with one key.
type shelf struct {
	g   *gateway
	key string
}

// do sends a request, wants it answered with a status and returns the answer.
func (s shelf) do(t *testing.T, status int, method, path string, body any) (o map[string]any) {
	t.Helper()
	a := ask(t, method, s.g.URL+"/v1"+path, s.key, body).want(t, method+" "+path, status)
	if err := json.Unmarshal(a.body, &o); err != nil {
		t.Fatalf("%s %s: %s", method, path, err)
	}
	return o
}

func (s shelf) upload(t *testing.T, name string, b []byte, fields ...string) string {
	t.Helper()
	f := form{fields: map[string]string{"purpose": "assistants"}, name: name, text: string(b)}
	for i := 0; i+1 < len(fields); i += 2 {
		f.fields[fields[i]] = fields[i+1]
	}
	return s.do(t, http.StatusOK, http.MethodPost, "/files", f)["id"].(string)
}

// taken waits until a file in a store is not in progress and returns it.
func (s shelf) taken(t *testing.T, store, file string) (o map[string]any) {
	t.Helper()
	eventually(t, time.Minute, "the file is taken in", func() bool {
		o = s.do(t, http.StatusOK, http.MethodGet, "/vector_stores/"+store+"/files/"+file, nil)
		return o["status"] != "in_progress"
	})
	return o
}

// counts returns the file_counts of a batch.
func (s shelf) counts(t *testing.T, batch string) map[string]any {
	t.Helper()
	return s.do(t, http.StatusOK, http.MethodGet, batch, nil)["file_counts"].(map[string]any)
}

// TestIngestKill kills the gateway while it takes files in. After the restart all of
// them are there, each chunk once.
func TestIngestKill(t *testing.T) {
	sc := scale.Of(t)
	files, kills := scale.Pick(sc, 12, 60), scale.Pick(sc, 2, 10)
	g := prepare(t, "{}\n")
	run := g.serve(t)
	s := shelf{g, g.Demo.APIKey}
	document := func(i int) []byte {
		paragraphs := []string{fmt.Sprintf("# Document %d", i)}
		for k := range 60 {
			paragraphs = append(paragraphs, fmt.Sprintf("Paragraph %d of document %d says that the number of the office is %d.", k, i, 1000*i+k))
		}
		return ragtest.DOCX(paragraphs...)
	}
	store := s.do(t, http.StatusOK, http.MethodPost, "/vector_stores", map[string]any{"name": "kill"})["id"].(string)
	var ids []string
	for i := range files {
		ids = append(ids, s.upload(t, fmt.Sprintf("%d.docx", i), document(i)))
	}
	small := map[string]any{"type": "static", "static": map[string]any{"max_chunk_size_tokens": 100, "chunk_overlap_tokens": 0}}
	batch := "/vector_stores/" + store + "/file_batches/" + s.do(t, http.StatusOK, http.MethodPost, "/vector_stores/"+store+"/file_batches",
		map[string]any{"file_ids": ids, "chunking_strategy": small})["id"].(string)
	cut := 0
	for kill := range kills {
		eventually(t, time.Minute, "some files are taken in", func() bool { return s.counts(t, batch)["completed"].(float64) > float64(kill) })
		if s.counts(t, batch)["in_progress"].(float64) > 0 {
			cut++
		}
		run.kill(t)
		run = g.serve(t)
	}
	if cut == 0 {
		t.Error("no file was being taken in when the gateway was killed")
	}
	eventually(t, 2*time.Minute, "all files are taken in", func() bool { return s.counts(t, batch)["completed"] == float64(files) })
	// One that was never cut off, to compare with.
	whole := s.upload(t, "whole.docx", document(0))
	s.do(t, http.StatusOK, http.MethodPost, "/vector_stores/"+store+"/files", map[string]any{"file_id": whole, "chunking_strategy": small})
	s.taken(t, store, whole)
	want := s.texts(t, store, whole)
	if len(want) < 5 {
		t.Fatalf("only %d chunks", len(want))
	}
	for i, id := range ids {
		got := s.texts(t, store, id)
		if i == 0 && strings.Join(got, "\n") != strings.Join(want, "\n") || i > 0 && len(got) < len(want) {
			t.Errorf("file %d has %d chunks, of one that was not cut off there are %d", i, len(got), len(want))
		}
		seen := map[string]bool{}
		for _, text := range got {
			if seen[text] {
				t.Errorf("file %d has a chunk twice: %.60q", i, text)
			}
			seen[text] = true
		}
	}
	sc.Figure("killed_while_taking_in", cut)
}

// texts returns the chunks of a file.
func (s shelf) texts(t *testing.T, store, file string) (texts []string) {
	t.Helper()
	for _, one := range s.do(t, http.StatusOK, http.MethodGet, "/vector_stores/"+store+"/files/"+file+"/content", nil)["data"].([]any) {
		texts = append(texts, one.(map[string]any)["text"].(string))
	}
	return texts
}

// TestHostileFiles uploads what is made to break what reads it. Each is failed, with
// the reason, and the gateway goes on.
func TestHostileFiles(t *testing.T) {
	g := startGateway(t, "knowledge: {parse_time: 5s, parse_memory: 128MiB}\n")
	s := shelf{g, g.Demo.TestKey}
	store := s.do(t, http.StatusOK, http.MethodPost, "/vector_stores", nil)["id"].(string)
	f := func(name string, b []byte, code, want string) {
		t.Helper()
		id := s.upload(t, name, b)
		s.do(t, http.StatusOK, http.MethodPost, "/vector_stores/"+store+"/files", map[string]any{"file_id": id})
		o := s.taken(t, store, id)
		why, _ := o["last_error"].(map[string]any)
		if o["status"] != "failed" || why["code"] != code || !strings.Contains(fmt.Sprint(why["message"]), want) {
			t.Errorf("%s: %v", name, o)
		}
	}
	f("bomb.docx", ragtest.Zip(map[string]string{"word/document.xml": "<w:t>" + strings.Repeat(" ", 200<<20) + "</w:t>"}), "invalid_file", "unpacks")
	f("deep.docx", ragtest.Zip(map[string]string{"word/document.xml": strings.Repeat("<a>", 100_000)}), "invalid_file", "nested")
	f("half.pdf", ragtest.PDF("text")[:200], "invalid_file", "PDF")
	f("loop.pdf", bytes.Replace(ragtest.PDF("text"), []byte("/Kids [4 0 R]"), []byte("/Kids [2 0 R]"), 1), "invalid_file", "")
	f("scan.pdf", ragtest.PDF(""), "unsupported_file", "no text layer")
	f("blank.txt", []byte("  \n \n"), "invalid_file", "no text")
	f("deep.json", bytes.Repeat([]byte("["), 100_000), "invalid_file", "nested")
	counts := s.do(t, http.StatusOK, http.MethodGet, "/vector_stores/"+store, nil)["file_counts"].(map[string]any)
	if counts["failed"] != float64(7) || counts["total"] != float64(7) {
		t.Errorf("counts: %v", counts)
	}
	g.chat(t, g.Demo.TestKey, "sandbox/echo").want(t, "a call afterwards", http.StatusOK)
	if bytes.Contains(g.log(t), []byte("panic")) {
		t.Error("the gateway's log has a panic")
	}
}

// TestSharing looks at files and stores with keys of two projects.
func TestSharing(t *testing.T) {
	g := startGateway(t, "{}\n")
	c := g.newCompany(t, "documents")
	var other struct {
		ID     string `json:"id"`
		APIKey struct {
			Value string `json:"value"`
		} `json:"api_key"`
	}
	g.call(t, http.MethodPost, g.URL+"/v1/organization/projects", c.AdminKey, map[string]any{"name": "other"}, &other)
	g.call(t, http.MethodPost, g.URL+"/v1/organization/projects/"+other.ID+"/service_accounts", c.AdminKey, map[string]any{"name": "x"}, &other)
	one, two, admin := shelf{g, c.APIKey}, shelf{g, other.APIKey.Value}, shelf{g, c.AdminKey}
	own := one.upload(t, "own.txt", []byte("own"))
	shared := one.upload(t, "shared.txt", []byte("shared"), "shared", "company")
	ofAdmin := admin.upload(t, "admin.txt", []byte("of the admin"))
	ids := func(s shelf, list string) (ids []string) {
		for _, o := range s.do(t, http.StatusOK, http.MethodGet, list+"?order=asc", nil)["data"].([]any) {
			ids = append(ids, o.(map[string]any)["id"].(string))
		}
		return ids
	}
	f := func(what string, got, want any) {
		t.Helper()
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: got %v, want %v", what, got, want)
		}
	}
	f("files of the project", ids(one, "/files"), []string{own, shared, ofAdmin})
	f("files of another project", ids(two, "/files"), []string{shared, ofAdmin})
	f("files of the company", ids(admin, "/files"), []string{own, shared, ofAdmin})
	for _, path := range []string{"/files/" + own, "/files/" + own + "/content"} {
		two.do(t, http.StatusNotFound, http.MethodGet, path, nil)
	}
	two.do(t, http.StatusNotFound, http.MethodDelete, "/files/"+own, nil)
	f("a change of what is shared", two.do(t, http.StatusForbidden, http.MethodDelete, "/files/"+shared, nil)["error"].(map[string]any)["code"], "not_the_owner")
	one.do(t, http.StatusForbidden, http.MethodDelete, "/files/"+ofAdmin, nil)

	store := one.do(t, http.StatusOK, http.MethodPost, "/vector_stores", map[string]any{"name": "s", "file_ids": []string{own, shared}})["id"].(string)
	two.do(t, http.StatusNotFound, http.MethodGet, "/vector_stores/"+store, nil)
	two.do(t, http.StatusNotFound, http.MethodPost, "/vector_stores/"+store+"/search", map[string]any{"query": "own"})
	two.do(t, http.StatusNotFound, http.MethodPost, "/vector_stores", map[string]any{"file_ids": []string{own}})
	f("shared", one.do(t, http.StatusOK, http.MethodPost, "/vector_stores/"+store, map[string]any{"shared": "company"})["shared"], "company")
	one.taken(t, store, own)
	if n := len(two.do(t, http.StatusOK, http.MethodPost, "/vector_stores/"+store+"/search", map[string]any{"query": "own"})["data"].([]any)); n == 0 {
		t.Error("nothing is found in a store that is shared")
	}
	for method, path := range map[string]string{http.MethodDelete: "/vector_stores/" + store, http.MethodPost: "/vector_stores/" + store} {
		two.do(t, http.StatusForbidden, method, path, map[string]any{})
	}
	two.do(t, http.StatusForbidden, http.MethodPost, "/vector_stores/"+store+"/files", map[string]any{"file_id": shared})
	admin.do(t, http.StatusOK, http.MethodDelete, "/vector_stores/"+store, nil)
	admin.do(t, http.StatusOK, http.MethodDelete, "/files/"+own, nil)
	f("what is left", ids(one, "/files"), []string{shared, ofAdmin})
}

// TestUploadLimits sends what is too large, too much, or does not come to its end.
// Nothing of it is kept.
func TestUploadLimits(t *testing.T) {
	g := startGateway(t, "knowledge: {file_bytes: 64KiB, company_bytes: 128KiB, company_files: 3, company_stores: 1, store_files: 1, company_transfers: 1}\n")
	c := g.newCompany(t, "documents")
	s := shelf{g, c.APIKey}
	refused := func(what string, status int, f form, param, code string) {
		t.Helper()
		e := s.do(t, status, http.MethodPost, "/files", f)["error"].(map[string]any)
		if fmt.Sprint(e["param"]) != param || code != "" && e["code"] != code {
			t.Errorf("%s: %v", what, e)
		}
	}
	text := func(n int) form {
		return form{fields: map[string]string{"purpose": "assistants"}, name: "a.txt", text: strings.Repeat("a", n)}
	}
	refused("a file that is too large", http.StatusRequestEntityTooLarge, text(64<<10+1), "file", "")
	refused("a body that is too large", http.StatusRequestEntityTooLarge, text(1<<20), "file", "")
	for range 2 {
		s.do(t, http.StatusOK, http.MethodPost, "/files", text(60<<10))
	}
	refused("more bytes than there may be", http.StatusBadRequest, text(60<<10), "file", "storage_exceeded")
	s.do(t, http.StatusOK, http.MethodPost, "/files", text(10))
	refused("more files than there may be", http.StatusBadRequest, text(10), "file", "files_exceeded")
	store := s.do(t, http.StatusOK, http.MethodPost, "/vector_stores", nil)["id"].(string)
	s.do(t, http.StatusBadRequest, http.MethodPost, "/vector_stores", nil)
	var ids []string
	for _, o := range s.do(t, http.StatusOK, http.MethodGet, "/files", nil)["data"].([]any) {
		ids = append(ids, o.(map[string]any)["id"].(string))
	}
	s.do(t, http.StatusOK, http.MethodPost, "/vector_stores/"+store+"/files", map[string]any{"file_id": ids[0]})
	s.do(t, http.StatusBadRequest, http.MethodPost, "/vector_stores/"+store+"/files", map[string]any{"file_id": ids[1]})

	// A client that sends half of a file: it has the company's only place, and when
	// it leaves the place is free, and nothing is kept.
	s.do(t, http.StatusOK, http.MethodDelete, "/files/"+ids[2], nil)
	conn := s.half(t)
	eventually(t, 10*time.Second, "the place is taken", func() bool {
		return bytes.Contains(ask(t, http.MethodGet, g.OpsURL+"/metrics", "", nil).body, []byte("\nbulkhead_file_transfers_open 1\n"))
	})
	s.do(t, http.StatusTooManyRequests, http.MethodPost, "/files", text(10))
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, 10*time.Second, "the place is free", func() bool {
		return ask(t, http.MethodPost, g.URL+"/v1/files", s.key, text(10)).status == http.StatusOK
	})
	eventually(t, 10*time.Second, "no file is left of what was refused", func() bool {
		kept, err := filepath.Glob(filepath.Join(g.Data, "files", "companies", c.ID, "*"))
		hidden, _ := filepath.Glob(filepath.Join(g.Data, "files", "companies", c.ID, ".*"))
		return err == nil && len(kept) == 3 && len(hidden) == 0
	})

	// A company that is suspended while it sends.
	s.do(t, http.StatusOK, http.MethodDelete, "/files/"+ids[1], nil)
	conn = s.half(t)
	defer conn.Close()
	eventually(t, 10*time.Second, "the place is taken", func() bool {
		return bytes.Contains(ask(t, http.MethodGet, g.OpsURL+"/metrics", "", nil).body, []byte("\nbulkhead_file_transfers_open 1\n"))
	})
	s.do(t, http.StatusTooManyRequests, http.MethodPost, "/files", text(10))
	g.call(t, http.MethodPost, g.OpsURL+"/admin/companies/"+c.ID+"/suspend", g.Operator, nil, nil)
	began := time.Now()
	answer, err := io.ReadAll(io.LimitReader(conn, 4<<10))
	if err != nil || !bytes.Contains(answer, []byte("call_ended")) || time.Since(began) > 10*time.Second {
		t.Errorf("an upload of a company that was suspended: %q, %v", answer, err)
	}
}

// half sends the head of an upload and half of its file.
func (s shelf) half(t *testing.T) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.g.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = fmt.Fprintf(conn, "POST /v1/files HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: multipart/form-data; boundary=b\r\n"+
		"Content-Length: 20000\r\n\r\n--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"half.txt\"\r\n\r\n%s", s.key, strings.Repeat("a", 10_000))
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

// TestEraseFiles erases a company that has files, and has some taken in. Nothing of
// it is left where files are kept; another company's stay.
func TestEraseFiles(t *testing.T) {
	f := func(t *testing.T, config string, dir func(g *gateway) string) (gone, stays company) {
		g := startGateway(t, config)
		gone, stays = g.newCompany(t, "gone"), g.newCompany(t, "stays")
		var stores [2]string
		for i, c := range []company{gone, stays} {
			s := shelf{g, c.APIKey}
			var ids []string
			for k := range 5 {
				ids = append(ids, s.upload(t, fmt.Sprint(k, ".docx"), ragtest.DOCX("# Title", "The text of "+c.ID)))
			}
			stores[i] = s.do(t, http.StatusOK, http.MethodPost, "/vector_stores", map[string]any{"file_ids": ids})["id"].(string)
		}
		eventually(t, 40*time.Second, "the company is erased", func() bool {
			return ask(t, http.MethodPost, g.OpsURL+"/admin/companies/"+gone.ID+"/erase", g.Operator, map[string]any{}).status == http.StatusOK
		})
		for _, c := range []struct {
			id string
			n  int
		}{{gone.ID, 0}, {stays.ID, 5}} {
			found, err := os.ReadDir(filepath.Join(dir(g), "companies", c.id))
			if err != nil && !os.IsNotExist(err) || len(found) != c.n {
				t.Errorf("company %s has %d files, want %d: %v", c.id, len(found), c.n, err)
			}
		}
		s := shelf{g, stays.APIKey}
		eventually(t, time.Minute, "the other company's files are taken in", func() bool {
			return s.do(t, http.StatusOK, http.MethodGet, "/vector_stores/"+stores[1], nil)["status"] == "completed"
		})
		data := s.do(t, http.StatusOK, http.MethodPost, "/vector_stores/"+stores[1]+"/search", map[string]any{"query": "text"})["data"].([]any)
		if len(data) == 0 || strings.Contains(fmt.Sprint(data), gone.ID) {
			t.Errorf("the other company finds %v", data)
		}
		return gone, stays
	}
	folder := func(g *gateway) string { return filepath.Join(g.Data, "files") }
	t.Run("folder", func(t *testing.T) { f(t, "{}\n", folder) })
	t.Run("milvus", func(t *testing.T) {
		milvus := servers.Start(t, "milvus")
		gone, stays := f(t, fmt.Sprintf("milvus_addr: %q\n", milvus.Var("MILVUS_ADDR")), folder)
		db := milvusClient(t, milvus)
		for c, want := range map[company]int64{gone: 0, stays: 5} {
			if n := countVectors(t, db, "bulkhead_v1_512", fmt.Sprintf("company == %q", c.ID)); n != want {
				t.Errorf("Milvus has %d vectors of %s instead of %d", n, c.Name, want)
			}
		}
	})
	t.Run("s3", func(t *testing.T) {
		s3 := servers.Start(t, "s3")
		f(t, s3Config(s3), func(*gateway) string { return filepath.Join(s3.Dir, "objects", s3.Var("S3_BUCKET")) })
	})
}

// TestS3Redirect downloads a file where it is. The address is good without a key, and
// for that file alone.
func TestS3Redirect(t *testing.T) {
	s3 := servers.Start(t, "s3")
	g := startGateway(t, s3Config(s3)+"s3_redirect: true\n")
	s := shelf{g, g.Demo.APIKey}
	id := s.upload(t, "name of it.txt", []byte("what it says"))
	a := ask(t, http.MethodGet, g.URL+"/v1/files/"+id+"/content", s.key, nil).want(t, "the download", http.StatusOK) // followed
	if string(a.body) != "what it says" || !strings.Contains(a.header.Get("Content-Disposition"), "name of it.txt") {
		t.Errorf("the download is %q, %v", a.body, a.header)
	}
	ask(t, http.MethodGet, g.URL+"/v1/files/"+id+"/content", g.newCompany(t, "another").APIKey, nil).want(t, "another company's download", http.StatusNotFound)
	_, metrics, err := fetch(t.Context(), http.MethodGet, g.OpsURL+"/metrics", "", nil)
	if err != nil || !bytes.Contains(metrics, []byte(`bulkhead_backend_up{backend="s3"} 1`)) {
		t.Errorf("the metrics do not say that S3 is there: %v", err)
	}
}
