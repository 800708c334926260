// What is tested here are other processes, in which the detector sees nothing.

//go:build !race

package servers_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"bulkhead/test/servers"
)

// eventually polls until ok, at most for a minute: servers are slow on a machine
// with other work.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("it did not come to pass that %s", what)
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		}
	}
}

// again starts a server that was stopped or killed.
func again(t *testing.T, s *servers.Server) {
	t.Helper()
	if err := s.Again(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// call sends one request and decodes the answer, which must be 200 or 204.
func call(t *testing.T, method, url string, header http.Header, body, into any) {
	t.Helper()
	if err := try(t.Context(), method, url, header, body, into); err != nil {
		t.Fatal(err)
	}
}

func try(ctx context.Context, method, url string, header http.Header, body, into any) error {
	var sent io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		sent = strings.NewReader(b)
	default:
		text, err := json.Marshal(b)
		if err != nil {
			return err
		}
		sent = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, url, sent)
	if err != nil {
		return err
	}
	if header != nil {
		req.Header = header
	}
	answer, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	if answer.StatusCode != http.StatusOK && answer.StatusCode != http.StatusNoContent {
		return fmt.Errorf("%s %s: %s: %s", method, url, answer.Status, text)
	}
	switch into := into.(type) {
	case nil:
		return nil
	case *string:
		*into = string(text)
		return nil
	}
	return json.Unmarshal(text, into)
}

func TestPostgres(t *testing.T) {
	t.Parallel()
	s := servers.Start(t, "postgres")
	onLoopbackOnly(t, s)
	f := func(sql string) (n int) {
		t.Helper()
		c, err := pgx.Connect(t.Context(), s.Var("POSTGRES_URL"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close(context.Background())
		if err := c.QueryRow(t.Context(), sql).Scan(&n); err != nil {
			t.Fatalf("%s: %s", sql, err)
		}
		return n
	}
	if f(`SELECT count(*) FROM pg_roles WHERE rolname = current_user AND rolsuper`) != 1 {
		t.Error("the URL is not that of a superuser")
	}
	f(`SELECT lo_from_bytea(4711, 'kept')::int`)
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	again(t, s)
	if f(`SELECT count(*) FROM pg_largeobject_metadata WHERE oid = 4711`) != 1 {
		t.Error("what was stored is gone after a restart")
	}
}

func TestBao(t *testing.T) {
	t.Parallel()
	f := func(mode string, keeps bool) {
		t.Helper()
		s := servers.Start(t, "bao", "BAO_MODE="+mode)
		onLoopbackOnly(t, s)
		secret := s.Var("VAULT_ADDR") + "/v1/secret/data/one"
		token := http.Header{"X-Vault-Token": {s.Var("VAULT_TOKEN")}}
		// A raft server has to elect itself before it takes writes.
		eventually(t, "a secret is written", func() bool {
			return try(t.Context(), http.MethodPost, secret, token, `{"data":{"key":"value"}}`, nil) == nil
		})
		if err := s.Stop(); err != nil {
			t.Fatal(err)
		}
		again(t, s)
		var got struct {
			Data struct{ Data map[string]string }
		}
		eventually(t, "the server answers again", func() bool {
			err := try(t.Context(), http.MethodGet, secret, token, nil, &got)
			return err == nil || strings.Contains(err.Error(), "404")
		})
		if (got.Data.Data["key"] == "value") != keeps {
			t.Errorf("%s, after a restart: %v", mode, got.Data.Data)
		}
	}
	f("dev", false)
	f("raft", true)
}

// TestMilvus speaks the server's HTTP interface, which is on the port of gRPC.
func TestMilvus(t *testing.T) {
	t.Parallel()
	s := servers.Start(t, "milvus")
	onLoopbackOnly(t, s)
	vectors := "http://" + s.Var("MILVUS_ADDR") + "/v1/vector/"
	do := func(path string, body, data any) error {
		var answer struct {
			Code    int
			Message string
			Data    json.RawMessage
		}
		if err := try(t.Context(), http.MethodPost, vectors+path, http.Header{"Content-Type": {"application/json"}}, body, &answer); err != nil {
			return err
		}
		if answer.Code != http.StatusOK {
			return fmt.Errorf("%s: %d %s", path, answer.Code, answer.Message)
		}
		return json.Unmarshal(answer.Data, data)
	}
	var none any
	eventually(t, "a collection is made", func() bool {
		return do("collections/create", map[string]any{"collectionName": "one", "dimension": 2}, &none) == nil
	})
	rows := []map[string]any{{"vector": []float32{1, 0}, "name": "east"}, {"vector": []float32{0, 1}, "name": "north"}}
	if err := do("insert", map[string]any{"collectionName": "one", "data": rows}, &none); err != nil {
		t.Fatal(err)
	}
	find := func() string {
		var hits []struct{ Name string }
		err := do("search", map[string]any{"collectionName": "one", "vector": []float32{0.1, 0.9}, "limit": 1, "outputFields": []string{"name"}}, &hits)
		if err != nil || len(hits) == 0 {
			return ""
		}
		return hits[0].Name
	}
	eventually(t, "the nearer vector is found", func() bool { return find() == "north" })

	if err := syscall.Kill(s.PIDs("MILVUS_SERVER_PID")[0], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	again(t, s)
	eventually(t, "it is found after a crash", func() bool { return find() == "north" })
}

func TestS3(t *testing.T) {
	t.Parallel()
	s := servers.Start(t, "s3")
	onLoopbackOnly(t, s)
	object := s.Var("S3_URL") + "/" + s.Var("S3_BUCKET") + "/companies/one/file"
	f := func(method, body string, into *string) error {
		t.Helper()
		return try(t.Context(), method, object, signed(t, s, method, object, body), body, into)
	}
	var got string
	if err := f(http.MethodPut, "content", &got); err != nil {
		t.Fatal(err)
	}
	if err := f(http.MethodGet, "", &got); err != nil || got != "content" {
		t.Errorf("got %q, %v", got, err)
	}
	if err := try(t.Context(), http.MethodGet, object, nil, nil, nil); err == nil || !strings.Contains(err.Error(), "403") {
		t.Errorf("without a signature: %v", err)
	}
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	again(t, s)
	if err := f(http.MethodGet, "", &got); err != nil || got != "content" {
		t.Errorf("after a restart got %q, %v", got, err)
	}
}

func TestLLM(t *testing.T) {
	t.Parallel()
	s := servers.Start(t, "llm")
	onLoopbackOnly(t, s)
	var got struct {
		Choices []struct{ Message struct{ Content string } }
		Usage   struct {
			Out int `json:"completion_tokens"`
		}
	}
	call(t, http.MethodPost, s.Var("LLM_BASE_URL")+"/chat/completions", nil, map[string]any{
		"model": s.Var("LLM_MODEL"), "max_tokens": 8, "messages": []map[string]string{{"role": "user", "content": "Hello!"}},
	}, &got)
	if len(got.Choices) != 1 || got.Choices[0].Message.Content == "" || got.Usage.Out < 1 || got.Usage.Out > 8 {
		t.Errorf("got %+v", got)
	}
}

func TestEmbeddings(t *testing.T) {
	t.Parallel()
	s := servers.Start(t, "embed")
	onLoopbackOnly(t, s)
	embed := func(format string, into any, texts ...string) {
		t.Helper()
		call(t, http.MethodPost, s.Var("EMBEDDINGS_BASE_URL")+"/embeddings", nil,
			map[string]any{"model": s.Var("EMBEDDINGS_MODEL"), "input": texts, "encoding_format": format}, into)
	}
	var floats struct {
		Data []struct{ Embedding []float64 }
	}
	embed("float", &floats, "This is an example sentence", "How do I reset my password?", "I forgot my login", "The weather in Paris is nice")
	if len(floats.Data) != 4 || len(floats.Data[0].Embedding) != 384 {
		t.Fatalf("%d embeddings", len(floats.Data))
	}
	// What PyTorch makes of the same weights.
	for i, want := range []float64{0.067657, 0.063496, 0.048713, 0.079305, 0.037448} {
		if got := floats.Data[0].Embedding[i]; math.Abs(got-want) > 1e-5 {
			t.Errorf("component %d is %v, not %v", i, got, want)
		}
	}
	dot := func(a, b int) (sum float64) {
		for i, x := range floats.Data[a].Embedding {
			sum += x * floats.Data[b].Embedding[i]
		}
		return sum
	}
	if length, near, far := dot(1, 1), dot(1, 2), dot(1, 3); math.Abs(length-1) > 1e-5 || near < 0.5 || far > 0.2 {
		t.Errorf("length %v, to a text like it %v, to another %v", length, near, far)
	}
	var packed struct{ Data []struct{ Embedding string } }
	embed("base64", &packed, "This is an example sentence")
	raw, err := base64.StdEncoding.DecodeString(packed.Data[0].Embedding)
	if err != nil || len(raw) != 384*4 {
		t.Fatalf("%d bytes, %v", len(raw), err)
	}
	if first := math.Float32frombits(binary.LittleEndian.Uint32(raw)); float64(first) != floats.Data[0].Embedding[0] {
		t.Errorf("the first component is %v, or as base64 %v", floats.Data[0].Embedding[0], first)
	}
}

func TestPrometheus(t *testing.T) {
	t.Parallel()
	s := servers.Start(t, "prometheus")
	onLoopbackOnly(t, s)
	var got struct {
		Data struct{ Result []struct{ Value [2]any } }
	}
	eventually(t, "it has watched itself", func() bool {
		call(t, http.MethodGet, s.Var("PROMETHEUS_URL")+"/api/v1/query?query=up", nil, nil, &got)
		return len(got.Data.Result) == 1 && got.Data.Result[0].Value[1] == "1"
	})

	// promtool finds the rule right, and the test of it wrong.
	promtool, err := servers.Script("promtool.sh")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	f := func(command, name, text string, ok bool) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(promtool, append(strings.Fields(command), path)...).CombinedOutput()
		if (err == nil) != ok {
			t.Errorf("promtool %s: %v: %s", command, err, out)
		}
	}
	const expect = "rule_files: [rules.yaml]\ntests:\n- input_series: [{series: x, values: 2}]\n  promql_expr_test:\n" +
		"  - {expr: twice, eval_time: 0, exp_samples: [{labels: twice, value: %d}]}\n"
	f("check rules", "rules.yaml", "groups: [{name: g, rules: [{record: twice, expr: 2 * x}]}]\n", true)
	f("test rules", "right.yaml", fmt.Sprintf(expect, 4), true)
	f("test rules", "wrong.yaml", fmt.Sprintf(expect, 5), false)
}
