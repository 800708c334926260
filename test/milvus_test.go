package test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	milvussdk "github.com/milvus-io/milvus-sdk-go/v2/client"
	"github.com/milvus-io/milvus-sdk-go/v2/entity"

	"bulkhead/test/scale"
	"bulkhead/test/servers"
)

var violationsOf = regexp.MustCompile(`(?m)^bulkhead_isolation_violations_total\{what="vector"\} (\d+)$`)

// TestPlantedVector puts vectors into Milvus, past the gateway, that say they are one
// company's and are of what another has: of a file of the other, and of a file that
// nobody has. The company finds what it found before and nothing else, and the
// violations are counted.
func TestPlantedVector(t *testing.T) {
	server := servers.Start(t, "milvus")
	g := startGateway(t, fmt.Sprintf("milvus_addr: %q\n", server.Var("MILVUS_ADDR")))
	one, other := g.newCompany(t, "one"), g.newCompany(t, "other")
	const secret = "The launch code of the rocket is swordfish."
	own := knowledge(t, g, one.APIKey, map[string]string{"own.txt": "The launch of the rocket is on Monday."})
	foreign := knowledge(t, g, other.APIKey, nil)
	file := attach(t, g, other.APIKey, foreign, "secret.txt", secret, nil)
	g.newAgent(t, one.APIKey, map[string]any{"model": "sandbox/echo", "slug": "desk", "knowledge": map[string]any{"stores": []string{own}}})

	search := func(c company, store string) string {
		t.Helper()
		a := ask(t, http.MethodPost, g.URL+"/v1/vector_stores/"+store+"/search", c.APIKey, map[string]any{"query": "launch code rocket swordfish"})
		return string(a.want(t, "a search", http.StatusOK).body)
	}
	violations := func() int {
		t.Helper()
		found := violationsOf.FindSubmatch(ask(t, http.MethodGet, g.OpsURL+"/metrics", "", nil).body)
		if found == nil {
			t.Fatal("there is no bulkhead_isolation_violations_total of vectors")
		}
		n, _ := strconv.Atoi(string(found[1]))
		return n
	}
	before := search(one, own)
	if !strings.Contains(before, "on Monday") || !strings.Contains(search(other, foreign), secret) || violations() != 0 {
		t.Fatalf("before anything is planted %d violations are counted, and found is %s", violations(), before)
	}

	// The other's row as it is, but for whose it says it is.
	db := milvusClient(t, server)
	const collection = "bulkhead_v1_512" // the built-in vectors
	found, err := db.Query(t.Context(), collection, nil, fmt.Sprintf("company == %q && file == %q", other.ID, file), []string{"space", "chunk", "vector"},
		milvussdk.WithSearchQueryConsistencyLevel(entity.ClStrong))
	if err != nil {
		t.Fatal(err)
	}
	if found.GetColumn("chunk").Len() != 1 {
		t.Fatalf("Milvus has %d vectors of the file", found.GetColumn("chunk").Len())
	}
	space, vector := found.GetColumn("space").(*entity.ColumnVarChar).Data(), found.GetColumn("vector").(*entity.ColumnFloatVector).Data()
	plant := func(id, company, store, file string) {
		t.Helper()
		text := func(name, value string) entity.Column { return entity.NewColumnVarChar(name, []string{value}) }
		_, err := db.Insert(t.Context(), collection, "", text("pk", id), text("company", company), text("space", space[0]), text("store", store), text("file", file),
			entity.NewColumnInt64("chunk", []int64{0}), entity.NewColumnFloatVector("vector", len(vector[0]), vector))
		if err != nil {
			t.Fatal(err)
		}
	}
	counted := 0
	nothing := func(what string) {
		t.Helper()
		eventually(t, 30*time.Second, "violations are counted: "+what, func() bool {
			if got := search(one, own); got != before {
				t.Fatalf("%s: found is\n%s, before it was\n%s", what, got, before)
			}
			return violations() > counted
		})
		counted = violations()
		a := ask(t, http.MethodPost, g.URL+"/v1/chat/completions", one.APIKey, chatBody("agent/desk", "What is the launch code of the rocket?")).want(t, "the agent", http.StatusOK)
		if h := a.header.Get("X-Bulkhead-Knowledge"); strings.Contains(string(a.body), "swordfish") || !strings.Contains(string(a.body), "on Monday") || !strings.HasPrefix(h, "passages=1; ") {
			t.Errorf("%s: the agent is told %q, %s", what, h, a.body)
		}
	}
	plant("planted-1", one.ID, own, file)
	nothing("a file of another company")
	plant("planted-2", one.ID, own, "file-nobody")
	nothing("a file of nobody")
	// In the other company's part, with the first one's store: the filter keeps to the
	// company, so there is nothing to be counted either.
	plant("planted-3", other.ID, own, file)
	for range 5 {
		if got := search(one, own); got != before {
			t.Fatalf("found is %s", got)
		}
	}
	if got := search(other, foreign); !strings.Contains(got, secret) {
		t.Errorf("the other company finds %s", got)
	}
}

