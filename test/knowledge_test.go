package test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bulkhead/rag/ragtest"
	"bulkhead/store/pgtest"
	"bulkhead/test/servers"
)

// documents writes the documents that the SDKs upload, and returns their folder.
func documents(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, b := range map[string][]byte{
		"travel.pdf":    ragtest.PDF("Travel. Trains are booked by the office, at the latest three days before.", "Planes need a reason in writing."),
		"holidays.docx": ragtest.DOCX("# Holidays", "Everybody has thirty days of holiday in a year.", "They are asked for in writing."),
		"canteen.md":    []byte("# Canteen\n\nThe canteen opens at noon and closes at two.\n\nOn Fridays there is fish.\n"),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestKnowledgeSDK runs the SDKs' own helpers for files and vector stores, with the
// files in the data folder and in S3, and all else in SQLite and in PostgreSQL.
func TestKnowledgeSDK(t *testing.T) {
	for _, where := range []string{"folder", "s3", "postgres"} {
		t.Run(where, func(t *testing.T) {
			for _, file := range []string{"knowledge.py", "knowledge.mjs"} {
				t.Run(file, func(t *testing.T) {
					interpreter(t, file)
					cfg := "{}\n"
					if where == "s3" {
						cfg = s3Config(servers.Start(t, "s3"))
					}
					var env []string
					if where == "postgres" {
						db := pgtest.New(t)
						env = []string{"BULKHEAD_POSTGRES_URL=" + db.URL, "BULKHEAD_POSTGRES_OWNER_URL=" + db.OwnerURL}
					}
					g := prepare(t, cfg, env...)
					if where == "postgres" {
						g.migrated(t)
					}
					g.serve(t)
					c := g.newCompany(t, "documents") // the demo company has some
					runScript(t, g, c, file, "DOCS="+documents(t))
					nothingLeaked(t, g, c)
				})
			}
		})
	}
}

func s3Config(s *servers.Server) string {
	return fmt.Sprintf("s3_url: %s/%s\ns3_region: %s\ns3_access_key: %s\ns3_secret_key: %s\n",
		s.Var("S3_URL"), s.Var("S3_BUCKET"), s.Var("S3_REGION"), s.Var("S3_ACCESS_KEY"), s.Var("S3_SECRET_KEY"))
}

// TestCheckS3 looks at a bucket that is there, and at what is wrong.
func TestCheckS3(t *testing.T) {
	s3 := servers.Start(t, "s3")
	f := func(state, want string, env ...string) {
		t.Helper()
		g := prepare(t, s3Config(s3))
		rows := g.check(t, env...)
		found(t, rows, "s3", state, want)
		for _, row := range rows {
			if strings.Contains(row.Detail+row.Where, s3.Var("S3_SECRET_KEY")) {
				t.Errorf("the secret stands in %+v", row)
			}
		}
	}
	f("ok", "the bucket is there")
	f("failed", "there is no bucket", "BULKHEAD_S3_URL="+s3.Var("S3_URL")+"/elsewhere")
	f("failed", "cannot ask for the bucket", "BULKHEAD_S3_SECRET_KEY=another")
}

// TestIngestFair has one company put in many files and another one few: the few do
// not wait for the many.
func TestIngestFair(t *testing.T) {
	g := startGateway(t, "knowledge: {ingest: 2, company_ingest: 2}\n")
	many, few := shelf{g, g.newCompany(t, "many").APIKey}, shelf{g, g.newCompany(t, "few").APIKey}
	put := func(s shelf, n int) string {
		t.Helper()
		var ids []string
		for i := range n {
			ids = append(ids, s.upload(t, fmt.Sprint(i, ".docx"), ragtest.DOCX("# Title", fmt.Sprint("Text of file ", i))))
		}
		store := s.do(t, http.StatusOK, http.MethodPost, "/vector_stores", map[string]any{"file_ids": ids})
		return "/vector_stores/" + store["id"].(string)
	}
	all := put(many, 60)
	one := put(few, 2)
	eventually(t, time.Minute, "the few files are taken in", func() bool { return few.counts(t, one)["completed"] == float64(2) })
	if left := many.counts(t, all)["in_progress"].(float64); left < 10 {
		t.Errorf("only %v files of the other company were waiting by then", left)
	}
	eventually(t, 2*time.Minute, "the many files are taken in", func() bool { return many.counts(t, all)["completed"] == float64(60) })
}
