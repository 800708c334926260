package vector

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"bulkhead/test/servers"
)

// randomParts returns n unit vectors in some files.
func randomParts(sp Space, n int) (parts []part) {
	r := rand.New(rand.NewPCG(1, 2))
	for f := 0; n > 0; f++ {
		p := part{File: File{ID: fmt.Sprint("file-", f)}}
		for i := range min(n, 50) {
			if err := p.add(sp, i, randomVector(r, sp.Dim)); err != nil {
				panic(err)
			}
		}
		n -= 50
		parts = append(parts, p)
	}
	return parts
}

func randomVector(r *rand.Rand, dim int) []float32 {
	v := make([]float32, dim)
	for i := range v {
		v[i] = r.Float32() - 0.5
	}
	return v
}

// The heap keeps what sorting everything would.
func TestScanIsExact(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for _, dim := range []int{1, 7, 8, 13, 384} {
		sp := Space{"one", dim}
		for _, n := range []int{1, 10, 137} {
			parts := randomParts(sp, n)
			q := Query{Vector: randomVector(r, dim), Limit: 10}
			var c scan
			c.begin(sp, &q)
			c.store("vs_1", parts)
			got := c.hits()
			var want []Hit
			for i := range parts {
				p := &parts[i]
				for at := range p.chunks {
					sum := dot(c.query, p.flat[at*dim:(at+1)*dim])
					want = append(want, Hit{Ref{"vs_1", p.ID, int(p.chunks[at])}, sum})
				}
			}
			sortHits(want)
			if want = want[:min(len(want), 10)]; !slices.Equal(got, want) {
				t.Errorf("%d vectors of %d: got %v, want %v", n, dim, got, want)
			}
		}
	}
}

// dot is what the sum of products is.
func TestDot(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for n := range 40 {
		a, b := randomVector(r, n), randomVector(r, n)
		var sum float64
		for i := range a {
			sum += float64(a[i]) * float64(b[i])
		}
		if d := float64(dot(a, b)) - sum; d > 1e-5 || d < -1e-5 {
			t.Errorf("of %d: off by %v", n, d)
		}
	}
}

// A chunk that is scanned allocates nothing: ten times the chunks, as many
// allocations.
func TestScanAllocs(t *testing.T) {
	servers.SkipRace(t, "it counts allocations")
	sp := Space{"one", 384}
	q := Query{Vector: randomVector(rand.New(rand.NewPCG(7, 8)), 384), Limit: 20}
	count := func(n int) float64 {
		parts := randomParts(sp, n)
		return testing.AllocsPerRun(20, func() {
			c := scans.Get().(*scan)
			c.begin(sp, &q)
			c.store("vs_1", parts)
			c.hits()
			scans.Put(c)
		})
	}
	few, many := count(500), count(5000)
	if few != many || many > 1 { // the hits
		t.Errorf("%v allocations for 500 chunks, %v for 5000", few, many)
	}
}

func BenchmarkScan(b *testing.B) {
	sp := Space{"one", 384}
	parts := randomParts(sp, 500)
	q := Query{Vector: randomVector(rand.New(rand.NewPCG(7, 8)), 384), Limit: 20}
	b.ReportAllocs()
	for b.Loop() {
		c := scans.Get().(*scan)
		c.begin(sp, &q)
		c.store("vs_1", parts)
		c.hits()
		scans.Put(c)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/500, "ns/chunk")
}
