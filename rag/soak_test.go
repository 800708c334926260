package rag

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"bulkhead/tenant"
	"bulkhead/test/scale"
	"bulkhead/test/servers"
	"bulkhead/vector"
)

// Companies with near-identical documents in stores and files of the same names,
// asked thousands of questions at the same time: no passage is another's, each
// question finds its own, and nothing is dropped as foreign either.

func TestSoakCompaniesLocal(t *testing.T) {
	r := scale.Of(t)
	soakCompanies(t, r, newLibrary(t))
}

func TestSoakCompaniesMilvus(t *testing.T) {
	r := scale.Of(t)
	server := servers.Start(t, "milvus")
	w := newLibrary(t)
	x := vector.OpenMilvus(vector.MilvusOptions{Addr: server.Var("MILVUS_ADDR"), Search: 30 * time.Second, Violation: func() { w.foreign.Add(1) }})
	t.Cleanup(func() { x.Close() })
	w.index = x
	soakCompanies(t, r, w)
}

var soakTopics = []string{"returns", "shipping", "warranty", "holidays", "travel costs", "passwords", "laptops", "the canteen", "parking", "invoices"}

func soakCompanies(t *testing.T, r *scale.Run, w *library) {
	companies, questions := scale.Pick(r, 8, 200), scale.Pick(r, 400, 20_000)
	var all []tenant.Scope
	for i := range companies {
		s := w.scope("Same name")
		all = append(all, s)
		var texts []string
		for j, topic := range soakTopics {
			text := fmt.Sprintf("The rule about %s is the same for everybody: ask the office. Copy number %d of the handbook.", topic, i)
			w.put(s, "vs_handbook", fmt.Sprintf("file-%d", j), text)
			texts = append(texts, text)
		}
		// And once more in a file that no other has: of one with the same name the
		// company's own text is read back, whoever's the hit is.
		w.put(s, "vs_handbook", fmt.Sprintf("file-of-%d", i), texts...)
	}
	stamp, err := w.index.Settle(t.Context(), all[0], "vs_handbook")
	if err != nil {
		t.Fatal(err)
	}
	w.stamp = stamp
	o := w.options()
	o.SearchDeadline = time.Minute
	retriever := NewRetriever(o)
	var foreign, missed, asked atomic.Int64
	var group sync.WaitGroup
	for range 8 {
		dice := r.Rand()
		group.Go(func() {
			for range questions / 8 {
				i := dice.IntN(companies)
				topic := soakTopics[dice.IntN(len(soakTopics))]
				most := 5
				if dice.IntN(10) == 0 {
					most = 50 // more than the company has: a foreign hit would be among the best
				}
				found, err := retriever.Search(t.Context(), all[i], Query{Text: []string{"What is the rule about " + topic + "?"}, Stores: w.stores(all[i], "vs_handbook"), TopK: most})
				if err != nil {
					t.Error(err)
					return
				}
				asked.Add(1)
				own := fmt.Sprintf("Copy number %d of", i)
				for _, p := range found {
					if !strings.Contains(p.Text, own) {
						foreign.Add(1)
					}
				}
				if len(found) == 0 || !strings.Contains(found[0].Text, topic) {
					missed.Add(1)
				}
			}
		})
	}
	group.Wait()
	r.Figure("questions", asked.Load())
	r.Figure("foreign passages", foreign.Load())
	t.Logf("%d companies, %d questions: %d foreign passages, %d questions missed, %d foreign hits dropped", companies, asked.Load(), foreign.Load(), missed.Load(), w.foreign.Load())
	if foreign.Load()+missed.Load()+w.foreign.Load() != 0 {
		t.Error("there must be none of these")
	}
}
