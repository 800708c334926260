//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"io"
	"mime/multipart"
	"net/http"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/valyala/fasthttp"
)

// What each company of the case grounded knows, and what it is asked.
const (
	groundedChunks     = 500
	groundedDimensions = 384
	groundedQuestions  = 5
	groundedAgent      = "agent/desk"
	embedderModel      = "bench-384"
	embedderRole       = "_embedder"
	teachAt            = 16 // companies whose files are taken in at one time
)

// groundedRow is one index of vectors. Times are of the client, at a fixed rate, of
// the same call with and without the agent.
type groundedRow struct {
	Index      string  `json:"index"`
	Companies  int     `json:"companies"`
	Chunks     int     `json:"chunks_per_company"`
	Dimensions int     `json:"dimensions"`
	Ingest     float64 `json:"ingest_seconds"`
	RSS        float64 `json:"rss_mib_after"`
	Samples    int     `json:"samples"`
	Bare       latency `json:"bare"`
	Grounded   latency `json:"grounded"`
	AddedP50   spread  `json:"added_p50_us"`
	AddedP99   spread  `json:"added_p99_us"`
	Added      latency `json:"added_all_rounds"`
	Late       int     `json:"not_searched_in_time"` // calls that went on without all passages
	Embedded   int     `json:"questions_embedded_while_measured"`
}

// embedderHandler answers /embeddings as fast as it can be done: numbers that the
// text draws. It counts the texts, for GET /count.
func embedderHandler() fasthttp.RequestHandler {
	numbers := make([]string, 256)
	for i := range numbers {
		numbers[i] = strconv.FormatFloat(float64(i-128)/128+0.001, 'f', 3, 32)
	}
	var mu sync.Mutex
	count := 0
	return func(rc *fasthttp.RequestCtx) {
		if rc.IsGet() {
			mu.Lock()
			defer mu.Unlock()
			fmt.Fprint(rc, count)
			return
		}
		var in struct{ Input []string }
		if err := json.Unmarshal(rc.PostBody(), &in); err != nil {
			rc.Error(err.Error(), fasthttp.StatusBadRequest)
			return
		}
		mu.Lock()
		count += len(in.Input)
		mu.Unlock()
		b := []byte(`{"object":"list","model":"` + embedderModel + `","data":[`)
		for i, text := range in.Input {
			if i > 0 {
				b = append(b, ',')
			}
			b = fmt.Appendf(b, `{"object":"embedding","index":%d,"embedding":[`, i)
			h := fnv.New64a()
			_, _ = io.WriteString(h, text)
			x := h.Sum64() | 1
			for d := range groundedDimensions {
				if d > 0 {
					b = append(b, ',')
				}
				x ^= x << 13
				x ^= x >> 7
				x ^= x << 17
				b = append(b, numbers[x>>56]...)
			}
			b = append(b, "]}"...)
		}
		rc.SetContentType("application/json")
		rc.SetBody(fmt.Appendf(b, `],"usage":{"prompt_tokens":%d,"total_tokens":%[1]d}}`, len(in.Input)))
	}
}

// grounded measures what an agent's looking up adds to a call, with the vectors in
// process and, where there is one, in Milvus. Each question was asked once before,
// so that its vector is known and the embedder takes no part in the times.
func (b *bench) grounded(ctx context.Context) (rows []groundedRow, err error) {
	embedder, addr, err := startSelf(embedderRole)
	if err != nil {
		return nil, err
	}
	defer embedder.stop()
	for _, index := range []string{"local", "milvus"} {
		if index == "milvus" && b.milvus == "" {
			continue
		}
		say("grounded: " + index)
		row, err := b.groundedIn(ctx, index, addr)
		if err != nil {
			return rows, fmt.Errorf("grounded: %s: %w", index, err)
		}
		rows = append(rows, row)
	}
	return rows, nil
}

