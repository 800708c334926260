package rag

import (
	"context"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"bulkhead/tenant"
	"bulkhead/test/scale"
	"bulkhead/test/servers"
	"bulkhead/vector"
)

// drawn is an embedder that takes no time: 384 numbers drawn by the text.
type drawn struct{}

func (drawn) ID(tenant.Scope) string { return "drawn" }

func (drawn) Embed(_ context.Context, _ tenant.Scope, texts []string) ([][]float32, string, error) {
	all := make([][]float32, len(texts))
	for i, text := range texts {
		h := fnv.New64a()
		h.Write([]byte(text))
		r := rand.New(rand.NewPCG(h.Sum64(), 0))
		all[i] = make([]float32, 384)
		for j := range all[i] {
			all[i][j] = r.Float32() - 0.5
		}
	}
	return all, "drawn", nil
}

// What looking up adds to a call, without the embedder: many companies of 500
// chunks each, asked one after the other at random.

func TestLatencyLocal(t *testing.T) {
	r := scale.Of(t)
	w := newLibrary(t)
	w.index = vector.NewLocal(VectorSource{w}, vector.LocalOptions{Bytes: 4 << 30})
	latency(t, r, w)
}

func TestLatencyMilvus(t *testing.T) {
	r := scale.Of(t)
	server := servers.Start(t, "milvus")
	w := newLibrary(t)
	x := vector.OpenMilvus(vector.MilvusOptions{Addr: server.Var("MILVUS_ADDR"), Search: 30 * time.Second})
	t.Cleanup(func() { x.Close() })
	w.index = x
	latency(t, r, w)
}

func latency(t *testing.T, r *scale.Run, w *library) {
	const chunks = 500
	companies, questions := scale.Pick(r, 10, 1000), scale.Pick(r, 500, 20_000)
	w.embed = drawn{}
	var all []tenant.Scope
	for i := range companies {
		s := w.scope(fmt.Sprint("company ", i))
		texts := make([]string, chunks)
		for j := range texts {
			texts[j] = fmt.Sprintf("Paragraph %d of company %d: the rule about topic%d and topic%d is kept by office%d.", j, i, j%40, j%7, j%11)
		}
		w.put(s, "vs_1", "file-1", texts...)
		all = append(all, s)
	}
	stamp, err := w.index.Settle(t.Context(), all[0], "vs_1")
	if err != nil {
		t.Fatal(err)
	}
	w.stamp = stamp
	o := w.options()
	o.Deadline = 30 * time.Second
	retriever := NewRetriever(o)
	dice := r.Rand()
	ask := func(s tenant.Scope) time.Duration {
		q := Query{Text: []string{fmt.Sprintf("What is the rule about topic%d at office%d?", dice.IntN(40), dice.IntN(11))}, Stores: w.stores(s, "vs_1"), TopK: 5}
		begun := time.Now()
		found, err := retriever.Find(t.Context(), s, q)
		if err != nil || found.Missing != nil || len(found.Passages) != 5 {
			t.Fatalf("%d passages, missing %v, %v", len(found.Passages), found.Missing, err)
		}
		return time.Since(begun)
	}
	for _, s := range all {
		ask(s) // brings it into memory
	}
	times := make([]time.Duration, questions)
	for i := range times {
		times[i] = ask(all[dice.IntN(len(all))])
	}
	slices.Sort(times)
	p50, p99 := times[len(times)/2], times[len(times)*99/100]
	r.Figure("companies", companies)
	r.Figure("p50", p50.String())
	r.Figure("p99", p99.String())
	t.Logf("%d companies of %d chunks, %d questions: p50 %s, p99 %s", companies, chunks, questions, p50, p99)
	if p50 > 50*time.Millisecond {
		t.Errorf("half of the questions take more than %s", p50)
	}
}
