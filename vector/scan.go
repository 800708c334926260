package vector

import (
	"slices"
	"sync"
)

// scan is one search of a Local: what is asked, and the best of what was seen. A
// chunk that is scanned allocates nothing.
type scan struct {
	query []float32 // a unit vector
	dim   int
	limit int
	least float32
	files []string // nil: all
	best  []found  // a heap, the worst first
}

type found struct {
	store string
	part  *part
	at    int32 // which of its vectors
	score float32
}

var scans = sync.Pool{New: func() any { return new(scan) }}

func (c *scan) begin(sp Space, q *Query) {
	c.dim, c.limit, c.files = sp.Dim, q.Limit, q.Files
	c.least = -2
	if q.MinScore > 0 {
		c.least = q.MinScore
	}
	c.query = append(c.query[:0], q.Vector...)
	l, _ := length(sp, q.Vector) // was checked
	for i := range c.query {
		c.query[i] /= l
	}
	c.best = slices.Grow(c.best[:0], q.Limit)
}

// seen reports whether a store stands among those before it.
func (c *scan) seen(before []Store, id string) bool {
	return slices.ContainsFunc(before, func(st Store) bool { return st.ID == id })
}

// store scans one store.
func (c *scan) store(id string, parts []part) {
	for i := range parts {
		p := &parts[i]
		if c.files != nil && !slices.Contains(c.files, p.ID) {
			continue
		}
		for at := range p.chunks {
			score := dot(c.query, p.flat[at*c.dim:(at+1)*c.dim])
			if score >= c.least {
				c.add(found{id, p, int32(at), score})
			}
		}
	}
}

// dot is the product of two vectors of the same size. Four sums at a time leave
// the processor something to do while it waits for one.
func dot(a, b []float32) float32 {
	b = b[:len(a)]
	var s0, s1, s2, s3, s4, s5, s6, s7 float32
	i := 0
	for ; i+8 <= len(a); i += 8 {
		x, y := a[i:i+8:i+8], b[i:i+8:i+8]
		s0 += x[0] * y[0]
		s1 += x[1] * y[1]
		s2 += x[2] * y[2]
		s3 += x[3] * y[3]
		s4 += x[4] * y[4]
		s5 += x[5] * y[5]
		s6 += x[6] * y[6]
		s7 += x[7] * y[7]
	}
	for ; i < len(a); i++ {
		s0 += a[i] * b[i]
	}
	return ((s0 + s4) + (s1 + s5)) + ((s2 + s6) + (s3 + s7))
}

// add keeps f if it is among the best.
func (c *scan) add(f found) {
	h := c.best
	if len(h) < c.limit {
		h = append(h, f)
		for i := len(h) - 1; i > 0; {
			up := (i - 1) / 2
			if !h[i].worse(&h[up]) {
				break
			}
			h[i], h[up] = h[up], h[i]
			i = up
		}
		c.best = h
		return
	}
	if !h[0].worse(&f) {
		return
	}
	h[0] = f
	for i := 0; ; {
		down := 2*i + 1
		if down >= len(h) {
			return
		}
		if down+1 < len(h) && h[down+1].worse(&h[down]) {
			down++
		}
		if !h[down].worse(&h[i]) {
			return
		}
		h[i], h[down] = h[down], h[i]
		i = down
	}
}

// worse reports whether f comes behind o.
func (f *found) worse(o *found) bool {
	if f.score != o.score {
		return f.score < o.score
	}
	return less(o.hit(), f.hit())
}

func (f *found) hit() Hit {
	return Hit{Ref{f.store, f.part.ID, int(f.part.chunks[f.at])}, f.score}
}

// hits returns the best, nearest first, and lets go of the stores.
func (c *scan) hits() []Hit {
	out := make([]Hit, len(c.best))
	for i := range c.best {
		out[i] = c.best[i].hit()
	}
	clear(c.best)
	c.files = nil
	sortHits(out)
	return out
}
