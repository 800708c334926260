package test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	milvussdk "github.com/milvus-io/milvus-sdk-go/v2/client"
	"github.com/milvus-io/milvus-sdk-go/v2/entity"

	"bulkhead/rag/ragtest"
	"bulkhead/test/servers"
	"bulkhead/test/upstream"
)

// milvusClient asks Milvus past the gateway, until the test has ended.
func milvusClient(t *testing.T, s *servers.Server) milvussdk.Client {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	c, err := milvussdk.NewClient(ctx, milvussdk.Config{Address: s.Var("MILVUS_ADDR")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// numbersIn returns one column of the rows that a filter finds.
func numbersIn(t *testing.T, c milvussdk.Client, collection, filter, name string) []int64 {
	t.Helper()
	found, err := c.Query(t.Context(), collection, nil, filter, []string{name}, milvussdk.WithSearchQueryConsistencyLevel(entity.ClStrong))
	if err != nil {
		t.Fatal(err)
	}
	return found.GetColumn(name).(*entity.ColumnInt64).Data()
}

// countVectors counts the vectors that a filter finds. One that is there twice counts
// twice, which asking for the rows would hide.
func countVectors(t *testing.T, c milvussdk.Client, collection, filter string) int64 {
	t.Helper()
	return numbersIn(t, c, collection, filter, "count(*)")[0]
}

// vectorsOf returns how many vectors Milvus has of a file, and of which chunks.
func vectorsOf(t *testing.T, c milvussdk.Client, collection, company, file string) (n int64, chunks []int64) {
	t.Helper()
	of := fmt.Sprintf(`company == %q && file == %q`, company, file)
	return countVectors(t, c, collection, of), numbersIn(t, c, collection, of, "chunk")
}

// embedding is a call for the vectors of some chunks of a document.
type embedding struct {
	gateway  int
	document string
	first    bool // chunks of the document
	last     bool
}

// scriptedEmbedder makes vectors by what number a text speaks of, in digits or in
// other words, and knows what was asked of it by which gateway.
type scriptedEmbedder struct {
	mu    sync.Mutex
	texts map[string]int // how often each was embedded
	by    map[int]int    // calls by gateway
	begun map[string]bool
	// trap is told of each call for chunks and says whether it is held: not
	// answered until its gateway has gone.
	trap func(embedding) bool
}

const (
	embedBatch      = 64 // chunks that the gateway embeds at once
	embedDimensions = 64
)

var (
	spokenOf = regexp.MustCompile(`number (\d+)|room ([a-j]+)z`)
	askedOf  = regexp.MustCompile(`^/g(\d+)/`)
	titleOf  = regexp.MustCompile(`document ([\d.]+) `)
)

// inOtherWords asks for what a paragraph says of a number, without a word of it.
func inOtherWords(number int) string {
	letters := []byte(strconv.Itoa(number))
	for i := range letters {
		letters[i] += 'a' - '0'
	}
	return "Where is room " + string(letters) + "z?"
}

func newScriptedEmbedder(up *upstream.Server) *scriptedEmbedder {
	e := &scriptedEmbedder{texts: map[string]int{}, by: map[int]int{}, begun: map[string]bool{}}
	up.Handle("embed", e.answer)
	return e
}

func (e *scriptedEmbedder) answer(c *upstream.Call) {
	var in struct{ Input []string }
	if err := json.Unmarshal(c.Body, &in); err != nil || len(in.Input) == 0 {
		c.Error(http.StatusBadRequest, "input must be a list of texts", "invalid_request_error")
		return
	}
	if e.held(c.R.URL.Path, in.Input) {
		c.WaitGone()
		return
	}
	data := make([]map[string]any, len(in.Input))
	for i, text := range in.Input {
		data[i] = map[string]any{"object": "embedding", "index": i, "embedding": vectorOf(text)}
	}
	c.JSON(http.StatusOK, map[string]any{"object": "list", "model": c.Model, "data": data, "usage": map[string]int{"prompt_tokens": len(data), "total_tokens": len(data)}})
}

// held notes a call and reports whether it is not to be answered.
func (e *scriptedEmbedder) held(path string, texts []string) bool {
	title := titleOf.FindStringSubmatch(texts[0])
	if title == nil {
		return false // a question
	}
	gateway, _ := strconv.Atoi(askedOf.FindStringSubmatch(path)[1])
	e.mu.Lock()
	defer e.mu.Unlock()
	call := embedding{gateway, title[1], !e.begun[title[1]], len(texts) < embedBatch}
	if e.trap != nil && e.trap(call) {
		return true
	}
	e.begun[title[1]] = true
	e.by[gateway]++
	for _, text := range texts {
		e.texts[text]++
	}
	return false
}

func vectorOf(text string) []float32 {
	spoken := spokenOf.FindStringSubmatch(text)
	var number uint64
	switch {
	case spoken == nil:
	case spoken[1] != "":
		number, _ = strconv.ParseUint(spoken[1], 10, 64)
	default:
		for _, letter := range spoken[2] {
			number = 10*number + uint64(letter-'a')
		}
	}
	r := rand.New(rand.NewPCG(number, 0))
	v := make([]float32, embedDimensions)
	for i := range v {
		v[i] = float32(r.NormFloat64())
	}
	return v
}

// next looks out for a call that is as asked for, and returns what waits for it; hold
// says whether it is answered.
func (e *scriptedEmbedder) next(what string, hold bool, ok func(embedding) bool) (wait func(*testing.T) embedding) {
	caught := make(chan embedding, 1)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.trap = func(call embedding) bool {
		if !ok(call) {
			return false
		}
		e.trap = nil
		caught <- call
		return hold
	}
	return func(t *testing.T) (found embedding) {
		t.Helper()
		select {
		case found = <-caught:
		case <-time.After(5 * time.Minute):
			t.Fatalf("not within 5 minutes: %s", what)
		}
		return found
	}
}

// paragraphs of a document: more than two batches.
const paragraphs = 150

// smallChunks makes a chunk of each of them.
var smallChunks = map[string]any{"type": "static", "static": map[string]any{"max_chunk_size_tokens": 200, "chunk_overlap_tokens": 0}}

// document has paragraphs that are chunks of their own, each of a number of its own.
func document(title string, number int) []byte {
	all := []string{"# Document " + title}
	for i := range paragraphs {
		all = append(all, fmt.Sprintf("In document %s the office says in paragraph %d that the number %d is that of a desk, which is cleaned on Mondays, watered on Tuesdays, "+
			"painted on Thursdays and sold on Fridays, unless somebody sits at it, in which case the desk stays where it was, and so does whoever sits there.", title, i, number+i))
	}
	return ragtest.DOCX(all...)
}

// TestNewEmbedder changes what makes a company's vectors: those that are there are
// made anew, in Milvus too, the old ones go, and meanwhile files are found by words.
func TestNewEmbedder(t *testing.T) {
	milvus := servers.Start(t, "milvus")
	up := upstream.New(t)
	embed := newScriptedEmbedder(up)
	g := startGateway(t, fmt.Sprintf("milvus_addr: %q\nproviders: {openai: {kind: openai, base_url: \"%s/g0/v1\"}}\n", milvus.Var("MILVUS_ADDR"), up.URL()))
	c := g.newCompany(t, "changes its mind")
	g.setCredential(t, c, "openai", upstreamSecret)
	s := shelf{g, c.APIKey}
	store := s.do(t, http.StatusOK, http.MethodPost, "/vector_stores", nil)["id"].(string)
	file := s.upload(t, "document.docx", document("0.0", 5000))
	s.do(t, http.StatusOK, http.MethodPost, "/vector_stores/"+store+"/files", map[string]any{"file_id": file, "chunking_strategy": smallChunks})
	if o := s.taken(t, store, file); o["status"] != "completed" {
		t.Fatalf("%v", o)
	}
	const number = 5077
	finds := func(question string) bool {
		t.Helper()
		hits := s.do(t, http.StatusOK, http.MethodPost, "/vector_stores/"+store+"/search", map[string]any{"query": question, "max_num_results": 1})["data"].([]any)
		return len(hits) == 1 && strings.Contains(fmt.Sprint(hits[0]), fmt.Sprintf("number %d ", number))
	}
	inWords := fmt.Sprintf("the desk with the number %d", number)
	choose := func(model any) {
		t.Helper()
		g.org(t, c, http.MethodPost, "/embeddings", map[string]any{"model": model}, nil)
	}
	db := milvusClient(t, milvus)
	vectors := func(dimensions int) int64 {
		t.Helper()
		n, _ := vectorsOf(t, db, fmt.Sprint("bulkhead_v1_", dimensions), c.ID, file)
		return n
	}
	if !finds(inWords) || finds(inOtherWords(number)) || vectors(512) != paragraphs {
		t.Fatalf("at first: %t, %t, %d vectors", finds(inWords), finds(inOtherWords(number)), vectors(512))
	}

	begun, goOn := make(chan bool, 1), make(chan bool)
	embed.mu.Lock()
	embed.trap = func(embedding) bool {
		select {
		case begun <- true:
		default:
		}
		<-goOn
		return false
	}
	embed.mu.Unlock()
	choose("openai/embed")
	select {
	case <-begun:
	case <-time.After(time.Minute):
		t.Fatal("nothing is embedded anew")
	}
	status := s.do(t, http.StatusOK, http.MethodGet, "/vector_stores/"+store+"/files/"+file, nil)["status"]
	if !finds(inWords) || finds(inOtherWords(number)) || status != "completed" {
		t.Errorf("meanwhile the file is %v, found by words %t, by what has no vectors yet %t", status, finds(inWords), finds(inOtherWords(number)))
	}
	close(goOn)
	eventually(t, time.Minute, "it is found by its new vectors", func() bool { return finds(inOtherWords(number)) })
	eventually(t, time.Minute, "the old vectors are gone", func() bool { return vectors(512) == 0 })
	if n := vectors(embedDimensions); n != paragraphs {
		t.Errorf("Milvus has %d new vectors instead of %d", n, paragraphs)
	}
	choose(nil)
	eventually(t, time.Minute, "the built-in vectors are back", func() bool { return vectors(512) == paragraphs && vectors(embedDimensions) == 0 })
	if !finds(inWords) || finds(inOtherWords(number)) {
		t.Errorf("at last: %t, %t", finds(inWords), finds(inOtherWords(number)))
	}
}
