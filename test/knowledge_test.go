package test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"bulkhead/rag/ragtest"
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
// files in the data folder and in S3.
func TestKnowledgeSDK(t *testing.T) {
	for _, where := range []string{"folder", "s3"} {
		t.Run(where, func(t *testing.T) {
			for _, file := range []string{"knowledge.py", "knowledge.mjs"} {
				t.Run(file, func(t *testing.T) {
					interpreter(t, file)
					cfg := "{}\n"
					if where == "s3" {
						cfg = s3Config(servers.Start(t, "s3"))
					}
					g := startGateway(t, cfg)
					c := someCompany(t, g, file)
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