func (b *bench) groundedIn(ctx context.Context, index, embedder string) (groundedRow, error) {
	row := groundedRow{Index: index, Companies: b.grounding, Chunks: groundedChunks, Dimensions: groundedDimensions}
	env := []string{"BULKHEAD_EMBEDDINGS_BASE_URL=http://" + embedder + "/v1", "BULKHEAD_EMBEDDINGS_MODEL=" + embedderModel, "BULKHEAD_KNOWLEDGE_VECTOR_BYTES=4GiB", fmt.Sprint("BULKHEAD_KNOWLEDGE_INGEST=", teachAt)}
	if index == "milvus" {
		env = append(env, "BULKHEAD_MILVUS_ADDR="+b.milvus)
	}
	g, err := startGateway(b.binary, filepath.Join(b.dir, "grounded-"+index), b.mock, env...)
	if err != nil {
		return row, err
	}
	defer g.stop()
	begun := time.Now()
	keys, err := create(ctx, g, b.grounding)
	if err != nil {
		return row, err
	}
	if err := each(ctx, len(keys), teachAt, func(ctx context.Context, i int) error { return g.teach(ctx, i, keys[i]) }); err != nil {
		return row, err
	}
	row.Ingest = time.Since(begun).Seconds()
	var bare, grounded source
	for q := range groundedQuestions {
		for _, key := range keys {
			bare.requests = append(bare.requests, wire(key, chatRequestTo(modelName, smallBody, false, question(q))))
			grounded.requests = append(grounded.requests, wire(key, chatRequestTo(groundedAgent, smallBody, false, question(q))))
		}
	}
	// Every question once: its vector is made, what is searched comes into memory.
	if err := callOnce(g.addr, bare); err != nil {
		return row, err
	}
	if err := g.knows(keys[0]); err != nil {
		return row, err
	}
	if err := callOnce(g.addr, grounded); err != nil {
		return row, err
	}
	if err := b.groundedTimes(ctx, g, embedder, bare, grounded, &row); err != nil {
		return row, err
	}
	resident, err := rss(g.pid())
	row.RSS = mib(resident)
	return row, err
}

// groundedTimes asks with and without the agent, in turn.
func (b *bench) groundedTimes(ctx context.Context, g *gateway, embedder string, bare, grounded source, row *groundedRow) error {
	counts := func() (late, embedded int, err error) {
		if late, err = number(g.ops, "/metrics", regexp.MustCompile(`(?m)^bulkhead_retrieval_incomplete_total (\d+)$`)); err == nil {
			embedded, err = number(embedder, "/count", regexp.MustCompile(`^(\d+)$`))
		}
		return late, embedded, err
	}
	lateBefore, embeddedBefore, err := counts()
	if err != nil {
		return err
	}
	sources := []source{bare, grounded}
	var samples, p50, p99 [2][]float64
	rate := max(b.rate/5, 1)
	err = rotated(ctx, b.rounds, sources, func(i int, src source) error {
		got, err := openLoop(g.addr, openWorkers, rate, b.duration/time.Duration(b.rounds), src)
		if err != nil {
			return err
		}
		l := latencyOf(got)
		p50[i], p99[i] = append(p50[i], l.P50), append(p99[i], l.P99)
		samples[i] = append(samples[i], got...)
		return nil
	})
	if err != nil {
		return err
	}
	late, embedded, err := counts()
	row.Late, row.Embedded = late-lateBefore, embedded-embeddedBefore
	row.Samples, row.Bare, row.Grounded = len(samples[1]), latencyOf(samples[0]), latencyOf(samples[1])
	row.AddedP50, row.AddedP99 = spreadOf(differences(p50[1], p50[0])), spreadOf(differences(p99[1], p99[0]))
	row.Added = latency{row.Grounded.P50 - row.Bare.P50, row.Grounded.P99 - row.Bare.P99, row.Grounded.P999 - row.Bare.P999}
	return err
}

// number is the one that the expression finds in what is answered to a GET.
func number(addr, path string, form *regexp.Regexp) (int, error) {
	text, _, err := request(http.MethodGet, addr, path, "", "", nil)
	if err != nil {
		return 0, err
	}
	found := form.FindSubmatch(text)
	if found == nil {
		return 0, fmt.Errorf("%s has no %s", path, form)
	}
	return strconv.Atoi(string(found[1]))
}

func question(q int) string {
	return fmt.Sprintf("What is the rule about topic%d at office%d?", q*7%40, q*3%11)
}