// patientMilvus is for tests that keep a machine busy for long: Milvus ends where it
// could not tell itself for so many seconds that it is alive.
const patientMilvus = "MILVUS_SESSION_TTL=60"

// troubled is an agent's call while Milvus may be away, as its client saw it.
type troubled struct {
	stage, kind string
	status      int
	code        string
	header      string
	found       bool // the passage is in the answer
	took        time.Duration
	whole       bool
}

// The agents and models that are asked while Milvus is in trouble.
const (
	asksDesk   = "desk"   // in other words than the document's: only vectors find it
	asksWords  = "words"  // in the document's
	asksStrict = "strict" // of an agent that must know
	asksStream = "stream" // of the desk
	asksBare   = "bare"   // a model that is no agent
)

// asking are clients that call agents all the time.
type asking struct {
	g       *gateway
	key     string
	clients sync.WaitGroup
	stop    context.CancelFunc

	mu    sync.Mutex
	stage string
	calls []troubled
}

func startAsking(t *testing.T, g *gateway, key string) *asking {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	a := &asking{g: g, key: key, stop: cancel, stage: "whole"}
	kinds := []string{asksDesk, asksWords, asksStrict, asksStream, asksBare}
	for i := range 3 {
		a.clients.Go(func() {
			for n := i; ctx.Err() == nil; n++ {
				a.call(ctx, kinds[n%len(kinds)])
			}
		})
	}
	t.Cleanup(a.end)
	return a
}

func (a *asking) end() {
	a.stop()
	a.clients.Wait()
}

func (a *asking) call(ctx context.Context, kind string) {
	a.mu.Lock()
	c := troubled{stage: a.stage, kind: kind}
	a.mu.Unlock()
	body := chatBody("agent/desk", "When do I get my money back?")
	switch kind {
	case asksWords:
		body = chatBody("agent/desk", "Are refunds paid within days?")
	case asksStrict:
		body["model"] = "agent/strict"
	case asksStream:
		body["stream"] = true
	case asksBare:
		body["model"] = "sandbox/echo"
	}
	begun := time.Now()
	got, err := tryAsk(ctx, http.MethodPost, a.g.URL+"/v1/chat/completions", a.key, body)
	if err != nil && ctx.Err() != nil {
		return
	}
	c.took = time.Since(begun)
	c.status, c.whole = got.status, err == nil
	c.header = got.header.Get("X-Bulkhead-Knowledge")
	c.code, _ = got.fault()
	text := string(got.body)
	if kind == asksStream && c.status == http.StatusOK {
		text, c.whole = streamed(got.body)
	}
	c.found = strings.Contains(text, "within seven days")
	a.mu.Lock()
	defer a.mu.Unlock()
	if c.stage == a.stage { // it has not changed meanwhile
		a.calls = append(a.calls, c)
	}
}

// streamed joins the text of a stream and reports whether it came to its end.
func streamed(body []byte) (text string, whole bool) {
	lines := bufio.NewScanner(bytes.NewReader(body))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		var chunk struct {
			Choices []struct{ Delta struct{ Content string } }
		}
		if !ok || json.Unmarshal([]byte(data), &chunk) != nil {
			continue
		}
		for _, c := range chunk.Choices {
			text += c.Delta.Content
		}
	}
	return text, strings.HasSuffix(string(body), "data: [DONE]\n\n")
}

// in begins a stage and waits until each kind was asked so often in it.
func (a *asking) in(t *testing.T, stage string, each int) (calls []troubled) {
	t.Helper()
	a.mu.Lock()
	a.stage, a.calls = stage, nil
	a.mu.Unlock()
	eventually(t, 10*time.Minute, "agents are asked: "+stage, func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		n := map[string]int{}
		for _, c := range a.calls {
			n[c.kind]++
		}
		calls = slices.Clone(a.calls)
		return min(n[asksDesk], n[asksWords], n[asksStrict], n[asksStream], n[asksBare]) >= each
	})
	return calls
}