// handbook is a text of so many paragraphs, each of which is a chunk.
func handbook(company int) []byte {
	var b bytes.Buffer
	for i := range groundedChunks {
		fmt.Fprintf(&b, "Paragraph %d of company %d: the rule about topic%d and topic%d is kept by office%d, which tells everybody who asks for it in writing, and files it under %d.\n\n",
			i, company, i%40, i%7, i%11, i*31)
	}
	return b.Bytes()
}

// teach gives a company a vector store with a handbook in it, and an agent.
func (g *gateway) teach(ctx context.Context, i int, key string) error {
	file, err := g.upload(key, fmt.Sprintf("handbook-%d.txt", i), handbook(i))
	if err != nil {
		return err
	}
	var store struct {
		ID     string `json:"id"`
		Status string `json:"status"`
		Counts struct {
			Completed int `json:"completed"`
		} `json:"file_counts"`
	}
	body := map[string]any{"name": "handbook", "file_ids": []string{file},
		"chunking_strategy": map[string]any{"type": "static", "static": map[string]int{"max_chunk_size_tokens": 100, "chunk_overlap_tokens": 0}}}
	if err := call(g.addr, "/v1/vector_stores", key, body, &store); err != nil {
		return err
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for store.Status != "completed" {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if err := call(g.addr, "/v1/vector_stores/"+store.ID, key, nil, &store); err != nil {
			return err
		}
	}
	var content struct {
		Data []struct{} `json:"data"`
	}
	if err := call(g.addr, "/v1/vector_stores/"+store.ID+"/files/"+file+"/content", key, nil, &content); err != nil {
		return err
	}
	if store.Counts.Completed != 1 || len(content.Data) != groundedChunks {
		return fmt.Errorf("%d files were taken in, with %d chunks", store.Counts.Completed, len(content.Data))
	}
	return call(g.addr, "/v1/agents", key, map[string]any{"model": modelName, "slug": strings.TrimPrefix(groundedAgent, "agent/"),
		"knowledge": map[string]any{"stores": []string{store.ID}, "min_score": 0.01}}, nil)
}

func (g *gateway) upload(key, name string, text []byte) (id string, err error) {
	var b bytes.Buffer
	form := multipart.NewWriter(&b)
	_ = form.WriteField("purpose", "assistants") // to memory: these do not fail
	part, _ := form.CreateFormFile("file", name)
	_, _ = part.Write(text)
	_ = form.Close()
	answer, _, err := request(http.MethodPost, g.addr, "/v1/files", key, form.FormDataContentType(), b.Bytes())
	if err != nil {
		return "", err
	}
	var file struct {
		ID string `json:"id"`
	}
	err = json.Unmarshal(answer, &file)
	return file.ID, err
}

// knows asks once and wants the passages found.
func (g *gateway) knows(key string) error {
	_, header, err := request(http.MethodPost, g.addr, "/v1/chat/completions", key, "application/json", chatRequestTo(groundedAgent, smallBody, false, question(0)))
	if h := header.Get("X-Bulkhead-Knowledge"); err == nil && !strings.HasPrefix(h, "passages=5;") {
		err = fmt.Errorf("the agent knows %q", h)
	}
	return err
}

func printGrounded(w io.Writer, rows []groundedRow) {
	fmt.Fprintf(w, "\n## Grounded calls over the same without, us, the embedder left out\n\n"+
		"| index | companies | chunks | +p50 (rounds) | +p99 (rounds) | bare p50 | p99 | grounded p50 | p99 | samples | late | ingested in s | RSS MiB |\n|---|---|---|---|---|---|---|---|---|---|---|---|---|\n")
	for _, r := range rows {
		fmt.Fprintf(w, "| %s | %d | %d | %s | %s | %.0f | %.0f | %.0f | %.0f | %d | %d | %.0f | %.0f |\n", r.Index, r.Companies, r.Chunks, show(r.AddedP50, 0), show(r.AddedP99, 0),
			r.Bare.P50, r.Bare.P99, r.Grounded.P50, r.Grounded.P99, r.Samples, r.Late, r.Ingest, r.RSS)
	}
}