// honest looks at what may never be, whatever Milvus does: a call that fails, a
// passage left out without a word, an agent that must know and answers without.
func (c *troubled) honest() error {
	missing := strings.Contains(c.header, "; missing=timeout") || strings.Contains(c.header, "; missing=unavailable")
	switch {
	case !c.whole:
		return fmt.Errorf("no whole answer")
	case c.kind == asksBare && (c.status != http.StatusOK || c.header != ""):
		return fmt.Errorf("a bare model is none")
	case c.kind == asksBare:
	case c.kind == asksStrict && c.status == http.StatusServiceUnavailable && c.code == "knowledge_unavailable":
	case c.status != http.StatusOK:
		return fmt.Errorf("it failed")
	case c.kind == asksStrict && (!c.found || missing):
		return fmt.Errorf("it answered without")
	case !c.found && !(missing && strings.HasPrefix(c.header, "passages=0;")):
		return fmt.Errorf("the passage is missing and nothing says so")
	}
	return nil
}

func (c troubled) String() string {
	return fmt.Sprintf("%s, %s: status %d %s, header %q, found %t, whole %t, in %s", c.stage, c.kind, c.status, c.code, c.header, c.found, c.whole, c.took)
}

// TestMilvusInTrouble: while agents are called all the time Milvus is slow, cut off,
// frozen, stopped and started again. Agents answer within the deadline with what
// words find, and say so, or refuse where they must know; and find again when it is
// back, without a restart. (DESIGN section 10.) Files wait and are taken in. The
// vectors are real ones, and what making them took is on the company's ledger.
func TestMilvusInTrouble(t *testing.T) {
	sc := scale.Of(t)
	each := scale.Pick(sc, 5, 60)
	milvus, embed := servers.Start(t, "milvus", patientMilvus), servers.Start(t, "embed")
	way := newLink(t, milvus.Var("MILVUS_ADDR"))
	g := startGateway(t, fmt.Sprintf("milvus_addr: %q\nembeddings: {base_url: %q, model: %q, micro_usd_per_million_tokens: 20000}\n",
		way.addr, embed.Var("EMBEDDINGS_BASE_URL"), embed.Var("EMBEDDINGS_MODEL")))
	c := g.Demo
	g.call(t, http.MethodPut, g.OpsURL+"/admin/companies/"+c.ID+"/ceiling", g.Operator, map[string]any{"window": "month", "limit_usd": "10"}, nil)
	store := knowledge(t, g, c.APIKey, map[string]string{"refunds.txt": "Refunds are paid within seven days.", "dog.txt": "Rex, the office dog, is fed by Ann."})
	for slug, required := range map[string]bool{"desk": false, "strict": true} {
		g.newAgent(t, c.APIKey, map[string]any{"model": "sandbox/echo", "slug": slug, "knowledge": map[string]any{"stores": []string{store}, "top_k": 1, "required": required}})
	}
	strict := func() bool {
		a := ask(t, http.MethodPost, g.URL+"/v1/chat/completions", c.APIKey, chatBody("agent/strict", "When do I get my money back?"))
		return a.status == http.StatusOK && strings.Contains(string(a.body), "within seven days")
	}
	eventually(t, time.Minute, "the passage is found", strict)
	clients := startAsking(t, g, c.APIKey)

	look := func(stage string, away bool) {
		t.Helper()
		var took []time.Duration
		found, refused, byWords, words := 0, 0, 0, 0
		calls := clients.in(t, stage, each)
		for i := range calls {
			if err := calls[i].honest(); err != nil {
				t.Errorf("%s: %v", err, calls[i])
			}
			switch {
			case calls[i].kind == asksBare:
				continue
			case calls[i].kind == asksWords:
				if words++; calls[i].found {
					byWords++
				}
				continue
			case calls[i].found:
				found++
			case calls[i].kind == asksStrict:
				refused++
			}
			took = append(took, calls[i].took)
		}
		slices.Sort(took)
		half := took[len(took)/2]
		t.Logf("%s: %d calls, %d found the passage, %d of %d by words, %d refused, half of them within %s", stage, len(calls), found, byWords, words, refused, half)
		if 2*byWords < words { // not all: on a busy machine words too may take more than the deadline
			t.Errorf("%s: words alone found it in %d of %d calls", stage, byWords, words)
		}
		sc.Figure(stage+"_p50", half)
		if away && (found > 0 || refused == 0) {
			t.Errorf("%s: %d calls found the passage, %d were refused", stage, found, refused)
		}
		if away && half > 2*time.Second { // the deadline is 150 ms; a search of Milvus would wait for 5 s
			t.Errorf("%s: half of the calls took more than %s", stage, half)
		}
	}
	back := func(what string) {
		t.Helper()
		clients.in(t, "until "+what, 0)
		eventually(t, 2*time.Minute, what, strict)
		look(what, false)
	}
	look("whole", false)

	way.pause()
	look("slow", true)
	way.resume()
	back("fast again")

	way.sever()
	look("cut off", true)
	way.mend()
	back("connected again")

	pid := milvus.PIDs("MILVUS_PID")[0]
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	look("frozen", true)
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	back("thawed")

	if err := milvus.Stop(); err != nil {
		t.Fatal(err)
	}
	look("stopped", true)
	eventually(t, 20*time.Second, "metrics say that it is away", func() bool {
		return strings.Contains(string(ask(t, http.MethodGet, g.OpsURL+"/metrics", "", nil).body), `bulkhead_backend_up{backend="milvus"} 0`)
	})
	s := shelf{g, c.APIKey}
	late := s.upload(t, "late.txt", []byte("The roof garden opens in May."))
	s.do(t, http.StatusOK, http.MethodPost, "/vector_stores/"+store+"/files", map[string]any{"file_id": late})
	eventually(t, time.Minute, "the file was tried", func() bool {
		return !strings.Contains(string(ask(t, http.MethodGet, g.OpsURL+"/metrics", "", nil).body), "\nbulkhead_ingest_jobs_retried_total 0\n")
	})
	if o := s.do(t, http.StatusOK, http.MethodGet, "/vector_stores/"+store+"/files/"+late, nil); o["status"] != "in_progress" {
		t.Errorf("without Milvus a file is %v", o["status"])
	}
	if err := milvus.Again(t.Context()); err != nil {
		t.Fatal(err)
	}
	back("started again")
	clients.end()
	eventually(t, 3*time.Minute, "the file that waited is taken in", func() bool {
		return s.do(t, http.StatusOK, http.MethodGet, "/vector_stores/"+store+"/files/"+late, nil)["status"] == "completed"
	})
	hits := s.do(t, http.StatusOK, http.MethodPost, "/vector_stores/"+store+"/search", map[string]any{"query": "When can we sit among the plants on top of the building?"})
	if !strings.Contains(fmt.Sprint(hits["data"]), "roof garden") {
		t.Errorf("the file that waited is not found: %v", hits)
	}

	var usage struct {
		Data []struct {
			Results []struct {
				Tokens int64 `json:"input_tokens"`
				Calls  int64 `json:"num_model_requests"`
			}
		}
	}
	eventually(t, 20*time.Second, "embeddings are on the ledger", func() bool {
		g.call(t, http.MethodGet, fmt.Sprintf("%s/v1/organization/usage/embeddings?start_time=%d", g.URL, time.Now().Add(-time.Hour).Unix()), c.AdminKey, nil, &usage)
		for _, bucket := range usage.Data {
			for _, r := range bucket.Results {
				if r.Tokens > 0 && r.Calls >= 3 { // of two files, and the question
					return true
				}
			}
		}
		return false
	})
}

// TestCheckMilvus: gateway check reaches Milvus, and says what is wrong with it.
func TestCheckMilvus(t *testing.T) {
	server := servers.Start(t, "milvus")
	g := prepare(t, "")
	found(t, g.check(t, "BULKHEAD_MILVUS_ADDR="+server.Var("MILVUS_ADDR")), "milvus", "ok", "it answers")
	found(t, g.check(t, "BULKHEAD_MILVUS_ADDR=127.0.0.1:1"), "milvus", "failed", "cannot be reached")
	found(t, g.check(t, "BULKHEAD_MILVUS_ADDR=milvus"), "configuration", "failed", "must be HOST:PORT")
	found(t, g.check(t, "BULKHEAD_EMBEDDINGS_MODEL=m"), "configuration", "failed", "must be set where another key of embeddings is")
}
